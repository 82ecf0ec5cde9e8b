"""Executions that are corrected or taken back.

A correction is another execution whose id differs in the digits after its last point, ``….01`` becoming ``….02``
(documentation of the TWS API, ``Execution.ExecId``); it stands in place of the former one, which stays listed.
How the Web API tells of a trade that was taken back is not recorded: here it is a correction to nothing.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

import msgspec

from bt_ibkr.emulator.accounts.valuation import exact
from bt_ibkr.emulator.types import EmulatedExecution
from bt_ibkr.errors import UsageError
from bt_ibkr.model.order import Side

if TYPE_CHECKING:
    from bt_ibkr.emulator.services.core import Core


def correct(
    core: Core, execution_id: str, *, price: float | None = None, quantity: float | None = None
) -> EmulatedExecution:
    """Replace an execution by one of another price or quantity; 0 takes the trade back.

    Its account, order and commission follow; a trade that is taken back costs nothing.

    Raises:
        UsageError: There is no such execution, or it has been replaced already.
    """
    exchange = core.engine.exchange
    former = next((one for one in exchange.executions if one.execution_id == execution_id), None)
    if former is None:
        raise UsageError(f"There is no execution {execution_id!r}.")
    if former.envelope:
        raise UsageError(
            f"Execution {execution_id} tells of a combo as a whole.", remedy="Correct those of its legs."
        )
    if any(one.corrects == execution_id for one in exchange.executions):
        raise UsageError(
            f"Execution {execution_id} has been corrected already.", remedy="Name the latest one."
        )
    new_price = former.price if price is None else price
    new_quantity = former.quantity if quantity is None else exact(quantity)
    if new_quantity < 0:
        raise UsageError(f"{new_quantity} is no quantity of an execution.", remedy="Give 0 or more.")
    commission = Decimal(0) if not new_quantity else Decimal(repr(former.commission))
    replacement = msgspec.structs.replace(
        former,
        execution_id=_next_id(execution_id),
        price=new_price,
        quantity=new_quantity,
        commission=float(commission),
        position_after=_rebook(core, former, new_quantity, new_price, commission),
        sequence=max(one.sequence for one in exchange.executions) + 1,
        corrects=execution_id,
    )
    exchange.executions.append(replacement)
    _tell(core, former, replacement)
    return replacement


def _next_id(execution_id: str) -> str:
    head, _, last = execution_id.rpartition(".")
    return f"{head}.{int(last) + 1:02d}"


def _rebook(
    core: Core, former: EmulatedExecution, quantity: Decimal, price: float, commission: Decimal
) -> Decimal:
    """Undo the former execution in its account, then book the new one; the position after it."""
    account, instrument = core.engine.account(former.account), core.instrument(former.conid)
    if instrument is None:
        raise UsageError(f"Conid {former.conid} is not in the universe any more.")
    opposite = Side.SELL if former.side is Side.BUY else Side.BUY
    if former.quantity:
        account.execute(
            instrument, opposite, former.quantity, former.price, -Decimal(repr(former.commission))
        )
    if quantity:
        account.execute(instrument, former.side, quantity, price, commission)
    return account.quantity(former.conid)


def _tell(core: Core, former: EmulatedExecution, new: EmulatedExecution) -> None:
    engine = core.engine
    working = engine.exchange.working(former.order_id)
    if working is not None:
        order = working.order
        if order.spec.conid == former.conid:
            value = (
                exact(order.average_price) * order.filled
                - exact(former.price) * former.quantity
                + exact(new.price) * new.quantity
            )
            order.filled += new.quantity - former.quantity
            order.average_price = float(value / order.filled) if order.filled else 0.0
        order.commission += new.commission - former.commission
        order.updated_ns = engine.now_ns
        engine.tell_execution(new, order)
        engine.tell_order(order)
    engine.tell_account(former.account)
