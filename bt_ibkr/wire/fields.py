"""Readers of single fields and rows, on which all payload modules rest.

Two rules. What decides about money (ids, sides, statuses, quantities, prices) is read strictly: a value that
cannot be understood stops its record with ``WireError``. What only describes (names, words of open sets) is
read leniently: a value that cannot be understood is not there.

Payload types below ``bt_ibkr.wire`` are structs of ``object`` fields with IBKR's names (``rename="camel"``
where IBKR has ``camelCase``): they say which keys are used and in which unit, and convert nothing. Unknown
keys are skipped, missing keys and null are ``None``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal
from typing import Final, TypeVar

import msgspec

from bt_ibkr.clock import NS_PER_S
from bt_ibkr.errors import WireError
from bt_ibkr.model.order import Side
from bt_ibkr.wire import values
from bt_ibkr.wire.json import error_text, parsed

T = TypeVar("T")
S = TypeVar("S", bound=msgspec.Struct)

#: Who is told of a record that cannot be read while the others of its body are returned.
Refuser = Callable[[WireError], None]

#: Beyond these nothing on a market is priced or counted; they keep products finite.
LIMIT: Final = 1e18
_LIMIT_DECIMAL: Final = Decimal(10) ** 18
_LARGEST_ID: Final = 2**63 - 1
_INTEGER: Final = re.compile(r"[+-]?[0-9]{1,19}")
#: Epoch values below this are seconds (until the year 5138), others milliseconds (since 1973).
_SECONDS_BELOW: Final = 100_000_000_000

_SIDES: Final = {
    "B": Side.BUY,
    "BUY": Side.BUY,
    "BOT": Side.BUY,
    "S": Side.SELL,
    "SELL": Side.SELL,
    "SLD": Side.SELL,
}


def show(value: object) -> str:
    """``value`` for an error message: short, whatever it is."""
    if value is None or isinstance(value, (bool, float)):
        return repr(value)
    if isinstance(value, str):
        return repr(value[:60])
    if isinstance(value, int):
        return str(value) if value.bit_length() <= 64 else f"an integer of {value.bit_length()} bits"
    return f"a {type(value).__name__}"


def text(value: object) -> str | None:
    """Descriptive text; ``None`` for nothing, blanks, or something that is no text."""
    if isinstance(value, str):
        return value.strip() or None
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() <= 64:
        return str(value)
    return None


def required(value: T | None, what: str) -> T:
    """``value``, unless it is ``None``.

    Raises:
        WireError: It is missing.
    """
    if value is None:
        raise WireError(f"{what} is missing.")
    return value


def integer(value: object, what: str) -> int | None:
    """A whole number of at most 64 bits, also as text; ``None`` for null and "".

    Raises:
        WireError: Anything else.
    """
    if value is None or value == "":
        return None
    result: int | None = None
    if isinstance(value, int) and not isinstance(value, bool):
        result = value
    elif isinstance(value, float):
        result = int(value) if value.is_integer() else None
    elif isinstance(value, str) and _INTEGER.fullmatch(value.strip()):
        result = int(value)
    if result is None or abs(result) > _LARGEST_ID:
        raise WireError(f"{what}: {show(value)} is not a whole number of 64 bits.")
    return result


def conid(value: object, what: str = "conid") -> int | None:
    """A contract id above 0, as number, as text, or as ``265598@NASDAQ``; ``None`` for null, "" , 0 and -1.

    Raises:
        WireError: Anything else.
    """
    if isinstance(value, str):
        value = value.partition("@")[0].strip()
    number = integer(value, what)
    if number is None or number in (0, -1):
        return None
    if number < 0:
        raise WireError(f"{what}: {number} is not a contract id.")
    return number


def identifier(value: object, what: str) -> str | None:
    """An order, request or message id as text: it comes as a number here and as text there.

    Raises:
        WireError: It is neither.
    """
    if value is None:
        return None
    result = text(value)
    if result is None and value != "":
        if isinstance(value, float) and value.is_integer() and abs(value) < LIMIT:
            return str(int(value))
        raise WireError(f"{what}: {show(value)} is not an id.")
    return result


def order_id(value: object, what: str = "order id") -> str | None:
    """IBKR's order id as text, digits only; ``None`` for null, "", 0 and -1."""
    number = integer(value, what)
    return None if number is None or number in (0, -1) else str(number)


