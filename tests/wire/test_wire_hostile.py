"""No input makes a parser raise anything but ``WireError``: bytes, any JSON, damaged recordings."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bt_ibkr.errors import WireError
from bt_ibkr.wire import contract_rules, contracts, history, json, orders, portfolio, session
from bt_ibkr.wire import stream_events as events

ORDER_ROW = {
    "acct": "U1",
    "account": "U1",
    "conid": 265598,
    "orderId": 912091175,
    "ticker": "AAPL",
    "totalSize": 1.0,
    "remainingQuantity": 1.0,
    "filledQuantity": 0.0,
    "status": "Inactive",
    "order_ccp_status": "Pending Submit",
    "origOrderType": "LIMIT",
    "orderType": "Limit",
    "price": "1.00",
    "timeInForce": "CLOSE",
    "avgPrice": "1",
    "lastExecutionTime": "260430123533",
    "lastExecutionTime_r": 1777552533000,
    "side": "BUY",
    "order_ref": "a",
    "parentId": 5,
    "ocaGroupId": "5",
    "auxPrice": "2",
    "limit_price": "",
    "stop_price": 3,
}
TRADE = {
    "execution_id": "0001390e.69f21453.01.01",
    "symbol": "LRCX",
    "side": "B",
    "trade_time": "20260429-14:29:34",
    "trade_time_r": 1777472974000,
    "size": 2.0,
    "price": "248.60",
    "exchange": "NASDAQ",
    "commission": "1.0",
    "account": "U1",
    "accountCode": "U1",
    "conid": 732440574,
    "conidEx": "732440574@X",
    "order_id": 96335105,
    "order_ref": "a",
}
STATUS = {
    "order_id": 245323648,
    "conid": 265598,
    "symbol": "AAPL",
    "side": "B",
    "size": "0.0",
    "total_size": "1.0",
    "account": "U1",
    "order_type": "MARKET",
    "limit_price": "",
    "cum_fill": "1.0",
    "order_status": "Filled",
    "order_ccp_status": "2",
    "tif": "DAY",
    "average_price": "317.56",
    "order_time": "260908135810",
}
AUTH = {
    "authenticated": True,
    "established": True,
    "competing": False,
    "connected": True,
    "message": "",
    "serverInfo": {"serverName": "J", "serverVersion": "B"},
    "fail": "",
}
ACCOUNTS = {
    "accounts": ["U1"],
    "acctProps": {"U1": {"supportsFractions": True}},
    "aliases": {"U1": "U1"},
    "selectedAccount": "U1",
    "sessionId": "s",
    "isPaper": True,
}
INFO = {
    "symbol": "ES",
    "con_id": 1,
    "maturity_date": "20261218",
    "instrument_type": "FUT",
    "currency": "USD",
    "local_symbol": "ESZ6",
    "company_name": "E-mini",
    "exchange": "CME",
    "multiplier": "50",
    "strike": 0.0,
    "right": "?",
    "rules": {
        "orderTypes": ["limit"],
        "defaultSize": 100,
        "sizeIncrement": 100,
        "increment": 0.25,
        "incrementRules": [{"lowerEdge": 0, "increment": 1}],
    },
}
SECDEF = {
    "conid": 1,
    "currency": "USD",
    "name": "S",
    "assetClass": "OPT",
    "ticker": "SPY",
    "strike": "5",
    "multiplier": 100,
    "listingExchange": "ARCA",
    "putOrCall": "C",
    "expiry": "20261218",
    "incrementRules": [{"increment": 0.01, "lowerEdge": 0.0}],
}
HISTORY = {
    "symbol": "SPY",
    "priceFactor": 100,
    "startTime": "20260402-13:30:00",
    "mktDataDelay": 0,
    "outsideRth": False,
    "volumeFactor": 40,
    "points": 0,
    "data": [{"o": 1.5, "c": 1.6, "h": 1.7, "l": 1.4, "v": 17.125, "t": 1775136600000}],
}
POSITION = {
    "acctId": "U1",
    "conid": 1,
    "contractDesc": "QQQ",
    "position": 3.0,
    "mktPrice": 5.0,
    "mktValue": 1.0,
    "currency": "USD",
    "avgCost": 5.0,
    "avgPrice": 5.0,
    "realizedPnl": 0.0,
    "unrealizedPnl": 1.1,
    "multiplier": None,
    "assetClass": "STK",
}
LEDGER = {
    "settledcash": 1.0,
    "exchangerate": 1,
    "cashbalance": 1.0,
    "netliquidationvalue": 1.0,
    "stockmarketvalue": 1.0,
    "unrealizedpnl": 1.0,
    "realizedpnl": 0.0,
    "key": "LedgerListUSD",
    "timestamp": 1775169606,
    "secondkey": "USD",
    "currency": "USD",
}
QUESTION = {
    "id": "r",
    "message": ["Sure?"],
    "isSuppressed": False,
    "messageIds": ["o354"],
    "messageOptions": ["Yes"],
}
ACK = {"order_id": "5", "order_status": "Submitted", "local_order_id": "a", "parent_order_id": "4"}
SENTINEL = {"order_id": "-1", "order_status": "Failed", "text": "no", "warning_message": "no"}
PROMPT = {
    "orderId": 5,
    "reqId": "22170",
    "text": "Use it?",
    "options": ["Yes"],
    "messageId": "p12",
    "prompt": True,
}
WHATIF = {
    "amount": {"amount": "1,977.60 USD (10 Shares)", "commission": "1 USD", "total": "1,978.60 USD"},
    "equity": {"current": "1", "change": "-1", "after": "0"},
    "warn": "21/x",
    "warns": ["x"],
    "error": None,
}
SUMMARY = {
    "key": "NetLiquidation",
    "amount": 1.0,
    "currency": "USD",
    "isNull": False,
    "timestamp": 1775169606,
    "value": "1.0",
}

Case = tuple[Callable[[object], object], object]
CASES: dict[str, Case] = {
    "auth_status": (session.auth_status, AUTH),
    "tickle": (
        session.tickle,
        {"session": "a", "ssoExpires": 1, "userId": 1, "collission": False, "iserver": {"authStatus": AUTH}},
    ),
    "brokerage_accounts": (session.brokerage_accounts, ACCOUNTS),
    "portfolio_accounts": (
        session.portfolio_accounts,
        [
            {
                "id": "U1",
                "accountId": "U1",
                "currency": "USD",
                "brokerageAccess": True,
                "parent": {"accountId": ""},
            }
        ],
    ),
    "stocks": (
        contracts.stocks,
        {"A": [{"name": "A", "contracts": [{"conid": 1, "exchange": "N", "isUS": True}]}]},
    ),
    "search": (
        contracts.search,
        [
            {
                "conid": "1",
                "symbol": "S",
                "description": "N",
                "companyName": "S",
                "sections": [{"secType": "OPT", "months": "A;B", "exchange": "S;", "conid": "5"}],
            }
        ],
    ),
    "contract_info": (contracts.contract_info, INFO),
    "contract_rules": (contract_rules.contract_rules, INFO),
    "secdef": (contracts.secdef, {"secdef": [SECDEF]}),
    "secdef_info": (contracts.secdef_info, [SECDEF]),
    "futures": (
        contracts.futures,
        {
            "ES": [
                {
                    "symbol": "ES",
                    "conid": 1,
                    "underlyingConid": 2,
                    "expirationDate": 20260618,
                    "ltd": 20260618,
                }
            ]
        },
    ),
    "currency_pairs": (
        contracts.currency_pairs,
        {"USD": [{"symbol": "EUR.USD", "conid": 1, "ccyPair": "EUR"}]},
    ),
    "strikes": (contracts.strikes, {"call": [1.0], "put": [1.0]}),
    "history": (lambda body: history.history(body, 60 * 10**9), HISTORY),
    "submission": (orders.submission, [ACK, SENTINEL, QUESTION]),
    "submission_question": (orders.submission, [QUESTION, QUESTION]),
    "submission_prompt": (orders.submission, PROMPT),
    "submission_error": (orders.submission, {"error": "no", "statusCode": 400}),
    "submission_503": (lambda body: orders.submission(body, 503), {"error": "no", "statusCode": 503}),
    "cancel_answer": (orders.cancel_answer, {"msg": "Request was submitted", "order_id": 5, "conid": -1}),
    "live_orders": (orders.live_orders, {"orders": [ORDER_ROW], "snapshot": True}),
    "order_status": (orders.order_status, STATUS),
    "trades": (orders.trades, [TRADE]),
    "whatif": (orders.whatif, WHATIF),
    "positions": (portfolio.positions, [POSITION]),
    "positions_by_account": (portfolio.positions, {"U1": [POSITION]}),
    "positions2": (portfolio.positions2, [POSITION]),
    "ledger": (portfolio.ledger, {"USD": LEDGER}),
    "summary": (portfolio.summary, {"netliquidation": SUMMARY}),
    "pnl_partitioned": (
        portfolio.pnl_partitioned,
        {"upnl": {"U1.Core": {"dpl": 1, "nl": 1, "upl": 1, "mv": 1}}},
    ),
    "order_reports": (events.order_reports, [ORDER_ROW]),
    "executions": (events.executions, [TRADE]),
    "account_pnl": (events.account_pnl, {"U1.Core": {"dpl": 1, "nl": 1, "upl": 1, "el": 1, "mv": 1}}),
    "ledger_lines": (events.ledger_lines, [LEDGER, {"key": "LedgerListUSD", "timestamp": 1}]),
    "summary_lines": (events.summary_lines, [SUMMARY]),
    "notices": (events.notices, [{"id": "1", "text": "x", "title": None, "url": None}, PROMPT]),
    "bulletins": (events.bulletins, [{"id": 1, "exchanges": None, "message": "x"}]),
    "status_patch": (events.status_patch, AUTH),
    "accounts": (events.accounts, ACCOUNTS),
}

DAMAGE: tuple[object, ...] = (
    None,
    "",
    "x",
    "5",
    5,
    -5,
    1.5,
    float("nan"),
    10**5000,
    True,
    [],
    {},
    [None],
    {"a": []},
)
TEXTS = st.one_of(
    st.text(max_size=8),
    st.sampled_from(
        ["", "-1", "N/A", "nan", "1e400", "9" * 400, "1_0", "٣", "C1.5", "-", "Filled", "BUY", "N", "2%"]
    ),
)
NUMBERS = st.one_of(
    st.integers(),
    st.floats(),
    st.sampled_from(
        [10**400, -(10**400), 10**4000, 2**63, -(2**63), -1, 0, 1e308, float("nan"), float("-inf")]
    ),
)
SCALARS = st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=8,
)


def _read(parse: Callable[[object], object], body: object) -> None:
    """Call ``parse``; a refusal by ``WireError`` is as good as an answer."""
    with contextlib.suppress(WireError):
        parse(body)


def _places(value: object, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path]
    if isinstance(value, dict):
        for key, inner in value.items():
            found += _places(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            found += _places(inner, (*path, index))
    return found


def _damaged(body: object, path: tuple[Any, ...], new: object, *, drop: bool) -> object:
    if not path:
        return new
    result = copy.deepcopy(body)
    holder: Any = result
    for step in path[:-1]:
        holder = holder[step]
    if drop:
        del holder[path[-1]]
    else:
        holder[path[-1]] = new
    return result


@pytest.mark.parametrize("name", CASES)
def test_the_undamaged_body_is_read(name: str) -> None:
    parse, body = CASES[name]
    if name == "submission_503":
        with pytest.raises(WireError):
            parse(body)
        return
    parse(body)
    parse(msgspec.json.encode(body))


@pytest.mark.parametrize("name", CASES)
def test_each_key_missing_or_replaced(name: str) -> None:
    parse, body = CASES[name]
    for path in _places(body):
        if path:
            _read(parse, _damaged(body, path, None, drop=True))
        for new in DAMAGE:
            _read(parse, _damaged(body, path, new, drop=False))


@pytest.mark.parametrize("name", CASES)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_damaged_bodies(name: str, data: st.DataObject) -> None:
    parse, body = CASES[name]
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from(_places(body)))
        body = _damaged(body, path, data.draw(JSON), drop=bool(path) and data.draw(st.booleans()))
    _read(parse, body)


@pytest.mark.parametrize("name", CASES)
@settings(max_examples=40, deadline=None)
@given(body=JSON)
def test_arbitrary_json(name: str, body: object) -> None:
    _read(CASES[name][0], body)


@settings(max_examples=300, deadline=None)
@given(body=st.binary(max_size=60))
def test_arbitrary_bytes(body: bytes) -> None:
    for parse, _ in CASES.values():
        _read(parse, body)
    _read(json.decode, body)  # type: ignore[arg-type]
    assert json.describe(body)


@settings(max_examples=200, deadline=None)
@given(body=JSON)
def test_error_text_never_raises(body: object) -> None:
    found = json.error_text(body)
    assert found is None or found


@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'[{"orders":'])
def test_deep_nesting(opening: bytes) -> None:
    for parse, _ in CASES.values():
        _read(parse, opening * 100_000)
