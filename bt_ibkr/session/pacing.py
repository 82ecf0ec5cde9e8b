"""One gate before every request: IBKR's limits as data, and waiting until they allow the next one.

Too many requests earn HTTP 429 and ten to fifteen minutes in a penalty box, so the gate keeps the limits
by itself. Each limit is a sliding window: at most ``count`` requests in any ``per_s`` seconds. Windows
are a little longer than documented, because requests may bunch up on their way.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import deque
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


class _Window:
    def __init__(self, limit: Limit) -> None:
        self.limit = limit
        self._pattern = re.compile(limit.path)
        self._sent: deque[float] = deque(maxlen=limit.count)
        self._slots = asyncio.Semaphore(limit.concurrent) if limit.concurrent else None

    def covers(self, method: str, path: str) -> bool:
        return self.limit.method in ("*", method) and self._pattern.fullmatch(path) is not None

    @property
    def slots(self) -> asyncio.Semaphore | None:
        return self._slots

    def earliest(self, now: float) -> float:
        """The first moment at or after ``now`` at which one more request fits."""
        if len(self._sent) < self.limit.count:
            return now
        return max(now, self._sent[0] + self.limit.per_s * _MARGIN)

    def reserve(self, at: float) -> None:
        self._sent.append(at)


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
            now = self._monotonic()
            at = now
            for window in windows:
                at = max(at, window.earliest(at))
            for window in windows:
                window.reserve(at)
            if at > now:
                self.waited_s += at - now
                await asyncio.sleep(at - now)
            yield
        finally:
            for slots in held:
                slots.release()
