"""Combos trade as one and are booked by their legs."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bt_ibkr.emulator.types import MarketEvent
from bt_ibkr.model.contract import Leg, SecurityType
from bt_ibkr.model.order import OrderStatus, OrderType
from tests.emulator_engine.conftest import AAPL, OPEN_NS, Desk

MakeDesk = Callable[..., Desk]
IBM = 8314
PAIR = (Leg(AAPL, 1), Leg(IBM, -2))


def pair_desk(make: MakeDesk, **config: object) -> Desk:
    events = [
        MarketEvent(OPEN_NS, AAPL, bid=200.0, bid_size=300, ask=200.1, ask_size=500),
        MarketEvent(OPEN_NS, IBM, bid=150.0, bid_size=100, ask=150.2, ask_size=700),
    ]
    one = make(events, **config)
    one.engine.advance()
    return one


def combo(one: Desk, legs: tuple[Leg, ...] = PAIR) -> dict[str, Any]:
    return {"conid": one.engine.universe.combo(legs).contract.conid, "legs": legs}


def test_legs_are_booked_and_the_combo_is_told(desk: MakeDesk) -> None:
    one = pair_desk(desk, commission="fixed")
    order = one.place("BUY", 10, **combo(one), client_order_id="pair")
    envelope, apple, ibm = one.heard.executions
    assert order.status is OrderStatus.FILLED
    assert (envelope.envelope, envelope.price, envelope.commission) == (True, -99.9, 0.0)
    assert envelope.quantity == 10
    assert (apple.conid, apple.side.value, str(apple.quantity), apple.price) == (AAPL, "BUY", "10", 200.1)
    assert (ibm.conid, ibm.side.value, str(ibm.quantity), ibm.price) == (IBM, "SELL", "20", 150.0)
    ids = [one_.execution_id.split(".") for one_ in one.heard.executions]
    assert len({tuple(parts[:2]) for parts in ids}) == 1
    assert [parts[2:] for parts in ids] == [["01", "01"], ["02", "01"], ["03", "01"]]
    assert {e.client_order_id for e in one.heard.executions} == {"pair"}
    assert one.account.quantity(AAPL) == 10
    assert one.account.quantity(IBM) == -20
    assert one.account.quantity(order.spec.conid) == 0
    assert one.account.cash("USD") == Decimal(1_000_000) + 999 - 2
    assert order.commission == 2.0
    assert order.average_price == -99.9


def test_sizes_are_what_all_legs_can_give(desk: MakeDesk) -> None:
    one = pair_desk(desk)
    order = one.place("BUY", 60, **combo(one))
    assert order.filled == 50  # 100 IBM are bid for, two for each
    one.engine.inject(MarketEvent(one.engine.now_ns, IBM, bid=150.0, bid_size=100))
    assert order.status is OrderStatus.FILLED


def test_a_limit_below_zero_rests_until_the_legs_meet_it(desk: MakeDesk) -> None:
    one = pair_desk(desk)
    order = one.place("BUY", 10, "LMT", limit_price=-101.5, **combo(one))
    assert order.filled == 0
    one.engine.inject(MarketEvent(one.engine.now_ns, AAPL, bid=198.3, ask=198.4))
    assert order.status is OrderStatus.FILLED
    envelope, apple, ibm = one.heard.executions
    assert envelope.price == -101.5
    # the leg with a ratio of 1 bears what the limit differs from the legs' own prices
    assert apple.price - 2 * ibm.price == pytest.approx(-101.5)
    assert ibm.price == 150.0


def test_stops_and_other_types(desk: MakeDesk) -> None:
    one = pair_desk(desk)
    for kind in (OrderType.MARKET_ON_CLOSE, OrderType.MIDPRICE, OrderType.RELATIVE, OrderType.TRAIL):
        more = {"trail_amount": 1.0} if kind is OrderType.TRAIL else {}
        assert one.refused("BUY", 1, kind.value, **more, **combo(one)).startswith("Unsupported order type")
    assert "size" in one.refused("BUY", "0.5", **combo(one))


def test_a_combo_of_options(desk: MakeDesk) -> None:
    one = desk([MarketEvent(OPEN_NS, AAPL, bid=230.0, bid_size=100, ask=230.02, ask_size=100)])
    one.engine.advance()
    universe = one.engine.universe
    apple = universe.by_conid(AAPL)
    assert apple is not None
    low, high = (universe.chains.option(apple, date(2026, 3, 20), k, "C") for k in (230.0, 240.0))
    assert low is not None
    assert high is not None
    legs = (Leg(low.contract.conid, 1), Leg(high.contract.conid, -1))
    order = one.place("BUY", 2, **combo(one, legs))
    envelope, bought, sold = one.heard.executions
    assert order.status is OrderStatus.FILLED
    assert 0 < envelope.price == pytest.approx(bought.price - sold.price)
    paid = Decimal(200) * (Decimal(repr(bought.price)) - Decimal(repr(sold.price)))
    assert one.account.cash("USD") == 1_000_000 - paid
    figures = one.engine.margin(one.account.account_id)
    # what can be lost is what the spread is worth
    assert 0 < figures.initial == one.account.value_of(SecurityType.OPTION)
    assert one.engine.what_if(one.spec("SELL", 2, **combo(one, legs))).error is None


@settings(max_examples=60, deadline=None)
@given(
    ratios=st.tuples(st.integers(1, 3), st.integers(-3, -1)),
    size=st.integers(1, 40),
    side=st.sampled_from(["BUY", "SELL"]),
    offset=st.integers(-500, 500),
)
def test_legs_add_up_to_the_combo(ratios: tuple[int, int], size: int, side: str, offset: int) -> None:
    one = pair_desk(Desk, margin="off")
    legs = (Leg(AAPL, ratios[0]), Leg(IBM, ratios[1]))
    told = combo(one, legs)
    one.engine.book(told["conid"])
    quote = one.engine.quote(told["conid"])
    assert quote is not None
    assert quote.bid is not None
    limit = round(quote.bid + offset / 100, 2)
    order = one.place(side, size, "LMT", limit_price=limit, **told)
    one.engine.inject(MarketEvent(one.engine.now_ns, AAPL, bid=200.0 - offset / 50, ask=200.1 - offset / 50))
    ours = one.engine.exchange.executions
    cash = Decimal(0)
    for execution in ours:
        value = execution.side.sign * execution.quantity * Decimal(repr(execution.price))
        cash += value if execution.envelope else -value
        leg = {part.conid: part.ratio for part in legs}.get(execution.conid)
        if leg is not None:
            assert (execution.side.sign > 0) is ((leg > 0) is (side == "BUY"))
    assert abs(cash) < Decimal("0.00001")
    assert one.account.quantity(AAPL) == order.filled * ratios[0] * order.spec.side.sign
    assert one.account.quantity(IBM) == order.filled * ratios[1] * order.spec.side.sign
