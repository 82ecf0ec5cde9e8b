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

from bt_ibkr.errors import WireError
from bt_ibkr.wire import values

#: A frame above this many characters is refused unread (the largest recorded one is below 20 kB).
MAX_FRAME = 4_000_000

#: Field tags asked for by a feed: last, bid, ask, ask size, bid size, last size, day volume, availability; the
#: previous close and the day's open, which change with the day.
QUOTE_FIELDS: Final = ("31", "84", "86", "85", "88", "7059", "7762", "6509", "7741", "7295")

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
    "close_before": "7741",
    "day_open": "7295",
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
        close_before, day_open: As they came: only whether they change is of interest.
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
    close_before: str | float | None = None
    day_open: str | float | None = None


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
