"""Cancellations and modifications: what was asked, what was done, and what is not known."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bt_ibkr.connection.interface import (
    CancelFailed,
    ExecutionReported,
    ModifyFailed,
    OrderChanged,
    OrderModified,
    OrderPlaced,
)
from bt_ibkr.desk import changes
from bt_ibkr.desk.changes import shows
from bt_ibkr.errors import JournalError, OrderRefusedError, OutcomeUnknownError
from bt_ibkr.model.intent import OrderState
from bt_ibkr.model.order import OrderReport, OrderStatus, TimeInForce
from tests.desk.conftest import ONE_ORDER, SUBMISSIONS, ticket

if TYPE_CHECKING:
    from tests.desk.conftest import Trader

ONE_QUESTION = [[{"id": "o163", "text": "The price is far from the market. Are you sure?"}]]
UNKNOWN_QUESTION = [[{"id": "o99999", "text": "Unheard of. Are you sure?"}]]


@pytest.fixture(autouse=True)
def quick_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "_PAUSES_S", (0.02,) * 4)


# --- cancellation ------------------------------------------------------------------------------------


def test_cancelled(trader: Trader) -> None:
    key = trader.stands()
    trader.cancel(key)
    trader.until(lambda: trader.ended(key))
    assert trader.record(key).state is OrderState.CANCELLED
    assert trader.theirs(alive=True) == []
    assert "cancel-asked" in trader.log(key)


def test_an_order_nobody_knows_cannot_be_cancelled(trader: Trader) -> None:
    trader.cancel("tested.zzzzz.9")
    trader.until(lambda: trader.told(CancelFailed, "tested.zzzzz.9"))
    assert trader.asked("DELETE", "/order/") == []


def test_cancelled_before_its_id_is_known(trader: Trader) -> None:
    """The answer is on its way: the cancellation follows as soon as the id is there."""
    trader.fault("http", action="delay", method="POST", path=SUBMISSIONS, delay_s=60.0)
    trader.fault("silence", topic="sor")
    key = trader.send(trader.intent())
    trader.until(trader.theirs)
    trader.cancel(key)
    trader.on_loop(lambda: None)
    assert trader.asked("DELETE", "/order/") == []
    trader.clear()
    trader.until(lambda: trader.ended(key))
    assert len(trader.asked("DELETE", "/order/")) == 1


def test_cancelled_while_its_outcome_is_not_known(trader: Trader) -> None:
    """The report that shows that it stands leads to its cancellation."""
    trader.lose()
    hidden = trader.fault("order_list", action="vanish")
    silent = trader.fault("frames", action="drop", topic="sor", count=0)
    key = trader.send(trader.intent())
    assert isinstance(trader.failure(key), OutcomeUnknownError)
    trader.cancel(key)
    trader.clear(silent)
    trader.clear(hidden)
    trader.until(lambda: trader.ended(key))
    assert trader.record(key).state is OrderState.CANCELLED


@pytest.mark.parametrize("processed", [True, False])
def test_a_cancellation_without_an_answer_is_asked_again(trader: Trader, processed: bool) -> None:
    """Fault 40: asking twice does no harm; that it was done once is no failure."""
    key = trader.stands()
    trader.lose("DELETE", ONE_ORDER, action="reset", processed=processed)
    trader.cancel(key)
    trader.until(lambda: trader.ended(key))
    trader.settle()
    assert trader.told(CancelFailed, key) == []
    assert trader.record(key).state is OrderState.CANCELLED


def test_a_cancellation_that_is_never_answered_is_told(trader: Trader) -> None:
    key = trader.stands()
    trader.lose("DELETE", ONE_ORDER, action="reset", processed=False, count=0)
    trader.cancel(key)
    trader.until(lambda: trader.told(CancelFailed, key))
    assert isinstance(trader.told(CancelFailed, key)[0].error, OutcomeUnknownError)
    assert len(trader.asked("DELETE", "/order/")) >= 3
    assert trader.record(key).state is OrderState.WORKING


def test_a_cancellation_that_is_refused_is_told(trader: Trader) -> None:
    key = trader.stands()
    trader.fault(
        "http", action="error", text="OrderID 1 cannot be cancelled", method="DELETE", path=ONE_ORDER
    )
    trader.cancel(key)
    trader.until(lambda: trader.told(CancelFailed, key))
    error = trader.told(CancelFailed, key)[0].error
    assert isinstance(error, OrderRefusedError)
    assert "cannot be cancelled" in error.message
    assert trader.record(key).state is OrderState.WORKING


def test_a_cancellation_that_crosses_the_fill(trader: Trader) -> None:
    """The stream is late: the refusal leads to the order's own status."""
    key = trader.stands()
    trader.fault("frames", action="drop", topic="sor", count=0)
    (row,) = trader.theirs()
    trader.emulator.do("fill", order_id=row["order_id"], price=50.0)
    trader.cancel(key)
    trader.until(lambda: trader.ended(key, OrderStatus.FILLED))
    assert trader.record(key).state is OrderState.FILLED
    trader.until(lambda: trader.told(ExecutionReported, key))
    assert trader.believed() == 10


