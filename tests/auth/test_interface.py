"""What all ways share: one replacement for all who wait, and the gateway that waits for a person."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

import aiohttp
import pytest

from bt_ibkr.config import SessionSettings
from bt_ibkr.emulator.services.oauth.settings import AuthenticationSettings
from bt_ibkr.emulator.services.session.state import Tier
from bt_ibkr.errors import AuthenticationError, UnreachableError, UsageError
from bt_ibkr.login import GatewayLogin, NoLogin, OAuth1Login, TokenLogin
from bt_ibkr.session.auth.gateway import GatewayAuthenticator, GatewayState
from bt_ibkr.session.auth.interface import Reauthentication, SingleFlight, with_query
from bt_ibkr.session.session import SessionState
from tests.auth.conftest import exchange

if TYPE_CHECKING:
    from tests.auth.conftest import MakeSession, StartEmulator

GATEWAY = AuthenticationSettings()


class Slow:
    """An authenticator whose log-on waits for the test."""

    kind = "token"
    opens_brokerage_session = True
    remedy = ""
    expires_ns: int | None = None

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.calls = 0
        self.problem: Exception | None = None
        self.called = asyncio.Event()

    async def log_on(self, client: aiohttp.ClientSession) -> None:
        self.calls += 1
        self.called.set()
        await self.go.wait()
        if self.problem is not None:
            raise self.problem

    async def renew(self, client: aiohttp.ClientSession) -> bool:
        return False

    def forget(self) -> None:
        pass

    def headers(self, method: str, url: str, params: Mapping[str, str]) -> dict[str, str]:
        return {}

    def websocket(self, url: str, session_id: str) -> tuple[str, dict[str, str]]:
        return url, {}


async def test_one_replacement_serves_all(client: aiohttp.ClientSession) -> None:
    slow = Slow()
    again = Reauthentication(slow, client)
    waiting = [asyncio.create_task(again.again(0)) for _ in range(20)]
    await slow.called.wait()
    slow.go.set()
    await asyncio.gather(*waiting)
    assert slow.calls == 1
    assert again.generation == 1
    # Learnt of its refusal late: the credential was replaced since.
    await again.again(0)
    assert slow.calls == 1
    await again.again(1)
    assert slow.calls == 2


async def test_its_failure_is_everybodys(client: aiohttp.ClientSession) -> None:
    slow = Slow()
    slow.problem = AuthenticationError("no")
    again = Reauthentication(slow, client)
    slow.go.set()
    results = await asyncio.gather(*(again.again() for _ in range(5)), return_exceptions=True)
    assert [type(one) for one in results] == [AuthenticationError] * 5
    assert slow.calls == 1
    assert again.generation == 0


async def test_who_gives_up_leaves_it_to_the_others(client: aiohttp.ClientSession) -> None:
    slow = Slow()
    again = Reauthentication(slow, client)
    first, second = (asyncio.create_task(again.again()) for _ in range(2))
    await slow.called.wait()
    first.cancel()
    await asyncio.wait({first})
    slow.go.set()
    await second
    assert again.generation == 1


async def test_close_ends_it() -> None:
    started = asyncio.Event()

    async def forever() -> None:
        started.set()
        await asyncio.Event().wait()

    flight = SingleFlight(forever, "forever")
    waiting = asyncio.create_task(flight.run())
    await started.wait()
    await flight.close()
    with pytest.raises(asyncio.CancelledError):
        await waiting


def test_query() -> None:
    assert with_query("wss://h/ws", "a", "x+/=&") == "wss://h/ws?a=x%2B%2F%3D%26"
    assert with_query("wss://h/ws?b=1", "a", "x") == "wss://h/ws?b=1&a=x"


@pytest.mark.parametrize(
    ("tier", "state"),
    [
        (Tier.LOGGED_OUT, GatewayState.LOGGED_OUT),
        (Tier.NO_BRIDGE, GatewayState.LOGGED_IN),
        (Tier.READY, GatewayState.READY),
    ],
)
async def test_look_at_the_gateway(
    tier: Tier, state: GatewayState, start_emulator: StartEmulator, client: aiohttp.ClientSession
) -> None:
    server = await start_emulator(GATEWAY, login=tier.value)
    gateway = GatewayAuthenticator(GatewayLogin(), exchange(server.url))
    assert await gateway.look(client) is state
    await server.stop()
    assert await gateway.look(client) is GatewayState.DOWN


async def test_session_waits_for_the_person(
    start_emulator: StartEmulator, make_session: MakeSession, caplog: pytest.LogCaptureFixture
) -> None:
    server = await start_emulator(GATEWAY, login="logged_out")
    session, watch = make_session(server.url, GatewayLogin(wait_s=10.0, poll_s=0.01))
    told = asyncio.Event()

    class Told(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "gateway-wanted" in record.getMessage():
                told.set()

    handler = Told()
    logging.getLogger("bt_ibkr").addHandler(handler)
    opening = asyncio.create_task(session.open())
    try:
        async with asyncio.timeout(10):
            await told.wait()
    finally:
        logging.getLogger("bt_ibkr").removeHandler(handler)
    assert server.url.removesuffix("/v1/api") in caplog.text
    server.core.set_tier(Tier.READY)
    await opening
    assert watch.states[-1] is SessionState.STREAMING


async def test_waiting_ends(start_emulator: StartEmulator, client: aiohttp.ClientSession) -> None:
    server = await start_emulator(GATEWAY, login="logged_out")
    login = GatewayLogin(wait_s=0.05, poll_s=0.01)
    with pytest.raises(AuthenticationError, match="Nobody logged in"):
        await GatewayAuthenticator(login, exchange(server.url)).log_on(client)
    await server.stop()
    with pytest.raises(UnreachableError, match="Nobody answered"):
        await GatewayAuthenticator(login, exchange(server.url)).log_on(client)


def test_settings_refuse_what_cannot_work() -> None:
    with pytest.raises(UsageError):
        GatewayLogin(wait_s=-1)
    with pytest.raises(UsageError, match="token is empty"):
        TokenLogin(token=" ")
    with pytest.raises(UsageError, match="consumer_key"):
        OAuth1Login(
            consumer_key="",
            access_token="a",
            access_token_secret="b",
            signature_key="c",
            encryption_key="d",
            dh_parameters="e",
        )
    with pytest.raises(UsageError):
        AuthenticationSettings(skew_s=0)
    assert SessionSettings().login == GatewayLogin()
    assert SessionSettings(login=NoLogin()).login == NoLogin()
