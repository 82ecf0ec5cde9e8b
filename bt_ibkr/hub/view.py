"""What a strategy sees of an account: positions of its book, its cash, its orders. Runs on the session's loop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from bt_ibkr.clock import NS_PER_S
from bt_ibkr.connection.brokerage import Brokerage
from bt_ibkr.connection.interface import AccountSnapshot, StandingOrder
from bt_ibkr.errors import NotArmedError
from bt_ibkr.hub.access import Grant
from bt_ibkr.hub.bookkeeping import Bookkeeper
from bt_ibkr.hub.names import owner_of
from bt_ibkr.hub.peers import Peer
from bt_ibkr.hub.requests import CaughtUp, OrderKnown
from bt_ibkr.journal import Journal, JournalOrder
from bt_ibkr.model.intent import OPEN, UNPROVEN, OrderState
from bt_ibkr.model.order import Execution, OrderStatus
from bt_ibkr.model.portfolio import LedgerLine, Position

#: Executions of so long ago are told to a strategy that begins.
_DAY_NS: Final = 86_400 * NS_PER_S
#: Only profit moves cash: nothing is paid for the position.
_MARGINED: Final = frozenset({"FUT", "FOP"})
_STATUSES: Final = {
    OrderState.WORKING: OrderStatus.SUBMITTED,
    OrderState.FILLED: OrderStatus.FILLED,
    OrderState.CANCELLED: OrderStatus.CANCELLED,
    OrderState.EXPIRED: OrderStatus.CANCELLED,
    OrderState.REJECTED: OrderStatus.FAILED,
}


class StrategyView:
    """Makes a strategy's account of its book and the journal.

    Args:
        brokerage: The session.
        journal: The record of all orders.
        bookkeeper: Has the books.
        ledgers: The accounts' cash as IBKR told it last, by account and currency.
    """

    def __init__(
        self,
        brokerage: Brokerage,
        journal: Journal,
        bookkeeper: Bookkeeper,
        ledgers: dict[str, dict[str, LedgerLine]],
    ) -> None:
        self._brokerage = brokerage
        self._journal = journal
        self._bookkeeper = bookkeeper
        self._ledgers = ledgers

    def positions(self, name: str, account: str) -> tuple[Position, ...]:
        """Of a strategy's book."""
        books = self._bookkeeper.of(account)
        found = []
        for holding in books.book(name).view().holdings:
            if not holding.quantity:
                continue
            contract = self._brokerage.contracts.known(holding.conid)
            found.append(
                Position(
                    account=account,
                    conid=holding.conid,
                    symbol="" if contract is None else contract.symbol,
                    quantity=holding.quantity,
                    average_price=holding.average_price,
                    average_cost=holding.average_price * books.multiplier(holding.conid),
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
        named = [line for line in lines.values() if line.currency != "BASE"]
        base = next((line for line in named if line.exchange_rate == 1.0), lines.get("BASE"))
        if grant.cash is None or base is None:
            return tuple(lines.values())
        moved, held = self._moved(name, account, lines)
        share = msgspec.structs.replace(
            base,
            cash=grant.cash + moved,
            settled_cash=None,
            net_liquidation=grant.cash + moved + held,
            stock_value=held,
            time_ns=self._brokerage.clock.now_ns(),
        )
        rates = [
            msgspec.structs.replace(line, cash=0.0, settled_cash=None, net_liquidation=None)
            for line in named
            if line is not base
        ]
        return (share, *rates)

    def _moved(self, name: str, account: str, lines: dict[str, LedgerLine]) -> tuple[float, float]:
        """What a book's trading has moved in cash, and what its positions are worth, in the base currency."""
        books = self._bookkeeper.of(account)
        moved = held = 0.0
        for holding in books.book(name).view().holdings:
            contract = self._brokerage.contracts.known(holding.conid)
            line = None if contract is None else lines.get(contract.currency)
            rate = 1.0 if line is None else line.exchange_rate
            tick = self._brokerage.market_data.latest(holding.conid)
            price = holding.average_price if tick is None or tick.last is None else tick.last
            value = float(holding.quantity) * books.multiplier(holding.conid)
            if contract is not None and contract.security_type.value in _MARGINED:
                moved += (holding.realised - holding.commission) * rate
                held += value * (price - holding.average_price) * rate
            else:
                moved += holding.flow * rate
                held += value * price * rate
        return moved, held

    # -- orders --------------------------------------------------------------------------------------

    def snapshot(self, peer: Peer, account: str) -> AccountSnapshot:
        """What a strategy that begins is told of an account.

        Raises:
            NotArmedError: It may not use the account, or the hub does not.
        """
        peer.grant.check_account(peer.name, account)
        if account not in self._ledgers:
            raise NotArmedError(
                f"The hub does not trade in account {account}.",
                remedy=f"It trades in {', '.join(self._ledgers) or 'none'}: set accounts in its configuration.",
            )
        now_ns = self._brokerage.clock.now_ns()
        executions = [
            row.execution
            for row in self._journal.executions(account=account, since_ns=now_ns - _DAY_NS)
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
            standing=self._standing(peer, account),
            epoch=self._journal.epoch,
            sequences=dict(self._journal.next_sequences()),
            trading=self._journal.trading_state(),
        )

    def _standing(self, peer: Peer, account: str) -> tuple[StandingOrder, ...]:
        """A strategy's open orders, and those whose end no process of its name has heard of."""
        found = {one.key: one for one in self._journal.orders(open_only=True)}
        if peer.told_before_ns is not None and account not in peer.accounts_told:
            found |= {one.key: one for one in self._journal.orders(since_ns=peer.told_before_ns)}
        peer.accounts_told.add(account)
        return tuple(
            self._one_standing(one)
            for one in sorted(found.values(), key=lambda one: one.created_ns)
            if owner_of(one.key) == peer.name and one.intent.ticket.account == account
        )

    def _one_standing(self, order: JournalOrder) -> StandingOrder:
        return StandingOrder(
            intent=order.intent,
            order_id=order.order_id,
            status=_STATUSES.get(order.state),
            executions=tuple(
                row.execution for row in self._journal.executions(key=order.key) if not row.superseded
            ),
            open=order.state in OPEN,
            known=order.state not in (OrderState.ABSENT, *UNPROVEN),
        )

    def caught_up(self, peer: Peer, account: str, keys: Sequence[str]) -> CaughtUp:
        """What became of orders while the strategy's hub was another one."""
        orders: list[OrderKnown] = []
        executions: list[tuple[str, Execution]] = []
        for key in keys:
            if owner_of(key) != peer.name or (order := self._journal.order(key)) is None:
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
                (key, row.execution) for row in self._journal.executions(key=key) if not row.superseded
            )
        return CaughtUp(
            orders=tuple(orders),
            executions=tuple(executions),
            positions=self.positions(peer.name, account),
            ledger=self.ledger(peer.name, peer.grant, account),
            trading=self._journal.trading_state(),
        )
