"""A fault that is under way, and what the groups of faults are given."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any, Protocol

import msgspec

from bt_ibkr.emulator.faults.specs import AnySpec

Release = Callable[[], None]


class Active:
    """A fault under way (mutable, owned by the registry).

    Attributes:
        number: Its id in the control API.
        hits: How often it has happened.
        left: How often it still will; ``None`` until it is cleared.
        skip: How many matches pass it by first.
        busy: Requests it holds at present; it ends after them.
    """

    __slots__ = ("_release", "busy", "hits", "left", "number", "skip", "spec")

    def __init__(self, number: int, spec: AnySpec) -> None:
        self.number = number
        self.spec = spec
        self.hits = 0
        self.left = spec.uses
        self.skip: int = getattr(spec, "skip", 0)
        self.busy = 0
        self._release: Release | None = None

    def lasts(self, release: Release) -> None:
        """It is not over at once; ``release`` ends it."""
        self._release = release

    @property
    def lasting(self) -> bool:
        return self._release is not None

    @property
    def armed(self) -> bool:
        return self.left != 0

    def end(self) -> None:
        release, self._release = self._release, None
        if release is not None:
            release()

    def row(self) -> dict[str, Any]:
        return {
            "id": self.number,
            **msgspec.to_builtins(self.spec),
            "hits": self.hits,
            "left": self.left,
        }


class Registry(Protocol):
    """What a group of faults needs of the whole."""

    random: Random

    def spend(self, fault: Active, **what: Any) -> None:
        """It happened: count it, write it down, and end it if that was the last time."""

    def finish(self, fault: Active) -> None:
        """It is over."""

    def note(self, kind: str, **what: Any) -> None:
        """Write down what happened."""


def nothing() -> None:
    """The release of a fault that leaves nothing behind."""
