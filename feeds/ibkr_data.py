"""The live feed: history first, then bars or ticks from the stream, with no gap and no overlap.

How the two meet: the subscription begins first. The *join edge* is the first bar edge after the stream's first
frame. Every bar that ends at or before it comes from history, every later one from ticks. A bar that is
half old and half new is therefore never put together from two sources: it is fetched whole once it has
ended. After a broken stream the same is done again from the last bar delivered.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from datetime import UTC, datetime, timedelta
from enum import Enum
from functools import partial
from typing import Any

import backtrader as bt

from bt_ibkr.clock import NS_PER_S
from bt_ibkr.connection.backlog import TickBacklog
from bt_ibkr.connection.interface import FeedEvent, HistoryArrived, SessionChanged
from bt_ibkr.connection.mailbox import Mailbox
from bt_ibkr.errors import ContractError, UsageError
from bt_ibkr.feeds.bars import BarBuilder, PriceSource, tick_price
from bt_ibkr.feeds.times import day_number, day_number_fast, ns_of
from bt_ibkr.model.contract import Contract, SecurityType
from bt_ibkr.model.market import Bar, DataQuality, Tick
from bt_ibkr.services.datanames import ContractQuery, parse_dataname
from bt_ibkr.services.history import HistoryRequest, offered
from bt_ibkr.store import IBKRStore, refuse_unknown

_log = logging.getLogger(__name__)

_LENGTHS = {
    bt.TimeFrame.Seconds: NS_PER_S,
    bt.TimeFrame.Minutes: 60 * NS_PER_S,
    bt.TimeFrame.Days: 86_400 * NS_PER_S,
}
_QUALITY_STATUS = {
    DataQuality.DELAYED: bt.DataBase.DELAYED,
    DataQuality.FROZEN: bt.DataBase.DELAYED,
    DataQuality.FROZEN_DELAYED: bt.DataBase.DELAYED,
    DataQuality.NOT_SUBSCRIBED: bt.DataBase.NOTSUBSCRIBED,
    DataQuality.NO_ACKNOWLEDGEMENT: bt.DataBase.NOTSUBSCRIBED,
}
#: An enum's member costs a look-up each time it is named; this runs for every tick.
_TRADES = PriceSource.TRADES


_SOURCES = ("TRADES", "BID", "ASK", "MIDPOINT")
#: Of what trades rarely, or where only its parts do.
_DEFAULT_SOURCES = {SecurityType.FOREX: "BID", SecurityType.COMBO: "MIDPOINT"}


class FeedState(Enum):
    """What a feed is doing."""

    NEW = "new"
    BACKFILLING = "backfilling"
    JOINING = "joining"
    TOPPING_UP = "topping up"
    LIVE = "live"
    HISTORICAL = "historical"
    OVER = "over"


class IBKRData(bt.DataBase):  # type: ignore[misc]
    """A data feed of one instrument.

    Parameters (those of backtrader's ``IBData`` keep their names and meaning):

    - ``dataname``: see ``bt_ibkr.services.datanames``; ``sectype``, ``exchange``, ``currency`` say what it does not.
    - ``timeframe``, ``compression``: ``Ticks``, ``Seconds`` or ``Minutes`` live; ``Days`` with ``historical=True``.
    - ``what``: ``TRADES``, ``BID``, ``ASK`` or ``MIDPOINT``; by default ``BID`` for currency pairs,
      ``MIDPOINT`` for combos, else ``TRADES``. ``TRADES`` of a combo are the last prices of its legs, without volume.
    - ``tradename``: dataname of the contract to trade, if it is not the one followed.
    - ``rtbar``: taken and without effect; bars are always built from the stream.
    - ``useRTH``: only regular trading hours in history.
    - ``historical``: deliver history from ``fromdate`` to ``todate`` and end.
    - ``backfill_start``: deliver history before the live bars, from ``fromdate`` or ``backfill_bars`` bars.
    - ``backfill``: fetch what was missed after the stream broke.

    A bar is stamped with its right edge, in UTC. Data notifications: CONNECTED, DELAYED while history is being
    delivered or the market data is delayed, LIVE, CONNBROKEN, NOTSUBSCRIBED, DISCONNECTED at the end.
    """

    params = (
        ("store", None),
        ("sectype", "STK"),
        ("exchange", "SMART"),
        ("currency", ""),
        ("what", None),
        ("rtbar", False),
        ("tradename", None),
        ("latethrough", False),
        ("backfill_from", None),
        ("useRTH", False),
        ("historical", False),
        ("backfill_start", True),
        ("backfill_bars", 300),
        ("backfill", True),
        ("qcheck", 0.0),
    )

    def __init__(self, **unknown: Any) -> None:  # backtrader's metaclass takes the parameters
        refuse_unknown("IBKRData", unknown)
        super().__init__()
        if not isinstance(self.p.store, IBKRStore):
            raise UsageError("IBKRData needs a store.", remedy="Make it with store.getdata(dataname=...).")
        self._ibkr: IBKRStore = self.p.store
        self._query = parse_dataname(
            self.p.dataname, security_type=self.p.sectype, exchange=self.p.exchange, currency=self.p.currency
        )
        self._trade_query = parse_dataname(self.p.tradename) if self.p.tradename else None
        for name in ("latethrough", "backfill_from"):
            if getattr(self.p, name):
                raise UsageError(f"{self._query.text}: {name} is not offered in this version.")
        self.contract: Contract | None = None
        #: What orders for this feed trade; another contract than the one followed if ``tradename`` says so.
        self.tradecontract: Contract | None = None
        self._state = FeedState.NEW
        self._ticks = TickBacklog()
        #: Strategies were told that ticks are conflated.
        self._behind_told = False
        self._queue: deque[Bar] = deque()
        self._built: deque[Bar] = deque()
        self._answers: Mailbox[FeedEvent] = Mailbox(self._ibkr.wake)
        self._token = 0
        self._bar_ns = 0
        self._source = PriceSource.TRADES
        self._builder: BarBuilder | None = None
        self._join_ns = 0
        self._covered_ns = 0
        self._aligned = False
        self._finishing = False
        self._over_told = False
        self._last_quality = DataQuality.UNKNOWN
        self._live_due = False
        self._tick_price: float | None = None
        self._buffers: tuple[Any, ...] = ()
        #: So many bars at the head of the queue came from history.
        self._from_history = 0
        self._stale = False

    # -- cerebro's side ------------------------------------------------------------------------------

    def setenvironment(self, env: Any) -> None:
        super().setenvironment(env)
        env.addstore(self._ibkr)
        self._ibkr.register(self)

    def islive(self) -> bool:
        """True: cerebro must not preload, in no state does this feed know all of its bars."""
        return True

    def haslivedata(self) -> bool:
        return bool(self._queue or self._ticks)

    def qbuffer(self, savemem: int = 0, replaying: bool = False) -> None:
        """Keep one bar more than asked: cerebro's poll of a feed without news pushes the oldest one out."""
        for line in self.lines:
            line.qbuffer(savemem=savemem, extrasize=1 + int(bool(self.resampling or replaying)))

    def start(self) -> None:
        super().start()
        lines = self.lines
        # Asking `lines` for one of these costs as much as writing to it.
        self._buffers = (
            lines.datetime, lines.open, lines.high, lines.low, lines.close, lines.volume, lines.openinterest,
        )  # fmt: skip
        # The base class begins as CONNECTED and would swallow that notification.
        self._laststatus = self.DISCONNECTED
        self._adopt_resampled()
        self._ibkr.start()
        self.contract = self.tradecontract = self._ibkr.connection.resolve(self._query)
        if self._trade_query is not None:
            self.tradecontract = self._ibkr.connection.resolve(self._trade_query)
        self._ibkr.start(data=self)
        self._source = self._price_source(self.contract)
        self.put_notification(self.CONNECTED)
        self._bar_ns = self._length_ns()
        if self.p.historical:
            self._state = FeedState.HISTORICAL
            self._request(self._history_start_ns(), self._history_end_ns(), 0)
            return
        self._begin_live()

    def _adopt_resampled(self) -> None:
        """Make what was resampled from this feed fit for a live run.

        Cerebro leaves resampled feeds out when it looks for the earliest bar, and fails where such a bar comes
        alone, in a cycle without one of a plain feed; and the resampler closes bars by the machine's clock.
        """
        for data in self._env.datas:
            if base_of(data) is self:
                data.resampling = 0
                data._timeoffset = self._timeoffset  # noqa: SLF001 - a method that the resampler asks

    def _timeoffset(self) -> timedelta:
        """From the machine's clock to the market's."""
        return timedelta(microseconds=(self._ibkr.connection.clock.now_ns() - time.time_ns()) / 1000)

    def stop(self) -> None:
        super().stop()
        if self._state not in (FeedState.NEW, FeedState.HISTORICAL):
            self._ibkr.connection.unsubscribe_ticks(self._ticks)
        self._state = FeedState.OVER

    def _price_source(self, contract: Contract) -> PriceSource:
        default = _DEFAULT_SOURCES.get(contract.security_type, "TRADES")
        word = str(self.p.what or default).upper()
        if word not in _SOURCES:
            raise UsageError(
                f"what={self.p.what!r} is no price source.", remedy=f"Sources: {', '.join(_SOURCES)}."
            )
        # A combo does not trade by itself here: its legs do.
        return PriceSource.LAST if contract.legs and word == "TRADES" else PriceSource(word)

    def _own_length(self) -> tuple[int, int]:
        """Timeframe and compression of the bars made here.

        ``cerebro.resampledata()`` and ``replaydata()`` of this very feed write theirs over the ones it was given.
        What can be built here at once is; the rest, and what is replayed bar by bar, needs the shorter bars.
        """
        if self.replaying or self._timeframe > bt.TimeFrame.Minutes:
            return self.p.timeframe, self.p.compression
        return self._timeframe, self._compression

    def _length_ns(self) -> int:
        timeframe, compression = self._own_length()
        if timeframe == bt.TimeFrame.Ticks:
            if self.p.historical:
                raise UsageError(
                    "historical=True with Ticks: IBKR's Web API has no historical ticks.",
                    remedy="Ask for Minutes or Days.",
                )
            return 0
        unit = _LENGTHS.get(timeframe)
        if unit is None or (timeframe == bt.TimeFrame.Days and not self.p.historical):
            name = bt.TimeFrame.getname(timeframe, 2)
            self.put_notification(self.NOTSUPPORTED_TF)
            raise UsageError(
                f"{self._query.text}: live bars of timeframe {name} are not built.",
                remedy="Live: Ticks, Seconds, Minutes (resample for longer). With historical=True also Days.",
            )
        length: int = unit * compression
        if self.p.historical and not offered(length):
            raise UsageError(
                f"{self._query.text}: IBKR has no historical bars of {length / NS_PER_S:g} s.",
                remedy="Lengths: 1, 2, 3, 5, 10, 15, 30 minutes; 1, 2, 3, 4, 8 hours; 1 day; 1 week.",
            )
        return length

    # -- starting ------------------------------------------------------------------------------------

    def _begin_live(self) -> None:
        assert self.contract is not None
        now_ns = self._ibkr.connection.clock.now_ns()
        if self._bar_ns:
            self._join_ns = -(-now_ns // self._bar_ns) * self._bar_ns
            self._builder = BarBuilder(self._bar_ns, self._source, self._join_ns)
        source = self._source
        self._ticks = TickBacklog(
            self._ibkr.tick_backlog,
            span_ns=self._bar_ns,
            price=partial(tick_price, source=source),
            changes=source is not PriceSource.TRADES,
            dataname=self._query.text,
            told=self._ibkr.tell_ticks,
        )
        self._ibkr.connection.subscribe_ticks(self.contract, self._ticks)
        if self._bar_ns and self.p.backfill_start and offered(self._bar_ns):
            self._state = FeedState.BACKFILLING
            self.put_notification(self.DELAYED)
            self._request(self._history_start_ns(), now_ns, 0 if self.p.fromdate else self.p.backfill_bars)
        else:
            self._state = FeedState.LIVE
            self._live_due = True
            self._covered_ns = self._join_ns

    def _history_start_ns(self) -> int:
        return ns_of(self._as_datetime(self.p.fromdate)) if self.p.fromdate else 0

    def _history_end_ns(self) -> int:
        now_ns = self._ibkr.connection.clock.now_ns()
        return min(now_ns, ns_of(self._as_datetime(self.p.todate))) if self.p.todate else now_ns

    @staticmethod
    def _as_datetime(moment: Any) -> datetime:
        if isinstance(moment, datetime):
            return moment
        return datetime(moment.year, moment.month, moment.day, tzinfo=UTC)

    def _request(self, start_ns: int, end_ns: int, most: int) -> None:
        assert self.contract is not None
        self._token += 1
        request = HistoryRequest(
            contract=self.contract,
            bar_ns=self._bar_ns,
            start_ns=start_ns,
            end_ns=end_ns,
            source=self._source.history,
            outside_regular_hours=not self.p.useRTH,
            most=most,
        )
        self._ibkr.connection.request_history(request, self._token, self._answers)

    # -- the store's side, once per cycle ----------------------------------------------------------

    def prepare(self) -> int | None:
        """See ``StoreFeed``."""
        if not self._bar_ns:
            return self._prepare_tick()
        # Before the ticks are taken in.
        market_ns = self._ibkr.market_ns()
        if len(self._answers):
            self._take_answer()
        if self._builder is not None:
            self._build(market_ns)
        if self._queue:
            return self._queue[0].end_ns
        if self._live_due:
            self._live_due = False
            self._notify_quality(self._last_quality)
        return None

    def _build(self, market_ns: int) -> None:
        builder = self._builder
        assert builder is not None
        self._take_ticks(builder)
        while self._ticks.behind and self._catch_up():
            self._take_ticks(builder)
        builder.close_until(market_ns, self._built)
        if self._finishing:
            builder.close_until(builder.open_end_ns, self._built)
        if self._state is FeedState.LIVE:
            if self._built:
                self._queue.extend(self._built)
                self._built.clear()
        elif self._state is FeedState.JOINING and (market_ns >= self._join_ns or self._finishing):
            self._state = FeedState.TOPPING_UP
            self._request(self._covered_ns, self._join_ns, 0)

    def _take_ticks(self, builder: BarBuilder) -> None:
        ticks = self._ticks
        if ticks:
            quality = ticks[-1].quality
            if not self._aligned:
                self._align(ticks[0].time_ns)
                if self._source is not PriceSource.TRADES:
                    # A subscription begins with the quote as it stands: nothing happened at that moment.
                    builder.prime(ticks.popleft())
            if quality is not self._last_quality:
                self._last_quality = quality
                if self._state is FeedState.LIVE:
                    self._live_due = True
            builder.drain(ticks, self._built)

    @property
    def query(self) -> ContractQuery:
        """What the feed's parameters ask for."""
        return self._query

    @property
    def backlog(self) -> TickBacklog:
        """The ticks that wait for this feed, and what was counted of them."""
        return self._ticks

    def _catch_up(self) -> bool:
        """All ticks are taken and others were conflated: bring those in; whether there were any."""
        ticks = self._ticks
        if not self._behind_told:
            self._behind_told = True
            self.put_notification(self.DELAYED, ticks.report())
        if ticks.lost:
            self._begin_anew()
            return False
        more = ticks.refill()
        if not ticks.behind:
            self._behind_told = False
            if self._state is FeedState.LIVE:
                self._live_due = True
        return more

    def _begin_anew(self) -> None:
        """Too many ticks for what a reader this slow can be given: the stream has a hole, as after a break."""
        self.put_notification(self.CONNBROKEN, "the strategy is too slow: ticks were dropped")
        if self._builder is not None:
            self._drain_before_break()
        self._behind_told = False
        self._ticks.restart()
        self._rejoin()

    def _align(self, first_ns: int) -> None:
        """The stream's first frame shows the server's time: a bar that began before it is not whole."""
        self._aligned = True
        edge = -(-first_ns // self._bar_ns) * self._bar_ns
        if edge > self._join_ns:
            self._join_ns = edge
            assert self._builder is not None
            self._builder.start_ns = edge
            if (
                self._state is FeedState.LIVE
                and self._covered_ns
                and self.p.backfill_start
                and offered(self._bar_ns)
            ):
                self._state = FeedState.JOINING

    def _take_answer(self) -> None:
        answer = self._answers.take()
        while answer is not None:
            if answer.token == self._token:
                self._use_history(answer)
            answer = self._answers.take()

    def _use_history(self, answer: HistoryArrived) -> None:
        if answer.error is not None:
            _log.warning("history-failed dataname=%s problem=%s", self._query.text, answer.error)
            self._ibkr.put_notification("history-failed", self._query.text, error=answer.error)
        state = self._state
        until = self._complete_until() if state is not FeedState.TOPPING_UP else self._join_ns
        fresh = [bar for bar in answer.bars if self._covered_ns < bar.end_ns <= until]
        self._queue.extend(fresh)
        self._from_history = len(self._queue)
        self._covered_ns = max(self._covered_ns, until)
        if state is FeedState.HISTORICAL:
            self._finishing = True
        elif state is FeedState.TOPPING_UP or self._covered_ns >= self._join_ns:
            self._state = FeedState.LIVE
            self._live_due = True
        else:
            self._state = FeedState.JOINING
            self._live_due = True

    def _complete_until(self) -> int:
        """The last edge whose bar history can be expected to hold whole."""
        now_ns = self._ibkr.connection.clock.now_ns() - self._ibkr.grace_ns
        return now_ns // self._bar_ns * self._bar_ns

    def _prepare_tick(self) -> int | None:
        ticks = self._ticks
        source = self._source
        while ticks or (ticks.behind and self._catch_up()):
            tick = ticks[0]
            if source is _TRADES:
                if tick.traded and tick.last is not None:
                    return tick.time_ns
            else:
                price = tick_price(tick, source)
                if price is not None and price != self._tick_price:
                    return tick.time_ns
            self._see_quality(tick)
            ticks.popleft()
        if self._live_due:
            self._live_due = False
            self._notify_quality(self._last_quality)
        return None

    def _see_quality(self, tick: Tick) -> None:
        if tick.quality is not self._last_quality:
            self._last_quality = tick.quality
            self._live_due = True

    def _notify_quality(self, quality: DataQuality) -> None:
        """Tell strategies LIVE only when history is delivered and prices are the market's present ones."""
        self.put_notification(_QUALITY_STATUS.get(quality, self.LIVE))

    def deadline_ns(self) -> int | None:
        """See ``StoreFeed``."""
        if self._state in (FeedState.OVER, FeedState.HISTORICAL):
            return None
        if not self._bar_ns:
            return 0
        now_ns = self._ibkr.connection.clock.now_ns()
        return now_ns // self._bar_ns * self._bar_ns + self._bar_ns

    def has_news(self) -> bool:
        """See ``StoreFeed``."""
        return bool(self.notifs) or (self._ended() and not self._over_told)

    def session_changed(self, change: SessionChanged) -> None:
        """See ``StoreFeed``."""
        if self._state in (FeedState.NEW, FeedState.OVER, FeedState.HISTORICAL):
            return
        if not change.connected and self._laststatus != self.CONNBROKEN:
            self.put_notification(self.CONNBROKEN, change.cause)
            if self._builder is not None:
                self._drain_before_break()
        elif change.connected and self._laststatus == self.CONNBROKEN:
            self._rejoin()

    def _drain_before_break(self) -> None:
        """Keep the bars that were whole before the break; the one being built has a hole now."""
        assert self._builder is not None
        self._builder.drain(self._ticks, self._built)
        if self._ticks.refill():
            self._builder.drain(self._ticks, self._built)
        self._builder.drop_open()
        if self._built:
            self._covered_ns = max(self._covered_ns, self._built[-1].end_ns)
        if self._state is FeedState.LIVE:
            self._queue.extend(self._built)
        self._built.clear()

    def _rejoin(self) -> None:
        """The stream is back: fetch what was missed, once the bar that is running has ended."""
        if self._builder is None:
            self._live_due = True
            return
        if self._state is FeedState.LIVE:
            delivered = self._queue[-1].end_ns if self._queue else self._builder.start_ns
            self._covered_ns = max(self._covered_ns, delivered)
        now_ns = self._ibkr.connection.clock.now_ns()
        self._join_ns = -(-now_ns // self._bar_ns) * self._bar_ns
        self._builder.start_ns = self._join_ns
        self._aligned = False
        if self.p.backfill and offered(self._bar_ns):
            self.put_notification(self.DELAYED)
            self._state = FeedState.JOINING
        else:
            self._state = FeedState.LIVE
            self._ibkr.put_notification(
                "gap", self._query.text, start_ns=self._covered_ns, end_ns=self._join_ns
            )
        self._live_due = True

    def finish(self) -> None:
        """See ``StoreFeed``."""
        self._finishing = True

    def holds(self) -> bool:
        """See ``StoreFeed``."""
        historical = self._state is FeedState.HISTORICAL and not self._finishing
        return historical or self._state is FeedState.BACKFILLING

    @property
    def over(self) -> bool:
        """See ``StoreFeed``."""
        return self._over_told

    def _ended(self) -> bool:
        if self._state is FeedState.OVER:
            return True
        waits = self._state in (FeedState.BACKFILLING, FeedState.TOPPING_UP, FeedState.JOINING)
        if not self._finishing or waits or self._queue or self._ticks or self._built:
            return False
        # What is reported of orders after the last bar must still be heard; on bars of the past there are none.
        return self._state is FeedState.HISTORICAL or self._ibkr.drained()

    # -- delivery ------------------------------------------------------------------------------------

    def _load(self) -> bool | None:
        if self._bar_ns:
            if self._queue:
                bar = self._queue[0]
                if bar.end_ns != self._ibkr.cutoff_ns:
                    return None
                self._queue.popleft()
                self._mark_age(bar)
                self._write_bar(bar)
                return True
        elif self._ticks:
            tick = self._ticks[0]
            if tick.time_ns != self._ibkr.cutoff_ns:
                return None
            return self._write_tick(self._ticks.popleft())
        if self._ended():
            return self._end()
        return None

    def _mark_age(self, bar: Bar) -> None:
        """Remember whether this bar is history: an order computed from it would come too late."""
        self._stale = False
        if self._from_history:
            self._from_history -= 1
            age_ns = self._ibkr.connection.clock.now_ns() - bar.end_ns
            self._stale = age_ns > self._bar_ns + self._ibkr.grace_ns

    @property
    def current(self) -> bool:
        """Whether the bar last delivered is the market's newest, not one of the past."""
        return not self._stale

    def _end(self) -> bool:
        if not self._over_told:
            self._over_told = True
            self.put_notification(self.DISCONNECTED)
        return False

    def _write_bar(self, bar: Bar) -> None:
        lines = self.lines
        lines.datetime[0] = day_number(bar.end_ns)
        lines.open[0] = bar.open
        lines.high[0] = bar.high
        lines.low[0] = bar.low
        lines.close[0] = bar.close
        lines.volume[0] = bar.volume
        lines.openinterest[0] = 0.0

    def _write_tick(self, tick: Tick) -> bool | None:
        traded = tick.traded
        price = (tick.last if traded else None) if self._source is _TRADES else tick_price(tick, self._source)
        if price is None:
            # `prepare` looks at the head only; a picture may have slipped in after it.
            return None
        if tick.quality is not self._last_quality:
            self._see_quality(tick)
        self._tick_price = price
        moment, opens, highs, lows, closes, volumes, interests = self._buffers
        moment[0] = day_number_fast(tick.time_ns)
        opens[0] = highs[0] = lows[0] = closes[0] = price
        volumes[0] = traded
        interests[0] = 0.0
        return True


def base_of(data: Any) -> Any:
    """The feed a backtrader data stands for; clones (made by resampling) lead to the feed they copy."""
    while getattr(data, "_clone", False):
        data = data.data
    return data


def is_current(data: Any) -> bool:
    """Whether ``data``'s last bar is of the present, so that a strategy may trade on it.

    False while a live feed delivers history; always true in a backtest.
    """
    return bool(getattr(base_of(data), "current", True))


def contract_of(data: Any) -> Contract:
    """The contract that orders for a backtrader data trade; clones lead to the feed they were made from.

    Raises:
        ContractError: The data is none of this package's feeds, or has not been started.
    """
    contract = getattr(base_of(data), "tradecontract", None)
    if not isinstance(contract, Contract):
        raise ContractError(
            f"The data {getattr(data, '_name', data)!r} is not an IBKR feed: it cannot be traded.",
            remedy="Trade on feeds made by store.getdata().",
        )
    return contract
