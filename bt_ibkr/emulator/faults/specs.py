"""What can be made to go wrong: one frozen type per ``kind`` of the control API, wrong input refused.

Times are wall seconds. A ``count`` of 0 means until the fault is cleared.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from bt_ibkr.emulator.faults.base import Count, Seconds, Spec, Tiers
from bt_ibkr.emulator.faults.order_specs import (
    Answers,
    Bracket,
    Commissions,
    NewOrderId,
    OrderList,
    OrderStatusFails,
    Positions,
    QuestionEnds,
    Questions,
    Replies,
    Trades,
)

# --- HTTP ------------------------------------------------------------------------------------------


class Http(Spec, frozen=True, kw_only=True, tag="http"):
    """What happens to the next ``count`` requests that match, after the first ``skip``.

    Attributes:
        action: ``delay`` the answer; ``lose`` it (closed without one); ``reset`` the connection; ``hold`` it
            open without a word; or answer with a ``status``, an ``html`` page, ``malformed`` JSON, an ``empty``
            body, or 200 and ``{"error": text}`` (``error``).
        method, path: Which requests; ``path`` is below ``/v1/api``, ``*`` in it stands for anything.
        processed: Whether the request is carried out first. By default ``delay``, ``lose`` and ``hold`` carry
            it out, the others do not.
        delay_s: Of ``delay``; of ``hold`` how long, 0 until cleared.
        status: Of an answer; by default 500, 503 for ``html``, 200 for the rest.
        text: Of ``status`` and ``error``.
    """

    action: Literal["delay", "lose", "reset", "hold", "status", "html", "malformed", "empty", "error"]
    method: str = "*"
    path: str = "*"
    count: Count = 1
    skip: Count = 0
    processed: bool | None = None
    delay_s: Seconds = 0.0
    status: Annotated[int, Meta(ge=200, le=599)] | None = None
    text: str = ""


class Slow(Spec, frozen=True, kw_only=True, tag="slow"):
    """Every answer comes ``delay_s`` late."""

    delay_s: Annotated[float, Meta(gt=0, le=86_400)]
    path: str = "*"


# --- WebSocket: the socket -------------------------------------------------------------------------


class Close(Spec, frozen=True, kw_only=True, tag="ws_close"):
    """Close sockets with a close frame; all of them, or the one with the client's ``port``."""

    code: Annotated[int, Meta(ge=1000, le=4999)] = 1000
    reason: Annotated[str, Meta(max_length=100)] = ""
    port: int | None = None

    def __post_init__(self) -> None:
        if self.code in (1004, 1005, 1006, 1015) or 1016 <= self.code <= 2999:
            raise ValueError(f"code {self.code} cannot be sent")


class Reset(Spec, frozen=True, kw_only=True, tag="ws_reset"):
    """Reset sockets (TCP RST)."""

    port: int | None = None


class Stall(Spec, frozen=True, kw_only=True, tag="ws_stall"):
    """Half-open sockets: nothing is read or written, nothing is closed. 0 seconds: until cleared."""

    port: int | None = None
    for_s: Seconds = 0.0


class Storm(Spec, frozen=True, kw_only=True, tag="ws_storm"):
    """Drop every socket each ``every_s``, for ``for_s`` altogether."""

    every_s: Annotated[float, Meta(ge=0.01, le=3600)] = 2.0
    for_s: Annotated[float, Meta(gt=0, le=86_400)] = 600.0
    how: Literal["reset", "close"] = "reset"

    @property
    def uses(self) -> int | None:
        return max(1, round(self.for_s / self.every_s))


class Greeting(Spec, frozen=True, kw_only=True, tag="greeting"):
    """What the next ``count`` sockets find: the first frame ``delay_s`` late, ``never``, or ``waiting``
    (``{"message": "waiting for session"}`` first, the greeting ``delay_s`` later)."""

    action: Literal["delay", "never", "waiting"]
    delay_s: Seconds = 0.0
    count: Count = 1


