"""What positions require: Regulation T for stocks and options, scenarios for futures.

Positions are taken together by what they are on: a stock with its options, all months of a future with their
options, everything else by itself.

* Stocks: 50 % of the value to open, 25 % to keep; pairs 2 %, CFDs 20 %, other kinds their full value.
* Options that are owned require what they are worth. An option sold against stock (a call against shares, a put
  against shares sold short) requires nothing more; one sold against an option that is owned, of the same right
  and no earlier expiry, the width between the strikes where that is against the account. Any other option sold
  requires 20 % of what it is on, less what it is out of the money, at least 10 %. Premium received is in the
  account's cash and, as a debt, in its equity already.
* Futures and their options: the largest loss of all of them together when the price moves by up to 10 % either
  way (in four steps); 90 % of that to keep.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal

import msgspec

from bt_ibkr.emulator.accounts.valuation import exact
from bt_ibkr.emulator.market import pricing
from bt_ibkr.emulator.market.derived import expiry_ns
from bt_ibkr.emulator.types import Instrument
from bt_ibkr.model.contract import SecurityType

ZERO = Decimal(0)
_ONE = Decimal(1)
_INITIAL = {
    SecurityType.STOCK: Decimal("0.50"),
    SecurityType.FUND: Decimal("0.50"),
    SecurityType.FOREX: Decimal("0.02"),
    SecurityType.CFD: Decimal("0.20"),
}
_MAINTENANCE = {
    SecurityType.STOCK: Decimal("0.25"),
    SecurityType.FUND: Decimal("0.25"),
    SecurityType.FOREX: Decimal("0.02"),
    SecurityType.CFD: Decimal("0.20"),
}
_FUTURES = frozenset({SecurityType.FUTURE, SecurityType.FUTURE_OPTION})
_NAKED, _NAKED_LEAST = Decimal("0.20"), Decimal("0.10")
_SCAN = tuple(Decimal(step) / 40 for step in range(-4, 5))
_FUTURES_KEPT = Decimal("0.90")


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """A position: signed quantity, the instrument's price and that of what it is on."""

    instrument: Instrument
    quantity: Decimal
    price: Decimal
    underlying: Decimal | None = None

    @property
    def size(self) -> Decimal:
        """Units of what it is on."""
        return self.quantity * exact(self.instrument.contract.multiplier)

    @property
    def value(self) -> Decimal:
        return self.size * self.price


def group_of(instrument: Instrument) -> tuple[str, int | str]:
    """What an instrument is taken together with."""
    contract = instrument.contract
    if contract.security_type in _FUTURES:
        return "futures", contract.symbol
    option = contract.security_type is SecurityType.OPTION
    return "stocks", (instrument.underlying_conid if option else 0) or contract.conid


def requirement(held: Iterable[Held], *, now_ns: int, credit: bool) -> tuple[Decimal, Decimal]:
    """Initial and maintenance margin of one group, in its currency.

    Args:
        held: All positions of the group.
        now_ns: Market time.
        credit: False in an account that is lent nothing: stocks and the like require their full value.
    """
    positions = [one for one in held if one.quantity]
    if positions and positions[0].instrument.contract.security_type in _FUTURES:
        worst = _worst(positions, now_ns)
        return worst, worst * _FUTURES_KEPT
    initial = maintenance = ZERO
    for one in positions:
        kind = one.instrument.contract.security_type
        if kind is not SecurityType.OPTION:
            initial += abs(one.value) * (_INITIAL.get(kind, _ONE) if credit else _ONE)
            maintenance += abs(one.value) * (_MAINTENANCE.get(kind, _ONE) if credit else _ONE)
    options = _options(positions)
    return initial + options, maintenance + options


def _worst(positions: list[Held], now_ns: int) -> Decimal:
    """The largest loss over the scenarios, 0 if there is none."""
    return max(ZERO, *(-_change(positions, move, now_ns) for move in _SCAN))


def _change(positions: list[Held], move: Decimal, now_ns: int) -> Decimal:
    return sum((one.size * (_moved(one, move, now_ns) - one.price) for one in positions), ZERO)


def _moved(one: Held, move: Decimal, now_ns: int) -> Decimal:
    contract = one.instrument.contract
    if contract.security_type is SecurityType.FUTURE or one.underlying is None or not contract.strike:
        return one.price * (1 + move)
    left = pricing.years(now_ns, expiry_ns(one.instrument))
    volatility, call = one.instrument.annual_volatility, contract.right == "C"

    def worth(at: Decimal) -> Decimal:
        return Decimal(repr(pricing.value(float(at), contract.strike or 0.0, left, volatility, call=call)))

    # the model's change on top of the present price: nothing moves, nothing is lost
    return max(one.price + worth(one.underlying * (1 + move)) - worth(one.underlying), ZERO)


def _options(positions: list[Held]) -> Decimal:
    """What the options of a group require, next to its stock."""
    options = [one for one in positions if one.instrument.contract.security_type is SecurityType.OPTION]
    if not options:
        return ZERO
    shares = sum(
        (one.size for one in positions if one.instrument.contract.security_type is not SecurityType.OPTION),
        ZERO,
    )
    owned = {id(one): abs(one.size) for one in options if one.quantity > 0}
    total = sum((one.value for one in options if one.quantity > 0), ZERO)
    for sold in sorted((one for one in options if one.quantity < 0), key=_strike):
        call = sold.instrument.contract.right == "C"
        left = abs(sold.size)
        covered = min(left, max(shares if call else -shares, ZERO))
        shares -= covered if call else -covered
        left -= covered
        for one in sorted((o for o in options if o.quantity > 0 and _protects(o, sold)), key=_width(sold)):
            paired = min(left, owned[id(one)])
            if paired:
                owned[id(one)] -= paired
                left -= paired
                # its own worth is counted in full above; against it stands what the other one is worth
                total += paired * (_width(sold)(one) - sold.price)
        total += left * _naked(sold)
    return max(total, ZERO)


def _strike(one: Held) -> Decimal:
    return exact(one.instrument.contract.strike or 0.0)


def _protects(owned: Held, sold: Held) -> bool:
    mine, other = owned.instrument.contract, sold.instrument.contract
    return mine.right == other.right and (mine.last_trade_date or "") >= (other.last_trade_date or "")


class _Width:
    """How far the strikes stand apart against the account; 0 if they do not."""

    def __init__(self, sold: Held) -> None:
        self._sold = sold

    def __call__(self, owned: Held) -> Decimal:
        call = self._sold.instrument.contract.right == "C"
        apart = _strike(owned) - _strike(self._sold)
        return max(apart if call else -apart, ZERO)


def _width(sold: Held) -> _Width:
    return _Width(sold)


def _naked(sold: Held) -> Decimal:
    """Per unit of what it is on."""
    strike, call = _strike(sold), sold.instrument.contract.right == "C"
    price = sold.underlying if sold.underlying is not None else strike
    out = max(strike - price if call else price - strike, ZERO)
    return max(_NAKED * price - out, _NAKED_LEAST * (price if call else strike))


def by_group(held: Mapping[int, Held]) -> dict[tuple[str, int | str], list[Held]]:
    """Positions by what they are on."""
    groups: dict[tuple[str, int | str], list[Held]] = {}
    for one in held.values():
        groups.setdefault(group_of(one.instrument), []).append(one)
    return groups
