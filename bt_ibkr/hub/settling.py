"""When a difference between the books and IBKR's positions is one, and not an execution that is under way.

IBKR's positions may be older than its executions, and an execution may come after the positions that have it. Either
looks like a difference, and passes by itself. Pure: readings and executions in, what is certain out.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Final

import msgspec

from bt_ibkr.clock import NS_PER_S
from bt_ibkr.desk.reconcile import GRACE_S

#: What executed so many market seconds before a reading ended is in it: its positions may lag, and be older than its
#: end by the time that a reading takes.
_CONTAINED_S: Final = GRACE_S + 10
#: Two readings that tell the same are so far apart that the second has what had executed when the first ended, by
#: clocks that differ a little.
APART_S: Final = _CONTAINED_S + 5


class _Seen(msgspec.Struct, frozen=True):
    """A difference, and what was reported, since when."""

    reported: Decimal
    difference: Decimal
    since_ns: int


class Settled(msgspec.Struct, frozen=True):
    """A difference that is one.

    Attributes:
        quantity: By which IBKR's position is above the books'.
        as_of_ns: What has an earlier time than this is in IBKR's position. Executions have theirs in whole seconds.
    """

    quantity: Decimal
    as_of_ns: int


class Settling:
    """The differences of one account.

    A difference counts once two readings have told the same figure, more than ``APART_S`` apart, and nothing of the
    contract has come into the books between them.
    """

    def __init__(self) -> None:
        self._seen: dict[int, _Seen] = {}

    def executed(self, conid: int) -> None:
        """An execution is in the books from now on."""
        self._seen.pop(conid, None)

    @property
    def waiting(self) -> bool:
        """Whether something differs that another reading has to confirm."""
        return bool(self._seen)

    def read(
        self, reported: Mapping[int, Decimal], differences: Mapping[int, Decimal], now_ns: int
    ) -> dict[int, Settled]:
        """One whole reading.

        Args:
            reported: IBKR's positions by contract.
            differences: By how much they are above the books', where they are not equal.
            now_ns: When it ended.

        Returns:
            What is certain now.
        """
        before, self._seen = self._seen, {}
        certain: dict[int, Settled] = {}
        for conid, difference in differences.items():
            figure = reported.get(conid, Decimal(0))
            seen = before.get(conid)
            if seen is None or (seen.reported, seen.difference) != (figure, difference):
                self._seen[conid] = _Seen(figure, difference, now_ns)
            elif now_ns - seen.since_ns <= APART_S * NS_PER_S:
                self._seen[conid] = seen
            else:
                certain[conid] = Settled(difference, (now_ns // NS_PER_S - _CONTAINED_S) * NS_PER_S)
        return certain
