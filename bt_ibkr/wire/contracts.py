"""Contracts: look-ups by symbol, details and trading rules.

Wire facts: ``trsrv/*`` answers maps by symbol, ``secdef/search`` has its conids as text and the exchange
under ``description``, ``secdef/info`` writes ``right`` as ``?`` where it does not apply.
"""

from __future__ import annotations

import msgspec

from bt_ibkr.errors import WireError
from bt_ibkr.model.contract import Contract, SecurityType
from bt_ibkr.wire import fields
from bt_ibkr.wire.contract_rules import ContractRules, increment_steps, rules_in
from bt_ibkr.wire.json import parsed

_DATE_DIGITS = 8
#: Stands where a hit of bonds has no contract.
_NO_CONID = 2**31 - 1


class StockListing(msgspec.Struct, frozen=True, kw_only=True):
    """One listing of a stock: ``name`` is the company's; several companies may share a symbol."""

    name: str
    conid: int
    exchange: str
    is_us: bool


class SearchSection(msgspec.Struct, frozen=True, kw_only=True):
    """What can be traded on a search hit: ``months`` as ``APR26``, for derivatives."""

    security_type: SecurityType
    months: tuple[str, ...] = ()
    exchanges: tuple[str, ...] = ()
    conid: int | None = None


class Issuer(msgspec.Struct, frozen=True, kw_only=True):
    """Who issued bonds: ``secdef/info`` takes the id for theirs."""

    id: str
    name: str


class SearchHit(msgspec.Struct, frozen=True, kw_only=True):
    """One answer of ``secdef/search``. ``description`` is the exchange; the order of hits means nothing.

    The hit of bonds has issuers, and no conid: 0.
    """

    conid: int
    symbol: str
    company_name: str
    description: str
    sections: tuple[SearchSection, ...]
    issuers: tuple[Issuer, ...] = ()


class FutureListing(msgspec.Struct, frozen=True, kw_only=True):
    """One expiry of a future; dates as ``YYYYMMDD``.

    Attributes:
        cut_off: The first of the days by which IBKR wants positions closed, where the answer has them.
    """

    symbol: str
    conid: int
    underlying_conid: int | None
    expiration_date: str
    last_trade_date: str | None
    cut_off: str | None = None


class CurrencyPair(msgspec.Struct, frozen=True, kw_only=True):
    """A currency pair, such as ``EUR.USD``; ``other_currency`` is the one that was not asked for."""

    symbol: str
    conid: int
    other_currency: str


class Strikes(msgspec.Struct, frozen=True, kw_only=True):
    """Strikes of one option month."""

    call: tuple[float, ...] = ()
    put: tuple[float, ...] = ()


class _StockListing(msgspec.Struct, rename="camel"):
    conid: object = None
    exchange: object = None
    is_us: object = msgspec.field(default=None, name="isUS")


def stocks(body: object) -> dict[str, tuple[StockListing, ...]]:
    """``/trsrv/stocks``: the listings of each symbol asked for, best known first as the server has them.

    Raises:
        WireError: Not a map of arrays, an error, or a listing without a conid.
    """
    return {
        symbol: tuple(
            listing for company in fields.array(companies, symbol) for listing in _listings(company)
        )
        for symbol, companies in fields.mapping(body, "trsrv/stocks").items()
    }


def _listings(company: object) -> list[StockListing]:
    outer = company if isinstance(company, dict) else {}
    name = fields.text(outer.get("name")) or ""
    found = []
    for item in fields.rows(outer.get("contracts")):
        row = fields.payload(item, _StockListing, "trsrv/stocks")
        found.append(
            StockListing(
                name=name,
                conid=fields.required(fields.conid(row.conid), "trsrv/stocks: conid"),
                exchange=fields.text(row.exchange) or "",
                is_us=bool(fields.lenient(fields.flag, row.is_us, "isUS")),
            )
        )
    return found


class _SearchHit(msgspec.Struct, rename="camel"):
    conid: object = None  # text
    symbol: object = None
    company_name: object = None
    description: object = None  # the exchange
    sections: object = None
    issuers: object = None


