"""Request limits (wire facts, section 3), and the record of who asked what when."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from bt_ibkr.emulator.services import errors


class Limit(msgspec.Struct, frozen=True):
    """At most ``count`` requests in any ``window_s`` seconds."""

    count: int
    window_s: float


#: All requests of a user together.
GLOBAL = Limit(10, 1.0)
_FIVE_SECONDS = Limit(1, 5.0)
_QUARTER_HOUR = Limit(1, 900.0)
#: By method and path below /v1/api; a path that ends in "/" stands for all below it.
LIMITS: dict[tuple[str, str], Limit] = {
    ("GET", "/iserver/account/orders"): _FIVE_SECONDS,
    ("GET", "/iserver/account/pnl/partitioned"): _FIVE_SECONDS,
    ("GET", "/iserver/account/trades"): _FIVE_SECONDS,
    ("GET", "/iserver/marketdata/history"): Limit(50, 60.0),
    ("GET", "/iserver/marketdata/snapshot"): Limit(10, 1.0),
    ("GET", "/iserver/scanner/params"): _QUARTER_HOUR,
    ("POST", "/iserver/scanner/run"): Limit(1, 1.0),
    ("POST", "/pa/performance"): _QUARTER_HOUR,
    ("POST", "/pa/summary"): _QUARTER_HOUR,
    ("POST", "/pa/transactions"): _QUARTER_HOUR,
    ("POST", "/pa/allperiods"): _QUARTER_HOUR,
    ("GET", "/portfolio/accounts"): _FIVE_SECONDS,
    ("GET", "/portfolio/subaccounts"): _FIVE_SECONDS,
    ("GET", "/sso/validate"): Limit(1, 60.0),
    ("GET", "/tickle"): Limit(1, 1.0),
    ("POST", "/tickle"): Limit(1, 1.0),
}
#: Every path below it has this limit of its own.
FYI = "/fyi/"
FYI_LIMIT = Limit(1, 1.0)
HISTORY = "/iserver/marketdata/history"
HISTORY_CONCURRENT = 5
#: Requests the record keeps; older ones are dropped.
RECORD_SIZE = 20_000


def limit_of(method: str, path: str) -> tuple[str, Limit] | None:
    """The limit an endpoint has of its own, and the name it is counted under."""
    if path.startswith(FYI):
        return path, FYI_LIMIT
    found = LIMITS.get((method, path))
    return None if found is None else (path, found)


class Request:
    """One request in the record; ``status`` is 0 while it is not answered, or if it never was."""

    __slots__ = ("at_s", "method", "number", "path", "status")

    def __init__(self, number: int, at_s: float, method: str, path: str) -> None:
        self.number = number
        self.at_s = at_s
        self.method = method
        self.path = path
        self.status = 0


class Pacing:
    """Counts requests and refuses those above the limits, and everything during the penalty after one.

    Args:
        clock: Seconds, monotonic; it may run faster than the wall's.
        strict: Refuse; else only record.
        penalty_s: How long everything is refused after a request too many, on the same clock.
    """

    def __init__(self, *, clock: Callable[[], float], strict: bool, penalty_s: float) -> None:
        self._clock = clock
        self.strict = strict
        self.penalty_s = penalty_s
        self._began = clock()
        self._until = 0.0
        self._seen: dict[str, deque[float]] = {}
        self._history = 0
        self._record: deque[Request] = deque(maxlen=RECORD_SIZE)
        #: Requests refused so far.
        self.refused = 0
        #: Requests that came so far.
        self.requests = 0
        #: Most history requests at one time.
        self.history_peak = 0

    @property
    def penalty_left_s(self) -> float:
        """How long the penalty lasts yet; 0 outside of one."""
        return max(self._until - self._clock(), 0.0)

    def record(self, method: str, path: str) -> Request:
        """Write a request down, whatever will become of it."""
        request = Request(self.requests, self._clock() - self._began, method, path)
        self.requests += 1
        self._record.append(request)
        return request

    def admit(self, method: str, path: str) -> None:
        """Count a request.

        Raises:
            ApiError: 429, and the penalty begins or goes on.
        """
        now = self._clock()
        if now < self._until:
            self.refused += 1
            raise errors.too_many_requests()
        if not self.strict:
            return
        own = limit_of(method, path)
        fits = self._fits("*", GLOBAL, now) and (own is None or self._fits(*own, now))
        if path == HISTORY and self._history >= HISTORY_CONCURRENT:
            fits = False
        if not fits:
            self.punish()
            self.refused += 1
            raise errors.too_many_requests()

    def begin(self, path: str) -> None:
        self._history += path == HISTORY
        self.history_peak = max(self.history_peak, self._history)

    def end(self, path: str) -> None:
        self._history -= path == HISTORY

    def punish(self) -> None:
        """Begin a penalty now."""
        self._until = self._clock() + self.penalty_s

    def forgive(self) -> None:
        """End the penalty and forget what was counted; the record stays."""
        self._until = 0.0
        self._seen.clear()

    def rows(self, since: int, limit: int) -> list[dict[str, Any]]:
        """The record from request ``since`` on, the oldest ``limit`` of it."""
        found = [one for one in self._record if one.number >= since][:limit]
        return [
            {
                "n": one.number,
                "at_s": round(one.at_s, 6),
                "method": one.method,
                "path": one.path,
                "status": one.status,
            }
            for one in found
        ]

    def windows(self) -> list[dict[str, Any]]:
        """Of every limit that was used, the most requests any of its windows held, by the record."""
        by_name: dict[str, tuple[Limit, list[float]]] = {"*": (GLOBAL, [])}
        for one in self._record:
            by_name["*"][1].append(one.at_s)
            own = limit_of(one.method, one.path)
            if own is not None:
                by_name.setdefault(own[0], (own[1], []))[1].append(one.at_s)
        return [
            {
                "path": name,
                "count": limit.count,
                "window_s": limit.window_s,
                "most": most_in_window(times, limit.window_s),
            }
            for name, (limit, times) in by_name.items()
        ]

    def _fits(self, key: str, limit: Limit, now: float) -> bool:
        seen = self._seen.setdefault(key, deque())
        while seen and seen[0] <= now - limit.window_s:
            seen.popleft()
        if len(seen) >= limit.count:
            return False
        seen.append(now)
        return True


def most_in_window(times: Iterable[float], window_s: float) -> int:
    """Most of the ascending ``times`` that lie within less than ``window_s`` of each other.

    >>> most_in_window([0.0, 0.5, 1.0, 1.4], 1.0)
    2
    """
    held: deque[float] = deque()
    most = 0
    for at in times:
        while held and held[0] <= at - window_s:
            held.popleft()
        held.append(at)
        most = max(most, len(held))
    return most
