"""Faults of single frames."""

from __future__ import annotations

import json
from typing import Any

import aiohttp
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bt_ibkr.emulator.faults.specs import Frames


async def streaming(api: Any) -> Any:
    """A socket that watches AAPL; each step of one event may give a frame."""
    await api.step(max_events=20)
    socket = await api.socket()
    await socket.subscribe()
    return socket


async def smd(socket: Any) -> list[dict[str, Any]]:
    return [frame for frame in await socket.flush() if frame["topic"].startswith("smd")]


async def reference(make: Any, events: int) -> list[dict[str, Any]]:
    """What an undisturbed client sees."""
    api = await make()
    socket = await streaming(api)
    await api.step(max_events=events)
    return await smd(socket)


async def test_drop(make: Any) -> None:
    whole = await reference(make, 100)
    api = await make()
    socket = await streaming(api)
    await api.fault("frames", action="drop", topic="smd", count=3)
    await api.step(max_events=100)
    assert await smd(socket) == whole[3:]
    assert await api.faults() == []


async def test_duplicate(make: Any) -> None:
    whole = await reference(make, 100)
    api = await make()
    socket = await streaming(api)
    await api.fault("frames", action="duplicate", topic="smd+265598", count=2)
    await api.step(max_events=100)
    assert await smd(socket) == [whole[0], whole[0], whole[1], whole[1], *whole[2:]]


async def test_reorder(make: Any) -> None:
    whole = await reference(make, 200)
    seen = []
    for _ in range(2):
        api = await make()
        socket = await streaming(api)
        await api.fault("frames", action="reorder", topic="smd", count=6)
        await api.step(max_events=200)
        seen.append(await smd(socket))
    assert seen[0] == seen[1], "the same seed gives the same disorder"
    assert seen[0] != whole
    assert seen[0][6:] == whole[6:]
    assert all(frame in whole[:6] for frame in seen[0][:6])


async def test_reorder_lets_go_when_cleared(make: Any) -> None:
    whole = await reference(make, 60)
    assert len(whole) < 1000
    api = await make()
    socket = await streaming(api)
    await api.fault("frames", action="reorder", topic="smd", count=1000)
    await api.step(max_events=60)
    assert await smd(socket) == []
    await api.control("clear_faults", {})
    assert sorted(map(str, await smd(socket))) == sorted(map(str, whole))


async def test_delay(api: Any) -> None:
    socket = await streaming(api)
    await api.fault("frames", action="delay", topic="sor", delay_s=0.1)
    await socket.ws.send_str("sor+{}")
    await socket.flush()
    await api.place()
    first = await socket.flush()
    orders = [frame for frame in first if frame["topic"] == "sor"]
    late = await socket.until("sor")
    # The first frame of an order is the full one; here it comes after those that only tell changes.
    assert "ticker" in late["args"][0]
    assert all("ticker" not in frame["args"][0] for frame in orders)


async def test_silent_topic(make: Any) -> None:
    api = await make(heartbeat_s=0.02)
    socket = await streaming(api)
    silence = await api.fault("silence", topic="smd")
    await api.step(max_events=100)
    assert await smd(socket) == []
    assert "hb" in await socket.until("system")
    await api.control("clear_faults", {"id": silence["id"]})
    await api.step(max_events=100)
    assert await smd(socket)


async def test_heartbeats_alone_stop(make: Any) -> None:
    api = await make(heartbeat_s=0.02)
    socket = await streaming(api)
    await api.fault("silence", topic="hb")
    await socket.flush()
    with pytest.raises(TimeoutError):
        await socket.message(timeout_s=0.2)
    await api.step(max_events=100)
    assert await smd(socket)


async def test_all_topics_but_heartbeats(make: Any) -> None:
    api = await make(heartbeat_s=0.02)
    socket = await api.socket()
    await api.fault("silence", topic="*")
    await socket.ws.send_str("tic")
    for _ in range(3):
        assert "hb" in await socket.next()


async def test_one_socket_only(api: Any) -> None:
    first, second = await api.socket(), await api.socket()
    await api.fault("silence", topic="ntf", port=first.port)
    await api.control("notice", {"text": "hear"})
    assert [one["topic"] for one in await second.flush()] == ["ntf"]
    assert await first.flush() == []


