"""What an order costs in the journal: ``intend()`` of one order beside the least a durable SQLite commit can be.

    python benchmarks/journal_commit.py [FOLDER]

Both write to files in the same folder (of a disk, not of memory), by turns, so that a busy disk disturbs both alike.
"""

from __future__ import annotations

import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable
from decimal import Decimal
from functools import partial
from pathlib import Path
from statistics import median, quantiles

from bt_ibkr.clock import SystemClock
from bt_ibkr.journal import Journal
from bt_ibkr.journal.tables import encode
from bt_ibkr.model.intent import OrderIntent, make_key
from bt_ibkr.model.order import OrderTicket, OrderType, Side

ROUNDS = 20
COMMITS = 100


def intent(journal: Journal, number: int) -> OrderIntent:
    key = make_key("benchmark", journal.epoch, number)
    ticket = OrderTicket(
        account="DU1234567",
        contract_id=265598,
        side=Side.BUY,
        order_type=OrderType.LIMIT,
        quantity=Decimal(10),
        limit_price=187.25,
        client_order_id=key,
    )
    return OrderIntent(key=key, strategy="benchmark", ticket=ticket)


def timed(act: Callable[[], object]) -> float:
    start = time.perf_counter_ns()
    act()
    return (time.perf_counter_ns() - start) / 1000


def main(folder: Path) -> None:
    journal = Journal.open(folder / "journal", clock=SystemClock())
    bare = sqlite3.connect(folder / "bare", isolation_level=None)
    bare.execute("PRAGMA journal_mode = WAL")
    bare.execute("PRAGMA synchronous = FULL")
    bare.execute("CREATE TABLE intents (number INTEGER PRIMARY KEY, intent TEXT)")

    def commit(body: str) -> None:
        bare.execute("BEGIN IMMEDIATE")
        bare.execute("INSERT INTO intents VALUES (NULL, ?)", (body,))
        bare.execute("COMMIT")

    ours: list[float] = []
    floor: list[float] = []
    ratios = []
    number = 0
    for turn in range(ROUNDS + 1):
        mine, least = [], []
        for _ in range(COMMITS):
            number += 1
            order = intent(journal, number)
            body = encode(order)
            least.append(timed(partial(commit, body)))
            mine.append(timed(partial(journal.intend, [order])))
        # The first round is for the caches.
        if turn:
            ours += mine
            floor += least
            ratios.append(median(mine) / median(least))
    journal.close()
    bare.close()
    print(f"bare commit  {median(floor):7.0f} µs median {quantiles(floor, n=100)[98]:7.0f} µs p99")
    print(f"intend       {median(ours):7.0f} µs median {quantiles(ours, n=100)[98]:7.0f} µs p99")
    print(f"ratio        {median(ratios):7.2f}    (median of {ROUNDS} rounds' ratios; wanted: at most 1.3)")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else None) as name:
        main(Path(name))
