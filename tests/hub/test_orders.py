"""Orders through the hub: sent once, in turns, taken back while they wait, refused when they are old or another's."""

from __future__ import annotations

import asyncio
import json
import threading
import time
import urllib.request
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from bt_ibkr.connection.interface import (
    ExecutionReported,
    ModifyFailed,
    OrderChanged,
    OrderFailed,
    OrderModified,
)
from bt_ibkr.emulator.testing import EmulatorThread
from bt_ibkr.errors import OrderRefusedError, SessionError
from bt_ibkr.hub.requests import Halt, Place
from bt_ibkr.hub.thread import HubThread
from bt_ibkr.model.order import DONE, OrderType, Side
from bt_ibkr.model.trading import Trading, TradingState
from tests.hub.conftest import ACCOUNT, APPLE, Join, StartHub, Strategy, move

#: Waits in the market.
WAITING: dict[str, Any] = {"order_type": OrderType.LIMIT, "limit_price": 1.0}


def created(emulator: EmulatorThread) -> list[str]:
    """The cOIDs of all orders that ever stood, in the order in which they came."""
    return [str(one["client_order_id"]) for one in emulator.ledger()["orders"]]


def ask_place(strategy: Strategy, *intents: Any) -> Any:
    """The request alone, as the link sends it again after a loss."""
    return strategy.connection._link.call("place", Place(intents=intents), timeout_s=15.0)


def test_the_same_request_again_sends_nothing(emulator: EmulatorThread, join: Join) -> None:
    alpha = join("alpha")
    alpha.attach()
    intent = alpha.intent(**WAITING)
    for _ in range(3):
        ask_place(alpha, intent)
    alpha.until(lambda: alpha.placed(intent.key))
    assert created(emulator) == [intent.key]
    assert alpha.of(OrderFailed) == []


def test_the_same_request_while_the_first_waits(hub: HubThread, emulator: EmulatorThread, join: Join) -> None:
    """All at once: each is answered, one is sent."""
    alpha = join("alpha")
    alpha.attach()
    intent = alpha.intent(**WAITING)
    link = alpha.connection._link
    asked = [link.ask("place", Place(intents=(intent,))) for _ in range(5)]
    for one in asked:
        one.result(15.0)
    alpha.until(lambda: alpha.placed(intent.key))
    assert created(emulator) == [intent.key]
    assert alpha.of(OrderFailed) == []


def test_a_key_is_of_one_order_alone(emulator: EmulatorThread, join: Join) -> None:
    alpha = join("alpha")
    alpha.attach()
    first = alpha.intent(**WAITING)
    ask_place(alpha, first)
    alpha._number -= 1
    second = alpha.intent(Side.SELL, 5)
    assert second.key == first.key
    alpha.connection.place((second,), alpha.mailbox)
    alpha.until(lambda: alpha.of(OrderFailed, second.key))
    assert "is of another order" in str(alpha.of(OrderFailed)[0].error)
    # The refusal needs no word with IBKR: it may be here before the first order is there.
    alpha.until(lambda: created(emulator) == [first.key])
    third = alpha.place(**WAITING)
    alpha.until(lambda: alpha.placed(third))
    assert created(emulator) == [first.key, third]


def test_answers_that_are_lost(hub: HubThread, emulator: EmulatorThread, join: Join) -> None:
    """The hub's words do not arrive for a while: what was told meanwhile comes later, once."""
    alpha = join("alpha")
    alpha.attach()
    alpha.follow()
    peer = hub.server.peer("alpha")
    assert peer is not None
    send, lost = peer._send, threading.Event()

    def lose(address: bytes, raw: bytes) -> bool:
        return True if not lost.is_set() else send(address, raw)

    peer._send = lose
    keys = [alpha.place(Side.BUY, 1) for _ in range(3)]
    alpha.until(lambda: len(created(emulator)) == 3)
    move(emulator, 100)
    alpha.look()
    assert alpha.events == []
    lost.set()
    alpha.until(lambda: len(alpha.of(ExecutionReported)) == 3)
    assert created(emulator) == keys
    told = [event.execution.execution_id for event in alpha.of(ExecutionReported)]
    assert len(set(told)) == len(told)


def test_an_old_order_is_not_sent(hub: HubThread, emulator: EmulatorThread, join: Join) -> None:
    alpha = join("alpha")
    alpha.attach()
    link = alpha.connection._link
    intent = alpha.intent(**WAITING)
    # It waited for the hub to come back.
    send = link._send_request

    def older(number: int) -> None:
        link._asking[number].asked_s -= 60.0
        send(number)

    link._send_request = older  # type: ignore[method-assign]
    alpha.connection.place((intent,), alpha.mailbox)
    alpha.until(lambda: alpha.of(OrderFailed, intent.key))
    assert "was not sent" in str(alpha.of(OrderFailed)[0].error)
    assert created(emulator) == []


