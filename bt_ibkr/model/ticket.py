"""An order as it is to be sent, checked where it is made: a ticket that exists can be said to IBKR."""

from __future__ import annotations

import math
from decimal import Decimal
from enum import Enum
from typing import NoReturn

import msgspec

from bt_ibkr.errors import OrderRefusedError
from bt_ibkr.model.contract import Leg, SecurityType
from bt_ibkr.model.order_words import (
    MAY_LIMIT,
    MAY_STOP,
    NEEDS_LIMIT,
    NEEDS_STOP,
    ONLY_FOR,
    PRODUCTS,
    TIMES,
    TRAILING,
    OrderType,
    Side,
    TimeInForce,
)

#: IBKR takes no longer ``cOID``.
MAX_CLIENT_ID = 64
#: Most legs of a combo.
MAX_LEGS = 8

#: Whose prices may be 0 or below: spreads, and futures, as crude oil showed.
_NEGATIVE_CAPABLE = frozenset({"BAG", "FUT", "FOP"})
_CASH_TYPES = frozenset({OrderType.MARKET, OrderType.LIMIT})
#: What trades by an amount of money, to the cent.
_CASH_KINDS = frozenset({"STK", "CASH", "CRYPTO"})

#: A value of an algorithm's parameter.
AlgoValue = str | int | float | bool


class OrderTicket(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be sent to IBKR for one order, in plain terms.

    Attributes:
        account: IBKR account id.
        contract_id: The contract's key: IBKR's conid, or a combo's own (see ``Contract``).
        security_type: IBKR's word: ``STK``, ``FUT``, ``BAG`` for a combo …
        exchange: Routing exchange, ``SMART`` by default; another routes the order there.
        listing_exchange: Where the instrument is listed, if that must be said to tell it from others.
        legs, spread_id: Of a combo: its legs, and IBKR's spread conid for its currency.
        quantity: Above 0; the side carries the sign. 0 where ``cash_quantity`` or ``fx_quantity`` says it.
        cash_quantity: Money to spend, in the contract's currency (a pair's second), instead of a number of units.
        fx_quantity: Money to convert, in the pair's second currency, with ``is_currency_conversion``.
        is_currency_conversion: A forex order that leaves no position of the pair behind.
        limit_price: For LIMIT, STOP_LIMIT, LIMIT_ON_CLOSE, LIMIT_IF_TOUCHED, TRAIL_LIMIT (the limit that goes
            with the initial stop); optional cap for MIDPRICE and RELATIVE.
        stop_price: Trigger of STOP, STOP_LIMIT, MARKET_IF_TOUCHED and LIMIT_IF_TOUCHED, and the initial stop of
            TRAIL and TRAIL_LIMIT.
        trail_amount, trail_percent: One of them for TRAIL and TRAIL_LIMIT; percent in hundredths (1.5 is 1.5 %).
        offset: For RELATIVE: how much better than the best bid (offer) it bids (offers); 0 or above.
        all_or_none: Executes whole or not at all.
        algo, algo_parameters: IBKR algorithm by its id (``Adaptive``, ``Vwap`` …) and its parameters as pairs.
        price_management: Whether IBKR's price management algorithm may hold the price back; ``None`` leaves it
            to the account's setting.
        allocation_group, allocation_method: An adviser's group that the order is allocated to.
        manual_indicator, ext_operator: Who entered an order on futures, or on a combo (CME rule 536-B). ``None``: no
            person did, and the operator is the account.
        client_order_id: ``cOID``, unique for a day, at most 64 characters; ``None`` on bracket children,
            which the server does not let carry one.
        parent: ``client_order_id`` of the bracket's parent.
        one_cancels_all: All tickets of one submission cancel each other.
        protective: It closes or protects a position: it goes before other requests. Not sent to IBKR.

    Raises:
        OrderRefusedError: What it says cannot be an order. The message names order, field, value and remedy.
    """

    account: str
    contract_id: int
    security_type: str = "STK"
    exchange: str = "SMART"
    listing_exchange: str | None = None
    legs: tuple[Leg, ...] = ()
    spread_id: int = 0
    side: Side
    order_type: OrderType
    quantity: Decimal = Decimal(0)
    cash_quantity: Decimal | None = None
    fx_quantity: Decimal | None = None
    is_currency_conversion: bool = False
    limit_price: float | None = None
    stop_price: float | None = None
    trail_amount: float | None = None
    trail_percent: float | None = None
    offset: float | None = None
    time_in_force: TimeInForce = TimeInForce.GOOD_TILL_CANCELLED
    outside_regular_hours: bool = False
    all_or_none: bool = False
    algo: str | None = None
    algo_parameters: tuple[tuple[str, AlgoValue], ...] = ()
    price_management: bool | None = None
    allocation_group: str | None = None
    allocation_method: str | None = None
    manual_indicator: bool | None = None
    ext_operator: str | None = None
    client_order_id: str | None = None
    parent: str | None = None
    one_cancels_all: bool = False
    protective: bool = False

    def __post_init__(self) -> None:
        _check_names(self)
        _check_contract(self)
        _check_size(self)
        _check_prices(self)
        _check_offset(self)
        _check_trail(self)
        _check_time(self)
        _check_crypto(self)
        _check_algo(self)

    @property
    def routed_account(self) -> str:
        """What the request's path names: the account, or the group the order is allocated to."""
        return self.allocation_group or self.account

    def describe(self) -> str:
        """For messages: ``BUY 10 LMT order on contract 265598``."""
        size = self.quantity or self.cash_quantity or self.fx_quantity or Decimal(0)
        shown = f"{size:f}" if size.is_finite() else str(size)
        name = f" (id {self.client_order_id})" if self.client_order_id else ""
        kind = self.order_type.value
        return f"{self.side.value} {shown} {kind} order on contract {self.contract_id}{name}"


