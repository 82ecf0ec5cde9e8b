"""Fault 18: of a bracket the entry is accepted and a child is refused, in every shape in which that was seen."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import backtrader as bt
import pytest

from tests.faults.scene import Scene

if TYPE_CHECKING:
    from tests.conftest import Bench, Tape
    from tests.faults.placing import MakeScene
    from tests.faults.scene import Script

Limit, Market = bt.Order.Limit, bt.Order.Market
TEXT = "The exchange takes no such order."


@pytest.fixture
def scene(bench: Bench, tape: type[Tape], tmp_path: Path) -> MakeScene:
    return lambda **given: Scene(bench, tape, tmp_path / "journal.sqlite", **given)


def standing(made: Scene) -> list[str]:
    """Types of the orders that may still execute at IBKR."""
    return [one["order_type"] for one in made.orders() if one["status"] in ("Submitted", "PreSubmitted")]


def compare(made: Scene) -> None:
    """IBKR's book, the journal and the broker say the same of each order that exists, and none exists twice."""
    there = {str(one["order_id"]): one for one in made.orders()}
    ours, executions = made.recorded()
    assert len(made.requests("place")) == 1
    assert len(there) <= len(ours) == 3
    assert {order.order_id for order in ours.values() if order.order_id} == set(there)
    for key, written in ours.items():
        order = next(one for one in made.broker.orders if made.broker.client_order_id(one) == key)
        found = there.get(written.order_id or "")
        alive = found is not None and found["status"] in ("Submitted", "PreSubmitted")
        assert (written.is_open, order.alive()) == (alive, alive), (key, written.state, order.getstatusname())
        filled = float(found["filled"]) if found is not None else 0.0
        assert abs(order.executed.size) == float(written.filled) == filled
    assert {row.execution.execution_id for row in executions} == {
        e["execution_id"] for e in made.executions()
    }


@pytest.mark.parametrize("child", [0, 1], ids=["target", "stop"])
@pytest.mark.parametrize(
    ("shape", "parent"),
    [
        ("sentinel", "live"),
        ("sentinel", "inactive"),
        ("error", "live"),
        ("error", "absent"),
        ("ids", "live"),
        ("missing", "live"),
    ],
)
def test_fault_18_the_entry_waits(scene: MakeScene, shape: str, parent: str, child: int) -> None:
    """Nothing of it is left standing, and if anything stood, that is told loudly."""
    made = scene()

    def script(strategy: Any) -> Script:
        made.fault("bracket", shape=shape, parent=parent, child=child, text=TEXT)
        entry, stop, target = strategy.buy_bracket(size=10, price=95.0, stopprice=90.0, limitprice=110.0)
        yield lambda: not any(one.alive() for one in (entry, stop, target))
        assert entry.status in (bt.Order.Canceled, bt.Order.Rejected)
        if parent == "live":
            yield lambda: made.messages("bracket-incomplete")

    made.play(script)
    assert standing(made) == []
    compare(made)


@pytest.mark.parametrize("shape", ["sentinel", "error", "ids", "missing"])
def test_fault_18_the_entry_has_executed(scene: MakeScene, shape: str) -> None:
    """There is nothing to cancel: what protects the position is left alone, and what it lacks is told loudly."""
    made = scene()

    def script(strategy: Any) -> Script:
        made.fault("bracket", shape=shape, parent="live", child=0, text=TEXT)
        made.fault("http", action="delay", method="POST", path="/iserver/account/*/orders", delay_s=0.05)
        entry, stop, target = strategy.buy_bracket(size=10, exectype=Market, stopprice=90.0, limitprice=110.0)
        yield lambda: made.messages("bracket-incomplete")
        ((_, notice, *_),) = made.messages("bracket-incomplete")
        assert "UNPROTECTED" in notice.text
        yield
        assert entry.status == bt.Order.Completed
        assert [one.alive() for one in (stop, target)] == [False, True]
        assert made.position == 10

    made.play(script)
    assert standing(made) == ["LMT"]
    compare(made)


def test_fault_18_reports_come_before_the_refusal_and_no_list_can_be_read(scene: MakeScene) -> None:
    """What they showed stands, whatever the answer says of the whole: it is cancelled."""
    made = scene()

    def script(strategy: Any) -> Script:
        made.fault("bracket", shape="error", parent="live", child=0, text=TEXT)
        made.fault("http", action="delay", method="POST", path="/iserver/account/*/orders", delay_s=0.2)
        made.fault("http", action="status", status=500, method="GET", path="/iserver/account/orders", count=0)
        bracket = strategy.buy_bracket(size=10, price=95.0, stopprice=90.0, limitprice=110.0)
        yield lambda: made.messages("bracket-incomplete")
        yield lambda: not any(one.alive() for one in bracket)

    made.play(script)
    assert standing(made) == []


def test_fault_18_a_child_that_the_strategy_cancels_takes_nothing_along(scene: MakeScene) -> None:
    """Nor one that IBKR cancels because the other child executed."""
    made = scene()

    def script(strategy: Any) -> Script:
        entry, stop, target = strategy.buy_bracket(size=10, price=95.0, stopprice=90.0, limitprice=110.0)
        yield
        strategy.cancel(target)
        yield lambda: not target.alive()
        assert entry.alive()
        made.fill(entry)
        yield lambda: entry.status == bt.Order.Completed
        entry, stop, target = strategy.buy_bracket(size=5, price=94.0, stopprice=89.0, limitprice=111.0)
        yield
        made.fill(entry)
        yield lambda: entry.status == bt.Order.Completed
        number = next(one["order_id"] for one in made.orders() if one["limit_price"] == 111.0)
        made.do("fill", order_id=number)
        yield lambda: target.status == bt.Order.Completed and not stop.alive()
        assert made.messages("bracket-incomplete") == []

    made.play(script)
    assert standing(made) == []
