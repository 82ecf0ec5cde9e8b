"""From backtrader's orders to tickets: pure, checked, refused in words before anything is sent."""

from __future__ import annotations

import math
from datetime import date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any

import backtrader as bt

from bt_ibkr.errors import OrderRefusedError
from bt_ibkr.model.contract import Contract
from bt_ibkr.model.order import OrderTicket, OrderType, Side, TimeInForce

#: backtrader's execution types and IBKR's order types.
ORDER_TYPES: dict[int, OrderType] = {
    bt.Order.Market: OrderType.MARKET,
    bt.Order.Close: OrderType.MARKET_ON_CLOSE,
    bt.Order.Limit: OrderType.LIMIT,
    bt.Order.Stop: OrderType.STOP,
    bt.Order.StopLimit: OrderType.STOP_LIMIT,
    bt.Order.StopTrail: OrderType.TRAIL,
    bt.Order.StopTrailLimit: OrderType.TRAIL_LIMIT,
}

#: The largest size taken: beyond it a float no longer tells one share from the next.
MOST = 2.0**53

#: Types whose ``price`` is a limit, a stop, or both with ``pricelimit``.
_NEEDS_PRICE = {bt.Order.Limit, bt.Order.Stop, bt.Order.StopLimit}
_TRAILS = {bt.Order.StopTrail, bt.Order.StopTrailLimit}


def check_size(size: Any, what: str) -> float:
    """The size as a positive number.

    Raises:
        OrderRefusedError: It is no number, not finite, or zero.
    """
    if not isinstance(size, (int, float, Decimal)) or isinstance(size, bool):
        try:
            # numpy's numbers, and texts that are numbers
            size = float("no" if isinstance(size, bool) else size)
        except (TypeError, ValueError):
            raise OrderRefusedError(f"{what}: the size {size!r} is not a number.") from None
    if not math.isfinite(size) or size == 0:
        raise OrderRefusedError(
            f"{what}: the size {size!r} is not a size to trade.", remedy="Give a finite size other than 0."
        )
    if abs(size) > MOST:
        raise OrderRefusedError(f"{what}: the size {size!r} is larger than any market.")
    return abs(float(size))


def exact(size: float) -> Decimal:
    """A size as the decimal number a person wrote: 0.1 is 0.1."""
    return Decimal(repr(float(size))).normalize() + 0


def round_to_tick(price: float, tick: float) -> float:
    """The nearest multiple of ``tick``."""
    if tick <= 0:
        return price
    step = Decimal(repr(tick))
    try:
        return float((Decimal(repr(price)) / step).quantize(Decimal(1)) * step)
    except InvalidOperation:
        # More ticks than a decimal holds: no market trades there, IBKR says so.
        return price


def time_in_force(valid: Any) -> TimeInForce:
    """IBKR's time in force for what the user passed as ``valid``.

    A moment (date, datetime, timedelta) becomes good-till-cancelled; the broker cancels it at that moment,
    as the wire has no good-till-date.
    """
    if valid is None:
        return TimeInForce.GOOD_TILL_CANCELLED
    if isinstance(valid, (date, datetime)):
        return TimeInForce.GOOD_TILL_CANCELLED
    if isinstance(valid, timedelta):
        return TimeInForce.DAY if valid == timedelta() else TimeInForce.GOOD_TILL_CANCELLED
    # A number counts days: one below 0 or NaN would otherwise stand until it is cancelled.
    if isinstance(valid, (int, float)) and not isinstance(valid, bool) and 0 <= valid < math.inf:
        return TimeInForce.DAY if valid == 0 else TimeInForce.GOOD_TILL_CANCELLED
    raise OrderRefusedError(
        f"valid={valid!r} is no validity.",
        remedy="Give None, Order.DAY, a date, a datetime, a timedelta, or a number of days from 0.",
    )


def _price(value: Any, name: str, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise OrderRefusedError(f"{what}: {name}={value!r} is not a price.", remedy="Give a finite number.")
    return float(value)


def make_ticket(
    order: Any,
    *,
    account: str,
    contract: Contract,
    client_order_id: str | None,
    parent: str | None,
    outside_regular_hours: bool,
    round_prices: bool,
    protective: bool = False,
) -> OrderTicket:
    """The ticket for one backtrader order.

    Args:
        order: A backtrader order, just created.
        account, contract: Where and what.
        client_order_id: ``None`` for a bracket's child.
        parent: The parent's ``client_order_id`` for a bracket's child.
        outside_regular_hours: Whether it may trade in extended hours.
        protective: Whether it closes or protects a position.
        round_prices: Whether prices are rounded to the contract's tick.

    Raises:
        OrderRefusedError: The order cannot be said to IBKR.
    """
    kind = order.exectype
    what = f"{'buy' if order.isbuy() else 'sell'} {contract.symbol}"
    order_type = ORDER_TYPES.get(kind)
    if order_type is None:
        raise OrderRefusedError(f"{what}: the execution type {kind!r} is not offered.")
    size = check_size(order.created.size, what)
    limit: float | None = None
    stop: float | None = None
    if kind in _NEEDS_PRICE:
        price = _price(order.price, "price", what)
        if kind == bt.Order.Limit:
            limit = price
        else:
            stop = price
        if kind == bt.Order.StopLimit:
            limit = _price(order.pricelimit, "plimit", what)
    amount = percent = None
    if kind in _TRAILS:
        amount, percent = order.trailamount, order.trailpercent
        if not amount and not percent:
            raise OrderRefusedError(f"{what}: a trailing stop needs trailamount or trailpercent.")
        # backtrader's own reference (the price given or the last close), already moved by the trail.
        stop = _price(order.created.price, "price", what)
        if amount:
            amount = _price(amount, "trailamount", what)
        else:
            # backtrader counts percent as a fraction, IBKR in hundredths.
            amount, percent = None, _price(percent, "trailpercent", what) * 100.0
        if kind == bt.Order.StopTrailLimit:
            limit = _price(order.created.pricelimit, "plimit", what)
    if round_prices:
        limit = None if limit is None else round_to_tick(limit, contract.tick_size)
        stop = None if stop is None else round_to_tick(stop, contract.tick_size)
    return OrderTicket(
        account=account,
        contract_id=contract.conid,
        security_type=contract.security_type.value,
        exchange=contract.exchange,
        side=Side.BUY if order.isbuy() else Side.SELL,
        order_type=order_type,
        quantity=exact(size),
        limit_price=limit,
        stop_price=stop,
        trail_amount=amount or None,
        trail_percent=percent if not amount else None,
        # An order at the close is of one day by its nature; IBKR takes no other word for it.
        time_in_force=TimeInForce.DAY if kind == bt.Order.Close else time_in_force(order.p.valid),
        outside_regular_hours=outside_regular_hours,
        client_order_id=client_order_id,
        parent=parent,
        protective=protective,
    )
