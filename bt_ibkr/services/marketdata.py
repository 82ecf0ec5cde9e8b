"""Top of book: one quote per instrument, shared by everyone who asked for it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from bt_ibkr.config import SessionSettings
from bt_ibkr.model.contract import Contract
from bt_ibkr.model.market import Tick
from bt_ibkr.services.combo_quotes import ComboQuote, LegSink
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


class _Combo:
    """The ticks of a combo, made of its legs', on their way to its sinks."""

    __slots__ = ("legs", "quote", "seen", "sinks")

    def __init__(self, contract: Contract, legs: Sequence[Contract]) -> None:
        self.quote = ComboQuote(contract, legs)
        self.legs = [LegSink(index, self._take) for index in range(len(legs))]
        self.sinks: list[TickSink] = []
        self.seen: Tick | None = None

    def _take(self, index: int, leg: Tick) -> None:
        tick = self.quote.take(index, leg)
        if tick is None:
            return
        self.seen = tick
        for sink in self.sinks:
            sink.append(tick)


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
        self._combos: dict[int, _Combo] = {}
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

    async def subscribe_combo(self, contract: Contract, legs: Sequence[Contract], sink: TickSink) -> None:
        """Stream a combo into ``sink``, made of the streams of its legs (in the order of ``contract.legs``)."""
        combo = self._combos.get(contract.conid)
        if combo is not None:
            if combo.seen is not None:
                sink.append(combo.seen)
                self._wake()
            combo.sinks.append(sink)
            return
        combo = self._combos[contract.conid] = _Combo(contract, legs)
        combo.sinks.append(sink)
        for leg, taker in zip(legs, combo.legs, strict=True):
            await self.subscribe(leg.conid, leg.exchange, taker)

    async def unsubscribe(self, sink: TickSink) -> None:
        """End the streams of ``sink``; a stream that nobody wants is ended at the server."""
        for key, combo in list(self._combos.items()):
            if any(existing is sink for existing in combo.sinks):
                combo.sinks[:] = [one for one in combo.sinks if one is not sink]
                if not combo.sinks:
                    del self._combos[key]
                    for leg in combo.legs:
                        await self.unsubscribe(leg)
        for topic, stream in list(self._by_topic.items()):
            if any(existing is sink for existing, _ in stream.sinks):
                # The same list: the stream's ``take`` holds it.
                stream.sinks[:] = [(one, push) for one, push in stream.sinks if one is not sink]
                if not stream.sinks:
                    del self._by_topic[topic]
                    self._socket.routes.pop(topic, None)
                    await self._socket.unsubscribe(topic)

    def latest(self, conid: int) -> Tick | None:
        """The last tick of a contract that streams, whichever its exchange; of a combo by its key."""
        if conid < 0:
            combo = self._combos.get(conid)
            return None if combo is None else combo.seen
        for topic, stream in self._by_topic.items():
            if stream.seen is not None and topic.removeprefix("smd+").partition("@")[0] == str(conid):
                return stream.seen
        return None

    def broken(self) -> None:
        """The WebSocket was lost: what traded meanwhile is not in the stream."""
        for stream in self._by_topic.values():
            stream.merger.resubscribed()
        for combo in self._combos.values():
            combo.quote.forget()
            combo.seen = None
