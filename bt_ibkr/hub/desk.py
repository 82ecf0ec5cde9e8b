"""The hub's accounts: whose order, whose execution, whose position. Runs on the session's loop.

To the session's order desk this is one more broker, with one sink per account; what the desk tells goes through
``routing``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from bt_ibkr.connection.interface import OrderFailed, OrderPlaced, Reconciled
from bt_ibkr.desk.closing import Opposite
from bt_ibkr.desk.registry import Registry
from bt_ibkr.errors import BtIbkrError, OrderRefusedError
from bt_ibkr.hub.bookkeeping import Bookkeeper
from bt_ibkr.hub.books import BookView, Transfer
from bt_ibkr.hub.names import FLATTEN, UNALLOCATED, book_name, check_name, owner_of
from bt_ibkr.hub.own import OwnBook
from bt_ibkr.hub.routing import AccountSink, Routing
from bt_ibkr.hub.sharing import Sharing
from bt_ibkr.hub.telling import Telling
from bt_ibkr.hub.view import StrategyView
from bt_ibkr.hub.winding import WindingsUp
from bt_ibkr.journal import Journal
from bt_ibkr.model.contract import Contract
from bt_ibkr.model.intent import OrderIntent, OrderState
from bt_ibkr.model.order import OrderTicket
from bt_ibkr.model.portfolio import LedgerLine, Position
from bt_ibkr.services.datanames import parse_dataname

if TYPE_CHECKING:
    from bt_ibkr.hub.server import HubServer

_log = logging.getLogger(__name__)


class HubDesk:
    """Accounts, books and routing of one hub.

    Args:
        server: Whose.

    Attributes:
        ledgers: The accounts' cash as IBKR told it last, by account and currency.
        telling: Who is told what.
        sharing: What the kill switch has closed.
        view: What strategies see; once an account is attached.
        bookkeeper: Likewise.
    """

    def __init__(self, server: HubServer) -> None:
        self._server = server
        self._brokerage = server.brokerage
        self._sinks: dict[str, AccountSink] = {}
        self.ledgers: dict[str, dict[str, LedgerLine]] = {}
        self.telling = Telling(server, self)
        self.sharing = Sharing(server, self)
        self._routing = Routing(server, self)
        self._windings = WindingsUp(self, self._absent, server.alarm)
        self.view: StrategyView
        self.bookkeeper: Bookkeeper
        self._opened = False

    # -- life ------------------------------------------------------------------------------------

    async def attach(self, account: str) -> None:
        """Read an account, open its books.

        Raises:
            BtIbkrError: It could not be read whole, or its journal is kept by another process.
        """
        sink = AccountSink(account, self._routing.route)
        snapshot = await self._brokerage.attach(account, sink)
        if not self._opened:
            self._open_books()
        self.ledgers[account] = dict(snapshot.ledger)
        differences = self.bookkeeper.open(account, snapshot.positions)
        self._sinks[account] = sink
        if self.bookkeeper.begun_anew(account):
            self._server.alarm(
                "books-anew",
                f"The books of {account} were begun anew beside a journal that has executions: all positions are in "
                "the book unallocated. Move them to their strategies with bt-ibkr hub transfer.",
            )
        for difference in (*snapshot.differences, *differences):
            _log.warning("hub-difference %s", difference.text)
        sink.open()
        self.sharing.left_undone(account)
        self._routing.look_again(account)

    def _open_books(self) -> None:
        journal, path = self.journal, None
        if journal.path is not None:
            path = Path(journal.path).with_name(Path(journal.path).name + ".books")
        self.bookkeeper = Bookkeeper(path, journal, self._brokerage.clock, self._brokerage.contracts.known)
        self._opened = True
        risk = self._brokerage.reception.view
        if risk is not None:
            risk.books = self._own_book
        self.view = StrategyView(self._brokerage, journal, self.bookkeeper, self.ledgers)

    def _own_book(self, strategy: str) -> OwnBook | None:
        """For the strategy's limits; who closes everything does it for the account."""
        risk = self._brokerage.reception.view
        if strategy == FLATTEN or risk is None:
            return None
        return OwnBook(book_name(strategy), self.bookkeeper, risk)

    @property
    def journal(self) -> Journal:
        """The record of all orders."""
        desk = self._brokerage.desk
        assert desk is not None
        return desk.journal

    @property
    def registry(self) -> Registry:
        """The orders of this session, and those that earlier ones left."""
        desk = self._brokerage.desk
        assert desk is not None
        return desk.registry

    @property
    def accounts(self) -> tuple[str, ...]:
        return tuple(self._sinks)

    @property
    def accounts_read(self) -> bool:
        """The session is up, and after its last break all accounts were read again."""
        desk = self._brokerage.desk
        return desk is not None and self._server.connected and desk.ready

    @property
    def flattening(self) -> bool:
        """The kill switch is closing all positions."""
        desk = self._brokerage.desk
        return desk is not None and desk.flattening

    async def read_account(self, account: str) -> Reconciled:
        """Read an account again: whatever IBKR tells of its executions is in the books then."""
        desk = self._brokerage.desk
        assert desk is not None
        return await desk.reconcile(account, "a strategy is wound up")

    @property
    def opposite(self) -> Opposite:
        """Finds what closes positions that cannot be sold."""
        return self._brokerage.opposites

    async def typed(self, positions: Iterable[Position]) -> tuple[Position, ...]:
        """Positions of a book, with the types of contracts that nobody may have looked up since the hub began.

        What cannot be looked up is told, and left out.
        """
        found = []
        for position in positions:
            if not position.security_type:
                try:
                    contract = await self._brokerage.resolve(parse_dataname(f"conid:{position.conid}"))
                except BtIbkrError as problem:
                    self._server.alarm(
                        "wind-up-failed",
                        f"{position.quantity:f} of contract {position.conid} in {position.account} are NOT closed: "
                        f"{problem}",
                    )
                    continue
                self.know(contract)
                position = msgspec.structs.replace(
                    position, symbol=contract.symbol, security_type=contract.security_type.value
                )
            found.append(position)
        return tuple(found)

    def close(self) -> None:
        if self._opened:
            self.bookkeeper.close()

    def came(self, name: str) -> int | None:
        """A strategy is here; market time up to which the process before it has heard of everything."""
        self._windings.came(name)
        if not self._opened:
            return None
        told_ns = self.bookkeeper.told_ns(name)
        self.bookkeeper.came(name)
        return told_ns

    def went(self, name: str) -> None:
        """It said goodbye, or was dealt with: it has not vanished."""
        if self._opened:
            self.bookkeeper.went(name)

    def expected(self) -> tuple[str, ...]:
        """Strategies that were here, also with an earlier hub, and have not said goodbye."""
        return self.bookkeeper.expected() if self._opened else ()

    # -- what a strategy sees ------------------------------------------------------------------------

    def know(self, contract: Contract) -> None:
        """A contract that was looked up: its multiplier is needed for profits."""
        if self._opened:
            self.bookkeeper.know(contract)

    def books(self) -> tuple[BookView, ...]:
        """All books of all accounts."""
        return tuple(view for account in self._sinks for view in self.bookkeeper.of(account).views())

    def transfer(self, wanted: Transfer) -> None:
        """See ``Bookkeeper.transfer``; both strategies are told.

        Raises:
            UsageError: No strategy can have the name that is to get it: nobody could do anything with it.
        """
        if wanted.target != UNALLOCATED:
            check_name(wanted.target)
        done = self.bookkeeper.transfer(wanted)
        if done is None:
            return
        for name, quantity in ((done.source, -done.quantity), (done.target, done.quantity)):
            self.telling.tell_moved(name, done, quantity, f"transfer-{done.reference}")

    # -- orders --------------------------------------------------------------------------------------

    async def place(
        self, intents: tuple[OrderIntent, ...], recorded: Callable[[], None] | None = None
    ) -> None:
        """Orders of one submission; the answers go to whose they are.

        Args:
            recorded: Called once they are on record.
        """
        for intent in intents:
            self.bookkeeper.placed(intent)
        await self._brokerage.place(intents, self._sinks[intents[0].ticket.account], recorded)

    async def modify(self, key: str, ticket: OrderTicket) -> None:
        """See ``Connection.modify``.

        Raises:
            OrderRefusedError: There is no such order, or it is of another account.
        """
        order = self.journal.order(key)
        if order is None or order.intent.ticket.account != ticket.account:
            raise OrderRefusedError(f"There is no order {key} in account {ticket.account}.")
        await self._brokerage.modify(key, ticket, self._sinks[ticket.account])

    async def cancel(self, key: str) -> None:
        """See ``Connection.cancel``.

        Raises:
            OrderRefusedError: There is no such order.
        """
        order = self.journal.order(key)
        if order is None:
            raise OrderRefusedError(f"There is no order {key}.")
        await self._brokerage.cancel(key, self._sinks[order.intent.ticket.account])

    def recorded(self, intents: Iterable[OrderIntent]) -> bool:
        """Whether these orders were written down, by this hub or one before it: a submission is as a whole.

        Raises:
            OrderRefusedError: One of their keys is of another order.
        """
        found = False
        for intent in intents:
            order = self.journal.order(intent.key)
            if order is None:
                continue
            found = True
            theirs, ours = intent.ticket, order.intent.ticket
            if (theirs.account, theirs.contract_id, theirs.side) != (
                ours.account,
                ours.contract_id,
                ours.side,
            ):
                raise OrderRefusedError(
                    f"The key {intent.key} is of another order, {ours.side.value} {ours.quantity} of "
                    f"{ours.contract_id} in {ours.account}: nothing was sent.",
                    remedy="Attach the account again: the answer tells the next number.",
                )
        return found

    def tell_again(self, key: str) -> None:
        """Where an order stands, to its strategy: it asked to place it a second time."""
        order = self.journal.order(key)
        if order is None:
            return
        account = order.intent.ticket.account
        if order.order_id is not None:
            self.telling.tell(owner_of(key), account, OrderPlaced(key, order.order_id))
        elif order.state in (OrderState.REJECTED, OrderState.ABSENT):
            problem = OrderRefusedError(order.text or f"Order {key} was not sent.")
            self.telling.tell(owner_of(key), account, OrderFailed(key, problem))

    async def wind_up(self, name: str, *, flatten: bool) -> None:
        """A strategy vanished: see ``WindingsUp``."""
        if await self._windings.wind_up(name, flatten=flatten):
            self.bookkeeper.went(name)

    def _absent(self, name: str) -> bool:
        peer = self._server.peer(name)
        return peer is None or peer.lost
