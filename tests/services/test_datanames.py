"""Names of instruments: backtrader's own forms, shorter ones, and anything else as one kind of error."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bt_ibkr.errors import ContractError
from bt_ibkr.model.contract import SecurityType
from bt_ibkr.services.datanames import ContractQuery, parse_dataname

STOCK, FOREX, FUTURE = SecurityType.STOCK, SecurityType.FOREX, SecurityType.FUTURE


@pytest.mark.parametrize(
    ("dataname", "wanted"),
    [
        # backtrader's IBStore: TICKER, TICKER-STK, TICKER-STK-EXCHANGE, TICKER-STK-EXCHANGE-CURRENCY
        ("TICKER", {"symbol": "TICKER", "security_type": STOCK, "exchange": "SMART"}),
        ("TICKER-STK", {"symbol": "TICKER", "security_type": STOCK, "exchange": "SMART"}),
        ("TICKER-STK-NYSE", {"symbol": "TICKER", "security_type": STOCK, "exchange": "NYSE"}),
        ("TICKER-STK-NYSE-USD", {"security_type": STOCK, "exchange": "NYSE", "currency": "USD"}),
        ("TICKER-IND-CBOE-USD", {"security_type": SecurityType.INDEX, "exchange": "CBOE"}),
        ("TICKER-CFD", {"security_type": SecurityType.CFD}),
        ("EUR.USD-CASH-IDEALPRO", {"symbol": "EUR.USD", "security_type": FOREX, "exchange": "IDEALPRO"}),
        ("TICKER-YYYYMM-EXCHANGE".replace("YYYYMM", "202612"), {"security_type": FUTURE, "expiry": "202612"}),
        ("ES-202612-CME-USD", {"expiry": "202612", "exchange": "CME", "currency": "USD", "multiplier": 0.0}),
        ("ES-202612-CME-USD-50", {"expiry": "202612", "multiplier": 50.0}),
        ("ES-20261218-CME", {"expiry": "20261218", "security_type": FUTURE}),
        ("ES-FUT-CME-USD-202612", {"security_type": FUTURE, "expiry": "202612"}),
        ("ES-FUT-CME-USD-202612-50.5", {"expiry": "202612", "multiplier": 50.5}),
        ("ES-FUT-CME", {"security_type": FUTURE, "expiry": ""}),
        # shorter
        ("EUR.USD", {"security_type": FOREX, "exchange": "IDEALPRO"}),
        ("BRK B", {"symbol": "BRK B", "security_type": STOCK}),
        ("BRK.B", {"symbol": "BRK.B", "security_type": STOCK}),
        ("  aapl  ", {"symbol": "AAPL", "text": "aapl"}),
        ("700", {"symbol": "700", "security_type": STOCK}),
        ("conid:265598", {"conid": 265598, "exchange": "SMART"}),
        ("CONID:265598@nasdaq", {"conid": 265598, "exchange": "NASDAQ"}),
    ],
)
def test_forms(dataname: str, wanted: dict[str, Any]) -> None:
    query = parse_dataname(dataname)
    assert {name: getattr(query, name) for name in wanted} == wanted


@pytest.mark.parametrize(
    ("dataname", "legs", "exchange", "spread"),
    [
        ("COMBO:AAPL*1,MSFT*-1", [("AAPL", 1), ("MSFT", -1)], "SMART", 0),
        ("combo: aapl , msft*-2 @nyse", [("AAPL", 1), ("MSFT", -2)], "NYSE", 0),
        ("COMBO:ES-202612-CME*1,ES-202703-CME*-1@CME", [("ES", 1), ("ES", -1)], "CME", 0),
        ("COMBO:conid:265598*+1,conid:8314*-1", [(265598, 1), (8314, -1)], "SMART", 0),
        ("28812380;;;265598/1,8314/-1", [(265598, 1), (8314, -1)], "SMART", 28812380),
        ("61227069@OSE.JPN;;;1/1,2/-2,3/1", [(1, 1), (2, -2), (3, 1)], "OSE.JPN", 61227069),
        ("0;;;1/1,2/-2", [(1, 1), (2, -2)], "SMART", 0),
    ],
)
def test_combos(dataname: str, legs: list[tuple[Any, int]], exchange: str, spread: int) -> None:
    query = parse_dataname(dataname)
    assert [(leg.conid or leg.symbol, ratio) for leg, ratio in query.legs] == legs
    assert (query.exchange, query.spread_id, query.conid) == (exchange, spread, 0)
    assert query.security_type is SecurityType.COMBO


@pytest.mark.parametrize(
    "dataname",
    [
        "", "   ", "-", "-STK", "AAPL-", "AAPL-XYZ", "AAPL-STK-SMART-USD-EXTRA", "conid:", "conid:x",
        "conid:1@", "conid:1 2", "AAPL/USD", "ÄPL", "A" * 21, "ES-FUT-CME-USD-2026", "ES-202612-CME-USD-x",
        "ES-202612-CME-USD-50-C", "SPY-20261218-SMART-USD-600-C", "SPY-OPT-SMART-USD-20261218-600-C",
        "ES-FOP-CME", "conid:0", "conid:00",
        "ES-202612-CME-USD-1_0", "ES-202612-CME-USD-\u0663",
        "ES-202612-CME-USD-nan", "ES-202612-CME-USD--50", "ES-202612-CME-USD-inf",
        "COMBO:", "COMBO:AAPL", "COMBO:AAPL*1", "COMBO:AAPL*0,MSFT*1", "COMBO:AAPL*x,MSFT*1", "COMBO:AAPL*1,,MSFT",
        "COMBO:AAPL@NYSE*1,MSFT*-1", "COMBO:AAPL,MSFT@", "COMBO:AAPL,MSFT@a b", "COMBO:COMBO:AAPL,MSFT,IBM",
        "COMBO:AAPL*1.5,MSFT", "COMBO:" + ",".join(f"X{n}" for n in range(9)), "COMBO:AAPL,ÄPL",
        "1;;;2/1", "1;;;2/1,2/1", "x;;;1/1,2/1", ";;;", "1;;;2/1,3/0",
        "ES-202612-CME-USD-0", "ES-202699-CME", "ES-20261399-CME",
    ],
)  # fmt: skip
def test_what_is_none(dataname: str) -> None:
    with pytest.raises(ContractError) as caught:
        parse_dataname(dataname)
    assert caught.value.remedy


@pytest.mark.parametrize("dataname", [None, 5, b"AAPL", ["AAPL"]])
def test_what_is_no_text(dataname: Any) -> None:
    with pytest.raises(ContractError):
        parse_dataname(dataname)


def test_defaults_where_the_name_does_not_say() -> None:
    query = parse_dataname("AAPL", security_type="CFD", exchange="LSE", currency="GBP")
    assert query.security_type is SecurityType.CFD
    assert (query.exchange, query.currency) == ("LSE", "GBP")
    query = parse_dataname("AAPL-STK-NYSE-USD", security_type="CFD", exchange="LSE", currency="GBP")
    assert query.security_type is STOCK
    assert (query.exchange, query.currency) == ("NYSE", "USD")


words = st.text(alphabet="ABCXYZ.0159- @:*,;/conid\n\u0660É", max_size=40)
parts = st.lists(
    st.sampled_from(
        ["AAPL", "EUR.USD", "STK", "CASH", "FUT", "OPT", "SMART", "CME", "USD", "202612", "50", "C", "", "x"]
    ),
    max_size=8,
).map("-".join)


@settings(deadline=None)
@given(st.one_of(st.text(max_size=60), words, parts))
def test_nothing_else_is_ever_raised(dataname: str) -> None:
    try:
        query = parse_dataname(dataname)
    except ContractError:
        return
    assert isinstance(query, ContractQuery)
    assert query.conid > 0 or query.symbol
    assert query.text == dataname.strip()
    assert query.multiplier >= 0.0
    assert query.symbol.isascii()


symbols = st.from_regex(r"\A[A-Z][A-Z0-9]{0,8}\Z")
exchanges = st.sampled_from(["SMART", "NYSE", "CME", "IDEALPRO"])
currencies = st.sampled_from(["USD", "EUR", "CHF"])


@given(symbols, exchanges, currencies)
def test_a_stocks_parts_come_back(symbol: str, exchange: str, currency: str) -> None:
    query = parse_dataname(f"{symbol}-STK-{exchange}-{currency}".lower())
    assert (query.symbol, query.security_type) == (symbol, STOCK)
    assert (query.exchange, query.currency) == (exchange, currency)


@given(symbols, st.integers(2020, 2040), st.integers(1, 12), st.integers(1, 500))
def test_both_forms_of_a_future_mean_the_same(symbol: str, year: int, month: int, multiplier: int) -> None:
    short = parse_dataname(f"{symbol}-{year}{month:02}-CME-USD-{multiplier}")
    long = parse_dataname(f"{symbol}-FUT-CME-USD-{year}{month:02}-{multiplier}")
    for name in ("symbol", "security_type", "exchange", "currency", "expiry", "multiplier"):
        assert getattr(short, name) == getattr(long, name)
