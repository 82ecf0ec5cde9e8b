"""Orders and executions as IBKR reports them: live orders, order status, trades, topics ``sor`` and ``str``.

One order is spelt in two ways. The list and the stream share theirs; ``order/status`` has snake case, all
numbers as text, sides ``B`` and ``S``, and ``size`` for what *remains*. ``timeInForce`` says ``CLOSE`` for
DAY.
"""

from __future__ import annotations

from typing import Final

import msgspec

from bt_ibkr.clock import NS_PER_MS
from bt_ibkr.errors import WireError
from bt_ibkr.model.contract import Leg, combo_key
from bt_ibkr.model.order import Execution, OrderReport, OrderStatus, OrderType
from bt_ibkr.wire import fields, values
from bt_ibkr.wire.conidex import Conidex, parse_conidex
from bt_ibkr.wire.json import parsed

_STATUSES: Final = {status.value: status for status in OrderStatus}
#: ``order_ccp_status`` of ``order/status`` is a code there; only this one is known.
_CCP_CODES: Final = {"2": OrderStatus.FILLED}
#: Words for order types in reports, upper case and without blanks, by the word of the order request.
_TYPE_WORDS: Final = {
    **{kind.value.replace("_", ""): kind for kind in OrderType},
    "MARKET": OrderType.MARKET,
    "LIMIT": OrderType.LIMIT,
    "STOP": OrderType.STOP,
    "STPLMT": OrderType.STOP_LIMIT,
    "STOPLMT": OrderType.STOP_LIMIT,
    "STPLIMIT": OrderType.STOP_LIMIT,
    "TRAILINGSTOP": OrderType.TRAIL,
    "TRAILSTOP": OrderType.TRAIL,
    "TRAILINGSTOPLIMIT": OrderType.TRAIL_LIMIT,
    "TRAILLIMIT": OrderType.TRAIL_LIMIT,
    "TRAILINGLIMIT": OrderType.TRAIL_LIMIT,
    "MARKETONCLOSE": OrderType.MARKET_ON_CLOSE,
    "LIMITONCLOSE": OrderType.LIMIT_ON_CLOSE,
    "MARKETIFTOUCHED": OrderType.MARKET_IF_TOUCHED,
    "LIMITIFTOUCHED": OrderType.LIMIT_IF_TOUCHED,
    "RELATIVE": OrderType.RELATIVE,
}
#: Types whose ``price`` is the stop.
_STOP_IN_PRICE: Final = frozenset(
    {OrderType.STOP.value, OrderType.TRAIL.value, OrderType.MARKET_IF_TOUCHED.value}
)


class LiveOrders(msgspec.Struct, frozen=True, kw_only=True):
    """The day's orders; ``snapshot`` is false in an answer that only primes the server's cache."""

    orders: tuple[OrderReport, ...]
    snapshot: bool


class _LiveOrder(msgspec.Struct, rename="camel"):
    """A row of ``account/orders``, and of topic ``sor``, where all but ``orderId`` may be missing."""

    acct: object = None
    account: object = None
    conid: object = None  # of a combo: the spread's
    conidex: object = None  # of a combo: with its legs
    ticker: object = None
    order_id: object = None
    side: object = None  # BUY, SELL; EXER for an exercise
    orig_order_type: object = None  # LIMIT
    order_type: object = None  # Limit
    status: object = None
    order_ccp_status: object = msgspec.field(default=None, name="order_ccp_status")
    total_size: object = None  # units, as the next two
    filled_quantity: object = None
    remaining_quantity: object = None
    avg_price: object = None  # text
    price: object = None  # text, number, or "" for market orders
    aux_price: object = None
    stop_price: object = msgspec.field(default=None, name="stop_price")
    limit_price: object = msgspec.field(default=None, name="limit_price")
    time_in_force: object = None
    order_ref: object = msgspec.field(default=None, name="order_ref")  # cOID
    parent_id: object = None
    oca_group_id: object = None
    cancel_reason: object = msgspec.field(default=None, name="order_cancellation_by_system_reason")
    last_execution_time: object = None  # YYMMDDhhmmss UTC
    last_execution_time_ms: object = msgspec.field(default=None, name="lastExecutionTime_r")  # epoch ms


