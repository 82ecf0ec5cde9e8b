"""Orders on their way out: made, keyed, held until they are transmitted, sent as one submission, cancelled.

Everything that can be refused is refused here, before anything leaves. What leaves is an ``OrderIntent``: the risk
controls look at it and the journal keeps it before the request goes out.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from decimal import Decimal
from typing import Any, NamedTuple

import backtrader as bt
import msgspec

from bt_ibkr.brokers.books import Books
from bt_ibkr.brokers.groups import Groups
from bt_ibkr.brokers.names import Names
from bt_ibkr.brokers.records import Records, Working
from bt_ibkr.brokers.tickets import check_arguments, check_size, make_ticket
from bt_ibkr.brokers.validity import expiry_ns, is_moment, readable_valid
from bt_ibkr.clock import NS_PER_S
from bt_ibkr.connection.interface import AccountEvent, CancelFailed, Connection
from bt_ibkr.connection.mailbox import Mailbox
from bt_ibkr.errors import BtIbkrError, OrderRefusedError
from bt_ibkr.feeds.ibkr_data import contract_of, is_current
from bt_ibkr.model.intent import OrderIntent, make_key
from bt_ibkr.model.order import OrderTicket
from bt_ibkr.wire.order_answers import WhatIf

_log = logging.getLogger(__name__)

#: A cancellation at an order's expiry that was refused is asked for again after so long, market time.
_EXPIRE_AGAIN_NS = 5 * NS_PER_S

Info = dict[str, str | int | float | bool | None]


class OrderCall(NamedTuple):
    """The arguments of ``buy()`` or ``sell()``."""

    cls: Any
    owner: Any
    data: Any
    size: Any
    price: Any = None
    plimit: Any = None
    exectype: Any = None
    valid: Any = None
    tradeid: int = 0
    oco: Any = None
    trailamount: Any = None
    trailpercent: Any = None
    parent: Any = None
    transmit: bool = True
    info: dict[str, Any] = {}  # noqa: RUF012 - never written to


class OutgoingSettings(NamedTuple):
    """See the broker's parameters."""

    outside_rth: bool
    round_prices: bool


