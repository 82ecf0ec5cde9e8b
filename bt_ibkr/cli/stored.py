"""The commands ``history list``, ``verify`` and ``export``: they read the archive alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.measure import Measurement

from bt_ibkr.app import history
from bt_ibkr.app.result import utc_text
from bt_ibkr.archive import Archive, Series, verify
from bt_ibkr.archive.archive import describe
from bt_ibkr.archive.ledger import Ledger
from bt_ibkr.cli.tables import console, make_table, put_json, show_table
from bt_ibkr.errors import ArchiveError

#: Wider than any terminal: to measure what a table would like.
_UNLIMITED = 100_000
_DAY_NS = 86_400 * 1_000_000_000


def list_command(folder: str, *, as_json: bool) -> int:
    """Show what is stored."""
    archive = Archive(folder or None)
    rows = []
    damaged: list[str] = []
    for series in archive.all():
        try:
            ledger = series.ledger()
        except ArchiveError as problem:
            # One that is damaged hides none of the others.
            damaged.append(str(problem))
            continue
        if ledger is not None:
            rows.append(_row(series, ledger))
    code = ArchiveError.exit_code if damaged else 0
    if as_json:
        put_json({"folder": str(archive.folder), "series": rows, "errors": damaged, "exit_code": code})
        return code
    _show(console(), archive, rows)
    for told in damaged:
        console().print(f"not readable  {told}", markup=False)
    return code


def _show(out: Console, archive: Archive, rows: list[dict[str, Any]]) -> None:
    """All of it where there is room, else the days and what tells one series from another."""
    if not rows:
        show_table(out, "", (), (), empty=f"no historical bars in {archive.folder}")
        return
    title = f"Historical bars in {archive.folder}"
    table = make_table(
        title,
        ("instrument", "conid", "bar", "source", "hours", "from", "to", "bars", "MB"),
        [
            (
                row["contract"], str(row["conid"]), row["bar"], row["source"], row["hours"],
                _plain(row["from"]), _plain(row["to"]), row["bars"], round(row["bytes"] / 1e6, 2),
            )
            for row in rows
        ],
    )  # fmt: skip
    if Measurement.get(out, out.options.update(width=_UNLIMITED), table).maximum > out.width:
        table = make_table(
            title,
            ("instrument", "bar", "source", "hours", "from", "to", "bars"),
            [
                (
                    row["contract"], row["bar"], row["source"], row["hours"],
                    _plain(row["from"])[:10], _plain(row["to"])[:10], row["bars"],
                )
                for row in rows
            ],
        )  # fmt: skip
        # Names are long; what is short stays whole.
        for column in table.columns[1:]:
            column.no_wrap = True
    out.print(table)
    # It goes by the source, and would fill a column with the same words.
    for source, words in dict.fromkeys((row["source"], row["adjusted"]) for row in rows):
        out.print(
            f"{source}: adjusted {words}" if words.startswith("for") else f"{source}: adjustment {words}",
            style="dim",
        )


def _plain(text: str | None) -> str:
    return (text or "")[:16].replace("T", " ")


def _row(series: Series, ledger: Ledger) -> dict[str, Any]:
    key = series.key
    return {
        "contract": ledger.contract.describe(),
        "conid": key.conid,
        "bar": key.bar,
        "source": key.source,
        "hours": key.hours,
        "adjusted": ledger.adjusted,
        "from": utc_text(ledger.covered[0][0]) if ledger.covered else None,
        "to": utc_text(ledger.covered[-1][1]) if ledger.covered else None,
        "bars": sum(ledger.rows.values()),
        "files": len(series.files()),
        "bytes": sum(path.stat().st_size for path in series.files()),
        "holes": [[utc_text(start), utc_text(end)] for start, end in ledger.holes(0, 1 << 62)],
        "begins": utc_text(ledger.begins_ns) if ledger.begins_ns else None,
        "updated": utc_text(ledger.updated_ns) if ledger.updated_ns else None,
        "folder": str(series.folder),
    }


def verify_command(
    folder: str,
    names: tuple[str, ...],
    bar: str,
    source: str,
    regular_hours: bool | None,
    max_age_days: float,
    *,
    as_json: bool,
) -> int:
    """Look whether what is stored is whole.

    Raises:
        ArchiveError: Nothing is stored there, or a name means several.
    """
    archive = Archive(folder or None)
    series = history.chosen(archive, names, bar, source, regular_hours)
    if not series:
        raise ArchiveError(
            f"No such bars are stored in {archive.folder}.", remedy="Name another folder with --dir."
        )
    rows: list[dict[str, Any]] = []
    for one in series:
        verdict = verify(one, now_ns=history.wall_ns(), max_age_ns=round(max_age_days * _DAY_NS))
        rows.append(
            {
                "series": _name(one),
                "folder": str(one.folder),
                "whole": not verdict.problems,
                "bars": verdict.bars,
                "from": utc_text(verdict.first_ns) if verdict.first_ns else None,
                "to": utc_text(verdict.last_ns) if verdict.last_ns else None,
                "corrections": verdict.corrections,
                "problems": verdict.problems,
            }
        )
    whole = all(row["whole"] for row in rows)
    code = 0 if whole else ArchiveError.exit_code
    if as_json:
        put_json({"whole": whole, "series": rows, "exit_code": code})
        return code
    out = console()
    for row in rows:
        word = "[green]whole[/]  " if row["whole"] else "[bold red]not whole[/]  "
        span = f", {_plain(row['from'])} to {_plain(row['to'])} UTC" if row["from"] else ""
        out.print(f"{word}{row['series']}: {row['bars']:,} bars{span}, {row['corrections']} corrections")
        for problem in row["problems"]:
            out.print(f"  {problem}", markup=False)
    return code


def _name(series: Series) -> str:
    try:
        ledger = series.ledger()
    except ArchiveError:
        ledger = None
    return str(series.folder) if ledger is None else describe(series, ledger)


def export_command(
    folder: str,
    name: str,
    out: str,
    bar: str,
    source: str,
    regular_hours: bool | None,
    span: tuple[int, int],
    *,
    holes: bool,
    as_json: bool,
) -> int:
    """Write stored bars to one file."""
    series = Archive(folder or None).find(name, bar, source, regular_hours=regular_hours)
    count = history.export(series, Path(out), *span, holes=holes)
    if as_json:
        put_json({"file": out, "bars": count, "series": _name(series)})
    else:
        console().print(f"{count:,} bars of {_name(series)} in {out}", markup=False)
    return 0
