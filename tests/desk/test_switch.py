"""The kill switch: what it stops, what it lets pass, what it cancels and closes, and who else may throw it."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from bt_ibkr.connection.interface import (
    ExecutionReported,
    OrderModified,
    OrderPlaced,
    TradingChanged,
)
from bt_ibkr.desk import switch
from bt_ibkr.errors import OrderRefusedError
from bt_ibkr.journal import Journal
from bt_ibkr.model.intent import OrderState
from bt_ibkr.model.order import OrderStatus, OrderType, Side
from bt_ibkr.model.trading import Trading, TradingState
from bt_ibkr.risk import RiskLimits
from tests.connection.conftest import ACCOUNT
from tests.desk.conftest import AAPL, ONE_ORDER, SUBMISSIONS

if TYPE_CHECKING:
    from tests.desk.conftest import Trade, Trader


@pytest.fixture(autouse=True)
def quick_switch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(switch, "_LAG_S", 0.1)
    monkeypatch.setattr(switch, "_LAG_PAUSE_S", 0.02)
    monkeypatch.setattr(switch, "_ENDS_S", 0.5)


def modes(trader: Trader) -> list[Trading]:
    return [event.state.mode for event in trader.of(TradingChanged)]


def thrown(trader: Trader, mode: Trading, **what: bool) -> None:
    """Throw it, and wait until all of it is done."""
    trader.halt(mode, **what)
    trader.until(lambda: modes(trader)[-1:] == [mode] and not trader.connection.in_flight())


def holding(trader: Trader, quantity: int = 10, side: Side = Side.BUY) -> None:
    trader.quote()
    key = trader.stands(order_type=OrderType.MARKET, quantity=Decimal(quantity), side=side)
    trader.until(lambda: trader.ended(key, OrderStatus.FILLED) and trader.told(ExecutionReported, key))


def test_halted_nothing_leaves(trader: Trader) -> None:
    key = trader.stands()
    thrown(trader, Trading.HALTED)
    sent = len(trader.asked("POST", "/orders"))
    for protective in (False, True):
        refused = trader.send(trader.intent(protective=protective))
        error = trader.failure(refused)
        assert isinstance(error, OrderRefusedError)
        assert "HALTED by test: tested" in error.message
    assert len(trader.asked("POST", "/orders")) == sent
    # What stands is left alone, and can be cancelled.
    assert trader.record(key).state is OrderState.WORKING
    trader.cancel(key)
    trader.until(lambda: trader.ended(key))
    thrown(trader, Trading.ACTIVE)
    assert trader.stands()


def test_reducing_lets_protection_pass(trader: Trader) -> None:
    holding(trader)
    thrown(trader, Trading.REDUCING)
    assert "REDUCING" in trader.failure(trader.send(trader.intent())).message
    stop = trader.send(
        trader.intent(side=Side.SELL, order_type=OrderType.STOP, stop_price=90.0, protective=True)
    )
    trader.until(lambda: trader.told(OrderPlaced, stop))


def test_it_is_kept_over_a_restart(trade: Trade) -> None:
    first = trade()
    thrown(first, Trading.HALTED)
    first.connection.close()
    second = trade()
    assert second.snapshot.trading is not None
    assert second.snapshot.trading.mode is Trading.HALTED
    assert "HALTED" in second.failure(second.send(second.intent())).message
    assert second.asked("POST", "/orders") == []


def test_open_orders_are_cancelled(trader: Trader) -> None:
    """All of this process, also one whose outcome is not known yet; other clients' are left alone."""
    keys = [trader.stands(), *(one.key for one in trader.bracket())]
    bracket = trader.bracket(limit_price=45.0)
    trader.send(*bracket)
    trader.until(lambda: trader.told(OrderPlaced, bracket[2].key))
    trader.emulator.do("manual_order", conid=AAPL, side="BUY", quantity=5, order_type="LMT", price=40)
    hidden = trader.fault("order_list", action="vanish")
    silent = trader.fault("frames", action="drop", topic="sor", count=0)
    trader.lose()
    lost = trader.send(trader.intent())
    trader.failure(lost)
    trader.clear(silent)
    trader.halt(Trading.HALTED, cancel_open=True)
    trader.until(lambda: modes(trader) == [Trading.HALTED])
    trader.clear(hidden)
    trader.until(lambda: [row["origin"] for row in trader.theirs(alive=True)] == ["tws"])
    trader.until(lambda: trader.ended(lost))
    assert trader.record(keys[0]).state is OrderState.CANCELLED
    assert trader.record(lost).state is OrderState.CANCELLED


@pytest.mark.parametrize("side", [Side.BUY, Side.SELL])
def test_positions_are_closed(trader: Trader, side: Side) -> None:
    """Orders that would open others are cancelled first; in the end nothing leaves."""
    holding(trader, 7, side)
    resting = trader.stands()
    thrown(trader, Trading.HALTED, flatten=True)
    trader.until(lambda: trader.believed() == 0)
    assert trader.held() == 0
    assert trader.ended(resting)
    assert modes(trader) == [Trading.REDUCING, Trading.HALTED]
    (closing,) = [row for row in trader.theirs() if row["client_order_id"].startswith("flatten.")]
    assert (closing["quantity"], closing["status"]) == ("7", "Filled")
    assert trader.record(closing["client_order_id"]).state is OrderState.FILLED
    assert trader.alarms("flatten-failed") == []
    # Once more: there is nothing to close.
    thrown(trader, Trading.HALTED, flatten=True)
    assert trader.held() == 0
    assert len([row for row in trader.theirs() if row["client_order_id"].startswith("flatten.")]) == 1


