"""Books of prices on their way from the hub to feeds.

Each message is the whole book: of those that were lost the newest is enough, and an older one is nothing any more.
What comes is taken on the link's thread; who wants it says so on others. One lock stands between them.
"""

from __future__ import annotations

import concurrent.futures
import logging
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Final

from bt_ibkr.errors import WireError
from bt_ibkr.hub.requests import Missed, Repeated, Subscribed, SubscribeDepth
from bt_ibkr.hub.ticks import TOPIC_LENGTH, decode_book
from bt_ibkr.model.market import DepthBook
from bt_ibkr.services.depth import DepthSink

_log = logging.getLogger(__name__)

#: Beats in which a book is not received that the hub says it has published, before it is asked for.
_BEATS_BEFORE_ASKING: Final = 2


class Ladder:
    """One topic.

    Attributes:
        wanted: As it was asked for.
        word: Of the topic; another one with each hub.
        received: Number of the newest book that was handed on.
        seen: That book; ``None`` before the first since the stream was last broken.
    """

    __slots__ = ("late_beats", "received", "seen", "sinks", "wanted", "word")

    def __init__(self, wanted: SubscribeDepth, told: Subscribed) -> None:
        self.wanted = wanted
        self.sinks: list[DepthSink] = []
        self.begin(told)

    def begin(self, told: Subscribed) -> None:
        """From now on books come by this topic."""
        self.word = told.topic
        self.received = told.head
        self.seen: DepthBook | None = None if told.last is None else decode_book(told.last)[1]
        self.late_beats = 0


class Ladders:
    """All books that a strategy process follows.

    Args:
        ask: Asks the hub.
        wake: Called after a book was handed on.

    Attributes:
        skipped: Books that were overtaken by newer ones on their way.
    """

    def __init__(
        self, ask: Callable[[str, object], concurrent.futures.Future[Repeated]], wake: Callable[[], None]
    ) -> None:
        self._ask = ask
        self._wake = wake
        self._by_word: dict[bytes, Ladder] = {}
        self._lock = threading.RLock()
        self.skipped = 0

    def __iter__(self) -> Iterator[Ladder]:
        with self._lock:
            return iter(list(self._by_word.values()))

    # -- who wants them (any thread) -----------------------------------------------------------------

    def find(self, wanted: SubscribeDepth) -> Ladder | None:
        """The one that shows it, if there is one."""
        for ladder in self:
            ours, theirs = ladder.wanted, wanted
            if (ours.account, ours.contract.conid, ours.contract.exchange) == (
                theirs.account, theirs.contract.conid, theirs.contract.exchange,
            ):  # fmt: skip
                return ladder
        return None

    def add(self, ladder: Ladder, sink: DepthSink) -> None:
        """Hand its books to ``sink``, beginning with the newest one so far."""
        with self._lock:
            self._by_word[ladder.word] = ladder
            if ladder.seen is not None:
                sink.append(ladder.seen)
            ladder.sinks.append(sink)
        self._wake()

    def remove(self, sink: DepthSink) -> list[Ladder]:
        """Hand nothing to ``sink`` any more; those that nobody wants now."""
        unwanted = []
        with self._lock:
            for ladder in list(self._by_word.values()):
                # A sink is a deque: equal ones are not the same.
                if any(one is sink for one in ladder.sinks):
                    ladder.sinks = [one for one in ladder.sinks if one is not sink]
                    if not ladder.sinks:
                        del self._by_word[ladder.word]
                        unwanted.append(ladder)
        return unwanted

    def renew(self, ladder: Ladder, told: Subscribed) -> bool:
        """A new hub streams it, by another topic; false if it is the present one still, or nobody wants it."""
        with self._lock:
            if self._by_word.get(ladder.word) is not ladder or ladder.word == told.topic:
                return False
            del self._by_word[ladder.word]
            ladder.begin(told)
            self._by_word[ladder.word] = ladder
            if ladder.seen is not None:
                self._hand_on(ladder, ladder.seen)
            return True

    # -- what comes (the link's thread) --------------------------------------------------------------

    def take(self, message: bytes) -> None:
        """One message of the tick channel, if it is a book's."""
        with self._lock:
            ladder = self._by_word.get(message[:TOPIC_LENGTH])
            if ladder is not None:
                self._take(ladder, message[TOPIC_LENGTH:])

    def _take(self, ladder: Ladder, payload: bytes) -> None:
        try:
            number, book = decode_book(payload)
        except WireError as problem:
            _log.warning("hub-book-unreadable problem=%s", problem)
            return
        if number <= ladder.received:
            return
        self.skipped += number - ladder.received - 1
        ladder.received = number
        ladder.late_beats = 0
        ladder.seen = book
        self._hand_on(ladder, book)

    def _hand_on(self, ladder: Ladder, book: DepthBook) -> None:
        for sink in ladder.sinks:
            sink.append(book)
        self._wake()

    def take_heads(self, heads: dict[bytes, int]) -> None:
        """What the hub has published, by topic: a loss that no later book shows is found by it."""
        for ladder in self:
            if heads.get(ladder.word, 0) <= ladder.received:
                continue
            ladder.late_beats += 1
            if ladder.late_beats >= _BEATS_BEFORE_ASKING:
                ladder.late_beats = 0
                self._ask_for(ladder, heads[ladder.word])

    def _ask_for(self, ladder: Ladder, number: int) -> None:
        word = ladder.word

        def repeated(done: concurrent.futures.Future[Repeated]) -> None:
            if done.cancelled() or done.exception() is not None:
                return
            with self._lock:
                if ladder.word != word:
                    return
                for payload in done.result().messages:
                    self._take(ladder, payload)
                # Where the hub keeps none, its stream was broken: what is to come is the next there is.
                ladder.received = max(ladder.received, number)

        self._ask("missed", Missed(topic=word, first=number, last=sys.maxsize)).add_done_callback(repeated)

    def broken(self) -> None:
        """The session's stream was lost: what was seen is nothing to who comes next."""
        for ladder in self:
            ladder.seen = None
