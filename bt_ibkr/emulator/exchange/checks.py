"""What the exchange refuses before an order exists.

The wording follows what the real server was recorded to answer where a recording exists; clients match on it.
"""

from __future__ import annotations

from decimal import Decimal

from bt_ibkr.emulator.accounts.valuation import exact
from bt_ibkr.emulator.types import Instrument, OrderSpec
from bt_ibkr.model.order import OrderType, TimeInForce

_T = OrderType
_NEEDS_LIMIT = frozenset({_T.LIMIT, _T.STOP_LIMIT, _T.LIMIT_ON_CLOSE, _T.LIMIT_IF_TOUCHED})
_NEEDS_STOP = frozenset({_T.STOP, _T.STOP_LIMIT, _T.MARKET_IF_TOUCHED, _T.LIMIT_IF_TOUCHED})
TRAILS = frozenset({_T.TRAIL, _T.TRAIL_LIMIT})
SUPPORTED_TIMES = frozenset(
    {TimeInForce.DAY, TimeInForce.GOOD_TILL_CANCELLED, TimeInForce.IMMEDIATE_OR_CANCEL}
)


def refusal(spec: OrderSpec, instrument: Instrument) -> str | None:
    """Why an order of that form is refused; ``None`` if it may stand."""
    contract = instrument.contract
    if not spec.quantity.is_finite() or spec.quantity <= 0:
        return f"Order size {spec.quantity} is not valid. Please enter size greater than 0."
    increment = exact(contract.size_increment)
    if spec.quantity % increment:
        return (
            f"The size, {_plain(spec.quantity)}, does not conform to the minimum variation of "
            f"{_plain(increment)} for this contract."
        )
    return _price_refusal(spec, contract.tick_size) or _time_refusal(spec)


def _price_refusal(spec: OrderSpec, tick_size: float) -> str | None:
    if spec.order_type in _NEEDS_LIMIT and spec.limit_price is None:
        return "Invalid order price fields"
    if spec.order_type in _NEEDS_STOP and spec.stop_price is None:
        return "Invalid order price fields"
    if spec.order_type in TRAILS:
        given = [value for value in (spec.trail_amount, spec.trail_percent) if value is not None]
        if len(given) != 1 or not given[0] > 0 or (spec.trail_percent or 0) >= 100:
            return "Invalid order price fields"
    tick = exact(tick_size)
    for price in (spec.limit_price, spec.stop_price):
        if price is None:
            continue
        if price != price or price in (float("inf"), float("-inf")) or price < 0:
            return "Invalid order price fields"
        if exact(price) % tick:
            return (
                f"The price, {_plain(exact(price))}, does not conform to the minimum price variation of "
                f"{_plain(tick)} for this contract."
            )
    return None


def _time_refusal(spec: OrderSpec) -> str | None:
    if spec.time_in_force not in SUPPORTED_TIMES:
        return f"{spec.time_in_force.value} time in force is not supported for this order"
    at_close = spec.order_type in (_T.MARKET_ON_CLOSE, _T.LIMIT_ON_CLOSE)
    if at_close and spec.time_in_force is TimeInForce.IMMEDIATE_OR_CANCEL:
        return f"{spec.time_in_force.value} time in force is not supported for this order"
    return None


def _plain(number: Decimal) -> str:
    return f"{number.normalize():f}"
