"""Feeds with further lines beside backtrader's own: bid, ask, VWAP, greeks and whatever else a quote has."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from bt_ibkr.errors import UsageError
from bt_ibkr.feeds.ibkr_data import IBKRData
from bt_ibkr.wire.tags import EXTRA_LINES


@lru_cache(maxsize=64)
def feed_class(extra: tuple[str, ...]) -> type[IBKRData]:
    """A kind of ``IBKRData`` with further lines, filled from the quote at the end of each live bar (NaN elsewhere).

    Args:
        extra: Names of ``wire.tags.EXTRA_LINES``.

    Raises:
        UsageError: There is no such line.
    """
    for name in extra:
        if name not in EXTRA_LINES:
            raise UsageError(
                f"extra={extra!r}: there is no line {name!r}.",
                remedy=f"Lines: {', '.join(sorted(EXTRA_LINES))}.",
            )
    if not extra:
        return IBKRData
    body: dict[str, Any] = {
        "lines": extra,
        "extra_lines": extra,
        "__doc__": IBKRData.__doc__,
        "__module__": __name__,
    }
    kind: Any = type(IBKRData)
    made: type[IBKRData] = kind("IBKRData", (IBKRData,), body)
    return made
