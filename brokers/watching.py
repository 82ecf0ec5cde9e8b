"""What happens in the account beside this run's orders: other clients, reconciliation, the kill switch.

Orders and executions of other clients are taken in and told, never traded away. Positions are believed as IBKR
reports them once they were read whole; from a reading that failed nothing is concluded.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from bt_ibkr.brokers.books import Applied, Books
from bt_ibkr.brokers.fills import shadow
from bt_ibkr.brokers.records import Records
from bt_ibkr.brokers.strays import Strays
from bt_ibkr.connection.interface import (
    AccountEvent,
    AccountSnapshot,
    CancelFailed,
    Difference,
    OrderChanged,
    OrderFailed,
    Reconciled,
)
from bt_ibkr.errors import OutcomeUnknownError
from bt_ibkr.model.order import DONE, Execution, OrderReport
from bt_ibkr.model.trading import Trading, TradingState

_log = logging.getLogger(__name__)


class Watching:
    """Takes in what belongs to no order of this run.

    Args:
        records, books: The broker's.
        strays: Orders of earlier runs that nobody took over.
        scheme: The commission scheme of a data.
    """

    def __init__(self, records: Records, books: Books, strays: Strays, scheme: Callable[[Any], Any]) -> None:
        self._records = records
        self._books = books
        self._strays = strays
        self._scheme = scheme
        #: Open orders that other clients placed, by IBKR's id, as last reported.
        self.orders: dict[str, OrderReport] = {}
        self.trading = TradingState()
        self._incomplete: set[str] = set()
        self._told: set[tuple[str, str, str, str, str]] = set()

    def attach(self, snapshot: AccountSnapshot) -> None:
        """As the account stood when it was attached."""
        if snapshot.trading is not None:
            self.trading = snapshot.trading
            if snapshot.trading.mode is not Trading.ACTIVE:
                self.take_trading(snapshot.trading)
        ours = {standing.order_id for standing in snapshot.standing}
        for report in snapshot.orders:
            if report.order_id not in ours and report.status not in DONE and report.status is not None:
                self._take_external(report)

    # -- other clients -------------------------------------------------------------------------------

    def take_report(self, event: OrderChanged) -> None:
        """Of an order that is none of this run's."""
        key, report = event.key, event.report
        if self._strays.get(key) is None or key is None:
            self._take_external(report)
        elif report.status in DONE:
            self._strays.ended(key)

    def _take_external(self, report: OrderReport) -> None:
        before = self.orders.get(report.order_id)
        if report.status in DONE:
            self.orders.pop(report.order_id, None)
            if before is None:
                return
        else:
            self.orders[report.order_id] = report
        if before is None or before.status is not report.status:
            _log.info("external-order order_id=%s status=%s", report.order_id, report.status)
            self._records.tell("external-order", report)

    def take_execution(self, execution: Execution, applied: Applied, key: str | None) -> None:
        """Of an order that is none of this run's; it is in the books already."""
        _log.info("external-execution id=%s conid=%d", execution.execution_id, execution.conid)
        self._records.tell("external-execution", execution)
        self.show(execution.account, applied, execution)
        if key is not None:
            self._strays.executed(key)

    def take_stray(self, event: AccountEvent) -> None:
        """An answer about an order that is none of this run's."""
        if isinstance(event, CancelFailed):
            _log.warning("cancel-failed key=%s problem=%s", event.key, event.error)
            self._records.tell("cancel-failed", None, key=event.key, error=event.error)
        elif isinstance(event, OrderFailed) and not isinstance(event.error, OutcomeUnknownError):
            self._strays.ended(event.key)

    # -- reconciliation ------------------------------------------------------------------------------

    def take_reconciled(self, event: Reconciled) -> None:
        """The account was read again."""
        book = self._books.of(event.account)
        if book is None:
            return
        if not event.complete:
            if event.account not in self._incomplete:
                self._incomplete.add(event.account)
                _log.warning("reconciliation-incomplete account=%s problem=%s", event.account, event.problem)
                self._records.tell("reconciliation-incomplete", event)
            return
        if event.account in self._incomplete:
            self._incomplete.discard(event.account)
            self._records.tell("reconciled", event)
        adopted = [] if event.positions is None else book.adopt(event.positions, event.time_ns)
        for one in adopted:
            self._shadow(event.account, one.conid, one.applied, one.price, 0.0, event.time_ns)
            self._tell_difference(event.account, one.difference, again=True)
        for difference in event.differences:
            if difference.kind != "position" or not adopted:
                self._tell_difference(event.account, difference)

    def _tell_difference(self, account: str, difference: Difference, *, again: bool = False) -> None:
        """``position-difference``, ``order-difference`` …; what stays as it is is told once."""
        name = (account, difference.kind, difference.subject, difference.recorded, difference.reported)
        if again or name not in self._told:
            self._told.add(name)
            _log.warning("%s-difference account=%s %s", difference.kind, account, difference.text)
            self._records.tell(f"{difference.kind}-difference", difference)

    def tell_differences(self, account: str, differences: tuple[Difference, ...]) -> None:
        """Those that were found when the account was attached."""
        for difference in differences:
            self._tell_difference(account, difference)

    def show(self, account: str, applied: Applied, execution: Execution) -> None:
        """Show backtrader's trades an execution that no order of the instrument stands behind."""
        commission = execution.commission or 0.0
        self._shadow(account, execution.conid, applied, execution.price, commission, execution.time_ns)

    def _shadow(
        self, account: str, conid: int, applied: Applied, price: float, commission: float, time_ns: int
    ) -> None:
        """A later close of the position then finds a trade to close."""
        data = self._books.instruments.datas.get(conid)
        if data is not None and account == self._books.accounts[0]:
            self._records.notify(shadow(data, applied, price, commission, time_ns, self._scheme(data)))

    # -- the kill switch -----------------------------------------------------------------------------

    def take_trading(self, state: TradingState) -> None:
        """Trading was halted, restricted or resumed, by whomever."""
        self.trading = state
        _log.warning("trading-changed mode=%s by=%s reason=%s", state.mode, state.by, state.reason)
        self._records.tell("trading-changed", state)
