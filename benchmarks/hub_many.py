"""Several strategies at one hub, each in a process of its own, beside as many SUB sockets at one PUB socket.

::

    python benchmarks/hub_many.py [--strategies N] [--feeds N] [--rate N] [--quick] [--json]

docs/benchmarks.md says what each figure means.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import msgspec
from arena import Arena
from hub import Figure, figure, said
from member import Seat
from owned import Owner
from run import figures
from scenario import Scenario

_FLOOR, _HUB = "floor", "hub"


class Run(msgspec.Struct, kw_only=True):
    """One run: figures of each strategy, and processor time of the process with the session by tick delivered, µs."""

    each: list[dict[str, float]]
    cpu_us: float

    def worst(self) -> dict[str, float]:
        """Of the slowest strategy, by figure."""
        return {
            "median_us": max(one["median_us"] for one in self.each),
            "p99_us": max(one["p99_us"] for one in self.each),
            "cpu_us": self.cpu_us,
        }


class Strategy(msgspec.Struct, kw_only=True):
    """Frame to ``next()`` of one strategy."""

    number: int
    instrument: str
    median: Figure
    p99: Figure


class Report(msgspec.Struct, kw_only=True):
    """What came of it; ``rate`` in frames a second over all instruments, ``ticks`` by strategy and round."""

    strategies: int
    feeds: int
    rate: int
    ticks: int
    rounds: int
    each: list[Strategy]
    worst: list[Figure]


def one_run(arena: Arena, kind: str, scenario: Scenario) -> Run:
    """All strategies join, then the market begins; each has checked its ticks itself."""
    scenario = arena.prepare(scenario)
    names = [f"member {number}" for number in range(scenario.strategies)]
    with Owner(kind, arena.url, scenario) as owner:
        for number, name in enumerate(names):
            seat = Seat(kind=kind, endpoint=owner.endpoint, number=number, scenario=scenario, base=arena.base)
            arena.order(name, seat)
        arena.standing()
        began_ns = owner.cpu_ns()
        sent = arena.sent()
        spent_ns = owner.cpu_ns() - began_ns
        outcomes = [arena.outcome(name) for name in names]
    each = []
    for number, outcome in enumerate(outcomes):
        own = scenario.sequences(number)
        left = msgspec.structs.replace(sent, sent_ns=[sent.sent_ns[one] for one in own])
        each.append(figures(msgspec.structs.replace(scenario, frames=len(own)), outcome, left))
    delivered = sum(outcome.count for outcome in outcomes)
    return Run(each=each, cpu_us=spent_ns / delivered / 1000)


def measure(arena: Arena, scenario: Scenario, rounds: int) -> list[tuple[Run, Run]]:
    """In each round both, in turns first: runs of floor and hub."""
    found = []
    for turn in range(rounds):
        print(f"{scenario.strategies} strategies: round {turn + 1} of {rounds}", file=sys.stderr, flush=True)
        kinds = (_FLOOR, _HUB) if turn % 2 == 0 else (_HUB, _FLOOR)
        runs = {kind: one_run(arena, kind, scenario) for kind in kinds}
        found.append((runs[_FLOOR], runs[_HUB]))
    return found


def report(scenario: Scenario, rounds: Sequence[tuple[Run, Run]]) -> Report:
    """Medians over the rounds."""
    each = []
    for number in range(scenario.strategies):
        pairs = [_beside(floor.each[number], hub.each[number]) for floor, hub in rounds]
        each.append(
            Strategy(
                number=number,
                instrument=f"B{number % scenario.feeds}",
                median=figure("median, µs", pairs, "median_us"),
                p99=figure("99th percentile, µs", pairs, "p99_us"),
            )
        )
    worst = [_beside(floor.worst(), hub.worst()) for floor, hub in rounds]
    return Report(
        strategies=scenario.strategies,
        feeds=scenario.feeds,
        rate=scenario.rate,
        ticks=len(scenario.sequences(0)),
        rounds=len(rounds),
        each=each,
        worst=[
            figure("slowest strategy, frame to next(), median, µs", worst, "median_us", 1.5),
            figure("slowest strategy, frame to next(), 99th percentile, µs", worst, "p99_us", 2.0),
            figure("processor time of the owner per tick delivered, µs", worst, "cpu_us"),
        ],
    )


def _beside(floor: dict[str, float], hub: dict[str, float]) -> dict[str, tuple[float, float]]:
    return {key: (floor[key], hub[key]) for key in floor}


def text(found: Report) -> str:
    """The report for people."""
    spread = f"{found.rate:,} ticks a second over {found.feeds} instruments"
    lines = [f"{found.strategies} strategies, {spread}, {found.ticks:,} to each (median of {found.rounds})"]
    for one in found.each:
        lines.append(f"  strategy {one.number} ({one.instrument})  {said(one.median)}   {said(one.p99)}")
    return "\n".join(lines + [said(one) for one in found.worst])


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        description="Several strategies at a hub, beside raw pyzmq PUB/SUB.", allow_abbrev=False
    )
    parser.add_argument("--strategies", type=int, default=4, help="processes (default 4)")
    parser.add_argument("--feeds", type=int, default=2, help="instruments they are spread over (default 2)")
    parser.add_argument("--rate", type=int, default=200, help="ticks a second, all instruments (default 200)")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds")
    parser.add_argument("--json", action="store_true", help="the report as JSON")
    options = parser.parse_args(arguments)
    if options.strategies < 1 or options.rate < 1:
        parser.error("--strategies and --rate: give 1 or more")
    if not 1 <= options.feeds <= options.strategies:
        parser.error("--feeds: give from 1 to as many as there are strategies")
    rounds, seconds = (3, 4) if options.quick else (5, 10)
    scenario = Scenario(
        kind="latency",
        feeds=options.feeds,
        frames=options.rate * seconds,
        rate=options.rate,
        strategies=options.strategies,
    )
    with Arena() as arena:
        for number in range(options.strategies):
            arena.start(f"member {number}", "member.py")
        measure(arena, msgspec.structs.replace(scenario, frames=options.rate * 2), 1)
        found = report(scenario, measure(arena, scenario, rounds))
    print(msgspec.json.format(msgspec.json.encode(found)).decode() if options.json else text(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
