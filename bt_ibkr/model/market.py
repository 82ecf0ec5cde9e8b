"""Quotes, ticks and bars. Prices are ``float``; ``None`` means not known."""

from __future__ import annotations

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


class Tick(msgspec.Struct, frozen=True, gc=False):
    """One change of an instrument's quote, with the quote as it stands after the change.

    Attributes:
        time_ns: The server's time of the change (``_updated``), epoch nanoseconds UTC.
        conid: Whose quote.
        last, last_size: The last trade; ``last_size`` may be of an earlier trade than ``last`` if the
            server sent only one of them.
        traded: Quantity traded since the tick before, from the day's volume; 0.0 if nothing traded.
        volume: The day's volume so far.
        halted: The server marked the price as that of a halted instrument.
        received_ns: When the frame was read, on this machine's clock.
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