class Outgoing:
    """Makes orders and sends them.

    Args:
        connection: The way out.
        events: Where answers go.
        records, books, names: The broker's.
        settings: From the broker's parameters.
        scheme: The commission scheme of a data.
    """

    def __init__(
        self,
        connection: Connection,
        events: Mailbox[AccountEvent],
        records: Records,
        books: Books,
        names: Names,
        settings: OutgoingSettings,
        scheme: Callable[[Any], Any],
    ) -> None:
        self._connection = connection
        self._events = events
        self._records = records
        self._books = books
        self._names = names
        self._settings = settings
        self._scheme = scheme
        self.groups = Groups(self._cancel_because)
        self._held: dict[int, list[Working]] = {}
        self._timed: list[Working] = []
        self._epoch = ""
        self._sequences: dict[str, int] = {}

    def start(self, epoch: str, sequences: dict[str, int]) -> None:
        """What keys of new orders are made of."""
        self._epoch = epoch
        self._sequences = dict(sequences)

    # -- making --------------------------------------------------------------------------------------

    def order(self, call: OrderCall) -> Any:
        """The order of a ``buy()`` or ``sell()``, sent, held or rejected.

        Raises:
            OrderRefusedError: It can never be an order.
        """
        what = _what(call)
        order, ticket = self._make(call)
        now_ns = self._connection.clock.now_ns()
        expires_ns = expiry_ns(order, contract_of(call.data), now_ns, extended=ticket.outside_regular_hours)
        working = self._keyed(order, ticket, call.owner)
        working.expires_ns = expires_ns
        self._records.add(working)
        self.watch(working)
        if not is_current(call.data):
            why = f"{what}: the bar it was decided on is history, not the present market"
            self._refuse_submission(working, call, why)
        elif call.oco is None or self._join(working, call):
            self._queue_or_send(working, call)
        return order

    def what_if(self, call: OrderCall) -> WhatIf:
        """IBKR's preview of the order; nothing is placed."""
        _, ticket = self._make(call)
        return self._connection.what_if(ticket)

    def _make(self, call: OrderCall) -> tuple[Any, OrderTicket]:
        contract, what = contract_of(call.data), _what(call)
        size = check_size(call.size, what)
        prices = check_arguments(
            what,
            price=call.price,
            plimit=call.plimit,
            trailamount=call.trailamount,
            trailpercent=call.trailpercent,
        )
        is_moment(call.valid)
        if not len(call.data):
            raise OrderRefusedError(
                f"{what}: the order was placed before the first bar of {contract.symbol}.",
                remedy="Place orders in next(), or once len(self.data) is above 0.",
            )
        account = self._account(call, what)
        order = call.cls(
            owner=call.owner, data=call.data, size=size, price=prices["price"], pricelimit=prices["plimit"],
            exectype=call.exectype, valid=readable_valid(call.valid, call.data), tradeid=call.tradeid,
            trailamount=prices["trailamount"], trailpercent=prices["trailpercent"], parent=call.parent,
            transmit=call.transmit,
        )  # fmt: skip
        # As the user gave it: a date is its session's end, not the midnight that backtrader can take.
        order.p.valid = call.valid
        order.addinfo(**call.info)
        order.addcomminfo(self._scheme(call.data))
        ticket = make_ticket(
            order,
            account=account,
            contract=contract,
            client_order_id=None,
            parent=None,
            outside_regular_hours=self._settings.outside_rth,
            round_prices=self._settings.round_prices,
        )
        return order, ticket

    def _account(self, call: OrderCall, what: str) -> str:
        wanted = call.info.get("account")
        known = self._books.accounts
        if wanted is None:
            return known[0]
        if wanted not in known:
            raise OrderRefusedError(
                f"{what}: account={wanted!r} is not one that this broker trades in: {', '.join(known)}.",
                remedy="Name it before the run: store.getbroker(accounts=(…)).",
            )
        return str(wanted)

    def _keyed(self, order: Any, ticket: OrderTicket, owner: Any) -> Working:
        name = self._names.of(owner)
        number = self._sequences.get(name, 1)
        self._sequences[name] = number + 1
        key = make_key(name, self._epoch, number)
        parent = self._records.of(order.p.parent)
        # A bracket's child carries no id of its own on the wire.
        own = None if parent is not None else key
        ticket = msgspec.structs.replace(
            ticket, client_order_id=own, parent=None if parent is None else parent.key
        )
        working = Working(order, key, name, ticket)
        working.parent_key = ticket.parent
        return working

    def _join(self, working: Working, call: OrderCall) -> bool:
        """Into the group of ``oco``; not if that has executed or ended: the new one would stand alone."""
        other = self._records.of(call.oco)
        if other is None:
            self._refuse_submission(working, call, "oco= names no order of this broker")
        elif other.done or other.filled or self.groups.has_fired(other.group):
            why = f"the order that oco= names ({other.key}) has executed or ended"
            self._refuse_submission(working, call, why)
        else:
            self.groups.join(working, other)
            return True
        return False

    # -- holding and sending -------------------------------------------------------------------------

    def _queue_or_send(self, working: Working, call: OrderCall) -> None:
        order, parent, transmit = working.order, call.parent, call.transmit
        leader = parent if parent is not None else self._held_leader(call.oco)
        if leader is None:
            if transmit:
                self._send([working])
            else:
                self._held[order.ref] = [working]
            return
        held = self._held.get(leader.ref)
        if held is None:
            self._refuse(working, f"its parent (ref {leader.ref}) is not waiting to be transmitted")
            return
        held.append(working)
        if transmit:
            self._send(self._held.pop(leader.ref))

    def _held_leader(self, oco: Any) -> Any:
        """The first order of the submission that ``oco`` is held in; ``None`` if it is not held."""
        if oco is not None:
            for held in self._held.values():
                if any(working.order.ref == oco.ref for working in held):
                    return held[0].order
        return None

    def _send(self, submission: list[Working]) -> None:
        native = _is_native_group(submission)
        intents = []
        for working in submission:
            working.family = submission
            working.native = native
            protects = self._protects(working)
            if working.ticket.protective is not protects or working.ticket.one_cancels_all is not native:
                working.ticket = msgspec.structs.replace(
                    working.ticket, protective=protects, one_cancels_all=native
                )
            intents.append(_intent(working))
        refused: BtIbkrError | None = None
        try:
            # First of all: what is told of it can wait, and its answers are looked at later, on this thread.
            self._connection.place(tuple(intents), self._events)
        except BtIbkrError as problem:
            refused = problem
        for working in submission:
            working.submitted = working.awaited = True
            working.order.submit(self._records.broker)
            self._records.notify(working.order)
        if refused is not None:
            # Refused on the spot: nothing left.
            for working in submission:
                self._refuse(working, str(refused))

    def _protects(self, working: Working) -> bool:
        """Whether the order can only make the present position smaller."""
        book = self._books.of(working.account)
        held = Decimal(0) if book is None else book.exact(working.ticket.contract_id)
        if not held or working.quantity is None or working.order.isbuy() == (held > 0):
            return False
        return working.quantity <= abs(held)

    def _refuse(self, working: Working, why: str) -> None:
        _log.warning("order-refused key=%s why=%s", working.key, why)
        self._records.tell("order-refused", working.order, why=why)
        working.order.addinfo(reason=why)
        self._records.end(working, bt.Order.Rejected)
        self.ended(working)

    def _refuse_submission(self, working: Working, call: OrderCall, why: str) -> None:
        """Refuse an order, and those that wait to be sent with it: no entry leaves without its stop."""
        leader = call.parent if call.parent is not None else self._held_leader(call.oco)
        held = [] if leader is None else self._held.pop(leader.ref, [])
        self._refuse(working, why)
        for other in held:
            if not other.done:
                self._refuse(other, f"{working.key}, which belongs to it, was refused: {why}")

    def never_transmitted(self) -> list[Working]:
        """Orders that still wait for one with ``transmit=True``."""
        return [working for held in self._held.values() for working in held]

    # -- cancelling ----------------------------------------------------------------------------------

    def cancel(self, working: Working) -> None:
        """Ask IBKR to cancel; the order is Canceled when IBKR says so."""
        if working.done:
            return
        if not working.submitted:
            self._withdraw_held(working)
            return
        working.cancel_wanted = True
        self.cancel_key(working.key)

    def cancel_key(self, key: str) -> None:
        """The same by key, for orders that are none of this run's."""
        try:
            self._connection.cancel(key, self._events)
        except BtIbkrError as problem:
            self._events.append(CancelFailed(key, problem))

    def cancel_refused(self, working: Working) -> None:
        """The cancellation was refused: it may be asked for again."""
        working.cancel_wanted = False
        if working.expiring:
            working.expiring = False
            # Its time is over all the same.
            working.expires_ns = self._connection.clock.now_ns() + _EXPIRE_AGAIN_NS
            self.watch(working)

    def _withdraw_held(self, working: Working) -> None:
        """An order that was never transmitted: cancelled here, with its children."""
        group = self._held.pop(working.order.ref, None)
        if group is None:
            for held in self._held.values():
                if working in held:
                    held.remove(working)
            group = [working]
        for one in group:
            self._records.end(one, bt.Order.Canceled)
            self.ended(one)

    # -- groups --------------------------------------------------------------------------------------

    def executed(self, working: Working) -> None:
        """An execution was applied to it."""
        self.groups.fire(working.key, working.group)

    def ended(self, working: Working) -> None:
        """It will not execute any more."""
        self.groups.fire(working.key, working.group)

    def _cancel_because(self, key: str, other_key: str) -> None:
        other = self._records.find(other_key)
        if other is None:
            # Of an earlier run, and of no strategy of this one.
            self.cancel_key(other_key)
            return
        if other.done or other.cancel_wanted:
            return
        because = self._records.find(key)
        if because is not None and _ibkr_cancels(because, other):
            return
        self.cancel(other)

    # -- expiry --------------------------------------------------------------------------------------

    def watch(self, working: Working) -> None:
        """Cancel it when its time comes, if it has one."""
        if working.expires_ns is not None and not working.done and working not in self._timed:
            self._timed.append(working)

    def deadline_ns(self) -> int | None:
        """The next moment at which an order's time is over."""
        return min(
            (w.expires_ns for w in self._timed if w.expires_ns is not None and not w.done), default=None
        )

    def expiry_due(self) -> bool:
        if not self._timed:
            return False
        due = self.deadline_ns()
        return due is not None and due <= self._connection.clock.now_ns()

    def expire_due(self) -> None:
        """Ask for the cancellation of every order whose time is over."""
        now_ns = self._connection.clock.now_ns()
        due = [w for w in self._timed if w.expires_ns is not None and w.expires_ns <= now_ns]
        self._timed = [w for w in self._timed if w not in due and not w.done and w.expires_ns is not None]
        for working in due:
            if not working.done:
                working.expiring = True
                self.cancel(working)