# --- modification ------------------------------------------------------------------------------------


def test_modified(trader: Trader) -> None:
    key = trader.stands()
    wanted = trader.modify(key, limit_price=51.0, quantity=Decimal(7))
    trader.until(lambda: trader.told(OrderModified, key))
    assert trader.told(OrderModified, key)[0].ticket == wanted
    (theirs,) = trader.theirs()
    assert (theirs["limit_price"], theirs["quantity"]) == (51.0, "7")
    assert trader.record(key).intent.ticket == wanted
    assert trader.log(key).index("modify-asked") < trader.log(key).index("ticket")


def test_a_modification_is_asked_about(trader: Trader) -> None:
    key = trader.stands()
    trader.fault("questions", chain=ONE_QUESTION, on="modify")
    trader.modify(key, limit_price=51.0)
    trader.until(lambda: trader.told(OrderModified, key))
    assert len(trader.asked("POST", "/reply")) == 1
    assert trader.theirs()[0]["limit_price"] == 51.0


def test_a_modification_whose_question_is_declined(trader: Trader) -> None:
    key = trader.stands()
    trader.fault("questions", chain=UNKNOWN_QUESTION, on="modify")
    trader.modify(key, limit_price=51.0)
    trader.until(lambda: trader.told(ModifyFailed, key))
    assert "o99999" in trader.told(ModifyFailed, key)[0].error.message
    assert trader.theirs()[0]["limit_price"] == 50.0
    assert trader.record(key).intent.ticket.limit_price == 50.0
    assert trader.record(key).state is OrderState.WORKING


def test_a_modification_that_is_refused(trader: Trader) -> None:
    key = trader.stands()
    trader.fault("http", action="error", text="Price is not accepted", method="POST", path=ONE_ORDER)
    trader.modify(key, limit_price=51.0)
    trader.until(lambda: trader.told(ModifyFailed, key))
    assert isinstance(trader.told(ModifyFailed, key)[0].error, OrderRefusedError)
    assert "modify-refused" in trader.log(key)
    assert trader.record(key).intent.ticket.limit_price == 50.0
    # The next one is made of the order as it stands.
    trader.modify(key, limit_price=52.0)
    trader.until(lambda: trader.told(OrderModified, key))
    assert trader.theirs()[0]["limit_price"] == 52.0


@pytest.mark.parametrize("field", ["limit_price", "quantity"])
def test_a_modification_without_an_answer_that_was_made(trader: Trader, field: str) -> None:
    """Fault 42: the order's own figures prove it."""
    key = trader.stands()
    trader.lose("POST", ONE_ORDER)
    changed: dict[str, Any] = {field: 51.0 if field == "limit_price" else Decimal(7)}
    wanted = trader.modify(key, **changed)
    trader.until(lambda: trader.told(OrderModified, key))
    assert trader.record(key).intent.ticket == wanted
    assert len(trader.asked("POST", "/order/")) == 1


def test_a_modification_without_an_answer_that_was_not_made(trader: Trader) -> None:
    key = trader.stands()
    trader.lose("POST", ONE_ORDER, action="reset", processed=False)
    looks = len(trader.asked("GET", "/order/status"))
    trader.modify(key, limit_price=51.0)
    trader.until(lambda: trader.told(ModifyFailed, key))
    assert isinstance(trader.told(ModifyFailed, key)[0].error, OrderRefusedError)
    assert len(trader.asked("POST", "/order/")) == 1
    assert trader.record(key).intent.ticket.limit_price == 50.0
    # That it stands as it was is not believed at once: the change may be on its way.
    assert len(trader.asked("GET", "/order/status")) - looks > 1


def test_a_modification_that_is_made_late(trader: Trader) -> None:
    """It is carried out only after the first look."""
    key = trader.stands()
    (row,) = trader.theirs()
    trader.lose("POST", ONE_ORDER, action="reset", processed=False)
    trader.fault(
        "http", action="delay", method="GET", path="/iserver/account/order/status/*", skip=1, delay_s=0.2,
        processed=False,
    )  # fmt: skip
    trader.modify(key, limit_price=51.0)
    trader.until(lambda: trader.asked("GET", "/order/status"))
    trader.emulator.do("manual_modify", order_id=row["order_id"], price=51.0)
    trader.until(lambda: trader.told(OrderModified, key))
    assert trader.told(ModifyFailed, key) == []


def test_a_modification_whose_effect_cannot_be_seen_is_not_known(trader: Trader) -> None:
    """Nothing that IBKR tells of an order shows it: no claim is made."""
    key = trader.stands()
    trader.lose("POST", ONE_ORDER)
    trader.modify(key, outside_regular_hours=True)
    trader.until(lambda: trader.told(ModifyFailed, key))
    assert isinstance(trader.told(ModifyFailed, key)[0].error, OutcomeUnknownError)
    assert "modify-unknown" in trader.log(key)


