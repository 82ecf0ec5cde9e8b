"""Top-of-book fields by tag, as text the way the real server writes it (field-tags, wire facts 4.4 and 5.1).

A reader takes a quote and gives the value of one field, or ``None`` while it is not known. Field 83 is a
number on the socket, as recorded; everything else that is asked for here is text.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter

from bt_ibkr.emulator.services import format as text
from bt_ibkr.emulator.types import Instrument, QuoteState

Value = str | float | int | None
Reader = Callable[[QuoteState], Value]
#: What 6509 tells: real time, snapshot allowed… consolidated, book.
QUALITY = "RpB"


def reader(instrument: Instrument, tag: str) -> Reader | None:
    """The reader of field ``tag`` of ``instrument``; ``None`` for a field the emulator has no data for."""
    contract = instrument.contract
    constants: dict[str, str | int] = {
        "55": contract.symbol,
        "58": instrument.company_name,
        "6004": contract.exchange,
        "6008": contract.conid,
        "6070": contract.security_type.value,
        "6509": QUALITY,
        "7051": instrument.company_name,
        "7094": str(contract.conid),
        "7219": contract.symbol,
        "7220": contract.symbol,
        "7221": contract.listing_exchange or contract.exchange,
    }
    constant = constants.get(tag)
    if constant is not None:
        return lambda quote: constant
    digits = max(text.decimals(contract.tick_size), instrument.price_decimals)
    return _PRICES[tag](digits) if tag in _PRICES else _SIZES.get(tag)


#: What of a quote a field follows from; every change of the quote for those not named.
_DEPENDS: dict[str, Callable[[QuoteState], object]] = {
    "31": attrgetter("last", "halted", "prior_close"),
    "84": attrgetter("bid"),
    "85": attrgetter("ask_size"),
    "86": attrgetter("ask"),
    "87": attrgetter("volume"),
    "88": attrgetter("bid_size"),
    "7059": attrgetter("last_size"),
    "7762": attrgetter("volume"),
}
_VERSION: Callable[[QuoteState], object] = attrgetter("version")


def depends(tag: str) -> Callable[[QuoteState], object]:
    """What field ``tag`` follows from: while this is the same, so is the field."""
    return _DEPENDS.get(tag, _VERSION)


def last_price(digits: int) -> Reader:
    """31: with ``H`` while halted, and ``C`` and the previous close before the day's first trade."""

    def read(quote: QuoteState) -> Value:
        if quote.last is None:
            return None if quote.prior_close is None else f"C{quote.prior_close:.{digits}f}"
        return f"H{quote.last:.{digits}f}" if quote.halted else f"{quote.last:.{digits}f}"

    return read


def _attribute(name: str) -> Callable[[int], Reader]:
    def make(digits: int) -> Reader:
        def read(quote: QuoteState) -> Value:
            value = getattr(quote, name)
            return None if value is None else f"{value:.{digits}f}"

        return read

    return make


def _bid(digits: int) -> Reader:
    def read(quote: QuoteState) -> Value:
        return None if quote.bid is None else f"{quote.bid:.{digits}f}"

    return read


def _ask(digits: int) -> Reader:
    def read(quote: QuoteState) -> Value:
        return None if quote.ask is None else f"{quote.ask:.{digits}f}"

    return read


def _change(digits: int) -> Reader:
    def read(quote: QuoteState) -> Value:
        if quote.last is None or quote.prior_close is None:
            return None
        return f"{quote.last - quote.prior_close:.{digits}f}"

    return read


def _change_since_open(digits: int) -> Reader:
    def read(quote: QuoteState) -> Value:
        if quote.last is None or quote.open is None:
            return None
        return f"{quote.last - quote.open:.{digits}f}"

    return read


def mark_price(quote: QuoteState) -> float | None:
    """The last price, held between bid and ask; the middle if nothing traded."""
    if quote.last is None:
        if quote.bid is None or quote.ask is None:
            return quote.prior_close
        return (quote.bid + quote.ask) / 2
    if quote.ask is not None and quote.ask < quote.last:
        return quote.ask
    if quote.bid is not None and quote.bid > quote.last:
        return quote.bid
    return quote.last


def _mark(digits: int) -> Reader:
    def read(quote: QuoteState) -> Value:
        value = mark_price(quote)
        return None if value is None else f"{value:.{digits}f}"

    return read


def _percent(quote: QuoteState) -> Value:
    if quote.last is None or not quote.prior_close:
        return None
    return round((quote.last / quote.prior_close - 1) * 100, 2)


def _bid_size(quote: QuoteState) -> Value:
    return None if quote.bid_size is None else text.quantity(quote.bid_size)


def _ask_size(quote: QuoteState) -> Value:
    return None if quote.ask_size is None else text.quantity(quote.ask_size)


def _last_size(quote: QuoteState) -> Value:
    return None if quote.last_size is None else text.quantity(quote.last_size)


def _volume(quote: QuoteState) -> Value:
    return text.volume(quote.volume)


def _volume_long(quote: QuoteState) -> Value:
    return text.plain(quote.volume)


_PRICES: dict[str, Callable[[int], Reader]] = {
    "31": last_price,
    "70": _attribute("high"),
    "71": _attribute("low"),
    "82": _change,
    "84": _bid,
    "86": _ask,
    "7295": _attribute("open"),
    "7296": _attribute("close"),
    "7635": _mark,
    "7682": _change_since_open,
    "7741": _attribute("prior_close"),
}
_SIZES: dict[str, Reader] = {
    "83": _percent,
    "85": _ask_size,
    "87": _volume,
    "88": _bid_size,
    "7059": _last_size,
    "7762": _volume_long,
}
