"""A strategy's process at a hub: follows instruments, places orders when it is told to, and tells what it was told.

Started as ``python follower.py ENDPOINT NAME KEYS INSTRUMENT…`` (KEYS is a file, or empty). Each line of its standard
input is a JSON object that asks for something; answers and what happens are lines on its standard output. It ends
when its standard input does. The variable ``FOLLOWER_OPEN_S`` says how long it waits for a hub, if not as usual.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
from decimal import Decimal
from pathlib import Path
from typing import Any

from bt_ibkr.connection.interface import (
    AccountEvent,
    ExecutionReported,
    GapReported,
    OrderFailed,
    OrderPlaced,
    SessionChanged,
    SessionNotice,
    StoreEvent,
)
from bt_ibkr.connection.mailbox import Mailbox, WakeUp
from bt_ibkr.errors import BtIbkrError
from bt_ibkr.hub import connection as hub_connection
from bt_ibkr.hub.joining import HubAddress
from bt_ibkr.model.contract import Contract
from bt_ibkr.model.intent import OrderIntent, make_key
from bt_ibkr.model.order import OrderTicket, OrderType, Side
from bt_ibkr.services.datanames import parse_dataname
from tests.hub.digest import Digest

ACCOUNT = "DU1234567"


def say(kind: str, **values: object) -> None:
    print(json.dumps({"kind": kind} | values), flush=True)


def tell(event: AccountEvent | StoreEvent) -> None:
    if isinstance(event, SessionChanged):
        say("state", connected=event.connected, cause=event.cause, since_ns=event.since_ns)
    elif isinstance(event, GapReported):
        say("gap", start_ns=event.start_ns, end_ns=event.end_ns, cause=event.cause)
    elif isinstance(event, SessionNotice):
        say(event.kind, text=event.text)
    elif isinstance(event, OrderPlaced):
        say("placed", key=event.key)
    elif isinstance(event, OrderFailed):
        say("failed", key=event.key, problem=str(event.error))
    elif isinstance(event, ExecutionReported):
        one = event.execution
        say("execution", key=event.key, id=one.execution_id, quantity=str(one.quantity), conid=one.conid)


class Follower:
    """The process's one strategy."""

    def __init__(self, endpoint: str, name: str, keys: str) -> None:
        self.name = name
        self.wake = WakeUp()
        address = HubAddress(endpoint=endpoint, name=name, keys=Path(keys) if keys else None)
        self.connection = address.connect(self.wake)
        self.store: Mailbox[StoreEvent] = Mailbox(self.wake)
        self.account: Mailbox[AccountEvent] = Mailbox(self.wake)
        self.sinks: dict[str, Digest] = {}
        self.contracts: dict[str, Contract] = {}
        self.epoch, self.number = "", 0
        #: Ticks of each instrument, missing ones among them, at which what was asked is answered.
        self.waiting: list[dict[str, int]] = []

    def begin(self, instruments: list[str]) -> None:
        self.connection.open(self.store)
        snapshot = self.connection.attach_account(ACCOUNT, self.account)
        self.epoch, self.number = snapshot.epoch, snapshot.sequences.get(self.name, 1)
        for one in instruments:
            self.contracts[one] = self.connection.resolve(parse_dataname(one))
            self.sinks[one] = Digest()
            self.connection.subscribe_ticks(self.contracts[one], self.sinks[one])
        say("joined")

    def do(self, asked: dict[str, Any]) -> None:
        if asked["do"] == "report":
            self.report("report")
        elif asked["do"] == "reach":
            self.waiting.append(asked["ticks"])
        elif asked["do"] == "place":
            key = make_key(self.name, self.epoch, self.number)
            self.number += 1
            ticket = OrderTicket(
                account=ACCOUNT,
                contract_id=self.contracts[asked["of"]].conid,
                side=Side(asked["side"]),
                order_type=OrderType.MARKET,
                quantity=Decimal(asked["quantity"]),
                client_order_id=key,
            )
            intent = OrderIntent(key=key, strategy=self.name, ticket=ticket)
            self.connection.place((intent,), self.account)
            say("asked", key=key)

    def report(self, kind: str) -> None:
        behind, _, lost, mended = self.connection.beat()
        say(
            kind,
            ticks={name: sink.told() for name, sink in self.sinks.items()},
            behind=sum(behind.values()),
            lost=lost,
            mended=mended,
        )

    def look(self) -> None:
        for wanted in list(self.waiting):
            if all(self.sinks[name].count + self.sinks[name].gone >= count for name, count in wanted.items()):
                self.waiting.remove(wanted)
                self.report("reached")
        for box in (self.store, self.account):
            while (event := box.take()) is not None:
                tell(event)


def main(endpoint: str, name: str, keys: str, *instruments: str) -> None:
    follower = Follower(endpoint, name, keys)
    wanted: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def read() -> None:
        for line in sys.stdin:
            wanted.put(line)
            follower.wake.set()
        wanted.put(None)
        follower.wake.set()

    if "FOLLOWER_OPEN_S" in os.environ:
        hub_connection._OPEN_S = float(os.environ["FOLLOWER_OPEN_S"])  # type: ignore[misc]
    try:
        follower.begin(list(instruments))
    except BtIbkrError as problem:
        say("refused", problem=str(problem))
        return
    threading.Thread(target=read, daemon=True).start()
    while True:
        follower.wake.wait(0.5)
        follower.look()
        while not wanted.empty():
            line = wanted.get()
            if line is None:
                follower.connection.close()
                follower.look()
                return
            follower.do(json.loads(line))
            follower.look()


if __name__ == "__main__":
    main(*sys.argv[1:])
