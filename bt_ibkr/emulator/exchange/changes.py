"""Changes of working orders: which are refused, and what a change does to an order."""

from __future__ import annotations

from collections.abc import Collection

import msgspec

from bt_ibkr.emulator.exchange import checks
from bt_ibkr.emulator.exchange.admission import Admission
from bt_ibkr.emulator.exchange.book import AT_CLOSE, Working
from bt_ibkr.emulator.types import OrderSpec


def refusal(working: Working, spec: OrderSpec, admission: Admission, live: Collection[Working]) -> str | None:
    """Why the order cannot become that; ``None`` if it can."""
    order, old = working.order, working.order.spec
    if not working.alive:
        return "Order is inactive"
    if (spec.account, spec.conid, spec.side) != (old.account, old.conid, old.side):
        return "Account, contract and side of an order cannot be modified."
    if (spec.order_type in AT_CLOSE) != (old.order_type in AT_CLOSE):
        return "An order cannot be modified to or from an order at the close."
    error = checks.refusal(spec, working.instrument)
    if error is None and spec.quantity <= order.filled:
        error = f"Order size {spec.quantity} is not above the quantity already filled, {order.filled}."
    if error is None and order.active:
        left = msgspec.structs.replace(spec, quantity=spec.quantity - order.filled)
        error = admission.funds_error(
            left, working.instrument, live, group=order.oca_group, without=order.order_id
        )
    return error


def apply(working: Working, spec: OrderSpec) -> bool:
    """Make the order what the spec says; what belongs to its submission stays.

    Returns:
        Whether it loses its place in the queue: for a new price, another type or a larger quantity.
    """
    order, old = working.order, working.order.spec
    order.spec = new = msgspec.structs.replace(
        spec,
        client_order_id=old.client_order_id,
        parent_client_id=old.parent_client_id,
        one_cancels_all=old.one_cancels_all,
        origin=old.origin,
        allocation=old.allocation,
    )
    repriced = _pricing(new) != _pricing(old)
    if repriced:
        working.limit = new.limit_price
        working.resting = working.seen = False
        if new.order_type is not old.order_type:
            order.triggered = False
        if not order.triggered:
            order.stop_price = new.stop_price
    return repriced or new.quantity > old.quantity


def _pricing(spec: OrderSpec) -> tuple[object, ...]:
    return (spec.limit_price, spec.stop_price, spec.order_type, spec.trail_amount, spec.trail_percent)
