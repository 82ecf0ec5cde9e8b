"""OAuth 2.0 with ``private_key_jwt`` (RFC 7521, 7523): an access token, then an SSO session (wire facts 2.2)."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlencode, urlsplit

import aiohttp
import jwt
import msgspec
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from bt_ibkr.clock import NS_PER_S
from bt_ibkr.errors import AuthenticationError, UnreachableError, UsageError
from bt_ibkr.login import OAuth2Login
from bt_ibkr.session.auth.answers import decoded
from bt_ibkr.session.auth.bearer import Bearer
from bt_ibkr.session.auth.interface import Exchange
from bt_ibkr.session.secrets import PrivateKey, Secret, read_private_key
from bt_ibkr.wire import json as wire_json

_log = logging.getLogger(__name__)

ASSERTION_TYPE: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
#: The assertion is good for this long, and issued this long ago, so that clocks may differ a little.
_ASSERTION_S: Final = 20
_BACKDATED_S: Final = 10
#: What is asked for the SSO session.
_SESSION_S: Final = 86_400
#: IBKR wants RSA keys of this many bits.
_RSA_BITS: Final = 3072
#: ``/sso/validate`` may be called once a minute.
_VALIDATE_EVERY_S: Final = 60


class _TokenAnswer(msgspec.Struct):
    access_token: str
    expires_in: float = float(_SESSION_S)


class _SessionAnswer(msgspec.Struct):
    access_token: str
    expires_in: float | None = None


class OAuth2Authenticator:
    """Obtains bearer tokens with a private key.

    Args:
        login: Client, user, and the place of the key, which is read at the first log-on.
        exchange: Asks the server.
    """

    kind = "oauth2"
    opens_brokerage_session = True
    remedy = "Look at the client id, the key id and the public key that are registered with IBKR, and at this clock."

    def __init__(self, login: OAuth2Login, exchange: Exchange) -> None:
        self._login = login
        self._exchange = exchange
        institutional = login.variant == "institutional"
        path = "/oauth/token" if institutional else "/oauth2/api/v1/token"
        self._token_url = login.token_url or exchange.root + path
        self._sso_url = login.sso_url or f"{exchange.root}/gw/api/v1/sso-sessions"
        self._audience = login.audience or (self._token_url if institutional else "/token")
        self._key: PrivateKey | None = None
        self._session: Bearer | None = None
        self._refused = False
        self._validated_s = 0

    def __repr__(self) -> str:
        return f"OAuth2Authenticator(client_id={self._login.client_id!r}, variant={self._login.variant!r})"

    @property
    def expires_ns(self) -> int | None:
        return None if self._session is None else self._session.expires_ns

    async def log_on(self, client: aiohttp.ClientSession) -> None:
        """Open an SSO session unless there is one that holds; raises as the interface says."""
        if self._session is None or self._refused or self._exchange.ends_within(self.expires_ns, 0):
            await self._open(client)

    async def renew(self, client: aiohttp.ClientSession) -> bool:
        if self._session is None or self._exchange.ends_within(self.expires_ns, self._login.renew_before_s):
            await self._open(client)
            return True
        return False

    def forget(self) -> None:
        self._refused = True

    async def _open(self, client: aiohttp.ClientSession) -> None:
        if self._key is None or self._refused:
            self._key = read_client_key(self._login)
        access = await self._access_token(client)
        session = await self._sso_session(client, access)
        await self._validate(client, session)
        self._session, self._refused = session, False
        _log.info("oauth2-session client=%s variant=%s", self._login.client_id, self._login.variant)

    def _signed(self, claims: Mapping[str, object]) -> Secret:
        assert self._key is not None
        login = self._login
        return Secret(
            jwt.encode(dict(claims), self._key, algorithm=login.algorithm, headers={"kid": login.key_id})
        )

    async def _access_token(self, client: aiohttp.ClientSession) -> Bearer:
        now = self._exchange.now_s()
        client_id = self._login.client_id
        claims = {
            "iss": client_id,
            "sub": client_id,
            "aud": self._audience,
            "exp": now + _ASSERTION_S,
            "iat": now - _BACKDATED_S,
        }
        fields = {
            "client_assertion_type": ASSERTION_TYPE,
            "client_assertion": self._signed(claims).reveal(),
            "grant_type": "client_credentials",
            "scope": self._login.scope,
        }
        if self._login.variant == "institutional":
            data, kind = msgspec.json.encode(fields), "application/json"
        else:
            data, kind = urlencode(fields).encode(), "application/x-www-form-urlencoded"
        reply = await self._exchange.ask(
            client, "POST", self._token_url, headers={"Content-Type": kind}, data=data
        )
        answer = decoded(reply, _TokenAnswer, "The access token", self.remedy)
        return Bearer(Secret(answer.access_token), _end(now, answer.expires_in))

    async def _sso_session(self, client: aiohttp.ClientSession, access: Bearer) -> Bearer:
        now = self._exchange.now_s()
        claims = {
            "ip": self._login.ip or await asyncio.to_thread(_own_address, self._sso_url),
            "credential": self._login.credential,
            "iss": self._login.client_id,
            "exp": now + _SESSION_S,
            "iat": now,
        }
        reply = await self._exchange.ask(
            client,
            "POST",
            self._sso_url,
            headers=access.headers() | {"Content-Type": "application/jwt"},
            data=self._signed(claims).reveal().encode(),
        )
        answer = decoded(reply, _SessionAnswer, "The SSO session", self.remedy)
        # The recorded answer does not tell its end; the access token's is then the earlier of two known ones.
        told = access.expires_ns if answer.expires_in is None else _end(now, answer.expires_in)
        return Bearer(Secret(answer.access_token), told)

    async def _validate(self, client: aiohttp.ClientSession, session: Bearer) -> None:
        """The step before the brokerage session is opened; left out where it would come too often."""
        now = self._exchange.now_s()
        if now - self._validated_s < _VALIDATE_EVERY_S:
            return
        self._validated_s = now
        reply = await self._exchange.ask(
            client, "GET", f"{self._exchange.base_url}/sso/validate", headers=session.headers()
        )
        body = wire_json.decode(reply.body) if reply.status == 200 else None
        if not isinstance(body, dict) or body.get("RESULT") is False:
            raise AuthenticationError(
                f"The new SSO session is not valid (HTTP {reply.status}).", remedy=self.remedy
            )

    def _present(self) -> Bearer:
        if self._session is None:
            raise AuthenticationError("There is no SSO session yet.", remedy="Log on first.")
        return self._session

    def headers(self, method: str, url: str, params: Mapping[str, str]) -> dict[str, str]:
        return self._present().headers()

    def websocket(self, url: str, session_id: str) -> tuple[str, dict[str, str]]:
        return self._present().websocket(url, self._login.websocket_parameter, session_id)


def _end(now_s: int, lasts_s: float) -> int:
    return now_s * NS_PER_S + int(lasts_s * NS_PER_S)


def read_client_key(login: OAuth2Login) -> PrivateKey:
    """The key that the settings name.

    Raises:
        UsageError: It is not there, or does not fit the algorithm.
    """
    return _checked(read_private_key(login.private_key, "The private key"), login)


def _checked(key: PrivateKey, login: OAuth2Login) -> PrivateKey:
    """The key, if it fits the algorithm."""
    if login.algorithm == "ES256":
        if not isinstance(key, EllipticCurvePrivateKey) or not isinstance(key.curve, SECP256R1):
            raise UsageError(
                f"ES256 needs a P-256 key; {login.private_key!r} holds another.",
                remedy="Make one: openssl ecparam -name prime256v1 -genkey -noout -out private.pem",
            )
    elif not isinstance(key, RSAPrivateKey):
        raise UsageError(
            f"{login.algorithm} needs an RSA key; {login.private_key!r} holds another.",
            remedy=f"Make one: openssl genrsa -out private.pem {_RSA_BITS}; or set the algorithm to ES256.",
        )
    elif key.key_size < _RSA_BITS:
        raise UsageError(
            f"The RSA key in {login.private_key!r} has {key.key_size} bits; IBKR wants {_RSA_BITS} or more.",
            remedy=f"Make one: openssl genrsa -out private.pem {_RSA_BITS}",
        )
    return key


def _own_address(url: str) -> str:
    """The address of this machine that packets to ``url`` leave from.

    Raises:
        UsageError: It is a private one, which the server will not see.
        UnreachableError: There is no way there.
    """
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        family, kind, _, _, address = socket.getaddrinfo(parts.hostname, port, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind) as probe:
            # Chooses a route; a datagram socket sends nothing by being connected.
            probe.connect(address)
            own = str(probe.getsockname()[0])
            there = str(address[0])
    except OSError as problem:
        raise UnreachableError(
            f"There is no way to {parts.hostname} ({problem.strerror}).",
            remedy="Look at this machine's network and name service.",
        ) from None
    if not ipaddress.ip_address(own).is_global and not ipaddress.ip_address(there).is_loopback:
        raise UsageError(
            f"OAuth2Login: this machine's own address {own} is not the public one that IBKR sees.",
            remedy="Give the public address as `ip`.",
        )
    return own