# --- WebSocket: frames -----------------------------------------------------------------------------


class Frames(Spec, frozen=True, kw_only=True, tag="frames"):
    """What happens to the next ``count`` frames of a topic.

    Attributes:
        action: ``drop``, ``delay`` by ``delay_s``, ``duplicate``, ``reorder`` (``count`` frames are held,
            then sent in another order) or ``corrupt``.
        topic: ``smd``, ``smd+265598``, ``sor`` …; ``hb`` for heartbeats, ``*`` for all but heartbeats.
        corrupt: How: ``truncate`` the JSON, put an ``utf8`` error into a text frame, send ``binary`` noise,
            a ``giant`` frame, or ``deep`` nesting.
        size: Bytes of a giant frame, levels of a deep one; 0 for 50 MB and 100,000.
        port: Only on the socket with this client port.
    """

    action: Literal["drop", "delay", "duplicate", "reorder", "corrupt"]
    topic: Annotated[str, Meta(min_length=1)] = "*"
    count: Count = 1
    delay_s: Seconds = 0.0
    corrupt: Literal["truncate", "utf8", "binary", "giant", "deep"] = "truncate"
    size: Annotated[int, Meta(ge=0, le=60_000_000)] = 0
    port: int | None = None

    def __post_init__(self) -> None:
        if self.action == "reorder" and self.count < 2:
            raise ValueError("reorder needs a count of 2 or more")
        if self.action == "delay" and not self.delay_s:
            raise ValueError("delay needs delay_s")


class Silence(Spec, frozen=True, kw_only=True, tag="silence"):
    """One topic says nothing more; ``hb`` for heartbeats alone."""

    topic: Annotated[str, Meta(min_length=1)]
    port: int | None = None


# --- the session -----------------------------------------------------------------------------------


class Expire(Spec, frozen=True, kw_only=True, tag="expire"):
    """The brokerage session ends, or with ``outer`` the login too.

    ``told`` false: sockets are not told, as after the nightly break.
    """

    outer: bool = False
    told: bool = True


class Compete(Spec, frozen=True, kw_only=True, tag="compete"):
    """Another login takes the brokerage session. ``compete: true`` takes it back; the rival takes it again
    ``rematches`` times, each ``delay_s`` after it was lost."""

    rematches: Count = 0
    delay_s: Seconds = 0.5


class ForceCompete(Spec, frozen=True, kw_only=True, tag="force_compete"):
    """``ssodh/init`` without ``compete: true`` fails with the real server's words, in ``fail``."""

    count: Count = 0


class InitFails(Spec, frozen=True, kw_only=True, tag="init_fails"):
    """The next inits answer 200 with ``authenticated: false``."""

    count: Count = 1
    fail: str = ""


class StatusFalse(Spec, frozen=True, kw_only=True, tag="status_false"):
    """The next ``auth/status`` say ``authenticated: false`` although the session is fine."""

    count: Count = 1


class NoBridge(Spec, frozen=True, kw_only=True, tag="no_bridge"):
    """After the next ``count`` inits the first ``calls`` requests below ``/iserver`` find no bridge yet."""

    calls: Annotated[int, Meta(ge=1, le=10_000)] = 1
    count: Count = 1


class AccountsAgain(Spec, frozen=True, kw_only=True, tag="accounts_again"):
    """``Please query /accounts first``, out of the blue."""


class SessionId(Spec, frozen=True, kw_only=True, tag="session_id"):
    """``/tickle`` tells another session id; nothing else changes."""


class TwoFactor(Spec, frozen=True, kw_only=True, tag="two_factor"):
    """The login waits for its second factor until this is cleared; then the session is as in ``then``.

    ``hits`` counts the attempts to open a brokerage session meanwhile.
    """

    then: Tiers = "no_bridge"


