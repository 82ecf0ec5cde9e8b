"""``/forecast``: the markets of ForecastEx, their contracts, rules and hours.

Three kinds of ids are about: a market's ``conid`` (its index), its ``product_conid``, which nothing is found by,
and the contracts' own.
"""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING

from bt_ibkr.emulator.services import errors
from bt_ibkr.emulator.services.call import Call
from bt_ibkr.emulator.services.contracts import bodies
from bt_ibkr.emulator.types import Instrument
from bt_ibkr.emulator.universe_events import CATEGORIES, FORECASTEX, Market, last_trade_s

if TYPE_CHECKING:
    from bt_ibkr.emulator.services.core import Core

Row = dict[str, object]
_ZONE = "US/Central"
_DAYS = ("Saturday", "Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday")
_HOURS = ({"open": "12:00 AM", "close": "4:15 PM"}, {"open": "4:16 PM", "close": "11:59 PM"})
_DAY_S = 86_400


async def category_tree(core: Core, call: Call) -> object:
    """All categories; those at the end of a branch name their markets."""
    tree: dict[str, Row] = {}
    for key, name, parent in CATEGORIES:
        markets: list[Row] = [
            {
                "name": market.name,
                "symbol": market.symbol,
                "exchange": FORECASTEX,
                "conid": market.index,
                "product_conid": market.product,
            }
            for market in core.universe.events.markets
            if market.category == key
        ]
        row: Row = {"name": name}
        row |= {"parent_id": parent} if parent else {}
        row |= {"markets": markets} if markets else {}
        tree[key] = row
    return {"categories": tree}


async def market(core: Core, call: Call) -> object:
    """The contracts of a market, by the conid of its index."""
    conid = call.integer("underlyingConid", call.query.get("underlyingConid"))
    found = core.universe.events.market(conid)
    exchange = call.query.get("exchange", FORECASTEX)
    if found is None or found.index != conid or exchange != FORECASTEX:
        raise errors.error(404, "Not Found", with_code=True)
    index = core.instrument(conid)
    assert index is not None
    return {
        "market_name": found.name,
        "exchange": FORECASTEX,
        "symbol": found.symbol,
        "logo_category": found.logo,
        "exclude_historical_data": False,
        "payout": 1.0,
        "contracts": [
            _listed(found, one) for one in core.universe.events.contracts(found, _today(core, index))
        ],
    }


def _today(core: Core, one: Instrument) -> date:
    return bodies.today(core, one)


def _listed(market: Market, one: Instrument) -> Row:
    day = _end(one)
    measured = market.measured(day)
    return {
        "conid": one.contract.conid,
        "side": _side(one),
        "expiration": one.contract.last_trade_date,
        "strike": one.contract.strike,
        "strike_label": market.label(one.contract.strike or 0.0),
        "expiry_label": f"{day:%B} {day.day}, {day.year}",
        "underlying_conid": market.index,
        "time_specifier": f"{measured.year}.{measured.month}.{measured.day}",
    }


def _end(one: Instrument) -> date:
    return date.fromisoformat(one.contract.last_trade_date or "")


def _side(one: Instrument) -> str:
    return "Y" if one.contract.right == "C" else "N"


def _contract(core: Core, call: Call) -> tuple[Market, Instrument]:
    """The contract of ``conid``; neither a market's index nor its product is one."""
    conid = call.integer("conid", call.query.get("conid"))
    one, found = core.instrument(conid), core.universe.events.market(conid)
    if one is None or found is None or not one.digital:
        raise errors.error(404, "Not Found", with_code=True)
    return found, one


async def details(core: Core, call: Call) -> object:
    found, one = _contract(core, call)
    other = core.universe.events.other_side(one.contract.conid)
    assert other is not None
    yes, no = (one, other) if one.contract.right == "C" else (other, one)
    day, strike = _end(one), one.contract.strike or 0.0
    return {
        "conid_yes": yes.contract.conid,
        "conid_no": no.contract.conid,
        "question": found.question.format(strike=f"{strike:,g}", day=f"{day:%B} {day.day}, {day.year}"),
        "side": _side(one),
        "strike_label": found.label(strike),
        "strike": strike,
        "exchange": FORECASTEX,
        "expiration": one.contract.last_trade_date,
        "symbol": found.symbol,
        "category": found.category,
        "logo_category": found.logo,
        "measured_period": f"{found.measured(day):%b%d'%y}",
        "market_name": found.name,
        "underlying_conid": found.index,
        "payout": 1.0,
        "product_conid": found.product,
        "is_restricted": False,
    }


async def rules(core: Core, call: Call) -> object:
    found, one = _contract(core, call)
    day = _end(one)
    last = last_trade_s(found, day)
    return {
        "asset_class": "OPT",
        "description": found.description,
        "market_name": found.name,
        "measured_period": f"{found.measured(day):%b%d'%y}",
        "threshold": f"{one.contract.strike}",
        "source_agency": found.source,
        "data_and_resolution_link": found.link,
        "last_trade_time": last,
        "product_code": found.symbol,
        "market_rules_link": f"https://data.forecastex.com/regulatory/{found.symbol}TermsandConditions.pdf",
        "release_time": last,
        "payout_time": last + _DAY_S,
        "payout": "$1.00",
        "price_increment": "$0.01",
        "exchange_timezone": _ZONE,
    }


async def schedules(core: Core, call: Call) -> object:
    """Every day of the week, on a clock of twelve hours."""
    _contract(core, call)
    return {
        "timezone": _ZONE,
        "trading_schedules": [
            {"day_of_week": day, "trading_times": [dict(window) for window in _HOURS]} for day in _DAYS
        ],
    }
