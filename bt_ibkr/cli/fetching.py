"""The command ``history download``: what it will do, a progress bar, what came of it."""

from __future__ import annotations

import signal
import sys
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from bt_ibkr.app import history
from bt_ibkr.app.result import utc_text
from bt_ibkr.app.visit import Address, Visit, visit_account
from bt_ibkr.archive import Archive
from bt_ibkr.cli.tables import console, moment, put_json, show_table
from bt_ibkr.errors import UsageError

#: Longer downloads are begun on a terminal only after a question, seconds.
_ASKS_S = 120.0
#: Corrections told one by one.
_TOLD = 10


def download_command(
    address: Address, request: history.DownloadRequest, folder: str, *, yes: bool, as_json: bool
) -> int:
    """Fetch what is missing.

    Returns:
        0, or 130 after an interrupt: what had come is stored.

    Raises:
        BtIbkrError: What ended it; what had come is stored.
    """
    archive = Archive(folder or None)
    # With --json nothing but the result may be on standard output.
    out = Console(stderr=True, soft_wrap=True, highlight=False) if as_json else console()

    async def work(visit: Visit) -> list[history.Outcome]:
        plan = await history.plan_download(visit, archive, request)
        _announce(out, archive, plan)
        if plan.seconds > _ASKS_S and not yes:
            _ask(out)
        with _progress(out) as bar:
            task = bar.add_task("fetching", total=plan.requests, left=duration(plan.seconds))
            return await history.download(visit, request, plan, lambda now: _show(bar, task, now))

    # An interrupt ends the visit in order, rather than the process at once.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        outcomes = visit_account(address, work, trades=False)
    except KeyboardInterrupt:
        code = 128 + signal.SIGINT
        out.print("[yellow]interrupted[/]  What has come is stored; the same command goes on from there.")
        if as_json:
            put_json({"errors": ["interrupted"], "exit_code": code})
        return code
    finally:
        signal.signal(signal.SIGINT, before)
    if as_json:
        put_json({"folder": str(archive.folder), "series": [_row(one) for one in outcomes]})
    else:
        _tell(out, outcomes)
    return 0


def duration(seconds: float) -> str:
    """``3 s``, ``4 min``, ``2 h 10 min``, for people."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def _announce(out: Console, archive: Archive, plan: history.Plan) -> None:
    for job in plan.jobs:
        what = f"{job.requests} requests" if job.spans else "nothing is missing"
        out.print(f"{job.contract.describe()} {job.series.key.bar}: {what}", markup=False)
    out.print(
        f"{plan.requests} requests into {archive.folder}; IBKR's limits allow no less than "
        f"{duration(plan.seconds)}.",
        markup=False,
    )


def _ask(out: Console) -> None:
    if sys.stdin is None or not sys.stdin.isatty():
        return
    out.print("Begin? [y/N] ", end="", markup=False)
    out.file.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise UsageError("Not begun.", remedy="Say y when asked, or give --yes.")


def _progress(out: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[left]} left at least", markup=False),
        console=out,
        transient=True,
        disable=not out.is_terminal,
    )


def _show(bar: Progress, task: TaskID, now: history.Progress) -> None:
    bar.update(
        task,
        completed=now.done,
        total=now.requests,
        description=f"{now.name}, {now.bars:,} bars",
        left=duration(now.left_s),
    )


def _tell(out: Console, outcomes: list[history.Outcome]) -> None:
    show_table(
        out,
        "Fetched",
        ("instrument", "bar", "hours", "bars", "requests", "corrections", "note"),
        (
            (
                one.contract.describe(), one.series.key.bar, one.series.key.hours, one.bars, one.requests,
                len(one.corrections), "; ".join(_notes(one)),
            )
            for one in outcomes
        ),
        empty="nothing",
    )  # fmt: skip
    for one in outcomes:
        for correction in one.corrections[:_TOLD]:
            out.print(
                f"[yellow]corrected[/]  {one.name} {moment(correction.start_ns)}: {correction.old} is now "
                f"{correction.new or 'no bar'}"
            )
        if len(one.corrections) > _TOLD:
            out.print(f"[yellow]corrected[/]  {len(one.corrections) - _TOLD} more, in the log of the series")


def _notes(one: history.Outcome) -> list[str]:
    ledger = one.series.ledger()
    found = []
    if one.split:
        found.append(f"split noticed: prices stored before are {one.split:g} times those of now")
    if one.begins_ns:
        found.append(f"no bars before {moment(one.begins_ns)}")
    if ledger is not None and ledger.unadjusted:
        found.append(
            f"from before the split until {moment(ledger.unadjusted[-1][1])}: fetch with an earlier --from"
        )
    if not one.bars and one.requests:
        found.append("no bars there")
    return found


def _row(one: history.Outcome) -> dict[str, Any]:
    key, ledger = one.series.key, one.series.ledger()
    return {
        "name": one.name,
        "contract": one.contract.describe(),
        "conid": one.contract.conid,
        "bar": key.bar,
        "source": key.source,
        "hours": key.hours,
        "adjusted": None if ledger is None else ledger.adjusted,
        "bars": one.bars,
        "requests": one.requests,
        "corrections": [{"start": utc_text(c.start_ns), "old": c.old, "new": c.new} for c in one.corrections],
        "split": one.split or None,
        "begins": utc_text(one.begins_ns) if one.begins_ns else None,
        "missing": [[utc_text(start), utc_text(end)] for start, end in one.missing],
        "notes": _notes(one),
    }
