"""One request over aiohttp, and the one place where its errors become ours."""

from __future__ import annotations

import ssl
from collections.abc import Mapping

import aiohttp
import msgspec

from bt_ibkr.config import Trust
from bt_ibkr.errors import RequestTimeoutError, TrustError, UnreachableError, UsageError
from bt_ibkr.redaction import redact

#: Longest body that is read, bytes; the scanner parameters, the largest answer known, are 200 kB.
MAX_BODY = 64_000_000


class Reply(msgspec.Struct, frozen=True):
    """An answer: HTTP status and the body as it came, and its ``Date``."""

    status: int
    body: bytes
    date: str = ""

    @property
    def text(self) -> str:
        """The beginning of the body, for messages; without what may be a credential."""
        return redact(self.body[:500].decode("utf-8", "replace"))


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


async def transfer(
    client: aiohttp.ClientSession,
    method: str,
    url: str,
    *,
    at: str,
    timeout: aiohttp.ClientTimeout,
    tls: ssl.SSLContext | bool,
    params: Mapping[str, str] | None = None,
    data: bytes | None = None,
    headers: Mapping[str, str] | None = None,
) -> Reply:
    """Ask once.

    Args:
        at: The server, for messages.

    Raises:
        UnreachableError: Nobody answers there: the request was not received.
        TrustError: The certificate is not trusted: the request was not sent.
        RequestTimeoutError: The request may have been received, the answer was not.
    """
    what = f"{method} {url}"
    try:
        async with client.request(
            method,
            url,
            params=params,
            data=data,
            headers=headers,
            timeout=timeout,
            ssl=tls,
            allow_redirects=False,
        ) as response:
            answer = await response.content.read(MAX_BODY)
            while not response.content.at_eof() and len(answer) < MAX_BODY:
                answer += await response.content.read(MAX_BODY - len(answer))
            return Reply(response.status, answer, response.headers.get("Date", ""))
    except aiohttp.ClientConnectorCertificateError as problem:
        raise trust_error(at, problem.certificate_error) from None
    except aiohttp.ClientConnectorSSLError as problem:
        raise UnreachableError(
            f"{at} answers, but TLS cannot be agreed on ({problem.os_error}).",
            remedy="If the server speaks plain http, write http:// in its address.",
        ) from None
    except aiohttp.ClientConnectorError as problem:
        raise UnreachableError(
            f"Nobody answers at {at} ({problem.os_error.strerror or problem.os_error}).",
            remedy="Start the gateway (or the emulator), or name the right address with --gateway URL.",
        ) from None
    except RuntimeError:
        if not client.closed:
            raise
        # aiohttp's word for it; a request that was under way breaks with one of the errors below.
        raise UnreachableError(
            f"{what} was not sent: the session is closed.", remedy="Open a new one."
        ) from None
    except (TimeoutError, aiohttp.ConnectionTimeoutError):
        raise RequestTimeoutError(f"{what} was not answered in time.") from None
    except (aiohttp.ClientError, OSError) as problem:
        raise RequestTimeoutError(
            f"{what}: the connection broke before the answer ({redact(str(problem))})."
        ) from None
