"""Every way to log on, through a whole session over real sockets: accounts, tickle, WebSocket."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest
from msgspec.structs import replace

from bt_ibkr.emulator.services.oauth.settings import AuthenticationSettings
from bt_ibkr.errors import BtIbkrError, PacingPenaltyError
from bt_ibkr.login import GatewayLogin, Login, NoLogin
from bt_ibkr.session.session import Session, SessionState
from tests.auth.conftest import copied, oauth1, oauth1_login, oauth2, oauth2_login, token_login

if TYPE_CHECKING:
    from bt_ibkr.emulator.server import EmulatorServer
    from tests.auth.conftest import Keys, MakeSession, StartEmulator, Watch

Kind = Literal["gateway", "none", "oauth1a", "oauth2", "token"]
KINDS: tuple[Kind, ...] = ("gateway", "none", "oauth1a", "oauth2", "token")
RENEWABLE: tuple[Kind, ...] = ("oauth1a", "oauth2")


def asked(kind: Kind, keys: Keys, **changes: Any) -> AuthenticationSettings:
    match kind:
        case "oauth1a":
            return oauth1(keys, **changes)
        case "oauth2":
            return oauth2(keys, **changes)
        case "token":
            return AuthenticationSettings(kind="token", **changes)
        case _:
            return AuthenticationSettings()


def given(kind: Kind, server: EmulatorServer, keys: Keys, folder: Path, **changes: Any) -> Login:
    match kind:
        case "oauth1a":
            return oauth1_login(server, keys, folder, **changes)
        case "oauth2":
            return oauth2_login(keys, **changes)
        case "token":
            return token_login(server, folder, **changes)
        case "none":
            return NoLogin()
        case _:
            return GatewayLogin()


async def works(session: Session, watch: Watch) -> None:
    """A call below each tier, one with a query that needs encoding, and frames over the socket."""
    assert watch.states[-1] is SessionState.STREAMING
    assert session.accounts.selected == "DU1234567"
    assert (await session.http.post("/tickle"))["iserver"]["authStatus"]["authenticated"] is True
    found = await session.http.get("/trsrv/stocks", {"symbols": "AAPL,BRK/B", "note": "a+b=c&d ~é"})
    assert "AAPL" in found
    assert await session.http.get("/portfolio/accounts")
    assert {"system", "act", "sts"} <= {frame.topic for frame in watch.frames}


@pytest.mark.parametrize("kind", KINDS)
async def test_session(
    kind: Kind, keys: Keys, tmp_path: Path, start_emulator: StartEmulator, make_session: MakeSession
) -> None:
    server = await start_emulator(asked(kind, keys))
    session, watch = make_session(server.url, given(kind, server, keys, tmp_path))
    await session.open()
    await works(session, watch)
    authenticator = session.http.authenticator
    assert authenticator.kind == kind
    assert authenticator.opens_brokerage_session is (kind != "gateway")
    assert (authenticator.expires_ns is not None) is (kind in RENEWABLE)


@pytest.mark.parametrize("kind", ["oauth1a", "oauth2", "token"])
async def test_nothing_without_a_credential(
    kind: Kind, keys: Keys, start_emulator: StartEmulator, make_session: MakeSession
) -> None:
    """The server would be right to let nobody in: cookies alone are refused, on REST and on the socket."""
    server = await start_emulator(asked(kind, keys))
    session, _ = make_session(server.url, GatewayLogin())
    with pytest.raises(BtIbkrError):
        await session.open()
    reply = await _socket_status(server.ws)
    assert reply == 401


@pytest.mark.parametrize("kind", RENEWABLE)
async def test_session_outlives_its_credential(
    kind: Kind, keys: Keys, tmp_path: Path, start_emulator: StartEmulator, make_session: MakeSession
) -> None:
    """The server forgets every token and drops the socket: the session obtains another and streams again."""
    server = await start_emulator(asked(kind, keys))
    session, watch = make_session(server.url, given(kind, server, keys, tmp_path))
    await session.open()
    server.door.expire()
    await session.socket.reopen()
    await watch.until(lambda: watch.states.count(SessionState.STREAMING) == 2)
    assert session.http.generation == 1
    await works(session, watch)


@pytest.mark.parametrize("kind", RENEWABLE)
async def test_renewal_ahead_of_time(
    kind: Kind, keys: Keys, tmp_path: Path, start_emulator: StartEmulator, make_session: MakeSession
) -> None:
    server = await start_emulator(asked(kind, keys, lifetime_s=600.0))
    early = given(kind, server, keys, tmp_path, renew_before_s=500.0)
    session, _ = make_session(server.url, early)
    await session.open()
    assert not await session.http.renew()
    late, watch = make_session(server.url, given(kind, server, keys, tmp_path, renew_before_s=700.0))
    await late.open()
    before = late.http.authenticator.headers("GET", server.url, {})
    assert await late.http.renew()
    assert late.http.authenticator.headers("GET", server.url, {}) != before
    await works(late, watch)


@pytest.mark.parametrize("kind", RENEWABLE)
async def test_a_penalty_met_by_a_renewal_is_everybodys(
    kind: Kind, keys: Keys, tmp_path: Path, start_emulator: StartEmulator, make_session: MakeSession
) -> None:
    """Nothing passes any more, and the state says why."""
    server = await start_emulator(asked(kind, keys, lifetime_s=600.0))
    session, watch = make_session(server.url, given(kind, server, keys, tmp_path, renew_before_s=700.0))
    await session.open()
    server.core.pacing.punish()
    with pytest.raises(PacingPenaltyError):
        await session.http.renew()
    assert session.pacing().penalty_s > 0
    assert watch.states[-1] is SessionState.PENALTY


@pytest.mark.parametrize("kind", RENEWABLE)
async def test_a_key_that_is_gone_needs_a_person(
    kind: Kind, keys: Keys, tmp_path: Path, start_emulator: StartEmulator, make_session: MakeSession
) -> None:
    """Told as what it is: no outage, that would be waited for."""
    server = await start_emulator(asked(kind, keys))
    places = {"oauth1a": "signature_key", "oauth2": "private_key"}
    login = given(kind, server, keys, tmp_path)
    key = copied(Path(getattr(login, places[kind])), tmp_path / "copy.pem")
    session, watch = make_session(server.url, replace(login, **{places[kind]: str(key)}))
    await session.open()
    key.unlink()
    server.door.expire()
    await session.socket.reopen()
    await watch.until(lambda: SessionState.NEEDS_PERSON in watch.states)
    assert watch.states[-1] is SessionState.NEEDS_PERSON


@pytest.mark.parametrize("variant", ["standard", "institutional"])
@pytest.mark.parametrize("algorithm", ["RS256", "PS256", "ES256"])
async def test_variants_of_oauth2(
    variant: str,
    algorithm: str,
    keys: Keys,
    start_emulator: StartEmulator,
    make_session: MakeSession,
) -> None:
    own = keys.curve if algorithm == "ES256" else keys.client
    server = await start_emulator(oauth2(keys, variant=variant, public_key=str(own.public)))
    login = oauth2_login(keys, variant=variant, algorithm=algorithm, private_key=str(own.private))
    session, watch = make_session(server.url, login)
    await session.open()
    await works(session, watch)


@pytest.mark.parametrize("parameter", ["bearer_token", "sessionToken"])
async def test_both_names_of_the_websockets_token(
    parameter: str, keys: Keys, tmp_path: Path, start_emulator: StartEmulator, make_session: MakeSession
) -> None:
    server = await start_emulator(asked("token", keys))
    session, watch = make_session(server.url, token_login(server, tmp_path, websocket_parameter=parameter))
    await session.open()
    await works(session, watch)


async def test_material_made_by_the_emulator(
    keys: Keys, tmp_path: Path, start_emulator: StartEmulator, make_session: MakeSession
) -> None:
    """With no key given it makes both halves, and writes the client's into a folder."""
    folder = tmp_path / "made"
    server = await start_emulator(
        AuthenticationSettings(kind="oauth1a", consumer_key="TESTCONS", key_folder=str(folder))
    )
    login = oauth1_login(
        server,
        keys,
        folder,
        signature_key=str(folder / "private_signature.pem"),
        encryption_key=str(folder / "private_encryption.pem"),
    )
    session, watch = make_session(server.url, login)
    await session.open()
    await works(session, watch)


@pytest.mark.parametrize(("algorithm", "kind"), [("RS256", "oauth2"), ("ES256", "oauth2")])
async def test_client_key_made_by_the_emulator(
    algorithm: Any,
    kind: Any,
    tmp_path: Path,
    keys: Keys,
    start_emulator: StartEmulator,
    make_session: MakeSession,
) -> None:
    server = await start_emulator(
        AuthenticationSettings(kind=kind, algorithm=algorithm, key_folder=str(tmp_path))
    )
    login = oauth2_login(keys, algorithm=algorithm, private_key=str(tmp_path / "private_client.pem"))
    session, watch = make_session(server.url, login)
    await session.open()
    await works(session, watch)


async def _socket_status(url: str) -> int:
    import aiohttp

    async with aiohttp.ClientSession() as client:
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await client.ws_connect(url)
        return caught.value.status
