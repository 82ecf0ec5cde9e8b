"""What hub and strategies say to each other, and its encoding.

Two channels. On the *command channel* (DEALER to ROUTER) every message is one MessagePack map, tagged by ``type``.
What the hub has to tell a strategy is numbered, kept until it is acknowledged, and sent again after a loss; what a
strategy asks is numbered too, and a repeated number is recognised. On the *tick channel* (SUB to XPUB) a message is a
topic, a sequence number and a tick, or a book of prices; see ``ticks``.

Numbers count from 1 each time a process joins, and every message that has one names the joining it belongs to: what
is still under way of an earlier one is nothing to the next. A request that crosses a restart of the hub is asked
again of the new one, which knows orders by their keys in the journal.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable
from typing import Annotated, Any, Final, TypeVar

import msgspec

from bt_ibkr import errors
from bt_ibkr.errors import BtIbkrError, WireError

#: Raised when messages change so that older peers would misread them. Peers of another number are refused.
PROTOCOL: Final = 1
#: The hub sends no longer message; ZeroMQ drops a peer that does.
MAX_MESSAGE: Final = 16 * 1024 * 1024
#: A strategy sends no longer one: refused before it is decoded, and counted.
MAX_REQUEST: Final = 1024 * 1024
#: ZeroMQ drops a strategy that sends so much at once: it may fill memory before anybody looks.
MAX_RECEIVED: Final = 4 * MAX_REQUEST
#: The same on the tick channel, where a strategy sends subscriptions alone; a handshake has to pass.
MAX_SUBSCRIPTION: Final = 4096

_Short = Annotated[str, msgspec.Meta(max_length=256)]
_Count = Annotated[int, msgspec.Meta(ge=0)]

T = TypeVar("T")


class Problem(msgspec.Struct, frozen=True):
    """An error of this package, on its way to another process.

    Attributes:
        kind: Name of its class.
        message, remedy: As there.
        details: Its other attributes, as far as they are plain.
    """

    kind: str
    message: str
    remedy: str = ""
    details: dict[str, str | int | float | bool | None] = {}


# -- from a strategy ----------------------------------------------------------------------------------


class Hello(msgspec.Struct, frozen=True, kw_only=True, tag="hello", tag_field="type"):
    """The first message, and again whenever the hub does not know the sender.

    Attributes:
        protocol, version: Of the sender; ``version`` is for people.
        name: The strategy's: owner of its orders and its book. Of an observer: what it calls itself.
        session: Chosen anew by each process: tells a strategy that came back from one that was restarted.
        role: ``strategy``, or ``observer``, which has no book and no orders.
        host, pid: For people.
        join: As the last welcome had it; empty at first.
        told: Number of the last message it has of that joining.
    """

    protocol: int
    version: _Short
    name: _Short
    session: _Short
    role: _Short = "strategy"
    host: _Short = ""
    pid: int = 0
    join: _Short = ""
    told: _Count = 0


class Greeting(msgspec.Struct, frozen=True, kw_only=True, tag="hello", tag_field="type"):
    """What of a ``Hello`` stays as it is in every version, so that a peer of any other can be told so."""

    protocol: int
    version: _Short = "?"
    name: _Short = "?"
    session: _Short = ""


class Request(msgspec.Struct, frozen=True, kw_only=True, tag="request", tag_field="type"):
    """Something asked.

    Attributes:
        session: Of the sender; a message of an earlier process of its name is refused.
        join: See ``Welcome``.
        number: Counts the sender's requests, from 1.
        kind: One of ``requests.REQUESTS``.
        body: As that kind has it.
        asked_s: When it was asked first, by the hub's monotonic clock as the sender reckons it, at the latest: it may
            have waited for a hub to come back, or in a network that was cut.
    """

    session: _Short
    join: _Short
    number: _Count
    kind: _Short
    body: msgspec.Raw
    asked_s: float


class Beat(msgspec.Struct, frozen=True, kw_only=True, tag="beat", tag_field="type"):
    """Sent all the time: the strategy lives.

    Attributes:
        session: Of the sender.
        join: See ``Welcome``.
        told: Number of the last message it has, without a gap before it.
        behind: Ticks that were published and not received yet, by topic, where there are any.
        waiting: Ticks received that the strategy has not taken in yet.
        lost: Ticks that it found missing so far, and of them those that were made good.
        mended: See ``lost``.
    """

    session: _Short
    join: _Short
    told: _Count
    behind: Annotated[dict[bytes, int], msgspec.Meta(max_length=1000)] = {}
    waiting: _Count = 0
    lost: _Count = 0
    mended: _Count = 0


class Leave(msgspec.Struct, frozen=True, kw_only=True, tag="leave", tag_field="type"):
    """The strategy ends as it should: it has not vanished.

    Attributes:
        session: Of the sender.
        told: Number of the last message it has.
    """

    session: _Short
    told: _Count = 0


# -- from the hub ---------------------------------------------------------------------------------------


class Welcome(msgspec.Struct, frozen=True, kw_only=True, tag="welcome", tag_field="type"):
    """The answer to ``Hello``.

    Attributes:
        hub: This hub's id; a restarted one has another.
        version: Of its package.
        session: Of the receiver.
        join: Of this joining; the same as before where the hub knew this process: then what it told is not lost, and
            what was asked is known.
        ticks: Endpoint of the tick channel, as seen from the receiver; empty: on the same host, the next port.
        accounts: That the receiver may use, the hub's first one first.
        paper: Whether IBKR calls them paper; ``None`` if it does not tell.
        may_trade: Whether orders are taken.
        clock_s: The hub's monotonic clock.
        server_ns: The server's time at that moment, as the hub has measured it; 0 if it has not.
        beat_s, dead_s: How often both sides speak at least, and the silence after which a side is taken as gone.
        emulator: Control API of the emulator that the hub's session is with; empty for IBKR.
    """

    hub: str
    version: str
    session: str
    join: str
    ticks: str
    accounts: tuple[str, ...]
    paper: bool | None
    may_trade: bool
    clock_s: float
    beat_s: float
    dead_s: float
    emulator: str = ""
    server_ns: int = 0


class Refused(msgspec.Struct, frozen=True, kw_only=True, tag="refused", tag_field="type"):
    """The hub will not deal with the sender of ``Hello``; there is no use in trying again unless ``again``."""

    session: str
    problem: Problem
    again: bool = False


class Unknown(msgspec.Struct, frozen=True, kw_only=True, tag="unknown", tag_field="type"):
    """The hub does not know the session of what it received, or not by that joining: say ``Hello``."""

    hub: str
    session: str


class Told(msgspec.Struct, frozen=True, kw_only=True, tag="told", tag_field="type"):
    """A numbered message.

    Attributes:
        number: Counts what is told in this joining, from 1.
        join: See ``Welcome``.
        kind: One of ``events.EVENTS``, or ``reply``.
        body: As that kind has it.
        to: Of a reply: the request's number.
        problem: Of a reply: why it failed.
        account: Of an account's event: whose.
    """

    number: int
    join: str
    kind: str
    body: msgspec.Raw = msgspec.Raw(b"\xc0")
    to: int = 0
    problem: Problem | None = None
    account: str = ""


class HubBeat(msgspec.Struct, frozen=True, kw_only=True, tag="hub-beat", tag_field="type"):
    """Sent all the time: the hub lives.

    Attributes:
        join: See ``Welcome``.
        clock_s: The hub's monotonic clock.
        told: Number of the last message it has for the receiver.
        asked: Number of the last request it has from the receiver.
        heads: Sequence number of the newest tick, by topic of the receiver.
        stream_ns: The newest server time seen on any tick; what came up to there is in ``heads``.
        server_ns: See ``Welcome``.
    """

    join: str
    clock_s: float
    told: int
    asked: int
    heads: dict[bytes, int]
    stream_ns: int = 0
    server_ns: int = 0


class Closing(msgspec.Struct, frozen=True, kw_only=True, tag="closing", tag_field="type"):
    """The hub ends as it should."""

    hub: str
    reason: str


FromStrategy = Hello | Request | Beat | Leave
FromHub = Welcome | Refused | Unknown | Told | HubBeat | Closing

#: What an error has besides message and remedy, by attribute.
_DETAILS: Final = ("margin", "status", "body", "control", "value", "limit", "key", "pid")


def _encode_other(value: object) -> object:
    if isinstance(value, BtIbkrError):
        return problem_of(value)
    raise NotImplementedError(f"{type(value).__name__} does not cross to another process")


def _decode_other(kind: type, value: Any) -> object:
    if isinstance(kind, type) and issubclass(kind, BtIbkrError):
        return error_of(msgspec.convert(value, Problem))
    raise NotImplementedError(f"{kind.__name__} does not come from another process")


_ENCODER: Final = msgspec.msgpack.Encoder(enc_hook=_encode_other)
_FROM_STRATEGY: Final = msgspec.msgpack.Decoder(FromStrategy)
_GREETING: Final = msgspec.msgpack.Decoder(Greeting)
_FROM_HUB: Final = msgspec.msgpack.Decoder(FromHub)
_DECODERS: dict[object, Any] = {}


def encode(message: object) -> bytes:
    """Any message, or the body of one."""
    return _ENCODER.encode(message)


def body(value: object) -> msgspec.Raw:
    """The body of a request or event."""
    return msgspec.Raw(_ENCODER.encode(value))


def from_strategy(raw: bytes) -> FromStrategy:
    """What a strategy sent.

    Raises:
        WireError: It is no such message.
    """
    message: FromStrategy = _decoded(_FROM_STRATEGY.decode, raw)
    return message


def greeting(raw: bytes) -> Greeting:
    """A ``Hello`` of any version.

    Raises:
        WireError: It is none.
    """
    found: Greeting = _decoded(_GREETING.decode, raw)
    return found


def from_hub(raw: bytes) -> FromHub:
    """What the hub sent.

    Raises:
        WireError: It is no such message.
    """
    message: FromHub = _decoded(_FROM_HUB.decode, raw)
    return message


def read(raw: bytes | msgspec.Raw, kind: Any) -> Any:
    """The body of a message, of type ``kind``.

    Raises:
        WireError: It is none.
    """
    decoder = _DECODERS.get(kind)
    if decoder is None:
        decoder = _DECODERS[kind] = msgspec.msgpack.Decoder(kind, dec_hook=_decode_other)
    return _decoded(decoder.decode, raw)


def _decoded(decode: Callable[[Any], T], raw: bytes | msgspec.Raw) -> T:
    try:
        return decode(raw)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError, RecursionError) as problem:
        raise WireError(f"A message of the hub cannot be read: {problem}") from None


def problem_of(error: BtIbkrError) -> Problem:
    """An error, ready to be sent."""
    details: dict[str, str | int | float | bool | None] = {}
    for name in _DETAILS:
        value = getattr(error, name, None)
        if isinstance(value, str | int | float | bool):
            details[name] = value
    return Problem(type(error).__name__, error.message, error.remedy, details)


def error_of(problem: Problem) -> BtIbkrError:
    """The error that was sent: of its own class, where this version has it, and whole.

    Its class's base stands in for one that cannot be made of what was sent.
    """
    kind = getattr(errors, problem.kind, None)
    if isinstance(kind, type) and issubclass(kind, BtIbkrError):
        for base in kind.__mro__[: kind.__mro__.index(BtIbkrError)]:
            # A class need not take what its bases have.
            taken = inspect.signature(base).parameters
            details = {name: value for name, value in problem.details.items() if name in taken}
            with contextlib.suppress(TypeError):
                error: BtIbkrError = base(problem.message, remedy=problem.remedy, **details)
                return error
    return BtIbkrError(problem.message, remedy=problem.remedy)
