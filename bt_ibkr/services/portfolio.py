"""Positions, cash, trades of the day."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from bt_ibkr.errors import SessionError
from bt_ibkr.model.order import Execution, OrderReport
from bt_ibkr.model.portfolio import LedgerLine, Position
from bt_ibkr.session.http import HttpClient
from bt_ibkr.wire import orders as wire_orders
from bt_ibkr.wire import portfolio as wire
from bt_ibkr.wire.session import Accounts

_PAGE = 100
_MOST_PAGES = 1000
#: IBKR lists so many orders of a day, the newest: what such a list does not have may stand all the same.
MOST_LISTED = 1000


class PortfolioService:
    """Reads of one session.

    Args:
        http: The session's REST client.
        accounts: The login's accounts as the server told them last, which it does after each log-on; ``None``
            where there is but one.
    """

    def __init__(self, http: HttpClient, accounts: Callable[[], Accounts] | None = None) -> None:
        self._http = http
        self._accounts = accounts
        self._known: Accounts | None = None
        self._selected: str | None = None
        self._readers = 0
        self._turn = asyncio.Lock()
        self._idle = asyncio.Event()

    async def give_back(self, account: str) -> None:
        """Select ``account`` again, if another was selected to read its lists: whoever shares the session relies on
        the one that was."""
        if self._selected not in (None, account):
            await self._http.post("/iserver/account", {"acctId": account})
            self._selected = account

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

    async def trades(self, account: str, days: int = 1) -> tuple[Execution, ...]:
        """Executions of the last ``days`` days, of all clients.

        The first call of a session answers an empty list, whatever there is; an empty answer is asked again
        once before it is believed.
        """
        async with self._of(account):
            rows = wire_orders.trades(await self._http.get("/iserver/account/trades", {"days": str(days)}))
            if not rows:
                rows = wire_orders.trades(
                    await self._http.get("/iserver/account/trades", {"days": str(days)})
                )
        return rows

    async def live_orders(self, account: str) -> tuple[OrderReport, ...]:
        """The day's orders of ``account``, which becomes the selected one.

        The first call only primes the server's cache (``snapshot`` is false then).

        Raises:
            SessionError: The server did not give a whole list; nothing may be concluded.
        """
        async with self._of(account):
            for _ in range(4):
                answer = wire_orders.live_orders(await self._http.get("/iserver/account/orders"))
                if answer.snapshot:
                    return answer.orders
                await asyncio.sleep(0.05)
        raise SessionError(
            "IBKR did not give a whole list of live orders in four attempts.",
            remedy="Nothing was concluded from it; it is read again.",
        )

    async def force_orders(self) -> None:
        """Let the server forget its list of live orders, and with it any filter that somebody asked it with: that
        silences the stream of orders. The list is empty for a moment after it."""
        await self._http.get("/iserver/account/orders", {"force": "true"})

    @asynccontextmanager
    async def _of(self, account: str) -> AsyncIterator[None]:
        """IBKR lists orders and executions of the selected account only.

        Readers of the same account go side by side; another account waits until they are through.
        """
        async with self._turn:
            known = None if self._accounts is None else self._accounts()
            if known is not None and len(known.accounts) > 1:
                if known is not self._known:
                    # Told anew, as after a log-on: what was selected before it does not hold any more.
                    self._known, self._selected = known, known.selected
                if self._selected != account:
                    while self._readers:
                        await self._idle.wait()
                    self._selected = None
                    await self._http.post("/iserver/account", {"acctId": account})
                    self._selected = account
            self._readers += 1
            self._idle.clear()
        try:
            yield
        finally:
            self._readers -= 1
            if not self._readers:
                self._idle.set()
