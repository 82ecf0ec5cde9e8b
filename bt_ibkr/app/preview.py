"""An order in a few words, as the command line takes one, and what it would cost."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation

import msgspec

from bt_ibkr.app.visit import Visit
from bt_ibkr.errors import UsageError
from bt_ibkr.model.contract import Contract
from bt_ibkr.model.order import OrderTicket, OrderType, Side, TimeInForce
from bt_ibkr.model.order_words import AT_CLOSE, MAY_STOP
from bt_ibkr.services.datanames import ContractQuery, parse_dataname
from bt_ibkr.services.whatif import WhatIfService
from bt_ibkr.wire.order_answers import WhatIf

#: Further ways that people write the types.
_TYPES = {
    "MARKET": OrderType.MARKET,
    "LIMIT": OrderType.LIMIT,
    "STOP": OrderType.STOP,
    "STOPLIMIT": OrderType.STOP_LIMIT,
    "STP_LMT": OrderType.STOP_LIMIT,
    "STPLMT": OrderType.STOP_LIMIT,
    "TRAIL_LIMIT": OrderType.TRAIL_LIMIT,
}


class OrderWords(msgspec.Struct, frozen=True, kw_only=True):
    """``BUY 100 AAPL LMT 189.5``, taken apart; prices are ``None`` where they were not given.

    Attributes:
        price: The limit, or of a type without one the stop.
    """

    side: Side
    quantity: Decimal
    query: ContractQuery
    order_type: OrderType
    price: float | None = None
    stop: float | None = None
    trail_amount: float | None = None
    trail_percent: float | None = None
    time_in_force: TimeInForce | None = None
    outside_rth: bool = False


def parse_side(text: str) -> Side:
    """Raises ``UsageError``."""
    try:
        return Side(text.upper())
    except ValueError:
        raise UsageError(f"{text!r} is no side.", remedy="Give BUY or SELL.") from None


def parse_quantity(text: str) -> Decimal:
    """Raises ``UsageError``."""
    try:
        size = Decimal(text)
    except InvalidOperation:
        size = Decimal(0)
    if not size.is_finite() or size <= 0:
        raise UsageError(f"{text!r} is no size.", remedy="Give a number above 0; the side is BUY or SELL.")
    return size


def parse_type(text: str) -> OrderType:
    """Raises ``UsageError``."""
    word = text.upper()
    if word in _TYPES:
        return _TYPES[word]
    try:
        return OrderType(word)
    except ValueError:
        raise UsageError(
            f"{text!r} is no order type.", remedy=f"Types: {', '.join(one.value for one in OrderType)}."
        ) from None


def parse_time(text: str) -> TimeInForce:
    """Raises ``UsageError``."""
    try:
        return TimeInForce(text.upper())
    except ValueError:
        raise UsageError(
            f"--tif {text!r} is no time in force.",
            remedy=f"Give {', '.join(one.value for one in TimeInForce)}.",
        ) from None


def order_words(
    side: str, size: str, name: str, order_type: str, price: float | None, **more: object
) -> OrderWords:
    """Check the words of an order, before anybody is asked.

    Raises:
        UsageError: One of them is none.
        ContractError: ``name`` is no dataname.
    """
    kind = parse_type(order_type)
    return OrderWords(
        side=parse_side(side),
        quantity=parse_quantity(size),
        query=parse_dataname(name),
        order_type=kind,
        price=price,
        **more,  # type: ignore[arg-type]
    )


def ticket_of(words: OrderWords, account: str, contract: Contract) -> OrderTicket:
    """The ticket.

    Raises:
        OrderRefusedError: The words say no order.
    """
    kind = words.order_type
    only_stop = kind in MAY_STOP and words.stop is None and kind in (
        OrderType.STOP, OrderType.MARKET_IF_TOUCHED, OrderType.TRAIL,
    )  # fmt: skip
    default = TimeInForce.DAY if kind in AT_CLOSE else TimeInForce.GOOD_TILL_CANCELLED
    return OrderTicket(
        account=account,
        contract_id=contract.conid,
        security_type=contract.security_type.value,
        exchange=contract.exchange,
        legs=contract.legs,
        spread_id=contract.spread_id,
        side=words.side,
        order_type=kind,
        quantity=words.quantity,
        limit_price=None if only_stop else words.price,
        stop_price=words.price if only_stop else words.stop,
        trail_amount=words.trail_amount,
        trail_percent=words.trail_percent,
        offset=0.0 if kind is OrderType.RELATIVE else None,
        time_in_force=words.time_in_force or default,
        outside_regular_hours=words.outside_rth,
    )


async def preview(visit: Visit, words: OrderWords) -> tuple[Contract, WhatIf]:
    """Ask IBKR; nothing is placed.

    Raises:
        OrderRefusedError: The words say no order, or IBKR refuses to look at it.
        SessionError: IBKR did not answer.
    """
    contract = await visit.contracts.resolve(words.query)
    ticket = ticket_of(words, visit.account, contract)
    return contract, await WhatIfService(visit.http).preview(ticket)
