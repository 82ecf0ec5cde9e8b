"""Books of prices through the hub: the same rows as with a session of one's own, shared, released, and made good."""

from __future__ import annotations

import concurrent.futures
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import backtrader as bt
import pytest

from bt_ibkr.clock import SystemClock
from bt_ibkr.connection.interface import SessionChanged
from bt_ibkr.connection.mailbox import WakeUp
from bt_ibkr.emulator.testing import EmulatorThread
from bt_ibkr.errors import DepthError, LinesError, NotArmedError
from bt_ibkr.hub.access import Grant
from bt_ibkr.hub.feeding import Feeding
from bt_ibkr.hub.ladders import Ladder, Ladders
from bt_ibkr.hub.link import HubLink
from bt_ibkr.hub.protocol import MAX_MESSAGE
from bt_ibkr.hub.requests import Missed, Repeated, Subscribed, SubscribeDepth
from bt_ibkr.hub.thread import HubThread
from bt_ibkr.hub.ticks import TOPIC_LENGTH, encode_tick
from bt_ibkr.model.market import DepthBook, DepthLevel
from tests.conftest import Bench
from tests.feeds.test_depth import Watcher
from tests.hub.conftest import ACCOUNT, PATIENCE_S, HubBench, Join, StartHub, Strategy, move
from tests.hub.noticed import until
from tests.hub.test_publisher import CONTRACT

WORD, OTHER = b"w" * TOPIC_LENGTH, b"o" * TOPIC_LENGTH
WANTED = SubscribeDepth(contract=CONTRACT, account=ACCOUNT)


# -- through cerebro -----------------------------------------------------------------------------------


def rows(bench: Bench) -> tuple[list[tuple[Any, ...]], list[float], list[str]]:
    """What a strategy sees of the book of three minutes, beside the ticks of the same instrument."""
    made = bench.line()
    made.step(bench.opening(60))
    cerebro = bt.Cerebro(quicknotify=True, stdstats=False)
    cerebro.adddata(made.store.getdepth(levels=3, dataname="AAPL"), name="book")
    cerebro.adddata(made.store.getdata(dataname="AAPL", backfill_start=False, timeframe=bt.TimeFrame.Minutes))
    cerebro.addstrategy(Watcher)
    made.lockstep(int(bench.epoch(bench.opening(240)) * 1e9))
    with made.store:
        (strategy,) = cerebro.run()
    return strategy.books, strategy.moments, strategy.told


def test_the_same_rows_as_without_a_hub(bench: Bench, hub_bench: HubBench) -> None:
    direct, through = rows(bench), rows(hub_bench)
    assert len(direct[0]) > 20
    assert through[0] == direct[0]
    assert through[1] == direct[1]


# -- sharing and releasing -----------------------------------------------------------------------------


def follow(strategy: Strategy, name: str = "AAPL") -> list[DepthBook]:
    books: list[DepthBook] = []
    strategy.connection.subscribe_depth(strategy.contract(name), ACCOUNT, books)
    return books


def test_one_ladder_for_all_who_follow_it(hub: HubThread, emulator: EmulatorThread, join: Join) -> None:
    first, second = join("alpha"), join("beta")
    one, two = follow(first), follow(second)
    first.until(lambda: move(emulator, 20) or len(one) > 10)  # type: ignore[func-returns-value]
    first.until(lambda: one[-1] == two[-1])
    assert one[-len(two) :] == two
    status = hub.status()
    assert [(each.kind, each.name, each.subscribers) for each in status.topics] == [
        ("book", "AAPL-STK-SMART-USD", ("alpha", "beta"))
    ]
    assert status.session.lines.names == ("book of AAPL-STK-SMART-USD",)
    # Who comes later has the newest one at once.
    third = join("gamma")
    assert follow(third) == [one[-1]]
    with pytest.raises(DepthError, match=r"AAPL.*MSFT"):
        follow(third, "MSFT")


def test_a_book_from_before_a_break_is_nobodys(hub: HubThread, emulator: EmulatorThread, join: Join) -> None:
    """The next frame begins a new one."""
    first = join("alpha")
    one = follow(first)
    first.until(lambda: move(emulator, 20) or len(one) > 3)  # type: ignore[func-returns-value]
    broken = SessionChanged("disconnected", "as a test wants it", "", False)
    hub.loop.call(_append(hub, broken))
    first.until(lambda: first.states()[-1:] == [False])
    two = follow(join("beta"))
    again: list[DepthBook] = []
    first.connection.subscribe_depth(first.contract(), ACCOUNT, again)
    assert (two, again) == ([], [])
    first.until(lambda: move(emulator, 20) or (two and again))  # type: ignore[func-returns-value]


