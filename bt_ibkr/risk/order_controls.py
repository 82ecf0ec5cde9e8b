"""What one order is: its size, its value, its prices."""

from __future__ import annotations

from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import Final

from bt_ibkr.model.order import OrderType, Side
from bt_ibkr.risk.controls import Control
from bt_ibkr.risk.limits import Scope
from bt_ibkr.risk.submission import Case, plain
from bt_ibkr.risk.view import decimal

#: A band is at least this many price steps wide: percents of a price near 0 are no room.
BAND_TICKS: Final = 10
_HUNDRED: Final = Decimal(100)
#: Their limit belongs to their own trigger, not to the market.
_TRIGGERED: Final = frozenset({OrderType.STOP_LIMIT, OrderType.LIMIT_IF_TOUCHED, OrderType.TRAIL_LIMIT})


class Tick(Control):
    """Limit and stop prices between two price steps of the contract."""

    name = "tick"
    fields = ("check_tick",)
    spares_reducing = False

    def check(self, case: Case, scope: Scope) -> None:
        if case.rules is None:
            return
        for what, given in (("limit", case.ticket.limit_price), ("stop", case.ticket.stop_price)):
            if given is None:
                continue
            price = decimal(given)
            step = case.rules.tick_at(price)
            if step is None or is_multiple(price, step):
                continue
            below, above = neighbours(price, step)
            self.refuse(
                case,
                scope,
                "check_tick",
                value=price,
                limit=step,
                why=f"its {what} price {plain(price)} is no multiple of the price step {plain(step)} of "
                f"{case.symbol}",
                remedy=f"Give {plain(below)} or {plain(above)} (the broker's round_prices does)",
                change=f"set {scope.place('check_tick')} to false",
            )


class Lot(Control):
    """Quantities between two size steps of the contract, unless that is the whole of a position that is closed."""

    name = "lot"
    fields = ("check_lot",)
    spares_reducing = False

    def check(self, case: Case, scope: Scope) -> None:
        size = case.ticket.quantity
        step = None if case.rules is None else case.rules.size_increment
        if case.cash is not None or step is None or step <= 0 or is_multiple(size, step):
            return
        if case.submission.reducing and size == abs(case.position or 0):
            return
        below, above = neighbours(size, step)
        instead = f"{plain(below)} or {plain(above)}" if below else plain(above)
        self.refuse(
            case,
            scope,
            "check_lot",
            value=size,
            limit=step,
            why=f"its size {plain(size)} is no multiple of the size step {plain(step)} of {case.symbol}",
            remedy=f"Give {instead}",
            change=f"set {scope.place('check_lot')} to false",
        )


class OrderSize(Control):
    """Orders of more units than that."""

    name = "max_order_size"
    fields = ("max_order_size",)

    def check(self, case: Case, scope: Scope) -> None:
        limit = scope.limits.max_order_size
        if limit is None:
            return
        units = case.units
        if units is None:
            self.refuse(
                case,
                scope,
                "max_order_size",
                value="not known",
                why=f"max_order_size is {plain(limit)}, and how many units the order comes to cannot be told without "
                f"a price of {case.symbol}",
                remedy="Wait for market data, or give a size",
            )
        if units > limit:
            self.refuse(
                case,
                scope,
                "max_order_size",
                value=units,
                why=f"its size {plain(units)} of {case.symbol} is above max_order_size {plain(limit)}",
                remedy=f"Order {plain(limit)} at most",
            )


class OrderNotional(Control):
    """Orders that move more money than that, at the worst price they could have."""

    name = "max_order_notional"
    fields = ("max_order_notional",)

    def check(self, case: Case, scope: Scope) -> None:
        limit = scope.limits.max_order_notional
        if limit is None:
            return
        value = case.notional
        if value is None:
            lacking = "an exchange rate" if case.rate is None else f"a price of {case.symbol}"
            self.refuse(
                case,
                scope,
                "max_order_notional",
                value="not known",
                why=f"max_order_notional is {plain(limit)}, and the order's value cannot be told without {lacking}",
                remedy="Wait for market data",
            )
        if value > limit:
            self.refuse(
                case,
                scope,
                "max_order_notional",
                value=value,
                why=f"its value {money(value)} in {case.symbol} is above max_order_notional {plain(limit)} (both in "
                "the account's base currency)",
                remedy="Order less",
            )


class PriceBand(Control):
    """Limit and stop prices too far from the market, or from the order's own trigger."""

    name = "price_band"
    fields = ("price_band_percent", "passive_band_percent", "stop_band_percent")
    spares_reducing = False

    def check(self, case: Case, scope: Scope) -> None:
        ticket = case.ticket
        market = case.market if self._fresh(case, scope) else None
        trigger = None if ticket.stop_price is None else decimal(ticket.stop_price)
        sign = ticket.side.sign
        if ticket.limit_price is not None:
            limit = decimal(ticket.limit_price)
            triggered = ticket.order_type in _TRIGGERED
            base = trigger if triggered else market
            against = "its trigger" if triggered else ("the ask" if ticket.side is Side.BUY else "the bid")
            if base is not None:
                # Above 0 where it gives money away.
                distance = (limit - base) * sign
                field = "price_band_percent" if distance > 0 else "passive_band_percent"
                self._held(case, scope, field, "limit", limit, base, against)
        if trigger is not None and market is not None:
            self._held(case, scope, "stop_band_percent", "stop", trigger, market, "the market")

    def _fresh(self, case: Case, scope: Scope) -> bool:
        """Whether the quote is one to measure by. What is not fit to trade on at all, the data control refuses."""
        quote, oldest = case.quote, scope.limits.max_quote_age_s
        return quote is not None and (oldest is None or decimal(quote.age_s) <= oldest)

    def _held(
        self, case: Case, scope: Scope, field: str, what: str, price: Decimal, base: Decimal, against: str
    ) -> None:
        percent: Decimal | None = getattr(scope.limits, field)
        if percent is None:
            return
        step = (None if case.rules is None else case.rules.tick_at(price)) or Decimal(0)
        room = max(abs(base) * percent / _HUNDRED, BAND_TICKS * step)
        distance = abs(price - base)
        if distance <= room:
            return
        far = f" ({distance / abs(base) * _HUNDRED:.1f} %)" if base else ""
        self.refuse(
            case,
            scope,
            field,
            value=price,
            why=f"its {what} price {plain(price)} is {plain(distance)}{far} from {against} {plain(base)} of "
            f"{case.symbol}, more than {field} {plain(percent)} allows ({plain(room)})",
            remedy="Look at the price",
        )


def is_multiple(value: Decimal, step: Decimal) -> bool:
    """Whether ``value`` is a whole number of steps, exactly."""
    count = value / step
    return count == count.to_integral_value() and count.to_integral_value() * step == value


def neighbours(value: Decimal, step: Decimal) -> tuple[Decimal, Decimal]:
    """The multiples of ``step`` below and above."""
    count = value / step
    return (
        count.to_integral_value(ROUND_FLOOR) * step,
        count.to_integral_value(ROUND_CEILING) * step,
    )


def money(value: Decimal) -> str:
    """An amount in hundredths."""
    return f"{value:.2f}"
