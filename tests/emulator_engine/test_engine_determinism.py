"""The same calls give the same executions; random calls never break the books."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from bt_ibkr.emulator.accounts.account import AccountConfig
from bt_ibkr.emulator.engine import Engine, EngineConfig
from bt_ibkr.emulator.exchange.states import TRANSITIONS
from bt_ibkr.emulator.market.options import load_market
from bt_ibkr.emulator.market.synthetic import SyntheticMarket, SyntheticShape
from bt_ibkr.emulator.types import (
    EmulatedExecution,
    EmulatedOrder,
    Instrument,
    MarketEvent,
    OrderSpec,
    QuoteState,
)
from bt_ibkr.emulator.universe import Universe, default_universe
from bt_ibkr.model.order import DONE, OrderStatus, OrderType, Side, TimeInForce

if TYPE_CHECKING:
    from tests.emulator_engine.conftest import Desk

    MakeDesk = Callable[..., Desk]

ACCOUNT = "DU1234567"
STOCKS = (265598, 8314)
KINDS = list(OrderType)


def random_spec(random: np.random.Generator, engine: Engine, conid: int) -> OrderSpec:
    quote = engine.quote(conid)
    assert quote is not None
    around = quote.last or quote.bid or 100.0
    prices = [round(around + int(random.integers(-30, 31)) / 100, 2) for _ in range(2)]
    kind = KINDS[int(random.integers(len(KINDS)))]
    trails = kind in (OrderType.TRAIL, OrderType.TRAIL_LIMIT)
    no_prices = kind in (OrderType.MARKET, OrderType.MARKET_ON_CLOSE)
    return OrderSpec(
        account=ACCOUNT,
        conid=conid,
        side=Side.BUY if random.random() < 0.5 else Side.SELL,
        order_type=kind,
        quantity=Decimal(int(random.integers(1, 2_000))),
        limit_price=None if no_prices else prices[0],
        stop_price=None if no_prices or kind is OrderType.RELATIVE else prices[1],
        trail_amount=0.25 if trails else None,
        time_in_force=TimeInForce.GOOD_TILL_CANCELLED,
    )


def trade_a_day(engine: Engine, steps: int) -> dict[str, Any]:
    """Place and cancel at random, always the same way."""
    random = np.random.Generator(np.random.PCG64(5))
    for _ in range(steps):
        engine.advance(max_events=int(random.integers(1, 200)))
        engine.place([random_spec(random, engine, engine.tape.conids[0])])
        working = [order for order in engine.orders() if order.status not in DONE]
        if working and random.random() < 0.3:
            engine.cancel(working[int(random.integers(len(working)))].order_id)
    engine.advance()
    return engine.ledger()


@pytest.mark.parametrize("fill", ["quote", "last"])
def test_two_runs_and_a_reset_give_the_same(universe: Universe, fill: str) -> None:
    def engine() -> Engine:
        market = SyntheticMarket([i for c in STOCKS if (i := universe.by_conid(c))], date(2026, 3, 2), 4)
        return Engine(tape=market, universe=universe, config=EngineConfig(seed=4, fill=fill))

    first = engine()
    ledger = trade_a_day(first, 60)
    assert ledger["executions"]
    assert trade_a_day(engine(), 60) == ledger
    first.reset()
    assert (first.orders(), first.executions(), first.now_ns) == ([], [], engine().now_ns)
    assert trade_a_day(first, 60) == ledger
    first.reset(5)
    assert trade_a_day(first, 60) != ledger
    first.reset(4)
    assert trade_a_day(first, 60) == ledger


def test_a_real_day_is_quick_and_repeats(market_data: Path, universe: Universe) -> None:
    tape = load_market([str(market_data / "ticks_IBM_2013-10-07.parquet")], universe)
    engine = Engine(tape=tape, universe=universe, config=EngineConfig())
    ledger = trade_a_day(engine, 100)
    engine.reset()
    assert trade_a_day(engine, 100) == ledger


class _Watch:
    """A listener that checks what it hears against the table of states and the books."""

    def __init__(self) -> None:
        self.status: dict[int, OrderStatus] = {}
        self.executed: list[tuple[int, Side, Decimal, float, float]] = []

    def on_quote(self, instrument: Instrument, quote: QuoteState, event: MarketEvent) -> None:
        pass

    def on_order(self, order: EmulatedOrder) -> None:
        before = self.status.get(order.order_id)
        if before is not None and before is not order.status:
            assert order.status in TRANSITIONS[before]
        if before is None:
            assert order.status is OrderStatus.INACTIVE
        self.status[order.order_id] = order.status
        assert 0 <= order.filled <= order.spec.quantity

    def on_execution(self, execution: EmulatedExecution, order: EmulatedOrder) -> None:
        self.executed.append(
            (execution.conid, execution.side, execution.quantity, execution.price, execution.commission)
        )

    def on_account(self, account: str) -> None:
        pass


class Trading(RuleBasedStateMachine):
    """Random orders, changes and market moves; afterwards the books must balance."""

    @initialize(
        fill=st.sampled_from(["quote", "last"]),
        commission=st.sampled_from(["fixed", "tiered", "none"]),
        seed=st.integers(0, 50),
    )
    def start(self, fill: str, commission: str, seed: int) -> None:
        universe = default_universe()
        market = SyntheticMarket(
            [i for c in STOCKS if (i := universe.by_conid(c))],
            date(2026, 3, 2),
            seed,
            shape=SyntheticShape(events_per_second=0.02, prior_days=0),
        )
        self.watch = _Watch()
        config = EngineConfig(
            fill=fill, commission=commission, seed=seed, accounts=(AccountConfig(cash=2_000_000),)
        )
        self.engine = Engine(tape=market, universe=universe, config=config, listener=self.watch)
        self.random = np.random.Generator(np.random.PCG64(seed))
        self.engine.advance(max_events=4)

    @rule(conid=st.sampled_from(STOCKS))
    def place_one(self, conid: int) -> None:
        self.engine.place([random_spec(self.random, self.engine, conid)])

    @rule(conid=st.sampled_from(STOCKS), number=st.integers(0, 10**9))
    def place_bracket(self, conid: int, number: int) -> None:
        import msgspec

        specs = [random_spec(self.random, self.engine, conid) for _ in range(3)]
        parent = msgspec.structs.replace(specs[0], client_order_id=f"b{number}")
        away = Side.SELL if parent.side is Side.BUY else Side.BUY
        children = [
            msgspec.structs.replace(
                spec, side=away, quantity=parent.quantity, parent_client_id=parent.client_order_id
            )
            for spec in specs[1:]
        ]
        self.engine.place([parent, *children])

    @rule(conid=st.sampled_from(STOCKS), count=st.integers(2, 4))
    def place_group(self, conid: int, count: int) -> None:
        import msgspec

        self.engine.place(
            [
                msgspec.structs.replace(random_spec(self.random, self.engine, conid), one_cancels_all=True)
                for _ in range(count)
            ]
        )

    @rule(pick=st.integers(0, 10**6))
    def cancel(self, pick: int) -> None:
        orders = self.engine.orders()
        if orders:
            order = orders[pick % len(orders)]
            done = order.status in DONE
            assert (self.engine.cancel(order.order_id) is not None) is done
            assert order.status in DONE

    @rule(pick=st.integers(0, 10**6))
    def modify(self, pick: int) -> None:
        orders = self.engine.orders()
        if orders:
            order = orders[pick % len(orders)]
            spec = random_spec(self.random, self.engine, order.spec.conid)
            self.engine.modify(order.order_id, spec)

    @rule(count=st.integers(1, 60))
    def move(self, count: int) -> None:
        self.engine.advance(max_events=count)

    @rule(conid=st.sampled_from(STOCKS), on=st.booleans())
    def halt(self, conid: int, on: bool) -> None:
        self.engine.halt(conid, on)

    @invariant()
    def the_books_balance(self) -> None:
        if not hasattr(self, "engine"):
            return
        account = self.engine.account(ACCOUNT)
        cash = Decimal(2_000_000)
        held = dict.fromkeys(STOCKS, Decimal(0))
        for conid, side, quantity, price, commission in self.watch.executed:
            cash -= side.sign * quantity * Decimal(repr(price)) + Decimal(repr(commission))
            held[conid] += side.sign * quantity
        assert account.cash("USD") == cash
        assert {conid: account.quantity(conid) for conid in STOCKS} == held
        profit = account.net_liquidation() - 2_000_000
        assert abs(profit - account.realized_pnl() - account.unrealized_pnl()) < Decimal("1e-9")

    @invariant()
    def orders_agree_with_executions(self) -> None:
        if not hasattr(self, "engine"):
            return
        filled: dict[int, Decimal] = {}
        for execution in self.engine.executions():
            filled[execution.order_id] = filled.get(execution.order_id, Decimal(0)) + execution.quantity
        for order in self.engine.orders():
            assert order.filled == filled.get(order.order_id, 0)
            assert order.filled <= order.spec.quantity
            assert (order.status is OrderStatus.FILLED) == (order.remaining == 0)
        working = {w.order.order_id for c in STOCKS for w in self.engine.book(c).orders}
        assert working == {o.order_id for o in self.engine.orders() if o.status not in DONE}
        ids = [execution.execution_id for execution in self.engine.executions()]
        assert len(set(ids)) == len(ids)

    @invariant()
    def groups_never_fill_more_than_once(self) -> None:
        if not hasattr(self, "engine"):
            return
        for order in self.engine.orders():
            if order.status is OrderStatus.FILLED and order.oca_group:
                for other in self.engine.orders():
                    if other is not order and other.oca_group == order.oca_group:
                        assert other.status in DONE


TestTrading = Trading.TestCase
TestTrading.settings = settings(
    max_examples=40,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
