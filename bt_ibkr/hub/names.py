"""Names of strategies at a hub, and whose order a key is of.

One process has one name. Several strategies in it number themselves ``NAME-2``, ``NAME-3`` …; orders by which the hub
winds a strategy up are of ``NAME-hub``. All of them trade for the one book of ``NAME``.
"""

from __future__ import annotations

import re
from typing import Final

from bt_ibkr.errors import UsageError
from bt_ibkr.model.intent import key_name, parse_key

#: Whose orders close all positions of an account: the kill switch's.
FLATTEN: Final = "flatten"
#: The book of what no strategy has done.
UNALLOCATED: Final = "unallocated"
#: In keys of orders that the hub places for a strategy.
HUB_SUFFIX: Final = "-hub"
_RESERVED: Final = frozenset({FLATTEN, UNALLOCATED})
_SUFFIX: Final = re.compile(r"-(?:[0-9]+|hub)$", re.ASCII)
#: Room for a suffix.
_LONGEST: Final = 32


def check_name(name: str) -> str:
    """A name that a process may have.

    Raises:
        UsageError: It may not.
    """
    if not name or key_name(name) != name or len(name) > _LONGEST or _SUFFIX.search(name):
        raise UsageError(
            f"{name!r} is no name for a strategy at a hub.",
            remedy=f"Use letters, digits, _ and -, at most {_LONGEST}, and no -2 or -hub at the end.",
        )
    if name in _RESERVED:
        raise UsageError(
            f"{name!r} is the hub's own book, and no name for a strategy.", remedy="Give it another name."
        )
    return name


def book_name(name: str) -> str:
    """The book that a strategy's name trades for."""
    return _SUFFIX.sub("", name)


def owner_of(key: str | None) -> str | None:
    """The book of an order's key; ``None`` for a key of somebody else's making."""
    parts = None if key is None else parse_key(key)
    return None if parts is None else book_name(parts.name)
