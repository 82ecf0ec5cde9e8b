"""The WebSocket: greeting, keep-alive, market data, orders, executions, accounts."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest

from bt_ibkr.emulator.stream.message import parse

ACCOUNT = "DU1234567"
FIELDS = '{"fields":["31","84","85","86","88","7059","7762","6509"]}'


def test_grammar() -> None:
    assert parse('smd+265598@ARCA+{"fields":["31"]}').target == "265598@ARCA"
    assert parse("sld+DU1").target == "DU1"
    assert parse("uld+DU1+{}").arguments == {}
    assert parse("utr").topic == "utr"
    assert parse("str+{broken").arguments == {}
    assert parse("spl").topic == "spl"


async def test_greeting_in_order(api: Any) -> None:
    socket = await api.socket()
    assert [frame["topic"] for frame in socket.frames] == ["system", "act", "sts"]
    assert socket.frames[0]["success"]
    assert socket.frames[1]["args"]["accounts"] == [ACCOUNT]
    assert socket.frames[2]["args"]["authenticated"] is True


async def test_frames_before_the_greeting_are_lost(make: Any) -> None:
    api = await make(connect_delay_s=0.2)
    socket = await api.socket(greeted=False)
    await socket.send("str+{}")
    await socket.greeted()
    assert await socket.flush() == []


async def test_tic_is_answered_four_times(api: Any) -> None:
    socket = await api.socket()
    await socket.send("tic")
    answers = [await socket.next() for _ in range(4)]
    assert all(answer == answers[0] for answer in answers)
    assert answers[0]["id"] == (await api.get("/tickle"))["session"]


async def test_heartbeat(make: Any) -> None:
    api = await make(heartbeat_s=0.05)
    socket = await api.socket()
    frame = await socket.until(lambda one: "hb" in one)
    assert frame["topic"] == "system"


async def test_binary_frames_and_session_as_first_message(make: Any) -> None:
    api = await make(frames="binary")
    socket = await api.socket(greeted=False)
    message = await socket.ws.receive(timeout=5)
    assert isinstance(message.data, bytes)
    await socket.send(json.dumps({"session": "abc"}))
    await socket.ws.receive(timeout=5)
    await socket.ws.receive(timeout=5)
    assert await socket.flush() == []


async def test_unknown_topic(api: Any) -> None:
    socket = await api.socket()
    await socket.send("xyz+1")
    assert (await socket.next())["error"]


async def test_market_data_full_frame_twice_then_changes(api: Any) -> None:
    await api.step(max_events=50)
    socket = await api.socket()
    await socket.send(f"smd+265598+{FIELDS}")
    first, second = await socket.next(), await socket.next()
    assert first == second
    assert first["topic"] == "smd+265598"
    assert {"31", "84", "86", "85", "88", "6509", "6119", "server_id", "conidEx", "conid"} <= first.keys()
    assert all(isinstance(first[tag], str) for tag in ("31", "84", "86", "85", "88", "7762", "6509"))
    assert first["6509"] == "RpB"
    known = {tag: value for tag, value in first.items() if tag.isdigit()}
    await api.step(max_events=200)
    frames = await socket.flush()
    assert len(frames) > 50
    for frame in frames:
        changed = {tag: value for tag, value in frame.items() if tag.isdigit() and tag != "6119"}
        assert changed
        assert all(known.get(tag) != value for tag, value in changed.items())
        known |= changed
    quote = (await api.control("book", conid=265598))["quote"]
    assert float(known["84"]) == quote["bid"]
    assert float(known["7762"]) == quote["volume"]
    assert frames[-1]["_updated"] <= (await api.control("state"))["now_ns"] // 1_000_000


async def test_market_data_is_conflated(make: Any) -> None:
    api = await make(conflation_ms=500)
    socket = await api.socket()
    await socket.send(f"smd+265598+{FIELDS}")
    await socket.next()
    await socket.next()
    await api.step(max_events=2000)
    frames = await socket.flush()
    times = [frame["_updated"] for frame in frames]
    assert len(times) > 20
    assert all(later - earlier >= 499 for earlier, later in pairwise(times[1:]))


async def test_streams_end_without_renewal(make: Any) -> None:
    api = await make(smd_lifetime_s=60.0)
    socket = await api.socket()
    await socket.send(f"smd+265598+{FIELDS}")
    start_ns = (await api.control("state"))["now_ns"]
    await api.step(until_ns=start_ns + 300_000_000_000)
    frames = await socket.flush()
    assert max(frame["_updated"] for frame in frames) < (start_ns + 61_000_000_000) // 1_000_000
    await socket.send(f"smd+265598+{FIELDS}")
    assert (await socket.next())["topic"] == "smd+265598"


async def test_unsubscribe_and_rest_unsubscribe(api: Any) -> None:
    socket = await api.socket()
    for close in ("socket", "rest", "all"):
        await socket.send(f"smd+265598+{FIELDS}")
        await socket.flush()
        if close == "socket":
            await socket.send("umd+265598+{}")
            await socket.flush()
            assert await api.ask("POST", "/iserver/marketdata/unsubscribe", {"conid": 265598}) == (
                500,
                {"error": "unknown"},
            )
        elif close == "rest":
            assert await api.post("/iserver/marketdata/unsubscribe", {"conid": 265598}) == {"success": True}
        else:
            assert await api.get("/iserver/marketdata/unsubscribeall") == {"unsubscribed": True}
        await api.step(max_events=50)
        assert await socket.flush() == []


async def test_halt_marks_the_price(api: Any) -> None:
    await api.step(max_events=100)
    socket = await api.socket()
    await socket.send(f"smd+265598+{FIELDS}")
    await socket.flush()
    await api.control("halt", {"conid": 265598})
    (frame,) = await socket.flush()
    assert frame["31"].startswith("H")


async def test_orders_and_executions(api: Any) -> None:
    await api.step(max_events=50)
    socket = await api.socket()
    await socket.send("sor+{}")
    await socket.send("str+{}")
    await socket.flush()
    (placed,) = await api.place(cOID="one")
    order_id = int(placed["order_id"])
    await api.step(max_events=5)
    frames = await socket.flush()
    orders = [frame["args"][0] for frame in frames if frame["topic"] == "sor"]
    assert all(row["orderId"] == order_id and row["acct"] == ACCOUNT for row in orders)
    first, identity = orders[0], orders[1]
    assert (first["status"], first["order_ccp_status"], first["order_ref"]) == (
        "Inactive",
        "Pending Submit",
        "one",
    )
    assert identity == {"acct": ACCOUNT, "orderId": order_id}
    states = [row["status"] for row in orders if "status" in row]
    assert states == ["Inactive", "PendingSubmit", "Submitted", "Filled"]
    assert orders[-1]["sizeAndFills"] == "10"
    assert "conid" not in orders[-1]
    executions = [frame["args"][0] for frame in frames if frame["topic"] == "str"]
    assert len(executions) % 2 == 0
    bare, full = executions[0], executions[1]
    assert "commission" not in bare
    assert full == bare | {"commission": full["commission"]}
    assert (bare["side"], bare["order_ref"], bare["order_id"]) == ("B", "one", order_id)
    # A new subscription replays; one for new executions alone does not.
    await socket.send("utr")
    await socket.send("str+{}")
    replay = await socket.flush()
    assert replay[0] == {"topic": "str", "args": []}
    assert replay[1]["args"][0]["execution_id"] == bare["execution_id"]
    await socket.send('str+{"realtimeUpdatesOnly":true}')
    assert await socket.flush() == [{"topic": "str", "args": []}]


async def test_cancel_is_told_in_full_then_short(api: Any) -> None:
    await api.step(max_events=50)
    socket = await api.socket()
    (placed,) = await api.place(orderType="LMT", price=1.0)
    await socket.send("sor+{}")
    await socket.flush()
    await api.ask("DELETE", f"/iserver/account/{ACCOUNT}/order/{placed['order_id']}")
    await api.step(max_events=5)
    rows = [frame["args"][0] for frame in await socket.flush()]
    assert rows[-1]["status"] == "Cancelled"
    assert rows[-1]["fgColor"] == "#AA0000"


async def test_filtered_list_silences_orders_until_forced(api: Any) -> None:
    await api.step(max_events=50)
    socket = await api.socket()
    await socket.send("sor+{}")
    await api.get("/iserver/account/orders", filters="filled")
    await api.place(orderType="LMT", price=1.0)
    assert await socket.flush() == []
    assert await api.get("/iserver/account/orders", force="true") == {"orders": [], "snapshot": False}
    await api.place(orderType="LMT", price=1.0)
    assert await socket.flush() != []


async def test_profit_and_loss_by_the_second(api: Any) -> None:
    await api.step(max_events=50)
    await api.place()
    await api.step(max_events=5)
    socket = await api.socket()
    await socket.send("spl+{}")
    now_ns = (await api.step(max_events=1))["now_ns"]
    await api.step(until_ns=now_ns + 30_000_000_000)
    frames = [frame for frame in await socket.flush() if frame["topic"] == "spl"]
    assert 2 <= len(frames) <= 32
    assert set(frames[0]["args"][f"{ACCOUNT}.Core"]) >= {"rowType", "dpl", "nl", "upl", "el", "mv"}
    await socket.send("upl+{}")
    await api.step(until_ns=now_ns + 60_000_000_000)
    assert await socket.flush() == []


async def test_ledger_and_summary(api: Any) -> None:
    socket = await api.socket()
    await socket.send(f"sld+{ACCOUNT}")
    await socket.send(f'ssd+{ACCOUNT}+{{"keys":["NetLiquidation"],"fields":["monetaryValue"]}}')
    ledger, summary = await socket.flush()
    assert {row["key"] for row in ledger["result"]} == {"LedgerListUSD", "LedgerListBASE"}
    assert summary["result"][0]["monetaryValue"] == 1_000_000.0
    now_ns = (await api.control("state"))["now_ns"]
    await api.step(until_ns=now_ns + 11_000_000_000)
    blank = next(one for one in await socket.flush() if one["topic"].startswith("sld"))
    assert all(set(row) == {"key", "timestamp"} for row in blank["result"])
    await socket.send(f"uld+{ACCOUNT}+{{}}")
    assert await socket.next() == {"result": "unsubscribed from ledger"}
    await socket.send(f"usd+{ACCOUNT}+{{}}")
    assert await socket.next() == {"result": "unsubscribed from summary"}
    await socket.send("sld+U0")
    assert "error" in await socket.next()


async def test_history_over_the_socket(api: Any) -> None:
    socket = await api.socket()
    await socket.send('smh+265598+{"period":"1d","bar":"5min","format":"%o/%c","outsideRTH":true}')
    frame = await socket.next()
    assert frame["topic"] == "smh+265598"
    assert set(frame["data"][0]) == {"o", "c"}
    await socket.send(f"umh+{frame['serverId']}")
    assert await socket.next() == {"message": f"Unsubscribed {frame['serverId']}"}


async def test_session_loss_ends_the_streams(api: Any) -> None:
    socket = await api.socket()
    await socket.send(f"smd+265598+{FIELDS}")
    await socket.flush()
    await api.control("session", {"state": "no_bridge"})
    assert await socket.next() == {"topic": "sts", "args": {"authenticated": False}}
    await api.step(max_events=20)
    await socket.send(f"smd+265598+{FIELDS}")
    assert (await socket.next())["error"] == "unable to subscribe"
    await api.post("/iserver/auth/ssodh/init", {"publish": True, "compete": True})
    assert (await socket.next())["args"]["authenticated"] is True


@pytest.mark.parametrize("target", ["0", "abc", "99999999999999999999999", "265598@NOWHERE"])
async def test_odd_targets_do_no_harm(api: Any, target: str) -> None:
    socket = await api.socket()
    await socket.send(f"smd+{target}+{FIELDS}")
    await socket.send(f"umd+{target}")
    await socket.flush()


async def test_client_waits_while_nobody_is_logged_in(make: Any) -> None:
    api = await make(primed=False, login="logged_out")
    socket = await api.socket(greeted=False)
    assert await socket.next() == {"message": "waiting for session"}
    await api.control("session", {"state": "ready"})
    await socket.greeted()
    assert [frame.get("topic") for frame in socket.frames[1:]] == ["system", "act", "sts"]


async def test_notice(api: Any) -> None:
    socket = await api.socket()
    await api.control("notice", {"text": "The exchange closes early."})
    frame = await socket.next()
    assert (frame["topic"], frame["args"][0]["text"]) == ("ntf", "The exchange closes early.")
