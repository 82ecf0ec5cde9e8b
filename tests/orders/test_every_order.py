"""Every type, side and time in force that docs/orders.md names, from ``buy()`` to the exchange and back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import backtrader as bt
import pytest

from bt_ibkr.brokers.exec_types import ExecType
from bt_ibkr.model.order import OrderType, TimeInForce
from bt_ibkr.model.order_words import TIMES
from tests.conftest import OPEN, Tape
from tests.documents.test_orders_document import CASES
from tests.orders.world import World, impatient

Order = bt.Order
SIDES = ("buy", "sell")
SIGN = {"buy": 1, "sell": -1}
#: These wait for a moment that has its own test.
LATER = {OrderType.MARKET_ON_CLOSE, OrderType.LIMIT_ON_CLOSE}
LATER_TIMES = {TimeInForce.AT_THE_OPENING, TimeInForce.OVERNIGHT}
HOUR = 3600


class Kind(NamedTuple):
    """A row of the document's table, with arguments by which it executes soon.

    Attributes:
        exectype: For backtrader.
        order_type: For IBKR.
        arguments: Of ``buy()`` or ``sell()``, made of the last price and the side's sign.
        prices: Limit and stop that IBKR is to have, made of the same; ``None`` for what the market decides.
    """

    exectype: int
    order_type: OrderType
    arguments: Callable[[float, int], dict[str, Any]]
    prices: Callable[[float, int], tuple[float | None, float | None]] | None


def _none(p: float, s: int) -> tuple[None, None]:
    return None, None


KINDS: dict[str, Kind] = {
    "market": Kind(Order.Market, OrderType.MARKET, lambda p, s: {}, _none),
    "limit": Kind(Order.Limit, OrderType.LIMIT, lambda p, s: {"price": p + s}, lambda p, s: (p + s, None)),
    "stop": Kind(Order.Stop, OrderType.STOP, lambda p, s: {"price": p - s}, lambda p, s: (None, p - s)),
    "stop limit": Kind(
        Order.StopLimit,
        OrderType.STOP_LIMIT,
        lambda p, s: {"price": p - s, "plimit": p + s},
        lambda p, s: (p + s, p - s),
    ),
    "trail by amount": Kind(Order.StopTrail, OrderType.TRAIL, lambda p, s: {"trailamount": 0.05}, None),
    "trail by percent": Kind(Order.StopTrail, OrderType.TRAIL, lambda p, s: {"trailpercent": 0.0005}, None),
    "trail limit by amount": Kind(
        Order.StopTrailLimit,
        OrderType.TRAIL_LIMIT,
        lambda p, s: {"price": p, "plimit": p + s, "trailamount": 0.05},
        None,
    ),
    "trail limit by percent": Kind(
        Order.StopTrailLimit,
        OrderType.TRAIL_LIMIT,
        lambda p, s: {"price": p, "plimit": p + s, "trailpercent": 0.0005},
        None,
    ),
    "at the close": Kind(ExecType.MOC, OrderType.MARKET_ON_CLOSE, lambda p, s: {}, _none),
    "limit at the close": Kind(
        ExecType.LOC,
        OrderType.LIMIT_ON_CLOSE,
        lambda p, s: {"price": p + 3 * s},
        lambda p, s: (p + 3 * s, None),
    ),
    "mid price": Kind(ExecType.MIDPRICE, OrderType.MIDPRICE, lambda p, s: {}, _none),
    "mid price, capped": Kind(
        ExecType.MIDPRICE, OrderType.MIDPRICE, lambda p, s: {"price": p + s}, lambda p, s: (p + s, None)
    ),
    "if touched": Kind(
        ExecType.MIT, OrderType.MARKET_IF_TOUCHED, lambda p, s: {"price": p + s}, lambda p, s: (None, p + s)
    ),
    "limit if touched": Kind(
        ExecType.LIT,
        OrderType.LIMIT_IF_TOUCHED,
        lambda p, s: {"price": p + s, "plimit": p + 2 * s},
        lambda p, s: (p + 2 * s, p + s),
    ),
    "relative": Kind(ExecType.REL, OrderType.RELATIVE, lambda p, s: {"offset": 0.01}, None),
    "relative, capped": Kind(
        ExecType.REL, OrderType.RELATIVE, lambda p, s: {"price": p + s, "offset": 0.01}, None
    ),
}
EVERY = [
    pytest.param(name, side, time, id=f"{name}-{side}-{time.value}")
    for name, kind in KINDS.items()
    for side in SIDES
    for time in sorted(TIMES[kind.order_type])
    if time is not TimeInForce.PAXOS
]


def test_nothing_of_the_document_is_left_out() -> None:
    assert {kind.exectype for kind in KINDS.values()} == {exectype for _, exectype, _ in CASES}
    assert len(KINDS) == len(CASES)
    assert {kind.order_type for kind in KINDS.values()} == set(OrderType)


def day(length: int) -> dict[str, Tape]:
    """So many seconds of a price that swings by two points; what comes at the close, in the evening, and on the next
    morning, follows in a few quotes. A coin stands still."""
    stock, coin = Tape(), Tape()
    for second in range(0, length, 2):
        turn = second % 80
        price = round(100 + (turn if turn < 40 else 80 - turn) * 0.05, 2)
        stock.quote(second, round(price - 0.01, 2), round(price + 0.01, 2))
        stock.trade(second + 1, price)
        coin.quote(second, 89_999.75, 90_000.25, 10)
        coin.trade(second + 1, 90_000.0, 1)
    close, evening, morning = 6.5 * HOUR, 10.6 * HOUR, 24 * HOUR
    for start in (close - 20, evening, morning):
        for second in range(0, 40, 2):
            stock.quote(start + second, 100.49, 100.51)
            stock.trade(start + second + 1, 100.5)
    return {"AAPL": stock, "BTC": coin}


def files(folder: Path, length: int) -> tuple[str, ...]:
    found = []
    for name, tape in day(length).items():
        tape.frame().to_parquet(folder / f"{name}.parquet")
        found.append(f"{folder / name}.parquet:{name}")
    return tuple(found)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """One world for all orders that end within seconds."""
    folder = tmp_path_factory.mktemp("shared")
    with impatient(), World(folder, files(folder, 6 * HOUR), ("AAPL", "conid:479624278@PAXOS")) as world:
        world.start()
        yield world


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[World]:
    with impatient(), World(tmp_path, files(tmp_path, 40)) as world:
        world.start()
        yield world


def place(world: World, side: str, at: int = 0, **fields: Any) -> Any:
    """The order, placed and answered."""

    def act(strategy: Any) -> Any:
        return getattr(strategy, side)(data=strategy.datas[at], **({"size": 1} | fields))

    order = world.program.do(act)
    world.rest()
    return order


def made(world: World, name: str, side: str, **fields: Any) -> tuple[Any, float]:
    """The order of a kind, and the price that it was made of."""
    price = world.program.do(lambda strategy: float(strategy.data.close[0]))
    kind = KINDS[name]
    given = kind.arguments(price, SIGN[side])
    return place(world, side, exectype=kind.exectype, **given, **fields), price


def as_placed(world: World, order: Any) -> dict[str, Any]:
    """What the emulator has of it."""
    order_id = world.program.broker.order_id(order)
    return next(row for row in world.emulator.ledger()["orders"] if str(row["order_id"]) == order_id)


def ends(world: World, order: Any, seconds: float = 200) -> str:
    """The order's status once it has ended, or after so long."""
    for _ in range(int(seconds // 10)):
        if not order.alive():
            break
        world.advance(10)
    world.agree()
    return str(order.getstatusname())


@pytest.mark.parametrize(("name", "side", "time"), EVERY)
def test_type_side_and_time_in_force(shared: World, name: str, side: str, time: TimeInForce) -> None:
    kind = KINDS[name]
    order, price = made(shared, name, side, tif=time.value)
    assert order.status not in (order.Rejected, order.Margin), shared.program.strategy.messages[-3:]
    row = as_placed(shared, order)
    assert (row["order_type"], row["side"], row["time_in_force"], row["quantity"]) == (
        kind.order_type.value,
        side.upper(),
        time.value,
        "1",
    )
    if kind.prices is not None:
        limit, stop = kind.prices(price, SIGN[side])
        assert row["limit_price"] == (None if limit is None else pytest.approx(limit))
        assert row["stop_price"] == (None if stop is None else pytest.approx(stop))
    if kind.order_type in LATER or time in LATER_TIMES:
        assert order.status == order.Accepted
        shared.program.do(lambda strategy: strategy.cancel(order))
        shared.rest()
        assert ends(shared, order) == "Canceled"
    elif time is TimeInForce.IMMEDIATE_OR_CANCEL and kind.order_type in (
        OrderType.MIDPRICE,
        OrderType.RELATIVE,
    ):
        # It does not cross the spread, and may not wait.
        assert ends(shared, order) in ("Canceled", "Completed")
    else:
        assert ends(shared, order) == "Completed"
        assert order.executed.size == SIGN[side]


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("offset", [1.0, -1.0])
def test_coins(shared: World, side: str, offset: float) -> None:
    """``PAX``: as long as coins are traded, which is always."""
    if side == "sell":
        place(shared, "buy", 1, cash_qty=900)
    price = 90_000.0 + offset * SIGN[side]
    order = place(shared, side, 1, size=0.01, exectype=Order.Limit, price=price, tif="PAX")
    assert as_placed(shared, order)["time_in_force"] == "PAX"
    if offset > 0:
        assert ends(shared, order) == "Completed"
        return
    assert order.status == order.Accepted
    shared.program.do(lambda strategy: strategy.cancel(order))
    shared.rest()
    assert ends(shared, order) == "Canceled"


def test_coins_sold_at_the_market(shared: World) -> None:
    place(shared, "buy", 1, cash_qty=900)
    order = place(shared, "sell", 1, size=0.005, tif="PAX")
    assert ends(shared, order) == "Completed"


@pytest.mark.parametrize("side", SIDES)
def test_what_cannot_execute_at_once_is_cancelled(shared: World, side: str) -> None:
    price = 90.0 if side == "buy" else 110.0
    order = place(shared, side, exectype=Order.Limit, price=price, tif="IOC")
    assert ends(shared, order) == "Canceled"


SOON = timedelta(seconds=30)
VALID = [
    (None, None, "GTC", "Accepted"),
    (Order.DAY, None, "DAY", "Accepted"),
    (timedelta(), None, "DAY", "Accepted"),
    (0, None, "DAY", "Accepted"),
    (SOON, None, "GTC", "Expired"),
    (SOON, "DAY", "DAY", "Expired"),
    (SOON, "GTD", "GTC", "Expired"),
    ("datetime", None, "GTC", "Expired"),
    (date(2026, 3, 9), None, "GTC", "Accepted"),
    (3, None, "GTC", "Accepted"),
]


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize(("valid", "tif", "wire", "ends_as"), VALID)
def test_valid(shared: World, side: str, valid: Any, tif: str | None, wire: str, ends_as: str) -> None:
    if valid == "datetime":
        valid = datetime.fromtimestamp(shared.now_ns / 1e9, tz=UTC) + SOON
    price = 90.0 if side == "buy" else 110.0
    given: dict[str, Any] = {} if tif is None else {"tif": tif}
    order = place(shared, side, exectype=Order.Limit, price=price, valid=valid, **given)
    assert as_placed(shared, order)["time_in_force"] == wire
    assert ends(shared, order, 40) == ends_as
    if order.alive():
        shared.program.do(lambda strategy: strategy.cancel(order))
        shared.rest()


@pytest.mark.soak
def test_what_waits_for_the_close_the_evening_and_the_morning(fresh: World) -> None:
    """Each executes at its hour, and not before."""
    hours: dict[str, tuple[float, list[Any]]] = {
        "close": (6.5, []), "evening": (10.6, []), "morning": (24.0, []),
    }  # fmt: skip
    for side in SIDES:
        for name in ("at the close", "limit at the close"):
            hours["close"][1].append(made(fresh, name, side)[0])
        hours["evening"][1].append(made(fresh, "limit", side, tif="OVT")[0])
        for name in ("market", "limit"):
            hours["morning"][1].append(made(fresh, name, side, tif="OPG")[0])
    start = OPEN.timestamp()
    for hour, orders in hours.values():
        fresh.advance(start + hour * HOUR - 30 - fresh.now_ns / 1e9)
        assert [order.getstatusname() for order in orders] == ["Accepted"] * len(orders)
        fresh.advance(90)
        assert [order.getstatusname() for order in orders] == ["Completed"] * len(orders)
    fresh.agree()
