"""A client that others wrote, unmodified: ibind 0.2.2 over REST and WebSocket."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bt_ibkr.emulator.settings import EmulatorSettings
from bt_ibkr.emulator.testing import EmulatorThread

ACCOUNT = "DU1234567"


@pytest.fixture
def emulator() -> Iterator[EmulatorThread]:
    settings = EmulatorSettings(
        speed=60.0,
        pacing="off",
        synthetic_instruments=("AAPL", "SPY"),
        history_days=2,
        order_status_delay_s=0.0,
        smd_lifetime_s=0.0,
    )
    with EmulatorThread(settings) as running:
        yield running


@pytest.fixture
def ibind(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """The package, with its log files out of the way and no handlers of signals left behind."""
    monkeypatch.setenv("IBIND_LOGS_DIR", str(tmp_path))
    monkeypatch.setenv("IBIND_LOG_TO_FILE", "False")
    monkeypatch.setenv("IBIND_LOG_TO_CONSOLE", "False")
    return pytest.importorskip("ibind")


@pytest.fixture
def client(emulator: EmulatorThread, ibind: Any) -> Iterator[Any]:
    made = ibind.IbkrClient(
        url=emulator.url, account_id=ACCOUNT, cacert=False, use_oauth=False, auto_register_shutdown=False
    )
    yield made
    made.close()


def ticket(**changes: Any) -> Any:
    from ibind.client.ibkr_utils import OrderRequest

    order = {
        "conid": 265598,
        "side": "BUY",
        "quantity": 10,
        "order_type": "MKT",
        "acct_id": ACCOUNT,
        "tif": "DAY",
    }
    return OrderRequest(**(order | changes))


def answers() -> dict[Any, bool]:
    from ibind.client.ibkr_utils import QuestionType

    return dict.fromkeys(QuestionType, True)


def test_session_and_contracts(client: Any) -> None:
    assert client.check_health() is True
    assert client.authentication_status().data["authenticated"] is True
    assert client.tickle().data["session"]
    assert client.receive_brokerage_accounts().data["accounts"] == [ACCOUNT]
    assert client.portfolio_accounts().data[0]["accountId"] == ACCOUNT
    assert client.stock_conid_by_symbol("AAPL").data == {"AAPL": 265598}
    assert client.search_contract_by_symbol("SPY").data[0]["conid"] == "756733"
    assert client.contract_information_by_conid("265598").data["symbol"] == "AAPL"
    assert client.security_definition_by_conid(["265598"]).data["secdef"][0]["ticker"] == "AAPL"
    assert client.currency_pairs("USD").data["USD"]


def test_market_data(client: Any) -> None:
    client.receive_brokerage_accounts()
    fields = ["31", "84", "86"]
    client.live_marketdata_snapshot("265598", fields)
    (row,) = client.live_marketdata_snapshot("265598", fields).data
    assert float(row["84"]) < float(row["86"])
    history = client.marketdata_history_by_conid("265598", bar="1min", period="1d").data
    assert history["points"] == len(history["data"]) - 1
    by_symbol = client.marketdata_history_by_symbol("AAPL", bar="1h", period="3d").data
    assert by_symbol["symbol"] == "AAPL"
    assert client.marketdata_unsubscribe_all().data == {"unsubscribed": True}


def test_orders_and_portfolio(client: Any) -> None:
    client.receive_brokerage_accounts()
    client.portfolio_accounts()
    resting = ticket(order_type="LMT", price=100.0, coid="resting")
    placed = client.place_order(resting, answers(), ACCOUNT).data
    assert placed["local_order_id"] == "resting"
    order_id = placed["order_id"]
    changed = ticket(order_type="LMT", price=101.0, coid="resting")
    assert client.modify_order(order_id, changed, answers(), ACCOUNT).data["order_id"] == order_id
    assert client.order_status(order_id).data["limit_price"] == "101.00"
    client.live_orders()
    (row,) = client.live_orders().data["orders"]
    assert (row["orderId"], row["order_ref"]) == (int(order_id), "resting")
    assert client.cancel_order(order_id, ACCOUNT).data["msg"] == "Request was submitted"
    bought = client.place_order(ticket(coid="bought"), answers(), ACCOUNT).data
    while client.order_status(bought["order_id"]).data["order_status"] != "Filled":
        pass
    client.trades()
    trades = client.trades(days="2").data
    assert sum(trade["size"] for trade in trades) == 10.0
    (position,) = client.positions(ACCOUNT).data
    assert (position["conid"], position["position"]) == (265598, 10.0)
    assert client.positions2(ACCOUNT).data[0]["conid"] == "265598"
    ledger = client.get_ledger(ACCOUNT).data
    assert ledger["USD"]["cashbalance"] < 1_000_000.0
    assert client.portfolio_summary(ACCOUNT).data["netliquidation"]["amount"] > 0
    assert client.whatif_order(ticket(), ACCOUNT).data["position"]["current"] == "10"
    assert client.account_summary(ACCOUNT).data["netLiquidationValue"] > 0


def test_websocket(emulator: EmulatorThread, client: Any, ibind: Any) -> None:
    from ibind import events
    from ibind.ibkr_ws.ibkr_subscriptions import (
        AccountLedgerSubscription,
        MarketDataSubscription,
        OrdersSubscription,
        PnlSubscription,
        TradesSubscription,
    )
    from ibind.ibkr_ws.ibkr_ws_client import IbkrWsClient

    client.receive_brokerage_accounts()
    told: queue.Queue[Any] = queue.Queue()

    class Sink(ibind.EventSink):  # type: ignore[misc, name-defined, unused-ignore]
        def emit(self, event: Any) -> None:
            told.put(event)

    socket = IbkrWsClient(
        account_id=ACCOUNT, url=emulator.ws, ibkr_client=client, use_oauth=False, sink=Sink()
    )
    assert socket.start()
    try:
        handles = [
            socket.subscribe(one)
            for one in (
                MarketDataSubscription(conid="265598", fields=["31", "84", "86"]),
                OrdersSubscription(),
                TradesSubscription(),
                PnlSubscription(),
                AccountLedgerSubscription(account_id=ACCOUNT),
            )
        ]
        seen: set[type] = set()
        wanted = {events.MarketData, events.Trades, events.Pnl, events.AccountLedger}
        while not wanted <= seen:
            seen.add(type(told.get(timeout=20)))
        assert len(handles) == 5
        client.place_order(ticket(coid="over-the-socket"), answers(), ACCOUNT)
        wanted = {events.Orders, events.Trades}
        filled: set[type] = set()
        while not wanted <= filled:
            event = told.get(timeout=20)
            if type(event) in wanted and event.data.get("args"):
                filled.add(type(event))
    finally:
        socket.shutdown()
