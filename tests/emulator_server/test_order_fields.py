"""Every field of an order over the wire: what is taken, what is refused, and how it is told."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

ACCOUNT = "DU1234567"
CRUDE = 304037511
BITCOIN = 479624278
EURUSD = 12087792
BY_PERSON = {"manualIndicator": True, "extOperator": "me"}


async def listed(api: Any) -> dict[int, Any]:
    """The account's orders by id."""
    await api.get("/iserver/account/orders")
    return {row["orderId"]: row for row in (await api.get("/iserver/account/orders"))["orders"]}


async def status(api: Any, row: Any) -> Any:
    return await api.get(f"/iserver/account/order/status/{row['order_id']}")


async def tick(api: Any, conid: int, bid: float, ask: float, size: float = 1000.0) -> None:
    await api.control("tick", {"conid": conid, "bid": bid, "ask": ask, "bid_size": size, "ask_size": size})


# --- amounts of cash -------------------------------------------------------------------------------


async def test_cash_quantity(api: Any) -> None:
    await tick(api, 265598, 230.0, 230.1)
    (row,) = await api.post(
        f"/iserver/account/{ACCOUNT}/orders",
        {"orders": [{"conid": 265598, "orderType": "MKT", "side": "BUY", "cashQty": 2500, "tif": "DAY"}]},
    )
    told = (await listed(api))[int(row["order_id"])]
    assert told["status"] == "Filled"
    assert told["totalSize"] == pytest.approx(10.8648)
    assert told["totalCashSize"] == 2500.0
    # IBKR's sample: the money is what is filled
    assert told["filledQuantity"] == pytest.approx(2500.0, abs=0.03)
    assert told["remainingQuantity"] == 0.0
    assert told["sizeAndFills"] == "2.4K USD"
    assert float((await status(api, row))["cum_fill"]) == pytest.approx(10.8648)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"quantity": 1}, "Cash Quantity cannot be used for this order"),
        ({"orderType": "STP", "price": 250.0}, "Cash Quantity cannot be used for this order"),
        ({"allOrNone": True}, "Cash Quantity cannot be used for this order"),
        ({"cashQty": 10.001}, "Non-zero cash quantity cannot contain more than 2 decimals."),
        ({"cashQty": None, "fxQty": 100}, "incorrect type"),
        ({"cashQty": 0.01}, "buys less than the smallest size"),
        ({"isCcyConv": True}, "isCcyConv is supported for currency pairs only"),
        ({"conid": CRUDE} | BY_PERSON, "Cash Quantity cannot be used for this order"),
    ],
)
async def test_cash_quantity_refused(api: Any, change: dict[str, Any], words: str) -> None:
    await tick(api, 265598, 230.0, 230.1)
    order = {"conid": 265598, "orderType": "MKT", "side": "BUY", "cashQty": 100, "tif": "DAY"} | change
    _, answer = await api.ask("POST", f"/iserver/account/{ACCOUNT}/orders", {"orders": [order]})
    assert words in answer["error"]


async def test_questions_about_cash(make: Any) -> None:
    api = await make(questions="default")
    await tick(api, 265598, 230.0, 230.1)
    await api.post("/iserver/questions/suppress", {"messageIds": ["o354"]})
    answer = await api.place(quantity=0, cashQty=100)
    asked = []
    while "messageIds" in answer[0]:
        asked += answer[0]["messageIds"]
        answer = await api.post(f"/iserver/reply/{answer[0]['id']}", {"confirmed": True})
    assert asked == ["o10164", "o10223"]


async def test_currency_conversion(api: Any) -> None:
    await tick(api, EURUSD, 1.15, 1.1501, 1e6)
    order = {
        "conid": EURUSD,
        "orderType": "MKT",
        "side": "BUY",
        "tif": "DAY",
        "fxQty": 2300,
        "isCcyConv": True,
    }
    (row,) = await api.post(f"/iserver/account/{ACCOUNT}/orders", {"orders": [order]})
    assert row["order_status"] == "Filled"
    ledger = await api.get(f"/portfolio/{ACCOUNT}/ledger")
    assert ledger["EUR"]["cashbalance"] == pytest.approx(1999.82, abs=0.02)
    assert await api.get(f"/portfolio/{ACCOUNT}/positions/0") == []


