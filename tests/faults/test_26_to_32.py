"""Faults 26 to 32: cancellations and changes that meet fills, questions and lost answers; over-fills."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from bt_ibkr.desk import changes, desk
from tests.faults.scene import ACCOUNT, Scene, Script, far, settle

if TYPE_CHECKING:
    from tests.conftest import Bench, Tape

MakeScene = Callable[..., Scene]
ORDER = "/iserver/account/*/order/*"
#: One that the default policy answers with yes, and one that it does not know.
KNOWN = {"id": "o163", "text": "The following order exceeds the price percentage limit"}
STRANGE = {"id": "o99999", "text": "Are you sure that you are sure?"}


@pytest.fixture
def scene(bench: Bench, tape: type[Tape], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeScene:
    # Nothing here has to be waited for.
    monkeypatch.setattr(desk, "_LOOK_PAUSES_S", (0.01,) * 7)
    monkeypatch.setattr(changes, "_PAUSES_S", (0.01,) * 4)
    return lambda **given: Scene(bench, tape, tmp_path / "journal.sqlite", **given)


# -- cancellations -----------------------------------------------------------------------------------


def test_fault_26_partial_fill_then_cancelled(scene: MakeScene) -> None:
    stage = scene()

    def script(strategy: Any) -> Script:
        order = far(strategy)
        yield
        stage.fill(order, 4)
        yield lambda: order.executed.size == 4
        strategy.cancel(order)
        yield lambda: not order.alive()
        assert strategy.statuses(order) == ["Submitted", "Accepted", "Partial 4", "Canceled"]
        assert (order.executed.size, order.executed.remsize) == (4, 6)

    stage.play(script)
    assert stage.position == 4
    stage.agree()


def test_fault_27_cancelled_too_late(scene: MakeScene) -> None:
    """The rest fills while the cancellation is on its way, and that is refused: complete, and nothing else."""
    stage = scene()

    def script(strategy: Any) -> Script:
        order = far(strategy)
        yield
        stage.fill(order, 4)
        yield lambda: order.executed.size == 4
        late = stage.fault("http", action="delay", method="DELETE", path=ORDER, delay_s=0.2, processed=False)
        strategy.cancel(order)
        settle(lambda: stage.hits(late))
        stage.fill(order, 6)
        yield
        assert [one["outcome"] for one in stage.requests("cancel")] == ["refused"]
        assert strategy.statuses(order) == ["Submitted", "Accepted", "Partial 4", "Completed 6"]

    stage.play(script)
    assert stage.position == 10
    stage.agree()


def test_fault_28_cancelled_before_its_fill_is_told(scene: MakeScene) -> None:
    """``Cancelled`` comes before the execution that it counts: the order ends once that is applied."""
    stage = scene()

    def script(strategy: Any) -> Script:
        order = far(strategy)
        yield
        late = stage.fault("frames", action="delay", topic="str", count=2, delay_s=0.3)
        stage.fill(order, 4)
        strategy.cancel(order)
        yield
        assert stage.orders()[0]["status"] == "Cancelled"
        assert (stage.hits(late), order.alive()) == (2, True)
        yield lambda: not order.alive()
        assert strategy.statuses(order) == ["Submitted", "Accepted", "Partial 4", "Canceled"]

    stage.play(script)
    assert stage.position == 4
    stage.agree()


def test_fault_28_filled_whole_before_the_cancellation_arrives(scene: MakeScene) -> None:
    """The cancellation is refused before anybody has told of the fill."""
    stage = scene()

    def script(strategy: Any) -> Script:
        order = far(strategy)
        yield
        stage.fault("frames", action="delay", topic="str", count=2, delay_s=0.3)
        stage.fault("frames", action="drop", topic="sor", count=0)
        stage.fill(order, 10)
        strategy.cancel(order)
        yield lambda: not order.alive()
        assert strategy.statuses(order) == ["Submitted", "Accepted", "Completed 10"]

    stage.play(script)
    assert stage.position == 10
    stage.agree()


@pytest.mark.parametrize("arrives", [True, False])
@pytest.mark.parametrize("action", ["lose", "reset", "status"])
def test_fault_29_answer_to_a_cancellation_is_lost(scene: MakeScene, action: str, arrives: bool) -> None:
    """Nothing is assumed: the order's status is asked, and what never arrived is asked for again."""
    stage = scene()

    def script(strategy: Any) -> Script:
        order = far(strategy)
        yield
        stage.fault("frames", action="drop", topic="sor", count=0)
        stage.fault("http", action=action, method="DELETE", path=ORDER, processed=arrives)
        strategy.cancel(order)
        yield
        if not arrives:
            # A further attempt was taken; the stream does not tell.
            assert order.alive()
            stage.connection.reconcile(ACCOUNT)
        yield lambda: not order.alive()
        cancels = len(stage.requests("cancel"))
        assert cancels > (0 if arrives else 1)
        # After an answer that tells nothing the status is asked first.
        assert action != "status" or cancels == (1 if arrives else 2)
        assert strategy.statuses(order) == ["Submitted", "Accepted", "Canceled"]

    stage.play(script)
    stage.agree()


