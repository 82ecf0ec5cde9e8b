"""One gate before every request: IBKR's limits as data, and waiting until they allow the next one.

Too many requests earn HTTP 429 and ten to fifteen minutes in a penalty box, so the gate keeps the limits
by itself. Each limit is a sliding window: at most ``count`` requests in any ``per_s`` seconds. Windows are a
little longer than documented, because requests may bunch up on their way.

Who goes next: what protects positions; then whoever has waited for ``_STARVING_S``, the longest first; then by
class (``session.classes``), in order of arrival. A request whose own window is full lets the others pass.
"""

from __future__ import annotations

import asyncio
import logging
import math
import re
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from enum import StrEnum

import msgspec

from bt_ibkr.config import PENALTY_S, SessionSettings, state_directory
from bt_ibkr.errors import PacingPenaltyError, UsageError
from bt_ibkr.login import GatewayLogin, NoLogin
from bt_ibkr.session.classes import RequestClass, class_of
from bt_ibkr.session.shared_turns import SharedTurn, turn_place

_log = logging.getLogger(__name__)


class ConnectionKind(StrEnum):
    """What stands between this program and IBKR; limits differ by it."""

    #: The Client Portal Gateway, or a proxy of which no more is known.
    GATEWAY = "gateway"
    #: IBKR itself, logged on by OAuth or a bearer token.
    OAUTH = "oauth"


class Limit(msgspec.Struct, frozen=True, kw_only=True):
    """At most ``count`` requests to paths that match ``path`` in any ``per_s`` seconds.

    Attributes:
        kind: The kind of connection that it holds for; ``None`` for every kind.
        concurrent: At most so many at the same time; 0 for no such limit.
        source: Where the figure comes from.
    """

    path: str
    method: str = "*"
    kind: ConnectionKind | None = None
    count: int
    per_s: float
    concurrent: int = 0
    source: str


_TABLE = "IBKR Web API documentation, pacing limitations (captured 2026-07)"
_REREAD = _TABLE + "; as re-read 2026-09"

#: IBKR's documented limits per user, of every kind of connection.
IBKR_LIMITS: tuple[Limit, ...] = (
    Limit(
        path=r".*",
        kind=ConnectionKind.GATEWAY,
        count=10,
        per_s=1.0,
        source=_TABLE + "; the other official text has the same for the gateway",
    ),
    Limit(
        path=r".*",
        kind=ConnectionKind.OAUTH,
        count=10,
        per_s=1.0,
        source=_TABLE + ", for every authenticated user; another official text names 50 without the gateway: "
        "the lower one is kept, which both allow",
    ),
    Limit(path=r"/fyi/.*", count=1, per_s=1.0, source=_TABLE),
    Limit(path=r"/iserver/account/orders", method="GET", count=1, per_s=5.0, source=_TABLE),
    Limit(path=r"/iserver/account/pnl/partitioned", count=1, per_s=5.0, source=_TABLE),
    Limit(path=r"/iserver/account/trades", count=1, per_s=5.0, source=_TABLE),
    Limit(
        path=r"/iserver/marketdata/history",
        count=50,
        per_s=60.0,
        concurrent=5,
        source=_REREAD + ", 50 a minute",
    ),
    Limit(path=r"/iserver/marketdata/history", count=10, per_s=1.0, source=_REREAD),
    Limit(path=r"/iserver/marketdata/snapshot", method="GET", count=10, per_s=1.0, source=_TABLE),
    Limit(path=r"/iserver/scanner/params", count=1, per_s=900.0, source=_TABLE),
    Limit(path=r"/iserver/scanner/run", count=1, per_s=1.0, source=_TABLE),
    Limit(path=r"/pa/(performance|summary|transactions|allperiods)", count=1, per_s=900.0, source=_TABLE),
    Limit(path=r"/portfolio/(accounts|subaccounts)", count=1, per_s=5.0, source=_TABLE),
    Limit(path=r"/sso/validate", count=1, per_s=60.0, source=_TABLE),
    Limit(path=r"/tickle", count=1, per_s=1.0, source=_TABLE),
)


def connection_kind(settings: SessionSettings) -> ConnectionKind:
    """Who is asked: IBKR itself, or the gateway (also a proxy, which may be one in disguise)."""
    through = isinstance(settings.login, (GatewayLogin, NoLogin))
    return ConnectionKind.GATEWAY if through else ConnectionKind.OAUTH


