"""The clock of a strategy's machine is wrong: time goes by the server's, as the hub has measured it."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from bt_ibkr.clock import NS_PER_S, ManualClock, ServerClock, SystemClock
from bt_ibkr.config import SessionSettings
from bt_ibkr.connection.brokerage import JournalInMemory
from bt_ibkr.connection.direct import DirectConnection
from bt_ibkr.connection.interface import SessionNotice, StoreEvent
from bt_ibkr.connection.mailbox import Mailbox, WakeUp
from bt_ibkr.emulator.faults.specs import Skew
from bt_ibkr.emulator.settings import EmulatorSettings
from bt_ibkr.emulator.testing import EmulatorThread
from bt_ibkr.hub.ages import awake_or_asleep_s
from bt_ibkr.hub.config import HubSettings
from bt_ibkr.hub.link import HubLink
from bt_ibkr.hub.protocol import HubBeat
from bt_ibkr.hub.thread import HubThread
from tests.conftest import Line, Tape
from tests.hub.conftest import FAST, PLAIN, HubBench, Strategy
from tests.hub.test_link import Nobody

AHEAD_S = 180.0
#: A busy machine is late with what it hears; wrong would be by half a minute and more.
CLOSE_S = 5.0


class Wrong(SystemClock):
    """A machine's clock that goes so many seconds before the true time."""

    def __init__(self, ahead_s: float) -> None:
        self.ahead_s = ahead_s

    def now_ns(self) -> int:
        return super().now_ns() + round(self.ahead_s * NS_PER_S)


def skew(emulator: EmulatorThread, ahead_s: float) -> None:
    """The server's clock is so much further ahead of the machine that the tests run on."""
    emulator.call(lambda server: server.core.faults.begin(Skew(offset_s=ahead_s)))


class Place:
    """An emulator whose clock is ahead, and a hub on a machine of its own."""

    def __init__(self, emulator: EmulatorThread, hub: HubThread) -> None:
        self.emulator = emulator
        self.hub = hub

    def skew(self, ahead_s: float) -> None:
        skew(self.emulator, ahead_s)

    def join(self, machine: SystemClock, *, corrected: bool = True) -> Strategy:
        return Strategy(
            self.hub.endpoint, "alpha", clock=ServerClock(machine) if corrected else machine
        ).open()


@pytest.fixture(params=[0.0, 37.0], ids=["hub right", "hub wrong"])
def place(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Place]:
    settings = EmulatorSettings(**(PLAIN | {"heartbeat_s": 0.05}))
    with EmulatorThread(settings) as emulator:
        skew(emulator, AHEAD_S)
        with HubThread(
            SessionSettings(base_url=emulator.url, **FAST),
            HubSettings(endpoint=f"ipc://{tmp_path}/hub", beat_s=0.05, dead_s=5.0),
            clock=ServerClock(Wrong(request.param)),
            journal=JournalInMemory("tests"),
        ) as hub:
            yield Place(emulator, hub)


def off_s(strategy: Strategy, ahead_s: float = AHEAD_S) -> float:
    """How far the strategy's time is from the server's."""
    return abs(strategy.connection.clock.now_ns() / NS_PER_S - time.time() - ahead_s)


def told(strategy: Strategy) -> list[str]:
    strategy.look()
    return [
        one.text for one in strategy.store if isinstance(one, SessionNotice) and one.kind == "clock-differs"
    ]


def test_time_goes_by_the_server(place: Place) -> None:
    """As with a session of its own: to the same time, told once, by how far this machine's clock is off."""
    alpha = place.join(Wrong(-300.0))
    with contextlib.closing(alpha.connection):
        alpha.until(lambda: off_s(alpha) < CLOSE_S)
        alpha.until(lambda: told(alpha))
        (text,) = told(alpha)
        ahead = re.search(r"([\d.]+) s ahead of", text)
        assert ahead is not None
        assert float(ahead[1]) == pytest.approx(480.0, abs=CLOSE_S)
        assert alpha.connection.metrics().clock_offset_s == pytest.approx(480.0, abs=CLOSE_S)
        wake = WakeUp()
        direct = DirectConnection(
            SessionSettings(base_url=place.emulator.url, **FAST), wake, clock=ServerClock(Wrong(-300.0))
        )
        with contextlib.closing(direct):
            events: Mailbox[StoreEvent] = Mailbox(wake)
            direct.open(events)
            alpha.until(
                lambda: abs(direct.clock.now_ns() - alpha.connection.clock.now_ns()) < CLOSE_S * NS_PER_S
            )


def test_it_follows_while_it_runs(place: Place) -> None:
    alpha = place.join(Wrong(5.0))
    with contextlib.closing(alpha.connection):
        alpha.until(lambda: off_s(alpha) < CLOSE_S)
        place.skew(-60.0)
        alpha.until(lambda: off_s(alpha, AHEAD_S - 60.0) < 0.6)
        alpha.until(lambda: any("115.0" in one or "114.9" in one for one in told(alpha)))


