"""What users hold: frozen types in plain English, made from IBKR's payloads by ``bt_ibkr.wire``."""

from bt_ibkr.model.contract import Contract, Leg, SecurityType
from bt_ibkr.model.market import Bar, DataQuality, Tick
from bt_ibkr.model.order import (
    DONE,
    WORKING,
    Execution,
    OrderReport,
    OrderStatus,
    OrderTicket,
    OrderType,
    Side,
    TimeInForce,
)
from bt_ibkr.model.portfolio import Account, AccountPnl, LedgerLine, Position

__all__ = [
    "DONE",
    "WORKING",
    "Account",
    "AccountPnl",
    "Bar",
    "Contract",
    "DataQuality",
    "Execution",
    "LedgerLine",
    "Leg",
    "OrderReport",
    "OrderStatus",
    "OrderTicket",
    "OrderType",
    "Position",
    "SecurityType",
    "Side",
    "Tick",
    "TimeInForce",
]
