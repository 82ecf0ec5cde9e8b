"""The bars of another backtrader feed, before a live feed's own: ``backfill_from``."""

from __future__ import annotations

from typing import Any

from bt_ibkr.feeds.times import epoch_ns
from bt_ibkr.model.market import Bar


class StoredFirst:
    """Reads a feed that cerebro does not know, bar by bar.

    Args:
        data: The feed; its bars are stamped with their right edges, as ours are.
        env: Cerebro.
        bar_ns: Length of our bars.

    Attributes:
        over: It has no further bar.
        last_ns: The right edge of the last bar taken.
    """

    def __init__(self, data: Any, env: Any, bar_ns: int) -> None:
        self._data = data
        self._bar_ns = bar_ns
        self.over = False
        self.last_ns = 0
        data.setenvironment(env)
        data._start()  # noqa: SLF001 - as cerebro does with its own

    def take(self) -> Bar | None:
        """The next bar that is later than all before; ``None`` if there is none now."""
        data = self._data
        while not self.over:
            came = data.next()
            if not came:
                # None says that more may come, False that nothing will.
                if came is not None:
                    self.over = True
                    data.stop()
                return None
            end_ns = epoch_ns(data.datetime[0])
            # Times are days as floats: a stamp is right to some microseconds.
            end_ns = round(end_ns / 1_000_000) * 1_000_000
            if end_ns <= self.last_ns:
                continue
            self.last_ns = end_ns
            lines = (data.open, data.high, data.low, data.close, data.volume)
            return Bar(end_ns - self._bar_ns, end_ns, *(line[0] for line in lines))
        return None
