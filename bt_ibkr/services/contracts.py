"""Instruments by name: one contract, or an error that says which there are."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import date, datetime

import msgspec

from bt_ibkr.clock import NS_PER_S, Clock, SystemClock
from bt_ibkr.errors import ContractError, ContractNotFoundError
from bt_ibkr.model.contract import Contract, SecurityType
from bt_ibkr.model.hours import exchange_zone
from bt_ibkr.services.candidates import Candidate, ambiguous, near_names, not_found
from bt_ibkr.services.combos import combo_contract
from bt_ibkr.services.contract_cache import ContractCache
from bt_ibkr.services.datanames import ContractQuery, format_query
from bt_ibkr.services.datanames.words import OPTIONS
from bt_ibkr.services.lookups import ContractLookups
from bt_ibkr.services.options import OptionFinder, same_number
from bt_ibkr.services.rolling import Front, choose_front
from bt_ibkr.session.http import HttpClient
from bt_ibkr.wire.contract_rules import ContractRules
from bt_ibkr.wire.contracts import FutureListing, SearchHit, SearchSection

__all__ = ["Candidate", "ContractService"]

#: Routed by IBKR even where its list of exchanges does not say so.
_ROUTED = (SecurityType.STOCK, SecurityType.BOND)
_MOST_ISSUERS = 10


class ContractService:
    """Look-ups of one session; an answer is kept for the session's life, and in the cache for its age.

    Args:
        http: The session's REST client.
        clock: Market clock: what is expired, and which future is the front, goes by it.
        cache: Keeps answers over runs; by default they end with this.
    """

    def __init__(
        self, http: HttpClient, clock: Clock | None = None, cache: ContractCache | None = None
    ) -> None:
        self._http = http
        self._clock = clock or SystemClock()
        self.lookups = ContractLookups(http, cache)
        self._options = OptionFinder(self.lookups)
        self._known: dict[ContractQuery, Contract] = {}
        self._by_conid: dict[int, Contract] = {}
        self._rules: dict[int, ContractRules] = {}

    async def resolve(self, query: ContractQuery) -> Contract:
        """The one contract that ``query`` names.

        Raises:
            ContractNotFoundError: None answers to it; near names are told.
            AmbiguousContractError: Several do; the message lists them.
            ContractError: Its type is not looked up by name, or its legs make no combo.
        """
        known = self._known.get(query)
        if known is not None and (known.roll_date is None or self._today(known) < known.roll_date):
            return known
        if query.legs:
            parts = [(await self.resolve(leg), ratio) for leg, ratio in query.legs]
            contract = combo_contract(query, parts)
        elif query.roll is not None:
            contract = await self._continuous(query)
        else:
            chosen = None if query.conid else await self._choose(query)
            contract = await self._contract(query, query.conid if chosen is None else chosen.conid, chosen)
        self._known[query] = self._by_conid[contract.conid] = contract
        return contract

    async def rules(self, contract: Contract) -> ContractRules:
        """How a contract may be traded; of a combo an empty one: its legs have rules.

        Raises:
            ContractNotFoundError: IBKR does not know it.
        """
        if contract.legs:
            return ContractRules()
        if contract.conid not in self._rules:
            _, rules = await self.lookups.details(contract.conid, contract.symbol)
            self._rules[contract.conid] = rules
        return self._rules[contract.conid]

    def known(self, conid: int) -> Contract | None:
        """A contract that was resolved in this session; a combo by its key."""
        return self._by_conid.get(conid)

    def legs_of(self, contract: Contract) -> tuple[Contract, ...]:
        """The contracts of a combo's legs, in their order; they were resolved with it.

        Raises:
            ContractError: The combo was not resolved in this session.
        """
        found = tuple(one for leg in contract.legs if (one := self._by_conid.get(leg.conid)) is not None)
        if len(found) < len(contract.legs):
            raise ContractError(
                f"The legs of {contract.symbol} are not known in this session.",
                remedy="Name the combo by its dataname.",
            )
        return found

    def close(self) -> None:
        """Give the cache's file back; what was resolved is still known."""
        self.lookups.close()

    def _today(self, contract: Contract) -> str:
        """``YYYYMMDD`` at the contract's exchange."""
        now = datetime.fromtimestamp(self._clock.now_ns() / NS_PER_S, exchange_zone(contract))
        return now.strftime("%Y%m%d")

    # -- one contract ----------------------------------------------------------------------------

    async def _contract(self, query: ContractQuery, conid: int, chosen: Candidate | None) -> Contract:
        """Details and rules of what was chosen; they must be what the name says."""
        contract, rules = await self.lookups.details(conid, query.text)
        self._rules[contract.conid] = rules
        if query.multiplier and not same_number(query.multiplier, contract.multiplier):
            raise ContractNotFoundError(
                f"{query.text!r} says a multiplier of {query.multiplier:g}, but {contract.describe()} has "
                f"{contract.multiplier:g}.",
                remedy="Leave the multiplier out, or give the contract's own.",
            )
        if query.currency and query.currency != contract.currency and not query.conid:
            raise ContractNotFoundError(
                f"{query.text!r}: {contract.describe()} is priced in {contract.currency}.",
                remedy=f"Write {contract.currency}, or name another listing.",
            )
        changes: dict[str, object] = {"exchange": _route(query, contract, chosen)}
        if chosen is not None and chosen.symbol:
            changes["symbol"] = chosen.symbol
        return msgspec.structs.replace(contract, **changes)

    async def _choose(self, query: ContractQuery) -> Candidate:
        find = self._finder(query.security_type)
        candidates = await find(query)
        if not candidates:
            raise not_found(query, await near_names(self.lookups, query))
        if len(candidates) > 1:
            raise ambiguous(query, candidates, _HOW.get(query.security_type, ""))
        return candidates[0]

    def _finder(self, kind: SecurityType) -> Callable[[ContractQuery], Awaitable[list[Candidate]]]:
        if kind in OPTIONS:
            return self._options.find
        by_kind: dict[SecurityType, Callable[[ContractQuery], Awaitable[list[Candidate]]]] = {
            SecurityType.STOCK: self._stocks,
            SecurityType.FOREX: self._pairs,
            SecurityType.FUTURE: self._futures,
            SecurityType.BOND: self._bonds,
        }
        return by_kind.get(kind, self._searched)

    # -- by type ---------------------------------------------------------------------------------

    async def _stocks(self, query: ContractQuery) -> list[Candidate]:
        listings = await self.lookups.stocks(query.symbol)
        found = [Candidate(x.conid, query.symbol, x.exchange, x.name, x.is_us) for x in listings]
        if query.exchange and query.exchange != "SMART":
            listed = [c for c in found if c.exchange.split(".")[0] == query.exchange]
            return listed or await self._traded_at(found, query.exchange)
        if query.currency and query.currency != "USD":
            return await self._in_currency(found, query.currency)
        domestic = [c for c in found if c.is_us]
        return domestic if domestic or query.currency else found

    async def _in_currency(self, found: list[Candidate], currency: str) -> list[Candidate]:
        rows = await self.lookups.definitions([c.conid for c in found])
        wanted = {row.conid for row in rows if row.currency == currency}
        return [c for c in found if c.conid in wanted]

    async def _traded_at(self, found: list[Candidate], exchange: str) -> list[Candidate]:
        """Listed elsewhere, but traded at the exchange that was named."""
        rows = await self.lookups.definitions([c.conid for c in found])
        wanted = {row.conid for row in rows if exchange in row.valid_exchanges}
        return [c for c in found if c.conid in wanted]

    async def _pairs(self, query: ContractQuery) -> list[Candidate]:
        pairs = await self.lookups.pairs(query.symbol.split(".")[0])
        return [
            Candidate(p.conid, p.symbol, "IDEALPRO", p.symbol, security_type=SecurityType.FOREX)
            for p in pairs
            if p.symbol == query.symbol
        ]

    async def _futures(self, query: ContractQuery) -> list[Candidate]:
        rows = await self._listings(query)
        wanted = [one for one in rows if one.expiration_date.startswith(query.expiry)]
        if not wanted and rows:
            names = [f"{query.symbol} {_dashed(one.expiration_date)}@{_place(query)}" for one in rows]
            raise not_found(query, names)
        return [_future(query, one) for one in wanted]

    async def _listings(self, query: ContractQuery) -> list[FutureListing]:
        """A product's futures; where there are several, of the exchange, currency and multiplier that are named."""
        exchange = "" if query.exchange == "SMART" else query.exchange
        rows = list(await self.lookups.futures(query.symbol, exchange))
        wanted = [one for one in rows if one.expiration_date.startswith(query.expiry)]
        if len(wanted) < 2:
            return rows
        told = {one.conid: one for one in await self.lookups.definitions([one.conid for one in rows])}
        return [one for one in rows if _is_product(told.get(one.conid), query, exchange)]

    async def _continuous(self, query: ContractQuery) -> Contract:
        rows = await self._listings(query)
        if not rows:
            raise not_found(query, await near_names(self.lookups, query))
        days = [one.expiration_date for one in rows]
        if len(set(days)) < len(days):
            raise ambiguous(
                query, [_future(query, one) for one in rows], "name exchange, currency and multiplier"
            )
        # The exchange's zone comes with the details of any of them.
        first = await self._contract(query, rows[0].conid, None)
        today = date.fromisoformat(self._today(first))
        front: Front = await choose_front(self._http, query, rows, today)
        contract = await self._contract(query, front.listing.conid, _future(query, front.listing))
        return msgspec.structs.replace(contract, continuous=format_query(query), roll_date=front.roll_date)

    async def _bonds(self, query: ContractQuery) -> list[Candidate]:
        hits = await self.lookups.search(query.symbol, SecurityType.BOND.value)
        issuers = [issuer for hit in hits for issuer in hit.issuers]
        found: list[Candidate] = []
        for issuer in issuers[:_MOST_ISSUERS]:
            for one in await self.lookups.bonds(issuer.id):
                fits = (one.maturity or "").startswith(query.expiry)
                fits = fits and (query.coupon is None or same_number(one.coupon, query.coupon))
                if fits and query.currency in ("", one.currency or query.currency):
                    coupon = "" if one.coupon is None else f"{one.coupon:g} %"
                    found.append(
                        Candidate(
                            conid=one.conid,
                            symbol=query.symbol,
                            exchange="",
                            name=one.text or issuer.name,
                            last_trade_date=one.maturity,
                            security_type=SecurityType.BOND,
                            note=coupon,
                        )
                    )
        return found

    async def _searched(self, query: ContractQuery) -> list[Candidate]:
        """Indices, CFDs, cryptocurrencies, commodities, funds: what the search itself has."""
        kind = query.security_type
        asked = "IND" if kind is SecurityType.INDEX else ""
        hits = await self.lookups.search(query.symbol, asked, fund=kind is SecurityType.FUND)
        found = {
            one.conid: one
            for hit in hits
            for section in hit.sections
            if section.security_type is kind and (one := _of_section(query, hit, section)) is not None
        }
        if len(found) > 1:
            rows = {one.conid: one for one in await self.lookups.definitions(list(found))}
            return [
                one
                for conid, one in found.items()
                if conid not in rows or query.currency in ("", rows[conid].currency)
            ]
        return list(found.values())


