"""Orders over real sockets, through the journal, and through the end of the program that placed them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import backtrader as bt
import pytest

from bt_ibkr.clock import ManualClock
from bt_ibkr.config import SessionSettings
from bt_ibkr.store import IBKRStore

if TYPE_CHECKING:
    from tests.conftest import Bench, Tape

Limit, Stop = bt.Order.Limit, bt.Order.Stop
FALL = {0: 100.0, 150: 99.0, 330: 94.0}


@pytest.fixture
def again(tmp_path: Path) -> Callable[[Any], Any]:
    """The line of another program to the same emulator and the same journal."""

    def begin(line: Any) -> Any:
        clock = ManualClock(int(line.control.get("/state")["now_ns"]))
        store = IBKRStore(
            settings=SessionSettings(base_url=line.emulator.url, paced=False, reconnect_first_s=0.01),
            clock=clock,
            bar_grace_s=0.0,
            journal=tmp_path / "journal.sqlite",
        )
        return type(line)(line.emulator, line.control, clock, store)

    return begin


@pytest.fixture
def line(bench: Bench, tape: type[Tape], path: Any, tmp_path: Path) -> Any:
    prices = tape().every_second(480, path(FALL))
    return bench.line(market=bench.market(AAPL=prices), store={"journal": tmp_path / "journal.sqlite"})


@pytest.fixture
def hooked(scripted: type[Any]) -> Any:
    class Hooked(scripted):  # type: ignore[misc]
        def notify_resume(self, resumed: Any) -> None:
            self.resumed = resumed

    return Hooked


def stop_at_bar(number: int, *actions: Any) -> Callable[[Any], None]:
    """Do one action a bar, then end the run."""

    def script(strategy: Any) -> None:
        turn, strategy.turns = strategy.turns, strategy.turns + 1
        if turn < len(actions) and actions[turn] is not None:
            made = actions[turn](strategy)
            strategy.orders.extend(made if isinstance(made, list) else [made] if made is not None else [])
        if turn == number:
            strategy.env.runstop()

    return script


def statuses(line: Any) -> dict[str, str]:
    """Type and status of every order the emulator has seen."""
    orders = line.emulator.call(lambda server: server.core.engine.orders())
    return {f"{o.spec.side.value} {o.spec.order_type.value}": o.status.value for o in orders}


def test_open_orders_go_on(bench: Bench, line: Any, again: Any, hooked: Any) -> None:
    """Bought, with a stop and a target that cancel each other; the stop executes in the second run."""

    def protect(strategy: Any) -> list[Any]:
        target = strategy.sell(size=10, exectype=Limit, price=110.0)
        return [target, strategy.sell(size=10, exectype=Stop, price=95.0, oco=target)]

    first = bench.run(line, stop_at_bar(2, lambda s: s.buy(size=10), protect), strategy=hooked)
    assert len(first.broker.get_orders_open()) == 2
    keys = [first.broker.client_order_id(order) for order in first.broker.get_orders_open()]

    second = bench.run(again(line), lambda s: None, strategy=hooked)
    strategy = second.strategy
    target, stop = strategy.resumed.orders
    assert [second.broker.client_order_id(order) for order in (target, stop)] == keys
    assert (target.exectype, target.price, stop.exectype, stop.price) == (Limit, 110.0, Stop, 95.0)
    assert strategy.resumed.positions[strategy.data].size == 10
    assert strategy.statuses(stop) == ["Completed -10"]
    assert strategy.statuses(target) == ["Canceled"]
    assert second.broker.getposition(strategy.data).size == 0
    assert second.broker.getcash() == pytest.approx(float(second.account["cash"]["USD"]), abs=0.005)
    assert not second.broker.problems
    assert statuses(line) == {"BUY MKT": "Filled", "SELL LMT": "Cancelled", "SELL STP": "Filled"}
    # One trade: the position of before, closed by the order of before.
    assert [trade[0] for trade in strategy.trades] == [bt.Trade.Open, bt.Trade.Closed]


def test_expiry_goes_on(bench: Bench, line: Any, again: Any, hooked: Any) -> None:
    def far(strategy: Any) -> Any:
        return strategy.buy(size=10, exectype=Limit, price=50.0, valid=timedelta(seconds=200))

    bench.run(line, stop_at_bar(1, far), strategy=hooked)
    second = bench.run(again(line), lambda s: None, strategy=hooked)
    (order,) = second.strategy.resumed.orders
    assert second.strategy.statuses(order) == ["Expired"]
    assert statuses(line) == {"BUY LMT": "Cancelled"}


def test_without_the_hook_entries_are_cancelled(bench: Bench, line: Any, again: Any) -> None:
    def both(strategy: Any) -> list[Any]:
        entry = strategy.buy(size=10, exectype=Limit, price=50.0)
        return [entry, strategy.sell(size=10, exectype=Stop, price=90.0)]

    bench.run(line, stop_at_bar(2, lambda s: s.buy(size=10), both))
    second = bench.run(again(line), lambda s: None)
    assert statuses(line) == {"BUY MKT": "Filled", "BUY LMT": "Cancelled", "SELL STP": "PreSubmitted"}
    (kept,) = second.broker.get_orders_open()
    assert kept.exectype == Stop


def test_restarts_change_nothing(bench: Bench, line: Any, again: Any, hooked: Any) -> None:
    def protect(strategy: Any) -> Any:
        return strategy.sell(size=10, exectype=Stop, price=80.0)

    bench.run(line, stop_at_bar(2, lambda s: s.buy(size=10), protect), strategy=hooked)
    before = statuses(line)
    seen = set()
    for _ in range(5):
        run = bench.run(again(line), stop_at_bar(0), strategy=hooked)
        (order,) = run.strategy.resumed.orders
        seen.add((run.broker.client_order_id(order), run.broker.order_id(order), order.price))
        assert run.broker.getposition(run.strategy.data).size == 10
        assert run.strategy.resumed.differences == ()
    assert len(seen) == 1
    assert statuses(line) == before


def test_change_over_the_wire(bench: Bench, tape: type[Tape], path: Any, at_bar: Any) -> None:
    prices = tape().every_second(300, path({0: 100.0}))
    line = bench.line(market=bench.market(AAPL=prices))
    orders: list[Any] = []

    def change(strategy: Any) -> None:
        strategy.broker.modify(strategy.orders[0], price=97.0, size=7)

    def look(strategy: Any) -> None:
        (told,) = line.emulator.call(lambda server: server.core.engine.orders())
        orders.append((told.spec.limit_price, int(told.spec.quantity)))
        strategy.broker.modify(strategy.orders[0], price=101.0)

    run = bench.run(line, at_bar(lambda s: s.buy(size=10, exectype=Limit, price=98.0), change, look))
    (order,) = run.strategy.orders
    assert orders == [(97.0, 7)]
    assert run.strategy.statuses(order) == ["Submitted", "Accepted", "Accepted", "Accepted", "Completed 7"]
    assert (order.price, order.size, order.executed.size) == (101.0, 7, 7)
    run.agree()


def test_changed_expiry_goes_on(bench: Bench, line: Any, again: Any, hooked: Any) -> None:
    """``modify(valid=…)``: alone, and with a price that IBKR has to take; a restart keeps the later moment."""

    def far(strategy: Any) -> list[Any]:
        hour = timedelta(hours=1)
        return [strategy.buy(size=size, exectype=Limit, price=50.0, valid=hour) for size in (10, 20)]

    def sooner(strategy: Any) -> None:
        first, second = strategy.orders
        strategy.broker.modify(first, valid=timedelta(seconds=200))
        strategy.broker.modify(second, valid=timedelta(seconds=200), price=51.0)

    first = bench.run(line, stop_at_bar(2, far, sooner), strategy=hooked)
    assert len(first.broker.get_orders_open()) == 2
    second = bench.run(again(line), lambda s: None, strategy=hooked)
    resumed = second.strategy.resumed.orders
    assert [order.price for order in resumed] == [50.0, 51.0]
    assert [second.strategy.statuses(order) for order in resumed] == [["Expired"], ["Expired"]]


def test_expiry_that_was_lifted(bench: Bench, line: Any, again: Any, hooked: Any) -> None:
    def far(strategy: Any) -> Any:
        return strategy.buy(size=10, exectype=Limit, price=50.0, valid=timedelta(seconds=200))

    def lift(strategy: Any) -> None:
        strategy.broker.modify(strategy.orders[0], tif="GTC")

    bench.run(line, stop_at_bar(2, far, lift), strategy=hooked)
    second = bench.run(again(line), lambda s: None, strategy=hooked)
    (order,) = second.strategy.resumed.orders
    assert second.strategy.statuses(order) == []
    assert second.broker.get_orders_open() == [order]
    assert statuses(line) == {"BUY LMT": "Submitted"}
