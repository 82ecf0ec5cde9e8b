"""Topics ``sor`` (orders) and ``str`` (executions), as recorded 2026-04."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from bt_ibkr.emulator.services.orders import rows
from bt_ibkr.emulator.stream.connection import Connection
from bt_ibkr.emulator.types import EmulatedExecution, EmulatedOrder
from bt_ibkr.model.order import DONE, OrderStatus

if TYPE_CHECKING:
    from bt_ibkr.emulator.services.core import Core

#: Left out of frames that tell changes: they follow from what is told.
_SILENT = frozenset({"lastExecutionTime", "lastExecutionTime_r", "orderDesc"})


class OrderStreams:
    """Connections that hear of orders, and what each was told last.

    There is no picture at the beginning: a subscriber hears of an order when it changes, first in full,
    then what changed.
    """

    def __init__(self, core: Core) -> None:
        self._core = core
        self._told: dict[Connection, dict[int, rows.Row]] = {}
        self._filters: dict[Connection, frozenset[str]] = {}
        self._known: set[int] = set()

    def subscribe(self, connection: Connection, arguments: dict[str, Any]) -> None:
        listed = arguments.get("filters")
        self._told[connection] = {}
        self._filters[connection] = frozenset(map(str, listed)) if isinstance(listed, list) else frozenset()

    def unsubscribe(self, connection: Connection) -> None:
        self._told.pop(connection, None)
        self._filters.pop(connection, None)

    def clear(self) -> None:
        self._told.clear()
        self._filters.clear()

    def know(self, order_ids: Iterable[int]) -> None:
        """These orders are not new."""
        self._known.update(order_ids)

    def forget(self) -> None:
        """All orders are gone: the emulator was reset."""
        self._known.clear()
        for told in self._told.values():
            told.clear()

    def on_order(self, order: EmulatedOrder) -> None:
        new = order.order_id not in self._known
        self._known.add(order.order_id)
        if not self._told or self._core.orders.filtered:
            return
        row = rows.live_row(self._core, order)
        for connection, told in self._told.items():
            wanted = self._filters[connection]
            if wanted and order.status.value not in wanted:
                continue
            before = told.get(order.order_id)
            told[order.order_id] = row
            self._tell(connection, before, row, order)
            if new:
                # Recorded: a frame with nothing but the id follows an order's first one.
                identity = {"acct": row["acct"], "orderId": row["orderId"]}
                connection.send({"topic": "sor", "args": [identity]})

    def _tell(
        self, connection: Connection, before: rows.Row | None, row: rows.Row, order: EmulatedOrder
    ) -> None:
        if before is None or order.status is OrderStatus.PENDING_CANCEL:
            connection.send({"topic": "sor", "args": [row]})
            return
        change = {key: value for key, value in row.items() if key not in _SILENT and before.get(key) != value}
        if not change:
            return
        if order.status in DONE:
            change["orderDesc"] = row["orderDesc"]
        identity = {"acct": row["acct"], "orderId": row["orderId"]}
        connection.send({"topic": "sor", "args": [identity | change]})


class ExecutionStreams:
    """Connections that hear of executions: each of them twice, the second time with its commission."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._connections: list[Connection] = []

    def subscribe(self, connection: Connection, replay: list[EmulatedExecution]) -> None:
        """Begin, with an empty frame and then the executions of ``replay``."""
        if connection not in self._connections:
            self._connections.append(connection)
        connection.send({"topic": "str", "args": []})
        for execution in replay:
            self._tell(connection, execution)

    def unsubscribe(self, connection: Connection) -> None:
        if connection in self._connections:
            self._connections.remove(connection)

    def clear(self) -> None:
        self._connections.clear()

    def on_execution(self, execution: EmulatedExecution) -> None:
        for connection in self._connections:
            self._tell(connection, execution)

    def on_commission(self, execution: EmulatedExecution) -> None:
        """A commission became known late."""
        row = rows.trade_row(self._core, execution)
        for connection in self._connections:
            connection.send({"topic": "str", "args": [row]})

    def _tell(self, connection: Connection, execution: EmulatedExecution) -> None:
        known = self._core.faults.listings.priced(execution)
        for commission in (False, True) if known else (False,):
            row = rows.trade_row(self._core, execution, commission=commission)
            connection.send({"topic": "str", "args": [row]})
