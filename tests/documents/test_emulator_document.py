"""``docs/emulator.md`` names every operation, every fault and every argument of theirs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args

import pytest

from bt_ibkr.emulator.control.admin import AdminOperations
from bt_ibkr.emulator.faults.specs import AnySpec
from bt_ibkr.emulator.server import EmulatorServer
from bt_ibkr.emulator.settings import EmulatorSettings

TEXT = (Path(__file__).parents[2] / "docs" / "emulator.md").read_text(encoding="utf-8")


def described(name: str) -> str:
    """The row of a table that begins with a name, alone or among others."""
    rows = [line for line in TEXT.splitlines() if re.match(rf"\| [^|]*`{name}`", line)]
    assert rows, f"docs/emulator.md has no row for {name}"
    return " ".join(rows)


@pytest.fixture(scope="module")
def server() -> EmulatorServer:
    return EmulatorServer(EmulatorSettings(port=0, synthetic_instruments=("AAPL",), history_days=0))


def test_operations(server: EmulatorServer) -> None:
    for name in server.operations.names:
        described(name)


def test_arguments_of_operations(server: EmulatorServer) -> None:
    for name, (arguments, _) in AdminOperations(server.core).table().items():
        fields = [field for field in arguments.__struct_fields__ if f"`{field}`" not in described(name)]
        assert fields == [], name


@pytest.mark.parametrize("kind", get_args(AnySpec), ids=lambda kind: str(kind.__struct_config__.tag))
def test_faults(kind: Any) -> None:
    row = described(str(kind.__struct_config__.tag))
    missing = [
        field for field in kind.__struct_fields__ if f"`{field}`" not in row and f"`{field}`" not in TEXT
    ]
    assert missing == []
