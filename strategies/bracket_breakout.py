"""Buy a breakout above the range of the last bars, protected from the first moment.

The entry is a market order that carries a stop and a target (a bracket): the three go to IBKR as one
submission, and IBKR cancels the target when the stop fills and the other way round. The strategy only has to
remember whether its bracket is still working.
"""

from __future__ import annotations

from typing import Any

import backtrader as bt

from bt_ibkr.feeds import is_current


class BracketBreakout(bt.Strategy):  # type: ignore[misc]
    """Parameters: ``period`` (bars of the range), ``risk`` and ``reward`` in average true ranges, ``size``,
    ``tick`` (prices are rounded to it)."""

    params = (("period", 20), ("risk", 1.5), ("reward", 3.0), ("size", 100), ("tick", 0.01))

    def __init__(self) -> None:
        self.highest = bt.indicators.Highest(self.data.high(-1), period=self.p.period)
        self.atr = bt.indicators.ATR(self.data, period=self.p.period)
        self.bracket: list[Any] = []

    def notify_order(self, order: Any) -> None:
        # Entry, stop and target end one by one; the next bracket waits for all three.
        self.bracket = [one for one in self.bracket if one.ref != order.ref or order.alive()]

    def _round(self, price: float) -> float:
        return float(round(round(price / self.p.tick) * self.p.tick, 10))

    def next(self) -> None:
        if self.bracket or self.position or not is_current(self.data):
            return
        close = self.data.close[0]
        if close > self.highest[0] and self.atr[0] > 0:
            self.bracket = self.buy_bracket(
                size=self.p.size,
                exectype=bt.Order.Market,
                stopprice=self._round(close - self.p.risk * self.atr[0]),
                limitprice=self._round(close + self.p.reward * self.atr[0]),
            )
