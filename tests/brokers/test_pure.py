"""Tickets and commissions: pure functions."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import backtrader as bt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bt_ibkr.brokers import IBKRCommission
from bt_ibkr.brokers.tickets import check_size, exact, round_to_tick, time_in_force
from bt_ibkr.errors import BtIbkrError, OrderRefusedError
from bt_ibkr.model.order import TimeInForce

sizes = st.integers(1, 100_000)
prices = st.integers(1, 1_000_000).map(lambda cents: cents / 100)


@given(sizes, prices)
def test_fixed_schedule_for_stocks(size: int, price: float) -> None:
    """0.005 a share, at least 1.00, at most 1 % of the value; to the cent."""
    wanted = min(max(0.005 * size, 1.0), 0.01 * size * price)
    for signed in (size, -size):
        assert IBKRCommission().getcommission(signed, price) == pytest.approx(wanted, abs=0.00501)


def test_nothing_for_nothing() -> None:
    for size, price in ((0, 100.0), (math.nan, 1.0), (1, math.nan), (math.inf, 1.0)):
        assert IBKRCommission().getcommission(size, price) == 0.0
    assert IBKRCommission(schedule="none").getcommission(1000, 100.0) == 0.0


def test_tiered_schedule_is_cheaper_for_most_orders() -> None:
    assert IBKRCommission(schedule="tiered").getcommission(10, 100.0) < 1.0


def test_currency_pairs_and_futures() -> None:
    pairs = IBKRCommission(security_type="CASH")
    assert pairs.getcommission(25_000, 1.1) == 2.0
    assert pairs.getcommission(1_000_000, 1.1) == pytest.approx(22.0)
    future = IBKRCommission(security_type="FUT", mult=50.0)
    assert future.getcommission(2, 5000.0) == pytest.approx(2 * future.getcommission(1, 5000.0))
    assert not future.stocklike
    assert future.profitandloss(2, 100.0, 101.5) == 150.0


def test_unknown_schedule_is_refused() -> None:
    with pytest.raises(BtIbkrError, match="'cheap'"):
        IBKRCommission(schedule="cheap")


@given(st.decimals(min_value="0.0001", max_value="1e9", places=4))
def test_size_is_the_number_a_person_wrote(size: Decimal) -> None:
    assert exact(check_size(float(size), "buy X")) == size
    assert exact(check_size(-float(size), "sell X")) == size


@given(st.one_of(st.floats(), st.text(max_size=6), st.none(), st.booleans(), st.integers()))
def test_size_is_a_positive_number_or_refused(size: Any) -> None:
    try:
        checked = check_size(size, "buy X")
    except OrderRefusedError:
        return
    assert checked > 0
    assert math.isfinite(checked)
    assert not isinstance(size, bool)


@given(prices, st.sampled_from([0.01, 0.05, 0.25, 0.00005, 0.0001]))
def test_rounded_price_is_the_nearest_multiple(price: float, tick: float) -> None:
    rounded = round_to_tick(price, tick)
    assert Decimal(repr(rounded)) % Decimal(repr(tick)) == 0
    assert abs(Decimal(repr(rounded)) - Decimal(repr(price))) <= Decimal(repr(tick)) / 2


@pytest.mark.parametrize(
    ("valid", "word"),
    [
        (None, TimeInForce.GOOD_TILL_CANCELLED),
        (bt.Order.DAY, TimeInForce.DAY),
        (timedelta(), TimeInForce.DAY),
        (0, TimeInForce.DAY),
        (timedelta(hours=1), TimeInForce.GOOD_TILL_CANCELLED),
        (date(2026, 3, 2), TimeInForce.GOOD_TILL_CANCELLED),
        (datetime(2026, 3, 2, tzinfo=UTC), TimeInForce.GOOD_TILL_CANCELLED),
        (5, TimeInForce.GOOD_TILL_CANCELLED),
    ],
)
def test_validity(valid: Any, word: TimeInForce) -> None:
    assert time_in_force(valid) is word


@pytest.mark.parametrize("valid", [-1, -0.5, math.nan, math.inf, True, "DAY"])
def test_no_validity(valid: Any) -> None:
    """Any of them would stand at IBKR until somebody cancels it."""
    with pytest.raises(OrderRefusedError, match="is no validity"):
        time_in_force(valid)


def test_size_beyond_any_market_is_refused() -> None:
    with pytest.raises(OrderRefusedError, match="larger than any market"):
        check_size(1e300, "buy X")


def test_price_beyond_decimals_is_left_to_ibkr() -> None:
    assert round_to_tick(1e300, 0.01) == 1e300
