"""One gate before every request: IBKR's limits as data, and waiting until they allow the next one.

Too many requests earn HTTP 429 and ten to fifteen minutes in a penalty box, so the gate keeps the limits
by itself. Each limit is a sliding window: at most ``count`` requests in any ``per_s`` seconds. Windows
are a little longer than documented, because requests may bunch up on their way.
"""

from __future__ import annotations

import asyncio
import re
import time
from bisect import bisect_left, bisect_right, insort
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import msgspec


class Limit(msgspec.Struct, frozen=True, kw_only=True):
    """At most ``count`` requests to paths that match ``path`` in any ``per_s`` seconds.

    Attributes:
        concurrent: At most so many at the same time; 0 for no such limit.
        source: Where the figure comes from.
    """

    path: str
    method: str = "*"
    count: int
    per_s: float
    concurrent: int = 0
    source: str


_TABLE = "IBKR Web API documentation, pacing limitations (captured 2026-07)"

#: IBKR's documented limits per user.
IBKR_LIMITS: tuple[Limit, ...] = (
    Limit(path=r".*", count=10, per_s=1.0, source=_TABLE),
    Limit(path=r"/fyi/.*", count=1, per_s=1.0, source=_TABLE),
    Limit(path=r"/iserver/account/orders", method="GET", count=1, per_s=5.0, source=_TABLE),
    Limit(path=r"/iserver/account/pnl/partitioned", count=1, per_s=5.0, source=_TABLE),
    Limit(path=r"/iserver/account/trades", count=1, per_s=5.0, source=_TABLE),
    Limit(
        path=r"/iserver/marketdata/history",
        count=50,
        per_s=60.0,
        concurrent=5,
        source=_TABLE + "; 50 a minute as re-read 2026-09",
    ),
    Limit(path=r"/iserver/scanner/params", count=1, per_s=900.0, source=_TABLE),
    Limit(path=r"/iserver/scanner/run", count=1, per_s=1.0, source=_TABLE),
    Limit(path=r"/pa/(performance|summary|transactions|allperiods)", count=1, per_s=900.0, source=_TABLE),
    Limit(path=r"/portfolio/(accounts|subaccounts)", count=1, per_s=5.0, source=_TABLE),
    Limit(path=r"/sso/validate", count=1, per_s=60.0, source=_TABLE),
    Limit(path=r"/tickle", count=1, per_s=1.0, source=_TABLE),
)

_MARGIN = 1.05
#: Between requests that would leave at the same moment, seconds: timers of one moment keep no order.
_APART_S = 1e-6


class _Window:
    def __init__(self, limit: Limit) -> None:
        self.limit = limit
        self._pattern = re.compile(limit.path)
        self._span_s = limit.per_s * _MARGIN
        # Moments of past and future requests. A request that also waits for a rarer turn is booked far ahead;
        # others still fit in before it, so the moments are kept sorted, not in the order of booking.
        self._booked: list[float] = []
        self._slots = asyncio.Semaphore(limit.concurrent) if limit.concurrent else None

    def covers(self, method: str, path: str) -> bool:
        return self.limit.method in ("*", method) and self._pattern.fullmatch(path) is not None

    @property
    def slots(self) -> asyncio.Semaphore | None:
        return self._slots

    def forget(self, now: float) -> None:
        """Drop what is too long ago to matter."""
        del self._booked[: bisect_right(self._booked, now - self._span_s)]

    def earliest(self, at: float) -> float:
        """The first moment at or after ``at`` at which one more request fits, whatever else is booked."""
        booked, count = self._booked, self.limit.count
        moved = True
        while moved:
            moved = False
            place = bisect_right(booked, at)
            # Every run of ``count`` neighbours that one more request at ``at`` would join.
            for first in range(max(place - count, 0), min(place, len(booked) - count) + 1):
                if max(booked[first + count - 1], at) < min(booked[first], at) + self._span_s:
                    at, moved = booked[first] + self._span_s, True
                    break
        return at

    def taken(self, at: float) -> bool:
        place = bisect_left(self._booked, at)
        return place < len(self._booked) and self._booked[place] == at

    def book(self, at: float) -> None:
        insort(self._booked, at)

    def release(self, at: float) -> None:
        if self.taken(at):
            self._booked.remove(at)


class PacingGate:
    """Lets requests through at IBKR's pace, in the order they came.

    Args:
        limits: The limits to keep; empty for none.
        monotonic: Seconds of a clock that never steps back.
    """

    def __init__(
        self, limits: tuple[Limit, ...] = IBKR_LIMITS, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._windows = tuple(_Window(limit) for limit in limits)
        self._monotonic = monotonic
        #: Seconds that requests have waited here so far.
        self.waited_s = 0.0

    @asynccontextmanager
    async def turn(self, method: str, path: str) -> AsyncIterator[None]:
        """Wait for this request's turn; the request is made inside the block."""
        windows = [window for window in self._windows if window.covers(method, path)]
        held: list[asyncio.Semaphore] = []
        try:
            for window in windows:
                if window.slots is not None:
                    await window.slots.acquire()
                    held.append(window.slots)
            await self._wait(windows)
            yield
        finally:
            for slots in held:
                slots.release()

    async def _wait(self, windows: list[_Window]) -> None:
        now = self._monotonic()
        at = _earliest(windows, now)
        for window in windows:
            window.book(at)
        if at <= now:
            return
        self.waited_s += at - now
        try:
            await asyncio.sleep(at - now)
        except BaseException:
            for window in windows:
                window.release(at)
            raise


def _earliest(windows: list[_Window], now: float) -> float:
    """The first moment that suits all ``windows``."""
    for window in windows:
        window.forget(now)
    at, before = now, -1.0
    while at != before:
        before = at
        for window in windows:
            at = window.earliest(at)
        if at > now and any(window.taken(at) for window in windows):
            at += _APART_S
    return at
