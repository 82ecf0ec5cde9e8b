"""One-cancels-others: kept by IBKR where it can, by the broker where orders were placed at different times."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import backtrader as bt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bt_ibkr.connection.interface import CancelFailed
from bt_ibkr.errors import OrderRefusedError
from bt_ibkr.model.order import OrderStatus, Side

Limit, Stop = bt.Order.Limit, bt.Order.Stop
SUBMITTED, CANCELLED = OrderStatus.SUBMITTED, OrderStatus.CANCELLED
Stages = Callable[..., Any]


def key(number: int) -> str:
    return f"p.00000.{number}"


def two(scene: Any, says: Any) -> Callable[[Any], None]:
    """A target, and a stop that joins it later."""

    def trade(strategy: Any) -> None:
        target = strategy.sell(size=10, exectype=Limit, price=105.0)
        strategy.orders = [target, strategy.sell(size=10, exectype=Stop, price=95.0, oco=target)]
        scene.connection.later([says.placed(1, "900"), says.placed(2, "901")])

    return trade


def test_group_is_written_down_with_the_order_that_joins(stage: Stages, says: Any) -> None:
    scene = stage()
    scene.play([two(scene, says)])
    (first,), (second,) = scene.connection.submissions
    # Placed at different times: IBKR cannot keep the group, the broker does.
    assert (first.group, second.group) == (None, key(1))
    assert not first.ticket.one_cancels_all
    assert not second.ticket.one_cancels_all


@pytest.mark.parametrize("quantity", ["10", "3"])
def test_any_execution_cancels_the_others(stage: Stages, says: Any, quantity: str) -> None:
    scene = stage()

    def fill(strategy: Any) -> None:
        scene.connection.later([says.fill(1, quantity, 105.0, side=Side.SELL)])

    def look(strategy: Any) -> None:
        assert scene.connection.cancels == [key(2)]
        scene.connection.later([says.status(CANCELLED, "0", of=2, order_id="901")])

    strategy = scene.play([two(scene, says), fill, look])
    assert strategy.orders[1].getstatusname() == "Canceled"
    assert scene.position.size == -int(quantity)


def test_both_execute_before_the_cancellation_arrives(stage: Stages, says: Any) -> None:
    """The race that a group kept outside the exchange can lose: executions count, and it is told."""
    scene = stage()

    def race(strategy: Any) -> None:
        late = CancelFailed(key(2), OrderRefusedError("too late to cancel"))
        scene.connection.later(
            [says.fill(1, "10", 105.0, side=Side.SELL)],
            [says.fill(2, "4", 95.0, side=Side.SELL, of=2, order_id="901")],
            [late],
            [says.fill(3, "6", 95.0, side=Side.SELL, of=2, order_id="901")],
        )

    strategy = scene.play([two(scene, says), race])
    assert [o.getstatusname() for o in strategy.orders] == ["Completed", "Completed"]
    assert scene.position.size == -20
    assert "cancel-failed" in [m for m, *_ in strategy.messages]


def test_member_that_has_no_answer_yet_is_cancelled(stage: Stages, says: Any) -> None:
    scene = stage()

    def trade(strategy: Any) -> None:
        target = strategy.sell(size=10, exectype=Limit, price=105.0)
        strategy.orders = [target, strategy.sell(size=10, exectype=Stop, price=95.0, oco=target)]
        scene.connection.later(
            [says.placed(1, "900")],
            [says.fill(1, "10", 105.0, side=Side.SELL)],
            [says.placed(2, "901")],
            [says.status(CANCELLED, "0", of=2, order_id="901")],
        )

    strategy = scene.play([trade])
    assert scene.connection.cancels == [key(2)]
    assert strategy.statuses(strategy.orders[1]) == ["Submitted", "Accepted", "Canceled"]


@pytest.mark.parametrize("how", ["executed", "executed in part", "cancelled"])
def test_who_joins_a_group_that_is_over_is_rejected(stage: Stages, says: Any, how: str) -> None:
    """It would stand alone, with nobody to cancel it."""
    scene = stage()

    def first(strategy: Any) -> None:
        strategy.orders.append(strategy.sell(size=10, exectype=Limit, price=105.0))
        said = {
            "executed": says.fill(1, "10", 105.0, side=Side.SELL),
            "executed in part": says.fill(1, "1", 105.0, side=Side.SELL),
            "cancelled": says.status(CANCELLED, "0"),
        }[how]
        scene.connection.later([says.placed()], [said])

    def join(strategy: Any) -> None:
        strategy.orders.append(strategy.sell(size=10, exectype=Stop, price=95.0, oco=strategy.orders[0]))

    strategy = scene.play([first, join])
    assert strategy.statuses(strategy.orders[1]) == ["Rejected"]
    assert len(scene.connection.submissions) == 1


def test_orders_transmitted_together_are_a_group_of_ibkrs(stage: Stages, says: Any) -> None:
    scene = stage()

    def trade(strategy: Any) -> None:
        target = strategy.sell(size=10, exectype=Limit, price=105.0, transmit=False)
        stop = strategy.sell(size=10, exectype=Stop, price=95.0, oco=target, transmit=False)
        late = strategy.sell(size=10, exectype=Limit, price=110.0, oco=stop)
        strategy.orders = [target, stop, late]
        scene.connection.later([says.placed(n, str(899 + n)) for n in (1, 2, 3)])

    def fill(strategy: Any) -> None:
        scene.connection.later([says.fill(1, "10", 105.0, side=Side.SELL)])

    def look(strategy: Any) -> None:
        # IBKR cancels the others itself.
        assert scene.connection.cancels == []
        scene.connection.later([says.status(CANCELLED, "0", of=n, order_id=str(899 + n)) for n in (2, 3)])

    strategy = scene.play([trade, fill, look])
    (submission,) = scene.connection.submissions
    assert [intent.ticket.one_cancels_all for intent in submission] == [True] * 3
    assert {intent.group for intent in submission} == {key(1)}
    assert [o.getstatusname() for o in strategy.orders] == ["Completed", "Canceled", "Canceled"]


def test_order_that_joins_ibkrs_group_later_is_cancelled_by_the_broker(stage: Stages, says: Any) -> None:
    scene = stage()

    def trade(strategy: Any) -> None:
        target = strategy.sell(size=10, exectype=Limit, price=105.0, transmit=False)
        stop = strategy.sell(size=10, exectype=Stop, price=95.0, oco=target)
        late = strategy.sell(size=10, exectype=Limit, price=110.0, oco=stop)
        strategy.orders = [target, stop, late]
        scene.connection.later(
            [says.placed(n, str(899 + n)) for n in (1, 2, 3)], [says.fill(1, "10", 105.0, side=Side.SELL)]
        )

    scene.play([trade])
    assert [len(submission) for submission in scene.connection.submissions] == [2, 1]
    assert scene.connection.cancels == [key(3)]


def test_children_of_a_bracket_are_left_to_ibkr(stage: Stages, says: Any) -> None:
    scene = stage()

    def trade(strategy: Any) -> None:
        entry = strategy.buy(size=10, transmit=False)
        stop = strategy.sell(size=10, exectype=Stop, price=95.0, parent=entry, transmit=False)
        target = strategy.sell(size=10, exectype=Limit, price=105.0, parent=entry, oco=stop)
        strategy.orders = [entry, stop, target]
        scene.connection.later(
            [says.placed(n, str(899 + n)) for n in (1, 2, 3)],
            [says.fill(1, "10")],
            [says.fill(2, "10", 105.0, of=3, order_id="902", side=Side.SELL)],
            [says.status(CANCELLED, "0", of=2, order_id="901")],
        )

    strategy = scene.play([trade])
    (submission,) = scene.connection.submissions
    assert [intent.ticket.one_cancels_all for intent in submission] == [False] * 3
    assert [intent.parent_key for intent in submission] == [None, key(1), key(1)]
    assert scene.connection.cancels == []
    assert [o.getstatusname() for o in strategy.orders] == ["Completed", "Canceled", "Completed"]


def test_bracket_of_the_day_ends_as_it_should(stage: Stages, says: Any) -> None:
    """What IBKR takes along is cancelled; what only the evening ends has expired."""
    scene = stage()

    def trade(strategy: Any) -> None:
        strategy.orders = strategy.buy_bracket(
            size=10, exectype=bt.Order.Market, stopprice=95.0, limitprice=105.0, valid=bt.Order.DAY
        )
        scene.connection.later(
            [says.placed(n, str(899 + n)) for n in (1, 2, 3)],
            [says.fill(1, "10")],
            [says.fill(2, "10", 105.0, of=3, order_id="902", side=Side.SELL)],
            [says.status(CANCELLED, "0", of=2, order_id="901")],
        )

    def again(strategy: Any) -> None:
        strategy.orders += strategy.buy_bracket(
            size=10, exectype=bt.Order.Market, stopprice=95.0, limitprice=105.0, valid=bt.Order.DAY
        )
        scene.connection.later(
            [says.placed(n, str(899 + n)) for n in (4, 5, 6)],
            [says.fill(4, "10", of=4, order_id="903")],
            [says.status(CANCELLED, "0", of=n, order_id=str(899 + n)) for n in (5, 6)],
        )

    strategy = scene.play([trade, again])
    assert [o.getstatusname() for o in strategy.orders] == [
        "Completed", "Canceled", "Completed", "Completed", "Expired", "Expired",
    ]  # fmt: skip


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_whatever_happens_at_most_one_member_is_left_alone(
    stage: Stages, says: Any, data: st.DataObject
) -> None:
    """Members of a group in any order of events: after the first execution or end no other is left standing."""
    count = data.draw(st.integers(2, 4))
    scene = stage()
    happened: list[int] = []

    def trade(strategy: Any) -> None:
        for number in range(count):
            oco = data.draw(st.sampled_from(strategy.orders)) if number else None
            strategy.orders.append(strategy.sell(size=10, exectype=Limit, price=105.0 + number, oco=oco))
        scene.connection.later([says.placed(n, str(899 + n)) for n in range(1, count + 1)])

    def something(strategy: Any) -> None:
        number = data.draw(st.integers(1, count))
        happened.append(number)
        kind = data.draw(st.sampled_from(["fill", "part", "cancel", "refused"]))
        order_id = str(899 + number)
        said = {
            "fill": says.fill(number, "10", side=Side.SELL, of=number, order_id=order_id),
            "part": says.fill(number, "3", side=Side.SELL, of=number, order_id=order_id),
            "cancel": says.status(CANCELLED, "0", of=number, order_id=order_id),
            "refused": says.failed(OrderRefusedError("no"), number),
        }[kind]
        scene.connection.later([said])

    scene.play([trade, something])
    (first,) = happened
    assert sorted(scene.connection.cancels) == [key(n) for n in range(1, count + 1) if n != first]
