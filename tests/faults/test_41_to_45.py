"""Faults 41 to 45: what others do in the account, what IBKR and issuers do to it, and long lists."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from bt_ibkr.model.trading import Trading
from tests.faults.restarts import again
from tests.faults.scene import AAPL, ACCOUNT, Scene, Script, far

if TYPE_CHECKING:
    from tests.conftest import Bench, Tape

MakeScene = Callable[..., Scene]
#: Market seconds after which positions have followed executions.
SETTLED = 20
CALL = 700_001
OPTIONS = f"""conid,symbol,security_type,exchange,currency,multiplier,strike,right,last_trade_date,size_increment
{CALL},AAPL,OPT,SMART,USD,100,90,C,20260320,1
"""
#: Starting may take so many seconds at most, however long the day's list is.
START_S = 10.0


@pytest.fixture
def scene(bench: Bench, tape: type[Tape], tmp_path: Path) -> MakeScene:
    return lambda **given: Scene(bench, tape, tmp_path / "journal.sqlite", **given)


# -- others ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("origin", ["tws", "mobile"])
def test_fault_41_manual_order(scene: MakeScene, origin: str) -> None:
    """Adopted as somebody else's: told, in the position, and the strategy's next order sees it."""
    stage = scene()

    def script(strategy: Any) -> Script:
        number = stage.manual("buy", 7, order_type="LMT", price=50.0, origin=origin)
        yield lambda: stage.messages("external-order")
        assert [one.order_id for one in stage.broker.external_orders] == [str(number)]
        stage.do("fill", order_id=number)
        yield lambda: stage.messages("external-execution")
        assert stage.broker.external_orders == ()
        assert stage.position == 7
        closing = strategy.close()
        yield lambda: not closing.alive()
        assert closing.executed.size == -7
        # None of what others do is shown as an order of the strategy.
        assert {clone.ref for clone in strategy.clones} == {closing.ref}

    stage.play(script)
    assert stage.position == 0
    stage.agree()


def test_fault_41_manual_cancel(scene: MakeScene) -> None:
    """Somebody cancels the strategy's order in another program: it is told."""
    stage = scene()

    def script(strategy: Any) -> Script:
        order = far(strategy)
        yield
        stage.do("manual_cancel", order_id=stage.number(order))
        yield lambda: not order.alive()
        assert strategy.statuses(order) == ["Submitted", "Accepted", "Canceled"]

    stage.play(script)
    stage.agree()


def test_fault_42_liquidation(scene: MakeScene) -> None:
    """IBKR closes the position: adopted, trading is halted, and nothing is traded against it."""
    stage = scene()

    def script(strategy: Any) -> Script:
        order = strategy.buy(size=10)
        yield lambda: not order.alive()
        stage.do("liquidate", conid=AAPL)
        yield lambda: stage.messages("trading-changed")
        assert stage.position == 0
        assert stage.broker.trading_state.mode is Trading.HALTED
        assert "liquidated 10 AAPL" in stage.broker.trading_state.reason
        again = strategy.buy(size=10)
        yield lambda: not again.alive()
        assert strategy.statuses(again) == ["Submitted", "Rejected"]
        assert len(stage.requests("place")) == 1

    stage.play(script)
    # What was halted stays so over a restart.
    journal = stage.journal()
    assert journal.trading_state().mode is Trading.HALTED
    journal.close()
    assert stage.position == 0


def test_fault_42_liquidation_while_nobody_watches(scene: MakeScene) -> None:
    """Found at the next start: the strategy begins halted."""
    stage = scene()

    def first(strategy: Any) -> Script:
        order = strategy.buy(size=10)
        yield lambda: not order.alive()

    stage.play(first)
    stage.do("liquidate", conid=AAPL)
    second = again(stage)

    def script(strategy: Any) -> Script:
        yield lambda: second.messages("trading-changed")
        assert second.position == 0
        order = strategy.buy(size=10)
        yield lambda: not order.alive()
        assert strategy.statuses(order)[-1] == "Rejected"

    second.play(script)
    assert len(second.requests("place")) == 1


