"""Which requests go first when there is not room for all."""

from __future__ import annotations

import re
from enum import IntEnum


class RequestClass(IntEnum):
    """Classes of requests, the most urgent first."""

    #: Cancellations, and orders that close or protect a position.
    PROTECT = 0
    #: Other orders, and answers to questions about them.
    ORDER = 1
    #: What keeps the session: tickle, authentication, ``/iserver/accounts``.
    UPKEEP = 2
    #: Orders, trades, positions, cash: what is.
    ACCOUNT = 3
    #: Quotes, contracts.
    MARKET_DATA = 4
    HISTORY = 5


_RULES: tuple[tuple[str, re.Pattern[str], RequestClass], ...] = tuple(
    (method, re.compile(pattern), klass)
    for method, pattern, klass in (
        ("DELETE", r"/iserver/account/[^/]+/order/.*", RequestClass.PROTECT),
        ("POST", r"/iserver/account/[^/]+/orders?(/.*)?", RequestClass.ORDER),
        ("POST", r"/iserver/reply/.*", RequestClass.ORDER),
        ("POST", r"/iserver/notification", RequestClass.ORDER),
        ("*", r"/tickle|/logout|/sso/.*|/iserver/auth/.*|/iserver/accounts?", RequestClass.UPKEEP),
        ("POST", r"/iserver/questions/.*", RequestClass.UPKEEP),
        ("*", r"/iserver/marketdata/history|/hmds/.*", RequestClass.HISTORY),
        (
            "*",
            r"/iserver/(marketdata|secdef|contract|scanner|currency|exchangerate).*",
            RequestClass.MARKET_DATA,
        ),
        ("*", r"/(trsrv|contract|md)/.*", RequestClass.MARKET_DATA),
    )
)


def class_of(method: str, path: str) -> RequestClass:
    """The class of a request that nobody classed otherwise."""
    for wanted, pattern, klass in _RULES:
        if wanted in ("*", method) and pattern.fullmatch(path):
            return klass
    return RequestClass.ACCOUNT
