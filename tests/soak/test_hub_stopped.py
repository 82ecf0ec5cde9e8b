"""A strategy's process stands still for a while and goes on: it says so, has what it missed, and nobody else noticed.

The market moves by itself, at one rate throughout. All processes are whole backtrader runs.
"""

from __future__ import annotations

import contextlib
import statistics
import time
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pytest

from bt_ibkr.config import SessionSettings
from bt_ibkr.connection.brokerage import JournalInMemory
from bt_ibkr.emulator.settings import EmulatorSettings
from bt_ibkr.emulator.testing import EmulatorThread
from bt_ibkr.hub.config import HubSettings
from bt_ibkr.hub.thread import HubThread
from bt_ibkr.risk import RiskLimits
from bt_ibkr.services.datanames import parse_dataname
from tests.hub.digest import Quoted
from tests.hub.noticed import Noticed
from tests.hub.processes import Process
from tests.hub.strategist import Plan

PATIENCE_S = 90.0
INSTRUMENT = "AAPL"
#: Ticks of the market in a second.
RATE = 300.0
#: So much worse, at the most, while somebody stands still; other programs of the machine have their share in it.
MEDIAN_FACTOR, TAIL_FACTOR = 3.0, 5.0


class Stage(NamedTuple):
    """The market, the hub, and a sink inside of the hub that keeps when each tick was published."""

    emulator: EmulatorThread
    hub: HubThread
    published: Quoted
    processes: dict[str, Process]

    def start(self) -> None:
        """The market begins."""
        self.emulator.call(lambda server: server.drive.start())

    def pause(self) -> int:
        """It stands still; how many ticks there were."""
        self.emulator.call(lambda server: server.drive.set_clock(paused=True))
        # What left by then is with the sockets; the hub takes it in before it answers this.
        frames = self.emulator.call(lambda server: sum(one.sent for one in server.core.hub.connections))
        latest = time.monotonic() + PATIENCE_S
        while self.hub.brokerage.progress().frames < frames:
            assert time.monotonic() < latest
            self.hub.loop.call(_turn())
        return self.published.count


async def _turn() -> None:
    """The hub's loop has gone round."""


Open = Callable[..., Stage]


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Open]:
    with contextlib.ExitStack() as stack:

        def make(plans: dict[str, dict[str, Any]], speed: float = 1.0, **settings: Any) -> Stage:
            market = EmulatorSettings(
                speed=speed, autostart=False, conflation_ms=0, questions="none", pacing="off", history_days=1,
                synthetic_instruments=(INSTRUMENT,), synthetic_rate=RATE / speed, smd_lifetime_s=0, margin="off",
            )  # fmt: skip
            emulator = stack.enter_context(EmulatorThread(market))
            hub = stack.enter_context(
                HubThread(
                    SessionSettings(base_url=emulator.url, paced=False),
                    HubSettings(endpoint=f"ipc://{tmp_path}/hub", **settings),
                    journal=JournalInMemory("stage"),
                    risk=RiskLimits(allow_no_data=True, orders_per_minute=None, price_band_percent=None),
                )
            )
            published = Quoted(arrivals=True)

            async def follow() -> None:
                contract = await hub.brokerage.resolve(parse_dataname(INSTRUMENT))
                await hub.brokerage.subscribe_ticks(contract, published, frozenset())

            hub.loop.call(follow())
            processes = {}
            for name, plan in plans.items():
                given: dict[str, Any] = {"lots": {INSTRUMENT: 10}, "steps": {INSTRUMENT: 0.01}} | plan
                whole = Plan(endpoint=hub.endpoint, name=name, **given)
                processes[name] = Process(
                    "strategist.py", msgspec.json.encode(whole).decode(), patience_s=PATIENCE_S
                )
                stack.callback(processes[name].kill)
            for process in processes.values():
                process.until(lambda process=process: process.of("joined") or process.of("refused"))  # type: ignore[misc]
                assert process.of("joined"), process.said
            return Stage(emulator, hub, published, processes)

        yield make


def stand_still(stage: Stage, before_s: float, stopped_s: float, after_s: float) -> tuple[float, ...]:
    """One stands still for a while, and a busy one trades throughout; the moments, monotonic ns."""
    slow, busy = stage.processes["slow"], stage.processes["busy"]
    moments = [float(time.monotonic_ns())]
    stage.start()
    busy.send("trade")
    wait(stage, before_s)
    moments.append(float(time.monotonic_ns()))
    slow.stop()
    wait(stage, stopped_s)
    slow.go_on()
    moments.append(float(time.monotonic_ns()))
    wait(stage, after_s)
    moments.append(float(time.monotonic_ns()))
    return tuple(moments)


def wait(stage: Stage, seconds: float) -> None:
    """That much of the market passes: its own clock says when."""
    begun_ns = stage.emulator.call(lambda server: server.core.now_ns)
    until_s = time.monotonic() + seconds
    while (left := until_s - time.monotonic()) > 0:
        stage.processes["busy"].hear(left)
    passed_ns = stage.emulator.call(lambda server: server.core.now_ns) - begun_ns
    assert passed_ns >= seconds * 0.9e9


def reach(process: Process, ticks: int) -> dict[str, Any]:
    return process.ask("reach", "reached", ticks={INSTRUMENT: ticks})


