"""Instruments by name: one contract, or an error that says which there are."""

from __future__ import annotations

import msgspec

from bt_ibkr.errors import AmbiguousContractError, ContractError, ContractNotFoundError, ResponseError
from bt_ibkr.model.contract import Contract, SecurityType
from bt_ibkr.services.combos import combo_contract
from bt_ibkr.services.datanames import ContractQuery
from bt_ibkr.session.http import HttpClient
from bt_ibkr.wire import contracts as wire


class Candidate(msgspec.Struct, frozen=True):
    """One of the instruments that answer to a name."""

    conid: int
    symbol: str
    exchange: str
    name: str
    is_us: bool = True
    last_trade_date: str | None = None


class ContractService:
    """Look-ups of one session; an answer is kept for the session's life.

    Args:
        http: The session's REST client.
    """

    def __init__(self, http: HttpClient) -> None:
        self._http = http
        self._known: dict[ContractQuery, Contract] = {}
        self._by_conid: dict[int, Contract] = {}

    async def resolve(self, query: ContractQuery) -> Contract:
        """The one contract that ``query`` names.

        Raises:
            ContractNotFoundError: None answers to it.
            AmbiguousContractError: Several do; the message lists them.
            ContractError: Its type is not looked up by name, or its legs make no combo.
        """
        known = self._known.get(query)
        if known is not None:
            return known
        if query.legs:
            parts = [(await self.resolve(leg), ratio) for leg, ratio in query.legs]
            contract = self._known[query] = combo_contract(query, parts)
            self._by_conid[contract.conid] = contract
            return contract
        if query.conid:
            conid, symbol = query.conid, ""
        else:
            candidate = await self._choose(query)
            conid, symbol = candidate.conid, candidate.symbol
        contract = await self._details(query, conid)
        exchange = query.exchange or contract.exchange
        changes: dict[str, object] = {"exchange": exchange}
        if query.multiplier:
            changes["multiplier"] = query.multiplier
        if symbol:
            changes["symbol"] = symbol
        contract = msgspec.structs.replace(contract, **changes)
        self._known[query] = self._by_conid[contract.conid] = contract
        return contract

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

    async def _details(self, query: ContractQuery, conid: int) -> Contract:
        path = f"/iserver/contract/{conid}/info-and-rules"
        try:
            return wire.contract_info(await self._http.get(path))
        except ResponseError as problem:
            raise ContractNotFoundError(
                f"IBKR knows no contract {conid} (asked for {query.text!r}: {problem.body})."
            ) from None

    async def _choose(self, query: ContractQuery) -> Candidate:
        if query.security_type is SecurityType.STOCK:
            candidates = await self._stocks(query)
        elif query.security_type is SecurityType.FOREX:
            candidates = await self._pairs(query)
        elif query.security_type is SecurityType.FUTURE:
            candidates = await self._futures(query)
        else:
            raise ContractError(
                f"{query.text!r}: instruments of type {query.security_type.value} are not looked up by name "
                "in this version.",
                remedy="Name it by its key, as conid:NUMBER@EXCHANGE.",
            )
        if not candidates:
            raise ContractNotFoundError(
                f"No {query.security_type.value} instrument answers to {query.text!r}.",
                remedy="Check symbol, exchange and currency.",
            )
        if len(candidates) > 1:
            rows = "; ".join(
                f"conid:{c.conid}@{c.exchange} ({c.name}{', ' + c.last_trade_date if c.last_trade_date else ''})"
                for c in candidates[:8]
            )
            raise AmbiguousContractError(
                f"{query.text!r} is ambiguous: {len(candidates)} instruments answer to it: {rows}.",
                remedy="Name one of them, for example by its conid.",
            )
        return candidates[0]

    async def _stocks(self, query: ContractQuery) -> list[Candidate]:
        body = await self._http.get("/trsrv/stocks", {"symbols": query.symbol})
        listings = wire.stocks(body).get(query.symbol, ())
        found = [Candidate(x.conid, query.symbol, x.exchange, x.name, x.is_us) for x in listings]
        if query.exchange and query.exchange != "SMART":
            return [c for c in found if c.exchange.split(".")[0] == query.exchange]
        if query.currency and query.currency != "USD":
            return await self._in_currency(found, query.currency)
        domestic = [c for c in found if c.is_us]
        return domestic if domestic or query.currency else found

    async def _in_currency(self, found: list[Candidate], currency: str) -> list[Candidate]:
        if not found:
            return []
        conids = ",".join(str(c.conid) for c in found[:200])
        rows = wire.secdef(await self._http.get("/trsrv/secdef", {"conids": conids}))
        wanted = {row.conid for row in rows if row.currency == currency}
        return [c for c in found if c.conid in wanted]

    async def _pairs(self, query: ContractQuery) -> list[Candidate]:
        body = await self._http.get("/iserver/currency/pairs", {"currency": query.symbol.split(".")[0]})
        pairs = wire.currency_pairs(body)
        return [Candidate(p.conid, p.symbol, "IDEALPRO", p.symbol) for p in pairs if p.symbol == query.symbol]

    async def _futures(self, query: ContractQuery) -> list[Candidate]:
        body = await self._http.get("/trsrv/futures", {"symbols": query.symbol})
        rows = wire.futures(body).get(query.symbol, ())
        return [
            Candidate(r.conid, query.symbol, query.exchange, query.symbol, last_trade_date=r.expiration_date)
            for r in rows
            if not query.expiry or r.expiration_date.startswith(query.expiry)
        ]
