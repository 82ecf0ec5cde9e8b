"""The WebSocket: handshake, keep-alive, reconnection, and the list of what is subscribed.

Rules of the wire that this module keeps (recorded 2026-04 and later):

- Nothing is sent before the frame ``system`` + ``success``: the gateway completes the upgrade by itself and
  throws away what arrives before it is connected upstream.
- ``tic`` keeps the socket; it is answered four times.
- Heartbeats come every 10 s; a socket that says nothing for ``silence_s`` is dead.
- Subscriptions do not survive a reconnect: all are sent again after the new ``success``.
- Market-data subscriptions end without a word after 10 to 15 minutes: each is sent again before that.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Callable
from typing import Any, Protocol

import aiohttp
import msgspec

from bt_ibkr.clock import NS_PER_S, Clock
from bt_ibkr.config import SessionSettings
from bt_ibkr.errors import RequestTimeoutError, UnreachableError, WireError
from bt_ibkr.redaction import redact
from bt_ibkr.session.http import trust_error
from bt_ibkr.session.mute import MuteWatch
from bt_ibkr.session.unknown import Unknowns
from bt_ibkr.wire import frames, topics
from bt_ibkr.wire.frames import Frame, QuoteFrame

_log = logging.getLogger(__name__)

#: Longest wait for the other side's close frame, seconds.
_GOODBYE_S = 1.5
_CREDENTIAL = (
    "Is somebody logged in? With OAuth 2.0 or a token, try the other websocket_parameter "
    "(bearer_token, sessionToken): IBKR's texts name both."
)
#: What to do where the upgrade is refused, by HTTP status.
_UPGRADE_REMEDIES = {401: _CREDENTIAL, 403: _CREDENTIAL}


class UpgradeRefusedError(UnreachableError):
    """The server answered the upgrade with an HTTP ``status`` instead."""

    def __init__(self, url: str, status: int) -> None:
        super().__init__(
            f"{url} refused the WebSocket: HTTP {status}.",
            remedy=_UPGRADE_REMEDIES.get(status, ""),
        )
        self.status = status


class Subscription(msgspec.Struct, frozen=True, kw_only=True):
    """Something asked of the WebSocket and to be asked again after a reconnect.

    Attributes:
        key: Identity; a second subscription under the same key replaces the first.
        text: The message that subscribes.
        undo: The message that ends it.
        renew_ns: Market nanoseconds after which ``text`` is sent again; 0 for never.
        answers: Sending ``text`` again is answered with a frame whose topic is ``key``, if there was one before.
    """

    key: str
    text: str
    undo: str
    renew_ns: int = 0
    answers: bool = False


class SocketEvents(Protocol):
    """Who is told; called in the loop's thread."""

    def on_frame(self, frame: Frame) -> None:
        """A frame with a topic, after the handshake's."""

    def on_progress(self) -> None:
        """A frame was read and dealt with; ``Socket.received`` counts it."""


