"""The names that the documentation shows exist in the emulator as it starts by itself."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from bt_ibkr.config import SessionSettings
from bt_ibkr.emulator.settings import EmulatorSettings
from bt_ibkr.emulator.testing import EmulatorThread
from bt_ibkr.errors import ContractError
from bt_ibkr.services.datanames import parse_dataname
from bt_ibkr.store import IBKRStore

PAGE = Path(__file__).resolve().parents[2] / "docs" / "contracts.md"


def documented() -> list[str]:
    """Every form in the table of names but those that only IBKR has."""
    table = PAGE.read_text().partition("| instrument | forms |")[2].partition("\n\n")[0]
    rows = [row.partition("at IBKR:")[0] for row in table.splitlines()[2:]]
    forms = [form for row in rows for form in re.findall(r"`([^`]+)`", row)]
    assert len(forms) > 30
    return forms


@pytest.fixture(scope="module")
def store() -> Iterator[IBKRStore]:
    with (
        EmulatorThread(EmulatorSettings(speed="lockstep", pacing="off")) as emulator,
        IBKRStore(
            settings=SessionSettings(base_url=emulator.url, pacing_speed=600.0), journal=":memory:"
        ) as store,
    ):
        store.start()
        yield store


def test_documented_names_exist(store: IBKRStore) -> None:
    missing = {}
    for form in documented():
        try:
            store.connection.resolve(parse_dataname(form))
        except ContractError as problem:
            missing[form] = str(problem)
    assert not missing
