"""The way to the hub: hubs that fall silent, close, are killed or restarted; lost messages; names; versions."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import msgspec
import pytest
import zmq

from bt_ibkr.connection.interface import ExecutionReported, OrderFailed, SessionChanged
from bt_ibkr.emulator.testing import EmulatorThread
from bt_ibkr.errors import NotArmedError, SessionError, UnreachableError
from bt_ibkr.hub import protocol
from bt_ibkr.hub.config import beside
from bt_ibkr.hub.hub_clock import HubClock
from bt_ibkr.hub.link import HubLink
from bt_ibkr.hub.protocol import Request, Told, from_hub, from_strategy
from bt_ibkr.hub.thread import HubThread
from tests.hub.conftest import ACCOUNT, PATIENCE_S, Join, StartHub, Strategy, Ticks, move
from tests.hub.noticed import until

MakeLink = Callable[..., HubLink]


class Nobody:
    """A link's user that only remembers."""

    def __init__(self) -> None:
        self.changes: list[tuple[bool, str, str]] = []
        self.returned = 0
        self.failing = 0

    def told(self, message: Told) -> None: ...
    def tick(self, message: bytes) -> None: ...
    def heads(self, heads: dict[bytes, int], stream_ns: int) -> None: ...
    def server_time(self, server_ns: int) -> None: ...

    def link_changed(self, up: bool, cause: str, next_step: str = "") -> None:
        self.changes.append((up, cause, next_step))

    def new_hub(self) -> None:
        self.returned += 1
        if self.failing:
            self.failing -= 1
            raise SessionError("not yet")
        self.link_changed(True, "the hub is back")

    def beat(self) -> tuple[dict[bytes, int], int, int, int]:
        return {}, 0, 0, 0


class Proxy:
    """Between DEALER and ROUTER: hands frames on, or not.

    Attributes:
        up, down: Asked of each message whether it is to be handed on, and how often.
    """

    def __init__(self, endpoint: str, behind: str) -> None:
        self.endpoint = endpoint
        self.up: Callable[[Any], int] = lambda message: 1
        self.down: Callable[[Any], int] = lambda message: 1
        self._behind = behind
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._ready = threading.Event()
        self._thread.start()
        assert self._ready.wait(PATIENCE_S)

    def _run(self) -> None:
        context: zmq.Context[Any] = zmq.Context()
        front = context.socket(zmq.ROUTER)
        front.bind(self.endpoint)
        backs: dict[bytes, Any] = {}
        poller = zmq.Poller()
        poller.register(front, zmq.POLLIN)
        self._ready.set()
        while not self._stop.is_set():
            for socket, _ in poller.poll(20):
                if socket is front:
                    address, raw = front.recv_multipart()
                    if address not in backs:
                        backs[address] = context.socket(zmq.DEALER)
                        backs[address].setsockopt(zmq.IDENTITY, address)
                        backs[address].connect(self._behind)
                        poller.register(backs[address], zmq.POLLIN)
                    for _ in range(self.up(from_strategy(raw))):
                        backs[address].send(raw)
                else:
                    address = next(one for one, back in backs.items() if back is socket)
                    raw = socket.recv()
                    for _ in range(self.down(from_hub(raw))):
                        front.send_multipart((address, raw))
        context.destroy(linger=0)

    def close(self) -> None:
        self._stop.set()
        self._thread.join(PATIENCE_S)


@pytest.fixture
def proxy(hub: HubThread, tmp_path: Any) -> Iterator[Proxy]:
    """Before the hub's command channel; ticks go past it."""
    made = Proxy(f"ipc://{tmp_path}/proxy", hub.endpoint)
    yield made
    made.close()


@pytest.fixture
def through(proxy: Proxy) -> Iterator[Callable[..., Strategy]]:
    joined: list[Strategy] = []

    def one(name: str = "alpha") -> Strategy:
        joined.append(Strategy(proxy.endpoint, name))
        return joined[-1].open()

    yield one
    for strategy in joined:
        strategy.connection.close()


