"""Bars of what was applied."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

from bt_ibkr.emulator.engine import Engine, EngineConfig
from bt_ibkr.emulator.market.options import load_market
from bt_ibkr.emulator.types import MarketEvent
from bt_ibkr.emulator.universe import Universe
from bt_ibkr.errors import UsageError
from bt_ibkr.model.market import Bar

if TYPE_CHECKING:
    from tests.emulator_engine.conftest import Desk

    MakeDesk = Callable[..., Desk]

AAPL, IBM, EURUSD = 265598, 8314, 12087792
SECOND_NS = 10**9
MINUTE_NS = 60 * SECOND_NS
DAY_NS = 86_400 * SECOND_NS
OPEN_NS = 1_772_461_800 * SECOND_NS


def replay(market_data: Path, universe: Universe, name: str, until: str | None = None) -> Engine:
    tape = load_market([str(market_data / name)], universe)
    engine = Engine(tape=tape, universe=universe, config=EngineConfig())
    engine.advance(until_ns=None if until is None else pd.Timestamp(until).value)
    return engine


def by_pandas(frame: pd.DataFrame, column: str, rule: str) -> pd.DataFrame:
    frame = frame.set_index("ts")
    bars = frame[column].dropna().resample(rule, label="left", closed="left").ohlc().dropna()
    bars["volume"] = frame["last_size"].resample(rule).sum().reindex(bars.index) if column == "last" else 0.0
    return bars


def assert_same(bars: list[Bar], expected: pd.DataFrame) -> None:
    found = pd.DataFrame(
        [(b.open, b.high, b.low, b.close, b.volume) for b in bars],
        columns=["open", "high", "low", "close", "volume"],
    )
    assert [bar.start_ns for bar in bars] == expected.index.as_unit("ns").asi8.tolist()
    np.testing.assert_array_equal(found.to_numpy(), expected[found.columns].to_numpy(dtype=float))


@pytest.mark.parametrize(("seconds", "rule"), [(1, "1s"), (5, "5s"), (30, "30s"), (90, "90s")])
@pytest.mark.parametrize("source", ["trades", "bid", "ask"])
def test_short_bars_equal_those_of_pandas(
    market_data: Path, universe: Universe, seconds: int, rule: str, source: str
) -> None:
    check_against_pandas(market_data, universe, seconds, rule, source)


@pytest.mark.parametrize(
    ("seconds", "rule"),
    [(60, "1min"), (120, "2min"), (300, "5min"), (900, "15min"), (3600, "1h"), (14400, "4h")],
)
@pytest.mark.parametrize("source", ["trades", "bid", "ask"])
def test_long_bars_equal_those_of_pandas(
    market_data: Path, universe: Universe, seconds: int, rule: str, source: str
) -> None:
    check_against_pandas(market_data, universe, seconds, rule, source)


def check_against_pandas(data: Path, universe: Universe, seconds: int, rule: str, source: str) -> None:
    name, until = "ticks_IBM_2013-10-07.parquet", "2013-10-07T15:07:33Z"
    engine = replay(data, universe, name, until)
    frame = pd.read_parquet(data / name)
    frame = frame[frame["ts"] < pd.Timestamp(until)]
    bars = engine.history(IBM, 0, engine.now_ns, seconds * SECOND_NS, source)
    column = "last" if source == "trades" else source
    assert_same(bars, by_pandas(frame, column, rule))
    assert all(bar.end_ns - bar.start_ns == seconds * SECOND_NS for bar in bars)


def test_the_middle_equals_that_of_pandas(market_data: Path, universe: Universe) -> None:
    name = "ticks_EURUSD_2014-05-06.parquet"
    engine = replay(market_data, universe, name)
    frame = pd.read_parquet(market_data / name)
    frame["middle"] = (frame["bid"].ffill() + frame["ask"].ffill()) / 2
    bars = engine.history(EURUSD, 0, engine.now_ns + 1, MINUTE_NS, "midpoint")
    assert_same(bars, by_pandas(frame, "middle", "1min"))
    assert engine.history(EURUSD, 0, engine.now_ns + 1, MINUTE_NS) == engine.history(
        EURUSD, 0, engine.now_ns + 1, MINUTE_NS, "bid"
    )


def test_regular_hours_only(market_data: Path, universe: Universe) -> None:
    engine = replay(market_data, universe, "ticks_IBM_2013-10-07.parquet")
    bars = engine.history(IBM, 0, engine.now_ns, MINUTE_NS, regular_hours_only=True)
    assert bars[0].start_ns == pd.Timestamp("2013-10-07T13:30Z").value
    assert bars[-1].start_ns == pd.Timestamp("2013-10-07T19:59Z").value
    days = engine.history(IBM, 0, engine.now_ns, DAY_NS, regular_hours_only=True)
    assert len(days) == 1
    assert days[0].start_ns == pd.Timestamp("2013-10-07T13:30Z").value
    assert days[0].end_ns == pd.Timestamp("2013-10-07T20:00Z").value
    assert days[0].volume == sum(bar.volume for bar in bars)
    assert (days[0].open, days[0].close) == (bars[0].open, bars[-1].close)
    whole = engine.history(IBM, 0, engine.now_ns, DAY_NS)
    assert whole[0].start_ns == days[0].start_ns
    assert whole[0].volume > days[0].volume


def test_days_weeks_and_months(market_data: Path, universe: Universe) -> None:
    engine = replay(market_data, universe, "bars_SPY_1min_2013-10-07_11.parquet")
    days = engine.history(756733, 0, engine.now_ns, DAY_NS)
    assert len(days) == 5
    for length in (7 * DAY_NS, 30 * DAY_NS):
        (bar,) = engine.history(756733, 0, engine.now_ns, length)
        assert (bar.start_ns, bar.open, bar.close) == (days[0].start_ns, days[0].open, days[-1].close)
        assert bar.volume == sum(day.volume for day in days)
    assert engine.history(756733, days[1].start_ns, days[3].start_ns, DAY_NS) == days[1:3]


def test_no_request_looks_ahead_and_the_last_bar_forms(desk: MakeDesk) -> None:
    d = desk([MarketEvent(OPEN_NS + k * SECOND_NS, AAPL, last=100.0 + k, last_size=1.0) for k in range(120)])

    def bars() -> list[Bar]:
        return d.engine.history(AAPL, 0, OPEN_NS + DAY_NS, MINUTE_NS)

    assert bars() == []
    for seconds in (1, 30, 60, 61, 119):
        d.engine.advance(until_ns=OPEN_NS + seconds * SECOND_NS)
        assert sum(bar.volume for bar in bars()) == seconds
        assert bars()[-1].close == 100.0 + seconds - 1
    assert [bar.volume for bar in bars()] == [60, 59]


def test_edges_belong_to_the_later_bar(desk: MakeDesk) -> None:
    d = desk()
    d.engine.inject(MarketEvent(OPEN_NS + MINUTE_NS - 1, AAPL, last=1.0, last_size=1.0))
    d.engine.inject(MarketEvent(OPEN_NS + MINUTE_NS, AAPL, last=2.0, last_size=1.0))
    first, second = d.engine.history(AAPL, OPEN_NS, OPEN_NS + DAY_NS, MINUTE_NS)
    assert (first.close, second.open) == (1.0, 2.0)
    assert d.engine.history(AAPL, OPEN_NS, OPEN_NS + MINUTE_NS, MINUTE_NS) == [first]
    assert d.engine.history(AAPL, OPEN_NS + 1, OPEN_NS + DAY_NS, MINUTE_NS) == [second]


def test_bid_and_ask_in_one_bar(desk: MakeDesk) -> None:
    d = desk()
    for bid, ask in ((10.0, 11.0), (9.0, 12.0), (11.0, 13.0)):
        d.quote(bid, ask)
    (bar,) = d.engine.history(AAPL, 0, OPEN_NS + DAY_NS, MINUTE_NS, "bid_ask")
    assert (bar.open, bar.high, bar.low, bar.close) == (10.0, 13.0, 9.0, 12.0)


def test_given_history(desk: MakeDesk) -> None:
    d = desk([MarketEvent(OPEN_NS, AAPL, last=100.0, last_size=1.0)])
    minutes = [
        Bar(OPEN_NS - k * MINUTE_NS, OPEN_NS - (k - 1) * MINUTE_NS, 1.0, 3.0, 0.5, 2.0, 10.0)
        for k in range(6, 0, -1)
    ]
    days = [Bar(OPEN_NS - DAY_NS, OPEN_NS - DAY_NS + 390 * MINUTE_NS, 1.0, 3.0, 0.5, 2.0, 10.0)]
    d.engine.preload(AAPL, minutes)
    d.engine.preload(AAPL, days)
    d.engine.advance()
    bars = d.engine.history(AAPL, 0, OPEN_NS + DAY_NS, MINUTE_NS)
    assert bars[:-1] == minutes
    assert bars[-1].open == 100.0
    assert [bar.volume for bar in d.engine.history(AAPL, 0, OPEN_NS, 5 * MINUTE_NS)] == [10.0, 50.0]
    assert d.engine.history(AAPL, 0, OPEN_NS + DAY_NS, DAY_NS)[0] == days[0]
    with pytest.raises(UsageError, match="before the market starts"):
        d.engine.preload(AAPL, minutes)
    with pytest.raises(UsageError, match="only minutes and days"):
        d.engine.preload(IBM, [Bar(0, 1, 1.0, 1.0, 1.0, 1.0, 1.0)])


def test_requests_that_cannot_be_served(desk: MakeDesk) -> None:
    d = desk()
    for length, source in ((MINUTE_NS, "fees"), (0, "trades"), (DAY_NS + 1, "trades")):
        with pytest.raises(UsageError):
            d.engine.history(AAPL, 0, OPEN_NS, length, source)
    assert d.engine.history(IBM, 0, OPEN_NS, MINUTE_NS) == []
