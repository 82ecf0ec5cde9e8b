"""Server-to-client frames of the WebSocket: one typed decode for all of them.

Every frame is a JSON object; most carry ``topic``. Which type it has is known only after decoding, and
market data outnumber everything else by far, so one flat type holds the top-of-book fields as IBKR numbers
them and keeps the rest (``args``, ``result``) as undecoded JSON for ``stream_events``. Unknown keys are
skipped by the decoder at no cost.

Frames may be text or binary; both hold UTF-8 JSON.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Final

import msgspec

from bt_ibkr.clock import NS_PER_MS
from bt_ibkr.errors import WireError
from bt_ibkr.model.market import DataQuality, Missing, Tick
from bt_ibkr.wire import values

#: A frame above this many characters is refused unread (the largest recorded one is below 20 kB).
MAX_FRAME = 4_000_000

#: Field tags asked for by a feed: last, bid, ask, ask size, bid size, last size, day volume, availability.
QUOTE_FIELDS: Final = ("31", "84", "86", "85", "88", "7059", "7762", "6509")

# Constraints keep "nan", "inf" and absurd magnitudes out: they make the fast decoder fail, and the slow one
# then says what is wrong.
_Number = Annotated[float, msgspec.Meta(ge=-1e15, le=1e15)]
_Millis = Annotated[int, msgspec.Meta(ge=0, le=7_258_118_400_000)]
_NOTHING = msgspec.Raw(b"")

_TAGS = {
    "last": "31",
    "bid": "84",
    "ask": "86",
    "ask_size": "85",
    "bid_size": "88",
    "last_size": "7059",
    "volume": "7762",
    "availability": "6509",
    "updated_ms": "_updated",
    "heartbeat_ms": "hb",
}


class QuoteFrame(msgspec.Struct, gc=False, rename=_TAGS):
    """What market data need of a frame. Numbers are ``None`` where the frame left them out: they did not change.

    Attributes:
        updated_ms: The server's time of its snapshot, ms.
        last, bid, ask: Prices; sizes in units.
        volume: The day's volume (7762).
        availability: Field 6509.
    """

    topic: str | None = None
    updated_ms: _Millis | None = None
    last: _Number | None = None
    bid: _Number | None = None
    ask: _Number | None = None
    bid_size: _Number | None = None
    ask_size: _Number | None = None
    last_size: _Number | None = None
    volume: _Number | None = None
    availability: str | None = None


class Frame(QuoteFrame, gc=False, rename=_TAGS):
    """All that is read of any frame.

    Attributes:
        heartbeat_ms: Of topic ``system``.
        args, result: JSON as it came; parsed by ``stream_events``.
    """

    conid: int | None = None
    args: msgspec.Raw = _NOTHING
    result: msgspec.Raw = _NOTHING
    success: str | bool | None = None
    heartbeat_ms: int | float | None = None
    error: str | None = None
    code: int | str | None = None
    message: str | None = None
    alive: bool | None = None


class AnnotatedFrame(Frame, gc=False):
    """A frame some of whose numbers came as text that a decoder cannot take for a number.

    Attributes:
        last_prefix: ``C`` (previous close) or ``H`` (halted) before the last price, else empty.
        gone: Names of fields that the server now calls not available (``N/A``, empty …).
    """

    last_prefix: str = ""
    gone: frozenset[str] = frozenset()


_NUMBERS = ("last", "bid", "ask", "bid_size", "ask_size", "last_size", "volume")
# IBKR writes prices as text; the lax decoder reads "271.68" as a number without Python's help.
_decode_fast = msgspec.json.Decoder(Frame, strict=False).decode
_decode_quote = msgspec.json.Decoder(QuoteFrame, strict=False).decode
#: A text that is wholly a number with commas between its thousands.
_THOUSANDS = re.compile(rb'"[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?"')
_decode_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_value = msgspec.json.Decoder(strict=False).decode


def decode_quote(data: str | bytes) -> QuoteFrame:
    """As ``decode``, but of a frame that a fast decoder understands only what market data need.

    A frame of another topic has to be decoded again, by ``decode``.

    Raises:
        WireError: As ``decode``.
    """
    try:
        return _decode_quote(data)
    except msgspec.ValidationError:
        pass
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return decode(data)
    if isinstance(data, bytes):
        # Sizes above 999 are written "1,300", in many frames: worth a way of its own.
        try:
            return _decode_quote(_THOUSANDS.sub(_without_commas, data))
        except msgspec.DecodeError:
            pass
    return decode(data)


def _without_commas(match: re.Match[bytes]) -> bytes:
    return match[0].replace(b",", b"")


def decode(data: str | bytes) -> Frame:
    """The frame in ``data``.

    Raises:
        WireError: Not UTF-8 JSON, not an object, a field of an impossible type, or too large.
    """
    if len(data) > MAX_FRAME:
        raise WireError(f"A WebSocket frame of {len(data)} characters was refused (limit {MAX_FRAME}).")
    try:
        return _decode_fast(data)
    except msgspec.ValidationError:
        return _decode_slowly(data)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as problem:
        raise _unreadable(data, problem) from None


def _unreadable(data: str | bytes, problem: Exception) -> WireError:
    return WireError(f"A WebSocket frame could not be read: {problem}. It begins with {data[:80]!r}.")


def _decode_slowly(data: str | bytes) -> AnnotatedFrame:
    """A frame with a number in one of IBKR's other spellings, such as ``C193.18`` or ``12.2M``."""
    try:
        raw = _decode_object(data)
        numbers: dict[str, Any] = {}
        gone = set()
        prefix = ""
        for name in _NUMBERS:
            text = raw.pop(_TAGS[name], None)
            if text is None:
                continue
            value, mark = values.price(_decode_value(text), _TAGS[name])
            if name == "last":
                prefix = mark
            elif mark == values.PriceText.PREVIOUS_CLOSE:
                value = None  # of another day: nobody bids or asks it
            if value is None:
                gone.add(name)
            elif abs(value) > 1e15:
                raise WireError(f"{_TAGS[name]}: {value!r} is out of range.")
            else:
                numbers[name] = value
        plain = _decode_fast(msgspec.json.encode(raw))
    except (msgspec.DecodeError, UnicodeError, RecursionError) as problem:
        raise _unreadable(data, problem) from None
    others: dict[str, Any] = {
        name: getattr(plain, name) for name in Frame.__struct_fields__ if name not in _NUMBERS
    }
    return AnnotatedFrame(**others, **numbers, last_prefix=prefix, gone=frozenset(gone))