def test_fault_29_cancellation_that_never_arrives(scene: MakeScene) -> None:
    """However often it is asked: the order stands, that is told, and it may be cancelled later."""
    stage = scene()

    def script(strategy: Any) -> Script:
        order = far(strategy)
        yield
        lost = stage.fault("http", action="lose", method="DELETE", path=ORDER, processed=False, count=0)
        strategy.cancel(order)
        yield lambda: stage.messages("cancel-failed")
        assert stage.hits(lost) >= 3
        assert order.alive()
        assert strategy.statuses(order) == ["Submitted", "Accepted"]
        stage.clear()
        strategy.cancel(order)
        yield lambda: not order.alive()

    stage.play(script)
    stage.agree()


# -- changes -----------------------------------------------------------------------------------------


def test_fault_30_change_of_what_fills_meanwhile(scene: MakeScene) -> None:
    """The order fills whole before its change arrives: complete as it was, and the change is refused."""
    stage = scene()

    def script(strategy: Any) -> Script:
        order = far(strategy)
        yield
        late = stage.fault("http", action="delay", method="POST", path=ORDER, delay_s=0.2, processed=False)
        strategy.broker.modify(order, size=20, price=51.0)
        settle(lambda: stage.hits(late))
        stage.fill(order, 10)
        yield
        assert [one["outcome"] for one in stage.requests("modify")] == ["refused"]
        # Until the change is answered, what has filled may be a part of more.
        assert strategy.statuses(order) == ["Submitted", "Accepted", "Partial 10", "Completed"]
        assert (order.created.size, order.created.price) == (10, 50.0)
        assert stage.messages("modify-failed")

    stage.play(script)
    assert stage.position == 10
    stage.agree()


def test_fault_30_price_of_the_rest(scene: MakeScene) -> None:
    """A part fills before the change arrives: what is left stands at the new price."""
    stage = scene()

    def script(strategy: Any) -> Script:
        order = far(strategy)
        yield
        late = stage.fault("http", action="delay", method="POST", path=ORDER, delay_s=0.2, processed=False)
        strategy.broker.modify(order, price=51.0)
        settle(lambda: stage.hits(late))
        stage.fill(order, 4)
        yield
        assert (order.created.price, order.executed.remsize) == (51.0, 6)
        assert stage.orders()[0]["limit_price"] == 51.0
        stage.fill(order, 6)
        yield lambda: not order.alive()
        told = strategy.statuses(order)
        assert [word for word in told if word != "Accepted"] == [
            "Submitted", "Partial 4", "Partial", "Completed 6",
        ]  # fmt: skip

    stage.play(script)
    assert stage.position == 10
    stage.agree()


