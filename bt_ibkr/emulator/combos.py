"""Combos: several contracts that trade as one, as ``conidex`` writes them (wire facts, section 7.6)."""

from __future__ import annotations

import re
from collections.abc import Callable

import msgspec

from bt_ibkr.emulator.market.sessions import calendar_of
from bt_ibkr.emulator.types import Instrument
from bt_ibkr.errors import UsageError
from bt_ibkr.model.contract import Contract, Leg, SecurityType, combo_key, combo_multiplier

#: IBKR's conid for spreads in a currency; there is none for EUR.
SPREAD_CONIDS = {
    61227077: "AUD",
    61227082: "CAD",
    61227087: "CHF",
    136000441: "CNH",
    58666491: "GBP",
    61227072: "HKD",
    136000444: "INR",
    61227069: "JPY",
    136000424: "KRW",
    136000449: "MXN",
    136000429: "SEK",
    426116555: "SGD",
    28812380: "USD",
}
_CONIDS = {currency: conid for conid, currency in SPREAD_CONIDS.items()}
_HEAD = re.compile(r"([0-9]{1,12})(?:@([A-Z0-9.]{1,20}))?", re.ASCII)
_LEG = re.compile(r"([1-9][0-9]{0,11})/(-?[1-9][0-9]{0,5})", re.ASCII)
_MOST_LEGS = 8


class Spread(msgspec.Struct, frozen=True):
    """A ``conidex`` of a combo; ``conid`` is 0 in topic ``smd``."""

    conid: int
    exchange: str
    legs: tuple[Leg, ...]


def parse_spread(text: str) -> Spread | None:
    """Read ``{spread}[@EXCHANGE];;;{conid}/{ratio},…``; ``None`` if it is not written so."""
    head, separator, tail = text.strip().partition(";;;")
    found = _HEAD.fullmatch(head)
    parts = [_LEG.fullmatch(part.strip()) for part in tail.split(",")]
    legs = tuple(Leg(int(part[1]), int(part[2])) for part in parts if part is not None)
    if found is None or not separator or len(legs) < len(parts) or not 2 <= len(legs) <= _MOST_LEGS:
        return None
    if len({leg.conid for leg in legs}) < len(legs):
        return None
    return Spread(int(found[1]), found[2] or "SMART", legs)


def conidex(instrument: Instrument, exchange: str = "SMART") -> str:
    """How the wire addresses an instrument: a combo by its spread conid and its legs."""
    contract = instrument.contract
    head = contract.spread_id if contract.legs else contract.conid
    where = "" if exchange in ("", "SMART") else f"@{exchange}"
    legs = ",".join(f"{leg.conid}/{leg.ratio}" for leg in contract.legs)
    return f"{head}{where};;;{legs}" if legs else f"{head}{where}"


def wire_conid(instrument: Instrument) -> int:
    """The conid that the wire shows: of a combo the spread's."""
    return instrument.contract.spread_id or instrument.contract.conid


def combo(legs: tuple[Leg, ...], by_conid: Callable[[int], Instrument | None]) -> Instrument:
    """The instrument that trades these legs.

    Raises:
        UsageError: A leg is not known, or the legs are of several currencies or of one without spreads.
    """
    parts: list[Instrument] = []
    for leg in legs:
        part = by_conid(leg.conid)
        if part is None or part.contract.legs:
            raise UsageError(f"no sec defs returned for leg {leg.conid}")
        parts.append(part)
    currencies = {part.contract.currency for part in parts}
    currency = parts[0].contract.currency
    if len(currencies) > 1 or currency not in _CONIDS:
        raise UsageError(f"no spread is defined for legs in {', '.join(sorted(currencies))}")
    symbols = list(dict.fromkeys(part.contract.symbol for part in parts))
    first = parts[0]
    return Instrument(
        contract=Contract(
            conid=combo_key(legs),
            symbol=",".join(symbols),
            security_type=SecurityType.COMBO,
            currency=currency,
            multiplier=combo_multiplier(
                (leg.ratio, part.contract.multiplier) for leg, part in zip(legs, parts, strict=True)
            ),
            tick_size=min(part.contract.tick_size for part in parts),
            legs=legs,
            spread_id=_CONIDS[currency],
        ),
        company_name=first.company_name if len(symbols) == 1 else "",
        is_us=first.is_us,
        quote_only=True,
        session_open=first.session_open,
        session_close=first.session_close,
        extended_open=first.extended_open,
        extended_close=first.extended_close,
        calendar=calendar_of(first),
        time_zone=first.time_zone,
    )
