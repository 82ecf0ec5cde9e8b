"""The journal's connection to SQLite: durable transactions, and errors in plain words."""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from bt_ibkr.errors import JournalError
from bt_ibkr.journal.schema import PAGE_SIZE, prepare
from bt_ibkr.journal.steps import step

#: What SQLite calls each trouble, by its primary code, and what helps.
_REMEDIES: Final = {
    sqlite3.SQLITE_FULL: "Make room on that disk; nothing need be restarted.",
    sqlite3.SQLITE_IOERR: "Look at that disk, its space and its quota; nothing need be restarted.",
    sqlite3.SQLITE_BUSY: "Another process writes to it for too long; look who has it open.",
    sqlite3.SQLITE_LOCKED: "Another process writes to it for too long; look who has it open.",
    sqlite3.SQLITE_READONLY: "Make file and folder writable.",
    sqlite3.SQLITE_CANTOPEN: "Make the folder writable, or name another with BT_IBKR_HOME.",
    sqlite3.SQLITE_PERM: "Make file and folder writable.",
    sqlite3.SQLITE_CORRUPT: "Start the program again: it saves what can be read.",
    sqlite3.SQLITE_NOTADB: "Start the program again: it saves what can be read.",
}
#: The file's contents are not what SQLite wrote.
_DAMAGE: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


def is_damage(problem: sqlite3.Error) -> bool:
    """Whether the file is to blame, not the disk or another process."""
    return getattr(problem, "sqlite_errorcode", 0) & 0xFF in _DAMAGE


class Database:
    """One connection. Used by one thread at a time; which one may change.

    Args:
        path: The file; ``None`` for one in memory.
        busy_timeout_s: How long to wait for another process that writes.
        migrate: Whether a file of an earlier version may be brought up to date.

    Raises:
        JournalError: It cannot be opened, is another program's, or of a later version.
        sqlite3.DatabaseError: It is damaged (``is_damage``).
    """

    def __init__(self, path: Path | None, *, busy_timeout_s: float, migrate: bool = True) -> None:
        self.name = str(path) if path is not None else "in memory"
        self._closed = False
        self._durable = True
        try:
            if path is not None:
                _make(path)
            self.connection = sqlite3.connect(
                path if path is not None else ":memory:",
                timeout=busy_timeout_s,
                isolation_level=None,
                check_same_thread=False,
            )
        except OSError as problem:
            raise JournalError(
                f"The journal {self.name} cannot be opened: {problem.strerror}.",
                remedy=_REMEDIES[sqlite3.SQLITE_CANTOPEN],
            ) from None
        except sqlite3.Error as problem:
            raise self.error("open", problem) from None
        try:
            self._set_up(migrate)
        except sqlite3.Error as problem:
            self.connection.close()
            if is_damage(problem):
                raise
            raise self.error("open", problem) from None
        except BaseException:
            self.connection.close()
            raise

    def _set_up(self, migrate: bool) -> None:
        execute = self.connection.execute
        execute(f"PRAGMA page_size = {PAGE_SIZE}")
        # Each page is looked at when it is read, so that damage is told and not handed on.
        execute("PRAGMA cell_size_check = ON")
        (mode,) = execute("PRAGMA journal_mode = WAL").fetchone()
        if mode not in ("wal", "memory"):
            raise JournalError(
                f"The journal {self.name} cannot have a write-ahead log (its mode stays {mode!r}).",
                remedy="Put it on a local disk: network drives do not offer what the log needs.",
            )
        execute("PRAGMA synchronous = FULL")
        # macOS's fsync leaves data in the drive's cache; elsewhere this changes nothing.
        execute("PRAGMA fullfsync = ON")
        prepare(self.connection, self.name, migrate)

    def write(self, name: str, doing: str, *, durable: bool = True) -> Transaction:
        """A transaction that is on the disk when its block ends, or did not happen.

        Args:
            name: Of its steps.
            doing: For messages: ``"The journal could not {doing}"``.
            durable: Without, it survives the death of this process, but not a power cut: for what IBKR would tell
                again.
        """
        return Transaction(self, name, doing, durable=durable)

    def read(self, doing: str) -> Reading:
        """Several queries that see the same moment."""
        return Reading(self, doing)

    def sync_at_commit(self, durable: bool, doing: str) -> None:
        """Whether the next transaction waits for the disk when it commits."""
        if durable is self._durable:
            return
        self.check_open(doing)
        try:
            if self.connection.in_transaction:
                # In one, SQLite would leave it as it is.
                self.connection.execute("ROLLBACK")
            self.connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
        except sqlite3.Error as problem:
            raise self.error(doing, problem) from None
        self._durable = durable

    def data_version(self) -> int:
        """A number that changes when another connection has committed."""
        self.check_open("be read")
        try:
            (version,) = self.connection.execute("PRAGMA data_version").fetchone()
        except sqlite3.Error as problem:
            raise self.error("be read", problem) from None
        return int(version)

    def error(self, doing: str, problem: sqlite3.Error) -> JournalError:
        """``problem`` in plain words."""
        code = getattr(problem, "sqlite_errorcode", 0) & 0xFF
        return JournalError(
            f"The journal {self.name} could not {doing}: {problem}.", remedy=_REMEDIES.get(code, "")
        )

    @property
    def closed(self) -> bool:
        return self._closed

    def close(self) -> None:
        """The log is merged into the file if nobody else has it open."""
        if not self._closed:
            self._closed = True
            self.connection.close()

    def check_open(self, doing: str) -> None:
        """Refuse to go on after ``close``."""
        if self._closed:
            raise JournalError(f"The journal {self.name} could not {doing}: it is closed.")


