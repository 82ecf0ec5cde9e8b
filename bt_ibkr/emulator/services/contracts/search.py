"""``secdef/search``: what answers to a symbol or a name, and what there is on it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from bt_ibkr.emulator.chains import month_word
from bt_ibkr.emulator.services import errors
from bt_ibkr.emulator.services.call import Call
from bt_ibkr.emulator.services.contracts import bodies
from bt_ibkr.emulator.types import Instrument
from bt_ibkr.emulator.universe_events import FORECASTEX
from bt_ibkr.emulator.universe_futures import Product
from bt_ibkr.model.contract import SecurityType

if TYPE_CHECKING:
    from bt_ibkr.emulator.services.core import Core

Row = dict[str, object]
_BY_NAME_LIMIT = 50
#: Stands for all bonds of a kind, which have conids of their own.
_BOND_CONID = "2147483647"


async def search(core: Core, call: Call) -> object:
    """Instruments by symbol, or by a part of the company's name; GET and POST alike.

    Bonds are found by their issuers alone (``secType=BOND``), funds where they are asked for (``fund=true``).
    """
    body = call.object() if call.raw.strip() else {}
    given = {**call.query, **body}
    symbol = str(given.get("symbol") or "").strip()
    if not symbol:
        raise errors.bad_request("symbol is required")
    by_name = str(given.get("name", "")).lower() == "true"
    wanted = str(given.get("secType") or "").upper()
    if wanted == "BOND":
        return _issuers(core, symbol) or {"error": "No symbol found"}
    funds = wanted == "FUND" or str(given.get("fund", "")).lower() == "true"
    listed = _by_name(core, symbol) if by_name else _by_symbol(core, symbol)
    rows = {
        one.contract.conid: row(core, one)
        for one in listed
        if funds or one.contract.security_type is not SecurityType.FUND
    }
    matching = {conid: found for conid, found in rows.items() if wanted in ("", *_types(found))}
    if not matching:
        return {"error": "No symbol found"}
    core.searched.update(matching)
    if by_name:
        core.found_by_name.update(matching)
    else:
        core.found_by_name.difference_update(matching)
    return list(matching.values())


def _types(found: Row) -> Iterable[str]:
    sections = found["sections"]
    assert isinstance(sections, list)
    return (str(section["secType"]) for section in sections)


def _by_symbol(core: Core, symbol: str) -> list[Instrument]:
    """Exact matches; a currency also finds the pairs that begin with it. Futures are found by their product."""
    universe = core.universe
    product = universe.futures.product(symbol)
    pairs = [
        one
        for one in universe.all()
        if one.contract.security_type is SecurityType.FOREX
        and one.contract.symbol.partition(".")[0] == symbol.upper()
    ]
    rules = (
        None if product is None else core.instrument(product.index),
        universe.events.by_symbol(symbol),
    )
    found = [*universe.by_symbol(symbol), *pairs, *(one for one in rules if one is not None)]
    return [one for one in found if not _of_product(core, one)]


def _of_product(core: Core, one: Instrument) -> bool:
    """A contract that its product stands for."""
    is_future = one.contract.security_type is SecurityType.FUTURE
    return is_future and core.universe.futures.product_of(one.contract.conid) is not None


def _by_name(core: Core, name: str) -> list[Instrument]:
    universe = core.universe
    indices = [core.instrument(product.index) for product in universe.futures.products]
    markets = [core.instrument(market.index) for market in universe.events.markets]
    every = [*universe.all(), *(one for one in (*indices, *markets) if one is not None)]
    hidden = (SecurityType.BOND, SecurityType.CFD, SecurityType.WARRANT)
    return [
        one
        for one in every
        if name.upper() in one.company_name.upper()
        and one.contract.security_type not in hidden
        and not _of_product(core, one)
    ][:_BY_NAME_LIMIT]


def _issuers(core: Core, symbol: str) -> list[Row]:
    """The kinds of bonds of issuers that answer to a symbol or name (CPAPI documentation, ``secdef/search``)."""
    kinds: dict[str, dict[str, str]] = {}
    for bond in core.universe.bonds(symbol):
        treasury = bond.contract.symbol == "US-T"
        header = "US Treasury Fixed Income" if treasury else "Corporate Fixed Income"
        kinds.setdefault(header, {})[bond.issuer] = bond.company_name
    nothing = ("companyName", "symbol", "description", "restricted", "fop", "opt", "war")
    return [
        {
            "issuers": [{"id": issuer, "name": name} for issuer, name in issuers.items()],
            "bondid": number,
            "conid": _BOND_CONID,
            "companyHeader": header,
            **dict.fromkeys(nothing),
            "sections": [{"secType": "BOND"}],
        }
        for number, (header, issuers) in enumerate(kinds.items(), start=2)
    ]


def row(core: Core, one: Instrument) -> Row:
    """A row of the answer: the conid is text, the exchange is called ``description``."""
    contract = one.contract
    found: Row = {
        "conid": str(contract.conid),
        "companyHeader": f"{one.company_name} - {bodies.listing(one)}",
        "companyName": one.company_name,
        "symbol": bodies.ticker(one),
        "description": bodies.listing(one),
        "restricted": None,
        "sections": _sections(core, one),
    }
    market = core.universe.events.market(contract.conid)
    if market is not None:
        days = core.universe.events.days(market, bodies.today(core, one))
        found["opt"] = ";".join(day.strftime("%Y%m%d") for day in days)
    return found


def _sections(core: Core, one: Instrument) -> list[Row]:
    """What there is of an instrument, itself first; as recorded one that has options can be part of combos, too."""
    contract, universe = one.contract, core.universe
    kind = contract.security_type
    own: Row = {"secType": kind.value}
    if kind is SecurityType.INDEX:
        own["exchange"] = f"{bodies.listing(one)};"
    elif kind is SecurityType.FUTURE:
        own |= {"months": _future_months([one]), "exchange": contract.exchange}
    elif not one.is_us:
        own["exchange"] = f"{bodies.listing(one)};"
    elif kind is not SecurityType.STOCK:
        own["exchange"] = contract.exchange
    sections = [own]
    if bodies.listing(one) == FORECASTEX:
        return [*sections, {"secType": "EC"}]
    product = _product_of_index(core, one)
    if product is not None:
        listed = universe.futures.listed(product, bodies.today(core, one))
        months = _future_months(listed)
        sections.append({"secType": "FUT", "months": months, "exchange": product.exchange, "showPrips": True})
    sections += _options(core, one)
    sections += _related(core, one)
    if universe.chains.security_type(one) is not None:
        sections.append({"secType": "BAG"})
    if product is not None and product.event_class:
        sections.append({"secType": "EC"})
    return sections


def _product_of_index(core: Core, one: Instrument) -> Product | None:
    if one.contract.security_type is not SecurityType.INDEX:
        return None
    return core.universe.futures.product_of(one.contract.conid)


def _options(core: Core, one: Instrument) -> list[Row]:
    chains = core.universe.chains
    kind = chains.security_type(one)
    months = ";".join(month_word(day) for day in chains.expiries(one, bodies.today(core, one)))
    if kind is None or not months:
        return []
    if kind is SecurityType.FUTURE_OPTION:
        return [{"secType": "FOP", "months": months, "exchange": one.contract.exchange, "showPrips": True}]
    return [{"secType": "OPT", "months": months, "exchange": "SMART;AMEX;CBOE"}]


def _related(core: Core, one: Instrument) -> list[Row]:
    """Warrants by months, CFDs by conid."""
    related = core.universe.related(one.contract.conid)
    warrants = [other for other in related if other.contract.security_type is SecurityType.WARRANT]
    sections: list[Row] = []
    if warrants:
        exchanges = ";".join(sorted({other.contract.exchange for other in warrants}))
        sections.append({"secType": "WAR", "months": _future_months(warrants), "exchange": exchanges})
    sections += [
        {"secType": "CFD", "exchange": other.contract.exchange, "conid": str(other.contract.conid)}
        for other in related
        if other.contract.security_type is SecurityType.CFD
    ]
    return sections


def _future_months(listed: Iterable[Instrument]) -> str:
    words = (bodies.month_text(bodies.month_of_contract(one)) for one in listed)
    return ";".join(dict.fromkeys(words))
