"""Trading days by exchange: holidays, half days, breaks at noon, daylight saving, evenings before."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from bt_ibkr.clock import NS_PER_S
from bt_ibkr.errors import WireError
from bt_ibkr.model.calendar import TradingDay, Window
from bt_ibkr.model.contract import Contract, SecurityType
from bt_ibkr.services.calendars import calendar_of
from bt_ibkr.wire.schedule import trading_schedule


def stock(exchange: str = "SMART", listing: str = "NYSE", currency: str = "USD") -> Contract:
    return Contract(
        conid=1,
        symbol="X",
        security_type=SecurityType.STOCK,
        exchange=exchange,
        listing_exchange=listing,
        currency=currency,
    )


def of_kind(kind: SecurityType, exchange: str, currency: str = "USD") -> Contract:
    return Contract(conid=1, symbol="X", security_type=kind, exchange=exchange, currency=currency)


def ns(year: int, month: int, day: int, hour: int = 0, minute: int = 0) -> int:
    """Of a moment in UTC."""
    return int(datetime(year, month, day, hour, minute, tzinfo=UTC).timestamp()) * NS_PER_S


def hours(contract: Contract, day: date, *, extended: bool = False) -> list[tuple[str, str]] | None:
    """By the exchange's clock."""
    calendar = calendar_of(contract)
    found = calendar.session(day)
    if found is None:
        return None

    def clock(time_ns: int) -> str:
        moment = datetime.fromtimestamp(time_ns / NS_PER_S, tz=calendar.zone)
        return moment.strftime("%H:%M") if moment.date() == day else moment.strftime("%a %H:%M")

    return [(clock(one.start_ns), clock(one.end_ns)) for one in found.windows(extended=extended)]


NEW_YORK = [("09:30", "16:00")]


@pytest.mark.parametrize(
    ("contract", "day", "extended", "wanted"),
    [
        (stock(), date(2026, 3, 6), False, NEW_YORK),
        # The clocks go forward on 8 March, and back on 1 November.
        (stock(), date(2026, 3, 9), False, NEW_YORK),
        (stock(), date(2026, 11, 2), False, NEW_YORK),
        (stock(), date(2026, 3, 9), True, [("04:00", "20:00")]),
        (stock(), date(2026, 3, 7), False, None),
        (stock(), date(2026, 11, 26), True, None),
        (stock(), date(2026, 11, 27), False, [("09:30", "13:00")]),
        (stock(), date(2026, 11, 27), True, [("04:00", "17:00")]),
        (stock(listing="NASDAQ.NMS"), date(2026, 7, 3), False, None),
        (stock(), date(2013, 10, 7), False, NEW_YORK),
        # Before the library's first day, and after its last.
        (stock(), date(1999, 3, 1), False, NEW_YORK),
        (stock(), date(2045, 3, 1), False, NEW_YORK),
        (stock("IBIS", "IBIS", "EUR"), date(2026, 12, 24), False, None),
        (stock("SEHK", "SEHK", "HKD"), date(2026, 3, 2), False, [("09:30", "12:00"), ("13:00", "16:00")]),
        (stock("TSEJ", "TSEJ", "JPY"), date(2026, 3, 2), False, [("09:00", "11:30"), ("12:30", "15:30")]),
        (of_kind(SecurityType.FUTURE, "CME"), date(2026, 3, 2), True, [("Sun 17:00", "16:00")]),
        (of_kind(SecurityType.FUTURE, "CME"), date(2026, 3, 7), True, None),
        (of_kind(SecurityType.FOREX, "IDEALPRO"), date(2026, 3, 2), True, [("Sun 17:00", "17:00")]),
        (of_kind(SecurityType.FOREX, "IDEALPRO"), date(2026, 12, 25), True, None),
        (of_kind(SecurityType.CRYPTO, "PAXOS"), date(2026, 3, 7), True, [("00:00", "Sun 00:00")]),
        # An exchange that nobody knows: weekdays.
        (stock("NOWHERE", "NOWHERE", "PLN"), date(2026, 3, 2), True, [("00:00", "Tue 00:00")]),
        (stock("NOWHERE", "NOWHERE", "PLN"), date(2026, 3, 7), True, None),
    ],
)
def test_hours(contract: Contract, day: date, extended: bool, wanted: list[tuple[str, str]] | None) -> None:
    assert hours(contract, day, extended=extended) == wanted


