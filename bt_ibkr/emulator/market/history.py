"""Bars made of the events that were applied, and of nothing else: no request can look ahead.

Each instrument has four series (trades, bid, ask, middle). A series keeps its raw points and a table of
minutes; the table grows when a request comes, by what came since the last one, so that a request costs as
many steps as there are minutes in its span, not ticks.

Bars cover ``[start, end)``. Intraday bars start at whole multiples of their length since the epoch; daily
bars and longer ones start with a session. A stretch without a point has no bar. Kind ``bid_ask`` follows
IBKR: open is the average bid, close the average ask, high the highest ask, low the lowest bid; the averages
are those of the updates, not weighted by time.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby

import msgspec
import numpy as np

from bt_ibkr.clock import NS_PER_S
from bt_ibkr.emulator.market.sessions import (
    extended_of_day,
    has_regular_hours,
    session_day,
    session_of_day,
)
from bt_ibkr.emulator.types import Instrument, MarketEvent, QuoteState
from bt_ibkr.errors import UsageError
from bt_ibkr.model.market import Bar

MINUTE_NS = 60 * NS_PER_S
DAY_NS = 86_400 * NS_PER_S
WEEK_NS = 7 * DAY_NS
#: A bar of this length or a longer one is a calendar month.
MONTH_NS = 28 * DAY_NS
SOURCES = ("trades", "midpoint", "bid", "ask", "bid_ask")


class _Point(msgspec.Struct, gc=False):
    """Open, high, low, close, volume of a stretch, with its mean times the number of points in it."""

    start_ns: int
    open: float
    high: float
    low: float
    close: float
    volume: float
    total: float
    count: int


class _Series:
    """Raw points in order of time and the minutes made of them."""

    __slots__ = ("_closed", "_minutes", "_starts", "sizes", "times", "values")

    def __init__(self) -> None:
        self.times = array("q")
        self.values = array("d")
        self.sizes = array("d")
        self._minutes: list[_Point] = []
        self._starts: list[int] = []
        #: Index of the first raw point that belongs to the last minute of the table.
        self._closed = 0

    def add(self, time_ns: int, value: float, size: float) -> None:
        self.times.append(time_ns)
        self.values.append(value)
        self.sizes.append(size)

    def preload(self, bars: Iterable[Bar]) -> None:
        for bar in bars:
            self._minutes.append(
                _Point(bar.start_ns, bar.open, bar.high, bar.low, bar.close, bar.volume, bar.close, 1)
            )
            self._starts.append(bar.start_ns)

    def minutes(self, start_ns: int, end_ns: int) -> list[_Point]:
        """The minutes that start in ``[start, end)``."""
        self._grow()
        return self._minutes[bisect_left(self._starts, start_ns) : bisect_left(self._starts, end_ns)]

    def _grow(self) -> None:
        if self._closed == len(self.times):
            return
        # the last minute of the table was perhaps still forming: make it anew
        first = self.times[self._closed] // MINUTE_NS * MINUTE_NS
        if self._starts and self._starts[-1] == first:
            self._minutes.pop()
            self._starts.pop()
        fresh = self.stretches(self._closed, len(self.times), MINUTE_NS)
        self._minutes += fresh
        self._starts += [point.start_ns for point in fresh]
        self._closed = bisect_left(self.times, fresh[-1].start_ns, self._closed)

    def span(self, start_ns: int, end_ns: int) -> tuple[int, int]:
        """Indices of the raw points in ``[start, end)``."""
        return bisect_left(self.times, start_ns), bisect_left(self.times, end_ns)

    def stretches(self, begin: int, stop: int, length_ns: int) -> list[_Point]:
        """Raw points ``[begin, stop)`` by stretches of that length."""
        if begin >= stop:
            return []
        times = np.array(self.times[begin:stop], dtype=np.int64)
        values = np.array(self.values[begin:stop])
        sizes = np.array(self.sizes[begin:stop])
        keys = times // length_ns
        edges = np.flatnonzero(np.diff(keys, prepend=keys[0] - 1))
        ends = np.append(edges[1:], len(times))
        columns = (
            keys[edges] * length_ns,
            values[edges],
            np.maximum.reduceat(values, edges),
            np.minimum.reduceat(values, edges),
            values[ends - 1],
            np.add.reduceat(sizes, edges),
            np.add.reduceat(values, edges),
            ends - edges,
        )
        return [_Point(*row) for row in zip(*(column.tolist() for column in columns), strict=True)]


class BarStore:
    """The bars of one instrument.

    Args:
        instrument: Whose; its time zone and session shape daily bars.
    """

    def __init__(self, instrument: Instrument) -> None:
        self._instrument = instrument
        self._trades = _Series()
        self._bid = _Series()
        self._ask = _Series()
        self._middle = _Series()
        self._daily: list[Bar] = []
        #: What the exchange corrected later, by the minute's start.
        self._corrected: dict[int, dict[str, float]] = {}

    def apply(self, event: MarketEvent, quote: QuoteState) -> None:
        """Take in one event; ``quote`` holds it already."""
        time_ns = event.time_ns
        if event.last is not None:
            self._trades.add(time_ns, event.last, event.last_size or 0.0)
        if event.bid is not None:
            self._bid.add(time_ns, event.bid, 0.0)
        if event.ask is not None:
            self._ask.add(time_ns, event.ask, 0.0)
        elif event.bid is None:
            return
        if quote.bid is not None and quote.ask is not None:
            self._middle.add(time_ns, (quote.bid + quote.ask) / 2, 0.0)

    def preload(self, bars: Sequence[Bar]) -> None:
        """Give the store bars of the time before the tape, in ascending order.

        Bars of a day or more serve daily requests only, shorter ones must be of one minute. Bid, ask and
        middle are taken to have been those of the trades.

        Raises:
            UsageError: Bars are neither of a minute nor of a day, or come after events were applied.
        """
        if not bars:
            return
        length = bars[0].end_ns - bars[0].start_ns
        if any(len(series.times) for series in self._all()):
            raise UsageError("Bars of the past must be given before the market starts.")
        if length > 3600 * NS_PER_S:
            self._daily = list(bars)
        elif length == MINUTE_NS:
            for series in self._all():
                series.preload(bars)
        else:
            raise UsageError(f"Bars of {length / NS_PER_S:g} s: only minutes and days can be preloaded.")

    def correct(self, start_ns: int, values: Mapping[str, float]) -> None:
        """The minute of trades that starts then is told with these values; empty for its own again."""
        self._corrected.pop(start_ns, None)
        if values:
            self._corrected[start_ns] = dict(values)

    def _minutes(self, series: _Series, start_ns: int, end_ns: int) -> list[_Point]:
        points = series.minutes(start_ns, end_ns)
        if not self._corrected or series is not self._trades:
            return points
        return [
            msgspec.structs.replace(point, **self._corrected[point.start_ns])
            if point.start_ns in self._corrected
            else point
            for point in points
        ]

    def _all(self) -> tuple[_Series, ...]:
        return self._trades, self._bid, self._ask, self._middle

    def bars(
        self,
        start_ns: int,
        end_ns: int,
        bar_ns: int,
        source: str = "trades",
        *,
        regular_hours_only: bool = False,
    ) -> list[Bar]:
        """Bars that start in ``[start, end)``, the forming one included.

        Args:
            start_ns: First moment at which a bar may start.
            end_ns: First moment at which none may.
            bar_ns: Length; a multiple of a day gives days, weeks (7 days) or months (28 days or more).
            source: One of ``SOURCES``; instruments without trades answer ``trades`` with the bid.
            regular_hours_only: Leave out what lies outside the session.

        Raises:
            UsageError: No such source, or a length that is not above 0 or not whole days beyond a day.
        """
        if source not in SOURCES:
            raise UsageError(
                f"History source {source!r} is not known.", remedy=f"One of: {', '.join(SOURCES)}."
            )
        if bar_ns <= 0 or (bar_ns > DAY_NS and bar_ns % DAY_NS):
            raise UsageError(f"Bars of {bar_ns / NS_PER_S:g} s cannot be made.")
        if source == "bid_ask":
            return self._bid_ask(start_ns, end_ns, bar_ns, regular_hours_only)
        series = {"trades": self._trades, "bid": self._bid, "ask": self._ask, "midpoint": self._middle}[
            source
        ]
        if source == "trades" and self._instrument.quote_only:
            series = self._bid
        bars = [
            Bar(begin, end, p.open, p.high, p.low, p.close, p.volume)
            for begin, end, p in self._points(series, start_ns, end_ns, bar_ns, regular_hours_only)
        ]
        if bar_ns == DAY_NS and self._daily:
            first = bars[0].start_ns if bars else end_ns
            bars = [bar for bar in self._daily if start_ns <= bar.start_ns < min(first, end_ns)] + bars
        return bars

    def _bid_ask(self, start_ns: int, end_ns: int, bar_ns: int, regular: bool) -> list[Bar]:
        bids = self._points(self._bid, start_ns, end_ns, bar_ns, regular)
        asks = {begin: p for begin, _, p in self._points(self._ask, start_ns, end_ns, bar_ns, regular)}
        return [
            Bar(
                begin,
                end,
                bid.total / bid.count,
                asks[begin].high,
                bid.low,
                asks[begin].total / asks[begin].count,
                0.0,
            )
            for begin, end, bid in bids
            if begin in asks
        ]

    def _points(
        self, series: _Series, start_ns: int, end_ns: int, bar_ns: int, regular: bool
    ) -> list[tuple[int, int, _Point]]:
        if bar_ns >= DAY_NS:
            return self._days(series, start_ns, end_ns, bar_ns, regular)
        first = -(-start_ns // bar_ns) * bar_ns
        last = -(-end_ns // bar_ns) * bar_ns
        if bar_ns % MINUTE_NS:
            points = series.stretches(*series.span(first, last), bar_ns)
        else:
            points = self._minutes(series, first, last)
        if regular:
            points = _inside(self._instrument, points)
        grouped = groupby(points, key=lambda point: point.start_ns // bar_ns)
        return [(key * bar_ns, (key + 1) * bar_ns, _joined(list(group))) for key, group in grouped]

    def _days(
        self, series: _Series, start_ns: int, end_ns: int, bar_ns: int, regular: bool
    ) -> list[tuple[int, int, _Point]]:
        instrument = self._instrument
        # the bar of a day starts at its session's open, but its points may be earlier
        points = self._minutes(series, start_ns - 2 * bar_ns - 4 * DAY_NS, end_ns + bar_ns + 4 * DAY_NS)
        if regular:
            points = _inside(instrument, points)
        found = []
        for _, group in groupby(points, key=lambda point: _day_key(instrument, point.start_ns, bar_ns)):
            part = list(group)
            begin, closed = session_of_day(instrument, session_day(instrument, part[0].start_ns))
            last_day = session_day(instrument, part[-1].start_ns)
            end = session_of_day(instrument, last_day)[1]
            if not regular:
                end = max(end, extended_of_day(instrument, last_day)[1])
            if start_ns <= begin < end_ns:
                found.append((begin, max(end, closed), _joined(part)))
        return found


def _day_key(instrument: Instrument, time_ns: int, bar_ns: int) -> tuple[int, int]:
    day = session_day(instrument, time_ns)
    if bar_ns >= MONTH_NS:
        return day.year, day.month
    if bar_ns == WEEK_NS:
        return day.isocalendar()[:2]
    return day.toordinal() // (bar_ns // DAY_NS), 0


def _inside(instrument: Instrument, points: list[_Point]) -> list[_Point]:
    """The points in regular hours; the session is looked up once a day, not once a point."""
    kept = []
    for day, group in groupby(points, key=lambda point: session_day(instrument, point.start_ns)):
        if has_regular_hours(instrument, day):
            opened, closed = session_of_day(instrument, day)
            kept += [point for point in group if opened <= point.start_ns < closed]
    return kept


def _joined(points: list[_Point]) -> _Point:
    if len(points) == 1:
        return points[0]
    return _Point(
        points[0].start_ns,
        points[0].open,
        max(point.high for point in points),
        min(point.low for point in points),
        points[-1].close,
        sum(point.volume for point in points),
        sum(point.total for point in points),
        sum(point.count for point in points),
    )
