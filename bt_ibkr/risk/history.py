"""What was placed in the last while: for limits on how often."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from typing import Final

from bt_ibkr.clock import NS_PER_S, Clock
from bt_ibkr.model.intent import OrderIntent

MINUTE_NS: Final = 60 * NS_PER_S


class History:
    """Orders of the last minute by strategy and account, and when each same order was placed last.

    Its time only goes on: while the clock steps back, none passes, so that a step back neither empties the windows
    nor closes them for as long as the step was.

    Args:
        clock: Of the market.
        longest_window_ns: For how long same orders are remembered; 0 for not at all.
    """

    def __init__(self, clock: Clock, longest_window_ns: int) -> None:
        self._clock = clock
        self._longest_ns = longest_window_ns
        self._read_ns = clock.now_ns()
        self._now_ns = 0
        self._placed: dict[tuple[str, str | None], deque[int]] = {}
        self._same: dict[Hashable, int] = {}

    def now_ns(self) -> int:
        """Nanoseconds since it was made."""
        read_ns = self._clock.now_ns()
        self._now_ns += max(0, read_ns - self._read_ns)
        self._read_ns = read_ns
        return self._now_ns

    def count(self, account: str, strategy: str | None) -> int:
        """Orders and changes within the last 60 s, of all strategies of the account if ``strategy`` is ``None``."""
        since_ns = self.now_ns() - MINUTE_NS
        found = self._placed.get((account, strategy))
        if found is None:
            return 0
        while found and found[0] <= since_ns:
            found.popleft()
        return len(found)

    def free_in_s(self, account: str, strategy: str | None, places: int) -> float:
        """Seconds until ``places`` of those that are counted now are older than 60 s."""
        found = self._placed[(account, strategy)]
        return (found[min(places, len(found)) - 1] + MINUTE_NS - self.now_ns()) / NS_PER_S

    def same_age_s(self, intent: OrderIntent) -> float | None:
        """Seconds since the same order was placed; ``None`` if it was not, or is forgotten."""
        placed_ns = self._same.get(signature(intent))
        return None if placed_ns is None else (self.now_ns() - placed_ns) / NS_PER_S

    def note(self, intent: OrderIntent, *, change: bool = False, age_ns: int = 0) -> None:
        """Remember an order that passed ``age_ns`` ago, or a change of one."""
        now_ns = self.now_ns()
        placed_ns = now_ns - max(0, age_ns)
        account = intent.ticket.account
        for key in ((account, intent.strategy), (account, None)):
            times = self._placed.setdefault(key, deque())
            if times and times[-1] > placed_ns:
                # Orders of before a restart may come in any order.
                self._placed[key] = deque(sorted((*times, placed_ns)))
            else:
                times.append(placed_ns)
        self.count(account, intent.strategy)
        self.count(account, None)
        if change or not self._longest_ns:
            return
        mark = signature(intent)
        self._same[mark] = max(placed_ns, self._same.pop(mark, placed_ns))
        # Dictionaries keep the order of insertion: the oldest stand first.
        while self._same[oldest := next(iter(self._same))] <= now_ns - self._longest_ns:
            del self._same[oldest]
            if not self._same:
                break

    def forget(self, intent: OrderIntent) -> None:
        """Forget an order that was noted last and came to nothing."""
        account = intent.ticket.account
        for key in ((account, intent.strategy), (account, None)):
            if times := self._placed.get(key):
                times.pop()
        self._same.pop(signature(intent), None)


def signature(intent: OrderIntent) -> Hashable:
    """What makes two orders the same order."""
    ticket = intent.ticket
    return (
        intent.strategy,
        ticket.account,
        ticket.contract_id,
        ticket.side,
        ticket.order_type,
        ticket.quantity,
        ticket.cash_quantity,
        ticket.fx_quantity,
        ticket.limit_price,
        ticket.stop_price,
        ticket.trail_amount,
        ticket.trail_percent,
    )
