"""Orders and breaks of the session: nothing is decided on an account that was not read again."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

import pytest

from bt_ibkr.connection.interface import (
    CancelFailed,
    ExecutionReported,
    ModifyFailed,
    OrderFailed,
    OrderPlaced,
    Reconciled,
)
from bt_ibkr.desk import trading
from bt_ibkr.errors import OrderRefusedError
from bt_ibkr.journal import Journal
from bt_ibkr.model.intent import OrderState
from bt_ibkr.model.order import OrderStatus, OrderType, Side
from tests.desk.conftest import AAPL, LIST

if TYPE_CHECKING:
    from tests.desk.conftest import Trade, Trader


def breaks(trader: Trader) -> None:
    """Nobody is logged in until faults are cleared."""
    trader.fault("maintenance", then="ready")
    trader.until(lambda: not trader.on_loop(lambda: trader.desk._connected))


def test_down_nothing_is_sent(trader: Trader) -> None:
    key = trader.stands()
    breaks(trader)
    for protective in (False, True):
        refused = trader.send(trader.intent(protective=protective))
        error = trader.failure(refused)
        assert isinstance(error, OrderRefusedError)
        assert "down" in error.message
        journal: Journal = trader.journal()
        assert journal.order(refused) is None
        journal.close()
    trader.modify(key, limit_price=51.0)
    trader.until(lambda: trader.told(ModifyFailed, key))
    trader.cancel(key)
    trader.until(lambda: trader.told(CancelFailed, key))
    trader.clear()
    trader.until(trader.connected)
    assert trader.stands()
    (theirs, _) = trader.theirs()
    assert (theirs["limit_price"], theirs["status"]) == (50.0, "Submitted")


def test_what_happened_meanwhile_is_told_before_anything_is_sent(trader: Trader) -> None:
    """Fault 56: fills, a cancellation and another client's order during the break."""
    filled, gone = trader.stands(), trader.stands(limit_price=49.0)
    rows = {row["client_order_id"]: row["order_id"] for row in trader.theirs()}
    breaks(trader)
    trader.emulator.do("fill", order_id=rows[filled], price=50.0)
    trader.emulator.do("system_cancel", order_id=rows[gone])
    trader.emulator.do("manual_order", conid=AAPL, side="BUY", quantity=5, order_type="LMT", price=40)
    trader.clear()
    trader.until(trader.connected)
    trader.until(lambda: trader.of(Reconciled))
    assert trader.of(Reconciled)[-1].complete
    assert trader.record(filled).state is OrderState.FILLED
    assert trader.record(gone).state is OrderState.CANCELLED
    assert len(trader.told(ExecutionReported, filled)) == 1
    assert trader.believed() == trader.held() == 10
    assert len(trader.on_loop(lambda: trader.desk.external_orders(trader.desk.accounts[0]))) == 1


def test_orders_wait_until_the_account_was_read(trader: Trader) -> None:
    """What protects does not."""
    trader.fault("http", action="status", path=LIST, count=0)
    trader.fault("ws_close")
    trader.until(lambda: trader.alarms("unread"))
    waits = trader.send(trader.intent())
    stop = trader.send(
        trader.intent(side=Side.SELL, order_type=OrderType.STOP, stop_price=40.0, protective=True)
    )
    trader.until(lambda: trader.told(OrderPlaced, stop))
    assert len(trader.theirs()) == 1
    trader.clear()
    trader.until(lambda: trader.told(OrderPlaced, waits))
    assert trader.alarms("reread")


def test_an_order_does_not_wait_for_ever(trader: Trader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trading, "_READY_S", 0.05)
    trader.fault("http", action="status", path=LIST, count=0)
    trader.fault("ws_close")
    trader.until(lambda: trader.alarms("unread"))
    key = trader.send(trader.intent())
    error = trader.failure(key)
    assert isinstance(error, OrderRefusedError)
    assert "could not be read" in error.message
    assert trader.asked("POST", "/orders") == []
    # Whoever places it again later is served.
    trader.clear()
    trader.until(trader.connected)
    assert trader.stands()


def test_the_session_breaks_during_a_submission(trader: Trader) -> None:
    """The answer is lost with the session: the order is found when it is back."""
    held = trader.fault("http", action="delay", method="POST", path="/iserver/account/*/orders", delay_s=60.0)
    key = trader.send(trader.intent())
    trader.until(trader.theirs)
    breaks(trader)
    trader.clear(held)
    trader.clear()
    trader.until(lambda: trader.told(OrderPlaced, key))
    assert trader.record(key).state is OrderState.WORKING
    assert len(trader.asked("POST", "/orders")) == 1
    assert len(trader.theirs()) == 1


def test_the_session_ends_with_a_question_open(trader: Trader) -> None:
    """Fault 11: it was never confirmed."""
    trader.fault("questions", chain=[[{"id": "o163", "text": "Sure?"}]])
    trader.fault("question_ends_session", then="no_bridge")
    key = trader.send(trader.intent())
    trader.until(lambda: trader.told(OrderPlaced, key) or _refused(trader, key))
    stands = bool(trader.told(OrderPlaced, key))
    assert len(trader.theirs()) == stands
    assert trader.record(key).state is (OrderState.WORKING if stands else OrderState.REJECTED)


def _refused(trader: Trader, key: str) -> bool:
    """For good, not only for want of knowledge."""
    return any(isinstance(one.error, OrderRefusedError) for one in trader.told(OrderFailed, key))


def test_the_end_leaves_everything_on_record(trade: Trade) -> None:
    """A run is closed while an answer is awaited: the next one settles it."""
    first = trade()
    first.quote()
    first.fault("http", action="delay", method="POST", path="/iserver/account/*/orders", delay_s=60.0)
    first.fault("silence", topic="str")
    first.fault("silence", topic="sor")
    key = first.send(first.intent(order_type=OrderType.MARKET, quantity=Decimal(3)))
    first.until(lambda: first.held() == 3)
    first.connection.close()
    assert first.alarms("journal-failed") == []
    first.clear()
    second = trade()
    (left,) = second.snapshot.standing
    assert (left.intent.key, left.open, left.known) == (key, False, True)
    assert left.status is OrderStatus.FILLED
    assert second.record(key).filled == 3
    assert second.believed() == 3
