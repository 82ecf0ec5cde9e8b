"""A hub between the session and a strategy, beside raw pyzmq PUB/SUB with the same payload in the same run.

::

    python benchmarks/hub.py [--quick] [--json]

docs/benchmarks.md says what each figure means.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence

import msgspec
import payload
from arena import Arena
from run import figures
from scenario import Outcome, Scenario

_FLOOR, _OURS = "hub_floor", "hub_ours"


class Figure(msgspec.Struct, kw_only=True):
    """One figure of floor and hub; medians over the rounds.

    Attributes:
        ratio: Median of the rounds' ratios, hub to floor.
        bound: What is wanted at most; 0 for a figure without a bound.
    """

    title: str
    floor: float
    hub: float
    ratio: float
    bound: float = 0.0


def _one(arena: Arena, contender: str, scenario: Scenario) -> dict[str, float]:
    outcome, sent = arena.run(contender, scenario)
    _check(contender, scenario, outcome)
    found = figures(scenario, outcome, sent)
    found["cpu_us"] = outcome.owner_cpu_ns / scenario.frames / 1000
    return found


def _check(contender: str, scenario: Scenario, outcome: Outcome) -> None:
    lost = outcome.count != scenario.frames
    wrong = scenario.kind == "latency" and outcome.checksum != payload.expected_checksum(scenario)
    if lost or wrong:
        msg = f"{contender}: {outcome.count} of {scenario.frames} arrived, or not as they were sent."
        raise SystemExit(msg)


def measure(arena: Arena, scenario: Scenario, rounds: int) -> list[dict[str, tuple[float, float]]]:
    """In each round both, in turns first: figures of floor and hub."""
    found = []
    for turn in range(rounds):
        print(f"{scenario.kind}: round {turn + 1} of {rounds}", file=sys.stderr, flush=True)
        names = (_FLOOR, _OURS) if turn % 2 == 0 else (_OURS, _FLOOR)
        runs = {name: _one(arena, name, scenario) for name in names}
        found.append({key: (runs[_FLOOR][key], runs[_OURS][key]) for key in runs[_FLOOR]})
    return found


def figure(
    title: str, rounds: Sequence[dict[str, tuple[float, float]]], key: str, bound: float = 0.0
) -> Figure:
    """Medians of what ``key`` is in the rounds, of floor and hub."""
    return Figure(
        title=title,
        floor=statistics.median(one[key][0] for one in rounds),
        hub=statistics.median(one[key][1] for one in rounds),
        ratio=statistics.median(one[key][1] / one[key][0] for one in rounds),
        bound=bound,
    )


def said(one: Figure) -> str:
    """A figure in a line, for people."""
    verdict = ""
    if one.bound:
        verdict = f"   wanted at most {one.bound:g} x: {'met' if one.ratio <= one.bound else 'NOT met'}"
    return f"{one.title}: pyzmq {one.floor:,.1f}, hub {one.hub:,.1f} ({one.ratio:.2f} x){verdict}"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description="A hub beside raw pyzmq PUB/SUB.")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds")
    parser.add_argument("--json", action="store_true", help="the report as JSON")
    options = parser.parse_args(arguments)
    rounds, scale = (3, 1) if options.quick else (5, 3)
    paced = Scenario(kind="latency", feeds=1, frames=1500 * scale, rate=1000)
    flood = Scenario(kind="ticks", feeds=1, frames=15_000 * scale)
    with Arena() as arena:
        measure(arena, msgspec.structs.replace(paced, frames=500), 1)
        slow = measure(arena, paced, rounds)
        fast = measure(arena, flood, rounds)
    report = [
        figure("frame to next() at 1,000 ticks/s, median, µs", slow, "median_us", 1.5),
        figure("frame to next() at 1,000 ticks/s, 99th percentile, µs", slow, "p99_us", 2.0),
        figure("processor time of the owner per tick at 1,000 ticks/s, µs", slow, "cpu_us"),
        figure("ticks to next() as fast as they are taken, per second", fast, "per_s"),
        figure("processor time of the owner per tick at full speed, µs", fast, "cpu_us"),
    ]
    if options.json:
        print(msgspec.json.format(msgspec.json.encode(report)).decode())
        return 0
    for one in report:
        print(said(one))
    return 0


if __name__ == "__main__":
    sys.exit(main())
