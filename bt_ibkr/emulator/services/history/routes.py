"""Paths of the history service."""

from __future__ import annotations

from bt_ibkr.emulator.services.call import Needs, Route
from bt_ibkr.emulator.services.history import handlers

ROUTES = (Route(("GET",), "/iserver/marketdata/history", handlers.history, Needs.BRIDGE),)
