"""backtrader data feeds over an IBKR session."""

from bt_ibkr.feeds.base import StoreData, contract_of, is_back_filled, is_current
from bt_ibkr.feeds.ibkr_data import FeedState, IBKRData

__all__ = ["FeedState", "IBKRData", "StoreData", "contract_of", "is_back_filled", "is_current"]
