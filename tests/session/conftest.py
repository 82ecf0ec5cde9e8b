"""A gateway whose every answer the test decides, the emulator in the test's loop, and a session's observer."""

from __future__ import annotations

import asyncio
import json
import ssl
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
from bt_ibkr.session.session import Session, SessionEvent, SessionState
from bt_ibkr.wire.frames import Frame

PATIENCE_S = 10.0
READY = {"authenticated": True, "established": True, "competing": False, "connected": True, "message": ""}
#: Quick time-outs, no pacing: the rest as users have it.
FAST: dict[str, Any] = {
    "paced": False,
    "request_timeout_s": 5.0,
    "connect_timeout_s": 5.0,
    "reconnect_first_s": 0.01,
    "reconnect_longest_s": 0.02,
}


class Seen(NamedTuple):
    """A request as the server saw it."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def line(self) -> str:
        return f"{self.method} {self.path}"


Answer = Callable[[Seen], Any]


class Changes:
    """Something happened: whoever waits looks again."""

    def __init__(self) -> None:
        self._waiting: list[asyncio.Future[None]] = []

    def notify(self) -> None:
        for future in self._waiting:
            if not future.done():
                future.set_result(None)
        self._waiting.clear()

    async def until(self, wanted: Callable[[], Any]) -> None:
        """Wait until ``wanted()`` is true; it is looked at after each change."""
        async with asyncio.timeout(PATIENCE_S):
            while not wanted():
                future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                self._waiting.append(future)
                await future


class Gateway(Changes):
    """A server of the API's outline; tests put their answers into ``answers`` (by ``METHOD /path``).

    Attributes:
        seen: Requests in the order of their arrival.
        said: Messages of the client on all WebSockets, each with whether the socket was greeted before.
        cookies: The ``Cookie`` header of each WebSocket upgrade.
        greet: Set while new sockets are greeted; clear it to let them wait.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Seen] = []
        self.said: list[tuple[str, bool]] = []
        self.cookies: list[str] = []
        self.sockets: list[web.WebSocketResponse] = []
        self.greet = asyncio.Event()
        self.greet.set()
        self.answers: dict[str, Answer] = {
            "POST /tickle": lambda _: {"session": "cafe01", "iserver": {"authStatus": READY}},
            "POST /iserver/auth/status": lambda _: READY,
            "POST /iserver/auth/ssodh/init": lambda _: READY,
            "GET /iserver/accounts": lambda _: {"accounts": ["DU1"], "selectedAccount": "DU1"},
            "GET /portfolio/accounts": lambda _: [{"id": "DU1", "accountId": "DU1"}],
        }
        self.url = ""
        self._runner: web.AppRunner | None = None

    @property
    def lines(self) -> list[str]:
        return [one.line for one in self.seen]

    async def start(self, tls: ssl.SSLContext | None = None) -> None:
        app = web.Application(client_max_size=16_000_000)
        app.router.add_get("/v1/api/ws", self._websocket)
        app.router.add_route("*", "/{rest:.*}", self._request)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=tls)
        await site.start()
        port = self._runner.addresses[0][1]
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{port}/v1/api"

    async def stop(self) -> None:
        for ws in self.sockets:
            if not ws.closed:
                await ws.close()
        if self._runner is not None:
            await self._runner.cleanup()

    async def _request(self, request: web.Request) -> web.StreamResponse:
        path = request.path.removeprefix("/v1/api")
        seen = Seen(request.method, path, dict(request.headers), await request.read())
        self.seen.append(seen)
        self.notify()
        answer = self.answers.get(seen.line)
        if answer is None:
            page = "<html><body><h1>Resource not found</h1></body></html>"
            return web.Response(status=404, text=page, content_type="text/html")
        made = answer(seen)
        if isinstance(made, Awaitable):
            made = await made
        return made if isinstance(made, web.StreamResponse) else web.json_response(made)

    async def _websocket(self, request: web.Request) -> web.StreamResponse:
        ws = web.WebSocketResponse(compress=False, max_msg_size=0)
        await ws.prepare(request)
        self.cookies.append(request.headers.get("Cookie", ""))
        self.sockets.append(ws)
        greeted = asyncio.Event()
        greeter = asyncio.create_task(self._greet(ws, greeted))
        self.notify()
        async for message in ws:
            self.said.append((str(message.data), greeted.is_set()))
            self.notify()
        greeter.cancel()
        self.notify()
        return ws

    async def _greet(self, ws: web.WebSocketResponse, greeted: asyncio.Event) -> None:
        await self.greet.wait()
        greeted.set()
        await ws.send_json({"topic": "system", "success": "user", "isFT": False, "isPaper": True})


