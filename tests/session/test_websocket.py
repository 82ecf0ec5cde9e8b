"""The WebSocket: the handshake, what keeps it, how it comes back, and frames nobody should send."""

from __future__ import annotations

import asyncio
import contextlib
import json
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import WSCloseCode, web

from bt_ibkr.clock import NS_PER_S, ManualClock
from bt_ibkr.emulator.services.session.state import Tier
from bt_ibkr.errors import RequestTimeoutError, SessionError
from bt_ibkr.session.session import Session, SessionState
from bt_ibkr.session.states import WAY_UP as UP
from bt_ibkr.session.websocket import Subscription, renewal_ns
from bt_ibkr.wire.frames import MAX_FRAME

if TYPE_CHECKING:
    from tests.session.conftest import Gateway, MakeSession, StartEmulator, Watch

SMD = Subscription(key="smd+1", text='smd+1+{"fields":["31"]}', undo="umd+1+{}", renew_ns=renewal_ns(540))
SOR = Subscription(key="sor", text="sor+{}", undo="uor+{}")


def tick(**fields: Any) -> dict[str, Any]:
    return {"topic": "smd+1", "conid": 1, "_updated": 1_777_552_110_061, **fields}


async def opened(make_session: MakeSession, gateway: Gateway, **changes: Any) -> tuple[Session, Watch]:
    session, watch = make_session(gateway.url, **changes)
    await session.open()
    return session, watch


async def subscribed(session: Session, gateway: Gateway, subscription: Subscription) -> None:
    """Subscribe, and wait until the server has heard it."""
    heard = texts(gateway).count(subscription.text)
    await session.socket.subscribe(subscription)
    await gateway.until(lambda: texts(gateway).count(subscription.text) > heard)


def _heard(gateway: Gateway, text: str, more_than: int) -> bool:
    return texts(gateway).count(text) > more_than


def _answered(watch: Watch, tics: int) -> bool:
    return sum(frame.topic == "tic" for frame in watch.frames) >= tics


def texts(gateway: Gateway) -> list[str]:
    return [text for text, _ in gateway.said]


# --- the handshake ---------------------------------------------------------------------------------


async def test_nothing_is_said_before_success(gateway: Gateway, make_session: MakeSession) -> None:
    """What is sent earlier vanishes at the real gateway."""
    gateway.greet.clear()
    session, watch = make_session(gateway.url, tic_interval_s=0.01, silence_s=5.0)
    opening = asyncio.create_task(session.open())
    await gateway.until(lambda: gateway.sockets)
    # Frames that are no greeting change nothing, and subscriptions made meanwhile wait.
    await gateway.sockets[0].send_json({"message": "waiting for session"})
    await gateway.sockets[0].send_json({"topic": "sts", "args": {"authenticated": True}})
    await watch.until(lambda: len(watch.frames) == 2)
    await session.socket.subscribe(SOR)
    await session.socket.renew_due()
    # Anything said by now would have been heard before this came back.
    await gateway.sockets[0].send_json({"message": "waiting for session"})
    await watch.until(lambda: len(watch.frames) == 3)
    assert not session.socket.ready
    assert not opening.done()
    assert gateway.said == []
    gateway.greet.set()
    await opening
    await gateway.until(lambda: "tic" in texts(gateway))
    assert gateway.said[0] == ("sor+{}", True)
    assert all(greeted for _, greeted in gateway.said)


async def test_the_emulators_delay_is_waited_for(
    start_emulator: StartEmulator, make_session: MakeSession
) -> None:
    """The emulator loses what comes too early; the subscription must be there nevertheless."""
    emulator = await start_emulator(connect_delay_s=0.1)
    session, watch = make_session(emulator.server.url)
    opening = asyncio.create_task(session.open())
    await opening
    await session.socket.subscribe(
        Subscription(key="a", text='smd+265598+{"fields":["31","84","86"]}', undo="")
    )
    await watch.until(lambda: any(frame.conid == 265598 for frame in watch.frames))


async def test_a_server_that_never_says_success(gateway: Gateway, make_session: MakeSession) -> None:
    gateway.greet.clear()
    session, watch = make_session(gateway.url, connect_timeout_s=0.1)
    with pytest.raises(RequestTimeoutError, match=r"did not say `system.success` within 0.1 s"):
        await session.open()
    assert len(gateway.sockets) == 1
    assert gateway.said == []
    assert watch.states[-1] is SessionState.DISCONNECTED


