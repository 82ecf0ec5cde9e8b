"""What happens in a run, as it happens: an analyzer that tells a listener."""

from __future__ import annotations

from typing import Any, Protocol

import backtrader as bt

from bt_ibkr.feeds.times import epoch_ns


class RunListener(Protocol):
    """Who is told; on cerebro's thread."""

    def on_bar(self, strategy: Any, time_ns: int) -> None: ...

    def on_order(self, order: Any) -> None: ...

    def on_trade(self, trade: Any) -> None: ...

    def on_data(self, data: Any, status: str) -> None: ...

    def on_store(self, message: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None: ...


class RunRecorder(bt.Analyzer):  # type: ignore[misc]
    """Counts bars and closed trades, keeps the last clone of every order, tells a listener."""

    params = (("listener", None),)

    def __init__(self) -> None:
        super().__init__()
        self.bars = 0
        self.trades = 0
        self.orders: dict[int, Any] = {}
        self.fills: list[tuple[Any, Any]] = []
        self._bits: dict[int, int] = {}
        self._lengths: dict[int, int] = {}

    def _count(self) -> None:
        for index, data in enumerate(self.datas):
            length = len(data)
            self.bars += max(0, length - self._lengths.get(index, 0))
            self._lengths[index] = length
        listener = self.p.listener
        if listener is not None:
            listener.on_bar(self.strategy, epoch_ns(self.strategy.datetime[0]))

    def prenext(self) -> None:
        self._count()

    def nextstart(self) -> None:
        self._count()

    def next(self) -> None:
        self._count()

    def notify_order(self, order: Any) -> None:
        self.orders[order.ref] = order
        if not order.p.simulated:
            seen = self._bits.get(order.ref, 0)
            bits = list(order.executed.exbits)[: order.executed.p2 or None]
            for bit in bits[seen:]:
                self.fills.append((order, bit))
            self._bits[order.ref] = max(seen, len(bits))
        if self.p.listener is not None:
            self.p.listener.on_order(order)

    def notify_trade(self, trade: Any) -> None:
        if trade.isclosed:
            self.trades += 1
        if self.p.listener is not None:
            self.p.listener.on_trade(trade)
