"""Options of any kind by name: on stocks and indices, on futures, warrants, and event contracts."""

from __future__ import annotations

import math
from collections.abc import Sequence

from bt_ibkr.errors import ContractNotFoundError
from bt_ibkr.model.contract import FORECASTEX, Contract, SecurityType
from bt_ibkr.services.candidates import Candidate, candidate_of, near_names, not_found
from bt_ibkr.services.datanames import ContractQuery
from bt_ibkr.services.datanames.words import month_of, month_word
from bt_ibkr.services.lookups import ContractLookups, Underlying

#: Options on futures may end one or two months before the month that they are called by.
_LATER_MONTHS = 3
_MOST_NAMES = 6


def same_number(one: float | None, other: float | None) -> bool:
    """Whether two numbers of the wire are the same price."""
    return one is not None and other is not None and math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-9)


def exchange_for(underlying: Underlying, wanted: str) -> str:
    """Where an underlying's options are looked up: as asked, by IBKR's routing, or where they trade."""
    if wanted not in ("", "SMART"):
        return wanted
    if "SMART" in underlying.exchanges or not underlying.exchanges:
        return "SMART"
    return underlying.exchanges[0]


async def underlyings_of(
    lookups: ContractLookups, symbol: str, kinds: tuple[SecurityType, ...], exchange: str
) -> list[Underlying]:
    """What has options of these kinds where they are wanted, the first kind first."""
    found = await lookups.underlyings(symbol, kinds)
    if exchange not in ("", "SMART"):
        return [one for one in found if exchange in one.exchanges or exchange == one.listing]
    # Listings abroad have options of their own; where one is routed by IBKR it is meant.
    routed = [one for one in found if "SMART" in one.exchanges or one.kind is SecurityType.FUTURE_OPTION]
    return routed or list(found)


class OptionFinder:
    """Finds single options.

    Args:
        lookups: What IBKR tells.
    """

    def __init__(self, lookups: ContractLookups) -> None:
        self._lookups = lookups

    async def find(self, query: ContractQuery) -> list[Candidate]:
        """Everything that answers to the name of an option.

        Raises:
            ContractNotFoundError: Nothing does; near strikes and days are told.
        """
        if query.exchange == FORECASTEX and (events := await self._events(query)) is not None:
            return events
        return [candidate_of(one) for one in await self._options(query)]

    async def _options(self, query: ContractQuery) -> list[Contract]:
        underlyings: list[Underlying] = []
        for kind in _kinds(query):
            listed = await underlyings_of(self._lookups, query.symbol, (kind,), query.exchange)
            underlyings += listed
            found: dict[int, Contract] = {}
            for underlying in listed:
                for one in await self._on(underlying, query):
                    found[one.conid] = one
            if found:
                return list(found.values())
        raise await self._nothing(query, underlyings)

    async def _on(self, underlying: Underlying, query: ContractQuery) -> list[Contract]:
        exchange = exchange_for(underlying, query.exchange)
        for month in _months(underlying, query.expiry):
            rows = await self._lookups.derivatives(
                underlying, month, exchange, query.strike or 0.0, query.right
            )
            fitting = [one for one in rows if _fits(one, query, month)]
            if fitting:
                return fitting
        return []

    async def _nothing(self, query: ContractQuery, underlyings: list[Underlying]) -> ContractNotFoundError:
        """What there is instead: other symbols, other months, near strikes, other days."""
        if not underlyings:
            where = f" at {query.exchange}" if query.exchange not in ("", "SMART") else ""
            why = f"No option answers to {query.text!r}: {query.symbol} has no options of that kind{where}."
            return not_found(query, await near_names(self._lookups, query), why)
        one = underlyings[0]
        exchange = exchange_for(one, query.exchange)
        months = _months(one, query.expiry)
        if not months:
            why = f"No option answers to {query.text!r}: none of {month_word(query.expiry)} is listed."
            if query.trading_class:
                return not_found(query, await self._near_of_class(one, exchange, query), why)
            return not_found(query, [_said(query, month) for month in one.months[:_MOST_NAMES]], why)
        listed = await self._lookups.strikes(one, months[0], exchange)
        strikes = listed.call if query.right == "C" else listed.put
        if not any(same_number(strike, query.strike) for strike in strikes):
            near = sorted(strikes, key=lambda strike: abs(strike - (query.strike or 0.0)))[:_MOST_NAMES]
            return not_found(
                query,
                [_said(query, query.expiry, strike) for strike in sorted(near)],
                f"No option answers to {query.text!r}: {months[0]} has no strike {query.strike:g}.",
            )
        rows = await self._lookups.derivatives(one, months[0], exchange, query.strike or 0.0, query.right)
        return not_found(
            query,
            _listed(query, rows),
            f"No option answers to {query.text!r}: none of {months[0]} at {query.strike:g} is like that.",
        )

    async def _near_of_class(self, one: Underlying, exchange: str, query: ContractQuery) -> list[str]:
        """Of the first listed month, at the nearest strike: what is of the class, else what is not, and says so."""
        if not one.months:
            return []
        month = one.months[0]
        strikes = await self._lookups.strikes(one, month, exchange)
        listed = strikes.call if query.right == "C" else strikes.put
        strike = min(listed, key=lambda strike: abs(strike - (query.strike or 0.0)), default=None)
        if strike is None:
            return []
        rows = await self._lookups.derivatives(one, month, exchange, strike, query.right)
        return _listed(query, rows)

    async def _events(self, query: ContractQuery) -> list[Candidate] | None:
        """Contracts of ForecastEx by the tree of its markets; ``None`` if no market has the symbol."""
        markets = [one for one in await self._lookups.markets() if one.symbol == query.symbol]
        if not markets:
            return None
        found: list[Candidate] = []
        near: list[str] = []
        for market in markets:
            for one in await self._lookups.event_contracts(market):
                word = "YES" if one.right == "C" else "NO"
                if not one.expiration.startswith(query.expiry) or one.right != query.right:
                    continue
                if same_number(one.strike, query.strike):
                    found.append(
                        Candidate(
                            conid=one.conid,
                            symbol=market.symbol,
                            exchange=market.exchange or FORECASTEX,
                            name=market.name,
                            last_trade_date=one.expiration,
                            security_type=SecurityType.OPTION,
                            note=f"{word}, {one.label}",
                        )
                    )
                else:
                    near.append(f"{market.symbol} {one.expiration} {word} {one.strike:g} ({one.label})")
        if not found:
            raise not_found(query, near, f"No event contract answers to {query.text!r}.")
        return found


