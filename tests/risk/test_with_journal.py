"""Gate and journal, one after the other, as whoever places orders uses them: what is refused is not written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bt_ibkr.clock import NS_PER_S, ManualClock
from bt_ibkr.errors import RiskRefusedError, TradingHaltedError, UsageError
from bt_ibkr.journal import Journal
from bt_ibkr.model.intent import OrderIntent, OrderState
from bt_ibkr.model.trading import Trading, TradingState
from bt_ibkr.risk import Actor, OpenOrder, RiskGate, RiskLimits, Who, effects, moved
from tests.risk.conftest import AAPL, ACCOUNT, START_NS, Orders, Played, only

PERSON = Actor(Who.COMMAND_LINE)


class Kept(Played):
    """A view whose open orders and trading state are the journal's."""

    def __init__(self, journal: Journal) -> None:
        super().__init__()
        self.journal = journal

    def trading_state(self) -> TradingState:
        return self.journal.trading_state()

    def open_orders(self, account: str, conid: int) -> list[OpenOrder]:
        return [
            OpenOrder(
                key=order.intent.key,
                effect=effect,
                parent_key=order.intent.parent_key,
                group=order.intent.group,
            )
            for order in self.journal.orders(open_only=True)
            if (
                effect := effects(order.intent.ticket, order.intent.ticket.quantity - order.filled).get(conid)
            )
        ]

    def book(self, strategy: str) -> None:
        return None

    def open_count(self, account: str) -> int:
        return len(self.journal.orders(open_only=True))


class Desk:
    """Risk, then journal. ``between`` runs after the one and before the other."""

    def __init__(self, limits: RiskLimits, journal: Journal, clock: ManualClock) -> None:
        self.gate = RiskGate(limits, clock)
        self.journal = journal
        self.view = Kept(journal)
        self.order = Orders(journal.epoch)

    def place(self, *intents: OrderIntent, between: Sequence[object] = ()) -> tuple[OrderIntent, ...]:
        cleared = self.gate.cleared(intents, self.view)
        for action in between:
            assert callable(action)
            action()
        try:
            self.journal.intend(cleared)
        except Exception:
            self.gate.withdraw(cleared)
            raise
        return cleared


@pytest.fixture
def journal(tmp_path: Path, clock: ManualClock) -> Iterator[Journal]:
    journal = Journal.open(tmp_path / "journal.sqlite", clock=clock)
    yield journal
    journal.close()


def written(journal: Journal) -> tuple[list[str], int, dict[str, int]]:
    """Keys of the journal's orders, entries of its log, next numbers."""
    return [order.intent.key for order in journal.orders()], len(journal.events()), journal.next_sequences()


def test_a_refused_order_leaves_no_trace(journal: Journal, clock: ManualClock) -> None:
    desk = Desk(only(max_order_size=10), journal, clock)
    before = written(journal)
    for intents in ((desk.order(11),), (desk.order(1), desk.order(11)), desk.order.bracket(11)):
        with pytest.raises(RiskRefusedError):
            desk.place(*intents)
    assert written(journal) == before
    (kept,) = desk.place(desk.order(10))
    assert [order.intent for order in journal.orders()] == [kept]
    assert journal.orders()[0].state is OrderState.INTENDED


def test_what_the_journal_holds_counts_at_once(journal: Journal, clock: ManualClock) -> None:
    desk = Desk(only(max_position_size=100), journal, clock)
    (first,) = desk.place(desk.order(60))
    with pytest.raises(RiskRefusedError, match="could become 101 long"):
        desk.place(desk.order(41))
    desk.place(desk.order(40))
    # Proven not to stand: there is room again.
    journal.note(first.key, OrderState.ABSENT)
    desk.place(desk.order(60))


def test_an_unknown_order_still_counts(journal: Journal, clock: ManualClock) -> None:
    desk = Desk(only(max_position_size=100, max_open_orders=1), journal, clock)
    (first,) = desk.place(desk.order(60))
    journal.note(first.key, OrderState.UNKNOWN)
    with pytest.raises(RiskRefusedError) as caught:
        desk.place(desk.order(41))
    assert caught.value.control == "max_position"
    with pytest.raises(RiskRefusedError) as caught:
        desk.place(desk.order(40))
    assert caught.value.control == "max_open_orders"


def test_while_reducing(journal: Journal, clock: ManualClock) -> None:
    desk = Desk(only(), journal, clock)
    desk.view.positions[AAPL] = Decimal(10)
    journal.set_trading_state(moved(TradingState(), Trading.REDUCING, by=PERSON, reason="careful", now_ns=1))
    before = written(journal)
    for size in (1, -11):
        with pytest.raises(RiskRefusedError, match="REDUCING by command line: careful"):
            desk.place(desk.order(size, protective=True))
    assert written(journal) == before
    # Not marked by whoever made it: the gate has proven it, and the journal believes the gate.
    (kept,) = desk.place(desk.order(-10))
    assert kept.ticket.protective
    assert journal.order(kept.key)
    with pytest.raises(RiskRefusedError):
        desk.place(desk.order(-1))


