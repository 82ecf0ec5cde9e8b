"""REST calls: what leaves, what is never repeated, and what each kind of failure becomes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

from bt_ibkr.errors import (
    PacingPenaltyError,
    RequestTimeoutError,
    ResponseError,
    SessionError,
    UnreachableError,
    WireError,
)

if TYPE_CHECKING:
    from tests.session.conftest import Gateway, MakeClient


class Killer:
    """Reads whole requests and hangs up, as a gateway does that dies; counts what it read."""

    def __init__(self, answer: bytes = b"") -> None:
        self.read: list[bytes] = []
        self.answer = answer
        self.url = ""
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{port}/v1/api"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(
            (
                int(line.split(b":")[1])
                for line in head.split(b"\r\n")
                if line.lower().startswith(b"content-len")
            ),
            0,
        )
        self.read.append(head + await reader.readexactly(length))
        writer.write(self.answer)
        writer.close()

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()


@pytest.fixture
async def killer() -> AsyncIterator[Killer]:
    server = Killer()
    await server.start()
    yield server
    await server.stop()


async def test_every_post_has_a_json_body_and_its_length(gateway: Gateway, make_client: MakeClient) -> None:
    """Without Content-Length the edge answers HTTP 411."""
    http = make_client(gateway.url)
    gateway.answers["POST /logout"] = lambda _: {"status": True}
    await http.post("/logout")
    await http.post("/logout", {"a": 1})
    empty, full = gateway.seen
    assert (empty.body, full.body) == (b"{}", b'{"a":1}')
    for one in (empty, full):
        assert one.headers["Content-Length"] == str(len(one.body))
        assert one.headers["Content-Type"] == "application/json"
        assert "Transfer-Encoding" not in one.headers


async def test_get_and_delete_have_none(gateway: Gateway, make_client: MakeClient) -> None:
    http = make_client(gateway.url)
    gateway.answers |= {"GET /x": lambda _: {}, "DELETE /x": lambda _: {}}
    await http.get("/x", {"a": "1 2"})
    await http.send("DELETE", "/x")
    assert [one.body for one in gateway.seen] == [b"", b""]


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"])
async def test_a_post_is_never_repeated(killer: Killer, make_client: MakeClient, answer: bytes) -> None:
    """The request was read, so its outcome is open: no second one, and no "unreachable"."""
    killer.answer = answer
    http = make_client(killer.url)
    with pytest.raises(RequestTimeoutError) as caught:
        await http.send("POST", "/iserver/account/DU1/orders", body={"orders": []})
    assert not isinstance(caught.value, UnreachableError)
    assert not caught.value.retryable
    assert len(killer.read) == 1
    assert killer.read[0].endswith(b'{"orders":[]}')


async def test_a_post_over_a_kept_connection_is_not_repeated(
    start_gateway: Any, make_client: MakeClient
) -> None:
    """The first answer came, the connection was kept, the second request killed it."""
    gateway = await start_gateway()
    transports = []

    def kill(_: object) -> web.Response:
        transports.append(1)
        raise asyncio.CancelledError

    gateway.answers |= {"POST /a": lambda _: {}, "POST /b": kill}
    http = make_client(gateway.url)
    await http.post("/a")
    with pytest.raises(RequestTimeoutError):
        await http.send("POST", "/b")
    assert gateway.lines == ["POST /a", "POST /b"]


async def test_no_answer_in_time(gateway: Gateway, make_client: MakeClient) -> None:
    forever = asyncio.Event()

    async def wait(_: object) -> dict[str, object]:
        await forever.wait()
        return {}

    gateway.answers["POST /slow"] = wait
    http = make_client(gateway.url, request_timeout_s=0.05)
    with pytest.raises(RequestTimeoutError, match=r"POST .*/slow was not answered in time"):
        await http.send("POST", "/slow")
    forever.set()
    assert gateway.lines == ["POST /slow"]


async def test_refused_connection(dead_url: str, make_client: MakeClient) -> None:
    with pytest.raises(UnreachableError) as caught:
        await make_client(dead_url).send("POST", "/tickle")
    assert caught.value.retryable


async def test_penalty(gateway: Gateway, make_client: MakeClient) -> None:
    gateway.answers["GET /x"] = lambda _: web.json_response({"error": "slow down"}, status=429)
    with pytest.raises(PacingPenaltyError):
        await make_client(gateway.url).get("/x")
    assert gateway.lines == ["GET /x"]


async def test_html_error_page(gateway: Gateway, make_client: MakeClient) -> None:
    with pytest.raises(ResponseError) as caught:
        await make_client(gateway.url).get("/nowhere")
    assert caught.value.status == 404
    assert "Resource not found" in caught.value.body


async def test_html_under_200(gateway: Gateway, make_client: MakeClient) -> None:
    gateway.answers["GET /x"] = lambda _: web.Response(text="<html></html>", content_type="text/html")
    with pytest.raises(WireError):
        await make_client(gateway.url).get("/x")


async def test_error_under_200(gateway: Gateway, make_client: MakeClient) -> None:
    gateway.answers["GET /x"] = lambda _: {"error": "no bridge"}
    with pytest.raises(ResponseError) as caught:
        await make_client(gateway.url).get("/x")
    assert (caught.value.status, caught.value.body) == (200, "no bridge")


async def test_a_redirect_is_not_followed(gateway: Gateway, make_client: MakeClient) -> None:
    """The gateway redirects to its login page; an order must not be sent there."""
    gateway.answers["POST /x"] = lambda _: web.Response(status=302, headers={"Location": "/v1/api/y"})
    gateway.answers["POST /y"] = gateway.answers["GET /y"] = lambda _: {}
    reply = await make_client(gateway.url).send("POST", "/x")
    assert reply.status == 302
    assert gateway.lines == ["POST /x"]


async def test_a_long_body_is_whole(gateway: Gateway, make_client: MakeClient) -> None:
    rows = [{"n": number, "text": "x" * 100} for number in range(20_000)]
    gateway.answers["GET /x"] = lambda _: web.Response(body=json.dumps(rows).encode())
    assert await make_client(gateway.url).get("/x") == rows


@pytest.mark.parametrize(
    "raw",
    [
        b"garbage\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: nine\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nnone",
    ],
)
async def test_a_server_that_speaks_no_http(killer: Killer, make_client: MakeClient, raw: bytes) -> None:
    killer.answer = raw
    with pytest.raises(SessionError):
        await make_client(killer.url).send("GET", "/x")