class _OrderStatus(msgspec.Struct):
    """``order/status``; all numbers are text."""

    order_id: object = None
    account: object = None
    order_clearing_account: object = None
    conid: object = None
    conidex: object = None
    symbol: object = None
    side: object = None  # B, S
    order_type: object = None
    order_status: object = None
    order_ccp_status: object = None  # a code
    total_size: object = None
    size: object = None  # what remains
    remaining_quantity: object = None
    cum_fill: object = None
    filled_quantity: object = None
    average_price: object = None
    avg_fill_price: object = None
    limit_price: object = None
    stop_price: object = None
    tif: object = None
    order_ref: object = None
    parent_order_id: object = None
    oca_group_id: object = None
    cancel_reason: object = msgspec.field(default=None, name="order_cancellation_by_system_reason")
    order_time: object = None  # YYMMDDhhmmss UTC


class _Execution(msgspec.Struct):
    execution_id: object = None
    account: object = None
    account_code: object = msgspec.field(default=None, name="accountCode")
    conid: object = None
    conid_ex: object = msgspec.field(default=None, name="conidEx")
    symbol: object = None
    side: object = None  # B, S
    size: object = None  # units
    price: object = None  # text
    commission: object = None  # text; missing until IBKR knows it
    exchange: object = None
    trade_time: object = None  # YYYYMMDD-hh:mm:ss UTC
    trade_time_r: object = None  # epoch ms
    order_id: object = None
    order_ref: object = None  # cOID
    liquidation_trade: object = None  # "1" or "0"


def status_word(value: object, what: str = "order status") -> OrderStatus | None:
    """The status for IBKR's word; ``None`` for null and "".

    Raises:
        WireError: Any other value: a status is never guessed.
    """
    if value is None or value == "":
        return None
    found = _STATUSES.get(value.strip()) if isinstance(value, str) else None
    if found is None:
        raise WireError(f"{what}: {fields.show(value)} is not known.")
    return found


def ccp_status(value: object) -> OrderStatus | None:
    """What ``order_ccp_status`` tells: words with blanks in lists (``Pending Submit``), a code in
    ``order/status``. It only stands in where there is no status word, so an unknown one tells nothing."""
    word = (fields.text(value) or "").replace(" ", "")
    return _CCP_CODES.get(word) or _STATUSES.get(word)


def type_word(value: object) -> str | None:
    """The order request's word (``STP``, ``STOP_LIMIT`` …) for a report's; an unknown one as it is."""
    word = fields.text(value)
    if word is None:
        return None
    plain = word.upper().replace(" ", "").replace("_", "")
    known = _TYPE_WORDS.get(plain)
    return word if known is None else known.value


def live_orders(body: object, *, refused: fields.Refuser | None = None) -> LiveOrders:
    """``/iserver/account/orders``.

    Args:
        refused: Told of a row that cannot be read (an unknown side or status …); the others are returned.

    Raises:
        WireError: Not an object with orders, an error, or (without ``refused``) a row that cannot be read.
    """
    outer = fields.mapping(body, "account/orders")
    if "orders" not in outer:
        raise WireError("account/orders: the list of orders is missing.")
    items = fields.array(outer["orders"], "account/orders")
    return LiveOrders(
        orders=fields.each(items, live_order, refused),
        snapshot=bool(fields.flag(outer.get("snapshot"), "snapshot")),
    )


