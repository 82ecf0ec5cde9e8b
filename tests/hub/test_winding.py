"""Books of strategies that are gone are closed once, whatever they hold and however often they go."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from bt_ibkr.connection.interface import ExecutionReported, SessionNotice
from bt_ibkr.emulator.settings import EmulatorSettings
from bt_ibkr.emulator.testing import EmulatorThread
from bt_ibkr.hub.access import Grant, OnVanish
from bt_ibkr.hub.thread import HubThread
from bt_ibkr.model.intent import OrderIntent, make_key
from bt_ibkr.model.order import OrderTicket, OrderType, Side
from bt_ibkr.model.trading import Trading, TradingState
from tests.hub.conftest import ACCOUNT, APPLE, PLAIN, StartHub, Strategy, move
from tests.hub.test_vanish import VANISH_S, die, held, hold, hub_with, status

#: Of ForecastEx: the two answers of one question.
YES, NO = 722489372, 722489376
MICROSOFT = 272093
EVENT: dict[str, Any] = {"contract_id": YES, "security_type": "OPT", "exchange": "FORECASTX"}


@pytest.fixture
def emulator() -> Iterator[EmulatorThread]:
    market = PLAIN | {"synthetic_instruments": ("AAPL", "MSFT", f"conid:{YES}"), "pacing": "off"}
    with EmulatorThread(EmulatorSettings(**market)) as one:
        yield one


@pytest.fixture
def strategies() -> Iterator[list[Strategy]]:
    found: list[Strategy] = []
    yield found
    for one in found:
        one.connection.close()


def watching(hub: HubThread, strategies: list[Strategy]) -> Strategy:
    watcher = Strategy(hub.endpoint, "beta").open()
    strategies.append(watcher)
    watcher.attach()
    return watcher


def closing(emulator: EmulatorThread, name: str = "alpha-hub") -> list[dict[str, Any]]:
    """Orders by which a book was closed."""
    orders = emulator.ledger()["orders"]
    return [one for one in orders if (one["client_order_id"] or "").startswith(f"{name}.")]


def moving(strategy: Strategy, emulator: EmulatorThread, wanted: Callable[[], Any]) -> None:
    """The market moves until that is so."""

    def so() -> Any:
        move(emulator, 20)
        return wanted()

    strategy.until(so)


def executed(strategy: Strategy, key: str) -> Decimal:
    return sum((e.execution.quantity for e in strategy.of(ExecutionReported, key)), Decimal(0))


def hits(emulator: EmulatorThread, number: int) -> int:
    """How often a fault has happened."""
    return sum(row.get("id") == number for row in emulator.do("faults")["log"])


def kinds(strategy: Strategy) -> list[str]:
    strategy.look()
    return [getattr(one, "kind", "") for one in strategy.store]


def winding(hub: HubThread) -> int:
    """How many are being wound up, or wait for it."""

    async def count() -> int:
        return sum(task.get_name() == "hub-wind-up" for task in asyncio.all_tasks())

    return hub.loop.call(count())


def positions(emulator: EmulatorThread) -> dict[int, Decimal]:
    found = emulator.ledger()["accounts"][ACCOUNT]["positions"]
    quantities = {int(conid): Decimal(str(one["quantity"])) for conid, one in found.items()}
    return {conid: quantity for conid, quantity in quantities.items() if quantity}


def test_an_order_that_filled_without_its_execution(
    start_hub: StartHub, emulator: EmulatorThread, strategies: list[Strategy]
) -> None:
    """IBKR tells that the closing order has filled, and not yet how: the book is not closed once more."""
    hub = hub_with(start_hub, OnVanish.FLATTEN)
    watcher = watching(hub, strategies)
    alpha, _ = hold(hub, emulator, strategies)
    faults = [emulator.fault("silence", topic="str"), emulator.fault("trades", action="lag", lag_s=0)]
    die(alpha)
    watcher.until(lambda: closing(emulator))
    moving(watcher, emulator, lambda: held(emulator) == 0)
    (key,) = (one["client_order_id"] for one in closing(emulator))

    async def ended() -> bool:
        tracked = hub.server.desk.registry.get(key)
        return tracked is not None and not tracked.open

    watcher.until(lambda: hub.loop.call(ended()))
    before = hits(emulator, faults[1])
    # It looks again and again, and trades nothing by what it does not know.
    watcher.until(lambda: hits(emulator, faults[1]) >= before + 3)
    assert winding(hub) == 1
    for fault in faults:
        emulator.do("clear_faults", id=fault)
    moving(watcher, emulator, lambda: not winding(hub))
    assert len(closing(emulator)) == 1
    assert held(emulator) == 0
    assert "wind-up-failed" not in kinds(watcher)


def test_gone_again_while_it_is_wound_up(
    start_hub: StartHub, emulator: EmulatorThread, strategies: list[Strategy], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It vanishes, comes back and vanishes again while the first closing order is on its way: there is no second."""
    hub = hub_with(start_hub, OnVanish.FLATTEN)
    watcher = watching(hub, strategies)
    alpha, _ = hold(hub, emulator, strategies)
    desk, begun, go_on = hub.server.desk, threading.Event(), threading.Event()
    place, placed = desk.place, []

    async def slowly(intents: tuple[OrderIntent, ...], recorded: Any = None) -> None:
        if intents[0].key.startswith("alpha-hub."):
            placed.append(intents[0].key)
            begun.set()
            await asyncio.to_thread(go_on.wait, 15.0)
        await place(intents, recorded)

    monkeypatch.setattr(desk, "place", slowly)
    die(alpha)
    assert begun.wait(15.0)
    again = Strategy(hub.endpoint, "alpha").open()
    strategies.append(again)
    assert [one.quantity for one in again.attach().positions] == [10]
    die(again)
    watcher.until(lambda: winding(hub) == 2)
    go_on.set()
    moving(watcher, emulator, lambda: not winding(hub))
    assert len(placed) == len(closing(emulator)) == 1
    assert held(emulator) == 0
    assert "wind-up-failed" not in kinds(watcher)


