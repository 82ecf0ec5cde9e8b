"""Faults between an order and its acknowledgement."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import pytest

from tests.emulator_faults.conftest import AAPL, ACCOUNT, Api, Make

ORDERS = f"/iserver/account/{ACCOUNT}/orders"


async def quoted(api: Api) -> Api:
    """A quote, so that market orders execute at once."""
    await api.control("tick", {"conid": AAPL, "bid": 99.99, "bid_size": 900, "ask": 100.01, "ask_size": 900})
    return api


async def limit(api: Api, **fields: Any) -> Any:
    """An order that rests; the answer to it."""
    status, answer = await api.place(**({"orderType": "LMT", "price": 50.0} | fields))
    assert status == 200, answer
    return answer


async def listed(api: Api) -> list[dict[str, Any]]:
    rows = (await api.get("/iserver/account/orders"))["orders"]
    return rows or list((await api.get("/iserver/account/orders"))["orders"])


async def bracket(api: Api, name: str = "b", children: int = 2) -> Any:
    legs = [
        {"orderType": "LMT", "price": 150.0, "side": "SELL"},
        {"orderType": "STP", "price": 40.0, "side": "SELL"},
    ]
    common = {"conid": AAPL, "quantity": 10, "tif": "GTC"}
    parent = common | {"orderType": "LMT", "price": 50.0, "side": "BUY", "cOID": name}
    orders = [parent, *(common | leg | {"parentId": name} for leg in legs[:children])]
    status, answer = await api.ask("POST", ORDERS, {"orders": orders})
    assert status == 200, answer
    return answer


@pytest.mark.parametrize(
    "fault",
    [
        {"action": "lose"},
        {"action": "reset", "processed": True},
        {"action": "hold", "delay_s": 0.01},
        {"action": "status", "status": 500, "processed": True},
        {"action": "status", "status": 503, "processed": True},
        {"action": "error", "text": "We cannot accept an order", "processed": True},
        {"action": "html", "processed": True},
        {"action": "malformed", "processed": True},
    ],
)
async def test_an_order_is_taken_and_its_answer_is_not(api: Api, fault: dict[str, Any]) -> None:
    """Faults 2, 4 and 5."""
    await api.fault("http", method="POST", path="/iserver/account/*/orders", **fault)
    if fault["action"] in ("lose", "reset", "hold"):
        with pytest.raises(aiohttp.ClientError):
            await limit(api, cOID="lost")
    else:
        await api.place(orderType="LMT", price=50.0, cOID="lost")
    assert [row["order_ref"] for row in await listed(api)] == ["lost"]


@pytest.mark.parametrize("action", ["reset", "status", "error"])
async def test_an_order_is_not_taken(api: Api, action: str) -> None:
    """Faults 3 and 6."""
    await api.fault("http", method="POST", path="/iserver/account/*/orders", action=action)
    try:
        await api.place(orderType="LMT", price=50.0, cOID="never")
    except aiohttp.ClientError:
        assert action == "reset"
    assert await listed(api) == []


async def test_a_fill_comes_before_its_acknowledgement(api: Api) -> None:
    """Fault 21: the answer waits until it is let go, the frames do not."""
    await quoted(api)
    socket = await api.socket()
    await socket.ws.send_str("str+{}")
    await socket.ws.send_str("sor+{}")
    await socket.flush()
    fault = await api.fault(
        "http", method="POST", path="/iserver/account/*/orders", action="delay", delay_s=60
    )
    asking = asyncio.create_task(api.place(cOID="early"))
    assert (await socket.until("str"))["args"][0]["order_ref"] == "early"
    assert not asking.done()
    await api.control("clear_faults", {"id": fault["id"]})
    _, answer = await asking
    assert answer[0]["local_order_id"] == "early"


async def test_questions_of_every_kind_in_a_chain(api: Api) -> None:
    """Faults 8 and 9: known and unknown ids, none, several in one answer."""
    chain = [
        [{"id": "o163", "text": "The price"}],
        [{"id": "o99999", "text": "Unheard of"}, {"id": "o354", "text": "No data"}],
        [{"text": "Nameless"}],
    ]
    await api.fault("questions", chain=chain)
    answer = await limit(api, cOID="asked")
    seen = []
    for _ in chain:
        assert await listed(api) == []
        seen.append((answer[0]["message"], answer[0].get("messageIds")))
        _, answer = await api.ask("POST", f"/iserver/reply/{answer[0]['id']}", {"confirmed": True})
    assert seen == [
        (["The price"], ["o163"]),
        (["Unheard of", "No data"], ["o99999", "o354"]),
        (["Nameless"], None),
    ]
    assert answer[0]["local_order_id"] == "asked"
    assert "order_id" in (await limit(api, cOID="next"))[0]


async def test_suppressed_questions_of_a_chain_are_left_out(api: Api) -> None:
    await api.ask("POST", "/iserver/questions/suppress", {"messageIds": ["o163"]})
    chain = [[{"id": "o163", "text": "a"}], [{"id": "o163", "text": "a"}, {"id": "o1", "text": "b"}]]
    await api.fault("questions", chain=chain)
    answer = await limit(api)
    assert answer[0]["messageIds"] == ["o163", "o1"]


async def test_a_change_is_asked_and_an_order_is_not(api: Api) -> None:
    """Fault 31."""
    await api.fault("questions", on="modify", chain=[[{"id": "o10138", "text": "Size"}]])
    order_id = (await limit(api))[0]["order_id"]
    body = {"conid": AAPL, "orderType": "LMT", "side": "BUY", "quantity": 5, "price": 51.0, "tif": "DAY"}
    _, answer = await api.ask("POST", f"/iserver/account/{ACCOUNT}/order/{order_id}", body)
    assert answer[0]["messageIds"] == ["o10138"]
    assert (await listed(api))[0]["totalSize"] == 10.0
    await api.ask("POST", f"/iserver/reply/{answer[0]['id']}", {"confirmed": True})
    assert (await listed(api))[0]["totalSize"] == 5.0


async def asked(api: Api, name: str) -> str:
    """The reply id of an order that is asked one question."""
    await api.fault("questions", chain=[[{"id": "o354", "text": "No data"}]])
    answer = await limit(api, cOID=name)
    return str(answer[0]["id"])


async def test_a_reply_id_is_invalid(api: Api) -> None:
    """Fault 10."""
    reply = await asked(api, "gone")
    await api.fault("replies", action="invalid")
    status, answer = await api.ask("POST", f"/iserver/reply/{reply}", {"confirmed": True})
    assert (status, answer) == (400, {"error": f"reply id not found: '{reply}'"})
    assert await listed(api) == []
    assert (await asked(api, "gone")) != reply


@pytest.mark.parametrize("taken", [True, False])
async def test_a_reply_is_unavailable(api: Api, taken: bool) -> None:
    """Fault 11."""
    reply = await asked(api, "late")
    await api.fault("replies", action="unavailable", taken=taken)
    status, answer = await api.ask("POST", f"/iserver/reply/{reply}", {"confirmed": True})
    assert (status, answer) == (503, {"error": "Service Unavailable", "statusCode": 503})
    assert [row["order_ref"] for row in await listed(api)] == (["late"] if taken else [])
    status, _ = await api.ask("POST", f"/iserver/reply/{reply}", {"confirmed": True})
    assert status == 400


async def test_a_session_ends_between_question_and_reply(api: Api) -> None:
    """Fault 12."""
    await api.fault("question_ends_session")
    reply = await asked(api, "cut")
    status, _ = await api.ask("POST", f"/iserver/reply/{reply}", {"confirmed": True})
    assert status == 400
    await api.init()
    await api.get("/iserver/accounts")
    assert await listed(api) == []


async def test_half_a_bracket_with_a_sentinel(api: Api) -> None:
    """Fault 18, as seen in the field: the parent stands."""
    await api.fault("bracket", text="No stops here", child=1)
    answer = await bracket(api)
    assert answer[0] | {"text": "No stops here"} == answer[0]
    assert (answer[0]["order_id"], answer[0]["order_status"]) == ("-1", "Failed")
    assert [row["orderType"] for row in await listed(api)] == ["Limit", "Limit"]
    assert sum("local_order_id" in row for row in answer) == 1


async def test_a_bracket_of_which_nothing_is_transmitted(api: Api) -> None:
    await api.fault("bracket", parent="inactive")
    answer = await bracket(api, children=1)
    assert [row["order_status"] for row in answer] == ["Failed", "Inactive"]
    assert answer[1]["local_order_id"] == "b"
    assert await listed(api) == []


@pytest.mark.parametrize("parent", [None, "live"])
async def test_a_bracket_is_answered_with_an_error(api: Api, parent: str | None) -> None:
    await api.fault("bracket", shape="error", text="no sec defs returned", parent=parent)
    assert await bracket(api) == {"error": "no sec defs returned"}
    assert len(await listed(api)) == (2 if parent else 0)


async def test_a_child_has_an_id_and_is_cancelled_at_once(api: Api) -> None:
    await api.fault("bracket", shape="ids", text="Mismatched")
    answer = await bracket(api)
    assert len({row["order_id"] for row in answer}) == 3
    rows = await listed(api)
    assert sorted(row["status"] for row in rows) == ["Cancelled", "PreSubmitted", "Submitted"]
    gone = next(row for row in rows if row["status"] == "Cancelled")
    assert gone["order_cancellation_by_system_reason"] == "Mismatched"
    assert gone["price"] == "150.00"


async def test_a_child_is_not_mentioned(api: Api) -> None:
    await api.fault("bracket", shape="missing", child=7)
    answer = await bracket(api)
    assert len(answer) == 2
    assert [row["price"] for row in await listed(api)] == ["50.00", "150.00"]
    assert len(await bracket(api, "whole")) == 3


async def test_answers_in_any_order(make: Make) -> None:
    seen: dict[str, list[bool]] = {}
    for order in ("parent_first", "children_first"):
        api = await make()
        await api.fault("answers", order=order)
        seen[order] = ["parent_order_id" in row for row in await bracket(api)]
    assert seen == {"parent_first": [False, True, True], "children_first": [True, True, False]}
    first, second = [await make(seed=5) for _ in range(2)]
    orders = []
    for api in (first, second):
        await api.fault("answers", order="shuffle")
        answers = [await bracket(api, str(n)) for n in range(5)]
        orders.append([["parent_order_id" in row for row in answer] for answer in answers])
    assert orders[0] == orders[1]
    assert len({tuple(one) for one in orders[0]}) > 1


async def test_a_change_gives_another_id(api: Api) -> None:
    """Fault 39."""
    answer = await bracket(api)
    former = next(row["order_id"] for row in answer if "local_order_id" in row)
    await api.fault("new_order_id")
    body = {"conid": AAPL, "orderType": "LMT", "side": "BUY", "quantity": 10, "price": 51.0, "tif": "GTC"}
    _, answer = await api.ask("POST", f"/iserver/account/{ACCOUNT}/order/{former}", body)
    new = answer[0]["order_id"]
    assert new != former
    rows = {str(row["orderId"]): row for row in await listed(api)}
    assert former not in rows
    assert rows[new]["order_ref"] == "b"
    assert {row.get("parentId") for row in rows.values()} == {None, new}
    assert (await api.ask("GET", f"/iserver/account/order/status/{former}"))[0] == 503
    status, _ = await api.ask("DELETE", f"/iserver/account/{ACCOUNT}/order/{new}")
    assert status == 200
    assert {row["status"] for row in await listed(api)} == {"Cancelled"}
    status, again = await api.place(orderType="LMT", price=50.0, cOID="b")
    assert "already registered" in again["error"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "questions", "chain": []},
        {"kind": "questions", "chain": [[]]},
        {"kind": "bracket", "shape": "ids", "parent": "absent"},
        {"kind": "bracket", "shape": "error", "parent": "inactive"},
        {"kind": "bracket", "shape": "sentinel", "parent": "absent"},
        {"kind": "replies", "action": "lost"},
    ],
)
async def test_what_cannot_be_is_refused(api: Api, wrong: dict[str, Any]) -> None:
    status, answer = await api.try_control("fault", wrong)
    assert status == 400
    assert answer["error"]
