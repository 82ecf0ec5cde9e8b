"""A strategy on store, broker and desk against an emulator, in a market that moves only when the test says so.

A script is a generator: it acts, and yields where it waits. ``yield`` waits until everything asked is answered and
everything sent is taken in; ``yield condition`` until, beside that, the condition holds (within a bound); ``yield
seconds`` moves the market so far. In the end what the emulator, the journal and the broker know is compared.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Generator
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import backtrader as bt
import pytest

from bt_ibkr.app.driving import catch_up
from bt_ibkr.clock import NS_PER_S, ManualClock
from bt_ibkr.connection.interface import Reconciled
from bt_ibkr.journal import Journal, JournalExecution, JournalOrder
from bt_ibkr.model.intent import OrderState

if TYPE_CHECKING:
    from tests.conftest import Bench, Line, Run, Tape

ACCOUNT = "DU1234567"
AAPL = 265598
#: A condition that does not come true within so many seconds fails the test.
PATIENCE_S = 10.0
Wish = Callable[[], Any] | float | None
#: Yields wishes.
Script = Generator[Any, None, None]


def far(strategy: Any, size: float = 10, **more: Any) -> Any:
    """An order to buy that the market does not reach."""
    return strategy.buy(size=size, **({"exectype": bt.Order.Limit, "price": 50.0} | more))


def settle(condition: Callable[[], Any]) -> None:
    """Wait for something that happens at IBKR, while the strategy does nothing."""
    latest = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < latest, f"not within {PATIENCE_S:g} s: {condition}"
        time.sleep(0.005)


_STATES = {
    "Filled": {OrderState.FILLED},
    "Cancelled": {OrderState.CANCELLED, OrderState.EXPIRED},
    "Inactive": {OrderState.REJECTED},
    "Submitted": {OrderState.WORKING},
    "PreSubmitted": {OrderState.WORKING},
}


class Scene:
    """One emulator, one store, one run.

    Args:
        bench, tape: The fixtures.
        journal: File of the journal.
        seconds: How long the market is.
        store, settings: Of the store and of the emulator.
    """

    def __init__(
        self,
        bench: Bench,
        tape: type[Tape],
        journal: Path,
        *,
        seconds: int = 200,
        store: dict[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        self.bench = bench
        self.journal_path = journal
        (file,) = bench.market(AAPL=tape().every_second(seconds, lambda second: 100.0))
        market = (file.replace(":AAPL", f":{AAPL}"),)
        self.line: Line = bench.line(
            market=market, store={"journal": journal} | (store or {}), questions="none", **settings
        )
        self.emulator = self.line.emulator
        self.run: Run
        self._strategy: Any = None

    # -- what happens at IBKR ------------------------------------------------------------------------

    def do(self, operation: str, **arguments: Any) -> dict[str, Any]:
        """An operation of the emulator's control API."""
        return self.emulator.do(operation, **arguments)

    def fault(self, kind: str, **arguments: Any) -> int:
        return self.emulator.fault(kind, **arguments)

    def hits(self, number: int) -> int:
        """How often a fault has happened; it may be over."""
        return sum(row.get("id") == number for row in self.line.control.get("/faults")["log"])

    def clear(self, number: int | None = None) -> None:
        self.do("clear_faults", **({} if number is None else {"id": number}))

    def fill(self, order: Any, quantity: float | None = None, price: float | None = None) -> str:
        """Execute an order at the exchange; the id of the execution."""
        given = {"order_id": self.number(order), "quantity": quantity, "price": price}
        self.do("fill", **{name: value for name, value in given.items() if value is not None})
        return str(self.executions()[-1]["execution_id"])

    def manual(self, side: str, quantity: float, *, conid: int = AAPL, **more: Any) -> int:
        """An order of another program; its id."""
        made = self.do("manual_order", conid=conid, side=side.upper(), quantity=quantity, **more)
        return int(made["order_id"])

    def number(self, order: Any) -> int:
        """IBKR's id of an order, by the exchange's book."""
        key = self.broker.client_order_id(order)
        return int(next(one["order_id"] for one in self.orders() if one["client_order_id"] == key))

    def orders(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.emulator.ledger()["orders"]
        return found

    def executions(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.emulator.ledger()["executions"]
        return found

    def requests(self, kind: str) -> list[dict[str, Any]]:
        """The order requests of a kind that IBKR has seen."""
        return [one for one in self.emulator.ledger()["requests"] if one["kind"] == kind]

    def asked(self, method: str, path: str) -> int:
        """How often the server was asked something whose path begins so."""
        rows = self.line.control.get("/requests?since=0&limit=20000")["requests"]
        return sum(row["method"] == method and row["path"].startswith(path) for row in rows)

    # -- what the run knows --------------------------------------------------------------------------

    @property
    def broker(self) -> Any:
        return self.line.store.getbroker()

    @property
    def connection(self) -> Any:
        return self.line.store.connection

    @property
    def desk(self) -> Any:
        return self.connection._desk

    def reconciled(self, *, whole: bool = True) -> Callable[[], bool]:
        """Read the account again; true once the broker was told of the result."""
        heard: list[bool] = []
        tell_all = self.desk._router.tell_all

        def listen(account: str, event: Any) -> None:
            tell_all(account, event)
            if isinstance(event, Reconciled):
                heard.append(event.complete)

        self.desk._router.tell_all = listen
        self.connection.reconcile(ACCOUNT)
        return lambda: heard == [whole]

    @property
    def position(self) -> float:
        size: float = self.broker.getposition(self._strategy.data).size
        return size

    def messages(self, *names: str) -> list[tuple[Any, ...]]:
        """What ``notify_store`` was told under these names."""
        return [(name, *args) for name, args, _ in self._strategy.messages if name in names]

    # -- the run -------------------------------------------------------------------------------------

    def play(self, script: Callable[[Any], Script], **given: Any) -> Run:
        """Run the script from the first bar on; the run, once all is compared."""
        line, clock = self.line, self.line.clock
        assert isinstance(clock, ManualClock)
        wish: Wish = None
        playing: Script | None = None
        since = 0.0
        over = False
        moves: list[int] = []
        cerebro: Any = None
        market: Any = None

        def hook(horizon_ns: int) -> bool:
            nonlocal wish, playing, since, over
            if over:
                return self.read_all()
            if playing is None:
                strategies = cerebro.runningstrats
                if not strategies or not len(strategies[0].data):
                    return bool(market(horizon_ns))
                self._strategy = strategies[0]
                playing = script(self._strategy)
            if isinstance(wish, int | float):
                wish = clock.now_ns() + int(wish * NS_PER_S)
                moves.append(wish)
                wish = None
            if moves:
                if clock.now_ns() < moves[0]:
                    return bool(market(min(horizon_ns, moves[0])))
                moves.clear()
            if self.read_all() or not line.store.at_rest():
                return True
            if wish is not None:
                since = since or time.monotonic()
                if not wish():
                    assert time.monotonic() < since + PATIENCE_S, f"not within {PATIENCE_S:g} s: {wish}"
                    line.store.wake.wait(0.01)
                    return False
            since = 0.0
            try:
                wish = next(playing)
            except StopIteration:
                over = True
                line.store.finish()
            return True

        def before(made: Any) -> None:
            nonlocal cerebro, market
            cerebro = made
            market = line.lockstep()
            line.store.set_idle_hook(hook)

        self.run = self.bench.run(line, drive=False, before=before, **given)
        assert over, "the script did not come to its end"
        return self.run

    def read_all(self) -> bool:
        """Read every frame that the emulator has sent; whether any was missing."""
        missing = catch_up(self.line.control, self.line.store)
        # What came last has been handed on once the session's thread has time for this.
        self.connection.metrics()
        return missing

    # -- the truth -----------------------------------------------------------------------------------

    def journal(self) -> Journal:
        """What was written down; opened beside its owner, or after it."""
        return Journal.open(self.journal_path, clock=self.line.clock, exclusive=False)

    def recorded(self) -> tuple[dict[str, JournalOrder], list[JournalExecution]]:
        """Orders by key, and executions, as the journal has them."""
        journal = self.journal()
        try:
            return {one.key: one for one in journal.orders()}, list(journal.executions())
        finally:
            journal.close()

    def agree(self, *, problems: int = 0) -> None:
        """Emulator, journal and broker have the same orders, executions, positions and cash; no double."""
        ledger = self.emulator.ledger()
        ours, written = self.recorded()
        assert len(self.broker.problems) == problems, self.broker.problems
        # At most one order of the exchange for each order of a strategy; children count as their parent's.
        family = Counter(one.intent.parent_key or key for key, one in ours.items())
        made = {key: count for key, count in ledger["by_client_id"].items() if key in ours}
        assert all(count <= family[key] for key, count in made.items()), (made, family)
        assert set(ours) == {self.broker.client_order_id(order) for order in self.broker.orders}
        at_ibkr = {str(one["order_id"]): one for one in ledger["orders"]}
        for order in self.broker.orders:
            self._compare_order(order, ours[self.broker.client_order_id(order)], at_ibkr)
        # Executions: each once, corrected ones as they are now.
        replaced = {one["corrects"] for one in ledger["executions"]}
        known = {
            one["execution_id"]: (Decimal(one["quantity"]), one["price"], one["commission"])
            for one in ledger["executions"]
        }
        there = sorted(row.execution.execution_id for row in written)
        assert there == sorted(known), (there, sorted(known))
        for row in written:
            one = row.execution
            assert (one.quantity, one.price) == known[one.execution_id][:2], row
            assert row.superseded is (one.execution_id in replaced), row
        booked = {e.execution_id: (e.quantity, e.price, e.commission) for _, e in self.broker.executions}
        assert len(booked) == len(self.broker.executions)
        keyed = {
            r.execution.execution_id for r in written if r.key and not r.superseded and r.execution.quantity
        }
        wanted = {execution_id: known[execution_id] for execution_id in keyed}
        assert booked == wanted, (booked, wanted)
        # Positions and cash.
        account = ledger["accounts"][ACCOUNT]
        theirs = {int(conid): Decimal(one["quantity"]) for conid, one in account["positions"].items()}
        held = {data.contract.conid: p.size for data, p in self.broker.positions.items() if p.size}
        assert held == {conid: float(size) for conid, size in theirs.items() if size}, held
        cash = self.broker.getcash(), float(account["cash"]["USD"])
        assert cash[0] == pytest.approx(cash[1], abs=0.005), cash

    @staticmethod
    def _compare_order(order: Any, written: JournalOrder, at_ibkr: dict[str, Any]) -> None:
        there = at_ibkr.get(written.order_id or "")
        if there is None:
            assert written.state in (OrderState.REJECTED, OrderState.ABSENT)
            assert order.status in (bt.Order.Rejected, bt.Order.Margin)
            return
        filled = Decimal(there["filled"]), written.filled, Decimal(str(abs(order.executed.size)))
        assert len(set(filled)) == 1, filled
        size = (
            Decimal(there["quantity"]),
            written.intent.ticket.quantity,
            Decimal(str(abs(order.created.size))),
        )
        assert len(set(size)) == 1, size
        assert written.state in _STATES[there["status"]], (written.state, there["status"])
        seen = order.getstatusname()
        assert order.alive() is written.is_open, (seen, written.state)
        if not order.alive():
            assert (seen == "Completed") is (written.state is OrderState.FILLED), (seen, written.state)
