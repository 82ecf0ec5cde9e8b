"""A strategy's process at a hub, whole: cerebro, store, tick feeds and broker; told by lines of JSON what to do.

Started as ``python strategist.py PLAN`` with a ``Plan`` as JSON. Each line of its standard input is a JSON object
that asks for something; answers and what happens are lines on its standard output. It ends when its standard input
does.
"""

from __future__ import annotations

import json
import queue
import random
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import backtrader as bt
import msgspec

from bt_ibkr.app.driving import FollowingClock
from bt_ibkr.config import SessionSettings
from bt_ibkr.connection.interface import GapReported, SessionNotice
from bt_ibkr.errors import BtIbkrError
from bt_ibkr.feeds.times import epoch_ns
from bt_ibkr.hub.joining import HubAddress
from bt_ibkr.store import IBKRStore
from tests.hub.digest import Digest, Quoted

NS_PER_MS = 1_000_000


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What a strategy is to be.

    Attributes:
        lots, steps: Units of its smallest order and the price step, by instrument: those that it follows.
        seed: Of its decisions.
        every: It decides once in so many bars, while it trades.
        seconds: Length of its bars; 0 for tick by tick.
    """

    endpoint: str
    name: str
    lots: dict[str, int]
    steps: dict[str, float]
    seed: int = 0
    every: int = 100
    seconds: int = 0


def say(kind: str, **values: object) -> None:
    print(json.dumps({"kind": kind} | values), flush=True)


class Strategist(bt.Strategy):  # type: ignore[misc]
    """Places, changes its mind, and writes down what it is told."""

    params = (("plan", None), ("process", None))

    def __init__(self) -> None:
        self.random = random.Random(self.p.plan.seed)
        self.trading = False
        self.bars = {data._name: Digest() for data in self.datas}
        self.rows: dict[str, list[tuple[float, ...]]] = {data._name: [] for data in self.datas}
        self.ticks: dict[str, Quoted] = {}
        self.seen = dict.fromkeys(self.bars, 0)
        self.turns = 0
        self.orders: list[Any] = []
        #: By order: the units of executions that it was notified of, signed, in their order.
        self.executed: dict[int, list[float]] = {}
        self.not_mine: list[int] = []

    def start(self) -> None:
        for data in self.datas:
            self.ticks[data._name] = Quoted(arrivals=True)
            data._ibkr.connection.subscribe_ticks(data.contract, self.ticks[data._name])
        self.p.process.strategy = self
        say("joined")

    def prenext(self) -> None:
        self.next()

    def next(self) -> None:
        for data in self.datas:
            if len(data) > self.seen[data._name]:
                self.seen[data._name] = len(data)
                time_ns = round(epoch_ns(data.datetime[0]) / NS_PER_MS) * NS_PER_MS
                self.bars[data._name].take(time_ns, data.close[0], data.volume[0])
                if self.p.plan.seconds:
                    lines = (data.open, data.high, data.low, data.close, data.volume)
                    self.rows[data._name].append((time_ns, *(line[0] for line in lines)))
                self.turns += 1
        if self.trading and self.turns >= self.p.plan.every:
            self.turns = 0
            self.act()

    def open_orders(self) -> list[Any]:
        return [order for order in self.orders if order.alive()]

    def act(self) -> None:
        """In at the market or near it, or out of what waits."""
        standing = self.open_orders()
        if standing and self.random.random() < 0.4:
            self.cancel(self.random.choice(standing))
            return
        data = self.random.choice([data for data in self.datas if len(data)])
        name = data._name
        buys = self.random.random() < 0.5
        asked: dict[str, Any] = {"size": self.p.plan.lots[name] * self.random.randint(1, 3)}
        if self.random.random() < 0.4:
            step = self.p.plan.steps[name]
            away = self.random.randint(0, 20) * (-1 if buys else 1)
            asked |= {
                "exectype": bt.Order.Limit,
                "price": round((round(data.close[0] / step) + away) * step, 6),
            }
        self.orders.append((self.buy if buys else self.sell)(data=data, **asked))

    def notify_order(self, order: Any) -> None:
        if not any(one.ref == order.ref for one in self.orders[-50:] + self.open_orders()):
            # While it is being placed it is not among them yet; anybody else's would never be.
            self.not_mine.append(order.ref)
        bits = [bit.size for bit in order.executed.iterpending()]
        self.executed.setdefault(order.ref, []).extend(bits)

    def notify_store(self, msg: Any, *args: Any, **kwargs: Any) -> None:
        event = args[0] if args else None
        if isinstance(event, GapReported):
            say("gap", cause=event.cause, topics=event.topics)
        elif isinstance(event, SessionNotice):
            say(str(msg), text=event.text)
        else:
            say("state", state=str(msg))

    def report(self) -> dict[str, Any]:
        """Everything it knows."""
        known = {order.ref for order in self.orders}
        connection = self.p.process.store.connection
        return {
            "ticks": {name: digest.told() for name, digest in self.ticks.items()},
            "bars": {name: digest.told() for name, digest in self.bars.items()},
            "rows": self.rows,
            "lost": connection._streams.lost,
            "mended": connection._streams.mended,
            "orders": [
                {
                    "id": self.broker.order_id(order),
                    "of": order.data._name,
                    "status": order.getstatusname(),
                    "executed": self.executed.get(order.ref, []),
                }
                for order in self.orders
            ],
            "strange": [ref for ref in self.not_mine if ref not in known],
            "positions": {
                data._name: self.broker.getposition(data).size for data in self.datas
            },
            "executions": [one.execution_id for _, one in self.broker.executions],
            "problems": [str(one) for one in self.broker.problems],
        }  # fmt: skip

    def reached(self, asked: dict[str, Any]) -> bool:
        return all(
            digests[name].count + digests[name].gone >= count
            for kind, digests in (("ticks", self.ticks), ("bars", self.bars))
            for name, count in asked.get(kind, {}).items()
            if name in digests
        )


class Strategy:
    """The process's run, and what it is asked."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.strategy: Strategist | None = None
        self.asked: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        #: What has been asked and can be answered once the condition holds.
        self.waiting: list[tuple[Callable[[Strategist], bool], str]] = []
        address = HubAddress(endpoint=plan.endpoint, name=plan.name)
        # Every tick, however far behind this process falls; bars close as the stream comes by.
        clock = FollowingClock(0)
        self.store = IBKRStore(hub=address, settings=SessionSettings(tick_backlog=0), clock=clock)
        clock.stream_ns = self.store.connection.stream_ns
        self.cerebro = bt.Cerebro(quicknotify=True, stdstats=False)
        for name in plan.lots:
            bars = (bt.TimeFrame.Seconds, plan.seconds) if plan.seconds else (bt.TimeFrame.Ticks, 1)
            data = self.store.getdata(
                dataname=name, timeframe=bars[0], compression=bars[1], backfill_start=False
            )
            self.cerebro.adddata(data, name=name)
        self.cerebro.setbroker(self.store.getbroker())
        self.cerebro.addstrategy(Strategist, plan=plan, process=self)
        self.store.set_idle_hook(self.look)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in sys.stdin:
            self.asked.put(json.loads(line))
            self.store.wake.set()
        self.asked.put({"do": "end"})
        self.store.wake.set()

    def run(self) -> None:
        with self.store:
            self.cerebro.run()
        say("ended")

    def look(self, horizon_ns: int) -> bool:
        """The store's idle hook: on cerebro's thread, whenever there is nothing else to do."""
        if self.strategy is None:
            return False
        while not self.asked.empty():
            self.do(self.strategy, self.asked.get())
        for one in list(self.waiting):
            holds, kind = one
            if holds(self.strategy):
                self.waiting.remove(one)
                say(kind, **self.strategy.report())
        return False

    def do(self, strategy: Strategist, asked: dict[str, Any]) -> None:
        if asked["do"] == "trade":
            strategy.trading = True
        elif asked["do"] == "reach":
            self.waiting.append((lambda strategy: strategy.reached(asked), "reached"))
        elif asked["do"] == "rest":
            strategy.trading = False
            for order in strategy.open_orders():
                strategy.cancel(order)
            self.waiting.append((lambda strategy: not strategy.open_orders(), "rested"))
        elif asked["do"] == "arrivals":
            with Path(asked["path"]).open("wb") as file:
                for digest in strategy.ticks.values():
                    assert digest.arrivals_ns is not None
                    digest.arrivals_ns.tofile(file)
            say("arrivals")
        elif asked["do"] == "end":
            self.cerebro.runstop()
            self.store.interrupt()


def main(plan: str) -> None:
    try:
        Strategy(msgspec.json.decode(plan, type=Plan)).run()
    except BtIbkrError as problem:
        say("refused", problem=str(problem))
        raise


if __name__ == "__main__":
    main(*sys.argv[1:])
