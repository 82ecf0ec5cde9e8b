"""Arguments of the operations on orders, executions and positions."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from bt_ibkr.model.order import OrderType, Side, TimeInForce

Above0 = Annotated[float, Meta(gt=0, le=1e15)]
Price = Annotated[float, Meta(ge=-1e15, le=1e15)]


class _Arguments(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class ManualOrder(_Arguments, frozen=True, kw_only=True):
    """An order of another program. ``order_ref`` is what that program calls it, if anything."""

    conid: int
    side: Side
    quantity: Above0
    account: str = ""
    order_type: OrderType = OrderType.MARKET
    price: Price | None = None
    aux_price: Price | None = None
    tif: TimeInForce = TimeInForce.DAY
    order_ref: str = ""
    origin: Literal["tws", "mobile"] = "tws"


class ManualModify(_Arguments, frozen=True, kw_only=True):
    order_id: int
    quantity: Above0 | None = None
    price: Price | None = None


class ManualCancel(_Arguments, frozen=True, kw_only=True):
    order_id: int


class SystemCancel(_Arguments, frozen=True, kw_only=True):
    """One order, or all of an account, or of a time in force."""

    order_id: int | None = None
    account: str | None = None
    tif: TimeInForce | None = None
    reason: str = "The order was cancelled by the system."


class QuarterEnd(_Arguments, frozen=True, kw_only=True):
    account: str | None = None


class Liquidate(_Arguments, frozen=True, kw_only=True):
    account: str = ""
    conid: int | None = None
    quantity: Above0 | None = None
    cancel_orders: bool = False


class Fill(_Arguments, frozen=True, kw_only=True):
    order_id: int
    quantity: Above0 | None = None
    price: Price | None = None


class Crowd(_Arguments, frozen=True, kw_only=True):
    conid: int
    count: Annotated[int, Meta(ge=1, le=100_000)]
    account: str = ""
    final: Literal["cancelled", "filled", "working"] = "cancelled"
    prefix: str = ""


class Correct(_Arguments, frozen=True, kw_only=True):
    execution_id: str
    price: Price | None = None
    quantity: Above0 | None = None


class Bust(_Arguments, frozen=True, kw_only=True):
    execution_id: str


class Exercise(_Arguments, frozen=True, kw_only=True):
    conid: int
    account: str = ""
    quantity: Above0 | None = None
    how: Literal["exercise", "assignment", "expiry"] = "exercise"
    underlying: int | None = None
    settlement_price: Price | None = None


class Split(_Arguments, frozen=True, kw_only=True):
    conid: int
    numerator: Annotated[int, Meta(ge=1, le=10_000)]
    denominator: Annotated[int, Meta(ge=1, le=10_000)] = 1


class Rename(_Arguments, frozen=True, kw_only=True):
    conid: int
    symbol: Annotated[str, Meta(min_length=1)] | None = None
    new_conid: Annotated[int, Meta(ge=1)] | None = None
