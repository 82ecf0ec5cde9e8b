"""Faults 13 to 15 everywhere: SIGKILL at every point between two durable steps, found by counting, not by hand.

A program in a process of its own trades a fixed script and dies at the n-th point it reaches, for n = 1, 2, … until
it reaches its end alive. After each death another one takes over, and then the emulator's ledger, the journal and
what the strategy sees must be the same, with no order twice.
"""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from bt_ibkr.emulator.settings import EmulatorSettings
from bt_ibkr.emulator.testing import EmulatorThread
from tests.faults.lives import Mortals, Place

if TYPE_CHECKING:
    from tests.conftest import Bench, Tape

#: Seconds of the script's market.
LENGTH = 900
#: Where the script's price goes: up through every target, in the end below the stops that were left.
PRICES = {0: 100.0, 300: 101.1, 360: 100.0, 720: 103.6, 780: 104.2, 840: 100.0}
#: In the short run every so many points, beginning with another one each day.
STRIDE = 41
#: Market seconds that pass between death and restart, by the point's number: none, or enough for fills.
OUTAGES_S = (0, 75)
#: So many wrong ends are enough.
MOST_WRONG = 10


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


MakePlace = Callable[[object], Place]


@pytest.fixture
def place(market: tuple[str, ...], tmp_path: Path) -> Iterator[MakePlace]:
    opened: list[EmulatorThread] = []

    def make(name: object) -> Place:
        for one in opened:
            one.__exit__(None, None, None)
        opened.clear()
        settings = EmulatorSettings(speed="lockstep", conflation_ms=0, pacing="off", market=market)
        opened.append(EmulatorThread(settings))
        opened[0].__enter__()
        return Place(opened[0], tmp_path / f"life-{name}")

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
        while len(self.wrong) < MOST_WRONG and self._die_and_go_on(number) is None:
            number += stride

    def run_twice(self, first: int, stride: int, second_stride: int) -> None:
        """The same, and the life that takes over dies as well: at each ``second_stride``-th of its own points."""
        number, lived = first, None
        while lived != 0 and len(self.wrong) < MOST_WRONG:
            second = 1 + number % second_stride
            while (lived := self._die_and_go_on(number, second)) is None and len(self.wrong) < MOST_WRONG:
                second += second_stride
            number += stride

    def _die_and_go_on(self, *numbers: int) -> int | None:
        """Die at the first point, take over, die at the second …, take over, compare.

        Returns:
            Which life, counted from 0, reached its end before it reached its point; ``None`` if none did.
        """
        here = self._place("-".join(map(str, numbers)))
        names = []
        for life, number in enumerate(numbers):
            code = here.life(self._mortals, kill_at=number, script="one" if life else "everything")
            if code == 0:
                return life
            assert code == -signal.SIGKILL, (numbers, code)
            names.append(here.steps()[-1])
            here.let_pass(OUTAGES_S[number % len(OUTAGES_S)])
        self.points[" then ".join(names)] += 1
        try:
            assert here.life(self._mortals, script="one") == 0
            here.check()
        except AssertionError as problem:
            self.wrong.append(f"killed at {numbers}, {names}: {problem}")
        return None


def test_the_script_itself(place: MakePlace, mortals: Mortals) -> None:
    """Lived to its end, it does everything that is to be interrupted; a restart afterwards changes nothing."""
    here = place(0)
    assert here.life(mortals, kill_at=1_000_000) == 0
    reached = Counter(here.steps())
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
    assert here.life(mortals, script="one") == 0
    here.check()


@pytest.mark.parametrize(
    ("script", "point", "occurrence", "stands"),
    [
        pytest.param("one", "desk.post.before.unsent", 1, False, id="13 on record, not sent"),
        pytest.param("one", "desk.post.after.unsent", 1, True, id="14 sent, answer not on record"),
        pytest.param("asked", "desk.post.before.asked", 2, False, id="15 between two replies"),
    ],
)
def test_13_to_15(
    place: MakePlace, mortals: Mortals, script: str, point: str, occurrence: int, stands: bool
) -> None:
    """What stands is taken over; what does not is told as never sent, and is not sent by itself."""
    here = place("whole")
    assert here.life(mortals, kill_at=1_000_000, script=script) == 0
    reached = [n for n, name in enumerate(here.steps(), 1) if name == point]
    here = place("killed")
    assert here.life(mortals, kill_at=reached[occurrence - 1], script=script) == -signal.SIGKILL
    before = here.emulator.ledger()
    assert len(before["orders"]) == stands
    assert here.life(mortals, script="one") == 0
    here.check()
    # The second life's own order, and no other.
    assert len(here.emulator.ledger()["orders"]) == 1 + stands
    told = [text for text in here.view()["differences"] if "never sent" in text]
    assert len(told) == (not stands)


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


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_13_to_15_killed_while_taking_over(
    place: MakePlace, mortals: Mortals, capsys: pytest.CaptureFixture[str]
) -> None:
    died = Enumeration(place, mortals)
    died.run_twice(2, 47, 9)
    with capsys.disabled():
        print(f"\nkilled twice at {died.points.total()} pairs of points")
    assert not died.wrong, "\n".join(died.wrong)
    assert died.points.total() > 50


def test_a_group_that_was_left_half_done(place: MakePlace, mortals: Mortals) -> None:
    """The order that joined later has executed, and death comes before the cancellation of the first one leaves: the
    next life asks for it."""
    here = place(0)
    assert here.life(mortals, kill_at=1_000_000, script="group") == 0
    steps = here.steps()
    cancels = steps.index("desk.delete.before") + 1
    filled = max(n for n, name in enumerate(steps[:cancels], 1) if name == "journal.note.committed")
    assert filled < cancels
    for number in range(filled, cancels + 1):
        here = place(number)
        assert here.life(mortals, kill_at=number, script="group") == -signal.SIGKILL
        assert here.life(mortals, script="one") == 0
        here.check()
        orders = {
            one["limit_price"] or one["stop_price"]: one["status"] for one in here.emulator.ledger()["orders"]
        }
        assert (orders[101.0], orders[94.0]) == ("Filled", "Cancelled"), number
