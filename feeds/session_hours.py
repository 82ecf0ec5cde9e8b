"""The instrument's own session as backtrader's ``sessionstart``, ``sessionend`` and end of session."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, time, timedelta
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import backtrader as bt

from bt_ibkr.clock import NS_PER_S
from bt_ibkr.feeds.times import day_number, epoch_ns

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bt_ibkr.model.calendar import SessionCalendar, TradingDay

#: What backtrader's metaclass writes where a feed was given no hours.
_START: Final = time.min
_END: Final = time(23, 59, 59, 999_990)
#: Sessions that are looked at for the ordinary hours; a half day or two among them change nothing.
_LOOKED_AT: Final = 5


def hours_given(parameters: Any) -> bool:
    """Whether the user said when sessions begin or end, or gave a calendar."""
    return (
        parameters.calendar is not None or parameters.sessionstart != _START or parameters.sessionend != _END
    )


def ordinary_hours(calendar: SessionCalendar, now_ns: int, *, extended: bool) -> tuple[time, time]:
    """Beginning and end of an ordinary session on the exchange's clock, as backtrader wants them.

    A session that ends at midnight ends at backtrader's last moment of the day.
    """
    counted: Counter[tuple[time, time]] = Counter()
    for day in islice(_coming(calendar, now_ns, extended), _LOOKED_AT):
        span = day.span(extended=extended)
        assert span is not None
        opens, closes = (
            datetime.fromtimestamp(one // NS_PER_S, tz=calendar.zone).time()
            for one in (span.start_ns, span.end_ns)
        )
        counted[opens, closes if closes != time() else _END] += 1
    return counted.most_common(1)[0][0] if counted else (_START, _END)


def take_hours(parameters: Any, calendar: SessionCalendar, now_ns: int) -> None:
    """A feed's sessions begin and end as its instrument's do, by its parameters."""
    hours = ordinary_hours(calendar, now_ns, extended=not parameters.useRTH)
    parameters.sessionstart, parameters.sessionend = hours


def _coming(calendar: SessionCalendar, now_ns: int, extended: bool) -> Iterator[TradingDay]:
    while True:
        found = calendar.following(now_ns, extended=extended)
        span = None if found is None else found.span(extended=extended)
        if found is None or span is None:
            return
        yield found
        now_ns = span.end_ns


def end_of_session(
    calendar: SessionCalendar, moment: float, *, extended: bool
) -> tuple[datetime, float] | None:
    """The end of the session of a bar, as ``_getnexteos`` of a backtrader feed tells it; ``None`` if it is unknown.

    Args:
        calendar: The instrument's.
        moment: The bar's right edge, in backtrader's numbers.
        extended: Extended hours belong to it.
    """
    found = calendar.following(epoch_ns(moment) - 1, extended=extended)
    span = None if found is None else found.span(extended=extended)
    if span is None:
        return None
    number = day_number(span.end_ns)
    return bt.num2date(number), number


def end_of_last(data: Any, calendar: SessionCalendar | None, moment: float) -> tuple[datetime, float]:
    """The same of a feed: by the instrument's calendar, or by its own ``sessionend``, as backtrader reckons it.

    Args:
        data: The feed.
        calendar: The instrument's, where its sessions are the feed's.
        moment: The right edge of the last bar that went into the resampled one. (backtrader takes the last bar that
            was delivered: in place that is a resampled bar of the past, or none.)
    """
    if calendar is not None and data._calendar is None:  # noqa: SLF001 - backtrader's
        found = end_of_session(calendar, moment, extended=not data.p.useRTH)
        if found is not None:
            return found
    when = bt.num2date(moment)
    if data._calendar is not None:  # noqa: SLF001 - backtrader's
        _, ends = data._calendar.schedule(when, data._tz)  # noqa: SLF001
        return ends, bt.date2num(ends)
    ends = bt.num2date(data.date2num(datetime.combine(when, data.p.sessionend)))
    while when > ends:
        ends += timedelta(days=1)
    return ends, bt.date2num(ends)
