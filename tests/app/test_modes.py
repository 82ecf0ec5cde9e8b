"""Whole runs: repeatable, with the books in agreement, and the same in a backtest where they must be."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from bt_ibkr.app.market import parse_moment
from bt_ibkr.app.result import RunResult
from bt_ibkr.app.run import RunRequest, Stopper, run_backtest, run_sim

SHARED = Path(__file__).resolve().parents[3] / "shared"
Fill = tuple[datetime, str, str, float, float, float]


def without_epoch(key: str | None) -> str:
    """Strategy and number of an order."""
    name, _, number = str(key).split(".")
    return f"{name}.{number}"


def fills(result: RunResult) -> list[Fill]:
    """Bar (its right edge), symbol, side, size, price and commission of every execution.

    A backtest stamps an execution with its bar's right edge, a live one with its moment.
    """
    found = []
    for e in result.executions:
        moment = datetime.fromisoformat(e.time).replace(tzinfo=None)
        edge = moment.replace(second=0, microsecond=0)
        if result.mode == "sim" or edge != moment:
            edge += timedelta(minutes=1)
        found.append((edge, e.symbol, e.side, e.size, e.price, e.commission))
    # Two instruments that fill in one bar: live in the order of their ticks.
    return sorted(found)


@pytest.fixture(scope="module")
def real() -> tuple[RunRequest, RunResult]:
    """A run over a day of real ticks."""
    file = SHARED / "data" / "ticks_IBM_2013-10-07.parquet"
    if not file.is_file():
        pytest.skip("the market data beside the repository is not there")
    request = RunRequest(strategy="sma_cross", market=(str(file),), fill="last")
    return request, run_sim(request)


def test_real_ticks_twice_give_equal_executions(real: tuple[RunRequest, RunResult]) -> None:
    request, first = real
    second = run_sim(request)
    assert first.errors == second.errors == []
    assert first.bars > 400
    assert first.trades >= 3
    # Each run's journal has an epoch of its own.
    executions = [
        [structs.replace(e, order_ref=without_epoch(e.order_ref)) for e in run.executions]
        for run in (first, second)
    ]
    assert executions[0] == executions[1]
    # backtrader numbers orders through all runs of a process.
    orders = [
        [structs.replace(o, ref=0, coid=without_epoch(o.coid)) for o in run.orders] for run in (first, second)
    ]
    assert orders[0] == orders[1]
    assert (first.cash, first.position) == (second.cash, second.position)


def test_real_ticks_fill_as_in_a_backtest(real: tuple[RunRequest, RunResult]) -> None:
    request, live = real
    past = run_backtest(request)
    assert len(live.executions) >= 10
    assert fills(live) == fills(past)
    assert live.cash == pytest.approx(past.cash)
    assert live.bars == past.bars


@pytest.mark.parametrize("strategy", ["sma_cross", "pairs"])
def test_synthetic_day_fills_as_in_a_backtest(strategy: str) -> None:
    request = RunRequest(strategy=strategy, fill="last")
    live, past = run_sim(request), run_backtest(request)
    assert live.errors == []
    assert live.trades >= 4
    assert len({e.symbol for e in live.executions}) == 2
    assert fills(live) == fills(past)
    assert live.cash == pytest.approx(past.cash)
    assert {name: p.size for name, p in live.position.items()} == {
        name: p.size for name, p in past.position.items()
    }


def test_bracket_strategy_agrees_with_the_ledger() -> None:
    result = run_sim(
        RunRequest(strategy="bracket_breakout", data=("AAPL",), end_ns=parse_moment("2026-03-02T18:00"))
    )
    assert result.errors == []
    assert result.trades >= 5
    # Of each bracket that has ended two orders filled and one was cancelled; the last one may still stand.
    states = Counter(order.status for order in result.orders)
    standing = bool(result.position["AAPL"].size)
    assert states["Completed"] == 2 * result.trades + standing
    assert states["Canceled"] == result.trades
    assert states["Accepted"] == 2 * standing


@pytest.mark.parametrize("speed", ["3600", "max"])
def test_markets_that_run_by_themselves_end_by_themselves(speed: str) -> None:
    request = RunRequest(strategy="sma_cross", data=("AAPL",), speed=speed, assignments=("fast=3", "slow=8"))
    if speed == "3600":
        request = structs.replace(request, end_ns=parse_moment("2026-03-02T15:00"))
    result = run_sim(request)
    assert result.errors == []
    assert result.bars >= (29 if speed == "3600" else 390)
    assert result.ended


def test_bounds_of_time() -> None:
    request = RunRequest(
        strategy="sma_cross",
        data=("AAPL",),
        start_ns=parse_moment("2026-03-02T15:00"),
        end_ns=parse_moment("2026-03-02T15:30"),
        assignments=("fast=2", "slow=5"),
        fill="last",
    )
    live, past = run_sim(request), run_backtest(request)
    assert live.bars == past.bars == 30
    assert live.errors == []
    # Orders of the last bar find no further print.
    assert fills(live) == fills(past)


def test_run_that_is_stopped_ends_in_order() -> None:
    stopper = Stopper()

    class Listener:
        bars = 0

        def on_bar(self, strategy: Any, time_ns: int) -> None:
            self.bars += 1
            if self.bars == 5:
                stopper()

        def on_order(self, order: Any) -> None: ...
        def on_trade(self, trade: Any) -> None: ...
        def on_data(self, data: Any, status: str) -> None: ...
        def on_store(self, message: Any, args: Any, kwargs: Any) -> None: ...

    result = run_sim(RunRequest(strategy="sma_cross", data=("AAPL",)), Listener(), stopper)
    assert 5 <= result.bars <= 6
    assert result.errors == []


def test_disagreement_is_found() -> None:
    """An execution that the broker never saw shows in the comparison with the emulator's ledger."""
    from bt_ibkr.app import sim

    request = RunRequest(
        strategy="sma_cross", data=("AAPL",), end_ns=parse_moment("2026-03-02T16:00"),
        assignments=("fast=3", "slow=8"),
    )  # fmt: skip
    seen: list[list[str]] = []

    def compare(ledger: Any, broker: Any, result: RunResult, *, own: bool) -> list[str]:
        assert ledger["executions"]
        broker.executions.pop()
        seen.append(real(ledger, broker, result, own=own))
        return []

    real = sim._differences
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sim, "_differences", compare)
        run_sim(request)
    assert len(seen[0]) == 1
    assert "did not reach the strategy" in seen[0][0]
