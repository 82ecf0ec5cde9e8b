"""The book as a feed of its own, over sockets and through cerebro."""

from __future__ import annotations

import math
from typing import Any

import backtrader as bt
import pytest

from bt_ibkr.errors import DepthError, UsageError
from bt_ibkr.feeds.depth import DepthBacklog, IBKRDepth, depth_feed, middle
from bt_ibkr.model.market import DepthBook, DepthLevel


class Watcher(bt.Strategy):  # type: ignore[misc]
    """Keeps what each feed delivered."""

    def __init__(self) -> None:
        self.books: list[tuple[Any, ...]] = []
        self.bars: list[float] = []
        self.moments: list[float] = []
        self.told: list[str] = []

    def notify_data(self, data: Any, status: int, *args: Any, **kwargs: Any) -> None:
        self.told.append(data._getstatusname(status))

    def prenext(self) -> None:
        self.next()

    def next(self) -> None:
        for data in self.datas:
            if len(data) and data.datetime[0] == max(one.datetime[0] for one in self.datas if len(one)):
                self.moments.append(data.datetime[0])
        depth = self.datas[0]
        if len(depth) > len(self.books):
            row = tuple(
                getattr(depth, name)[0]
                for name in ("bid0", "bid_size0", "ask0", "ask_size0", "bid2", "ask2", "close")
            )
            self.books.append(row)
        if len(self.datas) > 1 and len(self.datas[1]) > len(self.bars):
            self.bars.append(self.datas[1].datetime[0])


def run(
    bench: Any, *feeds: dict[str, Any], levels: int = 3, minutes: int = 3, **line: Any
) -> tuple[Any, Any]:
    made = bench.line(**line)
    made.step(bench.opening(60))
    cerebro = bt.Cerebro(quicknotify=True, stdstats=False)
    cerebro.adddata(made.store.getdepth(levels=levels, dataname="AAPL"), name="book")
    for feed in feeds:
        cerebro.adddata(made.store.getdata(backfill_start=False, **feed), name=feed["dataname"])
    cerebro.addstrategy(Watcher)
    end = bench.opening(60 + 60 * minutes)
    made.lockstep(int(bench.epoch(end) * 1e9))
    with made.store:
        (strategy,) = cerebro.run()
    return made, strategy


def test_books_reach_the_strategy(bench: Any) -> None:
    _, strategy = run(bench)
    assert len(strategy.books) > 20
    for bid, bid_size, ask, ask_size, deep, high, close in strategy.books:
        assert deep < bid < ask < high
        assert bid_size > 0 < ask_size
        assert close == pytest.approx((bid + ask) / 2)
    assert strategy.told == ["CONNECTED", "LIVE", "DISCONNECTED"]
    assert strategy.moments == sorted(strategy.moments)


def test_beside_bars_of_the_same_instrument(bench: Any) -> None:
    """Bars come when they are due, in order of time with the books."""
    feed = {"dataname": "AAPL", "timeframe": bt.TimeFrame.Minutes}
    _, strategy = run(bench, feed, minutes=4)
    assert len(strategy.books) > 20
    assert len(strategy.bars) >= 3
    assert strategy.moments == sorted(strategy.moments)


def test_a_second_ladder_is_refused(bench: Any) -> None:
    made = bench.line()
    cerebro = bt.Cerebro(stdstats=False)
    for name in ("AAPL", "SPY"):
        cerebro.adddata(made.store.getdepth(dataname=name), name=name)
    cerebro.addstrategy(Watcher)
    with made.store, pytest.raises(DepthError, match=r"AAPL.*SPY"):
        cerebro.run()


def test_levels() -> None:
    assert IBKRDepth.levels == 5
    assert depth_feed(5) is IBKRDepth
    assert "ask_size9" in depth_feed(10).lines.getlinealiases()
    assert "bid5" not in IBKRDepth.lines.getlinealiases()
    for levels in (0, 51):
        with pytest.raises(UsageError, match=f"{levels} levels"):
            depth_feed(levels)


def test_bars_of_a_length_are_refused(bench: Any) -> None:
    made = bench.line()
    with pytest.raises(UsageError, match="no bars of a length"):
        made.store.getdepth(dataname="AAPL", timeframe=bt.TimeFrame.Minutes)


def book(bids: tuple[float, ...] = (), asks: tuple[float, ...] = (), last: float | None = None) -> DepthBook:
    return DepthBook(
        conid=1,
        time_ns=1,
        bids=tuple(DepthLevel(price, 1.0) for price in bids),
        asks=tuple(DepthLevel(price, 1.0) for price in asks),
        last_price=last,
    )


def test_the_middle() -> None:
    assert middle(book((10.0, 9.0), (11.0,))) == 10.5
    assert middle(book((10.0,), (), 10.2)) == 10.2
    assert middle(book((), (11.0,))) == 11.0
    assert math.isnan(middle(book()))


def test_a_slow_strategy_gets_the_newest_books() -> None:
    waiting = DepthBacklog(3)
    for price in range(1, 6):
        waiting.append(book((float(price),)))
    assert [one.bids[0].price for one in waiting] == [3.0, 4.0, 5.0]
    assert waiting.dropped == 2


def test_scans_name_feeds(bench: Any) -> None:
    made = bench.line()
    made.step(bench.opening(60))
    with made.store:
        rows = made.store.scan("MOST_ACTIVE", filters={"priceAbove": 1}, most=2)
        assert len(rows) == 2
        feed = made.store.getdata(dataname=rows[0].dataname)
        assert made.store.connection.resolve(feed.query).symbol == rows[0].symbol
