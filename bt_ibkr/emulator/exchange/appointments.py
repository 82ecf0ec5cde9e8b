"""What happens to orders by the clock: the close, and the end of the day."""

from __future__ import annotations

from collections.abc import Callable

from bt_ibkr.emulator.exchange.book import AT_CLOSE, Working
from bt_ibkr.emulator.market.sessions import next_close_ns, next_day_end_ns
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
        working.expires_ns = None
        if spec.time_in_force is TimeInForce.DAY:
            working.expires_ns = next_day_end_ns(working.instrument, now_ns)
            # one nanosecond of difference keeps it apart from a close at the same moment, and after it
            self._at(spec.conid, working.expires_ns + 1, self._expire_at)

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
