"""The journal against a model in plain dictionaries: random acts, restarts, and deaths at any step of an act."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from bt_ibkr.clock import ManualClock
from bt_ibkr.errors import JournalError, TradingHaltedError
from bt_ibkr.journal import Journal, steps
from bt_ibkr.journal.transitions import ALLOWED, contradicts
from bt_ibkr.model.intent import ENDED, OPEN, OrderIntent, OrderState, make_key
from bt_ibkr.model.order import Execution, OrderTicket, OrderType, Side
from bt_ibkr.model.trading import Trading, TradingState

ACCOUNT = "DU1234567"
NAMES = ("sma", "pairs")
SIZES = st.sampled_from(["0.1", "0.2", "1", "3", "10"])
IDS = st.builds("a.{}.01.0{}".format, st.integers(1, 4), st.integers(1, 3)) | st.sampled_from(["x", "y.1"])
MEMORY = Path("/dev/shm")


class Model:
    """What a journal should know."""

    def __init__(self) -> None:
        self.orders: dict[str, tuple[OrderIntent, OrderState, str | None]] = {}
        self.ids: dict[str, str] = {}
        #: By id: the execution and its order's key.
        self.executions: dict[str, tuple[Execution, str | None]] = {}
        self.trading = TradingState()
        self.baseline: dict[int, Decimal] | None = None
        self.next: dict[str, int] = {}

    def copy(self) -> Model:
        other = Model()
        for name, value in vars(self).items():
            setattr(other, name, dict(value) if isinstance(value, dict) else value)
        return other

    def superseded(self, identity: str) -> bool:
        stem, _, revision = identity.rpartition(".")
        return any(
            stem.count(".") >= 2 and other.rpartition(".")[0] == stem and other.rpartition(".")[2] > revision
            for other in self.executions
        )

    def family(self, identity: str) -> list[str]:
        stem = identity.rpartition(".")[0]
        return [one for one in self.executions if stem.count(".") >= 2 and one.rpartition(".")[0] == stem]

    def filled(self, key: str) -> Decimal:
        return sum(
            (e.quantity for i, (e, k) in self.executions.items() if k == key and not self.superseded(i)),
            Decimal(0),
        )

    def corrected(self, key: str) -> bool:
        return any(k == key and self.superseded(i) for i, (_, k) in self.executions.items())

    def take(self, execution: Execution, key: str | None) -> bool:
        identity = execution.execution_id
        if identity not in self.executions:
            keys = [k for one in self.family(identity) if (k := self.executions[one][1]) is not None]
            key = key or (keys[0] if keys else None)
            self.executions[identity] = (execution, key)
            self._share(identity, key)
            return not self.superseded(identity)
        old, old_key = self.executions[identity]
        if (old.quantity, old.price) != (execution.quantity, execution.price):
            return False
        if execution.commission is not None:
            old = msgspec.structs.replace(old, commission=execution.commission)
        self.executions[identity] = (old, old_key or key)
        self._share(identity, old_key or key)
        return False

    def _share(self, identity: str, key: str | None) -> None:
        for one in self.family(identity):
            execution, other = self.executions[one]
            self.executions[one] = (execution, other or key)


class Machine(RuleBasedStateMachine):
    """Every act is done to both. One that a process dies in is done by a fork of this one."""

    @initialize()
    def begin(self) -> None:
        memory = MEMORY if os.access(MEMORY, os.W_OK) else None
        self.folder = Path(tempfile.mkdtemp(dir=memory))
        self.clock = ManualClock(1_700_000_000_000_000_000)
        self.model = Model()
        self.open()

    def open(self) -> None:
        self.journal = Journal.open(self.folder / "journal", clock=self.clock)
        assert self.journal.repaired is None
        # Commissions that were told to this journal once are told no more.
        self.commissions: set[tuple[Any, ...]] = set()

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            self.journal.close()
            shutil.rmtree(self.folder)

    # Acts: each gives what to do with the journal, and the model afterwards, or ``None`` if it must be refused.

    def intent(self, name: str, number: int, size: str, protective: bool) -> OrderIntent:
        key = make_key(name, self.journal.epoch, number)
        ticket = OrderTicket(
            account=ACCOUNT,
            contract_id=5,
            side=Side.BUY,
            order_type=OrderType.MARKET,
            quantity=Decimal(size),
            client_order_id=key,
            protective=protective,
        )
        return OrderIntent(key=key, strategy=name, ticket=ticket)

    def act(self, data: st.DataObject) -> tuple[Callable[[Journal], object], Model | None, object]:
        """A random act: what does it, the model after it (``None``: it must be refused), and what it returns."""
        kinds = ["intend", "executions", "trading", "baseline", "event"]
        if self.model.orders:
            kinds += ["note", "note", "note", "ticket"]
        act: tuple[Callable[[Journal], object], Model | None, object]
        act = getattr(self, f"_{data.draw(st.sampled_from(kinds))}")(data)
        return act

    def _intend(self, data: st.DataObject) -> tuple[Callable[[Journal], object], Model | None, object]:
        after: Model | None = self.model.copy()
        intents = []
        for _ in range(data.draw(st.integers(1, 3))):
            name = data.draw(st.sampled_from(NAMES))
            number = data.draw(st.integers(1, 8) | st.just(self.model.next.get(name, 1)))
            intents.append(self.intent(name, number, data.draw(SIZES), data.draw(st.booleans())))
        mode = self.model.trading.mode
        for one in intents:
            if after is None:
                break
            allowed = mode is Trading.ACTIVE or (mode is Trading.REDUCING and one.ticket.protective)
            if one.key in after.orders or not allowed:
                after = None
                break
            after.orders[one.key] = (one, OrderState.INTENDED, None)
            number = int(one.key.rpartition(".")[2]) + 1
            after.next[one.strategy] = max(after.next.get(one.strategy, 1), number)
        return lambda journal: journal.intend(intents), after, None

    def _note(self, data: st.DataObject) -> tuple[Callable[[Journal], object], Model | None, object]:
        key = data.draw(st.sampled_from(sorted(self.model.orders)))
        state = data.draw(st.sampled_from(OrderState))
        order_id = data.draw(st.none() | st.sampled_from(["1", "2", "3"]))
        intent, old, known = self.model.orders[key]
        facts = (intent.ticket.quantity, self.model.filled(key), self.model.corrected(key))
        proven = old in ENDED and contradicts(old, *facts) and not contradicts(state, *facts)
        after: Model | None = None
        holder = self.model.ids.get(order_id) if order_id is not None else None
        taken = holder not in (None, key) and self.model.orders[str(holder)][1] in OPEN and order_id != known
        if (state is old or state in ALLOWED[old] or proven) and not taken:
            after = self.model.copy()
            after.orders[key] = (intent, state, order_id or known)
            if order_id is not None:
                after.ids[order_id] = key
        durable = data.draw(st.booleans())
        return lambda journal: journal.note(key, state, order_id=order_id, durable=durable), after, None

    def _ticket(self, data: st.DataObject) -> tuple[Callable[[Journal], object], Model | None, object]:
        key = data.draw(st.sampled_from(sorted(self.model.orders)))
        intent, state, order_id = self.model.orders[key]
        ticket = msgspec.structs.replace(intent.ticket, quantity=Decimal(data.draw(SIZES)))
        after = self.model.copy()
        after.orders[key] = (msgspec.structs.replace(intent, ticket=ticket), state, order_id)
        return lambda journal: journal.replace_ticket(key, ticket), after, None

    def _executions(self, data: st.DataObject) -> tuple[Callable[[Journal], object], Model | None, object]:
        after = self.model.copy()
        batch, new = [], []
        for _ in range(data.draw(st.integers(1, 4))):
            execution = Execution(
                execution_id=data.draw(IDS),
                account=ACCOUNT,
                conid=5,
                symbol="A",
                side=Side.BUY,
                quantity=Decimal(data.draw(SIZES)),
                price=1.5,
                time_ns=7,
                commission=data.draw(st.none() | st.just(1.0)),
            )
            key = data.draw(st.none() | st.sampled_from([None, *sorted(self.model.orders)]))
            batch.append((execution, key, "s"))
            new.append(after.take(execution, key))
        return lambda journal: journal.add_executions(batch), after, new

    def _trading(self, data: st.DataObject) -> tuple[Callable[[Journal], object], Model | None, object]:
        state = TradingState(
            mode=data.draw(st.sampled_from([Trading.ACTIVE, *Trading])), reason=data.draw(st.text(max_size=5))
        )
        after = self.model.copy()
        after.trading = state
        return lambda journal: journal.set_trading_state(state), after, None

    def _baseline(self, data: st.DataObject) -> tuple[Callable[[Journal], object], Model | None, object]:
        held = data.draw(st.dictionaries(st.integers(1, 5), SIZES.map(Decimal), max_size=3))
        after = self.model.copy()
        after.baseline = held
        return lambda journal: journal.set_positions_baseline(ACCOUNT, held, 1), after, None

    def _event(self, data: st.DataObject) -> tuple[Callable[[Journal], object], Model | None, object]:
        text = data.draw(st.text(max_size=9))
        return lambda journal: journal.note_event(None, "question", text), self.model.copy(), None

    # Rules

    @rule(data=st.data())
    def do(self, data: st.DataObject) -> None:
        self.clock.set_ns(self.clock.now_ns() + 1_000)
        what, after, returned = self.act(data)
        if after is None:
            events = len(self.journal.events())
            with pytest.raises((JournalError, TradingHaltedError)):
                what(self.journal)
            assert len(self.journal.events()) == events
            return
        assert what(self.journal) == returned
        self.model = after

    @rule()
    def reopen(self) -> None:
        self.journal.close()
        self.open()

    @precondition(lambda self: hasattr(self, "model"))
    @rule(data=st.data(), at=st.integers(1, 3))
    def die(self, data: st.DataObject, at: int) -> None:
        """Another process does it and is killed: before it begins, before it is committed, or after."""
        what, after, _ = self.act(data)
        self.journal.close()
        sys.stdout.flush()
        pid = os.fork()
        if pid == 0:
            try:
                journal = Journal.open(self.folder / "journal", clock=self.clock)
                steps.arm(steps.Steps(at))
                what(journal)
            finally:
                os._exit(3)
        _, status = os.waitpid(pid, 0)
        code = os.waitstatus_to_exitcode(status)
        assert code in (-signal.SIGKILL, 3)
        assert after is None or code == -signal.SIGKILL
        self.open()
        if after is not None and at == 3:
            self.model = after

    @invariant()
    def same(self) -> None:
        if not hasattr(self, "model"):
            return
        journal, model = self.journal, self.model
        orders = {order.key: order for order in journal.orders()}
        assert {key: (o.intent, o.state, o.order_id) for key, o in orders.items()} == model.orders
        assert {key: order.filled for key, order in orders.items()} == {
            key: model.filled(key) for key in model.orders
        }
        assert list(journal.orders(open_only=True)) == [o for o in orders.values() if o.state in OPEN]
        assert journal.next_sequences() == model.next
        executions = {one.execution.execution_id: one for one in journal.executions()}
        assert {i: (one.execution, one.key) for i, one in executions.items()} == model.executions
        assert {i: one.superseded for i, one in executions.items()} == {
            i: model.superseded(i) for i in model.executions
        }
        for order_id, key in model.ids.items():
            found = journal.by_order_id(ACCOUNT, order_id)
            assert found is not None
            assert found.key == key
        assert journal.trading_state() == model.trading
        baseline = journal.positions_baseline(ACCOUNT)
        assert (baseline.positions if baseline is not None else None) == model.baseline


TestMachine = Machine.TestCase
TestMachine.settings = settings(
    max_examples=15,
    stateful_step_count=20,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
