"""Books and IBKR's positions that are behind the executions, or ahead of them, over sockets."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from bt_ibkr.app.sim import market_clock
from bt_ibkr.clock import ScaledClock
from bt_ibkr.config import SessionSettings
from bt_ibkr.connection.interface import ExecutionReported, OrderChanged, Reconciled, SessionNotice
from bt_ibkr.emulator.settings import EmulatorSettings
from bt_ibkr.emulator.testing import EmulatorThread
from bt_ibkr.hub.config import HubSettings
from bt_ibkr.hub.names import UNALLOCATED
from bt_ibkr.hub.thread import HubThread
from bt_ibkr.model.order import OrderStatus, Side
from tests.hub.conftest import ACCOUNT, APPLE, FAST, LOOSE, PLAIN, Strategy

#: Market seconds in one of the watch: what has to be waited for passes in half a second.
SPEED = 60.0


class World:
    """A market that moves by itself, and hubs on one journal."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.emulator = EmulatorThread(EmulatorSettings(**(PLAIN | {"speed": SPEED, "pacing": "off"})))
        self.hubs: list[HubThread] = []
        self.strategies: list[Strategy] = []
        self._clock: ScaledClock | None = None

    def start(self) -> HubThread:
        if self._clock is None:
            clock = market_clock(self.emulator.do("state"))
            assert isinstance(clock, ScaledClock)
            self._clock = clock
        hub = HubThread(
            SessionSettings(base_url=self.emulator.url, **FAST),
            HubSettings(endpoint=f"ipc://{self.folder}/hub", beat_s=0.1, dead_s=1.0),
            clock=self._clock,
            journal=self.folder / "journal",
            risk=LOOSE,
        )
        self.hubs.append(hub)
        if not self.emulator.do("state")["started"]:
            self._clock.restart()
            self.emulator.do("start")
        return hub

    def join(self, name: str = "alpha") -> Strategy:
        one = Strategy(self.hubs[-1].endpoint, name).open()
        self.strategies.append(one)
        one.attach()
        return one

    def reconcile(self, strategy: Strategy) -> None:
        """Have the account read, and wait until it was."""
        before = len(strategy.of(Reconciled))
        strategy.connection.reconcile(ACCOUNT)
        strategy.until(lambda: len(strategy.of(Reconciled)) > before)

    def books(self) -> dict[str, Decimal]:
        async def look() -> Any:
            return self.hubs[-1].server.desk.books()

        return {
            view.name: one.quantity
            for view in self.hubs[-1].loop.call(look())
            for one in view.holdings
            if one.quantity and one.conid == APPLE
        }

    def uncertain(self) -> bool:
        async def look() -> bool:
            return self.hubs[-1].server.desk.bookkeeper.uncertain(ACCOUNT)

        return self.hubs[-1].loop.call(look())

    def adjustments(self) -> int:
        with sqlite3.connect(self.folder / "journal.books") as books:
            found = books.execute("SELECT count(*) FROM entries WHERE kind = 'adjustment'").fetchone()
        books.close()
        return int(found[0])

    def close(self) -> None:
        for one in self.strategies:
            one.connection.close()
        for hub in self.hubs:
            hub.close()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    with made.emulator:
        yield made
        made.close()


def buy(strategy: Strategy, quantity: int = 10) -> str:
    key = strategy.place(Side.BUY, quantity)
    strategy.until(lambda: sum(e.execution.quantity for e in strategy.of(ExecutionReported, key)) == quantity)
    return key


def differences(strategy: Strategy) -> list[str]:
    strategy.look()
    told = [one.text for one in strategy.store if isinstance(one, SessionNotice)]
    return [text for text in told if UNALLOCATED in text]


def test_positions_lag_when_a_hub_starts(world: World) -> None:
    """It died right after an execution, and the next one finds positions as they were before: no difference."""
    world.start()
    alpha = world.join()
    alpha.follow()
    buy(alpha, 5)
    # Nor are they listed yet; those that are, are added to the positions where they are read.
    world.emulator.fault("positions", action="lag", lag_s=0, invalidate=False)
    world.emulator.fault("trades", action="lag", lag_s=0)
    buy(alpha)
    world.hubs[-1].close()
    world.start()
    assert world.uncertain()
    assert world.books() == {"alpha": Decimal(15)}
    alpha.until(lambda: alpha.states()[-1:] == [True] and False in alpha.states())
    world.emulator.do("clear_faults")
    # By itself: nobody asks.
    alpha.until(lambda: not world.uncertain())
    assert world.books() == {"alpha": Decimal(15)}
    assert differences(alpha) == []
    assert world.adjustments() == 0


def test_an_execution_comes_after_its_position(world: World) -> None:
    """IBKR's positions tell of it first; the account is read meanwhile: nothing is put anywhere."""
    world.start()
    alpha = world.join()
    alpha.follow()
    silent = world.emulator.fault("silence", topic="str")
    listed = world.emulator.fault("trades", action="lag", lag_s=0)
    key = alpha.place(Side.BUY, 10)
    alpha.until(lambda: [e for e in alpha.of(OrderChanged, key) if e.report.status is OrderStatus.FILLED])
    world.reconcile(alpha)
    assert world.uncertain()
    for fault in (silent, listed):
        world.emulator.do("clear_faults", id=fault)
    world.reconcile(alpha)
    alpha.until(lambda: alpha.of(ExecutionReported, key))
    alpha.until(lambda: not world.uncertain())
    assert world.books() == {"alpha": Decimal(10)}
    assert differences(alpha) == []
    assert world.adjustments() == 0


def test_an_execution_comes_after_it_was_given_up(world: World) -> None:
    """So late that its position was put into "unallocated": it goes to its strategy, and one message was enough."""
    world.start()
    alpha = world.join()
    alpha.follow()
    world.emulator.fault("silence", topic="str")
    world.emulator.fault("trades", action="lag", lag_s=0)
    key = alpha.place(Side.BUY, 10)
    alpha.until(lambda: [e for e in alpha.of(OrderChanged, key) if e.report.status is OrderStatus.FILLED])
    world.reconcile(alpha)
    alpha.until(lambda: differences(alpha))
    assert world.books() == {UNALLOCATED: Decimal(10)}
    world.emulator.do("clear_faults")
    world.reconcile(alpha)
    alpha.until(lambda: alpha.of(ExecutionReported, key))
    assert world.books() == {"alpha": Decimal(10)}
    # Nor later, nor by the next hub.
    world.reconcile(alpha)
    assert not world.uncertain()
    world.hubs[-1].close()
    world.start()
    assert not world.uncertain()
    assert world.books() == {"alpha": Decimal(10)}
    assert len(differences(alpha)) == world.adjustments() == 1


def test_what_nothing_explains_is_told_once(world: World) -> None:
    """Shares are split: no execution tells of it."""
    world.start()
    alpha = world.join()
    alpha.follow()
    buy(alpha)
    world.emulator.do("split", conid=APPLE, numerator=2, denominator=1)
    alpha.until(lambda: alpha.connection.reconcile(ACCOUNT) or world.uncertain())  # type: ignore[func-returns-value]
    alpha.until(lambda: differences(alpha))
    assert world.books() == {"alpha": Decimal(10), UNALLOCATED: Decimal(10)}
    world.reconcile(alpha)
    assert not world.uncertain()
    assert len(differences(alpha)) == world.adjustments() == 1
