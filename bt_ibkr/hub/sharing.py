"""What the kill switch has closed, in the books: each strategy's book is closed by its part.

Runs on the session's loop.
"""

from __future__ import annotations

import secrets
from decimal import Decimal
from typing import TYPE_CHECKING

from bt_ibkr.errors import JournalError
from bt_ibkr.hub.books import Transfer
from bt_ibkr.hub.names import FLATTEN

if TYPE_CHECKING:
    from bt_ibkr.hub.desk import HubDesk
    from bt_ibkr.hub.server import HubServer


class Sharing:
    """See the module.

    Args:
        server: For alarms and prices.
        desk: Has the books.
    """

    def __init__(self, server: HubServer, desk: HubDesk) -> None:
        self._server = server
        self._desk = desk

    def left_undone(self, account: str) -> None:
        """A hub that died between an order of the kill switch and the books has left their part undone."""
        closed = self._desk.bookkeeper.of(account).book(FLATTEN)
        for conid in closed.conids:
            self.share(account, conid, closed.average_price(conid), f"restart-{secrets.token_hex(4)}")

    def share(self, account: str, conid: int, price: float, execution_id: str) -> None:
        """The kill switch closed what all strategies hold together: each one's book is closed by its part.

        Once nothing is left in the account, what books hold against each other is closed at the same price.
        """
        books = self._desk.bookkeeper.of(account)
        left = -books.book(FLATTEN).quantity(conid)
        if not left:
            return
        other = self._server.brokerage.opposites.pairs.get(conid)
        if other is not None and left < 0:
            self._give(account, conid, other, price, execution_id)
            return
        flat = not books.total(conid)
        holders = sorted(
            (name for name in books.names if name != FLATTEN),
            key=lambda name: -abs(books.book(name).quantity(conid)),
        )
        for name in holders:
            held = books.book(name).quantity(conid)
            moved = held if flat else min(held, left, key=abs) if held * left > 0 else Decimal(0)
            if moved:
                left -= moved
                self._close_part(account, name, conid, price, moved, execution_id)

    def _give(self, account: str, conid: int, other: int, price: float, execution_id: str) -> None:
        """What can only be bought was closed by buying the other answer: it goes to those who hold the one."""
        books = self._desk.bookkeeper.of(account)
        surplus = {
            name: books.book(name).quantity(other) - books.book(name).quantity(conid)
            for name in books.names
            if name != FLATTEN
        }
        for name in sorted(surplus, key=lambda name: -surplus[name]):
            moved = min(surplus[name], books.book(FLATTEN).quantity(conid))
            if moved > 0:
                wanted = Transfer(
                    account=account, conid=conid, source=FLATTEN, target=name, quantity=moved, price=price
                )
                self._move(wanted, name, moved, f"{execution_id}/{name}")

    def net(self) -> None:
        """All positions were to be closed: what books hold against each other, and the account not at all, is closed
        at the market's price without an order."""
        for account in self._desk.accounts:
            books = self._desk.bookkeeper.of(account)
            for conid in {one for name in books.names for one in books.book(name).conids}:
                holders = [name for name in books.names if books.book(name).quantity(conid)]
                if books.total(conid) or not holders:
                    continue
                tick = self._server.brokerage.market_data.latest(conid)
                price = books.book(holders[0]).average_price(conid)
                if tick is not None and tick.last is not None:
                    price = tick.last
                for name in holders:
                    moved = books.book(name).quantity(conid)
                    self._close_part(account, name, conid, price, moved, f"netted-{secrets.token_hex(4)}")

    def _close_part(
        self, account: str, name: str, conid: int, price: float, moved: Decimal, execution_id: str
    ) -> None:
        wanted = Transfer(
            account=account,
            conid=conid,
            source=name,
            target=FLATTEN,
            quantity=moved,
            price=price,
        )
        self._move(wanted, name, -moved, f"{execution_id}/{name}")

    def _move(self, wanted: Transfer, name: str, quantity: Decimal, execution_id: str) -> None:
        try:
            self._desk.bookkeeper.transfer(wanted)
        except JournalError as problem:
            self._server.alarm("books-unwritten", str(problem))
            return
        self._desk.telling.tell_moved(name, wanted, quantity, execution_id)
