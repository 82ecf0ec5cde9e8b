"""The risk controls of one session: the gate, and the view it judges by."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from bt_ibkr.clock import Clock
from bt_ibkr.desk.registry import Tracked
from bt_ibkr.desk.view import SessionView
from bt_ibkr.errors import BtIbkrError
from bt_ibkr.journal import Journal
from bt_ibkr.model.intent import OrderIntent
from bt_ibkr.model.order import OrderTicket
from bt_ibkr.model.trading import TradingState
from bt_ibkr.risk import RiskGate, RiskLimits
from bt_ibkr.services.schedules import ScheduleService

_log = logging.getLogger(__name__)


class RiskControls:
    """What the desk asks before anything leaves.

    Args:
        limits: What no order may go beyond.
        view: Market and account.
        clock: Market clock.
        journal: Tells which orders were placed just before this session.
        schedules: Trading hours, where a limit wants them.
    """

    def __init__(
        self,
        limits: RiskLimits,
        view: SessionView,
        clock: Clock,
        journal: Journal,
        schedules: ScheduleService,
    ) -> None:
        self._gate = RiskGate(limits, clock)
        self._schedules = schedules
        tables = (*limits.accounts.values(), *limits.strategies.values())
        self._wants_hours = limits.only_when_open or any(table.get("only_when_open") for table in tables)
        self._view = view
        self._clock = clock
        now_ns = clock.now_ns()
        for order in journal.orders(since_ns=now_ns - self._gate.window_ns):
            age_ns = now_ns - order.created_ns
            if 0 <= age_ns <= self._gate.window_ns:
                self._gate.remember(order.intent, age_ns)

    async def prepare(self, intents: Sequence[OrderIntent]) -> None:
        """Read what the controls need and the stream does not tell: trading hours.

        What cannot be read is not known, and the control says so.
        """
        if not self._wants_hours:
            return
        for intent in intents:
            ticket = intent.ticket
            for conid in [leg.conid for leg in ticket.legs] or [ticket.contract_id]:
                try:
                    await self._schedules.load(conid)
                except BtIbkrError as problem:
                    _log.warning("trading-hours-unread conid=%d problem=%s", conid, problem)

    def cleared(self, intents: Sequence[OrderIntent]) -> tuple[OrderIntent, ...]:
        """The orders as the journal is to have them; raises ``RiskRefusedError``."""
        return self._gate.cleared(intents, self._view)

    def withdraw(self, intents: Sequence[OrderIntent]) -> None:
        """They passed, but were not sent."""
        self._gate.withdraw(intents)

    def check_change(self, tracked: Tracked, ticket: OrderTicket) -> None:
        """Look at a change; raises ``RiskRefusedError``."""
        self._gate.check_change(tracked.intent, ticket, self._view, filled=tracked.filled)

    def required_state(self, account: str) -> TradingState | None:
        """The trading state that the limits demand now; ``None`` if the present one will do."""
        return self._gate.required_state(account, self._view, self._clock.now_ns())