def test_taken_over_while_it_is_wound_up(
    start_hub: StartHub, emulator: EmulatorThread, strategies: list[Strategy]
) -> None:
    """Whoever watches over it has started it again: the rest of its book is its own."""
    hub = hub_with(start_hub, OnVanish.FLATTEN)
    watcher = watching(hub, strategies)
    alpha, waiting = hold(hub, emulator, strategies)
    # What is placed now stands until the halt is over.
    emulator.do("halt", conid=APPLE, on=True)
    die(alpha)
    watcher.until(lambda: closing(emulator))
    again = Strategy(hub.endpoint, "alpha").open()
    strategies.append(again)
    snapshot = again.attach()
    (closes,) = (one["client_order_id"] for one in closing(emulator))
    assert closes in [one.intent.key for one in snapshot.standing if one.open]
    again.connection.cancel(closes, again.mailbox)
    again.until(lambda: status(emulator, closes) == "Cancelled")
    again.until(lambda: not winding(hub))
    emulator.do("halt", conid=APPLE, on=False)
    move(emulator, 200)
    assert len(closing(emulator)) == 1
    assert held(emulator) == 10
    assert status(emulator, waiting) == "Cancelled"


def test_brackets_are_cancelled_first(
    start_hub: StartHub, emulator: EmulatorThread, strategies: list[Strategy]
) -> None:
    """Its stop would sell what was sold."""
    hub = hub_with(start_hub, OnVanish.FLATTEN)
    watcher = watching(hub, strategies)
    alpha = Strategy(hub.endpoint, "alpha").open()
    strategies.append(alpha)
    alpha.attach()
    alpha.follow()
    parent = alpha.intent(Side.BUY, 10)
    children = []
    for kind, price in ((OrderType.STOP, 1.0), (OrderType.LIMIT, 5000.0)):
        plain = alpha.intent(Side.SELL, 10)
        prices: dict[str, Any] = {"stop_price": price} if kind is OrderType.STOP else {"limit_price": price}
        ticket = OrderTicket(
            account=ACCOUNT,
            contract_id=APPLE,
            side=Side.SELL,
            order_type=kind,
            quantity=Decimal(10),
            parent=parent.key,
            protective=True,
            **prices,
        )
        children.append(OrderIntent(key=plain.key, strategy="alpha", ticket=ticket, parent_key=parent.key))
    alpha.connection.place((parent, *children), alpha.mailbox)
    alpha.until(lambda: all(alpha.placed(one.key) for one in (parent, *children)))
    move(emulator, 200)
    alpha.until(lambda: executed(alpha, parent.key) == 10)
    die(alpha)
    watcher.until(lambda: closing(emulator))
    # Before the closing order was sent nothing was left that could trade.
    assert [one["status"] for one in emulator.ledger()["orders"] if one["side"] == "SELL"][:2] == [
        "Cancelled",
        "Cancelled",
    ]
    moving(watcher, emulator, lambda: not winding(hub))
    assert held(emulator) == 0
    assert len(closing(emulator)) == 1