def live_order(item: object) -> OrderReport:
    """A row of the list, or of topic ``sor``: full, changed fields only, or the id alone.

    Raises:
        WireError: Not an object, no order id, an unknown side or status, or a number that is none.
    """
    row = fields.payload(item, _LiveOrder, "order")
    order_id = fields.required(fields.order_id(row.order_id), "order: orderId")
    what = f"order {order_id}"
    kind = type_word(row.orig_order_type) or type_word(row.order_type)
    limit, stop = _prices(row, kind, what)
    address = _address(row.conid, row.conidex, what)
    return OrderReport(
        order_id=order_id,
        account=fields.text(row.account) or fields.text(row.acct),
        conid=address.conid,
        legs=address.legs,
        exchange=address.exchange,
        side=fields.side(row.side, f"{what}: side"),
        order_type=kind,
        status=status_word(row.status, f"{what}: status") or ccp_status(row.order_ccp_status),
        total_quantity=fields.quantity(row.total_size, f"{what}: totalSize"),
        filled_quantity=fields.quantity(row.filled_quantity, f"{what}: filledQuantity"),
        remaining_quantity=fields.quantity(row.remaining_quantity, f"{what}: remainingQuantity"),
        average_price=fields.amount(row.avg_price, f"{what}: avgPrice"),
        limit_price=limit,
        stop_price=stop,
        time_in_force=_time_in_force(row.time_in_force),
        order_ref=fields.text(row.order_ref),
        parent_id=fields.identifier(row.parent_id, f"{what}: parentId"),
        oca_group=fields.identifier(row.oca_group_id, f"{what}: ocaGroupId"),
        symbol=fields.text(row.ticker),
        reason=fields.text(row.cancel_reason),
        time_ns=_time(row.last_execution_time_ms, row.last_execution_time),
    )


class _Address(msgspec.Struct, frozen=True):
    conid: int | None
    exchange: str | None = None
    legs: tuple[Leg, ...] = ()


def _address(conid: object, conidex: object, what: str) -> _Address:
    """The contract. ``conid`` alone says which; of a combo ``conidex`` has the legs, and ``conid`` is only the
    currency's spread, which all its combos share.

    Raises:
        WireError: A conid that is none, or a combo that cannot be read: it must not be taken for another contract.
    """
    plain = fields.conid(conid, f"{what}: conid")
    text = fields.text(conidex)
    if text is None:
        return _Address(plain)
    if ";;;" not in text:
        found = fields.lenient(_conidex, text, f"{what}: conidex")
        if found is None:
            return _Address(plain)
        named = found.exchange if "@" in text else None
        return _Address(found.conid if plain is None else plain, named)
    combo = parse_conidex(text)
    return _Address(combo_key(combo.legs), combo.exchange if "@" in text else None, combo.legs)


def _conidex(value: object, what: str) -> Conidex:
    return parse_conidex(str(value))


def _prices(row: _LiveOrder, kind: str | None, what: str) -> tuple[float | None, float | None]:
    """Limit and stop. Which of them ``price`` is depends on the type; without a type it is neither."""
    price = fields.amount(row.price, f"{what}: price")
    limit = fields.amount(row.limit_price, f"{what}: limit_price")
    stop = fields.amount(row.stop_price, f"{what}: stop_price")
    if stop is None:
        stop = fields.amount(row.aux_price, f"{what}: auxPrice")
    if kind in _STOP_IN_PRICE:
        return limit, price if stop is None else stop
    if kind is not None and limit is None:
        limit = price
    return limit, stop


def _time_in_force(value: object) -> str | None:
    word = fields.text(value)
    return "DAY" if word == "CLOSE" else word


def _time(milliseconds: object, written: object) -> int | None:
    found = fields.lenient(values.ns_from_ms, milliseconds, "time")
    return found if found is not None else fields.lenient(values.ns_from_text, written, "time")


