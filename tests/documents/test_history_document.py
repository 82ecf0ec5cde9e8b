"""docs/cli.md tells every option of ``bt-ibkr history``, and no other; docs/history.md names what there is."""

from __future__ import annotations

import re
from pathlib import Path

import typer.main

from bt_ibkr.archive import Columns, SeriesKey
from bt_ibkr.archive.series import BAR_LENGTHS, SOURCES
from bt_ibkr.cli.history import history

DOCS = Path(__file__).resolve().parents[2] / "docs"
SECTION = (DOCS / "cli.md").read_text(encoding="utf-8").split("## `bt-ibkr history`")[1].split("\n## ")[0]
PAGE = (DOCS / "history.md").read_text(encoding="utf-8")


def test_options_are_told() -> None:
    group = typer.main.get_command(history)
    real = {
        name
        for command in group.commands.values()  # type: ignore[attr-defined]
        for parameter in command.params
        for name in (*parameter.opts, *parameter.secondary_opts)
        if name.startswith("--")
    }
    rows = [line.split("|")[1] for line in SECTION.splitlines() if line.startswith("|")]
    assert {name for row in rows for name in re.findall(r"--[a-z-]+[a-z]", row)} == real - {"--help"}


def test_commands_lengths_and_sources_are_told() -> None:
    group = typer.main.get_command(history)
    for command in group.commands:  # type: ignore[attr-defined]
        assert f"`bt-ibkr history {command}" in SECTION
    for word in (*BAR_LENGTHS, *SOURCES):
        assert f"`{word}`" in SECTION


def test_the_page_tells_folders_and_columns() -> None:
    key = SeriesKey(conid=265598, bar="1min")
    assert key.folder.as_posix() in PAGE
    for column in ("ts", *Columns._fields[1:]):
        assert f"`{column}`" in PAGE
