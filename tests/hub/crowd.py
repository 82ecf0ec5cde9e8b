"""Strategy processes on one hub over tick files, and what must be so of each of them and of all together."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest

from bt_ibkr.clock import SystemClock
from bt_ibkr.config import SessionSettings
from bt_ibkr.emulator.settings import EmulatorSettings
from bt_ibkr.emulator.testing import EmulatorThread
from bt_ibkr.hub.config import HubSettings
from bt_ibkr.hub.thread import HubThread
from bt_ibkr.journal import Journal
from bt_ibkr.risk import RiskLimits
from bt_ibkr.services.datanames import parse_dataname
from tests.hub.digest import Digest
from tests.hub.processes import Process
from tests.hub.strategist import Plan

ACCOUNT = "DU1234567"
CASH = 1e9
PATIENCE_S = 180.0
#: Events of the market between two looks whether everybody has them.
CHUNK = 2000
LOTS = {"IBM": 100, "SPY": 100, "EUR.USD": 100_000}
STEPS = {"IBM": 0.01, "SPY": 0.01, "EUR.USD": 0.00005}
#: As the tick's fields stand in a digest.
_COLUMNS = ("bid", "ask", "bid_size", "ask_size", "last", "last_size")
_MS = 1_000_000
#: What a strategy orders is not judged here.
_LIMITS = RiskLimits(
    allow_no_data=True, duplicate_window_s=None, orders_per_minute=None, price_band_percent=None
)


class Tape:
    """One instrument's file: what must come of it, row by row.

    A tick is one row, with the quote as it stands after it; a row that changes nothing is none. A bar is one trade;
    of a currency pair it is one change of the bid.
    """

    def __init__(self, name: str, frame: pd.DataFrame) -> None:
        self.ticks = Digest()
        self.bars = Digest()
        self._quoted = name == "EUR.USD"
        self._rows = iter(list(frame[["ts", *_COLUMNS]].itertuples(index=False, name=None)))
        self._stands: list[float | None] = [None] * len(_COLUMNS)
        self._bid: float | None = None

    def advance(self, rows: int) -> None:
        """So many rows have happened."""
        for _ in range(rows):
            moment, *values = next(self._rows)
            before = list(self._stands)
            for place, value in enumerate(values):
                if not pd.isna(value):
                    self._stands[place] = float(value)
            traded = 0.0 if pd.isna(values[4]) else float(values[5])
            if self._stands == before and not traded:
                continue
            time_ns = pd.Timestamp(moment).value // _MS * _MS
            self.ticks.take(time_ns, *self._stands, traded)
            bid = self._stands[0]
            if self._quoted and bid is not None and bid != self._bid:
                self._bid = bid
                self.bars.take(time_ns, bid, 0.0)
            elif traded and not self._quoted:
                self.bars.take(time_ns, self._stands[4], traded)


class Day:
    """Tick files of one day, in the order in which an emulator plays them."""

    def __init__(self, files: Mapping[str, Path]) -> None:
        frames = {name: pd.read_parquet(path) for name, path in files.items()}
        self.market = tuple(f"{path}:{name}" for name, path in files.items())
        self.tapes = {name: Tape(name, frame) for name, frame in frames.items()}
        self._names = list(frames)
        times = np.concatenate([frame["ts"].to_numpy() for frame in frames.values()])
        sizes = [len(frame) for frame in frames.values()]
        self._whose = np.repeat(np.arange(len(sizes)), sizes)[np.argsort(times, kind="stable")]
        self.moved = 0

    def __len__(self) -> int:
        return len(self._whose)

    def advance(self, events: int) -> None:
        """So many events of the market have happened."""
        part = self._whose[self.moved : self.moved + events]
        self.moved += events
        for number, count in Counter(part.tolist()).items():
            self.tapes[self._names[number]].advance(count)

    def wanted(self, kind: str) -> dict[str, dict[str, Any]]:
        """What everybody must have of it by now: ``ticks`` or ``bars``."""
        return {name: getattr(tape, kind).told() for name, tape in self.tapes.items()}


class Crowd:
    """The market, the hub and the strategies.

    Args:
        folder: For the socket and the journal.
        files: Tick files, by instrument.
        follow: The instruments of each strategy, by its name.
        every: See ``Plan``.
    """

    def __init__(
        self, folder: Path, files: Mapping[str, Path], follow: Mapping[str, tuple[str, ...]], every: int
    ) -> None:
        self.day = Day(files)
        self.processes: dict[str, Process] = {}
        self.orders = self.executions = 0
        self._follow = follow
        self._every = every
        self._folder = folder
        self._journal = folder / "journal.sqlite"

    @contextlib.contextmanager
    def running(self) -> Iterator[Crowd]:
        market = EmulatorSettings(
            speed="lockstep", conflation_ms=0, questions="none", history_days=1, smd_lifetime_s=0,
            margin="off", cash=CASH, market=self.day.market, pacing="off",
        )  # fmt: skip
        with contextlib.ExitStack() as stack:
            self.emulator = stack.enter_context(EmulatorThread(market))
            hub = HubThread(
                SessionSettings(base_url=self.emulator.url, paced=False),
                HubSettings(endpoint=f"ipc://{self._folder}/hub", beat_s=0.5, dead_s=30.0),
                journal=self._journal,
                risk=_LIMITS,
            )
            self.hub = stack.enter_context(hub)
            for number, (name, instruments) in enumerate(self._follow.items()):
                plan = Plan(
                    endpoint=hub.endpoint,
                    name=name,
                    lots={one: LOTS[one] for one in instruments},
                    steps={one: STEPS[one] for one in instruments},
                    seed=number,
                    every=self._every,
                )
                process = Process("strategist.py", msgspec.json.encode(plan).decode(), patience_s=PATIENCE_S)
                stack.callback(process.kill)
                self.processes[name] = process
            for process in self.processes.values():
                process.until(lambda process=process: process.of("joined") or process.of("refused"))  # type: ignore[misc]
                assert process.of("joined"), process.said
            self._conids = {name: self._conid(name) for name in self.day.tapes}
            yield self

    def _conid(self, name: str) -> int:
        async def find() -> int:
            return (await self.hub.brokerage.resolve(parse_dataname(name))).conid

        return self.hub.loop.call(find())

    def move(self, events: int) -> int:
        """Move the market by so many events, or to its end; how many there were."""
        moved = 0
        while moved < events:
            most = events - moved
            stepped = self.emulator.call(
                lambda s: s.drive.step(until_ns=None, max_events=most, received={})  # noqa: B023
            )
            came = int(str(stepped["events"]))
            moved += came
            if not came and not stepped["order_events"]:
                break
        self.day.advance(moved)
        return moved

    def everybody(self, do: str, kind: str, **asked: Any) -> dict[str, dict[str, Any]]:
        """Ask all, and wait for what each says."""
        before = {name: len(process.of(kind)) for name, process in self.processes.items()}
        for process in self.processes.values():
            process.send(do, **asked)
        for name, process in self.processes.items():
            process.until(lambda process=process, name=name: len(process.of(kind)) > before[name])  # type: ignore[misc]
        return {name: process.of(kind)[-1] for name, process in self.processes.items()}

    def trade(self, events: int) -> None:
        """Everybody trades while the market moves."""
        for process in self.processes.values():
            process.send("trade")
        left = events
        while left > 0:
            moved = self.move(min(CHUNK, left))
            if not moved:
                return
            left -= moved
            self.reach()

    def reach(self) -> dict[str, dict[str, Any]]:
        """Wait until everybody has what there was."""
        counts = {
            kind: {name: told["count"] for name, told in self.day.wanted(kind).items()}
            for kind in ("ticks", "bars")
        }
        return self.everybody("reach", "reached", **counts)

    def rest(self) -> None:
        """Nobody trades, and all that was ordered has come to its end: look at everything."""
        waiting = {name: len(process.of("rested")) for name, process in self.processes.items()}
        for process in self.processes.values():
            process.send("rest")
        latest = time.monotonic() + PATIENCE_S
        for name, process in self.processes.items():
            while len(process.of("rested")) <= waiting[name]:
                assert time.monotonic() < latest, (name, process.said[-5:])
                # An order at the market waits for the next event of its instrument.
                self.move(10)
                process.hear(0.05)
        reports = self.reach()
        self._series(reports)
        self._owners(reports)
        self._books(reports)

    # -- what must be so -----------------------------------------------------------------------------

    def _series(self, reports: Mapping[str, dict[str, Any]]) -> None:
        for kind in ("ticks", "bars"):
            wanted = self.day.wanted(kind)
            for name, instruments in self._follow.items():
                assert reports[name][kind] == {one: wanted[one] for one in instruments}, (name, kind)

    def _owners(self, reports: Mapping[str, dict[str, Any]]) -> None:
        """The emulator's orders, the journal's, and what each strategy was notified of, are the same."""
        ledger = self.emulator.ledger()
        assert set(ledger["by_client_id"].values()) <= {1}
        theirs = {str(one["order_id"]): one for one in ledger["orders"]}
        executed: dict[str, list[dict[str, Any]]] = {}
        for one in ledger["executions"]:
            executed.setdefault(str(one["order_id"]), []).append(one)
        journal = Journal.open(self._journal, clock=SystemClock(), exclusive=False)
        try:
            keys = {one.order_id: one.key for one in journal.orders() if one.order_id is not None}
            owned = Counter((one.execution.execution_id, one.key) for one in journal.executions())
        finally:
            journal.close()
        assert set(keys) == set(theirs)
        assert owned == Counter(
            (str(one["execution_id"]), keys[order_id]) for order_id, all_ in executed.items() for one in all_
        )
        told_ids: list[str] = []
        for name, report in reports.items():
            assert not report["strange"], (name, report["strange"])
            assert not report["problems"], (name, report["problems"])
            for order in report["orders"]:
                order_id = order["id"]
                if order_id is None:
                    # Cancelled while it waited for its turn at the hub: it never left.
                    assert (order["status"], order["executed"]) == ("Rejected", [])
                    continue
                told_ids.append(order_id)
                there = theirs[order_id]
                assert keys[order_id] == there["client_order_id"]
                assert keys[order_id].partition(".")[0] == name
                assert int(there["conid"]) == self._conids[order["of"]]
                sign = -1 if str(there["side"]).startswith("S") else 1
                assert sorted(order["executed"]) == sorted(
                    sign * float(one["quantity"]) for one in executed.get(order_id, [])
                )
            mine = [
                str(one["execution_id"])
                for order in report["orders"]
                for one in executed.get(order["id"], [])
            ]
            assert Counter(report["executions"]) == Counter(mine), name
        assert Counter(told_ids) == Counter(theirs.keys())
        self.orders, self.executions = len(theirs), len(ledger["executions"])

    def _books(self, reports: Mapping[str, dict[str, Any]]) -> None:
        """Each book has what its strategy did; together they are the account."""
        account = self.emulator.ledger()["accounts"][ACCOUNT]
        books = {book.name: {one.conid: one for one in book.holdings} for book in self.hub.status().books}
        for name, report in reports.items():
            done = dict.fromkeys(self._follow[name], 0.0)
            for order in report["orders"]:
                done[order["of"]] += sum(order["executed"])
            assert report["positions"] == done
            held = books.get(name, {})
            for one, quantity in done.items():
                conid = self._conids[one]
                assert (float(held[conid].quantity) if conid in held else 0.0) == quantity, (name, one)
        total: Counter[int] = Counter()
        flow = 0.0
        for book in books.values():
            for conid, holding in book.items():
                total[conid] += int(holding.quantity)
                flow += holding.flow
        assert "unallocated" not in books or not any(one.quantity for one in books["unallocated"].values())
        held_there = {
            int(conid): int(Decimal(str(one["quantity"]))) for conid, one in account["positions"].items()
        }
        assert {conid: size for conid, size in total.items() if size} == {
            conid: size for conid, size in held_there.items() if size
        }
        assert float(account["cash"]["USD"]) == pytest.approx(CASH + flow, abs=0.01)

    def end(self) -> None:
        """All leave in order."""
        for name, process in self.processes.items():
            assert process.end() == 0, (name, process.said[-5:])
        assert {peer.state for peer in self.hub.status().peers} == {"left"}
