"""What goes into the journal comes out of it, over restarts; what must not go in is refused."""

from __future__ import annotations

import stat
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bt_ibkr.errors import JournalError, TradingHaltedError
from bt_ibkr.journal import EventKind, Journal, PositionsBaseline
from bt_ibkr.journal.transitions import ALLOWED
from bt_ibkr.model.contract import Leg
from bt_ibkr.model.intent import ENDED, OPEN, OrderIntent, OrderState, make_key
from bt_ibkr.model.order import OrderTicket, OrderType, Side
from bt_ibkr.model.trading import Trading, TradingState

HALTED = TradingState(mode=Trading.HALTED, reason="the news", by="command line", since_ns=5)
REDUCING = TradingState(mode=Trading.REDUCING, reason="the day's loss", by="daily_loss_limit", since_ns=6)


def test_an_order_comes_back_as_it_was(books: Any) -> None:
    journal = books.open()
    key = make_key("pairs", journal.epoch, 1)
    ticket = OrderTicket(
        account="DU1",
        contract_id=-7,
        security_type="BAG",
        legs=(Leg(1, 1), Leg(2, -2)),
        spread_id=28812380,
        side=Side.SELL,
        order_type=OrderType.LIMIT,
        quantity=Decimal("0.3"),
        limit_price=-1.05,
        algo="Adaptive",
        algo_parameters=(("adaptivePriority", "Urgent"), ("count", 3), ("share", 1.0), ("strict", True)),
        client_order_id=key,
    )
    intent = OrderIntent(
        key=key,
        strategy="pairs",
        ticket=ticket,
        parent_key="pairs.abcde.9",
        group="g1",
        expires_ns=books.clock.now_ns() + 10,
        dataname="AAPL|MSFT",
        trade_id=3,
        info={"why": "spread", "z": 2.5, "n": 4, "late": False, "none": None},
    )
    journal.intend([intent])
    created = books.clock.now_ns()
    books.tick()
    journal.note(key, OrderState.WORKING, order_id="1370093239", text="accepted")
    journal.close()

    journal = books.open()
    assert journal.repaired is None
    order = journal.order(key)
    assert order is not None
    assert order.intent == intent
    assert [type(value) for _, value in order.intent.ticket.algo_parameters] == [str, int, float, bool]
    assert (order.state, order.order_id, order.text) == (OrderState.WORKING, "1370093239", "accepted")
    assert (order.created_ns, order.changed_ns) == (created, books.clock.now_ns())
    assert (order.filled, order.remaining, order.is_open) == (0, Decimal("0.3"), True)
    assert journal.by_order_id("DU1", "1370093239") == order
    assert journal.by_order_id("DU2", "1370093239") is None
    assert journal.order("pairs.abcde.9") is None


def test_keys_are_numbered_on(books: Any) -> None:
    journal = books.open()
    epoch = journal.epoch
    assert journal.next_sequences() == {}
    journal.intend([books.intent(journal, 1), books.intent(journal, 7), books.intent(journal, 2, name="b-c")])
    books.place(journal, 3)
    assert journal.next_sequences() == {"sma": 8, "b-c": 3}
    journal.close()
    journal = books.open()
    assert journal.epoch == epoch
    assert journal.next_sequences() == {"sma": 8, "b-c": 3}


@pytest.mark.parametrize(
    ("key", "why"),
    [
        ("sma.{}", "is not of the form"),
        ("sma.{}.0", "is not of the form"),
        ("sma.{}.01", "is not of the form"),
        ("s ma.{}.1", "is not of the form"),
        ("x" * 60 + ".{}.1", "is not of the form"),
        ("sma.00000.1", "epoch"),
    ],
)
def test_a_key_that_is_none(books: Any, key: str, why: str) -> None:
    journal = books.open()
    key = key.format(journal.epoch)
    ticket = msgspec.structs.replace(books.intent(journal, 1).ticket, client_order_id=None)
    with pytest.raises(JournalError, match=why) as caught:
        journal.intend([OrderIntent(key=key, strategy="sma", ticket=ticket)])
    assert repr(key) in caught.value.message
    assert caught.value.remedy
    assert journal.orders() == ()


def test_a_key_that_is_not_the_tickets(books: Any) -> None:
    journal = books.open()
    intent = msgspec.structs.replace(books.intent(journal, 1), key=make_key("sma", journal.epoch, 2))
    with pytest.raises(JournalError, match="client order id"):
        journal.intend([intent])


