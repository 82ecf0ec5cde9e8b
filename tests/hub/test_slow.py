"""Strategies that are stopped for a while and continued: they find out, make it good, and nobody else notices."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from bt_ibkr.emulator.settings import EmulatorSettings
from bt_ibkr.emulator.testing import EmulatorThread
from bt_ibkr.hub.access import Grant
from bt_ibkr.hub.status import PeerStatus
from bt_ibkr.hub.thread import HubThread
from tests.hub.conftest import PLAIN, Join, StartHub, Ticks, move
from tests.hub.processes import Process

PATIENCE_S = 30.0
Start = Callable[..., Process]


@pytest.fixture
def emulator(request: pytest.FixtureRequest) -> Iterator[EmulatorThread]:
    """Its streams need no renewal: the market moves by steps, and days pass in seconds."""
    rate = 6.0 if request.node.get_closest_marker("soak") else 1.0
    with EmulatorThread(EmulatorSettings(**PLAIN, smd_lifetime_s=0, synthetic_rate=rate)) as one:
        yield one


@pytest.fixture
def start() -> Iterator[Start]:
    made: list[Process] = []

    def one(hub: HubThread, name: str, *instruments: str) -> Process:
        made.append(Process("follower.py", hub.endpoint, name, "", *(instruments or ("AAPL",))))
        made[-1].until(lambda: made[-1].of("joined") or made[-1].of("refused"), 60)
        assert made[-1].of("joined")
        return made[-1]

    yield one
    for process in made:
        process.kill()


def peer(hub: HubThread, name: str) -> PeerStatus:
    return next(one for one in hub.status().peers if one.name == name)


def until(wanted: Callable[[], Any], what: str, patience_s: float = PATIENCE_S) -> None:
    latest = time.monotonic() + patience_s
    while not wanted():
        assert time.monotonic() < latest, what
        time.sleep(0.02)


def ticks_of(process: Process) -> dict[str, Any]:
    found: dict[str, Any] = process.ask("report", "report")["ticks"]["AAPL"]
    return found


def head(hub: HubThread) -> int:
    return sum(one.ticks for one in hub.status().topics)


def flood(emulator: EmulatorThread, hub: HubThread, ticks: int) -> None:
    """Move the market until the hub has published so many ticks more."""
    wanted = head(hub) + ticks
    latest = time.monotonic() + PATIENCE_S
    while head(hub) < wanted:
        assert time.monotonic() < latest
        move(emulator, 500)


def stopped_and_continued(
    hub: HubThread, emulator: EmulatorThread, start: Start, *, ticks: int, stopped_s: float
) -> tuple[dict[str, Any], dict[str, Any], Process]:
    slow, quick = start(hub, "slow"), start(hub, "quick")
    until(lambda: head(hub) and ticks_of(quick)["count"], "the first tick")
    until(lambda: ticks_of(slow)["count"] == ticks_of(quick)["count"], "the same beginning")
    slow.stop()
    began_s = time.monotonic()
    flood(emulator, hub, ticks)
    # The other one has everything while the first one stands still.
    until(lambda: ticks_of(quick)["count"] >= head(hub), "ticks of the other")
    until(lambda: peer(hub, "slow").state == "lost", "that it is lost")
    assert peer(hub, "quick").state == "live"
    while time.monotonic() - began_s < stopped_s:
        move(emulator, 200)
        time.sleep(0.1)
    slow.go_on()
    until(lambda: peer(hub, "slow").state == "live", "that it is back")
    return ticks_of(slow), ticks_of(quick), slow


def all_accounted(hub: HubThread, slow: Process) -> bool:
    told = ticks_of(slow)
    return int(told["count"]) + int(told["gone"]) >= head(hub)


def test_what_a_stopped_process_missed_is_made_good_from_the_ring(
    start_hub: StartHub, emulator: EmulatorThread, start: Start
) -> None:
    hub = start_hub(queue=1500, ring=1_000_000)
    _, whole, slow = stopped_and_continued(hub, emulator, start, ticks=9000, stopped_s=0)
    until(lambda: all_accounted(hub, slow), "all of it")
    report = slow.ask("report", "report")
    assert report["ticks"]["AAPL"] == whole
    assert report["lost"] == report["mended"] > 0
    assert report["ticks"]["AAPL"]["disorder"] == 0
    slow.until(lambda: sum(int(one["text"].split()[0]) for one in slow.of("filled")) == report["mended"])
    until(lambda: peer(hub, "slow").mended == report["mended"], "that the hub knows")


def test_what_no_ring_has_any_more_is_told(
    start_hub: StartHub, emulator: EmulatorThread, start: Start
) -> None:
    hub = start_hub(queue=1500, ring=500)
    _, whole, slow = stopped_and_continued(hub, emulator, start, ticks=9000, stopped_s=0)
    until(lambda: all_accounted(hub, slow), "all of it")
    told = ticks_of(slow)
    assert told["gone"] > 0
    assert told["losses"] == len([line for line in slow.of("gap") if "too slow" in line["cause"]]) > 0
    assert told["count"] + told["gone"] == whole["count"] == head(hub)
    assert told["disorder"] == 0


@pytest.mark.soak
@pytest.mark.timeout(300)
def test_thirty_seconds(start_hub: StartHub, emulator: EmulatorThread, start: Start) -> None:
    hub = start_hub()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    _, _, slow = stopped_and_continued(hub, emulator, start, ticks=100_000, stopped_s=30)
    until(lambda: all_accounted(hub, slow), "all of it")
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown_kib < 200_000, "the hub keeps too much for one that stands still"
    assert ticks_of(slow)["disorder"] == 0


def test_a_reader_that_is_slow_is_told_of(hub: HubThread, emulator: EmulatorThread, join: Join) -> None:
    """Ticks have come, and the strategy does not take them in."""

    class Slow(Ticks):
        def __len__(self) -> int:
            return len(self.all)

    strategy = join()
    sink = Slow()
    strategy.connection.subscribe_ticks(strategy.contract(), sink)
    strategy.until(lambda: head(hub))
    flood(emulator, hub, 1500)
    until(lambda: peer(hub, "alpha").slow, "that it is slow")
    assert peer(hub, "alpha").waiting > 1000
    sink.all.clear()
    until(lambda: not peer(hub, "alpha").slow, "that it has caught up")


def test_the_outbox_of_one_that_vanished_is_empty(
    start_hub: StartHub, emulator: EmulatorThread, start: Start
) -> None:
    """And it goes on when it comes back all the same: its streams are there again."""
    hub = start_hub(strategies={"slow": Grant(vanish_s=0.5)}, unlisted=True)
    slow = start(hub, "slow")
    until(lambda: head(hub) and ticks_of(slow)["count"], "the first tick")
    slow.stop()
    until(lambda: hub.status().topics == (), "that its stream ended")
    slow.go_on()
    until(lambda: hub.status().topics and peer(hub, "slow").state == "live", "its stream")
    before = ticks_of(slow)["count"]
    move(emulator, 200)
    until(lambda: ticks_of(slow)["count"] > before, "ticks")
