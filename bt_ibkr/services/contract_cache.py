"""What IBKR told of contracts, kept over runs: one SQLite file, shared by all processes, worth nothing but time.

Answers are kept as they came, under what was asked, so that an answer from here is read by the same code as one from
IBKR. Each has an age from which it is asked for anew; what belongs to a derivative ends with it. A scope keeps logins
and servers apart: an emulator's universe never answers for IBKR.

The file is a cache: where it cannot be read or written the answers are asked for, and trading goes on. Damage is
moved aside and told in the log.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from bt_ibkr.clock import NS_PER_S
from bt_ibkr.config import state_directory

_log = logging.getLogger(__name__)
T = TypeVar("T")

FILE_NAME: Final = "contracts.sqlite"
#: Of the tables below; a file of another version is emptied, since everything in it can be asked for again.
SCHEMA_VERSION: Final = 1
_APPLICATION_ID: Final = 0x42544343
#: A writer is never waited for longer: this runs on the loop that orders leave from.
_BUSY_S: Final = 0.1
#: Before anything trades there is time for others that open the file at the same moment.
_OPENINGS: Final = 20
_OPENING_PAUSE_S: Final = 0.05
_HOUR_S: Final = 3600
_DAY_S: Final = 24 * _HOUR_S
#: How old an answer may be, by what it tells. Listings and chains grow daily, definitions hardly ever change.
AGES_S: Final = {
    "details": 7 * _DAY_S,
    "stocks": 7 * _DAY_S,
    "definitions": 7 * _DAY_S,
    "pairs": 7 * _DAY_S,
    "futures": _DAY_S,
    "search": _DAY_S,
    "strikes": _DAY_S,
    "chain": _DAY_S,
    "bonds": _DAY_S,
    "events": _DAY_S,
}
_DAMAGE: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS answers (
    scope TEXT NOT NULL,
    kind TEXT NOT NULL,
    key TEXT NOT NULL,
    body BLOB NOT NULL,
    stored_ns INTEGER NOT NULL,
    until_ns INTEGER NOT NULL,
    PRIMARY KEY (scope, kind, key)
) WITHOUT ROWID
"""


class CacheLine(msgspec.Struct, frozen=True, kw_only=True):
    """What the file holds of one kind, for one server and login.

    Attributes:
        entries: Answers that are still good; ``expired`` are not, and go with the next start.
        size: Bytes of all of them.
        oldest_ns: When the oldest of them came.
    """

    scope: str
    kind: str
    entries: int
    expired: int
    size: int
    oldest_ns: int


def cache_path() -> Path:
    """The file, in the state directory.

    Raises:
        UsageError: There is no state directory.
    """
    return state_directory() / FILE_NAME


def cache_scope(base_url: str, accounts: Iterable[str]) -> str:
    """What tells one server and login from others. Account ids do not show in it."""
    digest = hashlib.sha256("\n".join(sorted(accounts)).encode()).hexdigest()[:12]
    return f"{base_url.rstrip('/')} {digest}"


