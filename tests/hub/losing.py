"""Between a strategy and its hub: hands frames on, on both channels, and loses some of them."""

from __future__ import annotations

import random
import threading
from collections import Counter
from typing import Any

import msgspec
import zmq

from bt_ibkr.hub.config import beside
from bt_ibkr.hub.protocol import Welcome, encode, from_hub

PATIENCE_S = 15.0


class Losing:
    """A proxy on a thread of its own; a context manager.

    Args:
        endpoint: Where strategies connect, ``ipc://``.
        hub, ticks: The hub's two channels.
        seed: Of what is lost.
        share: So much of it, between 0 and 1.

    Attributes:
        passed, lost: Frames by their way: ``up``, ``down`` and ``ticks``.
    """

    def __init__(self, endpoint: str, hub: str, ticks: str, *, seed: int, share: float) -> None:
        self.endpoint = endpoint
        self.passed: Counter[str] = Counter()
        self.lost: Counter[str] = Counter()
        self._hub = hub
        self._ticks = ticks
        self._share = share
        self._chances = {way: random.Random(f"{seed} {way}") for way in ("up", "down", "ticks")}
        self._context: zmq.Context[Any] = zmq.Context()
        self._end = self._context.socket(zmq.PAIR)
        self._end.bind(f"inproc://end-{id(self)}")
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="losing", daemon=True)

    def _keeps(self, way: str) -> bool:
        kept = self._chances[way].random() >= self._share
        (self.passed if kept else self.lost)[way] += 1
        return kept

    def _run(self) -> None:
        end = self._context.socket(zmq.PAIR)
        end.connect(f"inproc://end-{id(self)}")
        front = self._context.socket(zmq.ROUTER)
        front.bind(self.endpoint)
        out = self._context.socket(zmq.XPUB)
        out.bind(beside(self.endpoint))
        into = self._context.socket(zmq.XSUB)
        into.connect(self._ticks)
        backs: dict[bytes, Any] = {}
        whose: dict[Any, bytes] = {}
        poller = zmq.Poller()
        for one in (end, front, out, into):
            poller.register(one, zmq.POLLIN)
        self._ready.set()
        while True:
            for one, _ in poller.poll():
                if one is end:
                    for used in (end, front, out, into, *whose):
                        used.close(linger=0)
                    return
                if one is front:
                    address, raw = front.recv_multipart()
                    if address not in backs:
                        backs[address] = back = self._context.socket(zmq.DEALER)
                        back.setsockopt(zmq.IDENTITY, address)
                        back.connect(self._hub)
                        whose[back] = address
                        poller.register(back, zmq.POLLIN)
                    if self._keeps("up"):
                        backs[address].send(raw)
                elif one is out:
                    # Who wants what: ZeroMQ says it again by itself after a loss.
                    into.send(out.recv())
                elif one is into:
                    message = into.recv()
                    if self._keeps("ticks"):
                        out.send(message)
                else:
                    raw = one.recv()
                    if self._keeps("down"):
                        front.send_multipart((whose[one], self._past_here(raw)))

    def _past_here(self, raw: bytes) -> bytes:
        """The welcome names this proxy's tick channel."""
        message = from_hub(raw)
        if not isinstance(message, Welcome):
            return raw
        return encode(msgspec.structs.replace(message, ticks=beside(self.endpoint)))

    def __enter__(self) -> Losing:
        self._thread.start()
        assert self._ready.wait(PATIENCE_S)
        return self

    def __exit__(self, *_: object) -> None:
        self._end.send(b"")
        self._thread.join(PATIENCE_S)
        self._end.close(linger=0)
        self._context.term()
