"""``conidex``: how the wire addresses a contract on an exchange, and a combo of several.

``265598@NASDAQ`` routes a contract. A combo is ``{spread};;;{conid}/{ratio},{conid}/{ratio}``: ``spread`` is a
conid that IBKR keeps for combos of one currency, for other markets than the US with ``@EXCHANGE``; a ratio
below 0 is a leg that is sold when the combo is bought. Market data takes 0 for ``spread``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

import msgspec

from bt_ibkr.errors import WireError
from bt_ibkr.model.contract import Leg

SMART: Final = "SMART"
#: IBKR's spread conid by currency. It names none for EUR.
SPREAD_CONIDS: Final = {
    "AUD": 61227077,
    "CAD": 61227082,
    "CHF": 61227087,
    "CNH": 136000441,
    "GBP": 58666491,
    "HKD": 61227072,
    "INR": 136000444,
    "JPY": 61227069,
    "KRW": 136000424,
    "MXN": 136000449,
    "SEK": 136000429,
    "SGD": 426116555,
    "USD": 28812380,
}
_SINGLE: Final = re.compile(r"([0-9]{1,12})(?:@([A-Z0-9.]{1,20}))?", re.ASCII)
_LEG: Final = re.compile(r"([1-9][0-9]{0,11})/(-?[1-9][0-9]{0,5})", re.ASCII)


class Conidex(msgspec.Struct, frozen=True):
    """A ``conidex``, taken apart. ``legs`` is empty for a single contract; ``conid`` is a combo's spread."""

    conid: int
    exchange: str = SMART
    legs: tuple[Leg, ...] = ()

    def text(self) -> str:
        """As orders want it."""
        where = "" if self.exchange in ("", SMART) else f"@{self.exchange}"
        return f"{self.conid}{where}{_legs_text(self.legs)}"

    def stream_text(self) -> str:
        """As topic ``smd`` wants it: a combo's spread is 0 there."""
        if not self.legs:
            return self.text()
        return Conidex(0, self.exchange, self.legs).text()


def _legs_text(legs: Iterable[Leg]) -> str:
    joined = ",".join(f"{leg.conid}/{leg.ratio}" for leg in legs)
    return f";;;{joined}" if joined else ""


def parse_conidex(text: str) -> Conidex:
    """Take a ``conidex`` apart.

    Raises:
        WireError: It has neither form, or a combo of less than two legs or of one leg twice.
    """
    head, separator, tail = text.strip().partition(";;;")
    single = _SINGLE.fullmatch(head)
    if single is None:
        raise WireError(f"conidex: {text[:80]!r} is none.")
    conid, exchange = int(single[1]), single[2] or SMART
    if not separator:
        if not conid:
            raise WireError(f"conidex: {text[:80]!r} names no contract.")
        return Conidex(conid, exchange)
    legs: list[Leg] = []
    for part in tail.split(","):
        found = _LEG.fullmatch(part.strip())
        if found is None:
            raise WireError(f"conidex: {part[:40]!r} in {text[:80]!r} is no leg.")
        legs.append(Leg(int(found[1]), int(found[2])))
    if len(legs) < 2 or len({leg.conid for leg in legs}) != len(legs):
        raise WireError(f"conidex: {text[:80]!r} has not two different legs or more.")
    return Conidex(conid, exchange, tuple(legs))