def test_a_submission_is_taken_whole_or_not_at_all(books: Any) -> None:
    journal = books.open()
    books.place(journal, 2)
    with pytest.raises(JournalError, match="has an order"):
        journal.intend([books.intent(journal, number) for number in (1, 2, 3)])
    assert [order.key for order in journal.orders()] == [make_key("sma", journal.epoch, 2)]
    assert len(journal.events()) == 1
    # The one after is taken.
    books.place(journal, 1)
    assert len(journal.orders(open_only=True)) == 2


def test_orders_are_chosen(books: Any) -> None:
    journal = books.open()
    first, second = books.place(journal, 1), books.place(journal, 2, name="other")
    later = books.tick()
    third = books.place(journal, 3)
    journal.note(first, OrderState.CANCELLED, text="by hand")

    def keys(**choice: Any) -> list[str]:
        return [order.key for order in journal.orders(**choice)]

    assert keys() == [first, second, third]
    assert keys(open_only=True) == [second, third]
    assert keys(strategy="sma") == [first, third]
    assert keys(since_ns=later) == [first, third]
    assert keys(open_only=True, strategy="sma", since_ns=later) == [third]
    assert keys(strategy="nobody") == []


@pytest.mark.parametrize("old", list(OrderState))
@pytest.mark.parametrize("new", list(OrderState))
def test_states(books: Any, old: OrderState, new: OrderState) -> None:
    """By word alone an order leaves its state only as the table says; noting the same state again is allowed."""
    journal = Journal.open(None, clock=books.clock)
    key = books.place(journal, 1)
    if old is not OrderState.INTENDED:
        journal.note(key, old)
    before = journal.events()
    if new is old or new in ALLOWED[old]:
        journal.note(key, new)
        order = journal.order(key)
        assert order is not None
        assert order.state is new
        assert order.is_open == (new in OPEN)
        assert [one.key for one in journal.orders(open_only=True)] == [key] * (new in OPEN)
    else:
        with pytest.raises(JournalError, match=f"is {old.value}: it cannot become {new.value}"):
            journal.note(key, new)
        assert journal.events() == before
    journal.close()


def test_the_table_of_states() -> None:
    assert OrderState.INTENDED not in {new for news in ALLOWED.values() for new in news}
    assert {state for state in OrderState if not ALLOWED[state]} == ENDED - {
        OrderState.ABSENT,
        OrderState.REJECTED,
    }
    assert ALLOWED[OrderState.ABSENT] == {OrderState.WORKING, OrderState.FILLED}
    assert ALLOWED[OrderState.REJECTED] == {OrderState.WORKING}


@pytest.mark.parametrize(
    ("old", "quantities", "new", "allowed"),
    [
        (OrderState.CANCELLED, ["10"], OrderState.FILLED, True),
        (OrderState.CANCELLED, ["4", "6"], OrderState.FILLED, True),
        (OrderState.CANCELLED, ["4"], OrderState.FILLED, False),
        (OrderState.CANCELLED, ["4"], OrderState.WORKING, False),
        (OrderState.EXPIRED, ["12"], OrderState.FILLED, True),
        (OrderState.REJECTED, ["4"], OrderState.WORKING, True),
        (OrderState.REJECTED, ["4"], OrderState.CANCELLED, True),
        (OrderState.REJECTED, ["4"], OrderState.FILLED, True),
        (OrderState.REJECTED, ["4"], OrderState.EXPIRED, True),
        (OrderState.REJECTED, ["10"], OrderState.EXPIRED, False),
        (OrderState.REJECTED, ["4"], OrderState.INTENDED, False),
        (OrderState.ABSENT, ["4"], OrderState.CANCELLED, True),
        # Executions are on their way: that proves nothing.
        (OrderState.FILLED, ["4"], OrderState.WORKING, False),
        (OrderState.FILLED, ["4"], OrderState.CANCELLED, False),
    ],
)
def test_executions_prove_an_end_wrong(
    books: Any, old: OrderState, quantities: list[str], new: OrderState, allowed: bool
) -> None:
    journal = Journal.open(None, clock=books.clock)
    key = books.place(journal, 1)
    journal.note(key, old)
    journal.add_executions(
        [(books.execution(f"a.b.{at}.01", size), key, "t") for at, size in enumerate(quantities)]
    )
    if allowed:
        journal.note(key, new)
    else:
        with pytest.raises(JournalError, match="cannot become"):
            journal.note(key, new)


def test_a_corrected_fill_reopens_an_order(books: Any) -> None:
    journal = books.open()
    key = books.place(journal, 1)
    journal.add_executions([(books.execution("a.b.01.01", "10"), key, "stream")])
    journal.note(key, OrderState.FILLED)
    journal.add_executions([(books.execution("a.b.01.02", "6"), None, "trades")])
    journal.note(key, OrderState.WORKING)
    order = journal.order(key)
    assert order is not None
    assert (order.filled, order.remaining) == (6, 4)


