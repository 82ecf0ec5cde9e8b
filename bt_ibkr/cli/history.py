"""The commands ``history download``, ``list``, ``verify`` and ``export``: their options."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from bt_ibkr.cli.options import (
    Json,
    text_option,
    visits,
)

if TYPE_CHECKING:
    from bt_ibkr.app.visit import Address

history = typer.Typer(
    name="history",
    help="Historical bars: fetch them into an archive, look at it, verify it, export from it.",
    no_args_is_help=True,
)

Names = Annotated[
    list[str] | None, typer.Argument(metavar="[NAME]…", help="Instruments; without: all stored.")
]
Folder = Annotated[str, text_option("--dir", metavar="DIR", help="The archive; else the program's own.")]
Bar = Annotated[str, text_option("--bar", help="Length: 1min … 30min, 1h … 8h, 1d, 1w, 1m (a month).")]
Source = Annotated[str, text_option("--source", help="trades, midpoint, bid, ask or bid_ask.")]
Hours = Annotated[
    bool | None, typer.Option("--rth/--all-hours", help="Regular trading hours only, or with extended ones.")
]
Start = Annotated[str, text_option("--from", help="First moment, ISO 8601, UTC.")]
End = Annotated[str, text_option("--to", help="Last moment; else now.")]


@history.command()
@visits()
def download(
    names: Annotated[list[str], typer.Argument(metavar="NAME…", help="Instruments, as AAPL.")],
    start: Start = "",
    end: End = "",
    bar: Bar = "1min",
    source: Source = "trades",
    rth: Hours = None,
    folder: Folder = "",
    refresh: Annotated[
        bool, typer.Option("--refresh", help="Fetch also what is stored, and compare.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Begin without asking, however long it takes.")] = False,
    *,
    address: Address,
    as_json: Json = False,
) -> Callable[[], int]:
    """Fetch what is missing of a span, within IBKR's limits; can be interrupted and goes on from there."""
    from bt_ibkr.app.history import DownloadRequest
    from bt_ibkr.app.market import parse_moment
    from bt_ibkr.archive import SeriesKey
    from bt_ibkr.cli.fetching import download_command
    from bt_ibkr.errors import UsageError

    if not start:
        raise UsageError("--from is missing.", remedy="Say where the bars begin: --from 2026-01-01.")
    # Refused before anybody logs on.
    SeriesKey(conid=0, bar=bar, source=source)
    request = DownloadRequest(
        names=tuple(names),
        start_ns=parse_moment(start),
        end_ns=parse_moment(end) if end else 0,
        bar=bar,
        source=source,
        regular_hours=bool(rth),
        refresh=refresh,
    )
    return partial(download_command, address, request, folder, yes=yes, as_json=as_json)


@history.command("list")
def list_(folder: Folder = "", as_json: Json = False) -> Callable[[], int]:
    """Show what is stored. IBKR is not asked."""
    from bt_ibkr.cli.stored import list_command

    return partial(list_command, folder, as_json=as_json)


@history.command()
def verify(
    names: Names = None,
    bar: Bar = "",
    source: Source = "",
    rth: Hours = None,
    max_age: Annotated[
        float, typer.Option(metavar="DAYS", min=0, help="The newest bar must not be older.")
    ] = 0.0,
    folder: Folder = "",
    as_json: Json = False,
) -> Callable[[], int]:
    """Look whether what is stored is whole; exit code 0 only if it is. IBKR is not asked."""
    from bt_ibkr.cli.stored import verify_command

    return partial(verify_command, folder, tuple(names or ()), bar, source, rth, max_age, as_json=as_json)


@history.command()
def export(
    name: Annotated[str, typer.Argument(help="Instrument, as AAPL or conid:265598.")],
    out: Annotated[str, text_option("--out", metavar="FILE", help="Ends in .csv or .parquet.")] = "",
    bar: Bar = "",
    source: Source = "",
    rth: Hours = None,
    start: Start = "",
    end: End = "",
    holes: Annotated[bool, typer.Option("--holes", help="Also where something was never fetched.")] = False,
    folder: Folder = "",
    as_json: Json = False,
) -> Callable[[], int]:
    """Write stored bars to one file, for pandas and spreadsheets. IBKR is not asked."""
    from bt_ibkr.app.market import parse_moment
    from bt_ibkr.cli.stored import export_command
    from bt_ibkr.errors import UsageError

    if not out:
        raise UsageError("--out is missing.", remedy="Name a file that ends in .csv or .parquet.")
    span = (parse_moment(start) if start else 0, parse_moment(end) if end else 0)
    return partial(export_command, folder, name, out, bar, source, rth, span, holes=holes, as_json=as_json)
