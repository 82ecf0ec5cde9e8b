"""Reports: each execution once, to whom it belongs, and to the journal first."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bt_ibkr.clock import ManualClock
from bt_ibkr.connection.interface import (
    AccountEvent,
    CommissionReported,
    ExecutionReported,
    OrderChanged,
    OrderPlaced,
)
from bt_ibkr.desk.registry import Registry, Tracked
from bt_ibkr.desk.reports import ReportRouter
from bt_ibkr.errors import JournalError
from bt_ibkr.journal import Journal
from bt_ibkr.model.intent import OrderIntent, OrderState, make_key
from bt_ibkr.model.order import Execution, OrderReport, OrderStatus, OrderType, Side
from bt_ibkr.model.trading import Trading
from tests.connection.conftest import ACCOUNT
from tests.desk.conftest import AAPL, ticket

if TYPE_CHECKING:
    from tests.desk.conftest import Trader


class Listener(list[AccountEvent]):
    """Everything that was told, in order."""

    def of(self, kind: type[Any]) -> list[Any]:
        return [event for event in self if isinstance(event, kind)]


class Office:
    """A router with a journal in memory, and one listener."""

    def __init__(self) -> None:
        self.alarms: list[tuple[str, str]] = []
        self.journal = Journal.open(None, clock=ManualClock(10), epoch="00000")
        self.registry = Registry()
        self.router = ReportRouter(
            self.registry, self.journal, lambda kind, text: self.alarms.append((kind, text))
        )
        self.told = Listener()
        self.counted: list[Decimal] = []
        self.router.on_execution = lambda new, old: self.counted.append(
            new.quantity - (old.quantity if old is not None else 0)
        )
        self.router.attach(ACCOUNT, self.told, ())

    def order(self, number: int = 1, order_id: str | None = "17") -> Tracked:
        """One of ours; with an id it stands."""
        key = make_key("tested", "00000", number)
        intent = OrderIntent(key=key, strategy="tested", ticket=ticket(client_order_id=key))
        self.journal.intend((intent,))
        tracked = self.registry.add(intent, self.told)
        if order_id is not None:
            self.registry.give_id(tracked, order_id)
            self.router.note(tracked, OrderState.WORKING, order_id=order_id)
        return tracked


@pytest.fixture
def office() -> Iterator[Office]:
    one = Office()
    yield one
    one.journal.close()


def execution(number: str = "0000a.0000b.01.01", **changes: Any) -> Execution:
    plain: dict[str, Any] = {
        "execution_id": number,
        "account": ACCOUNT,
        "conid": AAPL,
        "symbol": "AAPL",
        "side": Side.BUY,
        "quantity": Decimal(4),
        "price": 50.0,
        "time_ns": 5,
        "order_id": "17",
    }
    return Execution(**(plain | changes))


def report(**changes: Any) -> OrderReport:
    plain: dict[str, Any] = {"order_id": "17", "account": ACCOUNT, "status": OrderStatus.SUBMITTED}
    return OrderReport(**(plain | changes))


# --- executions --------------------------------------------------------------------------------------


def test_an_execution_is_told_once_whatever_brings_it(office: Office) -> None:
    order = office.order()
    for source in ("stream", "trades", "stream"):
        office.router.take_executions((execution(),), source)
    (told,) = office.told.of(ExecutionReported)
    assert (told.key, told.execution.quantity) == (order.key, 4)
    assert office.counted == [4]
    (row,) = office.journal.executions(key=order.key)
    assert row.execution == execution()
    assert order.filled == 4


def test_executions_are_in_the_journal_before_anybody_is_told(office: Office) -> None:
    order = office.order()
    seen: list[int] = []

    class Looks(list[AccountEvent]):
        def append(self, item: AccountEvent) -> None:
            seen.append(len(office.journal.executions(key=order.key)))

    order.sink = Looks()
    office.router.take_executions((execution("a.b.01.01"), execution("a.b.02.01")), "stream")
    assert seen == [2, 2]


def test_executions_are_told_in_the_order_in_which_they_happened(office: Office) -> None:
    """Fault 28: ``/trades`` is in no order."""
    office.order()
    rows = [execution(f"a.b.0{n}.01", time_ns=n) for n in (3, 1, 2)]
    office.router.take_executions(rows, "trades")
    assert [one.execution.time_ns for one in office.told.of(ExecutionReported)] == [1, 2, 3]


def test_a_commission_that_comes_later(office: Office) -> None:
    """Faults 24 and 25."""
    order = office.order()
    office.router.take_executions((execution(),), "stream")
    for _ in range(2):
        office.router.take_executions((execution(commission=1.5),), "stream")
    (told,) = office.told.of(CommissionReported)
    assert told.execution.commission == 1.5
    assert len(office.told.of(ExecutionReported)) == 1
    (row,) = office.journal.executions(key=order.key)
    assert row.execution.commission == 1.5
    assert office.counted == [4]


def test_a_correction_takes_the_place_of_what_it_corrects(office: Office) -> None:
    """Fault 30."""
    order = office.order()
    office.router.take_executions((execution("a.b.01.01"),), "stream")
    office.router.take_executions((execution("a.b.01.02", quantity=Decimal(3), price=49.0),), "stream")
    told = office.told.of(ExecutionReported)
    assert [one.replaces for one in told] == [None, execution("a.b.01.01")]
    assert order.filled == 3
    assert sum(office.counted) == 3
    rows = office.journal.executions(key=order.key)
    assert [(row.execution.execution_id, row.superseded) for row in rows] == [
        ("a.b.01.01", True),
        ("a.b.01.02", False),
    ]


def test_a_bust_takes_it_back(office: Office) -> None:
    order = office.order()
    office.router.take_executions((execution("a.b.01.01"),), "stream")
    office.router.take_executions((execution("a.b.01.02", quantity=Decimal(0)),), "stream")
    assert order.filled == 0
    assert sum(office.counted) == 0


def test_what_a_correction_corrects_may_come_after_it(office: Office) -> None:
    order = office.order()
    office.router.take_executions((execution("a.b.01.02", quantity=Decimal(3)),), "stream")
    office.router.take_executions((execution("a.b.01.01"),), "trades")
    assert len(office.told.of(ExecutionReported)) == 1
    assert order.filled == 3


Parts = st.lists(st.tuples(st.integers(1, 4), st.integers(1, 3), st.booleans(), st.booleans()), max_size=20)


@given(Parts)
def test_any_order_of_reports_counts_the_latest_of_each_trade_once(parts: Any) -> None:
    """Trades, their corrections, with and without commission, by stream and by list."""
    office = Office()
    try:
        order = office.order()
        newest: dict[int, int] = {}
        for trade, revision, commission, streamed in parts:
            one = execution(
                f"a.b.{trade:02}.{revision:02}",
                quantity=Decimal(revision),
                commission=1.0 if commission else None,
            )
            office.router.take_executions((one,), "stream" if streamed else "trades")
            newest[trade] = max(revision, newest.get(trade, 0))
        assert order.filled == sum(newest.values()) == sum(office.counted)
        kept = [row for row in office.journal.executions(key=order.key) if not row.superseded]
        assert sum(row.execution.quantity for row in kept) == sum(newest.values())
    finally:
        office.journal.close()


def test_an_execution_shows_that_an_order_stands(office: Office) -> None:
    """Found by its key: the answer that tells its id is lost or on its way."""
    order = office.order(order_id=None)
    office.router.take_executions((execution(order_id="21", order_ref=order.key),), "stream")
    assert [type(one) for one in office.told] == [OrderPlaced, ExecutionReported]
    assert (order.order_id, order.state) == ("21", OrderState.WORKING)
    entry = office.journal.order(order.key)
    assert entry is not None
    assert (entry.order_id, entry.state) == ("21", OrderState.WORKING)
    assert entry.filled == 4


def test_a_late_execution_of_an_order_that_ended(office: Office) -> None:
    """Fault 29: it counts, and does not revive the order."""
    order = office.order()
    office.router.take_report(report(status=OrderStatus.CANCELLED))
    office.router.take_executions((execution(),), "trades")
    assert order.state is OrderState.CANCELLED
    assert order.filled == 4
    assert len(office.journal.executions(key=order.key)) == 1


# --- whose it is -------------------------------------------------------------------------------------


def test_foreign_accounts_are_left_alone(office: Office) -> None:
    """Fault 48."""
    office.router.take_report(report(account="DU9", order_id="99"))
    office.router.take_executions((execution(account="DU9", order_id="99"),), "stream")
    assert office.told == []
    assert office.counted == []
    assert office.journal.executions() == ()
    assert not office.router.external["DU9"]


def test_orders_of_other_clients(office: Office) -> None:
    """Fault 31: told without a key, kept as they stand by reports that tell only what has changed."""
    whole = report(
        order_id="99", conid=AAPL, side=Side.SELL, total_quantity=Decimal(8), status=OrderStatus.SUBMITTED
    )
    office.router.take_report(whole)
    office.router.take_report(OrderReport(order_id="99", account=ACCOUNT, filled_quantity=Decimal(3)))
    (standing,) = office.router.external[ACCOUNT].values()
    assert standing.side is Side.SELL
    assert [standing.total_quantity, standing.filled_quantity] == [8, 3]
    assert standing.status is OrderStatus.SUBMITTED
    office.router.take_executions((execution(order_id="99"),), "stream")
    office.router.take_report(report(order_id="99", status=OrderStatus.FILLED))
    assert not office.router.external[ACCOUNT]
    assert [one.key for one in office.told.of(OrderChanged)] == [None] * 3
    assert [one.key for one in office.told.of(ExecutionReported)] == [None]
    assert office.counted == [4]
    (row,) = office.journal.executions(account=ACCOUNT)
    assert row.key is None


def test_a_whole_list_says_which_orders_of_others_are_gone(office: Office) -> None:
    ours = office.order()
    office.router.take_report(report(order_id="98"))
    office.router.take_external(
        ACCOUNT,
        [report(), report(order_id="21", order_ref=ours.key), report(order_id="99"),
         report(order_id="97", status=OrderStatus.CANCELLED)],
    )  # fmt: skip
    assert list(office.router.external[ACCOUNT]) == ["99"]
    # While a conversation is under way a new one may be ours.
    office.router.begin(ACCOUNT)
    office.router.take_external(ACCOUNT, [report(order_id="99"), report(order_id="100")])
    assert list(office.router.external[ACCOUNT]) == ["99"]


def test_reports_are_kept_while_a_conversation_is_under_way(office: Office) -> None:
    """Fault 21: a bracket's child executes before the answer that tells its id."""
    office.router.begin(ACCOUNT)
    office.router.begin(ACCOUNT)
    office.router.take_executions((execution(order_id="31"),), "stream")
    office.router.take_report(report(order_id="31", status=OrderStatus.FILLED))
    office.router.take_executions((execution("z.z.01.01", order_id="99"),), "stream")
    assert office.told == []
    assert office.router.keeps_executions(ACCOUNT)
    assert office.router.knows(execution())
    office.router.end(ACCOUNT)
    assert office.told == []
    child = office.order(order_id="31")
    office.router.end(ACCOUNT)
    assert [one.key for one in office.told.of(ExecutionReported)] == [child.key, None]
    assert child.state is OrderState.FILLED
    assert not office.router.keeps_executions(ACCOUNT)
    # The stream and the list tell it again.
    office.router.take_executions((execution(order_id="31"),), "trades")
    assert len(office.told.of(ExecutionReported)) == 2


