"""What IBKR reports, applied on cerebro's thread in the order it was reported.

Only executions change positions and cash; status reports move an order's state, and what has ended stays ended. An
execution waits a moment for its commission, and what was reported after it waits with it. A notification carries a
clone of the order, one per change.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import backtrader as bt
import msgspec

from bt_ibkr.brokers.books import Applied, Books
from bt_ibkr.brokers.changes import Changes
from bt_ibkr.brokers.fills import correct_order, execute_order, shadow
from bt_ibkr.brokers.outgoing import Outgoing
from bt_ibkr.brokers.records import Records, Working
from bt_ibkr.brokers.watching import Watching
from bt_ibkr.connection.interface import (
    AccountEvent,
    CancelFailed,
    CommissionReported,
    ExecutionReported,
    LedgerChanged,
    ModifyFailed,
    OrderChanged,
    OrderFailed,
    OrderModified,
    OrderPlaced,
    Reconciled,
    TradingChanged,
)
from bt_ibkr.connection.mailbox import Mailbox
from bt_ibkr.errors import OrderRefusedError, OutcomeUnknownError
from bt_ibkr.model.order import Execution, OrderReport, OrderStatus, TimeInForce

_log = logging.getLogger(__name__)

_STANDS = frozenset({OrderStatus.PRE_SUBMITTED, OrderStatus.SUBMITTED})
_ENDS = frozenset({OrderStatus.CANCELLED, OrderStatus.FAILED, OrderStatus.FILLED})


class _Waiting:
    """A report in the queue; an execution without its commission is held until ``hold_until_s``."""

    __slots__ = ("event", "hold_until_s")

    def __init__(self, event: AccountEvent, hold_until_s: float) -> None:
        self.event = event
        self.hold_until_s = hold_until_s


class _Applied:
    """An execution in the books: of which order, and with which commission."""

    __slots__ = ("commission", "execution", "working")

    def __init__(self, execution: Execution, working: Working | None, commission: float | None) -> None:
        self.execution = execution
        self.working = working
        self.commission = commission


class Incoming:
    """Applies events to orders and books.

    Args:
        events: Where they come from.
        records, books: What they are applied to.
        outgoing, changes: Told what follows from them.
        watching: Takes what belongs to no order of this run.
        scheme: The commission scheme of a data.
        commission_wait: Seconds that an execution waits for its commission.
    """

    def __init__(
        self,
        events: Mailbox[AccountEvent],
        records: Records,
        books: Books,
        outgoing: Outgoing,
        changes: Changes,
        watching: Watching,
        *,
        scheme: Callable[[Any], Any],
        commission_wait: float,
    ) -> None:
        self._events = events
        self._records = records
        self._books = books
        self._outgoing = outgoing
        self._changes = changes
        self._watching = watching
        self._scheme = scheme
        self._commission_wait = commission_wait
        self._waiting: deque[_Waiting] = deque()
        self._commissions: dict[str, float] = {}
        self._applied: dict[str, _Applied] = {}

    def known(self, execution: Execution, working: Working | None = None) -> None:
        """An execution that is in the positions already."""
        self._applied[execution.execution_id] = _Applied(execution, working, execution.commission)

    # -- the queue -----------------------------------------------------------------------------------

    def settled(self) -> bool:
        """Whether everything that came is applied."""
        return not self._waiting and not len(self._events)

    def ready(self) -> bool:
        """Whether something can be applied now."""
        return bool(len(self._events)) or self._head_ready()

    def apply_all(self) -> None:
        """Take in what has come, and apply what need not wait."""
        while len(self._events):
            event = self._events.take()
            if isinstance(event, CommissionReported):
                # Belongs to an execution reported before it, which may be waiting for just this.
                self._take_commission(event.execution)
            elif event is not None:
                self._queue(event)
        while self._head_ready():
            self._apply(self._waiting.popleft().event)

    def _queue(self, event: AccountEvent) -> None:
        """At the end; executions that come one after another, by their time."""
        waiting, at = self._waiting, len(self._waiting)
        if isinstance(event, ExecutionReported) and event.replaces is None:
            while at and _later(waiting[at - 1].event, event.execution):
                at -= 1
        waiting.insert(at, _Waiting(event, time.monotonic() + self._commission_wait))

    def _head_ready(self) -> bool:
        if not self._waiting:
            return False
        head = self._waiting[0]
        if not isinstance(head.event, ExecutionReported):
            return True
        execution = head.event.execution
        return (
            execution.commission is not None
            or not execution.quantity
            or execution.execution_id in self._commissions
            or time.monotonic() >= head.hold_until_s
        )

    def _apply(self, event: AccountEvent) -> None:
        if isinstance(event, ExecutionReported):
            self._take_execution(event)
        elif isinstance(event, LedgerChanged):
            book = self._books.of(event.account)
            if book is not None:
                book.take_ledger(event.lines)
        elif isinstance(event, Reconciled):
            self._watching.take_reconciled(event)
        elif isinstance(event, TradingChanged):
            self._watching.take_trading(event.state)
        elif isinstance(event, OrderChanged):
            self._take_report(event)
        elif isinstance(event, CommissionReported):
            self._take_commission(event.execution)
        else:
            self._take_answer(event)

    # -- answers to commands ---------------------------------------------------------------------------

    def _take_answer(
        self, event: OrderPlaced | OrderFailed | OrderModified | ModifyFailed | CancelFailed
    ) -> None:
        working = self._records.find(event.key)
        if working is None:
            self._watching.take_stray(event)
        elif isinstance(event, OrderPlaced):
            self._take_placed(working, event.order_id)
        elif isinstance(event, OrderFailed):
            self._take_failed(working, event)
        elif isinstance(event, OrderModified):
            self._changes.take_modified(working, event)
        elif isinstance(event, ModifyFailed):
            self._changes.take_failed(working, event)
        else:
            self._take_cancel_failed(working, event)

    def _take_placed(self, working: Working, order_id: str) -> None:
        working.awaited = working.unknown = False
        working.order_id = order_id
        if working.done:
            self._check_reappeared(working)
            return
        self._accept(working)
        self._changes.send(working)

    def _accept(self, working: Working) -> None:
        working.awaited = working.unknown = False
        if not working.accepted and not working.done:
            working.accepted = True
            working.order.accept(working.order.broker)
            self._records.notify(working.order)

    def _check_reappeared(self, working: Working) -> None:
        """An order that was told as refused stands after all: the strategy does not know it, so it must go."""
        if working.order.status not in (bt.Order.Rejected, bt.Order.Margin) or working.cancel_wanted:
            return
        working.cancel_wanted = True
        text = f"Order {working.key} was refused, but stands at IBKR as {working.order_id}: it is cancelled."
        _log.error("order-reappeared key=%s order_id=%s", working.key, working.order_id)
        self._records.problem(text)
        self._records.tell("order-reappeared", working.order, text=text)
        self._outgoing.cancel_key(working.key)

    def _take_failed(self, working: Working, event: OrderFailed) -> None:
        working.awaited = False
        error = event.error
        self._records.tell("order-failed", working.order, error=error)
        if isinstance(error, OutcomeUnknownError):
            # Neither accepted nor rejected: it stays as submitted until a report tells.
            working.unknown = True
            _log.error("order-outcome-unknown key=%s problem=%s", working.key, error)
            self._records.problem(str(error))
            return
        working.unknown = False
        if working.done:
            return
        _log.warning("order-rejected key=%s problem=%s", working.key, error)
        working.order.addinfo(reason=str(error))
        if working.filled:
            status = bt.Order.Canceled
        elif isinstance(error, OrderRefusedError) and error.margin:
            status = bt.Order.Margin
        else:
            status = bt.Order.Rejected
        self._end(working, status)

    def _take_cancel_failed(self, working: Working, event: CancelFailed) -> None:
        _log.info("cancel-failed key=%s problem=%s", working.key, event.error)
        if working.done:
            return
        self._records.tell("cancel-failed", working.order, error=event.error)
        self._outgoing.cancel_refused(working, known=not isinstance(event.error, OutcomeUnknownError))
        if not isinstance(event.error, OutcomeUnknownError):
            working.expiring = False

    # -- status reports ----------------------------------------------------------------------------------

    def _take_report(self, event: OrderChanged) -> None:
        report = event.report
        working = self._records.find(event.key)
        if working is None:
            self._watching.take_report(event)
            return
        if report.filled_quantity is not None:
            working.reported_filled = max(report.filled_quantity, working.reported_filled or Decimal(0))
        if working.done:
            if report.status in _STANDS:
                working.order_id = working.order_id or report.order_id
                self._check_reappeared(working)
            return
        if report.status in _STANDS:
            self._accept(working)
        elif report.status in _ENDS:
            self._take_end(working, report)

    def _take_end(self, working: Working, report: OrderReport) -> None:
        if report.status is OrderStatus.FILLED:
            total, filled = report.total_quantity, report.filled_quantity
            if working.quantity is not None and (total is None or filled is None or filled < total):
                # Its executions tell, and they may still be on their way.
                return
        working.ending = report.status
        if report.reason:
            working.order.addinfo(reason=report.reason)
        self._maybe_end(working)

    def _maybe_end(self, working: Working) -> None:
        """End an order once every execution that was reported for it has been applied."""
        if working.done or working.ending is None:
            return
        if (working.reported_filled or Decimal(0)) > working.filled:
            return
        if working.ending is OrderStatus.FILLED:
            if working.filled:
                self._complete(working)
            return
        if working.ending is OrderStatus.FAILED:
            status = bt.Order.Rejected
        elif working.expiring or self._day_is_over(working):
            status = bt.Order.Expired
        else:
            status = bt.Order.Canceled
        self._end(working, status)

    @staticmethod
    def _day_is_over(working: Working) -> bool:
        """Whether an order for the day was ended by nobody but the day."""
        if working.ticket.time_in_force is not TimeInForce.DAY or working.cancel_wanted:
            return False
        rest = [one for one in working.family if one is not working]
        if working.parent_key is not None:
            parent = next((one for one in rest if one.key == working.parent_key), None)
            if parent is not None and parent.done and not parent.filled:
                return parent.order.status == bt.Order.Expired
            rest = [one for one in rest if one.parent_key == working.parent_key]
        elif not working.native:
            rest = []
        # A bracket's or group's other order executed, or was cancelled: IBKR took this one along.
        return not any(one.filled or one.cancel_wanted for one in rest)

    def _end(self, working: Working, status: int) -> None:
        self._records.end(working, status)
        self._outgoing.ended(working)

    # -- executions --------------------------------------------------------------------------------------

    def _take_execution(self, event: ExecutionReported) -> None:
        execution = event.execution
        working = self._records.find(event.key)
        if event.replaces is not None:
            self._take_correction(event.replaces, execution, working)
            return
        if execution.execution_id in self._applied:
            _log.warning("execution-repeated id=%s", execution.execution_id)
            return
        book = self._books.of(execution.account)
        if book is None:
            _log.warning("execution-elsewhere id=%s account=%s", execution.execution_id, execution.account)
            return
        commission = self._commissions.pop(execution.execution_id, execution.commission)
        execution = msgspec.structs.replace(execution, commission=commission)
        self._applied[execution.execution_id] = _Applied(execution, working, commission)
        applied = book.apply(execution, commission or 0.0)
        if working is None:
            self._watching.take_execution(execution, applied, event.key)
            return
        self._accept(working)
        self._records.executions.append((working.key, execution))
        self._execute(working, execution, applied)

    def _execute(self, working: Working, execution: Execution, applied: Applied) -> None:
        order, status_before = working.order, working.order.status
        execute_order(working, execution, applied)
        if working.complete() and not working.done:
            self._complete(working, notify=False)
        elif working.done:
            # Reported after the order's end: it counts, but the order does not live again.
            order.status = status_before
        else:
            order.partial()
        self._tell_overfill(working)
        self._records.notify(order)
        self._outgoing.executed(working)
        if not working.done:
            self._maybe_end(working)

    def _complete(self, working: Working, *, notify: bool = True) -> None:
        working.order.executed.remsize = 0
        working.order.completed()
        self._records.close(working)
        if notify:
            self._records.notify(working.order)
        self._outgoing.ended(working)

    def resized(self, working: Working) -> None:
        """The order has another size: perhaps all of it has executed."""
        if not working.done and working.filled and working.complete():
            self._complete(working)

    def _tell_overfill(self, working: Working) -> None:
        if working.quantity is None or working.filled <= working.quantity:
            return
        _log.error("order-overfilled key=%s filled=%s of=%s", working.key, working.filled, working.quantity)
        self._records.problem(f"Order {working.key}: {working.filled:f} filled of {working.quantity:f}.")
        self._records.tell("order-overfilled", working.order)

    def _take_commission(self, execution: Execution) -> None:
        assert execution.commission is not None
        applied = self._applied.get(execution.execution_id)
        if applied is None:
            self._commissions[execution.execution_id] = execution.commission
            return
        if applied.commission == execution.commission:
            return
        difference = execution.commission - (applied.commission or 0.0)
        book = self._books.of(execution.account)
        if book is not None:
            book.add_commission(execution.conid, difference)
        applied.commission = execution.commission
        applied.execution = msgspec.structs.replace(applied.execution, commission=execution.commission)
        working = applied.working
        if working is not None:
            working.executions[execution.execution_id] = applied.execution
            working.order.executed.comm += difference
            self._replace_recorded(execution.execution_id, working.key, applied.execution)
            self._records.tell("late-commission", working.order, execution=execution)

    # -- corrections -------------------------------------------------------------------------------------

    def _take_correction(self, replaced: Execution, new: Execution, working: Working | None) -> None:
        """IBKR corrected an execution (a quantity of 0: took it back)."""
        book = self._books.of(new.account)
        if book is None or new.execution_id in self._applied:
            return
        before = self._applied.get(replaced.execution_id)
        if before is not None:
            working = before.working if working is None else working
        old = replaced if before is None else before.execution
        paid = old.commission or 0.0
        commission = self._commissions.pop(new.execution_id, new.commission)
        if commission is None and new.quantity:
            # It is paid for once; a correction that says nothing of it changes nothing of it.
            commission = old.commission
        new = msgspec.structs.replace(new, commission=commission)
        _log.warning(
            "execution-corrected id=%s replaced=%s quantity=%s price=%s",
            new.execution_id, old.execution_id, new.quantity, new.price,
        )  # fmt: skip
        held = book.position(new.conid)
        self._applied[new.execution_id] = _Applied(new, working, commission)
        data = self._books.instruments.datas.get(new.conid)
        if data is not None and new.account == self._books.accounts[0]:
            # Trades follow as if the old had been traded back and the new traded.
            position = bt.Position(0, 0.0) if held is None else held.clone()
            owner = None if working is None else working.order.p.owner
            trade_id = 0 if working is None else working.order.tradeid
            for execution, sign, cost in ((old, -1, -paid), (new, 1, commission or 0.0)):
                size = float(execution.quantity) * execution.side.sign * sign
                if size:
                    note = shadow(
                        data, owner, trade_id, position, size, execution.price, cost, execution.time_ns,
                        self._scheme(data),
                    )  # fmt: skip
                    self._records.notify(note)
        book.correct(old, new, (commission or 0.0) - paid)
        if working is not None:
            self._correct_order(working, old, new)
        self._records.tell(
            "execution-corrected", None if working is None else working.order, replaced=old, execution=new
        )

    def _correct_order(self, working: Working, old: Execution, new: Execution) -> None:
        correct_order(working, old, new)
        self._replace_recorded(old.execution_id, working.key, new if new.quantity else None)
        order = working.order
        if not working.done and working.complete():
            self._complete(working)
            return
        if not working.done and order.status in (bt.Order.Accepted, bt.Order.Partial):
            order.status = bt.Order.Partial if working.filled else bt.Order.Accepted
        self._tell_overfill(working)
        self._records.notify(order)

    def _replace_recorded(self, execution_id: str, key: str, new: Execution | None) -> None:
        """In the list of executions: ``new`` in the place of an execution, or nothing."""
        rows = self._records.executions
        for index in range(len(rows) - 1, -1, -1):
            if rows[index][1].execution_id == execution_id:
                rows[index : index + 1] = [] if new is None else [(key, new)]
                return


def _later(event: AccountEvent, execution: Execution) -> bool:
    """Whether ``event`` is an execution that happened after ``execution``."""
    return (
        isinstance(event, ExecutionReported)
        and event.replaces is None
        and event.execution.time_ns > execution.time_ns
    )
