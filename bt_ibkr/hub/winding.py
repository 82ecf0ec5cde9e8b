"""What is done about a strategy that vanished: its orders cancelled, its book closed. Runs on the session's loop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from decimal import Decimal
from typing import TYPE_CHECKING, Final

from bt_ibkr.hub.names import HUB_SUFFIX, owner_of
from bt_ibkr.model.intent import OrderIntent, make_key
from bt_ibkr.model.order import OrderTicket, OrderType, Side, TimeInForce
from bt_ibkr.model.portfolio import Position

if TYPE_CHECKING:
    from bt_ibkr.hub.desk import HubDesk

_log = logging.getLogger(__name__)

#: Seconds that cancelled orders are given to end before a book is closed, and closing orders to execute.
_ENDS_S: Final = 10.0
#: How often what is left of a book is closed: an order that was being cancelled may have executed after all.
_ROUNDS: Final = 3
#: How often it is looked whether the session is back and the strategy is.
_LOOK_S: Final = 0.1


class WindingUp:
    """One strategy's end.

    Args:
        desk: The hub's.
        name: The strategy's.
        gone: Whether it is still not there: once it is back nothing more is done.
        alarm: Tells everybody, by kind and text.
    """

    def __init__(
        self, desk: HubDesk, name: str, gone: Callable[[], bool], alarm: Callable[[str, str], None]
    ) -> None:
        self._desk = desk
        self._name = name
        self._gone = gone
        self._alarm = alarm

    async def run(self, *, flatten: bool) -> None:
        """Cancel, and with ``flatten`` close what the book holds, until nothing is left or it is back."""
        if not self._desk.accounts_read:
            self._alarm(
                "wind-up-waits", f"Strategy {self._name} is gone, and the session is down: it is waited for."
            )
        if not await self._accounts_read():
            return
        cancelled = await self._cancel()
        self._alarm(
            "strategy-vanished",
            f"Strategy {self._name} is gone: {cancelled} orders were cancelled"
            + (", and its positions are closed." if flatten else "."),
        )
        if not flatten:
            return
        for _ in range(_ROUNDS):
            if not await self._accounts_read() or not self._positions():
                return
            await self._close()
        left = self._positions()
        if left and self._gone():
            told = ", ".join(f"{one.quantity:f} {one.symbol or one.conid}" for one in left)
            self._alarm("wind-up-failed", f"The book of {self._name} is NOT closed: {told} are left.")

    async def _accounts_read(self) -> bool:
        """Until the session is up and the accounts were read after a break: nothing could be cancelled before, and a
        stop that executed meanwhile is not in the book yet. ``False`` once the strategy is back."""
        while self._gone():
            if self._desk.accounts_read:
                return True
            await asyncio.sleep(_LOOK_S)
        return False

    async def _cancel(self) -> int:
        journal = self._desk.journal
        keys = [one.key for one in journal.orders(open_only=True) if owner_of(one.key) == self._name]
        ends = self._ends(keys)
        await asyncio.gather(*(self._desk.cancel(key) for key in keys))
        await _all(ends)
        return len(keys)

    def _ends(self, keys: list[str]) -> list[asyncio.Future[bool]]:
        registry = self._desk.registry
        tracked = [registry.get(key) for key in keys]
        return [asyncio.ensure_future(one.ended.wait()) for one in tracked if one is not None]

    def _positions(self) -> list[Position]:
        return [
            position
            for account in self._desk.accounts
            for position in self._desk.view.positions(self._name, account)
        ]

    async def _close(self) -> None:
        """One order for each position that none is under way for."""
        for position in self._positions():
            if not self._gone():
                return
            if under_way := self._open_on(position.conid):
                # It may execute yet: another one could turn the position.
                await _all(self._ends(under_way))
                continue
            number = self._desk.journal.next_sequences().get(self._name + HUB_SUFFIX, 1)
            key = make_key(self._name + HUB_SUFFIX, self._desk.journal.epoch, number)
            _log.warning(
                "hub-flatten name=%s conid=%d quantity=%s", self._name, position.conid, position.quantity
            )
            kind = position.security_type or await self._desk.security_type(position.conid)
            await self._desk.place((_closing(position, kind, key),))
            await _all(self._ends([key]))

    def _open_on(self, conid: int) -> list[str]:
        return [
            one.key
            for one in self._desk.registry
            if one.open
            and owner_of(one.key) == self._name
            and conid in (one.ticket.contract_id, *(leg.conid for leg in one.ticket.legs))
        ]


async def _all(ends: list[asyncio.Future[bool]]) -> None:
    if ends:
        _, left = await asyncio.wait(ends, timeout=_ENDS_S)
        for one in left:
            one.cancel()


def _closing(position: Position, security_type: str, key: str) -> OrderIntent:
    """The order that closes what a book holds, at the market."""
    return OrderIntent(
        key=key,
        strategy=key.partition(".")[0],
        ticket=OrderTicket(
            account=position.account,
            contract_id=position.conid,
            security_type=security_type,
            side=Side.SELL if position.quantity > 0 else Side.BUY,
            order_type=OrderType.MARKET,
            quantity=Decimal(abs(position.quantity)),
            time_in_force=TimeInForce.DAY,
            client_order_id=key,
            protective=True,
        ),
    )
