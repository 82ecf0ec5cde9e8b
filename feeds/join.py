"""How history and the stream become one series: pure, no clock, no backtrader, no connection.

The subscription begins first. The *join edge* is the first bar edge after the stream's first frame. Every bar that
ends at or before it comes from history, every later one from ticks. A bar that is half old and half new is therefore
never put together from two sources: it is fetched whole once it has ended. After a broken stream the same is done
again, from the last moment up to which the stream is known to have been whole.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from enum import Enum, StrEnum
from math import nan
from typing import NamedTuple

import msgspec

from bt_ibkr.clock import NS_PER_S
from bt_ibkr.feeds.bars import BarBuilder, PriceSource, differs
from bt_ibkr.feeds.edges import Edges
from bt_ibkr.model.market import Bar, Tick

#: So many bars that were made here are remembered, to be compared with the official ones.
_REMEMBERED = 512
_LOOK_AGAIN_NS = 3600 * NS_PER_S


class FeedState(Enum):
    """What a feed is doing."""

    NEW = "new"
    BACKFILLING = "backfilling"
    JOINING = "joining"
    TOPPING_UP = "topping up"
    LIVE = "live"
    HISTORICAL = "historical"
    OVER = "over"


#: An enum's member costs a look-up each time it is named.
_BACKFILLING, _JOINING, _TOPPING_UP, _LIVE = (
    FeedState.BACKFILLING,
    FeedState.JOINING,
    FeedState.TOPPING_UP,
    FeedState.LIVE,
)


class EmptyBars(StrEnum):
    """What becomes of a bar in which nothing happened, inside a session.

    Nothing; the close before once more, with volume 0; or a bar whose prices are NaN, with volume 0.
    """

    SKIP = "skip"
    REPEAT = "repeat"
    NAN = "nan"


class Wish(msgspec.Struct, frozen=True):
    """Bars wanted of history: those that end after ``start_ns`` and at or before ``end_ns``; ``most`` the newest."""

    start_ns: int
    end_ns: int
    most: int = 0


class Delivery(NamedTuple):
    """A bar on its way to the strategy.

    Attributes:
        back_filled: It comes from history, not from the stream.
        quote: As it stood at the bar's end, where quotes are kept.
    """

    bar: Bar
    back_filled: bool
    quote: Tick | None = None


class Gap(msgspec.Struct, frozen=True):
    """Bars that end in ``(start_ns, end_ns]`` are missing and will not come."""

    start_ns: int
    end_ns: int


class Correction(msgspec.Struct, frozen=True):
    """A bar that was delivered, and what history says of it; ``old`` is ``None`` where none was delivered."""

    old: Bar | None
    new: Bar


class StreamJoin:
    """Puts the bars of history and of the stream into one series.

    Its user gives it what arrives, and the market's time after each round; it gives back deliveries in ``queue`` and
    wishes for history (``take_wish``), one at a time, each to be answered by ``take_history``.

    Args:
        edges: Where bars begin and end.
        source: Price the bars are made of.
        fetch_start: History before the live bars is wanted.
        fetch_gaps: History of what was missed is wanted. Otherwise gaps are told.
        grace_ns: Market time after an edge at which history can be expected to hold what ended there.
        empty: See ``EmptyBars``.
        late_through: See ``BarBuilder``.
        keep_quotes: Deliver live bars with the quote at their end.

    Attributes:
        state: ``BACKFILLING``, ``JOINING``, ``TOPPING_UP`` or ``LIVE``.
        queue: What is to be delivered next, in order.
        settled: History has come, or is not wanted: whoever follows may be told that the feed is live. Reset by the
            reader.
        gaps, corrections: To be told; emptied by the reader.
    """

    def __init__(
        self,
        edges: Edges,
        source: PriceSource,
        *,
        fetch_start: bool,
        fetch_gaps: bool,
        grace_ns: int = 0,
        empty: EmptyBars = EmptyBars.SKIP,
        late_through: bool = False,
        keep_quotes: bool = False,
    ) -> None:
        self._edges = edges
        self._keep_quotes = keep_quotes
        self._quote: Tick | None = None
        #: By the right edge at which they stood.
        self._quotes_at: dict[int, Tick] = {}
        self._empty = empty
        self._fills = empty is not EmptyBars.SKIP
        #: Of the last bar in the queue or delivered: its right edge and its last close.
        self._last_ns = 0
        self._last_close: float | None = None
        #: When the next bar is empty if nothing happens.
        self._fill_ns = 0
        self._fetch_start = fetch_start
        self._fetch_gaps = fetch_gaps
        #: Of the present stretch of the stream.
        self._fetch = fetch_start
        self._grace_ns = grace_ns
        self._primes = source is not PriceSource.TRADES
        self.builder = BarBuilder(0, source, 0, edges=edges, late_through=late_through)
        self.state = FeedState.NEW
        self.queue: deque[Delivery] = deque()
        self._built: deque[Bar] = deque()
        self.settled = False
        self.gaps: list[Gap] = []
        self.corrections: list[Correction] = []
        self._wish: Wish | None = None
        #: Asked, not answered yet.
        self._asked: Wish | None = None
        #: Every bar that ends at or before it is in ``queue`` or was delivered, or is told missing.
        self._covered_ns = 0
        self._join_ns = 0
        self._aligned = False
        self._broken = False
        #: The right edge of the last bar taken out of the queue.
        self._delivered_ns = 0
        self._delivered_close: float | None = None
        self._made: deque[Bar] = deque(maxlen=_REMEMBERED)

    # -- life ----------------------------------------------------------------------------------------

    def begin(self, now_ns: int, start_ns: int = 0, most: int = 0) -> None:
        """The stream has been subscribed to; history is wanted from ``start_ns``, or ``most`` bars of it."""
        self._join_ns = self.builder.start_ns = self._edges.join(now_ns)
        if self._fetch_start:
            self.state = _BACKFILLING
            # What was delivered before, from another source, is not wanted again.
            self._covered_ns = max(start_ns, self._delivered_ns)
            self._wish = Wish(self._covered_ns, now_ns, most)
        else:
            self._go_live()
            self._covered_ns = self._join_ns

    def take(self, ticks: deque[Tick]) -> None:
        """Take in all ``ticks``, emptying the deque."""
        if not ticks:
            return
        if self._broken:
            # Late, or of a stream that is not back yet: all of its time comes from history.
            ticks.clear()
            return
        primed = False
        if not self._aligned:
            self._align(ticks[0].time_ns)
            if primed := self._primes:
                # A subscription begins with the quote as it stands: nothing happened at that moment.
                self.builder.prime(ticks[0])
        if self._keep_quotes:
            ticks = self._look_at_all(ticks)
        if primed:
            ticks.popleft()
        self.builder.drain(ticks, self._built)

    def _look_at_all(self, ticks: deque[Tick]) -> deque[Tick]:
        seen: deque[Tick] = deque()
        # Others may append to it meanwhile: it cannot be iterated over.
        while ticks:
            tick = ticks.popleft()
            self._look_at(tick)
            seen.append(tick)
        return seen

    def _look_at(self, tick: Tick) -> None:
        """Keep the quote before this one for each edge that lies between them."""
        quote, self._quote = self._quote, tick
        if quote is None:
            return
        window = self._edges.following(quote.time_ns)
        while window is not None and window[1] <= tick.time_ns:
            self._quotes_at[window[1]] = quote
            window = self._edges.following(window[1])

    def _quote_at(self, end_ns: int) -> Tick | None:
        found = self._quotes_at.pop(end_ns, None)
        if found is None and self._quote is not None and self._quote.time_ns < end_ns:
            found = self._quote
        if len(self._quotes_at) > _REMEMBERED:
            for edge_ns in [one for one in self._quotes_at if one < end_ns]:
                del self._quotes_at[edge_ns]
        return found

    def advance(self, market_ns: int, *, over: bool = False) -> None:
        """The market has come so far, and ``take`` has seen every tick up to there.

        Args:
            market_ns: Right edges at or before it have passed.
            over: Nothing more will come: close what is open.
        """
        if self._broken:
            return
        builder, built = self.builder, self._built
        end_ns = builder.open_end_ns
        if end_ns and (over or end_ns <= market_ns):
            builder.close_until(end_ns, built)
        if self.state is _LIVE:
            while built:
                self._add(built.popleft())
            if self._fills and market_ns >= self._fill_ns:
                self._fill(market_ns, back_filled=False)

    def top_up(self, now_ns: int, *, over: bool = False) -> None:
        """Ask for what is missing up to the join edge, once history can be expected to hold it.

        Args:
            now_ns: The market's time by the clock.
            over: As in ``advance``.
        """
        if self.state is _JOINING and not self._broken and (over or now_ns - self._grace_ns >= self._join_ns):
            self.state = _TOPPING_UP
            self._wish = Wish(self._covered_ns, self._join_ns)

    def take_wish(self) -> Wish | None:
        """What to ask of history now, once."""
        wish, self._wish = self._wish, None
        if wish is not None:
            self._asked = wish
        return wish

    @property
    def waits(self) -> bool:
        """More history is needed before the series is whole."""
        return self.state in (_BACKFILLING, _JOINING, _TOPPING_UP)

    def complete_ns(self, market_ns: int) -> int:
        """Up to when, at most to ``market_ns``, every bar was taken out of the queue or will not come."""
        if self.queue:
            return min(market_ns, self.queue[0].bar.start_ns)
        if self._broken or self.waits:
            return min(market_ns, max(self._covered_ns, self._delivered_ns))
        return market_ns

    @property
    def made(self) -> Sequence[Bar]:
        """The bars from the stream that were delivered last, oldest first."""
        return self._made

    @property
    def join_ns(self) -> int:
        """Bars that end at or before it come from history."""
        return self._join_ns

    def corrected(self, bar: Bar) -> None:
        """The delivered bar of that time is this one after all."""
        for index, one in enumerate(self._made):
            if one.end_ns == bar.end_ns:
                self._made[index] = bar

    @property
    def pending(self) -> bool:
        """There are bars in it that were not delivered."""
        return bool(self.queue or self._built)

    def pop(self) -> Delivery:
        """Take the next delivery out of the queue."""
        delivery = self.queue.popleft()
        self._delivered_ns, self._delivered_close = delivery.bar.end_ns, delivery.bar.close
        if not delivery.back_filled:
            self._made.append(delivery.bar)
        return delivery

    # -- history -------------------------------------------------------------------------------------

    def take_history(self, bars: tuple[Bar, ...], now_ns: int, *, failed: bool = False) -> None:
        """The answer to the wish that was taken last.

        Args:
            bars: Oldest first, as history has them.
            now_ns: The market's time: what ended less than the grace before it may be not whole.
            failed: There was no answer; ``bars`` is empty.
        """
        asked, self._asked = self._asked, None
        if asked is None:
            return
        if failed and self._broken:
            # For the same reason, probably; asked again when the stream is back.
            self._wish = asked
            return
        top_up = self.state is _TOPPING_UP and asked.end_ns == self._join_ns
        # The bar that was running when the question was asked is not whole in the answer, however late it comes.
        until_ns = asked.end_ns if top_up else min(asked.end_ns, now_ns - self._grace_ns)
        for bar in bars:
            if bar.end_ns > until_ns or bar.end_ns <= self._covered_ns:
                continue
            if bar.end_ns <= self._delivered_ns:
                self._compare(bar)
            else:
                self._append(bar, back_filled=True)
        if failed and self._covered_ns:
            self.gaps.append(Gap(self._covered_ns, until_ns))
        self._covered_ns = max(self._covered_ns, until_ns)
        if self._broken:
            return
        if top_up or self._covered_ns >= self._join_ns:
            self._go_live()
        else:
            self.state = _JOINING
            self.settled = True

    def _compare(self, bar: Bar) -> None:
        """A bar of history whose time has been delivered: it was made while the stream was dead already."""
        old = next((one for one in reversed(self._made) if one.end_ns == bar.end_ns), None)
        if differs(old, bar):
            self.corrections.append(Correction(old, bar))

    def _go_live(self) -> None:
        self.state = _LIVE
        self.settled = True
        while self._built:
            self._add(self._built.popleft())

    def _add(self, bar: Bar) -> None:
        self._append(bar, back_filled=False)
        self._covered_ns = bar.end_ns

    def _append(self, bar: Bar, *, back_filled: bool) -> None:
        if self._fills:
            self._fill(bar.start_ns, back_filled=back_filled)
        self._put(bar, back_filled=back_filled)
        self._last_ns, self._last_close = bar.end_ns, bar.close

    def _put(self, bar: Bar, *, back_filled: bool) -> None:
        quote = self._quote_at(bar.end_ns) if self._keep_quotes and not back_filled else None
        self.queue.append(Delivery(bar, back_filled, quote))

    def _fill(self, until_ns: int, *, back_filled: bool) -> None:
        """Put in the empty bars that end at or before ``until_ns``, after the last bar there is."""
        if not self._last_ns:
            if self.state is not _LIVE:
                # History begins with its first bar.
                return
            self._last_ns = self._join_ns
        while True:
            window = self._edges.following(self._last_ns)
            if window is None:
                # Nothing is known of what comes: look again after a while.
                self._fill_ns = until_ns + _LOOK_AGAIN_NS
                return
            start_ns, self._fill_ns = window
            if self._fill_ns > until_ns:
                return
            price = self._last_close if self._empty is EmptyBars.REPEAT else nan
            self._last_ns = self._fill_ns
            # No price is known yet that could be repeated.
            if price is not None:
                bar = Bar(start_ns, self._fill_ns, price, price, price, price, 0.0)
                self._put(bar, back_filled=back_filled)
            self.builder.start_ns = max(self.builder.start_ns, self._fill_ns)

    # -- breaks --------------------------------------------------------------------------------------

    def break_off(self, whole_ns: int) -> None:
        """The stream broke; what came through it up to ``whole_ns`` is all there was."""
        self._broken = True
        builder, built, queue = self.builder, self._built, self.queue
        builder.drop_open()
        if self.state is _LIVE:
            while built and built[0].end_ns <= whole_ns:
                self._add(built.popleft())
            # Bars that the clock closed while the stream was dead already are not whole.
            while queue and not queue[-1].back_filled and queue[-1].bar.end_ns > whole_ns:
                queue.pop()
            made = [one.end_ns for one in (*self._made, *(d.bar for d in queue)) if one.end_ns <= whole_ns]
            # What lies before the join edge was whole whatever came through the stream.
            self._covered_ns = max((self._join_ns, *made[-1:]))
            self._last_ns, self._last_close = self._delivered_ns, self._delivered_close
            if queue:
                self._last_ns, self._last_close = queue[-1].bar.end_ns, queue[-1].bar.close
            self._fill_ns = 0
        # Before that, history covers them anyway.
        built.clear()

    def resume(self, now_ns: int) -> None:
        """The stream is back: what was missed is fetched once the bar that is running has ended."""
        self._broken = False
        self._aligned = False
        self._join_ns = self.builder.start_ns = self._edges.join(now_ns)
        self._fetch = self._fetch_gaps
        if self.state is _BACKFILLING and (self._asked is not None or self._wish is not None):
            return
        self._wish = None
        if self._fetch:
            self.state = _JOINING
        else:
            self.gaps.append(Gap(self._covered_ns, self._join_ns))
            self._go_live()
        self.settled = True

    def _align(self, first_ns: int) -> None:
        """The stream's first frame shows the server's time: a bar that began before it is not whole."""
        self._aligned = True
        # What happened in the very moment of an edge is part of that first picture, and told by no later frame.
        edge_ns = self._edges.join(first_ns + self._fetch)
        if edge_ns > self._join_ns:
            self._join_ns = self.builder.start_ns = edge_ns
            if self.state is _LIVE and self._covered_ns and self._fetch:
                self.state = _JOINING
