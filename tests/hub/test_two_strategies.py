"""Two backtrader runs at one hub trade one instrument in opposite directions: each has what it did itself."""

from __future__ import annotations

import threading
from decimal import Decimal
from typing import Any

import backtrader as bt
import msgspec
import pytest

from bt_ibkr.emulator.testing import EmulatorThread
from bt_ibkr.hub.access import Grant
from bt_ibkr.hub.joining import HubAddress
from bt_ibkr.hub.thread import HubThread
from bt_ibkr.store import IBKRStore
from tests.hub.conftest import ACCOUNT, APPLE, LOOSE, StartHub, move

PATIENCE_S = 40.0


class Script(bt.Strategy):  # type: ignore[misc]
    """Enters, and goes out again once it is asked to."""

    params = (("size", 0), ("out", None), ("waiting", False))

    def __init__(self) -> None:
        self.entered: Any = None
        self.left: Any = None
        self.standing: Any = None
        self.trades: list[tuple[float, float]] = []
        self.resumed: Any = None
        self.seen: list[float] = []

    def notify_resume(self, resumed: Any) -> None:
        self.resumed = resumed

    def notify_order(self, order: Any) -> None:
        if order.status == bt.Order.Rejected:
            self.env.runstop()

    def notify_trade(self, trade: Any) -> None:
        if trade.isclosed:
            self.trades.append((trade.pnl, trade.pnlcomm))
            self.env.runstop()

    def next(self) -> None:
        self.seen.append(self.position.size)
        if self.p.waiting:
            if self.standing is None:
                self.standing = self.buy(size=1, exectype=bt.Order.Limit, price=1.0)
            elif self.standing.status == bt.Order.Accepted:
                self.env.runstop()
        elif not self.p.size:
            self.env.runstop()
        elif self.entered is None:
            self.entered = self.buy(size=self.p.size) if self.p.size > 0 else self.sell(size=-self.p.size)
        elif self.position.size == self.p.size and self.left is None and self.p.out.is_set():
            self.left = self.close()


class Run:
    """One backtrader run on a thread, through the hub."""

    def __init__(self, hub: HubThread, name: str, **script: Any) -> None:
        self.name = name
        self.out = threading.Event()
        self.strategy: Any = None
        self.broker: Any = None
        self.problem: BaseException | None = None
        self._address = HubAddress(endpoint=hub.endpoint, name=name)
        self._script = script
        self.running: list[Any] = []
        self.thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            with IBKRStore(hub=self._address) as store:
                cerebro = bt.Cerebro(quicknotify=True, stdstats=False)
                data = store.getdata(dataname="AAPL", timeframe=bt.TimeFrame.Ticks, backfill_start=False)
                cerebro.adddata(data, name="AAPL")
                self.broker = store.getbroker()
                cerebro.setbroker(self.broker)
                cerebro.addstrategy(Script, out=self.out, **self._script)
                (self.strategy,) = cerebro.run()
                self.cash = self.broker.getcash()
        except BaseException as problem:  # noqa: BLE001 - told by the test
            self.problem = problem

    def size(self) -> float:
        """Its position in Apple, as its broker has it."""
        sizes = [position.size for position in (self.broker.positions.values() if self.broker else ())]
        return float(sum(sizes))


def until(emulator: EmulatorThread, wanted: Any, *runs: Run) -> None:
    """Move the market until it is so."""
    latest = threading.Event()
    timer = threading.Timer(PATIENCE_S, latest.set)
    timer.start()
    try:
        while not wanted():
            assert not latest.is_set(), [(run.name, run.size(), run.problem) for run in runs]
            for run in runs:
                assert run.problem is None, run.problem
            move(emulator, 5)
            latest.wait(0.02)
    finally:
        timer.cancel()


@pytest.fixture
def hub(start_hub: StartHub) -> HubThread:
    return start_hub(strategies={"alpha": Grant(cash=50_000.0), "beta": Grant(cash=20_000.0)}, dead_s=3.0)


def test_each_has_its_own_position_trades_and_cash(hub: HubThread, emulator: EmulatorThread) -> None:
    alpha, beta = Run(hub, "alpha", size=10), Run(hub, "beta", size=-4)
    until(emulator, lambda: (alpha.size(), beta.size()) == (10, -4), alpha, beta)
    positions = emulator.ledger()["accounts"][ACCOUNT]["positions"]
    assert Decimal(str(positions[str(APPLE)]["quantity"])) == 6
    alpha.out.set()
    until(emulator, lambda: not alpha.thread.is_alive(), alpha, beta)
    assert beta.size() == -4
    beta.out.set()
    until(emulator, lambda: not beta.thread.is_alive(), alpha, beta)
    executions = emulator.ledger()["executions"]
    orders = {one["order_id"]: one["client_order_id"] for one in emulator.ledger()["orders"]}
    for run, share, size in ((alpha, 50_000.0, 10), (beta, 20_000.0, -4)):
        assert run.problem is None
        assert set(run.strategy.seen) <= {0, size}
        mine = [one for one in executions if orders[one["order_id"]].startswith(run.name)]
        assert sum(float(one["quantity"]) for one in mine) == 2 * abs(size)
        gain = sum(
            float(one["quantity"]) * float(one["price"]) * (1 if one["side"].startswith("S") else -1)
            for one in mine
        )
        paid = sum(float(one["commission"]) for one in mine)
        assert run.strategy.trades == [(pytest.approx(gain), pytest.approx(gain - paid))]
        assert run.cash == pytest.approx(share + gain - paid, abs=0.01)


def test_an_order_beyond_a_limit_is_rejected_and_the_run_goes_on(
    start_hub: StartHub, emulator: EmulatorThread
) -> None:
    """The hub's refusal comes as the error that it is; the broker looks at what that has."""
    hub = start_hub(risk=msgspec.structs.replace(LOOSE, max_order_size=5.0))
    run = Run(hub, "alpha", size=10)
    until(emulator, lambda: not run.thread.is_alive(), run)
    assert run.problem is None
    assert run.strategy.entered.status == bt.Order.Rejected
    assert emulator.ledger()["orders"] == []


def test_a_successor_takes_its_orders_over(hub: HubThread, emulator: EmulatorThread) -> None:
    """``notify_resume`` has the order that stands; one that ended while nobody was there shows as ended."""
    first = Run(hub, "alpha", waiting=True)
    until(emulator, lambda: not first.thread.is_alive(), first)
    assert first.problem is None
    (standing,) = [one for one in emulator.ledger()["orders"] if one["status"] == "Submitted"]
    second = Run(hub, "alpha")
    until(emulator, lambda: not second.thread.is_alive(), second)
    assert second.problem is None
    (order,) = second.strategy.resumed.orders
    assert second.broker.order_id(order) == str(standing["order_id"])
    emulator.call(lambda server: server.core.engine.cancel(int(standing["order_id"])))
    third = Run(hub, "alpha")
    until(emulator, lambda: not third.thread.is_alive(), third)
    assert third.problem is None
    assert third.strategy.resumed.orders == ()
    assert [one.getstatusname() for one in third.strategy.resumed.ended] == ["Canceled"]
    fourth = Run(hub, "alpha")
    until(emulator, lambda: not fourth.thread.is_alive(), fourth)
    assert fourth.strategy.resumed.ended == ()
