"""The live feed: history first, then bars or ticks from the stream, with no gap and no overlap."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from functools import partial
from math import inf, nan
from typing import Any

import backtrader as bt

from bt_ibkr.clock import NS_PER_S
from bt_ibkr.connection.backlog import TickBacklog
from bt_ibkr.connection.interface import SessionChanged
from bt_ibkr.errors import BtIbkrError, UsageError
from bt_ibkr.feeds.bars import PriceSource, tick_price
from bt_ibkr.feeds.base import StoreData, base_of, contract_of, is_back_filled, is_current
from bt_ibkr.feeds.edges import DayEdges, Edges
from bt_ibkr.feeds.join import Correction, Delivery, EmptyBars, FeedState, StreamJoin, Wish
from bt_ibkr.feeds.official import Corrections, OfficialBars
from bt_ibkr.feeds.parameters import (
    BY_SESSIONS,
    bar_length_ns,
    calendar_known,
    check_flags,
    check_span,
    check_timeframe,
    corrections,
    edges_of,
    empty_bars,
    first_bars,
    moment_ns,
    price_source,
)
from bt_ibkr.feeds.requests import HistoryDesk
from bt_ibkr.feeds.session_hours import end_of_last, hours_given, take_hours
from bt_ibkr.feeds.standing import Standing
from bt_ibkr.feeds.stored_first import StoredFirst
from bt_ibkr.feeds.ticks import TickReader
from bt_ibkr.feeds.times import check_dates, day_number, day_number_fast
from bt_ibkr.feeds.zones import backtrader_zone
from bt_ibkr.model.calendar import SessionCalendar
from bt_ibkr.model.contract import Contract
from bt_ibkr.model.hours import exchange_zone
from bt_ibkr.model.market import Tick
from bt_ibkr.services.datanames import ContractQuery, parse_dataname
from bt_ibkr.services.history import offered

__all__ = ["FeedState", "IBKRData", "base_of", "contract_of", "is_back_filled", "is_current"]

_log = logging.getLogger(__name__)

#: An enum's member costs a look-up each time it is named; these run in every cycle.
_JOINING = FeedState.JOINING
_LIVE = FeedState.LIVE
#: Ticks that wait too long are conflated within so long, where bars go by sessions: those begin on whole minutes.
_MINUTE_NS = 60 * NS_PER_S
_LOOK_NS = 300 * NS_PER_S
#: Parameters that are on or off.
_FLAGS = ("useRTH", "historical", "backfill_start", "backfill", "latethrough")
#: Further lines that every tick has by itself.
_OF_TICKS = frozenset({"bid", "ask", "bid_size", "ask_size", "last_size"})


class IBKRData(StoreData):
    """A data feed of one instrument.

    Parameters (those of backtrader's ``IBData`` keep their names and meaning):

    - ``dataname``: see ``bt_ibkr.services.datanames``; ``sectype``, ``exchange``, ``currency`` say what it does not.
    - ``timeframe``, ``compression``: ``Ticks``, ``Seconds``, ``Minutes``, and ``Days``, ``Weeks``, ``Months`` by the
      exchange's sessions (compression 1).
    - ``what``: ``TRADES``, ``BID``, ``ASK`` or ``MIDPOINT``; by default ``BID`` for currency pairs,
      ``MIDPOINT`` for combos, else ``TRADES``. ``TRADES`` of a combo are the last prices of its legs, without volume.
    - ``tradename``: dataname of the contract to trade, if it is not the one followed.
    - ``rtbar``: taken and without effect; bars are always built from the stream.
    - ``useRTH``: only regular trading hours, in history and live.
    - ``historical``: deliver history from ``fromdate`` (without it ``backfill_bars`` bars) to ``todate`` and end.
    - ``backfill_from``: another backtrader feed, delivered before everything else.
    - ``backfill_start``: deliver history before the live bars, from ``fromdate`` or ``backfill_bars`` bars (0: none).
    - ``backfill``: fetch what was missed after the stream broke.
    - ``todate``: the feed ends there, live as well.
    - ``latethrough``: let ticks through that come after later ones.
    - ``empty_bars``: ``skip``, ``repeat`` or ``nan``: what becomes of bars inside sessions in which nothing happens.
    - ``corrections``: ``None``, ``report`` or ``apply``: compare the bars made here with IBKR's own once those have
      settled; differences are told by the store as ``bar-corrected``, and applied to the lines.
    - ``tz``: of the naive times that ``data.datetime`` gives and ``fromdate`` takes: ``None`` is UTC, ``"exchange"``
      the exchange's zone; or a name or a ``tzinfo``. With ``"exchange"`` ``sessionstart`` and ``sessionend`` are by
      default those of the instrument's session, and what is resampled closes with it, on half days too.

    A bar is stamped with its right edge, in UTC. Data notifications: CONNECTED, DELAYED (history, or delayed market
    data), LIVE, CONNBROKEN, NOTSUBSCRIBED, DISCONNECTED at the end; with a reason where the market data has one.
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
        ("empty_bars", "skip"),
        ("corrections", None),
    )

    #: Names of the lines beside backtrader's own; see ``extra_lines.feed_class``.
    extra_lines: tuple[str, ...] = ()

    def __init__(self, **unknown: Any) -> None:
        super().__init__(**unknown)
        check_timeframe(self.p.dataname, self.p.timeframe)
        check_flags(self, *_FLAGS)
        check_dates(str(self.p.dataname), fromdate=self.p.fromdate, todate=self.p.todate)
        self._query = parse_dataname(
            self.p.dataname, security_type=self.p.sectype, exchange=self.p.exchange, currency=self.p.currency
        )
        self._trade_query = parse_dataname(self.p.tradename) if self.p.tradename else None
        #: Strategies were told that ticks are conflated.
        self._behind_told = False
        self._bar_ns = 0
        self._source = PriceSource.TRADES
        self._edges: Edges
        self._join: StreamJoin
        self._history: HistoryDesk
        self._reader: TickReader | None = None
        self._stored: StoredFirst | None = None
        self._official: OfficialBars | None = None
        self._corrections: Corrections
        self._subscribed = False
        self._historical_due = False
        self._start_ns = 0
        self._until_ns: float = inf
        self._past_until = False
        self._standing = Standing()
        #: Told with the last status.
        self._reason = ""
        self._stale = False
        #: The time of the bar written last, in backtrader's numbers.
        self._written = 0.0
        self._extra_buffers: tuple[Any, ...] = ()
        self._calendar_hours: SessionCalendar | None = None
        #: The bar last delivered came from history, not from the stream.
        self.back_filled = False

    # -- starting ------------------------------------------------------------------------------------

    def start(self) -> None:
        super().start()
        self._extra_buffers = tuple(getattr(self.lines, name) for name in self.extra_lines)
        self._ibkr.start()
        connection = self._ibkr.connection
        self.contract = self.tradecontract = connection.resolve(self._query)
        if self._trade_query is not None:
            self.tradecontract = connection.resolve(self._trade_query)
        self._ibkr.start(data=self)
        self._source = price_source(self.p.what, self.contract)
        self.put_notification(self.CONNECTED)
        timeframe, compression = self._own_length()
        historical = bool(self.p.historical)
        try:
            self._bar_ns = bar_length_ns(self._query.text, timeframe, compression, historical=historical)
        except UsageError:
            self.put_notification(self.NOTSUPPORTED_TF)
            raise
        if self.p.tz == "exchange" and not hours_given(self.p):
            self._calendar_hours = calendar_known(self.contract, None if historical else connection)
            take_hours(self.p, self._calendar_hours, connection.clock.now_ns())
        self._start_finish()
        if self.p.fromdate is not None:
            self._start_ns = moment_ns(self.p.fromdate, self._tz)
        if self.p.todate is not None:
            self._until_ns = moment_ns(self.p.todate, self._tz)
        self._make_bars(timeframe, timeframe in BY_SESSIONS)
        now_ns = connection.clock.now_ns()
        check_span(self._query.text, self._start_ns, self._until_ns, now_ns, historical=historical)
        if historical:
            self._begin_historical()
        elif self.p.backfill_from is not None:
            self._stored = StoredFirst(self.p.backfill_from, self._env, self._bar_ns)
        else:
            self._begin_live()

    def _getnexteos(self) -> tuple[Any, float]:
        """The end of the last bar's session, for what is resampled from this feed; half days as they are."""
        if not self._written:
            nothing: tuple[Any, float] = super()._getnexteos()
            return nothing
        return end_of_last(self, self._calendar_hours, self._written)

    def _gettz(self) -> Any:
        assert self.contract is not None
        return backtrader_zone(self.p.tz, exchange_zone(self.contract))

    def _own_length(self) -> tuple[int, int]:
        """Timeframe and compression of the bars made here.

        ``cerebro.resampledata()`` and ``replaydata()`` of this very feed write theirs over the ones it was given.
        What can be built here at once is; the rest, and what is replayed bar by bar, needs the shorter bars.
        """
        if self.replaying or self._timeframe > bt.TimeFrame.Minutes:
            return self.p.timeframe, self.p.compression
        return self._timeframe, self._compression

    def _make_bars(self, timeframe: int, by_sessions: bool) -> None:
        """The parts that put bars together, as the parameters say."""
        assert self.contract is not None
        p, name = self.p, self._query.text
        empty = empty_bars(p.empty_bars)
        word = corrections(p.corrections, name, self._bar_ns, by_sessions=by_sessions)
        self._edges = edges_of(
            self.contract,
            timeframe,
            self._bar_ns,
            by_clock=not (p.useRTH or empty is not EmptyBars.SKIP),
            extended=not p.useRTH,
            connection=None if p.historical else self._ibkr.connection,
        )
        fetches = by_sessions or (bool(self._bar_ns) and offered(self._bar_ns))
        self._join = StreamJoin(
            self._edges,
            self._source,
            fetch_start=fetches and bool(p.backfill_start) and self._wants_start(),
            fetch_gaps=bool(p.backfill) and fetches,
            grace_ns=self._ibkr.grace_ns,
            empty=empty,
            late_through=bool(p.latethrough),
            keep_quotes=bool(self.extra_lines),
        )
        self._history = self._new_desk(self.contract)
        self._corrections = Corrections(name, self._ibkr.put_notification, apply=word == "apply")
        if word is not None:
            self._official = OfficialBars(self._new_desk(self.contract), self._bar_ns)

    def _wants_start(self) -> bool:
        # Checked even where it does not matter: a wrong value is a mistake.
        bars = first_bars(self.p.backfill_bars, self._query.text)
        return bool(bars or self._start_ns or self.p.backfill_from is not None)

    def _new_desk(self, contract: Contract) -> HistoryDesk:
        return HistoryDesk(
            self._ibkr,
            contract,
            self._bar_ns,
            self._source.history,
            edges=self._edges,
            extended=not self.p.useRTH,
        )

    def _begin_historical(self) -> None:
        self._join.state = FeedState.HISTORICAL
        self._historical_due = self.holding = True
        now_ns = self._ibkr.connection.clock.now_ns()
        # Without a beginning it is so many bars: nobody wants to page from 1970.
        most = 0 if self._start_ns else max(first_bars(self.p.backfill_bars, self._query.text), 1)
        self._history.ask(Wish(self._start_ns, int(min(now_ns, self._until_ns)), most))

    def _begin_live(self) -> None:
        assert self.contract is not None
        source = self._source
        self._backlog = TickBacklog(
            self._ibkr.tick_backlog,
            span_ns=_MINUTE_NS if isinstance(self._edges, DayEdges) else self._bar_ns,
            price=partial(tick_price, source=source),
            changes=source is not PriceSource.TRADES,
            dataname=self._query.text,
            told=self._ibkr.tell_ticks,
        )
        extras = frozenset(self.extra_lines)
        self._ibkr.connection.subscribe_ticks(self.contract, self._backlog, extras)
        self._subscribed = True
        now_ns = self._ibkr.connection.clock.now_ns()
        self._standing.subscribed(now_ns)
        if self._start_ns > now_ns:
            # backtrader leaves out what is earlier without a word.
            self._ibkr.put_notification("begins-later", self._query.text, start_ns=self._start_ns)
        if not self._bar_ns:
            self._reader = TickReader(
                self._backlog,
                source,
                see=self._see_quality,
                catch_up=self._catch_up,
                late_through=bool(self.p.latethrough),
            )
            self._standing.due = True
            return
        self._join.begin(now_ns, self._start_ns, 0 if self._start_ns else max(self.p.backfill_bars, 1))
        if self._official is not None:
            self._official.begin(self._join.join_ns)
        if self._join.state is FeedState.BACKFILLING:
            self.put_notification(self.DELAYED)
        self._follow()

    def stop(self) -> None:
        super().stop()
        if self._subscribed:
            self._subscribed = False
            self._ibkr.connection.unsubscribe_ticks(self._backlog)
            self._join.state = FeedState.OVER

    @property
    def query(self) -> ContractQuery:
        return self._query

    # -- the store's side, once per cycle ------------------------------------------------------------

    def prepare(self) -> int | None:
        """See ``StoreData``."""
        if self._standing.waits and self._backlog:
            self._hear()
        if self._reader is not None:
            head_ns = self._reader.head_ns()
        else:
            head_ns = self._prepare_bar()
        if head_ns is not None:
            if head_ns > self._until_ns:
                self._past_until = True
                head_ns = None
            self._head_ns = head_ns
            return head_ns
        if self._standing.due:
            self._tell_standing()
        return None

    def _prepare_bar(self) -> int | None:
        # Before the ticks are taken in.
        market_ns = self._cycle.market_ns()
        join = self._join
        if len(self._history):
            self._use_history()
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
            if self._official is not None:
                self._compare_official(self._official)
            if market_ns > self._until_ns and not join.waits and not join.queue:
                self._past_until = True
        elif self._stored is not None and not join.queue:
            self._read_stored()
        return join.queue[0].bar.end_ns if join.queue else None

    def _take_ticks(self) -> None:
        ticks = self._backlog
        self._see_quality(ticks[-1])
        self._join.take(ticks)

    def _see_quality(self, tick: Tick) -> None:
        if self._standing.see(tick) and (self._reader is not None or self._join.state is _LIVE):
            self._standing.due = True

    def _hear(self) -> None:
        """The first frame of the subscription has come."""
        standing = self._standing
        standing.waits = False
        self._see_quality(self._backlog[0])
        if self._reader is not None and not standing.away:
            # That frame may be a bar: a strategy must not see it on a stream of which it was told nothing.
            self._tell_standing()
        elif self._join.state is _LIVE:
            standing.due = True

    def _tell_standing(self) -> None:
        """Tell strategies LIVE only when history is delivered and prices are the market's present ones."""
        told = self._standing.told(self._ibkr.connection.clock.now_ns())
        if told is None:
            return
        status, reason = told
        args = (reason,) if reason else ()
        if status == self._laststatus and reason != self._reason and reason:
            # The same status for another reason: backtrader would swallow it.
            self.notifs.append((status, args, {}))
        else:
            self.put_notification(status, *args)
        self._reason = reason

    def _follow(self) -> None:
        """Do what the join asks for, and tell what it has to tell."""
        join = self._join
        wish = join.take_wish()
        if wish is not None:
            self._history.ask(wish)
        if join.settled:
            join.settled = False
            self._standing.due = True
        self.holding = join.state is FeedState.BACKFILLING
        for gap in join.gaps:
            self._ibkr.put_notification("gap", self._query.text, start_ns=gap.start_ns, end_ns=gap.end_ns)
        join.gaps.clear()
        self._correct(join.corrections)
        join.corrections.clear()

    def _use_history(self) -> None:
        answer = self._history.take()
        if answer is None:
            return
        if answer.error is not None:
            self._tell_failure(answer.error)
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

    def _tell_failure(self, error: BtIbkrError) -> None:
        _log.warning("history-failed dataname=%s problem=%s", self._query.text, error)
        self._ibkr.put_notification("history-failed", self._query.text, error=error)

    def _read_stored(self) -> None:
        """Deliver another feed's bars; when it has none left, begin by itself."""
        assert self._stored is not None
        bar = self._stored.take()
        if bar is not None:
            self._join.queue.append(Delivery(bar, back_filled=True))
        elif self._stored.over:
            self._start_ns = max(self._start_ns, self._stored.last_ns)
            self._stored = None
            self._begin_live()

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
            if self._reader is not None or self._join.state is _LIVE:
                self._standing.due = True
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
        standing = self._standing
        if not change.connected and not standing.away:
            standing.away = True
            self.put_notification(self.CONNBROKEN, change.cause)
            if self._bar_ns:
                self._break_off(change.since_ns or self._ibkr.connection.clock.now_ns())
        elif change.connected and standing.away:
            standing.away = False
            standing.subscribed(self._ibkr.connection.clock.now_ns())
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
            self._standing.due = True
            return
        self._join.resume(self._ibkr.connection.clock.now_ns())
        if self._join.waits:
            self.put_notification(self.DELAYED)
        self._follow()

    # -- official bars -------------------------------------------------------------------------------

    def _compare_official(self, official: OfficialBars) -> None:
        answered = official.take(self._join.made)
        if answered is not None:
            if answered.error is not None:
                self._tell_failure(answered.error)
            self._correct(answered.found)
        if self._join.state is _LIVE and not self._join.queue:
            official.ask(self._ibkr.connection.clock.now_ns(), over=self._finishing)

    def _correct(self, found: Iterable[Correction]) -> None:
        for one in self._corrections.take(found, self._buffers, len(self)):
            self._join.corrected(one)

    # -- the end -------------------------------------------------------------------------------------

    def deadline_ns(self) -> int | None:
        """See ``StoreData``."""
        if not self._subscribed or self.over or self._past_until:
            return None
        if not self._bar_ns:
            return 0
        now_ns = self._ibkr.connection.clock.now_ns()
        window = self._edges.following(now_ns)
        # A session may be far away: look in between, at what else may have to be done.
        look_ns = now_ns + _LOOK_NS
        if self._standing.waits and self._standing.silent_ns > now_ns:
            look_ns = self._standing.silent_ns
        return look_ns if window is None else min(window[1], look_ns)

    def complete_ns(self, market_ns: int) -> int:
        """See ``StoreData``."""
        return market_ns if self._reader is not None else self._join.complete_ns(market_ns)

    def ended(self) -> bool:
        """See ``StoreData``."""
        if self._past_until:
            return True
        join = self._join
        if not self._finishing or self.holding or self._stored is not None or join.waits or join.pending:
            return False
        if self._backlog or (self._official is not None and self._official.asked):
            return False
        # What is reported of orders after the last bar must still be heard; on bars of the past there are none.
        return not self._subscribed or self._ibkr.drained()

    # -- delivery ------------------------------------------------------------------------------------

    def write_next(self) -> bool | None:
        """See ``StoreData``."""
        if self._reader is not None:
            return self._write_tick(self._reader)
        bar, self.back_filled, quote = self._join.pop()
        self._stale = False
        if self.back_filled:
            # An order computed from it would come too late.
            age_ns = self._ibkr.connection.clock.now_ns() - bar.end_ns
            self._stale = age_ns > self._bar_ns + self._ibkr.grace_ns
        moment, opens, highs, lows, closes, volumes, interests = self._buffers
        moment[0] = self._written = day_number(bar.end_ns)
        opens[0] = bar.open
        highs[0] = bar.high
        lows[0] = bar.low
        closes[0] = bar.close
        volumes[0] = bar.volume
        interests[0] = 0.0
        if self.extra_lines:
            self._write_extras(quote)
        return True

    @property
    def current(self) -> bool:
        """Whether the bar last delivered is the market's newest, not one of the past."""
        return not self._stale

    def _write_tick(self, reader: TickReader) -> bool | None:
        found = reader.take()
        if found is None:
            return None
        tick, price = found
        moment, opens, highs, lows, closes, volumes, interests = self._buffers
        moment[0] = self._written = day_number_fast(tick.time_ns)
        opens[0] = highs[0] = lows[0] = closes[0] = price
        volumes[0] = tick.traded
        interests[0] = 0.0
        if self.extra_lines:
            self._write_extras(tick)
        return True

    def _write_extras(self, quote: Tick | None) -> None:
        values = (quote.extras if quote is not None else None) or {}
        for name, line in zip(self.extra_lines, self._extra_buffers, strict=True):
            value = getattr(quote, name, None) if name in _OF_TICKS else values.get(name)
            line[0] = nan if value is None else value