# -- issuers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("numerator", "denominator"), [(2, 1), (1, 2)])
def test_fault_43_split(scene: MakeScene, numerator: int, denominator: int) -> None:
    """The position is another one without any trade: believed and told, and nothing was won or lost by it."""
    stage = scene()

    def script(strategy: Any) -> Script:
        order = strategy.buy(size=10)
        yield lambda: not order.alive()
        yield SETTLED
        told = len(strategy.clones)
        stage.do("split", conid=AAPL, numerator=numerator, denominator=denominator)
        stage.connection.reconcile(ACCOUNT)
        yield lambda: stage.messages("position-difference")
        held = strategy.getposition(strategy.data)
        assert held.size == 10 * numerator / denominator
        assert held.size * held.price == pytest.approx(10 * order.executed.price)
        assert len(strategy.clones) == told
        yield SETTLED
        closing = strategy.close()
        yield lambda: not closing.alive()
        assert stage.position == 0
        won = (closing.executed.price - held.price) * held.size
        closed = [pnl for status, _, pnl, _, _ in strategy.trades if status == 2]
        assert sum(closed) == pytest.approx(won, abs=0.01)

    stage.play(script)
    assert len(stage.executions()) == 2
    stage.agree()


def test_fault_43_another_conid(scene: MakeScene) -> None:
    """The contract is replaced by another: the position goes with it, and nothing is traded for that."""
    stage = scene()

    def script(strategy: Any) -> Script:
        order = strategy.buy(size=10)
        yield lambda: not order.alive()
        yield SETTLED
        stage.do("rename", conid=AAPL, new_conid=900_001)
        stage.connection.reconcile(ACCOUNT)
        yield lambda: stage.messages("position-difference")
        assert stage.position == 0
        assert stage.desk.positions(ACCOUNT) == {900_001: 10}

    stage.play(script)
    assert len(stage.executions()) == 1


def test_fault_43_exercise(scene: MakeScene, tmp_path: Path) -> None:
    """An option that somebody holds becomes shares: no execution tells of it."""
    table = tmp_path / "options.csv"
    table.write_text(OPTIONS)
    stage = scene(universe=str(table))

    def script(strategy: Any) -> Script:
        stage.do("tick", conid=CALL, bid=9.9, bid_size=50, ask=10.0, ask_size=50)
        stage.manual("buy", 2, conid=CALL)
        yield lambda: stage.messages("external-execution")
        assert stage.desk.positions(ACCOUNT) == {CALL: 2}
        yield SETTLED
        stage.do("exercise", conid=CALL, quantity=2)
        stage.connection.reconcile(ACCOUNT)
        yield lambda: len(stage.messages("position-difference")) == 2
        assert stage.position == 200
        assert strategy.getposition(strategy.data).price == 90.0
        assert {c: q for c, q in stage.desk.positions(ACCOUNT).items() if q} == {AAPL: 200}
        assert not strategy.clones

    stage.play(script)
    assert len(stage.executions()) == 1


# -- lists -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("account", ["U7654321", "DU7654321"])
def test_fault_44_orders_of_other_accounts(scene: MakeScene, account: str) -> None:
    """They are in the list, of accounts that are not ours, or not traded in: ignored."""
    stage = scene(accounts=(ACCOUNT, "DU7654321"))

    def script(strategy: Any) -> Script:
        order = far(strategy)
        yield
        elsewhere = stage.manual("buy", 5, account="DU7654321", order_type="LMT", price=50.0)
        foreign = stage.fault("order_list", action="foreign", account=account, rows=50)
        done = stage.reconciled()
        yield done
        assert stage.hits(foreign) >= 1
        assert stage.broker.external_orders == ()
        assert stage.desk.external_orders(ACCOUNT) == ()
        stage.do("fill", order_id=elsewhere)
        yield 1.0
        assert stage.position == 0
        assert not stage.messages("external-order", "external-execution", "position-difference")
        stage.fill(order, 10)
        yield lambda: not order.alive()

    stage.play(script)
    assert stage.position == 10


def test_fault_45_ten_thousand_orders_in_the_list(scene: MakeScene) -> None:
    """Starting and reading again take a bounded time; an order of ours that is too old for the list stands."""
    stage = scene()
    stage.line.step(stage.bench.opening(1))
    stage.do("crowd", conid=AAPL, count=10_000, final="cancelled", prefix="")

    def script(strategy: Any) -> Script:
        order = far(strategy)
        yield
        stage.do("crowd", conid=AAPL, count=1_000, final="cancelled", prefix="")
        began = time.monotonic()
        done = stage.reconciled()
        yield done
        assert time.monotonic() - began < START_S
        assert order.alive()
        assert stage.broker.external_orders == ()
        stage.fill(order, 10)
        yield lambda: not order.alive()

    attach = stage.connection.attach_account
    took: list[float] = []

    def timed(*given: Any) -> Any:
        began = time.monotonic()
        snapshot = attach(*given)
        took.append(time.monotonic() - began)
        return snapshot

    stage.connection.attach_account = timed
    stage.play(script)
    assert took[0] < START_S
    assert stage.position == 10
    stage.agree()
