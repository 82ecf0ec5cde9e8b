"""A ``Connection`` whose session lives in the hub's process."""

from __future__ import annotations

import concurrent.futures
import logging
import threading
import time
from typing import Any, Final

import msgspec

from bt_ibkr.clock import NS_PER_S, Clock, ServerClock, SystemClock
from bt_ibkr.connection.interface import (
    AccountEvent,
    AccountSnapshot,
    FeedEvent,
    GapReported,
    HistoryArrived,
    Progress,
    SessionChanged,
    SessionNotice,
    StoreEvent,
)
from bt_ibkr.connection.mailbox import Mailbox, WakeUp
from bt_ibkr.connection.metrics import Metrics
from bt_ibkr.errors import (
    BtIbkrError,
    SessionError,
    WireError,
)
from bt_ibkr.hub.commands import Commands
from bt_ibkr.hub.feeding import CALL_S, Feeding
from bt_ibkr.hub.following import Following
from bt_ibkr.hub.link import HubLink
from bt_ibkr.hub.names import check_name
from bt_ibkr.hub.protocol import Told, Welcome, read
from bt_ibkr.hub.requests import (
    ACCOUNT_EVENTS,
    STORE_EVENTS,
    Attach,
    CatchUp,
    ProgressNow,
)
from bt_ibkr.hub.wires import Keys
from bt_ibkr.model.calendar import TradingDay
from bt_ibkr.model.contract import Contract
from bt_ibkr.model.intent import OrderIntent
from bt_ibkr.model.market import Quote
from bt_ibkr.model.order import OrderTicket
from bt_ibkr.model.scanner import ScannerParameters, ScanRequest, ScanRow
from bt_ibkr.model.trading import TradingState
from bt_ibkr.services.chains import ChainProgress, ChainRequest
from bt_ibkr.services.datanames import ContractQuery
from bt_ibkr.services.depth import DepthSink
from bt_ibkr.services.history import HistoryRequest
from bt_ibkr.services.marketdata import TickSink
from bt_ibkr.session.server_time import Correction, difference_text
from bt_ibkr.wire.contract_rules import ContractRules
from bt_ibkr.wire.order_answers import WhatIf

_log = logging.getLogger(__name__)

#: A chain is told strike by strike.
_CHAIN_S: Final = 1800.0
#: How long a hub is waited for at the start; longer than it takes one of the same name that died to be missed.
_OPEN_S: Final = 15.0
#: How long what the hub says it has sent is waited for.
_ARRIVES_S: Final = 10.0


