"""Trade the spread of two instruments back to its mean.

Needs two feeds. The spread is the logarithm of the price ratio; its z-score over ``period`` bars decides:
above ``entry`` the first is sold and the second bought for the same value, below ``-entry`` the other way
round; inside ``exit`` both are closed.

Two instruments make two orders, and live they do not fill together: nothing new is decided before every
order of the last decision is done.
"""

from __future__ import annotations

import math
from typing import Any

import backtrader as bt

from bt_ibkr.feeds import is_current


class Pairs(bt.Strategy):  # type: ignore[misc]
    """Parameters: ``period`` (bars), ``entry`` and ``exit`` (standard deviations), ``value`` (currency a leg)."""

    params = (("period", 60), ("entry", 2.0), ("exit", 0.5), ("value", 20_000.0))

    def __init__(self) -> None:
        if len(self.datas) != 2:
            raise ValueError(f"pairs needs exactly two instruments, not {len(self.datas)}.")
        self.first, self.second = self.datas
        self.spreads: list[float] = []
        self.working: set[int] = set()
        self.last_bar = 0.0

    def notify_order(self, order: Any) -> None:
        if not order.alive():
            self.working.discard(order.ref)

    def next(self) -> None:
        both_new = self.first.datetime[0] == self.second.datetime[0] != self.last_bar
        if not both_new:
            return
        self.last_bar = self.first.datetime[0]
        self.spreads.append(math.log(self.first.close[0] / self.second.close[0]))
        del self.spreads[: -self.p.period]
        if len(self.spreads) < self.p.period or self.working:
            return
        if not (is_current(self.first) and is_current(self.second)):
            return
        self._decide(self._score())

    def _score(self) -> float:
        mean = sum(self.spreads) / len(self.spreads)
        variance = sum((value - mean) ** 2 for value in self.spreads) / len(self.spreads)
        return (self.spreads[-1] - mean) / math.sqrt(variance) if variance > 0 else 0.0

    def _decide(self, score: float) -> None:
        held = self.getposition(self.first).size
        if not held and abs(score) >= self.p.entry:
            sells, buys = (self.first, self.second) if score > 0 else (self.second, self.first)
            for order in (
                self.sell(data=sells, size=max(1, int(self.p.value / sells.close[0]))),
                self.buy(data=buys, size=max(1, int(self.p.value / buys.close[0]))),
            ):
                self.working.add(order.ref)
        elif held and abs(score) <= self.p.exit:
            for data in self.datas:
                order = self.close(data=data)
                if order is not None:
                    self.working.add(order.ref)