def latencies_ms(stage: Stage, process: Process, folder: Path, begin_ns: float, end_ns: float) -> Any:
    """From the hub to this process's thread, for what was published between two moments."""
    path = folder / "arrivals"
    process.ask("arrivals", "arrivals", path=str(path))
    arrived = array("q")
    arrived.frombytes(path.read_bytes())
    assert stage.published.arrivals_ns is not None
    left = np.array(stage.published.arrivals_ns, dtype=np.int64)
    came = np.array(arrived, dtype=np.int64)
    assert len(left) == len(came)
    chosen = (left >= begin_ns) & (left < end_ns)
    return (came - left)[chosen] / 1e6


def test_a_strategy_stands_still(stage: Open) -> None:
    """For seconds; what waits for it, and what its hub lost, come in their order."""
    made = stage({"slow": {}, "twin": {"every": 40}}, queue=100, dead_s=2.0, beat_s=0.2)
    with Noticed() as noticed:
        made.start()
        made.processes["twin"].send("trade")
        reach(made.processes["slow"], 50)
        made.processes["slow"].stop()
        noticed.until(lambda: state(made, "slow") == "lost")
        assert state(made, "twin") == "live"
        made.processes["slow"].go_on()
        noticed.until(lambda: state(made, "slow") == "live")
    same_as_the_twin(made, made.pause())


def state(made: Stage, name: str) -> str:
    """What the hub takes it for."""
    return next(peer.state for peer in made.hub.status().peers if peer.name == name)


def same_as_the_twin(made: Stage, count: int) -> dict[str, Any]:
    """Ticks and bars of the one that stood still; what it knows. Of ticks that it lost it has told that they came."""
    wanted = made.published.told()
    reports = {name: reach(process, count) for name, process in made.processes.items()}
    for name, report in reports.items():
        assert report["ticks"][INSTRUMENT] == wanted, name
    assert reports["slow"]["bars"] == reports["twin"]["bars"]
    others = {name: process for name, process in made.processes.items() if name != "slow"}
    assert [reports[name]["lost"] for name in others] == [0] * len(others)
    slow, report = made.processes["slow"], reports["slow"]
    assert report["lost"] == report["mended"]
    if report["lost"]:
        slow.until(lambda: slow.of("filled"))
    # Where it looks at the time before it looks at what has come, it takes the hub for having been away.
    assert {line["cause"] for line in slow.of("gap")} <= {"the hub was away"}
    for told in others.values():
        assert not told.of("gap")
        assert [line["state"] for line in told.of("state")] == ["streaming"]
    return report


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_a_strategy_stands_still_for_thirty_seconds(
    stage: Open, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = stage({"slow": {}, "twin": {}, "busy": {"every": 40}, "other": {}}, queue=1000, ring=100_000)
    began_ns, stopped_ns, went_on_ns, _ = stand_still(made, 15.0, 30.0, 15.0)
    count = made.pause()
    report = same_as_the_twin(made, count)
    assert report["lost"] > 1000
    placed = len(made.processes["busy"].ask("rest", "rested")["orders"])
    assert placed > 50
    #: The first seconds are of a process that has just begun; the end is of one that catches up.
    settled_ns = 3e9
    lines = [f"{count} ticks, {placed} orders of another one; ms from the hub to a process:"]
    for name in ("twin", "busy", "other"):
        process = made.processes[name]
        windows = {
            "before": (began_ns + settled_ns, stopped_ns),
            "stopped": (stopped_ns, went_on_ns),
            "after": (went_on_ns + settled_ns, float(1 << 62)),
        }
        figures = {}
        for when, window in windows.items():
            took = latencies_ms(made, process, tmp_path, *window)
            assert len(took) > 1000
            figures[when] = (float(statistics.median(took)), float(np.percentile(took, 99)))
        lines.append(f"{name:6}" + "".join(
            f"  {when} median {median:.2f} p99 {tail:.2f}" for when, (median, tail) in figures.items()
        ))  # fmt: skip
        usual = [max(figures["before"][place], figures["after"][place]) for place in (0, 1)]
        assert figures["stopped"][0] <= MEDIAN_FACTOR * usual[0], lines
        assert figures["stopped"][1] <= TAIL_FACTOR * usual[1], lines
    with capsys.disabled():
        print("\n" + "\n".join(lines))


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_bars_of_thirty_seconds_that_no_ring_has(stage: Open) -> None:
    """They come from history, and are those of a twin that saw every tick."""
    bars = {"seconds": 60}
    plans = {"slow": bars, "twin": bars, "busy": {"every": 40}}
    made = stage(plans, speed=20.0, queue=500, ring=2000)
    stand_still(made, 12.0, 30.0, 12.0)
    count = made.pause()
    twin = reach(made.processes["twin"], count)
    slow = reach(made.processes["slow"], count)
    assert slow["ticks"][INSTRUMENT]["gone"] > 1000
    assert any("too slow" in line["cause"] for line in made.processes["slow"].of("gap"))
    number = len(twin["rows"][INSTRUMENT])
    assert number >= 12
    if len(slow["rows"][INSTRUMENT]) < number:
        slow = made.processes["slow"].ask("reach", "reached", bars={INSTRUMENT: number})
    assert slow["rows"] == twin["rows"]
