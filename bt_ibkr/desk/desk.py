"""Orders of one session, from command to outcome.

A submission is checked against the risk controls, written to the journal, and only then sent. What became of it is
written before anybody is told. An answer that was lost leaves the order *unknown*: it is looked up until it is found;
it is called refused only on proof, and never sent again if it may stand.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol

from bt_ibkr.clock import Clock
from bt_ibkr.connection.interface import (
    CancelFailed,
    ModifyFailed,
    OrderFailed,
    OrderModified,
    OrderPlaced,
)
from bt_ibkr.desk.lookup import look
from bt_ibkr.desk.registry import Registry, Sink, Tracked
from bt_ibkr.desk.reports import ReportRouter
from bt_ibkr.errors import BtIbkrError, JournalError, OrderRefusedError, OutcomeUnknownError
from bt_ibkr.journal import Journal, steps
from bt_ibkr.model.intent import OrderIntent, OrderState
from bt_ibkr.model.order import OrderReport, OrderTicket
from bt_ibkr.model.trading import TradingState
from bt_ibkr.risk.exposure import group_of
from bt_ibkr.services.algos import AlgoService
from bt_ibkr.services.conversation import BrokenOffError, Stage
from bt_ibkr.services.orders import OrderService, Outcome, is_done
from bt_ibkr.services.portfolio import PortfolioService

_log = logging.getLogger(__name__)

#: How often a submission that certainly did not reach IBKR is sent, in all.
_SENDINGS = 3
#: Looks for a lost order before its submission counts as answered with "not known"; looking goes on after that.
_FIRST_LOOKS = 4
#: Seconds between looks, by how often was looked; the last goes on. Lists have their own pacing beside.
_LOOK_PAUSES_S = (0.2, 0.5, 1.0, 2.0, 5.0, 15.0, 60.0)
#: How often a cancellation whose answer was lost is asked for; asking twice does no harm.
_CANCELLATIONS = 3


class Controls(Protocol):
    """What is asked before anything leaves."""

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


class OrderDesk:
    """Takes commands, gives events.

    Args:
        service: Conversations with IBKR.
        portfolio: Lists for look-ups.
        journal: The record.
        registry, router: Shared with reconciliation.
        controls: Risk controls.
        algos: Checks orders that name an algorithm.
        clock: Market clock.
        tell: Alarms for the store, by kind and text.
    """

    def __init__(
        self,
        *,
        service: OrderService,
        portfolio: PortfolioService,
        journal: Journal,
        registry: Registry,
        router: ReportRouter,
        controls: Controls,
        algos: AlgoService,
        clock: Clock,
        tell: Callable[[str, str], None],
    ) -> None:
        self._service = service
        self._portfolio = portfolio
        self._journal = journal
        self._registry = registry
        self._router = router
        self._controls = controls
        self._algos = algos
        self._clock = clock
        self._tell = tell
        self._tasks: set[asyncio.Task[None]] = set()
        router.on_placed = self._cancel_if_wanted

    # -- submission --------------------------------------------------------------------------------

    async def submit(self, intents: Sequence[OrderIntent], sink: Sink) -> None:
        """Check, write down, send; returns once the outcome was told, or is being looked up in the background."""
        try:
            for intent in intents:
                if intent.ticket.algo is not None:
                    await self._algos.check(intent.ticket)
            cleared = self._controls.cleared(intents)
        except BtIbkrError as problem:
            for intent in intents:
                sink.append(OrderFailed(intent.key, _as_refusal(problem)))
            return
        try:
            self._journal.intend(cleared)
        except (OrderRefusedError, JournalError) as problem:
            self._controls.withdraw(cleared)
            for intent in intents:
                sink.append(OrderFailed(intent.key, _unrecorded(problem)))
            return
        intents = cleared
        steps.step("intended")
        tracked = [self._registry.add(intent, sink) for intent in intents]
        for one in tracked:
            one.group = group_of(one.intent, intents[0].key)
        account = intents[0].ticket.account
        self._router.begin(account)
        try:
            unknown = await self._send(tracked)
        except BaseException:
            self._router.end(account)
            raise
        if unknown is None:
            self._router.end(account)
            return
        # What belongs to nobody is kept until this is known, or the task has looked for long.
        self._background(self._find(tracked, account, unknown))

    async def _send(self, tracked: list[Tracked]) -> BrokenOffError | None:
        """Send until there is an outcome; or how the conversation ended whose outcome is still not known."""
        tickets = tuple(one.ticket for one in tracked)
        sendings = 0
        while True:
            sendings += 1
            try:
                outcome = await self._service.place(tickets)
            except BrokenOffError as broken:
                _log.warning(
                    "order-broken-off keys=%s stage=%s problem=%s", _keys(tracked), broken.stage, broken
                )
                if broken.stage is Stage.UNSENT:
                    if sendings < _SENDINGS and self._open(tracked):
                        await asyncio.sleep(_LOOK_PAUSES_S[sendings - 1])
                        continue
                    self._fail(tracked, OrderRefusedError(broken.message, remedy="It was not sent."))
                    return None
                self._unknown(tracked, broken)
                steps.step("unknown")
                settled = await self._first_looks(tracked, broken)
                if settled is None:
                    return broken
                if settled or not self._open(tracked):
                    return None
                if sendings >= _SENDINGS:
                    self._fail(tracked, OrderRefusedError(f"It was never confirmed: {broken.message}"))
                    return None
            except OrderRefusedError as problem:
                if "already registered" in problem.message.lower():
                    # Proof that it stands: its key is of nobody else.
                    stands = BrokenOffError(problem.message, stage=Stage.SENT)
                    self._unknown(tracked, stands)
                    return stands if await self._first_looks(tracked, stands) is None else None
                self._fail(tracked, problem)
                return None
            else:
                self._settle(tracked, outcome)
                return None

    async def _first_looks(self, tracked: list[Tracked], broken: BrokenOffError) -> bool | None:
        """``True``: found and settled; ``False``: not there, and it was never confirmed; ``None``: not known."""
        for turn in range(_FIRST_LOOKS):
            try:
                if await self._look(tracked):
                    return True
            except BtIbkrError as trouble:
                _log.warning("order-look-up-failed keys=%s problem=%s", _keys(tracked), trouble)
            else:
                if broken.stage is Stage.ASKED:
                    return False
            await asyncio.sleep(_LOOK_PAUSES_S[turn])
        return None

    async def _find(self, tracked: list[Tracked], account: str, broken: BrokenOffError) -> None:
        """Go on looking. Reports settle it as well."""
        for one in tracked:
            one.tell(OrderFailed(one.key, _unknown_error(one, broken)))
        self._router.end(account)
        turn = _FIRST_LOOKS
        while any(one.state is OrderState.UNKNOWN for one in tracked):
            await asyncio.sleep(_LOOK_PAUSES_S[min(turn, len(_LOOK_PAUSES_S) - 1)])
            turn += 1
            try:
                if await self._look(tracked):
                    return
            except BtIbkrError as trouble:
                _log.info("order-look-up-failed keys=%s problem=%s", _keys(tracked), trouble)

    async def _look(self, tracked: list[Tracked]) -> bool:
        """Whether the submission was found, and is settled now."""
        sighting = await look(self._portfolio, [one.ticket for one in tracked])
        if not sighting.placed:
            return False
        refusal = None
        if len(sighting.placed) < len(tracked):
            refusal = OrderRefusedError("IBKR has the order, but not all orders of its submission.")
        self._settle(tracked, Outcome(placed=sighting.placed, refusal=refusal))
        for report in sighting.orders:
            if self._registry.find(report.order_id, report.order_ref) in tracked:
                self._router.take_report(report)
        self._router.take_executions(sighting.trades, "trades")
        return True

    def _settle(self, tracked: list[Tracked], outcome: Outcome) -> None:
        """Write down and tell what stands; undo half of a bracket."""
        by_ticket = {id(one.ticket): one for one in tracked}
        standing = []
        for placement in outcome.placed:
            one = by_ticket.pop(id(placement.ticket))
            standing.append(one)
            if one.order_id == placement.order_id:
                continue  # a report was faster
            self._registry.give_id(one, placement.order_id)
            self._router.note(one, OrderState.WORKING, order_id=placement.order_id)
        steps.step("placed")
        for one in standing:
            assert one.order_id is not None
            one.tell(OrderPlaced(one.key, one.order_id))
            steps.step("told")
            self._cancel_if_wanted(one)
        missing = list(by_ticket.values())
        if missing and outcome.refusal is not None:
            self._fail(missing, outcome.refusal)
        if (missing and len(tracked) > 1) or outcome.strays:
            self._background(self._undo(standing, missing, outcome))

    async def _undo(self, standing: list[Tracked], missing: list[Tracked], outcome: Outcome) -> None:
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
        if bracket and parent is not None and parent.order_id is not None:
            try:
                await self._service.cancel(parent.ticket, parent.order_id)
                text += f" {parent.key} is being cancelled."
            except BtIbkrError as problem:
                protects = True
                text += f" {parent.key} could not be cancelled ({problem}): its position may be UNPROTECTED."
        if bracket and not protects:
            for one in standing:
                if one is not parent and one.open:
                    await self.cancel(one.key, one.sink)
        for order_id in outcome.strays:
            try:
                await self._service.cancel_by_id(account, order_id)
            except BtIbkrError as problem:
                text += f" Order {order_id} of it could not be cancelled: {problem}"
        self._tell("bracket-incomplete" if bracket else "submission-incomplete", text)

    def _unknown(self, tracked: list[Tracked], broken: BrokenOffError) -> None:
        for one in tracked:
            if one.state is OrderState.INTENDED:
                self._router.note(one, OrderState.UNKNOWN, text=broken.message)

    def _fail(self, tracked: list[Tracked], problem: OrderRefusedError) -> None:
        for one in tracked:
            if one.order_id is not None:
                continue  # a report has shown that it stands
            self._router.note(one, OrderState.REJECTED, text=problem.message)
            one.tell(OrderFailed(one.key, problem))
            steps.step("told")

    @staticmethod
    def _open(tracked: list[Tracked]) -> bool:
        """Whether nobody has settled it meanwhile, and it is still wanted."""
        return all(one.order_id is None and one.open and not one.cancel_wanted for one in tracked)

    # -- cancellation ------------------------------------------------------------------------------

    async def cancel(self, key: str, sink: Sink | None) -> None:
        """Ask IBKR to cancel; an order that has no id yet, as soon as it has one."""
        tracked = self._registry.get(key)
        if tracked is None:
            if sink is not None:
                sink.append(CancelFailed(key, OrderRefusedError(f"There is no order {key}.")))
            return
        if tracked.order_id is None:
            tracked.cancel_wanted = True
            return
        self._event(key, "cancel-asked", "")
        for turn in range(_CANCELLATIONS):
            try:
                await self._service.cancel(tracked.ticket, tracked.order_id)
                return
            except OrderRefusedError as problem:
                if tracked.open and not await self._ended(tracked):
                    tracked.tell(CancelFailed(key, problem))
                elif sink is not None:
                    sink.append(CancelFailed(key, problem))
                return
            except BtIbkrError as problem:
                _log.warning("cancel-unanswered key=%s problem=%s", key, problem)
                last = problem
                if await self._ended(tracked):
                    return
            await asyncio.sleep(_LOOK_PAUSES_S[turn])
        tracked.tell(CancelFailed(key, last))

    async def _ended(self, tracked: Tracked) -> bool:
        """Ask for the order's status, hand it on, and tell whether it ended or is being cancelled."""
        report = await self._status(tracked)
        if report is None:
            return not tracked.open
        self._router.take_report(report)
        return is_done(report)

    async def _status(self, tracked: Tracked) -> OrderReport | None:
        assert tracked.order_id is not None
        try:
            return await self._service.status(tracked.order_id)
        except BtIbkrError as problem:
            _log.info("order-status-unread key=%s problem=%s", tracked.key, problem)
            return None

    def _cancel_if_wanted(self, tracked: Tracked) -> None:
        if tracked.cancel_wanted and tracked.open:
            tracked.cancel_wanted = False
            self._background(self.cancel(tracked.key, tracked.sink))

    # -- modification ------------------------------------------------------------------------------

    async def modify(self, key: str, ticket: OrderTicket, sink: Sink) -> None:
        """Replace the order of ``key`` by ``ticket``; executions settle a race with fills."""
        tracked = self._registry.get(key)
        if tracked is None or tracked.order_id is None or not tracked.open:
            why = "is not known" if tracked is None else "has ended" if not tracked.open else "has no id yet"
            sink.append(ModifyFailed(key, OrderRefusedError(f"Order {key} {why}: it cannot be changed.")))
            return
        try:
            self._controls.check_change(tracked, ticket)
            self._journal.note_event(key, "modify-asked", payload=ticket)
        except (OrderRefusedError, JournalError) as problem:
            sink.append(ModifyFailed(key, _unrecorded(problem)))
            return
        steps.step("modify-intended")
        try:
            order_id = await self._service.modify(tracked.order_id, ticket)
        except OrderRefusedError as problem:
            self._event(key, "modify-refused", problem.message)
            tracked.tell(ModifyFailed(key, problem))
            return
        except BrokenOffError as broken:
            await self._after_lost_change(tracked, ticket, broken)
            return
        self._changed(tracked, ticket, order_id)

    def _changed(self, tracked: Tracked, ticket: OrderTicket, order_id: str) -> None:
        if self._registry.give_id(tracked, order_id):
            self._router.note(tracked, OrderState.WORKING, order_id=order_id)
            tracked.tell(OrderPlaced(tracked.key, order_id))
        tracked.ticket = ticket
        try:
            self._journal.replace_ticket(tracked.key, ticket)
        except JournalError as problem:
            self._tell("journal-failed", str(problem))
        tracked.tell(OrderModified(tracked.key, ticket))

    async def _after_lost_change(self, tracked: Tracked, ticket: OrderTicket, broken: BrokenOffError) -> None:
        """Whether a change whose answer was lost was made: the order's own figures tell."""
        key = tracked.key
        if broken.stage is Stage.SENT:
            for turn in range(_FIRST_LOOKS):
                report = await self._status(tracked)
                if report is not None:
                    self._router.take_report(report)
                    if _shows(report, ticket) and not _shows(report, tracked.ticket):
                        self._changed(tracked, ticket, tracked.order_id or report.order_id)
                        return
                    if is_done(report) or _shows(report, tracked.ticket):
                        break
                await asyncio.sleep(_LOOK_PAUSES_S[turn])
            else:
                self._event(key, "modify-unknown", broken.message)
                tracked.tell(
                    ModifyFailed(
                        key, OutcomeUnknownError(f"Whether order {key} was changed is not known: {broken}")
                    )
                )
                return
        self._event(key, "modify-refused", broken.message)
        tracked.tell(ModifyFailed(key, OrderRefusedError(f"Order {key} stands as it was: {broken.message}")))

    # -- helpers -----------------------------------------------------------------------------------

    def _event(self, key: str, kind: str, text: str) -> None:
        try:
            self._journal.note_event(key, kind, text)
        except JournalError as problem:
            self._tell("journal-failed", str(problem))

    def _background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work, name="order-desk")
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            _log.error("order-desk-failed", exc_info=task.exception())
            self._tell("order-desk-failed", repr(task.exception()))

    async def close(self) -> None:
        """End what goes on in the background; the journal knows what is not settled."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _keys(tracked: Sequence[Tracked]) -> str:
    return ",".join(one.key for one in tracked)


def _as_refusal(problem: BtIbkrError) -> BtIbkrError:
    if isinstance(problem, OrderRefusedError):
        return problem
    return OrderRefusedError(f"It could not be checked, and was not sent: {problem}")


def _unrecorded(problem: BtIbkrError) -> BtIbkrError:
    if isinstance(problem, OrderRefusedError):
        return problem
    return OrderRefusedError(f"Nothing is sent that is not on record: {problem}")


def _unknown_error(one: Tracked, broken: BrokenOffError) -> OutcomeUnknownError:
    return OutcomeUnknownError(
        f"Whether order {one.key} stands at IBKR is not known: {broken.message}",
        remedy="It was not sent again and is looked for. Check the account before you repeat it.",
    )


def _shows(report: OrderReport, ticket: OrderTicket) -> bool:
    """Whether the report's figures are those of the ticket, as far as it has any."""
    pairs = (
        (report.total_quantity, ticket.quantity),
        (report.limit_price, ticket.limit_price),
        (report.stop_price, ticket.stop_price),
    )
    return all(
        told is None or wanted is None or abs(float(told) - float(wanted)) < 1e-9 for told, wanted in pairs
    )
