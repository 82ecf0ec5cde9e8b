"""The names that the documentation shows exist in the emulator as it starts by itself."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from bt_ibkr.config import SessionSettings
from bt_ibkr.emulator.settings import EmulatorSettings
from bt_ibkr.emulator.testing import EmulatorThread
from bt_ibkr.errors import ContractError, ContractNotFoundError
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


@pytest.mark.parametrize(
    ("name", "near"),
    [
        # No day of December is listed: of the class what is, and not an ordinary option of another size.
        ("ES[ECES] 2026-12-18 YES 6700@CME", "ES[ECES] 20260302 C 6700@CME"),
        ("ES 2026-12-18 C 6700@CME", "ES MAR26 C 6700@CME"),
        ("ES[EW9] 2026-12-18 C 6700@CME", "ES[ES] 20260320 C 6700@CME (another class)"),
        ("ES[EW9] 2026-03-20 C 6700@CME", "ES[ES] 20260320 C 6700@CME (another class)"),
        ("IBM-CFD", "IBM-STK-NYSE (no CFD)"),
    ],
)
def test_near_names_are_of_the_same_kind_or_say_so(store: IBKRStore, name: str, near: str) -> None:
    with pytest.raises(ContractNotFoundError) as caught:
        store.connection.resolve(parse_dataname(name))
    assert near in caught.value.remedy
    if " MAR26 " not in near:
        # A month alone may mean several days; all else can be written as it was told.
        store.connection.resolve(parse_dataname(near.partition(" (")[0]))
    if "another class" not in near and "[" in name:
        assert "another class" not in caught.value.remedy
        assert caught.value.remedy.count("[ECES]") == caught.value.remedy.count(" C ")
