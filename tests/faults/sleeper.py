"""A client in a process of its own, to be stopped and continued: one order, and a line for all it is told.

Started as ``python sleeper.py REST_BASE``; ends when its standard input does.
"""

from __future__ import annotations

import json
import sys
import threading
from decimal import Decimal

from bt_ibkr.config import SessionSettings
from bt_ibkr.connection.direct import MEMORY, DirectConnection
from bt_ibkr.connection.interface import (
    AccountEvent,
    ExecutionReported,
    GapReported,
    OrderChanged,
    OrderPlaced,
    SessionChanged,
    StoreEvent,
)
from bt_ibkr.connection.mailbox import Mailbox, WakeUp
from bt_ibkr.model.intent import OrderIntent, make_key
from bt_ibkr.model.order import OrderTicket, OrderType, Side, TimeInForce
from bt_ibkr.risk import RiskLimits

ACCOUNT = "DU1234567"


def say(kind: str, **values: object) -> None:
    print(json.dumps({"kind": kind} | values), flush=True)


def tell(event: AccountEvent | StoreEvent) -> None:
    if isinstance(event, SessionChanged):
        say("state", state=event.state)
    elif isinstance(event, GapReported):
        say("gap", start_ns=event.start_ns, end_ns=event.end_ns)
    elif isinstance(event, ExecutionReported):
        say("execution", id=event.execution.execution_id)
    elif isinstance(event, OrderChanged):
        status = event.report.status
        say("order", status=None if status is None else status.name)
    elif isinstance(event, OrderPlaced):
        say("placed")


def main(url: str) -> None:
    wake = WakeUp()
    told: Mailbox[StoreEvent] = Mailbox(wake)
    events: Mailbox[AccountEvent] = Mailbox(wake)
    connection = DirectConnection(
        SessionSettings(base_url=url, paced=False, silence_s=0.5, reconnect_first_s=0.02),
        wake,
        journal=MEMORY,
        risk=RiskLimits(allow_no_data=True),
    )
    over = threading.Event()

    def await_end() -> None:
        sys.stdin.read()
        over.set()
        wake.set()

    threading.Thread(target=await_end, daemon=True).start()
    connection.open(told)
    key = make_key("sleeper", connection.attach_account(ACCOUNT, events).epoch, 1)
    ticket = OrderTicket(
        account=ACCOUNT, contract_id=265598, side=Side.BUY, order_type=OrderType.MARKET,
        quantity=Decimal(10), time_in_force=TimeInForce.DAY, client_order_id=key,
    )  # fmt: skip
    connection.place((OrderIntent(key=key, strategy="sleeper", ticket=ticket),), events)
    while not over.is_set():
        wake.wait(1.0)
        for mailbox in (told, events):
            while (event := mailbox.take()) is not None:
                tell(event)
    connection.close()


if __name__ == "__main__":
    main(sys.argv[1])
