"""Numbers and times as IBKR writes them.

Prices are ``float``, quantities ``Decimal`` where they are added up and ``float`` in market data: this module
is the one place where text becomes either. Sources: wire documents of the Web API and recorded frames.

What market data may hold (fields 31, 84, 86 …): ``"193.18"``, ``"C193.18"`` (previous close), ``"H193.18"``
(halted), ``"1,300"``, ``"12.2M"``, ``"0.54%"``, ``"N/A"``, ``"-"``, ``""``, a number, null.
"""

from __future__ import annotations

import calendar
import math
import re
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation

from bt_ibkr.clock import NS_PER_MS, NS_PER_S
from bt_ibkr.errors import WireError
from bt_ibkr.model.market import DataQuality

#: Text that stands for "no value".
NOT_AVAILABLE = frozenset({"", "-", "--", "N/A", "n/a", "NA", "None", "null", "NaN", "nan"})

_SUFFIXES = {"K": 1e3, "M": 1e6, "B": 1e9, "T": 1e12, "k": 1e3, "m": 1e6}
# Plain ASCII digits only: float() alone would take "1_0", "inf", "nan" and digits of other scripts.
_NUMBER = re.compile(r"[+-]?(?:[0-9][0-9,]*(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?")
#: 2200-01-01 in epoch milliseconds: later times are no times.
_LAST_MS = 7_258_118_400_000

Wire = str | int | float | bool | None


class PriceText:
    """Kinds of price text."""

    PREVIOUS_CLOSE = "C"
    HALTED = "H"


def number(value: object, what: str = "number") -> float | None:
    """A finite ``float``, or ``None`` for IBKR's ways of saying "not available".

    Args:
        value: What the JSON holds.
        what: Name of the field, for the error.

    Raises:
        WireError: The value is neither a number nor one of the known forms.
    """
    if value is None:
        return None
    if isinstance(value, bool):
        raise WireError(f"{what}: {value!r} is not a number.")
    if isinstance(value, (int, float)):
        try:
            result = float(value)
        except OverflowError:
            raise WireError(f"{what}: an integer of {value.bit_length()} bits.") from None  # type: ignore[union-attr]
        return result if math.isfinite(result) else None
    if isinstance(value, str):
        return _number_from_text(value, what)
    raise WireError(f"{what}: {type(value).__name__} is not a number.")


def _number_from_text(text: str, what: str) -> float | None:
    text = text.strip()
    if text in NOT_AVAILABLE:
        return None
    scale = 1.0
    body = text
    if body[-1] == "%":
        body = body[:-1].rstrip()
    if body and body[-1] in _SUFFIXES:
        scale = _SUFFIXES[body[-1]]
        body = body[:-1].rstrip()
    if not body or not _NUMBER.fullmatch(body):
        raise WireError(f"{what}: {text[:40]!r} is not a number.")
    result = float(body.replace(",", "")) * scale
    if not math.isfinite(result):
        raise WireError(f"{what}: {text[:40]!r} is out of range.")
    return result


def price(value: object, what: str = "price") -> tuple[float | None, str]:
    """A market-data price and its prefix: ``""``, ``"C"`` (previous close) or ``"H"`` (halted).

    Raises:
        WireError: As ``number``.
    """
    if isinstance(value, str):
        text = value.strip()
        if text[:1] in ("C", "H"):
            return _number_from_text(text[1:], what), text[0]
        return _number_from_text(text, what), ""
    return number(value, what), ""


def decimal(value: object, what: str = "quantity") -> Decimal | None:
    """An exact quantity. A JSON number is taken by its shortest decimal form (0.1 is 0.1).

    Raises:
        WireError: As ``number``.
    """
    if value is None:
        return None
    if isinstance(value, bool):
        raise WireError(f"{what}: {value!r} is not a number.")
    if isinstance(value, int):
        return Decimal(value)
    if isinstance(value, float):
        return Decimal(repr(value)).normalize() + 0 if math.isfinite(value) else None
    if isinstance(value, str):
        text = value.strip()
        if text in NOT_AVAILABLE:
            return None
        if _NUMBER.fullmatch(text):
            try:
                return Decimal(text.replace(",", "")).normalize() + 0
            except InvalidOperation:  # pragma: no cover - the pattern admits only numbers
                pass
        approximate = _number_from_text(text, what)
        return None if approximate is None else Decimal(repr(approximate)).normalize() + 0
    raise WireError(f"{what}: {type(value).__name__} is not a number.")


def quality(code: str | None) -> DataQuality:
    """The quality a 6509 code tells: its first letter (``RpB`` real time, ``DPB`` delayed …)."""
    if not code:
        return DataQuality.UNKNOWN
    try:
        return DataQuality(code[0])
    except ValueError:
        return DataQuality.UNKNOWN


def ns_from_ms(value: object, what: str = "time") -> int | None:
    """Epoch milliseconds (number or digits) as nanoseconds.

    Raises:
        WireError: Not a number, or not between the years 1970 and 2200.
    """
    milliseconds = number(value, what)
    if milliseconds is None:
        return None
    if not 0 <= milliseconds < _LAST_MS:
        raise WireError(f"{what}: {value!r} is not a time in milliseconds.")
    return int(milliseconds) * NS_PER_MS


def ns_from_text(text: object, what: str = "time") -> int | None:
    """UTC text as nanoseconds: ``20260429-14:29:34``, ``260430123533`` (YYMMDDhhmmss) or ``20260429``.

    Raises:
        WireError: No such form, or not between the years 1970 and 2200.
    """
    if text is None or text == "":
        return None
    if not isinstance(text, str):
        raise WireError(f"{what}: {type(text).__name__} is not a time.")
    if text.isascii():
        for length, pattern in ((17, "%Y%m%d-%H:%M:%S"), (12, "%y%m%d%H%M%S"), (8, "%Y%m%d")):
            if len(text) == length:
                try:
                    parsed = datetime.strptime(text, pattern).replace(tzinfo=UTC)
                except ValueError:
                    break
                seconds = calendar.timegm(parsed.utctimetuple())
                if not 0 <= seconds * 1000 < _LAST_MS:
                    break
                return seconds * NS_PER_S
    raise WireError(f"{what}: {text[:40]!r} is not a time of a known form.")


def history_time_text(time_ns: int) -> str:
    """``YYYYMMDD-HH:mm:ss`` UTC, as ``startTime`` of a history request and ``trade_time`` are written."""
    return datetime.fromtimestamp(time_ns // NS_PER_S, tz=UTC).strftime("%Y%m%d-%H:%M:%S")
