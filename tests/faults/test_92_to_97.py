"""Faults 92 to 97: the disk, the record, a second program, a slow or broken strategy, and signals."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from bt_ibkr.clock import SystemClock
from bt_ibkr.emulator.settings import EmulatorSettings
from bt_ibkr.emulator.testing import EmulatorThread
from bt_ibkr.journal import Journal, journal_path
from bt_ibkr.journal.pages import wal_size
from bt_ibkr.journal.schema import PAGE_SIZE
from bt_ibkr.model.intent import OrderState
from bt_ibkr.model.trading import Trading
from tests.cli.conftest import Started
from tests.faults import restarts
from tests.faults.lives import Mortals, Place
from tests.faults.restarts import again
from tests.faults.scene import AAPL, ACCOUNT, Scene, Script, far, settle

if TYPE_CHECKING:
    from tests.conftest import Bench, Tape

MakeScene = Callable[..., Scene]
#: A step that no life reaches: its steps are written down.
NEVER = 1_000_000


@pytest.fixture
def scene(bench: Bench, tape: type[Tape], tmp_path: Path) -> MakeScene:
    return lambda **given: Scene(
        bench, tape, given.pop("journal", None) or tmp_path / "journal.sqlite", **given
    )


@pytest.fixture(scope="module")
def mortals() -> Iterator[Mortals]:
    made = Mortals()
    yield made
    made.close()


@pytest.fixture
def place(bench: Bench, tape: type[Tape], tmp_path: Path) -> Iterator[Callable[[int], Place]]:
    """A market of a quarter of an hour, with an emulator of its own for each number."""
    prices = tape()
    for second in range(0, 900, 10):
        prices.quote(second, 99.99, 100.01, 500).trade(second + 1, 100.0)
    market = bench.market(AAPL=prices)
    with contextlib.ExitStack() as stack:

        def make(number: int) -> Place:
            settings = EmulatorSettings(speed="lockstep", conflation_ms=0, pacing="off", market=market)
            return Place(stack.enter_context(EmulatorThread(settings)), tmp_path / f"place-{number}")

        yield make


# -- 92: the disk --------------------------------------------------------------------------------------


class SmallDisk:
    """A file system of a few megabytes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"

    def fill(self, leaving: int) -> None:
        """Leave so many bytes."""
        free = psutil.disk_usage(str(self.folder)).free
        with self._ballast.open("ab") as file:
            file.write(bytes(max(0, free - leaving)))

    def fill_up(self) -> None:
        with contextlib.suppress(OSError), self._ballast.open("ab", buffering=0) as file:
            while file.write(bytes(4096)):
                pass

    def empty(self) -> None:
        self._ballast.unlink()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=10m", "none", str(folder)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as problem:
        pytest.skip(f"a small disk cannot be mounted here: {problem}")
    try:
        yield SmallDisk(folder)
    finally:
        subprocess.run(["umount", str(folder)], check=True, capture_output=True)


def test_fault_92_no_room_for_an_order(scene: MakeScene, disk: SmallDisk) -> None:
    """Refused, with the reason, and nothing is sent; with room again the next one leaves, without a restart."""
    stage = scene(journal=disk.folder / "journal.sqlite")

    def script(strategy: Any) -> Script:
        disk.fill(leaving=1_000_000)
        order = strategy.buy(size=10)
        yield
        assert strategy.statuses(order) == ["Submitted", "Rejected"]
        assert "bytes left" in order.info.reason
        assert stage.messages("order-failed")
        assert stage.requests("place") == []
        disk.empty()
        order = strategy.buy(size=10)
        yield lambda: not order.alive()

    run = stage.play(script)
    assert stage.position == 10
    restarts.agree(stage, run)


