"""What a strategy's process has below its broker: a connection with a journal of its own, over sockets to an emulator
that goes wrong on request."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from typing import Any

import pytest

from bt_ibkr.clock import NS_PER_S, ManualClock
from bt_ibkr.config import SessionSettings
from bt_ibkr.connection.direct import DirectConnection
from bt_ibkr.connection.interface import (
    AccountSnapshot,
    LedgerChanged,
    OrderChanged,
    OrderFailed,
    OrderPlaced,
    Reconciled,
)
from bt_ibkr.desk import changes
from bt_ibkr.desk import desk as desk_module
from bt_ibkr.desk.trading import TradingDesk
from bt_ibkr.emulator.settings import EmulatorSettings
from bt_ibkr.emulator.testing import EmulatorThread
from bt_ibkr.journal import Journal, JournalOrder, journal_path
from bt_ibkr.model.intent import OrderIntent, make_key
from bt_ibkr.model.order import OrderStatus, OrderTicket, OrderType, Side, TimeInForce
from bt_ibkr.model.trading import Trading, TradingState
from bt_ibkr.risk import RiskLimits
from bt_ibkr.services.questions import QuestionPolicy
from tests.connection.conftest import ACCOUNT, FAST, PLAIN, Client, session_threads

AAPL = 265598
#: Nothing here streams market data, and orders are repeated on purpose.
LOOSE = RiskLimits(allow_no_data=True, duplicate_window_s=None)
SUBMISSIONS = "/iserver/account/*/orders"
ONE_ORDER = "/iserver/account/*/order/*"
REPLIES = "/iserver/reply/*"
LIST = "/iserver/account/orders"


def ticket(**changes: Any) -> OrderTicket:
    """Buy 10 AAPL far below the market, so that it rests."""
    plain: dict[str, Any] = {
        "account": ACCOUNT,
        "contract_id": AAPL,
        "side": Side.BUY,
        "order_type": OrderType.LIMIT,
        "limit_price": 50.0,
        "quantity": Decimal(10),
        "time_in_force": TimeInForce.GOOD_TILL_CANCELLED,
    }
    if changes.get("order_type", OrderType.LIMIT) not in (OrderType.LIMIT, OrderType.STOP_LIMIT):
        del plain["limit_price"]
    return OrderTicket(**(plain | changes))


class Trader(Client):
    """A client that trades in one account.

    Attributes:
        desk: Of the session; touch it inside ``on_loop`` only.
        snapshot: Of the account, once it is attached.
        clock: The market's, moved by ``wait_out`` alone.
    """

    def __init__(
        self,
        emulator: EmulatorThread,
        *,
        policy: QuestionPolicy | None = None,
        risk: RiskLimits = LOOSE,
        **changes: Any,
    ) -> None:
        super().__init__(emulator)
        self.clock = ManualClock(emulator.call(lambda server: server.core.now_ns))
        self.connection = DirectConnection(
            SessionSettings(base_url=emulator.url, **(FAST | changes)),
            self.wake,
            clock=self.clock,
            policy=policy,
            risk=risk,
        )
        self.snapshot: AccountSnapshot
        self._sequences: dict[str, int] = {}

    def attach(self, account: str = ACCOUNT) -> AccountSnapshot:
        self.snapshot = super().attach(account)
        self._sequences = dict(self.snapshot.sequences)
        # Cash is subscribed last, and the only one that is answered.
        self.until(lambda: self.of(LedgerChanged))
        return self.snapshot

    # -- the session ---------------------------------------------------------------------------------

    @property
    def desk(self) -> TradingDesk:
        desk = self.connection._desk
        assert desk is not None
        return desk

    def on_loop(self, function: Callable[[], Any]) -> Any:
        """The result of ``function()``, in the session's thread; awaited if it can be."""
        assert self.connection._loop is not None

        async def work() -> Any:
            made = function()
            return await made if hasattr(made, "__await__") else made

        return self.connection._loop.call(work(), 30.0)

    def connected(self) -> bool:
        """Whether the stream stands and the accounts were read since."""
        return bool(self.on_loop(lambda: self.desk._connected and self.desk._ready.is_set()))

    def wait_out(self, seconds: float) -> None:
        """Let market time pass for this client; nothing happens in the market."""
        self.clock.set_ns(self.clock.now_ns() + round(seconds * NS_PER_S))

    # -- orders --------------------------------------------------------------------------------------

    def intent(self, name: str = "tested", **changes: Any) -> OrderIntent:
        """An order under the next key."""
        number = self._sequences.get(name, 1)
        self._sequences[name] = number + 1
        key = make_key(name, self.snapshot.epoch, number)
        given = {one: changes.pop(one) for one in ("parent_key", "group") if one in changes}
        return OrderIntent(
            key=key, strategy=name, ticket=ticket(**({"client_order_id": key} | changes)), **given
        )

    def bracket(self, **changes: Any) -> tuple[OrderIntent, OrderIntent, OrderIntent]:
        """Buy with a target and a protective stop."""
        parent = self.intent(**changes)
        child: dict[str, Any] = {
            "side": Side.SELL,
            "client_order_id": None,
            "parent": parent.key,
            "parent_key": parent.key,
        }
        return (
            parent,
            self.intent(limit_price=150.0, **child),
            self.intent(order_type=OrderType.STOP, stop_price=40.0, **child),
        )

    def send(self, *intents: OrderIntent) -> str:
        """Place them as one submission; the first key."""
        self.connection.place(intents, self.mailbox)
        return intents[0].key

    def stands(self, **changes: Any) -> str:
        """Place one order and wait until it stands; its key."""
        key = self.send(self.intent(**changes))
        self.until(lambda: self.told(OrderPlaced, key))
        return key

    def cancel(self, key: str) -> None:
        self.connection.cancel(key, self.mailbox)

    def modify(self, key: str, **changes: Any) -> OrderTicket:
        """Ask for another price, size …; the ticket that was asked for."""
        changed = ticket(**({"client_order_id": key} | changes))
        self.connection.modify(key, changed, self.mailbox)
        return changed

    def halt(self, mode: Trading, *, cancel_open: bool = False, flatten: bool = False) -> None:
        state = TradingState(mode=mode, reason="tested", by="test", since_ns=self.clock.now_ns())
        self.connection.halt(state, cancel_open=cancel_open, flatten=flatten)

    def reconciled(self) -> Reconciled:
        """Read the account again; what was told of it."""
        before = len(self.of(Reconciled))
        self.connection.reconcile(ACCOUNT)
        self.until(lambda: len(self.of(Reconciled)) > before and not self.connection.in_flight())
        last = self.of(Reconciled)[-1]
        assert isinstance(last, Reconciled)
        return last

    # -- what was told and written -------------------------------------------------------------------

    def told(self, kind: type[Any], key: str) -> list[Any]:
        """The events of one kind about one order."""
        return [event for event in self.of(kind) if event.key == key]

    def failure(self, key: str) -> Any:
        """Wait until the order failed; the error of the last time it did."""
        self.until(lambda: self.told(OrderFailed, key))
        return self.told(OrderFailed, key)[-1].error

    def ended(self, key: str, status: OrderStatus = OrderStatus.CANCELLED) -> bool:
        """Whether IBKR reported that."""
        return any(one.report.status is status for one in self.told(OrderChanged, key))

    def alarms(self, kind: str) -> list[str]:
        """Texts of the notices of one kind."""
        self.look()
        return [notice.text for notice in self.notices() if notice.kind == kind]

    def journal(self) -> Journal:
        """The journal, as another process sees it."""
        return Journal.open(journal_path(ACCOUNT), clock=self.clock, exclusive=False)

    def record(self, key: str) -> JournalOrder:
        """The journal's order of that key."""
        journal = self.journal()
        try:
            found = journal.order(key)
        finally:
            journal.close()
        assert found is not None
        return found

    def log(self, key: str) -> list[str]:
        """The kinds of what the journal has of an order, in order."""
        journal = self.journal()
        try:
            return [event.kind for event in journal.events(key=key)]
        finally:
            journal.close()

    # -- the emulator --------------------------------------------------------------------------------

    def fault(self, kind: str, **arguments: Any) -> int:
        return self.emulator.fault(kind, **arguments)

    def lose(self, method: str = "POST", path: str = SUBMISSIONS, **changes: Any) -> int:
        """The next such request is carried out, and its answer is lost."""
        return self.fault("http", **({"action": "lose", "method": method, "path": path} | changes))

    def clear(self, number: int | None = None) -> None:
        """End one fault, or all."""
        self.emulator.do("clear_faults", **({} if number is None else {"id": number}))

    def quote(self, bid: float = 99.99, ask: float = 100.01) -> None:
        """A market, so that market orders execute at once."""
        self.emulator.do("tick", conid=AAPL, bid=bid, bid_size=900.0, ask=ask, ask_size=900.0)

    def asked(self, method: str, path: str) -> list[str]:
        """The paths of that method that the emulator was asked, with this in them."""
        rows: Sequence[dict[str, Any]] = self.emulator.do("requests", since=0, limit=10_000)["requests"]
        return [row["path"] for row in rows if row["method"] == method and path in row["path"]]

    def theirs(self, *, alive: bool | None = None) -> list[dict[str, Any]]:
        """The orders in the emulator's books; those that are open, or that are not, if wanted."""
        rows: list[dict[str, Any]] = self.emulator.ledger()["orders"]
        done = ("Filled", "Cancelled", "Failed", "Inactive")
        return [row for row in rows if alive is None or (row["status"] not in done) is alive]

    def held(self) -> Decimal:
        """The emulator's position."""
        rows = self.emulator.ledger()["accounts"][ACCOUNT]["positions"]
        return Decimal(str(rows.get(str(AAPL), rows.get(AAPL, {"quantity": 0}))["quantity"]))

    def believed(self) -> Decimal:
        """The desk's position."""
        held = self.on_loop(lambda: self.desk.positions(ACCOUNT))
        return Decimal(held.get(AAPL, 0))


StartEmulator = Callable[..., EmulatorThread]
Trade = Callable[..., Trader]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses between looks as short as they can be without a busy loop."""
    monkeypatch.setattr(desk_module, "_LOOK_PAUSES_S", (0.02,) * 7)
    monkeypatch.setattr(changes, "_PAUSES_S", (0.02,) * 4)


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
def trade(emulator: EmulatorThread) -> Iterator[Trade]:
    """Traders with their account attached; in the end they are closed and nothing of theirs may be left."""
    traders: list[Trader] = []

    def make(to: EmulatorThread | None = None, *, attached: bool = True, **changes: Any) -> Trader:
        trader = Trader(to or emulator, **changes)
        traders.append(trader)
        trader.open()
        if attached:
            trader.attach()
        return trader

    yield make
    for trader in traders:
        trader.connection.close()
    assert session_threads() == []


@pytest.fixture
def trader(trade: Trade) -> Trader:
    return trade()
