"""Instruments that answer to a name: each with how to write it, and the errors that list them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from contextlib import suppress

import msgspec

from bt_ibkr.errors import AmbiguousContractError, BtIbkrError, ContractNotFoundError
from bt_ibkr.model.contract import Contract, SecurityType
from bt_ibkr.services.datanames import ContractQuery
from bt_ibkr.services.lookups import ContractLookups
from bt_ibkr.wire.contracts import SearchHit, SearchSection

#: So many are listed in a message.
_MOST = 8
#: Words shorter than this are in too many companies' names.
_SHORTEST_NAME = 3
#: So much alike are pairs that have one of their currencies in common.
_ALIKE = 0.5


class Candidate(msgspec.Struct, frozen=True):
    """One of the instruments that answer to a name.

    Attributes:
        exchange: Where it is listed, or trades.
        last_trade_date: ``YYYYMMDD``; of a bond its maturity.
        note: What else tells it from others: trading class, multiplier.
    """

    conid: int
    symbol: str
    exchange: str
    name: str
    is_us: bool = True
    last_trade_date: str | None = None
    security_type: SecurityType = SecurityType.STOCK
    note: str = ""

    @property
    def dataname(self) -> str:
        """Means this instrument and no other. What IBKR routes by itself names no exchange."""
        routed = self.security_type in (SecurityType.STOCK, SecurityType.OPTION, SecurityType.BOND)
        return f"conid:{self.conid}" if routed or not self.exchange else f"conid:{self.conid}@{self.exchange}"

    def __str__(self) -> str:
        words = [self.name, self.exchange, self.last_trade_date or "", self.note]
        return f"{self.dataname} ({', '.join(word for word in words if word)})"


def candidate_of(contract: Contract) -> Candidate:
    """A contract as a candidate."""
    derived = contract.security_type in (
        SecurityType.FUTURE,
        SecurityType.OPTION,
        SecurityType.FUTURE_OPTION,
        SecurityType.WARRANT,
    )
    notes = [contract.trading_class, f"x{contract.multiplier:g}" if derived else ""]
    return Candidate(
        conid=contract.conid,
        symbol=contract.symbol,
        exchange=contract.exchange,
        name=contract.company_name or contract.symbol,
        last_trade_date=contract.last_trade_date,
        security_type=contract.security_type,
        note=" ".join(note for note in notes if note),
    )


def ambiguous(query: ContractQuery, candidates: Sequence[Candidate], how: str = "") -> AmbiguousContractError:
    """The error that lists what answers to a name, and how to say which is meant."""
    rows = "; ".join(map(str, candidates[:_MOST]))
    more = f"; and {len(candidates) - _MOST} more" if len(candidates) > _MOST else ""
    return AmbiguousContractError(
        f"{query.text!r} is ambiguous: {len(candidates)} instruments answer to it: {rows}{more}.",
        remedy=f"Write one of the names that begin with conid:{how and f', or {how}'}.",
    )


def not_found(query: ContractQuery, near: Sequence[str], why: str = "") -> ContractNotFoundError:
    """The error that tells near names."""
    kind = query.security_type.value
    return ContractNotFoundError(
        why or f"No {kind} instrument answers to {query.text!r}.",
        remedy=f"Near names: {', '.join(near[:_MOST])}." if near else "Check symbol, exchange and currency.",
    )


async def near_names(lookups: ContractLookups, query: ContractQuery) -> list[str]:
    """Names that may have been meant, as they are to be written; none where IBKR cannot be asked."""
    try:
        return await _near_names(lookups, query)
    except BtIbkrError:
        return []


async def _near_names(lookups: ContractLookups, query: ContractQuery) -> list[str]:
    if query.security_type is SecurityType.FOREX:
        return await _near_pairs(lookups, query.symbol)
    hits = await lookups.search(query.symbol)
    names = names_of(hits, query.security_type)
    if query.symbol.isdigit():
        # Somebody's contract id, if it is no symbol of Hong Kong or Tokyo.
        names = [f"conid:{query.symbol}", *names]
    if not names and len(query.symbol) >= _SHORTEST_NAME and query.symbol.replace(" ", "").isalpha():
        names = [
            f"{name} ({hit.company_name})"
            for hit in await lookups.by_name(query.symbol)
            for name in names_of([hit])[:1]
        ]
    if not names and len(query.symbol) > _SHORTEST_NAME:
        # A letter too many at its end.
        names = names_of(await lookups.search(query.symbol[:-1]))
    close = difflib.get_close_matches(query.symbol, lookups.looked_up(), n=3)
    return list(dict.fromkeys([*names, *(name for name in close if name != query.symbol)]))


async def _near_pairs(lookups: ContractLookups, symbol: str) -> list[str]:
    """The pair the other way round, and pairs of either currency that look alike."""
    base, _, quote = symbol.partition(".")
    known: set[str] = set()
    for currency in (base, quote):
        # One of the two may be no currency at all.
        with suppress(BtIbkrError):
            known |= {pair.symbol for pair in await lookups.pairs(currency)}
    turned = [name for name in (f"{quote}.{base}",) if name in known]
    crypto = [
        name
        for hit in await lookups.search(base)
        for section in hit.sections
        if section.security_type is SecurityType.CRYPTO
        for name in (name_of(hit, section),)
    ]
    return [
        *turned,
        *crypto,
        *difflib.get_close_matches(symbol, sorted(known - set(turned)), n=4, cutoff=_ALIKE),
    ]


def names_of(hits: Iterable[SearchHit], asked: SecurityType = SecurityType.STOCK) -> list[str]:
    """How to write what a search found: one name for each thing that can be named by symbol.

    Args:
        hits: What was found.
        asked: Names of that type come first, and others say that they are; a stock is what a bare symbol means.
    """
    found: list[str] = []
    others: list[str] = []
    for hit in hits:
        if hit.issuers:
            found.append(f"{hit.issuers[0].name} bonds: SYMBOL-BOND")
        for section in hit.sections:
            name = name_of(hit, section)
            if name and asked in (SecurityType.STOCK, section.security_type):
                found.append(name)
            elif name:
                others.append(f"{name} (no {asked.value})")
    return list(dict.fromkeys([*found, *others]))


def name_of(hit: SearchHit, section: SearchSection) -> str:
    """How to write what a section of a search stands for; empty where a symbol alone does not name it."""
    kind = section.security_type
    exchange = next(iter(section.exchanges), "") or hit.description
    if kind in (SecurityType.STOCK, SecurityType.INDEX, SecurityType.COMMODITY, SecurityType.FUND):
        return f"{hit.symbol}-{kind.value}-{hit.description or exchange}"
    if kind is SecurityType.FUTURE:
        return f"{hit.symbol}@{exchange} front"
    if kind is SecurityType.CRYPTO:
        return f"{hit.symbol}-CRYPTO-{exchange}"
    return f"{hit.symbol}-CFD" if kind is SecurityType.CFD else ""
