"""Orders that an algorithm works: what is released of them, and when."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

from bt_ibkr.emulator.accounts.valuation import exact
from bt_ibkr.emulator.exchange import algorithms
from bt_ibkr.emulator.exchange.appointments import Schedule
from bt_ibkr.emulator.exchange.book import Book, Working
from bt_ibkr.emulator.types import MarketEvent


class Slicing:
    """Releases slices.

    Args:
        schedule: Calls back at a market time.
        released: Lets an order match of which more has been released.
    """

    def __init__(self, schedule: Schedule, released: Callable[[Working], None]) -> None:
        self._schedule = schedule
        self._released = released

    def begin(self, working: Working, now_ns: int) -> None:
        """Begin to work an order that may match from now on; does nothing for one without an algorithm."""
        algorithm = working.order.spec.algorithm
        if algorithm is None or working.released is not None:
            return
        plan = algorithms.plan(algorithm, working.instrument, now_ns)
        working.released = Decimal(0)
        if plan.participation is not None:
            working.participation = (plan.participation, plan.start_ns)
            return
        for at_ns, fraction in plan.slices:
            if at_ns <= now_ns:
                self._release(working, fraction)
            else:
                self._schedule(at_ns, self._later(working, fraction))

    def resume(self, working: Working, now_ns: int) -> None:
        """Go on with an order that was worked before; what was due meanwhile is released."""
        algorithm = working.order.spec.algorithm
        if algorithm is None or working.released is None or working.participation is not None:
            return
        for at_ns, fraction in algorithms.plan(
            algorithm, working.instrument, working.order.created_ns
        ).slices:
            if at_ns <= now_ns:
                self._release(working, fraction)
            else:
                self._schedule(at_ns, self._later(working, fraction))

    def _later(self, working: Working, fraction: Decimal) -> Callable[[int], None]:
        def release(now_ns: int) -> None:
            if working.alive:
                self._release(working, fraction)
                self._released(working)

        return release

    @staticmethod
    def _release(working: Working, fraction: Decimal) -> None:
        """All of the last slice, of the others whole steps."""
        quantity, step = working.order.spec.quantity, working.step
        part = quantity if fraction >= 1 else quantity * fraction // step * step
        working.released = max(part, working.released or Decimal(0))

    @staticmethod
    def take_part(book: Book, event: MarketEvent) -> None:
        """Release what orders that follow the volume may trade after a print."""
        if event.last is None or not event.last_size:
            return
        for working in book.orders:
            if working.participation is None or not working.order.active:
                continue
            share, start_ns = working.participation
            if event.time_ns >= start_ns:
                total = (working.released or Decimal(0)) + share * exact(event.last_size)
                working.released = min(total, working.order.spec.quantity)