def test_an_old_change_is_not_sent(hub: HubThread, emulator: EmulatorThread, join: Join) -> None:
    """It waited for the hub to come back, and the price that it was made for is gone."""
    alpha = join("alpha")
    alpha.attach()
    intent = alpha.intent(**WAITING)
    alpha.connection.place((intent,), alpha.mailbox)
    alpha.until(lambda: alpha.placed(intent.key))
    link, changed = alpha.connection._link, msgspec.structs.replace(intent.ticket, limit_price=2.0)
    send = link._send_request

    def older(number: int) -> None:
        link._asking[number].asked_s -= 60.0
        send(number)

    link._send_request = older  # type: ignore[method-assign]
    alpha.connection.modify(intent.key, changed, alpha.mailbox)
    alpha.until(lambda: alpha.of(ModifyFailed, intent.key))
    assert "was not sent" in str(alpha.of(ModifyFailed)[0].error)
    assert [one["limit_price"] for one in emulator.ledger()["orders"]] == [1.0]
    # To cancel is never too late.
    alpha.connection.cancel(intent.key, alpha.mailbox)
    alpha.until(lambda: [e for e in alpha.of(OrderChanged, intent.key) if e.report.status in DONE])


def test_an_old_wish_to_resume_is_not_done(hub: HubThread, emulator: EmulatorThread, join: Join) -> None:
    """Somebody may have halted since; to halt is never too late."""
    alpha = join("alpha")
    alpha.attach()
    link = alpha.connection._link
    send = link._send_request

    def older(number: int) -> None:
        link._asking[number].asked_s -= 60.0
        send(number)

    link._send_request = older  # type: ignore[method-assign]
    for mode, wanted in ((Trading.HALTED, Trading.HALTED), (Trading.ACTIVE, Trading.HALTED)):
        state = TradingState(mode=mode, reason="a person")
        asked = link.ask("halt", Halt(state=state, cancel_open=False, flatten=False))
        if mode is Trading.ACTIVE:
            with pytest.raises(OrderRefusedError, match="resumed"):
                asked.result(15.0)
        else:
            asked.result(15.0)
        assert hub.server.desk.journal.trading_state().mode is wanted


