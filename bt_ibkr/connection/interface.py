"""What feeds, broker and store know of the session: one small interface.

Calls block the caller's (cerebro's) thread and raise; commands return at once and answer through a mailbox.
All events are frozen.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from bt_ibkr.clock import Clock
from bt_ibkr.connection.mailbox import Mailbox
from bt_ibkr.connection.metrics import Metrics
from bt_ibkr.errors import BtIbkrError
from bt_ibkr.model.calendar import TradingDay
from bt_ibkr.model.contract import Contract
from bt_ibkr.model.intent import OrderIntent
from bt_ibkr.model.market import Bar, Quote
from bt_ibkr.model.order import Execution, OrderReport, OrderStatus, OrderTicket
from bt_ibkr.model.portfolio import LedgerLine, Position
from bt_ibkr.model.scanner import ScannerParameters, ScanRequest, ScanRow
from bt_ibkr.model.trading import TradingState
from bt_ibkr.services.chains import ChainProgress, ChainRequest
from bt_ibkr.services.datanames import ContractQuery
from bt_ibkr.services.depth import DepthSink
from bt_ibkr.services.history import HistoryRequest
from bt_ibkr.services.marketdata import TickSink
from bt_ibkr.wire.contract_rules import ContractRules
from bt_ibkr.wire.order_answers import WhatIf


class SessionChanged(msgspec.Struct, frozen=True):
    """The session's state changed.

    Attributes:
        state: The value of a ``SessionState``: ``streaming``, ``disconnected``, ``needs a person`` …
        cause: Why, in words.
        next_step: What happens next, or what somebody has to do.
        connected: Whether market data and reports stream now.
        since_ns: Where the stream was lost: market time up to which it is known to have been whole; else 0.
    """

    state: str
    cause: str
    next_step: str = ""
    connected: bool = False
    since_ns: int = 0


class SessionNotice(msgspec.Struct, frozen=True):
    """Something the session has to tell that changes no state.

    Attributes:
        kind: ``notice`` (IBKR's, for people), ``error`` (the stream refused something), ``unreadable`` (a report of
            orders or executions that cannot be understood), ``mute`` (executions that the stream did not tell of),
            ``unread`` (after a break orders and executions could not be read yet), ``reread`` (now they were),
            ``recording`` (what befell a recording of ticks) or ``filled`` (ticks that a hub had to repeat).
        text: In words.
    """

    kind: str
    text: str


class GapReported(msgspec.Struct, frozen=True, kw_only=True):
    """The stream was interrupted and is back: what happened in between did not come through it.

    Attributes:
        start_ns, end_ns: Market time up to which the stream was known to be whole, and from which it is again.
        topics: What was subscribed.
        cause: Of the interruption, in words.
    """

    start_ns: int
    end_ns: int
    topics: tuple[str, ...]
    cause: str


class TicksConflated(msgspec.Struct, frozen=True, kw_only=True):
    """A feed's reader, cerebro's thread, was too slow for its ticks: told when that begins and when it is over.

    Attributes:
        dataname: The feed's.
        start_ns, end_ns: Market time of the first and the newest tick that did not wait by itself.
        count: Ticks merged into others so far, or dropped.
        dropped: Those of them whose prices and volume are in nothing that was kept: the feed begins anew, and takes
            the bars from history.
        over: The reader has caught up.
    """

    dataname: str
    start_ns: int
    end_ns: int
    count: int
    dropped: int
    over: bool


class HistoryArrived(msgspec.Struct, frozen=True):
    """Answer to ``request_history``: the bars, or why there are none."""

    token: int
    bars: tuple[Bar, ...]
    error: BtIbkrError | None = None


class OrderPlaced(msgspec.Struct, frozen=True):
    """The order of ``key`` stands at IBKR under ``order_id``; told again if IBKR gives it another id."""

    key: str
    order_id: str


class OrderFailed(msgspec.Struct, frozen=True):
    """The order of ``key`` was refused, or its outcome is not known yet (``error`` is an ``OutcomeUnknownError``).

    What is not known is looked up until it is: then ``OrderPlaced`` or a further ``OrderFailed`` tells.
    """

    key: str
    error: BtIbkrError


class OrderModified(msgspec.Struct, frozen=True):
    """IBKR took the change: ``ticket`` is what stands now, as far as executions did not overtake it."""

    key: str
    ticket: OrderTicket


class ModifyFailed(msgspec.Struct, frozen=True):
    """A change was refused (the order stands as it was) or its outcome is not known."""

    key: str
    error: BtIbkrError


class CancelFailed(msgspec.Struct, frozen=True):
    """A cancellation was refused or its outcome is not known."""

    key: str
    error: BtIbkrError


class OrderChanged(msgspec.Struct, frozen=True):
    """IBKR reported on an order; ``key`` is ``None`` for an order that this login's strategies did not place."""

    report: OrderReport
    key: str | None = None


