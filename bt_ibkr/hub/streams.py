"""Ticks of the hub on their way to feeds: in order, once each, and what is missing asked for again.

What comes is taken on the link's thread; who wants it says so on others. One lock stands between them.
"""

from __future__ import annotations

import concurrent.futures
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Final, Protocol

from bt_ibkr.errors import BtIbkrError, WireError
from bt_ibkr.hub.requests import Missed, Repeated, Subscribe, Subscribed
from bt_ibkr.hub.ticks import TOPIC_LENGTH, decode_tick
from bt_ibkr.model.market import Tick
from bt_ibkr.services.marketdata import TickSink

_log = logging.getLogger(__name__)

#: Beats in which a tick is not received that the hub says it has published, before it is asked for.
_BEATS_BEFORE_ASKING: Final = 2
#: Ticks kept of a stream while those before them are asked for; what comes beyond is asked for in its turn.
_MOST_KEPT: Final = 50_000


class LossySink(TickSink, Protocol):
    """A sink that can be told that ticks are missing for good."""

    def lose(self, tick: Tick | None, count: int) -> None:
        """``count`` ticks are missing after ``tick``."""


class Stream:
    """One topic.

    Attributes:
        word: Of the topic; another one with each hub.
        received: Number of the last tick handed on, or known to be gone.
        asking: Missing ticks were asked for; what comes meanwhile is kept.
    """

    __slots__ = (
        "asking",
        "conflate_s",
        "contract",
        "extras",
        "fresh",
        "kept",
        "late_beats",
        "mended",
        "received",
        "seen",
        "sinks",
        "word",
    )

    def __init__(self, wanted: Subscribe, told: Subscribed) -> None:
        self.contract = wanted.contract
        self.conflate_s = wanted.conflate_s
        self.extras = wanted.extras
        self.sinks: list[TickSink] = []
        self.seen: Tick | None = None
        self.word = b""
        self.received = 0
        self.asking = False
        self.kept: dict[int, Tick] = {}
        #: No message of the present topic has come yet: what is missing was published while it was subscribed.
        self.fresh = True
        self.late_beats = 0
        #: Ticks had again since they were found missing.
        self.mended = 0
        self.begin(told)

    @property
    def wanted(self) -> Subscribe:
        """As it was asked for."""
        return Subscribe(contract=self.contract, conflate_s=self.conflate_s, extras=self.extras)

    def begin(self, told: Subscribed) -> None:
        """From now on ticks come by this topic."""
        self.word = told.topic
        self.received = told.head
        self.fresh = True
        self.asking = False
        self.kept.clear()
        self.late_beats = 0


