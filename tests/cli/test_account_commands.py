"""The commands that look at an account or act on it, typed after a run that left a position and an open order."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from bt_ibkr.clock import SystemClock
from bt_ibkr.emulator.settings import EmulatorSettings
from bt_ibkr.emulator.testing import EmulatorThread
from bt_ibkr.emulator.types import OrderSpec
from bt_ibkr.journal import Journal, journal_path
from bt_ibkr.model.intent import OrderIntent, OrderState, make_key
from bt_ibkr.model.order import OrderTicket, OrderType, Side, TimeInForce
from bt_ibkr.model.trading import Trading

AAPL = 265598
ACCOUNT = "DU1111111"
LEAVES = (
    "import backtrader as bt\n"
    "class Leaves(bt.Strategy):\n"
    "    made = False\n"
    "    def next(self):\n"
    "        if self.made or not self.data.current: return\n"
    "        self.made = True\n"
    "        self.buy(size=10)\n"
    "        self.rest = self.sell(size=10, exectype=bt.Order.Limit, price=round(self.data.close[0] * 1.1, 2))\n"
    "    def notify_order(self, order):\n"
    "        if order.status == order.Accepted and order.exectype == bt.Order.Limit: self.env.runstop()\n"
)


class Left:
    """An emulator, and what a run has left there.

    Attributes:
        run: How the run ended, as JSON.
        buy, rest: Keys of its orders.
    """

    def __init__(self, emulator: EmulatorThread, here: Any) -> None:
        self.emulator = emulator
        self.here = here
        self.run: dict[str, Any] = {}
        self.buy = self.rest = ""

    def __call__(self, *words: str) -> Any:
        """A command on this gateway."""
        return self.here(*words, "--gateway", self.emulator.url)

    def json(self, *words: str, code: int = 0) -> Any:
        """The same with ``--json``, taken apart."""
        ended = self(*words, "--json")
        assert ended.code == code, ended.err + ended.out
        return json.loads(ended.out)

    def ledger(self) -> Any:
        return self.emulator.call(lambda server: server.core.engine.ledger())

    def size(self, account: str = ACCOUNT) -> float:
        held = self.ledger()["accounts"][account]["positions"]
        return float(held.get(AAPL, held.get(str(AAPL), {"quantity": 0}))["quantity"])

    def open(self) -> list[Any]:
        return [
            one for one in self.ledger()["orders"] if one["status"] not in ("Filled", "Cancelled", "Failed")
        ]

    def elsewhere(self, price: float = 1.0) -> str:
        """An order of another program, far from the market; its id."""
        spec = OrderSpec(
            account=ACCOUNT,
            conid=AAPL,
            side=Side.BUY,
            order_type=OrderType.LIMIT,
            quantity=Decimal(3),
            limit_price=price,
            time_in_force=TimeInForce.GOOD_TILL_CANCELLED,
        )
        placed = self.emulator.call(lambda server: server.core.engine.place([spec]))
        assert placed[0].order is not None
        return str(placed[0].order.order_id)


@pytest.fixture
def emulate() -> Iterator[Callable[..., EmulatorThread]]:
    with ExitStack() as stack:

        def start(*accounts: str, **settings: Any) -> EmulatorThread:
            plain: dict[str, Any] = {
                "accounts": accounts,
                "speed": "lockstep",
                "pacing": "off",
                # IBKR's five seconds between two looks at the orders take a quarter of one here.
                "pacing_speed": 20.0,
                "conflation_ms": 0,
                "synthetic_instruments": ("AAPL",),
            }
            return stack.enter_context(EmulatorThread(EmulatorSettings(**(plain | settings))))

        yield start


@pytest.fixture
def left(emulate: Any, here: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Left:
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    (tmp_path / "leaves.py").write_text(LEAVES)
    made = Left(emulate(ACCOUNT), here)
    words = ("--mode", "paper", "--data", "AAPL", "--bar", "5s", "--name", "leaves")
    made.run = made.json("run", "leaves.py", *words)
    assert made.run["errors"] == []
    made.buy, made.rest = (one["coid"] for one in made.run["orders"])
    assert made.size() == 10
    assert len(made.open()) == 1
    return made


def journal() -> Journal:
    return Journal.open(journal_path(ACCOUNT), clock=SystemClock(), exclusive=False)


def test_a_run_tells_what_it_leaves(left: Left) -> None:
    books = left.run["books"]
    assert books["trading"] == "active"
    assert books["open"] == [left.rest]
    assert books["unknown"] == books["differences"] == []
    assert left.buy.startswith("leaves.")


def test_looking(left: Left) -> None:
    other = left.elsewhere()
    orders = left.json("orders")
    assert orders["account"] == ACCOUNT
    ours, theirs = orders["orders"]
    assert (ours["key"], ours["strategy"], ours["state"], ours["external"]) == (
        left.rest, "leaves", "working", False,
    )  # fmt: skip
    assert (theirs["order_id"], theirs["key"], theirs["external"]) == (other, None, True)
    everything = left.json("orders", "--all")["orders"]
    assert left.buy in {one["key"] for one in everything}
    (position,) = left.json("positions")["positions"]
    assert (position["conid"], position["symbol"], position["size"]) == (AAPL, "AAPL", 10.0)
    (trade,) = left.json("trades")["trades"]
    assert (trade["key"], trade["side"], trade["size"]) == (left.buy, "BUY", 10.0)
    for command, words in (
        ("orders", (left.rest, "(other program)", "SELL")),
        ("positions", ("AAPL", "10")),
        ("trades", (left.buy, trade["execution_id"])),
    ):
        ended = left(command)
        assert ended.code == 0
        for word in words:
            assert word in ended.out, ended.out


def test_looking_where_there_is_nothing(emulate: Any, here: Any) -> None:
    made = Left(emulate(ACCOUNT), here)
    assert made.json("orders") == {"account": ACCOUNT, "orders": []}
    assert made("positions").out == f"{ACCOUNT} is flat\n"
    assert "no executions" in made("trades", "--days", "3").out
    assert not journal_path(ACCOUNT).exists(), "looking makes no journal"


def test_an_account_of_real_money_may_be_looked_at(emulate: Any, here: Any) -> None:
    made = Left(emulate("U1111111"), here)
    assert made.json("positions")["account"] == "U1111111"
    assert made("positions", "--mode", "live").code == 0
    refused = made("positions", "--mode", "paper")
    assert refused.code == 2
    assert "is a live account" in refused.err
    refused = made("positions", "--account", "U9999999")
    assert refused.code == 2
    assert "not one of this login's" in refused.err


def test_the_selected_account_stays_selected(emulate: Any, here: Any) -> None:
    """Lists are those of the selected account, and a strategy that shares the session relies on it."""
    import urllib.request

    made = Left(emulate("U1111111", "U2222222"), here)

    def selected() -> str:
        with urllib.request.urlopen(f"{made.emulator.url}/iserver/accounts") as answer:
            return str(json.load(answer)["selectedAccount"])

    assert selected() == "U1111111"
    assert made.json("orders", "--account", "U2222222")["account"] == "U2222222"
    assert selected() == "U1111111"
    asked = [one["path"] for one in made.emulator.do("requests")["requests"] if one["method"] == "POST"]
    assert sum(path.endswith("/iserver/account") for path in asked) == 2


def test_what_if(left: Left) -> None:
    told = left.json("whatif", "BUY", "100", "AAPL", "LMT", "1.5")
    assert told["account"] == ACCOUNT
    assert told["order"].startswith("BUY 100 AAPL")
    assert told["commission"]
    assert told["initial_margin"]["change"] is not None
    ended = left("whatif", "buy", "100", "AAPL")
    assert ended.code == 0
    assert "initial margin" in ended.out
    assert len(left.open()) == 1, "nothing was placed"
    refused = left.json("whatif", "BUY", "1000000", "AAPL", code=9)
    assert refused["error"]
    assert refused["errors"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("HOLD", "1", "AAPL"), "'HOLD' is no side"),
        (("BUY", "none", "AAPL"), "'none' is no size"),
        (("BUY", "1", "AAPL", "SOON"), "'SOON' is no order type"),
        (("BUY", "1", "AAPL", "MKT", "--tif", "FOREVER"), "'FOREVER' is no time in force"),
    ],
)
def test_what_if_of_words_that_are_none(here: Any, words: tuple[str, ...], says: str) -> None:
    ended = here("whatif", *words, "--gateway", "http://127.0.0.1:9/v1/api")
    assert ended.code == 2
    assert says in ended.err
    assert "remedy:" in ended.err


@pytest.mark.parametrize("how", ["key", "id", "strategy", "all"])
def test_cancel(left: Left, how: str) -> None:
    other = left.elsewhere()
    order_id = left.json("orders")["orders"][0]["order_id"]
    words = {"key": (left.rest,), "id": (order_id,), "strategy": ("--strategy", "leaves"), "all": ("--all",)}
    told = left.json("cancel", *words[how])
    assert [(one["key"], one["result"]) for one in told["orders"]] == [(left.rest, "cancelled")]
    assert told["exit_code"] == 0
    assert [str(one["order_id"]) for one in left.open()] == [other], "that of another program stands"
    with_log = journal()
    assert [one.text for one in with_log.events(key=left.rest) if one.kind == "cancel-asked"] == [
        "command line"
    ]
    assert with_log.trading_state().mode is Trading.ACTIVE
    with_log.close()


def test_cancel_of_another_program(left: Left) -> None:
    other = left.elsewhere()
    told = left.json("cancel", other)
    assert [(one["key"], one["order_id"]) for one in told["orders"]] == [(None, other)]
    left.elsewhere()
    assert len(left.json("cancel", "--all", "--external")["orders"]) == 2
    assert left.open() == []


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "was not said"),
        (("1", "--all"), "said twice"),
        (("leaves.aaaaa.7",), "is not among the open orders"),
        (("--strategy", "x", "--external"), "goes with --all"),
        (("--all", "--mode", "live"), "no account was named"),
        (("--all", "--mode", "sim"), "'sim' is no mode"),
    ],
)
def test_cancel_refused(left: Left, words: tuple[str, ...], says: str) -> None:
    ended = left("cancel", *words)
    assert ended.code == 2
    assert says in ended.err, ended.err
    assert len(left.open()) == 1


def test_real_money_is_confirmed(emulate: Any, here: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    made = Left(emulate("U1111111"), here)
    for command in ("cancel", "flatten"):
        what = ("--all",) if command == "cancel" else ()
        refused = made(command, *what)
        assert refused.code == 2
        assert "Mode paper was asked for" in refused.err
        refused = made(command, *what, "--mode", "live", "--account", "U1111111")
        assert "nobody confirmed it" in refused.err
        assert made(command, *what, "--mode", "live", "--yes-live", "U1111111").code == 0


def test_flatten(left: Left) -> None:
    told = left.json("flatten", "--reason", "going home")
    assert told["exit_code"] == 0, told
    assert left.size() == 0
    assert left.open() == []
    (closed,) = told["closed"]
    assert (closed["side"], closed["quantity"], closed["filled"], closed["state"]) == (
        "SELL", 10.0, 10.0, "filled",
    )  # fmt: skip
    assert closed["key"].startswith("flatten.")
    assert told["left"] == []
    assert [one["key"] for one in told["cancelled"]] == [left.rest]
    kept = journal()
    order = kept.order(closed["key"])
    assert order is not None
    assert (order.state, order.filled) == (OrderState.FILLED, Decimal(10))
    state = kept.trading_state()
    assert (state.mode, state.reason, state.by) == (Trading.HALTED, "going home", "command line")
    kept.close()
    # Once flat there is nothing to close, and nothing is sent.
    before = len(left.ledger()["orders"])
    assert left.json("flatten")["closed"] == []
    assert len(left.ledger()["orders"]) == before
    # The next run meets neither a difference nor an order that it does not understand, and lets no order leave.
    words = ("--mode", "paper", "--data", "AAPL", "--bar", "5s", "--to", "2026-03-02T14:40")
    again = left.json("run", "leaves.py", *words)
    assert again["books"]["differences"] == []
    assert (again["books"]["trading"], again["books"]["open"]) == ("halted", [])
    statuses = {one["coid"]: one["status"] for one in again["orders"]}
    assert statuses.pop(left.rest) == "Canceled"
    assert set(statuses.values()) == {"Rejected"}
    assert len(left.ledger()["orders"]) == before


def test_flatten_beside_another_one(left: Left) -> None:
    kept = journal()
    key = make_key("flatten", kept.epoch, 1)
    ticket = OrderTicket(
        account=ACCOUNT,
        contract_id=AAPL,
        side=Side.SELL,
        order_type=OrderType.MARKET,
        quantity=Decimal(10),
        time_in_force=TimeInForce.DAY,
        client_order_id=key,
        protective=True,
    )
    kept.intend([OrderIntent(key=key, strategy="flatten", ticket=ticket)])
    kept.close()
    refused = left("flatten", "--wait", "0.5")
    assert refused.code == 9
    assert key in refused.err
    assert left.size() == 10, "a position is never closed twice"


def test_halt_and_resume(left: Left) -> None:
    told = left.json("halt", "--reason", "news")
    assert [one["account"] for one in told["journals"]] == [ACCOUNT]
    assert told["journals"][0]["trading"]["mode"] == "halted"
    assert [(one["key"], one["result"]) for one in told["cancelled"]] == [(left.rest, "cancelled")]
    assert left.open() == []
    assert left.size() == 10
    told = json.loads(left.here("resume", "--json").out)
    assert (told["was"]["mode"], told["trading"]["mode"]) == ("halted", "active")
    told = json.loads(left.here("halt", "--reducing", "--json").out)
    assert told["journals"][0]["trading"]["mode"] == "reducing"
    assert "active" in left.here("resume", "--account", ACCOUNT).out


def test_halt_holds_although_nobody_answers(left: Left) -> None:
    ended = left.here("halt", "--gateway", "http://127.0.0.1:9/v1/api")
    assert ended.code == 6
    assert ended.out.startswith("halted")
    assert "open orders were not cancelled" in ended.err
    kept = journal()
    assert kept.trading_state().mode is Trading.HALTED
    kept.close()


def test_halt_needs_neither_mode_nor_confirmation(emulate: Any, here: Any) -> None:
    made = Left(emulate("U1111111", "U2222222"), here)
    told = made.json("halt", "--account", "U2222222")
    assert [one["account"] for one in told["journals"]] == ["U2222222"]
    told = made.json("halt")
    assert [one["account"] for one in told["journals"]] == ["U2222222"], "every account that has a journal"


def test_halt_without_any_journal(emulate: Any, here: Any) -> None:
    made = Left(emulate(ACCOUNT), here)
    assert made.here("halt", "--keep-orders").code == 2
    told = made.json("halt")
    assert [one["account"] for one in told["journals"]] == [ACCOUNT]
    kept = journal()
    assert kept.trading_state().mode is Trading.HALTED
    kept.close()


def test_journal(left: Left) -> None:
    told = json.loads(left.here("journal", "--json").out)
    assert [one["key"] for one in told["orders"]] == [left.buy, left.rest]
    assert [one["key"] for one in told["executions"]] == [left.buy]
    assert told["trading"]["mode"] == "active"
    assert {"intended", "state", "execution"} <= {one["kind"] for one in told["events"]}
    told = json.loads(left.here("journal", "--open", "--json").out)
    assert ([one["key"] for one in told["orders"]], told["executions"]) == ([left.rest], [])
    assert json.loads(left.here("journal", "--strategy", "nobody", "--json").out)["orders"] == []
    assert json.loads(left.here("journal", "--since", "2099-01-01", "--json").out)["orders"] == []
    assert json.loads(left.here("journal", "--limit", "1", "--json").out)["orders"][0]["key"] == left.rest
    one = left.here("journal", left.rest)
    assert one.code == 0
    assert left.rest in one.out
    assert left.buy not in one.out
    unknown = left.here("journal", "leaves.aaaaa.9")
    assert unknown.code == 2
    assert "no order 'leaves.aaaaa.9'" in unknown.err


def test_journal_verify(left: Left) -> None:
    told = json.loads(left.here("journal", "verify", "--json").out)
    assert (told["orders"], told["executions"], told["problems"]) == (2, 1, [])
    assert left.here("journal", "verify").out.startswith("whole")
    import sqlite3

    with sqlite3.connect(journal_path(ACCOUNT)) as connection:
        connection.execute("UPDATE orders SET state = 'filled', open = 0 WHERE key = ?", (left.rest,))
    connection.close()
    ended = left.here("journal", "verify")
    assert ended.code == 11
    assert f"{left.rest} is filled in its table, and working by the log" in ended.err


def test_journal_resolve(left: Left) -> None:
    kept = journal()
    key = make_key("leaves", kept.epoch, 3)
    ticket = OrderTicket(
        account=ACCOUNT,
        contract_id=AAPL,
        side=Side.BUY,
        order_type=OrderType.MARKET,
        quantity=Decimal(1),
        client_order_id=key,
    )
    kept.intend([OrderIntent(key=key, strategy="leaves", ticket=ticket)])
    kept.close()
    for words, says in (
        ((key, "--as", "absent"), "was not confirmed"),
        ((key, "--as", "absent", "--yes", left.rest), "was not confirmed"),
        ((key,), "resolve wants one order"),
        ((key, "--as", "gone"), "'gone' is nothing"),
        ((key, "--as", "working", "--yes", key), "working is nothing"),
        ((left.buy, "--as", "absent", "--yes", left.buy), "has ended"),
        (("leaves.aaaaa.9", "--as", "absent", "--yes", "leaves.aaaaa.9"), "no order"),
    ):
        refused = left.here("journal", "resolve", *words)
        assert refused.code == 2, words
        assert says in refused.err, refused.err
    told = json.loads(left.here("journal", "resolve", key, "--as", "absent", "--yes", key, "--json").out)
    assert told == {"key": key, "was": "intended", "state": "absent"}
    kept = journal()
    order = kept.order(key)
    assert order is not None
    assert (order.state, order.text) == (OrderState.ABSENT, "resolved as absent by command line")
    kept.close()


def test_journal_resolve_on_a_terminal(left: Left, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdin", Terminal(left.rest + "\n"))
    ended = left.here("journal", "resolve", left.rest, "--as", "expired")
    assert ended.code == 0, ended.err
    assert "Type its key" in ended.err
    assert f"{left.rest} is expired now" in ended.out


def test_journal_resolve_while_its_owner_runs(left: Left) -> None:
    owner = Journal.open(journal_path(ACCOUNT), clock=SystemClock())
    refused = left.here("journal", "resolve", left.rest, "--as", "cancelled", "--yes", left.rest)
    owner.close()
    assert refused.code == 11
    assert f"process {os.getpid()}" in refused.err


def test_which_journal(here: Any, tmp_path: Path) -> None:
    nothing = here("journal")
    assert nothing.code == 2
    assert "--account" in nothing.err
    for account in ("U1111111", "U2222222"):
        Journal.open(journal_path(account), clock=SystemClock()).close()
    for command in ("journal", "resume"):
        several = here(command)
        assert several.code == 2
        assert "U1111111, U2222222" in several.err
    assert here("journal", "--account", "U2222222").code == 0
    assert here("journal", "--journal", str(tmp_path / "none.sqlite")).code == 2
    assert not (tmp_path / "none.sqlite").exists()
