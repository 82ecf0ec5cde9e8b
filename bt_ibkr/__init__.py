"""Trade live with backtrader over the Interactive Brokers Web API."""

from bt_ibkr.store import IBKRStore
from bt_ibkr.version import __version__

__all__ = ["IBKRStore", "__version__"]
