"""Orders from arrival to end: acceptance, groups, executions, cancellation, expiry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal

import msgspec

from bt_ibkr.emulator.accounts.account import Account
from bt_ibkr.emulator.accounts.margin import Intended, Margin
from bt_ibkr.emulator.accounts.valuation import Valuation
from bt_ibkr.emulator.exchange import auctions, changes
from bt_ibkr.emulator.exchange.admission import Admission, Charges
from bt_ibkr.emulator.exchange.appointments import Appointments
from bt_ibkr.emulator.exchange.book import AT_CLOSE, Book, Working
from bt_ibkr.emulator.exchange.matching import FillModel
from bt_ibkr.emulator.exchange.registry import Registry
from bt_ibkr.emulator.exchange.settlement import Settlement
from bt_ibkr.emulator.exchange.slicing import Slicing
from bt_ibkr.emulator.exchange.states import enter
from bt_ibkr.emulator.exchange.surroundings import Surroundings
from bt_ibkr.emulator.market.sessions import in_overnight, in_session
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

_AT_ONCE = frozenset({OrderType.MARKET, OrderType.LIMIT, OrderType.MIDPRICE, OrderType.RELATIVE})


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
        self._model = model
        self._regular_hours_enforced = regular_hours_enforced
        self._registry = Registry(seed)
        self._charges = charges = Charges(schedule, valuation)
        self._admission = Admission(accounts, margin, valuation, charges)
        self._settlement = Settlement(accounts, charges, valuation, seed=seed, count=self._registry.count)
        self._appointments = Appointments(engine.schedule, self._close_conid, self._expire_day)
        self._slicing = Slicing(engine.schedule, self._match)

    # ------------------------------------------------------------------ reading

    @property
    def executions(self) -> list[EmulatedExecution]:
        """The record of all executions, in order."""
        return self._settlement.executions

    def order(self, order_id: int) -> EmulatedOrder | None:
        working = self._registry.get(order_id)
        return None if working is None else working.order

    def orders(self, account: str | None = None) -> list[EmulatedOrder]:
        """All orders ever accepted, in order of arrival."""
        return [w.order for w in self._registry if account is None or concerns(w.order.spec, account)]

    def __len__(self) -> int:
        """How many orders there are."""
        return len(self._registry)

    def live_ids(self) -> list[int]:
        """Orders that are not done."""
        return list(self._registry.live)

    @property
    def numbers(self) -> tuple[int, int, int]:
        """How far everything has been counted, see ``restore``."""
        return self._registry.numbers

    def restore(
        self,
        orders: Sequence[Working],
        executions: Sequence[EmulatedExecution],
        numbers: tuple[int, int, int],
    ) -> None:
        """Take over orders and executions as they were; nobody is told, and nothing matches before it is due."""
        self._registry.restore(orders, numbers)
        self._settlement.executions.extend(executions)
        for execution in executions:
            if not execution.envelope and not execution.corrects:
                self._charges.note(execution.account, execution.quantity)
        for working in self._registry.live.values():
            book = self._engine.book(working.order.spec.conid)
            book.orders.append(working)
            working.arrival = min(working.arrival, book.prints)
            kept = working.expires_ns, working.opens_ns
            self._appointments.make(working, self._engine.now_ns)
            working.expires_ns, working.opens_ns = kept
            self._slicing.resume(working, self._engine.now_ns)

    def working(self, order_id: int) -> Working | None:
        """An order with what matching knows of it, whatever has become of it."""
        return self._registry.get(order_id)

    # ------------------------------------------------------------------ orders in

    def place(self, specs: Sequence[OrderSpec]) -> list[Placed]:
        """Take one submission; the answers stand in the order of the specs.

        Parents are taken before their children, wherever they stand. A refusal takes the children with it
        but nothing else: submissions are not atomic, as the real server's are not.
        """
        group = self._registry.new_group() if any(spec.one_cancels_all for spec in specs) else ""
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
                entered.append(self._known(order.order_id))
            elif spec.client_order_id is not None:
                refused.add(spec.client_order_id)
        for working in entered:
            if working.order.active:
                self._arrive(working)
        return [answers[index] for index in range(len(specs))]

    def _known(self, order_id: int) -> Working:
        working = self._registry.get(order_id)
        assert working is not None
        return working

    def _accept(self, spec: OrderSpec, group: str) -> Placed:
        instrument = self._engine.instrument(spec.conid)
        error = self._form_error(spec, instrument)
        parent: Working | None = None
        if error is None and spec.parent_client_id is not None:
            parent = self._registry.parent_for(spec.account, spec.parent_client_id)
            error = _no_parent(spec) if parent is None else None
        if error is None and parent is None and instrument is not None:
            error = self._admission.funds_error(spec, instrument, self._registry.live.values(), group=group)
        if error is not None or instrument is None:
            return Placed(order=None, error=error)
        return Placed(order=self._enter(spec, instrument, parent, group))

    def _form_error(self, spec: OrderSpec, instrument: Instrument | None) -> str | None:
        if spec.client_order_id and self._registry.has_client_id(spec.account, spec.client_order_id):
            return f"Local order ID={spec.client_order_id} is already registered."
        return self._admission.form_error(spec, instrument)

    def preview(self, spec: OrderSpec) -> tuple[str | None, Intended | None]:
        """The refusal that placing would meet, and the order as margin sees it."""
        instrument = self._engine.instrument(spec.conid)
        error = self._form_error(spec, instrument)
        if error is not None or instrument is None:
            return error, None
        error = self._admission.funds_error(spec, instrument, self._registry.live.values(), group="")
        return error, self._admission.intended(spec, instrument)

    def _enter(
        self, spec: OrderSpec, instrument: Instrument, parent: Working | None, group: str
    ) -> EmulatedOrder:
        order = EmulatedOrder(self._registry.new_id(), spec, self._engine.now_ns)
        order.sequence = self._registry.count()
        working = Working(order, instrument)
        self._registry.add(working, parent, group)
        book = self._engine.book(spec.conid)
        book.orders.append(working)
        working.arrival = book.prints
        working.opened = book.quote.open is not None
        self._appointments.make(working, self._engine.now_ns)
        self._engine.tell_order(order)
        if not working.held:
            self._transmit(working)
        return order

    def _transmit(self, working: Working) -> None:
        order = working.order
        self._move(working, OrderStatus.PENDING_SUBMIT)
        at_once = order.active and order.spec.order_type in _AT_ONCE and working.opens_ns is None
        if working.alive:
            self._move(working, OrderStatus.SUBMITTED if at_once else OrderStatus.PRE_SUBMITTED)

    def hold(self, order_id: int) -> None:
        """Let an order wait for the answer to a prompt; it keeps its status."""
        working = self._registry.get(order_id)
        if working is not None and working.alive:
            working.held = True

    def release(self, order_id: int) -> None:
        """Let an order that waits go on."""
        working = self._registry.get(order_id)
        if working is None or not working.alive or not working.held:
            return
        working.held = False
        if working.order.status is OrderStatus.INACTIVE:
            self._transmit(working)
        if working.order.active:
            self._arrive(working)

    def _arrive(self, working: Working) -> None:
        """The order may match from now on."""
        if not working.alive:
            return
        working.arrival = self._engine.book(working.order.spec.conid).prints
        if not working.held:
            self._slicing.begin(working, self._engine.now_ns)
        self._match(working)

    def _match(self, working: Working) -> None:
        if working.alive:
            self._model.on_arrival(self._engine.book(working.order.spec.conid), working, self)

    # ------------------------------------------------------------------ changes asked for

    def modify(self, order_id: int, spec: OrderSpec) -> Placed:
        """Change quantity, prices, type or time in force of a working order.

        A new price, another type or a larger quantity costs the order its place in the queue.
        """
        working = self._registry.get(order_id)
        if working is None:
            return Placed(order=None, error=f"OrderID {order_id} doesn't exist")
        error = changes.refusal(working, spec, self._admission, self._registry.live.values())
        if error is not None:
            return Placed(order=None, error=error)
        self._change(working, spec)
        return Placed(order=working.order)

    def _change(self, working: Working, spec: OrderSpec) -> None:
        order, old = working.order, working.order.spec
        if changes.apply(working, spec):
            order.sequence = self._registry.count()
        if order.spec.time_in_force is not old.time_in_force:
            self._appointments.make(working, self._engine.now_ns)
        order.updated_ns = self._engine.now_ns
        if working.held:
            self._engine.tell_order(order)
            if old.deactivated and not order.spec.deactivated:
                self.release(order.order_id)
            return
        waiting = not order.active or working.waits_for_trigger or order.spec.order_type in AT_CLOSE
        waiting = waiting or working.opens_ns is not None
        enter(order, OrderStatus.PRE_SUBMITTED if waiting else OrderStatus.SUBMITTED, self._engine.now_ns)
        self._engine.tell_order(order)
        if order.active:
            self._arrive(working)

    def cancel(self, order_id: int) -> str | None:
        """Cancel an order; children and members of its group go with it.

        Returns:
            The refusal, or ``None``.
        """
        working = self._registry.get(order_id)
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
        working = self._registry.get(order_id)
        if working is None or not working.alive:
            return False
        self._end(working, reason)
        return True

    def renumber(self, order_id: int) -> int:
        """Give an order another id, as a change of it may; executions so far keep the former one.

        Raises:
            KeyError: There is no such order.
        """
        return self._registry.renumber(order_id)

    def reserve_id(self) -> int:
        """An order id that no order will have."""
        return self._registry.new_id()

    def drop(self, order_id: int, reason: str) -> None:
        """Cancel one order alone, which says why: neither its group nor its bracket goes with it."""
        working = self._registry.get(order_id)
        if working is not None and working.alive:
            working.order.reason = reason
            self._leave_book(working)
            self._move(working, OrderStatus.CANCELLED)

    # ------------------------------------------------------------------ what the market does

    def on_event(self, book: Book, event: MarketEvent) -> None:
        """Match against an event that ``book`` has taken in."""
        self._auction(auctions.at_open(book, event), "The opening price was outside the limit.")
        self._slicing.take_part(book, event)
        self._model.on_event(book, event, self)

    def on_reopening(self, book: Book) -> None:
        """A halt ended."""
        self._model.on_reopening(book, self)

    def on_close(self, book: Book) -> None:
        """Execute orders at the close at the latest print; limit orders that are worse end."""
        self._auction(auctions.at_close(book), "The closing price was outside the limit.")

    def _auction(self, auction: tuple[float, list[Working]] | None, worse: str) -> None:
        """Execute all of each order at the one price, or end it."""
        if auction is None:
            return
        price, due = auction
        for working in due:
            if not auctions.takes_part(working):
                continue
            if auctions.outside(working, price):
                self._end(working, worse)
                continue
            self._move(working, OrderStatus.SUBMITTED)
            working.afford(price)
            self.fill(working, working.order.remaining, price, adds_liquidity=False)

    def _close_conid(self, conid: int) -> None:
        self.on_close(self._engine.book(conid))

    def _expire_day(self, conid: int, now_ns: int) -> None:
        for working in list(self._registry.live.values()):
            due = working.expires_ns is not None and working.expires_ns < now_ns
            if due and working.alive and working.order.spec.conid == conid:
                self._end(working, "The order was for the day, which is over.")

    # ------------------------------------------------------------------ what fill models do

    def open_for(self, working: Working) -> bool:
        """Whether the order may match at this moment."""
        if working.order.spec.time_in_force is TimeInForce.OVERNIGHT:
            return in_overnight(working.instrument, self._engine.now_ns)
        if working.order.spec.time_in_force is TimeInForce.OVERNIGHT_AND_DAY:
            return True
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
        order, now_ns = working.order, self._engine.now_ns
        executions = self._settlement.fill(
            working, quantity, price, adds_liquidity=adds_liquidity, now_ns=now_ns
        )
        order.updated_ns = now_ns
        filled = order.remaining == 0
        enter(order, OrderStatus.FILLED if filled else OrderStatus.SUBMITTED, now_ns)
        if filled:
            self._leave_book(working)
        for execution in executions:
            self._engine.tell_execution(execution, order)
        self._engine.tell_order(order)
        for account in dict.fromkeys(execution.account for execution in executions):
            self._engine.tell_account(account)
        self._after_fill(working, quantity)

    def book(
        self, working: Working, quantity: Decimal, price: float, commission: Decimal
    ) -> EmulatedExecution:
        """Book an execution of an order in its account and write it down; nobody is told."""
        return self._settlement.book(working, quantity, price, commission, self._engine.now_ns)

    def _after_fill(self, working: Working, quantity: Decimal) -> None:
        filled = working.order.status is OrderStatus.FILLED
        for sibling in self._registry.siblings(working):
            if filled:
                self._end(sibling, "Another order of the group was filled.")
            else:
                self._reduce(sibling, quantity)
        if filled:
            for child in self._registry.children(working):
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
        for child in self._registry.children(working):
            self._end(child, "The parent order was cancelled.")
        for sibling in self._registry.siblings(working):
            self._end(sibling, "Another order of the group was cancelled.")

    def _leave_book(self, working: Working) -> None:
        if self._registry.live.pop(working.order.order_id, None) is not None:
            self._engine.book(working.order.spec.conid).orders.remove(working)

    def _move(self, working: Working, status: OrderStatus) -> None:
        if enter(working.order, status, self._engine.now_ns):
            self._engine.tell_order(working.order)


def concerns(spec: OrderSpec, account: str) -> bool:
    """Whether an order is the account's, or one for a group that the account is in."""
    return spec.account == account or any(share.account == account for share in spec.allocation)


def _no_parent(spec: OrderSpec) -> str:
    return f"Parent order {spec.parent_client_id} is not known or no longer working."
