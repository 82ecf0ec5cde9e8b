"""Bars that go by sessions, and what becomes of bars in which nothing happens."""

from __future__ import annotations

from math import isnan
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import backtrader as bt
import pandas as pd
import pytest

if TYPE_CHECKING:
    from tests.conftest import Bench, Tape

#: The regular session of the tapes' first day, a Monday: 14:30 to 21:00 UTC.
CLOSE = 6.5 * 3600
DAY = 86_400


def two_days(tape: type[Tape]) -> Tape:
    """Trades in regular hours, in the evening and, by UTC, after midnight."""
    made = tape().quote(0, 99.0, 101.0)
    for day, base in ((0, 100.0), (1, 110.0)):
        for second, price in ((10, 1.0), (9000, 3.0), (18_000, -2.0), (CLOSE - 1, 0.5)):
            made.trade(day * DAY + second, base + price, 40)
        # 21:10 UTC, and 00:30 UTC of the next day, when New York still has the day before.
        made.trade(day * DAY + CLOSE + 600, base + 9.0, 80)
        made.trade(day * DAY + 36_000, base - 9.0, 80)
    return made


def follow(scripted: type[Any], line: Any, *feeds: dict[str, Any], script: Any = None) -> Any:
    """A run without an account: its profit is told every second, which over days is a lot."""
    line.lockstep()
    cerebro = bt.Cerebro(quicknotify=True, stdstats=False)
    for feed in feeds:
        given = {"dataname": "AAPL", "timeframe": bt.TimeFrame.Minutes, "backfill_start": False} | feed
        cerebro.adddata(line.store.getdata(**given), name="AAPL")
    cerebro.addstrategy(scripted, script=script)
    with line.store:
        (strategy,) = cerebro.run()
    return strategy


def rows(run: Any, name: str = "AAPL") -> list[tuple[Any, ...]]:
    strategy = getattr(run, "strategy", run)
    return [(str(row[0]), *row[1:]) for row in strategy.rows[name]]


def test_days_of_regular_hours(bench: Bench, tape: type[Tape], scripted: type[Any]) -> None:
    run = follow(
        scripted,
        bench.line(market=bench.market(AAPL=two_days(tape))),
        {"timeframe": bt.TimeFrame.Days, "useRTH": True},
    )
    assert rows(run) == [
        ("2026-03-02 21:00:00", 101.0, 103.0, 98.0, 100.5, 160.0),
        ("2026-03-03 21:00:00", 111.0, 113.0, 108.0, 110.5, 160.0),
    ]


def test_days_of_extended_hours_reach_beyond_midnight(
    bench: Bench, tape: type[Tape], scripted: type[Any]
) -> None:
    """The first day has begun hours before the run: it comes from history, once it is over."""
    run = follow(
        scripted,
        bench.line(market=bench.market(AAPL=two_days(tape))),
        {"timeframe": bt.TimeFrame.Days, "backfill_start": True},
    )
    assert rows(run)[-1] == ("2026-03-04 01:00:00", 111.0, 119.0, 101.0, 101.0, 320.0)
    assert rows(run)[-2][0] == "2026-03-03 01:00:00"


def test_a_day_that_had_begun_comes_from_history(bench: Bench, tape: type[Tape], scripted: type[Any]) -> None:
    line = bench.line(market=bench.market(AAPL=two_days(tape)))
    line.step(bench.opening(10_000))
    feed = {"dataname": "AAPL", "timeframe": bt.TimeFrame.Days, "useRTH": True, "backfill_start": True}
    marks: list[bool] = []
    run = follow(scripted, line, feed, script=lambda s: marks.append(s.data.back_filled))
    assert rows(run) == [
        ("2026-03-02 21:00:00", 101.0, 103.0, 98.0, 100.5, 160.0),
        ("2026-03-03 21:00:00", 111.0, 113.0, 108.0, 110.5, 160.0),
    ]
    assert marks == [True, False]


def test_week(bench: Bench, tape: type[Tape], scripted: type[Any]) -> None:
    """Evenings are no part of regular hours, though they lie between the first session and the last."""
    run = follow(
        scripted,
        bench.line(market=bench.market(AAPL=two_days(tape))),
        {"timeframe": bt.TimeFrame.Weeks, "useRTH": True},
    )
    assert rows(run) == [("2026-03-06 21:00:00", 101.0, 113.0, 98.0, 110.5, 320.0)]


