"""A broker on a connection that a test plays by hand, report by report."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import Any

import backtrader as bt
import pytest

from bt_ibkr.clock import NS_PER_S, ManualClock
from bt_ibkr.connection.interface import (
    AccountEvent,
    AccountSnapshot,
    CommissionReported,
    ExecutionReported,
    FeedEvent,
    OrderChanged,
    OrderFailed,
    OrderPlaced,
    Progress,
    Reconciled,
    StoreEvent,
)
from bt_ibkr.connection.mailbox import Mailbox
from bt_ibkr.connection.metrics import Metrics
from bt_ibkr.errors import BtIbkrError, OrderRefusedError
from bt_ibkr.model.calendar import TradingDay
from bt_ibkr.model.contract import Contract, SecurityType
from bt_ibkr.model.intent import OrderIntent
from bt_ibkr.model.market import DataQuality, Quote, Tick
from bt_ibkr.model.order import Execution, OrderReport, OrderStatus, OrderTicket, Side
from bt_ibkr.model.portfolio import LedgerLine, Position
from bt_ibkr.model.scanner import ScannerParameters, ScanRequest, ScanRow
from bt_ibkr.model.trading import TradingState
from bt_ibkr.services.chains import ChainProgress, ChainRequest
from bt_ibkr.services.datanames import ContractQuery
from bt_ibkr.services.depth import DepthSink
from bt_ibkr.services.history import HistoryRequest
from bt_ibkr.services.marketdata import TickSink
from bt_ibkr.store import IBKRStore
from bt_ibkr.wire.contract_rules import ContractRules
from bt_ibkr.wire.order_answers import WhatIf

ACCOUNT = "DU1"
NAME = "p"
CASH = 100_000.0
START_NS = 1_772_461_800 * NS_PER_S
MINUTE_NS = 60 * NS_PER_S


def key(number: int, name: str = NAME) -> str:
    """The key of the so manieth order."""
    return f"{name}.00000.{number}"


def held(quantity: str, price: float = 100.0, *, conid: int = 1, account: str = ACCOUNT) -> Position:
    """A position as IBKR reports it."""
    return Position(
        account=account, conid=conid, symbol="X", quantity=Decimal(quantity), average_price=price,
        average_cost=price, market_price=price, market_value=None, currency="USD", security_type="STK",
    )  # fmt: skip


def ledger_line(cash: float, *, currency: str = "USD", rate: float = 1.0) -> LedgerLine:
    return LedgerLine(
        currency=currency,
        cash=cash,
        settled_cash=None,
        net_liquidation=None,
        stock_value=None,
        realized_pnl=None,
        unrealized_pnl=None,
        exchange_rate=rate,
        time_ns=0,
    )


class Played:
    """A ``Connection`` that does nothing by itself: what it was asked is kept, what it says is the test's."""

    def __init__(self, contract: Contract) -> None:
        self.clock = ManualClock(START_NS)
        self.contract = contract
        #: Others, by conid.
        self.contracts: dict[int, Contract] = {}
        self.ticks: list[TickSink] = []
        self.events: Mailbox[AccountEvent] | None = None
        self.submissions: list[tuple[OrderIntent, ...]] = []
        self.cancels: list[str] = []
        self.changes: list[tuple[str, OrderTicket]] = []
        self.expiries: list[tuple[str, int | None]] = []
        self.halts: list[tuple[TradingState, bool, bool]] = []
        self.asked: list[OrderTicket] = []
        #: What attaching an account finds, beside cash.
        self.found: dict[str, Any] = {}
        #: Raised by the next ``place``.
        self.refuses: OrderRefusedError | None = None
        self.logins: tuple[str, ...] = (ACCOUNT,)
        self.attached: list[str] = []
        self.paper: bool | None = True
        self.flying = 0
        #: Spoken one by one, each time the store looks.
        self.batches: deque[list[AccountEvent]] = deque()
        self._stream_ns = 0

    def open(self, events: Mailbox[StoreEvent]) -> None:
        pass

    def close(self) -> None:
        pass

    def take_over(self) -> None:
        raise AssertionError("nobody else holds the session")

    def metrics(self) -> Metrics:
        return Metrics()

    def accounts(self) -> tuple[str, ...]:
        return self.logins

    def resolve(self, query: ContractQuery) -> Contract:
        return self.contracts.get(query.conid, self.contract)

    def contract_rules(self, contract: Contract) -> ContractRules:
        raise AssertionError("no rules are asked for")

    def chain(self, request: ChainRequest, progress: ChainProgress | None = None) -> tuple[Contract, ...]:
        raise AssertionError("no chain is asked for")

    def schedule(self, contract: Contract) -> tuple[TradingDay, ...]:
        return ()

    def subscribe_ticks(
        self, contract: Contract, sink: TickSink, extras: frozenset[str] = frozenset()
    ) -> None:
        self.ticks.append(sink)

    def unsubscribe_ticks(self, sink: TickSink) -> None:
        pass

    def quote(self, contract: Contract) -> Quote | None:
        return None

    def subscribe_depth(self, contract: Contract, account: str, sink: DepthSink) -> None:
        raise AssertionError("no book is asked for")

    def unsubscribe_depth(self, sink: DepthSink) -> None:
        pass

    def scan(self, request: ScanRequest) -> tuple[ScanRow, ...]:
        raise AssertionError("nothing is scanned")

    def scanner_parameters(self) -> ScannerParameters:
        raise AssertionError("nothing is scanned")

    def stream_ns(self) -> int:
        if self.batches:
            self.say(*self.batches.popleft())
        return self._stream_ns

    def request_history(self, request: HistoryRequest, token: int, answers: Mailbox[FeedEvent]) -> None:
        raise AssertionError("no history is asked for")

    def attach_account(self, account: str, events: Mailbox[AccountEvent]) -> AccountSnapshot:
        self.events = events
        self.attached.append(account)
        ledger = {"USD": ledger_line(CASH), "EUR": ledger_line(0.0, currency="EUR", rate=1.25)}
        found = {"positions": (), "executions": (), "orders": ()} | (self.found if account == ACCOUNT else {})
        return AccountSnapshot(ledger=ledger, **found)

    def place(self, intents: tuple[OrderIntent, ...], events: Mailbox[AccountEvent]) -> None:
        if self.refuses is not None:
            problem, self.refuses = self.refuses, None
            raise problem
        self.submissions.append(intents)

    def modify(self, key: str, ticket: OrderTicket, events: Mailbox[AccountEvent]) -> None:
        self.changes.append((key, ticket))

    def set_expiry(self, key: str, expires_ns: int | None) -> None:
        self.expiries.append((key, expires_ns))

    def cancel(self, key: str, events: Mailbox[AccountEvent]) -> None:
        self.cancels.append(key)

    def reconcile(self, account: str) -> None:
        pass

    def what_if(self, ticket: OrderTicket) -> WhatIf:
        self.asked.append(ticket)
        return WhatIf(
            amount=None, commission=1.0, total=None, currency="USD", equity=None, initial_margin=None,
            maintenance_margin=None, position=None, warnings=(), error=None,
        )  # fmt: skip

    def halt(self, state: TradingState, *, cancel_open: bool, flatten: bool) -> None:
        self.halts.append((state, cancel_open, flatten))

    def is_paper(self) -> bool | None:
        return self.paper

    def availability(self, contract: Contract) -> str:
        return "RpB"

    def in_flight(self) -> int:
        return self.flying

    def progress(self) -> Progress:
        return Progress(0, 0)

    def renew_due(self) -> None:
        pass

    # -- what the test makes it say ------------------------------------------------------------------

    def later(self, *batches: list[AccountEvent]) -> None:
        """Say these one after another, as the network would: each may come in a cycle of its own."""
        self.batches.extend(batches)

    def say(self, *events: AccountEvent) -> None:
        assert self.events is not None
        for event in events:
            self.events.append(event)

    def tick(self, second: float, price: float) -> None:
        """A trade, so many seconds after the start; of a combo, which has none, two quotes."""
        time_ns = START_NS + int(second * NS_PER_S)
        self.clock.set_ns(time_ns)
        self._stream_ns = time_ns
        for one in (price - 0.25, price) if self.contract.legs else (price,):
            tick = Tick(
                time_ns, self.contract.conid, one, one, 1.0, 1.0, one, 1.0, 1.0, 1.0,
                DataQuality.REALTIME, False, time_ns,
            )  # fmt: skip
            for sink in self.ticks:
                sink.append(tick)


