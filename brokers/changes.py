"""Modifications of orders that stand: asked for one at a time, shown when IBKR has taken them.

IBKR wants the whole original order again with what changes. Until it has answered, the order is as it was; what a
fill does in between is settled by executions.
"""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Callable
from decimal import Decimal
from numbers import Real
from types import SimpleNamespace
from typing import Any, NamedTuple

from bt_ibkr.brokers.outgoing import Outgoing
from bt_ibkr.brokers.records import Change, Records, Working
from bt_ibkr.brokers.tickets import check_size, exact, round_to_tick, wishes_of
from bt_ibkr.brokers.validity import expiry_ns, time_in_force
from bt_ibkr.connection.interface import AccountEvent, Connection, ModifyFailed, OrderModified
from bt_ibkr.connection.mailbox import Mailbox
from bt_ibkr.errors import BtIbkrError, OrderRefusedError, OutcomeUnknownError
from bt_ibkr.feeds.ibkr_data import contract_of
from bt_ibkr.feeds.times import day_number
from bt_ibkr.model.order import OrderTicket, modified
from bt_ibkr.model.order_words import MAY_LIMIT, MAY_STOP, TRAILING

_log = logging.getLogger(__name__)


class Wanted(NamedTuple):
    """The arguments of ``modify``; ``None`` leaves as it is."""

    price: Any = None
    plimit: Any = None
    size: Any = None
    valid: Any = None
    trailamount: Any = None
    trailpercent: Any = None
    tif: Any = None


