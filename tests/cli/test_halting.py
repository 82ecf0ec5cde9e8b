"""A strategy that runs is halted from another process, and by a signal; positions are closed beside it."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from bt_ibkr.clock import SystemClock
from bt_ibkr.emulator.settings import EmulatorSettings
from bt_ibkr.emulator.testing import EmulatorThread
from bt_ibkr.journal import EventKind, Journal, journal_path
from bt_ibkr.model.trading import Trading

ACCOUNT = "DU1111111"
WAIT_S = 60.0
#: Three chains of orders far from the market: each that is accepted is followed by the next, and each bar tries anew.
FLOODS = (
    "import backtrader as bt\n"
    "class Floods(bt.Strategy):\n"
    "    accepted = refused = 0\n"
    "    def place(self):\n"
    "        self.buy(size=1, exectype=bt.Order.Limit, price=round(self.data.close[0] * 0.5, 2))\n"
    "    def next(self):\n"
    "        if self.data.current:\n"
    "            for _ in range(3): self.place()\n"
    "    def notify_order(self, order):\n"
    "        if order.status == order.Accepted:\n"
    "            self.accepted += 1\n"
    "            if self.accepted == 10: print('flooding', flush=True)\n"
    "            self.place()\n"
    "        if order.status == order.Rejected:\n"
    "            self.refused += 1\n"
    "            if self.refused % 5 == 0: print('refused', flush=True)\n"
)
HOLDS = (
    "import os, time\n"
    "import backtrader as bt\n"
    "class Holds(bt.Strategy):\n"
    "    made = False\n"
    "    def next(self):\n"
    "        if not self.made and self.data.current:\n"
    "            self.made = True\n"
    "            self.buy(size=7)\n"
    "            self.sell(size=7, exectype=bt.Order.Limit, price=round(self.data.close[0] * 1.5, 2))\n"
    "        if self.made and self.position and not getattr(self, 'told', False):\n"
    "            if any(o.status == o.Accepted for o in self.broker.get_orders_open()):\n"
    "                self.told = True\n"
    "                print('busy', flush=True)\n"
    "                while os.path.exists('block'): time.sleep(0.01)\n"
    "                print('free', flush=True)\n"
    "        if getattr(self, 'told', False) and not self.position and not getattr(self, 'flat', False):\n"
    "            self.flat = True\n"
    "            print('flat', flush=True)\n"
)


@pytest.fixture
def emulator() -> Iterator[EmulatorThread]:
    with ExitStack() as stack:
        settings = EmulatorSettings(
            accounts=(ACCOUNT,),
            speed=20.0,
            pacing="off",
            pacing_speed=20.0,
            conflation_ms=0,
            synthetic_instruments=("AAPL",),
        )
        yield stack.enter_context(EmulatorThread(settings))


@pytest.fixture
def journal() -> Iterator[Callable[[], Journal]]:
    """The account's journal, beside its owner."""
    opened: list[Journal] = []

    def beside() -> Journal:
        opened.append(Journal.open(journal_path(ACCOUNT), clock=SystemClock(), exclusive=False))
        return opened[-1]

    yield beside
    for one in opened:
        one.close()


def orders(emulator: EmulatorThread) -> list[Any]:
    found: list[Any] = emulator.call(lambda server: server.core.engine.ledger())["orders"]
    return found


def standing(emulator: EmulatorThread) -> list[Any]:
    return [
        one for one in orders(emulator) if one["status"] not in ("Filled", "Cancelled", "Failed", "Inactive")
    ]


