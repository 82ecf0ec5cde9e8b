"""REST calls: pacing, authentication, and what an answer means."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import aiohttp
import msgspec

from bt_ibkr.config import SessionSettings
from bt_ibkr.errors import AuthenticationError, BtIbkrError, ResponseError, WireError
from bt_ibkr.redaction import redact
from bt_ibkr.session.auth.build import build_authenticator
from bt_ibkr.session.auth.interface import REFUSED, Authenticator, Reauthentication
from bt_ibkr.session.classes import RequestClass, class_of
from bt_ibkr.session.pacing import PacingGate
from bt_ibkr.session.transfer import Reply, ssl_context, transfer, trust_error
from bt_ibkr.wire import json as wire_json

_log = logging.getLogger(__name__)

__all__ = ["HttpClient", "Reply", "ssl_context", "trust_error"]


class HttpClient:
    """Calls of one IBKR session.

    Args:
        client: The aiohttp session, passed in; its cookies carry the login.
        settings: Where and how.
        gate: Shared by all callers of the username.
        authenticator: Adds what authenticates each request; ``None`` for the one that the settings name.
    """

    def __init__(
        self,
        client: aiohttp.ClientSession,
        settings: SessionSettings,
        gate: PacingGate,
        authenticator: Authenticator | None = None,
    ) -> None:
        self._client = client
        self.authenticator = authenticator or build_authenticator(settings, gate)
        self._reauthentication = Reauthentication(self.authenticator, client)
        self._base = settings.base_url.rstrip("/")
        self._timeout = aiohttp.ClientTimeout(
            total=settings.request_timeout_s, connect=settings.connect_timeout_s
        )
        self._ssl = ssl_context(settings.trust, settings.base_url)
        self._gate = gate
        #: Given an answer that is no success and the generation of its credential: does what the answer asks
        #: for first (a log-on, say) and tells whether the request may be made again, which only a GET is.
        self.repair: Callable[[Reply, int], Awaitable[bool]] | None = None
        #: Told of the `Date` of each answer.
        self.on_date: Callable[[str], None] | None = None
        #: What refused requests other than GETs have asked for, under way.
        self._mends: set[asyncio.Task[None]] = set()

    @property
    def ssl(self) -> ssl.SSLContext | bool:
        return self._ssl

    @property
    def generation(self) -> int:
        """Counts the credentials that ``reauthenticate`` obtained."""
        return self._reauthentication.generation

    async def log_on(self) -> None:
        """Obtain the credential, unless there is a valid one; raises as ``Authenticator.log_on``."""
        await self.authenticator.log_on(self._client)

    async def renew(self) -> bool:
        """Replace a credential that ends soon; whether it was. Raises as ``Authenticator.log_on``."""
        return await self.authenticator.renew(self._client)

    async def reauthenticate(self, used: int | None = None) -> None:
        """Replace a credential that the server refused. One replacement serves all who ask meanwhile.

        Args:
            used: ``generation`` before the refused request: nothing is done if the credential was replaced
                since.

        Raises:
            AuthenticationError: Refused again.
        """
        await self._reauthentication.again(used)

    async def close(self) -> None:
        """End a replacement that is under way; the aiohttp session is its owner's."""
        for mend in self._mends:
            mend.cancel()
        if self._mends:
            await asyncio.wait(self._mends)
        await self._reauthentication.close()

    async def send(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: object | None = None,
        klass: RequestClass | None = None,
    ) -> Reply:
        """One request, never repeated here.

        If it is an order, or another that is no GET, and is refused for want of a log-on, that is seen to at
        once, and whoever comes next waits for it: the next tickle may be a minute away.

        Args:
            method: HTTP method.
            path: Below the REST base, beginning with a slash.
            params: Query parameters.
            body: JSON body; every POST has one, ``{}`` if there is nothing to say (else HTTP 411).
            klass: How urgent it is; by default what ``session.classes`` says of its path.

        Raises:
            UnreachableError: Nobody answers there: the request was not received.
            TrustError: The certificate is not trusted: the request was not sent.
            RequestTimeoutError: The request may have been received, the answer was not.
            PacingPenaltyError: HTTP 429, or not sent because of an earlier one.
            AuthenticationError: Nobody has logged on yet; or an order, or another that is no GET, was refused with
                HTTP 401 or 410, whatever the body: nothing was done.
        """
        data = msgspec.json.encode({} if body is None else body) if method == "POST" else None
        url = self._base + path
        mends = method != "GET" and (klass or class_of(method, path)) is not RequestClass.UPKEEP
        if mends and self._mends:
            await asyncio.wait(self._mends, timeout=self._timeout.total)
        used = self.generation
        async with self._gate.turn(method, path, klass):
            # Signed only now: a signature carries the time, and waiting for one's turn takes some.
            headers = self.authenticator.headers(method, url, params or {})
            if data is not None:
                headers["Content-Type"] = "application/json"
            reply = await transfer(
                self._client,
                method,
                url,
                at=self._base,
                timeout=self._timeout,
                tls=self._ssl,
                params=params,
                data=data,
                headers=headers,
            )
        if self.on_date is not None and reply.date:
            self.on_date(reply.date)
        if reply.status == 429:
            raise self._gate.refused(f"{method} {url}")
        if mends and reply.status != 200 and self.repair is not None:
            mend = asyncio.create_task(self._mend(self.repair, reply, used), name="repair-after-refusal")
            self._mends.add(mend)
            mend.add_done_callback(self._mends.discard)
        if mends and reply.status in REFUSED:
            raise AuthenticationError(
                f"{method} {path} was refused with HTTP {reply.status}, and nothing was done: {reply.text}",
                remedy=f"The session logs on again by itself. If that fails: {self.authenticator.remedy}",
            )
        return reply

    @staticmethod
    async def _mend(repair: Callable[[Reply, int], Awaitable[bool]], reply: Reply, used: int) -> None:
        try:
            await repair(reply, used)
        except BtIbkrError as problem:
            # The supervisor goes on trying, and tells.
            _log.warning("session-repair-failed problem=%s", problem)

    async def get(self, path: str, params: Mapping[str, str] | None = None) -> Any:
        """The decoded body of a GET that must succeed.

        Raises:
            ResponseError: Any other status than 200, or a body that IBKR uses for errors.
            WireError: The body is not JSON.
        """
        used = self.generation
        reply = await self.send("GET", path, params=params)
        if reply.status != 200 and self.repair is not None and await self.repair(reply, used):
            # Reading twice does no harm.
            reply = await self.send("GET", path, params=params)
        return self.checked(f"GET {path}", reply)

    async def post(self, path: str, body: object | None = None) -> Any:
        """The decoded body of a POST that must succeed; raises as ``get``."""
        return self.checked(f"POST {path}", await self.send("POST", path, body=body))

    @staticmethod
    def checked(what: str, reply: Reply) -> Any:
        """The decoded body, or the error that status and body tell of."""
        if reply.status != 200:
            try:
                text = redact(wire_json.error_text(wire_json.decode(reply.body)) or reply.text)
            except WireError:
                text = reply.text
            told = "an HTML page" if text.lstrip()[:1] == "<" else text
            raise ResponseError(
                f"{what} was answered with HTTP {reply.status}: {told}", status=reply.status, body=text
            )
        body = wire_json.decode(reply.body)
        problem = wire_json.error_text(body) if isinstance(body, dict) else None
        if problem:
            raise ResponseError(f"{what} was answered with an error: {problem}", status=200, body=problem)
        return body
