"""Whatever went wrong: once it is cleared, the emulator is as before."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any

import aiohttp
import pytest

POOL: tuple[dict[str, Any], ...] = (
    {"kind": "http", "action": "lose"},
    {"kind": "http", "action": "hold", "count": 0},
    {"kind": "http", "action": "reset", "count": 3},
    {"kind": "http", "action": "delay", "delay_s": 60.0, "count": 0},
    {"kind": "http", "action": "status", "status": 429, "count": 0},
    {"kind": "slow", "delay_s": 60.0},
    {"kind": "ws_close", "code": 1001},
    {"kind": "ws_reset"},
    {"kind": "ws_stall"},
    {"kind": "ws_storm", "every_s": 0.01, "for_s": 60.0},
    {"kind": "greeting", "action": "never", "count": 0},
    {"kind": "silence", "topic": "*"},
    {"kind": "frames", "action": "reorder", "count": 100},
    {"kind": "frames", "action": "corrupt", "count": 0, "corrupt": "utf8"},
    {"kind": "expire"},
    {"kind": "expire", "outer": True},
    {"kind": "compete", "rematches": 3, "delay_s": 0.0},
    {"kind": "force_compete"},
    {"kind": "init_fails", "count": 0},
    {"kind": "no_bridge", "calls": 5},
    {"kind": "two_factor", "then": "ready"},
    {"kind": "nightly_reset", "then": "no_bridge"},
    {"kind": "maintenance"},
    {"kind": "skew", "offset_s": 30.0},
    {"kind": "quality", "code": "DPB"},
    {"kind": "not_entitled", "conid": 265598},
)


async def disturbed(api: Any) -> None:
    """A client that tries its luck; whatever becomes of it is fine."""
    try:
        async with asyncio.timeout(0.05):
            await api.init()
            await (await api.socket()).flush()
    except (aiohttp.ClientError, TimeoutError, AssertionError, TypeError, ValueError):
        return


@pytest.mark.parametrize("seed", range(8))
async def test_all_is_well_after_clearing(api: Any, seed: int) -> None:
    random = Random(seed)
    for _ in range(6):
        for body in random.sample(POOL, 5):
            await api.control("fault", body)
            await disturbed(api)
    await api.control("clear_faults", {})
    assert await api.faults() == []
    await api.control("session", {"state": "ready"})
    assert (await api.get("/iserver/auth/status"))["authenticated"] is True
    await api.get("/iserver/accounts")
    await api.step(max_events=50)
    socket = await api.socket()
    await socket.ws.send_str('smd+265598+{"fields":["31"]}')
    frame = await socket.until("smd")
    assert frame["6509"] == "RpB"
    assert (await api.place(cOID=f"after-{seed}"))[0] == 200
    # The emulator keeps nothing of the clients that are gone.
    await socket.ws.close()
    await api.http.close()

    async def empty() -> bool:
        return not (await api.control("state"))["connections"]

    await api.eventually(empty)
