"""Frames other than market data."""

from __future__ import annotations

from decimal import Decimal

import msgspec
import pytest

from bt_ibkr.clock import NS_PER_S
from bt_ibkr.errors import WireError
from bt_ibkr.model import AccountPnl, OrderReport, OrderStatus, Side
from bt_ibkr.wire import session
from bt_ibkr.wire import stream_events as events
from bt_ibkr.wire.orders import Prompt

FULL = (
    b'[{"acct":"U1234567","conidex":"265598","conid":265598,"account":"U1234567","orderId":912091175,'
    b'"sizeAndFills":"0/1","orderDesc":"Buy 1 AAPL Limit 1.00, Day","ticker":"AAPL","secType":"STK",'
    b'"remainingQuantity":1.0,"filledQuantity":0.0,"totalSize":1.0,"status":"Inactive",'
    b'"order_ccp_status":"Pending Submit","outsideRTH":false,"origOrderType":"LIMIT",'
    b'"lastExecutionTime":"260430123533","orderType":"Limit","price":"1.00","timeInForce":"CLOSE",'
    b'"lastExecutionTime_r":1777552533000,"side":"BUY"}]'
)


def test_orders_full_changed_and_bare() -> None:
    assert events.order_reports(msgspec.Raw(FULL)) == (
        OrderReport(
            order_id="912091175",
            account="U1234567",
            conid=265598,
            side=Side.BUY,
            order_type="LMT",
            status=OrderStatus.INACTIVE,
            total_quantity=Decimal(1),
            filled_quantity=Decimal(0),
            remaining_quantity=Decimal(1),
            limit_price=1.0,
            time_in_force="DAY",
            symbol="AAPL",
            time_ns=1777552533 * NS_PER_S,
        ),
    )
    changed = (
        b'[{"acct":"U1","orderId":9,"status":"Submitted","order_ccp_status":"Submitted","fgColor":"#00F000"}]'
    )
    assert events.order_reports(changed) == (
        OrderReport(order_id="9", account="U1", status=OrderStatus.SUBMITTED),
    )
    assert events.order_reports(b'[{"acct":"U1","orderId":9}]') == (OrderReport(order_id="9", account="U1"),)
    assert events.order_reports(b'{"acct":"U1","orderId":9}') == (OrderReport(order_id="9", account="U1"),)


def test_partial_fills() -> None:
    (first,) = events.order_reports(
        b'[{"acct":"DU1234","orderId":352055828,"sizeAndFills":"100/622","remainingQuantity":622.0,'
        b'"filledQuantity":100.0,"avgPrice":"382.45"}]'
    )
    assert (first.filled_quantity, first.remaining_quantity) == (Decimal(100), Decimal(622))
    assert first.average_price == 382.45
    assert first.status is None
    (last,) = events.order_reports(
        b'[{"acct":"DU1234","orderId":352055828,"sizeAndFills":"722","remainingQuantity":0.0,'
        b'"filledQuantity":722.0,"status":"Filled","timeInForce":"GTC","price":382.4}]'
    )
    assert (last.status, last.time_in_force) == (OrderStatus.FILLED, "GTC")


def test_executions() -> None:
    assert events.executions(b"[]") == ()
    (one,) = events.executions(
        b'[{"execution_id":"0001390e.69f21453.01.01","symbol":"LRCX","side":"S","trade_time_r":1777472974000,'
        b'"size":2.0,"price":"248.60","exchange":"NASDAQ","account":"U1234567","conid":732440574,'
        b'"order_ref":"c-1","order_id":96335105}]'
    )
    assert (one.side, one.commission, one.order_ref, one.order_id) == (Side.SELL, None, "c-1", "96335105")
    assert (one.quantity, one.price, one.time_ns) == (Decimal(2), 248.6, 1777472974 * NS_PER_S)
    with pytest.raises(WireError):
        events.executions(msgspec.Raw(b""))


def test_account_pnl() -> None:
    assert events.account_pnl(b'{"DUO873728.Core":{"rowType":1,"dpl":-58.28,"nl":1020000.0,"upl":4600.0,'
                              b'"el":1010000.0,"uel":1005353.88,"mv":37910.0}}') == (
        AccountPnl(account="DUO873728", daily=-58.28, unrealized=4600.0, net_liquidation=1020000.0,
                   excess_liquidity=1010000.0, market_value=37910.0),
    )  # fmt: skip


def test_ledger_lines() -> None:
    lines = events.ledger_lines(
        b'[{"key":"LedgerListUSD","cashBalance":2.02E8,"exchangeRate":1.0,"netLiquidationValue":3.0,'
        b'"secondKey":"USD","timestamp":1700248325},{"key":"LedgerListEUR","timestamp":1700248325},'
        b'{"key":"LedgerListCHF","cashBalance":"1.5","exchangeRate":1.1}]'
    )
    assert [(line.currency, line.cash, line.exchange_rate) for line in lines] == [
        ("USD", 2.02e8, 1.0),
        ("CHF", 1.5, 1.1),
    ]
    assert lines[0].net_liquidation == 3.0
    assert events.ledger_lines(b'"unsubscribed from ledger"') == ()


def test_summary_lines() -> None:
    lines = events.summary_lines(
        b'[{"key":"AccruedCash-S","currency":"USD","monetaryValue":12.5,"severity":0,"timestamp":1700248325},'
        b'{"key":"AccountType","value":"INDIVIDUAL"},{"key":"Leverage","timestamp":1700248325}]'
    )
    assert [(line.key, line.amount, line.text) for line in lines] == [
        ("accruedcash-s", 12.5, None),
        ("accounttype", None, "INDIVIDUAL"),
    ]


def test_notices_and_prompts() -> None:
    found = events.notices(
        b'[{"id":"118","text":"Order will be canceled","title":null,"url":null},'
        b'{"orderId":5,"reqId":22170,"text":"Use it?","options":["Yes"],"messageId":"p12","prompt":true}]'
    )
    assert found == (
        events.Notice(notice_id="118", text="Order will be canceled"),
        Prompt(order_id="5", request_id="22170", text="Use it?", options=("Yes",), message_id="p12"),
    )
    assert events.notices(b'{"id":1,"text":"x"}') == (events.Notice(notice_id="1", text="x"),)


def test_bulletins() -> None:
    assert events.bulletins(b'[{"id":1789618148,"exchanges":null,"message":"To KALSHI traders"}]') == (
        events.Bulletin(bulletin_id="1789618148", message="To KALSHI traders"),
    )


def test_status_patches_merge() -> None:
    full = events.status_patch(
        b'{"connected":true,"authenticated":true,"established":true,"competing":false,"message":"",'
        b'"fail":"","serverName":"JifZ11074","username":"U"}'
    )
    state = full.applied_to(session.AuthStatus())
    assert state.ready
    assert state.server_name == "JifZ11074"
    assert events.status_patch(b'{"competing":false}') == events.StatusPatch(competing=False)
    assert not events.status_patch(b'{"authenticated":false}').applied_to(state).ready
    with pytest.raises(WireError):
        events.status_patch(b'{"authenticated":[]}')


def test_accounts() -> None:
    assert events.accounts(b'{"accounts":["U1"],"selectedAccount":"U1"}').selected == "U1"
