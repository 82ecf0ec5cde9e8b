"""Faults of what is told of orders, executions and positions afterwards."""

from __future__ import annotations

from typing import Any

import pytest

from tests.emulator_faults.conftest import AAPL, ACCOUNT, Api, Make, Socket
from tests.emulator_faults.test_submissions import limit, quoted

POSITIONS = f"/portfolio/{ACCOUNT}/positions/0"


async def rows(api: Api, **query: Any) -> list[dict[str, Any]]:
    return list((await api.get("/iserver/account/orders", **query))["orders"])


async def primed(api: Api) -> Api:
    await quoted(api)
    await rows(api)
    await api.get("/iserver/account/trades")
    return api


async def buy(api: Api, **fields: Any) -> str:
    _, answer = await api.place(**fields)
    return str(answer[0]["order_id"])


async def streams(api: Api) -> Socket:
    socket = await api.socket()
    await socket.ws.send_str("str+{}")
    await socket.ws.send_str("sor+{}")
    await socket.flush()
    return socket


async def test_the_list_is_empty_after_it_was_forced(api: Api) -> None:
    """Fault 36."""
    await primed(api)
    await limit(api)
    await api.fault("order_list", action="empty", after_force=True, count=2)
    assert len(await rows(api)) == 1
    assert await rows(api, force="true") == []
    assert [len(await rows(api)) for _ in range(3)] == [0, 0, 1]


async def test_the_list_is_empty_and_says_that_it_is_no_snapshot(api: Api) -> None:
    await primed(api)
    await limit(api)
    await api.fault("order_list", action="empty", snapshot=False, count=1)
    assert await api.get("/iserver/account/orders") == {"orders": [], "snapshot": False}
    assert len(await rows(api)) == 1


async def test_orders_vanish_from_the_list_and_still_stand(api: Api) -> None:
    """Fault 35."""
    await primed(api)
    one, two = [(await limit(api, cOID=name))[0]["order_id"] for name in ("one", "two")]
    fault = await api.fault("order_list", action="vanish", orders=[int(one)])
    assert [str(row["orderId"]) for row in await rows(api)] == [two]
    body = await api.get(f"/iserver/account/order/status/{one}")
    assert body["order_status"] == "Submitted"
    await api.control("clear_faults", {"id": fault["id"]})
    await api.fault("order_list", action="vanish", orders=["two"], count=1)
    assert [str(row["orderId"]) for row in await rows(api)] == [one]
    await api.fault("order_list", action="vanish", statuses=["Submitted"], count=1)
    assert await rows(api) == []
    assert len(await rows(api)) == 2


async def test_the_list_is_stale(api: Api) -> None:
    await primed(api)
    order_id = (await limit(api))[0]["order_id"]
    await api.fault("order_list", action="freeze")
    await api.ask("DELETE", f"/iserver/account/{ACCOUNT}/order/{order_id}")
    assert [row["status"] for row in await rows(api)] == ["Submitted"]
    await api.control("clear_faults", {})
    assert [row["status"] for row in await rows(api)] == ["Cancelled"]


async def test_orders_of_other_accounts_are_listed(make: Make) -> None:
    """Fault 44."""
    api = await primed(await make(accounts=(ACCOUNT, "DU7654321")))
    await limit(api, cOID="mine")
    await limit(api, cOID="theirs", acctId="DU7654321")
    assert [row["acct"] for row in await rows(api)] == [ACCOUNT]
    await api.fault("order_list", action="foreign", count=1)
    assert [row["order_ref"] for row in await rows(api)] == ["mine", "theirs"]
    await api.fault("order_list", action="foreign", account="U999", rows=2)
    found = await rows(api)
    assert [row["acct"] for row in found] == [ACCOUNT, "U999", "U999"]
    assert {row["status"] for row in found} == {"Submitted"}


async def test_a_filtered_list_silences_orders_until_one_is_forced(api: Api) -> None:
    """Fault 37."""
    await primed(api)
    socket = await streams(api)
    await rows(api, filters="submitted")
    await limit(api)
    assert await socket.flush() == []
    await rows(api, force="true")
    await limit(api)
    assert {frame["topic"] for frame in await socket.flush()} == {"sor"}


async def test_the_status_of_a_finished_order_is_not_found(api: Api) -> None:
    """Fault 38."""
    await primed(api)
    done, open_ = await buy(api), (await limit(api))[0]["order_id"]
    await api.fault("order_status")
    status, body = await api.ask("GET", f"/iserver/account/order/status/{done}")
    assert (status, body) == (503, {"error": f"Order {done} is not found", "statusCode": 503})
    assert (await api.ask("GET", f"/iserver/account/order/status/{open_}"))[0] == 200
    await api.fault("order_status", finished=False, order_id=int(open_), count=1)
    assert (await api.ask("GET", f"/iserver/account/order/status/{open_}"))[0] == 503
    assert (await api.ask("GET", f"/iserver/account/order/status/{open_}"))[0] == 200


async def test_executions_are_listed_late_or_not(api: Api) -> None:
    """Faults 50 and 53."""
    await primed(api)
    await buy(api)
    await api.fault("trades", action="empty", count=1)
    assert await api.get("/iserver/account/trades") == []
    assert len(await api.get("/iserver/account/trades")) == 1
    for lag_s in (0, 3600):
        await api.fault("trades", action="lag", lag_s=lag_s)
        await buy(api)
        assert len(await api.get("/iserver/account/trades")) == (1 if lag_s == 0 else 2)
        await api.control("clear_faults", {})
    assert len(await api.get("/iserver/account/trades")) == 3
    await api.fault("trades", action="lag", lag_s=0.02)
    await buy(api)

    async def seen() -> bool:
        return len(await api.get("/iserver/account/trades")) == 4

    await api.eventually(seen)


