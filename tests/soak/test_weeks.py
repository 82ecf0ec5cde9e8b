"""Weeks without a hand on it, in compressed time: nights, Saturdays, restarts, rivals and drops, from one seed.

The emulator's market runs thousands of times as fast as the watch; its calendar breaks the session at each of its
midnights and takes it away on Saturdays, and this bench adds what happens in between. Requests are paced for real,
on both sides. What the session told is compared with what the emulator did to it.
"""

from __future__ import annotations

import asyncio
import gc
import random
import threading
import time
import tracemalloc
from collections.abc import Callable
from contextlib import closing
from typing import Any, NamedTuple

import psutil
import pytest
from msgspec.structs import replace

from bt_ibkr.app.control import ControlClient
from bt_ibkr.clock import NS_PER_S, ScaledClock
from bt_ibkr.config import SessionSettings
from bt_ibkr.connection.direct import DirectConnection
from bt_ibkr.connection.interface import GapReported, SessionChanged, StoreEvent
from bt_ibkr.connection.mailbox import Mailbox, WakeUp
from bt_ibkr.emulator.settings import EmulatorSettings
from bt_ibkr.emulator.testing import EmulatorThread
from bt_ibkr.model.market import Tick
from bt_ibkr.services.datanames import ContractQuery

DAY_NS = 86_400 * NS_PER_S
PATIENCE_S = 60.0
#: What happens between the breaks of the calendar; each ends the stream once.
DISTURBANCES: tuple[dict[str, Any], ...] = (
    {"kind": "restart", "down_s": 0.5},
    {"kind": "ws_reset"},
    {"kind": "ws_close", "code": 1001},
    {"kind": "compete"},
    {"kind": "expire"},
    {"kind": "session_id"},
)
#: Kinds of the emulator's log that end the stream.
BREAKS = {str(one["kind"]) for one in DISTURBANCES} | {"nightly_reset", "maintenance"}


class Latest:
    """Takes ticks, and keeps the newest alone."""

    room = 1

    def __init__(self) -> None:
        self.count = 0
        self.tick: Tick | None = None

    def append(self, tick: Tick) -> None:
        self.count += 1
        self.tick = tick

    push = hold = append

    def __len__(self) -> int:
        return 0


class Size(NamedTuple):
    """What may not grow."""

    tasks: int
    threads: int
    files: int
    python_bytes: int


class Campaign:
    """A client that lives through it."""

    def __init__(self, emulator: EmulatorThread, control: ControlClient, speed: float) -> None:
        self.emulator = emulator
        self.control = control
        self.wake = WakeUp()
        start_ns = int(control.get("/state")["now_ns"])
        self.clock = ScaledClock(start_ns, speed)
        settings = SessionSettings(
            base_url=emulator.url,
            tickle_interval_s=1.1,
            silence_s=5.0,
            reconnect_first_s=0.05,
            reconnect_longest_s=1.0,
            competing="yield",
            mute_s=30.0,
        )
        self.connection = DirectConnection(settings, self.wake, clock=self.clock)
        self.told: list[StoreEvent] = []
        self.ticks = Latest()
        self._box: Mailbox[StoreEvent] = Mailbox(self.wake)

    def open(self) -> None:
        self.connection.open(self._box)
        contract = self.connection.resolve(ContractQuery(text="AAPL", symbol="AAPL"))
        self.connection.subscribe_ticks(contract, self.ticks)
        self.control.post("/start", {})
        self.clock.restart()

    def until(self, wanted: Callable[[], bool]) -> None:
        latest = time.monotonic() + PATIENCE_S
        while True:
            while (event := self._box.take()) is not None:
                self.told.append(event)
            if wanted():
                return
            assert time.monotonic() < latest, (self.states()[-6:], self.stacks())
            self.wake.wait(0.05)

    def stacks(self) -> list[str]:
        """Where the session's tasks stand, for whoever reads a failure."""
        assert self.connection._loop is not None
        tasks = asyncio.all_tasks(self.connection._loop.loop)
        found = []
        for task in tasks:
            frames = task.get_stack(limit=3)
            where = [f"{one.f_code.co_name}:{one.f_lineno}" for one in frames]
            found.append(f"{task.get_name()} {task.get_coro()!r} {where}")
        return found

    def until_market(self, time_ns: int) -> None:
        """Wait for a moment of the market, and until the stream is up then."""
        self.until(lambda: self.clock.now_ns() >= time_ns and self.streams())

    def streams(self) -> bool:
        changes = [one for one in self.told if isinstance(one, SessionChanged)]
        return bool(changes) and changes[-1].connected

    def gaps(self) -> list[GapReported]:
        return [one for one in self.told if isinstance(one, GapReported)]

    def disturb(self, what: dict[str, Any]) -> None:
        """Let it happen, and wait until it is over and told."""
        before = len(self.gaps())
        self.control.post("/fault", what)
        if what["kind"] == "compete":
            # A night that comes just then ends the rival's session, too.
            self.until(
                lambda: self.states()[-1] == "competing" or (len(self.gaps()) > before and self.streams())
            )
            self.control.post("/clear_faults", {})
        self.until(lambda: len(self.gaps()) > before and self.streams())

    def states(self) -> list[str]:
        return [one.state for one in self.told if isinstance(one, SessionChanged)]

    def size(self) -> Size:
        gc.collect()
        assert self.connection._loop is not None
        loop = self.connection._loop.loop
        tasks = len(asyncio.all_tasks(loop))
        traced = tracemalloc.get_traced_memory()[0] if tracemalloc.is_tracing() else 0
        return Size(tasks, threading.active_count(), psutil.Process().num_fds(), traced)

    def breaks(self) -> list[dict[str, Any]]:
        """What the emulator did to the stream, in order."""
        log = self.control.get("/faults")["log"]
        return [one for one in log if one["kind"] in BREAKS and one.get("begins", True)]

    def paced(self) -> None:
        """By the server's own record no limit was ever exceeded."""
        record = self.control.get("/requests")
        assert record["refused"] == 0
        assert [row for row in record["windows"] if row["most"] > row["count"]] == []

    def gaps_are_breaks(self) -> None:
        """Every break lies in a gap that was reported, and every gap holds a break."""
        gaps, breaks = self.whole_gaps(), self.breaks()
        # A break is noted where it happens, and the client's clock started a little apart from the market's.
        slack_ns = self.clock_slack_ns()
        for gap in gaps:
            assert gap.start_ns <= gap.end_ns
            assert any(gap.start_ns - slack_ns <= one["now_ns"] <= gap.end_ns + slack_ns for one in breaks), (
                gap
            )
        for one in breaks:
            assert any(gap.start_ns - slack_ns <= one["now_ns"] <= gap.end_ns + slack_ns for gap in gaps), one
        assert len(gaps) <= len(breaks)

    def whole_gaps(self) -> list[GapReported]:
        """The gaps, those that meet as one: what breaks while the stream is brought up again is told when it stands,
        as a gap that begins where the one before ended."""
        whole: list[GapReported] = []
        for gap in self.gaps():
            if whole and gap.start_ns <= whole[-1].end_ns:
                whole[-1] = replace(whole[-1], end_ns=gap.end_ns)
            else:
                whole.append(gap)
        return whole

    def clock_slack_ns(self) -> int:
        """Market time of half a wall second."""
        return int(0.5 / self.clock.wall_s(NS_PER_S) * NS_PER_S)


