"""Market-data lines: how many instruments IBKR gives data of at one time, and what uses them.

A user has 100 lines unless more were bought; streams and snapshots share them (wire facts, section 3). What is beyond
is not refused by the server: it stays silent, or its snapshots stay empty. So lines are counted here, and the refusal
is ours. A line is an instrument on an exchange: everybody who streams it shares it, and a snapshot of an instrument
that streams takes none. A stream of one exchange (``265598@NASDAQ``) is counted as a line beside that of the whole
market: the documents do not say whether it is one, and to count one too many does no harm.
"""

from __future__ import annotations

import msgspec

from bt_ibkr.errors import LinesError

#: So many names are told in a refusal.
_MOST_TOLD = 12


class LinesUsed(msgspec.Struct, frozen=True, kw_only=True):
    """What the budget looks like.

    Attributes:
        limit: Lines there are.
        used: Lines in use, those of snapshots included.
        free: So many further instruments may stream.
        polls: What is beyond the budget is read by snapshots in turn, not refused.
        polled: Instruments beyond the budget that are read by snapshots in turn.
        refused: How often somebody was told that there is none left.
        names: What uses them, oldest first.
    """

    limit: int = 0
    used: int = 0
    free: int = 0
    polls: bool = False
    polled: int = 0
    refused: int = 0
    names: tuple[str, ...] = ()


class Lines:
    """Counts lines, by what the wire calls the instrument (``265598``, ``265598@NASDAQ``).

    Args:
        limit: Lines that there are.
        reserved: So many of them are not for streams.
    """

    def __init__(self, limit: int, reserved: int = 0) -> None:
        self.limit = limit
        self.reserved = reserved
        #: Instruments that stream, and their names.
        self._streams: dict[str, str] = {}
        #: Instruments of which a snapshot was read, whose line the server keeps until it is told.
        self._snapshots: dict[str, str] = {}
        self.refused = 0

    @property
    def used(self) -> int:
        return len(self._streams.keys() | self._snapshots.keys())

    @property
    def names(self) -> tuple[str, ...]:
        """What uses lines."""
        return tuple((self._snapshots | self._streams).values())

    @property
    def idle(self) -> tuple[str, ...]:
        """Lines of snapshots alone, oldest first: they can be given back."""
        return tuple(key for key in self._snapshots if key not in self._streams)

    @property
    def free(self) -> int:
        """So many further streams may begin, once idle lines are given back."""
        return self.limit - self.reserved - len(self._streams)

    def room(self) -> bool:
        """Whether one more stream may begin."""
        return self.free > 0

    def full(self, key: str) -> bool:
        """Whether idle lines have to be given back before ``key`` may begin."""
        return key not in self._streams and key not in self._snapshots and self.used >= self.limit

    def take(self, key: str, name: str) -> None:
        """A stream begins.

        Raises:
            LinesError: There is no line left.
        """
        if key not in self._streams and not self.room():
            raise self.refusal(name)
        self._streams[key] = name

    def release(self, key: str) -> bool:
        """A stream ended; whether a snapshot still keeps its line."""
        self._streams.pop(key, None)
        return key in self._snapshots

    def snapshot(self, key: str, name: str) -> None:
        """A snapshot was asked for."""
        self._snapshots[key] = name

    def closed(self, key: str) -> None:
        """The server was told that no more snapshots are wanted."""
        self._snapshots.pop(key, None)

    def streams(self, conid: int) -> bool:
        """Whether anything of ``conid`` streams, on whichever exchange."""
        return any(key.partition("@")[0] == str(conid) for key in self._streams)

    def clear(self) -> None:
        """The server was told to end everything."""
        self._streams.clear()
        self._snapshots.clear()

    def refusal(self, name: str) -> LinesError:
        """There is no line for ``name``."""
        self.refused += 1
        names = self.names
        listed = ", ".join(names[:_MOST_TOLD])
        more = f" and {len(names) - _MOST_TOLD} more" if len(names) > _MOST_TOLD else ""
        return LinesError(
            f"{name}: no market-data line is left; {self.used} of {self.limit} are in use: {listed}{more}.",
            remedy="Close a feed; or raise market_data_lines, if IBKR gives this user more; or set "
            "lines_overflow='snapshots': what is beyond them is read every few seconds.",
        )
