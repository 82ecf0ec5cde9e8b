"""The strategies that ship: what they decide, and what they wait for."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import backtrader as bt
import pytest

from bt_ibkr.risk import RiskLimits
from bt_ibkr.strategies import BracketBreakout, Pairs, SmaCross

if TYPE_CHECKING:
    from tests.conftest import Bench, Tape

#: By minute: falls, rises, falls, rises.
WAVES = [100, 99, 98, 97, 96, 99, 102, 105, 108, 105, 102, 99, 96, 99, 102, 105, 108]

#: Orders may leave although the instrument is halted.
WHILE_HALTED = RiskLimits(allow_halted=True)


def by_minute(values: Sequence[float]) -> Any:
    return lambda second: float(values[second // 60])


def test_sma_cross_buys_and_sells_at_the_crossings(bench: Bench, tape: type[Tape]) -> None:
    prices = tape().every_second(60 * len(WAVES), by_minute(WAVES))
    run = bench.run(bench.line(market=bench.market(AAPL=prices)), strategy=SmaCross, fast=2, slow=4, size=30)
    executions = [(e.side.value, int(e.quantity), e.time_ns) for _, e in run.broker.executions]
    assert [(side, size) for side, size, _ in executions] == [("BUY", 30), ("SELL", 30), ("BUY", 30)]

    averages = {n: [sum(WAVES[k - n + 1 : k + 1]) / n for k in range(n - 1, len(WAVES))] for n in (2, 4)}
    difference = [fast - slow for fast, slow in zip(averages[2][2:], averages[4], strict=True)]
    signs = [(k + 4, value > 0) for k, value in enumerate(difference) if value]
    crossings = [bar for (_, before), (bar, after) in pairwise(signs) if before is not after]
    opened = int(bench.opening(0).timestamp())
    assert [time_ns // 1_000_000_000 - opened for _, _, time_ns in executions] == [60 * k for k in crossings]
    run.agree()


def test_sma_cross_only_warms_up_on_history(bench: Bench, tape: type[Tape]) -> None:
    """All crossings but the last are of the past when the run begins."""
    prices = tape().every_second(60 * len(WAVES), by_minute(WAVES))
    line = bench.line(market=bench.market(AAPL=prices))
    line.step(bench.opening(60 * 12 + 30))
    run = bench.run(
        line, strategy=SmaCross, fast=2, slow=4, feeds=[{"dataname": "AAPL", "backfill_start": True}]
    )
    assert [e.side.value for _, e in run.broker.executions] == ["BUY"]
    assert not [o for o in run.broker.orders if o.status == bt.Order.Rejected]
    run.agree()


def test_sma_cross_waits_for_its_order(bench: Bench, tape: type[Tape]) -> None:
    """Nobody sells the size wanted: the order is working for minutes, and no second one is sent."""
    prices = tape().every_second(60 * len(WAVES), by_minute(WAVES), size=1)
    run = bench.run(bench.line(market=bench.market(AAPL=prices)), strategy=SmaCross, fast=2, slow=4, size=150)
    for before, after in pairwise(run.broker.orders):
        assert before.status == bt.Order.Completed
        assert before.executed.dt <= after.created.dt
    assert len(run.broker.executions) > 150
    run.agree()


def halted(line: Any, conid: int) -> Any:
    """Prices go on, but nothing trades with us."""
    return lambda cerebro: line.control.post("/halt", {"conid": conid, "on": True})


def test_sma_cross_sends_nothing_while_an_order_works(bench: Bench, tape: type[Tape]) -> None:
    prices = tape().every_second(60 * len(WAVES), by_minute(WAVES))
    line = bench.line(market=bench.market(AAPL=prices), store={"risk": WHILE_HALTED})
    run = bench.run(line, strategy=SmaCross, fast=2, slow=4, before=halted(line, 265598))
    (order,) = run.broker.orders
    assert order.status == bt.Order.Accepted


def test_sma_cross_follows_several_instruments_apart(bench: Bench, tape: type[Tape]) -> None:
    up = tape().every_second(60 * len(WAVES), by_minute(WAVES))
    down = tape().every_second(60 * len(WAVES), by_minute([200 - value for value in WAVES]))
    run = bench.run(
        bench.line(market=bench.market(AAPL=up, IBM=down)),
        strategy=SmaCross, fast=2, slow=4, feeds=[{"dataname": "AAPL"}, {"dataname": "IBM"}],
    )  # fmt: skip
    sides: dict[str, list[str]] = {"AAPL": [], "IBM": []}
    for _, execution in run.broker.executions:
        sides[execution.symbol].append(execution.side.value)
    assert sides == {"AAPL": ["BUY", "SELL", "BUY"], "IBM": ["BUY", "SELL"]}
    run.agree()


def test_bracket_breakout_has_one_bracket_at_a_time(bench: Bench, tape: type[Tape]) -> None:
    values = [100.0 + (k % 3) for k in range(8)] + [104.0, 105.0, 112.0, 100.0, 101.0, 102.0, 110.0, 90.0]
    prices = tape().every_second(60 * len(values), by_minute(values))
    run = bench.run(bench.line(market=bench.market(AAPL=prices)), strategy=BracketBreakout, period=5, size=10)
    orders = run.broker.orders
    assert orders
    assert len(orders) % 3 == 0
    for k in range(0, len(orders), 3):
        entry, stop, limit = orders[k : k + 3]
        assert entry.status == bt.Order.Completed
        assert stop.price < entry.created.price < limit.price
        assert all(round(price * 100) == pytest.approx(price * 100) for price in (stop.price, limit.price))
    run.agree()


def test_pairs_needs_two_instruments(bench: Bench, tape: type[Tape]) -> None:
    line = bench.line(market=bench.market(AAPL=tape().every_second(120, lambda s: 100.0)))
    with pytest.raises(ValueError, match="exactly two instruments, not 1"):
        bench.run(line, strategy=Pairs)


def test_pairs_opens_both_legs_and_closes_them(bench: Bench, tape: type[Tape]) -> None:
    wobble = [0.0, 0.1, -0.1, 0.1, -0.1, 0.0, 0.1, -0.1, 0.1, 5.0, 5.0, *([0.1, -0.1, 0.0] * 4)]
    first = tape().every_second(60 * len(wobble), by_minute([100 + value for value in wobble]))
    second = tape().every_second(60 * len(wobble), lambda s: 50.0)
    run = bench.run(
        bench.line(market=bench.market(AAPL=first, IBM=second)),
        strategy=Pairs, period=8, entry=2.0, exit=0.5, value=10_000.0,
        feeds=[{"dataname": "AAPL"}, {"dataname": "IBM"}],
    )  # fmt: skip
    done = [(e.symbol, e.side.value, int(e.quantity)) for _, e in run.broker.executions]
    # Above its mean the first is sold and the second bought, for the same value; then both are closed.
    assert done == [("AAPL", "SELL", 95), ("IBM", "BUY", 200), ("AAPL", "BUY", 95), ("IBM", "SELL", 200)]
    assert not any(position.size for position in run.broker.positions.values())
    run.agree()


def test_pairs_decides_nothing_while_a_leg_works(bench: Bench, tape: type[Tape]) -> None:
    wobble = [0.0, 0.1, -0.1, 0.1, -0.1, 0.0, 0.1, -0.1, 0.1, 5.0, 5.0, *([0.1, -0.1, 0.0] * 4)]
    first = tape().every_second(60 * len(wobble), by_minute([100 + value for value in wobble]))
    second = tape().every_second(60 * len(wobble), lambda s: 50.0)
    line = bench.line(market=bench.market(AAPL=first, IBM=second), store={"risk": WHILE_HALTED})
    run = bench.run(
        line,
        strategy=Pairs, period=8, entry=2.0, exit=0.5, value=10_000.0,
        feeds=[{"dataname": "AAPL"}, {"dataname": "IBM"}],
        before=halted(line, 8314),
    )  # fmt: skip
    assert [order.status for order in run.broker.orders] == [bt.Order.Completed, bt.Order.Accepted]