async def test_the_upgrade_is_refused(gateway: Gateway, make_session: MakeSession) -> None:
    session, _ = make_session(gateway.url + "/elsewhere")
    gateway.answers |= {
        line.replace(" ", " /elsewhere", 1): answer for line, answer in gateway.answers.items()
    }
    with pytest.raises(SessionError, match="HTTP 404"):
        await session.open()


async def test_closed_before_success(gateway: Gateway, make_session: MakeSession) -> None:
    gateway.greet.clear()
    session, _ = make_session(gateway.url)
    opening = asyncio.create_task(session.open())
    await gateway.until(lambda: gateway.sockets)
    await gateway.sockets[0].close()
    with pytest.raises(SessionError, match="closed the WebSocket before"):
        await opening


async def test_cookie_carries_the_session(gateway: Gateway, make_session: MakeSession) -> None:
    await opened(make_session, gateway)
    assert "api=cafe01" in gateway.cookies[0].split("; ")


# --- keeping it ------------------------------------------------------------------------------------


async def test_tic_is_sent_again_and_again(gateway: Gateway, make_session: MakeSession) -> None:
    await opened(make_session, gateway, tic_interval_s=0.02, silence_s=30.0)
    await gateway.until(lambda: texts(gateway).count("tic") >= 3)
    assert set(texts(gateway)) == {"tic"}


async def test_silence_ends_the_socket_and_it_comes_back(gateway: Gateway, make_session: MakeSession) -> None:
    session, watch = await opened(make_session, gateway, silence_s=0.1)
    await subscribed(session, gateway, SMD)
    await watch.until(lambda: watch.states.count(SessionState.STREAMING) == 2)
    assert watch.states[:9] == [*UP, SessionState.DISCONNECTED, *UP]
    await gateway.until(lambda: texts(gateway).count(SMD.text) >= 2)


async def test_heartbeats_keep_it(gateway: Gateway, make_session: MakeSession) -> None:
    session, watch = await opened(make_session, gateway, silence_s=0.3, tic_interval_s=0.05)
    # One heartbeat for every tic, for more than three times the silence that would end the socket.
    for number in range(20):
        await gateway.until(partial(_heard, gateway, "tic", number))
        await gateway.sockets[0].send_json({"topic": "system", "hb": 1})
    assert watch.states == [*UP]
    assert session.socket.ready


async def test_renewal_by_the_markets_clock(gateway: Gateway, make_session: MakeSession) -> None:
    """The server ends market data without a word after ten market minutes."""
    clock = ManualClock(1_000 * NS_PER_S)
    session, _ = await opened(make_session, gateway, clock=clock, tic_interval_s=0.02, silence_s=30.0)
    await subscribed(session, gateway, SMD)
    await session.socket.subscribe(SOR)
    clock.set_ns(1_539 * NS_PER_S)
    tics = texts(gateway).count("tic")
    await gateway.until(lambda: texts(gateway).count("tic") >= tics + 2)
    assert texts(gateway).count(SMD.text) == 1
    clock.set_ns(1_540 * NS_PER_S)
    await gateway.until(lambda: texts(gateway).count(SMD.text) == 2)
    clock.set_ns(2_079 * NS_PER_S)
    await session.socket.renew_due()
    await session.socket.unsubscribe("smd+1")
    clock.set_ns(9_999 * NS_PER_S)
    await session.socket.renew_due()
    tics = texts(gateway).count("tic")
    await gateway.until(lambda: texts(gateway).count("tic") >= tics + 2)
    assert texts(gateway).count(SMD.text) == 2
    assert texts(gateway).count(SMD.undo) == 1
    assert texts(gateway).count(SOR.text) == 1


