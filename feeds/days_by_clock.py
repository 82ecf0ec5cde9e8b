"""Resampled days, weeks and months of a live feed: closed when they are over, though nothing trades after them.

When backtrader looks at a resampled bar by the clock it notes that its day has ended, delivers bars of minutes and
less, and forgets about the day: the next session would go into the same bar (``resamplerfilter.py`` of 1.9.78).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from backtrader.resamplerfilter import DTFaker, Resampler


def close_days_by_clock(data: Any) -> None:
    """Have the resamplers of a feed, or of what was resampled from it, deliver what is over."""
    for made, _, _ in data._filters:  # noqa: SLF001 - cerebro's
        if isinstance(made, Resampler) and not made.subdays and not made.componly:
            made._checkbarover = partial(_over, made, made._checkbarover)  # noqa: SLF001 - a method it asks


def _over(
    made: Any, by_bars: Callable[..., bool], data: Any, fromcheck: bool = False, forcedata: Any = None
) -> bool:
    if not fromcheck:
        return by_bars(data)
    if made.p.compression != 1:
        # Several days in one bar are counted by their bars.
        return False
    over = bool(made._barover(DTFaker(data, forcedata)))  # noqa: SLF001 - as it does itself
    made.compcount += over
    return over
