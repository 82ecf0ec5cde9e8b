"""Faults 1 to 7: an order is sent, and what became of it is not told, or told wrongly.

IBKR's own books show each time that no order came to be twice.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

import backtrader as bt
import pytest

from bt_ibkr.errors import OutcomeUnknownError
from bt_ibkr.model.intent import OrderState
from tests.faults.placing import ORDERS, by, far, fast_looks, states  # noqa: F401 - a fixture
from tests.faults.scene import Scene

if TYPE_CHECKING:
    from tests.conftest import Bench, Tape
    from tests.faults.placing import MakeScene
    from tests.faults.scene import Script


@pytest.fixture
def scene(bench: Bench, tape: type[Tape], tmp_path: Path) -> MakeScene:
    return lambda **given: Scene(bench, tape, tmp_path / "journal.sqlite", **given)


def test_fault_01_the_websocket_drops_before_the_answer(scene: MakeScene) -> None:
    """The answer is used; what the stream does not tell is read after it is back."""
    made = scene()

    def script(strategy: Any) -> Script:
        late = made.fault("http", action="delay", method="POST", path=ORDERS, delay_s=60)
        for topic in ("sor", "str"):
            made.fault("silence", topic=topic)
        port = made.connection.progress().port
        order = strategy.buy(size=10)
        by(made.executions)
        made.fault("ws_reset", port=port)
        by(lambda: made.connection.progress().port not in (0, port))
        made.clear(late)
        assert made.hits(late) == 1
        yield lambda: not order.alive()
        assert strategy.statuses(order) == ["Submitted", "Accepted", "Completed 10"]
        _, (row,) = made.recorded()
        assert row.source == "trades"
        assert made.line.store.metrics().reconnects == 1

    made.play(script)
    made.agree()
    assert len(made.requests("place")) == 1


def test_fault_02_taken_and_the_answer_never_comes(scene: MakeScene) -> None:
    """Not sent again: unknown, until the list of orders shows it under its key."""
    made = scene(session={"request_timeout_s": 0.3})
    kept: list[str] = []

    def script(strategy: Any) -> Script:
        made.fault("http", action="hold", method="POST", path=ORDERS)
        made.fault("silence", topic="sor")
        order = far(strategy)
        kept.append(made.broker.client_order_id(order))
        yield
        assert strategy.statuses(order) == ["Submitted", "Accepted"]

    made.play(script)
    made.agree()
    assert len(made.requests("place")) == 1
    assert states(made, kept[0]) == ["intended", "unknown", "working"]


@pytest.mark.usefixtures("fast_looks")
def test_fault_02_nothing_shows_the_order_for_long(scene: MakeScene) -> None:
    """It stays unknown, which is told: neither rejected nor sent again. Found as soon as a list shows it."""
    made = scene(session={"request_timeout_s": 0.3})

    def script(strategy: Any) -> Script:
        made.fault("http", action="hold", method="POST", path=ORDERS)
        made.fault("silence", topic="sor")
        blind = made.fault("order_list", action="vanish")
        order = far(strategy)
        key = made.broker.client_order_id(order)
        yield
        assert strategy.statuses(order) == ["Submitted"]
        ((_, failed, *_),) = made.messages("order-failed")
        assert failed is order
        assert isinstance(strategy.messages[-1][2]["error"], OutcomeUnknownError)
        assert made.recorded()[0][key].state is OrderState.UNKNOWN
        (problem,) = made.broker.problems
        assert key in problem
        assert order.alive()
        asked = made.asked("GET", "/iserver/account/orders")
        yield lambda: made.asked("GET", "/iserver/account/orders") > asked + 4
        assert strategy.statuses(order) == ["Submitted"]
        made.clear(blind)
        yield lambda: order.status == bt.Order.Accepted
        assert strategy.statuses(order) == ["Submitted", "Accepted"]

    made.play(script)
    made.agree()
    assert len(made.requests("place")) == 1


def serve(made: Scene, *, on: bool) -> None:
    """Whether IBKR's port is open for new connections; the stream stays either way."""
    emulator = made.emulator

    async def change() -> None:
        await (emulator.server._listen_again("same") if on else emulator.server._unlisten())

    asyncio.run_coroutine_threadsafe(change(), emulator._loop).result(10.0)


def drop_idle_connections(made: Scene) -> None:
    """The next request needs a connection of its own."""
    connection = made.connection

    async def drop() -> None:
        for waiting in connection._session.http._client.connector._conns.values():
            for protocol, *_ in waiting:
                protocol.close()

    connection._loop.call(drop(), 10.0)


