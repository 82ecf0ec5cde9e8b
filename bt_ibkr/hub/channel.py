"""The command channel at the hub: what comes is read, refused where it is nothing, and handed to whom it concerns.

Runs on the session's loop. Nothing that a stranger sends does more than be counted.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import zmq

from bt_ibkr.errors import BtIbkrError, SessionError, WireError
from bt_ibkr.hub.peers import HarmCounts
from bt_ibkr.hub.protocol import (
    MAX_REQUEST,
    PROTOCOL,
    Beat,
    Greeting,
    Hello,
    Leave,
    Refused,
    Request,
    Unknown,
    encode,
    from_strategy,
    greeting,
    problem_of,
)
from bt_ibkr.hub.sockets import LoopSocket
from bt_ibkr.version import __version__

if TYPE_CHECKING:
    from bt_ibkr.hub.server import HubServer

_log = logging.getLogger(__name__)


class CommandChannel:
    """See the module.

    Args:
        server: Whose.

    Attributes:
        harm: Messages that were refused, counted.
    """

    def __init__(self, server: HubServer) -> None:
        self._server = server
        self._socket: LoopSocket | None = None
        self.harm = HarmCounts()

    @property
    def is_open(self) -> bool:
        """Strategies are let in."""
        return self._socket is not None

    def open(self, socket: zmq.Socket[bytes]) -> None:
        """Take in what comes from now on.

        Args:
            socket: ROUTER, bound; closed with this object.
        """
        self._socket = LoopSocket(socket, self._received)

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()

    def send(self, address: bytes, raw: bytes) -> bool:
        """One frame to a peer; ``False`` if it cannot be sent now."""
        return self._socket is not None and self._socket.send((address, raw))

    def refuse(
        self, address: bytes, hello: Hello | Greeting, problem: BtIbkrError, *, again: bool = False
    ) -> None:
        """Answer a greeting with why nothing comes of it."""
        refused = Refused(session=hello.session, problem=problem_of(problem), again=again)
        self.send(address, encode(refused))

    def _received(self, frames: list[zmq.Frame]) -> None:
        if len(frames) != 2:
            self.harmed("malformed", f"frames={len(frames)}")
            return
        address, frame = frames[0].bytes, frames[1]
        if len(frame) > MAX_REQUEST:
            self.harmed("oversized", f"bytes={len(frame)}")
            return
        try:
            message = from_strategy(frame.bytes)
        except WireError as problem:
            self._unreadable(address, frame.bytes, problem)
            return
        user = _user(frame)
        if isinstance(message, Hello):
            self._server.members.hello(address, user, message)
            return
        peer = self._server.members.find(message.session)
        if address != message.session.encode() or (peer is not None and peer.user != user):
            # Whoever repeats what another one has sent.
            self.harmed("replayed", f"session={message.session!r}")
            return
        if peer is None or peer.left:
            self.harm.unknown += isinstance(message, Request)
            self.send(address, encode(Unknown(hub=self._server.hub, session=message.session)))
            return
        if isinstance(message, Leave):
            peer.acknowledge(message.told)
            self._server.members.leave(peer)
            return
        if message.join != peer.join:
            # Sent before it heard that it has joined anew; it may not have heard at all.
            self.send(address, encode(Unknown(hub=self._server.hub, session=message.session)))
            return
        self._server.members.back(peer)
        peer.heard()
        if isinstance(message, Beat):
            peer.take_beat(message)
        elif message.number <= peer.asked:
            # Asked before; the answer is kept until the peer has it.
            return
        elif message.number != peer.asked + 1:
            # One before it was lost: it is sent again with this one after the next beat.
            return
        else:
            peer.asked = message.number
            self._server.dispatch.take(peer, message)

    def _unreadable(self, address: bytes, raw: bytes, problem: WireError) -> None:
        """Not of this version, or of none."""
        try:
            hello = greeting(raw)
        except WireError:
            hello = None
        if hello is None or hello.protocol == PROTOCOL:
            self.harmed("malformed", f"problem={problem}")
        else:
            self.incompatible(address, hello)

    def incompatible(self, address: bytes, hello: Hello | Greeting) -> None:
        """Refuse a greeting of another version, with both named."""
        self.harmed("incompatible", f"name={hello.name!r} protocol={hello.protocol}")
        problem = SessionError(
            f"The hub speaks protocol {PROTOCOL} (bt_ibkr {__version__}), {hello.name} speaks protocol "
            f"{hello.protocol} (bt_ibkr {hello.version}).",
            remedy="Install the same version on both sides.",
        )
        self.refuse(address, hello, problem)

    def harmed(self, kind: str, what: str) -> None:
        """Count it. A flood must not fill the log: it is told at every power of two."""
        count = getattr(self.harm, kind) + 1
        setattr(self.harm, kind, count)
        if count & (count - 1) == 0:
            _log.warning("hub-message-%s count=%d %s", kind, count, what)


def _user(frame: zmq.Frame) -> str:
    """The sender's public key, as the door has let it in; empty on a channel that is not encrypted."""
    try:
        return str(frame.get("User-Id"))
    except (zmq.ZMQError, KeyError):
        return ""
