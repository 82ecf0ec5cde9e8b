"""Names of instruments: backtrader's own forms, shorter ones, and anything else as one kind of error."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from bt_ibkr.errors import ContractError
from bt_ibkr.model.contract import SecurityType
from bt_ibkr.services.datanames import ContractQuery, RollBy, RollRule, format_query, parse_dataname

STOCK, FOREX, FUTURE = SecurityType.STOCK, SecurityType.FOREX, SecurityType.FUTURE
OPTION, FOP = SecurityType.OPTION, SecurityType.FUTURE_OPTION


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
        ("AAPL@NASDAQ", {"symbol": "AAPL", "security_type": STOCK, "exchange": "NASDAQ"}),
        ("aapl @ebs chf", {"symbol": "AAPL", "exchange": "EBS", "currency": "CHF"}),
        ("SPX@CBOE index", {"symbol": "SPX", "security_type": SecurityType.INDEX, "exchange": "CBOE"}),
        ("IBM CFD", {"symbol": "IBM", "security_type": SecurityType.CFD, "exchange": "SMART"}),
        ("EUR-CASH-IDEALPRO-USD", {"symbol": "EUR.USD", "security_type": FOREX}),
        (
            "BTC-CRYPTO-PAXOS-USD",
            {"symbol": "BTC", "security_type": SecurityType.CRYPTO, "exchange": "PAXOS"},
        ),
        ("ES DEC26@CME", {"symbol": "ES", "security_type": FUTURE, "expiry": "202612", "exchange": "CME"}),
        ("ES@CME 2026-12", {"symbol": "ES", "security_type": FUTURE, "expiry": "202612", "exchange": "CME"}),
        ("es dec2026@cme x50", {"symbol": "ES", "expiry": "202612", "multiplier": 50.0}),
        ("VX 2026-12-16@CFE", {"security_type": FUTURE, "expiry": "20261216", "exchange": "CFE"}),
        # the continuous front
        ("ES@CME front", {"symbol": "ES", "security_type": FUTURE, "exchange": "CME", "roll": RollRule()}),
        ("ES front+1 days=3", {"roll": RollRule(days=3, offset=1), "exchange": "SMART"}),
        ("CL@NYMEX front volume USD", {"roll": RollRule(by=RollBy.VOLUME), "currency": "USD"}),
        ("ES-CONTFUT-CME", {"roll": RollRule(), "exchange": "CME"}),
        (
            "ES-CONTFUT-CME-USD-50-INTEREST-NEXT1",
            {"roll": RollRule(by=RollBy.INTEREST, offset=1), "multiplier": 50.0},
        ),
        # options: IBStore's forms, and plain ones
        (
            "TICKER-202612-CME-USD-50-C",
            {"security_type": FOP, "expiry": "202612", "strike": 50.0, "right": "C"},
        ),
        ("TICKER-202612-CME-USD-50.5-P-20", {"security_type": FOP, "right": "P", "multiplier": 20.0}),
        ("TICKER-FOP-CME-USD-202612-50-C", {"security_type": FOP, "loose": False, "multiplier": 0.0}),
        ("TICKER-FOP-CME-USD-202612-50-C-20", {"security_type": FOP, "multiplier": 20.0}),
        ("TICKER-20261218-SMART-USD-50-C", {"security_type": OPTION, "expiry": "20261218", "loose": True}),
        ("TICKER-20261218-SMART-USD-50-C-100", {"security_type": OPTION, "multiplier": 100.0}),
        ("TICKER-OPT-SMART-USD-20261218-50-C", {"security_type": OPTION, "strike": 50.0, "loose": False}),
        ("TICKER-OPT-SMART-USD-20261218-50-PUT-100", {"right": "P", "multiplier": 100.0}),
        ("AAPL 2026-12-18 C 250", {"symbol": "AAPL", "security_type": OPTION, "strike": 250.0, "right": "C"}),
        ("aapl dec26 250 put", {"symbol": "AAPL", "expiry": "202612", "strike": 250.0, "right": "P"}),
        ("BRK B 20261218 C 500@CBOE", {"symbol": "BRK B", "exchange": "CBOE", "expiry": "20261218"}),
        ("SPX[SPXW] 2026-12-18 P 6000", {"symbol": "SPX", "trading_class": "SPXW", "right": "P"}),
        (
            "SPX[SPXW]-20261218-CBOE-USD-6000-P",
            {"symbol": "SPX", "trading_class": "SPXW", "exchange": "CBOE"},
        ),
        # event contracts
        ("FF 2027-01-27 YES 3.125", {"exchange": "FORECASTX", "right": "C", "strike": 3.125}),
        ("FF 2027-01-27 no 3.125", {"exchange": "FORECASTX", "right": "P", "security_type": OPTION}),
        ("ES[ECES] 2026-12-18 YES 6000@CME", {"exchange": "CME", "trading_class": "ECES", "right": "C"}),
        # bonds
        ("IBM-BOND", {"security_type": SecurityType.BOND, "expiry": "", "coupon": None}),
        ("IBM-BOND-SMART-USD-203505-4.5", {"expiry": "203505", "coupon": 4.5, "currency": "USD"}),
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
        ("COMBO:AAPL@NYSE*1,MSFT*-1", [("AAPL", 1), ("MSFT", -1)], "SMART", 0),
        ("COMBO:ES DEC26@CME*1,ES MAR27@CME*-1@CME", [("ES", 1), ("ES", -1)], "CME", 0),
        ("COMBO:AAPL 2026-12-18 C 250*1,AAPL*-100", [("AAPL", 1), ("AAPL", -100)], "SMART", 0),
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
        "ES-202612-CME-USD-50-C-x", "SPY-20261218-SMART-USD-600-X", "SPY-OPT-SMART-USD-20261218-600",
        "ES-FOP-CME", "SPY-OPT", "AAPL-BAG-SMART", "AAPL 2026-12-18 C", "AAPL 2026-12-18 250", "AAPL 2026-13",
        "AAPL 2026-12-18 C 250 C", "AAPL 2026-02-30 C 250", "AAPL@NYSE@CME", "AAPL[NMS]", "ES[EW3] DEC26@CME",
        "ES@CME front later", "ES@CME front volume days=3", "ES-CONTFUT-CME-USD-FIFTY", "ES@CME front xx",
        "IBM-BOND-SMART-USD-soon", "IBM-BOND-SMART-USD-202812-high", "AAPL-STK-a b-USD", "AAPL-STK-SMART-DOLLAR",
        "conid:0", "conid:00",
        "ES-202612-CME-USD-1_0", "ES-202612-CME-USD-\u0663",
        "ES-202612-CME-USD-nan", "ES-202612-CME-USD--50", "ES-202612-CME-USD-inf",
        "COMBO:", "COMBO:AAPL", "COMBO:AAPL*1", "COMBO:AAPL*0,MSFT*1", "COMBO:AAPL*x,MSFT*1", "COMBO:AAPL*1,,MSFT",
        "COMBO:AAPL,MSFT@", "COMBO:AAPL,MSFT@a b", "COMBO:COMBO:AAPL,MSFT,IBM",
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


WORDS = [
    "AAPL", "ES", "BRK B", "EUR.USD", "SPX[SPXW]", "@CME", "@EBS", "2026-12-18", "2026-12", "DEC26", "front",
    "front+1", "days=3", "volume", "interest", "C", "PUT", "YES", "250", "3.125", "x50", "USD", "CHF", "index",
    "CFD", "-STK",
]  # fmt: skip
said = st.lists(st.sampled_from(WORDS), max_size=7).map(" ".join)
spelt = st.lists(
    st.sampled_from(
        ["AAPL", "SPX[SPXW]", "EUR.USD", "EUR", "STK", "CASH", "FUT", "OPT", "FOP", "WAR", "BOND", "IND", "CONTFUT",
         "SMART", "CME", "USD", "202612", "20261218", "50", "0.5", "6000", "C", "P", "VOLUME", "DAYS3", "NEXT1", ""]
    ),
    max_size=8,
).map("-".join)  # fmt: skip
leg = st.tuples(st.one_of(said, spelt), st.sampled_from(["", "*1", "*-2"])).map("".join)
combos = st.tuples(st.lists(leg, min_size=1, max_size=3), st.sampled_from(["", "@CME"])).map(
    lambda parts: f"COMBO:{','.join(parts[0])}{parts[1]}"
)
words = st.text(alphabet="ABCXYZ.0159- @:*,;/conid\n\u0660É", max_size=40)
parts = st.lists(
    st.sampled_from(
        ["AAPL", "EUR.USD", "STK", "CASH", "FUT", "OPT", "SMART", "CME", "USD", "202612", "50", "C", "", "x"]
    ),
    max_size=8,
).map("-".join)


@settings(deadline=None)
@given(st.one_of(st.text(max_size=60), words, parts, said, spelt, combos))
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


def bare(query: ContractQuery) -> ContractQuery:
    """The query without the words it was written in."""
    legs = tuple((bare(leg), ratio) for leg, ratio in query.legs)
    return structs.replace(query, text="", legs=legs)


@settings(deadline=None)
@given(st.one_of(said, spelt, combos, parts))
def test_what_is_written_is_parsed_to_the_same(dataname: str) -> None:
    try:
        query = parse_dataname(dataname)
    except ContractError:
        return
    again = parse_dataname(format_query(query))
    assert bare(again) == bare(query)
    assert format_query(again) == format_query(query)


@pytest.mark.parametrize(
    ("dataname", "written"),
    [
        ("aapl", "AAPL-STK-SMART"),
        ("EUR.USD", "EUR.USD-CASH-IDEALPRO"),
        ("ES DEC26@CME", "ES-FUT-CME--202612"),
        ("ES@CME front+1 volume", "ES-CONTFUT-CME--VOLUME-NEXT1"),
        ("AAPL 2026-12-18 C 250", "AAPL-20261218-SMART--250-C"),
        ("conid:265598@nasdaq", "conid:265598@NASDAQ"),
        ("COMBO:AAPL,MSFT*-1", "COMBO:AAPL-STK*1,MSFT-STK*-1@SMART"),
        ("28812380;;;265598/1,8314/-1", "28812380@SMART;;;265598/1,8314/-1"),
    ],
)
def test_written_in_full(dataname: str, written: str) -> None:
    assert format_query(parse_dataname(dataname)) == written


@pytest.mark.parametrize(
    ("dataname", "message", "remedy"),
    [
        ("conid:0", "'conid:0' has no contract id", "conid:265598"),
        ("conid:abc", "'conid:abc' has no contract id", "conid:265598"),
        ("AAPL 2026-02-31 C 230", "'2026-02-31' in 'AAPL 2026-02-31 C 230' is no day", "2026-12-18"),
        ("AAPL-20260231-SMART-USD-230-C", "'20260231' in .* is no day", "20261218"),
        ("COMBO:AAPL*0,MSFT*1", r"'AAPL\*0' in .* has no ratio", "NAME*RATIO"),
        ("COMBO:AAPL*1,MSFT*-0", r"'MSFT\*-0' in .* has no ratio", "NAME*RATIO"),
    ],
)
def test_messages_name_what_is_wrong(dataname: str, message: str, remedy: str) -> None:
    with pytest.raises(ContractError, match=message) as caught:
        parse_dataname(dataname)
    assert remedy in caught.value.remedy


def test_an_unknown_security_type() -> None:
    with pytest.raises(ContractError, match=r"'FOO' is no security type .*'AAPL'") as caught:
        parse_dataname("AAPL", security_type="FOO")
    assert "STK" in caught.value.remedy
    assert parse_dataname("AAPL", security_type="cfd").security_type is SecurityType.CFD
