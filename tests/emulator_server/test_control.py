"""The control API: steps and their gate, clock, reset, and wrong input."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

ACCOUNT = "DU1234567"
FIELDS = '{"fields":["31","84","86","7762"]}'


async def test_state(api: Any) -> None:
    socket = await api.socket()
    state = await api.control("state")
    assert (state["speed"], state["done"], state["seed"]) == ("lockstep", False, 0)
    (connection,) = state["connections"]
    assert (connection["frames"], connection["ready"]) == (socket.received, True)
    port = socket.ws.get_extra_info("sockname")[1]
    assert connection["port"] == port


async def test_step_waits_until_frames_were_received(api: Any) -> None:
    socket = await api.socket()
    port = str(socket.ws.get_extra_info("sockname")[1])
    await socket.send(f"smd+265598+{FIELDS}")
    await socket.next()
    await socket.next()
    moved = await api.step(max_events=20, received={port: socket.received})
    assert moved["moved"] is True
    assert moved["events"] == 20
    sent = moved["sent"][port]
    assert sent > socket.received
    held = await api.step(max_events=20, received={port: socket.received})
    assert (held["moved"], held["events"], held["now_ns"]) == (False, 0, moved["now_ns"])
    while socket.received < sent:
        await socket.next()
    assert (await api.step(max_events=1, received={port: socket.received}))["moved"] is True
    # A socket that is gone holds nobody up.
    assert (await api.step(max_events=1, received={"1": 0}))["moved"] is True


async def test_all_frames_of_a_step_are_counted_in_its_answer(api: Any) -> None:
    socket = await api.socket()
    port = str(socket.ws.get_extra_info("sockname")[1])
    await socket.send(f"smd+265598+{FIELDS}")
    await socket.next()
    for _ in range(50):
        sent = (await api.step(max_events=7))["sent"][port]
        while socket.received < sent:
            await socket.next()
    assert (await api.control("state"))["connections"][0]["frames"] == socket.received


async def test_step_until_a_time_and_order_events_stop_it(api: Any) -> None:
    now_ns = (await api.control("state"))["now_ns"]
    minute = 60_000_000_000
    step = await api.step(until_ns=now_ns + minute)
    assert step["now_ns"] == now_ns + minute
    quote = (await api.control("book", conid=265598))["quote"]
    await api.place(orderType="LMT", price=round(quote["ask"] - 0.1, 2))
    step = await api.step(until_ns=now_ns + 600 * minute)
    assert step["order_events"] > 0
    assert step["now_ns"] < now_ns + 600 * minute


async def test_control_over_a_socket(api: Any) -> None:
    url = api.server.control.replace("http", "ws", 1) + "/ws"
    async with api.http.ws_connect(url) as ws:
        await ws.send_str(json.dumps({"id": 7, "op": "step", "max_events": 3}))
        answer = json.loads((await ws.receive(timeout=5)).data)
        assert (answer["id"], answer["events"]) == (7, 3)
        for wrong in ('{"id":8,"op":"fly"}', "[]", "nonsense", '{"id":8,"op":"step","max_events":"x"}'):
            await ws.send_str(wrong)
            assert "error" in json.loads((await ws.receive(timeout=5)).data)


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("step", {"max_events": 0}),
        ("step", {"until": 5}),
        ("step", {"received": {"x": 1}}),
        ("step", {"until_ns": 1.5}),
        ("clock", {"speed": -1}),
        ("clock", {"speed": "fast"}),
        ("tick", {"conid": 5, "bid": 1.0}),
        ("tick", {"bid": 1.0}),
        ("halt", {"conid": 5}),
        ("reset", {"seed": "x"}),
        ("session", {"state": "gone"}),
        ("fly", {}),
    ],
)
async def test_wrong_input(api: Any, name: str, body: dict[str, Any]) -> None:
    status, answer = await api.try_control(name, body)
    assert status == 400
    assert answer["error"]


async def test_methods(api: Any) -> None:
    assert (await api.try_control("state", {}))[0] == 405
    assert (await api.try_control("step"))[0] == 405
    assert (await api.try_control("book", conid=5))[0] == 400


async def test_injected_tick_trades(api: Any) -> None:
    await api.step(max_events=50)
    await api.place(orderType="LMT", price=50.0)
    await api.control("tick", {"conid": 265598, "bid": 49.0, "ask": 49.5, "bid_size": 100, "ask_size": 100})
    executions = (await api.control("executions", account=ACCOUNT))["executions"]
    assert executions[0]["price"] <= 50.0


async def play(api: Any) -> tuple[Any, list[Any]]:
    socket = await api.socket()
    seen = socket.received
    await socket.send(f"smd+265598+{FIELDS}")
    await socket.send("str+{}")
    await socket.flush()
    for index in range(5):
        await api.step(max_events=100)
        await api.place(side="BUY" if index % 2 else "SELL", cOID=f"c{index}")
    await socket.flush()
    await socket.ws.close()
    return await api.control("ledger"), [f for f in socket.frames[seen:] if f.get("topic") != "tic"]


async def test_reset_repeats_the_run(make: Any) -> None:
    api = await make(seed=7)
    first = await play(api)
    assert (await api.control("reset", {}))["seed"] == 7
    second = await play(api)
    strip = ("server_id", "6119")
    assert first[0] == second[0]
    assert [{k: v for k, v in f.items() if k not in strip} for f in first[1]] == [
        {k: v for k, v in f.items() if k not in strip} for f in second[1]
    ]
    await api.control("reset", {"seed": 8})
    assert (await play(api))[0] != first[0]


async def test_reset_keeps_subscriptions(api: Any) -> None:
    await api.step(max_events=50)
    socket = await api.socket()
    await socket.send(f"smd+265598+{FIELDS}")
    await socket.send("spl+{}")
    await socket.flush()
    await api.control("reset", {})
    await api.step(max_events=50)
    await api.place()
    await api.step(until_ns=(await api.control("state"))["now_ns"] + 20_000_000_000)
    await api.step(until_ns=(await api.control("state"))["now_ns"] + 20_000_000_000)
    frames = await socket.flush()
    assert frames[0] == frames[1]
    assert any(frame["topic"] == "spl" for frame in frames)


async def test_max_speed_waits_for_start_and_ends(make: Any) -> None:
    api = await make(
        speed="max", autostart=False, synthetic_instruments=("AAPL",), conflation_ms=500, smd_lifetime_s=0
    )
    state = await api.control("state")
    assert (state["started"], state["done"]) == (False, False)
    socket = await api.socket()
    await socket.send(f"smd+265598+{FIELDS}")
    await socket.flush()
    waiting = asyncio.create_task(api.control("wait", **{"for": "done"}))
    await api.control("start", {})
    await socket.flush()
    ended = await waiting
    assert (ended["done"], ended["timeout"]) == (True, False)
    frames = [frame for frame in await socket.flush() if frame["topic"] != "tic"]
    quote = (await api.control("book", conid=265598))["quote"]
    known: dict[str, Any] = {}
    for frame in [*socket.frames, *frames]:
        known |= {tag: frame[tag] for tag in ("84", "86", "7762") if tag in frame}
    assert (float(known["84"]), float(known["86"])) == (quote["bid"], quote["ask"])


async def test_market_follows_the_wall_clock(make: Any) -> None:
    api = await make(speed=600.0, pacing="off")
    socket = await api.socket()
    await socket.send(f"smd+265598+{FIELDS}")
    before = (await api.control("state"))["now_ns"]
    for _ in range(6):
        await socket.until(lambda frame: str(frame.get("topic")).startswith("smd"))
    await api.control("clock", {"paused": True})
    paused = (await api.control("state"))["now_ns"]
    assert paused > before
    assert (await api.control("state"))["now_ns"] == paused
    assert (await api.try_control("step", {"max_events": 1}))[0] == 400
    await api.control("clock", {"paused": False, "speed": "lockstep"})
    assert (await api.step(max_events=1))["events"] == 1
