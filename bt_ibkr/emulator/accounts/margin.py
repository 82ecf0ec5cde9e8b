"""Whether an account can afford an order.

``reg_t`` asks for what ``requirements`` says of the positions as they would stand. Cash accounts pay in full and
sell only what they own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from decimal import Decimal

import msgspec

from bt_ibkr.emulator.accounts.account import ZERO, Account
from bt_ibkr.emulator.accounts.requirements import Held, by_group, requirement
from bt_ibkr.emulator.accounts.valuation import Valuation, exact
from bt_ibkr.emulator.types import EmulatedOrder
from bt_ibkr.model.contract import Leg, SecurityType
from bt_ibkr.model.order import Side


class Intended(msgspec.Struct, frozen=True, kw_only=True):
    """An order as margin sees it: what it may add to positions, and at what price it would."""

    conid: int
    side: Side
    quantity: Decimal
    price: Decimal | None
    commission: Decimal = ZERO
    legs: tuple[Leg, ...] = ()

    @property
    def changes(self) -> list[tuple[int, Decimal]]:
        """Conids and signed quantities of the positions that it changes."""
        size = self.quantity * self.side.sign
        return [(leg.conid, size * leg.ratio) for leg in self.legs] or [(self.conid, size)]


class MarginFigures(msgspec.Struct, frozen=True, kw_only=True):
    """Equity with loan and margins in the base currency."""

    equity: Decimal
    initial: Decimal
    maintenance: Decimal

    def plus(self, other: MarginFigures) -> MarginFigures:
        """Those of two accounts together."""
        return MarginFigures(
            equity=self.equity + other.equity,
            initial=self.initial + other.initial,
            maintenance=self.maintenance + other.maintenance,
        )


def intended(order: EmulatedOrder) -> Intended:
    """What is left of a working order."""
    price = order.spec.limit_price if order.spec.limit_price is not None else order.stop_price
    return Intended(
        conid=order.spec.conid,
        side=order.spec.side,
        quantity=order.remaining,
        price=None if price is None else exact(price),
        legs=order.spec.legs,
    )


class Margin:
    """Margin requirements of accounts.

    Args:
        policy: ``reg_t`` or ``off``.
        valuation: Present prices and rates.
        clock: Market time.
    """

    def __init__(self, policy: str, valuation: Valuation, clock: Callable[[], int]) -> None:
        self.policy = policy
        self._valuation = valuation
        self._clock = clock

    def figures(self, account: Account, orders: Iterable[Intended] = ()) -> MarginFigures:
        """Margins of the positions as they would stand if the orders filled in the worst way.

        Buys and sales are not netted against each other: of none, the buys, the sales and both the one that
        requires most counts, for each group of positions that are taken together.
        """
        listed = list(orders)
        outcomes = [
            by_group(self._held(account, [one for one in listed if one.side in sides], listed))
            for sides in ((), (Side.BUY,), (Side.SELL,), (Side.BUY, Side.SELL))
        ]
        initial = maintenance = ZERO
        for key in dict.fromkeys(key for outcome in outcomes for key in outcome):
            found = [
                requirement(outcome.get(key, ()), now_ns=self._clock(), credit=account.kind != "cash")
                for outcome in outcomes
            ]
            first = next(outcome[key][0] for outcome in outcomes if outcome.get(key))
            rate = self._valuation.rate(first.instrument.contract.currency, account.currency)
            initial += max(one for one, _ in found) * rate
            maintenance += max(one for _, one in found) * rate
        return MarginFigures(equity=account.net_liquidation(), initial=initial, maintenance=maintenance)

    def _held(self, account: Account, filled: list[Intended], orders: list[Intended]) -> dict[int, Held]:
        """The positions after some of the orders, with their prices."""
        quantities = {conid: holding.quantity for conid, holding in account.holdings().items()}
        for order in filled:
            for conid, change in order.changes:
                quantities[conid] = quantities.get(conid, ZERO) + change
        own = {order.conid: order.price for order in orders}
        found: dict[int, Held] = {}
        for conid, quantity in quantities.items():
            instrument = self._valuation.instrument(conid)
            price = self._valuation.price(conid) or own.get(conid) or self._cost_price(account, conid)
            underlying = None
            if instrument.underlying_conid:
                underlying = self._valuation.price(instrument.underlying_conid)
            found[conid] = Held(instrument=instrument, quantity=quantity, price=price, underlying=underlying)
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
        if contract.security_type is not SecurityType.FOREX:
            sales = [(conid, -change) for conid, change in order.changes if change < 0]
            for conid, sold in sales:
                others = sum((-c for o in working for k, c in o.changes if k == conid and c < 0), ZERO)
                if others + sold > account.quantity(conid):
                    return "This account cannot hold short positions."
            if sales and not order.legs:
                return None
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
        # a spread may bring cash instead
        value = max(order.quantity * price * exact(contract.multiplier), ZERO) + order.commission
        return value * self._valuation.rate(contract.currency, account.currency)


def _insufficient(account: Account, available: Decimal, needed: Decimal) -> str:
    # clients of the real server look for "Available converted to base" and "Cash needed"
    return (
        f"Available converted to base: {available:.2f} {account.currency} "
        f"Cash needed for this order and other pending orders: {needed:.2f} {account.currency}"
    )
