"""What IBKR tells of contracts: its look-ups, one method each, answered from the cache where that is fresh.

Order matters to the server: strikes and definitions of derivatives are given only for what was searched before in the
same session, and a search by company name spoils that. So a search goes before, whatever the cache holds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar
from urllib.parse import urlencode

import msgspec

from bt_ibkr.clock import NS_PER_S
from bt_ibkr.errors import BtIbkrError, ContractNotFoundError, ResponseError, WireError
from bt_ibkr.model.contract import Contract, SecurityType
from bt_ibkr.services.contract_cache import ContractCache
from bt_ibkr.session.http import HttpClient
from bt_ibkr.wire import contracts as wire
from bt_ibkr.wire.bonds import BondListing, bond_listings
from bt_ibkr.wire.contract_rules import ContractRules, contract_rules
from bt_ibkr.wire.forecast import (
    EventContract,
    EventDetails,
    EventMarket,
    category_tree,
    event_details,
    event_market,
)
from bt_ibkr.wire.json import parsed

T = TypeVar("T")

#: ``trsrv/secdef`` takes no more (wire facts, 3).
MAX_CONIDS: Final = 200
#: What the server answers with where it has none of what was asked for.
_NONE_STATUS: Final = frozenset({200, 400, 404})
#: Of an account and of one moment: not for the next run.
_PASSING: Final = ("canTradeAcctIds", "limitPrice", "stopprice")


class Underlying(msgspec.Struct, frozen=True, kw_only=True):
    """What derivatives are on, as a search found it.

    Attributes:
        conid: What strikes and definitions are asked for with.
        kind: Of the derivatives.
        months: IBKR's words of those that are listed: ``DEC26``.
        exchanges: Where they trade.
        listing: Where the underlying is listed.
    """

    conid: int
    symbol: str
    name: str
    kind: SecurityType
    months: tuple[str, ...]
    exchanges: tuple[str, ...]
    listing: str


class ContractLookups:
    """Look-ups of one session.

    Args:
        http: The session's REST client.
        cache: Where answers are kept; by default in memory, for as long as this lives.
    """

    def __init__(self, http: HttpClient, cache: ContractCache | None = None) -> None:
        self._http = http
        self._cache = cache or ContractCache(None, "")
        self._searched: set[str] = set()
        self._searching = asyncio.Lock()

    # -- by symbol -------------------------------------------------------------------------------

    async def stocks(self, symbol: str) -> tuple[wire.StockListing, ...]:
        """Its listings, of all companies that have the symbol."""
        return await self._ask(
            "stocks", "/trsrv/stocks", {"symbols": symbol}, lambda body: wire.stocks(body).get(symbol, ())
        )

    async def futures(self, symbol: str, exchange: str = "") -> tuple[wire.FutureListing, ...]:
        """Its futures that have not expired, the nearest first."""
        params = {"symbols": symbol} | ({"exchange": exchange} if exchange else {})
        found = await self._ask(
            "futures", "/trsrv/futures", params, lambda body: wire.futures(body).get(symbol, ())
        )
        return tuple(sorted(found, key=lambda one: one.expiration_date))

    async def pairs(self, currency: str) -> tuple[wire.CurrencyPair, ...]:
        return await self._ask(
            "pairs", "/iserver/currency/pairs", {"currency": currency}, wire.currency_pairs
        )

    async def definitions(self, conids: list[int]) -> tuple[Contract, ...]:
        """What IBKR's table tells of contracts; those that it lacks are left out."""
        found: list[Contract] = []
        for start in range(0, len(conids), MAX_CONIDS):
            asked = ",".join(map(str, conids[start : start + MAX_CONIDS]))
            found += await self._ask("definitions", "/trsrv/secdef", {"conids": asked}, wire.secdef)
        return tuple(found)

    async def search(
        self, symbol: str, sec_type: str = "", *, fund: bool = False
    ) -> tuple[wire.SearchHit, ...]:
        """What answers to a symbol, of any exchange. The order means nothing."""
        params = {"symbol": symbol} | ({"secType": sec_type} if sec_type else {})
        params |= {"fund": "true"} if fund else {}
        return await self._ask("search", "/iserver/secdef/search", params, wire.search)

    async def by_name(self, words: str) -> tuple[wire.SearchHit, ...]:
        """What a company's name, or a part of it, finds."""
        # Afterwards strikes are wrong until the symbol itself is searched again.
        self._searched.clear()
        params = {"symbol": words, "name": "true"}
        return await self._ask("search", "/iserver/secdef/search", params, wire.search)

    # -- derivatives -----------------------------------------------------------------------------

    async def underlyings(self, symbol: str, kinds: tuple[SecurityType, ...]) -> tuple[Underlying, ...]:
        """What has derivatives of these kinds under the symbol."""
        found: dict[tuple[int, SecurityType], Underlying] = {}
        # Left out, the type of the underlying is a stock for some servers: an index is asked for by its own.
        for sec_type in ("", "IND"):
            for hit in await self.search(symbol, sec_type):
                for section in hit.sections:
                    if section.security_type in kinds and hit.conid and section.months:
                        found.setdefault(
                            (hit.conid, section.security_type),
                            Underlying(
                                conid=hit.conid,
                                symbol=symbol,
                                name=hit.company_name,
                                kind=section.security_type,
                                months=section.months,
                                exchanges=section.exchanges,
                                listing=hit.description,
                            ),
                        )
            if found:
                break
        return tuple(found.values())

    async def strikes(self, underlying: Underlying, month: str, exchange: str) -> wire.Strikes:
        """The strikes of a month; empty if it has none."""
        params = {
            "conid": str(underlying.conid),
            "sectype": underlying.kind.value,
            "month": month,
            "exchange": exchange,
        }
        return await self._after_search(
            underlying.symbol,
            lambda: self._ask(
                "strikes",
                "/iserver/secdef/strikes",
                params,
                wire.strikes,
                keep=lambda found: bool(found.call or found.put),
            ),
            lambda found: bool(found.call or found.put),
            "strikes",
            _key("/iserver/secdef/strikes", params),
        )

    async def derivatives(
        self, underlying: Underlying, month: str, exchange: str, strike: float, right: str = ""
    ) -> tuple[Contract, ...]:
        """The contracts of a month at a strike: of all days and classes, and of both rights unless one is said."""
        params = {
            "conid": str(underlying.conid),
            "sectype": underlying.kind.value,
            "month": month,
            "exchange": exchange,
            "strike": f"{strike:.9f}".rstrip("0").rstrip("."),
        } | ({"right": right} if right else {})
        return await self._after_search(
            underlying.symbol,
            lambda: self._ask("chain", "/iserver/secdef/info", params, wire.secdef_info),
            bool,
            "chain",
            _key("/iserver/secdef/info", params),
        )

    async def _after_search(
        self, symbol: str, ask: Callable[[], Any], good: Callable[[T], bool], kind: str, key: str
    ) -> T:
        """``ask``, once the symbol was searched in this session; once more if the server has forgotten that."""
        if self._cache.get(kind, key) is None:
            await self._search_first(symbol)
        found: T = await ask()
        if good(found):
            return found
        await self._search_first(symbol, anew=True)
        again: T = await ask()
        return again

    async def _search_first(self, symbol: str, *, anew: bool = False) -> None:
        async with self._searching:
            if symbol in self._searched and not anew:
                return
            for params in ({"symbol": symbol}, {"symbol": symbol, "secType": "IND"}):
                if await self._live("search", "/iserver/secdef/search", params, wire.search, bool):
                    self._searched.add(symbol)
                    return

    # -- bonds, events ---------------------------------------------------------------------------

    async def bonds(self, issuer: str) -> tuple[BondListing, ...]:
        params = {"sectype": "BOND", "issuerId": issuer}
        return await self._ask("bonds", "/iserver/secdef/info", params, bond_listings)

    async def markets(self) -> tuple[EventMarket, ...]:
        """All markets of event contracts."""
        return await self._ask("events", "/forecast/category/tree", {}, category_tree)

    async def event_contracts(self, market: EventMarket) -> tuple[EventContract, ...]:
        params = {"underlyingConid": str(market.conid), "exchange": market.exchange}
        return await self._ask("events", "/forecast/contract/market", params, event_market)

    async def event_details(self, conid: int) -> EventDetails | None:
        """What an event contract asks; ``None`` if it is none."""
        try:
            return event_details(await self._http.get("/forecast/contract/details", {"conid": str(conid)}))
        except ResponseError:
            return None

    # -- by conid --------------------------------------------------------------------------------

    async def details(self, conid: int, asked_for: str) -> tuple[Contract, ContractRules]:
        """Details and trading rules.

        Raises:
            ContractNotFoundError: IBKR knows no such contract.
        """
        path = f"/iserver/contract/{conid}/info-and-rules"
        kept = self._kept("details", path, _details)
        if kept is not None:
            return kept
        try:
            body = await self._http.get(path)
            if not _has_rules(body):
                # The first answer may lack them (IBKR's specification).
                body = await self._http.get(path)
        except ResponseError as problem:
            raise ContractNotFoundError(
                f"IBKR knows no contract {conid} (asked for {asked_for!r}: {problem.body}).",
                remedy="Find its id with bt-ibkr contracts, or name it by symbol: AAPL, ES@CME front.",
            ) from None
        found = _details(body)
        if _has_rules(body):
            self._cache.put("details", path, _lasting(body), until_ns=_end_ns(found[0].last_trade_date))
        return found

    # -- the cache -------------------------------------------------------------------------------

    def looked_up(self) -> tuple[str, ...]:
        """Symbols that were looked up with success, as long as that is remembered."""
        found: dict[str, None] = {}
        for kind in ("stocks", "futures", "search"):
            for key in self._cache.keys(kind):
                words = dict(part.partition("=")[::2] for part in key.partition("?")[2].split("&"))
                if words.get("name") != "true":
                    found[(words.get("symbols") or words.get("symbol") or "").replace("+", " ")] = None
        return tuple(name for name in found if name)

    def close(self) -> None:
        self._cache.close()

    def _kept(self, kind: str, key: str, read: Callable[[object], T]) -> T | None:
        body = self._cache.get(kind, key)
        if body is None:
            return None
        try:
            return read(msgspec.json.decode(body))
        except (BtIbkrError, msgspec.DecodeError):
            # Of another version of this program, or damaged: asked for again.
            self._cache.drop(kind, key)
            return None

    async def _ask(
        self,
        kind: str,
        path: str,
        params: Mapping[str, str],
        read: Callable[[object], T],
        *,
        keep: Callable[[T], bool] = bool,
    ) -> T:
        kept = self._kept(kind, _key(path, params), read)
        return kept if kept is not None else await self._live(kind, path, params, read, keep)

    async def _live(
        self,
        kind: str,
        path: str,
        params: Mapping[str, str],
        read: Callable[[object], T],
        keep: Callable[[T], bool],
    ) -> T:
        """Asked of IBKR; an answer that holds something is kept, since an empty one may be a server that warms up."""
        try:
            body = await self._http.get(path, params or None)
        except ResponseError as problem:
            if problem.status not in _NONE_STATUS:
                raise
            # Read as what each endpoint has for nothing: an empty array, an empty object.
            return _nothing(read)
        found = read(body)
        if keep(found):
            self._cache.put(kind, _key(path, params), msgspec.json.encode(body))
        return found


