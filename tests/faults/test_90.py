"""Fault 90: the clocks change, days end early or are holidays, midnight in UTC lies inside a session."""

from __future__ import annotations

from collections import deque
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import backtrader as bt
import pandas as pd

from bt_ibkr.clock import NS_PER_S
from bt_ibkr.feeds.bars import PriceSource
from bt_ibkr.feeds.edges import DayEdges, Period
from bt_ibkr.feeds.join import StreamJoin
from bt_ibkr.model.contract import Contract, SecurityType
from bt_ibkr.model.market import DataQuality, Tick
from bt_ibkr.services.calendars import calendar_of

if TYPE_CHECKING:
    from tests.conftest import Bench

COLUMNS = ("bid", "bid_size", "ask", "ask_size", "last", "last_size")


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def days_of(
    bench: Bench, scripted: type[Any], trades: dict[str, float], **feed: Any
) -> list[tuple[str, float]]:
    """Live daily bars of trades at moments in UTC: when each ends, and its close."""
    first = at(min(trades)) - timedelta(seconds=5)
    rows: list[dict[str, Any]] = [{"ts": first, "bid": 1.0, "ask": 999.0, "bid_size": 1.0, "ask_size": 1.0}]
    size = 8_000_000.0
    for moment, price in sorted(trades.items()):
        rows.append({"ts": at(moment), "last": price, "last_size": size})
        # A day's volume that begins anew is then told from one that goes on.
        size /= 10
    frame = pd.DataFrame(rows, columns=["ts", *COLUMNS]).astype(dict.fromkeys(COLUMNS, float))
    line = bench.line(market=bench.market(AAPL=frame), heartbeat_s=600.0)
    line.lockstep()
    cerebro = bt.Cerebro(quicknotify=True, stdstats=False)
    given = {"timeframe": bt.TimeFrame.Days, "backfill_start": False, "useRTH": True} | feed
    cerebro.adddata(line.store.getdata(dataname="AAPL", **given), name="AAPL")
    cerebro.addstrategy(scripted)
    with line.store:
        (strategy,) = cerebro.run()
    return [(str(row[0]), row[4]) for row in strategy.rows["AAPL"]]


def built(trades: dict[str, float], period: Period = Period.DAY) -> list[tuple[str, float]]:
    """The same of regular hours, without a server: half a year would take it a while."""
    contract = Contract(conid=1, symbol="X", security_type=SecurityType.STOCK, listing_exchange="NYSE")
    join = StreamJoin(
        DayEdges(period, calendar_of(contract), extended=False),
        PriceSource.TRADES,
        fetch_start=False,
        fetch_gaps=False,
    )
    moments = {int(at(text).timestamp()) * NS_PER_S: price for text, price in trades.items()}
    join.begin(min(moments) - 2 * NS_PER_S)
    for time_ns, price in sorted(moments.items()):
        quote = (None, None, None, None)
        tick = Tick(time_ns, 1, *quote, price, None, 1.0, None, DataQuality.REALTIME, False, time_ns)
        join.take(deque([tick]))
        join.advance(time_ns)
    join.advance(max(moments), over=True)
    return [(str(pd.Timestamp(one.bar.end_ns)), one.bar.close) for one in join.queue]


def test_90_the_clocks_go_forward() -> None:
    """On Sunday, 8 March."""
    trades = {
        "2026-03-06T14:29:00": 9.0,
        "2026-03-06T20:59:59": 1.0,
        "2026-03-06T21:00:01": 9.0,
        "2026-03-09T13:30:01": 2.0,
        "2026-03-09T19:59:00": 3.0,
        "2026-03-09T20:30:00": 9.0,
    }
    assert built(trades) == [("2026-03-06 21:00:00", 1.0), ("2026-03-09 20:00:00", 3.0)]


def test_90_half_day_after_a_holiday() -> None:
    trades = {
        "2026-11-25T14:29:00": 9.0,
        "2026-11-25T20:59:00": 1.0,
        "2026-11-27T14:31:00": 2.0,
        "2026-11-27T17:59:59": 3.0,
        "2026-11-27T18:00:30": 9.0,
    }
    assert built(trades) == [("2026-11-25 21:00:00", 1.0), ("2026-11-27 18:00:00", 3.0)]
    # Of a week that is seen from its beginning.
    assert built({"2026-11-23T14:29:00": 9.0} | trades, Period.WEEK) == [("2026-11-27 18:00:00", 3.0)]


def test_90_months() -> None:
    """October's last session is on a Friday; the clocks go back on the Sunday after it."""
    trades = {
        "2026-09-30T21:00:00": 9.0,
        "2026-10-01T13:30:00": 1.0,
        "2026-10-30T19:59:00": 2.0,
        "2026-11-02T14:30:00": 3.0,
    }
    assert built(trades, Period.MONTH) == [("2026-10-30 20:00:00", 2.0), ("2026-11-30 21:00:00", 3.0)]


def test_90_midnight_in_utc_is_inside_the_session(bench: Bench, scripted: type[Any]) -> None:
    """20:00 in New York is 01:00 of the next day in UTC: one bar, whatever the date there."""
    trades = {
        "2026-03-02T08:59:00": 9.0,
        "2026-03-02T09:00:05": 1.0,
        "2026-03-02T23:59:59": 2.0,
        "2026-03-03T00:30:00": 3.0,
        "2026-03-03T09:00:10": 4.0,
    }
    found = days_of(bench, scripted, trades, useRTH=False)
    assert found == [("2026-03-03 01:00:00", 3.0), ("2026-03-04 01:00:00", 4.0)]
