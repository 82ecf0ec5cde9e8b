"""Strategies that are stopped for a while and continued: they find out, make it good, and nobody else notices."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from bt_ibkr.emulator.settings import EmulatorSettings
from bt_ibkr.emulator.testing import EmulatorThread
from bt_ibkr.hub.access import Grant
from bt_ibkr.hub.config import HubSettings
from bt_ibkr.hub.status import PeerStatus
from bt_ibkr.hub.thread import HubThread
from tests.hub.conftest import PLAIN, Join, StartHub, Ticks, move
from tests.hub.noticed import until
from tests.hub.processes import Process

PATIENCE_S = 30.0
Start = Callable[..., Process]


@pytest.fixture
def emulator() -> Iterator[EmulatorThread]:
    """Its streams need no renewal: the market moves by steps, and days pass in seconds."""
    with EmulatorThread(EmulatorSettings(**PLAIN, smd_lifetime_s=0)) as one:
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


def reach(process: Process, ticks: int) -> dict[str, Any]:
    """What it has of the ticks, once it has so many or knows them gone."""
    found: dict[str, Any] = process.ask("reach", "reached", ticks={"AAPL": ticks})["ticks"]["AAPL"]
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
    hub: HubThread, emulator: EmulatorThread, start: Start, ticks: int
) -> tuple[dict[str, Any], dict[str, Any], Process]:
    """What the one has that was stopped, and the other one; and the first one."""
    slow, quick = start(hub, "slow"), start(hub, "quick")
    flood(emulator, hub, 1)
    reach(slow, 1)
    reach(quick, 1)
    slow.stop()
    flood(emulator, hub, ticks)
    # The other one has everything while the first one stands still.
    reach(quick, head(hub))
    until(lambda: peer(hub, "slow").state == "lost", "that it is lost")
    assert peer(hub, "quick").state == "live"
    slow.go_on()
    until(lambda: peer(hub, "slow").state == "live", "that it is back")
    return reach(slow, head(hub)), reach(quick, head(hub)), slow


def test_what_a_stopped_process_missed_is_made_good_from_the_ring(
    start_hub: StartHub, emulator: EmulatorThread, start: Start
) -> None:
    hub = start_hub(queue=1500, ring=1_000_000)
    made_good, whole, slow = stopped_and_continued(hub, emulator, start, 9000)
    assert made_good == whole
    assert whole["disorder"] == 0
    slow.until(lambda: slow.of("filled"))
    report = slow.ask("report", "report")
    assert report["lost"] == report["mended"] > 0
    slow.until(lambda: sum(int(one["text"].split()[0]) for one in slow.of("filled")) == report["mended"])
    until(lambda: peer(hub, "slow").mended == report["mended"], "that the hub knows")


def test_what_no_ring_has_any_more_is_told(
    start_hub: StartHub, emulator: EmulatorThread, start: Start
) -> None:
    hub = start_hub(queue=1500, ring=500)
    told, whole, slow = stopped_and_continued(hub, emulator, start, 9000)
    assert told["gone"] > 0
    assert told["losses"] == len([line for line in slow.of("gap") if "too slow" in line["cause"]]) > 0
    assert told["count"] + told["gone"] == whole["count"] == head(hub)
    assert told["disorder"] == 0


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_a_hub_keeps_no_more_than_its_queue_for_one_that_stands_still(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Hundreds of thousands of ticks pass; the hub's process grows by less than a tenth of them would take."""
    settings = msgspec.json.encode(HubSettings(endpoint=f"ipc://{tmp_path}/hub", dead_s=2.0, beat_s=0.2))
    market = msgspec.json.encode({"synthetic_instruments": ["AAPL"], "synthetic_rate": 60.0})
    with contextlib.ExitStack() as stack:

        def begun(script: str, *arguments: str) -> Process:
            made = Process(script, *arguments, patience_s=120.0)
            stack.callback(made.kill)
            return made

        hub = begun("hubhost.py", settings.decode(), market.decode())
        hub.until(lambda: hub.of("ready"))
        endpoint = hub.of("ready")[0]["endpoint"]
        slow, quick = (begun("follower.py", endpoint, name, "", "AAPL") for name in ("slow", "quick"))
        for one in (slow, quick):
            one.until(lambda one=one: one.of("joined") or one.of("refused"))  # type: ignore[misc]
            assert one.of("joined")

        def pass_by(ticks: int) -> int:
            reached = int(hub.ask("move", "moved", events=0)["ticks"])
            wanted = reached
            while reached < wanted + ticks:
                reached = int(hub.ask("move", "moved", events=2000)["ticks"])
                reach(quick, reached)
            return reached

        # The ring is full, and all buffers have been used.
        reach(slow, pass_by(40_000))
        resident = psutil.Process(hub.process.pid).memory_info
        before = resident().rss
        slow.stop()
        head = pass_by(400_000)
        grown = resident().rss - before
        hub.ask("await", "so", peers={"slow": "lost", "quick": "live"})
        whole = reach(quick, head)
        slow.go_on()
        told = reach(slow, head)
        hub.ask("await", "so", peers={"slow": "live", "quick": "live"})
    with capsys.disabled():
        print(f"\n400,000 ticks while one stood still: the hub's process grew by {grown / 1e6:.1f} MB")
    assert whole["count"] == head
    assert told["count"] + told["gone"] == head
    assert told["gone"] > 300_000
    # A message and its place in a queue are 200 bytes at the least.
    assert grown < 0.1 * 400_000 * 200 + 10_000_000


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
    flood(emulator, hub, 1)
    reach(slow, 1)
    slow.stop()
    until(lambda: hub.status().topics == (), "that its stream ended")
    slow.go_on()
    until(lambda: hub.status().topics and peer(hub, "slow").state == "live", "its stream")
    before = slow.ask("report", "report")["ticks"]["AAPL"]["count"]
    move(emulator, 200)
    reach(slow, before + 1)
