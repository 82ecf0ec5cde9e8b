"""Faults of requests and their answers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from fnmatch import fnmatchcase

from aiohttp import web

from bt_ibkr.emulator.faults.active import Active, Registry
from bt_ibkr.emulator.faults.specs import Http, Slow
from bt_ibkr.emulator.faults.wire import break_off, reset
from bt_ibkr.emulator.services.errors import HTML, JSON, TEXT
from bt_ibkr.emulator.services.json import encode

Process = Callable[[], Awaitable[web.StreamResponse]]
#: What a proxy or the edge says during an outage.
_PAGE = (
    b"<html><head><title>Service unavailable</title></head><body><h1>Service unavailable</h1></body></html>"
)
_MALFORMED = b'{"error": "x", "statusCode": 2'
#: Seconds between two looks whether the client of a held request is gone.
_LOOK_S = 0.25
_PROCESSED = ("delay", "lose", "hold")


class HttpFaults:
    """Decides for each request what goes wrong with it: all delays that match, and the first other fault."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._rules: list[Active] = []
        self._released = asyncio.Event()

    def begin(self, fault: Active) -> None:
        self._rules.append(fault)
        fault.lasts(lambda: self._end(fault))

    def _end(self, fault: Active) -> None:
        self._rules.remove(fault)
        # Whoever waits looks whether the fault it waits for is still there.
        self._released.set()
        self._released = asyncio.Event()

    async def around(self, request: web.Request, path: str, process: Process) -> web.StreamResponse:
        """The answer to ``request``, with whatever goes wrong on the way."""
        if not self._rules:
            return await process()
        matching = self._matching(request.method, path)
        for fault in matching:
            self._use(fault, request.method, path)
        try:
            return await self._suffer(request, path, matching, process)
        finally:
            for fault in matching:
                fault.busy -= 1
                if not fault.busy and not fault.armed:
                    self._registry.finish(fault)

    def _matching(self, method: str, path: str) -> list[Active]:
        found: list[Active] = []
        broken = False
        for fault in list(self._rules):
            spec = fault.spec
            if not fault.armed or not _matches(spec, method, path):
                continue
            late = isinstance(spec, Slow) or (isinstance(spec, Http) and spec.action == "delay")
            if broken and not late:
                continue
            if fault.skip:
                fault.skip -= 1
                continue
            broken = broken or not late
            found.append(fault)
        return found

    def _use(self, fault: Active, method: str, path: str) -> None:
        fault.busy += 1
        self._registry.spend(fault, method=method, path=path)

    async def _suffer(
        self, request: web.Request, path: str, faults: list[Active], process: Process
    ) -> web.StreamResponse:
        late = [fault for fault in faults if _late(fault)]
        for fault in late:
            if not _processed(fault, path):
                await self._wait(fault, request, _delay(fault))
        last = next((fault for fault in faults if fault not in late), None)
        response: web.StreamResponse | None = None
        if last is None or _processed(last, path):
            response = await process()
        for fault in late:
            if _processed(fault, path):
                await self._wait(fault, request, _delay(fault))
        if last is None:
            return response if response is not None else await process()
        return await self._break(request, last)

    async def _break(self, request: web.Request, fault: Active) -> web.StreamResponse:
        spec = fault.spec
        if not isinstance(spec, Http):
            raise TypeError(spec.kind)
        match spec.action:
            case "lose":
                break_off(request.transport)
            case "reset":
                reset(request.transport)
            case "hold":
                await self._wait(fault, request, spec.delay_s)
                break_off(request.transport)
            case _:
                return _answer(spec)
        return web.Response()

    async def _wait(self, fault: Active, request: web.Request, delay_s: float) -> None:
        """Until the time is over (0: never), the fault is cleared, or the client is gone."""
        loop = asyncio.get_running_loop()
        ends = loop.time() + delay_s if delay_s else float("inf")
        while fault in self._rules and request.transport is not None and not request.transport.is_closing():
            pause = min(ends - loop.time(), _LOOK_S)
            if pause <= 0:
                return
            try:
                await asyncio.wait_for(self._released.wait(), pause)
            except TimeoutError:
                continue


def _matches(spec: object, method: str, path: str) -> bool:
    if isinstance(spec, Slow):
        return fnmatchcase(path, spec.path)
    return isinstance(spec, Http) and spec.method.upper() in ("*", method) and fnmatchcase(path, spec.path)


def _late(fault: Active) -> bool:
    return isinstance(fault.spec, Slow) or (isinstance(fault.spec, Http) and fault.spec.action == "delay")


def _delay(fault: Active) -> float:
    return fault.spec.delay_s if isinstance(fault.spec, (Http, Slow)) else 0.0


def _processed(fault: Active, path: str) -> bool:
    spec = fault.spec
    if path == "/ws":
        return False  # an upgrade is answered when the socket is over
    if isinstance(spec, Http):
        return spec.action in _PROCESSED if spec.processed is None else spec.processed
    return True


def _answer(spec: Http) -> web.Response:
    """An answer that the handler did not make."""
    status = spec.status if spec.status is not None else {"status": 500, "html": 503}.get(spec.action, 200)
    body, content = b"", JSON
    match spec.action:
        case "html":
            body, content = _PAGE, HTML
        case "malformed":
            body = _MALFORMED
        case "error":
            body = encode({"error": spec.text or "We cannot accept this request at the moment"})
        case "status" if status == 401:
            body, content = (spec.text or "not authenticated").encode(), TEXT
        case "status":
            body = encode({"error": spec.text or _reason(status), "statusCode": status})
    return web.Response(status=status, body=body, headers={"Content-Type": f"{content}; charset=utf-8"})


def _reason(status: int) -> str:
    return {429: "Too many requests", 503: "Service Unavailable", 410: "Gone"}.get(status, "Internal error")
