"""Names of instruments as users write them.

The forms of backtrader's own IBStore, so that its users keep their datanames, and shorter ones::

    AAPL                              stock, SMART, the US listing
    AAPL-STK-SMART-USD                stock, exchange, currency
    EUR.USD   EUR.USD-CASH-IDEALPRO   currency pair
    ES-202612-CME-USD-50              future by month (or day), multiplier optional
    ES-FUT-CME-USD-202612-50          the same with the type spelt out
    conid:265598   conid:265598@NASDAQ   IBKR's own key
"""

from __future__ import annotations

import re

import msgspec

from bt_ibkr.errors import ContractError
from bt_ibkr.model.contract import SecurityType

_FORMS = "Forms: AAPL, AAPL-STK-SMART-USD, EUR.USD-CASH-IDEALPRO, ES-202612-CME-USD, conid:265598@NASDAQ."
_EXPIRY = re.compile(r"[0-9]{4}(?:0[1-9]|1[0-2])(?:0[1-9]|[12][0-9]|3[01])?")
_MULTIPLIER = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,9})?")
_CONID = re.compile(r"conid:([1-9][0-9]{0,11})(?:@([A-Z0-9.]{1,20}))?", re.IGNORECASE)
_PAIR = re.compile(r"[A-Z]{3}\.[A-Z]{3}")


class ContractQuery(msgspec.Struct, frozen=True, kw_only=True):
    """A dataname, taken apart. Empty means: not said.

    Attributes:
        text: As the user wrote it, for messages.
        conid: Given directly, else 0.
        expiry: ``YYYYMM`` or ``YYYYMMDD``.
        multiplier: 0.0 if not said.
    """

    text: str
    conid: int = 0
    symbol: str = ""
    security_type: SecurityType = SecurityType.STOCK
    exchange: str = ""
    currency: str = ""
    expiry: str = ""
    multiplier: float = 0.0


def parse_dataname(
    dataname: str, *, security_type: str = "STK", exchange: str = "SMART", currency: str = ""
) -> ContractQuery:
    """Take a dataname apart.

    Args:
        dataname: See the module's table.
        security_type, exchange, currency: Used where the name does not say.

    Raises:
        ContractError: The name has no known form.
    """
    if not isinstance(dataname, str) or not dataname.strip():
        raise ContractError(f"The dataname {dataname!r} is empty.", remedy=_FORMS)
    text = dataname.strip()
    by_id = _CONID.fullmatch(text)
    if by_id:
        return ContractQuery(text=text, conid=int(by_id[1]), exchange=(by_id[2] or exchange).upper())
    parts = text.split("-")
    symbol = parts.pop(0).strip().upper()
    if not re.fullmatch(r"[A-Z0-9][A-Z0-9. ]{0,19}", symbol):
        raise ContractError(f"The dataname {text!r} does not begin with a symbol.", remedy=_FORMS)
    kind = SecurityType.FOREX if _PAIR.fullmatch(symbol) else SecurityType.from_wire(security_type)
    expiry = ""
    if parts and _EXPIRY.fullmatch(parts[0]):
        kind, expiry = SecurityType.FUTURE, parts.pop(0)
    elif parts:
        word = parts.pop(0).upper()
        kind = SecurityType.from_wire(word)
        if kind is SecurityType.UNKNOWN:
            raise ContractError(f"{word!r} in {text!r} is no security type.", remedy=_FORMS)
    default_exchange = "IDEALPRO" if kind is SecurityType.FOREX and exchange == "SMART" else exchange
    named_exchange = (parts.pop(0) if parts else "").upper() or default_exchange
    named_currency = (parts.pop(0) if parts else "").upper() or currency
    if kind is SecurityType.FUTURE and not expiry and parts:
        expiry = parts.pop(0)
        if not _EXPIRY.fullmatch(expiry):
            raise ContractError(f"{expiry!r} in {text!r} is no month of expiry (YYYYMM).", remedy=_FORMS)
    multiplier = 0.0
    if kind is SecurityType.FUTURE and parts:
        word = parts.pop(0)
        multiplier = float(word) if _MULTIPLIER.fullmatch(word) else 0.0
        if not multiplier:
            raise ContractError(f"{word!r} in {text!r} is no multiplier.", remedy=_FORMS)
    if kind in (SecurityType.OPTION, SecurityType.FUTURE_OPTION) or (parts and expiry):
        raise ContractError(
            f"{text!r}: options are not looked up by name in this version.",
            remedy="Name the option by its key, as conid:NUMBER@EXCHANGE.",
        )
    if parts:
        raise ContractError(f"{text!r} has a part too many: {parts[0]!r}.", remedy=_FORMS)
    return ContractQuery(
        text=text,
        symbol=symbol,
        security_type=kind,
        exchange=named_exchange,
        currency=named_currency,
        expiry=expiry,
        multiplier=multiplier,
    )
