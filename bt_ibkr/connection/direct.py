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
    FeedEvent,
    GapReported,
    HistoryArrived,
    OrderFailed,
    OrderPlaced,
    Progress,
    SessionChanged,
    SessionNotice,
    StoreEvent,
    Submission,
)
from bt_ibkr.connection.mailbox import Mailbox, WakeUp
from bt_ibkr.connection.metrics import Metrics
from bt_ibkr.connection.reports import AccountStream, Reports
from bt_ibkr.errors import BtIbkrError, RequestTimeoutError, SessionError, WireError
from bt_ibkr.model.contract import Contract
from bt_ibkr.model.portfolio import LedgerLine, Position
from bt_ibkr.services.availability import availability
from bt_ibkr.services.contracts import ContractService
from bt_ibkr.services.datanames import ContractQuery
from bt_ibkr.services.history import HistoryRequest, HistoryService
from bt_ibkr.services.marketdata import MarketDataService, TickSink
from bt_ibkr.services.orders import OrderService
from bt_ibkr.services.portfolio import PortfolioService
from bt_ibkr.services.questions import QuestionPolicy
from bt_ibkr.session.loop import LoopThread
from bt_ibkr.session.session import Session
from bt_ibkr.session.states import SessionEvent
from bt_ibkr.session.websocket import Subscription
from bt_ibkr.wire import topics
from bt_ibkr.wire.frames import Frame

_log = logging.getLogger(__name__)
T = TypeVar("T")

#: Longest wait of cerebro's thread for one answer; above any single request's own time-out.
_CALL_S = 60.0
#: So many different refusals of the stream are told while it stands.
_MOST_ERRORS = 100


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
        self._pending = 0
        self._pending_lock = threading.Lock()
        self._opened_once = False
        self._watch: asyncio.Task[None] | None = None
        self._rereading: concurrent.futures.Future[None] | None = None
        self._streams = False
        #: The event that ended the stream, while it is interrupted.
        self._broken: SessionEvent | None = None
        #: Refusals told since the stream stands: renewals repeat them every few minutes.
        self._errors_told: set[str] = set()
        self._stream_errors = 0
        self._unreadable_reports = 0
        self._gaps = 0
        self._gap_ns = 0
        self._last_metrics = Metrics()
        self._contracts: ContractService
        self._history: HistoryService
        self._market_data: MarketDataService
        self._portfolio: PortfolioService
        self._orders: OrderService
        self._reports: Reports
        self._handlers: dict[str, Callable[[Frame], None]] = {
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
        reports = self._reports = Reports(
            self._portfolio, session.socket, self._settings, self._clock, self._tell
        )
        reports.streaming = self._streams
        self._handlers |= {"sor": reports.on_orders, "str": reports.on_executions}
        self._opened_once = True
        self._watch = asyncio.create_task(reports.watch(), name="watch-reports")

    def close(self) -> None:
        loop, session = self._loop, self._session
        self._loop = None
        if loop is None:
            return
        if session is not None:
            try:
                loop.call(self._end(session), 5.0)
            except (concurrent.futures.TimeoutError, BtIbkrError) as problem:
                _log.warning("session-close-failed problem=%r", problem)
        loop.stop()
        self._session = None

    async def _end(self, session: Session) -> None:
        try:
            await session.close()
        finally:
            if self._opened_once:
                self._last_metrics = await self._count()

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
            if self._session is not None:
                self._session.unknowns.topic(None)
            return
        if frame.error and not bytes(frame.args):
            # A refusal, of whatever topic.
            self._on_error(topic, frame.error)
            return
        handler = self._handlers.get(topic)
        if handler is None and topic.startswith("sld"):
            handler = self._reports.on_ledger
        if handler is None:
            if self._session is not None:
                self._session.unknowns.topic(topic)
            return
        try:
            handler(frame)
        except WireError as problem:
            # A report that cannot be understood is never guessed at: it is told, loudly.
            self._unreadable_reports += 1
            _log.error("report-unreadable topic=%s problem=%s", topic, problem)
            self._tell("unreadable", f"{topic}: {problem}")

    def _on_error(self, topic: str, error: str) -> None:
        self._stream_errors += 1
        if error in self._errors_told or len(self._errors_told) >= _MOST_ERRORS:
            _log.debug("stream-error topic=%s error=%s again", topic, error)
            return
        self._errors_told.add(error)
        _log.warning("stream-error topic=%s error=%s", topic, error)
        self._tell("error", f"{topic}: {error}")

    def _tell(self, kind: str, text: str) -> None:
        if self._store_events is not None:
            self._store_events.append(SessionNotice(kind, text))

    def _on_state(self, event: SessionEvent) -> None:
        connected, was_connected = event.streams, self._streams
        self._streams = connected
        if was_connected and not connected and self._opened_once:
            self._market_data.broken()
            self._reports.broken()
            self._broken = event
        if connected and not was_connected and self._opened_once and self._loop is not None:
            if self._rereading is not None:
                # It began before this break; what it would bring is no longer the latest.
                self._rereading.cancel()
            self._errors_told.clear()
            self._reports.streaming = True
            since_ns = event.time_ns if self._broken is None else self._broken.since_ns
            self._rereading = self._command(self._reports.repair(since_ns))
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
            self._gaps += 1
            self._gap_ns += gap.end_ns - gap.start_ns
            _log.warning("stream-gap start_ns=%d end_ns=%d cause=%s", gap.start_ns, gap.end_ns, gap.cause)
            self._store_events.append(gap)

    def _on_notices(self, frame: Frame) -> None:
        self._tell("notice", bytes(frame.args).decode("utf-8", "replace")[:1000])

    # -- calls (cerebro's thread) ------------------------------------------------------------------

    def take_over(self) -> None:
        self._check_open()
        assert self._loop is not None
        assert self._session is not None
        self._loop.loop.call_soon_threadsafe(self._session.take_over)

    def metrics(self) -> Metrics:
        if self._loop is None or not self._opened_once:
            return self._last_metrics
        return self._call(self._count())

    async def _count(self) -> Metrics:
        session = self._session
        assert session is not None
        gate = session.pacing()
        socket, reports = session.socket, self._reports
        return Metrics(
            state=session.state.value,
            transitions=dict(session.transitions),
            reconnects=session.reconnects,
            gaps=self._gaps,
            gap_s=self._gap_ns / NS_PER_S,
            frames=socket.received_before + socket.received,
            unreadable_frames=socket.unreadable,
            unreadable_reports=self._unreadable_reports,
            unknown=session.unknowns.count,
            stream_errors=self._stream_errors,
            mute_reports=reports.mute,
            unread_reports=reports.failures,
            budget=gate.budget,
            queued=gate.queued,
            waited_s=gate.waited_s,
            longest_wait_s=gate.longest_wait_s,
            waits=gate.waits,
            penalty_s=gate.penalty_s,
            penalties=gate.penalties,
        )

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
        stream = AccountStream(account, events, self._clock.now_ns())
        portfolio = self._portfolio
        # The order list and the trades are each limited to one call in five seconds: ask side by side.
        listing = asyncio.create_task(portfolio.live_orders(), name="live-orders")
        try:
            positions, executions = await portfolio.settled(account)
            orders = await listing
        finally:
            listing.cancel()
        mine = tuple(e for e in executions if e.account == account)
        for execution in mine:
            stream.executions.add(execution)
        ledger = await portfolio.ledger(account)
        self._reports.add(stream)
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
