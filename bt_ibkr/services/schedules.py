"""When contracts trade, as IBKR tells it: holidays and half days are in it."""

from __future__ import annotations

from bt_ibkr.clock import Clock
from bt_ibkr.model.calendar import TradingDay
from bt_ibkr.session.http import HttpClient
from bt_ibkr.wire.schedule import TradingSchedule, trading_schedule


class ScheduleService:
    """Schedules by contract, asked for again when they end.

    Args:
        http: The session's REST client.
        clock: Market clock.
    """

    def __init__(self, http: HttpClient, clock: Clock) -> None:
        self._http = http
        self._clock = clock
        self._known: dict[int, TradingSchedule] = {}

    async def load(self, conid: int) -> None:
        """Ask for the contract's schedule, unless one that reaches beyond now is known.

        Raises:
            BtIbkrError: It could not be had.
        """
        known = self._known.get(conid)
        if known is None or known.end_ns <= self._clock.now_ns():
            body = await self._http.get("/contract/trading-schedule", {"conid": str(conid)})
            self._known[conid] = trading_schedule(body)

    async def days(self, conid: int) -> tuple[TradingDay, ...]:
        """The contract's hours on the days that IBKR tells, oldest first; holidays are left out.

        Raises:
            BtIbkrError: They could not be had.
        """
        await self.load(conid)
        return self._known[conid].days

    def open_now(self, conid: int) -> tuple[bool | None, bool | None]:
        """Whether the contract trades now, in regular and in extended hours; ``None`` if that is not known."""
        known = self._known.get(conid)
        now_ns = self._clock.now_ns()
        if known is None or not known.end_ns:
            return None, None
        return (
            any(window.holds(now_ns) for window in known.regular),
            any(window.holds(now_ns) for window in known.extended),
        )
