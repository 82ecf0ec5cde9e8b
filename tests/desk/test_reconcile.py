"""Reading an account again: at the start of a run, when asked, by the clock.

IBKR is believed, what was not read proves nothing, and nothing is ever sent from it.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from bt_ibkr.connection.interface import (
    ExecutionReported,
    OrderChanged,
    OrderFailed,
    OrderPlaced,
    Reconciled,
)
from bt_ibkr.desk.reconcile import GRACE_S
from bt_ibkr.errors import BtIbkrError
from bt_ibkr.model.intent import OrderState
from bt_ibkr.model.order import OrderStatus, OrderType, Side
from tests.connection.conftest import ACCOUNT
from tests.desk.conftest import AAPL

if TYPE_CHECKING:
    from tests.desk.conftest import Trade, Trader


def bought(trader: Trader, quantity: int = 10) -> str:
    """A market order that executed, and was told."""
    trader.quote()
    key = trader.stands(order_type=OrderType.MARKET, quantity=Decimal(quantity))
    trader.until(lambda: trader.told(ExecutionReported, key))
    trader.until(lambda: trader.ended(key, OrderStatus.FILLED))
    return key


def kinds(result: Reconciled) -> list[str]:
    return [one.kind for one in result.differences]


# --- while running -----------------------------------------------------------------------------------


def test_nothing_to_tell(trader: Trader) -> None:
    key = bought(trader)
    trader.wait_out(GRACE_S + 1)
    result = trader.reconciled()
    assert result.complete
    assert result.differences == ()
    assert result.positions is not None
    assert [one.quantity for one in result.positions] == [10]
    assert len(trader.told(ExecutionReported, key)) == 1
    assert len(trader.asked("POST", "/orders")) == 1


def test_executions_that_the_stream_lost(trader: Trader) -> None:
    """Faults 22 and 26: told once, by their own time, with the order's end."""
    trader.quote()
    for topic in ("str", "sor"):
        trader.fault("silence", topic=topic)
    key = trader.stands(order_type=OrderType.MARKET)
    trader.until(lambda: trader.held() == 10)
    assert trader.told(ExecutionReported, key) == []
    result = trader.reconciled()
    assert kinds(result) == ["execution"]
    assert len(trader.told(ExecutionReported, key)) == 1
    assert trader.record(key).state is OrderState.FILLED
    assert trader.believed() == 10
    # They are told before the result of the reading.
    order = [type(event) for event in trader.events]
    assert order.index(ExecutionReported) < order.index(Reconciled)
    assert trader.reconciled().differences == ()
    assert len(trader.told(ExecutionReported, key)) == 1


@pytest.mark.parametrize("action", ["shuffle", "duplicate"])
def test_a_list_of_trades_that_is_odd(trader: Trader, action: str) -> None:
    trader.quote()
    trader.fault("silence", topic="str")
    trader.fault("trades", action=action)
    keys = [trader.stands(order_type=OrderType.MARKET, quantity=Decimal(n)) for n in (1, 2, 3)]
    trader.until(lambda: trader.held() == 6)
    trader.reconciled()
    assert [len(trader.told(ExecutionReported, key)) for key in keys] == [1, 1, 1]
    assert trader.believed() == 6


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "positions", "action": "fail"},
        {"kind": "order_list", "action": "empty", "snapshot": False},
        {"kind": "http", "action": "status", "path": "/iserver/account/trades", "count": 0},
        {"kind": "http", "action": "error", "path": "/portfolio/*/ledger", "text": "no", "count": 0},
        {"kind": "http", "action": "html", "path": "/iserver/account/orders", "count": 0},
        {"kind": "http", "action": "malformed", "path": "/portfolio/*/positions/*", "count": 0},
    ],
)
def test_what_cannot_be_read_proves_nothing(trader: Trader, fault: dict[str, Any]) -> None:
    """Faults 46, 47 and 49: a failed query is never "flat"."""
    key = bought(trader)
    resting = trader.stands()
    trader.wait_out(GRACE_S + 1)
    trader.fault(**fault)
    result = trader.reconciled()
    assert not result.complete
    assert result.problem
    assert result.positions is None
    assert result.differences == ()
    assert trader.believed() == 10
    assert trader.record(resting).state is OrderState.WORKING
    assert len(trader.alarms("unread")) == 1
    trader.reconciled()
    assert len(trader.alarms("unread")) == 1
    trader.clear()
    assert trader.reconciled().complete
    assert len(trader.alarms("reread")) == 1
    assert len(trader.told(ExecutionReported, key)) == 1


