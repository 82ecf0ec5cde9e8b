"""An emulator, a hub that owns the session on it, and strategy processes' connections to the hub."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from bt_ibkr.app.control import ControlClient
from bt_ibkr.clock import ManualClock, ServerClock
from bt_ibkr.config import SessionSettings
from bt_ibkr.connection.brokerage import JournalInMemory
from bt_ibkr.connection.interface import (
    AccountEvent,
    AccountSnapshot,
    OrderPlaced,
    SessionChanged,
    StoreEvent,
)
from bt_ibkr.connection.mailbox import Mailbox, WakeUp
from bt_ibkr.emulator.settings import EmulatorSettings
from bt_ibkr.emulator.testing import EmulatorThread
from bt_ibkr.hub.config import HubSettings
from bt_ibkr.hub.connection import HubConnection
from bt_ibkr.hub.joining import HubAddress
from bt_ibkr.hub.thread import HubThread
from bt_ibkr.model.contract import Contract
from bt_ibkr.model.intent import OrderIntent, make_key
from bt_ibkr.model.market import Tick
from bt_ibkr.model.order import OrderTicket, OrderType, Side
from bt_ibkr.risk import RiskLimits
from bt_ibkr.services.datanames import parse_dataname
from bt_ibkr.store import IBKRStore
from tests.conftest import Bench, Line

ACCOUNT = "DU1234567"
APPLE = 265598
PATIENCE_S = 15.0
PLAIN: dict[str, Any] = {
    "speed": "lockstep",
    "conflation_ms": 0,
    "questions": "none",
    "synthetic_instruments": ("AAPL", "MSFT"),
    "history_days": 1,
}
FAST: dict[str, Any] = {"paced": False, "reconnect_first_s": 0.01, "reconnect_longest_s": 0.02}
LOOSE = RiskLimits(allow_no_data=True, duplicate_window_s=None)


class Ticks:
    """A sink that keeps everything."""

    room = 1 << 30

    def __init__(self) -> None:
        self.all: list[Tick] = []
        self.push = self.all.append
        self.losses = 0

    def __len__(self) -> int:
        return 0

    def append(self, item: Tick, /) -> None:
        self.all.append(item)

    def hold(self, tick: Tick, /) -> None:
        self.all.append(tick)

    def lose(self, tick: Tick | None, count: int = 0) -> None:
        self.losses += 1


class Strategy:
    """A strategy's end, without backtrader: a connection, its flag, and everything it was told."""

    def __init__(self, endpoint: str, name: str, **options: Any) -> None:
        self.name = name
        self.wake = WakeUp()
        self.connection = HubConnection(endpoint, name, self.wake, **options)
        self.mailbox: Mailbox[AccountEvent] = Mailbox(self.wake)
        self.store_box: Mailbox[StoreEvent] = Mailbox(self.wake)
        self.events: list[AccountEvent] = []
        self.store: list[StoreEvent] = []
        self.epoch = ""
        self._number = 0

    def open(self) -> Strategy:
        self.connection.open(self.store_box)
        return self

    def attach(self, account: str = ACCOUNT) -> AccountSnapshot:
        snapshot = self.connection.attach_account(account, self.mailbox)
        self.epoch = snapshot.epoch
        self._number = snapshot.sequences.get(self.name, 1) - 1
        return snapshot

    def contract(self, name: str = "AAPL") -> Contract:
        return self.connection.resolve(parse_dataname(name))

    def follow(self, name: str = "AAPL") -> Ticks:
        """Ticks of an instrument, from the first frame on."""
        ticks = Ticks()
        self.connection.subscribe_ticks(self.contract(name), ticks)
        self.until(lambda: ticks.all)
        return ticks

    def intent(self, side: Side = Side.BUY, quantity: int = 10, **changes: Any) -> OrderIntent:
        self._number += 1
        key = make_key(self.name, self.epoch, self._number)
        plain: dict[str, Any] = {
            "account": ACCOUNT,
            "contract_id": APPLE,
            "side": side,
            "order_type": OrderType.MARKET,
            "quantity": Decimal(quantity),
            "client_order_id": key,
        }
        return OrderIntent(key=key, strategy=self.name, ticket=OrderTicket(**(plain | changes)))

    def place(self, side: Side = Side.BUY, quantity: int = 10, **changes: Any) -> str:
        """Place an order; its key."""
        intent = self.intent(side, quantity, **changes)
        self.connection.place((intent,), self.mailbox)
        return intent.key

    def look(self) -> None:
        while (event := self.mailbox.take()) is not None:
            self.events.append(event)
        while (told := self.store_box.take()) is not None:
            self.store.append(told)

    def until(self, wanted: Callable[[], Any], patience_s: float = PATIENCE_S) -> None:
        """Wait for the flag until ``wanted()`` is true of what was told."""
        latest = time.monotonic() + patience_s
        while True:
            self.look()
            if wanted():
                return
            assert time.monotonic() < latest, (self.name, self.events, self.store)
            self.wake.wait(0.2)

    def of(self, kind: type[Any], key: str | None = None) -> list[Any]:
        self.look()
        return [
            one
            for one in self.events
            if isinstance(one, kind) and (key is None or getattr(one, "key", "") == key)
        ]

    def placed(self, key: str) -> bool:
        return bool(self.of(OrderPlaced, key))

    def states(self) -> list[bool]:
        """Whether the session was told to stream, change by change."""
        self.look()
        return [one.connected for one in self.store if isinstance(one, SessionChanged)]


