"""Numbers and times as the server writes them."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

from bt_ibkr.clock import NS_PER_S


def decimals(tick_size: float) -> int:
    """Digits behind the point that a price of this tick has, at least two unless the tick is whole.

    >>> decimals(0.01), decimals(0.25), decimals(0.00005), decimals(1.0)
    (2, 2, 5, 0)
    """
    exponent = Decimal(repr(tick_size)).normalize().as_tuple().exponent
    digits = -exponent if isinstance(exponent, int) and exponent < 0 else 0
    return max(digits, 2) if digits else 0


def price(value: float, digits: int) -> str:
    return f"{value:.{digits}f}"


def quantity(value: float | Decimal) -> str:
    """A size with thousands commas, ``1,300``; fractions keep their digits."""
    if value == int(value):
        return f"{int(value):,}"
    return f"{Decimal(repr(value)) if isinstance(value, float) else value:,f}".rstrip("0")


def plain(value: float | Decimal) -> str:
    """A quantity without commas or trailing zeros: ``2``, ``0.5``."""
    if value == int(value):
        return str(int(value))
    return f"{Decimal(repr(value)) if isinstance(value, float) else value:f}".rstrip("0")


def pointed(value: float | Decimal) -> str:
    """A quantity with at least one digit behind the point: ``1.0``."""
    text = plain(value)
    return text if "." in text else f"{text}.0"


def volume(value: float) -> str:
    """The day's volume as field 87 has it: ``12.2M``."""
    for limit, letter in ((1e9, "B"), (1e6, "M"), (1e3, "K")):
        if value >= limit:
            shown = value / limit
            digits = 2 if shown < 10 else 1 if shown < 100 else 0
            return f"{shown:.{digits}f}{letter}"
    return plain(value)


def short(value: float) -> str:
    """An amount cut to one digit behind the point of thousands or millions: ``2.4K``.

    >>> short(2499.99), short(500.0), short(1_250_000.0)
    ('2.4K', '500', '1.2M')
    """
    for limit, letter in ((1e6, "M"), (1e3, "K")):
        if value >= limit:
            return f"{int(value * 10 / limit) / 10:.1f}{letter}"
    return plain(round(value, 2))


def money(value: float) -> str:
    """Rounded to whole units with commas: ``994,831``."""
    return f"{value:,.0f}" if round(value) else "0"


def utc(time_ns: int) -> datetime:
    return datetime.fromtimestamp(time_ns // NS_PER_S, tz=UTC)


def stamp(time_ns: int) -> str:
    """``20260429-14:29:34``, UTC."""
    return utc(time_ns).strftime("%Y%m%d-%H:%M:%S")


def short_stamp(time_ns: int) -> str:
    """``260430123533``, UTC."""
    return utc(time_ns).strftime("%y%m%d%H%M%S")


def whole_second_ms(time_ns: int) -> int:
    """Milliseconds of the second ``time_ns`` lies in, as the ``_r`` fields have it."""
    return time_ns // NS_PER_S * 1000
