"""Option chains: months, then strikes, then conids, as fast as IBKR's limits allow and no faster.

IBKR has no answer that holds a chain: each strike of a month is asked for by itself. What was told is kept in the
cache, so a chain that was broken off goes on where it ended. Requests go through the gate of the session, behind
orders and quotes of whoever shares it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from bt_ibkr.errors import ContractError, ContractNotFoundError, UsageError
from bt_ibkr.model.contract import FORECASTEX, Contract, SecurityType
from bt_ibkr.services.candidates import near_names
from bt_ibkr.services.datanames import ContractQuery
from bt_ibkr.services.datanames.words import expiry_of, month_of
from bt_ibkr.services.lookups import ContractLookups, Underlying
from bt_ibkr.services.options import exchange_for, underlyings_of
from bt_ibkr.session.http import HttpClient
from bt_ibkr.wire import fields, tags, values
from bt_ibkr.wire.contracts import Strikes

#: Told how many requests are done, of how many; on the session's loop.
ChainProgress = Callable[[int, int], None]

#: Requests under way at a time: the gate spaces them; more would only wait there.
_CONCURRENT: Final = 5
#: Options on futures may end up to so many months before the month that they are called by.
_EARLIER_MONTHS: Final = 2
_TRIES: Final = 5
_PAUSE_S: Final = 0.7
_FIRST, _LAST = "00000000", "99999999"


class ChainRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Which options of an underlying are wanted. What is not said is not restricted.

    Attributes:
        underlying: As it was resolved: a stock, index or future; for event contracts any contract of their market's
            symbol.
        months: ``YYYYMM``, or IBKR's ``DEC26``.
        first, last: Days between which the options end, ``YYYYMMDD``, both included.
        lowest, highest: Strikes, both included.
        around: So many strikes on each side of the price, of each month; the nearest one is not counted. Of event
            contracts it means nothing: their underlying has no price.
        price: What ``around`` goes by; 0 for the market's.
        right: ``C`` or ``P``.
        trading_class: As ``SPXW``.
        exchange: Where they trade; by default IBKR's routing, or the underlying's exchange.
    """

    underlying: Contract
    months: tuple[str, ...] = ()
    first: str = ""
    last: str = ""
    lowest: float | None = None
    highest: float | None = None
    around: int | None = None
    price: float = 0.0
    right: str = ""
    trading_class: str = ""
    exchange: str = ""

    def __post_init__(self) -> None:
        for word in self.months:
            if month_of(word) is None and not (len(word) == len("YYYYMM") and expiry_of(word)):
                raise UsageError(f"{word!r} is no month of a chain.", remedy="Write 202612 or DEC26.")
        for name in ("first", "last"):
            day = getattr(self, name)
            if day and not (len(day) == len(_LAST) and expiry_of(day)):
                raise UsageError(f"{name} of a chain is {day!r}, no day.", remedy="Write YYYYMMDD.")
        if self.right not in ("", "C", "P"):
            raise UsageError(f"right of a chain is {self.right!r}.", remedy="Give C or P, or leave it out.")
        if self.around is not None and self.around < 0:
            raise UsageError(f"around of a chain is {self.around}.", remedy="Give a number from 0 on.")
        if self.first and self.last and self.first > self.last:
            raise UsageError(
                f"A chain from {self.first} to {self.last} has no days.", remedy="Turn them round."
            )


