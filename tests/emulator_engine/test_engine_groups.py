"""Brackets and one-cancels-all groups."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from bt_ibkr.emulator.types import EmulatedOrder
from bt_ibkr.model.order import OrderStatus

if TYPE_CHECKING:
    from tests.emulator_engine.conftest import Desk

    MakeDesk = Callable[..., Desk]


def bracket(d: Desk, kind: str = "LMT", quantity: int = 100, **entry: Any) -> list[EmulatedOrder]:
    """A purchase with a profit taker at 110 and a stop at 90; the children come first in the array."""
    if kind == "LMT":
        entry.setdefault("limit_price", 100.0)
    specs = [
        d.spec("SELL", quantity, "LMT", limit_price=110.0, parent_client_id="p"),
        d.spec("BUY", quantity, kind, client_order_id="p", **entry),
        d.spec("SELL", quantity, "STP", stop_price=90.0, parent_client_id="p"),
    ]
    placed = d.engine.place(specs)
    orders = [one.order for one in placed]
    assert all(orders), [one.error for one in placed]
    return [order for order in orders if order is not None]


@pytest.mark.parametrize("fill", ["quote", "last"])
def test_children_wait_for_the_parent_and_cancel_each_other(desk: MakeDesk, fill: str) -> None:
    d = desk(fill=fill)
    d.quote(104.9, 105.0)
    profit, parent, stop = bracket(d)
    assert (profit.parent_id, stop.parent_id) == (parent.order_id, parent.order_id)
    assert profit.oca_group == stop.oca_group == str(parent.order_id)
    assert {profit.status, stop.status} == {OrderStatus.PRE_SUBMITTED}
    d.quote(115.0, 115.1)
    d.trade(115.0)
    assert not d.fills, "children do not trade before their parent"
    d.quote(99.9, 100.0)
    d.trade(100.0)
    assert parent.status is OrderStatus.FILLED
    assert (profit.status, stop.status) == (OrderStatus.SUBMITTED, OrderStatus.PRE_SUBMITTED)
    d.quote(110.0, 110.1)
    d.trade(110.0)
    assert (profit.status, stop.status) == (OrderStatus.FILLED, OrderStatus.CANCELLED)
    assert stop.reason
    assert d.account.quantity(d.conid) == 0


@pytest.mark.parametrize("fill", ["quote", "last"])
def test_the_stop_ends_the_profit_taker(desk: MakeDesk, fill: str) -> None:
    d = desk(fill=fill)
    d.quote(99.9, 100.0)
    profit, _, stop = bracket(d, "MKT")
    d.trade(100.0)
    d.quote(89.9, 90.0)
    d.trade(90.0)
    assert (profit.status, stop.status) == (OrderStatus.CANCELLED, OrderStatus.FILLED)


def test_a_parent_that_fills_at_once_releases_children_that_fill_at_once(desk: MakeDesk) -> None:
    d = desk()
    d.quote(111.0, 111.1)
    profit, _, stop = bracket(d, "MKT")
    assert d.fills == [("100", 111.1), ("100", 111.0)]
    assert (profit.status, stop.status) == (OrderStatus.FILLED, OrderStatus.CANCELLED)


def test_a_partial_fill_of_the_parent_releases_nothing(desk: MakeDesk) -> None:
    d = desk()
    d.quote(99.9, 100.0, ask_size=40)
    profit, parent, _ = bracket(d)
    assert parent.filled == 40
    assert not profit.active


def test_a_partial_fill_of_a_child_reduces_the_other(desk: MakeDesk) -> None:
    d = desk()
    d.quote(99.9, 100.0)
    profit, _, stop = bracket(d)
    d.quote(110.0, 110.1, bid_size=30)
    assert profit.filled == 30
    assert stop.spec.quantity == 70
    d.quote(89.0, 89.1)
    d.trade(89.0)
    assert stop.filled == 70
    assert (stop.status, profit.status) == (OrderStatus.FILLED, OrderStatus.CANCELLED)
    assert d.account.quantity(d.conid) == 0


def test_cancelling_the_parent_cancels_the_children(desk: MakeDesk) -> None:
    d = desk()
    orders = bracket(d)
    assert d.engine.cancel(orders[1].order_id) is None
    assert {order.status for order in orders} == {OrderStatus.CANCELLED}
    assert d.heard.statuses[orders[1].order_id][-2:] == ["PendingCancel", "Cancelled"]


def test_cancelling_a_child_cancels_its_sibling_but_not_the_parent(desk: MakeDesk) -> None:
    d = desk()
    profit, parent, stop = bracket(d)
    d.engine.cancel(profit.order_id)
    assert (stop.status, parent.status) == (OrderStatus.CANCELLED, OrderStatus.SUBMITTED)


def test_a_refused_parent_takes_its_children_with_it(desk: MakeDesk) -> None:
    d = desk()
    placed = d.engine.place(
        [
            d.spec("BUY", 0, client_order_id="p"),
            d.spec("SELL", 100, "LMT", limit_price=110.0, parent_client_id="p"),
        ]
    )
    assert [one.order for one in placed] == [None, None]
    assert all(one.error for one in placed)


def test_children_do_not_go_to_an_older_order_of_their_parents_id(desk: MakeDesk) -> None:
    d = desk()
    older = d.place("BUY", 10, "LMT", limit_price=50.0, client_order_id="p")
    placed = d.engine.place(
        [
            d.spec("BUY", 100, client_order_id="p"),
            d.spec("SELL", 100, "LMT", limit_price=110.0, parent_client_id="p"),
        ]
    )
    assert [one.order for one in placed] == [None, None]
    assert d.engine.orders() == [older]


def test_a_child_can_come_later(desk: MakeDesk) -> None:
    d = desk()
    d.quote(99.9, 100.0)
    d.place("BUY", 10, client_order_id="p")
    child = d.place("SELL", 10, "LMT", limit_price=101.0, parent_client_id="p")
    assert (child.active, child.status) == (True, OrderStatus.SUBMITTED)
    d.quote(101.0, 101.1)
    assert child.status is OrderStatus.FILLED
    assert "no longer" in d.refused("SELL", 10, "STP", stop_price=90.0, parent_client_id="p")
    assert "not known" in d.refused("SELL", 10, "LMT", limit_price=101.0, parent_client_id="nobody")


def group(d: Desk, *quantities: int) -> list[EmulatedOrder]:
    """Purchases at 100, 99, 98 … that cancel each other."""
    placed = d.engine.place(
        [
            d.spec("BUY", quantity, "LMT", limit_price=100.0 - k, one_cancels_all=True)
            for k, quantity in enumerate(quantities)
        ]
    )
    return [one.order for one in placed if one.order is not None]


def test_one_cancels_all(desk: MakeDesk) -> None:
    d = desk()
    d.quote(104.9, 105.0)
    first, second, third = group(d, 10, 10, 10)
    assert first.oca_group == second.oca_group == third.oca_group
    assert first.oca_group.startswith("oco-")
    d.quote(99.9, 100.0)
    assert [o.status for o in (first, second, third)] == [
        OrderStatus.FILLED,
        OrderStatus.CANCELLED,
        OrderStatus.CANCELLED,
    ]


def test_one_quote_cannot_fill_two_members(desk: MakeDesk) -> None:
    d = desk()
    d.quote(104.9, 105.0)
    first, second = group(d, 10, 10)
    d.quote(89.9, 90.0)
    assert first.status is OrderStatus.FILLED
    assert second.filled == 0


def test_a_partial_fill_reduces_the_group(desk: MakeDesk) -> None:
    d = desk()
    d.quote(104.9, 105.0)
    first, second, third = group(d, 100, 60, 40)
    d.quote(99.9, 100.0, ask_size=50)
    assert first.filled == 50
    assert second.spec.quantity == 10
    assert third.status is OrderStatus.CANCELLED


def test_cancelling_a_member_cancels_the_group(desk: MakeDesk) -> None:
    d = desk()
    first, second = group(d, 10, 10)
    d.engine.cancel(second.order_id)
    assert first.status is OrderStatus.CANCELLED
