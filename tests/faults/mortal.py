"""A trading program that can be killed anywhere, started again and again without the cost of a new interpreter.

Started as ``python mortal.py``. Each line of its standard input is a JSON object that asks for one life; a fork of
this process lives it, and a line on standard output tells how it ended. A life kills itself by SIGKILL at the step
that ``kill_at`` names; one that reaches its own end leaves what its strategy saw in the file ``view``.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import resource
import sys
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import backtrader as bt

from bt_ibkr.app.control import ControlClient
from bt_ibkr.app.driving import LockstepMarket
from bt_ibkr.clock import ManualClock
from bt_ibkr.config import SessionSettings
from bt_ibkr.errors import BtIbkrError
from bt_ibkr.journal import steps
from bt_ibkr.store import IBKRStore

Limit, Stop = bt.Order.Limit, bt.Order.Stop
#: Questions about one order, one after the other; the default policy says yes to each.
CHAIN = [
    [{"id": "o163", "text": "Price."}],
    [{"id": "o383", "text": "Size."}],
    [{"id": "o10151", "text": "Risk."}],
]


class Trader(bt.Strategy):  # type: ignore[misc]
    """Trades one fixed script, one action a bar."""

    params = (("control", None), ("actions", ()))

    def __init__(self) -> None:
        self.made: dict[str, Any] = {}
        self.turn = 0
        self.resumed: Any = None
        self.refusals: list[str] = []

    def notify_resume(self, resumed: Any) -> None:
        self.resumed = resumed

    def notify_store(self, msg: Any, *args: Any, **kwargs: Any) -> None:
        if msg == "order-failed":
            self.refusals.append(str(kwargs["error"]))

    def next(self) -> None:
        turn, self.turn = self.turn, self.turn + 1
        if turn < len(self.p.actions):
            self.p.actions[turn](self)


def market(strategy: Trader) -> None:
    strategy.buy(size=10)


def limit(strategy: Trader) -> None:
    strategy.made["limit"] = strategy.buy(size=20, exectype=Limit, price=97.0, valid=timedelta(hours=1))


def change_limit(strategy: Trader) -> None:
    strategy.broker.modify(strategy.made["limit"], price=98.0, size=15)


def cancel_limit(strategy: Trader) -> None:
    strategy.cancel(strategy.made["limit"])


def bracket(strategy: Trader) -> None:
    strategy.buy_bracket(size=10, exectype=Limit, price=100.5, limitprice=104.0, stopprice=95.0)


def one_cancels_other(strategy: Trader) -> None:
    """In two submissions: the group is kept here, not at IBKR."""
    target = strategy.sell(size=5, exectype=Limit, price=103.5)
    strategy.sell(size=5, exectype=Stop, price=94.0, oco=target)


def native_group(strategy: Trader) -> None:
    """In one submission: IBKR keeps the group."""
    low = strategy.sell(size=4, exectype=Limit, price=103.0, transmit=False)
    strategy.sell(size=4, exectype=Limit, price=103.2, oco=low)


def questioned(strategy: Trader) -> None:
    strategy.p.control.post("/fault", {"kind": "questions", "chain": CHAIN, "count": 1})
    strategy.buy(size=3, exectype=Limit, price=100.6)


def partly(strategy: Trader) -> None:
    """More than is shown at the price: it takes several quotes."""
    strategy.made["partly"] = strategy.buy(size=3000, exectype=Limit, price=100.5)


def change_partly(strategy: Trader) -> None:
    strategy.broker.modify(strategy.made["partly"], size=2800)


def cancel_partly(strategy: Trader) -> None:
    strategy.cancel(strategy.made["partly"])


def one_more(strategy: Trader) -> None:
    """Life goes on after a restart."""
    strategy.buy(size=1)


Action = Callable[[Trader], None]
#: One action a bar.
SCRIPT: tuple[Action, ...] = (
    market, limit, change_limit, cancel_limit, bracket, one_cancels_other, native_group, questioned,
    partly, change_partly, cancel_partly,
)  # fmt: skip


def late_partner(strategy: Trader) -> None:
    """A group whose second order, of a submission of its own, is the one that executes."""
    leader = strategy.sell(size=5, exectype=Stop, price=94.0)
    strategy.sell(size=5, exectype=Limit, price=101.0, oco=leader)


#: What a life can be asked to trade.
SCRIPTS: dict[str, tuple[Action, ...]] = {
    "everything": SCRIPT,
    "group": (market, late_partner),
    "asked": (questioned,),
    "one": (one_more,),
    "many": (one_more,) * 40,
}


def live(asked: dict[str, Any]) -> None:
    """Trade until the tape ends, then write down what the strategy sees."""
    with contextlib.closing(ControlClient(asked["control"])) as control:
        clock = ManualClock(int(control.get("/state")["now_ns"]))
        store = IBKRStore(
            settings=SessionSettings(base_url=asked["url"], paced=False, reconnect_first_s=0.01),
            clock=clock,
            bar_grace_s=0.0,
            journal=Path(asked["journal"]),
        )
        cerebro = bt.Cerebro(quicknotify=True, stdstats=False)
        data = store.getdata(dataname="AAPL", timeframe=bt.TimeFrame.Minutes, backfill_start=False)
        cerebro.adddata(data, name="AAPL")
        broker = store.getbroker()
        cerebro.setbroker(broker)
        cerebro.addstrategy(Trader, control=control, actions=SCRIPTS[asked["script"]])
        store.set_idle_hook(LockstepMarket(control, store, clock))
        with store:
            (strategy,) = cerebro.run()
        Path(asked["view"]).write_text(json.dumps(view(strategy, broker)))


def view(strategy: Trader, broker: Any) -> dict[str, Any]:
    """The account as the strategy and its broker have it."""
    executions = {execution.execution_id for _, execution in broker.executions}
    resumed = strategy.resumed
    executions |= {execution.execution_id for execution in resumed.executions}
    return {
        "positions": {
            str(data.contract.conid): position.size
            for data, position in broker.positions.items()
            if position.size
        },
        "cash": broker.getcash(),
        "open": {
            broker.client_order_id(order): {
                "order_id": broker.order_id(order),
                "size": abs(order.created.size),
                "price": order.created.price,
                "filled": abs(order.executed.size),
            }
            for order in broker.get_orders_open()
        },
        "executions": sorted(executions),
        "problems": broker.problems,
        "refusals": strategy.refusals,
        "differences": [one.text for one in resumed.differences],
        "external": [report.order_id for report in broker.external_orders],
    }


def lead(asked: dict[str, Any]) -> int:
    """One life, in a fork; how it ended: a signal as a negative number."""
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        return os.waitstatus_to_exitcode(status)
    try:
        if asked["largest"]:
            resource.setrlimit(resource.RLIMIT_FSIZE, (asked["largest"], resource.RLIM_INFINITY))
        os.environ["BT_IBKR_KILL_AT"] = str(asked["kill_at"])
        os.environ["BT_IBKR_STEPS_LOG"] = asked.get("log", "")
        steps.arm(steps._from_environment())
        live(asked)
    except BtIbkrError as problem:
        Path(asked["view"]).write_text(json.dumps({"error": str(problem)}))
        os._exit(2)
    except BaseException:  # noqa: BLE001 - it ends here, whatever it was
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def main() -> None:
    logging.disable(logging.CRITICAL)
    for line in sys.stdin:
        print(json.dumps({"code": lead(json.loads(line))}), flush=True)


if __name__ == "__main__":
    main()
