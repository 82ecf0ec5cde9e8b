"""Processes of one name, one after the other: no order is taken for another one's, no number is used twice."""

from __future__ import annotations

from typing import Any

import pytest

from bt_ibkr.connection.interface import OrderFailed, OrderPlaced
from bt_ibkr.emulator.testing import EmulatorThread
from bt_ibkr.hub.thread import HubThread
from bt_ibkr.model.order import OrderType, Side
from tests.hub.conftest import StartHub, Strategy
from tests.hub.test_orders import Held, created
from tests.hub.test_vanish import status

WAITING: dict[str, Any] = {"order_type": OrderType.LIMIT, "limit_price": 1.0}


@pytest.fixture
def strategies() -> Any:
    found: list[Strategy] = []
    yield found
    for one in found:
        one.connection.close()


@pytest.fixture
def hub(start_hub: StartHub) -> HubThread:
    return start_hub(dead_s=0.3)


def enter(hub: HubThread, strategies: list[Strategy]) -> Strategy:
    one = Strategy(hub.endpoint, "alpha").open()
    strategies.append(one)
    one.attach()
    return one


def mute(strategy: Strategy) -> Any:
    """Nothing of what it says arrives, as by a stopped process; what undoes that."""
    link = strategy.connection._link
    say = link._say
    link._say = lambda message: False  # type: ignore[method-assign]

    def undo() -> None:
        link._say = say  # type: ignore[method-assign]

    return undo


def test_an_order_that_is_being_written_down_counts(
    hub: HubThread, emulator: EmulatorThread, strategies: list[Strategy]
) -> None:
    """The hub has it, and its record not yet, when another process takes the name over."""
    held = Held(hub)
    first = enter(hub, strategies)
    key = first.place(**WAITING)
    first.until(lambda: held.begun == [key])
    mute(first)
    second = Strategy(hub.endpoint, "alpha").open()
    strategies.append(second)
    asked = second.connection._link.ask("attach", {"account": first.intent().ticket.account})
    assert not asked.done()
    held.go()
    snapshot = asked.result(15.0)
    assert snapshot.sequences["alpha"] == 2
    assert [one.intent.key for one in snapshot.standing] == [key]
    second.attach()
    other = second.place(**WAITING)
    assert other != key
    second.until(lambda: second.placed(other))
    assert created(emulator) == [key, other]


@pytest.mark.parametrize("quantity", [10, 20], ids=["the same order", "another order"])
def test_a_process_that_comes_back_does_not_take_the_order_of_its_successor(
    hub: HubThread, emulator: EmulatorThread, strategies: list[Strategy], quantity: int
) -> None:
    """Both have numbered their first order 1, and the earlier one's never reached the hub."""
    first = enter(hub, strategies)
    undo = mute(first)
    lost = first.place(**WAITING)
    second = enter(hub, strategies)
    key = second.place(Side.BUY, quantity, **WAITING)
    assert key == lost
    second.until(lambda: second.placed(key))
    second.connection.close()
    undo()
    first.until(lambda: first.of(OrderFailed, lost))
    assert "another process that had this name" in str(first.of(OrderFailed)[0].error)
    assert first.of(OrderPlaced) == []
    assert created(emulator) == [key]
    # What it numbers from here on is nobody's.
    again = first.place(**WAITING)
    first.until(lambda: first.placed(again))
    assert created(emulator) == [key, again]


def test_its_own_orders_stay_its_own(
    hub: HubThread, emulator: EmulatorThread, strategies: list[Strategy]
) -> None:
    """One that was on record before the other came is told again to whom it is."""
    first = enter(hub, strategies)
    key = first.place(**WAITING)
    first.until(lambda: first.placed(key))
    undo = mute(first)
    second = enter(hub, strategies)
    other = second.place(**WAITING)
    second.until(lambda: second.placed(other))
    second.connection.close()
    undo()
    first.until(lambda: first.states()[-1:] == [True] and len(first.states()) > 1)
    first.connection.cancel(key, first.mailbox)
    first.until(lambda: status(emulator, key) == "Cancelled")
    assert first.of(OrderFailed) == []
