"""Trading days: when an instrument's sessions begin and end, holidays and days that end early included.

A session belongs to the day by which its exchange calls it: that of futures and currencies begins in the evening
before.
"""

from __future__ import annotations

from datetime import date
from typing import Protocol
from zoneinfo import ZoneInfo

import msgspec


class Window(msgspec.Struct, frozen=True):
    """From ``start_ns`` up to, but without, ``end_ns``; epoch nanoseconds."""

    start_ns: int
    end_ns: int

    def holds(self, time_ns: int) -> bool:
        """Whether the moment lies inside."""
        return self.start_ns <= time_ns < self.end_ns


class TradingDay(msgspec.Struct, frozen=True, kw_only=True):
    """The hours of one day.

    Attributes:
        day: As the exchange calls it.
        regular: Liquid hours, oldest first; several where there is a break at noon; none if there are none that day.
        extended: All hours, the regular ones included.
    """

    day: date
    regular: tuple[Window, ...]
    extended: tuple[Window, ...]

    def windows(self, *, extended: bool) -> tuple[Window, ...]:
        """The hours of the kind."""
        return self.extended if extended else self.regular

    def span(self, *, extended: bool) -> Window | None:
        """From the first opening to the last close; ``None`` if there are no such hours that day."""
        windows = self.windows(extended=extended)
        return Window(windows[0].start_ns, windows[-1].end_ns) if windows else None


class SessionCalendar(Protocol):
    """When an instrument trades. Nothing of it blocks."""

    @property
    def zone(self) -> ZoneInfo:
        """The exchange's."""

    def session(self, day: date) -> TradingDay | None:
        """The hours of a day; ``None`` on a holiday."""

    def day_of(self, time_ns: int, *, extended: bool) -> TradingDay | None:
        """The day in one of whose sessions the moment lies; ``None`` outside of all of them, breaks at noon too."""

    def following(self, time_ns: int, *, extended: bool) -> TradingDay | None:
        """The first day whose last session ends after the moment; ``None`` if none is known."""
