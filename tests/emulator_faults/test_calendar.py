"""Breaks that come by the market's clock."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from bt_ibkr.emulator.settings import EmulatorSettings, parse_window
from bt_ibkr.errors import UsageError

ZONES = {"america": "America/New_York", "europe": "Europe/Zurich", "asia": "Asia/Hong_Kong"}


def ns(region: str, text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(ZONES[region])).timestamp()) * 10**9


@pytest.mark.parametrize("region", ["america", "europe", "asia"])
async def test_every_midnight_of_the_region(make: Any, region: str) -> None:
    # The synthetic day is Monday 2026-03-02; New York changes to summer time on the 8th.
    api = await make(region=region, nightly_reset=True)
    await api.step(until_ns=ns(region, "2026-03-11T00:00:01"))
    resets = await api.log("nightly_reset")
    midnights = [ns(region, f"2026-03-{day:02d}T00:00:00") for day in range(3, 12)]
    assert [one["now_ns"] for one in resets] == midnights
    assert (await api.ask("GET", "/iserver/account/trades"))[0] == 500


async def test_what_the_break_leaves(make: Any) -> None:
    api = await make(nightly_reset=True, after_reset="no_bridge")
    await api.step(until_ns=ns("america", "2026-03-03T00:00:01"))
    status = await api.get("/iserver/auth/status")
    assert (status["connected"], status["authenticated"]) == (True, False)


async def test_saturday(make: Any) -> None:
    api = await make(nightly_reset=True, maintenance="18:00-22:30", after_maintenance="no_bridge")
    await api.step(until_ns=ns("america", "2026-03-07T17:59:59"))
    assert (await api.get("/iserver/auth/status"))["authenticated"] is True
    await api.step(until_ns=ns("america", "2026-03-07T18:00:01"))
    assert await api.get("/tickle") == {"error": "no session"}
    assert (await api.ask("POST", "/iserver/auth/ssodh/init", {"publish": True}))[0] == 503
    await api.step(until_ns=ns("america", "2026-03-07T22:30:01"))
    assert (await api.init())["authenticated"] is True
    await api.step(until_ns=ns("america", "2026-03-15T00:00:01"))
    found = [(one["now_ns"], one["begins"]) for one in await api.log("maintenance")]
    assert found == [
        (ns("america", "2026-03-07T18:00:00"), True),
        (ns("america", "2026-03-07T22:30:00"), False),
        (ns("america", "2026-03-14T18:00:00"), True),
        (ns("america", "2026-03-14T22:30:00"), False),
    ]


async def test_nothing_happens_by_default(api: Any) -> None:
    await api.step(until_ns=ns("america", "2026-03-16T00:00:01"))
    assert (await api.control("faults"))["log"] == []
    assert (await api.ask("GET", "/iserver/account/trades"))[0] == 200


async def test_reset_plans_anew(make: Any) -> None:
    api = await make(nightly_reset=True)
    await api.step(until_ns=ns("america", "2026-03-03T00:00:01"))
    await api.control("reset", {})
    await api.step(until_ns=ns("america", "2026-03-03T00:00:01"))
    assert len(await api.log("nightly_reset")) == 2


async def test_market_clock_runs_on_after_the_tape(make: Any) -> None:
    api = await make(speed=1_000_000.0, pacing="off", run_on=True, nightly_reset=True)

    async def third_night() -> bool:
        return len(await api.log("nightly_reset")) >= 3

    await api.eventually(third_night)


@pytest.mark.parametrize("text", ["18:00", "22:00-18:00", "18:00-18:00", "25:00-26:00", "evening", "-"])
def test_windows_that_are_none(text: str) -> None:
    with pytest.raises(UsageError):
        EmulatorSettings(maintenance=text)


def test_no_window() -> None:
    assert parse_window("") is None
