"""Contracts of every type over the wire: products, chains, bonds, CFDs, funds, event contracts, hours."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

SEARCH, STRIKES, INFO = "/iserver/secdef/search", "/iserver/secdef/strikes", "/iserver/secdef/info"
ES_INDEX, FED_FUNDS, FED_FUNDS_PRODUCT, SPX = 11004968, 658663572, 658663579, 416904


def sections(row: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {section["secType"]: section for section in row["sections"]}


def utc(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, tz=UTC).strftime("%m-%d %H:%M")


async def test_futures_of_a_product(api: Any) -> None:
    """The market is in March 2026: what has expired is not listed, and there is a front month."""
    rows = (await api.get("/trsrv/futures", symbols="ES,CL,NOPE"))["ES"]
    assert [row["expirationDate"] for row in rows][:3] == [20260320, 20260618, 20260918]
    first = rows[0]
    assert (first["symbol"], first["underlyingConid"], first["ltd"]) == ("ES", ES_INDEX, 20260319)
    crude = (await api.get("/trsrv/futures", symbols="CL", exchange="NYMEX"))["CL"]
    assert 304037511 in [row["conid"] for row in crude]
    assert crude[0]["ltd"] == crude[0]["expirationDate"] == 20260320
    assert (await api.get("/trsrv/futures", symbols="CL", exchange="CME")) == {"CL": []}
    info = await api.get(f"/iserver/contract/{first['conid']}/info")
    assert (info["local_symbol"], info["contract_month"], info["maturity_date"]) == (
        "ESH6",
        "202603",
        "20260320",
    )
    assert (info["instrument_type"], info["multiplier"], info["underlying_con_id"]) == ("FUT", "50", ES_INDEX)


async def test_a_product_and_what_is_on_it(api: Any) -> None:
    assert (await api.ask("GET", INFO, conid=str(ES_INDEX), sectype="FUT", month="JUN26"))[0] == 400
    (row,) = await api.get(SEARCH, symbol="ES", secType="FUT")
    assert (row["conid"], row["companyHeader"]) == (str(ES_INDEX), "E-mini S&P 500 - CME")
    on = sections(row)
    assert list(on) == ["IND", "FUT", "FOP", "BAG", "EC"]
    assert on["IND"]["exchange"] == "CME;"
    assert on["FUT"]["months"].startswith("MAR26;JUN26;SEP26;DEC26;MAR27")
    assert on["FOP"]["months"] == "MAR26;APR26;MAY26;JUN26"
    (june,) = await api.get(INFO, conid=str(ES_INDEX), sectype="FUT", month="JUN26", exchange="CME")
    assert (june["maturityDate"], june["secType"], june["right"]) == ("20260618", "FUT", "?")
    # a search by a name is enough for futures, but not for strikes
    asked = {"conid": str(ES_INDEX), "sectype": "FOP", "month": "MAR26"}
    assert await api.get(STRIKES, **asked) == {"call": [], "put": []}
    listed = (await api.get(STRIKES, **asked, exchange="CME"))["call"]
    assert 6700.0 in listed
    await api.get(SEARCH, symbol="E-mini S&P", name="true")
    assert await api.get(STRIKES, **asked, exchange="CME") == {"call": [], "put": []}
    await api.get(SEARCH, symbol="ES")
    assert (await api.get(STRIKES, **asked, exchange="CME"))["call"] == listed
    found = await api.get(INFO, **asked, exchange="CME", strike="6700")
    classes = {(one["tradingClass"], one["right"]) for one in found}
    assert classes == {("ES", "C"), ("ES", "P"), ("ECES", "C"), ("ECES", "P")}
    option = next(one for one in found if one["tradingClass"] == "ES")
    assert option["desc2"] == "(ES) Mar20'26 6700 Call Fut.Option(50) @CME"
    assert option["multiplier"] == "50"
    event = next(one for one in found if one["tradingClass"] == "ECES")
    assert (event["multiplier"], event["maturityDate"]) == ("1", "20260302")
    everything = await api.get(INFO, **asked, exchange="CME", right="C")
    assert len(everything) > len(listed)
    assert {one["right"] for one in everything} == {"C"}


async def test_an_index(make: Any) -> None:
    api = await make(synthetic_instruments=("SPX",), history_days=0)
    await api.step(max_events=50)
    (row,) = await api.get(SEARCH, symbol="SPX", secType="IND")
    assert list(sections(row)) == ["IND", "OPT", "BAG"]
    path = "/iserver/marketdata/snapshot"
    for _ in range(2):
        (told,) = await api.get(path, conids=str(SPX), fields="31,84,86,55")
    assert float(told["31"]) > 6000
    assert "84" not in told
    ask = {"conid": str(SPX), "sectype": "OPT", "month": "MAR26"}
    strike = min((await api.get(STRIKES, **ask))["call"], key=lambda one: abs(one - float(told["31"])))
    (call,) = await api.get(INFO, **ask, strike=str(strike), right="C")
    for _ in range(2):
        (quote,) = await api.get(path, conids=str(call["conid"]), fields="84,86")
    assert 0 < float(quote["84"]) < float(quote["86"])
    rules = await api.post("/iserver/contract/rules", {"conid": SPX, "isBuy": True})
    assert rules["orderTypes"] == []
    order = {"conid": SPX, "orderType": "MKT", "side": "BUY", "quantity": 1, "tif": "DAY"}
    refused = await api.post("/iserver/account/DU1234567/orders", {"orders": [order]})
    assert "Unsupported order type" in str(refused)


async def test_an_index_that_futures_share(api: Any) -> None:
    (row,) = await api.get(SEARCH, symbol="VIX")
    assert list(sections(row)) == ["IND", "FUT", "OPT", "BAG"]
    assert sections(row)["FUT"]["exchange"] == "CFE"
    (march,) = await api.get(INFO, conid="13455763", sectype="FUT", month="MAR26")
    assert (march["tradingClass"], march["maturityDate"]) == ("VX", "20260318")


async def test_bonds(api: Any) -> None:
    (row,) = await api.get(SEARCH, symbol="IBM", secType="BOND")
    assert (row["companyHeader"], row["symbol"], row["conid"]) == (
        "Corporate Fixed Income",
        None,
        "2147483647",
    )
    (issuer,) = row["issuers"]
    filters = (await api.get("/iserver/secdef/bond-filters", symbol="BOND", issuerId=issuer["id"]))[
        "bondFilters"
    ]
    months = {one["displayText"]: one["options"] for one in filters}["Maturity Date"]
    assert {"text": "May 2035", "value": "203505"} in months
    assert await api.get("/iserver/secdef/bond-filters", symbol="BOND", issuerId="e0") == {"bondFilters": []}
    bonds = await api.get(INFO, sectype="BOND", issuerId=issuer["id"])
    assert (bonds[0]["coupon"], bonds[0]["maturityDate"]) == ("4.5", "20350515")
    assert all(one["secType"] == "BOND" for one in bonds)
    assert all(row["companyName"] for row in await api.get(SEARCH, symbol="IBM"))


async def test_cfds_warrants_and_funds(api: Any) -> None:
    row, *_ = await api.get(SEARCH, symbol="SPY")
    assert sections(row)["CFD"] == {"secType": "CFD", "exchange": "SMART", "conid": "134770228"}
    (cfd,) = await api.get(INFO, conid="756733", sectype="CFD")
    assert cfd["conid"] == 134770228
    await api.step(max_events=100)
    path = "/iserver/marketdata/snapshot"
    for _ in range(2):
        told = await api.get(path, conids="756733,134770228", fields="84,86")
    assert (told[0]["84"], told[0]["86"]) == (told[1]["84"], told[1]["86"])
    row, *_ = await api.get(SEARCH, symbol="IBM")
    assert sections(row)["WAR"]["months"] == "DEC30"
    ask = {"conid": "8314", "sectype": "WAR", "month": "DEC30"}
    assert (await api.get(STRIKES, **ask))["call"] == [200.0]
    (warrant,) = await api.get(INFO, **ask, strike="200", right="C")
    assert (warrant["secType"], warrant["maturityDate"]) == ("WAR", "20301220")
    assert await api.get(INFO, **(ask | {"month": "DEC31"})) == []
    assert "error" in await api.get(SEARCH, symbol="VFIAX")
    (row,) = await api.get(SEARCH, symbol="VFIAX", fund="true")
    assert list(sections(row)) == ["FUND"]
    assert "error" in await api.get(SEARCH, symbol="AAPL", secType="FOP")


async def test_event_contracts(api: Any) -> None:
    (row,) = await api.get(SEARCH, symbol="FF")
    assert row["companyHeader"] == "US Fed Funds Target Rate - FORECASTX"
    assert list(sections(row)) == ["IND", "EC"]
    assert "20270127" in row["opt"].split(";")
    tree = (await api.get("/forecast/category/tree"))["categories"]
    markets = {market["symbol"]: market for one in tree.values() for market in one.get("markets", ())}
    assert (markets["FF"]["conid"], markets["FF"]["product_conid"]) == (FED_FUNDS, FED_FUNDS_PRODUCT)
    assert all(one["parent_id"] in tree for one in tree.values() if "parent_id" in one)
    body = await api.get("/forecast/contract/market", underlyingConid=str(FED_FUNDS))
    recorded = {"conid": 722489372, "side": "Y", "expiration": "20270127", "strike": 3.125}
    (told,) = [one for one in body["contracts"] if one["conid"] == 722489372]
    assert recorded.items() <= told.items()
    assert (told["expiry_label"], told["time_specifier"]) == ("January 27, 2027", "2027.1.28")
    for path, query in (
        ("market", {"underlyingConid": str(FED_FUNDS_PRODUCT)}),
        ("market", {"underlyingConid": "722489372"}),
        ("details", {"conid": str(FED_FUNDS)}),
        ("rules", {"conid": "265598"}),
        ("schedules", {"conid": "5"}),
    ):
        assert (await api.ask("GET", f"/forecast/contract/{path}", **query))[0] == 404, path
    details = await api.get("/forecast/contract/details", conid="722489376")
    assert (details["conid_yes"], details["conid_no"], details["side"]) == (722489372, 722489376, "N")
    assert "3.125% at the FOMC meeting ending January 27, 2027" in details["question"]
    rules = await api.get("/forecast/contract/rules", conid="722489372")
    assert (rules["last_trade_time"], rules["payout_time"]) == (1801076400, 1801162800)
    hours = await api.get("/forecast/contract/schedules", conid="722489372")
    assert len(hours["trading_schedules"]) == 7
    ask = {"conid": str(FED_FUNDS), "exchange": "FORECASTX", "sectype": "OPT", "month": "JAN27"}
    assert 3.125 in (await api.get(STRIKES, **ask))["call"]
    both = await api.get(INFO, **ask, strike="3.125")
    assert [(one["conid"], one["right"], one["multiplier"]) for one in both] == [
        (722489372, "C", "1"),
        (722489376, "P", "1"),
    ]
    (definition,) = (await api.get("/trsrv/secdef", conids="722489372"))["secdef"]
    assert definition["isEventContract"] is True


async def test_the_schedule_of_a_half_day(make: Any) -> None:
    """Thanksgiving is left out, the day after ends early; six trading days from the one before on."""
    api = await make(synthetic_day="2025-11-26", synthetic_rate=0.01, history_days=0)
    body = await api.get("/contract/trading-schedule", conid="756733")
    assert body["exchange_time_zone"] == "US/Eastern"
    days = body["schedules"]
    assert list(days) == ["20251125", "20251126", "20251128", "20251201", "20251202", "20251203"]
    (liquid,), (extended,) = days["20251128"]["liquid_hours"], days["20251128"]["extended_hours"]
    assert (utc(liquid["opening"]), utc(liquid["closing"])) == ("11-28 14:30", "11-28 18:00")
    assert (utc(extended["opening"]), utc(extended["closing"])) == ("11-28 09:00", "11-28 22:00")
    front = (await api.get("/trsrv/futures", symbols="ES"))["ES"][0]["conid"]
    days = (await api.get("/contract/trading-schedule", conid=str(front)))["schedules"]
    assert "liquid_hours" not in days["20251127"]
    (extended,) = days["20251127"]["extended_hours"]
    assert (utc(extended["opening"]), utc(extended["closing"])) == ("11-26 23:00", "11-27 18:00")
    (row,) = await api.get("/trsrv/secdef/schedule", assetClass="STK", conid="756733")
    dates = {one["tradingScheduleDate"]: one for one in row["schedules"]}
    assert dates["20000101"]["sessions"] == []
    assert dates["20000103"]["sessions"] == [{"openingTime": "0930", "closingTime": "1600", "prop": "LIQUID"}]
    assert dates["20000103"]["tradingtimes"][0]["openingTime"] == "0400"
    assert dates["20251127"]["tradingtimes"] == []
    assert dates["20251128"]["sessions"][0]["closingTime"] == "1300"
    assert "20251126" not in dates


@pytest.mark.parametrize(
    ("day", "opens"),
    [("2026-03-06", "03-09 13:30"), ("2025-10-31", "11-03 14:30"), ("2025-12-24", "12-26 14:30")],
)
async def test_the_schedule_over_a_week_end(make: Any, day: str, opens: str) -> None:
    api = await make(synthetic_day=day, synthetic_rate=0.01, history_days=0)
    days = (await api.get("/contract/trading-schedule", conid="265598"))["schedules"]
    after = next(hours for key, hours in days.items() if key > day.replace("-", ""))
    assert utc(after["liquid_hours"][0]["opening"]) == opens


async def test_orders_for_the_day_end_with_a_half_day(make: Any) -> None:
    """What is ordered on the day after Thanksgiving ends at 17:00, three hours earlier than on others."""
    api = await make(
        synthetic_day="2025-11-28", synthetic_days=2, synthetic_rate=0.01, history_days=0, regular_hours=True
    )
    await api.step(max_events=3)
    (placed,) = await api.place(orderType="LMT", price=1.0, quantity=1, outsideRTH=True)
    path = f"/iserver/account/order/status/{placed['order_id']}"
    end_ns = int(datetime(2025, 11, 28, 22, tzinfo=UTC).timestamp()) * 10**9
    await api.step(until_ns=end_ns)
    assert (await api.get(path))["order_status"] == "Submitted"
    await api.step(until_ns=end_ns + 60 * 10**9)
    assert (await api.get(path))["order_status"] == "Cancelled"
