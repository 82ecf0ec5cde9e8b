"""The live feed: history first, then bars or ticks from the stream, with no gap and no overlap."""

from __future__ import annotations

import logging
from functools import partial
from typing import Any

import backtrader as bt

from bt_ibkr.connection.backlog import TickBacklog
from bt_ibkr.connection.interface import FeedEvent, HistoryArrived, SessionChanged
from bt_ibkr.connection.mailbox import Mailbox
from bt_ibkr.errors import UsageError
from bt_ibkr.feeds.bars import PriceSource, tick_price
from bt_ibkr.feeds.base import StoreData, base_of, contract_of, is_back_filled, is_current
from bt_ibkr.feeds.edges import Edges, FixedEdges
from bt_ibkr.feeds.join import Delivery, FeedState, StreamJoin, Wish
from bt_ibkr.feeds.parameters import bar_length_ns, moment_ns, price_source
from bt_ibkr.feeds.times import day_number, day_number_fast
from bt_ibkr.model.market import Bar, DataQuality, Tick
from bt_ibkr.services.datanames import ContractQuery, parse_dataname
from bt_ibkr.services.history import HistoryRequest, offered

__all__ = ["FeedState", "IBKRData", "base_of", "contract_of", "is_back_filled", "is_current"]

_log = logging.getLogger(__name__)

_QUALITY_STATUS = {
    DataQuality.DELAYED: bt.DataBase.DELAYED,
    DataQuality.FROZEN: bt.DataBase.DELAYED,
    DataQuality.FROZEN_DELAYED: bt.DataBase.DELAYED,
    DataQuality.NOT_SUBSCRIBED: bt.DataBase.NOTSUBSCRIBED,
    DataQuality.NO_ACKNOWLEDGEMENT: bt.DataBase.NOTSUBSCRIBED,
}
#: An enum's member costs a look-up each time it is named; these run for every tick or every cycle.
_TRADES = PriceSource.TRADES
_JOINING = FeedState.JOINING


