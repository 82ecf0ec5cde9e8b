"""Bars from ticks: any partition gives the same bars, and they are what pandas makes of the ticks."""

from __future__ import annotations

from collections import deque
from itertools import pairwise
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bt_ibkr.feeds.bars import BarBuilder, PriceSource, tick_price
from bt_ibkr.model.market import Bar, DataQuality, Tick

MINUTE = 60_000_000_000
MS = 1_000_000
#: A whole minute, as every multiple of a day is.
BASE = 20_000 * 86_400 * 1_000_000_000


def tick(
    time_ns: int,
    last: float | None = None,
    traded: float = 0.0,
    bid: float | None = None,
    ask: float | None = None,
) -> Tick:
    return Tick(
        time_ns, 1, bid, ask, None, None, last, None, traded, None, DataQuality.REALTIME, False, time_ns
    )


def trade(time_ns: int, price: float, size: float = 1.0) -> Tick:
    return tick(time_ns, price, size)


def build(ticks: list[Tick], *, bar_ns: int = MINUTE, source: PriceSource = PriceSource.TRADES,
          start_ns: int = BASE, cuts: list[int] | None = None) -> tuple[list[Bar], BarBuilder]:  # fmt: skip
    """Bars of the ticks, drained in the parts that ``cuts`` makes; the open bar is closed at the end."""
    builder, bars = BarBuilder(bar_ns, source, start_ns), deque[Bar]()
    edges = [0, *sorted(cuts or []), len(ticks)]
    for a, b in pairwise(edges):
        part = deque(ticks[a:b])
        builder.drain(part, bars)
        assert not part
    builder.close_until(builder.open_end_ns, bars)
    return list(bars), builder


prices = st.integers(1, 400).map(lambda n: n / 4)
streams = st.lists(
    st.tuples(st.integers(0, 40_000), prices, st.integers(0, 5), prices, st.integers(0, 8)), max_size=80
).map(
    lambda rows: [
        tick(BASE + sum(row[0] for row in rows[: n + 1]) * MS, last, float(size), bid, bid + spread / 4)
        for n, (_, last, size, bid, spread) in enumerate(rows)
    ]
)


@settings(deadline=None)
@given(
    ticks=streams,
    cuts=st.lists(st.integers(0, 80), max_size=10),
    bar_ns=st.sampled_from([1_000 * MS, 5_000 * MS, MINUTE, 5 * MINUTE]),
    source=st.sampled_from(list(PriceSource)),
)
def test_any_partition_gives_the_bars_of_the_whole(
    ticks: list[Tick], cuts: list[int], bar_ns: int, source: PriceSource
) -> None:
    cuts = [min(cut, len(ticks)) for cut in cuts]
    assert (
        build(ticks, bar_ns=bar_ns, source=source, cuts=cuts)[0]
        == build(ticks, bar_ns=bar_ns, source=source)[0]
    )


