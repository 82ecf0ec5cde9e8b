"""The book of one instrument as a feed of its own: a line for each price and size."""

from __future__ import annotations

import logging
import math
import types
from collections import deque
from functools import lru_cache
from typing import Any

import backtrader as bt

from bt_ibkr.connection.interface import SessionChanged
from bt_ibkr.errors import UsageError
from bt_ibkr.feeds.base import StoreData
from bt_ibkr.feeds.times import day_number_fast
from bt_ibkr.model.market import DepthBook, DepthLevel
from bt_ibkr.services.datanames import ContractQuery, parse_dataname

_log = logging.getLogger(__name__)

#: Levels of a ladder that a feed can have.
MOST_LEVELS = 50
#: Books that wait for a slow strategy; older ones are dropped, since a newer one says all that they say.
_MOST_WAITING = 1000


class DepthBacklog(deque[DepthBook]):
    """Books on their way to one feed; appended in the loop's thread.

    Attributes:
        dropped: Books that were overtaken by newer ones before the strategy had seen them.
    """

    def __init__(self, most: int = _MOST_WAITING) -> None:
        super().__init__(maxlen=most)
        self.dropped = 0
        self._told = False

    def append(self, item: DepthBook, /) -> None:
        """Take a book; where there is no room, instead of the oldest one."""
        if len(self) == self.maxlen:
            self.dropped += 1
            if not self._told:
                self._told = True
                _log.warning("depth-conflated conid=%d waiting=%d", item.conid, len(self))
        elif not self:
            self._told = False
        super().append(item)


class DepthData(StoreData):
    """What all feeds of books are; ``IBKRDepth`` is one of five levels, ``depth_feed`` makes others.

    Parameters:

    - ``dataname``, ``sectype``, ``exchange``, ``currency``: as of ``IBKRData``.
    - ``account``: whose ladder shows it; by default the account that is traded in. IBKR gives an account one ladder.

    Each change of the book is a bar: ``bid0`` … and ``ask0`` … are prices, the best first, ``bid_size0`` … and
    ``ask_size0`` … their sizes, NaN where the book has no such level. ``close`` (and open, high, low) is the middle
    of the best prices, or the last trade's where one is missing. The ladder tells no time: a bar is stamped with
    the market's as it was when the frame was read. Notifications: CONNECTED, LIVE, CONNBROKEN, DISCONNECTED.

    Attributes:
        book: The book of the bar last delivered.
        levels: So many prices a side.
    """

    levels = 0
    params = (
        ("sectype", "STK"),
        ("exchange", "SMART"),
        ("currency", ""),
        ("account", ""),
        ("timeframe", bt.TimeFrame.Ticks),
    )

    def __init__(self, **unknown: Any) -> None:
        super().__init__(**unknown)
        if self.p.timeframe != bt.TimeFrame.Ticks:
            raise UsageError(
                f"{self.p.dataname}: a feed of the book has no bars of a length.",
                remedy="Leave timeframe out: each change of the book is one.",
            )
        self._query = parse_dataname(
            self.p.dataname, security_type=self.p.sectype, exchange=self.p.exchange, currency=self.p.currency
        )
        self._books = DepthBacklog()
        self._subscribed = False
        self._live_due = False
        self._stamp_ns = 0
        self.book: DepthBook | None = None

    @property
    def query(self) -> ContractQuery:
        """What the feed's parameters ask for."""
        return self._query

    @property
    def dropped(self) -> int:
        """Books that the strategy was too slow for."""
        return self._books.dropped

    def start(self) -> None:
        super().start()
        self._ibkr.start()
        connection = self._ibkr.connection
        self.contract = self.tradecontract = connection.resolve(self._query)
        self._ibkr.start(data=self)
        self.put_notification(self.CONNECTED)
        connection.subscribe_depth(self.contract, self.p.account or self._ibkr.account, self._books)
        self._subscribed = self._live_due = True

    def stop(self) -> None:
        super().stop()
        if self._subscribed:
            self._subscribed = False
            self._ibkr.connection.unsubscribe_depth(self._books)

    def session_changed(self, change: SessionChanged) -> None:
        """See ``StoreData``."""
        if not self._subscribed or self.over:
            return
        if not change.connected and self._laststatus != self.CONNBROKEN:
            self.put_notification(self.CONNBROKEN, change.cause)
        elif change.connected and self._laststatus == self.CONNBROKEN:
            self._live_due = True

    def prepare(self) -> int | None:
        """See ``StoreData``."""
        if self._books:
            if self._head_ns is None:
                # Not ahead of what other feeds are known to be through with: no bar of theirs may come after it.
                known_ns = min(self._books[0].time_ns, self._ibkr.market_ns())
                self._stamp_ns = max(self._stamp_ns, known_ns)
            self._head_ns = self._stamp_ns
            if self._live_due:
                self._live_due = False
                self.put_notification(self.LIVE)
        return self._head_ns

    def write_next(self) -> bool | None:
        """See ``StoreData``."""
        book = self.book = self._books.popleft()
        moment, opens, highs, lows, closes, volumes, interests = self._buffers
        moment[0] = day_number_fast(self._stamp_ns)
        opens[0] = highs[0] = lows[0] = closes[0] = middle(book)
        volumes[0] = interests[0] = 0.0
        self._write_side("bid", book.bids)
        self._write_side("ask", book.asks)
        return True

    def _write_side(self, side: str, found: tuple[DepthLevel, ...]) -> None:
        lines = self.lines
        for number in range(self.levels):
            known = number < len(found)
            getattr(lines, f"{side}{number}")[0] = found[number].price if known else math.nan
            getattr(lines, f"{side}_size{number}")[0] = found[number].size if known else math.nan

    def deadline_ns(self) -> int | None:
        """See ``StoreData``."""
        return None if not self._subscribed or self.over else 0

    def ended(self) -> bool:
        """See ``StoreData``."""
        return self._finishing and not self._books and self._ibkr.drained()


def middle(book: DepthBook) -> float:
    """Of the best prices; where a side is empty the last trade's, else the other side's; NaN of an empty book."""
    if book.bids and book.asks:
        return (book.bids[0].price + book.asks[0].price) / 2
    if book.last_price is not None:
        return book.last_price
    return next((side[0].price for side in (book.bids, book.asks) if side), math.nan)


@lru_cache
def depth_feed(levels: int) -> type[DepthData]:
    """The class of feeds with so many levels a side.

    Raises:
        UsageError: Fewer than 1 or more than 50.
    """
    if not 1 <= levels <= MOST_LEVELS:
        raise UsageError(
            f"A book of {levels} levels cannot be shown.", remedy=f"Give levels of 1 to {MOST_LEVELS}."
        )
    names = tuple(f"{side}{n}" for side in ("bid", "bid_size", "ask", "ask_size") for n in range(levels))
    body = {"lines": names, "levels": levels, "__module__": __name__, "__doc__": DepthData.__doc__}
    made: type[DepthData] = types.new_class(
        "IBKRDepth", (DepthData,), exec_body=lambda namespace: namespace.update(body)
    )
    return made


IBKRDepth = depth_feed(5)