async def test_renewal_keeps_the_emulators_stream(
    start_emulator: StartEmulator, make_session: MakeSession
) -> None:
    """Past the stream's life in market time frames still come, because it was renewed before."""
    emulator = await start_emulator(smd_lifetime_s=600.0, conflation_ms=0)
    core, drive = emulator.server.core, emulator.server.drive
    clock = ManualClock(core.now_ns)
    session, watch = make_session(emulator.server.url, clock=clock)
    await session.open()
    await session.socket.subscribe(
        Subscription(key="a", text='smd+265598+{"fields":["31","84"]}', undo="", renew_ns=renewal_ns(540))
    )
    await watch.until(lambda: any(frame.conid for frame in watch.frames))
    begin_ns = core.now_ns
    for minute in range(1, 21):
        drive.step(until_ns=begin_ns + minute * 60 * NS_PER_S, max_events=None, received={})
        clock.set_ns(core.now_ns)
        await session.socket.renew_due()
        # The server has taken everything said so far once it answers a tic.
        tics = sum(frame.topic == "tic" for frame in watch.frames)
        await session.socket._send("tic")
        await watch.until(partial(_answered, watch, tics + 4))
    newest = max(frame.updated_ms or 0 for frame in watch.frames)
    assert newest > begin_ns // 1_000_000 + 18 * 60_000


# --- coming back -----------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [WSCloseCode.OK, WSCloseCode.GOING_AWAY, WSCloseCode.INTERNAL_ERROR])
async def test_everything_is_asked_again(gateway: Gateway, make_session: MakeSession, code: int) -> None:
    session, watch = await opened(make_session, gateway)
    for subscription in (SMD, SOR, Subscription(key="x", text="x+{}", undo="ux+{}")):
        await session.socket.subscribe(subscription)
    await session.socket.unsubscribe("x")
    await session.socket.unsubscribe("never subscribed")
    await gateway.until(lambda: len(gateway.said) == 4)
    gateway.said.clear()
    lines = len(gateway.seen)
    await gateway.sockets[0].close(code=code)
    await gateway.until(lambda: len(gateway.said) == 2)
    assert texts(gateway) == [SMD.text, SOR.text]
    await watch.until(lambda: watch.states[-1] is SessionState.STREAMING)
    # Session first, socket second: login looked at, accounts asked again.
    assert gateway.lines[lines:] == ["POST /tickle", "GET /iserver/accounts"]
    assert "api=cafe01" in gateway.cookies[1]


async def test_an_aborted_connection_comes_back(gateway: Gateway, make_session: MakeSession) -> None:
    session, watch = await opened(make_session, gateway)
    transport = gateway.sockets[0]._req.transport  # type: ignore[union-attr]
    assert transport is not None
    transport.abort()
    await watch.until(lambda: watch.states.count(SessionState.STREAMING) == 2)
    assert session.socket.received == 1


async def test_it_keeps_trying_while_the_server_refuses(gateway: Gateway, make_session: MakeSession) -> None:
    session, watch = await opened(make_session, gateway)
    await session.socket.subscribe(SOR)
    await gateway.until(lambda: texts(gateway) == ["sor+{}"])
    good = gateway.answers["POST /tickle"]
    gateway.answers["POST /tickle"] = lambda _: web.Response(status=502, text="<html></html>")
    tickles = gateway.lines.count("POST /tickle")
    await gateway.sockets[0].close()
    await gateway.until(lambda: gateway.lines.count("POST /tickle") >= tickles + 3)
    assert session.state is SessionState.DISCONNECTED
    gateway.answers["POST /tickle"] = good
    await watch.until(lambda: session.state is SessionState.STREAMING)
    await gateway.until(lambda: texts(gateway).count("sor+{}") == 2)


async def test_login_is_renewed_before_the_socket(gateway: Gateway, make_session: MakeSession) -> None:
    """A socket without an authenticated session would be closed again and again."""
    session, watch = await opened(make_session, gateway)
    init = "POST /iserver/auth/ssodh/init"
    lapsed = {"authenticated": False, "connected": True, "competing": False, "established": False}
    ready = {"authenticated": True, "connected": True, "competing": False, "established": True}

    def status() -> dict[str, Any]:
        return ready if init in gateway.lines else lapsed

    gateway.answers["POST /tickle"] = lambda _: {
        "session": "new" if status() is ready else "old",
        "iserver": {"authStatus": status()},
    }
    gateway.answers["POST /iserver/auth/status"] = lambda _: status()
    lines = len(gateway.seen)
    await gateway.sockets[0].close()
    await watch.until(lambda: watch.states.count(SessionState.STREAMING) == 2)
    later = gateway.lines[lines:]
    assert init in later
    assert later.index(init) < later.index("GET /iserver/accounts")
    assert "GET /portfolio/accounts" in later
    assert len(gateway.sockets) == 2
    assert "api=new" in gateway.cookies[1]
    assert session.socket.ready


