"""What the hub tells people about itself."""

from __future__ import annotations

from decimal import Decimal

import msgspec

from bt_ibkr.connection.metrics import Metrics
from bt_ibkr.hub.books import BookView
from bt_ibkr.model.trading import TradingState


class PeerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One strategy process.

    Attributes:
        name, role, host, pid, version: As it said.
        state: ``live``, ``silent`` (its beats are late), ``lost`` (taken as gone) or ``left``.
        silent_s: Wall seconds since it was last heard.
        since_ns: Wall time of its ``Hello``.
        unheard: Messages told and not acknowledged.
        behind: Ticks published for it and not received yet, in its worst topic.
        waiting: Ticks it received and has not taken in.
        lost, mended: Ticks it found missing, and those of them made good.
        slow: It is behind by more than the hub takes as healthy.
        topics: What it subscribed, as datanames.
        orders, orders_per_minute, refused: Submissions so far, in the last minute, and those refused to it.
    """

    name: str
    role: str
    host: str
    pid: int
    version: str
    state: str
    silent_s: float
    since_ns: int
    unheard: int
    behind: int
    waiting: int
    lost: int
    mended: int
    slow: bool
    topics: tuple[str, ...]
    orders: int
    orders_per_minute: float
    refused: int


class TopicStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One stream of ticks.

    Attributes:
        ticks, ticks_per_s: Published so far, and per second in the last seconds.
        subscribers: Names.
        conflate_s: 0 if every tick is published.
        kind: ``ticks``, or ``book``: the book of prices.
    """

    name: str
    conid: int
    ticks: int
    ticks_per_s: float
    subscribers: tuple[str, ...]
    conflate_s: float = 0.0
    kind: str = "ticks"


class Total(msgspec.Struct, frozen=True, kw_only=True):
    """What an account has of a contract: all of its books together."""

    account: str
    conid: int
    quantity: Decimal


class Harm(msgspec.Struct, frozen=True, kw_only=True):
    """Messages that were refused, counted; none of them did anything."""

    malformed: int = 0
    oversized: int = 0
    replayed: int = 0
    unauthorised: int = 0
    unknown: int = 0
    incompatible: int = 0


class HubStatus(msgspec.Struct, frozen=True, kw_only=True):
    """All of it at one moment.

    Attributes:
        names: Of contracts in books, by conid, as far as the hub knows them.
        viewer: The strategy that this was made for: peers, streams and books are its own, accounts and totals those
            that it may use; empty for who sees all.
        totals: What the accounts have.
        health: Where ``/livez`` and ``/readyz`` answer; empty if nowhere.
        trading: Whether orders may leave; ``None`` where the hub takes none.
    """

    hub: str
    version: str
    protocol: int
    pid: int
    since_ns: int
    session: Metrics
    connected: bool
    accounts: tuple[str, ...]
    peers: tuple[PeerStatus, ...]
    topics: tuple[TopicStatus, ...]
    books: tuple[BookView, ...]
    harm: Harm
    totals: tuple[Total, ...] = ()
    viewer: str = ""
    names: dict[int, str] = {}
    health: str = ""
    trading: TradingState | None = None
