"""Short forms for strategies."""

from __future__ import annotations

from typing import Any

from bt_ibkr.errors import UsageError


def modify(strategy: Any, order: Any, **changes: Any) -> Any:
    """``strategy.broker.modify(order, …)``, with a clear word where the broker has no such thing.

    Args:
        strategy: The one that placed the order.
        order: To be changed.
        changes: ``price``, ``plimit``, ``size``, ``valid``, ``trailamount``, ``trailpercent``, ``tif``.

    Returns:
        The order.

    Raises:
        UsageError: The run's broker, such as backtrader's own in a backtest, cannot change orders.
        OrderRefusedError: As ``IBKRBroker.modify``.
    """
    change = getattr(strategy.broker, "modify", None)
    if change is None:
        raise UsageError(
            f"{type(strategy.broker).__name__} cannot modify orders.",
            remedy="In a backtest cancel the order and place another one.",
        )
    return change(order, **changes)
