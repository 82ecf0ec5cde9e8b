"""Bars from ticks: pure, no clock, no backtrader."""

from __future__ import annotations

from collections import deque
from enum import Enum
from math import isclose, isnan

from bt_ibkr.feeds.edges import Edges, FixedEdges
from bt_ibkr.model.market import Bar, Tick

#: Volumes are told in lots and rounded.
_VOLUME_TOLERANCE = 0.51


class PriceSource(Enum):
    """Which price of the quote a bar is made of."""

    TRADES = "TRADES"
    BID = "BID"
    ASK = "ASK"
    MIDPOINT = "MIDPOINT"
    #: The last prices of a combo's legs: trades that are none of the combo's own.
    LAST = "LAST"

    @property
    def history(self) -> str:
        """IBKR's word for it in requests for history."""
        return "trades" if self is PriceSource.LAST else self.value.lower()


def tick_price(tick: Tick, source: PriceSource) -> float | None:
    """The price that ``source`` reads from a tick; ``None`` if the tick has none."""
    if source is PriceSource.TRADES:
        return tick.last if tick.traded else None
    if source is PriceSource.LAST:
        return tick.last
    if source is PriceSource.BID:
        return tick.bid
    if source is PriceSource.ASK:
        return tick.ask
    if tick.bid is None or tick.ask is None:
        return None
    return (tick.bid + tick.ask) / 2


class BarBuilder:
    """Builds the bars of one instrument.

    A bar in which nothing happened does not exist here. A tick that belongs to a bar already closed is counted in
    ``late`` and left out: what was delivered is never changed.

    Args:
        bar_ns: Length of a bar, ``[n * bar_ns, (n + 1) * bar_ns)``; with ``edges`` not looked at.
        source: Price the bars are made of.
        start_ns: Ticks before this edge are left out (an earlier bar comes from history).
        edges: Where bars begin and end; ticks outside of all bars are left out.
        late_through: Take a late tick into the bar being built, if there is one.
    """

    __slots__ = (
        "_begin_ns",
        "_close",
        "_end_ns",
        "_high",
        "_low",
        "_open",
        "_price",
        "_through",
        "_until_ns",
        "_volume",
        "_window",
        "late",
        "source",
        "start_ns",
    )

    def __init__(
        self,
        bar_ns: int,
        source: PriceSource,
        start_ns: int,
        *,
        edges: Edges | None = None,
        late_through: bool = False,
    ) -> None:
        self._window = (edges or FixedEdges(bar_ns)).window
        self._through = late_through
        self.source = source
        self.start_ns = start_ns
        self.late = 0
        #: The bar being built, and up to when all that happens is in it.
        self._begin_ns = self._end_ns = self._until_ns = 0
        self._open = self._high = self._low = self._close = self._volume = 0.0
        #: The last price taken, to leave out quote ticks that did not change this source's price.
        self._price: float | None = None

    @property
    def open_end_ns(self) -> int:
        """Right edge of the bar being built; 0 if there is none."""
        return self._end_ns

    def drain(self, ticks: deque[Tick], bars: deque[Bar]) -> None:
        """Take in all ``ticks`` (emptying the deque) and append every bar they complete to ``bars``."""
        pop = ticks.popleft
        source = self.source
        trades = source is PriceSource.TRADES
        # Written for speed: this runs for every tick, and a name of one's own costs a third of an attribute.
        begin_ns, until_ns = self._begin_ns, self._until_ns
        high, low, close, total = self._high, self._low, self._close, self._volume
        while ticks:
            tick = pop()
            if trades:
                volume = tick.traded
                if not volume:
                    continue
                price = tick.last
                if price is None:
                    continue
            else:
                volume = 0.0
                price = tick_price(tick, source)
                if price is None or price == self._price:
                    continue
                self._price = price
            time_ns = tick.time_ns
            if time_ns < until_ns:
                if time_ns < begin_ns:
                    self.late += 1
                    if not self._through:
                        continue
                if price > high:
                    high = price
                elif price < low:
                    low = price
                close = price
                total += volume
                continue
            if time_ns < self.start_ns:
                self.late += 1
                continue
            window = self._window(time_ns)
            if window is None:
                # Outside of the sessions that bars are made of.
                continue
            begin_ns, end_ns, until_ns = window
            if end_ns == self._end_ns:
                # The same bar in its next session.
                high, low, close = max(high, price), min(low, price), price
                total += volume
            else:
                if self._end_ns:
                    self._high, self._low, self._close, self._volume = high, low, close, total
                    self._finish(bars)
                self._open = high = low = close = price
                total = volume
            self._begin_ns, self._end_ns, self._until_ns = window
        self._high, self._low, self._close, self._volume = high, low, close, total

    def close_until(self, market_ns: int, bars: deque[Bar]) -> None:
        """Close the bar being built if the market has passed its right edge."""
        if self._end_ns and self._end_ns <= market_ns:
            self._finish(bars)

    def _finish(self, bars: deque[Bar]) -> None:
        bars.append(
            Bar(self._begin_ns, self._end_ns, self._open, self._high, self._low, self._close, self._volume)
        )
        self.start_ns = self._end_ns
        self._begin_ns = self._end_ns = self._until_ns = 0

    def prime(self, tick: Tick) -> None:
        """Take a quote that stood before: its price is known, but is no event of any bar."""
        self._price = tick_price(tick, self.source)

    def drop_open(self) -> None:
        """Forget the bar being built (the stream broke inside it; history will have it whole)."""
        self._begin_ns = self._end_ns = self._until_ns = 0
        self._price = None


def differs(old: Bar | None, new: Bar) -> bool:
    """Whether two bars of the same time are not the same, but for rounding."""
    if old is None:
        return True
    pairs = ((old.open, new.open), (old.high, new.high), (old.low, new.low), (old.close, new.close))
    if any(isnan(a) or not isclose(a, b, rel_tol=1e-9, abs_tol=1e-9) for a, b in pairs):
        return True
    return not isclose(old.volume, new.volume, rel_tol=1e-6, abs_tol=_VOLUME_TOLERANCE)
