"""What control can do, by name; used over HTTP and over the control WebSocket alike."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from bt_ibkr.emulator.control import arguments as args
from bt_ibkr.emulator.control.admin import AdminOperations
from bt_ibkr.emulator.control.arguments import ControlError
from bt_ibkr.emulator.drive import Drive
from bt_ibkr.emulator.faults.specs import AnySpec
from bt_ibkr.emulator.services.core import Core
from bt_ibkr.emulator.services.session.state import Tier
from bt_ibkr.emulator.types import MarketEvent
from bt_ibkr.errors import BtIbkrError

Answer = dict[str, Any]


class Operations:
    """The operations on one emulator.

    Args:
        core: Shared state.
        drive: What moves the market.
    """

    def __init__(self, core: Core, drive: Drive) -> None:
        self._core = core
        self._drive = drive
        self._seed = core.engine.config.seed
        self._table: dict[str, tuple[Any, Callable[[Any], Answer | Awaitable[Answer]]]] = {
            "state": (args.Nothing, self._state),
            "clock": (args.Clock, self._clock),
            "start": (args.Nothing, self._start),
            "reset": (args.Reset, self._reset),
            "tick": (args.Tick, self._tick),
            "halt": (args.Halt, self._halt),
            "ledger": (args.Nothing, self._ledger),
            "book": (args.Book, self._book),
            "executions": (args.Executions, self._executions),
            "wait": (args.Wait, self._wait),
            "session": (args.Session, self._session),
            "notice": (args.Notice, self._notice),
            "bulletin": (args.Bulletin, self._bulletin),
            "pacing": (args.Pacing, self._pacing),
            "requests": (args.Requests, self._requests),
            "fault": (AnySpec, core.faults.begin),
            "faults": (args.Faults, self._faults),
            "clear_faults": (args.ClearFaults, self._clear_faults),
        }
        for admin, (into, function) in AdminOperations(core).table().items():
            self._table[admin] = (into, self._sent(function))

    def _sent(self, function: Callable[[Any], Answer]) -> Callable[[Any], Answer]:
        """The same, and what clients are told of it is with their sockets before the answer leaves."""

        def call(given: Any) -> Answer:
            self._drive.catch_up()
            try:
                return function(given)
            except BtIbkrError as problem:
                raise ControlError(str(problem)) from None
            finally:
                self._core.hub.flush()

        return call

    @property
    def names(self) -> tuple[str, ...]:
        return (*self._table, "step")

    def call(
        self, name: str, value: dict[str, Any], by: asyncio.BaseTransport | None = None
    ) -> Answer | Awaitable[Answer]:
        """Do one operation; only ``wait`` answers later.

        Args:
            by: The connection over which it was asked for.

        Raises:
            ControlError: No such operation, wrong arguments, or it cannot be done now.
        """
        if name == "step":
            return self._step(args.convert(value, args.Step), by)
        found = self._table.get(name)
        if found is None:
            raise ControlError(f"No operation {name!r}; there are: {', '.join(self.names)}.")
        into, function = found
        return function(args.convert(value, into))

    def _state(self, given: args.Nothing) -> Answer:
        core, drive = self._core, self._drive
        return {
            "now_ns": core.now_ns,
            "done": core.engine.done,
            "speed": drive.speed,
            "started": drive.started,
            "paused": drive.paused,
            "seed": self._seed,
            "next_event_ns": core.engine.next_event_ns(),
            "session": core.session.tier.value,
            "accounts": list(core.session.accounts),
            "connections": [
                {"port": c.port, "frames": c.sent, "ready": c.ready} for c in core.hub.connections
            ],
            "requests_refused": core.pacing.refused,
            "driven": drive.driven,
            "pacing": {"strict": core.pacing.strict, "speed": core.settings.pacing_speed},
        }

    def _step(self, given: args.Step, by: asyncio.BaseTransport | None) -> Answer:
        if self._drive.speed != "lockstep":
            raise ControlError(
                f"The market moves by itself (speed {self._drive.speed}); steps need lockstep."
            )
        if given.max_events is not None and given.max_events < 1:
            raise ControlError("max_events must be 1 or more.")
        if given.received and not self._drive.claim(by):
            raise ControlError("Another client moves this market; a lockstep market has one driver.")
        return self._drive.step(until_ns=given.until_ns, max_events=given.max_events, received=given.received)

    def _clock(self, given: args.Clock) -> Answer:
        if isinstance(given.speed, (int, float)) and not 0 < given.speed <= 1e6:
            raise ControlError("speed must be above 0 and at most 1000000, or 'max' or 'lockstep'.")
        self._drive.set_clock(paused=given.paused, speed=given.speed)
        return self._state(args.Nothing())

    def _start(self, given: args.Nothing) -> Answer:
        self._drive.start()
        return self._state(given)

    def _reset(self, given: args.Reset) -> Answer:
        core = self._core
        self._seed = self._seed if given.seed is None else given.seed
        core.corporate.undo()
        core.engine.reset(self._seed)
        core.reset(self._seed)
        self._drive.reset(started=core.settings.autostart)
        return self._state(args.Nothing())

    def _tick(self, given: args.Tick) -> Answer:
        core = self._core
        if core.instrument(given.conid) is None:
            raise ControlError(f"conid {given.conid} is not in the universe.")
        values = msgspec.structs.asdict(given)
        values["time_ns"] = max(core.now_ns, given.time_ns or 0)
        core.engine.inject(MarketEvent(**values))
        core.hub.flush()
        return {"now_ns": core.now_ns}

    def _halt(self, given: args.Halt) -> Answer:
        core = self._core
        if core.instrument(given.conid) is None:
            raise ControlError(f"conid {given.conid} is not in the universe.")
        core.engine.halt(given.conid, given.on)
        core.hub.flush()
        return {"now_ns": core.now_ns, "conid": given.conid, "halted": given.on}

    def _ledger(self, given: args.Nothing) -> Answer:
        return self._core.oracle.ledger()

    def _book(self, given: args.Book) -> Answer:
        """The quote of one instrument and the orders on it that are not done."""
        core = self._core
        quote = core.engine.quote(given.conid)
        if quote is None:
            raise ControlError(f"conid {given.conid} has no quote.")
        orders = [one for one in core.engine.orders() if one.spec.conid == given.conid]
        return {
            "quote": {name: getattr(quote, name) for name in quote.__slots__},
            "orders": [
                {
                    "order_id": one.order_id,
                    "status": one.status.value,
                    "filled": str(one.filled),
                    "remaining": str(one.remaining),
                    "stop_price": one.stop_price,
                    "active": one.active,
                    "triggered": one.triggered,
                    "spec": msgspec.to_builtins(one.spec),
                }
                for one in orders
            ],
        }

    def _executions(self, given: args.Executions) -> Answer:
        found = self._core.engine.executions(given.account)
        return {"executions": [msgspec.to_builtins(one) for one in found]}

    async def _wait(self, given: args.Wait) -> Answer:
        try:
            await asyncio.wait_for(self._drive.done.wait(), max(given.timeout_s, 0.0))
        except TimeoutError:
            return self._state(args.Nothing()) | {"timeout": True}
        return self._state(args.Nothing()) | {"timeout": False}

    def _session(self, given: args.Session) -> Answer:
        self._core.set_tier(Tier(given.state))
        self._core.hub.flush()
        return self._state(args.Nothing())

    def _notice(self, given: args.Notice) -> Answer:
        self._core.hub.notify(given.text)
        self._core.hub.flush()
        return {}

    def _bulletin(self, given: args.Bulletin) -> Answer:
        self._core.hub.bulletin(given.text)
        self._core.hub.flush()
        return {}

    def _faults(self, given: args.Faults) -> Answer:
        """What is under way, and what happened."""
        faults = self._core.faults
        return {"faults": faults.rows(), "log": faults.log(given.since)}

    def _clear_faults(self, given: args.ClearFaults) -> Answer:
        cleared = self._core.faults.clear(given.id)
        if given.id is not None and not cleared:
            raise ControlError(f"No fault {given.id} is under way.")
        self._core.hub.flush()
        return {"cleared": cleared}

    def _requests(self, given: args.Requests) -> Answer:
        """The record of requests, and how full each limit's windows were by it."""
        pacing = self._core.pacing
        return {
            "total": pacing.requests,
            "refused": pacing.refused,
            "penalty_left_s": pacing.penalty_left_s,
            "history_peak": pacing.history_peak,
            "windows": pacing.windows(),
            "requests": pacing.rows(given.since, max(given.limit, 0)),
        }

    def _pacing(self, given: args.Pacing) -> Answer:
        """Change the limits; end a penalty that runs, or begin one."""
        pacing = self._core.pacing
        pacing.strict = pacing.strict if given.strict is None else given.strict
        pacing.penalty_s = pacing.penalty_s if given.penalty_s is None else given.penalty_s
        pacing.forgive()
        if given.punish:
            pacing.punish()
        return {"strict": pacing.strict, "penalty_s": pacing.penalty_s, "refused": pacing.refused}
