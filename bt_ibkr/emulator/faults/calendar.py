"""The nightly break and the Saturday maintenance, by the market's clock (wire facts, section 2)."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from bt_ibkr.clock import NS_PER_S
from bt_ibkr.emulator.services.session.state import Tier
from bt_ibkr.emulator.settings import parse_window

if TYPE_CHECKING:
    from bt_ibkr.emulator.services.core import Core

#: Whose midnight ends the sessions of a region.
ZONES = {"america": "America/New_York", "europe": "Europe/Zurich", "asia": "Asia/Hong_Kong"}
_SATURDAY = 5


class Calendar:
    """Breaks that come by themselves, if the settings want them.

    Args:
        core: What they happen to.
    """

    def __init__(self, core: Core) -> None:
        self._core = core
        settings = core.settings
        self._zone = ZoneInfo(ZONES[settings.region])
        self._window = parse_window(settings.maintenance)

    def arm(self) -> None:
        """Plan the next breaks; anew after the market began anew, which forgets its timers."""
        if self._core.settings.nightly_reset:
            self._plan_night()
        if self._window is not None:
            self._plan_maintenance()

    def _plan_night(self) -> None:
        day = self._local_day() + timedelta(days=1)
        self._core.engine.schedule(self._at(day, time(0)), self._night)

    def _night(self, now_ns: int) -> None:
        core = self._core
        if not core.session.maintenance:
            core.nightly_reset(Tier(core.settings.after_reset))
            core.faults.note("nightly_reset", by="calendar")
        self._plan_night()

    def _plan_maintenance(self) -> None:
        if self._window is None:
            return
        begins, ends = self._window
        day = self._local_day()
        day += timedelta(days=(_SATURDAY - day.weekday()) % 7)
        if self._at(day, ends) <= self._core.now_ns:
            day += timedelta(days=7)
        engine = self._core.engine
        engine.schedule(self._at(day, begins), self._begin)
        engine.schedule(self._at(day, ends), self._end)

    def _begin(self, now_ns: int) -> None:
        self._core.begin_maintenance()
        self._core.faults.note("maintenance", by="calendar", begins=True)

    def _end(self, now_ns: int) -> None:
        self._core.end_maintenance(Tier(self._core.settings.after_maintenance))
        self._core.faults.note("maintenance", by="calendar", begins=False)
        self._plan_maintenance()

    def _local_day(self) -> date:
        now = datetime.fromtimestamp(self._core.now_ns // NS_PER_S, tz=UTC)
        return now.astimezone(self._zone).date()

    def _at(self, day: date, clock: time) -> int:
        return int(datetime.combine(day, clock, tzinfo=self._zone).timestamp()) * NS_PER_S
