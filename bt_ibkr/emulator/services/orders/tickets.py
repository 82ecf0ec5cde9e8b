"""An order as a client writes it, checked and made an ``OrderSpec``.

What is refused with which status and words is recorded (wire facts, section 7.2): the form of a request is
refused with 400, what it means with 200 and an ``error``.
"""

from __future__ import annotations

import math
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from bt_ibkr.emulator.services import errors
from bt_ibkr.emulator.services.errors import ApiError
from bt_ibkr.emulator.services.json import encode
from bt_ibkr.emulator.types import Instrument, OrderSpec
from bt_ibkr.model.contract import SecurityType
from bt_ibkr.model.order import OrderType, Side, TimeInForce

if TYPE_CHECKING:
    from bt_ibkr.emulator.services.core import Core

MAX_CLIENT_ID = 64
_TEXTS = ("acctId", "conidex", "secType", "cOID", "parentId", "orderType", "side", "tif", "trailingType")
_NUMBERS = ("price", "auxPrice", "quantity", "cashQty", "fxQty", "trailingAmt")
_FLAGS = ("outsideRTH", "isSingleGroup", "useAdaptive", "allOrNone", "deactivated", "isCcyConv")
#: Order types that need ``price`` and those that need ``auxPrice``.
_PRICED = frozenset(
    {
        OrderType.LIMIT,
        OrderType.STOP,
        OrderType.STOP_LIMIT,
        OrderType.LIMIT_ON_CLOSE,
        OrderType.LIMIT_IF_TOUCHED,
    }
)
_AUXILIARY = frozenset({OrderType.STOP_LIMIT, OrderType.MARKET_IF_TOUCHED, OrderType.LIMIT_IF_TOUCHED})
_TRAILING = frozenset({OrderType.TRAIL, OrderType.TRAIL_LIMIT})
_CLOSING = frozenset({OrderType.MARKET_ON_CLOSE, OrderType.LIMIT_ON_CLOSE})


def business(text: str) -> ApiError:
    """A refusal that the real server sends with status 200."""
    return ApiError(200, encode({"error": text}))


def rejected(text: str) -> ApiError:
    """The refusal that looks like an order: id -1, status Failed (recorded)."""
    row = {
        "order_id": "-1",
        "order_status": "Failed",
        "text": text,
        "warning_message": "Order rejected by the exchange.",
    }
    return ApiError(200, encode([row]))


def parse(core: Core, account: str, ticket: object) -> OrderSpec:
    """One element of ``orders``, or the bare order of a change.

    Args:
        core: For the universe.
        account: The path's account; the ticket's ``acctId`` has precedence.
        ticket: Decoded JSON.

    Raises:
        ApiError: The refusal, with the real server's status and words.
    """
    if not isinstance(ticket, dict):
        raise _wrong_type()
    _check_types(ticket)
    instrument = _instrument(core, ticket)
    side = str(ticket.get("side", "")).upper()
    if side not in ("BUY", "SELL"):
        raise errors.error(400, "Invalid Side (must be 'BUY' or 'SELL').")
    try:
        order_type = OrderType(ticket.get("orderType", ""))
    except ValueError:
        raise errors.error(400, "Unknown order type") from None
    quantity = _quantity(ticket, instrument)
    limit, stop = _prices(ticket, order_type)
    for price in (limit, stop):
        _check_tick(price, instrument)
    amount, percent = _trail(ticket, order_type)
    client_id = ticket.get("cOID")
    if client_id is not None and not 0 < len(client_id) <= MAX_CLIENT_ID:
        raise business(f"Local order ID must have 1 to {MAX_CLIENT_ID} characters")
    parent = ticket.get("parentId")
    return OrderSpec(
        account=core.account(ticket.get("acctId") or account),
        conid=instrument.contract.conid,
        side=Side(side),
        order_type=order_type,
        quantity=quantity,
        limit_price=limit,
        stop_price=stop,
        trail_amount=amount,
        trail_percent=percent,
        time_in_force=_time_in_force(ticket, order_type),
        outside_regular_hours=bool(ticket.get("outsideRTH", False)),
        client_order_id=None if parent else client_id,
        parent_client_id=parent,
        one_cancels_all=bool(ticket.get("isSingleGroup", False)),
        exchange=_exchange(ticket),
    )


def _wrong_type() -> ApiError:
    return errors.error(400, "orders request includes parameter with incorrect type")


