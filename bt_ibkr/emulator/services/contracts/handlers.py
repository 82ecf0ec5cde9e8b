"""Look-up of contracts in the universe."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bt_ibkr.emulator.services import errors
from bt_ibkr.emulator.services.call import Call
from bt_ibkr.emulator.services.contracts import bodies, schedule
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
    matching = [one for one in listed if wanted in ("", one.contract.security_type.value)]
    if not matching:
        return {"error": "No symbol found"}
    core.searched.update(one.contract.conid for one in matching)
    return [bodies.found(one) for one in matching]


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
    """``secdef/info``: a contract, or the futures of a month."""
    conid = call.integer("conid", call.query.get("conid"))
    sec_type = (call.query.get("sectype") or call.query.get("secType") or "").upper()
    if conid not in core.searched and core.instrument(conid) is not None:
        raise errors.bad_request("no contracts retrieved: query /iserver/secdef/search first")
    one = core.instrument(conid)
    if one is None or sec_type not in ("", one.contract.security_type.value):
        raise errors.bad_request("no contracts retrieved")
    return [bodies.details(one)]


async def strikes(core: Core, call: Call) -> object:
    """No instrument of the universe has options."""
    call.integer("conid", call.query.get("conid"))
    return {"call": [], "put": []}


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
    """The emulated exchange executes no algorithms."""
    _instrument(core, call.integer("conid", call.path["conid"]))
    return {"algos": []}


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