async def _append(hub: HubThread, event: SessionChanged) -> None:
    hub.server.append(event)


def test_it_is_released_with_the_last_one(hub: HubThread, emulator: EmulatorThread, join: Join) -> None:
    first, second = join("alpha"), join("beta")
    one, two = follow(first), follow(second)
    second.connection.close()
    until(lambda: [each.subscribers for each in hub.status().topics] == [("alpha",)])
    before = len(one)
    first.until(lambda: move(emulator, 20) or len(one) > before)  # type: ignore[func-returns-value]
    first.connection.unsubscribe_depth(one)
    until(lambda: hub.status().topics == ())
    until(lambda: hub.status().session.lines.used == 0)
    assert follow(first, "MSFT") is not two


def test_a_killed_process_frees_the_ladder(start_hub: StartHub) -> None:
    hub = start_hub(dead_s=0.3, strategies={"alpha": Grant(vanish_s=0.1), "beta": Grant()})
    dead, alive = (Strategy(hub.endpoint, name).open() for name in ("alpha", "beta"))
    try:
        follow(dead, "MSFT")
        with pytest.raises(DepthError):
            follow(alive)
        dead.connection._link._say = lambda message: False  # type: ignore[method-assign]
        until(lambda: hub.status().topics == ())
        follow(alive)
    finally:
        for one in (dead, alive):
            one.connection.close()


def test_it_takes_a_line(emulator: EmulatorThread, start_hub: StartHub) -> None:
    hub = start_hub()
    hub.brokerage.market_data._lines.limit = 1
    strategy = Strategy(hub.endpoint, "alpha").open()
    try:
        ticks = strategy.follow("AAPL")
        with pytest.raises(LinesError, match="AAPL"):
            follow(strategy)
        strategy.connection.unsubscribe_ticks(ticks)
        until(lambda: hub.status().session.lines.used == 0)
        follow(strategy)
        assert hub.status().session.lines.used == 1
    finally:
        strategy.connection.close()


def test_accounts_and_instruments_are_obeyed(start_hub: StartHub) -> None:
    hub = start_hub(
        strategies={
            "alpha": Grant(instruments=("MSFT",)),
            "beta": Grant(accounts=("DU7654321",)),
            "all": Grant(),
        },
    )
    strategies = {name: Strategy(hub.endpoint, name).open() for name in ("alpha", "beta", "all")}
    try:
        apple = strategies["all"].contract()
        for name in ("alpha", "beta"):
            with pytest.raises(NotArmedError, match="may not use"):
                strategies[name].connection.subscribe_depth(apple, ACCOUNT, [])
    finally:
        for one in strategies.values():
            one.connection.close()


def test_it_goes_on_with_the_next_hub(emulator: EmulatorThread, start_hub: StartHub, tmp_path: Path) -> None:
    journal = tmp_path / "journal.sqlite"
    hub = start_hub(journal)
    strategy = Strategy(hub.endpoint, "alpha").open()
    try:
        books = follow(strategy)
        strategy.until(lambda: move(emulator, 20) or len(books) > 3)  # type: ignore[func-returns-value]
        hub.close()
        start_hub(journal)
        strategy.until(lambda: strategy.states()[-1:] == [True] and len(strategy.states()) > 2)
        before = len(books)
        strategy.until(lambda: move(emulator, 20) or len(books) > before + 3)  # type: ignore[func-returns-value]
        times = [one.time_ns for one in books]
        assert times == sorted(times)
    finally:
        strategy.connection.close()


class NoLadder:
    """A link to a hub at which somebody else has the ladder since it was restarted."""

    def __init__(self) -> None:
        self.refuses = False
        self.words = [WORD, OTHER]

    def ask(self, kind: str, value: object = None) -> Any:
        raise AssertionError(kind)

    def call(self, kind: str, value: object = None, **options: Any) -> Subscribed:
        assert kind == "subscribe-depth"
        if self.refuses:
            raise DepthError("Account DU1234567 shows the book of MSFT already.")
        return Subscribed(topic=self.words.pop(0), head=0, last=None)

    def subscribe(self, word: bytes) -> None: ...
    def unsubscribe(self, word: bytes) -> None: ...


def test_a_ladder_that_is_lost_keeps_nothing_else_from_going_on() -> None:
    """It is told, and had again of a hub that has it."""
    link, told, books = NoLadder(), [], []  # type: ignore[var-annotated]
    feeding = Feeding(cast("HubLink", link), told.append, SystemClock(), WakeUp(), 0.0)
    feeding.subscribe_depth(CONTRACT, ACCOUNT, books)
    link.refuses = True
    feeding.renew()
    assert [(one.kind, "MSFT" in one.text) for one in told] == [("depth-lost", True)]
    link.refuses = False
    feeding.renew()
    feeding.take(message(1, OTHER))
    assert numbers(books) == [1]


