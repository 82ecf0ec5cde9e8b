"""Which bars answer a request."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import msgspec

from bt_ibkr.clock import NS_PER_S
from bt_ibkr.emulator.services.history.periods import BARS, DAY_NS, SHORT_BAR_NS, Period, days_before
from bt_ibkr.emulator.types import Instrument
from bt_ibkr.model.market import Bar

if TYPE_CHECKING:
    from bt_ibkr.emulator.services.core import Core

#: Most bars of one answer.
MAX_BARS = 1000
#: Days without a session that are skipped at most, looking for one.
_GAP_DAYS = 5


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked for; the window ends at ``end_ns`` and is ``period`` long, or begins at ``from_ns``."""

    instrument: Instrument
    period: Period
    bar: str
    end_ns: int
    source: str
    regular_hours_only: bool
    from_ns: int = 0


def read(core: Core, request: Request) -> list[Bar]:
    """At most ``MAX_BARS`` bars, the newest ones; the last one may still be forming."""
    zone = ZoneInfo(request.instrument.time_zone)
    bar_ns = BARS[request.bar]
    period = request.period
    if bar_ns < SHORT_BAR_NS and period.nominal_ns > DAY_NS:
        period = Period(1, "d")
    start_ns = _earliest(request.end_ns, period, zone)
    found = core.engine.history(
        request.instrument.contract.conid,
        start_ns,
        request.end_ns,
        bar_ns,
        request.source,
        request.regular_hours_only,
    )
    bars = [bar for bar in found if request.from_ns <= bar.start_ns < request.end_ns]
    if period.unit in ("min", "h"):
        bars = bars[-max(period.nominal_ns // bar_ns, 1) :]
    elif period.unit == "d":
        bars = _last_days(bars, zone, period.count)
    return bars[-MAX_BARS:]


def _day(time_ns: int, zone: ZoneInfo) -> date:
    return datetime.fromtimestamp(time_ns // NS_PER_S, tz=zone).date()


def _midnight_ns(day: date, zone: ZoneInfo) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=zone).timestamp()) * NS_PER_S


def _earliest(end_ns: int, period: Period, zone: ZoneInfo) -> int:
    """A time that is certainly before the first bar of the answer, on a midnight of the venue."""
    day = _day(end_ns, zone)
    if period.unit in ("min", "h"):
        return _midnight_ns(day - timedelta(days=_GAP_DAYS), zone)
    if period.unit == "d":
        return _midnight_ns(day - timedelta(days=period.count * 7 // 5 + _GAP_DAYS), zone)
    return _midnight_ns(days_before(day, period), zone)


def _last_days(bars: list[Bar], zone: ZoneInfo, count: int) -> list[Bar]:
    """The bars of the last ``count`` days that have any."""
    days = sorted({_day(bar.start_ns, zone) for bar in bars})[-count:]
    return [bar for bar in bars if days and _day(bar.start_ns, zone) >= days[0]]