class Changes:
    """Sends modifications and shows them on backtrader's orders.

    Args:
        connection: The way out.
        events: Where answers go.
        records: The broker's orders.
        outgoing: Watches expiries.
        round_prices: Whether prices are rounded to the contract's tick.
        resized: Called when an order has another size: it may be complete now.
    """

    def __init__(
        self,
        connection: Connection,
        events: Mailbox[AccountEvent],
        records: Records,
        outgoing: Outgoing,
        *,
        round_prices: bool,
        resized: Callable[[Working], None],
    ) -> None:
        self._connection = connection
        self._events = events
        self._records = records
        self._outgoing = outgoing
        self._round = round_prices
        self._resized = resized

    def ask(self, order: Any, wanted: Wanted) -> None:
        """Ask IBKR for the change, or wait until it can be asked for.

        Raises:
            OrderRefusedError: The order has ended, or the change cannot be said to IBKR.
        """
        working = self._records.of(order)
        if working is None:
            raise OrderRefusedError(
                f"modify: order {getattr(order, 'ref', order)!r} is none of this broker's."
            )
        if working.done:
            raise OrderRefusedError(
                f"modify: the order {working.key} is {working.order.getstatusname()}.",
                remedy="Place a new order.",
            )
        base = working.changes[-1].ticket if working.changes else working.ticket
        fields = self._fields(working, base, wanted)
        expiry = wanted.valid is not None or wanted.tif is not None
        expires_ns = self._expires_ns(working, wanted) if expiry else None
        if expiry and all(getattr(base, name) == value for name, value in fields.items()):
            # Nothing that IBKR knows of changes, only the moment at which the adapter cancels.
            for change in working.changes:
                change.expiry = False
            self._set_expiry(working, expires_ns)
            self._records.notify(working.order)
            return
        ticket = modified(base, **fields)
        if not working.submitted:
            working.ticket = ticket
            self._show(working, ticket)
            if expiry:
                self._set_expiry(working, expires_ns)
            return
        change = Change(ticket, fields, expiry=expiry, expires_ns=expires_ns)
        working.changes.append(change)
        self.send(working)

    def send(self, working: Working) -> None:
        """Send the oldest change that waits, if none is under way and the order has an id."""
        if working.done or working.order_id is None or not working.changes or working.changes[0].sent:
            return
        change = working.changes[0]
        change.sent = True
        if change.expiry:
            # Whatever becomes of the change: after a restart the order does not stand longer than was wanted.
            known = [one for one in (working.expires_ns, change.expires_ns) if one is not None]
            self._keep_expiry(working, min(known, default=None))
        try:
            self._connection.modify(working.key, change.ticket, self._events)
        except BtIbkrError as problem:
            self.take_failed(working, ModifyFailed(working.key, problem))

    # -- answers -------------------------------------------------------------------------------------

    def take_modified(self, working: Working, event: OrderModified) -> None:
        """IBKR took a change."""
        change = working.changes.popleft() if working.changes and working.changes[0].sent else None
        working.ticket = event.ticket
        self._show(working, event.ticket)
        if change is not None and change.expiry:
            self._set_expiry(working, change.expires_ns)
        if working.done:
            return
        self._records.notify(working.order)
        self._resized(working)
        self.send(working)

    def take_failed(self, working: Working, event: ModifyFailed) -> None:
        """A change was refused, or its outcome is not known: the order is shown as it was."""
        _log.warning("modify-failed key=%s problem=%s", working.key, event.error)
        self._records.tell("modify-failed", working.order, error=event.error)
        if isinstance(event.error, OutcomeUnknownError):
            self._records.problem(str(event.error))
        if working.changes and working.changes[0].sent:
            change = working.changes.popleft()
            if change.expiry and not isinstance(event.error, OutcomeUnknownError):
                self._keep_expiry(working, working.expires_ns)
        self._rebase(working)
        self._resized(working)
        self.send(working)

    def _rebase(self, working: Working) -> None:
        """What waited behind a change that failed is asked for on top of the order as it stands."""
        waiting = list(working.changes)
        working.changes.clear()
        base = working.ticket
        for change in waiting:
            try:
                base = change.ticket = modified(base, **change.changes)
            except OrderRefusedError as problem:
                self._records.tell("modify-failed", working.order, error=problem)
                continue
            working.changes.append(change)

    # -- what changes ----------------------------------------------------------------------------------

    def _fields(self, working: Working, base: OrderTicket, wanted: Wanted) -> dict[str, Any]:
        """The ticket's fields for backtrader's words."""
        kind, what = base.order_type, f"modify {working.key}"
        fields: dict[str, Any] = {}
        if wanted.price is not None:
            name = "stop_price" if kind in MAY_STOP else "limit_price"
            fields[name] = self._price(working, wanted.price, f"{what}: price")
        if wanted.plimit is not None:
            if kind not in MAY_STOP or kind not in MAY_LIMIT:
                raise OrderRefusedError(
                    f"{what}: plimit={wanted.plimit!r} has no meaning for type {kind.value}.",
                    remedy="Its price is said by price=.",
                )
            fields["limit_price"] = self._price(working, wanted.plimit, f"{what}: plimit")
        if wanted.trailamount is not None:
            fields["trail_amount"] = self._price(working, wanted.trailamount, f"{what}: trailamount")
        if wanted.trailpercent is not None:
            # backtrader counts percent as a fraction, IBKR in hundredths.
            fraction = _number(wanted.trailpercent, f"{what}: trailpercent")
            fields["trail_percent"] = float(Decimal(repr(fraction)) * 100)
        if wanted.size is not None:
            fields["quantity"] = self._quantity(working, wanted.size, what)
        if wanted.valid is not None or wanted.tif is not None:
            tif = wishes_of({"tif": wanted.tif}, what).tif
            fields["time_in_force"] = time_in_force(wanted.valid, tif)
        if not fields:
            raise OrderRefusedError(
                f"{what}: nothing to change was given.",
                remedy="Give price, plimit, size, valid, trailamount, trailpercent or tif.",
            )
        return fields

    def _price(self, working: Working, value: Any, what: str) -> float:
        number = _number(value, what)
        if not self._round:
            return number
        return round_to_tick(number, contract_of(working.order.data).tick_at(number))

    @staticmethod
    def _quantity(working: Working, size: Any, what: str) -> Decimal:
        """The whole size of the order, what has executed included."""
        quantity = exact(check_size(size, what))
        if quantity <= working.filled:
            raise OrderRefusedError(
                f"{what}: size {quantity:f} is not above the {working.filled:f} that have executed.",
                remedy="Cancel what is left of the order.",
            )
        return quantity

    def _expires_ns(self, working: Working, wanted: Wanted) -> int | None:
        stand_in = SimpleNamespace(p=SimpleNamespace(valid=wanted.valid), data=working.order.data)
        return expiry_ns(
            stand_in,
            contract_of(working.order.data),
            self._connection.clock.now_ns(),
            extended=working.ticket.outside_regular_hours,
        )

    def _set_expiry(self, working: Working, expires_ns: int | None) -> None:
        working.expires_ns = expires_ns
        working.order.valid = None if expires_ns is None else day_number(expires_ns)
        self._outgoing.watch(working)
        if working.submitted:
            self._keep_expiry(working, expires_ns)

    def _keep_expiry(self, working: Working, expires_ns: int | None) -> None:
        """On record, for a restart."""
        try:
            self._connection.set_expiry(working.key, expires_ns)
        except BtIbkrError as problem:
            _log.warning("expiry-not-kept key=%s problem=%s", working.key, problem)

    # -- backtrader's order ------------------------------------------------------------------------------

    def _show(self, working: Working, ticket: OrderTicket) -> None:
        """The order's fields as ``ticket`` has them; clones that were handed out before stay as they are."""
        order = working.order
        order.created = copy.copy(order.created)
        if ticket.quantity:
            working.quantity = ticket.quantity
            order.size = order.created.size = _plain(ticket.quantity * ticket.side.sign)
            order.executed.remsize = _plain(working.remaining * ticket.side.sign)
        show_prices(order, ticket)


def show_prices(order: Any, ticket: OrderTicket) -> None:
    """Price, limit and trail of a ticket in backtrader's words."""
    kind = ticket.order_type
    price = ticket.stop_price if kind in MAY_STOP else ticket.limit_price
    if price is not None:
        order.price = order.created.price = price
    if kind in MAY_STOP and ticket.limit_price is not None:
        order.pricelimit = order.plimit = order.created.pricelimit = order.created.plimit = ticket.limit_price
    if kind in TRAILING:
        order.trailamount = order.created.trailamount = ticket.trail_amount
        percent = ticket.trail_percent
        order.trailpercent = order.created.trailpercent = None if percent is None else percent / 100


def _number(value: Any, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (Real, Decimal)) or not math.isfinite(value):
        raise OrderRefusedError(f"{what}={value!r} is not a number.", remedy="Give a finite number.")
    return float(value)


def _plain(size: Decimal) -> int | float:
    return int(size) if size == size.to_integral_value() else float(size)
