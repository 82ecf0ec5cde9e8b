"""What the order desk tells of the hub's accounts: counted in the books first, then handed to whom it concerns.

Runs on the session's loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from bt_ibkr.clock import NS_PER_S
from bt_ibkr.connection.interface import (
    AccountEvent,
    CommissionReported,
    Difference,
    ExecutionReported,
    LedgerChanged,
    OrderChanged,
    OrderFailed,
    Reconciled,
    SessionNotice,
    TradingChanged,
)
from bt_ibkr.errors import JournalError
from bt_ibkr.hub.names import FLATTEN, HUB_SUFFIX, owner_of
from bt_ibkr.hub.settling import APART_S
from bt_ibkr.model.intent import parse_key

if TYPE_CHECKING:
    from bt_ibkr.hub.desk import HubDesk
    from bt_ibkr.hub.server import HubServer

_log = logging.getLogger(__name__)

#: Beyond the time that two readings have to be apart, wall seconds.
_LATER_S = 0.1


class AccountSink:
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


class Routing:
    """See the module.

    Args:
        server: For alarms.
        desk: Has the books, and tells.
    """

    def __init__(self, server: HubServer, desk: HubDesk) -> None:
        self._server = server
        self._desk = desk
        #: Accounts that are about to be read again.
        self._rereading: set[str] = set()

    def route(self, account: str, event: AccountEvent) -> None:
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
            owner = self._desk.bookkeeper.take_commission(event.execution)
            self._desk.telling.tell(owner, account, event)
            self._desk.telling.tell_share(owner, account)
        elif isinstance(event, OrderChanged):
            if event.key is None:
                self._desk.telling.tell_external(account, event)
            else:
                self._desk.telling.tell(owner_of(event.key), account, event)
        elif isinstance(event, LedgerChanged):
            self._desk.ledgers[account].update((line.currency, line) for line in event.lines)
            for peer in self._desk.telling.attached(account):
                self._desk.telling.tell_ledger(peer, account)
        elif isinstance(event, Reconciled):
            self._take_reconciled(account, event)
        elif isinstance(event, TradingChanged):
            state = event.state
            _log.warning(
                "hub-trading account=%s mode=%s by=%s reason=%s", account, state.mode, state.by, state.reason
            )
            for peer in self._desk.telling.attached(account):
                peer.tell(type(event).__name__, event, account=account)
        else:
            parts = parse_key(event.key)
            if isinstance(event, OrderFailed) and parts is not None and parts.name.endswith(HUB_SUFFIX):
                self._server.alarm("wind-up-failed", f"Order {event.key} failed: {event.error}")
            self._desk.telling.tell(owner_of(event.key), account, event)

    def _take_execution(self, account: str, event: ExecutionReported) -> None:
        execution = event.execution
        owner = self._desk.bookkeeper.take(execution, event.key, event.replaces)
        if owner == FLATTEN:
            self._desk.sharing.share(account, execution.conid, execution.price, execution.execution_id)
            return
        if owner is None:
            # In nobody's book but "unallocated": strategies hear of it, and their positions stay.
            text = (
                f"{execution.side.value} {execution.quantity} {execution.symbol} at {execution.price:g} in "
                f"{account}: of no strategy of this hub (execution {execution.execution_id})."
            )
            for peer in self._desk.telling.attached(account):
                if peer.accounts[account]:
                    peer.tell("SessionNotice", SessionNotice("external-execution", text))
            return
        self._desk.telling.tell(owner, account, event)
        self._desk.telling.tell_share(owner, account)

    def _take_reconciled(self, account: str, event: Reconciled) -> None:
        differences: tuple[Difference, ...] = ()
        if event.positions is not None:
            try:
                differences = self._desk.bookkeeper.compare(account, event.positions)
            except JournalError as problem:
                self._server.alarm("books-unwritten", str(problem))
        for difference in differences:
            self._server.alarm("books-difference", difference.text)
        for peer in self._desk.telling.attached(account):
            positions = None if event.positions is None else self._desk.view.positions(peer.name, account)
            told = msgspec.structs.replace(
                event, positions=positions, differences=(*event.differences, *differences)
            )
            peer.tell("Reconciled", told, account=account)
        self.look_again(account)

    def look_again(self, account: str) -> None:
        """What differs may be an execution that is under way: the account is read again until that is certain."""
        if self._desk.bookkeeper.uncertain(account) and account not in self._rereading:
            self._rereading.add(account)
            self._server.spawn(self._read_again(account), "hub-compare-again")

    async def _read_again(self, account: str) -> None:
        try:
            while self._desk.bookkeeper.uncertain(account):
                # A market that moves only when told to lets readings wait for it.
                wait_s = min(float(APART_S), self._server.brokerage.clock.wall_s(APART_S * NS_PER_S))
                await asyncio.sleep(wait_s + _LATER_S)
                if self._desk.accounts_read:
                    await self._server.brokerage.reconcile(account)
        finally:
            self._rereading.discard(account)
