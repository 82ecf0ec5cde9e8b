"""Datanames as people say them: a symbol, what kind of thing, an exchange after ``@``."""

from __future__ import annotations

import re

import msgspec

from bt_ibkr.errors import ContractError
from bt_ibkr.model.contract import SecurityType
from bt_ibkr.services.datanames import words
from bt_ibkr.services.datanames.dashed import default_exchange, is_pair
from bt_ibkr.services.datanames.query import ROLL_DAYS, ContractQuery, RollBy, RollRule
from bt_ibkr.services.datanames.words import FORECASTEX, FORMS

_AT = re.compile(r"@\s*([A-Z0-9.]+)(?=\s|$)", re.ASCII | re.IGNORECASE)
_FRONT = re.compile(r"front(?:\+([0-9]{1,2}))?", re.ASCII | re.IGNORECASE)
_DAYS = re.compile(r"days=([0-9]{1,2})", re.ASCII | re.IGNORECASE)
_MULTIPLIER = re.compile(r"x([0-9.]+)", re.ASCII | re.IGNORECASE)
_DAY_DIGITS = 8


def parse_plain(text: str, kind: SecurityType, exchange: str, currency: str) -> ContractQuery | None:
    """The parts of a plain name; ``None`` where it is a symbol with dashes.

    Raises:
        ContractError: It begins as one of these and does not go on as one.
    """
    found = _AT.findall(text)
    tokens = _AT.sub(" ", text).split()
    words.check_dates(tokens[1:], text)
    place = next((n for n, token in enumerate(tokens) if n and _is_turn(token)), 0)
    if not place and "-" in text:
        return None
    if len(found) > 1 or "@" in "".join(tokens):
        raise ContractError(f"{text!r} does not name one exchange after @.", remedy=FORMS)
    named = found[0].upper() if found else ""
    if not place:
        return _undated(text, tokens, kind, named, exchange, currency)
    symbol, trading_class = words.symbol_of(" ".join(tokens[:place]), text)
    query = ContractQuery(
        text=text,
        symbol=symbol,
        security_type=SecurityType.FUTURE,
        exchange=named or exchange,
        currency=currency,
        trading_class=trading_class,
    )
    turn, rest = tokens[place], tokens[place + 1 :]
    front = _FRONT.fullmatch(turn)
    changes = _front(text, front, rest) if front else _dated(text, words.expiry_of(turn) or "", rest, named)
    made = msgspec.structs.replace(query, **changes)
    if made.trading_class and not made.right:
        raise ContractError(
            f"{text!r}: only options have a trading class in brackets.", remedy=f"Leave it out. {FORMS}"
        )
    return made


def _is_turn(token: str) -> bool:
    """Where a symbol ends: a date, or ``front``."""
    return words.expiry_of(token) is not None or _FRONT.fullmatch(token) is not None


def _undated(
    text: str, tokens: list[str], kind: SecurityType, named: str, exchange: str, currency: str
) -> ContractQuery:
    """``AAPL``, ``AAPL@NASDAQ``, ``AAPL@EBS CHF``, ``SPX@CBOE index``."""
    said = None
    if named and len(tokens) > 1 and words.is_currency(tokens[-1]) and words.kind_of(tokens[-1]) is None:
        currency = tokens.pop().upper()
    if len(tokens) > 1 and (said := words.kind_of(tokens[-1])):
        tokens.pop()
    symbol, trading_class = words.symbol_of(" ".join(tokens), text)
    if trading_class:
        raise ContractError(
            f"{text!r}: only options have a trading class in brackets.", remedy=f"Leave it out. {FORMS}"
        )
    if said is None and is_pair(symbol):
        said = SecurityType.FOREX
    kind = said or kind
    if kind in words.OPTIONS:
        raise ContractError(
            f"{text!r} does not name an option: day, strike and right are wanted.",
            remedy="Write it as AAPL-20261218-SMART-USD-250-C, or AAPL 2026-12-18 C 250.",
        )
    return ContractQuery(
        text=text,
        symbol=symbol,
        security_type=kind,
        exchange=named or default_exchange(kind, exchange),
        currency=currency,
    )


def _dated(text: str, expiry: str, rest: list[str], named: str) -> dict[str, object]:
    """A future, or an option: right and strike in any order, then currency and multiplier."""
    found: dict[str, object] = {"expiry": expiry}
    right = strike = None
    for word in rest:
        if right is None and (said := words.right_of(word)):
            found["right"] = right = said
            if word.upper() in ("YES", "NO") and not named:
                found["exchange"] = FORECASTEX
        elif strike is None and (number := words.number_of(word)) is not None:
            found["strike"] = strike = number
        elif not _common(found, word, text):
            raise ContractError(f"{word!r} in {text!r} is not understood.", remedy=FORMS)
    if (right is None) != (strike is None):
        raise ContractError(
            f"{text!r} names an option without its {'right' if right is None else 'strike'}.",
            remedy="Write it as AAPL 2026-12-18 C 250.",
        )
    if right is not None:
        by_day = len(expiry) == _DAY_DIGITS
        found["security_type"] = SecurityType.OPTION if by_day else SecurityType.FUTURE_OPTION
        found["loose"] = True
    return found


def _front(text: str, front: re.Match[str], rest: list[str]) -> dict[str, object]:
    """The words of a roll rule."""
    found: dict[str, object] = {}
    by, days = RollBy.DAYS, ROLL_DAYS
    for word in rest:
        if told := _DAYS.fullmatch(word):
            days = int(told[1])
        elif word.lower() in (RollBy.VOLUME, RollBy.INTEREST):
            by = RollBy(word.lower())
        elif not _common(found, word, text):
            raise ContractError(
                f"{word!r} in {text!r} is no roll rule.",
                remedy="Write ES@CME front, with days=N, volume or interest after it.",
            )
    if by is not RollBy.DAYS and days != ROLL_DAYS:
        raise ContractError(f"{text!r} names two roll rules.", remedy="Keep one of them.")
    return found | {"roll": RollRule(by=by, days=days, offset=int(front[1] or 0))}


def _common(found: dict[str, object], word: str, text: str) -> bool:
    """Take in a multiplier (``x50``) or a currency; whether it is one."""
    if (told := _MULTIPLIER.fullmatch(word)) and "multiplier" not in found:
        found["multiplier"] = words.multiplier_of(told[1], text)
        return True
    if words.is_currency(word) and "currency" not in found:
        found["currency"] = word.upper()
        return True
    return False
