"""Trading hours, in the two shapes the server has them."""

from __future__ import annotations

from datetime import date, datetime, time, timedelta
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from bt_ibkr.clock import NS_PER_S
from bt_ibkr.emulator.market.sessions import session_of_day
from bt_ibkr.emulator.types import Instrument
from bt_ibkr.model.contract import SecurityType

if TYPE_CHECKING:
    from bt_ibkr.emulator.services.core import Core

Row = dict[str, object]
#: IBKR's name of a zone.
_ZONES = {"America/New_York": "US/Eastern", "America/Chicago": "US/Central"}
_DAYS = 6


def by_date(core: Core, one: Instrument) -> Row:
    """``contract/trading-schedule``: the next days' hours in epoch seconds; days without any are left out."""
    zone = ZoneInfo(one.time_zone)
    today = datetime.fromtimestamp(core.now_ns // NS_PER_S, tz=zone).date()
    schedules: dict[str, Row] = {}
    for offset in range(_DAYS):
        day = today + timedelta(days=offset)
        if day.weekday() >= 5:
            continue
        opening, closing = (moment // NS_PER_S for moment in session_of_day(one, day))
        opens, closes = _extended(one, day, zone) or (opening, closing)
        schedules[day.strftime("%Y%m%d")] = {
            "liquid_hours": [{"opening": opening, "closing": closing}],
            "extended_hours": [{"cancel_daily_orders": True, "opening": opens, "closing": closes}],
        }
    return {"exchange_time_zone": _ZONES.get(one.time_zone, one.time_zone), "schedules": schedules}


def _extended(one: Instrument, day: date, zone: ZoneInfo) -> tuple[int, int] | None:
    """Of US stocks 04:00 to 20:00, as recorded; of the rest the emulator knows none."""
    if not (one.is_us and one.contract.security_type is SecurityType.STOCK):
        return None
    opens = datetime.combine(day, time(4), tzinfo=zone)
    return int(opens.timestamp()), int(opens.replace(hour=20).timestamp())


def by_weekday(one: Instrument, exchange: str) -> Row:
    """A row of ``trsrv/secdef/schedule``: ``20000101`` to ``20000107`` stand for Saturday to Friday."""
    opening, closing = one.session_open.replace(":", ""), one.session_close.replace(":", "")
    schedules: list[Row] = []
    for offset in range(7):
        open_day = offset >= 2
        session: Row = {"openingTime": opening, "closingTime": closing, "prop": "LIQUID"}
        schedules.append(
            {
                "clearingCycleEndTime": "0000",
                "tradingScheduleDate": f"200001{offset + 1:02d}",
                "sessions": [session] if open_day else [],
                "tradingtimes": [{"openingTime": opening, "closingTime": closing, "cancelDayOrders": "Y"}]
                if open_day
                else [],
            }
        )
    return {
        "id": f"p{one.contract.conid}",
        "tradeVenueId": f"v{one.contract.conid}",
        "exchange": exchange,
        "description": exchange,
        "timezone": one.time_zone,
        "schedules": schedules,
    }