_HOW = {
    SecurityType.STOCK: "name the exchange, as SYMBOL-STK-NYSE, or the currency",
    SecurityType.FUTURE: "name month or day, as SYMBOL 2026-12-18@EXCHANGE; or the front, as SYMBOL@EXCHANGE front",
    SecurityType.OPTION: "name the day, or the trading class, as SYMBOL[CLASS] 2026-12-18 C 250",
    SecurityType.FUTURE_OPTION: "name the day, or the trading class, as SYMBOL[CLASS] 2026-12-18 C 250",
    SecurityType.BOND: "name maturity and coupon, as SYMBOL-BOND-SMART-USD-203505-4.5",
}


def _route(query: ContractQuery, contract: Contract, chosen: Candidate | None) -> str:
    """Where orders go: as named, if the contract trades there; by IBKR's routing only where it has that.

    Raises:
        ContractNotFoundError: It does not trade where it was named.
    """
    wanted, valid = query.exchange or contract.exchange, contract.valid_exchanges
    if not valid or wanted in valid or wanted == contract.exchange:
        return wanted
    if wanted == "SMART":
        return wanted if contract.security_type in _ROUTED else contract.exchange
    listed = chosen is not None and chosen.exchange.split(".")[0] == wanted
    if listed and contract.security_type is SecurityType.STOCK:
        return wanted
    raise ContractNotFoundError(
        f"{query.text!r}: {contract.describe()} does not trade at {wanted}.",
        remedy=f"It trades at {', '.join(valid[:12])}.",
    )


