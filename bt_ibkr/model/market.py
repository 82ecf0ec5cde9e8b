"""Quotes, ticks and bars. Prices are ``float``; ``None`` means not known."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

import msgspec


class DataQuality(StrEnum):
    """What the first letter of field 6509 says of the data (wire-level facts: ``wire/values.py``)."""

    REALTIME = "R"
    DELAYED = "D"
    FROZEN = "Z"
    FROZEN_DELAYED = "Y"
    NOT_SUBSCRIBED = "N"
    NO_ACKNOWLEDGEMENT = "O"
    INCOMPLETE = "i"
    EXEMPT = "v"
    UNKNOWN = "?"

    @property
    def live(self) -> bool:
        """Whether a price of this quality is the market's present price."""
        return self in LIVE_QUALITIES


LIVE_QUALITIES = frozenset({DataQuality.REALTIME, DataQuality.EXEMPT, DataQuality.UNKNOWN})


class Missing(StrEnum):
    """Why a field of a quote has no value.

    ``no_market``: nobody quotes that side of a market that is open to us. ``no_trade``: nothing has traded today;
    what the server shows as the last price is the previous close. ``not_available``: the server says so (``N/A``).
    """

    NOT_SENT = "not_sent"
    NOT_AVAILABLE = "not_available"
    NOT_SUBSCRIBED = "not_subscribed"
    NO_MARKET = "no_market"
    NO_TRADE = "no_trade"


class Tick(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """One change of an instrument's quote, with the quote as it stands after the change.

    Encoded, it is an array: the hub sends every one of them.

    Attributes:
        time_ns: The server's time of the change (``_updated``), epoch nanoseconds UTC.
        conid: Whose quote.
        last, last_size: The last trade; ``last_size`` may be of an earlier trade than ``last`` if the
            server sent only one of them.
        traded: Quantity traded since the tick before, from the day's volume; 0.0 if nothing traded.
        volume: The day's volume so far.
        halted: The server marked the price as that of a halted instrument.
        received_ns: When the frame was read, on this machine's clock.
        extras: Further fields that were asked for, as they stand, by the names of ``wire.tags.EXTRA_LINES``; a field
            without a value is left out. The same object until one of them changes, and never changed itself; ``None``
            where none were asked for.
        exchange_ns: The exchange's own time of the trade, where the wire tells it. The stream of the top of the book
            (``smd``) does not: there it is ``None``.
        snapshot: Read from a snapshot, every few seconds, not from a stream: what happened in between is not known.
    """

    time_ns: int
    conid: int
    bid: float | None
    ask: float | None
    bid_size: float | None
    ask_size: float | None
    last: float | None
    last_size: float | None
    traded: float
    volume: float | None
    quality: DataQuality
    halted: bool
    received_ns: int
    extras: Mapping[str, float] | None = None
    exchange_ns: int | None = None
    snapshot: bool = False


class Quote(msgspec.Struct, frozen=True, kw_only=True):
    """All that is known of an instrument's quote.

    Attributes:
        time_ns: The server's time of the last change, epoch nanoseconds UTC.
        received_ns: When its frame was read, on this machine's clock.
        prior_close: The previous day's close, where the server told it.
        availability: Field 6509 as IBKR spells it; ``quality`` is what its first letter means.
        extras, texts: Further fields that were asked for, by the names of ``wire.tags.EXTRA_LINES`` and
            ``wire.tags.TEXT_FIELDS``.
        missing: Of each field that was asked for and has no value: why.
        snapshot: As ``Tick.snapshot``.
    """

    conid: int
    time_ns: int
    received_ns: int
    bid: float | None = None
    ask: float | None = None
    bid_size: float | None = None
    ask_size: float | None = None
    last: float | None = None
    last_size: float | None = None
    volume: float | None = None
    prior_close: float | None = None
    quality: DataQuality = DataQuality.UNKNOWN
    availability: str = ""
    halted: bool = False
    extras: Mapping[str, float] = {}
    texts: Mapping[str, str] = {}
    missing: Mapping[str, Missing] = {}
    snapshot: bool = False


class DepthLevel(msgspec.Struct, frozen=True, gc=False):
    """One price of a book and what is offered there."""

    price: float
    size: float


class DepthBook(msgspec.Struct, frozen=True):
    """The book of one instrument as the ladder shows it.

    Attributes:
        time_ns: Market time when the frame was read: the ladder tells none itself. Epoch nanoseconds UTC.
        bids, asks: Best first.
        last_price, last_size: The last trade as the ladder marks it.
    """

    conid: int
    time_ns: int
    bids: tuple[DepthLevel, ...] = ()
    asks: tuple[DepthLevel, ...] = ()
    last_price: float | None = None
    last_size: float | None = None


class Bar(msgspec.Struct, frozen=True, gc=False):
    """Open, high, low, close and volume over ``[start_ns, end_ns)``.

    The left edge belongs to the bar, the right edge to the next one, as in IBKR's own history.
    """

    start_ns: int
    end_ns: int
    open: float
    high: float
    low: float
    close: float
    volume: float