class ContractCache:
    """Answers of one scope.

    Args:
        path: The file, made if it is not there; ``None`` for one in memory.
        scope: See ``cache_scope``.
        now_ns: The time of day that ages are counted by: that of IBKR's data, not of an emulator's market.
    """

    def __init__(self, path: Path | None, scope: str, *, now_ns: Callable[[], int] = time.time_ns) -> None:
        self._path = path
        self._scope = scope
        self._now_ns = now_ns
        self._connection: sqlite3.Connection | None = None
        self._inode = 0
        self._told = False
        self._open()

    def get(self, kind: str, key: str) -> bytes | None:
        """The answer that was kept, unless it is too old."""
        query = "SELECT body FROM answers WHERE scope = ? AND kind = ? AND key = ? AND until_ns > ?"
        row = self._do(lambda db: db.execute(query, (self._scope, kind, key, self._now_ns())).fetchone())
        return bytes(row[0]) if row is not None else None

    def put(self, kind: str, key: str, body: bytes, *, until_ns: int | None = None) -> None:
        """Keep an answer.

        Args:
            kind: One of ``AGES_S``.
            key: What was asked.
            until_ns: It is good no longer than that: the end of a derivative.
        """
        now_ns = self._now_ns()
        good_ns = now_ns + AGES_S[kind] * NS_PER_S
        until_ns = good_ns if until_ns is None else min(good_ns, until_ns)
        row = (self._scope, kind, key, body, now_ns, until_ns)
        self._do(lambda db: db.execute("INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?, ?, ?)", row))

    def drop(self, kind: str, key: str) -> None:
        """Forget an answer."""
        query = "DELETE FROM answers WHERE scope = ? AND kind = ? AND key = ?"
        self._do(lambda db: db.execute(query, (self._scope, kind, key)))

    def keys(self, kind: str) -> tuple[str, ...]:
        """What was asked of that kind and is still good."""
        query = "SELECT key FROM answers WHERE scope = ? AND kind = ? AND until_ns > ?"
        rows = self._do(lambda db: db.execute(query, (self._scope, kind, self._now_ns())).fetchall())
        return tuple(str(row[0]) for row in rows or ())

    def close(self) -> None:
        """Give the file back; may be called twice."""
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None

    # -- the file --------------------------------------------------------------------------------

    def _open(self) -> None:
        for attempt in (1, 2):
            try:
                if self._path is None:
                    self._connection = sqlite3.connect(
                        ":memory:", isolation_level=None, check_same_thread=False
                    )
                    self._connection.execute(_SCHEMA)
                    return
                self._connection = _patiently(self._path)
                self._inode = self._path.stat().st_ino
                self._sweep()
                return
            except sqlite3.Error as problem:
                self.close()
                if attempt == 2 or not _is_damage(problem):
                    self._tell(problem)
                    return
                self._set_aside()
            except OSError as problem:
                self.close()
                self._tell(problem)
                return

    def _sweep(self) -> None:
        """Drop what is too old; if another process writes just now, the next start does."""
        assert self._connection is not None
        with contextlib.suppress(sqlite3.OperationalError):
            self._connection.execute("DELETE FROM answers WHERE until_ns <= ?", (self._now_ns(),))

    def _do(self, work: Callable[[sqlite3.Connection], T]) -> T | None:
        """What ``work`` gives; ``None`` where the file does not let it."""
        if self._connection is None:
            return None
        try:
            return work(self._connection)
        except sqlite3.Error as problem:
            if _is_damage(problem):
                self.close()
                self._set_aside()
                self._open()
            else:
                self._tell(problem)
            return None

    def _set_aside(self) -> None:
        """Move a damaged file away, unless another process has done so already."""
        if self._path is None:
            return
        with contextlib.suppress(OSError):
            if self._inode and self._path.stat().st_ino != self._inode:
                return
        away = self._path.with_name(f"{self._path.name}.damaged-{self._now_ns() // NS_PER_S}")
        with contextlib.suppress(OSError):
            self._path.replace(away)
            _log.warning("contract-cache-damaged path=%s moved-to=%s", self._path, away)
        for ending in ("-wal", "-shm"):
            with contextlib.suppress(OSError):
                Path(f"{self._path}{ending}").unlink()

    def _tell(self, problem: Exception) -> None:
        """Once: a cache that fails costs time, no more."""
        if not self._told:
            self._told = True
            _log.warning("contract-cache-unusable path=%s problem=%s", self._path, problem)


def cache_lines(path: Path, now_ns: int) -> tuple[CacheLine, ...]:
    """What the file holds, of all scopes; nothing where there is no file.

    Raises:
        OSError, sqlite3.Error: It cannot be read.
    """
    if not path.is_file():
        return ()
    query = (
        "SELECT scope, kind, sum(until_ns > :now), sum(until_ns <= :now), sum(length(body)), min(stored_ns) "
        "FROM answers GROUP BY scope, kind ORDER BY scope, kind"
    )
    with contextlib.closing(_patiently(path)) as connection:
        return tuple(
            CacheLine(scope=a, kind=b, entries=c, expired=d, size=e, oldest_ns=f)
            for a, b, c, d, e, f in connection.execute(query, {"now": now_ns})
        )


def clear_cache(path: Path) -> int:
    """Empty the file for all who use it; how many answers there were.

    Raises:
        OSError, sqlite3.Error: It cannot be written.
    """
    if not path.is_file():
        return 0
    with contextlib.closing(_patiently(path)) as connection:
        connection.execute("PRAGMA busy_timeout = 5000")
        return connection.execute("DELETE FROM answers").rowcount


def _patiently(path: Path) -> sqlite3.Connection:
    """Changing to a write-ahead log wants the file for itself, and SQLite does not wait for that."""
    for _ in range(_OPENINGS):
        try:
            return _connect(path)
        except sqlite3.OperationalError as problem:
            if getattr(problem, "sqlite_errorcode", 0) & 0xFF != sqlite3.SQLITE_BUSY:
                raise
            time.sleep(_OPENING_PAUSE_S)
    return _connect(path)


def _connect(path: Path) -> sqlite3.Connection:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Readable by its owner alone, as all of the state directory's files.
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    connection = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        # After a power cut the last answers may be missing: they are asked for again.
        connection.execute("PRAGMA synchronous = NORMAL")
        _prepare(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection) -> None:
    """Tables of this version; those of another are emptied."""
    if _is_ours(connection):
        return
    with _exclusive(connection):
        # Another process may have been here since.
        if _is_ours(connection):
            return
        connection.execute("DROP TABLE IF EXISTS answers")
        connection.execute(_SCHEMA)
        connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def _is_ours(connection: sqlite3.Connection) -> bool:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (owner,) = connection.execute("PRAGMA application_id").fetchone()
    return bool(version == SCHEMA_VERSION and owner == _APPLICATION_ID)


@contextlib.contextmanager
def _exclusive(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def _is_damage(problem: sqlite3.Error) -> bool:
    """Whether the file's contents are to blame."""
    return getattr(problem, "sqlite_errorcode", 0) & 0xFF in _DAMAGE