def order_by_hand(emulator: EmulatorThread) -> None:
    """Another program of the same login buys 3."""
    order = {"conid": APPLE, "side": "BUY", "quantity": 3, "orderType": "MKT", "tif": "DAY"}
    request = urllib.request.Request(
        f"{emulator.url}/iserver/account/{ACCOUNT}/orders",
        data=json.dumps({"orders": [order]}).encode(),
        headers={"Content-Type": "application/json", "User-Agent": "tests"},
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert answer.status == 200


def test_an_order_that_waited_for_a_stopped_hub(start_hub: StartHub, emulator: EmulatorThread) -> None:
    """It was young when it was sent; the hub's process did nothing for a while, and finds it in its socket."""
    hub = start_hub(stale_s=0.5)
    alpha = Strategy(hub.endpoint, "alpha").open()
    alpha.attach()
    hub.loop.loop.call_soon_threadsafe(time.sleep, 0.8)
    old = alpha.place(Side.BUY, 1, **WAITING)
    alpha.until(lambda: alpha.of(OrderFailed, old))
    assert "was not sent" in str(alpha.of(OrderFailed)[0].error)

    def taken() -> bool:
        key = alpha.place(Side.BUY, 1, **WAITING)
        alpha.until(lambda: alpha.placed(key) or alpha.of(OrderFailed, key))
        return alpha.placed(key)

    alpha.until(taken)
    alpha.connection.close()


class Held:
    """The hub's order desk waits, until it is let go."""

    def __init__(self, hub: HubThread) -> None:
        self._loop = hub.loop.loop
        self._gate = asyncio.Event()
        self.begun: list[str] = []
        desk = hub.server.desk
        place = desk.place

        async def held(intents: Any, recorded: Any = None) -> None:
            self.begun.append(intents[0].key)
            await self._gate.wait()
            await place(intents, recorded)

        desk.place = held  # type: ignore[method-assign]

    def go(self) -> None:
        self._loop.call_soon_threadsafe(self._gate.set)


@pytest.fixture
def held(hub: HubThread) -> Any:
    one = Held(hub)
    yield one
    one.go()


def test_a_waiting_order_is_taken_back(held: Held, emulator: EmulatorThread, join: Join) -> None:
    alpha = join("alpha")
    alpha.attach()
    keys = [alpha.place(Side.BUY, 1, **WAITING) for _ in range(6)]
    alpha.until(lambda: len(held.begun) == 4)
    alpha.connection.cancel(keys[5], alpha.mailbox)
    alpha.until(lambda: alpha.of(OrderFailed, keys[5]))
    assert "was cancelled" in str(alpha.of(OrderFailed)[0].error)
    # One that has begun is cancelled once it stands.
    alpha.connection.cancel(keys[0], alpha.mailbox)
    held.go()
    alpha.until(lambda: all(alpha.placed(key) for key in keys[:5]))
    alpha.until(lambda: [e for e in alpha.of(OrderChanged, keys[0]) if e.report.status in DONE])
    assert created(emulator) == keys[:5]


def test_a_change_of_a_waiting_order_comes_after_it(held: Held, emulator: EmulatorThread, join: Join) -> None:
    alpha = join("alpha")
    alpha.attach()
    intents = [alpha.intent(**WAITING) for _ in range(6)]
    for intent in intents:
        alpha.connection.place((intent,), alpha.mailbox)
    last = intents[5]
    fields = {name: getattr(last.ticket, name) for name in last.ticket.__struct_fields__}
    changed = last.ticket.__class__(**(fields | {"quantity": Decimal(7)}))
    alpha.connection.modify(last.key, changed, alpha.mailbox)
    held.go()

    # As without a hub: what has no id yet cannot be changed, and says so.
    alpha.until(lambda: alpha.of(ModifyFailed, last.key))
    alpha.until(lambda: alpha.placed(last.key))
    alpha.connection.modify(last.key, changed, alpha.mailbox)
    alpha.until(lambda: alpha.of(OrderModified, last.key))
    assert [one["quantity"] for one in emulator.ledger()["orders"]].count("7") == 1


def test_a_process_that_died_leaves_nothing_waiting(
    hub: HubThread, held: Held, emulator: EmulatorThread, join: Join
) -> None:
    """Its successor counts on from what was sent, and never under the same number for something else."""
    alpha = join("alpha")
    alpha.attach()
    for _ in range(8):
        alpha.place(Side.BUY, 1, **WAITING)
    alpha.until(lambda: len(held.begun) == 4)
    alpha.connection._link._ended = True
    alpha.connection._link._stop.set()
    # It says goodbye to nobody.
    alpha.connection._link._say = lambda message: False  # type: ignore[method-assign]
    alpha.connection._link._wires.wake()
    again = join("alpha")
    told: list[Any] = []
    attach = threading.Thread(target=lambda: told.append(again.attach()))
    attach.start()
    held.go()
    attach.join(15.0)
    (snapshot,) = told
    begun = sorted(held.begun)
    assert sorted(one.intent.key for one in snapshot.standing if one.open) == begun
    assert snapshot.sequences["alpha"] == 5
    again.until(lambda: sorted(created(emulator)) == begun)
    key = again.place(Side.SELL, 2, order_type=OrderType.LIMIT, limit_price=5000.0)
    again.until(lambda: again.placed(key))
    assert sorted(created(emulator)) == sorted([*begun, key])


def test_a_flood_does_not_delay_another(hub: HubThread, emulator: EmulatorThread, join: Join) -> None:
    alpha, beta = join("alpha"), join("beta")
    for one in (alpha, beta):
        one.attach()
    flood = [alpha.place(Side.BUY, 1, **WAITING) for _ in range(200)]
    alpha.until(lambda: alpha.placed(flood[0]))
    mine = beta.place(Side.BUY, 1, **WAITING)
    beta.until(lambda: beta.placed(mine))
    cancelled = flood[0]
    alpha.connection.cancel(cancelled, alpha.mailbox)
    alpha.until(lambda: [e for e in alpha.of(OrderChanged, cancelled) if e.report.status in DONE])
    at_the_cancel = len(created(emulator))
    alpha.until(lambda: len(created(emulator)) == 201)
    sent = created(emulator)
    # Its turn is after what was under way, and one more.
    ahead = sent.index(mine)
    assert ahead < 150
    assert at_the_cancel < 201
    assert sorted(sent) == sorted([*flood, mine])


@pytest.mark.parametrize("name", ["alpha-hub", "beta", "flatten"])
def test_keys_of_others_are_refused(name: str, emulator: EmulatorThread, join: Join) -> None:
    alpha = join("alpha")
    alpha.attach()
    alpha.name = name
    key = alpha.place()
    alpha.until(lambda: alpha.of(OrderFailed, key))
    assert created(emulator) == []


@pytest.mark.parametrize("name", ["flatten", "unallocated"])
def test_books_of_the_hub_are_nobodys_names(name: str, join: Join) -> None:
    with pytest.raises(Exception, match="hub's own book"):
        join(name)


def test_external_orders_are_told_to_who_asks(hub: HubThread, emulator: EmulatorThread, join: Join) -> None:
    curious, other = join("alpha"), join("beta", external=False)
    for one in (curious, other):
        one.attach()
        one.follow()
    order_by_hand(emulator)
    move(emulator, 200)
    curious.until(lambda: [event for event in curious.of(OrderChanged) if event.key is None])
    curious.until(lambda: [one for one in curious.store if getattr(one, "kind", "") == "external-execution"])
    other.look()
    assert other.of(OrderChanged) == []
    # It is nobody's position.
    assert curious.attach().positions == ()


def test_a_closed_connection_refuses(join: Join) -> None:
    alpha = join("alpha")
    alpha.attach()
    alpha.connection.close()
    with pytest.raises(SessionError):
        alpha.place()
