"""How a session begins: the order of its requests, and every way it can fail to begin."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

from bt_ibkr.errors import (
    AuthenticationError,
    BtIbkrError,
    PacingPenaltyError,
    ResponseError,
    SessionError,
    UnreachableError,
    WireError,
)
from bt_ibkr.session.session import SessionState
from bt_ibkr.session.states import WAY_UP as UP

if TYPE_CHECKING:
    from tests.session.conftest import Gateway, MakeSession, Seen, StartEmulator

LOGGED_OUT = {"authenticated": False, "established": False, "competing": False, "connected": False}
READY = {"authenticated": True, "established": True, "competing": False, "connected": True}
INIT = "POST /iserver/auth/ssodh/init"


async def test_order_of_the_start(start_emulator: StartEmulator, make_session: MakeSession) -> None:
    """Login first, then both priming calls; nothing else before the socket."""
    emulator = await start_emulator()
    session, watch = make_session(emulator.server.url)
    await session.open()
    assert emulator.lines == [
        "POST /tickle",
        "GET /iserver/accounts",
        "GET /portfolio/accounts",
    ]
    assert watch.states == [*UP]
    assert watch.frames[0].topic == "system"
    assert session.accounts.selected == "DU1234567"
    assert session.socket.ready


async def test_brokerage_session_is_opened_where_there_is_none(
    start_emulator: StartEmulator, make_session: MakeSession
) -> None:
    emulator = await start_emulator(login="no_bridge")
    session, _ = make_session(emulator.server.url)
    await session.open()
    assert emulator.lines == [
        "POST /tickle",
        "POST /iserver/auth/status",
        INIT,
        "GET /iserver/accounts",
        "GET /portfolio/accounts",
        "POST /tickle",
    ]


async def test_init_asks_to_publish(gateway: Gateway, make_session: MakeSession) -> None:
    """IBKR answers HTTP 500 without ``publish``."""
    gateway.answers["POST /tickle"] = lambda _: {
        "session": "x",
        "iserver": {"authStatus": LOGGED_OUT if INIT not in gateway.lines else READY},
    }
    gateway.answers["POST /iserver/auth/status"] = lambda _: LOGGED_OUT
    session, _ = make_session(gateway.url, competing="yield")
    await session.open()
    body = next(json.loads(one.body) for one in gateway.seen if one.line == INIT)
    assert body == {"publish": True, "compete": False}


async def test_nobody_logged_in(start_emulator: StartEmulator, make_session: MakeSession) -> None:
    emulator = await start_emulator(login="logged_out")
    session, watch = make_session(emulator.server.url)
    with pytest.raises(AuthenticationError) as caught:
        await session.open()
    root = emulator.server.url.removesuffix("/v1/api")
    assert f"Open {root} in a browser" in caught.value.remedy
    assert 1 <= emulator.lines.count(INIT) <= 3
    assert len(emulator.lines) <= 8
    assert watch.states == [SessionState.GATEWAY_UP, SessionState.DISCONNECTED]
    with pytest.raises(SessionError):
        _ = session.accounts


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("text", ["not authenticated", "", "<html><h1>Access Denied</h1></html>"])
async def test_refusal_by_status_is_an_authentication_error(
    gateway: Gateway, make_session: MakeSession, status: int, text: str
) -> None:
    """A lapsed login is answered by status, with a body that is no JSON."""

    def refuse(_: Seen) -> web.Response:
        return web.Response(status=status, text=text)

    for line in gateway.answers:
        gateway.answers[line] = refuse
    session, _ = make_session(gateway.url)
    with pytest.raises(AuthenticationError):
        await session.open()
    assert len(gateway.seen) <= 8


@pytest.mark.parametrize(
    "status",
    [
        READY | {"competing": True},
        READY | {"established": False},
        READY | {"connected": False},
        LOGGED_OUT,
    ],
)
async def test_init_that_opens_nothing_is_no_success(
    gateway: Gateway, make_session: MakeSession, status: dict[str, Any]
) -> None:
    """HTTP 200 proves nothing; the flags do. The tries are bounded."""
    gateway.answers["POST /tickle"] = lambda _: {"session": "x", "iserver": {"authStatus": status}}
    gateway.answers["POST /iserver/auth/status"] = lambda _: status
    gateway.answers[INIT] = lambda _: status
    session, _ = make_session(gateway.url)
    with pytest.raises(AuthenticationError):
        await session.open()
    # From another login it is taken once; after that, asking again would be a war.
    assert gateway.lines.count(INIT) == (1 if status["competing"] else 3)
    assert "GET /iserver/accounts" not in gateway.lines


async def test_init_may_need_a_second_try(gateway: Gateway, make_session: MakeSession) -> None:
    def ready() -> dict[str, Any]:
        return READY if gateway.lines.count(INIT) >= 2 else LOGGED_OUT

    def init(_: Seen) -> Any:
        return ready() if ready() is READY else web.json_response({"error": "try again"}, status=503)

    gateway.answers["POST /tickle"] = lambda _: {"session": "x", "iserver": {"authStatus": ready()}}
    gateway.answers["POST /iserver/auth/status"] = lambda _: ready()
    gateway.answers[INIT] = init
    session, _ = make_session(gateway.url)
    await session.open()
    assert gateway.lines.count(INIT) == 2


async def test_competing_session_is_respected(gateway: Gateway, make_session: MakeSession) -> None:
    competing = READY | {"competing": True}
    gateway.answers["POST /tickle"] = lambda _: {"session": "x", "iserver": {"authStatus": competing}}
    gateway.answers["POST /iserver/auth/status"] = lambda _: competing
    session, _ = make_session(gateway.url, competing="yield")
    with pytest.raises(AuthenticationError, match="Another login"):
        await session.open()
    assert INIT not in gateway.lines


async def test_nobody_there(dead_url: str, make_session: MakeSession) -> None:
    session, watch = make_session(dead_url)
    with pytest.raises(UnreachableError) as caught:
        await session.open()
    assert dead_url in caught.value.message
    assert caught.value.remedy
    assert watch.states == []


async def test_html_where_json_was_due(gateway: Gateway, make_session: MakeSession) -> None:
    """Some other web server listens there."""
    gateway.answers["POST /tickle"] = lambda _: web.Response(
        text="<html><body><h1>It works!</h1></body></html>", content_type="text/html"
    )
    session, watch = make_session(gateway.url)
    with pytest.raises(WireError, match="HTML"):
        await session.open()
    assert watch.states == []


@pytest.mark.parametrize("session_id", ["a\r\nX-Header: y", "a;b", "a b", "\N{SNOWMAN}"])
async def test_a_session_id_that_is_none(
    gateway: Gateway, make_session: MakeSession, session_id: str
) -> None:
    """What would become another header, or another cookie, is sent to nobody."""
    status = {"authenticated": True, "established": True, "connected": True, "competing": False}
    gateway.answers["POST /tickle"] = lambda _: {"session": session_id, "iserver": {"authStatus": status}}
    session, watch = make_session(gateway.url)
    with pytest.raises(WireError, match="no cookie can hold"):
        await session.open()
    assert not gateway.cookies
    assert watch.states[-1] is SessionState.DISCONNECTED


@pytest.mark.parametrize("line", ["POST /tickle", "GET /iserver/accounts", "GET /portfolio/accounts"])
async def test_penalty_ends_the_start_at_once(gateway: Gateway, make_session: MakeSession, line: str) -> None:
    """Going on asking during a penalty would prolong it."""
    gateway.answers[line] = lambda _: web.json_response({"error": "too many requests"}, status=429)
    session, _ = make_session(gateway.url)
    with pytest.raises(PacingPenaltyError) as caught:
        await session.open()
    assert gateway.lines.count(line) == 1
    assert gateway.lines[-1] == line
    assert "900 s" in caught.value.remedy


@pytest.mark.parametrize("line", ["GET /iserver/accounts", "GET /portfolio/accounts"])
async def test_priming_that_fails_fails_the_start(
    gateway: Gateway, make_session: MakeSession, line: str
) -> None:
    gateway.answers[line] = lambda _: web.json_response({"error": "no"}, status=500)
    session, watch = make_session(gateway.url)
    with pytest.raises(ResponseError) as caught:
        await session.open()
    assert caught.value.status == 500
    assert caught.value.body == "no"
    assert not gateway.sockets
    assert watch.states[-1] is SessionState.DISCONNECTED


async def test_closing_twice_and_states(gateway: Gateway, make_session: MakeSession) -> None:
    session, watch = make_session(gateway.url)
    await session.open()
    with pytest.raises(BtIbkrError):
        await session.open()
    await session.close()
    await session.close()
    assert watch.states == [*UP, SessionState.DISCONNECTED]
    await gateway.until(lambda: all(ws.closed for ws in gateway.sockets))
