"""The session with IBKR: who is logged in, kept alive, with its WebSocket.

Start-up order (each step raises if it fails): ``/tickle`` and ``auth/status``, ``ssodh/init`` where there is
no brokerage session, ``/iserver/accounts`` (before it, order and market-data calls answer HTTP 500),
``/portfolio/accounts`` (before it, portfolio calls answer empty without an error), then the WebSocket.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from enum import Enum

import aiohttp

from bt_ibkr.clock import Clock, SystemClock
from bt_ibkr.config import SessionSettings
from bt_ibkr.errors import AuthenticationError, BtIbkrError, SessionError, WireError
from bt_ibkr.session.auth.interface import REFUSED, RENEWABLE
from bt_ibkr.session.http import HttpClient, Reply, ssl_context
from bt_ibkr.session.pacing import IBKR_LIMITS, PacingGate
from bt_ibkr.session.websocket import Socket
from bt_ibkr.wire import session as wire_session
from bt_ibkr.wire import stream_events
from bt_ibkr.wire.frames import Frame

_log = logging.getLogger(__name__)

#: How often the brokerage session is asked for before a person is asked.
_INIT_TRIES = 3
#: Statuses by which the gateway says that nobody is logged in; their bodies are text or HTML.
_NOT_LOGGED_IN = frozenset({401, 403, 410})


class SessionState(Enum):
    """Where the session stands."""

    CLOSED = "closed"
    OPENING = "opening"
    STREAMING = "streaming"
    BROKEN = "broken"


_ALLOWED = {
    SessionState.CLOSED: {SessionState.OPENING},
    SessionState.OPENING: {SessionState.STREAMING, SessionState.CLOSED},
    SessionState.STREAMING: {SessionState.BROKEN, SessionState.CLOSED},
    SessionState.BROKEN: {SessionState.STREAMING, SessionState.CLOSED},
}


class Session:
    """One brokerage session. Lives in one asyncio loop; every method is called there.

    Args:
        settings: Where and how.
        clock: Market clock.
        on_frame: Called for each frame of the WebSocket that no route takes.
        on_progress: Called after each frame.
        on_state: Called at each change of state with the new state and its cause.
    """

    def __init__(
        self,
        settings: SessionSettings,
        *,
        clock: Clock | None = None,
        on_frame: Callable[[Frame], None],
        on_progress: Callable[[], None] = lambda: None,
        on_state: Callable[[SessionState, str], None],
    ) -> None:
        self._settings = settings
        self._clock = clock or SystemClock()
        self._frame_sink = on_frame
        self.on_progress = on_progress
        self._state_sink = on_state
        self._state = SessionState.CLOSED
        self._client: aiohttp.ClientSession | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._opened: asyncio.Future[None] | None = None
        self._session_seen: str | None = None
        self._lapsed = asyncio.Event()
        self._accounts: wire_session.Accounts | None = None
        self._end_http: Callable[[], Awaitable[None]] | None = None
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
        if self._accounts is None:
            raise SessionError("The session is not open: its accounts are not known yet.")
        return self._accounts

    def _move(self, state: SessionState, cause: str) -> None:
        if state is self._state:
            return
        if state not in _ALLOWED[self._state]:
            raise SessionError(f"The session cannot go from {self._state.value} to {state.value} ({cause}).")
        self._state = state
        _log.info("session-%s cause=%s", state.value, cause)
        self._state_sink(state, cause)

    async def open(self) -> None:
        """Log on, prime and stream.

        Raises:
            UnreachableError: Nobody answers at the address.
            TrustError: The certificate is not trusted.
            AuthenticationError: Nobody is logged in at the gateway.
        """
        self._move(SessionState.OPENING, "asked to")
        settings = self._settings
        self._client = aiohttp.ClientSession(
            cookie_jar=aiohttp.CookieJar(unsafe=True),
            headers={"User-Agent": "bt_ibkr", "Accept": "*/*"},
        )
        gate = PacingGate(IBKR_LIMITS if settings.paced else ())
        try:
            self.http = HttpClient(self._client, settings, gate)
            self._end_http = self.http.close
            await self.http.log_on()
            await self._log_on()
            await self._prime()
            self.socket = Socket(
                self._client,
                settings,
                ssl_context(settings.trust, settings.base_url),
                self._clock,
                self,
                self._session_id,
                self.http.authenticator.websocket,
            )
            self._opened = asyncio.get_running_loop().create_future()
            self._start(self.socket.run(), "websocket")
            await self._opened
            self._start(self._keep_alive(), "tickle")
        except BaseException:
            await self.close()
            raise

    def _start(self, coroutine: object, name: str) -> None:
        task: asyncio.Task[None] = asyncio.create_task(coroutine, name=name)  # type: ignore[arg-type]
        task.add_done_callback(self._ended)
        self._tasks.append(task)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """A task of the session ended; unless the session is being closed, that is a fault to be told."""
        if task.cancelled():
            return
        problem = task.exception()
        if self._opened is not None and not self._opened.done():
            self._opened.set_exception(problem or SessionError(f"The task {task.get_name()} ended early."))
            return
        _log.error("task-died name=%s problem=%r", task.get_name(), problem)
        if self._state is SessionState.STREAMING:
            self._move(SessionState.BROKEN, f"{task.get_name()} failed: {problem}")

    async def close(self) -> None:
        """End the tasks, the WebSocket and the connections. The login at the gateway stays."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        if self._end_http is not None:
            await self._end_http()
        if self._client is not None:
            await self._client.close()
            self._client = None
        if self._state is not SessionState.CLOSED:
            self._move(SessionState.CLOSED, "asked to")

    async def _log_on(self) -> None:
        tickle = await self._tickle()
        status = tickle.auth
        for attempt in range(_INIT_TRIES):
            if status is None or not status.ready:
                # The very first look after a start can be wrong: look once more before acting.
                status = _status_in(await self._ask("/iserver/auth/status"))
            if status.ready:
                return
            if status.competing and not self._settings.compete:
                raise AuthenticationError(
                    "Another login of the same user holds the brokerage session.",
                    remedy="Log the other one out, or allow this one to take over.",
                )
            _log.info("session-init attempt=%d", attempt + 1)
            body = {"publish": True, "compete": self._settings.compete}
            reply = await self._ask("/iserver/auth/ssodh/init", body)
            if reply.status == 200:
                status = wire_session.auth_status(reply.body)
                if status.ready:
                    return
            status = None
        raise AuthenticationError(
            f"{self._settings.base_url} answers, but nobody is logged in there.",
            remedy=self.http.authenticator.remedy,
        )

    async def _ask(self, path: str, body: object | None = None) -> Reply:
        """A POST about the session itself, which may be made twice: where the credential was refused it is
        replaced once, for all who wait."""
        used = self.http.generation
        reply = await self.http.send("POST", path, body=body)
        if reply.status in REFUSED and self.http.authenticator.kind in RENEWABLE:
            _log.warning("credential-refused path=%s status=%d", path, reply.status)
            await self.http.reauthenticate(used)
            reply = await self.http.send("POST", path, body=body)
        return reply

    async def _tickle(self) -> wire_session.Tickle:
        reply = await self._ask("/tickle")
        if reply.status in _NOT_LOGGED_IN:
            return wire_session.Tickle(session=None, auth=None, error=reply.text)
        return wire_session.tickle(reply.body)

    async def _prime(self) -> None:
        self._accounts = wire_session.brokerage_accounts(
            self.http.checked("GET /iserver/accounts", await self.http.send("GET", "/iserver/accounts"))
        )
        await self.http.get("/portfolio/accounts")

    async def _session_id(self) -> str:
        """Before each WebSocket connection: session first, socket second."""
        tickle = await self._tickle()
        if tickle.auth is None or not tickle.auth.ready:
            await self._log_on()
            await self._prime()
            # A new brokerage session has a new id.
            tickle = await self._tickle()
        elif self._state is SessionState.BROKEN:
            # After the nightly reset the server asks for the accounts again.
            self._accounts = wire_session.brokerage_accounts(await self.http.get("/iserver/accounts"))
        self._session_seen = tickle.session
        self._lapsed.clear()
        return tickle.session or ""

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
        tickle = await self._tickle()
        ready = tickle.auth is not None and tickle.auth.ready
        replaced = tickle.session is not None and tickle.session != self._session_seen
        if lapsed or not ready or replaced:
            _log.warning("session-lapsed ready=%s replaced=%s error=%s", ready, replaced, tickle.error)
            await self.socket.reopen()

    # SocketEvents

    def on_frame(self, frame: Frame) -> None:
        if frame.topic == "sts" and self._state is SessionState.STREAMING:
            self._on_status(frame)
        self._frame_sink(frame)

    def _on_status(self, frame: Frame) -> None:
        try:
            patch = stream_events.status_patch(frame.args)
        except WireError as problem:
            _log.warning("status-unreadable problem=%s", problem)
            return
        if patch.authenticated is False:
            self._lapsed.set()

    def on_open(self, *, again: bool) -> None:
        self._move(SessionState.STREAMING, "WebSocket ready again" if again else "WebSocket ready")
        if self._opened is not None and not self._opened.done():
            self._opened.set_result(None)

    def on_break(self, cause: str) -> None:
        if self._state is SessionState.STREAMING:
            self._move(SessionState.BROKEN, cause)


def _status_in(reply: Reply) -> wire_session.AuthStatus:
    if reply.status in _NOT_LOGGED_IN:
        return wire_session.AuthStatus(message=reply.text)
    return wire_session.auth_status(reply.body)
