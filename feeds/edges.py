"""Where bars begin and end. Pure: moments are epoch nanoseconds, nothing reads a clock."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import date, timedelta
from enum import Enum
from typing import Protocol

from bt_ibkr.model.calendar import SessionCalendar, Window

_DAY = timedelta(days=1)


class Edges(Protocol):
    """The bars of one length, as windows ``[start, end)`` that do not overlap."""

    def window(self, time_ns: int) -> tuple[int, int, int] | None:
        """Start and end of the bar that holds the moment, and up to when all that happens is in it.

        The last is before the end where a session ends inside the bar. ``None`` outside of sessions.
        """

    def following(self, time_ns: int) -> tuple[int, int] | None:
        """The first bar that ends after the moment; ``None`` if none is known."""

    def join(self, time_ns: int) -> int:
        """The first moment at or after ``time_ns`` that lies inside no bar: the end of the one it cuts, or itself."""


class FixedEdges:
    """Bars of a fixed length, at multiples of it since 1970 in UTC, around the clock.

    Args:
        bar_ns: The length.
    """

    __slots__ = ("bar_ns",)

    def __init__(self, bar_ns: int) -> None:
        self.bar_ns = bar_ns

    def window(self, time_ns: int) -> tuple[int, int, int] | None:
        """See ``Edges``."""
        start_ns = time_ns - time_ns % self.bar_ns
        end_ns = start_ns + self.bar_ns
        return start_ns, end_ns, end_ns

    def following(self, time_ns: int) -> tuple[int, int] | None:
        """See ``Edges``."""
        start_ns = time_ns - time_ns % self.bar_ns
        return start_ns, start_ns + self.bar_ns

    def join(self, time_ns: int) -> int:
        """See ``Edges``."""
        return -(-time_ns // self.bar_ns) * self.bar_ns


class SessionEdges(FixedEdges):
    """Bars of a fixed length, inside sessions alone.

    Args:
        bar_ns: The length.
        calendar: The instrument's.
        extended: Extended hours are sessions, too.
    """

    __slots__ = ("_calendar", "_extended")

    def __init__(self, bar_ns: int, calendar: SessionCalendar, *, extended: bool) -> None:
        super().__init__(bar_ns)
        self._calendar = calendar
        self._extended = extended

    def window(self, time_ns: int) -> tuple[int, int, int] | None:
        """See ``Edges``."""
        day = self._calendar.day_of(time_ns, extended=self._extended)
        if day is None:
            return None
        session = next(one for one in day.windows(extended=self._extended) if one.holds(time_ns))
        start_ns = time_ns - time_ns % self.bar_ns
        end_ns = start_ns + self.bar_ns
        return start_ns, end_ns, min(end_ns, session.end_ns)

    def following(self, time_ns: int) -> tuple[int, int] | None:
        """See ``Edges``."""
        day = self._calendar.following(time_ns, extended=self._extended)
        if day is None:
            return None
        session = next(one for one in day.windows(extended=self._extended) if one.end_ns > time_ns)
        inside_ns = max(time_ns, session.start_ns)
        start_ns = inside_ns - inside_ns % self.bar_ns
        return start_ns, start_ns + self.bar_ns


class Period(Enum):
    """Of how many days a bar is made."""

    DAY = "day"
    WEEK = "week"
    MONTH = "month"

    @property
    def most_days(self) -> int:
        """The most days of trading that it has."""
        return {Period.DAY: 1, Period.WEEK: 7, Period.MONTH: 31}[self]


#: The first day of the period that a day belongs to.
_FIRST_DAYS: dict[Period, Callable[[date], date]] = {
    Period.DAY: lambda day: day,
    Period.WEEK: lambda day: day - timedelta(days=day.weekday()),
    Period.MONTH: lambda day: day.replace(day=1),
}


class DayEdges:
    """Days, weeks or months: from the opening of their first session to the close of their last.

    Args:
        period: How many of them.
        calendar: The instrument's.
        extended: Extended hours are in the bars, too.
    """

    __slots__ = ("_calendar", "_extended", "_first_day", "_spans", "period")

    def __init__(self, period: Period, calendar: SessionCalendar, *, extended: bool) -> None:
        self._calendar = calendar
        self._extended = extended
        self.period = period
        self._first_day = _FIRST_DAYS[period]
        self._spans: dict[date, Window] = {}

    def window(self, time_ns: int) -> tuple[int, int, int] | None:
        """See ``Edges``."""
        day = self._calendar.day_of(time_ns, extended=self._extended)
        if day is None:
            return None
        session = next(one for one in day.windows(extended=self._extended) if one.holds(time_ns))
        span = self._span(day.day)
        return span.start_ns, span.end_ns, session.end_ns

    def following(self, time_ns: int) -> tuple[int, int] | None:
        """See ``Edges``."""
        day = self._calendar.following(time_ns, extended=self._extended)
        if day is None:
            return None
        span = self._span(day.day)
        return span.start_ns, span.end_ns

    def join(self, time_ns: int) -> int:
        """See ``Edges``."""
        # The moment before, for an edge belongs to the bar that it ends.
        found = self.following(time_ns - 1)
        return found[1] if found is not None and found[0] < time_ns else time_ns

    def _span(self, day: date) -> Window:
        first = self._first_day(day)
        span = self._spans.get(first)
        if span is None:
            windows = [window for one in self._days(first) if (window := self._hours(one)) is not None]
            span = self._spans[first] = Window(windows[0].start_ns, windows[-1].end_ns)
        return span

    def _days(self, first: date) -> Iterator[date]:
        day = first
        while self._first_day(day) == first:
            yield day
            day += _DAY

    def _hours(self, day: date) -> Window | None:
        found = self._calendar.session(day)
        return None if found is None else found.span(extended=self._extended)
