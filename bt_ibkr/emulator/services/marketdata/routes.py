"""Paths of the market data service."""

from __future__ import annotations

from bt_ibkr.emulator.services.call import Needs, Route
from bt_ibkr.emulator.services.marketdata import handlers

ROUTES = (
    Route(("GET",), "/iserver/marketdata/snapshot", handlers.snapshot, Needs.ACCOUNTS),
    Route(("POST",), "/iserver/marketdata/unsubscribe", handlers.unsubscribe, Needs.BRIDGE),
    Route(("GET",), "/iserver/marketdata/unsubscribeall", handlers.unsubscribe_all, Needs.BRIDGE),
)
