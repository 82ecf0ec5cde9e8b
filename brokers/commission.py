"""IBKR's price list as a backtrader commission scheme."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

import backtrader as bt

from bt_ibkr.errors import UsageError
from bt_ibkr.model.commission import OrderProgress, commission_schedule
from bt_ibkr.model.contract import SecurityType
from bt_ibkr.model.order import Side
from bt_ibkr.store import refuse_unknown


class IBKRCommission(bt.CommInfoBase):  # type: ignore[misc]
    """Charges what IBKR's schedule charges for an order that executes at once.

    Parameters:

    - ``schedule``: ``fixed``, ``tiered`` or ``none``.
    - ``security_type``: IBKR's word.
    - ``mult``: units of currency per point.
    - ``per_usd``: units of the contract's currency per USD, as IBKR quotes fixed sums in USD.
    - ``regulatory``: whether regulators' fees on sales are passed on; ``None`` for the schedule's own way.

    The same tables charge the emulator's accounts. An order that backtrader splits, because it closes one position
    and opens the opposite one, is charged the minimum for each part, as is each part of an order that a filler
    splits. ``tiered`` counts no volume of the month in a backtest, and every order takes liquidity.
    """

    params = (
        ("schedule", "fixed"),
        ("security_type", "STK"),
        ("per_usd", 1.0),
        ("regulatory", None),
        ("stocklike", True),
        ("commtype", bt.CommInfoBase.COMM_FIXED),
    )

    def __init__(self, **unknown: Any) -> None:  # backtrader's metaclass takes the parameters
        refuse_unknown("IBKRCommission", unknown)
        kind = SecurityType.from_wire(self.p.security_type)
        if kind in (SecurityType.FUTURE, SecurityType.FUTURE_OPTION):
            self.p.stocklike = False
        super().__init__()
        self._kind = kind
        self._rates = commission_schedule(self.p.schedule, regulatory=self.p.regulatory)
        if not (isinstance(self.p.per_usd, (int, float)) and 0 < self.p.per_usd < math.inf):
            raise UsageError(
                f"IBKRCommission: per_usd={self.p.per_usd!r} is no exchange rate.",
                remedy="Give units of the contract's currency per USD, above 0.",
            )
        self._per_usd = Decimal(repr(float(self.p.per_usd)))

    def _getcommission(self, size: float, price: float, pseudoexec: bool) -> float:
        if not size or not math.isfinite(size) or not math.isfinite(price):
            return 0.0
        quantity = abs(Decimal(repr(float(size))))
        value = quantity * abs(Decimal(repr(float(price)))) * Decimal(repr(float(self.p.mult)))
        progress = OrderProgress().plus(quantity, value)
        side = Side.BUY if size > 0 else Side.SELL
        return float(self._rates.cost(self._kind, side, progress, per_usd=self._per_usd))

    def get_margin(self, price: float) -> float:
        """What one unit binds: the margin set, or its full value."""
        if self.p.margin:
            return float(self.p.margin)
        return float(price * self.p.mult)
