"""What the server refuses: wrong keys, wrong clocks, replays, ends; and what the client makes of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import jwt
import msgspec
import pytest

from bt_ibkr.clock import NS_PER_S
from bt_ibkr.config import SessionSettings
from bt_ibkr.emulator.services.oauth.settings import AuthenticationSettings
from bt_ibkr.errors import AuthenticationError, PacingPenaltyError, UsageError
from bt_ibkr.login import OAuth1Login, OAuth2Login
from bt_ibkr.session.auth import signing
from bt_ibkr.session.auth.bearer import TokenAuthenticator
from bt_ibkr.session.auth.interface import Exchange
from bt_ibkr.session.auth.oauth1a import OAuth1Authenticator, oauth_params
from bt_ibkr.session.auth.oauth2 import OAuth2Authenticator
from bt_ibkr.session.pacing import PacingGate
from bt_ibkr.session.secrets import read_private_key
from tests.auth.conftest import (
    POSIX,
    ShiftedClock,
    copied,
    exchange,
    oauth1,
    oauth1_login,
    oauth2,
    oauth2_login,
    others_could_read,
    token_login,
    write_private,
)

if TYPE_CHECKING:
    from bt_ibkr.emulator.server import EmulatorServer
    from tests.auth.conftest import Keys, StartEmulator

HOUR_NS = 3600 * NS_PER_S


async def status(
    client: aiohttp.ClientSession, url: str, headers: Mapping[str, str], **more: Any
) -> tuple[int, str]:
    method = more.pop("method", "GET")
    async with client.request(method, url, headers=headers, **more) as response:
        return response.status, await response.text()


def changed(login: Any, **changes: Any) -> Any:
    return msgspec.structs.replace(login, **changes)


# OAuth 1.0a


async def first_party(server: EmulatorServer, keys: Keys, folder: Path, **changes: Any) -> OAuth1Login:
    return oauth1_login(server, keys, folder, **changes)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"consumer_key": "NOBODY123"}, "invalid consumer"),
        ({"realm": "test_realm"}, "invalid realm"),
        ({"signature_key": "other"}, "invalid signature"),
        ({"access_token": "unknown"}, "No access secret key found"),
    ],
)
async def test_live_session_token_is_refused(
    change: dict[str, str],
    told: str,
    keys: Keys,
    tmp_path: Path,
    start_emulator: StartEmulator,
    client: aiohttp.ClientSession,
) -> None:
    server = await start_emulator(oauth1(keys))
    if "signature_key" in change:
        change = {"signature_key": str(keys.other.private)}
    if "access_token" in change:
        change = {"access_token": str(write_private(tmp_path / "unknown", "0123456789abcdef0123"))}
    login = oauth1_login(server, keys, tmp_path, **change)
    authenticator = OAuth1Authenticator(login, exchange(server.url))
    with pytest.raises(AuthenticationError, match=told) as caught:
        await authenticator.log_on(client)
    assert "HTTP 401" in caught.value.message
    assert caught.value.remedy
    with pytest.raises(AuthenticationError):
        authenticator.headers("GET", server.url, {})
    with pytest.raises(AuthenticationError):
        authenticator.websocket(server.ws, "")


async def test_consumers_refusal_is_the_recorded_one(
    keys: Keys, start_emulator: StartEmulator, client: aiohttp.ClientSession
) -> None:
    server = await start_emulator(oauth1(keys))
    params = oauth_params("NOBODY123", signing.RSA_SHA256, 1_700_000_000, oauth_token="x")
    headers = {"Authorization": signing.authorization(params, "AAAA", "limited_poa")}
    told = await status(client, f"{server.url}/oauth/live_session_token", headers, method="POST")
    assert told == (401, '{"error":"id: 39687, error: invalid consumer","statusCode":401}')


@pytest.mark.parametrize("shift_ns", [-HOUR_NS, HOUR_NS])
async def test_wrong_clock(
    shift_ns: int, keys: Keys, tmp_path: Path, start_emulator: StartEmulator, client: aiohttp.ClientSession
) -> None:
    server = await start_emulator(oauth1(keys))
    clock = ShiftedClock(shift_ns)
    authenticator = OAuth1Authenticator(oauth1_login(server, keys, tmp_path), exchange(server.url, clock))
    with pytest.raises(AuthenticationError, match="invalid timestamp"):
        await authenticator.log_on(client)
    clock.shift_ns = 0
    await authenticator.log_on(client)
    url = f"{server.url}/portfolio/accounts"
    assert (await status(client, url, authenticator.headers("GET", url, {})))[0] == 200
    clock.shift_ns = shift_ns
    assert await status(client, url, authenticator.headers("GET", url, {})) == (
        401,
        '{"error":"id: 39691, error: invalid timestamp","statusCode":401}',
    )


async def test_replay_and_tampering(
    keys: Keys, tmp_path: Path, start_emulator: StartEmulator, client: aiohttp.ClientSession
) -> None:
    server = await start_emulator(oauth1(keys))
    authenticator = OAuth1Authenticator(oauth1_login(server, keys, tmp_path), exchange(server.url))
    await authenticator.log_on(client)
    url = f"{server.url}/trsrv/stocks"
    params = {"symbols": "AAPL"}
    headers = authenticator.headers("GET", url, params)
    # Refused before it was used: the right request with this nonce still passes afterwards.
    assert (await status(client, url, headers, params={"symbols": "IBM"}))[0] == 401
    assert (await status(client, url, headers))[0] == 401
    assert (await status(client, url, headers, params=params))[0] == 200
    assert await status(client, url, headers, params=params) == (
        401,
        '{"error":"id: 39692, error: nonce already used","statusCode":401}',
    )
    first, second = (authenticator.headers("GET", url, params)["Authorization"] for _ in range(2))
    assert first != second


async def test_live_session_token_that_is_over(
    keys: Keys, tmp_path: Path, start_emulator: StartEmulator, client: aiohttp.ClientSession
) -> None:
    server = await start_emulator(oauth1(keys))
    authenticator = OAuth1Authenticator(oauth1_login(server, keys, tmp_path), exchange(server.url))
    await authenticator.log_on(client)
    await authenticator.log_on(client)
    url = f"{server.url}/portfolio/accounts"
    server.door.expire()
    headers = authenticator.headers("GET", url, {})
    assert (await status(client, url, headers))[0] == 401
    with pytest.raises(aiohttp.WSServerHandshakeError):
        await client.ws_connect(authenticator.websocket(server.ws, "")[0])
    # The client holds it for valid until it is told otherwise.
    await authenticator.log_on(client)
    assert (await status(client, url, authenticator.headers("GET", url, {})))[0] == 401
    authenticator.forget()
    await authenticator.log_on(client)
    assert (await status(client, url, authenticator.headers("GET", url, {})))[0] == 200


async def test_end_by_the_clients_own_clock(
    keys: Keys, tmp_path: Path, start_emulator: StartEmulator, client: aiohttp.ClientSession
) -> None:
    server = await start_emulator(oauth1(keys, lifetime_s=100.0, skew_s=1000.0))
    clock = ShiftedClock()
    authenticator = OAuth1Authenticator(
        oauth1_login(server, keys, tmp_path, renew_before_s=10.0), exchange(server.url, clock)
    )
    await authenticator.log_on(client)
    assert not await authenticator.renew(client)
    clock.shift_ns = 95 * NS_PER_S
    assert await authenticator.renew(client)
    clock.shift_ns = 200 * NS_PER_S
    with pytest.raises(AuthenticationError, match="over already"):
        await authenticator.log_on(client)


@pytest.mark.parametrize(
    "header", ["", "Bearer x", 'OAuth oauth_nonce="1"', 'OAuth a="1", a="2"', "OAuth ,,,"]
)
async def test_headers_that_are_none(
    header: str, keys: Keys, start_emulator: StartEmulator, client: aiohttp.ClientSession
) -> None:
    server = await start_emulator(oauth1(keys))
    got, _ = await status(client, f"{server.url}/tickle", {"Authorization": header})
    assert got in (400, 401)


async def test_server_that_does_not_hold_the_secret(
    keys: Keys, tmp_path: Path, start_emulator: StartEmulator, client: aiohttp.ClientSession
) -> None:
    """Other Diffie-Hellman parameters than the registered ones: the server's proof does not fit."""
    server = await start_emulator(oauth1(keys))
    login = oauth1_login(server, keys, tmp_path)
    prime = server.door.material.prime
    server.door.material.generator = 5
    assert prime.bit_length() == 2048
    authenticator = OAuth1Authenticator(login, exchange(server.url))
    with pytest.raises(AuthenticationError, match="does not match its signature"):
        await authenticator.log_on(client)


