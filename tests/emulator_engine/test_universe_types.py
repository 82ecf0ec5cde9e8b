"""Instruments of every type: futures, options and event contracts by rule, and what follows from what."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date

import pytest

from bt_ibkr.emulator.market import pricing
from bt_ibkr.emulator.types import Instrument, MarketEvent
from bt_ibkr.emulator.universe import Universe, default_universe
from bt_ibkr.emulator.universe_futures import PRODUCTS, Futures, last_trade_day
from bt_ibkr.model.contract import SecurityType
from tests.emulator_engine.conftest import OPEN_NS, Desk

TODAY = date(2026, 3, 2)
SPX, SPY, SPY_CFD, INDEX_CFD, IBM = 416904, 756733, 134770228, 111987422, 8314
ES_INDEX, FED_FUNDS, WARRANT, BOND, FUND = 11004968, 658663572, 703000001, 701000001, 702000001


@pytest.fixture
def futures() -> Futures:
    return Futures()


def known(universe: Universe, conid: int) -> Instrument:
    found = universe.by_conid(conid)
    assert found is not None
    return found


def front(futures: Futures, symbol: str, day: date, count: int = 1) -> list[str]:
    product = futures.product(symbol)
    assert product is not None
    listed = futures.listed(product, day)[:count]
    return [f"{one.local_symbol} {one.contract.last_trade_date}" for one in listed]


def test_every_type_is_there(universe: Universe) -> None:
    there = {one.contract.security_type for one in universe}
    assert there == {
        SecurityType.STOCK,
        SecurityType.FOREX,
        SecurityType.FUTURE,
        SecurityType.CRYPTO,
        SecurityType.INDEX,
        SecurityType.CFD,
        SecurityType.BOND,
        SecurityType.FUND,
        SecurityType.WARRANT,
    }


@pytest.mark.parametrize(
    ("symbol", "day", "expected"),
    [
        # as the exchanges' calendars have them
        ("ES", "2013-10-07", "ESZ3 20131220"),
        ("ES", "2013-12-20", "ESZ3 20131220"),
        ("ES", "2013-12-21", "ESH4 20140321"),
        # the third Friday of June 2026 is a holiday
        ("ES", "2026-06-01", "ESM6 20260618"),
        ("CL", "2013-10-07", "CLX3 20131022"),
        # the 25th is a Sunday
        ("CL", "2026-10-01", "CLX6 20261020"),
        ("NG", "2013-10-07", "NGX3 20131029"),
        ("GC", "2013-10-07", "GCV3 20131029"),
        ("ZN", "2013-10-07", "ZNZ3 20131219"),
        ("ZF", "2026-03-02", "ZFH6 20260331"),
        ("EUR", "2013-10-07", "6EZ3 20131216"),
        ("MBT", "2026-03-02", "MBTH6 20260327"),
        ("VIX", "2013-10-07", "VXV3 20131016"),
        ("DAX", "2026-03-02", "FDAXH6 20260320"),
        ("ES", "2070-01-01", "ESH0 20700321"),
    ],
)
def test_front_months_of_any_day(futures: Futures, symbol: str, day: str, expected: str) -> None:
    assert front(futures, symbol, date.fromisoformat(day)) == [expected]


def test_all_products_are_listed_on_any_day(futures: Futures) -> None:
    for product in PRODUCTS:
        for day in (date(2013, 10, 7), TODAY, date(2031, 7, 4)):
            listed = futures.listed(product, day)
            assert len(listed) == product.listed
            ends = [one.contract.last_trade_date or "" for one in listed]
            assert ends == sorted(set(ends))
            assert ends[0] >= day.strftime("%Y%m%d")
            for one in listed:
                assert futures.by_conid(one.contract.conid) is one
                assert futures.product_of(one.contract.conid) is product
                assert one.contract.multiplier == product.multiplier


def test_conids_of_futures(universe: Universe) -> None:
    assert known(universe, 495512563).contract.last_trade_date == "20251219"
    assert known(universe, 304037511).contract_month == "202611"
    product = universe.futures.product("es")
    assert product is not None
    again = default_universe().futures.listed(product, TODAY)
    conids = [one.contract.conid for one in universe.futures.listed(product, TODAY)]
    assert conids == [one.contract.conid for one in again]
    assert universe.by_conid(600_000_000 + 1_999) is None
    assert universe.futures.contract(product, 2026, 2) is None
    assert universe.futures.contract(product, 1999, 12) is None
    assert last_trade_day(product, 2026, 3) == date(2026, 3, 20)


def test_listing_around_a_day(universe: Universe) -> None:
    before = len(universe)
    universe.list_around(date(2013, 10, 7))
    listed = [one.local_symbol for one in universe.by_symbol("ES")]
    assert {"ESZ3", "ESH4", "ESZ5"} <= set(listed)
    assert len(universe) > before + 100
    count = len(universe)
    universe.list_around(date(2013, 10, 7))
    assert len(universe) == count


def test_options_on_a_product(universe: Universe) -> None:
    """They are on the first contract that trades until they end, whichever way they are found."""
    index = known(universe, ES_INDEX)
    assert universe.chains.security_type(index) is SecurityType.FUTURE_OPTION
    days = universe.chains.expiries(index, TODAY)
    assert [day.isoformat() for day in days] == ["2026-03-20", "2026-04-17", "2026-05-15", "2026-06-18"]
    april = universe.chains.option(index, days[1], 6700.0, "P")
    assert april is not None
    june = known(universe, april.underlying_conid)
    assert june.local_symbol == "ESM6"
    assert (april.contract.multiplier, april.contract.last_trade_date) == (50.0, "20260417")
    assert default_universe().by_conid(april.contract.conid) == april
    assert universe.chains.expiries(june, TODAY) == days[1:]
    assert universe.chains.option(june, days[1], 6700.0, "P") == april
    # crude oil of which IBKR's conid is known keeps the options that it had
    crude = universe.futures.product("CL")
    assert crude is not None
    october = universe.chains.option(known(universe, crude.index), date(2026, 10, 16), 70.0, "C")
    assert october is not None
    assert october.underlying_conid == 304037511
    yen = universe.futures.product("JPY")
    assert yen is not None
    small = universe.chains.option(known(universe, yen.index), date(2026, 3, 6), 0.0067, "C")
    assert small is not None
    assert small.contract.strike == 0.0067
    assert 0.0067 in universe.chains.strikes_of(known(universe, yen.index), 0.0067)


def test_options_on_an_index(universe: Universe) -> None:
    index = known(universe, SPX)
    day = universe.chains.expiries(index, date(2026, 6, 1))[0]
    # the third Friday is a holiday
    assert day == date(2026, 6, 18)
    call = universe.chains.option(index, day, 6700.0, "C")
    assert call is not None
    assert (call.contract.symbol, call.contract.multiplier, call.underlying_conid) == ("SPX", 100.0, SPX)
    assert 25_000.0 in universe.chains.strikes(25_100.0)


def test_event_contracts(universe: Universe) -> None:
    market = universe.events.market(FED_FUNDS)
    assert market is not None
    yes, no = known(universe, 722489372), known(universe, 722489376)
    assert (yes.contract.strike, yes.contract.right, no.contract.right) == (3.125, "C", "P")
    assert universe.events.other_side(722489372) is no
    assert yes.digital
    for day in (date(2013, 10, 7), TODAY, date(2040, 5, 1)):
        contracts = list(universe.events.contracts(market, day))
        assert len(contracts) >= 2 * len(market.strikes)
        for one in contracts:
            assert universe.by_conid(one.contract.conid) is one
            assert (one.contract.last_trade_date or "") >= day.strftime("%Y%m%d")
    product = universe.futures.product("ES")
    assert product is not None
    events = universe.events.on_product(product, date(2026, 4, 2), 6700.0)
    # Good Friday is none of the five days
    days = sorted({one.contract.last_trade_date for one in events if one.contract.last_trade_date})
    assert days == ["20260402", "20260406", "20260407", "20260408", "20260409"]
    assert {one.trading_class for one in events} == {"ECES"}
    assert all(universe.by_conid(one.contract.conid) is one for one in events)
    crude = universe.futures.product("CL")
    assert crude is not None
    assert universe.events.on_product(crude, TODAY, 70.0) == []


def test_no_conid_stands_for_two(universe: Universe) -> None:
    """What is made by rule leaves the conids of the table alone."""
    for one in universe:
        if one.contract.security_type is not SecurityType.FUTURE and one.contract.conid != 13455763:
            assert universe.futures.by_conid(one.contract.conid) is None, one.contract.conid
        assert universe.events.by_conid(one.contract.conid) is None, one.contract.conid
        assert universe.chains.by_conid(one.contract.conid) is None, one.contract.conid


def test_bonds_are_found_by_their_issuers(universe: Universe) -> None:
    assert universe.by_symbol("US-T") == []
    assert {one.issuer for one in universe.bonds("ibm")} == {"e1359061"}
    assert len(universe.bonds(issuer="e1400715")) == 2
    assert universe.bonds("treasury") == universe.bonds(issuer="e1400715")
    assert universe.bonds(issuer="e0") == []


def test_related_instruments_are_not_listed(universe: Universe) -> None:
    assert [one.contract.conid for one in universe.related(SPY)] == [SPY_CFD]
    assert SPY_CFD not in [one.contract.conid for one in universe.by_symbol("SPY")]
    assert [one.contract.conid for one in universe.by_symbol("IBUS500")] == [INDEX_CFD]


# --- quotes that follow ----------------------------------------------------------------------------


def made(desk: Callable[..., Desk], conid: int, *events: MarketEvent) -> tuple[float | None, float | None]:
    one = desk(list(events))
    one.engine.advance()
    one.engine.book(conid)
    quote = one.engine.quote(conid)
    assert quote is not None
    return quote.bid, quote.ask


def test_a_cfd_is_quoted_as_its_underlying(desk: Callable[..., Desk]) -> None:
    event = MarketEvent(OPEN_NS, SPY, bid=600.0, bid_size=300, ask=600.02, ask_size=500)
    assert made(desk, SPY_CFD, event) == (600.0, 600.02)
    assert made(desk, INDEX_CFD, MarketEvent(OPEN_NS, SPX, last=6700.0, last_size=0)) == (6699.99, 6700.01)


def test_options_on_an_index_that_has_a_last_price_alone(
    desk: Callable[..., Desk], universe: Universe
) -> None:
    call = universe.chains.option(known(universe, SPX), date(2026, 3, 20), 6700.0, "C")
    assert call is not None
    bid, ask = made(desk, call.contract.conid, MarketEvent(OPEN_NS, SPX, last=6700.0, last_size=0))
    assert bid is not None
    assert ask is not None
    assert 0 < bid < ask < 300


def test_no_is_what_yes_lacks(desk: Callable[..., Desk]) -> None:
    event = MarketEvent(OPEN_NS, 722489372, bid=0.6, bid_size=100, ask=0.63, ask_size=50)
    assert made(desk, 722489376, event) == (0.37, 0.4)


def test_events_on_a_future_are_worth_how_likely_they_are(
    desk: Callable[..., Desk], universe: Universe
) -> None:
    product = universe.futures.product("ES")
    assert product is not None
    conid = universe.futures.listed(product, TODAY)[0].contract.conid
    today = {
        (one.contract.strike, one.contract.right): one.contract.conid
        for one in universe.events.on_product(product, TODAY, 6700.0)
        if one.contract.last_trade_date == "20260302"
    }
    event = MarketEvent(OPEN_NS, conid, bid=6699.75, bid_size=10, ask=6700.25, ask_size=10)
    assert made(desk, today[(6700.0, "C")], event) == (0.49, 0.51)
    assert made(desk, today[(6200.0, "C")], event)[0] == 0.99
    assert made(desk, today[(6200.0, "P")], event)[0] == 0.0
    assert pricing.likelihood(100.0, 90.0, 0.0, 0.2) == 1.0


# --- orders ----------------------------------------------------------------------------------------


def test_an_index_cannot_be_traded(desk: Callable[..., Desk]) -> None:
    one = desk([MarketEvent(OPEN_NS, SPX, last=6700.0, last_size=0)], conid=SPX)
    one.engine.advance()
    assert "Unsupported order type" in one.refused("BUY", 1)


def test_event_contracts_are_bought_only(desk: Callable[..., Desk]) -> None:
    one = desk(
        [MarketEvent(OPEN_NS, 722489372, bid=0.6, bid_size=100, ask=0.63, ask_size=50)], conid=722489372
    )
    one.engine.advance()
    assert "buy the opposite side" in one.refused("SELL", 1)
    one.place("BUY", 10)
    assert one.fills == [("10", 0.63)]


@pytest.mark.parametrize(
    ("conid", "bid", "ask", "quantity"),
    [
        (SPY_CFD, 600.0, 600.02, 3),
        (BOND, 98.5, 98.6, 5),
        (FUND, 620.0, 620.01, "1.5"),
        (WARRANT, 30.0, 30.1, 7),
    ],
)
def test_other_kinds_trade(
    desk: Callable[..., Desk], conid: int, bid: float, ask: float, quantity: object
) -> None:
    events = [MarketEvent(OPEN_NS, conid, bid=bid, bid_size=1000, ask=ask, ask_size=1000)]
    one = desk(events, conid=conid, commission="fixed")
    one.engine.advance()
    one.place("BUY", quantity)
    assert one.fills == [(str(quantity), ask)]
    assert one.account.quantity(conid) > 0
