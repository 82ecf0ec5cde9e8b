"""Looking up what became of orders whose answer was lost.

An order is found by its ``cOID`` in the list of orders, or by its executions; a bracket's children by their parent.
That it is missing from a list proves nothing: lists are cached, and empty for a while after some calls.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from bt_ibkr.model.order import Execution, OrderReport, OrderTicket
from bt_ibkr.services.matching import Placement, found
from bt_ibkr.services.portfolio import PortfolioService


class Sighting(msgspec.Struct, frozen=True, kw_only=True):
    """What one look at whole lists showed.

    Attributes:
        placed: The tickets that are there.
        orders, trades: The lists, for whoever can use more of them.
    """

    placed: tuple[Placement, ...]
    orders: tuple[OrderReport, ...]
    trades: tuple[Execution, ...]


async def look(portfolio: PortfolioService, tickets: Sequence[OrderTicket]) -> Sighting:
    """One look for ``tickets``, all of one account.

    Raises:
        BtIbkrError: A list could not be read, or was not whole: nothing may be concluded.
    """
    account = tickets[0].account
    orders = await portfolio.live_orders(account)
    trades = await portfolio.trades(account)
    return Sighting(placed=_sought(tickets, orders, trades), orders=orders, trades=trades)


def _sought(
    tickets: Sequence[OrderTicket], orders: Sequence[OrderReport], trades: Sequence[Execution]
) -> tuple[Placement, ...]:
    placed = {id(one.ticket): one for one in found(tickets, orders)}
    for ticket in tickets:
        if id(ticket) in placed or not ticket.client_order_id:
            continue
        for trade in trades:
            if trade.order_ref == ticket.client_order_id and trade.order_id:
                placed[id(ticket)] = Placement(ticket, trade.order_id)
                break
    return tuple(placed[id(ticket)] for ticket in tickets if id(ticket) in placed)
