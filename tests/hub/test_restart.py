"""The hub ends and another one takes over its journal: strategies go on, and are told what they missed, once."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from bt_ibkr.connection.interface import (
    ExecutionReported,
    OrderChanged,
    OrderFailed,
    Reconciled,
)
from bt_ibkr.emulator.testing import EmulatorThread
from bt_ibkr.errors import OrderRefusedError
from bt_ibkr.hub.names import UNALLOCATED
from bt_ibkr.hub.thread import HubThread
from bt_ibkr.model.order import DONE, OrderType, Side
from tests.hub.conftest import ACCOUNT, APPLE, StartHub, Strategy, move

WAITING: dict[str, Any] = {"order_type": OrderType.LIMIT, "limit_price": 1.0}


class Place:
    """A journal, the hub on it, and strategies."""

    def __init__(self, start_hub: StartHub, journal: Path) -> None:
        self._start = start_hub
        self._journal = journal
        self.strategies: list[Strategy] = []
        self.hub: HubThread = self.start()

    def start(self, **settings: Any) -> HubThread:
        self.hub = self._start(self._journal, **settings)
        return self.hub

    def join(self, name: str) -> Strategy:
        one = Strategy(self.hub.endpoint, name).open()
        self.strategies.append(one)
        one.attach()
        return one

    def books(self) -> dict[str, Decimal]:
        async def look() -> Any:
            return self.hub.server.desk.books()

        return {
            view.name: held.quantity
            for view in self.hub.loop.call(look())
            for held in view.holdings
            if held.quantity and held.conid == APPLE
        }


@pytest.fixture
def place(start_hub: StartHub, tmp_path: Path) -> Iterator[Place]:
    made = Place(start_hub, tmp_path / "journal.sqlite")
    yield made
    for one in made.strategies:
        one.connection.close()


def created(emulator: EmulatorThread) -> list[str]:
    return [str(one["client_order_id"]) for one in emulator.ledger()["orders"]]


def back(strategy: Strategy) -> None:
    """It was told that the hub was away, and is there again."""
    strategy.until(lambda: strategy.states()[-1:] == [True] and False in strategy.states())


def executed(strategy: Strategy, key: str | None = None) -> Decimal:
    ids = [event.execution.execution_id for event in strategy.of(ExecutionReported, key)]
    assert len(ids) == len(set(ids))
    return sum((e.execution.quantity for e in strategy.of(ExecutionReported, key)), Decimal(0))


def test_what_happened_meanwhile_is_told_once(place: Place, emulator: EmulatorThread) -> None:
    alpha, beta = place.join("alpha"), place.join("beta")
    ticks = alpha.follow()
    bought, waiting = alpha.place(Side.BUY, 10), alpha.place(Side.BUY, 1, **WAITING)
    alpha.until(lambda: alpha.placed(bought) and alpha.placed(waiting))
    place.hub.close()
    move(emulator, 300)
    ours = {one["client_order_id"]: one["order_id"] for one in emulator.ledger()["orders"]}
    emulator.call(lambda server: server.core.engine.cancel(int(ours[waiting])))
    place.start()
    for one in (alpha, beta):
        back(one)
    alpha.until(lambda: executed(alpha, bought) == 10)
    alpha.until(lambda: [e for e in alpha.of(OrderChanged, waiting) if e.report.status in DONE])
    assert place.books() == {"alpha": Decimal(10)}
    assert [one.quantity for one in alpha.of(Reconciled)[-1].positions] == [10]
    assert executed(beta) == 0
    # Life goes on: ticks and orders.
    before = len(ticks.all)
    alpha.until(lambda: move(emulator, 20) or len(ticks.all) > before)  # type: ignore[func-returns-value]
    sold = alpha.place(Side.SELL, 4)
    alpha.until(lambda: alpha.placed(sold))
    move(emulator, 300)
    alpha.until(lambda: executed(alpha, sold) == 4)
    assert executed(alpha, bought) == 10
    assert len([e for e in alpha.of(OrderChanged, waiting) if e.report.status in DONE]) == 1
    assert place.books() == {"alpha": Decimal(6)}


def test_an_order_that_no_hub_has_taken(place: Place, emulator: EmulatorThread) -> None:
    """Placed while there was none: the next one sends it, once, if it is not too old by then."""
    alpha = place.join("alpha")
    place.hub.close()
    alpha.until(lambda: alpha.states()[-1:] == [False])
    key = alpha.place(Side.BUY, 1, **WAITING)
    place.start(stale_s=60.0)
    alpha.until(lambda: alpha.placed(key))
    assert created(emulator) == [key]
    place.hub.close()
    late = alpha.place(Side.BUY, 2, **WAITING)
    place.start(stale_s=0.01)
    alpha.until(lambda: alpha.of(OrderFailed, late))
    error = alpha.of(OrderFailed, late)[0].error
    assert isinstance(error, OrderRefusedError)
    assert created(emulator) == [key]


def test_a_correction_that_came_meanwhile(place: Place, emulator: EmulatorThread) -> None:
    """It is told as what it is, not as one more execution."""
    alpha = place.join("alpha")
    alpha.follow()
    key, rest = alpha.place(Side.BUY, 10), alpha.place(Side.BUY, 1, **WAITING)
    alpha.until(lambda: alpha.placed(key) and alpha.placed(rest))
    move(emulator, 300)
    alpha.until(lambda: executed(alpha, key) == 10)
    first = alpha.of(ExecutionReported, key)[0].execution
    place.hub.close()
    emulator.do("bust", execution_id=first.execution_id)
    place.start()
    back(alpha)
    alpha.until(lambda: place.books().get("alpha", Decimal(0)) == 10 - first.quantity)
    alpha.until(lambda: [e for e in alpha.of(Reconciled) if e.positions is not None])
    last = [e for e in alpha.of(Reconciled) if e.positions is not None][-1]
    assert sum(one.quantity for one in last.positions) == 10 - first.quantity
    assert all(e.replaces is not None for e in alpha.of(ExecutionReported, key) if not e.execution.quantity)


def test_a_strategy_and_its_hub_both_begin_anew(place: Place, emulator: EmulatorThread) -> None:
    """What ended without any process of its name having heard of it is in the first answer, and not in the next."""
    alpha = place.join("alpha")
    alpha.follow()
    key, waiting = alpha.place(Side.BUY, 10), alpha.place(Side.BUY, 1, **WAITING)
    alpha.until(lambda: alpha.placed(key) and alpha.placed(waiting))
    link = alpha.connection._link
    link._say = lambda message: False  # type: ignore[method-assign]
    link.close()
    move(emulator, 300)
    place.hub.close()
    place.start()
    again = Strategy(place.hub.endpoint, "alpha").open()
    place.strategies.append(again)
    first = again.attach()
    ended = [one for one in first.standing if not one.open]
    assert [one.intent.key for one in ended] == [key]
    assert sum(one.quantity for one in ended[0].executions) == 10
    assert [one.intent.key for one in first.standing if one.open] == [waiting]
    assert [one.quantity for one in first.positions] == [10]
    assert first.sequences["alpha"] == 3
    again.connection.close()
    third = Strategy(place.hub.endpoint, "alpha").open()
    place.strategies.append(third)
    assert [one.intent.key for one in third.attach().standing] == [waiting]


def test_positions_from_before_the_first_hub(place: Place, emulator: EmulatorThread) -> None:
    """They are nobody's, over restarts, until they are moved."""
    alpha = place.join("alpha")
    alpha.follow()
    key = alpha.place(Side.BUY, 10)
    alpha.until(lambda: alpha.placed(key))
    move(emulator, 300)
    alpha.until(lambda: executed(alpha) == 10)
    place.hub.close()
    for file in place._journal.parent.glob("journal.sqlite*"):
        file.unlink()
    place.start()
    assert place.books() == {"unallocated": Decimal(10)}
    positions = emulator.ledger()["accounts"][ACCOUNT]["positions"]
    assert Decimal(str(positions[str(APPLE)]["quantity"])) == 10


def test_books_that_are_gone_are_told(
    emulator: EmulatorThread, start_hub: StartHub, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """All positions are in nobody's book then: a strategy that began flat would trade on."""
    journal = tmp_path / "journal.sqlite"
    hub = start_hub(journal=journal)
    strategy = Strategy(hub.endpoint, "alpha").open()
    strategy.attach()
    strategy.follow()
    key = strategy.place()
    strategy.until(lambda: strategy.placed(key))
    for _ in range(20):
        move(emulator, 50)
        if strategy.of(ExecutionReported):
            break
    strategy.until(lambda: sum(e.execution.quantity for e in strategy.of(ExecutionReported)) == 10)
    strategy.connection.close()
    hub.close()
    for file in tmp_path.glob("*.books*"):
        file.unlink()
    again = start_hub(journal=journal)
    assert "books-anew" in caplog.text
    assert again.server.desk.bookkeeper.of(ACCOUNT).book(UNALLOCATED).quantity(APPLE) == 10
