"""Every answer has at least the keys and JSON types of the recorded one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest

ACCOUNT = "DU1234567"
FIXTURES = Path(__file__).parents[2].parent / "shared" / "ibkr" / "fixtures" / "rest-fixtures.jsonl"
#: What a recorded request needs besides its path.
QUERIES: dict[str, dict[str, str]] = {
    "Contracts/GET-currency-pairs.json": {"currency": "USD"},
    "Contracts/GET-bond-filters.json": {"symbol": "BOND", "issuerId": "e1359061"},
    "Contracts/GET-secdef-search.json": {"symbol": "SPY"},
    "Contracts/GET-secdef-strikes.json": {"conid": "756733", "sectype": "OPT", "month": "APR26"},
    "Contracts/GET-trading-schedule.json": {"conid": "756733"},
    "Contracts/GET-trsrv-all-conids.json": {"exchange": "NASDAQ"},
    "Contracts/GET-trsrv-secdef.json": {"conids": "756733"},
    "Contracts/GET-trsrv-stocks.json": {"symbols": "AAPL"},
    "MarketData/GET-history.json": {"conid": "756733", "period": "1d", "bar": "1min"},
}
ORDER = {"conid": 756733, "orderType": "LMT", "price": 1.0, "side": "BUY", "quantity": 1, "tif": "DAY"}
SCAN = {"instrument": "STK", "location": "STK.US.MAJOR", "type": "TOP_PERC_GAIN", "filter": []}
BODIES: dict[str, Any] = {
    "Accounts/POST-switch-account.json": {"acctId": ACCOUNT},
    "Contracts/POST-contract-rules.json": {"conid": 756733, "isBuy": True},
    "Contracts/POST-secdef-search.json": {"symbol": "AAPL"},
    "MarketData/POST-scanner-run.json": SCAN,
    "Scanner/POST-scanner-run.json": SCAN,
    "MarketData/POST-unsubscribe.json": {"conid": 756733},
    "Orders/POST-dismiss-notification.json": {"orderId": 1, "reqId": "1", "text": "Yes"},
    "Orders/POST-modify-order-submitted.json": ORDER,
    "Orders/POST-place-order-submitted.json": {"orders": [ORDER]},
    "Portfolio/POST-portfolio-consolidated-allocation.json": {"acctIds": [ACCOUNT]},
    "Session/POST-ssodh-init.json": {"publish": True, "compete": True},
    "Session/POST-suppress.json": {"messageIds": ["o163"]},
}
#: Need a state of their own; told by test_orders and test_session.
ELSEWHERE = {
    "Orders/POST-place-order-confirmation.json",
    "Orders/POST-reply-submitted.json",
    "Orders/GET-trades-empty.json",
    "machdat recorded after logout",
}
#: Services the emulator does not have.
NOT_SERVED = (
    "/acesws/",
    "/fyi/",
    "/pa/",
    "/iserver/watchlist",
    "/iserver/account/mta",
)


def recorded() -> list[Any]:
    if not FIXTURES.is_file():
        return [pytest.param({}, marks=pytest.mark.skip(reason=f"{FIXTURES.name} is not on this machine"))]
    lines = FIXTURES.read_text(encoding="utf-8").splitlines()[1:]
    rows = [json.loads(line) for line in lines]
    return [
        pytest.param(row, id=row["fixture"])
        for row in rows
        if row["kind"] == "recording"
        and row["fixture"] not in ELSEWHERE
        and not any(part in row["path"] for part in NOT_SERVED)
    ]


def kind(value: object) -> str:
    if isinstance(value, bool):
        return "boolean"
    return "number" if isinstance(value, (int, float)) else type(value).__name__


def missing(told: Any, answer: Any, where: str = "") -> list[str]:
    """What ``told`` has and ``answer`` has not. Null on either side fits anything."""
    if told is None or answer is None:
        return []
    if kind(told) != kind(answer):
        return [f"{where}: {kind(told)} was recorded, {kind(answer)} is answered"]
    found: list[str] = []
    if isinstance(told, dict):
        # Keys that are dates stand for one another.
        if told and all(key.isdigit() and len(key) == 8 for key in told):
            return missing(list(told.values()), list(answer.values()), f"{where}/date")
        for key, value in told.items():
            if key not in answer:
                found.append(f"{where}/{key} is missing")
            else:
                found += missing(value, answer[key], f"{where}/{key}")
    elif isinstance(told, list) and answer:
        for value in told:
            trials: list[list[str]] = [missing(value, one, f"{where}[]") for one in answer]
            found += sorted(trials, key=len)[0]
    return found


def test_the_comparison_itself() -> None:
    assert missing({"a": 1, "b": ["x"]}, {"a": 2.5, "b": ["y", "z"], "c": None}) == []
    assert missing({"a": 1}, {"a": "1"}) == ["/a: number was recorded, str is answered"]
    assert missing({"a": [{"b": True}]}, {"a": [{"c": 1}]}) == ["/a[]/b is missing"]


async def ready(make: Any) -> Any:
    """An account with a position in SPY and a working order."""
    api = await make()
    await api.step(max_events=200)
    await api.place(conid=756733, quantity=44)
    await api.step(max_events=100)
    await api.get("/iserver/secdef/search", symbol="SPY")
    await api.get("/iserver/marketdata/snapshot", conids="756733", fields="31")
    for _ in range(2):
        await api.get("/iserver/account/orders")
        await api.get("/iserver/account/trades")
    return api


@pytest.mark.parametrize("row", recorded())
async def test_shape(make: Any, row: dict[str, Any]) -> None:
    api = await ready(make)
    name, method = row["fixture"], row["method"]
    (working,) = await api.place(conid=756733, orderType="LMT", price=1.0, quantity=1)
    path, _, told_query = row["path"].removeprefix("/v1/api").partition("?")
    path = path.replace("U1234567", ACCOUNT)
    for told in ("602801486", "473740665"):
        path = path.replace(told, working["order_id"])
    status, body = await api.ask(
        method, path, BODIES.get(name), **dict(parse_qsl(told_query)), **QUERIES.get(name, {})
    )
    assert status == row["status"], body
    expected = json.loads(
        json.dumps(row["body"]).replace("DU1234567", "U1234567").replace("U1234567", ACCOUNT)
    )
    if isinstance(expected, dict):
        expected.pop(f"{ACCOUNT}C", None)
    assert missing(expected, body) == []
