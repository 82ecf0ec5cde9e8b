"""Options, options on futures and combos: found, quoted, ordered, told and held, over the wire."""

from __future__ import annotations

from typing import Any

import pytest

ACCOUNT = "DU1234567"
ORDERS = f"/iserver/account/{ACCOUNT}/orders"
AAPL, IBM, SPY, CRUDE = 265598, 8314, 756733, 304037511
BY_MACHINE = {"manualIndicator": False, "extOperator": "x"}


async def tick(api: Any, conid: int, bid: float, ask: float, size: float = 1000.0) -> None:
    await api.control("tick", {"conid": conid, "bid": bid, "ask": ask, "bid_size": size, "ask_size": size})


async def option(api: Any, conid: int, strike: float, right: str, **more: str) -> Any:
    query = {"sectype": "OPT", "month": "MAR26"} | more
    (row,) = await api.get("/iserver/secdef/info", conid=str(conid), strike=str(strike), right=right, **query)
    return row


@pytest.fixture
async def quoted(api: Any) -> Any:
    """AAPL at 230 and IBM at 180."""
    await tick(api, AAPL, 230.0, 230.02)
    await tick(api, IBM, 180.0, 180.04)
    await api.get("/iserver/secdef/search", symbol="AAPL")
    return api


async def order(api: Any, **fields: Any) -> Any:
    body = {"orderType": "MKT", "side": "BUY", "quantity": 1, "tif": "DAY"} | fields
    return await api.post(ORDERS, {"orders": [body]})


# --- chains ----------------------------------------------------------------------------------------


async def test_a_chain(api: Any) -> None:
    await tick(api, AAPL, 230.0, 230.02)
    ask = {"conid": str(AAPL), "sectype": "OPT", "month": "MAR26"}
    # nothing before the search
    assert await api.get("/iserver/secdef/strikes", **ask) == {"call": [], "put": []}
    assert (await api.ask("GET", "/iserver/secdef/info", **ask, strike="230", right="C"))[0] == 400
    (row, *_) = await api.get("/iserver/secdef/search", symbol="AAPL")
    assert row["sections"] == [
        {"secType": "STK"},
        {"secType": "OPT", "months": "MAR26;APR26;MAY26;JUN26", "exchange": "SMART;AMEX;CBOE"},
        {"secType": "CFD", "exchange": "SMART", "conid": "120549942"},
        {"secType": "BAG"},
    ]
    strikes = await api.get("/iserver/secdef/strikes", **ask)
    assert 230.0 in strikes["call"]
    assert strikes["call"] == strikes["put"]
    both = await api.get("/iserver/secdef/info", **ask, strike="230")
    assert [one["right"] for one in both] == ["C", "P"]
    assert both[0] | {"conid": 0, "validExchanges": ""} == {
        "conid": 0,
        "symbol": "AAPL",
        "secType": "OPT",
        "exchange": "SMART",
        "listingExchange": "SMART",
        "right": "C",
        "strike": 230.0,
        "currency": "USD",
        "cusip": None,
        "coupon": "No Coupon",
        "desc1": "AAPL",
        "desc2": "MAR 20 '26 230 Call",
        "maturityDate": "20260320",
        "multiplier": "100",
        "tradingClass": "AAPL",
        "validExchanges": "",
    }
    for nothing in ({"strike": "230.1"}, {"strike": "230", "month": "MAR29"}):
        assert await api.get("/iserver/secdef/info", **(ask | nothing)) == []
    assert (await api.ask("GET", "/iserver/secdef/info", **(ask | {"strike": "x"})))[0] == 400
    assert (await api.ask("GET", "/iserver/secdef/info", **ask))[0] == 400
    (same,) = await api.get("/iserver/secdef/info", conid=str(both[0]["conid"]))
    assert same == both[0]
    assert "error" in await api.get("/iserver/secdef/search", symbol="EUR", secType="OPT")


async def test_an_option_as_a_contract(quoted: Any) -> None:
    found = await option(quoted, AAPL, 230.0, "P")
    info = await quoted.get(f"/iserver/contract/{found['conid']}/info")
    assert (info["local_symbol"], info["text"]) == ("AAPL  260320P00230000", "MAR 20 '26 230 Put")
    assert (info["right"], info["strike"], info["underlying_con_id"]) == ("PUT", "230", AAPL)
    assert (info["expiry_full"], info["contract_month"], info["multiplier"]) == ("20260320", "202603", "100")
    rules = await quoted.post("/iserver/contract/rules", {"conid": found["conid"], "isBuy": True})
    assert "midprice" not in rules["orderTypes"]
    assert rules["cqtTypes"] == []
    (definition,) = (await quoted.get("/trsrv/secdef", conids=str(found["conid"])))["secdef"]
    assert (definition["fullName"], definition["undConid"]) == ("AAPL Mar20'26 230 Put", AAPL)


