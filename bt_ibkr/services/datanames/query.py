"""A dataname, taken apart."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import msgspec

from bt_ibkr.model.contract import SecurityType

#: Calendar days before its last trade date from which a future is no longer the front.
ROLL_DAYS: Final = 7


class RollBy(StrEnum):
    """What decides which future is the front."""

    DAYS = "days"
    VOLUME = "volume"
    INTEREST = "interest"


class RollRule(msgspec.Struct, frozen=True, kw_only=True):
    """Which single future stands for the continuous one.

    Attributes:
        by: Calendar days before the last trade date; or the largest volume of the day, or open interest, among the
            nearest.
        days: With ``by`` days: so many before the last trade date the next future takes over.
        offset: 0 for the front, 1 for the one after it …
    """

    by: RollBy = RollBy.DAYS
    days: int = ROLL_DAYS
    offset: int = 0


class ContractQuery(msgspec.Struct, frozen=True, kw_only=True):
    """A dataname, taken apart. Empty means: not said.

    Attributes:
        text: As the user wrote it, for messages.
        conid: Given directly, else 0.
        expiry: ``YYYYMM`` or ``YYYYMMDD``.
        multiplier: 0.0 if not said.
        strike: Of an option.
        right: ``C`` or ``P``; yes is ``C``, no is ``P``.
        trading_class: Where options of several classes share symbol and day (``SPX`` and ``SPXW``).
        loose: An option whose name does not say whether it is one on a future: what is listed decides.
        coupon: Of a bond, percent.
        roll: Of a continuous future: how its single one is chosen.
        legs: Of a combo: what each is, and its ratio.
        spread_id: Of a combo, IBKR's spread conid, if said.
    """

    text: str
    conid: int = 0
    symbol: str = ""
    security_type: SecurityType = SecurityType.STOCK
    exchange: str = ""
    currency: str = ""
    expiry: str = ""
    multiplier: float = 0.0
    strike: float | None = None
    right: str = ""
    trading_class: str = ""
    loose: bool = False
    coupon: float | None = None
    roll: RollRule | None = None
    legs: tuple[tuple[ContractQuery, int], ...] = ()
    spread_id: int = 0
