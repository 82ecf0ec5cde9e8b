"""The record of order requests, and the dump of everything."""

from __future__ import annotations

from typing import Any

import aiohttp
import pytest

from bt_ibkr.emulator.control.arguments import ControlError
from bt_ibkr.emulator.oracle import strategy_of
from bt_ibkr.emulator.settings import EmulatorSettings
from bt_ibkr.emulator.testing import EmulatorThread
from tests.emulator_faults.conftest import AAPL, ACCOUNT, PLAIN, Api
from tests.emulator_faults.test_listings import primed
from tests.emulator_faults.test_submissions import asked, bracket, limit

NAMES = ("kind", "client_ids", "outcome", "status")


async def requests(api: Api) -> list[tuple[Any, ...]]:
    rows = (await api.control("ledger"))["requests"]
    assert [row["n"] for row in rows] == list(range(len(rows)))
    return [(*(row[name] for name in NAMES), len(row["created"])) for row in rows]


async def test_every_request_and_what_came_of_it(api: Api) -> None:
    await primed(api)
    order_id = (await limit(api, cOID="s.e.1"))[0]["order_id"]
    await limit(api, cOID="s.e.1")
    await api.place(quantity=0, cOID="s.e.2")
    reply = await asked(api, "s.e.3")
    await api.ask("POST", f"/iserver/reply/{reply}", {"confirmed": True})
    await api.ask("DELETE", f"/iserver/account/{ACCOUNT}/order/{order_id}")
    await api.ask("DELETE", f"/iserver/account/{ACCOUNT}/order/{order_id}")
    assert await requests(api) == [
        ("place", ["s.e.1"], "accepted", 200, 1),
        ("place", ["s.e.1"], "refused", 200, 0),
        ("place", ["s.e.2"], "refused", 500, 0),
        ("place", ["s.e.3"], "question", 200, 0),
        ("reply", ["s.e.3"], "accepted", 200, 1),
        ("cancel", [], "accepted", 200, 0),
        ("cancel", [], "refused", 400, 0),
    ]


async def test_what_the_client_was_told_and_what_is_so(api: Api) -> None:
    await primed(api)
    for action, processed in (("lose", True), ("reset", False)):
        await api.fault(
            "http", method="POST", path="/iserver/account/*/orders", action=action, processed=processed
        )
        with pytest.raises(aiohttp.ClientError):
            await limit(api, cOID=action)
    await api.fault("http", method="POST", path="/iserver/account/*/orders", action="status", processed=True)
    await api.place(orderType="LMT", price=50.0, cOID="told")
    reply = await asked(api, "late")
    await api.fault("replies", action="unavailable", taken=True)
    await api.ask("POST", f"/iserver/reply/{reply}", {"confirmed": True})
    await api.fault("bracket")
    await bracket(api, "half")
    await api.fault("bracket", shape="error", parent="live")
    await bracket(api, "half2")
    assert await requests(api) == [
        ("place", ["lose"], "accepted", 0, 1),
        ("place", ["reset"], "unprocessed", 0, 0),
        ("place", ["told"], "accepted", 500, 1),
        ("place", ["late"], "question", 200, 0),
        ("reply", ["late"], "accepted", 503, 1),
        ("place", ["half"], "partly", 200, 2),
        ("place", ["half2"], "partly", 200, 2),
    ]


async def test_orders_are_counted_by_client_id_and_by_strategy(api: Api) -> None:
    await primed(api)
    await limit(api, cOID="sma.cross.k3f9a.1")
    await bracket(api, "sma.cross.k3f9a.2")
    await limit(api, cOID="plain")
    await api.control("manual_order", {"conid": AAPL, "side": "BUY", "quantity": 1})
    await api.control("split", {"conid": AAPL, "numerator": 2})
    ledger = await api.control("ledger")
    assert ledger["by_client_id"] == {"sma.cross.k3f9a.1": 1, "sma.cross.k3f9a.2": 3, "plain": 1}
    assert ledger["created"] == {"sma.cross": 4, "plain": 1, "": 1}
    assert [one["origin"] for one in ledger["orders"]] == ["", "", "", "", "", "tws"]
    assert [one["kind"] for one in ledger["corporate_actions"]] == ["split"]
    assert {"accounts", "executions", "now_ns"} < set(ledger)
    await api.control("reset", {})
    ledger = await api.control("ledger")
    assert (ledger["requests"], ledger["created"], ledger["corporate_actions"]) == ([], {}, [])


def test_a_strategy_is_named_by_its_client_ids() -> None:
    assert [strategy_of(one) for one in ("a.b.c.1", "a.b.1", "a.b", "a", "")] == ["a.b", "a", "a.b", "a", ""]


def test_an_emulator_in_a_thread_is_asked_directly() -> None:
    with EmulatorThread(EmulatorSettings(**PLAIN)) as emulator:
        emulator.do("tick", conid=AAPL, bid=99.0, ask=100.0)
        made = emulator.do("manual_order", conid=AAPL, side="BUY", quantity=3)
        assert emulator.ledger()["orders"][0]["order_id"] == made["order_id"]
        assert emulator.fault("order_list", action="empty") == 1
        with pytest.raises(ControlError, match="no order 7"):
            emulator.do("manual_cancel", order_id=7)
        with pytest.raises(ControlError, match="over HTTP"):
            emulator.do("wait")