async def test_executions_are_listed_twice_and_in_disorder(api: Api) -> None:
    """Faults 23 and 24."""
    await primed(api)
    for _ in range(5):
        await buy(api)
    right = [row["execution_id"] for row in await api.get("/iserver/account/trades")]
    await api.fault("trades", action="duplicate", count=1)
    twice = [row["execution_id"] for row in await api.get("/iserver/account/trades")]
    assert twice == [one for one in right for _ in range(2)]
    await api.fault("trades", action="shuffle", count=3)
    told = [[row["execution_id"] for row in await api.get("/iserver/account/trades")] for _ in range(3)]
    assert any(one != right for one in told)
    assert all(sorted(one) == sorted(right) for one in told)


async def test_a_commission_comes_late(api: Api) -> None:
    """Fault 34."""
    await primed(api)
    socket = await streams(api)
    await api.fault("commissions", delay_s=0.05, count=1)
    await buy(api)
    first = (await socket.until("str"))["args"][0]
    assert "commission" not in first
    second = (await socket.until("str"))["args"][0]
    assert second == first | {"commission": second["commission"]}
    assert float(second["commission"]) > 0
    await buy(api)
    told = [frame["args"][0] for frame in await socket.flush() if frame["topic"] == "str"]
    assert ["commission" in row for row in told] == [False, True]


async def test_a_commission_never_comes(api: Api) -> None:
    await primed(api)
    socket = await streams(api)
    fault = await api.fault("commissions")
    await buy(api)
    told = [frame["args"][0] for frame in await socket.flush() if frame["topic"] == "str"]
    assert ["commission" in row for row in told] == [False]
    assert "commission" not in (await api.get("/iserver/account/trades"))[0]
    await socket.ws.send_str("str+{}")
    replayed = [frame["args"] for frame in await socket.flush() if frame["topic"] == "str"]
    assert [["commission" in row for row in one] for one in replayed] == [[], [False]]
    await api.control("clear_faults", {"id": fault["id"]})
    assert "commission" in (await socket.until("str"))["args"][0]
    assert "commission" in (await api.get("/iserver/account/trades"))[0]


@pytest.mark.parametrize("action", ["drop", "duplicate", "reorder"])
async def test_frames_of_executions_and_orders(api: Api, action: str) -> None:
    """Faults 22, 24, 25 and 54."""
    await primed(api)
    socket = await streams(api)
    # Two executions are four frames of str; an order that fills at once has five of sor.
    counts = {"str": 4, "sor": 5}
    for topic, count in counts.items():
        await api.fault("frames", action=action, topic=topic, count=count)
    await buy(api)
    frames = await socket.flush()
    if action == "reorder":
        await buy(api)
        frames += await socket.flush()
    told = {topic: [frame["args"] for frame in frames if frame["topic"] == topic] for topic in counts}
    if action == "drop":
        assert told == {"str": [], "sor": []}
    elif action == "duplicate":
        assert all(one[::2] == one[1::2] and one for one in told.values())
    else:
        sizes = [row.get("commission", "") for (row,) in told["str"]]
        ids = [row["execution_id"] for (row,) in told["str"]]
        assert len(ids) == 4
        assert (sizes, ids) != (["", "1.0", "", "1.0"], sorted(ids))
    assert len(await api.get("/iserver/account/trades")) == (2 if action == "reorder" else 1)


async def test_positions_cannot_be_read_or_seem_to_be_none(api: Api) -> None:
    """Fault 49."""
    await primed(api)
    await buy(api)
    assert len(await api.get(POSITIONS)) == 1
    await api.fault("positions", action="fail", status=503, count=1)
    assert (await api.ask("GET", POSITIONS))[0] == 503
    await api.fault("positions", action="empty", count=3)
    assert await api.get(POSITIONS) == []
    assert await api.get(f"/portfolio2/{ACCOUNT}/positions") == []
    assert await api.get(f"/portfolio/positions/{AAPL}") == {}
    assert [row["position"] for row in await api.get(POSITIONS)] == [10.0]


async def test_positions_lag_behind_executions(make: Make) -> None:
    """Fault 50."""
    api = await primed(await make(accounts=(ACCOUNT, "DU7654321")))
    await buy(api)
    await api.fault("positions", action="lag", account=ACCOUNT)
    await buy(api)
    await buy(api, acctId="DU7654321")
    assert [row["position"] for row in await api.get(POSITIONS)] == [10.0]
    assert len(await api.get("/portfolio/DU7654321/positions/0")) == 1
    await api.ask("POST", f"/portfolio/{ACCOUNT}/positions/invalidate")
    assert [row["position"] for row in await api.get(POSITIONS)] == [20.0]
    await api.control("clear_faults", {})
    await api.fault("positions", action="lag", lag_s=3600, invalidate=False)
    await buy(api, side="SELL", quantity=20)
    await api.ask("POST", f"/portfolio/{ACCOUNT}/positions/invalidate")
    assert [row["position"] for row in await api.get(POSITIONS)] == [20.0]
    await api.control("clear_faults", {})
    assert await api.get(POSITIONS) == []


async def test_positions_follow_after_the_lag(api: Api) -> None:
    await primed(api)
    await api.fault("positions", action="lag", lag_s=0.02)
    await buy(api)

    async def seen() -> bool:
        return len(await api.get(POSITIONS)) == 1

    await api.eventually(seen)
