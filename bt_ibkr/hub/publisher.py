"""Ticks and books out to everybody who subscribed: the hub's side of the tick channel.

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
from collections.abc import Callable
from typing import Final, Protocol

import msgspec
import zmq

from bt_ibkr.clock import NS_PER_S
from bt_ibkr.hub.sockets import LoopSocket
from bt_ibkr.hub.status import TopicStatus
from bt_ibkr.hub.ticks import TOPIC_LENGTH, TOPIC_PREFIX, Ring, encode_tick
from bt_ibkr.model.contract import Contract
from bt_ibkr.model.market import DepthBook, Tick
from bt_ibkr.services.depth import DepthSink
from bt_ibkr.services.marketdata import TickSink

_log = logging.getLogger(__name__)

#: Seconds over which rates are told.
_RATE_S: Final = 10.0

#: Of ticks: conid, exchange, stretch of conflation, further fields; of a book: account, conid, exchange.
_Key = tuple[int, str, float, frozenset[str]] | tuple[str, int, str]


class Source(Protocol):
    """The session's streams, see ``Brokerage``."""

    async def subscribe_ticks(self, contract: Contract, sink: TickSink, extras: frozenset[str]) -> None: ...
    async def unsubscribe_ticks(self, sink: TickSink) -> None: ...
    async def subscribe_depth(self, contract: Contract, account: str, sink: DepthSink) -> None: ...
    async def unsubscribe_depth(self, sink: DepthSink) -> None: ...


class Topic:
    """What is published to those who subscribed. It is the sink of the session's stream.

    Args:
        word: What its messages begin with.
        contract: Whose.
        ring: How many messages are kept.
        send: The tick channel's.

    Attributes:
        key: What tells its stream from others.
        conflate_s: See ``requests.Subscribe``.
        subscribers: Sessions.
        streams: The session streams into it.
    """

    conflate_s = 0.0
    #: In what is shown to people.
    kind = "ticks"

    def __init__(
        self, key: _Key, word: bytes, contract: Contract, ring: int, send: Callable[[bytes], None]
    ) -> None:
        self.key = key
        self.word = word
        self.contract = contract
        self.ring = Ring(ring)
        self.subscribers: set[str] = set()
        self.streams = asyncio.Event()
        self._send = send
        self._rates: deque[tuple[float, int]] = deque([(time.monotonic(), 0)])

    def _publish(self, item: Tick | DepthBook) -> None:
        ring = self.ring
        payload = encode_tick((ring.head + 1, item))
        ring.add(payload)
        self._send(self.word + payload)

    async def begin(self, source: Source) -> None:
        """Have the session stream into it.

        Raises:
            BtIbkrError: It cannot.
        """
        raise NotImplementedError

    async def end(self, source: Source) -> None:
        """No longer."""
        raise NotImplementedError

    def close(self) -> None:
        """Publish what is held back, and no more."""

    def broken(self) -> None:
        """The session's stream was lost."""

    def sample(self, now_s: float) -> None:
        """Note how many there were; every few seconds."""
        self._rates.append((now_s, self.ring.head))
        while now_s - self._rates[1][0] >= _RATE_S:
            self._rates.popleft()

    def rate(self, now_s: float) -> float:
        """Messages per second in the last seconds, or since the first moment."""
        began_s, before = self._rates[0]
        return (self.ring.head - before) / (now_s - began_s) if now_s > began_s else 0.0


