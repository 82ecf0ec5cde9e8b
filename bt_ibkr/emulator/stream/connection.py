"""One WebSocket of a client, as the hub sees it: frames go in, bytes go out at the next flush."""

from __future__ import annotations

import asyncio
import logging
import struct
from collections.abc import Callable
from typing import Any

from bt_ibkr.emulator.services.json import encode

_LOGGER = logging.getLogger(__name__)
#: A reader that leaves more than this unread is cut off.
MAX_UNREAD = 64_000_000
_TEXT = 0x81
_BINARY = 0x82


class Connection:
    """Buffers frames and counts them.

    The frames are framed here and written to the transport in one piece: a step of the market may make
    many of them, and all of them must be on their way before the step is answered.

    Args:
        transport: Of the upgraded request.
        port: The client's TCP port: its name in the control API.
        number: Of the connection since the start of the server.
        binary: Send binary frames.
        wake: Called once when frames wait and no flush is under way.
    """

    def __init__(
        self,
        *,
        transport: asyncio.Transport,
        port: int,
        number: int,
        binary: bool,
        wake: Callable[[], None],
    ) -> None:
        self._transport = transport
        self.port = port
        self.number = number
        self.server_id = f"q{number}"
        self._head = _BINARY if binary else _TEXT
        self._out = bytearray()
        self._wake = wake
        #: Data frames sent, heartbeats and replies included.
        self.sent = 0
        #: The first frame was sent: what the client sends is heard.
        self.ready = False
        #: It was told to wait for a session.
        self.waiting = False
        self.closed = False

    def send(self, frame: dict[str, Any]) -> None:
        """Queue one JSON frame."""
        self.send_bytes(encode(frame))

    def send_bytes(self, payload: bytes) -> None:
        """Queue one frame that is encoded already."""
        if self.closed:
            return
        size = len(payload)
        out = self._out
        if not out:
            self._wake()
        if size < 126:
            out += bytes((self._head, size))
        elif size < 65536:
            out += struct.pack("!BBH", self._head, 126, size)
        else:
            out += struct.pack("!BBQ", self._head, 127, size)
        out += payload
        self.sent += 1

    def flush(self) -> None:
        """Hand everything queued to the transport."""
        if not self._out:
            return
        data, self._out = self._out, bytearray()
        if self.closed or self._transport.is_closing():
            return
        self._transport.write(data)
        if self._transport.get_write_buffer_size() > MAX_UNREAD:
            _LOGGER.warning("slow-reader port=%d is cut off with %d bytes unread", self.port, MAX_UNREAD)
            self.closed = True
            self._transport.abort()

    @property
    def unread(self) -> int:
        """Bytes the client's socket has not taken yet."""
        return 0 if self.closed else self._transport.get_write_buffer_size()
