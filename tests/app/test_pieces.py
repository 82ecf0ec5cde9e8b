"""Loading of strategies, parameters, moments, bar lengths, requests."""

from __future__ import annotations

import contextlib
import math
import re
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import backtrader as bt
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bt_ibkr.app.loading import checked, load_strategy, strategy_parameters
from bt_ibkr.app.market import BarLength, market_bars, parse_moment
from bt_ibkr.app.request import RunRequest, emulator_settings, instruments_of
from bt_ibkr.app.result import utc_text
from bt_ibkr.errors import BtIbkrError, OrderRefusedError, StrategyError, UsageError
from bt_ibkr.strategies import SHIPPED, SmaCross


class Every(bt.Strategy):  # type: ignore[misc]
    params = (("count", 3), ("rate", 0.5), ("loud", False), ("word", "a"))


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_strategies_load_by_name_and_by_module(name: str) -> None:
    cls = load_strategy(name)
    assert cls is SHIPPED[name]
    assert load_strategy(f"bt_ibkr.strategies.{name}:{cls.__name__}") is cls
    assert load_strategy(f"bt_ibkr.strategies.{name}") is cls


def test_strategy_by_file(tmp_path: Path) -> None:
    file = tmp_path / "one.py"
    file.write_text("import backtrader as bt\nclass One(bt.Strategy): pass\n")
    assert load_strategy(str(file)).__name__ == "One"
    assert load_strategy(f"{file}:One").__name__ == "One"
    # An imported class is none of the file's own.
    file.write_text("from bt_ibkr.strategies import SmaCross\nclass Mine(SmaCross): pass\n")
    assert load_strategy(str(file)).__name__ == "Mine"
    assert load_strategy(f"{file}:SmaCross") is SmaCross


def test_class_that_is_no_strategy(tmp_path: Path) -> None:
    file = tmp_path / "one.py"
    file.write_text("class One: pass\n")
    with pytest.raises(StrategyError, match="no strategy 'One'"):
        load_strategy(f"{file}:One")


def test_parameters_take_the_type_of_their_default() -> None:
    given_texts = ["count=7", "rate=2", "loud=yes", "word=b=c"]
    assert strategy_parameters(Every, given_texts) == {"count": 7, "rate": 2.0, "loud": True, "word": "b=c"}
    assert strategy_parameters(Every, ["count=-2"]) == {"count": -2}


@pytest.mark.parametrize(
    "text", ["count=x", "count=", "rate=fast", "loud=perhaps", "nothing=1", "count", "=3", ""]
)
def test_parameters_that_cannot_be(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        strategy_parameters(Every, [text])
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize("size", [0, 0.0, math.nan, math.inf, "ten"])
def test_checked_strategy_refuses_what_backtrader_lets_pass(size: Any) -> None:
    cls = checked(Every)
    assert (cls.__name__, cls.__module__) == ("Every", Every.__module__)
    for side in (cls.buy, cls.sell):
        with pytest.raises(OrderRefusedError, match="is not an order"):
            side(SimpleNamespace(datas=[[1.0]]), None, size)


@pytest.mark.parametrize(
    ("text", "seconds"), [("5s", 5), ("1min", 60), ("15MIN", 900), (" 1h ", 3600), ("tick", 0), ("Ticks", 0)]
)
def test_bar_length(text: str, seconds: int) -> None:
    assert BarLength.parse(text).ns == seconds * 1_000_000_000


@given(st.text(max_size=8))
def test_bar_length_is_parsed_or_refused(text: str) -> None:
    with contextlib.suppress(BtIbkrError):
        assert BarLength.parse(text).ns >= 0


@pytest.mark.parametrize("text", ["0min", "min", "-5s", "1.5min", ""])
def test_what_is_no_bar_length(text: str) -> None:
    with pytest.raises(UsageError, match="no bar length"):
        BarLength.parse(text)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("2013-10-07T13:30", 1_381_152_600_000_000_000),
        ("2013-10-07T13:30:00.000250", 1_381_152_600_000_250_000),
        ("2013-10-07T13:30Z", 1_381_152_600_000_000_000),
        ("2013-10-07T09:30-04:00", 1_381_152_600_000_000_000),
        ("2013-10-07", 1_381_104_000_000_000_000),
    ],
)
def test_moment(text: str, wanted: int) -> None:
    assert parse_moment(text) == wanted


@pytest.mark.parametrize(
    "text",
    [
        "0001-01-01",
        "0001-01-01T00:00+05:00",
        "1969-12-31",
        "1970-01-01",
        "2200-01-02",
        "9999-12-31T23:59-05:00",
    ],
)
def test_moment_that_cannot_be_meant(text: str) -> None:
    with pytest.raises(UsageError, match=re.escape(repr(text))) as caught:
        parse_moment(text)
    assert "between 1970-01-02 and 2200-01-01" in caught.value.remedy


@pytest.mark.parametrize("text", ["1970-01-02", "2200-01-01"])
def test_first_and_last_moment(text: str) -> None:
    assert parse_moment(text) > 0


@given(st.datetimes())
def test_every_date_is_a_moment_or_refused(moment: datetime) -> None:
    with contextlib.suppress(UsageError):
        assert parse_moment(moment.isoformat()) > 0


@given(st.text(max_size=30))
def test_moment_is_parsed_or_refused(text: str) -> None:
    with contextlib.suppress(BtIbkrError):
        parse_moment(text)


def test_moment_as_text_keeps_what_there_is() -> None:
    assert utc_text(1_381_152_600_000_000_000) == "2013-10-07T13:30:00.000Z"
    assert utc_text(1_381_152_600_000_250_000) == "2013-10-07T13:30:00.000250Z"


@pytest.mark.parametrize(
    "changes", [{"speed": "0"}, {"speed": "-1"}, {"speed": "quick"}, {"fill": "no"}, {"cash": 0.0},
                {"cash": math.nan}, {"start_ns": 2, "end_ns": 1}],
)  # fmt: skip
def test_requests_that_cannot_be(changes: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        emulator_settings(RunRequest(strategy="sma_cross", **changes))


def test_instruments_of_a_market_are_all_its_symbols_or_those_named(market_data: Path) -> None:
    files = tuple(
        str(market_data / name)
        for name in ("ticks_IBM_2013-10-07.parquet", "ticks_EURUSD_2014-05-06.parquet")
    )

    def names(**given_fields: Any) -> list[str]:
        request = RunRequest(strategy="sma_cross", market=files, **given_fields)
        return [i.contract.symbol for _, i in instruments_of(request, emulator_settings(request))]

    assert sorted(names()) == ["EUR.USD", "IBM"]
    assert names(data=("EUR.USD",)) == ["EUR.USD"]


def test_bars_of_a_backtest_are_those_of_the_tape(market_data: Path, tick_bars: Any) -> None:
    path = market_data / "ticks_IBM_2013-10-07.parquet"
    request = RunRequest(strategy="sma_cross", market=(str(path),))
    settings = emulator_settings(request)
    ((_, instrument),) = instruments_of(request, settings)
    conid = instrument.contract.conid
    made = market_bars(settings, (conid,), BarLength.parse("5min"), 0, 0)[conid]
    frame = pd.DataFrame(
        [(b.open, b.high, b.low, b.close, b.volume) for b in made],
        columns=["open", "high", "low", "close", "volume"],
        index=pd.to_datetime([b.end_ns for b in made], unit="ns"),
    )
    wanted = tick_bars(pd.read_parquet(path), 300)
    pd.testing.assert_frame_equal(frame, wanted, check_names=False, check_dtype=False, check_index_type=False)
