"""The session in this process, on its own thread."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from bt_ibkr.clock import NS_PER_S, Clock, SystemClock
from bt_ibkr.config import SessionSettings
from bt_ibkr.connection.interface import (
    AccountEvent,
    AccountSnapshot,
    CancelFailed,
    CommissionReported,
    ExecutionReported,
    FeedEvent,
    GapReported,
    HistoryArrived,
    LedgerChanged,
    OrderChanged,
    OrderFailed,
    OrderPlaced,
    Progress,
    SessionChanged,
    SessionNotice,
    StoreEvent,
    Submission,
)
from bt_ibkr.connection.mailbox import Mailbox, WakeUp
from bt_ibkr.errors import BtIbkrError, RequestTimeoutError, SessionError, WireError
from bt_ibkr.model.contract import Contract
from bt_ibkr.model.order import Execution
from bt_ibkr.model.portfolio import LedgerLine, Position
from bt_ibkr.services.availability import availability
from bt_ibkr.services.contracts import ContractService
from bt_ibkr.services.datanames import ContractQuery
from bt_ibkr.services.executions import ExecutionBook
from bt_ibkr.services.history import HistoryRequest, HistoryService
from bt_ibkr.services.marketdata import MarketDataService, TickSink
from bt_ibkr.services.orders import OrderService
from bt_ibkr.services.portfolio import PortfolioService
from bt_ibkr.services.questions import QuestionPolicy
from bt_ibkr.session.loop import LoopThread
from bt_ibkr.session.session import Session
from bt_ibkr.session.states import SessionEvent
from bt_ibkr.session.websocket import Subscription
from bt_ibkr.wire import stream_events, topics
from bt_ibkr.wire.frames import Frame

_log = logging.getLogger(__name__)
T = TypeVar("T")

#: Longest wait of cerebro's thread for one answer; above any single request's own time-out.
_CALL_S = 60.0
_SNAPSHOT_TRIES = 3
#: An execution that the stream has not brought after so long is not on its way any more.
_LATE_NS = 5 * NS_PER_S


class _AccountStream:
    """One account's events on their way to one mailbox."""

    def __init__(self, account: str, events: Mailbox[AccountEvent]) -> None:
        self.account = account
        self.events = events
        self.executions = ExecutionBook()

    def add_execution(self, execution: Execution) -> bool:
        """Whether it was new."""
        new, commission = self.executions.add(execution)
        if new:
            self.events.append(ExecutionReported(execution))
        elif commission:
            self.events.append(CommissionReported(execution))
        return new


