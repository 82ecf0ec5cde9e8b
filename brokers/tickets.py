"""From backtrader's orders to tickets: pure, checked, refused in words before anything is sent.

What backtrader has no word for is passed to ``buy()`` and ``sell()`` by keyword (see ``Wishes``) or as a value of
``ExecType``. ``docs/orders.md`` holds the whole table.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from numbers import Real
from typing import Any

import backtrader as bt
import msgspec

from bt_ibkr.brokers.exec_types import ExecType
from bt_ibkr.brokers.validity import time_in_force
from bt_ibkr.errors import OrderRefusedError
from bt_ibkr.model.contract import Contract, SecurityType
from bt_ibkr.model.order import AlgoValue, OrderTicket, OrderType, Side, TimeInForce
from bt_ibkr.model.order_words import AT_CLOSE, MAY_LIMIT, MAY_STOP, TRAILING

__all__ = [
    "ORDER_TYPES",
    "Wishes",
    "check_arguments",
    "check_size",
    "exact",
    "make_ticket",
    "order_type_of",
    "round_to_tick",
    "time_in_force",
    "wishes_of",
]

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


class Wishes(msgspec.Struct, frozen=True, kw_only=True):
    """Keywords of ``buy()`` and ``sell()`` that backtrader passes on, as far as they mean something to IBKR.

    Capitals and underscores do not matter (``outsideRth``, ``outside_rth``), and IBKR's own names are understood
    too (``cashQty``, ``useAdaptive`` …). Other keywords are the strategy's own and stay in ``order.info``.

    Attributes:
        order_type: IBKR's word for a type that backtrader has no name for; ``exectype=ExecType.MIT`` says the same,
            also to a backtest.
        tif: IBKR's time in force, or ``GTD`` with ``valid``.
        outside_rth: May trade in extended hours.
        cash_qty: Money to spend instead of a size.
        fx_qty: Money to convert, with ``currency_conversion``.
        currency_conversion: Convert, leave no position in the pair.
        offset: Of a REL order.
        algo, algo_params: IBKR algorithm by its id, and its parameters by their ids.
        all_or_none, price_management: See ``OrderTicket``.
        route: Exchange to route this order to.
        listing_exchange: Where the instrument is listed.
        allocation_group, allocation_method: An adviser's group.
        manual_indicator, ext_operator: Who entered an order on futures.
    """

    order_type: str | None = None
    tif: str | None = None
    outside_rth: bool | None = None
    cash_qty: float | int | Decimal | None = None
    fx_qty: float | int | Decimal | None = None
    currency_conversion: bool = False
    offset: float | int | None = None
    algo: str | None = None
    algo_params: Mapping[str, AlgoValue] | None = None
    all_or_none: bool = False
    price_management: bool | None = None
    route: str | None = None
    listing_exchange: str | None = None
    allocation_group: str | None = None
    allocation_method: str | None = None
    manual_indicator: bool | None = None
    ext_operator: str | None = None


_PLAIN = {name.replace("_", ""): name for name in Wishes.__struct_fields__} | {
    "cashquantity": "cash_qty",
    "fxquantity": "fx_qty",
    "isccyconv": "currency_conversion",
    "outsideregularhours": "outside_rth",
    "algoparameters": "algo_params",
    "useadaptive": "price_management",
    "timeinforce": "tif",
}


def wishes_of(info: Mapping[str, Any], what: str) -> Wishes:
    """The keywords of one order that mean something to IBKR.

    Args:
        info: ``order.info``, or the keywords themselves.
        what: The order, for messages.

    Raises:
        OrderRefusedError: A keyword has a value of the wrong kind, or is given twice.
    """
    found: dict[str, Any] = {}
    for key, value in info.items():
        name = _PLAIN.get(str(key).replace("_", "").lower())
        if name is None:
            continue
        if name in found:
            raise OrderRefusedError(
                f"{what}: {key}={value!r} says {name} a second time.", remedy="Say it once."
            )
        found[name] = value
    for name in ("cash_qty", "fx_qty"):
        if found.get(name) is not None:
            found[name] = exact(check_size(found[name], f"{what}: {name}"))
    if isinstance(found.get("order_type"), (ExecType, OrderType)):
        found["order_type"] = _word(found["order_type"])
    if isinstance(found.get("tif"), TimeInForce):
        found["tif"] = found["tif"].value
    try:
        return msgspec.convert(found, Wishes)
    except msgspec.ValidationError as problem:
        raise OrderRefusedError(
            f"{what}: a keyword has a value of the wrong kind: {problem}.",
            remedy="See docs/orders.md for the keywords of orders.",
        ) from None


def _word(kind: ExecType | OrderType) -> str:
    return kind.order_type.value if isinstance(kind, ExecType) else kind.value


def order_type_of(exectype: Any, wishes: Wishes, what: str) -> OrderType:
    """IBKR's type for an execution type and the keyword ``order_type``.

    Raises:
        OrderRefusedError: Neither is known, or both say different things.
    """
    if isinstance(exectype, ExecType):
        kind: OrderType | None = exectype.order_type
    else:
        number = bt.Order.Market if exectype is None else exectype
        kind = ORDER_TYPES.get(number) if type(number) is int else None
    if kind is None:
        raise OrderRefusedError(
            f"{what}: the execution type {exectype!r} is not offered.",
            remedy=f"Use backtrader's, or one of ExecType: {', '.join(sorted(t.value for t in OrderType))}.",
        )
    if wishes.order_type is None:
        return kind
    try:
        named = OrderType(wishes.order_type.upper())
    except ValueError:
        raise OrderRefusedError(
            f"{what}: order_type={wishes.order_type!r} is no order type.",
            remedy=f"Use one of {', '.join(sorted(one.value for one in OrderType))}.",
        ) from None
    if kind is not OrderType.MARKET and kind is not named:
        raise OrderRefusedError(
            f"{what}: exectype says {kind.value} and order_type says {named.value}.",
            remedy="Give one of them.",
        )
    return named


def _price(value: Any, name: str, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (Real, Decimal)) or not math.isfinite(value):
        raise OrderRefusedError(f"{what}: {name}={value!r} is not a price.", remedy="Give a finite number.")
    return float(value)


def check_arguments(
    what: str, *, price: Any, plimit: Any, trailamount: Any, trailpercent: Any
) -> dict[str, float | None]:
    """Prices as backtrader's ``Order`` can reckon with them: it stumbles over a ``Decimal`` while it is being made.

    Args:
        what: The order, for messages.
        price, plimit, trailamount, trailpercent: As ``buy()`` got them: floats, decimals, numpy's numbers.

    Returns:
        The same by name.

    Raises:
        OrderRefusedError: One of them is no number.
    """
    given = {"price": price, "plimit": plimit, "trailamount": trailamount, "trailpercent": trailpercent}
    return {name: None if value is None else _price(value, name, what) for name, value in given.items()}


class _Prices(msgspec.Struct, frozen=True, kw_only=True):
    limit: float | None = None
    stop: float | None = None
    amount: float | None = None
    percent: float | None = None


def _prices(order: Any, kind: OrderType, what: str) -> _Prices:
    """Where backtrader's ``price``, ``plimit``, ``trailamount`` and ``trailpercent`` belong."""
    if kind in TRAILING:
        return _trailing(order, kind, what)
    price, second = order.price, order.pricelimit
    if kind not in MAY_STOP:
        if kind not in MAY_LIMIT:
            # backtrader ignores the price of a market order, and strategies pass one.
            return _Prices()
        _unused(second, kind, what)
        capped = price is not None or kind not in (OrderType.MIDPRICE, OrderType.RELATIVE)
        return _Prices(limit=_price(price, "price", what) if capped else None)
    stop = _price(price, "price", what)
    if kind is OrderType.STOP_LIMIT and second is None:
        # backtrader's own broker takes the stop for the limit, too.
        return _Prices(stop=stop, limit=stop)
    if kind in MAY_LIMIT:
        return _Prices(stop=stop, limit=_price(second, "plimit", what))
    _unused(second, kind, what)
    return _Prices(stop=stop)


