"""The joining alone: whatever the frames, breaks and answers, the series is that of the whole stream."""

from __future__ import annotations

from collections import deque
from math import isnan

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bt_ibkr.feeds.bars import BarBuilder, PriceSource, differs
from bt_ibkr.feeds.edges import FixedEdges
from bt_ibkr.feeds.join import Correction, Delivery, EmptyBars, FeedState, Gap, StreamJoin, Wish
from bt_ibkr.model.market import Bar, DataQuality, Tick

S = 1_000_000_000
MINUTE = 60 * S
BASE = 20_000 * 86_400 * S


def trade(at_ns: int, price: float, size: float = 1.0) -> Tick:
    return Tick(at_ns, 1, None, None, None, None, price, None, size, None, DataQuality.REALTIME, False, at_ns)


def bars_of(ticks: list[Tick], until_ns: int) -> list[Bar]:
    """The bars of the whole stream that end at or before ``until_ns``, as a server's history has them."""
    builder, bars = BarBuilder(MINUTE, PriceSource.TRADES, 0), deque[Bar]()
    builder.drain(deque(ticks), bars)
    builder.close_until(builder.open_end_ns, bars)
    return [bar for bar in bars if bar.end_ns <= until_ns]


def with_empty(bars: list[Bar], until_ns: int) -> list[Bar]:
    """The same with the close before wherever nothing happened."""
    filled: list[Bar] = []
    for bar in bars:
        while filled and filled[-1].end_ns < bar.start_ns:
            filled.append(repeat(filled[-1]))
        filled.append(bar)
    while filled and filled[-1].end_ns + MINUTE <= until_ns:
        filled.append(repeat(filled[-1]))
    return filled


def repeat(before: Bar) -> Bar:
    price = before.close
    return Bar(before.end_ns, before.end_ns + MINUTE, price, price, price, price, 0.0)


class Rig:
    """A market of ticks, a clock, a line that can be cut, and a join that must make its bars of it."""

    def __init__(
        self, ticks: list[Tick], begin_ns: int, *, empty: EmptyBars = EmptyBars.SKIP, start: bool = True
    ) -> None:
        self.ticks = ticks
        self.join = StreamJoin(
            FixedEdges(MINUTE), PriceSource.TRADES, fetch_start=start, fetch_gaps=True, empty=empty
        )
        self.now_ns = begin_ns
        #: Ticks up to this moment were sent, or are lost.
        self.sent_ns = begin_ns
        #: The line is dead from here on; nobody may have noticed.
        self.dead_ns: int | None = None
        self.noticed = False
        self.asked: Wish | None = None
        self.delivered: list[Delivery] = []
        self.join.begin(begin_ns)

    def go_on(self, by_ns: int, *, deliver: int = 99) -> None:
        """Let time pass: ticks arrive, bars are closed by the clock, some are delivered."""
        self.now_ns += by_ns
        if self.dead_ns is None:
            came = [one for one in self.ticks if self.sent_ns <= one.time_ns < self.now_ns]
            self.join.take(deque(came))
        self.sent_ns = self.now_ns
        self.join.advance(self.now_ns)
        self.join.top_up(self.now_ns)
        self.deliver(deliver)

    def deliver(self, most: int) -> None:
        while self.join.queue and most:
            most -= 1
            self.delivered.append(self.join.pop())

    def cut(self) -> None:
        """The line dies silently."""
        if self.dead_ns is None:
            self.dead_ns = self.now_ns

    def notice(self) -> None:
        if self.dead_ns is not None and not self.noticed:
            self.noticed = True
            self.join.break_off(self.dead_ns)

    def mend(self) -> None:
        if self.noticed:
            self.dead_ns, self.noticed = None, False
            self.join.resume(self.now_ns)

    def answer(self, *, failed: bool = False) -> None:
        """History answers the last wish, with what it had when it was asked."""
        wish = self.join.take_wish()
        if wish is not None:
            self.asked = wish
        if self.asked is None:
            return
        asked, self.asked = self.asked, None
        bars = [
            bar for bar in bars_of(self.ticks, self.now_ns) if asked.start_ns < bar.end_ns <= asked.end_ns
        ]
        self.join.take_history(() if failed else tuple(bars), self.now_ns, failed=failed)

    def settle(self) -> None:
        """Mend what is broken, and let everything arrive."""
        self.notice()
        self.mend()
        for _ in range(6):
            self.answer()
            self.go_on(MINUTE)
        assert self.join.state is FeedState.LIVE
        self.deliver(999)

    @property
    def series(self) -> list[Bar]:
        return [one.bar for one in self.delivered]