def test_a_modification_without_an_answer_where_nothing_can_be_read(trader: Trader) -> None:
    key = trader.stands()
    trader.lose("POST", ONE_ORDER)
    trader.fault("order_status", finished=False)
    trader.fault("order_list", action="vanish")
    trader.modify(key, limit_price=51.0)
    trader.until(lambda: trader.told(ModifyFailed, key))
    assert isinstance(trader.told(ModifyFailed, key)[0].error, OutcomeUnknownError)
    assert trader.record(key).state is OrderState.WORKING


def test_a_modification_without_an_answer_of_an_order_that_filled(trader: Trader) -> None:
    """Fault 43: executions settle it."""
    key = trader.stands()
    (row,) = trader.theirs()
    trader.emulator.do("fill", order_id=row["order_id"], quantity=4.0, price=50.0)
    trader.until(lambda: trader.told(ExecutionReported, key))
    trader.fault("frames", action="drop", topic="sor", count=0)
    trader.emulator.do("fill", order_id=row["order_id"], price=50.0)
    trader.lose("POST", ONE_ORDER, action="reset", processed=False)
    trader.modify(key, limit_price=51.0)
    trader.until(lambda: trader.told(ModifyFailed, key))
    assert "ended" in trader.told(ModifyFailed, key)[0].error.message
    trader.until(lambda: trader.ended(key, OrderStatus.FILLED))
    assert trader.record(key).filled == 10
    assert trader.believed() == 10


@pytest.mark.parametrize("lost", [False, True])
def test_ibkr_gives_a_changed_order_another_id(trader: Trader, lost: bool) -> None:
    """Fault 44: reports under either id are its own, also where the answer did not come."""
    key = trader.stands()
    former = trader.record(key).order_id
    trader.fault("new_order_id")
    if lost:
        trader.fault("silence", topic="sor")
        trader.lose("POST", ONE_ORDER)
    trader.modify(key, limit_price=51.0)
    trader.until(lambda: trader.told(OrderModified, key))
    (theirs,) = trader.theirs(alive=True)
    latest = trader.told(OrderPlaced, key)[-1].order_id
    assert latest == str(theirs["order_id"]) != former
    assert trader.record(key).order_id == latest
    trader.clear()
    trader.cancel(key)
    trader.until(lambda: trader.theirs(alive=True) == [])
    trader.until(lambda: trader.ended(key))
    assert trader.record(key).state is OrderState.CANCELLED
    assert all(event.key == key for event in trader.of(OrderChanged))


@pytest.mark.parametrize("how", ["unknown", "ended", "no id"])
def test_what_does_not_stand_cannot_be_modified(trader: Trader, how: str) -> None:
    key = "tested.zzzzz.9"
    if how == "ended":
        key = trader.stands()
        trader.cancel(key)
        trader.until(lambda: trader.ended(key))
    elif how == "no id":
        trader.fault("silence", topic="sor")
        trader.fault("order_list", action="vanish")
        trader.lose()
        key = trader.send(trader.intent())
        trader.failure(key)
    trader.modify(key, limit_price=51.0)
    trader.until(lambda: trader.told(ModifyFailed, key))
    assert trader.asked("POST", "/order/") == []


def test_a_modification_that_cannot_be_written_down_is_not_sent(
    trader: Trader, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = trader.stands()

    def full(*_: Any, **__: Any) -> None:
        raise JournalError("The disk is full.")

    monkeypatch.setattr(trader.desk.journal, "note_event", full)
    trader.modify(key, limit_price=51.0)
    trader.until(lambda: trader.told(ModifyFailed, key))
    assert "on record" in trader.told(ModifyFailed, key)[0].error.message
    assert trader.asked("POST", "/order/") == []


PRICES = st.sampled_from([10.0, 11.0, 12.0])
TOLD = st.none() | PRICES


@given(st.tuples(PRICES, PRICES, TOLD), st.tuples(PRICES, PRICES, TOLD))
def test_figures_prove_only_what_they_tell(
    price: tuple[float, float, float | None], size: tuple[float, float, float | None]
) -> None:
    """Before, asked for, and told."""
    old = ticket(limit_price=price[0], quantity=Decimal(size[0]))
    new = ticket(limit_price=price[1], quantity=Decimal(size[1]), time_in_force=TimeInForce.DAY)
    told = OrderReport(
        order_id="1", limit_price=price[2], total_quantity=None if size[2] is None else Decimal(size[2])
    )
    useful = [one for one in (price, size) if one[2] is not None and one[0] != one[1]]
    verdict = None
    if useful and all(is_ == after for _, after, is_ in useful):
        verdict = True
    elif useful and all(is_ == before for before, _, is_ in useful):
        verdict = False
    assert shows(told, old, new) is verdict
