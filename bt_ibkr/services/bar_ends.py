"""When a historical bar ends. IBKR tells only when it starts: at the open of its (first) session."""

from __future__ import annotations

from calendar import monthrange
from datetime import date, datetime, timedelta
from typing import Protocol

from bt_ibkr.clock import NS_PER_S
from bt_ibkr.model.contract import Contract, SecurityType
from bt_ibkr.model.hours import exchange_zone, session_end_ns
from bt_ibkr.services.history_plan import DAY_NS, MONTH_NS, WEEK_NS

_SATURDAY = 5


class BarEnds(Protocol):
    """Tells the right edge of a bar of a day or longer, epoch nanoseconds."""

    def __call__(self, contract: Contract, start_ns: int, bar_ns: int, *, extended: bool) -> int: ...


def ordinary_end_ns(contract: Contract, start_ns: int, bar_ns: int, *, extended: bool) -> int:
    """By the ordinary hours of the contract's exchange: the close of the bar's last session.

    A day's session is the one that began at ``start_ns``; a week's last one is Friday's (Sunday's of crypto), a
    month's that of its last such day. On days that end early the ordinary close is told, never before the real one.
    """
    if bar_ns < DAY_NS:
        return start_ns + bar_ns
    zone = exchange_zone(contract)
    day = datetime.fromtimestamp(start_ns // NS_PER_S, tz=zone).date()
    if session_end_ns(contract, day, extended=extended) <= start_ns:
        # It began in the evening before its day, as with futures and currencies.
        day += timedelta(days=1)
    if bar_ns >= MONTH_NS:
        day = date(day.year, day.month, monthrange(day.year, day.month)[1])
    elif bar_ns >= WEEK_NS:
        day += timedelta(days=6 - day.weekday())
    if contract.security_type is not SecurityType.CRYPTO:
        while bar_ns > DAY_NS and day.weekday() >= _SATURDAY:
            day -= timedelta(days=1)
    return max(session_end_ns(contract, day, extended=extended), start_ns + 1)