class IBKRData(StoreData):
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
    )

    def __init__(self, **unknown: Any) -> None:
        super().__init__(**unknown)
        self._query = parse_dataname(
            self.p.dataname, security_type=self.p.sectype, exchange=self.p.exchange, currency=self.p.currency
        )
        self._trade_query = parse_dataname(self.p.tradename) if self.p.tradename else None
        for name in ("latethrough", "backfill_from"):
            if getattr(self.p, name):
                raise UsageError(f"{self._query.text}: {name} is not offered in this version.")
        #: Strategies were told that ticks are conflated.
        self._behind_told = False
        self._answers: Mailbox[FeedEvent] = Mailbox(self._ibkr.wake)
        self._token = 0
        self._bar_ns = 0
        self._source = PriceSource.TRADES
        self._join: StreamJoin
        self._subscribed = False
        self._historical_due = False
        self._last_quality = DataQuality.UNKNOWN
        self._live_due = False
        self._tick_price: float | None = None
        self._stale = False
        #: The bar last delivered came from history, not from the stream.
        self.back_filled = False

    # -- starting ------------------------------------------------------------------------------------

    def start(self) -> None:
        super().start()
        self._ibkr.start()
        self.contract = self.tradecontract = self._ibkr.connection.resolve(self._query)
        if self._trade_query is not None:
            self.tradecontract = self._ibkr.connection.resolve(self._trade_query)
        self._ibkr.start(data=self)
        self._source = price_source(self.p.what, self.contract)
        self.put_notification(self.CONNECTED)
        timeframe, compression = self._own_length()
        try:
            self._bar_ns = bar_length_ns(
                self._query.text, timeframe, compression, historical=self.p.historical
            )
        except UsageError:
            self.put_notification(self.NOTSUPPORTED_TF)
            raise
        fetches = bool(self._bar_ns) and offered(self._bar_ns)
        edges: Edges = FixedEdges(self._bar_ns or 1)
        self._join = StreamJoin(
            edges,
            self._source,
            fetch_start=bool(self.p.backfill_start) and fetches,
            fetch_gaps=bool(self.p.backfill) and fetches,
            grace_ns=self._ibkr.grace_ns,
        )
        now_ns = self._ibkr.connection.clock.now_ns()
        start_ns = moment_ns(self.p.fromdate) if self.p.fromdate else 0
        if self.p.historical:
            self._join.state = FeedState.HISTORICAL
            self._historical_due = self.holding = True
            end_ns = min(now_ns, moment_ns(self.p.todate)) if self.p.todate else now_ns
            self._request(Wish(start_ns, end_ns))
        else:
            self._begin_live(now_ns, start_ns)

    def _own_length(self) -> tuple[int, int]:
        """Timeframe and compression of the bars made here.

        ``cerebro.resampledata()`` and ``replaydata()`` of this very feed write theirs over the ones it was given.
        What can be built here at once is; the rest, and what is replayed bar by bar, needs the shorter bars.
        """
        if self.replaying or self._timeframe > bt.TimeFrame.Minutes:
            return self.p.timeframe, self.p.compression
        return self._timeframe, self._compression

    def _begin_live(self, now_ns: int, start_ns: int) -> None:
        assert self.contract is not None
        source = self._source
        self._backlog = TickBacklog(
            self._ibkr.tick_backlog,
            span_ns=self._bar_ns,
            price=partial(tick_price, source=source),
            changes=source is not PriceSource.TRADES,
            dataname=self._query.text,
            told=self._ibkr.tell_ticks,
        )
        self._ibkr.connection.subscribe_ticks(self.contract, self._backlog)
        self._subscribed = True
        if not self._bar_ns:
            self._live_due = True
            return
        self._join.begin(now_ns, start_ns, 0 if self.p.fromdate else self.p.backfill_bars)
        if self._join.state is FeedState.BACKFILLING:
            self.put_notification(self.DELAYED)
        self._follow()

    def _request(self, wish: Wish) -> None:
        assert self.contract is not None
        self._token += 1
        request = HistoryRequest(
            contract=self.contract,
            bar_ns=self._bar_ns,
            start_ns=wish.start_ns,
            end_ns=wish.end_ns,
            source=self._source.history,
            outside_regular_hours=not self.p.useRTH,
            most=wish.most,
        )
        self._ibkr.connection.request_history(request, self._token, self._answers)

    def stop(self) -> None:
        super().stop()
        if self._subscribed:
            self._subscribed = False
            self._ibkr.connection.unsubscribe_ticks(self._backlog)
            self._join.state = FeedState.OVER

    @property
    def query(self) -> ContractQuery:
        """What the feed's parameters ask for."""
        return self._query

    # -- bars: the store's side, once per cycle ------------------------------------------------------

    def prepare(self) -> int | None:
        """See ``StoreData``."""
        if not self._bar_ns:
            return self._prepare_tick()
        # Before the ticks are taken in.
        market_ns = self._ibkr.market_ns()
        join = self._join
        if len(self._answers):
            self._take_answers()
        if self._subscribed:
            ticks = self._backlog
            if ticks:
                self._take_ticks()
            while ticks.behind and self._catch_up():
                self._take_ticks()
            join.advance(market_ns, over=self._finishing)
            if join.state is _JOINING:
                join.top_up(self._ibkr.connection.clock.now_ns(), over=self._finishing)
                self._follow()
            if join.settled:
                self._follow()
        if join.queue:
            head_ns = self._head_ns = join.queue[0].bar.end_ns
            return head_ns
        if self._live_due:
            self._live_due = False
            self._notify_quality(self._last_quality)
        return None

    def _take_ticks(self) -> None:
        ticks = self._backlog
        quality = ticks[-1].quality
        if quality is not self._last_quality:
            self._last_quality = quality
            if self._join.state is FeedState.LIVE:
                self._live_due = True
        self._join.take(ticks)

    def _follow(self) -> None:
        """Do what the join asks for, and tell what it has to tell."""
        join = self._join
        wish = join.take_wish()
        if wish is not None:
            self._request(wish)
        if join.settled:
            join.settled = False
            self._live_due = True
        self.holding = join.state is FeedState.BACKFILLING
        for gap in join.gaps:
            self._ibkr.put_notification("gap", self._query.text, start_ns=gap.start_ns, end_ns=gap.end_ns)
        join.gaps.clear()

    def _take_answers(self) -> None:
        while (answer := self._answers.take()) is not None:
            if answer.token == self._token:
                self._use_history(answer)

    def _use_history(self, answer: HistoryArrived) -> None:
        if answer.error is not None:
            _log.warning("history-failed dataname=%s problem=%s", self._query.text, answer.error)
            self._ibkr.put_notification("history-failed", self._query.text, error=answer.error)
        now_ns = self._ibkr.connection.clock.now_ns()
        if self._historical_due:
            self._historical_due = self.holding = False
            self._finishing = True
            until_ns = now_ns - self._ibkr.grace_ns
            self._join.queue.extend(
                Delivery(bar, back_filled=True) for bar in answer.bars if bar.end_ns <= until_ns
            )
            return
        self._join.take_history(answer.bars, now_ns, failed=answer.error is not None)
        self._follow()

    def _catch_up(self) -> bool:
        """All ticks are taken and others were conflated: bring those in; whether there were any."""
        ticks = self._backlog
        if not self._behind_told:
            self._behind_told = True
            self.put_notification(self.DELAYED, ticks.report())
        if ticks.lost:
            self._begin_anew()
            return False
        more = ticks.refill()
        if not ticks.behind:
            self._behind_told = False
            if self._join.state is FeedState.LIVE or not self._bar_ns:
                self._live_due = True
        return more

    def _begin_anew(self) -> None:
        """Too many ticks for what a reader this slow can be given: the stream has a hole, as after a break."""
        self.put_notification(self.CONNBROKEN, "the strategy is too slow: ticks were dropped")
        if self._bar_ns:
            # The first of the ticks that did not wait by itself may be before one that was dropped.
            self._break_off(self._backlog.report().start_ns)
        self._behind_told = False
        self._backlog.restart()
        self._rejoin()

    # -- breaks --------------------------------------------------------------------------------------

    def session_changed(self, change: SessionChanged) -> None:
        """See ``StoreData``."""
        if not self._subscribed or self.over:
            return
        if not change.connected and self._laststatus != self.CONNBROKEN:
            self.put_notification(self.CONNBROKEN, change.cause)
            if self._bar_ns:
                self._break_off(change.since_ns or self._ibkr.connection.clock.now_ns())
        elif change.connected and self._laststatus == self.CONNBROKEN:
            self._rejoin()

    def _break_off(self, whole_ns: int) -> None:
        """Keep the bars that were whole before the break; the one being built has a hole now."""
        ticks = self._backlog
        self._join.take(ticks)
        if ticks.refill():
            self._join.take(ticks)
        self._join.break_off(whole_ns)

    def _rejoin(self) -> None:
        """The stream is back."""
        if not self._bar_ns:
            self._live_due = True
            return
        self._join.resume(self._ibkr.connection.clock.now_ns())
        if self._join.waits:
            self.put_notification(self.DELAYED)
        self._follow()

    # -- ticks: the store's side ---------------------------------------------------------------------

    def _prepare_tick(self) -> int | None:
        ticks = self._backlog
        source = self._source
        while ticks or (ticks.behind and self._catch_up()):
            tick = ticks[0]
            if source is _TRADES:
                if tick.traded and tick.last is not None:
                    self._head_ns = tick.time_ns
                    return tick.time_ns
            else:
                price = tick_price(tick, source)
                if price is not None and price != self._tick_price:
                    self._head_ns = tick.time_ns
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
        """See ``StoreData``."""
        if not self._subscribed or self.over:
            return None
        if not self._bar_ns:
            return 0
        now_ns = self._ibkr.connection.clock.now_ns()
        return now_ns // self._bar_ns * self._bar_ns + self._bar_ns

    def ended(self) -> bool:
        """See ``StoreData``."""
        if not self._finishing or self.holding or self._join.waits or self._join.pending or self._backlog:
            return False
        # What is reported of orders after the last bar must still be heard; on bars of the past there are none.
        return not self._subscribed or self._ibkr.drained()

    # -- delivery ------------------------------------------------------------------------------------

    def write_next(self) -> bool | None:
        """See ``StoreData``."""
        if not self._bar_ns:
            return self._write_tick(self._backlog.popleft())
        bar, self.back_filled = self._join.pop()
        self._stale = False
        if self.back_filled:
            # An order computed from it would come too late.
            age_ns = self._ibkr.connection.clock.now_ns() - bar.end_ns
            self._stale = age_ns > self._bar_ns + self._ibkr.grace_ns
        self._write_bar(bar)
        return True

    @property
    def current(self) -> bool:
        """Whether the bar last delivered is the market's newest, not one of the past."""
        return not self._stale

    def _write_bar(self, bar: Bar) -> None:
        moment, opens, highs, lows, closes, volumes, interests = self._buffers
        moment[0] = day_number(bar.end_ns)
        opens[0] = bar.open
        highs[0] = bar.high
        lows[0] = bar.low
        closes[0] = bar.close
        volumes[0] = bar.volume
        interests[0] = 0.0

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
