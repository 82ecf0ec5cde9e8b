"""The words that datanames are made of. Every reader gives ``None`` for what is no such word, or raises."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import date
from typing import Final

from bt_ibkr.errors import ContractError
from bt_ibkr.model.contract import SecurityType

FORMS: Final = (
    "Forms: AAPL, AAPL-STK-SMART-USD, EUR.USD, ES DEC26@CME, ES@CME front, AAPL 2026-12-18 C 250, SPX-IND-CBOE, "
    "conid:265598@NASDAQ, COMBO:AAPL*1,MSFT*-1; all are in docs/contracts.md."
)
MONTHS: Final = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
#: What has a strike and a right.
OPTIONS: Final = frozenset({SecurityType.OPTION, SecurityType.FUTURE_OPTION, SecurityType.WARRANT})
FORECASTEX: Final = "FORECASTX"

_EXPIRY = re.compile(r"(20[0-9]{2})(0[1-9]|1[0-2])([0-9]{2})?", re.ASCII)
_ISO = re.compile(r"(20[0-9]{2})-(0[1-9]|1[0-2])(?:-([0-9]{2}))?", re.ASCII)
_DAY = re.compile(r"20[0-9]{2}(-?)[0-9]{2}\1[0-9]{2}", re.ASCII)
_MONTH_WORD = re.compile(rf"({'|'.join(MONTHS)})(?:20)?([0-9]{{2}})", re.ASCII)
_NUMBER = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,9})?", re.ASCII)
_SYMBOL = re.compile(r"[A-Z0-9](?:[A-Z0-9. ]{0,18}[A-Z0-9.])?", re.ASCII)
_WITH_CLASS = re.compile(r"([^\[\]]*)\[([A-Z0-9]{1,10})\]", re.ASCII)
_EXCHANGE = re.compile(r"[A-Z0-9.]{1,20}", re.ASCII)
_CURRENCY = re.compile(r"[A-Z]{3}", re.ASCII)
_RIGHTS: Final = {"C": "C", "CALL": "C", "YES": "C", "P": "P", "PUT": "P", "NO": "P"}
_KINDS: Final = {
    "INDEX": SecurityType.INDEX,
    "STOCK": SecurityType.STOCK,
    **{
        kind.value: kind
        for kind in (
            SecurityType.STOCK, SecurityType.INDEX, SecurityType.CFD, SecurityType.FUND, SecurityType.BOND,
            SecurityType.CRYPTO, SecurityType.COMMODITY,
        )
    },
}  # fmt: skip


def expiry_of(word: str) -> str | None:
    """``202612``, ``20261218``, ``2026-12``, ``2026-12-18``, ``DEC26``, ``DEC2026`` as ``YYYYMM`` or ``YYYYMMDD``."""
    found = _EXPIRY.fullmatch(word) or _ISO.fullmatch(word)
    if found is None:
        named = _MONTH_WORD.fullmatch(word.upper())
        return f"20{named[2]}{MONTHS.index(named[1]) + 1:02d}" if named else None
    year, month, day = found.groups()
    if day is None:
        return f"{year}{month}"
    try:
        date(int(year), int(month), int(day))
    except ValueError:
        return None
    return f"{year}{month}{day}"


def check_dates(words: Iterable[str], text: str) -> None:
    """Refuse a day that the calendar lacks: taken for something else it makes a message that leads astray.

    Raises:
        ContractError: One of ``words`` is such a day.
    """
    for word in words:
        if _DAY.fullmatch(word) and expiry_of(word) is None:
            raise ContractError(
                f"{word!r} in {text!r} is no day of the calendar.",
                remedy="Write days as 2026-12-18 or 20261218.",
            )


def month_word(expiry: str) -> str:
    """``DEC26`` for ``202612`` and ``20261218``: IBKR's word for a month."""
    return f"{MONTHS[int(expiry[4:6]) - 1]}{expiry[2:4]}"


def month_of(word: str) -> str | None:
    """``202612`` for IBKR's ``DEC26``; ``None`` of anything else."""
    named = _MONTH_WORD.fullmatch(word.strip().upper())
    return f"20{named[2]}{MONTHS.index(named[1]) + 1:02d}" if named else None


def number_of(word: str) -> float | None:
    """A plain decimal number, not below 0."""
    return float(word) if _NUMBER.fullmatch(word) else None


def right_of(word: str) -> str | None:
    """``C`` or ``P``."""
    return _RIGHTS.get(word.upper())


def kind_of(word: str) -> SecurityType | None:
    """A type by the word that may stand after a symbol."""
    return _KINDS.get(word.upper())


def is_currency(word: str) -> bool:
    return _CURRENCY.fullmatch(word.upper()) is not None and right_of(word) is None


def symbol_of(word: str, text: str) -> tuple[str, str]:
    """Symbol and trading class: ``SPX[SPXW]`` is ``SPX`` of class ``SPXW``.

    Raises:
        ContractError: It is no symbol.
    """
    name, trading_class = word.strip().upper(), ""
    classed = _WITH_CLASS.fullmatch(name)
    if classed:
        name, trading_class = classed[1].strip(), classed[2]
    if not _SYMBOL.fullmatch(name):
        raise ContractError(f"The dataname {text!r} does not begin with a symbol.", remedy=FORMS)
    return name, trading_class


def exchange_of(word: str, text: str) -> str:
    """An exchange, in capitals.

    Raises:
        ContractError: It is none.
    """
    name = word.strip().upper()
    if not _EXCHANGE.fullmatch(name):
        raise ContractError(f"{word!r} in {text!r} is no exchange.", remedy=FORMS)
    return name


def currency_of(word: str, text: str) -> str:
    """A currency, in capitals.

    Raises:
        ContractError: It is none.
    """
    if not _CURRENCY.fullmatch(word.strip().upper()):
        raise ContractError(f"{word!r} in {text!r} is no currency.", remedy=FORMS)
    return word.strip().upper()


def multiplier_of(word: str, text: str) -> float:
    """A multiplier above 0.

    Raises:
        ContractError: It is none.
    """
    number = number_of(word)
    if not number:
        raise ContractError(f"{word!r} in {text!r} is no multiplier.", remedy=FORMS)
    return number


def plain_number(value: float) -> str:
    """Without an exponent, and without zeros at the end: as it was written."""
    return f"{value:.9f}".rstrip("0").rstrip(".")
