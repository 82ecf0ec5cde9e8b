"""The hub's heartbeats: they tell each peer that it lives and what there is, and find who is silent, and who is slow.

Runs on the session's loop.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Final

from bt_ibkr.hub.ages import awake_or_asleep_s
from bt_ibkr.hub.peers import Peer
from bt_ibkr.hub.protocol import HubBeat

if TYPE_CHECKING:
    from bt_ibkr.hub.server import HubServer

_log = logging.getLogger(__name__)

#: Ticks that a subscriber may be behind before it is told of as slow.
SLOW_TICKS: Final = 1000
#: How often it is noted which strategies have heard of everything, seconds.
_NOTED_S: Final = 2.0


class Heart:
    """See the module.

    Args:
        server: Whose.
    """

    def __init__(self, server: HubServer) -> None:
        self._server = server
        self._beaten_s = time.monotonic()
        self._noted_s = 0.0
        #: Sessions of peers that were told of as slow.
        self._slow: set[str] = set()
        self._task: asyncio.Task[None] | None = None

    @property
    def beats(self) -> bool:
        """The beats go out in time, or have not begun."""
        return self._task is None or time.monotonic() - self._beaten_s <= self._server.settings.dead_s

    def start(self) -> None:
        """Beat from now on."""
        self._beaten_s = time.monotonic()
        self._task = asyncio.get_running_loop().create_task(self._beat(), name="hub-beat")

    def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(self._server.settings.beat_s)
            self._beaten_s = time.monotonic()
            try:
                self._look_after()
            except Exception:  # noqa: BLE001 - one peer must not stop the beats of all
                _log.exception("hub-beat-failed")

    def _look_after(self) -> None:
        members, now_s = self._server.members, time.monotonic()
        stream_ns = self._server.brokerage.stream_ns()
        for peer in members.peers:
            silent_s = now_s - peer.heard_s
            if peer.left:
                members.forget_old(peer, silent_s)
            elif silent_s <= self._server.settings.dead_s:
                self._tell(peer, stream_ns)
                self._look_at_speed(peer)
            elif not peer.lost:
                members.lose(peer, silent_s)
        if now_s - self._noted_s > _NOTED_S:
            self._noted_s = now_s
            self._server.desk.telling.note_heard()
            self._server.publisher.sample(now_s)
            self._slow.intersection_update(peer.session for peer in members.peers)
        members.vanishing.look()

    def _tell(self, peer: Peer, stream_ns: int) -> None:
        peer.say(
            HubBeat(
                join=peer.join,
                clock_s=awake_or_asleep_s(),
                told=peer.told,
                asked=peer.asked,
                heads=self._server.publisher.heads(peer.words),
                stream_ns=stream_ns,
                server_ns=self._server.brokerage.server_ns(),
            )
        )

    def _look_at_speed(self, peer: Peer) -> None:
        behind = max(max(peer.beat.behind.values(), default=0), peer.beat.waiting)
        if behind > SLOW_TICKS and peer.session not in self._slow:
            self._slow.add(peer.session)
            _log.warning("hub-subscriber-slow name=%s behind=%d", peer.name, behind)
        elif behind <= SLOW_TICKS // 2 and peer.session in self._slow:
            self._slow.discard(peer.session)
            _log.info("hub-subscriber-caught-up name=%s", peer.name)
