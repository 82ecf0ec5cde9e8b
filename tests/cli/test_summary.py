"""What a run's summary tells."""

from __future__ import annotations

import io

from rich.console import Console

from bt_ibkr.app.result import RunResult
from bt_ibkr.cli.telling import show_summary


def test_what_was_held_at_the_start_is_no_profit() -> None:
    """A run that takes a position over begins with its value, not with its cash alone."""
    told = RunResult(
        mode="paper", strategy="One", start_cash=950.0, start_value=1_000.0, cash=950.0, value=1_010.0
    )
    out = io.StringIO()
    show_summary(Console(file=out, width=80), told)
    (line,) = [line for line in out.getvalue().splitlines() if "profit" in line]
    assert "+10.00" in line
