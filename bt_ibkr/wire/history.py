"""Historical bars: ``/iserver/marketdata/history``, and the words for bar lengths and periods.

Facts the parser rests on (recorded 2026): ``v`` times ``volumeFactor`` is the volume (the factor was 40 for
US stocks and is not constant); prices in ``data`` are real prices, ``priceFactor`` scales the summary texts
only; ``t`` is the bar's start; ``points`` counts one bar too few; an empty window answers one bar
without ``t``.
"""

from __future__ import annotations

from typing import Final

import msgspec

from bt_ibkr.clock import NS_PER_S
from bt_ibkr.errors import WireError
from bt_ibkr.model.market import Bar
from bt_ibkr.wire import fields, values

_MINUTE: Final = 60 * NS_PER_S
_HOUR: Final = 60 * _MINUTE
_DAY: Final = 24 * _HOUR
_WEEK: Final = 7 * _DAY
_MONTH: Final = 30 * _DAY
_YEAR: Final = 365 * _DAY

#: Most bars in one answer.
MAX_POINTS: Final = 1000

#: IBKR's word for a bar's length, by nanoseconds. A month has no fixed length and counts as 30 days here.
BAR_WORDS: Final[dict[int, str]] = {
    **{n * _MINUTE: f"{n}min" for n in (1, 2, 3, 5, 10, 15, 30)},
    **{n * _HOUR: f"{n}h" for n in (1, 2, 3, 4, 8)},
    _DAY: "1d",
    _WEEK: "1w",
    _MONTH: "1m",
}

#: Which bars go with which period: (period's length, shortest bar, longest bar). A period between two rows is
#: judged by the longer one, which never allows more.
_ALLOWED: Final[tuple[tuple[int, int, int], ...]] = (
    (_MINUTE, _MINUTE, _MINUTE),
    (_HOUR, _MINUTE, 8 * _HOUR),
    (_DAY, _MINUTE, 8 * _HOUR),
    (_WEEK, 10 * _MINUTE, _WEEK),
    (_MONTH, _HOUR, _MONTH),
    (3 * _MONTH, 2 * _HOUR, _MONTH),
    (6 * _MONTH, 4 * _HOUR, _MONTH),
    (_YEAR, 8 * _HOUR, _MONTH),
    (3 * _YEAR, _DAY, _MONTH),
    (15 * _YEAR, _WEEK, _MONTH),
)

#: IBKR's words for periods, shortest first, by nanoseconds (months of 30 days, years of 365).
PERIOD_WORDS: Final[dict[int, str]] = {
    **{n * _MINUTE: f"{n}min" for n in range(1, 31)},
    **{n * _HOUR: f"{n}h" for n in range(1, 9)},
    **{n * _DAY: f"{n}d" for n in range(1, 7)},
    **{n * _WEEK: f"{n}w" for n in range(1, 5)},
    **{n * _MONTH: f"{n}m" for n in range(1, 12)},
    **{n * _YEAR: f"{n}y" for n in range(1, 16)},
}


class HistoryPage(msgspec.Struct, frozen=True, kw_only=True):
    """One answer.

    Attributes:
        bars: Oldest first, each start once; the last one may still be forming. Volumes in units.
        start_ns: Start of the window as the server names it.
        volume_factor, price_factor: As sent; already applied where they apply.
        delay: ``mktDataDelay``, above 0 for delayed data.
        dropped: Rows without a time or a price, which are no bars.
    """

    bars: tuple[Bar, ...]
    symbol: str
    start_ns: int | None
    volume_factor: float
    price_factor: float | None
    delay: float
    outside_regular_hours: bool | None
    dropped: int

    @property
    def delayed(self) -> bool:
        return self.delay > 0


class _History(msgspec.Struct, rename="camel"):
    symbol: object = None
    start_time: object = None  # YYYYMMDD-HH:mm:ss UTC
    volume_factor: object = None
    price_factor: object = None
    mkt_data_delay: object = None
    outside_rth: object = None
    data: object = None