class HubConnection:
    """See ``Connection``.

    Args:
        endpoint: Of the hub.
        name: The strategy's: owner of its orders and of its book.
        wake: The store's flag.
        clock: Market clock.
        keys: CURVE keys, for an encrypted hub.
        conflate_s: Above 0: take at most one tick of an instrument in so many seconds.
        external: Hear of other programs' orders in the account.
    """

    def __init__(
        self,
        endpoint: str,
        name: str,
        wake: WakeUp,
        *,
        clock: Clock | None = None,
        keys: Keys | None = None,
        conflate_s: float = 0.0,
        external: bool = True,
    ) -> None:
        self.name = check_name(name)
        self._wake = wake
        self._clock = clock or SystemClock()
        self._external = external
        self._link = HubLink(endpoint, self.name, self, keys=keys)
        self._feeding = Feeding(self._link, self._tell, self._clock, wake, conflate_s)
        self._streams = self._feeding.streams
        self._events: Mailbox[StoreEvent] | None = None
        self._boxes: dict[str, Mailbox[AccountEvent]] = {}
        self._following = Following()
        self._commands = Commands(self._link, self._following, wake)
        self._queries: dict[ContractQuery, Contract] = {}
        self._lock = threading.Lock()
        self._histories = 0
        #: Of the session, as the hub told last.
        self._session = SessionChanged("disconnected", "")
        #: Set by the server's time, as the hub has measured it.
        self._server_clock = self._clock if isinstance(self._clock, ServerClock) else None
        if self._server_clock is not None:
            self._correction = Correction(self._server_clock, self._clock_differs)
        self._broken_ns = 0
        self._closed = False
        self._last_metrics = Metrics()
        #: What the last progress asked for said of the hub.
        self._in_flight = 0

    @property
    def clock(self) -> Clock:
        return self._clock

    @property
    def _welcome(self) -> Welcome:
        welcome = self._link.welcome
        if welcome is None or self._closed:
            raise SessionError("The connection is closed.", remedy="Open a new store.")
        return welcome

    # -- life ------------------------------------------------------------------------------------

    def open(self, events: Mailbox[StoreEvent]) -> None:
        """See ``Connection``.

        Raises:
            UnreachableError: No hub answers.
            SessionError: Another process has this name, or the hub is of another version.
            NotArmedError: The hub does not let it in.
        """
        if self._events is not None:
            return
        self._events = events
        self._link.open(_OPEN_S)

    def close(self) -> None:
        if self._closed:
            return
        if self._link.welcome is not None and self._link.up:
            try:
                self._last_metrics = self._link.call("metrics", timeout_s=2.0)
            except BtIbkrError as problem:
                _log.debug("hub-metrics-failed problem=%s", problem)
        self._closed = True
        self._commands.close()
        self._feeding.close()
        self._link.close()

    # -- what the link tells (its thread) ----------------------------------------------------------

    def told(self, message: Told) -> None:
        """See ``LinkUser``."""
        try:
            if message.kind in ACCOUNT_EVENTS:
                event: AccountEvent = read(message.body, ACCOUNT_EVENTS[message.kind])
                self._following.take(event)
                box = self._boxes.get(message.account)
                if box is not None:
                    box.append(event)
            elif message.kind in STORE_EVENTS:
                self._store_event(read(message.body, STORE_EVENTS[message.kind]))
        except WireError as problem:
            # A report that cannot be understood is never guessed at: it is told, loudly.
            _log.error("hub-report-unreadable kind=%s problem=%s", message.kind, problem)
            self._tell(SessionNotice("unreadable", f"{message.kind}: {problem}"))

    def _store_event(self, event: StoreEvent) -> None:
        if isinstance(event, SessionChanged):
            self._session = event
            if not event.connected:
                self._feeding.ladders.broken()
            if not self._link.up and not event.connected:
                # Of a hub that closes: it is known to be gone.
                return
        self._tell(event)

    def _tell(self, event: StoreEvent) -> None:
        if self._events is not None:
            self._events.append(event)

    def tick(self, message: bytes) -> None:
        """See ``LinkUser``."""
        self._feeding.take(message)

    def heads(self, heads: dict[bytes, int], stream_ns: int) -> None:
        """See ``LinkUser``."""
        self._feeding.take_heads(heads, stream_ns)

    def beat(self) -> tuple[dict[bytes, int], int, int, int]:
        """See ``LinkUser``."""
        streams = self._streams
        return streams.behind(), streams.waiting(), streams.lost, streams.mended

    def server_time(self, server_ns: int) -> None:
        """See ``LinkUser``."""
        if self._server_clock is not None:
            self._correction.set(server_ns - self._server_clock.base_ns())

    def _clock_differs(self, offset_ns: int) -> None:
        self._tell(SessionNotice("clock-differs", difference_text(offset_ns)))

    def link_changed(self, up: bool, cause: str, next_step: str = "") -> None:
        """See ``LinkUser``: to feeds and broker it is the session that broke or came back."""
        now_ns = self._clock.now_ns()
        if not up:
            # Ticks may have been missing for as long as the hub was silent, and no number has shown it.
            self._broken_ns = self._broken_ns or self._streams.whole_ns or 1
            self._tell(SessionChanged("disconnected", cause, next_step, False, self._broken_ns))
            return
        broken_ns, self._broken_ns = self._broken_ns, 0
        self._tell(self._session)
        if self._session.connected and broken_ns:
            topics = tuple(stream.contract.describe() for stream in self._streams)
            self._tell(
                GapReported(start_ns=broken_ns, end_ns=now_ns, topics=topics, cause="the hub was away")
            )

    def new_hub(self) -> None:
        """See ``LinkUser``: contracts, accounts and streams, in this order, are known to the new one again."""
        if not self._broken_ns:
            self.link_changed(False, "the hub was restarted", "it is brought up to date")
        for query in list(self._queries):
            self._queries[query] = self._link.call("resolve", query, timeout_s=CALL_S)
        for account, box in list(self._boxes.items()):
            self._catch_up(account, box)
        self._feeding.renew()
        self.link_changed(True, "the hub is back")

    def _catch_up(self, account: str, box: Mailbox[AccountEvent]) -> None:
        """Tell what the new hub knows and this process has not heard."""
        unanswered = self._commands.unanswered()
        keys = self._following.keys(account)

        def caught(done: concurrent.futures.Future[Any]) -> None:
            # On the link's thread: what the hub tells after its answer comes after what the answer brings.
            if done.cancelled() or done.exception() is not None:
                return
            for event in self._following.news(account, done.result(), unanswered, self._clock.now_ns()):
                box.append(event)

        wanted = CatchUp(account=account, keys=keys, external=self._external)
        self._link.call("catch-up", wanted, timeout_s=CALL_S, done=caught)

    # -- calls (cerebro's thread) ------------------------------------------------------------------

    def _check_open(self) -> None:
        if self._closed or self._link.welcome is None:
            raise SessionError("The connection is closed.", remedy="Open a new store.")

    def _call(self, kind: str, value: object = None) -> Any:
        self._check_open()
        return self._link.call(kind, value, timeout_s=CALL_S)

    def take_over(self) -> None:
        self._call("take-over")

    def metrics(self) -> Metrics:
        if self._closed or self._link.welcome is None:
            return self._last_metrics
        metrics: Metrics = self._call("metrics")
        own_ns = 0 if self._server_clock is None else self._server_clock.offset_ns
        return msgspec.structs.replace(metrics, clock_offset_s=own_ns / NS_PER_S)

    def accounts(self) -> tuple[str, ...]:
        return self._welcome.accounts

    def is_paper(self) -> bool | None:
        return self._welcome.paper

    def availability(self, contract: Contract) -> str:
        return str(self._call("availability", contract))

    def resolve(self, query: ContractQuery) -> Contract:
        known = self._queries.get(query)
        if known is None:
            known = self._queries[query] = self._call("resolve", query)
        return known

    def contract_rules(self, contract: Contract) -> ContractRules:
        rules: ContractRules = self._call("contract-rules", contract)
        return rules

    def schedule(self, contract: Contract) -> tuple[TradingDay, ...]:
        days: tuple[TradingDay, ...] = self._call("schedule", contract)
        return days

    def chain(self, request: ChainRequest, progress: ChainProgress | None = None) -> tuple[Contract, ...]:
        """See ``Connection``; a hub does not tell how far it has come."""
        self._welcome  # noqa: B018 - it says so where the connection is closed
        chain: tuple[Contract, ...] = self._link.call("chain", request, timeout_s=_CHAIN_S)
        return chain

    def subscribe_ticks(
        self, contract: Contract, sink: TickSink, extras: frozenset[str] = frozenset()
    ) -> None:
        self._check_open()
        self._feeding.subscribe_ticks(contract, sink, extras)

    def quote(self, contract: Contract) -> Quote | None:
        quote: Quote | None = self._call("quote", contract)
        return quote

    def subscribe_depth(self, contract: Contract, account: str, sink: DepthSink) -> None:
        self._check_open()
        self._feeding.subscribe_depth(contract, account, sink)

    def unsubscribe_depth(self, sink: DepthSink) -> None:
        self._feeding.unsubscribe_depth(sink)

    def scan(self, request: ScanRequest) -> tuple[ScanRow, ...]:
        rows: tuple[ScanRow, ...] = self._call("scan", request)
        return rows

    def scanner_parameters(self) -> ScannerParameters:
        parameters: ScannerParameters = self._call("scanner-parameters")
        return parameters

    def unsubscribe_ticks(self, sink: TickSink) -> None:
        self._feeding.unsubscribe_ticks(sink)

    def stream_ns(self) -> int:
        return self._streams.stream_ns

    def request_history(self, request: HistoryRequest, token: int, answers: Mailbox[FeedEvent]) -> None:
        with self._lock:
            self._histories += 1

        def answered(future: concurrent.futures.Future[Any]) -> None:
            with self._lock:
                self._histories -= 1
            problem = SessionError("The request was given up.") if future.cancelled() else future.exception()
            if problem is None:
                answers.append(HistoryArrived(token, future.result()))
            elif isinstance(problem, BtIbkrError):
                answers.append(HistoryArrived(token, (), problem))
            else:
                _log.error("hub-history-failed", exc_info=problem)
                answers.append(HistoryArrived(token, (), SessionError(repr(problem))))

        self._link.ask("history", request).add_done_callback(answered)

    def attach_account(self, account: str, events: Mailbox[AccountEvent]) -> AccountSnapshot:
        # Before the answer: what the hub tells after it must find its box.
        self._boxes[account] = events
        self._welcome  # noqa: B018 - it says so where the connection is closed

        def attached(done: concurrent.futures.Future[Any]) -> None:
            # On the link's thread, before anything that the hub tells after its answer.
            if not done.cancelled() and done.exception() is None:
                self._following.attached(done.result())

        wanted = Attach(account=account, external=self._external)
        snapshot: AccountSnapshot = self._link.call("attach", wanted, timeout_s=CALL_S, done=attached)
        return snapshot

    def what_if(self, ticket: OrderTicket) -> WhatIf:
        answer: WhatIf = self._call("what-if", ticket)
        return answer

    def in_flight(self) -> int:
        return self._link.unanswered() + self._in_flight

    def progress(self) -> Progress:
        """What the hub has read, once all that it made of it for this process was taken in here."""
        now: ProgressNow = self._call("progress")
        self._in_flight = now.in_flight
        latest = time.monotonic() + _ARRIVES_S
        while self._link.taken < now.told or self._feeding.missing(now.heads):
            if time.monotonic() > latest:
                raise SessionError(f"What the hub has sent did not arrive within {_ARRIVES_S:g} s.")
            self._wake.wait(0.02)
        self._streams.stream_ns = max(self._streams.stream_ns, now.stream_ns)
        return Progress(now.port, now.frames)

    def renew_due(self) -> None:
        self._call("renew-due")

    # -- commands ----------------------------------------------------------------------------------

    def place(self, intents: tuple[OrderIntent, ...], events: Mailbox[AccountEvent]) -> None:
        self._commands.place(intents, events)

    def modify(self, key: str, ticket: OrderTicket, events: Mailbox[AccountEvent]) -> None:
        self._commands.modify(key, ticket, events)

    def cancel(self, key: str, events: Mailbox[AccountEvent]) -> None:
        self._commands.cancel(key, events)

    def set_expiry(self, key: str, expires_ns: int | None) -> None:
        self._commands.set_expiry(key, expires_ns)

    def reconcile(self, account: str) -> None:
        self._commands.reconcile(account)

    def halt(self, state: TradingState, *, cancel_open: bool, flatten: bool) -> None:
        self._commands.halt(state, cancel_open=cancel_open, flatten=flatten)
