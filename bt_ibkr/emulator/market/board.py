"""The instruments that are in the market, and what an event does to them.

Options and combos come into the market when they are first asked for. From then on their quotes follow those
they are made from; an event of an option's own, from the tape or from control, ends that for good.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import msgspec

from bt_ibkr.emulator.exchange.book import Book
from bt_ibkr.emulator.listing import Listing, print_of_recording, update_quote
from bt_ibkr.emulator.market.derived import derivation
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

    def on_reopening(self, book: Book) -> None:
        """A halt ended."""


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
        self._options: dict[int, list[Listing]] = {}
        self._combos: dict[int, list[Listing]] = {}
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
            self._follow(listing)
        return listing

    def _follow(self, listing: Listing) -> None:
        """Let an option's or combo's quote follow those it is made from."""
        listing.derivation = derivation(listing.instrument, self._universe)
        if listing.derivation is None:
            return
        followers = self._combos if listing.instrument.contract.legs else self._options
        for source in listing.derivation.sources:
            self.listing(source)
            followers.setdefault(source, []).append(listing)
        self._derive(listing)

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

    def show(self, picture: MarketEvent) -> None:
        """Let a quote stand without having happened: what a recording began with."""
        listing = self.listing(picture.conid)
        listing.derivation = None
        listing.quote.halted = bool(picture.halted)
        update_quote(listing.quote, picture, quote_only=listing.instrument.quote_only)
        listing.book.take_in(print_of_recording(picture))

    def apply(self, event: MarketEvent) -> None:
        """Let an event of a listed instrument happen, now, and what follows from it."""
        listing = self._listings[event.conid]
        listing.derivation = None
        self._happen(listing, event)
        if self._options or self._combos:
            self._pass_on(listing)

    def _pass_on(self, listing: Listing) -> None:
        """Derive what is made from the listing: first options, then each combo once, from whole quotes."""
        changed = [listing, *self._options.get(listing.instrument.contract.conid, ())]
        for option in changed[1:]:
            self._derive(option)
        combos = {
            combo.quote.conid: combo
            for source in changed
            for combo in self._combos.get(source.instrument.contract.conid, ())
        }
        for combo in combos.values():
            self._derive(combo)

    def _derive(self, listing: Listing) -> None:
        if listing.derivation is None:
            return
        now_ns, quote = self._clock(), listing.quote
        top = listing.derivation.top(self.quotes, now_ns)
        if top is None:
            return
        reopened = quote.halted and not top.halted
        quote.halted = top.halted
        self._happen(
            listing,
            MarketEvent(
                now_ns,
                quote.conid,
                bid=top.bid if top.bid != quote.bid else None,
                bid_size=top.bid_size,
                ask=top.ask if top.ask != quote.ask else None,
                ask_size=top.ask_size,
            ),
        )
        if reopened and listing.book.orders:
            self._watcher.on_reopening(listing.book)

    def _happen(self, listing: Listing, event: MarketEvent) -> None:
        time_ns = event.time_ns
        if time_ns >= listing.close_ns or time_ns >= listing.turn_ns:
            listing.roll(time_ns)
        quote = listing.quote
        if listing.instrument.quote_only and event.bid is not None and event.bid == quote.bid:
            # A bid said again is no change: a client never hears of it, so it is no print either.
            event = msgspec.structs.replace(event, bid=None)
        reopened = event.halted == 0 and quote.halted
        if event.halted is not None:
            quote.halted = bool(event.halted)
        update_quote(quote, event, quote_only=listing.instrument.quote_only)
        if event.traded is not None:
            event = print_of_recording(event)
        listing.bars.apply(event, quote)
        listing.book.take_in(event)
        self._watcher.on_quote(listing.instrument, quote, event)
        if listing.book.orders:
            if reopened:
                self._watcher.on_reopening(listing.book)
            self._watcher.on_event(listing.book, event)

    def set_halted(self, conid: int, on: bool) -> None:
        """Halt an instrument and what is made from it, or let them trade again.

        Raises:
            ContractNotFoundError: The conid is not in the universe.
        """
        listing = self.listing(conid)
        if listing.quote.halted is on:
            return
        listing.quote.halted = on
        listing.quote.version += 1
        self._watcher.on_quote(listing.instrument, listing.quote, MarketEvent(self._clock(), conid))
        if not on:
            self._watcher.on_reopening(listing.book)
        self._pass_on(listing)
