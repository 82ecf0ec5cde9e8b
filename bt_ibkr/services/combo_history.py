"""Bars of a combo, made of the bars of its legs: IBKR keeps none of a combo.

Bars are joined by the time they begin. Where a leg has none, nothing happened to it: its last close stands for it. A
combo has no bar before each of its legs has had one. Open and close are those of the legs, by ratio. High and low are
the higher and the lower of the two: that a leg was at its high when the other was at its low is not known, and no
price is made up. The volume is 0: legs trade by themselves, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from bt_ibkr.model.market import Bar
from bt_ibkr.services.combo_quotes import total


def join_bars(points: Sequence[Decimal], legs: Sequence[Sequence[Bar]]) -> list[Bar]:
    """The combo's bars, oldest first.

    Args:
        points: Of each leg, see ``leg_points``.
        legs: The bars of each leg, in the same order.
    """
    by_start = [{bar.start_ns: bar for bar in bars} for bars in legs]
    closes: list[float | None] = [None] * len(legs)
    made = []
    for start_ns in sorted({start_ns for bars in by_start for start_ns in bars}):
        here = [bars.get(start_ns) for bars in by_start]
        opens = [old if bar is None else bar.open for bar, old in zip(here, closes, strict=True)]
        closes = [old if bar is None else bar.close for bar, old in zip(here, closes, strict=True)]
        known_opens = [price for price in opens if price is not None]
        known_closes = [price for price in closes if price is not None]
        if len(known_opens) < len(legs):
            continue
        end_ns = max(bar.end_ns for bar in here if bar is not None)
        first, last = total(points, known_opens), total(points, known_closes)
        made.append(Bar(start_ns, end_ns, first, max(first, last), min(first, last), last, 0.0))
    return made
