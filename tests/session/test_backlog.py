"""Ticks for a slow reader: bars come out the same, memory is bounded, and each episode is told once."""

from __future__ import annotations

import threading
from collections import deque
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bt_ibkr.config import SessionSettings
from bt_ibkr.connection.backlog import TickBacklog
from bt_ibkr.connection.interface import TicksConflated
from bt_ibkr.errors import UsageError
from bt_ibkr.feeds.bars import BarBuilder, PriceSource, tick_price
from bt_ibkr.model.market import Bar, DataQuality, Tick

BAR_NS = 1000


def tick(
    time_ns: int,
    last: float | None = 100.0,
    traded: float = 0.0,
    bid: float | None = 99.0,
    ask: float | None = 101.0,
) -> Tick:
    return Tick(time_ns, 1, bid, ask, 1.0, 1.0, last, 1.0, traded, None, DataQuality.REALTIME, False, 0)


def backlog(limit: int, source: PriceSource = PriceSource.TRADES) -> tuple[TickBacklog, list[TicksConflated]]:
    told: list[TicksConflated] = []
    made = TickBacklog(
        limit,
        span_ns=BAR_NS,
        price=partial(tick_price, source=source),
        changes=source is not PriceSource.TRADES,
        told=told.append,
    )
    return made, told


def build(builder: BarBuilder, ticks: deque[Tick], bars: deque[Bar]) -> None:
    """As a feed takes its ticks in."""
    builder.drain(ticks, bars)
    while isinstance(ticks, TickBacklog) and ticks.behind and ticks.refill():
        builder.drain(ticks, bars)


prices = st.one_of(st.none(), st.integers(95, 105).map(float))
rows = st.lists(
    st.tuples(st.integers(0, 400), prices, st.sampled_from((0.0, 0.0, 1.0, 7.0)), prices, prices, st.booleans()),
    max_size=120,
)  # fmt: skip


@pytest.mark.parametrize("source", list(PriceSource))
@given(given_rows=rows)
def test_bars_are_the_same(
    source: PriceSource, given_rows: list[tuple[int, float | None, float, float | None, float | None, bool]]
) -> None:
    """Whenever the reader looks, and whatever was conflated meanwhile: open, high, low, close and volume."""
    held, _ = backlog(3, source)
    # Nothing has to be dropped.
    held._most = 1_000_000
    whole: deque[Tick] = deque()
    builders = BarBuilder(BAR_NS, source, 0), BarBuilder(BAR_NS, source, 0)
    bars: tuple[deque[Bar], deque[Bar]] = (deque(), deque())
    time_ns = 0
    for step, last, traded, bid, ask, looks in given_rows:
        time_ns += step
        one = tick(time_ns, last, traded, bid, ask)
        whole.append(one)
        held.append(one)
        if looks:
            build(builders[1], held, bars[1])
    build(builders[0], whole, bars[0])
    build(builders[1], held, bars[1])
    for builder, made in zip(builders, bars, strict=True):
        builder.close_until(time_ns + BAR_NS, made)
    assert bars[1] == bars[0]
    assert not held.behind
    assert held.dropped == 0


def test_memory_is_bounded_and_an_episode_is_told_once() -> None:
    held, told = backlog(20)
    for number in range(100_000):
        held.append(tick(number // 1000, 90.0 + number % 7, 1.0))
    assert len(held) == 20
    assert len(held._conflater) <= 4
    assert [one.over for one in told] == [False]
    held.clear()
    assert held.refill()
    # Both bars of it are on the way to the reader: the first, the highest, the lowest and the last price.
    assert [one.over for one in told] == [False, True]
    assert told[1].count == 100_000 - 20 - len(held)
    assert told[1].end_ns == 99
    assert told[1].dropped == held.dropped == 0
    assert sum(one.traded for one in held) == 100_000 - 20
    assert {one.last for one in held} == {90.0, 96.0, held[0].last, held[-1].last}
    # The reader is in time again: nothing is conflated, nothing told.
    held.clear()
    held.append(tick(100, 91.0, 1.0))
    assert len(held) == 1
    assert len(told) == 2
    assert held.episodes == 1


def test_an_episode_lasts_until_the_reader_has_caught_up() -> None:
    """A reader that stays slow is told of once, not at every refill."""
    held, told = backlog(20)
    time_ns = 0
    for _ in range(20):
        for _ in range(60):
            time_ns += BAR_NS // 2
            held.append(tick(time_ns, float(time_ns), 1.0))
        while held:
            held.popleft()
        if held.lost:
            break
        held.refill()
    assert [one.over for one in told] == [False]
    assert held.episodes == 1


def test_the_latest_quote_is_kept() -> None:
    """A quote without a trade is no event of a bar, but the newest of them is there."""
    held, _ = backlog(10)
    for number in range(50):
        held.append(tick(number, bid=90.0 + number))
    held.clear()
    held.refill()
    assert [one.bid for one in held] == [139.0]


def test_behind_for_good() -> None:
    """More bars than may wait: dropped but for the latest quote, and nothing comes until the reader knows."""
    held, told = backlog(20)
    for number in range(1000):
        held.append(tick(number * BAR_NS, 90.0 + number % 7, 1.0))
    assert held.lost
    assert len(held) == 20
    assert len(held._conflater) == 0
    assert not held.refill()
    held.clear()
    held.append(tick(1000 * BAR_NS, 77.0, 1.0))
    assert not held
    held.restart()
    assert [one.last for one in held] == [77.0]
    assert not held.behind
    assert [one.over for one in told] == [False, True]
    assert told[1].dropped == told[1].count == held.dropped == 981
    assert told[1].start_ns == 20 * BAR_NS
    assert told[1].end_ns == 1000 * BAR_NS


def test_no_limit() -> None:
    held = TickBacklog()
    for number in range(50_000):
        held.append(tick(number))
    assert len(held) == 50_000
    assert not held.behind


def test_two_threads() -> None:
    """A writer as fast as it can and a reader that is mostly too slow: the bars are those of all ticks."""
    held, told = backlog(50)
    held._most = 1_000_000
    ticks = [tick(number * 3, 100.0 + (number * 7919) % 101, 1.0) for number in range(60_000)]
    expected: deque[Bar] = deque()
    builder = BarBuilder(BAR_NS, PriceSource.TRADES, 0)
    builder.drain(deque(ticks), expected)

    def write() -> None:
        for one in ticks:
            held.append(one)

    writer = threading.Thread(target=write)
    bars: deque[Bar] = deque()
    reader = BarBuilder(BAR_NS, PriceSource.TRADES, 0)
    writer.start()
    while writer.is_alive():
        build(reader, held, bars)
    writer.join()
    build(reader, held, bars)
    assert bars == expected
    assert reader.late == 0
    assert [one.over for one in told] == [False, True] * held.episodes


def test_impossible_limits_are_refused() -> None:
    with pytest.raises(UsageError, match="tick_backlog"):
        SessionSettings(tick_backlog=3)
    with pytest.raises(UsageError, match="tick_backlog"):
        SessionSettings(tick_backlog=-1)
