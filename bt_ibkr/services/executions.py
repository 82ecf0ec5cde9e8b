"""Executions once each, whatever brings them."""

from __future__ import annotations

from bt_ibkr.model.order import Execution


class ExecutionBook:
    """Remembers executions by id.

    The stream sends each twice (the second time with its commission), replays them on every subscription,
    and ``/trades`` tells them again.
    """

    def __init__(self) -> None:
        self._seen: dict[str, Execution] = {}

    def add(self, execution: Execution) -> tuple[bool, bool]:
        """Take in one report.

        Returns:
            Whether the execution is new, and whether it brings a commission not known before.
        """
        known = self._seen.get(execution.execution_id)
        if known is None:
            self._seen[execution.execution_id] = execution
            return True, execution.commission is not None
        if execution.commission is not None and execution.commission != known.commission:
            self._seen[execution.execution_id] = execution
            return False, True
        return False, False

    def __len__(self) -> int:
        return len(self._seen)
