"""Datanames with dashes: the forms of backtrader's IBStore, and what it lacks."""

from __future__ import annotations

import re

import msgspec

from bt_ibkr.errors import ContractError
from bt_ibkr.model.contract import SecurityType
from bt_ibkr.services.datanames import words
from bt_ibkr.services.datanames.query import ROLL_DAYS, ContractQuery, RollBy, RollRule
from bt_ibkr.services.datanames.words import FORMS, OPTIONS

CONTINUOUS = "CONTFUT"
_PAIR = re.compile(r"[A-Z]{3}\.[A-Z]{3}", re.ASCII)
_RULE_WORD = re.compile(r"(DAYS|NEXT)([0-9]{1,2})", re.ASCII)
_DAY_DIGITS = 8


def is_pair(symbol: str) -> bool:
    """``EUR.USD``."""
    return _PAIR.fullmatch(symbol) is not None


def default_exchange(kind: SecurityType, exchange: str) -> str:
    """Where a name goes that says no exchange: currencies trade at IDEALPRO."""
    return "IDEALPRO" if kind is SecurityType.FOREX and exchange == "SMART" else exchange


def parse_dashed(text: str, kind: SecurityType, exchange: str, currency: str) -> ContractQuery:
    """``SYMBOL[-TYPE-EXCHANGE-CURRENCY…]`` and ``SYMBOL-EXPIRY-EXCHANGE-CURRENCY…``.

    Raises:
        ContractError: It is not of that form.
    """
    parts = text.split("-")
    words.check_dates(parts[1:], text)
    symbol, trading_class = words.symbol_of(parts.pop(0), text)
    expiry, spelt, roll = "", False, None
    if is_pair(symbol):
        kind = SecurityType.FOREX
    if parts and (found := words.expiry_of(parts[0])):
        kind, expiry = SecurityType.FUTURE, found
        parts.pop(0)
    elif parts:
        kind, roll, spelt = *_kind(parts.pop(0), text), True
    named_exchange = parts.pop(0) if parts else ""
    named_exchange = (
        words.exchange_of(named_exchange, text) if named_exchange else default_exchange(kind, exchange)
    )
    named_currency = parts.pop(0) if parts else ""
    named_currency = words.currency_of(named_currency, text) if named_currency else currency
    if kind is SecurityType.FOREX and re.fullmatch(r"[A-Z]{3}", symbol) and named_currency:
        symbol = f"{symbol}.{named_currency}"
    query = ContractQuery(
        text=text,
        symbol=symbol,
        security_type=kind,
        exchange=named_exchange,
        currency=named_currency,
        trading_class=trading_class,
    )
    made = _Rest(query, parts, expiry, spelt).take(roll)
    if made.trading_class and made.security_type not in OPTIONS:
        raise ContractError(
            f"{text!r}: only options have a trading class in brackets.", remedy=f"Leave it out. {FORMS}"
        )
    return made


def _kind(word: str, text: str) -> tuple[SecurityType, RollRule | None]:
    if word.upper() == CONTINUOUS:
        return SecurityType.FUTURE, RollRule()
    kind = SecurityType.from_wire(word.upper())
    if kind in (SecurityType.UNKNOWN, SecurityType.COMBO):
        raise ContractError(f"{word!r} in {text!r} is no security type.", remedy=FORMS)
    return kind, None