def until(seen: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not seen():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def run(start: Any, emulator: EmulatorThread, folder: Path, name: str, text: str) -> Any:
    (folder / f"{name}.py").write_text(text)
    (folder / "risk.toml").write_text('orders_per_minute = "off"\n')
    words = ("--mode", "paper", "--gateway", emulator.url, "--data", "AAPL", "--bar", "5s")
    return start("run", f"{name}.py", *words, "--risk", "risk.toml")


def test_not_one_order_after_the_halt_was_committed(
    emulator: EmulatorThread, start: Any, command: Any, tmp_path: Path, journal: Any
) -> None:
    strategy = run(start, emulator, tmp_path, "floods", FLOODS)
    strategy.until("flooding")
    ended = command("halt", "--gateway", emulator.url, "--json", "--reason", "enough")
    assert ended.code == 0, ended.err + ended.out
    told = json.loads(ended.out)
    assert told["journals"][0]["trading"]["mode"] == "halted"
    cancelled = {one["key"] for one in told["cancelled"]}
    assert len(cancelled) >= 10
    assert {one["result"] for one in told["cancelled"]} == {"cancelled"}
    assert standing(emulator) == []
    there = len(orders(emulator))
    # It goes on trying.
    strategy.until("refused")
    strategy.until("refused")
    assert len(orders(emulator)) == there
    log = journal().events()
    (halt,) = (one.number for one in log if one.kind == EventKind.TRADING)
    intended = {one.key: one.number for one in log if one.kind == EventKind.INTENDED}
    assert intended
    assert max(intended.values()) < halt
    assert {one["client_order_id"] for one in orders(emulator)} <= intended.keys()
    strategy.process.send_signal(signal.SIGINT)
    last = strategy.end()
    assert last.code == 130, last.err
    assert "halted by command line: enough" in last.out
    assert standing(emulator) == []
    assert journal().orders(open_only=True) == ()


def test_a_signal_halts_a_strategy_that_is_busy(
    emulator: EmulatorThread, start: Any, command: Any, tmp_path: Path, journal: Any
) -> None:
    if not hasattr(signal, "SIGUSR1"):
        pytest.skip("this system has no SIGUSR1")
    (tmp_path / "block").touch()
    strategy = run(start, emulator, tmp_path, "holds", HOLDS)
    strategy.until("busy")
    assert len(standing(emulator)) == 1
    strategy.process.send_signal(signal.SIGUSR1)
    # Both while the strategy holds the main thread.
    kept = journal()
    until(lambda: kept.trading_state().mode is Trading.HALTED)
    assert kept.trading_state().by == "signal"
    until(lambda: standing(emulator) == [])
    # A second one changes nothing, and the run goes on.
    strategy.process.send_signal(signal.SIGUSR1)
    (tmp_path / "block").unlink()
    strategy.until("free")
    strategy.process.send_signal(signal.SIGTERM)
    last = strategy.end()
    assert last.code == 143, last.err
    assert "SIGUSR1: trading is halted" in last.err
    assert "halted by signal" in last.out
    resumed = command("resume", "--json")
    assert json.loads(resumed.out)["trading"]["mode"] == "active"


def test_flatten_beside_a_strategy(
    emulator: EmulatorThread, start: Any, command: Any, tmp_path: Path, journal: Any
) -> None:
    strategy = run(start, emulator, tmp_path, "holds", HOLDS)
    strategy.until("free")
    looked = json.loads(command("orders", "--gateway", emulator.url, "--json").out)
    assert [one["strategy"] for one in looked["orders"]] == ["holds"]
    ended = command("flatten", "--gateway", emulator.url, "--json")
    assert ended.code == 0, ended.err + ended.out
    told = json.loads(ended.out)
    assert [(one["side"], one["filled"], one["state"]) for one in told["closed"]] == [("SELL", 7.0, "filled")]
    assert [one["result"] for one in told["cancelled"]] == ["cancelled"]
    assert told["left"] == []
    # The strategy sees it.
    strategy.until("flat")
    strategy.process.send_signal(signal.SIGINT)
    last = strategy.end()
    assert last.code == 130, last.err
    assert "flat" in last.out
    kept = journal()
    key = told["closed"][0]["key"]
    # Both processes took the execution in; it counts once, and for its order.
    (execution,) = kept.executions(key=key)
    assert execution.execution.quantity == 7
    assert kept.orders(open_only=True) == ()
    assert command("journal", "verify").code == 0
