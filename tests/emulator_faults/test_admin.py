"""Orders of others in the account, and what IBKR and issuers do to orders, executions and positions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.emulator_faults.conftest import AAPL, ACCOUNT, Api, Make
from tests.emulator_faults.test_listings import POSITIONS, buy, primed, rows, streams
from tests.emulator_faults.test_submissions import limit

CALL, PUT = 700_001, 700_002
TABLE = f"""conid,symbol,security_type,exchange,currency,multiplier,strike,right,last_trade_date,size_increment
{CALL},AAPL,OPT,SMART,USD,100,90,C,20260320,1
{PUT},AAPL,OPT,SMART,USD,100,110,P,20260320,1
"""


async def held(api: Api) -> dict[int, tuple[float, float]]:
    """Quantity and average price by conid."""
    found = await api.get(POSITIONS)
    return {row["conid"]: (row["position"], round(row["avgPrice"], 4)) for row in found}


async def cash(api: Api) -> float:
    return float((await api.get(f"/portfolio/{ACCOUNT}/ledger"))["BASE"]["cashbalance"])


async def trades(api: Api) -> list[dict[str, Any]]:
    return list(await api.get("/iserver/account/trades"))


# --- orders ----------------------------------------------------------------------------------------


async def test_an_order_from_another_program(api: Api) -> None:
    """Fault 41: it has no client id, and needs no session."""
    await primed(api)
    socket = await streams(api)
    made = await api.control(
        "manual_order", {"conid": AAPL, "side": "BUY", "quantity": 7, "origin": "mobile"}
    )
    assert (made["status"], made["filled"]) == ("Filled", "7")
    frames = await socket.flush()
    told = [frame["args"][0] for frame in frames if frame["topic"] == "str"]
    assert len(told) == 2
    assert all("order_ref" not in row and row["order_id"] == made["order_id"] for row in told)
    assert [row["orderId"] for row in await rows(api)] == [made["order_id"]]
    assert await held(api) == {AAPL: (7.0, 100.01)}
    await api.control("session", {"state": "no_bridge"})
    resting = {
        "conid": AAPL,
        "side": "SELL",
        "quantity": 7,
        "order_type": "LMT",
        "price": 120.0,
        "tif": "GTC",
    }
    made = await api.control("manual_order", resting | {"order_ref": "theirs"})
    assert made["open"] is True
    status, answer = await api.try_control("manual_order", resting | {"order_ref": "theirs"})
    assert status == 400
    assert "already registered" in answer["error"]


async def test_our_order_is_changed_and_cancelled_by_hand(api: Api) -> None:
    await primed(api)
    socket = await streams(api)
    order_id = int((await limit(api, cOID="ours"))[0]["order_id"])
    await socket.flush()
    await api.control("manual_modify", {"order_id": order_id, "quantity": 4, "price": 51.5})
    (row,) = await rows(api)
    assert (row["totalSize"], row["price"], row["order_ref"]) == (4.0, "51.50", "ours")
    made = await api.control("manual_cancel", {"order_id": order_id})
    assert made["status"] == "Cancelled"
    told = [frame["args"][0].get("status") for frame in await socket.flush()]
    assert [one for one in told if one] == ["PendingCancel", "Cancelled"]
    for name in ("manual_cancel", "manual_modify", "fill"):
        assert (await api.try_control(name, {"order_id": order_id + 1}))[0] == 400
    assert (await api.try_control("manual_cancel", {"order_id": order_id}))[0] == 400


async def test_a_liquidation(api: Api) -> None:
    """Fault 42."""
    await primed(api)
    await buy(api, cOID="mine")
    order_id = (await limit(api))[0]["order_id"]
    assert (await api.try_control("liquidate", {"quantity": 11}))[0] == 400
    made = await api.control("liquidate", {"quantity": 4})
    assert [one["status"] for one in made["orders"]] == ["Filled"]
    assert [row["liquidation_trade"] for row in await trades(api)] == ["0", "1"]
    assert (await held(api))[AAPL][0] == 6.0
    await api.control("liquidate", {"conid": AAPL, "cancel_orders": True})
    assert await held(api) == {}
    body = await api.get(f"/iserver/account/order/status/{order_id}")
    assert body["order_cancellation_by_system_reason"] == "The account is liquidated."
    assert (await api.try_control("liquidate", {}))[0] == 400


async def test_a_quarter_ends(api: Api) -> None:
    """Fault 40."""
    await primed(api)
    for name, tif in (("day", "DAY"), ("gtc", "GTC")):
        await limit(api, cOID=name, tif=tif)
    assert len((await api.control("quarter_end", {}))["cancelled"]) == 1
    found = {row["order_ref"]: row for row in await rows(api)}
    assert found["day"]["status"] == "Submitted"
    assert found["gtc"]["status"] == "Cancelled"
    assert "quarter" in found["gtc"]["order_cancellation_by_system_reason"]
    ended = await api.control("system_cancel", {"order_id": found["day"]["orderId"], "reason": "Why not"})
    assert ended == {"cancelled": [found["day"]["orderId"]]}
    assert (await rows(api))[0]["order_cancellation_by_system_reason"] == "Why not"


async def test_an_order_is_filled_beyond_its_size(api: Api) -> None:
    """Fault 32."""
    await primed(api)
    order_id = int((await limit(api, quantity=10))[0]["order_id"])
    made = await api.control("fill", {"order_id": order_id, "quantity": 4, "price": 50.0})
    assert (made["status"], made["filled"], made["remaining"]) == ("Submitted", "4", "6")
    made = await api.control("fill", {"order_id": order_id, "quantity": 9, "price": 49.0})
    assert (made["status"], made["filled"]) == ("Filled", "13")
    assert [one["quantity"] for one in made["executions"]] == ["6", "3"]
    assert [row["size"] for row in await trades(api)] == [4.0, 6.0, 3.0]
    (row,) = await rows(api)
    assert (row["filledQuantity"], row["totalSize"]) == (13.0, 10.0)
    assert (await held(api))[AAPL] == (13.0, round((4 * 50 + 9 * 49) / 13, 4))
    await api.control("fill", {"order_id": order_id, "quantity": 1, "price": 49.0})
    assert (await held(api))[AAPL][0] == 14.0


@pytest.mark.parametrize(("final", "status"), [("cancelled", "Cancelled"), ("filled", "Filled")])
async def test_a_crowded_day(api: Api, final: str, status: str) -> None:
    """Fault 45, smaller; the list holds no more than 1000 rows."""
    await primed(api)
    made = await api.control("crowd", {"conid": AAPL, "count": 1200, "final": final, "prefix": "s.x."})
    found = await rows(api)
    assert len(found) == 1000
    assert {row["status"] for row in found} == {status}
    assert found[-1]["orderId"] == made["last"]
    assert found[-1]["order_ref"] == "s.x.1200"
    assert await held(api) == {}


async def test_a_halt_and_a_resumption(api: Api) -> None:
    """Fault 19."""
    await primed(api)
    await api.control("halt", {"conid": AAPL})
    await buy(api, cOID="waits")
    assert await held(api) == {}
    await api.control("halt", {"conid": AAPL, "on": False})
    assert (await held(api))[AAPL][0] == 10.0


# --- executions ------------------------------------------------------------------------------------


async def test_an_execution_is_corrected(api: Api) -> None:
    """Fault 33: both stay listed, position and cash follow the last one."""
    await primed(api)
    before = await cash(api)
    await buy(api, cOID="mine")
    socket = await streams(api)
    (first,) = await trades(api)
    assert first["execution_id"].endswith(".01.01")
    new = await api.control("correct", {"execution_id": first["execution_id"], "price": 99.0})
    assert new["execution_id"] == first["execution_id"][:-2] + "02"
    told = [frame["args"] for frame in await socket.flush() if frame["topic"] == "str"]
    assert [[row["execution_id"] for row in one] for one in told] == [[new["execution_id"]]] * 2
    assert [row["price"] for row in await trades(api)] == ["100.01", "99.00"]
    assert [row["order_ref"] for row in await trades(api)] == ["mine", "mine"]
    assert await held(api) == {AAPL: (10.0, 99.0)}
    assert await cash(api) == pytest.approx(before - 990.0 - float(first["commission"]))
    assert (await rows(api))[0]["avgPrice"] == "99.00"
    status, answer = await api.try_control("correct", {"execution_id": first["execution_id"], "price": 98.0})
    assert status == 400
    assert "corrected already" in answer["error"]
    third = await api.control("correct", {"execution_id": new["execution_id"], "quantity": 8})
    assert third["execution_id"].endswith(".03")
    assert (await held(api))[AAPL] == (8.0, 99.0)


async def test_a_trade_is_taken_back(api: Api) -> None:
    await primed(api)
    before = await cash(api)
    await buy(api)
    await buy(api, side="SELL")
    first, second = await trades(api)
    await api.control("bust", {"execution_id": second["execution_id"]})
    assert (await held(api))[AAPL][0] == 10.0
    await api.control("bust", {"execution_id": first["execution_id"]})
    assert await held(api) == {}
    assert await cash(api) == pytest.approx(before)
    assert [row["size"] for row in await trades(api)] == [10.0, 10.0, 0.0, 0.0]
    assert [row["position"] for row in await trades(api)] == ["10", "0", "10", "0"]
    assert (await api.try_control("bust", {"execution_id": "nonsense"}))[0] == 400


# --- positions -------------------------------------------------------------------------------------


@pytest.fixture
async def options(make: Make, tmp_path: Path) -> Api:
    table = tmp_path / "options.csv"
    table.write_text(TABLE)
    api = await primed(await make(universe=str(table)))
    for conid in (CALL, PUT):
        await api.control("tick", {"conid": conid, "bid": 9.9, "bid_size": 50, "ask": 10.0, "ask_size": 50})
    return api


async def test_an_option_is_exercised(options: Api) -> None:
    """Fault 43: the position changes, and there is no trade."""
    api = options
    await buy(api, conid=CALL, quantity=3)
    before, told = await cash(api), len(await trades(api))
    answer = await api.control("exercise", {"conid": CALL, "quantity": 2})
    assert answer | {"underlying": AAPL, "units": "200", "strike": 90.0} == answer
    assert await held(api) == {CALL: (1.0, 10.0), AAPL: (200.0, 90.0)}
    assert await cash(api) == pytest.approx(before - 18_000.0)
    assert len(await trades(api)) == told
    assert (await api.try_control("exercise", {"conid": CALL, "quantity": 2}))[0] == 400
    assert (await api.try_control("exercise", {"conid": CALL, "how": "assignment"}))[0] == 400
    assert (await api.try_control("exercise", {"conid": AAPL}))[0] == 400


async def test_an_assignment_an_expiry_and_a_settlement_in_cash(options: Api) -> None:
    api = options
    await buy(api, conid=PUT, quantity=1, side="SELL")
    await buy(api, conid=CALL, quantity=2)
    before = await cash(api)
    await api.control("exercise", {"conid": PUT, "how": "assignment"})
    assert (await held(api))[AAPL] == (100.0, 110.0)
    await api.control("exercise", {"conid": CALL, "quantity": 1, "how": "expiry"})
    assert await cash(api) == pytest.approx(before - 11_000.0)
    await api.control("exercise", {"conid": CALL, "settlement_price": 104.0})
    assert await cash(api) == pytest.approx(before - 11_000.0 + 1_400.0)
    assert set(await held(api)) == {AAPL}


async def test_a_split(api: Api) -> None:
    await primed(api)
    await buy(api, quantity=11)
    order_id = (await limit(api, tif="GTC"))[0]["order_id"]
    before, told = await cash(api), len(await trades(api))
    answer = await api.control("split", {"conid": AAPL, "numerator": 3, "denominator": 2})
    assert answer["orders"] == [int(order_id)]
    # 16.5 shares, of which half a share is paid out at the middle of the new quotes.
    assert (await held(api))[AAPL] == (16.0, round(11 * 100.01 / 16.5, 4))
    assert await cash(api) - before == pytest.approx(0.5 * 100 / 1.5, abs=0.01)
    assert len(await trades(api)) == told
    assert "corporate" in (await rows(api))[-1]["order_cancellation_by_system_reason"]
    book = await api.control("book", conid=AAPL)
    assert (book["quote"]["bid"], book["quote"]["ask"]) == (66.66, 66.67)
    assert (book["quote"]["bid_size"], book["quote"]["ask_size"]) == (1350.0, 1350.0)
    await api.step(max_events=50)
    moved = (await api.control("book", conid=AAPL))["quote"]
    assert 140 < moved["bid"] < 170
    await api.control("reset", {})
    await api.step(max_events=50)
    assert 210 < (await api.control("book", conid=AAPL))["quote"]["bid"] < 250


async def test_a_reverse_split_of_a_short_position(api: Api) -> None:
    await primed(api)
    await buy(api, quantity=25, side="SELL")
    await api.control("split", {"conid": AAPL, "numerator": 1, "denominator": 10})
    assert (await held(api))[AAPL] == (-2.0, round(99.99 * 10, 4))
    assert (await api.control("book", conid=AAPL))["quote"]["ask"] == 1000.1


async def test_another_symbol_and_another_conid(api: Api) -> None:
    await primed(api)
    await buy(api)
    order_id = (await limit(api, tif="GTC"))[0]["order_id"]
    assert (await api.control("rename", {"conid": AAPL, "symbol": "PEAR"}))["orders"] == []
    assert [row["ticker"] for row in await rows(api)] == ["PEAR", "PEAR"]
    assert set(await held(api)) == {AAPL}
    found = await api.get("/trsrv/stocks", symbols="PEAR")
    assert [one["contracts"][0]["conid"] for one in found["PEAR"]] == [AAPL]
    answer = await api.control("rename", {"conid": AAPL, "new_conid": 900_001})
    assert answer["orders"] == [int(order_id)]
    assert await held(api) == {900_001: (10.0, 100.01)}
    assert [row["symbol"] for row in await trades(api)] == ["PEAR"]
    await api.step(max_events=100)
    assert (await api.control("book", conid=900_001))["quote"]["bid"] > 200
    await buy(api, conid=900_001, side="SELL")
    assert await held(api) == {}
    assert (await api.try_control("rename", {"conid": 900_001, "new_conid": AAPL}))[0] == 400
    await api.control("reset", {})
    found = await api.get("/trsrv/stocks", symbols="AAPL,PEAR")
    assert found["AAPL"][0]["contracts"][0]["conid"] == AAPL
    assert not found.get("PEAR")


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("manual_order", {"conid": AAPL, "side": "BUY", "quantity": 0}),
        ("manual_order", {"conid": 1, "side": "BUY", "quantity": 1}),
        ("manual_order", {"conid": AAPL, "side": "BUY", "quantity": 1, "account": "U0"}),
        ("manual_order", {"conid": AAPL, "side": "BUY", "quantity": 1, "order_type": "LMT"}),
        ("system_cancel", {"order_id": 1}),
        ("correct", {"execution_id": "x"}),
        ("crowd", {"conid": 8314, "count": 1}),
        ("split", {"conid": AAPL, "numerator": 2, "denominator": 2}),
        ("split", {"conid": 1, "numerator": 2}),
        ("rename", {"conid": AAPL}),
        ("exercise", {"conid": 1}),
    ],
)
async def test_what_cannot_be_done_is_refused(api: Api, name: str, wrong: dict[str, Any]) -> None:
    await primed(api)
    status, answer = await api.try_control(name, wrong)
    assert status == 400
    assert answer["error"]
