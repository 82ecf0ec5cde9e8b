"""Strategies, their hub, and somebody who kills them; and what must hold when they are all back."""

from __future__ import annotations

import contextlib
import json
import os
import random
import select
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

from bt_ibkr.clock import SystemClock
from bt_ibkr.emulator.settings import EmulatorSettings
from bt_ibkr.emulator.testing import EmulatorThread
from bt_ibkr.hub.bookkeeping import Bookkeeper
from bt_ibkr.journal import Journal
from bt_ibkr.model.intent import OPEN, OrderState

ACCOUNT = "DU1234567"
NAMES = ("alpha", "beta", "gamma")
#: Wall seconds until all is back and at rest.
PATIENCE_S = 60.0
ENDED = {"Filled": OrderState.FILLED, "Cancelled": OrderState.CANCELLED}


class Mortals:
    """The process that forks them."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("mortals.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def be(self, **asked: Any) -> int:
        """A new one; its process id."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def close(self) -> None:
        with self._process as process:
            assert process.stdin is not None
            process.stdin.close()


class Campaign:
    """One seed: an emulator, a hub, strategies, and their deaths.

    Args:
        mortals: Who forks them.
        folder: Of this seed.
        seed: Of everything random.
    """

    def __init__(self, mortals: Mortals, folder: Path, seed: int) -> None:
        folder.mkdir(parents=True)
        self.mortals = mortals
        self.folder = folder
        self.random = random.Random(seed)
        self.seed = seed
        self.deaths: list[str] = []
        self.lives: Counter[str] = Counter()
        self.pids: dict[str, int] = {}
        #: Readable once the process is gone (pidfd_open(2)).
        self.fds: dict[str, int] = {}
        #: Who ended though nobody killed him, and what he wrote last.
        self.ended: list[str] = []
        #: Strategies ring it when they are back, have placed an order or have written down what they see.
        self.bell = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.bell.bind(str(folder / "bell"))
        self.bell.setblocking(False)
        #: How much each strategy had placed at the last death.
        self.placed = dict.fromkeys(NAMES, 0)
        self.journal = folder / "journal.sqlite"
        self.emulator = EmulatorThread(
            EmulatorSettings(
                speed=1.0,
                synthetic_instruments=("AAPL", "MSFT"),
                synthetic_rate=20.0,
                seed=seed,
                conflation_ms=0,
                pacing="off",
                questions="none",
                margin="off",
                history_days=1,
                order_status_delay_s=0.0,
            )
        )

    def run(self, kills: int) -> None:
        """Live, die, come back, rest; raises ``AssertionError`` for what is wrong then."""
        with self.emulator, contextlib.ExitStack() as stack:
            stack.callback(self.bell.close)
            stack.callback(self.end)
            for name in ("hub", *NAMES):
                self.start(name)
            self.until(lambda: all((self.folder / f"back-{name}").exists() for name in NAMES), "begin")
            for _ in range(kills):
                if self.random.random() < 0.7:
                    self.until(self.trading, "back")
                    # Else somebody dies while he comes back.
                self.look_for(self.random.uniform(0.05, 0.9))
                self.kill()
            self.look_for(0.3)
            (self.folder / "quiet").touch()
            self.rest()
        assert not self.ended, f"seed {self.seed}: " + "\n".join(self.ended)

    def start(self, name: str) -> None:
        self.lives[name] += 1
        plain = {
            "folder": str(self.folder),
            "endpoint": f"ipc://{self.folder}/hub",
            "log": str(self.folder / f"log-{name}"),
        }
        if name == "hub":
            asked: dict[str, Any] = {"be": "hub", "url": self.emulator.url, "journal": str(self.journal)}
        else:
            asked = {
                "be": "strategy",
                "name": name,
                "seed": self.random.getrandbits(32),
                "pause_s": 0.03,
            }
        self.pids[name] = pid = self.mortals.be(**plain, **asked)
        try:
            self.fds[name] = os.pidfd_open(pid)
        except ProcessLookupError:
            self.died(name)
            self.start(name)

    def trading(self) -> bool:
        """Whether every strategy has placed an order since the last death."""
        return all(size(self.folder / f"placed-{name}") > self.placed[name] for name in NAMES)

    def kill(self) -> None:
        """Somebody dies, and is started again."""
        victims = self.random.choice(
            [("hub",), (self.random.choice(NAMES),), ("hub", self.random.choice(NAMES)), ("hub", *NAMES)]
        )
        self.deaths.append("+".join(victims))
        for name in victims:
            try:
                signal.pidfd_send_signal(self.fds[name], signal.SIGKILL)
            except ProcessLookupError:
                self.died(name)
        for name in victims:
            self.gone(name)
        for name in victims:
            self.start(name)
        self.placed = {name: size(self.folder / f"placed-{name}") for name in NAMES}

    def gone(self, name: str) -> None:
        """Wait for its end."""
        fd = self.fds.pop(name)
        waiting = select.poll()
        waiting.register(fd, select.POLLIN)
        assert waiting.poll(PATIENCE_S * 1000), f"seed {self.seed}: {name} does not die"
        os.close(fd)

    def died(self, name: str) -> None:
        """It ended, and nobody had killed it."""
        self.deaths.append(f"{name} by itself")
        log = self.folder / f"log-{name}"
        self.ended.append(f"{name} ended by itself: {log.read_text()[-3000:] if log.exists() else ''}")

    def wait(self, timeout_s: float) -> None:
        """Until somebody rings or ends, at most so long; who ended is started again, as a supervisor does."""
        waiting = select.poll()
        waiting.register(self.bell, select.POLLIN)
        by_fd = {fd: name for name, fd in self.fds.items()}
        for fd in by_fd:
            waiting.register(fd, select.POLLIN)
        for fd, _ in waiting.poll(max(0.0, timeout_s) * 1000):
            if fd in by_fd:
                self.died(by_fd[fd])
                self.gone(by_fd[fd])
                self.start(by_fd[fd])
        with contextlib.suppress(BlockingIOError):
            while self.bell.recv(16):
                pass

    def look_for(self, seconds: float) -> None:
        """Time passes."""
        latest = time.monotonic() + seconds
        while (left := latest - time.monotonic()) > 0:
            self.wait(left)

    def end(self) -> None:
        for fd in self.fds.values():
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(fd, signal.SIGKILL)
        for name in list(self.fds):
            self.gone(name)

    def until(self, wanted: Any, what: str) -> None:
        latest = time.monotonic() + PATIENCE_S
        while not wanted():
            left = latest - time.monotonic()
            assert left > 0, f"seed {self.seed}: {what}; {self.deaths}"
            self.wait(min(left, 1.0))

    # -- at rest -----------------------------------------------------------------------------------

    def rest(self) -> None:
        """Wait until all agree; what does not in the end is what is wrong."""
        wrong: list[str] = ["nothing was looked at"]

        def agreed() -> bool:
            nonlocal wrong
            wrong = self.wrong()
            return not wrong

        try:
            self.until(agreed, "rest")
        except AssertionError as problem:
            raise AssertionError(f"{problem}\n" + "\n".join(wrong)) from None

    def wrong(self) -> list[str]:
        views = {}
        for name in NAMES:
            try:
                views[name] = json.loads((self.folder / f"view-{name}").read_text())
            except (OSError, ValueError):
                return [f"{name} has not come back"]
            if views[name]["pid"] != self.pids[name]:
                return [f"{name} has not come back"]
        ledger = self.emulator.ledger()
        journal = Journal.open(self.journal, clock=SystemClock(), exclusive=False)
        try:
            return self._differences(ledger, journal, views)
        finally:
            journal.close()

    def _differences(self, ledger: dict[str, Any], journal: Journal, views: dict[str, Any]) -> list[str]:
        found = []
        orders, executions = journal.orders(), journal.executions()
        for key, number in ledger["by_client_id"].items():
            if number != 1:
                found.append(f"DOUBLE ORDER {key}: {number}")
        known = {order.order_id: order for order in orders if order.order_id is not None}
        theirs = {str(one["order_id"]): one for one in ledger["orders"]}
        if set(known) != set(theirs):
            found.append(f"orders: {set(known) ^ set(theirs)} are on one side alone")
        for order_id, one in theirs.items():
            order = known.get(order_id)
            if order is None:
                continue
            if order.state is not ENDED.get(one["status"], OrderState.WORKING):
                found.append(f"{order.key}: {order.state} here, {one['status']} there")
            if order.filled != Decimal(one["filled"]):
                found.append(f"{order.key}: filled {order.filled} here, {one['filled']} there")
        recorded = Counter(one.execution.execution_id for one in executions if not one.superseded)
        if recorded != Counter(str(one["execution_id"]) for one in ledger["executions"]):
            found.append(f"LOST FILL: {len(recorded)} executions here, {len(ledger['executions'])} there")
        held: dict[str, Counter[str]] = {name: Counter() for name in NAMES}
        for row in executions:
            name = (row.key or "").partition(".")[0]
            if name not in held:
                found.append(f"execution {row.execution.execution_id} is of nobody")
                continue
            quantity = int(row.execution.quantity) * row.execution.side.sign
            held[name][str(row.execution.conid)] += quantity
        for name, view in views.items():
            positions = {conid: size for conid, size in held[name].items() if size}
            if view["positions"] != positions:
                found.append(f"{name} sees {view['positions']}, its executions make {positions}")
            standing = sorted(one.key for one in orders if one.state in OPEN and one.key.startswith(name))
            if view["open"] != standing:
                found.append(
                    f"{name} takes as open {set(view['open']) ^ set(standing)} and the record not, or so"
                )
            if view["unanswered"] or not view["connected"]:
                found.append(f"{name}: {view['unanswered']} unanswered, connected {view['connected']}")
            found.extend(f"{name}: {text}" for text in view["wrong"])
        found += self._books(ledger, held, journal)
        return found

    def _books(self, ledger: dict[str, Any], held: dict[str, Counter[str]], journal: Journal) -> list[str]:
        """As a hub that starts now would make them."""
        account = ledger["accounts"][ACCOUNT]
        theirs = {int(conid): int(Decimal(one["quantity"])) for conid, one in account["positions"].items()}
        copy = self.folder / "books-copy"
        for end in ("", "-wal"):
            part = self.journal.with_name(self.journal.name + ".books" + end)
            if part.exists():
                copy.with_name(copy.name + end).write_bytes(part.read_bytes())
        keeper = Bookkeeper(copy, journal, SystemClock(), lambda conid: None)
        try:
            keeper._replay(ACCOUNT, ())
            books = keeper.of(ACCOUNT)
            found = []
            if books.totals() != {conid: size for conid, size in theirs.items() if size}:
                found.append(f"books sum to {books.totals()}, the account has {theirs}")
            for view in books.views():
                mine = {str(one.conid): int(one.quantity) for one in view.holdings if one.quantity}
                wanted = {conid: size for conid, size in held.get(view.name, Counter()).items() if size}
                if mine != wanted:
                    found.append(f"WRONG BOOK {view.name}: {mine}, its executions make {wanted}")
            return found
        finally:
            keeper.close()
            for end in ("", "-wal", "-shm"):
                copy.with_name(copy.name + end).unlink(missing_ok=True)


def size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
