"""IBKR's order types that backtrader has no name for, as values for ``exectype``."""

from __future__ import annotations

from typing import ClassVar

import backtrader as bt

from bt_ibkr.model.order import OrderType


class ExecType(int):
    """An execution type of IBKR: ``self.buy(exectype=ExecType.MIT, price=98.5)``.

    To backtrader it is the number of the execution type nearest to it, so that a backtest runs the same line, with
    what that type does; its ``order_type`` is what goes to IBKR.

    =========  ==================================  =========================================  ==============
    value      price                               other arguments                            in a backtest
    =========  ==================================  =========================================  ==============
    MOC                                                                                       Close
    LOC        limit                                                                          Limit
    MIDPRICE   cap, may be left out                                                           Market
    MIT        trigger                                                                        Limit
    LIT        trigger                             ``plimit``: limit                          Limit
    REL        cap, may be left out                ``offset``: to the best price (0)          Limit
    =========  ==================================  =========================================  ==============
    """

    order_type: OrderType

    MOC: ClassVar[ExecType]
    LOC: ClassVar[ExecType]
    MIDPRICE: ClassVar[ExecType]
    MIT: ClassVar[ExecType]
    LIT: ClassVar[ExecType]
    REL: ClassVar[ExecType]

    def __new__(cls, nearest: int, order_type: OrderType) -> ExecType:
        self = super().__new__(cls, nearest)
        self.order_type = order_type
        return self

    def __repr__(self) -> str:
        return f"ExecType.{self.order_type.value}"

    def __reduce__(self) -> tuple[type[ExecType], tuple[int, OrderType]]:
        return type(self), (int(self), self.order_type)


ExecType.MOC = ExecType(bt.Order.Close, OrderType.MARKET_ON_CLOSE)
ExecType.LOC = ExecType(bt.Order.Limit, OrderType.LIMIT_ON_CLOSE)
ExecType.MIDPRICE = ExecType(bt.Order.Market, OrderType.MIDPRICE)
ExecType.MIT = ExecType(bt.Order.Limit, OrderType.MARKET_IF_TOUCHED)
ExecType.LIT = ExecType(bt.Order.Limit, OrderType.LIMIT_IF_TOUCHED)
ExecType.REL = ExecType(bt.Order.Limit, OrderType.RELATIVE)
