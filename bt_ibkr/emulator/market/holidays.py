"""Days on which exchanges do not trade, or not as long as usual, by rule.

The rules are those that the exchanges publish (holiday pages of NYSE, CME Group, LSE, Deutsche Börse, SIX, TMX,
BMV and Euronext); days that no rule foresees (mourning, storms, jubilees) are listed by date. A client that keeps
another calendar can be tried against this one: it shares no code with it. Where rules changed, those of the last
twenty years are meant.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import date, timedelta
from functools import lru_cache

import msgspec

_MONDAY, _THURSDAY, _FRIDAY, _SATURDAY, _SUNDAY = 0, 3, 4, 5, 6
_DAY = timedelta(days=1)


class Short(msgspec.Struct, frozen=True):
    """A day that ends early.

    Attributes:
        minutes: So much earlier than on other days, in regular and in extended hours.
        regular: Whether there are regular hours at all; futures on US holidays have extended hours alone.
    """

    minutes: int
    regular: bool = True


class Year(msgspec.Struct, frozen=True):
    """What is special in a year: days without trade, and days that end early."""

    closed: frozenset[date]
    short: dict[date, Short]


def easter(year: int) -> date:
    """Easter Sunday of the western churches (Gauss, as Butcher wrote it)."""
    a, b, c = year % 19, year // 100, year % 100
    d, e = divmod(b, 4)
    g = (8 * b + 13) // 25
    h = (19 * a + b - d - g + 15) % 30
    i, k = divmod(c, 4)
    m = (32 + 2 * e + 2 * i - h - k) % 7
    n = (a + 11 * h + 22 * m) // 451
    month, day = divmod(h + m - 7 * n + 114, 31)
    return date(year, month, day + 1)


def nth(year: int, month: int, weekday: int, count: int) -> date:
    """The ``count``-th weekday of a month; −1 is the last one."""
    if count < 0:
        after = date(year + month // 12, month % 12 + 1, 1)
        return after - timedelta(days=(after.weekday() - weekday - 1) % 7 + 1)
    first = date(year, month, 1)
    return first + timedelta(days=(weekday - first.weekday()) % 7 + 7 * (count - 1))


def _nearest(day: date) -> date:
    """Saturday's holiday is kept on Friday, Sunday's on Monday."""
    return day + {_SATURDAY: -_DAY, _SUNDAY: _DAY}.get(day.weekday(), timedelta())


def _monday(day: date) -> date:
    """A holiday at the week-end is kept on Monday."""
    return day + timedelta(days={_SATURDAY: 2, _SUNDAY: 1}.get(day.weekday(), 0))


def _last_weekday(day: date) -> date:
    """The day, or the Friday before."""
    return day - timedelta(days=max(day.weekday() - _FRIDAY, 0))


def _christmas_and_boxing(year: int) -> list[date]:
    """Both, moved to the next days that are no week-end."""
    first = date(year, 12, 25)
    moved = {_FRIDAY: (0, 3), _SATURDAY: (2, 3), _SUNDAY: (2, 1)}.get(first.weekday(), (0, 1))
    return [first + timedelta(days=days) for days in moved]


_US_MOURNING_AND_STORMS = (
    *(date(2001, 9, day) for day in (11, 12, 13, 14)),
    date(2004, 6, 11),
    date(2007, 1, 2),
    date(2012, 10, 29),
    date(2012, 10, 30),
    date(2018, 12, 5),
    date(2025, 1, 9),
)


def _us_new_year(year: int) -> list[date]:
    """A Saturday's is not kept on the last day of the year before."""
    day = date(year, 1, 1)
    return [] if day.weekday() == _SATURDAY else [_nearest(day)]


def _us_public(year: int) -> list[date]:
    """US holidays on which stocks do not trade and futures end early."""
    return [
        nth(year, 1, _MONDAY, 3),
        nth(year, 2, _MONDAY, 3),
        nth(year, 5, _MONDAY, -1),
        *([_nearest(date(year, 6, 19))] if year >= 2022 else []),
        _nearest(date(year, 7, 4)),
        nth(year, 9, _MONDAY, 1),
        nth(year, 11, _THURSDAY, 4),
    ]


