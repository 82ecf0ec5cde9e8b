"""Bearer tokens: those of OAuth 2.0, which are asked for, and those that something else keeps in a file."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping

import aiohttp
import msgspec

from bt_ibkr.clock import NS_PER_S
from bt_ibkr.errors import AuthenticationError
from bt_ibkr.login import TokenLogin
from bt_ibkr.session.auth.interface import Exchange, api_cookie, with_query
from bt_ibkr.session.secrets import Secret, read_secret


class Bearer(msgspec.Struct, frozen=True):
    """A token and its end by the wall clock, if it is known."""

    token: Secret
    expires_ns: int | None

    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token.reveal()}"}

    def websocket(self, url: str, parameter: str, session_id: str) -> tuple[str, dict[str, str]]:
        """Token in the query, as browsers must send it, and in the header too."""
        return with_query(url, parameter, self.token.reveal()), self.headers() | api_cookie(session_id)


class _Claims(msgspec.Struct):
    exp: float | None = None


def expiry_of(token: str) -> int | None:
    """The ``exp`` of a JWT, ns, not verified: who must trust it is the server. ``None`` for other tokens."""
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        body = base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4))
        claims = msgspec.json.decode(body, type=_Claims)
    except (binascii.Error, ValueError, msgspec.DecodeError):
        return None
    return None if claims.exp is None else int(claims.exp * NS_PER_S)


class TokenAuthenticator:
    """Sends a token that the user supplies.

    Args:
        login: Its place.
        exchange: For the clock.
    """

    kind = "token"
    opens_brokerage_session = True
    remedy = "Store a fresh token where the settings say."

    def __init__(self, login: TokenLogin, exchange: Exchange) -> None:
        self._login = login
        self._exchange = exchange
        self._bearer: Bearer | None = None
        self._refused: Secret | None = None

    def __repr__(self) -> str:
        return "TokenAuthenticator()"

    @property
    def expires_ns(self) -> int | None:
        return None if self._bearer is None else self._bearer.expires_ns

    async def log_on(self, client: aiohttp.ClientSession) -> None:
        """Read the token, unless the present one holds.

        Raises:
            UsageError: It is not there, or others can read it.
            AuthenticationError: It is over, or it is the one that was refused.
        """
        if (
            self._bearer is not None
            and self._refused is None
            and not self._exchange.ends_within(self.expires_ns, 0)
        ):
            return
        bearer = self._read()
        if bearer.token == self._refused:
            raise AuthenticationError(
                "The token was refused, and no other was stored since.", remedy=self.remedy
            )
        if self._exchange.ends_within(bearer.expires_ns, 0):
            raise AuthenticationError("The token is over.", remedy=self.remedy)
        self._bearer, self._refused = bearer, None

    async def renew(self, client: aiohttp.ClientSession) -> bool:
        if self._bearer is None:
            await self.log_on(client)
            return True
        if not self._exchange.ends_within(self.expires_ns, self._login.renew_before_s):
            return False
        bearer = self._read()
        if bearer.token == self._bearer.token:
            return False
        self._bearer, self._refused = bearer, None
        return True

    def _read(self) -> Bearer:
        token = read_secret(self._login.token, "The token")
        return Bearer(token, expiry_of(token.reveal()))

    def forget(self) -> None:
        if self._bearer is not None:
            self._refused = self._bearer.token

    def _present(self) -> Bearer:
        if self._bearer is None:
            raise AuthenticationError("There is no token yet.", remedy="Log on first.")
        return self._bearer

    def headers(self, method: str, url: str, params: Mapping[str, str]) -> dict[str, str]:
        return self._present().headers()

    def websocket(self, url: str, session_id: str) -> tuple[str, dict[str, str]]:
        return self._present().websocket(url, self._login.websocket_parameter, session_id)
