"""Faults of the session: as the real server behaves, step by step."""

from __future__ import annotations

from typing import Any

import aiohttp
import pytest

ACCOUNTS_FIRST = (500, {"error": "Please query /accounts first"})
NO_BRIDGE = (400, {"error": "Bad Request: no bridge", "statusCode": 400})
FORCE = "Force compete capability must be used together with compete flag"


async def status(api: Any) -> tuple[bool, bool, bool]:
    """``connected``, ``authenticated``, ``competing``."""
    body = await api.get("/iserver/auth/status")
    return body["connected"], body["authenticated"], body["competing"]


async def tickled(api: Any) -> str:
    found: str = (await api.get("/tickle"))["session"]
    return found


async def test_brokerage_session_expires(api: Any) -> None:
    socket = await api.socket()
    await api.fault("expire")
    assert await socket.until("sts") == {"topic": "sts", "args": {"authenticated": False}}
    assert await status(api) == (True, False, False)
    assert await api.ask("GET", "/iserver/accounts") == NO_BRIDGE
    assert (await api.get("/portfolio/accounts"))[0]["id"] == "DU1234567"
    assert (await api.init())["authenticated"] is True
    assert await api.ask("GET", "/iserver/account/trades") == ACCOUNTS_FIRST


async def test_it_expires_without_a_word(api: Any) -> None:
    socket = await api.socket()
    await api.fault("expire", told=False)
    assert await socket.flush() == []
    assert await status(api) == (True, False, False)


async def test_outer_session_expires(api: Any) -> None:
    await api.fault("expire", outer=True)
    assert await api.get("/tickle") == {"error": "no session"}
    assert await api.ask("GET", "/portfolio/accounts") == (401, "not authenticated")
    assert (await api.ask("POST", "/iserver/auth/ssodh/init", {"publish": True}))[0] == 401


async def test_rival_takes_the_session(api: Any) -> None:
    socket = await api.socket()
    await api.fault("compete")
    frames = await socket.flush()
    assert [frame["args"] for frame in frames] == [{"authenticated": False}, {"competing": True}]
    assert await status(api) == (True, False, True)
    assert (await api.get("/tickle"))["iserver"]["authStatus"]["competing"] is True
    polite = await api.init(compete=False)
    assert (polite["authenticated"], polite["competing"]) == (False, True)
    assert await api.ask("GET", "/iserver/accounts") == NO_BRIDGE
    taken = await api.init(compete=True)
    assert (taken["authenticated"], taken["competing"]) == (True, False)
    assert [frame["args"] for frame in await socket.flush()] == [
        {"authenticated": True},
        {"competing": False},
    ]
    assert await api.faults() == []


async def test_rival_fights_back(api: Any) -> None:
    await api.fault("compete", rematches=2, delay_s=0.01)

    async def taken() -> bool:
        return (await status(api))[2]

    for _ in range(2):
        assert (await api.init())["authenticated"] is True
        await api.eventually(taken)
    assert (await api.init())["authenticated"] is True
    assert await api.faults() == []
    assert len(await api.log("compete")) == 3
    assert await status(api) == (True, True, False)


async def test_rival_goes_home(api: Any) -> None:
    await api.fault("compete", rematches=100)
    await api.control("clear_faults", {})
    assert await status(api) == (True, False, False)
    assert (await api.init(compete=False))["authenticated"] is True


async def test_force_compete(api: Any) -> None:
    await api.fault("expire")
    await api.fault("force_compete")
    for _ in range(3):
        answer = await api.init(compete=False)
        assert (answer["authenticated"], answer["passed"], answer["fail"]) == (False, False, FORCE)
    assert (await api.get("/iserver/auth/status"))["fail"] == FORCE
    answer = await api.init(compete=True)
    assert answer["authenticated"] is True
    assert "fail" not in answer
    assert (await api.get("/iserver/auth/status"))["fail"] == ""


async def test_init_that_is_no_success(api: Any) -> None:
    await api.fault("expire")
    await api.fault("init_fails", count=2)
    assert [(await api.init())["authenticated"] for _ in range(3)] == [False, False, True]


async def test_first_status_is_false(api: Any) -> None:
    await api.fault("status_false", count=1)
    assert [(await status(api))[1] for _ in range(3)] == [False, True, True]
    await api.get("/iserver/accounts")


async def test_no_bridge_for_a_while_after_init(api: Any) -> None:
    await api.fault("expire")
    await api.fault("no_bridge", calls=2)
    await api.init()
    assert await api.ask("GET", "/iserver/accounts") == NO_BRIDGE
    assert await api.ask("GET", "/iserver/accounts") == NO_BRIDGE
    assert (await api.ask("GET", "/iserver/accounts"))[0] == 200


async def test_accounts_again(api: Any) -> None:
    assert (await api.ask("GET", "/iserver/account/trades"))[0] == 200
    await api.fault("accounts_again")
    assert await api.ask("GET", "/iserver/account/trades") == ACCOUNTS_FIRST
    await api.get("/iserver/accounts")
    assert (await api.ask("GET", "/iserver/account/trades"))[0] == 200


