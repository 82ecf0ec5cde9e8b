"""Limits: what they take, what they refuse, where they come from."""

from __future__ import annotations

import inspect
import math
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from bt_ibkr.errors import UsageError
from bt_ibkr.risk import CONTROLS, RiskLimits, parse_limits, read_limits
from bt_ibkr.risk.limits import KINDS, Kind

FIELDS = [name for name in RiskLimits.__struct_fields__ if name not in ("accounts", "strategies", "source")]
BAD: dict[Kind, tuple[Any, ...]] = {
    Kind.SIZE: (0, -1, math.nan, math.inf, "10", True, [1], Decimal("NaN")),
    Kind.MONEY: (0, -0.01, math.inf, "much", False),
    Kind.PERCENT: (0, -20, math.nan, "20 %"),
    Kind.COUNT: (0, -1, 1.5, Decimal(2), True, "3"),
    Kind.SECONDS: (0, -5, math.nan, "1s"),
    Kind.FLAG: (0, 1, "yes", "off", None),
    Kind.CONTRACTS: ("AAPL", (), [""], [1.5], [True], 265598),
    Kind.SECURITY_TYPES: ("STK", [], ["STOCK"], ["?"]),
    Kind.SIDES: ("BUY", [], ["LONG"], [1]),
}


def test_every_field_has_a_kind_and_a_control() -> None:
    assert list(KINDS) == FIELDS
    read = {field for control in CONTROLS for field in control.fields}
    assert read == set(FIELDS)


def test_every_field_is_documented() -> None:
    text = inspect.getdoc(RiskLimits) or ""
    assert [name for name in FIELDS if f"    {name}: " not in text] == []


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, kind in KINDS.items() for value in BAD[kind]]
)
def test_what_is_no_value(name: str, value: Any) -> None:
    with pytest.raises(UsageError) as caught:
        RiskLimits(**{name: value})
    assert name in caught.value.message
    assert caught.value.remedy


@pytest.mark.parametrize("name", [name for name, kind in KINDS.items() if kind.optional])
def test_off_is_no_limit(name: str) -> None:
    off: Any = "off"
    assert getattr(RiskLimits(**{name: off}), name) is None
    assert getattr(parse_limits(f'{name} = "off"', source="x"), name) is None


def test_numbers_are_the_decimals_that_were_written() -> None:
    limits = parse_limits("max_order_size = 0.3\nmax_order_notional = 10_000\n", source="x")
    assert (limits.max_order_size, limits.max_order_notional) == (Decimal("0.3"), Decimal(10_000))
    given: Any = 0.3
    assert RiskLimits(max_order_size=given).max_order_size == Decimal("0.3")


def test_defaults_are_safe_and_do_not_hinder() -> None:
    limits = RiskLimits()
    on = {name: getattr(limits, name) for name in FIELDS if getattr(limits, name) not in (None, False)}
    assert on == {
        "check_tick": True,
        "check_lot": True,
        "price_band_percent": 20,
        "orders_per_minute": 300,
    }


def test_one_account_and_one_strategy(tmp_path: Path) -> None:
    file = tmp_path / "risk.toml"
    file.write_text(
        'max_order_size = 100\nmax_open_orders = 20\n[accounts.U1]\nmax_order_size = 50\nallowed_sides = ["buy"]\n'
        '[strategies.slow]\nmax_order_size = "off"\n[strategies."two-2"]\nmax_order_size = 500\n',
        encoding="utf-8",
    )
    limits = read_limits(file)

    def sizes(account: str, strategy: str) -> list[Decimal | None]:
        return [scope.limits.max_order_size for scope in limits.scopes(account, strategy)]

    assert sizes("U2", "other") == [100]
    assert sizes("U1", "other") == [50]
    assert sizes("U2", "slow") == [None]
    # Both say something else: the order must hold to both.
    assert sorted(size or 0 for size in sizes("U1", "two-2")) == [50, 500]
    assert sizes("U1", "slow") == [50, None]
    scope = limits.scopes("U1", "other")[0]
    assert scope.limits.allowed_sides == ("BUY",)
    assert scope.place("max_order_size") == f"max_order_size in [accounts.U1] of {file}"
    assert scope.place("max_open_orders") == f"max_open_orders in {file}"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("max_ordr_size = 1", ("'max_ordr_size'", "max_order_size")),
        ("[accounts.U1]\nread_olny = true", ("risk.toml [accounts.U1]", "'read_olny'", "read_only")),
        ("[strategies.a]\nmax_order_size = 0", ("risk.toml [strategies.a]", "max_order_size = 0", "above 0")),
        ("[strategies.a]\ndaily_loss_limit = 5", ("daily_loss_limit", "whole account", "for an account")),
        ("[acounts.U1]\nread_only = true", ("'acounts'", "accounts")),
        ("colour = 1", ("'colour'", "max_order_size", "orders_per_minute")),
        ("accounts = 3", ("accounts = 3", "table")),
        ("[accounts]\nU1 = 3", ("[accounts.U1]", "table")),
        ("max_order_size = nan", ("max_order_size = NaN", "above 0")),
        ("max_order_size = inf", ("max_order_size = Infinity",)),
        ("source = 'x'", ("'source'",)),
        ("max_order_size = ,\n", ("not TOML", "line 1")),
        ("max_order_size = 1\nmax_order_size = 2", ("not TOML",)),
    ],
)
def test_a_file_that_is_wrong(tmp_path: Path, text: str, told: tuple[str, ...]) -> None:
    file = tmp_path / "risk.toml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError) as caught:
        read_limits(file)
    assert str(file) in caught.value.message
    assert caught.value.remedy
    assert [word for word in told if word not in str(caught.value)] == []


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        read_limits(tmp_path / "none.toml")
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="not text"):
        read_limits(tmp_path / "bytes.toml")


def test_limits_are_frozen() -> None:
    limits: Any = RiskLimits()
    with pytest.raises(AttributeError):
        limits.read_only = True
    wrong: dict[str, Any] = {"max_size": 1}
    with pytest.raises(TypeError):
        RiskLimits(**wrong)
