"""The emulator's own values as JSON and back: numbers as exact as they are, types by their names.

Only types of the emulator and the domain are made again, so that a file cannot name anything else.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from decimal import Decimal
from enum import Enum
from typing import Any

import msgspec

_MARK = "#"
_HOME = ("bt_ibkr.emulator.", "bt_ibkr.model.")


class CodecError(Exception):
    """A value that cannot be written, or a text that no value was written as."""


def plain(value: object) -> Any:
    """What JSON can hold of a value.

    Raises:
        CodecError: Its type is not one that can be made again.
    """
    if isinstance(value, Enum):
        return {_MARK: "enum", "type": _name(type(value)), "value": value.value}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Decimal):
        return {_MARK: "decimal", "value": str(value)}
    if isinstance(value, msgspec.Struct):
        fields = {name: plain(getattr(value, name)) for name in value.__struct_fields__}
        return {_MARK: "struct", "type": _name(type(value)), "value": fields}
    if isinstance(value, list):
        return [plain(one) for one in value]
    for kind, name in ((tuple, "tuple"), (set, "set"), (frozenset, "frozenset")):
        if isinstance(value, kind):
            return {_MARK: name, "value": [plain(one) for one in _steady(value)]}
    if isinstance(value, dict):
        return {_MARK: "dict", "value": [[plain(key), plain(one)] for key, one in value.items()]}
    raise CodecError(f"{type(value).__module__}.{type(value).__qualname__} cannot be kept in a state file.")


def made(text: Any) -> Any:
    """The value that was written so.

    Raises:
        CodecError: None was.
    """
    if isinstance(text, list):
        return [made(one) for one in text]
    if not isinstance(text, dict):
        return text
    value: Any = text.get("value")
    try:
        match text.get(_MARK):
            case "decimal":
                return Decimal(value)
            case "enum":
                return _type(text["type"], Enum)(value)
            case "struct":
                struct = _type(text["type"], msgspec.Struct)
                known = struct.__struct_fields__
                return struct(**{name: made(one) for name, one in value.items() if name in known})
            case "tuple":
                return tuple(made(one) for one in value)
            case "set":
                return {made(one) for one in value}
            case "frozenset":
                return frozenset(made(one) for one in value)
            case "dict":
                return {made(key): made(one) for key, one in value}
    except (KeyError, TypeError, ValueError, ArithmeticError, AttributeError) as problem:
        raise CodecError(f"{text!r:.200} cannot be read: {problem}") from None
    raise CodecError(f"{text!r:.200} is of no known kind.")


def slots_of(thing: object, *, without: Iterable[str] = ()) -> dict[str, Any]:
    """The slots of an object as JSON can hold them."""
    names: tuple[str, ...] = type(thing).__slots__  # type: ignore[attr-defined]
    left_out = set(without)
    return {name: plain(getattr(thing, name)) for name in names if name not in left_out}


def set_slots(thing: object, values: dict[str, Any]) -> None:
    """Give an object the slots that were written; those it does not have any more are passed over."""
    names: tuple[str, ...] = type(thing).__slots__  # type: ignore[attr-defined]
    for name, value in values.items():
        if name in names:
            setattr(thing, name, made(value))


def _steady(value: Any) -> Iterable[Any]:
    return value if isinstance(value, tuple) else sorted(value, key=repr)


def _name(kind: type) -> str:
    return f"{kind.__module__}:{kind.__qualname__}"


def _type(name: str, base: type) -> Any:
    module, _, inner = name.partition(":")
    if not module.startswith(_HOME):
        raise CodecError(f"{name} is no type of the emulator.")
    try:
        found = getattr(importlib.import_module(module), inner)
    except (ImportError, AttributeError):
        raise CodecError(f"{name} does not exist in this version.") from None
    if not isinstance(found, type) or not issubclass(found, base):
        raise CodecError(f"{name} is no type of the emulator.")
    return found
