"""Which of IBKR's orders is which of ours, where IBKR does not say it by ``cOID``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from bt_ibkr.model.order import OrderReport, OrderTicket


class Placement(msgspec.Struct, frozen=True):
    """Where a ticket stands: IBKR's order id."""

    ticket: OrderTicket
    order_id: str


def in_order(
    tickets: Sequence[OrderTicket], pairs: Iterable[tuple[OrderTicket, str]]
) -> tuple[Placement, ...]:
    """Placements in the order of the tickets."""
    place = {id(ticket): index for index, ticket in enumerate(tickets)}
    ordered = sorted(pairs, key=lambda one: place[id(one[0])])
    return tuple(Placement(ticket, order_id) for ticket, order_id in ordered)


def found(tickets: Sequence[OrderTicket], orders: Sequence[OrderReport]) -> tuple[Placement, ...]:
    """The tickets that a list of orders shows: by ``cOID``, and a found parent's children by what they are."""
    by_reference = {order.order_ref: order.order_id for order in orders if order.order_ref}
    known = [
        (ticket, by_reference[ticket.client_order_id])
        for ticket in tickets
        if ticket.client_order_id and ticket.client_order_id in by_reference
    ]
    by_parent = {ticket.client_order_id: order_id for ticket, order_id in known}
    for parent, order_id in by_parent.items():
        children = [order for order in orders if order.parent_id == order_id]
        mine = tuple(t for t in tickets if not t.client_order_id and t.parent == parent)
        known.extend(pair(mine, children))
    return in_order(tickets, known)


_TYPE_WORDS = {
    "MKT": "MKT", "MARKET": "MKT", "LMT": "LMT", "LIMIT": "LMT", "STP": "STP", "STOP": "STP",
    "STOPLIMIT": "STOP_LIMIT", "STPLMT": "STOP_LIMIT", "STOPLMT": "STOP_LIMIT", "STOP_LIMIT": "STOP_LIMIT",
    "TRAIL": "TRAIL", "TRAILINGSTOP": "TRAIL", "TRAILLMT": "TRAILLMT", "TRAILLIMIT": "TRAILLMT",
    "TRAILINGSTOPLIMIT": "TRAILLMT",
}  # fmt: skip


def type_word(text: str | None) -> str:
    """IBKR's request word for the many ways it writes an order type (``Stop``, ``STOP_LIMIT`` …)."""
    plain = (text or "").upper().replace(" ", "")
    return _TYPE_WORDS.get(plain, _TYPE_WORDS.get(plain.replace("_", ""), plain))


def pair(tickets: Sequence[OrderTicket], reports: Iterable[OrderReport]) -> list[tuple[OrderTicket, str]]:
    """Tickets and reports of the same type, side where told, and nearest price; both sides may stay incomplete."""
    free = list(reports)
    pairs = []
    for ticket in tickets:
        same = [
            r
            for r in free
            if type_word(r.order_type) == ticket.order_type.value and r.side in (None, ticket.side)
        ]
        if not same:
            continue
        price = ticket.limit_price if ticket.limit_price is not None else ticket.stop_price

        def distance(report: OrderReport, price: float | None = price) -> float:
            other = report.limit_price if report.limit_price is not None else report.stop_price
            return abs((other or 0.0) - (price or 0.0))

        best = min(same, key=distance)
        free.remove(best)
        pairs.append((ticket, best.order_id))
    return pairs
