"""Prices and exchange rates by which accounts are valued."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

from bt_ibkr.emulator.types import Instrument, QuoteState
from bt_ibkr.emulator.universe import Universe
from bt_ibkr.model.contract import Leg, SecurityType

#: US dollars per unit, for currencies of which the tape shows no pair. Round figures of 2025.
REFERENCE_USD = {
    "USD": Decimal(1),
    "EUR": Decimal("1.15"),
    "GBP": Decimal("1.33"),
    "CHF": Decimal("1.25"),
    "JPY": Decimal("0.0067"),
    "CAD": Decimal("0.72"),
    "AUD": Decimal("0.65"),
    "NZD": Decimal("0.58"),
    "SGD": Decimal("0.775"),
    "MXN": Decimal("0.054"),
    "HKD": Decimal("0.128"),
    "SEK": Decimal("0.105"),
    "NOK": Decimal("0.099"),
    "DKK": Decimal("0.154"),
    "CNH": Decimal("0.14"),
}
_ONE = Decimal(1)


def exact(price: float) -> Decimal:
    """A price or size as the decimal number it is written as; whole numbers without a point."""
    # callers may hold an int, which has no is_integer before Python 3.12
    number = float(price)
    return Decimal(int(number)) if number.is_integer() else Decimal(repr(number))


def market_price(instrument: Instrument, quote: QuoteState | None) -> float | None:
    """The last trade, or the middle of bid and ask; for instruments without trades the middle first."""
    if quote is None:
        return None
    middle = None
    if quote.bid is not None and quote.ask is not None:
        middle = (quote.bid + quote.ask) / 2
    if instrument.quote_only:
        return middle if middle is not None else quote.bid if quote.bid is not None else quote.ask
    return quote.last if quote.last is not None else middle


class Valuation:
    """Values instruments and currencies from the present quotes.

    Args:
        universe: Where currency pairs are found.
        quotes: The engine's quotes by conid, read at each call.
    """

    def __init__(self, universe: Universe, quotes: Mapping[int, QuoteState]) -> None:
        self._universe = universe
        self._quotes = quotes

    def instrument(self, conid: int) -> Instrument:
        """The instrument of a conid that is known to be in the universe."""
        instrument = self._universe.by_conid(conid)
        if instrument is None:
            raise KeyError(conid)
        return instrument

    def legs(self, combo: Instrument) -> tuple[tuple[Leg, Instrument], ...]:
        """The legs of a combo with their instruments."""
        return tuple((leg, self.instrument(leg.conid)) for leg in combo.contract.legs)

    def quote(self, conid: int) -> QuoteState | None:
        """The present quote; ``None`` for an instrument that is not in the market."""
        return self._quotes.get(conid)

    def price(self, conid: int) -> Decimal | None:
        """The price at which a position is valued; ``None`` before the first quote."""
        found = market_price(self.instrument(conid), self._quotes.get(conid))
        return None if found is None else exact(found)

    def knows(self, currency: str) -> bool:
        """Whether there is any rate for the currency."""
        return currency in REFERENCE_USD or self._from_pair(currency, "USD") is not None

    def rate(self, currency: str, base: str) -> Decimal:
        """Units of ``base`` per unit of ``currency``.

        A quoted pair counts first, in either direction, then both currencies over the US dollar.

        Raises:
            KeyError: Neither a pair nor a reference rate is known.
        """
        if currency == base:
            return _ONE
        direct = self._from_pair(currency, base)
        if direct is not None:
            return direct
        return self._usd(currency) / self._usd(base)

    def _usd(self, currency: str) -> Decimal:
        if currency == "USD":
            return _ONE
        pair = self._from_pair(currency, "USD")
        return REFERENCE_USD[currency] if pair is None else pair

    def _from_pair(self, currency: str, base: str) -> Decimal | None:
        for symbol, inverse in ((f"{currency}.{base}", False), (f"{base}.{currency}", True)):
            for instrument in self._universe.by_symbol(symbol):
                if instrument.contract.security_type is not SecurityType.FOREX:
                    continue
                price = self.price(instrument.contract.conid)
                if price:
                    return _ONE / price if inverse else price
        return None
