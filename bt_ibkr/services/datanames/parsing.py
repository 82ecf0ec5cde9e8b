"""Any dataname, taken apart."""

from __future__ import annotations

import re

from bt_ibkr.errors import ContractError, WireError
from bt_ibkr.model.contract import SecurityType
from bt_ibkr.model.ticket import MAX_LEGS
from bt_ibkr.services.datanames import words
from bt_ibkr.services.datanames.dashed import parse_dashed
from bt_ibkr.services.datanames.plain import parse_plain
from bt_ibkr.services.datanames.query import ContractQuery
from bt_ibkr.services.datanames.words import FORMS
from bt_ibkr.wire.conidex import parse_conidex

_COMBO = "combo:"
_LEG = re.compile(r"(.+?)(?:\*([+-]?[1-9][0-9]{0,5}))?", re.ASCII | re.DOTALL)
_BY_ID = "conid:"
_NO_RATIO = re.compile(r".+\*[+-]?0*", re.ASCII | re.DOTALL)
_CONID = re.compile(r"conid:([1-9][0-9]{0,11})(?:@([A-Z0-9.]{1,20}))?", re.IGNORECASE | re.ASCII)


def parse_dataname(
    dataname: str, *, security_type: str = "STK", exchange: str = "SMART", currency: str = ""
) -> ContractQuery:
    """Take a dataname apart.

    Args:
        dataname: See the package's table.
        security_type, exchange, currency: Used where the name does not say.

    Raises:
        ContractError: The name has no known form.
    """
    given: object = dataname
    if given is not None and not isinstance(given, str):
        number = isinstance(given, int) and given > 0
        raise ContractError(
            f"The dataname {dataname!r} is no text.",
            remedy=f'Write a contract id as "conid:{dataname}".' if number else FORMS,
        )
    if not given or not dataname.strip():
        raise ContractError(f"The dataname {dataname!r} is empty.", remedy=FORMS)
    text = dataname.strip()
    if ";;;" in text:
        return _by_conidex(text, exchange)
    if text[: len(_COMBO)].lower() == _COMBO:
        return _combo(text, exchange, currency)
    by_id = _CONID.fullmatch(text)
    if by_id:
        return ContractQuery(text=text, conid=int(by_id[1]), exchange=(by_id[2] or exchange).upper())
    if text[: len(_BY_ID)].lower() == _BY_ID:
        raise ContractError(
            f"The dataname {text!r} has no contract id: a whole number above 0 is wanted after conid:.",
            remedy="Write it as conid:265598, or conid:265598@NASDAQ; bt-ibkr contracts finds ids.",
        )
    kind = SecurityType.from_wire(str(security_type).upper())
    if kind is SecurityType.UNKNOWN:
        known = set(SecurityType) - {SecurityType.UNKNOWN, SecurityType.COMBO}
        raise ContractError(
            f"{security_type!r} is no security type (sectype, of the dataname {text!r}).",
            remedy=f"One of: {', '.join(sorted(one.value for one in known))}.",
        )
    plain = parse_plain(text, kind, exchange, currency)
    return parse_dashed(text, kind, exchange, currency) if plain is None else plain


def _by_conidex(text: str, exchange: str) -> ContractQuery:
    try:
        found = parse_conidex(text)
    except WireError as problem:
        raise ContractError(f"The dataname {text!r} is no combo: {problem}", remedy=FORMS) from None
    legs = tuple((ContractQuery(text=f"conid:{leg.conid}", conid=leg.conid), leg.ratio) for leg in found.legs)
    where = found.exchange if "@" in text.partition(";;;")[0] else exchange
    return _with_legs(text, legs, where.upper(), found.conid)


def _combo(text: str, exchange: str, currency: str) -> ContractQuery:
    """``COMBO:`` and legs; an exchange at the very end is the whole combo's, one before a ratio its leg's."""
    body = text[len(_COMBO) :]
    before, at, after = body.rpartition("@")
    where = exchange
    if at and not {",", "*"} & set(after):
        body, where = before, words.exchange_of(after, text)
    legs: list[tuple[ContractQuery, int]] = []
    for part in body.split(","):
        found = _LEG.fullmatch(part.strip())
        if _NO_RATIO.fullmatch(part.strip()):
            raise ContractError(
                f"{part.strip()!r} in {text!r} has no ratio: a whole number other than 0 is wanted after *.",
                remedy="Write each leg as NAME*RATIO: AAPL*1, or MSFT*-1 for one that is sold.",
            )
        if found is None:
            raise ContractError(
                f"{part.strip()!r} in {text!r} is no leg.",
                remedy="Write each leg as NAME*RATIO, and where the whole is routed after the last one: @CME.",
            )
        if found[1].lower().startswith(_COMBO) or ";;;" in found[1]:
            raise ContractError(f"{text!r}: a combo cannot be a leg.", remedy=FORMS)
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
