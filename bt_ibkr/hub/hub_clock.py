"""The hub's clock as a strategy's process reckons it."""

from __future__ import annotations

import math
from typing import Final

#: So long the best reckoning of the hub's clock is used: clocks drift.
_RECKONED_S: Final = 300.0


class HubClock:
    """The hub's clock for ages (``ages``), as beats tell it.

    A beat has been under way for a time that nobody knows: the one that puts the hub's clock furthest ahead has come
    the fastest. What is reckoned is therefore never later than the hub's own clock, but for the drift of minutes.
    """

    def __init__(self) -> None:
        self._since_s = 0.0
        self._best = self._before = -math.inf

    def take(self, clock_s: float, now_s: float) -> None:
        """The hub's clock showed ``clock_s`` before ``now_s`` of this process."""
        if now_s - self._since_s > _RECKONED_S:
            self._since_s, self._before, self._best = now_s, self._best, -math.inf
        self._best = max(self._best, clock_s - now_s)

    def at(self, local_s: float) -> float:
        """What it showed, at the least, at this process's ``local_s``."""
        return local_s + max(self._best, self._before)
