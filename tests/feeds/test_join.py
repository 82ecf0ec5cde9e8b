"""History and live bars meet without gap, overlap or different stamp, whenever the run begins."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import backtrader as bt
import pandas as pd
import pytest

if TYPE_CHECKING:
    from tests.conftest import Bench, Tape

SECONDS = 1500
_chance = random.Random(11)
#: On edges, a moment before and after them, and anywhere.
MOMENTS = [600.0, 599.999, 600.001, 660.0, *(round(_chance.uniform(301, 1199), 3) for _ in range(4))]


def same(frame: pd.DataFrame, wanted: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(
        frame, wanted, check_names=False, check_freq=False, check_index_type=False, check_dtype=False,
        rtol=1e-9, atol=1e-9,
    )  # fmt: skip


def trades(tape: type[Tape], seconds: int = SECONDS, seed: int = 0, gap: float = 2.0) -> Tape:
    """Trades of whole lots of 40 shares, as IBKR's history counts volumes in hundreds and the like."""
    chance, made = random.Random(seed), tape()
    price, second = 100.0, 0.0
    while second < seconds:
        price = round(price + chance.choice((-0.02, -0.01, 0.0, 0.01, 0.02)), 2)
        made.quote(second, round(price - 0.01, 2), round(price + 0.01, 2), 400)
        made.trade(
            round(second + 0.0005, 3) if chance.random() < 0.5 else second, price, chance.randint(1, 9) * 40
        )
        edge = (second // 60 + 1) * 60
        second = edge if chance.random() < 0.05 else round(second + chance.expovariate(1 / gap) + 0.001, 3)
    return made


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("minutes", [1, 5])
def test_whole_series(bench: Bench, tape: type[Tape], moment: float, minutes: int) -> None:
    prices = trades(tape, seed=int(moment))
    line = bench.line(market=bench.market(AAPL=prices))
    line.step(bench.opening(moment))
    feed = {"dataname": "AAPL", "compression": minutes, "backfill_start": True}
    run = bench.run(line, feeds=[feed])
    same(run.strategy.frame("AAPL"), prices.bars(60 * minutes))
    assert run.strategy.told("AAPL") == ["CONNECTED", "DELAYED", "LIVE", "DISCONNECTED"]


@pytest.mark.parametrize("moment", [421.5, 480.0])
@pytest.mark.parametrize(("what", "column"), [("BID", "bid"), ("ASK", "ask"), ("MIDPOINT", "mid")])
def test_whole_series_of_quotes(
    bench: Bench, tape: type[Tape], what: str, column: str, moment: float
) -> None:
    """Every quote of this tape differs from the one before: history also counts quotes that repeat a price, the
    stream does not tell them."""
    chance, prices, bid = random.Random(5), tape(), 100.0
    for second in range(0, 900, 4):
        bid = round(bid + chance.choice((-0.02, -0.01, 0.01, 0.02)), 2)
        prices.quote(second + 0.5, bid, round(bid + 0.02, 2))
    line = bench.line(market=bench.market(AAPL=prices))
    line.step(bench.opening(moment))
    run = bench.run(line, feeds=[{"dataname": "AAPL", "what": what, "backfill_start": True}])
    frame, wanted = run.strategy.frame("AAPL"), prices.bars(60, column)
    same(frame[["open", "high", "low", "close"]], wanted[["open", "high", "low", "close"]])


def test_quiet_instrument_joins_too(bench: Bench, tape: type[Tape]) -> None:
    """Hardly a trade a minute, none at all around the join."""
    prices = tape().quote(0, 99.0, 101.0)
    for second in (5, 70, 75, 130, 500, 620, 621, 900, 1100):
        prices.trade(second, 100.0 + second / 100, 40)
    # Another one keeps the market going.
    market = bench.market(AAPL=prices, SPY=trades(tape, 1200))
    line = bench.line(market=market)
    line.step(bench.opening(300))
    run = bench.run(
        line,
        feeds=[{"dataname": "AAPL", "backfill_start": True}, {"dataname": "SPY", "backfill_start": True}],
    )
    same(run.strategy.frame("AAPL"), prices.bars(60))


def test_from_a_date(bench: Bench, tape: type[Tape]) -> None:
    prices = trades(tape)
    line = bench.line(market=bench.market(AAPL=prices))
    line.step(bench.opening(700))
    fromdate = bench.opening(300).replace(tzinfo=None)
    run = bench.run(line, feeds=[{"dataname": "AAPL", "backfill_start": True, "fromdate": fromdate}])
    wanted = prices.bars(60)
    # Nothing of before that moment: the bar that ends then is not wanted.
    same(run.strategy.frame("AAPL"), wanted[wanted.index > fromdate])


def test_as_many_bars_as_asked(bench: Bench, tape: type[Tape]) -> None:
    prices = trades(tape)
    line = bench.line(market=bench.market(AAPL=prices))
    line.step(bench.opening(700))
    run = bench.run(line, feeds=[{"dataname": "AAPL", "backfill_start": True, "backfill_bars": 4}])
    frame = run.strategy.frame("AAPL")
    wanted = prices.bars(60)
    same(frame, wanted.iloc[-len(frame) :])
    assert sum(frame.index <= pd.Timestamp("2026-03-02 14:41:40")) == 4


def test_no_bars_asked_none_had(bench: Bench, tape: type[Tape]) -> None:
    """0 is no history, rather than all that there is."""
    prices = trades(tape)
    line = bench.line(market=bench.market(AAPL=prices))
    line.step(bench.opening(700))
    run = bench.run(line, feeds=[{"dataname": "AAPL", "backfill_start": True, "backfill_bars": 0}])
    frame = run.strategy.frame("AAPL")
    wanted = prices.bars(60)
    same(frame, wanted.iloc[-len(frame) :])
    assert not (frame.index <= pd.Timestamp("2026-03-02 14:41:40")).any()


def test_historical(bench: Bench, tape: type[Tape]) -> None:
    prices = trades(tape)
    line = bench.line(market=bench.market(AAPL=prices))
    line.step(bench.opening(1400))
    feed = {
        "dataname": "AAPL",
        "historical": True,
        "fromdate": bench.opening(240).replace(tzinfo=None),
        "todate": bench.opening(900).replace(tzinfo=None),
    }
    run = bench.run(line, feeds=[feed])
    wanted = prices.bars(60)
    inside = (wanted.index > feed["fromdate"]) & (wanted.index <= feed["todate"])
    frame = run.strategy.frame("AAPL")
    same(frame.iloc[-sum(inside) :], wanted[inside])
    assert run.strategy.told("AAPL") == ["CONNECTED", "DISCONNECTED"]
    assert not run.line.emulator.call(lambda server: server.core.hub.has_market_data(265598))


def test_historical_days(bench: Bench) -> None:
    """Days before a synthetic market's own."""
    line = bench.line(synthetic_instruments=("AAPL",), history_days=5)
    feed = {
        "dataname": "AAPL",
        "timeframe": bt.TimeFrame.Days,
        "historical": True,
        "fromdate": datetime(2026, 2, 1, tzinfo=UTC),
    }
    run = bench.run(line, feeds=[feed])
    frame = run.strategy.frame("AAPL")
    assert len(frame) == 5
    assert (frame["high"] >= frame["low"]).all()
    assert frame.index.is_monotonic_increasing


def test_history_that_fails_is_told_and_the_feed_goes_on(bench: Bench, tape: type[Tape]) -> None:
    prices = trades(tape, 600)
    line = bench.line(market=bench.market(AAPL=prices))
    line.step(bench.opening(130))
    from bt_ibkr.errors import HistoryError

    def refuse(cerebro: Any) -> None:
        async def bars(request: Any) -> Any:
            raise HistoryError("no permission")

        line.store.start()
        line.store.connection._brokerage.history.bars = bars  # type: ignore[attr-defined]

    run = bench.run(line, feeds=[{"dataname": "AAPL", "backfill_start": True}], before=refuse)
    wanted = prices.bars(60)
    live = wanted.index > pd.Timestamp("2026-03-02 14:33")
    frame = run.strategy.frame("AAPL")
    same(frame, wanted[live])
    assert "history-failed" in [message for message, *_ in run.strategy.messages]


def break_socket(line: Any) -> None:
    """Close the client's socket at the emulator, as a gateway that restarts does."""

    def close(server: Any) -> None:
        import asyncio

        for ws in list(server._sockets):
            task = asyncio.get_running_loop().create_task(ws.close(code=1001))
            server._tasks.add(task)
            task.add_done_callback(server._tasks.discard)

    line.emulator.call(close)


@pytest.mark.parametrize("at", [3, 8])
@pytest.mark.parametrize("minutes", [1, 5])
def test_broken_socket_leaves_no_trace_in_the_series(
    bench: Bench, tape: type[Tape], at: int, minutes: int
) -> None:
    prices = trades(tape, 1800, seed=at)
    line = bench.line(market=bench.market(AAPL=prices))
    line.step(bench.opening(90))
    broken: list[int] = []

    def script(strategy: Any) -> None:
        if not broken and line.clock.now_ns() >= bench.opening(at * 120).timestamp() * 1e9:
            broken.append(at)
            break_socket(line)

    feeds = [
        {"dataname": "AAPL", "compression": minutes, "backfill_start": True, "name": "bars"},
        {"dataname": "AAPL", "name": "pulse", "timeframe": bt.TimeFrame.Seconds, "compression": 5},
    ]
    run = bench.run(line, script, feeds=feeds[: 1 if minutes == 1 else 2])
    assert broken
    same(run.strategy.frame("bars"), prices.bars(60 * minutes))
    assert run.strategy.told("bars") == [
        "CONNECTED", "DELAYED", "LIVE", "CONNBROKEN", "DELAYED", "LIVE", "DISCONNECTED",
    ]  # fmt: skip
    assert [m for m, *_ in run.strategy.messages if m in ("disconnected", "streaming")][-2:] == [
        "disconnected",
        "streaming",
    ]


def test_gap_is_told_where_history_is_not_wanted(bench: Bench, tape: type[Tape]) -> None:
    prices = trades(tape, 900)
    line = bench.line(market=bench.market(AAPL=prices))

    def script(strategy: Any) -> None:
        if len(strategy) == 3:
            break_socket(line)

    run = bench.run(line, script, feeds=[{"dataname": "AAPL", "backfill": False}])
    wanted = prices.bars(60)
    frame = run.strategy.frame("AAPL")
    # What is delivered is right; what is missing is told.
    same(frame, wanted.loc[frame.index])
    told = [(args, kwargs) for message, args, kwargs in run.strategy.messages if message == "gap"]
    # The session's own word on the break, and the feed's on the bars.
    ((gap, about),) = [(args, kwargs) for args, kwargs in told if kwargs]
    assert len(told) == 2
    assert gap == ("AAPL",)
    assert 0 < about["start_ns"] <= about["end_ns"]
    missing = wanted.index.difference(frame.index)
    assert len(missing) <= 1


def test_orders_survive_a_broken_socket(bench: Bench, tape: type[Tape]) -> None:
    """Filled while nobody listened: the execution is replayed, once."""
    prices = tape().every_second(600, lambda s: 100.0 if s < 200 else 98.0)
    line = bench.line(market=bench.market(AAPL=prices))

    def script(strategy: Any) -> None:
        if len(strategy) == 1:
            strategy.orders = [strategy.buy(size=10, exectype=bt.Order.Limit, price=99.0)]
        elif len(strategy) == 3:
            break_socket(line)
            line.emulator.call(
                lambda server: server.core.engine.advance(until_ns=server.core.now_ns + 40 * 10**9)
            )

    run = bench.run(line, script)
    (order,) = run.strategy.orders
    assert run.strategy.statuses(order) == ["Submitted", "Accepted", "Completed 10"]
    run.agree()


def test_day_is_joined_with_the_days_before(bench: Bench, tape: type[Tape]) -> None:
    """A new trading day: history reaches over the night."""
    prices = trades(tape, 400)
    for second in range(0, 400, 7):
        prices.trade(86_400 + second, 105.0, 40)
    line = bench.line(market=bench.market(AAPL=prices))
    line.step(bench.opening(86_400 + 200))
    run = bench.run(line, feeds=[{"dataname": "AAPL", "backfill_start": True}])
    same(run.strategy.frame("AAPL"), prices.bars(60))
    assert run.strategy.frame("AAPL").index[0] == pd.Timestamp("2026-03-02 14:31")
    assert (
        timedelta(hours=23) < run.strategy.frame("AAPL").index.to_series().diff().max() < timedelta(hours=25)
    )
