"""The emulator's sockets: IBKR's API below ``/v1/api``, its WebSocket, and the control API."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import socket
import ssl
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from aiohttp import WSMsgType, web

from bt_ibkr.emulator.build import build_core
from bt_ibkr.emulator.control.http import add_routes
from bt_ibkr.emulator.control.operations import Operations
from bt_ibkr.emulator.drive import Drive
from bt_ibkr.emulator.faults.gateway import ORDER_REQUEST, Edge
from bt_ibkr.emulator.faults.wire import reset
from bt_ibkr.emulator.oracle import OrderRequest
from bt_ibkr.emulator.persistence.keeper import Keeper
from bt_ibkr.emulator.services import errors
from bt_ibkr.emulator.services.call import Call, Needs, Route, Text
from bt_ibkr.emulator.services.contracts.routes import ROUTES as CONTRACTS
from bt_ibkr.emulator.services.core import Core
from bt_ibkr.emulator.services.errors import JSON, TEXT, ApiError
from bt_ibkr.emulator.services.history.routes import ROUTES as HISTORY
from bt_ibkr.emulator.services.json import encode
from bt_ibkr.emulator.services.marketdata.routes import ROUTES as MARKETDATA
from bt_ibkr.emulator.services.oauth.door import Door
from bt_ibkr.emulator.services.orders.routes import ROUTES as ORDERS
from bt_ibkr.emulator.services.portfolio.routes import ROUTES as PORTFOLIO
from bt_ibkr.emulator.services.scanner.routes import ROUTES as SCANNER
from bt_ibkr.emulator.services.session.routes import ROUTES as SESSION
from bt_ibkr.emulator.settings import EmulatorSettings
from bt_ibkr.emulator.stream.connection import Connection
from bt_ibkr.emulator.tls import server_context
from bt_ibkr.errors import PortInUseError, UnreachableError

_LOGGER = logging.getLogger(__name__)
PREFIX = "/v1/api"
ALL_ROUTES: tuple[Route, ...] = (*SESSION, *CONTRACTS, *MARKETDATA, *HISTORY, *SCANNER, *ORDERS, *PORTFOLIO)
#: Wall seconds open requests may take once the server stops.
_STOP_S = 0.5
_Endpoint = Callable[[web.Request], Awaitable[web.StreamResponse]]


class EmulatorServer:
    """One emulator behind a port.

    Args:
        settings: What is emulated, and where it listens.
        tls: Context to serve https and wss with; ``None`` for http and ws.

    Attributes:
        core: Engine, session and streams; to be touched in the loop's thread only.
        drive: What moves the market.
    """

    def __init__(self, settings: EmulatorSettings, *, tls: ssl.SSLContext | None = None) -> None:
        self.settings = settings
        self.core = build_core(settings)
        self.door = Door(self.core, PREFIX)
        self.drive = Drive(self.core, speed=settings.speed, started=settings.autostart)
        if settings.state_file:
            self.core.keeper = Keeper(self.core, self.drive, Path(settings.state_file))
        self.operations = Operations(self.core, self.drive)
        self.edge = Edge(
            self.core,
            prefix=PREFIX,
            listen=self._listen_again,
            unlisten=self._unlisten,
            transports=self._transports,
        )
        self.core.faults.restart = self.edge.restart
        self.port = 0
        self._tls = tls
        self._runner: web.AppRunner | None = None
        self._site: web.SockSite | None = None
        self._reserved: socket.socket | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._sockets: set[web.WebSocketResponse] = set()

    @property
    def url(self) -> str:
        """Base of the REST API."""
        return f"http{self._secure}://{self._address}{PREFIX}"

    @property
    def ws(self) -> str:
        return f"ws{self._secure}://{self._address}{PREFIX}/ws"

    @property
    def control(self) -> str:
        return f"http{self._secure}://{self._address}/control"

    @property
    def _secure(self) -> str:
        return "" if self._tls is None else "s"

    @property
    def _address(self) -> str:
        host = self.settings.host
        return f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"

    async def start(self) -> None:
        """Listen, and let the market move if it starts by itself.

        Raises:
            PortInUseError: Somebody else listens on the port.
            UnreachableError: The address cannot be listened on.
        """
        listener = _bind(self.settings.host, self.settings.port, listen=True)
        self._runner = web.AppRunner(self._application(), access_log=None, shutdown_timeout=_STOP_S)
        await self._runner.setup()
        self._site = web.SockSite(self._runner, listener, ssl_context=self._tls)
        await self._site.start()
        self.port = listener.getsockname()[1]
        self._spawn(self.drive.run(), "emulator-market")
        _LOGGER.info("emulator-listens url=%s seed=%d", self.url, self.settings.seed)

    async def stop(self) -> None:
        """Close every socket and stop the market."""
        # Whoever waits for the end of the market waits no longer.
        self.drive.done.set()
        # Whatever is held back or half open comes to its end.
        self.core.faults.clear()
        restart = self.edge.stop()
        tasks = [*self._tasks, *([] if restart is None else [restart])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        closing = [ws.close(code=1001) for ws in list(self._sockets)]
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.gather(*closing, return_exceptions=True), _STOP_S)
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
        if self._reserved is not None:
            self._reserved.close()
            self._reserved = None
        self._let_go(save=True)

    async def kill(self) -> None:
        """End as SIGKILL would: sockets break, nothing more is written."""
        self._let_go(save=False)
        for transport in self._transports():
            reset(transport)
        await self.stop()

    def _let_go(self, *, save: bool) -> None:
        """The state file is nobody's any more."""
        keeper, self.core.keeper = self.core.keeper, None
        if keeper is not None:
            if save:
                keeper.save()
            keeper.close()

    async def _unlisten(self) -> None:
        """Refuse connections, but keep the port: nobody else shall have it meanwhile."""
        if self._site is not None:
            await self._site.stop()
            self._site = None
            self._reserved = _bind(self.settings.host, self.port, listen=False)

    async def _listen_again(self, certificate: str) -> None:
        """Accept connections again, with the ``same`` certificate, a ``new`` or an ``expired`` one."""
        if self._tls is not None and certificate != "same":
            self._tls = server_context(self.settings.host, expired=certificate == "expired")
        if self._runner is not None and self._reserved is not None:
            listener, self._reserved = self._reserved, None
            self._site = web.SockSite(self._runner, listener, ssl_context=self._tls)
            await self._site.start()

    def _transports(self) -> list[asyncio.Transport]:
        server = None if self._runner is None else self._runner.server
        found = [] if server is None else [one.transport for one in server.connections]
        return [one for one in found if one is not None]

    def _spawn(self, work: Awaitable[None], name: str) -> asyncio.Task[None]:
        async def run() -> None:
            await work

        task = asyncio.get_running_loop().create_task(run(), name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            _LOGGER.error("task-died name=%s", task.get_name(), exc_info=task.exception())

    def _application(self) -> web.Application:
        app = web.Application(client_max_size=16_000_000, middlewares=[self.edge.middleware])
        app.router.add_get(f"{PREFIX}/ws", self._websocket)
        for route in ALL_ROUTES:
            endpoint = self._endpoint(route)
            for method in route.methods:
                app.router.add_route(method, PREFIX + route.path, endpoint)
                # Clients in the field also ask with a slash at the end.
                app.router.add_route(method, f"{PREFIX}{route.path}/", endpoint)
        self.door.add_routes(app)
        add_routes(app, self.operations)
        app.router.add_route("*", "/{rest:.*}", self._endpoint(Route((), "", _unknown, Needs.NOTHING)))
        return app

    def _endpoint(self, route: Route) -> _Endpoint:
        core = self.core

        async def answer(request: web.Request) -> web.StreamResponse:
            began = time.perf_counter_ns()
            path = request.path.removeprefix(PREFIX).rstrip("/")
            try:
                if request.method == "POST" and "Content-Length" not in request.headers:
                    raise errors.length_required()
                core.pacing.admit(request.method, path)
                self.door.admit(request)
                self.drive.catch_up()
                core.session.require(route.needs)
                call = Call(request.match_info, request.query, await request.read())
                core.pacing.begin(path)
                try:
                    body = await self._handled(route, request.get(ORDER_REQUEST), call)
                finally:
                    core.pacing.end(path)
            except ApiError as problem:
                return self._response(problem.status, problem.body, problem.content_type, began)
            except Exception:
                _LOGGER.exception("request-failed method=%s path=%s", request.method, request.path)
                return self._response(
                    500, encode({"error": "Internal error", "statusCode": 500}), JSON, began
                )
            if isinstance(body, Text):
                return self._response(200, body.text.encode(), TEXT, began)
            return self._response(200, encode(body), JSON, began)

        return answer

    async def _handled(self, route: Route, asked: OrderRequest | None, call: Call) -> object:
        """What the service answers; of an order request, what came of it is written down."""
        core = self.core
        if asked is None:
            return await route.handler(core, call)
        before = len(core.engine.orders())
        try:
            body = await route.handler(core, call)
        except ApiError as problem:
            core.oracle.done(asked, before, max(problem.status, 400), None)
            raise
        core.oracle.done(asked, before, 200, body)
        return body

    def _response(self, status: int, body: bytes, content_type: str, began: int) -> web.Response:
        self.core.save()
        took_ms = (time.perf_counter_ns() - began) // 1_000_000
        response = web.Response(
            status=status,
            body=body,
            headers={
                "Content-Type": f"{content_type}; charset=utf-8",
                "Cache-Control": "no-store, must-revalidate, no-cache",
                "x-response-time": f"{took_ms}ms",
            },
        )
        cookie = f"0.{self.core.session.session_id[:16]}"
        response.set_cookie("x-sess-uuid", cookie, path="/sso", httponly=True, secure=True)
        return response

    async def _websocket(self, request: web.Request) -> web.StreamResponse:
        """A client's socket; its credential is in the query, or in the headers, or none is asked for."""
        try:
            self.door.admit_socket(request)
        except ApiError as problem:
            return self._response(problem.status, problem.body, problem.content_type, time.perf_counter_ns())
        ws = web.WebSocketResponse(compress=False)
        await ws.prepare(request)
        transport = request.transport
        if transport is None:
            return ws
        connection = self.core.hub.accept(transport, transport.get_extra_info("peername")[1])
        connection.closer = lambda code, reason: self._close(ws, code, reason)
        self._sockets.add(ws)
        task = self._spawn(self._attend(connection), f"emulator-socket-{connection.port}")
        try:
            async for message in ws:
                if message.type is WSMsgType.TEXT:
                    self._receive(connection, message.data)
                elif message.type is WSMsgType.BINARY:
                    self._receive(connection, message.data.decode("utf-8", "replace"))
        finally:
            task.cancel()
            self.core.hub.drop(connection)
            self._sockets.discard(ws)
        return ws

    def _close(self, ws: web.WebSocketResponse, code: int, reason: str) -> None:
        async def close() -> None:
            await ws.close(code=code, message=reason.encode())

        self._spawn(close(), "emulator-close")

    def _receive(self, connection: Connection, text: str) -> None:
        self.drive.catch_up()
        self.core.hub.receive(connection, text)

    async def _attend(self, connection: Connection) -> None:
        """Greet the client once its socket leads somewhere, then keep its heart beating."""
        if self.settings.connect_delay_s > 0:
            await asyncio.sleep(self.settings.connect_delay_s)
        if await self.core.faults.sockets.before_greeting(connection):
            self.core.hub.greet(connection)
        while True:
            await asyncio.sleep(self.settings.heartbeat_s)
            self.edge.look_idle(asked=False)
            self.core.hub.heartbeat(connection)


async def _unknown(core: Core, call: Call) -> object:
    raise errors.not_found()


def _bind(host: str, port: int, *, listen: bool) -> socket.socket:
    """A socket with the address; one that does not listen refuses connections and keeps others off the port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        if os.name == "posix":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        if listen:
            listener.listen(128)
        listener.setblocking(False)
    except OSError as problem:
        listener.close()
        if problem.errno == errno.EADDRINUSE:
            raise PortInUseError(
                f"Port {port} of {host} is in use.",
                remedy="Stop the program that listens there, or choose another port; 0 takes a free one.",
            ) from None
        raise UnreachableError(
            f"The emulator cannot listen on {host}:{port}: {problem.strerror or problem}.",
            remedy="Choose an address of this machine, such as 127.0.0.1.",
        ) from None
    return listener
