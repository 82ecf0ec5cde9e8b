"""Faults 21 to 25: what IBKR tells of an order comes early, twice, by two ways or in the wrong order."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import backtrader as bt
import pytest

from tests.faults.scene import ACCOUNT, Scene, Script, far, settle

if TYPE_CHECKING:
    from tests.conftest import Bench, Tape

MakeScene = Callable[..., Scene]
SUBMIT = "/iserver/account/*/orders"


@pytest.fixture
def scene(bench: Bench, tape: type[Tape], tmp_path: Path) -> MakeScene:
    return lambda **given: Scene(bench, tape, tmp_path / "journal.sqlite", **given)


def test_fault_21_fill_before_the_acknowledgement(scene: MakeScene) -> None:
    """All that the stream tells of the order comes while its answer is still out."""
    stage = scene()

    def script(strategy: Any) -> Script:
        late = stage.fault("http", action="delay", method="POST", path=SUBMIT, delay_s=0.3)
        order = strategy.buy(size=10)
        yield
        assert stage.hits(late) == 1
        assert strategy.statuses(order) == ["Submitted", "Accepted", "Completed 10"]

    stage.play(script)
    stage.agree()


def test_fault_21_child_fills_before_its_id_is_known(scene: MakeScene) -> None:
    """A bracket's children carry no id of ours: what comes before the answer waits until that tells whose it is."""
    stage = scene()

    def script(strategy: Any) -> Script:
        stage.fault("http", action="delay", method="POST", path=SUBMIT, delay_s=0.3)
        strategy.orders = strategy.buy_bracket(
            size=10, exectype=bt.Order.Market, stopprice=98.0, limitprice=103.0
        )
        settle(lambda: len(stage.executions()) == 1 and len(stage.orders()) == 3)
        target = next(one["order_id"] for one in stage.orders() if one["limit_price"] == 103.0)
        stage.do("fill", order_id=target, price=103.0)
        yield
        entry, stop, limit = strategy.orders
        assert strategy.statuses(entry) == ["Submitted", "Accepted", "Completed 10"]
        assert strategy.statuses(limit) == ["Submitted", "Accepted", "Completed -10"]
        assert strategy.statuses(stop)[-1] == "Canceled"
        assert not stage.messages("external-order", "external-execution")

    stage.play(script)
    assert stage.position == 0
    stage.agree()


def test_fault_22_duplicate_execution_messages(scene: MakeScene) -> None:
    """Each frame comes twice, and a new socket tells all executions of the day again."""
    stage = scene()

    def script(strategy: Any) -> Script:
        twice = stage.fault("frames", action="duplicate", topic="str", count=0)
        order = far(strategy)
        yield
        stage.fill(order, 4)
        stage.fill(order, 6)
        yield lambda: strategy.statuses(order)[-1] == "Completed 6"
        assert stage.hits(twice) >= 4
        stage.fault("ws_reset")
        yield lambda: stage.messages("gap")
        assert strategy.statuses(order) == ["Submitted", "Accepted", "Partial 4", "Completed 6"]

    stage.play(script)
    assert stage.position == 10
    stage.agree()


@pytest.mark.parametrize("first", ["stream", "trades"])
def test_fault_23_one_execution_by_two_ways(scene: MakeScene, first: str) -> None:
    """By ``str`` and by ``/trades``, which lists it twice, in either order."""
    stage = scene()

    def script(strategy: Any) -> Script:
        order = far(strategy)
        yield
        stage.fault("trades", action="duplicate")
        if first == "trades":
            mute = stage.fault("frames", action="drop", topic="str", count=0)
        stage.fill(order, 10)
        yield
        if first == "trades":
            assert "Completed 10" not in strategy.statuses(order)
        stage.connection.reconcile(ACCOUNT)
        yield lambda: strategy.statuses(order)[-1] == "Completed 10"
        if first == "trades":
            assert stage.hits(mute) >= 1
            stage.clear(mute)
            # The stream tells of it after all.
            stage.fault("ws_reset")
            yield lambda: stage.messages("gap")
        assert strategy.statuses(order) == ["Submitted", "Accepted", "Completed 10"]

    stage.play(script)
    _, written = stage.recorded()
    assert [row.source for row in written] == [first]
    stage.agree()


def test_fault_24_executions_out_of_order(scene: MakeScene) -> None:
    """Three executions, the later ones first, after the order's status told their sum: told by their times."""
    stage = scene()

    def script(strategy: Any) -> Script:
        order = far(strategy)
        yield
        # Each is told twice, without and with its commission.
        mixed = stage.fault("frames", action="reorder", topic="str", count=6)
        for quantity in (2, 3):
            stage.fill(order, quantity)
            yield 1.0
        stage.fill(order, 5)
        assert stage.hits(mixed) == 6
        # All are here before the first is looked at.
        stage.read_all()
        yield lambda: not order.alive()
        assert strategy.statuses(order) == ["Submitted", "Accepted", "Partial 2", "Partial 3", "Completed 5"]

    run = stage.play(script)
    times = [execution.time_ns for _, execution in run.broker.executions]
    assert times == sorted(times)
    stage.agree()


def test_fault_25_status_out_of_order(scene: MakeScene) -> None:
    """``Submitted`` comes after ``Filled``: what has ended stays so, in the book and in the journal."""
    stage = scene()

    def script(strategy: Any) -> Script:
        late = stage.fault("frames", action="delay", topic="sor", count=2, delay_s=0.3)
        order = far(strategy)
        yield
        assert stage.hits(late) == 2
        stage.fill(order, 10)
        yield lambda: not order.alive()
        before = stage.connection.progress().frames
        yield lambda: stage.connection.progress().frames >= before + 2
        assert strategy.statuses(order) == ["Submitted", "Accepted", "Completed 10"]

    stage.play(script)
    stage.agree()


def test_fault_25_status_of_another_client_out_of_order(scene: MakeScene) -> None:
    """The same for an order that is not ours: it does not stand in the list of open ones again."""
    stage = scene()

    def script(strategy: Any) -> Script:
        late = stage.fault("frames", action="delay", topic="sor", count=2, delay_s=0.3)
        number = stage.manual("buy", 5, order_type="LMT", price=50.0)
        stage.do("fill", order_id=number)
        yield lambda: stage.messages("external-execution")
        before = stage.connection.progress().frames
        assert stage.hits(late) == 2
        yield lambda: stage.connection.progress().frames >= before + 2
        assert stage.broker.external_orders == ()

    stage.play(script)
    assert stage.position == 5
    stage.agree()
