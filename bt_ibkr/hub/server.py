"""The hub: owns the session and serves it. Everything here runs on the session's loop.

It is to the order desk what one broker is: one sink per account hears of everything exactly once, and hands it to the
strategy whose order it is of, by the name in the order's key. What belongs to nobody goes to all who attached the
account and want to hear of it.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import secrets
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec
import zmq

from bt_ibkr.connection import interface as events
from bt_ibkr.connection.brokerage import Brokerage
from bt_ibkr.errors import BtIbkrError, NotArmedError, PortInUseError, SessionError, WireError
from bt_ibkr.hub.access import Access, OnVanish
from bt_ibkr.hub.ages import awake_or_asleep_s
from bt_ibkr.hub.arming import Arming
from bt_ibkr.hub.books import BookView
from bt_ibkr.hub.claim import claim
from bt_ibkr.hub.config import HubSettings
from bt_ibkr.hub.desk import HubDesk
from bt_ibkr.hub.dispatch import Dispatch
from bt_ibkr.hub.door import KeyDoor
from bt_ibkr.hub.health import HealthServer
from bt_ibkr.hub.names import check_name
from bt_ibkr.hub.peers import HarmCounts, Peer
from bt_ibkr.hub.protocol import (
    MAX_RECEIVED,
    MAX_REQUEST,
    MAX_SUBSCRIPTION,
    PROTOCOL,
    Beat,
    Closing,
    Greeting,
    Hello,
    HubBeat,
    Leave,
    Refused,
    Request,
    Unknown,
    Welcome,
    encode,
    from_strategy,
    greeting,
    problem_of,
)
from bt_ibkr.hub.publisher import Publisher
from bt_ibkr.hub.sockets import LoopSocket
from bt_ibkr.hub.status import Harm, HubStatus
from bt_ibkr.journal.lock import OwnerLock
from bt_ibkr.version import __version__

_log = logging.getLogger(__name__)

#: Ticks that a subscriber may be behind before it is told of as slow.
_SLOW_TICKS: Final = 1000
#: How often it is noted which strategies have heard of everything, seconds.
_NOTED_S: Final = 2.0
#: Peers that have left or vanished are shown so long, seconds.
_SHOWN_S: Final = 3600.0
#: So many processes are served; a number that nobody needs, and that memory bears.
_MOST_PEERS: Final = 500


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
        self.harm = HarmCounts()
        self.connected = False
        self.emulator = emulator
        self.failure: BtIbkrError | None = None
        self.on_failure: Callable[[], None] = lambda: None
        self.health: HealthServer | None = None
        self._arming = arming or Arming(accounts=settings.accounts)
        self._beaten_s = time.monotonic()
        self._context = context or zmq.Context()
        self._own_context = context is None
        self._access = Access(
            dict(settings.strategies), unlisted=settings.unlisted_grant, encrypted=bool(settings.secret_key)
        )
        self._peers: dict[str, Peer] = {}
        self._by_name: dict[str, Peer] = {}
        #: When strategies that were lost are to be dealt with, monotonic seconds.
        self._vanishing: dict[str, float] = {}
        #: Strategies that were wound up and have not been told so.
        self._wound: set[str] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._slow: set[str] = set()
        self._noted_s = 0.0
        self._commands: LoopSocket | None = None
        #: The command socket, before strategies are let in.
        self._waiting: zmq.Socket[bytes]
        self.publisher: Publisher
        self.desk: HubDesk
        self._dispatch: Dispatch
        self._beating: asyncio.Task[None] | None = None
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
        self.publisher = Publisher(
            ticks, self.brokerage.subscribe_ticks, self.brokerage.unsubscribe_ticks, ring=settings.ring
        )
        self.desk = HubDesk(self)

    async def serve(self, accounts: tuple[str, ...]) -> None:
        """Attach the accounts, and let strategies in.

        Raises:
            BtIbkrError: As ``open``; nothing is left open then.
        """
        try:
            for account in () if self.settings.data_only else accounts:
                await self.desk.attach(account)
            self._dispatch = Dispatch(self)
            self._expect()
            self._commands = LoopSocket(self._waiting, self._received)
            self._beating = asyncio.get_running_loop().create_task(self._beat(), name="hub-beat")
        except BaseException:
            await self.close("the hub could not start")
            raise

    def alive(self) -> dict[str, bool]:
        """What ``/livez`` looks at."""
        beats = self._beating is None or time.monotonic() - self._beaten_s <= self.settings.dead_s
        return {"beats": beats}

    def ready(self) -> dict[str, bool]:
        """What ``/readyz`` looks at."""
        return {
            "listening": self._commands is not None,
            "session streams": self.connected,
            "accounts attached": self.settings.data_only
            or (hasattr(self, "desk") and bool(self.desk.accounts)),
            "may trade": self.failure is None,
        }

    def _bind(self, kind: int, endpoint: str) -> zmq.Socket[bytes]:
        socket: zmq.Socket[bytes] = self._context.socket(kind)
        self._sockets.append(socket)
        socket.setsockopt(zmq.LINGER, 500)
        socket.setsockopt(zmq.MAXMSGSIZE, MAX_RECEIVED if kind == zmq.ROUTER else MAX_SUBSCRIPTION)
        socket.setsockopt(zmq.SNDHWM, self.settings.queue)
        socket.setsockopt(zmq.TCP_KEEPALIVE, 1)
        socket.setsockopt(zmq.HANDSHAKE_IVL, 10_000)
        if kind == zmq.ROUTER:
            socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
            socket.setsockopt(zmq.ROUTER_HANDOVER, 1)
        else:
            socket.setsockopt(zmq.XPUB_MANUAL, 1)
        if self.settings.secret_key:
            socket.setsockopt(zmq.CURVE_SERVER, 1)
            socket.setsockopt(zmq.CURVE_SECRETKEY, self.settings.secret_key.encode())
            socket.setsockopt(zmq.CURVE_PUBLICKEY, zmq.curve_public(self.settings.secret_key.encode()))
            socket.setsockopt(zmq.ZAP_DOMAIN, b"hub")
        try:
            socket.bind(endpoint)
        except zmq.ZMQError as problem:
            socket.close(linger=0)
            if problem.errno == zmq.EADDRINUSE:
                raise PortInUseError(
                    f"A hub cannot listen at {endpoint}: somebody does already.",
                    remedy="Look at it with bt-ibkr hub status, or give this one another endpoint.",
                ) from None
            raise PortInUseError(
                f"A hub cannot listen at {endpoint}: {problem}.", remedy="Look at the endpoint."
            ) from None
        return socket

    async def close(self, reason: str = "the hub was stopped") -> None:
        """End in order: no order is taken any more, those under way are settled or on record, strategies are told."""
        if self._closed:
            return
        self._closed = True
        if self._beating is not None:
            self._beating.cancel()
        for peer in self._peers.values():
            if not peer.left:
                peer.say(Closing(hub=self.hub, reason=reason))
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if hasattr(self, "_dispatch"):
            await self._dispatch.close()
        try:
            await self.brokerage.close()
        finally:
            if self.health is not None:
                await self.health.close()
            if hasattr(self, "publisher"):
                self.publisher.close()
            if hasattr(self, "desk"):
                self.desk.close()
            if self._commands is not None:
                self._commands.close()
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
            _log.info("hub-session state=%s cause=%s next=%s", item.state, item.cause, item.next_step or "-")
        for peer in self._peers.values():
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

    # -- messages ------------------------------------------------------------------------------------

    def _send(self, address: bytes, raw: bytes) -> bool:
        return self._commands is not None and self._commands.send((address, raw))

    def _received(self, frames: list[zmq.Frame]) -> None:
        if len(frames) != 2:
            self._harmed("malformed", f"frames={len(frames)}")
            return
        address, frame = frames[0].bytes, frames[1]
        if len(frame) > MAX_REQUEST:
            self._harmed("oversized", f"bytes={len(frame)}")
            return
        try:
            message = from_strategy(frame.bytes)
        except WireError as problem:
            self._unreadable(address, frame.bytes, problem)
            return
        user = _user(frame)
        if isinstance(message, Hello):
            self._hello(address, user, message)
            return
        peer = self._peers.get(message.session)
        if address != message.session.encode() or (peer is not None and peer.user != user):
            # Whoever repeats what another one has sent.
            self._harmed("replayed", f"session={message.session!r}")
            return
        if peer is None or peer.left:
            self.harm.unknown += isinstance(message, Request)
            self._send(address, encode(Unknown(hub=self.hub, session=message.session)))
            return
        if isinstance(message, Leave):
            peer.acknowledge(message.told)
            self._leave(peer)
            return
        if message.join != peer.join:
            # Sent before it heard that it has joined anew; it may not have heard at all.
            self._send(address, encode(Unknown(hub=self.hub, session=message.session)))
            return
        self._back(peer)
        peer.heard()
        if isinstance(message, Beat):
            peer.take_beat(message)
        elif message.number <= peer.asked:
            # Asked before; the answer is kept until the peer has it.
            return
        elif message.number != peer.asked + 1:
            # One before it was lost: it is sent again with this one after the next beat.
            return
        else:
            peer.asked = message.number
            self._dispatch.take(peer, message)

    def _unreadable(self, address: bytes, raw: bytes, problem: WireError) -> None:
        """Not of this version, or of none."""
        try:
            hello = greeting(raw)
        except WireError:
            hello = None
        if hello is None or hello.protocol == PROTOCOL:
            self._harmed("malformed", f"problem={problem}")
        else:
            self._incompatible(address, hello)

    def _incompatible(self, address: bytes, hello: Hello | Greeting) -> None:
        self._harmed("incompatible", f"name={hello.name!r} protocol={hello.protocol}")
        problem = SessionError(
            f"The hub speaks protocol {PROTOCOL} (bt_ibkr {__version__}), {hello.name} speaks protocol "
            f"{hello.protocol} (bt_ibkr {hello.version}).",
            remedy="Install the same version on both sides.",
        )
        self._refuse(address, hello, problem)

    def _harmed(self, kind: str, what: str) -> None:
        """Count it. A flood must not fill the log: it is told at every power of two."""
        count = getattr(self.harm, kind) + 1
        setattr(self.harm, kind, count)
        if count & (count - 1) == 0:
            _log.warning("hub-message-%s count=%d %s", kind, count, what)

    def _hello(self, address: bytes, user: str, hello: Hello) -> None:
        if hello.protocol != PROTOCOL:
            self._incompatible(address, hello)
            return
        known = self._peers.get(hello.session)
        if address != hello.session.encode() or (known is not None and known.user != user):
            self._harmed("replayed", f"hello={hello.name!r}")
            return
        try:
            grant = self._access.grant(hello.name, hello.role, user)
            if hello.role == "strategy":
                check_name(hello.name)
            self._check_name(hello)
        except BtIbkrError as refusal:
            if isinstance(refusal, SessionError):
                _log.info("hub-refused name=%s problem=%s", hello.name, refusal)
            else:
                self._harmed("unauthorised", f"name={hello.name!r} problem={refusal}")
            self._refuse(address, hello, refusal, again=isinstance(refusal, SessionError))
            return
        if known is not None and (known.name, known.hello.role) != (hello.name, hello.role):
            self._harmed("replayed", f"hello={hello.name!r}")
            return
        # Said again before it heard the first answer: nothing has been asked yet.
        resumed = known is not None and not known.left and (hello.join == known.join or not known.asked)
        if known is not None and resumed:
            peer = known
            self._back(peer)
            peer.heard()
        else:
            peer = Peer(hello, address, user, grant, self._send)
            before = self._by_name.get(hello.name) if hello.role == "strategy" else None
            if before is not None:
                self._drop(before)
            self._peers[hello.session] = peer
            if hello.role == "strategy":
                self._by_name[hello.name] = peer
                self._vanishing.pop(hello.name, None)
                peer.told_before_ns = self.desk.came(hello.name)
                if hello.name in self._wound:
                    peer.informed_s = math.inf
            _log.info(
                "hub-joined name=%s role=%s host=%s pid=%d", peer.name, hello.role, hello.host, hello.pid
            )
        peer.say(
            Welcome(
                hub=self.hub,
                version=__version__,
                session=hello.session,
                join=peer.join,
                ticks=self.settings.ticks_seen(self.ticks),
                accounts=tuple(
                    one for one in self._accounts() if not grant.accounts or one in grant.accounts
                ),
                paper=self.brokerage.is_paper(),
                may_trade=grant.trading,
                clock_s=awake_or_asleep_s(),
                beat_s=self.settings.beat_s,
                dead_s=self.settings.dead_s,
                emulator=self.emulator,
            )
        )
        if resumed:
            peer.again_from(hello.told if hello.join == peer.join else 0)
        elif hello.role == "strategy":
            peer.tell("SessionChanged", self._session_state())

    def _accounts(self) -> tuple[str, ...]:
        """Those traded in; of a hub that only serves data, those of the login, so that a store can open."""
        return self.brokerage.accounts() if self.settings.data_only else self.desk.accounts

    def _session_state(self) -> events.SessionChanged:
        session = self.brokerage.session
        state = "disconnected" if session is None else session.state.value
        return events.SessionChanged(state, "as it stands", "", self.connected)

    def _check_name(self, hello: Hello) -> None:
        """Two processes under one name would trade for each other.

        Raises:
            SessionError: Another process of that name is alive.
        """
        if (
            hello.session not in self._peers
            and sum(not one.left for one in self._peers.values()) >= _MOST_PEERS
        ):
            raise SessionError(f"The hub serves {_MOST_PEERS} processes already.", remedy="End some.")
        other = self._by_name.get(hello.name) if hello.role == "strategy" else None
        if other is None or other.session == hello.session or other.left or other.lost:
            return
        if time.monotonic() - other.heard_s > self.settings.dead_s:
            return
        raise SessionError(
            f"A strategy {hello.name!r} is connected already (process {other.hello.pid} on {other.hello.host}).",
            remedy="End that one, or give this one another name.",
        )

    def _refuse(
        self, address: bytes, hello: Hello | Greeting, problem: BtIbkrError, *, again: bool = False
    ) -> None:
        refused = Refused(session=hello.session, problem=problem_of(problem), again=again)
        self._send(address, encode(refused))

    def _leave(self, peer: Peer) -> None:
        self.desk.note_heard()
        peer.leave()
        if peer.hello.role != "strategy":
            self._peers.pop(peer.session, None)
        elif self._by_name.get(peer.name) is peer:
            self._vanishing.pop(peer.name, None)
            self.desk.went(peer.name)
        _log.info("hub-left name=%s", peer.name)
        self._spawn(self._release(peer), "hub-release")

    def _back(self, peer: Peer) -> None:
        if peer.lost:
            peer.lost = False
            self._vanishing.pop(peer.name, None)
            _log.info("hub-back name=%s", peer.name)
            peer.again_from(peer.beat.told)

    def _drop(self, peer: Peer) -> None:
        """Another process takes its name over."""
        self.desk.note_heard()
        self._peers.pop(peer.session, None)
        self._slow.discard(peer.session)
        peer.leave()
        self._dispatch.forget(peer)
        self._spawn(self._release(peer), "hub-release")

    async def _release(self, peer: Peer) -> None:
        """Its streams end, where nobody else wants them."""
        for word in list(peer.words):
            peer.words.discard(word)
            await self.publisher.leave(word, peer.session)

    # -- heartbeats ----------------------------------------------------------------------------------

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(self.settings.beat_s)
            self._beaten_s = time.monotonic()
            try:
                self._look_after()
            except Exception:  # noqa: BLE001 - one peer must not stop the beats of all
                _log.exception("hub-beat-failed")

    def _look_after(self) -> None:
        now_s = time.monotonic()
        stream_ns = self.brokerage.stream_ns()
        for peer in list(self._peers.values()):
            silent_s = now_s - peer.heard_s
            if peer.left:
                if silent_s > _SHOWN_S:
                    self._peers.pop(peer.session, None)
                    if self._by_name.get(peer.name) is peer:
                        del self._by_name[peer.name]
                continue
            if silent_s > self.settings.dead_s:
                if not peer.lost:
                    self._lose(peer, now_s)
                continue
            peer.say(
                HubBeat(
                    join=peer.join,
                    clock_s=awake_or_asleep_s(),
                    told=peer.told,
                    asked=peer.asked,
                    heads=self.publisher.heads(peer.words),
                    stream_ns=stream_ns,
                )
            )
            self._look_at_speed(peer)
        if now_s - self._noted_s > _NOTED_S:
            self._noted_s = now_s
            self.desk.note_heard()
        for name, due_s in list(self._vanishing.items()):
            if now_s >= due_s:
                del self._vanishing[name]
                self._vanished(name)

    def _expect(self) -> None:
        """Strategies that an earlier hub has lost sight of with its own end: those that do not come have vanished."""
        for name in self.desk.expected():
            grant = self._access.grant_of(name)
            self._vanishing[name] = time.monotonic() + grant.vanish_s

    def _lose(self, peer: Peer, now_s: float) -> None:
        peer.lost = True
        _log.warning("hub-lost name=%s silent_s=%.1f", peer.name, now_s - peer.heard_s)
        if peer.hello.role != "strategy":
            # It asks anew, should it come back.
            self._peers.pop(peer.session, None)
        else:
            wait_s = max(0.0, peer.grant.vanish_s - (now_s - peer.heard_s))
            self._vanishing[peer.name] = now_s + wait_s

    def _vanished(self, name: str) -> None:
        """It did not come back. Should it after all, it begins as with a restarted hub: nothing is kept for it."""
        peer = self._by_name.get(name)
        grant = self._access.grant_of(name) if peer is None else peer.grant
        _log.warning("hub-vanished name=%s policy=%s", name, grant.on_vanish)
        if peer is not None:
            self._drop(peer)
        if grant.on_vanish is OnVanish.LEAVE:
            self.desk.went(name)
        else:
            self._wound.add(name)
            flatten = grant.on_vanish is OnVanish.FLATTEN
            self._spawn(self.desk.wind_up(name, flatten=flatten), "hub-wind-up")

    def _look_at_speed(self, peer: Peer) -> None:
        behind = max(max(peer.beat.behind.values(), default=0), peer.beat.waiting)
        if behind > _SLOW_TICKS and peer.session not in self._slow:
            self._slow.add(peer.session)
            _log.warning("hub-subscriber-slow name=%s behind=%d", peer.name, behind)
        elif behind <= _SLOW_TICKS // 2 and peer.session in self._slow:
            self._slow.discard(peer.session)
            _log.info("hub-subscriber-caught-up name=%s", peer.name)

    # -- for others ----------------------------------------------------------------------------------

    @property
    def peers(self) -> Sequence[Peer]:
        return list(self._peers.values())

    def peer(self, name: str) -> Peer | None:
        """The strategy of that name, as long as it is not gone for good."""
        peer = self._by_name.get(name)
        return None if peer is None or peer.left else peer

    def inform(self, peer: Peer) -> None:
        """A strategy is being told where it stands."""
        self._wound.discard(peer.name)
        peer.inform()

    def alarm(self, kind: str, text: str) -> None:
        """Something that everybody should know."""
        _log.warning("hub-%s %s", kind, text)
        self.append(events.SessionNotice(kind, text))

    def _spawn(self, work: Any, name: str) -> None:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            _log.error("%s-failed", task.get_name(), exc_info=task.exception())

    async def status(self) -> HubStatus:
        """All of it, for people."""
        now_s = time.monotonic()
        topics = self.publisher.status()
        names = {word: topic.contract.describe() for word, topic in self.publisher.items()}
        shown = {peer.session: peer.name for peer in self._peers.values()}
        return HubStatus(
            hub=self.hub,
            version=__version__,
            protocol=PROTOCOL,
            pid=os.getpid(),
            since_ns=self.since_ns,
            session=await self.brokerage.count(),
            connected=self.connected,
            accounts=self.desk.accounts,
            peers=tuple(
                peer.status(
                    now_s,
                    2 * self.settings.beat_s,
                    _SLOW_TICKS,
                    tuple(sorted(names.get(word, "?") for word in peer.words)),
                )
                for peer in self._peers.values()
            ),
            topics=tuple(
                msgspec.structs.replace(
                    topic, subscribers=tuple(sorted(shown.get(one, "?") for one in topic.subscribers))
                )
                for topic in topics
            ),
            books=(books := self.desk.books()),
            names=self._names(books),
            health="" if self.health is None else self.health.url,
            harm=self._counted(),
        )

    def _names(self, books: Sequence[BookView]) -> dict[int, str]:
        """Of what stands in books, as far as it was looked up since the start."""
        conids = {holding.conid for book in books for holding in book.holdings}
        known = {conid: self.brokerage.contracts.known(conid) for conid in conids}
        return {conid: contract.describe() for conid, contract in known.items() if contract is not None}

    def _counted(self) -> Harm:
        counts = msgspec.structs.asdict(self.harm)
        counts["unauthorised"] += self.publisher.refused + (0 if self._door is None else self._door.refused)
        counts["unknown"] += self.publisher.stale
        return Harm(**counts)


def _user(frame: zmq.Frame) -> str:
    """The sender's public key, as the door has let it in; empty on a channel that is not encrypted."""
    try:
        return str(frame.get("User-Id"))
    except (zmq.ZMQError, KeyError):
        return ""
