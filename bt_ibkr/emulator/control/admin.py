"""Control over orders, executions and positions: what others do in the account, and IBKR by itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from bt_ibkr.emulator.accounts.valuation import exact
from bt_ibkr.emulator.admin import executions, orders
from bt_ibkr.emulator.control import admin_arguments as args
from bt_ibkr.emulator.types import EmulatedExecution, OrderSpec
from bt_ibkr.errors import UsageError
from bt_ibkr.model.order import OrderType, TimeInForce

if TYPE_CHECKING:
    from bt_ibkr.emulator.services.core import Core

Answer = dict[str, Any]
#: Words of our own: how the real server puts it is not recorded.
QUARTER_END = "The GTC order was cancelled at the end of the calendar quarter."
_STOPS = (OrderType.STOP, OrderType.TRAIL)


class AdminOperations:
    """The operations on one emulator's orders and positions."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def table(self) -> dict[str, tuple[Any, Callable[[Any], Answer]]]:
        """Each operation with its arguments."""
        return {
            "manual_order": (args.ManualOrder, self._manual_order),
            "manual_modify": (args.ManualModify, self._manual_modify),
            "manual_cancel": (args.ManualCancel, self._manual_cancel),
            "system_cancel": (args.SystemCancel, self._system_cancel),
            "quarter_end": (args.QuarterEnd, self._quarter_end),
            "liquidate": (args.Liquidate, self._liquidate),
            "fill": (args.Fill, self._fill),
            "crowd": (args.Crowd, self._crowd),
            "correct": (args.Correct, self._correct),
            "bust": (args.Bust, self._bust),
            "exercise": (args.Exercise, self._exercise),
            "split": (args.Split, self._split),
            "rename": (args.Rename, self._rename),
        }

    def _account(self, name: str) -> str:
        """The account of that name; without one the first."""
        ids = self._core.engine.account_ids()
        if name and name not in ids:
            raise UsageError(f"Account {name!r} does not exist in the emulator.")
        return name or ids[0]

    def _manual_order(self, given: args.ManualOrder) -> Answer:
        stop = given.price if given.order_type in _STOPS else given.aux_price
        spec = OrderSpec(
            account=self._account(given.account),
            conid=given.conid,
            side=given.side,
            order_type=given.order_type,
            quantity=exact(given.quantity),
            limit_price=None if given.order_type in _STOPS else given.price,
            stop_price=stop,
            time_in_force=given.tif,
            client_order_id=given.order_ref or None,
            origin=given.origin,
        )
        return orders.row(orders.place(self._core, spec))

    def _manual_modify(self, given: args.ManualModify) -> Answer:
        changed = orders.modify(self._core, given.order_id, quantity=given.quantity, price=given.price)
        return orders.row(changed)

    def _manual_cancel(self, given: args.ManualCancel) -> Answer:
        return orders.row(orders.cancel(self._core, given.order_id))

    def _system_cancel(self, given: args.SystemCancel) -> Answer:
        account = None if given.account is None else self._account(given.account)
        if given.order_id is not None:
            orders.known(self._core, given.order_id)
        ended = orders.end(
            self._core,
            order_id=given.order_id,
            account=account,
            time_in_force=given.tif,
            reason=given.reason,
        )
        return {"cancelled": ended}

    def _quarter_end(self, given: args.QuarterEnd) -> Answer:
        tif = TimeInForce.GOOD_TILL_CANCELLED
        return self._system_cancel(args.SystemCancel(account=given.account, tif=tif, reason=QUARTER_END))

    def _liquidate(self, given: args.Liquidate) -> Answer:
        account = self._account(given.account)
        placed = orders.liquidate(
            self._core, account, given.conid, given.quantity, cancel_orders=given.cancel_orders
        )
        return {"orders": [orders.row(order) for order in placed]}

    def _fill(self, given: args.Fill) -> Answer:
        made = orders.execute(self._core, given.order_id, given.quantity, given.price)
        return {
            **orders.row(orders.known(self._core, given.order_id).order),
            "executions": [_row(one) for one in made],
        }

    def _crowd(self, given: args.Crowd) -> Answer:
        account = self._account(given.account)
        made = orders.crowd(self._core, account, given.conid, given.count, given.final, given.prefix)
        return {"count": len(made), "first": made[0], "last": made[-1]}

    def _correct(self, given: args.Correct) -> Answer:
        if given.price is None and given.quantity is None:
            raise UsageError("A correction needs a price or a quantity.")
        return _row(
            executions.correct(self._core, given.execution_id, price=given.price, quantity=given.quantity)
        )

    def _bust(self, given: args.Bust) -> Answer:
        return _row(executions.correct(self._core, given.execution_id, quantity=0.0))

    def _exercise(self, given: args.Exercise) -> Answer:
        return self._core.corporate.exercise(
            self._account(given.account),
            given.conid,
            given.quantity,
            given.how,
            given.underlying,
            given.settlement_price,
        )

    def _split(self, given: args.Split) -> Answer:
        if given.numerator == given.denominator:
            raise UsageError("A split needs a numerator other than the denominator.")
        return self._core.corporate.split(given.conid, given.numerator, given.denominator)

    def _rename(self, given: args.Rename) -> Answer:
        if given.symbol is None and given.new_conid is None:
            raise UsageError("A change of name needs a symbol or a new_conid.")
        return self._core.corporate.rename(given.conid, given.symbol, given.new_conid)


def _row(execution: EmulatedExecution) -> Answer:
    row: Answer = msgspec.to_builtins(execution)
    return row
