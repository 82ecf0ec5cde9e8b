"""The file: rows of JSON in SQLite, written in one transaction.

A transaction that was committed survives the end of the process, also by SIGKILL. It is not waited for until it
is on the disk: a power failure may take the last ones.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from bt_ibkr.errors import UsageError

VERSION = 1
#: Besides ``meta``.
TABLES = ("orders", "executions", "requests")
_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value BLOB NOT NULL)",
    *(
        f"CREATE TABLE IF NOT EXISTS {table} (place INTEGER PRIMARY KEY, value BLOB NOT NULL)"
        for table in TABLES
    ),
)

Rows = Iterable[tuple[int, bytes]]


class StateStore:
    """One state file, of one emulator at a time.

    Args:
        path: It is made if there is none.

    Raises:
        UsageError: It cannot be used, is no state file, or another emulator has it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._connection = sqlite3.connect(
                path, timeout=0.5, isolation_level=None, check_same_thread=False
            )
        except sqlite3.Error as problem:
            raise self._unusable(problem) from None
        try:
            for pragma in ("locking_mode=EXCLUSIVE", "journal_mode=WAL", "synchronous=OFF"):
                self._connection.execute(f"PRAGMA {pragma}")
            self._connection.execute("BEGIN IMMEDIATE")
            for statement in _SCHEMA:
                self._connection.execute(statement)
            self._connection.execute("COMMIT")
        except sqlite3.Error as problem:
            self._connection.close()
            raise self._unusable(problem) from None

    def _unusable(self, problem: sqlite3.Error) -> UsageError:
        if "locked" in str(problem):
            return UsageError(
                f"State file {self.path} is in use by another emulator.",
                remedy="End that one, or name another file.",
            )
        return UsageError(
            f"State file {self.path} cannot be used: {problem}.",
            remedy="Name a file that an emulator wrote, or one that does not exist yet.",
        )

    def write(
        self,
        meta: dict[str, bytes],
        *,
        orders: Rows = (),
        executions: Rows = (),
        requests: Rows = (),
        anew: tuple[str, ...] = (),
    ) -> None:
        """Write what changed, all or nothing; what is in the tables ``anew`` is forgotten first."""
        run = self._connection
        run.execute("BEGIN IMMEDIATE")
        try:
            for table in anew:
                run.execute(f"DELETE FROM {table}")
            run.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", meta.items())
            for table, rows in (("orders", orders), ("executions", executions), ("requests", requests)):
                run.executemany(f"INSERT OR REPLACE INTO {table} VALUES (?, ?)", rows)
            run.execute("COMMIT")
        except BaseException:
            run.execute("ROLLBACK")
            raise

    def meta(self) -> dict[str, Any]:
        """All that is not one of the tables; empty of a new file.

        Raises:
            UsageError: It was written by another version, or is damaged.
        """
        try:
            found = dict(self._connection.execute("SELECT name, value FROM meta"))
            decoded = {name: msgspec.json.decode(value) for name, value in found.items()}
        except sqlite3.Error as problem:
            raise self._unusable(problem) from None
        if decoded and decoded.get("version") != VERSION:
            raise UsageError(
                f"State file {self.path} is of version {decoded.get('version')}, not {VERSION}.",
                remedy="Name a file that does not exist yet.",
            )
        return decoded

    def rows(self, table: str) -> list[Any]:
        """A table in its order."""
        if table not in TABLES:
            raise KeyError(table)
        found = self._connection.execute(f"SELECT value FROM {table} ORDER BY place")
        return [msgspec.json.decode(value) for (value,) in found]

    def close(self) -> None:
        """Let the file go."""
        self._connection.close()