def search(body: object) -> tuple[SearchHit, ...]:
    """``/iserver/secdef/search``; hits without a conid are left out, unless they name issuers of bonds.

    Raises:
        WireError: Not an array of objects, or an error.
    """
    return fields.each(fields.array(body, "secdef/search"), _search_hit, None)


def _search_hit(item: object) -> SearchHit | None:
    row = fields.payload(item, _SearchHit, "secdef/search")
    conid = fields.conid(row.conid)
    issuers = _issuers(row.issuers)
    if conid in (None, _NO_CONID) and not issuers:
        return None
    sections = [entry for entry in fields.rows(row.sections) if isinstance(entry, dict)]
    return SearchHit(
        conid=0 if conid is None or conid == _NO_CONID else conid,
        symbol=fields.text(row.symbol) or "",
        company_name=fields.text(row.company_name) or "",
        description=fields.text(row.description) or "",
        sections=tuple(map(_section, sections)),
        issuers=issuers,
    )


def _issuers(value: object) -> tuple[Issuer, ...]:
    rows = [entry for entry in fields.rows(value) if isinstance(entry, dict)]
    found = [(fields.text(row.get("id")), fields.text(row.get("name"))) for row in rows]
    return tuple(Issuer(id=key, name=name or "") for key, name in found if key)


def _section(entry: dict[str, object]) -> SearchSection:
    return SearchSection(
        security_type=SecurityType.from_wire(fields.text(entry.get("secType"))),
        months=_split(entry.get("months"), ";"),
        exchanges=_split(entry.get("exchange"), ";"),
        conid=fields.lenient(fields.conid, entry.get("conid"), "conid"),
    )


def _split(value: object, separator: str) -> tuple[str, ...]:
    parts = (fields.text(value) or "").split(separator)
    return tuple(part.strip() for part in parts if part.strip())


class _Info(msgspec.Struct):
    con_id: object = None
    symbol: object = None
    local_symbol: object = None
    instrument_type: object = None
    exchange: object = None
    currency: object = None
    company_name: object = None
    multiplier: object = None  # text or null
    maturity_date: object = None  # YYYYMMDD or null
    strike: object = None
    right: object = None
    trading_class: object = None
    underlying_con_id: object = None
    valid_exchanges: object = None  # separated by commas
    rules: object = None  # info-and-rules only


def contract_info(body: object) -> Contract:
    """``/iserver/contract/{conid}/info`` and ``…/info-and-rules``.

    The price step comes from the rules, where there are any. IBKR's ``sizeIncrement`` becomes the contract's
    only where it is below 1: for stocks it is 40 or 100, a step of the order form and no lot, since odd lots
    trade (see ``ContractRules``).

    Raises:
        WireError: Not an object, an error, or without conid or type.
    """
    row = fields.payload(fields.mapping(body, "contract info"), _Info, "contract info")
    kind = fields.required(fields.text(row.instrument_type), "contract info: instrument_type")
    rules = rules_in(row.rules) if isinstance(row.rules, dict) else ContractRules()
    return _contract(
        conid=fields.required(fields.conid(row.con_id), "contract info: con_id"),
        kind=SecurityType.from_wire(kind),
        symbol=fields.text(row.symbol) or "",
        local_symbol=fields.text(row.local_symbol),
        exchange=fields.text(row.exchange),
        currency=fields.text(row.currency),
        company_name=fields.text(row.company_name) or "",
        multiplier=row.multiplier,
        last_trade_date=row.maturity_date,
        strike=row.strike,
        right=row.right,
        tick_size=rules.tick_size,
        size_increment=rules.size_increment,
        tick_steps=rules.increment_steps,
        trading_class=row.trading_class,
        underlying=row.underlying_con_id,
        valid_exchanges=row.valid_exchanges,
    )


