"""Session tiers, preconditions, errors at the edge, pacing."""

from __future__ import annotations

from typing import Any

import pytest

ACCOUNT = "DU1234567"


async def test_accounts_come_first(make: Any) -> None:
    api = await make(primed=False)
    first = (500, {"error": "Please query /accounts first"})
    assert await api.ask("GET", "/iserver/account/orders") == first
    assert await api.ask("GET", "/iserver/account/trades") == first
    assert await api.ask("GET", "/iserver/marketdata/snapshot", conids="265598", fields="31") == first
    assert await api.ask("GET", "/iserver/account/order/status/1") == first
    await api.get("/iserver/accounts")
    assert await api.get("/iserver/account/orders") == {"orders": [], "snapshot": False}


async def test_portfolio_is_empty_before_its_accounts_were_asked(make: Any) -> None:
    api = await make(primed=False)
    assert await api.get(f"/portfolio/{ACCOUNT}/positions/0") == []
    assert await api.get(f"/portfolio/{ACCOUNT}/ledger") == {}
    await api.get("/portfolio/accounts")
    assert (await api.get(f"/portfolio/{ACCOUNT}/ledger"))["BASE"]["cashbalance"] == 1_000_000.0


async def test_no_bridge(make: Any) -> None:
    api = await make(primed=False, login="no_bridge")
    status = await api.get("/iserver/auth/status")
    assert (status["connected"], status["authenticated"]) == (True, False)
    answer = await api.ask("GET", "/iserver/accounts")
    assert answer == (400, {"error": "Bad Request: no bridge", "statusCode": 400})
    assert (await api.ask("POST", "/iserver/auth/ssodh/init", {"publish": False}))[0] == 500
    opened = await api.post("/iserver/auth/ssodh/init", {"publish": True, "compete": True})
    assert opened["authenticated"] is True
    await api.get("/iserver/accounts")


async def test_logout(api: Any) -> None:
    before = (await api.get("/tickle"))["session"]
    assert await api.post("/logout") == {"status": True}
    status = await api.get("/iserver/auth/status")
    assert status == {
        "authenticated": False,
        "established": False,
        "competing": False,
        "connected": False,
        "MAC": None,
    }
    assert await api.get("/tickle") == {"error": "no session"}
    assert await api.ask("GET", "/portfolio/accounts") == (401, "not authenticated")
    await api.control("session", {"state": "ready"})
    assert (await api.get("/tickle"))["session"] != before
    assert (await api.ask("GET", "/iserver/account/orders"))[0] == 500


async def test_switch_account(make: Any) -> None:
    api = await make(accounts=(ACCOUNT, "DU7654321"))
    assert await api.post("/iserver/account", {"acctId": ACCOUNT}) == {"success": "Account already set"}
    assert (await api.post("/iserver/account", {"acctId": "DU7654321"}))["set"] is True
    assert (await api.get("/iserver/accounts"))["selectedAccount"] == "DU7654321"
    assert (await api.ask("POST", "/iserver/account", {"acctId": "U0"}))[0] == 500


async def test_unknown_path_is_html(api: Any) -> None:
    status, body = await api.ask("GET", "/iserver/nothing")
    assert (status, body) == (404, "<html><body><h1>Resource not found</h1></body></html>")
    assert (await api.ask("DELETE", "/tickle"))[0] == 404


async def test_post_without_length(api: Any) -> None:
    async def chunks() -> Any:
        yield b"{}"

    async with api.http.post(f"{api.server.url}/tickle", data=chunks()) as answer:
        assert answer.status == 411


async def test_body_that_is_no_json(api: Any) -> None:
    url = f"{api.server.url}/iserver/account/{ACCOUNT}/orders"
    async with api.http.post(url, data=b"{nonsense", headers={"Content-Type": "application/json"}) as answer:
        assert answer.status == 400
        assert "Failed to parse body as JSON" in (await answer.json())["error"]


async def test_wrong_account(api: Any) -> None:
    answer = await api.ask("GET", "/portfolio/DUH724521/ledger")
    assert answer == (400, {"error": "Bad Request: accountId is not valid: DUH724521", "statusCode": 400})


async def test_cookie_and_headers(api: Any) -> None:
    async with api.http.get(f"{api.server.url}/tickle") as answer:
        assert "x-sess-uuid" in answer.headers["Set-Cookie"]
        assert "Path=/sso" in answer.headers["Set-Cookie"]
        assert answer.headers["Content-Type"] == "application/json; charset=utf-8"


async def test_suppression(api: Any) -> None:
    path = "/iserver/questions/suppress"
    assert await api.post(path, {"messageIds": ["o163", "oxyz"]}) == {"status": "submitted"}
    assert (await api.ask("POST", path, {"messageIds": []}))[0] == 500
    assert (await api.ask("POST", path, {"messageIds": [f"o{n}" for n in range(52)]}))[0] == 400
    assert await api.post(f"{path}/reset") == {"status": "submitted"}


async def test_notification_is_answered_in_plain_text(api: Any) -> None:
    body = {"orderId": 1, "reqId": "2", "text": "Yes"}
    assert await api.ask("POST", "/iserver/notification", body) == (200, "Request was submitted")


async def test_strict_pacing_has_a_penalty_box(make: Any) -> None:
    api = await make(primed=False, pacing="strict", penalty_s=900.0)
    statuses = [(await api.ask("GET", "/iserver/auth/status"))[0] for _ in range(12)]
    assert statuses.count(200) == 10
    assert statuses[-1] == 429
    assert (await api.ask("GET", "/tickle"))[0] == 429
    assert (await api.control("state"))["requests_refused"] >= 3
    await api.control("pacing", {"strict": True})
    assert (await api.ask("GET", "/portfolio/accounts"))[0] == 200
    assert (await api.ask("GET", "/portfolio/accounts"))[0] == 429


@pytest.mark.parametrize("path", ["/tickle/", "/iserver/auth/status/"])
async def test_slash_at_the_end(api: Any, path: str) -> None:
    assert (await api.ask("GET", path))[0] == 200