def _us_half(year: int) -> list[date]:
    """The eve of Independence Day, the day after Thanksgiving, Christmas Eve."""
    days = [nth(year, 11, _THURSDAY, 4) + _DAY]
    if date(year, 12, 24).weekday() < _FRIDAY:
        days.append(date(year, 12, 24))
    fourth = date(year, 7, 4)
    if fourth.weekday() == _THURSDAY and year < 2013:
        days.append(fourth + _DAY)
    elif _MONDAY < fourth.weekday() <= _FRIDAY:
        days.append(fourth - _DAY)
    return days


def _good_friday(year: int) -> date:
    return easter(year) - 2 * _DAY


def _new_york(year: int) -> Year:
    closed = [*_us_new_year(year), _good_friday(year), *_us_public(year), _nearest(date(year, 12, 25))]
    return _year(year, closed, [(_us_half(year), Short(180))], _US_MOURNING_AND_STORMS)


def _us_futures(half: int) -> Callable[[int], Year]:
    def make(year: int) -> Year:
        closed = [*_us_new_year(year), _good_friday(year), _nearest(date(year, 12, 25))]
        short = [(_us_public(year), Short(240, regular=False)), (_us_half(year), Short(half))]
        return _year(year, closed, short)

    return make


def _london(year: int) -> Year:
    early = date(year, 5, 8) if year == 2020 else nth(year, 5, _MONDAY, 1)
    moved = {2002: date(2002, 6, 4), 2012: date(2012, 6, 4), 2022: date(2022, 6, 2)}
    closed = [
        _monday(date(year, 1, 1)),
        _good_friday(year),
        easter(year) + _DAY,
        early,
        moved.get(year, nth(year, 5, _MONDAY, -1)),
        nth(year, 8, _MONDAY, -1),
        *_christmas_and_boxing(year),
    ]
    once = (
        *(date(2002, 6, 3), date(2011, 4, 29), date(2012, 6, 5)),
        *(date(2022, 6, 3), date(2022, 9, 19), date(2023, 5, 8)),
    )
    return _year(year, closed, [(_eves(year), Short(240))], once)


def _eves(year: int) -> list[date]:
    return [_last_weekday(date(year, 12, day)) for day in (24, 31)]


def _eurex_days(year: int) -> list[date]:
    sunday = easter(year)
    ends = [date(year, 12, day) for day in (24, 25, 26, 31)]
    return [date(year, 1, 1), sunday - 2 * _DAY, sunday + _DAY, date(year, 5, 1), *ends]


def _eurex(year: int) -> Year:
    return _year(year, _eurex_days(year))


def _frankfurt(year: int) -> Year:
    closed = _eurex_days(year)
    if 2015 <= year <= 2021:
        closed.append(easter(year) + 50 * _DAY)
    if 2014 <= year <= 2021:
        closed.append(date(year, 10, 3))
    short = [([_last_weekday(date(year, 12, 30))], Short(210))] if year >= 2010 else []
    return _year(year, closed, short, (date(2007, 5, 28), date(2017, 10, 31)))


def _zurich(year: int) -> Year:
    sunday = easter(year)
    closed = [*_eurex_days(year), date(year, 1, 2), date(year, 8, 1), sunday + 39 * _DAY, sunday + 50 * _DAY]
    return _year(year, closed)


def _paris(year: int) -> Year:
    sunday = easter(year)
    closed = [
        *(date(year, 1, 1), sunday - 2 * _DAY, sunday + _DAY),
        *(date(year, 5, 1), date(year, 12, 25), date(year, 12, 26)),
    ]
    eves = [day for day in (date(year, 12, 24), date(year, 12, 31)) if day.weekday() < _SATURDAY]
    return _year(year, closed, [(eves, Short(205))])


