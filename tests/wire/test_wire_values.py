"""Numbers and times as IBKR writes them."""

from __future__ import annotations

import math
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bt_ibkr.clock import NS_PER_MS, NS_PER_S
from bt_ibkr.errors import WireError
from bt_ibkr.model import DataQuality, Side
from bt_ibkr.wire import fields, values

ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.lists(st.none(), max_size=1),
    st.from_regex(r"[CH]?[-+]?[0-9,]{0,6}\.?[0-9]{0,4}[KMBT%]?", fullmatch=True),
    st.just(10**4000),
)
LATEST_S = 7_258_118_400


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("193.18", 193.18),
        ("1,300", 1300.0),
        ("12.2M", 12.2e6),
        ("2.4K", 2400.0),
        ("0.54%", 0.54),
        ("-3", -3.0),
        (".5", 0.5),
        ("5.", 5.0),
        ("1.22E7", 1.22e7),
        (" 7 ", 7.0),
        (7, 7.0),
        ("N/A", None),
        ("-", None),
        ("", None),
        (None, None),
        (float("nan"), None),
        (float("inf"), None),
    ],
)
def test_numbers(text: object, value: float | None) -> None:
    found = values.number(text)
    assert found == value if value is None else found == pytest.approx(value)


@pytest.mark.parametrize(
    "text", ["inf", "1_0", "٣", "1.2.3", "abc", "%", "M", True, [], {}, "1e999", 10**400]
)
def test_no_numbers(text: object) -> None:
    with pytest.raises(WireError):
        values.number(text)


@given(ANYTHING)
def test_readers_give_a_value_or_a_wire_error(value: object) -> None:
    for read in (
        values.number,
        values.decimal,
        values.ns_from_ms,
        values.ns_from_text,
        values.price,
        fields.integer,
        fields.conid,
        fields.order_id,
        fields.identifier,
        fields.flag,
        fields.amount,
        fields.quantity,
        fields.side,
        fields.epoch_ns,
    ):
        try:
            found = read(value, "field")
        except WireError:
            continue
        if isinstance(found, float):
            assert math.isfinite(found)
        if isinstance(found, Decimal):
            assert found.is_finite()
    fields.text(value)
    assert len(fields.show(value)) < 400


@given(st.floats(min_value=-1e12, max_value=1e12))
def test_a_number_survives_its_text(number: float) -> None:
    assert values.number(repr(number)) == number
    assert values.number(f"{number:,.4f}") == pytest.approx(number, abs=1e-4)
    exact = values.decimal(number)
    assert exact is not None
    assert float(exact) == number


@given(st.decimals(min_value=Decimal("-1e9"), max_value=Decimal("1e9"), places=6))
def test_decimals_are_exact(number: Decimal) -> None:
    assert values.decimal(f"{number:f}") == number
    assert values.decimal(f"{number:,f}") == number


def test_decimals_add_up() -> None:
    parts = [values.decimal(0.1) for _ in range(3)]
    assert sum((part for part in parts if part is not None), Decimal(0)) == Decimal("0.3")
    assert values.decimal("2.4K") == Decimal(2400)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("C193.18", (193.18, "C")),
        ("H1,000.5", (1000.5, "H")),
        ("5", (5.0, "")),
        (5, (5.0, "")),
        ("C", (None, "C")),
    ],
)
def test_prices(text: object, expected: tuple[float | None, str]) -> None:
    assert values.price(text) == expected


@pytest.mark.parametrize(
    ("code", "quality"),
    [
        ("RpB", DataQuality.REALTIME),
        ("DPB", DataQuality.DELAYED),
        ("ZB", DataQuality.FROZEN),
        ("S", DataQuality.UNKNOWN),
        ("", DataQuality.UNKNOWN),
        (None, DataQuality.UNKNOWN),
    ],
)
def test_quality(code: str | None, quality: DataQuality) -> None:
    assert values.quality(code) is quality


@given(st.integers(0, LATEST_S - 1))
def test_times_survive_their_text(seconds: int) -> None:
    moment = seconds * NS_PER_S
    assert values.ns_from_text(values.history_time_text(moment)) == moment
    assert values.ns_from_ms(seconds * 1000) == moment
    assert values.ns_from_ms(str(seconds * 1000)) == moment


def test_times() -> None:
    assert values.ns_from_text("20260429-14:29:34") == 1777472974 * NS_PER_S
    assert values.ns_from_text("260430123533") == 1777552533 * NS_PER_S
    assert values.ns_from_text("") is None
    assert values.ns_from_ms(1777552533001) == 1777552533001 * NS_PER_MS
    assert fields.epoch_ns(1775169606, "t") == fields.epoch_ns("1775169606000", "t") == 1775169606 * NS_PER_S


@pytest.mark.parametrize(
    "text", ["20261301", "00010101", "99991231", "20260429 14:29:34", 5, "x" * 17, "٠" * 8]
)
def test_no_times(text: object) -> None:
    with pytest.raises(WireError):
        values.ns_from_text(text)


@pytest.mark.parametrize("value", [-1, 10**15, "x", True])
def test_no_milliseconds(value: object) -> None:
    with pytest.raises(WireError):
        values.ns_from_ms(value)


def test_ids() -> None:
    assert fields.conid("265598@NASDAQ") == fields.conid(265598.0) == fields.conid(" 265598 ") == 265598
    assert fields.conid(-1) is None
    assert fields.order_id("0") is None
    assert fields.order_id(912091175) == fields.order_id("912091175") == "912091175"
    assert fields.side("sld") is Side.SELL
    assert fields.flag("False", "f") is False


@pytest.mark.parametrize("wrong", [-7, True, 1.5, 2**63, "12a", []])
def test_no_ids(wrong: object) -> None:
    with pytest.raises(WireError):
        fields.conid(wrong)
