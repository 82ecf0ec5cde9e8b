"""The state file: orders, executions, accounts and session survive the emulator's end, whatever ended it."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bt_ibkr.emulator.engine import Engine
from bt_ibkr.emulator.persistence import codec
from bt_ibkr.emulator.server import EmulatorServer
from bt_ibkr.emulator.settings import EmulatorSettings
from bt_ibkr.emulator.testing import EmulatorThread
from bt_ibkr.errors import UsageError
from bt_ibkr.model.order import OrderStatus, OrderType, Side
from tests.emulator_faults.conftest import AAPL, ACCOUNT, PLAIN

ORDERS = f"/iserver/account/{ACCOUNT}/orders"
SPY = 756733


class Client:
    """Asks one emulator, blocking."""

    def __init__(self, emulator: EmulatorThread) -> None:
        self.emulator = emulator

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        data = None if body is None and method == "GET" else json.dumps(body or {}).encode()
        request = urllib.request.Request(self.emulator.url + path, data, method=method)
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)

    def place(self, *orders: dict[str, Any]) -> Any:
        common = {
            "conid": AAPL,
            "orderType": "LMT",
            "side": "BUY",
            "quantity": 10,
            "tif": "GTC",
            "price": 50.0,
        }
        tickets = [
            {key: value for key, value in (common | one).items() if value is not None} for one in orders
        ]
        return self.ask("POST", ORDERS, {"orders": tickets})

    def prime(self) -> None:
        self.ask("GET", "/iserver/accounts")
        self.ask("GET", "/portfolio/accounts")
        self.ask("GET", "/iserver/account/orders")


def settings(path: Path, **changes: Any) -> EmulatorSettings:
    return EmulatorSettings(**(PLAIN | {"state_file": str(path)} | changes))


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    with EmulatorThread(settings(tmp_path / "state")) as emulator:
        emulator.do("step", max_events=40)
        made = Client(emulator)
        made.prime()
        yield made


def truth(emulator: EmulatorThread) -> dict[str, Any]:
    """All that must be the same before and after."""
    book = emulator.do("book", conid=AAPL)
    state = emulator.do("state")
    return {
        **emulator.ledger(),
        "book": book,
        "state": {name: state[name] for name in ("next_event_ns", "session", "seed", "started")},
        "bars": emulator.call(
            lambda s: [str(bar) for bar in s.core.engine.history(AAPL, 0, 2**62, 60_000_000_000)]
        ),
    }


@pytest.mark.parametrize("killed", [False, True])
def test_everything_is_as_it_was(client: Client, killed: bool) -> None:
    emulator = client.emulator
    client.place({"cOID": "s.e.1"})
    client.place({"cOID": "s.e.2", "orderType": "MKT", "quantity": 7})
    client.place(
        {"cOID": "s.e.3", "price": 400.0},
        {"parentId": "s.e.3", "side": "SELL", "price": 500.0},
        {"parentId": "s.e.3", "side": "SELL", "orderType": "STP", "price": 60.0},
    )
    client.place(
        {"cOID": "oca1", "isSingleGroup": True}, {"cOID": "oca2", "isSingleGroup": True, "price": 51.0}
    )
    emulator.do("manual_order", conid=SPY, side="SELL", quantity=3)
    emulator.do("step", max_events=30)
    order_id = client.place({"cOID": "gone"})[0]["order_id"]
    client.ask("DELETE", f"/iserver/account/{ACCOUNT}/order/{order_id}")
    before, url = truth(emulator), emulator.url
    session = client.ask("GET", "/tickle")["session"]
    emulator.restart(killed=killed)
    assert emulator.url == url
    assert truth(emulator) == before
    assert client.ask("GET", "/tickle")["session"] == session
    # Neither accounts nor orders must be primed again: the session is the same.
    assert len(client.ask("GET", "/iserver/account/orders")["orders"]) == 9
    assert "already registered" in client.place({"cOID": "s.e.1"})["error"]
    new = client.place({"cOID": "s.e.4"})[0]
    assert int(new["order_id"]) > max(order["order_id"] for order in before["orders"])


def test_it_goes_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    """The same market and the same orders, with and without restarts on the way: the same executions."""

    def run(path: Path, restarts: tuple[int, ...]) -> dict[str, Any]:
        with EmulatorThread(settings(path, seed=3)) as emulator:
            client = Client(emulator)
            emulator.do("step", max_events=20)
            client.prime()
            price = round(emulator.do("book", conid=AAPL)["quote"]["bid"], 2)
            for n in range(6):
                client.place({"cOID": f"s.e.{n}", "price": round(price - 0.05 * n, 2), "quantity": 3000})
            client.place(
                {
                    "cOID": "trail",
                    "side": "SELL",
                    "orderType": "TRAIL",
                    "trailingType": "amt",
                    "trailingAmt": 0.2,
                }
            )
            client.place({"cOID": "day", "tif": "DAY", "price": 1.0})
            for step in range(8):
                if step in restarts:
                    emulator.restart(killed=step % 2 == 0)
                emulator.do("step", max_events=400)
            evening_ns = emulator.do("state")["now_ns"] + 14 * 3600 * 10**9
            while emulator.do("step", until_ns=evening_ns)["now_ns"] < evening_ns:
                pass
            return {key: value for key, value in emulator.ledger().items() if key != "requests"}

    plain = run(tmp_path / "one", ())
    again = run(tmp_path / "two", (1, 2, 5, 7))
    assert plain == again
    assert len(plain["executions"]) > 3
    assert [one["status"] for one in plain["orders"] if one["client_order_id"] == "day"] == ["Cancelled"]


def test_a_question_waits_over_a_restart(client: Client) -> None:
    emulator = client.emulator
    emulator.fault("questions", chain=[[{"id": "o354", "text": "One"}], [{"text": "Two"}]])
    reply = client.place({"cOID": "asked"})[0]["id"]
    emulator.restart(killed=True)
    second = client.ask("POST", f"/iserver/reply/{reply}", {"confirmed": True})[0]
    assert second["message"] == ["Two"]
    assert (
        client.ask("POST", f"/iserver/reply/{second['id']}", {"confirmed": True})[0]["local_order_id"]
        == "asked"
    )
    requests = emulator.ledger()["requests"]
    assert [one["outcome"] for one in requests] == ["question", "question", "accepted"]
    assert emulator.ledger()["created"] == {"asked": 1}


def test_combos_algorithms_and_prompts_survive(tmp_path: Path) -> None:
    with EmulatorThread(settings(tmp_path / "state", questions="all")) as emulator:
        emulator.do("step", max_events=40)
        client = Client(emulator)
        client.prime()
        every = ["o163", "o354", "o383", "o451", "o10151", "o10152", "o10153"]
        client.ask("POST", "/iserver/questions/suppress", {"messageIds": every})
        combo = {
            "conid": None,
            "conidex": f"28812380;;;{AAPL}/1,{SPY}/-1",
            "quantity": 1,
            "useAdaptive": False,
        }
        algorithm = {
            "strategy": "Twap",
            "strategyParameters": {},
            "quantity": 700,
            "price": 900.0,
            "useAdaptive": False,
        }
        for name, order in (
            ("combo", combo | {"price": 500.0}),
            ("rests", combo | {"price": -999.0}),
            ("twap", algorithm),
        ):
            client.place(order | {"cOID": name})
        client.place({"cOID": "prompted", "price": 50.0})
        held = {one["client_order_id"]: one for one in emulator.ledger()["orders"]}
        assert held["combo"]["status"] == "Filled"
        before = truth(emulator)
        emulator.restart(killed=True)
        assert truth(emulator) == before
        order_id = held["prompted"]["order_id"]

        def waits(server: EmulatorServer) -> bool:
            working = server.core.engine.exchange.working(order_id)
            assert working is not None
            return working.held

        assert emulator.call(waits)
        emulator.call(lambda s: s.core.prompts.answer(s.core, order_id, "22170", "Do not use"))
        assert not emulator.call(waits)
        for _ in range(60):
            emulator.do("step", until_ns=emulator.do("state")["now_ns"] + 3600 * 10**9)
        filled = {one["client_order_id"]: one["filled"] for one in emulator.ledger()["orders"]}
        assert filled["twap"] == "700"
        assert int(held["twap"]["filled"]) < 700


def test_what_was_changed_by_hand_survives(client: Client) -> None:
    emulator = client.emulator
    client.place({"cOID": "a", "orderType": "MKT"})
    client.place({"cOID": "b"})
    emulator.do("halt", conid=SPY)
    first = emulator.ledger()["executions"][0]["execution_id"]
    emulator.do("correct", execution_id=first, price=100.0)
    order_id = emulator.ledger()["orders"][1]["order_id"]
    emulator.fault("new_order_id")
    body = {"conid": AAPL, "orderType": "LMT", "side": "BUY", "quantity": 5, "price": 52.0, "tif": "GTC"}
    new_id = client.ask("POST", f"/iserver/account/{ACCOUNT}/order/{order_id}", body)[0]["order_id"]
    emulator.do("split", conid=AAPL, numerator=2)
    emulator.do("rename", conid=AAPL, symbol="PEAR", new_conid=900_001)
    emulator.do("step", max_events=30)
    before, quote = emulator.ledger(), emulator.do("book", conid=900_001)
    for killed in (True, False, True):
        emulator.restart(killed=killed)
        assert emulator.ledger() == before
        assert emulator.do("book", conid=900_001) == quote
        assert emulator.do("book", conid=SPY)["quote"]["halted"] is True
    assert [order["order_id"] for order in before["orders"]][1] == int(new_id)
    emulator.do("step", max_events=30)
    moved = emulator.do("book", conid=900_001)["quote"]
    assert moved["version"] > quote["quote"]["version"]
    assert 100 < moved["bid"] < 130
    emulator.do("reset", seed=9)
    emulator.restart(killed=True)
    assert emulator.ledger()["orders"] == []
    assert emulator.do("state")["seed"] == 9


def test_without_a_file_a_restart_begins_anew() -> None:
    with EmulatorThread(EmulatorSettings(**PLAIN)) as emulator:
        emulator.do("step", max_events=40)
        client = Client(emulator)
        client.prime()
        client.place({"cOID": "a"})
        url = emulator.url
        emulator.restart()
        assert emulator.url == url
        assert emulator.ledger()["orders"] == []


@contextmanager
def process(path: Path, **changes: Any) -> Iterator[tuple[subprocess.Popen[bytes], dict[str, Any]]]:
    """``python -m bt_ibkr.emulator --state FILE``, killed at the end."""
    command = [sys.executable, "-m", "bt_ibkr.emulator", "--state", str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        try:
            assert child.stdin is not None
            assert child.stdout is not None
            child.stdin.write(json.dumps(PLAIN | {"history_days": 0} | changes).encode() + b"\n")
            child.stdin.flush()
            yield child, json.loads(child.stdout.readline())
        finally:
            child.kill()


def control(line: dict[str, Any], name: str, **body: Any) -> Any:
    data = json.dumps(body).encode() if body else None
    with urllib.request.urlopen(f"{line['control']}/{name}", data, timeout=10) as answer:
        return json.load(answer)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_process_is_killed_and_started_again(tmp_path: Path, number: signal.Signals) -> None:
    path = tmp_path / "state"
    with process(path) as (child, line):
        control(line, "tick", conid=AAPL, bid=99.0, bid_size=50, ask=100.0, ask_size=50)
        made = control(line, "manual_order", conid=AAPL, side="BUY", quantity=3)
        control(line, "manual_order", conid=AAPL, side="BUY", quantity=3, order_type="LMT", price=50.0)
        before = control(line, "ledger")
        status, answer = refused(path)
        assert status != 0
        assert "in use by another emulator" in answer["error"]
        os.kill(child.pid, number)
        child.wait(10)
    with process(path) as (_, line):
        assert control(line, "ledger") == before
        assert control(line, "fill", order_id=made["order_id"] + 1)["status"] == "Filled"


def refused(path: Path, **changes: Any) -> tuple[int, dict[str, Any]]:
    with process(path, **changes) as (child, line):
        return child.wait(10), line


def test_a_file_of_other_settings_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state"
    with EmulatorThread(settings(path)):
        pass
    with (
        pytest.raises(UsageError, match="written with accounts"),
        EmulatorThread(settings(path, accounts=("DU1",))),
    ):
        pass
    with EmulatorThread(settings(path)):
        pass


@pytest.mark.parametrize("damage", ["nonsense", "version", "row", "folder"])
def test_a_file_that_cannot_be_used_is_refused(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "state"
    if damage == "folder":
        path.mkdir()
    elif damage == "nonsense":
        path.write_bytes(b"This is no database." * 100)
    else:
        with EmulatorThread(settings(path)) as emulator:
            emulator.do("tick", conid=AAPL, bid=99.0, ask=100.0)
            emulator.do("manual_order", conid=AAPL, side="BUY", quantity=3)
        with closing(sqlite3.connect(path)) as connection:
            if damage == "version":
                connection.execute("UPDATE meta SET value = '99' WHERE name = 'version'")
            else:
                text = {"order": {"spec": {"#": "struct", "type": "os:environ", "value": {}}}}
                connection.execute("UPDATE orders SET value = ?", (msgspec.json.encode(text),))
            connection.commit()
    with pytest.raises(UsageError, match="State file"), EmulatorThread(settings(path)):
        pass


@pytest.mark.parametrize(
    "value",
    [
        None,
        1.5,
        "text",
        Decimal("0.10"),
        (Decimal(3), [1, {"a": (2,)}]),
        {("a", 1): Decimal("1E+3"), "b": {"x"}},
        frozenset({"a"}),
        OrderStatus.FILLED,
        {OrderType.TRAIL: Side.SELL},
    ],
)
def test_values_are_made_again_as_they_were(value: object) -> None:
    again = codec.made(msgspec.json.decode(msgspec.json.encode(codec.plain(value))))
    assert again == value
    assert type(again) is type(value)


@pytest.mark.parametrize(
    "text",
    [
        {"#": "struct", "type": "subprocess:Popen", "value": {}},
        {"#": "struct", "type": "bt_ibkr.emulator.engine:Engine", "value": {}},
        {"#": "enum", "type": "bt_ibkr.model.order:Nothing", "value": 1},
        {"#": "decimal", "value": "x"},
        {"#": "else"},
        {"value": 1},
    ],
)
def test_what_was_never_written_is_not_made(text: object) -> None:
    with pytest.raises(codec.CodecError):
        codec.made(text)
    with pytest.raises(codec.CodecError):
        codec.plain(Engine)
