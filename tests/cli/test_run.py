"""Runs by the command line, and their ends by signals."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil
import pytest

from bt_ibkr.version import __version__

#: An end in order takes less than two seconds; the machine may have other things to do.
PATIENCE_S = 8.0

KEYS = {
    "mode", "strategy", "bars", "orders", "executions", "position", "start_cash", "start_value", "cash",
    "value", "trades",
    "started", "ended", "errors",
}  # fmt: skip
ORDER_KEYS = {
    "ref", "coid", "order_id", "symbol", "side", "size", "type", "status", "filled", "avg_price", "reason",
}  # fmt: skip
EXECUTION_KEYS = {
    "execution_id", "time", "symbol", "side", "size", "price", "commission", "order_ref",
}  # fmt: skip
HOUR = ("--to", "2026-03-02T15:30", "--data", "AAPL", "--set", "fast=3", "--set", "slow=8")


@pytest.fixture(scope="module", autouse=True)
def elsewhere(started_type: Any, tmp_path_factory: Any) -> Iterator[tuple[Any, Any]]:
    """An emulator, and a run on it: begun with the first test, because IBKR's limits make it wait for seconds."""
    folder = tmp_path_factory.mktemp("elsewhere")
    words = ("--symbol", "AAPL", "--port", "0", "--speed", "lockstep", "--no-autostart")
    emulator = started_type("emulator", *words, cwd=folder)
    address = json.loads(emulator.until("url")[-1])
    running = started_type("run", "sma_cross", "--gateway", address["url"], "--json", *HOUR, cwd=folder)
    yield emulator, running
    for one in (running, emulator):
        for process in one.family():
            process.kill()
        one.process.communicate()


@pytest.mark.parametrize("mode", ["sim", "backtest"])
def test_json(command: Any, here: Any, mode: str) -> None:
    ended = (command if mode == "sim" else here)("run", "sma_cross", "--mode", mode, "--json", *HOUR)
    assert ended.code == 0, ended.err
    assert ended.err == ""
    assert ended.out.count("\n") == 1
    told = json.loads(ended.out)
    assert set(told) == KEYS
    assert (told["mode"], told["strategy"], told["errors"]) == (mode, "SmaCross", [])
    assert told["bars"] == 60
    assert told["orders"]
    assert all(set(order) == ORDER_KEYS for order in told["orders"])
    assert all(set(execution) == EXECUTION_KEYS for execution in told["executions"])
    assert datetime.fromisoformat(told["started"]) <= datetime.fromisoformat(told["ended"])
    # The figures hang together.
    cash, size = told["start_cash"], 0.0
    for e in told["executions"]:
        sign = 1 if e["side"] == "BUY" else -1
        cash -= sign * e["size"] * e["price"] + e["commission"]
        size += sign * e["size"]
        assert "2026-03-02T14:3" <= e["time"] <= "2026-03-02T15:30:01"
    assert told["cash"] == pytest.approx(cash)
    assert told["position"]["AAPL"]["size"] == size
    filled = {order["coid"] or str(order["ref"]): order["filled"] for order in told["orders"]}
    for reference, quantity in filled.items():
        parts = [e["size"] for e in told["executions"] if e["order_ref"] == reference]
        assert sum(parts) == quantity
    assert not ended.left


def test_text_tells_the_run_and_sums_it_up(here: Any) -> None:
    ended = here("run", "sma_cross", *HOUR)
    assert ended.code == 0, ended.err
    for word in ("LIVE", "submitted", "completed", "Executions", "SmaCross in mode sim", "profit"):
        assert word in ended.out
    assert not ended.left


def test_strategy_from_a_file(here: Any, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import backtrader as bt\n"
        "class Mine(bt.Strategy):\n"
        "    params = (('size', 5), ('loud', False))\n"
        "    def next(self):\n"
        "        if len(self) == 2: self.buy(size=self.p.size)\n"
    )
    words = ("--json", "--to", "2026-03-02T14:40", "--data", "AAPL")
    ended = here("run", "mine.py", "--set", "size=7", "--set", "loud=true", *words)
    assert ended.code == 0, ended.err
    told = json.loads(ended.out)
    assert told["strategy"] == "Mine"
    assert told["position"]["AAPL"]["size"] == 7


def test_what_a_strategy_prints_stays_out_of_the_json(here: Any, tmp_path: Path) -> None:
    (tmp_path / "loud.py").write_text(
        "import backtrader as bt\nclass Loud(bt.Strategy):\n    def next(self): print('a bar')\n"
    )
    ended = here("run", "loud.py", "--json", "--to", "2026-03-02T14:35", "--data", "AAPL")
    assert ended.code == 0, ended.err
    assert json.loads(ended.out)["bars"] == 5
    assert "a bar" in ended.err


@pytest.mark.parametrize("bar", ["7min", "45min", "13s"])
def test_modes_begin_with_the_same_bar(here: Any, bar: str) -> None:
    """The market opens at no edge of such bars: the first, which is not whole, is left out in both modes."""
    bars = set()
    for mode in ("sim", "backtest"):
        words = ("--bar", bar, "--data", "AAPL", "--to", "2026-03-02T16:30", "--json")
        told = json.loads(here("run", "sma_cross", "--mode", mode, *words).out)
        bars.add(told["bars"])
    assert len(bars) == 1


@pytest.mark.parametrize("mode", ["sim", "backtest"])
def test_fewer_bars_than_the_strategy_needs(here: Any, mode: str) -> None:
    ended = here("run", "sma_cross", "--mode", mode, "--bar", "1h", "--json")
    assert ended.code == 0, ended.err
    told = json.loads(ended.out)
    assert told["bars"] == 12
    assert told["orders"] == []


