"""What random trading has found, each as small as it could be made."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import backtrader as bt

from tests.orders.world import World

Worlds = Callable[..., World]
Limit = bt.Order.Limit


def test_an_order_ends_although_a_part_of_it_was_taken_back(world: Worlds) -> None:
    """IBKR has reported more executed than stands after a bust; nothing more will come."""
    here = world()
    here.start()
    here.program.do(lambda s: s.buy(size=10, exectype=Limit, price=90.0))
    here.rest()
    order_id = here.order(0)["order_id"]
    here.emulator.do("fill", order_id=order_id, quantity=4)
    here.rest()
    executed = here.emulator.ledger()["executions"][0]["execution_id"]
    here.emulator.do("bust", execution_id=executed)
    here.rest()
    here.program.do(lambda s: s.cancel(s.broker.get_orders_open()[0]))
    here.agree()
    (order,) = here.program.broker.orders
    assert order.status == order.Canceled


def test_what_was_refused_and_stands_is_on_record(world: Worlds) -> None:
    """Otherwise the next run would not know it as its own."""
    here = world()
    here.start()
    path = "/iserver/account/*/orders"
    here.emulator.fault("http", method="POST", path=path, action="error", text="no", processed=True)
    here.emulator.fault("http", method="DELETE", path="/iserver/account/*/order/*", action="status", count=0)
    here.program.do(lambda s: s.buy(size=10, exectype=Limit, price=90.0))
    here.until(lambda: any("stands" in text for text in here.program.broker.problems))
    row = here.order(0)
    here.program.kill()
    here.start()
    (order,) = here.program.broker.get_orders_open()
    assert here.program.broker.client_order_id(order) == row["client_order_id"]
    here.emulator.do("clear_faults")
    here.program.do(lambda s: s.cancel(order))
    here.agree()


def test_executions_of_a_child_whose_id_nobody_knew(world: Worlds) -> None:
    """The program dies between the frames of a child, which has no ``cOID``, and the answer that has its id."""
    here = world()
    here.start()
    path = "/iserver/account/*/orders"
    here.emulator.fault("http", method="POST", path=path, action="delay", delay_s=5.0, processed=True)

    def entry(strategy: Any) -> None:
        strategy.buy_bracket(size=3, price=101.0, stopprice=95.0, limitprice=99.0)

    here.program.do(entry)
    here.until(lambda: len(here.emulator.ledger()["orders"]) == 3)
    for number in (0, 2):
        row = here.order(number)
        left = Decimal(row["quantity"]) - Decimal(row["filled"])
        if left:
            here.emulator.do("fill", order_id=row["order_id"], quantity=float(left))
    here.until(lambda: "frames" not in here.program.unrest())
    here.program.kill()
    here.start()
    here.agree()


def test_a_child_that_ibkr_reduced_is_complete_with_what_was_left(world: Worlds) -> None:
    """Its sibling executed in part: IBKR takes that off the order's size, and calls the rest of it filled."""
    here = world()
    here.start()
    here.program.do(lambda s: s.sell_bracket(size=3, price=99.0, stopprice=105.0, limitprice=97.0))
    here.rest()
    assert here.order(0)["status"] == "Filled"
    here.emulator.do("fill", order_id=here.order(1)["order_id"], quantity=2)
    here.rest()
    assert here.order(2)["quantity"] == "1"
    here.emulator.do("fill", order_id=here.order(2)["order_id"], quantity=1)
    here.agree()
    assert not here.program.broker.orders[2].alive()
