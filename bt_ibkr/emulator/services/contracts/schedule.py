"""Trading hours, in the two shapes the server has them."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from bt_ibkr.clock import NS_PER_S
from bt_ibkr.emulator.market.sessions import (
    extended_clock,
    extended_of_day,
    has_regular_hours,
    session_day,
    session_of_day,
    trades_on,
)
from bt_ibkr.emulator.types import Instrument

if TYPE_CHECKING:
    from bt_ibkr.emulator.services.core import Core

Row = dict[str, object]
#: IBKR's name of a zone.
_ZONES = {"America/New_York": "US/Eastern", "America/Chicago": "US/Central"}
_DAYS = 6
#: Special days that the weekly schedule names by their date.
_AHEAD_DAYS = 30
_ONE = timedelta(days=1)
#: A Saturday: it and the six days after it stand for any week.
_ANY_WEEK = date(2000, 1, 1)


def by_date(core: Core, one: Instrument) -> Row:
    """``contract/trading-schedule``: hours in epoch seconds of the six trading days around now.

    The last one before today's, today's (or the next) and those that follow; days without trade are left out, and so
    are the ``liquid_hours`` of a day that has extended ones alone.
    """
    today = session_day(one, core.now_ns)
    day = today - _ONE
    while not trades_on(one, day):
        day -= _ONE
    schedules: dict[str, Row] = {}
    while len(schedules) < _DAYS:
        if trades_on(one, day):
            schedules[day.strftime("%Y%m%d")] = _hours(one, day)
        day += _ONE
    return {"exchange_time_zone": _ZONES.get(one.time_zone, one.time_zone), "schedules": schedules}


def _hours(one: Instrument, day: date) -> Row:
    opening, closing = (moment // NS_PER_S for moment in extended_of_day(one, day))
    found: Row = {"extended_hours": [{"cancel_daily_orders": True, "opening": opening, "closing": closing}]}
    if has_regular_hours(one, day):
        opening, closing = (moment // NS_PER_S for moment in session_of_day(one, day))
        found["liquid_hours"] = [{"opening": opening, "closing": closing}]
    return found


def by_weekday(core: Core, one: Instrument, exchange: str) -> Row:
    """A row of ``trsrv/secdef/schedule``: ``20000101`` to ``20000107`` stand for Saturday to Friday.

    Other dates stand for themselves: the holidays and short days of the next weeks. A day whose opening is later than
    its closing begins on the evening before.
    """
    week = [_ANY_WEEK + offset * _ONE for offset in range(7)]
    schedules = [_day(one, day, special=False) for day in week]
    today = session_day(one, core.now_ns)
    for offset in range(_AHEAD_DAYS):
        day = today + offset * _ONE
        template = week[(day.weekday() + 2) % 7]
        special = _day(one, day, special=True)
        if special["sessions"] != _day(one, template, special=False)["sessions"]:
            schedules.append(special)
    return {
        "id": f"p{one.contract.conid}",
        "tradeVenueId": f"v{one.contract.conid}",
        "exchange": exchange,
        "description": exchange,
        "timezone": one.time_zone,
        "schedules": schedules,
    }


def _day(one: Instrument, day: date, *, special: bool) -> Row:
    """One day's hours, ``HHmm`` at the venue: its own, or of a day that stands for many the usual ones."""
    usual = one.session_open.replace(":", ""), one.session_close.replace(":", "")
    early, late = (word.replace(":", "") for word in extended_clock(one))
    liquid, whole = [usual], [(early, late)]
    if special:
        liquid = [_clock(one, session_of_day(one, day))] if has_regular_hours(one, day) else []
        whole = [_clock(one, extended_of_day(one, day))] if trades_on(one, day) else []
    elif day.weekday() >= 5 and not trades_on(one, day):
        liquid, whole = [], []
    return {
        "clearingCycleEndTime": "0000",
        "tradingScheduleDate": day.strftime("%Y%m%d"),
        "sessions": [{"openingTime": a, "closingTime": b, "prop": "LIQUID"} for a, b in liquid],
        "tradingtimes": [{"openingTime": a, "closingTime": b, "cancelDayOrders": "Y"} for a, b in whole],
    }


def _clock(one: Instrument, window: tuple[int, int]) -> tuple[str, str]:
    zone = ZoneInfo(one.time_zone)
    opens, closes = (
        datetime.fromtimestamp(moment // NS_PER_S, tz=zone).strftime("%H%M") for moment in window
    )
    return opens, closes
