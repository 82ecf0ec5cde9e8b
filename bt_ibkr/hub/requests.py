"""What can be asked of the hub, and what it tells: kinds of messages and the types of their bodies."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import msgspec

from bt_ibkr.connection import interface as events
from bt_ibkr.connection.metrics import Metrics
from bt_ibkr.hub.books import BookView, Transfer
from bt_ibkr.hub.status import HubStatus
from bt_ibkr.model.calendar import TradingDay
from bt_ibkr.model.contract import Contract
from bt_ibkr.model.intent import OrderIntent, OrderState
from bt_ibkr.model.market import Bar, Quote
from bt_ibkr.model.order import Execution, OrderTicket
from bt_ibkr.model.portfolio import LedgerLine, Position
from bt_ibkr.model.scanner import ScannerParameters, ScanRequest, ScanRow
from bt_ibkr.model.trading import TradingState
from bt_ibkr.services.chains import ChainRequest
from bt_ibkr.services.datanames import ContractQuery
from bt_ibkr.services.history import HistoryRequest
from bt_ibkr.wire.contract_rules import ContractRules
from bt_ibkr.wire.order_answers import WhatIf


class Subscribe(msgspec.Struct, frozen=True, kw_only=True):
    """Ticks of a contract.

    Attributes:
        conflate_s: Above 0: of each such stretch of time one tick, the newest, with all that was traded in it.
        extras: See ``Connection.subscribe_ticks``.
    """

    contract: Contract
    conflate_s: float = 0.0
    extras: frozenset[str] = frozenset()


class SubscribeDepth(msgspec.Struct, frozen=True, kw_only=True):
    """The book of a contract in an account's ladder: a topic whose messages are numbers and ``DepthBook``."""

    contract: Contract
    account: str


class Subscribed(msgspec.Struct, frozen=True, kw_only=True):
    """Where the ticks come.

    Attributes:
        topic: To subscribe to on the tick channel.
        head: Number of the newest message so far.
        last: That message; ``None`` if there was none.
    """

    topic: bytes
    head: int
    last: bytes | None


class Missed(msgspec.Struct, frozen=True, kw_only=True):
    """Messages ``first`` to ``last`` of a topic, once more."""

    topic: bytes
    first: int
    last: int


class Repeated(msgspec.Struct, frozen=True, kw_only=True):
    """What the hub still has of them: from ``first`` on."""

    topic: bytes
    first: int
    messages: tuple[bytes, ...]


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Orders as one submission."""

    intents: tuple[OrderIntent, ...]


class Modify(msgspec.Struct, frozen=True, kw_only=True):
    """See ``Connection.modify``."""

    key: str
    ticket: OrderTicket


class SetExpiry(msgspec.Struct, frozen=True, kw_only=True):
    """See ``Connection.set_expiry``."""

    key: str
    expires_ns: int | None


class Halt(msgspec.Struct, frozen=True, kw_only=True):
    """See ``Connection.halt``."""

    state: TradingState
    cancel_open: bool
    flatten: bool


class Attach(msgspec.Struct, frozen=True, kw_only=True):
    """See ``Connection.attach_account``; with ``external``, other programs' orders and executions are told, too."""

    account: str
    external: bool = True


class CatchUp(msgspec.Struct, frozen=True, kw_only=True):
    """After a hub was restarted: what became of orders, and what executed.

    Attributes:
        keys: Orders of the strategy of which it may not have heard all.
        external: See ``Attach``.
    """

    account: str
    keys: tuple[str, ...]
    external: bool = True


class OrderKnown(msgspec.Struct, frozen=True, kw_only=True):
    """An order as the hub's journal has it."""

    key: str
    state: OrderState
    order_id: str | None
    ticket: OrderTicket
    text: str = ""


class CaughtUp(msgspec.Struct, frozen=True, kw_only=True):
    """See ``CatchUp``.

    Attributes:
        orders: Those that the journal has; one that is missing never reached it.
        executions: All of these orders that count, each with its key.
        positions, ledger: Of the strategy's book.
    """

    orders: tuple[OrderKnown, ...]
    executions: tuple[tuple[str, Execution], ...]
    positions: tuple[Position, ...]
    ledger: tuple[LedgerLine, ...]
    trading: TradingState | None = None


class ProgressNow(msgspec.Struct, frozen=True, kw_only=True):
    """How far the hub has taken the stream in, and what it made of it for the asking strategy.

    Attributes:
        port, frames: See ``Progress``.
        told: Number of the last message for the strategy.
        heads: Number of the newest tick, by topic.
        in_flight: Requests of the strategy, and work of the session, that are not done.
    """

    port: int
    frames: int
    told: int
    heads: dict[bytes, int]
    in_flight: int
    stream_ns: int


class Kind(NamedTuple):
    """A kind of request."""

    body: Any
    answer: Any
    #: Orders: refused to who may only read.
    trades: bool = False
    #: Answered to observers, too.
    observers: bool = False
    #: What it asks may be too old to be done.
    ages: bool = False


REQUESTS: Final[dict[str, Kind]] = {
    "resolve": Kind(ContractQuery, Contract),
    "availability": Kind(Contract, str),
    "subscribe": Kind(Subscribe, Subscribed),
    "subscribe-depth": Kind(SubscribeDepth, Subscribed),
    "unsubscribe": Kind(bytes, None),
    "quote": Kind(Contract, Quote | None),
    "scan": Kind(ScanRequest, tuple[ScanRow, ...]),
    "scanner-parameters": Kind(None, ScannerParameters),
    "contract-rules": Kind(Contract, ContractRules),
    "schedule": Kind(Contract, tuple[TradingDay, ...]),
    "chain": Kind(ChainRequest, tuple[Contract, ...]),
    "missed": Kind(Missed, Repeated),
    "history": Kind(HistoryRequest, tuple[Bar, ...]),
    "attach": Kind(Attach, events.AccountSnapshot),
    "catch-up": Kind(CatchUp, CaughtUp),
    "place": Kind(Place, None, trades=True, ages=True),
    "modify": Kind(Modify, None, trades=True, ages=True),
    "set-expiry": Kind(SetExpiry, None, trades=True),
    "cancel": Kind(str, None, trades=True),
    "reconcile": Kind(str, None),
    "what-if": Kind(OrderTicket, WhatIf, trades=True),
    "halt": Kind(Halt, None, trades=True, ages=True),
    "take-over": Kind(None, None, trades=True),
    "metrics": Kind(None, Metrics, observers=True),
    "progress": Kind(None, ProgressNow),
    "renew-due": Kind(None, None),
    "status": Kind(None, HubStatus, observers=True),
    "books": Kind(None, tuple[BookView, ...], observers=True),
    "transfer": Kind(Transfer, None, observers=True),
}

#: What the hub tells of an account.
ACCOUNT_EVENTS: Final[dict[str, Any]] = {
    kind.__name__: kind
    for kind in (
        events.OrderPlaced,
        events.OrderFailed,
        events.OrderModified,
        events.ModifyFailed,
        events.CancelFailed,
        events.OrderChanged,
        events.ExecutionReported,
        events.CommissionReported,
        events.LedgerChanged,
        events.Reconciled,
        events.TradingChanged,
    )
}
#: What it tells of the session.
STORE_EVENTS: Final[dict[str, Any]] = {
    kind.__name__: kind for kind in (events.SessionChanged, events.SessionNotice, events.GapReported)
}