class _Rest:
    """What follows the currency."""

    def __init__(self, query: ContractQuery, parts: list[str], expiry: str, spelt: bool) -> None:
        self._query = query
        self._parts = parts
        self._expiry = expiry
        self._spelt = spelt

    def take(self, roll: RollRule | None) -> ContractQuery:
        kind = self._query.security_type
        if roll is not None:
            changes = self._continuous()
        elif kind is SecurityType.FUTURE:
            changes = self._future()
        elif kind in OPTIONS:
            changes = self._option(self._parts.pop(0) if self._parts else "")
        elif kind is SecurityType.BOND:
            changes = self._bond()
        else:
            changes = {}
        if self._parts:
            raise ContractError(
                f"{self._query.text!r} has a part too many: {self._parts[0]!r}.", remedy=FORMS
            )
        return msgspec.structs.replace(self._query, **changes)

    def _future(self) -> dict[str, object]:
        text = self._query.text
        if not self._expiry and self._parts:
            word = self._parts.pop(0)
            self._expiry = words.expiry_of(word) or ""
            if not self._expiry:
                raise ContractError(f"{word!r} in {text!r} is no month of expiry (YYYYMM).", remedy=FORMS)
        # As IBStore has it: a right after the number makes that a strike, and the whole an option.
        if len(self._parts) > 1 and words.right_of(self._parts[1]):
            return self._option(self._expiry)
        multiplier = words.multiplier_of(self._parts.pop(0), text) if self._parts else 0.0
        return {"expiry": self._expiry, "multiplier": multiplier}

    def _option(self, expiry_word: str) -> dict[str, object]:
        text, parts = self._query.text, self._parts
        expiry = words.expiry_of(expiry_word) if expiry_word else None
        strike = words.number_of(parts.pop(0)) if parts else None
        right = words.right_of(parts.pop(0)) if parts else None
        if expiry is None or strike is None or right is None:
            raise ContractError(
                f"{text!r} does not name an option: day, strike and right are wanted.",
                remedy="Write it as AAPL-20261218-SMART-USD-250-C, or AAPL 2026-12-18 C 250.",
            )
        found: dict[str, object] = {"expiry": expiry, "strike": strike, "right": right}
        found["multiplier"] = words.multiplier_of(parts.pop(0), text) if parts else 0.0
        if not self._spelt:
            # Eight digits are an option in IBStore, six one on a future; here what is listed has the last word.
            by_day = len(expiry) == _DAY_DIGITS
            found["security_type"] = SecurityType.OPTION if by_day else SecurityType.FUTURE_OPTION
            found["loose"] = True
        return found

    def _bond(self) -> dict[str, object]:
        text, parts = self._query.text, self._parts
        found: dict[str, object] = {}
        if parts:
            word = parts.pop(0)
            expiry = words.expiry_of(word)
            if expiry is None:
                raise ContractError(f"{word!r} in {text!r} is no maturity (YYYYMM).", remedy=FORMS)
            found["expiry"] = expiry
        if parts:
            word = parts.pop(0)
            coupon = words.number_of(word)
            if coupon is None:
                raise ContractError(f"{word!r} in {text!r} is no coupon in percent.", remedy=FORMS)
            found["coupon"] = coupon
        return found

    def _continuous(self) -> dict[str, object]:
        """Multiplier, and words of the roll rule in any order."""
        found: dict[str, object] = {}
        rule = RollRule()
        for word in self._parts:
            rule = _ruled(rule, word.upper())
            if (number := words.number_of(word)) is not None:
                found["multiplier"] = number or words.multiplier_of(word, self._query.text)
            elif not _is_rule(word.upper()):
                raise ContractError(f"{word!r} in {self._query.text!r} is no roll rule.", remedy=FORMS)
        self._parts = []
        return found | {"roll": rule}


def _is_rule(word: str) -> bool:
    return word in ("VOLUME", "INTEREST") or _RULE_WORD.fullmatch(word) is not None


def _ruled(rule: RollRule, word: str) -> RollRule:
    """The rule with one more word: ``DAYS8``, ``NEXT1``, ``VOLUME``, ``INTEREST``."""
    found = _RULE_WORD.fullmatch(word)
    if found and found[1] == "DAYS":
        return RollRule(by=RollBy.DAYS, days=int(found[2]), offset=rule.offset)
    if found:
        return RollRule(by=rule.by, days=rule.days, offset=int(found[2]))
    if word in ("VOLUME", "INTEREST"):
        return RollRule(by=RollBy(word.lower()), days=ROLL_DAYS, offset=rule.offset)
    return rule