class _SecDef(msgspec.Struct, rename="camel"):
    conid: object = None
    ticker: object = None
    asset_class: object = None
    sec_type: object = None  # secdef/info has it for assetClass
    currency: object = None
    name: object = None
    company_name: object = None  # secdef/info
    exchange: object = None  # secdef/info
    listing_exchange: object = None
    symbol: object = None
    multiplier: object = None  # 0.0 for stocks
    expiry: object = None
    last_trading_day: object = None
    maturity_date: object = None  # secdef/info
    strike: object = None  # number or text
    put_or_call: object = None
    right: object = None  # secdef/info; "?" if it does not apply
    increment_rules: object = None
    trading_class: object = None  # secdef/info
    valid_exchanges: object = None  # secdef/info
    all_exchanges: object = None
    und_conid: object = None


def secdef(body: object) -> tuple[Contract, ...]:
    """``/trsrv/secdef``: an array, wrapped into ``{"secdef": …}``.

    Raises:
        WireError: Not that, an error, or a row without conid or type.
    """
    wrapped = fields.mapping(body, "trsrv/secdef")
    return fields.each(fields.array(wrapped.get("secdef"), "trsrv/secdef"), _definition, None)


def secdef_info(body: object) -> tuple[Contract, ...]:
    """``/iserver/secdef/info``: the contracts of one month, strike and right.

    Raises:
        WireError: Neither object nor array of objects, an error, or a row without conid or type.
    """
    value = parsed(body)
    single = isinstance(value, dict) and "conid" in value
    return fields.each([value] if single else fields.array(value, "secdef/info"), _definition, None)


def _definition(item: object) -> Contract:
    row = fields.payload(item, _SecDef, "security definition")
    kind = fields.text(row.asset_class) or fields.text(row.sec_type)
    security_type = SecurityType.from_wire(fields.required(kind, "security definition: type"))
    steps = increment_steps(row.increment_rules)
    listing = fields.text(row.listing_exchange)
    fallback = None if security_type is SecurityType.STOCK else listing
    contract = _contract(
        conid=fields.required(fields.conid(row.conid), "security definition: conid"),
        kind=security_type,
        symbol=fields.text(row.ticker) or fields.text(row.symbol) or "",
        local_symbol=None,
        exchange=fields.text(row.exchange) or fallback,
        currency=fields.text(row.currency),
        company_name=fields.text(row.name) or fields.text(row.company_name) or "",
        multiplier=row.multiplier,
        last_trade_date=_first(row.last_trading_day, row.maturity_date, row.expiry),
        strike=row.strike,
        right=_first(row.put_or_call, row.right),
        tick_size=steps[0][1] if steps else None,
        size_increment=None,
        tick_steps=steps,
        trading_class=row.trading_class,
        underlying=row.und_conid,
        valid_exchanges=_first(row.valid_exchanges, row.all_exchanges),
    )
    return msgspec.structs.replace(contract, listing_exchange=listing)


def _contract(
    *,
    conid: int,
    kind: SecurityType,
    symbol: str,
    local_symbol: str | None,
    exchange: str | None,
    currency: str | None,
    company_name: str,
    multiplier: object,
    last_trade_date: object,
    strike: object,
    right: object,
    tick_size: float | None,
    size_increment: float | None,
    tick_steps: tuple[tuple[float, float], ...],
    trading_class: object,
    underlying: object,
    valid_exchanges: object,
) -> Contract:
    """A contract out of what its several descriptions have in common."""
    currency = currency or "USD"
    if kind is SecurityType.FOREX and "." not in symbol:
        symbol = local_symbol if local_symbol and "." in local_symbol else f"{symbol}.{currency}"
    strike_price = fields.lenient(fields.amount, strike, "strike")
    derivative = kind in (SecurityType.OPTION, SecurityType.FUTURE_OPTION, SecurityType.WARRANT)
    return Contract(
        conid=conid,
        symbol=symbol,
        security_type=kind,
        exchange=exchange or "SMART",
        currency=currency,
        company_name=company_name,
        multiplier=_multiplier(multiplier),
        tick_size=tick_size or 0.01,
        tick_steps=tick_steps if len(tick_steps) > 1 else (),
        trading_class=fields.text(trading_class) or "",
        underlying_conid=fields.lenient(fields.conid, underlying, "underlying conid") or 0,
        valid_exchanges=_split(valid_exchanges, ","),
        size_increment=size_increment if size_increment is not None and 0 < size_increment < 1 else 1.0,
        last_trade_date=_date(last_trade_date),
        strike=strike_price if derivative and strike_price else None,
        right=_right(right),
    )


