"""What the order would make of the account: positions, open orders, the day's loss."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Final

from bt_ibkr.risk.controls import Control
from bt_ibkr.risk.limits import RiskLimits, Scope
from bt_ibkr.risk.order_controls import money
from bt_ibkr.risk.submission import Case, plain
from bt_ibkr.risk.view import RiskView, decimal

_HUNDRED: Final = Decimal(100)


class PositionLimit(Control):
    """Orders after which a position, with every open order executed, is larger than that, long or short; of a combo
    the positions in its legs."""

    name = "max_position"
    fields = ("max_position_size", "max_position_notional")
    by_book = True

    def check(self, case: Case, scope: Scope) -> None:
        effects = case.effects
        if effects is None:
            self._unknown(case, scope, "the order's size cannot be told without a price of " + case.symbol)
            return
        for conid in effects:
            self._position(case, scope, conid)

    def _position(self, case: Case, scope: Scope, conid: int) -> None:
        account = case.ticket.account
        book = case.book if scope.own else None
        both = case.submission.reach(account, conid, book)
        rules = case.submission.rules(conid)
        name = f"contract {conid}" if rules is None else rules.symbol
        if book is not None:
            name = f"{name} of {book.name}"
        if both is None:
            self._unknown(case, scope, f"the position in {name} is not known")
            return
        before, after = both
        # A side that the order does not take further was beyond the limit before, and is not its fault.
        long = after.high if after.high > before.high else Decimal(0)
        short = -after.low if after.low < before.low else Decimal(0)
        size = max(long, short)
        if size <= 0:
            return
        which = "long" if long >= short else "short"
        became = f"the position in {name} could become {plain(size)} {which} with all open orders"
        limit = scope.limits.max_position_size
        if limit is not None and size > limit:
            self.refuse(
                case,
                scope,
                "max_position_size",
                value=size,
                why=f"{became}, above max_position_size {plain(limit)}",
                remedy="Order less, or cancel open orders",
            )
        limit = scope.limits.max_position_notional
        if limit is None:
            return
        unit = case.unit_value(conid)
        if unit is None:
            self._unknown(
                case, scope, f"the value of {name} cannot be told without a price and an exchange rate"
            )
        elif size * unit > limit:
            self.refuse(
                case,
                scope,
                "max_position_notional",
                value=size * unit,
                why=f"{became}, worth {money(size * unit)}, above max_position_notional {plain(limit)} (both in the "
                "account's base currency)",
                remedy="Order less, or cancel open orders",
            )

    def _unknown(self, case: Case, scope: Scope, why: str) -> None:
        field = next(name for name in reversed(self.fields) if getattr(scope.limits, name) is not None)
        limit: Decimal = getattr(scope.limits, field)
        self.refuse(
            case,
            scope,
            field,
            value="not known",
            why=f"{field} is {plain(limit)}, and {why}",
            remedy="Wait until it is",
        )


class OpenOrders(Control):
    """Orders beyond that many open ones in the account."""

    name = "max_open_orders"
    fields = ("max_open_orders",)
    spares_changes = True

    def check(self, case: Case, scope: Scope) -> None:
        limit = scope.limits.max_open_orders
        if limit is None:
            return
        account = case.ticket.account
        adds = sum(one.ticket.account == account for one in case.submission.cases)
        total = case.submission.view.open_count(account) + adds
        if total > limit:
            self.refuse(
                case,
                scope,
                "max_open_orders",
                value=total,
                why=f"account {account} would have {total} open orders, above max_open_orders {limit}",
                remedy="Cancel orders that are not needed",
            )


class DailyLoss(Control):
    """Orders of an account that has lost that much today. Trading becomes REDUCING until a person resumes it."""

    name = "daily_loss"
    fields = ("daily_loss_limit", "daily_loss_percent")

    def check(self, case: Case, scope: Scope) -> None:
        account, view = case.ticket.account, case.submission.view
        for field in self.fields:
            limit: Decimal | None = getattr(scope.limits, field)
            if limit is None:
                continue
            loss = lost(field, account, view)
            if loss is None:
                self.refuse(
                    case,
                    scope,
                    field,
                    value="not known",
                    why=f"{field} is {plain(limit)}, and the day's profit and loss of account {account} is not known",
                    remedy="Wait until it is",
                )
            if loss >= limit:
                self.refuse(
                    case,
                    scope,
                    field,
                    value=loss,
                    why=beyond(field, account, loss, limit),
                    remedy="Only orders that reduce a position pass",
                )


def lost(field: str, account: str, view: RiskView) -> Decimal | None:
    """The day's loss as ``field`` counts it: money, or percent of what the account was worth before it; 0 or below if
    nothing was lost, ``None`` if it is not known."""
    pnl = view.day_pnl(account)
    if pnl is None or not math.isfinite(pnl):
        return None
    loss = -decimal(pnl)
    if field == "daily_loss_limit":
        return loss
    worth = view.net_liquidation(account)
    if worth is None or not math.isfinite(worth):
        return None
    before = decimal(worth) + loss
    # Whoever lost and had nothing has lost all there was.
    return loss / before * _HUNDRED if before > 0 else (_HUNDRED if loss > 0 else Decimal(0))


def beyond(field: str, account: str, loss: Decimal, limit: Decimal) -> str:
    """The words for a loss that reached its limit."""
    unit = " %" if field == "daily_loss_percent" else " in its base currency"
    return f"account {account} has lost {money(loss)}{unit} today, which reaches {field} {plain(limit)}"


def loss_reached(limits: RiskLimits, account: str, view: RiskView) -> tuple[str, str] | None:
    """The loss limit that the account has reached, and the words for it.

    ``None`` if there is none, or if the loss is not known.
    """
    for field in DailyLoss.fields:
        limit: Decimal | None = getattr(limits, field)
        loss = None if limit is None else lost(field, account, view)
        if limit is not None and loss is not None and loss >= limit:
            return field, beyond(field, account, loss, limit)
    return None
