"""An emulator in the test's own loop, and a plain client of it that knows no mercy and needs none."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest

from bt_ibkr.emulator.server import EmulatorServer
from bt_ibkr.emulator.settings import EmulatorSettings

ACCOUNT = "DU1234567"
AAPL = 265598
#: A market that moves by steps, one frame per change, no questions, no limits.
PLAIN: dict[str, Any] = {
    "port": 0,
    "speed": "lockstep",
    "conflation_ms": 0,
    "questions": "none",
    "synthetic_instruments": ("AAPL", "SPY"),
    "history_days": 1,
}
#: Seconds that anything may take before a test fails.
PATIENCE_S = 10.0


class Socket:
    """A WebSocket that is read message by message."""

    def __init__(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        self.ws = ws

    @property
    def port(self) -> int:
        port: int = self.ws.get_extra_info("sockname")[1]
        return port

    async def message(self, timeout_s: float = PATIENCE_S) -> aiohttp.WSMessage:
        return await self.ws.receive(timeout=timeout_s)

    async def next(self) -> dict[str, Any]:
        message = await self.message()
        assert message.type is aiohttp.WSMsgType.TEXT, message
        frame: dict[str, Any] = json.loads(message.data)
        return frame

    async def until(self, topic: str) -> dict[str, Any]:
        """The first frame whose topic begins so."""
        while True:
            frame = await self.next()
            if str(frame.get("topic", "")).startswith(topic):
                return frame

    async def flush(self) -> list[dict[str, Any]]:
        """All frames sent so far, by means of a tic, which is answered in order."""
        await self.ws.send_str("tic")
        frames: list[dict[str, Any]] = []
        tics = 0
        while tics < 4:
            frame = await self.next()
            if frame.get("topic") == "tic":
                tics += 1
            else:
                frames.append(frame)
        return frames

    async def subscribe(self, conid: int = AAPL) -> None:
        await self.ws.send_str(f'smd+{conid}+{{"fields":["31","84","86"]}}')
        await self.flush()


class Api:
    """A client of one emulator. Control has connections of its own, as a test bench has."""

    def __init__(self, server: EmulatorServer) -> None:
        self.server = server
        self.http = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=PATIENCE_S))
        self.bench = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=PATIENCE_S))
        self.sockets: list[Socket] = []

    async def ask(self, method: str, path: str, body: Any = None, **query: Any) -> tuple[int, Any]:
        """Status, and the body: JSON if it is JSON, else text."""
        content = {} if body is None and method == "POST" else body
        async with self.http.request(method, self.server.url + path, params=query, json=content) as answer:
            text = await answer.text()
            if answer.content_type != "application/json":
                return answer.status, text
            try:
                return answer.status, json.loads(text)
            except ValueError:
                return answer.status, text

    async def get(self, path: str, **query: Any) -> Any:
        status, body = await self.ask("GET", path, **query)
        assert status == 200, (path, status, body)
        return body

    async def init(self, *, compete: bool = True) -> Any:
        body = {"publish": True, "compete": compete}
        status, answer = await self.ask("POST", "/iserver/auth/ssodh/init", body)
        assert status == 200, answer
        return answer

    async def place(self, **fields: Any) -> tuple[int, Any]:
        order = {"conid": AAPL, "orderType": "MKT", "side": "BUY", "quantity": 10, "tif": "DAY"} | fields
        return await self.ask("POST", f"/iserver/account/{ACCOUNT}/orders", {"orders": [order]})

    async def try_control(self, name: str, body: Any = None, **query: Any) -> tuple[int, Any]:
        method = "GET" if body is None else "POST"
        url = f"{self.server.control}/{name}"
        async with self.bench.request(method, url, json=body, params=query) as answer:
            return answer.status, await answer.json()

    async def control(self, name: str, body: Any = None, **query: Any) -> Any:
        status, answer = await self.try_control(name, body, **query)
        assert status == 200, (name, status, answer)
        return answer

    async def fault(self, kind: str, **arguments: Any) -> Any:
        return await self.control("fault", {"kind": kind} | arguments)

    async def faults(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await self.control("faults"))["faults"]
        return found

    async def log(self, kind: str) -> list[dict[str, Any]]:
        return [one for one in (await self.control("faults"))["log"] if one["kind"] == kind]

    async def step(self, **arguments: Any) -> Any:
        return await self.control("step", arguments)

    async def socket(self, *, greeted: bool = True, **options: Any) -> Socket:
        # A half-open socket does not answer a close: waiting for that would be in vain.
        wait = aiohttp.ClientWSTimeout(ws_close=0.1)
        socket = Socket(await self.http.ws_connect(self.server.ws, timeout=wait, **options))
        self.sockets.append(socket)
        if greeted:
            await socket.until("sts")
        return socket

    async def close(self) -> None:
        for socket in self.sockets:
            await socket.ws.close()
        await self.http.close()
        await self.bench.close()

    async def eventually(self, condition: Callable[[], Awaitable[bool]]) -> None:
        """Ask until it is so: what the server does in its own time tells nobody."""
        async with asyncio.timeout(PATIENCE_S):
            while not await condition():  # noqa: ASYNC110
                await asyncio.sleep(0.01)


Make = Callable[..., Awaitable[Api]]


@pytest.fixture
async def make() -> AsyncIterator[Make]:
    """Starts emulators with ``PLAIN`` settings and changes to them."""
    started: list[Api] = []

    async def start(*, primed: bool = True, **changes: Any) -> Api:
        server = EmulatorServer(EmulatorSettings(**(PLAIN | changes)))
        await server.start()
        api = Api(server)
        started.append(api)
        if primed:
            await api.get("/iserver/accounts")
            await api.get("/portfolio/accounts")
        return api

    yield start
    for api in started:
        await api.close()
        await asyncio.wait_for(api.server.stop(), PATIENCE_S)


@pytest.fixture
async def api(make: Make) -> Api:
    """A primed emulator with ``PLAIN`` settings."""
    return await make()
