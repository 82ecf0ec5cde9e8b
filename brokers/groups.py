"""One-cancels-others groups, kept here where IBKR does not keep them: orders placed at different times.

A group has the key of its first order for a name, stands in the journal with each member, and so goes on after a
restart. As soon as one member executes, wholly or in part, or ends, the others are cancelled, as in backtrader's own
broker. Between an execution and the cancellation that follows another member may execute: executions count, whatever
was meant.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

from bt_ibkr.brokers.records import Working

#: Asks for the cancellation of the second order because the first has executed or ended; both by key.
CancelBecause = Callable[[str, str], None]


class Groups:
    """Who cancels whom.

    Args:
        cancel: Asks for a cancellation; called for every other member, ended ones too.
    """

    def __init__(self, cancel: CancelBecause) -> None:
        self._cancel = cancel
        self._members: dict[str, list[str]] = defaultdict(list)
        #: Groups of which a member has executed or ended; who joins one later is cancelled at once.
        self._fired: set[str] = set()

    def join(self, working: Working, other: Working) -> None:
        """``working`` joins the group of ``other``, which may be any of its members."""
        group = other.group
        if group is None:
            group = other.group = other.key
            self._members[group].append(other.key)
        working.group = group
        self._members[group].append(working.key)

    def restore(self, group: str, key: str) -> None:
        """A member of an earlier run. The group is named after its first order, which need not know of it."""
        for one in (group, key):
            if one not in self._members[group]:
                self._members[group].append(one)

    def members(self, group: str) -> tuple[str, ...]:
        """Keys of its orders, ended ones too."""
        return tuple(self._members.get(group, ()))

    def names(self) -> tuple[str, ...]:
        """Every group."""
        return tuple(self._members)

    def has_fired(self, group: str | None) -> bool:
        return group is not None and group in self._fired

    def fire(self, key: str, group: str | None) -> None:
        """The order of ``key`` has executed or ended: the others of its group are cancelled, once."""
        if group is None or group in self._fired or group not in self._members:
            return
        self._fired.add(group)
        for other in self._members[group]:
            if other != key:
                self._cancel(key, other)