def _future(query: ContractQuery, one: FutureListing) -> Candidate:
    return Candidate(
        one.conid,
        query.symbol,
        "" if query.exchange == "SMART" else query.exchange,
        query.symbol,
        last_trade_date=one.expiration_date,
        security_type=SecurityType.FUTURE,
    )


def _is_product(told: Contract | None, query: ContractQuery, exchange: str) -> bool:
    """Whether a future is of the product that is named, as far as IBKR tells."""
    if told is None:
        return True
    places = {told.exchange, told.listing_exchange, *told.valid_exchanges}
    return (
        (not exchange or exchange in places)
        and query.currency in ("", told.currency)
        and (not query.multiplier or same_number(query.multiplier, told.multiplier))
    )


def _of_section(query: ContractQuery, hit: SearchHit, section: SearchSection) -> Candidate | None:
    """What a section of a search stands for, if it trades where the name says."""
    conid = section.conid or hit.conid
    places = (*section.exchanges, hit.description)
    if not conid or (query.exchange not in ("", "SMART") and query.exchange not in places):
        return None
    exchange = (
        hit.description if "SMART" in section.exchanges else next(iter(section.exchanges), hit.description)
    )
    return Candidate(conid, query.symbol, exchange, hit.company_name, security_type=query.security_type)


def _dashed(day: str) -> str:
    return f"{day[:4]}-{day[4:6]}-{day[6:]}"


def _place(query: ContractQuery) -> str:
    return "EXCHANGE" if query.exchange in ("", "SMART") else query.exchange