# -- losses --------------------------------------------------------------------------------------------


def book(price: float) -> DepthBook:
    return DepthBook(conid=CONTRACT.conid, time_ns=int(price), bids=(DepthLevel(price, 1.0),))


def message(number: int, word: bytes = WORD) -> bytes:
    return word + encode_tick((number, book(float(number))))


class Asked:
    """What was asked of a hub that keeps one book."""

    def __init__(self) -> None:
        self.asked: list[Missed] = []
        self.ladders = Ladders(self.ask, lambda: None)
        self.answers: list[Any] = []

    def ask(self, kind: str, wanted: Any) -> Any:
        assert kind == "missed"
        self.asked.append(wanted)
        future: concurrent.futures.Future[Repeated] = concurrent.futures.Future()
        self.answers.append(future)
        return future


@pytest.fixture
def hub_of_one() -> tuple[Asked, list[DepthBook]]:
    asked = Asked()
    books: list[DepthBook] = []
    asked.ladders.add(Ladder(WANTED, Subscribed(topic=WORD, head=4, last=message(4)[TOPIC_LENGTH:])), books)
    return asked, books


Pair = tuple[Asked, list[DepthBook]]


def numbers(books: list[DepthBook]) -> list[int]:
    return [one.time_ns for one in books]


def test_after_a_loss_the_newest_is_enough(hub_of_one: Pair) -> None:
    asked, books = hub_of_one
    for number in (5, 8, 7, 8, 9):
        asked.ladders.take(message(number))
    assert numbers(books) == [4, 5, 8, 9]
    assert (asked.ladders.skipped, asked.asked) == (2, [])


def test_a_loss_that_nothing_follows_is_found_by_the_beats(hub_of_one: Pair) -> None:
    asked, books = hub_of_one
    asked.ladders.take_heads({WORD: 7})
    assert asked.asked == []
    asked.ladders.take_heads({WORD: 7, OTHER: 99})
    assert [(one.topic, one.first) for one in asked.asked] == [(WORD, 7)]
    asked.answers[0].set_result(Repeated(topic=WORD, first=8, messages=(message(8)[TOPIC_LENGTH:],)))
    assert numbers(books) == [4, 8]
    # One that was overtaken by the answer.
    asked.ladders.take(message(7))
    assert numbers(books) == [4, 8]
    asked.ladders.take_heads({WORD: 8})
    assert len(asked.asked) == 1


def test_a_hub_that_keeps_none_has_nothing_to_tell(hub_of_one: Pair) -> None:
    """Its stream was broken: the book is to come."""
    asked, books = hub_of_one
    for _ in range(2):
        asked.ladders.take_heads({WORD: 6})
    asked.answers[0].set_result(Repeated(topic=WORD, first=7, messages=()))
    for _ in range(4):
        asked.ladders.take_heads({WORD: 6})
    assert len(asked.asked) == 1
    asked.ladders.take(message(7))
    assert numbers(books) == [4, 7]


def test_what_cannot_be_read_is_nothing(hub_of_one: Pair) -> None:
    asked, books = hub_of_one
    asked.ladders.take(WORD + b"\xc1")
    asked.ladders.take(message(9, OTHER))
    assert numbers(books) == [4]


def test_lost_messages_over_sockets(emulator: EmulatorThread, join: Join) -> None:
    """Of ten books in a row nine are lost, and the last one as well: it is had again."""
    strategy = join("alpha")
    books = follow(strategy)
    strategy.until(lambda: move(emulator, 20) or len(books) > 3)  # type: ignore[func-returns-value]
    ladders = strategy.connection._feeding.ladders
    take, before = ladders.take, len(books)
    ladders.take = lambda message: None  # type: ignore[method-assign]
    (ladder,) = ladders
    head = ladder.received
    hub_head: Callable[[], int] = lambda: strategy.connection._call("progress").heads[ladder.word]  # noqa: E731
    latest = time.monotonic() + PATIENCE_S
    while hub_head() < head + 10:
        assert time.monotonic() < latest
        move(emulator, 20)
    strategy.until(lambda: len(books) == before + 1)
    ladders.take = take  # type: ignore[method-assign]
    assert ladder.received >= head + 10
    strategy.until(lambda: move(emulator, 20) or len(books) > before + 3)  # type: ignore[func-returns-value]
    assert len(encode_tick((1, books[-1]))) < MAX_MESSAGE
