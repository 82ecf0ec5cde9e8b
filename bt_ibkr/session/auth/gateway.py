"""The Client Portal Gateway: a person logs in with a browser, and cookies carry the login."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from enum import Enum

import aiohttp

from bt_ibkr.errors import AuthenticationError, RequestTimeoutError, UnreachableError, WireError
from bt_ibkr.login import GatewayLogin
from bt_ibkr.session.auth.interface import Exchange, api_cookie
from bt_ibkr.wire import session as wire_session

_log = logging.getLogger(__name__)


class GatewayState(Enum):
    """What a look at the gateway shows."""

    DOWN = "nobody answers, or not in time"
    LOGGED_OUT = "nobody is logged in"
    LOGGED_IN = "logged in, without a brokerage session"
    COMPETING = "another login holds the brokerage session"
    READY = "the brokerage session is open"


class GatewayAuthenticator:
    """Cookies only; can wait for the person.

    Args:
        login: Whether to wait.
        exchange: Asks the gateway.
    """

    kind = "gateway"
    #: It opens the brokerage session by itself after the browser login.
    opens_brokerage_session = False
    expires_ns: int | None = None

    def __init__(self, login: GatewayLogin, exchange: Exchange) -> None:
        self._login = login
        self._exchange = exchange
        self._page = exchange.base_url.removesuffix("/v1/api")

    @property
    def remedy(self) -> str:
        return f"Open {self._page} in a browser, log in, and try again."

    async def look(self, client: aiohttp.ClientSession) -> GatewayState:
        """The gateway's state now.

        Raises:
            TrustError: Its certificate is not trusted.
            PacingPenaltyError: HTTP 429.
        """
        try:
            reply = await self._exchange.ask(
                client,
                "POST",
                f"{self._exchange.base_url}/tickle",
                headers={"Content-Type": "application/json"},
                data=b"{}",
            )
        except (UnreachableError, RequestTimeoutError):
            return GatewayState.DOWN
        try:
            auth = wire_session.tickle(reply.body).auth if reply.status == 200 else None
        except WireError:
            auth = None
        if auth is None or not auth.connected:
            return GatewayState.LOGGED_OUT
        if auth.competing:
            return GatewayState.COMPETING
        return GatewayState.READY if auth.ready else GatewayState.LOGGED_IN

    async def log_on(self, client: aiohttp.ClientSession) -> None:
        """Wait for the login if the settings want that; ask nothing if not. Raises AuthenticationError or
        UnreachableError when the time is over."""
        if not self._login.wait_s:
            return
        state = GatewayState.DOWN
        told: GatewayState | None = None
        try:
            async with asyncio.timeout(self._login.wait_s):
                while True:
                    state = await self.look(client)
                    if state not in (GatewayState.DOWN, GatewayState.LOGGED_OUT):
                        return
                    if state is not told:
                        told = state
                        _log.warning("gateway-wanted state=%r open=%s", state.value, self._page)
                    await asyncio.sleep(self._login.poll_s)
        except TimeoutError:
            if state is GatewayState.DOWN:
                raise UnreachableError(
                    f"Nobody answered at {self._page} within {self._login.wait_s:g} s.",
                    remedy="Start the gateway, or name the right address with --gateway URL.",
                ) from None
            raise AuthenticationError(
                f"Nobody logged in at {self._page} within {self._login.wait_s:g} s.", remedy=self.remedy
            ) from None

    async def renew(self, client: aiohttp.ClientSession) -> bool:
        return False

    def forget(self) -> None:
        """Nothing is kept here: the cookies are the gateway's."""

    def headers(self, method: str, url: str, params: Mapping[str, str]) -> dict[str, str]:
        return {}

    def websocket(self, url: str, session_id: str) -> tuple[str, dict[str, str]]:
        return url, api_cookie(session_id)


class NoAuthenticator:
    """Adds nothing: a proxy in between authenticates."""

    kind = "none"
    opens_brokerage_session = True
    expires_ns: int | None = None
    remedy = "Look at the proxy that authenticates: it has no session with IBKR."

    async def log_on(self, client: aiohttp.ClientSession) -> None:
        """Nothing to obtain."""

    async def renew(self, client: aiohttp.ClientSession) -> bool:
        return False

    def forget(self) -> None:
        """Nothing to forget."""

    def headers(self, method: str, url: str, params: Mapping[str, str]) -> dict[str, str]:
        return {}

    def websocket(self, url: str, session_id: str) -> tuple[str, dict[str, str]]:
        return url, api_cookie(session_id)
