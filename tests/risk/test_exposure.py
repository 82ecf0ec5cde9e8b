"""Reach of a position: against every way in which its orders can execute."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bt_ibkr.model.contract import Leg
from bt_ibkr.model.order import OrderTicket, OrderType, Side
from bt_ibkr.risk import OpenOrder, effects, increasing, reach
from bt_ibkr.risk.exposure import Reach, reduces
from tests.risk.conftest import AAPL, ACCOUNT, COMBO, MSFT


def standing(key: str, effect: int, *, parent: str | None = None, group: str | None = None) -> OpenOrder:
    return OpenOrder(key=key, effect=Decimal(effect), parent_key=parent, group=group)


def span(low: int, high: int) -> Reach:
    return Reach(Decimal(low), Decimal(high))


def outcomes(position: Decimal, orders: Sequence[OpenOrder]) -> Iterator[Decimal]:
    """Every position that can come of it, by trying which orders execute as a whole."""
    by_key = {order.key: order for order in orders}
    for chosen in itertools.product((False, True), repeat=len(orders)):
        done = [order for order, executes in zip(orders, chosen, strict=True) if executes]
        keys = {order.key for order in done}
        if any(order.parent_key in by_key and order.parent_key not in keys for order in done):
            continue
        top = [order for order in done if order.parent_key not in by_key]
        groups = [order.group for order in top if order.group is not None]
        if len(set(groups)) < len(groups):
            continue
        closing = [
            order.parent_key
            for order in done
            if order.parent_key is not None and (order.parent_key in by_key or order.group is None)
            # What closes: it is against what its parent opened.
            if order.effect * (by_key[order.parent_key].effect if order.parent_key in by_key else position)
            <= 0
        ]
        if len(set(closing)) == len(closing):
            yield position + sum((order.effect for order in done), Decimal(0))


@st.composite
def books(draw: st.DrawFn) -> list[OpenOrder]:
    """A few orders: single ones, groups, parents with children, children whose parent has executed."""
    found: list[OpenOrder] = []
    for number in range(draw(st.integers(0, 6))):
        parents = [order.key for order in found if order.parent_key is None]
        parent = draw(st.sampled_from([None, None, "gone", *parents]))
        group = draw(st.sampled_from([None, None, "g", "h"])) if parent is None else None
        effect = draw(st.integers(-9, 9).filter(bool))
        found.append(standing(f"k{number}", effect, parent=parent, group=group))
    return found


@given(position=st.integers(-20, 20), orders=books())
def test_reach_is_what_can_happen(position: int, orders: list[OpenOrder]) -> None:
    can = list(outcomes(Decimal(position), orders))
    found = reach(Decimal(position), orders)
    assert min(can) >= found.low
    assert max(can) <= found.high
    # And no wider, as long as the children that are left do not mix what closes with what adds.
    if not any(order.parent_key is not None for order in orders):
        assert found == Reach(min(can), max(can))
    assert reach(Decimal(position), orders[::-1]) == found


def test_a_bracket() -> None:
    orders = [standing("e", 100), standing("s", -100, parent="e"), standing("t", -100, parent="e")]
    assert reach(Decimal(0), orders) == span(0, 100)
    # The entry has executed: stop and target close it once, not twice.
    assert reach(Decimal(100), orders[1:]) == span(0, 100)
    # Half of it has.
    half = [standing("e", 50), *orders[1:]]
    assert reach(Decimal(50), half) == span(0, 100)


def test_children_that_add_up() -> None:
    orders = [standing("e", 10), standing("a", 5, parent="e"), standing("b", 5, parent="e")]
    assert reach(Decimal(0), orders) == span(0, 20)
    assert reach(Decimal(10), orders[1:]) == span(10, 20)


def test_brackets_of_one_group() -> None:
    up = [standing("u", 10, group="g"), standing("us", -10, parent="u")]
    down = [standing("d", -10, group="g"), standing("ds", 10, parent="d")]
    assert reach(Decimal(0), [*up, *down]) == span(-10, 10)


def test_grandchildren() -> None:
    orders = [standing("a", 10), standing("b", -10, parent="a"), standing("c", -10, parent="b")]
    assert reach(Decimal(0), orders) == span(-10, 10)


def test_orders_that_hang_on_each_other_count() -> None:
    orders = [standing("a", 10, parent="b"), standing("b", -10, parent="a"), standing("c", 5, parent="c")]
    assert reach(Decimal(0), orders) == span(-10, 15)
    assert set(increasing(Decimal(0), orders)) == {"a", "b", "c"}


@pytest.mark.parametrize("position", [None, Decimal(0)])
def test_what_is_flat_or_not_known_cannot_be_reduced(position: Decimal | None) -> None:
    still = Reach(Decimal(0), Decimal(0))
    assert not reduces(position, still, still, [])


def test_effects() -> None:
    stock = OrderTicket(
        account=ACCOUNT, contract_id=AAPL, side=Side.SELL, order_type=OrderType.MARKET, quantity=Decimal(3)
    )
    assert effects(stock, Decimal("1.5")) == {AAPL: Decimal("-1.5")}
    combo = OrderTicket(
        account=ACCOUNT,
        contract_id=COMBO,
        security_type="BAG",
        legs=(Leg(AAPL, 1), Leg(MSFT, -2)),
        spread_id=28812380,
        side=Side.SELL,
        order_type=OrderType.MARKET,
        quantity=Decimal(3),
    )
    assert effects(combo, Decimal(3)) == {AAPL: -3, MSFT: 6}


class TestIncreasing:
    def test_entries(self) -> None:
        orders = [standing("more", 5), standing("stop", -10), standing("less", -3)]
        # The stop alone closes the position: the third could turn it round.
        assert increasing(Decimal(10), orders) == ("more", "less")
        assert increasing(Decimal(-10), orders) == ("stop", "less")
        assert increasing(Decimal(0), orders) == ("more", "stop", "less")

    def test_stop_and_target_stay(self) -> None:
        both = [standing("stop", -10, parent="gone"), standing("target", -10, parent="gone")]
        assert increasing(Decimal(10), both) == ()
        assert increasing(Decimal(10), [standing("a", -10, group="g"), standing("b", -10, group="g")]) == ()

    def test_a_bracket_goes_as_one(self) -> None:
        orders = [standing("e", 5), standing("s", -5, parent="e"), standing("own", -10)]
        assert increasing(Decimal(10), orders) == ("e",)

    @given(position=st.integers(-20, 20), orders=books())
    def test_what_is_left_only_reduces(self, position: int, orders: list[OpenOrder]) -> None:
        named = set(increasing(Decimal(position), orders))
        left = [order for order in orders if order.key not in named and order.parent_key not in named]
        for became in outcomes(Decimal(position), left):
            assert abs(became) <= abs(position)
            assert became * position >= 0