def _key(path: str, params: Mapping[str, str]) -> str:
    return f"{path}?{urlencode(sorted(params.items()))}"


def _nothing(read: Callable[[object], T]) -> T:
    """What a reader makes of an answer that holds nothing."""
    empties: tuple[object, ...] = ([], {}, {"categories": {}}, {"secdef": []}, {"contracts": []})
    for empty in empties:
        try:
            return read(empty)
        except WireError:
            continue
    raise WireError("An empty answer cannot be read.")


def _details(body: object) -> tuple[Contract, ContractRules]:
    value = parsed(body)
    rules = contract_rules(value) if _has_rules(value) else ContractRules()
    return wire.contract_info(value), rules


def _has_rules(body: object) -> bool:
    return isinstance(body, dict) and isinstance(body.get("rules"), dict)


def _lasting(body: Any) -> bytes:
    """The answer without what belongs to an account, or to the moment."""
    rules = {key: value for key, value in body["rules"].items() if key not in _PASSING}
    return msgspec.json.encode(body | {"rules": rules})


def _end_ns(last_trade_date: str | None) -> int | None:
    """When nothing of a derivative is of use any more: the day after its last."""
    if not last_trade_date:
        return None
    try:
        day = datetime.strptime(last_trade_date, "%Y%m%d").replace(tzinfo=UTC)
    except ValueError:
        return None
    return int((day + timedelta(days=2)).timestamp()) * NS_PER_S