class TickTopic(Topic):
    """Ticks of a contract.

    Args:
        conflate_s, extras: See ``requests.Subscribe``.
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
        super().__init__((contract.conid, contract.exchange, conflate_s, extras), word, contract, ring, send)
        self.conflate_s = conflate_s
        self.extras = extras
        self._latest: Tick | None = None
        self._traded = 0.0
        self._stretch_ns = max(1, round(conflate_s * NS_PER_S))
        self._stretch = 0
        self._timer: asyncio.TimerHandle | None = None
        #: Put a tick in: published at once, or kept for the end of the stretch.
        self.push: Callable[[Tick], None] = self._hold_back if conflate_s else self._publish

    def __len__(self) -> int:
        return 0

    def append(self, item: Tick, /) -> None:
        self.push(item)

    def hold(self, tick: Tick, /) -> None:
        self.push(tick)

    async def begin(self, source: Source) -> None:
        await source.subscribe_ticks(self.contract, self, self.extras)

    async def end(self, source: Source) -> None:
        await source.unsubscribe_ticks(self)

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

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._flush()


class DepthTopic(Topic):
    """The book of a contract, as an account's ladder shows it. Each message is all of it: the last one is kept.

    Args:
        account: Whose ladder.
    """

    kind = "book"

    def __init__(self, word: bytes, contract: Contract, account: str, send: Callable[[bytes], None]) -> None:
        super().__init__((account, contract.conid, contract.exchange), word, contract, 1, send)
        self.account = account

    def append(self, item: DepthBook, /) -> None:
        self._publish(item)

    async def begin(self, source: Source) -> None:
        await source.subscribe_depth(self.contract, self.account, self)

    async def end(self, source: Source) -> None:
        await source.unsubscribe_depth(self)

    def broken(self) -> None:
        # What is to come begins a new book.
        self.ring.clear()


class Publisher:
    """All topics, and the socket that they leave by.

    Args:
        socket: XPUB, bound; set to take subscriptions by hand.
        source: The session's streams.
        ring: Ticks kept by topic.
    """

    def __init__(self, socket: zmq.Socket[bytes], source: Source, *, ring: int) -> None:
        self._socket = LoopSocket(socket, self._subscription)
        self._source = source
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
        """The topic of a stream of ticks, with one subscriber more; the session's stream begins with the first.

        Raises:
            BtIbkrError: The session cannot stream it.
        """
        word = self._new_word()
        topic = TickTopic(word, contract, conflate_s, extras, self._ring, self._socket.publish)
        return await self._open(topic, subscriber)

    async def open_depth(self, contract: Contract, account: str, subscriber: str) -> Topic:
        """As ``open``, of a book."""
        return await self._open(
            DepthTopic(self._new_word(), contract, account, self._socket.publish), subscriber
        )

    def _new_word(self) -> bytes:
        return self._prefix + secrets.token_bytes(TOPIC_LENGTH - TOPIC_PREFIX)

    async def _open(self, wanted: Topic, subscriber: str) -> Topic:
        """The topic of its stream that there is, or it."""
        topic = self._by_stream.get(wanted.key)
        if topic is None:
            self._by_stream[wanted.key] = self._by_word[wanted.word] = wanted
            wanted.subscribers.add(subscriber)
            try:
                await wanted.begin(self._source)
            except BaseException:
                self._forget(wanted)
                wanted.streams.set()
                raise
            wanted.streams.set()
            return wanted
        topic.subscribers.add(subscriber)
        await topic.streams.wait()
        if topic.word not in self._by_word:
            # The first one could not open it; whoever comes next tries, and is told why not.
            return await self._open(wanted, subscriber)
        return topic

    async def leave(self, word: bytes, subscriber: str) -> None:
        """One subscriber less; the session's stream ends with the last."""
        topic = self._by_word.get(word)
        if topic is None or subscriber not in topic.subscribers:
            return
        topic.subscribers.discard(subscriber)
        if not topic.subscribers:
            self._forget(topic)
            topic.close()
            await topic.end(self._source)

    def _forget(self, topic: Topic) -> None:
        self._by_word.pop(topic.word, None)
        if self._by_stream.get(topic.key) is topic:
            del self._by_stream[topic.key]

    def broken(self) -> None:
        """The session does not stream any more."""
        for topic in self._by_word.values():
            topic.broken()

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

    def sample(self, now_s: float) -> None:
        """Note what rates are told from; every few seconds."""
        for topic in self._by_word.values():
            topic.sample(now_s)

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
                kind=topic.kind,
            )
            for topic in self._by_word.values()
        )

    def close(self) -> None:
        for topic in self._by_word.values():
            topic.close()
        self._socket.close()
