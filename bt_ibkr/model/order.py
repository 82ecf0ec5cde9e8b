"""Orders and executions. Quantities are ``Decimal`` (three fills of 0.1 make 0.3), prices ``float``."""

from __future__ import annotations

from decimal import Decimal

import msgspec

from bt_ibkr.model.contract import Leg
from bt_ibkr.model.order_words import (
    DONE,
    WORKING,
    OrderStatus,
    OrderType,
    Side,
    TimeInForce,
)
from bt_ibkr.model.ticket import CHANGEABLE, MAX_CLIENT_ID, AlgoValue, OrderTicket, modified

__all__ = [
    "CHANGEABLE",
    "DONE",
    "MAX_CLIENT_ID",
    "WORKING",
    "AlgoValue",
    "Execution",
    "OrderReport",
    "OrderStatus",
    "OrderTicket",
    "OrderType",
    "Side",
    "TimeInForce",
    "modified",
]


class OrderReport(msgspec.Struct, frozen=True, kw_only=True):
    """What IBKR last said of an order; ``None`` where this message did not say.

    Attributes:
        order_id: IBKR's id as text (the wire has it as text here and as a number there).
        order_ref: The ``cOID`` it was sent with.
        status: ``None`` if the message had none.
        conid: The contract's key; a combo's is made from its legs (see ``Contract``).
        legs: Of an order on a combo.
        exchange: Where it is routed, if the message said.
        parent_id, oca_group: IBKR ids of the bracket's parent and of the OCA group.
        reason: IBKR's text for a cancellation by the system, if any.
    """

    order_id: str
    account: str | None = None
    conid: int | None = None
    side: Side | None = None
    order_type: str | None = None
    status: OrderStatus | None = None
    total_quantity: Decimal | None = None
    filled_quantity: Decimal | None = None
    remaining_quantity: Decimal | None = None
    average_price: float | None = None
    limit_price: float | None = None
    stop_price: float | None = None
    time_in_force: str | None = None
    order_ref: str | None = None
    parent_id: str | None = None
    oca_group: str | None = None
    symbol: str | None = None
    legs: tuple[Leg, ...] = ()
    exchange: str | None = None
    reason: str | None = None
    time_ns: int | None = None


class Execution(msgspec.Struct, frozen=True, kw_only=True):
    """One execution. ``execution_id`` is its key, whatever message brought it.

    Attributes:
        quantity: Above 0; 0 in a correction that takes a trade back.
        price: Per unit.
        commission: In the contract's currency; ``None`` until IBKR reports it.
        order_id: IBKR's order id as text; ``None`` if the message had none.
        order_ref: The ``cOID`` of the order, if it had one.
        legs: Not empty where this is the execution of a combo as a whole: ``conid`` is then the combo's key, and it
            changes no position. The executions of its legs come besides, each with the conid of its leg.
        liquidation: IBKR closed the position for lack of margin.
    """

    execution_id: str
    account: str
    conid: int
    symbol: str
    side: Side
    quantity: Decimal
    price: float
    time_ns: int
    exchange: str = ""
    commission: float | None = None
    order_id: str | None = None
    order_ref: str | None = None
    legs: tuple[Leg, ...] = ()
    liquidation: bool = False
