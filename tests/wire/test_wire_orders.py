"""Order requests, answers to them, reports and executions."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec
import pytest

from bt_ibkr.errors import OrderRefusedError, WireError
from bt_ibkr.model import Execution, OrderReport, OrderStatus, OrderTicket, OrderType, Side, TimeInForce
from bt_ibkr.model.contract import Leg, combo_key
from bt_ibkr.wire import orders
from bt_ibkr.wire.conidex import parse_conidex
from bt_ibkr.wire.order_reports import ccp_status, type_word
from bt_ibkr.wire.order_request import cancel_parameters
from bt_ibkr.wire.orders import Accepted, OrderAck, Prompt, Question, Refused

LIVE = (
    b'{"orders":[{"acct":"DU1234567","conidex":"265598","conid":265598,"account":"DU1234567",'
    b'"orderId":245323648,"cashCcy":"USD","sizeAndFills":"1","orderDesc":"Bought 1 AAPL Market, Day",'
    b'"ticker":"AAPL","secType":"STK","remainingQuantity":0.0,"filledQuantity":1.0,"totalSize":1.0,'
    b'"status":"Filled","order_ccp_status":"Filled","origOrderType":"MARKET","orderType":"Market",'
    b'"lastExecutionTime":"260908135810","price":"","timeInForce":"CLOSE",'
    b'"lastExecutionTime_r":1788875890000,"side":"BUY","avgPrice":"317.56"}],"snapshot":true}'
)
STATUS = (
    b'{"sub_type":null,"request_id":"13167472","order_id":245323648,"conidex":"265598","conid":265598,'
    b'"symbol":"AAPL","side":"B","size":"0.0","total_size":"1.0","currency":"USD","account":"DU1234567",'
    b'"order_type":"MARKET","limit_price":"","cum_fill":"1.0","order_status":"Filled","order_ccp_status":"2",'
    b'"tif":"DAY","sec_type":"STK","average_price":"317.56","order_time":"260908135810"}'
)
TRADE: dict[str, Any] = {
    "execution_id": "0000dc8f.6b9035f5.01.01",
    "symbol": "AAPL",
    "side": "B",
    "trade_time": "20260908-13:58:11",
    "trade_time_r": 1788875891000,
    "size": 1.0,
    "price": "317.56",
    "exchange": "IBKRATS",
    "commission": "1.0",
    "net_amount": 317.56,
    "account": "DU1234567",
    "accountCode": "DU1234567",
    "conid": 265598,
    "conidEx": "265598",
    "position": "11",
    "order_id": 245323648,
}
EXECUTION = Execution(
    execution_id="0000dc8f.6b9035f5.01.01",
    account="DU1234567",
    conid=265598,
    symbol="AAPL",
    side=Side.BUY,
    quantity=Decimal(1),
    price=317.56,
    time_ns=1788875891000 * 10**6,
    exchange="IBKRATS",
    commission=1.0,
    order_id="245323648",
)


def ticket(**changes: Any) -> OrderTicket:
    base = OrderTicket(
        account="DU1", contract_id=265598, side=Side.BUY, order_type=OrderType.MARKET, quantity=Decimal(1)
    )
    return msgspec.structs.replace(base, **changes)


def test_market_order_body() -> None:
    sent = orders.orders_request((ticket(client_order_id="a-1", outside_regular_hours=True),))
    assert sent == {
        "orders": [
            {
                "acctId": "DU1",
                "conid": 265598,
                "secType": "265598@STK",
                "cOID": "a-1",
                "orderType": "MKT",
                "side": "BUY",
                "tif": "GTC",
                "quantity": 1,
                "outsideRTH": True,
            }
        ]
    }
    assert type(sent["orders"][0]["quantity"]) is int  # type: ignore[index]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"order_type": OrderType.LIMIT, "limit_price": 1.5}, {"price": 1.5}),
        ({"order_type": OrderType.STOP, "stop_price": 2.0}, {"price": 2.0}),
        (
            {"order_type": OrderType.STOP_LIMIT, "limit_price": 1.5, "stop_price": 2.0},
            {"price": 1.5, "auxPrice": 2.0},
        ),
        (
            {"order_type": OrderType.TRAIL, "trail_amount": 0.5, "stop_price": 9.0},
            {"price": 9.0, "trailingType": "amt", "trailingAmt": 0.5},
        ),
        (
            {"order_type": OrderType.TRAIL, "trail_percent": 2.5},
            {"trailingType": "%", "trailingAmt": 2.5},
        ),
        (
            {"order_type": OrderType.TRAIL_LIMIT, "trail_amount": 1.0, "limit_price": 8.0, "stop_price": 9.0},
            {"price": 8.0, "auxPrice": 9.0, "trailingType": "amt", "trailingAmt": 1.0},
        ),
        ({"order_type": OrderType.MIDPRICE, "limit_price": 7.0}, {"price": 7.0}),
        ({"order_type": OrderType.MIDPRICE}, {}),
        ({"order_type": OrderType.MARKET_IF_TOUCHED, "stop_price": 6.0}, {"price": 6.0, "auxPrice": 6.0}),
        (
            {"order_type": OrderType.LIMIT_IF_TOUCHED, "limit_price": 5.0, "stop_price": 6.0},
            {"price": 5.0, "auxPrice": 6.0},
        ),
        ({"order_type": OrderType.RELATIVE, "offset": 0.02}, {"auxPrice": 0.02}),
        (
            {"order_type": OrderType.RELATIVE, "offset": 0.0, "limit_price": 9.0},
            {"price": 9.0, "auxPrice": 0.0},
        ),
        ({"order_type": OrderType.MARKET_ON_CLOSE, "time_in_force": TimeInForce.DAY}, {}),
    ],
)
def test_prices_go_where_the_type_wants_them(changes: dict[str, Any], expected: dict[str, Any]) -> None:
    body = orders.order_request(ticket(**changes))
    found = {k: v for k, v in body.items() if k in ("price", "auxPrice", "trailingType", "trailingAmt")}
    assert found == expected


def test_an_exchange_is_named_by_conidex_alone() -> None:
    body = orders.order_request(ticket(exchange="NASDAQ"))
    assert body["conidex"] == "265598@NASDAQ"
    assert "conid" not in body


def test_bracket_and_group() -> None:
    parent = ticket(client_order_id="p")
    child = ticket(parent="p", side=Side.SELL, order_type=OrderType.LIMIT, limit_price=9.0)
    rows = orders.orders_request((parent, child))["orders"]
    assert isinstance(rows, list)
    assert rows[0]["cOID"] == "p"
    assert rows[1]["parentId"] == "p"
    assert "cOID" not in rows[1]
    assert orders.order_request(ticket(one_cancels_all=True))["isSingleGroup"] is True


def test_fraction_and_future() -> None:
    assert orders.order_request(ticket(quantity=Decimal("0.1")))["quantity"] == 0.1
    future = ticket(security_type="FUT", time_in_force=TimeInForce.DAY)
    body = orders.order_request(future)
    assert body["manualIndicator"] is False
    assert body["extOperator"] == "DU1"
    assert cancel_parameters(future) == {"manualIndicator": "false", "extOperator": "DU1"}
    named = ticket(security_type="FOP", manual_indicator=True, ext_operator="desk 7")
    assert cancel_parameters(named) == {"manualIndicator": "true", "extOperator": "desk 7"}
    assert cancel_parameters(ticket()) == {}


def test_money_instead_of_units() -> None:
    body = orders.order_request(ticket(quantity=Decimal(0), cash_quantity=Decimal("250.5")))
    assert body["cashQty"] == 250.5
    assert "quantity" not in body
    body = orders.order_request(
        ticket(
            quantity=Decimal(0), security_type="CASH", fx_quantity=Decimal(1000), is_currency_conversion=True
        )
    )
    assert (body["fxQty"], body["isCcyConv"]) == (1000, True)


def test_an_algorithm_and_its_parameters() -> None:
    body = orders.order_request(
        ticket(algo="Vwap", algo_parameters=(("maxPctVol", 0.1), ("noTakeLiq", True), ("startTime", "09:00")))
    )
    assert body["strategy"] == "Vwap"
    assert body["strategyParameters"] == {"maxPctVol": 0.1, "noTakeLiq": True, "startTime": "09:00"}


def test_the_rest_of_the_fields() -> None:
    body = orders.order_request(
        ticket(all_or_none=True, price_management=False, listing_exchange="NASDAQ", allocation_method="NetLiq",
               allocation_group="everyone")
    )  # fmt: skip
    wanted = {
        "allOrNone": True,
        "useAdaptive": False,
        "listingExchange": "NASDAQ",
        "allocationMethod": "NetLiq",
    }
    assert {name: body[name] for name in wanted} == wanted
    assert "acctId" not in body


def test_a_combo_is_addressed_by_its_legs() -> None:
    legs = (Leg(265598, 1), Leg(8314, -2))
    combo = ticket(
        contract_id=combo_key(legs), security_type="BAG", legs=legs, spread_id=28812380,
        order_type=OrderType.LIMIT, limit_price=-1.25,
    )  # fmt: skip
    body = orders.order_request(combo)
    assert body["conidex"] == "28812380;;;265598/1,8314/-2"
    assert body["price"] == -1.25
    assert not {"conid", "secType"} & set(body)
    assert orders.order_request(msgspec.structs.replace(combo, exchange="SMFE", spread_id=61227069))[
        "conidex"
    ] == ("61227069@SMFE;;;265598/1,8314/-2")


def test_conidex_forms() -> None:
    for text in ("265598", "265598@NASDAQ", "28812380;;;265598/1,8314/-2", "61227069@OSE.JPN;;;1/1,2/1,3/-2"):
        assert parse_conidex(text).text() == text
    combo = parse_conidex("28812380;;;265598/1,8314/-2")
    assert combo.stream_text() == "0;;;265598/1,8314/-2"
    assert parse_conidex("265598@NASDAQ").stream_text() == "265598@NASDAQ"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "x",
        "1@",
        "1;;;",
        "1;;;2/1",
        "1;;;2/1,2/-1",
        "1;;;2/0,3/1",
        "1;;;2,3",
        "1;;2/1,3/1",
        "1;;;2/1,3/1;",
    ],
)
def test_what_is_no_conidex(text: str) -> None:
    with pytest.raises(WireError, match="conidex"):
        parse_conidex(text)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ([], "holds no order"),
        ([{"client_order_id": "a"}, {"client_order_id": "b"}], "unrelated"),
        ([{"client_order_id": "a"}, {"client_order_id": "a", "account": "DU2"}], "several accounts"),
        ([{"client_order_id": "a", "one_cancels_all": True}] * 2, "same id"),
        ([{"client_order_id": "a"}, {"parent": "b"}], "not the children of one parent"),
        ([{"client_order_id": "a"}, {"parent": "a"}, {"parent": "b"}], "not the children of one parent"),
        ([{"client_order_id": "a", "one_cancels_all": True}, {"client_order_id": "b"}], "unrelated"),
    ],
)
def test_what_is_no_submission(changes: list[dict[str, Any]], why: str) -> None:
    with pytest.raises(OrderRefusedError, match=why):
        orders.orders_request(ticket(**one) for one in changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"quantity": Decimal(0)},
        {"quantity": Decimal("NaN")},
        {"quantity": Decimal("0.1234567890123456789012345")},
        {"order_type": OrderType.LIMIT},
        {"order_type": OrderType.STOP},
        {"order_type": OrderType.LIMIT, "limit_price": float("nan")},
        {"order_type": OrderType.TRAIL},
        {"order_type": OrderType.TRAIL, "trail_amount": 1.0, "trail_percent": 1.0},
        {"order_type": OrderType.TRAIL, "trail_amount": 0.0},
        {"client_order_id": "x" * 65},
        {"client_order_id": "a", "parent": "p"},
        {"contract_id": 0},
        {"order_type": OrderType.MARKET_ON_CLOSE, "time_in_force": TimeInForce.DAY, "limit_price": 7.0},
    ],
)
def test_what_cannot_be_sent_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(OrderRefusedError):
        orders.order_request(ticket(**changes))


def test_recorded_chain_of_answers() -> None:
    first = orders.submission(
        b'[{"id":"r-1","message":["The price exceeds 3%."],"isSuppressed":false,"messageIds":["o163"]}]', 200
    )
    assert first == Question(reply_id="r-1", texts=("The price exceeds 3%.",), message_ids=("o163",))
    second = orders.submission(
        b'[{"id":"r-2","message":["No market data."],"isSuppressed":false,"messageIds":["o354"],'
        b'"messageOptions":["Yes","No"]}]',
        200,
    )
    assert isinstance(second, Question)
    assert (second.message_ids, second.options) == (("o354",), ("Yes", "No"))
    third = orders.submission(
        b'[{"id":"r-3","message":["Cap price."],"isSuppressible":true,'
        b'"defaultSuppressionOption":"Accept and Continue","messageIds":["o10153"],'
        b'"messageOptions":["Decline","Accept and Continue"]}]',
        200,
    )
    assert isinstance(third, Question)
    assert third.message_ids == ("o10153",)
    last = orders.submission(
        b'[{"order_id":"912091175","order_status":"PendingSubmit","encrypt_message":"1"}]', 200
    )
    assert last == Accepted(acks=(OrderAck(order_id="912091175", status_text="PendingSubmit"),))


def test_bracket_answer_keeps_ids_and_parents() -> None:
    answer = orders.submission(
        [
            {"order_id": "12", "order_status": "PreSubmitted", "parent_order_id": "11"},
            {"order_id": 11, "order_status": "Submitted", "local_order_id": "p"},
        ]
    )
    assert isinstance(answer, Accepted)
    assert answer.acks[0].parent_order_id == "11"
    assert (answer.acks[1].order_id, answer.acks[1].client_order_id) == ("11", "p")


def test_several_questions() -> None:
    answer = orders.submission(
        [{"id": "a", "message": ["A"]}, {"id": "b", "message": ["B"], "messageIds": ["o1"]}]
    )
    assert isinstance(answer, Question)
    assert answer.reply_id == "a"
    assert answer.others[0].message_ids == ("o1",)


def test_sentinel_beside_an_inactive_order() -> None:
    answer = orders.submission(
        [
            {
                "order_id": "-1",
                "order_status": "Failed",
                "text": "The size, 1, does not conform to the minimum variation of 100 for this contract.",
                "warning_message": "Order rejected by the exchange.",
            },
            {"order_id": "1760268467", "order_status": "Inactive"},
        ]
    )
    assert answer == Refused(
        text="The size, 1, does not conform to the minimum variation of 100 for this contract. "
        "Order rejected by the exchange.",
        left_over=(OrderAck(order_id="1760268467", status_text="Inactive"),),
    )


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        ({"error": "We cannot accept an order at the limit price"}, 200, "We cannot accept"),
        ({"error": "Order not confirmed "}, 200, "Order not confirmed"),
        ({"error": "Unknown order type"}, 400, "Unknown order type"),
        ({"error": "Bad Request: no bridge", "statusCode": 400}, 400, "no bridge"),
        ([{"error": "OrderID 123456 doesn't exist"}], 200, "doesn't exist"),
    ],
)
def test_refusals(body: object, status: int, text: str) -> None:
    answer = orders.submission(body, status)
    assert isinstance(answer, Refused)
    assert text in answer.text


def test_prompt() -> None:
    body = {
        "orderId": 123456789,
        "reqId": "22170",
        "dismissable": [],
        "text": "Use the Price Management Algo?",
        "options": ["Use on this order", "Always use", "Do not use"],
        "type": "M",
        "messageId": "p12",
        "prompt": True,
    }
    expected = Prompt(
        order_id="123456789",
        request_id="22170",
        text="Use the Price Management Algo?",
        options=("Use on this order", "Always use", "Do not use"),
        message_id="p12",
    )
    assert orders.submission(body) == expected
    assert orders.submission([body]) == expected


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"error":"Service Unavailable","statusCode":503}', 503),
        (b"<html><body><h1>Resource not found</h1></body></html>", 404),
        (b"", 200),
        ([], 200),
        ({}, 200),
        ([{}], 200),
        ({"message": "waiting for session"}, 200),
        ({"error": "reply id not found: 'x'"}, 400),
        ([{"order_id": True}], 200),
    ],
)
def test_an_answer_that_says_nothing_is_no_refusal(body: object, status: int) -> None:
    with pytest.raises(WireError):
        orders.submission(body, status)


def test_cancel_answers() -> None:
    taken = orders.cancel_answer(
        b'{"msg":"Request was submitted","order_id":912091175,"conid":-1,"account":null}'
    )
    assert (taken.error, taken.order_id) == (None, "912091175")
    assert orders.cancel_answer({"error": "OrderID 1 doesn't exist"}).error == "OrderID 1 doesn't exist"
    with pytest.raises(WireError):
        orders.cancel_answer([])


def test_live_order_row() -> None:
    answer = orders.live_orders(LIVE)
    assert answer.snapshot
    assert answer.orders == (
        OrderReport(
            order_id="245323648",
            account="DU1234567",
            conid=265598,
            side=Side.BUY,
            order_type="MKT",
            status=OrderStatus.FILLED,
            total_quantity=Decimal(1),
            filled_quantity=Decimal(1),
            remaining_quantity=Decimal(0),
            average_price=317.56,
            time_in_force="DAY",
            symbol="AAPL",
            time_ns=1788875890000 * 10**6,
        ),
    )


COMBO = "28812380;;;265598/1,8314/-2"
LEGS = (Leg(265598, 1), Leg(8314, -2))


def test_an_order_on_a_combo_is_known_by_its_legs() -> None:
    """All combos of a currency share the conid that rows show."""
    row = {
        "orderId": 7,
        "conid": 28812380,
        "conidex": COMBO,
        "side": "BUY",
        "price": "-1.25",
        "orderType": "Limit",
    }
    (report,) = orders.live_orders({"orders": [row]}).orders
    assert (report.conid, report.legs, report.limit_price) == (combo_key(LEGS), LEGS, -1.25)
    status = {"order_id": 7, "conid": 28812380, "conidex": "28812380@SMFE;;;265598/1,8314/-2", "side": "S"}
    found = orders.order_status(status)
    assert (found.conid, found.legs, found.exchange) == (combo_key(LEGS), LEGS, "SMFE")


def test_a_combo_that_cannot_be_read_is_not_taken_for_another() -> None:
    with pytest.raises(WireError, match="conidex"):
        orders.live_orders({"orders": [{"orderId": 7, "conid": 28812380, "conidex": "28812380;;;x"}]})


def test_a_routed_order_names_its_exchange() -> None:
    row = {"orderId": 7, "conid": 265598, "conidex": "265598@NASDAQ"}
    (report,) = orders.live_orders({"orders": [row]}).orders
    assert (report.conid, report.exchange, report.legs) == (265598, "NASDAQ", ())
    (plain,) = orders.live_orders({"orders": [row | {"conidex": "?"}]}).orders
    assert (plain.conid, plain.exchange) == (265598, None)


def test_executions_of_a_combo() -> None:
    """The whole one changes no position; its legs' do."""
    whole, leg = orders.trades(
        [
            TRADE | {"conid": 28812380, "conidEx": COMBO},
            TRADE | {"execution_id": "b", "conidEx": "265598@ARCA"},
        ]
    )
    assert (whole.conid, whole.legs) == (combo_key(LEGS), LEGS)
    assert (leg.conid, leg.legs) == (265598, ())


