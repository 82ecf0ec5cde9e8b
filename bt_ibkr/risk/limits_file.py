"""``RiskLimits`` from a TOML file."""

from __future__ import annotations

import tomllib
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from bt_ibkr.errors import UsageError
from bt_ibkr.risk.limits import KINDS, RiskLimits, known

#: Tables of limits for one account or strategy.
_TABLES: Final = ("accounts", "strategies")
_REMEDY: Final = "docs/risk.md shows such a file."


def read_limits(path: str | Path) -> RiskLimits:
    """The limits that the file sets; those it does not name have their defaults.

    At the top stand the limits of all; ``[accounts.ID]`` and ``[strategies.NAME]`` hold what is other for one.
    Numbers are read as the decimals that are written.

    Raises:
        UsageError: The file cannot be read, is not TOML, or has a key or value that is no limit's.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        reason = problem.strerror if isinstance(problem, OSError) else "it is not text"
        raise UsageError(f"The risk limits {str(path)!r} cannot be read: {reason}.", remedy=_REMEDY) from None
    return parse_limits(text, source=str(path))


def parse_limits(text: str, *, source: str) -> RiskLimits:
    """The limits of a TOML text; ``source`` names it in messages.

    Raises:
        UsageError: As ``read_limits``.
    """
    try:
        given = tomllib.loads(text, parse_float=Decimal)
    except tomllib.TOMLDecodeError as problem:
        raise UsageError(f"The risk limits {source!r} are not TOML: {problem}.", remedy=_REMEDY) from None
    return limits_of(given, source=source)


def limits_of(given: dict[str, Any], *, source: str) -> RiskLimits:
    """The limits of a table that was read, numbers as decimals.

    Raises:
        UsageError: As ``read_limits``.
    """
    known(source, given, {**KINDS, **dict.fromkeys(_TABLES)})
    return RiskLimits(**given, source=source)
