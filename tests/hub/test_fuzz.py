"""Whatever comes on either channel: refused, counted, harmless. A strategy is served meanwhile."""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
import zmq
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bt_ibkr.connection.interface import OrderFailed
from bt_ibkr.emulator.settings import EmulatorSettings
from bt_ibkr.emulator.testing import EmulatorThread
from bt_ibkr.errors import WireError
from bt_ibkr.hub import protocol
from bt_ibkr.hub.peers import HarmCounts
from bt_ibkr.hub.protocol import MAX_MESSAGE, MAX_REQUEST, Beat, Hello, Leave, Request, body, encode
from bt_ibkr.hub.status import Harm
from bt_ibkr.hub.thread import HubThread
from bt_ibkr.version import __version__
from tests.hub.conftest import PATIENCE_S, PLAIN, Join, StartHub, Strategy, move
from tests.hub.noticed import until

#: Anything that MessagePack can say.
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)
WORDS = (
    "type",
    "session",
    "join",
    "number",
    "kind",
    "body",
    "asked_s",
    "told",
    "name",
    "protocol",
    "role",
    "behind",
)
TAGS = ("hello", "request", "beat", "leave", "welcome", "told", "")
NEARLY = st.dictionaries(st.sampled_from(WORDS), VALUES, max_size=8).flatmap(
    lambda made: st.sampled_from(TAGS).map(lambda tag: made | {"type": tag})
)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(raw=st.binary(max_size=200) | st.one_of(VALUES, NEARLY).map(msgspec.msgpack.encode))
def test_bytes_are_a_message_or_an_error(raw: bytes) -> None:
    for reader in (protocol.from_strategy, protocol.from_hub, protocol.greeting):
        # Nothing else is raised.
        with contextlib.suppress(WireError):
            reader(raw)


@pytest.mark.parametrize(
    "wrong",
    [
        {"asked_s": "x"},
        {"number": -1},
        {"session": "x" * 300},
        {"kind": "x" * 300},
        {"join": None},
    ],
)
def test_requests_that_are_none(wrong: dict[str, Any]) -> None:
    right = {
        "type": "request",
        "session": "s",
        "join": "j",
        "number": 1,
        "kind": "status",
        "body": None,
        "asked_s": 0.0,
    }
    assert isinstance(protocol.from_strategy(msgspec.msgpack.encode(right)), Request)
    with pytest.raises(WireError):
        protocol.from_strategy(msgspec.msgpack.encode(right | wrong))


class Attacker:
    """Sends what it likes on both channels."""

    def __init__(self, hub: HubThread) -> None:
        self.hub = hub
        self.context: zmq.Context[Any] = zmq.Context()
        self.sockets: list[Any] = []
        self.dealer = self.socket(b"attacker")
        self.sub = self.context.socket(zmq.XSUB)
        self.sub.connect(hub.server.ticks)

    def socket(self, identity: bytes) -> Any:
        made = self.context.socket(zmq.DEALER)
        made.setsockopt(zmq.IDENTITY, identity)
        made.setsockopt(zmq.SNDHWM, 100_000)
        made.connect(self.hub.endpoint)
        self.sockets.append(made)
        return made

    def hello(self, name: str, session: str = "attacker", **changes: Any) -> bytes:
        plain: dict[str, Any] = {"protocol": protocol.PROTOCOL, "version": __version__}
        return encode(Hello(**(plain | {"name": name, "session": session} | changes)))

    def close(self) -> None:
        self.context.destroy(linger=0)


@pytest.fixture
def emulator() -> Iterator[EmulatorThread]:
    """Its streams need no renewal: hours of the market pass in seconds."""
    with EmulatorThread(EmulatorSettings(**PLAIN, smd_lifetime_s=0)) as one:
        yield one


@pytest.fixture
def attacker(hub: HubThread) -> Iterator[Attacker]:
    made = Attacker(hub)
    yield made
    made.close()


def counted(hub: HubThread, **least: int) -> None:
    until(
        lambda: all(getattr(hub.status().harm, kind) >= count for kind, count in least.items()),
        hub.status().harm,
    )


def serves(strategy: Strategy, emulator: EmulatorThread, ticks: Any) -> None:
    """The hub does its work for whoever behaves."""
    before = len(ticks.all)
    key = strategy.place(quantity=1)
    strategy.until(lambda: strategy.placed(key))
    for _ in range(5):
        move(emulator, 20)
    strategy.until(lambda: len(ticks.all) > before)
    assert strategy.of(OrderFailed) == []
    assert strategy.states() == [True]


def bombard(attacker: Attacker, seed: int, messages: int) -> dict[str, int]:
    """Random bytes, messages cut short and changed, foreign sessions; what has to be counted at the least."""
    chance = random.Random(seed)
    good = [
        attacker.hello("mallory", session="attacker", protocol=protocol.PROTOCOL + 1),
        encode(Beat(session="somebody", join="x", told=3)),
        encode(
            Request(
                session="attacker", join="x", number=1, kind="place", body=body({"intents": []}), asked_s=0.0
            )
        ),
        encode(Leave(session="somebody")),
    ]
    malformed = 0
    for _ in range(messages):
        kind = chance.randrange(4)
        raw = chance.choice(good)
        if kind == 0:
            raw = chance.randbytes(chance.randrange(200))
        elif kind == 1:
            raw = raw[: chance.randrange(len(raw))]
        elif kind == 2:
            place = chance.randrange(len(raw))
            raw = raw[:place] + chance.randbytes(1) + raw[place + 1 :]
        if chance.random() < 0.05:
            attacker.dealer.send_multipart([raw, raw, b""])
            malformed += 1
        else:
            attacker.dealer.send(raw)
        if chance.random() < 0.2:
            attacker.sub.send(chance.randbytes(chance.randrange(1, 40)))
    return {"malformed": malformed}


