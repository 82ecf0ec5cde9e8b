"""What happens to orders by the clock: the close, and the end of the day."""

from __future__ import annotations

from collections.abc import Callable

from bt_ibkr.emulator.exchange.book import AT_CLOSE, Working
from bt_ibkr.emulator.market.sessions import (
    in_session,
    next_close_ns,
    next_day_end_ns,
    next_open_ns,
    overnight_end_ns,
)
from bt_ibkr.model.order import TimeInForce

Schedule = Callable[[int, Callable[[int], None]], int]


class Appointments:
    """The timers of all orders; orders of one instrument share those of the same moment.

    Args:
        schedule: Calls back at a market time.
        close: Executes the orders at the close of an instrument.
        expire: Ends the orders of an instrument that expired before a time.
    """

    def __init__(
        self, schedule: Schedule, close: Callable[[int], None], expire: Callable[[int, int], None]
    ) -> None:
        self._schedule = schedule
        self._close = close
        self._expire = expire
        self._timers: set[tuple[int, int]] = set()

    def make(self, working: Working, now_ns: int) -> None:
        """Set what the order's type and time in force ask for."""
        spec = working.order.spec
        if spec.order_type in AT_CLOSE:
            self._at(spec.conid, next_close_ns(working.instrument, now_ns), self._close_at)
        working.expires_ns = self._end(working, now_ns)
        if working.expires_ns is not None:
            # one nanosecond of difference keeps it apart from a close at the same moment, and after it
            self._at(spec.conid, working.expires_ns + 1, self._expire_at)
        working.opens_ns = self._opening(working, now_ns)

    @staticmethod
    def _end(working: Working, now_ns: int) -> int | None:
        """When the order ends by itself: with the day, a session, or never."""
        instrument = working.instrument
        match working.order.spec.time_in_force:
            case TimeInForce.DAY | TimeInForce.OVERNIGHT_AND_DAY:
                return next_day_end_ns(instrument, now_ns)
            case TimeInForce.OVERNIGHT:
                return overnight_end_ns(instrument, now_ns)
            case TimeInForce.AT_THE_OPENING:
                return next_close_ns(instrument, Appointments._opening(working, now_ns) or now_ns)
            case _:
                return None

    @staticmethod
    def _opening(working: Working, now_ns: int) -> int | None:
        """From when on a print is the opening's: of this session if nobody has traded in it yet, or the next."""
        if working.order.spec.time_in_force is not TimeInForce.AT_THE_OPENING:
            return None
        if in_session(working.instrument, now_ns) and not working.opened:
            return now_ns
        return next_open_ns(working.instrument, now_ns)

    def _at(self, conid: int, at_ns: int, action: Callable[[int, int], None]) -> None:
        if (conid, at_ns) not in self._timers:
            self._timers.add((conid, at_ns))
            self._schedule(at_ns, lambda now_ns: action(conid, now_ns))

    def _close_at(self, conid: int, now_ns: int) -> None:
        self._timers.discard((conid, now_ns))
        self._close(conid)

    def _expire_at(self, conid: int, now_ns: int) -> None:
        self._timers.discard((conid, now_ns))
        self._expire(conid, now_ns)
