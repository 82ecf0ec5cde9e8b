"""The store: owner of the session of a run, maker of its feeds and its broker.

Where and how a run waits is ``store_cycle``.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from bt_ibkr.clock import NS_PER_S, Clock, ServerClock, SystemClock
from bt_ibkr.config import DEFAULT_GATEWAY, SessionSettings, Trust, rest_base
from bt_ibkr.connection.direct import DirectConnection, JournalInMemory
from bt_ibkr.connection.guard import AccountGuard, Standing
from bt_ibkr.connection.interface import (
    Connection,
    GapReported,
    Progress,
    SessionNotice,
    StoreEvent,
    TicksConflated,
)
from bt_ibkr.connection.mailbox import Mailbox, WakeUp
from bt_ibkr.connection.metrics import Metrics
from bt_ibkr.errors import BtIbkrError, SessionError, UsageError
from bt_ibkr.hub.joining import HubAddress
from bt_ibkr.model.scanner import ScanRequest, ScanRow
from bt_ibkr.risk import RiskLimits
from bt_ibkr.services.chains import ChainProgress, ChainRequest
from bt_ibkr.services.datanames import parse_dataname
from bt_ibkr.services.questions import QuestionPolicy
from bt_ibkr.store_cycle import Cycle, IdleHook, StoreFeed
from bt_ibkr.store_options import check_ibstore, gateway_at, hub_address, journal_place
from bt_ibkr.wire.values import quality

if TYPE_CHECKING:
    from bt_ibkr.brokers.ibkr_broker import IBKRBroker
    from bt_ibkr.feeds.chain import ChainKey
    from bt_ibkr.feeds.depth import DepthData
    from bt_ibkr.feeds.ibkr_data import IBKRData
    from bt_ibkr.recorder import TickRecorder

_log = logging.getLogger(__name__)

#: How long the end of a run waits for what it has sent last, seconds: a run that is told to end does so within two.
_LAST_ANSWERS_S = 1.0


def refuse_unknown(owner: str, unknown: dict[str, Any]) -> None:
    """A parameter written wrongly must not be passed over; what backtrader's metaclass left is one.

    Raises:
        UsageError: There is one.
    """
    if unknown:
        raise UsageError(
            f"{owner} has no parameter {', '.join(sorted(unknown))}.",
            remedy=f"Its parameters are listed in the documentation of {owner}.",
        )


class IBKRStore:
    """Session, feeds and broker of one IBKR login.

    Unlike backtrader's own stores this is no singleton: every call makes a store of its own.

    Args:
        gateway: REST base of the Client Portal Gateway or of an emulator; without a path ``/v1/api`` is added.
        host, port: Of the gateway, instead of ``gateway``, as backtrader's ``IBStore`` has them.
        mode: ``paper`` or ``live``: refuse any account that is not of this kind. Without a mode the store trades
            in paper accounts only, but shows the data of any.
        account: Account id to trade in; by default the one the login has selected. Mode ``live`` wants it named.
        confirm_account: The account id once more: the confirmation that mode ``live`` wants.
        guard: Mode, account and confirmation as one object; instead of these three.
        ca_file: PEM file with the gateway's certificate.
        insecure: Take any certificate (a gateway on this machine).
        settings: All of the session's settings; instead of ``gateway``, ``ca_file`` and ``insecure``.
        clock: Market clock; the machine's by default, corrected by ``timeoffset``.
        timeoffset: Set the machine's clock by the server's: bars close and orders end by that. A difference of a
            second or more is told by the store as ``clock-differs``.
        questions: Which of IBKR's order questions are answered with yes.
        bar_grace_s: Market seconds after a bar's edge at which it is closed by the clock, if no tick has
            shown before that the market has passed the edge.
        connection: The way to the session; by default one in this process.
        journal: File of the order journal; by default one of the account's own in the state directory (mode
            ``sim``: none). ``":memory:"`` for a run that nobody has to remember.
        risk: What may leave; by default ``RiskLimits()``.
        record: Folder that every tick of the live feeds is recorded into, see ``bt_ibkr.recorder``.
        hub: Endpoint of a hub that owns the session, instead of one of this process: ``gateway``, ``settings``,
            ``journal``, ``risk`` and ``questions`` are the hub's then.
        name: The strategy's name at the hub, owner of its orders and its book.
        ibstore: Other parameters of backtrader's ``IBStore`` (``clientId``, ``notifyall``, ``reconnect`` …)
            are taken and have no effect: the Web API has no such things.

    Example::

        store = IBKRStore(gateway="https://localhost:5000/v1/api", insecure=True)
        cerebro.adddata(store.getdata(dataname="IBM-STK-SMART-USD", timeframe=bt.TimeFrame.Minutes))
        cerebro.setbroker(store.getbroker())
        with store:
            cerebro.run()
    """

    def __init__(
        self,
        gateway: str = DEFAULT_GATEWAY,
        *,
        host: str | None = None,
        port: int | None = None,
        mode: Literal["paper", "live"] | None = None,
        account: str | None = None,
        confirm_account: str | None = None,
        guard: AccountGuard | None = None,
        ca_file: str | None = None,
        insecure: bool = False,
        settings: SessionSettings | None = None,
        clock: Clock | None = None,
        timeoffset: bool = True,
        questions: QuestionPolicy | None = None,
        bar_grace_s: float = 1.5,
        connection: Connection | None = None,
        journal: str | Path | JournalInMemory | None = None,
        risk: RiskLimits | None = None,
        record: str | Path | None = None,
        hub: str | HubAddress | None = None,
        name: str | None = None,
        **ibstore: Any,
    ) -> None:
        check_ibstore(ibstore)
        if host is not None or port is not None:
            gateway = gateway_at(gateway, host, port)
        if settings is None:
            settings = SessionSettings(
                base_url=rest_base(gateway), trust=Trust(ca_file=ca_file, insecure=insecure)
            )
        elif gateway != DEFAULT_GATEWAY or ca_file or insecure:
            raise UsageError(
                "IBKRStore: `settings` was given beside `gateway`, `ca_file` or `insecure`.",
                remedy="Put them into the settings.",
            )
        if guard is None:
            guard = AccountGuard(mode, account=account, confirm_account=confirm_account)
        elif mode or account or confirm_account:
            raise UsageError(
                "IBKRStore: `guard` was given beside `mode`, `account` or `confirm_account`.",
                remedy="Put them into the guard.",
            )
        if clock is None:
            clock = ServerClock(SystemClock()) if timeoffset else SystemClock()
        self._guard = guard
        self._record = record
        #: Writes the recording, where one is wanted and the store is open.
        self.recorder: TickRecorder | None = None
        #: Of the server, and the way to log on; no secret.
        self._address = f"{settings.base_url} ({type(settings.login).__struct_config__.tag})"
        self._wake = WakeUp()
        #: The strategy's name at a hub.
        self.name: str | None = None
        if hub is not None:
            theirs = {
                "gateway": gateway != DEFAULT_GATEWAY,
                "journal": journal,
                "risk": risk,
                "questions": questions,
            }
            address = hub_address(hub, name, {word for word, given in theirs.items() if given})
            self.name, self._address = address.name, f"the hub at {address.endpoint}"
            connection = connection or address.connect(self._wake, clock)
        self.connection: Connection = connection or DirectConnection(
            settings,
            self._wake,
            clock=clock,
            policy=questions,
            journal=journal_place(journal, guard.mode),
            risk=risk,
        )
        self._grace_ns = int(bar_grace_s * NS_PER_S)
        self._tick_backlog = settings.tick_backlog
        self._events: Mailbox[StoreEvent] = Mailbox(self._wake)
        self._notifications: deque[tuple[Any, tuple[Any, ...], dict[str, Any]]] = deque()
        self.cycle = Cycle(
            self.connection,
            self._wake,
            self._events,
            self._take_events,
            self._notifications,
            grace_ns=self._grace_ns,
        )
        self._feeds = self.cycle.feeds
        self._broker: IBKRBroker | None = None
        self._opened = False
        self._streaming = False
        self._closed = False
        self._account: str | None = None

    # -- made by users -----------------------------------------------------------------------------

    def getdata(self, **kwargs: Any) -> IBKRData:
        """A feed of this store.

        Args:
            kwargs: Parameters of ``IBKRData`` (``dataname``, ``timeframe`` …), and ``extra``: names of further lines,
                such as ``("bid", "delta")``; see ``feeds.extra_lines.feed_class``.
        """
        from bt_ibkr.feeds.extra_lines import feed_class

        extra = kwargs.pop("extra", ())
        names = (extra,) if isinstance(extra, str) else tuple(dict.fromkeys(extra))
        return feed_class(names)(store=self, **kwargs)

    def getchain(
        self,
        underlying: str,
        *,
        progress: ChainProgress | None = None,
        feed: Mapping[str, Any] | None = None,
        **request: Any,
    ) -> dict[ChainKey, IBKRData]:
        """A feed for each contract of an option chain, by ``(expiry, strike, right)``; add those that are wanted.

        Args:
            underlying: Dataname of the stock, index or future.
            progress: Told how many requests are done, of how many; on another thread.
            feed: Parameters of each feed, as of ``getdata``.
            request: What of the chain, as ``services.chains.ChainRequest``: ``months``, ``around``, ``right`` …

        Raises:
            ContractNotFoundError: There is no such chain.
            LinesError: It has more contracts than market-data lines are left.
        """
        from bt_ibkr.feeds.chain import chain_feeds

        self.start()
        contract = self.connection.resolve(parse_dataname(underlying))
        asked = ChainRequest(underlying=contract, **request)
        return chain_feeds(self, asked, progress, **dict(feed or {}))

    def getdepth(self, *, levels: int = 5, **kwargs: Any) -> DepthData:
        """A feed of an instrument's book, with so many prices a side; the parameters of ``DepthData``."""
        from bt_ibkr.feeds.depth import depth_feed

        return depth_feed(levels)(store=self, **kwargs)

    def scan(
        self,
        scan_type: str,
        *,
        instrument: str = "STK",
        location: str = "STK.US.MAJOR",
        filters: Mapping[str, float | str] | None = None,
        most: int = 50,
    ) -> tuple[ScanRow, ...]:
        """What a market scanner finds, best first; ``row.dataname`` of each is one for ``getdata``.

        Args:
            scan_type: What to rank by, in IBKR's codes, as ``MOST_ACTIVE``; ``bt-ibkr scan --list`` shows all.
            instrument, location, filters: As ``model.scanner.ScanRequest``.
            most: So many rows at most, of 50.

        Raises:
            SessionError: The session cannot be opened.
            UsageError: A code that IBKR does not know.
        """
        self.start()
        asked = tuple((filters or {}).items())
        return self.connection.scan(
            ScanRequest(
                scan_type=scan_type, instrument=instrument, location=location, filters=asked, most=most
            )
        )

    def getbroker(self, **kwargs: Any) -> IBKRBroker:
        """The broker of this store; there is one."""
        from bt_ibkr.brokers.ibkr_broker import IBKRBroker

        if self._broker is None:
            self._broker = self.cycle.broker = IBKRBroker(store=self, **kwargs)
        elif kwargs:
            raise UsageError("IBKRStore.getbroker: the broker exists already; its parameters cannot change.")
        return self._broker

    def __enter__(self) -> IBKRStore:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close(at_once=kind is not None and not issubclass(kind, Exception))

    def close(self, *, at_once: bool = False) -> None:
        """End the session. backtrader does not stop stores after an exception, so call this (or use ``with``).

        Args:
            at_once: Do not wait for the answers to orders that were sent last.
        """
        if self._closed:
            return
        self._closed = True
        try:
            if self._broker is not None and not at_once:
                self._broker.drain(_LAST_ANSWERS_S)
        finally:
            try:
                # First: the end of the session is no break of its stream.
                if self.recorder is not None:
                    self.recorder.close(time_ns=self.connection.clock.now_ns(), over=self.cycle.finishing)
            finally:
                self.connection.close()

    # -- life (called by cerebro, feeds and broker) --------------------------------------------------

    @property
    def wake(self) -> WakeUp:
        return self._wake

    @property
    def grace_ns(self) -> int:
        """See ``bar_grace_s``."""
        return self._grace_ns

    @property
    def tick_backlog(self) -> int:
        """How many ticks may wait for a feed one by one; 0 for any number."""
        # A market whose clock moves with its reader is never too fast for it, and must repeat exactly.
        waits = math.isinf(self.connection.clock.wall_s(1))
        return 0 if waits else self._tick_backlog

    def take_over(self) -> None:
        """Take the brokerage session from the other login of the user that has it, once.

        The word that ``SessionSettings(competing="ask")`` waits for; with the other policies it allows one more
        take-over. From any thread; returns at once, what comes of it is told as a change of state.

        Raises:
            SessionError: The store is not open.
        """
        self.connection.take_over()

    def metrics(self) -> Metrics:
        """What the session and the feeds have counted so far, and how the request gate stands."""
        backlogs = [feed.backlog for feed in self._feeds]
        return msgspec.structs.replace(
            self.connection.metrics(),
            ticks_conflated=sum(one.conflated for one in backlogs),
            ticks_dropped=sum(one.dropped for one in backlogs),
            slow_episodes=sum(one.episodes for one in backlogs),
        )

    def tell_ticks(self, report: TicksConflated) -> None:
        """A feed's reader fell behind, or caught up; from any thread."""
        self._events.append(report)

    def _tell_recording(self, text: str) -> None:
        """Something befell the recording; from any thread."""
        self._events.append(SessionNotice("recording", text))

    @property
    def guard(self) -> AccountGuard:
        """Which accounts may be traded."""
        return self._guard

    @property
    def account(self) -> str:
        """The account traded in; known once the store has started."""
        if self._account is None:
            raise SessionError("The store has not been started: its account is not known yet.")
        return self._account

    def register(self, feed: StoreFeed) -> None:
        """Take a feed in; called by the feed when cerebro adds it."""
        # backtrader gives feeds an `==` that builds an indicator: compare by identity.
        if not any(known is feed for known in self._feeds):
            self._feeds.append(feed)

    def start(self, data: Any = None, broker: Any = None) -> None:
        """Open the session, once; cerebro, each feed and the broker call it.

        Raises:
            SessionError: It cannot be opened.
            UsageError: The wanted account is not the login's.
            NotArmedError: The account may not be traded in this mode, or not by a broker.
        """
        self._open()
        if broker is not None:
            self._guard.check_orders(self._standing())
        if data is not None and self._broker is not None:
            self._broker.data_started(data)
        if data is not None and self.recorder is not None:
            self._record_of(data)

    def _record_of(self, data: Any) -> None:
        """Record what a live feed is about to subscribe to, from the first tick on."""
        assert self.recorder is not None
        live = hasattr(data.p, "historical") and not data.p.historical
        if live and data.contract is not None and not self.recorder.records(data.contract):
            sink = self.recorder.sink(data.contract, data.query.text)
            self.connection.subscribe_ticks(data.contract, sink)

    def _open(self) -> None:
        if self._opened:
            return
        if self._closed:
            raise SessionError("This store was closed.", remedy="Make a new store for another run.")
        self.connection.open(self._events)
        try:
            if self._record is not None:
                # Parquet takes long to load.
                from bt_ibkr.recorder import TickRecorder

                self.recorder = TickRecorder(self._record, told=self._tell_recording)
            accounts = self.connection.accounts()
            if not accounts:
                raise SessionError("This login has no account.")
            self._account = self._guard.choose(accounts)
            if self._guard.announce is None and self._guard.mode in ("paper", "live"):
                self._guard.announce = self._announce
            self._guard.admit(self._standing())
        except BaseException:
            self._account = None
            self.close()
            raise
        self._opened = True

    def _standing(self) -> Standing:
        connection = self.connection
        return Standing(accounts=connection.accounts(), account=self.account, is_paper=connection.is_paper())

    def _announce(self, standing: Standing) -> None:
        """The banner, where nobody else shows one: before the first order can leave, in the log."""
        told = []
        for query in (feed.query for feed in self._feeds):
            if query is None:
                continue
            try:
                code = self.connection.availability(self.connection.resolve(query))
            except BtIbkrError as problem:
                # The feed itself will say what is wrong with it.
                told.append(f"{query.text}: {problem.message}")
            else:
                told.append(f"{query.text}: {quality(code).name.lower().replace('_', ' ')}")
        _log.warning(
            "trading mode=%s account=%s kind=%s connection=%s data=%s",
            self._guard.mode,
            standing.account,
            standing.kind,
            self._address,
            "; ".join(told) or "none followed yet",
        )

    def stop(self) -> None:
        """Called by cerebro at the end of a run."""
        self.close()

    def put_notification(self, msg: Any, *args: Any, **kwargs: Any) -> None:
        """Something for ``notify_store``."""
        self._notifications.append((msg, args, kwargs))

    # -- the cycle ---------------------------------------------------------------------------------

    def finish(self, after: Progress | None = None) -> None:
        """See ``Cycle.finish``."""
        self.cycle.finish(after)

    def drained(self) -> bool:
        """See ``Cycle.drained``."""
        return self.cycle.drained()

    @property
    def finishing(self) -> bool:
        """The market is over."""
        return self.cycle.finishing

    def interrupt(self) -> None:
        """End the present wait, so that cerebro sees ``runstop``; may be called from a signal handler."""
        self.cycle.stop_asked = True
        self._wake.set()

    def set_idle_hook(self, hook: IdleHook | None) -> None:
        """See ``IdleHook``."""
        self.cycle.idle_hook = hook

    def at_rest(self) -> bool:
        """See ``Cycle.at_rest``."""
        return self.cycle.at_rest()

    @property
    def cutoff_ns(self) -> int | None:
        """See ``Cycle``."""
        return self.cycle.cutoff_ns

    def market_ns(self) -> int:
        """See ``Cycle.market_ns``."""
        return self.cycle.market_ns()

    def get_notifications(self) -> Iterable[tuple[Any, tuple[Any, ...], dict[str, Any]]]:
        """Wait for something to do, fix the cutoff, and hand over what is for ``notify_store``."""
        if self._opened and not self._closed:
            self.cycle.await_work()
        if not self._notifications:
            return ()
        taken = list(self._notifications)
        self._notifications.clear()
        return taken

    def _take_events(self) -> None:
        while True:
            event = self._events.take()
            if event is None:
                return
            if isinstance(event, SessionNotice):
                self.put_notification(event.kind, event)
                continue
            if isinstance(event, GapReported):
                self.put_notification("gap", event)
                continue
            if isinstance(event, TicksConflated):
                self.put_notification("caught up" if event.over else "conflated", event)
                continue
            self.put_notification(event.state, event)
            if event.connected is self._streaming:
                # A step on the way up or down: the feeds have what they had.
                continue
            self._streaming = event.connected
            if event.connected and self._opened:
                self._guard.still_holds(self._standing())
            for feed in self._feeds:
                feed.session_changed(event)
