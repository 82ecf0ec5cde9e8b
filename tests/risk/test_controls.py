"""Every control by itself: at the limit, beyond it, what it says, and what reduces a position."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec
import pytest

from bt_ibkr.clock import NS_PER_S, ManualClock
from bt_ibkr.errors import RiskRefusedError
from bt_ibkr.model.contract import Leg
from bt_ibkr.model.market import DataQuality
from bt_ibkr.model.order import OrderType, TimeInForce
from bt_ibkr.model.trading import Trading, TradingState
from bt_ibkr.risk import CONTROLS, RiskGate, RiskLimits
from tests.risk.conftest import AAPL, ACCOUNT, COMBO, EUR, MSFT, Judge, Orders, Played, only, quote, stock


def test_each_control_has_a_name_of_its_own_and_says_what_it_refuses() -> None:
    assert len({control.name for control in CONTROLS}) == len(CONTROLS)
    assert all(type(control).__doc__ for control in CONTROLS)


def test_without_limits_everything_passes(judge: Judge, order: Orders) -> None:
    assert judge.accepts(only(), order(1_000_000), order(-3, 0.001), *order.bracket(7))


def test_defaults_let_ordinary_orders_pass(judge: Judge, order: Orders) -> None:
    assert judge.accepts(RiskLimits(), order(100))
    assert judge.accepts(RiskLimits(), order(100, 99.5))
    assert judge.accepts(RiskLimits(), *order.bracket(100))
    # A target far away waits there; only what gives money away is held to the market.
    assert judge.accepts(RiskLimits(), order(-100, 250.0))


class TestReadOnly:
    def test_by_limit(self, judge: Judge, order: Orders) -> None:
        refusal = judge.refusal(only(read_only=True), order())
        assert refusal.control == "read_only"
        assert "read_only in risk.toml" in refusal.remedy

    def test_by_login(self, judge: Judge, view: Played, order: Orders) -> None:
        view.read_only = True
        assert "the login is read-only" in judge.refusal(only(), order()).message

    def test_nothing_passes_it_that_reduces(self, judge: Judge, view: Played, order: Orders) -> None:
        view.positions[AAPL] = Decimal(10)
        assert judge.refusal(only(read_only=True), order(-10, protective=True)).control == "read_only"


class TestTradingState:
    def test_halted(self, judge: Judge, view: Played, order: Orders) -> None:
        view.positions[AAPL] = Decimal(10)
        view.state = TradingState(mode=Trading.HALTED, by="command line", reason="a look at the books")
        refusal = judge.refusal(only(), order(-10, protective=True))
        assert refusal.control == "trading_state"
        assert "HALTED by command line: a look at the books" in refusal.message
        assert "bt-ibkr resume" in refusal.remedy

    @pytest.mark.parametrize(
        ("position", "size", "passes"),
        [(10, -10, True), (10, -4, True), (10, -11, False), (10, 1, False), (0, 1, False), (0, -1, False),
         (-10, 10, True), (-10, 11, False), (-10, -1, False), ("0.3", "-0.3", True), ("0.3", "-0.31", False)],
    )  # fmt: skip
    @pytest.mark.parametrize("flag", [True, False])
    def test_reducing(
        self, judge: Judge, view: Played, order: Orders, position: Any, size: Any, passes: bool, flag: bool
    ) -> None:
        """What the ticket claims does not matter: what the order can do does."""
        view.positions[AAPL] = Decimal(position)
        view.state = TradingState(mode=Trading.REDUCING, by="risk daily_loss_limit", reason="lost 500")
        assert judge.accepts(only(), order(size, protective=flag)) is passes

    def test_reducing_beside_open_orders(self, judge: Judge, view: Played, order: Orders) -> None:
        view.positions[AAPL] = Decimal(10)
        view.state = TradingState(mode=Trading.REDUCING, by="x", reason="y")
        view.stand(order(-6))
        assert judge.accepts(only(), order(-4))
        refusal = judge.refusal(only(), order(-5))
        assert "the position is 10" in refusal.message
        assert "Cancel open orders" in refusal.remedy

    def test_reducing_with_a_group(self, judge: Judge, view: Played, order: Orders) -> None:
        view.positions[AAPL] = Decimal(10)
        view.state = TradingState(mode=Trading.REDUCING)
        both = order(-10, 120.0, group="g"), order(-10, 90.0, group="g")
        assert judge.accepts(only(), *both)
        assert not judge.accepts(only(), *(msgspec.structs.replace(one, group=None) for one in both))

    def test_reducing_with_an_unknown_position(self, judge: Judge, view: Played, order: Orders) -> None:
        view.positions[AAPL] = None
        view.state = TradingState(mode=Trading.REDUCING)
        assert "the position is not known" in judge.refusal(only(), order(-1)).message

    def test_a_bracket_does_not_pass_reducing(self, judge: Judge, view: Played, order: Orders) -> None:
        view.positions[AAPL] = Decimal(100)
        view.state = TradingState(mode=Trading.REDUCING)
        assert not judge.accepts(only(), *order.bracket(10))
        # Nor one that closes and opens again.
        assert not judge.accepts(only(), *order.bracket(-10))

    def test_an_order_by_money_does_not_count_as_reducing(
        self, judge: Judge, view: Played, order: Orders
    ) -> None:
        view.positions[AAPL] = Decimal(100)
        view.state = TradingState(mode=Trading.REDUCING)
        assert not judge.accepts(only(), order(-1, quantity=Decimal(0), cash_quantity=Decimal(100)))


class TestContracts:
    @pytest.mark.parametrize("name", ["AAPL", "aapl", str(AAPL)])
    def test_by_symbol_or_id(self, judge: Judge, order: Orders, name: str) -> None:
        assert judge.accepts(only(allowed_contracts=["IBM", name]), order())
        refusal = judge.refusal(only(forbidden_contracts=[name]), order())
        assert (refusal.control, refusal.limit) == ("contracts", name)
        assert f"AAPL (contract {AAPL})" in refusal.message
        assert "forbidden_contracts in risk.toml" in refusal.remedy

    def test_others(self, judge: Judge, order: Orders) -> None:
        assert judge.accepts(only(forbidden_contracts=["AAPL"]), order(contract_id=MSFT))
        refusal = judge.refusal(only(allowed_contracts=["AAPL"]), order(contract_id=MSFT))
        assert f"MSFT (contract {MSFT}) is none of allowed_contracts AAPL" in refusal.message

    def test_types(self, judge: Judge, order: Orders) -> None:
        assert judge.accepts(only(allowed_security_types=["stk", "FUT"]), order())
        refusal = judge.refusal(only(allowed_security_types=["FUT"]), order())
        assert (refusal.value, refusal.limit) == ("STK", "FUT")

    def test_legs(self, judge: Judge, view: Played, order: Orders) -> None:
        combo = order(1, **spread(view))
        assert judge.accepts(only(allowed_contracts=["AAPL", "MSFT"]), combo)
        assert "MSFT" in judge.refusal(only(allowed_contracts=["AAPL"]), combo).value
        assert "MSFT" in judge.refusal(only(forbidden_contracts=["MSFT"]), combo).value

    def test_what_is_not_known_may_be_forbidden(self, judge: Judge, order: Orders) -> None:
        unknown = order(contract_id=99)
        assert judge.accepts(only(forbidden_contracts=["98"]), unknown)
        assert "is not known" in judge.refusal(only(forbidden_contracts=["98", "GME"]), unknown).message

    def test_a_position_in_a_forbidden_contract_can_be_closed(
        self, judge: Judge, view: Played, order: Orders
    ) -> None:
        view.positions[AAPL] = Decimal(10)
        assert judge.accepts(only(forbidden_contracts=["AAPL"]), order(-10))
        assert not judge.accepts(only(forbidden_contracts=["AAPL"]), order(-11))


def test_sides(judge: Judge, view: Played, order: Orders) -> None:
    long_only = only(allowed_sides=["BUY"])
    assert judge.accepts(long_only, order(5))
    refusal = judge.refusal(long_only, order(-5))
    assert (refusal.control, refusal.value, refusal.limit) == ("sides", "SELL", "BUY")
    view.positions[AAPL] = Decimal(5)
    assert judge.accepts(long_only, order(-5))
    assert not judge.accepts(long_only, order(-6))


class TestTickAndLot:
    @pytest.mark.parametrize(
        ("price", "tick", "passes"),
        [(100.01, "0.01", True), (100.005, "0.01", False), (0.1 + 0.2, "0.01", False), (1.10005, "0.00005", True),
         (112.015625, "0.015625", True), (112.02, "0.015625", False), (5000.25, "0.25", True),
         (5000.2, "0.25", False), (123456789.01, "0.01", True)],
    )  # fmt: skip
    def test_limit_prices(
        self, judge: Judge, view: Played, order: Orders, price: float, tick: str, passes: bool
    ) -> None:
        view.traded[AAPL] = stock("AAPL", tick_size=Decimal(tick))
        assert judge.accepts(only(check_tick=True), order(1, price)) is passes

    def test_stop_prices_and_what_it_says(self, judge: Judge, order: Orders) -> None:
        stop = order(-1, order_type=OrderType.STOP, stop_price=95.123)
        refusal = judge.refusal(only(check_tick=True), stop)
        assert (refusal.control, refusal.value, refusal.limit) == ("tick", "95.123", "0.01")
        assert "95.12 or 95.13" in refusal.remedy
        assert "round_prices" in refusal.remedy

    def test_steps_by_price(self, judge: Judge, view: Played, order: Orders) -> None:
        steps = ((Decimal(0), Decimal("0.01")), (Decimal(3), Decimal("0.05")))
        view.traded[AAPL] = stock("AAPL", tick_steps=steps)
        limits = only(check_tick=True)
        assert judge.accepts(limits, order(1, 2.99))
        assert judge.accepts(limits, order(1, 3.05))
        assert not judge.accepts(limits, order(1, 3.01))

    def test_negative_prices(self, judge: Judge, view: Played, order: Orders) -> None:
        given = spread(view)
        assert judge.accepts(only(check_tick=True), order(1, -0.25, **given))
        refusal = judge.refusal(only(check_tick=True), order(1, -0.255, **given))
        assert "-0.26 or -0.25" in refusal.remedy

    @pytest.mark.parametrize(
        ("size", "step", "passes"),
        [(7, "1", True), ("0.5", "1", False), ("0.3", "0.1", True), ("0.35", "0.1", False), (250, "100", False),
         (200, "100", True), ("0.0001", "0.0001", True)],
    )  # fmt: skip
    def test_lots(
        self, judge: Judge, view: Played, order: Orders, size: Any, step: str, passes: bool
    ) -> None:
        view.traded[AAPL] = stock("AAPL", size_increment=Decimal(step))
        assert judge.accepts(only(check_lot=True), order(size)) is passes

    def test_what_lot_says(self, judge: Judge, view: Played, order: Orders) -> None:
        refusal = judge.refusal(only(check_lot=True), order("2.5"))
        assert (refusal.control, refusal.value, refusal.limit) == ("lot", "2.5", "1")
        assert "Give 2 or 3" in refusal.remedy
        assert "Give 1," in judge.refusal(only(check_lot=True), order("0.5")).remedy

    def test_steps_that_are_not_known(self, judge: Judge, view: Played, order: Orders) -> None:
        view.traded[AAPL] = stock("AAPL", tick_size=None, size_increment=None)
        assert judge.accepts(only(check_tick=True, check_lot=True), order("0.123", 1.2345))
        del view.traded[AAPL]
        assert judge.accepts(only(check_tick=True, check_lot=True), order("0.123", 1.2345))

    def test_a_fraction_that_is_held_can_be_closed(self, judge: Judge, view: Played, order: Orders) -> None:
        """What a split or a reinvested dividend left."""
        view.positions[AAPL] = Decimal("10.5")
        assert judge.accepts(only(check_lot=True), order("-10.5"))
        assert not judge.accepts(only(check_lot=True), order("-0.5"))
        assert not judge.accepts(only(check_lot=True), order("10.5"))

    def test_orders_that_reduce_are_held_to_them(self, judge: Judge, view: Played, order: Orders) -> None:
        view.positions[AAPL] = Decimal(10)
        assert not judge.accepts(only(check_tick=True), order(-1, 100.001))
        assert not judge.accepts(only(check_lot=True), order("-0.5"))


class TestOrderSize:
    @pytest.mark.parametrize(
        ("size", "passes"), [(100, True), ("100.0001", False), (-100, True), (-101, False)]
    )
    def test_at_the_limit(self, judge: Judge, order: Orders, size: Any, passes: bool) -> None:
        assert judge.accepts(only(max_order_size=100), order(size)) is passes

    def test_what_it_says(self, judge: Judge, order: Orders) -> None:
        refusal = judge.refusal(only(max_order_size=100), order(1000))
        assert (refusal.control, refusal.value, refusal.limit) == ("max_order_size", "1000", "100")
        assert "its size 1000 of AAPL is above max_order_size 100" in refusal.message
        assert refusal.remedy.startswith("Order 100 at most, or change max_order_size in risk.toml.")

    def test_by_money(self, judge: Judge, view: Played, order: Orders) -> None:
        def spend(amount: int) -> Any:
            return order(1, quantity=Decimal(0), cash_quantity=Decimal(amount))

        # At the bid of 99.5 it would be the most units.
        assert judge.accepts(only(max_order_size=100), spend(9_950))
        assert not judge.accepts(only(max_order_size=100), spend(9_951))
        view.quotes.clear()
        assert "without a price" in judge.refusal(only(max_order_size=100), spend(1)).message

    def test_a_position_can_be_closed_at_once(self, judge: Judge, view: Played, order: Orders) -> None:
        view.positions[AAPL] = Decimal(500)
        assert judge.accepts(only(max_order_size=100), order(-500))
        assert not judge.accepts(only(max_order_size=100), order(-501))

    def test_for_one_strategy_and_one_account(self, judge: Judge, order: Orders) -> None:
        limits = only(
            max_order_size=100,
            accounts={ACCOUNT: {"max_order_size": 50}},
            strategies={"bold": {"max_order_size": 70}},
        )
        refusal = judge.refusal(limits, order(51))
        assert f"max_order_size in [accounts.{ACCOUNT}] of risk.toml" in refusal.remedy
        # Both hold, whichever is narrower.
        assert not judge.accepts(limits, order(51, strategy="bold"))
        assert judge.accepts(limits, order(50, strategy="bold"))
        elsewhere = order(71, account="U2", strategy="bold")
        assert not judge_quietly(limits, judge, elsewhere)
        assert judge_quietly(limits, judge, order(70, account="U2", strategy="bold"))


class TestOrderNotional:
    @pytest.mark.parametrize(
        ("made", "passes"),
        [
            ({"size": 100, "price": 100.0}, True),
            ({"size": 100, "price": 100.01}, False),
            # A market order buys at the ask of 100.5.
            ({"size": 99}, True),
            ({"size": 100}, False),
            # A sell at 1 executes where the market is, at 99.5.
            ({"size": -100, "price": 1.0}, True),
            ({"size": -101, "price": 1.0}, False),
            ({"size": -80, "price": 126.0}, False),
            ({"size": 90, "order_type": OrderType.STOP, "stop_price": 111.0}, True),
            ({"size": 90, "order_type": OrderType.STOP, "stop_price": 112.0}, False),
        ],
    )
    def test_at_the_limit(self, judge: Judge, order: Orders, made: dict[str, Any], passes: bool) -> None:
        assert judge.accepts(only(max_order_notional=10_000), order(**made)) is passes

    def test_multiplier_and_currency(self, judge: Judge, view: Played, order: Orders) -> None:
        view.traded[AAPL] = stock("AAPL", multiplier=Decimal(50), currency="EUR")
        view.rates["EUR"] = 1.25
        # 50 times 1.25 base units for each point
        assert judge.accepts(only(max_order_notional=6_250), order(1, 100.0))
        refusal = judge.refusal(only(max_order_notional=6_249), order(1, 100.0))
        assert (refusal.value, refusal.limit) == ("6250", "6249")
        assert "base currency" in refusal.message
        view.rates.clear()
        assert "without an exchange rate" in judge.refusal(only(max_order_notional=10**9), order(1)).message

    def test_without_a_price(self, judge: Judge, view: Played, order: Orders) -> None:
        view.quotes.clear()
        limits = only(max_order_notional=10_000)
        assert judge.accepts(limits, order(10, 100.0))
        assert "without a price of AAPL" in judge.refusal(limits, order(10)).message
        # A sell's limit bounds nothing from above.
        assert not judge.accepts(limits, order(-10, 1.0))

    def test_by_money(self, judge: Judge, view: Played, order: Orders) -> None:
        view.traded[AAPL] = stock("AAPL", currency="EUR")
        view.rates["EUR"] = 2.0
        given = {"quantity": Decimal(0)}
        limits = only(max_order_notional=1_000)
        assert judge.accepts(limits, order(1, cash_quantity=Decimal(500), **given))
        assert not judge.accepts(limits, order(1, cash_quantity=Decimal(501), **given))

    def test_currency_conversion(self, judge: Judge, view: Played, order: Orders) -> None:
        view.traded[EUR] = TradingRulesOfEur
        convert = {"contract_id": EUR, "security_type": "CASH", "is_currency_conversion": True}
        limits = only(max_order_notional=1_000, max_position_size=1)
        assert judge.accepts(limits, order(1, quantity=Decimal(0), fx_quantity=Decimal(1_000), **convert))
        assert not judge.accepts(limits, order(1, quantity=Decimal(0), fx_quantity=Decimal(1_001), **convert))


class TestPriceBand:
    @pytest.mark.parametrize(
        ("size", "price", "passes"),
        [(1, 120.6, True), (1, 120.61, False), (-1, 79.6, True), (-1, 79.59, False), (1, 5.0, True),
         (-1, 500.0, True)],
    )  # fmt: skip
    def test_where_money_is_given_away(
        self, judge: Judge, order: Orders, size: int, price: float, passes: bool
    ) -> None:
        assert judge.accepts(only(price_band_percent=20), order(size, price)) is passes

    def test_what_it_says(self, judge: Judge, order: Orders) -> None:
        refusal = judge.refusal(RiskLimits(), order(1, 1005.0))
        assert (refusal.control, refusal.value, refusal.limit) == ("price_band", "1005", "20")
        assert "(900.0 %) from the ask 100.5 of AAPL" in refusal.message
        assert "price_band_percent" in refusal.remedy

    @pytest.mark.parametrize(
        ("size", "price", "passes"),
        [(1, 50.25, True), (1, 50.24, False), (-1, 149.25, True), (-1, 149.26, False)],
    )
    def test_where_it_waits(self, judge: Judge, order: Orders, size: int, price: float, passes: bool) -> None:
        assert judge.accepts(only(passive_band_percent=50), order(size, price)) is passes

    @pytest.mark.parametrize("kind", [OrderType.STOP, OrderType.MARKET_IF_TOUCHED])
    @pytest.mark.parametrize(
        ("price", "passes"), [(89.55, True), (89.54, False), (109.45, True), (109.46, False)]
    )
    def test_stops(self, judge: Judge, order: Orders, kind: OrderType, price: float, passes: bool) -> None:
        stop = order(-1, order_type=kind, stop_price=price)
        assert judge.accepts(only(stop_band_percent=10), stop) is passes
        assert judge.accepts(only(price_band_percent=1), stop)

    @pytest.mark.parametrize(("limit", "passes"), [(156.0, True), (156.01, False)])
    def test_a_limit_behind_a_trigger_is_held_to_it(
        self, judge: Judge, order: Orders, limit: float, passes: bool
    ) -> None:
        breakout = order(1, limit, order_type=OrderType.STOP_LIMIT, stop_price=130.0)
        assert judge.accepts(only(price_band_percent=20), breakout) is passes

    def test_prices_near_zero_have_room(self, judge: Judge, view: Played, order: Orders) -> None:
        view.quotes[AAPL] = quote(0.1, bid=0.04, ask=0.05)
        assert judge.accepts(only(price_band_percent=20), order(1, 0.15))
        assert not judge.accepts(only(price_band_percent=20), order(1, 0.16))

    def test_negative_prices(self, judge: Judge, view: Played, order: Orders) -> None:
        given = spread(view)
        view.quotes[COMBO] = quote(-10.0, bid=-10.5, ask=-10.0)
        assert judge.accepts(only(price_band_percent=20), order(1, -8.0, **given))
        assert not judge.accepts(only(price_band_percent=20), order(1, -7.99, **given))

    def test_without_a_fresh_quote_there_is_nothing_to_measure_by(
        self, judge: Judge, view: Played, order: Orders
    ) -> None:
        view.quotes[AAPL] = quote(age_s=10.5)
        limits = only(price_band_percent=20, max_quote_age_s=10)
        assert judge.refusal(limits, order(1, 1000.0)).control == "market_data"
        view.traded[AAPL] = stock("AAPL", open=False)
        assert judge.accepts(limits, order(1, 1000.0))
        view.quotes[AAPL] = quote(age_s=10.0)
        assert judge.refusal(limits, order(1, 1000.0)).control == "price_band"

    def test_orders_that_reduce_are_held_to_it(self, judge: Judge, view: Played, order: Orders) -> None:
        view.positions[AAPL] = Decimal(10)
        assert not judge.accepts(only(price_band_percent=20), order(-10, 10.0))


class TestMarketData:
    @pytest.mark.parametrize(
        ("quality", "fields"),
        [
            (DataQuality.REALTIME, ()),
            (DataQuality.EXEMPT, ()),
            (DataQuality.UNKNOWN, ()),
            (DataQuality.DELAYED, ("allow_delayed_data",)),
            (DataQuality.FROZEN, ("allow_frozen_data",)),
            (DataQuality.FROZEN_DELAYED, ("allow_delayed_data", "allow_frozen_data")),
            (DataQuality.NOT_SUBSCRIBED, ("allow_no_data",)),
            (DataQuality.NO_ACKNOWLEDGEMENT, ("allow_no_data",)),
            (DataQuality.INCOMPLETE, ("allow_no_data",)),
        ],
    )
    def test_quality(
        self, judge: Judge, view: Played, order: Orders, quality: DataQuality, fields: tuple[str, ...]
    ) -> None:
        view.quotes[AAPL] = quote(quality=quality)
        assert judge.accepts(only(**dict.fromkeys(fields, True)), order())
        for field in fields:
            refusal = judge.refusal(only(**{field: False}), order())
            assert (refusal.control, refusal.value) == ("market_data", quality.value)
            assert f"set {field} in risk.toml to true" in refusal.remedy
            assert "AAPL" in refusal.message
        assert judge.accepts(RiskLimits(), order()) is (not fields)

    def test_every_quality_is_looked_at(self) -> None:
        marked = {q for mark in TestMarketData.test_quality.pytestmark for q, _ in mark.args[1]}  # type: ignore[attr-defined]
        assert marked == set(DataQuality)

    def test_none(self, judge: Judge, view: Played, order: Orders) -> None:
        view.quotes.clear()
        assert "there is no market data of AAPL" in judge.refusal(RiskLimits(), order()).message
        assert judge.accepts(RiskLimits(allow_no_data=True), order())

    def test_halted(self, judge: Judge, view: Played, order: Orders) -> None:
        view.quotes[AAPL] = quote(halted=True)
        assert "halted is trading in AAPL" in judge.refusal(RiskLimits(), order()).message
        assert judge.accepts(RiskLimits(allow_halted=True), order())

    @pytest.mark.parametrize(("age_s", "passes"), [(0.0, True), (300.0, True), (300.001, False)])
    def test_age(self, judge: Judge, view: Played, order: Orders, age_s: float, passes: bool) -> None:
        view.quotes[AAPL] = quote(age_s=age_s)
        assert judge.accepts(RiskLimits(max_quote_age_s=Decimal(300)), order()) is passes
        assert judge.accepts(RiskLimits(max_quote_age_s=None), order())

    @pytest.mark.parametrize(
        ("hours", "made", "passes"),
        [
            ((False, False), {}, True),
            ((False, True), {}, True),
            ((False, True), {"outside_regular_hours": True}, False),
            ((False, False), {"outside_regular_hours": True}, True),
            ((False, None), {"outside_regular_hours": True}, False),
            ((False, True), {"time_in_force": TimeInForce.OVERNIGHT, "price": 100.0}, False),
            ((True, True), {}, False),
            ((None, None), {}, False),
        ],
    )
    def test_a_closed_exchange_has_old_and_frozen_data(
        self,
        judge: Judge,
        view: Played,
        order: Orders,
        hours: tuple[bool | None, bool | None],
        made: dict[str, Any],
        passes: bool,
    ) -> None:
        view.traded[AAPL] = stock("AAPL", open=hours[0], open_extended=hours[1])
        view.quotes[AAPL] = quote(age_s=40_000.0)
        assert judge.accepts(RiskLimits(max_quote_age_s=Decimal(300)), order(**made)) is passes
        view.quotes[AAPL] = quote(quality=DataQuality.FROZEN)
        assert judge.accepts(RiskLimits(), order(**made)) is passes
        # Delayed it is in any case.
        view.quotes[AAPL] = quote(quality=DataQuality.FROZEN_DELAYED)
        assert not judge.accepts(RiskLimits(), order(**made))

    def test_a_position_can_be_closed_all_the_same(self, judge: Judge, view: Played, order: Orders) -> None:
        view.positions[AAPL] = Decimal(10)
        view.quotes[AAPL] = quote(quality=DataQuality.DELAYED)
        assert judge.accepts(RiskLimits(), order(-10))
        assert not judge.accepts(RiskLimits(), order(10))


@pytest.mark.parametrize(
    ("regular", "extended", "outside", "value"),
    [
        (True, True, False, ""),
        (True, None, False, ""),
        (False, True, True, ""),
        (False, True, False, "closed"),
        (False, False, True, "closed"),
        (None, False, False, "not known"),
        (False, None, True, "not known"),
    ],
)
def test_trading_hours(
    judge: Judge,
    view: Played,
    order: Orders,
    regular: bool | None,
    extended: bool | None,
    outside: bool,
    value: str,
) -> None:
    view.traded[AAPL] = stock("AAPL", open=regular, open_extended=extended)
    one = order(1, outside_regular_hours=outside)
    if not value:
        assert judge.accepts(only(only_when_open=True), one)
        return
    refusal = judge.refusal(only(only_when_open=True), one)
    assert (refusal.control, refusal.value, refusal.limit) == ("trading_hours", value, "open")
    assert judge.accepts(only(), one)
    view.positions[AAPL] = Decimal(-1)
    assert judge.accepts(only(only_when_open=True), one)


def test_trading_hours_of_what_is_not_known(judge: Judge, view: Played, order: Orders) -> None:
    view.traded.clear()
    assert judge.refusal(only(only_when_open=True), order()).value == "not known"


class TestPosition:
    @pytest.mark.parametrize(
        ("held", "size", "passes"),
        [(0, 100, True), (0, "100.5", False), (60, 40, True), (60, 41, False), (-60, 160, True), (-60, 161, False),
         (0, -100, True), (0, -101, False), (150, 1, False), (150, -50, True), (150, -250, True), (150, -251, False)],
    )  # fmt: skip
    def test_at_the_limit(
        self, judge: Judge, view: Played, order: Orders, held: int, size: Any, passes: bool
    ) -> None:
        view.positions[AAPL] = Decimal(held)
        assert judge.accepts(only(max_position_size=100), order(size)) is passes

    def test_what_it_says(self, judge: Judge, view: Played, order: Orders) -> None:
        view.positions[AAPL] = Decimal(60)
        view.stand(order(30))
        refusal = judge.refusal(only(max_position_size=100), order(20))
        assert (refusal.control, refusal.value, refusal.limit) == ("max_position", "110", "100")
        assert "the position in AAPL could become 110 long with all open orders" in refusal.message
        refusal = judge.refusal(only(max_position_size=100), order(-170))
        assert "could become 110 short" in refusal.message

    def test_open_orders_count_on_both_sides(self, judge: Judge, view: Played, order: Orders) -> None:
        view.stand(order(60), order(-60))
        assert judge.accepts(only(max_position_size=100), order(40))
        assert not judge.accepts(only(max_position_size=100), order(41))
        assert not judge.accepts(only(max_position_size=100), order(-41))

    def test_a_bracket_is_its_entry(self, judge: Judge, view: Played, order: Orders) -> None:
        limits = only(max_position_size=100)
        bracket = order.bracket(100)
        assert judge.accepts(limits, *bracket)
        assert not judge.accepts(limits, *order.bracket(101))
        view.stand(*bracket)
        assert not judge.accepts(limits, order(1))
        # Stop and target could not sell what the entry has not bought.
        assert judge.accepts(limits, order(-100))

    def test_a_group_is_its_largest(self, judge: Judge, order: Orders) -> None:
        limits = only(max_position_size=100)
        assert judge.accepts(limits, order(100, 90.0, group="g"), order(80, 91.0, group="g"))
        assert judge.accepts(
            limits, order(100, 90.0, one_cancels_all=True), order(-100, 110.0, one_cancels_all=True)
        )
        assert not judge.accepts(limits, order(100, 90.0), order(80, 91.0))

    def test_notional(self, judge: Judge, view: Played, order: Orders) -> None:
        view.positions[AAPL] = Decimal(50)
        limits = only(max_position_notional=10_050)
        # Valued at the ask of 100.5.
        assert judge.accepts(limits, order(50))
        refusal = judge.refusal(limits, order(51))
        assert (refusal.value, refusal.limit) == ("10150.5", "10050")
        view.quotes.clear()
        assert "cannot be told" in judge.refusal(limits, order(1)).message
        assert judge.accepts(limits, order(1, 100.0))

    @pytest.mark.parametrize("limit", ["max_position_size", "max_position_notional"])
    def test_a_position_that_is_not_known_is_not_flat(
        self, judge: Judge, view: Played, order: Orders, limit: str
    ) -> None:
        view.positions[AAPL] = None
        refusal = judge.refusal(only(**{limit: 10_000}), order(1))
        assert (refusal.control, refusal.value) == ("max_position", "not known")

    def test_by_money(self, judge: Judge, view: Played, order: Orders) -> None:
        limits = only(max_position_size=100)
        spend = {"quantity": Decimal(0)}
        assert judge.accepts(limits, order(1, cash_quantity=Decimal(9_950), **spend))
        assert not judge.accepts(limits, order(1, cash_quantity=Decimal(9_960), **spend))
        view.quotes.clear()
        refusal = judge.refusal(limits, order(1, cash_quantity=Decimal(1), **spend))
        assert "the order's size cannot be told" in refusal.message

    def test_a_combo_moves_its_legs(self, judge: Judge, view: Played, order: Orders) -> None:
        given = spread(view)
        limits = only(max_position_size=100)
        assert judge.accepts(limits, order(50, **given))
        refusal = judge.refusal(limits, order(51, **given))
        assert "the position in MSFT could become 102 short" in refusal.message
        view.stand(order(50, **given))
        assert not judge.accepts(limits, order(-1, contract_id=MSFT))
        assert judge.accepts(limits, order(1, contract_id=MSFT))


def test_open_orders(judge: Judge, view: Played, order: Orders) -> None:
    view.open_orders_elsewhere = 7
    limits = only(max_open_orders=10)
    assert judge.accepts(limits, *order.bracket(1))
    view.stand(order(1))
    refusal = judge.refusal(limits, *order.bracket(1))
    assert (refusal.control, refusal.value, refusal.limit) == ("max_open_orders", "11", "10")
    view.positions[AAPL] = Decimal(2)
    view.open_orders_elsewhere = 70
    assert judge.accepts(limits, order(-2))
    assert not judge.accepts(limits, order(1))


class TestDailyLoss:
    @pytest.mark.parametrize(
        ("pnl", "passes"), [(500.0, True), (-499.99, True), (-500.0, False), (-9e9, False)]
    )
    def test_money(self, judge: Judge, view: Played, order: Orders, pnl: float, passes: bool) -> None:
        view.pnl = pnl
        assert judge.accepts(only(daily_loss_limit=500), order()) is passes

    @pytest.mark.parametrize(("pnl", "passes"), [(-1_960.0, True), (-2_000.0, False), (-2_001.0, False)])
    def test_percent_of_what_there_was(
        self, judge: Judge, view: Played, order: Orders, pnl: float, passes: bool
    ) -> None:
        view.pnl, view.worth = pnl, 98_000.0
        assert judge.accepts(only(daily_loss_percent=2), order()) is passes

    def test_an_account_that_had_nothing(self, judge: Judge, view: Played, order: Orders) -> None:
        view.pnl, view.worth = -5.0, -10.0
        assert judge.refusal(only(daily_loss_percent=50), order()).value == "100"
        view.pnl, view.worth = 0.0, 0.0
        assert judge.accepts(only(daily_loss_percent=50), order())

    @pytest.mark.parametrize("unknown", [None, float("nan")])
    def test_what_is_not_known_is_no_profit(
        self, judge: Judge, view: Played, order: Orders, unknown: float | None
    ) -> None:
        view.pnl = unknown
        assert judge.refusal(only(daily_loss_limit=500), order()).value == "not known"
        view.pnl, view.worth = -1.0, unknown
        assert judge.refusal(only(daily_loss_percent=5), order()).value == "not known"

    def test_what_it_says_and_demands(
        self, judge: Judge, view: Played, order: Orders, clock: ManualClock
    ) -> None:
        limits = only(accounts={ACCOUNT: {"daily_loss_limit": 500}})
        gate = RiskGate(limits, clock)
        assert gate.required_state(ACCOUNT, view, 5) is None
        view.pnl = -512.25
        refusal = judge.refusal(gate, order())
        assert (refusal.control, refusal.value, refusal.limit) == ("daily_loss", "512.25", "500")
        assert f"daily_loss_limit in [accounts.{ACCOUNT}] of risk.toml" in refusal.remedy
        state = gate.required_state(ACCOUNT, view, 5)
        assert state is not None
        assert (state.mode, state.by, state.since_ns) == (Trading.REDUCING, "risk daily_loss_limit", 5)
        assert "512.25" in state.reason
        assert gate.required_state("U2", view, 5) is None
        view.state = state
        assert gate.required_state(ACCOUNT, view, 6) is None
        # What reduces passes, then and before.
        view.positions[AAPL] = Decimal(10)
        judge.passes(gate, order(-10))
        view.state = TradingState()
        judge.passes(gate, order(-10))

    def test_demands_nothing_of_what_is_not_known(self, view: Played, clock: ManualClock) -> None:
        view.pnl = None
        assert RiskGate(only(daily_loss_limit=1), clock).required_state(ACCOUNT, view, 5) is None


class TestDuplicates:
    def test_the_same_order_again(self, judge: Judge, order: Orders, clock: ManualClock) -> None:
        gate = RiskGate(only(duplicate_window_s=5), clock)
        judge.passes(gate, order(10, 99.0))
        clock.set_ns(clock.now_ns() + 5 * NS_PER_S - 1)
        refusal = judge.refusal(gate, order(10, 99.0))
        assert (refusal.control, refusal.value, refusal.limit) == ("duplicate", "5.000 s", "5")
        clock.set_ns(clock.now_ns() + 1)
        judge.passes(gate, order(10, 99.0))

    @pytest.mark.parametrize(
        "other",
        [{"size": 11}, {"size": -10}, {"price": 99.01}, {"contract_id": MSFT}, {"strategy": "other"},
         {"account": "U2"}, {"order_type": OrderType.LIMIT_ON_CLOSE, "time_in_force": TimeInForce.DAY}],
    )  # fmt: skip
    def test_another_order(
        self, judge: Judge, order: Orders, clock: ManualClock, other: dict[str, Any]
    ) -> None:
        gate = RiskGate(only(duplicate_window_s=5), clock)
        judge.passes(gate, order(10, 99.0))
        judge.passes(gate, order(**{"size": 10, "price": 99.0, **other}))

    def test_together(self, judge: Judge, order: Orders) -> None:
        assert not judge.accepts(only(duplicate_window_s=5), order(10, 99.0), order(10, 99.0))

    def test_brackets(self, judge: Judge, order: Orders, clock: ManualClock) -> None:
        gate = RiskGate(only(duplicate_window_s=5), clock)
        judge.passes(gate, *order.bracket(10))
        judge.passes(gate, *order.bracket(11))
        assert judge.refusal(gate, *order.bracket(10)).control == "duplicate"

    def test_what_was_refused_was_not_placed(
        self, judge: Judge, view: Played, order: Orders, clock: ManualClock
    ) -> None:
        gate = RiskGate(only(duplicate_window_s=5, orders_per_minute=1, max_position_size=10), clock)
        for _ in range(3):
            assert judge.refusal(gate, order(11, 99.0)).control == "max_position"
        judge.passes(gate, order(10, 99.0))

    def test_a_restart_remembers(self, judge: Judge, order: Orders, clock: ManualClock) -> None:
        gate = RiskGate(only(duplicate_window_s=5), clock)
        assert gate.window_ns == 60 * NS_PER_S
        gate.remember(order(10, 99.0), 4 * NS_PER_S)
        assert judge.refusal(gate, order(10, 99.0)).value == "4.000 s"

    def test_orders_that_reduce_are_held_to_it(
        self, judge: Judge, view: Played, order: Orders, clock: ManualClock
    ) -> None:
        view.positions[AAPL] = Decimal(100)
        gate = RiskGate(only(duplicate_window_s=5), clock)
        judge.passes(gate, order(-50))
        assert judge.refusal(gate, order(-50)).control == "duplicate"


class TestRate:
    def test_within_a_minute(self, judge: Judge, order: Orders, clock: ManualClock) -> None:
        gate = RiskGate(only(orders_per_minute=3), clock)
        judge.passes(gate, order())
        clock.set_ns(clock.now_ns() + 10 * NS_PER_S)
        judge.passes(gate, order(), order())
        refusal = judge.refusal(gate, order())
        assert (refusal.control, refusal.value, refusal.limit) == ("orders_per_minute", "4", "3")
        assert refusal.remedy.startswith("Wait 50.0 s, or change orders_per_minute in risk.toml.")
        clock.set_ns(clock.now_ns() + 50 * NS_PER_S)
        judge.passes(gate, order())
        judge.refusal(gate, order())

    def test_too_many_at_once(self, judge: Judge, order: Orders) -> None:
        assert "Place 2 at most at once" in judge.refusal(only(orders_per_minute=2), *order.bracket(1)).remedy

    def test_by_strategy_and_by_account(self, judge: Judge, order: Orders, clock: ManualClock) -> None:
        gate = RiskGate(only(orders_per_minute=2, account_orders_per_minute=3), clock)
        judge.passes(gate, order(strategy="a"), order(strategy="a"))
        assert "strategy a" in judge.refusal(gate, order(strategy="a")).message
        judge.passes(gate, order(strategy="b"))
        refusal = judge.refusal(gate, order(strategy="b"))
        assert "all strategies" in refusal.message
        assert "account_orders_per_minute" in refusal.remedy
        judge.passes(gate, order(strategy="b", account="U2"))

    def test_a_clock_that_steps_back(self, judge: Judge, order: Orders) -> None:
        stepping = Stepping()
        gate = RiskGate(only(orders_per_minute=1), stepping)
        judge.passes(gate, order())
        stepping.now -= 3_600 * NS_PER_S
        judge.refusal(gate, order())
        stepping.now += 60 * NS_PER_S
        judge.passes(gate, order())

    def test_orders_that_reduce_pass_and_count(
        self, judge: Judge, view: Played, order: Orders, clock: ManualClock
    ) -> None:
        view.positions[AAPL] = Decimal(10)
        gate = RiskGate(only(orders_per_minute=1), clock)
        judge.passes(gate, order(-1))
        judge.passes(gate, order(-1))
        judge.refusal(gate, order(1))

    def test_a_restart_remembers(self, judge: Judge, order: Orders, clock: ManualClock) -> None:
        gate = RiskGate(only(orders_per_minute=2), clock)
        gate.remember(order(), 10 * NS_PER_S)
        gate.remember(order(), 59 * NS_PER_S)
        gate.remember(order(), 61 * NS_PER_S)
        judge.refusal(gate, order())
        clock.set_ns(clock.now_ns() + NS_PER_S)
        judge.passes(gate, order())


class Stepping:
    """A clock that somebody sets."""

    now = 10_000 * NS_PER_S

    def now_ns(self) -> int:
        return self.now

    def wall_s(self, market_ns: int) -> float:
        return market_ns / NS_PER_S


TradingRulesOfEur = msgspec.structs.replace(stock("EUR"), security_type="CASH")


def spread(view: Played) -> dict[str, Any]:
    """What makes an order one on a combo: one AAPL bought, two MSFT sold."""
    view.traded[COMBO] = msgspec.structs.replace(stock("AAPL-MSFT"), security_type="BAG")
    return {
        "contract_id": COMBO,
        "security_type": "BAG",
        "legs": (Leg(AAPL, 1), Leg(MSFT, -2)),
        "spread_id": 28812380,
    }


def judge_quietly(limits: RiskLimits, judge: Judge, intent: Any) -> bool:
    """As ``Judge.accepts`` for an order of another account, whose refusals name that account."""
    try:
        RiskGate(limits, judge.clock).check([intent], judge.view)
    except RiskRefusedError:
        return False
    return True
