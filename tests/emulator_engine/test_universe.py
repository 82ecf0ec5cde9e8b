"""The instruments and tables of them."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from bt_ibkr.emulator.market.sessions import extended_of_day
from bt_ibkr.emulator.types import Instrument
from bt_ibkr.emulator.universe import Universe, default_universe
from bt_ibkr.errors import MarketFileError, UsageError
from bt_ibkr.model.contract import Contract, SecurityType

HEADER = "conid,symbol,security_type,exchange,currency,tick_size,is_us,valid_exchanges,quote_only\n"


def test_the_well_known(universe: Universe) -> None:
    expected = {
        265598: "AAPL",
        8314: "IBM",
        756733: "SPY",
        272093: "MSFT",
        320227571: "QQQ",
        12087792: "EUR.USD",
        12087797: "GBP.USD",
        15016059: "USD.JPY",
        12087820: "USD.CHF",
        15016062: "USD.CAD",
    }
    for conid, symbol in expected.items():
        instrument = universe.by_conid(conid)
        assert instrument is not None
        assert instrument.contract.symbol == symbol
        assert universe.by_symbol(symbol.lower())[0] is instrument
    assert len({i.contract.conid for i in universe.all()}) == len(universe) > 40
    assert universe.by_conid(1) is None
    assert universe.by_symbol("NOPE") == []


def test_the_ambiguous(universe: Universe) -> None:
    assert [i.contract.conid for i in universe.by_symbol("AAPL")] == [265598, 38708077, 273982664, 532640894]
    assert [i.is_us for i in universe.by_symbol("SPY")] == [True, False]


def test_conids_are_unique(universe: Universe) -> None:
    apple = universe.by_symbol("AAPL")[0]
    universe.add(apple)
    with pytest.raises(UsageError, match="265598"):
        universe.add(
            Instrument(contract=Contract(conid=265598, symbol="X", security_type=SecurityType.STOCK))
        )
    assert len(universe) == len(default_universe())


def test_a_csv_table(universe: Universe, tmp_path: Path) -> None:
    table = tmp_path / "more.csv"
    table.write_text(
        HEADER + "1001,XYZ,STK,SMART,usd,0.05,no,SMART;NYSE,\n1002,A.B,cash,IDEALPRO,USD,,,,true\n"
    )
    assert universe.extend_from_table(table) == 2
    first, second = universe.by_conid(1001), universe.by_conid(1002)
    assert first is not None
    assert second is not None
    assert (first.contract.currency, first.contract.tick_size, first.is_us) == ("USD", 0.05, False)
    assert first.valid_exchanges == ("SMART", "NYSE")
    assert (second.contract.security_type, second.quote_only) == (SecurityType.FOREX, True)


def test_a_parquet_table(universe: Universe, tmp_path: Path) -> None:
    rows = {
        "conid": [1001],
        "symbol": ["XYZ"],
        "security_type": ["FUT"],
        "exchange": ["CME"],
        "currency": ["USD"],
        "multiplier": [50],
        "last_trade_date": ["20261218"],
    }
    table = tmp_path / "more.parquet"
    parquet.write_table(pa.table(rows), table)
    assert universe.extend_from_table(table) == 1
    found = universe.by_conid(1001)
    assert found is not None
    assert (found.contract.multiplier, found.contract.last_trade_date) == (50.0, "20261218")


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ("x,XYZ,STK,SMART,USD,,,,", r"row 1, column conid: 'x' is not a number"),
        ("1.5,XYZ,STK,SMART,USD,,,,", "row 1, column conid: .* whole number"),
        ("1,XYZ,STOCK,SMART,USD,,,,", "row 1, column security_type"),
        ("1,,STK,SMART,USD,,,,", "row 1, column symbol: is empty"),
        ("1,X,STK,SMART,USD,,,,\n2,Y,STK,SMART,USD,-1,,,", "row 2, column tick_size: '-1' is not above 0"),
        ("1,X,STK,SMART,USD,nan,,,", "row 1, column tick_size"),
        ("1,X,STK,SMART,USD,,perhaps,,", "row 1, column is_us: 'perhaps' is neither"),
        ("1,X,STK,SMART,USD,,,,\n1,Y,STK,SMART,USD,,,,", "row 2, column conid: Conid 1 is already taken"),
        ("265598,Y,STK,SMART,USD,,,,", "row 1, column conid: Conid 265598"),
    ],
)
def test_wrong_rows_are_named_and_nothing_is_added(
    universe: Universe, tmp_path: Path, rows: str, words: str
) -> None:
    table = tmp_path / "bad.csv"
    table.write_text(HEADER + rows + "\n")
    before = len(universe)
    with pytest.raises(MarketFileError, match=words):
        universe.extend_from_table(table)
    assert len(universe) == before


MORE = (
    "conid,symbol,security_type,exchange,currency,last_trade_date,strike,right,underlying_conid,extended_open,"
    "extended_close,session_open,session_close,time_zone,calendar,contract_month,coupon,issuer\n"
)


def test_a_table_of_every_type(universe: Universe, tmp_path: Path) -> None:
    table = tmp_path / "more.csv"
    table.write_text(
        MORE
        + "1001,SPI,FUT,SNFE,AUD,20260319,,,,17:10,16:30,09:50,16:30,Australia/Sydney,weekdays,202603,,\n"
        "1002,BHP,STK,ASX,AUD,,,,,,,10:00,16:00,Australia/Sydney,,,,\n"
        "1003,BHP,CFD,SMART,AUD,,,,1002,,,,,,,,,\n"
        "1004,AAPL,OPT,SMART,USD,20260918,230,C,265598,,,,,,,,,\n"
        "1005,XYZ,BOND,SMART,USD,20310615,,,,,,,,,,,5.125,e1\n"
    )
    assert universe.extend_from_table(table) == 5
    future, option, bond = (universe.by_conid(conid) for conid in (1001, 1004, 1005))
    assert future is not None
    assert option is not None
    assert bond is not None
    assert (future.calendar, future.contract_month, future.extended_open) == ("weekdays", "202603", "17:10")
    assert (option.underlying_conid, option.contract.strike) == (265598, 230.0)
    assert (bond.coupon, bond.issuer) == (5.125, "e1")
    assert [one.contract.conid for one in universe.related(1002)] == [1003]
    assert [one.contract.conid for one in universe.bonds(issuer="e1")] == [1005]
    # Evening hours belong to the day after.
    opens, closes = extended_of_day(future, date(2026, 3, 3))
    assert closes - opens == (23 * 60 + 20) * 60 * 10**9


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ("1,X,FUT,CME,USD,,,,,,,,,,,,,", "column last_trade_date: is empty, but FUT needs it"),
        ("1,X,OPT,SMART,USD,20260918,,C,,,,,,,,,,", "column strike: is empty"),
        ("1,X,OPT,SMART,USD,20260918,5,X,,,,,,,,,,", "column right: 'X' is neither"),
        ("1,X,FUT,CME,USD,20260931,,,,,,,,,,,,", "column last_trade_date: '20260931' is not a day"),
        ("1,X,STK,CME,USD,,,,,25:00,16:00,,,,,,,", "column extended_open: '25:00' is not a time"),
        ("1,X,STK,CME,USD,,,,,17:00,,,,,,,,", "extended hours need both"),
        ("1,X,STK,CME,USD,,,,,,,,,Mars/Crater,,,,", "column time_zone: 'Mars/Crater' is not"),
        ("1,X,STK,CME,USD,,,,,,,,,,moon,,,", "column calendar: 'moon' is none of always"),
        ("1,X,STK,CME,USD,,,,,,,,,,,2026,,", "column contract_month: '2026' is not a month"),
        ("1,X,STK,CME,USD,,,,2147483648,,,,,,,,,", "column underlying_conid: .* below 2147483648"),
        ("3000000000,X,STK,CME,USD,,,,,,,,,,,,,", "column conid: .* below 2147483648"),
    ],
)
def test_wrong_rows_of_every_type(universe: Universe, tmp_path: Path, rows: str, words: str) -> None:
    table = tmp_path / "bad.csv"
    table.write_text(MORE + rows + "\n")
    with pytest.raises(MarketFileError, match=f"row 1.*{words}"):
        universe.extend_from_table(table)


def test_a_column_that_is_not_known(universe: Universe, tmp_path: Path) -> None:
    table = tmp_path / "bad.csv"
    table.write_text("conid,symbol,security_type,exchange,currency,multiplyer\n1,X,STK,SMART,USD,5\n")
    with pytest.raises(MarketFileError, match="no column is called 'multiplyer'") as caught:
        universe.extend_from_table(table)
    assert caught.value.remedy == "Did you mean multiplier?"


def test_files_that_are_no_tables(universe: Universe, tmp_path: Path) -> None:
    with pytest.raises(MarketFileError, match="does not exist"):
        universe.extend_from_table(tmp_path / "none.csv")
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(b"no parquet")
    with pytest.raises(MarketFileError, match="cannot be read"):
        universe.extend_from_table(broken)
    broken = tmp_path / "broken.csv"
    broken.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(MarketFileError, match="cannot be read"):
        universe.extend_from_table(broken)
    lacking = tmp_path / "lacking.csv"
    lacking.write_text("conid,symbol\n1,X\n")
    with pytest.raises(MarketFileError, match="lacks the column security_type"):
        universe.extend_from_table(lacking)
    empty = tmp_path / "empty.csv"
    empty.write_text(HEADER)
    with pytest.raises(MarketFileError, match="no rows"):
        universe.extend_from_table(empty)
