"""docs/cli.md tells every option of ``bt-ibkr hub``, docs/hub.md every word of its files; the examples are usable."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
import typer.main

from bt_ibkr.app.hub_file import SessionTable, read_hub_file
from bt_ibkr.app.hub_plan import HubTable, LogsTable, StrategyTable, read_plan
from bt_ibkr.cli.hub import hub
from bt_ibkr.config import SessionSettings
from bt_ibkr.emulator.settings import EmulatorSettings
from bt_ibkr.emulator.testing import EmulatorThread
from bt_ibkr.hub.access import Grant
from bt_ibkr.hub.config import HubSettings
from bt_ibkr.hub.thread import HubThread

ROOT = Path(__file__).resolve().parents[2]
SECTION = (
    (ROOT / "docs" / "cli.md").read_text(encoding="utf-8").split("## `bt-ibkr hub`")[1].split("\n## ")[0]
)
PAGE = (ROOT / "docs" / "hub.md").read_text(encoding="utf-8")
EXAMPLES = ROOT / "docs" / "examples" / "hub"


def test_options_are_told() -> None:
    group = typer.main.get_command(hub)
    commands = [group, *group.commands.values()]  # type: ignore[attr-defined]
    real = {
        name
        for command in commands
        for parameter in command.params
        for name in (*parameter.opts, *parameter.secondary_opts)
        if name.startswith("--")
    }
    rows = [line.split("|")[1] for line in SECTION.splitlines() if line.startswith("|")]
    assert {name for row in rows for name in re.findall(r"--[a-z-]+[a-z]", row)} == real - {"--help"}
    for command in group.commands:  # type: ignore[attr-defined]
        assert f"`bt-ibkr hub {command}" in SECTION


def _words(heading: str) -> dict[str, set[str]]:
    """Words of each table that a section's table lists."""
    section = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    found: dict[str, set[str]] = {}
    table = ""
    for line in section.splitlines():
        if line.startswith("| ") and "---" not in line and not line.startswith("| table"):
            cells = line.split("|")
            table = cells[1].strip() or table
            found.setdefault(table, set()).update(re.findall(r"`([a-z_]+)`", cells[2]))
    return found


def _fields(kind: type[msgspec.Struct]) -> set[str]:
    return set(kind.__struct_fields__)


def test_words_of_the_hubs_file_are_told() -> None:
    told = _words("Configuration")
    assert told["`[hub]`"] == _fields(HubSettings) - {"secret_key", "strategies"} | {"key_file"}
    assert told["`[session]`"] == _fields(SessionTable)
    assert told["`[strategies.NAME]`"] == _fields(Grant)


def test_words_of_the_strategies_file_are_told() -> None:
    told = _words("Strategies together")
    assert told["`[hub]`"] == _fields(HubTable)
    assert told["`[logs]`"] == _fields(LogsTable)
    assert told["`[strategies.NAME]`, `[defaults]`"] == _fields(StrategyTable)


def test_defaults_are_told_as_they_are() -> None:
    for kind, told in (
        (HubSettings, {"ring": "8192", "queue": "20000", "stale_s": "10"}),
        (Grant, {"vanish_s": "60"}),
        (StrategyTable, {"stop_s": "15"}),
    ):
        defaults = {field.name: field.default for field in msgspec.structs.fields(kind)}
        for name, text in told.items():
            assert f"`{name}` | {text} |" in PAGE
            assert float(text) == defaults[name]


def test_examples_can_be_read(tmp_path: Path) -> None:
    for name in ("hub.toml", "strategies.toml"):
        copy = tmp_path / name
        copy.write_text((EXAMPLES / name).read_text(encoding="utf-8"), encoding="utf-8")
        copy.chmod(0o600)
    file = read_hub_file(str(tmp_path / "hub.toml"))
    assert sorted(file.settings.strategies) == ["alpha", "viewer"]
    assert file.risk.strategies.keys() == {"alpha"}
    plan = read_plan(str(tmp_path / "strategies.toml"), endpoint="ipc:///tmp/hub")
    assert [one.name for one in plan.strategies] == ["alpha", "viewer"]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_units_are_units(tmp_path: Path) -> None:
    for unit in EXAMPLES.glob("*.service"):
        text = unit.read_text(encoding="utf-8").replace("/opt/bt-ibkr/bin/bt-ibkr", "/bin/true")
        copy = tmp_path / unit.name
        copy.write_text(text, encoding="utf-8")
        done = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", str(copy)], capture_output=True, text=True, check=False
        )
        said = [line for line in done.stderr.splitlines() if unit.name in line]
        assert not said, said


def test_the_program_of_ones_own_sees_ticks(tmp_path: Path) -> None:
    market = EmulatorSettings(speed=60.0, synthetic_instruments=("AAPL",), pacing="off")
    with (
        EmulatorThread(market) as emulator,
        HubThread(
            SessionSettings(base_url=emulator.url, paced=False), HubSettings(endpoint=f"ipc://{tmp_path}/hub")
        ) as running,
    ):
        environment = {"BT_IBKR_HUB": running.endpoint, "BT_IBKR_NAME": "viewer"}
        with subprocess.Popen(
            [sys.executable, str(EXAMPLES / "viewer.py")],
            env=os.environ | environment,
            stdout=subprocess.PIPE,
            text=True,
        ) as viewer:
            assert viewer.stdout is not None
            try:
                said = [viewer.stdout.readline() for _ in range(5)]
            finally:
                viewer.kill()
    assert all(re.fullmatch(r"2026-03-02T[\d:.]+ \d+\.\d+\n", line) for line in said), said[-3:]