def test_order_ids(books: Any) -> None:
    journal = books.open()
    key, other = books.place(journal, 1), books.place(journal, 2)
    journal.note(key, OrderState.WORKING, order_id="1")
    journal.note(key, OrderState.WORKING, order_id="2", text="replaced")
    journal.note(key, OrderState.WORKING)
    for identity in ("1", "2"):
        found = journal.by_order_id("DU1234567", identity)
        assert found is not None
        assert (found.key, found.order_id, found.text) == (key, "2", "replaced")
    with pytest.raises(JournalError, match="the open order"):
        journal.note(other, OrderState.WORKING, order_id="1")
    # An emulator that began anew counts from the same number again.
    journal.note(key, OrderState.CANCELLED)
    journal.note(other, OrderState.WORKING, order_id="1")
    found = journal.by_order_id("DU1234567", "1")
    assert found is not None
    assert found.key == other


def test_what_no_order_has(books: Any) -> None:
    journal = books.open()
    with pytest.raises(JournalError, match=r"no order 'sma\.aaaaa\.1'"):
        journal.note("sma.aaaaa.1", OrderState.WORKING)
    with pytest.raises(JournalError, match=r"no order 'sma\.aaaaa\.1'"):
        journal.replace_ticket("sma.aaaaa.1", books.intent(journal, 1).ticket)
    assert journal.events() == ()


def test_a_modified_order(books: Any) -> None:
    journal = books.open()
    key = books.place(journal, 1)
    order = journal.order(key)
    assert order is not None
    ticket = msgspec.structs.replace(order.intent.ticket, limit_price=190.0, quantity=Decimal(12))
    journal.replace_ticket(key, ticket)
    for field, value in (("side", Side.SELL), ("contract_id", 5), ("account", "U1")):
        with pytest.raises(JournalError, match=field):
            journal.replace_ticket(key, msgspec.structs.replace(ticket, **{field: value}))
    journal.close()
    again = books.open().order(key)
    assert again is not None
    assert again.intent == msgspec.structs.replace(order.intent, ticket=ticket)


def test_another_expiry(books: Any) -> None:
    journal = books.open()
    key = books.place(journal, 1)
    order = journal.order(key)
    assert order is not None
    for expires_ns in (5, 5, None, 7):
        journal.set_expiry(key, expires_ns)
    # What is as it was is not written down again.
    assert [e.payload for e in journal.events(key=key) if e.kind == "expiry"] == [
        '{"expires_ns":5}', '{"expires_ns":null}', '{"expires_ns":7}',
    ]  # fmt: skip
    with pytest.raises(JournalError, match=r"no order 'sma\.aaaaa\.1'"):
        journal.set_expiry("sma.aaaaa.1", 1)
    journal.close()
    again = books.open().order(key)
    assert again is not None
    assert again.intent == msgspec.structs.replace(order.intent, expires_ns=7)


def test_halted_and_reducing(books: Any) -> None:
    journal = books.open()
    assert journal.trading_state() == TradingState()
    journal.set_trading_state(REDUCING)
    with pytest.raises(TradingHaltedError, match="reduce a position by daily_loss_limit: the day's loss"):
        books.place(journal, 1)
    with pytest.raises(TradingHaltedError):
        journal.intend([books.intent(journal, 1, protective=True), books.intent(journal, 2)])
    books.place(journal, 1, protective=True)
    journal.set_trading_state(HALTED)
    journal.close()

    journal = books.open()
    assert journal.trading_state() == HALTED
    with pytest.raises(TradingHaltedError, match="halted by command line: the news") as caught:
        books.place(journal, 2, protective=True)
    assert "resume" in caught.value.remedy
    assert len(journal.orders()) == 1
    # What became of orders is noted in every state.
    journal.note(journal.orders()[0].key, OrderState.CANCELLED)
    journal.set_trading_state(TradingState())
    books.place(journal, 2)


def test_positions(books: Any) -> None:
    journal = books.open()
    assert journal.positions_baseline("DU1") is None
    journal.set_positions_baseline("DU1", {5: Decimal("0.3"), 7: Decimal(-2), 9: Decimal(0)}, 10)
    journal.set_positions_baseline("DU2", {}, 11)
    journal.set_positions_baseline("DU1", {-7: Decimal("1.0")}, 12)
    journal.close()
    journal = books.open()
    assert journal.positions_baseline("DU1") == PositionsBaseline(
        account="DU1", time_ns=12, positions={-7: Decimal("1.0")}
    )
    assert journal.positions_baseline("DU2") == PositionsBaseline(account="DU2", time_ns=11, positions={})


