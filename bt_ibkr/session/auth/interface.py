"""What the session knows of a way to log on, and what all ways share."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, Protocol
from urllib.parse import quote, urlsplit

import aiohttp

from bt_ibkr.clock import NS_PER_S, Clock
from bt_ibkr.config import SessionSettings
from bt_ibkr.errors import WireError
from bt_ibkr.session.classes import RequestClass
from bt_ibkr.session.pacing import PacingGate
from bt_ibkr.session.transfer import Reply, ssl_context, transfer

#: Statuses by which a server refuses a credential that was good before.
REFUSED: Final = frozenset({401, 410})
#: What the value of a cookie may consist of (RFC 6265, 4.1.1).
_COOKIE_VALUE: Final = re.compile(r"[!#-+\--:<-\[\]-~]*")
#: Kinds that can obtain another credential without a person.
RENEWABLE: Final = frozenset({"oauth1a", "oauth2", "token"})


class Authenticator(Protocol):
    """One way to log on. Lives in the session's loop.

    Attributes:
        kind: ``gateway``, ``oauth1a``, ``oauth2``, ``token`` or ``none``.
        opens_brokerage_session: ``ssodh/init`` must be called after the log-on; the gateway does it by itself.
        remedy: What a person can do where nobody is logged on.
    """

    @property
    def kind(self) -> str: ...

    @property
    def opens_brokerage_session(self) -> bool: ...

    @property
    def remedy(self) -> str: ...

    @property
    def expires_ns(self) -> int | None:
        """End of the present credential by the wall clock; ``None`` if there is none or it does not tell."""
        ...

    async def log_on(self, client: aiohttp.ClientSession) -> None:
        """Obtain the credential; nothing happens while there is a valid one.

        Raises:
            AuthenticationError: Refused, or nobody logged in.
            UnreachableError: Nobody answers.
            UsageError: A key or token is not where the settings say.
        """
        ...

    async def renew(self, client: aiohttp.ClientSession) -> bool:
        """Obtain a new credential if the present one ends soon; whether one was obtained. Raises as ``log_on``,
        and the present one stays in use then."""
        ...

    def forget(self) -> None:
        """The server refused the credential: the next ``log_on`` obtains another. Until then requests go out with
        the old one."""
        ...

    def headers(self, method: str, url: str, params: Mapping[str, str]) -> dict[str, str]:
        """Headers that authenticate one request.

        Args:
            url: Without the query.
            params: The query's parameters, not encoded.

        Raises:
            AuthenticationError: There is no credential yet.
        """
        ...

    def websocket(self, url: str, session_id: str) -> tuple[str, dict[str, str]]:
        """Address with its query, and headers, of the WebSocket; raises as ``headers``.

        Args:
            session_id: What ``/tickle`` told.
        """
        ...


class Exchange:
    """Asks the server for credentials: the requests an authenticator makes by itself.

    Args:
        settings: Where and how.
        gate: They count like any other request of the user.
        clock: Wall clock: signatures and tokens carry the time of day, whatever time the market has.
    """

    def __init__(self, settings: SessionSettings, gate: PacingGate, clock: Clock) -> None:
        self.base_url = settings.base_url.rstrip("/")
        parts = urlsplit(self.base_url)
        #: Scheme and host alone: tokens are issued beside the REST base, not below it.
        self.root = f"{parts.scheme}://{parts.netloc}"
        self.clock = clock
        self._gate = gate
        self._tls = ssl_context(settings.trust, settings.base_url)
        self._timeout = aiohttp.ClientTimeout(
            total=settings.request_timeout_s, connect=settings.connect_timeout_s
        )

    def now_s(self) -> int:
        """Wall seconds since the epoch."""
        return self.clock.now_ns() // NS_PER_S

    def ends_within(self, expires_ns: int | None, seconds: float) -> bool:
        """Whether ``expires_ns`` is less than ``seconds`` away."""
        return expires_ns is not None and expires_ns - self.clock.now_ns() <= seconds * NS_PER_S

    async def ask(
        self,
        client: aiohttp.ClientSession,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        data: bytes | None = None,
    ) -> Reply:
        """One request; raises as ``transfer``, and PacingPenaltyError on HTTP 429 or after an earlier one."""
        async with self._gate.turn(method, url.removeprefix(self.base_url), RequestClass.UPKEEP):
            reply = await transfer(
                client,
                method,
                url,
                at=self.root,
                timeout=self._timeout,
                tls=self._tls,
                data=data,
                headers=headers,
            )
        if reply.status == 429:
            raise self._gate.refused(f"{method} {url}")
        return reply


class SingleFlight:
    """Runs an action once for all who want it at the same time.

    Args:
        action: What to run.
        name: Of the task.
    """

    def __init__(self, action: Callable[[], Awaitable[None]], name: str) -> None:
        self._action = action
        self._name = name
        self._task: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Wait for the run that is under way, or for a new one; raises what it raises. A caller that is
        cancelled leaves the run to the others."""
        if self._task is None:
            self._task = asyncio.create_task(self._perform(), name=self._name)
            self._task.add_done_callback(self._ended)
        await asyncio.shield(self._task)

    async def _perform(self) -> None:
        await self._action()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._task = None
        if not task.cancelled():
            # Whoever waits sees it; that nobody waits any more is no fault.
            task.exception()

    async def close(self) -> None:
        """End a run that is under way."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})


class Reauthentication:
    """Obtains a new credential where the present one was refused, once for all callers.

    A caller notes ``generation`` before its request. If that is refused, and others were refused too, the first
    of them has the credential replaced; the rest wait for it, also those that learn of their refusal later.

    Args:
        authenticator: Whose credential.
        client: For its requests.
    """

    def __init__(self, authenticator: Authenticator, client: aiohttp.ClientSession) -> None:
        self._authenticator = authenticator
        self._client = client
        self._flight = SingleFlight(self._replace, "reauthenticate")
        #: Counts the credentials obtained here.
        self.generation = 0

    async def again(self, used: int | None = None) -> None:
        """Replace the credential of generation ``used`` (``None``: the present one); raises as ``log_on``."""
        if used is not None and used != self.generation:
            return
        await self._flight.run()

    async def _replace(self) -> None:
        self._authenticator.forget()
        await self._authenticator.log_on(self._client)
        self.generation += 1

    async def close(self) -> None:
        await self._flight.close()


def api_cookie(session_id: str) -> dict[str, str]:
    """The cookie by which a WebSocket belongs to a session.

    Raises:
        WireError: The id is none that a cookie can hold.
    """
    if not _COOKIE_VALUE.fullmatch(session_id):
        raise WireError("/tickle told a session id that no cookie can hold.")
    return {"Cookie": f"api={session_id}"} if session_id else {}


def with_query(url: str, name: str, value: str) -> str:
    """``url`` with one query parameter more."""
    return f"{url}{'&' if '?' in url else '?'}{name}={quote(value, safe='')}"
