"""What kind of prices a feed delivers now, as backtrader's statuses and in words.

Beyond the market-data lines a stream is not refused but silent: what has brought nothing is not called live.
"""

from __future__ import annotations

from typing import Final

import backtrader as bt

from bt_ibkr.clock import NS_PER_S
from bt_ibkr.model.market import DataQuality, Tick

_Standing = tuple[int, str]

#: The picture that a subscription begins with comes within a second or two, of a closed market as well.
_PATIENCE_NS: Final = 10 * NS_PER_S
_SILENT: Final = (
    "no data came: all market-data lines are in use elsewhere, or this user is not entitled to it"
)

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


class Standing:
    """What a feed is to tell of its subscription.

    Attributes:
        due: Something is to be told, once the feed has nothing to deliver before it.
        away: The session is gone, and with it the stream.
        waits: The first frame of the subscription has not come.
        silent_ns: Market time at which the stream is called silent if none has come.
    """

    __slots__ = ("_halted", "_quality", "away", "due", "silent_ns", "waits")

    def __init__(self) -> None:
        self.due = False
        self.away = False
        self.waits = False
        self.silent_ns = 0
        self._quality = DataQuality.UNKNOWN
        self._halted = False

    def subscribed(self, now_ns: int) -> None:
        """A subscription was sent, at that market time; after a break somebody else may have the line by now."""
        self.waits = True
        self.silent_ns = now_ns + _PATIENCE_NS

    def see(self, tick: Tick) -> bool:
        """Whether this one's prices are of another kind than those before."""
        if tick.quality is self._quality and tick.halted is self._halted:
            return False
        self._quality, self._halted = tick.quality, tick.halted
        return True

    def told(self, now_ns: int) -> _Standing | None:
        """Status and reason, to be told now; ``None`` while it is not known, ``due`` is set then."""
        self.due = False
        if not self.waits:
            return standing(self._quality, halted=self._halted)
        if now_ns < self.silent_ns or self.away:
            self.due = True
            return None
        return bt.DataBase.NOTSUBSCRIBED, _SILENT
