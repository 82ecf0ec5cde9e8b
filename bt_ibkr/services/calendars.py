"""The calendar of a contract: holidays, half days and hours by exchange; of the next days what IBKR tells of them.

Days and hours come from the library exchange_calendars, which is loaded when the first calendar is made (about a
second). What an exchange trades beyond its regular hours the library does not know: for US stocks that is 04:00 to
20:00 in New York (17:00 on half days), for futures on CME's exchanges the hours are those of the electronic session,
the pause from 16:00 in Chicago left out. Where neither IBKR nor the library knows the exchange, every weekday is a
trading day that ends at the hour of ``model.hours``.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from typing import Final, Protocol
from zoneinfo import ZoneInfo

from bt_ibkr.clock import NS_PER_S
from bt_ibkr.model.calendar import TradingDay, Window
from bt_ibkr.model.contract import Contract, SecurityType
from bt_ibkr.model.hours import exchange_zone, session_end_ns

_log = logging.getLogger(__name__)

_DAY = timedelta(days=1)
_NEW_YORK: Final = "America/New_York"
#: Longest row of days without trading that is looked beyond: Chinese New Year has eleven with its week-ends.
_LONGEST_PAUSE: Final = 20
#: The library's calendars by IBKR's exchanges.
_CODES: Final[Mapping[str, str]] = {
    **dict.fromkeys(
        ("NYSE", "NASDAQ", "ISLAND", "ARCA", "AMEX", "BATS", "IEX", "BYX", "MEMX", "PINK"), "XNYS"
    ),
    **dict.fromkeys(("EDGEA", "DRCTEDGE"), "XNYS"),
    **dict.fromkeys(("CBOE", "PSE", "PHLX", "ISE", "BOX", "NASDAQOM", "MIAX", "PEARL", "EMERALD"), "XNYS"),
    **dict.fromkeys(("CME", "GLOBEX", "CBOT", "ECBOT", "NYMEX", "COMEX"), "CMES"),
    "CFE": "XCBF",
    **dict.fromkeys(("LSE", "LSEETF"), "XLON"),
    **dict.fromkeys(("IBIS", "IBIS2", "FWB", "FWB2", "XETRA"), "XETR"),
    **dict.fromkeys(("EUREX", "DTB"), "XEUR"),
    "SBF": "XPAR",
    "AEB": "XAMS",
    "BVME": "XMIL",
    "BM": "XMAD",
    **dict.fromkeys(("EBS", "VIRTX"), "XSWX"),
    "SFB": "XSTO",
    "CPH": "XCSE",
    "HEX": "XHEL",
    "OSE": "XOSL",
    "VSE": "XWBO",
    "BVL": "XLIS",
    "ENEXT.BE": "XBRU",
    "WSE": "XWAR",
    "TSEJ": "XTKS",
    "SEHK": "XHKG",
    **dict.fromkeys(("SEHKNTL", "SEHKSZSE"), "XSHG"),
    "SGX": "XSES",
    "KSE": "XKRX",
    "NSE": "XBOM",
    "ASX": "XASX",
    **dict.fromkeys(("TSE", "VENTURE"), "XTSE"),
    "MEXI": "XMEX",
}
#: Of securities whose exchange is not known by name.
_BY_CURRENCY: Final[Mapping[str, str]] = {
    "USD": "XNYS",
    "CAD": "XTSE",
    "GBP": "XLON",
    "CHF": "XSWX",
    "SEK": "XSTO",
    "JPY": "XTKS",
    "HKD": "XHKG",
    "SGD": "XSES",
    "KRW": "XKRX",
    "INR": "XBOM",
    "AUD": "XASX",
    "MXN": "XMEX",
}
_BY_STOCKS: Final = frozenset(
    {
        SecurityType.STOCK,
        SecurityType.OPTION,
        SecurityType.INDEX,
        SecurityType.CFD,
        SecurityType.FUND,
        SecurityType.WARRANT,
    }
)
_EARLY_AND_LATE: Final = frozenset({SecurityType.STOCK, SecurityType.CFD})
_FUTURES_PAUSE: Final = time(16)


class _Days(Protocol):
    """Where a calendar's days come from."""

    def __call__(self, day: date) -> TradingDay | None: ...


