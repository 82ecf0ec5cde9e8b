"""Latency and throughput: the product beside the least that could do the job, and beside ibind.

::

    python benchmarks/run.py [--quick] [--json]

Progress goes to standard error, the report to standard output. docs/benchmarks.md says what each figure means.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence

import msgspec
import payload
from arena import Arena
from scenario import BARS, Outcome, Scenario, Sent

#: The contenders' module names and what the report calls them.
NAMES = {"floor": "floor", "bare": "bare backtrader", "ours": "bt_ibkr", "ibind_client": "ibind 0.2.2"}
#: The share of a latency run that is left out as warm-up.
_WARM_SHARE = 0.2


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """One row group of the report.

    Attributes:
        title: Its heading.
        scenario: The run.
        floor: The contender that the others are compared with.
        slow_frames: Frames for ibind, which would take too long over all of them; 0 for the same number.
        wanted: Bounds on ratios, as (label, contender, figure, relation, bound).
    """

    title: str
    scenario: Scenario
    floor: str
    slow_frames: int = 0
    wanted: tuple[tuple[str, str, str, str, float], ...] = ()


class Row(msgspec.Struct, kw_only=True):
    """Figures of one contender in one plan; medians over the rounds."""

    contender: str
    figures: dict[str, float]
    ratios: dict[str, float]


class Verdict(msgspec.Struct, kw_only=True):
    """A wanted ratio and what was measured."""

    label: str
    measured: float
    bound: float
    met: bool


class Result(msgspec.Struct, kw_only=True):
    """What came of a plan."""

    title: str
    unit: str
    rounds: int
    rows: list[Row]
    verdicts: list[Verdict]


_LATENCY_WANTED = (
    ("median at most 1.5 x the floor's", "floor", "median_us", "<=", 1.5),
    ("p99 at most 2 x the floor's", "floor", "p99_us", "<=", 2.0),
)
_TICKS_WANTED = (("at least 80 % of bare backtrader", "bare", "per_s", ">=", 0.8),)
_BARS_WANTED = (
    ("at least 60 % of the floor", "floor", "per_s", ">=", 0.6),
    ("at least 6 x ibind", "ibind_client", "per_s", ">=", 6.0),
)


def plans(*, quick: bool) -> list[Plan]:
    """What is run."""
    scale = 1 if quick else 3
    return [
        Plan(
            title="Latency, wire to next(), one tick feed, 1,000 ticks/s",
            scenario=Scenario(kind="latency", feeds=1, frames=1200 * scale, rate=1000),
            floor="floor",
            wanted=_LATENCY_WANTED,
        ),
        *(
            Plan(
                title=f"Ticks delivered to next(), {feeds} tick feed{'s' * (feeds > 1)}, as fast as they are taken",
                scenario=Scenario(kind="ticks", feeds=feeds, frames=frames * scale),
                floor="bare",
                slow_frames=frames // 2 * scale,
                wanted=_TICKS_WANTED,
            )
            for feeds, frames in ((1, 15_000), (10, 3_000))
        ),
        *(
            Plan(
                title=f"Frames taken in, {feeds} minute-bar feed{'s' * (feeds > 1)}, as fast as they are taken",
                scenario=Scenario(kind="bars", feeds=feeds, frames=150_000 * scale),
                floor="floor",
                slow_frames=15_000 * scale,
                wanted=_BARS_WANTED,
            )
            for feeds in (1, 10)
        ),
    ]


def _check(contender: str, scenario: Scenario, outcome: Outcome) -> None:
    """A run that lost or doubled something is no measurement."""
    if scenario.kind == "bars":
        frames = scenario.frames + scenario.feeds
        wanted = BARS * scenario.feeds if contender == "ours" else frames
    else:
        wanted = scenario.frames
    if outcome.count != wanted:
        msg = f"{contender}: {outcome.count} of {wanted} arrived in {scenario.kind!r}."
        raise SystemExit(msg)
    if scenario.kind == "latency" and outcome.checksum != payload.expected_checksum(scenario):
        msg = f"{contender}: the sizes that arrived are not those that were sent."
        raise SystemExit(msg)


def figures(scenario: Scenario, outcome: Outcome, sent: Sent | None) -> dict[str, float]:
    """The figures of one run: microseconds for ``latency``, else frames or ticks a second."""
    if scenario.kind == "latency":
        assert sent is not None
        pairs = zip(sent.sent_ns, outcome.arrivals_ns, strict=True)
        delays = [(arrived - left) / 1000 for left, arrived in pairs][int(scenario.frames * _WARM_SHARE) :]
        cuts = statistics.quantiles(delays, n=100)
        return {"median_us": statistics.median(delays), "p99_us": cuts[98]}
    started_ns = outcome.started_ns or (sent.started_ns if sent is not None else 0)
    return {"per_s": scenario.frames / (outcome.ended_ns - started_ns) * 1e9}


def measure(arena: Arena, plan: Plan, rounds: int) -> Result:
    """Run a plan: in each round every contender once, one after the other."""
    contenders = [plan.floor, "ours", "ibind_client"]
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in contenders}
    for turn in range(rounds):
        print(f"{plan.title}: round {turn + 1} of {rounds}", file=sys.stderr, flush=True)
        # Every second round backwards: what falls to the first or the last of a round falls to both.
        for name in contenders if turn % 2 == 0 else reversed(contenders):
            scenario = plan.scenario
            if name == "ibind_client" and plan.slow_frames:
                scenario = msgspec.structs.replace(scenario, frames=plan.slow_frames)
            outcome, sent = arena.run(name, scenario)
            _check(name, scenario, outcome)
            runs[name].append(figures(scenario, outcome, sent))
    rows = [_row(name, runs[name], runs[plan.floor]) for name in contenders]
    unit = {"latency": "µs", "ticks": "ticks/s", "bars": "frames/s"}[plan.scenario.kind]
    return Result(title=plan.title, unit=unit, rounds=rounds, rows=rows, verdicts=_verdicts(plan, runs))


def _row(name: str, runs: Sequence[dict[str, float]], floor: Sequence[dict[str, float]]) -> Row:
    return Row(
        contender=NAMES[name],
        figures={key: statistics.median(run[key] for run in runs) for key in runs[0]},
        ratios={key: _ratio(runs, floor, key) for key in runs[0]},
    )


def _ratio(runs: Sequence[dict[str, float]], base: Sequence[dict[str, float]], key: str) -> float:
    """The median of the rounds' ratios: a disturbance that lasts for a round cancels out."""
    return statistics.median(run[key] / other[key] for run, other in zip(runs, base, strict=True))


