"""The tick channel: one message per tick, numbered by topic, and the last of them kept.

A message is one frame: the topic (an opaque word that the hub gave with the subscription), and after it a MessagePack
pair of sequence number and tick, or book. Of MessagePack, ``struct`` and Arrow the first is the fastest both ways,
and a tenth longer than the second (docs/benchmarks.md).
"""

from __future__ import annotations

from collections import deque
from typing import Final

import msgspec

from bt_ibkr.errors import WireError
from bt_ibkr.model.market import DepthBook, Tick

#: Bytes of a topic: those that all of one hub begin with, and those that nobody guesses.
TOPIC_PREFIX: Final = 4
TOPIC_LENGTH: Final = TOPIC_PREFIX + 8

encode_tick = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[int, Tick]).decode


_decode_book = msgspec.msgpack.Decoder(tuple[int, DepthBook]).decode


def decode_book(payload: bytes) -> tuple[int, DepthBook]:
    """Sequence number and book.

    Raises:
        WireError: It is no such message.
    """
    try:
        return _decode_book(payload)
    except (msgspec.DecodeError, msgspec.ValidationError) as problem:
        raise WireError(f"A book of the hub cannot be read: {problem}") from None


def decode_tick(payload: bytes) -> tuple[int, Tick]:
    """Sequence number and tick.

    Raises:
        WireError: It is no such message.
    """
    try:
        return _decode(payload)
    except (msgspec.DecodeError, msgspec.ValidationError) as problem:
        raise WireError(f"A tick of the hub cannot be read: {problem}") from None


class Ring:
    """The last messages of one topic, by sequence number; numbers begin with 1.

    Args:
        size: How many are kept.
    """

    __slots__ = ("_kept", "head")

    def __init__(self, size: int) -> None:
        self._kept: deque[bytes] = deque(maxlen=size)
        #: Number of the newest message; 0 before the first.
        self.head = 0

    def add(self, payload: bytes) -> None:
        """Keep the message of number ``head + 1``."""
        self._kept.append(payload)
        self.head += 1

    def clear(self) -> None:
        """Keep none of them; numbers go on."""
        self._kept.clear()

    @property
    def tail(self) -> int:
        """Number of the oldest message that is kept; ``head + 1`` if there is none."""
        return self.head - len(self._kept) + 1

    def last(self) -> bytes | None:
        """The newest message."""
        return self._kept[-1] if self._kept else None

    def range(self, first: int, last: int, most: int) -> tuple[int, tuple[bytes, ...]]:
        """The messages ``first`` to ``last`` as far as they are kept, at most ``most``.

        Returns:
            The number of the first of them, and the messages; if it is not ``first``, those before it are gone.
        """
        begin = max(first, self.tail)
        end = min(last, self.head, begin + most - 1)
        if end < begin:
            return begin, ()
        offset = self.tail
        # A deque is slow in the middle, and this happens after a loss only.
        kept = list(self._kept)
        return begin, tuple(kept[begin - offset : end - offset + 1])