def _make(path: Path) -> None:
    """Make a file that only its user may read; SQLite gives its other files the same rights. One that is there is not
    touched: closing it would drop the locks of every connection of this process to it (POSIX)."""
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))


class _Block:
    """What transactions have in common."""

    __slots__ = ("_database", "_doing", "_execute")
    _BEGIN = "BEGIN"

    def __init__(self, database: Database, doing: str) -> None:
        self._database = database
        self._doing = doing
        self._execute = database.connection.execute

    def _begin(self) -> None:
        self._database.check_open(self._doing)
        try:
            if self._database.connection.in_transaction:
                # The end of the last one failed; whatever it held was not committed.
                self._execute("ROLLBACK")
            self._execute(self._BEGIN)
        except sqlite3.Error as problem:
            raise self._database.error(self._doing, problem) from None

    def _abandon(self) -> None:
        try:
            if self._database.connection.in_transaction:
                self._execute("ROLLBACK")
        except sqlite3.Error:
            # The next transaction tries again before it begins.
            return

    def _end(self, error: BaseException | None) -> None:
        try:
            if error is None:
                self._execute("COMMIT")
        except sqlite3.Error as problem:
            error = problem
        if error is None:
            return
        self._abandon()
        if isinstance(error, sqlite3.Error):
            raise self._database.error(self._doing, error) from None


class Reading(_Block):
    """Context of queries that see one moment; gives the connection's ``execute``."""

    __slots__ = ()

    def __enter__(self) -> Any:
        self._begin()
        return self._execute

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end(error)


class Transaction(_Block):
    """Context of one write transaction; gives the connection's ``execute``. It holds SQLite's write lock from its
    begin on, so that what it reads is what stands when it commits."""

    __slots__ = ("_durable", "_name")
    _BEGIN = "BEGIN IMMEDIATE"

    def __init__(self, database: Database, name: str, doing: str, *, durable: bool) -> None:
        super().__init__(database, doing)
        self._name = name
        self._durable = durable

    def __enter__(self) -> Any:
        step(f"journal.{self._name}.begin")
        self._database.sync_at_commit(self._durable, self._doing)
        self._begin()
        return self._execute

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            step(f"journal.{self._name}.commit")
        self._end(error)
        if error is None:
            step(f"journal.{self._name}.committed")