class _Bar(msgspec.Struct):
    t: object = None  # start, epoch ms UTC
    o: object = None
    h: object = None
    l: object = None  # noqa: E741 - the wire's name
    c: object = None
    v: object = None  # volume / volumeFactor


def history(body: object, bar_ns: int) -> HistoryPage:
    """The bars of an answer.

    Args:
        bar_ns: Length of the bars asked for.

    Raises:
        WireError: Not an object, an error, or a number that is none.
    """
    row = fields.payload(fields.mapping(body, "history"), _History, "history")
    factor = fields.amount(row.volume_factor, "volumeFactor")
    factor = 1.0 if factor is None else factor
    if factor <= 0:
        raise WireError(f"history: a volume factor of {factor:g}.")
    found: dict[int, Bar] = {}
    items = fields.array(row.data, "history: data")
    dropped = 0
    for item in items:
        bar = _bar(item, bar_ns, factor)
        if bar is None:
            dropped += 1
        else:
            found[bar.start_ns] = bar
    return HistoryPage(
        bars=tuple(found[start] for start in sorted(found)),
        symbol=fields.text(row.symbol) or "",
        start_ns=fields.lenient(values.ns_from_text, row.start_time, "startTime"),
        volume_factor=factor,
        price_factor=fields.lenient(fields.amount, row.price_factor, "priceFactor"),
        delay=fields.lenient(fields.amount, row.mkt_data_delay, "mktDataDelay") or 0.0,
        outside_regular_hours=fields.lenient(fields.flag, row.outside_rth, "outsideRth"),
        dropped=dropped,
    )


def _bar(item: object, bar_ns: int, factor: float) -> Bar | None:
    row = fields.payload(item, _Bar, "history: bar")
    start = values.ns_from_ms(row.t, "history: t")
    prices = [fields.amount(price, "history: price") for price in (row.o, row.h, row.l, row.c)]
    volume = fields.amount(row.v, "history: v")
    if start is None or any(price is None for price in prices):
        return None
    opened, high, low, closed = (price for price in prices if price is not None)
    # Quotes have no volume; the server leaves it out or writes a negative number.
    traded = max(volume or 0.0, 0.0) * factor
    return Bar(start, start + bar_ns, opened, high, low, closed, traded)


def allowed(period_ns: int, bar_ns: int) -> bool:
    """Whether IBKR makes bars of ``bar_ns`` for a period of ``period_ns`` (source: its table of periods)."""
    for length, shortest, longest in _ALLOWED:
        if period_ns <= length:
            return shortest <= bar_ns <= longest
    return False


def period_word(span_ns: int, bar_ns: int, day_ns: int = _DAY) -> tuple[str, int]:
    """The period to ask for: the shortest that covers ``span_ns``, else the longest that such bars allow.

    Args:
        span_ns: How much history is wanted.
        bar_ns: Length of a bar, one of ``BAR_WORDS``.
        day_ns: Trading time in a day, which decides how many bars a period has (at most ``MAX_POINTS``).

    Returns:
        IBKR's word and its length in nanoseconds.

    Raises:
        WireError: IBKR has no bars of this length.
    """
    if bar_ns not in BAR_WORDS:
        raise WireError(f"IBKR has no historical bars of {bar_ns / NS_PER_S:g} s.")
    best: int | None = None
    for period in PERIOD_WORDS:
        if period < bar_ns or not allowed(period, bar_ns) or _points(period, bar_ns, day_ns) > MAX_POINTS:
            continue
        best = period
        if period >= span_ns:
            break
    if best is None:  # pragma: no cover - every bar length has a period
        raise WireError(f"IBKR has no period for bars of {BAR_WORDS[bar_ns]}.")
    return PERIOD_WORDS[best], best


def _points(period_ns: int, bar_ns: int, day_ns: int) -> int:
    if bar_ns >= _DAY:
        return -(-period_ns // bar_ns)
    days, rest = divmod(period_ns, _DAY)
    return -(-(days * day_ns + min(rest, day_ns)) // bar_ns)
