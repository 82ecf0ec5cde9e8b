"""The machine's clock is wrong by minutes: time goes by the server's."""

from __future__ import annotations

from email.utils import formatdate
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bt_ibkr.clock import NS_PER_S, ManualClock, ServerClock, SystemClock
from bt_ibkr.session.server_time import ServerTime
from bt_ibkr.store import IBKRStore

if TYPE_CHECKING:
    from tests.conftest import Bench, Line, Tape

_BEFORE_NS = 1_772_000_000 * NS_PER_S


class Measured:
    """A clock that is wrong, and what is measured of it."""

    def __init__(self) -> None:
        self.machine = ManualClock(_BEFORE_NS)
        self.clock = ServerClock(self.machine)
        self.told: list[float] = []
        self.time = ServerTime(self.clock, lambda ns: self.told.append(ns / NS_PER_S))

    def beats(self, *offsets: float, late: float = 0.0) -> float:
        """Heartbeats of a server so many seconds ahead; what the clock is set by then."""
        for offset in offsets:
            self.machine.set_ns(self.machine.now_ns() + 10 * NS_PER_S)
            self.time.heartbeat(self.machine.now_ns() / 1e6 + (offset - late) * 1000)
        return self.offset

    @property
    def offset(self) -> float:
        return self.clock.offset_ns / NS_PER_S


def test_one_stamp_decides_nothing() -> None:
    made = Measured()
    assert made.beats(120.0) == 0.0
    assert made.beats(120.1) == pytest.approx(120.1, abs=1e-3)
    assert made.told == pytest.approx([120.1], abs=1e-3)


@given(st.lists(st.floats(0, 60), min_size=1, max_size=40), st.floats(-300, 300))
def test_late_stamps_do_not_move_the_clock(delays: list[float], offset: float) -> None:
    """However late some are, those that came at once count, as long as there are two of them among the recent."""
    made = Measured()
    made.beats(offset, offset)
    for number, delay in enumerate(delays):
        made.beats(offset if number % 3 == 0 else offset - delay)
    assert made.offset == pytest.approx(0.0 if abs(offset) < 0.25 else offset, abs=0.26)
    assert len(made.told) == int(abs(offset) >= 1.0)


def test_a_clock_that_is_set_during_the_run() -> None:
    """Three stamps that agree prove it; the smaller time counts as well as the larger."""
    made = Measured()
    made.beats(*[0.0] * 9)
    assert made.beats(-90.0, -90.0) == 0.0
    assert made.beats(-90.0) == pytest.approx(-90.0)
    assert made.beats(0.0, 0.1) == pytest.approx(0.1, abs=1e-3)
    assert made.told == pytest.approx([-90.0, 0.1], abs=1e-3)


def test_dates_count_until_heartbeats_come() -> None:
    made = Measured()
    for ahead in (45.2, 45.6):
        made.time.date(formatdate(made.machine.now_ns() / NS_PER_S + ahead, usegmt=True))
    assert made.offset == pytest.approx(45.5, abs=0.6)
    made.beats(45.2, 45.2)
    assert made.offset == pytest.approx(45.5, abs=0.6)
    made.time.date(formatdate(made.machine.now_ns() / NS_PER_S - 900, usegmt=True))
    made.time.date("nonsense")
    assert made.offset == pytest.approx(45.5, abs=0.6)


@pytest.mark.parametrize("ahead", [-1.2, -0.4, 0.9, 1.4])
def test_dates_have_no_fractions(ahead: float) -> None:
    made = Measured()
    for _ in range(5):
        made.time.date(formatdate(made.machine.now_ns() / NS_PER_S + ahead, usegmt=True))
    assert made.offset == 0.0
    assert made.told == []


def test_a_server_of_another_day_is_no_wrong_clock() -> None:
    made = Measured()
    assert made.beats(100_000.0, 100_000.0, 1e13, 1e300) == 0.0


def test_a_store_measures_unless_told_not_to() -> None:
    with IBKRStore(journal=":memory:") as store:
        assert isinstance(store.connection.clock, ServerClock)
    with IBKRStore(journal=":memory:", timeoffset=False) as store:
        assert isinstance(store.connection.clock, SystemClock)


def wrong(bench: Bench, tape: Tape, ahead_s: float, *, correct: bool) -> Line:
    """A market whose server is so far ahead of the machine."""
    line = bench.line(market=bench.market(AAPL=tape), heartbeat_s=1000.0, correct=correct)
    machine = line.clock

    def work(server: Any) -> None:
        # The emulator's own clock is the computer's; here it is the market's, as at IBKR.
        server.core.wall = lambda: machine.now_ns() / NS_PER_S

    line.emulator.call(work)
    line.control.post("/fault", {"kind": "skew", "offset_s": ahead_s})
    return line


@pytest.mark.parametrize("correct", [True, False])
@pytest.mark.parametrize("ahead_s", [180.0, -180.0])
def test_bars_are_whole_and_on_time(bench: Bench, tape: type[Tape], ahead_s: float, *, correct: bool) -> None:
    """Trades only in each second minute: nothing but the clock closes its bar on time."""
    prices = tape()
    for second in [60 * minute + at for minute in range(0, 14, 2) for at in range(1, 40, 3)]:
        prices.quote(second, 99.0 + second % 7, 100.0 + second % 7)
        prices.trade(second + 0.5, 99.5 + second % 7)
    line = wrong(bench, prices, ahead_s, correct=correct)
    late: list[float] = []

    def script(strategy: Any) -> None:
        end_s = bench.epoch(strategy.data.datetime.datetime(0))
        late.append(line.clock.now_ns() / NS_PER_S + ahead_s - end_s)

    market = line.lockstep()
    step_s = 5.0

    def drive(_: Any) -> None:
        line.store.set_idle_hook(lambda _: market(line.clock.now_ns() + int(step_s * NS_PER_S)))

    run = bench.run(line, script, before=drive)
    wanted = prices.bars(60)
    wanted.index = wanted.index + pd.Timedelta(seconds=ahead_s)
    made = run.strategy.frame("AAPL")
    # The last one is delivered as the market ends.
    whole = made.index.isin(wanted.index).all() and made.equals(wanted.loc[made.index])
    on_time = all(-0.6 <= one <= step_s + 0.6 for one in late[:-1])
    assert len(made) >= 5
    assert (whole and on_time) is correct
    told = [args[0].text for message, args, _ in run.strategy.messages if message == "clock-differs"]
    assert len(told) == int(correct)
    if correct:
        word = "ahead of" if ahead_s > 0 else "behind"
        assert word in told[0]
        assert line.store.metrics().clock_offset_s == pytest.approx(ahead_s, abs=0.6)
