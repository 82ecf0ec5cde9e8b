"""How an execution is divided among the accounts of a group, and a combo's price among its legs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal

from bt_ibkr.emulator.types import Share

ZERO = Decimal(0)


def divide(
    quantity: Decimal, shares: Sequence[Share], entitled: Decimal, had: Mapping[str, Decimal], step: Decimal
) -> dict[str, Decimal]:
    """Divide an execution in whole steps, by what each account still is to get.

    Args:
        quantity: Of the execution.
        shares: Weights.
        entitled: Quantity of the whole order.
        had: What each account got so far.
        step: Smallest quantity.

    Returns:
        Quantities above 0 that add up to the execution's.
    """
    targets = _largest_remainders(entitled, {one.account: one.weight for one in shares}, step)
    left = {name: max(target - had.get(name, ZERO), ZERO) for name, target in targets.items()}
    if sum(left.values()) <= quantity:
        # what is executed beyond the order goes by the weights
        beyond = quantity - sum(left.values(), ZERO)
        extra = _largest_remainders(beyond, {one.account: one.weight for one in shares}, step)
        given = {name: left[name] + extra[name] for name in left}
    else:
        given = _largest_remainders(quantity, left, step)
    return {name: size for name, size in given.items() if size}


def _largest_remainders(total: Decimal, weights: Mapping[str, Decimal], step: Decimal) -> dict[str, Decimal]:
    """Whole steps in proportion to the weights; what is left goes to the largest remainders, then by order."""
    whole = sum(weights.values(), ZERO)
    if not whole:
        return dict.fromkeys(weights, ZERO)
    exact = {name: total * weight / whole for name, weight in weights.items()}
    given = {name: size // step * step for name, size in exact.items()}
    rest = total - sum(given.values(), ZERO)
    places = {name: index for index, name in enumerate(weights)}
    for name in sorted(weights, key=lambda one: (given[one] - exact[one], places[one])):
        if rest <= 0:
            break
        part = min(step, rest)
        given[name] += part
        rest -= part
    return given