@pytest.mark.parametrize(
    ("moment", "extended", "day"),
    [
        # A Friday's extended hours reach beyond midnight in UTC.
        (ns(2026, 3, 7, 0, 30), True, date(2026, 3, 6)),
        (ns(2026, 3, 7, 0, 30), False, None),
        (ns(2026, 3, 6, 14, 30), False, date(2026, 3, 6)),
        (ns(2026, 3, 6, 14, 29), False, None),
        (ns(2026, 3, 6, 21, 0), False, None),
        (ns(2026, 3, 9, 13, 30), False, date(2026, 3, 9)),
        (ns(2026, 11, 27, 18, 30), False, None),
    ],
)
def test_day_of_a_moment(moment: int, extended: bool, day: date | None) -> None:
    found = calendar_of(stock()).day_of(moment, extended=extended)
    assert (None if found is None else found.day) == day


def test_following_skips_holidays() -> None:
    calendar = calendar_of(stock())
    # Christmas of 2026 is a Friday.
    found = calendar.following(ns(2026, 12, 24, 20), extended=False)
    assert found is not None
    assert found.day == date(2026, 12, 28)


def test_what_ibkr_tells_counts() -> None:
    """A day of mourning that no library can know, and a close that was moved."""
    moved = TradingDay(
        day=date(2026, 3, 3),
        regular=(Window(ns(2026, 3, 3, 14, 30), ns(2026, 3, 3, 19)),),
        extended=(Window(ns(2026, 3, 3, 9), ns(2026, 3, 3, 22)),),
    )
    ordinary = TradingDay(
        day=date(2026, 3, 5),
        regular=(Window(ns(2026, 3, 5, 14, 30), ns(2026, 3, 5, 21)),),
        extended=(Window(ns(2026, 3, 5, 9), ns(2026, 3, 6, 1)),),
    )
    calendar = calendar_of(stock(), (moved, ordinary))
    assert calendar.session(date(2026, 3, 3)) == moved
    assert calendar.session(date(2026, 3, 4)) is None
    assert calendar.session(date(2026, 3, 6)) is not None
    assert calendar.session(date(2026, 3, 2)) is not None


def test_zone() -> None:
    assert calendar_of(stock("SEHK", "SEHK", "HKD")).zone == ZoneInfo("Asia/Hong_Kong")


def schedule(**days: Any) -> dict[str, Any]:
    return {"schedules": {name.removeprefix("d"): hours for name, hours in days.items()}}


def window(start: int, end: int) -> dict[str, int]:
    return {"opening": start, "closing": end}


def test_schedule_by_day() -> None:
    told = trading_schedule(
        schedule(
            d20260303={"liquid_hours": [window(30, 40), window(10, 20)], "extended_hours": [window(5, 50)]},
            d20260302={"extended_hours": [window(1, 4)]},
            d20260304={"liquid_hours": [window(60, 70)]},
            d20260305={"liquid_hours": []},
        )
    )
    assert [(one.day.day, len(one.regular), len(one.extended)) for one in told.days] == [
        (2, 0, 1),
        (3, 2, 1),
        (4, 1, 1),
    ]
    span = told.days[1].span(extended=False)
    assert span == Window(10 * NS_PER_S, 40 * NS_PER_S)
    with pytest.raises(WireError, match="'2026' is no day"):
        trading_schedule(schedule(d2026={"liquid_hours": [window(1, 2)]}))