async def test_secret_of_another_encryption_key(
    keys: Keys, tmp_path: Path, start_emulator: StartEmulator, client: aiohttp.ClientSession
) -> None:
    """Modern TLS libraries answer a wrong key with random bytes: then the server refuses the signature."""
    server = await start_emulator(oauth1(keys))
    login = oauth1_login(server, keys, tmp_path, encryption_key=str(keys.other.private))
    with pytest.raises((AuthenticationError, UsageError)):
        await OAuth1Authenticator(login, exchange(server.url)).log_on(client)


@POSIX
@pytest.mark.parametrize("name", ["access_token", "access_token_secret", "signature_key", "encryption_key"])
async def test_file_that_others_can_read(
    name: str, keys: Keys, tmp_path: Path, start_emulator: StartEmulator, client: aiohttp.ClientSession
) -> None:
    server = await start_emulator(oauth1(keys))
    login = oauth1_login(server, keys, tmp_path)
    copy = others_could_read(copied(Path(getattr(login, name)), tmp_path / "copy"))
    with pytest.raises(UsageError, match="chmod 600"):
        await OAuth1Authenticator(changed(login, **{name: str(copy)}), exchange(server.url)).log_on(client)


async def test_too_many_requests(
    keys: Keys, tmp_path: Path, start_emulator: StartEmulator, client: aiohttp.ClientSession
) -> None:
    """A penalty that a log-on earns is everybody's: nothing is sent any more, the next log-on neither."""
    server = await start_emulator(oauth1(keys), pacing="strict")
    gate = PacingGate(())
    asking = Exchange(SessionSettings(base_url=server.url), gate, ShiftedClock())
    authenticator = OAuth1Authenticator(oauth1_login(server, keys, tmp_path), asking)
    for _ in range(11):
        await status(client, f"{server.url}/tickle", {})
    with pytest.raises(PacingPenaltyError, match="HTTP 429"):
        await authenticator.log_on(client)
    assert gate.status().penalty_s > 0
    with pytest.raises(PacingPenaltyError):
        await authenticator.log_on(client)


