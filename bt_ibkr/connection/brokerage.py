"""The brokerage session with all its services, on one event loop: what strategies reach directly or through the hub.

Everything here runs on the loop that opened it. ``DirectConnection`` keeps it on a thread of its own and waits for
its answers on cerebro's thread; the hub serves it to other processes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import msgspec

from bt_ibkr.clock import NS_PER_S, Clock, ServerClock, SystemClock
from bt_ibkr.config import SessionSettings, state_directory
from bt_ibkr.connection.interface import (
    AccountSnapshot,
    CancelFailed,
    ModifyFailed,
    OrderFailed,
    Progress,
    SessionChanged,
)
from bt_ibkr.connection.metrics import Metrics
from bt_ibkr.connection.reception import EventSink, Reception, StoreSink
from bt_ibkr.desk.closing import Opposites
from bt_ibkr.desk.controls import RiskControls
from bt_ibkr.desk.trading import TradingDesk
from bt_ibkr.desk.view import SessionView
from bt_ibkr.errors import OrderRefusedError, SessionError, UsageError
from bt_ibkr.journal import Journal, journal_path
from bt_ibkr.login import is_loopback
from bt_ibkr.model.contract import Contract
from bt_ibkr.model.intent import OrderIntent
from bt_ibkr.model.market import Bar, Quote
from bt_ibkr.model.order import OrderTicket
from bt_ibkr.model.portfolio import LedgerLine, Position
from bt_ibkr.model.scanner import ScannerParameters, ScanRequest, ScanRow
from bt_ibkr.model.trading import TradingState
from bt_ibkr.risk import RiskLimits
from bt_ibkr.services.chains import ChainProgress, ChainRequest, ChainService
from bt_ibkr.services.combo_history import join_bars
from bt_ibkr.services.combo_quotes import badness, leg_points
from bt_ibkr.services.contract_cache import ContractCache, cache_path, cache_scope
from bt_ibkr.services.contracts import ContractService
from bt_ibkr.services.datanames import ContractQuery
from bt_ibkr.services.depth import DepthService, DepthSink
from bt_ibkr.services.history import HistoryRequest, HistoryService
from bt_ibkr.services.marketdata import MarketDataService, TickSink
from bt_ibkr.services.portfolio import PortfolioService
from bt_ibkr.services.questions import QuestionPolicy
from bt_ibkr.services.scanner import ScannerService
from bt_ibkr.services.schedules import ScheduleService
from bt_ibkr.services.streams import known_extras
from bt_ibkr.services.whatif import WhatIfService
from bt_ibkr.session.alone import Presence
from bt_ibkr.session.server_time import ServerTime, difference_text
from bt_ibkr.session.session import Session
from bt_ibkr.session.states import SessionEvent
from bt_ibkr.session.websocket import Subscription
from bt_ibkr.wire import topics
from bt_ibkr.wire.contract_rules import ContractRules
from bt_ibkr.wire.order_answers import WhatIf
from bt_ibkr.wire.values import quality

_log = logging.getLogger(__name__)


class JournalInMemory(msgspec.Struct, frozen=True):
    """The journal ends with the run: nothing of it is known to the next.

    Attributes:
        epoch: Of its keys, where the account ends with the run as well; by default one of its own.
    """

    epoch: str | None = None


MEMORY = JournalInMemory()


class Brokerage:
    """One session, its services and its order desk.

    Args:
        settings: Where and how.
        wake: Called whenever something was taken in.
        clock: Market clock.
        policy: Answers to order questions.
        journal: Where orders are written down before they leave: a file, or ``None`` for the account's own file in
            the state directory; ``MEMORY`` for a run that nobody has to remember.
        risk: What may leave.

    Attributes:
        session: The session; ``None`` before ``open``.
        reception: Where frames that are no quotes go.
        contracts, chains, history, market_data, depth, scanner, portfolio, schedules: Its services, once it is open.
        opened: Whether it was open at least once, and the services exist.
        pending: What goes on in the background and is not done yet.
    """

    def __init__(
        self,
        settings: SessionSettings,
        wake: Callable[[], None],
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
        self.clock: Clock = clock or SystemClock()
        self._server_time = (
            ServerTime(self.clock, self._clock_differs) if isinstance(self.clock, ServerClock) else None
        )
        self._journal_place = journal
        self._risk = risk or RiskLimits()
        self._streams = False
        self._closing = False
        #: The event that ended the stream, while it is interrupted.
        self._broken: SessionEvent | None = None
        self._presence: Presence | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.session: Session | None = None
        self.opened = False
        self.reception = Reception(self._unknown)
        self.contracts: ContractService
        self.opposites: Opposites
        self.chains: ChainService
        self.history: HistoryService
        self.market_data: MarketDataService
        self.depth: DepthService
        self.scanner: ScannerService
        self.portfolio: PortfolioService
        self.schedules: ScheduleService

    # -- life ------------------------------------------------------------------------------------

    async def open(self, events: StoreSink) -> None:
        """Log on, and tell ``events`` of the session from now on.

        Raises:
            UnreachableError, TrustError, AuthenticationError: As ``Session.open``.
        """
        self.reception.store = events
        session = self.session = Session(
            self._settings,
            clock=self.clock,
            on_frame=self.reception.take,
            on_progress=self._wake,
            on_state=self._on_state,
            server_time=self._server_time,
        )
        await session.open()
        http = session.http
        self.contracts = ContractService(http, self.clock, self._contract_cache())
        self.opposites = Opposites(self.contracts, self._take_opposites)
        self.chains = ChainService(http, self.contracts.lookups)
        self.history = HistoryService(http)
        self.portfolio = PortfolioService(http, lambda: session.accounts)
        self.market_data = MarketDataService(
            session.socket, http, self._settings, self._wake, self._may_clear
        )
        self.depth = DepthService(session.socket, self._settings, self.clock.now_ns, self.market_data)
        self.scanner = ScannerService(http, self.clock.now_ns)
        self.schedules = ScheduleService(http, self.clock)
        self._presence = Presence(state_directory() / "logins", (self._settings.base_url, *self.accounts()))
        if self._may_clear():
            await self.market_data.clear_lines()
        self.opened = True

    def _take_opposites(self, one: int, other: int) -> None:
        if self.reception.view is not None:
            self.reception.view.take_opposites(one, other)

    def _contract_cache(self) -> ContractCache | None:
        """The file of answers on contracts; ``None`` where nothing of the run is to be remembered, or the server may
        be an emulator, whose universe is another each time."""
        settings = self._settings
        plain = is_loopback(settings.base_url) and not settings.base_url.lower().startswith("https:")
        if plain or isinstance(self._journal_place, JournalInMemory) or not settings.contract_cache:
            return None
        return ContractCache(cache_path(), cache_scope(settings.base_url, self.accounts()))

    def _may_clear(self) -> bool:
        """Whether the lines at the server are this process's to give back."""
        alone = self._presence is not None and self._presence.alone()
        wanted = self._settings.clear_lines
        return alone if wanted == "auto" else wanted == "always"

    async def close(self) -> None:
        """End the desk, then the session."""
        self._closing = True
        if self.session is None:
            return
        try:
            if self.desk is not None:
                await self.desk.close()
            if self.opened and self._streams:
                await self.market_data.close()
            await self.session.close()
        finally:
            if self.opened:
                self.contracts.close()
            if self._presence is not None:
                self._presence.leave()
            for task in list(self._tasks):
                task.cancel()

    @property
    def desk(self) -> TradingDesk | None:
        """Where orders go; once an account is attached."""
        return self.reception.desk

    @property
    def pending(self) -> int:
        return len(self._tasks)

    def progress(self) -> Progress:
        """What was read of the stream."""
        if self.session is None or not self.opened:
            return Progress(0, 0)
        return Progress(self.session.socket.local_port, self.session.socket.received)

    async def renew_due(self) -> None:
        """Renew subscriptions whose time has come."""
        if self.session is not None and self.opened:
            await self.session.socket.renew_due()

    # -- what happens to the stream ------------------------------------------------------------------

    def _clock_differs(self, offset_ns: int) -> None:
        self.reception.tell("clock-differs", difference_text(offset_ns))

    def _unknown(self, topic: str | None) -> None:
        if self.session is not None:
            self.session.unknowns.topic(topic)

    def _on_state(self, event: SessionEvent) -> None:
        connected, was_connected = event.streams, self._streams
        self._streams = connected
        since_ns = event.since_ns
        if since_ns and (heard_ns := self.stream_ns()):
            # A socket may die with frames that were never sent: whole is what the last frame of all shows.
            since_ns = min(since_ns, heard_ns)
        if was_connected and not connected and self.opened:
            self.market_data.broken(event.cause, event.since_ns)
            self.depth.broken()
            self._broken = event
            if self.desk is not None:
                self.desk.disconnected()
        if connected and not was_connected and self.opened and not self._closing:
            self.reception.back()
            broken_ns = event.time_ns if self._broken is None else self._broken.since_ns
            self._spawn(self._read_again(broken_ns))
        if self.reception.store is not None:
            self.reception.store.append(
                SessionChanged(event.state.value, event.cause, event.next_step, connected, since_ns)
            )
        if connected and self._broken is not None and self.session is not None:
            self.reception.report_gap(self._broken, event.time_ns, self.session.socket.subscribed)
            self._broken = None

    async def _read_again(self, since_ns: int) -> None:
        """After a break: what changed meanwhile. Executions are replayed by the stream, too."""
        if self.desk is not None and (reading := self.desk.connected(since_ns)) is not None:
            # The first attempt; others follow by themselves. Cancelled when the stream breaks again.
            await asyncio.wait((reading,))

    async def _repair(self, times: int) -> None:
        """The stream is mute: subscribe again; if that was in vain, open the WebSocket anew."""
        assert self.session is not None
        if times > 1:
            await self.session.socket.reopen()
        else:
            await self.session.socket.ask_again("sor", "str")

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work, name="brokerage")
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._wake()
        if not task.cancelled() and task.exception() is not None:
            _log.error("brokerage-failed problem=%r", task.exception(), exc_info=task.exception())

    # -- reading -----------------------------------------------------------------------------------

    async def count(self) -> Metrics:
        """What was counted so far, and the request gate as it stands."""
        session = self.session
        assert session is not None
        gate = session.pacing()
        socket, desk, counts = session.socket, self.desk, self.reception
        return Metrics(
            lines=self.market_data.used(),
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
            clock_offset_s=self.clock.offset_ns / NS_PER_S if isinstance(self.clock, ServerClock) else 0.0,
            penalty_s=gate.penalty_s,
            penalties=gate.penalties,
        )

    def accounts(self) -> tuple[str, ...]:
        """Account ids of this login, the selected one first."""
        if self.session is None:
            raise SessionError("The connection is closed.", remedy="Open a new store.")
        known = self.session.accounts
        ids = [account.account_id for account in known.accounts]
        selected = known.selected
        return tuple(sorted(ids, key=lambda one: one != selected))

    def is_paper(self) -> bool | None:
        """Whether IBKR calls the login's accounts paper; ``None`` if it does not tell."""
        if self.session is None:
            raise SessionError("The connection is closed.", remedy="Open a new store.")
        return self.session.accounts.is_paper

    async def availability(self, contract: Contract) -> str:
        """Field 6509; of a combo, that of the leg with the worst data."""
        parts = self.contracts.legs_of(contract) if contract.legs else (contract,)
        codes = [await self.market_data.availability(one) for one in parts]
        return max(codes, key=lambda code: badness(quality(code)))

    async def resolve(self, query: ContractQuery) -> Contract:
        """The contract a dataname means."""
        return await self.contracts.resolve(query)

    async def contract_rules(self, contract: Contract) -> ContractRules:
        """See ``Connection.contract_rules``."""
        return await self.contracts.rules(contract)

    async def chain(
        self, request: ChainRequest, progress: ChainProgress | None = None
    ) -> tuple[Contract, ...]:
        """See ``Connection.chain``."""
        return await self.chains.chain(request, progress)

    async def subscribe_ticks(
        self, contract: Contract, sink: TickSink, extras: frozenset[str] = frozenset()
    ) -> None:
        """See ``Connection.subscribe_ticks``."""
        if contract.legs:
            known_extras(contract, extras)
            legs = self.contracts.legs_of(contract)
            await self.market_data.subscribe_combo(contract, legs, sink)
        else:
            await self.market_data.subscribe(contract, sink, extras)

    async def unsubscribe_ticks(self, sink: TickSink) -> None:
        """End what ``sink`` subscribed."""
        await self.market_data.unsubscribe(sink)

    async def quote(self, contract: Contract) -> Quote | None:
        """See ``Connection.quote``."""
        return self.market_data.quote(contract)

    async def subscribe_depth(self, contract: Contract, account: str, sink: DepthSink) -> None:
        """See ``Connection.subscribe_depth``."""
        await self.depth.subscribe(contract, account, sink)

    async def unsubscribe_depth(self, sink: DepthSink) -> None:
        """End what ``sink`` subscribed."""
        await self.depth.unsubscribe(sink)

    async def scan(self, request: ScanRequest) -> tuple[ScanRow, ...]:
        """See ``Connection.scan``."""
        return await self.scanner.scan(request)

    async def scanner_parameters(self) -> ScannerParameters:
        """See ``Connection.scanner_parameters``."""
        return await self.scanner.parameters()

    def stream_ns(self) -> int:
        """The newest server time seen on any tick; 0 before the first."""
        return self.market_data.stream_ns if self.opened else 0

    def server_ns(self) -> int:
        """The server's time as it was measured; 0 if it was not, or this clock is not set by it."""
        return self.clock.now_ns() if self._server_time is not None and self._server_time.measured else 0

    async def bars(self, request: HistoryRequest) -> list[Bar]:
        """Historical bars; of a combo, those of its legs put together."""
        combo = request.contract
        if not combo.legs:
            return await self.history.bars(request)
        legs = self.contracts.legs_of(combo)
        asked = [self.history.bars(msgspec.structs.replace(request, contract=leg)) for leg in legs]
        joined = join_bars(leg_points(combo, legs), await asyncio.gather(*asked))
        return joined[-request.most :] if request.most else joined

    async def positions(self, account: str) -> tuple[Position, ...]:
        """As IBKR lists them."""
        return await self.portfolio.positions(account)

    async def ledger(self, account: str) -> dict[str, LedgerLine]:
        """Cash and values by currency, as IBKR lists them."""
        return await self.portfolio.ledger(account)

    async def what_if(self, ticket: OrderTicket) -> WhatIf:
        """See ``Connection.what_if``."""
        assert self.session is not None
        return await WhatIfService(self.session.http).preview(ticket)

    # -- trading -----------------------------------------------------------------------------------

    async def attach(self, account: str, events: EventSink) -> AccountSnapshot:
        """Read ``account`` and tell ``events`` of its orders, executions and cash from that moment on."""
        assert self.session is not None
        desk = self.desk or self._open_desk(account)
        snapshot = await desk.attach(account, events)
        if self.reception.view is not None:
            self.reception.view.take_ledger(account, tuple(snapshot.ledger.values()))
        self.reception.attach(account, events)
        socket = self.session.socket
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
        assert self.session is not None
        place = self._journal_place
        path = None if isinstance(place, JournalInMemory) else place or journal_path(account)
        epoch = place.epoch if isinstance(place, JournalInMemory) else None
        journal = Journal.open(path, clock=self.clock, epoch=epoch)
        view = self.reception.view = SessionView(
            journal=journal,
            clock=self.clock,
            latest=self.market_data.latest,
            contract=self.contracts.known,
            open_now=self.schedules.open_now,
            fractions=any(one.supports_fractions for one in self.session.accounts.accounts),
        )
        desk = self.reception.desk = TradingDesk(
            http=self.session.http,
            portfolio=self.portfolio,
            journal=journal,
            policy=self._policy,
            controls=RiskControls(self._risk, view, self.clock, journal, self.schedules),
            opposite=self.opposites,
            clock=self.clock,
            tell=self.reception.tell,
            repair=self._repair,
            watch_s=self._settings.mute_s,
            first_s=self._settings.reconnect_first_s,
            longest_s=self._settings.reconnect_longest_s,
        )
        view.desk = desk
        desk.start()
        return desk

    async def place(
        self,
        intents: tuple[OrderIntent, ...],
        events: EventSink,
        recorded: Callable[[], None] | None = None,
    ) -> None:
        """See ``Connection.place``; returns once the outcome was told, or is being looked up.

        Args:
            recorded: Called once the orders are on record: from then on they are not forgotten, whatever happens.
        """
        if self.desk is None:
            for intent in intents:
                events.append(OrderFailed(intent.key, _no_account(intent.ticket.account)))
            return
        await self.desk.submit(intents, events, recorded)

    async def modify(self, key: str, ticket: OrderTicket, events: EventSink) -> None:
        """See ``Connection.modify``."""
        if self.desk is None:
            events.append(ModifyFailed(key, _no_account(ticket.account)))
            return
        await self.desk.modify(key, ticket, events)

    async def set_expiry(self, key: str, expires_ns: int | None) -> None:
        """See ``Connection.set_expiry``."""
        if self.desk is not None:
            self.desk.set_expiry(key, expires_ns)

    async def cancel(self, key: str, events: EventSink) -> None:
        """See ``Connection.cancel``."""
        if self.desk is None:
            events.append(CancelFailed(key, OrderRefusedError(f"There is no order {key}.")))
            return
        await self.desk.cancel(key, events)

    async def reconcile(self, account: str) -> None:
        """See ``Connection.reconcile``."""
        if self.desk is not None:
            await self.desk.reconcile(account, "asked for")

    async def halt(self, state: TradingState, *, cancel_open: bool, flatten: bool) -> None:
        """See ``Connection.halt``.

        Raises:
            UsageError: No account is attached: nothing trades here.
        """
        if self.desk is None:
            raise UsageError(
                "Trading was to be halted, but nothing trades here.", remedy="Attach an account first."
            )
        await self.desk.halt(state, cancel_open=cancel_open, flatten=flatten)


def _no_account(account: str) -> OrderRefusedError:
    return OrderRefusedError(f"Account {account} was not attached: nothing was sent.")
