"""Callbacks at market times."""

from __future__ import annotations

import heapq
from itertools import count

from bt_ibkr.emulator.types import TimerCallback


class Timers:
    """Timers in the order of their times, then of their making."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, TimerCallback]] = []
        self._handles = count(1)
        self._pending: set[int] = set()

    def add(self, at_ns: int, callback: TimerCallback) -> int:
        """Returns a handle for ``cancel``."""
        handle = next(self._handles)
        self._pending.add(handle)
        heapq.heappush(self._heap, (at_ns, handle, callback))
        return handle

    def cancel(self, handle: int) -> None:
        """Forget a timer; one that has fired is ignored."""
        self._pending.discard(handle)

    def next_ns(self) -> int | None:
        """Time of the next one; ``None`` if there is none."""
        while self._heap and self._heap[0][1] not in self._pending:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def pop(self) -> tuple[int, TimerCallback]:
        """Take the next one, which ``next_ns`` has told of."""
        at_ns, handle, callback = heapq.heappop(self._heap)
        self._pending.discard(handle)
        return at_ns, callback
