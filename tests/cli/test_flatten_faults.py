"""``flatten`` and ``cancel`` while things go wrong: nothing is closed twice, or called closed that is not."""

from __future__ import annotations

import io
import json
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from bt_ibkr.emulator.settings import EmulatorSettings
from bt_ibkr.emulator.testing import EmulatorThread

AAPL = 265598
#: Of ForecastEx: the two answers of one question.
YES, NO = 722489372, 722489376
ACCOUNT = "DU1111111"
HOLDS = (
    "import backtrader as bt\n"
    "class Holds(bt.Strategy):\n"
    "    made = False\n"
    "    def next(self):\n"
    "        if not self.made and self.data.current:\n"
    "            self.made = True\n"
    "            self.buy(size=10)\n"
    "            self.rest = self.sell(size=10, exectype=bt.Order.Limit, price=round(self.data.close[0] * 1.1, 2))\n"
    "    def notify_order(self, order):\n"
    "        if order.status == order.Accepted and order.exectype == bt.Order.Limit: self.env.runstop()\n"
)

Json = Callable[..., Any]


@pytest.fixture
def emulator() -> Iterator[EmulatorThread]:
    with ExitStack() as stack:
        settings = EmulatorSettings(
            accounts=(ACCOUNT,),
            speed="lockstep",
            pacing="off",
            pacing_speed=20.0,
            conflation_ms=0,
            # The command has no market data of its own, about which IBKR would ask; a question is no order yet.
            questions="none",
            synthetic_instruments=("AAPL", f"conid:{YES}"),
        )
        yield stack.enter_context(EmulatorThread(settings))


@pytest.fixture
def typed(emulator: EmulatorThread, here: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Json:
    """Commands, after a run that bought ten shares and left an order to sell them."""
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    (tmp_path / "holds.py").write_text(HOLDS)

    def run(*words: str, code: int = 0) -> Any:
        given = () if words[0] in ("journal", "resume") else ("--gateway", emulator.url)
        ended = here(*words, *given, "--json")
        assert ended.code == code, ended.err + ended.out
        return json.loads(ended.out)

    run("run", "holds.py", "--mode", "paper", "--data", "AAPL", "--bar", "5s")
    assert held(emulator) == 10
    return run


def held(emulator: EmulatorThread) -> float:
    positions = emulator.ledger()["accounts"][ACCOUNT]["positions"]
    return float(positions[str(AAPL)]["quantity"]) if str(AAPL) in positions else 0.0


def closing(emulator: EmulatorThread) -> list[Any]:
    found = emulator.ledger()["orders"]
    return [one for one in found if (one["client_order_id"] or "").startswith("flatten.")]


def test_an_answer_that_is_lost(emulator: EmulatorThread, typed: Json) -> None:
    emulator.fault("http", action="lose", method="POST", path=f"*/{ACCOUNT}/orders", processed=True)
    told = typed("flatten", "--wait", "10")
    (closed,) = told["closed"]
    assert (closed["state"], closed["filled"]) == ("filled", 10.0)
    assert len(closing(emulator)) == 1
    assert held(emulator) == 0


def test_an_order_that_was_never_found_is_not_sent_again(emulator: EmulatorThread, typed: Json) -> None:
    emulator.fault("http", action="lose", method="POST", path=f"*/{ACCOUNT}/orders", processed=False)
    told = typed("flatten", "--wait", "0.5", code=10)
    (closed,) = told["closed"]
    assert closed["state"] == "unknown"
    assert [(one["conid"], one["quantity"]) for one in told["left"]] == [(AAPL, 10.0)]
    assert closing(emulator) == []
    refused = typed("flatten", "--wait", "0.5", code=9)
    assert closed["key"] in refused["errors"][0]
    # A person has looked.
    typed("journal", "resolve", closed["key"], "--as", "absent", "--yes", closed["key"])
    assert typed("flatten")["left"] == []
    assert held(emulator) == 0
    assert len(closing(emulator)) == 1


def test_an_event_is_closed_by_the_other_answer(emulator: EmulatorThread, typed: Json) -> None:
    """ForecastEx takes no orders to sell; what is held of both answers is not left."""
    emulator.do("manual_order", account=ACCOUNT, conid=YES, side="BUY", quantity=4, order_type="MKT")
    told = typed("flatten", "--wait", "10")
    closed = {one["conid"]: (one["side"], one["filled"]) for one in told["closed"]}
    assert closed == {AAPL: ("SELL", 10.0), NO: ("BUY", 4.0)}
    assert told["left"] == []


def test_an_instrument_that_is_halted(emulator: EmulatorThread, typed: Json) -> None:
    emulator.do("halt", conid=AAPL, on=True)
    told = typed("flatten", "--wait", "0.5", code=10)
    assert [one["state"] for one in told["closed"]] == ["working"]
    assert [one["quantity"] for one in told["left"]] == [10.0]
    assert len(told["errors"]) == 2
    emulator.do("halt", conid=AAPL, on=False)
    # What was left open is cancelled before anything is closed anew.
    told = typed("flatten")
    assert told["left"] == []
    assert held(emulator) == 0
    assert sorted(float(one["filled"]) for one in closing(emulator)) in ([10.0], [0.0, 10.0])


def test_positions_that_are_not_listed_are_not_flat(emulator: EmulatorThread, typed: Json) -> None:
    number = emulator.fault("positions", action="empty")
    told = typed("positions", code=6)
    assert "the list is not whole" in told["errors"][0]
    emulator.do("clear_faults", id=number)
    (position,) = typed("positions")["positions"]
    assert position["size"] == 10


def test_a_cancellation_whose_answer_is_lost(emulator: EmulatorThread, typed: Json) -> None:
    emulator.fault("http", action="lose", method="DELETE", path="*", processed=True)
    told = typed("cancel", "--all")
    assert [one["result"] for one in told["orders"]] == ["cancelled"]
    assert [one for one in emulator.do("requests")["requests"] if one["method"] == "DELETE"]
    assert emulator.do("faults")["log"], "the answer was lost"
    assert held(emulator) == 10


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
@pytest.mark.parametrize(
    ("step", "name", "sent"), [(6, "journal.intend.committed", False), (8, "desk.post.after.", True)]
)
def test_killed_on_the_way(
    emulator: EmulatorThread,
    typed: Json,
    start: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    step: int,
    name: str,
    sent: bool,
) -> None:
    typed("cancel", "--all")
    log = tmp_path / "steps.log"
    with monkeypatch.context() as environment:
        environment.setenv("BT_IBKR_KILL_AT", str(step))
        environment.setenv("BT_IBKR_STEPS_LOG", str(log))
        killed = start("flatten", "--gateway", emulator.url).end()
    assert killed.code == -signal.SIGKILL, killed.err
    assert log.read_text().splitlines()[-1].startswith(name)
    assert len(closing(emulator)) == int(sent)
    assert typed("journal", "--limit", "1")["trading"]["mode"] == "halted"
    if not sent:
        # Nobody knows that it was not: it is not sent again.
        key = typed("flatten", "--wait", "0.5", code=9)["errors"][0].split("already: ")[1].split()[0]
        assert closing(emulator) == []
        typed("journal", "resolve", key, "--as", "absent", "--yes", key)
    told = typed("flatten")
    assert told["left"] == []
    assert held(emulator) == 0
    assert len(closing(emulator)) == 1, "closed once"
    rows = typed("journal", "--strategy", "flatten")
    states = [one["state"] for one in rows["orders"]]
    assert states == (["filled"] if sent else ["absent", "filled"])
    assert sum(one["size"] for one in rows["executions"]) == 10
