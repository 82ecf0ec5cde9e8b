"""The words of orders: sides, types, times in force, statuses, and which of them go together."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from bt_ibkr.model.contract import SecurityType


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
    """Times in force that the wire has. It has no good-till-date: see ``OrderIntent.expires_ns``."""

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
DONE: Final = frozenset({OrderStatus.FILLED, OrderStatus.CANCELLED, OrderStatus.FAILED})
#: Stands at IBKR or at an exchange and may execute.
WORKING: Final = frozenset(
    {
        OrderStatus.PRE_SUBMITTED,
        OrderStatus.SUBMITTED,
        OrderStatus.PENDING_CANCEL,
        OrderStatus.PRE_CANCELLED,
    }
)

#: Types that need a limit price, a trigger price (stop or touch), a distance to trail by.
NEEDS_LIMIT: Final = frozenset(
    {OrderType.LIMIT, OrderType.LIMIT_ON_CLOSE, OrderType.STOP_LIMIT, OrderType.LIMIT_IF_TOUCHED}
)
NEEDS_STOP: Final = frozenset(
    {OrderType.STOP, OrderType.STOP_LIMIT, OrderType.MARKET_IF_TOUCHED, OrderType.LIMIT_IF_TOUCHED}
)
TRAILING: Final = frozenset({OrderType.TRAIL, OrderType.TRAIL_LIMIT})
#: Types that may have a limit price (a cap for MIDPRICE and REL), and those that may have a trigger price.
MAY_LIMIT: Final = NEEDS_LIMIT | {OrderType.MIDPRICE, OrderType.RELATIVE, OrderType.TRAIL_LIMIT}
MAY_STOP: Final = NEEDS_STOP | TRAILING
AT_CLOSE: Final = frozenset({OrderType.MARKET_ON_CLOSE, OrderType.LIMIT_ON_CLOSE})

_CLOSING: Final = frozenset(
    {
        SecurityType.STOCK,
        SecurityType.CFD,
        SecurityType.FUTURE,
        SecurityType.WARRANT,
        SecurityType.UNKNOWN,
    }
)
_RESTING: Final = frozenset({TimeInForce.DAY, TimeInForce.GOOD_TILL_CANCELLED})
_PRICED: Final = _RESTING | {TimeInForce.IMMEDIATE_OR_CANCEL}
#: Times in force that each type takes. OVT and OND are for the overnight session of US stocks, where only
#: limit orders trade; OPG makes a market or limit order one of the opening auction.
TIMES: Final[dict[OrderType, frozenset[TimeInForce]]] = {
    **dict.fromkeys(OrderType, _RESTING),
    OrderType.MARKET: _RESTING
    | {TimeInForce.IMMEDIATE_OR_CANCEL, TimeInForce.AT_THE_OPENING, TimeInForce.PAXOS},
    OrderType.LIMIT: frozenset(TimeInForce),
    OrderType.MIDPRICE: _PRICED,
    OrderType.RELATIVE: _PRICED,
    OrderType.MARKET_ON_CLOSE: frozenset({TimeInForce.DAY}),
    OrderType.LIMIT_ON_CLOSE: frozenset({TimeInForce.DAY}),
}
#: Times in force of one kind of instrument only.
ONLY_FOR: Final[dict[TimeInForce, SecurityType]] = {
    TimeInForce.PAXOS: SecurityType.CRYPTO,
    TimeInForce.OVERNIGHT: SecurityType.STOCK,
    TimeInForce.OVERNIGHT_AND_DAY: SecurityType.STOCK,
}
#: Types that not every kind of instrument has, by IBKR's page of order types.
PRODUCTS: Final[dict[OrderType, frozenset[SecurityType]]] = {
    OrderType.MARKET_ON_CLOSE: _CLOSING,
    OrderType.LIMIT_ON_CLOSE: _CLOSING,
    OrderType.MIDPRICE: _CLOSING - {SecurityType.FUTURE},
}
