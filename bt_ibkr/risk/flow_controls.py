"""How often: the same order again, orders per minute."""

from __future__ import annotations

from bt_ibkr.risk.controls import Control
from bt_ibkr.risk.history import signature
from bt_ibkr.risk.limits import Scope
from bt_ibkr.risk.submission import Case, plain


class Duplicates(Control):
    """The same order again within that time: strategy, account, contract, side, size, type and prices are equal.
    Children of a bracket are not looked at: their parent is."""

    name = "duplicate"
    fields = ("duplicate_window_s",)
    spares_reducing = False
    spares_changes = True

    def check(self, case: Case, scope: Scope) -> None:
        window = scope.limits.duplicate_window_s
        if window is None or case.intent.parent_key is not None:
            return
        age_s = case.submission.history.same_age_s(case.intent)
        mark = signature(case.intent)
        twice = sum(
            one.intent.parent_key is None and signature(one.intent) == mark for one in case.submission.cases
        )
        if twice > 1:
            age_s = 0.0
        if age_s is not None and age_s < window:
            self.refuse(
                case,
                scope,
                "duplicate_window_s",
                value=f"{age_s:.3f} s",
                why=f"the same order on {case.symbol} was placed {age_s:.3f} s ago, within duplicate_window_s "
                f"{plain(window)}",
                remedy="If it is meant, place it later or with another size",
            )


class Rate(Control):
    """More orders and changes than that within any 60 s."""

    name = "orders_per_minute"
    fields = ("orders_per_minute", "account_orders_per_minute")

    def check(self, case: Case, scope: Scope) -> None:
        account, strategy = case.ticket.account, case.intent.strategy
        limits, cases = scope.limits, case.submission.cases
        here = [one for one in cases if one.ticket.account == account]
        own = sum(one.intent.strategy == strategy for one in here)
        self._held(case, scope, "orders_per_minute", limits.orders_per_minute, strategy, own)
        self._held(
            case, scope, "account_orders_per_minute", limits.account_orders_per_minute, None, len(here)
        )

    def _held(
        self, case: Case, scope: Scope, field: str, limit: int | None, strategy: str | None, adds: int
    ) -> None:
        if limit is None:
            return
        history, account = case.submission.history, case.ticket.account
        placed = history.count(account, strategy)
        if placed + adds <= limit:
            return
        who = f"strategy {strategy}" if strategy is not None else "all strategies"
        over = placed + adds - limit
        wait = (
            f"Wait {max(0.0, history.free_in_s(account, strategy, over)):.1f} s"
            if placed >= over
            else f"Place {limit} at most at once"
        )
        self.refuse(
            case,
            scope,
            field,
            value=placed + adds,
            why=f"with this order on {case.symbol} {who} would have placed {placed + adds} orders and changes in "
            f"account {account} within 60 s, above {field} {limit}",
            remedy=wait,
        )
