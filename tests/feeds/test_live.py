"""Live bars and ticks of a lockstep market: what the tape holds, stamped as backtrader stamps."""

from __future__ import annotations

import random
from datetime import datetime
from typing import TYPE_CHECKING, Any

import backtrader as bt
import pandas as pd
import pytest

if TYPE_CHECKING:
    from tests.conftest import Bench, Tape

Seconds, Minutes, Ticks = bt.TimeFrame.Seconds, bt.TimeFrame.Minutes, bt.TimeFrame.Ticks


def same(frame: pd.DataFrame, wanted: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(
        frame, wanted, check_names=False, check_freq=False, check_index_type=False, check_dtype=False,
        rtol=1e-12, atol=1e-12,
    )  # fmt: skip


def wandering(tape: type[Tape], seconds: int, seed: int, *, start: float = 100.0, gap: float = 3.0) -> Tape:
    """Quotes and trades at random moments (whole milliseconds), some at the edges of minutes."""
    chance, made = random.Random(seed), tape()
    price, second = start, 0.0
    while second < seconds:
        price = max(1.0, round(price + chance.choice((-0.02, -0.01, 0.0, 0.01, 0.02)), 2))
        if chance.random() < 0.5:
            made.quote(second, round(price - 0.01, 2), round(price + 0.01, 2), chance.randint(1, 9) * 100)
        else:
            made.trade(second, price, chance.randint(1, 9) * 100)
        step = round(chance.expovariate(1 / gap), 3) + 0.001
        edge = (second // 60 + 1) * 60
        second = edge if chance.random() < 0.05 else round(second + step, 3)
    return made


@pytest.mark.parametrize(
    ("timeframe", "compression", "length"), [(Seconds, 5, 5), (Minutes, 1, 60), (Minutes, 5, 300)]
)
def test_bars(bench: Bench, tape: type[Tape], timeframe: int, compression: int, length: int) -> None:
    prices = wandering(tape, 1500, seed=length)
    run = bench.run(
        bench.line(market=bench.market(AAPL=prices)),
        feeds=[{"dataname": "AAPL", "timeframe": timeframe, "compression": compression}],
    )
    same(run.strategy.frame("AAPL"), prices.bars(length))


def test_ticks(bench: Bench, tape: type[Tape]) -> None:
    prices = wandering(tape, 300, seed=1)
    run = bench.run(
        bench.line(market=bench.market(AAPL=prices)), feeds=[{"dataname": "AAPL", "timeframe": Ticks}]
    )
    trades = prices.frame().dropna(subset=["last"])
    rows = run.strategy.rows["AAPL"]
    assert [row[4] for row in rows] == list(trades["last"])
    assert [row[5] for row in rows] == list(trades["last_size"])
    moments = [pd.Timestamp(row[0]).round("ms") for row in rows]
    assert moments == [ts.tz_localize(None) for ts in trades["ts"]]
    assert all(row[1] == row[2] == row[3] == row[4] for row in rows)


@pytest.mark.parametrize(("what", "column"), [("BID", "bid"), ("ASK", "ask"), ("MIDPOINT", "mid")])
def test_bars_of_quotes(bench: Bench, tape: type[Tape], what: str, column: str) -> None:
    prices = wandering(tape, 600, seed=2)
    run = bench.run(bench.line(market=bench.market(AAPL=prices)), feeds=[{"dataname": "AAPL", "what": what}])
    same(run.strategy.frame("AAPL"), prices.bars(60, column))


def test_currency_pair_is_made_of_the_bid(bench: Bench, tape: type[Tape]) -> None:
    quotes = tape()
    chance = random.Random(3)
    for second in range(0, 400, 2):
        bid = round(1.1 + chance.randint(-20, 20) / 1e5, 5)
        quotes.quote(second, bid, round(bid + 0.00005, 5), 1_000_000)
    run = bench.run(
        bench.line(market=bench.market(EUR_USD=quotes)),
        feeds=[{"dataname": "EUR.USD-CASH-IDEALPRO", "name": "eur"}],
    )
    same(run.strategy.frame("eur"), quotes.bars(60, "bid"))


def test_stamps_are_right_edges_in_utc(bench: Bench, tape: type[Tape]) -> None:
    prices = tape().trade(0, 1.0).trade(59.999, 2.0).trade(60, 3.0).trade(125, 4.0)
    stamps: list[float] = []
    bench.run(bench.line(market=bench.market(AAPL=prices)), lambda s: stamps.append(s.data.datetime[0]))
    edges = [datetime(2026, 3, 2, 14, minute) for minute in (31, 32, 33)]  # noqa: DTZ001
    assert stamps == [bt.date2num(edge) for edge in edges]


def test_statuses_in_order(bench: Bench, tape: type[Tape]) -> None:
    prices = wandering(tape, 400, seed=4)
    line = bench.line(market=bench.market(AAPL=prices))
    line.step(bench.opening(150))
    run = bench.run(line, feeds=[{"dataname": "AAPL", "backfill_start": True}])
    log = [entry for entry in run.strategy.log if entry[0] in ("data", "bar")]
    assert run.strategy.told("AAPL") == ["CONNECTED", "DELAYED", "LIVE", "DISCONNECTED"]
    # DELAYED before the first bar of the past, LIVE before the first of the present.
    bars = [entry for entry in log if entry[0] == "bar"]
    assert log.index(("data", "AAPL", "DELAYED")) < log.index(bars[0])
    live = log.index(("data", "AAPL", "LIVE"))
    assert log.index(("bar", "AAPL", datetime(2026, 3, 2, 14, 32))) < live  # noqa: DTZ001
    assert live < log.index(("bar", "AAPL", datetime(2026, 3, 2, 14, 34)))  # noqa: DTZ001
    assert log[-1] == ("data", "AAPL", "DISCONNECTED")


def test_without_history_it_is_live_at_once(bench: Bench, tape: type[Tape]) -> None:
    run = bench.run(bench.line(market=bench.market(AAPL=wandering(tape, 200, seed=5))))
    assert run.strategy.told("AAPL") == ["CONNECTED", "LIVE", "DISCONNECTED"]


def test_end_is_told_once_however_often_the_feed_is_asked(bench: Bench, tape: type[Tape]) -> None:
    """One feed ends while the other goes on: cerebro asks it again and again."""
    asked: list[Any] = []

    def watch(strategy: Any) -> None:
        asked.append(strategy.datas[0]._load())

    line = bench.line(market=bench.market(AAPL=wandering(tape, 900, seed=6)))
    line.step(bench.opening(300))
    run = bench.run(
        line,
        watch,
        feeds=[
            {"dataname": "AAPL", "historical": True, "fromdate": bench.opening(0), "name": "past"},
            {"dataname": "AAPL", "name": "present"},
        ],
    )
    assert asked
    assert asked[-5:] == [False] * 5
    assert run.strategy.told("past") == ["CONNECTED", "DISCONNECTED"]


MIXED: list[dict[str, Any]] = [
    {"dataname": "AAPL", "name": "fast", "timeframe": Seconds, "compression": 5},
    {"dataname": "AAPL", "name": "slow"},
    {"dataname": "IBM"},
]


def averages(strategy: Any) -> None:
    strategy.averages = [bt.indicators.SMA(data, period=3) for data in strategy.datas]
    strategy.values = []


def note(strategy: Any) -> None:
    strategy.values.append(tuple(line[0] for line in strategy.averages))


@pytest.mark.parametrize("history", [0, 430])
def test_exactbars_changes_nothing(bench: Bench, tape: type[Tape], history: int) -> None:
    """Also where history has many bars of each feed ready at once."""
    market = bench.market(
        AAPL=wandering(tape, 900, seed=7), IBM=wandering(tape, 900, seed=8, start=50.0, gap=40.0)
    )

    def run(exactbars: int) -> Any:
        line = bench.line(market=market)
        line.step(bench.opening(history))
        feeds = [feed | {"backfill_start": bool(history)} for feed in MIXED]
        return bench.run(line, note, feeds=feeds, init=averages, cerebro={"exactbars": exactbars})

    runs = [run(exactbars) for exactbars in (False, 1, -1)]
    first = runs[0].strategy
    assert len(first.values) > 25
    moments = [entry[2] for entry in first.log if entry[0] == "bar"]
    assert moments == sorted(moments)
    for other in runs[1:]:
        assert other.strategy.rows == first.rows
        assert other.strategy.values == first.values
    assert all(len(data.lines.close.array) < 10 for data in runs[1].cerebro.datas)


def test_bars_of_several_feeds_come_in_the_order_of_time(bench: Bench, tape: type[Tape]) -> None:
    market = bench.market(
        AAPL=wandering(tape, 900, seed=7), IBM=wandering(tape, 900, seed=8, start=50.0, gap=40.0)
    )
    run = bench.run(bench.line(market=market), feeds=MIXED)
    moments = [entry[2] for entry in run.strategy.log if entry[0] == "bar"]
    assert moments == sorted(moments)
    assert len(run.strategy.rows["fast"]) > 50


def test_silent_instrument_delays_nobody(bench: Bench, tape: type[Tape]) -> None:
    """IBM trades twice in ten minutes. AAPL's bars come all the same, each before the market moves on."""
    quiet = tape().quote(0, 49.0, 50.0).trade(1, 50.0).trade(599, 50.0)
    lively = wandering(tape, 600, seed=9)
    market = bench.market(AAPL=lively, IBM=quiet)
    line = bench.line(market=market)
    lag: list[float] = []

    def clock(strategy: Any) -> None:
        lag.append(line.clock.now_ns() / 1e9 - bench.epoch(bt.num2date(strategy.datetime[0])))

    run = bench.run(line, clock, feeds=[{"dataname": "AAPL"}, {"dataname": "IBM"}])
    same(run.strategy.frame("AAPL"), lively.bars(60))
    assert len(lag) > 5
    assert len(run.strategy.rows["IBM"]) == 2
    assert max(lag) == 0.0
