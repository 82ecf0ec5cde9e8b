"""A strategy's own book, for limits that are set for it."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import TYPE_CHECKING

from bt_ibkr.hub.bookkeeping import Bookkeeper
from bt_ibkr.hub.names import owner_of
from bt_ibkr.risk import OpenOrder

if TYPE_CHECKING:
    from bt_ibkr.desk.view import SessionView


class OwnBook:
    """See ``risk.Book``.

    Args:
        name: The book's.
        bookkeeper: Has its positions.
        view: Has the orders.
    """

    def __init__(self, name: str, bookkeeper: Bookkeeper, view: SessionView) -> None:
        self._name = name
        self._bookkeeper = bookkeeper
        self._view = view

    @property
    def name(self) -> str:
        return self._name

    def position(self, account: str, conid: int) -> Decimal | None:
        if account not in self._bookkeeper.accounts:
            return None
        return self._view.net(conid, self._bookkeeper.of(account).book(self._name).quantity)

    def open_orders(self, account: str, conid: int) -> Sequence[OpenOrder]:
        return self._view.own_orders(account, conid, lambda key: owner_of(key) == self._name)
