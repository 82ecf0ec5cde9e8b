"""One instrument in the market: its quote, its working orders and its bars, kept together."""

from __future__ import annotations

import msgspec

from bt_ibkr.emulator.exchange.book import Book
from bt_ibkr.emulator.market.derived import Derivation
from bt_ibkr.emulator.market.history import BarStore
from bt_ibkr.emulator.market.sessions import next_close_ns, next_turn_ns
from bt_ibkr.emulator.types import EmulatedExecution, EmulatedOrder, Instrument, MarketEvent, QuoteState


class Silent:
    """Listens to nothing."""

    def on_quote(self, instrument: Instrument, quote: QuoteState, event: MarketEvent) -> None:
        """Ignored."""

    def on_order(self, order: EmulatedOrder) -> None:
        """Ignored."""

    def on_execution(self, execution: EmulatedExecution, order: EmulatedOrder) -> None:
        """Ignored."""

    def on_account(self, account: str) -> None:
        """Ignored."""


class Listing:
    """One instrument that has a quote.

    Attributes:
        derivation: Makes the quote from those of others; ``None`` for an instrument with a market of its own.
    """

    __slots__ = ("bars", "book", "close_ns", "derivation", "instrument", "quote", "turn_ns")

    def __init__(self, instrument: Instrument, now_ns: int) -> None:
        self.instrument = instrument
        self.quote = QuoteState(instrument.contract.conid)
        self.book = Book(instrument, self.quote)
        self.bars = BarStore(instrument)
        self.turn_ns = next_turn_ns(instrument, now_ns)
        self.close_ns = next_close_ns(instrument, now_ns)
        self.derivation: Derivation | None = None

    def roll(self, time_ns: int) -> None:
        """Note the close of a session and the turn of a day; both stand for the event that comes next."""
        quote = self.quote
        price = quote.bid if self.instrument.quote_only else quote.last
        if time_ns >= self.close_ns:
            quote.close = price
            self.close_ns = next_close_ns(self.instrument, time_ns)
        if time_ns >= self.turn_ns:
            if price is not None:
                quote.prior_close = quote.close if quote.close is not None else price
            quote.open = quote.high = quote.low = quote.close = None
            quote.volume = 0.0
            self.turn_ns = next_turn_ns(self.instrument, time_ns)


def print_of_recording(event: MarketEvent) -> MarketEvent:
    """An event of a recording as orders and bars see it: what is shown as the last trade may be no print, and a print
    may be more than the size shown."""
    if not event.traded:
        return msgspec.structs.replace(event, last=None, last_size=None)
    return (
        event if event.traded == event.last_size else msgspec.structs.replace(event, last_size=event.traded)
    )


def update_quote(quote: QuoteState, event: MarketEvent, *, quote_only: bool) -> None:
    """Let an event change a quote; ``quote_only`` takes the bid for the day's open, high and low."""
    quote.time_ns = event.time_ns
    quote.version += 1
    if event.bid is not None:
        quote.bid = event.bid
    if event.bid_size is not None:
        quote.bid_size = event.bid_size
    if event.ask is not None:
        quote.ask = event.ask
    if event.ask_size is not None:
        quote.ask_size = event.ask_size
    price = event.bid if quote_only else event.last
    if event.last is not None:
        quote.last = event.last
        quote.trades += 1
    if event.last_size is not None:
        quote.last_size = event.last_size
        if event.last is not None and event.traded is None:
            quote.volume += event.last_size
    if event.traded is not None:
        quote.volume = quote.volume + event.traded if event.volume is None else event.volume
        if not event.traded:
            quote.trades -= event.last is not None
            price = event.bid if quote_only else None
    if price is not None:
        if quote.open is None:
            quote.open = quote.high = quote.low = price
        elif price > quote.high:  # type: ignore[operator]
            quote.high = price
        elif price < quote.low:  # type: ignore[operator]
            quote.low = price