def _check_types(ticket: dict[str, Any]) -> None:
    for name in _TEXTS:
        if not isinstance(ticket.get(name, ""), str):
            raise _wrong_type()
    for name in _NUMBERS:
        value = ticket.get(name, 0)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise _wrong_type()
    for name in _FLAGS:
        if not isinstance(ticket.get(name, False), bool):
            raise _wrong_type()
    conid = ticket.get("conid", 0)
    if isinstance(conid, bool) or not isinstance(conid, int):
        raise _wrong_type()


def _instrument(core: Core, ticket: dict[str, Any]) -> Instrument:
    conid = ticket.get("conid")
    if conid is None:
        text = ticket.get("conidex", "").partition("@")[0].strip()
        if not text:
            raise errors.error(400, "conid or conidex is required")
        if not (text.isascii() and text.isdigit() and len(text) <= 18):
            raise business(f"no sec defs returned forSecDef reqId=resolve ecReqByConid{text}")
        conid = int(text)
    instrument = core.instrument(conid)
    if instrument is None:
        raise business(f"no sec defs returned forSecDef reqId=resolve ecReqByConid{conid}")
    derivative = (SecurityType.FUTURE, SecurityType.FUTURE_OPTION)
    if instrument.contract.security_type in derivative and "manualIndicator" not in ticket:
        raise business("manualIndicator is required for orders on futures and futures options")
    return instrument


#: Larger numbers are no sizes or prices of any market; refused in words rather than by an overflow.
_MOST = 10**15


def _quantity(ticket: dict[str, Any], instrument: Instrument) -> Decimal:
    if "quantity" not in ticket and ("cashQty" in ticket or "fxQty" in ticket):
        raise business("Cash quantity orders are not offered by this server")
    quantity = Decimal(repr(ticket.get("quantity", 0))).normalize() + 0
    if quantity <= 0:
        shown = f"{quantity:f}"
        raise errors.error(500, f"Order size {shown} is not valid. Please enter size greater than 0.")
    if quantity > _MOST:
        raise business(f"The size {quantity:.3E} exceeds what can be ordered")
    step = Decimal(repr(instrument.contract.size_increment))
    if step > 0 and quantity % step:
        raise rejected(
            f"The size, {quantity:f}, does not conform to the minimum variation of {step.normalize():f} "
            "for this contract."
        )
    return quantity


def _prices(ticket: dict[str, Any], order_type: OrderType) -> tuple[float | None, float | None]:
    """Limit price and stop price; ``price`` is the stop of STP and of trailing orders."""
    price, auxiliary = ticket.get("price"), ticket.get("auxPrice")
    missing = (order_type in _PRICED and price is None) or (order_type in _AUXILIARY and auxiliary is None)
    negative = any(value is not None and value < 0 for value in (price, auxiliary))
    absurd = any(value is not None and value > _MOST for value in (price, auxiliary))
    if missing or negative or absurd or (order_type in _PRICED and price == 0):
        raise business("Invalid order price fields")
    if order_type in (OrderType.STOP, OrderType.TRAIL):
        return None, None if price is None else float(price)
    if order_type in (OrderType.MARKET, OrderType.MARKET_ON_CLOSE):
        return None, None
    stops = order_type in _AUXILIARY or order_type is OrderType.TRAIL_LIMIT
    return (
        None if price is None else float(price),
        None if auxiliary is None or not stops else float(auxiliary),
    )


def _check_tick(price: float | None, instrument: Instrument) -> None:
    tick = instrument.contract.tick_size
    if price is None or tick <= 0:
        return
    steps = Decimal(repr(price)) / Decimal(repr(tick))
    if steps != steps.to_integral_value():
        raise rejected("The price does not conform to the minimum price variation for this contract.")


def _trail(ticket: dict[str, Any], order_type: OrderType) -> tuple[float | None, float | None]:
    if order_type not in _TRAILING:
        return None, None
    kind, amount = ticket.get("trailingType"), ticket.get("trailingAmt")
    if kind not in ("amt", "%") or not amount or amount < 0:
        raise business("Invalid order price fields")
    return (float(amount), None) if kind == "amt" else (None, float(amount))


def _time_in_force(ticket: dict[str, Any], order_type: OrderType) -> TimeInForce:
    word = ticket.get("tif")
    if word is None:
        raise business("null time in force is not supported for this order")
    try:
        found = TimeInForce(word)
    except ValueError:
        raise business(f"{word} time in force is not supported for this order") from None
    if order_type in _CLOSING and found is not TimeInForce.DAY:
        raise business(f"{word} time in force is not supported for this order")
    return found


def _exchange(ticket: dict[str, Any]) -> str:
    """Where it is routed; a ``conid`` forces SMART even beside a ``conidex``."""
    if ticket.get("conid") is not None:
        return "SMART"
    return ticket.get("conidex", "").partition("@")[2] or "SMART"