@pytest.mark.usefixtures("fast_looks")
def test_fault_03_never_arrived(scene: MakeScene, caplog: pytest.LogCaptureFixture) -> None:
    """Nobody listens: it was not sent, so it is sent again, under the same key."""
    made = scene()
    kept: list[str] = []

    def script(strategy: Any) -> Script:
        serve(made, on=False)
        drop_idle_connections(made)
        order = far(strategy)
        kept.append(made.broker.client_order_id(order))
        by(lambda: "stage=unsent" in caplog.text)
        assert made.requests("place") == []
        serve(made, on=True)
        yield
        assert strategy.statuses(order) == ["Submitted", "Accepted"]

    made.play(script)
    made.agree()
    assert [one["client_ids"] for one in made.requests("place")] == [kept]
    assert states(made, kept[0]) == ["intended", "working"]


@pytest.mark.usefixtures("fast_looks")
def test_fault_03_nobody_ever_listens(scene: MakeScene) -> None:
    """Proof that it does not stand: rejected, and told why."""
    made = scene()

    def script(strategy: Any) -> Script:
        serve(made, on=False)
        drop_idle_connections(made)
        order = far(strategy)
        yield
        serve(made, on=True)
        assert strategy.statuses(order) == ["Submitted", "Rejected"]
        assert "did not reach IBKR" in strategy.clones[-1].info.reason

    made.play(script)
    made.agree()
    assert made.requests("place") == []


def test_fault_04_reset_after_the_request(scene: MakeScene) -> None:
    """As without an answer: the request had arrived."""
    made = scene()
    kept: list[str] = []

    def script(strategy: Any) -> Script:
        reset = made.fault("http", action="reset", processed=True, method="POST", path=ORDERS)
        for topic in ("sor", "str"):
            made.fault("silence", topic=topic)
        order = far(strategy)
        kept.append(made.broker.client_order_id(order))
        yield
        assert made.hits(reset) == 1
        assert strategy.statuses(order) == ["Submitted", "Accepted"]

    made.play(script)
    made.agree()
    assert len(made.requests("place")) == 1
    assert states(made, kept[0]) == ["intended", "unknown", "working"]


@pytest.mark.parametrize("status", [500, 503])
def test_fault_05_an_error_though_the_order_was_taken(scene: MakeScene, status: int) -> None:
    """Never called rejected: looked up, and found."""
    made = scene()
    kept: list[str] = []

    def script(strategy: Any) -> Script:
        made.fault("http", action="status", status=status, processed=True, method="POST", path=ORDERS)
        made.fault("silence", topic="sor")
        order = far(strategy)
        kept.append(made.broker.client_order_id(order))
        yield
        assert strategy.statuses(order) == ["Submitted", "Accepted"]

    made.play(script)
    made.agree()
    assert [one["status"] for one in made.requests("place")] == [status]
    assert states(made, kept[0]) == ["intended", "unknown", "working"]


def test_fault_06_refused_in_words(scene: MakeScene) -> None:
    """200 and an error: rejected, once, with IBKR's text."""
    made = scene()
    text = "We cannot accept an order at the limit price you selected."

    def script(strategy: Any) -> Script:
        made.fault("http", action="error", text=text, method="POST", path=ORDERS)
        order = far(strategy)
        yield
        assert strategy.statuses(order) == ["Submitted", "Rejected"]
        assert text in strategy.clones[-1].info.reason

    made.play(script)
    made.agree()
    assert len(made.requests("place")) == 1
    (written,) = made.recorded()[0].values()
    assert written.state is OrderState.REJECTED
    assert text in written.text


def test_fault_07_already_registered(scene: MakeScene) -> None:
    """The order stands, though IBKR said it had lost the question and no list shows it. Sent again, it is refused as
    known: that proves the first, and there is no second."""
    made = scene()
    kept: list[str] = []

    def script(strategy: Any) -> Script:
        made.fault("questions", chain=[[{"id": "o163", "text": "The price exceeds the limit."}]])
        gone = {"status": 400, "text": "reply id not found: 'x'"}
        made.fault("http", action="status", processed=True, path="/iserver/reply/*", **gone)
        made.fault("silence", topic="sor")
        blind = made.fault("order_list", action="vanish")
        order = far(strategy)
        kept.append(made.broker.client_order_id(order))
        by(lambda: len(made.requests("place")) == 2)
        made.clear(blind)
        yield
        assert strategy.statuses(order) == ["Submitted", "Accepted"]

    made.play(script)
    made.agree()
    first, second = made.requests("place")
    assert first["client_ids"] == second["client_ids"] == kept
    assert (second["outcome"], second["created"]) == ("refused", [])
    assert states(made, kept[0])[0] == "intended"
    assert states(made, kept[0])[-1] == "working"