# OAuth 2.0


async def log_on2(
    server: EmulatorServer,
    client: aiohttp.ClientSession,
    login: OAuth2Login,
    clock: ShiftedClock | None = None,
) -> OAuth2Authenticator:
    authenticator = OAuth2Authenticator(login, exchange(server.url, clock))
    await authenticator.log_on(client)
    return authenticator


@pytest.mark.parametrize("variant", ["standard", "institutional"])
@pytest.mark.parametrize(
    "change",
    [
        {"client_id": "somebody"},
        {"key_id": "other"},
        {"private_key": "other"},
        {"audience": "https://elsewhere.example/token"},
        {"credential": "somebody"},
        {"scope": "everything"},
        {"scope": "echo.read"},
    ],
    ids=lambda change: "-".join(change.values()),
)
async def test_assertion_is_refused(
    change: dict[str, str],
    variant: str,
    keys: Keys,
    start_emulator: StartEmulator,
    client: aiohttp.ClientSession,
) -> None:
    server = await start_emulator(oauth2(keys, variant=variant))
    if "private_key" in change:
        change = {"private_key": str(keys.other.private)}
    login = oauth2_login(keys, variant=variant, **change)
    with pytest.raises(AuthenticationError, match=r"HTTP 40[01]"):
        await log_on2(server, client, login)


@pytest.mark.parametrize("shift_ns", [-HOUR_NS, HOUR_NS])
async def test_wrong_clock_of_oauth2(
    shift_ns: int, keys: Keys, start_emulator: StartEmulator, client: aiohttp.ClientSession
) -> None:
    server = await start_emulator(oauth2(keys))
    with pytest.raises(AuthenticationError, match="over or not good yet"):
        await log_on2(server, client, oauth2_login(keys), ShiftedClock(shift_ns))


async def test_variants_do_not_mix(
    keys: Keys, start_emulator: StartEmulator, client: aiohttp.ClientSession
) -> None:
    from bt_ibkr.errors import ResponseError

    server = await start_emulator(oauth2(keys, variant="institutional"))
    with pytest.raises(ResponseError, match="404"):
        await log_on2(server, client, oauth2_login(keys))
    root = server.url.removesuffix("/v1/api")
    got, told = await status(client, f"{root}/oauth/token", {}, method="POST", data={"grant_type": "x"})
    assert got == 415
    assert '"title":"Unsupported Media Type"' in told


@pytest.mark.parametrize("algorithm", ["none", "HS256"])
async def test_algorithms_of_forgers(
    algorithm: str, keys: Keys, start_emulator: StartEmulator, client: aiohttp.ClientSession
) -> None:
    server = await start_emulator(oauth2(keys))
    claims = {"iss": "emulator-client", "sub": "emulator-client", "aud": "/token", "iat": 1, "exp": 9e9}
    secret = "x" * 64 if algorithm == "HS256" else ""
    forged = jwt.encode(claims, secret, algorithm=algorithm, headers={"kid": "main"})
    form = {
        "grant_type": "client_credentials",
        "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
        "client_assertion": forged,
        "scope": "sso-sessions.write",
    }
    root = server.url.removesuffix("/v1/api")
    got, told = await status(client, f"{root}/oauth2/api/v1/token", {}, method="POST", data=form)
    assert got == 401
    assert "signature is not valid" in told


