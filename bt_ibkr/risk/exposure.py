"""How far a position can go once open orders execute: brackets and groups as the units they are.

A position and the orders on it reach from ``low`` to ``high``, whichever of them execute. Single orders add up. Of
a one-cancels-others group only one executes. A bracket's children execute only after their parent: an entry for 100
with its stop reaches from 0 to 100, not down to -100. Those that close what the parent opens are such a group (IBKR
makes them one); those that add to it add up.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Final, NamedTuple

from bt_ibkr.model.intent import OrderIntent
from bt_ibkr.model.order import OrderTicket
from bt_ibkr.risk.view import OpenOrder

_ZERO: Final = Decimal(0)


class Reach(NamedTuple):
    """The least and the greatest that a position can become."""

    low: Decimal
    high: Decimal


def effects(ticket: OrderTicket, quantity: Decimal) -> dict[int, Decimal]:
    """What the execution of ``quantity`` adds to positions, by conid: of a combo to those of its legs, of a currency
    conversion to none."""
    if ticket.is_currency_conversion:
        return {}
    signed = quantity * ticket.side.sign
    if not ticket.legs:
        return {ticket.contract_id: signed}
    found: dict[int, Decimal] = defaultdict(Decimal)
    for leg in ticket.legs:
        found[leg.conid] += signed * leg.ratio
    return dict(found)


def group_of(intent: OrderIntent, submission: str) -> str | None:
    """The one-cancels-others group of an order; ``submission`` names the group of tickets that were sent as one."""
    if intent.group is not None:
        return intent.group
    return submission if intent.ticket.one_cancels_all else None


def reach(position: Decimal, orders: Sequence[OpenOrder]) -> Reach:
    """From where to where the position can go if any of ``orders`` execute."""
    keys = {order.key for order in orders}
    children: dict[str, list[OpenOrder]] = defaultdict(list)
    roots: list[OpenOrder] = []
    for order in orders:
        (children[order.parent_key] if order.parent_key in keys else roots).append(order)
    seen: set[str] = set()
    groups: dict[str, list[Reach]] = defaultdict(list)
    siblings: dict[str, list[Reach]] = defaultdict(list)
    low, high = position, position
    for order in roots:
        unit = _unit(order, children, seen)
        if order.group is not None:
            groups[order.group].append(unit)
        elif order.parent_key is not None:
            siblings[order.parent_key].append(unit)
        else:
            low, high = low + unit.low, high + unit.high
    for members in groups.values():
        low += min(unit.low for unit in members)
        high += max(unit.high for unit in members)
    for members in siblings.values():
        # Their parent has executed: the position is what it opened.
        inner = _children(position, members)
        low, high = low + inner.low, high + inner.high
    # Orders that name each other as parents have no root: each counts by itself.
    for order in orders:
        if order.key not in seen:
            low, high = low + min(_ZERO, order.effect), high + max(_ZERO, order.effect)
    return Reach(low, high)


def _unit(order: OpenOrder, children: dict[str, list[OpenOrder]], seen: set[str]) -> Reach:
    seen.add(order.key)
    inner = _children(order.effect, [_unit(child, children, seen) for child in children.get(order.key, ())])
    return Reach(min(_ZERO, order.effect + inner.low), max(_ZERO, order.effect + inner.high))


def _children(opened: Decimal, units: Sequence[Reach]) -> Reach:
    """The reach of a parent's children, beside what the parent opened."""
    lows, highs = [unit.low for unit in units], [unit.high for unit in units]
    return Reach(
        sum(lows, _ZERO) if opened < 0 else min(lows, default=_ZERO),
        sum(highs, _ZERO) if opened > 0 else max(highs, default=_ZERO),
    )


def reduces(position: Decimal | None, before: Reach, after: Reach, added: Iterable[Decimal]) -> bool:
    """Whether new orders only bring a position nearer to 0: they are all against it, and together with what is open
    already they cannot turn it round.

    Args:
        position: As it is; ``None`` if it is not known: nothing is known to reduce it, then.
        before, after: Its reach without and with the new orders.
        added: What each new order would add.
    """
    if not position:
        return False
    sign = 1 if position > 0 else -1
    if any(effect * sign > 0 for effect in added):
        return False
    if sign > 0:
        return after.high <= before.high and after.low >= 0
    return after.low >= before.low and after.high <= 0


def increasing(position: Decimal, orders: Iterable[OpenOrder]) -> tuple[str, ...]:
    """Keys of the open orders to cancel when trading is restricted to reducing: those that could bring the position
    further from 0, and those that could turn it round together with those before them.

    A bracket's child goes with its parent, and is named only without it.
    """
    kept: list[OpenOrder] = []
    named = []
    for family in _families(tuple(orders)):
        both = reach(position, kept), reach(position, [*kept, *family])
        if reduces(position, *both, [order.effect for order in family]):
            kept += family
        else:
            named.append(family[0].key)
    return tuple(named)


def _families(orders: Sequence[OpenOrder]) -> list[list[OpenOrder]]:
    """Each order without a parent among ``orders``, with all that hang on it; then any that hang on one another."""
    children: dict[str, list[OpenOrder]] = defaultdict(list)
    keys = {order.key for order in orders}
    found = []
    for order in orders:
        if order.parent_key in keys:
            children[order.parent_key].append(order)
        else:
            found.append([order])
    for family in found:
        # It grows while it is walked: children of children come in turn.
        for member in family:
            family += children.pop(member.key, ())
    return found + [[order] for rest in children.values() for order in rest]
