"""What is done about a strategy that vanished: its orders cancelled, its book closed. Runs on the session's loop."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Final

from bt_ibkr.desk.closing import Close, closes
from bt_ibkr.errors import BtIbkrError
from bt_ibkr.hub.names import HUB_SUFFIX, owner_of
from bt_ibkr.model.intent import OrderState, make_key

if TYPE_CHECKING:
    from bt_ibkr.hub.desk import HubDesk

_log = logging.getLogger(__name__)

#: Seconds that cancelled orders are given to end before a book is closed, and closing orders to execute.
_ENDS_S: Final = 10.0
#: Seconds within which everything that has executed has to be known, before a book is closed.
_WHOLE_S: Final = 60.0
#: The longest pause between two readings of the accounts.
_LONGEST_S: Final = 5.0
#: How often what is left of a book is closed: an order that was being cancelled may have executed after all.
_ROUNDS: Final = 3
#: How often it is looked whether the session is back and the strategy is.
_LOOK_S: Final = 0.1


class WindingsUp:
    """All of them: of one strategy one at a time.

    A strategy that came back and vanished again is dealt with anew, once what was done the first time has ended.

    Args:
        desk: The hub's.
        absent: Whether no process of a name is heard.
        alarm: Tells everybody, by kind and text.
    """

    def __init__(
        self, desk: HubDesk, absent: Callable[[str], bool], alarm: Callable[[str, str], None]
    ) -> None:
        self._desk = desk
        self._absent = absent
        self._alarm = alarm
        self._turns: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        #: How often each name has come.
        self._came: Counter[str] = Counter()

    def came(self, name: str) -> None:
        """It is there: what was begun because it was not ends."""
        self._came[name] += 1

    async def wind_up(self, name: str, *, flatten: bool) -> bool:
        """Cancel a strategy's orders, and close its positions; it stops once the strategy is back.

        Returns:
            Whether that was done to the end, and it is still gone.
        """
        times = self._came[name]

        def gone() -> bool:
            return self._came[name] == times and self._absent(name)

        async with self._turns[name]:
            try:
                await WindingUp(self._desk, name, gone, self._alarm).run(flatten=flatten)
            except BtIbkrError as problem:
                self._alarm("wind-up-failed", f"Strategy {name}: {problem}")
                return False
            return gone()


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
            if not await self._book_is_whole() or not await self._close():
                return
        if not await self._book_is_whole():
            return
        left = [close.position async for close in self._closes()]
        if left:
            told = ", ".join(f"{one.quantity:f} {one.symbol or one.conid}" for one in left)
            self._alarm("wind-up-failed", f"The book of {self._name} is NOT closed: {told} are left.")

    async def _accounts_read(self) -> bool:
        """Until the session is up and the accounts were read after a break: nothing could be cancelled before, and a
        stop that executed meanwhile is not in the book yet. While the kill switch closes positions, nobody else does.
        ``False`` once the strategy is back."""
        while self._gone():
            if self._desk.accounts_read and not self._desk.flattening:
                return True
            await asyncio.sleep(_LOOK_S)
        return False

    async def _book_is_whole(self) -> bool:
        """Until the book has all that the strategy's orders have executed: what is told of as filled may be sold
        already, and would be sold twice. ``False`` once the strategy is back, or if that cannot be known."""
        latest_s, pause_s = time.monotonic() + _WHOLE_S, _LOOK_S
        while await self._accounts_read():
            results = [await self._desk.read_account(account) for account in self._desk.accounts]
            lacking = self._lacking()
            if all(one.complete for one in results) and not lacking:
                return self._gone()
            if time.monotonic() >= latest_s:
                why = "the accounts cannot be read"
                if lacking:
                    why = f"IBKR does not tell how {', '.join(lacking)} executed"
                self._alarm("wind-up-failed", f"The book of {self._name} is NOT closed: {why}.")
                return False
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_S)
        return False

    def _lacking(self) -> list[str]:
        """Orders that have filled, and whose executions have not all come."""
        return [
            one.key
            for one in self._desk.registry
            if owner_of(one.key) == self._name
            and one.state is OrderState.FILLED
            and one.filled < one.ticket.quantity
        ]

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

    async def _closes(self) -> AsyncIterator[Close]:
        """What closes the book."""
        for account in self._desk.accounts:
            held = self._desk.view.positions(self._name, account)
            async for close in closes(await self._desk.typed(held), self._desk.opposite):
                yield close

    async def _close(self) -> bool:
        """One order for each position that none is under way for; whether there was one to close."""
        found = False
        async for close in self._closes():
            found = True
            if not self._gone() or self._desk.flattening:
                break
            if under_way := self._open_on(close.conid, close.position.conid):
                # It may execute yet: another one could turn the position.
                await _all(self._ends(under_way))
                continue
            number = self._desk.journal.next_sequences().get(self._name + HUB_SUFFIX, 1)
            key = make_key(self._name + HUB_SUFFIX, self._desk.journal.epoch, number)
            held = close.position
            _log.warning("hub-flatten name=%s conid=%d quantity=%s", self._name, held.conid, held.quantity)
            await self._desk.place((close.intent(key),))
            await _all(self._ends([key]))
        return found

    def _open_on(self, *conids: int) -> list[str]:
        return [
            one.key
            for one in self._desk.registry
            if one.open
            and owner_of(one.key) == self._name
            and not set(conids).isdisjoint((one.ticket.contract_id, *(leg.conid for leg in one.ticket.legs)))
        ]


async def _all(ends: list[asyncio.Future[bool]]) -> None:
    if ends:
        _, left = await asyncio.wait(ends, timeout=_ENDS_S)
        for one in left:
            one.cancel()
