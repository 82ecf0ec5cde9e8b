"""Orders of every type, from next() to the exchange and back."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import backtrader as bt
import pytest

if TYPE_CHECKING:
    from tests.conftest import Bench, Tape

Limit, Stop, StopLimit = bt.Order.Limit, bt.Order.Stop, bt.Order.StopLimit
StopTrail, StopTrailLimit = bt.Order.StopTrail, bt.Order.StopTrailLimit
FALL = {0: 100.0, 90: 98.5}
RISE = {0: 100.0, 90: 102.0}
#: Up to 105, then back to 103.5.
PEAK = {0: 100.0, 70: 102.0, 80: 105.0, 90: 103.5}


@pytest.mark.parametrize(
    ("points", "side", "order", "price"),
    [
        (FALL, "buy", {}, 100.01),
        (FALL, "sell", {"exectype": bt.Order.Market}, 99.99),
        # A limit that rests trades at its own price, one that crosses at the quote.
        (FALL, "buy", {"exectype": Limit, "price": 99.0}, 99.0),
        (RISE, "sell", {"exectype": Limit, "price": 101.0}, 101.0),
        (FALL, "buy", {"exectype": Limit, "price": 101.0}, 100.01),
        # A stop trades at the quote behind the print that triggered it.
        (RISE, "buy", {"exectype": Stop, "price": 101.0}, 102.01),
        (FALL, "sell", {"exectype": Stop, "price": 99.0}, 98.49),
        (RISE, "buy", {"exectype": StopLimit, "price": 101.0, "plimit": 102.5}, 102.01),
        # Trails from the last close, 100: the stop stands at 104 when the peak is over.
        (PEAK, "sell", {"exectype": StopTrail, "trailamount": 1.0}, 103.49),
        (PEAK, "sell", {"exectype": StopTrail, "trailpercent": 0.01}, 103.49),
        (FALL | {100: 99.7}, "buy", {"exectype": StopTrail, "trailamount": 1.0}, 99.71),
        # At the close: the last print of the tape.
        (RISE, "buy", {"exectype": bt.Order.Close}, 102.0),
    ],
)
def test_order_types(
    bench: Bench,
    tape: type[Tape],
    path: Any,
    at_bar: Any,
    points: dict[int, float],
    side: str,
    order: dict[str, Any],
    price: float,
) -> None:
    prices = tape().every_second(180, path(points))
    line = bench.line(market=bench.market(AAPL=prices))
    run = bench.run(line, at_bar(lambda s: getattr(s, side)(size=10, **order)))
    (made,) = run.strategy.orders
    sign = 10 if side == "buy" else -10
    assert run.strategy.statuses(made) == ["Submitted", "Accepted", f"Completed {sign}"]
    assert made.executed.price == pytest.approx(price, abs=1e-9)
    assert run.broker.getposition(run.strategy.data).size == sign
    run.agree()


def test_trail_does_not_trigger_before_the_distance(
    bench: Bench, tape: type[Tape], path: Any, at_bar: Any
) -> None:
    prices = tape().every_second(180, path(PEAK))
    line = bench.line(market=bench.market(AAPL=prices))

    def trails(strategy: Any) -> list[Any]:
        return [
            strategy.sell(size=1, exectype=StopTrail, trailamount=1.6),
            strategy.sell(size=1, exectype=StopTrail, trailpercent=0.016),
            strategy.sell(size=1, exectype=StopTrail, trailamount=1.4),
        ]

    run = bench.run(line, at_bar(trails))
    wide, wide_percent, narrow = run.strategy.orders
    assert wide.alive()
    assert wide_percent.alive()
    assert narrow.status == bt.Order.Completed
    run.agree()


def test_stop_limit_waits_when_the_price_has_run_away(
    bench: Bench, tape: type[Tape], path: Any, at_bar: Any
) -> None:
    prices = tape().every_second(240, path(RISE | {150: 101.2}))
    line = bench.line(market=bench.market(AAPL=prices))
    run = bench.run(line, at_bar(lambda s: s.buy(size=10, exectype=StopLimit, price=101.0, plimit=101.5)))
    (order,) = run.strategy.orders
    assert order.status == bt.Order.Completed
    # Triggered at 102 without a fill; the limit then rests, and trades when the quote comes back to it.
    assert order.executed.price == 101.5
    assert order.executed.dt > bt.date2num(bt.num2date(order.created.dt) + timedelta(seconds=89))
    run.agree()


def test_stop_trail_limit_reaches_the_exchange(
    bench: Bench, tape: type[Tape], path: Any, at_bar: Any
) -> None:
    prices = tape().every_second(180, path(PEAK))
    line = bench.line(market=bench.market(AAPL=prices))

    def trail(strategy: Any) -> Any:
        return strategy.sell(size=10, exectype=StopTrailLimit, trailamount=1.0, price=100.0, plimit=99.9)

    run = bench.run(line, at_bar(trail))
    (order,) = run.strategy.orders
    assert run.strategy.statuses(order)[:2] == ["Submitted", "Accepted"]
    (told,) = run.line.emulator.call(lambda server: server.core.engine.orders())
    assert (told.spec.order_type.value, told.spec.trail_amount) == ("TRAILLMT", 1.0)
    run.agree()


def test_partial_fills_carry_only_what_is_new(bench: Bench, tape: type[Tape], at_bar: Any) -> None:
    prices = tape().every_second(180, lambda s: 100.0 + s / 100, size=300)
    line = bench.line(market=bench.market(AAPL=prices))
    run = bench.run(line, at_bar(lambda s: s.buy(size=1000)))
    strategy = run.strategy
    (order,) = strategy.orders
    assert strategy.statuses(order) == [
        "Submitted", "Accepted", "Partial 300", "Partial 300", "Partial 300", "Completed 100",
    ]  # fmt: skip
    bits = [(bit.size, bit.price) for bit in order.executed.exbits]
    # The first part at once, the next ones as the displayed size is replenished.
    assert bits == [(300, 100.6), (300, 100.61), (300, 100.62), (100, 100.63)]
    assert order.executed.price == pytest.approx(sum(s * p for s, p in bits) / 1000)
    remaining = [clone.executed.remsize for clone in strategy.clones]
    assert remaining == [1000, 1000, 700, 400, 100, 0]
    # 0.005 a share in all, whatever the parts.
    assert order.executed.comm == pytest.approx(5.0)
    assert [trade[1] for trade in strategy.trades] == [300]
    run.agree()


def test_reversal_splits_the_execution_into_closed_and_opened(
    bench: Bench, tape: type[Tape], path: Any, at_bar: Any
) -> None:
    prices = tape().every_second(240, path({0: 100.0, 90: 101.0}))
    line = bench.line(market=bench.market(AAPL=prices))
    run = bench.run(line, at_bar(lambda s: s.buy(size=100), lambda s: s.sell(size=300)))
    strategy = run.strategy
    (bit,) = strategy.orders[1].executed.exbits
    assert (bit.closed, bit.opened) == (-100, -200)
    assert bit.pnl == pytest.approx(100 * (100.99 - 100.01))
    # One order, one commission: a third of it belongs to what was closed.
    assert bit.closedcomm == pytest.approx(bit.openedcomm / 2)
    commission = float(run.ledger["executions"][1]["commission"])
    assert bit.closedcomm + bit.openedcomm == pytest.approx(commission)
    assert run.broker.getposition(strategy.data).size == -200
    assert run.broker.getposition(strategy.data).price == 100.99
    run.agree()


def test_prices_are_rounded_to_the_tick(bench: Bench, tape: type[Tape], at_bar: Any) -> None:
    line = bench.line(market=bench.market(AAPL=tape().every_second(120, lambda s: 100.0)))
    run = bench.run(line, at_bar(lambda s: s.buy(size=1, exectype=Limit, price=98.123456)))
    (told,) = run.line.emulator.call(lambda server: server.core.engine.orders())
    assert told.spec.limit_price == 98.12


def test_sizes_of_currency_pairs_and_values_in_the_base_currency(
    bench: Bench, tape: type[Tape], at_bar: Any
) -> None:
    quotes = tape()
    for second in range(180):
        quotes.quote(second, 1.1 + second / 1e5, 1.1 + second / 1e5 + 0.00005, 1_000_000)
    line = bench.line(market=bench.market(EUR_USD=quotes))
    run = bench.run(
        line,
        at_bar(lambda s: s.buy(size=25_000)),
        feeds=[{"dataname": "EUR.USD-CASH-IDEALPRO", "name": "eur"}],
    )
    (order,) = run.strategy.orders
    assert run.strategy.statuses(order) == ["Submitted", "Accepted", "Completed 25000"]
    assert order.executed.comm == 2.0


def test_outside_regular_hours_is_said_for_one_order_or_for_all(
    bench: Bench, tape: type[Tape], at_bar: Any
) -> None:
    line = bench.line(market=bench.market(AAPL=tape().every_second(120, lambda s: 100.0)))

    def two(strategy: Any) -> list[Any]:
        return [
            strategy.buy(size=1, exectype=Limit, price=90.0),
            strategy.buy(size=2, exectype=Limit, price=90.0, outsideRth=True),
        ]

    run = bench.run(line, at_bar(two))
    told = {
        int(order.spec.quantity): order.spec.outside_regular_hours
        for order in run.line.emulator.call(lambda server: server.core.engine.orders())
    }
    assert told == {1: False, 2: True}
