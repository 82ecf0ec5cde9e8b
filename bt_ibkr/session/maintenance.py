"""When IBKR is away: nightly resets and the weekly maintenance, by region.

Facts: the brokerage session ends at midnight of the nearest region's own time (New York, Zug, Hong Kong), one of
IBKR's texts says 01:00: both are expected. Another text names a full maintenance on Saturday evening without
hours; here it is taken from 18:00 on Saturday to 02:00 on Sunday, New York time. (IBKR Web API documentation,
captured 2026-07.)
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import msgspec

from bt_ibkr.clock import NS_PER_S
from bt_ibkr.errors import UsageError

#: How long before and after an announced moment an outage counts as announced.
_BEFORE = timedelta(minutes=5)
_AFTER = timedelta(minutes=20)
_NIGHTLY_HOURS = (0, 1)
_SATURDAY = 5
_WEEKLY_BEGINS_HOUR = 18
_WEEKLY_LASTS = timedelta(hours=8)
_NEW_YORK = "America/New_York"

#: Regions and the time zone of their nightly reset.
REGIONS = {"america": _NEW_YORK, "europe": "Europe/Zurich", "asia": "Asia/Hong_Kong"}


class Outage(msgspec.Struct, frozen=True, kw_only=True):
    """An announced outage.

    Attributes:
        name: ``nightly reset`` or ``weekly maintenance``.
        until_ns: When it should be over.
    """

    name: str
    until_ns: int


class MaintenanceCalendar:
    """Tells whether an outage was to be expected.

    Args:
        region: A key of ``REGIONS``.
    """

    def __init__(self, region: str = "america") -> None:
        zone = REGIONS.get(region)
        if zone is None:
            raise UsageError(f"Region {region!r} is not known.", remedy=f"Regions: {', '.join(REGIONS)}.")
        self._zone = ZoneInfo(zone)
        self._new_york = ZoneInfo(_NEW_YORK)

    def outage_at(self, time_ns: int) -> Outage | None:
        """The announced outage that ``time_ns`` falls into, the longer one first."""
        moment = datetime.fromtimestamp(time_ns / NS_PER_S, tz=UTC)
        return self._weekly(moment) or self._nightly(moment)

    def breaks_between(self, start_ns: int, end_ns: int) -> bool:
        """Whether an announced outage lies between two moments, or reaches into the time between them."""
        # No window is shorter than twenty-five minutes: looking that often misses none. A day holds all there are.
        step_ns = int((_BEFORE + _AFTER).total_seconds()) * NS_PER_S
        last_ns = min(end_ns, start_ns + 86_400 * NS_PER_S)
        moments = [*range(start_ns, last_ns, step_ns), end_ns]
        return any(self.outage_at(moment_ns) is not None for moment_ns in moments)

    def _weekly(self, moment: datetime) -> Outage | None:
        local = moment.astimezone(self._new_york)
        for back in (0, 1):
            day = (local - timedelta(days=back)).date()
            if day.weekday() != _SATURDAY:
                continue
            begins = datetime(day.year, day.month, day.day, _WEEKLY_BEGINS_HOUR, tzinfo=self._new_york)
            ends = begins.astimezone(UTC) + _WEEKLY_LASTS
            if begins.astimezone(UTC) <= moment < ends:
                return Outage(name="weekly maintenance", until_ns=int(ends.timestamp()) * NS_PER_S)
        return None

    def _nightly(self, moment: datetime) -> Outage | None:
        local = moment.astimezone(self._zone)
        for forward in (0, 1):
            day = (local + timedelta(days=forward)).date()
            for hour in _NIGHTLY_HOURS:
                reset = datetime(day.year, day.month, day.day, hour, tzinfo=self._zone).astimezone(UTC)
                if reset - _BEFORE <= moment < reset + _AFTER:
                    return Outage(name="nightly reset", until_ns=int((reset + _AFTER).timestamp()) * NS_PER_S)
        return None
