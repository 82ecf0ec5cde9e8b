"""What the store asks of feeds and broker in each cycle, and what a lockstep market asks of the store."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from bt_ibkr.connection.backlog import TickBacklog
from bt_ibkr.connection.interface import SessionChanged
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
