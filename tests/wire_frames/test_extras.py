"""Further fields of market data: what each spelling means, and what stays of it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bt_ibkr.wire import tags
from bt_ibkr.wire.extras import Extras


def frame(**fields: Any) -> bytes:
    return json.dumps(
        {"topic": "smd+1"} | {name.lstrip("_"): value for name, value in fields.items()}
    ).encode()


def test_spellings() -> None:
    extras = Extras(tags.EXTRA_LINES, "STK")
    assert extras.merge(
        frame(_7636="12.2M", _7637="0.54%", _7283="24.5%", _7638="1,300", _7741="C193.18", _82=-0.5, _83=0.56)
    )
    assert extras.numbers == {
        "shortable_shares": 12.2e6,
        "fee_rate": 0.54,
        "implied_vol": 24.5,
        "open_interest": 1300.0,
        "prior_close": 193.18,
        "change": -0.5,
        "change_percent": 0.56,
    }


@pytest.mark.parametrize("text", ["", "-", "N/A", "None", "NaN"])
def test_what_is_not_available_has_no_value(text: str) -> None:
    extras = Extras({"fee_rate", "mark"}, "STK")
    extras.merge(frame(_7637="1.5%", _7635="100.0"))
    assert extras.merge(frame(_7637=text))
    assert extras.numbers == {"mark": 100.0}
    assert extras.gone == {"fee_rate"}
    assert not extras.merge(frame(_7637=text))
    assert extras.merge(frame(_7637="2%"))
    assert extras.gone == set()


def test_a_field_goes_by_the_type_of_the_contract() -> None:
    assert Extras({"open_interest", "implied_vol"}, "OPT").fields == ("7633", "7638")
    assert Extras({"open_interest", "implied_vol"}, "FUT").fields == ("7283", "7697")
    # Lines of the tick itself and what is counted here need no further field.
    assert Extras({"bid", "last_size", "vwap"}, "STK").fields == ()


def test_the_mapping_is_replaced_and_never_changed() -> None:
    extras = Extras({"mark", "delta"}, "OPT")
    extras.merge(frame(_7635="100"))
    first = extras.numbers
    assert not extras.merge(frame(_7635="100.00"))
    assert extras.numbers is first
    assert extras.merge(frame(_7308="0.5"))
    assert first == {"mark": 100.0}
    assert extras.numbers == {"mark": 100.0, "delta": 0.5}


def test_texts() -> None:
    extras = Extras({"shortable"}, "STK")
    assert extras.merge(frame(_7644="Available"))
    assert extras.texts == {"shortable": "Available"}
    assert extras.numbers == {}


def test_the_average_price_begins_anew_with_a_day() -> None:
    extras = Extras({"vwap"}, "STK")
    assert extras.traded(100.0, 300.0, 1_000.0)
    assert extras.traded(104.0, 100.0, 1_100.0)
    assert extras.numbers["vwap"] == pytest.approx(101.0)
    assert not extras.traded(None, 100.0, 1_200.0)
    assert extras.traded(50.0, 10.0, 10.0)
    assert extras.numbers["vwap"] == pytest.approx(50.0)


def test_a_strange_text_is_told_once_and_passed_over(caplog: pytest.LogCaptureFixture) -> None:
    extras = Extras({"mark", "delta"}, "OPT")
    for _ in range(3):
        extras.merge(frame(_7635="soon", _7308="0.5"))
    assert extras.numbers == {"delta": 0.5}
    assert sum("extra-field-unreadable" in one.message for one in caplog.records) == 1
    assert not extras.merge(b'{"7635":')


def test_names_that_are_not_there() -> None:
    with pytest.raises(KeyError):
        Extras({"beauty"}, "STK")


@given(
    st.lists(
        st.dictionaries(st.sampled_from(["7635", "7308", "7637"]), st.sampled_from(["1", "2.5", "N/A", ""])),
        max_size=12,
    )
)
def test_any_order_of_frames_leaves_the_last_of_each_field(frames: list[dict[str, str]]) -> None:
    extras = Extras({"mark", "delta", "fee_rate"}, "OPT")
    wanted: dict[str, str] = {}
    names = {"7635": "mark", "7308": "delta", "7637": "fee_rate"}
    for one in frames:
        extras.merge(json.dumps(one).encode())
        wanted |= {names[tag]: text for tag, text in one.items()}
    assert extras.numbers == {name: float(text) for name, text in wanted.items() if text in ("1", "2.5")}
    assert extras.gone == {name for name, text in wanted.items() if text in ("N/A", "")}
