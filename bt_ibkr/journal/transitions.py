"""Which state an order may go to from which. What is final stays final, unless executions prove otherwise."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Final

from bt_ibkr.errors import JournalError
from bt_ibkr.model.intent import ENDED, OPEN, OrderState

#: By the word of a message alone.
ALLOWED: Final = {
    # It never becomes "intended" again.
    OrderState.INTENDED: frozenset(OrderState) - {OrderState.INTENDED},
    OrderState.UNKNOWN: ENDED | {OrderState.WORKING},
    OrderState.WORKING: ENDED,
    # It shows up after all.
    OrderState.ABSENT: frozenset({OrderState.WORKING, OrderState.FILLED}),
    OrderState.FILLED: frozenset[OrderState](),
    OrderState.CANCELLED: frozenset[OrderState](),
    OrderState.EXPIRED: frozenset[OrderState](),
    # The answer refused it, and it stands after all.
    OrderState.REJECTED: frozenset({OrderState.WORKING}),
}
#: An order that executed is none of these.
_NOTHING_EXECUTED: Final = frozenset({OrderState.REJECTED, OrderState.ABSENT})


def check_transition(
    key: str, old: OrderState, new: OrderState, quantity: Decimal, fills: Callable[[], tuple[Decimal, bool]]
) -> None:
    """Refuse what an order never does.

    Args:
        key: The order's, for the message.
        old, new: Two different states.
        quantity: What was ordered; 0 if it was ordered by an amount of money.
        fills: Gives what has executed, and whether any of it was corrected.

    Raises:
        JournalError: It cannot go from ``old`` to ``new``.
    """
    if new in ALLOWED[old]:
        return
    if old not in OPEN:
        filled, corrected = fills()
        if contradicts(old, quantity, filled, corrected) and not contradicts(
            new, quantity, filled, corrected
        ):
            return
        proof = f"; {filled} of {quantity} executed"
    else:
        proof = ""
    raise JournalError(f"The order {key} is {old.value}: it cannot become {new.value}{proof}.")


def contradicts(state: OrderState, quantity: Decimal, filled: Decimal, corrected: bool) -> bool:
    """Whether executions prove that an order is not in ``state``. That executions are missing proves nothing unless
    some were corrected: they may be on their way."""
    if state in _NOTHING_EXECUTED:
        return filled > 0
    if state is OrderState.FILLED:
        return corrected and filled < quantity
    if state in (OrderState.CANCELLED, OrderState.EXPIRED, OrderState.WORKING):
        return 0 < quantity <= filled
    return True
