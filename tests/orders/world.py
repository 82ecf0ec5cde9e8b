"""An account in the emulator, and programs that trade in it, one after another, on one journal.

A ``Program`` is a whole run: store, session, order desk, feed, broker and cerebro, in a thread of its own. What it is
told to do is done on cerebro's thread, between two cycles, as a strategy would do it. Between two acts the world may
be brought to *rest*: everything asked is answered, everything sent is read. At rest all who keep books must agree.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from decimal import Decimal
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import backtrader as bt
import pytest

from bt_ibkr.clock import NS_PER_S, ManualClock
from bt_ibkr.config import SessionSettings
from bt_ibkr.desk import changes, desk
from bt_ibkr.emulator.settings import EmulatorSettings
from bt_ibkr.emulator.testing import EmulatorThread
from bt_ibkr.journal import Journal
from bt_ibkr.model.intent import UNPROVEN, OrderState
from bt_ibkr.services.questions import QuestionPolicy
from bt_ibkr.store import IBKRStore

T = TypeVar("T")
ACCOUNT = "DU1234567"
AAPL = 265598
#: Wall seconds after which what should have come to rest never will.
PATIENCE_S = 6.0
#: The name of all programs in the journal.
NAME = "machine"
#: Statuses in which the emulator's orders may still execute.
STANDING = frozenset({"PendingSubmit", "PreSubmitted", "Submitted", "Inactive", "PendingCancel"})
_STATES = {
    "Filled": OrderState.FILLED,
    "Cancelled": OrderState.CANCELLED,
    "Rejected": OrderState.REJECTED,
}


class Died(BaseException):
    """The program ends here, as if it had been killed: nothing is waited for, nothing is tidied up."""


class Trader(bt.Strategy):  # type: ignore[misc]
    """Trades by what it is told, and keeps what a strategy could know of its orders."""

    def __init__(self) -> None:
        #: By order: the last status, and the size of all new executions, as notified.
        self.status: dict[int, int] = {}
        self.executed: dict[int, float] = {}
        self.resumed: Any = None
        self.messages: list[Any] = []

    def notify_order(self, order: Any) -> None:
        self.status[order.ref] = order.status
        new = sum(bit.size for bit in order.executed.iterpending())
        self.executed[order.ref] = self.executed.get(order.ref, 0.0) + new

    def notify_store(self, msg: Any, *args: Any, **kwargs: Any) -> None:
        if msg is Died:
            raise Died
        self.messages.append((msg, args, kwargs))

    def notify_resume(self, resumed: Any) -> None:
        self.resumed = resumed


class Program:
    """One run, from its start to its end.

    Args:
        world: Where it trades.
        broker: Parameters of the broker.
    """

    def __init__(self, world: World, **broker: Any) -> None:
        self._world = world
        self._acts: queue.SimpleQueue[tuple[Callable[[Any], Any], Future[Any]]] = queue.SimpleQueue()
        self.clock = ManualClock(world.now_ns)
        self.store = IBKRStore(
            settings=SessionSettings(
                base_url=world.emulator.url,
                paced=False,
                reconnect_first_s=0.01,
                reconnect_longest_s=0.05,
                request_timeout_s=5.0,
            ),
            clock=self.clock,
            bar_grace_s=0.0,
            journal=world.journal,
            questions=QuestionPolicy(decline=frozenset({"o2137"})),
        )
        self.cerebro = bt.Cerebro(quicknotify=True, stdstats=False)
        for name in world.symbols:
            data = self.store.getdata(
                dataname=name, timeframe=bt.TimeFrame.Seconds, compression=5, backfill_start=False
            )
            self.cerebro.adddata(data, name=name)
        self.broker = self.store.getbroker(**({"name": NAME, "on_resume": "keep"} | broker))
        self.cerebro.setbroker(self.broker)
        self.cerebro.addstrategy(Trader)
        self.store.set_idle_hook(self._hook)
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="cerebro", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            with self.store:
                self.cerebro.run()
        except Died:
            pass
        except BaseException as problem:  # noqa: BLE001 - raised by whoever waits for the program
            self.error = problem

    def _hook(self, horizon_ns: int) -> bool:
        try:
            act, result = self._acts.get_nowait()
        except queue.Empty:
            return False
        try:
            result.set_result(act(self.cerebro.runningstrats[0]))
        except Died:
            result.set_result(None)
            raise
        except Exception as problem:  # noqa: BLE001 - raised by whoever asked for it
            result.set_exception(problem)
        return True

    def do(self, act: Callable[[Any], T]) -> T:
        """The result of ``act(strategy)``, done on cerebro's thread as soon as it has nothing else to do."""
        result: Future[T] = Future()
        self._acts.put((act, result))
        self.store.wake.set()
        latest = time.monotonic() + PATIENCE_S
        while True:
            with contextlib.suppress(TimeoutError):
                return result.result(0.05)
            if not self._thread.is_alive() and not result.done():
                raise AssertionError(f"the program has ended: {self.error!r}") from self.error
            assert time.monotonic() < latest, f"the program does not come to rest: {self.unrest()}"

    def unrest(self) -> str:
        """What is under way, in words; empty at rest."""
        connection: Any = self.store.connection
        trading = connection._desk
        progress = connection.progress()
        found = []
        if not progress.port:
            found.append("no stream")
        if trading is None or not trading._ready.is_set():
            found.append("the desk is not ready")
        else:
            lost = [one for one in trading.registry if one.state in UNPROVEN]
            if any(self._placed(one) or not self._told_unknown(one) for one in lost):
                found += [f"{one.key} {one.state}" for one in lost]
            if not lost:
                found += [f"task {task.get_coro()}" for task in list(trading._orders._tasks)]
        if connection.in_flight():
            found.append(f"{connection.in_flight()} commands")
        for one in self._world.emulator.do("state")["connections"]:
            if one["port"] == progress.port and one["frames"] > progress.frames:
                found.append(f"frames {progress.frames} of {one['frames']}")
        return ", ".join(found)

    def _placed(self, one: Any) -> bool:
        """Whether the emulator has the order (a child: its parent) of which is not known whether it has."""
        made = self._world.emulator.ledger()["by_client_id"]
        return bool({one.key, one.intent.parent_key} & made.keys())

    def _told_unknown(self, one: Any) -> bool:
        """What never arrived stays unknown for good: nothing proves it, and the strategy was told so."""
        working = self.broker._records.find(one.key)
        return working is not None and bool(working.unknown)

    def rest(self) -> None:
        """Wait until nothing is under way."""
        latest = time.monotonic() + PATIENCE_S
        while True:
            # Rest is looked at from inside, and before and after: what came between would have woken it.
            if self.do(lambda _: not self.unrest() and self.store.at_rest() and not self.unrest()):
                return
            assert time.monotonic() < latest, f"no rest: {self.unrest()}"
            time.sleep(0.002)

    def die(self, act: Callable[[Any], Any] = lambda strategy: None) -> None:
        """Do something, and be gone before anything came of it."""

        def last(strategy: Any) -> None:
            act(strategy)
            raise Died

        self.do(last)
        self.join()

    def kill(self) -> None:
        """Be gone, whatever is under way."""
        self.store.put_notification(Died)
        self.store.wake.set()
        self.join()

    def stop(self) -> None:
        """End as a run ends that is told to."""
        self.do(lambda strategy: strategy.env.runstop())
        self.store.interrupt()
        self.join()

    def join(self) -> None:
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive(), "the program does not end"
        if self.error is not None:
            raise self.error

    @property
    def strategy(self) -> Any:
        return self.cerebro.runningstrats[0]

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()


