"""Faults 13 to 15 everywhere: SIGKILL at every point between two durable steps, found by counting, not by hand.

A program in a process of its own trades a fixed script and dies at the n-th point it reaches, for n = 1, 2, … until
it reaches its end alive. After each death another one takes over, and then the emulator's ledger, the journal and
what the strategy sees must be the same, with no order twice.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from bt_ibkr.clock import NS_PER_S, SystemClock
from bt_ibkr.emulator.settings import EmulatorSettings
from bt_ibkr.emulator.testing import EmulatorThread
from bt_ibkr.journal import Journal
from bt_ibkr.journal.records import JournalOrder
from bt_ibkr.model.intent import OPEN, OrderState

if TYPE_CHECKING:
    from tests.conftest import Bench, Tape

ACCOUNT = "DU1234567"
#: Seconds of the script's market.
LENGTH = 900
#: Where the script's price goes: up through every target, in the end below the stops that were left.
PRICES = {0: 100.0, 720: 103.6, 780: 104.2, 840: 100.0}
#: In the short run every so many points, beginning with another one each day.
STRIDE = 29
#: Market seconds that pass between death and restart, by the point's number: none, or enough for fills.
OUTAGES_S = (0, 75)
#: So many wrong ends are enough.
MOST_WRONG = 10
ENDED = {"Filled": OrderState.FILLED, "Cancelled": OrderState.CANCELLED}


class Mortals:
    """The process whose forks trade and die."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("mortal.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def live(self, **asked: Any) -> int:
        """One life; its exit code, or the negative number of the signal that ended it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        return int(json.loads(self._process.stdout.readline())["code"])

    def close(self) -> None:
        with self._process as process:
            assert process.stdin is not None
            process.stdin.close()


@pytest.fixture(scope="module")
def mortals() -> Iterator[Mortals]:
    made = Mortals()
    yield made
    made.close()


@pytest.fixture
def market(bench: Bench, tape: type[Tape], path: Any) -> tuple[str, ...]:
    price = path(PRICES)
    prices = tape()
    for second in range(0, LENGTH, 5):
        prices.quote(second, price(second) - 0.01, price(second) + 0.01, 100)
        prices.trade(second + 0.5, price(second))
    return bench.market(AAPL=prices)


class Place:
    """An emulator with the script's market, a journal, and what is put down between lives."""

    def __init__(self, emulator: EmulatorThread, folder: Path) -> None:
        self.emulator = emulator
        self.folder = folder
        folder.mkdir()
        self.journal = folder / "journal.sqlite"

    def life(self, mortals: Mortals, *, kill_at: int = 0, resumes: bool = False) -> int:
        return mortals.live(
            url=self.emulator.url,
            control=self.emulator.control,
            journal=str(self.journal),
            kill_at=kill_at,
            resumes=resumes,
            log=str(self.folder / "steps") if kill_at else "",
            view=str(self.folder / "view.json"),
        )

    def let_pass(self, seconds: float) -> None:
        """The market goes on with nobody there."""

        def move(server: Any) -> None:
            server.drive.step(
                until_ns=server.core.now_ns + int(seconds * NS_PER_S), max_events=None, received={}
            )

        if seconds:
            self.emulator.call(move)

    def last_step(self) -> str:
        return (self.folder / "steps").read_text().splitlines()[-1]

    # -- the oracle ------------------------------------------------------------------------------------

    def check(self) -> None:
        """Ledger, journal and strategy agree, and nothing is there twice."""
        ledger = self.emulator.ledger()
        view = json.loads((self.folder / "view.json").read_text())
        journal = Journal.open(self.journal, clock=SystemClock(), exclusive=False)
        try:
            orders = journal.orders()
            recorded = [one for one in journal.executions() if not one.superseded]
        finally:
            journal.close()
        self._nothing_twice(ledger, orders)
        self._journal_is_right(ledger, orders)
        theirs = {str(one["execution_id"]) for one in ledger["executions"]}
        assert {one.execution.execution_id for one in recorded} == theirs
        assert len(recorded) == len(theirs)
        by_id = {order.order_id: order.key for order in orders}
        for one in recorded:
            assert one.key == by_id[one.execution.order_id], one
        self._view_is_right(ledger, orders, view)
        self._groups_are_whole(ledger, orders)

    @staticmethod
    def _nothing_twice(ledger: dict[str, Any], orders: tuple[JournalOrder, ...]) -> None:
        family = Counter(order.intent.parent_key or order.key for order in orders)
        for key, number in ledger["by_client_id"].items():
            assert number <= family[key], (key, number, family)
        assert len(ledger["orders"]) <= len(orders)

    @staticmethod
    def _journal_is_right(ledger: dict[str, Any], orders: tuple[JournalOrder, ...]) -> None:
        known = {order.order_id: order for order in orders if order.order_id is not None}
        assert set(known) == {str(one["order_id"]) for one in ledger["orders"]}
        for one in ledger["orders"]:
            order = known[str(one["order_id"])]
            ticket = order.intent.ticket
            wanted = ENDED.get(one["status"], OrderState.WORKING)
            assert order.state is wanted, (order, one)
            assert order.filled == Decimal(one["filled"]), (order, one)
            if order.state in OPEN:
                assert ticket.quantity == Decimal(one["quantity"]), (order, one)
                assert (ticket.limit_price, ticket.stop_price) == (one["limit_price"], one["stop_price"])
        for order in orders:
            if order.order_id is None:
                assert order.state in (OrderState.ABSENT, OrderState.REJECTED), order

    @staticmethod
    def _view_is_right(
        ledger: dict[str, Any], orders: tuple[JournalOrder, ...], view: dict[str, Any]
    ) -> None:
        account = ledger["accounts"][ACCOUNT]
        held = {conid: float(one["quantity"]) for conid, one in account["positions"].items()}
        assert view["positions"] == {conid: size for conid, size in held.items() if size}
        assert view["cash"] == pytest.approx(float(account["cash"]["USD"]), abs=0.005)
        assert view["executions"] == sorted(one["execution_id"] for one in ledger["executions"])
        assert view["external"] == []
        assert view["problems"] == []
        working = {order.key: order for order in orders if order.state in OPEN}
        assert set(view["open"]) == set(working)
        for key, shown in view["open"].items():
            order = working[key]
            assert shown["order_id"] == order.order_id
            assert shown["size"] == order.intent.ticket.quantity
            assert shown["filled"] == order.filled

    @staticmethod
    def _groups_are_whole(ledger: dict[str, Any], orders: tuple[JournalOrder, ...]) -> None:
        """Of a group one executes at most, and then the others have ended; a bracket is there as a whole."""
        groups: dict[str, list[JournalOrder]] = {}
        for order in orders:
            if order.intent.group is not None:
                groups.setdefault(order.intent.group, []).append(order)
        for name, members in groups.items():
            members += [order for order in orders if order.key == name and order not in members]
            executed = [order for order in members if order.filled]
            assert len(executed) <= 1, members
            if executed:
                assert not any(order.is_open for order in members if order is not executed[0]), members
        for parent in {order.intent.parent_key for order in orders} - {None}:
            family = [order for order in orders if parent in (order.key, order.intent.parent_key)]
            assert len({order.order_id is None for order in family}) == 1, family


