"""A strategy that is slow: ticks wait, then are conflated, then dropped; bars stay right, orders and fills all come.

The strategy holds up its own thread inside ``next()`` until every frame of many minutes has been read by the session.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import backtrader as bt
import pandas as pd
import pytest

from bt_ibkr.clock import NS_PER_S, ManualClock
from bt_ibkr.config import SessionSettings
from bt_ibkr.connection.interface import TicksConflated
from bt_ibkr.store import IBKRStore

if TYPE_CHECKING:
    from tests.conftest import Bench, Line, Run, Tape

PATIENCE_S = 20.0


class Watch(ManualClock):
    """Moved by the test, but to the product a clock that runs by itself: the market does not wait for a reader."""

    def wall_s(self, market_ns: int) -> float:
        return market_ns / NS_PER_S


def slow_line(bench: Bench, tape: Tape, limit: int) -> Line:
    line = bench.line(market=bench.market(AAPL=tape))
    line.clock = Watch(line.clock.now_ns())
    line.store = IBKRStore(
        settings=SessionSettings(
            base_url=line.emulator.url, paced=False, reconnect_first_s=0.01, tick_backlog=limit
        ),
        clock=line.clock,
        bar_grace_s=0.0,
    )
    return line


def hold_up(line: Line, until: Any) -> None:
    """Let the market go on while cerebro's thread does nothing for the product."""
    line.step(until)
    connection = line.store.connection
    port = connection.progress().port
    sent = line.emulator.call(lambda s: next(c.sent for c in s.core.hub.connections if c.port == port))
    latest = time.monotonic() + PATIENCE_S
    while connection.progress().frames < sent:
        assert time.monotonic() < latest, (connection.progress(), sent)
        line.store.wake.wait(0.1)


