"""What a backtest pays and what the emulator's account pays for the same orders: the same, to the cent."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import backtrader as bt
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bt_ibkr.brokers.commission import IBKRCommission
from bt_ibkr.emulator.accounts.account import AccountConfig
from bt_ibkr.emulator.engine import Engine, EngineConfig
from bt_ibkr.emulator.market.tape import VALUE_COLUMNS, Tape
from bt_ibkr.emulator.types import EmulatedExecution, Instrument, MarketEvent, OrderSpec
from bt_ibkr.emulator.universe import Universe
from bt_ibkr.model.contract import Contract, SecurityType
from bt_ibkr.model.order import OrderType, Side, TimeInForce

ACCOUNT = "DU1234567"
CASH = 1e12
#: Monday 2026-03-02, 09:30 in New York.
OPEN_NS = 1_772_461_800 * 1_000_000_000
STEP_NS = 60 * 1_000_000_000
MULTIPLIERS = {"STK": 1.0, "OPT": 100.0, "FUT": 50.0, "FOP": 50.0, "CASH": 1.0, "CRYPTO": 1.0}


def contract_of(kind: str) -> Contract:
    return Contract(
        conid=1,
        symbol="EUR.USD" if kind == "CASH" else "X",
        security_type=SecurityType(kind),
        multiplier=MULTIPLIERS[kind],
        size_increment=0.0001 if kind == "CRYPTO" else 1.0,
    )


class Listener:
    """Keeps the executions."""

    def __init__(self) -> None:
        self.executions: list[EmulatedExecution] = []

    def on_quote(self, *_: Any) -> None: ...
    def on_order(self, *_: Any) -> None: ...
    def on_account(self, *_: Any) -> None: ...
    def on_execution(self, execution: EmulatedExecution, _order: Any) -> None:
        self.executions.append(execution)


def emulated(kind: str, schedule: str, orders: list[tuple[float, float]]) -> list[Decimal]:
    """The commission of each order in the emulator's account; the price stands when the order comes."""
    heard = Listener()
    columns = {name: np.array([np.nan]) for name in VALUE_COLUMNS}
    engine = Engine(
        tape=Tape(np.array([OPEN_NS]), np.array([1]), columns),
        universe=Universe([Instrument(contract=contract_of(kind))]),
        config=EngineConfig(
            commission=schedule, margin="off", accounts=(AccountConfig(account_id=ACCOUNT, cash=CASH),)
        ),
        listener=heard,
    )
    engine.advance()
    for number, (size, price) in enumerate(orders, start=1):
        engine.inject(
            MarketEvent(
                OPEN_NS + number * STEP_NS, 1, bid=price, ask=price, bid_size=1e9, ask_size=1e9, last=price
            )
        )
        spec = OrderSpec(
            account=ACCOUNT,
            conid=1,
            side=Side.BUY if size > 0 else Side.SELL,
            order_type=OrderType.MARKET,
            quantity=abs(Decimal(repr(size))),
            time_in_force=TimeInForce.IMMEDIATE_OR_CANCEL if kind == "CRYPTO" else TimeInForce.DAY,
        )
        placed = engine.place([spec])[0]
        assert placed.order is not None, placed.error
        assert placed.order.remaining == 0
    costs: dict[int, Decimal] = {}
    for one in heard.executions:
        costs[one.order_id] = costs.get(one.order_id, Decimal(0)) + Decimal(repr(one.commission))
    assert engine.account(ACCOUNT).commissions["USD"] == sum(costs.values())
    return list(costs.values())


class Bars(bt.DataBase):  # type: ignore[misc]
    """A bar for each price."""

    params = (("prices", ()),)

    def start(self) -> None:
        super().start()
        self._left: Iterator[float] = iter(self.p.prices)
        self._time = datetime(2026, 3, 2, 14, 30, tzinfo=UTC)

    def _load(self) -> bool:
        price = next(self._left, None)
        if price is None:
            return False
        self._time += timedelta(minutes=1)
        self.lines.datetime[0] = bt.date2num(self._time)
        for line in (self.lines.open, self.lines.high, self.lines.low, self.lines.close):
            line[0] = price
        self.lines.volume[0] = self.lines.openinterest[0] = 0.0
        return True