ticks = st.lists(
    st.tuples(st.integers(1, 90_000), st.integers(1, 60), st.integers(1, 5)), min_size=1, max_size=60
).map(
    lambda rows: [
        trade(BASE + sum(row[0] for row in rows[: n + 1]) * 1_000_000, price / 4, float(size))
        for n, (_, price, size) in enumerate(rows)
    ]
)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("go_on"), st.integers(1, 150)),
        st.tuples(st.sampled_from(["cut", "notice", "mend", "answer"]), st.just(0)),
    ),
    max_size=50,
)


def play(rig: Rig, script: list[tuple[str, int]]) -> None:
    for name, seconds in script:
        if name == "go_on":
            # Now and then the strategy is slow.
            rig.go_on(seconds * S, deliver=seconds % 3)
        else:
            getattr(rig, name)()
    rig.settle()


@settings(deadline=None, max_examples=300)
@given(ticks=ticks, script=steps, begin=st.integers(0, 600), fills=st.booleans())
def test_the_series_is_that_of_the_whole_stream(
    ticks: list[Tick], script: list[tuple[str, int]], begin: int, fills: bool
) -> None:
    rig = Rig(ticks, BASE + begin * S, empty=EmptyBars.REPEAT if fills else EmptyBars.SKIP)
    play(rig, script)
    ends = [bar.end_ns for bar in rig.series]
    assert ends == sorted(set(ends))
    assert not rig.join.gaps
    last_ns = rig.series[-1].end_ns if rig.series else 0
    wanted = bars_of(ticks, rig.now_ns)
    if fills:
        wanted = with_empty(wanted, last_ns)
    # What the clock closed while the line was dead already was told to be wrong, and how it is.
    told = {one.new.end_ns: one for one in rig.join.corrections}
    for one in told.values():
        assert differs(one.old, one.new)
    series = [told[bar.end_ns].new if bar.end_ns in told else bar for bar in rig.series]
    missing = [bar.end_ns for bar in wanted if bar.end_ns not in ends]
    # Nothing is delivered late as if new: a bar of before what was delivered is told, and only then.
    assert all(told[end_ns].old is None for end_ns in missing)
    assert series == [bar for bar in wanted if bar.end_ns in ends]
    if "cut" not in [name for name, _ in script]:
        assert not told


@settings(deadline=None, max_examples=100)
@given(ticks=ticks, script=steps, begin=st.integers(0, 600))
def test_back_filled_bars_are_marked(ticks: list[Tick], script: list[tuple[str, int]], begin: int) -> None:
    """All before the first join edge, none of a line that never broke after it."""
    rig = Rig(ticks, BASE + begin * S)
    whole = [step for step in script if step[0] in ("go_on", "answer")]
    edge_ns = rig.join.join_ns
    play(rig, whole)
    edge_ns = max(edge_ns, rig.join.join_ns)
    for delivery in rig.delivered:
        assert delivery.back_filled is (delivery.bar.end_ns <= edge_ns)


def test_history_that_takes_longer_than_a_bar_loses_none() -> None:
    rig = Rig([trade(BASE + n * 10 * S, float(n + 1)) for n in range(60)], BASE + 95 * S)
    rig.asked = rig.join.take_wish()
    for _ in range(4):
        rig.go_on(MINUTE)
    rig.answer()
    rig.settle()
    assert rig.series == bars_of(rig.ticks, rig.now_ns)


