"""What moves the market: the wall clock, the sockets, or steps that the client asks for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from bt_ibkr.clock import NS_PER_MS, NS_PER_S
from bt_ibkr.emulator.settings import Speed
from bt_ibkr.emulator.types import Advance

if TYPE_CHECKING:
    from bt_ibkr.emulator.services.core import Core

#: Events between two looks at the sockets with speed ``max``.
_BATCH = 256
#: Bytes a client may leave unread before the market waits for it with speed ``max``.
_HIGH_WATER = 1_000_000
#: Longest wall sleep between two advances of a market that follows the wall clock.
_TICK_S = 0.02


class Drive:
    """Moves the engine and hands the frames to the sockets.

    Args:
        core: Shared state.
        speed: As in the settings.
        started: Whether the market moves at once.

    Attributes:
        done: Set when the tape is at its end.
    """

    def __init__(self, core: Core, *, speed: Speed, started: bool) -> None:
        self._core = core
        self._speed: Speed = speed
        self._started = started
        self._paused = False
        self._anchor: tuple[float, int] | None = None
        self._changed = asyncio.Event()
        self._driver: asyncio.BaseTransport | None = None
        self.done = asyncio.Event()

    @property
    def speed(self) -> Speed:
        return self._speed

    @property
    def paused(self) -> bool:
        return self._paused

    @property
    def started(self) -> bool:
        return self._started

    @property
    def moving(self) -> bool:
        """Whether the market moves by itself."""
        return self._started and not self._paused and self._speed != "lockstep"

    @property
    def _over(self) -> bool:
        """The tape is at its end, and so is the market's time unless it follows the wall clock further."""
        return self._core.engine.done and not (
            self._core.settings.run_on and not isinstance(self._speed, str)
        )

    @property
    def driven(self) -> bool:
        """Whether somebody moves a lockstep market, over a connection that stands."""
        return self._driver is not None and not self._driver.is_closing()

    def claim(self, by: asyncio.BaseTransport | None) -> bool:
        """Whether the client at the other end of ``by`` may move a lockstep market: the first one who asks, until
        its connection is closed. Two would each move it under the other."""
        if not self.driven:
            self._driver = by
        return self._driver is by

    def start(self) -> None:
        self.catch_up()
        self._started = True
        self._renew()

    def set_clock(self, *, paused: bool | None = None, speed: Speed | None = None) -> None:
        """Pause, go on, or change the speed; the market time stays what it is."""
        self.catch_up()
        self._paused = self._paused if paused is None else paused
        self._speed = self._speed if speed is None else speed
        self._renew()

    def reset(self, *, started: bool) -> None:
        """The engine is at the beginning again."""
        self._started = started
        self.done.clear()
        self._renew()

    def _renew(self) -> None:
        self._anchor = None
        self._changed.set()

    def catch_up(self) -> None:
        """Bring a market that follows the wall clock to the present: requests see it as it is now."""
        if not self.moving or isinstance(self._speed, str) or self._over:
            return
        now = time.monotonic()
        if self._anchor is None:
            self._anchor = (now, self._core.now_ns)
        wall, market_ns = self._anchor
        self._advance(until_ns=market_ns + int((now - wall) * self._speed * NS_PER_S))

    def _advance(self, *, until_ns: int | None = None, max_events: int | None = None) -> Advance:
        engine = self._core.engine
        advance = engine.advance(until_ns=until_ns, max_events=max_events)
        if advance.done and not self.done.is_set():
            # Frames that conflation holds back are still owed.
            gap_ns = self._core.settings.conflation_ms * NS_PER_MS
            engine.advance(until_ns=engine.now_ns + gap_ns + 1)
            self.done.set()
        return advance

    def step(
        self, *, until_ns: int | None, max_events: int | None, received: Mapping[int, int]
    ) -> dict[str, object]:
        """Move a lockstep market, if every client named has received everything sent to it.

        Args:
            until_ns: Not beyond this time; events before it happen.
            max_events: At most so many tape events.
            received: Data frames received, by the client's TCP port. Ports of closed sockets do not count.

        Returns:
            The answer of ``/control/step``; all frames of the step are with the sockets by now.
        """
        core = self._core
        behind = any(c.sent > received[c.port] for c in core.hub.connections if c.port in received)
        events = order_events = 0
        moved = not behind and not self._paused
        if moved:
            advance = core.engine.advance(until_ns=until_ns, max_events=max_events, stop_on_order_event=True)
            events, order_events = advance.events, advance.order_events
            if advance.done:
                self.done.set()
        core.hub.flush()
        return {
            "moved": moved,
            "now_ns": core.now_ns,
            "done": core.engine.done,
            "order_events": order_events,
            "events": events,
            "sent": {str(connection.port): connection.sent for connection in core.hub.connections},
        }

    async def run(self) -> None:
        """Move the market for the life of the server."""
        while True:
            self._changed.clear()
            if not self.moving or self._over:
                if self._core.engine.done:
                    self.done.set()
                await self._changed.wait()
            elif self._speed == "max":
                await self._run_batch()
            else:
                await self._run_clock()

    async def _run_batch(self) -> None:
        self._advance(max_events=_BATCH)
        self._core.hub.flush()
        await asyncio.sleep(0)
        while any(c.unread > _HIGH_WATER for c in self._core.hub.connections):  # noqa: ASYNC110
            # Sockets tell nobody when their buffers run low, but that is soon.
            await asyncio.sleep(0.001)

    async def _run_clock(self) -> None:
        self.catch_up()
        self._core.hub.flush()
        speed = self._speed
        following = self._core.engine.next_event_ns()
        pause = _TICK_S
        if following is not None and not isinstance(speed, str):
            pause = min(pause, max((following - self._core.now_ns) / NS_PER_S / speed, 0.0))
        try:
            await asyncio.wait_for(self._changed.wait(), pause + 0.0005)
        except TimeoutError:
            return