@settings(deadline=None)
@given(
    ticks=streams,
    bar_ns=st.sampled_from([1_000 * MS, 5_000 * MS, MINUTE, 5 * MINUTE]),
    source=st.sampled_from(list(PriceSource)),
)
def test_bars_equal_a_group_by(ticks: list[Tick], bar_ns: int, source: PriceSource) -> None:
    frame = pd.DataFrame(
        {
            "ns": [t.time_ns for t in ticks],
            "last": [t.last for t in ticks],
            "size": [t.traded for t in ticks],
            "bid": [t.bid for t in ticks],
            "ask": [t.ask for t in ticks],
        },
        columns=["ns", "last", "size", "bid", "ask"],
    )
    if source is PriceSource.TRADES:
        frame = frame[frame["size"] > 0].assign(price=lambda f: f["last"])
    else:
        column = {
            PriceSource.BID: lambda f: f["bid"],
            PriceSource.ASK: lambda f: f["ask"],
            PriceSource.MIDPOINT: lambda f: (f["bid"] + f["ask"]) / 2,
            PriceSource.LAST: lambda f: f["last"],
        }[source]
        frame = frame.assign(price=column, size=0.0).dropna(subset=["price"])
        frame = frame[frame["price"] != frame["price"].shift()]
    wanted = [
        Bar(
            int(start), int(start) + bar_ns, rows["price"].iloc[0], rows["price"].max(), rows["price"].min(),
            rows["price"].iloc[-1], rows["size"].sum(),
        )
        for start, rows in frame.groupby(frame["ns"] // bar_ns * bar_ns)
    ]  # fmt: skip
    assert build(ticks, bar_ns=bar_ns, source=source)[0] == wanted


@settings(deadline=None)
@given(ticks=streams, at=st.integers(0, 30 * 60_000), more=streams)
def test_what_was_delivered_never_changes(ticks: list[Tick], at: int, more: list[Tick]) -> None:
    """The clock closes bars at any moment; ticks of before, if they come, are counted and left out."""
    builder, bars = BarBuilder(MINUTE, PriceSource.TRADES, BASE), deque[Bar]()
    builder.drain(deque(ticks), bars)
    builder.close_until(BASE + at * MS, bars)
    delivered = list(bars)
    last_edge = delivered[-1].end_ns if delivered else 0
    open_start = builder.open_end_ns - MINUTE if builder.open_end_ns else last_edge
    builder.drain(deque(more), bars)
    builder.close_until(1 << 62, bars)
    assert list(bars)[: len(delivered)] == delivered
    ends = [bar.end_ns for bar in bars]
    assert ends == sorted(set(ends))
    counted = [t for t in more if t.traded]
    taken = sum(bar.volume for bar in bars)
    assert taken <= sum(t.traded for t in ticks) + sum(t.traded for t in counted)
    if counted and all(t.time_ns < min(last_edge, open_start) for t in counted):
        assert builder.late == len(counted)


def test_left_edge_belongs_to_the_bar_and_right_edge_to_the_next() -> None:
    bars, _ = build(
        [
            trade(BASE, 1.0),
            trade(BASE + MINUTE - 1, 2.0),
            trade(BASE + MINUTE, 3.0),
            trade(BASE + MINUTE + 1, 4.0),
        ]
    )
    assert bars == [
        Bar(BASE, BASE + MINUTE, 1.0, 2.0, 1.0, 2.0, 2.0),
        Bar(BASE + MINUTE, BASE + 2 * MINUTE, 3.0, 4.0, 3.0, 4.0, 2.0),
    ]


def test_a_bar_is_closed_at_its_edge_and_not_before() -> None:
    builder, bars = BarBuilder(MINUTE, PriceSource.TRADES, BASE), deque[Bar]()
    builder.drain(deque([trade(BASE + 1, 1.0)]), bars)
    assert builder.open_end_ns == BASE + MINUTE
    builder.close_until(BASE + MINUTE - 1, bars)
    assert not bars
    builder.close_until(BASE + MINUTE, bars)
    assert [bar.end_ns for bar in bars] == [BASE + MINUTE]
    assert builder.open_end_ns == 0
    builder.close_until(BASE + 5 * MINUTE, bars)
    assert len(bars) == 1


def test_silent_minutes_make_no_bars() -> None:
    bars, _ = build([trade(BASE, 1.0), trade(BASE + 7 * MINUTE, 2.0)])
    assert [(bar.start_ns - BASE) // MINUTE for bar in bars] == [0, 7]


def test_late_tick_is_counted() -> None:
    builder, bars = BarBuilder(MINUTE, PriceSource.TRADES, BASE), deque[Bar]()
    builder.drain(deque([trade(BASE, 1.0), trade(BASE + MINUTE, 2.0), trade(BASE + 5, 99.0)]), bars)
    assert builder.late == 1
    builder.close_until(BASE + 2 * MINUTE, bars)
    assert [bar.high for bar in bars] == [1.0, 2.0]
    builder.drain(deque([trade(BASE + MINUTE + 5, 99.0)]), bars)
    assert builder.late == 2
    assert len(bars) == 2


def test_ticks_before_the_start_are_left_to_history() -> None:
    bars, builder = build([trade(BASE + 59_999 * MS, 1.0), trade(BASE + MINUTE, 2.0)], start_ns=BASE + MINUTE)
    assert [bar.open for bar in bars] == [2.0]
    assert builder.late == 1


def test_disorder_inside_a_bar_is_no_lateness() -> None:
    bars, builder = build([trade(BASE + 10, 5.0), trade(BASE + 5, 9.0), trade(BASE + 20, 6.0)])
    assert (bars[0].open, bars[0].high, bars[0].close, builder.late) == (5.0, 9.0, 6.0, 0)


def test_dropped_bar_is_not_delivered() -> None:
    builder, bars = BarBuilder(MINUTE, PriceSource.BID, BASE), deque[Bar]()
    builder.drain(deque([tick(BASE, bid=1.0)]), bars)
    builder.drop_open()
    builder.close_until(BASE + MINUTE, bars)
    assert not bars
    # The same price again opens a bar: what was known before the break is not known any more.
    builder.drain(deque([tick(BASE + MINUTE, bid=1.0)]), bars)
    assert builder.open_end_ns == BASE + 2 * MINUTE


@pytest.mark.parametrize(
    ("source", "given_tick", "price"),
    [
        (PriceSource.TRADES, tick(0, 5.0, 1.0, 4.0, 6.0), 5.0),
        (PriceSource.TRADES, tick(0, 5.0, 0.0, 4.0, 6.0), None),
        (PriceSource.TRADES, tick(0, None, 1.0), None),
        (PriceSource.BID, tick(0, 5.0, 1.0, 4.0, 6.0), 4.0),
        (PriceSource.ASK, tick(0, 5.0, 1.0, 4.0, 6.0), 6.0),
        (PriceSource.MIDPOINT, tick(0, 5.0, 1.0, 4.0, 7.0), 5.5),
        (PriceSource.MIDPOINT, tick(0, 5.0, 1.0, 4.0), None),
        (PriceSource.BID, tick(0, 5.0, 1.0), None),
    ],
)
def test_price_of_a_source(source: PriceSource, given_tick: Tick, price: Any) -> None:
    assert tick_price(given_tick, source) == price
