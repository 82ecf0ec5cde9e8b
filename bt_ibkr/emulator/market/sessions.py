"""Trading hours: the instrument's own clock, days and sessions, in epoch nanoseconds.

A session belongs to the day on which it ends: futures' and forex' Monday opens on Sunday evening. Days are those
of the instrument's time zone; holidays and days that end early come from ``holidays``. A close of 00:00 is the
day's end.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from bt_ibkr.clock import NS_PER_S
from bt_ibkr.emulator.market import holidays
from bt_ibkr.emulator.types import Instrument
from bt_ibkr.model.contract import SecurityType

_MINUTE_NS = 60 * NS_PER_S
_ONE = timedelta(days=1)
_NEW_YORK = "America/New_York"
#: Kinds that trade before and after the session in New York, from 04:00 to 20:00.
_EARLY_AND_LATE = frozenset({SecurityType.STOCK, SecurityType.CFD})


@lru_cache(maxsize=64)
def _zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)


@lru_cache(maxsize=256)
def _clock(text: str) -> time:
    hours, minutes = text.split(":")
    return time(int(hours), int(minutes))


def local_date(instrument: Instrument, time_ns: int) -> date:
    """The calendar day at the instrument's exchange."""
    return datetime.fromtimestamp(time_ns // NS_PER_S, tz=UTC).astimezone(_zone(instrument.time_zone)).date()


@lru_cache(maxsize=16384)
def _at(zone: str, day: date, clock: time) -> int:
    return int(datetime.combine(day, clock, tzinfo=_zone(zone)).timestamp()) * NS_PER_S


def day_start_ns(instrument: Instrument, day: date) -> int:
    """Midnight at the exchange."""
    return _at(instrument.time_zone, day, time(0))


def calendar_of(instrument: Instrument) -> str:
    """The instrument's own calendar, or that of where it is listed or routed; New York's for the rest of the US."""
    if instrument.calendar:
        return instrument.calendar
    contract = instrument.contract
    known = holidays.of_exchange(contract.listing_exchange or "") or holidays.of_exchange(contract.exchange)
    return known or ("new_york" if instrument.is_us else "weekdays")


def trades_on(instrument: Instrument, day: date) -> bool:
    """Whether it trades on the day, be it in extended hours alone."""
    return holidays.trades_on(calendar_of(instrument), day)


def has_regular_hours(instrument: Instrument, day: date) -> bool:
    """Whether the day has regular trading hours."""
    calendar = calendar_of(instrument)
    short = holidays.short_day(calendar, day)
    return holidays.trades_on(calendar, day) and (short is None or short.regular)


def extended_clock(instrument: Instrument) -> tuple[str, str]:
    """Open and close of extended hours, ``HH:MM``: the instrument's own, New York's, or the regular ones."""
    if instrument.extended_open:
        return instrument.extended_open, instrument.extended_close
    kind = instrument.contract.security_type
    if kind in _EARLY_AND_LATE and instrument.is_us and instrument.time_zone == _NEW_YORK:
        return "04:00", "20:00"
    return instrument.session_open, instrument.session_close


def _window(instrument: Instrument, day: date, opens: str, closes: str) -> tuple[int, int]:
    opening, closing = _clock(opens), _clock(closes)
    zone = instrument.time_zone
    end = _at(zone, day + _ONE, closing) if closing == time(0) else _at(zone, day, closing)
    evening_before = closing != time(0) and opening >= closing
    start = _at(zone, day - _ONE if evening_before else day, opening)
    short = holidays.short_day(calendar_of(instrument), day)
    return start, end if short is None else max(end - short.minutes * _MINUTE_NS, start)


def session_of_day(instrument: Instrument, day: date) -> tuple[int, int]:
    """Open and close of the regular hours of a day; those it would have, if it has none (``has_regular_hours``)."""
    return _window(instrument, day, instrument.session_open, instrument.session_close)


def extended_of_day(instrument: Instrument, day: date) -> tuple[int, int]:
    """Open and close of a day with its extended hours; those it would have, if it has none (``trades_on``)."""
    return _window(instrument, day, *extended_clock(instrument))


def begins_in_the_evening(instrument: Instrument) -> bool:
    """Whether its days begin on the evening before."""
    opens, closes = (_clock(word) for word in extended_clock(instrument))
    return closes != time(0) and opens >= closes


def session_day(instrument: Instrument, time_ns: int) -> date:
    """The trading day that a moment belongs to.

    Where days begin in the evening, what comes after one day's beginning of the next belongs to that, week-ends and
    holidays to the day that follows them.
    """
    day = local_date(instrument, time_ns)
    if not begins_in_the_evening(instrument):
        return day
    if time_ns >= _at(instrument.time_zone, day, _clock(extended_clock(instrument)[0])):
        day += _ONE
    while not trades_on(instrument, day):
        day += _ONE
    return day


def in_session(instrument: Instrument, time_ns: int) -> bool:
    """Whether the moment lies in regular trading hours."""
    day = session_day(instrument, time_ns)
    opened, closed = session_of_day(instrument, day)
    return opened <= time_ns < closed and has_regular_hours(instrument, day)


def next_close_ns(instrument: Instrument, time_ns: int) -> int:
    """The next end of regular hours after the moment."""
    day = session_day(instrument, time_ns)
    while True:
        _, closed = session_of_day(instrument, day)
        if closed > time_ns and has_regular_hours(instrument, day):
            return closed
        day += _ONE


def next_day_end_ns(instrument: Instrument, time_ns: int) -> int:
    """When orders for the day end: with its extended hours."""
    day = session_day(instrument, time_ns)
    while True:
        _, closed = extended_of_day(instrument, day)
        if closed > time_ns and trades_on(instrument, day):
            return closed
        day += _ONE


def next_turn_ns(instrument: Instrument, time_ns: int) -> int:
    """When open, high, low and volume begin anew: with the next trading day's first hour, or at midnight."""
    if not begins_in_the_evening(instrument):
        return day_start_ns(instrument, local_date(instrument, time_ns) + _ONE)
    day = session_day(instrument, time_ns)
    while True:
        opened, _ = extended_of_day(instrument, day)
        if opened > time_ns and trades_on(instrument, day):
            return opened
        day += _ONE


def next_open_ns(instrument: Instrument, time_ns: int) -> int:
    """The next beginning of regular hours after the moment."""
    day = session_day(instrument, time_ns)
    while True:
        opened, _ = session_of_day(instrument, day)
        if opened > time_ns and has_regular_hours(instrument, day):
            return opened
        day += _ONE


def trading_days(instrument: Instrument, first: date, count: int) -> list[date]:
    """The next ``count`` days from ``first`` on with regular hours; of a negative ``count`` those before it."""
    step = _ONE if count > 0 else -_ONE
    day = first if count > 0 else first - _ONE
    found: list[date] = []
    while len(found) < abs(count):
        if has_regular_hours(instrument, day):
            found.append(day)
        day += step
    return found if count > 0 else found[::-1]


_OVERNIGHT_BEGINS, _OVERNIGHT_ENDS = time(20), time(3, 50)


def in_overnight(instrument: Instrument, time_ns: int) -> bool:
    """Whether US stocks trade overnight at the moment: 20:00 to 03:50 before each day on which they trade."""
    day = local_date(instrument, time_ns)
    if time_ns >= _at(instrument.time_zone, day, _OVERNIGHT_BEGINS):
        day += _ONE
    elif time_ns >= _at(instrument.time_zone, day, _OVERNIGHT_ENDS):
        return False
    return trades_on(instrument, day)


def overnight_end_ns(instrument: Instrument, time_ns: int) -> int:
    """The next end of an overnight session after the moment."""
    day = local_date(instrument, time_ns)
    while True:
        end = _at(instrument.time_zone, day, _OVERNIGHT_ENDS)
        if end > time_ns and trades_on(instrument, day):
            return end
        day += _ONE