MakePlace = Callable[[int], Place]


@pytest.fixture
def place(market: tuple[str, ...], tmp_path: Path) -> Iterator[MakePlace]:
    opened: list[EmulatorThread] = []

    def make(number: int) -> Place:
        for one in opened:
            one.__exit__(None, None, None)
        opened.clear()
        settings = EmulatorSettings(speed="lockstep", conflation_ms=0, pacing="off", market=market)
        opened.append(EmulatorThread(settings))
        opened[0].__enter__()
        return Place(opened[0], tmp_path / f"life-{number}")

    yield make
    for one in opened:
        one.__exit__(None, None, None)


class Enumeration:
    """Points that were died at, by name, and what was wrong afterwards."""

    def __init__(self, place: MakePlace, mortals: Mortals) -> None:
        self._place = place
        self._mortals = mortals
        self.points: Counter[str] = Counter()
        self.wrong: list[str] = []

    def run(self, first: int, stride: int) -> None:
        """Die at every ``stride``-th point from ``first`` on, until the script reaches its end."""
        number = first
        while len(self.wrong) < MOST_WRONG and self._die_and_go_on(number):
            number += stride

    def _die_and_go_on(self, number: int) -> bool:
        """Die at point ``number``, take over, compare; whether the script got so far."""
        here = self._place(number)
        code = here.life(self._mortals, kill_at=number)
        if code == 0:
            return False
        assert code == -signal.SIGKILL, (number, code)
        name = here.last_step()
        self.points[name] += 1
        here.let_pass(OUTAGES_S[number % len(OUTAGES_S)])
        try:
            assert here.life(self._mortals, resumes=True) == 0
            here.check()
        except AssertionError as problem:
            self.wrong.append(f"killed at point {number}, {name}: {problem}")
        return True


def test_the_script_itself(place: MakePlace, mortals: Mortals) -> None:
    """Lived to its end, it does everything that is to be interrupted; a restart afterwards changes nothing."""
    here = place(0)
    assert here.life(mortals, kill_at=1_000_000) == 0
    reached = Counter((here.folder / "steps").read_text().split())
    for name in (
        "desk.post.before.unsent",
        "desk.post.after.asked",
        "desk.delete.after",
        "journal.ticket.committed",
    ):
        assert reached[name], reached
    before = here.emulator.ledger()
    assert {one["status"] for one in before["orders"]} >= {"Filled", "Cancelled"}
    assert max(Counter(one["order_id"] for one in before["executions"]).values()) > 2
    assert here.life(mortals, resumes=True) == 0
    here.check()


def test_13_to_15_killed_here_and_there(
    place: MakePlace, mortals: Mortals, capsys: pytest.CaptureFixture[str]
) -> None:
    first = 1 + int(time.time() // 86_400) % STRIDE
    died = Enumeration(place, mortals)
    died.run(first, STRIDE)
    assert not died.wrong, "\n".join(died.wrong)
    assert died.points
    with capsys.disabled():
        print(f"\nkilled at {died.points.total()} points: {first}, {first + STRIDE} …")


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_13_to_15_killed_everywhere(
    place: MakePlace, mortals: Mortals, capsys: pytest.CaptureFixture[str]
) -> None:
    died = Enumeration(place, mortals)
    died.run(1, 1)
    with capsys.disabled():
        print(f"\nkilled at {died.points.total()} points:")
        for name, times in sorted(died.points.items()):
            print(f"{times:5d} {name}")
    assert not died.wrong, "\n".join(died.wrong)
    assert died.points.total() > 100