@pytest.mark.parametrize("status", [200, 401])
async def test_a_lapse_seen_by_tickle_is_mended(
    gateway: Gateway, make_session: MakeSession, status: int
) -> None:
    """The nightly reset: heartbeats go on, but the streams are dead until they are asked for again."""
    init = "POST /iserver/auth/ssodh/init"
    good = gateway.answers["POST /tickle"]

    def tickle(seen: Any) -> Any:
        if init in gateway.lines:
            return {**good(seen), "session": "cafe02"}
        return web.Response(status=status, text=json.dumps({"error": "no session"}))

    session, _ = await opened(make_session, gateway, tickle_interval_s=0.05)
    await subscribed(session, gateway, SMD)
    gateway.answers["POST /iserver/auth/status"] = lambda _: {"authenticated": init in gateway.lines}
    gateway.answers["POST /tickle"] = tickle
    await gateway.until(lambda: init in gateway.lines)
    await gateway.until(lambda: texts(gateway).count(SMD.text) == 2)
    assert gateway.lines.count(init) == 1


async def test_a_new_session_id_renews_the_streams(gateway: Gateway, make_session: MakeSession) -> None:
    """The reset may be over before the next look: only the session's id tells of it."""
    good = gateway.answers["POST /tickle"]
    session, _ = await opened(make_session, gateway, tickle_interval_s=0.05)
    await subscribed(session, gateway, SMD)
    accounts = gateway.lines.count("GET /iserver/accounts")
    gateway.answers["POST /tickle"] = lambda seen: {**good(seen), "session": "cafe02"}
    await gateway.until(lambda: texts(gateway).count(SMD.text) == 2)
    assert gateway.lines.count("GET /iserver/accounts") > accounts
    assert "api=cafe02" in gateway.cookies[-1]


async def test_sts_tells_of_a_lapse_at_once(start_emulator: StartEmulator, make_session: MakeSession) -> None:
    """No waiting for the next tickle: the brokerage session is reopened and the stream goes on."""
    emulator = await start_emulator(conflation_ms=0)
    session, watch = make_session(emulator.server.url)
    await session.open()
    await session.socket.subscribe(
        Subscription(key="a", text='smd+265598+{"fields":["31","84","86"]}', undo="")
    )
    await watch.until(lambda: any(frame.conid for frame in watch.frames))
    emulator.server.core.set_tier(Tier.NO_BRIDGE)
    emulator.server.core.hub.flush()
    watch.frames.clear()
    await watch.until(lambda: any(frame.conid for frame in watch.frames))
    assert "POST /iserver/auth/ssodh/init" in emulator.lines
    assert watch.states[-5:] == [SessionState.DISCONNECTED, *UP]


async def test_a_failed_tickle_is_no_disaster(gateway: Gateway, make_session: MakeSession) -> None:
    session, watch = await opened(make_session, gateway, tickle_interval_s=0.02)
    gateway.answers["POST /tickle"] = lambda _: web.Response(status=503, text="")
    await gateway.until(lambda: gateway.lines.count("POST /tickle") >= 6)
    assert watch.states == [*UP]
    assert session.socket.ready


async def test_nobody_logged_in_any_more(gateway: Gateway, make_session: MakeSession) -> None:
    """The tries after a break are paused, not a storm, and end with the session's end."""
    session, watch = await opened(make_session, gateway)
    gateway.answers["POST /tickle"] = lambda _: {"error": "no session"}
    for line in ("POST /iserver/auth/status", "POST /iserver/auth/ssodh/init"):
        gateway.answers[line] = lambda _: {"authenticated": False}
    await gateway.sockets[0].close()
    await gateway.until(lambda: gateway.lines.count("POST /iserver/auth/ssodh/init") >= 3)
    await watch.until(lambda: session.state is SessionState.NEEDS_PERSON)
    assert len(gateway.sockets) == 1
    await session.close()
    assert watch.states[-1] is SessionState.DISCONNECTED