async def test_coins(api: Any) -> None:
    await tick(api, BITCOIN, 90_000.0, 90_001.0, 5.0)
    base = {"conid": BITCOIN, "orderType": "MKT", "side": "BUY", "quantity": 0}
    (row,) = await api.place(**base, tif="IOC", cashQty=100)
    assert row["order_status"] == "Filled"
    refused = await api.place(**base, tif="DAY", cashQty=100)
    assert refused["error"] == "DAY time in force is not supported for this order"
    (row,) = await api.place(**(base | {"orderType": "LMT", "quantity": 0.001}), tif="PAX", price=80_000.0)
    assert row["order_status"] == "Submitted"
    assert (await api.place(tif="PAX"))["error"] == "PAX time in force is not supported for this order"
    (position,) = await api.get(f"/portfolio/{ACCOUNT}/positions/0")
    assert position["position"] == pytest.approx(0.00111109)


# --- times in force --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "fine"),
    [
        ({"tif": "IOC"}, True),
        ({"tif": "IOC", "orderType": "STP", "price": 1.0}, False),
        ({"tif": "OPG"}, True),
        ({"tif": "OPG", "orderType": "STP", "price": 500.0}, False),
        ({"tif": "OVT"}, False),
        ({"tif": "OVT", "orderType": "LMT", "price": 1.0}, True),
        ({"tif": "OND", "orderType": "LMT", "price": 1.0}, True),
        ({"tif": "OND", "orderType": "LMT", "price": 1.15, "conid": EURUSD}, False),
        ({"tif": "GTD"}, False),
        ({"tif": "GTC", "orderType": "MOC"}, False),
    ],
)
async def test_times_in_force(api: Any, change: dict[str, Any], fine: bool) -> None:
    await api.step(max_events=50)
    answer = await api.place(**change)
    if fine:
        told = (await listed(api))[int(answer[0]["order_id"])]
        assert told["timeInForce"] == change["tif"]
    else:
        assert answer["error"] == f"{change['tif']} time in force is not supported for this order"


# --- futures, permissions, routing -----------------------------------------------------------------


async def test_who_entered_an_order_on_futures(api: Any) -> None:
    await tick(api, CRUDE, 70.0, 70.02)
    order = {"conid": CRUDE, "quantity": 1, "orderType": "LMT", "price": 60.0}
    for field in BY_PERSON:
        missing = {key: value for key, value in BY_PERSON.items() if key != field}
        answer = await api.place(**order, **missing)
        assert answer["error"] == f"{field} is required for orders on futures and futures options"
    (row,) = await api.place(**order, **BY_PERSON)
    path = f"/iserver/account/{ACCOUNT}/order/{row['order_id']}"
    assert (await api.ask("DELETE", path))[0] == 400
    assert (await api.ask("DELETE", path, manualIndicator="true", extOperator="me"))[0] == 200


async def test_permissions(make: Any) -> None:
    api = await make(permissions=("STK",))
    await api.step(max_events=50)
    assert (await api.place())[0]["order_id"].isdigit()
    (row,) = await api.place(conid=CRUDE, quantity=1, **BY_PERSON)
    assert (row["order_id"], row["text"]) == ("-1", "No trading permissions.")


async def test_directed_orders(api: Any) -> None:
    await api.step(max_events=50)
    order = {"conidex": "265598@ARCA", "orderType": "MKT", "side": "BUY", "quantity": 1, "tif": "DAY"}
    (row,) = await api.post(f"/iserver/account/{ACCOUNT}/orders", {"orders": [order]})
    assert (await listed(api))[int(row["order_id"])]["conidex"] == "265598@ARCA"
    await api.get("/iserver/account/trades")
    assert (await api.get("/iserver/account/trades"))[0]["exchange"] == "ARCA"
    order["conidex"] = "265598@NOWHERE"
    answer = await api.post(f"/iserver/account/{ACCOUNT}/orders", {"orders": [order]})
    assert answer["error"] == "Invalid destination or exchange selected: NOWHERE"


