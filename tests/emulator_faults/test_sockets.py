"""Faults of whole WebSockets."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import aiohttp
import pytest

CLOSED = (aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR)


async def connections(api: Any) -> int:
    return len((await api.control("state"))["connections"])


@pytest.mark.parametrize("code", [1000, 1001, 1011, 4000])
async def test_close(api: Any, code: int) -> None:
    socket = await api.socket()
    fault = await api.fault("ws_close", code=code, reason="maintenance")
    assert (fault["lasting"], fault["hits"]) == (False, 1)
    message = await socket.message()
    assert (message.type, message.data) == (aiohttp.WSMsgType.CLOSE, code)
    assert socket.ws.close_code == code

    async def gone() -> bool:
        return await connections(api) == 0

    await api.eventually(gone)
    await api.socket()


async def test_reset_is_no_close(api: Any) -> None:
    socket = await api.socket()
    await api.fault("ws_reset")
    message = await socket.message()
    assert message.type in CLOSED
    assert socket.ws.close_code == 1006


async def test_only_one_of_two(api: Any) -> None:
    first, second = await api.socket(), await api.socket()
    port = first.port
    await api.fault("ws_reset", port=port)
    assert (await first.message()).type in CLOSED
    await second.flush()
    assert [one["port"] for one in await api.log("ws_reset")] == [port]


async def test_stalled_socket_neither_reads_nor_writes_nor_closes(make: Any) -> None:
    api = await make(heartbeat_s=0.02)
    socket = await api.socket()
    await socket.subscribe()
    stalled = await api.fault("ws_stall")
    await socket.ws.send_str("tic")
    await api.step(max_events=50)
    # At most the heartbeats that were on their way still come.
    with contextlib.suppress(TimeoutError):
        while True:
            assert "hb" in json.loads((await socket.message(timeout_s=0.2)).data)
    # A new socket is not concerned.
    other = await api.socket()
    await other.flush()
    await api.control("clear_faults", {"id": stalled["id"]})
    await socket.until("smd")
    await socket.until("tic")


async def test_stall_ends_by_itself(api: Any) -> None:
    socket = await api.socket()
    await api.fault("ws_stall", for_s=0.05)
    await socket.flush()
    assert await api.faults() == []


async def test_stalled_socket_does_not_hold_up_a_market(make: Any) -> None:
    api = await make(speed="max", autostart=False, smd_lifetime_s=0)
    socket = await api.socket()
    await socket.subscribe()
    await api.fault("ws_stall")
    await api.control("start", {})
    assert (await api.control("wait", timeout_s=8))["done"] is True


async def test_server_stops_with_a_stalled_socket(make: Any) -> None:
    api = await make()
    await api.socket()
    await api.fault("ws_stall")
    await api.server.stop()


@pytest.mark.parametrize("how", ["reset", "close"])
async def test_storm(api: Any, how: str) -> None:
    await api.fault("ws_storm", every_s=0.05, for_s=0.2, how=how)
    opened = 0
    while await api.faults():
        socket = await api.socket(greeted=False)
        opened += 1
        while (await socket.message()).type is aiohttp.WSMsgType.TEXT:
            if not await api.faults():
                break
    assert opened >= 3
    drops = await api.log("ws_storm")
    assert len(drops) == 4
    assert all({"wall_ms", "now_ns", "ports"} <= one.keys() for one in drops)
    survivor = await api.socket()
    await survivor.flush()


async def test_greeting_comes_late(api: Any) -> None:
    await api.fault("greeting", action="delay", delay_s=0.2)
    late = await api.socket(greeted=False)
    # What is sent before the greeting is lost.
    await late.ws.send_str("tic")
    assert (await late.next())["success"]
    await late.until("sts")
    with pytest.raises(TimeoutError):
        await late.message(timeout_s=0.05)
    assert (await (await api.socket(greeted=False)).next())["topic"] == "system"


async def test_greeting_never_comes_while_the_heart_beats(make: Any) -> None:
    api = await make(heartbeat_s=0.02)
    await api.fault("greeting", action="never")
    socket = await api.socket(greeted=False)
    for _ in range(5):
        await socket.ws.send_str("tic")
        assert "hb" in await socket.next()


async def test_waiting_for_a_session(api: Any) -> None:
    await api.fault("greeting", action="waiting", delay_s=0.05)
    socket = await api.socket(greeted=False)
    assert await socket.next() == {"message": "waiting for session"}
    assert (await socket.next())["success"] == "emulator"
