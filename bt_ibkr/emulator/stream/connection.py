"""One WebSocket of a client, as the hub sees it: frames go in, bytes go out at the next flush."""

from __future__ import annotations

import asyncio
import logging
import struct
from collections.abc import Callable
from typing import Any

from bt_ibkr.emulator.faults.wire import reset
from bt_ibkr.emulator.services.json import encode

_LOGGER = logging.getLogger(__name__)
#: A reader that leaves more than this unread is cut off.
MAX_UNREAD = 64_000_000
#: First bytes of a frame that comes in one piece.
TEXT = 0x81
BINARY = 0x82
#: A stalled socket keeps this much for the time after; what comes then is lost.
_MAX_STALLED = 16_000_000


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
        self._head = BINARY if binary else TEXT
        self._out = bytearray()
        self._wake = wake
        #: Data frames sent, heartbeats and replies included.
        self.sent = 0
        #: The first frame was sent: what the client sends is heard.
        self.ready = False
        #: It was told to wait for a session.
        self.waiting = False
        self.closed = False
        #: Faults that happen to frames; true if they took the frame over.
        self.tamper: Callable[[Connection, dict[str, Any], bytes], bool] | None = None
        #: Closes the socket with a code and a reason, in its own time.
        self.closer: Callable[[int, str], None] | None = None
        self._stalled = False

    def send(self, frame: dict[str, Any]) -> None:
        """Queue one JSON frame."""
        payload = encode(frame)
        if self.tamper is None or not self.tamper(self, frame, payload):
            self.send_bytes(payload)

    def send_bytes(self, payload: bytes, kind: int = 0) -> None:
        """Queue one frame that is encoded already; ``kind`` is ``TEXT`` or ``BINARY``, else the usual one."""
        if self.closed:
            return
        size = len(payload)
        out = self._out
        head = kind or self._head
        if self._stalled and len(out) > _MAX_STALLED:
            return
        if not out:
            self._wake()
        if size < 126:
            out += bytes((head, size))
        elif size < 65536:
            out += struct.pack("!BBH", head, 126, size)
        else:
            out += struct.pack("!BBQ", head, 127, size)
        out += payload
        self.sent += 1

    def flush(self) -> None:
        """Hand everything queued to the transport."""
        if not self._out or self._stalled:
            return
        data, self._out = self._out, bytearray()
        if self.closed or self._transport.is_closing():
            return
        self._transport.write(data)
        if self._transport.get_write_buffer_size() > MAX_UNREAD:
            _LOGGER.warning("slow-reader port=%d is cut off with %d bytes unread", self.port, MAX_UNREAD)
            self.closed = True
            self._transport.abort()

    def close(self, code: int, reason: str) -> None:
        """Close with a close frame, after everything queued."""
        self.flush()
        if self.closer is not None:
            self.closer(code, reason)

    def reset(self) -> None:
        """Break the socket as a TCP reset does; what is queued is lost."""
        self.closed = True
        reset(self._transport)

    def stall(self, on: bool) -> None:
        """Half open: neither read nor write, and do not close either. Off: go on where it stopped."""
        if self.closed or on is self._stalled:
            return
        self._stalled = on
        if on:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()
            self.flush()

    @property
    def unread(self) -> int:
        """Bytes the client's socket has not taken yet."""
        return 0 if self.closed or self._stalled else self._transport.get_write_buffer_size()
