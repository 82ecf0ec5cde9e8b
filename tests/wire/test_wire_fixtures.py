"""Every recorded answer and frame goes through its parser."""

from __future__ import annotations

import json as standard_json
import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from bt_ibkr.clock import NS_PER_S
from bt_ibkr.errors import WireError
from bt_ibkr.model import OrderStatus
from bt_ibkr.wire import contract_rules, contracts, frames, history, json, orders, portfolio, scanner, session
from bt_ibkr.wire import stream_events as events

MINUTE = 60 * NS_PER_S
Parser = Callable[[object], object]

#: By method and path; the first match counts.
REST: tuple[tuple[str, Parser], ...] = (
    (r"(GET|POST) /iserver/auth/(status|ssodh/init)", session.auth_status),
    (r"POST /tickle", session.tickle),
    (r"GET /iserver/accounts", session.brokerage_accounts),
    (r"GET /portfolio/(accounts|subaccounts2?)", session.portfolio_accounts),
    (r"GET /portfolio/\w+/meta", session.portfolio_account),
    (r"GET /trsrv/stocks", contracts.stocks),
    (r"GET /trsrv/secdef", contracts.secdef),
    (r"(GET|POST) /iserver/secdef/search", contracts.search),
    (r"GET /iserver/secdef/strikes", contracts.strikes),
    (r"GET /iserver/contract/\d+/info(-and-rules)?", contracts.contract_info),
    (r"POST /iserver/contract/rules", contract_rules.contract_rules),
    (r"GET /iserver/currency/pairs", contracts.currency_pairs),
    (r"GET /iserver/marketdata/history", lambda body: history.history(body, MINUTE)),
    (r"GET /iserver/scanner/params", scanner.parameters),
    (r"POST /iserver/scanner/run", scanner.rows),
    (r"POST /iserver/account/\w+/orders/whatif", orders.whatif),
    (r"POST /iserver/account/\w+/orders?(/\d+)?", orders.submission),
    (r"POST /iserver/reply/[\w-]+", orders.submission),
    (r"DELETE /iserver/account/\w+/order/\d+", orders.cancel_answer),
    (r"GET /iserver/account/orders", orders.live_orders),
    (r"GET /iserver/account/order/status/\d+", orders.order_status),
    (r"GET /iserver/account/trades", orders.trades),
    (r"GET /portfolio/\w+/ledger", portfolio.ledger),
    (r"GET /portfolio/\w+/summary", portfolio.summary),
    (r"GET /portfolio/(\w+/position|positions)/\d+", portfolio.positions),
    (r"GET /portfolio/\w+/positions/\d+", portfolio.positions),
    (r"GET /portfolio/\w+/combo/positions", portfolio.positions),
    (r"GET /portfolio2/\w+/positions", lambda body: portfolio.positions2(body, "U1234567")),
)
STREAM: dict[str, Callable[[object], object]] = {
    "sor": events.order_reports,
    "str": events.executions,
    "spl": events.account_pnl,
    "ntf": events.notices,
    "blt": events.bulletins,
    "sts": events.status_patch,
    "act": events.accounts,
}
#: Not a recording: it lacks account and time, without which no execution is booked.
UNUSABLE = "Orders/GET-trades.json"
#: Bodies that hold an empty answer.
EMPTY_BODIES = {"Fyi/DELETE-device.json"}


def _parser(line: dict[str, Any]) -> Parser | None:
    request = f"{line['method']} {line['path'].removeprefix('/v1/api')}"
    return next((parse for pattern, parse in REST if re.fullmatch(pattern, request)), None)


def test_every_recorded_answer_is_read(rest_fixtures: list[dict[str, Any]]) -> None:
    assert len(rest_fixtures) > 80
    read = 0
    for line in rest_fixtures:
        body = json.decode(standard_json.dumps(line["body"]))
        parse = _parser(line)
        assert json.error_text(body) is None, line["fixture"]
        if parse is None or line["fixture"] in EMPTY_BODIES:
            continue
        if line["fixture"] == UNUSABLE:
            with pytest.raises(WireError, match="account"):
                parse(body)
            continue
        assert parse(body) is not None, line["fixture"]
        read += 1
    assert read >= 34


def _body(lines: list[dict[str, Any]], name: str) -> Any:
    return next(line["body"] for line in lines if line["fixture"].startswith(name))


def test_recorded_values(rest_fixtures: list[dict[str, Any]]) -> None:
    positions = portfolio.positions(_body(rest_fixtures, "Portfolio/GET-portfolio-positions-page0"))
    assert [(p.conid, p.quantity, p.average_price) for p in positions] == [
        (320227571, Decimal(3), 584.31333335)
    ]
    held = portfolio.positions(_body(rest_fixtures, "Portfolio/GET-portfolio-positions-by-conid"))
    assert (held[0].account, held[0].symbol, held[0].quantity) == ("U1234567", "SPY", Decimal(44))
    newer = portfolio.positions2(_body(rest_fixtures, "Portfolio/GET-portfolio2-positions"), "U1234567")
    assert [p.conid for p in newer] == [320227571, 756733]
    bars = history.history(_body(rest_fixtures, "MarketData/GET-history"), MINUTE).bars
    assert (bars[0].start_ns, bars[0].volume) == (1775136600 * NS_PER_S, 688765.0)
    accounts = session.brokerage_accounts(_body(rest_fixtures, "Accounts/GET-iserver-accounts"))
    assert accounts.accounts[0].supports_fractions
    info = contracts.contract_info(_body(rest_fixtures, "Contracts/GET-contract-info-and-rules"))
    assert (info.conid, info.tick_size, info.size_increment) == (265598, 0.01, 1.0)
    live = orders.live_orders(_body(rest_fixtures, "jerbersoft/ibkrdotnet get-open-orders")).orders
    assert (live[0].status, live[0].average_price) == (OrderStatus.FILLED, 317.56)


def test_every_recorded_frame_is_read(ws_frames: list[dict[str, Any]]) -> None:
    read = set()
    for line in ws_frames:
        if line["dir"] != "s2c":
            continue
        frame = frames.decode(standard_json.dumps(line["frame"]))
        topic = (frame.topic or "").partition("+")[0]
        if topic in STREAM:
            assert STREAM[topic](frame.args) is not None, line
            read.add(topic)
        elif bytes(frame.result):
            assert not events.ledger_lines(frame.result)
            assert not events.summary_lines(frame.result)
            read.add("result")
    assert read >= {"sor", "str", "spl", "ntf", "blt", "sts", "act"}


def test_snapshot_rows_are_frames(rest_fixtures: list[dict[str, Any]]) -> None:
    (row,) = _body(rest_fixtures, "MarketData/GET-snapshot")
    frame = frames.decode(standard_json.dumps(row))
    assert (frame.last, frame.bid, frame.ask, frame.ask_size, frame.bid_size) == (
        655.89,
        655.88,
        655.9,
        100,
        200,
    )
    live = (
        b'{"31":"168.42","6119":"q1","6509":"RpB","7059":"100","84":"168.41","85":"600","86":"168.42",'
        b'"88":"1,300","_updated":1712596911593,"conid":265598,"conidEx":"265598","server_id":"q1"}'
    )
    frame = frames.decode(live)
    assert (frame.bid_size, frame.ask_size, frame.last_size, frame.availability) == (
        1300.0,
        600.0,
        100.0,
        "RpB",
    )
    dead = frames.decode(b'{"55":"-","conidEx":"104747","conid":104747,"6119":"q2","31":"N/A"}')
    assert dead.last is None