class Socket:
    """The WebSocket of a session: one connection at a time, and what is subscribed on each.

    Args:
        client: The aiohttp session, passed in.
        settings: Where and how.
        ssl_context: As for REST.
        clock: Market clock, for renewals.
        events: Who is told.
        authenticate: Address and headers that authenticate a connection, from the plain address and the
            session id.
        unknowns: Told of the fields of market data.
    """

    def __init__(
        self,
        client: aiohttp.ClientSession,
        settings: SessionSettings,
        ssl_context: ssl.SSLContext | bool,
        clock: Clock,
        events: SocketEvents,
        authenticate: Callable[[str, str], tuple[str, dict[str, str]]],
        unknowns: Unknowns,
    ) -> None:
        self._client = client
        self._settings = settings
        self._ssl = ssl_context
        self._clock = clock
        self._events = events
        self._authenticate = authenticate
        self._unknowns = unknowns
        #: Topics whose next frame answers a subscription, and is looked at for fields that nobody knows.
        self._fresh: set[str | None] = set()
        self._ws: aiohttp.ClientWebSocketResponse[Any] | None = None
        self._ready = False
        self._subscriptions: dict[str, Subscription] = {}
        self._sent_at_ns: dict[str, int] = {}
        self._mute = MuteWatch(settings.mute_s, settings.mute_s / 10)
        #: Market time up to which a connection, or a topic of it, that fell silent was heard; 0 otherwise.
        self.silent_since_ns = 0
        #: Who takes the frames of a topic at once, instead of ``events.on_frame``: for market data, which
        #: outnumber everything else. A handler does not raise.
        self.routes: dict[str | None, Callable[[QuoteFrame], None]] = {}
        #: The same of topics whose frames hold more than a quote: their handlers get the bytes, too.
        self.whole_routes: dict[str | None, Callable[[QuoteFrame, bytes], None]] = {}
        #: Frames received on the present connection, and on those before it.
        self.received = 0
        self.received_before = 0
        #: Local port of the present connection, 0 if there is none.
        self.local_port = 0
        #: Frames that could not be read, since the start.
        self.unreadable = 0

    @property
    def ready(self) -> bool:
        return self._ready

    @property
    def subscribed(self) -> tuple[str, ...]:
        """The keys of what is subscribed."""
        return tuple(self._subscriptions)

    async def connect(self, session_id: str) -> None:
        """Open a connection for the session ``session_id``, wait for the server's welcome, send every subscription.

        Raises:
            UnreachableError: It could not be opened.
            TrustError: The certificate is not trusted.
            RequestTimeoutError: The server did not say ``system.success`` in time.
        """
        try:
            await self._connect(session_id)
        except BaseException as problem:
            await self.drop()
            if isinstance(problem, (TimeoutError, aiohttp.ClientError, OSError)):
                raise UnreachableError(
                    f"The WebSocket {self._settings.websocket_url} could not be opened ({redact(str(problem))})."
                ) from None
            raise

    async def serve(self) -> str:
        """Read until the connection ends; why it did."""
        try:
            return await self._serve()
        except (TimeoutError, aiohttp.ClientError, OSError) as problem:
            return redact(f"{type(problem).__name__}: {problem}")
        finally:
            await self.drop()

    async def _connect(self, session_id: str) -> None:
        url = self._settings.websocket_url
        # The address with a credential in it is told to nobody.
        address, headers = self._authenticate(url, session_id)
        try:
            self._ws = await self._client.ws_connect(
                address,
                ssl=self._ssl,
                headers=headers,
                max_msg_size=frames.MAX_FRAME,
                autoping=True,
                compress=0,
                # The typed decoder takes bytes; making text of them first would be work for nothing.
                decode_text=False,
                timeout=aiohttp.ClientWSTimeout(ws_close=1.0),
            )
        except aiohttp.ClientConnectorCertificateError as problem:
            raise trust_error(url, problem.certificate_error) from None
        except aiohttp.WSServerHandshakeError as problem:
            raise UpgradeRefusedError(url, problem.status) from None
        self.received_before += self.received
        self.received = 0
        self.silent_since_ns = 0
        self._mute = MuteWatch(self._settings.mute_s, self._settings.mute_s / 10)
        sockname = self._ws.get_extra_info("sockname")
        self.local_port = sockname[1] if sockname else 0
        try:
            async with asyncio.timeout(self._settings.connect_timeout_s):
                await self._await_success()
        except TimeoutError:
            raise RequestTimeoutError(
                f"{url} accepted the WebSocket but did not say `system.success` within "
                f"{self._settings.connect_timeout_s:g} s.",
                remedy="Is somebody logged in at the gateway?",
            ) from None
        self._ready = True
        for subscription in list(self._subscriptions.values()):
            await self._send_subscription(subscription)

    async def _await_success(self) -> None:
        assert self._ws is not None
        async for message in self._ws:
            frame = self._read(message)
            if frame is None:
                continue
            self._events.on_frame(frame)
            if frame.topic == "system" and frame.success:
                return
        raise RequestTimeoutError(f"{self._settings.websocket_url} closed the WebSocket before it was ready.")

    def _read(self, message: aiohttp.WSMessage) -> Frame | None:
        self.received += 1
        try:
            return frames.decode(message.data)
        except (WireError, TypeError) as problem:
            self.unreadable += 1
            if self.unreadable in (1, 10, 100) or self.unreadable % 1000 == 0:
                _log.warning("frame-unreadable count=%d problem=%s", self.unreadable, problem)
            return None

    async def _serve(self) -> str:
        """Read until the socket ends; the cause of its end."""
        assert self._ws is not None
        ws = self._ws
        keeper = asyncio.create_task(self._keep_alive(ws), name="websocket-keep-alive")
        on_frame, on_progress = self._events.on_frame, self._events.on_progress
        route, whole_route = self.routes.get, self.whole_routes.get
        decode, decode_quote = frames.decode, frames.decode_quote
        heard = self._mute.heard.add
        fresh = self._fresh
        text, binary = aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY
        receive = ws.receive
        try:
            while True:
                # `async for` costs one more coroutine a frame; this loop is the hot path.
                message = await receive()
                kind = message.type
                if kind is not text and kind is not binary:
                    if kind != aiohttp.WSMsgType.ERROR:
                        return f"closed with code {ws.close_code}"
                    if isinstance(message.data, aiohttp.WebSocketError):
                        # A frame too large, or none at all: there is no going on behind it.
                        self.unreadable += 1
                    return str(ws.exception())
                try:
                    quote = decode_quote(message.data)
                    topic = quote.topic
                    take = route(topic)
                    heard(topic)
                    if take is None and (take_whole := whole_route(topic)) is None:
                        # Rare enough to be decoded twice: all but market data.
                        frame = decode(message.data)
                except WireError as problem:
                    self.received += 1
                    self.unreadable += 1
                    if self.unreadable in (1, 10, 100) or self.unreadable % 1000 == 0:
                        _log.warning("frame-unreadable count=%d problem=%s", self.unreadable, problem)
                    on_progress()
                    continue
                if take is not None:
                    if fresh and topic in fresh:
                        fresh.discard(topic)
                        self._unknowns.fields(message.data)
                    take(quote)
                elif take_whole is not None:
                    if topic in fresh:
                        fresh.discard(topic)
                        self._unknowns.fields(message.data)
                    take_whole(quote, message.data)
                else:
                    on_frame(frame)
                # Only now: who sees this count may rely on the frame's ticks and reports being there.
                self.received += 1
                on_progress()
        finally:
            keeper.cancel()

    async def _keep_alive(self, ws: aiohttp.ClientWebSocketResponse[Any]) -> None:
        """Send ``tic``, renew what would run out, and close a socket that fell silent."""
        settings = self._settings
        loop = asyncio.get_running_loop()
        last_count, silent_since, last_tic = self.received, loop.time(), loop.time()
        heard_ns = self._clock.now_ns()
        # A market that runs faster than the watch wants its renewals faster, too.
        renewal_s = self._clock.wall_s(renewal_ns(settings.renew_market_data_s))
        step = min(1.0, settings.tic_interval_s, settings.silence_s / 2, settings.mute_s / 20)
        step = min(step, max(renewal_s / 8, 0.005))
        looked_ns = heard_ns
        while True:
            await asyncio.sleep(step)
            now = loop.time()
            if self.received != last_count:
                last_count, silent_since = self.received, now
                heard_ns = looked_ns
            elif now - silent_since > settings.silence_s:
                _log.warning("websocket-silent for_s=%.1f", now - silent_since)
                self.silent_since_ns = heard_ns
                await _hang_up(ws)
                return
            looked_ns = self._clock.now_ns()
            if now - last_tic >= settings.tic_interval_s:
                last_tic = now
                await self._send(topics.TIC)
            await self.renew_due()
            if await self._look_for_mute(now):
                return

    async def _look_for_mute(self, now_s: float) -> bool:
        """Ask again for what fell silent; whether the connection was closed because something did not answer."""
        kept = [key for key, subscription in self._subscriptions.items() if subscription.answers]
        verdict = self._mute.look(now_s, kept)
        for key in verdict.ask:
            _log.info("topic-silent topic=%s", key)
            await self._send_subscription(self._subscriptions[key])
        if not verdict.dead:
            return False
        silent_s = now_s - self._mute.since_s(verdict.dead)
        _log.warning("topic-mute topics=%s for_s=%.1f", ",".join(verdict.dead), silent_s)
        self.silent_since_ns = self._heard_ns(silent_s)
        await self.reopen()
        return True

    def _heard_ns(self, seconds_ago: float) -> int:
        """Market time so many wall seconds ago."""
        per_second = self._clock.wall_s(NS_PER_S)
        ago_ns = int(seconds_ago / per_second * NS_PER_S) if per_second > 0 else 0
        return self._clock.now_ns() - ago_ns

    async def reopen(self) -> None:
        """Close the present connection; the session opens the next one and subscribes everything again."""
        if self._ready and self._ws is not None:
            await _hang_up(self._ws)

    async def renew_due(self) -> None:
        """Send again every subscription whose time has come by the market clock."""
        if not self._ready:
            return
        now_ns = self._clock.now_ns()
        for key, subscription in list(self._subscriptions.items()):
            age_ns = now_ns - self._sent_at_ns.get(key, 0)
            # A clock that was set back says nothing about the age: better once too often.
            if subscription.renew_ns and not 0 <= age_ns < subscription.renew_ns:
                await self._send_subscription(subscription)

    async def subscribe(self, subscription: Subscription) -> None:
        """Ask now, and again after every reconnect."""
        self._subscriptions[subscription.key] = subscription
        await self._send_subscription(subscription)

    async def unsubscribe(self, key: str) -> None:
        """End what was asked under ``key``; unknown keys are ignored."""
        subscription = self._subscriptions.pop(key, None)
        self._sent_at_ns.pop(key, None)
        self._mute.forget(key)
        self._fresh.discard(key)
        if subscription is not None and subscription.undo:
            await self._send(subscription.undo)

    async def ask_again(self, *keys: str) -> None:
        """Send subscriptions again, those of ``keys`` that there are."""
        for key in keys:
            if key in self._subscriptions:
                await self._send_subscription(self._subscriptions[key])

    async def _send_subscription(self, subscription: Subscription) -> None:
        self._sent_at_ns[subscription.key] = self._clock.now_ns()
        if subscription.answers:
            self._fresh.add(subscription.key)
        await self._send(subscription.text)

    async def _send(self, text: str) -> None:
        ws = self._ws
        if ws is None or not self._ready or ws.closed:
            return
        try:
            await ws.send_str(text)
        except (ConnectionError, aiohttp.ClientError) as problem:
            # The reader notices the end by itself and everything is sent again after the reconnect.
            _log.info("websocket-send-failed problem=%s", problem)

    async def drop(self) -> None:
        """Close the connection, if there is one."""
        self._ready = False
        self.local_port = 0
        ws, self._ws = self._ws, None
        if ws is not None and not ws.closed:
            await _hang_up(ws)


async def _hang_up(ws: aiohttp.ClientWebSocketResponse[Any]) -> None:
    """Close politely, but soon: aiohttp waits for the other side's word as long as any frames come in."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_GOODBYE_S):
            await ws.close()


def renewal_ns(seconds: float) -> int:
    """``seconds`` as market nanoseconds."""
    return int(seconds * NS_PER_S)
