"""Paths of the session's service."""

from __future__ import annotations

from bt_ibkr.emulator.services.call import Needs, Route
from bt_ibkr.emulator.services.session import handlers

_BOTH = ("GET", "POST")

ROUTES = (
    Route(_BOTH, "/tickle", handlers.tickle, Needs.NOTHING),
    Route(_BOTH, "/iserver/auth/status", handlers.auth_status, Needs.NOTHING),
    Route(_BOTH, "/iserver/auth/ssodh/init", handlers.init),
    Route(_BOTH, "/iserver/reauthenticate", handlers.reauthenticate),
    Route(_BOTH, "/logout", handlers.logout, Needs.NOTHING),
    Route(("GET",), "/sso/validate", handlers.validate),
    Route(("GET",), "/iserver/accounts", handlers.accounts, Needs.BRIDGE),
    Route(("POST",), "/iserver/account", handlers.switch_account, Needs.BRIDGE),
    Route(("POST",), "/iserver/questions/suppress", handlers.suppress, Needs.BRIDGE),
    Route(("POST",), "/iserver/questions/suppress/reset", handlers.suppress_reset, Needs.BRIDGE),
    Route(("POST",), "/iserver/notification", handlers.notification, Needs.BRIDGE),
)
