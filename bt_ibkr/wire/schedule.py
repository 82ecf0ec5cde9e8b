"""``/contract/trading-schedule``: when a contract trades, over the next days.

Times are epoch seconds, holidays are left out, and so may be the liquid hours of a day.
"""

from __future__ import annotations

from datetime import date, datetime

import msgspec

from bt_ibkr.clock import NS_PER_S
from bt_ibkr.errors import WireError
from bt_ibkr.model.calendar import TradingDay, Window
from bt_ibkr.wire import fields

__all__ = ["TradingSchedule", "Window", "trading_schedule"]


class TradingSchedule(msgspec.Struct, frozen=True, kw_only=True):
    """When a contract trades.

    Attributes:
        regular: The liquid hours.
        extended: All hours; where IBKR tells none, the liquid ones.
        days: The same by day, as the exchange calls it, oldest first.
    """

    regular: tuple[Window, ...]
    extended: tuple[Window, ...]
    days: tuple[TradingDay, ...] = ()

    @property
    def end_ns(self) -> int:
        """Up to when it is known; 0 if it tells nothing."""
        return max((window.end_ns for window in (*self.regular, *self.extended)), default=0)


def trading_schedule(body: object) -> TradingSchedule:
    """A schedule.

    Raises:
        WireError: Not an object with schedules by day, or a time that is none.
    """
    days = fields.mapping(
        fields.mapping(body, "trading-schedule").get("schedules"), "trading-schedule: schedules"
    )
    regular: list[Window] = []
    extended: list[Window] = []
    told: list[TradingDay] = []
    for day, hours in days.items():
        found = fields.mapping(hours, f"trading-schedule: {day}")
        liquid = _windows(found.get("liquid_hours"), day)
        all_hours = _windows(found.get("extended_hours"), day)
        regular += liquid
        extended += all_hours
        told.append(TradingDay(day=_day(day), regular=tuple(liquid), extended=tuple(all_hours or liquid)))
    told.sort(key=lambda one: one.day)
    return TradingSchedule(
        regular=tuple(regular),
        extended=tuple(extended or regular),
        days=tuple(one for one in told if one.extended),
    )


def _day(text: str) -> date:
    try:
        return datetime.strptime(text, "%Y%m%d").date()  # noqa: DTZ007 - a date has no zone
    except ValueError:
        raise WireError(f"trading-schedule: {text!r} is no day.") from None


def _windows(value: object, day: str) -> list[Window]:
    if value is None:
        return []
    windows = []
    for item in fields.array(value, f"trading-schedule: {day}"):
        row = fields.mapping(item, f"trading-schedule: {day}")
        start, end = row.get("opening"), row.get("closing")
        if not isinstance(start, int) or not isinstance(end, int) or end < start:
            raise WireError(f"trading-schedule: {day} has hours from {start!r} to {end!r}.")
        windows.append(Window(start * NS_PER_S, end * NS_PER_S))
    windows.sort(key=lambda one: one.start_ns)
    return windows
