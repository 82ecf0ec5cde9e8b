"""Executions: each applied once, to books and order; their commissions, whenever they come; their corrections."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import backtrader as bt
import msgspec

from bt_ibkr.brokers.books import AccountBook, Applied, Books, signed
from bt_ibkr.brokers.combos import ComboProgress, is_envelope
from bt_ibkr.brokers.endings import Endings
from bt_ibkr.brokers.fills import correct_order, execute_order, moved, shadow
from bt_ibkr.brokers.outgoing import Outgoing
from bt_ibkr.brokers.records import Records, Working
from bt_ibkr.brokers.watching import Watching
from bt_ibkr.connection.interface import ExecutionReported
from bt_ibkr.model.order import Execution

_log = logging.getLogger(__name__)


class _Applied:
    """An execution in the books: of which order, and with which commission."""

    __slots__ = ("commission", "execution", "working")

    def __init__(self, execution: Execution, working: Working | None, commission: float | None) -> None:
        self.execution = execution
        self.working = working
        self.commission = commission


class Executions:
    """Applies executions.

    Args:
        records, books: What they are applied to.
        outgoing, endings: Told what follows from them.
        watching: Takes those that belong to no order of this run.
        scheme: The commission scheme of a data.
    """

    def __init__(
        self,
        records: Records,
        books: Books,
        outgoing: Outgoing,
        endings: Endings,
        watching: Watching,
        scheme: Callable[[Any], Any],
    ) -> None:
        self._records = records
        self._books = books
        self._outgoing = outgoing
        self._endings = endings
        self._watching = watching
        self._scheme = scheme
        self._commissions: dict[str, float] = {}
        self._applied: dict[str, _Applied] = {}
        #: Of combo orders, by key.
        self._combos: dict[str, ComboProgress] = {}

    def known(self, execution: Execution, working: Working | None = None) -> None:
        """An execution that is in the positions already."""
        self._applied[execution.execution_id] = _Applied(execution, working, execution.commission)

    def has_commission(self, execution: Execution) -> bool:
        """Whether it can be applied as it is."""
        return (
            execution.commission is not None
            or not execution.quantity
            or is_envelope(execution)
            or execution.execution_id in self._commissions
        )

    def take(self, event: ExecutionReported) -> None:
        """An execution, or the correction of one."""
        execution = event.execution
        working = self._records.find(event.key)
        if event.replaces is not None:
            self._correct(event.replaces, execution, working)
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
        if working is not None:
            self._endings.accept(working)
            self._records.executions.append((working.key, execution))
            if working.ticket.legs:
                self._take_combo(working, book, execution)
                return
        if is_envelope(execution):
            # Its legs are executions of their own.
            self._records.tell("external-execution", execution)
            return
        if working is not None and working.ticket.is_currency_conversion:
            self._execute(working, execution, book.convert(execution, commission or 0.0))
            return
        applied = book.apply(execution, commission or 0.0)
        if working is None:
            self._watching.take_execution(execution, applied, event.key)
        else:
            self._execute(working, execution, applied)

    def _take_combo(self, working: Working, book: AccountBook, execution: Execution) -> None:
        """A part of a combo: legs are booked, and the order executes as far as all of them have."""
        progress = self._combos.get(working.key)
        if progress is None:
            progress = self._combos[working.key] = ComboProgress(working)
        if is_envelope(execution):
            progress.add_envelope(execution)
        else:
            applied = book.apply(execution, execution.commission or 0.0)
            progress.add_leg(execution)
            self._watching.show(book.account, applied, execution)
        self._outgoing.executed(working)
        made = progress.advance(book, execution)
        if made is not None:
            self._execute(working, *made)

    def _execute(self, working: Working, execution: Execution, applied: Applied) -> None:
        order, status_before = working.order, working.order.status
        execute_order(working, execution, applied)
        # Before its end forgets the changes that were asked for: one may have made it larger.
        self._endings.tell_overfill(working)
        if working.complete() and not working.done:
            self._endings.complete(working, notify=False)
        elif working.done:
            # Reported after the order's end: it counts, but the order does not live again.
            order.status = status_before
        else:
            order.partial()
        self._records.notify(order)
        self._outgoing.executed(working)
        if not working.done:
            self._endings.maybe_end(working)
        else:
            self._endings.check_reappeared(working)

    def take_commission(self, execution: Execution) -> None:
        """The commission of an execution, which may not have been applied yet."""
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
            book.add_commission(execution, difference)
        applied.commission = execution.commission
        applied.execution = msgspec.structs.replace(applied.execution, commission=execution.commission)
        working = applied.working
        if working is not None:
            if execution.execution_id in working.executions:
                working.executions[execution.execution_id] = applied.execution
            working.order.executed.comm += difference
            self._replace_recorded(execution.execution_id, working.key, applied.execution)
            self._records.tell("late-commission", working.order, execution=execution)

    # -- corrections -------------------------------------------------------------------------------------

    def _correct(self, replaced: Execution, new: Execution, working: Working | None) -> None:
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
        self._applied[new.execution_id] = _Applied(new, working, commission)
        self._correct_trades(book, working, old, new)
        book.correct(old, new, (commission or 0.0) - paid)
        if working is not None:
            self._correct_order(working, old, new)
        self._records.tell(
            "execution-corrected", None if working is None else working.order, replaced=old, execution=new
        )

    def _correct_trades(
        self, book: AccountBook, working: Working | None, old: Execution, new: Execution
    ) -> None:
        """backtrader's trades: as if the old had been traded back and the new traded."""
        data = self._books.instruments.datas.get(old.conid)
        if data is None or book.account != self._books.accounts[0]:
            return
        held = book.position(old.conid)
        position = bt.Position(0, 0.0) if held is None else held.clone()
        owner = None if working is None else working.order.p.owner
        trade_id = 0 if working is None else working.order.tradeid
        paid, pays = old.commission or 0.0, new.commission or 0.0
        for execution, size, cost in (
            (old, -float(signed(old)), -paid),
            (new, float(signed(new)), pays),
        ):
            if size:
                note = shadow(
                    data, moved(position, size, execution.price), execution.price, cost, execution.time_ns,
                    self._scheme(data), owner=owner, trade_id=trade_id,
                )  # fmt: skip
                self._records.notify(note)

    def _correct_order(self, working: Working, old: Execution, new: Execution) -> None:
        correct_order(working, old, new)
        self._replace_recorded(old.execution_id, working.key, new if new.quantity else None)
        order = working.order
        if not working.done and working.complete():
            self._endings.complete(working)
            return
        if not working.done and order.status in (bt.Order.Accepted, bt.Order.Partial):
            order.status = bt.Order.Partial if working.filled else bt.Order.Accepted
        self._endings.tell_overfill(working)
        self._records.notify(order)

    def _replace_recorded(self, execution_id: str, key: str, new: Execution | None) -> None:
        """In the list of executions: ``new`` in the place of an execution, or nothing."""
        rows = self._records.executions
        for index in range(len(rows) - 1, -1, -1):
            if rows[index][1].execution_id == execution_id:
                rows[index : index + 1] = [] if new is None else [(key, new)]
                return
