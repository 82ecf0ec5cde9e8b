"""Bars made from ticks beside the official ones: asked for in batches once those have settled, and compared."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import msgspec

from bt_ibkr.clock import NS_PER_S
from bt_ibkr.errors import BtIbkrError
from bt_ibkr.feeds.bars import differs
from bt_ibkr.feeds.join import Correction, Wish
from bt_ibkr.feeds.requests import HistoryDesk
from bt_ibkr.feeds.times import day_number
from bt_ibkr.model.market import Bar

_log = logging.getLogger(__name__)

#: So long after its end a bar of IBKR's history is taken for settled.
SETTLED_NS = 60 * NS_PER_S
#: One question for so many bars, or for what was made in so long.
_BATCH_BARS = 30
_BATCH_NS = 600 * NS_PER_S


class BarCorrected(msgspec.Struct, frozen=True, kw_only=True):
    """A bar that was delivered is another one in IBKR's history.

    Attributes:
        dataname: The feed's.
        old: As it was delivered; ``None`` where none was, and it is too late for one now.
        new: As history has it.
        applied: The feed's lines were rewritten.
    """

    dataname: str
    old: Bar | None
    new: Bar
    applied: bool


class Answered(NamedTuple):
    """What came of a comparison.

    Attributes:
        found: The differences.
        error: Why there was no answer.
    """

    found: list[Correction]
    error: BtIbkrError | None


class OfficialBars:
    """Decides when to ask for official bars, asks, and compares.

    Args:
        desk: For questions of its own.
        bar_ns: Length of a bar.
    """

    def __init__(self, desk: HistoryDesk, bar_ns: int) -> None:
        self._desk = desk
        self._batch_ns = max(min(_BATCH_BARS * bar_ns, _BATCH_NS), bar_ns)
        self._checked_ns = 0

    def begin(self, start_ns: int) -> None:
        """Bars that end at or before ``start_ns`` come from history."""
        self._checked_ns = start_ns

    @property
    def asked(self) -> bool:
        """A question is not answered yet."""
        return self._desk.asked

    def ask(self, now_ns: int, *, over: bool) -> None:
        """Ask if a whole batch has settled; at the end of the market for the rest, as it is."""
        until_ns = now_ns if over else now_ns - SETTLED_NS
        if not self._desk.asked and until_ns - self._checked_ns >= (1 if over else self._batch_ns):
            self._desk.ask(Wish(self._checked_ns, until_ns))

    def take(self, made: Sequence[Bar]) -> Answered | None:
        """Compare an answer that has come with the bars ``made`` from ticks; those of a failed one are let be."""
        answer = self._desk.take() if len(self._desk) else None
        if answer is None:
            return None
        self._checked_ns = answer.wish.end_ns
        known = {bar.end_ns: bar for bar in made if answer.wish.start_ns < bar.end_ns <= answer.wish.end_ns}
        newest = max(known, default=0)
        found = [
            Correction(known.get(bar.end_ns), bar)
            for bar in answer.bars
            if bar.end_ns <= newest and differs(known.get(bar.end_ns), bar)
        ]
        return Answered(found, answer.error)


def rewrite(buffers: Sequence[Any], length: int, bar: Bar) -> bool:
    """Put ``bar`` in the place of the one with its time; false if that has left the buffers.

    Args:
        buffers: Of time, open, high, low, close, volume, as backtrader's lines have them.
        length: How many bars the lines have seen.
    """
    moment = buffers[0]
    wanted = day_number(bar.end_ns)
    for ago in range(length):
        try:
            number = moment[-ago]
        except IndexError:
            return False
        if number == wanted:
            values = (bar.open, bar.high, bar.low, bar.close, bar.volume)
            for line, value in zip(buffers[1:], values, strict=False):
                line[-ago] = value
            return True
        if number < wanted:
            return False
    return False


class Corrections:
    """Tells of delivered bars that are others in IBKR's history, and puts those in their place where that is wanted.

    Args:
        dataname: The feed's.
        tell: The store's ``put_notification``.
        apply: Rewrite the lines.
    """

    def __init__(self, dataname: str, tell: Callable[..., None], *, apply: bool) -> None:
        self._dataname = dataname
        self._tell = tell
        self._apply = apply

    def take(self, found: Iterable[Correction], buffers: Sequence[Any], length: int) -> list[Bar]:
        """Tell of each; the bars that stand now in the place of delivered ones. ``buffers`` as ``rewrite``."""
        placed = []
        for one in found:
            applied = False
            if self._apply and one.old is not None:
                placed.append(one.new)
                applied = rewrite(buffers, length, one.new)
            _log.warning(
                "bar-corrected dataname=%s end_ns=%d applied=%s", self._dataname, one.new.end_ns, applied
            )
            told = BarCorrected(dataname=self._dataname, old=one.old, new=one.new, applied=applied)
            self._tell("bar-corrected", told)
        return placed
