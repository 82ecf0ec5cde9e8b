"""docs/market-data.md: its tables are the code's."""

from __future__ import annotations

import re
from pathlib import Path

from bt_ibkr.config import SessionSettings
from bt_ibkr.model.market import Missing, Tick
from bt_ibkr.services import marketdata
from bt_ibkr.wire import tags

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "market-data.md").read_text(encoding="utf-8")


def rows(heading: str) -> list[list[str]]:
    """The cells of the table under a column heading, without backquotes."""
    _, _, after = TEXT.partition(f"| {heading} |")
    lines = after.split("\n\n")[0].splitlines()[2:]
    return [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in lines]


def test_lines_are_those_that_there_are() -> None:
    wanted = [
        [name, "counted here", ""] if name == "vwap" else [name, tag, tags.NAMES[tag]]
        for name, tag in tags.EXTRA_LINES.items()
        if name not in tags.TICK_LINES
    ]
    assert rows("line") == wanted


def test_attributes_are_those_of_a_tick() -> None:
    named = {name for row in rows("attribute") for name in re.findall(r"\w+", row[0])}
    others = {"sizes"}
    assert named - others <= set(Tick.__struct_fields__)
    told = TEXT.split("## Further fields")[0]
    for reason in Missing:
        assert f"`{reason.value}`" in told


def test_settings_have_these_defaults() -> None:
    settings = SessionSettings()
    assert [(row[0], row[1]) for row in rows("`SessionSettings`")] == [
        (name, str(getattr(settings, name)))
        for name in ("market_data_lines", "lines_overflow", "clear_lines")
    ]
    assert marketdata._RESERVED == 10