def test_death_in_silence_begins_at_the_last_sign_of_life() -> None:
    """The clock closed a bar with half its trades, and delivered it: it is told, not delivered again."""
    rig = Rig([trade(BASE + n * 10 * S, float(n + 1)) for n in range(60)], BASE, start=False)
    rig.go_on(MINUTE)
    rig.go_on(30 * S)
    rig.cut()
    rig.go_on(50 * S)
    assert [bar.end_ns for bar in rig.series] == [BASE + MINUTE, BASE + 2 * MINUTE]
    half = rig.series[-1]
    rig.settle()
    wanted = bars_of(rig.ticks, rig.now_ns)
    assert rig.join.corrections == [Correction(half, wanted[1])]
    assert [rig.series[0], *rig.series[2:]] == [wanted[0], *wanted[2:]]
    assert [one.back_filled for one in rig.delivered][:4] == [False, False, True, False]


def test_undelivered_bars_of_a_dead_stream_are_fetched() -> None:
    rig = Rig([trade(BASE + n * 10 * S, float(n + 1)) for n in range(60)], BASE, start=False)
    rig.go_on(MINUTE)
    rig.go_on(30 * S)
    rig.cut()
    rig.go_on(50 * S, deliver=0)
    rig.settle()
    assert rig.series == bars_of(rig.ticks, rig.now_ns)
    assert not rig.join.corrections


def test_break_while_topping_up_loses_nothing() -> None:
    rig = Rig([trade(BASE + n * 10 * S, float(n + 1)) for n in range(60)], BASE + 30 * S)
    rig.answer()
    rig.go_on(40 * S)
    assert rig.join.state is FeedState.TOPPING_UP
    rig.asked = rig.join.take_wish()
    rig.go_on(70 * S)
    rig.cut()
    rig.notice()
    rig.mend()
    rig.settle()
    assert rig.series == bars_of(rig.ticks, rig.now_ns)


def test_history_that_fails_leaves_a_gap_that_is_told() -> None:
    rig = Rig([trade(BASE + n * 10 * S, float(n + 1)) for n in range(60)], BASE, start=False)
    rig.go_on(150 * S)
    rig.cut()
    rig.notice()
    rig.go_on(90 * S)
    rig.mend()
    rig.go_on(MINUTE)
    rig.answer(failed=True)
    # The first frame after the break came in the moment of an edge: the bar that begins there is fetched, too.
    assert rig.join.gaps == [Gap(BASE + 2 * MINUTE, BASE + 5 * MINUTE)]
    rig.go_on(MINUTE)
    assert [bar.end_ns for bar in rig.series] == [BASE + n * MINUTE for n in (1, 2, 6)]


def test_what_happened_in_the_moment_of_an_edge_is_not_lost_in_the_first_picture() -> None:
    """Quotes begin with the quote as it stands: stamped with the edge, it may hold the first change of the bar."""
    quotes = [
        Tick(BASE + at_ns, 1, bid, None, None, None, None, None, 0.0, None, DataQuality.REALTIME, False, 0)
        for at_ns, bid in ((MINUTE, 4.0), (MINUTE + S, 3.0), (2 * MINUTE + S, 5.0), (3 * MINUTE, 6.0))
    ]
    join = StreamJoin(FixedEdges(MINUTE), PriceSource.BID, fetch_start=True, fetch_gaps=True)
    join.begin(BASE + MINUTE)
    join.take(deque(quotes[:2]))
    assert join.join_ns == BASE + 2 * MINUTE
    join.take_wish()
    join.take_history((), BASE + MINUTE)
    join.take(deque(quotes[2:]))
    join.advance(BASE + 3 * MINUTE)
    join.top_up(BASE + 3 * MINUTE)
    wish = join.take_wish()
    assert wish == Wish(BASE + MINUTE, BASE + 2 * MINUTE)
    official = Bar(BASE + MINUTE, BASE + 2 * MINUTE, 4.0, 4.0, 3.0, 3.0, 0.0)
    join.take_history((official,), BASE + 3 * MINUTE)
    assert [one.bar.open for one in join.queue] == [4.0, 5.0]


