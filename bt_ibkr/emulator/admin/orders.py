"""Orders of others in the same account, and what IBKR does to orders by itself."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Literal

import msgspec

from bt_ibkr.emulator.accounts.valuation import exact, market_price
from bt_ibkr.emulator.types import EmulatedExecution, EmulatedOrder, OrderSpec
from bt_ibkr.errors import UsageError
from bt_ibkr.model.order import DONE, OrderStatus, OrderType, Side, TimeInForce

if TYPE_CHECKING:
    from bt_ibkr.emulator.exchange.book import Working
    from bt_ibkr.emulator.services.core import Core

Final = Literal["cancelled", "filled", "working"]
#: An order that rests: so far from any market that nothing reaches it.
_FAR = 0.5


def place(core: Core, spec: OrderSpec) -> EmulatedOrder:
    """Place an order of another program: no question is asked, no session needed.

    Raises:
        UsageError: The exchange refuses it.
    """
    found = core.engine.place([spec])[0]
    if found.order is None:
        raise UsageError(f"The exchange refuses the order: {found.error}")
    core.orders.register([found])
    return found.order


def modify(core: Core, order_id: int, *, quantity: float | None, price: float | None) -> EmulatedOrder:
    """Change quantity or price of an order, whoever placed it.

    Raises:
        UsageError: There is no such order, or the exchange refuses the change.
    """
    order = known(core, order_id).order
    spec = order.spec
    if quantity is not None:
        spec = msgspec.structs.replace(spec, quantity=exact(quantity))
    if price is not None:
        name = "stop_price" if spec.order_type in (OrderType.STOP, OrderType.TRAIL) else "limit_price"
        spec = msgspec.structs.replace(spec, **{name: price})
    found = core.engine.modify(order_id, spec)
    if found.error is not None:
        raise UsageError(f"The exchange refuses the change: {found.error}")
    return order


def cancel(core: Core, order_id: int) -> EmulatedOrder:
    """Cancel an order, whoever placed it.

    Raises:
        UsageError: There is no such order, or it is done.
    """
    order = known(core, order_id).order
    refusal = core.engine.cancel(order_id)
    if refusal is not None:
        raise UsageError(f"The exchange refuses to cancel: {refusal}")
    return order


def end(
    core: Core,
    *,
    order_id: int | None,
    account: str | None,
    time_in_force: TimeInForce | None,
    reason: str,
) -> list[int]:
    """Let IBKR cancel working orders: one, or all that fit; their ids."""
    chosen = [
        order
        for order in core.engine.orders()
        if order.status not in DONE
        and order_id in (None, order.order_id)
        and account in (None, order.spec.account)
        and time_in_force in (None, order.spec.time_in_force)
    ]
    return [order.order_id for order in chosen if core.engine.exchange.end(order.order_id, reason)]


def liquidate(
    core: Core, account: str, conid: int | None, quantity: float | None, *, cancel_orders: bool
) -> list[EmulatedOrder]:
    """Close positions of an account as IBKR does without asking; with them its working orders if wanted.

    Raises:
        UsageError: There is no such position, or less of it.
    """
    held = {one.conid: one.quantity for one in core.engine.account(account).positions() if one.quantity}
    if conid is not None:
        held = {conid: held[conid]} if conid in held else {}
    if not held:
        raise UsageError(f"Account {account} holds nothing to liquidate.")
    if cancel_orders:
        end(core, order_id=None, account=account, time_in_force=None, reason="The account is liquidated.")
    placed = []
    for one, position in held.items():
        size = abs(position) if quantity is None else exact(quantity)
        if not 0 < size <= abs(position):
            raise UsageError(f"Account {account} holds {position} of conid {one}, not {size}.")
        spec = OrderSpec(
            account=account,
            conid=one,
            side=Side.SELL if position > 0 else Side.BUY,
            order_type=OrderType.MARKET,
            quantity=size,
            outside_regular_hours=True,
            origin="liquidation",
        )
        placed.append(place(core, spec))
    return placed


def execute(
    core: Core, order_id: int, quantity: float | None, price: float | None
) -> list[EmulatedExecution]:
    """Execute an order at once, whatever the market says; beyond its size if ``quantity`` is more (an over-fill).

    Raises:
        UsageError: There is no such order, it is not with the exchange, or there is no price for it.
    """
    working = known(core, order_id)
    order, exchange = working.order, core.engine.exchange
    wanted = order.remaining if quantity is None else exact(quantity)
    if wanted <= 0:
        raise UsageError(f"Order {order_id} has nothing left to execute.", remedy="Give a quantity above 0.")
    if not order.active:
        raise UsageError(f"Order {order_id} waits for its parent and cannot execute.")
    at = price if price is not None else market_price(working.instrument, core.engine.quote(order.spec.conid))
    if at is None:
        raise UsageError(f"There is no price for order {order_id}.", remedy="Give one.")
    before = len(exchange.executions)
    regular = min(wanted, order.remaining) if working.alive else Decimal(0)
    if regular > 0:
        exchange.fill(working, regular, at, adds_liquidity=False)
    if wanted > regular:
        _overfill(core, working, wanted - regular, at)
    return exchange.executions[before:]


def _overfill(core: Core, working: Working, quantity: Decimal, price: float) -> None:
    """Book more than was ordered: the position follows, the order shows more filled than its size."""
    order, engine = working.order, core.engine
    value = exact(order.average_price) * order.filled + exact(price) * quantity
    before = len(engine.exchange.executions)
    engine.exchange.book(working, quantity, price, Decimal(0))
    order.filled += quantity
    order.average_price = float(value / order.filled)
    order.updated_ns = engine.now_ns
    for execution in engine.exchange.executions[before:]:
        engine.tell_execution(execution, order)
        engine.tell_account(execution.account)
    engine.tell_order(order)


def crowd(core: Core, account: str, conid: int, count: int, final: Final, prefix: str) -> list[int]:
    """Fill the day's list of orders: ``count`` orders that are cancelled, filled or still working.

    Filled ones buy and sell one unit in turn, at the last price.

    Raises:
        UsageError: There is no price of the instrument, or the exchange refuses an order.
    """
    instrument = core.instrument(conid)
    price = None if instrument is None else market_price(instrument, core.engine.quote(conid))
    if instrument is None or price is None:
        raise UsageError(
            f"There is no price of conid {conid}.", remedy="Let the market move, or give a tick."
        )
    tick = exact(instrument.contract.tick_size)
    far = float(exact(price * _FAR) // tick * tick)
    made = []
    for number in range(count):
        spec = OrderSpec(
            account=account,
            conid=conid,
            side=Side.SELL if final == "filled" and number % 2 else Side.BUY,
            order_type=OrderType.LIMIT,
            quantity=exact(max(instrument.contract.size_increment, 1.0)),
            limit_price=far
            if final != "filled" or not number % 2
            else float(exact(price) * 2 // tick * tick),
            time_in_force=TimeInForce.GOOD_TILL_CANCELLED,
            client_order_id=f"{prefix}{number + 1}" if prefix else None,
        )
        order = place(core, spec)
        if final == "cancelled":
            core.engine.cancel(order.order_id)
        elif final == "filled":
            execute(core, order.order_id, None, price)
        made.append(order.order_id)
    return made


def known(core: Core, order_id: int) -> Working:
    """The order of that id.

    Raises:
        UsageError: There is none.
    """
    working = core.engine.exchange.working(order_id)
    if working is None:
        raise UsageError(f"There is no order {order_id}.")
    return working


def row(order: EmulatedOrder) -> dict[str, object]:
    """What an operation answers of an order."""
    return {
        "order_id": order.order_id,
        "status": order.status.value,
        "filled": str(order.filled),
        "remaining": str(max(order.remaining, Decimal(0))),
        "open": order.status not in (*DONE, OrderStatus.INACTIVE),
    }
