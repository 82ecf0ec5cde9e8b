"""The orders of an account, as IBKR lists them and as the journal knows them, side by side."""

from __future__ import annotations

import msgspec

from bt_ibkr.app.visit import Visit
from bt_ibkr.journal import Journal, JournalOrder
from bt_ibkr.model.order import DONE, OrderReport, OrderStatus
from bt_ibkr.services.matching import found


class Listing(msgspec.Struct, frozen=True, kw_only=True):
    """One look at whole lists.

    Attributes:
        reports: The day's orders, of all programs.
        owners: The journal's order by IBKR's id.
        ours: IBKR's ids of the orders that strategies of this journal placed; of a bracket's children also those that
            could not be told from each other.
        missing: Open orders of the journal that IBKR does not list.
    """

    reports: tuple[OrderReport, ...]
    owners: dict[str, JournalOrder]
    ours: frozenset[str]
    missing: tuple[JournalOrder, ...]

    def live(self, *, external: bool) -> list[OrderReport]:
        """Those that may still execute: ours, or also those of other programs."""
        return [one for one in self.reports if may_execute(one) and (external or one.order_id in self.ours)]


def may_execute(report: OrderReport) -> bool:
    """Whether the order may still execute. What IBKR holds as Inactive it does not, unless somebody changes it."""
    return report.status not in DONE and report.status is not OrderStatus.INACTIVE


async def read_orders(visit: Visit, journal: Journal | None, account: str) -> Listing:
    """Look at the lists.

    Raises:
        BtIbkrError: They could not be read whole: nothing may be concluded.
    """
    reports = tuple(
        one for one in await visit.portfolio.live_orders(account) if one.account in (None, account)
    )
    if journal is None:
        return Listing(reports=reports, owners={}, ours=frozenset(), missing=())
    standing = [one for one in journal.orders(open_only=True) if one.intent.ticket.account == account]
    by_ticket = {id(one.intent.ticket): one for one in standing}
    owners: dict[str, JournalOrder] = {}
    for placement in found([one.intent.ticket for one in standing], reports):
        owners[placement.order_id] = by_ticket[id(placement.ticket)]
    for report in reports:
        known = journal.by_order_id(account, report.order_id)
        if known is None and report.order_ref:
            known = journal.order(report.order_ref)
        if known is not None:
            owners[report.order_id] = known
    ours = {one.order_id for one in reports if one.order_id in owners or one.parent_id in owners}
    seen = {one.key for one in owners.values()}
    return Listing(
        reports=reports,
        owners=owners,
        ours=frozenset(ours),
        missing=tuple(one for one in standing if one.key not in seen),
    )
