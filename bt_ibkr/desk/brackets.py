"""Brackets of which only a part stands: cancelled as long as nothing has executed, and always told.

IBKR takes the orders of a bracket one by one: the entry may stand although a child was refused, in the answer or a
moment after it, and whatever the answer said of the whole.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from bt_ibkr.desk.registry import Registry, Sink, Tracked
from bt_ibkr.desk.reports import ReportRouter
from bt_ibkr.errors import BtIbkrError, JournalError, OrderRefusedError
from bt_ibkr.journal import Journal
from bt_ibkr.model.intent import OrderState
from bt_ibkr.model.order import OrderReport
from bt_ibkr.services.orders import OrderService, Outcome

_log = logging.getLogger(__name__)

#: The cancellation of an entry is asked for so often; seconds until the next time.
_PAUSES_S = (0.2, 0.5, 1.0)
#: How long the end of a bracket's entry is waited for, seconds, before its other orders are seen to.
_ENDS_S = 10.0


class Brackets:
    """Sees to submissions that are not whole.

    Args:
        service, registry, router, journal: The desk's.
        cancel: Cancels an order by its key.
        ended: Asks for an order's status and hands it on; whether the order ended.
        tell: Alarms, by kind and text.
    """

    def __init__(
        self,
        *,
        service: OrderService,
        registry: Registry,
        router: ReportRouter,
        journal: Journal,
        cancel: Callable[[str, Sink | None], Coroutine[Any, Any, None]],
        ended: Callable[[Tracked], Coroutine[Any, Any, bool]],
        tell: Callable[[str, str], None],
    ) -> None:
        self._service = service
        self._registry = registry
        self._router = router
        self._journal = journal
        self._cancel = cancel
        self._ended = ended
        self._tell = tell
        #: Keys of the entries that are seen to.
        self._seen_to: set[str] = set()

    async def child_ended(self, child: Tracked, report: OrderReport) -> None:
        """A child has ended. If IBKR itself ended it, and not because of its entry or of the other child, the bracket
        is not whole any more.
        """
        parent = self._registry.get(child.intent.parent_key or "")
        refused = child.state is OrderState.REJECTED or bool(report.reason)
        if parent is None or not refused or parent.key in self._seen_to:
            return
        others = [one for one in self._registry if one.intent.parent_key == parent.key and one is not child]
        family = [parent, *others]
        if any(one.cancel_asked for one in (child, *family)):
            return
        # What ended it may have ended the others as well, or executed one of them: reports come in any order.
        for one in family:
            if one.open and one.order_id is not None:
                await self._ended(one)
        executed = any(one.filled or one.state is OrderState.FILLED for one in others)
        gone = not parent.open and not parent.filled and parent.state is not OrderState.FILLED
        if executed or gone or parent.key in self._seen_to or any(one.cancel_asked for one in family):
            return
        why = OrderRefusedError(report.reason or "IBKR ended it")
        await self.undo(
            [parent, *(one for one in others if one.open)], [child], Outcome(placed=(), refusal=why)
        )

    async def undo(self, standing: list[Tracked], missing: list[Tracked], outcome: Outcome) -> None:
        """A bracket of which only a part stands ends cancelled, and somebody is told.

        If the entry has filled already, what protects it is left alone.
        """
        account = (standing or missing)[0].account
        parent = next((one for one in standing if one.intent.parent_key is None), None)
        bracket = any(one.intent.parent_key is not None for one in (*standing, *missing))
        text = (
            f"Of one submission {', '.join(o.key for o in standing) or 'nothing'} stands and "
            f"{', '.join(o.key for o in missing) or 'nothing'} does not: {outcome.refusal}"
        )
        _log.error("submission-incomplete %s", text)
        if bracket and parent is not None:
            self._seen_to.add(parent.key)
        protects = False
        if bracket and parent is not None:
            why = await self._withdraw(parent)
            if why is not None:
                protects = True
                text += f" {parent.key} could not be cancelled ({why}): its position may be UNPROTECTED."
            elif parent.filled:
                protects = True
                text += (
                    f" {parent.key} ends, but {parent.filled} of it had executed: they may be UNPROTECTED."
                )
            else:
                text += f" {parent.key} is being cancelled."
        if bracket and not protects:
            for one in standing:
                if one is not parent and one.open:
                    await self._cancel(one.key, one.sink)
        alarm = len(standing) + len(missing) > 1
        for order_id in outcome.strays:
            if protects:
                text += f" Order {order_id} of it was left alone."
                continue
            try:
                await self._service.cancel_by_id(account, order_id)
            except OrderRefusedError as problem:
                # What IBKR refused it keeps as Inactive for a while, where nothing is left to cancel.
                text += f" Order {order_id} of it: {problem}"
            except BtIbkrError as problem:
                alarm = True
                text += f" Order {order_id} of it could not be cancelled: {problem}"
        if alarm:
            self._tell("bracket-incomplete" if bracket else "submission-incomplete", text)

    async def _withdraw(self, parent: Tracked) -> BtIbkrError | None:
        """Cancel the entry of a bracket, and wait a while for its end; why that is not possible."""
        assert parent.order_id is not None
        parent.cancel_asked = True
        try:
            self._journal.note_event(parent.key, "cancel-asked", "its bracket is not whole")
        except JournalError as problem:
            self._tell("journal-failed", str(problem))
        last: BtIbkrError | None = None
        for pause_s in _PAUSES_S:
            try:
                await self._service.cancel(parent.ticket, parent.order_id)
            except OrderRefusedError as problem:
                # An attempt whose answer was lost may have done it.
                await self._ended(parent)
                return None if parent.state is OrderState.CANCELLED else problem
            except BtIbkrError as problem:
                last = problem
                await asyncio.sleep(pause_s)
                continue
            try:
                await asyncio.wait_for(parent.ended.wait(), _ENDS_S)
            except TimeoutError:
                _log.warning("cancel-slow key=%s", parent.key)
            return None
        return last
