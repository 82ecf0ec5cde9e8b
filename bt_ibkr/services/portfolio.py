"""Positions, cash, trades of the day."""

from __future__ import annotations

import asyncio

from bt_ibkr.errors import SessionError
from bt_ibkr.model.order import Execution, OrderReport
from bt_ibkr.model.portfolio import LedgerLine, Position
from bt_ibkr.session.http import HttpClient
from bt_ibkr.wire import orders as wire_orders
from bt_ibkr.wire import portfolio as wire

_PAGE = 100
_MOST_PAGES = 1000
_SNAPSHOT_TRIES = 3


class PortfolioService:
    """Reads of one session.

    Args:
        http: The session's REST client.
    """

    def __init__(self, http: HttpClient) -> None:
        self._http = http

    async def positions(self, account: str) -> tuple[Position, ...]:
        """All positions of ``account`` that are not flat.

        IBKR's cache lags fills, so it is told to forget first.
        """
        await self._http.post(f"/portfolio/{account}/positions/invalidate")
        found: list[Position] = []
        for page in range(_MOST_PAGES):
            rows = wire.positions(await self._http.get(f"/portfolio/{account}/positions/{page}"))
            found.extend(row for row in rows if row.quantity)
            if len(rows) < _PAGE:
                return tuple(found)
        raise SessionError(
            f"Account {account} has more than {_MOST_PAGES * _PAGE} positions; gave up reading."
        )

    async def ledger(self, account: str) -> dict[str, LedgerLine]:
        """Cash and values by currency, with the line ``BASE``."""
        return wire.ledger(await self._http.get(f"/portfolio/{account}/ledger"))

    async def trades(self, days: int = 1) -> tuple[Execution, ...]:
        """Executions of the last ``days`` days, of all clients.

        The first call of a session answers an empty list, whatever there is; an empty answer is asked again
        once before it is believed.
        """
        rows = wire_orders.trades(await self._http.get("/iserver/account/trades", {"days": str(days)}))
        if not rows:
            rows = wire_orders.trades(await self._http.get("/iserver/account/trades", {"days": str(days)}))
        return rows

    async def settled(self, account: str) -> tuple[tuple[Position, ...], tuple[Execution, ...]]:
        """Positions and executions that belong together: positions stood still while executions were read.

        Raises:
            SessionError: They never did.
        """
        positions = await self.positions(account)
        for _ in range(_SNAPSHOT_TRIES):
            executions = await self.trades()
            again = await self.positions(account)
            if {p.conid: p.quantity for p in again} == {p.conid: p.quantity for p in positions}:
                return again, executions
            positions = again
        raise SessionError(
            f"Positions of {account} changed at each of {_SNAPSHOT_TRIES} readings: no moment to start from.",
            remedy="Start when no other client trades in the account.",
        )

    async def live_orders(self) -> tuple[OrderReport, ...]:
        """The day's orders of the selected account.

        The first call only primes the server's cache (``snapshot`` is false then).

        Raises:
            SessionError: The server did not give a whole list; nothing may be concluded.
        """
        for _ in range(4):
            answer = wire_orders.live_orders(await self._http.get("/iserver/account/orders"))
            if answer.snapshot:
                return answer.orders
            await asyncio.sleep(0.05)
        raise SessionError("IBKR did not give a whole list of live orders in four attempts.")
