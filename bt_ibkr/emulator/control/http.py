"""Control over HTTP, ``/control/NAME``, and over one WebSocket, ``/control/ws``."""

from __future__ import annotations

import asyncio
import inspect
import logging
from typing import Any

import msgspec
from aiohttp import WSMsgType, web

from bt_ibkr.emulator.control.arguments import ControlError
from bt_ibkr.emulator.control.operations import Answer, Operations
from bt_ibkr.emulator.services.json import decode, encode

_LOGGER = logging.getLogger(__name__)
_READ = ("state", "ledger", "book", "executions", "wait", "requests", "faults")


def add_routes(app: web.Application, operations: Operations) -> None:
    """Serve ``operations`` below ``/control``: what only reads by GET, the rest by POST."""

    async def handle(request: web.Request) -> web.StreamResponse:
        try:
            name = request.match_info["name"]
            if name in operations.names and (request.method == "GET") != (name in _READ):
                method = "GET" if name in _READ else "POST"
                return _response({"error": f"/control/{name} is asked with {method}."}, 405)
            value = dict(request.query) if request.method == "GET" else _object(await request.read())
            return _response(await _call(operations, name, value, request.transport), 200)
        except ControlError as problem:
            return _response({"error": str(problem)}, 400)

    async def socket(request: web.Request) -> web.StreamResponse:
        ws = web.WebSocketResponse(compress=False)
        await ws.prepare(request)
        async for message in ws:
            if message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
                answer = await _message(operations, message.data, request.transport)
                await ws.send_str(encode(answer).decode())
        return ws

    app.router.add_get("/control/ws", socket)
    app.router.add_route("*", "/control/{name}", handle)


async def _message(operations: Operations, data: str | bytes, by: asyncio.BaseTransport | None) -> Answer:
    """The answer to ``{"id": …, "op": …, …}``; it carries the same ``id``."""
    number: object = None
    try:
        value = _object(data)
        number = value.pop("id", None)
        return {"id": number, **await _call(operations, str(value.pop("op", "")), value, by)}
    except ControlError as problem:
        return {"id": number, "error": str(problem)}


async def _call(
    operations: Operations, name: str, value: dict[str, Any], by: asyncio.BaseTransport | None
) -> Answer:
    answer = operations.call(name, value, by)
    return await answer if inspect.isawaitable(answer) else answer


def _object(data: str | bytes) -> dict[str, Any]:
    if not data:
        return {}
    try:
        value = decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        raise ControlError("The body is not JSON.") from None
    if not isinstance(value, dict):
        raise ControlError("The body must be a JSON object.")
    return value


def _response(body: Answer, status: int) -> web.Response:
    return web.Response(body=encode(body), status=status, content_type="application/json")
