"""Options and combos: which exist, and how their quotes follow from others."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date

import pytest

from bt_ibkr.emulator.chains import month_of, month_word, third_friday
from bt_ibkr.emulator.combos import conidex, parse_spread
from bt_ibkr.emulator.market import pricing
from bt_ibkr.emulator.types import MarketEvent
from bt_ibkr.emulator.universe import Universe, default_universe
from bt_ibkr.errors import UsageError
from bt_ibkr.model.contract import Leg, SecurityType
from tests.emulator_engine.conftest import AAPL, OPEN_NS, Desk

IBM = 8314
CRUDE = 304037511
TODAY = date(2026, 3, 2)
TWO_STOCKS = (Leg(AAPL, 1), Leg(IBM, -2))


def option(universe: Universe, conid: int, strike: float, right: str, month: date = TODAY) -> int:
    underlying = universe.by_conid(conid)
    assert underlying is not None
    found = universe.chains.option(underlying, month, strike, right)
    assert found is not None
    return found.contract.conid


def two_stocks(desk: Callable[..., Desk]) -> Desk:
    events = [
        MarketEvent(OPEN_NS, AAPL, bid=200.0, bid_size=300, ask=200.1, ask_size=500),
        MarketEvent(OPEN_NS, IBM, bid=150.0, bid_size=100, ask=150.2, ask_size=700),
    ]
    made = desk(events)
    made.engine.advance()
    return made


def test_conids_of_options_say_what_they_are(universe: Universe) -> None:
    conid = option(universe, AAPL, 230.0, "P")
    found = default_universe().by_conid(conid)
    assert found is not None
    contract = found.contract
    assert (contract.symbol, contract.strike, contract.right) == ("AAPL", 230.0, "P")
    assert (contract.last_trade_date, contract.multiplier) == ("20260320", 100.0)
    assert (contract.security_type, found.underlying_conid) == (SecurityType.OPTION, AAPL)
    on_future = universe.by_conid(option(universe, CRUDE, 70.0, "C", date(2026, 6, 1)))
    assert on_future is not None
    assert on_future.contract.security_type is SecurityType.FUTURE_OPTION
    assert (on_future.contract.multiplier, on_future.contract.exchange) == (1000.0, "NYMEX")


def test_months_and_strikes(universe: Universe) -> None:
    apple, crude = universe.by_conid(AAPL), universe.by_conid(CRUDE)
    assert apple is not None
    assert crude is not None
    assert [month_word(day) for day in universe.chains.expiries(apple, TODAY)] == [
        "MAR26",
        "APR26",
        "MAY26",
        "JUN26",
    ]
    assert universe.chains.expiries(crude, date(2026, 9, 1))[-1] == third_friday(2026, 10)
    assert third_friday(2026, 5) == date(2026, 5, 15)
    assert month_of("MAR26") == (2026, 3)
    assert month_of("MAX26") is None
    listed = universe.chains.strikes(230.0)
    assert (listed[0], listed[-1], 230.0 in listed) == (173.0, 285.0, True)


def test_an_option_on_another_grid_does_not_exist(universe: Universe) -> None:
    apple = universe.by_conid(AAPL)
    pair = universe.by_conid(12087792)
    assert apple is not None
    assert pair is not None
    assert universe.chains.option(apple, TODAY, 230.5, "C") is None
    assert universe.chains.option(apple, TODAY, 230.0, "X") is None
    assert universe.chains.option(pair, TODAY, 1.0, "C") is None
    assert universe.by_conid(800_000_000 + 1_999_999) is None


def test_calls_less_puts_are_the_distance_to_the_strike() -> None:
    call = pricing.value(230.0, 240.0, 0.25, 0.3, call=True)
    put = pricing.value(230.0, 240.0, 0.25, 0.3, call=False)
    assert call - put == pytest.approx(-10.0)
    assert pricing.value(230.0, 200.0, 0.0, 0.3, call=True) == 30.0
    assert pricing.value(100.0, 100.0, 1.0, 0.2, call=True) == pytest.approx(7.9656, abs=1e-4)


def test_an_option_follows_its_underlying(desk: Callable[..., Desk]) -> None:
    one = desk([MarketEvent(OPEN_NS, AAPL, bid=230.0, ask=230.02)])
    one.engine.advance()
    conid = option(one.engine.universe, AAPL, 230.0, "C")
    one.engine.book(conid)
    before = one.engine.quote(conid)
    assert before is not None
    assert before.bid is not None
    assert before.ask is not None
    bid, ask = before.bid, before.ask
    assert 0 < bid < ask
    one.quote(240.0, 240.02)
    assert before.bid > ask
    assert before.bid >= 10.0


def test_an_option_with_a_market_of_its_own_is_left_alone(desk: Callable[..., Desk]) -> None:
    one = desk([MarketEvent(OPEN_NS, AAPL, bid=230.0, ask=230.02)])
    one.engine.advance()
    conid = option(one.engine.universe, AAPL, 230.0, "C")
    one.engine.inject(MarketEvent(one.engine.now_ns, conid, bid=3.0, ask=3.1))
    one.quote(240.0, 240.02)
    quote = one.engine.quote(conid)
    assert quote is not None
    assert (quote.bid, quote.ask) == (3.0, 3.1)


def test_a_combo_is_bought_at_the_asks_and_sold_at_the_bids(desk: Callable[..., Desk]) -> None:
    one = two_stocks(desk)
    combo = one.engine.universe.combo(TWO_STOCKS)
    one.engine.book(combo.contract.conid)
    quote = one.engine.quote(combo.contract.conid)
    assert quote is not None
    assert [quote.bid, quote.ask] == pytest.approx([-100.4, -99.9])
    assert (quote.bid_size, quote.ask_size) == (300.0, 50.0)
    one.quote(201.0, 201.1)
    assert [quote.bid, quote.ask] == pytest.approx([-99.4, -98.9])
    one.engine.halt(IBM, True)
    assert quote.halted
    one.engine.halt(IBM, False)
    assert not quote.halted


def test_a_combo_of_options_sees_both_legs_move_at_once(desk: Callable[..., Desk]) -> None:
    one = desk([MarketEvent(OPEN_NS, AAPL, bid=230.0, ask=230.02)])
    one.engine.advance()
    universe = one.engine.universe
    # the long call less the short one of the same strike is worth nothing, wherever the underlying goes
    near, far = option(universe, AAPL, 230.0, "C"), option(universe, AAPL, 230.0, "P")
    combo = universe.combo((Leg(near, 1), Leg(far, -1))).contract.conid
    one.engine.book(combo)
    seen: list[float] = []
    one.heard.react = lambda event: seen.append(event.conid) if event.conid == combo else None
    one.quote(250.0, 250.02)
    quote = one.engine.quote(combo)
    assert quote is not None
    assert quote.bid is not None
    assert quote.ask is not None
    assert quote.bid < 20.01 < quote.ask
    assert seen == [combo]


def test_combos_that_cannot_be(universe: Universe) -> None:
    with pytest.raises(UsageError, match="leg 77"):
        universe.combo((Leg(AAPL, 1), Leg(77, -1)))
    with pytest.raises(UsageError, match="CHF, USD"):
        universe.combo((Leg(AAPL, 1), Leg(273982664, -1)))
    made = universe.combo(TWO_STOCKS)
    assert conidex(made) == "28812380;;;265598/1,8314/-2"
    assert universe.by_conid(made.contract.conid) is made
    assert universe.combo(TWO_STOCKS[::-1]) is made


@pytest.mark.parametrize(
    "text",
    [
        "28812380;;265598/1,8314/-1",
        "28812380;;;265598/1",
        "28812380;;;265598/1,265598/-1",
        ";;;1/1,2/1",
        "1;;;1/0,2/1",
    ],
)
def test_what_is_no_combo(text: str) -> None:
    assert parse_spread(text) is None
