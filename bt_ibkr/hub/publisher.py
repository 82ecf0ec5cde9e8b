"""Ticks out to everybody who subscribed: the hub's side of the tick channel.

Each stream has a topic, an opaque word that only those get who may have its ticks: the socket takes subscriptions of
words that were given away, and of no others, so that nobody reads what he may not by guessing or by subscribing to
everything. A subscriber that takes its messages too slowly loses some in its own queue; nobody else notices. It finds
out by the numbers, and what it lost can be had again from the ring while it is there.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import sys
import time
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Final

import msgspec
import zmq

from bt_ibkr.clock import NS_PER_S
from bt_ibkr.hub.sockets import LoopSocket
from bt_ibkr.hub.status import TopicStatus
from bt_ibkr.hub.ticks import TOPIC_LENGTH, TOPIC_PREFIX, Ring, encode_tick
from bt_ibkr.model.contract import Contract
from bt_ibkr.model.market import Tick
from bt_ibkr.services.marketdata import TickSink

_log = logging.getLogger(__name__)

#: Seconds over which rates are told.
_RATE_S: Final = 10.0

#: Conid, exchange, stretch of conflation, further fields.
_Key = tuple[int, str, float, frozenset[str]]
Subscriber = Callable[[Contract, TickSink, frozenset[str]], Coroutine[Any, Any, None]]
Unsubscriber = Callable[[TickSink], Coroutine[Any, Any, None]]


class Topic:
    """One stream of ticks, as it is published. It is the ``TickSink`` of the session's stream.

    Args:
        word: What its messages begin with.
        contract: Whose ticks.
        conflate_s, extras: See ``requests.Subscribe``.
        ring: How many messages are kept.
        send: The tick channel's.
    """

    room = sys.maxsize

    def __init__(
        self,
        word: bytes,
        contract: Contract,
        conflate_s: float,
        extras: frozenset[str],
        ring: int,
        send: Callable[[bytes], None],
    ) -> None:
        self.word = word
        self.contract = contract
        self.conflate_s = conflate_s
        self.extras = extras
        self.ring = Ring(ring)
        self.subscribers: set[str] = set()
        #: The session streams into it.
        self.streams = asyncio.Event()
        self._send = send
        self._latest: Tick | None = None
        self._traded = 0.0
        self._stretch_ns = max(1, round(conflate_s * NS_PER_S))
        self._stretch = 0
        self._timer: asyncio.TimerHandle | None = None
        self._rates: deque[tuple[float, int]] = deque(maxlen=16)
        #: Put a tick in: published at once, or kept for the end of the stretch.
        self.push: Callable[[Tick], None] = self._hold_back if conflate_s else self._publish

    def __len__(self) -> int:
        return 0

    def append(self, item: Tick, /) -> None:
        self.push(item)

    def hold(self, tick: Tick, /) -> None:
        self.push(tick)

    def _publish(self, tick: Tick) -> None:
        ring = self.ring
        payload = encode_tick((ring.head + 1, tick))
        ring.add(payload)
        self._send(self.word + payload)

    def _hold_back(self, tick: Tick) -> None:
        stretch = tick.time_ns // self._stretch_ns
        if stretch != self._stretch and self._timer is not None:
            # By the market's time: where a bar is made of whole stretches, all of its volume is in it.
            self._timer.cancel()
            self._flush()
        self._stretch = stretch
        self._traded += tick.traded
        self._latest = tick
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self.conflate_s, self._flush)

    def _flush(self) -> None:
        self._timer = None
        if self._latest is not None:
            tick, self._latest = self._latest, None
            traded, self._traded = self._traded, 0.0
            self._publish(msgspec.structs.replace(tick, traded=traded))

    def end(self) -> None:
        """Publish what is held back, and no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._flush()

    def rate(self, now_s: float) -> float:
        """Messages per second since it was looked some seconds ago."""
        self._rates.append((now_s, self.ring.head))
        while len(self._rates) > 2 and now_s - self._rates[1][0] >= _RATE_S:
            self._rates.popleft()
        began_s, before = self._rates[0]
        return (self.ring.head - before) / (now_s - began_s) if now_s > began_s else 0.0


