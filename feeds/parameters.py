"""What a feed's parameters mean, checked: bar lengths, price sources, moments."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import backtrader as bt

from bt_ibkr.clock import NS_PER_S
from bt_ibkr.errors import UsageError
from bt_ibkr.feeds.bars import PriceSource
from bt_ibkr.feeds.times import ns_of
from bt_ibkr.model.contract import Contract, SecurityType
from bt_ibkr.services.history import offered

_LENGTHS = {
    bt.TimeFrame.Seconds: NS_PER_S,
    bt.TimeFrame.Minutes: 60 * NS_PER_S,
    bt.TimeFrame.Days: 86_400 * NS_PER_S,
}
_SOURCES = ("TRADES", "BID", "ASK", "MIDPOINT")
#: Of what trades rarely, or where only its parts do.
_DEFAULT_SOURCES = {SecurityType.FOREX: "BID", SecurityType.COMBO: "MIDPOINT"}


def price_source(what: object, contract: Contract) -> PriceSource:
    """The price that bars are made of.

    Raises:
        UsageError: ``what`` names none.
    """
    word = str(what or _DEFAULT_SOURCES.get(contract.security_type, "TRADES")).upper()
    if word not in _SOURCES:
        raise UsageError(f"what={what!r} is no price source.", remedy=f"Sources: {', '.join(_SOURCES)}.")
    # A combo does not trade by itself here: its legs do.
    return PriceSource.LAST if contract.legs and word == "TRADES" else PriceSource(word)


def bar_length_ns(name: str, timeframe: int, compression: int, *, historical: bool) -> int:
    """The length of a bar; 0 for ticks.

    Args:
        name: The feed's dataname, for errors.
        timeframe, compression: As backtrader has them.
        historical: The bars come from history alone.

    Raises:
        UsageError: Such bars are not built, or IBKR has none of that length.
    """
    if timeframe == bt.TimeFrame.Ticks:
        if historical:
            raise UsageError(
                "historical=True with Ticks: IBKR's Web API has no historical ticks.",
                remedy="Ask for Minutes or Days.",
            )
        return 0
    unit = _LENGTHS.get(timeframe)
    if unit is None or (timeframe == bt.TimeFrame.Days and not historical):
        raise UsageError(
            f"{name}: live bars of timeframe {bt.TimeFrame.getname(timeframe, 2)} are not built.",
            remedy="Live: Ticks, Seconds, Minutes (resample for longer). With historical=True also Days.",
        )
    length: int = unit * compression
    if historical and not offered(length):
        raise UsageError(
            f"{name}: IBKR has no historical bars of {length / NS_PER_S:g} s.",
            remedy="Lengths: 1, 2, 3, 5, 10, 15, 30 minutes; 1, 2, 3, 4, 8 hours; 1 day; 1 week.",
        )
    return length


def moment_ns(moment: Any) -> int:
    """Epoch nanoseconds of a date or datetime that a user gave; naive ones are UTC."""
    if isinstance(moment, datetime):
        return ns_of(moment)
    return ns_of(datetime(moment.year, moment.month, moment.day, tzinfo=UTC))