def _multiplier(value: object) -> float:
    """0, null and "" stand for 1.

    Raises:
        WireError: Not a number, or negative: positions are valued by it, so it is not guessed.
    """
    number = fields.amount(value, "multiplier")
    if number is not None and number < 0:
        raise WireError(f"multiplier: {fields.show(value)} is negative.")
    return number or 1.0


def _first(*candidates: object) -> object:
    return next((one for one in candidates if fields.text(one) is not None), None)


def _date(value: object) -> str | None:
    digits = fields.text(value)
    return digits if digits and len(digits) == _DATE_DIGITS and digits.isdigit() else None


def _right(value: object) -> str | None:
    letter = (fields.text(value) or "")[:1].upper()
    return letter if letter in ("C", "P") else None


class _FutureListing(msgspec.Struct, rename="camel"):
    symbol: object = None
    conid: object = None
    underlying_conid: object = None
    expiration_date: object = None  # YYYYMMDD, a number
    ltd: object = None  # last trading day, YYYYMMDD, a number
    short_futures_cut_off: object = None  # YYYYMMDD, a number; of physical delivery well before the last day
    long_futures_cut_off: object = None


def futures(body: object) -> dict[str, tuple[FutureListing, ...]]:
    """``/trsrv/futures``: the expiries of each symbol asked for.

    Raises:
        WireError: Not a map of arrays, an error, or an expiry without conid or date.
    """
    return {
        symbol: fields.each(fields.array(rows, "trsrv/futures"), _future, None)
        for symbol, rows in fields.mapping(body, "trsrv/futures").items()
    }


def _future(item: object) -> FutureListing:
    row = fields.payload(item, _FutureListing, "trsrv/futures")
    return FutureListing(
        symbol=fields.text(row.symbol) or "",
        conid=fields.required(fields.conid(row.conid), "trsrv/futures: conid"),
        underlying_conid=fields.lenient(fields.conid, row.underlying_conid, "underlyingConid"),
        expiration_date=fields.required(_date(row.expiration_date), "trsrv/futures: expirationDate"),
        last_trade_date=_date(row.ltd),
        cut_off=min(
            filter(None, map(_date, (row.short_futures_cut_off, row.long_futures_cut_off))), default=None
        ),
    )


def currency_pairs(body: object) -> tuple[CurrencyPair, ...]:
    """``/iserver/currency/pairs``: a map by the currency asked for.

    Raises:
        WireError: Not a map of arrays, an error, or a pair without symbol or conid.
    """
    found: list[CurrencyPair] = []
    for rows in fields.mapping(body, "currency/pairs").values():
        found.extend(fields.each(fields.array(rows, "currency/pairs"), _pair, None))
    return tuple(found)


def _pair(item: object) -> CurrencyPair:
    row = item if isinstance(item, dict) else {}
    return CurrencyPair(
        symbol=fields.required(fields.text(row.get("symbol")), "currency/pairs: symbol"),
        conid=fields.required(fields.conid(row.get("conid")), "currency/pairs: conid"),
        other_currency=fields.text(row.get("ccyPair")) or "",
    )


def strikes(body: object) -> Strikes:
    """``/iserver/secdef/strikes``.

    Raises:
        WireError: Not an object, an error, or a strike that is no number.
    """
    row = fields.mapping(body, "secdef/strikes")
    return Strikes(call=_prices(row.get("call")), put=_prices(row.get("put")))


def _prices(value: object) -> tuple[float, ...]:
    prices = (fields.amount(item, "strike") for item in fields.rows(value))
    return tuple(price for price in prices if price is not None)
