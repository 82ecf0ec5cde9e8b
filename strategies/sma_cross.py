"""Buy when a fast moving average crosses above a slow one, sell when it crosses back.

The simplest strategy that shows everything a live strategy needs:

- it may follow several instruments, each with its own indicators and its own position;
- it trades only on bars of the present (``is_current``): while a live feed delivers history, the same
  bars only warm the averages up;
- it never sends a second order for an instrument before the first is done, because live the answer
  takes time: ``notify_order`` tells when.
"""

from __future__ import annotations

from typing import Any

import backtrader as bt

from bt_ibkr.feeds import is_current


class SmaCross(bt.Strategy):  # type: ignore[misc]
    """Long only. Parameters: ``fast`` and ``slow`` (bars), ``size`` (units per trade)."""

    params = (("fast", 10), ("slow", 30), ("size", 100))

    def __init__(self) -> None:
        self.crosses = {
            data: bt.indicators.CrossOver(
                bt.indicators.SMA(data, period=self.p.fast), bt.indicators.SMA(data, period=self.p.slow)
            )
            for data in self.datas
        }
        self.working: dict[Any, Any] = {}

    def notify_order(self, order: Any) -> None:
        if not order.alive():
            self.working.pop(order.data, None)

    def next(self) -> None:
        for data in self.datas:
            # Another instrument's bar may have called next(): act only on a bar of this one, once.
            if data.datetime[0] != self.datetime[0] or not is_current(data) or data in self.working:
                continue
            position = self.getposition(data)
            if self.crosses[data][0] > 0 and not position.size:
                self.working[data] = self.buy(data=data, size=self.p.size)
            elif self.crosses[data][0] < 0 and position.size > 0:
                self.working[data] = self.close(data=data)
