"""The ticks of a feed that delivers them one by one."""

from __future__ import annotations

from collections.abc import Callable

from bt_ibkr.connection.backlog import TickBacklog
from bt_ibkr.feeds.bars import PriceSource, tick_price
from bt_ibkr.model.market import Tick

#: An enum's member costs a look-up each time it is named; this runs for every tick.
_TRADES = PriceSource.TRADES


class TickReader:
    """Takes from a backlog the ticks that are events of a price source, in the order of time.

    Args:
        backlog: What waits.
        source: Which price.
        see: Called with each tick that is passed by or taken.
        catch_up: Called when the backlog is behind; whether it brought in more.
        late_through: Deliver ticks whose time is before that of one delivered; else they are counted and left out.
    """

    __slots__ = ("_catch_up", "_newest_ns", "_price", "_see", "_source", "_through", "backlog", "late")

    def __init__(
        self,
        backlog: TickBacklog,
        source: PriceSource,
        *,
        see: Callable[[Tick], None],
        catch_up: Callable[[], bool],
        late_through: bool,
    ) -> None:
        self.backlog = backlog
        self._source = source
        self._see = see
        self._catch_up = catch_up
        self._through = late_through
        self._newest_ns = 0
        self._price: float | None = None
        self.late = 0

    def head_ns(self) -> int | None:
        """The time of the next tick to deliver; passes by those that are none."""
        ticks = self.backlog
        trades = self._source is _TRADES
        while ticks or (ticks.behind and self._catch_up()):
            tick = ticks[0]
            if trades:
                event = tick.traded and tick.last is not None
            else:
                price = tick_price(tick, self._source)
                event = price is not None and price != self._price
            if event:
                if tick.time_ns >= self._newest_ns or self._through:
                    return tick.time_ns
                self.late += 1
            self._see(tick)
            ticks.popleft()
        return None

    def take(self) -> tuple[Tick, float] | None:
        """The tick that ``head_ns`` found, and its price; ``None`` if it is no longer the first."""
        tick = self.backlog.popleft()
        if self._source is _TRADES:
            price = tick.last if tick.traded else None
        else:
            price = tick_price(tick, self._source)
        if price is None:
            # `head_ns` looks at the head only; a picture may have slipped in after it.
            return None
        self._see(tick)
        self._price = price
        self._newest_ns = tick.time_ns
        return tick, price