def _unused(plimit: Any, kind: OrderType, what: str) -> None:
    """backtrader ignores ``plimit`` for its own types; for IBKR's it was meant for another type."""
    if plimit is not None and kind not in ORDER_TYPES.values():
        raise OrderRefusedError(
            f"{what}: plimit={plimit!r} has no meaning for type {kind.value}.", remedy="Leave it out."
        )


def _trailing(order: Any, kind: OrderType, what: str) -> _Prices:
    amount, percent = order.trailamount, order.trailpercent
    if not amount and not percent:
        raise OrderRefusedError(
            f"{what}: a trailing stop needs trailamount or trailpercent.", remedy="Give one of them, above 0."
        )
    if amount and percent:
        raise OrderRefusedError(
            f"{what}: trailamount={amount!r} and trailpercent={percent!r} are both given.", remedy="Give one."
        )
    # backtrader's own reference (the price given or the last close), already moved by the trail.
    stop = _price(order.created.price, "price", what)
    limit = None
    if kind is OrderType.TRAIL_LIMIT:
        limit = _price(order.created.pricelimit, "plimit", what)
    if amount:
        return _Prices(stop=stop, limit=limit, amount=_price(amount, "trailamount", what))
    # backtrader counts percent as a fraction, IBKR in hundredths.
    hundredths = float(Decimal(repr(_price(percent, "trailpercent", what))) * 100)
    return _Prices(stop=stop, limit=limit, percent=hundredths)


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
        order: A backtrader order, just created, with the keywords of its ``buy()`` in ``info``.
        account, contract: Where and what.
        client_order_id: ``None`` for a bracket's child.
        parent: The parent's ``client_order_id`` for a bracket's child.
        outside_regular_hours: Whether it may trade in extended hours, unless a keyword says.
        protective: Whether it closes or protects a position.
        round_prices: Whether prices are rounded to the contract's tick.

    Raises:
        OrderRefusedError: The order cannot be said to IBKR.
    """
    what = f"{'buy' if order.isbuy() else 'sell'} {contract.symbol}"
    if contract.only_bought and not order.isbuy():
        raise OrderRefusedError(
            f"{what}: ForecastEx takes no orders to sell event contracts.",
            remedy="Buy the opposite contract (yes against no): IBKR nets the two, which closes the position.",
        )
    wishes = wishes_of(order.info, what)
    kind = order_type_of(order.exectype, wishes, what)
    prices = _prices(order, kind, what)
    limit, stop, amount = prices.limit, prices.stop, prices.amount
    if round_prices:
        limit, stop = (
            None if one is None else round_to_tick(one, contract.tick_at(one)) for one in (limit, stop)
        )
        if amount is not None:
            # IBKR wants a distance to trail by in ticks, too: in those of the price that it is trailed from.
            around = limit if limit is not None else stop
            amount = round_to_tick(amount, contract.tick_size if around is None else contract.tick_at(around))
    by_money = wishes.cash_qty is not None or wishes.fx_qty is not None
    offset = None if wishes.offset is None else _price(wishes.offset, "offset", what)
    if kind is OrderType.RELATIVE and offset is None:
        offset = 0.0
    outside = outside_regular_hours if wishes.outside_rth is None else wishes.outside_rth
    return OrderTicket(
        account=account,
        contract_id=contract.conid,
        security_type=contract.security_type.value,
        exchange=wishes.route or contract.exchange,
        listing_exchange=wishes.listing_exchange,
        legs=contract.legs,
        spread_id=contract.spread_id,
        side=Side.BUY if order.isbuy() else Side.SELL,
        order_type=kind,
        quantity=Decimal(0) if by_money else exact(check_size(order.created.size, what)),
        cash_quantity=_money(wishes.cash_qty),
        fx_quantity=_money(wishes.fx_qty),
        is_currency_conversion=wishes.currency_conversion,
        limit_price=limit,
        stop_price=stop,
        trail_amount=amount,
        trail_percent=prices.percent,
        offset=offset,
        time_in_force=_time(order, kind, contract, wishes),
        outside_regular_hours=outside,
        all_or_none=wishes.all_or_none,
        algo=wishes.algo,
        algo_parameters=tuple((wishes.algo_params or {}).items()),
        price_management=wishes.price_management,
        allocation_group=wishes.allocation_group,
        allocation_method=wishes.allocation_method,
        manual_indicator=wishes.manual_indicator,
        ext_operator=wishes.ext_operator,
        client_order_id=client_order_id,
        parent=parent,
        protective=protective,
    )


def _money(value: Any) -> Decimal | None:
    return None if value is None else exact(value)


def _time(order: Any, kind: OrderType, contract: Contract, wishes: Wishes) -> TimeInForce:
    """An order at the close is of one day by its nature, and a market order for cryptocurrency immediate: IBKR
    takes no other word for either, so neither needs to be said."""
    valid = order.p.valid
    if kind in AT_CLOSE:
        stated = time_in_force(valid, wishes.tif, default=TimeInForce.DAY)
        return stated if wishes.tif is not None else TimeInForce.DAY
    immediate = kind is OrderType.MARKET and contract.security_type is SecurityType.CRYPTO
    default = TimeInForce.IMMEDIATE_OR_CANCEL if immediate else TimeInForce.GOOD_TILL_CANCELLED
    return time_in_force(valid, wishes.tif, default=default)
