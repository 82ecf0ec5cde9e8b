"""How much an order is for: units, or an amount of cash.

``cashQty`` and ``fxQty`` are amounts in the contract's currency (of a pair in its second). The number of units
is an estimate at the order's limit, or at the market's price (recorded question o10223): what executes is what
the amount buys at the prices of the executions.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

import msgspec

from bt_ibkr.emulator.accounts.valuation import exact
from bt_ibkr.emulator.exchange.checks import size_step
from bt_ibkr.emulator.services import errors
from bt_ibkr.emulator.services.marketdata.fields import mark_price
from bt_ibkr.emulator.services.orders.ticket_form import business, rejected
from bt_ibkr.emulator.types import Instrument, OrderSpec
from bt_ibkr.model.contract import SecurityType
from bt_ibkr.model.order import OrderType, Side

if TYPE_CHECKING:
    from bt_ibkr.emulator.services.core import Core

#: Larger numbers are no sizes or prices of any market; refused in words rather than by an overflow.
MOST = 10**15
_CASH_KINDS = frozenset({SecurityType.STOCK, SecurityType.FOREX, SecurityType.CRYPTO})
_CASH_TYPES = frozenset({OrderType.MARKET, OrderType.LIMIT})
#: Words of the TWS API's message 10244.
_NO_CASH = "Cash Quantity cannot be used for this order"


def sized(core: Core, ticket: dict[str, Any], spec: OrderSpec, instrument: Instrument) -> OrderSpec:
    """The order with its quantity.

    Raises:
        ApiError: There is none, it cannot be, or it is given twice.
    """
    conversion = bool(ticket.get("isCcyConv", False))
    if conversion and instrument.contract.security_type is not SecurityType.FOREX:
        raise business("isCcyConv is supported for currency pairs only")
    spec = msgspec.structs.replace(spec, currency_conversion=conversion)
    given = [name for name in ("quantity", "cashQty", "fxQty") if ticket.get(name)]
    if len(given) > 1 or (given == ["fxQty"] and not conversion):
        raise business(_NO_CASH)
    if given in (["cashQty"], ["fxQty"]):
        return _by_cash(core, _number(ticket[given[0]]), spec, instrument)
    quantity = _number(ticket.get("quantity", 0))
    step = size_step(spec, instrument)
    if step > 0 and quantity % step:
        raise rejected(
            f"The size, {quantity:f}, does not conform to the minimum variation of {step.normalize():f} "
            "for this contract."
        )
    return msgspec.structs.replace(spec, quantity=quantity)


def _number(value: float) -> Decimal:
    number = Decimal(repr(value)).normalize() + 0
    if number <= 0:
        shown = f"{number:f}"
        raise errors.error(500, f"Order size {shown} is not valid. Please enter size greater than 0.")
    if number > MOST:
        raise business(f"The size {number:.3E} exceeds what can be ordered")
    return number


def _by_cash(core: Core, cash: Decimal, spec: OrderSpec, instrument: Instrument) -> OrderSpec:
    kind = instrument.contract.security_type
    coin_sale = kind is SecurityType.CRYPTO and spec.side is Side.SELL
    if kind not in _CASH_KINDS or spec.order_type not in _CASH_TYPES or spec.all_or_none or coin_sale:
        raise business(_NO_CASH)
    if cash != round(cash, 2):
        raise business("Non-zero cash quantity cannot contain more than 2 decimals.")
    price = _price(core, spec, instrument)
    if price is None or price <= 0:
        raise business("There is no market price to tell the quantity by.")
    spec = msgspec.structs.replace(spec, cash_quantity=cash)
    step = size_step(spec, instrument)
    quantity = cash / exact(price) // step * step
    if quantity <= 0:
        raise business(f"Cash quantity {cash:f} buys less than the smallest size, {step:f}.")
    return msgspec.structs.replace(spec, quantity=quantity)


def _price(core: Core, spec: OrderSpec, instrument: Instrument) -> float | None:
    if spec.limit_price is not None:
        return spec.limit_price
    quote = core.engine.quote(instrument.contract.conid)
    if quote is None:
        return None
    touch = quote.ask if spec.side is Side.BUY else quote.bid
    return touch if touch is not None else mark_price(quote)
