"""Breaking TCP connections."""

from __future__ import annotations

import asyncio
import socket
import struct

#: Linger on, for no time: closing the socket resets the connection.
_NO_LINGER = struct.pack("ii", 1, 0)


def break_off(transport: asyncio.BaseTransport | None) -> None:
    """Close without another word; bytes that are on their way still arrive."""
    if transport is not None:
        transport.close()


def reset(transport: asyncio.Transport | None) -> None:
    """Reset the connection: the client sees an error, not an end."""
    if transport is None:
        return
    held = transport.get_extra_info("socket")
    if held is not None and held.fileno() >= 0:
        # A second handle of the same socket: the transport's own may forbid options.
        again = socket.fromfd(held.fileno(), held.family, held.type)
        try:
            again.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        finally:
            again.close()
    transport.abort()
