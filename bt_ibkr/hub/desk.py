"""The hub's accounts: whose order, whose execution, whose position. Runs on the session's loop.

To the session's order desk this is one more broker, with one sink per account. What the desk tells is counted in
the books first and then handed to the strategy that it concerns, with the account's figures replaced by those of its
book.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Iterable
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from bt_ibkr.connection.interface import (
    AccountEvent,
    CommissionReported,
    Difference,
    ExecutionReported,
    LedgerChanged,
    OrderChanged,
    OrderFailed,
    OrderPlaced,
    Reconciled,
    SessionNotice,
    TradingChanged,
)
from bt_ibkr.desk.registry import Registry
from bt_ibkr.errors import BtIbkrError, JournalError, OrderRefusedError
from bt_ibkr.hub.bookkeeping import Bookkeeper
from bt_ibkr.hub.books import BookView, Transfer
from bt_ibkr.hub.names import FLATTEN, HUB_SUFFIX, book_name, owner_of
from bt_ibkr.hub.own import OwnBook
from bt_ibkr.hub.view import StrategyView
from bt_ibkr.hub.winding import WindingUp
from bt_ibkr.journal import Journal
from bt_ibkr.model.contract import Contract
from bt_ibkr.model.intent import OrderIntent, OrderState, parse_key
from bt_ibkr.model.order import Execution, OrderTicket, Side
from bt_ibkr.model.portfolio import LedgerLine
from bt_ibkr.services.datanames import parse_dataname

if TYPE_CHECKING:
    from bt_ibkr.hub.peers import Peer
    from bt_ibkr.hub.server import HubServer

_log = logging.getLogger(__name__)


class _AccountSink:
    """What the session's desk tells of one account. Until the books are open it is kept."""

    def __init__(self, account: str, route: Callable[[str, AccountEvent], None]) -> None:
        self._account = account
        self._route = route
        self._kept: list[AccountEvent] | None = []

    def append(self, item: AccountEvent) -> None:
        if self._kept is None:
            self._route(self._account, item)
        else:
            self._kept.append(item)

    def open(self) -> None:
        """From now on everything is handed on; first what was kept."""
        kept, self._kept = self._kept or [], None
        for item in kept:
            self._route(self._account, item)


