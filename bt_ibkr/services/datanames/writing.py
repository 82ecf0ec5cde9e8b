"""Queries as datanames: what is written here is parsed to the same."""

from __future__ import annotations

from bt_ibkr.model.contract import SecurityType
from bt_ibkr.services.datanames.dashed import CONTINUOUS
from bt_ibkr.services.datanames.query import ROLL_DAYS, ContractQuery, RollBy
from bt_ibkr.services.datanames.words import OPTIONS, plain_number


def format_query(query: ContractQuery) -> str:
    """The query in full, by dashes where it has a symbol."""
    if query.legs:
        return _combo(query)
    if query.conid:
        return f"conid:{query.conid}" + (f"@{query.exchange}" if query.exchange else "")
    kind = query.security_type
    symbol = f"{query.symbol}[{query.trading_class}]" if query.trading_class else query.symbol
    place = [query.exchange, query.currency]
    if query.roll is not None:
        parts = [symbol, CONTINUOUS, *place, *_roll_words(query)]
    elif kind is SecurityType.FUTURE:
        parts = [symbol, kind.value, *place, query.expiry, _multiplier(query)]
    elif kind in OPTIONS:
        first = [query.expiry, *place] if query.loose else [kind.value, *place, query.expiry]
        parts = [symbol, *first, plain_number(query.strike or 0.0), query.right, _multiplier(query)]
    elif kind is SecurityType.BOND:
        coupon = "" if query.coupon is None else plain_number(query.coupon)
        parts = [symbol, kind.value, *place, query.expiry, coupon]
    else:
        parts = [symbol, kind.value, *place]
    while parts and not parts[-1]:
        parts.pop()
    return "-".join(parts)


def _multiplier(query: ContractQuery) -> str:
    return plain_number(query.multiplier) if query.multiplier else ""


def _roll_words(query: ContractQuery) -> list[str]:
    rule = query.roll
    if rule is None:
        return []
    words = [_multiplier(query)]
    if rule.by is not RollBy.DAYS:
        words.append(rule.by.value.upper())
    elif rule.days != ROLL_DAYS:
        words.append(f"DAYS{rule.days}")
    if rule.offset:
        words.append(f"NEXT{rule.offset}")
    return [word for word in words if word]


def _combo(query: ContractQuery) -> str:
    if query.spread_id:
        legs = ",".join(f"{leg.conid}/{ratio}" for leg, ratio in query.legs)
        return f"{query.spread_id}@{query.exchange};;;{legs}"
    legs = ",".join(f"{format_query(leg)}*{ratio}" for leg, ratio in query.legs)
    return f"COMBO:{legs}" + (f"@{query.exchange}" if query.exchange else "")
