"""The session in this process, on its own thread."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

from bt_ibkr.clock import Clock
from bt_ibkr.config import SessionSettings
from bt_ibkr.connection.brokerage import MEMORY, Brokerage, JournalInMemory
from bt_ibkr.connection.interface import (
    AccountEvent,
    AccountSnapshot,
    FeedEvent,
    HistoryArrived,
    Progress,
    StoreEvent,
)
from bt_ibkr.connection.mailbox import Mailbox, WakeUp
from bt_ibkr.connection.metrics import Metrics
from bt_ibkr.desk.trading import TradingDesk
from bt_ibkr.errors import BtIbkrError, HistoryError, RequestTimeoutError, SessionError
from bt_ibkr.model.calendar import TradingDay
from bt_ibkr.model.contract import Contract
from bt_ibkr.model.intent import OrderIntent
from bt_ibkr.model.market import Quote
from bt_ibkr.model.order import OrderTicket
from bt_ibkr.model.portfolio import LedgerLine, Position
from bt_ibkr.model.scanner import ScannerParameters, ScanRequest, ScanRow
from bt_ibkr.model.trading import TradingState
from bt_ibkr.risk import RiskLimits
from bt_ibkr.services.chains import ChainProgress, ChainRequest
from bt_ibkr.services.datanames import ContractQuery
from bt_ibkr.services.depth import DepthSink
from bt_ibkr.services.history import HistoryRequest
from bt_ibkr.services.marketdata import TickSink
from bt_ibkr.services.questions import QuestionPolicy
from bt_ibkr.session.loop import LoopThread
from bt_ibkr.session.session import Session
from bt_ibkr.wire.contract_rules import ContractRules
from bt_ibkr.wire.order_answers import WhatIf

__all__ = ["MEMORY", "DirectConnection", "JournalInMemory"]

_log = logging.getLogger(__name__)
T = TypeVar("T")

#: Longest wait of cerebro's thread for one answer; above any single request's own time-out.
_CALL_S = 60.0
#: Longest that the strategy's thread stands aside for an order that leaves.
_STAND_ASIDE_S = 0.05
#: Turns of the loop after which an order that need not wait is on the wire: aiohttp writes in a task of its own.
_TURNS_TO_LEAVE = 2


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
        self._settings = settings
        self._wake = wake
        self._brokerage = Brokerage(
            settings, wake.set, clock=clock, policy=policy, journal=journal, risk=risk
        )
        self._loop: LoopThread | None = None
        self._pending = 0
        self._pending_lock = threading.Lock()
        self._last_metrics = Metrics()

    @property
    def clock(self) -> Clock:
        return self._brokerage.clock

    @property
    def _session(self) -> Session | None:
        return self._brokerage.session

    @property
    def _desk(self) -> TradingDesk | None:
        return self._brokerage.desk

    # -- life ------------------------------------------------------------------------------------

    def open(self, events: Mailbox[StoreEvent]) -> None:
        """See ``Connection``.

        Raises:
            UnreachableError, TrustError, AuthenticationError: As ``Session.open``.
        """
        if self._session is not None:
            return
        loop = self._loop = LoopThread("ibkr-session")
        # A log-on may wait for a person.
        patience_s = _CALL_S + getattr(self._settings.login, "wait_s", 0.0)
        try:
            loop.call(self._brokerage.open(events), patience_s)
        except (TimeoutError, concurrent.futures.TimeoutError):
            self.close()
            raise RequestTimeoutError(
                f"{self._settings.base_url} did not give a session within {patience_s:g} s.",
                remedy="Look whether it answers at all: bt-ibkr doctor.",
            ) from None
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        loop = self._loop
        self._loop = None
        if loop is None:
            return
        try:
            loop.call(self._end(), 5.0)
        except (concurrent.futures.TimeoutError, BtIbkrError) as problem:
            _log.warning("session-close-failed problem=%r", problem)
        loop.stop()
        self._brokerage.session = None

    async def _end(self) -> None:
        try:
            await self._brokerage.close()
        finally:
            if self._brokerage.opened:
                self._last_metrics = await self._brokerage.count()
            self._brokerage.reception.desk = None

    def _check_open(self) -> None:
        """Raises where the services were never made: before the first ``open``, or after one that failed."""
        if self._loop is None:
            raise SessionError("The connection is closed.", remedy="Open a new store.")

    def _call(self, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Do it on the loop; made there only where there is one."""
        if self._loop is None:
            raise SessionError("The connection is closed.", remedy="Open a new store.")
        try:
            return self._loop.call(make(), _CALL_S)
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
        return self._pending + self._brokerage.pending

    def progress(self) -> Progress:
        return self._brokerage.progress()

    def renew_due(self) -> None:
        if self._session is not None and self._brokerage.opened:
            self._call(self._brokerage.renew_due)

    # -- calls (cerebro's thread) ------------------------------------------------------------------

    def take_over(self) -> None:
        self._check_open()
        assert self._loop is not None
        assert self._session is not None
        self._loop.loop.call_soon_threadsafe(self._session.take_over)

    def metrics(self) -> Metrics:
        if self._loop is None or not self._brokerage.opened:
            return self._last_metrics
        return self._call(self._brokerage.count)

    def accounts(self) -> tuple[str, ...]:
        return self._brokerage.accounts()

    def is_paper(self) -> bool | None:
        return self._brokerage.is_paper()

    def availability(self, contract: Contract) -> str:
        return self._call(lambda: self._brokerage.availability(contract))

    def resolve(self, query: ContractQuery) -> Contract:
        return self._call(lambda: self._brokerage.resolve(query))

    def contract_rules(self, contract: Contract) -> ContractRules:
        return self._call(lambda: self._brokerage.contract_rules(contract))

    def chain(self, request: ChainRequest, progress: ChainProgress | None = None) -> tuple[Contract, ...]:
        self._check_open()
        assert self._loop is not None
        # As long as it takes: each of its requests has a time-out of its own.
        return self._loop.call(self._brokerage.chain(request, progress))

    def schedule(self, contract: Contract) -> tuple[TradingDay, ...]:
        return self._call(lambda: self._brokerage.schedules.days(contract.conid))

    def subscribe_ticks(
        self, contract: Contract, sink: TickSink, extras: frozenset[str] = frozenset()
    ) -> None:
        self._call(lambda: self._brokerage.subscribe_ticks(contract, sink, extras))

    def unsubscribe_ticks(self, sink: TickSink) -> None:
        if self._loop is not None:
            self._call(lambda: self._brokerage.unsubscribe_ticks(sink))

    def quote(self, contract: Contract) -> Quote | None:
        return self._call(lambda: self._brokerage.quote(contract))

    def subscribe_depth(self, contract: Contract, account: str, sink: DepthSink) -> None:
        self._call(lambda: self._brokerage.subscribe_depth(contract, account, sink))

    def unsubscribe_depth(self, sink: DepthSink) -> None:
        if self._loop is not None:
            self._call(lambda: self._brokerage.unsubscribe_depth(sink))

    def scan(self, request: ScanRequest) -> tuple[ScanRow, ...]:
        return self._call(lambda: self._brokerage.scan(request))

    def scanner_parameters(self) -> ScannerParameters:
        return self._call(self._brokerage.scanner_parameters)

    def stream_ns(self) -> int:
        return self._brokerage.stream_ns()

    def request_history(self, request: HistoryRequest, token: int, answers: Mailbox[FeedEvent]) -> None:
        self._command(self._fetch(request, token, answers))

    async def _fetch(self, request: HistoryRequest, token: int, answers: Mailbox[FeedEvent]) -> None:
        try:
            answers.append(HistoryArrived(token, tuple(await self._brokerage.bars(request))))
        except BtIbkrError as problem:
            answers.append(HistoryArrived(token, (), problem))
        except Exception as problem:  # noqa: BLE001 - a bug here must not leave a feed waiting
            # A feed that is not answered waits for ever.
            _log.exception("history-died conid=%d", request.contract.conid)
            what = f"History of {request.contract.describe()} could not be read: {problem!r}."
            answers.append(
                HistoryArrived(token, (), HistoryError(what, remedy="Tell the authors: see the log."))
            )

    def positions(self, account: str) -> tuple[Position, ...]:
        return self._call(lambda: self._brokerage.positions(account))

    def ledger(self, account: str) -> dict[str, LedgerLine]:
        return self._call(lambda: self._brokerage.ledger(account))

    def attach_account(self, account: str, events: Mailbox[AccountEvent]) -> AccountSnapshot:
        return self._call(lambda: self._brokerage.attach(account, events))

    def what_if(self, ticket: OrderTicket) -> WhatIf:
        return self._call(lambda: self._brokerage.what_if(ticket))

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
        await self._brokerage.place(intents, events)

    def modify(self, key: str, ticket: OrderTicket, events: Mailbox[AccountEvent]) -> None:
        self._command(self._brokerage.modify(key, ticket, events))

    def set_expiry(self, key: str, expires_ns: int | None) -> None:
        self._command(self._brokerage.set_expiry(key, expires_ns))

    def cancel(self, key: str, events: Mailbox[AccountEvent]) -> None:
        self._command(self._brokerage.cancel(key, events))

    def reconcile(self, account: str) -> None:
        self._command(self._brokerage.reconcile(account))

    def halt(self, state: TradingState, *, cancel_open: bool, flatten: bool) -> None:
        self._command(self._brokerage.halt(state, cancel_open=cancel_open, flatten=flatten))


def _after_turns(loop: asyncio.AbstractEventLoop, turns: int, callback: Callable[[], None]) -> None:
    """Call back when the loop has gone round so often."""
    if turns:
        loop.call_soon(_after_turns, loop, turns - 1, callback)
    else:
        callback()
