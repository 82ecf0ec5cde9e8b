"""Ticks out of the hub: rings, conflation, topics that begin and end with their subscribers."""

from __future__ import annotations

import asyncio
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bt_ibkr.clock import NS_PER_S
from bt_ibkr.emulator.testing import EmulatorThread
from bt_ibkr.errors import WireError
from bt_ibkr.hub.publisher import TickTopic
from bt_ibkr.hub.thread import HubThread
from bt_ibkr.hub.ticks import TOPIC_LENGTH, Ring, decode_tick, encode_tick
from bt_ibkr.model.contract import Contract, SecurityType
from bt_ibkr.model.market import DataQuality, Tick
from tests.hub.conftest import PATIENCE_S, Join, Ticks, move
from tests.hub.noticed import until

CONTRACT = Contract(conid=265598, symbol="AAPL", security_type=SecurityType.STOCK, currency="USD")
WORD = b"x" * TOPIC_LENGTH


def tick(at_s: float, last: float, traded: float) -> Tick:
    return Tick(
        round(at_s * NS_PER_S),
        265598,
        1.0,
        2.0,
        1.0,
        1.0,
        last,
        1.0,
        traded,
        1.0,
        DataQuality.REALTIME,
        False,
        0,
    )


@given(size=st.integers(1, 9), count=st.integers(0, 30), first=st.integers(1, 32), length=st.integers(0, 12))
def test_a_ring_has_the_last_ones(size: int, count: int, first: int, length: int) -> None:
    ring = Ring(size)
    for number in range(1, count + 1):
        ring.add(b"%d" % number)
    kept = [number for number in range(1, count + 1) if number > count - size]
    assert (ring.head, ring.tail) == (count, kept[0] if kept else count + 1)
    begin, messages = ring.range(first, first + length, 4)
    wanted = [number for number in kept if first <= number <= first + length][:4]
    assert [int(one) for one in messages] == wanted
    assert not wanted or begin == wanted[0]


def test_a_rate_is_of_the_last_seconds_however_seldom_somebody_looks() -> None:
    async def told() -> tuple[float, float]:
        topic = TickTopic(WORD, CONTRACT, 0.0, frozenset(), 100, lambda message: None)
        begun_s = time.monotonic()
        for _ in range(50):
            topic.push(tick(1.0, 1.0, 1.0))
        first = topic.rate(begun_s + 10.0)
        for second in range(100):
            topic.sample(begun_s + second)
        topic.push(tick(1.0, 1.0, 1.0))
        return first, topic.rate(begun_s + 100.0)

    first, last = asyncio.run(told())
    assert first == pytest.approx(5.0, rel=0.01)
    assert 0.0 < last < 0.2


def test_a_tick_comes_out_as_it_went_in() -> None:
    one = tick(1.5, 3.25, 10.0)
    assert decode_tick(encode_tick((7, one))) == (7, one)
    with pytest.raises(WireError):
        decode_tick(encode_tick((7, one))[:-1])


async def conflated(ticks: list[Tick], conflate_s: float) -> list[Tick]:
    sent: list[bytes] = []
    topic = TickTopic(WORD, CONTRACT, conflate_s, frozenset(), 100, sent.append)
    for one in ticks:
        topic.push(one)
    topic.close()
    assert all(message.startswith(WORD) for message in sent)
    numbered = [decode_tick(message[TOPIC_LENGTH:]) for message in sent]
    assert [number for number, _ in numbered] == list(range(1, len(sent) + 1))
    return [one for _, one in numbered]


@given(
    steps=st.lists(st.tuples(st.floats(0, 0.4), st.integers(0, 9)), min_size=1, max_size=60),
    conflate_s=st.sampled_from([0.25, 0.5, 1.0]),
)
def test_conflation_keeps_the_last_quote_and_all_that_was_traded(
    steps: list[tuple[float, int]], conflate_s: float
) -> None:
    """Of each stretch of the market's time, so that a bar made of whole stretches has its own volume."""
    at_s = 100.0
    ticks: list[Tick] = []
    for step_s, traded in steps:
        at_s += step_s
        ticks.append(tick(at_s, 1.0 + len(ticks), float(traded)))
    made = asyncio.run(conflated(ticks, conflate_s))
    span_ns = round(conflate_s * NS_PER_S)
    stretches: dict[int, list[Tick]] = {}
    for one in ticks:
        stretches.setdefault(one.time_ns // span_ns, []).append(one)
    assert [(one.time_ns, one.last, one.traded) for one in made] == [
        (group[-1].time_ns, group[-1].last, sum(one.traded for one in group)) for group in stretches.values()
    ]


def test_each_subscriber_has_the_conflation_it_asked_for(emulator: EmulatorThread, join: Join) -> None:
    every, some = join("alpha"), join("beta", conflate_s=0.2)
    one, two = every.follow(), Ticks()
    some.connection.subscribe_ticks(some.contract(), two)
    # A picture is the first of either.
    for _ in range(10):
        move(emulator, 30)
    every.until(lambda: len(one.all) > 100)
    some.until(lambda: two.all and two.all[-1].time_ns == one.all[-1].time_ns)
    every.until(lambda: one.all[-1].time_ns == two.all[-1].time_ns)
    assert sum(each.traded for each in one.all) == sum(each.traded for each in two.all)
    assert two.all[-1].last == one.all[-1].last


def test_streams_end_with_their_last_subscriber(hub: HubThread, emulator: EmulatorThread, join: Join) -> None:
    first, second = join("alpha"), join("beta")
    one, two = first.follow(), second.follow()
    (topic,) = hub.status().topics
    assert topic.subscribers == ("alpha", "beta")
    first.connection.unsubscribe_ticks(one)
    until(lambda: hub.status().topics[0].subscribers == ("beta",))
    before = len(one.all)
    move(emulator, 100)
    second.until(lambda: len(two.all) > 20)
    assert len(one.all) == before
    second.connection.close()
    until(lambda: hub.status().topics == ())
    until(lambda: hub.status().session.lines.used == 0)


def test_a_slow_subscription_is_opened_once(hub: HubThread, join: Join) -> None:
    """Several ask for one stream at a time: one line at IBKR."""
    strategies = [join(f"s_{number}") for number in range(4)]
    contracts = [one.contract() for one in strategies]
    asked = [
        one.connection._link.ask("subscribe", {"contract": contract})
        for one, contract in zip(strategies, contracts, strict=True)
    ]
    told = [one.result(PATIENCE_S) for one in asked]
    assert len({one.topic for one in told}) == 1
    assert len(hub.status().topics) == 1
