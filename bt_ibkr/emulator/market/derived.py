"""Quotes that follow from other quotes: options, warrants and CFDs from their underlying, combos from their legs.

An option's bid and ask stand a hundredth of its value, at least a tick, below and above what Black's model
says at the underlying's present price; 25 contracts are shown on each side, none where the bid would be 0. A
combo's bid is what its legs fetch if it is sold at once, its ask what they cost: a leg that is bought counts
at its ask, one that is sold at its bid, each times ratio and multiplier; the size is what all legs can give. A CFD
is quoted as what it is on. An event contract of CME is worth how likely Black's model takes the event to be; No of
ForecastEx is worth what Yes lacks to 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import date
from decimal import Decimal
from typing import Protocol

import msgspec

from bt_ibkr.emulator.accounts.valuation import exact, market_price
from bt_ibkr.emulator.market import pricing
from bt_ibkr.emulator.market.sessions import session_of_day
from bt_ibkr.emulator.types import Instrument, QuoteState
from bt_ibkr.emulator.universe import Universe
from bt_ibkr.model.contract import SecurityType

_SHOWN = 25.0
_HALF_SPREAD = 0.01


class Top(msgspec.Struct, frozen=True):
    """Bid and ask with their sizes; a size of ``None`` is not known and does not limit."""

    bid: float
    bid_size: float | None
    ask: float
    ask_size: float | None
    halted: bool = False


class Derivation(Protocol):
    """Makes the quote of one instrument from those of others."""

    @property
    def sources(self) -> tuple[int, ...]:
        """Conids of the others."""

    def top(self, quotes: Mapping[int, QuoteState], now_ns: int) -> Top | None:
        """The quote now; ``None`` while one of the others has no price."""


def expiry_ns(instrument: Instrument) -> int:
    """When an option's or future's last session ends."""
    day = date.fromisoformat(instrument.contract.last_trade_date or "99991230")
    return session_of_day(instrument, day)[1]


class OptionQuote:
    """The quote of an option."""

    def __init__(self, option: Instrument, underlying: Instrument) -> None:
        self._contract = option.contract
        self._underlying = underlying
        self._volatility = underlying.annual_volatility
        self._expiry_ns = expiry_ns(option)

    @property
    def sources(self) -> tuple[int, ...]:
        return (self._underlying.contract.conid,)

    def top(self, quotes: Mapping[int, QuoteState], now_ns: int) -> Top | None:
        source = quotes.get(self._underlying.contract.conid)
        price = market_price(self._underlying, source)
        if source is None or price is None:
            return None
        worth = pricing.value(
            price,
            self._contract.strike or 0.0,
            pricing.years(now_ns, self._expiry_ns),
            self._volatility,
            call=self._contract.right == "C",
        )
        tick = self._contract.tick_size
        half = max(tick, worth * _HALF_SPREAD)
        bid = max(math.floor((worth - half) / tick + 1e-9), 0)
        ask = max(math.ceil((worth + half) / tick - 1e-9), bid + 1)
        return Top(
            round(bid * tick, 10),
            _SHOWN if bid else 0.0,
            round(ask * tick, 10),
            _SHOWN,
            source.halted,
        )


class DigitalQuote:
    """The quote of an event contract on a future: a tick on either side of how likely the event is."""

    def __init__(self, event: Instrument, underlying: Instrument) -> None:
        self._contract = event.contract
        self._underlying = underlying
        self._volatility = underlying.annual_volatility
        self._expiry_ns = expiry_ns(event)

    @property
    def sources(self) -> tuple[int, ...]:
        return (self._underlying.contract.conid,)

    def top(self, quotes: Mapping[int, QuoteState], now_ns: int) -> Top | None:
        source = quotes.get(self._underlying.contract.conid)
        price = market_price(self._underlying, source)
        if source is None or price is None:
            return None
        left = pricing.years(now_ns, self._expiry_ns)
        above = pricing.likelihood(price, self._contract.strike or 0.0, left, self._volatility)
        cents = round(100 * (above if self._contract.right == "C" else 1 - above))
        bid, ask = max(cents - 1, 0), min(cents + 1, 100)
        return Top(bid / 100, _SHOWN if bid else 0.0, ask / 100, _SHOWN if ask < 100 else 0.0, source.halted)


class OppositeQuote:
    """The quote of No: who sells Yes to one who buys it buys No."""

    def __init__(self, yes: Instrument) -> None:
        self._yes = yes

    @property
    def sources(self) -> tuple[int, ...]:
        return (self._yes.contract.conid,)

    def top(self, quotes: Mapping[int, QuoteState], now_ns: int) -> Top | None:
        yes = quotes.get(self._yes.contract.conid)
        if yes is None or yes.bid is None or yes.ask is None:
            return None
        return Top(round(1 - yes.ask, 2), yes.ask_size, round(1 - yes.bid, 2), yes.bid_size, yes.halted)


class CfdQuote:
    """The quote of a CFD: that of what it is on, or of an index a tick on either side of it."""

    def __init__(self, cfd: Instrument, underlying: Instrument) -> None:
        self._tick = cfd.contract.tick_size
        self._underlying = underlying

    @property
    def sources(self) -> tuple[int, ...]:
        return (self._underlying.contract.conid,)

    def top(self, quotes: Mapping[int, QuoteState], now_ns: int) -> Top | None:
        source = quotes.get(self._underlying.contract.conid)
        price = market_price(self._underlying, source)
        if source is None or price is None:
            return None
        if source.bid is not None and source.ask is not None:
            return Top(source.bid, source.bid_size, source.ask, source.ask_size, source.halted)
        bid = math.floor(price / self._tick - 1 + 1e-9)
        return Top(
            round(bid * self._tick, 10), _SHOWN, round((bid + 2) * self._tick, 10), _SHOWN, source.halted
        )


def derivation(instrument: Instrument, universe: Universe) -> Derivation | None:
    """How the quote of an instrument follows from others; ``None`` if it has a market of its own."""
    contract = instrument.contract
    if contract.legs:
        parts = [universe.by_conid(leg.conid) for leg in contract.legs]
        return ComboQuote(instrument, tuple(part for part in parts if part is not None))
    if instrument.digital and contract.security_type is SecurityType.OPTION:
        yes = universe.events.other_side(contract.conid) if contract.right == "P" else None
        return None if yes is None else OppositeQuote(yes)
    underlying = universe.by_conid(instrument.underlying_conid)
    if underlying is None:
        return None
    if contract.security_type is SecurityType.CFD:
        return CfdQuote(instrument, underlying)
    return (DigitalQuote if instrument.digital else OptionQuote)(instrument, underlying)


class ComboQuote:
    """The quote of a combo."""

    def __init__(self, combo: Instrument, parts: tuple[Instrument, ...]) -> None:
        self._legs = tuple(zip(combo.contract.legs, parts, strict=True))
        self._multiplier = exact(combo.contract.multiplier)

    @property
    def sources(self) -> tuple[int, ...]:
        return tuple(leg.conid for leg, _ in self._legs)

    def top(self, quotes: Mapping[int, QuoteState], now_ns: int) -> Top | None:
        bid = ask = Decimal(0)
        bid_size: float | None = None
        ask_size: float | None = None
        halted = False
        for leg, part in self._legs:
            quote = quotes.get(leg.conid)
            middle = market_price(part, quote)
            if quote is None or middle is None:
                return None
            halted = halted or quote.halted
            low = quote.bid if quote.bid is not None else middle
            high = quote.ask if quote.ask is not None else middle
            low_size, high_size = quote.bid_size, quote.ask_size
            if leg.ratio < 0:
                low, high, low_size, high_size = high, low, high_size, low_size
            points = leg.ratio * exact(part.contract.multiplier) / self._multiplier
            bid += points * exact(low)
            ask += points * exact(high)
            bid_size = _least(bid_size, low_size, leg.ratio)
            ask_size = _least(ask_size, high_size, leg.ratio)
        return Top(float(bid), bid_size, float(ask), ask_size, halted)


def _least(so_far: float | None, size: float | None, ratio: int) -> float | None:
    if size is None:
        return so_far
    here = float(size // abs(ratio))
    return here if so_far is None else min(so_far, here)
