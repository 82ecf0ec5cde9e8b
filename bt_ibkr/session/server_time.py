"""How far the server's clock is from this machine's, from what the server stamps: heartbeats and HTTP's ``Date``.

A stamp that was long on its way makes the server look slow, never fast. So the largest difference among the recent
ones counts, if a second one confirms it; one stamp alone decides nothing.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from itertools import pairwise
from typing import Final

from bt_ibkr.clock import NS_PER_MS, NS_PER_S, ServerClock

_log = logging.getLogger(__name__)

#: Stamps that are remembered; heartbeats come every ten seconds.
_REMEMBERED: Final = 9
#: Two stamps that differ by no more than this confirm each other.
_ALIKE_NS: Final = NS_PER_S // 2
#: So many in a row that agree against what is known prove that one of the clocks was set.
_PROOF: Final = 3
#: The clock is left alone below this.
_HYSTERESIS_NS: Final = NS_PER_S // 4
#: ``Date`` has no fractions of a second: less than this may be nothing.
_COARSE_NS: Final = 2 * NS_PER_S
#: From here on it is told.
_TOLD_NS: Final = NS_PER_S
#: More is no clock that goes wrong, but a server that plays another day.
_MOST_NS: Final = 86_400 * NS_PER_S


class Correction:
    """Sets a clock by what is known of the server's.

    Args:
        clock: What is corrected.
        told: Called with nanoseconds (positive: the server is ahead) when the difference is a second or more, and
            when that has changed by as much.
    """

    def __init__(self, clock: ServerClock, told: Callable[[int], None]) -> None:
        self._clock = clock
        self._told = told
        self._last_told_ns = 0

    def set(self, difference_ns: int) -> None:
        """The server's clock is so far ahead of the one that is corrected."""
        if abs(difference_ns - self._clock.offset_ns) < _HYSTERESIS_NS or abs(difference_ns) >= _MOST_NS:
            return
        self._clock.offset_ns = difference_ns
        if abs(difference_ns - self._last_told_ns) >= _TOLD_NS:
            self._last_told_ns = difference_ns
            _log.warning("clock-differs offset_s=%.3f", difference_ns / NS_PER_S)
            self._told(difference_ns)


class ServerTime:
    """Measures the server's clock and sets ``clock`` by it. Lives on the session's loop.

    Args:
        clock, told: See ``Correction``.
    """

    def __init__(self, clock: ServerClock, told: Callable[[int], None]) -> None:
        self._clock = clock
        self._correction = Correction(clock, told)
        self._fine = _Differences()
        self._coarse = _Differences()

    @property
    def measured(self) -> bool:
        """Enough stamps have agreed."""
        return self._fine.known_ns is not None or self._coarse.known_ns is not None

    def heartbeat(self, server_ms: float) -> None:
        """A heartbeat with the server's time, ms, was read just now."""
        difference_ns = server_ms * NS_PER_MS - self._clock.base_ns()
        if abs(difference_ns) < _MOST_NS:
            self._set(self._fine.take(round(difference_ns)))

    def date(self, header: str) -> None:
        """An HTTP response with this ``Date`` was read just now."""
        if self._fine.known_ns is not None:
            return
        try:
            moment = parsedate_to_datetime(header)
            # Of the second that it names, the middle.
            server_ns = round(moment.timestamp()) * NS_PER_S + NS_PER_S // 2
        except (ValueError, OverflowError, OSError):
            return
        difference_ns = server_ns - self._clock.base_ns()
        if abs(difference_ns) < _MOST_NS:
            known_ns = self._coarse.take(difference_ns)
            self._set(0 if known_ns is not None and abs(known_ns) < _COARSE_NS else known_ns)

    def _set(self, known_ns: int | None) -> None:
        if known_ns is not None:
            self._correction.set(known_ns)


def difference_text(offset_ns: int) -> str:
    """How far the server's clock is ahead, in words."""
    where = "ahead of" if offset_ns > 0 else "behind"
    return f"The server's clock is {abs(offset_ns) / NS_PER_S:.1f} s {where} this machine's: time goes by it."


class _Differences:
    """Recent differences, and what they amount to."""

    def __init__(self) -> None:
        self._recent: deque[int] = deque(maxlen=_REMEMBERED)
        self.known_ns: int | None = None

    def take(self, difference_ns: int) -> int | None:
        """One more; what they amount to, ``None`` as long as no two agree."""
        recent = self._recent
        recent.append(difference_ns)
        last = list(recent)[-_PROOF:]
        agree = len(last) == _PROOF and max(last) - min(last) <= _ALIKE_NS
        if agree and self.known_ns is not None and abs(max(last) - self.known_ns) > 2 * _ALIKE_NS:
            recent.clear()
            recent.extend(last)
        ordered = sorted(recent, reverse=True)
        for higher, lower in pairwise(ordered):
            if higher - lower <= _ALIKE_NS:
                self.known_ns = higher
                break
        return self.known_ns
