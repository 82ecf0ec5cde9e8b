"""No secret of any provider shows in logs, errors or representations, through a whole session and its failures."""

from __future__ import annotations

import asyncio
import logging
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest

from bt_ibkr.emulator.services.oauth.settings import AuthenticationSettings
from bt_ibkr.errors import BtIbkrError
from bt_ibkr.login import GatewayLogin, Login, NoLogin, OAuth1Login, OAuth2Login, TokenLogin
from bt_ibkr.redaction import MASK
from bt_ibkr.session.auth.oauth1a import OAuth1Authenticator
from bt_ibkr.session.session import Session, SessionState
from tests.auth.conftest import oauth1, oauth1_login, oauth2, oauth2_login, token_login

if TYPE_CHECKING:
    from bt_ibkr.emulator.server import EmulatorServer
    from tests.auth.conftest import Keys, MakeSession, StartEmulator, Watch

Kind = Literal["gateway", "none", "oauth1a", "oauth2", "token"]


def settings_of(kind: Kind, keys: Keys) -> AuthenticationSettings:
    if kind == "oauth1a":
        return oauth1(keys)
    if kind == "oauth2":
        return oauth2(keys)
    return AuthenticationSettings(kind="token" if kind == "token" else "gateway")


def login_of(kind: Kind, server: EmulatorServer, keys: Keys, folder: Path) -> Login:
    if kind == "oauth1a":
        return oauth1_login(server, keys, folder)
    if kind == "oauth2":
        return oauth2_login(keys)
    if kind == "token":
        return token_login(server, folder)
    return NoLogin() if kind == "none" else GatewayLogin()


def secrets_of(server: EmulatorServer, login: Login, session: Session) -> set[str]:
    """Everything that must not show: stored, received and computed."""
    hidden: set[str] = set()
    places: tuple[str, ...] = ()
    if isinstance(login, OAuth1Login):
        places = (login.access_token, login.access_token_secret, login.signature_key, login.encryption_key)
        grant = server.door.material.grant
        assert grant is not None
        hidden |= {grant.token, grant.sealed, grant.secret.hex()}
        authenticator = session.http.authenticator
        assert isinstance(authenticator, OAuth1Authenticator)
        assert authenticator._live is not None
        hidden.add(authenticator._live.key.reveal())
        for live in server.door.oauth1._live[grant.token]:
            hidden |= {live.key.hex(), repr(live.key)}
    elif isinstance(login, OAuth2Login):
        places = (login.private_key,)
        hidden |= set(server.door.oauth2._issued)
    elif isinstance(login, TokenLogin):
        places = (login.token,)
        hidden.add(server.door.material.token)
    for place in places:
        # Any line of a key would be a piece of it.
        lines = Path(place).read_text().splitlines()
        hidden |= {line for line in lines if len(line) > 8 and "-----" not in line}
    if not isinstance(login, (GatewayLogin, NoLogin)):
        sent = session.http.authenticator.headers("GET", f"{server.url}/x", {"a": "b"})["Authorization"]
        hidden.add(sent)
    return hidden


def shown_by(problem: BaseException) -> str:
    return "\n".join((str(problem), repr(problem), "".join(traceback.format_exception(problem))))


async def broken_again(session: Session, watch: Watch) -> None:
    seen = len(watch.states)
    await session.socket.reopen()
    await watch.until(lambda: SessionState.STREAMING in watch.states[seen + 1 :])


@pytest.mark.parametrize("kind", ["gateway", "none", "oauth1a", "oauth2", "token"])
async def test_nothing_shows(
    kind: Kind,
    keys: Keys,
    tmp_path: Path,
    start_emulator: StartEmulator,
    make_session: MakeSession,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    # asyncio's own log names callbacks and their arguments in this mode.
    asyncio.get_running_loop().set_debug(True)
    server = await start_emulator(settings_of(kind, keys))
    login = login_of(kind, server, keys, tmp_path)
    session, watch = make_session(server.url, login)
    shown = [repr(login), str(login), repr(session._settings)]
    await session.open()
    await broken_again(session, watch)
    hidden = secrets_of(server, login, session)
    if kind in ("oauth1a", "oauth2"):
        server.door.expire()
        await broken_again(session, watch)
        hidden |= secrets_of(server, login, session)
    shown += [
        repr(vars(session.http.authenticator)),
        repr(session.http.authenticator),
        repr(vars(session.http)),
    ]
    problem = await refused(session, server)
    shown.append(shown_by(problem))
    # The loggers of everything that saw a request or an answer: said aloud, a secret is masked.
    for name in ("bt_ibkr.session.http", "bt_ibkr.session.websocket", "aiohttp.client", "asyncio"):
        for value in hidden:
            logging.getLogger(name).warning("said by %s: %s", name, value)
    await session.close()
    text = caplog.text + "".join(str(vars(record)) for record in caplog.records) + "\n".join(shown)
    assert "session-state" in text
    assert kind in ("gateway", "none") or (len(hidden) >= 2 and MASK in caplog.text)
    for value in hidden:
        assert value not in text


async def refused(session: Session, server: EmulatorServer) -> BtIbkrError:
    """An error whose body repeats what the client sent."""
    authenticator: Any = session.http.authenticator
    url = f"{server.url}/none"
    sent = authenticator.headers("GET", url, {})
    with pytest.raises(BtIbkrError) as caught:
        await session.http.get("/none", {"echo": sent.get("Authorization", "x")})
    return caught.value
