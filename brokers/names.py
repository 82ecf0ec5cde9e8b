"""Strategies' names in the journal: what a restart knows its own orders by."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from bt_ibkr.errors import UsageError

LONGEST = 32
_NAME = re.compile(r"[a-z0-9_-]{1,32}", re.ASCII)
_OTHER = re.compile(r"[^a-z0-9_-]+", re.ASCII)
#: Where a new word begins: before a capital that follows a small letter, and before the last of several capitals.
_WORDS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


def check_name(name: object) -> str:
    """A name that a user gave.

    Raises:
        UsageError: It cannot stand in a key.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise UsageError(
            f"IBKRBroker: name={name!r} is no name for a strategy's orders.",
            remedy=f"Give 1 to {LONGEST} of the characters a-z, 0-9, _ and -, such as name='sma_cross'.",
        )
    return name


def snake_case(text: str) -> str:
    """``SmaCross`` as ``sma_cross``; what cannot stand in a key is left out."""
    return _OTHER.sub("_", _WORDS.sub("_", text).lower()).strip("_")[:LONGEST] or "strategy"


class Names:
    """Gives each strategy of a run its name: the same in every run that has the same strategies.

    Args:
        chosen: What the user called it; ``None`` takes the strategy's class.
    """

    def __init__(self, chosen: str | None) -> None:
        self._chosen = None if chosen is None else check_name(chosen)
        self._named: dict[int, str] = {}
        self._strategies: dict[str, Any] = {}

    def assign(self, strategies: Sequence[Any]) -> None:
        """Name the strategies of the run, in cerebro's order; a second one of a name gets ``-2``."""
        for strategy in strategies:
            if id(strategy) in self._named:
                continue
            base = self._chosen or snake_case(type(strategy).__name__)
            name, number = base, 1
            while name in self._strategies:
                number += 1
                ending = f"-{number}"
                name = base[: LONGEST - len(ending)] + ending
            self._named[id(strategy)] = name
            self._strategies[name] = strategy

    def of(self, owner: Any) -> str:
        """The name of an order's owner; an order without one is the first strategy's."""
        name = self._named.get(id(owner))
        if name is None:
            name = next(iter(self._strategies), None) or self._chosen or "strategy"
        return name

    def strategy(self, name: str) -> Any:
        """The strategy of a name; ``None`` if this run has none."""
        return self._strategies.get(name)

    @property
    def strategies(self) -> dict[str, Any]:
        return dict(self._strategies)