class Stage:
    """A run whose every step is an action of the test, on cerebro's thread.

    The first bar is delivered before the first action. Each action runs when everything said has been taken in
    and the run has nothing else to do.
    """

    def __init__(
        self,
        strategy: type[Any],
        *,
        security_type: SecurityType = SecurityType.STOCK,
        currency: str = "USD",
        commission_wait: float = 3600.0,
        **broker: Any,
    ) -> None:
        contract = Contract(
            conid=1, symbol="X", security_type=security_type, exchange="SMART", currency=currency,
            multiplier=50.0 if security_type is SecurityType.FUTURE else 1.0, tick_size=0.01,
        )  # fmt: skip
        self.connection = Played(contract)
        self.store = IBKRStore(connection=self.connection, bar_grace_s=0.0)
        given = {"name": NAME, "commission_wait": commission_wait} | broker
        self.broker = self.store.getbroker(**given)
        self.cerebro = bt.Cerebro(quicknotify=True, stdstats=False)
        data = self.store.getdata(dataname="X", timeframe=bt.TimeFrame.Minutes, backfill_start=False)
        self.cerebro.adddata(data, name="X")
        self.cerebro.setbroker(self.broker)
        self.cerebro.addstrategy(strategy)
        self.strategy: Any = None

    def play(self, actions: Iterable[Callable[[Any], Any]]) -> Any:
        """Run the actions, each with the strategy; the strategy."""
        todo = [self._first_bar, *actions]

        def hook(horizon_ns: int) -> bool:
            if self.connection.batches:
                return True
            if not todo:
                self.store.finish()
                return False
            todo.pop(0)(self.cerebro.runningstrats[0])
            return True

        self.store.set_idle_hook(hook)
        with self.store:
            self.strategy = self.cerebro.run()[0]
        assert not todo
        assert not self.connection.batches
        return self.strategy

    def _first_bar(self, strategy: Any) -> None:
        self.connection.tick(0, 100.0)
        self.connection.tick(60, 100.0)

    @property
    def position(self) -> Any:
        return self.broker.getposition(self.cerebro.datas[0])


