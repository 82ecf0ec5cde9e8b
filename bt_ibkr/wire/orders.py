"""Everything about orders on the wire, gathered: requests, answers, reports."""

from __future__ import annotations

from bt_ibkr.wire.order_answers import (
    Accepted,
    CancelAnswer,
    Impact,
    OrderAck,
    Prompt,
    Question,
    Refused,
    Submission,
    WhatIf,
    cancel_answer,
    submission,
    whatif,
)
from bt_ibkr.wire.order_reports import LiveOrders, live_orders, order_status, trades
from bt_ibkr.wire.order_request import cancel_parameters, order_request, orders_request

__all__ = [
    "Accepted",
    "CancelAnswer",
    "Impact",
    "LiveOrders",
    "OrderAck",
    "Prompt",
    "Question",
    "Refused",
    "Submission",
    "WhatIf",
    "cancel_answer",
    "cancel_parameters",
    "live_orders",
    "order_request",
    "order_status",
    "orders_request",
    "submission",
    "trades",
    "whatif",
]
