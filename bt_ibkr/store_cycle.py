"""The store's cycle: what it waits for, and what it asks of feeds and broker each time.

Cerebro asks the store for notifications once per cycle, before it polls any feed. There, and nowhere else, its thread
sleeps until there is something to do: a bar is ready, an order event has come, a notification is due, or the next
bar's edge has passed. Each cycle also fixes the *cutoff*: the earliest time of any bar that is ready. A feed delivers
only a bar of that time, so bars reach the strategies in time order, cerebro never has to rewind a feed, and
``exactbars=1`` works with several feeds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sized
from typing import Protocol

from bt_ibkr.connection.backlog import TickBacklog
from bt_ibkr.connection.interface import Connection, Progress, SessionChanged
from bt_ibkr.connection.mailbox import WakeUp
from bt_ibkr.services.datanames import ContractQuery


class StoreFeed(Protocol):
    """What the store asks of a feed, once per cycle."""

    def prepare(self) -> int | None:
        """Take in what has arrived, close bars up to ``store.market_ns()``; the time of the next to deliver."""

    def deadline_ns(self) -> int | None:
        """Market time of the next edge at which a bar may have to be closed."""

    def has_news(self) -> bool:
        """A notification or the feed's end is waiting to be seen by cerebro."""

    @property
    def holding(self) -> bool:
        """Its first history is on the way: what others have ready may be later than what it will bring."""

    @property
    def over(self) -> bool:
        """Cerebro has seen the feed's end."""

    @property
    def check_ns(self) -> int | None:
        """When what was resampled from it may have to be closed by the clock; ``None`` if nothing was."""

    def complete_ns(self, market_ns: int) -> int:
        """Up to when, at most to ``market_ns``, all of its bars were delivered: after a break some are missing."""

    def checked(self, now_ns: int) -> None:
        """Cerebro has looked at what was resampled from it, at that time."""

    def twins_wait(self) -> bool:
        """What was resampled from it has a bar that cerebro has not fetched, or has not seen its last bar."""

    @property
    def query(self) -> ContractQuery | None:
        """The contract it follows; ``None`` if it follows none."""

    @property
    def backlog(self) -> TickBacklog:
        """The ticks that wait for it."""

    def session_changed(self, change: SessionChanged) -> None:
        """The session broke or came back."""

    def finish(self) -> None:
        """The market is over: deliver what is complete, then end."""


class StoreBroker(Protocol):
    """What the store asks of the broker."""

    def pending(self) -> bool:
        """Events wait to be applied, or notifications to be fetched."""

    def deadline_ns(self) -> int | None:
        """Market time at which the broker has to act by itself."""

    def settled(self) -> bool:
        """Everything asked of IBKR is answered, everything reported is applied."""


#: Called when a run has nothing to do, with the nearest market time at which a feed wants to look again (0: at
#: the next event). Returns whether it moved anything. A lockstep market is driven through it.
IdleHook = Callable[[int], bool]

#: Longest wait in one cycle, seconds: cerebro looks at ``runstop`` only between cycles.
_LONGEST_WAIT_S = 0.25


