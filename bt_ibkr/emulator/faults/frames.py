"""Faults of single frames: lost, late, twice, in another order, damaged."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from bt_ibkr.emulator.faults.active import Active, Registry
from bt_ibkr.emulator.faults.specs import Frames, Silence
from bt_ibkr.emulator.stream.connection import BINARY, TEXT, Connection

if TYPE_CHECKING:
    from bt_ibkr.emulator.services.core import Core

_GIANT = 50_000_000
_DEEP = 100_000
#: Bytes that begin no character in UTF-8; the first one was seen in the field.
_NO_UTF8 = b"\x99\xff\xfe"
HEARTBEAT = "hb"


class FrameFaults:
    """Stands between the frames and the sockets while a fault of frames is under way."""

    def __init__(self, core: Core, registry: Registry) -> None:
        self._core = core
        self._registry = registry
        self._rules: list[Active] = []
        self._held: dict[tuple[int, Connection], list[bytes]] = {}

    def attach(self, connection: Connection) -> None:
        """Watch over a socket, or no longer."""
        connection.tamper = self._tamper if self._rules else None

    def begin(self, fault: Active) -> None:
        self._rules.append(fault)
        fault.lasts(lambda: self._end(fault))
        self._attach_all()

    def _attach_all(self) -> None:
        for connection in self._core.hub.connections:
            self.attach(connection)

    def _end(self, fault: Active) -> None:
        self._rules.remove(fault)
        for key in [key for key in self._held if key[0] == fault.number]:
            self._let_go(key[1], self._held.pop(key))
        self._attach_all()

    def _tamper(self, connection: Connection, frame: dict[str, Any], payload: bytes) -> bool:
        """Do to one frame what is due; false if it may pass as it is."""
        topic = _topic(frame)
        for fault in self._rules:
            spec = fault.spec
            if not fault.armed or not isinstance(spec, (Frames, Silence)):
                continue
            if spec.port in (None, connection.port) and _matches(spec.topic, topic):
                self._happen(fault, connection, topic, payload)
                return True
        return False

    def _happen(self, fault: Active, connection: Connection, topic: str, payload: bytes) -> None:
        spec = fault.spec
        if isinstance(spec, Frames):
            match spec.action:
                case "delay":
                    loop = asyncio.get_running_loop()
                    loop.call_later(spec.delay_s, connection.send_bytes, payload)
                case "duplicate":
                    connection.send_bytes(payload)
                    connection.send_bytes(payload)
                case "corrupt":
                    connection.send_bytes(*self._damaged(spec, topic, payload))
                case "reorder":
                    self._hold(fault, connection, payload)
        self._registry.spend(fault, port=connection.port, topic=topic)

    def _hold(self, fault: Active, connection: Connection, payload: bytes) -> None:
        """Keep a frame back; the end of the fault lets all go."""
        self._held.setdefault((fault.number, connection), []).append(payload)

    def _let_go(self, connection: Connection, held: list[bytes]) -> None:
        order = list(range(len(held)))
        self._registry.random.shuffle(order)
        if order == sorted(order):
            order.reverse()
        for index in order:
            connection.send_bytes(held[index])

    def _damaged(self, spec: Frames, topic: str, payload: bytes) -> tuple[bytes, int]:
        random = self._registry.random
        head = b'{"topic":"' + topic.encode() + b'","x":'
        match spec.corrupt:
            case "truncate":
                return payload[: random.randrange(1, max(len(payload), 2))], TEXT
            case "utf8":
                at = random.randrange(len(payload) + 1)
                return payload[:at] + _NO_UTF8 + payload[at:], TEXT
            case "binary":
                return b"\x00\xff" + random.randbytes(len(payload)), BINARY
            case "giant":
                size = spec.size or _GIANT
                return head + b'"' + b"a" * max(size - len(head) - 3, 1) + b'"}', TEXT
            case "deep":
                levels = spec.size or _DEEP
                return head + b"[" * levels + b"]" * levels + b"}", TEXT


def _topic(frame: dict[str, Any]) -> str:
    return HEARTBEAT if HEARTBEAT in frame else str(frame.get("topic", ""))


def _matches(wanted: str, topic: str) -> bool:
    if wanted == "*":
        return topic != HEARTBEAT
    return topic == wanted or topic.partition("+")[0] == wanted
