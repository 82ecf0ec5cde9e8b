"""Fill model ``quote``: against bid, ask and displayed size."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from bt_ibkr.model.order import OrderStatus, TimeInForce

if TYPE_CHECKING:
    from tests.emulator_engine.conftest import Desk

    MakeDesk = Callable[..., Desk]

IOC = TimeInForce.IMMEDIATE_OR_CANCEL


def test_a_market_order_takes_the_opposite_side_at_once(desk: MakeDesk) -> None:
    d = desk()
    d.quote(99.98, 100.02)
    bought = d.place("BUY", 100)
    sold = d.place("SELL", 40)
    assert d.fills == [("100", 100.02), ("40", 99.98)]
    assert bought.status is sold.status is OrderStatus.FILLED
    assert d.heard.statuses[bought.order_id] == ["Inactive", "PendingSubmit", "Submitted", "Filled"]


def test_a_large_order_fills_by_displayed_size(desk: MakeDesk) -> None:
    d = desk()
    d.quote(99.98, 100.02, ask_size=300)
    order = d.place("BUY", 1000)
    assert d.fills == [("300", 100.02)]
    d.trade(100.02)
    assert len(d.fills) == 1, "a print does not replenish the ask"
    d.tick(ask=100.03, ask_size=500)
    d.tick(ask_size=400)
    assert d.fills == [("300", 100.02), ("500", 100.03), ("200", 100.03)]
    assert order.status is OrderStatus.FILLED
    assert order.average_price == pytest.approx((300 * 100.02 + 700 * 100.03) / 1000)


def test_a_market_order_without_a_quote_waits_for_one(desk: MakeDesk) -> None:
    d = desk()
    order = d.place("BUY", 10)
    assert order.status is OrderStatus.SUBMITTED
    d.quote(1.0, 1.01)
    assert d.fills == [("10", 1.01)]


def test_a_resting_limit_fills_at_its_limit_when_the_quote_reaches_it(desk: MakeDesk) -> None:
    d = desk()
    d.quote(99.98, 100.02)
    order = d.place("BUY", 100, "LMT", limit_price=99.99)
    d.trade(99.99)
    assert not d.fills, "a print at the limit may be of those before it in the queue"
    d.tick(ask=99.97, ask_size=60)
    d.tick(ask=99.98, ask_size=60)
    assert d.fills == [("60", 99.99), ("40", 99.99)]
    assert order.status is OrderStatus.FILLED


def test_a_print_through_the_limit_fills_its_size_at_the_limit(desk: MakeDesk) -> None:
    d = desk()
    d.quote(99.90, 100.10)
    d.place("BUY", 100, "LMT", limit_price=100.00)
    d.place("SELL", 100, "LMT", limit_price=100.05)
    d.trade(99.99, 30)
    d.trade(100.06, 45)
    assert d.fills == [("30", 100.0), ("45", 100.05)]


def test_a_marketable_limit_gets_the_better_price(desk: MakeDesk) -> None:
    d = desk()
    d.quote(99.98, 100.02)
    d.place("BUY", 10, "LMT", limit_price=101)
    d.place("SELL", 10, "LMT", limit_price=99)
    assert d.fills == [("10", 100.02), ("10", 99.98)]


def test_a_limit_that_waits_for_the_first_quote_gets_its_price(desk: MakeDesk) -> None:
    d = desk()
    d.place("BUY", 10, "LMT", limit_price=101)
    d.quote(99.98, 100.02)
    assert d.fills == [("10", 100.02)]


def test_own_orders_share_displayed_size_by_price_then_time(desk: MakeDesk) -> None:
    d = desk()
    d.quote(99.0, 101.0)
    early = d.place("BUY", 100, "LMT", limit_price=100.0)
    best = d.place("BUY", 100, "LMT", limit_price=100.5)
    late = d.place("BUY", 100, "LMT", limit_price=100.0)
    d.tick(ask=100.0, ask_size=250)
    assert [one.order_id for one in d.heard.executions] == [best.order_id, early.order_id, late.order_id]
    assert late.filled == 50
    assert late.status is OrderStatus.SUBMITTED


def test_modifying_the_price_costs_the_place_in_the_queue(desk: MakeDesk) -> None:
    d = desk()
    d.quote(99.0, 101.0)
    first = d.place("BUY", 100, "LMT", limit_price=100.0)
    second = d.place("BUY", 100, "LMT", limit_price=100.0)
    for price in (100.1, 100.0):
        d.engine.modify(first.order_id, d.spec("BUY", 100, "LMT", limit_price=price))
    d.tick(ask=100.0, ask_size=100)
    assert [one.order_id for one in d.heard.executions] == [second.order_id]


@pytest.mark.parametrize(
    ("side", "stop", "quiet", "trigger", "price"),
    [("BUY", 101.0, 100.5, 101.0, 101.3), ("SELL", 99.0, 99.5, 98.9, 98.7)],
)
def test_a_stop_becomes_a_market_order(
    desk: MakeDesk, side: str, stop: float, quiet: float, trigger: float, price: float
) -> None:
    d = desk()
    d.quote(99.98, 100.02)
    order = d.place(side, 10, "STP", stop_price=stop)
    assert order.status is OrderStatus.PRE_SUBMITTED
    d.trade(quiet)
    d.quote(98.7, 101.3)
    assert not d.fills, "stops are triggered by prints, not by quotes"
    d.trade(trigger)
    assert d.fills == [("10", price)]
    assert d.heard.statuses[order.order_id][-3:] == ["PreSubmitted", "Submitted", "Filled"]


def test_a_stop_that_is_already_passed_triggers_at_once(desk: MakeDesk) -> None:
    d = desk()
    d.quote(99.98, 100.02)
    d.trade(100.0)
    d.place("SELL", 10, "STP", stop_price=100.5)
    assert d.fills == [("10", 99.98)]


def test_a_stop_limit_rests_where_the_market_ran_past_it(desk: MakeDesk) -> None:
    d = desk()
    d.quote(99.98, 100.02)
    order = d.place("BUY", 10, "STOP_LIMIT", stop_price=101.0, limit_price=101.1)
    d.quote(101.4, 101.5)
    d.trade(101.4)
    assert order.triggered
    assert not d.fills
    d.quote(101.0, 101.1)
    assert d.fills == [("10", 101.1)]


def test_touched_orders_trigger_the_other_way(desk: MakeDesk) -> None:
    d = desk()
    d.quote(99.98, 100.02)
    d.trade(100.0)
    d.place("BUY", 10, "MIT", stop_price=99.5)
    d.place("BUY", 10, "LIT", stop_price=99.5, limit_price=99.4)
    assert not d.fills
    d.quote(99.45, 99.5)
    d.trade(99.5)
    assert d.fills == [("10", 99.5)]
    d.quote(99.3, 99.4)
    assert d.fills == [("10", 99.5), ("10", 99.4)]


def test_a_trail_follows_upwards_only(desk: MakeDesk) -> None:
    d = desk()
    d.quote(99.98, 100.02)
    d.trade(100.0)
    order = d.place("SELL", 10, "TRAIL", trail_amount=1.0)
    assert order.stop_price == 99.0
    for price, stop in ((101.0, 100.0), (100.5, 100.0), (102.0, 101.0)):
        d.trade(price)
        assert order.stop_price == stop
    d.quote(100.8, 100.9)
    d.trade(100.9)
    assert d.fills == [("10", 100.8)]


def test_a_trail_by_percent_and_for_a_purchase(desk: MakeDesk) -> None:
    d = desk()
    d.trade(200.0)
    order = d.place("BUY", 10, "TRAIL", trail_percent=5.0)
    assert order.stop_price == 210.0
    d.trade(180.0)
    assert order.stop_price == 189.0
    d.quote(189.5, 189.6)
    d.trade(189.0)
    assert d.fills == [("10", 189.6)]


def test_a_trailing_limit_keeps_its_distance(desk: MakeDesk) -> None:
    d = desk()
    d.quote(99.98, 100.02)
    d.trade(100.0)
    order = d.place("SELL", 10, "TRAILLMT", trail_amount=1.0, stop_price=99.0, limit_price=98.8)
    d.trade(105.0)
    d.quote(103.0, 103.1)
    d.trade(104.0)
    assert (order.stop_price, order.triggered) == (104.0, True)
    assert not d.fills, "the bid is below the limit of 103.80"
    d.quote(103.8, 103.9)
    assert d.fills == [("10", 103.8)]


def test_midprice_fills_at_the_middle(desk: MakeDesk) -> None:
    d = desk()
    d.quote(100.0, 100.1)
    d.place("BUY", 10, "MIDPRICE")
    capped = d.place("BUY", 10, "MIDPRICE", limit_price=100.02)
    d.trade(100.05, 50)
    assert d.fills == [("10", 100.05)]
    assert capped.filled == 0
    d.trade(100.02, 50)
    assert d.fills[1:] == [("10", 100.02)]


def test_relative_follows_its_own_side(desk: MakeDesk) -> None:
    d = desk()
    d.quote(100.0, 100.1)
    d.place("BUY", 10, "REL", limit_price=100.5, stop_price=0.01)
    d.quote(100.2, 100.3)
    d.trade(100.21, 100)
    assert d.fills == [("10", 100.21)]


def test_immediate_or_cancel_ends_at_once(desk: MakeDesk) -> None:
    d = desk()
    d.quote(99.98, 100.02, ask_size=30)
    part = d.place("BUY", 100, "LMT", limit_price=100.02, time_in_force=IOC)
    none = d.place("BUY", 100, "LMT", limit_price=100.00, time_in_force=IOC)
    assert d.fills == [("30", 100.02)]
    assert part.filled == 30
    assert part.status is none.status is OrderStatus.CANCELLED
    assert part.reason


def test_a_tape_of_trades_only_trades_at_its_prints(desk: MakeDesk) -> None:
    d = desk()
    d.trade(100.0)
    d.place("BUY", 150)
    d.place("SELL", 10, "LMT", limit_price=101.0)
    assert not d.fills
    d.trade(100.1, 100)
    d.trade(100.2, 100)
    d.trade(101.2, 100)
    assert d.fills == [("100", 100.1), ("50", 100.2), ("10", 101.0)]


def test_halted_instruments_do_not_match(desk: MakeDesk) -> None:
    d = desk()
    d.quote(99.98, 100.02)
    d.engine.halt(d.conid, True)
    d.place("BUY", 10)
    d.quote(99.98, 100.01)
    assert not d.fills
    d.engine.halt(d.conid, False)
    assert d.fills == [("10", 100.01)]


def test_regular_hours_are_kept_if_asked_for(desk: MakeDesk) -> None:
    d = desk(regular_hours_enforced=True)
    d.engine.advance(until_ns=d.engine.now_ns + 7 * 3600 * 1_000_000_000)
    d.quote(99.98, 100.02)
    waits = d.place("BUY", 10)
    d.place("BUY", 5, outside_regular_hours=True)
    d.quote(99.98, 100.02)
    assert d.fills == [("5", 100.02)]
    assert waits.status is OrderStatus.SUBMITTED


def test_orders_placed_from_the_listener_meet_the_same_quote(desk: MakeDesk) -> None:
    d = desk()

    def react(_: object) -> None:
        d.heard.react = None
        d.place("BUY", 10)

    d.heard.react = react
    d.quote(99.98, 100.02)
    assert d.fills == [("10", 100.02)]
