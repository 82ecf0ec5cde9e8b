"""The server's edge as faults see it: every request passes here, and the port can be taken away."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from email.utils import formatdate
from typing import TYPE_CHECKING

from aiohttp import web

from bt_ibkr.clock import NS_PER_S
from bt_ibkr.emulator.faults.specs import Restart
from bt_ibkr.emulator.faults.wire import reset
from bt_ibkr.emulator.oracle import OrderRequest
from bt_ibkr.emulator.services.session.state import Tier

if TYPE_CHECKING:
    from bt_ibkr.emulator.services.core import Core

_LOGGER = logging.getLogger(__name__)
#: Under which a request carries its entry in the record of order requests.
ORDER_REQUEST = web.RequestKey("order_request", OrderRequest)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
#: Addresses kept before those of closed connections are sorted out.
_MARKS = 1000
_OPENING = ("/iserver/auth/ssodh/init", "/iserver/reauthenticate")


class Edge:
    """Records requests, lets faults happen to them, and takes the gateway down.

    Connections that have been used for control stay up while the gateway is down, so that control can be
    asked over them; requests of the API that come over them are reset.

    Args:
        core: Faults, pacing and session.
        prefix: Of the API's paths.
        listen: Begin to listen, with the ``same`` certificate, a ``new`` or an ``expired`` one.
        unlisten: Stop listening; connections are refused from then on.
        transports: Of all connections that are open.
    """

    def __init__(
        self,
        core: Core,
        *,
        prefix: str,
        listen: Callable[[str], Awaitable[None]],
        unlisten: Callable[[], Awaitable[None]],
        transports: Callable[[], list[asyncio.Transport]],
    ) -> None:
        self._core = core
        self._prefix = prefix
        self._listen = listen
        self._unlisten = unlisten
        self._transports = transports
        self._control: set[object] = set()
        self._task: asyncio.Task[None] | None = None
        self._last = time.monotonic()
        self.down = False

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """What every request passes, those of control too."""
        core = self._core
        if request.path.startswith("/control/"):
            self._mark(request)
            return await handler(request)
        if self.down:
            reset(request.transport)
            return web.Response()
        path = request.path.removeprefix(self._prefix).rstrip("/")
        entry = core.pacing.record(request.method, path)
        self.look_idle(asked=path != "/ws")
        if path in _OPENING:
            core.faults.session.tried()
        kind = core.oracle.kind_of(request.method, path)
        asked: OrderRequest | None = None
        if kind:
            request[ORDER_REQUEST] = asked = core.oracle.arrived(kind, path, await request.read())
        response = await core.faults.http.around(request, path, lambda: handler(request))
        entry.status = response.status
        if asked is not None and request.transport is not None and not request.transport.is_closing():
            asked.status = response.status
        skew_ns = core.faults.market.skew_ns
        if skew_ns and not response.prepared:
            response.headers["Date"] = formatdate(core.wall() + skew_ns / NS_PER_S, usegmt=True)
        return response

    def _mark(self, request: web.Request) -> None:
        """Remember by the client's address that control came this way."""
        if len(self._control) > _MARKS:
            self._control &= {_peer(transport) for transport in self._transports()}
        if request.transport is not None:
            self._control.add(_peer(request.transport))

    def look_idle(self, *, asked: bool) -> None:
        """End the brokerage session if nothing was asked for too long; WebSocket traffic does not count."""
        now, idle_s = time.monotonic(), self._core.settings.idle_s
        if idle_s and now - self._last > idle_s and self._core.session.ready:
            self._core.set_tier(Tier.NO_BRIDGE)
            self._core.faults.note("idle")
        if asked:
            self._last = now

    def restart(self, spec: Restart) -> None:
        """Down now, up again after ``down_s``; a restart that is under way goes on."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._cycle(spec), name="emulator-restart")
            self._task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._task = None
        if not task.cancelled() and task.exception() is not None:
            _LOGGER.error("task-died name=%s", task.get_name(), exc_info=task.exception())

    async def _cycle(self, spec: Restart) -> None:
        self.down = True
        await self._unlisten()
        for transport in self._transports():
            if _peer(transport) not in self._control:
                reset(transport)
        for connection in list(self._core.hub.connections):
            connection.reset()
        self._core.set_tier(Tier(spec.then))
        await asyncio.sleep(spec.down_s)
        await self._listen(spec.certificate)
        self.down = False

    def stop(self) -> asyncio.Task[None] | None:
        """End a restart that is under way; the task that ends then."""
        task = self._task
        if task is not None:
            task.cancel()
        return task


def _peer(transport: asyncio.Transport) -> object:
    return transport.get_extra_info("peername")
