"""Bars from ticks: pure, no clock, no backtrader."""

from __future__ import annotations

from collections import deque
from enum import Enum

from bt_ibkr.model.market import Bar, Tick


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
    """Builds the bars ``[n * bar_ns, (n + 1) * bar_ns)`` of one instrument.

    A bar in which nothing happened does not exist. A tick that belongs to a bar already closed is counted in
    ``late`` and left out: what was delivered is never changed.

    Args:
        bar_ns: Length of a bar.
        source: Price the bars are made of.
        start_ns: Ticks before this edge are left out (an earlier bar comes from history).
    """

    __slots__ = (
        "_close",
        "_end_ns",
        "_high",
        "_low",
        "_open",
        "_price",
        "_volume",
        "bar_ns",
        "late",
        "source",
        "start_ns",
    )

    def __init__(self, bar_ns: int, source: PriceSource, start_ns: int) -> None:
        self.bar_ns = bar_ns
        self.source = source
        self.start_ns = start_ns
        self.late = 0
        self._end_ns = 0
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
        trades = self.source is PriceSource.TRADES
        source = self.source
        end_ns = self._end_ns
        while ticks:
            tick = pop()
            if trades:
                volume = tick.traded
                price = tick.last
                if not volume or price is None:
                    continue
            else:
                volume = 0.0
                price = tick_price(tick, source)
                if price is None or price == self._price:
                    continue
                self._price = price
            time_ns = tick.time_ns
            if time_ns < end_ns:
                if time_ns >= end_ns - self.bar_ns:
                    if price > self._high:
                        self._high = price
                    elif price < self._low:
                        self._low = price
                    self._close = price
                    self._volume += volume
                else:
                    self.late += 1
                continue
            if time_ns < self.start_ns:
                self.late += 1
                continue
            if end_ns:
                self._finish(bars)
            end_ns = self._end_ns = time_ns - time_ns % self.bar_ns + self.bar_ns
            self._open = self._high = self._low = self._close = price
            self._volume = volume

    def close_until(self, market_ns: int, bars: deque[Bar]) -> None:
        """Close the bar being built if the market has passed its right edge."""
        if self._end_ns and self._end_ns <= market_ns:
            self._finish(bars)

    def _finish(self, bars: deque[Bar]) -> None:
        bars.append(
            Bar(
                self._end_ns - self.bar_ns,
                self._end_ns,
                self._open,
                self._high,
                self._low,
                self._close,
                self._volume,
            )
        )
        self.start_ns = self._end_ns
        self._end_ns = 0

    def prime(self, tick: Tick) -> None:
        """Take a quote that stood before: its price is known, but is no event of any bar."""
        self._price = tick_price(tick, self.source)

    def drop_open(self) -> None:
        """Forget the bar being built (the stream broke inside it; history will have it whole)."""
        self._end_ns = 0
        self._price = None