def test_minutes_of_regular_hours(bench: Bench, tape: type[Tape], scripted: type[Any]) -> None:
    line = bench.line(market=bench.market(AAPL=two_days(tape)))
    run = follow(scripted, line, {"useRTH": True})
    assert [row[0] for row in rows(run)][3:5] == ["2026-03-02 21:00:00", "2026-03-03 14:31:00"]


def quiet(tape: type[Tape]) -> Tape:
    """Two trades around the close, and two around the opening of the next day."""
    made = tape().quote(0, 99.0, 101.0).trade(1, 100.0, 400).trade(CLOSE - 200, 101.0, 40)
    return made.trade(DAY + 130, 102.0, 40).trade(DAY + 250, 103.0, 40)


@pytest.mark.parametrize("policy", ["repeat", "nan"])
def test_empty_bars_are_inside_sessions_alone(
    bench: Bench, tape: type[Tape], scripted: type[Any], policy: str
) -> None:
    line = bench.line(market=bench.market(AAPL=quiet(tape)))
    line.step(bench.opening(CLOSE - 240))
    feed = {"dataname": "AAPL", "useRTH": True, "empty_bars": policy}
    found = rows(follow(scripted, line, feed))
    assert [row[0][5:16] for row in found] == [
        "03-02 20:57", "03-02 20:58", "03-02 20:59", "03-02 21:00",
        "03-03 14:31", "03-03 14:32", "03-03 14:33", "03-03 14:34", "03-03 14:35",
    ]  # fmt: skip
    closes = [row[4] for row in found]
    if policy == "repeat":
        assert closes == [101.0, 101.0, 101.0, 101.0, 101.0, 101.0, 102.0, 102.0, 103.0]
    else:
        assert [isnan(close) for close in closes] == [False, True, True, True, True, True, False, True, False]
    assert [row[5] for row in found] == [40.0, 0, 0, 0, 0, 0, 40.0, 0, 40.0]


def test_time_of_the_exchange(bench: Bench, tape: type[Tape], scripted: type[Any]) -> None:
    seen: list[Any] = []

    def look(strategy: Any) -> None:
        seen.append((strategy.data.datetime.datetime(0), bt.num2date(strategy.data.datetime[0])))

    prices = tape().every_second(130, lambda second: 100.0)
    line = bench.line(market=bench.market(AAPL=prices))
    fromdate = bench.opening(60).astimezone(ZoneInfo("America/New_York")).replace(tzinfo=None)
    line.step(bench.opening(121))
    bench.run(
        line,
        look,
        feeds=[{"dataname": "AAPL", "tz": "exchange", "backfill_start": True, "fromdate": fromdate}],
    )
    # Bars after the moment that the exchange's clock showed.
    assert [(str(local), str(utc)) for local, utc in seen] == [
        ("2026-03-02 09:32:00", "2026-03-02 14:32:00"),
        ("2026-03-02 09:33:00", "2026-03-02 14:33:00"),
    ]


def test_todate_ends_a_live_feed(bench: Bench, tape: type[Tape], scripted: type[Any]) -> None:
    prices = tape().every_second(600, lambda second: 100.0)
    todate = bench.opening(180).replace(tzinfo=None)
    run = bench.run(
        bench.line(market=bench.market(AAPL=prices)),
        feeds=[{"dataname": "AAPL", "todate": todate}, {"dataname": "AAPL", "name": "on"}],
    )
    assert [row[0] for row in rows(run)][-1] == "2026-03-02 14:33:00"
    assert run.strategy.told("AAPL")[-1] == "DISCONNECTED"
    assert len(rows(run, "on")) == 10


def test_another_feed_first(bench: Bench, tape: type[Tape], scripted: type[Any]) -> None:
    """What is stored, then history, then the stream: each bar once."""
    prices = tape().every_second(600, lambda second: 100.0 + second // 7)
    wanted = prices.bars(60)
    # Stored with marks of its own, so that the source of a bar shows.
    stored = wanted.iloc[:4] + 1000.0
    line = bench.line(market=bench.market(AAPL=prices))
    line.step(bench.opening(400))
    feed = {
        "dataname": "AAPL",
        "backfill_start": True,
        "backfill_from": bt.feeds.PandasData(dataname=stored, timeframe=bt.TimeFrame.Minutes),
    }
    run = bench.run(line, feeds=[feed, {"dataname": "AAPL", "name": "other", "backfill_start": True}])
    frame = run.strategy.frame("AAPL")
    pd.testing.assert_frame_equal(
        frame, pd.concat([stored, wanted.iloc[4:]]), check_names=False, check_index_type=False,
        check_dtype=False, check_freq=False,
    )  # fmt: skip
