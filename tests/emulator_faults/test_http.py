"""Faults of requests: late, lost, refused, damaged; carried out or not."""

from __future__ import annotations

import asyncio
import errno
import time
from typing import Any

import aiohttp
import pytest

from bt_ibkr.emulator.faults.wire import reset

ORDERS = "/iserver/account/*/orders"


async def orders(api: Any) -> int:
    return len((await api.control("ledger"))["orders"])


@pytest.mark.parametrize("action", ["lose", "reset"])
@pytest.mark.parametrize("processed", [True, False])
async def test_answer_that_never_comes(api: Any, action: str, processed: bool) -> None:
    await api.fault("http", action=action, method="POST", path=ORDERS, processed=processed)
    with pytest.raises(aiohttp.ClientConnectionError):
        await api.place()
    assert await orders(api) == (1 if processed else 0)
    assert await api.faults() == []
    assert (await api.place(cOID="again"))[0] == 200


async def test_lost_answers_are_processed_and_resets_are_not_unless_asked(api: Any) -> None:
    await api.fault("http", action="lose", path=ORDERS)
    with pytest.raises(aiohttp.ServerDisconnectedError):
        await api.place()
    assert await orders(api) == 1
    await api.fault("http", action="reset", path=ORDERS)
    with pytest.raises(aiohttp.ClientOSError) as broken:
        await api.place()
    assert broken.value.errno == errno.ECONNRESET
    assert await orders(api) == 1


@pytest.mark.parametrize("status", [401, 410, 429, 500, 503])
@pytest.mark.parametrize("processed", [True, False])
async def test_status_instead(api: Any, status: int, processed: bool) -> None:
    await api.fault("http", action="status", status=status, method="POST", path=ORDERS, processed=processed)
    found, body = await api.place()
    assert found == status
    assert body == "not authenticated" if status == 401 else body["error"]
    assert await orders(api) == (1 if processed else 0)


async def test_html(api: Any) -> None:
    await api.fault("http", action="html", path="/tickle", count=2)
    status, body = await api.ask("GET", "/tickle")
    assert (status, body[:6]) == (503, "<html>")
    await api.fault("http", action="html", path="/iserver/accounts", status=200)
    assert (await api.ask("GET", "/iserver/accounts"))[1].startswith("<html>")
    assert (await api.ask("GET", "/tickle"))[0] == 503
    assert (await api.ask("GET", "/tickle"))[0] == 200


async def test_bodies_that_are_no_answer(api: Any) -> None:
    await api.fault("http", action="malformed", path="/tickle")
    status, body = await api.ask("GET", "/tickle")
    assert (status, type(body)) == (200, str)
    await api.fault("http", action="empty", path="/tickle")
    assert await api.ask("GET", "/tickle") == (200, "")
    await api.fault("http", action="error", path="/tickle", text="no session")
    assert await api.ask("GET", "/tickle") == (200, {"error": "no session"})


async def test_delay_after_the_request_was_carried_out(api: Any) -> None:
    await api.fault("http", action="delay", path=ORDERS, delay_s=60.0)
    asked = asyncio.create_task(api.place())

    async def taken() -> bool:
        return await orders(api) == 1

    await api.eventually(taken)
    assert not asked.done()
    (fault,) = await api.faults()
    assert await api.control("clear_faults", {"id": fault["id"]}) == {"cleared": [fault["id"]]}
    assert (await asked)[0] == 200


async def test_delay_before_it_is_carried_out(api: Any) -> None:
    await api.fault("http", action="delay", path=ORDERS, delay_s=0.2, processed=False)
    began = time.monotonic()
    assert (await api.place())[0] == 200
    assert time.monotonic() - began >= 0.2
    assert await api.faults() == []


async def test_half_open_until_cleared(api: Any) -> None:
    await api.fault("http", action="hold", path="/tickle")
    # The client repeats what can safely be repeated by itself; a POST cannot.
    asked = asyncio.create_task(api.ask("POST", "/tickle"))

    async def held() -> bool:
        return bool(await api.log("http"))

    await api.eventually(held)
    assert not asked.done()
    await api.control("clear_faults", {})
    with pytest.raises(aiohttp.ServerDisconnectedError):
        await asked


