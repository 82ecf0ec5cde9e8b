"""Executions on backtrader's orders: applied, corrected, and shown to its trades where no order is behind them."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import backtrader as bt

from bt_ibkr.brokers.books import Applied, signed
from bt_ibkr.brokers.records import Working
from bt_ibkr.feeds.times import day_number
from bt_ibkr.model.order import Execution


def execute_order(working: Working, execution: Execution, applied: Applied) -> None:
    """One more execution on an order: its figures, and the bit that trades and analyzers read."""
    order = working.order
    comminfo = order.comminfo
    opened, closed = applied.opened, applied.closed
    size = opened + closed
    commission = execution.commission or 0.0
    closed_commission = commission * abs(closed / size)
    order.execute(
        day_number(execution.time_ns),
        size,
        execution.price,
        closed,
        comminfo.getoperationcost(closed, applied.price_before),
        closed_commission,
        opened,
        comminfo.getoperationcost(opened, execution.price),
        commission - closed_commission,
        comminfo.margin,
        comminfo.profitandloss(-closed, applied.price_before, execution.price),
        applied.size,
        applied.price,
    )
    working.filled += execution.quantity
    working.executions[execution.execution_id] = execution
    # By exact count: three times 0.1 is 0.3.
    sign = 1 if order.isbuy() else -1
    order.executed.size = _plain(working.filled * sign)
    if working.quantity is not None and working.filled <= working.quantity:
        order.executed.remsize = _plain(working.remaining * sign)


def correct_order(working: Working, old: Execution, new: Execution) -> None:
    """``new`` in the place of ``old`` (a quantity of 0 takes it back): the order's figures counted again.

    backtrader's own way of adding executions up divides by zero where nothing is left, and its record of single
    executions is not undone: trades get corrections by ``shadow``.
    """
    order = working.order
    executions = working.executions
    # What was reported before counts what is taken back now.
    working.taken_back += max(Decimal(0), old.quantity - new.quantity)
    if executions.pop(old.execution_id, None) is None:
        return
    if new.quantity:
        executions[new.execution_id] = new
    _correct_bit(order, old, new)
    count(working)


def count(working: Working) -> None:
    """An order's executed size, price and commission, from its executions alone."""
    order, executions = working.order, list(working.executions.values())
    working.filled = sum((one.quantity for one in executions), Decimal(0))
    sign = 1 if order.isbuy() else -1
    executed = order.executed
    executed.size = _plain(working.filled * sign)
    paid = sum(float(one.quantity) * one.price for one in executions)
    executed.price = paid / float(working.filled) if working.filled else 0.0
    executed.comm = sum(one.commission or 0.0 for one in executions)
    if not working.done:
        executed.remsize = _plain(working.remaining * sign)
    if executions:
        executed.dt = day_number(max(one.time_ns for one in executions))


def _correct_bit(order: Any, old: Execution, new: Execution) -> None:
    """The record of the execution; its split into closed and opened keeps its proportion."""
    was, now = float(signed(old)), float(signed(new))
    for bit in order.executed.exbits:
        if bit.size == was and bit.price == old.price:
            share = now / was
            order.executed.value += bit.value * (share - 1)
            bit.size, bit.price = now, new.price
            bit.closed, bit.opened = bit.closed * share, bit.opened * share
            bit.closedvalue, bit.openedvalue = bit.closedvalue * share, bit.openedvalue * share
            bit.value *= share
            paid, pays = old.commission or 0.0, new.commission or 0.0
            part = bit.closedcomm / bit.comm if bit.comm else 0.0
            bit.comm += pays - paid
            bit.closedcomm, bit.openedcomm = bit.comm * part, bit.comm * (1 - part)
            return


def seed(data: Any, position: Any, comminfo: Any) -> Any:
    """An order that shows backtrader's trades a position from before the run."""
    cls = bt.BuyOrder if position.size > 0 else bt.SellOrder
    order = cls(
        data=data, size=abs(position.size), price=position.price, exectype=bt.Order.Market, simulated=True
    )
    order.addcomminfo(comminfo)
    order.execute(
        0, position.size, position.price, 0, 0.0, 0.0, position.size, 0.0, 0.0, 0.0, 0.0,
        position.size, position.price,
    )  # fmt: skip
    order.completed()
    return order


def moved(position: Any, size: float, price: float) -> Applied:
    """What trading ``size`` (signed) at ``price`` does to a position, which is brought up to date."""
    before = position.price
    new_size, new_price, opened, closed = position.update(size, price)
    return Applied(opened, closed, before, new_size, new_price)


def shadow(data: Any, applied: Applied, price: float, commission: float, time_ns: int, comminfo: Any, *,
           owner: Any = None, trade_id: int = 0) -> Any:  # fmt: skip
    """An order that nobody placed: it shows backtrader's trades a change of the position from elsewhere.

    It never reaches ``notify_order``, where a strategy could take it for its own.

    Args:
        data: What changed.
        applied: How its position changed.
        price: Per unit.
        commission: In the instrument's currency.
        time_ns: When.
        comminfo: The commission scheme.
        owner: Whose trades; ``None`` for the first strategy's.
        trade_id: Which of its trades.
    """
    opened, closed, before = applied.opened, applied.closed, applied.price_before
    size = opened + closed
    cls = bt.BuyOrder if size > 0 else bt.SellOrder
    order = cls(
        owner=owner, data=data, size=abs(size), price=price, exectype=bt.Order.Historical, simulated=True,
        tradeid=trade_id,
    )  # fmt: skip
    order.addcomminfo(comminfo)
    closed_commission = commission * abs(closed / size)
    order.execute(
        day_number(time_ns), size, price,
        closed, comminfo.getoperationcost(closed, before), closed_commission,
        opened, comminfo.getoperationcost(opened, price), commission - closed_commission,
        comminfo.margin, comminfo.profitandloss(-closed, before, price), applied.size, applied.price,
    )  # fmt: skip
    order.completed()
    return order


def _plain(size: Decimal) -> int | float:
    return int(size) if size == size.to_integral_value() else float(size)
