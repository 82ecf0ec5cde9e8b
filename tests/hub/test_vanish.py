"""A strategy that is gone without a word: its policy, and its return before and after."""

from __future__ import annotations

import threading
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from bt_ibkr.connection.interface import (
    ExecutionReported,
    OrderChanged,
    OrderFailed,
    Reconciled,
    SessionNotice,
)
from bt_ibkr.emulator.testing import EmulatorThread
from bt_ibkr.hub.access import Grant, OnVanish
from bt_ibkr.hub.thread import HubThread
from bt_ibkr.model.order import DONE, OrderType, Side
from tests.hub.conftest import ACCOUNT, APPLE, StartHub, Strategy, move

WAITING: dict[str, Any] = {"order_type": OrderType.LIMIT, "limit_price": 1.0}
VANISH_S = 0.6


def hub_with(start_hub: StartHub, policy: OnVanish, journal: Path | None = None) -> HubThread:
    return start_hub(
        journal,
        dead_s=0.3,
        strategies={"alpha": Grant(on_vanish=policy, vanish_s=VANISH_S), "beta": Grant()},
    )


def hold(hub: HubThread, emulator: EmulatorThread, strategies: list[Strategy]) -> tuple[Strategy, str]:
    """Alpha buys 10 of Apple, and has an order in the market."""
    alpha = Strategy(hub.endpoint, "alpha").open()
    strategies.append(alpha)
    alpha.attach()
    alpha.follow()
    alpha.place(Side.BUY, 10)
    waiting = alpha.place(Side.BUY, 1, **WAITING)
    alpha.until(lambda: alpha.placed(waiting))
    move(emulator, 200)
    alpha.until(lambda: sum(e.execution.quantity for e in alpha.of(ExecutionReported)) == 10)
    return alpha, waiting


def die(strategy: Strategy) -> None:
    """As by SIGKILL: it says nothing any more, and hears nothing."""
    link = strategy.connection._link
    link._say = lambda message: False  # type: ignore[method-assign]
    link.close()


def status(emulator: EmulatorThread, key: str) -> str:
    orders = {one["client_order_id"]: one for one in emulator.ledger()["orders"]}
    return str(orders[key]["status"])


def held(emulator: EmulatorThread) -> Decimal:
    positions = emulator.ledger()["accounts"][ACCOUNT]["positions"]
    return Decimal(str(positions.get(str(APPLE), {}).get("quantity", 0)))


@pytest.fixture
def strategies() -> Any:
    found: list[Strategy] = []
    yield found
    for one in found:
        one.connection.close()


@pytest.mark.parametrize("policy", list(OnVanish))
def test_what_is_done(
    start_hub: StartHub, emulator: EmulatorThread, strategies: list[Strategy], policy: OnVanish
) -> None:
    hub = hub_with(start_hub, policy)
    watcher = Strategy(hub.endpoint, "beta").open()
    strategies.append(watcher)
    watcher.attach()
    alpha, waiting = hold(hub, emulator, strategies)
    die(alpha)
    if policy is OnVanish.LEAVE:
        watcher.until(lambda: hub.server.peer("alpha") is None)
        assert (status(emulator, waiting), held(emulator)) == ("Submitted", Decimal(10))
        assert not [one for one in watcher.store if isinstance(one, SessionNotice)]
        return
    watcher.until(lambda: [one for one in watcher.store if getattr(one, "kind", "") == "strategy-vanished"])
    watcher.until(lambda: status(emulator, waiting) == "Cancelled")
    if policy is OnVanish.FLATTEN:
        watcher.until(lambda: move(emulator, 20) or held(emulator) == 0)  # type: ignore[func-returns-value]
    else:
        assert held(emulator) == 10
    again = Strategy(hub.endpoint, "alpha").open()
    strategies.append(again)
    again.until(lambda: not hub.server._tasks or held(emulator) == 10)
    snapshot = again.attach()
    quantities = [one.quantity for one in snapshot.positions]
    assert quantities == ([] if policy is OnVanish.FLATTEN else [10])
    ended = {one.intent.key: one for one in snapshot.standing if not one.open}
    assert waiting in ended
    assert not [one for one in snapshot.standing if one.open]


def test_back_in_time(start_hub: StartHub, emulator: EmulatorThread, strategies: list[Strategy]) -> None:
    """Nothing is cancelled, and its successor takes the order over."""
    hub = hub_with(start_hub, OnVanish.FLATTEN)
    alpha, waiting = hold(hub, emulator, strategies)
    die(alpha)
    again = Strategy(hub.endpoint, "alpha").open()
    strategies.append(again)
    snapshot = again.attach()
    assert [one.intent.key for one in snapshot.standing if one.open] == [waiting]
    again.until(lambda: not hub.server.members.vanishing)
    assert (status(emulator, waiting), held(emulator)) == ("Submitted", Decimal(10))


