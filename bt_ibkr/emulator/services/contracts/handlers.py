"""Look-up of contracts by conid, symbol or exchange, their rules and hours."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bt_ibkr.emulator.exchange.algorithms import offered
from bt_ibkr.emulator.services import errors
from bt_ibkr.emulator.services.call import Call
from bt_ibkr.emulator.services.contracts import bodies, schedule
from bt_ibkr.emulator.types import Instrument
from bt_ibkr.emulator.universe_futures import Product
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
    """Futures by symbol that have not expired, the nearest first; of one exchange if that is named."""
    exchange = call.query.get("exchange", "")
    answer: dict[str, object] = {}
    for symbol in _symbols(call):
        product = core.universe.futures.product(symbol)
        listed = [one for one in core.universe.by_symbol(symbol) if _is_future_of_no_product(core, one)]
        if product is not None:
            listed += core.universe.futures.listed(product, bodies.today(core, listed_on(core, product)))
        listed = [one for one in listed if exchange in ("", "SMART", one.contract.exchange)]
        listed.sort(key=lambda one: one.contract.last_trade_date or "")
        answer[symbol] = [bodies.future(one, product) for one in listed]
    return answer


def listed_on(core: Core, product: Product) -> Instrument:
    """The index of a product."""
    index = core.instrument(product.index)
    assert index is not None
    return index


def _is_future_of_no_product(core: Core, one: Instrument) -> bool:
    """One of a table, which is listed until it expires."""
    today = bodies.today(core, one).strftime("%Y%m%d")
    return (
        one.contract.security_type is SecurityType.FUTURE
        and core.universe.futures.product_of(one.contract.conid) is None
        and (one.contract.last_trade_date or "99991231") >= today
    )


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
        schedule.by_weekday(core, one, exchange or bodies.listing(one))
        for one in listed
        if exchange in ("", *one.valid_exchanges, bodies.listing(one))
    ]


async def trading_schedule(core: Core, call: Call) -> object:
    """``contract/trading-schedule``; ``exchange`` makes no difference."""
    return schedule.by_date(core, _instrument(core, call.integer("conid", call.query.get("conid"))))