class DirectConnection:
    """A ``Connection`` whose session lives here.

    Args:
        settings: Where and how.
        wake: The store's flag; raised for every tick.
        clock: Market clock.
        policy: Answers to order questions.
    """

    def __init__(
        self,
        settings: SessionSettings,
        wake: WakeUp,
        *,
        clock: Clock | None = None,
        policy: QuestionPolicy | None = None,
    ) -> None:
        self._settings = settings
        self._wake = wake
        self._clock = clock or SystemClock()
        self._policy = policy or QuestionPolicy()
        self._loop: LoopThread | None = None
        self._session: Session | None = None
        self._store_events: Mailbox[StoreEvent] | None = None
        self._accounts: dict[str, _AccountStream] = {}
        self._pending = 0
        self._pending_lock = threading.Lock()
        self._opened_once = False
        self._watch: asyncio.Task[None] | None = None
        self._rereading: concurrent.futures.Future[None] | None = None
        self._streams = False
        #: The event that ended the stream, while it is interrupted.
        self._broken: SessionEvent | None = None
        self._contracts: ContractService
        self._history: HistoryService
        self._market_data: MarketDataService
        self._portfolio: PortfolioService
        self._orders: OrderService
        self._handlers: dict[str, Callable[[Frame], None]] = {
            "sor": self._on_orders,
            "str": self._on_executions,
            "ntf": self._on_notices,
            "blt": self._on_notices,
        }

    @property
    def clock(self) -> Clock:
        return self._clock

    # -- life ------------------------------------------------------------------------------------

    def open(self, events: Mailbox[StoreEvent]) -> None:
        """See ``Connection``.

        Raises:
            UnreachableError, TrustError, AuthenticationError: As ``Session.open``.
        """
        if self._session is not None:
            return
        self._store_events = events
        loop = self._loop = LoopThread("ibkr-session")
        try:
            loop.call(self._open(), _CALL_S)
        except BaseException:
            self.close()
            raise

    async def _open(self) -> None:
        session = Session(
            self._settings,
            clock=self._clock,
            on_frame=self._on_frame,
            on_progress=self._wake.set,
            on_state=self._on_state,
        )
        self._session = session
        await session.open()
        http = session.http
        self._contracts = ContractService(http)
        self._history = HistoryService(http)
        self._portfolio = PortfolioService(http)
        self._orders = OrderService(http, self._portfolio, self._policy)
        self._market_data = MarketDataService(session.socket, self._settings, self._wake.set)
        self._opened_once = True
        self._watch = asyncio.create_task(self._watch_reports(), name="watch-reports")

    def close(self) -> None:
        loop, session = self._loop, self._session
        self._loop = None
        if loop is None:
            return
        if session is not None:
            try:
                loop.call(session.close(), 5.0)
            except (concurrent.futures.TimeoutError, BtIbkrError) as problem:
                _log.warning("session-close-failed problem=%r", problem)
        loop.stop()
        self._session = None

    def _check_open(self) -> None:
        """Raises where the services were never made: before the first ``open``, or after one that failed."""
        if self._loop is None:
            raise SessionError("The connection is closed.", remedy="Open a new store.")

    def _call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        if self._loop is None:
            coroutine.close()
            raise SessionError("The connection is closed.", remedy="Open a new store.")
        try:
            return self._loop.call(coroutine, _CALL_S)
        except (TimeoutError, concurrent.futures.TimeoutError):
            raise RequestTimeoutError(f"IBKR did not answer within {_CALL_S:g} s.") from None

    def _command(self, coroutine: Coroutine[Any, Any, None]) -> concurrent.futures.Future[None]:
        """Start something that answers through a mailbox."""
        if self._loop is None:
            coroutine.close()
            raise SessionError("The connection is closed.", remedy="Open a new store.")
        with self._pending_lock:
            self._pending += 1
        future = self._loop.submit(coroutine)
        future.add_done_callback(self._answered)
        return future

    def _answered(self, future: concurrent.futures.Future[None]) -> None:
        with self._pending_lock:
            self._pending -= 1
        self._wake.set()
        if future.cancelled() or future.exception() is None:
            return
        if self._loop is None:
            # What was not answered by the end of the session is told by whoever waited for it.
            _log.warning("command-abandoned problem=%r", future.exception())
        else:
            _log.error("command-failed problem=%r", future.exception(), exc_info=future.exception())

    def in_flight(self) -> int:
        return self._pending

    def progress(self) -> Progress:
        session = self._session
        if session is None or not self._opened_once:
            return Progress(0, 0)
        return Progress(session.socket.local_port, session.socket.received)

    def renew_due(self) -> None:
        if self._session is not None and self._opened_once:
            self._call(self._session.socket.renew_due())

    # -- frames (the loop's thread) ----------------------------------------------------------------

    def _on_frame(self, frame: Frame) -> None:
        topic = frame.topic
        if topic is None:
            return
        handler = self._handlers.get(topic)
        if handler is None and topic.startswith("sld"):
            handler = self._on_ledger
        if handler is not None:
            try:
                handler(frame)
            except WireError as problem:
                # A report that cannot be understood is never guessed at: it is told, loudly.
                _log.error("report-unreadable topic=%s problem=%s", topic, problem)
                self._tell("unreadable", f"{topic}: {problem}")
        elif frame.error:
            _log.warning("stream-error topic=%s error=%s", topic, frame.error)
            self._tell("error", f"{topic}: {frame.error}")

    def _tell(self, kind: str, text: str) -> None:
        if self._store_events is not None:
            self._store_events.append(SessionNotice(kind, text))

    def _on_state(self, event: SessionEvent) -> None:
        connected, was_connected = event.streams, self._streams
        self._streams = connected
        if was_connected and not connected and self._opened_once:
            self._market_data.broken()
            self._broken = event
        if connected and not was_connected and self._opened_once and self._loop is not None:
            if self._rereading is not None:
                # It began before this break; what it would bring is no longer the latest.
                self._rereading.cancel()
            self._rereading = self._command(self._reread_orders())
        if self._store_events is not None:
            self._store_events.append(
                SessionChanged(event.state.value, event.cause, event.next_step, connected)
            )
        if connected and self._broken is not None:
            self._report_gap(self._broken, event.time_ns)

    def _report_gap(self, broken: SessionEvent, end_ns: int) -> None:
        self._broken = None
        if self._store_events is not None and self._session is not None:
            gap = GapReported(
                start_ns=broken.since_ns,
                end_ns=end_ns,
                topics=self._session.socket.subscribed,
                cause=broken.cause,
            )
            _log.warning("stream-gap start_ns=%d end_ns=%d cause=%s", gap.start_ns, gap.end_ns, gap.cause)
            self._store_events.append(gap)

    async def _reread_orders(self) -> None:
        """After a break: what changed meanwhile. Executions are replayed by the stream itself."""
        reports = await self._portfolio.live_orders()
        for report in reports:
            self._route_report(OrderChanged(report))

    async def _watch_reports(self) -> None:
        """Find by asking what the stream lost while it looked healthy.

        Orders and executions are rare: their silence proves nothing, and subscribing again is not answered where
        nothing happened. Executions that only asking brings mean that the stream is mute: its topics are
        subscribed again, and if that was in vain the WebSocket is opened anew.
        """
        assert self._session is not None
        socket, in_vain = self._session.socket, 0
        while True:
            await asyncio.sleep(self._settings.mute_s)
            if not self._streams or not self._accounts:
                continue
            try:
                await self._reread_orders()
                missed = [one for one in await self._portfolio.trades() if self._missed(one)]
                if not missed:
                    in_vain = 0
                    continue
                in_vain += 1
                self._tell("mute", f"The stream did not tell of {len(missed)} executions.")
                _log.warning("reports-mute executions=%d times=%d", len(missed), in_vain)
                if in_vain > 1:
                    await socket.reopen()
                else:
                    await socket.ask_again("sor", "str")
            except BtIbkrError as problem:
                _log.warning("reports-unread problem=%s", problem)

    def _missed(self, execution: Execution) -> bool:
        """Take an execution in; whether the stream should have brought it long ago."""
        stream = self._accounts.get(execution.account)
        new = stream is not None and stream.add_execution(execution)
        return new and self._clock.now_ns() - execution.time_ns > _LATE_NS

    def _route_report(self, event: OrderChanged) -> None:
        stream = self._accounts.get(event.report.account or "")
        if stream is not None:
            stream.events.append(event)

    def _on_orders(self, frame: Frame) -> None:
        for report in stream_events.order_reports(bytes(frame.args)):
            self._route_report(OrderChanged(report))

    def _on_executions(self, frame: Frame) -> None:
        for execution in stream_events.executions(bytes(frame.args)):
            stream = self._accounts.get(execution.account)
            if stream is not None:
                stream.add_execution(execution)

    def _on_ledger(self, frame: Frame) -> None:
        account = (frame.topic or "").partition("+")[2]
        stream = self._accounts.get(account)
        if stream is not None:
            lines = stream_events.ledger_lines(bytes(frame.result))
            if lines:
                stream.events.append(LedgerChanged(account, tuple(lines)))

    def _on_notices(self, frame: Frame) -> None:
        self._tell("notice", bytes(frame.args).decode("utf-8", "replace")[:1000])

    # -- calls (cerebro's thread) ------------------------------------------------------------------

    def accounts(self) -> tuple[str, ...]:
        if self._session is None:
            raise SessionError("The connection is closed.", remedy="Open a new store.")
        known = self._session.accounts
        ids = [account.account_id for account in known.accounts]
        selected = known.selected
        return tuple(sorted(ids, key=lambda one: one != selected))

    def is_paper(self) -> bool | None:
        if self._session is None:
            raise SessionError("The connection is closed.", remedy="Open a new store.")
        return self._session.accounts.is_paper

    def availability(self, contract: Contract) -> str:
        self._check_open()
        assert self._session is not None
        return self._call(availability(self._session.http, contract.conid))

    def resolve(self, query: ContractQuery) -> Contract:
        self._check_open()
        return self._call(self._contracts.resolve(query))

    def subscribe_ticks(self, contract: Contract, sink: TickSink) -> None:
        self._check_open()
        self._call(self._market_data.subscribe(contract.conid, contract.exchange, sink))

    def unsubscribe_ticks(self, sink: TickSink) -> None:
        if self._loop is not None:
            self._call(self._market_data.unsubscribe(sink))

    def stream_ns(self) -> int:
        return self._market_data.stream_ns if self._opened_once else 0

    def request_history(self, request: HistoryRequest, token: int, answers: Mailbox[FeedEvent]) -> None:
        self._command(self._fetch(request, token, answers))

    async def _fetch(self, request: HistoryRequest, token: int, answers: Mailbox[FeedEvent]) -> None:
        try:
            answers.append(HistoryArrived(token, tuple(await self._history.bars(request))))
        except BtIbkrError as problem:
            answers.append(HistoryArrived(token, (), problem))

    def positions(self, account: str) -> tuple[Position, ...]:
        self._check_open()
        return self._call(self._portfolio.positions(account))

    def ledger(self, account: str) -> dict[str, LedgerLine]:
        self._check_open()
        return self._call(self._portfolio.ledger(account))

    def attach_account(self, account: str, events: Mailbox[AccountEvent]) -> AccountSnapshot:
        return self._call(self._attach(account, events))

    async def _attach(self, account: str, events: Mailbox[AccountEvent]) -> AccountSnapshot:
        assert self._session is not None
        stream = _AccountStream(account, events)
        portfolio = self._portfolio
        # The order list and the trades are each limited to one call in five seconds: ask side by side.
        listing = asyncio.create_task(portfolio.live_orders(), name="live-orders")
        try:
            positions, executions = await self._settled(account)
            orders = await listing
        finally:
            listing.cancel()
        mine = tuple(e for e in executions if e.account == account)
        for execution in mine:
            stream.executions.add(execution)
        ledger = await portfolio.ledger(account)
        self._accounts[account] = stream
        socket = self._session.socket
        for key, text, undo in (
            ("sor", topics.subscribe_orders(), topics.unsubscribe_orders()),
            ("str", topics.subscribe_executions(), topics.unsubscribe_executions()),
            (f"sld+{account}", topics.subscribe_ledger(account), topics.unsubscribe_ledger(account)),
        ):
            await socket.subscribe(Subscription(key=key, text=text, undo=undo))
        return AccountSnapshot(
            positions=positions,
            executions=mine,
            orders=tuple(o for o in orders if o.account == account),
            ledger=ledger,
        )

    async def _settled(self, account: str) -> tuple[tuple[Position, ...], tuple[Execution, ...]]:
        """Positions and executions that belong together: positions stood still while executions were read."""
        portfolio = self._portfolio
        positions = await portfolio.positions(account)
        for _ in range(_SNAPSHOT_TRIES):
            executions = await portfolio.trades()
            again = await portfolio.positions(account)
            if {p.conid: p.quantity for p in again} == {p.conid: p.quantity for p in positions}:
                return again, executions
            positions = again
        raise SessionError(
            f"Positions of {account} changed at each of {_SNAPSHOT_TRIES} readings: no moment to start from.",
            remedy="Start when no other client trades in the account.",
        )

    # -- commands ----------------------------------------------------------------------------------

    def place(self, submissions: tuple[Submission, ...], events: Mailbox[AccountEvent]) -> None:
        self._command(self._place(submissions, events))

    async def _place(self, submissions: tuple[Submission, ...], events: Mailbox[AccountEvent]) -> None:
        try:
            placements = await self._orders.place(tuple(s.ticket for s in submissions))
        except BtIbkrError as problem:
            for submission in submissions:
                events.append(OrderFailed(submission.ref, problem))
            return
        for submission, placement in zip(submissions, placements, strict=True):
            events.append(OrderPlaced(submission.ref, placement.order_id))

    def cancel(self, account: str, order_id: str, ref: int, events: Mailbox[AccountEvent]) -> None:
        self._command(self._cancel(account, order_id, ref, events))

    async def _cancel(self, account: str, order_id: str, ref: int, events: Mailbox[AccountEvent]) -> None:
        try:
            await self._orders.cancel(account, order_id)
        except BtIbkrError as problem:
            events.append(CancelFailed(ref, problem))