async def test_options_on_futures(api: Any) -> None:
    await tick(api, CRUDE, 70.0, 70.02, 50)
    (row,) = await api.get("/iserver/secdef/search", symbol="CL")
    assert [one["secType"] for one in row["sections"]] == ["IND", "FUT", "FOP", "BAG"]
    found = await option(api, CRUDE, 70.0, "C", sectype="FOP", month="JUN26", exchange="NYMEX")
    assert (found["secType"], found["multiplier"]) == ("FOP", "1000")
    assert "manualIndicator" in (await order(api, conid=found["conid"]))["error"]
    (row,) = await order(api, conid=found["conid"], **BY_MACHINE)
    assert row["order_status"] == "Filled"
    await api.get("/iserver/account/trades")
    (trade,) = await api.get("/iserver/account/trades")
    assert trade["contract_description_2"] == "(CL) JUN26 70 Call Fut. Option"


# --- quotes and orders -----------------------------------------------------------------------------


async def test_an_option_is_quoted_and_held(quoted: Any) -> None:
    found = await option(quoted, AAPL, 230.0, "C")
    conid = found["conid"]
    socket = await quoted.socket()
    await socket.send(f'smd+{conid}+{{"fields":["84","85","86","88"]}}')
    first = (await socket.flush())[0]
    assert first["topic"] == f"smd+{conid}"
    assert 0 < float(first["84"]) < float(first["86"])
    await tick(quoted, AAPL, 235.0, 235.02)
    (change,) = await socket.flush()
    assert float(change["84"]) > float(first["86"])
    await socket.send("str+{}")
    (row,) = await order(quoted, conid=conid, quantity=2)
    assert row["order_status"] == "Filled"
    trades = [
        frame["args"][0] for frame in await socket.flush() if frame.get("topic") == "str" and frame["args"]
    ]
    assert [("commission" in one) for one in trades] == [False, True]
    assert (trades[0]["sec_type"], trades[0]["contract_description_2"]) == ("OPT", "MAR26 230 Call")
    assert trades[0]["net_amount"] == pytest.approx(200 * float(trades[0]["price"]))
    await quoted.get(f"/portfolio/{ACCOUNT}/positions/0")
    (held,) = await quoted.get(f"/portfolio/{ACCOUNT}/positions/0")
    assert held["contractDesc"] == "AAPL   MAR2026 230 C [AAPL  260320C00230000 100]"
    assert (held["putOrCall"], held["strike"], held["multiplier"], held["undConid"]) == (
        "C",
        "230",
        100.0,
        AAPL,
    )
    assert held["avgCost"] == pytest.approx(100 * held["avgPrice"], abs=3)
    ledger = (await quoted.get(f"/portfolio/{ACCOUNT}/ledger"))["USD"]
    assert ledger["stockoptionmarketvalue"] == pytest.approx(held["mktValue"], abs=0.01)
    assert ledger["stockmarketvalue"] == 0.0
    worth = ledger["cashbalance"] + ledger["stockoptionmarketvalue"]
    assert ledger["netliquidationvalue"] == pytest.approx(worth)


async def test_margin_of_an_option_that_is_sold(make: Any) -> None:
    api = await make(cash=4000.0)
    await tick(api, AAPL, 230.0, 230.02)
    await api.get("/iserver/secdef/search", symbol="AAPL")
    conid = (await option(api, AAPL, 230.0, "C"))["conid"]
    body = {"conid": conid, "orderType": "LMT", "price": 1.0, "side": "SELL", "quantity": 1, "tif": "DAY"}
    refused = await api.post(ORDERS, {"orders": [body]})
    assert "Available converted to base: 4000.00 USD" in refused["error"]
    preview = await api.post(f"{ORDERS}/whatif", {"orders": [body | {"side": "BUY", "price": 10.0}]})
    assert preview["error"] is None
    assert preview["amount"]["amount"] == "1,000.00 USD (1 Contracts)"
    assert preview["position"] == {"current": "0", "change": "1", "after": "1"}
    assert float(preview["initial"]["after"].replace(",", "")) > 500


# --- combos ----------------------------------------------------------------------------------------

PAIR = f"28812380;;;{AAPL}/1,{IBM}/-1"


