"""The kill switch: no order leaves any more, open ones are cancelled, positions closed on demand."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import msgspec

from bt_ibkr.clock import Clock
from bt_ibkr.connection.interface import AccountEvent, OrderFailed
from bt_ibkr.desk.closing import Opposite, closes
from bt_ibkr.desk.desk import OrderDesk
from bt_ibkr.desk.reconcile import Reconciler
from bt_ibkr.desk.registry import Registry
from bt_ibkr.errors import BtIbkrError
from bt_ibkr.journal import Journal
from bt_ibkr.model.intent import OrderIntent, make_key
from bt_ibkr.model.portfolio import Position
from bt_ibkr.model.trading import Trading, TradingState

_log = logging.getLogger(__name__)

#: Whose orders close positions, in keys and journal.
FLATTEN = "flatten"
#: Seconds that cancelled orders are given to end before positions are closed.
_ENDS_S = 10.0
#: IBKR's positions may lag its executions: how long, and how often, they are read until they agree, seconds.
_LAG_S = 15.0
_LAG_PAUSE_S = 0.5


class _Alarm:
    """Who is told of orders that close positions: what goes wrong with one must not stay unheard."""

    def __init__(self, tell: Callable[[str, str], None]) -> None:
        self._tell = tell

    def append(self, item: AccountEvent) -> None:
        if isinstance(item, OrderFailed):
            _log.error("flatten-failed key=%s problem=%s", item.key, item.error)
            self._tell("flatten-failed", f"The position of {item.key} may be OPEN still: {item.error}")


class KillSwitch:
    """Moves the trading state, and does what goes with it.

    Args:
        journal: Holds the state, over restarts and for all processes.
        registry, orders: Whose orders are cancelled.
        reconciler: Reads what is to be closed.
        opposite: Finds what closes positions that cannot be sold.
        clock: Market clock.
        announce: Tells everybody of a state.
        tell: Alarms, by kind and text.
    """

    def __init__(
        self,
        *,
        journal: Journal,
        registry: Registry,
        orders: OrderDesk,
        reconciler: Reconciler,
        opposite: Opposite,
        clock: Clock,
        announce: Callable[[TradingState], None],
        tell: Callable[[str, str], None],
    ) -> None:
        self._journal = journal
        self._registry = registry
        self._orders = orders
        self._reconciler = reconciler
        self._opposite = opposite
        self._clock = clock
        self._announce = announce
        self._tell = tell
        self._alarm = _Alarm(tell)
        self._closing = asyncio.Lock()
        self._flattening = 0

    @property
    def flattening(self) -> bool:
        """Whether it is closing all positions: nobody else may close any meanwhile, which would turn them."""
        return self._flattening > 0

    def in_the_way(self, intent: OrderIntent) -> bool:
        """Whether an order must not be sent now, since a position is being closed by another one."""
        return self.flattening and intent.strategy != FLATTEN

    async def throw(self, state: TradingState, *, cancel_open: bool, flatten: bool) -> None:
        """Enter ``state``, at once. With ``flatten``, orders that close positions leave first.

        Raises:
            JournalError: The state could not be kept.
        """
        first = state
        if flatten and state.mode is Trading.HALTED:
            first = msgspec.structs.replace(state, mode=Trading.REDUCING)
        self._enter(first)
        if not cancel_open and not flatten:
            return
        self._flattening += flatten
        try:
            # Two who close the same position at once would turn it.
            async with self._closing:
                await self._cancel_all()
                if flatten:
                    if self._journal.trading_state() != first:
                        self._enter(first)
                    for account in list(self._reconciler.positions):
                        await self._flatten(account)
        finally:
            self._flattening -= flatten
            if first != state:
                self._enter(state)

    def _enter(self, state: TradingState) -> None:
        self._journal.set_trading_state(state)
        self._announce(state)

    async def _cancel_all(self) -> None:
        standing = [one for one in self._registry if one.open]
        await asyncio.gather(*(self._orders.cancel(one.key, None) for one in standing))
        if standing:
            # Their ends come as reports.
            ends = [asyncio.ensure_future(one.ended.wait()) for one in standing]
            _, left = await asyncio.wait(ends, timeout=_ENDS_S)
            for one in left:
                one.cancel()

    async def _flatten(self, account: str) -> None:
        try:
            positions = await self._positions(account)
        except BtIbkrError as problem:
            _log.error("flatten-failed account=%s problem=%s", account, problem)
            self._tell(
                "flatten-failed", f"Positions of {account} are NOT closed, they cannot be read: {problem}"
            )
            return
        sequence = self._journal.next_sequences().get(FLATTEN, 1)
        async for close in closes(positions, self._opposite):
            position = close.position
            _log.warning(
                "flatten account=%s conid=%d quantity=%s", account, position.conid, position.quantity
            )
            intent = close.intent(make_key(FLATTEN, self._journal.epoch, sequence))
            sequence += 1
            await self._orders.submit((intent,), self._alarm)

    async def _positions(self, account: str) -> tuple[Position, ...]:
        """IBKR's positions, once they have followed the executions that we know of, or had the time to."""
        waited_s = 0.0
        while True:
            problem = None
            try:
                positions = await self._reconciler.read_positions(account)
            except BtIbkrError as trouble:
                problem = trouble
            else:
                if self._reconciler.agrees(account, positions):
                    return positions
            if waited_s >= _LAG_S:
                break
            await asyncio.sleep(_LAG_PAUSE_S)
            waited_s += _LAG_PAUSE_S
        if problem is not None:
            raise problem
        _log.warning("flatten-positions-differ account=%s", account)
        return positions
