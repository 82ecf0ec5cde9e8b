"""The command ``record``: every tick into files, until told to end."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bt_ibkr.cli.options import (
    Json,
    text_option,
    visits,
)
from bt_ibkr.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from bt_ibkr.app.tick_recording import Followed, RecordingResult, RecordWishes
    from bt_ibkr.app.visit import Address
    from bt_ibkr.recorder import RecorderCounts

#: Ticks are missing in what was recorded.
_EXIT_INCOMPLETE = 10
#: How often the line of progress is written where there is no terminal, seconds.
_PLAIN_S = 60.0


@visits()
def record(
    datanames: Annotated[list[str], typer.Argument(metavar="DATANAME…", help="Instruments to record.")],
    out: Annotated[
        str, text_option(metavar="DIR", help="Folder of the recording; it may hold earlier ones.")
    ],
    length: Annotated[str, text_option("--for", help="For so long: 30s, 90min, 2h, 1d.")] = "",
    until: Annotated[str, text_option(help="Until this time, ISO 8601, UTC.")] = "",
    *,
    address: Address,
    as_json: Json = False,
) -> Callable[[], int]:
    """Record every tick of instruments as Parquet, until Ctrl-C."""
    from bt_ibkr.app.market import parse_moment
    from bt_ibkr.app.tick_recording import RecordWishes, parse_length

    if len(set(datanames)) != len(datanames):
        raise UsageError("An instrument is named a second time.", remedy="Name each once.")
    wishes = RecordWishes(
        datanames=tuple(datanames),
        folder=out,
        length_ns=parse_length(length) if length else 0,
        until_ns=parse_moment(until) if until else 0,
    )
    return partial(record_command, address, wishes, as_json=as_json)


def record_command(address: Address, wishes: RecordWishes, *, as_json: bool) -> int:
    """Record and tell; SIGINT and SIGTERM end it in order, a second one at once."""
    from rich.console import Console

    from bt_ibkr.app.request import Stopper
    from bt_ibkr.app.tick_recording import record_ticks
    from bt_ibkr.cli.output import to_json

    stopper = Stopper()

    def end(number: int, frame: FrameType | None) -> None:
        if stopper.asked or not stopper.attached:
            raise KeyboardInterrupt
        stopper()

    # With --json nothing but the result may be on standard output.
    console = Console(stderr=as_json, soft_wrap=True, highlight=False)
    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    told = _Told(console)
    try:
        result = record_ticks(address, wishes, told, stopper)
    except KeyboardInterrupt:
        told.close()
        sys.stderr.write("interrupted\n")
        return 128 + signal.SIGINT
    finally:
        told.close()
        for number, handler in before.items():
            signal.signal(number, handler)
    if as_json:
        sys.stdout.write(to_json(result) + "\n")
    else:
        _show(console, result)
    return _EXIT_INCOMPLETE if result.errors else 0


class _Told:
    """Tells a recording as it goes: a line that is written anew on a terminal, one a minute elsewhere."""

    def __init__(self, console: Console) -> None:
        from rich.live import Live

        self._console = console
        self._live = (
            Live(console=console, refresh_per_second=4, transient=True) if console.is_terminal else None
        )
        self._last = (time.monotonic(), 0)
        self._rate = 0.0
        self._next = time.monotonic() + _PLAIN_S

    def on_begin(self, followed: tuple[Followed, ...]) -> None:
        from rich.markup import escape

        for one in followed:
            self._console.print(
                f"records   {escape(one.contract)} [dim]({escape(one.name)})[/] {one.quality}"
            )
        if self._live is not None:
            self._live.start()

    def on_progress(self, counts: RecorderCounts, now_ns: int) -> None:
        now, (at, ticks) = time.monotonic(), self._last
        if now - at >= 1.0:
            self._rate = (counts.ticks - ticks) / (now - at)
            self._last = (now, counts.ticks)
        if self._live is not None:
            self._live.update(self._line(counts, now_ns))
        elif now >= self._next:
            self._next = now + _PLAIN_S
            self._console.print(self._line(counts, now_ns))

    def _line(self, counts: RecorderCounts, now_ns: int) -> str:
        from rich.markup import escape

        from bt_ibkr.app.result import utc_text

        text = (
            f"{utc_text(now_ns)[:19].replace('T', ' ')}  {counts.ticks:,} ticks  {self._rate:,.0f}/s  "
            f"{_size(counts.bytes)} in {counts.files} files"
        )
        if counts.dropped:
            text += f"  [bold red]{counts.dropped:,} dropped[/]"
        return text + (f"  [bold red]{escape(counts.problem)}[/]" if counts.problem else "")

    def on_event(self, message: str, text: str) -> None:
        from rich.markup import escape

        self._console.print(f"[cyan]session   {escape(message)} {escape(text)}[/]")

    def close(self) -> None:
        if self._live is not None:
            self._live.stop()


def _size(count: int) -> str:
    for unit, limit in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= limit:
            return f"{count / limit:.1f} {unit}"
    return f"{count} B"


def _show(console: Console, result: RecordingResult) -> None:
    from rich.markup import escape

    from bt_ibkr.cli.tables import show_table

    rows: list[tuple[Any, ...]] = [
        (one.contract, one.name, one.quality, one.ticks) for one in result.instruments
    ]
    title = f"Recorded into {result.folder}"
    show_table(console, title, ("instrument", "as", "data", "ticks"), rows, empty="nothing was recorded")
    gaps = f", {result.gaps} gap{'s' if result.gaps > 1 else ''}" if result.gaps else ""
    console.print(f"{result.ticks:,} ticks, {_size(result.bytes)} in {result.files} files{gaps}")
    for error in result.errors:
        console.print(f"[bold red]error:[/] {escape(error)}")


#: As they are listed.
COMMANDS = (record,)
