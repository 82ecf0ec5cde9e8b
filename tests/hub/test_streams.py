"""Ticks from the hub: in order, once each, and what is missing is exactly what was reported as gone."""

from __future__ import annotations

import concurrent.futures
from collections import deque
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bt_ibkr.connection.backlog import TickBacklog
from bt_ibkr.connection.interface import TicksConflated
from bt_ibkr.errors import SessionError
from bt_ibkr.feeds.bars import PriceSource
from bt_ibkr.feeds.edges import FixedEdges
from bt_ibkr.feeds.join import StreamJoin
from bt_ibkr.hub.requests import Missed, Repeated, Subscribe, Subscribed
from bt_ibkr.hub.streams import Stream, Streams
from bt_ibkr.hub.ticks import Ring, encode_tick
from bt_ibkr.model.contract import Contract, SecurityType
from bt_ibkr.model.market import DataQuality, Tick
from tests.hub.conftest import Ticks

CONTRACT = Contract(conid=265598, symbol="AAPL", security_type=SecurityType.STOCK, currency="USD")
WANTED = Subscribe(contract=CONTRACT)
#: Messages of one answer to ``missed``.
MOST = 3


def tick(number: int) -> Tick:
    """A tick that tells its number by its time."""
    return Tick(number, 265598, 1.0, 2.0, 1.0, 1.0, 1.5, 1.0, 1.0, 1.0, DataQuality.REALTIME, False, 0)


class Hub:
    """A hub's ring, and a channel to ``Streams`` on which messages can be lost."""

    def __init__(self, ring: int, before: int = 0) -> None:
        self.ring = Ring(ring)
        self.number = 0
        self.word = b"word-number%d" % self.number
        self.way: deque[bytes] = deque()
        self.asked: deque[tuple[Missed, concurrent.futures.Future[Repeated]]] = deque()
        self.gone: list[tuple[int, int]] = []
        self.streams = Streams(self.ask, self.gap, lambda: None)
        for _ in range(before):
            self.publish(lost=True)
        self.sink = Ticks()
        self.stream = Stream(WANTED, self.subscribed())
        self.streams.add(self.stream, self.sink, None)
        self.began = self.ring.head

    def subscribed(self) -> Subscribed:
        return Subscribed(topic=self.word, head=self.ring.head, last=self.ring.last())

    def ask(self, kind: str, value: Any) -> concurrent.futures.Future[Repeated]:
        assert kind == "missed"
        future: concurrent.futures.Future[Repeated] = concurrent.futures.Future()
        self.asked.append((value, future))
        return future

    def gap(self, stream: Stream, count: int) -> None:
        self.gone.append((stream.received + 1, stream.received + count))
        for sink in stream.sinks:
            assert isinstance(sink, Ticks)
            sink.lose(stream.seen, count)

    def publish(self, *, lost: bool = False) -> None:
        payload = encode_tick((self.ring.head + 1, tick(self.ring.head + 1)))
        self.ring.add(payload)
        if not lost:
            self.way.append(self.word + payload)

    def arrive(self, most: int = 1 << 30) -> None:
        while self.way and most:
            self.streams.take(self.way.popleft())
            most -= 1

    def answer(self) -> None:
        if self.asked:
            missed, future = self.asked.popleft()
            first, messages = self.ring.range(missed.first, missed.last, MOST)
            future.set_result(Repeated(topic=missed.topic, first=first, messages=messages))

    def beat(self) -> None:
        self.streams.take_heads({self.word: self.ring.head}, self.ring.head)

    def settle(self) -> None:
        """Everything arrives that will, beats go on, questions are answered."""
        for _ in range(6 + 2 * self.ring.head):
            self.arrive()
            self.beat()
            self.answer()

    @property
    def received(self) -> list[int]:
        return [one.time_ns for one in self.sink.all]


