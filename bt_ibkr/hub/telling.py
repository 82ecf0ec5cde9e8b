"""Who is told what of an account: a strategy of its own orders and its book, all of what concerns all.

Runs on the session's loop.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

from bt_ibkr.connection.interface import AccountEvent, ExecutionReported, LedgerChanged, OrderChanged
from bt_ibkr.hub.books import Transfer
from bt_ibkr.model.order import Execution, Side

if TYPE_CHECKING:
    from bt_ibkr.hub.desk import HubDesk
    from bt_ibkr.hub.peers import Peer
    from bt_ibkr.hub.server import HubServer


class Telling:
    """See the module.

    Args:
        server: Has the strategies.
        desk: Has their books.
    """

    def __init__(self, server: HubServer, desk: HubDesk) -> None:
        self._server = server
        self._desk = desk
        #: Strategies that were told something since it was noted last how far they have heard.
        self._fresh: set[str] = set()

    def attached(self, account: str) -> list[Peer]:
        """The strategies that use it."""
        return [peer for peer in self._server.peers if account in peer.accounts and not peer.left]

    def tell(self, owner: str | None, account: str, event: AccountEvent) -> None:
        """The strategy that it concerns; the journal tells one that is not there, when it comes."""
        if owner is None:
            return
        self._fresh.add(owner)
        peer = self._server.peer(owner)
        if peer is not None and account in peer.accounts:
            peer.tell(type(event).__name__, event, account=account)

    def tell_external(self, account: str, event: OrderChanged) -> None:
        """Of an order of nobody here: those who want to hear of such."""
        for peer in self.attached(account):
            if peer.accounts[account]:
                peer.tell(type(event).__name__, event, account=account)

    def tell_moved(self, name: str, transfer: Transfer, quantity: Decimal, execution_id: str) -> None:
        """A strategy's position moved without an order of its own: to it that is an external execution."""
        contract = self._server.brokerage.contracts.known(transfer.conid)
        execution = Execution(
            execution_id=execution_id,
            account=transfer.account,
            conid=transfer.conid,
            symbol=str(transfer.conid) if contract is None else contract.symbol,
            side=Side.BUY if quantity > 0 else Side.SELL,
            quantity=abs(quantity),
            price=transfer.price or 0.0,
            time_ns=self._server.brokerage.clock.now_ns(),
            commission=0.0,
        )
        self.tell(name, transfer.account, ExecutionReported(execution, None))
        self.tell_share(name, transfer.account)

    def tell_share(self, owner: str | None, account: str) -> None:
        """A strategy's share of the cash, where it has one, as it is now."""
        peer = None if owner is None else self._server.peer(owner)
        if peer is not None and peer.grant.cash is not None and account in peer.accounts:
            self.tell_ledger(peer, account)

    def tell_ledger(self, peer: Peer, account: str) -> None:
        """The cash that a strategy sees."""
        event = LedgerChanged(account, self._desk.view.ledger(peer.name, peer.grant, account))
        peer.tell("LedgerChanged", event, account=account)

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
            self._desk.bookkeeper.told(heard)
            self._fresh.difference_update(heard)
