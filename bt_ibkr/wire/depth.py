"""Topic ``sbd``: the rows of BookTrader's ladder.

Documented, never seen recorded (wire facts, 4.6)::

    {"topic": "sbd+DU1234567+265598", "data": [
        {"row": 0, "focus": 0, "price": "271.70", "ask": "300"},
        {"row": 1, "focus": 1, "price": "100 @ 271.68"},
        {"row": 2, "focus": 0, "price": "271.66", "bid": "1,200"}]}

A row is a price, with what is bid or asked there; ``focus`` marks the price of the last trade, whose size may stand
before it (``size @ price``). How a row that is gone is told is not documented. Taken here: a frame that begins with
row 0 and leaves no number out shows the whole ladder, any other one only the rows it names; a row without bid and
ask offers nothing, and of two rows of one price the newer counts.
"""

from __future__ import annotations

import msgspec

from bt_ibkr.errors import WireError
from bt_ibkr.model.market import DepthBook, DepthLevel
from bt_ibkr.wire import values

_Number = str | float | int | None


class _Row(msgspec.Struct):
    row: int
    focus: int | bool | None = None
    price: _Number = None
    bid: _Number = None
    ask: _Number = None


class _Frame(msgspec.Struct):
    data: list[_Row] | None = None


_decode = msgspec.json.Decoder(_Frame).decode


class Level(msgspec.Struct, frozen=True):
    """One row, understood.

    Attributes:
        bid, ask: Sizes; ``None`` where nothing is offered.
        last: The row is that of the last trade.
        last_size: Its size, where the row tells it.
    """

    price: float
    bid: float | None
    ask: float | None
    last: bool
    last_size: float | None


def rows(data: str | bytes) -> dict[int, Level | None]:
    """The rows of a frame by their number; ``None`` for one without a price.

    Raises:
        WireError: It is not such a frame.
    """
    try:
        frame = _decode(data)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as problem:
        raise WireError(f"A frame of market depth could not be read: {problem}.") from None
    return {row.row: _level(row) for row in frame.data or ()}


def _level(row: _Row) -> Level | None:
    text, size = row.price, None
    if isinstance(text, str) and "@" in text:
        before, _, text = text.partition("@")
        size = values.number(before, "size of the last trade")
    price = values.number(text, "price of a row")
    if price is None:
        return None
    bid, ask = values.number(row.bid, "bid of a row"), values.number(row.ask, "ask of a row")
    return Level(price, bid or None, ask or None, bool(row.focus) or size is not None, size)


class LadderMerger:
    """The present ladder of one instrument, built from frames.

    Args:
        conid: Whose book.
    """

    def __init__(self, conid: int) -> None:
        self._conid = conid
        #: By row, the row written last at the end.
        self._rows: dict[int, Level] = {}
        self._last: Level | None = None

    def clear(self) -> None:
        """Nothing is known any longer."""
        self._rows.clear()
        self._last = None

    def apply(self, data: str | bytes, time_ns: int) -> DepthBook:
        """Merge a frame; the book as it stands.

        Args:
            time_ns: When it was read.

        Raises:
            WireError: As ``rows``; nothing is merged then.
        """
        came = rows(data)
        if came and set(came) == set(range(len(came))):
            self._rows.clear()
        for number, level in came.items():
            self._rows.pop(number, None)
            if level is None:
                continue
            for other in [n for n, one in self._rows.items() if one.price == level.price]:
                del self._rows[other]
            self._rows[number] = level
            if level.last:
                self._last = level
        levels = self._rows.values()
        bids = sorted((DepthLevel(one.price, one.bid) for one in levels if one.bid), key=_price, reverse=True)
        asks = sorted((DepthLevel(one.price, one.ask) for one in levels if one.ask), key=_price)
        last = self._last
        return DepthBook(
            conid=self._conid,
            time_ns=time_ns,
            bids=tuple(bids),
            asks=tuple(asks),
            last_price=None if last is None else last.price,
            last_size=None if last is None else last.last_size,
        )


def _price(level: DepthLevel) -> float:
    return level.price