def _verdicts(plan: Plan, runs: dict[str, list[dict[str, float]]]) -> list[Verdict]:
    found = []
    for label, against, key, relation, bound in plan.wanted:
        measured = _ratio(runs["ours"], runs[against], key)
        met = measured <= bound if relation == "<=" else measured >= bound
        found.append(Verdict(label=label, measured=measured, bound=bound, met=met))
    return found


def server_rate(arena: Arena) -> float:
    """Frames a second that the server alone can send: bytes are thrown away at the other end."""
    scenario = Scenario(kind="bars", feeds=1, frames=300_000)
    outcome, sent = arena.run("drain", scenario)
    assert sent is not None
    return scenario.frames / (outcome.ended_ns - sent.started_ns) * 1e9


def warm_up(arena: Arena) -> None:
    """One short run of everything, not counted."""
    print("warm-up", file=sys.stderr, flush=True)
    for name in ("floor", "ours", "ibind_client"):
        arena.run(name, Scenario(kind="bars", feeds=2, frames=5000))
    for name in ("floor", "bare", "ours", "ibind_client"):
        arena.run(name, Scenario(kind="ticks", feeds=1, frames=2000))


def _amount(value: float) -> str:
    return f"{value:,.0f}"


def text(results: Sequence[Result], rate: float) -> str:
    """The report for people."""
    lines = [f"The server alone sends {_amount(rate)} frames/s: no figure below is bounded by it.", ""]
    for result in results:
        lines.append(f"{result.title} (median of {result.rounds})")
        for row in result.rows:
            parts = [
                f"{key.rpartition('_')[0]} {_amount(value)} µs ({row.ratios[key]:.2f} x)"
                if result.unit == "µs"
                else f"{_amount(value)} {result.unit} ({row.ratios[key]:.2f} x)"
                for key, value in row.figures.items()
            ]
            lines.append(f"  {row.contender:<16} {'   '.join(parts)}")
        for verdict in result.verdicts:
            word = "met" if verdict.met else "NOT met"
            lines.append(f"  bt_ibkr wanted: {verdict.label}: {verdict.measured:.2f}, {word}")
        lines.append("")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        description="Latency and throughput of bt_ibkr, beside a floor and ibind."
    )
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds; below a minute")
    parser.add_argument("--json", action="store_true", help="the report as JSON")
    options = parser.parse_args(arguments)
    rounds = 3 if options.quick else 5
    with Arena() as arena:
        warm_up(arena)
        rate = server_rate(arena)
        results = [measure(arena, plan, rounds) for plan in plans(quick=options.quick)]
    if options.json:
        document = {"server_frames_per_s": rate, "results": results}
        print(msgspec.json.format(msgspec.json.encode(document)).decode())
    else:
        print(text(results, rate))
    return 0


if __name__ == "__main__":
    sys.exit(main())
