"""What IBKR reports of orders, executions and cash: told by the stream, and asked for where that cannot be trusted.

After a break, and wherever reading fails, nothing is concluded: an order keeps the state that was reported last, the
strategy is told that this may be old, and it is asked again until it was read.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from bt_ibkr.clock import NS_PER_S, Clock
from bt_ibkr.config import SessionSettings
from bt_ibkr.connection.interface import (
    AccountEvent,
    CommissionReported,
    ExecutionReported,
    LedgerChanged,
    OrderChanged,
)
from bt_ibkr.connection.mailbox import Mailbox
from bt_ibkr.errors import BtIbkrError
from bt_ibkr.model.order import Execution
from bt_ibkr.services.executions import ExecutionBook
from bt_ibkr.services.portfolio import PortfolioService
from bt_ibkr.session.backoff import Backoff
from bt_ibkr.session.websocket import Socket
from bt_ibkr.wire import stream_events
from bt_ibkr.wire.frames import Frame

_log = logging.getLogger(__name__)

#: An execution that the stream has not brought after so long is not on its way any more.
_LATE_NS = 5 * NS_PER_S
_DAY_NS = 86_400 * NS_PER_S
#: So many days of executions can be asked for.
_MOST_DAYS = 7
#: From UTC to the clocks by which IBKR may end its day: New York, Zurich, Hong Kong, in winter and in summer.
_EAST_NS = tuple(hours * 3600 * NS_PER_S for hours in (-5, -4, 0, 1, 2, 8))


class AccountStream:
    """One account's events on their way to one mailbox.

    Args:
        account: Its id.
        events: Where they go.
        attached_ns: Market time at which the account was read: what was executed before is in its positions.
    """

    def __init__(self, account: str, events: Mailbox[AccountEvent], attached_ns: int) -> None:
        self.account = account
        self.events = events
        self.attached_ns = attached_ns
        self.executions = ExecutionBook()

    def add_execution(self, execution: Execution) -> bool:
        """Whether it was new."""
        new, commission = self.executions.add(execution)
        if new:
            self.events.append(ExecutionReported(execution))
        elif commission:
            self.events.append(CommissionReported(execution))
        return new


class Reports:
    """The reports of a session's accounts. Lives in the session's loop.

    Args:
        portfolio: For asking.
        socket: Whose topics are asked for again where they went mute.
        settings: ``mute_s`` and the pauses between attempts.
        clock: Market clock.
        tell: Told of what strategies should know: a kind of ``SessionNotice`` and a text.

    Attributes:
        streaming: Whether the stream stands.
        unread: What may have changed in a break could not be read yet.
        failures: How often reading failed.
        mute: How often the stream was found mute.
    """

    def __init__(
        self,
        portfolio: PortfolioService,
        socket: Socket,
        settings: SessionSettings,
        clock: Clock,
        tell: Callable[[str, str], None],
    ) -> None:
        self._portfolio = portfolio
        self._socket = socket
        self._settings = settings
        self._clock = clock
        self._tell = tell
        self._accounts: dict[str, AccountStream] = {}
        self._retry: asyncio.Task[None] | None = None
        #: Since when executions may be missing; 0 where everything was read.
        self._since_ns = 0
        self.streaming = False
        self.unread = False
        self.failures = 0
        self.mute = 0

    def add(self, stream: AccountStream) -> None:
        """Route an account's reports."""
        self._accounts[stream.account] = stream

    # -- by the stream -------------------------------------------------------------------------------

    def on_orders(self, frame: Frame) -> None:
        for report in stream_events.order_reports(bytes(frame.args)):
            self._route_report(OrderChanged(report))

    def on_executions(self, frame: Frame) -> None:
        for execution in stream_events.executions(bytes(frame.args)):
            stream = self._accounts.get(execution.account)
            if stream is not None:
                stream.add_execution(execution)

    def on_ledger(self, frame: Frame) -> None:
        account = (frame.topic or "").partition("+")[2]
        stream = self._accounts.get(account)
        if stream is not None:
            lines = stream_events.ledger_lines(bytes(frame.result))
            if lines:
                stream.events.append(LedgerChanged(account, tuple(lines)))

    def _route_report(self, event: OrderChanged) -> None:
        stream = self._accounts.get(event.report.account or "")
        if stream is not None:
            stream.events.append(event)

    # -- by asking -----------------------------------------------------------------------------------

    def broken(self) -> None:
        """The stream was lost; an attempt to read what an earlier break hid is of no use any more."""
        self.streaming = False
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None

    async def repair(self, since_ns: int) -> None:
        """After a break: read what changed meanwhile. If that fails it is told at once, and tried again by itself.

        Args:
            since_ns: Market time up to which the stream was whole.
        """
        # A break after another one whose repair did not succeed reaches back to that one.
        self._since_ns = min(since_ns, self._since_ns or since_ns)
        if self._accounts and not await self._attempt() and self.streaming:
            self._retry = asyncio.create_task(self._repair_later(), name="repair-reports")

    async def _repair_later(self) -> None:
        backoff = Backoff(self._settings.reconnect_first_s, self._settings.reconnect_longest_s)
        while True:
            await asyncio.sleep(backoff.pause_s())
            if await self._attempt():
                return

    async def _attempt(self) -> bool:
        """Whether it could be read; the first failure and the success after it are told."""
        try:
            await self._read_all()
        except BtIbkrError as problem:
            self.failures += 1
            _log.warning("reports-unread problem=%s", problem)
            if not self.unread:
                self.unread = True
                self._tell(
                    "unread",
                    "What happened to orders during the break could not be read; their states may be old, and it is "
                    f"tried again. {problem}",
                )
            return False
        self._since_ns = 0
        if self.unread:
            self.unread = False
            _log.warning("reports-read after failures")
            self._tell("reread", "What happened to orders during the break was read.")
        return True

    async def _read_all(self) -> None:
        await self._read_orders()
        nights = self._nights()
        if nights:
            for execution in await self._portfolio.trades(min(1 + nights, _MOST_DAYS)):
                stream = self._accounts.get(execution.account)
                # What was executed on earlier days and before the account was read is in its positions already.
                if stream is not None and execution.time_ns >= stream.attached_ns:
                    stream.add_execution(execution)
        for execution in await self._portfolio.trades():
            self._missed(execution)

    def _nights(self) -> int:
        """How many midnights the break held, wherever the day of IBKR's list of executions ends."""
        now_ns = self._clock.now_ns()
        since_ns = self._since_ns or now_ns
        return max((now_ns + east) // _DAY_NS - (since_ns + east) // _DAY_NS for east in _EAST_NS)

    async def _read_orders(self) -> None:
        for report in await self._portfolio.live_orders():
            self._route_report(OrderChanged(report))

    async def watch(self) -> None:
        """Find by asking what the stream lost while it looked healthy. For the life of the session.

        Orders and executions are rare: their silence proves nothing, and subscribing again is not answered where
        nothing happened. Executions that only asking brings mean that the stream is mute: its topics are
        subscribed again, and if that was in vain the WebSocket is opened anew.
        """
        in_vain = 0
        while True:
            await asyncio.sleep(self._settings.mute_s)
            if not self.streaming or not self._accounts:
                continue
            try:
                await self._read_orders()
                missed = [one for one in await self._portfolio.trades() if self._missed(one)]
                if not missed:
                    in_vain = 0
                    continue
                in_vain += 1
                self.mute += 1
                self._tell("mute", f"The stream did not tell of {len(missed)} executions.")
                _log.warning("reports-mute executions=%d times=%d", len(missed), in_vain)
                if in_vain > 1:
                    await self._socket.reopen()
                else:
                    await self._socket.ask_again("sor", "str")
            except BtIbkrError as problem:
                self.failures += 1
                _log.warning("reports-unread problem=%s", problem)

    def _missed(self, execution: Execution) -> bool:
        """Take an execution in; whether the stream should have brought it long ago."""
        stream = self._accounts.get(execution.account)
        new = stream is not None and stream.add_execution(execution)
        return new and self._clock.now_ns() - execution.time_ns > _LATE_NS