def test_stocks_that_are_valued_but_not_listed(trader: Trader) -> None:
    """Fault 47: the empty list cannot be whole."""
    bought(trader)
    trader.wait_out(GRACE_S + 1)
    trader.fault("positions", action="empty")
    result = trader.reconciled()
    assert not result.complete
    assert "not whole" in result.problem
    assert trader.believed() == 10


def test_a_list_of_orders_without_an_order_is_no_end(trader: Trader) -> None:
    """Faults 10 and 45: only its status or its executions end it."""
    key = trader.stands()
    trader.fault("order_list", action="vanish")
    assert trader.reconciled().complete
    assert trader.record(key).state is OrderState.WORKING
    trader.fault("order_status", finished=False)
    assert trader.reconciled().complete
    assert trader.record(key).state is OrderState.WORKING
    assert trader.told(OrderFailed, key) == []


def test_an_order_that_ended_unheard_and_left_the_list(trader: Trader) -> None:
    """Its status tells."""
    key = trader.stands()
    trader.fault("silence", topic="sor")
    trader.fault("order_list", action="vanish")
    trader.emulator.do("system_cancel", order_id=int(trader.record(key).order_id or 0))
    assert trader.reconciled().complete
    assert trader.ended(key)
    assert trader.record(key).state is OrderState.CANCELLED


def test_positions_that_lag_their_executions(trader: Trader) -> None:
    """Fault 50: for a while the executions are believed, then IBKR."""
    bought(trader)
    lag = trader.fault("positions", action="lag", invalidate=False)
    bought(trader, 5)
    result = trader.reconciled()
    assert (result.complete, result.positions, kinds(result)) == (True, None, [])
    assert trader.believed() == 15
    trader.wait_out(GRACE_S + 1)
    (difference,) = trader.reconciled().differences
    assert [Decimal(difference.recorded), Decimal(difference.reported)] == [15, 10]
    assert trader.believed() == 10
    trader.clear(lag)
    assert kinds(trader.reconciled()) == ["position"]
    assert trader.believed() == trader.held() == 15


def test_ibkr_is_believed_in_the_end(trader: Trader) -> None:
    """Both sides are told, once; no order is made of it."""
    bought(trader)
    trader.emulator.do("split", conid=AAPL, numerator=4)
    trader.wait_out(GRACE_S + 1)
    result = trader.reconciled()
    (difference,) = result.differences
    assert (difference.kind, difference.subject) == ("position", str(AAPL))
    assert [Decimal(difference.recorded), Decimal(difference.reported)] == [10, 40]
    assert trader.believed() == trader.held() == 40
    assert trader.reconciled().differences == ()
    assert len(trader.asked("POST", "/orders")) == 1


def test_orders_of_others_are_adopted_and_let_go(trader: Trader) -> None:
    trader.fault("silence", topic="sor")
    placed = trader.emulator.do(
        "manual_order", conid=AAPL, side="BUY", quantity=5, order_type="LMT", price=40
    )
    trader.reconciled()
    standing = trader.on_loop(lambda: trader.desk.external_orders(ACCOUNT))
    assert [one.order_id for one in standing] == [str(placed["order_id"])]
    # It is gone from the list as well.
    trader.emulator.do("manual_cancel", order_id=placed["order_id"])
    trader.fault("order_list", action="vanish")
    trader.reconciled()
    assert trader.on_loop(lambda: trader.desk.external_orders(ACCOUNT)) == ()
    assert {event.key for event in trader.of(OrderChanged)} == {None}


