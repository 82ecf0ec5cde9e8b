"""What a client that others wrote, ibind, sees in the emulator of the orders that our broker placed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import backtrader as bt
import pytest

from tests.orders.world import AAPL, ACCOUNT, World

Order = bt.Order


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[World], Any]:
    """The other client, on a world's emulator."""
    monkeypatch.setenv("IBIND_LOGS_DIR", str(tmp_path))
    monkeypatch.setenv("IBIND_LOG_TO_FILE", "False")
    monkeypatch.setenv("IBIND_LOG_TO_CONSOLE", "False")
    ibind = pytest.importorskip("ibind")

    def connect(world: World) -> Any:
        client = ibind.IbkrClient(
            url=world.emulator.url,
            account_id=ACCOUNT,
            cacert=False,
            use_oauth=False,
            auto_register_shutdown=False,
        )
        client.receive_brokerage_accounts()
        client.portfolio_accounts()
        return client

    return connect


def listed(client: Any) -> dict[str, Any]:
    """Live orders, by id; the first call only asks for the list."""
    client.live_orders()
    return {str(row["orderId"]): row for row in client.live_orders().data["orders"]}


def test_ibind_sees_what_our_broker_placed(
    world: Callable[..., World], elsewhere: Callable[[World], Any]
) -> None:
    here = world()
    here.start()

    def act(strategy: Any) -> list[Any]:
        filled = strategy.buy(size=2)
        resting = strategy.buy(size=3, exectype=Order.Limit, price=90.0, valid=Order.DAY)
        stop = strategy.sell(size=4, exectype=Order.StopLimit, price=91.0, plimit=90.5)
        trail = strategy.sell(size=5, exectype=Order.StopTrail, trailamount=7.5)
        bracket = strategy.buy_bracket(size=6, price=92.0, stopprice=88.0, limitprice=96.0)
        gone = strategy.buy(size=7, exectype=Order.Limit, price=93.0)
        return [filled, resting, stop, trail, *bracket, gone]

    orders = here.program.do(act)
    here.rest()
    here.program.do(lambda strategy: strategy.cancel(orders[-1]))
    here.agree()
    broker = here.program.broker
    ids = [str(broker.order_id(order)) for order in orders]
    keys = [broker.client_order_id(order) for order in orders]

    client = elsewhere(here)
    rows = listed(client)
    assert set(rows) == set(ids)
    wanted = [
        ("BUY", 2.0, "Filled", "GTC"),
        ("BUY", 3.0, "Submitted", "DAY"),
        ("SELL", 4.0, "PreSubmitted", "GTC"),
        ("SELL", 5.0, "PreSubmitted", "GTC"),
        ("BUY", 6.0, "Submitted", "GTC"),
        ("SELL", 6.0, "PreSubmitted", "GTC"),
        ("SELL", 6.0, "PreSubmitted", "GTC"),
        ("BUY", 7.0, "Cancelled", "GTC"),
    ]
    for order_id, (side, size, status, _) in zip(ids, wanted, strict=True):
        row = rows[order_id]
        assert (row["conid"], row["acct"], row["ticker"]) == (AAPL, ACCOUNT, "AAPL")
        assert (row["side"], float(row["totalSize"]), row["status"]) == (side, size, status)
    assert [rows[order_id].get("order_ref") for order_id in ids[:5]] == keys[:5]
    # A bracket's children carry no reference on the wire.
    assert [rows[order_id].get("order_ref") for order_id in ids[5:7]] == [None, None]

    for order_id, (side, size, status, tif) in zip(ids, wanted, strict=True):
        told = client.order_status(order_id).data
        assert told["order_status"] == status
        assert (told["conid"], told["side"], float(told["total_size"])) == (AAPL, side[0], size)
        assert told["tif"] == tif

    (trade,) = client.trades().data
    assert (trade["order_ref"], trade["side"], trade["size"], trade["conid"]) == (keys[0], "B", 2.0, AAPL)
    (execution,) = broker.executions
    assert trade["execution_id"] == execution[1].execution_id
    assert float(trade["price"]) == execution[1].price
    (position,) = client.positions(ACCOUNT).data
    assert position["position"] == 2.0
    client.close()