class ContractCalendar:
    """A ``SessionCalendar``.

    Args:
        zone: Of the exchange.
        days: The hours of any day.
        told: What IBKR tells: between the first and the last of these days it alone counts.
    """

    def __init__(self, zone: ZoneInfo, days: _Days, told: Iterable[TradingDay] = ()) -> None:
        self._zone = zone
        self._days = days
        self._told = {one.day: one for one in told}
        self._first = min(self._told, default=date.max)
        self._last = max(self._told, default=date.min)

    @property
    def zone(self) -> ZoneInfo:
        """See ``SessionCalendar``."""
        return self._zone

    def session(self, day: date) -> TradingDay | None:
        """See ``SessionCalendar``."""
        if self._first <= day <= self._last:
            return self._told.get(day)
        return self._days(day)

    def day_of(self, time_ns: int, *, extended: bool) -> TradingDay | None:
        """See ``SessionCalendar``."""
        found = self.following(time_ns, extended=extended)
        if found is None or not any(one.holds(time_ns) for one in found.windows(extended=extended)):
            return None
        return found

    def following(self, time_ns: int, *, extended: bool) -> TradingDay | None:
        """See ``SessionCalendar``."""
        # A session may end after midnight, and begins at most a day before its own.
        day = datetime.fromtimestamp(time_ns // NS_PER_S, tz=self._zone).date() - _DAY
        for _ in range(_LONGEST_PAUSE):
            found = self.session(day)
            span = None if found is None else found.span(extended=extended)
            if span is not None and span.end_ns > time_ns:
                return found
            day += _DAY
        return None


def calendar_of(contract: Contract, told: Iterable[TradingDay] = ()) -> ContractCalendar:
    """The contract's calendar.

    Args:
        contract: Whose.
        told: IBKR's own schedule of the next days, as far as it is known.
    """
    zone = exchange_zone(contract)
    code = _code(contract)
    if contract.security_type is SecurityType.FOREX:
        return ContractCalendar(ZoneInfo(_NEW_YORK), _currency_day, told)
    if code is None:
        return ContractCalendar(zone, _Weekdays(contract, zone), told)
    zone = ZoneInfo(_table(code).zone)
    wide = contract.security_type in _EARLY_AND_LATE and code == "XNYS"
    return ContractCalendar(zone, _Listed(code, zone, early_and_late=wide), told)


def day_end_ns(contract: Contract, day: date, *, extended: bool = False) -> int:
    """When the session of ``day`` ends, epoch nanoseconds: half days as the calendar knows them; on a day without
    a session, and where no calendar is known, at the ordinary hour of ``model.hours``.

    Args:
        contract: Whose session.
        day: In the exchange's zone.
        extended: The end of extended hours, where there are any.
    """
    calendar = calendar_of(contract) if _code(contract) is not None else None
    # A zone that IBKR tells and the calendar does not have: it is another exchange's.
    if calendar is not None and calendar.zone == exchange_zone(contract):
        found = calendar.session(day)
        span = None if found is None else found.span(extended=extended)
        if span is not None:
            return span.end_ns
    return session_end_ns(contract, day, extended=extended)


def _code(contract: Contract) -> str | None:
    kind = contract.security_type
    if kind in (SecurityType.FOREX, SecurityType.CRYPTO, SecurityType.BOND):
        return None
    for exchange in (contract.exchange, contract.listing_exchange or ""):
        name = exchange.partition(".")[0] if exchange not in _CODES else exchange
        if name in _CODES:
            return _CODES[name]
    return _BY_CURRENCY.get(contract.currency) if kind in _BY_STOCKS else None


class _Table:
    """The library's days of one calendar, taken out of its frame once."""

    def __init__(self, code: str) -> None:
        # The library warns where pandas has moved on; nothing a user of ours could do about it.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import exchange_calendars

            library = exchange_calendars.get_calendar(code)
            schedule = library.schedule
            columns = [
                schedule[name]
                .dt.tz_convert(None)
                .to_numpy()
                .astype("datetime64[ns]")
                .astype("int64")
                .tolist()
                for name in ("open", "break_start", "break_end", "close")
            ]
        self.zone = str(library.tz)
        self.rows = {
            session.date(): row
            for session, row in zip(schedule.index, zip(*columns, strict=True), strict=True)
        }
        self.first, self.last = min(self.rows), max(self.rows)
        _log.debug("calendar-loaded code=%s first=%s last=%s", code, self.first, self.last)


@lru_cache(maxsize=32)
def _table(code: str) -> _Table:
    return _Table(code)


class _Listed:
    """Days of the library; beyond its end every weekday is taken for an ordinary one."""

    def __init__(self, code: str, zone: ZoneInfo, *, early_and_late: bool) -> None:
        self._code = code
        self._zone = zone
        self._early_and_late = early_and_late
        self._made: dict[date, TradingDay | None] = {}

    def __call__(self, day: date) -> TradingDay | None:
        if day not in self._made:
            self._made[day] = self._make(day)
        return self._made[day]

    def _make(self, day: date) -> TradingDay | None:
        table = _table(self._code)
        row = table.rows.get(day)
        if row is None and table.first <= day <= table.last:
            return None
        if row is None:
            return self._ordinary(day, table)
        opens, break_start, break_end, closes = row
        windows: tuple[Window, ...] = (Window(opens, closes),)
        if break_start > 0:
            windows = (Window(opens, break_start), Window(break_end, closes))
        if self._code == "CMES":
            pause = _at(day, _FUTURES_PAUSE, self._zone)
            windows = (Window(opens, min(closes, pause)),)
        return TradingDay(day=day, regular=windows, extended=self._extended(day, windows))

    def _extended(self, day: date, regular: tuple[Window, ...]) -> tuple[Window, ...]:
        if not self._early_and_late:
            return regular
        half = regular[-1].end_ns < _at(day, time(16), self._zone)
        return (Window(_at(day, time(4), self._zone), _at(day, time(17 if half else 20), self._zone)),)

    def _ordinary(self, day: date, table: _Table) -> TradingDay | None:
        """A day the library does not reach: as the nearest day of the same weekday that it knows, by the clock."""
        nearest = table.first if day < table.first else table.last
        step = _DAY if day < table.first else -_DAY
        for _ in range(40):
            row = table.rows.get(nearest)
            if row is not None and nearest.weekday() == day.weekday():
                shift = _at(day, time(0), self._zone) - _at(nearest, time(0), self._zone)
                windows = (Window(row[0] + shift, row[3] + shift),)
                return TradingDay(day=day, regular=windows, extended=self._extended(day, windows))
            nearest += step
        return None


def _currency_day(day: date) -> TradingDay | None:
    """Currencies trade around the clock from Sunday to Friday; their day ends at 17:00 in New York."""
    if day.weekday() >= 5 or (day.month, day.day) in ((1, 1), (12, 25)):
        return None
    zone = ZoneInfo(_NEW_YORK)
    windows = (Window(_at(day - _DAY, time(17), zone), _at(day, time(17), zone)),)
    return TradingDay(day=day, regular=windows, extended=windows)


class _Weekdays:
    """Every weekday, from midnight to the end of its session; crypto also at week-ends."""

    def __init__(self, contract: Contract, zone: ZoneInfo) -> None:
        self._contract = contract
        self._zone = zone

    def __call__(self, day: date) -> TradingDay | None:
        crypto = self._contract.security_type is SecurityType.CRYPTO
        if day.weekday() >= 5 and not crypto:
            return None
        start = _at(day, time(0), self._zone)
        midnight = _at(day + _DAY, time(0), self._zone)
        end = midnight if crypto else session_end_ns(self._contract, day)
        # The table says 23:59:59 where it knows none.
        regular = (Window(start, midnight if midnight - end <= NS_PER_S else end),)
        return TradingDay(day=day, regular=regular, extended=(Window(start, midnight),))


def _at(day: date, clock: time, zone: ZoneInfo) -> int:
    return int(datetime.combine(day, clock, tzinfo=zone).astimezone(UTC).timestamp()) * NS_PER_S
