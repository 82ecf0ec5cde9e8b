"""The session in this process, on its own thread."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from bt_ibkr.clock import NS_PER_S, Clock, SystemClock
from bt_ibkr.config import SessionSettings
from bt_ibkr.connection.interface import (
    AccountEvent,
    AccountSnapshot,
    CancelFailed,
    FeedEvent,
    HistoryArrived,
    ModifyFailed,
    OrderFailed,
    Progress,
    SessionChanged,
    StoreEvent,
)
from bt_ibkr.connection.mailbox import Mailbox, WakeUp
from bt_ibkr.connection.metrics import Metrics
from bt_ibkr.connection.reception import Reception
from bt_ibkr.desk.controls import RiskControls
from bt_ibkr.desk.trading import TradingDesk
from bt_ibkr.desk.view import SessionView
from bt_ibkr.errors import (
    BtIbkrError,
    OrderRefusedError,
    RequestTimeoutError,
    SessionError,
    UsageError,
)
from bt_ibkr.journal import Journal, journal_path
from bt_ibkr.model.contract import Contract
from bt_ibkr.model.intent import OrderIntent
from bt_ibkr.model.market import Bar
from bt_ibkr.model.order import OrderTicket
from bt_ibkr.model.portfolio import LedgerLine, Position
from bt_ibkr.model.trading import TradingState
from bt_ibkr.risk import RiskLimits
from bt_ibkr.services.availability import availability
from bt_ibkr.services.combo_history import join_bars
from bt_ibkr.services.combo_quotes import badness, leg_points
from bt_ibkr.services.contracts import ContractService
from bt_ibkr.services.datanames import ContractQuery
from bt_ibkr.services.history import HistoryRequest, HistoryService
from bt_ibkr.services.marketdata import MarketDataService, TickSink
from bt_ibkr.services.portfolio import PortfolioService
from bt_ibkr.services.questions import QuestionPolicy
from bt_ibkr.services.schedules import ScheduleService
from bt_ibkr.services.whatif import WhatIfService
from bt_ibkr.session.loop import LoopThread
from bt_ibkr.session.session import Session
from bt_ibkr.session.states import SessionEvent
from bt_ibkr.session.websocket import Subscription
from bt_ibkr.wire import topics
from bt_ibkr.wire.order_answers import WhatIf
from bt_ibkr.wire.values import quality

_log = logging.getLogger(__name__)
T = TypeVar("T")

#: Longest wait of cerebro's thread for one answer; above any single request's own time-out.
_CALL_S = 60.0
#: Longest that the strategy's thread stands aside for an order that leaves.
_STAND_ASIDE_S = 0.05
#: Turns of the loop after which an order that need not wait is on the wire: aiohttp writes in a task of its own.
_TURNS_TO_LEAVE = 2


class JournalInMemory(msgspec.Struct, frozen=True):
    """The journal ends with the run: nothing of it is known to the next.

    Attributes:
        epoch: Of its keys, where the account ends with the run as well; by default one of its own.
    """

    epoch: str | None = None


MEMORY = JournalInMemory()


class DirectConnection:
    """A ``Connection`` whose session lives here.

    Args:
        settings: Where and how.
        wake: The store's flag; raised for every tick.
        clock: Market clock.
        policy: Answers to order questions.
        journal: Where orders are written down before they leave: a file, or ``None`` for the account's own file in
            the state directory; ``MEMORY`` for a run that nobody has to remember.
        risk: What may leave.
    """

    def __init__(
        self,
        settings: SessionSettings,
        wake: WakeUp,
        *,
        clock: Clock | None = None,
        policy: QuestionPolicy | None = None,
        journal: Path | JournalInMemory | None = None,
        risk: RiskLimits | None = None,
    ) -> None:
        self._policy = policy or QuestionPolicy()
        # What is to be suppressed at IBKR is told anew after each log-on.
        suppressed = dict.fromkeys((*settings.suppress, *sorted(self._policy.suppress)))
        self._settings = msgspec.structs.replace(settings, suppress=tuple(suppressed))
        self._wake = wake
        self._clock = clock or SystemClock()
        self._loop: LoopThread | None = None
        self._session: Session | None = None
        self._pending = 0
        self._pending_lock = threading.Lock()
        self._opened_once = False
        self._journal_place = journal
        self._risk = risk or RiskLimits()
        self._streams = False
        #: The event that ended the stream, while it is interrupted.
        self._broken: SessionEvent | None = None
        self._reception = Reception(self._unknown)
        self._last_metrics = Metrics()
        self._contracts: ContractService
        self._history: HistoryService
        self._market_data: MarketDataService
        self._portfolio: PortfolioService

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
        self._reception.store = events
        loop = self._loop = LoopThread("ibkr-session")
        # A log-on may wait for a person.
        patience_s = _CALL_S + getattr(self._settings.login, "wait_s", 0.0)
        try:
            loop.call(self._open(), patience_s)
        except (TimeoutError, concurrent.futures.TimeoutError):
            self.close()
            raise RequestTimeoutError(
                f"{self._settings.base_url} did not give a session within {patience_s:g} s.",
                remedy="Look whether it answers at all: bt-ibkr doctor.",
            ) from None
        except BaseException:
            self.close()
            raise

    async def _open(self) -> None:
        session = Session(
            self._settings,
            clock=self._clock,
            on_frame=self._reception.take,
            on_progress=self._wake.set,
            on_state=self._on_state,
        )
        self._session = session
        await session.open()
        http = session.http
        self._contracts = ContractService(http)
        self._history = HistoryService(http)
        self._portfolio = PortfolioService(http, lambda: session.accounts)
        self._market_data = MarketDataService(session.socket, self._settings, self._wake.set)
        self._opened_once = True

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
            if self._reception.desk is not None:
                await self._reception.desk.close()
            await session.close()
        finally:
            if self._opened_once:
                self._last_metrics = await self._count()
            self._reception.desk = None

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

    # -- what happens to the stream (the loop's thread) --------------------------------------------

    @property
    def _desk(self) -> TradingDesk | None:
        return self._reception.desk

    def _unknown(self, topic: str | None) -> None:
        if self._session is not None:
            self._session.unknowns.topic(topic)

    def _on_state(self, event: SessionEvent) -> None:
        connected, was_connected = event.streams, self._streams
        self._streams = connected
        if was_connected and not connected and self._opened_once:
            self._market_data.broken()
            self._broken = event
            if self._desk is not None:
                self._desk.disconnected()
        if connected and not was_connected and self._opened_once and self._loop is not None:
            self._reception.back()
            since_ns = event.time_ns if self._broken is None else self._broken.since_ns
            self._command(self._read_again(since_ns))
        if self._reception.store is not None:
            self._reception.store.append(
                SessionChanged(event.state.value, event.cause, event.next_step, connected)
            )
        if connected and self._broken is not None and self._session is not None:
            self._reception.report_gap(self._broken, event.time_ns, self._session.socket.subscribed)
            self._broken = None

    async def _read_again(self, since_ns: int) -> None:
        """After a break: what changed meanwhile. Executions are replayed by the stream, too."""
        if self._desk is not None and (reading := self._desk.connected(since_ns)) is not None:
            # The first attempt; others follow by themselves. Cancelled when the stream breaks again.
            await asyncio.wait((reading,))

    async def _repair(self, times: int) -> None:
        """The stream is mute: subscribe again; if that was in vain, open the WebSocket anew."""
        assert self._session is not None
        if times > 1:
            await self._session.socket.reopen()
        else:
            await self._session.socket.ask_again("sor", "str")

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
        socket, desk, counts = session.socket, self._desk, self._reception
        return Metrics(
            state=session.state.value,
            transitions=dict(session.transitions),
            reconnects=session.reconnects,
            gaps=counts.gaps,
            gap_s=counts.gap_ns / NS_PER_S,
            frames=socket.received_before + socket.received,
            unreadable_frames=socket.unreadable,
            unreadable_reports=counts.unreadable,
            unknown=session.unknowns.count,
            stream_errors=counts.errors,
            mute_reports=0 if desk is None else desk.mute,
            unread_reports=0 if desk is None else desk.unread,
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
        return self._call(self._availability(contract))

    async def _availability(self, contract: Contract) -> str:
        """Of a combo, that of the leg with the worst data."""
        assert self._session is not None
        conids = [leg.conid for leg in contract.legs] or [contract.conid]
        codes = [await availability(self._session.http, conid) for conid in conids]
        return max(codes, key=lambda code: badness(quality(code)))

    def resolve(self, query: ContractQuery) -> Contract:
        self._check_open()
        return self._call(self._contracts.resolve(query))

    def subscribe_ticks(self, contract: Contract, sink: TickSink) -> None:
        self._check_open()
        if contract.legs:
            legs = self._contracts.legs_of(contract)
            self._call(self._market_data.subscribe_combo(contract, legs, sink))
        else:
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
            answers.append(HistoryArrived(token, tuple(await self._bars(request))))
        except BtIbkrError as problem:
            answers.append(HistoryArrived(token, (), problem))

    async def _bars(self, request: HistoryRequest) -> list[Bar]:
        combo = request.contract
        if not combo.legs:
            return await self._history.bars(request)
        legs = self._contracts.legs_of(combo)
        asked = [self._history.bars(msgspec.structs.replace(request, contract=leg)) for leg in legs]
        joined = join_bars(leg_points(combo, legs), await asyncio.gather(*asked))
        return joined[-request.most :] if request.most else joined

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
        desk = self._desk or self._open_desk(account)
        snapshot = await desk.attach(account, events)
        if self._reception.view is not None:
            self._reception.view.take_ledger(account, tuple(snapshot.ledger.values()))
        self._reception.attach(account, events)
        socket = self._session.socket
        for key, text, undo in (
            ("spl", topics.subscribe_pnl(), topics.unsubscribe_pnl()),
            ("sor", topics.subscribe_orders(), topics.unsubscribe_orders()),
            ("str", topics.subscribe_executions(), topics.unsubscribe_executions()),
            (f"sld+{account}", topics.subscribe_ledger(account), topics.unsubscribe_ledger(account)),
        ):
            await socket.subscribe(Subscription(key=key, text=text, undo=undo))
        return snapshot

    def _open_desk(self, account: str) -> TradingDesk:
        """The desk comes with the first account: its journal lies under that account's name."""
        assert self._session is not None
        place = self._journal_place
        path = None if isinstance(place, JournalInMemory) else place or journal_path(account)
        epoch = place.epoch if isinstance(place, JournalInMemory) else None
        journal = Journal.open(path, clock=self._clock, epoch=epoch)
        schedules = ScheduleService(self._session.http, self._clock)
        view = self._reception.view = SessionView(
            journal=journal,
            clock=self._clock,
            latest=self._market_data.latest,
            contract=self._contracts.known,
            open_now=schedules.open_now,
            fractions=any(one.supports_fractions for one in self._session.accounts.accounts),
        )
        desk = self._reception.desk = TradingDesk(
            http=self._session.http,
            portfolio=self._portfolio,
            journal=journal,
            policy=self._policy,
            controls=RiskControls(self._risk, view, self._clock, journal, schedules),
            clock=self._clock,
            tell=self._reception.tell,
            repair=self._repair,
            watch_s=self._settings.mute_s,
            first_s=self._settings.reconnect_first_s,
            longest_s=self._settings.reconnect_longest_s,
        )
        view.desk = desk
        desk.start()
        return desk

    # -- commands ----------------------------------------------------------------------------------

    def place(self, intents: tuple[OrderIntent, ...], events: Mailbox[AccountEvent]) -> None:
        left = threading.Event()
        self._command(self._place(intents, events, left))
        # The strategy's thread stands aside until the order is on record and under way: it would hold the
        # interpreter for up to its switch interval, 5 ms, which the order would wait.
        left.wait(_STAND_ASIDE_S)

    async def _place(
        self, intents: tuple[OrderIntent, ...], events: Mailbox[AccountEvent], left: threading.Event
    ) -> None:
        _after_turns(asyncio.get_running_loop(), _TURNS_TO_LEAVE, left.set)
        if self._desk is None:
            for intent in intents:
                events.append(OrderFailed(intent.key, _no_account(intent.ticket.account)))
            return
        await self._desk.submit(intents, events)

    def modify(self, key: str, ticket: OrderTicket, events: Mailbox[AccountEvent]) -> None:
        self._command(self._modify(key, ticket, events))

    async def _modify(self, key: str, ticket: OrderTicket, events: Mailbox[AccountEvent]) -> None:
        if self._desk is None:
            events.append(ModifyFailed(key, _no_account(ticket.account)))
            return
        await self._desk.modify(key, ticket, events)

    def set_expiry(self, key: str, expires_ns: int | None) -> None:
        self._command(self._set_expiry(key, expires_ns))

    async def _set_expiry(self, key: str, expires_ns: int | None) -> None:
        if self._desk is not None:
            self._desk.set_expiry(key, expires_ns)

    def cancel(self, key: str, events: Mailbox[AccountEvent]) -> None:
        self._command(self._cancel(key, events))

    async def _cancel(self, key: str, events: Mailbox[AccountEvent]) -> None:
        if self._desk is None:
            events.append(CancelFailed(key, OrderRefusedError(f"There is no order {key}.")))
            return
        await self._desk.cancel(key, events)

    def reconcile(self, account: str) -> None:
        self._command(self._reconcile(account))

    async def _reconcile(self, account: str) -> None:
        if self._desk is not None:
            await self._desk.reconcile(account, "asked for")

    def what_if(self, ticket: OrderTicket) -> WhatIf:
        self._check_open()
        assert self._session is not None
        return self._call(WhatIfService(self._session.http).preview(ticket))

    def halt(self, state: TradingState, *, cancel_open: bool, flatten: bool) -> None:
        self._command(self._halt(state, cancel_open, flatten))

    async def _halt(self, state: TradingState, cancel_open: bool, flatten: bool) -> None:
        if self._desk is None:
            raise UsageError(
                "Trading was to be halted, but nothing trades here.", remedy="Attach an account first."
            )
        await self._desk.halt(state, cancel_open=cancel_open, flatten=flatten)


def _after_turns(loop: asyncio.AbstractEventLoop, turns: int, callback: Callable[[], None]) -> None:
    """Call back when the loop has gone round so often."""
    if turns:
        loop.call_soon(_after_turns, loop, turns - 1, callback)
    else:
        callback()


def _no_account(account: str) -> OrderRefusedError:
    return OrderRefusedError(f"Account {account} was not attached: nothing was sent.")
