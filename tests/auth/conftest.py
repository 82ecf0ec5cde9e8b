"""Keys made once, an emulator that asks for them, and sessions that log on with them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from bt_ibkr import redaction
from bt_ibkr.clock import SystemClock
from bt_ibkr.config import SessionSettings
from bt_ibkr.emulator.server import EmulatorServer
from bt_ibkr.emulator.services.oauth.settings import AuthenticationSettings
from bt_ibkr.emulator.settings import EmulatorSettings
from bt_ibkr.login import Login, OAuth1Login, OAuth2Login, TokenLogin
from bt_ibkr.session.auth.interface import Exchange
from bt_ibkr.session.pacing import PacingGate
from bt_ibkr.session.session import Session, SessionEvent, SessionState
from bt_ibkr.wire.frames import Frame

PATIENCE_S = 10.0
FAST: dict[str, Any] = {
    "paced": False,
    "request_timeout_s": 5.0,
    "connect_timeout_s": 5.0,
    "reconnect_first_s": 0.01,
    "reconnect_longest_s": 0.02,
}


class KeyPair(NamedTuple):
    """Files of a private key (mode 0600) and its public one."""

    private: Path
    public: Path


class Keys(NamedTuple):
    """Key pairs that no test changes: making them takes a second."""

    signature: KeyPair
    encryption: KeyPair
    client: KeyPair
    curve: KeyPair
    other: KeyPair


def write_private(path: Path, text: str, mode: int = 0o600) -> Path:
    """A file with exactly these permissions."""
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)
    return path


def copied(path: Path, to: Path) -> Path:
    """A copy that its owner alone can read."""
    return write_private(to, path.read_text(encoding="utf-8"))


def pair(folder: Path, name: str, key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> KeyPair:
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    to = folder / f"{name}_public.pem"
    to.write_bytes(public)
    return KeyPair(write_private(folder / f"{name}.pem", private.decode()), to)


@pytest.fixture(autouse=True)
def _known_values_of_this_test_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """What one test remembers must not be masked in another's messages."""
    monkeypatch.setattr(redaction, "_known", dict(redaction._known))
    monkeypatch.setattr(redaction, "_pattern", redaction._pattern)


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    folder = tmp_path_factory.mktemp("keys")

    def made(name: str, bits: int) -> KeyPair:
        return pair(folder, name, rsa.generate_private_key(public_exponent=65537, key_size=bits))

    return Keys(
        signature=made("signature", 2048),
        encryption=made("encryption", 2048),
        client=made("client", 3072),
        curve=pair(folder, "curve", ec.generate_private_key(ec.SECP256R1())),
        other=made("other", 3072),
    )


class ShiftedClock:
    """The machine's clock, so many nanoseconds off; ``shift_ns`` may be changed."""

    def __init__(self, shift_ns: int = 0) -> None:
        self.shift_ns = shift_ns
        self._true = SystemClock()

    def now_ns(self) -> int:
        return self._true.now_ns() + self.shift_ns

    def wall_s(self, market_ns: int) -> float:
        return self._true.wall_s(market_ns)


class Watch:
    """What a session tells, and a way to wait for it."""

    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self.states: list[SessionState] = []
        self._waiting: list[asyncio.Future[None]] = []

    def on_frame(self, frame: Frame) -> None:
        self.frames.append(frame)

    def on_state(self, event: SessionEvent) -> None:
        self.states.append(event.state)
        for future in self._waiting:
            if not future.done():
                future.set_result(None)
        self._waiting.clear()

    async def until(self, wanted: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not wanted():
                future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                self._waiting.append(future)
                await future


StartEmulator = Callable[..., Awaitable[EmulatorServer]]
MakeSession = Callable[..., tuple[Session, Watch]]


@pytest.fixture
async def start_emulator() -> AsyncIterator[StartEmulator]:
    """Emulators that ask for authentication of the given kind."""
    servers: list[EmulatorServer] = []

    async def start(authentication: AuthenticationSettings, **changes: Any) -> EmulatorServer:
        plain: dict[str, Any] = {
            "port": 0,
            "speed": "lockstep",
            "synthetic_instruments": ("AAPL",),
            "history_days": 0,
            "authentication": authentication,
        }
        server = EmulatorServer(EmulatorSettings(**(plain | changes)))
        await server.start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        await server.stop()


@pytest.fixture
async def make_session() -> AsyncIterator[MakeSession]:
    made: list[Session] = []
    before = asyncio.all_tasks()

    def make(url: str, login: Login, **changes: Any) -> tuple[Session, Watch]:
        watch = Watch()
        settings = SessionSettings(base_url=url, login=login, **(FAST | changes))
        session = Session(settings, on_frame=watch.on_frame, on_state=watch.on_state)
        made.append(session)
        return session, watch

    yield make
    for session in made:
        await session.close()
    left = {task.get_name() for task in asyncio.all_tasks() - before}
    assert not left & {"websocket", "websocket-keep-alive", "tickle", "reauthenticate"}


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session:
        yield session


def exchange(url: str, clock: ShiftedClock | None = None) -> Exchange:
    """Asks the server at ``url`` for credentials, without pacing."""
    return Exchange(SessionSettings(base_url=url, **FAST), PacingGate(()), clock or ShiftedClock())


def oauth1(keys: Keys, **changes: Any) -> AuthenticationSettings:
    """The emulator's side of OAuth 1.0a with the keys of the tests."""
    plain: dict[str, Any] = {
        "kind": "oauth1a",
        "signature_key": str(keys.signature.public),
        "encryption_key": str(keys.encryption.public),
    }
    return AuthenticationSettings(**(plain | changes))


def oauth1_login(server: EmulatorServer, keys: Keys, folder: Path, **changes: Any) -> OAuth1Login:
    """The client's side of it."""
    files = server.door.material.write(folder)
    plain: dict[str, Any] = {
        "consumer_key": server.settings.authentication.consumer_key,
        "access_token": str(files["access_token"]),
        "access_token_secret": str(files["access_token_secret"]),
        "signature_key": str(keys.signature.private),
        "encryption_key": str(keys.encryption.private),
        "dh_parameters": str(files["dhparam.pem"]),
    }
    return OAuth1Login(**(plain | changes))


def oauth2(keys: Keys, **changes: Any) -> AuthenticationSettings:
    plain: dict[str, Any] = {"kind": "oauth2", "public_key": str(keys.client.public)}
    return AuthenticationSettings(**(plain | changes))


def oauth2_login(keys: Keys, **changes: Any) -> OAuth2Login:
    plain: dict[str, Any] = {
        "client_id": "emulator-client",
        "key_id": "main",
        "private_key": str(keys.client.private),
        "credential": "emulator",
    }
    return OAuth2Login(**(plain | changes))


def token_login(server: EmulatorServer, folder: Path, **changes: Any) -> TokenLogin:
    files = server.door.material.write(folder)
    return TokenLogin(token=str(files["token"]), **changes)


def others_could_read(path: Path) -> Path:
    """The file, readable by everybody."""
    path.chmod(0o644)
    return path


POSIX = pytest.mark.skipif(os.name != "posix", reason="permissions of files are those of POSIX")
