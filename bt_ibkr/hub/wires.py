"""Both channels at a strategy's end: the sockets, used by one thread alone, and what wakes it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Final, Protocol

import zmq

from bt_ibkr.hub.protocol import MAX_MESSAGE

#: Ticks taken in before the command channel gets its turn.
_TICKS_AT_ONCE: Final = 500


class Keys(Protocol):
    """CURVE keys of a strategy, Z85."""

    @property
    def server(self) -> str:
        """The hub's public key."""

    @property
    def public(self) -> str: ...
    @property
    def secret(self) -> str: ...


class Wires:
    """See the module. ``wake`` and ``release`` are for any thread.

    Args:
        keys: For an encrypted channel.
    """

    def __init__(self, keys: Keys | None) -> None:
        self._keys = keys
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._wake_r, self._wake_w = os.pipe()
        os.set_blocking(self._wake_r, False)
        os.set_blocking(self._wake_w, False)
        self._poller = zmq.Poller()
        self._dealer: zmq.Socket[bytes] | None = None
        self._sub: zmq.Socket[bytes] | None = None
        self._sub_endpoint = ""

    def wake(self) -> None:
        """``wait`` returns soon; from any thread."""
        with contextlib.suppress(OSError):
            os.write(self._wake_w, b"x")

    def release(self) -> None:
        """Nobody waits or wakes any more; after ``close``."""
        os.close(self._wake_w)
        os.close(self._wake_r)

    # -- the thread that uses them -------------------------------------------------------------------

    def open(self, endpoint: str, identity: str) -> None:
        """Begin to connect the command channel."""
        dealer = self._dealer = self._socket(zmq.DEALER)
        dealer.setsockopt(zmq.IDENTITY, identity.encode())
        dealer.setsockopt(zmq.IMMEDIATE, 1)
        dealer.connect(endpoint)
        self._poller.register(dealer, zmq.POLLIN)
        self._poller.register(self._wake_r, zmq.POLLIN)

    def connect_ticks(self, endpoint: str) -> None:
        """Connect the tick channel, or leave it as it is where that is its endpoint."""
        if self._sub is not None and endpoint == self._sub_endpoint:
            return
        if self._sub is not None:
            self._poller.unregister(self._sub)
            self._sub.close(linger=0)
        self._sub = self._socket(zmq.SUB)
        self._sub.setsockopt(zmq.RCVHWM, 100_000)
        self._sub.connect(endpoint)
        self._sub_endpoint = endpoint
        self._poller.register(self._sub, zmq.POLLIN)

    def _socket(self, kind: int) -> zmq.Socket[bytes]:
        socket: zmq.Socket[bytes] = self._context.socket(kind)
        socket.setsockopt(zmq.LINGER, 500)
        socket.setsockopt(zmq.MAXMSGSIZE, MAX_MESSAGE)
        socket.setsockopt(zmq.RECONNECT_IVL, 100)
        socket.setsockopt(zmq.RECONNECT_IVL_MAX, 2000)
        # A connection whose far end is cut off is given up, and made again when it can be.
        socket.setsockopt(zmq.HEARTBEAT_IVL, 2000)
        socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, 6000)
        socket.setsockopt(zmq.CONNECT_TIMEOUT, 5000)
        if self._keys is not None:
            socket.setsockopt(zmq.CURVE_SERVERKEY, self._keys.server.encode())
            socket.setsockopt(zmq.CURVE_PUBLICKEY, self._keys.public.encode())
            socket.setsockopt(zmq.CURVE_SECRETKEY, self._keys.secret.encode())
        return socket

    def subscribe(self, word: bytes, wanted: bool) -> None:
        """Take a topic's messages, or no longer."""
        if self._sub is not None:
            self._sub.setsockopt(zmq.SUBSCRIBE if wanted else zmq.UNSUBSCRIBE, word)

    def send(self, message: bytes) -> bool:
        """One message on the command channel; ``False`` if it cannot be sent now."""
        try:
            if self._dealer is not None:
                self._dealer.send(message, zmq.NOBLOCK)
        except zmq.Again:
            return False
        return self._dealer is not None

    def wait(self, longest_s: float) -> tuple[bool, bool]:
        """Until something came, ``wake`` was called, or the time is over.

        Returns:
            Whether there is something on the tick channel, and on the command channel.
        """
        ready = dict(self._poller.poll(max(0, int(longest_s * 1000) + 1)))
        if self._wake_r in ready:
            os.read(self._wake_r, 4096)
        return self._sub in ready, self._dealer in ready

    def take_ticks(self, take: Callable[[bytes], None]) -> None:
        """Hand on what is on the tick channel; if it is much, some of it."""
        assert self._sub is not None
        receive, look, block = self._sub.recv, self._sub.getsockopt, zmq.NOBLOCK
        for _ in range(_TICKS_AT_ONCE):
            take(receive(block))
            # To look is cheaper than to have the socket raise.
            if not int(look(zmq.EVENTS)) & zmq.POLLIN:
                return

    def messages(self) -> Iterator[bytes]:
        """What is on the command channel."""
        assert self._dealer is not None
        while True:
            try:
                raw = self._dealer.recv(zmq.NOBLOCK)
            except zmq.Again:
                return
            yield raw

    def close(self) -> None:
        """What was sent last is given a moment to leave."""
        if self._sub is not None:
            self._sub.close(linger=0)
        if self._dealer is not None:
            self._dealer.close(linger=500)
        self._context.term()
