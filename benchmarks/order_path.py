"""From ``buy()`` to bytes on the wire, beside the least that a durable order can take.

::

    python benchmarks/order_path.py [--orders N] [--json]

Ours: a strategy calls ``buy()``; risk controls, journal (a file, WAL, FULL), request gate, HTTP. The floor, by turns
with it: one durable SQLite commit (WAL, FULL) of the same text, then a bare aiohttp POST of the same body. Both go
through one tap, a process of its own that passes bytes on to the emulator and notes when a request has arrived.
docs/benchmarks.md says what is wanted.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import aiohttp
import backtrader as bt
import msgspec

from bt_ibkr.app.control import ControlClient
from bt_ibkr.app.driving import LockstepMarket
from bt_ibkr.app.sim import market_clock
from bt_ibkr.config import SessionSettings
from bt_ibkr.connection.guard import AccountGuard
from bt_ibkr.emulator.settings import EmulatorSettings
from bt_ibkr.store import IBKRStore

ACCOUNT = "DU1234567"
WANTED = 1.5
_WARM = 0.2
_COID = re.compile(rb'"cOID":"([^"]+)"')


def tap(target: tuple[str, int], ready: Any) -> None:
    """Pass bytes on in both directions; answer ``DUMP`` on a second port with the arrivals so far."""
    arrivals: dict[str, int] = {}

    async def serve() -> None:
        async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, watch: bool) -> None:
            held = b""
            while data := await reader.read(65536):
                at = time.perf_counter_ns()
                if watch and (held or b"POST " in data):
                    held = (held + data)[-20_000:]
                    for match in _COID.finditer(held):
                        arrivals.setdefault(match[1].decode(), at)
                    if b"}" in data[-4:]:
                        held = b""
                writer.write(data)
            writer.close()

        async def through(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            up_reader, up_writer = await asyncio.open_connection(*target)
            await asyncio.gather(
                pump(reader, up_writer, True), pump(up_reader, writer, False), return_exceptions=True
            )

        async def dump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(json.dumps(arrivals).encode())
            writer.close()

        front = await asyncio.start_server(through, "127.0.0.1", 0)
        back = await asyncio.start_server(dump, "127.0.0.1", 0)
        print(front.sockets[0].getsockname()[1], back.sockets[0].getsockname()[1], file=ready, flush=True)
        await asyncio.gather(front.serve_forever(), back.serve_forever())

    asyncio.run(serve())


class Buyer(bt.Strategy):  # type: ignore[misc]
    """One limit order far from the market at each bar."""

    params = (("orders", 100),)

    def __init__(self) -> None:
        self.sent: list[tuple[Any, int]] = []

    def next(self) -> None:
        if len(self.sent) >= self.p.orders:
            self.env.runstop()
            return
        price = round(float(self.data.close[0]) * 0.9, 2)
        began = time.perf_counter_ns()
        order = self.buy(size=1, price=price, exectype=bt.Order.Limit)
        self.sent.append((order, began))
        self.cancel(order)


def ours(control_url: str, port: int, orders: int, folder: Path) -> dict[str, int]:
    """When ``buy()`` was called, by ``cOID``."""
    control = ControlClient(control_url)
    clock = market_clock(control.get("/state"))
    store = IBKRStore(
        settings=SessionSettings(base_url=f"http://127.0.0.1:{port}/v1/api", paced=False),
        clock=clock,
        guard=AccountGuard("sim"),
        journal=folder / "ours.sqlite",
    )
    cerebro = bt.Cerebro(quicknotify=True, stdstats=False, exactbars=1)
    with store:
        data = store.getdata(
            dataname="AAPL", backfill_start=False, timeframe=bt.TimeFrame.Seconds, compression=5
        )
        cerebro.adddata(data)
        broker = store.getbroker()
        cerebro.setbroker(broker)
        cerebro.addstrategy(Buyer, orders=orders)
        store.set_idle_hook(LockstepMarket(control, store, clock))
        try:
            (strategy,) = cerebro.run()
        finally:
            # A lockstep market has one driver at a time.
            control.close()
        return {str(broker.client_order_id(order)): began for order, began in strategy.sent}


async def floor(port: int, turn: int, orders: int, folder: Path, pause_s: float) -> dict[str, int]:
    """The same without anything of ours, with the same time between orders: a machine that has slept is slower."""
    database = sqlite3.connect(folder / "floor.sqlite", isolation_level=None)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = FULL")
    database.execute("CREATE TABLE IF NOT EXISTS intents (number INTEGER PRIMARY KEY, intent TEXT)")
    began: dict[str, int] = {}
    url = f"http://127.0.0.1:{port}/v1/api/iserver/account/{ACCOUNT}/orders"
    async with aiohttp.ClientSession() as client:
        for number in range(orders):
            coid = f"floor.{turn}.{number}"
            ticket = {
                "acctId": ACCOUNT, "conid": 265598, "secType": "265598@STK", "cOID": coid, "orderType": "LMT",
                "price": 180.0, "side": "BUY", "tif": "GTC", "quantity": 1, "outsideRTH": False,
            }  # fmt: skip
            began[coid] = time.perf_counter_ns()
            body = json.dumps({"orders": [ticket]}, separators=(",", ":"))
            database.execute("BEGIN IMMEDIATE")
            database.execute("INSERT INTO intents VALUES (NULL, ?)", (body,))
            database.execute("COMMIT")
            async with client.post(
                url, data=body.encode(), headers={"Content-Type": "application/json"}
            ) as reply:
                await reply.read()
            await asyncio.sleep(pause_s)
    database.close()
    return began


def figures(began: dict[str, int], arrived: dict[str, int]) -> dict[str, float]:
    took = [(arrived[coid] - at) / 1000 for coid, at in began.items() if coid in arrived]
    took = took[int(len(took) * _WARM) :]
    return {"median_us": median(took), "p99_us": quantiles(took, n=100)[98]}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--orders", type=int, default=100, help="of each contender in a round")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--tap", nargs=2, metavar=("HOST", "PORT"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.tap:
        tap((asked.tap[0], int(asked.tap[1])), sys.stdout)
        return 0
    settings = EmulatorSettings(
        speed="lockstep", conflation_ms=0, questions="none", synthetic_instruments=("AAPL",), history_days=1
    )
    emulator = subprocess.Popen(
        [sys.executable, "-m", "bt_ibkr.emulator"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    children = [emulator]
    with tempfile.TemporaryDirectory(dir=".") as name:
        try:
            assert emulator.stdin is not None
            assert emulator.stdout is not None
            emulator.stdin.write(msgspec.json.encode(settings) + b"\n")
            emulator.stdin.flush()
            told = json.loads(emulator.stdout.readline())
            host, _, port = told["url"].partition("//")[2].partition("/")[0].partition(":")
            child = subprocess.Popen(
                [sys.executable, __file__, "--tap", host, port], stdout=subprocess.PIPE, text=True
            )
            children.append(child)
            assert child.stdout is not None
            front, back = (int(word) for word in child.stdout.readline().split())
            mine, bare = [], []
            for turn in range(asked.rounds):
                mine.append(ours(told["control"], front, asked.orders, Path(name)))
                moments = sorted(mine[-1].values())
                pause_s = (moments[-1] - moments[0]) / len(moments) / 1e9
                bare.append(asyncio.run(floor(front, turn, asked.orders, Path(name), pause_s)))
            with socket.create_connection(("127.0.0.1", back)) as line:
                arrived = json.loads(line.makefile("rb").read())
        finally:
            for one in children:
                one.kill()
                one.wait()
    rounds = [(figures(one, arrived), figures(other, arrived)) for one, other in zip(mine, bare, strict=True)]
    names = ("median_us", "p99_us")
    result = {
        who: {name: median(pair[place][name] for pair in rounds) for name in names}
        for place, who in enumerate(("bt_ibkr", "floor"))
    }
    # The ratio within a round: what else the machine did disturbed both alike.
    ratios = {name: median(one[name] / other[name] for one, other in rounds) for name in names}
    if asked.json:
        print(json.dumps({"figures": result, "ratios": ratios, "wanted": WANTED, "rounds": len(rounds)}))
    else:
        for who, row in result.items():
            print(f"{who:8} median {row['median_us']:7.0f} us  p99 {row['p99_us']:7.0f} us")
        print("ratio to the floor: " + ", ".join(f"{n} {r:.2f}" for n, r in ratios.items()))
        met = "met" if ratios["median_us"] <= WANTED else "NOT met"
        print(f"wanted: at most {WANTED} of the floor's median: {met}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