def limits_of(settings: SessionSettings) -> tuple[Limit, ...]:
    """The limits that a session keeps, those of its kind of connection: none if it is not paced; shorter ones
    where the server's clock of limits is faster, but for the way there, which takes as long as ever."""
    if not settings.paced:
        return ()
    limits = limits_for(connection_kind(settings))
    if settings.pacing_speed == 1:
        return limits
    speed = settings.pacing_speed
    return tuple(msgspec.structs.replace(limit, per_s=limit.per_s / speed + _WAY_S) for limit in limits)


def limits_for(kind: ConnectionKind) -> tuple[Limit, ...]:
    """The rows of the table that hold for one kind of connection."""
    return tuple(limit for limit in IBKR_LIMITS if limit.kind in (None, kind))


def gate_of(settings: SessionSettings) -> PacingGate:
    """The gate of one session; turns of what is rarely allowed are shared with other processes of this machine."""
    limits = limits_of(settings)
    return PacingGate(
        limits,
        penalty_s=settings.penalty_s / settings.pacing_speed,
        shared=_shared_turns(settings, limits) if settings.share_turns else {},
    )


def _shared_turns(settings: SessionSettings, limits: tuple[Limit, ...]) -> dict[Limit, SharedTurn]:
    """What of each of these limits is written down for other processes."""
    try:
        folder = state_directory() / "turns"
    except UsageError as problem:
        # Whoever needs the directory more says so.
        _log.warning("turns-not-shared problem=%s", problem)
        return {}
    plain = settings.base_url.startswith("http:")
    return {
        limit: SharedTurn(
            turn_place(folder, settings.base_url, settings.login, limit.path, limit.method),
            limit.per_s * _MARGIN,
        )
        for limit in limits
        # A server without TLS is an emulator, which knows nothing of what was asked before its start.
        if limit.count == 1 and not (plain and limit.per_s > _EMULATORS_S)
    }


_MARGIN = 1.02
#: On a fast clock the margin shrinks as the limits do; this is what requests may bunch up by on their way.
_WAY_S = 0.1
#: The server counts when a request arrives, which is not known; a request that took longer than the quickest may
#: have arrived so much later. Beyond so many seconds the delay is taken for work of the server, but where one request
#: is allowed at a time: there the next one waits for its end.
_LATEST_S = 0.5
#: Towards an emulator longer limits are not shared between processes, seconds.
_EMULATORS_S = 10.0
#: A request that has waited so long goes before more urgent classes (but not before what protects positions).
_STARVING_S = 20.0
#: In the penalty box, what protects positions still passes, at most one request in so many seconds.
_PENALTY_SPACING_S = 1.0
# Floats of clocks: a moment that is due may lie a hair in the future.
_HAIR_S = 1e-9


class ClassWaits(msgspec.Struct, frozen=True):
    """How the requests of one class fared.

    Attributes:
        requests: Let through.
        waited_s, longest_wait_s: Seconds they waited for that, in sum and at most.
        refused: Not sent because of a penalty.
    """

    requests: int = 0
    waited_s: float = 0.0
    longest_wait_s: float = 0.0
    refused: int = 0


class GateStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What the gate shows of itself.

    Attributes:
        budget: Requests of any kind that could leave at once.
        queued: Waiting requests by class name.
        waited_s: Seconds that requests have waited so far, in sum.
        longest_wait_s: The longest that one waited so far.
        penalty_s: Seconds left in the penalty box; 0 outside.
        penalties: How often the box was entered.
        waits: By class name, of the classes that had requests.
    """

    budget: int
    queued: dict[str, int]
    waited_s: float
    longest_wait_s: float
    penalty_s: float
    penalties: int
    waits: dict[str, ClassWaits]


class _Window:
    def __init__(self, limit: Limit, shared: SharedTurn | None) -> None:
        self.limit = limit
        self._shared = shared
        self._pattern = re.compile(limit.path)
        self._span_s = limit.per_s * _MARGIN
        self._one = limit.count == 1
        self._most = 1 if self._one else limit.concurrent
        #: When each of the latest requests may have arrived.
        self._arrived: list[float] = []
        self._active = 0

    def covers(self, method: str, path: str) -> bool:
        return self.limit.method in ("*", method) and self._pattern.fullmatch(path) is not None

    def free_at(self, now: float) -> float:
        """When one more request fits; infinite while it waits for another one to end."""
        if self._most and self._active >= self._most:
            return math.inf
        free_at = now
        if len(self._arrived) >= self.limit.count:
            free_at = max(now, min(self._arrived) + self._span_s)
        if self._shared is not None and free_at <= now + _HAIR_S:
            return now + self._shared.wait_s()
        return free_at

    def take(self) -> bool:
        """Whether no other process was faster."""
        return self._shared is None or not self._shared.take()

    def budget(self, now: float) -> int:
        recent = sum(1 for at in self._arrived if at + self._span_s > now)
        return self.limit.count - recent

    def enter(self, now: float) -> None:
        if len(self._arrived) >= self.limit.count:
            self._arrived.remove(min(self._arrived))
        self._arrived.append(now + _LATEST_S)
        self._active += 1

    def leave(self, sent: float, took_s: float, delay_s: float) -> None:
        """The request that was sent at ``sent`` ended; it took ``delay_s`` longer than the quickest."""
        self._active -= 1
        if self._shared is not None:
            self._shared.ended()
        if sent + _LATEST_S in self._arrived:
            self._arrived.remove(sent + _LATEST_S)
            self._arrived.append(sent + (took_s if self._one else min(delay_s, _LATEST_S)))


class _Waiter:
    __slots__ = ("arrived", "go", "klass", "sent", "windows")

    def __init__(self, klass: RequestClass, windows: list[_Window], arrived: float) -> None:
        self.klass = klass
        self.windows = windows
        self.arrived = arrived
        self.sent = arrived
        self.go: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class PacingGate:
    """Lets requests through at IBKR's pace; one for a whole username.

    Args:
        limits: The limits to keep; empty for none. By default those of the gateway.
        monotonic: Seconds of a clock that never steps back.
        penalty_s: Seconds in the penalty box after a 429.
        shared: By limit, what is shared with other processes.
    """

    def __init__(
        self,
        limits: tuple[Limit, ...] | None = None,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        penalty_s: float = PENALTY_S,
        shared: Mapping[Limit, SharedTurn] | None = None,
    ) -> None:
        chosen = limits_for(ConnectionKind.GATEWAY) if limits is None else limits
        turns = shared or {}
        self._windows = tuple(_Window(limit, turns.get(limit)) for limit in chosen)
        self._monotonic = monotonic
        self._penalty_for_s = penalty_s
        self._penalty_until = -math.inf
        self._protected_at = -math.inf
        self._penalties = 0
        self._queues: dict[RequestClass, deque[_Waiter]] = {klass: deque() for klass in RequestClass}
        self._timer: asyncio.TimerHandle | None = None
        self._quickest_s = math.inf
        self._waited_s = 0.0
        self._longest_s = 0.0
        self._waits: dict[RequestClass, ClassWaits] = {}
        #: Told of each 429, whoever met it, with the seconds of the penalty.
        self.on_penalty: Callable[[float], None] = lambda seconds: None

    @property
    def waited_s(self) -> float:
        """Seconds that requests have waited here so far."""
        return self._waited_s

    def status(self) -> GateStatus:
        """Budget, queues, waits and penalty as they are now."""
        now = self._monotonic()
        general = [w for w in self._windows if w.limit.path == ".*"]
        return GateStatus(
            budget=min((w.budget(now) for w in general), default=0),
            queued={klass.name.lower(): len(queue) for klass, queue in self._queues.items() if queue},
            waited_s=self._waited_s,
            longest_wait_s=self._longest_s,
            penalty_s=max(0.0, self._penalty_until - now),
            penalties=self._penalties,
            waits={klass.name.lower(): waits for klass, waits in sorted(self._waits.items())},
        )

    def penalize(self) -> float:
        """IBKR answered 429: until the penalty is over, only what protects positions may pass.

        Everything that waits and does not protect is refused at once. A further 429 inside the penalty
        lengthens it.

        Returns:
            Seconds of the penalty.
        """
        now = self._monotonic()
        if now >= self._penalty_until:
            self._penalties += 1
        self._penalty_until = now + self._penalty_for_s
        for klass, queue in self._queues.items():
            if klass is RequestClass.PROTECT:
                continue
            for waiter in queue:
                if not waiter.go.done():
                    waiter.go.set_exception(self._refusal(now, klass))
            queue.clear()
        self._pump()
        self.on_penalty(self._penalty_for_s)
        return self._penalty_for_s

    def refused(self, what: str) -> PacingPenaltyError:
        """``what`` was answered with 429: the penalty begins, or goes on; the error that tells it."""
        seconds = self.penalize()
        return PacingPenaltyError(
            f"{what} was refused with HTTP 429: too many requests.",
            remedy=f"For {seconds:.0f} s only what protects positions is sent; then the session goes on.",
        )

    def _refusal(self, now: float, klass: RequestClass) -> PacingPenaltyError:
        known = self._waits.get(klass, ClassWaits())
        self._waits[klass] = msgspec.structs.replace(known, refused=known.refused + 1)
        return PacingPenaltyError(
            f"Not sent: IBKR answered 429 before; nothing but what protects positions is sent for another "
            f"{self._penalty_until - now:.0f} s.",
            remedy="Wait; the session goes on by itself afterwards.",
        )

    @asynccontextmanager
    async def turn(self, method: str, path: str, klass: RequestClass | None = None) -> AsyncIterator[None]:
        """Wait for this request's turn; the request is made inside the block.

        Raises:
            PacingPenaltyError: In the penalty box, and the request does not protect a position.
        """
        windows = [window for window in self._windows if window.covers(method, path)]
        chosen = class_of(method, path) if klass is None else klass
        now = self._monotonic()
        if now < self._penalty_until and chosen is not RequestClass.PROTECT:
            raise self._refusal(now, chosen)
        waiter = _Waiter(chosen, windows, now)
        await self._await_turn(waiter)
        try:
            yield
        finally:
            self._leave(waiter)

    def _leave(self, waiter: _Waiter) -> None:
        took = max(0.0, self._monotonic() - waiter.sent)
        self._quickest_s = min(self._quickest_s, took)
        for window in waiter.windows:
            window.leave(waiter.sent, took, took - self._quickest_s)
        self._pump()

    async def _await_turn(self, waiter: _Waiter) -> None:
        self._queues[waiter.klass].append(waiter)
        self._pump()
        try:
            await waiter.go
        except BaseException:
            if waiter.go.done() and not waiter.go.cancelled() and waiter.go.exception() is None:
                # Let through and cancelled in the same moment: its place is taken, the request is not made.
                for window in waiter.windows:
                    window.leave(waiter.sent, 0.0, 0.0)
            elif waiter in self._queues[waiter.klass]:
                self._queues[waiter.klass].remove(waiter)
            raise

    def _pump(self) -> None:
        """Let through whoever may go now; look again when the next one may."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        now = self._monotonic()
        while (waiter := self._next(now)) is not None:
            self._queues[waiter.klass].remove(waiter)
            for window in waiter.windows:
                window.enter(now)
            waiter.sent = now
            if now < self._penalty_until:
                self._protected_at = now
            waited = now - waiter.arrived
            self._waited_s += waited
            self._longest_s = max(self._longest_s, waited)
            known = self._waits.get(waiter.klass, ClassWaits())
            self._waits[waiter.klass] = ClassWaits(
                known.requests + 1, known.waited_s + waited, max(known.longest_wait_s, waited), known.refused
            )
            waiter.go.set_result(None)
        self._wait_for_next(now)

    def _next(self, now: float) -> _Waiter | None:
        """The most urgent waiter that fits now."""
        full: set[int] = set()
        for waiter in self._by_urgency(now):
            if waiter.go.done() or any(id(window) in full for window in waiter.windows):
                continue
            late = [w for w in waiter.windows if w.free_at(now) > now + _HAIR_S]
            if not late and self._penalty_free_at(now) <= now + _HAIR_S:
                # No request is of two kinds of which one is allowed: a turn that is taken is used.
                late = [w for w in waiter.windows if not w.take()]
                if not late:
                    return waiter
            full.update(id(window) for window in late)
        return None

    def _penalty_free_at(self, now: float) -> float:
        if now >= self._penalty_until:
            return now
        return max(now, self._protected_at + _PENALTY_SPACING_S)

    def _by_urgency(self, now: float) -> list[_Waiter]:
        protect = list(self._queues[RequestClass.PROTECT])
        others = [
            w for klass, queue in self._queues.items() if klass is not RequestClass.PROTECT for w in queue
        ]
        starving = sorted((w for w in others if now - w.arrived >= _STARVING_S), key=lambda w: w.arrived)
        return [*protect, *starving, *(w for w in others if now - w.arrived < _STARVING_S)]

    def _wait_for_next(self, now: float) -> None:
        moments = [
            max([self._penalty_free_at(now), *(window.free_at(now) for window in waiter.windows)])
            for queue in self._queues.values()
            for waiter in queue
            if not waiter.go.done()
        ]
        due = min(moments, default=math.inf)
        if due < math.inf:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(max(0.0, due - now), self._pump)