def test_the_log(books: Any) -> None:
    journal = books.open()
    key = books.place(journal, 1)
    later = books.tick()
    journal.note_event(key, "question", "Are you sure?", payload={"ids": ["o163"], "answer": True})
    journal.note_event(None, "connected", durable=False)
    journal.note(key, OrderState.WORKING, order_id="1", durable=False)
    journal.close()
    journal = books.open()
    assert [(e.number, e.key, e.kind, e.text) for e in journal.events()] == [
        (1, key, "intended", ""),
        (2, key, "question", "Are you sure?"),
        (3, None, "connected", ""),
        (4, key, "state", ""),
    ]
    assert msgspec.json.decode(journal.events()[1].payload) == {"ids": ["o163"], "answer": True}
    assert [event.number for event in journal.events(key=key)] == [1, 2, 4]
    assert [event.number for event in journal.events(since_ns=later)] == [2, 3, 4]
    assert [event.number for event in journal.events(limit=2)] == [3, 4]
    assert journal.events(limit=0) == ()
    for kind in EventKind:
        with pytest.raises(JournalError, match="journal itself"):
            journal.note_event(None, kind)


def test_in_memory(books: Any) -> None:
    journal = Journal.open(None, clock=books.clock)
    other = Journal.open(None, clock=books.clock)
    key = books.place(journal, 1)
    assert journal.order(key) is not None
    assert other.orders() == ()
    assert journal.path is None
    journal.close()
    journal.close()
    with pytest.raises(JournalError, match="it is closed"):
        journal.orders()
    with pytest.raises(JournalError, match="it is closed"):
        journal.data_version()
    other.close()


def test_two_epochs_differ(books: Any, tmp_path: Path) -> None:
    assert len({books.open(tmp_path / str(number)).epoch for number in range(20)}) == 20


def test_nobody_else_reads_it(books: Any, tmp_path: Path) -> None:
    journal = books.open(tmp_path / "new" / "folder" / "journal")
    books.place(journal, 1)
    files = list((tmp_path / "new" / "folder").iterdir())
    assert {file.name for file in files} == {"journal", "journal-wal", "journal-shm", "journal.lock"}
    assert {stat.S_IMODE(file.stat().st_mode) & 0o077 for file in files} == {0}
    assert stat.S_IMODE((tmp_path / "new" / "folder").stat().st_mode) & 0o077 == 0


def test_a_place_that_is_none(books: Any, tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="cannot be opened"):
        books.open(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(JournalError, match="cannot be made") as caught:
        books.open(tmp_path / "file" / "journal")
    assert "BT_IBKR_HOME" in caught.value.remedy


def test_what_waits_for_the_disk(books: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite's ``synchronous`` at each commit: 2 waits for the disk, 1 does not."""
    journal = books.open(busy_timeout_s=0.01)
    execute = journal._database.connection.execute
    assert execute("PRAGMA journal_mode").fetchone() == ("wal",)
    modes = []

    def look(name: str) -> None:
        if name.endswith(".commit"):
            modes.append((name.split(".")[1], *execute("PRAGMA synchronous").fetchone()))

    monkeypatch.setattr("bt_ibkr.journal.database.step", look)
    key = books.place(journal, 1)
    journal.note(key, OrderState.WORKING, durable=False)
    journal.note_event(key, "question", durable=False)
    journal.note(key, OrderState.WORKING)
    assert modes == [("intend", 2), ("note", 1), ("event", 1), ("note", 2)]
    # One that failed to begin leaves nothing behind.
    visitor = books.open(exclusive=False)
    with visitor._database.write("x", "x"), pytest.raises(JournalError, match="locked"):
        journal.note_event(key, "question", durable=False)
    modes.clear()
    books.place(journal, 2)
    journal.add_executions([(books.execution("a.b.01.01"), key, "s")])
    journal.set_trading_state(HALTED)
    journal.set_positions_baseline("DU1", {}, 1)
    journal.replace_ticket(key, books.intent(journal, 1, limit_price=1.0).ticket)
    assert modes == [(name, 2) for name in ("intend", "executions", "trading", "baseline", "ticket")]


def test_closing_one_connection_leaves_the_locks_of_another(books: Any, child: Any) -> None:
    """A second connection of this process comes and goes; another process must still see that the file is in use."""
    journal = books.open()
    books.place(journal, 1)
    books.open(exclusive=False).close()
    program = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
print(connection.execute("SELECT count(*) FROM orders").fetchone()[0])
connection.close()
"""
    log = Path(f"{books.path}-wal")
    out, error = child(program, books.path).communicate(timeout=60)
    assert (out, error) == ("1\n", "")
    # The last one to close it would have removed the log.
    assert log.exists()
    books.place(journal, 2)
    journal.close()
    assert len(books.open().orders()) == 2