#: What IBKR lets a working order change.
CHANGEABLE = frozenset(
    {
        "quantity",
        "limit_price",
        "stop_price",
        "trail_amount",
        "trail_percent",
        "offset",
        "time_in_force",
        "outside_regular_hours",
    }
)


def modified(ticket: OrderTicket, **changes: object) -> OrderTicket:
    """The whole order again, with what changes: IBKR wants a modification to repeat the original.

    Args:
        ticket: The order as it stands at IBKR.
        changes: Fields of ``OrderTicket`` out of ``CHANGEABLE``.

    Returns:
        The ticket to send; its ids are those of the original.

    Raises:
        OrderRefusedError: Nothing changes, a field cannot be changed at IBKR, or the result is no order.
    """
    for name, value in changes.items():
        if name not in CHANGEABLE:
            _refuse(
                ticket,
                name,
                value,
                "cannot be changed on a working order",
                f"Change one of {', '.join(sorted(CHANGEABLE))}, or cancel it and place a new order.",
            )
    for name in ("trail_amount", "trail_percent"):
        if name in changes and (getattr(ticket, name) is None) != (changes[name] is None):
            _refuse(ticket, name, changes[name], "would change how it trails", "Keep amount or percent.")
    if "quantity" in changes and not ticket.quantity:
        _refuse(
            ticket,
            "quantity",
            changes["quantity"],
            "is not how this order's size is given",
            "Place a new order.",
        )
    if all(getattr(ticket, name) == value for name, value in changes.items()):
        raise OrderRefusedError(f"{ticket.describe()}: the modification changes nothing.")
    return msgspec.structs.replace(ticket, **changes)


def _refuse(ticket: OrderTicket, field: str, value: object, why: str, remedy: str) -> NoReturn:
    shown = value.value if isinstance(value, Enum) else value
    raise OrderRefusedError(
        f"{ticket.describe()}: {field} {shown!r:.80} {why}.", remedy=f"{remedy} It was not sent."
    )


def _check_names(ticket: OrderTicket) -> None:
    own = ticket.client_order_id
    if own is not None and not 0 < len(own) <= MAX_CLIENT_ID:
        _refuse(
            ticket, "client_order_id", own, f"is not of 1 to {MAX_CLIENT_ID} characters", "Give a shorter id."
        )
    if own is not None and ticket.parent is not None:
        _refuse(
            ticket,
            "client_order_id",
            own,
            "stands on a child of a bracket, which carries no id of its own",
            "Leave it out.",
        )
    if not ticket.account:
        _refuse(ticket, "account", ticket.account, "is empty", "Name the account.")
    if ticket.allocation_method is not None and ticket.allocation_group is None:
        _refuse(
            ticket,
            "allocation_method",
            ticket.allocation_method,
            "says how to allocate, but not to which group",
            "Give allocation_group too.",
        )


