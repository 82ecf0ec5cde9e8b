"""docs/cli.md tells every option and every exit code, and no other."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import typer.main

from bt_ibkr import errors
from bt_ibkr.cli.commands import app

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "cli.md").read_text(encoding="utf-8")


def _section(heading: str) -> str:
    return TEXT.split(f"## {heading}")[1].split("\n## ")[0]


@pytest.mark.parametrize(
    ("commands", "heading"),
    [
        (("run",), "`bt-ibkr run STRATEGY`"),
        (("record",), "`bt-ibkr record DATANAME…`"),
        (("doctor",), "`bt-ibkr doctor`"),
        (("orders", "positions", "trades", "whatif"), "Looking at an account"),
        (("cancel", "halt", "flatten", "resume"), "Acting on an account"),
        (("journal",), "`bt-ibkr journal`"),
        (("contracts",), "`bt-ibkr contracts`"),
        (("emulator",), "`bt-ibkr emulator`"),
    ],
)
def test_options_are_told(commands: tuple[str, ...], heading: str) -> None:
    group = typer.main.get_command(app)
    real = {
        name
        for command in commands
        for parameter in _parameters(group.commands[command])  # type: ignore[attr-defined]
        for name in (*parameter.opts, *parameter.secondary_opts)
        if name.startswith("--")
    }
    rows = [line.split("|")[1] for line in _section(heading).splitlines() if line.startswith("|")]
    told = {name for row in rows for name in re.findall(r"--[a-z-]+[a-z]", row)}
    assert told == real - {"--help"}


def _parameters(command: Any) -> list[Any]:
    """Of a command, or of all commands of a group."""
    below = [one for inner in getattr(command, "commands", {}).values() for one in inner.params]
    return [*command.params, *below]


def test_every_command_is_told() -> None:
    for command in typer.main.get_command(app).commands:  # type: ignore[attr-defined]
        assert f"`bt-ibkr {command}" in TEXT or f"| `{command}" in TEXT, command


def test_exit_codes_are_told() -> None:
    rows = [line.split("|")[1] for line in _section("Exit codes").splitlines() if line.startswith("|")]
    told = {int(number) for row in rows for number in re.findall(r"\d+", row)}
    classes = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    codes = {kind.exit_code for kind in classes if issubclass(kind, errors.BtIbkrError)}
    # Success; the books disagree; two signals; nobody reads the output.
    assert told == codes | {0, 10, 130, 141, 143}


def test_error_tree_of_the_module_names_every_class_but_the_port() -> None:
    tree = errors.__doc__ or ""
    names = [name for name, kind in vars(errors).items() if isinstance(kind, type) and name.endswith("Error")]
    assert [name for name in names if name not in tree] in ([], ["PortInUseError"])