class NightlyReset(Spec, frozen=True, kw_only=True, tag="nightly_reset"):
    """The nightly break, now: subscriptions end without a word while heartbeats go on, the session id changes,
    ``/accounts`` must be asked again, suppressions are forgotten. ``then`` is the session afterwards."""

    then: Tiers = "ready"


class Maintenance(Spec, frozen=True, kw_only=True, tag="maintenance"):
    """Nobody is logged in and nobody can log in, until cleared; then the session is as in ``then``."""

    then: Tiers = "no_bridge"


class Restart(Spec, frozen=True, kw_only=True, tag="restart"):
    """The gateway is gone for ``down_s``: sockets break, connections are refused.

    With TLS it comes back with the ``same`` certificate, a ``new`` one, or one that has ``expired``.
    """

    down_s: Annotated[float, Meta(ge=0, le=3600)] = 1.0
    certificate: Literal["same", "new", "expired"] = "same"
    then: Tiers = "no_bridge"


# --- clock and data --------------------------------------------------------------------------------


class Skew(Spec, frozen=True, kw_only=True, tag="skew"):
    """The server's clock is ``offset_s`` ahead: ``Date``, heartbeats, ``tic`` and ``_updated``."""

    offset_s: Annotated[float, Meta(ge=-86_400, le=86_400)]


class Quality(Spec, frozen=True, kw_only=True, tag="quality"):
    """Field 6509 of one instrument, or of all: ``DPB``, ``ZB``, ``N`` …

    Frozen data (``Z``, ``Y``) stand still, and of what is not subscribed (``N``, ``O``) no values are told.

    Attributes:
        delay_s: Market seconds by which the data are late.
    """

    code: Annotated[str, Meta(pattern="^[A-Za-z]{1,4}$")]
    conid: int | None = None
    delay_s: Seconds = 0.0


class NotEntitled(Spec, frozen=True, kw_only=True, tag="not_entitled"):
    """No market data permission: ``smd`` is mute, a snapshot says ``N/A``."""

    conid: int


class History(Spec, frozen=True, kw_only=True, tag="history"):
    """What happens to requests for historical bars, ``count`` times, or until cleared.

    Attributes:
        action: ``warm_up`` fails with ``status``; ``permission`` refuses for good; ``start`` takes ``startTime``
            for the window's beginning; ``stale`` answers with the bars of ``days`` before; ``empty`` has none;
            ``cut`` tells ``most`` bars at most; ``slow`` works ``delay_s`` on each request, which counts as
            one of those under way.
        conid: Of one instrument; without one of all.
    """

    action: Literal["warm_up", "permission", "start", "stale", "empty", "cut", "slow"]
    conid: int | None = None
    count: Count = 0
    status: Literal[404, 500, 503] = 500
    days: Annotated[int, Meta(ge=1, le=20_000)] = 1010
    most: Annotated[int, Meta(ge=1, le=1000)] = 100
    delay_s: Seconds = 0.0


class BarCorrection(Spec, frozen=True, kw_only=True, tag="bar_correction"):
    """The minute of trades that starts at ``start_ns`` is another one from now on, with what is given here."""

    conid: int
    start_ns: int
    open: float | None = None
    high: float | None = None
    low: float | None = None
    close: float | None = None
    volume: float | None = None


AnySpec = (
    Http
    | Slow
    | Close
    | Reset
    | Stall
    | Storm
    | Greeting
    | Frames
    | Silence
    | Expire
    | Compete
    | ForceCompete
    | InitFails
    | StatusFalse
    | NoBridge
    | AccountsAgain
    | SessionId
    | TwoFactor
    | NightlyReset
    | Maintenance
    | Restart
    | Skew
    | Quality
    | NotEntitled
    | History
    | BarCorrection
    | Questions
    | Replies
    | QuestionEnds
    | Bracket
    | Answers
    | NewOrderId
    | OrderList
    | OrderStatusFails
    | Trades
    | Commissions
    | Positions
)