def wavy(tape: type[Tape], seconds: int, every: int = 1) -> Tape:
    """Every bar has a high and a low of its own, neither first nor last."""
    made = tape()
    for second in range(0, seconds, every):
        price = round(100 + (second * 37 % 61) / 10 + second // 60, 2)
        made.quote(second, round(price - 0.01, 2), round(price + 0.01, 2))
        made.trade(second + 0.5, price)
    return made


def at(bench: Bench, bar: int, until_s: float, extra: Callable[[Any], Any] = lambda strategy: None) -> Any:
    """A script that holds its thread up once, in the bar of that number, until so many seconds after the opening."""

    def script(strategy: Any) -> None:
        if len(strategy) == bar:
            made = extra(strategy)
            if made is not None:
                strategy.orders.append(made)
            hold_up(strategy.p.init.line, bench.opening(until_s))

    return script


class Knows:
    """Gives a script its line: called as the strategy's ``init``."""

    def __init__(self, line: Line) -> None:
        self.line = line

    def __call__(self, strategy: Any) -> None:
        pass


def run_slow(bench: Bench, tape: Tape, script: Any, *, limit: int = 200, **feed: Any) -> Run:
    line = slow_line(bench, tape, limit)
    with contextlib.closing(line.store):
        return bench.run(line, script, init=Knows(line), feeds=[{"dataname": "AAPL"} | feed])


def told(run: Run) -> list[tuple[str, TicksConflated]]:
    return [(msg, args[0]) for msg, args, _ in run.strategy.messages if msg in ("conflated", "caught up")]


def same(run: Run, wanted: pd.DataFrame) -> None:
    frame = run.strategy.frame("AAPL")
    pd.testing.assert_frame_equal(
        frame, wanted, check_names=False, check_dtype=False, check_freq=False, check_index_type=False
    )


def test_bars_stay_right(bench: Bench, tape: type[Tape], caplog: pytest.LogCaptureFixture) -> None:
    """Four minutes pass inside one `next()`: conflated, told once and ended once; not a price or a share is lost."""
    prices = wavy(tape, 600)
    with caplog.at_level(logging.WARNING):
        run = run_slow(bench, prices, at(bench, 2, 371.0, lambda s: s.buy(size=10)))
    wanted = prices.bars(60)
    same(run, wanted)
    (began, first), (ended, last) = told(run)
    assert (began, ended) == ("conflated", "caught up")
    assert first.start_ns == last.start_ns < last.end_ns
    assert last.count > 250
    assert last.dropped == 0
    counted = run.line.store.metrics()
    assert (counted.ticks_conflated, counted.ticks_dropped, counted.slow_episodes) == (last.count, 0, 1)
    statuses = run.strategy.told("AAPL")
    assert statuses[statuses.index("LIVE") + 1 :] == ["DELAYED", "LIVE", "DISCONNECTED"]
    assert sum("ticks-conflated" in one.getMessage() for one in caplog.records) == 1
    assert sum("ticks-caught-up" in one.getMessage() for one in caplog.records) == 1
    # The order's answer, its states and its fills came meanwhile: all of them are there.
    assert run.strategy.orders[0].status == bt.Order.Completed
    run.agree()


def test_bars_of_quotes_stay_right(bench: Bench, tape: type[Tape]) -> None:
    prices = wavy(tape, 480)
    run = run_slow(bench, prices, at(bench, 2, 331.0), what="MIDPOINT")
    wanted = prices.bars(60, "mid")
    same(run, wanted)
    assert [msg for msg, _ in told(run)] == ["conflated", "caught up"]


def test_ticks_are_merged(bench: Bench, tape: type[Tape]) -> None:
    """Of each second the first, highest, lowest and last trade, and all that was traded."""
    prices = tape()
    for number in range(2000):
        prices.quote(number / 10, 99.0, 101.0)
        prices.trade(number / 10 + 0.05, round(99.0 + (number * 7 % 20) / 10, 1), 100 + number % 3)
    run = run_slow(bench, prices, at(bench, 5, 51.0), timeframe=bt.TimeFrame.Ticks)
    rows = run.strategy.rows["AAPL"]
    trades = prices.frame().dropna(subset=["last"])
    (_, _), (_, last) = told(run)
    statuses = run.strategy.told("AAPL")
    assert statuses[statuses.index("LIVE") + 1 :] == ["DELAYED", "LIVE", "DISCONNECTED"]
    assert len(rows) < len(trades)
    assert last.count >= len(trades) - len(rows)
    assert sum(row[5] for row in rows) == trades["last_size"].sum()
    # Not an extreme of any second is missing.
    seconds = trades.groupby(trades["ts"].dt.tz_localize(None).dt.floor("s"))["last"]
    got = pd.DataFrame({"ts": [row[0] for row in rows], "last": [row[4] for row in rows]})
    kept = got.groupby(got["ts"].dt.floor("s"))["last"]
    for name in ("first", "max", "min", "last"):
        assert getattr(kept, name)().tolist() == getattr(seconds, name)().tolist()


def test_too_slow_for_what_may_wait(bench: Bench, tape: type[Tape]) -> None:
    """A quarter of an hour inside one `next()`, where twenty conflated ticks may wait: the bars come from history."""
    prices = wavy(tape, 1260, every=8)
    run = run_slow(bench, prices, at(bench, 2, 911.0, lambda s: s.buy(size=10)), limit=20)
    same(run, prices.bars(60))
    (_, _), (_, last) = told(run)
    assert last.dropped > 100
    statuses = run.strategy.told("AAPL")
    assert statuses[statuses.index("LIVE") + 1 :] == [
        "DELAYED",
        "CONNBROKEN",
        "DELAYED",
        "LIVE",
        "DISCONNECTED",
    ]
    assert run.strategy.orders[0].status == bt.Order.Completed
    run.agree()


def test_a_market_that_waits_has_no_limit(bench: Bench, tape: type[Tape]) -> None:
    """In lockstep a run repeats to the last tick, whatever a strategy does in between."""
    prices = wavy(tape, 300)
    line = bench.line(market=bench.market(AAPL=prices))
    line.store._tick_backlog = 20
    assert line.store.tick_backlog == 0
