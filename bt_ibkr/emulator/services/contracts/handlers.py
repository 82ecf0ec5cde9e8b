"""Look-up of contracts in the universe."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING

from bt_ibkr.emulator.chains import month_of
from bt_ibkr.emulator.exchange.algorithms import offered
from bt_ibkr.emulator.services import errors
from bt_ibkr.emulator.services.call import Call
from bt_ibkr.emulator.services.contracts import bodies, schedule
from bt_ibkr.emulator.services.marketdata.fields import mark_price
from bt_ibkr.emulator.types import Instrument
from bt_ibkr.errors import UsageError
from bt_ibkr.model.contract import SecurityType

if TYPE_CHECKING:
    from bt_ibkr.emulator.services.core import Core

MAX_CONIDS = 200


def _symbols(call: Call) -> list[str]:
    symbols = [one.strip() for one in call.query.get("symbols", "").split(",") if one.strip()]
    if not symbols:
        raise errors.bad_request("symbols is required")
    return symbols


async def stocks(core: Core, call: Call) -> object:
    """Companies by symbol; a symbol nobody has gets an empty list."""
    answer: dict[str, object] = {}
    for symbol in _symbols(call):
        listed = [
            one for one in core.universe.by_symbol(symbol) if one.contract.security_type is SecurityType.STOCK
        ]
        companies: dict[str, list[Instrument]] = {}
        for one in listed:
            companies.setdefault(one.company_name, []).append(one)
        answer[symbol] = [bodies.stock_company(group) for group in companies.values()]
    return answer


async def futures(core: Core, call: Call) -> object:
    """Futures by symbol, the nearest first."""
    answer: dict[str, object] = {}
    for symbol in _symbols(call):
        listed = [
            one
            for one in core.universe.by_symbol(symbol)
            if one.contract.security_type is SecurityType.FUTURE
        ]
        listed.sort(key=lambda one: one.contract.last_trade_date or "")
        answer[symbol] = [bodies.future(one) for one in listed]
    return answer


async def definitions(core: Core, call: Call) -> object:
    texts = [one for one in call.query.get("conids", "").split(",") if one.strip()]
    if not texts:
        raise errors.bad_request("conids is required")
    if len(texts) > MAX_CONIDS:
        raise errors.bad_request(f"at most {MAX_CONIDS} conids per request")
    known = (core.instrument(call.integer("conid", one)) for one in texts)
    return {"secdef": [bodies.security(one) for one in known if one is not None]}


async def all_conids(core: Core, call: Call) -> object:
    """Stocks listed on an exchange."""
    exchange = call.query.get("exchange", "")
    if not exchange:
        raise errors.bad_request("exchange is required")
    return [
        {"ticker": one.contract.symbol, "conid": one.contract.conid, "exchange": bodies.listing(one)}
        for one in core.universe.all()
        if bodies.listing(one) == exchange and one.contract.security_type is SecurityType.STOCK
    ]


async def search(core: Core, call: Call) -> object:
    """Instruments by symbol, or by a part of the company's name; GET and POST alike."""
    body = call.object() if call.raw.strip() else {}
    given = {**call.query, **body}
    symbol = str(given.get("symbol") or "").strip()
    if not symbol:
        raise errors.bad_request("symbol is required")
    by_name = str(given.get("name", "")).lower() == "true"
    wanted = str(given.get("secType") or "").upper()
    listed = _by_name(core, symbol) if by_name else _by_symbol(core, symbol)
    matching = [one for one in listed if wanted in ("", *_kinds(core, one))]
    if not matching:
        return {"error": "No symbol found"}
    core.searched.update(one.contract.conid for one in matching)
    return [bodies.found(core, one) for one in matching]


def _kinds(core: Core, one: Instrument) -> tuple[str, ...]:
    """What an instrument is found as: itself, or what its options are called."""
    kind = core.universe.chains.security_type(one)
    return (one.contract.security_type.value, *(() if kind is None else (kind.value,)))


def _by_symbol(core: Core, symbol: str) -> list[Instrument]:
    """Exact matches; a currency also finds the pairs that begin with it."""
    pairs = [
        one
        for one in core.universe.all()
        if one.contract.security_type is SecurityType.FOREX
        and one.contract.symbol.partition(".")[0] == symbol.upper()
    ]
    return [*core.universe.by_symbol(symbol), *pairs]


def _by_name(core: Core, name: str) -> list[Instrument]:
    return [one for one in core.universe.all() if name.upper() in one.company_name.upper()]


async def info(core: Core, call: Call) -> object:
    """``secdef/info``: a contract, or the options of a month at a strike (and of one ``right`` if that is said).

    What they are on must have been searched before.
    """
    conid = call.integer("conid", call.query.get("conid"))
    sec_type = (call.query.get("sectype") or call.query.get("secType") or "").upper()
    one = core.instrument(conid) if conid > 0 else None
    known = {conid, 0 if one is None else one.underlying_conid}
    if one is not None and not known & core.searched:
        raise errors.bad_request("no contracts retrieved: query /iserver/secdef/search first")
    kind = None if one is None else core.universe.chains.security_type(one)
    if one is not None and kind is not None and sec_type == kind.value:
        return [bodies.details(option) for option in _options(core, call, one)]
    if one is None or sec_type not in ("", one.contract.security_type.value):
        raise errors.bad_request("no contracts retrieved")
    return [bodies.details(one)]


