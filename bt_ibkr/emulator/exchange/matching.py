"""Fill models: when, at what price and for how much an order executes.

``quote``
    A marketable order trades at once against bid or ask, for the displayed size; what is left waits until
    the quote is updated, which replenishes the size. A resting limit order trades at its limit when the
    opposite quote reaches it, or, for the size of the print, when a print trades through it. Our own orders
    share displayed and printed size by price, then by time. An instrument that shows neither bid nor ask
    (a tape of trades only) trades at its prints, for their size.

``last``
    Every order waits for the next print after it arrived and trades in full: market orders at its price,
    limit orders when it is at the limit or better, at the limit; at the print's own price if the first
    print after the arrival is better. Stops trade at the print that triggers them.

Prints are trades; for instruments without trades, changes of the bid.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Protocol

from bt_ibkr.emulator.accounts.valuation import exact
from bt_ibkr.emulator.exchange.book import AT_CLOSE, PEGGED, Book, Working
from bt_ibkr.emulator.types import MarketEvent
from bt_ibkr.model.order import TimeInForce


class Venue(Protocol):
    """What a fill model does to orders."""

    def fill(self, working: Working, quantity: Decimal, price: float, *, adds_liquidity: bool) -> None:
        """Execute a part of the order."""

    def triggered(self, working: Working) -> None:
        """The order was triggered."""

    def expire(self, working: Working) -> None:
        """Cancel what is left of an immediate-or-cancel order."""

    def open_for(self, working: Working) -> bool:
        """Whether the order may match at this moment."""


class FillModel(Protocol):
    """How orders execute."""

    def on_arrival(self, book: Book, working: Working, venue: Venue) -> None:
        """An order became able to match."""

    def on_event(self, book: Book, event: MarketEvent, venue: Venue) -> None:
        """The quote changed; ``book`` has taken the event in."""

    def on_reopening(self, book: Book, venue: Venue) -> None:
        """A halt ended."""


def _ready(working: Working, venue: Venue) -> bool:
    return (
        working.alive
        and working.order.active
        and not working.held
        and working.opens_ns is None
        and working.order.spec.order_type not in AT_CLOSE
        and venue.open_for(working)
    )


class QuoteModel:
    """Fill model ``quote``."""

    def on_arrival(self, book: Book, working: Working, venue: Venue) -> None:
        if book.quote.halted or not _ready(working, venue):
            return
        last = book.last_print()
        if working.waits_for_trigger and last is not None:
            self._trigger(book, working, last, venue)
        self._touch_one(book, working, venue)
        _expire_if_immediate(working, venue)

    def on_event(self, book: Book, event: MarketEvent, venue: Venue) -> None:
        if book.quote.halted:
            return
        price = book.print_of(event)
        if price is not None:
            for working in list(book.orders):
                if working.waits_for_trigger and working.arrival < book.prints and _ready(working, venue):
                    self._trigger(book, working, price, venue)
        self._touch(book, venue)
        if event.last is not None and not book.instrument.quote_only:
            self._print(book, event.last, event.last_size, venue)
        for working in list(book.orders):
            if _ready(working, venue):
                _expire_if_immediate(working, venue)

    def on_reopening(self, book: Book, venue: Venue) -> None:
        self._touch(book, venue)

    def _trigger(self, book: Book, working: Working, price: float, venue: Venue) -> None:
        if working.triggers(price):
            working.trigger()
            # it enters the market after the print that triggered it
            working.arrival = book.prints
            venue.triggered(working)
        else:
            working.trail(price)

    def _touch(self, book: Book, venue: Venue) -> None:
        for buys in (True, False):
            for working in book.by_priority(buys=buys):
                if _ready(working, venue):
                    self._touch_one(book, working, venue)

    def _touch_one(self, book: Book, working: Working, venue: Venue) -> None:
        """Trade against the opposite quote, if it is within the order's limit."""
        if working.waits_for_trigger:
            return
        opposite = book.quote.ask if working.buys else book.quote.bid
        if opposite is None:
            return
        limit = working.price_limit(book.quote)
        if limit is not None and (limit < opposite if working.buys else limit > opposite):
            working.resting = True
            return
        price = limit if working.resting and limit is not None else opposite
        quantity = _whole(working, book.left(buys=working.buys), price)
        if quantity <= 0:
            return
        book.use(quantity, buys=working.buys)
        venue.fill(working, quantity, price, adds_liquidity=working.resting)

    def _print(self, book: Book, price: float, size: float | None, venue: Venue) -> None:
        """Trade resting orders against a print that went through them."""
        blind = book.quote.bid is None and book.quote.ask is None
        printed = None if size is None else exact(size)
        for buys in (True, False):
            left = printed
            for working in book.by_priority(buys=buys):
                if working.waits_for_trigger or working.arrival >= book.prints or not _ready(working, venue):
                    continue
                at = _print_price(working, price, book, blind=blind)
                quantity = Decimal(0) if at is None else _whole(working, left, at)
                if at is None or quantity <= 0:
                    continue
                if left is not None:
                    left -= quantity
                venue.fill(working, quantity, at, adds_liquidity=working.resting)