async def corrupt(api: Any, how: str, **more: Any) -> aiohttp.WSMessage:
    """The damaged message, as a client that is not strict about text receives it."""
    socket = await api.socket(decode_text=False, max_msg_size=0, greeted=False)
    for _ in range(3):
        await socket.message()
    await api.fault("frames", action="corrupt", corrupt=how, topic="ntf", port=socket.port, **more)
    await api.control("notice", {"text": "a notice"})
    message: aiohttp.WSMessage = await socket.message()
    # The stream goes on.
    await api.control("notice", {"text": "after"})
    assert json.loads((await socket.message()).data)["args"][0]["text"] == "after"
    return message


async def test_truncated(api: Any) -> None:
    message = await corrupt(api, "truncate")
    assert message.type is aiohttp.WSMsgType.TEXT
    with pytest.raises(json.JSONDecodeError):
        json.loads(message.data)


async def test_no_utf8_in_a_text_frame(api: Any) -> None:
    message = await corrupt(api, "utf8")
    assert message.type is aiohttp.WSMsgType.TEXT
    with pytest.raises(UnicodeDecodeError):
        message.data.decode()


async def test_binary_noise(api: Any) -> None:
    message = await corrupt(api, "binary")
    assert message.type is aiohttp.WSMsgType.BINARY
    with pytest.raises(UnicodeDecodeError):
        message.data.decode()


async def test_giant(api: Any) -> None:
    assert len((await corrupt(api, "giant")).data) == 50_000_000
    assert len((await corrupt(api, "giant", size=1_000_000)).data) == 1_000_000


async def test_deep(api: Any) -> None:
    data = (await corrupt(api, "deep")).data
    assert data.count(b"[") == data.count(b"]") == 100_000


async def test_frames_that_are_lost_are_not_counted_as_sent(api: Any) -> None:
    socket = await streaming(api)
    before = (await api.control("state"))["connections"][0]["frames"]
    await api.fault("silence", topic="smd")
    sent = (await api.step(max_events=50))["sent"][str(socket.port)]
    assert sent == before


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    action=st.sampled_from(["drop", "duplicate", "reorder"]),
    topic=st.sampled_from(["ntf", "*", "sor", "ntf+1"]),
    count=st.integers(2, 6),
    notices=st.integers(0, 8),
)
def test_only_the_next_frames_suffer(action: Any, topic: str, count: int, notices: int) -> None:
    """Whatever happens to the next frames, each of the others comes once and in order."""
    from bt_ibkr.emulator.faults.active import Active
    from bt_ibkr.emulator.faults.frames import FrameFaults

    bench = Bench()
    faults = FrameFaults(bench, bench)  # type: ignore[arg-type]
    fault = Active(1, Frames(action=action, topic=topic, count=count))
    bench.fault = fault
    faults.begin(fault)
    for number in range(notices):
        frame = {"topic": "ntf", "n": number}
        payload = str(number).encode()
        if bench.tamper is None or not bench.tamper(bench, frame, payload):
            bench.send_bytes(payload)
    numbers = [int(one) for one in bench.sent]
    hit = min(count, notices) if topic in ("ntf", "*") else 0
    rest = list(range(hit, notices))
    assert numbers[len(numbers) - len(rest) :] == rest
    head = numbers[: len(numbers) - len(rest)]
    if action == "drop":
        assert head == []
    elif action == "duplicate":
        assert head == [n for n in range(hit) for _ in range(2)]
    elif hit == count:
        assert sorted(head) == list(range(hit))
        assert head != sorted(head)
    else:
        assert head == []


class Bench:
    """Core, hub, registry and connection in one."""

    def __init__(self) -> None:
        from random import Random

        self.random = Random(0)
        self.hub = self
        self.connections = [self]
        self.tamper: Any = None
        self.port = 1
        self.sent: list[bytes] = []
        self.fault: Any = None

    def send_bytes(self, payload: bytes, kind: int = 0) -> None:
        self.sent.append(payload)

    def spend(self, fault: Any, **what: Any) -> None:
        fault.hits += 1
        fault.left -= 1
        if not fault.left:
            fault.end()