@pytest.mark.parametrize("account", ["", "U7654321"])
def test_orders_of_other_accounts_in_the_list(trader: Trader, account: str) -> None:
    """Fault 48."""
    trader.fault("order_list", action="foreign", account=account or "DU7", rows=3)
    assert trader.reconciled().complete
    assert trader.of(OrderChanged) == []
    assert trader.on_loop(lambda: trader.desk.external_orders(ACCOUNT)) == ()


def test_executions_that_wait_for_their_order_are_in_no_position_yet(trader: Trader) -> None:
    """A reading while a conversation is under way counts nothing twice."""
    trader.quote()
    trader.wait_out(GRACE_S + 1)
    held = trader.fault("http", action="delay", method="POST", path="/iserver/account/*/orders", delay_s=60.0)
    trader.send(trader.intent())
    trader.until(trader.theirs)
    # Meanwhile another client buys: nobody knows whose it is.
    trader.emulator.do("manual_order", conid=AAPL, side="BUY", quantity=5)
    trader.until(lambda: trader.on_loop(lambda: trader.desk._router.keeps_executions(ACCOUNT)))
    before = len(trader.of(Reconciled))
    trader.connection.reconcile(ACCOUNT)
    trader.until(lambda: len(trader.of(Reconciled)) > before)
    result = trader.of(Reconciled)[-1]
    assert (result.complete, result.positions, kinds(result)) == (True, None, [])
    trader.clear(held)
    trader.until(lambda: trader.of(ExecutionReported))
    assert trader.believed() == trader.held() == 5


def test_the_clock_finds_what_a_mute_stream_lost(trade: Trade) -> None:
    """Fault 75: the account is read from time to time."""
    trader = trade(mute_s=0.05)
    trader.quote()
    for topic in ("str", "sor"):
        trader.fault("silence", topic=topic)
    key = trader.stands(order_type=OrderType.MARKET)
    trader.wait_out(60)
    trader.until(lambda: trader.told(ExecutionReported, key))
    trader.until(lambda: trader.alarms("mute"))
    trader.until(lambda: trader.record(key).state is OrderState.FILLED)


# --- at the start of a run ---------------------------------------------------------------------------


def test_a_run_finds_the_orders_of_the_one_before(trade: Trade) -> None:
    first = trade()
    key = first.stands()
    ended = first.stands(limit_price=49.0)
    part = first.stands(limit_price=48.0)
    first.connection.close()
    ids = {row["client_order_id"]: row["order_id"] for row in first.theirs()}
    first.emulator.do("system_cancel", order_id=ids[ended])
    first.emulator.do("fill", order_id=ids[part], quantity=4.0, price=48.0)
    second = trade()
    standing = {one.intent.key: one for one in second.snapshot.standing}
    assert standing.keys() == {key, ended, part}
    assert [standing[one].open for one in (key, ended, part)] == [True, False, True]
    assert all(one.known for one in standing.values())
    assert standing[ended].status is OrderStatus.CANCELLED
    assert [one.quantity for one in standing[part].executions] == [4]
    assert second.record(ended).state is OrderState.CANCELLED
    assert second.record(part).filled == 4
    assert second.snapshot.differences == ()
    assert second.believed() == 4
    assert second.snapshot.sequences["tested"] == 4
    # The stream tells the day's executions again: they are no news.
    second.settle()
    assert second.of(ExecutionReported) == []
    # Its reports belong to it, and it can be cancelled.
    second.cancel(key)
    second.until(lambda: second.ended(key))
    second.emulator.do("fill", order_id=ids[part], price=48.0)
    second.until(lambda: second.ended(part, OrderStatus.FILLED))
    assert second.record(part).filled == 10
    assert second.believed() == second.held() == 10
    # What ended is not told again in the next.
    second.connection.close()
    assert trade().snapshot.standing == ()


