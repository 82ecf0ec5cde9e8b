"""All faults of one emulator: begun, listed, cleared, written down."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, Any

from bt_ibkr.emulator.faults import order_specs, specs
from bt_ibkr.emulator.faults.active import Active
from bt_ibkr.emulator.faults.base import Spec
from bt_ibkr.emulator.faults.frames import FrameFaults
from bt_ibkr.emulator.faults.history import HistoryFaults
from bt_ibkr.emulator.faults.http import HttpFaults
from bt_ibkr.emulator.faults.listings import ListingFaults
from bt_ibkr.emulator.faults.market import MarketFaults
from bt_ibkr.emulator.faults.positions import PositionFaults
from bt_ibkr.emulator.faults.session import SessionFaults
from bt_ibkr.emulator.faults.sockets import SocketFaults
from bt_ibkr.emulator.faults.specs import AnySpec, Restart
from bt_ibkr.emulator.faults.submissions import SubmissionFaults

if TYPE_CHECKING:
    from bt_ibkr.emulator.services.core import Core

#: Most entries of the log; older ones are dropped.
LOG_SIZE = 10_000
Begin = Callable[[Active], None]


class Faults:
    """The faults of one emulator.

    Args:
        core: What they happen to.
        seed: Of everything random about them.

    Attributes:
        restart: Takes the gateway down for some seconds; given by the server.
    """

    def __init__(self, core: Core, seed: int) -> None:
        self._core = core
        self.random = Random(f"faults-{seed}")
        self.restart: Callable[[Restart], None] | None = None
        self._active: dict[int, Active] = {}
        self._made = 0
        self._noted = 0
        self._log: deque[dict[str, Any]] = deque(maxlen=LOG_SIZE)
        self.http = HttpFaults(self)
        self.frames = FrameFaults(core, self)
        self.sockets = SocketFaults(core, self)
        self.session = SessionFaults(core, self)
        self.market = MarketFaults(core, self)
        self.history = HistoryFaults(core, self)
        self.submissions = SubmissionFaults(core, self)
        self.listings = ListingFaults(core, self)
        self.positions = PositionFaults(core, self)
        self._begin = self._table()

    def _table(self) -> dict[type[Spec], Begin]:
        http, frames, sockets = self.http, self.frames, self.sockets
        session, market = self.session, self.market
        return {
            specs.Http: http.begin,
            specs.Slow: http.begin,
            specs.Close: sockets.close,
            specs.Reset: sockets.reset,
            specs.Stall: sockets.stall,
            specs.Storm: sockets.storm,
            specs.Greeting: sockets.greeting,
            specs.Frames: frames.begin,
            specs.Silence: frames.begin,
            specs.Expire: session.expire,
            specs.Compete: session.compete,
            specs.ForceCompete: session.wait,
            specs.InitFails: session.wait,
            specs.StatusFalse: session.wait,
            specs.NoBridge: session.wait,
            specs.AccountsAgain: session.accounts_again,
            specs.SessionId: session.session_id,
            specs.TwoFactor: session.two_factor,
            specs.NightlyReset: session.nightly_reset,
            specs.Maintenance: session.maintenance,
            specs.Restart: self._restart,
            specs.Skew: market.skew,
            specs.Quality: market.change_quality,
            specs.NotEntitled: market.bar,
            specs.History: self.history.begin,
            specs.BarCorrection: self.history.correct,
            **dict.fromkeys(
                (
                    order_specs.Questions,
                    order_specs.Replies,
                    order_specs.QuestionEnds,
                    order_specs.Bracket,
                    order_specs.Answers,
                    order_specs.NewOrderId,
                ),
                self.submissions.begin,
            ),
            **dict.fromkeys(
                (
                    order_specs.OrderList,
                    order_specs.OrderStatusFails,
                    order_specs.Trades,
                    order_specs.Commissions,
                ),
                self.listings.begin,
            ),
            order_specs.Positions: self.positions.begin,
        }

    def begin(self, spec: AnySpec) -> dict[str, Any]:
        """Let it happen; the row of the fault. ``lasting`` is false if it is over already."""
        self._made += 1
        fault = Active(self._made, spec)
        self._active[fault.number] = fault
        self._begin[type(spec)](fault)
        if not fault.lasting:
            self._active.pop(fault.number, None)
        return fault.row() | {"lasting": fault.lasting}

    def rows(self) -> list[dict[str, Any]]:
        """All faults under way."""
        return [fault.row() for fault in self._active.values()]

    def log(self, since: int) -> list[dict[str, Any]]:
        """What happened, from entry ``since`` on."""
        return [entry for entry in self._log if entry["n"] >= since]

    def clear(self, number: int | None = None) -> list[int]:
        """End one fault, or all; the ids of those that were under way."""
        chosen = [fault for fault in self._active.values() if number in (None, fault.number)]
        for fault in chosen:
            self.finish(fault)
        return [fault.number for fault in chosen]

    def reseed(self, seed: int) -> None:
        self.random.seed(f"faults-{seed}")

    # --- what the groups call ----------------------------------------------------------------------

    def spend(self, fault: Active, **what: Any) -> None:
        """It happened: count it, write it down, and end it if that was the last time."""
        fault.hits += 1
        self.note(fault.spec.kind, id=fault.number, **what)
        if fault.left is not None and fault.left > 0:
            fault.left -= 1
            if fault.left == 0 and not fault.busy:
                self.finish(fault)

    def finish(self, fault: Active) -> None:
        """It is over; nothing if it was already."""
        if self._active.pop(fault.number, None) is not None:
            fault.end()

    def note(self, kind: str, **what: Any) -> None:
        """Write down what happened, and when by both clocks."""
        wall_ms, now_ns = int(self._core.wall() * 1000), self._core.now_ns
        entry = {"n": self._noted, "wall_ms": wall_ms, "now_ns": now_ns, "kind": kind, **what}
        self._log.append(entry)
        self._noted += 1

    def _restart(self, fault: Active) -> None:
        if isinstance(fault.spec, Restart) and self.restart is not None:
            self.restart(fault.spec)
            self.spend(fault, down_s=fault.spec.down_s)