def test_a_liquidation_is_told() -> None:
    forced, plain = orders.trades(
        [TRADE | {"liquidation_trade": "1"}, TRADE | {"execution_id": "b", "liquidation_trade": "0"}]
    )
    assert forced.liquidation
    assert not plain.liquidation


def test_priming_answer() -> None:
    answer = orders.live_orders(b'{"orders":[],"snapshot":false}')
    assert not answer.orders
    assert not answer.snapshot


def test_order_status_size_is_what_remains() -> None:
    report = orders.order_status(STATUS)
    assert (report.total_quantity, report.filled_quantity) == (Decimal(1), Decimal(1))
    assert report.remaining_quantity == Decimal(0)
    assert (report.side, report.status, report.average_price) == (Side.BUY, OrderStatus.FILLED, 317.56)
    assert (report.order_type, report.limit_price, report.time_in_force) == ("MKT", None, "DAY")
    assert report.time_ns == 1788875890 * 10**9


def test_unknown_order_status_answer() -> None:
    with pytest.raises(WireError, match="is not found"):
        orders.order_status({"error": "Order 999999999999 is not found", "statusCode": 503})


def test_execution_row() -> None:
    assert orders.trades([TRADE]) == (EXECUTION,)
    later = msgspec.structs.replace(EXECUTION, commission=None)
    assert orders.trades([{k: v for k, v in TRADE.items() if k != "commission"}]) == (later,)
    words = {k: v for k, v in TRADE.items() if k != "trade_time_r"}
    assert orders.trades([words]) == (EXECUTION,)
    routed = {**TRADE, "conid": None, "conidEx": "265598@IBKRATS"}
    assert orders.trades([routed]) == (EXECUTION,)


