"""What the exchange refuses before an order exists.

The wording follows what the real server was recorded to answer where a recording exists; clients match on it.
"""

from __future__ import annotations

from decimal import Decimal

from bt_ibkr.emulator.accounts.valuation import exact
from bt_ibkr.emulator.types import Instrument, OrderSpec
from bt_ibkr.model.contract import SecurityType
from bt_ibkr.model.order import OrderType, Side, TimeInForce

_T = OrderType
_NEEDS_LIMIT = frozenset({_T.LIMIT, _T.STOP_LIMIT, _T.LIMIT_ON_CLOSE, _T.LIMIT_IF_TOUCHED})
_NEEDS_STOP = frozenset({_T.STOP, _T.STOP_LIMIT, _T.MARKET_IF_TOUCHED, _T.LIMIT_IF_TOUCHED})
TRAILS = frozenset({_T.TRAIL, _T.TRAIL_LIMIT})
#: What trades in fractions of a unit when it is ordered by cash, and in what steps: IBKR shows four digits of
#: shares (``fraqInt`` in its contract rules) and cents of currencies.
_CASH_STEPS = {SecurityType.STOCK: Decimal("0.0001"), SecurityType.FOREX: Decimal("0.01")}
#: Kinds that take only these order types.
_TYPES = {
    SecurityType.COMBO: frozenset({_T.MARKET, _T.LIMIT, _T.STOP, _T.STOP_LIMIT}),
    SecurityType.OPTION: frozenset(_T) - {_T.MARKET_ON_CLOSE, _T.LIMIT_ON_CLOSE, _T.MIDPRICE},
    SecurityType.FUTURE_OPTION: frozenset(_T) - {_T.MARKET_ON_CLOSE, _T.LIMIT_ON_CLOSE, _T.MIDPRICE},
    SecurityType.CRYPTO: frozenset({_T.MARKET, _T.LIMIT}),
    SecurityType.BOND: frozenset({_T.MARKET, _T.LIMIT}),
    SecurityType.FUND: frozenset({_T.MARKET}),
    SecurityType.INDEX: frozenset(),
}
_RESTING = frozenset({TimeInForce.DAY, TimeInForce.GOOD_TILL_CANCELLED})
#: Times in force of one kind of instrument only.
_ONLY_FOR = {
    TimeInForce.PAXOS: SecurityType.CRYPTO,
    TimeInForce.OVERNIGHT: SecurityType.STOCK,
    TimeInForce.OVERNIGHT_AND_DAY: SecurityType.STOCK,
    TimeInForce.AT_THE_OPENING: SecurityType.STOCK,
}


def size_step(spec: OrderSpec, instrument: Instrument) -> Decimal:
    """The smallest quantity that an execution of the order can have."""
    usual = exact(instrument.contract.size_increment)
    if spec.cash_quantity is None and not spec.currency_conversion:
        return usual
    return min(_CASH_STEPS.get(instrument.contract.security_type, usual), usual)


def refusal(spec: OrderSpec, instrument: Instrument) -> str | None:
    """Why an order of that form is refused; ``None`` if it may stand."""
    contract = instrument.contract
    if not spec.quantity.is_finite() or spec.quantity <= 0:
        return f"Order size {spec.quantity} is not valid. Please enter size greater than 0."
    increment = size_step(spec, instrument)
    if spec.quantity % increment:
        return (
            f"The size, {_plain(spec.quantity)}, does not conform to the minimum variation of "
            f"{_plain(increment)} for this contract."
        )
    if spec.order_type not in _TYPES.get(contract.security_type, frozenset(_T)):
        # words of the TWS API's message 387
        return "Unsupported order type for this exchange and security type."
    if instrument.digital and spec.side is Side.SELL:
        return "Sell orders are not accepted for this contract: buy the opposite side to reduce a position."
    return _price_refusal(spec, instrument) or _time_refusal(spec, instrument)


def _price_refusal(spec: OrderSpec, instrument: Instrument) -> str | None:
    if spec.order_type in _NEEDS_LIMIT and spec.limit_price is None:
        return "Invalid order price fields"
    if spec.order_type in _NEEDS_STOP and spec.stop_price is None:
        return "Invalid order price fields"
    if spec.order_type in TRAILS:
        given = [value for value in (spec.trail_amount, spec.trail_percent) if value is not None]
        if len(given) != 1 or not given[0] > 0 or (spec.trail_percent or 0) >= 100:
            return "Invalid order price fields"
    tick = exact(instrument.contract.tick_size)
    for price in (spec.limit_price, spec.stop_price):
        if price is None:
            continue
        # only spreads have prices below 0
        negative = price < 0 and not instrument.contract.legs
        if price != price or price in (float("inf"), float("-inf")) or negative:
            return "Invalid order price fields"
        if exact(price) % tick:
            return (
                f"The price, {_plain(exact(price))}, does not conform to the minimum price variation of "
                f"{_plain(tick)} for this contract."
            )
    return None


def _time_refusal(spec: OrderSpec, instrument: Instrument) -> str | None:
    return None if _time_fits(spec, instrument) else f"{spec.time_in_force.value} {_NO_TIME}"


_NO_TIME = "time in force is not supported for this order"


def _time_fits(spec: OrderSpec, instrument: Instrument) -> bool:
    kind, time = instrument.contract.security_type, spec.time_in_force
    if kind is not _ONLY_FOR.get(time, kind):
        return False
    if time in (TimeInForce.OVERNIGHT, TimeInForce.OVERNIGHT_AND_DAY):
        return instrument.is_us and spec.order_type is _T.LIMIT
    if time is TimeInForce.AT_THE_OPENING:
        return spec.order_type in (_T.LIMIT, _T.MARKET)
    if kind is SecurityType.CRYPTO and spec.order_type is _T.MARKET:
        return time in (TimeInForce.IMMEDIATE_OR_CANCEL, TimeInForce.PAXOS)
    at_close = spec.order_type in (_T.MARKET_ON_CLOSE, _T.LIMIT_ON_CLOSE)
    return not at_close or time in _RESTING


def _plain(number: Decimal) -> str:
    return f"{number.normalize():f}"
