"""What a feed's parameters mean, checked: bar lengths, price sources, moments."""

from __future__ import annotations

import logging
from datetime import datetime
from typing import Any

import backtrader as bt

from bt_ibkr.clock import NS_PER_S
from bt_ibkr.connection.interface import Connection
from bt_ibkr.errors import BtIbkrError, UsageError
from bt_ibkr.feeds.bars import PriceSource
from bt_ibkr.feeds.edges import DayEdges, Edges, FixedEdges, Period, SessionEdges
from bt_ibkr.feeds.join import EmptyBars
from bt_ibkr.feeds.times import ns_of
from bt_ibkr.model.calendar import TradingDay
from bt_ibkr.model.contract import Contract, SecurityType
from bt_ibkr.services.calendars import ContractCalendar, calendar_of
from bt_ibkr.services.history import offered

_log = logging.getLogger(__name__)

_LENGTHS = {
    bt.TimeFrame.Seconds: NS_PER_S,
    bt.TimeFrame.Minutes: 60 * NS_PER_S,
    bt.TimeFrame.Days: 86_400 * NS_PER_S,
    bt.TimeFrame.Weeks: 7 * 86_400 * NS_PER_S,
    bt.TimeFrame.Months: 30 * 86_400 * NS_PER_S,
}
#: Bars that begin and end with the sessions of days.
BY_SESSIONS = {
    bt.TimeFrame.Days: Period.DAY,
    bt.TimeFrame.Weeks: Period.WEEK,
    bt.TimeFrame.Months: Period.MONTH,
}
#: A live feed may be started before the session that it is to begin with.
_LATEST_BEGIN_NS = 7 * 86_400 * NS_PER_S
_SOURCES = ("TRADES", "BID", "ASK", "MIDPOINT")
#: Of what trades rarely, or where only its parts do.
_DEFAULT_SOURCES = {SecurityType.FOREX: "BID", SecurityType.COMBO: "MIDPOINT"}


def price_source(what: object, contract: Contract) -> PriceSource:
    """The price that bars are made of.

    Raises:
        UsageError: ``what`` names none.
    """
    word = str(what or _DEFAULT_SOURCES.get(contract.security_type, "TRADES")).upper()
    if word not in _SOURCES:
        raise UsageError(f"what={what!r} is no price source.", remedy=f"Sources: {', '.join(_SOURCES)}.")
    # A combo does not trade by itself here: its legs do.
    return PriceSource.LAST if contract.legs and word == "TRADES" else PriceSource(word)


def check_flags(feed: Any, *names: str) -> None:
    """Refuse parameters that are neither true nor false: the text ``"no"`` would count as true.

    Args:
        feed: Whose parameters.
        names: Of those that are on or off; 0 and 1 are as good.

    Raises:
        UsageError: One is something else.
    """
    for name in names:
        given = getattr(feed.p, name)
        if isinstance(given, str) or given not in (0, 1):
            raise UsageError(
                f"{feed.p.dataname}: {name}={given!r} is neither True nor False.",
                remedy=f"Give {name}=True or {name}=False.",
            )


def check_timeframe(name: object, timeframe: object) -> None:
    """Refuse what is none of backtrader's timeframes.

    Args:
        name: The feed's dataname, for errors.
        timeframe: As given.

    Raises:
        UsageError: It is none of them.
    """
    if not isinstance(timeframe, int) or not 0 < timeframe < len(bt.TimeFrame.Names):
        raise UsageError(
            f"{name}: timeframe={timeframe!r} is none of backtrader's.",
            remedy="Give bt.TimeFrame.Ticks, Seconds, Minutes, Days, Weeks or Months.",
        )


def bar_length_ns(name: str, timeframe: int, compression: int, *, historical: bool) -> int:
    """The length of a bar, nominal for what goes by sessions; 0 for ticks.

    Args:
        name: The feed's dataname, for errors.
        timeframe, compression: As backtrader has them.
        historical: The bars come from history alone.

    Raises:
        UsageError: Such bars are not built, or IBKR has none of that length.
    """
    check_timeframe(name, timeframe)
    if not isinstance(compression, int) or compression < 1:
        raise UsageError(
            f"{name}: compression={compression!r} is no number of units.",
            remedy="Give a whole number from 1 on.",
        )
    if timeframe == bt.TimeFrame.Ticks:
        if historical:
            raise UsageError(
                "historical=True with Ticks: IBKR's Web API has no historical ticks.",
                remedy="Ask for Minutes or Days.",
            )
        return 0
    unit = _LENGTHS.get(timeframe)
    if unit is None:
        raise UsageError(
            f"{name}: bars of timeframe {bt.TimeFrame.getname(timeframe, 2)} are not built.",
            remedy="Ticks, Seconds, Minutes, Days, Weeks and Months are (resample for longer).",
        )
    if timeframe in BY_SESSIONS and compression != 1:
        raise UsageError(
            f"{name}: bars of {compression} {bt.TimeFrame.getname(timeframe, compression)} are not built.",
            remedy="Use compression=1, and resample for longer.",
        )
    length: int = unit * compression
    if historical and timeframe not in BY_SESSIONS and not offered(length):
        raise UsageError(
            f"{name}: IBKR has no historical bars of {length / NS_PER_S:g} s.",
            remedy="Lengths: 1, 2, 3, 5, 10, 15, 30 minutes; 1, 2, 3, 4, 8 hours; days, weeks, months.",
        )
    return length