def _said(
    query: ContractQuery, when: str, strike: float | None = None, trading_class: str | None = None
) -> str:
    """The name again, of another day, strike or class."""
    wanted = query.trading_class if trading_class is None else trading_class
    symbol = f"{query.symbol}[{wanted}]" if wanted else query.symbol
    place = f"@{query.exchange}" if query.exchange not in ("", "SMART") else ""
    price = query.strike if strike is None else strike
    return f"{symbol} {when} {query.right} {price:g}{place}"


def _listed(query: ContractQuery, rows: Sequence[Contract]) -> list[str]:
    """Names of what is listed: of the class that was asked for, or of others, with theirs."""
    dated = sorted((row for row in rows if row.last_trade_date), key=lambda row: row.last_trade_date or "")
    same = [row for row in dated if query.trading_class in ("", row.trading_class)]
    names = [
        _said(query, row.last_trade_date or "", row.strike)
        if same
        else f"{_said(query, row.last_trade_date or '', row.strike, row.trading_class)} (another class)"
        for row in same or dated
    ]
    return list(dict.fromkeys(names))[:_MOST_NAMES]


def _kinds(query: ContractQuery) -> tuple[SecurityType, ...]:
    if not query.loose:
        return (query.security_type,)
    other = {
        SecurityType.OPTION: SecurityType.FUTURE_OPTION,
        SecurityType.FUTURE_OPTION: SecurityType.OPTION,
    }
    return (query.security_type, other[query.security_type])


def _months(underlying: Underlying, expiry: str) -> list[str]:
    """IBKR's words of the listed months in which options of that day may be; by month alone, just that one."""
    listed = sorted((number, word) for word in underlying.months if (number := month_of(word)))
    if underlying.kind is not SecurityType.FUTURE_OPTION or len(expiry) == len("YYYYMM"):
        return [word for number, word in listed if number == expiry[:6]]
    return [word for number, word in listed if number >= expiry[:6]][:_LATER_MONTHS]


def _fits(one: Contract, query: ContractQuery, month: str) -> bool:
    day = one.last_trade_date or ""
    by_day = len(query.expiry) == len("YYYYMMDD")
    return (
        same_number(one.strike, query.strike)
        and one.right == query.right
        # Named by month, the month is the one that IBKR files them under.
        and (day == query.expiry if by_day else month_of(month) == query.expiry)
        and (not query.trading_class or one.trading_class == query.trading_class)
        and (not query.currency or one.currency == query.currency)
        and (not query.multiplier or same_number(one.multiplier, query.multiplier))
    )
