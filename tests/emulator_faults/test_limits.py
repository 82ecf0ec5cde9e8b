"""Limits on a clock of their own, the penalty, and the record of requests."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bt_ibkr.emulator.services.errors import ApiError
from bt_ibkr.emulator.services.pacing import (
    GLOBAL,
    LIMITS,
    Pacing,
    limit_of,
    most_in_window,
)


class Hand:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def admitted(pacing: Pacing, method: str, path: str) -> bool:
    pacing.record(method, path)
    try:
        pacing.admit(method, path)
    except ApiError as problem:
        return problem.status != 429
    return True


@pytest.mark.parametrize(("endpoint", "limit"), [*LIMITS.items(), (("GET", "/fyi/unreadnumber"), None)])
def test_each_window(endpoint: tuple[str, str], limit: Any) -> None:
    clock = Hand()
    pacing = Pacing(clock=clock, strict=True, penalty_s=0.0)
    found = limit_of(*endpoint)
    assert found is not None
    limit = found[1]
    # Slow enough for the limit on all requests together.
    for _ in range(limit.count):
        assert admitted(pacing, *endpoint)
        clock.now += 0.11 if limit.count > 10 else 0.0
    clock.now += limit.window_s / 2
    assert admitted(pacing, *endpoint) is False
    clock.now += limit.window_s / 2 + 0.001
    assert admitted(pacing, *endpoint) is True


def test_limits_are_by_method_and_one_path() -> None:
    assert limit_of("POST", "/iserver/account/orders") is None
    assert limit_of("GET", "/pa/performance") is None
    assert limit_of("GET", "/fyi/settings") != limit_of("GET", "/fyi/unreadnumber")
    clock = Hand()
    pacing = Pacing(clock=clock, strict=True, penalty_s=10.0)
    assert all(admitted(pacing, "GET", f"/fyi/{name}") for name in ("settings", "unreadnumber"))
    assert not admitted(pacing, "GET", "/fyi/settings")


def test_penalty_refuses_everything_for_its_time() -> None:
    clock = Hand()
    pacing = Pacing(clock=clock, strict=True, penalty_s=900.0)
    assert [admitted(pacing, "GET", "/x") for _ in range(11)] == [True] * 10 + [False]
    clock.now += 899.0
    assert not admitted(pacing, "GET", "/y")
    assert pacing.penalty_left_s == pytest.approx(1.0)
    clock.now += 1.1
    assert admitted(pacing, "GET", "/y")
    assert pacing.refused == 2


def test_history_at_one_time() -> None:
    pacing = Pacing(clock=Hand(), strict=True, penalty_s=1.0)
    path = "/iserver/marketdata/history"
    for _ in range(5):
        pacing.admit("GET", path)
        pacing.begin(path)
    assert not admitted(pacing, "GET", path)
    assert pacing.history_peak == 5


@given(
    st.lists(
        st.tuples(st.floats(0, 3), st.sampled_from(["/x", "/tickle", "/iserver/account/orders"])),
        max_size=80,
    )
)
def test_what_is_admitted_fits_every_window(requests: list[tuple[float, str]]) -> None:
    """Without a penalty, the requests let through never exceed a limit, by a count of its own."""
    clock = Hand()
    pacing = Pacing(clock=clock, strict=True, penalty_s=0.0)
    passed: list[tuple[float, str]] = []
    for pause, path in requests:
        clock.now += pause
        if admitted(pacing, "GET", path):
            passed.append((clock.now, path))
    assert most_in_window([at for at, _ in passed], GLOBAL.window_s) <= GLOBAL.count
    for path in ("/tickle", "/iserver/account/orders"):
        limit = LIMITS["GET", path]
        times = [at for at, one in passed if one == path]
        assert most_in_window(times, limit.window_s) <= limit.count
        assert all(later - at >= limit.window_s - 1e-9 for at, later in pairwise(times))


@given(st.lists(st.floats(0, 100), max_size=40), st.floats(0.1, 20))
def test_fullest_window(times: list[float], window_s: float) -> None:
    times.sort()
    naive = max((sum(at <= other and at > other - window_s for at in times) for other in times), default=0)
    assert most_in_window(times, window_s) == naive


async def test_record(make: Any) -> None:
    api = await make(pacing="off", primed=False)
    for _ in range(12):
        await api.get("/iserver/auth/status")
    await api.ask("POST", "/tickle")
    await api.ask("GET", "/iserver/account/trades")
    found = await api.control("requests")
    assert (found["total"], found["refused"], found["penalty_left_s"]) == (14, 0, 0.0)
    assert [one["path"] for one in found["requests"][-2:]] == ["/tickle", "/iserver/account/trades"]
    assert [one["status"] for one in found["requests"][-2:]] == [200, 500]
    assert found["requests"][0]["at_s"] <= found["requests"][-1]["at_s"]
    windows = {one["path"]: one for one in found["windows"]}
    assert windows["*"]["most"] > windows["*"]["count"], "the record shows limits that were broken"
    assert windows["/tickle"] == {"path": "/tickle", "count": 1, "window_s": 1.0, "most": 1}
    part = await api.control("requests", since=5, limit=3)
    assert [one["n"] for one in part["requests"]] == [5, 6, 7]


async def test_lost_requests_are_in_the_record(api: Any) -> None:
    await api.fault("http", action="lose", path="/iserver/account/*/orders", processed=False)
    with pytest.raises(Exception, match="disconnected"):
        await api.place()
    assert (await api.control("requests"))["requests"][-1]["method"] == "POST"


async def test_compressed_clock(make: Any) -> None:
    api = await make(primed=False, pacing="strict", penalty_s=900.0, pacing_speed=9000.0)
    statuses = [(await api.ask("GET", "/portfolio/accounts"))[0] for _ in range(3)]
    assert 200 in statuses
    await api.control("pacing", {"punish": True})
    assert (await api.ask("GET", "/tickle"))[0] == 429
    left = (await api.control("requests"))["penalty_left_s"]
    assert 0 < left <= 900

    async def over() -> bool:
        status, _ = await api.ask("GET", "/tickle")
        return bool(status == 200)

    # A quarter of an hour is a tenth of a second.
    await api.eventually(over)


async def test_penalty_by_control(api: Any) -> None:
    answer = await api.control("pacing", {"punish": True, "penalty_s": 60})
    assert answer["penalty_s"] == 60
    assert (await api.ask("GET", "/tickle"))[0] == 429
    assert (await api.place())[0] == 429
    await api.control("pacing", {})
    assert (await api.ask("GET", "/tickle"))[0] == 200
