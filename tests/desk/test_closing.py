"""What closes positions: by selling, by buying, by buying the other answer of a question; and what needs nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from decimal import Decimal

import pytest

from bt_ibkr.desk.closing import Close, closes, unpaired
from bt_ibkr.errors import SessionError
from bt_ibkr.model.order import OrderType, Side, TimeInForce
from bt_ibkr.model.portfolio import Position

YES, NO, STOCK = 10, 11, 1
PAIRS = {YES: NO, NO: YES}


def held(conid: int, quantity: str, kind: str = "STK") -> Position:
    return Position(
        account="DU1",
        conid=conid,
        symbol="X",
        quantity=Decimal(quantity),
        average_price=1.0,
        average_cost=1.0,
        market_price=None,
        market_value=None,
        currency="USD",
        security_type=kind,
    )


def found(*positions: Position) -> list[Close]:
    async def opposite(position: Position) -> int | None:
        return PAIRS.get(position.conid)

    async def all_of_them() -> list[Close]:
        return [one async for one in closes(positions, opposite)]

    return asyncio.run(all_of_them())


def told(closing: list[Close]) -> list[tuple[int, Side, str]]:
    return [(one.conid, one.side, str(one.quantity)) for one in closing]


def test_by_the_other_side() -> None:
    closing = found(held(1, "10"), held(2, "-2.5"), held(3, "0"))
    assert told(closing) == [(1, Side.SELL, "10"), (2, Side.BUY, "2.5")]
    intent = closing[0].intent("flatten.abcde.7")
    ticket = intent.ticket
    assert (intent.strategy, ticket.client_order_id, ticket.account) == ("flatten", "flatten.abcde.7", "DU1")
    assert (ticket.order_type, ticket.time_in_force, ticket.protective) == (
        OrderType.MARKET,
        TimeInForce.DAY,
        True,
    )
    assert ticket.exchange == "SMART"


def test_crypto_executes_at_once_or_not() -> None:
    (closing,) = found(held(5, "0.25", "CRYPTO"))
    assert closing.intent("flatten.abcde.1").ticket.time_in_force is TimeInForce.IMMEDIATE_OR_CANCEL


@pytest.mark.parametrize(
    ("yes", "no", "wanted"),
    [
        ("10", "0", [(NO, Side.BUY, "10")]),
        ("0", "4", [(YES, Side.BUY, "4")]),
        ("10", "3", [(NO, Side.BUY, "7")]),
        ("3", "10", [(YES, Side.BUY, "7")]),
        ("5", "5", []),
    ],
)
def test_an_event_by_the_other_answer(yes: str, no: str, wanted: list[tuple[int, Side, str]]) -> None:
    """Whoever holds both answers holds nothing that could win or lose."""
    for positions in (
        (held(YES, yes, "OPT"), held(NO, no, "OPT")),
        (held(NO, no, "OPT"), held(YES, yes, "OPT")),
    ):
        closing = found(*positions)
        assert told(closing) == wanted
        assert [one.intent("alpha-hub.abcde.1").ticket.exchange for one in closing] == ["FORECASTX"] * len(
            wanted
        )


def test_what_can_be_sold_at_once_does_not_wait_for_look_ups() -> None:
    asked: list[int] = []

    async def opposite(position: Position) -> int | None:
        asked.append(position.conid)
        return None

    async def first() -> Close:
        async for one in closes((held(7, "1", "OPT"), held(STOCK, "1")), opposite):
            return one
        raise AssertionError

    assert asyncio.run(first()).conid == STOCK
    assert asked == [STOCK]


def test_a_look_up_that_fails_keeps_nothing_from_being_closed() -> None:
    async def opposite(position: Position) -> int | None:
        raise SessionError("It is down.")

    async def all_of_them() -> list[Close]:
        return [one async for one in closes((held(7, "2", "OPT"), held(8, "1", "OPT")), opposite)]

    assert told(asyncio.run(all_of_them())) == [(7, Side.SELL, "2"), (8, Side.SELL, "1")]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({YES: 10, NO: 10}, {}),
        ({YES: 10, NO: 7, STOCK: -2}, {YES: 3, STOCK: -2}),
        ({STOCK: 5}, {STOCK: 5}),
        ({YES: 4}, {YES: 4}),
    ],
)
def test_what_cancels_each_other_out_is_not_left(before: Mapping[int, int], after: Mapping[int, int]) -> None:
    quantities = {conid: Decimal(size) for conid, size in before.items()}
    assert unpaired(quantities, PAIRS) == {conid: Decimal(size) for conid, size in after.items()}
