"""An order as a client writes it, checked and made an ``OrderSpec``.

What is refused with which status and words is recorded (wire facts, section 7.2): the form of a request is
refused with 400, what it means with 200 and an ``error``.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

from bt_ibkr.emulator.exchange import algorithms
from bt_ibkr.emulator.services import errors
from bt_ibkr.emulator.services.orders import groups
from bt_ibkr.emulator.services.orders.addressing import address, check_operator, check_permission
from bt_ibkr.emulator.services.orders.sizes import MOST, sized
from bt_ibkr.emulator.services.orders.ticket_form import business, check_types, rejected
from bt_ibkr.emulator.types import Algorithm, Instrument, OrderSpec
from bt_ibkr.model.order import OrderType, Side, TimeInForce

if TYPE_CHECKING:
    from bt_ibkr.emulator.services.core import Core

MAX_CLIENT_ID = 64
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
_AUXILIARY = frozenset({OrderType.STOP_LIMIT, OrderType.LIMIT_IF_TOUCHED})
_TRAILING = frozenset({OrderType.TRAIL, OrderType.TRAIL_LIMIT})
_CLOSING = frozenset({OrderType.MARKET_ON_CLOSE, OrderType.LIMIT_ON_CLOSE})
#: ``tifTypes`` of the contract rules: other types cannot be immediate-or-cancel.
_IMMEDIATE = frozenset({OrderType.MARKET, OrderType.LIMIT, OrderType.RELATIVE, OrderType.MIDPRICE})


def parse(core: Core, account: str, ticket: object) -> OrderSpec:
    """One element of ``orders``, or the bare order of a change.

    Args:
        core: For the universe.
        account: The path's account or group; the ticket's ``acctId`` has precedence.
        ticket: Decoded JSON.

    Raises:
        ApiError: The refusal, with the real server's status and words.
    """
    fields = check_types(ticket)
    where = address(core, fields)
    check_operator(core, fields, where.instrument)
    check_permission(core, where.instrument)
    side = str(fields.get("side", "")).upper()
    if side not in ("BUY", "SELL"):
        raise errors.error(400, "Invalid Side (must be 'BUY' or 'SELL').")
    try:
        order_type = OrderType(fields.get("orderType", ""))
    except ValueError:
        raise errors.error(400, "Unknown order type") from None
    limit, stop = _prices(fields, order_type, where.instrument)
    amount, percent = _trail(fields, order_type)
    owner = groups.account_or_group(core, fields.get("acctId") or account)
    spec = OrderSpec(
        account=owner,
        conid=where.instrument.contract.conid,
        legs=where.instrument.contract.legs,
        side=Side(side),
        order_type=order_type,
        quantity=Decimal(0),
        limit_price=limit,
        stop_price=stop,
        trail_amount=amount,
        trail_percent=percent,
        time_in_force=_time_in_force(fields, order_type),
        outside_regular_hours=bool(fields.get("outsideRTH", False)),
        client_order_id=_client_id(fields),
        parent_client_id=fields.get("parentId"),
        one_cancels_all=bool(fields.get("isSingleGroup", False)),
        exchange=where.exchange,
        all_or_none=bool(fields.get("allOrNone", False)),
        algorithm=_algorithm(fields, order_type, where.instrument),
        price_management=fields.get("useAdaptive"),
        deactivated=bool(fields.get("deactivated", False)),
        allocation=groups.shares(core, owner, fields.get("allocationMethod", "")),
    )
    spec = sized(core, fields, spec, where.instrument)
    for price in (limit, stop):
        _check_tick(price, where.instrument)
    return spec


def _client_id(ticket: dict[str, Any]) -> str | None:
    """``cOID``; children of brackets have none, whatever they say."""
    client_id: str | None = ticket.get("cOID")
    if client_id is not None and not 0 < len(client_id) <= MAX_CLIENT_ID:
        raise business(f"Local order ID must have 1 to {MAX_CLIENT_ID} characters")
    return None if ticket.get("parentId") else client_id


def _prices(
    ticket: dict[str, Any], order_type: OrderType, instrument: Instrument
) -> tuple[float | None, float | None]:
    """Limit price and stop price.

    ``price`` is the stop of STP and of trailing orders; a MIT's trigger may stand in either field, as the
    documentation's sample leaves it out; ``auxPrice`` is the offset of REL.
    """
    price, auxiliary = ticket.get("price"), ticket.get("auxPrice")
    missing = (order_type in _PRICED and price is None) or (order_type in _AUXILIARY and auxiliary is None)
    spread = bool(instrument.contract.legs)
    negative = any(value is not None and value < 0 for value in (price, auxiliary)) and not spread
    absurd = any(value is not None and abs(value) > MOST for value in (price, auxiliary))
    if missing or negative or absurd or (order_type in _PRICED and price == 0 and not spread):
        raise business("Invalid order price fields")
    price, auxiliary = _float(price), _float(auxiliary)
    if order_type in (OrderType.STOP, OrderType.TRAIL):
        return None, price
    if order_type in (OrderType.MARKET, OrderType.MARKET_ON_CLOSE):
        return None, None
    if order_type is OrderType.MARKET_IF_TOUCHED:
        trigger = auxiliary if auxiliary is not None else price
        if not trigger:
            raise business("Invalid order price fields")
        return None, trigger
    stops = order_type in (*_AUXILIARY, OrderType.TRAIL_LIMIT, OrderType.RELATIVE)
    return price, auxiliary if stops else None


def _float(value: float | None) -> float | None:
    return None if value is None else float(value)


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
    refusal = business(f"{word} time in force is not supported for this order")
    try:
        found = TimeInForce(word)
    except ValueError:
        raise refusal from None
    if order_type in _CLOSING and found is not TimeInForce.DAY:
        raise refusal
    if found is TimeInForce.IMMEDIATE_OR_CANCEL and order_type not in _IMMEDIATE:
        raise refusal
    return found


def _algorithm(ticket: dict[str, Any], order_type: OrderType, instrument: Instrument) -> Algorithm | None:
    name = ticket.get("strategy")
    if not name:
        return None
    if order_type not in algorithms.ORDER_TYPES or ticket.get("allOrNone"):
        raise business(f"Order processing failed. {name} does not work orders of this type")
    found = algorithms.read(name, ticket.get("strategyParameters", {}), instrument)
    if isinstance(found, str):
        raise business(found)
    return found
