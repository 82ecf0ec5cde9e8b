"""Orders out: a ticket as the JSON body of a submission or modification.

A ticket is checked where it is made (``model/ticket.py``); here it is spelt. IBKR's fields differ by type:
``price`` is the limit, but the stop of STP and TRAIL; ``auxPrice`` is the stop where there is a limit too, and the
offset of REL. Where the trigger of MIT goes IBKR does not say (its sample leaves it out): it goes into both, as a
MIT has no other price. A ``conid`` forces SMART routing, so another exchange is named by ``conidex`` alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Final

from bt_ibkr.errors import OrderRefusedError
from bt_ibkr.model.order import OrderTicket, OrderType
from bt_ibkr.wire.conidex import SMART, Conidex

#: Orders that say who entered them; a combo may have futures for legs.
_ENTERED: Final = frozenset({"FUT", "FOP", "BAG"})
#: One price, the stop, in ``price``.
_STOP_IN_PRICE: Final = frozenset({OrderType.STOP, OrderType.TRAIL})
#: The limit in ``price``, the stop in ``auxPrice``.
_STOP_IN_AUX: Final = frozenset({OrderType.STOP_LIMIT, OrderType.LIMIT_IF_TOUCHED, OrderType.TRAIL_LIMIT})


def orders_request(tickets: Iterable[OrderTicket]) -> dict[str, object]:
    """The body of a submission: one order, a bracket (parent first) or a group whose members cancel each other.

    Raises:
        OrderRefusedError: The tickets are not one submission: none at all, two accounts, two parents, a child
            without its parent, a group that not all belong to, or one id twice.
    """
    listed = tuple(tickets)
    _check_together(listed)
    return {"orders": [order_request(ticket) for ticket in listed]}


def order_request(ticket: OrderTicket) -> dict[str, object]:
    """One order as JSON: an element of a submission, or the whole body of a modification.

    Numbers are ``int`` or ``float``: the server refuses them as text.
    """
    body: dict[str, object] = {
        **_addressed(ticket),
        "orderType": ticket.order_type.value,
        "side": ticket.side.value,
        "tif": ticket.time_in_force.value,
        **_sizes(ticket),
        "outsideRTH": ticket.outside_regular_hours,
        **_prices(ticket),
        **_present(
            listingExchange=ticket.listing_exchange,
            cOID=ticket.client_order_id,
            parentId=ticket.parent,
            useAdaptive=ticket.price_management,
            allocationMethod=ticket.allocation_method,
            strategy=ticket.algo,
        ),
    }
    if ticket.one_cancels_all:
        body["isSingleGroup"] = True
    if ticket.all_or_none:
        body["allOrNone"] = True
    if ticket.is_currency_conversion:
        body["isCcyConv"] = True
    if ticket.algo is not None:
        body["strategyParameters"] = dict(ticket.algo_parameters)
    body.update(_entered_by(ticket))
    return body


def cancel_parameters(ticket: OrderTicket) -> dict[str, str]:
    """Query parameters of the order's cancellation: orders on futures say who cancels, as they said who ordered."""
    return {
        name: str(value).lower() if isinstance(value, bool) else str(value)
        for name, value in _entered_by(ticket).items()
    }


def _check_together(tickets: tuple[OrderTicket, ...]) -> None:
    def refuse(why: str) -> OrderRefusedError:
        shown = "; ".join(ticket.describe() for ticket in tickets[:4])
        return OrderRefusedError(f"{shown}: {why}.", remedy="They were not sent. Place them one by one.")

    if not tickets:
        raise OrderRefusedError("A submission holds no order.")
    if len({ticket.routed_account for ticket in tickets}) > 1:
        raise refuse("orders of several accounts cannot be sent in one submission")
    ids = [ticket.client_order_id for ticket in tickets if ticket.client_order_id is not None]
    if len(set(ids)) < len(ids):
        raise refuse("two orders of a submission have the same id")
    parents = {ticket.parent for ticket in tickets if ticket.parent is not None}
    if len(parents) > 1 or (parents and len(tickets) > 1 and not parents <= set(ids)):
        raise refuse("they are not the children of one parent that comes with them")
    grouped = sum(ticket.one_cancels_all for ticket in tickets)
    unrelated = sum(ticket.parent is None for ticket in tickets)
    if len(tickets) > 1 and unrelated > 1 and grouped < len(tickets):
        raise refuse("unrelated orders cannot be sent in one submission")


def _addressed(ticket: OrderTicket) -> dict[str, object]:
    """Whose order, and on what. An order for an adviser's group names the group in its path, and no account."""
    body: dict[str, object] = {}
    if ticket.allocation_group is None:
        body["acctId"] = ticket.account
    if ticket.legs:
        body["conidex"] = Conidex(ticket.spread_id, ticket.exchange, ticket.legs).text()
        return body
    body["secType"] = f"{ticket.contract_id}@{ticket.security_type}"
    if ticket.exchange in ("", SMART):
        body["conid"] = ticket.contract_id
    else:
        body["conidex"] = Conidex(ticket.contract_id, ticket.exchange).text()
    return body


def _entered_by(ticket: OrderTicket) -> dict[str, object]:
    """CME rule 536-B: whether a person typed the order in, and who the operator is."""
    manual, operator = ticket.manual_indicator, ticket.ext_operator
    if ticket.security_type in _ENTERED:
        manual = bool(manual)
        operator = ticket.account if operator is None else operator
    return _present(manualIndicator=manual, extOperator=operator)


def _sizes(ticket: OrderTicket) -> dict[str, object]:
    if ticket.cash_quantity is not None:
        return {"cashQty": _number(ticket.cash_quantity)}
    if ticket.fx_quantity is not None:
        return {"fxQty": _number(ticket.fx_quantity)}
    return {"quantity": _number(ticket.quantity)}


def _number(size: Decimal) -> int | float:
    return int(size) if size == size.to_integral_value() else float(size)


def _prices(ticket: OrderTicket) -> dict[str, object]:
    kind, limit, stop = ticket.order_type, ticket.limit_price, ticket.stop_price
    amount, percent = ticket.trail_amount, ticket.trail_percent
    distance = amount if amount is not None else percent
    trail: dict[str, object] = {}
    if distance is not None:
        trail = {"trailingType": "amt" if amount is not None else "%", "trailingAmt": distance}
    if kind in _STOP_IN_PRICE:
        return {**_present(price=stop), **trail}
    if kind is OrderType.MARKET_IF_TOUCHED:
        return _present(price=stop, auxPrice=stop)
    if kind is OrderType.RELATIVE:
        return _present(price=limit, auxPrice=ticket.offset)
    if kind in _STOP_IN_AUX:
        return {**_present(price=limit, auxPrice=stop), **trail}
    return _present(price=limit)


def _present(**given: object) -> dict[str, object]:
    return {name: value for name, value in given.items() if value is not None}