def test_noise_on_both_channels(
    hub: HubThread, emulator: EmulatorThread, join: Join, attacker: Attacker
) -> None:
    strategy = join()
    strategy.attach()
    ticks = strategy.follow()
    counted(hub, **bombard(attacker, 1, 1500))
    attacker.dealer.send(b"\xc1" * (MAX_REQUEST + 1))
    counted(hub, oversized=1, malformed=100, replayed=100, incompatible=10)
    # This one is not even received.
    huge = attacker.socket(b"huge")
    huge.send(b"x" * (MAX_MESSAGE // 2))
    serves(strategy, emulator, ticks)
    assert [one.name for one in hub.status().peers] == ["alpha"]


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_much_noise(hub: HubThread, emulator: EmulatorThread, join: Join, attacker: Attacker) -> None:
    strategy = join()
    strategy.attach()
    ticks = strategy.follow()
    seed = int(os.environ.get("BT_IBKR_SEED", "0"))
    for turn in range(200):
        bombard(attacker, seed + turn, 2000)
        serves(strategy, emulator, ticks)
    # Of 400,000 messages and 80,000 subscriptions; some of them are messages all the same.
    counted(hub, malformed=240_000, replayed=50_000, unauthorised=70_000, unknown=9_000, incompatible=30_000)


def test_captured_messages_are_nothing_from_somebody_else(
    hub: HubThread, emulator: EmulatorThread, join: Join, attacker: Attacker
) -> None:
    """Bytes of a strategy sent once more: by another sender, and by one that calls itself by the same session."""
    strategy = join()
    strategy.attach()
    ticks = strategy.follow()
    link = strategy.connection._link
    captured: list[bytes] = []
    say = link._say

    def tapped(message: object) -> bool:
        captured.append(encode(message))
        return say(message)

    link._say = tapped  # type: ignore[method-assign]
    key = strategy.place(quantity=2)
    strategy.until(lambda: strategy.placed(key) and len(captured) > 4)
    link._say = say  # type: ignore[method-assign]
    hello = attacker.hello("alpha", session=link.session)
    for raw in (*captured, hello, encode(Leave(session=link.session))):
        attacker.dealer.send(raw)
    counted(hub, replayed=len(captured) + 2)
    serves(strategy, emulator, ticks)
    created = emulator.call(lambda s: [one.spec.client_order_id for one in s.core.engine.orders()])
    assert created.count(key) == 1
    assert len(created) == 2


def test_captured_messages_are_nothing_to_the_next_hub(
    start_hub: StartHub, emulator: EmulatorThread, tmp_path: Any
) -> None:
    journal = tmp_path / "journal.sqlite"
    first = start_hub(journal)
    strategy = Strategy(first.endpoint, "alpha").open()
    strategy.attach()
    strategy.follow()
    link = strategy.connection._link
    captured: list[bytes] = []
    say = link._say

    def tapped(message: object) -> bool:
        captured.append(encode(message))
        return say(message)

    link._say = tapped  # type: ignore[method-assign]
    key = strategy.place(quantity=2)
    strategy.until(lambda: strategy.placed(key))
    strategy.connection.close()
    first.close()
    second = start_hub(journal)
    attacker = Attacker(second)
    try:
        same = attacker.socket(link.session.encode())
        for raw in captured:
            attacker.dealer.send(raw)
            same.send(raw)
        counted(second, replayed=1, unknown=1)
        created = emulator.call(lambda s: [one.spec.client_order_id for one in s.core.engine.orders()])
        assert created == [key]
        assert second.status().peers == ()
    finally:
        attacker.close()


def test_so_many_processes_and_no_more(hub: HubThread, attacker: Attacker, monkeypatch: Any) -> None:
    monkeypatch.setattr("bt_ibkr.hub.members._MOST_PEERS", 5)
    for number in range(9):
        one = attacker.socket(b"s%d" % number)
        one.send(attacker.hello("watch", session=f"s{number}", role="observer"))
        assert one.poll(PATIENCE_S * 1000)
        answer = protocol.from_hub(one.recv())
        assert isinstance(answer, protocol.Welcome if number < 5 else protocol.Refused)
    assert len(hub.status().peers) == 5


@pytest.mark.parametrize("name", ["", "alpha beta", "x" * 40, "alpha-2", "alpha-hub", "ä"])
def test_names_that_are_none(hub: HubThread, attacker: Attacker, name: str) -> None:
    attacker.dealer.send(attacker.hello(name))
    assert attacker.dealer.poll(PATIENCE_S * 1000)
    answer = protocol.from_hub(attacker.dealer.recv())
    assert isinstance(answer, protocol.Refused)
    assert hub.status().peers == ()


def test_all_harm_is_counted() -> None:
    """Each kind has a place in the status."""
    assert HarmCounts.__struct_fields__ == Harm.__struct_fields__