async def test_session_id_changes_alone(api: Any) -> None:
    before = await tickled(api)
    assert await tickled(api) == before
    await api.fault("session_id")
    assert await tickled(api) != before
    assert (await api.ask("GET", "/iserver/account/trades"))[0] == 200


async def test_second_factor_is_waited_for(api: Any) -> None:
    await api.fault("two_factor")
    assert await api.get("/tickle") == {"error": "no session"}
    assert await status(api) == (False, False, False)
    for _ in range(2):
        assert (await api.ask("POST", "/iserver/auth/ssodh/init", {"publish": True}))[0] == 401
    (row,) = await api.faults()
    assert row["hits"] == 2
    await api.control("clear_faults", {"id": row["id"]})
    assert await status(api) == (True, False, False)
    assert (await api.init())["authenticated"] is True


async def test_nightly_reset(make: Any) -> None:
    api = await make(heartbeat_s=0.02, questions="all")
    await api.step(max_events=20)
    await api.ask(
        "POST", "/iserver/questions/suppress", {"messageIds": ["o354", "o10151", "o10152", "o10153"]}
    )
    assert "order_id" in (await api.place())[1][0]
    socket = await api.socket()
    await socket.subscribe()
    for topic in ("sor+{}", "str+{}", "spl+{}"):
        await socket.ws.send_str(topic)
    await socket.flush()
    before = await tickled(api)
    await api.fault("nightly_reset")
    assert [one for one in await socket.flush() if "hb" not in one] == []
    assert await tickled(api) != before
    assert await status(api) == (True, True, False)
    assert await api.ask("GET", "/iserver/account/trades") == ACCOUNTS_FIRST
    assert await api.get("/portfolio/DU1234567/ledger") == {}
    await api.get("/iserver/accounts")
    assert "messageIds" in (await api.place(cOID="b"))[1][0], "suppressions are forgotten"
    now_ns = (await api.control("state"))["now_ns"]
    await api.step(until_ns=now_ns + 30_000_000_000)
    assert [one for one in await socket.flush() if "hb" not in one] == []
    assert "hb" in await socket.until("system")
    await socket.subscribe()
    await api.step(max_events=50)
    await socket.until("smd")


@pytest.mark.parametrize("then", ["no_bridge", "logged_out"])
async def test_nightly_reset_that_leaves_less(api: Any, then: str) -> None:
    socket = await api.socket()
    await api.fault("nightly_reset", then=then)
    assert await socket.flush() == []
    assert await status(api) == (then == "no_bridge", False, False)


async def test_maintenance(api: Any) -> None:
    window = await api.fault("maintenance")
    assert await api.get("/tickle") == {"error": "no session"}
    assert (await api.ask("POST", "/iserver/auth/ssodh/init", {"publish": True}))[0] == 503
    assert (await api.ask("GET", "/portfolio/accounts"))[0] == 503
    await api.control("clear_faults", {"id": window["id"]})
    assert (await api.init())["authenticated"] is True


async def test_idle_session_ends(make: Any) -> None:
    api = await make(idle_s=0.05, heartbeat_s=0.02)
    socket = await api.socket()
    assert (await socket.until("sts"))["args"] == {"authenticated": False}
    assert await api.log("idle")


async def test_restart(api: Any) -> None:
    socket = await api.socket()
    order = await api.place()
    assert order[0] == 200
    before = await tickled(api)
    await api.fault("restart", down_s=2.0)
    message = await socket.message()
    assert message.type in (aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR)

    async def refused() -> bool:
        try:
            async with aiohttp.ClientSession() as fresh:
                await fresh.get(f"{api.server.url}/tickle")
        except aiohttp.ClientConnectorError:
            return True
        except aiohttp.ClientError:
            return False
        return False

    assert await refused()
    # A connection that control came over stays, for control alone.
    assert len((await api.control("ledger"))["orders"]) == 1
    with pytest.raises(aiohttp.ClientConnectionError):
        await api.bench.post(f"{api.server.url}/tickle", json={})

    async def back() -> bool:
        return not await refused()

    await api.eventually(back)
    assert await status(api) == (True, False, False)
    assert await tickled(api) != before
    assert (await api.init())["authenticated"] is True
    await (await api.socket()).flush()
    assert (await api.control("faults"))["log"][-1]["kind"] == "restart"


async def test_stop_while_the_gateway_is_down(api: Any) -> None:
    await api.fault("restart", down_s=3600)
    await api.server.stop()


async def test_bulletin(api: Any) -> None:
    socket = await api.socket()
    await api.control("bulletin", {"text": "Exchange closed."})
    (frame,) = await socket.flush()
    assert frame == {
        "topic": "blt",
        "args": [{"id": 1, "exchanges": None, "message": "[BBSMSG Bulletin]\nExchange closed."}],
    }


async def test_nothing_opens_a_session_by_breaking_it(make: Any) -> None:
    api = await make(login="logged_out", primed=False)
    await api.fault("expire")
    await api.fault("compete")
    await api.fault("nightly_reset")
    assert (await api.control("state"))["session"] == "logged_out"
    assert await status(api) == (False, False, False)