class HubBench(Bench):
    """As ``Bench``, with the session in a hub.

    Attributes:
        hubs: Those that were started.
    """

    def __init__(self, folder: Path, stack: contextlib.ExitStack) -> None:
        super().__init__(folder, stack)
        self.hubs: list[HubThread] = []

    def line(
        self,
        *,
        store: Mapping[str, Any] | None = None,
        session: Mapping[str, Any] | None = None,
        correct: bool = False,
        before: Callable[[EmulatorThread, ManualClock], None] = lambda emulator, clock: None,
        **settings: Any,
    ) -> Line:
        """A lockstep emulator, a hub on it, and a store at the hub; clocks are set by the server's if ``correct``.

        ``session`` is the hub's ``HubSettings`` here; ``before`` is called before the hub logs on.
        """
        chosen: dict[str, Any] = {
            "speed": "lockstep",
            "conflation_ms": 0,
            "autostart": False,
            "pacing": "off",
        } | settings
        emulator = self._stack.enter_context(EmulatorThread(EmulatorSettings(**chosen)))
        control = self._stack.enter_context(contextlib.closing(ControlClient(emulator.control)))
        clock = ManualClock(int(control.get("/state")["now_ns"]))
        before(emulator, clock)
        given: dict[str, Any] = {"beat_s": 0.2, "dead_s": 5.0} | dict(session or {})
        hub = HubThread(
            SessionSettings(base_url=emulator.url, paced=False, reconnect_first_s=0.01),
            HubSettings(endpoint=f"ipc://{self._folder}/hub_{len(self.hubs)}", **given),
            clock=ServerClock(clock) if correct else clock,
            journal=JournalInMemory("tests"),
        )
        self.hubs.append(self._stack.enter_context(hub))
        made = IBKRStore(
            hub=HubAddress(endpoint=hub.endpoint, name="scripted"),
            clock=ServerClock(clock) if correct else clock,
            **({"bar_grace_s": 0.0} | dict(store or {})),
        )
        self._stack.enter_context(made)
        return Line(emulator, control, clock, made)


StartHub = Callable[..., HubThread]
Join = Callable[..., Strategy]


@pytest.fixture
def hub_bench(tmp_path: Path) -> Iterator[HubBench]:
    with contextlib.ExitStack() as stack:
        yield HubBench(tmp_path, stack)


@pytest.fixture
def emulator() -> Iterator[EmulatorThread]:
    with EmulatorThread(EmulatorSettings(**PLAIN)) as one:
        yield one


@pytest.fixture
def start_hub(emulator: EmulatorThread, tmp_path: Path) -> Iterator[StartHub]:
    """Start hubs; by default on a socket in the test's folder, with a journal in memory."""
    hubs: list[HubThread] = []

    def start(
        journal: Path | JournalInMemory | None = None, risk: RiskLimits = LOOSE, **settings: Any
    ) -> HubThread:
        chosen: dict[str, Any] = {
            "endpoint": f"ipc://{tmp_path}/hub",
            "beat_s": 0.1,
            "dead_s": 1.0,
        } | settings
        hub = HubThread(
            SessionSettings(base_url=emulator.url, **FAST),
            HubSettings(**chosen),
            journal=JournalInMemory("tests") if journal is None else journal,
            risk=risk,
        )
        hubs.append(hub)
        return hub

    yield start
    for hub in hubs:
        if not hub.server._closed:
            hub.close()


@pytest.fixture
def hub(start_hub: StartHub) -> HubThread:
    return start_hub()


@pytest.fixture
def join(hub: HubThread) -> Iterator[Join]:
    """Strategies at the hub."""
    joined: list[Strategy] = []

    def one(name: str = "alpha", **options: Any) -> Strategy:
        strategy = Strategy(hub.endpoint, name, **options)
        joined.append(strategy)
        return strategy.open()

    yield one
    for strategy in joined:
        strategy.connection.close()


def move(emulator: EmulatorThread, events: int = 20) -> None:
    """Move the market."""
    emulator.call(lambda s: s.drive.step(until_ns=None, max_events=events, received={}))
