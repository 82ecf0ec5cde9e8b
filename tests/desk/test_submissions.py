"""Submissions: on record before they leave, sent once, looked up where the answer is lost."""

from __future__ import annotations

import threading
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from bt_ibkr.connection.interface import (
    ExecutionReported,
    OrderFailed,
    OrderPlaced,
)
from bt_ibkr.errors import JournalLockedError, OrderRefusedError, OutcomeUnknownError, TradingHaltedError
from bt_ibkr.journal import Journal
from bt_ibkr.model.intent import OrderState
from bt_ibkr.model.order import OrderStatus, OrderType, Side
from bt_ibkr.model.trading import Trading
from bt_ibkr.risk import RiskLimits
from bt_ibkr.services.questions import QuestionPolicy
from tests.desk.conftest import REPLIES, SUBMISSIONS

if TYPE_CHECKING:
    from tests.desk.conftest import Trade, Trader

#: What the policy accepts.
KNOWN = [{"id": "o163", "text": "The price is far from the market. Are you sure?"}]


def test_an_order_is_on_record_before_it_leaves(trader: Trader, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []
    real = trader.desk._service.place

    async def place(tickets: Any, check: Any) -> Any:
        seen.append([one.client_order_id for one in tickets])
        assert trader.record(tickets[0].client_order_id).state is OrderState.INTENDED
        return await real(tickets, check)

    monkeypatch.setattr(trader.desk._service, "place", place)
    key = trader.stands()
    assert seen == [[key]]
    (theirs,) = trader.theirs()
    record = trader.record(key)
    assert (record.state, record.order_id) == (OrderState.WORKING, str(theirs["order_id"]))
    assert theirs["client_order_id"] == key
    assert [one.order_id for one in trader.told(OrderPlaced, key)] == [record.order_id]


def test_an_order_that_cannot_be_written_down_is_not_sent(
    trader: Trader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault 95: the disk is full."""
    trader.on_loop(lambda: setattr(trader.desk.journal, "reserve_bytes", 1 << 62))
    error = trader.failure(trader.send(trader.intent()))
    assert isinstance(error, OrderRefusedError)
    assert "on record" in error.message
    assert trader.asked("POST", "/orders") == []
    # Room was made.
    trader.on_loop(lambda: setattr(trader.desk.journal, "reserve_bytes", 0))
    assert trader.stands()


def test_an_order_under_a_key_that_was_used_is_not_sent(trader: Trader) -> None:
    key = trader.stands()
    again = trader.intent()
    used = trader.record(key).intent
    trader.send(used)
    assert "already" in trader.failure(key).message
    assert len(trader.theirs()) == 1
    # The one that stands is as it was.
    assert trader.record(key).state is OrderState.WORKING
    assert trader.send(again)


@pytest.mark.parametrize("action", ["lose", "reset", "hold", "status", "html", "malformed", "empty"])
def test_a_lost_answer_is_looked_up_and_never_sent_again(trader: Trader, action: str) -> None:
    """Faults 2, 4 and 5."""
    changes: dict[str, Any] = {"delay_s": 0.01} if action == "hold" else {}
    trader.lose(action=action, processed=True, **changes)
    key = trader.stands()
    assert len(trader.asked("POST", "/orders")) == 1
    (theirs,) = trader.theirs()
    assert trader.record(key).order_id == str(theirs["order_id"])
    assert trader.told(OrderFailed, key) == []


def test_a_request_that_never_arrived_stays_unknown_until_the_session_ends(
    trade: Trade, trader: Trader
) -> None:
    """Fault 3. A connection that broke proves nothing: it is not sent again, and the next run settles it."""
    trader.lose(action="reset", processed=False)
    key = trader.send(trader.intent())
    error = trader.failure(key)
    assert isinstance(error, OutcomeUnknownError)
    assert key in error.message
    assert trader.record(key).state is OrderState.UNKNOWN
    looks = len(trader.asked("GET", "/iserver/account/orders"))
    trader.until(lambda: len(trader.asked("GET", "/iserver/account/orders")) > looks + 2)
    assert len(trader.asked("POST", "/orders")) == 1
    assert trader.told(OrderPlaced, key) == []
    trader.connection.close()
    again = trade()
    (left,) = again.snapshot.standing
    assert (left.intent.key, left.open, left.known) == (key, False, False)
    assert again.record(key).state is OrderState.ABSENT
    assert again.theirs() == []


def test_an_order_that_shows_up_late_is_found(trader: Trader) -> None:
    """It is in no list for a while; the looks go on."""
    hidden = trader.fault("order_list", action="vanish")
    trader.fault("frames", action="drop", topic="sor", count=0)
    trader.lose()
    key = trader.send(trader.intent())
    assert isinstance(trader.failure(key), OutcomeUnknownError)
    trader.clear(hidden)
    trader.until(lambda: trader.told(OrderPlaced, key))
    assert trader.record(key).state is OrderState.WORKING
    assert len(trader.theirs()) == 1


def test_an_order_is_found_by_its_report(trader: Trader) -> None:
    """The lists never have it, the stream tells of it."""
    trader.fault("order_list", action="vanish")
    trader.lose()
    key = trader.stands()
    assert trader.record(key).state is OrderState.WORKING
    assert len(trader.told(OrderPlaced, key)) == 1


def test_an_order_is_found_by_its_executions(trader: Trader) -> None:
    trader.quote()
    trader.fault("order_list", action="vanish")
    for topic in ("sor", "str"):
        trader.fault("silence", topic=topic)
    trader.lose()
    key = trader.stands(order_type=OrderType.MARKET)
    trader.until(lambda: trader.told(ExecutionReported, key))
    assert trader.record(key).filled == 10
    assert trader.believed() == trader.held() == 10
    assert len(trader.asked("POST", "/orders")) == 1


@pytest.mark.parametrize("snapshot", [True, False])
def test_empty_lists_prove_nothing(trader: Trader, snapshot: bool) -> None:
    """Faults 10 and 46."""
    empty = trader.fault("order_list", action="empty", snapshot=snapshot)
    trader.fault("silence", topic="sor")
    trader.lose()
    key = trader.send(trader.intent())
    assert isinstance(trader.failure(key), OutcomeUnknownError)
    assert trader.record(key).state is OrderState.UNKNOWN
    trader.clear(empty)
    trader.until(lambda: trader.told(OrderPlaced, key))
    assert len(trader.asked("POST", "/orders")) == 1


# --- questions ---------------------------------------------------------------------------------------


def test_an_unconfirmed_order_is_asked_for_again_under_the_same_key(trader: Trader) -> None:
    """Faults 7 and 8: the reply's id was gone, and no list has the order."""
    trader.fault("questions", chain=[KNOWN], count=2)
    trader.fault("replies", action="invalid")
    key = trader.stands()
    assert len(trader.asked("POST", "/orders")) == 2
    (theirs,) = trader.theirs()
    assert theirs["client_order_id"] == key
    assert trader.told(OrderFailed, key) == []


def test_an_order_that_is_never_confirmed_is_refused(trader: Trader) -> None:
    trader.fault("questions", chain=[KNOWN], count=0)
    trader.fault("replies", action="invalid", count=0)
    key = trader.send(trader.intent())
    error = trader.failure(key)
    assert isinstance(error, OrderRefusedError)
    assert len(trader.asked("POST", "/orders")) == 3
    assert trader.theirs() == []
    assert trader.record(key).state is OrderState.REJECTED


def test_an_order_that_was_never_confirmed_where_lists_cannot_be_read(trader: Trader) -> None:
    """Not known at first; refused once whole lists show that it does not stand."""
    empty = trader.fault("order_list", action="empty", snapshot=False)
    trader.fault("questions", chain=[KNOWN])
    trader.fault("replies", action="invalid")
    key = trader.send(trader.intent())
    assert isinstance(trader.failure(key), OutcomeUnknownError)
    trader.clear(empty)
    trader.until(lambda: len(trader.told(OrderFailed, key)) == 2)
    assert isinstance(trader.failure(key), OrderRefusedError)
    assert trader.record(key).state is OrderState.REJECTED
    assert len(trader.asked("POST", "/orders")) == 1


@pytest.mark.parametrize("taken", [True, False])
def test_a_reply_of_unknown_outcome_is_never_repeated(trader: Trader, taken: bool) -> None:
    """Fault 9: 503 to a reply."""
    trader.fault("questions", chain=[KNOWN])
    trader.fault("replies", action="unavailable", taken=taken)
    key = trader.send(trader.intent())
    if taken:
        trader.until(lambda: trader.told(OrderPlaced, key))
    else:
        assert isinstance(trader.failure(key), OutcomeUnknownError)
    assert len(trader.asked("POST", "/orders")) == 1
    assert len(trader.asked("POST", "/reply")) == 1
    assert len(trader.theirs()) == taken


def test_cancelled_while_it_is_asked_about(trader: Trader) -> None:
    """It was never confirmed, and nobody wants it any more: it is not asked for again."""
    asked, go = threading.Event(), threading.Event()

    def answer(_: Any) -> bool:
        asked.set()
        return go.wait(10)

    trader.on_loop(
        lambda: setattr(
            trader.desk._service,
            "_policy",
            QuestionPolicy(ask=frozenset({"o163"}), callback=answer, ask_timeout_s=10.0),
        )
    )
    trader.fault("questions", chain=[KNOWN])
    trader.fault("replies", action="invalid")
    key = trader.send(trader.intent())
    assert asked.wait(10)
    trader.cancel(key)
    trader.on_loop(lambda: None)
    go.set()
    assert isinstance(trader.failure(key), OrderRefusedError)
    assert len(trader.asked("POST", "/orders")) == 1
    assert trader.record(key).state is OrderState.REJECTED
    assert trader.theirs() == []


def test_already_registered_is_proof_that_it_stands(trader: Trader) -> None:
    """Fault 12: the list hid it, it was asked for again, and IBKR knows its key."""
    trader.fault("order_list", action="vanish", count=1)
    trader.fault("silence", topic="sor")
    trader.fault("questions", chain=[KNOWN])
    # The reply is carried out, and its answer says that there is no such reply.
    trader.fault(
        "http", action="status", status=400, text="reply id not found: 'x'", path=REPLIES, processed=True
    )
    key = trader.stands()
    assert len(trader.asked("POST", "/orders")) == 2
    assert len(trader.theirs()) == 1
    assert trader.record(key).state is OrderState.WORKING


# --- what is refused ---------------------------------------------------------------------------------


def test_a_refusal_is_final(trader: Trader) -> None:
    trader.fault("http", action="error", text="We cannot accept this order.", path=SUBMISSIONS, method="POST")
    key = trader.send(trader.intent())
    error = trader.failure(key)
    assert isinstance(error, OrderRefusedError)
    assert "We cannot accept" in error.message
    assert trader.record(key).state is OrderState.REJECTED
    trader.cancel(key)
    trader.settle()
    assert trader.asked("DELETE", "/order/") == []


def test_a_limit_refuses_before_anything_is_written(trade: Trade) -> None:
    trader = trade(risk=RiskLimits(allow_no_data=True, max_order_size=Decimal(5)))
    key = trader.send(trader.intent())
    assert "5" in trader.failure(key).message
    assert trader.asked("POST", "/orders") == []
    journal = trader.journal()
    assert journal.order(key) is None
    journal.close()


def test_what_is_halted_while_it_waits_for_its_turn_is_not_sent(trader: Trader) -> None:
    """One submission is under way, another is on record and waits: the switch stops it all the same."""
    held = trader.fault("http", action="delay", method="POST", path=SUBMISSIONS, delay_s=60.0, processed=True)
    first = trader.send(trader.intent())
    trader.until(lambda: trader.theirs())
    second = trader.send(trader.intent())
    trader.until(lambda: trader.on_loop(lambda: trader.desk.registry.get(second) is not None))
    trader.halt(Trading.HALTED)
    trader.until(lambda: trader.connection.in_flight() == 2)
    trader.clear(held)
    assert isinstance(trader.failure(second), TradingHaltedError)
    trader.until(lambda: trader.told(OrderPlaced, first))
    assert [one["client_order_id"] for one in trader.theirs()] == [first]
    assert trader.record(second).state is OrderState.REJECTED


def test_an_unexpected_error_leaves_nobody_without_a_word(
    trader: Trader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have been sent: it is looked up."""
    real = trader.desk._service.place

    async def place(tickets: Any, check: Any) -> Any:
        await real(tickets, check)
        raise RuntimeError("a bug")

    monkeypatch.setattr(trader.desk._service, "place", place)
    trader.fault("silence", topic="sor")
    key = trader.stands()
    assert isinstance(trader.told(OrderFailed, key)[0].error, OutcomeUnknownError)
    assert "a bug" in trader.alarms("order-desk-failed")[0]
    assert trader.record(key).state is OrderState.WORKING
    assert len(trader.theirs()) == 1


# --- brackets ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["parent_first", "children_first", "shuffle"])
def test_a_bracket_is_known_by_its_parts(trader: Trader, order: str) -> None:
    """Faults 13 and 14: the answer is in any order, and children carry no key."""
    trader.fault("answers", order=order)
    bracket = trader.bracket()
    trader.send(*bracket)
    trader.until(lambda: all(trader.told(OrderPlaced, one.key) for one in bracket))
    by_id = {str(row["order_id"]): row for row in trader.theirs()}
    placed = [by_id[trader.record(one.key).order_id or ""] for one in bracket]
    assert [row["limit_price"] for row in placed[:2]] == [50.0, 150.0]
    assert placed[2]["stop_price"] == 40.0
    # A report of a child is one of ours.
    trader.emulator.do("system_cancel", order_id=placed[2]["order_id"])
    trader.until(lambda: trader.ended(bracket[2].key))


@pytest.mark.parametrize("shape", ["sentinel", "missing"])
@pytest.mark.parametrize("child", [0, 1])
def test_half_of_a_bracket_ends_cancelled(trader: Trader, shape: str, child: int) -> None:
    """Fault 15: a child is refused; nothing of it is left, and somebody is told."""
    trader.fault("bracket", shape=shape, parent="live", child=child)
    bracket = trader.bracket()
    trader.send(*bracket)
    assert isinstance(trader.failure(bracket[1 + child].key), OrderRefusedError)
    trader.until(lambda: trader.alarms("bracket-incomplete"))
    trader.until(lambda: trader.theirs(alive=True) == [])
    trader.until(lambda: trader.ended(bracket[0].key))
    assert trader.record(bracket[0].key).state is OrderState.CANCELLED
    assert trader.record(bracket[1 + child].key).state is OrderState.REJECTED


def test_an_entry_that_stands_although_its_bracket_was_refused_is_cancelled(trader: Trader) -> None:
    """Fault 18, an answer that is wrong: the list of orders knows better."""
    trader.fault("bracket", shape="error", parent="live")
    bracket = trader.bracket()
    trader.send(*bracket)
    trader.until(lambda: [one for one in trader.notices() if one.kind == "bracket-incomplete"])
    trader.until(lambda: trader.theirs(alive=True) == [])
    trader.until(lambda: not any(trader.record(one.key).is_open for one in bracket))
    assert trader.record(bracket[0].key).state is OrderState.CANCELLED


def test_a_bracket_of_which_nothing_was_transmitted_is_refused(trader: Trader) -> None:
    """Recorded: ids for all, but Inactive."""
    trader.fault("bracket", shape="sentinel", parent="inactive")
    bracket = trader.bracket()
    trader.send(*bracket)
    for one in bracket:
        assert isinstance(trader.failure(one.key), OrderRefusedError)
        assert trader.record(one.key).state is OrderState.REJECTED
    assert trader.theirs(alive=True) == []


def test_an_entry_that_executed_without_its_protection_is_alarmed(trader: Trader) -> None:
    """It cannot be cancelled any more: what protects it is left alone."""
    trader.quote()
    trader.fault("bracket", shape="missing", child=0)
    bracket = trader.bracket(order_type=OrderType.MARKET)
    trader.send(*bracket)
    trader.until(lambda: trader.alarms("bracket-incomplete"))
    (alarm,) = trader.alarms("bracket-incomplete")
    assert "UNPROTECTED" in alarm
    (stop,) = trader.theirs(alive=True)
    assert stop["stop_price"] == 40.0
    assert trader.record(bracket[2].key).state is OrderState.WORKING
    assert trader.held() == trader.believed() == 10


def test_an_entry_that_executed_in_part_keeps_its_protection(trader: Trader) -> None:
    """What is left of it is cancelled, and somebody is told of the rest."""
    held = trader.fault("http", action="delay", method="POST", path=SUBMISSIONS, delay_s=60.0)
    trader.fault("bracket", shape="missing", child=0)
    bracket = trader.bracket()
    trader.send(*bracket)
    trader.until(trader.theirs)
    entry = next(row for row in trader.theirs() if row["limit_price"] == 50.0)
    trader.emulator.do("fill", order_id=entry["order_id"], quantity=4.0, price=50.0)
    trader.until(lambda: trader.told(ExecutionReported, bracket[0].key))
    trader.clear(held)
    trader.until(lambda: trader.alarms("bracket-incomplete"))
    (alarm,) = trader.alarms("bracket-incomplete")
    assert "4 of it had executed" in alarm
    assert "UNPROTECTED" in alarm
    assert trader.record(bracket[0].key).state is OrderState.CANCELLED
    assert [row["order_id"] for row in trader.theirs() if row["stop_price"] == 40.0]
    assert len(trader.asked("DELETE", "/order/")) == 1


def test_the_entry_is_withdrawn_although_an_answer_is_lost(trader: Trader) -> None:
    trader.fault("bracket", shape="missing", child=0)
    trader.lose("DELETE", "/iserver/account/*/order/*")
    bracket = trader.bracket()
    trader.send(*bracket)
    trader.until(lambda: trader.alarms("bracket-incomplete"))
    assert "UNPROTECTED" not in trader.alarms("bracket-incomplete")[0]
    trader.until(lambda: trader.theirs(alive=True) == [])


def test_a_lost_bracket_is_found_whole(trader: Trader) -> None:
    trader.lose()
    bracket = trader.bracket()
    trader.send(*bracket)
    trader.until(lambda: all(trader.told(OrderPlaced, one.key) for one in bracket))
    assert len(trader.asked("POST", "/orders")) == 1
    assert {trader.record(one.key).state for one in bracket} == {OrderState.WORKING}
    assert trader.alarms("bracket-incomplete") == []


def test_a_part_of_a_bracket_in_a_list_is_not_the_bracket(trader: Trader) -> None:
    """The list has the parent first and its children a moment later: nothing is cancelled."""
    trader.lose()
    trader.fault("silence", topic="sor")
    trader.fault("order_list", action="vanish", statuses=("PreSubmitted",), count=1)
    bracket = trader.bracket()
    trader.send(*bracket)
    trader.until(lambda: all(trader.told(OrderPlaced, one.key) for one in bracket))
    assert len(trader.theirs(alive=True)) == 3
    assert trader.asked("DELETE", "/order/") == []


def test_half_of_a_lost_bracket_ends_cancelled(trader: Trader) -> None:
    """The answer was lost, and a child is in no list, however often one looks."""
    trader.fault("bracket", shape="missing", child=1)
    trader.lose()
    bracket = trader.bracket()
    trader.send(*bracket)
    assert isinstance(trader.failure(bracket[2].key), OrderRefusedError)
    trader.until(lambda: trader.alarms("bracket-incomplete"))
    trader.until(lambda: trader.theirs(alive=True) == [])


def test_reports_of_a_bracket_that_come_before_its_answer(trader: Trader) -> None:
    """Fault 21: children execute before anybody knows their ids; nothing is lost or taken for another's."""
    trader.quote()
    held = trader.fault("http", action="delay", method="POST", path=SUBMISSIONS, delay_s=60.0)
    bracket = trader.bracket(order_type=OrderType.MARKET)
    trader.send(*bracket)
    trader.until(lambda: trader.told(ExecutionReported, bracket[0].key))
    target = next(row for row in trader.theirs() if row["limit_price"] == 150.0)
    trader.emulator.do("fill", order_id=target["order_id"], price=150.0)
    trader.until(lambda: trader.connection.in_flight() == 1 and trader.held() == 0)
    trader.clear(held)
    trader.until(lambda: trader.told(ExecutionReported, bracket[1].key))
    assert trader.believed() == 0
    (sold,) = trader.told(ExecutionReported, bracket[1].key)
    assert sold.execution.side is Side.SELL
    trader.until(lambda: trader.ended(bracket[1].key, OrderStatus.FILLED))
    assert trader.record(bracket[1].key).filled == 10


def test_the_journal_is_the_processs_own(trade: Trade, trader: Trader) -> None:
    """A second process that would trade the same account is refused; one that only looks is not."""
    other = trade(attached=False)
    with pytest.raises(JournalLockedError):
        other.attach()
    journal = trader.journal()
    assert isinstance(journal, Journal)
    assert journal.epoch == trader.snapshot.epoch
    journal.close()
