"""What a strategy may do in one turn, drawn at random. Each act is a plain tuple: a failure can be repeated."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import backtrader as bt
from hypothesis import strategies as st

from bt_ibkr.brokers.exec_types import ExecType
from bt_ibkr.errors import OrderRefusedError

Order = bt.Order
Act = tuple[Any, ...]

SIZES = st.sampled_from([1, 3, 10, 25])
#: From the last price; a Limit of a negative offset waits below it.
OFFSETS = st.sampled_from([-2.0, -0.5, -0.1, -0.02, 0.02, 0.1, 0.5, 2.0])
SIDES = st.sampled_from(["buy", "sell"])
KINDS = st.sampled_from(
    [
        "Market",
        "Limit",
        "Limit",
        "Stop",
        "StopLimit",
        "StopTrail",
        "StopTrailLimit",
        "MIT",
        "LIT",
        "REL",
        "MOC",
    ]
)
#: Which of the open orders, by place.
WHICH = st.integers(0, 5)

PLACE = st.tuples(st.just("place"), SIDES, KINDS, SIZES, OFFSETS, st.sampled_from([None, "day", 20.0]))
BRACKET = st.tuples(st.just("bracket"), SIDES, SIZES, OFFSETS, st.sampled_from([0.1, 0.5, 3.0]))
PAIR = st.tuples(st.just("pair"), SIDES, SIZES, st.sampled_from([0.1, 0.5, 3.0]), st.booleans())
MODIFY = st.tuples(st.just("modify"), WHICH, st.sampled_from(["price", "size"]), OFFSETS)
CANCEL = st.tuples(st.just("cancel"), WHICH)
ACTS = st.one_of(PLACE, PLACE, BRACKET, PAIR, MODIFY, CANCEL)
TURN = st.lists(ACTS, min_size=1, max_size=4)


def do(strategy: Any, act: Act) -> None:
    """One act. What the broker refuses at once is no order."""
    name, *arguments = act
    try:
        globals()[f"_{name}"](strategy, *arguments)
    except OrderRefusedError:
        strategy.messages.append(("refused at once", act, {}))


def turn(strategy: Any, acts: list[Act]) -> None:
    """All acts, one after another, before anything of them has been answered."""
    for act in acts:
        do(strategy, act)


def _price(strategy: Any, offset: float) -> float:
    return float(round(strategy.data.close[0] + offset, 2))


def _place(
    strategy: Any, side: str, kind: str, size: float, offset: float, valid: str | float | None
) -> None:
    price = _price(strategy, offset)
    beyond = round(price + (0.05 if side == "buy" else -0.05), 2)
    fields: dict[str, dict[str, Any]] = {
        "Market": {},
        "Limit": {"exectype": Order.Limit, "price": price},
        "Stop": {"exectype": Order.Stop, "price": price},
        "StopLimit": {"exectype": Order.StopLimit, "price": price, "plimit": beyond},
        "StopTrail": {"exectype": Order.StopTrail, "trailamount": round(abs(offset) + 0.05, 2)},
        "StopTrailLimit": {
            "exectype": Order.StopTrailLimit,
            "price": price,
            "plimit": beyond,
            "trailamount": round(abs(offset) + 0.05, 2),
        },
        "MIT": {"exectype": ExecType.MIT, "price": price},
        "LIT": {"exectype": ExecType.LIT, "price": price, "plimit": beyond},
        "REL": {"exectype": ExecType.REL, "offset": 0.01},
        "MOC": {"exectype": ExecType.MOC},
    }
    if valid == "day":
        fields[kind]["valid"] = Order.DAY
    elif isinstance(valid, float) and kind not in ("Market", "MOC"):
        fields[kind]["valid"] = timedelta(seconds=valid)
    getattr(strategy, side)(size=size, **fields[kind])


def _bracket(strategy: Any, side: str, size: float, offset: float, width: float) -> None:
    price, sign = _price(strategy, offset), 1 if side == "buy" else -1
    getattr(strategy, f"{side}_bracket")(
        size=size,
        price=price,
        exectype=Order.Limit,
        stopprice=round(price - sign * width, 2),
        limitprice=round(price + sign * width, 2),
    )


def _pair(strategy: Any, side: str, size: float, width: float, together: bool) -> None:
    """Two that cancel each other; as one submission, so that IBKR keeps the group, or one after the other."""
    call = getattr(strategy, side)
    first = call(size=size, exectype=Order.Limit, price=_price(strategy, width), transmit=not together)
    call(size=size, exectype=Order.Limit, price=_price(strategy, -width), oco=first)


def _chosen(strategy: Any, which: int) -> Any:
    orders = strategy.broker.get_orders_open()
    return orders[which % len(orders)] if orders else None


def _modify(strategy: Any, which: int, what: str, offset: float) -> None:
    order = _chosen(strategy, which)
    if order is None:
        return
    if what == "price":
        strategy.broker.modify(order, price=_price(strategy, offset))
    else:
        strategy.broker.modify(order, size=abs(order.created.size) + (1 if offset > 0 else 2))


def _cancel(strategy: Any, which: int) -> None:
    order = _chosen(strategy, which)
    if order is not None:
        strategy.cancel(order)
