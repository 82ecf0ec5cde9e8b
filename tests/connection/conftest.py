"""An emulator in a thread and a direct connection to it, as a store holds one."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from bt_ibkr.config import SessionSettings
from bt_ibkr.connection.direct import DirectConnection, JournalInMemory
from bt_ibkr.connection.interface import (
    AccountEvent,
    AccountSnapshot,
    OrderFailed,
    OrderPlaced,
    SessionChanged,
    SessionNotice,
    StoreEvent,
)
from bt_ibkr.connection.mailbox import Mailbox, WakeUp
from bt_ibkr.emulator.settings import EmulatorSettings
from bt_ibkr.emulator.testing import EmulatorThread
from bt_ibkr.model.intent import OrderIntent, make_key
from bt_ibkr.model.order import OrderTicket, OrderType, Side
from bt_ibkr.risk import RiskLimits

ACCOUNT = "DU1234567"
PATIENCE_S = 10.0
PLAIN: dict[str, Any] = {
    "speed": "lockstep",
    "conflation_ms": 0,
    "questions": "none",
    "synthetic_instruments": ("AAPL",),
    "history_days": 1,
}
FAST: dict[str, Any] = {"paced": False, "reconnect_first_s": 0.01, "reconnect_longest_s": 0.02}


#: Nothing here streams market data, and orders are repeated on purpose.
LOOSE = RiskLimits(allow_no_data=True, duplicate_window_s=None)
#: Of the keys that tests make up themselves.
EPOCH = "tests"


def key_of(number: int, epoch: str = EPOCH) -> str:
    """The key of a test's order of that number."""
    return make_key("tester", epoch, number)


def intent(number: int, epoch: str = EPOCH, **changes: Any) -> OrderIntent:
    """An order as a strategy means it: ten of Apple at the market, under the key of its number."""
    key = key_of(number, epoch)
    plain: dict[str, Any] = {
        "account": ACCOUNT,
        "contract_id": 265598,
        "side": Side.BUY,
        "order_type": OrderType.MARKET,
        "quantity": Decimal(10),
        "client_order_id": key,
    }
    kept = {name: changes.pop(name) for name in ("parent_key", "group", "expires_ns") if name in changes}
    return OrderIntent(key=key, strategy="tester", ticket=OrderTicket(**(plain | changes)), **kept)


class Client:
    """A connection, its flag, and everything it told.

    Attributes:
        events: Of the attached account.
        store: Of the session.
    """

    def __init__(
        self,
        emulator: EmulatorThread,
        url: str = "",
        *,
        journal: Path | JournalInMemory | None = JournalInMemory(EPOCH),  # noqa: B008 - it is frozen
        risk: RiskLimits = LOOSE,
        **changes: Any,
    ) -> None:
        self.emulator = emulator
        self.wake = WakeUp()
        self.connection = DirectConnection(
            SessionSettings(base_url=url or emulator.url, **(FAST | changes)),
            self.wake,
            journal=journal,
            risk=risk,
        )
        self.mailbox: Mailbox[AccountEvent] = Mailbox(self.wake)
        self.store_box: Mailbox[StoreEvent] = Mailbox(self.wake)
        #: Of the journal, once the account is attached.
        self.epoch = EPOCH
        self.events: list[AccountEvent] = []
        self.store: list[StoreEvent] = []

    def open(self) -> Client:
        self.connection.open(self.store_box)
        return self

    def attach(self, account: str = ACCOUNT) -> AccountSnapshot:
        snapshot = self.connection.attach_account(account, self.mailbox)
        self.epoch = snapshot.epoch
        return snapshot

    def place(self, number: int, **changes: Any) -> str:
        """Place an order and wait for IBKR's id of it."""
        self.connection.place((intent(number, self.epoch, **changes),), self.mailbox)
        key = key_of(number, self.epoch)
        self.until(lambda: self.placed(number) or any(event.key == key for event in self.of(OrderFailed)))
        found = self.placed(number)
        assert found is not None, self.of(OrderFailed)
        return found

    def placed(self, number: int) -> str | None:
        """IBKR's id of the order of that number, as far as it was told."""
        key = key_of(number, self.epoch)
        ids = [event.order_id for event in self.of(OrderPlaced) if event.key == key]
        return ids[-1] if ids else None

    def states(self) -> list[str]:
        """The session's states, as they were told."""
        return [event.state for event in self.store if isinstance(event, SessionChanged)]

    def notices(self) -> list[SessionNotice]:
        """What else the session told."""
        return [event for event in self.store if isinstance(event, SessionNotice)]

    def look(self) -> None:
        while (event := self.mailbox.take()) is not None:
            self.events.append(event)
        while (told := self.store_box.take()) is not None:
            self.store.append(told)

    def until(self, wanted: Callable[[], Any]) -> None:
        """Wait for the flag until ``wanted()`` is true of what was told."""
        latest = time.monotonic() + PATIENCE_S
        while True:
            self.look()
            if wanted():
                return
            assert time.monotonic() < latest, (self.events, self.store)
            self.wake.wait(0.5)

    def step(self, events: int = 20) -> None:
        """Move the market and take in every frame of it."""
        self.emulator.call(lambda s: s.drive.step(until_ns=None, max_events=events, received={}))
        self.settle()

    def settle(self) -> None:
        """Take in every frame the emulator has sent on this connection, and every answer to a command."""
        port = self.connection.progress().port
        sent = self.emulator.call(
            lambda s: next((c.sent for c in s.core.hub.connections if c.port == port), 0)
        )
        self.until(lambda: self.connection.progress().frames >= sent and not self.connection.in_flight())

    def of(self, kind: type[Any]) -> list[Any]:
        """The account's events of one kind."""
        return [event for event in self.events if isinstance(event, kind)]


def session_threads() -> list[threading.Thread]:
    return [one for one in threading.enumerate() if one.name == "ibkr-session"]


StartEmulator = Callable[..., EmulatorThread]
Connect = Callable[..., Client]


@pytest.fixture
def start_emulator() -> Iterator[StartEmulator]:
    started: list[EmulatorThread] = []

    def start(**changes: Any) -> EmulatorThread:
        emulator = EmulatorThread(EmulatorSettings(**(PLAIN | changes)))
        emulator.__enter__()
        started.append(emulator)
        return emulator

    yield start
    for emulator in started:
        emulator.__exit__(None, None, None)


@pytest.fixture
def emulator(start_emulator: StartEmulator) -> EmulatorThread:
    return start_emulator()


@pytest.fixture
def connect(emulator: EmulatorThread) -> Iterator[Connect]:
    """Opened clients; in the end they are closed and nothing of theirs may be left."""
    clients: list[Client] = []

    def make(to: EmulatorThread | None = None, *, opened: bool = True, **changes: Any) -> Client:
        client = Client(to or emulator, **changes)
        clients.append(client)
        return client.open() if opened else client

    yield make
    for client in clients:
        client.connection.close()
    assert session_threads() == []