def campaign(days: float, wall_s: float, seed: int, *, disturbances: int) -> None:
    """``days`` of the market in ``wall_s`` seconds."""
    speed = days * 86_400 / wall_s
    chance = random.Random(seed)
    settings = EmulatorSettings(
        speed=speed,
        autostart=False,
        pacing="strict",
        heartbeat_s=1.0,
        conflation_ms=60_000,
        smd_lifetime_s=0.0,
        synthetic_instruments=("AAPL",),
        history_days=0,
        seed=seed,
        nightly_reset=True,
        after_reset="no_bridge",
        maintenance="18:00-22:00",
        after_maintenance="no_bridge",
        run_on=True,
    )
    with EmulatorThread(settings) as emulator, closing(ControlClient(emulator.control)) as control:
        made = Campaign(emulator, control, speed)
        try:
            made.open()
            made.until(made.streams)
            end_ns = made.clock.now_ns() + int(days * DAY_NS)
            made.disturb(DISTURBANCES[1])
            before = made.size()
            plan = [chance.choice(DISTURBANCES) for _ in range(disturbances)]
            rest_ns = int(days * DAY_NS / (disturbances + 1))
            for number, what in enumerate(plan):
                due_ns = end_ns - int(days * DAY_NS) + rest_ns * (number + 1) + chance.randrange(rest_ns // 2)
                made.until_market(due_ns)
                made.disturb(what)
            made.until_market(end_ns)
            made.paced()
            made.gaps_are_breaks()
            assert "needs a person" not in made.states()
            assert "penalty" not in made.states()
            after = made.size()
            # After a break orders are read again, which is paced: at most one such task, its request and a repair.
            assert after.tasks <= before.tasks + 4
            assert after.threads <= before.threads + 1
            assert after.files <= before.files + 3
            assert after.python_bytes - before.python_bytes < 8_000_000
            # The market goes on meanwhile, and may have its next night: no socket is left over once there is one.
            made.until(
                lambda: made.streams() and emulator.call(lambda server: len(server.core.hub.connections)) == 1
            )
        finally:
            made.connection.close()


def test_a_night_and_a_few_breaks() -> None:
    """The short version: what the long one does, for one night and two disturbances."""
    campaign(1.2, 6.0, seed=7, disturbances=2)


@pytest.mark.soak
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", [1])
def test_two_weeks(seed: int) -> None:
    """Fourteen days with their nights and two Saturdays."""
    tracemalloc.start()
    try:
        campaign(14.0, 280.0, seed, disturbances=20)
    finally:
        tracemalloc.stop()
