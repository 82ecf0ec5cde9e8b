"""The form of an order as a client writes it: which fields have which JSON types."""

from __future__ import annotations

import math
from typing import Any

from bt_ibkr.emulator.services import errors
from bt_ibkr.emulator.services.errors import ApiError
from bt_ibkr.emulator.services.json import encode

_TEXTS = (
    "acctId",
    "conidex",
    "secType",
    "cOID",
    "parentId",
    "orderType",
    "side",
    "tif",
    "trailingType",
    "listingExchange",
    "ticker",
    "referrer",
    "strategy",
    "allocationMethod",
    "extOperator",
    "customerAccount",
    "taxOptimizerId",
)
_NUMBERS = ("price", "auxPrice", "quantity", "cashQty", "fxQty", "trailingAmt")
_FLAGS = (
    "outsideRTH",
    "isSingleGroup",
    "useAdaptive",
    "allOrNone",
    "deactivated",
    "isCcyConv",
    "manualIndicator",
    "isProCustomer",
)
_OBJECTS = ("strategyParameters", "jsonPayload")


def business(text: str) -> ApiError:
    """A refusal that the real server sends with status 200."""
    return ApiError(200, encode({"error": text}))


def rejected(text: str) -> ApiError:
    """The refusal that looks like an order: id -1, status Failed (recorded)."""
    row = {
        "order_id": "-1",
        "order_status": "Failed",
        "text": text,
        "warning_message": "Order rejected by the exchange.",
    }
    return ApiError(200, encode([row]))


def check_types(ticket: object) -> dict[str, Any]:
    """The ticket, if each field that is known has its type; other fields are ignored.

    Raises:
        ApiError: 400, as recorded.
    """
    if not isinstance(ticket, dict):
        raise _wrong_type()
    conid = ticket.get("conid", 0)
    fine = (
        all(isinstance(ticket.get(name, ""), str) for name in _TEXTS)
        and all(_is_number(ticket.get(name, 0)) for name in _NUMBERS)
        and all(isinstance(ticket.get(name, False), bool) for name in _FLAGS)
        and all(isinstance(ticket.get(name, {}), dict) for name in _OBJECTS)
        and isinstance(conid, int)
        and not isinstance(conid, bool)
    )
    if not fine:
        raise _wrong_type()
    return ticket


def _wrong_type() -> ApiError:
    return errors.error(400, "orders request includes parameter with incorrect type")


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
