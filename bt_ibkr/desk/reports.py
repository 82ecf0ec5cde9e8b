"""What IBKR reports, on its way to the journal and to whom it belongs.

Executions are taken once each, whatever brings them, and are in the journal before anybody is told. While a
conversation is under way, or an order's outcome is being looked up, reports on orders that nobody knows are kept:
fills arrive before the answer that tells the order's id.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal

import msgspec

from bt_ibkr.connection.interface import (
    AccountEvent,
    CommissionReported,
    ExecutionReported,
    OrderChanged,
    OrderPlaced,
)
from bt_ibkr.desk.registry import Registry, Sink, Tracked
from bt_ibkr.errors import JournalError
from bt_ibkr.journal import Journal, steps
from bt_ibkr.model.intent import OrderState
from bt_ibkr.model.order import DONE, Execution, OrderReport, OrderStatus
from bt_ibkr.services.executions import ExecutionBook

_log = logging.getLogger(__name__)

_STATES = {
    OrderStatus.FILLED: OrderState.FILLED,
    OrderStatus.CANCELLED: OrderState.CANCELLED,
    OrderStatus.FAILED: OrderState.REJECTED,
}


class ReportRouter:
    """Takes reports in, once each, and hands them on.

    Args:
        registry: Whose order is which.
        journal: Where executions and ends are kept.
        tell: Alarms, by kind and text.
    """

    def __init__(self, registry: Registry, journal: Journal, tell: Callable[[str, str], None]) -> None:
        self._registry = registry
        self._journal = journal
        self._tell = tell
        self._sinks: dict[str, list[Sink]] = {}
        self._books: dict[str, ExecutionBook] = defaultdict(ExecutionBook)
        self._under_way: dict[str, int] = defaultdict(int)
        self._kept: dict[str, list[tuple[Execution, str] | OrderReport]] = defaultdict(list)
        #: Open orders of other clients, by account and id.
        self.external: dict[str, dict[str, OrderReport]] = defaultdict(dict)
        #: Those of them that have ended: what is told of them after that is old.
        self._ended: dict[str, set[str]] = defaultdict(set)
        #: Executions that the journal could not take; tried again with the next.
        self._unwritten: list[tuple[Execution, str | None, str]] = []
        #: Told of each execution that is news: risk controls and positions.
        self.on_execution: Callable[[Execution, Execution | None], None] = lambda execution, replaced: None
        #: Told of an order that got its id by a report.
        self.on_placed: Callable[[Tracked], None] = lambda tracked: None
        #: Told of an order that a report ended.
        self.on_ended: Callable[[Tracked, OrderReport], None] = lambda tracked, report: None
        #: Told of a trade by which IBKR closed a position by itself.
        self.on_liquidation: Callable[[Execution], None] = lambda execution: None

    # -- who listens -------------------------------------------------------------------------------

    def attach(self, account: str, sink: Sink, known: Iterable[Execution]) -> None:
        """Tell ``sink`` of ``account`` from now on; ``known`` executions are no news."""
        for execution in known:
            self._books[account].add(execution)
        sinks = self._sinks.setdefault(account, [])
        if not any(one is sink for one in sinks):
            sinks.append(sink)

    @property
    def accounts(self) -> tuple[str, ...]:
        return tuple(self._sinks)

    def tell_all(self, account: str, event: AccountEvent) -> None:
        for sink in self._sinks.get(account, ()):
            steps.step("desk.tell.before")
            sink.append(event)
            steps.step("desk.tell.after")

    # -- conversations -----------------------------------------------------------------------------

    def begin(self, account: str) -> None:
        """A conversation begins: keep what belongs to nobody."""
        self._under_way[account] += 1

    def end(self, account: str) -> None:
        """It ended: what was kept belongs to somebody now, or to another client."""
        self._under_way[account] -= 1
        if self._under_way[account]:
            return
        kept = self._kept.pop(account, ())
        for one in kept:
            if isinstance(one, OrderReport):
                self.take_report(one)
            else:
                self.take_executions((one[0],), one[1])

    def drop(self, account: str) -> None:
        """It was broken off with the session: what was kept is left for the next one to read."""
        self._under_way[account] -= 1
        if not self._under_way[account]:
            self._kept.pop(account, None)

    # -- reports -----------------------------------------------------------------------------------

    def take_report(self, report: OrderReport) -> None:
        """One report on an order. Those of accounts that nobody trades in here are left alone."""
        account = report.account or ""
        tracked = self._registry.find(report.order_id, report.order_ref)
        if tracked is None:
            if account not in self._sinks:
                return
            if self._under_way[account]:
                self._kept[account].append(report)
                return
            self._take_external_report(account, report)
            return
        self._adopt(tracked, report.order_id, stands=report.status is not OrderStatus.FAILED)
        ended = _STATES.get(report.status) if report.status is not None else None
        if ended is not None and tracked.state is not ended and tracked.open:
            self.note(tracked, ended, text=report.reason or "")
            self.on_ended(tracked, report)
        tracked.tell(OrderChanged(report, tracked.key))

    def _take_external_report(self, account: str, report: OrderReport) -> None:
        """On an order of another client: told as it stands now, as reports tell what has changed alone."""
        external, ended = self.external[account], self._ended[account]
        before = external.get(report.order_id)
        if before is not None:
            report = _merged(before, report)
        if report.status in DONE:
            external.pop(report.order_id, None)
            ended.add(report.order_id)
        elif report.order_id in ended:
            return  # from before its end
        else:
            external[report.order_id] = report
        self.tell_all(account, OrderChanged(report))

    def take_external(self, account: str, orders: Iterable[OrderReport]) -> None:
        """What a whole list says of other clients' orders; what it has not is gone."""
        known = self.external[account]
        standing = {
            one.order_id: one
            for one in orders
            if one.status not in DONE
            and one.order_id not in self._ended[account]
            and self._registry.find(one.order_id, one.order_ref) is None
        }
        if self._under_way[account]:
            # Among the new ones may be ours: a bracket's children are known by the answer alone.
            standing = {order_id: one for order_id, one in standing.items() if order_id in known}
        self.external[account] = standing

    def _adopt(self, tracked: Tracked, order_id: str | None, *, stands: bool = True) -> None:
        """A report shows that the order stands, and under which id; even if the answer to it refused it. What was
        refused indeed may be listed as failed."""
        news = tracked.order_id is None
        if order_id is None or not self._registry.give_id(tracked, order_id):
            return
        refused = tracked.state is OrderState.REJECTED and news
        if tracked.open or tracked.state is OrderState.ABSENT or (refused and stands):
            self.note(tracked, OrderState.WORKING, order_id=order_id)
        tracked.tell(OrderPlaced(tracked.key, order_id))
        if news:
            self.on_placed(tracked)

    def note(
        self, tracked: Tracked, state: OrderState, *, order_id: str | None = None, text: str = ""
    ) -> None:
        """Move the order in the journal. What IBKR says is told on even if it cannot be written."""
        tracked.state = state
        try:
            self._journal.note(tracked.key, state, order_id=order_id, text=text)
        except JournalError as problem:
            _log.error("journal-failed key=%s state=%s problem=%s", tracked.key, state, problem)
            self._tell("journal-failed", str(problem))

    def take_executions(self, executions: Sequence[Execution], source: str) -> int:
        """Executions from ``str``, from ``/trades``, or replayed by either.

        Returns:
            How many were news.
        """
        told: list[tuple[Tracked | None, AccountEvent]] = []
        rows: list[tuple[Execution, str | None, str]] = []
        fresh = 0
        for execution in sorted(executions, key=lambda one: one.time_ns):
            account = execution.account
            if account not in self._sinks:
                continue
            tracked = self._registry.find(execution.order_id, execution.order_ref)
            if tracked is None and self._under_way[account]:
                self._kept[account].append((execution, source))
                continue
            seen = self._books[account].add(execution)
            if not (seen.new or seen.commission):
                continue
            key = None if tracked is None else tracked.key
            if tracked is not None and seen.new:
                self._adopt(tracked, execution.order_id)
            rows.append((execution, key, source))
            if seen.new:
                fresh += 1
                told.append((tracked, ExecutionReported(execution, key, seen.replaces)))
            else:
                told.append((tracked, CommissionReported(execution)))
        self._write(rows)
        for tracked, event in told:
            if isinstance(event, ExecutionReported):
                if tracked is None or not tracked.ticket.is_currency_conversion:
                    # A conversion of money leaves no position of the pair.
                    self.on_execution(event.execution, event.replaces)
                # A combo's order is filled by the executions of the whole; its legs' are positions.
                if tracked is not None and event.execution.conid == tracked.ticket.contract_id:
                    taken = Decimal(0) if event.replaces is None else event.replaces.quantity
                    tracked.filled += event.execution.quantity - taken
                if event.execution.liquidation:
                    self.on_liquidation(event.execution)
            sink = None if tracked is None else tracked.sink
            if tracked is not None and sink is not None:
                tracked.tell(event)
            if isinstance(event, ExecutionReported | CommissionReported):
                # Whoever keeps the account's books hears of every execution, also of the kill switch's own orders.
                account = event.execution.account
                if not any(one is sink for one in self._sinks.get(account, ())):
                    self.tell_all(account, event)
        return fresh

    def _write(self, rows: list[tuple[Execution, str | None, str]]) -> None:
        if not rows and not self._unwritten:
            return
        rows = [*self._unwritten, *rows]
        try:
            self._journal.add_executions(rows)
            self._unwritten.clear()
        except JournalError as problem:
            # They happened: whoever trades must know, whether they can be written or not.
            self._unwritten = rows
            _log.error("journal-failed executions=%d problem=%s", len(rows), problem)
            self._tell("journal-failed", str(problem))

    def knows(self, execution: Execution) -> bool:
        """Whether it was taken in, or is kept until its order is known."""
        return execution.execution_id in self._books[execution.account] or any(
            not isinstance(one, OrderReport) and one[0].execution_id == execution.execution_id
            for one in self._kept.get(execution.account, ())
        )

    def keeps_executions(self, account: str) -> bool:
        """Whether executions wait for their order to be known: they are in no position yet."""
        return any(not isinstance(one, OrderReport) for one in self._kept.get(account, ()))


def _merged(before: OrderReport, report: OrderReport) -> OrderReport:
    """An order as it stands after ``report``, which tells what has changed."""
    told = {name: value for name, value in msgspec.structs.asdict(report).items() if value not in (None, ())}
    return msgspec.structs.replace(before, **told)
