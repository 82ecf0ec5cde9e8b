"""Fill model ``last``: in full, at the next print."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from bt_ibkr.model.order import OrderStatus, TimeInForce

if TYPE_CHECKING:
    from tests.emulator_engine.conftest import Desk

    MakeDesk = Callable[..., Desk]

EURUSD = 12087792


def test_a_market_order_takes_the_next_print_in_full(desk: MakeDesk) -> None:
    d = desk(fill="last")
    d.quote(99.0, 101.0)
    d.trade(100.0)
    order = d.place("BUY", 5000)
    d.quote(98.0, 99.0)
    assert order.status is OrderStatus.SUBMITTED
    d.trade(100.5, 1)
    assert d.fills == [("5000", 100.5)]


def test_a_bid_said_again_is_no_print_of_a_currency_pair(desk: MakeDesk) -> None:
    d = desk(fill="last", conid=EURUSD)
    d.quote(1.1, 1.1002)
    order = d.place("BUY", 1000)
    d.quote(1.1, 1.1003)
    assert order.status is OrderStatus.SUBMITTED
    d.quote(1.1001, 1.1003)
    assert d.fills == [("1000", 1.1001)]


def test_an_order_of_the_listener_waits_for_the_print_after(desk: MakeDesk) -> None:
    d = desk(fill="last")

    def react(_: object) -> None:
        d.heard.react = None
        d.place("BUY", 1)

    d.heard.react = react
    d.trade(100.0)
    assert not d.fills
    d.trade(101.0)
    assert d.fills == [("1", 101.0)]


@pytest.mark.parametrize(
    ("side", "limit", "prints", "fill"),
    [
        ("BUY", 100.0, [99.5], 99.5),
        ("BUY", 100.0, [100.5, 99.5], 100.0),
        ("BUY", 100.0, [100.5, 100.0], 100.0),
        ("SELL", 100.0, [100.5], 100.5),
        ("SELL", 100.0, [99.5, 100.5], 100.0),
    ],
)
def test_a_limit_order(desk: MakeDesk, side: str, limit: float, prints: list[float], fill: float) -> None:
    d = desk(fill="last")
    d.place(side, 10, "LMT", limit_price=limit)
    for price in prints:
        d.trade(price)
    assert d.fills == [("10", fill)]


@pytest.mark.parametrize(
    ("side", "kind", "stop", "prints", "fill"),
    [
        ("BUY", "STP", 101.0, [100.9, 101.2, 103.0], 101.2),
        ("SELL", "STP", 99.0, [99.1, 98.5, 98.0], 98.5),
        ("BUY", "MIT", 99.0, [99.1, 98.5], 98.5),
        ("SELL", "MIT", 101.0, [100.0, 101.0], 101.0),
    ],
)
def test_triggers_fill_at_the_triggering_print(
    desk: MakeDesk, side: str, kind: str, stop: float, prints: list[float], fill: float
) -> None:
    d = desk(fill="last")
    order = d.place(side, 10, kind, stop_price=stop)
    for price in prints:
        d.trade(price)
    assert d.fills == [("10", fill)]
    assert d.heard.statuses[order.order_id][-2:] == ["Submitted", "Filled"]


def test_a_stop_does_not_look_at_the_print_before_it(desk: MakeDesk) -> None:
    d = desk(fill="last")
    d.trade(102.0)
    d.place("BUY", 10, "STP", stop_price=101.0)
    d.trade(100.0)
    assert not d.fills


@pytest.mark.parametrize(
    ("prints", "fill"), [([101.05], 101.05), ([101.5, 101.4], None), ([101.5, 101.05], 101.1)]
)
def test_a_stop_limit(desk: MakeDesk, prints: list[float], fill: float | None) -> None:
    d = desk(fill="last")
    d.place("BUY", 10, "STOP_LIMIT", stop_price=101.0, limit_price=101.1)
    for price in prints:
        d.trade(price)
    assert [price for _, price in d.fills] == ([] if fill is None else [fill])


def test_trails(desk: MakeDesk) -> None:
    d = desk(fill="last")
    d.trade(100.0)
    d.place("SELL", 10, "TRAIL", trail_amount=2.0)
    d.place("SELL", 5, "TRAILLMT", trail_percent=1.0, stop_price=99.0, limit_price=98.5)
    d.trade(110.0)
    d.trade(108.5)
    assert d.fills == [("5", 108.5)]
    d.trade(108.0)
    assert d.fills[1:] == [("10", 108.0)]


def test_immediate_or_cancel_has_one_print(desk: MakeDesk) -> None:
    d = desk(fill="last")
    ioc = TimeInForce.IMMEDIATE_OR_CANCEL
    filled = d.place("BUY", 10, "LMT", limit_price=101, time_in_force=ioc)
    ended = d.place("BUY", 10, "LMT", limit_price=99, time_in_force=ioc)
    assert ended.status is OrderStatus.SUBMITTED
    d.trade(100.0)
    assert (filled.status, ended.status) == (OrderStatus.FILLED, OrderStatus.CANCELLED)


def test_midprice_and_relative(desk: MakeDesk) -> None:
    d = desk(fill="last")
    d.place("BUY", 10, "MIDPRICE", limit_price=100.0)
    d.place("BUY", 10, "REL", limit_price=99.0)
    d.trade(100.5)
    d.trade(100.0)
    d.trade(99.0)
    assert d.fills == [("10", 100.0), ("10", 99.0)]


def test_without_trades_the_bid_is_the_print(desk: MakeDesk) -> None:
    d = desk(fill="last", conid=EURUSD)
    d.place("BUY", 20000)
    d.tick(ask=1.1001)
    assert not d.fills
    d.tick(bid=1.1)
    assert d.fills == [("20000", 1.1)]


def test_halted_instruments_do_not_match(desk: MakeDesk) -> None:
    d = desk(fill="last")
    d.place("BUY", 10)
    d.engine.halt(d.conid, True)
    d.trade(100.0)
    assert not d.fills
    d.engine.halt(d.conid, False)
    assert not d.fills
    d.trade(100.1)
    assert d.fills == [("10", 100.1)]