def _check_contract(ticket: OrderTicket) -> None:
    combo = ticket.security_type == SecurityType.COMBO
    if combo != bool(ticket.legs):
        _refuse(
            ticket,
            "legs",
            len(ticket.legs),
            f"do not fit an instrument of type {ticket.security_type}",
            "A combo has two legs or more, nothing else has any.",
        )
    if combo:
        if not 2 <= len(ticket.legs) <= MAX_LEGS:
            _refuse(ticket, "legs", len(ticket.legs), "is no number of legs", f"Give 2 to {MAX_LEGS}.")
        if ticket.spread_id <= 0:
            _refuse(ticket, "spread_id", ticket.spread_id, "is no spread conid", "Resolve the combo first.")
    kind = SecurityType.from_wire(ticket.security_type)
    products = PRODUCTS.get(ticket.order_type)
    if products is not None and kind not in products:
        _refuse(
            ticket,
            "order_type",
            ticket.order_type,
            f"is not offered for instruments of type {ticket.security_type}",
            f"IBKR offers it for {', '.join(sorted(one.value for one in products if one.value != '?'))}.",
        )
    if not combo and ticket.contract_id <= 0:
        _refuse(ticket, "contract_id", ticket.contract_id, "is no contract", "Resolve the contract first.")


def _check_size(ticket: OrderTicket) -> None:
    given = {
        "quantity": ticket.quantity or None,
        "cash_quantity": ticket.cash_quantity,
        "fx_quantity": ticket.fx_quantity,
    }
    named = {name: size for name, size in given.items() if size is not None}
    if not named:
        _refuse(ticket, "quantity", "0", "is not above 0", "Give a size.")
    if len(named) > 1:
        _refuse(
            ticket, "quantity", str(ticket.quantity), f"comes with {', '.join(list(named)[1:])}", "Give one."
        )
    ((field, size),) = named.items()
    if not size.is_finite() or size <= 0:
        _refuse(ticket, field, str(size), "is not above 0", "Give a finite size above 0.")
    if Decimal(repr(float(size))) != size:
        _refuse(
            ticket, field, str(size), "has too many digits", "The wire takes at most 15 significant digits."
        )
    if field == "fx_quantity" and not ticket.is_currency_conversion:
        _refuse(
            ticket,
            field,
            str(size),
            "is for currency conversions only",
            "Set is_currency_conversion as well.",
        )
    if ticket.is_currency_conversion and ticket.security_type != SecurityType.FOREX:
        _refuse(
            ticket,
            "is_currency_conversion",
            True,
            f"does not fit an instrument of type {ticket.security_type}",
            "Convert by a currency pair.",
        )
    if field != "quantity":
        _check_money(ticket, field, size)


def _check_money(ticket: OrderTicket, field: str, size: Decimal) -> None:
    """An amount of money instead of units."""
    if ticket.order_type not in _CASH_TYPES:
        _refuse(
            ticket,
            field,
            str(size),
            f"does not go with type {ticket.order_type.value}",
            "Give a number of units, or a market or limit order.",
        )
    if ticket.security_type not in _CASH_KINDS:
        _refuse(
            ticket,
            field,
            str(size),
            f"does not fit an instrument of type {ticket.security_type}",
            "Give a number of units.",
        )
    if ticket.security_type == SecurityType.CRYPTO and ticket.side is Side.SELL:
        _refuse(ticket, field, str(size), "is for buying CRYPTO only", "Give the number of units to sell.")
    if size != round(size, 2):
        _refuse(ticket, field, str(size), "has more than 2 decimals", "Give whole cents.")
    if ticket.all_or_none:
        _refuse(ticket, "all_or_none", True, f"does not go with {field}", "Give one of them.")


def _check_prices(ticket: OrderTicket) -> None:
    kind = ticket.order_type
    for field, value, needed, possible in (
        ("limit_price", ticket.limit_price, NEEDS_LIMIT, MAY_LIMIT),
        ("stop_price", ticket.stop_price, NEEDS_STOP, MAY_STOP),
    ):
        if value is None:
            if kind in needed:
                _refuse(ticket, field, None, f"is missing for type {kind.value}", "Give the price.")
            continue
        if kind not in possible:
            _refuse(
                ticket, field, value, f"has no meaning for type {kind.value}", "Leave it out, or change type."
            )
        if not math.isfinite(value):
            _refuse(ticket, field, value, "is not a price", "Give a finite number.")
        if value <= 0 and ticket.security_type not in _NEGATIVE_CAPABLE:
            _refuse(
                ticket,
                field,
                value,
                f"is not above 0, as prices of type {ticket.security_type} are",
                "Give a price above 0.",
            )