# -- what cannot be sold -------------------------------------------------------------------------------


def with_an_event(hub: HubThread, emulator: EmulatorThread, strategies: list[Strategy]) -> Strategy:
    """Alpha holds 10 of Yes and 3 of No: 7 could win or lose."""
    alpha = Strategy(hub.endpoint, "alpha").open()
    strategies.append(alpha)
    alpha.attach()
    for conid, quantity in ((YES, 10), (NO, 3)):
        alpha.follow(f"conid:{conid}")
        key = alpha.place(Side.BUY, quantity, **(EVENT | {"contract_id": conid}))
        moving(alpha, emulator, lambda key=key, wanted=quantity: executed(alpha, key) == wanted)  # type: ignore[misc]
    return alpha


def test_an_event_is_closed_by_the_other_answer(
    start_hub: StartHub, emulator: EmulatorThread, strategies: list[Strategy]
) -> None:
    hub = hub_with(start_hub, OnVanish.FLATTEN)
    watcher = watching(hub, strategies)
    die(with_an_event(hub, emulator, strategies))
    moving(watcher, emulator, lambda: "strategy-vanished" in kinds(watcher))
    moving(watcher, emulator, lambda: not winding(hub))
    (order,) = closing(emulator)
    assert (order["conid"], order["side"], int(order["quantity"])) == (NO, "BUY", 7)
    # IBKR nets the two, when it likes.
    assert positions(emulator) == {YES: 10, NO: 10}
    assert "wind-up-failed" not in kinds(watcher)


def test_the_kill_switch_closes_an_event_by_the_other_answer(
    start_hub: StartHub, emulator: EmulatorThread, strategies: list[Strategy]
) -> None:
    hub = start_hub(strategies={"alpha": Grant(vanish_s=VANISH_S, admin=True)})
    alpha = with_an_event(hub, emulator, strategies)
    state = TradingState(mode=Trading.HALTED, reason="a test", by="operator", since_ns=1)
    alpha.connection.halt(state, cancel_open=True, flatten=True)
    moving(alpha, emulator, lambda: positions(emulator) == {YES: 10, NO: 10})
    (order,) = closing(emulator, "flatten")
    assert (order["conid"], order["side"], int(order["quantity"])) == (NO, "BUY", 7)
    assert make_key("flatten", alpha.epoch, 1) == order["client_order_id"]

    async def book() -> dict[int, Decimal]:
        return {one.conid: one.quantity for one in hub.server.desk.view.positions("alpha", ACCOUNT)}

    # It was told of what was bought for it.
    moving(alpha, emulator, lambda: [e for e in alpha.of(ExecutionReported) if e.key is None])
    assert hub.loop.call(book()) == {YES: 10, NO: 10}
    (told,) = [e.execution for e in alpha.of(ExecutionReported) if e.key is None]
    assert (told.conid, told.side, told.quantity) == (NO, Side.BUY, Decimal(7))


def test_a_contract_that_cannot_be_looked_up(
    start_hub: StartHub, emulator: EmulatorThread, strategies: list[Strategy], tmp_path: Path
) -> None:
    """The hub is a new one, and knows no contract: what it can look up is closed, the other is told."""
    hub = hub_with(start_hub, OnVanish.FLATTEN, tmp_path / "journal")
    alpha, _ = hold(hub, emulator, strategies)
    alpha.follow("MSFT")
    key = alpha.place(Side.BUY, 5, contract_id=MICROSOFT)
    moving(alpha, emulator, lambda: executed(alpha, key) == 5)
    die(alpha)
    hub.close()
    emulator.fault("http", action="status", status=500, path=f"*{MICROSOFT}*", count=0)
    hub = hub_with(start_hub, OnVanish.FLATTEN, tmp_path / "journal")
    watcher = watching(hub, strategies)
    moving(watcher, emulator, lambda: APPLE not in positions(emulator))
    moving(watcher, emulator, lambda: not winding(hub))
    assert positions(emulator) == {MICROSOFT: 5}
    watcher.until(lambda: "wind-up-failed" in kinds(watcher))
    told = [
        one.text for one in watcher.store if isinstance(one, SessionNotice) and one.kind == "wind-up-failed"
    ]
    assert str(MICROSOFT) in told[0]
