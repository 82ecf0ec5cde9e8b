"""Reading an account whole: positions, executions, orders and cash, or nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal

import msgspec

from bt_ibkr.errors import SessionError
from bt_ibkr.model.order import Execution, OrderReport
from bt_ibkr.model.portfolio import LedgerLine, Position
from bt_ibkr.services.portfolio import PortfolioService

#: Positions are believed once they were the same twice while executions were read between.
_SNAPSHOT_TRIES = 3
#: Bounds what is tried of executions that positions may lack: nobody trades so much in seconds.
_MOST_SUMS = 10_000


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


def caught_up(
    positions: tuple[Position, ...], expected: Mapping[int, Decimal], young: Sequence[Execution]
) -> tuple[Position, ...]:
    """Positions that lag behind the executions of the last moments, with those; others are left as they are.

    Args:
        positions: As they were read.
        expected: What record and executions make of them.
        young: Executions that IBKR's positions may not contain yet. What is missing has to be some of them, to the
            unit: any other difference is one.
    """
    found = {one.conid: one for one in positions}
    newest = {one.conid: one for one in sorted(young, key=lambda one: one.time_ns)}
    for conid, execution in newest.items():
        told = found.get(conid)
        wanted = expected.get(conid, Decimal(0))
        missing = wanted - (Decimal(0) if told is None else told.quantity)
        if missing and missing in _sums(effect(one) for one in young if one.conid == conid):
            found[conid] = _moved(told, execution, wanted)
    return tuple(found.values())


def _sums(effects: Iterable[Decimal]) -> set[Decimal]:
    """What some of them, any, come to."""
    found = {Decimal(0)}
    for one in effects:
        found |= {each + one for each in found}
        if len(found) > _MOST_SUMS:
            break
    return found


def _moved(told: Position | None, execution: Execution, quantity: Decimal) -> Position:
    if told is not None:
        return msgspec.structs.replace(told, quantity=quantity, market_value=None, unrealized_pnl=None)
    return Position(
        account=execution.account,
        conid=execution.conid,
        symbol=execution.symbol,
        quantity=quantity,
        average_price=execution.price,
        average_cost=execution.price,
        market_price=None,
        market_value=None,
        currency="",
        security_type="",
    )


def effect(execution: Execution) -> Decimal:
    """What it changes in the position."""
    return execution.quantity * execution.side.sign


def quantities(positions: Sequence[Position]) -> dict[int, Decimal]:
    """Sizes by contract, of those that are not flat."""
    return {one.conid: one.quantity for one in positions if one.quantity}
