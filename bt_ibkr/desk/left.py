"""What one order and its record tell after a restart, put together. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal

import msgspec

from bt_ibkr.desk.changes import ASKED, REFUSED, shows
from bt_ibkr.desk.registry import Tracked
from bt_ibkr.journal import EventKind, JournalEvent
from bt_ibkr.journal.tables import decode_ticket
from bt_ibkr.model.intent import OrderState
from bt_ibkr.model.order import Execution, OrderReport, OrderStatus, OrderTicket


def change_made(
    events: Iterable[JournalEvent], ticket: OrderTicket, report: OrderReport | None
) -> OrderTicket | None:
    """The ticket of a change that was asked for, was never answered, and was made as the order's figures show.

    Args:
        events: The order's log.
        ticket: As it stood before.
        report: What IBKR says of the order now.
    """
    asked: OrderTicket | None = None
    for event in events:
        if event.kind == ASKED:
            asked = decode_ticket(event.payload)
        elif event.kind in (EventKind.TICKET, REFUSED):
            asked = None
    if asked is None or report is None:
        return None
    return asked if shows(report, ticket, asked) else None


def named(execution: Execution, key: str | None) -> Execution:
    """With the key of its order, which a bracket's child does not carry on the wire."""
    if key is None or execution.order_ref is not None:
        return execution
    return msgspec.structs.replace(execution, order_ref=key)


def state_of(status: OrderStatus | None, filled: Decimal, tracked: Tracked) -> OrderState | None:
    """Where an order stands by IBKR's word, or by its executions where IBKR has none."""
    if filled >= tracked.ticket.quantity > 0:
        return OrderState.FILLED
    if status is OrderStatus.FILLED:
        return OrderState.FILLED
    if status is OrderStatus.CANCELLED:
        return OrderState.CANCELLED
    if status is OrderStatus.FAILED:
        return OrderState.REJECTED
    if status is not None:
        return OrderState.WORKING
    return OrderState.WORKING if filled else None
