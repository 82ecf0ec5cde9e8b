"""Breaking connections under every event loop and with TLS: what transports can do differs."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ssl
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest

from bt_ibkr.emulator.server import EmulatorServer
from bt_ibkr.emulator.settings import EmulatorSettings
from bt_ibkr.emulator.tls import server_context

TEXT = aiohttp.WSMsgType.TEXT


def loop_factory(name: str) -> Callable[[], asyncio.AbstractEventLoop]:
    if name == "asyncio":
        return asyncio.new_event_loop
    uvloop = pytest.importorskip("uvloop")
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_connections_break_alike(loop: str, tls: bool) -> None:
    with asyncio.Runner(loop_factory=loop_factory(loop)) as runner:
        runner.run(scenario(tls))


async def scenario(tls: bool) -> None:
    settings = EmulatorSettings(
        port=0,
        speed="lockstep",
        tls=tls,
        heartbeat_s=0.02,
        synthetic_instruments=("AAPL",),
        history_days=1,
    )
    server = EmulatorServer(settings, tls=server_context("127.0.0.1") if tls else None)
    await server.start()
    try:
        async with client() as http, client() as bench:
            await break_everything(server, http, bench)
    finally:
        await asyncio.wait_for(server.stop(), 5)


def client() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=False))


async def break_everything(
    server: EmulatorServer, http: aiohttp.ClientSession, bench: aiohttp.ClientSession
) -> None:
    async def fault(**body: Any) -> None:
        async with bench.post(f"{server.control}/fault", json=body) as answer:
            assert answer.status == 200, await answer.text()

    async with http.ws_connect(server.ws) as ws:
        await ws.receive(timeout=5)
        await fault(kind="ws_reset")
        while (await ws.receive(timeout=5)).type is TEXT:
            pass
        assert ws.close_code == 1006
    await fault(kind="http", action="reset", path="/tickle")
    with pytest.raises(aiohttp.ClientOSError) as broken:
        await http.post(f"{server.url}/tickle", json={})
    assert broken.value.errno == errno.ECONNRESET
    async with http.ws_connect(server.ws) as ws:
        await ws.receive(timeout=5)
        await fault(kind="ws_stall", for_s=0.6)
        with contextlib.suppress(TimeoutError):
            while True:
                await ws.receive(timeout=0.3)
        assert (await ws.receive(timeout=5)).type is TEXT
        await fault(kind="restart", down_s=0.2)
        while (await ws.receive(timeout=5)).type is TEXT:
            pass
    with pytest.raises(aiohttp.ClientConnectorError):
        await http.post(f"{server.url}/tickle", json={})
    async with bench.get(f"{server.control}/faults") as answer:
        assert (await answer.json())["log"][-1]["kind"] == "restart"
    while server.edge.down:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    async with http.post(f"{server.url}/tickle", json={}) as answer:
        assert answer.status == 200


@pytest.mark.parametrize("certificate", ["new", "expired"])
async def test_another_certificate_after_a_restart(certificate: str) -> None:
    server = EmulatorServer(
        EmulatorSettings(port=0, speed="lockstep", tls=True, synthetic_instruments=("AAPL",), history_days=1),
        tls=server_context("127.0.0.1"),
    )
    await server.start()
    try:
        trust = await trusting(server)
        await trust_or_fail(server, trust)
        async with client() as bench:
            body = {"kind": "restart", "down_s": 0.0, "certificate": certificate}
            async with bench.post(f"{server.control}/fault", json=body) as answer:
                assert answer.status == 200
            while server.edge.down:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await trust_or_fail(server, trust)
        trust = await trusting(server)
        if certificate == "new":
            await trust_or_fail(server, trust)
        else:
            with pytest.raises(aiohttp.ClientConnectorCertificateError, match="expired"):
                await trust_or_fail(server, trust)
    finally:
        await asyncio.wait_for(server.stop(), 5)


async def trusting(server: EmulatorServer) -> ssl.SSLContext:
    """A context that trusts the certificate the server shows now."""
    address = ("127.0.0.1", server.port)
    shown = await asyncio.get_running_loop().run_in_executor(None, ssl.get_server_certificate, address)
    return ssl.create_default_context(cadata=shown)


async def trust_or_fail(server: EmulatorServer, trust: ssl.SSLContext) -> None:
    async with aiohttp.ClientSession() as http, http.get(f"{server.url}/tickle", ssl=trust) as answer:
        assert answer.status == 200
