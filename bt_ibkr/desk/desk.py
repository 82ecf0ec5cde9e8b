"""Orders of one session, from command to outcome.

A submission is checked against the risk controls, written to the journal, and only then sent. What became of it is
written before anybody is told. An answer that was lost leaves the order *unknown*: it is looked up until it is found;
it is called refused only on proof, and never sent again if it may stand.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import msgspec

from bt_ibkr.clock import Clock
from bt_ibkr.connection.interface import (
    CancelFailed,
    OrderFailed,
    OrderPlaced,
)
from bt_ibkr.desk.brackets import Brackets
from bt_ibkr.desk.changes import Changes, Controls, unrecorded
from bt_ibkr.desk.lookup import look
from bt_ibkr.desk.registry import Registry, Sink, Tracked
from bt_ibkr.desk.reports import ReportRouter
from bt_ibkr.errors import (
    BtIbkrError,
    JournalError,
    OrderRefusedError,
    OutcomeUnknownError,
    TradingHaltedError,
)
from bt_ibkr.journal import Journal, steps
from bt_ibkr.model.intent import UNPROVEN, OrderIntent, OrderState
from bt_ibkr.model.order import OrderReport, OrderStatus, OrderTicket
from bt_ibkr.model.trading import Trading
from bt_ibkr.risk.exposure import group_of
from bt_ibkr.services.algos import AlgoService
from bt_ibkr.services.conversation import BrokenOffError, Stage
from bt_ibkr.services.matching import Placement
from bt_ibkr.services.orders import OrderService, Outcome, is_done
from bt_ibkr.services.portfolio import PortfolioService

_log = logging.getLogger(__name__)

#: How often a submission that certainly did not reach IBKR is sent, in all.
_SENDINGS = 3
#: Looks for a lost order before its submission counts as answered with "not known"; looking goes on after that.
_FIRST_LOOKS = 4
#: Seconds between looks, by how often was looked; the last goes on. Lists have their own pacing beside.
_LOOK_PAUSES_S = (0.2, 0.5, 1.0, 2.0, 5.0, 15.0, 60.0)
#: So many whole lists without an order whose question was never confirmed prove that it does not stand.
_ABSENT = 2
#: How often a cancellation whose answer was lost is asked for; asking twice does no harm.
_CANCELLATIONS = 3
#: A cancellation was taken, and has not happened yet.
_ENDING = frozenset({OrderStatus.PENDING_CANCEL, OrderStatus.PRE_CANCELLED})


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
        #: Expiries that changed while their orders waited to be written down.
        self._expiries: dict[str, int | None] = {}
        self._changes = Changes(
            service=service,
            portfolio=portfolio,
            journal=journal,
            registry=registry,
            router=router,
            controls=controls,
            tell=tell,
        )
        self._brackets = Brackets(
            service=service,
            registry=registry,
            router=router,
            journal=journal,
            cancel=self.cancel,
            ended=self._ended,
            tell=tell,
        )
        #: Whether all positions are being closed, and an order is none of those that do it.
        self.in_the_way: Callable[[OrderIntent], bool] = lambda intent: False
        router.on_placed = self._cancel_if_wanted
        router.on_ended = self._look_after_bracket

    # -- submission --------------------------------------------------------------------------------

    async def submit(
        self, intents: Sequence[OrderIntent], sink: Sink, recorded: Callable[[], None] | None = None
    ) -> None:
        """Check, write down, send; returns once the outcome was told, or is being looked up in the background.

        ``recorded`` is called once they are in the journal.
        """
        try:
            for intent in intents:
                if intent.ticket.algo is not None:
                    await self._algos.check(intent.ticket)
            await self._controls.prepare(intents)
            cleared = self._controls.cleared(intents)
        except BtIbkrError as problem:
            for intent in intents:
                sink.append(OrderFailed(intent.key, _as_refusal(problem)))
            return
        try:
            cleared = tuple(self._with_expiry(one) for one in cleared)
            self._journal.intend(cleared)
        except (OrderRefusedError, JournalError) as problem:
            self._controls.withdraw(cleared)
            for intent in intents:
                sink.append(OrderFailed(intent.key, unrecorded(problem)))
            return
        intents = cleared
        steps.step("desk.intended")
        if recorded is not None:
            recorded()
        tracked = [self._registry.add(intent, sink) for intent in intents]
        for one in tracked:
            one.group = group_of(one.intent, intents[0].key)
        account = intents[0].ticket.account
        self._router.begin(account)
        try:
            unknown = await self._send(tracked)
        except Exception as problem:  # noqa: BLE001
            # Whatever it was, it may have been sent: that is found out, and nobody is left without a word.
            _log.exception("order-desk-failed keys=%s", _keys(tracked))
            self._tell("order-desk-failed", f"{_keys(tracked)}: {problem!r}")
            unknown = BrokenOffError(repr(problem), stage=Stage.SENT)
            self._unknown(tracked, unknown)
        except BaseException:
            # Whose the kept reports are is not known, and never will be here: the next start reads them again.
            self._router.drop(account)
            raise
        if unknown is None:
            self._router.end(account)
            return
        # What belongs to nobody is kept until this is known, or the task has looked for long.
        self._background(self._find(tracked, account, unknown))

    def _with_expiry(self, intent: OrderIntent) -> OrderIntent:
        if intent.key not in self._expiries:
            return intent
        return msgspec.structs.replace(intent, expires_ns=self._expiries.pop(intent.key))

    async def _send(self, tracked: list[Tracked]) -> BrokenOffError | None:
        """Send until there is an outcome; or how the conversation ended whose outcome is still not known."""
        tickets = tuple(one.ticket for one in tracked)
        sendings = 0
        while True:
            sendings += 1
            try:
                outcome = await self._service.place(tickets, lambda: self._check_halted(tracked))
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
                steps.step("desk.unknown")
                settled = await self._first_looks(tracked, broken)
                if settled is None:
                    return broken
                if settled:
                    return None
                if sendings >= _SENDINGS or not self._open(tracked):
                    self._fail(tracked, OrderRefusedError(f"It was never confirmed: {broken.message}"))
                    return None
            except OrderRefusedError as problem:
                if "already registered" in problem.message.lower():
                    # Proof that it stands: its key is of nobody else.
                    stands = BrokenOffError(problem.message, stage=Stage.SENT)
                    self._unknown(tracked, stands)
                    return stands if await self._first_looks(tracked, stands) is None else None
                await self._refused(tracked, problem)
                return None
            else:
                self._settle(tracked, tickets, outcome)
                return None

    async def _refused(self, tracked: list[Tracked], problem: OrderRefusedError) -> None:
        """IBKR refused. Several orders are not taken as one: what was refused as a whole may stand in part."""
        if len(tracked) > 1:
            try:
                if await self._look(tracked, partly=True, refusal=problem):
                    return
            except BtIbkrError as trouble:
                _log.warning("order-look-up-failed keys=%s problem=%s", _keys(tracked), trouble)
            placed = tuple(Placement(one.ticket, one.order_id) for one in tracked if one.order_id is not None)
            if placed:
                # Reports were faster than the refusal.
                tickets = tuple(one.ticket for one in tracked)
                self._settle(tracked, tickets, Outcome(placed=placed, refusal=problem))
                return
        self._fail(tracked, problem)

    def _check_halted(self, tracked: Sequence[Tracked]) -> None:
        """Its turn has come: what was halted while it waited is not sent. Raises ``OrderRefusedError``."""
        try:
            state = self._journal.trading_state()
        except JournalError as problem:
            raise OrderRefusedError(f"Whether trading is halted cannot be read: {problem}") from problem
        if any(self.in_the_way(one.intent) for one in tracked):
            raise TradingHaltedError(
                "All positions are being closed, and it was not sent: it could close one a second time.",
                remedy="Look at what is left when that is done.",
            )
        reduces = all(one.ticket.protective for one in tracked)
        if state.mode is Trading.HALTED or (state.mode is Trading.REDUCING and not reduces):
            raise TradingHaltedError(
                f"Trading became {state.mode} while the order waited for its turn, and it was not sent: "
                f"{state.reason}",
                remedy="When the cause is gone: bt-ibkr resume.",
            )

    async def _first_looks(self, tracked: list[Tracked], broken: BrokenOffError) -> bool | None:
        """``True``: found and settled; ``False``: not there, and it was never confirmed; ``None``: not known."""
        for turn in range(_FIRST_LOOKS):
            # A list may have a part of a submission before the rest of it.
            last = turn == _FIRST_LOOKS - 1
            try:
                if (settled := await self._look(tracked, partly=last)) is True:
                    return True
            except BtIbkrError as trouble:
                _log.warning("order-look-up-failed keys=%s problem=%s", _keys(tracked), trouble)
            else:
                if settled is False and broken.stage is Stage.ASKED:
                    return False
            if not _sought(tracked):
                return True
            if not last:
                await asyncio.sleep(_LOOK_PAUSES_S[turn])
        return None

    async def _find(self, tracked: list[Tracked], account: str, broken: BrokenOffError) -> None:
        """Go on looking. Reports settle it as well."""
        for one in _sought(tracked):
            one.tell(OrderFailed(one.key, _unknown_error(one, broken)))
        self._router.end(account)
        turn = _FIRST_LOOKS
        absent = 0
        while _sought(tracked):
            await asyncio.sleep(_LOOK_PAUSES_S[min(turn, len(_LOOK_PAUSES_S) - 1)])
            turn += 1
            try:
                settled = await self._look(tracked, partly=True)
            except BtIbkrError as trouble:
                _log.info("order-look-up-failed keys=%s problem=%s", _keys(tracked), trouble)
                continue
            if settled:
                return
            absent += 1
            if broken.stage is Stage.ASKED and absent >= _ABSENT:
                self._fail(tracked, OrderRefusedError(f"It was never confirmed: {broken.message}"))
                return

    async def _look(
        self, tracked: list[Tracked], *, partly: bool, refusal: OrderRefusedError | None = None
    ) -> bool | None:
        """``True``: the submission was found (``partly``: or a part of it), and is settled now; ``None``: a part
        of it is there; ``False``: nothing of it. ``refusal`` is why the rest is not."""
        tickets = tuple(one.ticket for one in tracked)
        sighting = await look(self._portfolio, tickets)
        if not sighting.placed:
            return False
        if len(sighting.placed) < len(tracked) and not partly:
            return None
        if refusal is None and len(sighting.placed) < len(tracked):
            refusal = OrderRefusedError("IBKR has the order, but not all orders of its submission.")
        self._settle(tracked, tickets, Outcome(placed=sighting.placed, refusal=refusal))
        for report in sighting.orders:
            if self._registry.find(report.order_id, report.order_ref) in tracked:
                self._router.take_report(report)
        self._router.take_executions(sighting.trades, "trades")
        return True

    def _settle(self, tracked: list[Tracked], tickets: Sequence[OrderTicket], outcome: Outcome) -> None:
        """Write down and tell what stands; undo half of a bracket.

        Args:
            tracked: The submission.
            tickets: Its tickets as they were sent or looked for; a change may have come since.
            outcome: What became of them.
        """
        by_ticket = {id(ticket): one for ticket, one in zip(tickets, tracked, strict=True)}
        standing, news = [], []
        for placement in outcome.placed:
            one = by_ticket.pop(id(placement.ticket))
            standing.append(one)
            if one.order_id == placement.order_id:
                continue  # a report was faster, and told
            self._registry.give_id(one, placement.order_id)
            if one.open:
                self._router.note(one, OrderState.WORKING, order_id=placement.order_id)
            news.append((one, placement.order_id))
        steps.step("desk.placed")
        for one, order_id in news:
            one.tell(OrderPlaced(one.key, order_id))
        for one in standing:
            self._cancel_if_wanted(one)
        missing = list(by_ticket.values())
        if outcome.refusal is not None:
            if missing:
                self._fail(missing, outcome.refusal)
            else:
                self._tell("question", str(outcome.refusal))
        if (missing and len(tracked) > 1) or outcome.strays:
            self._background(self._brackets.undo(standing, missing, outcome))

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
            if tracked.open:
                tracked.cancel_wanted = True
            elif sink is not None:
                sink.append(CancelFailed(key, OrderRefusedError(f"Order {key} does not stand at IBKR.")))
            return
        tracked.cancel_asked = True
        self._event(key, "cancel-asked", "")
        for turn in range(_CANCELLATIONS):
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
            await asyncio.sleep(_LOOK_PAUSES_S[turn])
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

    def _cancel_if_wanted(self, tracked: Tracked) -> None:
        if tracked.cancel_wanted and tracked.open:
            tracked.cancel_wanted = False
            self._background(self.cancel(tracked.key, tracked.sink))

    def _look_after_bracket(self, tracked: Tracked, report: OrderReport) -> None:
        if tracked.intent.parent_key is not None and tracked.state is not OrderState.FILLED:
            self._background(self._brackets.child_ended(tracked, report))

    # -- modification ------------------------------------------------------------------------------

    async def modify(self, key: str, ticket: OrderTicket, sink: Sink) -> None:
        """See ``Changes.modify``."""
        await self._changes.modify(key, ticket, sink)

    def set_expiry(self, key: str, expires_ns: int | None) -> None:
        """See ``Connection.set_expiry``; of an order that is not on record yet, once it is."""
        if self._registry.get(key) is None:
            self._expiries[key] = expires_ns
        else:
            self._changes.set_expiry(key, expires_ns)

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


def _sought(tracked: Sequence[Tracked]) -> list[Tracked]:
    """Those of which it is still not known whether they stand."""
    return [one for one in tracked if one.state in UNPROVEN]


def _keys(tracked: Sequence[Tracked]) -> str:
    return ",".join(one.key for one in tracked)


def _as_refusal(problem: BtIbkrError) -> BtIbkrError:
    if isinstance(problem, OrderRefusedError):
        return problem
    return OrderRefusedError(f"It could not be checked, and was not sent: {problem}")


def _unknown_error(one: Tracked, broken: BrokenOffError) -> OutcomeUnknownError:
    return OutcomeUnknownError(
        f"Whether order {one.key} stands at IBKR is not known: {broken.message}",
        remedy="It was not sent again and is looked for. Check the account before you repeat it.",
    )
