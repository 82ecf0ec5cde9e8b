"""backtrader data feeds over an IBKR session."""

from typing import TYPE_CHECKING, Any

from bt_ibkr.feeds.base import StoreData, contract_of, is_back_filled, is_current
from bt_ibkr.feeds.chain import ChainKey
from bt_ibkr.feeds.depth import DepthData, IBKRDepth, depth_feed
from bt_ibkr.feeds.ibkr_data import FeedState, IBKRData

if TYPE_CHECKING:
    from bt_ibkr.feeds.replay import IBKRReplay
    from bt_ibkr.feeds.stored import StoredData

__all__ = [
    "ChainKey", "DepthData", "FeedState", "IBKRData", "IBKRDepth", "IBKRReplay", "StoreData", "StoredData",
    "contract_of", "depth_feed", "is_back_filled", "is_current",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    # A live run has no need of what reads Parquet.
    if name == "IBKRReplay":
        from bt_ibkr.feeds.replay import IBKRReplay

        return IBKRReplay
    if name == "StoredData":
        from bt_ibkr.feeds.stored import StoredData

        return StoredData
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