class ExecutionReported(msgspec.Struct, frozen=True):
    """An execution, reported for the first time. ``commission`` may still be unknown.

    Attributes:
        key: Of the order; ``None`` for an order that this login's strategies did not place.
        replaces: The execution that this one corrects: its effect is to be taken back first. A bust is a
            correction to quantity 0.
    """

    execution: Execution
    key: str | None = None
    replaces: Execution | None = None


class CommissionReported(msgspec.Struct, frozen=True):
    """The commission of an execution that was reported before."""

    execution: Execution


class LedgerChanged(msgspec.Struct, frozen=True):
    """Cash and values by currency."""

    account: str
    lines: tuple[LedgerLine, ...]


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """Where IBKR and our record do not agree.

    Attributes:
        kind: ``position``, ``order``, ``execution`` or ``cash``.
        subject: The contract, order key or execution it is about.
        recorded: What our record says.
        reported: What IBKR says.
        text: Both, in words, and what was made of it.
    """

    kind: str
    subject: str
    recorded: str
    reported: str
    text: str


class Reconciled(msgspec.Struct, frozen=True, kw_only=True):
    """The account was read again and compared with the record.

    Attributes:
        complete: Whether every reading was whole. If not, nothing was concluded; ``problem`` tells why.
        positions: As IBKR reports them, believed over the record; ``None`` if the reading was not whole, or
            executions are too fresh for IBKR's positions to have followed.
    """

    account: str
    cause: str
    time_ns: int
    complete: bool
    positions: tuple[Position, ...] | None = None
    differences: tuple[Difference, ...] = ()
    problem: str = ""


class TradingChanged(msgspec.Struct, frozen=True):
    """Trading was halted, restricted to reducing positions, or resumed, by whomever."""

    state: TradingState


class StandingOrder(msgspec.Struct, frozen=True, kw_only=True):
    """An order of an earlier run of this login's strategies, as it stands after reconciliation.

    Attributes:
        intent: As it was placed (with the changes that IBKR took since).
        executions: Of the order, oldest first, superseded ones left out.
        open: It may still execute. If not, it ended while nobody watched.
        known: Its outcome is known; an order that is not was sent, but never found.
    """

    intent: OrderIntent
    order_id: str | None
    status: OrderStatus | None
    executions: tuple[Execution, ...] = ()
    open: bool = True
    known: bool = True


class AccountSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """An account as it stood at one moment: what happened before is in it, what comes later is an event.

    Attributes:
        orders: The day's orders of all clients.
        standing: Orders of earlier runs that are open, or that ended since the record was last kept.
        epoch, sequences: What keys of new orders are made of: ``NAME.EPOCH.SEQUENCE``, with the next free
            sequence by name (1 where there is none).
        trading: Whether orders may leave.
        differences: Found between the record and IBKR.
    """

    positions: tuple[Position, ...]
    executions: tuple[Execution, ...]
    orders: tuple[OrderReport, ...]
    ledger: dict[str, LedgerLine]
    standing: tuple[StandingOrder, ...] = ()
    epoch: str = "00000"
    sequences: dict[str, int] = {}
    trading: TradingState | None = None
    differences: tuple[Difference, ...] = ()


AccountEvent = (
    OrderPlaced
    | OrderFailed
    | OrderModified
    | ModifyFailed
    | CancelFailed
    | OrderChanged
    | ExecutionReported
    | CommissionReported
    | LedgerChanged
    | Reconciled
    | TradingChanged
)
FeedEvent = HistoryArrived
StoreEvent = SessionChanged | SessionNotice | GapReported | TicksConflated


class Progress(msgspec.Struct, frozen=True):
    """How far the stream was taken in: the client's port and frames read on that connection."""

    port: int
    frames: int