class Trader(bt.Strategy):  # type: ignore[misc]
    """One order a bar."""

    params = (("sizes", ()),)

    def start(self) -> None:
        self.left = iter(self.p.sizes)
        self.costs: list[float] = []

    def next(self) -> None:
        size = next(self.left, None)
        if size is not None:
            (self.buy if size > 0 else self.sell)(size=abs(size))

    def notify_order(self, order: Any) -> None:
        assert order.status not in (order.Margin, order.Rejected)
        if order.status == order.Completed:
            self.costs.append(order.executed.comm)


def backtested(kind: str, schedule: str, orders: list[tuple[float, float]]) -> list[float]:
    """The commission of each order in a backtest over bars of the same prices."""
    cerebro = bt.Cerebro(stdstats=False)
    prices = [price for _, price in orders]
    cerebro.adddata(Bars(prices=(prices[0], *prices)))
    cerebro.addstrategy(Trader, sizes=tuple(size for size, _ in orders))
    cerebro.broker.setcash(CASH)
    cerebro.broker.addcommissioninfo(
        IBKRCommission(schedule=schedule, security_type=kind, mult=MULTIPLIERS[kind])
    )
    (strategy,) = cerebro.run()
    costs: list[float] = strategy.costs
    return costs


def without_reversals(sizes: list[float]) -> list[float]:
    """Sizes cut where they would turn the position round, which backtrader splits into two orders' costs."""
    held, found = 0.0, []
    for size in sizes:
        cut = -held if held * size < 0 and abs(size) > abs(held) else size
        held += cut
        found.append(cut)
    return found


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from(sorted(MULTIPLIERS)),
    st.sampled_from(["fixed", "tiered", "none"]),
    st.lists(
        st.tuples(
            st.one_of(st.integers(1, 300), st.integers(1_000, 60_000)),
            st.booleans(),
            st.integers(5, 200_000).map(lambda cents: cents / 100),
        ),
        min_size=1,
        max_size=6,
    ),
)
def test_a_backtest_pays_what_the_emulators_account_pays(
    kind: str, schedule: str, drawn: list[tuple[int, bool, float]]
) -> None:
    # The tiers of a month depend on what was traded before, which a backtest does not count.
    if schedule == "tiered":
        drawn = [(size % 300 + 1, up, price) for size, up, price in drawn]
    sizes = without_reversals([float(size if up else -size) for size, up, _ in drawn])
    orders = [(size, price) for size, (_, _, price) in zip(sizes, drawn, strict=True)]
    live = emulated(kind, schedule, orders)
    backtest = backtested(kind, schedule, orders)
    assert [float(cost) for cost in live] == pytest.approx(backtest, abs=1e-9)


@pytest.mark.parametrize(
    ("kind", "size", "price", "cost"),
    [
        ("OPT", 1, 2.0, "1.00"),  # the minimum
        ("OPT", 10, 2.0, "6.50"),
        ("FOP", 4, 20.0, "9.00"),
        ("CRYPTO", 1, 100.0, "1.00"),  # at most 1 %
        ("CRYPTO", 1, 500.0, "1.75"),  # the minimum
        ("CRYPTO", 2, 50_000.0, "180.00"),
    ],
)
def test_price_lists(kind: str, size: float, price: float, cost: str) -> None:
    scheme = IBKRCommission(security_type=kind, mult=MULTIPLIERS[kind])
    assert scheme.getcommission(size, price) == float(cost)
    assert scheme.getcommission(-size, price) == float(cost)


def test_tiered_options_pay_clearing_and_on_sales_the_regulators() -> None:
    scheme = IBKRCommission(schedule="tiered", security_type="OPT", mult=100.0)
    assert scheme.getcommission(10, 2.0) == 6.75
    assert scheme.getcommission(-10, 2.0) == 6.82  # 2000 of value: 0.0412, and 0.0329


def test_fixed_sums_are_quoted_in_dollars() -> None:
    assert IBKRCommission(security_type="CASH", per_usd=150.0).getcommission(20_000, 150.0) == 300.0
