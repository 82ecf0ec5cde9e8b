"""The server alone: a reader that throws the bytes away."""

from __future__ import annotations

import socket
import time
from urllib.parse import urlsplit

from scenario import Outcome, Scenario

_UPGRADE = (
    "GET /v1/api/ws HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


def run(scenario: Scenario, url: str) -> Outcome:
    """Read everything; the time of the last byte is the end."""
    address = urlsplit(url)
    buffer = bytearray(1 << 20)
    ended_ns = 0
    with socket.create_connection((address.hostname or "", address.port or 0), timeout=2) as connection:
        connection.sendall(_UPGRADE.encode())
        for conid in scenario.conids:
            text = f"smd+{conid}+{{}}".encode()
            connection.sendall(bytes((0x81, 0x80 | len(text), 0, 0, 0, 0)) + text)
        try:
            while connection.recv_into(buffer):
                ended_ns = time.monotonic_ns()
                connection.settimeout(0.6)
        except TimeoutError:
            pass
    return Outcome(count=scenario.frames, ended_ns=ended_ns)