class Watch(Changes):
    """Takes what a session tells."""

    def __init__(self) -> None:
        super().__init__()
        self.frames: list[Frame] = []
        self.states: list[SessionState] = []
        self.causes: list[str] = []

    def on_frame(self, frame: Frame) -> None:
        self.frames.append(frame)
        self.notify()

    def on_state(self, event: SessionEvent) -> None:
        self.states.append(event.state)
        self.causes.append(event.cause)
        self.notify()


class Emulator(NamedTuple):
    """An emulator in the test's loop, and the requests it was asked."""

    server: EmulatorServer
    lines: list[str]


StartGateway = Callable[..., Awaitable[Gateway]]
StartEmulator = Callable[..., Awaitable[Emulator]]
MakeSession = Callable[..., tuple[Session, Watch]]
MakeClient = Callable[..., HttpClient]


@pytest.fixture
async def start_gateway() -> AsyncIterator[StartGateway]:
    started: list[Gateway] = []

    async def start(tls: ssl.SSLContext | None = None) -> Gateway:
        gateway = Gateway()
        started.append(gateway)
        await gateway.start(tls)
        return gateway

    yield start
    for gateway in started:
        await gateway.stop()


@pytest.fixture
async def gateway(start_gateway: StartGateway) -> Gateway:
    return await start_gateway()


@pytest.fixture
async def start_emulator(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[StartEmulator]:
    servers: list[EmulatorServer] = []

    async def start(tls: ssl.SSLContext | None = None, **changes: Any) -> Emulator:
        plain: dict[str, Any] = {
            "port": 0,
            "speed": "lockstep",
            "synthetic_instruments": ("AAPL",),
            "history_days": 0,
        }
        server = EmulatorServer(EmulatorSettings(**(plain | changes)), tls=tls)
        lines: list[str] = []
        admit = server.core.pacing.admit

        def recorded(method: str, path: str) -> None:
            lines.append(f"{method} {path}")
            admit(method, path)

        monkeypatch.setattr(server.core.pacing, "admit", recorded)
        await server.start()
        servers.append(server)
        return Emulator(server, lines)

    yield start
    for server in servers:
        await server.stop()


@pytest.fixture
async def make_session() -> AsyncIterator[MakeSession]:
    """Sessions of a base URL; they are closed in the end, and no task of theirs may be left."""
    before = asyncio.all_tasks()
    made: list[Session] = []

    def make(url: str, **changes: Any) -> tuple[Session, Watch]:
        clock = changes.pop("clock", None)
        watch = Watch()
        session = Session(
            SessionSettings(base_url=url, **(FAST | changes)),
            clock=clock,
            on_frame=watch.on_frame,
            on_state=watch.on_state,
        )
        made.append(session)
        return session, watch

    yield make
    for session in made:
        await session.close()
    named = {task.get_name() for task in asyncio.all_tasks() - before}
    assert not named & {"websocket", "websocket-keep-alive", "tickle"}


@pytest.fixture
async def make_client() -> AsyncIterator[MakeClient]:
    """REST clients of a base URL, without pacing."""
    opened: list[aiohttp.ClientSession] = []

    def make(url: str, **changes: Any) -> HttpClient:
        http = aiohttp.ClientSession()
        opened.append(http)
        settings = SessionSettings(base_url=url, **(FAST | changes))
        return HttpClient(http, settings, PacingGate(()))

    yield make
    for http in opened:
        await http.close()


@pytest.fixture
def dead_url() -> str:
    """An address where nobody listens."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}/v1/api"


def body_of(seen: Seen) -> Any:
    """The JSON body of a request."""
    return json.loads(seen.body)
