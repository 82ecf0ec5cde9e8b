"""Combos: one order, an execution of the whole and one of each leg; cash and positions are the legs'."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import backtrader as bt
import msgspec
import pytest

from bt_ibkr.connection.interface import ExecutionReported
from bt_ibkr.model.contract import Contract, Leg, SecurityType
from bt_ibkr.model.order import OrderStatus, Side

CASH = 100_000.0
COMBO, NEAR, FAR = -5, 11, 12
Stages = Callable[..., Any]


@pytest.fixture
def spread(stage: Stages) -> Callable[..., Any]:
    """A stage whose instrument is one near against two far."""

    def make(kind: SecurityType = SecurityType.STOCK, multiplier: float = 1.0, **found: Any) -> Any:
        scene = stage()
        scene.connection.contract = Contract(
            conid=COMBO, symbol="SPREAD", security_type=SecurityType.COMBO, multiplier=multiplier,
            legs=(Leg(NEAR, 1), Leg(FAR, -2)), spread_id=28812380,
        )  # fmt: skip
        scene.connection.contracts = {
            conid: Contract(conid=conid, symbol=name, security_type=kind, multiplier=multiplier)
            for conid, name in ((NEAR, "N"), (FAR, "F"))
        }
        scene.connection.found = found
        return scene

    return make


def part(says: Any, number: int, conid: int, quantity: str, price: float, side: Side = Side.BUY,
         commission: float | None = None) -> ExecutionReported:  # fmt: skip
    fill = says.fill(number, quantity, price, side=side, commission=commission)
    return ExecutionReported(msgspec.structs.replace(fill.execution, conid=conid), fill.key)


def buy(scene: Any, says: Any, *batches: list[Any], size: int = 3) -> Callable[[Any], None]:
    def action(strategy: Any) -> None:
        strategy.orders.append(strategy.buy(size=size, exectype=bt.Order.Limit, price=-19.0))
        scene.connection.later([says.placed()], *batches)

    return action


def sizes(scene: Any) -> tuple[float, float, float]:
    book = scene.broker._book()
    return scene.position.size, book.position(NEAR).size, book.position(FAR).size


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
def test_order_executes_once_all_legs_have(spread: Any, says: Any, order: tuple[int, ...]) -> None:
    scene = spread()
    parts = [
        part(says, 1, COMBO, "3", -20.0),
        part(says, 2, NEAR, "3", 100.0, commission=1.0),
        part(says, 3, FAR, "6", 60.0, Side.SELL, commission=2.0),
    ]
    strategy = scene.play([buy(scene, says, *[[parts[index]] for index in order])])
    (made,) = strategy.orders
    assert strategy.statuses(made) == ["Submitted", "Accepted", "Completed 3"]
    assert made.executed.price == -20.0
    assert made.executed.comm == 3.0
    assert sizes(scene) == (3, 3, -6)
    assert scene.position.price == -20.0
    assert scene.broker.getcash() == CASH - 300.0 + 360.0 - 3.0
    ids = sorted(e.execution_id for _, e in scene.broker.executions)
    assert ids == ["e1", "e2", "e3"]
    assert not scene.broker.problems


def test_parts_of_a_combo(spread: Any, says: Any) -> None:
    scene = spread()
    batches = [
        [part(says, 1, COMBO, "1", -20.0), part(says, 2, NEAR, "1", 100.0, commission=1.0)],
        [part(says, 3, FAR, "1", 60.0, Side.SELL, commission=0.0)],
        [part(says, 4, FAR, "1", 60.0, Side.SELL, commission=0.0)],
        [
            part(says, 5, NEAR, "2", 101.0, commission=1.0),
            part(says, 6, FAR, "4", 60.0, Side.SELL, commission=1.0),
        ],
    ]
    strategy = scene.play([buy(scene, says, *batches)])
    # Half a combo is none; the second execution came without its envelope, and costs what its legs did.
    assert strategy.statuses(strategy.orders[0]) == ["Submitted", "Accepted", "Partial 1", "Completed 2"]
    assert [bit.price for bit in strategy.orders[0].executed.exbits] == [-20.0, -19.0]
    assert sizes(scene) == (3, 3, -6)


def test_combo_is_closed_and_its_trade_with_it(spread: Any, says: Any) -> None:
    scene = spread(SecurityType.OPTION, 100.0)
    opens = [
        part(says, 1, NEAR, "1", 5.0, commission=1.0),
        part(says, 2, FAR, "2", 2.0, Side.SELL, commission=1.0),
    ]

    def close(strategy: Any) -> None:
        assert sizes(scene) == (1, 1, -2)
        assert scene.position.price == 1.0
        strategy.orders.append(strategy.close(exectype=bt.Order.Limit, price=1.5))
        closes = [
            part(says, 3, NEAR, "1", 5.5, Side.SELL, commission=1.0),
            part(says, 4, FAR, "2", 2.0, commission=1.0),
        ]
        scene.connection.later(
            [says.placed(2, "901")], [ExecutionReported(one.execution, "p.00000.2") for one in closes]
        )

    strategy = scene.play([buy(scene, says, opens, size=1), close])
    assert [order.getstatusname() for order in strategy.orders] == ["Completed", "Completed"]
    assert sizes(scene) == (0, 0, 0)
    assert scene.broker.getcash() == CASH + 50.0 - 4.0
    closed = [trade for trade in strategy.trades if trade[0] == bt.Trade.Closed]
    assert [(pnl, net) for _, _, pnl, net, _ in closed] == [(50.0, 46.0)]


def test_calendar_of_futures_moves_cash_by_profit_only(spread: Any, says: Any) -> None:
    scene = spread(SecurityType.FUTURE, 50.0)
    parts = [
        part(says, 1, NEAR, "1", 5000.0, commission=2.0),
        part(says, 2, FAR, "2", 5050.0, Side.SELL, commission=2.0),
    ]
    scene.play([buy(scene, says, parts, size=1)])
    assert scene.broker.getcash() == CASH - 4.0


def test_position_of_before_is_made_of_its_legs(spread: Any, says: Any, held: Any) -> None:
    scene = spread(positions=(held("4", 100.0, conid=NEAR), held("-6", 60.0, conid=FAR)))
    strategy = scene.play([])
    # 3 whole combos; the fourth of the near leg stands alone.
    assert scene.position.size == 3
    assert scene.position.price == -20.0
    assert [(t[0], t[1], t[4]) for t in strategy.trades] == [(bt.Trade.Open, 3, -20.0)]
    assert scene.broker.positions[scene.cerebro.datas[0]].size == 3
    # Values count the legs once.
    assert scene.broker.getvalue() == CASH + 400.0 - 360.0


def test_reconciliation_compares_legs_not_the_combo(spread: Any, says: Any, held: Any) -> None:
    scene = spread()
    parts = [
        part(says, 1, NEAR, "1", 100.0, commission=0.0),
        part(says, 2, FAR, "2", 60.0, Side.SELL, commission=0.0),
    ]
    told = says.reconciled(held("1", 100.0, conid=NEAR), held("-2", 60.0, conid=FAR))
    strategy = scene.play([buy(scene, says, parts, [told], size=1)])
    assert strategy.messages == []
    assert scene.position.size == 1


def test_envelope_of_another_client_changes_nothing(spread: Any, says: Any) -> None:
    scene = spread()
    fill = part(says, 1, COMBO, "1", -20.0)

    def speak(strategy: Any) -> None:
        scene.connection.later([ExecutionReported(fill.execution, None)])

    strategy = scene.play([speak])
    assert scene.position.size == 0
    assert scene.broker.getcash() == CASH
    assert [message for message, *_ in strategy.messages] == ["external-execution"]


def test_cancelled_combo_keeps_what_has_executed(spread: Any, says: Any) -> None:
    scene = spread()
    parts = [
        part(says, 1, NEAR, "1", 100.0, commission=0.0),
        part(says, 2, FAR, "2", 60.0, Side.SELL, commission=0.0),
    ]
    strategy = scene.play([buy(scene, says, [says.status(OrderStatus.CANCELLED, "1")], parts)])
    assert strategy.statuses(strategy.orders[0]) == ["Submitted", "Accepted", "Partial 1", "Canceled"]
    assert strategy.orders[0].executed.size == 1
