"""Pre-trade risk controls: what no order may go beyond, looked at before anything is written or sent."""

from bt_ibkr.risk.exposure import Reach, effects, group_of, increasing, reach
from bt_ibkr.risk.gate import CONTROLS, RiskGate
from bt_ibkr.risk.limits import RiskLimits
from bt_ibkr.risk.limits_file import limits_of, parse_limits, read_limits
from bt_ibkr.risk.switch import Actor, Who, may_lift, moved
from bt_ibkr.risk.view import Book, OpenOrder, Quote, RiskView, TradingRules

__all__ = [
    "CONTROLS",
    "Actor",
    "Book",
    "OpenOrder",
    "Quote",
    "Reach",
    "RiskGate",
    "RiskLimits",
    "RiskView",
    "TradingRules",
    "Who",
    "effects",
    "group_of",
    "increasing",
    "limits_of",
    "may_lift",
    "moved",
    "parse_limits",
    "reach",
    "read_limits",
]
