"""Reading an account whole: positions, executions, orders and cash, or nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from decimal import Decimal

import msgspec

from bt_ibkr.errors import SessionError
from bt_ibkr.model.order import Execution, OrderReport
from bt_ibkr.model.portfolio import LedgerLine, Position
from bt_ibkr.services.portfolio import PortfolioService

#: Positions are believed once they were the same twice while executions were read between.
_SNAPSHOT_TRIES = 3


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """An account as it was read: positions and executions belong together."""

    positions: tuple[Position, ...]
    executions: tuple[Execution, ...]
    orders: tuple[OrderReport, ...]
    ledger: dict[str, LedgerLine]


async def read_account(portfolio: PortfolioService, account: str, days: int) -> Reading:
    """Everything of an account; positions stood still while executions were read.

    Raises:
        BtIbkrError: Something could not be read whole.
    """
    # The order list and the trades are each limited to one call in five seconds: ask side by side.
    listing = asyncio.create_task(portfolio.live_orders(account), name="live-orders")
    try:
        positions = await portfolio.positions(account)
        for _ in range(_SNAPSHOT_TRIES):
            executions = await portfolio.trades(account, days)
            again = await portfolio.positions(account)
            still = quantities(again) == quantities(positions)
            positions = again
            if still:
                break
        else:
            raise SessionError(
                f"Positions of {account} changed at each of {_SNAPSHOT_TRIES} readings: no moment to start from.",
                remedy="Start when no other client trades in the account.",
            )
        orders = await listing
    finally:
        listing.cancel()
        # Its error is nobody's, where positions could not be read either.
        await asyncio.gather(listing, return_exceptions=True)
    ledger = await portfolio.ledger(account)
    worth = ledger["BASE"].stock_value if "BASE" in ledger else None
    if worth and not positions:
        raise SessionError(
            f"IBKR lists no position of {account}, but values its stocks at {worth}: the list is not whole.",
            remedy="It is read again.",
        )
    return Reading(
        positions=positions,
        executions=tuple(e for e in executions if e.account == account),
        orders=tuple(o for o in orders if o.account == account),
        ledger=ledger,
    )


def quantities(positions: Sequence[Position]) -> dict[int, Decimal]:
    """Sizes by contract, of those that are not flat."""
    return {one.conid: one.quantity for one in positions if one.quantity}
