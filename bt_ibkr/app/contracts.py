"""Contracts, looked at: what a search finds, what a name means, which options there are."""

from __future__ import annotations

from typing import Any

import msgspec

from bt_ibkr.app.result import utc_text
from bt_ibkr.app.visit import Visit
from bt_ibkr.errors import BtIbkrError, ContractNotFoundError, UsageError
from bt_ibkr.model.contract import Contract, SecurityType
from bt_ibkr.model.hours import exchange_zone
from bt_ibkr.services.candidates import name_of
from bt_ibkr.services.chains import ChainProgress, ChainRequest, ChainService
from bt_ibkr.services.datanames import ContractQuery, format_query, parse_dataname
from bt_ibkr.services.datanames.words import expiry_of, month_of
from bt_ibkr.wire.contract_rules import ContractRules
from bt_ibkr.wire.contracts import SearchHit, SearchSection
from bt_ibkr.wire.forecast import EventDetails
from bt_ibkr.wire.schedule import TradingSchedule, Window, trading_schedule

#: Rows of event markets that a search shows.
_MOST_MARKETS = 20


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that a search found.

    Attributes:
        dataname: How to write it; empty where a symbol alone does not name it (options).
        months: In which there are derivatives, in IBKR's words.
    """

    dataname: str
    conid: int
    symbol: str
    security_type: str
    exchange: str
    name: str
    months: tuple[str, ...] = ()


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """What a name means.

    Attributes:
        dataname: The name in full.
        event: Of an event contract: what it asks.
        schedule: When it trades over the next days; ``None`` if IBKR does not tell.
        legs: Of a combo.
    """

    dataname: str
    contract: Contract
    rules: ContractRules
    event: EventDetails | None = None
    schedule: TradingSchedule | None = None
    legs: tuple[Contract, ...] = ()


class ChainWishes(msgspec.Struct, frozen=True, kw_only=True):
    """What of a chain is wanted, as a person says it.

    Attributes:
        months: ``DEC26`` or ``2026-12`` …
        first, last: Days, ``2026-12-18`` or ``20261218``.
        strikes: ``190:210``, ``190:``, ``:210``, or a number: so many on each side of the price.
        right: ``C``, ``P``, ``call`` …
    """

    months: tuple[str, ...] = ()
    first: str = ""
    last: str = ""
    strikes: str = ""
    price: float = 0.0
    right: str = ""
    trading_class: str = ""
    exchange: str = ""


async def search(visit: Visit, text: str) -> list[Found]:
    """Everything that answers to a symbol; where nothing does, to a part of a company's name.

    Raises:
        SessionError: The way there.
    """
    lookups = visit.contracts.lookups
    symbol = text.strip().upper()
    if not symbol:
        raise UsageError("There is nothing to search for.", remedy="Give a symbol, or a part of a name.")
    found: dict[tuple[int, str], Found] = {}
    hits = [*await lookups.search(symbol), *await lookups.search(symbol, SecurityType.INDEX.value)]
    for row in _rows(hits):
        found.setdefault((row.conid, row.security_type), row)
    try:
        markets = await lookups.markets()
    except BtIbkrError:
        # Not every server has event contracts.
        markets = ()
    for one in [m for m in markets if symbol == m.symbol or symbol in m.name.upper()][:_MOST_MARKETS]:
        row = Found(
            dataname=f"{one.symbol}-IND-{one.exchange}",
            conid=one.conid,
            symbol=one.symbol,
            security_type="EVENT",
            exchange=one.exchange,
            name=one.name,
        )
        found.setdefault((row.conid, row.security_type), row)
    if not found:
        for row in _rows(await lookups.by_name(text.strip())):
            found.setdefault((row.conid, row.security_type), row)
    return list(found.values())


def _rows(hits: list[SearchHit] | tuple[SearchHit, ...]) -> list[Found]:
    rows = []
    for hit in hits:
        rows += [_row(hit, section) for section in hit.sections if hit.conid and _stands(section)]
        rows += [
            Found(
                dataname="", conid=0, symbol=hit.symbol, security_type="BOND", exchange="", name=issuer.name
            )
            for issuer in hit.issuers
        ]
    return rows


def _stands(section: SearchSection) -> bool:
    """Whether a section is something to trade, or to ask for more of."""
    return section.security_type not in (SecurityType.COMBO, SecurityType.UNKNOWN)


def _row(hit: SearchHit, section: SearchSection) -> Found:
    return Found(
        dataname=name_of(hit, section),
        conid=section.conid or hit.conid,
        symbol=hit.symbol,
        security_type=section.security_type.value,
        exchange=hit.description or next(iter(section.exchanges), ""),
        name=hit.company_name,
        months=section.months,
    )


async def show(visit: Visit, query: ContractQuery) -> Shown:
    """What the name means, how it may be traded and when.

    Raises:
        ContractError: None or several answer to it.
    """
    contract = await visit.contracts.resolve(query)
    schedule = None
    if not contract.legs:
        try:
            body = await visit.http.get("/contract/trading-schedule", {"conid": str(contract.conid)})
            schedule = trading_schedule(body)
        except BtIbkrError:
            # Combos and some indices have none.
            schedule = None
    event = await visit.contracts.lookups.event_details(contract.conid) if contract.only_bought else None
    return Shown(
        dataname=format_query(query),
        contract=contract,
        rules=await visit.contracts.rules(contract),
        event=event,
        schedule=schedule,
        legs=visit.contracts.legs_of(contract) if contract.legs else (),
    )


def shown_json(shown: Shown) -> dict[str, Any]:
    """As ``--json`` prints it."""
    contract = shown.contract
    schedule = shown.schedule
    rules = {name: getattr(shown.rules, name) for name in shown.rules.__struct_fields__}
    return {
        "dataname": shown.dataname,
        "conid": contract.conid,
        "symbol": contract.symbol,
        "security_type": contract.security_type.value,
        "name": contract.company_name,
        "exchange": contract.exchange,
        "valid_exchanges": contract.valid_exchanges,
        "currency": contract.currency,
        "multiplier": contract.multiplier,
        "tick_size": contract.tick_size,
        "tick_steps": contract.tick_steps,
        "size_increment": contract.size_increment,
        "last_trade_date": contract.last_trade_date,
        "strike": contract.strike,
        "right": contract.right,
        "trading_class": contract.trading_class,
        "underlying_conid": contract.underlying_conid or None,
        "continuous": contract.continuous or None,
        "roll_date": contract.roll_date,
        "legs": [{"conid": leg.conid, "ratio": leg.ratio} for leg in contract.legs],
        "rules": rules,
        "event": shown.event,
        "time_zone": exchange_zone(contract).key,
        "regular_hours": None if schedule is None else [_hours(one) for one in schedule.regular],
        "extended_hours": None if schedule is None else [_hours(one) for one in schedule.extended],
    }


def _hours(one: Window) -> dict[str, str | None]:
    return {"start": utc_text(one.start_ns), "end": utc_text(one.end_ns)}


def chain_request(underlying: Contract, wishes: ChainWishes) -> ChainRequest:
    """The request that the wishes make.

    Raises:
        UsageError: One of them is not understood.
    """
    lowest, highest, around = _strikes(wishes.strikes)
    return ChainRequest(
        underlying=underlying,
        months=tuple(_month(word) for word in wishes.months),
        first=_day(wishes.first, "--from"),
        last=_day(wishes.last, "--to"),
        lowest=lowest,
        highest=highest,
        around=around,
        price=wishes.price,
        right=_right(wishes.right),
        trading_class=wishes.trading_class.upper(),
        exchange=wishes.exchange.upper(),
    )


def check_wishes(wishes: ChainWishes) -> None:
    """Refuse what is not understood before anybody is asked.

    Raises:
        UsageError: One of the wishes.
    """
    chain_request(Contract(conid=1, symbol="X", security_type=SecurityType.STOCK), wishes)


async def chain(
    visit: Visit, name: str, wishes: ChainWishes, progress: ChainProgress
) -> tuple[Contract, tuple[Contract, ...]]:
    """The underlying that a name means, and its options.

    Raises:
        ContractError: The name, or the chain.
    """
    underlying = await visit.contracts.resolve(parse_dataname(name))
    if underlying.legs:
        raise ContractNotFoundError(
            f"{name!r} is a combo: it has no options.", remedy="Name one of its legs."
        )
    service = ChainService(visit.http, visit.contracts.lookups)
    return underlying, await service.chain(chain_request(underlying, wishes), progress)


def _strikes(text: str) -> tuple[float | None, float | None, int | None]:
    words = [word.strip() for word in text.split(":")]
    try:
        if not text:
            return None, None, None
        if len(words) == 1:
            return None, None, int(text)
        if len(words) == 2 and any(words):
            lowest, highest = (float(word) if word else None for word in words)
            if lowest is None or highest is None or lowest <= highest:
                return lowest, highest, None
    except ValueError:
        pass
    raise UsageError(
        f"--strikes {text!r} is not understood.",
        remedy="Write 190:210, 190: or :210; or 5, for five on each side of the price.",
    )


def _month(word: str) -> str:
    found = month_of(word) or expiry_of(word) or ""
    if len(found) != len("YYYYMM"):
        raise UsageError(f"--months {word!r} is no month.", remedy="Write DEC26 or 2026-12.")
    return found


def _day(word: str, option: str) -> str:
    if not word:
        return ""
    found = expiry_of(word) or ""
    if len(found) != len("YYYYMMDD"):
        raise UsageError(f"{option} {word!r} is no day.", remedy="Write 2026-12-18.")
    return found


def _right(word: str) -> str:
    first = {"C": "C", "CALL": "C", "YES": "C", "P": "P", "PUT": "P", "NO": "P", "": ""}.get(word.upper())
    if first is None:
        raise UsageError(f"--right {word!r} is none.", remedy="Write C or P.")
    return first