ACTIONS = st.one_of(
    st.tuples(st.just("publish"), st.booleans()),
    st.tuples(st.just("arrive"), st.integers(1, 4)),
    st.just(("answer", 0)),
    st.just(("beat", 0)),
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(ring=st.integers(1, 8), before=st.integers(0, 3), actions=st.lists(ACTIONS, max_size=60))
def test_what_is_missing_is_what_was_reported(ring: int, before: int, actions: list[tuple[str, int]]) -> None:
    hub = Hub(ring, before)
    for action, value in actions:
        if action == "publish":
            hub.publish(lost=bool(value))
        elif action == "arrive":
            hub.arrive(value)
        else:
            getattr(hub, action)()
        whole = hub.streams.whole_ns
        accounted = set(hub.received) | {n for a, b in hub.gone for n in range(a, b + 1)}
        assert set(range(hub.began + 1, whole + 1)) <= accounted
    hub.settle()
    assert hub.received == sorted(set(hub.received))
    gone = [number for first, last in hub.gone for number in range(first, last + 1)]
    assert len(gone) == len(set(gone))
    assert sorted(hub.received + gone) == list(range(hub.began + 1, hub.ring.head + 1))
    assert hub.sink.losses == len(hub.gone)
    assert hub.stream.kept == {}
    assert hub.streams.behind() == {}
    assert hub.streams.whole_ns == hub.ring.head


def test_doubles_are_taken_once() -> None:
    hub = Hub(8)
    for _ in range(3):
        hub.publish()
    hub.way.extend(list(hub.way))
    hub.settle()
    assert hub.received == [1, 2, 3]
    assert hub.streams.lost == 0


def test_a_hub_that_does_not_answer_what_is_missed_is_told_as_a_loss() -> None:
    hub = Hub(8)
    hub.publish()
    hub.publish(lost=True)
    hub.publish()
    hub.arrive()
    _, future = hub.asked.popleft()
    future.set_exception(SessionError("There is no such stream."))
    assert hub.received == [1, 3]
    assert hub.gone == [(2, 2)]


def test_a_question_of_before_the_new_topic_is_nothing_to_it() -> None:
    hub = Hub(8)
    hub.publish(lost=True)
    hub.publish()
    hub.arrive()
    late = hub.asked.popleft()[1]
    hub.word, hub.ring = b"word-number1", Ring(8)
    assert hub.streams.renew(hub.stream, hub.subscribed())
    assert not hub.streams.renew(hub.stream, hub.subscribed())
    late.set_result(Repeated(topic=b"word-number0", first=1, messages=(encode_tick((1, tick(1))),)))
    assert hub.received == []
    hub.publish()
    hub.settle()
    assert hub.received == [1]
    assert hub.gone == []


def test_what_is_kept_while_asking_is_bounded(monkeypatch: Any) -> None:
    monkeypatch.setattr("bt_ibkr.hub.streams._MOST_KEPT", 3)
    hub = Hub(100)
    hub.publish(lost=True)
    for _ in range(20):
        hub.publish()
    hub.arrive()
    assert len(hub.stream.kept) == 3
    hub.settle()
    assert hub.received == list(range(1, 22))


def test_a_sink_that_joins_has_the_newest_and_what_follows() -> None:
    hub = Hub(8)
    hub.publish()
    hub.arrive()
    second = Ticks()
    hub.streams.add(hub.stream, second, None)
    hub.publish()
    hub.arrive()
    assert [one.time_ns for one in second.all] == [1, 2]
    assert hub.streams.remove(second) == []
    assert hub.streams.remove(hub.sink) == [hub.stream]


# -- a feed's backlog ----------------------------------------------------------------------------------


def test_a_loss_makes_the_backlog_begin_anew() -> None:
    told: list[TicksConflated] = []
    backlog = TickBacklog(10, told=told.append)
    backlog.append(tick(1))
    backlog.append(tick(2))
    backlog.lose(tick(2), 5)
    backlog.append(tick(8))
    backlog.append(tick(9))
    # What was there before the hole is whole, and is all there is.
    assert [backlog.popleft().time_ns for _ in range(len(backlog))] == [1, 2]
    assert (backlog.behind, backlog.lost) == (True, True)
    assert backlog.report().start_ns == 2
    assert not backlog.refill()
    backlog.restart()
    assert [one.time_ns for one in backlog] == [9]
    assert (backlog.behind, backlog.lost) == (False, False)
    backlog.append(tick(10))
    assert len(backlog) == 2
    assert backlog.dropped == 7
    assert [(one.over, one.dropped) for one in told] == [(False, 0), (True, 7)]


def test_a_loss_while_the_reader_is_behind_drops_what_was_conflated() -> None:
    backlog = TickBacklog(6)
    for number in range(1, 10):
        backlog.append(tick(number))
    assert (backlog.behind, backlog.lost) == (True, False)
    backlog.lose(tick(9), 4)
    backlog.lose(tick(13), 1)
    assert (backlog.behind, backlog.lost) == (True, True)
    assert backlog.episodes == 1
    assert backlog.dropped == 3 + 4 + 1
    assert [one.time_ns for one in backlog] == [1, 2, 3, 4, 5, 6]


def test_what_comes_late_through_a_broken_stream_is_in_no_bar() -> None:
    """The tick channel may go on, or bring up what it has, while the hub is taken as gone: history has that time."""
    second_ns = 1_000_000_000
    join = StreamJoin(FixedEdges(10 * second_ns), PriceSource.TRADES, fetch_start=False, fetch_gaps=True)
    join.begin(10 * second_ns)
    join.take(deque([tick(11 * second_ns)]))
    join.break_off(11 * second_ns)
    join.take(deque([tick(second * second_ns) for second in range(12, 45)]))
    join.resume(45 * second_ns)
    join.take(deque([tick(second * second_ns) for second in range(45, 62)]))
    join.advance(62 * second_ns)
    join.top_up(62 * second_ns)
    wish = join.take_wish()
    assert wish is not None
    assert (wish.start_ns, wish.end_ns) == (20 * second_ns, 50 * second_ns)
    join.take_history((), 62 * second_ns)
    assert [delivery.bar.end_ns for delivery in join.queue] == [60 * second_ns]
    assert join.queue[0].bar.volume == 10
