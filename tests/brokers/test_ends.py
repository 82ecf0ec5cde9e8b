"""How orders end without a fill: cancelled, expired, rejected, refused before they are sent."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import backtrader as bt
import pytest

from bt_ibkr.errors import ContractError, OrderRefusedError, UsageError
from bt_ibkr.risk import RiskLimits

if TYPE_CHECKING:
    from tests.conftest import Bench, Run, Tape

Limit, Stop = bt.Order.Limit, bt.Order.Stop
OPEN = datetime(2026, 3, 2, 14, 30, tzinfo=UTC)


def far(strategy: Any, **more: Any) -> Any:
    """A limit order that will not trade."""
    return strategy.buy(size=10, exectype=Limit, price=50.0, **more)


@pytest.fixture
def play(bench: Bench, tape: type[Tape], at_bar: Any) -> Any:
    """Run actions bar by bar over a market that stands at 100."""

    def run(*actions: Any, seconds: int = 180, more: Any = None, **given: Any) -> Run:
        prices = tape().every_second(seconds, lambda s: 100.0)
        if more is not None:
            more(prices)
        broker, parameters = given.pop("broker", None), given.pop("parameters", {})
        line = bench.line(market=bench.market(AAPL=prices), **given)
        return bench.run(line, at_bar(*actions), broker=broker, **parameters)

    return run


def test_cancel(play: Any) -> None:
    run = play(far, lambda s: s.cancel(s.orders[0]) and None)
    (order,) = run.strategy.orders
    assert run.strategy.statuses(order) == ["Submitted", "Accepted", "Canceled"]
    assert not run.broker.get_orders_open()
    run.agree()


def test_cancel_before_the_answer_came(play: Any) -> None:
    def hurry(strategy: Any) -> Any:
        order = far(strategy)
        strategy.cancel(order)
        # It is not cancelled before IBKR says so.
        assert order.status == bt.Order.Submitted
        return order

    run = play(hurry)
    (order,) = run.strategy.orders
    assert run.strategy.statuses(order) == ["Submitted", "Accepted", "Canceled"]
    (told,) = run.line.emulator.call(lambda server: server.core.engine.orders())
    assert told.status.value == "Cancelled"
    run.agree()


def test_cancel_of_what_is_done_does_nothing(play: Any) -> None:
    run = play(lambda s: s.buy(size=10), lambda s: s.cancel(s.orders[0]) and None)
    (order,) = run.strategy.orders
    assert run.strategy.statuses(order) == ["Submitted", "Accepted", "Completed 10"]
    assert not [m for m, *_ in run.strategy.messages if m == "cancel-failed"]


def test_cancel_that_comes_too_late(bench: Bench, tape: type[Tape], at_bar: Any) -> None:
    """The order fills at the exchange while the cancellation is on its way: the fill counts."""
    line = bench.line(market=bench.market(AAPL=tape().every_second(180, lambda s: 100.0)))

    def fill_first(strategy: Any) -> None:
        line.emulator.call(
            lambda server: server.operations.call(
                "tick", {"conid": 265598, "ask": 49.0, "ask_size": 1000, "bid": 48.9, "bid_size": 1000}
            )
        )
        strategy.cancel(strategy.orders[0])

    run = bench.run(line, at_bar(far, fill_first))
    (order,) = run.strategy.orders
    assert run.strategy.statuses(order) == ["Submitted", "Accepted", "Completed 10"]
    assert not run.broker.get_orders_open()
    run.agree()


def test_day_order_expires_at_the_end_of_the_day(play: Any) -> None:
    def evening(prices: Tape) -> None:
        prices.trade(11 * 3600, 100.0).trade(20 * 3600, 100.0).trade(20 * 3600 + 61, 100.0)

    run = play(lambda s: [far(s, valid=bt.Order.DAY), far(s)], more=evening)
    day, until_cancelled = run.strategy.orders
    assert run.strategy.statuses(day) == ["Submitted", "Accepted", "Expired"]
    assert until_cancelled.alive()
    run.agree()


@pytest.mark.parametrize(
    "valid",
    [
        OPEN + timedelta(seconds=90),
        (OPEN + timedelta(seconds=90)).replace(tzinfo=None),
        timedelta(seconds=30),
        30 / 86400,
    ],
    ids=["aware datetime", "naive datetime is UTC", "timedelta", "days"],
)
def test_order_expires_by_the_market_clock(play: Any, valid: Any) -> None:
    """Decided at second 60: valid until second 90, and not a moment longer."""

    def cheap_later(prices: Tape) -> None:
        prices.quote(95, 49.0, 49.5)

    run = play(lambda s: far(s, valid=valid), more=cheap_later)
    (order,) = run.strategy.orders
    assert run.strategy.statuses(order) == ["Submitted", "Accepted", "Expired"]
    (told,) = run.line.emulator.call(lambda server: server.core.engine.orders())
    seconds = told.updated_ns / 1e9 - OPEN.timestamp()
    assert 90 <= seconds < 95
    run.agree()


def test_order_that_fills_in_time_does_not_expire(play: Any) -> None:
    run = play(
        lambda s: far(s, valid=timedelta(seconds=30)), more=lambda prices: prices.quote(80, 49.0, 49.5)
    )
    (order,) = run.strategy.orders
    assert run.strategy.statuses(order) == ["Submitted", "Accepted", "Completed 10"]
    run.agree()


def test_order_valid_until_a_date_of_the_past_is_refused(play: Any) -> None:
    def late(strategy: Any) -> None:
        with pytest.raises(OrderRefusedError, match="in the past"):
            far(strategy, valid=date(2026, 3, 1))

    run = play(late)
    assert not run.broker.orders


def test_cancelled_before_it_expires_is_cancelled(play: Any) -> None:
    run = play(lambda s: far(s, valid=timedelta(hours=5)), lambda s: s.cancel(s.orders[0]) and None)
    (order,) = run.strategy.orders
    assert order.status == bt.Order.Canceled


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"size": 10, "exectype": Limit, "price": 50.001}, "minimum price variation"),
        ({"size": 0.5}, "minimum variation"),
    ],
)
def test_rejected_by_ibkr(play: Any, fields: dict[str, Any], reason: str) -> None:
    # Nothing at home looks at them.
    limits = RiskLimits(check_tick=False, check_lot=False)
    run = play(lambda s: s.buy(**fields), broker={"round_prices": False}, store={"risk": limits})
    (order,) = run.strategy.orders
    assert run.strategy.statuses(order) == ["Submitted", "Rejected"]
    assert reason in order.info["reason"]
    (error,) = [k["error"] for m, _, k in run.strategy.messages if m == "order-failed"]
    assert reason in str(error)
    assert not run.broker.get_orders_open()
    run.agree()


def test_insufficient_funds_is_margin(play: Any) -> None:
    run = play(lambda s: s.buy(size=1000), cash=10_000.0)
    (order,) = run.strategy.orders
    assert run.strategy.statuses(order) == ["Submitted", "Margin"]
    assert run.broker.getcash() == 10_000.0
    run.agree()


@pytest.mark.parametrize("size", [math.nan, math.inf, -math.inf, 0, 0.0, "many", True, None, Decimal("NaN")])
def test_what_is_no_size_is_refused_by_the_broker(play: Any, size: Any) -> None:
    def wrong(strategy: Any) -> None:
        with pytest.raises(OrderRefusedError, match="size"):
            strategy.broker.buy(strategy, strategy.data, size=size)

    run = play(wrong)
    assert not run.broker.orders


@pytest.mark.parametrize(
    "fields",
    [
        {"exectype": Limit, "price": math.nan},
        {"exectype": Limit, "price": "cheap"},
        {"exectype": Stop, "price": math.inf},
        {"exectype": bt.Order.StopTrail},
        {"exectype": bt.Order.StopTrail, "trailamount": math.nan},
        {"exectype": bt.Order.StopTrail, "trailpercent": math.inf},
        {"exectype": bt.Order.Historical, "price": 1.0},
        {"exectype": Limit, "price": 99.0, "valid": "tomorrow"},
    ],
)
def test_what_cannot_be_said_to_ibkr_is_refused_at_once(play: Any, fields: dict[str, Any]) -> None:
    def wrong(strategy: Any) -> None:
        with pytest.raises(OrderRefusedError):
            strategy.buy(size=1, **fields)

    run = play(wrong)
    assert not run.broker.get_orders_open()


def test_order_before_the_first_bar(bench: Bench, tape: type[Tape]) -> None:
    line = bench.line(market=bench.market(AAPL=tape().every_second(120, lambda s: 100.0)))

    def early(strategy: Any, data: Any, status: str) -> None:
        if status == "LIVE":
            strategy.buy(size=1)

    with pytest.raises(OrderRefusedError, match="before the first bar of AAPL"):
        bench.run(line, on_data=early)


def test_order_on_a_bar_of_the_past_is_rejected(bench: Bench, tape: type[Tape]) -> None:
    line = bench.line(market=bench.market(AAPL=tape().every_second(360, lambda s: 100.0)))
    line.step(OPEN + timedelta(seconds=210))

    def always(strategy: Any) -> None:
        strategy.orders.append(strategy.buy(size=1))

    run = bench.run(line, always, feeds=[{"dataname": "AAPL", "backfill_start": True}])
    # Bars end at 60, 120, 180 (the market's newest when the run begins at 210), 240, 300, 360.
    assert [o.getstatusname() for o in run.strategy.orders] == ["Rejected"] * 2 + ["Completed"] * 4
    whys = [k["why"] for m, _, k in run.strategy.messages if m == "order-refused"]
    assert len(whys) == 2
    assert all("history" in why for why in whys)
    run.agree()


def test_data_of_another_kind_cannot_be_traded(play: Any) -> None:
    def wrong(strategy: Any) -> None:
        with pytest.raises(ContractError, match="not an IBKR feed"):
            strategy.broker.buy(strategy, SimpleNamespace(_name="other"), size=1)

    play(wrong)


def test_broker_needs_a_store_and_is_made_once(bench: Bench, tape: type[Tape]) -> None:
    from bt_ibkr.brokers import IBKRBroker

    with pytest.raises(UsageError, match="needs a store"):
        IBKRBroker()
    store = bench.line(market=bench.market(AAPL=tape().every_second(60, lambda s: 100.0))).store
    assert store.getbroker(round_prices=False) is store.getbroker()
    with pytest.raises(UsageError, match="exists already"):
        store.getbroker(round_prices=True)
