"""A ZeroMQ socket on an event loop, without a future per message.

The socket is made, used and closed on the loop's thread alone. Its file descriptor tells of *changes* only, so
whoever sends must look for input as well: sending may swallow the signal (ZeroMQ's own rule for ``ZMQ_FD``).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

import zmq

_log = logging.getLogger(__name__)

#: Messages taken in before others on the loop get their turn.
_AT_ONCE = 200


class LoopSocket:
    """Calls back for each message that arrives.

    Args:
        socket: Bound or connected; closed with this object.
        received: Gets each message's frames. What it raises is logged, and the next message is taken.
    """

    def __init__(self, socket: zmq.Socket[bytes], received: Callable[[list[zmq.Frame]], None]) -> None:
        self.socket = socket
        self._received = received
        self._loop = asyncio.get_running_loop()
        self._fd = int(socket.getsockopt(zmq.FD))
        self._due = False
        self._loop.add_reader(self._fd, self._readable)
        self._look()

    def publish(self, message: bytes) -> None:
        """Send one message of one frame to all who want it; whoever takes no more at present loses it."""
        self.socket.send(message, zmq.NOBLOCK)
        # Sending may have swallowed the signal that there is something to read.
        if not self._due:
            self._look()

    def send(self, frames: Sequence[bytes]) -> bool:
        """Send one message at once; ``False`` if its receiver takes no more at present, or is not there.

        Raises:
            zmq.ZMQError: For any other reason.
        """
        try:
            self.socket.send_multipart(frames, zmq.NOBLOCK)
        except zmq.Again:
            return False
        except zmq.ZMQError as problem:
            if problem.errno != zmq.EHOSTUNREACH:
                raise
            return False
        finally:
            self._look()
        return True

    def _look(self) -> None:
        if not self._due and int(self.socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN:
            self._due = True
            self._loop.call_soon(self._readable)

    def _readable(self) -> None:
        self._due = False
        socket = self.socket
        if socket.closed:
            return
        for _ in range(_AT_ONCE):
            if socket.closed or not int(socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN:
                return
            try:
                frames = socket.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return
            try:
                self._received(frames)
            except Exception:  # noqa: BLE001 - one message must not stop the next
                _log.exception("hub-message-failed")
        self._look()

    def close(self) -> None:
        """Leave the loop and close; what was sent last is given a moment to leave."""
        self._loop.remove_reader(self._fd)
        self.socket.close(linger=500)
