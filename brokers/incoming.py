"""What IBKR reports, applied on cerebro's thread in the order it was reported.

Only executions change positions and cash; status reports move an order's state, and what has ended stays ended. An
execution waits a moment for its commission, and what was reported after it waits with it. A notification carries a
clone of the order, one per change.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from decimal import Decimal

import backtrader as bt

from bt_ibkr.brokers.books import Books
from bt_ibkr.brokers.changes import Changes
from bt_ibkr.brokers.endings import Endings
from bt_ibkr.brokers.executions import Executions
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
from bt_ibkr.model.order import Execution, OrderStatus

_log = logging.getLogger(__name__)

_STANDS = frozenset({OrderStatus.PRE_SUBMITTED, OrderStatus.SUBMITTED})
_ENDS = frozenset({OrderStatus.CANCELLED, OrderStatus.FAILED, OrderStatus.FILLED})


class _Waiting:
    """A report in the queue; an execution without its commission is held until ``hold_until_s``."""

    __slots__ = ("event", "hold_until_s")

    def __init__(self, event: AccountEvent, hold_until_s: float) -> None:
        self.event = event
        self.hold_until_s = hold_until_s


class Incoming:
    """Applies events to orders and books.

    Args:
        events: Where they come from.
        records, books: What they are applied to.
        outgoing, changes, endings, executions: Each applies its own.
        watching: Takes what belongs to no order of this run.
        commission_wait: Seconds that an execution waits for its commission.
    """

    def __init__(
        self,
        events: Mailbox[AccountEvent],
        records: Records,
        books: Books,
        outgoing: Outgoing,
        changes: Changes,
        endings: Endings,
        executions: Executions,
        watching: Watching,
        *,
        commission_wait: float,
    ) -> None:
        self._events = events
        self._records = records
        self._books = books
        self._outgoing = outgoing
        self._changes = changes
        self._endings = endings
        self._executions = executions
        self._watching = watching
        self._commission_wait = commission_wait
        self._waiting: deque[_Waiting] = deque()

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
                self._executions.take_commission(event.execution)
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
        return self._executions.has_commission(head.event.execution) or time.monotonic() >= head.hold_until_s

    def _apply(self, event: AccountEvent) -> None:
        if isinstance(event, ExecutionReported):
            self._executions.take(event)
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
            self._executions.take_commission(event.execution)
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
        self._records.settle(working)
        working.order_id = order_id
        if working.done:
            self._endings.check_reappeared(working)
            return
        self._endings.accept(working)
        self._changes.send(working)

    def _take_failed(self, working: Working, event: OrderFailed) -> None:
        error = event.error
        self._records.settle(working)
        self._records.tell("order-failed", working.order, error=error)
        if isinstance(error, OutcomeUnknownError):
            # Neither accepted nor rejected: it stays as submitted until a report tells.
            working.unknown = str(error)
            _log.error("order-outcome-unknown key=%s problem=%s", working.key, error)
            self._records.problem(working.unknown)
            return
        if working.done:
            return
        _log.warning("order-rejected key=%s problem=%s", working.key, error)
        working.order.addinfo(reason=str(error))
        working.refused = True
        if working.filled:
            status = bt.Order.Canceled
        elif isinstance(error, OrderRefusedError) and error.margin:
            status = bt.Order.Margin
        else:
            status = bt.Order.Rejected
        self._endings.end(working, status)

    def _take_cancel_failed(self, working: Working, event: CancelFailed) -> None:
        _log.info("cancel-failed key=%s problem=%s", working.key, event.error)
        if working.done:
            return
        self._records.tell("cancel-failed", working.order, error=event.error)
        if not isinstance(event.error, OutcomeUnknownError):
            self._outgoing.cancel_refused(working)

    # -- status reports ----------------------------------------------------------------------------------

    def _take_report(self, event: OrderChanged) -> None:
        report = event.report
        working = self._records.find(event.key)
        if working is None:
            self._watching.take_report(event)
            return
        if report.filled_quantity is not None:
            working.reported_filled = max(report.filled_quantity, working.reported_filled or Decimal(0))
        working.reported_total = report.total_quantity or working.reported_total
        if working.done:
            return
        working.order_id = working.order_id or report.order_id or None
        if report.status in _STANDS:
            self._endings.accept(working)
        elif report.status in _ENDS:
            self._endings.take_end(working, report)


def _later(event: AccountEvent, execution: Execution) -> bool:
    """Whether ``event`` is an execution that happened after ``execution``."""
    return (
        isinstance(event, ExecutionReported)
        and event.replaces is None
        and event.execution.time_ns > execution.time_ns
    )
