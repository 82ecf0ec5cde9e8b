"""TLS with the gateway's self-signed certificate: refused unless the user says whom to trust."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from bt_ibkr.config import Trust
from bt_ibkr.emulator.tls import server_context
from bt_ibkr.errors import SessionError, TrustError, UsageError
from bt_ibkr.session.http import ssl_context

if TYPE_CHECKING:
    from tests.session.conftest import Gateway, MakeClient, MakeSession, StartEmulator, StartGateway


def certificate_of(url: str, into: Path) -> Path:
    """The server's certificate, as a user would fetch it."""
    host, port = url.removeprefix("https://").split("/")[0].split(":")
    into.write_text(ssl.get_server_certificate((host, int(port))), encoding="ascii")
    return into


async def fetch_certificate(url: str, into: Path) -> Path:
    import asyncio

    return await asyncio.to_thread(certificate_of, url, into)


@pytest.fixture
async def secure(start_gateway: StartGateway) -> Gateway:
    return await start_gateway(server_context("127.0.0.1"))


async def test_self_signed_is_refused(secure: Gateway, make_session: MakeSession) -> None:
    session, _ = make_session(secure.url)
    with pytest.raises(TrustError) as caught:
        await session.open()
    assert "--ca-file" in caught.value.remedy
    assert caught.value.exit_code == 7
    assert secure.seen == []


async def test_the_ca_file_makes_it_trusted(
    secure: Gateway, make_session: MakeSession, tmp_path: Path
) -> None:
    """REST and WebSocket alike."""
    ca_file = await fetch_certificate(secure.url, tmp_path / "gateway.pem")
    session, _ = make_session(secure.url, trust=Trust(ca_file=str(ca_file)))
    await session.open()
    assert session.socket.ready


async def test_the_ca_file_does_not_check_the_host(
    secure: Gateway, make_client: MakeClient, start_gateway: StartGateway, tmp_path: Path
) -> None:
    """The gateway's own certificate names no host that a user would type."""
    other = await start_gateway(server_context("gateway.example"))
    ca_file = await fetch_certificate(other.url, tmp_path / "gateway.pem")
    http = make_client(other.url, trust=Trust(ca_file=str(ca_file)))
    assert await http.post("/tickle")


async def test_insecure_takes_any(secure: Gateway, make_session: MakeSession) -> None:
    session, _ = make_session(secure.url, trust=Trust(insecure=True))
    await session.open()
    assert session.socket.ready


async def test_a_wrong_ca_is_refused(
    secure: Gateway, start_gateway: StartGateway, make_session: MakeSession, tmp_path: Path
) -> None:
    other = await start_gateway(server_context("127.0.0.1"))
    ca_file = await fetch_certificate(other.url, tmp_path / "other.pem")
    session, _ = make_session(secure.url, trust=Trust(ca_file=str(ca_file)))
    with pytest.raises(TrustError):
        await session.open()
    assert secure.seen == []


@pytest.mark.parametrize("text", ["", "no certificate", "-----BEGIN CERTIFICATE-----\nx\n"])
async def test_a_ca_file_without_certificate(make_session: MakeSession, tmp_path: Path, text: str) -> None:
    path = tmp_path / "empty.pem"
    path.write_text(text, encoding="ascii")
    session, _ = make_session("https://127.0.0.1:1/v1/api", trust=Trust(ca_file=str(path)))
    with pytest.raises(UsageError) as caught:
        await session.open()
    assert str(path) in caught.value.message
    assert "PEM" in caught.value.remedy


async def test_https_asked_of_a_plain_server(gateway: Gateway, make_session: MakeSession) -> None:
    """A common mix-up; the message says what is wrong rather than that nobody is there."""
    session, _ = make_session(gateway.url.replace("http:", "https:"), trust=Trust(insecure=True))
    with pytest.raises(SessionError) as caught:
        await session.open()
    assert "Nobody answers" not in caught.value.message
    assert "TLS" in str(caught.value)


async def test_http_asked_of_a_tls_server(secure: Gateway, make_session: MakeSession) -> None:
    session, _ = make_session(secure.url.replace("https:", "http:"))
    with pytest.raises(SessionError):
        await session.open()


async def test_the_emulators_own_tls(start_emulator: StartEmulator, make_session: MakeSession) -> None:
    emulator = await start_emulator(tls=server_context("127.0.0.1"))
    session, _ = make_session(emulator.server.url, trust=Trust(insecure=True))
    await session.open()
    assert session.accounts.selected == "DU1234567"


def test_plain_http_needs_no_judgement() -> None:
    assert ssl_context(Trust(), "http://127.0.0.1/v1/api") is True
    assert ssl_context(Trust(), "https://127.0.0.1/v1/api") is True
