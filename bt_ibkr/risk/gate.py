"""The gate every order passes before the journal: all controls, in order, on what is known at that moment."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Final, NamedTuple

import msgspec

from bt_ibkr.clock import NS_PER_S, Clock
from bt_ibkr.errors import RiskRefusedError
from bt_ibkr.model.intent import OrderIntent
from bt_ibkr.model.order import OrderTicket
from bt_ibkr.model.trading import Trading, TradingState
from bt_ibkr.risk.account_controls import DailyLoss, OpenOrders, PositionLimit, loss_reached
from bt_ibkr.risk.controls import Control
from bt_ibkr.risk.flow_controls import Duplicates, Rate
from bt_ibkr.risk.history import MINUTE_NS, History
from bt_ibkr.risk.limits import Changes, RiskLimits, Scope
from bt_ibkr.risk.market_controls import MarketData, TradingHours
from bt_ibkr.risk.order_controls import Lot, OrderNotional, OrderSize, PriceBand, Tick
from bt_ibkr.risk.permission_controls import Contracts, ReadOnly, Sides, TradingSwitch
from bt_ibkr.risk.submission import Submission
from bt_ibkr.risk.switch import Actor, Who, moved
from bt_ibkr.risk.view import RiskView

#: All controls, in the order they look at an order: the first that refuses is the one that is told.
CONTROLS: Final[tuple[Control, ...]] = (
    ReadOnly(),
    TradingSwitch(),
    Contracts(),
    Sides(),
    Tick(),
    Lot(),
    OrderSize(),
    OrderNotional(),
    MarketData(),
    PriceBand(),
    TradingHours(),
    DailyLoss(),
    PositionLimit(),
    OpenOrders(),
    Duplicates(),
    Rate(),
)


class _Rule(NamedTuple):
    control: Control
    scope: Scope


class RiskGate:
    """Refuses what is beyond the limits. It sends nothing and reads nothing but ``view`` and the clock.

    Not for several threads: whoever places orders calls it on its own one. Between a ``check`` that passed and the
    next one the order must have become part of what ``view`` tells, or have come to nothing.

    Args:
        limits: What no order may go beyond.
        clock: Of the market: for limits on how often.
    """

    def __init__(self, limits: RiskLimits, clock: Clock) -> None:
        self.limits = limits
        self._rules: dict[tuple[str, str, bool], tuple[_Rule, ...]] = {}
        longest_ns = _longest_window_ns(limits)
        #: How far back ``remember`` wants to be told.
        self.window_ns = max(MINUTE_NS, longest_ns)
        self._history = History(clock, longest_ns)

    def check(self, intents: Sequence[OrderIntent], view: RiskView) -> None:
        """Look at orders that are placed together: all of them pass, or none.

        Raises:
            RiskRefusedError: An order is beyond a limit. It names control, value, limit and remedy.
        """
        self.cleared(intents, view)

    def cleared(self, intents: Sequence[OrderIntent], view: RiskView) -> tuple[OrderIntent, ...]:
        """As ``check``; returns the orders as the journal is to have them: while trading is REDUCING, those that do
        reduce are marked ``protective``, which is what the journal lets pass then.

        Raises:
            RiskRefusedError: As ``check``.
        """
        if not intents:
            return ()
        submission = Submission(intents, view, self._history)
        self._judge(submission)
        if view.trading_state().mode is not Trading.REDUCING:
            return tuple(intents)
        return tuple(_protective(intent) for intent in intents)

    def check_change(
        self, standing: OrderIntent, ticket: OrderTicket, view: RiskView, *, filled: Decimal = Decimal(0)
    ) -> None:
        """Look at a change of an order that stands.

        Args:
            standing: The order as it stands.
            ticket: What it shall become, as a whole.
            view: Its open orders hold ``standing``.
            filled: How much of it has executed.

        Raises:
            RiskRefusedError: What it would become is beyond a limit; the order stands as it was.
        """
        changed = msgspec.structs.replace(standing, ticket=ticket)
        self._judge(Submission((changed,), view, self._history, change=True, filled=filled))

    def withdraw(self, intents: Sequence[OrderIntent]) -> None:
        """Orders that passed, but that the journal refused: nothing was sent, and they count for nothing."""
        for intent in intents:
            self._history.forget(intent)

    def remember(self, intent: OrderIntent, age_ns: int) -> None:
        """Count an order that was placed ``age_ns`` ago, before this gate was made: what a restart tells from the
        journal. Older ones than ``window_ns`` need not be told."""
        self._history.note(intent, age_ns=age_ns)

    def required_state(self, account: str, view: RiskView, now_ns: int) -> TradingState | None:
        """The trading state that the limits demand now; ``None`` if the present one will do.

        To be asked whenever the day's profit and loss has changed, and after ``daily_loss`` has refused an order.
        """
        state = view.trading_state()
        if state.mode is not Trading.ACTIVE:
            return None
        for scope in self.limits.scopes(account, ""):
            found = loss_reached(scope.limits, account, view)
            if found is not None:
                field, reason = found
                return moved(state, Trading.REDUCING, by=Actor(Who.RISK, field), reason=reason, now_ns=now_ns)
        return None

    def _judge(self, submission: Submission) -> None:
        for case in submission.cases:
            book = case.book
            strategy = case.intent.strategy if book is None else book.name
            for control, scope in self._rules_of(case.ticket.account, strategy, apart=book is not None):
                if submission.change and control.spares_changes:
                    continue
                try:
                    control.check(case, scope)
                except RiskRefusedError:
                    # Whether an order only reduces takes a while to tell: it is asked of those that need it.
                    if not (control.spares_reducing and submission.reducing):
                        raise
        for case in submission.cases:
            self._history.note(case.intent, change=submission.change)

    def _rules_of(self, account: str, strategy: str, *, apart: bool) -> tuple[_Rule, ...]:
        key = (account, strategy, apart)
        found = self._rules.get(key)
        if found is None:
            scopes = self.limits.scopes(account, strategy)
            found = tuple(
                _Rule(control, scope)
                for control in CONTROLS
                for scope in (
                    self.limits.apart(account, strategy, control.fields)
                    if apart and control.by_book
                    else scopes
                )
                if control.active(scope.limits)
            )
            self._rules[key] = found
        return found


def _protective(intent: OrderIntent) -> OrderIntent:
    if intent.ticket.protective:
        return intent
    return msgspec.structs.replace(intent, ticket=msgspec.structs.replace(intent.ticket, protective=True))


def _longest_window_ns(limits: RiskLimits) -> int:
    tables: list[Changes] = [*limits.accounts.values(), *limits.strategies.values()]
    windows = [limits.duplicate_window_s, *(table.get("duplicate_window_s") for table in tables)]
    return max((int(window * NS_PER_S) for window in windows if window is not None), default=0)
