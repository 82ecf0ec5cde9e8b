"""Paths of the scanner."""

from __future__ import annotations

from bt_ibkr.emulator.services.call import Needs, Route
from bt_ibkr.emulator.services.scanner import handlers

ROUTES = (
    Route(("GET",), "/iserver/scanner/params", handlers.parameters, Needs.BRIDGE),
    Route(("POST",), "/iserver/scanner/run", handlers.run, Needs.BRIDGE),
)
