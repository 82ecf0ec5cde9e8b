"""docs/orders.md: its tables are what the code does, made here by asking it. Run as a program it prints them."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import backtrader as bt
import pytest

from bt_ibkr.brokers.exec_types import ExecType
from bt_ibkr.brokers.tickets import ORDER_TYPES, Wishes, make_ticket
from bt_ibkr.brokers.validity import is_moment, time_in_force
from bt_ibkr.errors import OrderRefusedError
from bt_ibkr.model.contract import Contract, SecurityType
from bt_ibkr.model.order import CHANGEABLE, OrderType, TimeInForce
from bt_ibkr.model.order_words import MAY_STOP, PRODUCTS, TIMES
from bt_ibkr.services.questions import ACCEPTED, DECLINED, QuestionPolicy
from bt_ibkr.wire.conidex import SPREAD_CONIDS
from bt_ibkr.wire.order_request import order_request
from tests.brokers.test_tickets import order

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "orders.md"
AAPL = Contract(conid=265598, symbol="AAPL", security_type=SecurityType.STOCK)
EUR_USD = Contract(conid=12087792, symbol="EUR.USD", security_type=SecurityType.FOREX, exchange="IDEALPRO")
ES = Contract(conid=495512557, symbol="ES", security_type=SecurityType.FUTURE, exchange="CME", tick_size=0.25)
TRAIL: dict[str, Any] = {"trailamount": 2.0}
PERCENT: dict[str, Any] = {"trailpercent": 0.02}
#: What ``exectype`` is written like, and the arguments it takes, with values that can be told apart.
CASES: tuple[tuple[str, int, dict[str, Any]], ...] = (
    ("`Order.Market`, or none", bt.Order.Market, {}),
    ("`Order.Limit`", bt.Order.Limit, {"price": 101.0}),
    ("`Order.Stop`", bt.Order.Stop, {"price": 101.0}),
    ("`Order.StopLimit`", bt.Order.StopLimit, {"price": 101.0, "plimit": 102.0}),
    ("`Order.StopTrail`", bt.Order.StopTrail, TRAIL),
    ("`Order.StopTrail`", bt.Order.StopTrail, PERCENT),
    ("`Order.StopTrailLimit`", bt.Order.StopTrailLimit, {"price": 100.0, "plimit": 99.0} | TRAIL),
    ("`Order.StopTrailLimit`", bt.Order.StopTrailLimit, {"price": 100.0, "plimit": 99.0} | PERCENT),
    ("`Order.Close`, `ExecType.MOC`", ExecType.MOC, {}),
    ("`ExecType.LOC`", ExecType.LOC, {"price": 101.0}),
    ("`ExecType.MIDPRICE`", ExecType.MIDPRICE, {}),
    ("`ExecType.MIDPRICE`", ExecType.MIDPRICE, {"price": 101.0}),
    ("`ExecType.MIT`", ExecType.MIT, {"price": 101.0}),
    ("`ExecType.LIT`", ExecType.LIT, {"price": 101.0, "plimit": 102.0}),
    ("`ExecType.REL`", ExecType.REL, {"offset": 0.05}),
    ("`ExecType.REL`", ExecType.REL, {"price": 101.0, "offset": 0.05}),
)
#: Each keyword with a value, and on what it makes sense.
KEYWORDS: dict[str, tuple[Any, dict[str, Any], Contract]] = {
    "order_type": ("MIT", {"price": 101.0}, AAPL),
    "tif": ("IOC", {}, AAPL),
    "outside_rth": (True, {}, AAPL),
    "cash_qty": (500, {}, AAPL),
    "fx_qty": (500, {"currency_conversion": True}, EUR_USD),
    "currency_conversion": (True, {}, EUR_USD),
    "offset": (0.05, {"exectype": ExecType.REL}, AAPL),
    "algo": ("Vwap", {}, AAPL),
    "algo_params": ({"maxPctVol": 0.1}, {"algo": "Vwap"}, AAPL),
    "all_or_none": (True, {}, AAPL),
    "price_management": (True, {}, AAPL),
    "route": ("NASDAQ", {}, AAPL),
    "listing_exchange": ("NASDAQ", {}, AAPL),
    "allocation_group": ("all", {}, AAPL),
    "allocation_method": ("NetLiq", {"allocation_group": "all"}, AAPL),
    "manual_indicator": (True, {}, ES),
    "ext_operator": ("desk 7", {}, ES),
}
VALIDITIES: tuple[tuple[str, Any, str | None], ...] = (
    ("`None`", None, None),
    ("`Order.DAY`, `timedelta()`, `0`", bt.Order.DAY, None),
    ("a `datetime`", datetime(2026, 3, 9, 15, tzinfo=UTC), None),
    ("a `date`", date(2026, 3, 9), None),
    ("a `timedelta`", timedelta(hours=2), None),
    ("a number of days", 3, None),
    ('any of the last four, `tif="DAY"`', timedelta(hours=2), "DAY"),
    ('any of the last four, `tif="GTD"`', timedelta(hours=2), "GTD"),
)


def request(contract: Contract = AAPL, **given: Any) -> dict[str, object]:
    """What goes over the wire for ``buy()`` with these arguments."""
    own = {name: given.pop(name) for name in list(given) if name in Wishes.__struct_fields__}
    ticket = make_ticket(
        order(info=own, **given),
        account="DU1",
        contract=contract,
        client_order_id=None,
        parent=None,
        outside_regular_hours=False,
        round_prices=True,
    )
    return order_request(ticket)


def table(*head: str, rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(cells) + " |" for cells in (head, *rows)]
    lines.insert(1, "|" + "---|" * len(head))
    return "\n".join(lines)


def types_table() -> str:
    """Where each argument of ``buy()`` comes out."""
    rows = []
    for name, kind, given in CASES:
        body = request(exectype=kind, **given)
        sources: dict[object, str] = {value: f"`{argument}`" for argument, value in given.items()}
        if "trailamount" in given or "trailpercent" in given:
            sources |= {102.0: "initial stop", 101.0: "initial limit"}
        if "trailpercent" in given:
            sources[2.0] = "100 × `trailpercent`"
        told = []
        for field in ("price", "auxPrice", "trailingType", "trailingAmt"):
            if field in body:
                value = body[field]
                told.append(f"`{field}`: {sources.get(value, f'`{value}`')}")
        arguments = ", ".join(f"`{argument}`" for argument in given) or "none"
        rows.append([name, arguments, f"`{body['orderType']}`", "; ".join(told) or "none"])
    return table("`exectype`", "arguments", "`orderType`", "prices on the wire", rows=rows)


def times_table() -> str:
    """Which type takes which time in force, asked of the code for an instrument that may have it."""
    rows = []
    for kind in OrderType:
        cells = [f"`{kind.value}`"]
        for time in TimeInForce:
            cells.append("yes" if _taken(kind, time) else "")
        rows.append(cells)
    return table("type", *(f"`{time.value}`" for time in TimeInForce), rows=rows)


def _taken(kind: OrderType, time: TimeInForce) -> bool:
    coin = Contract(conid=1, symbol="BTC", security_type=SecurityType.CRYPTO)
    given: dict[str, Any] = {"order_type": kind.value, "tif": time.value}
    if kind in (OrderType.TRAIL, OrderType.TRAIL_LIMIT):
        given.pop("order_type")
        given |= {"exectype": next(k for k, v in ORDER_TYPES.items() if v is kind), "price": 100.0} | TRAIL
        given |= {"plimit": 99.0} if kind is OrderType.TRAIL_LIMIT else {}
    elif kind not in (OrderType.MARKET, OrderType.MARKET_ON_CLOSE):
        given["price"] = 101.0
        if kind in MAY_STOP and kind in (OrderType.STOP_LIMIT, OrderType.LIMIT_IF_TOUCHED):
            given["plimit"] = 102.0
    contract = coin if time is TimeInForce.PAXOS else AAPL
    try:
        return request(contract, sell=True, **given)["tif"] == time.value
    except OrderRefusedError as problem:
        if "time_in_force" not in str(problem) and "CRYPTO" not in str(problem):
            raise
        return False


def validity_table() -> str:
    rows = []
    for name, valid, tif in VALIDITIES:
        kept = "cancels it then" if is_moment(valid) else "does nothing"
        rows.append([name, f"`{time_in_force(valid, tif).value}`", kept])
    return table("`valid`", "`tif` on the wire", "the adapter", rows=rows)


def keywords_table() -> str:
    """What each keyword changes of the request."""
    rows = []
    for name, (value, more, contract) in KEYWORDS.items():
        without = {k: v for k, v in more.items() if k not in ("price",)} if name == "order_type" else more
        try:
            before = request(contract, **without)
        except OrderRefusedError:  # it needs the keyword, as allocation_method does its group
            before = {}
        after = request(contract, **more, **{name: value})
        changed = [field for field in after if before.get(field) != after[field]]
        gone = [field for field in before if field not in after]
        told = ", ".join(f"`{field}`" for field in changed)
        if gone:
            told = f"{told}{', instead of' if told else 'no'} {', '.join(f'`{field}`' for field in gone)}"
        rows.append([f"`{name}`", f"`{value!r}`", told])
    return table("keyword", "for example", "on the wire", rows=rows)


def questions_table() -> str:
    rows = [[f"`{one}`", title, "yes"] for one, title in ACCEPTED.items()]
    rows += [[f"`{one}`", title, "no"] for one, title in DECLINED.items()]
    return table("id", "IBKR asks about", "answer", rows=rows)


def spreads_table() -> str:
    return table(
        "currency", "spread conid", rows=[[name, str(conid)] for name, conid in SPREAD_CONIDS.items()]
    )


TABLES = (types_table, times_table, validity_table, keywords_table, questions_table, spreads_table)


@pytest.mark.parametrize("made", TABLES)
def test_the_tables_are_what_the_code_does(made: Any) -> None:
    assert made() in DOCUMENT.read_text(encoding="utf-8")


def test_every_type_time_and_keyword_is_told() -> None:
    named = {kind.order_type if isinstance(kind, ExecType) else ORDER_TYPES[kind] for _, kind, _ in CASES}
    assert named == set(OrderType) == set(TIMES)
    assert set(KEYWORDS) == set(Wishes.__struct_fields__)
    told = DOCUMENT.read_text(encoding="utf-8")
    for kind, products in PRODUCTS.items():
        names = ", ".join(sorted(one.value for one in products if one is not SecurityType.UNKNOWN))
        assert f"`{kind.value}`: {names}" in told
    assert ", ".join(f"`{name}`" for name in sorted(CHANGEABLE)) in " ".join(told.split())


def test_the_policys_defaults_are_told() -> None:
    told = DOCUMENT.read_text(encoding="utf-8")
    policy = QuestionPolicy()
    assert f"`ask_timeout_s` ({policy.ask_timeout_s:g} s)" in told
    assert f"`most_questions` ({policy.most_questions})" in told
    (example,) = re.findall(r"```toml\n(.*?)```", told, re.DOTALL)
    import tomllib

    from bt_ibkr.services.questions import policy_from

    table_of = tomllib.loads(example)["questions"]
    assert policy_from(table_of, source="docs/orders.md", callback=lambda _shown: False).decline


if __name__ == "__main__":
    for one in TABLES:
        print(one(), end="\n\n")
