"""Executions that IBKR corrects or takes back: position, cash, order and trades follow."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import backtrader as bt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bt_ibkr.model.contract import SecurityType
from bt_ibkr.model.order import OrderStatus, Side

CASH = 100_000.0
Stages = Callable[..., Any]


def buy(strategy: Any, size: float = 10) -> None:
    strategy.orders.append(strategy.buy(size=size))


def sell(strategy: Any, size: float = 10) -> None:
    strategy.orders.append(strategy.sell(size=size))


def told(strategy: Any) -> list[str]:
    return [word for order in strategy.orders for word in strategy.statuses(order)]


def test_corrected_price(stage: Stages, says: Any) -> None:
    scene = stage()

    def trade(strategy: Any) -> None:
        buy(strategy)
        fill = says.fill(1, "10", 100.0)
        scene.connection.later([says.placed()], [fill], [says.corrects(fill, "10", 99.0, number=2)])

    strategy = scene.play([trade])
    (order,) = strategy.orders
    assert scene.position.size == 10
    assert scene.position.price == 99.0
    assert scene.broker.getcash() == CASH - 990.0 - 1.0
    assert (order.executed.size, order.executed.price, order.executed.comm) == (10, 99.0, 1.0)
    # Told again, with no new execution.
    assert told(strategy) == ["Submitted", "Accepted", "Completed 10", "Completed"]
    ((message, (corrected,), more),) = strategy.messages
    assert (message, corrected.ref) == ("execution-corrected", order.ref)
    assert (more["replaced"].price, more["execution"].price) == (100.0, 99.0)
    assert [(key, e.execution_id, e.price) for key, e in scene.broker.executions] == [
        ("p.00000.1", "e2", 99.0)
    ]


def test_bust_of_the_only_execution(stage: Stages, says: Any) -> None:
    scene = stage()

    def trade(strategy: Any) -> None:
        buy(strategy)
        fill = says.fill(1, "10", 100.0)
        scene.connection.later([says.placed()], [fill], [says.corrects(fill, "0", commission=0.0)])

    strategy = scene.play([trade])
    (order,) = strategy.orders
    assert scene.position.size == 0
    assert scene.position.price == 0.0
    assert scene.broker.getcash() == CASH
    assert (order.executed.size, order.executed.price, order.executed.comm) == (0, 0.0, 0.0)
    # It had ended, and does not live again.
    assert order.getstatusname() == "Completed"
    assert scene.broker.executions == []
    # The trade that it had opened is closed, without profit or cost.
    opened, closed = strategy.trades
    assert (opened[0], opened[1]) == (bt.Trade.Open, 10)
    assert (closed[0], closed[2], closed[3]) == (bt.Trade.Closed, 0.0, 0.0)


def test_bust_of_a_part_of_an_order_that_goes_on(stage: Stages, says: Any) -> None:
    scene = stage()

    def trade(strategy: Any) -> None:
        buy(strategy)
        fill = says.fill(1, "4")
        bust = says.corrects(fill, "0", commission=0.0)
        scene.connection.later([says.placed()], [fill], [bust], [says.fill(2, "10", 101.0)])

    strategy = scene.play([trade])
    assert told(strategy) == ["Submitted", "Accepted", "Partial 4", "Accepted", "Completed 10"]
    assert scene.position.size == 10
    assert strategy.orders[0].executed.price == 101.0
    assert scene.broker.getcash() == CASH - 1010.0 - 1.0


def test_correction_that_completes_the_order(stage: Stages, says: Any) -> None:
    scene = stage()

    def trade(strategy: Any) -> None:
        buy(strategy)
        fill = says.fill(1, "4")
        scene.connection.later([says.placed()], [fill], [says.corrects(fill, "10", number=2)])

    strategy = scene.play([trade])
    assert told(strategy)[-1] == "Completed"
    assert scene.position.size == 10
    assert strategy.orders[0].executed.remsize == 0
    assert not scene.broker.get_orders_open()


def test_correction_of_a_correction(stage: Stages, says: Any) -> None:
    scene = stage()

    def trade(strategy: Any) -> None:
        buy(strategy)
        first = says.fill(1, "10", 100.0)
        second = says.corrects(first, "8", 99.0, number=2)
        third = says.corrects(second, "10", 98.0, number=3)
        scene.connection.later([says.placed()], [first], [second], [third])

    strategy = scene.play([trade])
    assert scene.position.size == 10
    assert scene.position.price == 98.0
    assert scene.broker.getcash() == CASH - 980.0 - 1.0
    assert [e.execution_id for _, e in scene.broker.executions] == ["e3"]
    assert strategy.orders[0].executed.price == 98.0


def test_corrected_close_of_a_future(stage: Stages, says: Any) -> None:
    scene = stage(security_type=SecurityType.FUTURE)

    def trade(strategy: Any) -> None:
        buy(strategy, 2)
        scene.connection.later([says.placed()], [says.fill(1, "2", 100.0, commission=4.0)])

    def close(strategy: Any) -> None:
        sell(strategy, 2)
        fill = says.fill(2, "2", 101.5, side=Side.SELL, commission=4.0, of=2)
        fixed = says.corrects(fill, "2", 101.0, side=Side.SELL, commission=4.0, of=2)
        scene.connection.later([says.placed(2, "901")], [fill], [fixed])

    strategy = scene.play([trade, close])
    assert scene.broker.getcash() == CASH - 8.0 + 2 * 50 * 1.0
    # Trades: closed with too much, and put right by what follows; in sum what was won.
    assert sum(pnl for status, _, pnl, _, _ in strategy.trades if status == bt.Trade.Closed) == 100.0


def test_correction_of_an_execution_of_another_client(stage: Stages, says: Any) -> None:
    scene = stage()

    def speak(strategy: Any) -> None:
        fill = says.fill(1, "10", of=None)
        scene.connection.later([fill], [says.corrects(fill, "0", of=None, commission=0.0)])

    strategy = scene.play([speak])
    assert scene.position.size == 0
    assert scene.broker.getcash() == CASH
    assert [m for m, *_ in strategy.messages] == ["external-execution", "execution-corrected"]
    # No order of the strategy's stands behind it: none is shown to it.
    assert not strategy.clones


def test_repeated_execution_counts_once(stage: Stages, says: Any) -> None:
    scene = stage()

    def trade(strategy: Any) -> None:
        buy(strategy)
        scene.connection.later([says.placed()], [says.fill(1, "4")], [says.fill(1, "4")], [says.fill(2, "6")])

    strategy = scene.play([trade])
    assert scene.position.size == 10
    assert told(strategy) == ["Submitted", "Accepted", "Partial 4", "Completed 6"]


def test_executions_are_shown_in_the_order_of_their_times(stage: Stages, says: Any) -> None:
    scene = stage()

    def trade(strategy: Any) -> None:
        buy(strategy)
        fills = [says.fill(n, str(n), second=5 - n) for n in (1, 2, 3)]
        scene.connection.later([says.placed(), *fills])

    strategy = scene.play([trade])
    assert told(strategy) == ["Submitted", "Accepted", "Partial 3", "Partial 2", "Partial 1"]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.integers(-9, 9).filter(bool), st.integers(90, 110)), min_size=1, max_size=8),
    st.data(),
)
@pytest.mark.parametrize("kind", [SecurityType.STOCK, SecurityType.FUTURE])
def test_book_after_corrections_is_the_book_without_the_mistakes(
    stage: Stages, says: Any, kind: SecurityType, fills: list[tuple[int, int]], data: st.DataObject
) -> None:
    """Whatever is corrected, whenever: in the end position, price and cash are as if it had been right at once."""
    truth = list(fills)
    wrong: list[Any] = []
    corrections = []
    for number, (size, price) in enumerate(fills):
        side = Side.BUY if size > 0 else Side.SELL
        fill = says.fill(number, str(abs(size)), float(price), side=side, of=None)
        wrong.append(fill)
        if data.draw(st.booleans()):
            quantity, fixed = data.draw(st.integers(0, 9)), data.draw(st.integers(90, 110))
            truth[number] = (quantity if size > 0 else -quantity, fixed)
            corrections.append(
                says.corrects(
                    fill, str(quantity), float(fixed), number=100 + number, side=side, of=None,
                    commission=1.0 if quantity else 0.0,
                )
            )  # fmt: skip
    scene = stage(security_type=kind)
    scene.play([lambda s: scene.connection.later(wrong, corrections)])

    other = stage(security_type=kind)
    right = [
        says.fill(number, str(abs(size)), float(price), side=Side.BUY if size > 0 else Side.SELL, of=None)
        for number, (size, price) in enumerate(truth)
        if size
    ]
    other.play([lambda s: other.connection.later(right)])
    assert scene.position.size == other.position.size
    assert scene.position.price == pytest.approx(other.position.price)
    assert scene.broker.getcash() == pytest.approx(other.broker.getcash())


def test_status_after_the_end_changes_nothing(stage: Stages, says: Any) -> None:
    scene = stage()

    def trade(strategy: Any) -> None:
        buy(strategy)
        scene.connection.later(
            [says.placed()],
            [says.fill(1, "10")],
            [says.status(OrderStatus.SUBMITTED, "0")],
            [says.status(OrderStatus.CANCELLED, "10")],
        )

    strategy = scene.play([trade])
    assert told(strategy) == ["Submitted", "Accepted", "Completed 10"]
    assert strategy.orders[0].executed.size == 10
    assert Decimal(str(scene.position.size)) == 10
