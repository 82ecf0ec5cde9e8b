"""Periods and bar sizes of history requests (wire facts, section 5.2)."""

from __future__ import annotations

import re
from calendar import monthrange
from datetime import date, timedelta

import msgspec

from bt_ibkr.clock import NS_PER_S

MINUTE_NS = 60 * NS_PER_S
DAY_NS = 86_400 * NS_PER_S
_LETTERS = {"min": MINUTE_NS, "h": 60 * MINUTE_NS, "d": DAY_NS, "w": 7 * DAY_NS, "m": 30 * DAY_NS}
_PERIOD = re.compile(r"([1-9][0-9]{0,3})(min|h|d|w|m|y)")
_LONGEST = {"min": 30, "h": 8, "d": 1000, "w": 792, "m": 182, "y": 15}
#: Bar sizes the server knows, and how they are written.
BARS = {
    **{f"{n}min": n * MINUTE_NS for n in (1, 2, 3, 5, 10, 15, 30)},
    **{f"{n}h": n * 60 * MINUTE_NS for n in (1, 2, 3, 4, 8)},
    "1d": DAY_NS,
    "1w": 7 * DAY_NS,
    "1m": 30 * DAY_NS,
}
#: Bars below this size are answered for one day at most.
SHORT_BAR_NS = 10 * MINUTE_NS
#: Up to this period: smallest bar and default bar.
_TABLE = (
    (DAY_NS, "1min", "1min"),
    (7 * DAY_NS, "1min", "15min"),
    (30 * DAY_NS, "1h", "30min"),
    (90 * DAY_NS, "2h", "1d"),
    (180 * DAY_NS, "4h", "1d"),
    (366 * DAY_NS, "8h", "1d"),
    (732 * DAY_NS, "1d", "1d"),
    (1098 * DAY_NS, "1d", "1w"),
    (16 * 366 * DAY_NS, "1w", "1w"),
)


class Period(msgspec.Struct, frozen=True):
    """``count`` of ``unit`` (``min``, ``h``, ``d``, ``w``, ``m``, ``y``)."""

    count: int
    unit: str

    @property
    def nominal_ns(self) -> int:
        """Its length, a month counted as 30 days and a year as 365."""
        return self.count * (365 * DAY_NS if self.unit == "y" else _LETTERS[self.unit])

    @property
    def text(self) -> str:
        return f"{self.count}{self.unit}"


def period(text: str) -> Period | None:
    """``1d``, ``2w`` …; ``None`` for what the server does not know."""
    match = _PERIOD.fullmatch(text)
    if match is None or int(match[1]) > _LONGEST[match[2]]:
        return None
    return Period(int(match[1]), match[2])


def default_bar(asked: Period) -> str:
    return next((bar for limit, _, bar in _TABLE if asked.nominal_ns <= limit), "1w")


def fits(asked: Period, bar: str) -> bool:
    """Whether the table allows bars of this size for the period."""
    smallest = next((least for limit, least, _ in _TABLE if asked.nominal_ns <= limit), "1w")
    return BARS[bar] >= min(BARS[smallest], BARS[default_bar(asked)])


def days_before(day: date, asked: Period) -> date:
    """The date that lies ``asked`` (weeks, months or years) before ``day``, by the calendar."""
    if asked.unit == "w":
        return day - timedelta(weeks=asked.count)
    months = day.year * 12 + day.month - 1 - asked.count * (12 if asked.unit == "y" else 1)
    year, month = divmod(months, 12)
    return date(year, month + 1, min(day.day, monthrange(year, month + 1)[1]))