class QuoteMerger:
    """The present quote of one instrument, built from frames that name only what changed.

    ``apply`` returns the tick for a frame, or ``None`` if it told nothing new. The first frame after a
    subscription is a picture, not a trade: its volume is the base from which later trades are counted. A
    frame that is delivered twice therefore makes one tick at most.

    Args:
        conid: Whose quote.

    Attributes:
        availability: Field 6509 as it was told last.
        prior_close: The previous day's close, where it was told in place of a last price.
        gone: Names of fields that the server called not available; a value may have come since.
    """

    __slots__ = (
        "_first",
        "ask",
        "ask_size",
        "availability",
        "bid",
        "bid_size",
        "conid",
        "gone",
        "halted",
        "last",
        "last_size",
        "prior_close",
        "quality",
        "time_ns",
        "volume",
    )

    def __init__(self, conid: int) -> None:
        self.conid = conid
        self.bid: float | None = None
        self.ask: float | None = None
        self.bid_size: float | None = None
        self.ask_size: float | None = None
        self.last: float | None = None
        self.last_size: float | None = None
        self.volume: float | None = None
        self.quality = DataQuality.UNKNOWN
        self.availability = ""
        self.prior_close: float | None = None
        self.gone: set[str] = set()
        self.halted = False
        self.time_ns = 0
        self._first = True

    def resubscribed(self) -> None:
        """The next frame is a picture again: what traded before it is not known from it."""
        self._first = True

    def apply(self, frame: QuoteFrame, received_ns: int) -> Tick | None:
        """Merge ``frame`` and return the tick it makes.

        Written for speed: this runs once for every frame of market data.

        Args:
            frame: A decoded ``smd`` frame of this instrument.
            received_ns: This machine's time of reading it.
        """
        changed = self._annotate(frame) if type(frame) is AnnotatedFrame else False
        traded = 0.0
        last = frame.last
        volume = frame.volume
        last_size = frame.last_size
        if last_size is not None:
            self.last_size = last_size
        if volume is not None:
            before = self.volume
            self.volume = volume
            if self._first:
                pass
            elif before is None:
                # Nothing had traded when the picture was taken, or the server withheld the volume: the
                # last trade's own size is what is known for certain.
                traded = self.last_size or 0.0
            elif volume > before:
                traded = volume - before
            elif volume < before * 0.5:
                # A new day's volume has begun: all of it traded since.
                traded = volume
        elif last is not None and self.volume is None and last != self.last and not self._first:
            traded = self.last_size or 0.0
        if last is not None:
            if last != self.last:
                self.last = last
                changed = True
            if self.halted and type(frame) is not AnnotatedFrame:
                self.halted = False
                changed = True
        value = frame.bid
        if value is not None and value != self.bid:
            self.bid = value
            changed = True
        value = frame.ask
        if value is not None and value != self.ask:
            self.ask = value
            changed = True
        value = frame.bid_size
        if value is not None and value != self.bid_size:
            self.bid_size = value
            changed = True
        value = frame.ask_size
        if value is not None and value != self.ask_size:
            self.ask_size = value
            changed = True
        if frame.availability is not None:
            self.availability = frame.availability
            quality = values.quality(frame.availability)
            if quality is not self.quality:
                self.quality = quality
                changed = True
        if self._first:
            self._first = False
        elif not changed and not traded:
            return None
        updated = frame.updated_ms
        if updated is not None:
            self.time_ns = updated * NS_PER_MS
        elif not self.time_ns:
            self.time_ns = received_ns
        return Tick(
            self.time_ns,
            self.conid,
            self.bid,
            self.ask,
            self.bid_size,
            self.ask_size,
            self.last,
            self.last_size,
            traded,
            self.volume,
            self.quality,
            self.halted,
            received_ns,
        )

    def tick(self, received_ns: int) -> Tick:
        """The quote as it stands, as a tick by which nothing traded."""
        # `apply` does the same by itself: it is the hot path.
        return Tick(
            self.time_ns,
            self.conid,
            self.bid,
            self.ask,
            self.bid_size,
            self.ask_size,
            self.last,
            self.last_size,
            0.0,
            self.volume,
            self.quality,
            self.halted,
            received_ns,
        )

    def missing(self, name: str) -> Missing:
        """Why the field ``name`` of a tick has no value."""
        if self.quality is DataQuality.NOT_SUBSCRIBED:
            return Missing.NOT_SUBSCRIBED
        if name in ("last", "last_size") and self.last is None and self.prior_close is not None:
            return Missing.NO_TRADE
        if name not in self.gone:
            return Missing.NOT_SENT
        others = (self.bid, self.ask, self.last)
        if name in ("bid", "ask", "bid_size", "ask_size") and self.quality.live and any(others):
            return Missing.NO_MARKET
        return Missing.NOT_AVAILABLE

    def _annotate(self, frame: AnnotatedFrame) -> bool:
        """Take in what the text around the numbers said; true if the quote changed by it."""
        changed = False
        if frame.last is not None:
            if frame.last_prefix == values.PriceText.PREVIOUS_CLOSE:
                # A previous close is no trade of today and never shown as one.
                self.prior_close = frame.last
                frame.last = None
            elif self.halted != (frame.last_prefix == "H"):
                self.halted = not self.halted
                changed = True
        self.gone |= frame.gone
        for name in frame.gone:
            if getattr(self, name) is not None:
                setattr(self, name, None)
                changed = True
        return changed