class World:
    """An emulator whose market moves on command, and the program of the moment.

    Args:
        folder: For the journal.
        market: Tick files, as ``EmulatorSettings`` takes them.
        symbols: Of the feeds.
        settings: More of the emulator's.
    """

    def __init__(
        self, folder: Path, market: tuple[str, ...], symbols: tuple[str, ...] = ("AAPL",), **settings: Any
    ) -> None:
        self.symbols = symbols
        self.journal = folder / "journal.sqlite"
        chosen: dict[str, Any] = {
            "speed": "lockstep",
            "conflation_ms": 0,
            "pacing": "off",
            "smd_lifetime_s": 0.0,
            "order_status_delay_s": 0.0,
            "history_days": 0,
            "questions": "none",
        } | settings
        self.emulator = EmulatorThread(EmulatorSettings(market=market, **chosen))
        self.program: Program
        self.over = False
        #: Something that the stream was to tell is lost: only asking brings it.
        self.blind = False

    def __enter__(self) -> Self:
        self.emulator.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        program = getattr(self, "program", None)
        try:
            if program is not None and program.alive:
                with contextlib.suppress(Exception):
                    program.die()
        finally:
            self.emulator.__exit__(kind, error, trace)

    @property
    def now_ns(self) -> int:
        return int(self.emulator.do("state")["now_ns"])

    # -- what happens ------------------------------------------------------------------------------

    def start(self, **broker: Any) -> None:
        """A program begins; it can trade when this returns."""
        self.program = Program(self, **broker)
        self.rest()
        while not self.program.do(lambda strategy: all(len(data) for data in strategy.datas)):
            assert not self.over, "the tape is over"
            self.advance(5)

    def advance(self, seconds: float, *, attentive: bool = True) -> None:
        """The market goes on; ``attentive``: the program takes in each change of an order before the next."""
        until_ns = self.now_ns + int(seconds * NS_PER_S)
        while not self.over:
            answer = self.emulator.do("step", until_ns=until_ns, max_events=None, received={})
            self.program.clock.set_ns(answer["now_ns"])
            self.program.store.wake.set()
            self.over = answer["done"]
            if attentive:
                self.program.rest()
            if answer["now_ns"] >= until_ns or not answer["moved"]:
                break
        self.rest()

    def rest(self) -> None:
        """Until nothing is under way; where the stream was blind, by asking."""
        self.program.rest()
        if self.blind:
            self.blind = False
            self.program.do(lambda _: self.program.store.connection.reconcile(ACCOUNT))
            self.program.rest()

    # -- what must hold ----------------------------------------------------------------------------

    def agree(self) -> None:
        """Emulator, journal, broker and strategy have the same account."""
        self.program.rest()
        ledger = self.emulator.ledger()
        try:
            self.program.do(lambda strategy: Audit(self, ledger, strategy).all())
        except AssertionError as difference:
            difference.add_note(self.tell())
            raise

    def order(self, number: int) -> dict[str, Any]:
        """The order that was placed as the so manieth, counted from 0, as the emulator has it."""
        row: dict[str, Any] = self.emulator.ledger()["orders"][number]
        return row

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait for what comes by itself."""
        latest = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < latest, "it does not come"
            time.sleep(0.002)

    def tell(self) -> str:
        """The orders of the emulator, for people."""
        rows = self.emulator.ledger()["orders"]
        names = ("order_id", "client_order_id", "parent_id", "side", "order_type", "quantity", "limit_price",
                 "stop_price", "status", "filled", "reason")  # fmt: skip
        return "\n".join(" ".join(f"{name}={row[name]}" for name in names) for row in rows)


class Audit:
    """Compares the books, on cerebro's thread, at rest."""

    def __init__(self, world: World, ledger: dict[str, Any], strategy: Any) -> None:
        self._ledger = ledger
        self._strategy = strategy
        self._broker = world.program.broker
        records = self._broker._records
        known = [records.of(order) for order in self._broker.orders]
        self._working = {one.order_id: one for one in known if one is not None and one.order_id is not None}
        self._orders = {str(row["order_id"]): row for row in ledger["orders"]}
        connection: Any = world.program.store.connection

        async def read() -> tuple[Any, Any]:
            journal: Journal = connection._desk.journal
            return journal.orders(), journal.executions(account=ACCOUNT)

        self._written, self._rows = connection._loop.call(read(), PATIENCE_S)
        self._recorded = {one.order_id: one for one in self._written if one.order_id is not None}

    def all(self) -> None:
        self.nothing_twice()
        self.every_order_is_on_record()
        self.journal_has_every_execution()
        self.money_and_positions()
        self.open_orders()
        self.orders_of_this_run()
        explained = {w.unknown for w in self._broker._records.live if w.unknown}
        explained |= {text for text in self._broker.problems if "was refused, but stands" in text}
        assert explained.issuperset(self._broker.problems), self._broker.problems

    def nothing_twice(self) -> None:
        """No submission ever made more orders than it has."""
        made: Counter[str] = Counter()
        for request in self._ledger["requests"]:
            if request["kind"] in ("place", "reply") and request["created"]:
                for name in {one for one in request["client_ids"] if one}:
                    made[name] += 1
        twice = {name: count for name, count in made.items() if count > 1}
        assert not twice, f"placed twice: {twice}"

    def _own(self) -> dict[str, dict[str, Any]]:
        return {order_id: row for order_id, row in self._orders.items() if not row["origin"]}

    def every_order_is_on_record(self) -> None:
        for order_id, row in self._own().items():
            one = self._recorded.get(order_id)
            assert one is not None, f"order {order_id} is in no journal: {row}"
            if row["client_order_id"]:
                assert one.key == row["client_order_id"]
            assert one.filled == Decimal(row["filled"]), (one, row)
            assert one.is_open == (row["status"] in STANDING), (one.state, row)
        for one in self._written:
            if one.is_open and one.order_id not in self._orders:
                # It never arrived, and nothing proves that.
                assert one.state in UNPROVEN, one
                assert one.order_id is None, one
                assert one.key not in self._ledger["by_client_id"], one

    def journal_has_every_execution(self) -> None:
        theirs = {one["execution_id"] for one in self._ledger["executions"]}
        counted = {row.execution.execution_id for row in self._rows if not row.superseded}
        standing = self._standing_executions()
        assert counted == standing.keys(), (counted ^ standing.keys(), theirs)
        for row in self._rows:
            if row.execution.execution_id in standing:
                told = standing[row.execution.execution_id]
                assert row.execution.quantity == Decimal(told["quantity"])
                assert row.execution.price == pytest.approx(told["price"], abs=1e-6)

    def _standing_executions(self) -> dict[str, dict[str, Any]]:
        """Those that nothing has corrected."""
        corrected = {one["corrects"] for one in self._ledger["executions"]}
        return {
            one["execution_id"]: one
            for one in self._ledger["executions"]
            if one["execution_id"] not in corrected
        }

    def money_and_positions(self) -> None:
        account = self._ledger["accounts"][ACCOUNT]
        book = self._broker._book()
        theirs = {int(k): Decimal(v["quantity"]) for k, v in account["positions"].items()}
        for data in self._strategy.datas:
            conid = data.contract.conid
            assert book.exact(conid) == theirs.get(conid, Decimal(0))
            assert self._broker.getposition(data).size == float(theirs.get(conid, Decimal(0)))
        assert self._broker.getcash() == pytest.approx(float(account["cash"]["USD"]), abs=0.005)

    def open_orders(self) -> None:
        theirs = {order_id for order_id, row in self._orders.items() if row["status"] in STANDING}
        live = self._broker._records.live
        ours = {one.order_id for one in live if one.submitted and one.order_id is not None}
        external = {report.order_id for report in self._broker.external_orders}
        assert not ours & external, ours & external
        own = {i for i, row in self._own().items() if row["status"] in STANDING}
        assert ours == own, ([vars(self._working[i]) for i in ours - own], own - ours)
        assert ours | external == theirs, (ours, external, theirs)

    def orders_of_this_run(self) -> None:
        """Every order of the run is as the strategy was told, and as it is."""
        for order_id, working in self._working.items():
            row, order = self._orders[order_id], working.order
            if working.refused:
                # It was told as refused, and stood after all: told loudly, and cancelled.
                assert any(working.key in text for text in self._broker.problems)
                assert working.filled == Decimal(row["filled"])
                assert order.status == order.Rejected
                continue
            assert working.filled == Decimal(row["filled"]), (working.key, working.filled, row)
            assert order.executed.size == pytest.approx(
                float(working.filled) * (1 if order.isbuy() else -1), abs=1e-9
            )
            assert order.alive() == (row["status"] in STANDING), (order.getstatusname(), row)
            if row["status"] == "Filled":
                assert order.status == order.Completed, (order.getstatusname(), row)
            if order.ref in self._strategy.status:
                assert self._strategy.status[order.ref] == order.status, (
                    bt.Order.Status[self._strategy.status[order.ref]],
                    order.getstatusname(),
                    row,
                )


@contextlib.contextmanager
def impatient() -> Iterator[None]:
    """What is looked for again and again is looked for at once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(desk, "_LOOK_PAUSES_S", (0.01, 0.02, 0.03, 0.05))
        patch.setattr(changes, "_PAUSES_S", (0.01, 0.02, 0.03, 0.05))
        yield
