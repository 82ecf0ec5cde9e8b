"""Market files and the tape."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from bt_ibkr.emulator.market.options import load_market, parse_market_option
from bt_ibkr.emulator.market.tape import Tape, load_ticks, merge
from bt_ibkr.emulator.types import Instrument, MarketEvent
from bt_ibkr.emulator.universe import Universe
from bt_ibkr.errors import MarketFileError, UsageError

SECOND_US = 1_000_000
T0_US = 1_772_461_800 * SECOND_US
UTC_TIME = pa.timestamp("us", tz="UTC")
TICKS: dict[str, list[float | None]] = {
    "bid": [1.0, None, None],
    "bid_size": [10, None, 5],
    "ask": [2.0, 2.5, None],
    "ask_size": [20, None, None],
    "last": [None, None, 2.5],
    "last_size": [None, None, 7],
}


def write(path: Path, columns: dict[str, Any], times: list[int] | None = None, kind: Any = UTC_TIME) -> Path:
    length = len(next(iter(columns.values())))
    stamps = times if times is not None else [T0_US + k * SECOND_US for k in range(length)]
    parquet.write_table(pa.table({"ts": pa.array(stamps, kind)} | columns), path)
    return path


def everything(tape: Tape) -> list[MarketEvent]:
    found = []
    while tape.next_ns() is not None:
        peeked = tape.peek()
        assert peeked is not None
        assert peeked.time_ns == tape.next_ns()
        assert tape.pop() is peeked
        found.append(peeked)
    return found


@pytest.fixture
def ibm(universe: Universe) -> Instrument:
    return universe.by_symbol("IBM")[0]


def test_a_tick_file(tmp_path: Path, ibm: Instrument) -> None:
    tape = load_ticks(write(tmp_path / "t.parquet", TICKS), ibm)
    start = T0_US * 1000
    assert (tape.start_ns, tape.end_ns, tape.conids, len(tape)) == (start, start + 2 * 10**9, (8314,), 3)
    expected = [
        MarketEvent(start, 8314, 1.0, 10.0, 2.0, 20.0),
        MarketEvent(start + 10**9, 8314, ask=2.5),
        MarketEvent(start + 2 * 10**9, 8314, bid_size=5.0, last=2.5, last_size=7.0),
    ]
    assert everything(tape) == expected
    assert tape.peek() is None
    with pytest.raises(StopIteration):
        tape.pop()
    tape.restart()
    assert everything(tape) == expected


def test_blocks_do_not_show(tmp_path: Path, ibm: Instrument) -> None:
    count = 10_000
    columns = {name: [None] * count for name in TICKS} | {"last": [float(k) for k in range(1, count + 1)]}
    columns |= {"bid": pa.nulls(count)}
    tape = load_ticks(write(tmp_path / "t.parquet", columns), ibm)
    assert [event.last for event in everything(tape)] == columns["last"]


@pytest.mark.parametrize(
    ("columns", "times", "kind", "words"),
    [
        ({k: v for k, v in TICKS.items() if k != "ask"}, None, UTC_TIME, "lacks the column ask"),
        (TICKS, None, pa.timestamp("us"), "column ts: .* is not a time with a zone"),
        (TICKS, None, pa.int64(), "column ts: int64 is not a time"),
        (TICKS, [3, 2, 5], UTC_TIME, "column ts: row 2 is earlier than the row before it"),
        (TICKS, [3, None, 5], UTC_TIME, "column ts: holds empty times"),
        (TICKS | {"bid": ["a", "b", "c"]}, None, UTC_TIME, "column bid: .* is not a number"),
        (
            TICKS | {"ask_size": [-1.0, 2, 3]},
            None,
            UTC_TIME,
            "column ask_size: holds values that are negative",
        ),
        ({name: [] for name in TICKS}, None, UTC_TIME, "holds no rows"),
        (
            {"open": [1.0], "high": [1.0], "low": [1.0], "close": [1.0]},
            None,
            UTC_TIME,
            "lacks the column vol",
        ),
    ],
)
def test_unusable_files_name_the_column(
    tmp_path: Path, ibm: Instrument, columns: dict[str, Any], times: Any, kind: Any, words: str
) -> None:
    with pytest.raises(MarketFileError, match=words) as caught:
        load_ticks(write(tmp_path / "bad.parquet", columns, times, kind), ibm)
    assert "bad.parquet" in str(caught.value)


def test_files_that_cannot_be_read(tmp_path: Path, ibm: Instrument) -> None:
    with pytest.raises(MarketFileError, match="does not exist"):
        load_ticks(tmp_path / "none.parquet", ibm)
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(b"PAR1 and nothing else")
    with pytest.raises(MarketFileError, match="cannot be read as Parquet"):
        load_ticks(broken, ibm)
    parquet.write_table(pa.table({"time": [1]}), broken)
    with pytest.raises(MarketFileError, match="lacks the column ts"):
        load_ticks(broken, ibm)


def test_bars_become_prints(tmp_path: Path, ibm: Instrument, universe: Universe) -> None:
    bars = {
        "open": [10.0, 12.0],
        "high": [13.0, 12.5],
        "low": [9.0, 8.0],
        "close": [12.0, 8.5],
        "volume": [103, 0],
    }
    path = write(tmp_path / "b.parquet", bars, [T0_US, T0_US + 60 * SECOND_US])
    events = everything(load_ticks(path, ibm))
    assert [event.last for event in events] == [10.0, 9.0, 13.0, 12.0, 12.0, 12.5, 8.0, 8.5]
    assert [event.last_size for event in events[:4]] == [25, 25, 25, 28]
    offsets = [event.time_ns - T0_US * 1000 for event in events[:4]]
    assert offsets == [0, 15 * 10**9, 30 * 10**9, 59_999 * 10**6]
    pair = everything(load_ticks(path, universe.by_symbol("EUR.USD")[0]))
    assert (pair[0].bid, pair[0].ask, pair[0].last) == (10.0, 10.0, None)


@pytest.mark.parametrize(
    ("name", "value"), [("close", float("nan")), ("high", 9.0), ("low", 11.5), ("open", 14.0)]
)
def test_what_is_no_bar_is_refused(tmp_path: Path, ibm: Instrument, name: str, value: float) -> None:
    bars: dict[str, list[float]] = {
        "open": [10.0, 12.0],
        "high": [13.0, 12.5],
        "low": [9.0, 8.0],
        "close": [12.0, 8.5],
        "volume": [1, 1],
    }
    bars[name][0] = value
    path = write(tmp_path / "b.parquet", bars, [T0_US, T0_US + 60 * SECOND_US])
    with pytest.raises(MarketFileError, match="row 0 is no bar") as caught:
        load_ticks(path, ibm)
    assert caught.value.remedy


def test_a_file_of_several_contracts(tmp_path: Path, universe: Universe) -> None:
    bars = {name: [1.0, 2.0] for name in ("open", "high", "low", "close", "volume")}
    path = write(tmp_path / "es.parquet", bars | {"contract": ["ES202412", "ES202512"]})
    late = next(i for i in universe.by_symbol("ES") if i.contract.last_trade_date == "20251219")
    assert {event.last for event in everything(load_ticks(path, late))} == {2.0}
    with pytest.raises(MarketFileError, match="column contract: holds ES202412, ES202512"):
        load_ticks(path, universe.by_symbol("CL")[0])


def test_merging_is_stable(tmp_path: Path, universe: Universe) -> None:
    paths = [
        write(tmp_path / "ticks_IBM.parquet", TICKS),
        write(tmp_path / "ticks_SPY.parquet", TICKS, [T0_US - 1, T0_US, T0_US + 2 * SECOND_US]),
    ]
    tape = load_market([str(path) for path in paths], universe)
    assert [event.conid for event in everything(tape)] == [756733, 8314, 756733, 8314, 8314, 756733]
    assert tape.conids == (756733, 8314)
    single = load_market([str(paths[0])], universe)
    assert merge([single]) is single
    with pytest.raises(UsageError, match="No market file"):
        load_market([], universe)


@pytest.mark.parametrize(
    ("name", "suffix", "conid"),
    [
        ("ticks_IBM_2013-10-07.parquet", "", 8314),
        ("bars_SPY_1min_2013-10-07_11.parquet", "", 756733),
        ("ticks_EURUSD_2014-05-06.parquet", "", 12087792),
        ("AAPL.parquet", "", 265598),
        ("AAPL.parquet", ":38708077", 38708077),
        ("whatever.parquet", ":ibm", 8314),
        ("whatever.parquet", ":EUR.USD", 12087792),
        ("with:colon_IBM.parquet", "", 8314),
        ("with:colon_IBM.parquet", ":SPY", 756733),
    ],
)
def test_symbols_of_files(tmp_path: Path, universe: Universe, name: str, suffix: str, conid: int) -> None:
    path = write(tmp_path / name, TICKS)
    option = parse_market_option(f"{path}{suffix}", universe)
    assert (option.path, option.instrument.contract.conid) == (path, conid)
    assert option.load().conids == (conid,)


def test_symbols_that_do_not_do(tmp_path: Path, universe: Universe) -> None:
    path = write(tmp_path / "prices.parquet", TICKS)
    for text, words in (
        (str(path), "No known symbol in the file name prices.parquet"),
        (f"{path}:NOPE", "'NOPE' is not a symbol"),
        (f"{path}:ESQ6", "'ESQ6' is not a symbol"),
        (f"{path}:ES201313", "'ES201313' is not a symbol"),
    ):
        with pytest.raises(UsageError, match=words):
            parse_market_option(text, universe)
    with pytest.raises(MarketFileError, match="does not exist"):
        parse_market_option(str(tmp_path / "none.parquet") + ":IBM", universe)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("ES", "ESH6"), ("esm6", "ESM6"), ("ES201406", "ESM4"), ("CL", "CLJ6"), ("NQ201312", "NQZ3")],
)
def test_futures_of_a_file_are_those_of_its_day(
    tmp_path: Path, universe: Universe, name: str, expected: str
) -> None:
    path = write(tmp_path / "prices.parquet", TICKS)
    assert parse_market_option(f"{path}:{name}", universe).instrument.local_symbol == expected
    named = write(tmp_path / f"bars_{name}_1min.parquet", TICKS)
    assert parse_market_option(str(named), universe).instrument.local_symbol == expected


def test_the_file_of_futures(market_data: Path, universe: Universe) -> None:
    """Of the contracts that it holds those of the front month."""
    option = parse_market_option(str(market_data / "bars_ES_1min_2013-10-07.parquet"), universe)
    assert option.instrument.local_symbol == "ESZ3"
    assert option.load().conids == (option.instrument.contract.conid,)


def test_the_real_files(market_data: Path, universe: Universe) -> None:
    counts = {"ticks_IBM_2013-10-07": 54_396, "ticks_SPY_2013-10-07": 250_601}
    for name, count in counts.items():
        assert len(parse_market_option(str(market_data / f"{name}.parquet"), universe).load()) == count
