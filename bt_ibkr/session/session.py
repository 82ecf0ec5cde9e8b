"""The session with IBKR: brought up, watched, brought up again, and its state told truthfully.

Each attempt goes the same way, and each step raises if it fails: credential, ``/tickle`` and ``auth/status``,
``ssodh/init`` where there is no brokerage session, ``/iserver/accounts`` (before it, order and market-data calls
answer HTTP 500), ``/portfolio/accounts`` (before it, portfolio calls answer empty without an error), then the
WebSocket, with everything that was subscribed. The first attempt raises to the caller; every later one is
repeated with growing, jittered pauses, and each change of state is an event.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine

import aiohttp

from bt_ibkr.clock import Clock, SystemClock
from bt_ibkr.config import SessionSettings
from bt_ibkr.errors import (
    AuthenticationError,
    BtIbkrError,
    CompetingError,
    PacingPenaltyError,
    SessionError,
    TrustError,
    UsageError,
    WireError,
)
from bt_ibkr.session.auth.interface import SingleFlight
from bt_ibkr.session.backoff import Backoff
from bt_ibkr.session.classes import RequestClass
from bt_ibkr.session.http import HttpClient, Reply, ssl_context
from bt_ibkr.session.log_on import LogOn, repair_of
from bt_ibkr.session.maintenance import MaintenanceCalendar
from bt_ibkr.session.pacing import GateStatus, gate_of
from bt_ibkr.session.server_time import ServerTime
from bt_ibkr.session.states import CONNECTED, SessionEvent, SessionState, check
from bt_ibkr.session.unknown import Unknowns
from bt_ibkr.session.websocket import Socket, UpgradeRefusedError
from bt_ibkr.wire import session as wire_session
from bt_ibkr.wire import stream_events
from bt_ibkr.wire.frames import Frame

__all__ = ["Session", "SessionEvent", "SessionState"]

_log = logging.getLogger(__name__)

#: Pause between looks while only a person, or another login, can change anything, seconds.
_PATIENT_S = 60.0
#: States that are left only by real progress: a look that shows nothing new is no event.
_WAITING = frozenset(
    {SessionState.NEEDS_PERSON, SessionState.COMPETING, SessionState.MAINTENANCE, SessionState.PENALTY}
)
_CLIMB = (SessionState.GATEWAY_UP, SessionState.READ_ONLY)


class Session:
    """One brokerage session. Lives in one asyncio loop; every method is called there.

    Args:
        settings: Where and how.
        clock: Market clock.
        on_frame: Called for each frame of the WebSocket that no route takes.
        on_progress: Called after each frame.
        on_state: Called with each change of state.
        server_time: Told of what the server stamps.
    """

    def __init__(
        self,
        settings: SessionSettings,
        *,
        clock: Clock | None = None,
        on_frame: Callable[[Frame], None],
        on_progress: Callable[[], None] = lambda: None,
        on_state: Callable[[SessionEvent], None],
        server_time: ServerTime | None = None,
    ) -> None:
        self._server_time = server_time
        self._settings = settings
        self._clock = clock or SystemClock()
        self._frame_sink = on_frame
        self.on_progress = on_progress
        self._state_sink = on_state
        self._state = SessionState.DISCONNECTED
        self._calendar = MaintenanceCalendar(settings.region)
        self._backoff = Backoff(settings.reconnect_first_s, settings.reconnect_longest_s)
        self._client: aiohttp.ClientSession | None = None
        self._gate = gate_of(settings)
        self._gate.on_penalty = self._on_penalty
        self._tasks: list[asyncio.Task[None]] = []
        self._repairs: dict[str, SingleFlight] = {}
        self._penalty_over: asyncio.TimerHandle | None = None
        #: When the session was last found to be as it should.
        self._looked_ns = 0
        self._session_seen: str | None = None
        self._lapsed = asyncio.Event()
        self._streams = False
        #: The last moment at which the stream was known to be whole, where a loss is found out later.
        self._whole_ns = 0
        self._nudged = asyncio.Event()
        self._closing = False
        #: How often each change of state happened.
        self.transitions: Counter[str] = Counter()
        #: How often the stream came back.
        self.reconnects = 0
        self.unknowns = Unknowns()
        self._end_http: Callable[[], Awaitable[None]] | None = None
        self._log_on: LogOn
        self.http: HttpClient
        self.socket: Socket

    @property
    def state(self) -> SessionState:
        return self._state

    @property
    def accounts(self) -> wire_session.Accounts:
        """The accounts of this login.

        Raises:
            SessionError: The session is not open.
        """
        accounts = self._log_on.accounts if hasattr(self, "_log_on") else None
        if accounts is None:
            raise SessionError("The session is not open: its accounts are not known yet.")
        return accounts

    def pacing(self) -> GateStatus:
        """Budget, queues and penalty of the request gate."""
        return self._gate.status()

    def take_over(self) -> None:
        """A person wants the brokerage session taken from whoever has it, once."""
        self._log_on.allow_take_over()
        self._nudged.set()

    def nudge(self) -> None:
        """Try now, not at the end of the present pause."""
        self._nudged.set()

    def _move(self, state: SessionState, cause: str, next_step: str = "") -> None:
        if state is self._state or (self._closing and state is not SessionState.DISCONNECTED):
            return
        if state in _CLIMB and self._state in _WAITING:
            return
        if not self._closing:
            check(self._state, state, cause)
        now_ns = self._clock.now_ns()
        streamed = self._streams
        self._streams = state is SessionState.STREAMING or (state is SessionState.PENALTY and streamed)
        lost = streamed and not self._streams
        event = SessionEvent(
            state=state,
            previous=self._state,
            cause=cause,
            next_step=next_step,
            time_ns=now_ns,
            streams=self._streams,
            since_ns=self._lost_since_ns(now_ns) if lost else 0,
        )
        self.transitions[f"{self._state.value} -> {state.value}"] += 1
        self._state = state
        # An end that was asked for is no news.
        alarming = not self._closing and (state in _WAITING or event.previous in CONNECTED)
        level = logging.WARNING if alarming else logging.INFO
        _log.log(level, "session-state state=%s cause=%s next=%s", state.value, cause, next_step)
        self._state_sink(event)

    def _lost_since_ns(self, now_ns: int) -> int:
        """Since when a stream that is lost now may have had holes."""
        known = [at_ns for at_ns in (self._whole_ns, self.socket.silent_since_ns) if at_ns]
        if 0 < self._looked_ns < now_ns and self._calendar.breaks_between(self._looked_ns, now_ns):
            # The nightly reset ends subscriptions without a word: whether it came before this, nobody has looked.
            known.append(self._looked_ns)
        self._whole_ns = 0
        return min([now_ns, *known])

    # -- life ----------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Log on, prime and stream.

        Raises:
            UnreachableError: Nobody answers at the address.
            TrustError: The certificate is not trusted.
            AuthenticationError: Nobody is logged in at the gateway.
            CompetingError: Another login holds the brokerage session.
        """
        if self._client is not None or self._closing:
            raise SessionError("This session was opened before.", remedy="Make a new one.")
        settings = self._settings
        self._client = aiohttp.ClientSession(
            cookie_jar=aiohttp.CookieJar(unsafe=True),
            headers={"User-Agent": "bt_ibkr", "Accept": "*/*"},
        )
        try:
            self.http = HttpClient(self._client, settings, self._gate)
            self.http.repair = self._repair
            if self._server_time is not None:
                self.http.on_date = self._server_time.date
            self._end_http = self.http.close
            self._log_on = LogOn(self.http, settings, self._reached)
            self.socket = Socket(
                self._client,
                settings,
                ssl_context(settings.trust, settings.base_url),
                self._clock,
                self,
                self.http.authenticator.websocket,
                self.unknowns,
            )
            await self._bring_up()
            self._backoff.succeeded()
            self._start(self._run(), "session")
            self._start(self._keep_alive(), "tickle")
        except BaseException:
            await self.close()
            raise

    def _start(self, coroutine: Coroutine[object, object, None], name: str) -> None:
        task = asyncio.create_task(coroutine, name=name)
        task.add_done_callback(self._ended)
        self._tasks.append(task)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """A task of the session ended although the session was not closed: that is a fault, and is told."""
        if task.cancelled() or self._closing:
            return
        problem = task.exception()
        _log.error("task-died name=%s problem=%r", task.get_name(), problem, exc_info=problem)
        self._fall(
            SessionState.DISCONNECTED, f"the task {task.get_name()} failed: {problem!r}", "open a new session"
        )

    async def close(self) -> None:
        """End the tasks, the WebSocket and the connections. The login at the gateway stays."""
        self._closing = True
        if self._penalty_over is not None:
            self._penalty_over.cancel()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        for flight in self._repairs.values():
            await flight.close()
        if self._end_http is not None:
            await self._end_http()
        if hasattr(self, "socket"):
            await self.socket.drop()
        if self._client is not None:
            await self._client.close()
            self._client = None
        self._move(SessionState.DISCONNECTED, "closed")

    # -- up and up again -----------------------------------------------------------------------------

    async def _bring_up(self) -> None:
        """One attempt, from wherever the session stands to streaming."""
        await self.http.log_on()
        tickle = await self._log_on.tickle()
        self._move(SessionState.GATEWAY_UP, "somebody answers")
        if await self._log_on.run(tickle, known=self._session_seen):
            # A new brokerage session has a new id.
            tickle = await self._log_on.tickle()
        self._session_seen = tickle.session
        self._lapsed.clear()
        # The upgrade is a request like any other, and counted by the server.
        async with self._gate.turn("GET", "/ws", RequestClass.UPKEEP):
            try:
                await self.socket.connect(tickle.session or "")
            except UpgradeRefusedError as refusal:
                if refusal.status != 429:
                    raise
                raise self._gate.refused(f"GET {self._settings.websocket_url}") from None
        self._looked_ns = self._clock.now_ns()
        self._move(SessionState.STREAMING, "the WebSocket is ready")

    def _reached(self, what: str) -> None:
        if self._streams:
            # A repair while the stream goes on.
            return
        if self._state is SessionState.DISCONNECTED:
            # A repair that began before the stream broke.
            self._move(SessionState.GATEWAY_UP, "somebody answers")
        if what == "outer":
            self._move(SessionState.READ_ONLY, "the outer session stands")
            return
        if self._state is SessionState.GATEWAY_UP:
            self._move(SessionState.READ_ONLY, "the outer session stands")
        self._move(SessionState.BROKERAGE, "the brokerage session stands")

    async def _run(self) -> None:
        """Serve the WebSocket; when it ends, bring everything up again. For the life of the session."""
        while True:
            cause = await self.socket.serve()
            self._fall_after(cause)
            await self._recover()

    def _fall_after(self, cause: str) -> None:
        outage = self._calendar.outage_at(self._clock.now_ns())
        if outage is not None:
            self._fall(SessionState.MAINTENANCE, f"{outage.name}: {cause}", "tries again until it is over")
        else:
            self._fall(SessionState.DISCONNECTED, cause, "tries again")

    def _fall(self, state: SessionState, cause: str, next_step: str) -> None:
        if self._state is not state:
            self._move(state, cause, next_step)

    async def _recover(self) -> None:
        while True:
            self._nudged.clear()
            pause = self._backoff.pause_s()
            if self._state in (SessionState.NEEDS_PERSON, SessionState.COMPETING):
                pause = max(pause, min(_PATIENT_S, self._settings.reconnect_longest_s * 2))
            left_s = self._gate.status().penalty_s
            if left_s and self._state is SessionState.DISCONNECTED:
                self._move(
                    SessionState.PENALTY,
                    "IBKR answered HTTP 429 before the stream was lost",
                    f"nothing is tried for {left_s:.0f} s",
                )
            pause = max(pause, left_s)
            _log.info("session-retry attempt=%d in_s=%.2f", self._backoff.attempts, pause)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._nudged.wait(), pause)
            try:
                await self._bring_up()
            except BtIbkrError as problem:
                self._classify(problem)
            else:
                self._backoff.succeeded()
                self.reconnects += 1
                return

    def _classify(self, problem: BtIbkrError) -> None:
        """What a failed attempt means."""
        text = problem.message
        if isinstance(problem, CompetingError):
            self._settle(SessionState.COMPETING, text, "waits until it is free; " + problem.remedy)
        elif isinstance(problem, PacingPenaltyError):
            self._settle(SessionState.PENALTY, text, problem.remedy)
        elif isinstance(problem, UsageError):
            # A key or token is no longer where the settings say: no time of day brings it back.
            self._settle(SessionState.NEEDS_PERSON, text, problem.remedy)
        elif isinstance(problem, (AuthenticationError, TrustError)):
            if self._calendar.outage_at(self._clock.now_ns()) is not None:
                # In the window the login comes back by itself more often than not: nobody is woken up.
                self._fall_after(text)
            else:
                self._settle(SessionState.NEEDS_PERSON, text, problem.remedy)
        else:
            self._fall_after(text)

    def _settle(self, state: SessionState, cause: str, next_step: str) -> None:
        """Come to rest in a waiting state, by way of those that lead to it."""
        if self._state is SessionState.DISCONNECTED and state is not SessionState.NEEDS_PERSON:
            # Whoever refuses, answers.
            self._move(SessionState.GATEWAY_UP, "somebody answers")
        if self._state is SessionState.GATEWAY_UP and state is SessionState.COMPETING:
            self._move(SessionState.READ_ONLY, "the outer session stands")
        self._move(state, cause, next_step)

    # -- watching ------------------------------------------------------------------------------------

    async def _keep_alive(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._lapsed.wait(), self._settings.tickle_interval_s)
            try:
                await self.http.renew()
            except BtIbkrError as problem:
                # The present credential still holds; the next round tries again.
                _log.warning("renewal-failed problem=%s", problem)
            try:
                lapsed = self._lapsed.is_set()
                self._lapsed.clear()
                if self._state is SessionState.STREAMING:
                    await self._look_after(lapsed)
            except BtIbkrError as problem:
                # One failed tickle is no disaster (a user saw 7 % fail); the WebSocket tells a real outage.
                _log.warning("tickle-failed problem=%s", problem)

    async def _look_after(self, lapsed: bool) -> None:
        """Tickle. A session that ended, or was replaced since, has taken all streams with it, although the
        socket's heartbeats go on: the socket is reopened, which logs on first and subscribes last."""
        asked_ns = self._clock.now_ns()
        tickle = await self._log_on.tickle()
        ready = tickle.auth is not None and tickle.auth.ready
        replaced = tickle.session is not None and tickle.session != self._session_seen
        if lapsed or not ready or replaced:
            _log.warning("session-lapsed ready=%s replaced=%s error=%s", ready, replaced, tickle.error)
            if not lapsed:
                # It may have happened right after the last look.
                self._whole_ns = self._looked_ns
            await self.socket.reopen()
        else:
            self._looked_ns = asked_ns

    def _on_penalty(self, seconds: float) -> None:
        """A 429: tell it, and tell its end."""
        if self._state is SessionState.STREAMING:
            self._move(
                SessionState.PENALTY,
                "IBKR answered HTTP 429: too many requests",
                f"for {seconds:.0f} s only what protects positions is sent; the stream goes on",
            )
        if self._penalty_over is not None:
            self._penalty_over.cancel()
        self._penalty_over = asyncio.get_running_loop().call_later(seconds, self._on_penalty_over)

    def _on_penalty_over(self) -> None:
        self._penalty_over = None
        if self._state is SessionState.PENALTY and self._streams:
            self._move(SessionState.STREAMING, "the penalty is over")

    async def _open_again(self) -> None:
        await self._log_on.run()

    async def _repair(self, reply: Reply, used: int) -> bool:
        """An answer that asks for something else first: have it done, once for all who wait.

        Returns:
            Whether the request may be made again.
        """
        what = repair_of(reply, self.http.authenticator.kind)
        if what is None:
            return False
        _log.warning("session-repair what=%s status=%d", what, reply.status)
        if what == "credential":
            await self.http.reauthenticate(used)
            return True
        if what not in self._repairs:
            work = self._open_again if what == "brokerage" else self._log_on.prime_again
            self._repairs[what] = SingleFlight(work, f"repair-{what}")
        await self._repairs[what].run()
        return True

    # -- SocketEvents --------------------------------------------------------------------------------

    def on_frame(self, frame: Frame) -> None:
        if frame.heartbeat_ms is not None and self._server_time is not None:
            self._server_time.heartbeat(frame.heartbeat_ms)
        if frame.topic == "sts" and self._streams:
            self._on_status(frame)
        self._frame_sink(frame)

    def _on_status(self, frame: Frame) -> None:
        try:
            patch = stream_events.status_patch(frame.args)
        except WireError as problem:
            _log.warning("status-unreadable problem=%s", problem)
            return
        if patch.authenticated is False or patch.competing:
            if not self._lapsed.is_set():
                # The tickle that confirms it may have to wait for its turn.
                self._whole_ns = self._clock.now_ns()
            self._lapsed.set()
