"""``docs/emulator.md`` names every operation, fault and argument, and all columns of a table of instruments."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args

import pytest

from bt_ibkr.emulator.control.admin import AdminOperations
from bt_ibkr.emulator.faults.specs import AnySpec
from bt_ibkr.emulator.market.holidays import CALENDARS
from bt_ibkr.emulator.server import EmulatorServer
from bt_ibkr.emulator.settings import EmulatorSettings
from bt_ibkr.emulator.universe_futures import PRODUCTS
from bt_ibkr.emulator.universe_table import COLUMNS
from bt_ibkr.model.contract import SecurityType

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


@pytest.mark.parametrize("column", COLUMNS)
def test_columns_of_a_table(column: str) -> None:
    described(column)


def test_calendars_types_and_products() -> None:
    calendars, types = described("calendar"), described("security_type")
    assert [one for one in CALENDARS if f"`{one}`" not in calendars] == []
    untold = (SecurityType.UNKNOWN, SecurityType.COMBO)
    assert [one.value for one in SecurityType if one not in untold and f"`{one.value}`" not in types] == []
    words = set(re.findall(r"[A-Z0-9]+", described("FUT")))
    assert [one.symbol for one in PRODUCTS if one.symbol not in words] == []
