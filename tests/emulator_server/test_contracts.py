"""Look-up of contracts, history and snapshots."""

from __future__ import annotations

from typing import Any

import pytest


async def test_stocks(api: Any) -> None:
    found = await api.get("/trsrv/stocks", symbols="AAPL,NOSUCH")
    assert found["NOSUCH"] == []
    contracts = [contract for company in found["AAPL"] for contract in company["contracts"]]
    assert {"conid": 265598, "exchange": "NASDAQ", "isUS": True} in contracts
    assert sum(contract["isUS"] for contract in contracts) == 1


async def test_futures_pairs_and_rates(api: Any) -> None:
    rows = (await api.get("/trsrv/futures", symbols="ES"))["ES"]
    assert [row["expirationDate"] for row in rows] == sorted(row["expirationDate"] for row in rows)
    pairs = (await api.get("/iserver/currency/pairs", currency="USD"))["USD"]
    assert {"symbol": "EUR.USD", "conid": 12087792, "ccyPair": "EUR"} in pairs
    assert (await api.get("/iserver/exchangerate", source="EUR", target="USD"))["rate"] > 1
    assert (await api.ask("GET", "/iserver/exchangerate", source="EUR", target="XXX"))[0] == 400


async def test_search_comes_before_info(api: Any) -> None:
    assert (await api.ask("GET", "/iserver/secdef/info", conid="265598", sectype="STK"))[0] == 400
    rows = await api.get("/iserver/secdef/search", symbol="AAPL")
    assert rows[0]["conid"] == "265598"
    (row,) = await api.get("/iserver/secdef/info", conid="265598", sectype="STK")
    assert (row["conid"], row["right"]) == (265598, "?")
    assert "error" in await api.get("/iserver/secdef/search", symbol="NOSUCH")
    assert [r["symbol"] for r in await api.get("/iserver/secdef/search", symbol="apple", name="true")][
        :1
    ] == ["AAPL"]


async def test_schedules(api: Any) -> None:
    path = "/trsrv/secdef/schedule"
    status, body = await api.ask("GET", path, assetClass="STK")
    assert status == 400
    assert body["error"] == "Bad Request: assetClass and exactly one of symbol/conid are required"
    assert await api.get(path, assetClass="STK", symbol="SPY", exchange="SMART") == []
    (row,) = await api.get(path, assetClass="STK", conid="756733")
    assert [day["tradingScheduleDate"] for day in row["schedules"]] == [f"200001{n:02d}" for n in range(1, 8)]


async def test_unknown_contract(api: Any) -> None:
    assert (await api.ask("GET", "/iserver/contract/5/info"))[0] == 503
    assert (await api.ask("GET", "/iserver/contract/5/algos"))[0] == 503
    assert (await api.ask("GET", "/iserver/contract/abc/info"))[0] == 400


async def test_snapshot(api: Any) -> None:
    await api.step(max_events=100)
    path = "/iserver/marketdata/snapshot"
    first = await api.get(path, conids="265598,5", fields="31,84,86")
    assert first[0] == {"conidEx": "265598", "conid": 265598}
    assert (first[1]["31"], first[1]["55"]) == ("N/A", "-")
    (row,) = await api.get(path, conids="265598", fields="31,84,86,7762")
    assert isinstance(row["84"], str)
    assert "7762" not in row
    (row,) = await api.get(path, conids="265598", fields="31,84,86,7762")
    assert isinstance(row["7762"], str)
    assert (await api.ask("GET", path, conids=",".join(["265598"] * 101), fields="31"))[0] == 400
    assert (await api.ask("GET", path, conids="1", fields=",".join(map(str, range(51)))))[0] == 400
    assert (await api.ask("GET", path, conids="x", fields="31"))[0] == 400


async def test_history(api: Any) -> None:
    path = "/iserver/marketdata/history"
    now_ns = (await api.step(max_events=2000))["now_ns"]
    body = await api.get(path, conid="265598", period="1d", bar="1min")
    bars = body["data"]
    assert body["points"] == len(bars) - 1
    assert body["volumeFactor"] == 40
    last_minute_ms = now_ns // 60_000_000_000 * 60_000
    assert bars[-1]["t"] == last_minute_ms
    assert sum(bar["v"] for bar in bars) * 40 == pytest.approx(
        (await api.control("book", conid=265598))["quote"]["volume"]
    )
    # startTime is the end of the window.
    earlier = await api.get(path, conid="265598", period="5min", bar="1min", startTime="20260302-14:38:00")
    assert [bar["t"] for bar in earlier["data"]] == [1772461980000 + 60_000 * n for n in range(5)]


async def test_history_edges(api: Any) -> None:
    path = "/iserver/marketdata/history"
    empty = await api.get(path, conid="265598", period="1d", bar="1min", startTime="20200101-00:00:00")
    assert (empty["data"], empty["points"]) == ([{"o": 0.0, "c": 0.0}], 0)
    assert await api.ask("GET", path, conid="5", period="1d", bar="1min") == (
        500,
        {"error": "Chart data unavailable"},
    )
    for wrong in (
        {"period": "1x"},
        {"bar": "7min"},
        {"period": "1y", "bar": "1min"},
        {"source": "moon"},
        {"startTime": "yesterday"},
    ):
        assert (await api.ask("GET", path, **({"conid": "265598", "period": "1d"} | wrong)))[0] == 400, wrong
    ahead = await api.get(path, conid="265598", period="1d", bar="1min", startTime="20991231-00:00:00")
    now_ms = (await api.control("state"))["now_ns"] // 1_000_000
    assert all(bar.get("t", 0) <= now_ms for bar in ahead["data"])


async def test_positions_get_names_with_the_second_read(api: Any) -> None:
    await api.step(max_events=50)
    await api.place()
    (first,) = await api.get("/portfolio/DU1234567/positions/0")
    (second,) = await api.get("/portfolio/DU1234567/positions/0")
    assert "name" not in first
    assert second["name"] == "APPLE INC"
    assert await api.get("/portfolio/DU1234567/positions/1") == []
    (other,) = await api.get("/portfolio2/DU1234567/positions")
    assert other["conid"] == "265598"
    assert list(await api.get("/portfolio/positions/265598")) == ["DU1234567"]