def test_nobody_else_closes_what_it_closes(trader: Trader) -> None:
    """A strategy's order that only reduces comes between the look at the positions and the order that closes them."""
    holding(trader)
    read = trader.fault("http", action="hold", path=f"/portfolio/{ACCOUNT}/positions*", count=0)
    trader.halt(Trading.HALTED, cancel_open=True, flatten=True)
    trader.until(lambda: modes(trader)[-1:] == [Trading.REDUCING])
    refused = trader.send(trader.intent(side=Side.SELL, order_type=OrderType.MARKET))
    assert "being closed" in trader.failure(refused).message
    trader.clear(read)
    trader.until(lambda: trader.believed() == 0 and modes(trader)[-1:] == [Trading.HALTED])
    assert trader.held() == 0
    keys = [row["client_order_id"] for row in trader.theirs() if row["side"] == "SELL"]
    assert [key.partition(".")[0] for key in keys] == ["flatten"]


def test_two_throw_it_at_once(trader: Trader) -> None:
    """The position is closed once, not turned."""
    holding(trader)
    trader.halt(Trading.HALTED, cancel_open=True, flatten=True)
    trader.halt(Trading.HALTED, cancel_open=True, flatten=True)
    trader.until(lambda: not trader.connection.in_flight())
    trader.until(lambda: trader.believed() == 0)
    assert trader.held() == 0
    assert trader.alarms("flatten-failed") == []
    assert trader.on_loop(lambda: trader.desk.journal.trading_state().mode) is Trading.HALTED


def test_positions_that_lag_are_waited_for(trader: Trader, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fault 50: what was closed a moment ago is still listed, and is not closed again."""
    monkeypatch.setattr(switch, "_LAG_S", 10.0)
    holding(trader)
    trader.fault("positions", action="lag", lag_s=0.5, invalidate=False)
    holding(trader, 10, Side.SELL)
    trader.halt(Trading.HALTED, flatten=True)
    trader.until(lambda: modes(trader)[-1:] == [Trading.HALTED] and not trader.connection.in_flight())
    assert trader.held() == trader.believed() == 0
    assert trader.alarms("flatten-failed") == []
    assert not [row for row in trader.theirs() if row["client_order_id"].startswith("flatten.")]


def test_positions_that_cannot_be_read_are_alarmed(trader: Trader) -> None:
    """And trading is halted all the same."""
    holding(trader)
    trader.fault("positions", action="fail")
    thrown(trader, Trading.HALTED, flatten=True)
    assert "NOT closed" in trader.alarms("flatten-failed")[0]
    assert trader.held() == 10
    assert trader.on_loop(lambda: trader.desk.journal.trading_state().mode) is Trading.HALTED


def test_an_order_that_closes_and_is_refused_is_alarmed(trader: Trader) -> None:
    holding(trader)
    trader.fault("http", action="error", text="not now", method="POST", path=SUBMISSIONS)
    thrown(trader, Trading.HALTED, flatten=True)
    (alarm,) = trader.alarms("flatten-failed")
    assert "not now" in alarm
    assert trader.held() == 10


def test_a_cancellation_that_fails_does_not_hold_up_the_rest(trader: Trader) -> None:
    holding(trader)
    trader.stands()
    trader.fault("http", action="error", text="no", method="DELETE", path=ONE_ORDER, count=0)
    thrown(trader, Trading.HALTED, cancel_open=True, flatten=True)
    trader.until(lambda: trader.believed() == 0)
    assert trader.held() == 0


def test_another_process_throws_it(trader: Trader) -> None:
    """The command line, over the journal alone."""
    other: Journal = trader.journal()
    state = TradingState(mode=Trading.HALTED, reason="by hand", by="command line", since_ns=5)
    other.set_trading_state(state)
    # At once, before this process has looked.
    refused = trader.send(trader.intent())
    assert "by hand" in trader.failure(refused).message
    trader.until(lambda: trader.of(TradingChanged))
    assert trader.of(TradingChanged) == [TradingChanged(state)]
    other.set_trading_state(TradingState(mode=Trading.ACTIVE, by="command line"))
    trader.until(lambda: modes(trader) == [Trading.HALTED, Trading.ACTIVE])
    other.close()
    assert trader.stands()


def test_a_loss_limit_throws_it(trade: Trade) -> None:
    """The day's profit and loss, as IBKR streams it."""
    trader = trade(
        risk=RiskLimits(allow_no_data=True, duplicate_window_s=None, daily_loss_limit=Decimal(100))
    )
    holding(trader)
    trader.quote(bid=79.99, ask=80.01)
    # Told by market time.
    trader.emulator.call(lambda server: server.core.hub._pnl._tell())
    trader.until(lambda: modes(trader))
    assert modes(trader) == [Trading.REDUCING]
    assert len(trader.alarms("loss-limit")) >= 1
    assert "REDUCING" in trader.failure(trader.send(trader.intent())).message
    assert trader.held() == 10


def test_changes_of_what_stands(trader: Trader, monkeypatch: pytest.MonkeyPatch) -> None:
    """Halted, an order cannot be made larger; the limits decide what passes."""
    key = trader.stands()
    thrown(trader, Trading.HALTED)
    asked: list[Any] = []
    monkeypatch.setattr(
        trader.desk._controls, "check_change", lambda tracked, ticket: asked.append((tracked.key, ticket))
    )
    wanted = trader.modify(key, quantity=Decimal(5))
    trader.until(lambda: trader.told(OrderModified, key))
    assert asked == [(key, wanted)]
