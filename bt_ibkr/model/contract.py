"""Instruments."""

from __future__ import annotations

import math
from collections.abc import Iterable
from decimal import Decimal
from enum import StrEnum
from hashlib import blake2b
from typing import Final

import msgspec

#: Where IBKR trades event contracts of its own.
FORECASTEX: Final = "FORECASTX"


class SecurityType(StrEnum):
    """IBKR's security types; the values are IBKR's own words."""

    STOCK = "STK"
    FOREX = "CASH"
    FUTURE = "FUT"
    OPTION = "OPT"
    FUTURE_OPTION = "FOP"
    INDEX = "IND"
    CFD = "CFD"
    BOND = "BOND"
    FUND = "FUND"
    WARRANT = "WAR"
    CRYPTO = "CRYPTO"
    COMMODITY = "CMDTY"
    COMBO = "BAG"
    UNKNOWN = "?"

    @classmethod
    def from_wire(cls, word: str | None) -> SecurityType:
        """The member for IBKR's word, ``UNKNOWN`` for a word that is not known here."""
        try:
            return cls(word or "?")
        except ValueError:
            return cls.UNKNOWN


class Leg(msgspec.Struct, frozen=True):
    """One leg of a combo.

    Attributes:
        conid: IBKR's contract id of the leg.
        ratio: Units of the leg per unit of the combo; below 0 the leg is sold when the combo is bought.
    """

    conid: int
    ratio: int


class Contract(msgspec.Struct, frozen=True, kw_only=True):
    """One tradeable instrument, resolved: ``conid`` is IBKR's key for it.

    Attributes:
        conid: IBKR's contract id. A combo has none of its own: its key is below 0 and made from its legs,
            the same in every session; ``spread_id`` and ``legs`` address it on the wire.
        symbol: IBKR's symbol (``EUR.USD`` for a currency pair).
        exchange: Where orders are routed (``SMART`` unless the user named another).
        listing_exchange: Where the instrument is listed, if known.
        currency: Currency of prices.
        multiplier: Units of currency per point of price and unit of quantity.
        tick_size: Smallest price step.
        tick_steps: Price steps that depend on the price, as (from this price, step), lowest first; empty where one
            step holds for all.
        size_increment: Smallest quantity step.
        last_trade_date: ``YYYYMMDD`` for derivatives.
        right: ``C`` or ``P`` for options; of an event contract ``C`` is yes, ``P`` is no.
        trading_class: Exchange's name of the product, where IBKR tells it: ``SPXW`` of ``SPX``.
        underlying_conid: Of a derivative; 0 if IBKR does not tell.
        valid_exchanges: Where orders may be routed, as far as IBKR tells.
        continuous: The name of the continuous future that this single one stands for; else empty.
        roll_date: ``YYYYMMDD``: the day from which ``continuous`` means the next future, where its rule goes by days.
        legs: Of a combo; prices and quantities are those of the combo as a whole.
        spread_id: IBKR's conid for spreads in the combo's currency.
        time_zone: IANA name of the exchange's zone, if known.
    """

    conid: int
    symbol: str
    security_type: SecurityType
    exchange: str = "SMART"
    listing_exchange: str | None = None
    currency: str = "USD"
    company_name: str = ""
    multiplier: float = 1.0
    tick_size: float = 0.01
    tick_steps: tuple[tuple[float, float], ...] = ()
    size_increment: float = 1.0
    last_trade_date: str | None = None
    strike: float | None = None
    right: str | None = None
    trading_class: str = ""
    underlying_conid: int = 0
    valid_exchanges: tuple[str, ...] = ()
    continuous: str = ""
    roll_date: str | None = None
    legs: tuple[Leg, ...] = ()
    spread_id: int = 0
    time_zone: str = ""

    @property
    def only_bought(self) -> bool:
        """ForecastEx takes no orders to sell: a position is closed by buying the opposite contract."""
        return FORECASTEX in (self.exchange, self.listing_exchange)

    def tick_at(self, price: float) -> float:
        """The price step at ``price``; of a negative price that of its size."""
        found = self.tick_size
        for edge, step in self.tick_steps:
            if abs(price) >= edge:
                found = step
        return found

    def describe(self) -> str:
        """How a person would name it: ``AAPL-STK-SMART-USD``, ``AAPL-OPT-SMART-USD-20261218-250-C``."""
        parts = [self.symbol, str(self.security_type.value), self.exchange, self.currency]
        if self.last_trade_date:
            parts.append(self.last_trade_date)
        if self.strike is not None and self.right:
            if self.trading_class not in ("", self.symbol):
                parts[0] = f"{self.symbol}[{self.trading_class}]"
            parts += [f"{self.strike:.9f}".rstrip("0").rstrip("."), self.right]
        return "-".join(parts)


def combo_key(legs: Iterable[Leg]) -> int:
    """The key of a combo: below 0, the same for the same legs in any order, in every session."""
    text = ",".join(
        f"{leg.conid}/{leg.ratio}" for leg in sorted(legs, key=lambda leg: (leg.conid, leg.ratio))
    )
    return -(int.from_bytes(blake2b(text.encode(), digest_size=6).digest()) + 1)


def combo_multiplier(parts: Iterable[tuple[int, float]]) -> float:
    """Units of currency per point of a combo's price.

    Args:
        parts: Ratio and multiplier of each leg.

    Returns:
        The legs' multiplier where they share one: the price is then the sum of ratio times price. Else the
        largest that divides each leg's ratio times multiplier: 100 shares against one option on 100 shares
        are priced by the share.
    """
    found = [(abs(ratio), Decimal(repr(float(multiplier)))) for ratio, multiplier in parts]
    multipliers = {multiplier for _, multiplier in found}
    if len(multipliers) == 1:
        return float(multipliers.pop())
    scale = max(-int(size.normalize().as_tuple().exponent) for _, size in found)
    whole = [int(ratio * size.scaleb(max(scale, 0))) for ratio, size in found]
    return float(math.gcd(*whole) / 10 ** max(scale, 0))
