"""The gate as a whole: all or none, in order, changes of standing orders, what the journal is given."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec
import pytest

from bt_ibkr.clock import ManualClock
from bt_ibkr.errors import RiskRefusedError
from bt_ibkr.model.contract import Contract, SecurityType
from bt_ibkr.model.intent import OrderIntent
from bt_ibkr.model.market import DataQuality, Tick
from bt_ibkr.model.order import OrderType, modified
from bt_ibkr.model.trading import Trading, TradingState
from bt_ibkr.risk import OpenOrder, Quote, RiskGate, RiskLimits, TradingRules
from tests.risk.conftest import AAPL, MSFT, Judge, Orders, Played, only


def test_nothing_to_check(view: Played, clock: ManualClock) -> None:
    assert RiskGate(only(), clock).cleared((), view) == ()


def test_one_bad_order_refuses_all_and_none_counts(
    judge: Judge, view: Played, order: Orders, clock: ManualClock
) -> None:
    gate = RiskGate(only(max_order_size=10, orders_per_minute=2, duplicate_window_s=60), clock)
    for _ in range(5):
        refusal = judge.refusal(gate, order(1), bad := order(11))
        assert refusal.key == bad.key
    judge.passes(gate, order(1), order(2))


def test_the_first_control_in_order_is_told(judge: Judge, view: Played, order: Orders) -> None:
    limits = only(read_only=True, max_order_size=1, check_lot=True)
    assert judge.refusal(limits, order("2.5")).control == "read_only"
    assert judge.refusal(only(max_order_size=1, check_lot=True), order("2.5")).control == "lot"


def test_a_quote_is_asked_for_once(view: Played, order: Orders, clock: ManualClock) -> None:
    asked: list[int] = []

    class Counting(Played):
        def quote(self, conid: int) -> Quote | None:
            asked.append(conid)
            return super().quote(conid)

    RiskGate(RiskLimits(stop_band_percent=Decimal(50)), clock).check(order.bracket(10), Counting())
    assert asked == [AAPL]


class TestCleared:
    def test_orders_that_reduce_are_marked_for_the_journal(
        self, view: Played, order: Orders, clock: ManualClock
    ) -> None:
        gate = RiskGate(only(), clock)
        view.positions[AAPL] = Decimal(10)
        plain, flagged = order(-4), order(-6, protective=True)
        assert gate.cleared((plain, flagged), view) == (plain, flagged)
        view.state = TradingState(mode=Trading.REDUCING)
        cleared = gate.cleared((plain, flagged), view)
        assert [intent.ticket.protective for intent in cleared] == [True, True]
        assert cleared[1] is flagged
        unmarked = msgspec.structs.replace(cleared[0].ticket, protective=False)
        assert msgspec.structs.replace(cleared[0], ticket=unmarked) == plain

    def test_a_claim_is_no_proof(self, judge: Judge, view: Played, order: Orders) -> None:
        """An order that says it protects, and could turn the position round, is held to every limit."""
        view.positions[AAPL] = Decimal(10)
        assert not judge.accepts(only(max_order_size=5), order(-11, protective=True))
        assert judge.accepts(only(max_order_size=5), order(-10, protective=False))


class TestChange:
    @pytest.fixture
    def standing(self, view: Played, order: Orders) -> OrderIntent:
        standing = order(50, 99.0)
        view.stand(standing)
        return standing

    @staticmethod
    def change(gate: RiskGate, view: Played, standing: OrderIntent, filled: int = 0, **changes: Any) -> None:
        gate.check_change(standing, modified(standing.ticket, **changes), view, filled=Decimal(filled))

    @pytest.mark.parametrize(
        ("limits", "changes", "control"),
        [
            ({"max_order_size": 60}, {"quantity": Decimal(61)}, "max_order_size"),
            ({"max_order_notional": 5_000}, {"limit_price": 100.01}, "max_order_notional"),
            ({"price_band_percent": 20}, {"limit_price": 999.0}, "price_band"),
            ({"check_tick": True}, {"limit_price": 99.001}, "tick"),
            ({"check_lot": True}, {"quantity": Decimal("50.5")}, "lot"),
            ({"max_position_size": 60}, {"quantity": Decimal(61)}, "max_position"),
            ({"read_only": True}, {"quantity": Decimal(1)}, "read_only"),
        ],
    )
    def test_is_held_to_the_limits(
        self,
        view: Played,
        clock: ManualClock,
        standing: OrderIntent,
        limits: dict[str, Any],
        changes: dict[str, Any],
        control: str,
    ) -> None:
        with pytest.raises(RiskRefusedError, match="Change to BUY") as caught:
            self.change(RiskGate(only(**limits), clock), view, standing, **changes)
        assert caught.value.control == control
        self.change(RiskGate(only(), clock), view, standing, **changes)

    def test_does_not_count_the_order_twice(
        self, view: Played, clock: ManualClock, standing: OrderIntent
    ) -> None:
        gate = RiskGate(only(max_position_size=60, max_open_orders=1, duplicate_window_s=60), clock)
        self.change(gate, view, standing, quantity=Decimal(60))
        self.change(gate, view, standing, limit_price=98.0)

    def test_counts_what_has_executed_once(
        self, view: Played, clock: ManualClock, standing: OrderIntent
    ) -> None:
        view.positions[AAPL] = Decimal(20)
        view.open[AAPL] = [OpenOrder(key=standing.key, effect=Decimal(30))]
        gate = RiskGate(only(max_position_size=60), clock)
        self.change(gate, view, standing, filled=20, quantity=Decimal(60))
        with pytest.raises(RiskRefusedError):
            self.change(gate, view, standing, filled=20, quantity=Decimal(61))

    def test_keeps_its_bracket(self, view: Played, order: Orders, clock: ManualClock) -> None:
        bracket = order.bracket(50)
        view.stand(*bracket)
        gate = RiskGate(only(max_position_size=50), clock)
        self.change(gate, view, bracket[1], stop_price=95.0)
        with pytest.raises(RiskRefusedError):
            self.change(gate, view, bracket[1], quantity=Decimal(101))

    def test_counts_for_the_rate(
        self, view: Played, order: Orders, clock: ManualClock, standing: OrderIntent
    ) -> None:
        gate = RiskGate(only(orders_per_minute=2), clock)
        self.change(gate, view, standing, limit_price=98.0)
        gate.check((order(1),), view)
        with pytest.raises(RiskRefusedError, match="above orders_per_minute 2"):
            self.change(gate, view, standing, limit_price=97.0)

    def test_of_a_stop_while_reducing(self, view: Played, order: Orders, clock: ManualClock) -> None:
        view.positions[AAPL] = Decimal(10)
        stop = order(-10, order_type=OrderType.STOP, stop_price=90.0)
        view.stand(stop)
        view.state = TradingState(mode=Trading.REDUCING)
        gate = RiskGate(only(), clock)
        self.change(gate, view, stop, stop_price=95.0)
        with pytest.raises(RiskRefusedError, match="REDUCING"):
            self.change(gate, view, stop, quantity=Decimal(11))
        entry = order(5, 90.0)
        view.stand(entry)
        with pytest.raises(RiskRefusedError, match="REDUCING"):
            self.change(gate, view, entry, limit_price=91.0)


def test_orders_of_several_contracts_in_one_submission(judge: Judge, view: Played, order: Orders) -> None:
    view.positions[AAPL], view.positions[MSFT] = Decimal(10), Decimal(-20)
    view.state = TradingState(mode=Trading.REDUCING)
    assert judge.accepts(only(), order(-10), order(20, contract_id=MSFT))
    assert not judge.accepts(only(), order(-10), order(21, contract_id=MSFT))


class TestView:
    def test_a_quote_of_a_tick(self) -> None:
        tick = Tick(
            time_ns=1, conid=AAPL, bid=1.0, ask=2.0, bid_size=1.0, ask_size=1.0, last=1.5, last_size=1.0,
            traded=0.0, volume=None, quality=DataQuality.DELAYED, halted=True, received_ns=5_000_000_000,
        )  # fmt: skip
        assert Quote.from_tick(tick, 7_500_000_000) == Quote(
            bid=1.0, ask=2.0, last=1.5, age_s=2.5, quality=DataQuality.DELAYED, halted=True
        )
        assert Quote.from_tick(tick, 4).age_s == 0.0

    def test_rules_of_a_contract(self) -> None:
        contract = Contract(
            conid=1, symbol="ES", security_type=SecurityType.FUTURE, multiplier=50.0, tick_size=0.25
        )
        rules = TradingRules.of(contract, tick_steps=[(0.0, 0.1)], open_now=True)
        assert (rules.multiplier, rules.tick_size, rules.size_increment) == (
            Decimal(50),
            Decimal("0.25"),
            Decimal(1),
        )
        assert (rules.tick_at(Decimal(-5)), rules.open, rules.open_extended) == (Decimal("0.1"), True, None)
        assert TradingRules.of(contract, fractions=True).size_increment is None
        assert TradingRules.of(msgspec.structs.replace(contract, tick_size=0.0)).tick_size is None
