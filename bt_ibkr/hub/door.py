"""Who is let in to an encrypted channel: ZeroMQ asks for each public key (ZAP, RFC 27)."""

from __future__ import annotations

import logging
from typing import Any, Final

import zmq
from zmq.utils import z85

from bt_ibkr.hub.sockets import LoopSocket

_log = logging.getLogger(__name__)

_ENDPOINT: Final = "inproc://zeromq.zap.01"
_PARTS: Final = 7


class KeyDoor:
    """Lets in the keys it knows, and names each sender by its key. Made before the sockets that it guards.

    Args:
        context: Theirs.
        keys: Public keys, Z85.

    Attributes:
        refused: How often a key was not let in.
    """

    def __init__(self, context: zmq.Context[Any], keys: frozenset[str]) -> None:
        self._keys = keys
        self.refused = 0
        socket: zmq.Socket[bytes] = context.socket(zmq.REP)
        socket.setsockopt(zmq.LINGER, 0)
        socket.bind(_ENDPOINT)
        self._socket = LoopSocket(socket, self._asked)

    def _asked(self, frames: list[zmq.Frame]) -> None:
        parts = [frame.bytes for frame in frames]
        if len(parts) < _PARTS - 1:
            self._answer(parts, "500", "malformed", "")
            return
        mechanism, credentials = parts[5], parts[6:]
        key = z85.encode(credentials[0]).decode() if mechanism == b"CURVE" and credentials else ""
        if key and key in self._keys:
            self._answer(parts, "200", "OK", key)
            return
        self.refused += 1
        _log.warning("hub-key-refused key=%s address=%s", key or "none", parts[3].decode("utf-8", "replace"))
        self._answer(parts, "400", "unknown key", "")

    def _answer(self, parts: list[bytes], code: str, text: str, user: str) -> None:
        version = parts[0] if parts else b"1.0"
        request = parts[1] if len(parts) > 1 else b"1"
        self._socket.send((version, request, code.encode(), text.encode(), user.encode(), b""))

    def close(self) -> None:
        self._socket.close()
