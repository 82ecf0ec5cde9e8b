"""Brackets, groups, orders that are held until they are transmitted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import backtrader as bt
import pytest

if TYPE_CHECKING:
    from tests.conftest import Bench, Run, Tape

Limit, Stop, Market = bt.Order.Limit, bt.Order.Stop, bt.Order.Market
TARGET = {0: 100.0, 90: 102.0}
STOPPED = {0: 100.0, 90: 98.0}
BETWEEN = {0: 100.0, 90: 100.5}


@pytest.fixture
def play(bench: Bench, tape: type[Tape], path: Any, at_bar: Any) -> Any:
    """Run actions bar by bar over a price that jumps."""

    def run(points: dict[int, float], *actions: Any, seconds: int = 180, **settings: Any) -> Run:
        prices = tape().every_second(seconds, path(points))
        return bench.run(bench.line(market=bench.market(AAPL=prices), **settings), at_bar(*actions))

    return run


def at_exchange(run: Run) -> list[tuple[str, str, str, int, int]]:
    """Side, type, status, filled and whether it has a parent, of every order the emulator has seen."""
    orders = run.line.emulator.call(lambda server: server.core.engine.orders())
    return [
        (o.spec.side.value, o.spec.order_type.value, o.status.value, int(o.filled), bool(o.parent_id))
        for o in orders
    ]


def long_bracket(strategy: Any) -> Any:
    return strategy.buy_bracket(size=10, exectype=Market, stopprice=99.0, limitprice=101.0)


@pytest.mark.parametrize(
    ("points", "stop_told", "limit_told", "price"),
    [
        (TARGET, ["Canceled"], ["Completed -10"], 101.0),
        (STOPPED, ["Completed -10"], ["Canceled"], 97.99),
    ],
)
def test_bracket_ends_with_stop_or_target(
    play: Any, points: dict[int, float], stop_told: list[str], limit_told: list[str], price: float
) -> None:
    run = play(points, long_bracket)
    entry, stop, limit = run.strategy.orders
    statuses = run.strategy.statuses
    assert statuses(entry) == ["Submitted", "Accepted", "Completed 10"]
    assert statuses(stop) == ["Submitted", "Accepted", *stop_told]
    assert statuses(limit) == ["Submitted", "Accepted", *limit_told]
    (done,) = [o for o in (stop, limit) if o.status == bt.Order.Completed]
    assert done.executed.price == pytest.approx(price)
    assert not run.broker.getposition(run.strategy.data).size
    assert not run.broker.get_orders_open()
    run.agree()


def test_short_bracket(play: Any) -> None:
    run = play(
        STOPPED,
        lambda s: s.sell_bracket(size=10, exectype=Market, stopprice=101.0, limitprice=98.5),
    )
    entry, stop, limit = run.strategy.orders
    assert [o.getstatusname() for o in (entry, stop, limit)] == ["Completed", "Canceled", "Completed"]
    assert limit.executed.price == 98.5
    run.agree()


def test_children_stay_at_ibkr_and_wait_for_the_parent(play: Any) -> None:
    run = play(
        BETWEEN,
        lambda s: s.buy_bracket(size=10, exectype=Limit, price=95.0, stopprice=94.0, limitprice=99.0),
    )
    # The target's price was there, but there is nothing to sell.
    assert at_exchange(run) == [
        ("BUY", "LMT", "Submitted", 0, False),
        ("SELL", "STP", "PreSubmitted", 0, True),
        ("SELL", "LMT", "PreSubmitted", 0, True),
    ]
    assert len(run.broker.get_orders_open()) == 3
    run.agree()


def test_cancelled_parent_takes_its_children_along(play: Any) -> None:
    def cancel(strategy: Any) -> None:
        strategy.cancel(strategy.orders[0])

    run = play(
        BETWEEN,
        lambda s: s.buy_bracket(size=10, exectype=Limit, price=95.0, stopprice=94.0, limitprice=99.0),
        cancel,
    )
    for order in run.strategy.orders:
        assert run.strategy.statuses(order) == ["Submitted", "Accepted", "Canceled"]
    run.agree()


def test_cancelled_child_takes_its_sibling_along(play: Any) -> None:
    def cancel(strategy: Any) -> None:
        strategy.cancel(strategy.orders[1])

    run = play(BETWEEN, long_bracket, cancel)
    entry, stop, limit = run.strategy.orders
    assert [o.getstatusname() for o in (entry, stop, limit)] == ["Completed", "Canceled", "Canceled"]
    assert run.broker.getposition(run.strategy.data).size == 10
    run.agree()


@pytest.mark.parametrize("leg", ["stopexec", "limitexec"])
def test_bracket_with_one_leg(play: Any, leg: str) -> None:
    run = play(
        TARGET | {120: 98.0},
        lambda s: [
            o
            for o in s.buy_bracket(size=10, exectype=Market, stopprice=99.0, limitprice=101.0, **{leg: None})
            if o is not None
        ],
    )
    entry, child = run.strategy.orders
    assert [entry.getstatusname(), child.getstatusname()] == ["Completed", "Completed"]
    assert child.executed.price == pytest.approx(101.0 if leg == "stopexec" else 97.99)
    run.agree()


def test_hand_made_chain_is_sent_as_one_when_it_is_transmitted(play: Any) -> None:
    seen: dict[str, Any] = {}

    def chain(strategy: Any) -> list[Any]:
        entry = strategy.buy(size=10, transmit=False)
        stop = strategy.sell(size=10, exectype=Stop, price=99.0, parent=entry, transmit=False)
        seen["before"] = (entry.status, stop.status, len(strategy.log))
        limit = strategy.sell(size=10, exectype=Limit, price=101.0, parent=entry, transmit=True)
        return [entry, stop, limit]

    run = play(TARGET, chain)
    entry, stop, limit = run.strategy.orders
    assert seen["before"][:2] == (bt.Order.Created, bt.Order.Created)
    assert [o.getstatusname() for o in (entry, stop, limit)] == ["Completed", "Canceled", "Completed"]
    told = [entry[1:3] for entry in run.strategy.log if entry[0] == "order"]
    assert told[:3] == [(entry.ref, "Submitted"), (stop.ref, "Submitted"), (limit.ref, "Submitted")]
    run.agree()


def test_chain_over_two_bars(play: Any) -> None:
    def last(strategy: Any) -> Any:
        return strategy.sell(size=10, exectype=Stop, price=95.0, parent=strategy.orders[0])

    run = play(BETWEEN, lambda s: s.buy(size=10, transmit=False), last)
    entry, stop = run.strategy.orders
    assert run.strategy.statuses(entry) == ["Submitted", "Accepted", "Completed 10"]
    assert run.strategy.statuses(stop) == ["Submitted", "Accepted"]
    # Bought when the chain was complete, a minute later.
    assert entry.executed.price == pytest.approx(100.51)
    run.agree()


def test_bracket_of_two_stops_of_one_type_keeps_them_apart(play: Any) -> None:
    def chain(strategy: Any) -> list[Any]:
        entry = strategy.buy(size=10, transmit=False)
        near = strategy.sell(size=10, exectype=Limit, price=101.0, parent=entry, transmit=False)
        far = strategy.sell(size=10, exectype=Limit, price=105.0, parent=entry)
        return [entry, near, far]

    run = play(TARGET, chain)
    _, near, far = run.strategy.orders
    assert [near.getstatusname(), far.getstatusname()] == ["Completed", "Canceled"]
    run.agree()


def test_child_of_an_order_that_is_not_held_is_rejected(play: Any) -> None:
    def orphan(strategy: Any) -> list[Any]:
        parent = strategy.buy(size=1, exectype=Limit, price=90.0)
        return [parent, strategy.sell(size=1, exectype=Stop, price=80.0, parent=parent)]

    run = play(BETWEEN, orphan)
    parent, child = run.strategy.orders
    assert run.strategy.statuses(parent) == ["Submitted", "Accepted"]
    assert run.strategy.statuses(child) == ["Rejected"]
    (why,) = [k["why"] for m, _, k in run.strategy.messages if m == "order-refused"]
    assert "not waiting to be transmitted" in why
    assert len(at_exchange(run)) == 1


def test_order_that_was_never_transmitted_is_told_at_the_end(play: Any) -> None:
    run = play(BETWEEN, lambda s: s.buy(size=10, transmit=False))
    (order,) = run.strategy.orders
    assert run.strategy.statuses(order) == []
    assert at_exchange(run) == []
    left = [message for message, *_ in run.line.store.get_notifications()]
    assert "order-never-transmitted" in left


def test_held_orders_are_cancelled_without_ibkr(play: Any) -> None:
    def withdraw(strategy: Any) -> None:
        strategy.cancel(strategy.orders[0])

    def held(strategy: Any) -> list[Any]:
        entry = strategy.buy(size=10, transmit=False)
        return [entry, strategy.sell(size=10, exectype=Stop, price=99.0, parent=entry, transmit=False)]

    run = play(BETWEEN, held, withdraw)
    for order in run.strategy.orders:
        assert run.strategy.statuses(order) == ["Canceled"]
    assert at_exchange(run) == []
    assert not run.broker.get_orders_open()


def test_refused_bracket_leaves_nothing_standing(play: Any) -> None:
    run = play(
        BETWEEN,
        lambda s: s.buy_bracket(size=2000, exectype=Market, stopprice=99.0, limitprice=101.0),
        cash=10_000.0,
    )
    entry, stop, limit = run.strategy.orders
    assert run.strategy.statuses(entry) == ["Submitted", "Margin"]
    for child in (stop, limit):
        assert run.strategy.statuses(child)[0] == "Submitted"
        assert run.strategy.statuses(child)[1:] in (["Margin"], ["Rejected"], ["Canceled"])
    assert not run.broker.get_orders_open()
    assert all(status in ("Cancelled", "Failed") for _, _, status, *_ in at_exchange(run))
    run.agree()


def three_of_a_group(strategy: Any) -> list[Any]:
    first = strategy.buy(size=10, exectype=Limit, price=99.0)
    second = strategy.sell(size=10, exectype=Limit, price=101.0, oco=first)
    # Any member names the group.
    third = strategy.sell(size=10, exectype=Limit, price=103.0, oco=second)
    return [first, second, third]


@pytest.mark.parametrize(("points", "filled"), [(STOPPED, 0), (TARGET, 1)])
def test_oco_cancels_the_rest(play: Any, points: dict[int, float], filled: int) -> None:
    run = play(points, three_of_a_group)
    for index, order in enumerate(run.strategy.orders):
        wanted = "Completed" if index == filled else "Canceled"
        assert order.getstatusname() == wanted
    run.agree()


def test_oco_cancels_the_rest_when_one_is_cancelled(play: Any) -> None:
    run = play(BETWEEN, three_of_a_group, lambda s: s.cancel(s.orders[2]) and None)
    assert [o.getstatusname() for o in run.strategy.orders] == ["Canceled"] * 3
    assert not run.broker.get_orders_open()
    run.agree()


def test_oco_cancels_the_rest_when_one_is_refused(play: Any) -> None:
    def two(strategy: Any) -> list[Any]:
        first = strategy.buy(size=1, exectype=Limit, price=99.0)
        return [first, strategy.buy(size=100_000, exectype=Limit, price=98.0, oco=first)]

    run = play(BETWEEN, two)
    first, second = run.strategy.orders
    assert [first.getstatusname(), second.getstatusname()] == ["Canceled", "Margin"]
    run.agree()