class Publisher:
    """All topics, and the socket that they leave by.

    Args:
        socket: XPUB, bound; set to take subscriptions by hand.
        subscribe, unsubscribe: Of the session's streams.
        ring: Messages kept by topic.
    """

    def __init__(
        self,
        socket: zmq.Socket[bytes],
        subscribe: Subscriber,
        unsubscribe: Unsubscriber,
        *,
        ring: int,
    ) -> None:
        self._socket = LoopSocket(socket, self._subscription)
        self._subscribe = subscribe
        self._unsubscribe = unsubscribe
        self._ring = ring
        self._by_word: dict[bytes, Topic] = {}
        self._by_stream: dict[_Key, Topic] = {}
        self._prefix = secrets.token_bytes(TOPIC_PREFIX)
        #: Subscriptions of words that were never given away, and of those that another hub has given, perhaps.
        self.refused = self.stale = 0

    def __len__(self) -> int:
        return len(self._by_word)

    def find(self, word: bytes) -> Topic | None:
        return self._by_word.get(word)

    def items(self) -> tuple[tuple[bytes, Topic], ...]:
        """All topics, by word."""
        return tuple(self._by_word.items())

    def heads(self, words: set[bytes]) -> dict[bytes, int]:
        """Number of the newest message, by topic."""
        return {word: topic.ring.head for word in words if (topic := self._by_word.get(word)) is not None}

    async def open(
        self, contract: Contract, conflate_s: float, extras: frozenset[str], subscriber: str
    ) -> Topic:
        """The topic of a stream, with one subscriber more; the session's stream begins with the first.

        Raises:
            BtIbkrError: The session cannot stream it.
        """
        key = (contract.conid, contract.exchange, conflate_s, extras)
        topic = self._by_stream.get(key)
        if topic is None:
            word = self._prefix + secrets.token_bytes(TOPIC_LENGTH - TOPIC_PREFIX)
            topic = Topic(word, contract, conflate_s, extras, self._ring, self._socket.publish)
            self._by_stream[key] = topic
            self._by_word[topic.word] = topic
            topic.subscribers.add(subscriber)
            try:
                await self._subscribe(contract, topic, extras)
            except BaseException:
                self._forget(topic)
                topic.streams.set()
                raise
            topic.streams.set()
            return topic
        topic.subscribers.add(subscriber)
        await topic.streams.wait()
        if topic.word not in self._by_word:
            # The first one could not open it; whoever comes next tries, and is told why not.
            return await self.open(contract, conflate_s, extras, subscriber)
        return topic

    async def leave(self, word: bytes, subscriber: str) -> None:
        """One subscriber less; the session's stream ends with the last."""
        topic = self._by_word.get(word)
        if topic is None or subscriber not in topic.subscribers:
            return
        topic.subscribers.discard(subscriber)
        if not topic.subscribers:
            self._forget(topic)
            topic.end()
            await self._unsubscribe(topic)

    def _forget(self, topic: Topic) -> None:
        self._by_word.pop(topic.word, None)
        key = (topic.contract.conid, topic.contract.exchange, topic.conflate_s, topic.extras)
        if self._by_stream.get(key) is topic:
            del self._by_stream[key]

    def _subscription(self, frames: list[zmq.Frame]) -> None:
        """Somebody subscribed, or no longer does."""
        raw = frames[0].bytes
        wanted, word = raw[:1], raw[1:]
        socket = self._socket.socket
        if wanted == b"\x00":
            socket.setsockopt(zmq.UNSUBSCRIBE, word)
        elif wanted == b"\x01" and word in self._by_word:
            socket.setsockopt(zmq.SUBSCRIBE, word)
        elif wanted == b"\x01" and len(word) == TOPIC_LENGTH and not word.startswith(self._prefix):
            # Whoever comes from an earlier hub says again what it had there.
            self.stale += 1
        else:
            self.refused += 1
            if self.refused & (self.refused - 1) == 0:
                _log.warning("hub-subscription-refused count=%d bytes=%d", self.refused, len(word))

    def status(self) -> tuple[TopicStatus, ...]:
        """As they stand."""
        now_s = time.monotonic()
        return tuple(
            TopicStatus(
                name=topic.contract.describe(),
                conid=topic.contract.conid,
                ticks=topic.ring.head,
                ticks_per_s=round(topic.rate(now_s), 2),
                subscribers=tuple(sorted(topic.subscribers)),
                conflate_s=topic.conflate_s,
            )
            for topic in self._by_word.values()
        )

    def close(self) -> None:
        for topic in self._by_word.values():
            topic.end()
        self._socket.close()
