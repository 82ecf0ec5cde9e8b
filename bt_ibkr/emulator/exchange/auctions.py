"""Which orders take part in an auction: at the close, or at the opening, which is the first print of a session."""

from __future__ import annotations

from bt_ibkr.emulator.exchange.book import AT_CLOSE, Book, Working
from bt_ibkr.emulator.types import MarketEvent


def at_open(book: Book, event: MarketEvent) -> tuple[float, list[Working]] | None:
    """The opening's price and the orders for it; ``None`` if the event is no opening print."""
    price = book.print_of(event)
    if price is None or book.quote.halted:
        return None
    due = [w for w in book.orders if w.opens_ns is not None and event.time_ns >= w.opens_ns]
    return price, due


def at_close(book: Book) -> tuple[float, list[Working]] | None:
    """The closing price and the orders for it; ``None`` if there was no print, or in a halt."""
    price = book.last_print()
    if price is None or book.quote.halted:
        return None
    return price, [w for w in book.orders if w.order.spec.order_type in AT_CLOSE]


def takes_part(working: Working) -> bool:
    """Whether the order can execute now; one of the orders before it may have ended it."""
    return working.alive and working.order.active and not working.held


def outside(working: Working, price: float) -> bool:
    """Whether the price is worse than the order's limit."""
    limit = working.limit
    return limit is not None and (limit < price if working.buys else limit > price)
