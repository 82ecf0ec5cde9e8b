"""From a span of time to the requests that fetch it: pure, no clock, no server.

A span is cut into *windows* that meet exactly. Each is small enough for one answer (at most 1,000 bars; at most a day
of bars shorter than ten minutes; together allowed by IBKR's table of periods), whatever the instrument's hours. Where
the instrument certainly does not trade, nothing is asked.

A period is taken to reach back at least as far as its shortest reading: a month 28 days, a year 365, a day 24
hours. A server that means trading days, or bars, by it answers with more, never with less.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from datetime import date, datetime, timedelta
from typing import Final, NamedTuple, Protocol
from zoneinfo import ZoneInfo

import msgspec

from bt_ibkr.clock import NS_PER_S
from bt_ibkr.errors import HistoryError
from bt_ibkr.model.contract import Contract, SecurityType
from bt_ibkr.model.hours import exchange_zone
from bt_ibkr.wire.history import BAR_WORDS, MAX_POINTS, allowed

MINUTE_NS: Final = 60 * NS_PER_S
HOUR_NS: Final = 60 * MINUTE_NS
DAY_NS: Final = 24 * HOUR_NS
WEEK_NS: Final = 7 * DAY_NS
#: Nominal: bars of months have no fixed length.
MONTH_NS: Final = 30 * DAY_NS
#: Bars below this length are answered for one day at most.
_SHORT_BAR_NS: Final = 10 * MINUTE_NS
#: Extended hours of what does not trade around the clock, and the same without them (the longest there are).
_EXTENDED_NS: Final = 16 * HOUR_NS
_REGULAR_NS: Final = 9 * HOUR_NS

_SATURDAY: Final = 5
#: Zones whose exchanges trade on a Saturday or Sunday, or did.
_OTHER_WEEKENDS: Final = frozenset(
    {
        "Asia/Jerusalem",
        "Asia/Riyadh",
        "Asia/Dubai",
        "Asia/Qatar",
        "Asia/Kuwait",
        "Asia/Bahrain",
        "Africa/Cairo",
        "UTC",
    }
)
_BY_DAY: Final = frozenset(
    {
        SecurityType.STOCK,
        SecurityType.OPTION,
        SecurityType.INDEX,
        SecurityType.FUND,
        SecurityType.BOND,
        SecurityType.WARRANT,
    }
)
#: Where US stocks trade from Sunday evening on.
_OVERNIGHT: Final = frozenset({"OVERNIGHT", "IBEOS"})
_CLOSED_AT_WEEKENDS: Final = frozenset({SecurityType.FUTURE, SecurityType.FUTURE_OPTION, SecurityType.FOREX})
_AMERICAN: Final = frozenset({"America/New_York", "America/Chicago"})


class _Period(NamedTuple):
    word: str
    #: As the table of periods counts it.
    nominal_ns: int
    #: The shortest reading.
    least_ns: int


_PERIODS: Final = (
    *(_Period(f"{n}min", n * MINUTE_NS, n * MINUTE_NS) for n in range(1, 31)),
    *(_Period(f"{n}h", n * HOUR_NS, n * HOUR_NS) for n in range(1, 9)),
    *(_Period(f"{n}d", n * DAY_NS, n * DAY_NS) for n in range(1, 7)),
    *(_Period(f"{n}w", n * WEEK_NS, n * WEEK_NS) for n in range(1, 5)),
    *(_Period(f"{n}m", n * MONTH_NS, n * 28 * DAY_NS) for n in range(1, 12)),
    *(_Period(f"{n}y", n * 365 * DAY_NS, n * 365 * DAY_NS) for n in range(1, 16)),
)


class Window(msgspec.Struct, frozen=True):
    """Bars that start in ``[start_ns, end_ns)``.

    Attributes:
        period: IBKR's word for the period to ask for, empty where nothing is asked: no trading.
        reach_ns: How far back from its end an answer reaches at least.
    """

    start_ns: int
    end_ns: int
    period: str
    reach_ns: int


class RateLimit(Protocol):
    """At most ``count`` requests in ``per_s`` seconds (``session.pacing.Limit``)."""

    @property
    def count(self) -> int: ...
    @property
    def per_s(self) -> float: ...


def offered(bar_ns: int) -> bool:
    """Whether IBKR has bars of this length (a month is ``MONTH_NS``)."""
    return bar_ns in BAR_WORDS


def check_offered(bar_ns: int) -> None:
    """Raises ``HistoryError`` unless IBKR has bars of this length."""
    if not offered(bar_ns):
        raise HistoryError(
            f"IBKR has no historical bars of {bar_ns / NS_PER_S:g} s.",
            remedy="Lengths: 1, 2, 3, 5, 10, 15, 30 minutes; 1, 2, 3, 4, 8 hours; 1 day; 1 week; 1 month.",
        )


class Planner:
    """Plans requests for one series of bars.

    Args:
        contract: Whose bars; its type and zone tell when it cannot trade.
        bar_ns: Their length, one of IBKR's.
        outside_regular_hours: With extended hours.

    Raises:
        HistoryError: IBKR has no bars of this length.
    """

    def __init__(self, contract: Contract, bar_ns: int, *, outside_regular_hours: bool) -> None:
        check_offered(bar_ns)
        self._zone = exchange_zone(contract)
        self._bar_ns = bar_ns
        kind = contract.security_type
        overnight = contract.exchange in _OVERNIGHT
        self._by_day = kind in _BY_DAY and self._zone.key not in _OTHER_WEEKENDS and not overnight
        self._rests = kind in _CLOSED_AT_WEEKENDS and self._zone.key in _AMERICAN
        trades_ns = (_EXTENDED_NS if outside_regular_hours else _REGULAR_NS) if self._by_day else DAY_NS
        self._periods = [one for one in _PERIODS if self._fits(one, trades_ns)]
        self._longest = self._periods[-1]

    def _fits(self, period: _Period, trades_ns: int) -> bool:
        bar_ns = self._bar_ns
        if period.nominal_ns < bar_ns or not allowed(period.nominal_ns, bar_ns):
            return False
        if bar_ns < _SHORT_BAR_NS and period.nominal_ns > DAY_NS:
            return False
        days, rest = divmod(period.nominal_ns, DAY_NS)
        if bar_ns >= DAY_NS:
            # Five days of seven, where nobody trades at week-ends.
            open_ns = period.nominal_ns // 7 * 5 if self._by_day else period.nominal_ns
            return -(-open_ns // bar_ns) + 5 <= MAX_POINTS
        return -(-(days * trades_ns + min(rest, trades_ns)) // bar_ns) <= MAX_POINTS

    def windows(self, start_ns: int, end_ns: int) -> tuple[Window, ...]:
        """The windows of all bars that end after ``start_ns`` and start before ``end_ns``, the newest first.

        Each begins where the next one ends; the last one begins at or before the first bar of the span.
        """
        if end_ns <= start_ns:
            return ()
        edges = self._edges(self._first_ns(start_ns), end_ns)
        found: list[Window] = []
        for begin, end in edges:
            if not self._trades(begin, end):
                if found and not found[-1].period:
                    found[-1] = Window(begin, found[-1].end_ns, "", 0)
                else:
                    found.append(Window(begin, end, "", 0))
            else:
                period = self._shortest(end - begin)
                found.append(Window(begin, end, period.word, period.least_ns))
        return tuple(found)

    def _first_ns(self, start_ns: int) -> int:
        """At or before the start of the first bar that ends after ``start_ns``."""
        if self._bar_ns < DAY_NS:
            return start_ns // self._bar_ns * self._bar_ns
        # A bar of days stands from its first session's open; long week-ends may lie in it.
        reach = self._bar_ns if self._bar_ns < MONTH_NS else 31 * DAY_NS
        return self._midnight_ns(self._day(start_ns - reach))

    def _edges(self, first_ns: int, end_ns: int) -> Iterator[tuple[int, int]]:
        """Spans that meet, the newest first, none longer than the longest period reaches."""
        end = end_ns
        while end > first_ns:
            if self._by_day or self._bar_ns >= DAY_NS:
                begin = self._day_edge(end)
            else:
                step = self._step_ns()
                begin = (end - 1) // step * step
            begin = max(begin, first_ns)
            yield begin, end
            end = begin

    def _step_ns(self) -> int:
        """Of what trades around the clock: the longest period that divides a day or is whole days."""
        length = self._longest.least_ns
        return length if length < DAY_NS and DAY_NS % length == 0 else max(length // DAY_NS * DAY_NS, HOUR_NS)

    def _day_edge(self, end_ns: int) -> int:
        """The midnight of the exchange that begins the window that ends at ``end_ns``."""
        days = max(self._longest.least_ns // DAY_NS, 1)
        last = self._day(end_ns - 1)
        begin = self._midnight_ns(last - timedelta(days=days - 1))
        # A change of clocks makes a stretch of days an hour longer than the period; nobody trades in that hour,
        # but a window never asks for more than its period.
        while end_ns - begin > max(self._longest.least_ns, DAY_NS + HOUR_NS):
            days -= 1
            begin = self._midnight_ns(last - timedelta(days=days - 1))
        return begin

    def _shortest(self, length_ns: int) -> _Period:
        for period in self._periods:
            if period.least_ns >= length_ns + (self._bar_ns if period.nominal_ns < DAY_NS else 0):
                return period
        return self._longest

    def _trades(self, begin_ns: int, end_ns: int) -> bool:
        """False where the instrument certainly does not trade: the week-end."""
        if self._bar_ns >= DAY_NS or end_ns - begin_ns > DAY_NS + HOUR_NS:
            return True
        if self._by_day:
            return self._day(begin_ns).weekday() < _SATURDAY or self._day(end_ns - 1).weekday() < _SATURDAY
        if self._rests:
            # From Friday 17:00 in New York to Sunday 17:00: by UTC that holds in summer and winter.
            first = datetime.fromtimestamp(begin_ns // NS_PER_S, tz=ZoneInfo("UTC"))
            last = datetime.fromtimestamp((end_ns - 1) // NS_PER_S, tz=ZoneInfo("UTC"))
            saturday = first.weekday() == _SATURDAY
            sunday = first.weekday() == _SATURDAY + 1
            ends_early = last.weekday() == _SATURDAY or (last.weekday() == _SATURDAY + 1 and last.hour < 20)
            return not ((saturday or sunday) and ends_early)
        return True

    def _day(self, time_ns: int) -> date:
        return datetime.fromtimestamp(time_ns // NS_PER_S, tz=self._zone).date()

    def _midnight_ns(self, day: date) -> int:
        return int(datetime(day.year, day.month, day.day, tzinfo=self._zone).timestamp()) * NS_PER_S


def least_s(requests: int, limits: Sequence[RateLimit]) -> float:
    """Seconds that so many requests take at least under ``limits``, if answers are at once and nobody else asks."""
    if requests <= 0:
        return 0.0
    left = [math.floor((requests - 1) / limit.count) * limit.per_s for limit in limits if limit.count]
    return max(left, default=0.0)
