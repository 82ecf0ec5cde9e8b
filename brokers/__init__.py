"""backtrader brokers and commission schemes for IBKR."""

from bt_ibkr.brokers.commission import IBKRCommission
from bt_ibkr.brokers.exec_types import ExecType
from bt_ibkr.brokers.ibkr_broker import IBKRBroker

__all__ = ["ExecType", "IBKRBroker", "IBKRCommission"]
