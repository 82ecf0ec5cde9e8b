"""Feeds that are themselves replayed or resampled to longer bars, not through a copy."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import backtrader as bt
import pytest

if TYPE_CHECKING:
    from tests.conftest import Bench, Tape

Minutes, Days = bt.TimeFrame.Minutes, bt.TimeFrame.Days


class Watching(bt.Strategy):  # type: ignore[misc]
    """Writes down length, time and close at every ``next``."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, Any, float]] = []

    def next(self) -> None:
        self.seen.append((len(self.data), self.data.datetime.datetime(0), self.data.close[0]))


def watch(
    bench: Bench, tape: type[Tape], how: str, seconds: int, **longer: Any
) -> list[tuple[int, Any, float]]:
    prices = tape().every_second(seconds, lambda second: 100.0 + second // 60)
    line = bench.line(market=bench.market(AAPL=prices))
    line.lockstep()
    cerebro = bt.Cerebro(quicknotify=True, stdstats=False)
    data = line.store.getdata(dataname="AAPL", timeframe=Minutes, backfill_start=False)
    getattr(cerebro, how)(data, **longer)
    cerebro.addstrategy(Watching)
    cerebro.setbroker(line.store.getbroker())
    with line.store:
        (strategy,) = cerebro.run()
    seen: list[tuple[int, Any, float]] = strategy.seen
    return seen


def test_replayed_bar_grows_minute_by_minute(bench: Bench, tape: type[Tape]) -> None:
    seen = watch(bench, tape, "replaydata", 360, timeframe=Minutes, compression=3)
    assert [length for length, _, _ in seen] == [1, 1, 1, 2, 2, 2]
    assert [time for _, time, _ in seen] == [
        bench.opening(60 * minute).replace(tzinfo=None) for minute in range(1, 7)
    ]
    assert [close for _, _, close in seen] == [100.0, 101.0, 102.0, 103.0, 104.0, 105.0]


@pytest.mark.parametrize("how", ["resampledata", "replaydata"])
def test_a_day_of_minutes(bench: Bench, tape: type[Tape], how: str) -> None:
    """A live feed has no daily bars of its own; backtrader makes them of its minutes."""
    seen = watch(bench, tape, how, 180, timeframe=Days)
    assert {length for length, _, _ in seen} == {1}
    assert seen[-1][2] == 102.0
    assert seen[-1][1] >= bench.opening(180).replace(tzinfo=None) - timedelta(minutes=1)
