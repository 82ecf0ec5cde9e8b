"""Orders out: a ticket as the JSON body of a submission or modification.

IBKR's fields differ by type: ``price`` is the limit, but the stop of STP, MIT and TRAIL; ``auxPrice`` is the
stop where there is a limit too. A ``conid`` forces SMART routing, so another exchange is named by ``conidex``
alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from decimal import Decimal
from typing import Final

from bt_ibkr.errors import OrderRefusedError
from bt_ibkr.model.order import OrderTicket, OrderType

MAX_CLIENT_ID: Final = 64
_SMART: Final = "SMART"
_FUTURES: Final = frozenset({"FUT", "FOP"})

_NO_PRICE: Final = frozenset({OrderType.MARKET, OrderType.MARKET_ON_CLOSE})
#: One price, the stop, in ``price``.
_STOP_IN_PRICE: Final = frozenset({OrderType.STOP, OrderType.MARKET_IF_TOUCHED, OrderType.TRAIL})
#: The limit in ``price``, the stop in ``auxPrice``.
_STOP_IN_AUX: Final = frozenset({OrderType.STOP_LIMIT, OrderType.LIMIT_IF_TOUCHED, OrderType.TRAIL_LIMIT})
_NEEDS_LIMIT: Final = frozenset(
    {OrderType.LIMIT, OrderType.LIMIT_ON_CLOSE, OrderType.STOP_LIMIT, OrderType.LIMIT_IF_TOUCHED}
)
_NEEDS_STOP: Final = frozenset(
    {OrderType.STOP, OrderType.STOP_LIMIT, OrderType.MARKET_IF_TOUCHED, OrderType.LIMIT_IF_TOUCHED}
)
_TRAILING: Final = frozenset({OrderType.TRAIL, OrderType.TRAIL_LIMIT})


def orders_request(tickets: Iterable[OrderTicket]) -> dict[str, object]:
    """The body of a submission: one order, a bracket or a group whose members cancel each other.

    Raises:
        OrderRefusedError: As ``order_request``.
    """
    return {"orders": [order_request(ticket) for ticket in tickets]}


def order_request(ticket: OrderTicket) -> dict[str, object]:
    """One order as JSON: an element of a submission, or the whole body of a modification.

    Numbers are ``int`` or ``float``: the server refuses them as text.

    Raises:
        OrderRefusedError: The ticket cannot be sent: a price or trail is missing or no number, the quantity
            is not above 0 or not exact as a number, or an id is not allowed.
    """
    _check_ids(ticket)
    body: dict[str, object] = {
        "acctId": ticket.account,
        "secType": f"{ticket.contract_id}@{ticket.security_type}",
        "orderType": ticket.order_type.value,
        "side": ticket.side.value,
        "tif": ticket.time_in_force.value,
        "quantity": _quantity(ticket),
        "outsideRTH": ticket.outside_regular_hours,
    }
    if ticket.exchange in ("", _SMART):
        body["conid"] = ticket.contract_id
    else:
        body["conidex"] = f"{ticket.contract_id}@{ticket.exchange}"
    if ticket.client_order_id is not None:
        body["cOID"] = ticket.client_order_id
    if ticket.parent is not None:
        body["parentId"] = ticket.parent
    if ticket.one_cancels_all:
        body["isSingleGroup"] = True
    if ticket.security_type in _FUTURES:
        # CME rule 536-B: who entered the order, and that no person typed it in.
        body["manualIndicator"] = False
        body["extOperator"] = ticket.account
    body.update(_prices(ticket))
    body.update(_trail(ticket))
    return body


def _refused(ticket: OrderTicket, why: str) -> OrderRefusedError:
    return OrderRefusedError(
        f"{ticket.side.value} {ticket.order_type.value} order on contract {ticket.contract_id}: {why}.",
        remedy="It was not sent.",
    )


def _check_ids(ticket: OrderTicket) -> None:
    own = ticket.client_order_id
    if own is not None and not 0 < len(own) <= MAX_CLIENT_ID:
        raise _refused(ticket, f"an order's own id has 1 to {MAX_CLIENT_ID} characters")
    if own is not None and ticket.parent is not None:
        raise _refused(ticket, "a child of a bracket carries no id of its own")
    if ticket.contract_id <= 0:
        raise _refused(ticket, "the contract is not known")


def _quantity(ticket: OrderTicket) -> int | float:
    quantity = ticket.quantity
    if not quantity.is_finite() or quantity <= 0:
        raise _refused(ticket, f"a quantity of {quantity} is not above 0")
    if quantity == quantity.to_integral_value():
        return int(quantity)
    number = float(quantity)
    if Decimal(repr(number)) != quantity:
        raise _refused(ticket, f"a quantity of {quantity} has too many digits")
    return number


def _prices(ticket: OrderTicket) -> dict[str, object]:
    kind = ticket.order_type
    if kind in _NO_PRICE:
        return {}
    if kind in _NEEDS_LIMIT and ticket.limit_price is None:
        raise _refused(ticket, "the limit price is missing")
    if kind in _NEEDS_STOP and ticket.stop_price is None:
        raise _refused(ticket, "the stop price is missing")
    for price in (ticket.limit_price, ticket.stop_price):
        if price is not None and not math.isfinite(price):
            raise _refused(ticket, f"{price} is not a price")
    if kind in _STOP_IN_PRICE:
        return _present(price=ticket.stop_price)
    if kind in _STOP_IN_AUX:
        return _present(price=ticket.limit_price, auxPrice=ticket.stop_price)
    return _present(price=ticket.limit_price)


def _present(**prices: float | None) -> dict[str, object]:
    return {name: price for name, price in prices.items() if price is not None}


def _trail(ticket: OrderTicket) -> dict[str, object]:
    amount, percent = ticket.trail_amount, ticket.trail_percent
    if ticket.order_type not in _TRAILING:
        return {}
    if (amount is None) == (percent is None):
        raise _refused(ticket, "it needs either a trailing amount or a trailing percentage")
    value = amount if amount is not None else percent
    if value is None or not math.isfinite(value) or value <= 0:
        raise _refused(ticket, f"{value} is not a distance to trail by")
    return {"trailingType": "amt" if amount is not None else "%", "trailingAmt": value}
