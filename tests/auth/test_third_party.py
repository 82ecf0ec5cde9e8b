"""A third party asks for a user's access, gets it granted, and logs on with it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp
import pytest

from bt_ibkr.errors import AuthenticationError
from bt_ibkr.login import OAuth1Login
from bt_ibkr.session.auth.third_party import ThirdPartyGrant
from bt_ibkr.session.session import SessionState
from tests.auth.conftest import exchange, oauth1

if TYPE_CHECKING:
    from bt_ibkr.emulator.server import EmulatorServer
    from tests.auth.conftest import Keys, MakeSession, StartEmulator


def grant_of(server: EmulatorServer, keys: Keys, **changes: str) -> ThirdPartyGrant:
    root = server.url.removesuffix("/v1/api")
    plain = {"consumer_key": "EMULATOR1", "signature_key": str(keys.signature.private)}
    return ThirdPartyGrant(
        exchange=exchange(server.url), authorize_url=f"{root}/authorize", **(plain | changes)
    )


async def test_the_whole_way(
    keys: Keys,
    tmp_path: Path,
    start_emulator: StartEmulator,
    make_session: MakeSession,
    client: aiohttp.ClientSession,
) -> None:
    server = await start_emulator(oauth1(keys, third_party=True))
    grant = grant_of(server, keys)
    request = await grant.request_token(client)
    async with client.get(request.authorization_url.reveal()) as page:
        verifier = await page.text()
    access = await grant.access_token(client, request, verifier)
    assert access.is_paper is True
    access.store(tmp_path / "token", tmp_path / "secret")
    files = server.door.material.write(tmp_path / "other")
    login = OAuth1Login(
        consumer_key="EMULATOR1",
        access_token=str(tmp_path / "token"),
        access_token_secret=str(tmp_path / "secret"),
        signature_key=str(keys.signature.private),
        encryption_key=str(keys.encryption.private),
        dh_parameters=str(files["dhparam.pem"]),
    )
    session, watch = make_session(server.url, login)
    await session.open()
    assert watch.states[-1] is SessionState.STREAMING
    for hidden in (request.token, access.token, access.secret, request.authorization_url):
        assert hidden.reveal() not in repr((request, access))
    # Granted once: the request token is used up.
    with pytest.raises(AuthenticationError):
        await grant.access_token(client, request, verifier)


async def test_the_browser_is_sent_back_with_the_verifier(
    keys: Keys, start_emulator: StartEmulator, client: aiohttp.ClientSession
) -> None:
    server = await start_emulator(oauth1(keys, third_party=True))
    grant = grant_of(server, keys)
    request = await grant.request_token(client, redirect_uri="http://127.0.0.1:1/back?a=b")
    async with client.get(request.authorization_url.reveal(), allow_redirects=False) as page:
        assert page.status == 302
        assert page.headers["Location"].startswith("http://127.0.0.1:1/back?a=b&oauth_token=")
        verifier = page.headers["Location"].rpartition("oauth_verifier=")[2]
    assert await grant.access_token(client, request, verifier)


async def test_refusals(keys: Keys, start_emulator: StartEmulator, client: aiohttp.ClientSession) -> None:
    server = await start_emulator(oauth1(keys, third_party=True))
    with pytest.raises(AuthenticationError, match="invalid consumer"):
        await grant_of(server, keys, consumer_key="NOBODY").request_token(client)
    with pytest.raises(AuthenticationError, match="invalid signature"):
        await grant_of(server, keys, signature_key=str(keys.other.private)).request_token(client)
    grant = grant_of(server, keys)
    request = await grant.request_token(client)
    with pytest.raises(AuthenticationError, match="invalid verifier"):
        await grant.access_token(client, request, "not-granted-yet")
    async with client.get(request.authorization_url.reveal()):
        pass
    with pytest.raises(AuthenticationError, match="invalid verifier"):
        await grant.access_token(client, request, "guessed-wrong")


async def test_first_party_consumers_may_not_ask(
    keys: Keys, start_emulator: StartEmulator, client: aiohttp.ClientSession
) -> None:
    server = await start_emulator(oauth1(keys))
    with pytest.raises(AuthenticationError):
        await grant_of(server, keys).request_token(client)