def dropping(kind: type[Any], count: int, fits: Callable[[Any], bool] = lambda one: True) -> Any:
    left = [count]

    def pass_on(message: Any) -> int:
        if left[0] and isinstance(message, kind) and fits(message):
            left[0] -= 1
            return 0
        return 1

    return pass_on


# -- what is lost --------------------------------------------------------------------------------------


@pytest.mark.parametrize("lost", ["request", "reply", "many", "doubled"])
def test_an_order_whose_messages_are_lost_is_placed_once(
    lost: str, proxy: Proxy, through: Any, emulator: EmulatorThread
) -> None:
    strategy = through()
    strategy.attach()
    strategy.follow()
    if lost == "request":
        proxy.up = dropping(Request, 2)
    elif lost == "reply":
        proxy.down = dropping(Told, 2, lambda told: told.kind == "reply")
    elif lost == "doubled":
        proxy.up = proxy.down = lambda message: 2
    else:
        chance = random.Random(1)
        proxy.up = proxy.down = lambda message: chance.random() < 0.6
    keys = [strategy.place(quantity=one) for one in (3, 4, 5)]
    strategy.until(lambda: all(strategy.placed(key) for key in keys))
    proxy.up = proxy.down = lambda message: 1
    strategy.until(lambda: strategy.connection.in_flight() == 0)
    move(emulator, 200)
    strategy.until(lambda: sum(e.execution.quantity for e in strategy.of(ExecutionReported)) == 12)
    assert strategy.of(OrderFailed) == []
    created = emulator.call(lambda s: [one.spec.client_order_id for one in s.core.engine.orders()])
    assert sorted(str(one) for one in created) == sorted(keys)
    position = emulator.ledger()["accounts"][ACCOUNT]["positions"]["265598"]
    assert float(position["quantity"]) == 12
    assert len({e.execution.execution_id for e in strategy.of(ExecutionReported)}) == len(
        strategy.of(ExecutionReported)
    )


def test_a_first_hello_that_is_answered_twice_joins_once(proxy: Proxy, through: Any, hub: HubThread) -> None:
    """The welcome comes late: hello is said again, and requests of before the second answer count."""
    proxy.down = dropping(protocol.Welcome, 1)
    proxy.up = lambda message: 2
    strategy = through()
    for _ in range(20):
        strategy.contract()
        assert strategy.connection._call("progress").port
    assert strategy.states().count(False) == 0
    assert [peer.name for peer in hub.status().peers] == ["alpha"]


# -- hubs that go --------------------------------------------------------------------------------------


def test_a_hub_that_falls_silent_is_noticed_and_heard_again(
    proxy: Proxy, through: Any, emulator: EmulatorThread
) -> None:
    """The command channel alone is cut: streams are taken as broken since they were last confirmed whole."""
    strategy = through()
    ticks = strategy.follow()
    strategy.until(lambda: strategy.connection._streams.whole_ns)
    proxy.up = proxy.down = lambda message: 0
    strategy.until(lambda: strategy.states()[-1:] == [False])
    (broken,) = [one for one in strategy.store if isinstance(one, SessionChanged) and not one.connected]
    assert 0 < broken.since_ns <= strategy.connection.stream_ns()
    assert "not heard" in broken.cause
    before = len(ticks.all)
    proxy.up = proxy.down = lambda message: 1
    strategy.until(lambda: strategy.states()[-1:] == [True])
    move(emulator, 50)
    strategy.until(lambda: len(ticks.all) > before)


def test_a_hub_that_closes_tells_so_and_the_next_one_is_found(
    start_hub: StartHub, emulator: EmulatorThread, tmp_path: Any
) -> None:
    journal = tmp_path / "journal.sqlite"
    first = start_hub(journal)
    strategy = Strategy(first.endpoint, "alpha").open()
    try:
        ticks = strategy.follow()
        first.close("for its lunch")
        strategy.until(lambda: strategy.states()[-1:] == [False])
        (gone,) = [one for one in strategy.store if isinstance(one, SessionChanged) and not one.connected]
        assert (gone.cause, gone.next_step) == ("for its lunch", "the hub is waited for")
        asked = strategy.connection._link.ask("progress")
        start_hub(journal)
        strategy.until(lambda: strategy.states()[-1:] == [True])
        # What was asked while nobody was there is answered by whoever came.
        assert asked.result(PATIENCE_S) is not None
        before = len(ticks.all)
        move(emulator, 50)
        strategy.until(lambda: len(ticks.all) > before)
        assert [tick.time_ns for tick in ticks.all] == sorted(tick.time_ns for tick in ticks.all)
    finally:
        strategy.connection.close()


