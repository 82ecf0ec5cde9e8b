"""Orders from arrival to end: acceptance, groups, executions, cancellation, expiry."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Protocol

import msgspec

from bt_ibkr.emulator.accounts.account import Account
from bt_ibkr.emulator.accounts.margin import Intended, Margin
from bt_ibkr.emulator.accounts.valuation import Valuation, exact
from bt_ibkr.emulator.exchange import checks
from bt_ibkr.emulator.exchange.admission import Admission, Charges
from bt_ibkr.emulator.exchange.book import AT_CLOSE, Book, Working
from bt_ibkr.emulator.exchange.matching import FillModel
from bt_ibkr.emulator.exchange.states import enter
from bt_ibkr.emulator.market.sessions import in_session, next_close_ns, next_day_end_ns
from bt_ibkr.emulator.types import (
    EmulatedExecution,
    EmulatedOrder,
    Instrument,
    MarketEvent,
    OrderSpec,
    Placed,
)
from bt_ibkr.model.commission import CommissionSchedule
from bt_ibkr.model.order import OrderStatus, OrderType, TimeInForce

#: Ids look like those of the recorded frames and follow from the seed.
_FIRST_ORDER_ID = 912_091_175
_SEED_STRIDE = 100_000
_EXECUTION_PREFIX = 0x0001390E
_EXECUTION_COUNTER = 0x69F21453
_AT_ONCE = frozenset({OrderType.MARKET, OrderType.LIMIT, OrderType.MIDPRICE, OrderType.RELATIVE})


class Surroundings(Protocol):
    """What the exchange needs of the engine."""

    @property
    def now_ns(self) -> int: ...
    def book(self, conid: int) -> Book: ...
    def instrument(self, conid: int) -> Instrument | None: ...
    def schedule(self, at_ns: int, callback: Callable[[int], None]) -> int: ...
    def tell_order(self, order: EmulatedOrder) -> None: ...
    def tell_execution(self, execution: EmulatedExecution, order: EmulatedOrder) -> None: ...
    def tell_account(self, account: str) -> None: ...


class Exchange:
    """All orders of all accounts.

    Args:
        engine: Time, books and listener.
        accounts: By id.
        margin: Decides whether an account can afford an order.
        valuation: Present prices and rates.
        model: How orders execute.
        schedule: What executions cost.
        seed: Ids follow from it.
        regular_hours_enforced: Orders that are not marked for outside regular hours match only within them.
    """

    def __init__(
        self,
        engine: Surroundings,
        accounts: Mapping[str, Account],
        margin: Margin,
        valuation: Valuation,
        model: FillModel,
        schedule: CommissionSchedule,
        *,
        seed: int,
        regular_hours_enforced: bool,
    ) -> None:
        self._engine = engine
        self._accounts = accounts
        self._model = model
        self._charges = Charges(schedule, valuation)
        self._admission = Admission(accounts, margin, valuation, self._charges)
        self._regular_hours_enforced = regular_hours_enforced
        self._next_id = _FIRST_ORDER_ID + seed % 10_000 * _SEED_STRIDE
        self._execution_prefix = (_EXECUTION_PREFIX + seed) & 0xFFFFFFFF
        self._sequence = 0
        self._groups = 0
        self._working: dict[int, Working] = {}
        self._live: dict[int, Working] = {}
        self._by_client_id: dict[tuple[str, str], int] = {}
        self._members: dict[str, list[int]] = {}
        self._children: dict[int, list[int]] = {}
        self._timers: set[tuple[int, int]] = set()
        self.executions: list[EmulatedExecution] = []

    # ------------------------------------------------------------------ reading

    def order(self, order_id: int) -> EmulatedOrder | None:
        working = self._working.get(order_id)
        return None if working is None else working.order

    def orders(self, account: str | None = None) -> list[EmulatedOrder]:
        """All orders ever accepted, in order of arrival."""
        return [w.order for w in self._working.values() if account is None or w.order.spec.account == account]

    def working(self, order_id: int) -> Working | None:
        """An order with what matching knows of it, whatever has become of it."""
        return self._working.get(order_id)

    # ------------------------------------------------------------------ orders in

    def place(self, specs: Sequence[OrderSpec]) -> list[Placed]:
        """Take one submission; the answers stand in the order of the specs.

        Parents are taken before their children, wherever they stand. A refusal takes the children with it
        but nothing else: submissions are not atomic, as the real server's are not.
        """
        group = ""
        if any(spec.one_cancels_all for spec in specs):
            self._groups += 1
            group = f"oco-{_FIRST_ORDER_ID % 1_000_000 + self._groups}"
        answers: dict[int, Placed] = {}
        refused: set[str] = set()
        entered: list[Working] = []
        for index in sorted(range(len(specs)), key=lambda k: specs[k].parent_client_id is not None):
            spec = specs[index]
            if spec.parent_client_id in refused:
                # an older order may have the id that this submission's parent was refused for
                answers[index] = Placed(order=None, error=_no_parent(spec))
                continue
            answers[index] = self._accept(spec, group if spec.one_cancels_all else "")
            order = answers[index].order
            if order is not None:
                entered.append(self._working[order.order_id])
            elif spec.client_order_id is not None:
                refused.add(spec.client_order_id)
        for working in entered:
            if working.order.active:
                self._arrive(working)
        return [answers[index] for index in range(len(specs))]

    def _accept(self, spec: OrderSpec, group: str) -> Placed:
        instrument = self._engine.instrument(spec.conid)
        error = self._form_error(spec, instrument)
        parent: Working | None = None
        if error is None and spec.parent_client_id is not None:
            parent = self._parent_of(spec)
            error = _no_parent(spec) if parent is None else None
        if error is None and parent is None and instrument is not None:
            error = self._admission.funds_error(spec, instrument, self._live.values(), group=group)
        if error is not None or instrument is None:
            return Placed(order=None, error=error)
        return Placed(order=self._enter(spec, instrument, parent, group))

    def _parent_of(self, spec: OrderSpec) -> Working | None:
        """The order that the spec names as its parent, if it can still have children.

        It cannot if it was cancelled, or one of its children has been filled.
        """
        parent_id = self._by_client_id.get((spec.account, spec.parent_client_id or ""))
        if parent_id is None:
            return None
        parent = self._working[parent_id]
        children = [self._working[child].order.status for child in self._children.get(parent_id, ())]
        if (
            parent.order.status in (OrderStatus.CANCELLED, OrderStatus.FAILED)
            or OrderStatus.FILLED in children
        ):
            return None
        return parent

    def _form_error(self, spec: OrderSpec, instrument: Instrument | None) -> str | None:
        if spec.client_order_id and (spec.account, spec.client_order_id) in self._by_client_id:
            return f"Local order ID={spec.client_order_id} is already registered."
        return self._admission.form_error(spec, instrument)

    def preview(self, spec: OrderSpec) -> tuple[str | None, Intended | None]:
        """The refusal that placing would meet, and the order as margin sees it."""
        instrument = self._engine.instrument(spec.conid)
        error = self._form_error(spec, instrument)
        if error is not None or instrument is None:
            return error, None
        error = self._admission.funds_error(spec, instrument, self._live.values(), group="")
        return error, self._admission.intended(spec, instrument)

    def _enter(
        self, spec: OrderSpec, instrument: Instrument, parent: Working | None, group: str
    ) -> EmulatedOrder:
        now_ns = self._engine.now_ns
        order = EmulatedOrder(self._next_id, spec, now_ns)
        self._next_id += 1
        order.sequence = self._count()
        working = Working(order, instrument)
        self._working[order.order_id] = working
        if spec.client_order_id:
            self._by_client_id[(spec.account, spec.client_order_id)] = order.order_id
        if parent is not None:
            order.parent_id = parent.order.order_id
            order.active = parent.order.status is OrderStatus.FILLED
            self._children.setdefault(order.parent_id, []).append(order.order_id)
            group = str(order.parent_id)
        if group:
            order.oca_group = group
            self._members.setdefault(group, []).append(order.order_id)
        book = self._engine.book(spec.conid)
        book.orders.append(working)
        working.arrival = book.prints
        self._live[order.order_id] = working
        self._set_timers(working)
        self._engine.tell_order(order)
        self._move(working, OrderStatus.PENDING_SUBMIT)
        at_once = order.active and spec.order_type in _AT_ONCE
        if working.alive:
            self._move(working, OrderStatus.SUBMITTED if at_once else OrderStatus.PRE_SUBMITTED)
        return order

    def _arrive(self, working: Working) -> None:
        """The order may match from now on."""
        if not working.alive:
            return
        book = self._engine.book(working.order.spec.conid)
        working.arrival = book.prints
        self._model.on_arrival(book, working, self)

    def _count(self) -> int:
        self._sequence += 1
        return self._sequence

    # ------------------------------------------------------------------ changes asked for

    def modify(self, order_id: int, spec: OrderSpec) -> Placed:
        """Change quantity, prices, type or time in force of a working order.

        A new price, another type or a larger quantity costs the order its place in the queue.
        """
        working = self._working.get(order_id)
        if working is None:
            return Placed(order=None, error=f"OrderID {order_id} doesn't exist")
        order, old = working.order, working.order.spec
        error = None
        if not working.alive:
            error = "Order is inactive"
        elif (spec.account, spec.conid, spec.side) != (old.account, old.conid, old.side):
            error = "Account, contract and side of an order cannot be modified."
        elif (spec.order_type in AT_CLOSE) != (old.order_type in AT_CLOSE):
            error = "An order cannot be modified to or from an order at the close."
        else:
            error = checks.refusal(spec, working.instrument)
            if error is None and spec.quantity <= order.filled:
                error = (
                    f"Order size {spec.quantity} is not above the quantity already filled, {order.filled}."
                )
            if error is None and order.active:
                left = msgspec.structs.replace(spec, quantity=spec.quantity - order.filled)
                error = self._admission.funds_error(
                    left, working.instrument, self._live.values(), group=order.oca_group, without=order_id
                )
        if error is not None:
            return Placed(order=None, error=error)
        self._change(working, spec)
        return Placed(order=order)

    def _change(self, working: Working, spec: OrderSpec) -> None:
        order, old = working.order, working.order.spec
        order.spec = msgspec.structs.replace(
            spec,
            client_order_id=old.client_order_id,
            parent_client_id=old.parent_client_id,
            one_cancels_all=old.one_cancels_all,
        )
        new = order.spec
        repriced = (new.limit_price, new.stop_price, new.order_type, new.trail_amount, new.trail_percent) != (
            old.limit_price,
            old.stop_price,
            old.order_type,
            old.trail_amount,
            old.trail_percent,
        )
        if repriced or new.quantity > old.quantity:
            order.sequence = self._count()
        if repriced:
            working.limit = new.limit_price
            working.resting = working.seen = False
            if new.order_type is not old.order_type:
                order.triggered = False
            if not order.triggered:
                order.stop_price = new.stop_price
        if new.time_in_force is not old.time_in_force:
            self._set_timers(working)
        order.updated_ns = self._engine.now_ns
        waiting = not order.active or working.waits_for_trigger or new.order_type in AT_CLOSE
        enter(order, OrderStatus.PRE_SUBMITTED if waiting else OrderStatus.SUBMITTED, self._engine.now_ns)
        self._engine.tell_order(order)
        if order.active:
            self._arrive(working)

    def cancel(self, order_id: int) -> str | None:
        """Cancel an order; children and members of its group go with it.

        Returns:
            The refusal, or ``None``.
        """
        working = self._working.get(order_id)
        if working is None:
            return f"OrderID {order_id} doesn't exist"
        if not working.alive:
            return "Order is inactive"
        self._move(working, OrderStatus.PENDING_CANCEL)
        if working.alive:
            self._end(working, "")
        return None

    def end(self, order_id: int, reason: str) -> bool:
        """Let the system cancel an order, which says why; false if it is done or unknown."""
        working = self._working.get(order_id)
        if working is None or not working.alive:
            return False
        self._end(working, reason)
        return True

    def renumber(self, order_id: int) -> int:
        """Give an order another id, as a change of it may; executions so far keep the former one.

        Raises:
            KeyError: There is no such order.
        """
        working = self._working.pop(order_id)
        order, new_id = working.order, self._next_id
        self._next_id += 1
        order.order_id = new_id
        self._working[new_id] = working
        if self._live.pop(order_id, None) is not None:
            self._live[new_id] = working
        if order.spec.client_order_id:
            self._by_client_id[(order.spec.account, order.spec.client_order_id)] = new_id
        self._children[new_id] = self._children.pop(order_id, [])
        for child_id in self._children[new_id]:
            self._working[child_id].order.parent_id = new_id
        for listed in (self._members.get(order.oca_group), self._children.get(order.parent_id)):
            if listed is not None and order_id in listed:
                listed[listed.index(order_id)] = new_id
        return new_id

    # ------------------------------------------------------------------ what the market does

    def on_event(self, book: Book, event: MarketEvent) -> None:
        """Match against an event that ``book`` has taken in."""
        self._model.on_event(book, event, self)

    def on_reopening(self, book: Book) -> None:
        """A halt ended."""
        self._model.on_reopening(book, self)

    def on_close(self, book: Book) -> None:
        """Execute orders at the close at the latest print; limit orders that are worse end."""
        price = book.last_print()
        for working in list(book.orders):
            if not working.alive or working.order.spec.order_type not in AT_CLOSE or not working.order.active:
                continue
            if price is None or book.quote.halted:
                continue
            limit = working.limit if working.order.spec.order_type is OrderType.LIMIT_ON_CLOSE else None
            if limit is not None and (limit < price if working.buys else limit > price):
                self._end(working, "The closing price was outside the limit.")
                continue
            self._move(working, OrderStatus.SUBMITTED)
            self.fill(working, working.order.remaining, price, adds_liquidity=False)

    def _set_timers(self, working: Working) -> None:
        spec, now_ns = working.order.spec, self._engine.now_ns
        if spec.order_type in AT_CLOSE:
            self._timer(spec.conid, next_close_ns(working.instrument, now_ns), self._close_at)
        working.expires_ns = None
        if spec.time_in_force is TimeInForce.DAY:
            working.expires_ns = next_day_end_ns(working.instrument, now_ns)
            # one nanosecond of difference keeps it apart from a close at the same moment, and after it
            self._timer(spec.conid, working.expires_ns + 1, self._expire_day)

    def _timer(self, conid: int, at_ns: int, action: Callable[[int, int], None]) -> None:
        if (conid, at_ns) not in self._timers:
            self._timers.add((conid, at_ns))
            self._engine.schedule(at_ns, lambda now_ns: action(conid, now_ns))

    def _close_at(self, conid: int, now_ns: int) -> None:
        self._timers.discard((conid, now_ns))
        self.on_close(self._engine.book(conid))

    def _expire_day(self, conid: int, now_ns: int) -> None:
        self._timers.discard((conid, now_ns))
        for working in list(self._live.values()):
            due = working.expires_ns is not None and working.expires_ns < now_ns
            if due and working.alive and working.order.spec.conid == conid:
                self._end(working, "The order was for the day, which is over.")

    # ------------------------------------------------------------------ what fill models do

    def open_for(self, working: Working) -> bool:
        """Whether the order may match at this moment."""
        if not self._regular_hours_enforced or working.order.spec.outside_regular_hours:
            return True
        return in_session(working.instrument, self._engine.now_ns)

    def triggered(self, working: Working) -> None:
        """A stop has become a market or limit order."""
        self._move(working, OrderStatus.SUBMITTED)

    def expire(self, working: Working) -> None:
        """What is left of an immediate-or-cancel order ends."""
        self._end(working, "The order was to fill at once or be cancelled.")

    def fill(self, working: Working, quantity: Decimal, price: float, *, adds_liquidity: bool) -> None:
        """Execute a part of an order."""
        order, spec, contract = working.order, working.order.spec, working.instrument.contract
        value = quantity * exact(price) * exact(contract.multiplier)
        after = working.progress.plus(quantity, value, adds_liquidity=adds_liquidity)
        commission = self._charges.charge(working, after)
        working.progress = after
        order.filled += quantity
        order.average_price = float(after.value / exact(contract.multiplier) / order.filled)
        order.commission = float(exact(order.commission) + commission)
        now_ns = order.updated_ns = self._engine.now_ns
        filled = order.remaining == 0
        enter(order, OrderStatus.FILLED if filled else OrderStatus.SUBMITTED, now_ns)
        if filled:
            self._leave_book(working)
        execution = self.book(working, quantity, price, commission)
        self._engine.tell_execution(execution, order)
        self._engine.tell_order(order)
        self._engine.tell_account(spec.account)
        self._after_fill(working, quantity)

    def book(
        self, working: Working, quantity: Decimal, price: float, commission: Decimal
    ) -> EmulatedExecution:
        """Book an execution of an order in its account and write it down; nobody is told."""
        order, spec, contract = working.order, working.order.spec, working.instrument.contract
        account = self._accounts[spec.account]
        position = account.execute(working.instrument, spec.side, quantity, price, commission)
        number = len(self.executions)
        execution = EmulatedExecution(
            execution_id=f"{self._execution_prefix:08x}.{_EXECUTION_COUNTER + number:08x}.01.01",
            order_id=order.order_id,
            account=spec.account,
            conid=spec.conid,
            side=spec.side,
            quantity=quantity,
            price=price,
            commission=float(commission),
            time_ns=self._engine.now_ns,
            exchange=contract.listing_exchange or contract.exchange
            if spec.exchange == "SMART"
            else spec.exchange,
            client_order_id=spec.client_order_id,
            position_after=position,
            sequence=self._count(),
        )
        self.executions.append(execution)
        return execution

    def _after_fill(self, working: Working, quantity: Decimal) -> None:
        order = working.order
        filled = order.status is OrderStatus.FILLED
        for sibling in self._siblings(working):
            if filled:
                self._end(sibling, "Another order of the group was filled.")
            else:
                self._reduce(sibling, quantity)
        if filled:
            for child_id in self._children.get(order.order_id, ()):
                child = self._working[child_id]
                if child.alive and not child.order.active:
                    self._activate(child)

    def _activate(self, child: Working) -> None:
        child.order.active = True
        child.order.updated_ns = self._engine.now_ns
        if child.order.spec.order_type in _AT_ONCE:
            self._move(child, OrderStatus.SUBMITTED)
        self._arrive(child)

    def _reduce(self, sibling: Working, quantity: Decimal) -> None:
        """Take from an order of the same group what another one has filled."""
        order = sibling.order
        if order.remaining <= quantity:
            self._end(sibling, "Another order of the group was filled.")
            return
        order.spec = msgspec.structs.replace(order.spec, quantity=order.spec.quantity - quantity)
        order.updated_ns = self._engine.now_ns
        self._engine.tell_order(order)

    # ------------------------------------------------------------------ ends

    def _end(self, working: Working, reason: str) -> None:
        """Cancel an order, then its children and the members of its group."""
        if not working.alive:
            return
        working.order.reason = reason
        self._leave_book(working)
        self._move(working, OrderStatus.CANCELLED)
        for child_id in self._children.get(working.order.order_id, ()):
            self._end(self._working[child_id], "The parent order was cancelled.")
        for sibling in self._siblings(working):
            self._end(sibling, "Another order of the group was cancelled.")

    def _siblings(self, working: Working) -> list[Working]:
        members = self._members.get(working.order.oca_group, ()) if working.order.oca_group else ()
        return [
            self._working[member]
            for member in members
            if member != working.order.order_id and self._working[member].alive
        ]

    def _leave_book(self, working: Working) -> None:
        if self._live.pop(working.order.order_id, None) is not None:
            self._engine.book(working.order.spec.conid).orders.remove(working)

    def _move(self, working: Working, status: OrderStatus) -> None:
        if enter(working.order, status, self._engine.now_ns):
            self._engine.tell_order(working.order)


def _no_parent(spec: OrderSpec) -> str:
    return f"Parent order {spec.parent_client_id} is not known or no longer working."
