"""Services over a REST server whose answers the test decides, or over the emulator."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NamedTuple

import aiohttp
import pytest
from aiohttp import web

from bt_ibkr.config import SessionSettings
from bt_ibkr.emulator.server import EmulatorServer
from bt_ibkr.emulator.settings import EmulatorSettings
from bt_ibkr.session.http import HttpClient
from bt_ibkr.session.pacing import PacingGate

ACCOUNT = "DU1"


class Seen(NamedTuple):
    """A request as the server saw it."""

    line: str
    query: dict[str, str]
    body: Any


class Server:
    """Answers by ``METHOD /path``: a value, or a function of the request. Unknown lines are 404.

    Attributes:
        seen: Requests in the order of their arrival.
        http: A client of it, without pacing.
    """

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self.answers: dict[str, Any] = {}
        self.active = 0
        self.most_active = 0
        self.http: HttpClient
        self._client: aiohttp.ClientSession
        self._runner: web.AppRunner

    def lines(self, word: str = "") -> list[str]:
        """Lines of the requests seen that contain ``word``."""
        return [one.line for one in self.seen if word in one.line]

    async def start(self) -> None:
        app = web.Application()
        app.router.add_route("*", "/{rest:.*}", self._answer)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self._client = aiohttp.ClientSession()
        self.http = client_of(f"http://127.0.0.1:{self._runner.addresses[0][1]}/v1/api", self._client)

    async def stop(self) -> None:
        await self._client.close()
        await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        line = f"{request.method} {request.path.removeprefix('/v1/api')}"
        raw = await request.read()
        seen = Seen(line, dict(request.query), json.loads(raw) if raw else None)
        self.seen.append(seen)
        self.active += 1
        self.most_active = max(self.most_active, self.active)
        try:
            made = self.answers.get(line, web.Response(status=404, text="<html></html>"))
            made = made(seen) if callable(made) else made
            made = await made if inspect.isawaitable(made) else made
        finally:
            self.active -= 1
        return made if isinstance(made, web.StreamResponse) else web.json_response(made)


def client_of(url: str, http: aiohttp.ClientSession, **changes: Any) -> HttpClient:
    settings = SessionSettings(base_url=url, request_timeout_s=5.0, paced=False, **changes)
    return HttpClient(http, settings, PacingGate(()))


def error(status: int, text: str) -> web.Response:
    """IBKR's usual error envelope."""
    return web.json_response({"error": text}, status=status)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    one = Server()
    await one.start()
    yield one
    await one.stop()


class Emulator(NamedTuple):
    """An emulator in the test's loop, primed, with a client of it and the requests it was asked."""

    server: EmulatorServer
    http: HttpClient
    lines: list[str]


StartEmulator = Callable[..., Awaitable[Emulator]]


@pytest.fixture
async def start_emulator(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[StartEmulator]:
    servers: list[EmulatorServer] = []
    clients: list[aiohttp.ClientSession] = []

    async def start(**changes: Any) -> Emulator:
        plain: dict[str, Any] = {
            "port": 0,
            "speed": "lockstep",
            "synthetic_instruments": ("AAPL",),
            "history_days": 0,
            "questions": "none",
            "accounts": (ACCOUNT,),
        }
        emulated = EmulatorServer(EmulatorSettings(**(plain | changes)))
        lines: list[str] = []
        admit = emulated.core.pacing.admit

        def recorded(method: str, path: str) -> None:
            lines.append(f"{method} {path}")
            admit(method, path)

        monkeypatch.setattr(emulated.core.pacing, "admit", recorded)
        await emulated.start()
        servers.append(emulated)
        client = aiohttp.ClientSession()
        clients.append(client)
        http = client_of(emulated.url, client)
        await http.get("/iserver/accounts")
        await http.get("/portfolio/accounts")
        lines.clear()
        return Emulator(emulated, http, lines)

    yield start
    for client in clients:
        await client.close()
    for emulated in servers:
        await emulated.stop()


@pytest.fixture
def naps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Makes every pause of the services end at once, and keeps how long each would have been."""
    slept: list[float] = []
    real = asyncio.sleep

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        await real(0)

    for module in ("history", "orders", "portfolio"):
        monkeypatch.setattr(f"bt_ibkr.services.{module}.asyncio.sleep", sleep)
    return slept
