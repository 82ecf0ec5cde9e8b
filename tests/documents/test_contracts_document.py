"""docs/contracts.md: every name in it can be parsed, what it says of types and ages is the code's."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bt_ibkr.model.contract import SecurityType
from bt_ibkr.services.contract_cache import AGES_S
from bt_ibkr.services.datanames import format_query, parse_dataname

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "contracts.md").read_text(encoding="utf-8")
ROWS = [line.split("|") for line in TEXT.split("## Names")[1].split("\n## ")[0].splitlines() if "`" in line]
KINDS = {
    "stock": {SecurityType.STOCK},
    "currency pair": {SecurityType.FOREX},
    "future": {SecurityType.FUTURE},
    "continuous future": {SecurityType.FUTURE},
    "option": {SecurityType.OPTION, SecurityType.FUTURE_OPTION},
    "option on a future": {SecurityType.OPTION, SecurityType.FUTURE_OPTION},
    "of one trading class": {SecurityType.OPTION},
    "index": {SecurityType.INDEX},
    "CFD": {SecurityType.CFD},
    "fund": {SecurityType.FUND},
    "bond": {SecurityType.BOND},
    "cryptocurrency": {SecurityType.CRYPTO},
    "commodity": {SecurityType.COMMODITY},
    "event contract of ForecastEx": {SecurityType.OPTION},
    "event contract of CME": {SecurityType.OPTION},
    "anything": {SecurityType.STOCK},
    "combo": {SecurityType.COMBO},
}
NAMES = [(row[1].strip(), name) for row in ROWS if len(row) > 2 for name in re.findall(r"`([^`]+)`", row[2])]


def test_every_kind_has_a_row() -> None:
    assert {kind for kind, _ in NAMES} == KINDS.keys()


@pytest.mark.parametrize(("kind", "name"), NAMES)
def test_names_mean_what_the_table_says(kind: str, name: str) -> None:
    query = parse_dataname(name)
    assert query.security_type in KINDS[kind]
    assert (query.roll is not None) is (kind == "continuous future")
    again = parse_dataname(format_query(query))
    assert (again.symbol, again.expiry, again.strike, again.right) == (
        query.symbol, query.expiry, query.strike, query.right,
    )  # fmt: skip


def test_ages() -> None:
    """Seven days and one day are all there is."""
    week, day = 7 * 24 * 3600, 24 * 3600
    assert {kind for kind, age in AGES_S.items() if age == week} == {
        "details",
        "stocks",
        "pairs",
        "definitions",
    }
    assert set(AGES_S.values()) == {week, day}
    assert "after 7 days" in TEXT
    assert "after one day" in TEXT
