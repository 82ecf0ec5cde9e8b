"""Executions, once each, whatever brings them and however often."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from bt_ibkr.journal import tables
from bt_ibkr.journal.records import EventKind
from bt_ibkr.journal.tables import Execute
from bt_ibkr.model.order import Execution

#: A source that takes back what it said is believed so often; one that says two things in turn fills no log.
_MOST_TIMES: Final = 8


class _Told(NamedTuple):
    """What one source told of an execution: last, and how many times something else than before."""

    execution: Execution
    key: str | None
    times: int


#: By account, execution's id and source.
_AllTold = dict[tuple[str, str, str], _Told]


class ExecutionIntake:
    """Knows what each source told last, so that one that differs does not fill the log at every poll."""

    def __init__(self) -> None:
        self._told: _AllTold = {}

    def add(
        self, execute: Execute, now_ns: int, executions: Sequence[tuple[Execution, str | None, str]]
    ) -> tuple[list[bool], _AllTold]:
        """Take executions in, in a transaction.

        Returns:
            For each, whether it is to be applied; and what to hand to ``committed``.
        """
        told: _AllTold = {}
        return [self._one(execute, now_ns, told, *one) for one in executions], told

    def committed(self, told: _AllTold) -> None:
        """The transaction is on the disk."""
        self._told.update(told)

    def _one(
        self,
        execute: Execute,
        now_ns: int,
        told: _AllTold,
        execution: Execution,
        key: str | None,
        source: str,
    ) -> bool:
        where = (execution.account, execution.execution_id, source)
        before = told.get(where, self._told.get(where))
        times = 0
        if before is not None:
            if (before.execution, before.key) == (execution, key) or before.times >= _MOST_TIMES:
                return False
            times = before.times + 1
        told[where] = _Told(execution, key, times)
        row = execute(
            "SELECT number, execution, key FROM executions WHERE account = ? AND execution_id = ?",
            (execution.account, execution.execution_id),
        ).fetchone()
        if row is None:
            entry = self._enter(execute, now_ns, key, EventKind.EXECUTION, "", execution, source)
            return tables.add_execution(execute, entry, execution, key, source)
        number, body, old_key = row
        old = tables.decode_execution(body)
        if tables.conflict(old, execution):
            text = f"came again with other figures from {source}"
            self._enter(execute, now_ns, old_key, EventKind.EXECUTION_CONFLICT, text, execution, source)
            return False
        merged = tables.merge(old, execution)
        key = old_key or key
        if merged != old or key != old_key:
            entry = self._enter(execute, now_ns, key, EventKind.EXECUTION_COMPLETED, "", merged, source)
            tables.complete_execution(execute, entry, number, merged, key)
        return False

    @staticmethod
    def _enter(
        execute: Execute,
        now_ns: int,
        key: str | None,
        kind: EventKind,
        text: str,
        execution: Execution,
        source: str,
    ) -> tables.Entry:
        payload = tables.encode(tables.ExecutionNote(execution, source))
        return tables.add_event(execute, now_ns, key, kind, text, payload)