def _options(core: Core, call: Call, one: Instrument) -> list[Instrument]:
    expiry = _expiry(core, call, one)
    try:
        strike = float(call.query["strike"])
    except (KeyError, ValueError):
        raise errors.bad_request("strike is required") from None
    right = call.query.get("right", "").upper()[:1]
    chains = core.universe.chains
    found = [] if expiry is None else [chains.option(one, expiry, strike, r) for r in (right or "CP")]
    options = [option for option in found if option is not None]
    if not options:
        raise errors.bad_request("no contracts retrieved")
    return options


def _expiry(core: Core, call: Call, one: Instrument) -> date | None:
    """The last day of the options of the month asked for, if it is listed."""
    month = month_of(call.query.get("month", ""))
    listed = core.universe.chains.expiries(one, bodies.today(core, one))
    return next((day for day in listed if (day.year, day.month) == month), None)


async def strikes(core: Core, call: Call) -> object:
    """Strikes of the options of a month; none before the underlying was searched."""
    one = core.instrument(call.integer("conid", call.query.get("conid")))
    kind = None if one is None else core.universe.chains.security_type(one)
    asked = (call.query.get("sectype") or call.query.get("secType") or "").upper()
    if one is None or kind is None or asked != kind.value or one.contract.conid not in core.searched:
        return {"call": [], "put": []}
    if _expiry(core, call, one) is None:
        return {"call": [], "put": []}
    quote = core.engine.quote(one.contract.conid)
    price = (None if quote is None else mark_price(quote)) or one.reference_price
    listed = core.universe.chains.strikes(price)
    return {"call": listed, "put": listed}


def _instrument(core: Core, conid: int) -> Instrument:
    one = core.instrument(conid)
    if one is None:
        raise errors.unavailable()
    return one


async def contract_info(core: Core, call: Call) -> object:
    return bodies.info(_instrument(core, call.integer("conid", call.path["conid"])))


async def info_and_rules(core: Core, call: Call) -> object:
    one = _instrument(core, call.integer("conid", call.path["conid"]))
    return bodies.info(one) | {"rules": bodies.rules(core, one)}


async def rules(core: Core, call: Call) -> object:
    return bodies.rules(core, _instrument(core, call.integer("conid", str(call.object().get("conid", "")))))


async def algos(core: Core, call: Call) -> object:
    """IBKR's algorithms for an instrument; ``algos`` names up to 8 of them, separated by semicolons.

    IBKR's specification leaves parameters out unless they are asked for; the recorded answer has them.
    """
    one = _instrument(core, call.integer("conid", call.path["conid"]))
    wanted = {name for name in call.query.get("algos", "").split(";") if name}
    described = call.query.get("addDescription") == "1"
    parameters = call.query.get("addParams", "1") == "1"
    return {
        "algos": [
            bodies.algorithm(definition, described=described, parameters=parameters)
            for definition in offered(one)
            if not wanted or definition.id in wanted
        ]
    }


async def currency_pairs(core: Core, call: Call) -> object:
    """Pairs of which the currency is a part; ``ccyPair`` is the other one."""
    currency = call.query.get("currency", "").upper()
    if not currency:
        raise errors.bad_request("currency is required")
    rows = []
    for one in core.universe.all():
        parts = one.contract.symbol.split(".")
        if one.contract.security_type is SecurityType.FOREX and currency in parts:
            other = parts[1] if parts[0] == currency else parts[0]
            rows.append({"symbol": one.contract.symbol, "conid": one.contract.conid, "ccyPair": other})
    return {currency: rows}


async def exchange_rate(core: Core, call: Call) -> object:
    source, target = call.query.get("source", "").upper(), call.query.get("target", "").upper()
    if not source or not target:
        raise errors.bad_request("source and target are required")
    try:
        rate = core.engine.exchange_rate(source, target)
    except UsageError:
        raise errors.bad_request(f"no exchange rate from {source} to {target}") from None
    return {"rate": rate}


async def weekday_schedule(core: Core, call: Call) -> object:
    """``trsrv/secdef/schedule``."""
    given = [key for key in ("symbol", "conid") if call.query.get(key)]
    if not call.query.get("assetClass") or len(given) != 1:
        raise errors.bad_request("assetClass and exactly one of symbol/conid are required")
    exchange = call.query.get("exchange", "")
    if exchange == "SMART":
        return []
    if given == ["conid"]:
        one = core.instrument(call.integer("conid", call.query["conid"]))
        listed = [] if one is None else [one]
    else:
        listed = core.universe.by_symbol(call.query["symbol"])
    listed = [one for one in listed if one.contract.security_type.value == call.query["assetClass"]]
    return [
        schedule.by_weekday(one, exchange or bodies.listing(one))
        for one in listed
        if exchange in ("", *one.valid_exchanges, bodies.listing(one))
    ]


async def trading_schedule(core: Core, call: Call) -> object:
    """``contract/trading-schedule``."""
    return schedule.by_date(core, _instrument(core, call.integer("conid", call.query.get("conid"))))