class ChainService:
    """Builds chains.

    Args:
        http: The session's REST client, for the underlying's price.
        lookups: What IBKR tells, with its cache.
    """

    def __init__(self, http: HttpClient, lookups: ContractLookups) -> None:
        self._http = http
        self._lookups = lookups

    async def chain(
        self, request: ChainRequest, progress: ChainProgress | None = None
    ) -> tuple[Contract, ...]:
        """The options, by day, strike and right.

        Args:
            progress: Told how many requests are done, of how many; at the start too, once that is known.

        Raises:
            ContractNotFoundError: The underlying has no such options, or none of the months that were named.
            ContractError: ``around`` goes by a price that IBKR does not tell.
            SessionError: The way there; what was told until then is kept.
        """
        tell = progress or (lambda done, total: None)
        if FORECASTEX in (request.exchange, request.underlying.exchange):
            return await self._events(request, tell)
        underlying = await self._underlying(request)
        exchange = exchange_for(underlying, request.exchange)
        months = _months(underlying, request)
        listed = await self._strikes(underlying, months, exchange)
        wanted = [
            (month, strike)
            for month, strikes in zip(months, listed, strict=True)
            for strike in await self._chosen(request, strikes)
        ]
        rows = await self._rows(request, underlying, exchange, wanted, tell)
        found = {one.conid: one for one in rows if _fits(one, request)}
        return tuple(sorted(found.values(), key=_place))

    async def _underlying(self, request: ChainRequest) -> Underlying:
        contract = request.underlying
        on_future = contract.security_type is SecurityType.FUTURE
        kinds = (
            (SecurityType.FUTURE_OPTION,) if on_future else (SecurityType.OPTION, SecurityType.FUTURE_OPTION)
        )
        wanted = request.exchange or (contract.exchange if on_future else "")
        found = await underlyings_of(self._lookups, contract.symbol, kinds, wanted)
        own = [one for one in found if one.conid in (contract.conid, contract.underlying_conid)]
        chosen = own or found
        if not chosen:
            query = ContractQuery(text=contract.symbol, symbol=contract.symbol)
            near = await near_names(self._lookups, query)
            raise ContractNotFoundError(
                f"{contract.describe()} has no options{f' at {wanted}' if wanted else ''}.",
                remedy=f"Near names: {', '.join(near)}." if near else "Name another underlying.",
            )
        return chosen[0]

    async def _strikes(self, underlying: Underlying, months: Sequence[str], exchange: str) -> list[Strikes]:
        return [await self._lookups.strikes(underlying, month, exchange) for month in months]

    async def _chosen(self, request: ChainRequest, strikes: Strikes) -> list[float]:
        """The strikes of a month that are asked for."""
        listed = {"C": strikes.call, "P": strikes.put}.get(request.right, (*strikes.call, *strikes.put))
        found = sorted(
            {
                strike
                for strike in listed
                if (request.lowest is None or strike >= request.lowest)
                and (request.highest is None or strike <= request.highest)
            }
        )
        if request.around is None or not found:
            return found
        price = request.price or await self._price(request.underlying)
        place = min(range(len(found)), key=lambda n: abs(found[n] - price))
        return found[max(0, place - request.around) : place + request.around + 1]

    async def _rows(
        self,
        request: ChainRequest,
        underlying: Underlying,
        exchange: str,
        wanted: Sequence[tuple[str, float]],
        tell: ChainProgress,
    ) -> list[Contract]:
        gate = asyncio.Semaphore(_CONCURRENT)
        done = 0
        tell(done, len(wanted))

        async def one(month: str, strike: float) -> list[Contract]:
            nonlocal done
            async with gate:
                rows = list(
                    await self._lookups.derivatives(underlying, month, exchange, strike, request.right)
                )
                if not request.right and rows and len({row.right for row in rows}) == 1:
                    # Told one right where both were asked for: the other one by itself.
                    other = "P" if rows[0].right == "C" else "C"
                    rows += await self._lookups.derivatives(underlying, month, exchange, strike, other)
            done += 1
            tell(done, len(wanted))
            return rows

        tasks = [asyncio.create_task(one(*pair), name="option-chain") for pair in wanted]
        try:
            found = await asyncio.gather(*tasks)
        finally:
            # The first failure ends the chain; what is on its way is not wanted any more.
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return [row for rows in found for row in rows]

    async def _price(self, contract: Contract) -> float:
        """The last price, or what lies between bid and ask; the first call only opens the stream at the server."""
        wanted = {"conids": str(contract.conid), "fields": f"{tags.LAST},{tags.BID},{tags.ASK}"}
        for attempt in range(_TRIES):
            if attempt:
                await asyncio.sleep(_PAUSE_S)
            for row in fields.rows(await self._http.get("/iserver/marketdata/snapshot", wanted)):
                told = row if isinstance(row, dict) else {}
                last, bid, ask = (
                    (fields.lenient(values.price, told.get(tag), tag) or (None, ""))[0]
                    for tag in (tags.LAST, tags.BID, tags.ASK)
                )
                if last is not None:
                    return last
                if bid is not None and ask is not None:
                    return (bid + ask) / 2
        raise ContractError(
            f"IBKR tells no price of {contract.describe()}, which the strikes around it are chosen by.",
            remedy="Give the price, or a range of strikes.",
        )

    async def _events(self, request: ChainRequest, tell: ChainProgress) -> tuple[Contract, ...]:
        """Of ForecastEx one answer holds a whole market."""
        symbol = request.underlying.symbol
        markets = [one for one in await self._lookups.markets() if one.symbol == symbol]
        if not markets:
            raise ContractNotFoundError(
                f"{symbol} is no market of event contracts.", remedy="Look with bt-ibkr contracts search."
            )
        tell(0, len(markets))
        found: list[Contract] = []
        for done, market in enumerate(markets, start=1):
            for one in await self._lookups.event_contracts(market):
                contract = Contract(
                    conid=one.conid,
                    symbol=symbol,
                    security_type=SecurityType.OPTION,
                    exchange=market.exchange or FORECASTEX,
                    company_name=f"{market.name}: {one.label}",
                    last_trade_date=one.expiration,
                    strike=one.strike,
                    right=one.right,
                    trading_class=symbol,
                    underlying_conid=market.conid,
                )
                if _fits(contract, request) and _in_strikes(one.strike, request):
                    found.append(contract)
            tell(done, len(markets))
        return tuple(sorted(found, key=_place))


