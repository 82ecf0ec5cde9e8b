"""Files of other versions and other programs; a journal of many orders."""

from __future__ import annotations

import json
import sqlite3
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bt_ibkr.errors import JournalError, OrderRefusedError
from bt_ibkr.journal import Journal, JournalOrder, queries, schema, tables
from bt_ibkr.model.intent import OrderState, make_key
from bt_ibkr.model.order import OrderTicket


def set_pragma(path: Path, text: str) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA {text}")
    connection.close()


@pytest.mark.parametrize("exclusive", [True, False])
def test_a_file_of_a_later_version(books: Any, exclusive: bool) -> None:
    books.open().close()
    set_pragma(books.path, f"user_version = {schema.VERSION + 1}")
    content = books.path.read_bytes()
    with pytest.raises(JournalError, match=f"version {schema.VERSION + 1}.*up to {schema.VERSION}") as caught:
        books.open(exclusive=exclusive)
    assert "later" in caught.value.remedy
    assert books.path.read_bytes() == content


@pytest.mark.parametrize("exclusive", [True, False])
def test_a_database_of_another_program(books: Any, exclusive: bool) -> None:
    with sqlite3.connect(books.path) as connection:
        connection.execute("CREATE TABLE addresses (name)")
    connection.close()
    with pytest.raises(JournalError, match="is a database, but no journal") as caught:
        books.open(exclusive=exclusive)
    assert str(books.path) in caught.value.message
    assert not list(books.path.parent.glob("*damaged*"))


