"""The strategy's end of both channels: one thread that owns the sockets.

What is asked is numbered and kept until it is answered; what the hub tells is taken in order, once. Silence beyond
the hub's own measure is taken as its death and told; it may come back as it was, and then nothing is lost, or as
another one, and then whoever uses the link brings itself up to date before what was not answered is asked again.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import logging
import math
import os
import secrets
import socket as sockets
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, Final, Protocol

import zmq

from bt_ibkr.errors import BtIbkrError, RequestTimeoutError, SessionError, UnreachableError, WireError
from bt_ibkr.hub.ages import awake_or_asleep_s
from bt_ibkr.hub.protocol import (
    MAX_MESSAGE,
    PROTOCOL,
    Beat,
    Closing,
    Hello,
    HubBeat,
    Leave,
    Refused,
    Request,
    Told,
    Unknown,
    Welcome,
    body,
    encode,
    error_of,
    from_hub,
    read,
)
from bt_ibkr.hub.requests import REQUESTS
from bt_ibkr.version import __version__

_log = logging.getLogger(__name__)

#: Until the first welcome tells the hub's own measures, seconds.
_FIRST_BEAT_S: Final = 0.5
#: Beats of the hub that say less was asked than was sent, before it is sent again.
_BEATS_BEFORE_AGAIN: Final = 2
#: Ticks taken in before the command channel gets its turn.
_TICKS_AT_ONCE: Final = 500
#: So long the best reckoning of the hub's clock is used: clocks drift.
_RECKONED_S: Final = 300.0
#: Between attempts to be brought up to date by a new hub, seconds.
_RETURN_S: Final = 1.0


class Keys(Protocol):
    """CURVE keys of a strategy, Z85."""

    @property
    def server(self) -> str:
        """The hub's public key."""

    @property
    def public(self) -> str: ...
    @property
    def secret(self) -> str: ...


class LinkUser(Protocol):
    """Who is told what comes. All of it is called on the link's thread and must not block, but for ``new_hub``."""

    def told(self, message: Told) -> None:
        """A numbered message that is no reply."""

    def tick(self, message: bytes) -> None:
        """A message of the tick channel."""

    def heads(self, heads: dict[bytes, int], stream_ns: int) -> None:
        """Numbers of the newest ticks, by topic; all that came up to the server time are in them."""

    def link_changed(self, up: bool, cause: str, next_step: str = "") -> None:
        """The hub fell silent, or is heard again."""

    def new_hub(self) -> None:
        """Another hub is there: bring it up to date. On a thread of its own; may ask and wait, and is called again
        after a failure."""

    def beat(self) -> tuple[dict[bytes, int], int, int, int]:
        """Ticks behind by topic, ticks waiting, lost and mended."""


class HubClock:
    """The hub's clock for ages (``ages``), as beats tell it.

    A beat has been under way for a time that nobody knows: the one that puts the hub's clock furthest ahead has come
    the fastest. What is reckoned is therefore never later than the hub's own clock, but for the drift of minutes.
    """

    def __init__(self) -> None:
        self._since_s = 0.0
        self._best = self._before = -math.inf

    def take(self, clock_s: float, now_s: float) -> None:
        """The hub's clock showed ``clock_s`` before ``now_s`` of this process."""
        if now_s - self._since_s > _RECKONED_S:
            self._since_s, self._before, self._best = now_s, self._best, -math.inf
        self._best = max(self._best, clock_s - now_s)

    def at(self, local_s: float) -> float:
        """What it showed, at the least, at this process's ``local_s``."""
        return local_s + max(self._best, self._before)


class _Asked:
    __slots__ = ("answer", "asked_s", "first", "future", "kind", "raw")

    def __init__(self, kind: str, raw: Any, answer: Any, *, first: bool) -> None:
        self.kind = kind
        #: It brings a new hub up to date, and goes before what waits for that.
        self.first = first
        self.raw = raw
        self.answer = answer
        self.asked_s = awake_or_asleep_s()
        self.future: concurrent.futures.Future[Any] = concurrent.futures.Future()

    def fail(self, problem: BtIbkrError) -> None:
        """There is no answer."""
        if self.future.set_running_or_notify_cancel():
            self.future.set_exception(problem)


