"""Faults of what is told of orders and executions afterwards: lists, status, commissions."""

from __future__ import annotations

import asyncio
import copy
import time
from collections.abc import Callable
from decimal import Decimal
from typing import TYPE_CHECKING

from bt_ibkr.emulator.faults.active import Active, Registry
from bt_ibkr.emulator.faults.order_specs import Commissions, OrderList, OrderStatusFails, Trades
from bt_ibkr.emulator.services.orders import rows
from bt_ibkr.emulator.types import EmulatedExecution, EmulatedOrder, OrderSpec
from bt_ibkr.model.order import DONE, OrderStatus, OrderType, Side

if TYPE_CHECKING:
    from bt_ibkr.emulator.faults.base import Spec
    from bt_ibkr.emulator.services.core import Core

#: Ids of invented orders; the exchange's own are far from it.
_FOREIGN_ID = 1_700_000_000


class ListingFaults:
    """What is wrong with lists of orders and executions, and with commissions."""

    def __init__(self, core: Core, registry: Registry) -> None:
        self._core = core
        self._registry = registry
        self._rules: list[Active] = []
        self._forced: set[int] = set()
        self._frozen: dict[int, dict[str, list[rows.Row]]] = {}
        self._unpriced: dict[str, Active] = {}
        self._happened: dict[str, float] = {}

    def begin(self, fault: Active) -> None:
        self._rules.append(fault)
        if isinstance(fault.spec, OrderList) and fault.spec.action == "freeze":
            self._frozen[fault.number] = {
                account: [rows.live_row(self._core, order) for order in self._core.engine.orders(account)]
                for account in self._core.session.accounts
            }
        fault.lasts(lambda: self._end(fault))

    def _end(self, fault: Active) -> None:
        self._rules.remove(fault)
        self._forced.discard(fault.number)
        self._frozen.pop(fault.number, None)
        if isinstance(fault.spec, Commissions) and not fault.spec.delay_s:
            for execution_id in [key for key, one in self._unpriced.items() if one is fault]:
                self._price(execution_id)
        if not self._of(Trades):
            self._happened.clear()

    def _of(self, kind: type[Spec]) -> list[Active]:
        return [one for one in self._rules if one.armed and isinstance(one.spec, kind)]

    # --- live orders -------------------------------------------------------------------------------

    def forced(self) -> None:
        """The list of live orders was forced."""
        self._forced.update(fault.number for fault in self._of(OrderList))

    def live_orders(self, account: str, listed: list[rows.Row]) -> tuple[list[rows.Row], bool]:
        """The rows that are told, and what the answer says of ``snapshot``."""
        snapshot = True
        for fault in self._of(OrderList):
            spec = fault.spec
            if not isinstance(spec, OrderList) or (spec.after_force and fault.number not in self._forced):
                continue
            match spec.action:
                case "empty":
                    listed, snapshot = [], spec.snapshot
                case "vanish":
                    listed = [row for row in listed if not _named(row, spec)]
                case "freeze":
                    listed = copy.deepcopy(self._frozen[fault.number].get(account, []))
                case "foreign":
                    listed = [*listed, *self._foreign(account, spec)]
            self._registry.spend(fault, action=spec.action)
        return listed, snapshot

    def _foreign(self, account: str, spec: OrderList) -> list[rows.Row]:
        core = self._core
        if not spec.account or spec.account in core.session.accounts:
            wanted = (
                [spec.account] if spec.account else [one for one in core.session.accounts if one != account]
            )
            return [rows.live_row(core, order) for one in wanted for order in core.engine.orders(one)]
        conid = core.engine.tape.conids[0]
        invented = []
        for number in range(spec.rows):
            order = EmulatedOrder(
                _FOREIGN_ID + number,
                OrderSpec(
                    account=spec.account,
                    conid=conid,
                    side=Side.BUY,
                    order_type=OrderType.LIMIT,
                    quantity=Decimal(100 + number),
                    limit_price=1.0,
                ),
                core.now_ns,
            )
            invented.append(rows.live_row(core, order, OrderStatus.SUBMITTED))
        return invented

    def status_fails(self, order: EmulatedOrder) -> bool:
        """Whether this order's status is not found."""
        for fault in self._of(OrderStatusFails):
            spec = fault.spec
            if not isinstance(spec, OrderStatusFails) or spec.order_id not in (None, order.order_id):
                continue
            if order.status in DONE or not spec.finished:
                self._registry.spend(fault, order_id=order.order_id)
                return True
        return False

    # --- executions --------------------------------------------------------------------------------

    def trades(self, executions: list[EmulatedExecution]) -> list[EmulatedExecution]:
        """The executions that ``trades`` tells."""
        for fault in self._of(Trades):
            spec = fault.spec
            if not isinstance(spec, Trades):
                continue
            match spec.action:
                case "empty":
                    executions = []
                case "lag":
                    executions = [one for one in executions if self._due(one, spec.lag_s)]
                case "shuffle":
                    executions = list(executions)
                    self._registry.random.shuffle(executions)
                case "duplicate":
                    executions = [one for one in executions for _ in range(2)]
            self._registry.spend(fault, action=spec.action)
        return executions

    def _due(self, execution: EmulatedExecution, lag_s: float) -> bool:
        happened = self._happened.get(execution.execution_id)
        return happened is None or bool(lag_s and time.monotonic() - happened >= lag_s)

    def executed(self, execution: EmulatedExecution) -> None:
        """An order executed; nobody has been told yet."""
        if self._of(Trades):
            self._happened[execution.execution_id] = time.monotonic()
        for fault in self._of(Commissions):
            spec = fault.spec
            if isinstance(spec, Commissions):
                self._unpriced[execution.execution_id] = fault
                if spec.delay_s:
                    asyncio.get_running_loop().call_later(spec.delay_s, self._price, execution.execution_id)
                self._registry.spend(fault, execution_id=execution.execution_id)
                return

    def priced(self, execution: EmulatedExecution) -> bool:
        """Whether the commission of an execution is told."""
        return execution.execution_id not in self._unpriced

    def forget(self) -> None:
        """The market began anew."""
        self._unpriced.clear()
        self._happened.clear()

    def _price(self, execution_id: str) -> None:
        if self._unpriced.pop(execution_id, None) is None:
            return
        tell: Callable[[EmulatedExecution], None] = self._core.hub.tell_commission
        for execution in self._core.engine.executions():
            if execution.execution_id == execution_id:
                tell(execution)


def _named(row: rows.Row, spec: OrderList) -> bool:
    if not spec.orders and not spec.statuses:
        return True
    ids = {str(one) for one in spec.orders}
    return (
        str(row["orderId"]) in ids
        or str(row.get("order_ref", "")) in ids - {""}
        or str(row["status"]) in spec.statuses
    )
