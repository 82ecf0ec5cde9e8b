"""Historical bars as the server tells them: its limits, its oddities, and what can be made to go wrong."""

from __future__ import annotations

from typing import Any

import pytest

from bt_ibkr.emulator.control.arguments import convert
from bt_ibkr.emulator.faults.specs import AnySpec

HISTORY = "/iserver/marketdata/history"
AAPL, SPY = 265598, 756733
MINUTE_MS = 60_000


async def ask(api: Any, conid: int = AAPL, status: int = 200, **query: str) -> Any:
    told, body = await api.ask("GET", HISTORY, conid=conid, **query)
    assert told == status, body
    return body


def begin(api: Any, **spec: Any) -> int:
    kinds: Any = AnySpec
    return int(api.server.core.faults.begin(convert(spec, kinds))["id"])


async def test_direction_1_fails_for_some(api: Any) -> None:
    stamp = "20260227-14:30:00"
    found = await ask(api, period="1d", bar="1min", startTime=stamp, direction="1")
    assert len(found["data"]) > 100
    told = await ask(api, SPY, 500, period="1d", bar="1min", startTime=stamp, direction="1")
    assert told == {"error": "Chart data unavailable"}


async def test_short_bars_for_a_day_at_most(api: Any) -> None:
    for bar, most in (("1min", 390), ("5min", 78)):
        assert len((await ask(api, period="1d", bar=bar))["data"]) == most
    # The table does not allow more together, but for what it allows the day is the end.
    assert len((await ask(api, period="2d", bar="5min"))["data"]) <= 78


async def test_months(api: Any) -> None:
    found = await ask(api, period="1y", bar="1m")
    assert found["barLength"] == 30 * 86_400
    # Two days of February and the first of March, which has not begun.
    assert len(found["data"]) == 1


async def test_an_empty_window_is_a_placeholder(api: Any) -> None:
    found = await ask(api, period="1d", bar="1min", startTime="20200102-15:00:00")
    assert found["data"] == [{"o": 0.0, "c": 0.0}]
    assert found["points"] == 0


async def test_faults(api: Any) -> None:
    whole = (await ask(api, period="1d", bar="1min"))["data"]
    begin(api, kind="history", action="warm_up", status=404, count=1)
    await ask(api, status=404, period="1d", bar="1min")
    assert (await ask(api, period="1d", bar="1min"))["data"] == whole
    number = begin(api, kind="history", action="permission", conid=SPY)
    told = await ask(api, SPY, 500, period="1d", bar="1min")
    assert "No market data permissions for" in told["error"]
    assert (await ask(api, period="1d", bar="1min"))["data"] == whole
    api.server.core.faults.clear(number)
    assert len((await ask(api, SPY, period="1d", bar="1min"))["data"]) == 390
    number = begin(api, kind="history", action="cut", most=7)
    assert (await ask(api, period="1d", bar="1min"))["data"] == whole[-7:]
    api.server.core.faults.clear(number)
    # Read as the beginning: what follows the moment, in place of what precedes it.
    number = begin(api, kind="history", action="start")
    stamp = "20260227-15:00:00"
    after = (await ask(api, period="1h", bar="1min", startTime=stamp))["data"]
    api.server.core.faults.clear(number)
    before = (await ask(api, period="1h", bar="1min", startTime=stamp))["data"]
    assert before[-1]["t"] + MINUTE_MS == after[0]["t"]


@pytest.mark.parametrize("bar", ["1min", "5min", "1d"])
async def test_a_corrected_bar(api: Any, bar: str) -> None:
    """A minute that is another one later is so in every bar it is part of, until the fault is cleared."""
    period = "1w" if bar == "1d" else "1d"
    first = (await ask(api, period=period, bar=bar))["data"]
    minute = (await ask(api, period="1d", bar="1min"))["data"][30]
    top = max(one["h"] for one in first) + 5
    number = begin(
        api, kind="bar_correction", conid=AAPL, start_ns=minute["t"] * 1_000_000, high=top, volume=40.0
    )
    changed = (await ask(api, period=period, bar=bar))["data"]
    (place,) = [k for k, (old, new) in enumerate(zip(first, changed, strict=True)) if old != new]
    assert changed[place]["h"] == top
    assert changed[place]["t"] <= minute["t"]
    api.server.core.faults.clear(number)
    assert (await ask(api, period=period, bar=bar))["data"] == first
