"""Top of book: one quote per instrument, shared by everyone who asked for it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol, runtime_checkable

from bt_ibkr.config import SessionSettings
from bt_ibkr.errors import BtIbkrError
from bt_ibkr.model.contract import Contract
from bt_ibkr.model.market import Quote, Tick
from bt_ibkr.services.availability import availability
from bt_ibkr.services.combo_quotes import ComboQuote, LegSink
from bt_ibkr.services.lines import Lines, LinesUsed
from bt_ibkr.services.snapshots import SnapshotRound, close_line
from bt_ibkr.services.streams import Stream, known_extras
from bt_ibkr.session.http import HttpClient
from bt_ibkr.session.websocket import Socket, Subscription, renewal_ns
from bt_ibkr.wire import topics

_log = logging.getLogger(__name__)

#: Lines kept for snapshots where what is beyond the budget is read by them.
_RESERVED: Final = 10
#: Longest that the end of the session waits for the server to take the lines back, seconds.
_GOODBYE_S: Final = 1.0


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


@runtime_checkable
class BreakSink(Protocol):
    """A sink of ticks that wants to know between which of them the stream broke."""

    def interrupted(self, cause: str, since_ns: int) -> None:
        """The stream broke; it was known to be whole until then, market time. Called in the loop's thread."""


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
        http: The way to snapshots, and to the end of lines.
        settings: The renewal interval, the lines and what is beyond them.
        wake: Called when a sink was given a tick that no frame brought.
        ours: Whether the lines at the server are this process's to end: to end a snapshot's line ends streams of the
            same instrument in other processes, too.
        now_ns: This machine's time, for ``Tick.received_ns``.
    """

    def __init__(
        self,
        socket: Socket,
        http: HttpClient,
        settings: SessionSettings,
        wake: Callable[[], None],
        ours: Callable[[], bool],
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._ours = ours
        self._socket = socket
        self._http = http
        self._renew_ns = renewal_ns(settings.renew_market_data_s)
        self._wake = wake
        self._now_ns = now_ns
        self._by_topic: dict[str, Stream] = {}
        self._combos: dict[int, _Combo] = {}
        reserved = 0
        if settings.lines_overflow == "snapshots":
            reserved = min(_RESERVED, max(1, settings.market_data_lines // 2))
        self._lines = Lines(settings.market_data_lines, reserved)
        self._round = SnapshotRound(http, reserved, wake) if reserved else None
        #: The newest server time on any instrument's tick: the market's clock as the stream shows it.
        self.stream_ns = 0

    # -- life ----------------------------------------------------------------------------------------

    async def clear_lines(self) -> None:
        """Give back every line that the user's programs have open at the server: dead ones leave them behind."""
        try:
            await self._http.get("/iserver/marketdata/unsubscribeall")
        except BtIbkrError as problem:
            _log.warning("lines-not-cleared problem=%s", problem)
        self._lines.clear()

    async def close(self) -> None:
        """Give the lines back: where they are ours to end all of the user's; else our streams, and what snapshots
        have opened is left to whom comes last."""
        with contextlib.suppress(TimeoutError, BtIbkrError):
            async with asyncio.timeout(_GOODBYE_S):
                if self._round is not None:
                    await self._round.stop()
                for topic in list(self._by_topic):
                    await self._socket.unsubscribe(topic)
                if self._ours():
                    await self._http.get("/iserver/marketdata/unsubscribeall")

    def used(self) -> LinesUsed:
        """The lines."""
        lines = self._lines
        return LinesUsed(
            limit=lines.limit,
            used=lines.used + min(len(self._round or ()), lines.reserved),
            free=lines.free,
            polls=self._round is not None,
            polled=len(self._round or ()),
            refused=lines.refused,
            names=lines.names,
        )

    # -- streams -------------------------------------------------------------------------------------

    async def subscribe(
        self, contract: Contract, sink: TickSink, extras: frozenset[str] = frozenset()
    ) -> None:
        """Stream ``contract`` into ``sink``; if it streams already, its last tick is given at once.

        Raises:
            UsageError: ``extras`` has a name that there is not.
            LinesError: All lines are in use.
        """
        known_extras(contract, extras)
        target = _target(contract)
        topic = f"smd+{target}"
        if topic not in self._by_topic and self._lines.room() and self._lines.full(target):
            await self._give_back(target, contract)
        # Only now: meanwhile somebody else may have begun it.
        stream = self._by_topic.get(topic)
        if stream is None:
            stream = Stream(self, contract, self._now_ns)
            stream.widen(extras)
            await self._begin(topic, target, stream, sink)
            return
        if stream.seen is not None:
            sink.append(stream.seen)
            self._wake()
        stream.add(sink)
        if stream.widen(extras) and not stream.polled:
            await self._ask(topic, target, stream)

    async def _begin(self, topic: str, target: str, stream: Stream, sink: TickSink) -> None:
        polled = self._round is not None and not self._lines.room()
        if not polled:
            self._lines.take(target, stream.contract.describe())
        # From here on others share it.
        self._by_topic[topic] = stream
        stream.add(sink)
        if polled:
            assert self._round is not None
            stream.polled = True
            self._round.add(target, stream)
            _log.info("line-polled target=%s", target)
            return
        try:
            await self._ask(topic, target, stream)
        except BaseException:
            self._by_topic.pop(topic, None)
            self._lines.release(target)
            raise

    async def _ask(self, topic: str, target: str, stream: Stream) -> None:
        routes, whole = self._socket.routes, self._socket.whole_routes
        if stream.extras is None:
            routes[topic] = stream.take
        else:
            routes.pop(topic, None)
            whole[topic] = stream.take_whole
        await self._socket.subscribe(
            Subscription(
                key=topic,
                text=topics.subscribe_market_data(target, stream.fields),
                undo=topics.unsubscribe_market_data(target),
                renew_ns=self._renew_ns,
                answers=True,
            )
        )

    async def _give_back(self, wanted: str, contract: Contract) -> None:
        """Lines of snapshots that nobody needs any longer, the oldest first, until there is one for ``wanted``.

        Raises:
            LinesError: There are none such, or they are not ours to end.
        """
        for target in self._lines.idle if self._ours() else ():
            if not self._lines.streams(_conid(target)):
                await close_line(self._http, _conid(target))
            self._lines.closed(target)
            if not self._lines.full(wanted):
                return
        raise self._lines.refusal(contract.describe())

    async def take_line(self, key: str, contract: Contract, name: str) -> None:
        """A line for something else than ticks, under a key of its own.

        Raises:
            LinesError: All lines are in use.
        """
        if self._lines.room() and self._lines.full(key):
            await self._give_back(key, contract)
        self._lines.take(key, name)

    async def release_line(self, key: str) -> None:
        """It is not needed any more."""
        self._lines.release(key)
        await self._promote()

    async def subscribe_combo(self, contract: Contract, legs: Sequence[Contract], sink: TickSink) -> None:
        """Stream a combo into ``sink``, made of the streams of its legs (in the order of ``contract.legs``).

        Raises:
            LinesError: As ``subscribe``, of a leg; none of them streams then.
        """
        combo = self._combos.get(contract.conid)
        if combo is not None:
            if combo.seen is not None:
                sink.append(combo.seen)
                self._wake()
            combo.sinks.append(sink)
            return
        combo = self._combos[contract.conid] = _Combo(contract, legs)
        combo.sinks.append(sink)
        try:
            for leg, taker in zip(legs, combo.legs, strict=True):
                await self.subscribe(leg, taker)
        except BtIbkrError:
            await self.unsubscribe(sink)
            raise

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
            if stream.remove(sink) and not stream.sinks:
                await self._end(topic, stream)

    async def _end(self, topic: str, stream: Stream) -> None:
        target = topic.removeprefix("smd+")
        del self._by_topic[topic]
        if stream.polled:
            assert self._round is not None
            await self._round.remove(target)
            return
        self._socket.routes.pop(topic, None)
        self._socket.whole_routes.pop(topic, None)
        await self._socket.unsubscribe(topic)
        if self._lines.release(target) and not self._lines.streams(_conid(target)) and self._ours():
            # A snapshot was read of it as well: the server keeps the line until it is told twice.
            self._lines.closed(target)
            with contextlib.suppress(BtIbkrError):
                await close_line(self._http, _conid(target))
        await self._promote()

    async def _promote(self) -> None:
        """A line is free: who waits longest for one streams from now on."""
        if self._round is None or not self._lines.room():
            return
        target = self._round.oldest
        if target is None:
            return
        topic = f"smd+{target}"
        stream = self._by_topic[topic]
        self._lines.take(target, stream.contract.describe())
        stream.polled = False
        # What traded between the last snapshot and the first frame is not in the stream.
        stream.merger.resubscribed()
        await self._round.remove(target)
        await self._ask(topic, target, stream)

    # -- reading -------------------------------------------------------------------------------------

    def latest(self, conid: int) -> Tick | None:
        """The last tick of a contract that streams, whichever its exchange; of a combo by its key."""
        if conid < 0:
            combo = self._combos.get(conid)
            return None if combo is None else combo.seen
        for topic, stream in self._by_topic.items():
            if stream.seen is not None and topic.removeprefix("smd+").partition("@")[0] == str(conid):
                return stream.seen
        return None

    def quote(self, contract: Contract) -> Quote | None:
        """The whole quote of a contract that streams (not of a combo); ``None`` before its first frame."""
        stream = self._by_topic.get(f"smd+{_target(contract)}")
        return None if stream is None else stream.quote()

    async def availability(self, contract: Contract) -> str:
        """Field 6509 of a contract, from its stream or a snapshot; empty if it is not told.

        Raises:
            SessionError, WireError: As ``services.availability.availability``.
            LinesError: All lines are in use.
        """
        quote = self.quote(contract)
        if quote is not None and quote.availability:
            return quote.availability
        target = str(contract.conid)
        if self._lines.full(target):
            await self._give_back(target, contract)
        self._lines.snapshot(target, contract.describe())
        return await availability(self._http, contract.conid)

    def broken(self, cause: str = "", since_ns: int = 0) -> None:
        """The WebSocket was lost: what traded meanwhile is not in the stream, which was whole until ``since_ns``."""
        for stream in self._by_topic.values():
            stream.merger.resubscribed()
            for sink, _ in stream.sinks:
                _tell_break(sink, cause, since_ns)
        for combo in self._combos.values():
            combo.quote.forget()
            combo.seen = None
            for sink in combo.sinks:
                _tell_break(sink, cause, since_ns)


def _tell_break(sink: TickSink, cause: str, since_ns: int) -> None:
    if isinstance(sink, BreakSink):
        sink.interrupted(cause, since_ns)


def _target(contract: Contract) -> str:
    """What the wire calls the instrument."""
    whole = contract.exchange in ("", "SMART", "IDEALPRO")
    return str(contract.conid) if whole else f"{contract.conid}@{contract.exchange}"


def _conid(target: str) -> int:
    return int(target.partition("@")[0])
