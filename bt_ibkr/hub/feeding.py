"""Ticks and books of a strategy's process: asked for, taken in, and asked for again of a new hub."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final

from bt_ibkr.clock import Clock
from bt_ibkr.connection.interface import GapReported, SessionNotice, StoreEvent
from bt_ibkr.connection.mailbox import WakeUp
from bt_ibkr.errors import DepthError, LinesError, NotArmedError
from bt_ibkr.hub.ladders import Ladder, Ladders
from bt_ibkr.hub.link import HubLink
from bt_ibkr.hub.requests import Subscribe, SubscribeDepth
from bt_ibkr.hub.streams import Stream, Streams
from bt_ibkr.hub.ticks import decode_tick
from bt_ibkr.model.contract import Contract
from bt_ibkr.services.depth import DepthSink
from bt_ibkr.services.marketdata import TickSink

_log = logging.getLogger(__name__)

#: Longest wait for one answer, seconds.
CALL_S: Final = 70.0


class Feeding:
    """See the module.

    Args:
        link: To the hub.
        tell: Takes what the store is to know.
        clock: Market clock.
        wake: The store's flag.
        conflate_s: Above 0: take at most one tick of an instrument in so many seconds.

    Attributes:
        streams, ladders: Ticks and books.
    """

    def __init__(
        self,
        link: HubLink,
        tell: Callable[[StoreEvent], None],
        clock: Clock,
        wake: WakeUp,
        conflate_s: float,
    ) -> None:
        self._link = link
        self._tell = tell
        self._clock = clock
        self._conflate_s = conflate_s
        self._closed = False
        self.streams = Streams(link.ask, self._gap, wake.set, self._filled)
        self.ladders = Ladders(link.ask, wake.set)

    def close(self) -> None:
        """Nothing is asked of the hub any more."""
        self._closed = True

    # -- who wants them (cerebro's thread) -----------------------------------------------------------

    def subscribe_ticks(
        self, contract: Contract, sink: TickSink, extras: frozenset[str] = frozenset()
    ) -> None:
        """See ``Connection``."""
        wanted = Subscribe(contract=contract, conflate_s=self._conflate_s, extras=extras)
        stream = self.streams.find(wanted)
        if stream is not None:
            self.streams.add(stream, sink, None)
            return
        told = self._call("subscribe", wanted)
        last = None if told.last is None else decode_tick(told.last)[1]
        self.streams.add(Stream(wanted, told), sink, last)
        self._link.subscribe(told.topic)

    def unsubscribe_ticks(self, sink: TickSink) -> None:
        """See ``Connection``."""
        for stream in self.streams.remove(sink):
            self._end(stream.word)

    def subscribe_depth(self, contract: Contract, account: str, sink: DepthSink) -> None:
        """See ``Connection``."""
        wanted = SubscribeDepth(contract=contract, account=account)
        ladder = self.ladders.find(wanted)
        if ladder is not None:
            self.ladders.add(ladder, sink)
            return
        told = self._call("subscribe-depth", wanted)
        self.ladders.add(Ladder(wanted, told), sink)
        self._link.subscribe(told.topic)

    def unsubscribe_depth(self, sink: DepthSink) -> None:
        """See ``Connection``."""
        for ladder in self.ladders.remove(sink):
            self._end(ladder.word)

    def _end(self, word: bytes) -> None:
        """Nobody waits for the answer: the hub may be away."""
        if not self._closed:
            self._link.unsubscribe(word)
            self._link.ask("unsubscribe", word)

    def _call(self, kind: str, value: object) -> Any:
        return self._link.call(kind, value, timeout_s=CALL_S)

    # -- what comes (the link's thread) --------------------------------------------------------------

    def take(self, message: bytes) -> None:
        """A message of the tick channel."""
        if not self.streams.take(message):
            self.ladders.take(message)

    def take_heads(self, heads: dict[bytes, int], stream_ns: int) -> None:
        """See ``LinkUser.heads``."""
        self.streams.take_heads(heads, stream_ns)
        self.ladders.take_heads(heads)

    def missing(self, heads: dict[bytes, int]) -> bool:
        """Whether something of what was published has not come."""
        followed: tuple[Stream | Ladder, ...] = (*self.streams, *self.ladders)
        return any(one.received < heads.get(one.word, 0) for one in followed)

    def renew(self) -> None:
        """Ask a new hub for all of them; on the thread that brings it up to date.

        Raises:
            BtIbkrError: One cannot be had: without its ticks a strategy would stand still.
        """
        for stream in self.streams:
            told, before = self._call("subscribe", stream.wanted), stream.word
            if self.streams.renew(stream, told):
                self._change(before, told.topic)
        for ladder in self.ladders:
            try:
                told, before = self._call("subscribe-depth", ladder.wanted), ladder.word
            except (DepthError, LinesError, NotArmedError) as problem:
                # Somebody else has the account's ladder by now: that must not keep orders from the hub.
                self._tell(SessionNotice("depth-lost", str(problem)))
                continue
            if self.ladders.renew(ladder, told):
                self._change(before, told.topic)

    def _change(self, before: bytes, now: bytes) -> None:
        self._link.unsubscribe(before)
        self._link.subscribe(now)

    def _filled(self, stream: Stream, count: int) -> None:
        """Nothing is missing: they came late."""
        self._tell(
            SessionNotice("filled", f"{count} ticks of {stream.contract.describe()} came late, in order")
        )

    def _gap(self, stream: Stream, count: int) -> None:
        """Ticks are gone for good: feeds begin anew, and take the bars from history."""
        _log.warning("hub-ticks-gone contract=%s count=%d", stream.contract.describe(), count)
        start_ns = 0 if stream.seen is None else stream.seen.time_ns
        self._tell(
            GapReported(
                start_ns=start_ns,
                end_ns=self._clock.now_ns(),
                topics=(stream.contract.describe(),),
                cause=f"this process was too slow: {count} ticks of the hub were missed",
            )
        )
        for sink in stream.sinks:
            lose = getattr(sink, "lose", None)
            if lose is not None:
                lose(stream.seen, count)
