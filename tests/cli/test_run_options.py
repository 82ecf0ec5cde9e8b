"""``run`` on an account: limits, journal, names, and what is done with orders of earlier runs."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from bt_ibkr.emulator.settings import EmulatorSettings
from bt_ibkr.emulator.testing import EmulatorThread

ACCOUNT = "DU1111111"
RESTS = (
    "import backtrader as bt\n"
    "class Rests(bt.Strategy):\n"
    "    made = False\n"
    "    def next(self):\n"
    "        if self.made or not self.data.current: return\n"
    "        self.made = True\n"
    "        self.buy(size=10, exectype=bt.Order.Limit, price=round(self.data.close[0] * 0.9, 2))\n"
    "    def notify_order(self, order):\n"
    "        if order.status in (order.Accepted, order.Rejected) and self.made: self.env.runstop()\n"
)

Run = Callable[..., Any]


@pytest.fixture
def emulator() -> Iterator[EmulatorThread]:
    with ExitStack() as stack:
        settings = EmulatorSettings(
            accounts=(ACCOUNT,),
            speed="lockstep",
            pacing="off",
            pacing_speed=20.0,
            conflation_ms=0,
            synthetic_instruments=("AAPL",),
        )
        yield stack.enter_context(EmulatorThread(settings))


@pytest.fixture
def run(emulator: EmulatorThread, here: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    (tmp_path / "rests.py").write_text(RESTS)

    def started(*words: str, code: int = 0) -> Any:
        given = (
            "--mode",
            "paper",
            "--gateway",
            emulator.url,
            "--data",
            "AAPL",
            "--bar",
            "5s",
            "--json",
            *words,
        )
        ended = here("run", "rests.py", *given)
        assert ended.code == code, ended.err + ended.out
        return json.loads(ended.out)

    return started


def orders(emulator: EmulatorThread) -> list[Any]:
    found: list[Any] = emulator.call(lambda server: server.core.engine.ledger())["orders"]
    return found


def test_read_only(emulator: EmulatorThread, run: Run, tmp_path: Path) -> None:
    (tmp_path / "risk.toml").write_text(f"read_only = false\n[accounts.{ACCOUNT}]\nread_only = false\n")
    told = run("--read-only", "--risk", "risk.toml")
    assert {one["status"] for one in told["orders"]} == {"Rejected"}
    assert orders(emulator) == []


def test_limits_of_a_file(emulator: EmulatorThread, run: Run, tmp_path: Path) -> None:
    (tmp_path / "risk.toml").write_text("[strategies.careful]\nmax_order_size = 5\n")
    told = run("--risk", "risk.toml", "--name", "careful")
    (order,) = told["orders"]
    assert order["status"] == "Rejected"
    assert "max_order_size" in order["reason"]
    assert orders(emulator) == []
    told = run("--risk", "risk.toml")
    assert told["orders"][0]["status"] == "Accepted"
    (tmp_path / "risk.toml").write_text("max_order_sise = 5\n")
    told = run("--risk", "risk.toml", code=2)
    assert "'max_order_sise' is no limit" in told["errors"][0]


def test_journal_and_name(run: Run, tmp_path: Path, home: Path) -> None:
    told = run("--journal", "mine.sqlite", "--name", "my_name")
    assert told["orders"][0]["coid"].startswith("my_name.")
    assert told["books"]["journal"] == "mine.sqlite"
    assert told["books"]["open"] == [told["orders"][0]["coid"]]
    assert (tmp_path / "mine.sqlite").is_file()
    assert not list(home.glob("journal-*"))
    told = run("--name", "My Name", code=2)
    assert "'My Name' is no name" in told["errors"][0]


@pytest.mark.parametrize(("policy", "left"), [("keep", 2), ("cancel", 1), ("default", 1)])
def test_orders_of_earlier_runs(emulator: EmulatorThread, run: Run, policy: str, left: int) -> None:
    first = run()["orders"][0]["coid"]
    told = run("--on-resume", policy)
    assert (first in told["books"]["open"]) is (policy == "keep")
    working = [one for one in orders(emulator) if one["status"] not in ("Filled", "Cancelled")]
    assert len(working) == left
    told = run("--on-resume", "forget", code=2)
    assert "forget" in told["errors"][0]


@pytest.mark.parametrize(
    "words", [("--read-only",), ("--risk", "x"), ("--journal", "x"), ("--on-resume", "keep"), ("--name", "x")]
)
@pytest.mark.parametrize("mode", ["sim", "backtest"])
def test_they_mean_nothing_elsewhere(here: Any, words: tuple[str, ...], mode: str) -> None:
    ended = here("run", "sma_cross", "--mode", mode, *words)
    assert ended.code == 2
    assert "mean nothing" in ended.err


def test_the_report_for_people(emulator: EmulatorThread, run: Run, here: Any) -> None:
    first = run("--on-resume", "keep")
    words = (
        "--mode",
        "paper",
        "--gateway",
        emulator.url,
        "--data",
        "AAPL",
        "--bar",
        "5s",
        "--on-resume",
        "keep",
    )
    here("halt", "--keep-orders", "--reason", "lunch")
    ended = here("run", "rests.py", *words)
    assert ended.code == 0, ended.err
    assert "halted by command line: lunch" in ended.out
    assert first["orders"][0]["coid"] in ended.out
    assert "differences at the start" in ended.out
