"""``/livez`` and ``/readyz`` for whoever watches the process: systemd, a container's platform, a load balancer.

Alive is a hub whose loop turns and whose heartbeats go out: to start it anew would help no other. Ready is one that
listens, whose session streams, and whose accounts are attached: only then do orders leave. Both answer JSON, 200 or
503, and tell nothing that needs protection.
"""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import msgspec
from aiohttp import web

from bt_ibkr.errors import PortInUseError, UsageError

#: How long a request under way is waited for at the end, seconds.
_LAST_S: Final = 1.0

Checks = Callable[[], Mapping[str, bool]]


def parse_health(address: str) -> tuple[str, int]:
    """Host and port of ``host:port``; port 0 is any free one.

    Raises:
        UsageError: It is none.
    """
    host, colon, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise UsageError(
            f"health = {address!r} is no address.", remedy='Write "host:port", as "127.0.0.1:8080".'
        )
    return host, int(port)


class HealthServer:
    """Both endpoints, on the loop that opens it.

    Args:
        address: See ``parse_health``.
        hub: The hub's id, told in the answers.
        alive, ready: What each endpoint looks at, by name; all of it must be true.

    Attributes:
        url: Where it answers, without a path.
    """

    def __init__(self, address: str, hub: str, alive: Checks, ready: Checks) -> None:
        self._address = address
        self._hub = hub
        app = web.Application()
        app.router.add_get("/livez", self._handler(alive))
        app.router.add_get("/readyz", self._handler(ready))
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=_LAST_S)
        self.url = ""

    def _handler(self, checks: Checks) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def answer(request: web.Request) -> web.Response:
            looked = dict(checks())
            fine = all(looked.values())
            return web.Response(
                body=msgspec.json.encode({"ok": fine, "hub": self._hub, "checks": looked}),
                status=200 if fine else 503,
                content_type="application/json",
                headers={"Cache-Control": "no-store"},
            )

        return answer

    async def open(self) -> None:
        """Listen.

        Raises:
            PortInUseError: Somebody does already, or the address is not this machine's.
        """
        host, port = parse_health(self._address)
        await self._runner.setup()
        try:
            # Not shared: of two hubs with one address the second must not start.
            await web.TCPSite(self._runner, host, port).start()
        except OSError as problem:
            await self._runner.cleanup()
            taken = problem.errno == errno.EADDRINUSE
            raise PortInUseError(
                f"The hub's health endpoints cannot listen at {self._address}: "
                + ("somebody does already." if taken else f"{problem.strerror or problem}."),
                remedy="Give them another address with health in [hub], or leave it out.",
            ) from None
        bound = self._runner.addresses[0]
        shown = f"[{bound[0]}]" if ":" in bound[0] else bound[0]
        self.url = f"http://{shown}:{bound[1]}"

    async def close(self) -> None:
        await self._runner.cleanup()
