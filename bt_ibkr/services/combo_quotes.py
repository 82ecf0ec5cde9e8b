"""The quote of a combo, made of the quotes of its legs.

To buy a combo at once is to buy each leg at its ask, and to sell at its bid each that is sold; so its ask is the sum
of these, its bid the sum of the others, each times ratio (and multiplier, where they differ). The result may be 0
or below. It shows what all legs can give: where one has no price, the combo has none.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from decimal import Decimal

from bt_ibkr.model.contract import Contract
from bt_ibkr.model.market import DataQuality, Tick

#: Of two legs the worse one speaks for the combo; later is worse.
_WORSE = (
    DataQuality.REALTIME,
    DataQuality.EXEMPT,
    DataQuality.UNKNOWN,
    DataQuality.INCOMPLETE,
    DataQuality.FROZEN,
    DataQuality.DELAYED,
    DataQuality.FROZEN_DELAYED,
    DataQuality.NO_ACKNOWLEDGEMENT,
    DataQuality.NOT_SUBSCRIBED,
)
_RANK = {quality: rank for rank, quality in enumerate(_WORSE)}


def badness(quality: DataQuality) -> int:
    """The higher, the less a price of this quality tells."""
    return _RANK[quality]


def leg_points(combo: Contract, legs: Sequence[Contract]) -> tuple[Decimal, ...]:
    """Points of the combo's price for one point of each leg's."""
    whole = Decimal(repr(combo.multiplier))
    return tuple(
        leg.ratio * Decimal(repr(part.multiplier)) / whole for leg, part in zip(combo.legs, legs, strict=True)
    )


def total(points: Sequence[Decimal], prices: Sequence[float]) -> float:
    """The combo's price for its legs' prices; exact, as 0.1 + 0.2 is not in floats."""
    return float(
        sum((one * Decimal(repr(price)) for one, price in zip(points, prices, strict=True)), Decimal(0))
    )


class ComboQuote:
    """Merges the ticks of the legs of one combo.

    Args:
        combo: Its ``legs`` in order.
        legs: Their contracts, in the same order.
    """

    def __init__(self, combo: Contract, legs: Sequence[Contract]) -> None:
        self._conid = combo.conid
        self._points = leg_points(combo, legs)
        self._ratios = tuple(leg.ratio for leg in combo.legs)
        self._ticks: list[Tick | None] = [None] * len(legs)
        self._time_ns = 0

    def forget(self) -> None:
        """The stream broke: what stood of a leg must not be mixed with what is new of another."""
        self._ticks = [None] * len(self._ticks)

    def take(self, index: int, tick: Tick) -> Tick | None:
        """The combo's tick that a leg's makes; ``None`` until every leg has been heard of."""
        self._ticks[index] = tick
        # Legs are stamped by themselves: the combo is as new as the newest, and never goes back.
        self._time_ns = max(self._time_ns, tick.time_ns)
        ticks = [one for one in self._ticks if one is not None]
        if len(ticks) < len(self._ticks):
            return None
        bids = [(one.bid, one.bid_size) for one in ticks]
        asks = [(one.ask, one.ask_size) for one in ticks]
        low = [b if ratio > 0 else a for b, a, ratio in zip(bids, asks, self._ratios, strict=True)]
        high = [a if ratio > 0 else b for b, a, ratio in zip(bids, asks, self._ratios, strict=True)]
        bid, ask = self._sum([price for price, _ in low]), self._sum([price for price, _ in high])
        return Tick(
            time_ns=self._time_ns,
            conid=self._conid,
            bid=bid,
            ask=ask,
            bid_size=None if bid is None else self._least([size for _, size in low]),
            ask_size=None if ask is None else self._least([size for _, size in high]),
            last=self._sum([one.last for one in ticks]),
            last_size=None,
            traded=0.0,
            volume=None,
            quality=max((one.quality for one in ticks), key=badness),
            halted=any(one.halted for one in ticks),
            received_ns=tick.received_ns,
        )

    def _sum(self, prices: Sequence[float | None]) -> float | None:
        known = [price for price in prices if price is not None]
        return total(self._points, known) if len(known) == len(prices) else None

    def _least(self, sizes: Sequence[float | None]) -> float | None:
        """Whole combos that all legs can give, as far as their sizes are known."""
        told = zip(sizes, self._ratios, strict=True)
        whole = [size // abs(ratio) for size, ratio in told if size is not None]
        return min(whole, default=None)


class LegSink:
    """Takes one leg's ticks for a combo; never full. See ``services.marketdata.TickSink``."""

    def __init__(self, index: int, take: Callable[[int, Tick], None]) -> None:
        self._index = index
        self._take = take
        self.room = sys.maxsize

    def push(self, tick: Tick) -> None:
        self._take(self._index, tick)

    append = hold = push

    def __len__(self) -> int:
        return 0
