"""Arguments of control operations; unknown keys and wrong types are refused."""

from __future__ import annotations

from typing import Any, Literal, TypeVar

import msgspec

from bt_ibkr.emulator.settings import Speed

T = TypeVar("T")


class ControlError(Exception):
    """A control operation that cannot be done as asked; the text tells why."""


class _Arguments(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class Nothing(_Arguments, frozen=True, kw_only=True):
    """An operation without arguments."""


class Step(_Arguments, frozen=True, kw_only=True):
    until_ns: int | None = None
    max_events: int | None = None
    received: dict[int, int] = {}


class Clock(_Arguments, frozen=True, kw_only=True):
    paused: bool | None = None
    speed: Speed | None = None


class Reset(_Arguments, frozen=True, kw_only=True):
    seed: int | None = None


class Tick(_Arguments, frozen=True, kw_only=True):
    """A quote from outside the tape; ``time_ns`` is now unless it is later."""

    conid: int
    time_ns: int | None = None
    bid: float | None = None
    bid_size: float | None = None
    ask: float | None = None
    ask_size: float | None = None
    last: float | None = None
    last_size: float | None = None


class Halt(_Arguments, frozen=True, kw_only=True):
    conid: int
    on: bool = True


class Book(_Arguments, frozen=True, kw_only=True):
    conid: int


class Executions(_Arguments, frozen=True, kw_only=True):
    account: str | None = None


class Wait(_Arguments, frozen=True, kw_only=True):
    event: Literal["done"] = msgspec.field(default="done", name="for")
    timeout_s: float = 600.0


class Session(_Arguments, frozen=True, kw_only=True):
    state: Literal["ready", "no_bridge", "logged_out"]


class Notice(_Arguments, frozen=True, kw_only=True):
    text: str


class Bulletin(_Arguments, frozen=True, kw_only=True):
    text: str


class Pacing(_Arguments, frozen=True, kw_only=True):
    """``punish`` begins a penalty as if a request too many had come."""

    strict: bool | None = None
    penalty_s: float | None = None
    punish: bool = False


class Requests(_Arguments, frozen=True, kw_only=True):
    """A part of the record of requests: from number ``since`` on, at most ``limit`` of them."""

    since: int = 0
    limit: int = 1000


class Faults(_Arguments, frozen=True, kw_only=True):
    """The log is told from entry ``since`` on."""

    since: int = 0


class ClearFaults(_Arguments, frozen=True, kw_only=True):
    """One fault, or all."""

    id: int | None = None


def convert(value: dict[str, Any], into: type[T]) -> T:
    """``value`` as arguments; text stands for numbers too, since keys and query strings are text.

    Raises:
        ControlError: It does not fit.
    """
    try:
        return msgspec.convert(value, into, strict=False)
    except msgspec.ValidationError as problem:
        raise ControlError(str(problem)) from None
