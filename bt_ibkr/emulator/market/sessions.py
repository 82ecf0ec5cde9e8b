"""Trading hours: the instrument's own clock, days and sessions, in epoch nanoseconds.

A session whose close is not after its open (forex: 17:15 to 17:00) runs into the next calendar day. Days are
calendar days in the instrument's time zone; Saturdays and Sundays have no session.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from bt_ibkr.clock import NS_PER_S
from bt_ibkr.emulator.types import Instrument
from bt_ibkr.model.contract import SecurityType

_SATURDAY = 5


@lru_cache(maxsize=64)
def _zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)


def _clock(text: str) -> time:
    hours, minutes = text.split(":")
    return time(int(hours), int(minutes))


def local_date(instrument: Instrument, time_ns: int) -> date:
    """The calendar day at the instrument's exchange."""
    return datetime.fromtimestamp(time_ns // NS_PER_S, tz=UTC).astimezone(_zone(instrument.time_zone)).date()


@lru_cache(maxsize=4096)
def _at(zone: str, day: date, clock: time) -> int:
    return int(datetime.combine(day, clock, tzinfo=_zone(zone)).timestamp()) * NS_PER_S


def day_start_ns(instrument: Instrument, day: date) -> int:
    """Midnight at the exchange."""
    return _at(instrument.time_zone, day, time(0))


def session_of_day(instrument: Instrument, day: date) -> tuple[int, int]:
    """Open and close of the session that opens on ``day``."""
    opens, closes = _clock(instrument.session_open), _clock(instrument.session_close)
    close_day = day if closes > opens else day + timedelta(days=1)
    return _at(instrument.time_zone, day, opens), _at(instrument.time_zone, close_day, closes)


def session_day(instrument: Instrument, time_ns: int) -> date:
    """The day on which the session opened that holds, or follows last before, the moment."""
    day = local_date(instrument, time_ns)
    if _clock(instrument.session_close) <= _clock(instrument.session_open):
        opened, _ = session_of_day(instrument, day)
        return day if time_ns >= opened else day - timedelta(days=1)
    return day


def in_session(instrument: Instrument, time_ns: int) -> bool:
    """Whether the moment lies in regular trading hours."""
    opened, closed = session_of_day(instrument, session_day(instrument, time_ns))
    return opened <= time_ns < closed


def next_close_ns(instrument: Instrument, time_ns: int) -> int:
    """The next end of a session after the moment."""
    day = session_day(instrument, time_ns)
    while True:
        _, closed = session_of_day(instrument, day)
        if closed > time_ns and day.weekday() < _SATURDAY:
            return closed
        day += timedelta(days=1)


def next_day_end_ns(instrument: Instrument, time_ns: int) -> int:
    """When orders for the day end: 20:00 at the exchange for stocks, else the session's close."""
    if instrument.contract.security_type not in (SecurityType.STOCK, SecurityType.FUND, SecurityType.WARRANT):
        return next_close_ns(instrument, time_ns)
    day = local_date(instrument, time_ns)
    while True:
        end = _at(instrument.time_zone, day, time(20))
        if end > time_ns and day.weekday() < _SATURDAY:
            return end
        day += timedelta(days=1)


def next_midnight_ns(instrument: Instrument, time_ns: int) -> int:
    """The start of the next calendar day at the exchange."""
    return day_start_ns(instrument, local_date(instrument, time_ns) + timedelta(days=1))


def next_open_ns(instrument: Instrument, time_ns: int) -> int:
    """The next beginning of a session after the moment."""
    day = local_date(instrument, time_ns)
    while True:
        opened, _ = session_of_day(instrument, day)
        if opened > time_ns and day.weekday() < _SATURDAY:
            return opened
        day += timedelta(days=1)


_OVERNIGHT_BEGINS, _OVERNIGHT_ENDS = time(20), time(3, 50)


def in_overnight(instrument: Instrument, time_ns: int) -> bool:
    """Whether US stocks trade overnight at the moment: 20:00 to 03:50, from Sunday evening to Friday morning."""
    day = local_date(instrument, time_ns)
    if time_ns >= _at(instrument.time_zone, day, _OVERNIGHT_BEGINS):
        day += timedelta(days=1)
    elif time_ns >= _at(instrument.time_zone, day, _OVERNIGHT_ENDS):
        return False
    return day.weekday() < _SATURDAY


def overnight_end_ns(instrument: Instrument, time_ns: int) -> int:
    """The next end of an overnight session after the moment."""
    day = local_date(instrument, time_ns)
    while True:
        end = _at(instrument.time_zone, day, _OVERNIGHT_ENDS)
        if end > time_ns and day.weekday() < _SATURDAY:
            return end
        day += timedelta(days=1)
