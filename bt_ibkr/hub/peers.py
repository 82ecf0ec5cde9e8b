"""The processes that the hub deals with: who they are, what they were told, and whether they live."""

from __future__ import annotations

import math
import secrets
import time
from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import Final

import msgspec

from bt_ibkr.hub.access import Grant
from bt_ibkr.hub.protocol import Beat, Hello, Problem, Told, body, encode
from bt_ibkr.hub.status import PeerStatus

#: Beats that say less is known than was sent, before it is sent again: what is under way is not lost.
_BEATS_BEFORE_AGAIN: Final = 2
_MINUTE_S: Final = 60.0


class Peer:
    """One process.

    Args:
        hello: What it said.
        address: Its routing id.
        user: Its public key, where the channel is encrypted.
        grant: What it may do.
        own: The strategy whose book it may see; by default of its own name.
        send: Sends one frame to it; ``False`` if it cannot be sent now.

    Attributes:
        join: Of this joining, see ``Welcome``.
        lost: It is not heard, and may come back.
        left: It ended, or did not come back in time: nothing is kept for it, and it joins anew if it comes.
        words: Its topics.
        accounts: Those it attached, with whether it wants to hear of other programs.
        accounts_told: Those of which it was told what ended before it came.
        told_before_ns: Market time up to which a process of its name before it has heard of everything.
        asked: Number of its newest request.
        in_flight: Requests that are not answered yet.
        informed_s: When it was told where it stands after it was wound up, monotonic: what it decided before, it
            decided by a position that it has no more.
    """

    def __init__(
        self,
        hello: Hello,
        address: bytes,
        user: str,
        grant: Grant,
        send: Callable[[bytes, bytes], bool],
        own: str = "",
    ) -> None:
        self.hello = hello
        self.address = address
        self.user = user
        self.grant = grant
        self.own = own or hello.name
        self.join = secrets.token_hex(4)
        self.words: set[bytes] = set()
        self.accounts: dict[str, bool] = {}
        self.accounts_told: set[str] = set()
        self.told_before_ns: int | None = None
        self.asked = 0
        self.in_flight = 0
        self.informed_s = 0.0
        self.lost = False
        self.left = False
        self.beat = Beat(session=hello.session, join=self.join, told=0)
        self.since_ns = time.time_ns()
        self.heard_s = time.monotonic()
        self.orders = 0
        self.refused = 0
        self._placed: deque[float] = deque(maxlen=1000)
        self._send = send
        #: Messages told, by number, until they are acknowledged.
        self._kept: deque[tuple[int, bytes]] = deque()
        self._told = 0
        self._sent = 0
        self._late_beats = 0

    @property
    def name(self) -> str:
        return self.hello.name

    @property
    def session(self) -> str:
        return self.hello.session

    @property
    def told(self) -> int:
        """Number of the newest message for it."""
        return self._told

    @property
    def unheard(self) -> int:
        """Messages that it has not acknowledged."""
        return len(self._kept)

    # -- telling -------------------------------------------------------------------------------------

    def tell(self, kind: str, value: object, *, account: str = "") -> None:
        """Tell it something, for certain: kept until it is acknowledged."""
        self._keep(Told(number=self._told + 1, join=self.join, kind=kind, body=body(value), account=account))

    def reply(self, to: int, value: object = None, problem: Problem | None = None) -> None:
        """Answer a request."""
        answer = body(value)
        self._keep(
            Told(number=self._told + 1, join=self.join, kind="reply", body=answer, to=to, problem=problem)
        )

    def _keep(self, message: Told) -> None:
        if self.left:
            return
        self._told = message.number
        self._kept.append((message.number, encode(message)))
        self.pump()

    def pump(self) -> None:
        """Send what was not sent yet, as far as it can be."""
        if self._sent == self._told or self.lost:
            return
        first = self._kept[0][0] if self._kept else self._told + 1
        for number, raw in list(islice(self._kept, max(0, self._sent + 1 - first), None)):
            if not self._send(self.address, raw):
                return
            self._sent = number

    def say(self, message: object) -> bool:
        """Send something that need not arrive."""
        return self._send(self.address, encode(message))

    # -- hearing -------------------------------------------------------------------------------------

    def heard(self) -> None:
        """Something came from it."""
        self.heard_s = time.monotonic()

    def inform(self) -> None:
        """It is being told where it stands."""
        if self.informed_s == math.inf:
            self.informed_s = time.monotonic()

    def take_beat(self, beat: Beat) -> None:
        """It lives, and says how far it has come."""
        self.beat = beat
        self.acknowledge(beat.told)
        if beat.told < self._sent:
            self._late_beats += 1
            if self._late_beats >= _BEATS_BEFORE_AGAIN:
                # Lost on the way: a connection that broke takes what was in its buffers with it.
                self._late_beats = 0
                self._sent = beat.told
        else:
            self._late_beats = 0
        self.pump()

    def acknowledge(self, told: int) -> None:
        """It has all messages up to this one."""
        told = min(told, self._told)
        while self._kept and self._kept[0][0] <= told:
            self._kept.popleft()

    def again_from(self, told: int) -> None:
        """It is back and has all up to ``told``: what follows is sent again."""
        told = min(told, self._told)
        self.acknowledge(told)
        self._sent = max(told, self._told - len(self._kept))
        self._late_beats = 0
        self.pump()

    # -- ends ----------------------------------------------------------------------------------------

    def leave(self) -> None:
        """Keep nothing for it: it ended, did not come back in time, or another process has its name."""
        self.left = True
        self._kept.clear()
        self._sent = self._told

    # -- for people ----------------------------------------------------------------------------------

    def count_orders(self, number: int) -> None:
        """It placed so many."""
        now_s = time.monotonic()
        self.orders += number
        self._placed.extend([now_s] * number)

    def status(self, now_s: float, late_s: float, slow_ticks: int, topics: tuple[str, ...]) -> PeerStatus:
        """As it stands.

        Args:
            now_s: Monotonic.
            late_s: Silence after which its beats are late.
            slow_ticks: So many ticks behind it counts as slow.
            topics: Names of what it subscribed.
        """
        silent_s = now_s - self.heard_s
        state = "left" if self.left else "lost" if self.lost else "silent" if silent_s > late_s else "live"
        behind = max(self.beat.behind.values(), default=0)
        return PeerStatus(
            name=self.name,
            role=self.hello.role,
            host=self.hello.host,
            pid=self.hello.pid,
            version=self.hello.version,
            state=state,
            silent_s=round(silent_s, 3),
            since_ns=self.since_ns,
            unheard=self.unheard,
            behind=behind,
            waiting=self.beat.waiting,
            lost=self.beat.lost,
            mended=self.beat.mended,
            slow=max(behind, self.beat.waiting) > slow_ticks,
            topics=topics,
            orders=self.orders,
            orders_per_minute=float(sum(now_s - at_s <= _MINUTE_S for at_s in self._placed)),
            refused=self.refused,
        )


class HarmCounts(msgspec.Struct):
    """See ``status.Harm``; counted here."""

    malformed: int = 0
    oversized: int = 0
    replayed: int = 0
    unauthorised: int = 0
    unknown: int = 0
    incompatible: int = 0
