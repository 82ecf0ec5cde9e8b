"""``secdef/strikes`` and ``secdef/info``: what there is on an underlying, in a month, at a strike."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bt_ibkr.emulator.chains import month_of
from bt_ibkr.emulator.services import errors
from bt_ibkr.emulator.services.call import Call
from bt_ibkr.emulator.services.contracts import bodies
from bt_ibkr.emulator.services.marketdata.fields import mark_price
from bt_ibkr.emulator.types import Instrument
from bt_ibkr.emulator.universe_events import Market
from bt_ibkr.emulator.universe_futures import Product
from bt_ibkr.model.contract import SecurityType

if TYPE_CHECKING:
    from bt_ibkr.emulator.services.core import Core

_RELATED = {SecurityType.CFD.value: SecurityType.CFD, SecurityType.WARRANT.value: SecurityType.WARRANT}


def _type(call: Call) -> str:
    return (call.query.get("sectype") or call.query.get("secType") or "").upper()


async def info(core: Core, call: Call) -> object:
    """Contracts on an underlying: of a month, at a strike, of one right if that is said; or an instrument itself.

    Options need a strike, those on futures do not. A month or strike without contracts has an empty answer. What
    they are on must have been searched before.
    """
    kind = _type(call)
    if kind == "BOND" and call.query.get("issuerId"):
        return [bodies.details(one) for one in core.universe.bonds(issuer=call.query["issuerId"])]
    conid = call.integer("conid", call.query.get("conid"))
    one = core.instrument(conid) if conid > 0 else None
    if one is None:
        raise errors.bad_request("no contracts retrieved")
    if not _searched(core, one):
        raise errors.bad_request("no contracts retrieved: query /iserver/secdef/search first")
    if kind in ("", one.contract.security_type.value) and not _has(core, one, kind):
        return [bodies.details(one)]
    found = _derivatives(core, call, one, kind)
    if found is None:
        raise errors.bad_request("no contracts retrieved")
    return [bodies.details(contract) for contract in found]


def _searched(core: Core, one: Instrument) -> bool:
    """A future counts as searched with its product, an option with what it is on."""
    product = core.universe.futures.product_of(one.contract.conid)
    market = core.universe.events.market(one.contract.conid)
    known = {one.contract.conid, one.underlying_conid}
    known |= set() if product is None else {product.index}
    known |= set() if market is None else {market.index}
    on = core.instrument(one.underlying_conid)
    of_option = None if on is None else core.universe.futures.product_of(on.contract.conid)
    known |= set() if of_option is None else {of_option.index}
    return bool(known & core.searched)


def _has(core: Core, one: Instrument, kind: str) -> bool:
    """Whether contracts of that kind are on the instrument rather than the instrument being of that kind itself."""
    options = core.universe.chains.security_type(one)
    return bool(kind) and options is not None and kind == options.value


def _derivatives(core: Core, call: Call, one: Instrument, kind: str) -> list[Instrument] | None:
    """The contracts of a kind on an instrument; ``None`` if it can have none."""
    product, market = _product(core, one), _market(core, one)
    if kind in _RELATED:
        related = core.universe.related(one.contract.conid)
        listed = [other for other in related if other.contract.security_type is _RELATED[kind]]
        return _fitting(call, _of_month(call, listed) if kind == "WAR" else listed) if listed else None
    if kind == "FUT" and product is not None:
        return _of_month(call, core.universe.futures.listed(product, bodies.today(core, one)))
    if kind == "OPT" and market is not None:
        _need_strike(call)
        contracts = list(core.universe.events.contracts(market, bodies.today(core, one)))
        return _fitting(call, _of_month(call, contracts))
    if not _has(core, one, kind):
        return None
    found = _chain(core, call, one)
    if product is not None and kind == "FOP":
        events = core.universe.events.on_product(product, bodies.today(core, one), _price(core, one))
        found += _fitting(call, _of_month(call, events))
    return found


def _product(core: Core, one: Instrument) -> Product | None:
    """The product that an instrument is the index of."""
    index = one.contract.security_type is SecurityType.INDEX
    return core.universe.futures.product_of(one.contract.conid) if index else None


def _market(core: Core, one: Instrument) -> Market | None:
    index = one.contract.security_type is SecurityType.INDEX
    return core.universe.events.market(one.contract.conid) if index else None


def _need_strike(call: Call) -> float:
    try:
        return float(call.query["strike"])
    except (KeyError, ValueError):
        raise errors.bad_request("strike is required") from None


def _strike(call: Call) -> float:
    """The strike asked for; 0 for all."""
    return _need_strike(call) if call.query.get("strike") else 0.0


def _chain(core: Core, call: Call, one: Instrument) -> list[Instrument]:
    chains = core.universe.chains
    on_stock = chains.security_type(one) is SecurityType.OPTION
    strike = _need_strike(call) if on_stock else _strike(call)
    right = call.query.get("right", "").upper()[:1]
    month = month_of(call.query.get("month", ""))
    days = [
        day for day in chains.expiries(one, bodies.today(core, one)) if month in ((day.year, day.month), None)
    ]
    strikes = [strike] if strike else chains.strikes_of(one, _price(core, one))
    found = [
        chains.option(one, day, each, word)
        for day in days[: None if month else 1]
        for each in strikes
        for word in (right or "CP")
    ]
    return [option for option in found if option is not None]


def _of_month(call: Call, listed: list[Instrument]) -> list[Instrument]:
    """Those of the month asked for (``DEC26`` or ``202612``), or all."""
    word = call.query.get("month", "")
    if not word:
        return listed
    month = month_of(word)
    text = word if month is None else f"{month[0]}{month[1]:02d}"
    return [one for one in listed if bodies.month_of_contract(one) == text]


def _fitting(call: Call, listed: list[Instrument]) -> list[Instrument]:
    """Those of the strike and right asked for."""
    strike, right = _strike(call), call.query.get("right", "").upper()[:1]
    return [
        one
        for one in listed
        if (not strike or one.contract.strike == strike) and right in ("", one.contract.right)
    ]


def _price(core: Core, one: Instrument) -> float:
    """The present price; of a product that of its front month."""
    product = _product(core, one)
    if product is not None and not core.engine.quote(one.contract.conid):
        one = next(iter(core.universe.futures.listed(product, bodies.today(core, one))), one)
    quote = core.engine.quote(one.contract.conid)
    return (None if quote is None else mark_price(quote)) or one.reference_price


async def strikes(core: Core, call: Call) -> object:
    """Strikes of a month.

    There are none before the underlying was searched, after it was found by a name (until its symbol is searched), or
    of options on futures without an ``exchange``.
    """
    one = core.instrument(call.integer("conid", call.query.get("conid")))
    kind = _type(call)
    nothing: dict[str, list[float]] = {"call": [], "put": []}
    if one is None or not _searched(core, one) or one.contract.conid in core.found_by_name:
        return nothing
    if kind == "FOP" and not call.query.get("exchange"):
        return nothing
    market, month = _market(core, one), month_of(call.query.get("month", ""))
    if kind == "OPT" and market is not None:
        contracts = core.universe.events.contracts(market, bodies.today(core, one))
        listed = sorted({contract.contract.strike or 0.0 for contract in _of_month(call, list(contracts))})
    elif kind == "WAR":
        warrants = [o for o in core.universe.related(one.contract.conid) if o.contract.strike]
        listed = sorted({o.contract.strike or 0.0 for o in _of_month(call, warrants)})
    else:
        days = core.universe.chains.expiries(one, bodies.today(core, one)) if _has(core, one, kind) else []
        there = any((day.year, day.month) == month for day in days)
        listed = core.universe.chains.strikes_of(one, _price(core, one)) if there else []
    return {"call": listed, "put": listed}


async def bond_filters(core: Core, call: Call) -> object:
    """What the bonds of an issuer differ in; nothing for an issuer that is not known."""
    if not call.query.get("issuerId"):
        raise errors.bad_request("issuerId is required")
    bonds = core.universe.bonds(issuer=call.query["issuerId"])
    if not bonds:
        return {"bondFilters": []}
    months = sorted({bodies.month_of_contract(one) for one in bonds})
    coupons = sorted({one.coupon for one in bonds if one.coupon is not None})
    currencies = sorted({one.contract.currency for one in bonds})
    return {
        "bondFilters": [
            {
                "displayText": "Maturity Date",
                "columnId": 27,
                "options": [{"text": bodies.month_name(month), "value": month} for month in months],
            },
            {"displayText": "Coupon", "columnId": 25, "options": [{"value": f"{one:g}"} for one in coupons]},
            {"displayText": "Currency", "columnId": 5, "options": [{"value": one} for one in currencies]},
        ]
    }