class Connection(Protocol):
    """The way to the brokerage session, whichever process owns it."""

    @property
    def clock(self) -> Clock: ...

    def open(self, events: Mailbox[StoreEvent]) -> None:
        """Open the session; raises if it cannot be had."""

    def close(self) -> None:
        """End it; may be called twice."""

    def take_over(self) -> None:
        """Take the brokerage session from another login of the user, once; returns at once.

        Raises:
            SessionError: The connection is not open.
        """

    def metrics(self) -> Metrics:
        """What was counted; all but what feeds count. After the end, as it was then."""

    def accounts(self) -> tuple[str, ...]:
        """Account ids of this login, the selected one first."""

    def is_paper(self) -> bool | None:
        """Whether IBKR calls the login's accounts paper; ``None`` if it does not tell."""

    def availability(self, contract: Contract) -> str:
        """Field 6509 of the contract (what data IBKR gives of it); empty if it does not tell."""

    def resolve(self, query: ContractQuery) -> Contract:
        """The contract a dataname means.

        Raises:
            ContractNotFoundError, AmbiguousContractError: None, or several; names to write instead are told.
        """

    def contract_rules(self, contract: Contract) -> ContractRules:
        """How a contract may be traded: order types, times in force, steps of price and size; of a combo nothing."""

    def chain(self, request: ChainRequest, progress: ChainProgress | None = None) -> tuple[Contract, ...]:
        """The options that are asked for; it may take minutes, since IBKR tells them strike by strike.

        Args:
            progress: Told how many requests are done, of how many; on another thread.
        """

    def schedule(self, contract: Contract) -> tuple[TradingDay, ...]:
        """When the contract trades on the days that IBKR tells, about a week; holidays are left out.

        Raises:
            BtIbkrError: IBKR does not tell.
        """

    def subscribe_ticks(
        self, contract: Contract, sink: TickSink, extras: frozenset[str] = frozenset()
    ) -> None:
        """Stream ticks into ``sink``, with ``extras`` beside the quote.

        Args:
            extras: Names of ``wire.tags.EXTRA_LINES`` and ``TEXT_FIELDS``. All who stream a contract share one
                stream, with whatever any of them asked for.

        Raises:
            LinesError: All market-data lines are in use.
            UsageError: ``extras`` has a name that there is not, or the contract is a combo, which has none.
        """

    def unsubscribe_ticks(self, sink: TickSink) -> None:
        """End what ``sink`` subscribed."""

    def quote(self, contract: Contract) -> Quote | None:
        """The whole quote of a contract that streams, and why fields of it are missing; else ``None``."""

    def subscribe_depth(self, contract: Contract, account: str, sink: DepthSink) -> None:
        """Stream the contract's book into ``sink``; an account has one ladder at a time.

        Raises:
            DepthError: The account's ladder shows another contract.
            LinesError: No market-data line is left.
        """

    def unsubscribe_depth(self, sink: DepthSink) -> None:
        """End what ``sink`` subscribed."""

    def scan(self, request: ScanRequest) -> tuple[ScanRow, ...]:
        """The instruments that a scan finds, best first."""

    def scanner_parameters(self) -> ScannerParameters:
        """Codes of scans, kinds of instrument, places and filters; IBKR tells them once in 15 minutes."""

    def stream_ns(self) -> int:
        """The newest server time seen on any tick; 0 before the first."""

    def request_history(self, request: HistoryRequest, token: int, answers: Mailbox[FeedEvent]) -> None:
        """Ask for bars; the answer comes as ``HistoryArrived`` with ``token``."""

    def attach_account(self, account: str, events: Mailbox[AccountEvent]) -> AccountSnapshot:
        """Read ``account`` and stream its orders, executions and cash from that moment on."""

    def place(self, intents: tuple[OrderIntent, ...], events: Mailbox[AccountEvent]) -> None:
        """Send one order, or the orders of one bracket (parent first) or group, as one submission.

        Checked against the risk limits and written to the journal before anything leaves.
        """

    def modify(self, key: str, ticket: OrderTicket, events: Mailbox[AccountEvent]) -> None:
        """Ask for the order of ``key`` to become ``ticket``, the whole order; answered by ``OrderModified`` or
        ``ModifyFailed``."""

    def set_expiry(self, key: str, expires_ns: int | None) -> None:
        """Keep on record, over restarts, when the order of ``key`` is to be cancelled by the broker."""

    def cancel(self, key: str, events: Mailbox[AccountEvent]) -> None:
        """Ask for a cancellation; of an order that has no id yet, as soon as it has one."""

    def reconcile(self, account: str) -> None:
        """Read the account again and compare it with the record; ``Reconciled`` tells."""

    def what_if(self, ticket: OrderTicket) -> WhatIf:
        """Margin and commission that the order would take, asked of IBKR; nothing is placed."""

    def halt(self, state: TradingState, *, cancel_open: bool, flatten: bool) -> None:
        """The kill switch: no further order leaves (by ``state``), and on wish open orders are cancelled and
        positions closed. ``TradingChanged`` tells; ``state`` ACTIVE lets orders leave again."""

    def in_flight(self) -> int:
        """Commands and requests that have not been answered yet."""

    def progress(self) -> Progress:
        """What was read of the stream."""

    def renew_due(self) -> None:
        """Renew subscriptions whose time has come, where the market clock jumps."""
