"""The hub's sockets: bound with its limits and its keys."""

from __future__ import annotations

from typing import Any

import zmq

from bt_ibkr.errors import PortInUseError
from bt_ibkr.hub.config import HubSettings
from bt_ibkr.hub.protocol import MAX_RECEIVED, MAX_SUBSCRIPTION


def bind(context: zmq.Context[Any], kind: int, endpoint: str, settings: HubSettings) -> zmq.Socket[bytes]:
    """A socket at ``endpoint``: ROUTER for commands, XPUB for ticks.

    Raises:
        PortInUseError: It cannot be bound; nothing is left open then.
    """
    socket: zmq.Socket[bytes] = context.socket(kind)
    socket.setsockopt(zmq.LINGER, 500)
    socket.setsockopt(zmq.MAXMSGSIZE, MAX_RECEIVED if kind == zmq.ROUTER else MAX_SUBSCRIPTION)
    socket.setsockopt(zmq.SNDHWM, settings.queue)
    socket.setsockopt(zmq.TCP_KEEPALIVE, 1)
    socket.setsockopt(zmq.HANDSHAKE_IVL, 10_000)
    if kind == zmq.ROUTER:
        socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        socket.setsockopt(zmq.ROUTER_HANDOVER, 1)
    else:
        socket.setsockopt(zmq.XPUB_MANUAL, 1)
    if settings.secret_key:
        socket.setsockopt(zmq.CURVE_SERVER, 1)
        socket.setsockopt(zmq.CURVE_SECRETKEY, settings.secret_key.encode())
        socket.setsockopt(zmq.CURVE_PUBLICKEY, zmq.curve_public(settings.secret_key.encode()))
        socket.setsockopt(zmq.ZAP_DOMAIN, b"hub")
    try:
        socket.bind(endpoint)
    except zmq.ZMQError as problem:
        socket.close(linger=0)
        if problem.errno == zmq.EADDRINUSE:
            raise PortInUseError(
                f"A hub cannot listen at {endpoint}: somebody does already.",
                remedy="Look at it with bt-ibkr hub status, or give this one another endpoint.",
            ) from None
        raise PortInUseError(
            f"A hub cannot listen at {endpoint}: {problem}.", remedy="Look at the endpoint."
        ) from None
    return socket