class HubLink:
    """See the module.

    Args:
        endpoint: The hub's command channel.
        name: The strategy's.
        user: Who is told.
        role: See ``Hello``.
        keys: For an encrypted channel.

    Attributes:
        welcome: The hub's, once there is one.
        session: This process's, for the hub.
    """

    def __init__(
        self,
        endpoint: str,
        name: str,
        user: LinkUser,
        *,
        role: str = "strategy",
        keys: Keys | None = None,
    ) -> None:
        self.endpoint = endpoint
        self.name = name
        self.session = secrets.token_hex(8)
        self.welcome: Welcome | None = None
        self._user = user
        self._role = role
        self._keys = keys
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._outgoing: deque[Callable[[], None]] = deque()
        self._wake_r, self._wake_w = os.pipe()
        os.set_blocking(self._wake_r, False)
        os.set_blocking(self._wake_w, False)
        self._thread = threading.Thread(target=self._run, name="hub-link", daemon=True)
        self._first: concurrent.futures.Future[Welcome] = concurrent.futures.Future()
        self._stop = threading.Event()
        self._ended = False
        self.up = False
        # -- the thread's own:
        self._dealer: zmq.Socket[bytes]
        self._sub: zmq.Socket[bytes] | None = None
        self._sub_endpoint = ""
        self._told = 0
        self._number = 0
        self._pending: dict[int, _Asked] = {}
        self._held_back: list[_Asked] | None = None
        self._returning: threading.Thread | None = None
        self._return_failure = ""
        self._clock = HubClock()
        self._denied: BtIbkrError | None = None
        self._heard_s = time.monotonic()
        self._beat_due_s = 0.0
        self._short_beats = 0
        self._silent_told = False
        self.refusal: BtIbkrError | None = None

    # -- other threads -------------------------------------------------------------------------------

    def open(self, patience_s: float) -> Welcome:
        """Say hello and wait for the welcome.

        Raises:
            UnreachableError: No hub answers.
            SessionError, NotArmedError: It refuses.
        """
        self._thread.start()
        try:
            return self._first.result(patience_s)
        except concurrent.futures.TimeoutError:
            self.close()
            if self._denied is not None:
                raise self._denied from None
            raise UnreachableError(
                f"No hub answers at {self.endpoint} within {patience_s:g} s.",
                remedy="Start one with bt-ibkr hub; with keys, check them: a hub does not answer a wrong key.",
            ) from None
        except BtIbkrError:
            self.close()
            raise

    def ask(
        self,
        kind: str,
        value: object = None,
        *,
        done: Callable[[concurrent.futures.Future[Any]], None] | None = None,
    ) -> concurrent.futures.Future[Any]:
        """Ask for something; from any thread. A hub that is away is asked when it is back."""
        if self._ended:
            raise SessionError("The connection to the hub is closed.", remedy="Open a new store.")
        first = threading.current_thread() is self._returning
        asked = _Asked(kind, body(value), REQUESTS[kind].answer, first=first)
        if done is not None:
            asked.future.add_done_callback(done)
        self._do(lambda: self._enqueue(asked))
        return asked.future

    def call(
        self,
        kind: str,
        value: object = None,
        *,
        timeout_s: float,
        done: Callable[[concurrent.futures.Future[Any]], None] | None = None,
    ) -> Any:
        """Ask and wait.

        Args:
            kind, value: What is asked.
            timeout_s: For how long.
            done: Called with the answer on the link's thread, before anything that the hub told after it is taken in.

        Raises:
            RequestTimeoutError: No answer in time.
            BtIbkrError: The hub's.
        """
        future = self.ask(kind, value, done=done)
        try:
            return future.result(timeout_s)
        except concurrent.futures.TimeoutError:
            future.cancel()
            raise RequestTimeoutError(
                f"The hub at {self.endpoint} did not answer {kind!r} within {timeout_s:g} s.",
                remedy="Look at bt-ibkr hub status.",
            ) from None

    def subscribe(self, word: bytes) -> None:
        """Take a topic's messages from now on; from any thread."""
        self._do(lambda: self._sub is not None and self._sub.setsockopt(zmq.SUBSCRIBE, word))

    def unsubscribe(self, word: bytes) -> None:
        """No longer."""
        self._do(lambda: self._sub is not None and self._sub.setsockopt(zmq.UNSUBSCRIBE, word))

    def unanswered(self) -> int:
        """Requests that have no answer yet."""
        return len(self._pending) + len(self._outgoing) + len(self._held_back or ())

    @property
    def taken(self) -> int:
        """Number of the last message taken in."""
        return self._told

    def close(self) -> None:
        """Say goodbye and end; from any other thread. What is not answered fails."""
        if self._ended:
            return
        self._ended = True
        self._stop.set()
        self._poke()
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join(5.0)
        os.close(self._wake_w)
        os.close(self._wake_r)

    def _do(self, action: Callable[[], Any]) -> None:
        self._outgoing.append(action)
        self._poke()

    def _poke(self) -> None:
        with contextlib.suppress(OSError):
            os.write(self._wake_w, b"x")

    # -- the thread ----------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._loop()
        except Exception as problem:  # noqa: BLE001 - whoever waits is told
            _log.exception("hub-link-failed")
            self._fail_all(SessionError(f"The link to the hub failed: {problem!r}."))
        finally:
            if self._sub is not None:
                self._sub.close(linger=0)
            if hasattr(self, "_dealer"):
                self._dealer.close(linger=500)
            self._context.term()

    def _loop(self) -> None:
        self._dealer = self._socket(zmq.DEALER)
        self._dealer.setsockopt(zmq.IDENTITY, self.session.encode())
        self._dealer.setsockopt(zmq.IMMEDIATE, 1)
        self._dealer.connect(self.endpoint)
        poller = zmq.Poller()
        poller.register(self._dealer, zmq.POLLIN)
        poller.register(self._wake_r, zmq.POLLIN)
        polled: zmq.Socket[bytes] | None = None
        while not self._stop.is_set():
            if self._sub is not polled:
                if polled is not None:
                    poller.unregister(polled)
                polled = self._sub
                if polled is not None:
                    poller.register(polled, zmq.POLLIN)
            wait_ms = max(0, int((self._beat_due_s - time.monotonic()) * 1000) + 1)
            ready = dict(poller.poll(wait_ms))
            if polled is not None and polled in ready:
                self._take_ticks(polled)
            if self._dealer in ready:
                self._take_messages()
            if self._wake_r in ready:
                os.read(self._wake_r, 4096)
            while self._outgoing:
                self._outgoing.popleft()()
            if time.monotonic() >= self._beat_due_s:
                self._beat()
        self._say(Leave(session=self.session, told=self._told))
        self._fail_all(SessionError("The connection to the hub was closed.", remedy="Open a new store."))

    def _socket(self, kind: int) -> zmq.Socket[bytes]:
        socket: zmq.Socket[bytes] = self._context.socket(kind)
        socket.setsockopt(zmq.LINGER, 500)
        socket.setsockopt(zmq.MAXMSGSIZE, MAX_MESSAGE)
        socket.setsockopt(zmq.RECONNECT_IVL, 100)
        socket.setsockopt(zmq.RECONNECT_IVL_MAX, 2000)
        # A connection whose far end is cut off is given up, and made again when it can be.
        socket.setsockopt(zmq.HEARTBEAT_IVL, 2000)
        socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, 6000)
        socket.setsockopt(zmq.CONNECT_TIMEOUT, 5000)
        if self._keys is not None:
            socket.setsockopt(zmq.CURVE_SERVERKEY, self._keys.server.encode())
            socket.setsockopt(zmq.CURVE_PUBLICKEY, self._keys.public.encode())
            socket.setsockopt(zmq.CURVE_SECRETKEY, self._keys.secret.encode())
        return socket

    def _say(self, message: object) -> bool:
        try:
            self._dealer.send(encode(message), zmq.NOBLOCK)
        except zmq.Again:
            return False
        return True

    def _hello(self) -> None:
        self._say(
            Hello(
                protocol=PROTOCOL,
                version=__version__,
                name=self.name,
                session=self.session,
                role=self._role,
                host=sockets.gethostname(),
                pid=os.getpid(),
                join="" if self.welcome is None else self.welcome.join,
                told=self._told,
            )
        )

    def _beat(self) -> None:
        now_s = time.monotonic()
        welcome = self.welcome
        if welcome is None:
            self._beat_due_s = now_s + _FIRST_BEAT_S
            if self.refusal is None:
                self._hello()
            return
        self._beat_due_s = now_s + welcome.beat_s
        behind, waiting, lost, mended = self._user.beat()
        self._say(
            Beat(
                session=self.session,
                join=welcome.join,
                told=self._told,
                behind=behind,
                waiting=waiting,
                lost=lost,
                mended=mended,
            )
        )
        if self.up and now_s - self._heard_s > welcome.dead_s:
            self._lose("the hub is not heard any more")

    def _lose(self, cause: str, next_step: str = "the hub is waited for") -> None:
        if self.up:
            self.up = False
            _log.warning("hub-silent endpoint=%s cause=%s", self.endpoint, cause)
            self._user.link_changed(False, cause, next_step)

    def _heard_again(self) -> None:
        if not self.up:
            self.up = True
            # What was sent meanwhile has gone nowhere, most probably.
            self._short_beats = _BEATS_BEFORE_AGAIN
            self._user.link_changed(True, "the hub is heard again")

    # -- messages ------------------------------------------------------------------------------------

    def _take_ticks(self, sub: zmq.Socket[bytes]) -> None:
        take, receive, look, block = self._user.tick, sub.recv, sub.getsockopt, zmq.NOBLOCK
        for _ in range(_TICKS_AT_ONCE):
            take(receive(block))
            # To look is cheaper than to have the socket raise.
            if not int(look(zmq.EVENTS)) & zmq.POLLIN:
                return

    def _take_messages(self) -> None:
        while True:
            try:
                raw = self._dealer.recv(zmq.NOBLOCK)
            except zmq.Again:
                return
            try:
                message = from_hub(raw)
            except WireError as problem:
                _log.warning("hub-message-unreadable problem=%s", problem)
                continue
            self._take(message)

    def _take(self, message: Any) -> None:
        if isinstance(message, Welcome):
            if message.session == self.session:
                self._welcomed(message)
            return
        if isinstance(message, Refused):
            self._refused(message)
            return
        if isinstance(message, Unknown):
            self._hello()
            return
        welcome = self.welcome
        if welcome is None:
            return
        if isinstance(message, Closing):
            if message.hub == welcome.hub:
                self._lose(message.reason)
            return
        if message.join != welcome.join:
            # Of an earlier joining, still under way.
            return
        self._heard_s = time.monotonic()
        if isinstance(message, HubBeat):
            self._clock.take(message.clock_s, awake_or_asleep_s())
            self._heard_again()
            self._take_beat(message)
        elif message.number == self._told + 1:
            self._told = message.number
            self._take_told(message)

    def _take_beat(self, beat: HubBeat) -> None:
        if beat.asked < self._number:
            self._short_beats += 1
            if self._short_beats >= _BEATS_BEFORE_AGAIN:
                self._short_beats = 0
                for number in sorted(self._pending):
                    if number > beat.asked:
                        self._send_request(number)
        else:
            self._short_beats = 0
        self._user.heads(beat.heads, beat.stream_ns)

    def _welcomed(self, welcome: Welcome) -> None:
        before, self.welcome = self.welcome, welcome
        self._heard_s = time.monotonic()
        if before is None or before.hub != welcome.hub:
            self._clock = HubClock()
        self._clock.take(welcome.clock_s, awake_or_asleep_s())
        self._beat_due_s = 0.0
        if before is not None and before.join == welcome.join:
            self._heard_again()
            return
        self._told = 0
        self._number = 0
        self._short_beats = 0
        self._connect_ticks(welcome)
        self.up = True
        if before is None:
            self._first.set_result(welcome)
            for asked in self._take_pending():
                self._enqueue(asked)
            return
        # Another hub, or one that had given this session up: first it is brought up to date, then asked again.
        _log.warning("hub-joined-anew hub=%s before=%s", welcome.hub, before.hub)
        waiting = self._take_pending()
        # What was to bring up to date a hub that is gone itself: whoever waits for it gives up.
        for asked in waiting:
            if asked.first:
                asked.fail(SessionError("The hub was restarted once more."))
        self._held_back = [asked for asked in waiting if not asked.first]
        self._returning = threading.Thread(
            target=self._bring_up_to_date, args=(welcome.join,), name="hub-return", daemon=True
        )
        self._returning.start()

    def _take_pending(self) -> list[_Asked]:
        pending, self._pending = list(self._pending.values()), {}
        return [*(self._held_back or ()), *pending]

    def _present(self, join: str) -> bool:
        return self.welcome is not None and self.welcome.join == join and not self._stop.is_set()

    def _bring_up_to_date(self, join: str) -> None:
        """On a thread of its own, until it is done: a strategy without its streams would stand still."""
        while self._present(join):
            try:
                self._user.new_hub()
                problem = ""
            except BtIbkrError as failure:
                problem = str(failure)
            except Exception as failure:  # noqa: BLE001 - a thread of its own: nobody else would say so
                _log.exception("hub-return-failed")
                problem = repr(failure)
            self._do(partial(self._returned, join, problem))
            if not problem or self._stop.wait(_RETURN_S):
                return

    def _returned(self, join: str, problem: str) -> None:
        """What was not answered by the hub before goes to this one, even if it was not brought up to date whole."""
        if not self._present(join):
            return
        if problem and problem != self._return_failure:
            _log.error("hub-return-failed problem=%s", problem)
            self._user.link_changed(False, f"the hub came back, but {problem}", "it is tried again")
        self._return_failure = problem
        held, self._held_back = self._held_back, None
        for asked in held or ():
            if not asked.future.cancelled():
                self._enqueue(asked)

    def _connect_ticks(self, welcome: Welcome) -> None:
        endpoint = welcome.ticks
        if endpoint.startswith(":"):
            host = self.endpoint.removeprefix("tcp://").rpartition(":")[0]
            endpoint = f"tcp://{host}{endpoint}"
        if self._sub is not None and endpoint == self._sub_endpoint:
            return
        if self._sub is not None:
            self._sub.close(linger=0)
        self._sub = self._socket(zmq.SUB)
        self._sub.setsockopt(zmq.RCVHWM, 100_000)
        self._sub.connect(endpoint)
        self._sub_endpoint = endpoint

    def _refused(self, message: Refused) -> None:
        if message.session != self.session:
            return
        problem = error_of(message.problem)
        if message.again:
            # Somebody of this name is there, perhaps one that has just died: it is asked again.
            self._denied = problem
            self._lose(problem.message, problem.remedy)
            return
        self.refusal = problem
        if not self._first.done():
            self._first.set_exception(problem)
            return
        self._lose(problem.message, problem.remedy)
        self._fail_all(problem)

    def _take_told(self, message: Told) -> None:
        if message.kind != "reply":
            self._user.told(message)
            return
        asked = self._pending.pop(message.to, None)
        if asked is None or not asked.future.set_running_or_notify_cancel():
            return
        if message.problem is not None:
            asked.future.set_exception(error_of(message.problem))
            return
        try:
            asked.future.set_result(read(message.body, asked.answer))
        except WireError as problem:
            asked.future.set_exception(problem)

    def _enqueue(self, asked: _Asked) -> None:
        if self.refusal is not None:
            asked.fail(self.refusal)
            return
        if self._held_back is not None and not asked.first:
            self._held_back.append(asked)
            return
        self._number += 1
        self._pending[self._number] = asked
        self._send_request(self._number)

    def _send_request(self, number: int) -> None:
        asked = self._pending[number]
        self._say(
            Request(
                session=self.session,
                join="" if self.welcome is None else self.welcome.join,
                number=number,
                kind=asked.kind,
                body=asked.raw,
                asked_s=self._clock.at(asked.asked_s),
            )
        )

    def _fail_all(self, problem: BtIbkrError) -> None:
        if not self._first.done():
            self._first.set_exception(problem)
        for asked in self._take_pending():
            asked.fail(problem)
        self._held_back = None