async def test_regular_hours(make: Any) -> None:
    api = await make(regular_hours=True, synthetic_instruments=("AAPL",))
    await tick(api, 265598, 230.0, 230.1)
    await api.step()
    evening = (await api.control("state"))["now_ns"] + 3_600_000_000_000
    await api.control(
        "tick", {"conid": 265598, "bid": 240.0, "ask": 240.1, "ask_size": 1000, "time_ns": evening}
    )
    (inside,) = await api.place()
    (outside,) = await api.place(outsideRTH=True)
    assert (inside["order_status"], outside["order_status"]) == ("Submitted", "Filled")


# --- types -----------------------------------------------------------------------------------------


async def test_where_prices_stand(api: Any) -> None:
    await tick(api, 265598, 230.0, 230.1)
    (touched,) = await api.place(orderType="MIT", auxPrice=220.0)
    (priced,) = await api.place(orderType="MIT", price=220.0)
    for row in (touched, priced):
        assert (await status(api, row))["stop_price"] == "220.00"
    assert (await api.place(orderType="MIT"))["error"] == "Invalid order price fields"
    (row,) = await api.place(orderType="REL", price=231.0, auxPrice=0.02)
    assert row["order_status"] == "Submitted"
    (row,) = await api.place(orderType="TRAIL", trailingType="%", trailingAmt=1, side="SELL")
    assert (await status(api, row))["order_type"] == "TRAILING_STOP"


async def test_all_or_none_and_orders_that_are_kept(api: Any) -> None:
    await tick(api, 265598, 230.0, 230.1, 50)
    (whole,) = await api.place(quantity=60, allOrNone=True)
    (kept,) = await api.place(quantity=1, deactivated=True)
    assert (whole["order_status"], kept["order_status"]) == ("Submitted", "Inactive")
    await tick(api, 265598, 230.0, 230.1, 80)
    found = await listed(api)
    assert found[int(whole["order_id"])]["status"] == "Filled"
    assert found[int(kept["order_id"])]["status"] == "Inactive"


# --- algorithms ------------------------------------------------------------------------------------


async def test_algorithms(api: Any) -> None:
    await tick(api, 265598, 230.0, 230.1)
    found = {one["id"]: one for one in (await api.get("/iserver/contract/265598/algos"))["algos"]}
    assert list(found) == ["Adaptive", "ArrivalPx", "PctVol", "Twap", "Vwap"]
    assert found["Adaptive"]["parameters"] == [
        {
            "guiRank": 1,
            "name": "Adaptive order priority/urgency",
            "id": "adaptivePriority",
            "valueClassName": "String",
            "defaultValue": "Normal",
            "legalStrings": ["Urgent", "Normal", "Patient"],
            "required": "true",
        }
    ]
    some = await api.get("/iserver/contract/265598/algos", algos="Vwap", addDescription="1", addParams="0")
    assert list(some["algos"][0]) == ["name", "id", "description"]
    assert (await api.get(f"/iserver/contract/{BITCOIN}/algos"))["algos"] == []
    (row,) = await api.place(strategy="Adaptive", strategyParameters={"adaptivePriority": "Normal"})
    assert (await status(api, row))["cum_fill"] == "3.0"
    await api.step(until_ns=(await api.control("state"))["now_ns"] + 60_000_000_000)
    assert (await status(api, row))["cum_fill"] != "3.0"
    refused = await api.place(strategy="Adaptive", strategyParameters={"adaptivePriority": "Now"})
    assert refused["error"] == "Algo attributes validation failed: adaptivePriority cannot be Now"
    assert "does not work orders of this type" in (await api.place(strategy="Twap", orderType="MOC"))["error"]


# --- prompts ---------------------------------------------------------------------------------------


@pytest.fixture
async def asking(make: Any) -> Any:
    api = await make(questions="all")
    await tick(api, 265598, 230.0, 230.1)
    await api.post("/iserver/questions/suppress", {"messageIds": ["o354", "o10153", "o163"]})
    return api


async def prompt_of(socket: Any) -> Any:
    frame = await asyncio.wait_for(socket.until(lambda one: one.get("topic") == "ntf"), 5)
    return frame["args"][0]