def test_conversations_of_one_account_keep_nothing_of_another(office: Office) -> None:
    office.router.attach("DU2", office.told, ())
    office.router.begin(ACCOUNT)
    office.router.take_executions((execution(account="DU2", order_id="99"),), "stream")
    assert len(office.told.of(ExecutionReported)) == 1


def test_what_was_known_at_the_start_is_no_news(office: Office) -> None:
    """The stream tells the day's executions again when it is subscribed."""
    again = Listener()
    office.router.attach("DU2", again, (execution(account="DU2"),))
    office.router.attach("DU2", again, ())
    office.router.take_executions((execution(account="DU2"),), "stream")
    assert again == []
    office.router.take_executions((execution("n.n.01.01", account="DU2", order_id="1"),), "stream")
    assert len(again) == 1


# --- states ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "state"),
    [
        (OrderStatus.FILLED, OrderState.FILLED),
        (OrderStatus.CANCELLED, OrderState.CANCELLED),
        (OrderStatus.FAILED, OrderState.REJECTED),
        (OrderStatus.PENDING_CANCEL, OrderState.WORKING),
        (OrderStatus.INACTIVE, OrderState.WORKING),
        (None, OrderState.WORKING),
    ],
)
def test_ends_are_written_down(office: Office, status: OrderStatus | None, state: OrderState) -> None:
    order = office.order()
    office.router.take_report(report(status=status, reason="because"))
    entry = office.journal.order(order.key)
    assert entry is not None
    assert order.state is entry.state is state
    assert order.ended.is_set() is (state is not OrderState.WORKING)
    assert office.told.of(OrderChanged)[0].key == order.key


