"""Trading hours as IBKR tells them."""

from __future__ import annotations

from typing import Any

import pytest

from bt_ibkr.clock import NS_PER_S, ManualClock
from bt_ibkr.errors import WireError
from bt_ibkr.services.schedules import ScheduleService
from bt_ibkr.wire.schedule import trading_schedule

#: wire-facts, section 6: the recorded form; the liquid hours are of the same day.
DAY: dict[str, Any] = {
    "extended_hours": [{"opening": 1766012400, "closing": 1766095200, "cancel_daily_orders": True}],
    "liquid_hours": [{"opening": 1766068200, "closing": 1766091600}],
}
BODY = {"exchange_time_zone": "US/Central", "schedules": {"20251218": DAY}}


class Answers:
    """An HTTP client that answers with bodies, one after the other."""

    def __init__(self, *bodies: object) -> None:
        self.bodies = list(bodies)
        self.asked: list[tuple[str, Any]] = []

    async def get(self, path: str, params: Any = None) -> object:
        self.asked.append((path, params))
        return self.bodies.pop(0)


@pytest.mark.parametrize(
    ("second", "open_now"),
    [
        (1766012399, (False, False)),
        (1766012400, (False, True)),
        (1766068199, (False, True)),
        (1766068200, (True, True)),
        (1766091599, (True, True)),
        (1766091600, (False, True)),
        (1766095199, (False, True)),
    ],
)
async def test_edges(second: int, open_now: tuple[bool, bool]) -> None:
    clock = ManualClock(second * NS_PER_S)
    service = ScheduleService(Answers(BODY), clock)  # type: ignore[arg-type]
    assert service.open_now(1) == (None, None)
    await service.load(1)
    assert service.open_now(1) == open_now


async def test_it_is_asked_for_again_when_it_ends() -> None:
    clock = ManualClock(1766068200 * NS_PER_S)
    later = {"schedules": {"20251219": {"liquid_hours": [{"opening": 1766154600, "closing": 1766178000}]}}}
    http = Answers(BODY, later)
    service = ScheduleService(http, clock)  # type: ignore[arg-type]
    await service.load(1)
    await service.load(1)
    assert http.asked == [("/contract/trading-schedule", {"conid": "1"})]
    clock.set_ns(1766154600 * NS_PER_S)
    await service.load(1)
    # Without extended hours of its own it trades in the liquid ones.
    assert service.open_now(1) == (True, True)


async def test_no_hours_at_all_tell_nothing() -> None:
    service = ScheduleService(Answers({"schedules": {}}), ManualClock(0))  # type: ignore[arg-type]
    await service.load(1)
    assert service.open_now(1) == (None, None)


@pytest.mark.parametrize(
    "body",
    [
        [],
        {},
        {"schedules": []},
        {"schedules": {"20251218": {"liquid_hours": [{"opening": "x", "closing": 1}]}}},
        {"schedules": {"20251218": {"liquid_hours": [{"opening": 2, "closing": 1}]}}},
    ],
)
def test_what_is_no_schedule(body: object) -> None:
    with pytest.raises(WireError):
        trading_schedule(body)