class HubDesk:
    """Accounts, books and routing of one hub.

    Args:
        server: Whose.

    Attributes:
        view: What strategies see; once an account is attached.
        bookkeeper: Likewise.
    """

    def __init__(self, server: HubServer) -> None:
        self._server = server
        self._brokerage = server.brokerage
        self._sinks: dict[str, _AccountSink] = {}
        self._ledgers: dict[str, dict[str, LedgerLine]] = {}
        #: Strategies that were told something since it was noted last how far they have heard.
        self._fresh: set[str] = set()
        self.view: StrategyView
        self.bookkeeper: Bookkeeper
        self._opened = False

    # -- life ------------------------------------------------------------------------------------

    async def attach(self, account: str) -> None:
        """Read an account, open its books.

        Raises:
            BtIbkrError: It could not be read whole, or its journal is kept by another process.
        """
        sink = _AccountSink(account, self._safely_route)
        snapshot = await self._brokerage.attach(account, sink)
        if not self._opened:
            self._open_books()
        self._ledgers[account] = dict(snapshot.ledger)
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
        # A hub that died between an order of the kill switch and the books has left that undone.
        closed = self.bookkeeper.of(account).book(FLATTEN)
        for conid in closed.conids:
            self._share_flattening(
                account, conid, closed.average_price(conid), f"restart-{secrets.token_hex(4)}"
            )

    async def security_type(self, conid: int) -> str:
        """Of a contract that nobody may have looked up since the hub began.

        Raises:
            BtIbkrError: It could not be looked up.
        """
        contract = self._brokerage.contracts.known(conid)
        if contract is None:
            contract = await self._brokerage.resolve(parse_dataname(f"conid:{conid}"))
            self.know(contract)
        return contract.security_type.value

    def _open_books(self) -> None:
        journal, path = self.journal, None
        if journal.path is not None:
            path = Path(journal.path).with_name(Path(journal.path).name + ".books")
        self.bookkeeper = Bookkeeper(path, journal, self._brokerage.clock, self._brokerage.contracts.known)
        self._opened = True
        risk = self._brokerage.reception.view
        if risk is not None:
            risk.books = self._own_book
        self.view = StrategyView(self._brokerage, journal, self.bookkeeper, self._ledgers)

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

    def close(self) -> None:
        if self._opened:
            self.bookkeeper.close()

    def came(self, name: str) -> int | None:
        """A strategy is here; market time up to which the process before it has heard of everything."""
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

    def told_anew(self, name: str) -> None:
        """A strategy is about to be told where it stands."""
        self._fresh.add(name)

    def note_heard(self) -> None:
        """Note of which strategies it is certain that they have heard of everything."""
        heard = [
            name
            for name in self._fresh
            if (peer := self._server.peer(name)) is not None and peer.accounts and not peer.unheard
        ]
        if heard:
            self.bookkeeper.told(heard)
            self._fresh.difference_update(heard)

    # -- routing -------------------------------------------------------------------------------------

    def _safely_route(self, account: str, event: AccountEvent) -> None:
        """What goes wrong with one event must not keep the next from whom it concerns."""
        try:
            self._route(account, event)
        except Exception as problem:  # noqa: BLE001 - told to everybody
            _log.exception("hub-desk-failed account=%s event=%r", account, event)
            self._server.alarm("hub-desk-failed", f"{type(event).__name__} of {account}: {problem!r}")

    def _route(self, account: str, event: AccountEvent) -> None:
        if isinstance(event, ExecutionReported):
            self._take_execution(account, event)
        elif isinstance(event, CommissionReported):
            owner = self.bookkeeper.take_commission(event.execution)
            self._tell(owner, account, event)
            self._tell_share(owner, account)
        elif isinstance(event, OrderChanged):
            if event.key is None:
                self._tell_external(account, event)
            else:
                self._tell(owner_of(event.key), account, event)
        elif isinstance(event, LedgerChanged):
            self._ledgers[account].update((line.currency, line) for line in event.lines)
            for peer in self._attached(account):
                self._tell_ledger(peer, account)
        elif isinstance(event, Reconciled):
            self._take_reconciled(account, event)
        elif isinstance(event, TradingChanged):
            for peer in self._attached(account):
                peer.tell(type(event).__name__, event, account=account)
        else:
            parts = parse_key(event.key)
            if isinstance(event, OrderFailed) and parts is not None and parts.name.endswith(HUB_SUFFIX):
                self._server.alarm("wind-up-failed", f"Order {event.key} failed: {event.error}")
            self._tell(owner_of(event.key), account, event)

    def _attached(self, account: str) -> list[Peer]:
        return [peer for peer in self._server.peers if account in peer.accounts and not peer.left]

    def _tell(self, owner: str | None, account: str, event: AccountEvent) -> None:
        """The strategy that it concerns; the journal tells one that is not there, when it comes."""
        if owner is None:
            return
        self._fresh.add(owner)
        peer = self._server.peer(owner)
        if peer is not None and account in peer.accounts:
            peer.tell(type(event).__name__, event, account=account)

    def _tell_external(self, account: str, event: OrderChanged) -> None:
        for peer in self._attached(account):
            if peer.accounts[account]:
                peer.tell(type(event).__name__, event, account=account)

    def _take_execution(self, account: str, event: ExecutionReported) -> None:
        execution = event.execution
        owner = self.bookkeeper.take(execution, event.key, event.replaces)
        if owner == FLATTEN:
            self._share_flattening(account, execution.conid, execution.price, execution.execution_id)
            return
        if owner is None:
            # In nobody's book but "unallocated": strategies hear of it, and their positions stay.
            text = (
                f"{execution.side.value} {execution.quantity} {execution.symbol} at {execution.price:g} in "
                f"{account}: of no strategy of this hub (execution {execution.execution_id})."
            )
            for peer in self._attached(account):
                if peer.accounts[account]:
                    peer.tell("SessionNotice", SessionNotice("external-execution", text))
            return
        self._tell(owner, account, event)
        self._tell_share(owner, account)

    def _share_flattening(self, account: str, conid: int, price: float, execution_id: str) -> None:
        """The kill switch closed what all strategies hold together: each one's book is closed by its part.

        Once nothing is left in the account, what books hold against each other is closed at the same price.
        """
        books = self.bookkeeper.of(account)
        left = -books.book(FLATTEN).quantity(conid)
        if not left:
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

    def close_against_each_other(self) -> None:
        """All positions were to be closed: what books hold against each other, and the account not at all, is closed
        at the market's price without an order."""
        for account in self.accounts:
            books = self.bookkeeper.of(account)
            for conid in {one for name in books.names for one in books.book(name).conids}:
                holders = [name for name in books.names if books.book(name).quantity(conid)]
                if books.total(conid) or not holders:
                    continue
                tick = self._brokerage.market_data.latest(conid)
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
        try:
            self.bookkeeper.transfer(wanted)
        except JournalError as problem:
            self._server.alarm("books-unwritten", str(problem))
            return
        self._tell_moved(name, wanted, -moved, f"{execution_id}/{name}")

    def _take_reconciled(self, account: str, event: Reconciled) -> None:
        differences: tuple[Difference, ...] = ()
        if event.positions is not None:
            try:
                differences = self.bookkeeper.compare(account, event.positions)
            except JournalError as problem:
                self._server.alarm("books-unwritten", str(problem))
        for difference in differences:
            self._server.alarm("books-difference", difference.text)
        for peer in self._attached(account):
            positions = None if event.positions is None else self.view.positions(peer.name, account)
            told = msgspec.structs.replace(
                event, positions=positions, differences=(*event.differences, *differences)
            )
            peer.tell("Reconciled", told, account=account)

    def _tell_moved(self, name: str, transfer: Transfer, quantity: Decimal, execution_id: str) -> None:
        """A strategy's position moved without an order of its own: to it that is an external execution."""
        contract = self._brokerage.contracts.known(transfer.conid)
        execution = Execution(
            execution_id=execution_id,
            account=transfer.account,
            conid=transfer.conid,
            symbol=str(transfer.conid) if contract is None else contract.symbol,
            side=Side.BUY if quantity > 0 else Side.SELL,
            quantity=abs(quantity),
            price=transfer.price or 0.0,
            time_ns=self._brokerage.clock.now_ns(),
            commission=0.0,
        )
        self._tell(name, transfer.account, ExecutionReported(execution, None))
        self._tell_share(name, transfer.account)

    def _tell_share(self, owner: str | None, account: str) -> None:
        peer = None if owner is None else self._server.peer(owner)
        if peer is not None and peer.grant.cash is not None and account in peer.accounts:
            self._tell_ledger(peer, account)

    def _tell_ledger(self, peer: Peer, account: str) -> None:
        event = LedgerChanged(account, self.view.ledger(peer.name, peer.grant, account))
        peer.tell("LedgerChanged", event, account=account)

    # -- what a strategy sees ------------------------------------------------------------------------

    def know(self, contract: Contract) -> None:
        """A contract that was looked up: its multiplier is needed for profits."""
        if self._opened:
            self.bookkeeper.know(contract)

    def books(self) -> tuple[BookView, ...]:
        """All books of all accounts."""
        return tuple(view for account in self._sinks for view in self.bookkeeper.of(account).views())

    def transfer(self, wanted: Transfer) -> None:
        """See ``Bookkeeper.transfer``; both strategies are told."""
        done = self.bookkeeper.transfer(wanted)
        if done is None:
            return
        for name, quantity in ((done.source, -done.quantity), (done.target, done.quantity)):
            self._tell_moved(name, done, quantity, f"transfer-{done.reference}")

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
            self._tell(owner_of(key), account, OrderPlaced(key, order.order_id))
        elif order.state in (OrderState.REJECTED, OrderState.ABSENT):
            problem = OrderRefusedError(order.text or f"Order {key} was not sent.")
            self._tell(owner_of(key), account, OrderFailed(key, problem))

    async def wind_up(self, name: str, *, flatten: bool) -> None:
        """A strategy vanished: cancel its orders, and close its positions; it stops once the strategy is back."""

        def gone() -> bool:
            peer = self._server.peer(name)
            return peer is None or peer.lost

        try:
            await WindingUp(self, name, gone, self._server.alarm).run(flatten=flatten)
        except BtIbkrError as problem:
            self._server.alarm("wind-up-failed", f"Strategy {name}: {problem}")
            return
        if gone():
            self.bookkeeper.went(name)