def check_span(name: str, start_ns: int, end_ns: float, now_ns: int, *, historical: bool) -> None:
    """Refuse a span of which there are no bars.

    Args:
        name: The feed's dataname, for errors.
        start_ns, end_ns: ``fromdate``, 0 for none, and ``todate``.
        now_ns: The present.
        historical: The bars come from history alone.

    Raises:
        UsageError: It is empty, or has not begun.
    """
    if start_ns and start_ns >= end_ns:
        raise UsageError(
            f"{name}: fromdate is not before todate.", remedy="Give an earlier fromdate, or a later todate."
        )
    if start_ns >= now_ns + (0 if historical else _LATEST_BEGIN_NS):
        raise UsageError(
            f"{name}: fromdate lies in the future: there is no history of that.",
            remedy="Give an earlier fromdate, or leave it out for what comes from now on.",
        )
    if end_ns <= now_ns and not historical:
        raise UsageError(
            f"{name}: todate lies in the past: a live feed would end before its first bar.",
            remedy="Give a later todate, or historical=True.",
        )


def edges_of(
    contract: Contract,
    timeframe: int,
    bar_ns: int,
    *,
    by_clock: bool,
    extended: bool,
    connection: Connection | None,
) -> Edges:
    """Where the bars of a feed begin and end.

    Args:
        contract: Whose sessions.
        timeframe: backtrader's.
        bar_ns: Length of a bar; 0 for ticks.
        by_clock: Bars of seconds and minutes go on outside of sessions, too.
        extended: Extended hours are sessions, too.
        connection: To ask IBKR for the hours of the next days; ``None`` where they do not matter.
    """
    if not bar_ns or (timeframe not in BY_SESSIONS and by_clock):
        return FixedEdges(bar_ns or 1)
    calendar = calendar_known(contract, connection)
    if timeframe in BY_SESSIONS:
        return DayEdges(BY_SESSIONS[timeframe], calendar, extended=extended)
    return SessionEdges(bar_ns, calendar, extended=extended)


def calendar_known(contract: Contract, connection: Connection | None) -> ContractCalendar:
    """The contract's calendar; of the next days as IBKR tells them, if there is a ``connection`` to ask."""
    told: tuple[TradingDay, ...] = ()
    if connection is not None and not contract.legs:
        try:
            told = connection.schedule(contract)
        except BtIbkrError as problem:
            _log.warning("schedule-unknown contract=%s problem=%s", contract.describe(), problem)
    return calendar_of(contract, told)


def empty_bars(given: object) -> EmptyBars:
    """What ``empty_bars`` means.

    Raises:
        UsageError: It means nothing.
    """
    try:
        return EmptyBars(str(given or "skip").lower())
    except ValueError:
        raise UsageError(
            f"empty_bars={given!r} is not known.", remedy=f"One of: {', '.join(EmptyBars)}."
        ) from None


def first_bars(given: object, name: str) -> int:
    """What ``backfill_bars`` means: so many bars of history before the live ones.

    Raises:
        UsageError: It is no number of bars.
    """
    if not isinstance(given, int) or given < 0:
        raise UsageError(
            f"{name}: backfill_bars={given!r} is no number of bars.",
            remedy="Give a whole number; 0 for no history.",
        )
    return given


def corrections(given: object, name: str, bar_ns: int, *, by_sessions: bool) -> str | None:
    """What ``corrections`` means: ``None``, ``report`` or ``apply``.

    Raises:
        UsageError: It means nothing, or there are no official bars of that length.
    """
    if given is None or given is False:
        return None
    word = str(given).lower()
    if word not in ("report", "apply"):
        raise UsageError(f"corrections={given!r} is not known.", remedy='None, "report" or "apply".')
    if not by_sessions and not offered(bar_ns):
        raise UsageError(
            f"{name}: corrections={word!r} needs official bars, and IBKR has none of {bar_ns / NS_PER_S:g} s.",
            remedy="Leave it out, or take longer bars.",
        )
    return word


def moment_ns(moment: Any, zone: Any = None) -> int:
    """Epoch nanoseconds of a date or datetime that a user gave.

    Args:
        moment: What was given.
        zone: Of naive moments, with pytz's ``localize``; UTC by default.
    """
    if not isinstance(moment, datetime):
        moment = datetime(moment.year, moment.month, moment.day)  # noqa: DTZ001 - the zone follows
    if moment.tzinfo is None and zone is not None:
        moment = zone.localize(moment)
    return ns_of(moment)
