"""Top of book: one quote per instrument, shared by everyone who asked for it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Protocol

from bt_ibkr.config import SessionSettings
from bt_ibkr.model.market import Tick
from bt_ibkr.session.websocket import Socket, Subscription, renewal_ns
from bt_ibkr.wire import topics
from bt_ibkr.wire.frames import QUOTE_FIELDS, QuoteFrame, QuoteMerger

_log = logging.getLogger(__name__)


class TickSink(Protocol):
    """Takes ticks; called in the loop's thread. ``connection.backlog.TickBacklog`` is one."""

    @property
    def room(self) -> int:
        """How long the sink may get by ``push``."""

    @property
    def push(self) -> Callable[[Tick], None]:
        """Take a tick, where there is room."""

    def hold(self, tick: Tick, /) -> None:
        """Take a tick for which there is none."""

    def append(self, item: Tick, /) -> None:
        """``push`` or ``hold``."""

    def __len__(self) -> int: ...


class _Stream:
    """One instrument's frames on their way to its sinks."""

    __slots__ = ("merger", "seen", "sinks", "take")

    def __init__(self, service: MarketDataService, conid: int, now_ns: Callable[[], int]) -> None:
        self.merger = QuoteMerger(conid)
        #: With the method that puts a tick into each: to look it up costs as much as to call it.
        self.sinks: list[tuple[TickSink, Callable[[Tick], None]]] = []
        self.seen: Tick | None = None
        self.take = self._taker(service, now_ns)

    def _taker(self, service: MarketDataService, now_ns: Callable[[], int]) -> Callable[[QuoteFrame], None]:
        """Merges a frame and hands its tick on; the hot path of market data, so all it needs is at hand."""
        merge, sinks = self.merger.apply, self.sinks

        def take(frame: QuoteFrame) -> None:
            tick = merge(frame, now_ns())
            if tick is None:
                return
            self.seen = tick
            for sink, push in sinks:
                if len(sink) < sink.room:
                    push(tick)
                else:
                    sink.hold(tick)
            # After the sinks: who reads this time first and the sinks second misses no tick up to it.
            if tick.time_ns > service.stream_ns:
                service.stream_ns = tick.time_ns

        return take


class MarketDataService:
    """Market data of one session.

    Args:
        socket: The session's WebSocket.
        settings: For the renewal interval.
        wake: Called when a sink was given a tick that no frame brought.
        now_ns: This machine's time, for ``Tick.received_ns``.
    """

    def __init__(
        self,
        socket: Socket,
        settings: SessionSettings,
        wake: Callable[[], None],
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._socket = socket
        self._renew_ns = renewal_ns(settings.renew_market_data_s)
        self._wake = wake
        self._now_ns = now_ns
        self._by_topic: dict[str, _Stream] = {}
        #: The newest server time on any instrument's tick: the market's clock as the stream shows it.
        self.stream_ns = 0

    async def subscribe(self, conid: int, exchange: str, sink: TickSink) -> None:
        """Stream ``conid`` into ``sink``; if it streams already, its last tick is given at once."""
        target = str(conid) if exchange in ("", "SMART", "IDEALPRO") else f"{conid}@{exchange}"
        topic = f"smd+{target}"
        stream = self._by_topic.get(topic)
        if stream is None:
            stream = self._by_topic[topic] = _Stream(self, conid, self._now_ns)
            stream.sinks.append((sink, sink.push))
            self._socket.routes[topic] = stream.take
            await self._socket.subscribe(
                Subscription(
                    key=topic,
                    text=topics.subscribe_market_data(target, QUOTE_FIELDS),
                    undo=topics.unsubscribe_market_data(target),
                    renew_ns=self._renew_ns,
                    answers=True,
                )
            )
            return
        if stream.seen is not None:
            sink.append(stream.seen)
            self._wake()
        stream.sinks.append((sink, sink.push))

    async def unsubscribe(self, sink: TickSink) -> None:
        """End the streams of ``sink``; a stream that nobody wants is ended at the server."""
        for topic, stream in list(self._by_topic.items()):
            if any(existing is sink for existing, _ in stream.sinks):
                # The same list: the stream's ``take`` holds it.
                stream.sinks[:] = [(one, push) for one, push in stream.sinks if one is not sink]
                if not stream.sinks:
                    del self._by_topic[topic]
                    self._socket.routes.pop(topic, None)
                    await self._socket.unsubscribe(topic)

    def latest(self, conid: int) -> Tick | None:
        """The last tick of a contract that streams, whichever its exchange."""
        for topic, stream in self._by_topic.items():
            if stream.seen is not None and topic.removeprefix("smd+").partition("@")[0] == str(conid):
                return stream.seen
        return None

    def broken(self) -> None:
        """The WebSocket was lost: what traded meanwhile is not in the stream."""
        for stream in self._by_topic.values():
            stream.merger.resubscribed()