def test_an_end_is_final(office: Office) -> None:
    order = office.order()
    office.router.take_report(report(status=OrderStatus.CANCELLED))
    office.router.take_report(report(status=OrderStatus.SUBMITTED))
    office.router.take_report(report(status=OrderStatus.FILLED))
    assert order.state is OrderState.CANCELLED
    assert office.alarms == []


def test_an_order_taken_for_absent_shows_up(office: Office) -> None:
    """It is adopted again, and can be cancelled if somebody had wanted that."""
    order = office.order(order_id=None)
    placed: list[Tracked] = []
    office.router.on_placed = placed.append
    office.router.note(order, OrderState.ABSENT)
    office.router.take_report(report(order_id="44", order_ref=order.key))
    assert (order.state, order.order_id) == (OrderState.WORKING, "44")
    assert placed == [order]
    assert [one.order_id for one in office.told.of(OrderPlaced)] == ["44"]


def test_a_late_report_under_a_former_id_changes_nothing(office: Office) -> None:
    """Fault 44: the order is cancelled and changed under the id that it has now."""
    order = office.order(order_id="17")
    office.router.take_report(report(order_id="18", order_ref=order.key))
    office.router.take_report(report(order_id="17"))
    office.router.take_executions((execution(order_id="17"),), "stream")
    assert order.order_id == "18"
    assert [one.order_id for one in office.told.of(OrderPlaced)] == ["18"]
    entry = office.journal.order(order.key)
    assert entry is not None
    assert entry.order_id == "18"
    assert order.filled == entry.filled == 4


