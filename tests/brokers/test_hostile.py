"""What strategies do that nobody would: odd numbers, groups that cannot be, changes that fills overtake."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import backtrader as bt
import numpy as np
import pytest

from bt_ibkr.connection.interface import ModifyFailed
from bt_ibkr.errors import OrderRefusedError
from bt_ibkr.feeds.times import ns_of
from tests.brokers.conftest import Says, Stage, key
from tests.brokers.test_validity import Asked

Limit, Stop = bt.Order.Limit, bt.Order.Stop
Stages = Callable[..., Stage]


def test_a_date_is_its_sessions_end_also_on_a_feed_with_a_zone(stage: Stages, says: type[Says]) -> None:
    scene = stage()
    scene.cerebro.datas[0].p.tz = Asked("America/New_York")

    def trade(strategy: Any) -> None:
        today = strategy.data.num2date(strategy.data.datetime[0]).date()
        assert today == date(2026, 3, 2)
        strategy.buy(size=1, exectype=Limit, price=90.0, valid=today)
        strategy.buy(size=1, exectype=Limit, price=90.0, valid=today + timedelta(days=1))
        scene.connection.later([says.placed(), says.placed(2, "901")])

    scene.play([trade])
    ends = [sent[0].expires_ns for sent in scene.connection.submissions]
    close = datetime(2026, 3, 2, 16, tzinfo=ZoneInfo("America/New_York"))
    assert ends == [ns_of(close), ns_of(close + timedelta(days=1))]


def test_an_entry_does_not_leave_without_its_stop(stage: Stages) -> None:
    """The stop is refused without an exception, and the target that follows would transmit the rest."""
    scene = stage()

    def trade(strategy: Any) -> None:
        ended = strategy.buy(size=1, exectype=Limit, price=90.0, transmit=False)
        strategy.cancel(ended)
        strategy.buy_bracket(size=3, price=99.0, stopprice=90.0, limitprice=110.0, stopargs={"oco": ended})

    scene.play([trade])
    assert not scene.connection.submissions
    _, *bracket = scene.broker.orders
    assert [one.status for one in bracket] == [bt.Order.Rejected] * 3
    assert "has executed or ended" in bracket[0].info["reason"]
    assert not scene.broker.get_orders_open()


@pytest.mark.parametrize("price", [Decimal("99.5"), np.float32(99.5), np.float64(99.5), 99.5])
def test_prices_are_numbers_of_any_kind(stage: Stages, says: type[Says], price: Any) -> None:
    scene = stage()

    def trade(strategy: Any) -> None:
        strategy.buy(size=1, exectype=Limit, price=price)
        strategy.broker.modify(strategy.buy(size=1, exectype=Limit, price=90.0, transmit=False), price=price)
        strategy.sell(size=1, exectype=bt.Order.StopTrail, trailamount=price)
        scene.connection.later([says.placed(), says.placed(3, "901")])

    scene.play([trade])
    (limit,), (trail,) = scene.connection.submissions
    assert (limit.ticket.limit_price, trail.ticket.trail_amount) == (99.5, 99.5)
    for order in scene.broker.orders[:2]:
        assert type(order.price) is float
        assert order.price == 99.5


def test_a_fill_that_overtakes_the_answer_to_a_larger_size_is_no_overfill(
    stage: Stages, says: type[Says]
) -> None:
    scene = stage()

    def trade(strategy: Any) -> None:
        order = strategy.buy(size=2, exectype=Limit, price=90.0)
        strategy.broker.modify(order, size=9)
        scene.connection.later([says.placed()], [says.fill(1, "5")], [says.fill(2, "4")])

    strategy = scene.play([trade])
    assert [ticket.quantity for _, ticket in scene.connection.changes] == [9]
    (order,) = scene.broker.orders
    assert (order.status, order.executed.size) == (bt.Order.Completed, 9)
    assert not scene.broker.problems
    assert "order-overfilled" not in [word for word, *_ in strategy.messages]


def test_it_is_one_if_the_change_was_refused(stage: Stages, says: type[Says]) -> None:
    scene = stage()

    def trade(strategy: Any) -> None:
        order = strategy.buy(size=2, exectype=Limit, price=90.0)
        strategy.broker.modify(order, size=9)
        refused = ModifyFailed(key(1), OrderRefusedError("no"))
        scene.connection.later([says.placed()], [says.fill(1, "5")], [refused])

    strategy = scene.play([trade])
    assert scene.broker.problems == ["Order p.00000.1: 5 filled of 2."]
    assert [word for word, *_ in strategy.messages].count("order-overfilled") == 1
    assert scene.broker.orders[0].status == bt.Order.Completed
