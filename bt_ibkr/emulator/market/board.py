"""The instruments that are in the market, and what an event does to them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import msgspec

from bt_ibkr.emulator.exchange.book import Book
from bt_ibkr.emulator.listing import Listing, update_quote
from bt_ibkr.emulator.types import Instrument, MarketEvent, QuoteState
from bt_ibkr.emulator.universe import Universe
from bt_ibkr.errors import ContractNotFoundError
from bt_ibkr.model.market import Bar


class Watcher(Protocol):
    """Who hears of quotes and matches orders against them."""

    def on_quote(self, instrument: Instrument, quote: QuoteState, event: MarketEvent) -> None:
        """The quote holds the new values already."""

    def on_event(self, book: Book, event: MarketEvent) -> None:
        """Called after ``on_quote``, if there are orders."""


class Board:
    """All listings.

    Args:
        universe: The instruments that exist.
        watcher: Is told of everything.
        clock: Market time.

    Attributes:
        quotes: By conid, of the instruments that are listed.
    """

    def __init__(self, universe: Universe, watcher: Watcher, clock: Callable[[], int]) -> None:
        self._universe = universe
        self._watcher = watcher
        self._clock = clock
        self._listings: dict[int, Listing] = {}
        self.quotes: dict[int, QuoteState] = {}

    def __iter__(self) -> Iterator[Listing]:
        return iter(self._listings.values())

    def get(self, conid: int) -> Listing | None:
        """The listing, if the instrument is in the market."""
        return self._listings.get(conid)

    def listing(self, conid: int) -> Listing:
        """The listing; the instrument comes into the market if it is not in it.

        Raises:
            ContractNotFoundError: The conid is not in the universe.
        """
        listing = self._listings.get(conid)
        if listing is None:
            instrument = self._universe.by_conid(conid)
            if instrument is None:
                raise ContractNotFoundError(f"Conid {conid} is not in the emulator's universe.")
            listing = self._listings[conid] = Listing(instrument, self._clock())
            self.quotes[conid] = listing.quote
        return listing

    def preload(self, conid: int, bars: Sequence[Bar]) -> None:
        """Give history of the time before the tape: minutes or days, see ``BarStore.preload``.

        Raises:
            ContractNotFoundError: The conid is not in the universe.
            UsageError: The bars are of another length, or the market has started.
        """
        listing = self.listing(conid)
        listing.bars.preload(bars)
        if bars and listing.quote.prior_close is None and bars[-1].end_ns <= self._clock():
            listing.quote.prior_close = bars[-1].close

    def history(
        self, conid: int, start_ns: int, end_ns: int, bar_ns: int, source: str, *, regular_hours_only: bool
    ) -> list[Bar]:
        """Bars that start in ``[start, end)``, from events that were applied, see ``BarStore.bars``.

        Raises:
            UsageError: The source or the length cannot be served.
        """
        listing = self._listings.get(conid)
        if listing is None:
            return []
        return listing.bars.bars(start_ns, end_ns, bar_ns, source, regular_hours_only=regular_hours_only)

    def apply(self, event: MarketEvent) -> None:
        """Let an event of a listed instrument happen, now."""
        listing = self._listings[event.conid]
        time_ns = event.time_ns
        if time_ns >= listing.close_ns or time_ns >= listing.midnight_ns:
            listing.roll(time_ns)
        quote = listing.quote
        if listing.instrument.quote_only and event.bid is not None and event.bid == quote.bid:
            # A bid said again is no change: a client never hears of it, so it is no print either.
            event = msgspec.structs.replace(event, bid=None)
        update_quote(quote, event, quote_only=listing.instrument.quote_only)
        listing.bars.apply(event, quote)
        listing.book.take_in(event)
        self._watcher.on_quote(listing.instrument, quote, event)
        if listing.book.orders:
            self._watcher.on_event(listing.book, event)

    def set_halted(self, conid: int, on: bool) -> Listing | None:
        """Halt an instrument or let it trade again; its listing, or ``None`` if nothing changed.

        Raises:
            ContractNotFoundError: The conid is not in the universe.
        """
        listing = self.listing(conid)
        if listing.quote.halted is on:
            return None
        listing.quote.halted = on
        listing.quote.version += 1
        self._watcher.on_quote(listing.instrument, listing.quote, MarketEvent(self._clock(), conid))
        return listing
