"""Modifications: what is asked for, what is shown, and what becomes of them when fills and refusals cross."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import backtrader as bt
import pytest

from bt_ibkr.brokers.helpers import modify
from bt_ibkr.clock import NS_PER_S
from bt_ibkr.connection.interface import ModifyFailed, OrderModified
from bt_ibkr.errors import OrderRefusedError, OutcomeUnknownError, UsageError
from bt_ibkr.feeds.times import epoch_ns
from bt_ibkr.model.order import OrderStatus, OrderTicket, TimeInForce

Limit, Stop, StopLimit = bt.Order.Limit, bt.Order.Stop, bt.Order.StopLimit
StopTrail, StopTrailLimit = bt.Order.StopTrail, bt.Order.StopTrailLimit
KEY = "p.00000.1"
Stages = Callable[..., Any]


def taken(scene: Any, number: int = -1) -> OrderModified:
    """IBKR takes the change that was asked for."""
    key, ticket = scene.connection.changes[number]
    return OrderModified(key, ticket)


def placed(stage: Stages, says: Any, **order: Any) -> tuple[Any, Callable[[Any], None]]:
    """A stage with an order that stands: an action that places it."""
    scene = stage()
    given = {"size": 10, "exectype": Limit, "price": 99.0} | order

    def trade(strategy: Any) -> None:
        strategy.orders.append(strategy.buy(**given))
        scene.connection.later([says.placed()])

    return scene, trade


def test_price_is_asked_for_and_shown_once_it_is_taken(stage: Stages, says: Any) -> None:
    scene, trade = placed(stage, says)

    def change(strategy: Any) -> None:
        (order,) = strategy.orders
        assert strategy.broker.modify(order, price=98.004) is order
        assert order.created.price == order.price == 99.0
        ((key, ticket),) = scene.connection.changes
        assert key == KEY
        # The whole order, the price on the tick.
        (placed_as,) = scene.connection.submissions[0]
        assert ticket.limit_price == 98.0
        assert (ticket.quantity, ticket.side, ticket.client_order_id) == (
            placed_as.ticket.quantity, placed_as.ticket.side, KEY,
        )  # fmt: skip
        scene.connection.later([taken(scene)])

    strategy = scene.play([trade, change])
    (order,) = strategy.orders
    assert order.created.price == order.price == 98.0
    assert strategy.statuses(order) == ["Submitted", "Accepted", "Accepted"]
    # What was told before is as it was.
    assert [clone.created.price for clone in strategy.clones] == [99.0, 99.0, 98.0]


@pytest.mark.parametrize(
    ("order", "change", "ticket", "shown"),
    [
        ({"exectype": Stop, "price": 105.0}, {"price": 104.0}, {"stop_price": 104.0}, {"price": 104.0}),
        (
            {"exectype": StopLimit, "price": 105.0, "plimit": 106.0},
            {"price": 104.0, "plimit": 107.0},
            {"stop_price": 104.0, "limit_price": 107.0},
            {"price": 104.0, "pricelimit": 107.0},
        ),
        ({"exectype": StopTrail, "trailamount": 2.0}, {"trailamount": 3.0}, {"trail_amount": 3.0},
         {"trailamount": 3.0}),
        ({"exectype": StopTrail, "trailpercent": 0.02}, {"trailpercent": 0.035}, {"trail_percent": 3.5},
         {"trailpercent": 0.035}),
        ({}, {"size": 25}, {"quantity": Decimal(25)}, {"size": 25}),
        ({}, {"tif": "DAY"}, {"time_in_force": TimeInForce.DAY}, {}),
        ({"valid": bt.Order.DAY}, {"valid": timedelta(hours=1)},
         {"time_in_force": TimeInForce.GOOD_TILL_CANCELLED}, {}),
    ],
)  # fmt: skip
def test_every_field_that_can_change(
    stage: Stages, says: Any, order: dict[str, Any], change: dict[str, Any], ticket: dict[str, Any],
    shown: dict[str, Any],
) -> None:  # fmt: skip
    scene, trade = placed(stage, says, **order)

    def act(strategy: Any) -> None:
        strategy.broker.modify(strategy.orders[0], **change)
        asked = scene.connection.changes[0][1]
        assert {name: getattr(asked, name) for name in ticket} == ticket
        scene.connection.later([taken(scene)])

    strategy = scene.play([trade, act])
    made = strategy.orders[0]
    for name, value in shown.items():
        assert getattr(made, name) == getattr(made.created, name) == value
    assert made.alive()


def test_size_counts_what_has_executed(stage: Stages, says: Any) -> None:
    scene, trade = placed(stage, says)

    def fill(strategy: Any) -> None:
        scene.connection.later([says.fill(1, "4")])

    def change(strategy: Any) -> None:
        strategy.broker.modify(strategy.orders[0], size=7)
        scene.connection.later([taken(scene)], [says.fill(2, "3")])

    strategy = scene.play([trade, fill, change])
    (order,) = strategy.orders
    assert strategy.statuses(order)[2:] == ["Partial 4", "Partial", "Completed 3"]
    assert order.executed.size == order.created.size == 7
    assert order.executed.remsize == 0


def test_fill_that_crosses_a_smaller_size_completes_the_order(stage: Stages, says: Any) -> None:
    """Down to 6, while 6 execute: nothing is left of it."""
    scene, trade = placed(stage, says)

    def change(strategy: Any) -> None:
        strategy.broker.modify(strategy.orders[0], size=6)
        scene.connection.later([says.fill(1, "6")], [taken(scene)])

    strategy = scene.play([trade, change])
    (order,) = strategy.orders
    assert strategy.statuses(order)[2:] == ["Partial 6", "Partial", "Completed"]
    assert not scene.broker.get_orders_open()


def test_fill_of_the_old_size_crosses_a_smaller_one(stage: Stages, says: Any) -> None:
    """IBKR refuses the change, as all 10 have executed: executions decide."""
    scene, trade = placed(stage, says)

    def change(strategy: Any) -> None:
        strategy.broker.modify(strategy.orders[0], size=6)
        late = ModifyFailed(KEY, OrderRefusedError("the order is filled"))
        scene.connection.later([says.fill(1, "10")], [late])

    strategy = scene.play([trade, change])
    assert strategy.statuses(strategy.orders[0])[2:] == ["Completed 10"]
    assert not scene.broker.problems


def test_refused_change_leaves_the_order_as_it_is(stage: Stages, says: Any) -> None:
    scene, trade = placed(stage, says)

    def change(strategy: Any) -> None:
        strategy.broker.modify(strategy.orders[0], price=98.0)
        scene.connection.later([ModifyFailed(KEY, OrderRefusedError("not now"))])

    strategy = scene.play([trade, change])
    (order,) = strategy.orders
    assert order.created.price == 99.0
    assert strategy.statuses(order) == ["Submitted", "Accepted"]
    ((message, args, more),) = strategy.messages
    assert (message, args[0].ref, str(more["error"])) == ("modify-failed", order.ref, "not now")


def test_change_of_unknown_outcome_is_a_problem(stage: Stages, says: Any) -> None:
    scene, trade = placed(stage, says)

    def change(strategy: Any) -> None:
        strategy.broker.modify(strategy.orders[0], price=98.0)
        scene.connection.later([ModifyFailed(KEY, OutcomeUnknownError("no answer"))])

    scene.play([trade, change])
    assert scene.broker.problems == ["no answer"]


def test_change_before_the_order_has_an_id_waits_for_it(stage: Stages, says: Any) -> None:
    scene = stage()

    def trade(strategy: Any) -> None:
        strategy.orders.append(strategy.buy(size=10, exectype=Limit, price=99.0))
        strategy.broker.modify(strategy.orders[0], price=98.0)
        assert scene.connection.changes == []
        scene.connection.later([says.placed()])

    strategy = scene.play([trade, lambda s: scene.connection.later([taken(scene)])])
    assert strategy.orders[0].price == 98.0


def test_changes_of_one_order_go_one_after_another(stage: Stages, says: Any) -> None:
    scene, trade = placed(stage, says)

    def change(strategy: Any) -> None:
        strategy.broker.modify(strategy.orders[0], price=98.0)
        strategy.broker.modify(strategy.orders[0], size=20)
        assert len(scene.connection.changes) == 1
        scene.connection.later([taken(scene)])

    def second(strategy: Any) -> None:
        ticket = scene.connection.changes[1][1]
        assert (ticket.limit_price, ticket.quantity) == (98.0, 20)
        scene.connection.later([taken(scene)])

    strategy = scene.play([trade, change, second])
    (order,) = strategy.orders
    assert (order.price, order.size) == (98.0, 20)


def test_change_behind_one_that_failed_is_made_of_the_order_as_it_stands(stage: Stages, says: Any) -> None:
    scene, trade = placed(stage, says)

    def change(strategy: Any) -> None:
        strategy.broker.modify(strategy.orders[0], price=98.0)
        strategy.broker.modify(strategy.orders[0], size=20)
        scene.connection.later([ModifyFailed(KEY, OrderRefusedError("no"))])

    def second(strategy: Any) -> None:
        ticket = scene.connection.changes[1][1]
        assert (ticket.limit_price, ticket.quantity) == (99.0, 20)
        scene.connection.later([taken(scene)])

    strategy = scene.play([trade, change, second])
    (order,) = strategy.orders
    assert (order.price, order.size) == (99.0, 20)


def test_change_of_what_was_taken_differently_is_shown_as_it_stands(stage: Stages, says: Any) -> None:
    scene, trade = placed(stage, says)

    def change(strategy: Any) -> None:
        import msgspec

        strategy.broker.modify(strategy.orders[0], price=98.0)
        stands: OrderTicket = msgspec.structs.replace(scene.connection.changes[0][1], limit_price=98.5)
        scene.connection.later([OrderModified(KEY, stands)])

    strategy = scene.play([trade, change])
    assert strategy.orders[0].price == 98.5


def test_held_orders_change_at_once(stage: Stages, says: Any) -> None:
    scene = stage()

    def trade(strategy: Any) -> None:
        entry = strategy.buy(size=10, exectype=Limit, price=99.0, transmit=False)
        strategy.broker.modify(entry, price=98.0)
        assert entry.price == 98.0
        strategy.orders = [entry, strategy.sell(size=10, exectype=Stop, price=95.0, parent=entry)]
        scene.connection.later([says.placed(1, "900"), says.placed(2, "901")])

    scene.play([trade])
    assert scene.connection.changes == []
    assert scene.connection.submissions[0][0].ticket.limit_price == 98.0


def test_longer_validity_is_the_brokers_own(stage: Stages, says: Any) -> None:
    """IBKR knows of no date: only the moment at which the broker cancels changes."""
    scene, trade = placed(stage, says, valid=timedelta(seconds=100))

    def change(strategy: Any) -> None:
        (order,) = strategy.orders
        before = order.valid
        strategy.broker.modify(order, valid=timedelta(seconds=400))
        assert epoch_ns(order.valid) - epoch_ns(before) == pytest.approx(300e9, abs=2e6)
        scene.connection.tick(400, 100.0)

    def look(strategy: Any) -> None:
        assert scene.connection.cancels == []
        scene.connection.tick(500, 100.0)

    def expired(strategy: Any) -> None:
        assert scene.connection.cancels == [KEY]
        scene.connection.later([says.status(OrderStatus.CANCELLED, "0")])

    strategy = scene.play([trade, change, look, expired])
    assert scene.connection.changes == []
    assert strategy.orders[0].getstatusname() == "Expired"


@pytest.mark.parametrize("outcome", ["taken", "refused", "unknown"])
@pytest.mark.parametrize("seconds", [50, 400])
def test_validity_that_goes_with_a_price_is_on_record(
    stage: Stages, says: Any, outcome: str, seconds: int
) -> None:
    """While IBKR has not answered, and where it never does, the earlier moment is: no restart lets an order stand
    longer than was wanted."""
    scene, trade = placed(stage, says, valid=timedelta(seconds=100))
    moments: dict[str, int | None] = {}
    errors = {"refused": OrderRefusedError("no"), "unknown": OutcomeUnknownError("who knows")}

    def change(strategy: Any) -> None:
        (order,) = strategy.orders
        moments["old"] = scene.connection.submissions[0][0].expires_ns
        moments["new"] = scene.connection.clock.now_ns() + seconds * NS_PER_S
        strategy.broker.modify(order, price=98.0, valid=timedelta(seconds=seconds))
        answer = taken(scene) if outcome == "taken" else ModifyFailed(KEY, errors[outcome])
        scene.connection.later([answer])

    scene.play([trade, change, lambda strategy: None])
    old, new = moments["old"], moments["new"]
    assert old is not None
    assert new is not None
    then = {"taken": [new], "refused": [old], "unknown": []}[outcome]
    assert scene.connection.expiries == [(KEY, moment) for moment in (min(old, new), *then)]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, "nothing to change"),
        ({"price": "cheap"}, "price='cheap' is not a number"),
        ({"price": float("nan")}, "is not a number"),
        ({"price": -1.0}, "not above 0"),
        ({"price": 99.0}, "changes nothing"),
        ({"plimit": 99.0}, "has no meaning for type LMT"),
        ({"size": 0}, "not a size to trade"),
        ({"size": True}, "not a number"),
        ({"trailamount": 1.0}, "would change how it trails"),
        ({"tif": "SOON"}, "no time in force"),
        ({"valid": "tomorrow"}, "no validity"),
    ],
)
def test_what_cannot_be_changed_is_refused_at_once(
    stage: Stages, says: Any, change: dict[str, Any], words: str
) -> None:
    scene, trade = placed(stage, says)

    def wrong(strategy: Any) -> None:
        with pytest.raises(OrderRefusedError, match=words):
            strategy.broker.modify(strategy.orders[0], **change)

    scene.play([trade, wrong])
    assert scene.connection.changes == []


def test_size_that_has_executed_already_is_refused(stage: Stages, says: Any) -> None:
    scene, trade = placed(stage, says)

    def fill(strategy: Any) -> None:
        scene.connection.later([says.fill(1, "4")])

    def wrong(strategy: Any) -> None:
        for size in (3, 4):
            with pytest.raises(OrderRefusedError, match="not above the 4 that have executed"):
                strategy.broker.modify(strategy.orders[0], size=size)

    scene.play([trade, fill, wrong])


def test_order_that_has_ended_cannot_be_changed(stage: Stages, says: Any) -> None:
    scene, trade = placed(stage, says)

    def end(strategy: Any) -> None:
        scene.connection.later([says.fill(1, "10")])

    def wrong(strategy: Any) -> None:
        with pytest.raises(OrderRefusedError, match="is Completed"):
            strategy.broker.modify(strategy.orders[0], price=98.0)
        with pytest.raises(OrderRefusedError, match="none of this broker's"):
            strategy.broker.modify(SimpleNamespace(ref=-1), price=98.0)

    scene.play([trade, end, wrong])


def test_helper_for_strategies(stage: Stages, says: Any) -> None:
    scene, trade = placed(stage, says)

    def change(strategy: Any) -> None:
        assert modify(strategy, strategy.orders[0], price=98.0) is strategy.orders[0]
        assert scene.connection.changes[0][1].limit_price == 98.0

    scene.play([trade, change])
    backtest = SimpleNamespace(broker=bt.brokers.BackBroker())
    with pytest.raises(UsageError, match="BackBroker cannot modify"):
        modify(backtest, SimpleNamespace(ref=1), price=1.0)