def test_a_file_of_an_earlier_version(books: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = books.open()
    key = books.place(journal, 1)
    journal.close()
    monkeypatch.setattr(schema, "VERSION", schema.VERSION + 1)
    steps = {**schema.MIGRATIONS, schema.VERSION - 1: ("CREATE TABLE more (a)", "CREATE TABLE nonsense (")}
    monkeypatch.setattr(schema, "MIGRATIONS", steps)
    with pytest.raises(JournalError, match="incomplete input"):
        books.open()
    assert user_version(books.path) == schema.VERSION - 1
    steps[schema.VERSION - 1] = ("CREATE TABLE more (a)",)
    # The owner, who may be running, is not to find another file beneath.
    with pytest.raises(JournalError, match=f"version {schema.VERSION - 1}") as caught:
        books.open(exclusive=False)
    assert "owns it" in caught.value.remedy
    journal = books.open()
    assert [order.key for order in journal.orders()] == [key]
    assert user_version(books.path) == schema.VERSION
    assert journal.epoch in key
    books.open(exclusive=False)


def user_version(path: Path) -> int:
    connection = sqlite3.connect(path)
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    connection.close()
    return int(version)


def test_the_first_version_is_what_it_was() -> None:
    """Files of version 1 are out there: a change of the tables is a new version, with a step towards it."""
    connection = sqlite3.connect(":memory:")
    for statement in schema.MIGRATIONS[0]:
        connection.execute(statement)
    shape = {
        table: [column[1] for column in connection.execute(f"PRAGMA table_info({table})")]
        for (table,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall()
    }
    connection.close()
    assert shape == {
        "meta": ["name", "value"],
        "orders": [
            "number", "key", "strategy", "account", "open", "state", "order_id", "created_ns", "changed_ns",
            "intended", "event", "text", "intent",
        ],
        "order_ids": ["account", "order_id", "key"],
        "executions": [
            "number", "account", "execution_id", "key", "source", "superseded", "seen_ns", "time_ns", "event",
            "quantity", "execution",
        ],
        "events": ["number", "time_ns", "key", "kind", "text", "payload"],
        "trading": ["number", "mode", "reason", "by", "since_ns", "event"],
        "baselines": ["account", "time_ns", "positions", "event"],
    }  # fmt: skip


def test_a_ticket_of_an_earlier_version(books: Any) -> None:
    """Fields that came later have their defaults; fields that are gone are passed over."""
    journal = books.open()
    key = books.place(journal, 1)
    expected = journal.order(key)
    with journal._database.write("x", "x") as execute:
        (body,) = execute("SELECT intent FROM orders").fetchone()
        intent = json.loads(body)
        del intent["group"], intent["ticket"]["protective"]
        intent["ticket"]["gone"] = 1
        execute("UPDATE orders SET intent = ?", (json.dumps(intent),))
    assert journal.order(key) == expected


def test_an_order_that_would_be_refused_today(books: Any) -> None:
    """It may stand at IBKR all the same: it is read as it was written, and what becomes of it is noted."""
    journal = books.open()
    key = books.place(journal, 1)
    with journal._database.write("x", "x") as execute:
        execute("""UPDATE orders SET intent = replace(intent, '"quantity":"10"', '"quantity":"-10"')""")
    journal.close()
    journal = books.open()
    assert journal.repaired is None
    journal.note(key, OrderState.WORKING, order_id="1")
    (order,) = journal.orders(open_only=True)
    assert (order.intent.ticket.quantity, order.state) == (Decimal(-10), OrderState.WORKING)
    assert type(order.intent.ticket) is OrderTicket
    with pytest.raises(OrderRefusedError):
        msgspec.structs.replace(order.intent.ticket, limit_price=5.0)


MANY = 100_000


@pytest.fixture
def crowded(books: Any, ram: Path) -> Journal:
    """A journal of many orders that have ended, with an execution each, and a few open ones."""
    journal: Journal = books.open(ram / "journal")
    body = tables.encode(books.intent(journal, 1))
    execution = tables.encode(books.execution("a.b.01.01"))
    keys = [make_key("old", journal.epoch, number) for number in range(1, MANY + 1)]
    with journal._database.write("x", "x"):
        many = journal._database.connection.executemany
        many(
            "INSERT INTO orders VALUES (NULL, ?, 'old', 'DU1', 0, 'filled', NULL, 1, 1, 1, 1, '', ?)",
            ((key, body) for key in keys),
        )
        many(
            "INSERT INTO executions VALUES (NULL, 'DU1', ?, ?, 's', 0, 1, 1, 1, '10', ?)",
            ((f"{at:x}.b.01.01", key, execution) for at, key in enumerate(keys)),
        )
        many(
            "INSERT INTO events VALUES (NULL, 1, ?, 'intended', '', ?)",
            ((key, body) for key in keys),
        )
    for number in range(1, 4):
        key = books.place(journal, number)
        journal.add_executions([(books.execution(f"new.{number}.01.01", "4"), key, "s")])
    return journal


def plan(journal: Journal, query: str, *values: object) -> list[str]:
    rows = journal._database.connection.execute(f"EXPLAIN QUERY PLAN {query}", values).fetchall()
    return [row[3] for row in rows]


def test_among_many_orders_only_the_open_ones_are_read(
    crowded: Journal, books: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = []
    original = tables.order_of

    def counted(row: tuple[Any, ...], filled: Decimal) -> JournalOrder:
        read.append(row)
        return original(row, filled)

    monkeypatch.setattr(tables, "order_of", counted)
    found = crowded.orders(open_only=True)
    assert [(order.intent.strategy, order.filled) for order in found] == [("sma", Decimal(4))] * 3
    assert len(read) == 3
    crowded.note(found[0].key, OrderState.WORKING, order_id="5")
    assert crowded.by_order_id("DU1234567", "5") is not None
    assert len(read) == 5
    assert crowded.next_sequences() == {"old": MANY + 1, "sma": 4}

    about = queries.ABOUT.replace("?", "'x'")
    queries_and_plans = {
        # The keys alone are read, from their index.
        queries.KEYS: "SCAN orders USING COVERING INDEX",
        f"{queries.ORDERS} WHERE {queries.OPEN_ONLY} ORDER BY number": "SEARCH orders USING INDEX open_orders",
        queries.OPEN_FILLS: "SEARCH executions USING INDEX executions_by_key",
        f"{queries.ORDERS} WHERE key = 'x'": "SEARCH orders USING INDEX",
        f"{queries.EXECUTIONS} WHERE key = 'x' ORDER BY time_ns, number": "SEARCH executions USING INDEX",
        f"{queries.EXECUTIONS} WHERE time_ns >= 5 ORDER BY time_ns": "SEARCH executions USING INDEX",
        f"{queries.EVENTS} WHERE {about} ORDER BY number DESC LIMIT 5": (
            "SEARCH events USING INTEGER PRIMARY KEY"
        ),
        "SELECT 1 FROM executions WHERE account = 'x' AND execution_id = 'y'": "SEARCH executions USING",
        "SELECT 1 FROM executions WHERE account = 'x' AND execution_id > 'y' AND execution_id < 'z'": (
            "SEARCH executions USING"
        ),
        "SELECT 1 FROM order_ids WHERE account = 'x' AND order_id = 'y'": "SEARCH order_ids USING PRIMARY KEY",
    }
    for query, wanted in queries_and_plans.items():
        lines = plan(crowded, query)
        assert any(line.startswith(wanted) for line in lines), (query, lines)
        # Only the few open orders are gone through, by their own index.
        scans = [line for line in lines if line.startswith("SCAN")]
        assert all("open_orders" in line for line in scans) or query == queries.KEYS, (query, lines)

    path = crowded.path
    crowded.close()
    journal = books.open(path)
    assert journal.repaired is None
    read.clear()
    assert len(journal.orders(open_only=True)) == len(read) == 3
