"""REST calls: pacing, time-outs, and the one place where aiohttp's errors become ours."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Any

import aiohttp
import msgspec

from bt_ibkr.config import SessionSettings, Trust
from bt_ibkr.errors import (
    PacingPenaltyError,
    RequestTimeoutError,
    ResponseError,
    TrustError,
    UnreachableError,
    UsageError,
    WireError,
)
from bt_ibkr.session.pacing import PacingGate
from bt_ibkr.wire import json as wire_json

#: Longest body that is read, bytes; the scanner parameters, the largest answer known, are 200 kB.
MAX_BODY = 64_000_000


class Reply(msgspec.Struct, frozen=True):
    """An answer: HTTP status and the body as it came."""

    status: int
    body: bytes

    @property
    def text(self) -> str:
        """The beginning of the body, for messages."""
        return self.body[:500].decode("utf-8", "replace")


def ssl_context(trust: Trust, url: str) -> ssl.SSLContext | bool:
    """The TLS judgement for ``url``: a context, or ``True`` for aiohttp's default.

    Raises:
        UsageError: The CA file holds no certificate.
    """
    if not url.lower().startswith(("https", "wss")):
        return True
    if trust.insecure:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context
    if trust.ca_file:
        try:
            context = ssl.create_default_context(cafile=trust.ca_file)
        except (ssl.SSLError, OSError) as problem:
            raise UsageError(
                f"The CA file {trust.ca_file!r} cannot be used: {problem}.",
                remedy="It must hold at least one certificate in PEM form.",
            ) from None
        # The gateway's certificate names no host that a user would type; the file says whom to trust.
        context.check_hostname = False
        return context
    return True


def trust_error(url: str, problem: object) -> TrustError:
    return TrustError(
        f"The certificate of {url} is not trusted ({problem}).",
        remedy="Name the gateway's certificate with --ca-file FILE, or, for a gateway that you run on this "
        "machine, say --insecure.",
    )


class HttpClient:
    """Calls of one IBKR session.

    Args:
        client: The aiohttp session, passed in; its cookies carry the login.
        settings: Where and how.
        gate: Shared by all callers of the username.
    """

    def __init__(self, client: aiohttp.ClientSession, settings: SessionSettings, gate: PacingGate) -> None:
        self._client = client
        self._base = settings.base_url.rstrip("/")
        self._timeout = aiohttp.ClientTimeout(
            total=settings.request_timeout_s, connect=settings.connect_timeout_s
        )
        self._ssl = ssl_context(settings.trust, settings.base_url)
        self._gate = gate

    @property
    def ssl(self) -> ssl.SSLContext | bool:
        return self._ssl

    async def send(
        self, method: str, path: str, *, params: Mapping[str, str] | None = None, body: object | None = None
    ) -> Reply:
        """One request, never repeated here.

        Args:
            method: HTTP method.
            path: Below the REST base, beginning with a slash.
            params: Query parameters.
            body: JSON body; every POST has one, ``{}`` if there is nothing to say (else HTTP 411).

        Raises:
            UnreachableError: Nobody answers there: the request was not received.
            TrustError: The certificate is not trusted: the request was not sent.
            RequestTimeoutError: The request may have been received, the answer was not.
            PacingPenaltyError: HTTP 429.
        """
        data = msgspec.json.encode({} if body is None else body) if method == "POST" else None
        headers = {"Content-Type": "application/json"} if data is not None else None
        what = f"{method} {self._base}{path}"
        async with self._gate.turn(method, path):
            try:
                async with self._client.request(
                    method,
                    self._base + path,
                    params=params,
                    data=data,
                    headers=headers,
                    timeout=self._timeout,
                    ssl=self._ssl,
                    allow_redirects=False,
                ) as response:
                    answer = await response.content.read(MAX_BODY)
                    while not response.content.at_eof() and len(answer) < MAX_BODY:
                        answer += await response.content.read(MAX_BODY - len(answer))
                    reply = Reply(response.status, answer)
            except aiohttp.ClientConnectorCertificateError as problem:
                raise trust_error(self._base, problem.certificate_error) from None
            except aiohttp.ClientConnectorSSLError as problem:
                raise UnreachableError(
                    f"{self._base} answers, but TLS cannot be agreed on ({problem.os_error}).",
                    remedy="If the server speaks plain http, write http:// in its address.",
                ) from None
            except aiohttp.ClientConnectorError as problem:
                raise UnreachableError(
                    f"Nobody answers at {self._base} ({problem.os_error.strerror or problem.os_error}).",
                    remedy="Start the gateway (or the emulator), or name the right address with --gateway URL.",
                ) from None
            except (TimeoutError, aiohttp.ConnectionTimeoutError):
                raise RequestTimeoutError(f"{what} was not answered in time.") from None
            except (aiohttp.ClientError, OSError) as problem:
                raise RequestTimeoutError(
                    f"{what}: the connection broke before the answer ({problem})."
                ) from None
        if reply.status == 429:
            raise PacingPenaltyError(
                f"{what} was refused with HTTP 429: too many requests.",
                remedy="IBKR lifts the penalty after 10 to 15 minutes without requests.",
            )
        return reply

    async def get(self, path: str, params: Mapping[str, str] | None = None) -> Any:
        """The decoded body of a GET that must succeed.

        Raises:
            ResponseError: Any other status than 200, or a body that IBKR uses for errors.
            WireError: The body is not JSON.
        """
        return self.checked(f"GET {path}", await self.send("GET", path, params=params))

    async def post(self, path: str, body: object | None = None) -> Any:
        """The decoded body of a POST that must succeed; raises as ``get``."""
        return self.checked(f"POST {path}", await self.send("POST", path, body=body))

    @staticmethod
    def checked(what: str, reply: Reply) -> Any:
        """The decoded body, or the error that status and body tell of."""
        if reply.status != 200:
            try:
                text = wire_json.error_text(wire_json.decode(reply.body)) or reply.text
            except WireError:
                text = reply.text
            raise ResponseError(
                f"{what} was answered with HTTP {reply.status}: {text}", status=reply.status, body=text
            )
        body = wire_json.decode(reply.body)
        problem = wire_json.error_text(body) if isinstance(body, dict) else None
        if problem:
            raise ResponseError(f"{what} was answered with an error: {problem}", status=200, body=problem)
        return body
