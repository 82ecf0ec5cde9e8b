"""Margin by Regulation T for stocks and options, by scenarios for futures."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from decimal import Decimal

import pytest

from bt_ibkr.emulator.accounts.account import AccountConfig
from bt_ibkr.emulator.accounts.requirements import Held, requirement
from bt_ibkr.emulator.types import Instrument, MarketEvent
from bt_ibkr.emulator.universe import Universe
from tests.emulator_engine.conftest import AAPL, OPEN_NS, Desk

CRUDE = 304037511
MARCH, APRIL = date(2026, 3, 20), date(2026, 4, 17)


def option(universe: Universe, conid: int, strike: float, right: str, day: date = MARCH) -> Instrument:
    underlying = universe.by_conid(conid)
    assert underlying is not None
    found = universe.chains.option(underlying, day, strike, right)
    assert found is not None
    return found


def held(instrument: Instrument, quantity: int, price: float, underlying: float | None = None) -> Held:
    return Held(
        instrument=instrument,
        quantity=Decimal(quantity),
        price=Decimal(repr(price)),
        underlying=None if underlying is None else Decimal(repr(underlying)),
    )


def needs(*positions: Held) -> Decimal:
    return requirement(positions, now_ns=OPEN_NS, credit=True)[0]


def test_options(universe: Universe) -> None:
    low, high = option(universe, AAPL, 230.0, "C"), option(universe, AAPL, 240.0, "C")
    late = option(universe, AAPL, 240.0, "C", APRIL)
    put = option(universe, AAPL, 220.0, "P")
    stock = universe.by_conid(AAPL)
    assert stock is not None
    assert needs(held(low, 1, 5.0, 230.0)) == 500
    # sold naked: 20 % of the stock less what it is out of the money, at least 10 %
    assert needs(held(high, -1, 2.0, 230.0)) == 100 * (46 - 10)
    assert needs(held(put, -1, 2.0, 230.0)) == 100 * (46 - 10)
    assert needs(held(option(universe, AAPL, 280.0, "C"), -1, 0.1, 230.0)) == 2300
    # sold against shares
    assert needs(held(stock, 100, 230.0), held(high, -1, 2.0, 230.0)) == 11500
    assert needs(held(stock, 100, 230.0), held(high, -2, 2.0, 230.0)) == 11500 + 3600
    # a debit spread can lose what it is worth, a credit spread the width less that
    assert needs(held(low, 1, 5.0, 230.0), held(high, -1, 2.0, 230.0)) == 300
    assert needs(held(low, -1, 5.0, 230.0), held(high, 1, 2.0, 230.0)) == 700
    # what ends before the one that was sold does not protect
    assert needs(held(high, 1, 2.0, 230.0), held(late, -1, 4.0, 230.0)) == 200 + 3600


def test_futures_and_their_options_are_taken_together(universe: Universe) -> None:
    crude = universe.by_conid(CRUDE)
    assert crude is not None
    put = option(universe, CRUDE, 70.0, "P", date(2026, 6, 19))
    alone = needs(held(crude, 1, 70.0))
    assert alone == 7000
    assert requirement([held(crude, -1, 70.0)], now_ns=OPEN_NS, credit=True)[1] == 6300
    protected = needs(held(crude, 1, 70.0), held(put, 1, 4.0, 70.0))
    assert 0 < protected < alone
    assert needs(held(put, 1, 4.0, 70.0)) <= 4000
    assert needs(held(put, -1, 4.0, 70.0)) > 2000


def test_orders_that_cannot_be_carried(desk: Callable[..., Desk]) -> None:
    one = desk([MarketEvent(OPEN_NS, AAPL, bid=230.0, ask=230.02)], accounts=(AccountConfig(cash=5000.0),))
    one.engine.advance()
    call = option(one.engine.universe, AAPL, 230.0, "C").contract.conid
    assert one.refused("SELL", 2, conid=call).startswith("Available converted to base: 5000.00 USD")
    one.place("SELL", 1, conid=call)
    assert one.account.quantity(call) == -1
    assert one.account.cash("USD") > 5000
    # the premium is money already, the debt is in the equity
    figures = one.engine.margin(one.account.account_id)
    assert float(figures.equity) == pytest.approx(5000, abs=50)


def test_cash_accounts_write_no_options(desk: Callable[..., Desk]) -> None:
    account = AccountConfig(cash=5000.0, kind="cash")
    one = desk([MarketEvent(OPEN_NS, AAPL, bid=230.0, ask=230.02)], accounts=(account,))
    one.engine.advance()
    call = option(one.engine.universe, AAPL, 230.0, "C").contract.conid
    assert "cannot hold short positions" in one.refused("SELL", 1, conid=call)
    one.place("BUY", 1, conid=call)
    one.place("SELL", 1, conid=call)
    assert one.account.quantity(call) == 0


def test_an_option_on_a_future_is_paid_at_once(desk: Callable[..., Desk]) -> None:
    one = desk([MarketEvent(OPEN_NS, CRUDE, bid=70.0, ask=70.02, bid_size=10, ask_size=10)], conid=CRUDE)
    one.engine.advance()
    put = option(one.engine.universe, CRUDE, 70.0, "P", date(2026, 6, 19)).contract.conid
    one.place("BUY", 1, conid=put)
    paid = 1000 * Decimal(repr(one.heard.executions[0].price))
    assert one.account.cash("USD") == 1_000_000 - paid
    one.place("BUY", 1)
    assert one.account.cash("USD") == 1_000_000 - paid  # a future costs nothing but its commission
