"""Delayed and frozen data, missing permissions, a wrong clock, trading hours."""

from __future__ import annotations

import time
from email.utils import parsedate_to_datetime
from typing import Any

AAPL = 265598
SPY = 756733


async def snapshot(api: Any, conid: int) -> dict[str, Any]:
    query = {"conids": str(conid), "fields": "31,84,86,6509"}
    await api.get("/iserver/marketdata/snapshot", **query)
    (row,) = await api.get("/iserver/marketdata/snapshot", **query)
    found: dict[str, Any] = row
    return found


async def test_quality_of_one_and_of_all(api: Any) -> None:
    await api.step(max_events=50)
    socket = await api.socket()
    await socket.subscribe()
    one = await api.fault("quality", code="DPB", conid=AAPL)
    (frame,) = await socket.flush()
    assert (frame["topic"], frame["6509"]) == (f"smd+{AAPL}", "DPB")
    assert "31" not in frame
    assert (await snapshot(api, AAPL))["6509"] == "DPB"
    assert (await snapshot(api, SPY))["6509"] == "RpB"
    await api.fault("quality", code="ZB")
    assert (await socket.until("smd"))["6509"] == "ZB"
    assert (await snapshot(api, SPY))["6509"] == "ZB"
    await api.control("clear_faults", {})
    assert [frame["6509"] for frame in await socket.flush()][-1] == "RpB"
    assert one["lasting"] is True


async def test_new_stream_has_the_quality_of_its_time(api: Any) -> None:
    await api.step(max_events=50)
    await api.fault("quality", code="N")
    socket = await api.socket()
    await socket.ws.send_str(f'smd+{AAPL}+{{"fields":["31","6509"]}}')
    frames = await socket.flush()
    assert [frame["6509"] for frame in frames] == ["N", "N"]


async def test_not_entitled(api: Any) -> None:
    await api.step(max_events=50)
    socket = await api.socket()
    await socket.subscribe()
    fault = await api.fault("not_entitled", conid=AAPL)
    await api.step(max_events=100)
    await socket.ws.send_str(f'smd+{AAPL}+{{"fields":["31"]}}')
    assert await socket.flush() == []
    row = await snapshot(api, AAPL)
    assert (row["31"], row["55"]) == ("N/A", "-")
    assert "84" in await snapshot(api, SPY)
    await api.control("clear_faults", {"id": fault["id"]})
    await socket.subscribe()
    await api.step(max_events=100)
    await socket.until("smd")


async def test_clock_skew(make: Any) -> None:
    api = await make(heartbeat_s=0.02)
    await api.step(max_events=50)
    now_ns = (await api.control("state"))["now_ns"]
    fault = await api.fault("skew", offset_s=-30.5)
    async with api.http.get(f"{api.server.url}/iserver/auth/status") as answer:
        told = parsedate_to_datetime(answer.headers["Date"]).timestamp()
    assert -33 < told - time.time() < -28
    assert (await snapshot(api, AAPL))["_updated"] == (now_ns - 30_500_000_000) // 1_000_000
    socket = await api.socket()
    beat = await socket.until("system")
    assert -33_000 < beat["hb"] - time.time() * 1000 < -28_000
    await socket.ws.send_str(f'smd+{AAPL}+{{"fields":["31"]}}')
    assert (await socket.until("smd"))["_updated"] == (now_ns - 30_500_000_000) // 1_000_000
    await api.control("clear_faults", {"id": fault["id"]})
    assert abs((await socket.until("system"))["hb"] - time.time() * 1000) < 2_000


async def test_extended_hours_of_us_stocks(api: Any) -> None:
    body = await api.get("/contract/trading-schedule", conid=AAPL)
    day = body["schedules"]["20260302"]
    (liquid,), (extended,) = day["liquid_hours"], day["extended_hours"]
    assert liquid["opening"] - extended["opening"] == 5.5 * 3600
    assert extended["closing"] - liquid["closing"] == 4 * 3600
