"""What the scanner knows: a part of the real server's codes, under its names (recorded 2026-04)."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from bt_ibkr.emulator.services.marketdata.fields import mark_price
from bt_ibkr.emulator.types import Instrument, QuoteState
from bt_ibkr.model.contract import Contract, SecurityType

#: Of an instrument, what it is ranked or filtered by; ``None`` where it is not known.
Figure = Callable[[Instrument, QuoteState], float | None]


class ScanKind(msgspec.Struct, frozen=True):
    """A way to rank.

    Attributes:
        column: Name of what it is ranked by, as the answer tells it.
        falling: The highest figure first.
    """

    code: str
    name: str
    column: str
    figure: Figure
    falling: bool = True


class Condition(msgspec.Struct, frozen=True):
    """A filter: the figure must be at least its value, or at most."""

    code: str
    name: str
    figure: Figure
    above: bool


class Place(msgspec.Struct, frozen=True):
    """A location, and what lies in it."""

    code: str
    name: str
    parent: str
    holds: Callable[[Contract], bool]


def change(_: Instrument, quote: QuoteState) -> float | None:
    """Per cent since the previous close."""
    if quote.last is None or not quote.prior_close:
        return None
    return (quote.last / quote.prior_close - 1) * 100


def since_open(_: Instrument, quote: QuoteState) -> float | None:
    return None if quote.last is None or not quote.open else (quote.last / quote.open - 1) * 100


def price(_: Instrument, quote: QuoteState) -> float | None:
    return mark_price(quote)


def volume(_: Instrument, quote: QuoteState) -> float | None:
    return quote.volume


def trades(_: Instrument, quote: QuoteState) -> float | None:
    return float(quote.trades)


def turnover(instrument: Instrument, quote: QuoteState) -> float | None:
    shown = mark_price(quote)
    return None if shown is None else shown * quote.volume * instrument.contract.multiplier


def usual_volume(instrument: Instrument, _: QuoteState) -> float | None:
    return instrument.average_daily_volume


KINDS = (
    ScanKind("TOP_PERC_GAIN", "Top % Gainers", "Chg%", change),
    ScanKind("TOP_PERC_LOSE", "Top % Losers", "Chg%", change, falling=False),
    ScanKind("MOST_ACTIVE", "Most Active", "Volume", volume),
    ScanKind("MOST_ACTIVE_USD", "Most Active ($)", "Volume ($)", turnover),
    ScanKind("TOP_TRADE_COUNT", "Top Trade Count", "Trades", trades),
    ScanKind("TOP_OPEN_PERC_GAIN", "Top % Gainers Since Open", "Chg% Since Open", since_open),
    ScanKind("TOP_OPEN_PERC_LOSE", "Top % Losers Since Open", "Chg% Since Open", since_open, falling=False),
)
CONDITIONS = (
    Condition("priceAbove", "Price Above", price, above=True),
    Condition("priceBelow", "Price Below", price, above=False),
    Condition("changePercAbove", "Change % Above", change, above=True),
    Condition("changePercBelow", "Change % Below", change, above=False),
    Condition("volumeAbove", "Volume Above", volume, above=True),
    Condition("avgVolumeAbove", "Average Volume Above", usual_volume, above=True),
)
#: Kinds of instrument by the scanner's name, and what they are.
INSTRUMENTS: dict[str, tuple[str, SecurityType]] = {
    "STK": ("US Stocks", SecurityType.STOCK),
    "STOCK.EU": ("Europe Stocks", SecurityType.STOCK),
    "FUT.US": ("US Futures", SecurityType.FUTURE),
    "IND.US": ("US Indices", SecurityType.INDEX),
}
_MAJOR = ("NASDAQ", "NYSE", "AMEX", "ARCA", "BATS", "IEX")


def _dollars(contract: Contract) -> bool:
    return contract.currency == "USD"


def _major(contract: Contract) -> bool:
    return _dollars(contract) and (contract.listing_exchange or "").partition(".")[0] in _MAJOR


def _exchange(*names: str) -> Callable[[Contract], bool]:
    def holds(contract: Contract) -> bool:
        found = contract.listing_exchange or contract.exchange
        return (found or "").partition(".")[0] in names or contract.exchange in names

    return holds


PLACES = (
    Place("STK.US", "US Stocks", "", _dollars),
    Place("STK.US.MAJOR", "Listed/NASDAQ", "STK.US", _major),
    Place("STK.NASDAQ", "NASDAQ", "STK.US.MAJOR", _exchange("NASDAQ")),
    Place("STK.NYSE", "NYSE", "STK.US.MAJOR", _exchange("NYSE")),
    Place("STK.EU", "Europe Stocks", "", lambda contract: contract.currency in ("EUR", "GBP", "CHF")),
    Place("FUT.US", "US Futures", "", _dollars),
    Place("FUT.CME", "CME", "FUT.US", _exchange("CME")),
    Place("IND.US", "US Indices", "", _dollars),
)
