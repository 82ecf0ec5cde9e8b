"""When IBKR is away: nights of three regions, Saturdays, and the days on which clocks change."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bt_ibkr.emulator.faults.calendar import ZONES
from bt_ibkr.errors import UsageError
from bt_ibkr.session.maintenance import REGIONS, MaintenanceCalendar

NS = 1_000_000_000


def ns(moment: datetime) -> int:
    return int(moment.timestamp()) * NS


@pytest.mark.parametrize("region", sorted(REGIONS))
@pytest.mark.parametrize("day", ["2026-01-14", "2026-03-08", "2026-03-29", "2026-07-15", "2026-11-01"])
def test_midnight_of_each_region(region: str, day: str) -> None:
    """Also on the days of the year on which the clocks change."""
    calendar = MaintenanceCalendar(region)
    midnight = datetime.fromisoformat(day).replace(tzinfo=ZoneInfo(REGIONS[region])).astimezone(UTC)
    for minutes in (-4, 0, 10, 19):
        outage = calendar.outage_at(ns(midnight + timedelta(minutes=minutes)))
        assert outage is not None
        assert outage.until_ns > ns(midnight + timedelta(minutes=minutes))


def test_a_weekday_has_two_short_windows() -> None:
    calendar = MaintenanceCalendar("america")
    day = datetime(2026, 3, 11, tzinfo=ZoneInfo("America/New_York")).astimezone(UTC)
    away = [m for m in range(24 * 60) if calendar.outage_at(ns(day + timedelta(minutes=m))) is not None]
    assert len(away) == 25 * 2 + 5 - 5
    assert max(away[:-5]) < 80


@pytest.mark.parametrize("region", sorted(REGIONS))
def test_saturday_evening_is_the_same_for_all(region: str) -> None:
    calendar = MaintenanceCalendar(region)
    begins = datetime(2026, 3, 7, 18, tzinfo=ZoneInfo("America/New_York")).astimezone(UTC)
    inside = calendar.outage_at(ns(begins))
    assert inside is not None
    assert inside.name == "weekly maintenance"
    assert inside.until_ns == ns(begins + timedelta(hours=8))
    after = calendar.outage_at(inside.until_ns)
    assert after is None or after.name == "nightly reset"
    before = calendar.outage_at(ns(begins) - NS)
    assert before is None or before.name == "nightly reset"


@given(st.datetimes(datetime(2024, 1, 1), datetime(2030, 1, 1)), st.sampled_from(sorted(REGIONS)))  # noqa: DTZ001
def test_an_outage_is_short_and_ends_later(moment: datetime, region: str) -> None:
    now_ns = ns(moment.replace(tzinfo=UTC))
    outage = MaintenanceCalendar(region).outage_at(now_ns)
    if outage is not None:
        assert now_ns < outage.until_ns <= now_ns + 8 * 3600 * NS


@given(st.dates(datetime(2025, 1, 1).date(), datetime(2030, 1, 1).date()), st.sampled_from(sorted(REGIONS)))  # noqa: DTZ001
def test_emulator_breaks_when_the_client_expects_it(day: datetime, region: str) -> None:
    """Two calendars that were written apart agree on midnight."""
    midnight = datetime(day.year, day.month, day.day, tzinfo=ZoneInfo(ZONES[region])).astimezone(UTC)
    assert MaintenanceCalendar(region).outage_at(ns(midnight)) is not None


@settings(max_examples=60)
@given(
    st.datetimes(datetime(2025, 1, 1), datetime(2027, 1, 1)),  # noqa: DTZ001
    st.timedeltas(timedelta(0), timedelta(hours=5)),
    st.sampled_from(sorted(REGIONS)),
)
def test_what_lies_between(start: datetime, length: timedelta, region: str) -> None:
    """Found as by looking at every minute."""
    calendar = MaintenanceCalendar(region)
    begin = start.replace(tzinfo=UTC, second=0, microsecond=0)
    minutes = range(int(length.total_seconds()) // 60 + 1)
    each = any(calendar.outage_at(ns(begin + timedelta(minutes=m))) is not None for m in minutes)
    assert calendar.breaks_between(ns(begin), ns(begin + timedelta(minutes=minutes[-1]))) is each


def test_unknown_region() -> None:
    with pytest.raises(UsageError, match="'mars'"):
        MaintenanceCalendar("mars")