def test_no_hub_is_told(tmp_path: Any) -> None:
    link = HubLink(f"ipc://{tmp_path}/nobody", "alpha", Nobody())
    with pytest.raises(UnreachableError, match="No hub answers"):
        link.open(0.3)


def test_bringing_up_to_date_is_tried_until_it_is_done(
    start_hub: StartHub, tmp_path: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr("bt_ibkr.hub.returning._AGAIN_S", 0.01)
    first = start_hub()
    user = Nobody()
    user.failing = 2
    link = HubLink(first.endpoint, "alpha", user)
    link.open(PATIENCE_S)
    try:
        first.close()
        start_hub()
        until(lambda: user.returned == 3, user.changes)
        until(lambda: user.changes[-1][0], user.changes)
        failures = [change for change in user.changes if "but" in change[1]]
        assert len(failures) == 1
        assert failures[0][2] == "it is tried again"
        assert link.call("metrics", timeout_s=PATIENCE_S)
    finally:
        link.close()


# -- who may join --------------------------------------------------------------------------------------


def test_two_processes_of_one_name(hub: HubThread, join: Join) -> None:
    import os

    join("alpha")
    second = HubLink(hub.endpoint, "alpha", Nobody())
    with pytest.raises(SessionError, match=f"process {os.getpid()} on "):
        second.open(0.7)


def test_the_name_of_a_process_that_died_is_taken_over(hub: HubThread, join: Join) -> None:
    first = HubLink(hub.endpoint, "alpha", Nobody())
    first.open(PATIENCE_S)
    # As if it were killed: it says nothing any more, not even goodbye.
    first._say = lambda message: True  # type: ignore[method-assign]
    second = join("alpha")
    assert second.contract().symbol == "AAPL"
    first.close()


def test_a_process_whose_name_was_taken_is_told(hub: HubThread, join: Join) -> None:
    """It was stopped for so long that another one has its place."""
    user = Nobody()
    first = HubLink(hub.endpoint, "alpha", user)
    first.open(PATIENCE_S)
    say = first._say
    first._say = lambda message: True  # type: ignore[method-assign]
    join("alpha")
    first._say = say  # type: ignore[method-assign]
    until(lambda: any("connected already" in cause for _, cause, _ in user.changes), user.changes)
    first.close()


def test_another_version_is_refused_with_both_named(hub: HubThread, monkeypatch: Any) -> None:
    monkeypatch.setattr("bt_ibkr.hub.link.PROTOCOL", 99)
    monkeypatch.setattr("bt_ibkr.hub.link.__version__", "77.0")
    link = HubLink(hub.endpoint, "alpha", Nobody())
    with pytest.raises(SessionError) as told:
        link.open(PATIENCE_S)
    for word in (f"protocol {protocol.PROTOCOL}", "protocol 99", "bt_ibkr 77.0"):
        assert word in str(told.value)
    assert hub.status().harm.incompatible >= 1


def test_a_hello_of_another_shape_is_refused_too(hub: HubThread) -> None:
    """A later version's, with a field of another type."""
    context: zmq.Context[Any] = zmq.Context()
    dealer = context.socket(zmq.DEALER)
    try:
        dealer.setsockopt(zmq.IDENTITY, b"strange")
        dealer.connect(hub.endpoint)
        hello = {
            "type": "hello",
            "protocol": 2000,
            "version": "9",
            "name": "new",
            "session": "strange",
            "told": "x",
        }
        dealer.send(msgspec.msgpack.encode(hello))
        assert dealer.poll(PATIENCE_S * 1000)
        refused = from_hub(dealer.recv())
        assert isinstance(refused, protocol.Refused)
        assert "protocol 2000" in refused.problem.message
    finally:
        context.destroy(linger=0)


def test_an_unauthorised_name_is_refused(start_hub: StartHub) -> None:
    hub = start_hub(unlisted=False)
    link = HubLink(hub.endpoint, "alpha", Nobody())
    with pytest.raises(NotArmedError, match="alpha"):
        link.open(PATIENCE_S)
    assert hub.status().harm.unauthorised == 1


# -- numbers -------------------------------------------------------------------------------------------


def test_messages_of_an_earlier_joining_are_nothing_to_the_next(hub: HubThread) -> None:
    link = HubLink(hub.endpoint, "alpha", Nobody())
    link.open(PATIENCE_S)
    try:
        assert link.call("metrics", timeout_s=PATIENCE_S)
        assert link.welcome is not None
        taken = link.taken
        for number in range(taken + 1, taken + 3):
            stale = Told(number=number, join="another", kind="reply", to=1)
            link._do(partial(link._take, stale))
        assert link.call("metrics", timeout_s=PATIENCE_S)
        assert link.taken == taken + 1
    finally:
        link.close()


def test_the_tick_endpoint_of_a_proxy_is_not_looked_for(hub: HubThread) -> None:
    """A hub names its tick channel itself."""
    assert hub.server.ticks == beside(hub.endpoint)


def test_unsubscribing_waits_for_nobody(proxy: Proxy, through: Any, hub: HubThread) -> None:
    strategy = through()
    ticks = strategy.follow()
    proxy.up = lambda message: 0
    began_s = time.monotonic()
    strategy.connection.unsubscribe_ticks(ticks)
    assert time.monotonic() - began_s < 5
    proxy.up = lambda message: 1
    until(lambda: hub.status().topics == ())


def test_sinks_are_told_apart_though_they_are_equal(join: Join) -> None:
    strategy = join()
    first, second = Ticks(), Ticks()
    for sink in (first, second):
        strategy.connection.subscribe_ticks(strategy.contract(), sink)
    strategy.connection.unsubscribe_ticks(first)
    assert next(iter(strategy.connection._streams)).sinks == [second]


def test_the_hub_s_clock_is_reckoned_by_its_fastest_beat() -> None:
    clock = HubClock()
    clock.take(1000.0, 10.4)
    assert clock.at(10.4) == 1000.0
    clock.take(1001.0, 11.1)
    assert clock.at(11.5) == pytest.approx(1001.4)
    # One that was long under way changes nothing.
    clock.take(1002.0, 17.0)
    assert clock.at(17.0) == pytest.approx(1006.9)
    # The hub's clock is the slower one: what was reckoned long ago is not used for ever.
    for local_s in range(400, 1300, 100):
        clock.take(989.9 + local_s - 0.5, local_s)
    assert clock.at(1300) == pytest.approx(989.4 + 1300)


def test_an_order_that_the_network_held_back_is_not_placed(
    start_hub: StartHub, tmp_path: Any, emulator: EmulatorThread
) -> None:
    """It had left at once, and nobody knew that it did not arrive."""
    hub = start_hub(stale_s=0.6)
    proxy = Proxy(f"ipc://{tmp_path}/proxy", hub.endpoint)
    strategy = Strategy(proxy.endpoint, "alpha").open()
    try:
        strategy.attach()
        strategy.follow()

        def hold(message: Any) -> int:
            if isinstance(message, Request) and message.kind == "place":
                time.sleep(0.9)
            return 1

        proxy.up = hold
        key = strategy.place()
        strategy.until(lambda: strategy.of(OrderFailed, key))
        assert "was not sent" in str(strategy.of(OrderFailed, key)[0].error)
        proxy.up = lambda message: 1
        assert emulator.call(lambda s: list(s.core.engine.orders())) == []
    finally:
        strategy.connection.close()
        proxy.close()
