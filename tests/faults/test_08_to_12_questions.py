"""Faults 8 to 12: IBKR asks about an order, and something goes wrong on the way to its answer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import backtrader as bt
import pytest

from bt_ibkr.errors import OutcomeUnknownError
from bt_ibkr.model.intent import OrderState
from tests.faults.placing import far, fast_looks, states  # noqa: F401 - a fixture
from tests.faults.scene import Scene

if TYPE_CHECKING:
    from tests.conftest import Bench, Tape
    from tests.faults.placing import MakeScene
    from tests.faults.scene import Script


@pytest.fixture
def scene(bench: Bench, tape: type[Tape], tmp_path: Path) -> MakeScene:
    return lambda **given: Scene(bench, tape, tmp_path / "journal.sqlite", **given)


PRICE = {"id": "o163", "text": "The price exceeds the percentage constraint of 3%."}
SIZE = {"id": "o383", "text": "The size exceeds the size limit."}
DATA = {"id": "o354", "text": "You are submitting an order without market data."}


def talk(made: Scene) -> list[tuple[str, str]]:
    """The requests about orders, with what came of each."""
    return [
        (row["kind"], row["outcome"])
        for row in made.emulator.ledger()["requests"]
        if row["kind"] in ("place", "reply")
    ]


def listed_between(made: Scene) -> bool:
    """Whether the list of orders was read between the first two submissions."""
    rows = made.line.control.get("/requests?since=0&limit=20000")["requests"]
    paths = [(row["method"], row["path"]) for row in rows]
    first, second = [
        n for n, (method, path) in enumerate(paths) if method == "POST" and path.endswith("/orders")
    ]
    return ("GET", "/iserver/account/orders") in paths[first:second]


def test_fault_08_three_questions(scene: MakeScene) -> None:
    """Each is answered by the policy; one order."""
    made = scene()

    def script(strategy: Any) -> Script:
        made.fault("questions", chain=[[PRICE], [SIZE], [DATA]])
        order = far(strategy)
        yield
        assert strategy.statuses(order) == ["Submitted", "Accepted"]

    made.play(script)
    made.agree()
    questions = [("place", "question"), ("reply", "question"), ("reply", "question")]
    assert talk(made) == [*questions, ("reply", "accepted")]
    assert all(one["confirmed"] for one in made.requests("reply"))


@pytest.mark.parametrize(
    "question",
    [{"id": "o99999", "text": "Shall we do something unheard of?"}, {"text": "Nameless, but please?"}],
    ids=["unknown", "nameless"],
)
def test_fault_09_a_question_that_nobody_knows(scene: MakeScene, question: dict[str, str]) -> None:
    """Answered with no, and told; also in the midst of a chain."""
    made = scene()

    def script(strategy: Any) -> Script:
        made.fault("questions", chain=[[PRICE], [question], [DATA]])
        order = far(strategy)
        yield
        assert strategy.statuses(order) == ["Submitted", "Rejected"]
        reason = strategy.clones[-1].info.reason
        assert question["text"] in reason
        assert question.get("id", "without an id") in reason
        ((_, told, *_),) = made.messages("order-failed")
        assert told is order

    made.play(script)
    made.agree()
    assert [one["confirmed"] for one in made.requests("reply")] == [True, False]
    assert made.orders() == []
    assert len(made.requests("place")) == 1


def test_fault_10_the_reply_id_is_gone(scene: MakeScene) -> None:
    """Looked up, not there: asked again under the same key, and one order stands."""
    made = scene()
    kept: list[str] = []

    def script(strategy: Any) -> Script:
        made.fault("questions", chain=[[PRICE]], count=2)
        made.fault("replies", action="invalid")
        order = far(strategy)
        kept.append(made.broker.client_order_id(order))
        yield
        assert strategy.statuses(order) == ["Submitted", "Accepted"]

    made.play(script)
    made.agree()
    assert [one["client_ids"] for one in made.requests("place")] == [kept, kept]
    assert listed_between(made)
    assert talk(made)[-1] == ("reply", "accepted")


def test_fault_10_the_reply_id_is_gone_each_time(scene: MakeScene) -> None:
    """Asked again so often and not oftener; that it does not stand is proven, so it is rejected."""
    made = scene()

    def script(strategy: Any) -> Script:
        made.fault("questions", chain=[[PRICE]], count=0)
        made.fault("replies", action="invalid", count=0)
        order = far(strategy)
        yield
        assert strategy.statuses(order) == ["Submitted", "Rejected"]

    made.play(script)
    made.agree()
    assert len(made.requests("place")) == 3
    assert made.orders() == []


def test_fault_11_the_reply_is_answered_503_though_taken(scene: MakeScene) -> None:
    """Unknown, looked up, found; neither reply nor order is sent again."""
    made = scene()
    kept: list[str] = []

    def script(strategy: Any) -> Script:
        made.fault("questions", chain=[[PRICE]])
        made.fault("replies", action="unavailable", taken=True)
        made.fault("silence", topic="sor")
        order = far(strategy)
        kept.append(made.broker.client_order_id(order))
        yield
        assert strategy.statuses(order) == ["Submitted", "Accepted"]

    made.play(script)
    made.agree()
    assert [kind for kind, _ in talk(made)] == ["place", "reply"]
    assert states(made, kept[0]) == ["intended", "unknown", "working"]


@pytest.mark.usefixtures("fast_looks")
def test_fault_11_the_reply_is_answered_503_and_was_not_taken(scene: MakeScene) -> None:
    """That no list shows the order proves nothing: it stays unknown, is told, and is never sent again."""
    made = scene()

    def script(strategy: Any) -> Script:
        made.fault("questions", chain=[[PRICE]])
        made.fault("replies", action="unavailable")
        order = far(strategy)
        key = made.broker.client_order_id(order)
        yield
        asked = made.asked("GET", "/iserver/account/orders")
        yield lambda: made.asked("GET", "/iserver/account/orders") > asked + 4
        assert strategy.statuses(order) == ["Submitted"]
        assert order.alive()
        assert isinstance(strategy.messages[-1][2]["error"], OutcomeUnknownError)
        assert made.recorded()[0][key].state is OrderState.UNKNOWN
        assert [key in problem for problem in made.broker.problems] == [True]

    made.play(script)
    assert len(made.requests("place")) == len(made.requests("reply")) == 1
    assert made.orders() == []


def test_fault_12_the_session_ends_between_question_and_answer(scene: MakeScene) -> None:
    """That the order does not stand is looked up before it is sent again; in the end there is one."""
    made = scene()
    kept: list[str] = []

    def script(strategy: Any) -> Script:
        made.fault("questions", chain=[[PRICE]], count=2)
        made.fault("question_ends_session")
        order = far(strategy)
        kept.append(made.broker.client_order_id(order))
        yield lambda: order.status != bt.Order.Submitted
        assert strategy.statuses(order) == ["Submitted", "Accepted"]

    made.play(script)
    made.agree()
    assert [one["client_ids"] for one in made.requests("place")] == [kept, kept]
    assert listed_between(made)
