"""Refusals, cancellation, modification, expiry, the close, timers and the ways to advance."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from bt_ibkr.emulator.exchange.states import TRANSITIONS, TransitionError, enter
from bt_ibkr.emulator.types import EmulatedOrder, MarketEvent
from bt_ibkr.errors import ContractNotFoundError, UsageError
from bt_ibkr.model.order import DONE, OrderStatus, TimeInForce

if TYPE_CHECKING:
    from tests.emulator_engine.conftest import Desk

    MakeDesk = Callable[..., Desk]

AAPL, EURUSD = 265598, 12087792
OPEN_NS = 1_772_461_800 * 1_000_000_000
HOUR_NS = 3_600 * 1_000_000_000
DAY = TimeInForce.DAY


# ---------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("quantity", "kind", "more", "words"),
    [
        (0, "MKT", {}, "Order size 0 is not valid. Please enter size greater than 0."),
        (-5, "MKT", {}, "Order size -5 is not valid"),
        (
            "0.5",
            "MKT",
            {},
            "The size, 0.5, does not conform to the minimum variation of 1 for this contract.",
        ),
        (1, "LMT", {"limit_price": 100.001}, "The price, 100.001, does not conform to the minimum price"),
        (1, "STP", {"stop_price": 100.005}, "does not conform to the minimum price variation of 0.01"),
        (1, "LMT", {}, "Invalid order price fields"),
        (1, "LMT", {"limit_price": float("nan")}, "Invalid order price fields"),
        (1, "LMT", {"limit_price": float("inf")}, "Invalid order price fields"),
        (1, "STP", {}, "Invalid order price fields"),
        (1, "STOP_LIMIT", {"stop_price": 100.0}, "Invalid order price fields"),
        (1, "TRAIL", {}, "Invalid order price fields"),
        (1, "TRAIL", {"trail_amount": 1.0, "trail_percent": 1.0}, "Invalid order price fields"),
        (1, "TRAIL", {"trail_percent": 100.0}, "Invalid order price fields"),
        (1, "STP", {"time_in_force": TimeInForce.AT_THE_OPENING, "stop_price": 1.0}, "OPG time in force is"),
        (1, "MKT", {"time_in_force": TimeInForce.OVERNIGHT}, "OVT time in force is not supported"),
        (1, "MKT", {"time_in_force": TimeInForce.OVERNIGHT_AND_DAY}, "OND time in force is not supported"),
        (1, "MKT", {"time_in_force": TimeInForce.PAXOS}, "PAX time in force is not supported"),
        (1, "MOC", {"time_in_force": TimeInForce.IMMEDIATE_OR_CANCEL}, "IOC time in force is not supported"),
        (1, "MKT", {"account": "DU7"}, "accountId is not valid: DU7"),
        (1, "MKT", {"conid": 99}, "no sec defs returned"),
    ],
)
def test_what_is_refused(
    desk: MakeDesk, quantity: object, kind: str, more: dict[str, Any], words: str
) -> None:
    d = desk()
    assert words in d.refused("BUY", quantity, kind, **more)
    assert d.engine.orders() == []
    assert d.heard.statuses == {}


def test_an_order_id_of_the_client_is_used_once(desk: MakeDesk) -> None:
    d = desk(accounts=_two_accounts())
    order = d.place("BUY", 1, "LMT", limit_price=1.0, client_order_id="x")
    assert d.refused("BUY", 1, client_order_id="x") == "Local order ID=x is already registered."
    d.engine.cancel(order.order_id)
    assert d.refused("BUY", 1, client_order_id="x") == "Local order ID=x is already registered."
    d.place("BUY", 1, "LMT", limit_price=1.0, client_order_id="x", account="DU2")
    assert [o.spec.account for o in d.engine.orders("DU2")] == ["DU2"]


def _two_accounts() -> tuple[Any, ...]:
    from bt_ibkr.emulator.accounts.account import AccountConfig

    return AccountConfig(), AccountConfig(account_id="DU2")


def test_order_ids_follow_from_the_seed(desk: MakeDesk) -> None:
    first, second = desk().place("BUY", 1), desk(seed=3).place("BUY", 1)
    assert (first.order_id, second.order_id) == (912_091_175, 912_391_175)


def test_execution_ids_are_unique_and_have_the_recorded_form(desk: MakeDesk) -> None:
    d = desk()
    d.quote(99.0, 100.0, ask_size=1)
    d.place("BUY", 3)
    d.quote(99.0, 100.0, ask_size=1)
    d.quote(99.0, 100.0, ask_size=1)
    ids = [one.execution_id for one in d.engine.executions()]
    assert ids == ["0001390e.69f21453.01.01", "0001390e.69f21454.01.01", "0001390e.69f21455.01.01"]
    assert [one.position_after for one in d.engine.executions()] == [1, 2, 3]
    assert {one.exchange for one in d.engine.executions()} == {"NASDAQ"}


# ---------------------------------------------------------------------- states


def test_the_table_refuses_the_impossible(desk: MakeDesk) -> None:
    order = desk().place("BUY", 1)
    for status in OrderStatus:
        copy = EmulatedOrder(1, order.spec, 0)
        copy.status = OrderStatus.FILLED
        if status is OrderStatus.FILLED:
            assert not enter(copy, status, 5)
        else:
            with pytest.raises(TransitionError):
                enter(copy, status, 5)
    assert all(not TRANSITIONS[status] for status in DONE)
    assert set(TRANSITIONS) == set(OrderStatus)


def test_cancelling(desk: MakeDesk) -> None:
    d = desk()
    order = d.place("BUY", 1, "LMT", limit_price=1.0)
    assert d.engine.cancel(5) == "OrderID 5 doesn't exist"
    assert d.engine.cancel(order.order_id) is None
    assert order.status is OrderStatus.CANCELLED
    assert d.engine.cancel(order.order_id) == "Order is inactive"
    assert d.engine.order(order.order_id) is order
    assert d.engine.order(5) is None


# ---------------------------------------------------------------------- modification


def test_modifying_price_and_quantity(desk: MakeDesk) -> None:
    d = desk()
    d.quote(99.0, 101.0)
    order = d.place("BUY", 10, "LMT", limit_price=99.5, client_order_id="mine")
    placed = d.engine.modify(order.order_id, d.spec("BUY", 30, "LMT", limit_price=101.0))
    assert placed.order is order
    assert d.fills == [("30", 101.0)]
    assert order.spec.client_order_id == "mine"
    assert d.engine.modify(order.order_id, d.spec("BUY", 40)).error == "Order is inactive"


def test_modifying_the_type_and_the_stop(desk: MakeDesk) -> None:
    d = desk()
    d.quote(99.0, 101.0)
    d.trade(100.0)
    order = d.place("SELL", 10, "STP", stop_price=95.0)
    d.engine.modify(order.order_id, d.spec("SELL", 10, "STP", stop_price=98.0))
    assert (order.stop_price, order.status) == (98.0, OrderStatus.PRE_SUBMITTED)
    d.engine.modify(order.order_id, d.spec("SELL", 10, "MKT"))
    assert d.fills == [("10", 99.0)]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"side": "SELL"}, "cannot be modified"),
        ({"quantity": 4}, "not above the quantity already filled"),
        ({"limit_price": 100.001}, "minimum price variation"),
        ({"kind": "MOC"}, "at the close"),
        ({"quantity": 1_000_000}, "Cash needed"),
    ],
)
def test_modifications_that_are_refused(desk: MakeDesk, change: dict[str, Any], words: str) -> None:
    d = desk()
    d.quote(99.0, 100.0, ask_size=4)
    order = d.place("BUY", 10, "LMT", limit_price=100.0)
    values: dict[str, Any] = {"side": "BUY", "quantity": 10, "kind": "LMT", "limit_price": 100.0} | change
    error = d.engine.modify(order.order_id, d.spec(**values)).error
    assert error is not None
    assert words in error
    assert order.spec.quantity == 10
    assert order.spec.limit_price == 100.0
    assert order.filled == 4
    assert d.engine.modify(1, d.spec("BUY", 1)).error == "OrderID 1 doesn't exist"


def test_modifying_a_waiting_child_leaves_it_waiting(desk: MakeDesk) -> None:
    d = desk()
    d.quote(120.0, 121.0)
    d.place("BUY", 10, "LMT", limit_price=100.0, client_order_id="p")
    child = d.place("SELL", 10, "LMT", limit_price=130.0, parent_client_id="p")
    d.engine.modify(child.order_id, d.spec("SELL", 10, "LMT", limit_price=110.0))
    assert child.status is OrderStatus.PRE_SUBMITTED
    assert child.filled == 0


# ---------------------------------------------------------------------- the end of the day and the close


def test_orders_for_the_day_end_at_eight_in_new_york(desk: MakeDesk) -> None:
    d = desk()
    day = d.place("BUY", 1, "LMT", limit_price=1.0, time_in_force=DAY)
    stays = d.place("BUY", 1, "LMT", limit_price=1.0)
    end = OPEN_NS + 10 * HOUR_NS + HOUR_NS // 2
    d.engine.advance(until_ns=end + 1)
    assert day.status is OrderStatus.SUBMITTED
    d.engine.advance(until_ns=end + 2)
    assert (day.status, stays.status) == (OrderStatus.CANCELLED, OrderStatus.SUBMITTED)
    assert day.reason
    late = d.place("BUY", 1, "LMT", limit_price=1.0, time_in_force=DAY)
    d.engine.advance(until_ns=end + 24 * HOUR_NS)
    assert late.status not in DONE
    d.engine.advance(until_ns=end + 24 * HOUR_NS + 2)
    assert late.status in DONE


def test_orders_for_the_day_outlive_the_tape(desk: MakeDesk) -> None:
    d = desk([MarketEvent(OPEN_NS, AAPL, last=100.0), MarketEvent(OPEN_NS + HOUR_NS, AAPL, last=101.0)])
    day = d.place("BUY", 1, "LMT", limit_price=1.0, time_in_force=DAY)
    assert d.engine.advance().done
    assert day.status is OrderStatus.SUBMITTED


def close_tape() -> list[MarketEvent]:
    close = OPEN_NS + 6 * HOUR_NS + HOUR_NS // 2
    return [
        MarketEvent(OPEN_NS, AAPL, last=100.0),
        MarketEvent(close - 1, AAPL, last=105.0),
        MarketEvent(close, AAPL, last=107.0),
        MarketEvent(close + HOUR_NS, AAPL, last=108.0),
    ]


@pytest.mark.parametrize("fill", ["quote", "last"])
def test_orders_at_the_close_get_the_last_print_before_it(desk: MakeDesk, fill: str) -> None:
    d = desk(close_tape(), fill=fill)
    d.engine.advance(max_events=1)
    market = d.place("BUY", 10, "MOC", time_in_force=DAY)
    good = d.place("BUY", 20, "LOC", limit_price=105.0, time_in_force=DAY)
    bad = d.place("SELL", 30, "LOC", limit_price=106.0, time_in_force=DAY)
    assert market.status is OrderStatus.PRE_SUBMITTED
    d.engine.advance(max_events=2)
    assert d.fills == [("10", 105.0), ("20", 105.0)]
    assert (good.status, bad.status) == (OrderStatus.FILLED, OrderStatus.CANCELLED)
    quote = d.engine.quote(AAPL)
    assert quote is not None
    assert quote.close == 105.0


def test_orders_at_the_close_execute_when_the_tape_ends(desk: MakeDesk) -> None:
    d = desk(close_tape()[:2])
    d.engine.advance(max_events=1)
    d.place("BUY", 10, "MOC", time_in_force=DAY)
    d.engine.advance()
    assert d.fills == [("10", 105.0)]


# ---------------------------------------------------------------------- time


def test_the_market_starts_at_the_whole_minute(desk: MakeDesk) -> None:
    d = desk([MarketEvent(OPEN_NS + 1_234_567_890, AAPL, last=100.0)])
    assert d.engine.now_ns == OPEN_NS
    assert d.engine.next_event_ns() == OPEN_NS + 1_234_567_890


def ticks(count: int) -> list[MarketEvent]:
    return [MarketEvent(OPEN_NS + k * HOUR_NS, AAPL, last=100.0 + k) for k in range(count)]


def test_advancing_until_a_time_leaves_out_that_time(desk: MakeDesk) -> None:
    d = desk(ticks(3))
    moved = d.engine.advance(until_ns=OPEN_NS + HOUR_NS)
    assert (moved.events, moved.now_ns, moved.done) == (1, OPEN_NS + HOUR_NS, False)
    moved = d.engine.advance(until_ns=OPEN_NS + 9 * HOUR_NS)
    assert (moved.events, moved.now_ns, moved.done) == (2, OPEN_NS + 9 * HOUR_NS, True)
    assert d.engine.advance(until_ns=OPEN_NS).now_ns == OPEN_NS + 9 * HOUR_NS, "time never goes back"


def test_advancing_by_events_stops_at_the_last_one(desk: MakeDesk) -> None:
    d = desk(ticks(3))
    moved = d.engine.advance(max_events=2, until_ns=OPEN_NS + 9 * HOUR_NS)
    assert (moved.events, moved.now_ns) == (2, OPEN_NS + HOUR_NS)
    assert d.engine.advance(max_events=0).events == 0
    assert d.engine.advance(max_events=5).done


def test_advancing_stops_when_an_order_changes(desk: MakeDesk) -> None:
    d = desk(ticks(4), fill="last")
    d.engine.advance(max_events=1)
    d.place("BUY", 1)
    moved = d.engine.advance(until_ns=OPEN_NS + 9 * HOUR_NS, stop_on_order_event=True)
    assert (moved.events, moved.now_ns) == (1, OPEN_NS + HOUR_NS)
    assert moved.order_events > 0
    moved = d.engine.advance(until_ns=OPEN_NS + 9 * HOUR_NS, stop_on_order_event=True)
    assert (moved.events, moved.order_events) == (2, 0)


def test_timers_fire_in_order_and_before_events_of_their_time(desk: MakeDesk) -> None:
    d = desk(ticks(3))
    fired: list[tuple[int, int]] = []
    for offset in (2, 1, 1):
        d.engine.schedule(OPEN_NS + offset * HOUR_NS, lambda now: fired.append((now, len(d.heard.quotes))))
    dropped = d.engine.schedule(OPEN_NS + HOUR_NS // 2, lambda now: fired.append((0, 0)))
    d.engine.cancel_timer(dropped)
    d.engine.cancel_timer(dropped)
    assert d.engine.next_event_ns() == OPEN_NS
    d.engine.advance()
    one, two = OPEN_NS + HOUR_NS, OPEN_NS + 2 * HOUR_NS
    assert fired == [(one, 1), (one, 1), (two, 2)]
    assert d.engine.next_event_ns() is None


def test_a_timer_after_the_tape_needs_a_time_to_run_to(desk: MakeDesk) -> None:
    d = desk(ticks(1))
    fired: list[int] = []
    at = OPEN_NS + 5 * HOUR_NS
    d.engine.schedule(at, fired.append)
    d.engine.advance()
    assert (fired, d.engine.next_event_ns()) == ([], at)
    d.engine.advance(until_ns=at)
    assert not fired
    d.engine.advance(until_ns=at + 1)
    assert fired == [at]
    d.engine.schedule(0, fired.append)
    d.engine.advance(until_ns=at + 2)
    assert fired == [at, at + 1]


def test_a_timer_may_place_orders_and_set_timers(desk: MakeDesk) -> None:
    d = desk(ticks(3), fill="last")

    def act(now_ns: int) -> None:
        d.place("BUY", 1)
        if now_ns < OPEN_NS + HOUR_NS:
            d.engine.schedule(now_ns + HOUR_NS // 4, act)

    d.engine.schedule(OPEN_NS + HOUR_NS // 2, act)
    d.engine.advance()
    assert d.fills == [("1", 101.0)] * 3


def test_injected_events_happen_now_or_later(desk: MakeDesk) -> None:
    d = desk(ticks(3))
    d.engine.advance(max_events=1)
    d.engine.inject(MarketEvent(0, AAPL, bid=1.0))
    assert d.heard.quotes[-1].time_ns == OPEN_NS
    d.engine.inject(MarketEvent(OPEN_NS + HOUR_NS + 1, EURUSD, bid=1.1, ask=1.2))
    assert d.engine.now_ns == OPEN_NS + HOUR_NS + 1
    assert [event.conid for event in d.heard.quotes] == [AAPL, AAPL, AAPL, EURUSD]
    with pytest.raises(ContractNotFoundError):
        d.engine.inject(MarketEvent(0, 99))


def test_the_quote_keeps_the_day(desk: MakeDesk) -> None:
    d = desk()
    for price in (100.0, 103.0, 99.0, 101.0):
        d.trade(price, 10)
    quote = d.engine.quote(AAPL)
    assert quote is not None
    assert (quote.open, quote.high, quote.low, quote.last) == (100.0, 103.0, 99.0, 101.0)
    assert (quote.volume, quote.trades) == (40, 4)
    d.engine.inject(MarketEvent(d.engine.now_ns + 24 * HOUR_NS, AAPL, last=50.0, last_size=5))
    assert (quote.open, quote.high, quote.volume, quote.prior_close) == (50.0, 50.0, 5, 101.0)
    assert d.engine.quote(EURUSD) is None


def test_unknown_settings_are_refused(desk: MakeDesk) -> None:
    for wrong in ({"fill": "best"}, {"margin": "maybe"}, {"commission": "cheap"}, {"accounts": ()}):
        with pytest.raises(UsageError):
            desk(**wrong)
    with pytest.raises(UsageError, match="99"):
        desk([MarketEvent(OPEN_NS, 99, last=1.0)])


def test_quantities_stay_exact(desk: MakeDesk) -> None:
    d = desk()
    d.quote(99.0, 100.0)
    order = d.place("BUY", Decimal("10"))
    assert isinstance(order.filled, Decimal)
    assert str(order.remaining) == "0"
