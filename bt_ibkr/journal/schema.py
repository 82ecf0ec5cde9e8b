"""Tables of the journal.

``events`` is the log: it is only ever appended to, and what the other tables hold can be made from it. They hold the
present state, so that a start need not read the log; ``event`` in them is the number of the entry that changed the
row last. An entry and what it changes are one transaction.
"""

from __future__ import annotations

import secrets
import sqlite3
import string
from typing import Final

from bt_ibkr.errors import JournalError
from bt_ibkr.model.intent import EPOCH_LENGTH

#: Marks the file as ours: "BTIJ".
APPLICATION_ID: Final = 0x4254494A
VERSION: Final = 1
PAGE_SIZE: Final = 4096

#: In ``orders``, ``open`` is 1 while the order may stand at IBKR; a query for those repeats the index's condition.
#: ``intended`` is the number of the entry that began it, which the index of the log leaves out: that an order waits
#: for one page less is worth it.
#: ``order_ids`` has every id an order ever had: a modification may change it, and executions come under the old one.
_FIRST: Final = """
CREATE TABLE meta (
    name TEXT PRIMARY KEY NOT NULL,
    value TEXT NOT NULL
);
CREATE TABLE orders (
    number INTEGER PRIMARY KEY,
    key TEXT NOT NULL UNIQUE,
    strategy TEXT NOT NULL,
    account TEXT NOT NULL,
    open INTEGER NOT NULL,
    state TEXT NOT NULL,
    order_id TEXT,
    created_ns INTEGER NOT NULL,
    changed_ns INTEGER NOT NULL,
    intended INTEGER NOT NULL,
    event INTEGER NOT NULL,
    text TEXT NOT NULL,
    intent TEXT NOT NULL
);
CREATE INDEX open_orders ON orders (open) WHERE open = 1;
CREATE TABLE order_ids (
    account TEXT NOT NULL,
    order_id TEXT NOT NULL,
    key TEXT NOT NULL,
    PRIMARY KEY (account, order_id)
) WITHOUT ROWID;
CREATE TABLE executions (
    number INTEGER PRIMARY KEY,
    account TEXT NOT NULL,
    execution_id TEXT NOT NULL,
    key TEXT,
    source TEXT NOT NULL,
    superseded INTEGER NOT NULL,
    seen_ns INTEGER NOT NULL,
    time_ns INTEGER NOT NULL,
    event INTEGER NOT NULL,
    quantity TEXT NOT NULL,
    execution TEXT NOT NULL,
    UNIQUE (account, execution_id)
);
CREATE INDEX executions_by_key ON executions (key);
CREATE INDEX executions_by_time ON executions (time_ns);
CREATE TABLE events (
    number INTEGER PRIMARY KEY,
    time_ns INTEGER NOT NULL,
    key TEXT,
    kind TEXT NOT NULL,
    text TEXT NOT NULL,
    payload TEXT NOT NULL
);
CREATE INDEX events_by_key ON events (key) WHERE kind <> 'intended';
CREATE TABLE trading (
    number INTEGER PRIMARY KEY CHECK (number = 1),
    mode TEXT NOT NULL,
    reason TEXT NOT NULL,
    by TEXT NOT NULL,
    since_ns INTEGER NOT NULL,
    event INTEGER NOT NULL
);
INSERT INTO trading VALUES (1, 'active', '', '', 0, 0);
CREATE TABLE baselines (
    account TEXT PRIMARY KEY NOT NULL,
    time_ns INTEGER NOT NULL,
    positions TEXT NOT NULL,
    event INTEGER NOT NULL
)
"""
#: How a file of each version becomes one of the next.
MIGRATIONS: Final[dict[int, tuple[str, ...]]] = {0: tuple(_FIRST.split(";"))}

_EPOCH_LETTERS: Final = string.ascii_lowercase + string.digits


def new_epoch() -> str:
    """Five random characters: 60 million epochs, so that two journals hardly ever share one."""
    return "".join(secrets.choice(_EPOCH_LETTERS) for _ in range(EPOCH_LENGTH))


def prepare(connection: sqlite3.Connection, path: str, migrate: bool) -> None:
    """Make the tables, or bring older ones up to date; in one transaction, so that two processes may try.

    Raises:
        JournalError: The file is another program's, of a later version of this one, or of an earlier one whose owner
            may be running: only an owner migrates.
    """
    version = _version(connection, path)
    if version == VERSION:
        return
    if version and not migrate:
        raise JournalError(
            f"The journal {path} is of version {version}, this program writes version {VERSION}.",
            remedy="Start the program that owns it once, in the version installed now.",
        )
    connection.execute("BEGIN IMMEDIATE")
    try:
        version = _version(connection, path)
        for old in range(version, VERSION):
            for statement in MIGRATIONS[old]:
                connection.execute(statement)
        if version == 0:
            connection.execute("INSERT INTO meta VALUES ('epoch', ?)", (new_epoch(),))
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _version(connection: sqlite3.Connection, path: str) -> int:
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if tables and application != APPLICATION_ID:
        raise JournalError(
            f"The file {path} is a database, but no journal of orders.",
            remedy="Name another file, or another folder with BT_IBKR_HOME.",
        )
    if version > VERSION:
        raise JournalError(
            f"The journal {path} is of version {version}; this program knows versions up to {VERSION}.",
            remedy="Install the version of bt-ibkr that wrote it, or a later one.",
        )
    return int(version) if tables else 0
