"""What came, in its order, as one number: to be compared with what had to come, in another process or in a file."""

from __future__ import annotations

import hashlib
import time
from array import array
from typing import Any

from bt_ibkr.model.market import Tick


class Digest:
    """A sink that keeps a digest of all it was given, in their order.

    Args:
        arrivals: Keep when each came as well, by the clock that all processes of a machine share.
    """

    room = 1 << 30

    def __init__(self, *, arrivals: bool = False) -> None:
        self.count = 0
        self.losses = 0
        self.gone = 0
        self.disorder = 0
        self.arrivals_ns = array("q") if arrivals else None
        self._latest_ns = 0
        self._hash = hashlib.sha256()
        self.push = self.append

    def __len__(self) -> int:
        return 0

    def take(self, time_ns: int, *values: object) -> None:
        """One more."""
        self.count += 1
        self.disorder += time_ns < self._latest_ns
        self._latest_ns = time_ns
        self._hash.update(repr((time_ns, *values)).encode())

    def append(self, tick: Tick, /) -> None:
        if self.arrivals_ns is not None:
            self.arrivals_ns.append(time.monotonic_ns())
        self.take(
            tick.time_ns,
            tick.bid,
            tick.ask,
            tick.bid_size,
            tick.ask_size,
            tick.last,
            tick.last_size,
            tick.traded,
        )

    def hold(self, tick: Tick, /) -> None:
        self.append(tick)

    def lose(self, tick: Tick | None, count: int) -> None:
        self.losses += 1
        self.gone += count

    def told(self) -> dict[str, Any]:
        return {
            "count": self.count,
            "digest": self._hash.hexdigest(),
            "disorder": self.disorder,
            "losses": self.losses,
            "gone": self.gone,
        }


class Quoted(Digest):
    """A digest of ticks that say something: the first picture of a market that has not begun is empty."""

    def append(self, tick: Tick, /) -> None:
        if not (tick.bid is None and tick.ask is None and tick.last is None):
            super().append(tick)
