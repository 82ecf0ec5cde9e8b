"""docs/risk.md: its tables are the code's, its example is a file that is read."""

from __future__ import annotations

import inspect
import re
from decimal import Decimal
from pathlib import Path

from bt_ibkr.model.trading import Trading
from bt_ibkr.risk import CONTROLS, RiskLimits, Who, parse_limits
from bt_ibkr.risk.limits import KINDS, Kind
from bt_ibkr.risk.order_controls import BAND_TICKS
from bt_ibkr.risk.switch import PERSONS

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "risk.md").read_text(encoding="utf-8")


def controls_table() -> list[str]:
    """The table of controls, as the code would write it."""
    rows = ["| control | limits | refuses | what only reduces a position |", "|---|---|---|---|"]
    for control in CONTROLS:
        limits = ", ".join(f"`{field}`" for field in control.fields) or "the trading state"
        refuses = " ".join((inspect.getdoc(control) or "").split())
        held = "passes" if control.spares_reducing else "is held to it"
        rows.append(f"| `{control.name}` | {limits} | {refuses} | {held} |")
    return rows


def limits_table() -> list[str]:
    """The table of limits, as the code would write it."""
    rows = ["| limit | default | value | meaning |", "|---|---|---|---|"]
    text = inspect.getdoc(RiskLimits) or ""
    defaults = RiskLimits()
    for name, kind in KINDS.items():
        found = re.search(rf"^    {name}: (.*?)(?=^    \w+(?:, \w+)*: |^\S|\Z)", text, re.M | re.S)
        assert found, name
        rows.append(
            f"| `{name}` | {shown(getattr(defaults, name))} | {kind.value} | {' '.join(found[1].split())} |"
        )
    return rows


def shown(value: object) -> str:
    if value is None:
        return "off"
    return str(value).lower() if isinstance(value, bool) else f"{Decimal(str(value)):f}"


def test_the_table_of_controls_is_the_codes() -> None:
    assert "\n".join(controls_table()) in TEXT


def test_the_table_of_limits_is_the_codes() -> None:
    assert "\n".join(limits_table()) in TEXT


def test_the_example_is_read() -> None:
    (example,) = re.findall(r"```toml\n(.*?)```", TEXT, re.S)
    limits = parse_limits(example, source="risk.toml")
    assert limits.max_order_notional == 25_000
    assert [scope.limits.max_position_size for scope in limits.scopes("DU1234567", "sma_cross")] == [300, 100]
    assert limits.scopes("U7654321", "other")[0].limits.read_only
    assert limits.scopes("U7654321", "pairs")[0].limits.price_band_percent is None


def test_states_hands_and_numbers_are_told() -> None:
    assert all(f"| {mode.value.upper()} |" in TEXT for mode in Trading)
    assert all(f"`{who.value}" in TEXT for who in Who)
    told = {Who(word) for word in re.findall(r"`([a-z ]+)`", TEXT.split("Persons are ")[1].split(".")[0])}
    assert told == PERSONS
    assert f"at least {BAND_TICKS} price steps" in TEXT
    assert Kind.COUNT.value in TEXT
