"""Cancelling from the command line: asked for over a connection of its own, and followed to the end.

The journal is told that it was asked for; what came of it is for its owner, now or at its next start.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterable
from enum import StrEnum
from typing import Final

import msgspec

from bt_ibkr.app.order_list import Listing, read_orders
from bt_ibkr.app.visit import Visit
from bt_ibkr.errors import BtIbkrError, JournalError, OrderRefusedError
from bt_ibkr.journal import Journal, JournalOrder
from bt_ibkr.model.intent import UNPROVEN
from bt_ibkr.model.order import DONE, OrderReport, OrderStatus

#: How often a cancellation whose answer was lost is asked for; asking twice does no harm.
_TRIES: Final = 3
#: Between looks at an order that is to end, seconds; the last goes on.
_PAUSES_S: Final = (0.1, 0.2, 0.5, 1.0)


class Ending(StrEnum):
    """What became of an order that was to be cancelled."""

    CANCELLED = "cancelled"
    #: It had executed before.
    FILLED = "filled"
    #: It never stood.
    FAILED = "failed"
    REFUSED = "refused"
    #: Asked for, but it did not end in time, or its end was not to be seen.
    OPEN = "open"
    #: Sent, but whether it stands is not known: there is nothing to cancel it by.
    UNKNOWN = "unknown"


#: Nothing of it is open any more.
OVER: Final = frozenset({Ending.CANCELLED, Ending.FILLED, Ending.FAILED})
_BY_STATUS: Final = {
    OrderStatus.CANCELLED: Ending.CANCELLED,
    OrderStatus.FILLED: Ending.FILLED,
    OrderStatus.FAILED: Ending.FAILED,
}


class Cancelled(msgspec.Struct, frozen=True, kw_only=True):
    """One order, and what became of it."""

    key: str | None
    order_id: str | None
    what: str
    result: Ending
    text: str = ""


async def cancel_orders(
    visit: Visit,
    journal: Journal | None,
    account: str,
    orders: Iterable[tuple[OrderReport, JournalOrder | None]],
    deadline: float,
) -> list[Cancelled]:
    """Ask for cancellations, side by side, and follow them until ``deadline`` (``time.monotonic``)."""
    return list(
        await asyncio.gather(
            *(_cancel(visit, journal, account, report, owner, deadline) for report, owner in orders)
        )
    )


async def cancel_all(
    visit: Visit, journal: Journal, account: str, *, external: bool, wait_s: float
) -> list[Cancelled]:
    """Cancel every open order, look again, and so on until there is none, or ``wait_s`` have passed.

    With trading halted no order is new. What the halt met on its way to IBKR stands in the journal as not yet
    answered, and is waited for.
    """
    deadline = time.monotonic() + wait_s
    found: dict[str, Cancelled] = {}
    while True:
        listing = await read_orders(visit, journal, account)
        live = listing.live(external=external)
        pairs = [(one, listing.owners.get(one.order_id)) for one in live]
        for line in await cancel_orders(visit, journal, account, pairs, deadline):
            found[line.order_id or ""] = line
        unproven = _unproven(listing)
        if not live and not unproven:
            return list(found.values())
        if time.monotonic() >= deadline:
            return [*found.values(), *(_unknown(one) for one in unproven)]
        await asyncio.sleep(_PAUSES_S[0])


def _unproven(listing: Listing) -> list[JournalOrder]:
    return [one for one in listing.missing if one.state in UNPROVEN]


def _unknown(order: JournalOrder) -> Cancelled:
    return Cancelled(
        key=order.key,
        order_id=None,
        what=order.intent.ticket.describe(),
        result=Ending.UNKNOWN,
        text=f"it is {order.state} in the journal, and IBKR does not list it",
    )


async def _cancel(
    visit: Visit,
    journal: Journal | None,
    account: str,
    report: OrderReport,
    owner: JournalOrder | None,
    deadline: float,
) -> Cancelled:
    key = None if owner is None else owner.key
    if journal is not None and key is not None:
        # A cancellation is never held back by what only keeps a record of it.
        with contextlib.suppress(JournalError):
            journal.note_event(key, "cancel-asked", "command line")
    problem = await _ask(visit, account, report.order_id, owner)
    result, text = await _follow(visit, report.order_id, deadline, once=problem is not None)
    if problem is not None and result is Ending.OPEN:
        result = Ending.REFUSED if isinstance(problem, OrderRefusedError) else Ending.OPEN
        text = problem.message
    return Cancelled(key=key, order_id=report.order_id, what=describe(report), result=result, text=text)


async def _ask(visit: Visit, account: str, order_id: str, owner: JournalOrder | None) -> BtIbkrError | None:
    problem: BtIbkrError | None = None
    for turn in range(_TRIES):
        try:
            if owner is not None:
                await visit.orders.cancel(owner.intent.ticket, order_id)
            else:
                await visit.orders.cancel_by_id(account, order_id)
        except OrderRefusedError as refused:
            return refused
        except BtIbkrError as lost:
            problem = lost
            await asyncio.sleep(_PAUSES_S[min(turn, len(_PAUSES_S) - 1)])
        else:
            return None
    return problem


async def _follow(visit: Visit, order_id: str, deadline: float, *, once: bool) -> tuple[Ending, str]:
    turn, text = 0, ""
    while True:
        try:
            report = await visit.orders.status(order_id)
        except BtIbkrError as problem:
            text = problem.message
        else:
            text = "" if report.status is None else f"IBKR calls it {report.status.value}"
            if report.status in DONE:
                return _BY_STATUS[report.status], ""
        if once or time.monotonic() >= deadline:
            return Ending.OPEN, text
        await asyncio.sleep(_PAUSES_S[min(turn, len(_PAUSES_S) - 1)])
        turn += 1


def describe(report: OrderReport) -> str:
    """``SELL 100 AAPL Limit 191.5``."""
    price = report.limit_price if report.limit_price is not None else report.stop_price
    parts = (
        report.side,
        None if report.total_quantity is None else f"{report.total_quantity:f}",
        report.symbol or report.conid,
        report.order_type,
        None if price is None else f"{price:g}",
    )
    return " ".join(str(part) for part in parts if part is not None)
