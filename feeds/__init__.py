"""backtrader data feeds over an IBKR session."""

from bt_ibkr.feeds.ibkr_data import FeedState, IBKRData, contract_of, is_current

__all__ = ["FeedState", "IBKRData", "contract_of", "is_current"]
