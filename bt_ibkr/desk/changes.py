"""Changes of orders that stand: price, size, time in force. The whole order is sent again, as IBKR wants it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from bt_ibkr.connection.interface import ModifyFailed, OrderModified, OrderPlaced
from bt_ibkr.desk.registry import Registry, Sink, Tracked
from bt_ibkr.desk.reports import ReportRouter
from bt_ibkr.errors import BtIbkrError, JournalError, OrderRefusedError, OutcomeUnknownError
from bt_ibkr.journal import Journal, steps
from bt_ibkr.model.intent import OrderIntent, OrderState
from bt_ibkr.model.order import OrderReport, OrderTicket
from bt_ibkr.model.trading import TradingState
from bt_ibkr.services.conversation import BrokenOffError, Stage
from bt_ibkr.services.orders import OrderService, is_done
from bt_ibkr.services.portfolio import PortfolioService

_log = logging.getLogger(__name__)

#: The log's words for a change that was asked for (payload: the whole ticket), refused, or of unknown outcome.
ASKED, REFUSED, UNKNOWN = "modify-asked", "modify-refused", "modify-unknown"
#: Pauses between looks at an order whose change was not answered, seconds.
_PAUSES_S = (0.2, 0.5, 1.0, 2.0)


class Controls(Protocol):
    """What is asked before anything leaves."""

    async def prepare(self, intents: Sequence[OrderIntent]) -> None:
        """Read what the controls need to know of the orders."""
        ...

    def cleared(self, intents: Sequence[OrderIntent]) -> tuple[OrderIntent, ...]:
        """The orders as they may be placed; raises ``OrderRefusedError``."""
        ...

    def withdraw(self, intents: Sequence[OrderIntent]) -> None:
        """They were cleared, but not sent."""
        ...

    def check_change(self, tracked: Tracked, ticket: OrderTicket) -> None:
        """Raises ``OrderRefusedError`` for a change that may not be made."""
        ...

    def required_state(self, account: str) -> TradingState | None:
        """The trading state that the limits demand now; ``None`` if the present one will do."""
        ...


class Changes:
    """Asks for changes, and finds out whether they were made; arguments as of ``OrderDesk``."""

    def __init__(
        self,
        *,
        service: OrderService,
        portfolio: PortfolioService,
        journal: Journal,
        registry: Registry,
        router: ReportRouter,
        controls: Controls,
        tell: Callable[[str, str], None],
    ) -> None:
        self._service = service
        self._portfolio = portfolio
        self._journal = journal
        self._registry = registry
        self._router = router
        self._controls = controls
        self._tell = tell

    async def modify(self, key: str, ticket: OrderTicket, sink: Sink) -> None:
        """Replace the order of ``key`` by ``ticket``; executions settle a race with fills."""
        tracked = self._registry.get(key)
        if tracked is None or tracked.order_id is None or not tracked.open:
            why = "is not known" if tracked is None else "has ended" if not tracked.open else "has no id yet"
            sink.append(ModifyFailed(key, OrderRefusedError(f"Order {key} {why}: it cannot be changed.")))
            return
        try:
            self._controls.check_change(tracked, ticket)
            self._journal.note_event(key, ASKED, payload=ticket)
        except (OrderRefusedError, JournalError) as problem:
            sink.append(ModifyFailed(key, unrecorded(problem)))
            return
        steps.step("desk.modify.asked")
        try:
            order_id = await self._service.modify(tracked.order_id, ticket)
        except OrderRefusedError as problem:
            self._failed(tracked, problem)
        except BrokenOffError as broken:
            await self._after_lost_answer(tracked, ticket, broken)
        else:
            self._changed(tracked, ticket, order_id)

    def set_expiry(self, key: str, expires_ns: int | None) -> None:
        """Write down when the order is to be cancelled by us."""
        tracked = self._registry.get(key)
        if tracked is None:
            _log.warning("expiry-of-unknown-order key=%s", key)
            return
        tracked.intent = msgspec.structs.replace(tracked.intent, expires_ns=expires_ns)
        try:
            self._journal.set_expiry(key, expires_ns)
        except JournalError as problem:
            self._tell("journal-failed", str(problem))

    def _changed(self, tracked: Tracked, ticket: OrderTicket, order_id: str) -> None:
        if self._registry.give_id(tracked, order_id):
            if tracked.open:
                self._router.note(tracked, OrderState.WORKING, order_id=order_id)
            tracked.tell(OrderPlaced(tracked.key, order_id))
        tracked.ticket = ticket
        try:
            self._journal.replace_ticket(tracked.key, ticket)
        except JournalError as problem:
            self._tell("journal-failed", str(problem))
        tracked.tell(OrderModified(tracked.key, ticket))

    def _failed(self, tracked: Tracked, problem: BtIbkrError) -> None:
        unknown = isinstance(problem, OutcomeUnknownError)
        try:
            self._journal.note_event(tracked.key, UNKNOWN if unknown else REFUSED, problem.message)
        except JournalError as trouble:
            self._tell("journal-failed", str(trouble))
        tracked.tell(ModifyFailed(tracked.key, problem))

    async def _after_lost_answer(self, tracked: Tracked, ticket: OrderTicket, broken: BrokenOffError) -> None:
        """Whether a change whose answer was lost was made: the order's own figures tell.

        That they are the new ones proves it at once. That they are the old ones must last: the change may be on
        its way. What they do not show stays unknown.
        """
        key = tracked.key
        refused = OrderRefusedError(f"Order {key} stands as it was: {broken.message}")
        if broken.stage is not Stage.SENT:
            self._failed(tracked, refused)
            return
        shown: bool | None = None
        for pause_s in _PAUSES_S:
            report = await self._report(tracked)
            if report is not None:
                self._router.take_report(report)
                shown = shows(report, tracked.ticket, ticket)
                if shown:
                    self._changed(tracked, ticket, tracked.order_id or report.order_id)
                    return
                if is_done(report):
                    self._failed(tracked, OrderRefusedError(f"Order {key} has ended: {broken.message}"))
                    return
            await asyncio.sleep(pause_s)
        if shown is False:
            self._failed(tracked, refused)
        else:
            unknown = OutcomeUnknownError(
                f"Whether order {key} was changed is not known: {broken.message}",
                remedy="Look at the order in IBKR's own programs before you change it again.",
            )
            self._failed(tracked, unknown)

    async def _report(self, tracked: Tracked) -> OrderReport | None:
        """The order's status; by its ``cOID`` if IBKR does not know its id any more."""
        assert tracked.order_id is not None
        try:
            return await self._service.status(tracked.order_id)
        except BtIbkrError as problem:
            _log.info("order-status-unread key=%s problem=%s", tracked.key, problem)
        try:
            orders = await self._portfolio.live_orders(tracked.account)
        except BtIbkrError as problem:
            _log.info("order-list-unread key=%s problem=%s", tracked.key, problem)
            return None
        return next((one for one in orders if one.order_ref == tracked.key), None)


def unrecorded(problem: BtIbkrError) -> BtIbkrError:
    """The refusal of an order or a change that the journal did not take."""
    if isinstance(problem, OrderRefusedError):
        return problem
    return OrderRefusedError(f"Nothing is sent that is not on record: {problem}")


def shows(report: OrderReport, old: OrderTicket, new: OrderTicket) -> bool | None:
    """Whether the report has the figures of the new ticket, or of the old (``False``), or does not tell."""
    pairs = (
        (report.total_quantity, old.quantity, new.quantity),
        (report.limit_price, old.limit_price, new.limit_price),
        (report.stop_price, old.stop_price, new.stop_price),
    )
    seen = set()
    for told, before, after in pairs:
        if told is None or before == after:
            continue
        if _same(told, after):
            seen.add(True)
        elif _same(told, before):
            seen.add(False)
        else:
            return None
    return seen.pop() if len(seen) == 1 else None


def _same(one: object, other: object) -> bool:
    return other is not None and abs(float(str(one)) - float(str(other))) < 1e-9
