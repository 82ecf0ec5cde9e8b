"""Orders and executions. Quantities are ``Decimal`` (three fills of 0.1 make 0.3), prices ``float``."""

from __future__ import annotations

from decimal import Decimal
from enum import StrEnum

import msgspec


class Side(StrEnum):
    BUY = "BUY"
    SELL = "SELL"

    @property
    def sign(self) -> int:
        return 1 if self is Side.BUY else -1


class OrderType(StrEnum):
    """Order types; the values are the words of IBKR's order request."""

    MARKET = "MKT"
    LIMIT = "LMT"
    STOP = "STP"
    STOP_LIMIT = "STOP_LIMIT"
    TRAIL = "TRAIL"
    TRAIL_LIMIT = "TRAILLMT"
    MARKET_ON_CLOSE = "MOC"
    LIMIT_ON_CLOSE = "LOC"
    MIDPRICE = "MIDPRICE"
    MARKET_IF_TOUCHED = "MIT"
    LIMIT_IF_TOUCHED = "LIT"
    RELATIVE = "REL"


class TimeInForce(StrEnum):
    DAY = "DAY"
    GOOD_TILL_CANCELLED = "GTC"
    IMMEDIATE_OR_CANCEL = "IOC"
    AT_THE_OPENING = "OPG"
    PAXOS = "PAX"
    OVERNIGHT = "OVT"
    OVERNIGHT_AND_DAY = "OND"


class OrderStatus(StrEnum):
    """IBKR's status words (wire spelling)."""

    INACTIVE = "Inactive"
    PENDING_SUBMIT = "PendingSubmit"
    PRE_SUBMITTED = "PreSubmitted"
    SUBMITTED = "Submitted"
    FILLED = "Filled"
    PENDING_CANCEL = "PendingCancel"
    PRE_CANCELLED = "PreCancelled"
    CANCELLED = "Cancelled"
    WARN_STATE = "WarnState"
    FAILED = "Failed"


#: No further execution is to be expected, short of corrections.
DONE = frozenset({OrderStatus.FILLED, OrderStatus.CANCELLED, OrderStatus.FAILED})
#: Stands at IBKR or at an exchange and may execute.
WORKING = frozenset(
    {
        OrderStatus.PRE_SUBMITTED,
        OrderStatus.SUBMITTED,
        OrderStatus.PENDING_CANCEL,
        OrderStatus.PRE_CANCELLED,
    }
)


class OrderTicket(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be sent to IBKR for one order, in plain terms.

    Attributes:
        account: IBKR account id.
        contract_id: IBKR's conid.
        exchange: Routing exchange, ``SMART`` by default.
        quantity: Above 0; the side carries the sign.
        limit_price: For LIMIT, STOP_LIMIT, TRAIL_LIMIT (there: the limit offset's start price).
        stop_price: For STOP, STOP_LIMIT, and the initial stop of TRAIL and TRAIL_LIMIT.
        trail_amount, trail_percent: One of them for TRAIL and TRAIL_LIMIT.
        client_order_id: ``cOID``, unique for a day, at most 64 characters; ``None`` on bracket children,
            which the server does not let carry one.
        parent: ``client_order_id`` of the bracket's parent.
        one_cancels_all: All tickets of one submission cancel each other.
        protective: It closes or protects a position: it goes before other requests. Not sent to IBKR.
    """

    account: str
    contract_id: int
    security_type: str = "STK"
    exchange: str = "SMART"
    side: Side
    order_type: OrderType
    quantity: Decimal
    limit_price: float | None = None
    stop_price: float | None = None
    trail_amount: float | None = None
    trail_percent: float | None = None
    time_in_force: TimeInForce = TimeInForce.GOOD_TILL_CANCELLED
    outside_regular_hours: bool = False
    client_order_id: str | None = None
    parent: str | None = None
    one_cancels_all: bool = False
    protective: bool = False


class OrderReport(msgspec.Struct, frozen=True, kw_only=True):
    """What IBKR last said of an order; ``None`` where this message did not say.

    Attributes:
        order_id: IBKR's id as text (the wire has it as text here and as a number there).
        order_ref: The ``cOID`` it was sent with.
        status: ``None`` if the message had none.
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
    reason: str | None = None
    time_ns: int | None = None


class Execution(msgspec.Struct, frozen=True, kw_only=True):
    """One execution. ``execution_id`` is its key, whatever message brought it.

    Attributes:
        quantity: Above 0.
        price: Per unit.
        commission: In the contract's currency; ``None`` until IBKR reports it.
        order_id: IBKR's order id as text; ``None`` if the message had none.
        order_ref: The ``cOID`` of the order, if it had one.
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
