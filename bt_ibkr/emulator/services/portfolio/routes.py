"""Paths of the portfolio service."""

from __future__ import annotations

from bt_ibkr.emulator.services.call import Needs, Route
from bt_ibkr.emulator.services.portfolio import handlers

_GET = ("GET",)
_ACCOUNT = "/portfolio/{account}"
_SUMMARY = "/iserver/account/{account}/summary"

ROUTES = (
    Route(_GET, "/portfolio/accounts", handlers.accounts),
    Route(_GET, "/portfolio/subaccounts", handlers.subaccounts),
    Route(_GET, "/portfolio/subaccounts2", handlers.subaccounts),
    Route(("GET", "POST"), "/portfolio/allocation", handlers.allocations),
    Route(_GET, "/portfolio/positions/{conid}", handlers.positions_of_conid),
    Route(_GET, f"{_ACCOUNT}/meta", handlers.meta),
    Route(_GET, f"{_ACCOUNT}/positions", handlers.positions),
    Route(_GET, f"{_ACCOUNT}/positions/{{page}}", handlers.positions),
    Route(("POST",), f"{_ACCOUNT}/positions/invalidate", handlers.invalidate),
    Route(_GET, f"{_ACCOUNT}/position/{{conid}}", handlers.position),
    Route(_GET, f"{_ACCOUNT}/combo/positions", handlers.combo_positions),
    Route(_GET, f"{_ACCOUNT}/ledger", handlers.ledger),
    Route(_GET, f"{_ACCOUNT}/summary", handlers.portfolio_summary),
    Route(_GET, f"{_ACCOUNT}/allocation", handlers.allocation),
    Route(_GET, "/portfolio2/{account}/positions", handlers.positions2),
    Route(_GET, _SUMMARY, handlers.account_summary, Needs.BRIDGE),
    Route(_GET, f"{_SUMMARY}/{{part}}", handlers.account_segments, Needs.BRIDGE),
    Route(_GET, "/iserver/account/pnl/partitioned", handlers.partitioned_pnl, Needs.BRIDGE),
)
