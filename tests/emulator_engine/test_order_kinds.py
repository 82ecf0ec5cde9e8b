"""Orders by cash, all or none, for groups, worked by algorithms, at the opening and overnight."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bt_ibkr.emulator.accounts.account import AccountConfig
from bt_ibkr.emulator.exchange import algorithms
from bt_ibkr.emulator.exchange.allocation import divide
from bt_ibkr.emulator.market.sessions import in_overnight, next_open_ns, overnight_end_ns
from bt_ibkr.emulator.types import Algorithm, MarketEvent, Share
from bt_ibkr.emulator.universe import default_universe
from bt_ibkr.model.order import OrderStatus, TimeInForce
from tests.emulator_engine.conftest import AAPL, EURUSD, OPEN_NS, SECOND_NS, Desk

MakeDesk = Callable[..., Desk]
HOUR_NS = 3600 * SECOND_NS


def moved(one: Desk, time_ns: int, **values: float) -> None:
    one.engine.inject(MarketEvent(time_ns, one.conid, **values))


# --- amounts of cash -------------------------------------------------------------------------------


def test_cash_buys_parts_of_shares_and_never_more_than_there_is(desk: MakeDesk) -> None:
    one = desk()
    one.quote(100.0, 100.1, ask_size=3)
    order = one.place("BUY", "9.99", cash_quantity=Decimal(1000))
    assert [(float(size), price) for size, price in one.fills] == [(3.0, 100.1)]
    one.quote(103.9, 104.0, ask_size=500)
    # what is left of the cash buys less than was thought
    assert order.status is OrderStatus.FILLED
    spent = sum(Decimal(size) * Decimal(repr(price)) for size, price in one.fills)
    assert Decimal("999.98") < spent <= 1000
    assert order.remaining == 0
    assert one.account.quantity(AAPL) == order.filled


def test_a_conversion_leaves_no_position(desk: MakeDesk) -> None:
    one = desk(conid=EURUSD)
    one.quote(1.1500, 1.1501, bid_size=1e6, ask_size=1e6)
    one.place("BUY", "1000.50", currency_conversion=True)
    assert one.account.cash("EUR") == Decimal("1000.50")
    assert one.account.cash("USD") == Decimal(1_000_000) - Decimal("1000.50") * Decimal("1.1501")
    assert one.account.positions() == []
    one.place("BUY", 1000)
    assert one.account.quantity(EURUSD) == 1000


# --- all or none -----------------------------------------------------------------------------------


def test_all_or_none_waits_for_the_whole_size(desk: MakeDesk) -> None:
    one = desk()
    one.quote(100.0, 100.1, ask_size=60)
    order = one.place("BUY", 100, all_or_none=True)
    one.quote(100.0, 100.1, ask_size=99)
    assert one.fills == []
    one.quote(100.0, 100.1, ask_size=100)
    assert one.fills == [("100", 100.1)]
    assert order.status is OrderStatus.FILLED


# --- the opening and the night ---------------------------------------------------------------------


def test_the_opening_is_the_first_print_of_the_session(desk: MakeDesk) -> None:
    before = OPEN_NS - HOUR_NS
    one = desk([MarketEvent(before, AAPL, bid=99.0, ask=101.0)])
    one.engine.advance()
    kinds = {"time_in_force": TimeInForce.AT_THE_OPENING}
    market = one.place("BUY", 10, **kinds)
    good = one.place("BUY", 5, "LMT", limit_price=100.5, **kinds)
    bad = one.place("SELL", 5, "LMT", limit_price=101.0, **kinds)
    moved(one, OPEN_NS - SECOND_NS, last=98.0, last_size=100)
    assert one.fills == []
    assert market.status is OrderStatus.PRE_SUBMITTED
    moved(one, OPEN_NS + SECOND_NS, last=100.25, last_size=100)
    assert one.fills == [("10", 100.25), ("5", 100.25)]
    assert (good.status, bad.status) == (OrderStatus.FILLED, OrderStatus.CANCELLED)
    assert "opening price" in bad.reason


def test_an_order_for_the_opening_that_comes_too_late_waits_for_the_next(desk: MakeDesk) -> None:
    one = desk()
    one.trade(100.0)
    order = one.place("BUY", 10, time_in_force=TimeInForce.AT_THE_OPENING)
    one.trade(101.0)
    assert order.filled == 0
    moved(one, OPEN_NS + 24 * HOUR_NS, last=102.0, last_size=100)
    assert one.fills == [("10", 102.0)]


def test_the_night_is_from_eight_to_ten_to_four() -> None:
    apple = default_universe().by_conid(AAPL)
    assert apple is not None
    evening = OPEN_NS + 10 * HOUR_NS + HOUR_NS // 2
    assert not in_overnight(apple, evening - 1)
    assert in_overnight(apple, evening)
    end = overnight_end_ns(apple, evening)
    assert end == evening + 7 * HOUR_NS + HOUR_NS * 50 // 60
    assert in_overnight(apple, end - 1)
    assert not in_overnight(apple, end)
    friday = evening + 4 * 24 * HOUR_NS
    assert not in_overnight(apple, friday)
    assert in_overnight(apple, friday + 2 * 24 * HOUR_NS)
    assert next_open_ns(apple, OPEN_NS) == OPEN_NS + 24 * HOUR_NS


def test_overnight_orders_trade_at_night(desk: MakeDesk) -> None:
    one = desk()
    one.quote(99.0, 100.0)
    night = one.place("BUY", 10, "LMT", limit_price=100.0, time_in_force=TimeInForce.OVERNIGHT)
    both = one.place("BUY", 7, "LMT", limit_price=99.5, time_in_force=TimeInForce.OVERNIGHT_AND_DAY)
    assert night.filled == 0
    moved(one, OPEN_NS + 11 * HOUR_NS, ask=99.5, ask_size=10.0)
    assert night.filled == 10
    assert both.status is OrderStatus.CANCELLED  # its day ended at 20:00
    later = one.place("BUY", 1, "LMT", limit_price=50.0, time_in_force=TimeInForce.OVERNIGHT)
    one.engine.advance(until_ns=OPEN_NS + 24 * HOUR_NS)
    assert later.status is OrderStatus.CANCELLED


# --- algorithms ------------------------------------------------------------------------------------


def algorithm(name: str, **given: object) -> Algorithm:
    apple = default_universe().by_conid(AAPL)
    assert apple is not None
    found = algorithms.read(name, given, apple)
    assert isinstance(found, Algorithm), found
    return found


def test_twap_trades_in_equal_slices(desk: MakeDesk) -> None:
    one = desk()
    one.quote(100.0, 100.1, ask_size=1e6)
    worked = algorithm("Twap", startTime="20260302-14:30:00", endTime="20260302-15:30:00")
    order = one.place("BUY", 120, algorithm=worked)
    sizes = []
    for minute in range(5, 61, 5):
        one.engine.advance(until_ns=OPEN_NS + minute * 60 * SECOND_NS)
        sizes.append(int(order.filled))
    assert sizes == [10 * k for k in range(1, 13)]
    assert order.status is OrderStatus.FILLED


def test_vwap_trades_more_at_both_ends(desk: MakeDesk) -> None:
    one = desk()
    one.quote(100.0, 100.1, ask_size=1e6)
    one.place("BUY", 1000, algorithm=algorithm("Vwap", endTime="20260302-16:30:00"))
    one.engine.advance(until_ns=OPEN_NS + 3 * HOUR_NS)
    slices = [int(size) for size, _ in one.fills]
    assert sum(slices) == 1000
    assert len(slices) == 12
    assert slices[0] > slices[5]
    assert slices[-1] > slices[6]


def test_participation_follows_what_others_trade(desk: MakeDesk) -> None:
    one = desk()
    one.quote(100.0, 100.1)
    order = one.place("BUY", 50, algorithm=algorithm("PctVol", pctVol=10))
    assert order.filled == 0
    one.trade(100.1, 200)
    one.quote(100.0, 100.1)
    assert order.filled == 20
    one.trade(100.1, 5000)
    one.quote(100.0, 100.1)
    assert order.status is OrderStatus.FILLED


@pytest.mark.parametrize(
    ("priority", "at_once", "after_a_minute"), [("Urgent", 10, 10), ("Normal", 3, 10), ("Patient", 2, 10)]
)
def test_adaptive(desk: MakeDesk, priority: str, at_once: int, after_a_minute: int) -> None:
    one = desk()
    one.quote(100.0, 100.1)
    order = one.place("BUY", 10, algorithm=algorithm("Adaptive", adaptivePriority=priority))
    assert order.filled == at_once
    one.engine.advance(until_ns=OPEN_NS + 120 * SECOND_NS)
    assert order.filled == after_a_minute


@pytest.mark.parametrize(
    ("name", "given_", "words"),
    [
        ("Nothing", {}, "Algorithm definition not found"),
        ("Adaptive", {"adaptivePriority": "Hasty"}, "adaptivePriority cannot be Hasty"),
        ("Adaptive", {"speed": 1}, "speed is not an attribute"),
        ("PctVol", {}, "pctVol is required"),
        ("PctVol", {"pctVol": 51}, "pctVol cannot be 51"),
        ("Twap", {"startTime": "noon"}, "startTime cannot be noon"),
        ("Twap", {"allowPastEndTime": "maybe"}, "allowPastEndTime cannot be maybe"),
    ],
)
def test_algorithms_that_are_refused(name: str, given_: dict[str, object], words: str) -> None:
    apple = default_universe().by_conid(AAPL)
    assert apple is not None
    found = algorithms.read(name, given_, apple)
    assert isinstance(found, str)
    assert words in found


def test_foreign_stocks_have_no_algorithms() -> None:
    foreign = default_universe().by_conid(273982664)
    assert foreign is not None
    assert algorithms.offered(foreign) == ()


# --- groups ----------------------------------------------------------------------------------------


@given(
    st.lists(st.integers(0, 50), min_size=1, max_size=5).filter(any),
    st.lists(st.integers(1, 400), min_size=1, max_size=6),
)
def test_parts_of_executions_add_up(weights: list[int], fills: list[int]) -> None:
    shares = [Share(f"DU{k}", Decimal(weight)) for k, weight in enumerate(weights)]
    total, had = Decimal(sum(fills)), {share.account: Decimal(0) for share in shares}
    for size in fills:
        parts = divide(Decimal(size), shares, total, had, Decimal(1))
        assert sum(parts.values()) == size
        assert all(part > 0 and part == int(part) for part in parts.values())
        for name, part in parts.items():
            had[name] += part
    whole = sum(weights)
    for share in shares:
        assert abs(had[share.account] - total * share.weight / whole) < 1


def test_a_group_shares_each_execution(desk: MakeDesk) -> None:
    names = ("DF1", "DU1", "DU2")
    one = desk(accounts=tuple(AccountConfig(account_id=name) for name in names))
    one.quote(100.0, 100.1, ask_size=30)
    shares = (Share("DU1", Decimal(2)), Share("DU2", Decimal(1)))
    order = one.place("BUY", 100, account="growth", allocation=shares)
    one.quote(100.0, 100.1, ask_size=1000)
    assert order.status is OrderStatus.FILLED
    held = [one.engine.account(name).quantity(AAPL) for name in names]
    assert held == [0, 67, 33]
    assert {e.account for e in one.heard.executions} == {"DU1", "DU2"}
    assert len({e.execution_id for e in one.heard.executions}) == len(one.heard.executions) == 4
    assert [len(one.engine.orders(name)) for name in names] == [0, 1, 1]


def test_a_group_is_refused_if_one_of_it_is_too_poor(desk: MakeDesk) -> None:
    one = desk(accounts=(AccountConfig(account_id="DU1"), AccountConfig(account_id="DU2", cash=100.0)))
    one.quote(100.0, 100.1)
    shares = (Share("DU1", Decimal(1)), Share("DU2", Decimal(1)))
    assert "Available converted to base: 100.00" in one.refused("BUY", 10, account="all", allocation=shares)


# --- kept, but not transmitted ---------------------------------------------------------------------


def test_an_order_that_is_not_transmitted_waits(desk: MakeDesk) -> None:
    one = desk()
    one.quote(100.0, 100.1)
    order = one.place("BUY", 10, deactivated=True)
    one.quote(100.0, 100.1)
    assert (order.status.value, str(order.filled)) == ("Inactive", "0")
    assert one.engine.modify(order.order_id, one.spec("BUY", 10)).error is None
    assert order.status.value == "Filled"
    other = one.place("BUY", 10, deactivated=True)
    assert one.engine.cancel(other.order_id) is None
    assert other.status is OrderStatus.CANCELLED