def test_the_process_itself_comes_back_late(
    start_hub: StartHub, emulator: EmulatorThread, strategies: list[Strategy]
) -> None:
    """Cut off, wound up, heard again: it is told what became of its order and its position, and ticks go on."""
    hub = hub_with(start_hub, OnVanish.FLATTEN)
    alpha, waiting = hold(hub, emulator, strategies)
    ticks = alpha.follow("MSFT")
    link = alpha.connection._link
    say = link._say
    link._say = lambda message: False  # type: ignore[method-assign]
    alpha.until(lambda: move(emulator, 20) or held(emulator) == 0)  # type: ignore[func-returns-value]
    link._say = say  # type: ignore[method-assign]
    alpha.until(lambda: [e for e in alpha.of(OrderChanged, waiting) if e.report.status in DONE])
    alpha.until(
        lambda: [e for e in alpha.of(Reconciled) if e.positions == ()] or alpha.of(ExecutionReported)[-1].key
    )
    alpha.until(lambda: alpha.states()[-1:] == [True])
    before = len(ticks.all)
    alpha.until(lambda: move(emulator, 20) or len(ticks.all) > before)  # type: ignore[func-returns-value]


def test_gone_together_with_the_hub(
    start_hub: StartHub, emulator: EmulatorThread, strategies: list[Strategy], tmp_path: Path
) -> None:
    """The next hub knows whom to expect, and who had said goodbye."""
    hub = hub_with(start_hub, OnVanish.FLATTEN, tmp_path / "journal")
    alpha, waiting = hold(hub, emulator, strategies)
    die(alpha)
    hub.close()
    assert (status(emulator, waiting), held(emulator)) == ("Submitted", Decimal(10))
    hub = hub_with(start_hub, OnVanish.FLATTEN, tmp_path / "journal")
    watcher = Strategy(hub.endpoint, "beta").open()
    strategies.append(watcher)
    watcher.attach()
    watcher.until(lambda: status(emulator, waiting) == "Cancelled")
    watcher.until(lambda: move(emulator, 20) or held(emulator) == 0)  # type: ignore[func-returns-value]


def test_who_says_goodbye_has_not_vanished(
    start_hub: StartHub, emulator: EmulatorThread, strategies: list[Strategy], tmp_path: Path
) -> None:
    hub = hub_with(start_hub, OnVanish.FLATTEN, tmp_path / "journal")
    alpha, waiting = hold(hub, emulator, strategies)
    alpha.connection.close()
    watcher = Strategy(hub.endpoint, "beta").open()
    strategies.append(watcher)
    watcher.until(lambda: hub.server.peer("alpha") is None)
    assert not hub.server.members.vanishing
    hub.close()
    hub = hub_with(start_hub, OnVanish.FLATTEN, tmp_path / "journal")
    assert "alpha" not in hub.server.members.vanishing
    assert (status(emulator, waiting), held(emulator)) == ("Submitted", Decimal(10))


def test_an_order_decided_before_it_heard_is_not_sent(
    start_hub: StartHub, emulator: EmulatorThread, strategies: list[Strategy]
) -> None:
    """It stood still, its book was closed, it goes on with the position that it believes to have, and sells it."""
    hub = hub_with(start_hub, OnVanish.FLATTEN)
    alpha, _ = hold(hub, emulator, strategies)
    link = alpha.connection._link
    say, user_hub = link._say, alpha.connection.new_hub
    link._say = lambda message: False  # type: ignore[method-assign]
    alpha.until(lambda: move(emulator, 20) or held(emulator) == 0)  # type: ignore[func-returns-value]

    late: list[str] = []

    def decides_first() -> None:
        if not late:
            # Not on this thread, which asks before all others.
            decides = threading.Thread(target=lambda: late.append(alpha.place(Side.SELL, 10)))
            decides.start()
            decides.join()
        user_hub()

    alpha.connection.new_hub = decides_first  # type: ignore[method-assign]
    link._say = say  # type: ignore[method-assign]
    alpha.until(lambda: late and alpha.of(OrderFailed, late[0]))
    assert "had vanished" in str(alpha.of(OrderFailed, late[0])[0].error)
    sent = [one["client_order_id"] for one in emulator.ledger()["orders"]]
    assert late[0] not in sent
    # What it decides now is sent.
    alpha.until(lambda: alpha.states()[-1:] == [True])
    now = alpha.place(Side.BUY, 1, **WAITING)
    alpha.until(lambda: alpha.placed(now))


def test_gone_while_the_session_is_down(
    start_hub: StartHub, emulator: EmulatorThread, strategies: list[Strategy]
) -> None:
    """Nothing can be cancelled or closed then: it is done once the accounts were read again."""
    hub = hub_with(start_hub, OnVanish.FLATTEN)
    watcher = Strategy(hub.endpoint, "beta").open()
    strategies.append(watcher)
    alpha, waiting = hold(hub, emulator, strategies)
    emulator.fault("restart", down_s=2.5)
    watcher.until(lambda: watcher.states()[-1:] == [False])
    die(alpha)
    watcher.until(lambda: "wind-up-waits" in [getattr(one, "kind", "") for one in watcher.store])
    watcher.until(lambda: watcher.states()[-1:] == [True], 30.0)
    watcher.until(lambda: status(emulator, waiting) == "Cancelled", 30.0)
    watcher.until(lambda: move(emulator, 20) or held(emulator) == 0, 30.0)  # type: ignore[func-returns-value]
    assert "wind-up-failed" not in [getattr(one, "kind", "") for one in watcher.store]
