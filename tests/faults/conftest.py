"""Clients of an emulator that goes wrong on request. Everything goes over real sockets.

A ``Bed`` is an emulator in a thread of its own with its control API, and a direct connection to it, as a store
holds one, with everything that it told.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from bt_ibkr.app.control import ControlClient
from bt_ibkr.clock import Clock
from bt_ibkr.config import SessionSettings, Trust
from bt_ibkr.connection.backlog import TickBacklog
from bt_ibkr.connection.direct import DirectConnection, JournalInMemory
from bt_ibkr.connection.interface import GapReported, SessionChanged
from bt_ibkr.emulator.settings import EmulatorSettings
from bt_ibkr.emulator.testing import EmulatorThread
from bt_ibkr.model.contract import Contract
from bt_ibkr.model.order import TimeInForce
from bt_ibkr.services.datanames import ContractQuery
from bt_ibkr.session.session import Session
from tests.connection.conftest import EPOCH, FAST, LOOSE, PLAIN, Client, intent, session_threads

AAPL = 265598


class Bed(Client):
    """A client, its emulator and what can go wrong between them.

    Attributes:
        ticks: Of the instrument that ``stream`` subscribed.
    """

    def __init__(self, emulator: EmulatorThread, control: ControlClient, **changes: Any) -> None:
        clock: Clock | None = changes.pop("clock", None)
        super().__init__(emulator)
        self.control = control
        self.settings = SessionSettings(base_url=changes.pop("url", emulator.url), **(FAST | changes))
        self.connection = DirectConnection(
            self.settings, self.wake, clock=clock, journal=JournalInMemory(EPOCH), risk=LOOSE
        )
        self.ticks = TickBacklog()

    @property
    def session(self) -> Session:
        session = self.connection._session
        assert session is not None
        return session

    def on_loop(self, function: Callable[[], Any]) -> Any:
        """The awaited result of ``function()``, in the session's thread."""
        assert self.connection._loop is not None

        async def work() -> Any:
            return await function()

        return self.connection._loop.call(work(), 30.0)

    # -- the emulator --------------------------------------------------------------------------------

    def fault(self, kind: str, **arguments: Any) -> int:
        """Let something go wrong; the fault's number."""
        return int(self.control.post("/fault", {"kind": kind} | arguments)["id"])

    def clear(self) -> None:
        self.control.post("/clear_faults", {})

    def hits(self, number: int) -> int:
        rows = self.control.get("/faults")["faults"]
        return int(next((row["hits"] for row in rows if row["id"] == number), 0))

    def requests(self, since: int = 0) -> list[dict[str, Any]]:
        """What the server was asked, from request ``since`` on."""
        rows: list[dict[str, Any]] = self.control.get(f"/requests?since={since}&limit=10000")["requests"]
        return rows

    def asked(self) -> int:
        """How many requests the server has seen."""
        return self.emulator.call(lambda server: server.core.pacing.requests)

    def count(self, path: str, since: int = 0) -> int:
        """How often a path was asked."""
        return sum(1 for row in self.requests(since) if row["path"] == path)

    def connections(self) -> int:
        return self.emulator.call(lambda server: len(server.core.hub.connections))

    # -- the client ----------------------------------------------------------------------------------

    def stream(self) -> Contract:
        """Subscribe to Apple and wait for its first tick."""
        contract = self.connection.resolve(ContractQuery(text="AAPL", symbol="AAPL"))
        self.connection.subscribe_ticks(contract, self.ticks)
        self.moves()
        return contract

    def moves(self) -> None:
        """New ticks arrive when the market moves."""
        before = len(self.ticks)

        def seen() -> bool:
            if self.emulator.settings.speed == "lockstep":
                self.emulator.call(lambda s: s.drive.step(until_ns=None, max_events=2, received={}))
            return len(self.ticks) > before

        self.until(seen)

    def changes(self) -> list[SessionChanged]:
        self.look()
        return [event for event in self.store if isinstance(event, SessionChanged)]

    def gaps(self) -> list[GapReported]:
        self.look()
        return [event for event in self.store if isinstance(event, GapReported)]

    def until_state(self, state: str, times: int = 1) -> SessionChanged:
        """Wait until the store was told of a state so often; the last telling."""
        self.until(lambda: self.states().count(state) >= times)
        return [one for one in self.changes() if one.state == state][-1]

    def back(self, gaps: int = 1) -> GapReported:
        """Wait until the stream is back, and works; the gap that was reported."""
        self.until(lambda: len(self.gaps()) >= gaps and self.changes()[-1].state == "streaming")
        return self.gaps()[-1]

    def forget(self) -> None:
        """What was told so far is no longer of interest."""
        self.look()
        self.store.clear()

    def buy(self, contract: Contract, ref: int = 1, **fields: Any) -> None:
        """Send an order under the key of ``ref``; it is told of through ``events``."""
        given: dict[str, Any] = {"contract_id": contract.conid, "time_in_force": TimeInForce.DAY} | fields
        self.connection.place((intent(ref, **given),), self.mailbox)


MakeBed = Callable[..., Bed]


@pytest.fixture
def bed() -> Iterator[MakeBed]:
    """Makes beds: ``emulator`` settings, the rest is the client's. In the end nothing of theirs may be left."""
    with contextlib.ExitStack() as stack:

        def make(emulator: dict[str, Any] | None = None, *, opened: bool = True, **changes: Any) -> Bed:
            settings = EmulatorSettings(**(PLAIN | {"pacing": "off"} | (emulator or {})))
            thread = stack.enter_context(EmulatorThread(settings))
            trust = Trust(insecure=True) if settings.tls else None
            control = stack.enter_context(contextlib.closing(ControlClient(thread.control, trust=trust)))
            # A connection that was used for control stays up while the gateway is down.
            control.get("/state")
            made = Bed(thread, control, **changes)
            stack.callback(made.connection.close)
            if opened:
                made.open()
                made.until_state("streaming")
            return made

        yield make
    assert session_threads() == []