class Cycle:
    """The one place where a live run waits.

    Args:
        connection: The way to the session.
        wake: Set by whoever has something for the run.
        events: What the session told; not empty: ``take_events`` is called.
        take_events: Hands it to feeds and strategies.
        notifications: What waits for ``notify_store``.
        grace_ns: See ``IBKRStore.grace_ns``.

    Attributes:
        feeds, broker: Who takes part.
        cutoff_ns: The time of the bars that this cycle delivers, ns; ``None`` if none are ready.
        finishing: The market is over.
        idle_hook: See ``IdleHook``.
        stop_asked: The present wait is to end, so that cerebro sees ``runstop``.
    """

    def __init__(
        self,
        connection: Connection,
        wake: WakeUp,
        events: Sized,
        take_events: Callable[[], None],
        notifications: Sized,
        *,
        grace_ns: int,
    ) -> None:
        self.feeds: list[StoreFeed] = []
        self.broker: StoreBroker | None = None
        self.cutoff_ns: int | None = None
        self.finishing = False
        self.idle_hook: IdleHook | None = None
        self.stop_asked = False
        self._connection = connection
        self._wake = wake
        self._events = events
        self._take_events = take_events
        self._notifications = notifications
        self._grace_ns = grace_ns
        self._finish_after: Progress | None = None
        #: In this cycle the idle hook had nothing to add, or there is none.
        self._quiet = False
        self._looked_ns = 0

    def finish(self, after: Progress | None = None) -> None:
        """The market is over (an emulator's tape ended): feeds deliver what is complete and end.

        Args:
            after: Only once so much of the stream has been read.
        """
        if after is None:
            self.finishing = True
        else:
            self._finish_after = after
        self._wake.set()

    def _check_finish(self) -> None:
        wanted = self._finish_after
        if wanted is not None:
            progress = self._connection.progress()
            if progress.port != wanted.port or progress.frames >= wanted.frames:
                self._finish_after = None
                self.finishing = True

    def drained(self) -> bool:
        """Whether every answer has come and the broker has told everything: only then may a run end."""
        return self._quiet and self._settled() and (self.broker is None or not self.broker.pending())

    def await_work(self) -> None:
        """Wait for something to do, and fix the cutoff."""
        latest = 0.0
        while True:
            self._quiet = False
            if len(self._events):
                self._take_events()
            if self._finish_after is not None:
                self._check_finish()
            if self._look() or self.stop_asked or self._all_over():
                return
            if self._settled():
                hook = self.idle_hook
                if hook is not None and hook(self._horizon_ns()):
                    continue
                self._quiet = self.finishing
                if self._quiet and self._look():
                    return
            # Cerebro must see `runstop` and do its own chores now and then, however many ticks come that do
            # not complete a bar.
            latest = latest or time.monotonic() + _LONGEST_WAIT_S
            self._wake.wait(self._wait_s())
            if time.monotonic() >= latest:
                self._look()
                return

    def _all_over(self) -> bool:
        """Nothing more can come: cerebro asks for notifications once more after its loop."""
        return bool(self.feeds) and all(feed.over for feed in self.feeds)

    def at_rest(self) -> bool:
        """Whether nothing has come in that is not taken in yet, and nothing is under way; asked by idle hooks."""
        return not len(self._events) and not self._look() and self._settled()

    def _settled(self) -> bool:
        """Whether nothing is under way: no request, no order that waits for its answer."""
        return self._connection.in_flight() == 0 and (self.broker is None or self.broker.settled())

    def _look(self) -> bool:
        """Let feeds take in what arrived; true if this cycle has work."""
        self._looked_ns = 0
        cutoff: int | None = None
        finishing = self.finishing
        holding = False
        for feed in self.feeds:
            if finishing:
                feed.finish()
            head = feed.prepare()
            if head is not None and (cutoff is None or head < cutoff):
                cutoff = head
            if feed.holding:
                holding = True
        if holding:
            cutoff = None
        checks = self._checks_due(cutoff)
        self.cutoff_ns = None if checks else cutoff
        if checks or cutoff is not None or self._notifications:
            return True
        for feed in self.feeds:
            if feed.has_news():
                return True
        return self.broker is not None and self.broker.pending()

    def _checks_due(self, cutoff_ns: int | None) -> bool:
        """Whether cerebro needs a cycle without a bar before the next one.

        Only then backtrader closes resampled bars by the clock. One that is closed by a later bar comes in that bar's
        cycle, with a time before it: cerebro would take that bar back, and with ``exactbars=1`` it would be lost. And
        a resampled bar that is closed must be fetched before its source goes on: a clone sees only the newest bar.
        """
        due = False
        for feed in self.feeds:
            check_ns = feed.check_ns
            if check_ns is None:
                continue
            if feed.twins_wait():
                due = True
            elif cutoff_ns is None or cutoff_ns > check_ns:
                complete_ns = feed.complete_ns(self.market_ns())
                if complete_ns >= check_ns:
                    due = True
                    feed.checked(complete_ns)
        return due

    def market_ns(self) -> int:
        """How far the market is known to have come: by its own stamps, or by the clock less the grace.

        One time for all feeds of a cycle, so that bars of the same edge are closed together. Read before a feed
        takes in its ticks: every tick up to it is then there.
        """
        if not self._looked_ns:
            connection = self._connection
            self._looked_ns = max(connection.stream_ns(), connection.clock.now_ns() - self._grace_ns)
        return self._looked_ns

    def _horizon_ns(self) -> int:
        """The nearest market time at which a feed or the broker wants to look again; 0 for: at the next event."""
        deadlines = [d for d in (feed.deadline_ns() for feed in self.feeds) if d is not None]
        if deadlines and self.broker is not None and (due := self.broker.deadline_ns()) is not None:
            deadlines.append(due)
        return min(deadlines, default=0)

    def _wait_s(self) -> float:
        horizon = self._horizon_ns()
        if not horizon:
            return _LONGEST_WAIT_S
        clock = self._connection.clock
        until = clock.wall_s(horizon + self._grace_ns - clock.now_ns())
        return min(_LONGEST_WAIT_S, max(0.0005, until))
