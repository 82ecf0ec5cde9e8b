"""Names of instruments as users write them.

The forms of backtrader's own IBStore, so that its users keep their datanames, and shorter ones::

    AAPL                              stock, SMART, the US listing
    AAPL-STK-SMART-USD                stock, exchange, currency
    EUR.USD   EUR.USD-CASH-IDEALPRO   currency pair
    ES-202612-CME-USD-50              future by month (or day), multiplier optional
    ES-FUT-CME-USD-202612-50          the same with the type spelt out
    conid:265598   conid:265598@NASDAQ   IBKR's own key
    COMBO:AAPL*1,MSFT*-1              a combo: legs by any form above, with ratios (1 if left out)
    COMBO:ES-202612-CME*1,ES-202703-CME*-1@CME   the same, routed to an exchange
    28812380;;;265598/1,272093/-1     a combo as IBKR's orders write it (``conidex``)
"""

from __future__ import annotations

import re

import msgspec

from bt_ibkr.errors import ContractError, WireError
from bt_ibkr.model.contract import SecurityType
from bt_ibkr.model.ticket import MAX_LEGS
from bt_ibkr.wire.conidex import parse_conidex

_FORMS = (
    "Forms: AAPL, AAPL-STK-SMART-USD, EUR.USD-CASH-IDEALPRO, ES-202612-CME-USD, conid:265598@NASDAQ, "
    "COMBO:AAPL*1,MSFT*-1."
)
_COMBO = "combo:"
_LEG = re.compile(r"(.+?)(?:\*([+-]?[1-9][0-9]{0,5}))?", re.ASCII | re.DOTALL)
_EXCHANGE = re.compile(r"[A-Z0-9.]{1,20}", re.ASCII)
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
    legs: tuple[tuple[ContractQuery, int], ...] = ()
    spread_id: int = 0


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
    if ";;;" in text:
        return _by_conidex(text, exchange)
    if text[: len(_COMBO)].lower() == _COMBO:
        return _combo(text, exchange, currency)
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


def _by_conidex(text: str, exchange: str) -> ContractQuery:
    try:
        found = parse_conidex(text)
    except WireError as problem:
        raise ContractError(f"The dataname {text!r} is no combo: {problem}", remedy=_FORMS) from None
    legs = tuple((ContractQuery(text=f"conid:{leg.conid}", conid=leg.conid), leg.ratio) for leg in found.legs)
    where = found.exchange if "@" in text.partition(";;;")[0] else exchange
    return _with_legs(text, legs, where.upper(), found.conid)


def _combo(text: str, exchange: str, currency: str) -> ContractQuery:
    """``COMBO:`` and legs; an exchange after the last one is the whole combo's."""
    body, at, where = text[len(_COMBO) :].rpartition("@")
    if not at:
        body, where = where, exchange
    where = where.strip().upper()
    if not _EXCHANGE.fullmatch(where):
        raise ContractError(f"{where!r} in {text!r} is no exchange.", remedy=_FORMS)
    legs: list[tuple[ContractQuery, int]] = []
    for part in body.split(","):
        found = _LEG.fullmatch(part.strip())
        if found is None or "@" in part:
            raise ContractError(
                f"{part.strip()!r} in {text!r} is no leg.",
                remedy="Write each leg as NAME*RATIO, and the exchange once, after the last one: @CME.",
            )
        if found[1].lower().startswith(_COMBO):
            raise ContractError(f"{text!r}: a combo cannot be a leg.", remedy=_FORMS)
        leg = parse_dataname(found[1], exchange="", currency=currency)
        legs.append((leg, int(found[2] or 1)))
    return _with_legs(text, tuple(legs), where, 0)


def _with_legs(
    text: str, legs: tuple[tuple[ContractQuery, int], ...], exchange: str, spread_id: int
) -> ContractQuery:
    if not 2 <= len(legs) <= MAX_LEGS:
        raise ContractError(f"The combo {text!r} has {len(legs)} legs.", remedy=f"Give 2 to {MAX_LEGS}.")
    return ContractQuery(
        text=text,
        symbol=",".join(f"{leg.symbol or leg.conid}*{ratio}" for leg, ratio in legs),
        security_type=SecurityType.COMBO,
        exchange=exchange,
        legs=legs,
        spread_id=spread_id,
    )
