"""Cash, positions, profit and loss, margin."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from bt_ibkr.emulator.accounts.account import AccountConfig
from bt_ibkr.emulator.types import MarketEvent

if TYPE_CHECKING:
    from tests.emulator_engine.conftest import Desk

    MakeDesk = Callable[..., Desk]

AAPL, EURUSD, USDJPY, ES = 265598, 12087792, 15016059, 495512563
START = Decimal(1_000_000)


def held(d: Desk, conid: int = AAPL) -> Any:
    position = d.account.position(conid)
    assert position is not None
    return position


def test_a_round_trip_with_commissions(desk: MakeDesk) -> None:
    d = desk(commission="fixed")
    d.quote(99.9, 100.0)
    d.place("BUY", 100)
    assert d.account.cash("USD") == START - 10_000 - 1
    assert (held(d).average_price, held(d).average_cost) == (100.0, 100.01)
    d.quote(110.0, 110.1)
    d.trade(110.0)
    assert held(d).unrealized_pnl == pytest.approx(999.0)
    d.place("SELL", 100)
    assert d.account.cash("USD") == START + 1000 - 2
    assert (held(d).quantity, held(d).average_cost) == (0, 0.0)
    assert held(d).realized_pnl == pytest.approx(998.0)
    assert d.account.realized_pnl() == 998
    assert d.account.net_liquidation() == START + 998
    assert d.account.daily_pnl() == 998


def test_average_cost_of_two_purchases_and_a_part_sale(desk: MakeDesk) -> None:
    d = desk(commission="fixed")
    d.quote(99.9, 100.0)
    d.place("BUY", 100)
    d.quote(109.9, 110.0)
    d.place("BUY", 300)
    assert held(d).average_price == pytest.approx(107.5)
    assert held(d).average_cost == pytest.approx((43_000 + 1 + 1.5) / 400)
    d.place("SELL", 200)
    assert held(d).average_price == pytest.approx(107.5)
    assert held(d).realized_pnl == pytest.approx(200 * 109.9 - 43_002.5 / 2 - 1)


def test_a_position_that_changes_sides_opens_at_the_price_of_the_fill(desk: MakeDesk) -> None:
    d = desk(commission="fixed")
    d.quote(100.0, 100.0)
    d.place("BUY", 100)
    d.quote(90.0, 90.0)
    d.place("SELL", 300)
    assert (held(d).quantity, held(d).average_price) == (-200, 90.0)
    assert held(d).average_cost == pytest.approx(90 - 1.0 / 200)
    assert held(d).realized_pnl == pytest.approx(-1000 - 1 - 0.5)
    d.quote(80.0, 80.0)
    d.place("BUY", 200)
    assert d.account.cash("USD") == START - 1000 + 2000 - 1 - Decimal("1.5") - 1
    assert held(d).realized_pnl == pytest.approx(1000 - 3.5)


def test_a_pair_moves_both_currencies(desk: MakeDesk) -> None:
    d = desk(conid=EURUSD, commission="fixed")
    d.quote(1.1, 1.1001, 1e6, 1e6)
    d.place("BUY", 20_000)
    assert d.account.cash("EUR") == 20_000
    assert d.account.cash("USD") == START - Decimal("22002") - 2
    assert (held(d, EURUSD).quantity, held(d, EURUSD).average_price) == (20_000, 1.1001)
    lines = {line.currency: line for line in d.account.ledger_lines(d.engine.now_ns)}
    assert list(lines) == ["USD", "EUR", "BASE"]
    assert lines["EUR"].cash == 20_000
    assert lines["EUR"].exchange_rate == pytest.approx(1.10005)
    assert lines["BASE"].net_liquidation == pytest.approx(1_000_000 - 22_002 - 2 + 20_000 * 1.10005)
    assert lines["BASE"].time_ns % 1_000_000_000 == 0


def test_a_future_moves_cash_by_its_profit_only(desk: MakeDesk) -> None:
    d = desk(conid=ES, commission="fixed")
    d.quote(6700.0, 6700.25)
    d.place("BUY", 2)
    assert d.account.cash() == START - Decimal("4.50")
    d.quote(6710.25, 6710.5)
    d.trade(6710.25)
    assert d.account.net_liquidation() == START - Decimal("4.50") + 1000
    d.place("SELL", 2)
    assert d.account.cash() == START - 9 + 1000


def test_the_ledger_is_plain(desk: MakeDesk) -> None:
    d = desk()
    d.quote(99.0, 100.0)
    d.place("BUY", 10, client_order_id="a")
    ledger = d.engine.ledger()
    account = ledger["accounts"]["DU1234567"]
    assert account["cash"] == {"USD": "999000"}
    assert account["positions"][str(AAPL)]["quantity"] == "10"
    assert ledger["orders"][0]["status"] == "Filled"
    assert ledger["executions"][0]["quantity"] == "10"


# ---------------------------------------------------------------------- margin


def test_half_of_a_purchase_is_lent(desk: MakeDesk) -> None:
    d = desk(accounts=(AccountConfig(cash=10_000),))
    d.quote(99.9, 100.0)
    d.trade(100.0)
    d.place("BUY", 199)
    error = d.refused("BUY", 10)
    assert error.startswith("Available converted to base: 50.00 USD Cash needed")
    d.place("SELL", 199)
    assert d.account.quantity(AAPL) == 0


def test_working_orders_count(desk: MakeDesk) -> None:
    d = desk(accounts=(AccountConfig(cash=10_000),))
    d.quote(99.9, 100.0)
    d.trade(100.0)
    order = d.place("BUY", 150, "LMT", limit_price=90.0)
    assert "Cash needed" in d.refused("BUY", 100, "LMT", limit_price=90.0)
    d.engine.cancel(order.order_id)
    d.place("BUY", 100, "LMT", limit_price=90.0)


def test_a_short_sale_needs_margin_too(desk: MakeDesk) -> None:
    d = desk(accounts=(AccountConfig(cash=10_000),))
    d.quote(100.0, 100.1)
    d.place("SELL", 150)
    assert d.account.quantity(AAPL) == -150
    assert "Cash needed" in d.refused("SELL", 100)
    d.place("BUY", 300)


def test_children_need_no_margin(desk: MakeDesk) -> None:
    d = desk(accounts=(AccountConfig(cash=10_000),))
    d.quote(99.9, 100.0)
    d.place("BUY", 190, client_order_id="p")
    d.place("SELL", 190, "LMT", limit_price=110.0, parent_client_id="p")
    d.place("SELL", 190, "STP", stop_price=90.0, parent_client_id="p")


def test_margin_can_be_off(desk: MakeDesk) -> None:
    d = desk(accounts=(AccountConfig(cash=10),), margin="off")
    d.quote(99.9, 100.0, ask_size=1e6)
    d.place("BUY", 1000)
    assert d.account.cash() == -99_990


def test_a_cash_account_lends_nothing(desk: MakeDesk) -> None:
    d = desk(accounts=(AccountConfig(cash=1_000, kind="cash"),))
    d.quote(99.9, 100.0)
    assert "Available converted to base: 1000.00 USD Cash needed" in d.refused("BUY", 11)
    d.place("BUY", 5)
    d.place("BUY", 5, "LMT", limit_price=90.0)
    assert "Cash needed" in d.refused("BUY", 1)
    assert "short" in d.refused("SELL", 6)
    d.place("SELL", 5, "LMT", limit_price=120.0)
    assert "short" in d.refused("SELL", 1)


def test_a_cash_account_sells_the_currency_it_has(desk: MakeDesk) -> None:
    d = desk(accounts=(AccountConfig(cash=30_000, kind="cash"),), conid=EURUSD)
    d.quote(1.1, 1.1, 1e6, 1e6)
    d.place("BUY", 20_000)
    d.place("SELL", 20_000)
    assert "Cash needed" in d.refused("SELL", 40_000)


def test_what_if_places_nothing(desk: MakeDesk) -> None:
    d = desk(commission="fixed")
    d.quote(99.9, 100.0)
    d.trade(100.0)
    found = d.engine.what_if(d.spec("BUY", 100))
    assert found.error is None
    assert found.value == 10_000
    assert found.commission == 1
    assert found.before is not None
    assert found.after is not None
    assert found.before.initial == 0
    assert found.after.initial == 5_000
    assert found.after.maintenance == 2_500
    assert found.position_before == 0
    assert found.position_after == 100
    assert "Cash needed" in str(d.engine.what_if(d.spec("BUY", 100_000)).error)
    assert d.engine.what_if(d.spec("BUY", 0)).before is None
    assert not d.engine.orders()


# ---------------------------------------------------------------------- exchange rates


def test_rates_come_from_pairs_in_either_direction(desk: MakeDesk) -> None:
    d = desk()
    assert d.engine.exchange_rate("USD", "USD") == 1.0
    assert d.engine.exchange_rate("MXN", "USD") == 0.054
    d.engine.inject(MarketEvent(d.engine.now_ns, USDJPY, bid=149.0, ask=151.0))
    d.engine.inject(MarketEvent(d.engine.now_ns, EURUSD, bid=1.2, ask=1.2))
    assert d.engine.exchange_rate("JPY", "USD") == pytest.approx(1 / 150)
    assert d.engine.exchange_rate("EUR", "JPY") == pytest.approx(180.0)


def test_a_base_currency_other_than_the_dollar(desk: MakeDesk) -> None:
    d = desk(accounts=(AccountConfig(cash=11_500, currency="EUR"),))
    d.engine.inject(MarketEvent(d.engine.now_ns, EURUSD, bid=1.25, ask=1.25))
    d.quote(100.0, 100.0)
    d.trade(100.0)
    d.place("BUY", 10)
    assert d.account.cash("USD") == -1000
    assert d.account.cash() == Decimal(11_500) - 800
    assert d.account.net_liquidation() == 11_500
    assert d.account.stock_value() == 800