# --- frames nobody should send -----------------------------------------------------------------------

UNREADABLE = [b"\xff\xfe", b"{", b"[]", b"null", b"1", b'{"topic":', b'{"31":"abc"}', b"\x00" * 10, b""]


async def test_unreadable_frames_are_counted_and_survived(
    gateway: Gateway, make_session: MakeSession
) -> None:
    session, watch = await opened(make_session, gateway)
    ws = gateway.sockets[0]
    for frame in UNREADABLE:
        await ws.send_bytes(frame)
    for text in ("", "nonsense", "{" * 100_000, '"smd"', '{"conid": "x"}', '{"84": 1e999}'):
        await ws.send_str(text)
    await ws.send_json(tick(**{"31": "10.5"}))
    await watch.until(lambda: any(frame.conid == 1 for frame in watch.frames))
    assert session.socket.unreadable == len(UNREADABLE) + 6
    assert session.socket.received == 1 + len(UNREADABLE) + 6 + 1
    assert watch.states == [*UP]


async def test_binary_frames_are_frames(gateway: Gateway, make_session: MakeSession) -> None:
    session, watch = await opened(make_session, gateway)
    await gateway.sockets[0].send_bytes(json.dumps(tick(**{"31": "10.5"})).encode())
    await watch.until(lambda: any(frame.last == 10.5 for frame in watch.frames))
    assert session.socket.unreadable == 0


async def test_binary_emulator(start_emulator: StartEmulator, make_session: MakeSession) -> None:
    emulator = await start_emulator(frames="binary")
    session, watch = make_session(emulator.server.url)
    await session.open()
    await session.socket.subscribe(Subscription(key="a", text='smd+265598+{"fields":["31"]}', undo=""))
    await watch.until(lambda: any(frame.conid == 265598 for frame in watch.frames))
    assert session.socket.unreadable == 0


async def test_a_giant_frame_ends_only_the_socket(gateway: Gateway, make_session: MakeSession) -> None:
    session, watch = await opened(make_session, gateway)
    await subscribed(session, gateway, SMD)
    with contextlib.suppress(ConnectionError):
        # The client hangs up in the middle of it.
        await gateway.sockets[0].send_str(json.dumps({"topic": "x" * (MAX_FRAME + 10)}))
    await gateway.until(lambda: texts(gateway).count(SMD.text) == 2)
    await gateway.sockets[1].send_json(tick(**{"31": "10.5"}))
    await watch.until(lambda: any(frame.last == 10.5 for frame in watch.frames))


async def test_text_that_is_not_utf8_is_counted_and_survived(
    gateway: Gateway, make_session: MakeSession
) -> None:
    session, watch = await opened(make_session, gateway)
    await subscribed(session, gateway, SMD)
    writer = gateway.sockets[0]._writer
    assert writer is not None
    await writer.send_frame(b"\xff\xfe\xfa", 1)
    await gateway.sockets[0].send_json(tick(**{"31": "10.5"}))
    await watch.until(lambda: any(frame.last == 10.5 for frame in watch.frames))
    assert session.socket.unreadable == 1
    assert len(gateway.sockets) == 1


async def test_a_sink_that_raises_does_not_go_unnoticed(gateway: Gateway, make_session: MakeSession) -> None:
    """A fault of ours is told as a broken session; it does not stop silently."""
    session, watch = await opened(make_session, gateway)

    def broken(_: object) -> None:
        raise ZeroDivisionError

    session._frame_sink = broken
    await gateway.sockets[0].send_json(tick())
    await watch.until(lambda: SessionState.DISCONNECTED in watch.states)
    assert "ZeroDivisionError" in watch.causes[-1] or "websocket failed" in watch.causes[-1]


async def test_subscribing_while_broken_is_remembered(gateway: Gateway, make_session: MakeSession) -> None:
    session, watch = await opened(make_session, gateway)
    gateway.greet.clear()
    await gateway.sockets[0].close()
    await gateway.until(lambda: len(gateway.sockets) == 2)
    await session.socket.subscribe(SOR)
    assert texts(gateway) == []
    gateway.greet.set()
    await gateway.until(lambda: texts(gateway) == ["sor+{}"])
    await watch.until(lambda: session.state is SessionState.STREAMING)
