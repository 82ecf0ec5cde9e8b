"""Orders over REST: validation, questions, changes, brackets, lists, status."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bt_ibkr.emulator.build import build_core
from bt_ibkr.emulator.services.errors import ApiError
from bt_ibkr.emulator.services.orders import tickets
from bt_ibkr.emulator.settings import EmulatorSettings

ACCOUNT = "DU1234567"
ORDERS = f"/iserver/account/{ACCOUNT}/orders"
GOOD: dict[str, Any] = {"conid": 265598, "orderType": "MKT", "side": "BUY", "quantity": 10, "tif": "DAY"}


def without(key: str) -> dict[str, Any]:
    return {name: value for name, value in GOOD.items() if name != key}


@pytest.mark.parametrize(
    ("order", "status", "text"),
    [
        (without("conid"), 400, "conid or conidex is required"),
        (GOOD | {"side": "HOLD"}, 400, "Invalid Side (must be 'BUY' or 'SELL')."),
        (GOOD | {"orderType": "MAGIC"}, 400, "Unknown order type"),
        (GOOD | {"quantity": "10"}, 400, "orders request includes parameter with incorrect type"),
        (GOOD | {"outsideRTH": "yes"}, 400, "orders request includes parameter with incorrect type"),
        (GOOD | {"orderType": "LMT"}, 200, "Invalid order price fields"),
        (GOOD | {"orderType": "STOP_LIMIT", "price": 5}, 200, "Invalid order price fields"),
        (GOOD | {"orderType": "TRAIL", "price": 5}, 200, "Invalid order price fields"),
        (without("tif"), 200, "null time in force is not supported for this order"),
        (
            GOOD | {"conid": 13297},
            200,
            "no sec defs returned forSecDef reqId=resolve ecReqByConid13297",
        ),
        (GOOD | {"quantity": 1e300}, 200, "The size 1.000E+300 exceeds what can be ordered"),
        (GOOD | {"orderType": "LMT", "price": 1e30}, 200, "Invalid order price fields"),
        (GOOD | {"quantity": 0}, 500, "Order size 0 is not valid. Please enter size greater than 0."),
    ],
)
async def test_refusals(api: Any, order: dict[str, Any], status: int, text: str) -> None:
    assert await api.ask("POST", ORDERS, {"orders": [order]}) == (status, {"error": text})


async def test_refusals_that_look_like_orders(api: Any) -> None:
    for change in ({"quantity": 0.5}, {"orderType": "LMT", "price": 230.001}):
        (row,) = await api.place(**change)
        assert (row["order_id"], row["order_status"]) == ("-1", "Failed")
        assert "does not conform to the minimum" in row["text"]


async def test_client_id_is_good_for_one_order(api: Any) -> None:
    (row,) = await api.place(cOID="same", orderType="LMT", price=1.0)
    assert row["local_order_id"] == "same"
    assert "already registered" in (await api.place(cOID="same", orderType="LMT", price=1.0))["error"]


async def test_too_poor(make: Any) -> None:
    api = await make(cash=100.0)
    await api.step(max_events=50)
    assert "Available converted to base" in (await api.place())["error"]


async def test_chain_of_questions(make: Any) -> None:
    api = await make(questions="default")
    await api.step(max_events=50)
    (first,) = await api.place(quantity=600, orderType="LMT", price=300.0, tif="GTC")
    asked = []
    answer: Any = [first]
    while "messageIds" in answer[0]:
        asked += answer[0]["messageIds"]
        assert answer[0]["messageOptions"] == ["Yes", "No"]
        answer = await api.post(f"/iserver/reply/{answer[0]['id']}", {"confirmed": True})
    assert asked == ["o163", "o354", "o383", "o451"]
    assert answer[0]["order_id"].isdigit()


async def test_question_declined_unknown_and_displaced(make: Any) -> None:
    api = await make(questions="default")
    await api.step(max_events=50)
    (question,) = await api.place()
    answer = await api.post(f"/iserver/reply/{question['id']}", {"confirmed": False})
    assert answer == {"error": "Order not confirmed "}
    gone = await api.ask("POST", f"/iserver/reply/{question['id']}", {"confirmed": True})
    assert gone == (400, {"error": f"reply id not found: '{question['id']}'"})
    (first,) = await api.place()
    await api.place()
    assert (await api.ask("POST", f"/iserver/reply/{first['id']}", {"confirmed": True}))[0] == 400


async def test_suppressed_questions_are_not_asked(make: Any) -> None:
    api = await make(questions="all")
    await api.step(max_events=50)
    ids = ["o354", "o10151", "o10153"]
    await api.post("/iserver/questions/suppress", {"messageIds": ids})
    (row,) = await api.place()
    assert row["order_id"].isdigit()
    await api.post("/iserver/questions/suppress/reset")
    (row,) = await api.place()
    assert row["messageIds"] == ["o354"]


async def test_market_data_spares_a_question(make: Any) -> None:
    api = await make(questions="default")
    await api.step(max_events=50)
    await api.get("/iserver/marketdata/snapshot", conids="265598", fields="31")
    (row,) = await api.place(quantity=1)
    assert row["order_id"].isdigit()


async def test_bracket_children_come_first_and_carry_no_client_id(api: Any) -> None:
    await api.step(max_events=50)
    orders = [
        GOOD | {"cOID": "parent", "orderType": "LMT", "price": 1.0},
        GOOD | {"parentId": "parent", "side": "SELL", "orderType": "LMT", "price": 400.0, "cOID": "child"},
        GOOD | {"parentId": "parent", "side": "SELL", "orderType": "STP", "price": 0.5},
    ]
    rows = await api.post(ORDERS, {"orders": orders})
    assert [row.get("local_order_id") for row in rows] == [None, None, "parent"]
    parent = rows[2]["order_id"]
    assert [row["parent_order_id"] for row in rows[:2]] == [parent, parent]
    await api.get("/iserver/account/orders")
    listed = {row["orderId"]: row for row in (await api.get("/iserver/account/orders"))["orders"]}
    child = listed[int(rows[0]["order_id"])]
    assert (child["parentId"], child["ocaGroupId"], child["status"]) == (parent, parent, "PreSubmitted")
    assert "order_ref" not in child
    await api.ask("DELETE", f"/iserver/account/{ACCOUNT}/order/{parent}")
    await api.step(max_events=5)
    listed = {row["orderId"]: row for row in (await api.get("/iserver/account/orders"))["orders"]}
    assert {row["status"] for row in listed.values()} == {"Cancelled"}


async def test_group_and_unrelated_orders(api: Any) -> None:
    await api.step(max_events=50)
    low = GOOD | {"orderType": "LMT", "price": 1.0}
    refused = await api.post(ORDERS, {"orders": [low, low]})
    assert "error" in refused
    grouped = await api.post(ORDERS, {"orders": [low | {"isSingleGroup": True}] * 2})
    assert len(grouped) == 2
    await api.get("/iserver/account/orders")
    listed = (await api.get("/iserver/account/orders"))["orders"]
    assert listed[0]["ocaGroupId"] == listed[1]["ocaGroupId"] != ""


async def test_modify(api: Any) -> None:
    await api.step(max_events=50)
    (row,) = await api.place(orderType="LMT", price=1.0, cOID="m")
    path = f"/iserver/account/{ACCOUNT}/order/{row['order_id']}"
    changed = await api.post(path, GOOD | {"orderType": "LMT", "price": 2.0, "quantity": 5, "cOID": "m"})
    assert changed[0]["order_id"] == row["order_id"]
    status = await api.get(f"/iserver/account/order/status/{row['order_id']}")
    assert (status["limit_price"], status["total_size"]) == ("2.00", "5.0")
    missing = await api.post(f"/iserver/account/{ACCOUNT}/order/123456", GOOD)
    assert missing == {"error": "OrderID 123456 doesn't exist"}


async def test_cancel(api: Any) -> None:
    await api.step(max_events=50)
    rows = [(await api.place(orderType="LMT", price=1.0))[0] for _ in range(3)]
    path = f"/iserver/account/{ACCOUNT}/order/"
    first = int(rows[0]["order_id"])
    assert await api.ask("DELETE", f"{path}{first}") == (
        200,
        {"msg": "Request was submitted", "order_id": first, "conid": -1, "account": None},
    )
    assert (await api.ask("DELETE", f"{path}-1"))[0] == 200
    await api.step(max_events=5)
    for row in rows:
        status = await api.get(f"/iserver/account/order/status/{row['order_id']}")
        assert (status["order_status"], status["cannot_cancel_order"]) == ("Cancelled", True)
    assert await api.ask("DELETE", f"{path}{first}") == (400, {"error": "Order is inactive"})
    assert (await api.ask("DELETE", f"{path}77"))[1] == {"error": "OrderID 77 doesn't exist"}


async def test_status_and_lists(api: Any) -> None:
    await api.step(max_events=50)
    (row,) = await api.place(cOID="ref")
    await api.step(max_events=10)
    order_id = int(row["order_id"])
    status = await api.get(f"/iserver/account/order/status/{order_id}")
    assert (status["side"], status["size"], status["cum_fill"], status["order_type"]) == (
        "B",
        "0.0",
        "10.0",
        "MARKET",
    )
    assert await api.ask("GET", "/iserver/account/order/status/999") == (
        503,
        {"error": "Order 999 is not found", "statusCode": 503},
    )
    assert await api.get("/iserver/account/orders") == {"orders": [], "snapshot": False}
    (listed,) = (await api.get("/iserver/account/orders"))["orders"]
    assert (listed["orderId"], listed["price"], listed["timeInForce"], listed["order_ref"]) == (
        order_id,
        "",
        "CLOSE",
        "ref",
    )
    assert (await api.get("/iserver/account/orders", filters="cancelled"))["orders"] == []
    assert await api.get("/iserver/account/trades") == []
    trades = await api.get("/iserver/account/trades", days="7")
    assert sum(trade["size"] for trade in trades) == 10.0
    assert trades[-1]["position"] == "10"
    told = (await api.control("executions"))["executions"]
    assert [float(one["commission"]) for one in told] == [float(trade["commission"]) for trade in trades]


async def test_what_if(api: Any) -> None:
    await api.step(max_events=50)
    body = await api.post(f"{ORDERS}/whatif", {"orders": [GOOD | {"orderType": "LMT", "price": 200.0}]})
    assert body["amount"]["amount"] == "2,000.00 USD (10 Shares)"
    assert body["position"] == {"current": "0", "change": "10", "after": "10"}
    assert body["error"] is None
    assert (await api.control("ledger"))["orders"] == []
    huge = await api.post(f"{ORDERS}/whatif", {"orders": [GOOD | {"quantity": 1_000_000}]})
    assert "Available converted to base" in huge["error"]
    assert huge["equity"] is None


_CORE = build_core(EmulatorSettings(speed="lockstep", synthetic_instruments=("AAPL",), history_days=0))
_VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["BUY", "LMT", "TRAIL", "DAY", "GTC", "%", "265598", "265598@ARCA", 265598, 1.5]),
    st.sampled_from(["28812380;;;265598/1,8314/-1", "28812380;;;265598/1", ";;;", "Twap", "Adaptive", "OPG"]),
    st.sampled_from([304037511, 479624278, 12087792, 800000000, -1, 100.0, {"pctVol": 5}, {}]),
)
_KEYS = st.sampled_from(
    [
        "conid",
        "conidex",
        "orderType",
        "side",
        "quantity",
        "tif",
        "price",
        "auxPrice",
        "cOID",
        "parentId",
        "trailingAmt",
        "trailingType",
        "outsideRTH",
        "cashQty",
        "fxQty",
        "isCcyConv",
        "allOrNone",
        "strategy",
        "strategyParameters",
        "deactivated",
        "useAdaptive",
        "allocationMethod",
        "manualIndicator",
        "extOperator",
    ]
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.one_of(_VALUES, st.dictionaries(_KEYS, _VALUES), st.dictionaries(_KEYS, _VALUES).map(GOOD.__or__)))
def test_any_ticket_is_an_order_or_a_refusal(ticket: object) -> None:
    answered: tuple[int, bytes] | None = None
    try:
        spec = tickets.parse(_CORE, ACCOUNT, ticket)
    except ApiError as refusal:
        answered = (refusal.status, refusal.body)
    else:
        assert spec.quantity > 0
        found = _CORE.engine.what_if(spec)
        assert found.error or found.after is not None
    assert answered is None or (answered[0] in (200, 400, 500) and answered[1])
