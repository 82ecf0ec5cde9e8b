"""Cancellations: of an order that is not wanted any more, and of what a submission has left half done."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from bt_ibkr.connection.interface import CancelFailed
from bt_ibkr.desk.registry import Registry, Sink, Tracked
from bt_ibkr.desk.reports import ReportRouter
from bt_ibkr.errors import BtIbkrError, JournalError, OrderRefusedError
from bt_ibkr.journal import Journal
from bt_ibkr.model.intent import OrderState
from bt_ibkr.model.order import OrderReport, OrderStatus
from bt_ibkr.services.orders import OrderService, Outcome, is_done

_log = logging.getLogger(__name__)

#: A cancellation whose answer was lost is asked for so often, with these pauses, seconds; asking twice does no harm.
_PAUSES_S = (0.2, 0.5, 1.0)
#: A cancellation was taken, and has not happened yet.
_ENDING = frozenset({OrderStatus.PENDING_CANCEL, OrderStatus.PRE_CANCELLED})
#: How long the end of a bracket's entry is waited for, seconds, before its other orders are seen to.
_ENDS_S = 10.0


class Cancellations:
    """Asks for cancellations, and finds out whether they were taken; arguments as of ``OrderDesk``."""

    def __init__(
        self,
        *,
        service: OrderService,
        journal: Journal,
        registry: Registry,
        router: ReportRouter,
        tell: Callable[[str, str], None],
    ) -> None:
        self._service = service
        self._journal = journal
        self._registry = registry
        self._router = router
        self._tell = tell

    async def cancel(self, key: str, sink: Sink | None) -> None:
        """Ask IBKR to cancel; an order that has no id yet, as soon as it has one."""
        tracked = self._registry.get(key)
        if tracked is None:
            if sink is not None:
                sink.append(CancelFailed(key, OrderRefusedError(f"There is no order {key}.")))
            return
        if tracked.order_id is None:
            if tracked.open:
                tracked.cancel_wanted = True
            elif sink is not None:
                sink.append(CancelFailed(key, OrderRefusedError(f"Order {key} does not stand at IBKR.")))
            return
        self._event(key, "cancel-asked", "")
        for pause_s in _PAUSES_S:
            try:
                await self._service.cancel(tracked.ticket, tracked.order_id)
                return
            except OrderRefusedError as problem:
                if tracked.open and not await self._ended(tracked):
                    tracked.tell(CancelFailed(key, problem))
                elif sink is not None and not tracked.open and tracked.state is not OrderState.CANCELLED:
                    sink.append(CancelFailed(key, problem))
                return
            except BtIbkrError as problem:
                _log.warning("cancel-unanswered key=%s problem=%s", key, problem)
                last = problem
                if await self._ended(tracked):
                    return
            await asyncio.sleep(pause_s)
        tracked.tell(CancelFailed(key, last))

    async def _ended(self, tracked: Tracked) -> bool:
        """Ask for the order's status, hand it on, and tell whether it ended or is being cancelled."""
        report = await self._status(tracked)
        if report is None:
            return not tracked.open
        self._router.take_report(report)
        return is_done(report) or report.status in _ENDING

    async def _status(self, tracked: Tracked) -> OrderReport | None:
        assert tracked.order_id is not None
        try:
            return await self._service.status(tracked.order_id)
        except BtIbkrError as problem:
            _log.info("order-status-unread key=%s problem=%s", tracked.key, problem)
            return None

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
                    await self.cancel(one.key, one.sink)
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
        self._event(parent.key, "cancel-asked", "its bracket is not whole")
        last: BtIbkrError | None = None
        for pause_s in _PAUSES_S:
            try:
                await self._service.cancel(parent.ticket, parent.order_id)
            except OrderRefusedError as problem:
                # An attempt whose answer was lost may have done it.
                if not await self._ended(parent) or parent.state is OrderState.FILLED:
                    return problem
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

    def _event(self, key: str, kind: str, text: str) -> None:
        try:
            self._journal.note_event(key, kind, text)
        except JournalError as problem:
            self._tell("journal-failed", str(problem))
