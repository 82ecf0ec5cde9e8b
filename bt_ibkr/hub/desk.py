"""The hub's accounts: whose order, whose execution, whose position. Runs on the session's loop.

To the session's order desk this is one more broker, with one sink per account. What the desk tells is counted in
the books first and then handed to the strategy that it concerns, with the account's figures replaced by those of its
book.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from bt_ibkr.clock import NS_PER_S
from bt_ibkr.connection.interface import (
    AccountEvent,
    AccountSnapshot,
    CommissionReported,
    Difference,
    ExecutionReported,
    LedgerChanged,
    OrderChanged,
    OrderPlaced,
    Reconciled,
    SessionNotice,
    StandingOrder,
    TradingChanged,
)
from bt_ibkr.errors import NotArmedError, OrderRefusedError
from bt_ibkr.hub.access import Grant
from bt_ibkr.hub.bookkeeping import Bookkeeper
from bt_ibkr.hub.books import BookView, Transfer
from bt_ibkr.hub.names import HUB_SUFFIX, book_name, owner_of
from bt_ibkr.hub.requests import CaughtUp, OrderKnown
from bt_ibkr.journal import Journal, JournalOrder
from bt_ibkr.model.contract import Contract
from bt_ibkr.model.intent import OPEN, UNPROVEN, OrderIntent, OrderState, make_key
from bt_ibkr.model.order import Execution, OrderStatus, OrderTicket, OrderType, Side, TimeInForce
from bt_ibkr.model.portfolio import LedgerLine, Position

if TYPE_CHECKING:
    from bt_ibkr.hub.peers import Peer
    from bt_ibkr.hub.server import HubServer

_log = logging.getLogger(__name__)

#: Whose orders close all positions of an account: the kill switch's.
_FLATTEN: Final = "flatten"
#: Executions of so long ago are told to a strategy that begins.
_DAY_NS: Final = 86_400 * NS_PER_S
#: Seconds that cancelled orders are given to end before a book is closed.
_ENDS_S: Final = 10.0
_STATUSES: Final = {
    OrderState.WORKING: OrderStatus.SUBMITTED,
    OrderState.FILLED: OrderStatus.FILLED,
    OrderState.CANCELLED: OrderStatus.CANCELLED,
    OrderState.EXPIRED: OrderStatus.CANCELLED,
    OrderState.REJECTED: OrderStatus.FAILED,
}


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
    """

    def __init__(self, server: HubServer) -> None:
        self._server = server
        self._brokerage = server.brokerage
        self._sinks: dict[str, _AccountSink] = {}
        self._ledgers: dict[str, dict[str, LedgerLine]] = {}
        self._bookkeeper: Bookkeeper | None = None
        #: Orders that ended while no hub ran, for strategies that have not come yet.
        self._left: dict[str, list[StandingOrder]] = {}
        #: Market time up to which a strategy was told everything.
        self._told_ns: dict[str, int] = {}

    # -- life ------------------------------------------------------------------------------------

    async def attach(self, account: str) -> None:
        """Read an account, open its books.

        Raises:
            BtIbkrError: It could not be read whole, or its journal is kept by another process.
        """
        sink = _AccountSink(account, self._route)
        snapshot = await self._brokerage.attach(account, sink)
        self._sinks[account] = sink
        self._ledgers[account] = dict(snapshot.ledger)
        differences = self._books_kept().open(account, snapshot.positions)
        for standing in snapshot.standing:
            if not standing.open and (name := owner_of(standing.intent.key)) is not None:
                self._left.setdefault(name, []).append(standing)
        for difference in (*snapshot.differences, *differences):
            _log.warning("hub-difference %s", difference.text)
        sink.open()

    def _books_kept(self) -> Bookkeeper:
        if self._bookkeeper is None:
            journal = self.journal
            path: Path | None = None
            if journal.path is not None:
                path = journal.path.with_name(journal.path.name + ".books")
            self._bookkeeper = Bookkeeper(
                path, journal, self._brokerage.clock, self._brokerage.contracts.known
            )
        return self._bookkeeper

    @property
    def journal(self) -> Journal:
        """The record of all orders."""
        desk = self._brokerage.desk
        assert desk is not None
        return desk.journal

    @property
    def accounts(self) -> tuple[str, ...]:
        return tuple(self._sinks)

    def close(self) -> None:
        if self._bookkeeper is not None:
            self._bookkeeper.close()

    # -- routing -------------------------------------------------------------------------------------

    def _route(self, account: str, event: AccountEvent) -> None:
        if isinstance(event, ExecutionReported):
            self._take_execution(account, event)
        elif isinstance(event, CommissionReported):
            owner = self._books_kept().take_commission(event.execution)
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
            self._tell(owner_of(event.key), account, event)

    def _attached(self, account: str) -> list[Peer]:
        return [peer for peer in self._server.peers if account in peer.accounts and not peer.left]

    def _tell(self, owner: str | None, account: str, event: AccountEvent) -> None:
        """The strategy that it concerns; the journal tells one that is not there, when it comes."""
        peer = None if owner is None else self._server.peer(owner)
        if peer is not None and account in peer.accounts:
            peer.tell(type(event).__name__, event, account=account)

    def _tell_external(self, account: str, event: OrderChanged) -> None:
        for peer in self._attached(account):
            if peer.accounts[account]:
                peer.tell(type(event).__name__, event, account=account)

    def _take_execution(self, account: str, event: ExecutionReported) -> None:
        execution = event.execution
        owner = self._books_kept().take(execution, event.key, event.replaces)
        if owner_of(event.key) == _FLATTEN:
            self._share_flattening(account, execution)
            return
        if event.key is None:
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

    def _share_flattening(self, account: str, execution: Execution) -> None:
        """The kill switch closed what all strategies hold together: each one's book is closed by its part."""
        books = self._books_kept().of(account)
        left = execution.quantity * execution.side.sign
        holders = sorted(
            (name for name in books.names if name != _FLATTEN),
            key=lambda name: -abs(books.book(name).quantity(execution.conid)),
        )
        for name in holders:
            held = books.book(name).quantity(execution.conid)
            if not left or held * left >= 0:
                continue
            moved = held if abs(held) <= abs(left) else -left
            self._books_kept().transfer(
                Transfer(
                    account=account,
                    conid=execution.conid,
                    source=name,
                    target=_FLATTEN,
                    quantity=moved,
                    price=execution.price,
                )
            )
            left += moved
            peer = self._server.peer(name)
            if peer is not None and account in peer.accounts:
                self._tell_positions(
                    peer, account, f"{moved} of {execution.symbol} were closed for everybody"
                )

    def _take_reconciled(self, account: str, event: Reconciled) -> None:
        differences: tuple[Difference, ...] = event.differences
        if event.positions is not None:
            differences += self._books_kept().compare(account, event.positions)
        for difference in differences:
            self._server.alarm("books-difference", difference.text)
        for peer in self._attached(account):
            positions = None if event.positions is None else self.positions(peer.name, account)
            told = msgspec.structs.replace(event, positions=positions, differences=differences)
            peer.tell("Reconciled", told, account=account)

    def _tell_positions(self, peer: Peer, account: str, cause: str) -> None:
        peer.tell(
            "Reconciled",
            Reconciled(
                account=account,
                cause=cause,
                time_ns=self._brokerage.clock.now_ns(),
                complete=True,
                positions=self.positions(peer.name, account),
            ),
            account=account,
        )

    def _tell_share(self, owner: str | None, account: str) -> None:
        peer = None if owner is None else self._server.peer(owner)
        if peer is not None and peer.grant.cash is not None and account in peer.accounts:
            self._tell_ledger(peer, account)

    def _tell_ledger(self, peer: Peer, account: str) -> None:
        event = LedgerChanged(account, self.ledger(peer.name, peer.grant, account))
        peer.tell("LedgerChanged", event, account=account)

    # -- what a strategy sees ------------------------------------------------------------------------

    def know(self, contract: Contract) -> None:
        """A contract that was looked up: its multiplier is needed for profits."""
        if self._bookkeeper is not None:
            self._bookkeeper.know(contract)

    def placed(self, intents: Iterable[OrderIntent]) -> None:
        """Orders that are about to be sent."""
        for intent in intents:
            self._books_kept().placed(intent)

    def positions(self, name: str, account: str) -> tuple[Position, ...]:
        """Of a strategy's book."""
        book = self._books_kept().of(account).book(name)
        found = []
        for holding in book.view().holdings:
            if not holding.quantity:
                continue
            contract = self._brokerage.contracts.known(holding.conid)
            multiplier = self._books_kept().of(account).multiplier(holding.conid)
            found.append(
                Position(
                    account=account,
                    conid=holding.conid,
                    symbol="" if contract is None else contract.symbol,
                    quantity=holding.quantity,
                    average_price=holding.average_price,
                    average_cost=holding.average_price * multiplier,
                    market_price=None,
                    market_value=None,
                    currency="" if contract is None else contract.currency,
                    security_type="" if contract is None else contract.security_type.value,
                    realized_pnl=holding.realised,
                )
            )
        return tuple(found)

    def ledger(self, name: str, grant: Grant, account: str) -> tuple[LedgerLine, ...]:
        """The account's cash, or the strategy's share of it and what its trading moved."""
        lines = self._ledgers[account]
        if grant.cash is None:
            return tuple(lines.values())
        base = next((line for line in lines.values() if line.exchange_rate == 1.0), None)
        if base is None:
            return tuple(lines.values())
        cash = grant.cash
        held = 0.0
        for holding in self._books_kept().of(account).book(name).view().holdings:
            contract = self._brokerage.contracts.known(holding.conid)
            line = None if contract is None else lines.get(contract.currency)
            rate = 1.0 if line is None else line.exchange_rate
            if contract is not None and contract.security_type.value in ("FUT", "FOP"):
                # Margined: only profit moves cash.
                cash += (holding.realised - holding.commission) * rate
                continue
            cash += holding.flow * rate
            tick = self._brokerage.market_data.latest(holding.conid)
            price = holding.average_price if tick is None or tick.last is None else tick.last
            multiplier = self._books_kept().of(account).multiplier(holding.conid)
            held += float(holding.quantity) * price * multiplier * rate
        share = msgspec.structs.replace(
            base,
            cash=cash,
            settled_cash=None,
            net_liquidation=cash + held,
            stock_value=held,
            time_ns=self._brokerage.clock.now_ns(),
        )
        rates = [
            msgspec.structs.replace(line, cash=0.0, settled_cash=None, net_liquidation=None)
            for line in lines.values()
            if line is not base and line.currency != "BASE"
        ]
        return (share, *rates)

    def snapshot(self, peer: Peer, account: str) -> AccountSnapshot:
        """What a strategy that begins is told of an account."""
        journal = self.journal
        peer.grant.check_account(peer.name, account)
        if account not in self._sinks:
            raise NotArmedError(
                f"The hub does not trade in account {account}.",
                remedy=f"It trades in {', '.join(self._sinks) or 'none'}: set accounts in its configuration.",
            )
        now_ns = self._brokerage.clock.now_ns()
        executions = [
            row.execution
            for row in journal.executions(account=account, since_ns=now_ns - _DAY_NS)
            if not row.superseded and owner_of(row.key) == peer.name
        ]
        desk = self._brokerage.desk
        assert desk is not None
        external = desk.external_orders(account) if peer.accounts.get(account) else ()
        return AccountSnapshot(
            positions=self.positions(peer.name, account),
            executions=tuple(executions),
            orders=external,
            ledger={line.currency: line for line in self.ledger(peer.name, peer.grant, account)},
            standing=self._standing(peer.name, account),
            epoch=journal.epoch,
            sequences=dict(journal.next_sequences()),
            trading=journal.trading_state(),
        )

    def _standing(self, name: str, account: str) -> tuple[StandingOrder, ...]:
        """A strategy's open orders, and those that ended while it was away."""
        since_ns = self._told_ns.pop(name, None)
        orders = [one for one in self.journal.orders(open_only=True) if owner_of(one.key) == name]
        found = [self._one_standing(one) for one in orders if one.intent.ticket.account == account]
        ended = [one for one in self._left.pop(name, []) if one.intent.ticket.account == account]
        known = {one.intent.key for one in (*found, *ended)}
        if since_ns is not None:
            ended += [
                self._one_standing(one)
                for one in self.journal.orders(since_ns=since_ns)
                if owner_of(one.key) == name
                and not one.is_open
                and one.key not in known
                and one.intent.ticket.account == account
            ]
        return (*found, *ended)

    def _one_standing(self, order: JournalOrder) -> StandingOrder:
        return StandingOrder(
            intent=order.intent,
            order_id=order.order_id,
            status=_STATUSES.get(order.state),
            executions=tuple(
                row.execution for row in self.journal.executions(key=order.key) if not row.superseded
            ),
            open=order.state in OPEN,
            known=order.state not in (OrderState.ABSENT, *UNPROVEN),
        )

    def gone(self, name: str) -> None:
        """A strategy was told of everything up to now, and is not there any more."""
        self._told_ns[name] = self._brokerage.clock.now_ns()

    def caught_up(self, peer: Peer, account: str, keys: Sequence[str]) -> CaughtUp:
        """What became of orders while the strategy's hub was another one."""
        orders: list[OrderKnown] = []
        executions: list[tuple[str, Execution]] = []
        for key in keys:
            if owner_of(key) != peer.name or (order := self.journal.order(key)) is None:
                continue
            orders.append(
                OrderKnown(
                    key=key,
                    state=order.state,
                    order_id=order.order_id,
                    ticket=order.intent.ticket,
                    text=order.text,
                )
            )
            executions.extend(
                (key, row.execution) for row in self.journal.executions(key=key) if not row.superseded
            )
        return CaughtUp(
            orders=tuple(orders),
            executions=tuple(executions),
            positions=self.positions(peer.name, account),
            ledger=self.ledger(peer.name, peer.grant, account),
            trading=self.journal.trading_state(),
        )

    def books(self) -> tuple[BookView, ...]:
        """All books of all accounts."""
        if self._bookkeeper is None:
            return ()
        return tuple(view for account in self._sinks for view in self._bookkeeper.of(account).views())

    def transfer(self, wanted: Transfer) -> None:
        """See ``Bookkeeper.transfer``; both strategies are told of their new positions."""
        self._books_kept().transfer(wanted)
        for name in (wanted.source, wanted.target):
            peer = self._server.peer(name)
            if peer is not None and wanted.account in peer.accounts:
                text = f"{wanted.quantity} of {wanted.conid} went from {wanted.source} to {wanted.target}"
                self._tell_positions(peer, wanted.account, text)

    # -- orders --------------------------------------------------------------------------------------

    async def place(
        self, intents: tuple[OrderIntent, ...], recorded: Callable[[], None] | None = None
    ) -> None:
        """Orders of one submission; the answers go to whose they are.

        Args:
            recorded: Called once they are on record.
        """
        self.placed(intents)
        await self._brokerage.place(intents, self._sinks[intents[0].ticket.account], recorded)

    async def modify(self, key: str, ticket: OrderTicket) -> None:
        """See ``Connection.modify``."""
        await self._brokerage.modify(key, ticket, self._sinks[ticket.account])

    async def cancel(self, key: str) -> None:
        """See ``Connection.cancel``."""
        order = self.journal.order(key)
        if order is None:
            raise OrderRefusedError(f"There is no order {key}.")
        await self._brokerage.cancel(key, self._sinks[order.intent.ticket.account])

    def knows(self, key: str) -> bool:
        """Whether an order was written down, by this hub or one before it."""
        return self.journal.order(key) is not None

    def tell_again(self, key: str) -> None:
        """Where an order stands, to its strategy: it asked to place it a second time."""
        order = self.journal.order(key)
        if order is not None and order.order_id is not None:
            account = order.intent.ticket.account
            self._tell(owner_of(key), account, OrderPlaced(key, order.order_id))

    async def wind_up(self, name: str, *, flatten: bool) -> None:
        """A strategy vanished: cancel its orders, and close its positions."""
        open_orders = [one for one in self.journal.orders(open_only=True) if owner_of(one.key) == name]
        self._server.alarm(
            "strategy-vanished",
            f"Strategy {name} is gone: {len(open_orders)} orders are cancelled"
            + (", its positions closed." if flatten else "."),
        )
        desk = self._brokerage.desk
        assert desk is not None
        ends = []
        for order in open_orders:
            tracked = desk.registry.get(order.key)
            if tracked is not None:
                ends.append(asyncio.ensure_future(tracked.ended.wait()))
            await self.cancel(order.key)
        if ends:
            _, left = await asyncio.wait(ends, timeout=_ENDS_S)
            for one in left:
                one.cancel()
        if not flatten:
            return
        sequence = self.journal.next_sequences().get(name + HUB_SUFFIX, 1)
        for account in self.accounts:
            for position in self.positions(name, account):
                intent = _closing(position, make_key(name + HUB_SUFFIX, self.journal.epoch, sequence))
                sequence += 1
                await self.place((intent,))


def _closing(position: Position, key: str) -> OrderIntent:
    """The order that closes what a book holds, at the market."""
    return OrderIntent(
        key=key,
        strategy=book_name(key.partition(".")[0]),
        ticket=OrderTicket(
            account=position.account,
            contract_id=position.conid,
            security_type=position.security_type or "STK",
            side=Side.SELL if position.quantity > 0 else Side.BUY,
            order_type=OrderType.MARKET,
            quantity=Decimal(abs(position.quantity)),
            time_in_force=TimeInForce.DAY,
            client_order_id=key,
            protective=True,
        ),
    )