def test_halted_between_gate_and_journal(journal: Journal, clock: ManualClock) -> None:
    """Another process halts after the gate has looked: the journal looks again, in its own transaction."""
    desk = Desk(only(orders_per_minute=1, duplicate_window_s=60), journal, clock)
    before = written(journal)[0]
    assert journal.path is not None
    other = Journal.open(journal.path, clock=clock, exclusive=False)
    halted = moved(TradingState(), Trading.HALTED, by=PERSON, reason="stop", now_ns=clock.now_ns())
    with pytest.raises(TradingHaltedError, match="stop"):
        desk.place(desk.order(10, 99.0), between=[lambda: other.set_trading_state(halted)])
    assert written(journal)[0] == before
    with pytest.raises(RiskRefusedError) as caught:
        desk.place(desk.order(10, 99.0))
    assert caught.value.control == "trading_state"
    other.set_trading_state(moved(halted, Trading.ACTIVE, by=PERSON, reason="go", now_ns=clock.now_ns()))
    other.close()
    # It counts neither as a duplicate nor for the rate: it was never placed.
    desk.place(desk.order(10, 99.0))


def test_reducing_between_gate_and_journal(journal: Journal, clock: ManualClock) -> None:
    desk = Desk(only(), journal, clock)
    desk.view.positions[AAPL] = Decimal(10)
    state = moved(TradingState(), Trading.REDUCING, by=PERSON, reason="careful", now_ns=1)
    entry, close = desk.order(5), desk.order(-10)
    with pytest.raises(TradingHaltedError):
        desk.place(entry, between=[lambda: journal.set_trading_state(state)])
    assert written(journal)[0] == []
    desk.place(close)
    assert written(journal)[0] == [close.key]


def test_a_loss_halts_over_a_restart(tmp_path: Path, clock: ManualClock) -> None:
    path = tmp_path / "journal.sqlite"
    journal = Journal.open(path, clock=clock)
    desk = Desk(only(daily_loss_limit=500), journal, clock)
    desk.view.pnl = -600.0
    with pytest.raises(RiskRefusedError, match="has lost"):
        desk.place(desk.order(1))
    state = desk.gate.required_state(ACCOUNT, desk.view, clock.now_ns())
    assert state is not None
    journal.set_trading_state(state)
    journal.close()
    journal = Journal.open(path, clock=clock)
    desk = Desk(only(), journal, clock)
    with pytest.raises(RiskRefusedError, match="REDUCING by risk daily_loss_limit"):
        desk.place(desk.order(1))
    kept = journal.trading_state()
    with pytest.raises(UsageError):
        moved(kept, Trading.ACTIVE, by=Actor(Who.STRATEGY, "sma_cross"), reason="", now_ns=2)
    journal.set_trading_state(moved(kept, Trading.ACTIVE, by=PERSON, reason="seen", now_ns=2))
    desk.place(desk.order(1))
    journal.close()


def test_a_restart_knows_what_was_placed(tmp_path: Path, clock: ManualClock) -> None:
    path = tmp_path / "journal.sqlite"
    limits = only(duplicate_window_s=30, orders_per_minute=2)
    journal = Journal.open(path, clock=clock)
    desk = Desk(limits, journal, clock)
    desk.place(desk.order(10, 99.0))
    journal.close()
    clock.set_ns(clock.now_ns() + 10 * NS_PER_S)
    journal = Journal.open(path, clock=clock)
    again = Desk(limits, journal, clock)
    again.order = desk.order
    now_ns = clock.now_ns()
    for order in journal.orders(since_ns=now_ns - again.gate.window_ns):
        again.gate.remember(order.intent, now_ns - order.created_ns)
    with pytest.raises(RiskRefusedError, match=r"was placed 10\.000 s ago"):
        again.place(again.order(10, 99.0))
    again.place(again.order(11, 99.0))
    with pytest.raises(RiskRefusedError, match="orders_per_minute 2"):
        again.place(again.order(12, 99.0))
    journal.close()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(-30, 30).filter(bool), st.sampled_from(list(Trading))), max_size=12))
def test_the_journal_holds_exactly_what_passed(moves: list[tuple[int, Trading]]) -> None:
    """And the journal refuses nothing that the gate lets pass on the same state."""
    clock = ManualClock(START_NS)
    journal = Journal.open(None, clock=clock)
    desk = Desk(only(max_order_size=20, max_position_size=40), journal, clock)
    desk.view.positions[AAPL] = Decimal(15)
    passed = []
    for size, mode in moves:
        journal.set_trading_state(TradingState(mode=mode, by="command line"))
        intent = desk.order(size)
        try:
            desk.place(intent)
            passed.append(intent.key)
        except RiskRefusedError:
            # Never the journal's TradingHaltedError: the gate says it first.
            continue
    assert [order.intent.key for order in journal.orders()] == passed
    journal.close()