async def test_bearers_that_are_refused(
    keys: Keys, start_emulator: StartEmulator, client: aiohttp.ClientSession
) -> None:
    """No token, an unknown one, an access token instead of a session's, one that is over."""
    server = await start_emulator(oauth2(keys))
    authenticator = await log_on2(server, client, oauth2_login(keys))
    url = f"{server.url}/portfolio/accounts"
    assert (await status(client, url, authenticator.headers("GET", url, {})))[0] == 200
    tokens = {token: issued.session for token, issued in server.door.oauth2._issued.items()}
    access = next(token for token, session in tokens.items() if not session)
    for header in ({}, {"Authorization": "Bearer nobody"}, {"Authorization": f"Bearer {access}"}):
        assert await status(client, url, header) == (401, "not authenticated")
    for query in ("", "?bearer_token=nobody", f"?sessionToken={access}"):
        with pytest.raises(aiohttp.WSServerHandshakeError):
            await client.ws_connect(server.ws + query)
    server.door.expire()
    assert (await status(client, url, authenticator.headers("GET", url, {})))[0] == 401


async def test_session_without_an_access_token(
    keys: Keys, start_emulator: StartEmulator, client: aiohttp.ClientSession
) -> None:
    server = await start_emulator(oauth2(keys))
    root = server.url.removesuffix("/v1/api")
    key: Any = read_private_key(str(keys.client.private), "The key")
    body = jwt.encode({"iss": "emulator-client", "iat": 1, "exp": 9e9}, key, algorithm="RS256")
    headers = {"Content-Type": "application/jwt", "Authorization": "Bearer nobody"}
    got, told = await status(client, f"{root}/gw/api/v1/sso-sessions", headers, method="POST", data=body)
    assert got == 401
    assert '"title":"Unauthorized"' in told


@pytest.mark.parametrize(
    ("algorithm", "key", "match"),
    [
        ("RS256", "curve", "needs an RSA key"),
        ("ES256", "client", "needs a P-256 key"),
        ("RS256", "signature", "3072 or more"),
    ],
)
async def test_keys_that_do_not_fit(
    algorithm: str,
    key: str,
    match: str,
    keys: Keys,
    start_emulator: StartEmulator,
    client: aiohttp.ClientSession,
) -> None:
    server = await start_emulator(oauth2(keys))
    login = oauth2_login(keys, algorithm=algorithm, private_key=str(getattr(keys, key).private))
    with pytest.raises(UsageError, match=match):
        await log_on2(server, client, login)


def test_address_that_is_none(keys: Keys) -> None:
    with pytest.raises(UsageError, match="not an address"):
        oauth2_login(keys, ip="at home")


# Tokens


async def test_token_is_refused_until_another_is_stored(
    keys: Keys, tmp_path: Path, start_emulator: StartEmulator, client: aiohttp.ClientSession
) -> None:
    server = await start_emulator(AuthenticationSettings(kind="token"))
    login = token_login(server, tmp_path)
    right = server.door.material.token
    write_private(Path(login.token), "wrong-token-123")
    authenticator = TokenAuthenticator(login, exchange(server.url))
    await authenticator.log_on(client)
    url = f"{server.url}/portfolio/accounts"
    assert (await status(client, url, authenticator.headers("GET", url, {})))[0] == 401
    authenticator.forget()
    with pytest.raises(AuthenticationError, match="no other was stored"):
        await authenticator.log_on(client)
    write_private(Path(login.token), right)
    await authenticator.log_on(client)
    assert (await status(client, url, authenticator.headers("GET", url, {})))[0] == 200


async def test_token_that_tells_its_end(tmp_path: Path, client: aiohttp.ClientSession) -> None:
    from bt_ibkr.login import TokenLogin

    clock = ShiftedClock()
    now = clock.now_ns() // NS_PER_S

    def store(ends: int) -> None:
        write_private(tmp_path / "token", jwt.encode({"exp": ends}, "k" * 32, algorithm="HS256"))

    store(now + 1000)
    authenticator = TokenAuthenticator(
        TokenLogin(token=str(tmp_path / "token")), exchange("http://127.0.0.1:9/v1/api", clock)
    )
    await authenticator.log_on(client)
    assert authenticator.expires_ns == (now + 1000) * NS_PER_S
    assert not await authenticator.renew(client)
    clock.shift_ns = 960 * NS_PER_S
    assert not await authenticator.renew(client), "the same token is stored still"
    store(now + 5000)
    assert await authenticator.renew(client)
    clock.shift_ns = 6000 * NS_PER_S
    with pytest.raises(AuthenticationError, match="over"):
        await authenticator.log_on(client)
