"""Encrypted hubs: who is let in, as whom, and to what; nobody hears or says anything else, and no secret is told."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from bt_ibkr.connection.interface import OrderFailed
from bt_ibkr.emulator.testing import EmulatorThread
from bt_ibkr.errors import BtIbkrError, NotArmedError, UnreachableError, UsageError
from bt_ibkr.hub.access import Grant
from bt_ibkr.hub.config import HubSettings
from bt_ibkr.hub.keys import KeyPair, make_keys
from bt_ibkr.hub.link import HubLink
from bt_ibkr.hub.thread import HubThread
from tests.hub.conftest import ACCOUNT, PATIENCE_S, StartHub, Strategy, Ticks, move
from tests.hub.noticed import until
from tests.hub.test_link import Nobody

HUB = make_keys()
ALPHA, READER, NARROW, STRANGER = (make_keys(HUB.public) for _ in range(4))
GRANTS = {
    "alpha": Grant(key=ALPHA.public),
    "reader": Grant(key=READER.public, trading=False),
    "narrow": Grant(key=NARROW.public, instruments=("MSFT",), accounts=("DU7654321",)),
}


@pytest.fixture
def hub(start_hub: StartHub) -> HubThread:
    return start_hub(endpoint="tcp://127.0.0.1:0", secret_key=HUB.secret, strategies=GRANTS)


@pytest.fixture
def enter(hub: HubThread) -> Iterator[Callable[..., Strategy]]:
    made: list[Strategy] = []

    def one(name: str, keys: KeyPair) -> Strategy:
        made.append(Strategy(hub.endpoint, name, keys=keys))
        return made[-1].open()

    yield one
    for strategy in made:
        strategy.connection.close()


def test_the_right_key_trades(hub: HubThread, emulator: EmulatorThread, enter: Any) -> None:
    strategy = enter("alpha", ALPHA)
    strategy.attach()
    ticks = strategy.follow()
    key = strategy.place()
    strategy.until(lambda: strategy.placed(key))
    # The order's execution ends a step.
    for _ in range(10):
        move(emulator, 20)
    strategy.until(lambda: len(ticks.all) > 20)


@pytest.mark.parametrize(
    "keys",
    [
        KeyPair(public=ALPHA.public, secret=ALPHA.secret, server=STRANGER.public),
        STRANGER,
        KeyPair(public=ALPHA.public, secret=STRANGER.secret, server=HUB.public),
        None,
    ],
    ids=["another hub's", "unknown", "secret and public of two", "none"],
)
def test_a_wrong_key_is_not_heard(hub: HubThread, keys: KeyPair | None) -> None:
    link = HubLink(hub.endpoint, "alpha", Nobody(), keys=keys)
    with pytest.raises(UnreachableError, match="keys"):
        link.open(1.0)
    assert hub.status().peers == ()
    if keys is STRANGER:
        assert hub.status().harm.unauthorised > 0


def test_the_key_of_another_strategy_is_refused(hub: HubThread) -> None:
    link = HubLink(hub.endpoint, "alpha", Nobody(), keys=READER)
    with pytest.raises(NotArmedError, match="another key"):
        link.open(PATIENCE_S)
    unlisted = HubLink(hub.endpoint, "somebody", Nobody(), keys=ALPHA)
    with pytest.raises(NotArmedError, match="not in the hub's configuration"):
        unlisted.open(PATIENCE_S)
    assert hub.status().harm.unauthorised == 2


def test_who_may_read_does_not_trade(enter: Any, hub: HubThread) -> None:
    strategy = enter("reader", READER)
    strategy.attach()
    strategy.follow()
    key = strategy.place()
    strategy.until(lambda: strategy.of(OrderFailed, key))
    assert "may read, but not trade" in str(strategy.of(OrderFailed, key)[0].error)
    assert hub.status().harm.unauthorised == 1


def test_other_accounts_and_instruments_are_refused(enter: Any, hub: HubThread) -> None:
    owner = enter("alpha", ALPHA)
    apple = owner.contract("AAPL")
    strategy = enter("narrow", NARROW)
    assert strategy.connection.accounts() == ()
    assert strategy.contract("MSFT").symbol == "MSFT"
    refused: tuple[Callable[[], Any], ...] = (
        lambda: strategy.contract("AAPL"),
        lambda: strategy.connection.subscribe_ticks(apple, Ticks()),
        lambda: strategy.connection.quote(apple),
        lambda: strategy.attach(ACCOUNT),
        lambda: strategy.connection._call("reconcile", ACCOUNT),
    )
    for asked in refused:
        with pytest.raises(NotArmedError, match="may not use"):
            asked()
    strategy.epoch = "00000"
    key = strategy.place()
    strategy.until(lambda: strategy.of(OrderFailed, key))
    assert hub.status().harm.unauthorised >= 6


def test_an_observer_looks_and_does_nothing(hub: HubThread) -> None:
    link = HubLink(hub.endpoint, "watch", Nobody(), role="observer", keys=READER)
    link.open(PATIENCE_S)
    try:
        assert link.call("status", timeout_s=PATIENCE_S).hub == hub.server.hub
        for kind, body in (("progress", None), ("cancel", "alpha.x.1"), ("reconcile", ACCOUNT)):
            with pytest.raises(NotArmedError):
                link.call(kind, body, timeout_s=PATIENCE_S)
    finally:
        link.close()


@pytest.mark.parametrize("encrypted", [True, False])
def test_topics_cannot_be_guessed(start_hub: StartHub, emulator: EmulatorThread, encrypted: bool) -> None:
    """Everything, beginnings of words, and any word: nothing comes of it."""
    extra: dict[str, Any] = (
        {"endpoint": "tcp://127.0.0.1:0", "secret_key": HUB.secret, "strategies": GRANTS} if encrypted else {}
    )
    hub = start_hub(**extra)
    strategy = Strategy(hub.endpoint, "alpha", **({"keys": ALPHA} if encrypted else {})).open()
    context: zmq.Context[Any] = zmq.Context()
    spy = context.socket(zmq.SUB)
    try:
        if encrypted:
            spy.setsockopt(zmq.CURVE_SERVERKEY, HUB.public.encode())
            spy.setsockopt(zmq.CURVE_PUBLICKEY, READER.public.encode())
            spy.setsockopt(zmq.CURVE_SECRETKEY, READER.secret.encode())
        ticks = strategy.follow()
        ((word, _),) = hub.server.publisher.items()
        spy.connect(hub.server.ticks)
        wrong = bytes([word[-1] ^ 1])
        for guess in (b"", word[:1], word[:-1], word[:-1] + wrong, b"A" * 12, word + b"x"):
            spy.setsockopt(zmq.SUBSCRIBE, guess)
        until(lambda: hub.server.publisher.refused + hub.server.publisher.stale >= 6)
        move(emulator, 200)
        strategy.until(lambda: len(ticks.all) > 50)
        assert not spy.poll(0)
        # It would hear what it was told: the channel is open to it.
        spy.setsockopt(zmq.SUBSCRIBE, word)
        latest = time.monotonic() + PATIENCE_S
        while not spy.poll(50):
            assert time.monotonic() < latest
            move(emulator, 20)
        assert hub.status().harm.unauthorised >= 5
    finally:
        context.destroy(linger=0)
        strategy.connection.close()


@pytest.mark.parametrize("endpoint", ["tcp://0.0.0.0:0", "tcp://192.0.2.1:5560", "tcp://*:0"])
def test_plain_tcp_beyond_this_machine_is_refused(endpoint: str) -> None:
    with pytest.raises(UsageError, match="reached from other machines"):
        HubSettings(endpoint=endpoint)
    assert HubSettings(endpoint=endpoint, plain_tcp=True).endpoint == endpoint
    with pytest.raises(UsageError, match="reached from other machines"):
        HubSettings(endpoint="tcp://127.0.0.1:5560", ticks=endpoint)


def test_secrets_are_told_nowhere(
    start_hub: StartHub, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    caplog.set_level(logging.DEBUG)
    hub = start_hub(endpoint="tcp://127.0.0.1:0", secret_key=HUB.secret, strategies=GRANTS)
    told = []
    for keys in (STRANGER, ALPHA, READER):
        try:
            strategy = Strategy(hub.endpoint, "alpha", keys=keys)
            strategy.connection._link._beat_due_s = 0.0
            strategy.connection._link.open(1.0)
            told.append(repr(strategy.connection.__dict__))
            strategy.connection.close()
        except BtIbkrError as problem:
            told.append(f"{problem!r} {problem}")
    told += [repr(hub.server.settings), repr(hub.status()), repr(ALPHA), caplog.text]
    assert len(told) == 7
    for keys in (HUB, ALPHA, READER, STRANGER):
        assert not any(keys.secret in one for one in told)