def test_a_clock_that_is_not_to_be_set_is_left_alone(place: Place) -> None:
    alpha = place.join(Wrong(-300.0), corrected=False)
    with contextlib.closing(alpha.connection):
        assert alpha.contract().symbol == "AAPL"
        alpha.until(lambda: place.hub.loop.call(_measured(place.hub)))
        assert off_s(alpha, -300.0) < CLOSE_S
        assert alpha.connection.metrics().clock_offset_s == 0.0
        # What the hub says of its own machine's clock is nothing to this one.
        assert told(alpha) == []


async def _measured(hub: HubThread) -> int:
    return hub.brokerage.server_ns()


def test_a_hub_that_does_not_measure_says_nothing(tmp_path: Path) -> None:
    with (
        EmulatorThread(EmulatorSettings(**(PLAIN | {"heartbeat_s": 0.05}))) as emulator,
        HubThread(
            SessionSettings(base_url=emulator.url, **FAST),
            HubSettings(endpoint=f"ipc://{tmp_path}/hub", beat_s=0.05, dead_s=5.0),
            clock=SystemClock(),
            journal=JournalInMemory("tests"),
        ) as hub,
    ):
        skew(emulator, AHEAD_S)
        alpha = Strategy(hub.endpoint, "alpha", clock=ServerClock(Wrong(-300.0))).open()
        with contextlib.closing(alpha.connection):
            heard_s = alpha.connection._link._heard_s
            alpha.until(lambda: alpha.connection._link._heard_s > heard_s + 0.2)
            assert off_s(alpha, -300.0) < CLOSE_S


def test_a_message_that_was_long_under_way_moves_nothing() -> None:
    """A process that was stopped finds minutes of beats when it goes on."""

    class Listener(Nobody):
        def __init__(self) -> None:
            super().__init__()
            self.times: list[int] = []

        def server_time(self, server_ns: int) -> None:
            self.times.append(server_ns - time.time_ns())

    user = Listener()
    link = HubLink("ipc:///nowhere", "alpha", user)
    now_s, now_ns = awake_or_asleep_s(), time.time_ns()
    for late_s in (0.0, 120.0, 60.0, 10.0, 0.0):
        beat = HubBeat(
            join="j",
            clock_s=5000.0 + now_s - late_s,
            told=0,
            asked=0,
            heads={},
            server_ns=now_ns + round((AHEAD_S - late_s) * NS_PER_S),
        )
        link._take_clocks(beat)
    link.close()
    assert user.times == pytest.approx([AHEAD_S * NS_PER_S] * 5, abs=5 * NS_PER_S)


def wrong(bench: HubBench, tape: Tape, ahead_s: float) -> Line:
    """A market whose server is so far ahead of the machines, which have the market's clock."""

    def before(emulator: EmulatorThread, clock: ManualClock) -> None:
        def work(server: Any) -> None:
            server.core.wall = lambda: clock.now_ns() / NS_PER_S

        emulator.call(work)
        skew(emulator, ahead_s)

    line = bench.line(market=bench.market(AAPL=tape), heartbeat_s=1000.0, correct=True, before=before)
    brokerage, began_ns = bench.hubs[-1].brokerage, line.clock.now_ns()
    measured = brokerage.server_ns
    # Later the machines' clock jumps with the market: while a message is under way, as no clock does.
    brokerage.server_ns = lambda: measured() if line.clock.now_ns() == began_ns else 0  # type: ignore[method-assign]
    return line


@pytest.mark.parametrize("ahead_s", [180.0, -180.0])
def test_bars_are_whole_and_on_time(hub_bench: HubBench, tape: type[Tape], ahead_s: float) -> None:
    """Trades only in each second minute: nothing but the clock closes its bar on time."""
    prices = tape()
    for second in [60 * minute + at for minute in range(0, 10, 2) for at in range(1, 40, 3)]:
        prices.quote(second, 99.0 + second % 7, 100.0 + second % 7)
        prices.trade(second + 0.5, 99.5 + second % 7)
    line = wrong(hub_bench, prices, ahead_s)
    late: list[float] = []

    def script(strategy: Any) -> None:
        end_s = hub_bench.epoch(strategy.data.datetime.datetime(0))
        late.append(line.clock.now_ns() / NS_PER_S + ahead_s - end_s)

    market = line.lockstep()
    step_s = 5.0

    def drive(_: Any) -> None:
        line.store.set_idle_hook(lambda _: market(line.clock.now_ns() + int(step_s * NS_PER_S)))

    run = hub_bench.run(line, script, before=drive)
    wanted = prices.bars(60)
    wanted.index = wanted.index + pd.Timedelta(seconds=ahead_s)
    made = run.strategy.frame("AAPL")
    assert len(made) >= 4
    assert made.equals(wanted.loc[made.index])
    assert all(-CLOSE_S <= one <= step_s + CLOSE_S for one in late[:-1])
