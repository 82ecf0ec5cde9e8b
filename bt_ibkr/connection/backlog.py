"""Ticks on their way to one feed, in bounded memory however slow its reader is.

Up to a limit each tick waits by itself. Beyond it they are conflated: of each stretch of time (a bar, where bars are
built) the ticks with the first, the highest, the lowest and the last price are kept, and with them the whole quantity
traded, so that bars come out the same. If even these are more than the limit, the reader is behind for good: they are
dropped but for the latest, and the feed begins anew, as after a broken stream. All of it is counted, and told once
when it begins and once when it is over.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
from collections import deque
from collections.abc import Callable

import msgspec

from bt_ibkr.clock import NS_PER_S
from bt_ibkr.connection.interface import TicksConflated
from bt_ibkr.model.market import Tick

_log = logging.getLogger(__name__)

#: The price of a tick that bars are made of, or ``None`` where the tick is no event of it.
PriceOf = Callable[[Tick], float | None]


def _last_trade(tick: Tick) -> float | None:
    return tick.last if tick.traded else None


class _Point(msgspec.Struct, frozen=True, gc=False):
    number: int
    tick: Tick
    price: float


class Conflater:
    """First, highest, lowest and last of each stretch of ticks, and what was traded in it.

    Args:
        span_ns: Length of a stretch; a bar, so that no two bars are mixed.
        price: See ``PriceOf``.
        changes: Only a price other than the one before is an event; for quotes, not for trades.
    """

    def __init__(self, span_ns: int, price: PriceOf, *, changes: bool) -> None:
        self._span_ns = span_ns
        self._price = price
        self._changes = changes
        self._kept: list[Tick] = []
        self._number = 0
        self._window = -1
        self._first: _Point | None = None
        self._high: _Point
        self._low: _Point
        self._last: _Point
        #: Of the stretch, in all.
        self._traded = 0.0
        self._events = 0
        #: The newest tick, if it is no event.
        self._tail: Tick | None = None
        self._previous: float | None = None
        #: Ticks taken in since the last ``take``.
        self.taken_in = 0

    def __len__(self) -> int:
        """How many ticks are kept at most."""
        return len(self._kept) + (4 if self._first is not None else 0) + (self._tail is not None)

    def begin(self, before: Tick) -> None:
        """Ticks follow on ``before``."""
        self._previous = self._price(before)

    def add(self, tick: Tick) -> None:
        """Take one in; of the same instrument as all others."""
        self.taken_in += 1
        price = self._price(tick)
        if price is None or (self._changes and price == self._previous):
            self._tail = tick
            return
        self._previous = price
        self._tail = None
        self._number += 1
        point = _Point(self._number, tick, price)
        window = tick.time_ns // self._span_ns
        if self._first is not None and window == self._window:
            self._last = point
            if price > self._high.price:
                self._high = point
            elif price < self._low.price:
                self._low = point
            self._traded += tick.traded
            self._events += 1
            return
        self._close()
        self._window = window
        self._first = self._high = self._low = self._last = point
        self._traded = tick.traded
        self._events = 1

    def _close(self) -> None:
        """End the stretch: its ticks in the order they came, what the others traded added to the last."""
        if self._first is None:
            return
        points = {one.number: one for one in (self._first, self._high, self._low, self._last)}
        ticks = [points[number].tick for number in sorted(points)]
        if self._events > len(ticks):
            others = self._traded - sum(tick.traded for tick in ticks)
            ticks[-1] = msgspec.structs.replace(ticks[-1], traded=ticks[-1].traded + others)
        self._kept.extend(ticks)
        self._first = None

    def take(self) -> list[Tick]:
        """What is kept, in the order it came; none of it is kept any longer."""
        self._close()
        kept, self._kept = self._kept, []
        if self._tail is not None:
            kept.append(self._tail)
            self._tail = None
        self.taken_in = 0
        return kept

    def clear(self) -> None:
        """Keep nothing."""
        self._first = self._tail = None
        self._kept.clear()
        self.taken_in = 0


class TickBacklog(deque[Tick]):
    """The ticks that wait for one feed; written in the loop's thread, read in cerebro's.

    A reader empties it as any deque. Then, if it is ``behind``, it calls ``refill`` for what was conflated, or, where
    ``lost`` says that this is too much, begins anew and calls ``restart``. A time up to which the reader was told
    the stream has come before it began to read is covered by the deque and one ``refill`` together.

    Args:
        limit: So many ticks wait by themselves, and so many conflated ones beside them; 0 for no limit.
        span_ns: See ``Conflater``.
        price: See ``PriceOf``; by default the last trade's.
        changes: See ``Conflater``.
        dataname: The feed's, for reports.
        told: Called when an episode begins (in the loop's thread) and when it is over (in the reader's).

    Attributes:
        room: So many ticks may wait before ``hold`` is due; 0 while the reader is behind.
        push: Put a tick in at once, where there is room; a deque's own ``append``.
        behind: Ticks are being conflated, or what was conflated has not been caught up with.
        lost: What was conflated had to be dropped, or never came.
        conflated: Ticks that were merged into others or dropped, since the start.
        dropped: Those of them whose prices are in no bar.
        episodes: How often the reader fell behind.
    """

    __slots__ = (
        "_conflater", "_count", "_dataname", "_end_ns", "_latest", "_limit", "_lock", "_lost_count", "_most",
        "_start_ns", "_tell", "behind", "conflated", "dropped", "episodes", "lost", "push", "room",
    )  # fmt: skip

    def __init__(
        self,
        limit: int = 0,
        *,
        span_ns: int = 0,
        price: PriceOf = _last_trade,
        changes: bool = False,
        dataname: str = "",
        told: Callable[[TicksConflated], None] = lambda report: None,
    ) -> None:
        super().__init__()
        self._limit = limit or sys.maxsize
        #: So many conflated ticks.
        self._most = self._limit
        self._conflater = Conflater(span_ns or NS_PER_S, price, changes=changes)
        self._dataname = dataname
        self._tell = told
        self._lock = threading.Lock()
        self.push = super().append
        self.room = self._limit
        self._latest: Tick | None = None
        #: Of the present episode, or the last one.
        self._count = self._lost_count = self._start_ns = self._end_ns = 0
        self.behind = False
        self.lost = False
        self.conflated = 0
        self.dropped = 0
        self.episodes = 0

    # -- the loop's thread ---------------------------------------------------------------------------

    def append(self, item: Tick, /) -> None:
        """Put a tick in."""
        if len(self) < self.room:
            self.push(item)
        else:
            self.hold(item)

    def hold(self, tick: Tick) -> None:
        """Take in a tick for which there may be no room."""
        with self._lock:
            if not len(self._conflater) and not self.lost and len(self) < self._limit:
                # The reader has made room meanwhile.
                self.push(tick)
                return
            if not self.behind:
                self._begin(tick.time_ns)
            self._end_ns = tick.time_ns
            if self.lost:
                self._drop(tick, 1)
            else:
                self._conflater.add(tick)
                if len(self._conflater) > self._most:
                    self.lost = True
                    self._drop(tick, self._conflater.taken_in)
                    self._conflater.clear()

    def lose(self, tick: Tick | None, count: int) -> None:
        """Ticks are missing for good after ``tick``: what waits up to it is whole, and then the feed begins anew.

        Args:
            tick: The last one before; ``None`` if there was none.
            count: How many.
        """
        with self._lock:
            if not self.behind:
                self._begin(0 if tick is None else tick.time_ns)
            if not self.lost:
                self.lost = True
                self._count_lost(self._conflater.taken_in)
                self._conflater.clear()
            self._count_lost(count)

    def _begin(self, start_ns: int) -> None:
        # Emptied in this very moment: then what came before is of no matter to what is kept.
        with contextlib.suppress(IndexError):
            self._conflater.begin(self[-1])
        self.behind = True
        self.room = 0
        self.episodes += 1
        self._count = self._lost_count = 0
        self._start_ns = self._end_ns = start_ns
        self._report(over=False)

    def _drop(self, tick: Tick, count: int) -> None:
        self._latest = tick
        self._count_lost(count)

    def _count_lost(self, count: int) -> None:
        self._count += count
        self._lost_count += count
        self.conflated += count
        self.dropped += count

    # -- the reader's thread -------------------------------------------------------------------------

    def refill(self) -> bool:
        """Bring in what was conflated; for a reader that has taken all there was. Whether there was any."""
        with self._lock:
            if not self.behind or self.lost:
                return False
            came = self._conflater.taken_in
            moved = self._conflater.take()
            self.extend(moved)
            self._count += came - len(moved)
            self.conflated += came - len(moved)
            if len(moved) <= self._limit // 2:
                self._caught_up()
        return bool(moved)

    def restart(self) -> None:
        """Begin anew after a loss, with the latest tick."""
        with self._lock:
            if not self.lost:
                return
            self.lost = False
            if self._latest is not None:
                self.push(self._latest)
                self._latest = None
            self._caught_up()

    def _caught_up(self) -> None:
        self.behind = False
        self.room = self._limit
        self._report(over=True)

    def report(self, *, over: bool = False) -> TicksConflated:
        """The present episode, or the last one, as far as it has come."""
        return TicksConflated(
            dataname=self._dataname,
            start_ns=self._start_ns,
            end_ns=self._end_ns,
            count=self._count,
            dropped=self._lost_count,
            over=over,
        )

    def _report(self, *, over: bool) -> None:
        """Tell; while the lock is held, so that the end is never told before the beginning."""
        report = self.report(over=over)
        _log.warning(
            "%s dataname=%s start_ns=%d end_ns=%d count=%d dropped=%d",
            "ticks-caught-up" if over else "ticks-conflated",
            report.dataname,
            report.start_ns,
            report.end_ns,
            report.count,
            report.dropped,
        )
        self._tell(report)
