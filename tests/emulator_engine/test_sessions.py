"""Trading hours over holidays, half days, week-ends and changes of the clock (fault 90)."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest

from bt_ibkr.clock import NS_PER_S
from bt_ibkr.emulator.listing import Listing
from bt_ibkr.emulator.market import holidays, sessions
from bt_ibkr.emulator.types import Instrument, MarketEvent
from bt_ibkr.emulator.universe import Universe, default_universe
from bt_ibkr.model.contract import Contract, SecurityType

AAPL, EURUSD, CRUDE, BITCOIN, SWISS = 265598, 12087792, 304037511, 479624278, 273982664
HOUR_NS = 3600 * NS_PER_S
SP500_FUTURE = Instrument(
    contract=Contract(conid=1, symbol="ES", security_type=SecurityType.FUTURE, exchange="CME"),
    session_open="08:30",
    session_close="16:00",
    extended_open="17:00",
    extended_close="16:00",
    time_zone="America/Chicago",
)


def ns(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * NS_PER_S


def utc(time_ns: int) -> str:
    return datetime.fromtimestamp(time_ns // NS_PER_S, tz=UTC).strftime("%m-%d %H:%M")


def window(times: tuple[int, int]) -> str:
    return " ".join(utc(one) for one in times)


@pytest.fixture(scope="module")
def everything() -> Universe:
    return default_universe()


def known(universe: Universe, conid: int) -> Instrument:
    found = universe.by_conid(conid)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("calendar", "closed"),
    [
        ("new_york", "2013-01-21 2013-03-29 2021-12-24 2022-06-20 2024-03-29 2025-01-09 2026-07-03"),
        ("chicago_futures", "2024-03-29 2025-12-25 2027-12-24"),
        ("london", "2020-05-08 2022-06-02 2022-06-03 2022-12-27 2023-05-08 2026-04-06"),
        ("frankfurt", "2019-10-03 2021-05-24 2025-12-24 2025-12-31"),
        ("zurich", "2026-01-02 2026-05-14 2026-05-25"),
        ("paris", "2026-04-06 2026-05-01 2025-12-26"),
        ("toronto", "2026-02-16 2026-05-18 2026-07-01 2026-10-12"),
        ("mexico", "2026-02-02 2026-03-16 2026-04-02 2026-09-16"),
        ("forex", "2026-01-01 2025-12-25"),
    ],
)
def test_holidays(calendar: str, closed: str) -> None:
    for text in closed.split():
        day = date.fromisoformat(text)
        assert day.weekday() < 5
        assert not holidays.trades_on(calendar, day), text
    assert not holidays.trades_on(calendar, date(2026, 3, 7))
    assert holidays.trades_on(calendar, date(2026, 3, 3))


def test_no_holidays() -> None:
    assert holidays.trades_on("always", date(2025, 12, 27))
    assert holidays.trades_on("weekdays", date(2025, 12, 25))
    assert not holidays.trades_on("weekdays", date(2025, 12, 27))
    # a Saturday's New Year is not kept on the Friday before
    assert holidays.trades_on("new_york", date(2021, 12, 31))


# the library uses parts of pandas that are going to change
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("calendar", "name"), [("new_york", "XNYS"), ("london", "XLON"), ("frankfurt", "XETR")]
)
def test_a_calendar_of_others_says_the_same(calendar: str, name: str) -> None:
    others = pytest.importorskip("exchange_calendars")
    told = others.get_calendar(name, start="2008-01-01", end="2026-12-31")
    days = {stamp.date() for stamp in told.sessions}
    early = {stamp.date() for stamp in told.early_closes}
    day = date(2008, 1, 1)
    while day < date(2026, 12, 31):
        assert holidays.trades_on(calendar, day) == (day in days), day
        if day in days:
            assert (holidays.short_day(calendar, day) is not None) == (day in early), day
        day += timedelta(days=1)


def test_half_days_of_stocks(everything: Universe) -> None:
    apple = known(everything, AAPL)
    black_friday = date(2025, 11, 28)
    assert window(sessions.session_of_day(apple, black_friday)) == "11-28 14:30 11-28 18:00"
    assert window(sessions.extended_of_day(apple, black_friday)) == "11-28 09:00 11-28 22:00"
    assert utc(sessions.next_close_ns(apple, ns("2025-11-26T21:00"))) == "11-28 18:00"
    assert utc(sessions.next_day_end_ns(apple, ns("2025-11-28T19:00"))) == "11-28 22:00"
    assert utc(sessions.next_open_ns(apple, ns("2025-11-26T15:00"))) == "11-28 14:30"
    assert not sessions.in_session(apple, ns("2025-11-27T16:00"))
    assert sessions.in_session(apple, ns("2025-11-28T17:59"))
    assert not sessions.in_session(apple, ns("2025-11-28T18:00"))
    # nobody trades in the night before a holiday
    assert not sessions.in_overnight(apple, ns("2025-11-27T03:00"))


def test_the_clock_changes(everything: Universe) -> None:
    """The session keeps its hours at the exchange; the day it changes has 23 or 25 hours."""
    apple = known(everything, AAPL)
    assert utc(sessions.next_open_ns(apple, ns("2026-03-06T22:00"))) == "03-09 13:30"
    assert utc(sessions.next_open_ns(apple, ns("2026-10-30T22:00"))) == "11-02 14:30"
    assert (
        sessions.day_start_ns(apple, date(2026, 3, 9)) - sessions.day_start_ns(apple, date(2026, 3, 8))
        == 23 * HOUR_NS
    )
    # Europe changes three weeks later
    swiss = known(everything, SWISS)
    assert window(sessions.session_of_day(swiss, date(2026, 3, 27))) == "03-27 08:00 03-27 16:30"
    assert window(sessions.session_of_day(swiss, date(2026, 3, 30))) == "03-30 07:00 03-30 15:30"


def test_futures_days_begin_on_the_evening_before() -> None:
    one = SP500_FUTURE
    # as IBKR's specification of contract/trading-schedule shows them
    assert sessions.extended_of_day(one, date(2025, 12, 18)) == (1766012400 * NS_PER_S, 1766095200 * NS_PER_S)
    assert sessions.session_of_day(one, date(2025, 12, 18)) == (1766068200 * NS_PER_S, 1766095200 * NS_PER_S)
    assert sessions.extended_of_day(one, date(2025, 12, 24)) == (1766530800 * NS_PER_S, 1766600100 * NS_PER_S)
    assert sessions.session_of_day(one, date(2025, 12, 24)) == (1766586600 * NS_PER_S, 1766600100 * NS_PER_S)
    assert sessions.session_day(one, ns("2026-03-01T23:30")) == date(2026, 3, 2)
    assert sessions.session_day(one, ns("2026-03-02T21:59")) == date(2026, 3, 2)
    assert sessions.session_day(one, ns("2026-03-02T23:00")) == date(2026, 3, 3)
    assert sessions.session_day(one, ns("2025-12-26T00:00")) == date(2025, 12, 26)
    # midnight UTC inside the session changes nothing
    assert utc(sessions.next_day_end_ns(one, ns("2026-03-02T23:59"))) == "03-03 22:00"
    assert utc(sessions.next_day_end_ns(one, ns("2026-03-03T00:01"))) == "03-03 22:00"


def test_futures_on_a_us_holiday_have_no_regular_hours() -> None:
    labor = date(2026, 9, 7)
    assert sessions.trades_on(SP500_FUTURE, labor)
    assert not sessions.has_regular_hours(SP500_FUTURE, labor)
    assert window(sessions.extended_of_day(SP500_FUTURE, labor)) == "09-06 22:00 09-07 17:00"
    assert not sessions.in_session(SP500_FUTURE, ns("2026-09-07T15:00"))
    assert utc(sessions.next_close_ns(SP500_FUTURE, ns("2026-09-04T22:00"))) == "09-08 21:00"


def test_forex_and_crypto_weeks(everything: Universe) -> None:
    euro, bitcoin = known(everything, EURUSD), known(everything, BITCOIN)
    assert window(sessions.session_of_day(euro, date(2026, 3, 2))) == "03-01 22:15 03-02 22:00"
    assert not sessions.in_session(euro, ns("2026-02-28T12:00"))
    assert sessions.in_session(euro, ns("2026-03-01T23:00"))
    assert not sessions.in_session(euro, ns("2026-03-06T22:30"))
    assert sessions.in_session(bitcoin, ns("2026-02-28T12:00"))
    assert window(sessions.session_of_day(bitcoin, date(2026, 2, 28))) == "02-28 05:00 03-01 05:00"


def test_the_day_of_a_quote_turns_with_the_trading_day() -> None:
    """Volume, open, high and low begin anew on the evening before, not at midnight."""
    listing = Listing(SP500_FUTURE, ns("2026-03-02T15:00"))
    assert utc(listing.turn_ns) == "03-02 23:00"
    assert utc(listing.close_ns) == "03-02 22:00"
    listing.quote.volume = 5.0
    listing.quote.last = 6900.0
    listing.roll(ns("2026-03-02T23:00"))
    assert (listing.quote.volume, listing.quote.prior_close) == (0.0, 6900.0)
    assert utc(listing.turn_ns) == "03-03 23:00"


def test_regular_hours_of_a_future_s_bars() -> None:
    """The evening belongs to the next day, whose regular hours begin in the morning."""
    listing = Listing(SP500_FUTURE, ns("2026-03-01T23:00"))
    for text in (
        "2026-03-01T23:30",
        "2026-03-02T14:29",
        "2026-03-02T14:30",
        "2026-03-02T21:59",
        "2026-03-02T23:30",
    ):
        event = MarketEvent(ns(text), 1, last=1.0, last_size=1.0)
        listing.bars.apply(event, listing.quote)
    span = ns("2026-03-01T00:00"), ns("2026-03-04T00:00")
    minutes = listing.bars.bars(*span, 60 * NS_PER_S, regular_hours_only=True)
    assert [utc(bar.start_ns) for bar in minutes] == ["03-02 14:30", "03-02 21:59"]
    day, evening = listing.bars.bars(*span, 24 * HOUR_NS)
    assert (utc(day.start_ns), utc(day.end_ns), day.volume) == ("03-02 14:30", "03-02 22:00", 4.0)
    assert evening.volume == 1.0


def test_trading_days(everything: Universe) -> None:
    apple = known(everything, AAPL)
    days = sessions.trading_days(apple, date(2025, 11, 26), 4)
    assert [day.day for day in days] == [26, 28, 1, 2]
    assert [day.day for day in sessions.trading_days(apple, date(2025, 12, 1), -2)] == [26, 28]