def _print_price(working: Working, price: float, book: Book, *, blind: bool) -> float | None:
    """The price at which a print trades an order in model ``quote``; ``None`` if it does not.

    A print *through* a resting order trades it, one *at* it may have gone to those before it in the queue;
    pegged orders stand between the quotes, so that a print at their price is theirs. Without quotes
    (``blind``) prints are all there is.
    """
    limit = working.price_limit(book.quote)
    if limit is None:
        return price if blind else None
    better = limit - price if working.buys else price - limit
    if blind:
        if better < 0:
            working.resting = True
            return None
        return limit if working.resting else price
    if not working.resting:
        return None
    through = better >= 0 if working.order.spec.order_type in PEGGED else better > 0
    return limit if through else None


class LastModel:
    """Fill model ``last``."""

    def on_arrival(self, book: Book, working: Working, venue: Venue) -> None:
        """Nothing happens before the next print, but a trail without a stop takes the last one."""
        last = book.last_print()
        if working.order.stop_price is None and last is not None and working.waits_for_trigger:
            working.trail(last)

    def on_event(self, book: Book, event: MarketEvent, venue: Venue) -> None:
        price = book.print_of(event)
        if price is None or book.quote.halted:
            return
        for working in list(book.orders):
            if working.arrival < book.prints and _ready(working, venue):
                self._print(book, working, price, venue)

    def on_reopening(self, book: Book, venue: Venue) -> None:
        """The next print decides."""

    def _print(self, book: Book, working: Working, price: float, venue: Venue) -> None:
        if working.waits_for_trigger:
            if not working.triggers(price):
                working.trail(price)
                return
            working.trigger()
            venue.triggered(working)
        limit = working.price_limit(book.quote)
        first, working.seen = not working.seen, True
        better = 0.0 if limit is None else limit - price if working.buys else price - limit
        if better >= 0:
            at = price if limit is None or first else limit
            quantity = _whole(working, None, at)
            if quantity > 0:
                venue.fill(working, quantity, at, adds_liquidity=not first)
        _expire_if_immediate(working, venue)


def _whole(working: Working, left: Decimal | None, price: float) -> Decimal:
    """As much of the order as ``left`` allows, in whole steps; none of an all-or-none order that is more."""
    working.afford(price)
    wanted = working.matchable
    if left is None or left >= wanted:
        return (
            wanted
            if working.released is None or wanted == working.order.remaining
            else _steps(working, wanted)
        )
    return Decimal(0) if working.order.spec.all_or_none else _steps(working, left)


def _steps(working: Working, quantity: Decimal) -> Decimal:
    return quantity // working.step * working.step


def _expire_if_immediate(working: Working, venue: Venue) -> None:
    spec = working.order.spec
    if (
        spec.time_in_force is TimeInForce.IMMEDIATE_OR_CANCEL
        and not working.waits_for_trigger
        and working.alive
    ):
        venue.expire(working)


_MODELS: dict[str, Callable[[], FillModel]] = {"quote": QuoteModel, "last": LastModel}
MODEL_NAMES = tuple(_MODELS)


def fill_model(name: str) -> FillModel:
    """The model of that name.

    Raises:
        KeyError: There is none.
    """
    return _MODELS[name]()