def flag(value: object, what: str) -> bool | None:
    """A truth value: ``true``, 0 or 1, ``"true"``; ``None`` for null and "".

    Raises:
        WireError: Anything else.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int) and value in (0, 1):
        return bool(value)
    if isinstance(value, str):
        word = value.strip().lower()
        if word in ("true", "1"):
            return True
        if word in ("false", "0"):
            return False
        if not word:
            return None
    raise WireError(f"{what}: {show(value)} is neither true nor false.")


def amount(value: object, what: str) -> float | None:
    """A price or an amount of money: finite and below 10^18.

    Raises:
        WireError: Not a number, or beyond that.
    """
    result = values.number(value, what)
    if result is not None and abs(result) >= LIMIT:
        raise WireError(f"{what}: {show(value)} is out of range.")
    return result


def quantity(value: object, what: str) -> Decimal | None:
    """An exact quantity below 10^18.

    Raises:
        WireError: Not a number, or beyond that.
    """
    result = values.decimal(value, what)
    if result is not None and abs(result) >= _LIMIT_DECIMAL:
        raise WireError(f"{what}: {show(value)} is out of range.")
    return result


def side(value: object, what: str = "side") -> Side | None:
    """The side of an order or execution; ``None`` for null and "".

    Raises:
        WireError: A word that is neither buying nor selling (``N`` nets an event contract, ``EXER`` exercises
            an option): a side is never guessed.
    """
    if value is None or value == "":
        return None
    found = _SIDES.get(value.strip().upper()) if isinstance(value, str) else None
    if found is None:
        raise WireError(f"{what}: {show(value)} is neither buying nor selling.")
    return found


def epoch_ns(value: object, what: str) -> int | None:
    """Epoch seconds or milliseconds as nanoseconds; which of them is told by the magnitude.

    Raises:
        WireError: Neither.
    """
    number = values.number(value, what)
    if number is not None and 0 <= number < _SECONDS_BELOW:
        return round(number * 1000) * (NS_PER_S // 1000)
    return values.ns_from_ms(value, what)


def lenient(reader: Callable[[object, str], T | None], value: object, what: str) -> T | None:
    """What ``reader`` makes of a descriptive ``value``; ``None`` where it cannot be understood."""
    try:
        return reader(value, what)
    except WireError:
        return None


def payload(row: object, kind: type[S], what: str) -> S:
    """``row`` as a payload struct.

    Raises:
        WireError: Not an object.
    """
    if not isinstance(row, dict):
        raise WireError(f"{what}: {show(row)} where an object was expected.")
    try:
        return msgspec.convert(row, kind)
    except msgspec.ValidationError as problem:
        raise WireError(f"{what}: {problem}.") from None


def mapping(body: object, what: str) -> dict[str, object]:
    """A body that must be an object and not an error.

    Raises:
        WireError: It is not; an error's text is in the message.
    """
    value = parsed(body)
    if not isinstance(value, dict):
        raise WireError(f"{what}: {show(value)} where an object was expected.")
    problem = error_text(value)
    if problem is not None:
        raise WireError(f"{what}: the server answered {problem[:300]!r}.")
    return value


def array(body: object, what: str) -> list[object]:
    """A body that must be an array; null is an empty one.

    Raises:
        WireError: It is not; an error's text is in the message.
    """
    value = parsed(body)
    if isinstance(value, list):
        return value
    if value is None:
        return []
    problem = error_text(value)
    if problem is not None:
        raise WireError(f"{what}: the server answered {problem[:300]!r}.")
    raise WireError(f"{what}: {show(value)} where an array was expected.")


def rows(value: object) -> list[object]:
    """The elements of an inner array that may be missing."""
    return value if isinstance(value, list) else []


def words(value: object) -> tuple[str, ...]:
    """The texts in an inner array that may be missing."""
    found = (text(item) for item in rows(value))
    return tuple(item for item in found if item is not None)


def each(items: list[object], read: Callable[[object], T | None], refused: Refuser | None) -> tuple[T, ...]:
    """``read`` of each item; ``None`` is left out.

    Args:
        refused: Told of an item that cannot be read, which is then left out.

    Raises:
        WireError: An item cannot be read and ``refused`` is not given.
    """
    found: list[T] = []
    for item in items:
        try:
            result = read(item)
        except WireError as problem:
            if refused is None:
                raise
            refused(problem)
            continue
        if result is not None:
            found.append(result)
    return tuple(found)
