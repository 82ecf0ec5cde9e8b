"""The hub: owns the session and serves it. Everything here runs on the session's loop.

It is to the order desk what one broker is: one sink per account hears of everything exactly once, and hands it to the
strategy whose order it is of, by the name in the order's key. What belongs to nobody goes to all who attached the
account and want to hear of it.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import zmq

from bt_ibkr.connection import interface as events
from bt_ibkr.connection.brokerage import Brokerage
from bt_ibkr.errors import BtIbkrError, NotArmedError
from bt_ibkr.hub.arming import Arming
from bt_ibkr.hub.beats import Heart
from bt_ibkr.hub.binding import bind
from bt_ibkr.hub.channel import CommandChannel
from bt_ibkr.hub.claim import claim
from bt_ibkr.hub.config import HubSettings
from bt_ibkr.hub.desk import HubDesk
from bt_ibkr.hub.dispatch import Dispatch
from bt_ibkr.hub.door import KeyDoor
from bt_ibkr.hub.health import HealthServer
from bt_ibkr.hub.members import Members
from bt_ibkr.hub.overview import overview
from bt_ibkr.hub.peers import Peer
from bt_ibkr.hub.protocol import Closing
from bt_ibkr.hub.publisher import Publisher
from bt_ibkr.hub.status import HubStatus
from bt_ibkr.journal.lock import OwnerLock

_log = logging.getLogger(__name__)


class HubServer:
    """One hub.

    Args:
        brokerage: The session and its services; not open yet.
        settings: Endpoints, strategies, limits.
        context: ZeroMQ's; by default one of its own.
        arming: Which accounts may be traded in; by default the settings', where they are paper.
        emulator: Control API of the emulator that the session is with; empty for IBKR.

    Attributes:
        hub: Its id, another one for each start.
        endpoint, ticks: Where it listens, as bound.
        health: The HTTP endpoints, where they are wanted.
        publisher, desk, dispatch: Ticks, accounts, requests; once they are there.
        channel, members, heart: The command channel, who is at its other end, the beats.
        failure: Why it cannot go on: no order is taken any more.
        on_failure: Told of it.
    """

    def __init__(
        self,
        brokerage: Brokerage,
        settings: HubSettings,
        context: zmq.Context[Any] | None = None,
        *,
        arming: Arming | None = None,
        emulator: str = "",
    ) -> None:
        self.brokerage = brokerage
        self.settings = settings
        self.hub = secrets.token_hex(4)
        self.endpoint = self.ticks = ""
        self.since_ns = time.time_ns()
        self.connected = False
        self.emulator = emulator
        self.failure: BtIbkrError | None = None
        self.on_failure: Callable[[], None] = lambda: None
        self.health: HealthServer | None = None
        self._arming = arming or Arming(accounts=settings.accounts)
        self._context = context or zmq.Context()
        self._own_context = context is None
        self._tasks: set[asyncio.Task[Any]] = set()
        #: The command socket, before strategies are let in.
        self._waiting: zmq.Socket[bytes]
        self.channel = CommandChannel(self)
        self.members = Members(self)
        self.heart = Heart(self)
        self.publisher: Publisher
        self.desk: HubDesk
        self.dispatch: Dispatch
        self._door: KeyDoor | None = None
        self._claims: list[OwnerLock | None] = []
        self._sockets: list[zmq.Socket[bytes]] = []
        self._closed = False

    # -- life ------------------------------------------------------------------------------------

    async def open(self) -> None:
        """``log_on``, have the accounts admitted, ``serve``; where a person may be asked, do the three apart.

        Raises:
            PortInUseError: Somebody listens there already.
            NotArmedError: An account may not be traded in.
            JournalLockedError: Another process trades in the account.
            BtIbkrError: As ``Brokerage.open`` and ``attach``.
        """
        await self.log_on()
        try:
            accounts = self._arming.admit(self.brokerage.accounts(), self.brokerage.is_paper())
        except BaseException:
            await self.close("the hub may not trade")
            raise
        await self.serve(accounts)

    async def log_on(self) -> None:
        """Take the endpoints, then log on: of two hubs one fails before it touches the session.

        Raises:
            BtIbkrError: As ``open``; nothing is left open then.
        """
        try:
            await self._log_on()
        except BaseException:
            await self.close("the hub could not start")
            raise

    async def _log_on(self) -> None:
        settings = self.settings
        for endpoint in (settings.endpoint, settings.ticks_endpoint):
            self._claims.append(claim(endpoint))
        if settings.secret_key:
            self._door = KeyDoor(self._context, settings.public_keys())
        commands = self._bind(zmq.ROUTER, settings.endpoint)
        ticks = self._bind(zmq.XPUB, settings.ticks_endpoint)
        self.endpoint = commands.getsockopt_string(zmq.LAST_ENDPOINT)
        self.ticks = ticks.getsockopt_string(zmq.LAST_ENDPOINT)
        if settings.health:
            self.health = HealthServer(settings.health, self.hub, self.alive, self.ready)
            await self.health.open()
        self._waiting = commands
        await self.brokerage.open(self)
        self.publisher = Publisher(ticks, self.brokerage, ring=settings.ring)
        self.desk = HubDesk(self)

    async def serve(self, accounts: tuple[str, ...]) -> None:
        """Attach the accounts, and let strategies in.

        Raises:
            BtIbkrError: As ``open``; nothing is left open then.
        """
        try:
            for account in () if self.settings.data_only else accounts:
                await self.desk.attach(account)
            self.dispatch = Dispatch(self)
            self.members.vanishing.expect()
            self.channel.open(self._waiting)
            self.heart.start()
        except BaseException:
            await self.close("the hub could not start")
            raise

    def alive(self) -> dict[str, bool]:
        """What ``/livez`` looks at."""
        return {"beats": self.heart.beats}

    def ready(self) -> dict[str, bool]:
        """What ``/readyz`` looks at."""
        return {
            "listening": self.channel.is_open,
            "session streams": self.connected,
            "accounts attached": self.settings.data_only
            or (hasattr(self, "desk") and bool(self.desk.accounts)),
            "may trade": self.failure is None,
        }

    def _bind(self, kind: int, endpoint: str) -> zmq.Socket[bytes]:
        socket = bind(self._context, kind, endpoint, self.settings)
        self._sockets.append(socket)
        return socket

    async def close(self, reason: str = "the hub was stopped") -> None:
        """End in order: no order is taken any more, those under way are settled or on record, strategies are told."""
        if self._closed:
            return
        self._closed = True
        self.heart.stop()
        for peer in self.members.peers:
            if not peer.left:
                peer.say(Closing(hub=self.hub, reason=reason))
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if hasattr(self, "dispatch"):
            await self.dispatch.close()
        try:
            await self.brokerage.close()
        finally:
            if self.health is not None:
                await self.health.close()
            if hasattr(self, "publisher"):
                self.publisher.close()
            if hasattr(self, "desk"):
                self.desk.close()
            self.channel.close()
            for socket in self._sockets:
                # Of a hub that did not come far enough to use them.
                socket.close(linger=0)
            if self._door is not None:
                self._door.close()
            for lock in self._claims:
                if lock is not None:
                    lock.release()
            if self._own_context:
                # What was sent last leaves while this waits, at most the sockets' linger.
                await asyncio.get_running_loop().run_in_executor(None, self._context.term)

    # -- the session's events ---------------------------------------------------------------------

    def append(self, item: events.StoreEvent) -> None:
        """What the session tells, to every strategy. (The hub is the session's ``StoreSink``.)"""
        if isinstance(item, events.SessionChanged):
            if item.connected and not self.connected:
                self._check_arming()
            self.connected = item.connected
            if not item.connected and hasattr(self, "publisher"):
                self.publisher.broken()
            _log.info("hub-session state=%s cause=%s next=%s", item.state, item.cause, item.next_step or "-")
        if isinstance(item, events.SessionNotice) and item.kind == "clock-differs":
            # That is of this machine's clock; each process measures its own.
            return
        for peer in self.members.peers:
            if not peer.left and peer.hello.role == "strategy":
                peer.tell(type(item).__name__, item)

    def _check_arming(self) -> None:
        """The session may have come back with another login."""
        try:
            self._arming.still_holds(self.brokerage.accounts(), self.brokerage.is_paper())
        except NotArmedError as problem:
            self.failure = problem
            self.alarm("not-armed", str(problem))
            self.on_failure()

    # -- for others ----------------------------------------------------------------------------------

    @property
    def peers(self) -> Sequence[Peer]:
        """See ``Members``."""
        return self.members.peers

    def peer(self, name: str) -> Peer | None:
        """See ``Members``."""
        return self.members.peer(name)

    @property
    def refused_at_the_door(self) -> int:
        """Keys that were not let in."""
        return 0 if self._door is None else self._door.refused

    def alarm(self, kind: str, text: str) -> None:
        """Something that everybody should know."""
        _log.warning("hub-%s %s", kind, text)
        self.append(events.SessionNotice(kind, text))

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Do it beside; ended with the hub, and logged if it fails."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            _log.error("%s-failed", task.get_name(), exc_info=task.exception())

    async def status(self) -> HubStatus:
        """All of it, for people."""
        return await overview(self)
