"""Sixteen strategy processes on one hub: all ticks to each, in order; orders to their owners; books that sum."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from bt_ibkr.config import SessionSettings
from bt_ibkr.connection.brokerage import JournalInMemory
from bt_ibkr.emulator.settings import EmulatorSettings
from bt_ibkr.emulator.testing import EmulatorThread
from bt_ibkr.hub.config import HubSettings
from bt_ibkr.hub.thread import HubThread
from bt_ibkr.risk import RiskLimits
from bt_ibkr.services.datanames import parse_dataname
from tests.hub.follower import Digest
from tests.hub.processes import Process

ACCOUNT = "DU1234567"
PATIENCE_S = 120.0


class Crowd(NamedTuple):
    """The market, the hub, what a subscriber inside the hub was given, and the strategies."""

    emulator: EmulatorThread
    hub: HubThread
    reference: dict[str, Digest]
    processes: dict[str, Process]


StartCrowd = Callable[..., Crowd]


@pytest.fixture
def crowd(tmp_path: Path) -> Iterator[StartCrowd]:
    ends: list[Callable[[], Any]] = []

    def start(count: int, instruments: tuple[str, ...], **market: Any) -> Crowd:
        emulator = EmulatorThread(
            EmulatorSettings(
                speed="lockstep", conflation_ms=0, questions="none", history_days=1, smd_lifetime_s=0,
                regular_hours=False, **market,
            )
        )  # fmt: skip
        emulator.__enter__()
        ends.append(lambda: emulator.__exit__(None, None, None))
        hub = HubThread(
            SessionSettings(base_url=emulator.url, paced=False),
            HubSettings(
                endpoint=f"ipc://{tmp_path}/hub", ring=1_000_000, queue=100_000, beat_s=0.5, dead_s=20.0
            ),
            journal=JournalInMemory("crowd"),
            risk=RiskLimits(allow_no_data=True, duplicate_window_s=None),
        )
        ends.append(hub.close)
        reference = {name: Digest() for name in instruments}

        async def follow() -> None:
            for name, sink in reference.items():
                contract = await hub.brokerage.resolve(parse_dataname(name))
                await hub.brokerage.subscribe_ticks(contract, sink, frozenset())

        hub.loop.call(follow(), 30)
        processes = {}
        for number in range(count):
            name = f"strategy_{number}"
            processes[name] = Process(
                "follower.py", hub.endpoint, name, "", *instruments, patience_s=PATIENCE_S
            )
            ends.append(processes[name].kill)
        for process in processes.values():
            process.until(lambda process=process: process.of("joined") or process.of("refused"))  # type: ignore[misc]
            assert process.of("joined"), process.said
        return Crowd(emulator, hub, reference, processes)

    yield start
    for end in reversed(ends):
        end()


def until(wanted: Callable[[], Any], what: Any) -> None:
    latest = time.monotonic() + PATIENCE_S
    while not wanted():
        assert time.monotonic() < latest, what() if callable(what) else what
        time.sleep(0.02)


def move(crowd: Crowd, events: int) -> int:
    """Move the market, in steps that leave others on this machine their turns; events that there were."""
    moved = 0
    while moved < events:
        most = min(100, events - moved)
        stepped = crowd.emulator.call(lambda s: s.drive.step(until_ns=None, max_events=most, received={}))  # noqa: B023
        came = int(str(stepped["events"]))
        if not came:
            break
        moved += came
    return moved


def positions(crowd: Crowd) -> dict[int, Decimal]:
    held = crowd.emulator.ledger()["accounts"][ACCOUNT]["positions"]
    return {
        int(conid): Decimal(str(one["quantity"]))
        for conid, one in held.items()
        if Decimal(str(one["quantity"]))
    }


def at_rest(crowd: Crowd, placed: dict[str, list[tuple[str, str, Decimal]]]) -> None:
    """All orders have executed: to their owners, and in the books, which sum to the account."""
    conids = {name: crowd.hub.loop.call(_conid(crowd.hub, name)) for name in crowd.reference}

    def done(name: str) -> bool:
        wanted = sum((abs(quantity) for _, _, quantity in placed[name]), Decimal(0))
        told = sum((Decimal(line["quantity"]) for line in crowd.processes[name].of("execution")), Decimal(0))
        return told == wanted

    def all_done() -> bool:
        if all(done(name) for name in placed):
            return True
        move(crowd, 5)
        return False

    until(all_done, lambda: [(name, crowd.processes[name].said[-6:]) for name in placed if not done(name)])
    for name, orders in placed.items():
        process = crowd.processes[name]
        keys = {key for key, _, _ in orders}
        assert process.of("failed") == []
        assert {line["key"] for line in process.of("execution")} == keys
        ids = [line["id"] for line in process.of("execution")]
        assert len(ids) == len(set(ids))
    books = {
        book.name: {one.conid: one.quantity for one in book.holdings} for book in crowd.hub.status().books
    }
    total: dict[int, Decimal] = {}
    for held in books.values():
        for conid, quantity in held.items():
            total[conid] = total.get(conid, Decimal(0)) + quantity
    assert {conid: quantity for conid, quantity in total.items() if quantity} == positions(crowd)
    for name, orders in placed.items():
        for of, conid in conids.items():
            wanted = sum((quantity for _, one, quantity in orders if one == of), Decimal(0))
            assert books.get(name, {}).get(conid, Decimal(0)) == wanted, (name, of)


async def _conid(hub: HubThread, name: str) -> int:
    return (await hub.brokerage.resolve(parse_dataname(name))).conid


def trade(crowd: Crowd, chance: random.Random, rounds: int, events: int, lots: dict[str, int]) -> None:
    """In each round everybody places an order, the market moves, and all comes to rest."""
    placed: dict[str, list[tuple[str, str, Decimal]]] = {name: [] for name in crowd.processes}
    for _ in range(rounds):
        asked = {}
        for name, process in crowd.processes.items():
            of = chance.choice(sorted(lots))
            side = chance.choice(("BUY", "SELL"))
            quantity = lots[of] * chance.randrange(1, 4)
            asked[name] = (of, Decimal(quantity if side == "BUY" else -quantity), len(process.of("asked")))
            process.send("place", of=of, side=side, quantity=quantity)
        for name, (of, signed, before) in asked.items():
            process = crowd.processes[name]
            process.until(lambda process=process, before=before: len(process.of("asked")) > before)  # type: ignore[misc]
            placed[name].append((process.of("asked")[before]["key"], of, signed))
        move(crowd, events)
        at_rest(crowd, placed)


def all_ticks(crowd: Crowd) -> None:
    """Everybody has what a subscriber inside of the hub has, tick by tick."""
    wanted = {name: sink.told() for name, sink in crowd.reference.items()}
    assert all(one["count"] > 10 and not one["disorder"] for one in wanted.values()), wanted
    for process in crowd.processes.values():
        until(partial(_has, process, wanted), partial(process.of, "report"))


def _has(process: Process, wanted: dict[str, Any]) -> bool:
    return bool(process.ask("report", "report")["ticks"] == wanted)


def test_four_strategies(crowd: StartCrowd) -> None:
    made = crowd(4, ("AAPL", "MSFT"), synthetic_instruments=("AAPL", "MSFT"))
    trade(made, random.Random(3), 3, 120, {"AAPL": 10, "MSFT": 5})
    all_ticks(made)


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    "files",
    [
        {"IBM": "ticks_IBM_2013-10-07.parquet", "SPY": "ticks_SPY_2013-10-07.parquet"},
        # Seven months later: a market of its own.
        {"EUR.USD": "ticks_EURUSD_2014-05-06.parquet"},
    ],
    ids=["IBM and SPY", "EUR.USD"],
)
def test_sixteen_strategies(crowd: StartCrowd, files: dict[str, str]) -> None:
    data = Path(__file__).parents[2].parent / "shared" / "data"
    if not data.is_dir():
        pytest.skip(f"there is no market data in {data}")
    market = tuple(f"{data / file}:{name}" for name, file in files.items())
    made = crowd(16, tuple(files), market=market, cash=1e9)
    lots = {name: 100_000 if name == "EUR.USD" else 100 for name in files}
    trade(made, random.Random(16), 6, 600, lots)
    while move(made, 2000):
        pass
    all_ticks(made)