def test_a_run_that_died_before_the_answer(trade: Trade) -> None:
    """The order stands, and the journal has no id: it is found by its key, the children by their parent."""
    first = trade()
    first.fault("http", action="hold", method="POST", path="/iserver/account/*/orders", processed=True)
    first.fault("silence", topic="sor")
    bracket = first.bracket()
    first.send(*bracket)
    first.until(first.theirs)
    first.connection.close()
    assert {first.record(one.key).state for one in bracket} == {OrderState.INTENDED}
    first.clear()
    second = trade()
    standing = {one.intent.key: one for one in second.snapshot.standing}
    prices = {str(row["order_id"]): row["limit_price"] or row["stop_price"] for row in second.theirs()}
    assert [prices[standing[one.key].order_id or ""] for one in bracket] == [50.0, 150.0, 40.0]
    assert all(one.open and one.known for one in standing.values())
    assert {second.record(one.key).state for one in bracket} == {OrderState.WORKING}
    assert len(second.asked("POST", "/orders")) == 1


def test_executions_of_an_order_whose_answer_nobody_saw(trade: Trade) -> None:
    first = trade()
    first.quote()
    first.fault("http", action="hold", method="POST", path="/iserver/account/*/orders", processed=True)
    for topic in ("sor", "str"):
        first.fault("silence", topic=topic)
    key = first.send(first.intent(order_type=OrderType.MARKET))
    first.until(lambda: first.held() == 10)
    first.connection.close()
    first.clear()
    second = trade()
    (left,) = second.snapshot.standing
    assert (left.intent.key, left.open, left.known) == (key, False, True)
    assert [one.quantity for one in left.executions] == [10]
    assert second.record(key).state is OrderState.FILLED
    assert second.snapshot.differences == ()
    second.settle()
    assert second.of(ExecutionReported) == []
    assert second.believed() == 10


def test_an_order_taken_for_absent_that_shows_up_after_all(trade: Trade) -> None:
    """Fault 46 at the start: the list was empty, and the report tells better."""
    first = trade()
    first.fault("http", action="hold", method="POST", path="/iserver/account/*/orders", processed=True)
    first.fault("silence", topic="sor")
    key = first.send(first.intent())
    first.until(first.theirs)
    first.connection.close()
    first.clear()
    hidden = first.fault("order_list", action="empty", snapshot=True)
    second = trade()
    (left,) = second.snapshot.standing
    assert (left.open, left.known) == (False, False)
    assert second.record(key).state is OrderState.ABSENT
    assert [one.kind for one in second.snapshot.differences] == ["order"]
    second.clear(hidden)
    second.reconciled()
    assert second.told(OrderPlaced, key)
    assert second.record(key).state is OrderState.WORKING
    second.cancel(key)
    second.until(lambda: second.ended(key))


def test_executions_told_again_although_the_list_left_them_out(trade: Trade) -> None:
    """The list of trades was empty at the start; the stream's replay brings what the journal has: no news."""
    first = trade()
    bought(first)
    first.connection.close()
    first.fault("trades", action="empty")
    second = trade()
    assert second.believed() == 10
    assert second.snapshot.differences == ()
    second.settle()
    assert second.of(ExecutionReported) == []
    assert second.believed() == second.held() == 10


def test_a_position_that_changed_while_nobody_watched(trade: Trade) -> None:
    first = trade()
    bought(first)
    first.wait_out(GRACE_S + 1)
    first.reconciled()
    first.connection.close()
    # What another client did is an execution, and no difference; a split is one.
    first.emulator.do("manual_order", conid=AAPL, side="BUY", quantity=5)
    second = trade()
    assert second.snapshot.differences == ()
    assert second.believed() == 15
    second.connection.close()
    second.emulator.do("split", conid=AAPL, numerator=2)
    third = trade()
    (difference,) = third.snapshot.differences
    assert [Decimal(difference.recorded), Decimal(difference.reported)] == [15, 30]
    assert third.believed() == third.held() == 30


