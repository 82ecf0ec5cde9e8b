"""What the broker knows of its orders beside backtrader's own record, and whom it tells."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import Any

import backtrader as bt

from bt_ibkr.clock import Clock
from bt_ibkr.feeds.times import day_number
from bt_ibkr.model.order import Execution, OrderStatus, OrderTicket


class Change:
    """A modification that IBKR has not answered yet.

    Attributes:
        ticket: What was asked for.
        changes: The ticket's fields that change, kept to be asked for again on top of another ticket.
        expires_ns: The new expiry, if ``expiry`` says that it changes.
        sent: Whether it is on its way; if not, it waits for the order's id or for the change before it.
    """

    __slots__ = ("changes", "expires_ns", "expiry", "sent", "ticket")

    def __init__(
        self, ticket: OrderTicket, changes: dict[str, Any], *, expiry: bool, expires_ns: int | None
    ) -> None:
        self.ticket = ticket
        self.changes = changes
        self.expiry = expiry
        self.expires_ns = expires_ns
        self.sent = False


#: How far the money that IBKR reports may be from what executions make of it: a fraction, and at least so much.
_MONEY_ROUNDS, _CENT = Decimal("0.001"), Decimal("0.01")


class Working:
    """One order.

    Attributes:
        order: backtrader's.
        key: The journal's; ``strategy`` is the name in it.
        ticket: As it stands at IBKR, or as it will be sent.
        quantity: To be executed; ``None`` where the order gives money instead of units.
        executions: Applied to it, by execution id, corrected ones as they are now.
        order_id: IBKR's.
        group: One-cancels-others group kept by the adapter.
        family: All orders of its submission.
        native: IBKR itself cancels the group's others.
        awaited: It was sent and has no answer of any kind yet.
        unknown: Its outcome is not known, and why; empty where it is.
        expiring: Its cancellation was asked for because its time had come.
        taken_back: What corrections took from its executions.
        ending: IBKR says that it ended so; true once every execution reported for it is applied.
    """

    def __init__(self, order: Any, key: str, strategy: str, ticket: OrderTicket) -> None:
        self.order = order
        self.key = key
        self.strategy = strategy
        self.ticket = ticket
        self.quantity: Decimal | None = ticket.quantity or None
        self.filled = Decimal(0)
        self.executions: dict[str, Execution] = {}
        self.order_id: str | None = None
        self.parent_key: str | None = None
        self.group: str | None = None
        self.family: list[Working] = [self]
        self.native = False
        self.submitted = False
        self.awaited = False
        self.accepted = False
        self.unknown = ""
        self.cancel_wanted = False
        self.expiring = False
        self.expires_ns: int | None = None
        self.changes: deque[Change] = deque()
        self.ending: OrderStatus | None = None
        self.reported_filled: Decimal | None = None
        self.taken_back = Decimal(0)
        #: The size as IBKR last told it: it reduces an order when another of its group executes in part.
        self.reported_total: Decimal | None = None
        self.done = False
        #: Told as refused by IBKR: should it stand all the same, the strategy does not know of it.
        self.refused = False

    @property
    def account(self) -> str:
        return self.ticket.account

    @property
    def remaining(self) -> Decimal:
        """What may still execute; 0 where that is not given in units."""
        return max((self.quantity or Decimal(0)) - self.filled, Decimal(0))

    def all_applied(self) -> bool:
        """Whether every execution that was reported for it has been applied, or taken back since."""
        told, units = self.reported_filled or Decimal(0), self.filled + self.taken_back
        if told <= units or self.quantity is not None:
            return told <= units
        # Of an order for an amount of money IBKR counts the money, to the cent or less.
        return abs(told - self._spent()) <= max(told * _MONEY_ROUNDS, _CENT)

    def _spent(self) -> Decimal:
        paid = (one.quantity * Decimal(repr(one.price)) for one in self.executions.values())
        return sum(paid, Decimal(0))

    def complete(self) -> bool:
        """Executed whole, by exact count: floats of fractional fills need not add up."""
        if self.quantity is None:
            filled = self.ending is OrderStatus.FILLED and self.reported_filled is not None
            return filled and self.all_applied()
        return self.filled >= self.most()

    def most(self) -> Decimal:
        """What may execute of it: a change that was asked for and is not answered may have made it larger."""
        asked = (change.ticket.quantity for change in self.changes if change.sent)
        return max(self.quantity or Decimal(0), *asked, Decimal(0))


#: Tells ``notify_store``: a word, what it is about, and more by name.
Tell = Callable[..., None]


class Records:
    """The orders of a run by every name they have, and the notifications that wait for cerebro.

    Args:
        clock: Market clock.
        tell: For ``notify_store``.
    """

    def __init__(self, clock: Clock, tell: Tell) -> None:
        self._clock = clock
        self.tell = tell
        #: What ``order.broker`` is.
        self.broker: Any = None
        self._by_ref: dict[int, Working] = {}
        self._by_key: dict[str, Working] = {}
        self._live: dict[str, Working] = {}
        self._notes: deque[Any] = deque()
        #: Notifications of orders whose feed has no bar yet: strategies cannot take a fill before.
        self._early: deque[Any] = deque()
        #: Every order, oldest first.
        self.orders: list[Any] = []
        #: Every execution applied to an order, in order, with the order's key.
        self.executions: list[tuple[str, Execution]] = []
        #: What a person should look at, in words.
        self.problems: list[str] = []

    def add(self, working: Working) -> None:
        self._by_ref[working.order.ref] = working
        self._by_key[working.key] = working
        if not working.done:
            self._live[working.key] = working
        self.orders.append(working.order)

    def of(self, order: Any) -> Working | None:
        """What is known of a backtrader order; ``None`` of an order that is none of this broker's."""
        return None if order is None else self._by_ref.get(order.ref)

    def find(self, key: str | None) -> Working | None:
        return None if key is None else self._by_key.get(key)

    @property
    def live(self) -> Iterable[Working]:
        """Orders that may still execute, oldest first; safe to end some while going through it."""
        return tuple(self._live.values())

    def awaiting(self) -> bool:
        """Whether an order was sent that has no answer of any kind yet."""
        return any(working.awaited for working in self._live.values())

    def problem(self, text: str) -> None:
        if text not in self.problems:
            self.problems.append(text)

    def settle(self, working: Working) -> None:
        """Something is known of what became of it."""
        working.awaited = False
        if working.unknown:
            if working.unknown in self.problems:
                self.problems.remove(working.unknown)
            working.unknown = ""

    # -- states ------------------------------------------------------------------------------------

    def end(self, working: Working, status: int) -> None:
        """The order's end, other than by execution, and its notification."""
        order = working.order
        self.close(working)
        order.status = status
        order.broker = self.broker
        order.executed.dt = self.moment(order.data)
        self.notify(order)

    def close(self, working: Working) -> None:
        """It will not execute any more, as far as is known."""
        working.done = True
        working.awaited = False
        working.changes.clear()
        self._live.pop(working.key, None)

    def moment(self, data: Any) -> float:
        """The last bar's time, or the clock's where there is none yet."""
        return float(data.datetime[0]) if len(data) else day_number(self._clock.now_ns())

    # -- notifications -----------------------------------------------------------------------------

    def notify(self, order: Any) -> None:
        """Queue a clone: one for each change, in order."""
        clone = order.clone()
        # The order that shows a position from before the run is of no bar.
        seed = clone.p.simulated and clone.exectype != bt.Order.Historical
        if seed or len(clone.data):
            self._notes.append(clone)
        else:
            self._early.append(clone)

    def take_note(self) -> Any:
        """The next notification that can be delivered; ``None`` if there is none."""
        if self._early:
            self._release_early()
        return self._notes.popleft() if self._notes else None

    def has_notes(self) -> bool:
        return bool(self._notes) or any(len(clone.data) for clone in self._early)

    def _release_early(self) -> None:
        ready = [clone for clone in self._early if len(clone.data)]
        if ready:
            self._early = deque(clone for clone in self._early if not len(clone.data))
            self._notes.extendleft(reversed(ready))
