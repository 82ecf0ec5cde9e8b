"""A process whose forks are a hub, or strategies at it, and can be killed: started again without a new interpreter.

Started as ``python mortals.py``. Each line of its standard input is a JSON object that says what to be; a fork of
this process is that, and its process id is written to standard output. A strategy trades at random until the file
``quiet`` is there, and then writes down again and again what it sees.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import random
import signal
import socket
import sys
import time
import traceback
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

from bt_ibkr.config import SessionSettings
from bt_ibkr.connection.interface import (
    ExecutionReported,
    ModifyFailed,
    OrderChanged,
    OrderFailed,
    OrderModified,
    OrderPlaced,
    Reconciled,
    SessionChanged,
    StandingOrder,
)
from bt_ibkr.connection.mailbox import Mailbox, WakeUp
from bt_ibkr.errors import BtIbkrError, OutcomeUnknownError
from bt_ibkr.hub.access import Grant
from bt_ibkr.hub.config import HubSettings
from bt_ibkr.hub.connection import HubConnection
from bt_ibkr.hub.thread import HubThread
from bt_ibkr.model.intent import OrderIntent, make_key
from bt_ibkr.model.order import DONE, OrderTicket, OrderType, Side, TimeInForce
from bt_ibkr.risk import RiskLimits
from bt_ibkr.services.datanames import parse_dataname

ACCOUNT = "DU1234567"
LOOSE = RiskLimits(
    allow_no_data=True, duplicate_window_s=None, orders_per_minute=None, price_band_percent=None
)


def be_hub(asked: dict[str, Any]) -> None:
    """Serve until killed."""
    grants = {name: Grant(**grant) for name, grant in asked.get("strategies", {}).items()}
    with HubThread(
        SessionSettings(base_url=asked["url"], paced=False, reconnect_first_s=0.01, reconnect_longest_s=0.1),
        HubSettings(endpoint=asked["endpoint"], beat_s=0.1, dead_s=0.6, stale_s=3.0, strategies=grants),
        journal=Path(asked["journal"]),
        risk=LOOSE,
    ):
        while True:
            signal.pause()


class Trader:
    """One strategy process, without backtrader: trades at random, and keeps its own account of it."""

    def __init__(self, asked: dict[str, Any]) -> None:
        self.name = asked["name"]
        self.folder = Path(asked["folder"])
        self.random = random.Random(asked["seed"])
        self.pause_s = float(asked["pause_s"])
        self.wake = WakeUp()
        self.connection = HubConnection(asked["endpoint"], self.name, self.wake)
        self.store: Mailbox[Any] = Mailbox(self.wake)
        self.mailbox: Mailbox[Any] = Mailbox(self.wake)
        self.positions: Counter[int] = Counter()
        self.known: set[str] = set()
        self.open: dict[str, OrderTicket] = {}
        self.ended: set[str] = set()
        self.wrong: list[str] = []
        self.connected = False
        self.placed = (self.folder / f"placed-{self.name}").open("a", buffering=1)
        self.bell = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.bell.setblocking(False)

    def ring(self) -> None:
        """There is news in the folder."""
        with contextlib.suppress(OSError):
            self.bell.sendto(b".", str(self.folder / "bell"))

    def begin(self) -> None:
        while True:
            # The session may be down, or the process before this one not missed yet.
            try:
                self.connection.open(self.store)
                break
            except BtIbkrError:
                self.connection = HubConnection(self.connection._link.endpoint, self.name, self.wake)
        self.contracts = [self.connection.resolve(parse_dataname(one)) for one in ("AAPL", "MSFT")]
        snapshot = self.connection.attach_account(ACCOUNT, self.mailbox)
        self.epoch = snapshot.epoch
        self.number = snapshot.sequences.get(self.name, 1)
        for position in snapshot.positions:
            self.positions[position.conid] = int(position.quantity)
        self.known.update(one.execution_id for one in snapshot.executions)
        for standing in snapshot.standing:
            self._standing(standing)

    def _standing(self, standing: StandingOrder) -> None:
        key = standing.intent.key
        self.known.update(one.execution_id for one in standing.executions)
        if standing.open:
            self.open[key] = standing.intent.ticket
        else:
            self.ended.add(key)

    # -- what is told ------------------------------------------------------------------------------

    def look(self) -> None:
        while (event := self.mailbox.take()) is not None:
            self._take(event)
        while (told := self.store.take()) is not None:
            if isinstance(told, SessionChanged):
                self.connected = told.connected

    def _take(self, event: Any) -> None:
        if isinstance(event, ExecutionReported):
            execution = event.execution
            if execution.execution_id in self.known:
                self.wrong.append(f"told twice: {execution.execution_id}")
                return
            self.known.add(execution.execution_id)
            self.positions[execution.conid] += int(execution.quantity) * execution.side.sign
        elif isinstance(event, OrderPlaced | OrderModified):
            if event.key not in self.open and event.key not in self.ended:
                self.wrong.append(f"told of another's: {event.key}")
        elif isinstance(event, OrderFailed):
            if not isinstance(event.error, OutcomeUnknownError):
                self._end(event.key)
        elif isinstance(event, OrderChanged):
            if event.key is not None and event.report.status in DONE:
                self._end(event.key)
        elif isinstance(event, Reconciled):
            if event.positions is not None:
                reported = Counter({one.conid: int(one.quantity) for one in event.positions})
                if +reported != +self.positions or -reported != -self.positions:
                    self.wrong.append(f"{event.cause}: {self.positions} became {reported}")
                    self.positions = reported
        elif isinstance(event, ModifyFailed):
            pass

    def _end(self, key: str) -> None:
        self.open.pop(key, None)
        self.ended.add(key)

    # -- what is done ------------------------------------------------------------------------------

    def act(self) -> None:
        what = self.random.random()
        if self.open and what < 0.25:
            self.connection.cancel(self.random.choice(sorted(self.open)), self.mailbox)
        elif self.open and what < 0.35:
            key = self.random.choice(sorted(self.open))
            ticket = self.open[key]
            if ticket.order_type is OrderType.LIMIT:
                fields = {name: getattr(ticket, name) for name in ticket.__struct_fields__}
                changed = OrderTicket(**(fields | {"quantity": ticket.quantity + 1}))
                self.connection.modify(key, changed, self.mailbox)
        else:
            self.place()

    def place(self) -> None:
        key = make_key(self.name, self.epoch, self.number)
        self.number += 1
        contract = self.random.choice(self.contracts)
        market = self.random.random() < 0.6
        side = self.random.choice(list(Side))
        ticket = OrderTicket(
            account=ACCOUNT,
            contract_id=contract.conid,
            side=side,
            order_type=OrderType.MARKET if market else OrderType.LIMIT,
            # Far from the market: it waits to be changed or cancelled.
            limit_price=None if market else (20.0 if side is Side.BUY else 2000.0),
            quantity=Decimal(self.random.randint(1, 20)),
            time_in_force=TimeInForce.DAY,
            client_order_id=key,
        )
        self.open[key] = ticket
        self.placed.write(key + "\n")
        self.ring()
        self.connection.place((OrderIntent(key=key, strategy=self.name, ticket=ticket),), self.mailbox)

    def run(self) -> None:
        self.begin()
        (self.folder / f"back-{self.name}").write_text(str(os.getpid()))
        self.ring()
        quiet, out, due_s = self.folder / "quiet", self.folder / f"view-{self.name}", 0.0
        while True:
            self.wake.wait(0.01)
            self.look()
            now_s = time.monotonic()
            if quiet.exists():
                if now_s >= due_s:
                    due_s = now_s + 0.1
                    part = out.with_suffix(".part")
                    part.write_text(json.dumps(self.view()))
                    part.rename(out)
                    self.ring()
            elif now_s >= due_s and self.connected:
                due_s = now_s + self.random.expovariate(1 / self.pause_s)
                self.act()

    def view(self) -> dict[str, Any]:
        return {
            "positions": {str(conid): size for conid, size in self.positions.items() if size},
            "open": sorted(self.open),
            "executions": len(self.known),
            "unanswered": len(self.connection._commands.unanswered()),
            "connected": self.connected,
            "wrong": self.wrong,
            "pid": os.getpid(),
        }


def fork(asked: dict[str, Any]) -> int:
    child = os.fork()
    if child:
        return child
    try:
        log = os.open(asked["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        logging.basicConfig(level=logging.INFO, force=True, format="%(asctime)s %(name)s %(message)s")
        if asked["be"] == "hub":
            be_hub(asked)
        else:
            Trader(asked).run()
    except BaseException:  # noqa: BLE001 - it ends here, whatever it was
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(1)


def main() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with contextlib.suppress(KeyboardInterrupt):
        for line in sys.stdin:
            print(fork(json.loads(line)), flush=True)


if __name__ == "__main__":
    main()
