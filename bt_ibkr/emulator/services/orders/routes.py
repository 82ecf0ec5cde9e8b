"""Paths of the order service."""

from __future__ import annotations

from bt_ibkr.emulator.services.call import Needs, Route
from bt_ibkr.emulator.services.orders import handlers, whatif

_ACCOUNT = "/iserver/account/{account}"

ROUTES = (
    Route(("POST",), f"{_ACCOUNT}/orders", handlers.place, Needs.ACCOUNTS),
    Route(("POST",), f"{_ACCOUNT}/orders/whatif", whatif.whatif, Needs.ACCOUNTS),
    Route(("POST",), "/iserver/reply/{reply}", handlers.reply, Needs.BRIDGE),
    Route(("POST",), f"{_ACCOUNT}/order/{{order}}", handlers.modify, Needs.ACCOUNTS),
    Route(("DELETE",), f"{_ACCOUNT}/order/{{order}}", handlers.cancel, Needs.ACCOUNTS),
    Route(("GET",), "/iserver/account/orders", handlers.live_orders, Needs.ACCOUNTS),
    Route(("GET",), "/iserver/account/order/status/{order}", handlers.status, Needs.ACCOUNTS),
    Route(("GET",), "/iserver/account/trades", handlers.trades, Needs.ACCOUNTS),
)
