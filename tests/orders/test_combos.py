"""Combos as one instrument, from the feed to the emulator's ledger and back."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import backtrader as bt
import pytest

from bt_ibkr.risk import RiskLimits

if TYPE_CHECKING:
    from tests.conftest import Bench, Line, Run, Tape

COMBO = "COMBO:AAPL*1,MSFT*-2"
FEEDS = [{"dataname": COMBO}, {"dataname": "AAPL"}, {"dataname": "MSFT"}]
#: Bought at once 200.02 - 2 * 150.00, sold at once 200.00 - 2 * 150.02.
ASK, BID = -99.98, -100.04
AtBar = Callable[..., Callable[[Any], None]]


@pytest.fixture
def pair(bench: Bench, tape: type[Tape]) -> Callable[..., Line]:
    """AAPL at 200 and MSFT at 150, in sizes as given; from second 150 AAPL is at ``later``."""

    def make(size: float = 1000, later: float = 200.0, seconds: int = 420, **settings: Any) -> Line:
        apple, soft = tape(), tape()
        for second in range(0, seconds, 5):
            price = 200.0 if second < 150 else later
            apple.quote(second, price, price + 0.02, size)
            apple.trade(second + 1, price + 0.01)
            soft.quote(second, 150.0, 150.02, size)
            soft.trade(second + 1, 150.01)
        return bench.line(market=bench.market(AAPL=apple, MSFT=soft), **settings)

    return make


def holdings(run: Run) -> dict[int, float]:
    rows = run.account["positions"].items()
    return {int(conid): float(row["quantity"]) for conid, row in rows if float(row["quantity"])}


def agree(run: Run) -> None:
    """Legs, cash and executions are the emulator's."""
    legs = run.strategy.datas[1:]
    held = {data.contract.conid: run.broker.getposition(data).size for data in legs}
    assert {conid: size for conid, size in held.items() if size} == holdings(run)
    assert run.broker.getcash() == pytest.approx(float(run.account["cash"]["USD"]), abs=0.005)
    ours = sorted(execution.execution_id for _, execution in run.broker.executions)
    assert ours == sorted(row["execution_id"] for row in run.ledger["executions"])
    assert not run.broker.problems


def test_bought_and_sold_as_one(bench: Bench, pair: Any, at_bar: AtBar) -> None:
    seen: list[tuple[float, ...]] = []

    def look(strategy: Any) -> None:
        combo, apple, soft = (strategy.getposition(data) for data in strategy.datas)
        seen.append((combo.size, round(combo.price, 6), apple.size, soft.size))

    run = bench.run(
        pair(), at_bar(lambda s: s.buy(s.data0, size=5), look, lambda s: s.close(s.data0), look), feeds=FEEDS
    )
    bought, sold = run.strategy.orders
    assert run.strategy.statuses(bought) == ["Submitted", "Accepted", "Completed 5"]
    assert run.strategy.statuses(sold) == ["Submitted", "Accepted", "Completed -5"]
    assert (bought.executed.price, sold.executed.price) == (ASK, BID)
    assert seen == [(5, ASK, 5, -10), (0, 0.0, 0, 0)]
    # One order each way at IBKR, told by the whole and by its legs.
    orders = run.ledger["orders"]
    assert len(orders) == 2
    assert len(run.ledger["executions"]) == 6
    agree(run)
    # The trade of the whole, and those of its legs.
    closed = sorted(pnl for status, _, pnl, *_ in run.strategy.trades if status == bt.Trade.Closed)
    assert closed == pytest.approx([-0.3, -0.2, -0.1])
    spent = 1_000_000 - run.broker.getcash()
    assert spent == pytest.approx(5 * (ASK - BID) + bought.executed.comm + sold.executed.comm)


def test_limit_below_zero_waits_for_its_price(bench: Bench, pair: Any, at_bar: AtBar) -> None:
    limit = {"exectype": bt.Order.Limit, "price": -101.004}
    run = bench.run(pair(later=198.0), at_bar(lambda s: s.buy(s.data0, size=3, **limit)), feeds=FEEDS)
    (order,) = run.strategy.orders
    assert run.strategy.statuses(order) == ["Submitted", "Accepted", "Completed 3"]
    # Rounded to the tick, and not to the other side of it.
    assert order.executed.price == -101.0
    assert run.broker.getposition(run.strategy.data0).size == 3
    agree(run)


