"""Request limits, on the wall clock (wire facts, section 3)."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from bt_ibkr.emulator.services import errors

#: All requests of a user together.
GLOBAL = (10, 1.0)
#: Exact path below /v1/api, or a prefix that ends in "/": requests, wall seconds.
LIMITS: dict[str, tuple[int, float]] = {
    "/iserver/account/orders": (1, 5.0),
    "/iserver/account/pnl/partitioned": (1, 5.0),
    "/iserver/account/trades": (1, 5.0),
    "/iserver/marketdata/snapshot": (10, 1.0),
    "/portfolio/accounts": (1, 5.0),
    "/portfolio/subaccounts": (1, 5.0),
    "/sso/validate": (1, 60.0),
    "/tickle": (1, 1.0),
}
HISTORY = "/iserver/marketdata/history"
HISTORY_CONCURRENT = 5


class Pacing:
    """Counts requests and refuses those above the limits, and everything during the penalty after one.

    Args:
        clock: Wall seconds, monotonic.
        strict: Refuse; else only count.
        penalty_s: How long everything is refused after a request too many.
    """

    def __init__(self, *, clock: Callable[[], float], strict: bool, penalty_s: float) -> None:
        self._clock = clock
        self.strict = strict
        self.penalty_s = penalty_s
        self._until = 0.0
        self._seen: dict[str, deque[float]] = {}
        self._history = 0
        #: Requests refused so far.
        self.refused = 0

    def admit(self, method: str, path: str) -> None:
        """Count a request.

        Raises:
            ApiError: 429, and the penalty begins or goes on.
        """
        if not self.strict:
            return
        now = self._clock()
        if now < self._until:
            self.refused += 1
            raise errors.too_many_requests()
        limit = LIMITS.get(path) if method == "GET" or path == "/tickle" else None
        fits = self._fits("*", GLOBAL, now) and (limit is None or self._fits(path, limit, now))
        if path == HISTORY and self._history >= HISTORY_CONCURRENT:
            fits = False
        if not fits:
            self._until = now + self.penalty_s
            self.refused += 1
            raise errors.too_many_requests()

    def begin(self, path: str) -> None:
        self._history += path == HISTORY

    def end(self, path: str) -> None:
        self._history -= path == HISTORY

    def forgive(self) -> None:
        """End the penalty and forget what was counted."""
        self._until = 0.0
        self._seen.clear()

    def _fits(self, key: str, limit: tuple[int, float], now: float) -> bool:
        count, window = limit
        seen = self._seen.setdefault(key, deque())
        while seen and seen[0] <= now - window:
            seen.popleft()
        if len(seen) >= count:
            return False
        seen.append(now)
        return True
