"""Time is passed in. Only the command line reads the wall clock by itself.

Inside the package a moment is an ``int``: nanoseconds since 1970-01-01 UTC.
"""

from __future__ import annotations

import time
from typing import Protocol

NS_PER_S = 1_000_000_000
NS_PER_MS = 1_000_000


class Clock(Protocol):
    """Tells the time of the market that is traded, which in the emulator may not be today's."""

    def now_ns(self) -> int:
        """Nanoseconds since 1970-01-01 UTC."""
        ...

    def wall_s(self, market_ns: int) -> float:
        """Seconds on the user's watch until ``market_ns`` market nanoseconds have passed; ``inf`` if
        this clock moves only when told to."""
        ...


class SystemClock:
    """The clock of the machine."""

    def now_ns(self) -> int:
        return time.time_ns()

    def wall_s(self, market_ns: int) -> float:
        return market_ns / NS_PER_S


class ServerClock:
    """Another clock, set by the server's: the machine's own may be wrong by seconds or minutes.

    Args:
        base: The clock that is corrected.

    Attributes:
        offset_ns: What is added to it; ``session.server_time`` measures that.
    """

    def __init__(self, base: Clock) -> None:
        self._base = base
        self.offset_ns = 0

    def base_ns(self) -> int:
        """The time without the correction."""
        return self._base.now_ns()

    def now_ns(self) -> int:
        return self._base.now_ns() + self.offset_ns

    def wall_s(self, market_ns: int) -> float:
        return self._base.wall_s(market_ns)


class ManualClock:
    """Moves only when told to: for tests and for the lockstep market.

    Args:
        now_ns: The moment it starts at.
    """

    def __init__(self, now_ns: int = 0) -> None:
        self._now_ns = now_ns

    def now_ns(self) -> int:
        return self._now_ns

    def wall_s(self, market_ns: int) -> float:
        return 0.0 if market_ns <= 0 else float("inf")

    def set_ns(self, now_ns: int) -> None:
        """Set the moment; a moment before the present one is ignored, the clock never steps back."""
        self._now_ns = max(self._now_ns, now_ns)


class ScaledClock:
    """Runs ``speed`` times as fast as the machine's clock, once it has been started.

    Args:
        start_ns: Market time until and at the start.
        speed: Market seconds per wall second, above 0.
    """

    def __init__(self, start_ns: int, speed: float) -> None:
        self._start_ns = start_ns
        self._speed = speed
        self._anchor_ns = 0

    def restart(self) -> None:
        """Begin to run now; until then the clock stands at ``start_ns``."""
        self._anchor_ns = time.monotonic_ns()

    def now_ns(self) -> int:
        if not self._anchor_ns:
            return self._start_ns
        return self._start_ns + int((time.monotonic_ns() - self._anchor_ns) * self._speed)

    def wall_s(self, market_ns: int) -> float:
        return market_ns / NS_PER_S / self._speed