def test_series_is_complete_no_further_than_its_bars_came() -> None:
    """What is resampled from it must not be closed by the clock while bars are missing."""
    rig = Rig([trade(BASE + n * 10 * S + S, float(n + 1)) for n in range(60)], BASE, start=False)
    rig.go_on(2 * MINUTE)
    assert rig.join.complete_ns(rig.now_ns) == BASE + 2 * MINUTE
    rig.cut()
    rig.notice()
    rig.go_on(90 * S)
    assert rig.join.complete_ns(rig.now_ns) == BASE + 2 * MINUTE
    rig.mend()
    rig.go_on(45 * S)
    assert rig.join.complete_ns(rig.now_ns) == BASE + 2 * MINUTE
    rig.answer()
    assert rig.join.complete_ns(rig.now_ns) == BASE + 2 * MINUTE
    rig.deliver(99)
    assert rig.join.complete_ns(rig.now_ns) == rig.now_ns


def test_gap_is_told_where_history_is_not_wanted() -> None:
    join = StreamJoin(FixedEdges(MINUTE), PriceSource.TRADES, fetch_start=False, fetch_gaps=False)
    join.begin(BASE)
    join.take(deque([trade(BASE + S, 1.0), trade(BASE + 61 * S, 2.0)]))
    join.advance(BASE + 70 * S)
    join.break_off(BASE + 70 * S)
    join.resume(BASE + 200 * S)
    assert join.gaps == [Gap(BASE + MINUTE, BASE + 4 * MINUTE)]
    assert join.state is FeedState.LIVE


@pytest.mark.parametrize("empty", list(EmptyBars))
def test_empty_bars(empty: EmptyBars) -> None:
    join = StreamJoin(FixedEdges(MINUTE), PriceSource.TRADES, fetch_start=False, fetch_gaps=True, empty=empty)
    join.begin(BASE)
    join.take(deque([trade(BASE, 4.0, 0.0)]))
    join.advance(BASE + MINUTE)
    join.take(deque([trade(BASE + 70 * S, 5.0), trade(BASE + 250 * S, 6.0)]))
    join.advance(BASE + 250 * S)
    join.advance(BASE + 300 * S)
    join.advance(BASE + 419 * S)
    late = join.builder.late
    join.take(deque([trade(BASE + 350 * S, 7.0)]))
    ends = [(one.bar.end_ns - BASE) // MINUTE for one in join.queue]
    closes = [one.bar.close for one in join.queue]
    if empty is EmptyBars.SKIP:
        assert ends == [2, 5]
        assert closes == [5.0, 6.0]
        return
    # A trade of an empty bar that was given out is late.
    assert join.builder.late == late + 1
    if empty is EmptyBars.REPEAT:
        assert ends == [2, 3, 4, 5, 6]
        assert closes == [5.0, 5.0, 5.0, 6.0, 6.0]
    else:
        assert ends == [1, 2, 3, 4, 5, 6]
        assert [isnan(one) for one in closes] == [True, False, True, True, False, True]
    assert all(
        one.bar.volume == 0.0
        for one in join.queue
        if one.bar.end_ns not in (BASE + 2 * MINUTE, BASE + 5 * MINUTE)
    )


def test_late_ticks_are_let_through_on_request() -> None:
    def closes(late_through: bool) -> tuple[list[float], int]:
        builder = BarBuilder(MINUTE, PriceSource.TRADES, BASE, late_through=late_through)
        bars = deque[Bar]()
        stream = [trade(BASE + 10 * S, 1.0), trade(BASE + 70 * S, 2.0), trade(BASE + 50 * S, 9.0)]
        builder.drain(deque(stream), bars)
        builder.close_until(BASE + 2 * MINUTE, bars)
        return [bar.high for bar in bars], builder.late

    assert closes(False) == ([1.0, 2.0], 1)
    assert closes(True) == ([1.0, 9.0], 1)
