"""The list of live orders: what it tells is taken in, what it leaves out is asked for.

IBKR's list is cached, cut at a thousand rows, and empty for a while after some calls: an order that is not in it
stands until its end is proven, by its status or by its executions.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from bt_ibkr.desk.registry import Registry
from bt_ibkr.desk.reports import ReportRouter
from bt_ibkr.errors import BtIbkrError, ResponseError
from bt_ibkr.model.intent import OrderState
from bt_ibkr.model.order import OrderReport
from bt_ibkr.services.orders import OrderService
from bt_ibkr.services.portfolio import PortfolioService

_log = logging.getLogger(__name__)


class ListReader:
    """Takes lists of orders in; arguments as of ``Reconciler``."""

    def __init__(
        self, *, service: OrderService, portfolio: PortfolioService, registry: Registry, router: ReportRouter
    ) -> None:
        self._service = service
        self._portfolio = portfolio
        self._registry = registry
        self._router = router

    async def take(self, account: str, reports: Iterable[OrderReport]) -> None:
        """Bring all orders of the account up to date; executions have been taken in before.

        Raises:
            BtIbkrError: A status could not be read.
        """
        reports = tuple(reports)
        listed = {report.order_id for report in reports}
        before = [one for one in self._registry if one.account == account and one.open]
        for report in reports:
            self._router.take_report(report)
        for tracked in before:
            if not tracked.open or tracked.order_id is None or tracked.order_id in listed:
                continue
            status = await self.status(tracked.order_id)
            if status is not None:
                self._router.take_report(status)
            elif tracked.filled >= tracked.ticket.quantity > 0:
                self._router.note(tracked, OrderState.FILLED, text="all of it has executed")
        await self._take_external(account, reports, listed)
        untold = [one.key for one in before if not one.open]
        if untold:
            # Perhaps the stream is only late. It may as well be silent since somebody asked with a filter.
            _log.info("orders-ended-untold keys=%s", ",".join(untold))
            await self._unfilter()

    async def _take_external(self, account: str, reports: tuple[OrderReport, ...], listed: set[str]) -> None:
        kept = []
        for order_id in [one for one in self._router.external[account] if one not in listed]:
            status = await self.status(order_id)
            if status is not None:
                self._router.take_report(status)
            if (status is not None or not reports) and order_id in self._router.external[account]:
                kept.append(self._router.external[account][order_id])
        self._router.take_external(account, (*reports, *kept))

    async def status(self, order_id: str) -> OrderReport | None:
        """What IBKR says of one order; ``None`` if it does not know it, or not any more."""
        try:
            return await self._service.status(order_id)
        except ResponseError:
            # 503 also for an order that it does not know any more.
            return None

    async def _unfilter(self) -> None:
        try:
            await self._portfolio.force_orders()
        except BtIbkrError as problem:
            _log.warning("orders-not-forced problem=%s", problem)