def _months(underlying: Underlying, request: ChainRequest) -> list[str]:
    """IBKR's words of the months to look through.

    Raises:
        ContractNotFoundError: One that was named is not listed.
    """
    listed = {number: word for word in underlying.months if (number := month_of(word))}
    named = [month_of(word) or word for word in request.months]
    missing = [word for word, number in zip(request.months, named, strict=True) if number not in listed]
    if missing:
        raise ContractNotFoundError(
            f"{underlying.symbol} has no options in {', '.join(missing)}.",
            remedy=f"There are: {', '.join(underlying.months)}.",
        )
    if named:
        return [listed[number] for number in sorted(set(named))]
    later = _EARLIER_MONTHS if underlying.kind is SecurityType.FUTURE_OPTION else 0
    first, last = (request.first or _FIRST)[:6], (request.last or _LAST)[:6]
    return [
        listed[number]
        for number in sorted(listed)
        if first <= number and (number <= last or _months_between(last, number) <= later)
    ]


def _months_between(one: str, other: str) -> int:
    return (int(other[:4]) - int(one[:4])) * 12 + int(other[4:]) - int(one[4:])


def _fits(one: Contract, request: ChainRequest) -> bool:
    day = one.last_trade_date or ""
    named = {month_of(word) or word for word in request.months}
    return (
        (request.first or _FIRST) <= day <= (request.last or _LAST)
        and (one.exchange != FORECASTEX or not named or day[:6] in named)
        and request.right in ("", one.right)
        and request.trading_class in ("", one.trading_class)
    )


def _in_strikes(strike: float, request: ChainRequest) -> bool:
    return (request.lowest is None or strike >= request.lowest) and (
        request.highest is None or strike <= request.highest
    )


def _place(one: Contract) -> tuple[str, float, str, str]:
    return one.last_trade_date or "", one.strike or 0.0, one.right or "", one.trading_class
