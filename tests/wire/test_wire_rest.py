"""Sessions, contracts, history, portfolio: recorded bodies and their exact values."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from bt_ibkr.clock import NS_PER_S
from bt_ibkr.errors import WireError
from bt_ibkr.model import Account, Bar, Contract, LedgerLine, Position, SecurityType
from bt_ibkr.wire import contract_rules, contracts, history, portfolio, session, tags

MINUTE = 60 * NS_PER_S

AUTH: dict[str, Any] = {
    "authenticated": True,
    "established": True,
    "competing": False,
    "connected": True,
    "message": "",
    "MAC": "AA:BB:CC:DD:EE:FF",
    "serverInfo": {"serverName": "JifZ28031", "serverVersion": "Build 10.44.1h, Apr 20, 2026 11:22:51 AM"},
    "fail": "",
}


def test_auth_status() -> None:
    status = session.auth_status(AUTH)
    assert status.ready
    assert status.server_name == "JifZ28031"
    assert not session.auth_status({**AUTH, "established": False}).ready
    assert session.auth_status({k: v for k, v in AUTH.items() if k != "established"}).ready
    assert not session.auth_status({**AUTH, "competing": True}).ready
    assert not session.auth_status({**AUTH, "connected": False}).ready
    out = b'{"authenticated":false,"established":false,"competing":false,"connected":false,"MAC":null}'
    assert session.auth_status(out) == session.AuthStatus(established=False)
    assert session.auth_status({"error": "Bad Request: no bridge"}).message == "Bad Request: no bridge"


def test_tickle() -> None:
    answer = session.tickle(
        {"session": "abc", "hmds": {"error": "no bridge"}, "iserver": {"authStatus": AUTH}}
    )
    assert (answer.session, answer.error) == ("abc", None)
    assert answer.auth is not None
    assert answer.auth.ready
    gateway = session.tickle({"session": "a", "ssoExpires": 460311, "collission": False, "userId": 123456789})
    assert (gateway.sso_expires_ms, gateway.collision, gateway.user_id) == (460311, False, "123456789")
    assert gateway.auth is None
    assert session.tickle(b'{"error":"no session"}').error == "no session"


def test_accounts() -> None:
    answer = session.brokerage_accounts(
        {
            "accounts": ["U1234567", "U2"],
            "acctProps": {"U1234567": {"supportsCashQty": True, "supportsFractions": True}},
            "aliases": {"U1234567": "mine"},
            "selectedAccount": "U1234567",
            "sessionId": "s-1",
            "isPaper": True,
        }
    )
    assert answer.accounts == (
        Account(account_id="U1234567", alias="mine", supports_fractions=True, supports_cash_quantity=True),
        Account(account_id="U2", alias="U2"),
    )
    assert (answer.selected, answer.is_paper, answer.session_id) == ("U1234567", True, "s-1")
    with pytest.raises(WireError, match="list of accounts"):
        session.brokerage_accounts({})
    with pytest.raises(WireError, match="query /accounts"):
        session.brokerage_accounts({"error": "Please query /accounts first"})


def test_portfolio_accounts() -> None:
    row = {"id": "U1", "accountId": "U1", "accountTitle": "T", "currency": "USD", "type": "DEMO",
           "tradingType": "STKNOPT", "brokerageAccess": True, "parent": {"accountId": ""}}  # fmt: skip
    (account,) = session.portfolio_accounts([row])
    assert (account.account_id, account.currency, account.can_trade, account.parent) == (
        "U1",
        "USD",
        True,
        None,
    )


def test_stocks() -> None:
    found = contracts.stocks(
        {
            "AAPL": [
                {"name": "APPLE INC", "assetClass": "STK", "contracts": [
                    {"conid": 265598, "exchange": "NASDAQ", "isUS": True},
                    {"conid": 38708077, "exchange": "MEXI", "isUS": False},
                ]},
                {"name": "APPLE INC-CDR", "contracts": [{"conid": 532640894, "exchange": "TSE"}]},
            ],
            "NONE": [],
        }
    )  # fmt: skip
    assert [(x.conid, x.is_us) for x in found["AAPL"]] == [
        (265598, True),
        (38708077, False),
        (532640894, False),
    ]
    assert found["AAPL"][2].name == "APPLE INC-CDR"
    assert found["NONE"] == ()


def test_search_conids_are_text() -> None:
    sections = [{"secType": "STK"}, {"secType": "OPT", "months": "APR26;MAY26", "exchange": "SMART;AMEX;"},
                {"secType": "CFD", "exchange": "SMART", "conid": "134770228"},
                {"secType": "NEW"}]  # fmt: skip
    (hit,) = contracts.search(
        [{"conid": "756733", "symbol": "SPY", "companyName": "S", "description": "ARCA",
          "sections": sections},
         {"conid": None, "symbol": "BOND"}]
    )  # fmt: skip
    assert (hit.conid, hit.description) == (756733, "ARCA")
    assert hit.sections[1].months == ("APR26", "MAY26")
    assert hit.sections[1].exchanges == ("SMART", "AMEX")
    assert hit.sections[2].conid == 134770228
    assert hit.sections[3].security_type is SecurityType.UNKNOWN


INFO: dict[str, Any] = {
    "symbol": "AAPL", "con_id": 265598, "maturity_date": None, "instrument_type": "STK", "currency": "USD",
    "local_symbol": "AAPL", "company_name": "APPLE INC", "exchange": "SMART", "multiplier": None,
    "rules": {"orderTypes": ["limit", "market"], "tifTypes": ["DAY/o,a"], "defaultSize": 100,
              "sizeIncrement": 100, "increment": 0.01, "incrementDigits": 2, "cashCcy": "USD"},
}  # fmt: skip


def test_contract_info_keeps_the_lot_at_one() -> None:
    assert contracts.contract_info(INFO) == Contract(
        conid=265598, symbol="AAPL", security_type=SecurityType.STOCK, company_name="APPLE INC"
    )
    rules = contract_rules.contract_rules(INFO)
    assert (rules.default_size, rules.size_increment, rules.tick_size) == (100, 100, 0.01)
    assert rules.order_types == ("limit", "market")


def test_contract_info_of_other_kinds() -> None:
    pair = contracts.contract_info(
        {"con_id": 12087792, "instrument_type": "CASH", "symbol": "EUR", "local_symbol": "EUR.USD",
         "currency": "USD", "exchange": "IDEALPRO", "rules": {"increment": 0.00005}}
    )  # fmt: skip
    assert (pair.symbol, pair.exchange, pair.tick_size) == ("EUR.USD", "IDEALPRO", 0.00005)
    future = contracts.contract_info(
        {"con_id": "495512572", "instrument_type": "FUT", "symbol": "ES", "currency": "USD",
         "exchange": "CME", "multiplier": "50", "maturity_date": "20261218", "rules": {"increment": 0.25}}
    )  # fmt: skip
    assert (future.conid, future.multiplier, future.last_trade_date) == (495512572, 50.0, "20261218")
    coin = contracts.contract_info(
        {"con_id": 1, "instrument_type": "CRYPTO", "symbol": "BTC", "rules": {"sizeIncrement": 1e-8}}
    )
    assert coin.size_increment == 1e-8
    assert (
        contracts.contract_info({"con_id": 1, "instrument_type": "XYZ"}).security_type is SecurityType.UNKNOWN
    )
    with pytest.raises(WireError, match="con_id"):
        contracts.contract_info({"instrument_type": "STK"})


def test_secdef_and_info() -> None:
    (row,) = contracts.secdef(
        {"secdef": [{"conid": 756733, "currency": "USD", "name": "SPDR", "assetClass": "STK", "strike": "0",
                     "ticker": "SPY", "multiplier": 0.0, "listingExchange": "ARCA",
                     "incrementRules": [{"increment": 0.01, "lowerEdge": 0.0}]}]}
    )  # fmt: skip
    assert (row.symbol, row.multiplier, row.strike, row.listing_exchange) == ("SPY", 1.0, None, "ARCA")
    assert row.exchange == "SMART"
    stock = {"conid": 8314, "currency": "USD", "exchange": "SMART", "right": "?", "secType": "STK",
             "strike": 0.0, "ticker": "IBM", "listingExchange": "NYSE", "maturityDate": None}  # fmt: skip
    assert contracts.secdef_info([stock]) == contracts.secdef_info(stock)
    assert contracts.secdef_info(stock)[0].right is None
    option = {**stock, "secType": "OPT", "right": "C", "strike": "250", "maturityDate": "20261218"}
    (call,) = contracts.secdef_info([option])
    assert (call.right, call.strike, call.last_trade_date) == ("C", 250.0, "20261218")


def test_futures_pairs_strikes() -> None:
    expiry = {"symbol": "ES", "conid": 1, "underlyingConid": 2, "expirationDate": 20260618, "ltd": 20260617}
    (row,) = contracts.futures({"ES": [expiry]})["ES"]
    assert (row.expiration_date, row.last_trade_date, row.underlying_conid) == ("20260618", "20260617", 2)
    (pair,) = contracts.currency_pairs({"USD": [{"symbol": "EUR.USD", "conid": 12087792, "ccyPair": "EUR"}]})
    assert pair == contracts.CurrencyPair(symbol="EUR.USD", conid=12087792, other_currency="EUR")
    assert contracts.strikes({"call": [50.0, 100], "put": ["50"]}).call == (50.0, 100.0)


SPY: dict[str, Any] = {
    "symbol": "SPY", "priceFactor": 100, "startTime": "20260402-13:30:00", "volumeFactor": 40,
    "mktDataDelay": 0, "outsideRth": False, "points": 1,
    "data": [{"o": 646.85, "c": 647.37, "h": 647.44, "l": 646.69, "v": 6730.7, "t": 1775136660000},
             {"o": 646.42, "c": 646.86, "h": 647.47, "l": 646.38, "v": 17219.125, "t": 1775136600000}],
}  # fmt: skip


def test_history_volume_and_order() -> None:
    page = history.history(SPY, MINUTE)
    start = 1775136600 * NS_PER_S
    assert page.bars == (
        Bar(start, start + MINUTE, 646.42, 647.47, 646.38, 646.86, 688765.0),
        Bar(start + MINUTE, start + 2 * MINUTE, 646.85, 647.44, 646.69, 647.37, 269228.0),
    )
    assert (page.volume_factor, page.start_ns, page.delayed) == (40.0, start, False)


def test_history_placeholder_and_duplicates() -> None:
    empty = history.history({"points": 0, "data": [{"o": 0.0, "c": 0.0}]}, MINUTE)
    assert (empty.bars, empty.dropped) == ((), 1)
    first = {"t": 1775136600000, "o": 1, "h": 1, "l": 1, "c": 1}
    page = history.history({"data": [first, {**first, "c": 2, "v": "3"}]}, MINUTE)
    assert [(bar.close, bar.volume) for bar in page.bars] == [(2.0, 3.0)]
    with pytest.raises(WireError, match="Chart data unavailable"):
        history.history({"error": "Chart data unavailable"}, MINUTE)
    with pytest.raises(WireError, match="volume factor"):
        history.history({**SPY, "volumeFactor": 0}, MINUTE)


@pytest.mark.parametrize(
    ("span", "bar", "day", "word"),
    [
        (5 * MINUTE, MINUTE, 24 * 60, "5min"),
        (20 * 60 * MINUTE, MINUTE, 24 * 60, "8h"),
        (20 * 60 * MINUTE, MINUTE, 390, "1d"),
        (90 * 24 * 60 * MINUTE, MINUTE, 390, "1d"),
        (3 * 24 * 60 * MINUTE, 60 * MINUTE, 24 * 60, "3d"),
        (24 * 60 * MINUTE, 24 * 60 * MINUTE, 24 * 60, "2d"),
        (200 * 24 * 60 * MINUTE, 24 * 60 * MINUTE, 24 * 60, "7m"),
        (9000 * 24 * 60 * MINUTE, 24 * 60 * MINUTE, 24 * 60, "2y"),
    ],
)
def test_period_words(span: int, bar: int, day: int, word: str) -> None:
    found, length = history.period_word(span, bar, day * MINUTE)
    assert found == word
    assert history.allowed(length, bar)


def test_bar_words() -> None:
    assert history.BAR_WORDS[MINUTE] == "1min"
    assert history.BAR_WORDS[24 * 60 * MINUTE] == "1d"
    with pytest.raises(WireError):
        history.period_word(MINUTE, 7 * MINUTE)


QQQ: dict[str, Any] = {
    "acctId": "U1234567", "conid": 320227571, "contractDesc": "QQQ", "position": 3.0, "mktPrice": 584.6799927,
    "mktValue": 1754.04, "currency": "USD", "avgCost": 584.31333335, "avgPrice": 584.31333335,
    "realizedPnl": 0.0, "unrealizedPnl": 1.1, "multiplier": None, "strike": 0.0, "assetClass": "STK",
}  # fmt: skip
POSITION = Position(
    account="U1234567", conid=320227571, symbol="QQQ", quantity=Decimal(3), average_price=584.31333335,
    average_cost=584.31333335, market_price=584.6799927, market_value=1754.04, currency="USD",
    security_type="STK", realized_pnl=0.0, unrealized_pnl=1.1,
)  # fmt: skip


def test_positions() -> None:
    assert portfolio.positions([QQQ]) == (POSITION,)
    assert portfolio.positions({"U1234567": [QQQ]}) == (POSITION,)
    assert portfolio.positions([]) == ()
    no_price = {k: v for k, v in QQQ.items() if k != "avgPrice"} | {"avgCost": 500.0, "multiplier": "50"}
    assert portfolio.positions([no_price])[0].average_price == 10.0
    with pytest.raises(WireError):
        portfolio.positions([{**QQQ, "position": None}])
    with pytest.raises(WireError):
        portfolio.positions([{**QQQ, "avgPrice": None, "avgCost": ""}])


def test_positions2_has_other_names() -> None:
    row = {"position": 3.0, "conid": "320227571", "avgCost": 584.3, "avgPrice": 584.3, "currency": "USD",
           "description": "QQQ", "marketPrice": 584.6, "marketValue": 1754.0, "realizedPnl": 0.0,
           "secType": "STK", "timestamp": 1775169611, "unrealizedPnl": 1.0, "assetClass": "STK"}  # fmt: skip
    (found,) = portfolio.positions2([row], "U1")
    assert (found.account, found.conid, found.market_price) == ("U1", 320227571, 584.6)


def test_ledger() -> None:
    line = {"settledcash": 971869.6, "exchangerate": 1, "cashbalance": 971869.6,
            "netliquidationvalue": 1005165.5, "unrealizedpnl": 151.57, "stockmarketvalue": 30613.4,
            "realizedpnl": 0.0, "currency": "USD",
            "key": "LedgerList", "timestamp": 1775169606, "secondkey": "USD"}  # fmt: skip
    found = portfolio.ledger({"USD": line, "BASE": {**line, "currency": "BASE", "secondkey": "BASE"}})
    assert list(found) == ["USD", "BASE"]
    assert found["USD"] == LedgerLine(
        currency="USD", cash=971869.6, settled_cash=971869.6, net_liquidation=1005165.5, stock_value=30613.4,
        realized_pnl=0.0, unrealized_pnl=151.57, exchange_rate=1.0, time_ns=1775169606 * NS_PER_S,
    )  # fmt: skip
    with pytest.raises(WireError, match="cashbalance"):
        portfolio.ledger({"USD": {}})


def test_summary_and_pnl() -> None:
    found = portfolio.summary(
        {
            "accountcode": {"amount": 0.0, "currency": None, "isNull": False, "timestamp": 1775169606,
                            "value": "U1"},
            "netliquidation": {"amount": 1005165.5, "currency": "USD", "timestamp": 1775169606000,
                               "value": "1005165.5"},
        }
    )  # fmt: skip
    assert (found["accountcode"].amount, found["accountcode"].text) == (None, "U1")
    assert found["netliquidation"].amount == 1005165.5
    assert found["netliquidation"].time_ns == found["accountcode"].time_ns == 1775169606 * NS_PER_S
    assert portfolio.pnl_partitioned({"upnl": {}}) == ()
    (pnl,) = portfolio.pnl_partitioned(
        {"upnl": {"U1234567.Core": {"dpl": -12510.0, "nl": 1290000.0, "upl": 256000.0, "el": 824600.0}}}
    )
    assert (pnl.account, pnl.daily, pnl.excess_liquidity, pnl.market_value) == (
        "U1234567",
        -12510.0,
        824600.0,
        None,
    )


def test_tags() -> None:
    assert (tags.ASK_SIZE, tags.BID_SIZE, tags.LAST_SIZE) == ("85", "88", "7059")
    assert len(tags.NAMES) == 120
    assert set(tags.NAMES) > tags.INTEGERS | tags.UNDOCUMENTED


def test_tags_are_those_of_the_facts(field_tags: dict[str, dict[str, Any]]) -> None:
    assert set(tags.NAMES) == set(field_tags)
    assert {k for k, v in field_tags.items() if v["type"] == "integer"} == tags.INTEGERS