class Streams:
    """All topics of one strategy process.

    Args:
        ask: Asks the hub.
        gap: Told of ticks that are gone for good: the stream and how many.
        wake: Called after ticks were handed on.
        filled: Told of ticks that were missing and were had again: the stream and how many.

    Attributes:
        lost, mended: Ticks found missing so far, and those of them that were had again.
        stream_ns: The newest server time seen on any tick.
        whole_ns: Server time up to which nothing is missing in any stream, as far as the hub has confirmed it; 0 if
            it has not.
    """

    def __init__(
        self,
        ask: Callable[[str, object], concurrent.futures.Future[Repeated]],
        gap: Callable[[Stream, int], None],
        wake: Callable[[], None],
        filled: Callable[[Stream, int], None] = lambda stream, count: None,
    ) -> None:
        self._ask = ask
        self._gap = gap
        self._filled = filled
        self._wake = wake
        self._by_word: dict[bytes, Stream] = {}
        #: Asking may be answered at once, by whoever asks.
        self._lock = threading.RLock()
        self.lost = 0
        self.mended = 0
        self.stream_ns = 0
        self.whole_ns = 0
        #: Of the last beat: numbers of the newest ticks, and the server time that goes with them.
        self._heads: dict[bytes, int] = {}
        self._heads_ns = 0

    def __iter__(self) -> Iterator[Stream]:
        with self._lock:
            return iter(list(self._by_word.values()))

    # -- who wants them (any thread) -----------------------------------------------------------------

    def find(self, wanted: Subscribe) -> Stream | None:
        """The stream that has all that is wanted, if there is one."""
        with self._lock:
            for stream in self._by_word.values():
                same = stream.contract.conid == wanted.contract.conid
                if (
                    same
                    and stream.contract.exchange == wanted.contract.exchange
                    and stream.extras >= wanted.extras
                ):
                    return stream
        return None

    def add(self, stream: Stream, sink: TickSink, last: Tick | None) -> None:
        """Hand its ticks to ``sink``, beginning with the newest one so far."""
        with self._lock:
            self._by_word[stream.word] = stream
            if stream.seen is None:
                stream.seen = last
            if stream.seen is not None:
                sink.append(stream.seen)
            stream.sinks.append(sink)
        self._wake()

    def remove(self, sink: TickSink) -> list[Stream]:
        """Hand nothing to ``sink`` any more; the streams that nobody wants now."""
        unwanted = []
        with self._lock:
            for stream in list(self._by_word.values()):
                # A sink is a deque: equal ones are not the same.
                if any(one is sink for one in stream.sinks):
                    stream.sinks = [one for one in stream.sinks if one is not sink]
                    if not stream.sinks:
                        del self._by_word[stream.word]
                        unwanted.append(stream)
        return unwanted

    def renew(self, stream: Stream, told: Subscribed) -> bool:
        """A new hub streams it, by another topic and from another number on; false if it is the present one still."""
        with self._lock:
            if self._by_word.get(stream.word) is not stream or stream.word == told.topic:
                return False
            del self._by_word[stream.word]
            stream.begin(told)
            self._by_word[stream.word] = stream
            self._heads = {}
            return True

    # -- what comes (the link's thread) --------------------------------------------------------------

    def take(self, message: bytes) -> bool:
        """One message of the tick channel; false if it is of no stream of ticks."""
        with self._lock:
            stream = self._by_word.get(message[:TOPIC_LENGTH])
            if stream is None:
                return False
            try:
                number, tick = decode_tick(message[TOPIC_LENGTH:])
            except WireError as problem:
                _log.warning("hub-tick-unreadable problem=%s", problem)
                return True
            if number == stream.received + 1 and not stream.asking:
                self._hand_on(stream, number, tick)
            elif number > stream.received:
                if len(stream.kept) < _MOST_KEPT:
                    stream.kept[number] = tick
                if not stream.asking:
                    self._ask_for(stream, number - 1)
                return True
            else:
                return True
        self._wake()
        return True

    def _hand_on(self, stream: Stream, number: int, tick: Tick) -> None:
        stream.received = number
        stream.seen = tick
        stream.fresh = False
        stream.late_beats = 0
        for sink in stream.sinks:
            if len(sink) < sink.room:
                sink.push(tick)
            else:
                sink.hold(tick)
        # After the sinks: who reads this time first and the sinks second misses no tick up to it.
        if tick.time_ns > self.stream_ns:
            self.stream_ns = tick.time_ns

    def _ask_for(self, stream: Stream, last: int) -> None:
        first = stream.received + 1
        stream.asking = True
        if not stream.fresh:
            self.lost += last - first + 1
            _log.warning(
                "hub-ticks-missing contract=%s first=%d last=%d", stream.contract.describe(), first, last
            )
        self._ask_range(stream, first, last)

    def _ask_range(self, stream: Stream, first: int, last: int) -> None:
        word = stream.word
        future = self._ask("missed", Missed(topic=word, first=first, last=last))
        # The answer comes on the link's thread, as everything here.
        future.add_done_callback(lambda done: self._repeated(stream, word, last, done))

    def _repeated(
        self, stream: Stream, word: bytes, last: int, future: concurrent.futures.Future[Repeated]
    ) -> None:
        with self._lock:
            if stream.word != word or not stream.asking:
                return
            messages: tuple[bytes, ...] = ()
            first = last + 1
            if not future.cancelled():
                problem = future.exception()
                if problem is None:
                    messages, first = future.result().messages, future.result().first
                elif not isinstance(problem, BtIbkrError):
                    raise problem
            self._take_repeated(stream, last, first if messages else last + 1, messages)
        self._wake()

    def _take_repeated(self, stream: Stream, last: int, first: int, messages: tuple[bytes, ...]) -> None:
        """Ticks from ``first`` on, of those up to ``last``; what is before them is in no ring any more."""
        mends = not stream.fresh
        gone = first - (stream.received + 1)
        if gone > 0:
            self._gap(stream, gone)
            stream.received += gone
        for payload in messages:
            number, tick = decode_tick(payload)
            if number == stream.received + 1:
                self.mended += mends
                stream.mended += mends
                self._hand_on(stream, number, tick)
        if stream.received < last and messages:
            self._ask_range(stream, stream.received + 1, last)
            return
        stream.asking = False
        if stream.mended:
            self._filled(stream, stream.mended)
            stream.mended = 0
        self._hand_on_kept(stream)

    def _hand_on_kept(self, stream: Stream) -> None:
        for number in sorted(stream.kept):
            tick = stream.kept.pop(number)
            if number == stream.received + 1:
                self._hand_on(stream, number, tick)
            elif number > stream.received:
                stream.kept[number] = tick
                self._ask_for(stream, number - 1)
                return

    def take_heads(self, heads: dict[bytes, int], stream_ns: int) -> None:
        """What the hub has published: a loss that no later tick shows is found by it.

        Args:
            heads: Numbers of the newest ticks, by topic.
            stream_ns: Server time up to which they are all there is.
        """
        with self._lock:
            for known, whole_ns in ((self._heads, self._heads_ns), (heads, stream_ns)):
                if self._all_received(known):
                    self.whole_ns = max(self.whole_ns, whole_ns)
            self._heads, self._heads_ns = heads, stream_ns
            for word, head in heads.items():
                stream = self._by_word.get(word)
                if stream is None or stream.asking or head <= stream.received:
                    continue
                stream.late_beats += 1
                if stream.late_beats >= _BEATS_BEFORE_ASKING:
                    stream.late_beats = 0
                    self._ask_for(stream, head)

    def _all_received(self, heads: dict[bytes, int]) -> bool:
        by_word = self._by_word
        return bool(heads) and all(
            word in heads and heads[word] <= stream.received for word, stream in by_word.items()
        )

    def behind(self) -> dict[bytes, int]:
        """Ticks published and not received yet, by topic, as of the last beat."""
        with self._lock:
            return {
                word: head - stream.received
                for word, head in self._heads.items()
                if (stream := self._by_word.get(word)) is not None and head > stream.received
            }

    def waiting(self) -> int:
        """Ticks that the slowest reader has not taken in."""
        return max((len(sink) for stream in self for sink in stream.sinks), default=0)
