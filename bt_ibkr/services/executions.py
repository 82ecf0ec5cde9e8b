"""Executions once each, whatever brings them."""

from __future__ import annotations

import msgspec

from bt_ibkr.model.order import Execution


class Seen(msgspec.Struct, frozen=True):
    """What a report of an execution brought.

    Attributes:
        new: The execution was not known.
        commission: It brings a commission not known before.
        replaces: The execution that this one corrects.
    """

    new: bool
    commission: bool
    replaces: Execution | None = None


_OLD = Seen(new=False, commission=False)


def trade_of(execution_id: str) -> tuple[str, int]:
    """The trade that an execution id belongs to, and which report of the trade it is.

    IBKR's ids are four parts, ``0000dc8f.6b9035f5.01.01``; a correction or bust has the same first three and a
    higher last one.
    """
    base, _, last = execution_id.rpartition(".")
    if not base or not last.isdigit():
        return execution_id, 0
    return base, int(last)


class ExecutionBook:
    """Remembers executions by id.

    The stream sends each twice (the second time with its commission), replays them on every subscription,
    and ``/trades`` tells them again.
    """

    def __init__(self) -> None:
        self._seen: dict[str, Execution] = {}
        self._latest: dict[str, tuple[int, str]] = {}

    def add(self, execution: Execution) -> Seen:
        """Take in one report. A report of a trade that was corrected since is no news."""
        known = self._seen.get(execution.execution_id)
        if known is not None:
            if execution.commission is not None and execution.commission != known.commission:
                self._seen[execution.execution_id] = execution
                base, revision = trade_of(execution.execution_id)
                return Seen(new=False, commission=self._latest[base][0] == revision)
            return _OLD
        self._seen[execution.execution_id] = execution
        base, revision = trade_of(execution.execution_id)
        latest = self._latest.get(base)
        if latest is not None and latest[0] >= revision:
            return _OLD
        self._latest[base] = (revision, execution.execution_id)
        replaces = None if latest is None else self._seen[latest[1]]
        return Seen(new=True, commission=execution.commission is not None, replaces=replaces)

    def __contains__(self, execution_id: object) -> bool:
        return execution_id in self._seen

    def __len__(self) -> int:
        return len(self._seen)
