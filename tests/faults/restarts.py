"""One program after another on the same emulator and the same journal, and what must be the same for all of them."""

from __future__ import annotations

import copy
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bt_ibkr.clock import ManualClock
from bt_ibkr.config import SessionSettings
from bt_ibkr.model.intent import OPEN
from bt_ibkr.store import IBKRStore
from tests.faults.scene import ACCOUNT, Scene, Script

if TYPE_CHECKING:
    from tests.conftest import Run

STANDING = ("Submitted", "PreSubmitted")


def again(stage: Scene, *, journal: Path | None = None, **settings: Any) -> Scene:
    """The next program: a store of its own on the stage's emulator, with the stage's journal or another one.

    Args:
        stage: The one before.
        journal: Another journal.
        settings: Of the session.
    """
    made = copy.copy(stage)
    made.journal_path = journal or stage.journal_path
    clock = ManualClock(int(stage.line.control.get("/state")["now_ns"]))
    given: dict[str, Any] = {"paced": False, "reconnect_first_s": 0.01} | settings
    store = IBKRStore(
        settings=SessionSettings(base_url=stage.emulator.url, **given),
        clock=clock,
        bar_grace_s=0.0,
        journal=made.journal_path,
    )
    made.line = type(stage.line)(stage.emulator, stage.line.control, clock, store)
    return made


def hooked(scripted: type[Any]) -> type[Any]:
    """The scripted strategy, which keeps what it is told at the start."""

    class Hooked(scripted):  # type: ignore[misc]
        def notify_resume(self, resumed: Any) -> None:
            self.resumed = resumed

    return Hooked


def look_only(strategy: Any) -> Script:
    """A script that does nothing but wait until all is read."""
    yield


def agree(stage: Scene, run: Run) -> None:
    """Ledger, journal and the run's broker have the same open orders, executions, position and cash; no double."""
    ledger = stage.emulator.ledger()
    ours, written = stage.recorded()
    broker = run.broker
    family = Counter(one.intent.parent_key or key for key, one in ours.items())
    for key, count in ledger["by_client_id"].items():
        if key in ours:
            assert count <= family[key], (key, count)
    # Every open order of ours stands, is in the record, and is one of the broker's; all others are another's.
    working = {str(one["order_id"]): one for one in ledger["orders"] if one["status"] in STANDING}
    keys = {str(broker.client_order_id(order)): order for order in broker.get_orders_open()}
    assert {key for key, one in ours.items() if one.state in OPEN} == set(keys)
    for key, order in keys.items():
        there = working.pop(str(ours[key].order_id))
        assert broker.order_id(order) == str(there["order_id"])
        assert abs(order.created.size) == float(there["quantity"])
        assert abs(order.executed.size) == float(there["filled"])
        assert ours[key].filled == Decimal(there["filled"])
    assert {report.order_id for report in broker.external_orders} == set(working)
    there = sorted(one["execution_id"] for one in ledger["executions"])
    assert sorted(row.execution.execution_id for row in written) == there
    account = ledger["accounts"][ACCOUNT]
    held = {int(conid): float(one["quantity"]) for conid, one in account["positions"].items()}
    assert {data.contract.conid: p.size for data, p in broker.positions.items() if p.size} == {
        conid: size for conid, size in held.items() if size
    }
    assert abs(broker.getcash() - float(account["cash"]["USD"])) < 0.005