@pytest.mark.parametrize("watched", [False, True])
@pytest.mark.parametrize("quantity", [6, 0])
def test_a_correction_of_what_the_positions_contained(trade: Trade, watched: bool, quantity: int) -> None:
    """Fault 30: it takes the place of the execution, whether this run or the next hears of it."""
    first = trade()
    key = bought(first)
    first.wait_out(GRACE_S + 1)
    assert first.reconciled().positions
    execution = first.told(ExecutionReported, key)[0].execution

    def correct() -> None:
        if quantity:
            first.emulator.do("correct", execution_id=execution.execution_id, quantity=quantity)
        else:
            first.emulator.do("bust", execution_id=execution.execution_id)

    if watched:
        correct()
        first.until(lambda: len(first.told(ExecutionReported, key)) == 2)
    first.connection.close()
    if not watched:
        correct()
    second = trade()
    assert second.snapshot.differences == ()
    assert second.believed() == second.held() == quantity
    second.settle()
    assert second.of(ExecutionReported) == []


def test_a_start_that_cannot_read_the_account_fails(trade: Trade) -> None:
    """And leaves the record as it is."""
    first = trade()
    key = first.stands()
    first.connection.close()
    first.fault("positions", action="fail")
    second = trade(attached=False)
    with pytest.raises(BtIbkrError):
        second.attach()
    assert first.record(key).state is OrderState.WORKING
    second.clear()
    (left,) = second.attach().standing
    assert left.intent.key == key


def test_orders_of_others_that_stand_at_the_start(trade: Trade) -> None:
    """The stream gives no picture of them."""
    looker = trade(attached=False)
    looker.emulator.do("manual_order", conid=AAPL, side="BUY", quantity=5, order_type="LMT", price=40)
    looker.attach()
    (standing,) = looker.on_loop(lambda: looker.desk.external_orders(ACCOUNT))
    assert (standing.side, standing.total_quantity) == (Side.BUY, 5)
    assert [one.order_id for one in looker.snapshot.orders] == [standing.order_id]


def test_an_account_that_is_attached_again_keeps_what_is_under_way(trader: Trader) -> None:
    """A second run on the same connection: orders of the first are its own now, and none is taken for lost."""
    held = trader.fault("http", action="delay", method="POST", path="/iserver/account/*/orders", delay_s=60.0)
    trader.fault("silence", topic="sor")
    key = trader.send(trader.intent())
    trader.until(trader.theirs)
    trader.attach()
    assert trader.record(key).state is OrderState.INTENDED
    trader.clear(held)
    trader.until(lambda: trader.told(OrderPlaced, key))
    assert trader.record(key).state is OrderState.WORKING
    (left,) = trader.attach().standing
    assert (left.intent.key, left.open) == (key, True)
    trader.clear()
    trader.cancel(key)
    trader.until(lambda: trader.ended(key))


def test_an_account_that_is_attached_again_while_positions_lag(trader: Trader) -> None:
    """What executed since IBKR's positions is not forgotten."""
    bought(trader)
    trader.fault("positions", action="lag", invalidate=False)
    bought(trader, 5)
    trader.attach()
    assert trader.believed() == trader.held() == 15


def test_positions_that_lag_at_the_start(trade: Trade) -> None:
    """A run that begins right after another one has bought: it sees what was bought, and buys it no second time."""
    first = trade()
    bought(first, 5)
    lagging = first.fault("positions", action="lag", lag_s=0, invalidate=False)
    bought(first, 10)
    first.connection.close()
    second = trade()
    assert [(one.conid, one.quantity) for one in second.snapshot.positions] == [(AAPL, Decimal(15))]
    assert second.snapshot.differences == ()
    assert second.believed() == 15
    # Nor does a later reading turn it back while they lag; then they agree.
    assert second.reconciled().positions is None
    second.clear(lagging)
    second.wait_out(GRACE_S + 1)
    result = second.reconciled()
    assert result.differences == ()
    assert second.believed() == 15


def test_a_position_that_differs_at_the_start_is_none_that_lags(trade: Trade) -> None:
    """Right after an execution, but not by it: it is told."""
    first = trade()
    bought(first, 10)
    first.emulator.do("split", conid=AAPL, numerator=2, denominator=1)
    first.connection.close()
    second = trade()
    assert [one.quantity for one in second.snapshot.positions] == [20]
    assert [(one.recorded, one.reported) for one in second.snapshot.differences] == [("10", "20")]
