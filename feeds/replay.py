"""A recording as a feed: the bars or ticks that a live feed delivered, for a run without a connection."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import backtrader as bt

from bt_ibkr.errors import MarketFileError
from bt_ibkr.feeds.bars import PriceSource, tick_price
from bt_ibkr.feeds.join import EmptyBars, Gap, StreamJoin
from bt_ibkr.feeds.little_memory import keep_little
from bt_ibkr.feeds.parameters import bar_length_ns, check_flags, edges_of, empty_bars, price_source
from bt_ibkr.feeds.times import day_number, day_number_fast
from bt_ibkr.model.contract import Contract
from bt_ibkr.model.market import Bar, Tick
from bt_ibkr.recorder import RecordedInstrument, RecordedTick, Recording, RowKind
from bt_ibkr.store import refuse_unknown

_log = logging.getLogger(__name__)

#: So many ticks are given to the bars at once.
_AT_ONCE = 4096


class IBKRReplay(bt.DataBase):  # type: ignore[misc]
    """A feed of one instrument of a recording.

    Parameters:

    - ``dataname``: the recording's folder, the folder of one instrument, or one file; ``PATH:NAME`` names the
      instrument of a recording of several, by symbol, conid, dataname or folder.
    - ``timeframe``, ``compression``, ``what``, ``useRTH``, ``empty_bars``: as those of ``IBKRData``. Sessions are
      those of the exchange's calendar.
    - ``unfinished``: deliver a bar though the recording was ended inside it.

    The bars are those that a live feed would have built of the same ticks, from the first whole one on, without
    history; a bar in which the stream broke is left out. Any of backtrader's brokers may trade on it.

    Attributes:
        contract: Of the instrument.
        gaps: What was missed where the stream broke, as far as the feed has come.

    Raises:
        MarketFileError: There is no such recording, or it does not say which instrument is meant.
        UsageError: Such bars are not built.
    """

    params: Any = (("what", None), ("useRTH", False), ("empty_bars", "skip"), ("unfinished", False))

    def __init__(self, **unknown: Any) -> None:  # backtrader's metaclass takes the parameters
        refuse_unknown("IBKRReplay", unknown)
        super().__init__()
        self._instrument = _instrument(self.p.dataname)
        self.contract: Contract = self._instrument.contract
        self.tradecontract: Contract = self.contract
        name = self.contract.describe()
        self._bar_ns = bar_length_ns(name, self.p.timeframe, self.p.compression, historical=False)
        check_flags(self, "useRTH", "unfinished")
        self._source = price_source(self.p.what, self.contract)
        self._empty = empty_bars(self.p.empty_bars)
        self._bars: Iterator[Bar] = iter(())
        self.gaps: list[Gap] = []

    def start(self) -> None:
        super().start()
        self.gaps = []
        rows = self._instrument.rows()
        if self._bar_ns:
            edges = edges_of(
                self.contract,
                self.p.timeframe,
                self._bar_ns,
                by_clock=not (self.p.useRTH or self._empty is not EmptyBars.SKIP),
                extended=not self.p.useRTH,
                connection=None,
            )
            join = StreamJoin(edges, self._source, fetch_start=False, fetch_gaps=False, empty=self._empty)
            builder = _Builder(rows, join, self.gaps, unfinished=self.p.unfinished)
            self._bars = builder.bars()
        else:
            self._bars = _single_ticks(rows, self._source)

    def qbuffer(self, savemem: int = 0, replaying: bool = False) -> None:
        """Called where ``exactbars`` is 1."""
        keep_little(self, savemem, replaying)

    def _load(self) -> bool:
        bar = next(self._bars, None)
        if bar is None:
            return False
        lines = self.lines
        # As the live feed does it: ticks are many, and their times need less than a bar's.
        lines.datetime[0] = day_number(bar.end_ns) if self._bar_ns else day_number_fast(bar.end_ns)
        lines.open[0] = bar.open
        lines.high[0] = bar.high
        lines.low[0] = bar.low
        lines.close[0] = bar.close
        lines.volume[0] = bar.volume
        lines.openinterest[0] = 0.0
        return True


def _instrument(dataname: object) -> RecordedInstrument:
    text = str(dataname)
    head, colon, tail = text.rpartition(":")
    # A colon of the path itself (a Windows drive) leaves a separator behind it.
    if colon and head and not Path(text).exists() and not set(tail) & {"/", "\\"}:
        return Recording(head).find(tail)
    if not text or dataname is None:
        raise MarketFileError("IBKRReplay needs the path of a recording.", remedy="Give it as dataname.")
    return Recording(text).find()


class _Builder:
    """Bars of rows, by the rules of the live feed."""

    def __init__(
        self,
        rows: Iterator[RecordedTick],
        join: StreamJoin,
        gaps: list[Gap],
        *,
        unfinished: bool,
    ) -> None:
        self._rows = rows
        self._join = join
        self._gaps = gaps
        self._unfinished = unfinished
        self._ticks: deque[Tick] = deque()
        self._begun = False
        self._broken = False
        self._last_ns = 0

    def bars(self) -> Iterator[Bar]:
        for row in self._rows:
            if row.kind is RowKind.TICK and self._begun and not self._broken:
                self._ticks.append(row.tick)
                self._last_ns = row.tick.time_ns
                if len(self._ticks) >= _AT_ONCE:
                    yield from self._take(self._last_ns)
                continue
            yield from self._turn(row)
        if not self._broken:
            yield from self._take(self._last_ns, over=self._unfinished)

    def _turn(self, row: RecordedTick) -> Iterator[Bar]:
        """A row at which the stream begins, breaks or ends."""
        time_ns = row.tick.time_ns
        if row.kind in (RowKind.TICK, RowKind.PICTURE):
            if not self._begun:
                self._begun = True
                self._join.begin(time_ns)
            else:
                if not self._broken:
                    # A recorder that was killed has not said so.
                    yield from self._break(self._last_ns)
                self._broken = False
                self._join.resume(time_ns)
                self._tell_gaps()
            self._ticks.append(row.tick)
            self._last_ns = time_ns
        elif self._begun and not self._broken:
            if row.kind in (RowKind.END, RowKind.OVER):
                yield from self._take(time_ns, over=self._unfinished or row.kind is RowKind.OVER)
            else:
                _log.info("replay-gap time_ns=%d what=%s", time_ns, row.note)
            if row.kind is not RowKind.OVER:
                yield from self._break(time_ns)

    def _take(self, market_ns: int, *, over: bool = False) -> Iterator[Bar]:
        if not self._begun:
            return
        self._join.take(self._ticks)
        self._join.advance(market_ns, over=over)
        while self._join.queue:
            yield self._join.pop().bar

    def _break(self, whole_ns: int) -> Iterator[Bar]:
        self._join.take(self._ticks)
        self._join.advance(whole_ns)
        # Takes back what came after the stream was dead already.
        self._join.break_off(whole_ns)
        self._broken = True
        while self._join.queue:
            yield self._join.pop().bar

    def _tell_gaps(self) -> None:
        self._gaps.extend(self._join.gaps)
        self._join.gaps.clear()


def _single_ticks(rows: Iterator[RecordedTick], source: PriceSource) -> Iterator[Bar]:
    """A bar of each trade, or of each change of the price."""
    before: float | None = None
    trades = source is PriceSource.TRADES
    for row in rows:
        tick = row.tick
        if row.kind not in (RowKind.TICK, RowKind.PICTURE):
            continue
        price = tick_price(tick, source)
        if price is None or (price == before and not trades):
            continue
        before = price
        yield Bar(tick.time_ns, tick.time_ns, price, price, price, price, tick.traded)