def execution(
    number: int,
    quantity: str,
    price: float,
    *,
    order_id: str | None = "900",
    side: Side = Side.BUY,
    commission: float | None = 1.0,
    second: int = 60,
    account: str = ACCOUNT,
) -> Execution:
    return Execution(
        execution_id=f"e{number}",
        account=account,
        conid=1,
        symbol="X",
        side=side,
        quantity=Decimal(quantity),
        price=price,
        time_ns=START_NS + second * NS_PER_S,
        commission=commission,
        order_id=order_id,
    )


class Says:
    """Reports, in short; of the first order, unless another's number is given. ``of=None`` is another client's."""

    @staticmethod
    def placed(number: int = 1, order_id: str = "900") -> AccountEvent:
        return OrderPlaced(key(number), order_id)

    @staticmethod
    def failed(error: BtIbkrError, number: int = 1) -> AccountEvent:
        return OrderFailed(key(number), error)

    @staticmethod
    def fill(
        number: int, quantity: str, price: float = 100.0, *, of: int | None = 1, **more: Any
    ) -> AccountEvent:
        return ExecutionReported(execution(number, quantity, price, **more), None if of is None else key(of))

    @staticmethod
    def corrects(replaced: AccountEvent, quantity: str, price: float = 100.0, *, number: int = 99,
                 of: int | None = 1, **more: Any) -> AccountEvent:  # fmt: skip
        """A correction of what ``fill`` said; a bust, if the quantity is 0."""
        assert isinstance(replaced, ExecutionReported)
        new = execution(number, quantity, price, **more)
        return ExecutionReported(new, None if of is None else key(of), replaced.execution)

    @staticmethod
    def commission(number: int, quantity: str, price: float = 100.0, **more: Any) -> AccountEvent:
        return CommissionReported(execution(number, quantity, price, **more))

    @staticmethod
    def status(
        status: OrderStatus,
        filled: str | None = None,
        *,
        of: int | None = 1,
        order_id: str = "900",
        **more: Any,
    ) -> AccountEvent:
        report = OrderReport(
            order_id=order_id,
            account=ACCOUNT,
            status=status,
            filled_quantity=None if filled is None else Decimal(filled),
            **more,
        )
        return OrderChanged(report, None if of is None else key(of))

    @staticmethod
    def reconciled(*positions: Position, complete: bool = True, **more: Any) -> AccountEvent:
        """An hour later, unless ``time_ns`` says otherwise."""
        given: dict[str, Any] = {
            "account": ACCOUNT,
            "cause": "timer",
            "time_ns": START_NS + 60 * MINUTE_NS,
        } | more
        return Reconciled(complete=complete, positions=positions if complete else None, **given)


@pytest.fixture
def stage(scripted: type[Any]) -> Callable[..., Stage]:
    """Makes stages with a scripted strategy, or another one."""
    return lambda strategy=scripted, **given: Stage(strategy, **given)


@pytest.fixture(name="held")
def held_fixture() -> Callable[..., Position]:
    return held


@pytest.fixture
def make_execution() -> Callable[..., Execution]:
    return execution


@pytest.fixture
def says() -> type[Says]:
    return Says