def test_fault_92_no_room_for_what_becomes_of_an_order(scene: MakeScene, disk: SmallDisk) -> None:
    """Not a byte is left when it fills: the strategy is told what happened, somebody that it is not on record; with
    room again it is written with the next."""
    stage = scene(journal=disk.folder / "journal.sqlite")

    def script(strategy: Any) -> Script:
        order = far(strategy, size=100)
        yield
        disk.fill_up()
        filled = 0
        while not stage.messages("journal-failed"):
            # Pages that the log has already take some more.
            stage.fill(order, 1)
            filled += 1
            yield lambda: order.executed.size == filled  # noqa: B023
            assert filled < 90
        assert stage.position == filled
        refused = strategy.buy(size=10)
        yield
        assert strategy.statuses(refused)[-1] == "Rejected"
        disk.empty()
        stage.fill(order, 100 - filled)
        yield lambda: not order.alive()

    run = stage.play(script)
    assert stage.position == 100
    restarts.agree(stage, run)


def test_fault_92_files_that_cannot_grow(place: Callable[[int], Place], mortals: Mortals) -> None:
    """The same by a limit that needs no disk: orders are refused, none leaves that is not on record, and the next
    life reads what became of the others."""
    here = place(0)
    assert here.life(mortals, script="many", largest=200_000) == 0
    refusals = here.view()["refusals"]
    assert refusals
    assert all("journal" in one for one in refusals)
    sent = here.emulator.ledger()["orders"]
    assert 0 < len(sent) < 14
    assert here.life(mortals, script="one") == 0
    here.check()


# -- 93: the last record -------------------------------------------------------------------------------


def log_of(path: Path) -> Path:
    """A journal's newest entries."""
    return path.with_name(path.name + "-wal")


def end_of(path: Path) -> int:
    """Where the newest entry of a journal's log ends; behind it may stand what is left of earlier ones."""
    return 32 + wal_size(log_of(path)).frames * (PAGE_SIZE + 24)


def cut(path: Path, end: int = 0) -> None:
    """Take the end off the newest entry, or off the one that ends at ``end``, as a power failure may."""
    os.truncate(log_of(path), (end or end_of(path)) - 100)


def epochs(here: Place) -> list[str]:
    """Of the journal's orders: another one after entries were lost."""
    journal = Journal.open(here.journal, clock=SystemClock(), exclusive=False)
    try:
        return [order.key.split(".")[1] for order in journal.orders()]
    finally:
        journal.close()


@pytest.mark.parametrize("step", ["journal.note.committed", "journal.executions.committed"])
def test_fault_93_the_last_record_is_cut(place: Callable[[int], Place], mortals: Mortals, step: str) -> None:
    """That an order stands, or an execution, was the last thing on record: it is found at IBKR again."""
    here = place(0)
    assert here.life(mortals, kill_at=NEVER, script="one") == 0
    number = here.steps().index(step) + 1
    here = place(1)
    assert here.life(mortals, kill_at=number, script="one") == -signal.SIGKILL
    cut(here.journal)
    assert here.life(mortals, script="one") == 0
    here.check()
    assert len(set(epochs(here))) == 2


def test_fault_93_the_intent_is_cut(place: Callable[[int], Place], mortals: Mortals) -> None:
    """An order that left, and of which nothing is on record any more: met as somebody else's, its key is not used
    again, and its position is taken over."""
    here = place(0)
    assert here.life(mortals, kill_at=NEVER, script="one") == 0
    steps = here.steps()
    here = place(1)
    committed = steps.index("journal.intend.committed") + 1
    assert here.life(mortals, kill_at=committed, script="one") == -signal.SIGKILL
    end = end_of(here.journal)
    here = place(2)
    answered = steps.index("desk.post.after.unsent") + 1
    assert here.life(mortals, kill_at=answered, script="one") == -signal.SIGKILL
    cut(here.journal, end)
    (lost,) = here.emulator.ledger()["orders"]
    assert here.life(mortals, script="one") == 0
    ledger = here.emulator.ledger()
    assert set(ledger["by_client_id"].values()) == {1}
    assert len(ledger["by_client_id"]) == 2
    journal = Journal.open(here.journal, clock=SystemClock(), exclusive=False)
    try:
        (order,) = journal.orders()
        assert order.key != lost["client_order_id"]
        assert order.key.split(".")[1] != lost["client_order_id"].split(".")[1]
        assert order.state is OrderState.FILLED
        assert len(journal.executions()) == 2
    finally:
        journal.close()
    assert here.view()["positions"] == {str(AAPL): 2}


