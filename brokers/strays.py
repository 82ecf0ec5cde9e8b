"""Orders of earlier runs that no strategy of this run can take over: their expiry and their groups go on."""

from __future__ import annotations

import logging
from collections.abc import Callable

from bt_ibkr.brokers.groups import Groups
from bt_ibkr.clock import Clock
from bt_ibkr.connection.interface import StandingOrder

_log = logging.getLogger(__name__)


class Strays:
    """Open orders of strategies, or of instruments, that this run does not have.

    Args:
        clock: Market clock.
        groups: Where their groups are kept.
        cancel: Asks for a cancellation, by key.
    """

    def __init__(self, clock: Clock, groups: Groups, cancel: Callable[[str], None]) -> None:
        self._clock = clock
        self._groups = groups
        self._cancel = cancel
        self._orders: dict[str, StandingOrder] = {}
        self._expiries: dict[str, int] = {}

    def add(self, standing: StandingOrder) -> None:
        key, expires_ns = standing.intent.key, standing.intent.expires_ns
        self._orders[key] = standing
        if expires_ns is not None:
            self._expiries[key] = expires_ns
        _log.info("order-of-another-run key=%s order_id=%s", key, standing.order_id)

    def get(self, key: str | None) -> StandingOrder | None:
        return None if key is None else self._orders.get(key)

    @property
    def orders(self) -> tuple[StandingOrder, ...]:
        return tuple(self._orders.values())

    def executed(self, key: str) -> None:
        """An execution of it was reported."""
        self._groups.fire(key, self._group(key))

    def ended(self, key: str) -> None:
        """It will not execute any more."""
        self._groups.fire(key, self._group(key))
        self._orders.pop(key, None)
        self._expiries.pop(key, None)

    def _group(self, key: str) -> str | None:
        standing = self._orders.get(key)
        if standing is None:
            return None
        group = standing.intent.group
        return group if group is not None or key not in self._groups.names() else key

    def deadline_ns(self) -> int | None:
        """The next moment at which one's time is over."""
        return min(self._expiries.values(), default=None)

    def expire_due(self) -> None:
        """Ask for the cancellation of those whose time is over."""
        now_ns = self._clock.now_ns()
        for key in [key for key, expires_ns in self._expiries.items() if expires_ns <= now_ns]:
            del self._expiries[key]
            self._cancel(key)
