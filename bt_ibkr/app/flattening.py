"""Closing all positions of an account at the market, once, by journaled orders of the name ``flatten``.

Trading is halted first and stays halted: nobody else may close the same positions meanwhile, which would turn them.
Each position is closed by one order, written down before it is sent and never sent again; what is left is told.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Final

import msgspec

from bt_ibkr.app.cancelling import Cancelled, cancel_all
from bt_ibkr.app.visit import Visit, read_positions
from bt_ibkr.clock import NS_PER_S
from bt_ibkr.desk.closing import Opposites, closes, unpaired
from bt_ibkr.desk.lookup import look
from bt_ibkr.desk.reconcile import GRACE_S
from bt_ibkr.desk.switch import FLATTEN
from bt_ibkr.errors import BtIbkrError, JournalError, OrderRefusedError, SessionError
from bt_ibkr.journal import Journal, JournalOrder
from bt_ibkr.model.intent import UNPROVEN, OrderIntent, OrderState, make_key
from bt_ibkr.model.order import Execution, OrderStatus, Side
from bt_ibkr.model.portfolio import Position
from bt_ibkr.services.conversation import BrokenOffError, Stage

#: How often an order that certainly did not reach IBKR is sent, in all.
_SENDINGS: Final = 3
_PAUSES_S: Final = (0.1, 0.2, 0.5, 1.0)
_ENDS: Final = {
    OrderStatus.FILLED: OrderState.FILLED,
    OrderStatus.CANCELLED: OrderState.CANCELLED,
    OrderStatus.FAILED: OrderState.REJECTED,
}


class Closing(msgspec.Struct, frozen=True, kw_only=True):
    """One position, the order that closes it, and what became of that.

    Attributes:
        quantity: Of the order; ``filled`` of it has executed.
        state: In the journal.
    """

    key: str
    order_id: str | None
    conid: int
    symbol: str
    side: str
    quantity: float
    filled: float
    state: str
    text: str = ""


class Left(msgspec.Struct, frozen=True, kw_only=True):
    """A position that is not closed; ``quantity`` is signed."""

    conid: int
    symbol: str
    quantity: float


class Flattened(msgspec.Struct, frozen=True, kw_only=True):
    """What was done, and what is left; ``problem`` tells why that is not certain."""

    cancelled: tuple[Cancelled, ...]
    closed: tuple[Closing, ...]
    left: tuple[Left, ...]
    problem: str = ""


async def flatten(visit: Visit, journal: Journal, *, external: bool, wait_s: float) -> Flattened:
    """Cancel, close, wait; trading was halted before.

    Args:
        visit: The account.
        journal: Its journal.
        external: Cancel orders of other programs, too.
        wait_s: At most so long for cancellations, and for executions.

    Raises:
        OrderRefusedError: Orders that close positions are open already.
        BtIbkrError: Positions could not be read: nothing was sent.
    """
    account = visit.account
    # Read before anything else: whoever closes positions at the same time takes the same numbers, and the journal
    # lets only one of them have them.
    first = journal.next_sequences().get(FLATTEN, 1)
    await _settle(visit, journal, wait_s=0)
    cancelled = await cancel_all(visit, journal, account, external=external, wait_s=wait_s)
    await _settle(visit, journal, wait_s=0)
    _refuse_second(journal, account)
    positions = await _positions(visit, journal)
    opposites = Opposites(visit.contracts)
    found = [close async for close in closes(positions, opposites)]
    intents = [
        close.intent(make_key(FLATTEN, journal.epoch, first + turn)) for turn, close in enumerate(found)
    ]
    journal.intend(intents, closing=True)
    for intent in intents:
        await _send(visit, journal, intent)
    await _settle(visit, journal, wait_s=wait_s)
    closed = tuple(
        _line(order, close.position.symbol)
        for intent, close in zip(intents, found, strict=True)
        if (order := journal.order(intent.key)) is not None
    )
    left, problem = await _left(visit, positions, closed, opposites.pairs, wait_s)
    return Flattened(cancelled=tuple(cancelled), closed=closed, left=left, problem=problem)


def _open(journal: Journal, account: str) -> list[JournalOrder]:
    standing = journal.orders(open_only=True, strategy=FLATTEN)
    return [one for one in standing if one.intent.ticket.account == account]


def _refuse_second(journal: Journal, account: str) -> None:
    standing = _open(journal, account)
    if not standing:
        return
    keys = ", ".join(f"{one.key} ({one.state})" for one in standing)
    raise OrderRefusedError(
        f"Orders that close positions of {account} are open already: {keys}. Closing twice would turn the positions.",
        remedy="Wait for their end and run it again. If IBKR's own programs show that one does not stand: bt-ibkr "
        "journal resolve KEY --as absent.",
    )


# -- positions -----------------------------------------------------------------------------------------


async def _positions(visit: Visit, journal: Journal) -> tuple[Position, ...]:
    """IBKR's positions, once they have followed the executions that there were, or had the time to.

    Raises:
        BtIbkrError: They cannot be read, or never stand still.
    """
    account, deadline = visit.account, time.monotonic() + GRACE_S
    while True:
        late = time.monotonic() >= deadline
        try:
            before = await read_positions(visit)
            trades = [one for one in await visit.portfolio.trades(account) if one.account == account]
            positions = await read_positions(visit)
            if _quantities(before) != _quantities(positions):
                raise SessionError(
                    f"Positions of {account} change at every reading: none was closed.",
                    remedy="End what else trades in the account, and run it again.",
                )
        except BtIbkrError:
            if late:
                raise
        else:
            newest_ns = max((one.time_ns for one in trades), default=0)
            old = visit.clock.now_ns() - newest_ns > GRACE_S * NS_PER_S
            if late or old or _recorded(journal, account, trades) == _quantities(positions):
                return positions
        await asyncio.sleep(_PAUSES_S[-1])


def _recorded(journal: Journal, account: str, trades: Sequence[Execution]) -> dict[int, Decimal] | None:
    """What record and executions make of the positions; ``None`` where there is no record."""
    baseline = journal.positions_baseline(account)
    if baseline is None:
        return None
    held = dict(baseline.positions)
    for conid, change in journal.changes_since_baseline(account).items():
        held[conid] = held.get(conid, Decimal(0)) + change
    for one in trades:
        if not one.legs and not journal.versions(account, one.execution_id):
            held[one.conid] = held.get(one.conid, Decimal(0)) + one.quantity * one.side.sign
    return {conid: quantity for conid, quantity in held.items() if quantity}


def _quantities(positions: Sequence[Position]) -> dict[int, Decimal]:
    return {one.conid: one.quantity for one in positions if one.quantity}


async def _left(
    visit: Visit,
    before: Sequence[Position],
    closed: Sequence[Closing],
    pairs: Mapping[int, int],
    wait_s: float,
) -> tuple[tuple[Left, ...], str]:
    """What IBKR shows of the positions once it has followed the executions, or had the time to; and why it could not
    be read, where it is told by executions alone."""
    expected = _quantities(before)
    for one in closed:
        change = Decimal(str(one.filled)) * Side(one.side).sign
        expected[one.conid] = expected.get(one.conid, Decimal(0)) + change
    expected = unpaired(expected, pairs)
    names = {one.conid: one.symbol for one in before}
    deadline = time.monotonic() + min(wait_s, GRACE_S)
    while True:
        found, problem = expected, ""
        try:
            positions = await read_positions(visit)
        except BtIbkrError as trouble:
            problem = f"What is left is told by executions alone: {trouble.message}"
        else:
            found = unpaired(_quantities(positions), pairs)
            names |= {one.conid: one.symbol for one in positions}
        if (found == expected and not problem) or time.monotonic() >= deadline:
            left = (
                Left(conid=conid, symbol=names[conid], quantity=float(quantity))
                for conid, quantity in found.items()
            )
            return tuple(left), problem
        await asyncio.sleep(_PAUSES_S[-1])


# -- orders --------------------------------------------------------------------------------------------


async def _send(visit: Visit, journal: Journal, intent: OrderIntent) -> None:
    """Once; what became of it is in the journal."""
    for turn in range(_SENDINGS):
        try:
            outcome = await visit.orders.place((intent.ticket,))
        except OrderRefusedError as refused:
            stands = "already registered" in refused.message.lower()
            state = OrderState.UNKNOWN if stands else OrderState.REJECTED
            _note(journal, intent.key, state, text=refused.message)
            return
        except BrokenOffError as broken:
            if broken.stage is not Stage.UNSENT:
                _note(journal, intent.key, OrderState.UNKNOWN, text=broken.message)
                return
            if turn == _SENDINGS - 1:
                _note(journal, intent.key, OrderState.REJECTED, text=f"It was not sent: {broken.message}")
                return
            await asyncio.sleep(_PAUSES_S[-1])
        except BtIbkrError as problem:
            _note(journal, intent.key, OrderState.UNKNOWN, text=problem.message)
            return
        else:
            if outcome.placed:
                _note(journal, intent.key, OrderState.WORKING, order_id=outcome.placed[0].order_id)
            elif outcome.refusal is not None:
                _note(journal, intent.key, OrderState.REJECTED, text=outcome.refusal.message)
            else:
                _note(journal, intent.key, OrderState.UNKNOWN, text="IBKR's answer names no order")
            return


async def _settle(visit: Visit, journal: Journal, *, wait_s: float) -> None:
    """Find out what became of the open orders that close positions, and of nobody else's."""
    account, deadline, turn = visit.account, time.monotonic() + wait_s, 0
    keys = [one.key for one in _open(journal, account)]
    if not keys:
        return
    while True:
        for order in _open(journal, account):
            await _look_at(visit, journal, order)
        if not _open(journal, account) or time.monotonic() >= deadline:
            break
        await asyncio.sleep(_PAUSES_S[min(turn, len(_PAUSES_S) - 1)])
        turn += 1
    while True:
        await _take_executions(visit, journal)
        ended = [one for key in keys if (one := journal.order(key)) is not None]
        lacking = any(one.state is OrderState.FILLED and one.remaining for one in ended)
        if not lacking or time.monotonic() >= deadline:
            return
        await asyncio.sleep(_PAUSES_S[-1])