def test_fault_30_smaller_than_what_has_filled(scene: MakeScene) -> None:
    """It is made smaller while more than that fills: never above what was ordered, and nothing of it is lost."""
    stage = scene()

    def script(strategy: Any) -> Script:
        order = far(strategy)
        yield
        late = stage.fault("http", action="delay", method="POST", path=ORDER, delay_s=0.2, processed=False)
        strategy.broker.modify(order, size=5)
        settle(lambda: stage.hits(late))
        stage.fill(order, 6)
        yield
        assert stage.messages("modify-failed")
        assert (order.created.size, order.executed.size) == (10, 6)
        with pytest.raises(Exception, match="not above the 6"):
            strategy.broker.modify(order, size=6)
        strategy.cancel(order)
        yield lambda: not order.alive()

    stage.play(script)
    assert stage.position == 6
    stage.agree()


@pytest.mark.parametrize("taken", [True, False])
def test_fault_30_larger_while_the_old_size_fills(scene: MakeScene, taken: bool) -> None:
    """What fills is all of the old size; whether that is all of the order, the answer to the change tells."""
    stage = scene()

    def script(strategy: Any) -> Script:
        order = far(strategy)
        yield
        late = stage.fault("http", action="delay", method="POST", path=ORDER, delay_s=0.3, processed=taken)
        strategy.broker.modify(order, size=20)
        settle(lambda: stage.hits(late) and (not taken or stage.orders()[0]["quantity"] == "20"))
        stage.fill(order, 10)
        yield
        assert order.alive() is taken
        assert (order.created.size, order.executed.size) == ((20, 10) if taken else (10, 10))
        if taken:
            stage.fill(order, 10)
            yield lambda: not order.alive()
        assert order.getstatusname() == "Completed"

    stage.play(script)
    assert stage.position == (20 if taken else 10)
    stage.agree()


@pytest.mark.parametrize("arrives", [True, False])
def test_fault_30_answer_to_a_change_is_lost(scene: MakeScene, arrives: bool) -> None:
    """Whether it was made is read from the order itself; it is not asked for twice."""
    stage = scene()

    def script(strategy: Any) -> Script:
        order = far(strategy)
        yield
        stage.fault("http", action="lose", method="POST", path=ORDER, processed=arrives)
        strategy.broker.modify(order, price=51.0)
        yield
        assert len(stage.requests("modify")) == 1
        assert order.created.price == (51.0 if arrives else 50.0)
        assert bool(stage.messages("modify-failed")) is not arrives

    stage.play(script)
    stage.agree()


@pytest.mark.parametrize("known", [True, False])
def test_fault_31_change_answered_with_questions(scene: MakeScene, known: bool) -> None:
    """As with a submission: known questions are answered by the policy, one that nobody knows with no."""
    stage = scene()

    def script(strategy: Any) -> Script:
        order = far(strategy)
        yield
        stage.fault("questions", on="modify", chain=[[KNOWN], [KNOWN if known else STRANGE]])
        strategy.broker.modify(order, price=51.0)
        yield
        assert [one["confirmed"] for one in stage.requests("reply")] == [True, known]
        assert (order.created.price, stage.orders()[0]["limit_price"]) == (
            (51.0, 51.0) if known else (50.0, 50.0)
        )
        failed = [kwargs["error"] for name, _, kwargs in strategy.messages if name == "modify-failed"]
        assert bool(failed) is not known
        if not known:
            assert STRANGE["text"] in str(failed[0])

    stage.play(script)
    stage.agree()


# -- over-fills --------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [True, False])
def test_fault_32_more_executes_than_was_ordered(scene: MakeScene, stream: bool) -> None:
    """By one execution after the order's end: the position follows, and it is told loudly."""
    stage = scene()

    def script(strategy: Any) -> Script:
        order = far(strategy)
        yield
        stage.fill(order, 10)
        yield lambda: not order.alive()
        if not stream:
            stage.fault("frames", action="drop", topic="str", count=0)
        stage.fill(order, 5)
        if not stream:
            yield
            assert stage.position == 10
            stage.connection.reconcile(ACCOUNT)
        yield lambda: stage.messages("order-overfilled")
        assert stage.position == 15
        assert order.getstatusname() == "Completed"

    run = stage.play(script)
    (problem,) = run.broker.problems
    assert "15 filled of 10" in problem
    stage.agree(problems=1)
