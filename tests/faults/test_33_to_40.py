"""Faults 33 to 40: what IBKR says of orders and executions is corrected, late, missing, or under another id."""

from __future__ import annotations

import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import backtrader as bt
import pytest

from bt_ibkr.desk import changes, desk
from tests.faults.scene import ACCOUNT, Scene, Script, far

if TYPE_CHECKING:
    from tests.conftest import Bench, Tape

MakeScene = Callable[..., Scene]
ORDER = "/iserver/account/*/order/*"


@pytest.fixture
def scene(bench: Bench, tape: type[Tape], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeScene:
    # Nothing here has to be waited for.
    monkeypatch.setattr(desk, "_LOOK_PAUSES_S", (0.01,) * 7)
    monkeypatch.setattr(changes, "_PAUSES_S", (0.01,) * 4)
    return lambda **given: Scene(bench, tape, tmp_path / "journal.sqlite", **given)


def mute(stage: Scene, *topics: str) -> None:
    """The stream tells nothing more of orders or executions."""
    for topic in topics or ("sor", "str"):
        stage.fault("frames", action="drop", topic=topic, count=0)


# -- corrections -------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["stream", "trades"])
def test_fault_33_corrected_and_taken_back(scene: MakeScene, way: str) -> None:
    """A price is corrected, and another trade is taken back: position and cash follow, the journal keeps all."""
    stage = scene()

    def script(strategy: Any) -> Script:
        order = far(strategy)
        yield
        first, second = stage.fill(order, 4, 50.0), stage.fill(order, 6, 50.0)
        yield lambda: not order.alive()
        if way == "trades":
            mute(stage)
        stage.do("correct", execution_id=first, price=49.0)
        stage.do("bust", execution_id=second)
        if way == "trades":
            yield
            assert stage.position == 10
            stage.connection.reconcile(ACCOUNT)
        yield lambda: len(stage.messages("execution-corrected")) == 2
        assert (order.executed.size, order.executed.price) == (4, 49.0)
        assert stage.position == 4

    stage.play(script)
    _, written = stage.recorded()
    assert [row.superseded for row in written] == [True, True, False, False]
    stage.agree()


def test_fault_33_correction_before_what_it_corrects(scene: MakeScene) -> None:
    """The stream lost both; ``/trades`` lists them in disorder."""
    stage = scene()

    def script(strategy: Any) -> Script:
        order = far(strategy)
        yield
        mute(stage)
        first = stage.fill(order, 10, 50.0)
        stage.do("correct", execution_id=first, quantity=10, price=48.0)
        stage.fault("trades", action="shuffle")
        stage.connection.reconcile(ACCOUNT)
        yield lambda: stage.position == 10 and not order.alive()
        assert order.executed.price == 48.0

    stage.play(script)
    stage.agree()


@pytest.mark.parametrize("told", ["late", "never"])
def test_fault_34_commission_comes_later_or_never(scene: MakeScene, told: str) -> None:
    """The fill is shown without it after a moment; it is added when it comes."""
    stage = scene()

    def script(strategy: Any) -> Script:
        order = far(strategy)
        yield
        held_back = stage.fault("commissions")
        cash = stage.broker.getcash()
        stage.fill(order, 10, 50.0)
        yield lambda: not order.alive()
        assert strategy.statuses(order)[-1] == "Completed 10"
        assert (order.executed.comm, stage.broker.getcash()) == (0.0, cash - 500.0)
        if told == "late":
            stage.clear(held_back)
            yield lambda: stage.messages("late-commission")
            assert (order.executed.comm, stage.broker.getcash()) == (1.0, cash - 501.0)

    run = stage.play(script, broker={"commission_wait": 0.05})
    if told == "late":
        stage.agree()
    else:
        assert stage.position == 10
        assert [execution.commission for _, execution in run.broker.executions] == [None]


# -- lists -------------------------------------------------------------------------------------------


def test_fault_35_order_vanishes_from_all_lists(scene: MakeScene) -> None:
    """Neither the list nor its status knows it, and it has not executed: it stands until its end is proven."""
    stage = scene()

    def script(strategy: Any) -> Script:
        order = far(strategy)
        yield
        stage.fault("order_list", action="vanish")
        stage.fault("order_status", finished=False)
        done = stage.reconciled()
        yield done
        assert order.alive()
        assert strategy.statuses(order) == ["Submitted", "Accepted"]
        assert stage.broker.get_orders_open() == [order]
        # It does, and fills.
        stage.fill(order, 10)
        yield lambda: not order.alive()
        assert strategy.statuses(order)[-1] == "Completed 10"

    stage.play(script)
    stage.agree()


@pytest.mark.parametrize("proof", ["status", "trades"])
def test_fault_35_order_that_vanished_ends_by_proof(scene: MakeScene, proof: str) -> None:
    """Its status tells that it was cancelled; or nothing but the trades that it filled (fault 38)."""
    stage = scene()

    def script(strategy: Any) -> Script:
        order = far(strategy)
        yield
        stage.fault("order_list", action="vanish")
        mute(stage)
        if proof == "status":
            stage.do("manual_cancel", order_id=stage.number(order))
        else:
            stage.fault("order_status", finished=True)
            stage.fill(order, 10)
        yield
        assert order.alive()
        stage.connection.reconcile(ACCOUNT)
        yield lambda: not order.alive()
        assert strategy.statuses(order)[-1] == ("Canceled" if proof == "status" else "Completed 10")

    stage.play(script)
    stage.agree()


@pytest.mark.parametrize("whole", [True, False])
def test_fault_36_empty_list_is_not_no_orders(scene: MakeScene, whole: bool) -> None:
    """The list is empty, whatever it says of itself: orders stand, ours and others'."""
    stage = scene()

    def script(strategy: Any) -> Script:
        order = far(strategy)
        number = stage.manual("buy", 5, order_type="LMT", price=49.0)
        yield lambda: stage.messages("external-order")
        empty = stage.fault("order_list", action="empty", snapshot=whole)
        done = stage.reconciled(whole=whole)
        yield done
        assert stage.hits(empty) >= 1
        assert strategy.statuses(order) == ["Submitted", "Accepted"]
        assert [one.order_id for one in stage.broker.external_orders] == [str(number)]
        # Risk controls see it as well.
        assert [one.order_id for one in stage.desk.external_orders(ACCOUNT)] == [str(number)]
        stage.clear(empty)
        stage.do("manual_cancel", order_id=number)
        yield lambda: not stage.broker.external_orders
        assert not stage.desk.external_orders(ACCOUNT)

    stage.play(script)
    stage.agree()


def test_fault_37_filtered_list_silences_the_stream_of_orders(scene: MakeScene) -> None:
    """Another program of the same session asked with a filter: what the stream keeps to itself is found by asking,
    and the silence is ended."""
    stage = scene()

    def script(strategy: Any) -> Script:
        order, other = far(strategy), far(strategy)
        yield
        with urllib.request.urlopen(f"{stage.emulator.url}/iserver/account/orders?filters=filled") as answer:
            answer.read()
        empty = stage.fault("order_list", action="empty", after_force=True, count=1)
        stage.do("manual_cancel", order_id=stage.number(order))
        yield
        assert order.alive()
        stage.connection.reconcile(ACCOUNT)
        yield lambda: not order.alive()
        assert strategy.statuses(order) == ["Submitted", "Accepted", "Canceled"]
        # The stream is asked to speak again, by a call after which the list may be empty (fault 36).
        yield lambda: not stage.emulator.call(lambda server: server.core.orders.filtered)
        done = stage.reconciled()
        yield done
        assert stage.hits(empty) == 1
        assert other.alive()
        stage.do("manual_cancel", order_id=stage.number(other))
        yield lambda: not other.alive()

    stage.play(script)
    stage.agree()


def test_fault_38_status_of_a_finished_order_is_503(scene: MakeScene) -> None:
    """Its cancellation is lost in the middle of it: that it is done is known by its executions alone."""
    stage = scene()

    def script(strategy: Any) -> Script:
        order = far(strategy)
        yield
        mute(stage)
        stage.fault("order_status", finished=True)
        stage.fill(order, 10)
        strategy.cancel(order)
        yield
        assert order.alive()
        stage.fault("order_list", action="vanish")
        stage.connection.reconcile(ACCOUNT)
        yield lambda: not order.alive()
        assert strategy.statuses(order) == ["Submitted", "Accepted", "Completed 10"]

    stage.play(script)
    stage.agree()


# -- ids and ends ------------------------------------------------------------------------------------


@pytest.mark.parametrize("answered", [True, False])
def test_fault_39_another_id_after_a_change(scene: MakeScene, answered: bool) -> None:
    """Told by the answer, or by nothing but reports that carry the ``cOID``: it is the same order."""
    stage = scene()

    def script(strategy: Any) -> Script:
        order = far(strategy)
        yield
        former = stage.number(order)
        stage.fault("new_order_id")
        if not answered:
            stage.fault("http", action="lose", method="POST", path=ORDER, processed=True)
        strategy.broker.modify(order, price=51.0)
        yield
        assert stage.number(order) != former
        assert stage.broker.order_id(order) == str(stage.number(order))
        assert order.created.price == 51.0
        stage.fill(order, 4)
        yield lambda: order.executed.size == 4
        strategy.cancel(order)
        yield lambda: not order.alive()
        assert strategy.statuses(order)[-1] == "Canceled"
        assert not stage.messages("external-order", "external-execution")

    stage.play(script)
    stage.agree()


@pytest.mark.parametrize("way", ["stream", "list"])
def test_fault_40_gtc_order_ended_at_the_end_of_the_quarter(scene: MakeScene, way: str) -> None:
    """IBKR cancels orders that are good till cancelled: told, with its reason; one for the day goes on."""
    stage = scene()

    def script(strategy: Any) -> Script:
        order, today = far(strategy), far(strategy, valid=bt.Order.DAY)
        yield
        if way == "list":
            mute(stage)
        stage.do("quarter_end")
        if way == "list":
            yield
            stage.connection.reconcile(ACCOUNT)
        yield lambda: not order.alive()
        assert strategy.statuses(order) == ["Submitted", "Accepted", "Canceled"]
        assert order.info["reason"]
        assert today.alive()

    stage.play(script)
    stage.agree()