# -- 94: a second program ------------------------------------------------------------------------------


def test_fault_94_the_same_journal_twice(scene: MakeScene, mortals: Mortals, tmp_path: Path) -> None:
    """The second is refused, by name of the first, before it can send anything; the first is not disturbed."""
    stage = scene()
    view = tmp_path / "view.json"

    def script(strategy: Any) -> Script:
        first = far(strategy)
        yield
        code = mortals.live(
            url=stage.emulator.url, control=stage.emulator.control, journal=str(stage.journal_path), kill_at=0,
            script="one", largest=0, view=str(view),
        )  # fmt: skip
        assert code == 2
        yield
        strategy.cancel(first)
        yield lambda: not first.alive()

    run = stage.play(script)
    said = view.read_text()
    assert str(psutil.Process().pid) in said
    assert len(stage.requests("place")) == 1
    restarts.agree(stage, run)
    # With the first one gone the journal is free.
    again(stage).journal().close()


# -- 95: a slow strategy -------------------------------------------------------------------------------


def test_fault_95_orders_come_before_bars(scene: MakeScene, at_bar: Any) -> None:
    """While it computes an order fills and the stream breaks: it hears of the order before the next bar."""
    stage = scene()

    def slow(strategy: Any) -> None:
        (order,) = strategy.orders
        stage.fill(order, 4)
        stage.fault("ws_reset")
        stage.fill(order, 6)
        settle(lambda: not stage.read_all() and len(stage.broker._events) > 2)
        assert order.executed.size == 0

    run = stage.bench.run(stage.line, at_bar(far, slow))
    (order,) = run.strategy.orders
    assert run.strategy.statuses(order)[-1] == "Completed 6"
    log = [entry for entry in run.strategy.log if entry[0] in ("bar", "order")]
    bars = [n for n, entry in enumerate(log) if entry[0] == "bar"]
    done = next(n for n, entry in enumerate(log) if entry[0] == "order" and entry[2] == "Completed")
    assert bars[1] < done < bars[2]
    restarts.agree(stage, run)


# -- 96: a broken strategy -----------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["keep", "cancel", "halt", "flatten"])
@pytest.mark.parametrize("where", ["next", "notify_order"])
def test_fault_96_a_strategy_that_raises(scene: MakeScene, at_bar: Any, policy: str, where: str) -> None:
    """The run ends with its exception; orders, positions and trading state are as ``on_error`` says, on record."""
    stage = scene()

    def both(strategy: Any) -> list[Any]:
        return [strategy.buy(size=10), far(strategy)]

    def breaks(*_: Any) -> None:
        raise RuntimeError("broken")

    def on_order(strategy: Any, order: Any) -> None:
        if order.status == order.Completed:
            breaks()

    def never(strategy: Any, order: Any) -> None:
        """Nothing is wrong here."""

    told, actions = (on_order, (both,)) if where == "notify_order" else (never, (both, breaks))
    with pytest.raises(RuntimeError, match="broken"):
        stage.bench.run(stage.line, at_bar(*actions), broker={"on_error": policy}, on_order=told)
    open_orders = [one for one in stage.orders() if one["status"] in restarts.STANDING]
    held = stage.emulator.ledger()["accounts"][ACCOUNT]["positions"]
    size = sum(float(one["quantity"]) for one in held.values())
    assert len(open_orders) == (policy == "keep")
    assert size == (0 if policy == "flatten" else 10)
    journal = stage.journal()
    try:
        halted = journal.trading_state().mode is Trading.HALTED
    finally:
        journal.close()
    assert halted == (policy in ("halt", "flatten"))
    second = again(stage)
    run = second.play(restarts.look_only, broker={"on_resume": "keep"})
    restarts.agree(second, run)