def test_executions_are_whole_in_a_narrow_terminal(here: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    ended = here("run", "sma_cross", *HOUR)
    table = ended.out[ended.out.index("Executions") :]
    assert "…" not in table
    assert re.search(r" sma_cross\.[a-z0-9]{5}\.1 ", table)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_output_that_cannot_be_written(environment: dict[str, str]) -> None:
    words = [sys.executable, "-m", "bt_ibkr.cli.main", "run", "sma_cross", "--mode", "backtest", "--json"]
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True, env=environment)
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: The output cannot be written")
    assert "Traceback" not in ended.stderr


SECOND = "def next(self):\n        if len(self) == 2: self.buy(size=7)"
LAST_WORDS = {
    "stops": (f"{SECOND}; self.env.runstop()", 0),
    "at the end": ("def stop(self): self.buy(size=7)", 0),
    "raises": (f"{SECOND}; raise ValueError('late')", 1),
    "raises when told": (f"{SECOND}\n    def notify_order(self, order): raise ValueError('told')", 1),
}


@pytest.mark.parametrize("case", LAST_WORDS)
def test_an_order_sent_last_is_told_with_its_fill(here: Any, tmp_path: Path, case: str) -> None:
    body, code = LAST_WORDS[case]
    (tmp_path / "last.py").write_text(f"import backtrader as bt\nclass Last(bt.Strategy):\n    {body}\n")
    ended = here("run", "last.py", "--json", "--to", "2026-03-02T14:40", "--data", "AAPL")
    assert ended.code == code, ended.err
    assert "command-failed" not in ended.err
    told = json.loads(ended.out)
    assert [(o["size"], o["status"], o["filled"]) for o in told["orders"]] == [(7.0, "Completed", 7.0)]
    (execution,) = told["executions"]
    assert told["position"]["AAPL"]["size"] == 7.0
    assert told["bars"] >= 1
    spent = 7 * execution["price"] + execution["commission"]
    assert told["cash"] == pytest.approx(told["start_cash"] - spent)


def test_interrupt_ends_a_lockstep_run_in_order(start: Any) -> None:
    running = start("run", "sma_cross", "--bar", "5s", "--data", "AAPL")
    running.until("bar     1")
    assert len(running.family()) == 2
    began = time.monotonic()
    running.process.send_signal(signal.SIGINT)
    ended = running.end(10)
    assert time.monotonic() - began < PATIENCE_S
    assert ended.code == 130
    assert "SmaCross in mode sim" in ended.out
    assert "Traceback" not in ended.err
    assert not ended.left


def test_termination_ends_a_run_in_real_time_in_order(start: Any, tmp_path: Path) -> None:
    (tmp_path / "tells.py").write_text(
        "import sys, backtrader as bt\n"
        "class Tells(bt.Strategy):\n"
        "    def next(self):\n"
        "        if len(self) == 1: print('first bar', file=sys.__stdout__, flush=True)\n"
    )
    running = start("run", "tells.py", "--speed", "60", "--bar", "5s", "--data", "AAPL", "--json")
    running.until("first bar")
    began = time.monotonic()
    running.process.send_signal(signal.SIGTERM)
    ended = running.end(10)
    assert time.monotonic() - began < PATIENCE_S
    assert ended.code == 143
    told = json.loads(ended.out)
    assert told["bars"] >= 1
    assert told["cash"] == told["start_cash"]
    assert not ended.left


def test_signal_before_the_run_has_begun(start: Any, tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(
        "import threading, backtrader as bt\n"
        "print('loading', flush=True)\n"
        "threading.Event().wait(20)\n"
        "class Slow(bt.Strategy): pass\n"
    )
    running = start("run", "slow.py", "--data", "AAPL")
    running.until("loading")
    running.process.send_signal(signal.SIGINT)
    ended = running.end(10)
    assert ended.code == 130
    assert "interrupted" in ended.err
    assert not ended.left


def test_killed_run_takes_its_emulator_along(start: Any) -> None:
    running = start("run", "sma_cross", "--speed", "60", "--bar", "5s", "--data", "AAPL")
    running.until("bar     1")
    family = running.family()
    assert len(family) == 2
    running.process.kill()
    gone, alive = psutil.wait_procs([p for p in family if p.pid != running.process.pid], timeout=5)
    assert not alive
    assert len(gone) == 1


def test_run_against_an_emulator_that_is_up(elsewhere: tuple[Any, Any]) -> None:
    emulator, running = elsewhere
    ended = running.end()
    assert ended.code == 0, ended.err
    assert json.loads(ended.out)["bars"] == 60
    emulator.process.send_signal(signal.SIGTERM)
    assert emulator.end(10).code == 0


def test_the_package_as_a_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bt_ibkr", "--version"], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == f"bt-ibkr {__version__}\n"


def test_help_is_quick() -> None:
    """What takes long to import comes with the command that needs it."""
    script = (
        "import sys, atexit\n"
        "from bt_ibkr.cli.main import main\n"
        "heavy = ('backtrader', 'aiohttp', 'numpy', 'pandas', 'pyarrow', 'zmq', 'bt_ibkr.emulator.server')\n"
        "atexit.register(lambda: print('loaded', *(name for name in heavy if name in sys.modules)))\n"
        "main()"
    )
    command = [sys.executable, "-c", script, "run", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert "--mode" in done.stdout
    assert done.stdout.splitlines()[-1] == "loaded"


def test_version_and_help(here: Any) -> None:
    assert __version__ in here("--version").out
    shown = here("run", "--help").out
    for option in ("--mode", "--data", "--market", "--set", "--json", "--speed"):
        assert option in shown
