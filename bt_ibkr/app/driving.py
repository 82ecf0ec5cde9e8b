"""Moving the emulator's market: step by step with the strategy, or by its own clock."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable

from bt_ibkr.app.control import ControlClient
from bt_ibkr.clock import NS_PER_S, ManualClock
from bt_ibkr.config import Trust
from bt_ibkr.connection.interface import Progress
from bt_ibkr.errors import BtIbkrError, SessionError
from bt_ibkr.store import IBKRStore

#: Longest wait for frames that the emulator says it has sent, seconds.
_FRAMES_S = 10.0
_RENEW_CHECK_NS = 60 * NS_PER_S


class LockstepMarket:
    """The idle hook of a lockstep run.

    Called when the strategy has nothing left to do. It asks the emulator for the next stretch of the market and waits
    until every frame of it has been read; the emulator for its part does not move before this client has read
    everything. So a run is the same every time, however fast the machine is.

    Args:
        control: The emulator's control API.
        store: The run's store.
        clock: The run's clock; set to the market's time after each step.
        end_ns: The market is over at this time; 0 for the end of the tape.
    """

    def __init__(self, control: ControlClient, store: IBKRStore, clock: ManualClock, end_ns: int = 0) -> None:
        self._control = control
        self._store = store
        self._clock = clock
        self._end_ns = end_ns
        self._renewed_ns = clock.now_ns()
        self.done = False
        self.steps = 0

    def __call__(self, horizon_ns: int) -> bool:
        if self.done:
            return catch_up(self._control, self._store)
        connection = self._store.connection
        now_ns = self._clock.now_ns()
        if self._end_ns and now_ns >= self._end_ns:
            return self._finish()
        if now_ns - self._renewed_ns >= _RENEW_CHECK_NS:
            self._renewed_ns = now_ns
            connection.renew_due()
        progress = connection.progress()
        if not progress.port:
            # The stream is broken: the market waits for it.
            return False
        # The market may move on what was read before this moment only; what came since must be looked at first.
        if not self._store.at_rest():
            return True
        until = horizon_ns if horizon_ns > now_ns else None
        if until is not None and self._end_ns:
            until = min(until, self._end_ns)
        request = {
            "until_ns": until,
            "max_events": None if until is not None else 1,
            "received": {str(progress.port): progress.frames},
        }
        answer = self._control.post("/step", request)
        self.steps += 1
        sent = answer["sent"].get(str(progress.port))
        if sent is not None:
            _await_frames(self._store, progress.port, int(sent))
        self._clock.set_ns(answer["now_ns"])
        if answer["done"] and answer["moved"] and not answer["order_events"]:
            return self._finish()
        return True

    def _finish(self) -> bool:
        self.done = True
        self._store.finish()
        return True


def catch_up(control: ControlClient, store: IBKRStore) -> bool:
    """Read everything the emulator has sent so far; whether anything was missing.

    Orders are answered after the end of the tape, too: a run is over when their reports have been read.
    """
    progress = store.connection.progress()
    for connection in control.get("/state")["connections"]:
        if connection["port"] == progress.port and connection["frames"] > progress.frames:
            _await_frames(store, progress.port, int(connection["frames"]))
            return True
    return False


def _await_frames(store: IBKRStore, port: int, wanted: int) -> None:
    latest = time.monotonic() + _FRAMES_S
    while True:
        progress = store.connection.progress()
        if progress.port != port or progress.frames >= wanted:
            return
        if time.monotonic() > latest:
            raise SessionError(
                f"The emulator sent {wanted} frames, only {progress.frames} arrived within {_FRAMES_S:g} s."
            )
        store.wake.wait(0.05)


class EndWatch:
    """Waits beside a run for the end of the emulator's tape, then lets the feeds finish.

    Args:
        control: Base URL of the control API; the watch has its own connection.
        store: The run's store.
        trust: As for the run.
    """

    def __init__(self, control: str, store: IBKRStore, *, trust: Trust) -> None:
        self._client = ControlClient(control, trust=trust, timeout_s=1_000_000.0)
        self._store = store
        self._thread = threading.Thread(target=self._run, name="market-end", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def _run(self) -> None:
        # If the emulator is gone, nothing more will come either.
        last: Progress | None = None
        with contextlib.suppress(BtIbkrError), contextlib.closing(self._client):
            self._client.get("/wait?for=done&timeout_s=1000000")
            # What the emulator has sent by now may still be on its way.
            port = self._store.connection.progress().port
            for connection in self._client.get("/state")["connections"]:
                if connection["port"] == port:
                    last = Progress(port, connection["frames"])
        self._store.finish(last)


class FollowingClock:
    """A market clock for a market that runs as fast as it can: as far as the stream has come.

    Args:
        start_ns: Where the market begins.
    """

    def __init__(self, start_ns: int) -> None:
        self._start_ns = start_ns
        #: Set once the connection exists.
        self.stream_ns: Callable[[], int] = lambda: 0

    def now_ns(self) -> int:
        return max(self._start_ns, self.stream_ns())

    def wall_s(self, market_ns: int) -> float:
        return 0.0 if market_ns <= 0 else float("inf")
