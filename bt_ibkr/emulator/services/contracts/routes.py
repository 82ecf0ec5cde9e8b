"""Paths of the contract service."""

from __future__ import annotations

from bt_ibkr.emulator.services.call import Needs, Route
from bt_ibkr.emulator.services.contracts import derivatives, forecast, handlers, search

_GET = ("GET",)

ROUTES = (
    Route(_GET, "/trsrv/stocks", handlers.stocks),
    Route(_GET, "/trsrv/futures", handlers.futures),
    Route(_GET, "/trsrv/secdef", handlers.definitions),
    Route(_GET, "/trsrv/all-conids", handlers.all_conids),
    Route(_GET, "/trsrv/secdef/schedule", handlers.weekday_schedule),
    Route(_GET, "/contract/trading-schedule", handlers.trading_schedule),
    Route(("GET", "POST"), "/iserver/secdef/search", search.search, Needs.BRIDGE),
    Route(_GET, "/iserver/secdef/info", derivatives.info, Needs.BRIDGE),
    Route(_GET, "/iserver/secdef/strikes", derivatives.strikes, Needs.BRIDGE),
    Route(_GET, "/iserver/secdef/bond-filters", derivatives.bond_filters, Needs.BRIDGE),
    Route(_GET, "/iserver/contract/{conid}/info", handlers.contract_info, Needs.BRIDGE),
    Route(_GET, "/iserver/contract/{conid}/info-and-rules", handlers.info_and_rules, Needs.BRIDGE),
    Route(_GET, "/iserver/contract/{conid}/algos", handlers.algos, Needs.BRIDGE),
    Route(("POST",), "/iserver/contract/rules", handlers.rules, Needs.BRIDGE),
    Route(_GET, "/iserver/currency/pairs", handlers.currency_pairs, Needs.BRIDGE),
    Route(_GET, "/iserver/exchangerate", handlers.exchange_rate, Needs.BRIDGE),
    Route(_GET, "/forecast/category/tree", forecast.category_tree, Needs.BRIDGE),
    Route(_GET, "/forecast/contract/market", forecast.market, Needs.BRIDGE),
    Route(_GET, "/forecast/contract/details", forecast.details, Needs.BRIDGE),
    Route(_GET, "/forecast/contract/rules", forecast.rules, Needs.BRIDGE),
    Route(_GET, "/forecast/contract/schedules", forecast.schedules, Needs.BRIDGE),
)
