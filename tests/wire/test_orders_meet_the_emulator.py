"""Any ticket, spelt for the wire and read by the server, is the same order: nothing is lost, moved or guessed."""

from __future__ import annotations

import json
from decimal import Decimal
from functools import cache
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from bt_ibkr.emulator.build import build_core
from bt_ibkr.emulator.exchange.checks import refusal
from bt_ibkr.emulator.services.core import Core
from bt_ibkr.emulator.services.orders.tickets import parse
from bt_ibkr.emulator.settings import EmulatorSettings
from bt_ibkr.emulator.types import OrderSpec
from bt_ibkr.errors import OrderRefusedError
from bt_ibkr.model.contract import Contract, Leg, combo_key
from bt_ibkr.model.order import OrderTicket, OrderType, Side, TimeInForce
from bt_ibkr.model.order_words import (
    MAY_LIMIT,
    MAY_STOP,
    NEEDS_LIMIT,
    NEEDS_STOP,
    TIMES,
    TRAILING,
)
from bt_ibkr.wire.order_request import order_request

AAPL, MSFT, EUR_USD, ES = 265598, 272093, 12087792, 495512563
LEGS = (Leg(AAPL, 1), Leg(MSFT, -2))
SPREAD = 28812380


@cache
def core() -> Core:
    return build_core(EmulatorSettings(port=0, accounts=("DU1",), history_days=0, questions="none"))


def read(ticket: OrderTicket) -> OrderSpec:
    """The ticket as the server understands it."""
    return parse(core(), ticket.routed_account, json.loads(json.dumps(order_request(ticket))))


def known(conid: int) -> Contract:
    instrument = core().instrument(conid)
    assert instrument is not None
    return instrument.contract


def ticks(conid: int) -> st.SearchStrategy[float]:
    tick = Decimal(repr(known(conid).tick_size))
    return st.integers(1, 20_000).map(lambda steps: float(steps * tick))


@st.composite
def tickets(draw: Any, kind: OrderType) -> OrderTicket:
    """A ticket of that type on a stock, a pair, a future or a combo."""
    conid = draw(st.sampled_from([AAPL, EUR_USD, ES, 0]))
    combo = conid == 0
    given: dict[str, Any] = {"contract_id": conid, "security_type": "STK"}
    if combo:
        given = {"contract_id": combo_key(LEGS), "security_type": "BAG", "legs": LEGS, "spread_id": SPREAD}
    else:
        given["security_type"] = known(conid).security_type.value
    prices = ticks(conid or AAPL)
    if combo:
        prices = st.one_of(prices, prices.map(lambda price: -price))
    if kind in NEEDS_LIMIT or (kind in MAY_LIMIT and draw(st.booleans())):
        given["limit_price"] = draw(prices)
    if kind in NEEDS_STOP or (kind in MAY_STOP and draw(st.booleans())):
        given["stop_price"] = draw(prices)
    if kind in TRAILING:
        name = draw(st.sampled_from(["trail_amount", "trail_percent"]))
        given[name] = draw(st.floats(0.01, 50).map(lambda number: round(number, 2)))
    if kind is OrderType.RELATIVE:
        given["offset"] = draw(st.one_of(st.just(0.0), prices.map(abs)))
    if conid == AAPL and kind in (OrderType.MARKET, OrderType.LIMIT) and draw(st.booleans()):
        given["exchange"] = "ARCA"
    if conid == EUR_USD:
        given["is_currency_conversion"] = draw(st.booleans())
    try:
        return OrderTicket(
            account="DU1",
            side=draw(st.sampled_from(list(Side))),
            order_type=kind,
            quantity=Decimal(draw(st.integers(1, 10_000))),
            time_in_force=draw(st.sampled_from(sorted(TIMES[kind]))),
            outside_regular_hours=draw(st.booleans()),
            all_or_none=draw(st.booleans()),
            price_management=draw(st.sampled_from([None, True, False])),
            one_cancels_all=draw(st.booleans()),
            client_order_id=draw(st.sampled_from([None, "s.k3f9a.1"])),
            **given,
        )
    except OrderRefusedError:
        assume(False)
        raise AssertionError from None


