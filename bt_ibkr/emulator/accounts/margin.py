"""Whether an account can afford an order.

``reg_t``: half of the value of stocks is lent when they are bought (Regulation T's initial margin), a quarter
must be kept (maintenance); pairs need 2 %, futures 10 % of their value. The figures of other instruments are
those of stocks, without credit. Cash accounts pay in full and sell only what they own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal

import msgspec

from bt_ibkr.emulator.accounts.account import ZERO, Account
from bt_ibkr.emulator.accounts.valuation import Valuation, exact
from bt_ibkr.emulator.types import EmulatedOrder
from bt_ibkr.model.contract import SecurityType
from bt_ibkr.model.order import Side

_INITIAL = {
    SecurityType.STOCK: Decimal("0.50"),
    SecurityType.FUND: Decimal("0.50"),
    SecurityType.FOREX: Decimal("0.02"),
    SecurityType.FUTURE: Decimal("0.10"),
    SecurityType.CFD: Decimal("0.20"),
}
_MAINTENANCE = {
    SecurityType.STOCK: Decimal("0.25"),
    SecurityType.FUND: Decimal("0.25"),
    SecurityType.FOREX: Decimal("0.02"),
    SecurityType.FUTURE: Decimal("0.09"),
    SecurityType.CFD: Decimal("0.20"),
}
_FULL = Decimal(1)


class Intended(msgspec.Struct, frozen=True, kw_only=True):
    """An order as margin sees it: what it may add to a position, and at what price it would."""

    conid: int
    side: Side
    quantity: Decimal
    price: Decimal | None
    commission: Decimal = ZERO


class MarginFigures(msgspec.Struct, frozen=True, kw_only=True):
    """Equity with loan and margins in the base currency."""

    equity: Decimal
    initial: Decimal
    maintenance: Decimal


def intended(order: EmulatedOrder) -> Intended:
    """What is left of a working order."""
    price = order.spec.limit_price if order.spec.limit_price is not None else order.stop_price
    return Intended(
        conid=order.spec.conid,
        side=order.spec.side,
        quantity=order.remaining,
        price=None if price is None else exact(price),
    )


class Margin:
    """Margin requirements of accounts.

    Args:
        policy: ``reg_t`` or ``off``.
        valuation: Present prices and rates.
    """

    def __init__(self, policy: str, valuation: Valuation) -> None:
        self.policy = policy
        self._valuation = valuation

    def figures(self, account: Account, orders: Iterable[Intended] = ()) -> MarginFigures:
        """Margins of the positions as they would stand if the orders filled in the worst way.

        Buys and sales of one instrument are not netted against each other: the larger of the two outcomes
        counts.
        """
        initial = maintenance = ZERO
        for conid, (exposure, price) in self._exposures(account, orders).items():
            contract = self._valuation.instrument(conid).contract
            value = exposure * price * exact(contract.multiplier)
            value *= self._valuation.rate(contract.currency, account.currency)
            full = account.kind == "cash" and contract.security_type is not SecurityType.FUTURE
            initial += value * (_FULL if full else _INITIAL.get(contract.security_type, _FULL))
            maintenance += value * (_FULL if full else _MAINTENANCE.get(contract.security_type, _FULL))
        return MarginFigures(equity=account.net_liquidation(), initial=initial, maintenance=maintenance)

    def _exposures(
        self, account: Account, orders: Iterable[Intended]
    ) -> Mapping[int, tuple[Decimal, Decimal]]:
        """Largest absolute position and its price, by conid."""
        buys: dict[int, Decimal] = {}
        sales: dict[int, Decimal] = {}
        prices: dict[int, Decimal] = {}
        for order in orders:
            side = buys if order.side is Side.BUY else sales
            side[order.conid] = side.get(order.conid, ZERO) + order.quantity
            known = self._valuation.price(order.conid)
            price = known if known is not None else order.price
            if price is not None:
                prices[order.conid] = price
        found: dict[int, tuple[Decimal, Decimal]] = {}
        for conid in dict.fromkeys([*account.holdings(), *buys, *sales]):
            held = account.quantity(conid)
            exposure = max(abs(held + buys.get(conid, ZERO)), abs(held - sales.get(conid, ZERO)))
            price = prices.get(conid) or self._valuation.price(conid) or self._cost_price(account, conid)
            found[conid] = (exposure, price)
        return found

    def _cost_price(self, account: Account, conid: int) -> Decimal:
        held = account.quantity(conid)
        if not held:
            return ZERO
        multiplier = exact(self._valuation.instrument(conid).contract.multiplier)
        return account.holdings()[conid].paid / held / multiplier

    def refusal(self, account: Account, order: Intended, working: Iterable[Intended]) -> str | None:
        """Why the account cannot take the order on top of its working ones; ``None`` if it can.

        An order that does not raise the margin is always taken: closing must be possible.
        """
        if self.policy == "off":
            return None
        others = list(working)
        if account.kind == "cash":
            return self._cash_refusal(account, order, others)
        before = self.figures(account, others)
        after = self.figures(account, [*others, order])
        if after.initial <= before.initial:
            return None
        commission = order.commission * self._valuation.rate(
            self._valuation.instrument(order.conid).contract.currency, account.currency
        )
        if after.initial + commission <= after.equity:
            return None
        needed = after.initial - before.initial + commission
        return _insufficient(account, before.equity - before.initial, needed)

    def _cash_refusal(self, account: Account, order: Intended, working: list[Intended]) -> str | None:
        contract = self._valuation.instrument(order.conid).contract
        if contract.security_type is not SecurityType.FOREX and order.side is Side.SELL:
            sold = sum((o.quantity for o in working if o.conid == order.conid and o.side is Side.SELL), ZERO)
            if sold + order.quantity <= account.quantity(order.conid):
                return None
            return "This account cannot hold short positions."
        needed = sum((self._price_of(account, one) for one in [*working, order]), ZERO)
        available = account.cash()
        return None if needed <= available else _insufficient(account, available, needed)

    def _price_of(self, account: Account, order: Intended) -> Decimal:
        """What a purchase costs, in the base currency; sales of a pair cost its first currency."""
        contract = self._valuation.instrument(order.conid).contract
        if contract.security_type is SecurityType.FOREX and order.side is Side.SELL:
            held = contract.symbol.partition(".")[0]
            return max(ZERO, order.quantity - account.cash(held)) * self._valuation.rate(
                held, account.currency
            )
        if order.side is Side.SELL:
            return ZERO
        known = self._valuation.price(order.conid)
        price = order.price if order.price is not None else known if known is not None else ZERO
        value = order.quantity * price * exact(contract.multiplier) + order.commission
        return value * self._valuation.rate(contract.currency, account.currency)


def _insufficient(account: Account, available: Decimal, needed: Decimal) -> str:
    # clients of the real server look for "Available converted to base" and "Cash needed"
    return (
        f"Available converted to base: {available:.2f} {account.currency} "
        f"Cash needed for this order and other pending orders: {needed:.2f} {account.currency}"
    )