def _toronto(year: int) -> Year:
    victoria = date(year, 5, 24) - timedelta(days=date(year, 5, 24).weekday())
    closed = [
        _monday(date(year, 1, 1)),
        *([nth(year, 2, _MONDAY, 3)] if year >= 2008 else []),
        _good_friday(year),
        victoria,
        _monday(date(year, 7, 1)),
        nth(year, 8, _MONDAY, 1),
        nth(year, 9, _MONDAY, 1),
        nth(year, 10, _MONDAY, 2),
        *_christmas_and_boxing(year),
    ]
    eve = [date(year, 12, 24)] if year >= 2010 else []
    return _year(year, closed, [(eve, Short(180))], (date(2001, 9, 11), date(2001, 9, 12)))


def _mexico(year: int) -> Year:
    fixed = [date(year, *day) for day in ((1, 1), (5, 1), (9, 16), (11, 2), (12, 12), (12, 25))]
    moving = [nth(year, 2, _MONDAY, 1), nth(year, 3, _MONDAY, 3), nth(year, 11, _MONDAY, 3)]
    return _year(year, [*fixed, *moving, _good_friday(year) - _DAY, _good_friday(year)])


def _forex(year: int) -> Year:
    return _year(year, [date(year, 1, 1), date(year, 12, 25)])


def _plain(year: int) -> Year:
    return _year(year, [])


def _year(
    year: int,
    closed: Iterable[date],
    short: Iterable[tuple[Iterable[date], Short]] = (),
    once: Iterable[date] = (),
) -> Year:
    whole = frozenset(closed) | {day for day in once if day.year == year}
    ends = {day: how for days, how in short for day in days if day not in whole}
    return Year(whole, ends)


#: By calendar; ``always`` knows no week-end either, ``weekdays`` nothing but week-ends.
_RULES: dict[str, Callable[[int], Year]] = {
    "always": _plain,
    "weekdays": _plain,
    "new_york": _new_york,
    "chicago_futures": _us_futures(225),
    "new_york_futures": _us_futures(195),
    "forex": _forex,
    "london": _london,
    "eurex": _eurex,
    "frankfurt": _frankfurt,
    "zurich": _zurich,
    "paris": _paris,
    "toronto": _toronto,
    "mexico": _mexico,
}
CALENDARS = tuple(_RULES)
_OF_EXCHANGE = {
    **dict.fromkeys(
        ("NYSE", "NASDAQ", "ARCA", "AMEX", "BATS", "IEX", "PINK", "CBOE", "FUNDSERV"), "new_york"
    ),
    **dict.fromkeys(("CME", "GLOBEX", "CBOT", "ECBOT", "CFE"), "chicago_futures"),
    **dict.fromkeys(("NYMEX", "COMEX"), "new_york_futures"),
    **dict.fromkeys(("PAXOS", "ZEROHASH", "FORECASTX"), "always"),
    **dict.fromkeys(("LSE", "LSEETF"), "london"),
    **dict.fromkeys(("EUREX", "DTB"), "eurex"),
    **dict.fromkeys(("IBIS", "IBIS2", "FWB", "FWB2", "SWB", "GETTEX"), "frankfurt"),
    **dict.fromkeys(("EBS", "VIRTX"), "zurich"),
    **dict.fromkeys(("SBF", "AEB", "ENEXT.BE", "BVL"), "paris"),
    **dict.fromkeys(("TSE", "VENTURE"), "toronto"),
    "IDEALPRO": "forex",
    "MEXI": "mexico",
}


def of_exchange(exchange: str) -> str | None:
    """The calendar of an exchange by IBKR's name; ``None`` if no rules are known for it."""
    return _OF_EXCHANGE.get(exchange)


@lru_cache(maxsize=512)
def _of_year(calendar: str, year: int) -> Year:
    return _RULES[calendar](year)


def trades_on(calendar: str, day: date) -> bool:
    """Whether there is any trade on the day."""
    if calendar == "always":
        return True
    return day.weekday() < _SATURDAY and day not in _of_year(calendar, day.year).closed


def short_day(calendar: str, day: date) -> Short | None:
    """How the day ends early; ``None`` if it does not."""
    return _of_year(calendar, day.year).short.get(day)