def _check_offset(ticket: OrderTicket) -> None:
    offset = ticket.offset
    if ticket.order_type is not OrderType.RELATIVE:
        if offset is not None:
            _refuse(ticket, "offset", offset, "has no meaning for this type", "Leave it out, or use REL.")
        return
    if offset is None or not math.isfinite(offset) or offset < 0:
        _refuse(ticket, "offset", offset, "is not an offset", "Give a distance of 0 or above.")


def _check_trail(ticket: OrderTicket) -> None:
    distances = {"trail_amount": ticket.trail_amount, "trail_percent": ticket.trail_percent}
    given = {name: value for name, value in distances.items() if value is not None}
    if ticket.order_type not in TRAILING:
        for name, value in given.items():
            _refuse(ticket, name, value, "has no meaning for this type", "Leave it out, or trail.")
        return
    if len(given) != 1:
        _refuse(
            ticket,
            "trail_amount",
            ticket.trail_amount,
            f"with trail_percent {ticket.trail_percent!r} gives no distance to trail by",
            "Give one of the two.",
        )
    ((name, value),) = given.items()
    if not math.isfinite(value) or value <= 0 or (name == "trail_percent" and value >= 100):
        _refuse(ticket, name, value, "is not a distance to trail by", "Give a distance above 0.")


def _check_time(ticket: OrderTicket) -> None:
    time = ticket.time_in_force
    taken = TIMES[ticket.order_type]
    if time not in taken:
        _refuse(
            ticket,
            "time_in_force",
            time,
            f"does not go with type {ticket.order_type.value}",
            f"Give one of {', '.join(sorted(one.value for one in taken))}.",
        )
    kind = ONLY_FOR.get(time)
    if kind is not None and ticket.security_type != kind:
        _refuse(
            ticket,
            "time_in_force",
            time,
            f"is for instruments of type {kind.value} only, not {ticket.security_type}",
            "Give DAY or GTC.",
        )


def _check_crypto(ticket: OrderTicket) -> None:
    """Cryptocurrencies trade by limit orders, and by market orders that are immediate-or-cancel; a market
    order to buy says the money to spend (IBKR's page on order types)."""
    if ticket.security_type != SecurityType.CRYPTO:
        return
    if ticket.order_type not in _CASH_TYPES:
        _refuse(ticket, "order_type", ticket.order_type, "is not offered for CRYPTO", "Give MKT or LMT.")
    if ticket.order_type is not OrderType.MARKET:
        return
    if ticket.time_in_force not in (TimeInForce.IMMEDIATE_OR_CANCEL, TimeInForce.PAXOS):
        _refuse(
            ticket,
            "time_in_force",
            ticket.time_in_force,
            "does not go with a CRYPTO market order",
            "Give IOC.",
        )
    if ticket.side is Side.BUY and ticket.cash_quantity is None:
        _refuse(
            ticket,
            "quantity",
            str(ticket.quantity),
            "cannot be bought at market: IBKR wants the money to spend",
            "Give cash_quantity, or a limit order.",
        )


def _check_algo(ticket: OrderTicket) -> None:
    if ticket.algo is None:
        if ticket.algo_parameters:
            _refuse(
                ticket, "algo_parameters", ticket.algo_parameters, "belong to no algo", "Give the algo's id."
            )
        return
    if not ticket.algo:
        _refuse(ticket, "algo", ticket.algo, "is empty", "Give the algo's id, such as Adaptive.")
    names = [name for name, _ in ticket.algo_parameters]
    if len(set(names)) != len(names) or not all(names):
        _refuse(ticket, "algo_parameters", names, "name a parameter twice or not at all", "Name each once.")
    for name, value in ticket.algo_parameters:
        if isinstance(value, float) and not math.isfinite(value):
            _refuse(ticket, f"algo parameter {name}", value, "is not a number", "Give a finite number.")
