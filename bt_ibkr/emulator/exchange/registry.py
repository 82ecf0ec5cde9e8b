"""All orders of all accounts: their numbers, and how they hang together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from bt_ibkr.emulator.exchange.book import Working
from bt_ibkr.model.order import OrderStatus

#: Ids look like those of the recorded frames and follow from the seed.
_FIRST_ORDER_ID = 912_091_175
_SEED_STRIDE = 100_000


class Registry:
    """Orders by id and by client id, brackets and groups.

    Args:
        seed: Ids follow from it.

    Attributes:
        live: Orders that are not done, by id.
    """

    def __init__(self, seed: int) -> None:
        self._next_id = _FIRST_ORDER_ID + seed % 10_000 * _SEED_STRIDE
        self._sequence = 0
        self._groups = 0
        self._orders: dict[int, Working] = {}
        self._by_client_id: dict[tuple[str, str], int] = {}
        self._members: dict[str, list[int]] = {}
        self._children: dict[int, list[int]] = {}
        self.live: dict[int, Working] = {}

    def get(self, order_id: int) -> Working | None:
        """The order of that id, whatever has become of it."""
        return self._orders.get(order_id)

    def __iter__(self) -> Iterator[Working]:
        """All orders ever accepted, in order of arrival."""
        return iter(self._orders.values())

    # ------------------------------------------------------------------ numbers

    def new_id(self) -> int:
        """An order id that was never given."""
        found = self._next_id
        self._next_id += 1
        return found

    def count(self) -> int:
        """The next place in the order of everything that happens."""
        self._sequence += 1
        return self._sequence

    def new_group(self) -> str:
        """Name of a group whose members cancel each other."""
        self._groups += 1
        return f"oco-{_FIRST_ORDER_ID % 1_000_000 + self._groups}"

    @property
    def numbers(self) -> tuple[int, int, int]:
        """How far ids, places and groups have been counted."""
        return self._next_id, self._sequence, self._groups

    def restore(self, orders: Iterable[Working], numbers: tuple[int, int, int]) -> None:
        """Take in orders that were known before, in their order of arrival."""
        self._next_id, self._sequence, self._groups = numbers
        for working in orders:
            order = working.order
            self._orders[order.order_id] = working
            if working.alive:
                self.live[order.order_id] = working
            if order.spec.client_order_id:
                self._by_client_id[(order.spec.account, order.spec.client_order_id)] = order.order_id
            if order.parent_id:
                self._children.setdefault(order.parent_id, []).append(order.order_id)
            if order.oca_group:
                self._members.setdefault(order.oca_group, []).append(order.order_id)

    def __len__(self) -> int:
        return len(self._orders)

    def renumber(self, order_id: int) -> int:
        """Give an order another id, as a change of it may; executions so far keep the former one.

        Raises:
            KeyError: There is no such order.
        """
        working = self._orders.pop(order_id)
        order, new_id = working.order, self.new_id()
        order.order_id = new_id
        self._orders[new_id] = working
        if self.live.pop(order_id, None) is not None:
            self.live[new_id] = working
        if order.spec.client_order_id:
            self._by_client_id[(order.spec.account, order.spec.client_order_id)] = new_id
        self._children[new_id] = self._children.pop(order_id, [])
        for child_id in self._children[new_id]:
            self._orders[child_id].order.parent_id = new_id
        for listed in (self._members.get(order.oca_group), self._children.get(order.parent_id)):
            if listed is not None and order_id in listed:
                listed[listed.index(order_id)] = new_id
        return new_id

    # ------------------------------------------------------------------ entering

    def add(self, working: Working, parent: Working | None, group: str) -> None:
        """Take an order in; a child joins the group of its parent's children."""
        order = working.order
        self._orders[order.order_id] = working
        self.live[order.order_id] = working
        if order.spec.client_order_id:
            self._by_client_id[(order.spec.account, order.spec.client_order_id)] = order.order_id
        if parent is not None:
            order.parent_id = parent.order.order_id
            order.active = parent.order.status is OrderStatus.FILLED
            self._children.setdefault(order.parent_id, []).append(order.order_id)
            group = str(order.parent_id)
        if group:
            order.oca_group = group
            self._members.setdefault(group, []).append(order.order_id)

    def has_client_id(self, account: str, client_id: str) -> bool:
        return (account, client_id) in self._by_client_id

    # ------------------------------------------------------------------ relations

    def parent_for(self, account: str, client_id: str) -> Working | None:
        """The order of that client id, if it can still have children.

        It cannot if it was cancelled, or one of its children has been filled.
        """
        parent_id = self._by_client_id.get((account, client_id))
        if parent_id is None:
            return None
        parent = self._orders[parent_id]
        children = [child.order.status for child in self.children(parent)]
        if (
            parent.order.status in (OrderStatus.CANCELLED, OrderStatus.FAILED)
            or OrderStatus.FILLED in children
        ):
            return None
        return parent

    def children(self, working: Working) -> list[Working]:
        """The orders of the bracket whose parent this is."""
        return [self._orders[child] for child in self._children.get(working.order.order_id, ())]

    def siblings(self, working: Working) -> list[Working]:
        """The living members of the order's group, without itself."""
        members = self._members.get(working.order.oca_group, ()) if working.order.oca_group else ()
        return [
            self._orders[member]
            for member in members
            if member != working.order.order_id and self._orders[member].alive
        ]
