"""Commission schedules."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bt_ibkr.errors import UsageError
from bt_ibkr.model.commission import (
    CENT,
    REGULATORS,
    SCHEDULE_NAMES,
    CommissionSchedule,
    OrderProgress,
    commission_schedule,
)
from bt_ibkr.model.contract import SecurityType
from bt_ibkr.model.order import Side

STOCK, FOREX, FUTURE = SecurityType.STOCK, SecurityType.FOREX, SecurityType.FUTURE


def progress(quantity: object, price: object, added: object = 0) -> OrderProgress:
    amount = Decimal(str(quantity))
    return OrderProgress(quantity=amount, value=amount * Decimal(str(price)), added=Decimal(str(added)))


@pytest.mark.parametrize(
    ("quantity", "price", "cost"),
    [
        (100, 100, "1.00"),  # the minimum
        (200, 100, "1.00"),
        (201, 100, "1.01"),  # 1.005, half up
        (1000, 25, "5.00"),
        (1000, "0.25", "2.50"),  # 1 % of 250
        (10, 5, "0.50"),  # the maximum is below the minimum
        (0, 100, "0"),
    ],
)
def test_fixed(quantity: int, price: object, cost: str) -> None:
    fixed = commission_schedule("fixed")
    assert fixed.cost(STOCK, Side.BUY, progress(quantity, price)) == Decimal(cost)
    assert fixed.cost(STOCK, Side.SELL, progress(quantity, price)) == Decimal(cost)


def test_tiered_by_volume_of_the_month() -> None:
    bare = CommissionSchedule(name="x", stocks=commission_schedule("tiered").stocks)
    bought = progress(1000, 100, added=1000)
    # 3.50 and clearing 0.20, less 2.00 for the liquidity added
    assert bare.cost(STOCK, Side.BUY, bought) == Decimal("1.70")
    # half of the shares are beyond 300,000 of the month: 1.75 + 1.00
    assert bare.cost(STOCK, Side.BUY, bought, month_volume=Decimal(299_500)) == Decimal("0.95")
    taken = progress(1000, 100)
    assert bare.cost(STOCK, Side.BUY, taken) == Decimal("6.70")
    # the minimum, clearing 0.02 and exchange 0.30
    assert bare.cost(STOCK, Side.BUY, progress(100, 100)) == Decimal("0.67")


def test_regulators_charge_sales_only() -> None:
    without, with_fees = commission_schedule("fixed"), commission_schedule("fixed", regulatory=True)
    amount = progress(1000, 100)
    assert with_fees.cost(STOCK, Side.BUY, amount) == without.cost(STOCK, Side.BUY, amount)
    extra = with_fees.cost(STOCK, Side.SELL, amount) - without.cost(STOCK, Side.SELL, amount)
    assert extra == Decimal("2.26")  # 2.06 for the SEC and 0.195 for FINRA, half up together
    huge = with_fees.cost(STOCK, Side.SELL, progress(1_000_000, 1))
    assert huge == Decimal("5000.00") + Decimal("20.60") + REGULATORS.activity_maximum
    assert commission_schedule("tiered", regulatory=False).regulators is None
    assert commission_schedule("none", regulatory=True).regulators is None


def test_pairs_and_futures() -> None:
    fixed = commission_schedule("fixed")
    assert fixed.cost(FOREX, Side.BUY, progress(20_000, "1.1")) == Decimal("2.00")
    assert fixed.cost(FOREX, Side.BUY, progress(1_000_000, "1.1")) == Decimal("22.00")
    assert fixed.cost(FOREX, Side.BUY, progress(20_000, 150), per_usd=Decimal(150)) == Decimal("300.00")
    assert fixed.cost(FUTURE, Side.SELL, progress(3, 6000)) == Decimal("6.75")


def test_nothing_costs_nothing() -> None:
    free = commission_schedule("none")
    for kind in (STOCK, FOREX, FUTURE):
        assert free.cost(kind, Side.SELL, progress(1000, 100)) == 0


def test_an_unknown_schedule() -> None:
    with pytest.raises(UsageError, match="tiered"):
        commission_schedule("cheap")


executions = st.lists(
    st.tuples(
        st.integers(1, 5_000),
        st.decimals("0.01", "900", places=2, allow_nan=False, allow_infinity=False),
        st.booleans(),
    ),
    min_size=1,
    max_size=12,
)


@given(
    executions,
    st.sampled_from(SCHEDULE_NAMES),
    st.sampled_from([STOCK, FOREX, FUTURE]),
    st.sampled_from(list(Side)),
    st.booleans(),
    st.integers(0, 4_000_000),
)
def test_the_parts_add_up_to_the_whole(
    parts: list[tuple[int, Decimal, bool]],
    name: str,
    kind: SecurityType,
    side: Side,
    regulatory: bool,
    month: int,
) -> None:
    schedule = commission_schedule(name, regulatory=regulatory)
    done, paid = OrderProgress(), Decimal(0)
    for quantity, price, adds in parts:
        after = done.plus(Decimal(quantity), quantity * price, adds_liquidity=adds)
        cost = schedule.execution_cost(kind, side, done, after, month_volume=Decimal(month))
        assert cost == cost.quantize(CENT)
        paid, done = paid + cost, after
    whole = OrderProgress(
        quantity=Decimal(sum(q for q, _, _ in parts)),
        value=sum((q * p for q, p, _ in parts), Decimal(0)),
        added=Decimal(sum(q for q, _, adds in parts if adds)),
    )
    assert paid == schedule.cost(kind, side, whole, month_volume=Decimal(month))


@given(executions, st.sampled_from(list(Side)))
def test_fixed_keeps_its_bounds(parts: list[tuple[int, Decimal, bool]], side: Side) -> None:
    schedule = commission_schedule("fixed")
    done = OrderProgress()
    for quantity, price, _ in parts:
        after = done.plus(Decimal(quantity), quantity * price)
        assert schedule.execution_cost(STOCK, side, done, after) >= 0
        done = after
    cost, half = schedule.cost(STOCK, side, done), Decimal("0.005")
    assert cost <= done.value / 100 + half
    assert cost >= min(Decimal(1), done.value / 100 - half)