async def test_a_prompt_holds_an_order(asking: Any) -> None:
    socket = await asking.socket()
    (row,) = await asking.place(orderType="LMT", price=200.0)
    prompt = await prompt_of(socket)
    assert (prompt["messageId"], prompt["prompt"], prompt["orderId"]) == ("p12", True, int(row["order_id"]))
    assert prompt["options"] == ["Use on this order", "Always use", "Do not use"]
    await tick(asking, 265598, 198.0, 199.0)
    assert (await status(asking, row))["order_status"] == "Submitted"
    answer = {"orderId": prompt["orderId"], "reqId": prompt["reqId"], "text": "Do not use"}
    assert await asking.post("/iserver/notification", answer | {"text": "Perhaps"}) == "Request was submitted"
    assert (await status(asking, row))["order_status"] == "Submitted"
    assert await asking.post("/iserver/notification", answer) == "Request was submitted"
    assert (await status(asking, row))["order_status"] == "Filled"


async def test_what_spares_a_prompt(asking: Any) -> None:
    socket = await asking.socket()
    for change in ({"useAdaptive": True}, {"useAdaptive": False}, {"price": 229.9}):
        await asking.place(**({"orderType": "LMT", "price": 200.0} | change))
    (row,) = await asking.place(orderType="LMT", price=200.0)
    prompt = await prompt_of(socket)
    assert prompt["orderId"] == int(row["order_id"])
    answer = {"orderId": prompt["orderId"], "reqId": prompt["reqId"], "text": "Always use"}
    await asking.post("/iserver/notification", answer)
    await asking.place(orderType="LMT", price=200.0)
    assert [frame for frame in await socket.flush() if frame.get("topic") == "ntf"] == []


# --- advisers --------------------------------------------------------------------------------------


async def test_an_order_for_a_group(make: Any) -> None:
    api = await make(
        accounts=("DF1", "DU1", "DU2", "DU3"), fa_master="DF1", fa_groups=("growth",), questions="default"
    )
    await tick(api, 265598, 230.0, 230.1, 400)
    await api.post("/iserver/questions/suppress", {"messageIds": ["o354"]})
    order = {"conid": 265598, "orderType": "MKT", "side": "BUY", "quantity": 100, "tif": "DAY", "cOID": "g"}
    (question,) = await api.post("/iserver/account/growth/orders", {"orders": [order]})
    assert question["messageIds"] == ["p6"]
    (row,) = await api.post(f"/iserver/reply/{question['id']}", {"confirmed": True})
    assert row["order_status"] == "Filled"
    held = await api.get("/portfolio/positions/265598")
    assert {name: rows[0]["position"] for name, rows in held.items()} == {
        "DU1": 34.0,
        "DU2": 33.0,
        "DU3": 33.0,
    }
    # the master sees the order and everybody's executions, a member its own
    told = (await listed(api))[int(row["order_id"])]
    assert (told["account"], told["order_ref"]) == ("growth", "g")
    await api.get("/iserver/account/trades")
    trades = await api.get("/iserver/account/trades")
    assert [(one["account"], one["account_allocation_name"], one["size"]) for one in trades] == [
        ("DU1", "DU1", 34.0),
        ("DU2", "DU2", 33.0),
        ("DU3", "DU3", 33.0),
    ]
    await api.post("/iserver/account", {"acctId": "DU2"})
    assert [one["size"] for one in await api.get("/iserver/account/trades")] == [33.0]
    assert (await status(api, row))["order_status"] == "Filled"


async def test_what_groups_are_refused(make: Any) -> None:
    api = await make(accounts=("DF1", "DU1"), fa_master="DF1", fa_groups=("growth",))
    await api.step(max_events=50)
    order = {"conid": 265598, "orderType": "MKT", "side": "BUY", "quantity": 1, "tif": "DAY"}
    body = {"orders": [order | {"allocationMethod": "Guess"}]}
    assert (await api.post("/iserver/account/growth/orders", body))[
        "error"
    ] == "Invalid allocation method Guess"
    assert (await api.ask("POST", "/iserver/account/decline/orders", {"orders": [order]}))[0] == 400
    preview = await api.post("/iserver/account/growth/orders/whatif", {"orders": [order]})
    assert preview["position"]["after"] == "1"
