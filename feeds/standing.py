"""What kind of prices a feed delivers now, as backtrader's statuses and in words."""

from __future__ import annotations

import backtrader as bt

from bt_ibkr.model.market import DataQuality

_Standing = tuple[int, str]

_LIVE: _Standing = (bt.DataBase.LIVE, "")
_BY_QUALITY: dict[DataQuality, _Standing] = {
    DataQuality.DELAYED: (bt.DataBase.DELAYED, "the market data is delayed"),
    DataQuality.FROZEN: (bt.DataBase.DELAYED, "the market data is frozen: the last of a closed market"),
    DataQuality.FROZEN_DELAYED: (bt.DataBase.DELAYED, "the market data is frozen and delayed"),
    DataQuality.INCOMPLETE: (bt.DataBase.DELAYED, "the market data is incomplete"),
    DataQuality.NOT_SUBSCRIBED: (bt.DataBase.NOTSUBSCRIBED, "there is no subscription to this market data"),
    DataQuality.NO_ACKNOWLEDGEMENT: (
        bt.DataBase.NOTSUBSCRIBED,
        "the market data agreement of the API is not acknowledged",
    ),
}


def standing(quality: DataQuality, *, halted: bool) -> _Standing:
    """The status, and its reason; none if prices are the market's present ones."""
    found = _BY_QUALITY.get(quality, _LIVE)
    if halted and found is _LIVE:
        return bt.DataBase.DELAYED, "trading is halted"
    return found