def test_short_combo_with_a_stop(bench: Bench, pair: Any, at_bar: AtBar) -> None:
    stop = {"exectype": bt.Order.StopLimit, "price": -99.0, "plimit": -97.0}
    run = bench.run(
        pair(later=202.0),
        at_bar(lambda s: s.sell(s.data0, size=2), lambda s: s.buy(s.data0, size=2, **stop)),
        feeds=FEEDS,
    )
    assert [order.getstatusname() for order in run.strategy.orders] == ["Completed", "Completed"]
    assert run.strategy.orders[0].executed.price == BID
    assert run.strategy.orders[1].executed.price == pytest.approx(-97.98)
    assert run.broker.getposition(run.strategy.data0).size == 0
    assert holdings(run) == {}
    agree(run)


def test_parts_are_whole_combos(bench: Bench, pair: Any, at_bar: AtBar) -> None:
    # 7 of MSFT are shown: three combos at a time.
    run = bench.run(pair(size=7), at_bar(lambda s: s.buy(s.data0, size=5)), feeds=FEEDS)
    (order,) = run.strategy.orders
    assert run.strategy.statuses(order) == ["Submitted", "Accepted", "Partial 3", "Completed 2"]
    assert run.broker.getposition(run.strategy.data0).size == 5
    assert set(holdings(run).values()) == {5.0, -10.0}
    agree(run)


def test_values_count_the_legs_once(bench: Bench, pair: Any, at_bar: AtBar) -> None:
    run = bench.run(
        pair(later=203.0),
        at_bar(lambda s: s.buy(s.data0, size=10)),
        feeds=FEEDS,
        cerebro={"stdstats": True},
        analyzers=[bt.analyzers.DrawDown, bt.analyzers.TradeAnalyzer],
    )
    value = run.broker.getcash() + 10 * 203.01 - 20 * 150.01
    assert run.broker.getvalue() == pytest.approx(value)
    combo = run.strategy.data0
    assert run.broker.getvalue([combo]) == pytest.approx(10 * combo.close[0])
    agree(run)


def test_cancelled_and_modified(bench: Bench, pair: Any, at_bar: AtBar) -> None:
    far = {"exectype": bt.Order.Limit, "price": -150.0}

    def change(strategy: Any) -> None:
        strategy.broker.modify(strategy.orders[0], price=-99.0)

    def cancel(strategy: Any) -> None:
        strategy.cancel(strategy.orders[1])

    run = bench.run(
        pair(),
        at_bar(lambda s: [s.buy(s.data0, size=1, **far), s.buy(s.data0, size=1, **far)], change, cancel),
        feeds=FEEDS,
    )
    assert [order.getstatusname() for order in run.strategy.orders] == ["Completed", "Canceled"]
    assert run.broker.getposition(run.strategy.data0).size == 1
    agree(run)


def test_bracket(bench: Bench, pair: Any, at_bar: AtBar) -> None:
    prices = {"price": -99.5, "stopprice": -105.0, "limitprice": -98.0}
    run = bench.run(
        pair(later=203.0),
        at_bar(lambda s: s.buy_bracket(s.data0, size=2, **prices, stopargs={"plimit": -106.0},
                                       stopexec=bt.Order.StopLimit)),
        feeds=FEEDS,
    )  # fmt: skip
    assert [order.getstatusname() for order in run.strategy.orders] == ["Completed", "Canceled", "Completed"]
    assert run.strategy.orders[2].executed.price >= -98.0
    assert holdings(run) == {}
    agree(run)


@pytest.mark.parametrize(
    ("limits", "control"),
    [
        (RiskLimits(max_order_notional=Decimal(400)), "max_order_notional"),
        (RiskLimits(max_order_size=Decimal(4)), "max_order_size"),
        (RiskLimits(max_position_size=Decimal(9)), "max_position_size"),
    ],
)
def test_risk_controls_see_the_combo(
    bench: Bench, pair: Any, at_bar: AtBar, limits: RiskLimits, control: str
) -> None:
    """5 combos are worth about -500; in MSFT they make 10."""
    run = bench.run(pair(store={"risk": limits}), at_bar(lambda s: s.buy(s.data0, size=5)), feeds=FEEDS)
    (order,) = run.strategy.orders
    assert order.getstatusname() == "Rejected"
    assert control in order.info["reason"]
    assert not run.ledger["orders"]


def test_exact_decimals_of_prices(bench: Bench, pair: Any) -> None:
    run = bench.run(pair(), feeds=FEEDS)
    closes = {Decimal(repr(value)) for value in run.strategy.frame(COMBO)["close"]}
    assert closes == {Decimal("-100.01")}