async def test_a_combo_is_told_by_its_legs(quoted: Any) -> None:
    socket = await quoted.socket()
    for topic in ("str+{}", "sor+{}"):
        await socket.send(topic)
    (row,) = await order(quoted, conidex=PAIR, quantity=10, cOID="pair")
    assert (row["order_status"], row["local_order_id"]) == ("Filled", "pair")
    frames = await socket.flush()
    orders = [frame["args"][0] for frame in frames if frame.get("topic") == "sor"]
    assert (orders[0]["conid"], orders[0]["conidex"], orders[0]["secType"]) == (28812380, PAIR, "BAG")
    assert (orders[0]["ticker"], orders[0]["order_ref"]) == ("AAPL,IBM", "pair")
    trades = [frame["args"][0] for frame in frames if frame.get("topic") == "str" and frame["args"]]
    final = {one["execution_id"]: one for one in trades}
    envelope, apple, ibm = final.values()
    assert (envelope["sec_type"], envelope["conid"], envelope["conidEx"]) == ("BAG", 28812380, PAIR)
    assert (envelope["price"], "commission" in envelope) == ("50.02", False)
    assert (apple["conid"], apple["side"], apple["size"], apple["price"]) == (AAPL, "B", 10.0, "230.02")
    assert (ibm["conid"], ibm["side"], ibm["size"], ibm["price"]) == (IBM, "S", 10.0, "180.00")
    assert {one["order_ref"] for one in final.values()} == {"pair"}
    assert len({one["order_id"] for one in final.values()}) == 1
    assert apple["commission"] == ibm["commission"] == "1.0"
    await quoted.get("/iserver/account/trades")
    assert [one["sec_type"] for one in await quoted.get("/iserver/account/trades")] == ["BAG", "STK", "STK"]
    rows = await quoted.get(f"/portfolio/{ACCOUNT}/positions/0")
    assert {one["conid"]: one["position"] for one in rows} == {AAPL: 10.0, IBM: -10.0}
    told = await quoted.get(f"/iserver/account/order/status/{row['order_id']}")
    assert (told["conidex"], told["sec_type"], told["average_price"]) == (PAIR, "BAG", "50.02")


async def test_prices_below_zero(quoted: Any) -> None:
    reverse = f"28812380;;;{IBM}/1,{AAPL}/-1"
    (row,) = await order(quoted, conidex=reverse, orderType="LMT", price=-60.0, quantity=5)
    assert row["order_status"] == "Submitted"
    await quoted.get("/iserver/account/orders")
    (listed,) = (await quoted.get("/iserver/account/orders"))["orders"]
    assert (listed["price"], listed["orderDesc"]) == ("-60.00", "Buy 5 IBM,AAPL Limit -60.00, Day")
    await tick(quoted, AAPL, 241.0, 241.02)
    told = await quoted.get(f"/iserver/account/order/status/{row['order_id']}")
    assert (told["order_status"], told["average_price"], told["limit_price"]) == (
        "Filled",
        "-60.00",
        "-60.00",
    )
    preview = await quoted.post(
        f"{ORDERS}/whatif",
        {
            "orders": [
                {
                    "conidex": reverse,
                    "orderType": "LMT",
                    "price": -60.0,
                    "side": "BUY",
                    "quantity": 5,
                    "tif": "DAY",
                }
            ]
        },
    )
    assert preview["error"] is None
    assert preview["amount"]["amount"] == "-300.00 USD (5 Combos)"


async def test_a_combo_is_streamed(quoted: Any) -> None:
    socket = await quoted.socket()
    target = f"0;;;{AAPL}/1,{IBM}/-1"
    await socket.send(f'smd+{target}+{{"fields":["84","86","85","88"]}}')
    frame = (await socket.flush())[0]
    assert (frame["topic"], frame["conidEx"], frame["conid"]) == (f"smd+{target}", target, 0)
    assert (frame["84"], frame["86"], frame["85"]) == ("49.96", "50.02", "1,000")
    await tick(quoted, IBM, 181.0, 181.04)
    (change,) = await socket.flush()
    assert (change["84"], change["86"]) == ("48.96", "49.02")
    await socket.send(f"umd+{target}+{{}}")
    await tick(quoted, IBM, 182.0, 182.04)
    assert await socket.flush() == []


async def test_combos_with_futures_say_who_entered_them(quoted: Any) -> None:
    await tick(quoted, CRUDE, 70.0, 70.02, 50)
    pair = f"28812380;;;{CRUDE}/1,{AAPL}/-100"
    assert "manualIndicator" in (await order(quoted, conidex=pair))["error"]
    assert (await order(quoted, conidex=pair, **BY_MACHINE))[0]["order_id"].isdigit()


@pytest.mark.parametrize(
    ("conidex", "words"),
    [
        (f"28812380;;;{AAPL}/1", "ecReqByConid28812380"),
        (f"28812380;;{AAPL}/1,{IBM}/-1", "ecReqByConid28812380"),
        (f"12345;;;{AAPL}/1,{IBM}/-1", "ecReqByConid12345"),
        ("28812380;;;5/1,6/-1", "no sec defs returned for leg 5"),
        (f"58666491@LSE;;;{AAPL}/1,{IBM}/-1", "ecReqByConid58666491"),
        (f"58666491;;;{AAPL}/1,{IBM}/-1", "Invalid destination"),
        (f"28812380;;;{AAPL}/1,273982664/-1", "no spread is defined for legs in CHF, USD"),
    ],
)
async def test_what_is_no_combo(quoted: Any, conidex: str, words: str) -> None:
    assert words in (await order(quoted, conidex=conidex))["error"]


async def test_a_halt_of_a_leg_halts_the_combo(quoted: Any) -> None:
    await quoted.control("halt", {"conid": IBM, "on": True})
    (row,) = await order(quoted, conidex=PAIR)
    assert row["order_status"] == "Submitted"
    await quoted.control("halt", {"conid": IBM, "on": False})
    told = await quoted.get(f"/iserver/account/order/status/{row['order_id']}")
    assert told["order_status"] == "Filled"