# --- the journal fails -------------------------------------------------------------------------------


def test_the_journal_fails_while_ibkr_reports(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fault 95: they happened; they are told, alarmed, and written with the next."""
    order = office.order()

    def full(*_: Any, **__: Any) -> None:
        raise JournalError("The disk is full.")

    with monkeypatch.context() as broken:
        broken.setattr(office.journal, "add_executions", full)
        broken.setattr(office.journal, "note", full)
        office.router.take_executions((execution("a.b.01.01"),), "stream")
        office.router.take_report(report(status=OrderStatus.CANCELLED))
    assert [one.execution.execution_id for one in office.told.of(ExecutionReported)] == ["a.b.01.01"]
    assert order.state is OrderState.CANCELLED
    assert [kind for kind, _ in office.alarms] == ["journal-failed", "journal-failed"]
    assert office.journal.executions(key=order.key) == ()
    # There is room again; nothing new has happened.
    office.router.take_executions((), "trades")
    (row,) = office.journal.executions(key=order.key)
    assert row.execution.execution_id == "a.b.01.01"
    assert len(office.told.of(ExecutionReported)) == 1


# --- over the stream ---------------------------------------------------------------------------------


def test_an_order_of_another_client_over_the_stream(trader: Trader) -> None:
    placed = trader.emulator.do(
        "manual_order", conid=AAPL, side="BUY", quantity=5, order_type="LMT", price=40
    )
    order_id = str(placed["order_id"])
    trader.until(lambda: any(one.report.order_id == order_id for one in trader.of(OrderChanged)))
    assert {one.key for one in trader.of(OrderChanged)} == {None}
    standing = trader.on_loop(lambda: trader.desk.external_orders(ACCOUNT))
    assert [one.order_id for one in standing] == [order_id]
    trader.emulator.do("fill", order_id=placed["order_id"], price=40.0)
    trader.until(lambda: trader.of(ExecutionReported))
    assert trader.of(ExecutionReported)[0].key is None
    trader.until(lambda: trader.on_loop(lambda: trader.desk.external_orders(ACCOUNT)) == ())
    assert trader.believed() == trader.held() == 5
    # Nothing is ever sent about it.
    assert trader.asked("POST", "/orders") == []
    assert trader.asked("DELETE", "/order/") == []


def test_a_correction_over_the_stream(trader: Trader) -> None:
    trader.quote()
    key = trader.stands(order_type=OrderType.MARKET)
    trader.until(lambda: trader.told(ExecutionReported, key))
    first = trader.told(ExecutionReported, key)[0].execution
    trader.emulator.do("correct", execution_id=first.execution_id, quantity=6.0)
    trader.until(lambda: len(trader.told(ExecutionReported, key)) == 2)
    second = trader.told(ExecutionReported, key)[1]
    assert second.replaces.execution_id == first.execution_id
    assert second.execution.quantity == 6
    assert trader.believed() == trader.held() == 6
    assert trader.record(key).filled == 6
    trader.emulator.do("bust", execution_id=second.execution.execution_id)
    trader.until(lambda: len(trader.told(ExecutionReported, key)) == 3)
    assert trader.believed() == trader.held() == 0


def test_a_commission_that_comes_later_over_the_stream(trader: Trader) -> None:
    trader.quote()
    late = trader.fault("commissions")
    key = trader.stands(order_type=OrderType.MARKET)
    trader.until(lambda: trader.told(ExecutionReported, key))
    trader.settle()
    assert trader.of(CommissionReported) == []
    trader.clear(late)
    trader.until(lambda: trader.of(CommissionReported))
    assert trader.of(CommissionReported)[0].execution.commission == 1.0


def test_ibkr_liquidates(trader: Trader) -> None:
    """Fault 34: it is told, and nothing trades against it."""
    trader.quote()
    key = trader.stands(order_type=OrderType.MARKET)
    trader.until(lambda: trader.told(ExecutionReported, key))
    trader.emulator.do("liquidate")
    trader.until(lambda: trader.alarms("liquidation"))
    trader.until(lambda: trader.on_loop(lambda: trader.desk.journal.trading_state().mode) is Trading.HALTED)
    assert trader.believed() == trader.held() == 0
    refused = trader.send(trader.intent())
    assert "liquidat" in trader.failure(refused).message
