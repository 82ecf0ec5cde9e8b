"""An emulator in the test's own loop, and a small client of it."""

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
#: A market that moves by steps, one frame per change, no questions: what most tests want.
PLAIN: dict[str, Any] = {
    "port": 0,
    "speed": "lockstep",
    "conflation_ms": 0,
    "questions": "none",
    "synthetic_instruments": ("AAPL", "SPY"),
    "history_days": 2,
}


class Socket:
    """A WebSocket of which frames are read one by one."""

    def __init__(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        self.ws = ws
        self.frames: list[dict[str, Any]] = []

    async def send(self, text: str) -> None:
        await self.ws.send_str(text)

    async def next(self) -> dict[str, Any]:
        message = await self.ws.receive(timeout=5)
        assert message.type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY), message
        frame: dict[str, Any] = json.loads(message.data)
        self.frames.append(frame)
        return frame

    async def until(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The first frame that is wanted; those before it are only kept."""
        while True:
            frame = await self.next()
            if wanted(frame):
                return frame

    async def flush(self) -> list[dict[str, Any]]:
        """All frames sent so far, by means of a tic, which is answered in order."""
        seen = len(self.frames)
        await self.send("tic")
        for _ in range(4):
            await self.until(lambda frame: frame.get("topic") == "tic")
        return [frame for frame in self.frames[seen:] if frame.get("topic") != "tic"]

    async def greeted(self) -> Socket:
        await self.until(lambda frame: frame.get("topic") == "sts")
        return self

    @property
    def received(self) -> int:
        return len(self.frames)


class Api:
    """A client of one emulator."""

    def __init__(self, server: EmulatorServer, http: aiohttp.ClientSession) -> None:
        self.server = server
        self.http = http

    async def ask(self, method: str, path: str, body: Any = None, **query: Any) -> tuple[int, Any]:
        """Status, and the body: JSON if it is JSON, else text."""
        content = {} if body is None and method == "POST" else body
        async with self.http.request(method, self.server.url + path, params=query, json=content) as answer:
            text = await answer.text()
            return answer.status, json.loads(text) if answer.content_type == "application/json" else text

    async def get(self, path: str, **query: Any) -> Any:
        status, body = await self.ask("GET", path, **query)
        assert status == 200, (path, status, body)
        return body

    async def post(self, path: str, body: Any = None) -> Any:
        status, answer = await self.ask("POST", path, body)
        assert status == 200, (path, status, answer)
        return answer

    async def control(self, name: str, body: Any = None, **query: Any) -> Any:
        status, answer = await self.try_control(name, body, **query)
        assert status == 200, (name, status, answer)
        return answer

    async def try_control(self, name: str, body: Any = None, **query: Any) -> tuple[int, Any]:
        method = "GET" if body is None else "POST"
        url = f"{self.server.control}/{name}"
        async with self.http.request(method, url, json=body, params=query) as answer:
            return answer.status, await answer.json()

    async def step(self, **arguments: Any) -> Any:
        return await self.control("step", arguments)

    async def socket(self, *, greeted: bool = True, **options: Any) -> Socket:
        socket = Socket(await self.http.ws_connect(self.server.ws, **options))
        return await socket.greeted() if greeted else socket

    async def place(self, **fields: Any) -> Any:
        """Place one order; a market order for 10 AAPL unless told otherwise."""
        order = {"conid": 265598, "orderType": "MKT", "side": "BUY", "quantity": 10, "tif": "DAY"} | fields
        return await self.post(f"/iserver/account/{ACCOUNT}/orders", {"orders": [order]})


Make = Callable[..., Awaitable[Api]]


@pytest.fixture
async def make() -> AsyncIterator[Make]:
    """Starts emulators with ``PLAIN`` settings and changes to them."""
    started: list[Api] = []

    async def start(*, primed: bool = True, **changes: Any) -> Api:
        server = EmulatorServer(EmulatorSettings(**(PLAIN | changes)))
        await server.start()
        api = Api(server, aiohttp.ClientSession())
        started.append(api)
        if primed:
            await api.get("/iserver/accounts")
            await api.get("/portfolio/accounts")
        return api

    yield start
    for api in started:
        await api.http.close()
        await asyncio.wait_for(api.server.stop(), 5)


@pytest.fixture
async def api(make: Make) -> Api:
    """A primed emulator with ``PLAIN`` settings."""
    return await make()
