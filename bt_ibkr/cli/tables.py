"""Tables and plain objects of the commands that look at an account or act on it."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from bt_ibkr.app.cancelling import OVER, Cancelled
from bt_ibkr.app.result import utc_text
from bt_ibkr.cli.output import to_json
from bt_ibkr.model.trading import Trading, TradingState

_COLOURS = {Trading.ACTIVE: "green", Trading.REDUCING: "yellow", Trading.HALTED: "bold red"}


def console() -> Console:
    """Standard output, for people."""
    return Console(soft_wrap=True, highlight=False)


def put_json(value: Any) -> None:
    """The one object of ``--json``."""
    sys.stdout.write(to_json(value) + "\n")


def show_table(
    out: Console, title: str, headings: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str
) -> None:
    """A table whose numbers stand at the right; without rows a line that says so."""
    listed = list(rows)
    if not listed:
        out.print(f"[dim]{escape(empty)}[/]")
        return
    out.print(make_table(title, headings, listed))


def make_table(title: str, headings: Sequence[str], rows: Sequence[Sequence[object]]) -> Table:
    """A table whose numbers stand at the right; a cell that is a ``Text`` keeps its style."""
    listed = [[_text(cell) for cell in row] for row in rows]
    table = Table(
        title=escape(title), title_justify="left", box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0)
    )
    for index, heading in enumerate(headings):
        cells = [row[index] for row in listed if row[index]]
        right = bool(cells) and all(_is_number(cell) for cell in cells)
        table.add_column(heading, justify="right" if right else "left", overflow="fold")
    for row, texts in zip(rows, listed, strict=True):
        table.add_row(
            *(cell if isinstance(cell, Text) else escape(text) for cell, text in zip(row, texts, strict=True))
        )
    return table


def _text(cell: object) -> str:
    if cell is None:
        return ""
    if isinstance(cell, Decimal):
        return f"{cell:f}"
    if isinstance(cell, float):
        return f"{cell:,.4f}".rstrip("0").rstrip(".")
    return str(cell)


def _is_number(text: str) -> bool:
    try:
        float(text.replace(",", ""))
    except ValueError:
        return False
    return True


def moment(time_ns: int) -> str:
    """``2026-03-02 14:30:00``, for people."""
    return utc_text(time_ns)[:19].replace("T", " ") if time_ns else ""


def number(value: Decimal | float | None) -> float | None:
    """As JSON has it."""
    return None if value is None else float(value)


def trading_row(state: TradingState) -> dict[str, Any]:
    """As JSON has it."""
    return {
        "mode": state.mode.value,
        "reason": state.reason,
        "by": state.by,
        "since": utc_text(state.since_ns) if state.since_ns else None,
    }


def trading_markup(state: TradingState, where: str = "") -> str:
    """The trading state in a line, as rich's markup."""
    colour = _COLOURS[state.mode]
    why = f": {state.reason}" if state.reason else ""
    by = f", by {state.by}" if state.by else ""
    since = f", since {moment(state.since_ns)} UTC" if state.since_ns else ""
    return f"[{colour}]{state.mode.value}[/]{escape(where + since + by + why)}"


def show_trading(out: Console, where: str, state: TradingState) -> None:
    """One line on the trading state."""
    out.print(trading_markup(state, f"  {where}"))


def show_cancelled(out: Console, lines: Sequence[Cancelled]) -> None:
    """What became of orders that were to be cancelled."""
    show_table(
        out,
        "Cancelled orders",
        ("order", "id", "what", "result", "note"),
        ((one.key or "(other program)", one.order_id, one.what, one.result.value, one.text) for one in lines),
        empty="no open orders",
    )


def undone(lines: Sequence[Cancelled]) -> list[str]:
    """What is still open, in words."""
    return [
        f"Order {one.key or one.order_id} ({one.what}) may still execute: its cancellation is {one.result.value}"
        + (f", {one.text}." if one.text else ".")
        for one in lines
        if one.result not in OVER
    ]


def show_errors(errors: Sequence[str]) -> None:
    """On standard error, as every error."""
    out = Console(stderr=True, soft_wrap=True, highlight=False)
    for error in errors:
        out.print(f"[bold red]error:[/] {escape(error)}")
