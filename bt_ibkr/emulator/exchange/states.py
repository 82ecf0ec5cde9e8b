"""The states of an order and the ways between them."""

from __future__ import annotations

from bt_ibkr.emulator.types import EmulatedOrder
from bt_ibkr.errors import BtIbkrError
from bt_ibkr.model.order import DONE, OrderStatus

_S = OrderStatus
#: Where an order may go from each state. ``PendingCancel`` may go back: a cancellation can be refused, and an
#: order can execute before its cancellation reaches the exchange.
TRANSITIONS: dict[OrderStatus, frozenset[OrderStatus]] = {
    _S.INACTIVE: frozenset({_S.PENDING_SUBMIT, _S.PRE_SUBMITTED, _S.PENDING_CANCEL, _S.CANCELLED, _S.FAILED}),
    _S.PENDING_SUBMIT: frozenset(
        {_S.PRE_SUBMITTED, _S.SUBMITTED, _S.INACTIVE, _S.PENDING_CANCEL, _S.CANCELLED, _S.FAILED}
    ),
    _S.PRE_SUBMITTED: frozenset(
        {_S.SUBMITTED, _S.FILLED, _S.INACTIVE, _S.PENDING_CANCEL, _S.PRE_CANCELLED, _S.CANCELLED, _S.FAILED}
    ),
    _S.SUBMITTED: frozenset({_S.PRE_SUBMITTED, _S.FILLED, _S.PENDING_CANCEL, _S.CANCELLED, _S.WARN_STATE}),
    _S.WARN_STATE: frozenset({_S.SUBMITTED, _S.FILLED, _S.PENDING_CANCEL, _S.CANCELLED}),
    _S.PENDING_CANCEL: frozenset({_S.SUBMITTED, _S.PRE_SUBMITTED, _S.FILLED, _S.CANCELLED}),
    _S.PRE_CANCELLED: frozenset({_S.PRE_SUBMITTED, _S.FILLED, _S.CANCELLED}),
    _S.FILLED: frozenset(),
    _S.CANCELLED: frozenset(),
    _S.FAILED: frozenset(),
}


class TransitionError(BtIbkrError):
    """An order was to enter a state that cannot follow its present one: a defect of the emulator."""


def is_done(order: EmulatedOrder) -> bool:
    """Nothing can happen to the order any more."""
    return order.status in DONE


def enter(order: EmulatedOrder, status: OrderStatus, now_ns: int) -> bool:
    """Move the order to a state.

    Returns:
        Whether the state is a new one.

    Raises:
        TransitionError: The table has no such way.
    """
    if order.status is status:
        return False
    if status not in TRANSITIONS[order.status]:
        raise TransitionError(f"Order {order.order_id} cannot go from {order.status} to {status}.")
    order.status = status
    order.updated_ns = now_ns
    return True
