"""A desk: an engine whose market the test moves by hand, and a listener that writes down what it is told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bt_ibkr.emulator.accounts.account import Account
from bt_ibkr.emulator.engine import Engine, EngineConfig
from bt_ibkr.emulator.market.tape import VALUE_COLUMNS, Tape
from bt_ibkr.emulator.types import (
    EmulatedExecution,
    EmulatedOrder,
    Instrument,
    MarketEvent,
    OrderSpec,
    QuoteState,
)
from bt_ibkr.emulator.universe import Universe, default_universe
from bt_ibkr.model.order import OrderType, Side, TimeInForce

SHARED = Path(__file__).resolve().parents[3] / "shared"
AAPL = 265598
EURUSD = 12087792
#: Monday 2026-03-02, 09:30 in New York.
OPEN_NS = 1_772_461_800 * 1_000_000_000
SECOND_NS = 1_000_000_000
ACCOUNT = "DU1234567"


def tape_of(events: Sequence[MarketEvent]) -> Tape:
    """A tape of hand-written events."""
    columns = {
        name: np.array([np.nan if getattr(event, name) is None else getattr(event, name) for event in events])
        for name in VALUE_COLUMNS
    }
    times = np.array([event.time_ns for event in events], dtype=np.int64)
    return Tape(times, np.array([event.conid for event in events], dtype=np.int64), columns)


class Recorder:
    """A listener that keeps what it hears."""

    def __init__(self) -> None:
        self.statuses: dict[int, list[str]] = {}
        self.executions: list[EmulatedExecution] = []
        self.quotes: list[MarketEvent] = []
        self.accounts: list[str] = []
        self.log: list[str] = []
        self.react: Callable[[MarketEvent], None] | None = None

    def on_quote(self, instrument: Instrument, quote: QuoteState, event: MarketEvent) -> None:
        self.quotes.append(event)
        if self.react is not None:
            self.react(event)

    def on_order(self, order: EmulatedOrder) -> None:
        self.statuses.setdefault(order.order_id, []).append(order.status.value)
        self.log.append(f"order {order.order_id} {order.status.value} {order.filled}")

    def on_execution(self, execution: EmulatedExecution, order: EmulatedOrder) -> None:
        self.executions.append(execution)
        self.log.append(f"execution {execution.execution_id} {execution.quantity}@{execution.price}")

    def on_account(self, account: str) -> None:
        self.accounts.append(account)


class Desk:
    """An engine and shorthand for moving its market and placing orders."""

    def __init__(self, events: Sequence[MarketEvent] | None = None, **config: Any) -> None:
        self.heard = Recorder()
        self.conid = config.pop("conid", AAPL)
        config.setdefault("commission", "none")
        self.engine = Engine(
            tape=tape_of(events or [MarketEvent(OPEN_NS, self.conid)]),
            universe=default_universe(),
            config=EngineConfig(**config),
            listener=self.heard,
        )
        if events is None:
            self.engine.advance()

    def tick(self, **values: float | None) -> None:
        """Apply an event one second later."""
        self.engine.inject(MarketEvent(self.engine.now_ns + SECOND_NS, self.conid, **values))

    def quote(self, bid: float, ask: float, bid_size: float = 1000, ask_size: float = 1000) -> None:
        self.tick(bid=bid, bid_size=bid_size, ask=ask, ask_size=ask_size)

    def trade(self, price: float, size: float = 100) -> None:
        self.tick(last=price, last_size=size)

    def spec(self, side: str, quantity: object, kind: str = "MKT", **more: Any) -> OrderSpec:
        more.setdefault("time_in_force", TimeInForce.GOOD_TILL_CANCELLED)
        return OrderSpec(
            account=more.pop("account", ACCOUNT),
            conid=more.pop("conid", self.conid),
            side=Side(side),
            order_type=OrderType(kind),
            quantity=Decimal(str(quantity)),
            **more,
        )

    def place(self, side: str, quantity: object, kind: str = "MKT", **more: Any) -> EmulatedOrder:
        """Place one order that must be accepted."""
        placed = self.engine.place([self.spec(side, quantity, kind, **more)])[0]
        assert placed.order is not None, placed.error
        return placed.order

    def refused(self, side: str, quantity: object, kind: str = "MKT", **more: Any) -> str:
        """Place one order that must be refused."""
        placed = self.engine.place([self.spec(side, quantity, kind, **more)])[0]
        assert placed.order is None
        assert placed.error
        return placed.error

    @property
    def account(self) -> Account:
        return self.engine.account(ACCOUNT)

    @property
    def fills(self) -> list[tuple[str, float]]:
        """Quantity and price of every execution."""
        return [(str(one.quantity), one.price) for one in self.heard.executions]


@pytest.fixture
def desk() -> Callable[..., Desk]:
    """Makes desks; keyword arguments are those of ``EngineConfig``."""
    return Desk


@pytest.fixture
def universe() -> Universe:
    return default_universe()


@pytest.fixture
def market_data() -> Path:
    """The folder of real market data beside the repository."""
    folder = SHARED / "data"
    if not folder.is_dir():
        pytest.skip("the market data beside the repository is not there")
    return folder
