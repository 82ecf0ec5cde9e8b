"""The order desk of one session, put together: commands in, reports in, events out, and the watch over both."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from decimal import Decimal
from typing import Any

from bt_ibkr.clock import NS_PER_S, Clock
from bt_ibkr.connection.interface import AccountSnapshot, OrderFailed, Reconciled, TradingChanged
from bt_ibkr.desk.changes import Controls
from bt_ibkr.desk.closing import Opposite
from bt_ibkr.desk.desk import OrderDesk
from bt_ibkr.desk.reconcile import Reconciler
from bt_ibkr.desk.registry import Registry, Sink
from bt_ibkr.desk.reports import ReportRouter
from bt_ibkr.desk.switch import KillSwitch
from bt_ibkr.errors import BtIbkrError, JournalError, OrderRefusedError
from bt_ibkr.journal import Journal, steps
from bt_ibkr.model.intent import OrderIntent
from bt_ibkr.model.order import Execution, OrderReport, OrderTicket
from bt_ibkr.model.trading import Trading, TradingState
from bt_ibkr.services.algos import AlgoService
from bt_ibkr.services.orders import OrderService
from bt_ibkr.services.portfolio import PortfolioService
from bt_ibkr.services.questions import QuestionPolicy
from bt_ibkr.session.backoff import Backoff
from bt_ibkr.session.http import HttpClient
from bt_ibkr.wire.order_answers import Prompt

_log = logging.getLogger(__name__)

#: An execution that the stream has not brought after so long is not on its way any more.
_LATE_NS = 5 * NS_PER_S
#: How long an order waits for the account to be read after a break, seconds, before it is refused.
_READY_S = 30.0
#: How often it is looked whether another process has changed the trading state, seconds.
_LOOK_S = 0.5


class TradingDesk:
    """What strategies trade through. All methods run on the session's loop.

    Args:
        http: The session's REST client.
        portfolio: Its reads.
        journal: The record; closed with the desk.
        policy: Answers to order questions.
        controls: Risk controls.
        opposite: Finds what closes positions that cannot be sold.
        clock: Market clock.
        tell: Alarms for the store, by kind and text.
        repair: Called with the times in a row that only asking brought executions: the stream is mute.
        watch_s: Seconds between readings of the accounts.
        first_s, longest_s: Pauses until an account that could not be read is read again.

    Attributes:
        mute: How often the stream was found mute.
        unread: How often an account could not be read whole.
    """

    def __init__(
        self,
        *,
        http: HttpClient,
        portfolio: PortfolioService,
        journal: Journal,
        policy: QuestionPolicy,
        controls: Controls,
        opposite: Opposite,
        clock: Clock,
        tell: Callable[[str, str], None],
        repair: Callable[[int], Coroutine[Any, Any, None]],
        watch_s: float,
        first_s: float,
        longest_s: float,
    ) -> None:
        self.journal = journal
        self._pauses = (first_s, longest_s)
        self.mute = 0
        self.unread = 0
        #: Since when something may be missing; 0 where everything was read.
        self._since_ns = 0
        self._unread_told = False
        self._clock = clock
        self._controls = controls
        self._tell = tell
        self._repair = repair
        self._watch_s = watch_s
        self.registry = Registry()
        self._router = ReportRouter(self.registry, journal, tell)
        self._service = OrderService(http, policy, step=steps.step)
        self._reconciler = Reconciler(
            portfolio=portfolio,
            service=self._service,
            journal=journal,
            registry=self.registry,
            router=self._router,
            clock=clock,
            tell=tell,
        )
        self._orders = OrderDesk(
            service=self._service,
            portfolio=portfolio,
            journal=journal,
            registry=self.registry,
            router=self._router,
            controls=controls,
            algos=AlgoService(http),
            clock=clock,
            tell=tell,
        )
        self._switch = KillSwitch(
            journal=journal,
            registry=self.registry,
            orders=self._orders,
            reconciler=self._reconciler,
            opposite=opposite,
            clock=clock,
            announce=self._announce,
            tell=tell,
        )
        self._orders.in_the_way = self._switch.in_the_way
        self._router.on_liquidation = self._liquidated
        self._connected = True
        self._ready = asyncio.Event()
        self._ready.set()
        self._told: TradingState = journal.trading_state()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._rereading: asyncio.Task[Any] | None = None
        if journal.repaired is not None:
            tell("journal-repaired", journal.repaired.describe())

    def start(self) -> None:
        """Begin to watch."""
        self._spawn(self._watch(), "watch-accounts")
        self._spawn(self._look_at_state(), "watch-trading-state")

    @property
    def ready(self) -> bool:
        """The session is up, and the accounts were read after its last break."""
        return self._ready.is_set()

    @property
    def flattening(self) -> bool:
        """See ``KillSwitch``."""
        return self._switch.flattening

    # -- commands ----------------------------------------------------------------------------------

    async def attach(self, account: str, sink: Sink) -> AccountSnapshot:
        """Read ``account``, settle what earlier runs left, and tell ``sink`` of it from now on.

        Raises:
            BtIbkrError: It could not be read whole.
        """
        return await self._reconciler.attach(account, sink)

    async def submit(
        self, intents: Sequence[OrderIntent], sink: Sink, recorded: Callable[[], None] | None = None
    ) -> None:
        """See ``OrderDesk.submit``. While the session is down, or the account is not read again after it was,
        nothing is sent: what protects is refused at once, other orders after a while."""
        if not self._ready.is_set() and not (self._connected and all(i.ticket.protective for i in intents)):
            why = "is down" if not self._connected else "is back, but the account could not be read again"
            try:
                if self._connected:
                    await asyncio.wait_for(self._ready.wait(), _READY_S)
            except TimeoutError:
                pass
            if not self._ready.is_set():
                for intent in intents:
                    problem = OrderRefusedError(
                        f"The session {why}: order {intent.key} was not sent.",
                        remedy="Decide anew when it is back.",
                    )
                    sink.append(OrderFailed(intent.key, problem))
                return
        await self._command(self._orders.submit(intents, sink, recorded), "submit")

    async def modify(self, key: str, ticket: OrderTicket, sink: Sink) -> None:
        await self._command(self._orders.modify(key, ticket, sink), "modify")

    def set_expiry(self, key: str, expires_ns: int | None) -> None:
        """See ``Connection.set_expiry``."""
        self._orders.set_expiry(key, expires_ns)

    async def cancel(self, key: str, sink: Sink) -> None:
        await self._command(self._orders.cancel(key, sink), "cancel")

    async def reconcile(self, account: str, cause: str) -> Reconciled:
        """Read an account again; tells everybody attached."""
        result, _ = await self._read_account(account, cause)
        return result

    async def halt(self, state: TradingState, *, cancel_open: bool, flatten: bool) -> None:
        """See ``Connection.halt``; that it failed is told as well."""
        await self._command(self._switch.throw(state, cancel_open=cancel_open, flatten=flatten), "halt")

    def positions(self, account: str) -> dict[int, Decimal] | None:
        """Signed quantities by contract, as believed now; ``None`` for an account that was not attached."""
        return self._reconciler.positions.get(account)

    def external_orders(self, account: str) -> tuple[OrderReport, ...]:
        """Open orders of other clients."""
        return tuple(self._router.external[account].values())

    # -- reports -----------------------------------------------------------------------------------

    def take_reports(self, reports: Sequence[OrderReport]) -> None:
        for report in reports:
            self._router.take_report(report)

    def take_executions(self, executions: Sequence[Execution]) -> None:
        self._router.take_executions(executions, "stream")

    @property
    def accounts(self) -> tuple[str, ...]:
        return self._router.accounts

    @property
    def trading(self) -> TradingState:
        """Whether orders may leave, as it was told last."""
        return self._told

    def take_prompt(self, prompt: Prompt) -> None:
        """A question about an order that stands already, by topic ``ntf``."""
        self._spawn(self._answer(prompt), "answer-prompt")

    async def _answer(self, prompt: Prompt) -> None:
        try:
            await self._service.answer(prompt)
        except BtIbkrError as problem:
            _log.warning("order-prompt-unanswered order_id=%s problem=%s", prompt.order_id, problem)
            self._tell("question", str(problem))

    # -- the session -------------------------------------------------------------------------------

    def disconnected(self) -> None:
        """The session is down: orders are refused until it is back and the accounts were read."""
        self._connected = False
        self._ready.clear()
        if self._rereading is not None:
            self._rereading.cancel()

    def connected(self, since_ns: int) -> asyncio.Task[Any] | None:
        """The session is back: read every account again.

        Args:
            since_ns: Market time up to which the stream was whole.

        Returns:
            The first attempt, if there is anything to read; where it fails others follow by themselves.
        """
        self._connected = True
        # A break after another one whose repair did not succeed reaches back to that one.
        self._since_ns = min(since_ns, self._since_ns or since_ns)
        if not self._router.accounts:
            self._ready.set()
            return None
        if self._rereading is not None:
            # It began before this break; what it would bring is no longer the latest.
            self._rereading.cancel()
        first = self._rereading = self._spawn(self._read_again(None), "read-accounts-again")
        return first

    async def _read_again(self, backoff: Backoff | None) -> None:
        """One attempt to read all accounts; if it fails, the next is due after a pause."""
        if backoff is not None:
            await asyncio.sleep(backoff.pause_s())
        whole = True
        for account in self._router.accounts:
            result, _ = await self._read_account(account, "the session came back")
            whole = whole and result.complete
        if whole:
            self._since_ns = 0
            self._ready.set()
        elif self._connected:
            again = backoff or Backoff(*self._pauses)
            self._rereading = self._spawn(self._read_again(again), "read-accounts-again")

    async def _read_account(self, account: str, cause: str) -> tuple[Reconciled, tuple[Execution, ...]]:
        """Reconcile; that it failed, and that it succeeded after all, is told once each."""
        result, missed = await self._reconciler.reconcile(account, cause, self._since_ns)
        if not result.complete:
            self.unread += 1
            if not self._unread_told:
                self._unread_told = True
                self._tell(
                    "unread",
                    f"Account {account} could not be read whole; states of orders may be old, and it is tried again. "
                    f"{result.problem}",
                )
        elif self._unread_told:
            self._unread_told = False
            self._tell("reread", f"Account {account} was read.")
        return result, missed

    async def _watch(self) -> None:
        """Find by asking what the stream lost while it looked healthy.

        Orders and executions are rare: their silence proves nothing, and subscribing again is not answered where
        nothing happened. Executions that only asking brings mean that the stream is mute.
        """
        in_vain = 0
        while True:
            await asyncio.sleep(self._watch_s)
            if not self._ready.is_set():
                continue
            missed = 0
            for account in self._router.accounts:
                _, lost = await self._read_account(account, "timer")
                missed += sum(self._clock.now_ns() - one.time_ns > _LATE_NS for one in lost)
            if not missed:
                in_vain = 0
                continue
            in_vain += 1
            self.mute += 1
            self._tell("mute", f"The stream did not tell of {missed} executions.")
            _log.warning("reports-mute executions=%d times=%d", missed, in_vain)
            try:
                await self._repair(in_vain)
            except BtIbkrError as problem:
                _log.warning("reports-not-repaired problem=%s", problem)

    # -- the trading state -------------------------------------------------------------------------

    async def _look_at_state(self) -> None:
        """Another process (the command line) may have thrown the switch."""
        version: int | None = None
        while True:
            await asyncio.sleep(_LOOK_S)
            try:
                latest = self.journal.data_version()
                if latest != version:
                    version = latest
                    self._announce(self.journal.trading_state())
            except JournalError as problem:
                _log.error("journal-failed problem=%s", problem)

    def _announce(self, state: TradingState) -> None:
        if state == self._told:
            return
        self._told = state
        _log.warning("trading-state mode=%s by=%s reason=%s", state.mode, state.by, state.reason)
        for account in self._router.accounts:
            self._router.tell_all(account, TradingChanged(state))

    def pnl_changed(self, account: str) -> None:
        """The day's profit and loss has changed: the limits may demand that only positions are reduced."""
        state = self._controls.required_state(account)
        if state is not None:
            self._tell("loss-limit", state.reason)
            self._spawn(self._switch.throw(state, cancel_open=False, flatten=False), "reduce")

    def _liquidated(self, execution: Execution) -> None:
        """IBKR closes positions by itself: whatever the strategy is, it is not to trade against that."""
        state = TradingState(
            mode=Trading.HALTED,
            reason=f"IBKR liquidated {execution.quantity} {execution.symbol} (execution {execution.execution_id})",
            by="liquidation",
            since_ns=self._clock.now_ns(),
        )
        self._tell("liquidation", state.reason)
        self._spawn(self._switch.throw(state, cancel_open=False, flatten=False), "halt")

    # -- life --------------------------------------------------------------------------------------

    async def _command(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Do it in a task of the desk's, which ends before the journal is closed."""
        await self._spawn(work, name)

    def _spawn(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._finished)
        return task

    def _finished(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            _log.error("%s-failed", task.get_name(), exc_info=task.exception())
            kind = "journal-failed" if isinstance(task.exception(), JournalError) else "order-desk-failed"
            self._tell(kind, f"{task.get_name()}: {task.exception()!r}")

    async def close(self) -> None:
        """End; what is not settled is in the journal."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._orders.close()
        self.journal.close()