def order_status(body: object) -> OrderReport:
    """``/iserver/account/order/status/{id}``.

    Raises:
        WireError: Not an object, an error, no order id, an unknown side or status, or no number.
    """
    row = fields.payload(fields.mapping(body, "order/status"), _OrderStatus, "order/status")
    order_id = fields.required(fields.order_id(row.order_id), "order/status: order_id")
    what = f"order {order_id}"
    address = _address(row.conid, row.conidex, what)
    remaining = row.size if row.remaining_quantity is None else row.remaining_quantity
    filled = row.filled_quantity if row.cum_fill is None else row.cum_fill
    average = row.avg_fill_price if row.average_price is None else row.average_price
    return OrderReport(
        order_id=order_id,
        account=fields.text(row.account) or fields.text(row.order_clearing_account),
        conid=address.conid,
        legs=address.legs,
        exchange=address.exchange,
        side=fields.side(row.side, f"{what}: side"),
        order_type=type_word(row.order_type),
        status=status_word(row.order_status, f"{what}: status") or ccp_status(row.order_ccp_status),
        total_quantity=fields.quantity(row.total_size, f"{what}: total_size"),
        filled_quantity=fields.quantity(filled, f"{what}: cum_fill"),
        remaining_quantity=fields.quantity(remaining, f"{what}: size"),
        average_price=fields.amount(average, f"{what}: average_price"),
        limit_price=fields.amount(row.limit_price, f"{what}: limit_price"),
        stop_price=fields.amount(row.stop_price, f"{what}: stop_price"),
        time_in_force=_time_in_force(row.tif),
        order_ref=fields.text(row.order_ref),
        parent_id=fields.identifier(row.parent_order_id, f"{what}: parent_order_id"),
        oca_group=fields.identifier(row.oca_group_id, f"{what}: oca_group_id"),
        symbol=fields.text(row.symbol),
        reason=fields.text(row.cancel_reason),
        time_ns=_time(None, row.order_time),
    )


def trades(body: object, *, refused: fields.Refuser | None = None) -> tuple[Execution, ...]:
    """``/iserver/account/trades``, and the ``args`` of topic ``str``.

    Args:
        refused: Told of an execution that cannot be read (side ``N`` nets event contracts); the others are
            returned.

    Raises:
        WireError: Not an array, an error, or (without ``refused``) an execution that cannot be read.
    """
    value = parsed(body)
    single = isinstance(value, dict) and "execution_id" in value
    return fields.each([value] if single else fields.array(value, "trades"), execution, refused)


def execution(item: object) -> Execution:
    """One execution.

    Raises:
        WireError: Not an object, or without id, account, contract, side, time, or a size above 0 and a price.
    """
    row = fields.payload(item, _Execution, "execution")
    key = fields.required(fields.text(row.execution_id), "execution: execution_id")
    what = f"execution {key[:60]}"
    address = _address(row.conid, row.conid_ex, what)
    quantity = fields.required(fields.quantity(row.size, f"{what}: size"), f"{what}: size")
    if quantity < 0 or (not quantity and not _corrects(key)):
        raise WireError(f"{what}: a size of {quantity} is not above 0.")
    return Execution(
        execution_id=key,
        account=fields.required(
            fields.text(row.account) or fields.text(row.account_code), f"{what}: the account"
        ),
        conid=fields.required(address.conid, f"{what}: conid"),
        legs=address.legs,
        symbol=fields.text(row.symbol) or "",
        side=fields.required(fields.side(row.side, f"{what}: side"), f"{what}: side"),
        quantity=quantity,
        price=fields.required(fields.amount(row.price, f"{what}: price"), f"{what}: price"),
        time_ns=fields.required(_trade_time(row, what), f"{what}: the time"),
        exchange=fields.text(row.exchange) or "",
        commission=fields.amount(row.commission, f"{what}: commission"),
        order_id=fields.order_id(row.order_id, f"{what}: order_id"),
        order_ref=fields.text(row.order_ref),
        liquidation=bool(fields.lenient(fields.flag, row.liquidation_trade, "liquidation_trade")),
    )


def _corrects(execution_id: str) -> bool:
    """Whether the id is that of a correction: its last part counts the reports of one trade."""
    last = execution_id.rpartition(".")[2]
    return last.isdigit() and int(last) > 1


def _trade_time(row: _Execution, what: str) -> int | None:
    """``trade_time_r``, milliseconds; ``trade_time``, the same moment in words, where that is missing."""
    found = values.ns_from_ms(row.trade_time_r, f"{what}: trade_time_r")
    if found is not None and found >= NS_PER_MS:
        return found
    return values.ns_from_text(row.trade_time, f"{what}: trade_time")