@pytest.mark.parametrize("kind", OrderType)
@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much]
)
@given(data=st.data())
def test_the_server_reads_what_was_meant(kind: OrderType, data: Any) -> None:
    ticket = data.draw(tickets(kind))
    spec = read(ticket)
    stop = ticket.offset if kind is OrderType.RELATIVE else ticket.stop_price
    assert (spec.account, spec.conid, spec.legs) == (ticket.account, ticket.contract_id, ticket.legs)
    assert (spec.side, spec.order_type, spec.time_in_force) == (ticket.side, kind, ticket.time_in_force)
    assert (spec.quantity, spec.cash_quantity) == (ticket.quantity, None)
    assert (spec.limit_price, spec.stop_price) == (ticket.limit_price, stop)
    assert (spec.trail_amount, spec.trail_percent) == (ticket.trail_amount, ticket.trail_percent)
    assert spec.outside_regular_hours == ticket.outside_regular_hours
    assert (spec.all_or_none, spec.price_management) == (ticket.all_or_none, ticket.price_management)
    assert spec.one_cancels_all == ticket.one_cancels_all
    assert spec.client_order_id == ticket.client_order_id
    assert spec.exchange == ticket.exchange
    assert spec.currency_conversion == ticket.is_currency_conversion


def test_every_type_and_time_on_a_stock_is_taken() -> None:
    """What a ticket allows, the server takes."""
    extra: dict[OrderType, dict[str, Any]] = {kind: {} for kind in OrderType}
    for kind in OrderType:
        if kind in NEEDS_LIMIT:
            extra[kind]["limit_price"] = 100.0
        if kind in NEEDS_STOP:
            extra[kind]["stop_price"] = 101.0
        if kind in TRAILING:
            extra[kind] |= {"trail_amount": 1.0, "stop_price": 99.0}
    extra[OrderType.TRAIL_LIMIT]["limit_price"] = 98.0
    extra[OrderType.RELATIVE]["offset"] = 0.01
    instrument = core().instrument(AAPL)
    assert instrument is not None
    seen = 0
    for kind in OrderType:
        for time in TIMES[kind] - {TimeInForce.PAXOS}:
            for side in Side:
                ticket = OrderTicket(
                    account="DU1", contract_id=AAPL, side=side, order_type=kind, quantity=Decimal(1),
                    time_in_force=time, **extra[kind],
                )  # fmt: skip
                assert refusal(read(ticket), instrument) is None, (kind, time)
                seen += 1
    assert seen == 2 * sum(len(TIMES[kind] - {TimeInForce.PAXOS}) for kind in OrderType)


def test_money_and_algorithms_arrive() -> None:
    base: dict[str, Any] = {
        "account": "DU1",
        "contract_id": AAPL,
        "side": Side.BUY,
        "time_in_force": TimeInForce.DAY,
    }
    by_cash = OrderTicket(
        **base, order_type=OrderType.LIMIT, limit_price=100.0, cash_quantity=Decimal("250.5")
    )
    spec = read(by_cash)
    assert (spec.cash_quantity, spec.quantity) == (Decimal("250.5"), Decimal("2.505"))
    adaptive = OrderTicket(
        **base, order_type=OrderType.LIMIT, limit_price=100.0, quantity=Decimal(10), algo="Adaptive",
        algo_parameters=(("adaptivePriority", "Patient"),),
    )  # fmt: skip
    algorithm = read(adaptive).algorithm
    assert algorithm is not None
    assert algorithm.name == "Adaptive"
    convert = OrderTicket(
        account="DU1", contract_id=EUR_USD, security_type="CASH", exchange="IDEALPRO", side=Side.BUY,
        order_type=OrderType.LIMIT, limit_price=1.15, fx_quantity=Decimal(1150), is_currency_conversion=True,
    )  # fmt: skip
    assert (read(convert).cash_quantity, read(convert).currency_conversion) == (Decimal(1150), True)


def test_a_child_of_a_bracket_names_its_parent() -> None:
    child = OrderTicket(
        account="DU1", contract_id=AAPL, side=Side.SELL, order_type=OrderType.STOP, stop_price=90.0,
        quantity=Decimal(1), parent="s.k3f9a.1",
    )  # fmt: skip
    spec = read(child)
    assert (spec.parent_client_id, spec.client_order_id) == ("s.k3f9a.1", None)