async def _look_at(visit: Visit, journal: Journal, order: JournalOrder) -> None:
    order_id = order.order_id
    try:
        if order.state in UNPROVEN:
            sighting = await look(visit.portfolio, (order.intent.ticket,))
            if not sighting.placed:
                return
            order_id = sighting.placed[0].order_id
            _note(journal, order.key, OrderState.WORKING, order_id=order_id)
        if order_id is None:
            return
        report = await visit.orders.status(order_id)
    except JournalError:
        raise
    except BtIbkrError:
        # Looked at again, or left as it is: nothing may be concluded.
        return
    end = None if report.status is None else _ENDS.get(report.status)
    if end is not None:
        _note(journal, order.key, end, text=report.reason or "")


async def _take_executions(visit: Visit, journal: Journal) -> None:
    """Executions of orders that close positions; a strategy that runs takes them in as well, and they count once."""
    try:
        trades = await visit.portfolio.trades(visit.account)
    except BtIbkrError:
        return
    rows = []
    for one in trades:
        owner = journal.by_order_id(visit.account, one.order_id) if one.order_id else None
        if owner is None and one.order_ref:
            owner = journal.order(one.order_ref)
        if one.account == visit.account and owner is not None and owner.intent.strategy == FLATTEN:
            rows.append((one, owner.key, "trades"))
    journal.add_executions(rows)


def _note(
    journal: Journal, key: str, state: OrderState, *, order_id: str | None = None, text: str = ""
) -> None:
    """A strategy that runs may have noted the same, or more, meanwhile."""
    try:
        journal.note(key, state, order_id=order_id, text=text)
    except JournalError:
        standing = journal.order(key)
        if standing is None or standing.is_open:
            raise


def _line(order: JournalOrder, symbol: str) -> Closing:
    ticket = order.intent.ticket
    return Closing(
        key=order.key,
        order_id=order.order_id,
        conid=ticket.contract_id,
        symbol=symbol,
        side=ticket.side.value,
        quantity=float(ticket.quantity),
        filled=float(order.filled),
        state=order.state.value,
        text=order.text,
    )
