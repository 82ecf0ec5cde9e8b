"""The strategy's end of both channels: one thread that owns the sockets.

What is asked is numbered and kept until it is answered; what the hub tells is taken in order, once. Silence beyond
the hub's own measure is taken as its death and told; it may come back as it was, and then nothing is lost, or as
another one, and then whoever uses the link brings itself up to date before what was not answered is asked again.
"""

from __future__ import annotations

import concurrent.futures
import logging
import os
import secrets
import socket as sockets
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Protocol

from bt_ibkr.clock import NS_PER_S
from bt_ibkr.errors import BtIbkrError, RequestTimeoutError, SessionError, UnreachableError, WireError
from bt_ibkr.hub.ages import awake_or_asleep_s
from bt_ibkr.hub.asking import Asked, Asking
from bt_ibkr.hub.hub_clock import HubClock
from bt_ibkr.hub.protocol import (
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
)
from bt_ibkr.hub.requests import REQUESTS
from bt_ibkr.hub.returning import Returning
from bt_ibkr.hub.wires import Keys, Wires
from bt_ibkr.version import __version__

_log = logging.getLogger(__name__)

#: Until the first welcome tells the hub's own measures, seconds.
_FIRST_BEAT_S: Final = 0.5


class LinkUser(Protocol):
    """Who is told what comes. All of it is called on the link's thread and must not block, but for ``new_hub``."""

    def told(self, message: Told) -> None:
        """A numbered message that is no reply."""

    def tick(self, message: bytes) -> None:
        """A message of the tick channel."""

    def heads(self, heads: dict[bytes, int], stream_ns: int) -> None:
        """Numbers of the newest ticks, by topic; all that came up to the server time are in them."""

    def server_time(self, server_ns: int) -> None:
        """It is so late by the server's clock."""

    def link_changed(self, up: bool, cause: str, next_step: str = "") -> None:
        """The hub fell silent, or is heard again."""

    def new_hub(self) -> None:
        """Another hub is there: bring it up to date. On a thread of its own; may ask and wait, and is called again
        after a failure."""

    def beat(self) -> tuple[dict[bytes, int], int, int, int]:
        """Ticks behind by topic, ticks waiting, lost and mended."""


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
        self._wires = Wires(keys)
        self._asking = Asking()
        self._outgoing: deque[Callable[[], None]] = deque()
        self._thread = threading.Thread(target=self._run, name="hub-link", daemon=True)
        self._first: concurrent.futures.Future[Welcome] = concurrent.futures.Future()
        self._stop = threading.Event()
        self._ended = False
        self.up = False
        # -- the thread's own:
        self._told = 0
        self._returning = Returning(
            lambda: user.new_hub(), self._present, self._do, self._returned, self._stop.wait
        )
        self._clock = HubClock()
        self._denied: BtIbkrError | None = None
        self._heard_s = time.monotonic()
        self._beat_due_s = 0.0
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
        first = self._returning.is_here()
        asked = Asked(kind, body(value), REQUESTS[kind].answer, first=first)
        if done is not None:
            asked.future.add_done_callback(done)
        self._asking.open(asked)
        self._do(lambda: self._put(asked))
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
        self._do(lambda: self._wires.subscribe(word, True))

    def unsubscribe(self, word: bytes) -> None:
        """No longer."""
        self._do(lambda: self._wires.subscribe(word, False))

    def unanswered(self) -> int:
        """Requests whose answer was not taken in yet."""
        return len(self._asking)

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
        self._wires.wake()
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join(5.0)
        elif self._thread.ident is None:
            self._wires.close()
        self._wires.release()

    def _do(self, action: Callable[[], Any]) -> None:
        self._outgoing.append(action)
        self._wires.wake()

    # -- the thread ----------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._loop()
        except Exception as problem:  # noqa: BLE001 - whoever waits is told
            _log.exception("hub-link-failed")
            self._fail_all(SessionError(f"The link to the hub failed: {problem!r}."))
        finally:
            self._wires.close()

    def _loop(self) -> None:
        wires = self._wires
        wires.open(self.endpoint, self.session)
        while not self._stop.is_set():
            ticks, messages = wires.wait(self._beat_due_s - time.monotonic())
            if ticks:
                wires.take_ticks(self._user.tick)
            if messages:
                self._take_messages()
            while self._outgoing:
                self._outgoing.popleft()()
            if time.monotonic() >= self._beat_due_s:
                self._beat()
        self._say(Leave(session=self.session, told=self._told))
        self._fail_all(SessionError("The connection to the hub was closed.", remedy="Open a new store."))

    def _say(self, message: object) -> bool:
        return self._wires.send(encode(message))

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
            self._asking.lost()
            self._user.link_changed(True, "the hub is heard again")

    # -- messages ------------------------------------------------------------------------------------

    def _take_messages(self) -> None:
        for raw in self._wires.messages():
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
            self._take_clocks(message)
            self._heard_again()
            self._take_beat(message)
        elif message.number == self._told + 1:
            self._told = message.number
            if message.kind == "reply":
                self._asking.answered(message)
            else:
                self._user.told(message)

    def _take_clocks(self, told: Welcome | HubBeat) -> None:
        """Both were read at the same moment: however long the message was under way, they belong together."""
        now_s = awake_or_asleep_s()
        self._clock.take(told.clock_s, now_s)
        if told.server_ns:
            since_s = self._clock.at(now_s) - told.clock_s
            self._user.server_time(told.server_ns + round(since_s * NS_PER_S))

    def _take_beat(self, beat: HubBeat) -> None:
        for number in self._asking.again(beat.asked):
            self._send_request(number)
        self._user.heads(beat.heads, beat.stream_ns)

    def _welcomed(self, welcome: Welcome) -> None:
        before, self.welcome = self.welcome, welcome
        self._heard_s = time.monotonic()
        if before is None or before.hub != welcome.hub:
            self._clock = HubClock()
        self._take_clocks(welcome)
        self._beat_due_s = 0.0
        if before is not None and before.join == welcome.join:
            self._heard_again()
            return
        self._told = 0
        self._wires.connect_ticks(self._ticks_of(welcome))
        self.up = True
        if before is None:
            self._first.set_result(welcome)
            for asked in self._asking.joined():
                self._put(asked)
            return
        # Another hub, or one that had given this session up: first it is brought up to date, then asked again.
        _log.warning("hub-joined-anew hub=%s before=%s", welcome.hub, before.hub)
        self._asking.hold_back()
        self._returning.begin(welcome.join)

    def _present(self, join: str) -> bool:
        return self.welcome is not None and self.welcome.join == join and not self._stop.is_set()

    def _returned(self, problem: str) -> None:
        """What the hub before has not answered goes to this one, even if it was not brought up to date whole."""
        if problem:
            self._user.link_changed(False, f"the hub came back, but {problem}", "it is tried again")
        for asked in self._asking.release():
            self._put(asked)

    def _ticks_of(self, welcome: Welcome) -> str:
        if not welcome.ticks.startswith(":"):
            return welcome.ticks
        host = self.endpoint.removeprefix("tcp://").rpartition(":")[0]
        return f"tcp://{host}{welcome.ticks}"

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
        self._asking.refuse(problem)

    def _put(self, asked: Asked) -> None:
        number = self._asking.put(asked)
        if number is not None:
            self._send_request(number)

    def _send_request(self, number: int) -> None:
        asked = self._asking[number]
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
        self._asking.fail_all(problem)