# -- 97: signals ---------------------------------------------------------------------------------------

#: Buys, protects, says so; then it takes its time whatever it is told.
ARMED = """
import time
import backtrader as bt

class Armed(bt.Strategy):
    params = (("linger", 0.0),)
    stopped = False

    def next(self):
        if self.data.current and not getattr(self, "bought", None):
            self.bought = self.buy(size=10)
            self.stop_order = self.sell(size=10, exectype=bt.Order.Stop, price=self.data.close[0] * 0.5)

    def notify_order(self, order):
        states = (self.bought.status, self.stop_order.status)
        if states == (order.Completed, order.Accepted):
            print("armed", flush=True)

    def stop(self):
        print("stopping", flush=True)
        time.sleep(self.p.linger)
"""
#: An end in order takes at most so long, seconds: wide, for a machine that is busy.
BOUND_S = 15.0


@pytest.fixture
def armed(tmp_path: Path) -> Iterator[Callable[..., tuple[EmulatorThread, Started]]]:
    """The command, trading on an emulator, with a position and the order that protects it."""
    with contextlib.ExitStack() as stack:

        def start(*words: str) -> tuple[EmulatorThread, Started]:
            settings = EmulatorSettings(
                speed=60.0, pacing="off", pacing_speed=20.0, conflation_ms=0, synthetic_instruments=("AAPL",)
            )
            emulator = stack.enter_context(EmulatorThread(settings))
            (tmp_path / "armed.py").write_text(ARMED)
            told = ("--mode", "paper", "--gateway", emulator.url, "--data", "AAPL", "--bar", "5s")
            running = Started("run", "armed.py", *told, *words, cwd=tmp_path)
            stack.callback(running.process.kill)
            running.until("armed")
            return emulator, running

        yield start


def on_record(emulator: EmulatorThread) -> None:
    """Both orders are in the journal, which nobody holds, as the exchange has them; the stop stands."""
    journal = Journal.open(journal_path(ACCOUNT), clock=SystemClock())
    try:
        assert journal.repaired is None
        ours = {order.order_id: order for order in journal.orders()}
        executions = {one.execution.execution_id for one in journal.executions()}
    finally:
        journal.close()
    ledger = emulator.ledger()
    assert {str(one["order_id"]) for one in ledger["orders"]} == set(ours)
    assert {one["execution_id"] for one in ledger["executions"]} == executions
    states = {one["order_type"]: ours[str(one["order_id"])].state for one in ledger["orders"]}
    assert states == {"MKT": OrderState.FILLED, "STP": OrderState.WORKING}
    assert len(ledger["requests"]) == 2


def test_fault_97_asked_to_end(armed: Any) -> None:
    """In order, within a bound; by the default policy open orders are kept, and the log is in the file."""
    emulator, running = armed()
    began = time.monotonic()
    running.process.send_signal(signal.SIGTERM)
    ended = running.end(BOUND_S)
    assert time.monotonic() - began < BOUND_S
    assert ended.code == 143, ended.err
    assert "Traceback" not in ended.err
    assert ended.left == []
    log = log_of(journal_path(ACCOUNT))
    assert not log.exists() or not log.stat().st_size
    on_record(emulator)


def test_fault_97_interrupted_twice(armed: Any) -> None:
    """The strategy takes an hour to stop; the second interrupt ends that, and the record is whole."""
    emulator, running = armed("--set", "linger=3600")
    running.process.send_signal(signal.SIGINT)
    running.until("stopping")
    running.process.send_signal(signal.SIGINT)
    ended = running.end(BOUND_S)
    assert ended.code == 130, ended.err
    assert ended.left == []
    on_record(emulator)


def test_fault_97_killed(armed: Any) -> None:
    """Nothing was flushed, and nothing is missing."""
    emulator, running = armed()
    running.process.send_signal(signal.SIGKILL)
    ended = running.end(BOUND_S)
    assert ended.code == -signal.SIGKILL
    assert ended.left == []
    on_record(emulator)