@pytest.mark.parametrize(("word", "side"), [("S", "SELL"), ("SLD", "SELL"), ("BOT", "BUY"), ("BUY", "BUY")])
def test_execution_sides(word: str, side: str) -> None:
    assert orders.trades([{**TRADE, "side": word}])[0].side == side


@pytest.mark.parametrize(
    "change",
    [
        {"side": "N"},
        {"side": None},
        {"size": 0},
        {"size": -1},
        {"size": "many"},
        {"price": ""},
        {"account": None, "accountCode": None},
        {"execution_id": ""},
        {"conid": None, "conidEx": None},
        {"trade_time": None, "trade_time_r": None},
    ],
)
def test_an_execution_that_is_not_understood_stops_alone(change: dict[str, Any]) -> None:
    bad = {**TRADE, **change}
    with pytest.raises(WireError):
        orders.trades([bad])
    heard: list[WireError] = []
    assert orders.trades([bad, TRADE], refused=heard.append) == (EXECUTION,)
    assert len(heard) == 1


@pytest.mark.parametrize(
    "change", [{"status": "Dreaming"}, {"side": "EXER"}, {"side": 1}, {"filledQuantity": "x"}]
)
def test_an_order_that_is_not_understood_stops_alone(change: dict[str, Any]) -> None:
    bad = {"orderId": 2, "status": "Submitted", "side": "BUY", **change}
    body = {"orders": [bad, {"orderId": 3, "status": "Cancelled"}], "snapshot": True}
    with pytest.raises(WireError):
        orders.live_orders(body)
    heard: list[WireError] = []
    assert [o.order_id for o in orders.live_orders(body, refused=heard.append).orders] == ["3"]
    assert len(heard) == 1