async def test_held_request_ends_when_its_client_gives_up(api: Any) -> None:
    await api.fault("http", action="hold", path="/tickle")
    with pytest.raises(TimeoutError):
        async with api.http.get(f"{api.server.url}/tickle", timeout=aiohttp.ClientTimeout(total=0.1)):
            pass

    async def over() -> bool:
        return not await api.faults()

    await api.eventually(over)


async def test_server_stops_while_it_holds_a_request(make: Any) -> None:
    api = await make()
    await api.fault("http", action="hold", path="/tickle", count=0)
    asked = asyncio.create_task(api.ask("GET", "/tickle"))

    async def held() -> bool:
        return bool(await api.log("http"))

    await api.eventually(held)
    await asyncio.wait_for(api.server.stop(), 5)
    with pytest.raises(aiohttp.ClientConnectionError):
        await asked


async def test_slow_server(api: Any) -> None:
    slow = await api.fault("slow", delay_s=0.1)
    for path in ("/tickle", "/iserver/auth/status"):
        began = time.monotonic()
        await api.get(path)
        assert time.monotonic() - began >= 0.1
    # Another fault happens late too.
    await api.fault("http", action="status", status=500, path="/tickle")
    assert (await api.ask("GET", "/tickle"))[0] == 500
    await api.control("clear_faults", {"id": slow["id"]})
    assert await api.faults() == []


async def test_only_what_matches(api: Any) -> None:
    await api.fault("http", action="status", status=500, method="POST", path="/tickle", skip=1, count=2)
    assert (await api.ask("GET", "/tickle"))[0] == 200
    statuses = [(await api.ask("POST", "/tickle"))[0] for _ in range(5)]
    assert statuses == [200, 500, 500, 200, 200]


async def test_until_cleared(api: Any) -> None:
    fault = await api.fault("http", action="status", status=503, path="/portfolio/*", count=0)
    assert fault["lasting"] is True
    for _ in range(3):
        assert (await api.ask("GET", "/portfolio/accounts"))[0] == 503
    (row,) = await api.faults()
    assert (row["id"], row["hits"], row["left"]) == (fault["id"], 3, None)
    await api.control("clear_faults", {})
    assert (await api.ask("GET", "/portfolio/accounts"))[0] == 200


async def test_upgrade_refused(api: Any) -> None:
    await api.fault("http", action="status", status=401, path="/ws")
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await api.socket()
    assert refused.value.status == 401
    await api.socket()


def test_reset_of_nothing() -> None:
    reset(None)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"kind": "flood"},
        {"kind": "http"},
        {"kind": "http", "action": "explode"},
        {"kind": "http", "action": "status", "status": 99},
        {"kind": "http", "action": "lose", "count": -1},
        {"kind": "http", "action": "lose", "paths": "/tickle"},
        {"kind": "slow"},
        {"kind": "slow", "delay_s": 0},
        {"kind": "slow", "delay_s": "much"},
        {"kind": "ws_close", "code": 1006},
        {"kind": "ws_close", "code": 2000},
        {"kind": "ws_storm", "every_s": 0},
        {"kind": "frames", "action": "reorder"},
        {"kind": "frames", "action": "delay"},
        {"kind": "frames", "action": "drop", "topic": ""},
        {"kind": "frames", "action": "corrupt", "corrupt": "sideways"},
        {"kind": "greeting", "action": "shout"},
        {"kind": "compete", "rematches": 1.5},
        {"kind": "no_bridge", "calls": 0},
        {"kind": "two_factor", "then": "later"},
        {"kind": "restart", "down_s": -1},
        {"kind": "skew"},
        {"kind": "skew", "offset_s": 1e9},
        {"kind": "quality", "code": "real time"},
        {"kind": "not_entitled", "conid": "AAPL"},
    ],
)
async def test_wrong_input(api: Any, body: dict[str, Any]) -> None:
    status, answer = await api.try_control("fault", body)
    assert status == 400
    assert answer["error"]
    assert await api.faults() == []


async def test_clearing_what_is_not_there(api: Any) -> None:
    assert (await api.try_control("clear_faults", {"id": 5}))[0] == 400
    assert await api.control("clear_faults", {}) == {"cleared": []}
    assert (await api.try_control("faults", {}))[0] == 405
    assert (await api.try_control("fault"))[0] == 405
