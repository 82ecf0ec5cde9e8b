"""Journals in files, and orders and executions to put into them."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from bt_ibkr.clock import ManualClock
from bt_ibkr.journal import Journal
from bt_ibkr.model.intent import OrderIntent, make_key
from bt_ibkr.model.order import Execution, OrderTicket, OrderType, Side, TimeInForce

ACCOUNT = "DU1234567"
CONID = 265598


class Books:
    """Makes journals, closes them in the end, and makes what goes into them."""

    def __init__(self, folder: Path, stack: contextlib.ExitStack) -> None:
        self.path = folder / "journal.sqlite"
        self.clock = ManualClock(1_700_000_000_000_000_000)
        self._stack = stack

    def open(self, path: Path | None = None, **given: Any) -> Journal:
        journal = Journal.open(path or self.path, clock=self.clock, **given)
        self._stack.callback(journal.close)
        return journal

    def tick(self, seconds: float = 1.0) -> int:
        """The clock, moved."""
        self.clock.set_ns(self.clock.now_ns() + int(seconds * 1e9))
        return self.clock.now_ns()

    @staticmethod
    def intent(
        journal: Journal, number: int, *, name: str = "sma", quantity: str = "10", **ticket: Any
    ) -> OrderIntent:
        key = make_key(name, journal.epoch, number)
        fields: dict[str, Any] = {
            "account": ACCOUNT,
            "contract_id": CONID,
            "side": Side.BUY,
            "order_type": OrderType.LIMIT,
            "quantity": Decimal(quantity),
            "limit_price": 187.25,
            "time_in_force": TimeInForce.GOOD_TILL_CANCELLED,
            "client_order_id": key,
        }
        return OrderIntent(key=key, strategy=name, ticket=OrderTicket(**(fields | ticket)))

    def place(self, journal: Journal, number: int, **given: Any) -> str:
        """Intend one order."""
        made = self.intent(journal, number, **given)
        journal.intend([made])
        return made.key

    def execution(self, identity: str, quantity: str = "10", **given: Any) -> Execution:
        fields: dict[str, Any] = {
            "execution_id": identity,
            "account": ACCOUNT,
            "conid": CONID,
            "symbol": "AAPL",
            "side": Side.BUY,
            "quantity": Decimal(quantity),
            "price": 187.2,
            "time_ns": self.clock.now_ns(),
        }
        return Execution(**(fields | given))


@pytest.fixture
def books(tmp_path: Path) -> Iterator[Books]:
    with contextlib.ExitStack() as stack:
        yield Books(tmp_path, stack)


@pytest.fixture
def ram(tmp_path: Path) -> Iterator[Path]:
    """A folder for many journals, in memory where there is such a place: nothing waits for a disk there."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        yield Path(folder)


@pytest.fixture
def child(tmp_path: Path, environment: dict[str, str]) -> Callable[..., subprocess.Popen[str]]:
    """Starts a Python program with the journal's path as its argument."""

    def start(program: str, path: Path, **variables: str) -> subprocess.Popen[str]:
        file = tmp_path / "program.py"
        file.write_text(program, encoding="utf-8")
        return subprocess.Popen(
            [sys.executable, str(file), str(path)],
            env=environment | variables,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


@pytest.fixture(name="Books")
def books_class() -> type[Books]:
    return Books