def test_ccp_status_stands_in() -> None:
    assert ccp_status("Pending Submit") is OrderStatus.PENDING_SUBMIT
    assert ccp_status("2") is OrderStatus.FILLED
    assert ccp_status("7") is None
    report = orders.live_orders({"orders": [{"orderId": 1, "order_ccp_status": "Pre Submitted"}]}).orders[0]
    assert report.status is OrderStatus.PRE_SUBMITTED


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("Market", "MKT"),
        ("LIMIT", "LMT"),
        ("Stop Limit", "STOP_LIMIT"),
        ("STOP_LIMIT", "STOP_LIMIT"),
        ("Trailing Stop", "TRAIL"),
        ("TRAILLMT", "TRAILLMT"),
        ("Pegged to Moon", "Pegged to Moon"),
        (None, None),
    ],
)
def test_type_words(word: str | None, expected: str | None) -> None:
    assert type_word(word) == expected


def test_prices_of_reports_go_by_type() -> None:
    def report(row: dict[str, Any]) -> OrderReport:
        return orders.live_orders({"orders": [{"orderId": 1, **row}], "snapshot": True}).orders[0]

    stop = report({"orderType": "Stop", "price": "9.50"})
    assert (stop.limit_price, stop.stop_price) == (None, 9.5)
    both = report({"origOrderType": "STOP_LIMIT", "price": 9.0, "auxPrice": "9.50"})
    assert (both.limit_price, both.stop_price) == (9.0, 9.5)
    child = report({"parentId": 11, "ocaGroupId": "11", "order_ref": "me"})
    assert (child.parent_id, child.oca_group, child.order_ref) == ("11", "11", "me")
    assert report({"price": "9"}).limit_price is None


def test_whatif() -> None:
    preview = orders.whatif(
        {
            "amount": {"amount": "1,977.60 USD (10 Shares)", "commission": "1 USD", "total": "1,978.60 USD"},
            "equity": {"current": "215,415,594", "change": "-1", "after": "215,415,593"},
            "initial": {"current": "116,965", "change": "652", "after": "117,617"},
            "maintenance": {"current": "106,332", "change": "592", "after": "106,924"},
            "position": {"current": "0", "change": "10", "after": "10"},
            "warn": "21/No market data.",
            "error": None,
        }
    )
    assert (preview.amount, preview.commission, preview.total, preview.currency) == (
        1977.6,
        1.0,
        1978.6,
        "USD",
    )
    assert preview.initial_margin is not None
    assert (preview.initial_margin.change, preview.error) == (652.0, None)
    assert preview.warnings == ("21/No market data.",)
    poor = orders.whatif({"equity": None, "position": None, "warn": "23/x", "error": "Available converted"})
    assert (poor.equity, poor.error) == (None, "Available converted")