def _what(call: OrderCall) -> str:
    return f"{'buy' if call.cls is bt.BuyOrder else 'sell'} {contract_of(call.data).symbol}"


def _is_native_group(submission: list[Working]) -> bool:
    """Whether IBKR can keep the group: several orders, all of one group, none a bracket's."""
    groups = {working.group for working in submission}
    return (
        len(submission) > 1
        and len(groups) == 1
        and None not in groups
        and all(working.parent_key is None for working in submission)
    )


def _ibkr_cancels(first: Working, other: Working) -> bool:
    """Whether IBKR itself cancels ``other`` once ``first`` is done: one native group, or one bracket's children."""
    if first.native and other.native:
        return first.group == other.group
    return first.parent_key is not None and first.parent_key == other.parent_key


def _intent(working: Working) -> OrderIntent:
    order = working.order
    return OrderIntent(
        key=working.key,
        strategy=working.strategy,
        ticket=working.ticket,
        parent_key=working.parent_key,
        group=working.group,
        expires_ns=working.expires_ns,
        dataname=getattr(order.data, "_name", "") or "",
        trade_id=order.tradeid if isinstance(order.tradeid, int) else 0,
        info=json_able(order.info),
    )


def json_able(info: dict[str, Any]) -> Info:
    """What of an order's ``info`` can be kept in the journal: texts, numbers, yes and no."""
    return {
        str(name): value
        for name, value in info.items()
        if value is None
        or isinstance(value, (str, bool, int))
        or (isinstance(value, float) and math.isfinite(value))
    }
