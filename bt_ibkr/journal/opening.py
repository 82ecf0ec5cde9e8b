"""Opening a journal's file: whose it is, whether it is whole, and what to do if not."""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
import time
from pathlib import Path
from typing import Final

import msgspec

from bt_ibkr.clock import Clock
from bt_ibkr.config import state_directory
from bt_ibkr.errors import JournalError, UsageError
from bt_ibkr.journal import queries, tables
from bt_ibkr.journal.database import Database, is_damage
from bt_ibkr.journal.lock import OwnerLock
from bt_ibkr.journal.pages import WalSize, wal_size
from bt_ibkr.journal.records import EventKind, Repair
from bt_ibkr.journal.salvage import salvage
from bt_ibkr.journal.schema import new_epoch
from bt_ibkr.journal.steps import step
from bt_ibkr.model.intent import OrderState

_OWNER_TIMEOUT_S: Final = 2.0
_VISITOR_TIMEOUT_S: Final = 10.0
#: So many complaints of SQLite's check are enough.
_MOST_PROBLEMS: Final = 5
_ACCOUNT: Final = re.compile(r"[A-Za-z0-9_-]{1,40}", re.ASCII)
_SQLITE_HEAD: Final = b"SQLite format 3\0"
#: Where the repair is written down until it has been told.
_NOTICE: Final = "repaired"

_encode_repair: Final = msgspec.json.Encoder(enc_hook=str).encode
_decode_repair: Final = msgspec.json.Decoder(
    Repair, dec_hook=lambda kind, value: Path(value) if kind is Path else value
).decode


def journal_path(account: str, folder: Path | None = None) -> Path:
    """Where the journal of an account lies: one for each, so that its lock keeps a second program off the account.

    Args:
        account: IBKR account id.
        folder: Instead of the state directory.

    Raises:
        UsageError: That is no account id, or there is no state directory.
    """
    if not _ACCOUNT.fullmatch(account):
        raise UsageError(
            f"The account {account!r} is no IBKR account id.", remedy="Give it as IBKR writes it: U1234567."
        )
    return (folder or state_directory()) / f"journal-{account}.sqlite"


def open_file(
    path: Path | None, clock: Clock, exclusive: bool, busy_timeout_s: float | None
) -> tuple[Database, OwnerLock | None, Path | None, Repair | None]:
    """What ``Journal.open`` says.

    Returns:
        The database, the owner's lock, the file's real place, and what was repaired.
    """
    if busy_timeout_s is None:
        busy_timeout_s = _OWNER_TIMEOUT_S if exclusive else _VISITOR_TIMEOUT_S
    if path is None:
        return Database(None, busy_timeout_s=busy_timeout_s), None, None, None
    path = _place(path)
    if not exclusive:
        return _visit(path, busy_timeout_s), None, path, None
    lock = OwnerLock(_beside(path, ".lock"))
    try:
        database = _own(path, clock, busy_timeout_s)
        try:
            return database, lock, path, _notice(database)
        except BaseException:
            database.close()
            raise
    except BaseException:
        lock.release()
        raise


def _place(path: Path) -> Path:
    """The file's real place, in a folder that is there."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return path.resolve()
    except OSError as problem:
        raise JournalError(
            f"The journal's folder {path.parent} cannot be made: {problem.strerror}.",
            remedy="Name another with BT_IBKR_HOME.",
        ) from None


def _beside(path: Path, ending: str) -> Path:
    return path.with_name(path.name + ending)


def _visit(path: Path, busy_timeout_s: float) -> Database:
    try:
        return Database(path, busy_timeout_s=busy_timeout_s, migrate=False)
    except sqlite3.DatabaseError as problem:
        raise JournalError(
            f"The journal {path} is damaged: {problem}.",
            remedy="Start the program that owns it: it saves what can be read.",
        ) from None


def _own(path: Path, clock: Clock, busy_timeout_s: float) -> Database:
    try:
        _finish_repair(path, clock)
        log = wal_size(_beside(path, "-wal"))
        if log.frames and not (path.exists() and path.stat().st_size):
            # SQLite would throw the log away.
            _repair(path, clock, ["the file is empty, but its log is not"], log)
            log = wal_size(_beside(path, "-wal"))
    except OSError as problem:
        raise _unreadable(path, problem) from None
    found: list[str] = []
    try:
        database = Database(path, busy_timeout_s=busy_timeout_s)
        try:
            found = _complaints(database)
            if not found:
                _cut_torn(database, clock, log)
                return database
            database.close()
        except BaseException:
            database.close()
            raise
    except sqlite3.DatabaseError as problem:
        if not is_damage(problem):
            raise JournalError(
                f"The journal {path} could not be opened: {problem}.",
                remedy="Look at that disk, and who else has the file open.",
            ) from None
        found = [str(problem)]
        _refuse_foreign(path)
    try:
        _repair(path, clock, found, log)
    except OSError as problem:
        raise _unreadable(path, problem) from None
    return Database(path, busy_timeout_s=busy_timeout_s)


def _unreadable(path: Path, problem: OSError) -> JournalError:
    return JournalError(
        f"The journal {path} cannot be read or repaired: {problem.strerror} ({problem.filename}).",
        remedy="Look at that disk, its space, and the rights of the file.",
    )


def _refuse_foreign(path: Path) -> None:
    """A file that SQLite does not know at all, and that holds nothing of ours, is somebody else's."""
    with path.open("rb") as file:
        head = file.read(len(_SQLITE_HEAD))
    if head == _SQLITE_HEAD or not head.strip(b"\0") or salvage(path, _beside(path, "-wal")).anything:
        return
    raise JournalError(
        f"The file {path} is no journal of orders.",
        remedy="Name another file or folder (BT_IBKR_HOME), or move that file away.",
    )


def _complaints(database: Database) -> list[str]:
    """What SQLite's check says, and which open orders are not readable: the former looks at structure alone."""
    execute = database.connection.execute
    said = [str(text) for (text,) in execute(f"PRAGMA integrity_check({_MOST_PROBLEMS})").fetchall()]
    if said != ["ok"]:
        return said
    found = []
    for ask in (queries.epoch, queries.trading_state):
        try:
            ask(execute)
        except JournalError as problem:
            found.append(problem.message)
    # As bytes: text that is no text any more would not even be handed over.
    query = "SELECT number, CAST(state AS BLOB), CAST(intent AS BLOB) FROM orders WHERE open = 1"
    for number, state, intent in execute(query).fetchall():
        try:
            OrderState(state.decode())
            tables.decode_parts(intent)
        except (ValueError, msgspec.DecodeError) as problem:
            found.append(f"order number {number} is not readable: {problem}")
    return found


def _cut_torn(database: Database, clock: Clock, log: WalSize) -> None:
    """SQLite takes from the log what was committed and drops the rest without a word. What it dropped may be an entry
    that was cut short by a crash, or one that was damaged after an order was sent on it: no key is used again."""
    # This merges the log into the file as well, so that it begins small.
    _, used, _ = database.connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    cut = log.frames - max(used, 0)
    if not log.frames or cut <= 0:
        return
    # The log goes on with the same salts: what is behind its end would look torn again after the next crash.
    database.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    what = "its last entry was not whole" if log.sound_head else "the head of its log was not whole"
    with database.write("repair", "note its repair") as execute:
        (orders,) = execute("SELECT count(*) FROM orders").fetchone()
        (executions,) = execute("SELECT count(*) FROM executions").fetchone()
        (events,) = execute("SELECT count(*) FROM events").fetchone()
        repair = Repair(found=(what,), orders=orders, executions=executions, events=events, cut_frames=cut)
        note_repair(execute, clock.now_ns(), repair)


def note_repair(execute: tables.Execute, now_ns: int, repair: Repair, number: int | None = None) -> None:
    """Write down what was done, until it has been told; and begin a new epoch."""
    body = _encode_repair(repair).decode()
    execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (_NOTICE, body))
    execute("INSERT OR REPLACE INTO meta VALUES ('epoch', ?)", (new_epoch(),))
    tables.add_event(execute, now_ns, None, EventKind.REPAIRED, repair.describe(), body, number)


def _notice(database: Database) -> Repair | None:
    with database.read("be read") as execute:
        row = execute("SELECT value FROM meta WHERE name = ?", (_NOTICE,)).fetchone()
    return _decode_repair(row[0]) if row is not None else None


def forget_repair(database: Database) -> None:
    """The owner had the notice, and ended in order."""
    # If this cannot be written, it is told once more.
    with contextlib.suppress(JournalError):
        if _notice(database) is not None:
            with database.write("told", "close") as execute:
                execute("DELETE FROM meta WHERE name = ?", (_NOTICE,))


def _repair(path: Path, clock: Clock, found: list[str], log: WalSize) -> None:
    """Save what can be read into a new file, and put it in the place of the damaged one.

    The new file is complete before anything is moved, and it bears a name by which the next start finds it and
    finishes: at no moment is there a place for an empty journal.
    """
    unfinished = _beside(path, ".unfinished")
    for ending in ("", "-wal", "-shm"):
        _beside(unfinished, ending).unlink(missing_ok=True)
    saved = salvage(path, _beside(path, "-wal"))
    aside = _aside(path)
    database = Database(unfinished, busy_timeout_s=_OWNER_TIMEOUT_S)
    try:
        with database.write("salvage", "be repaired") as execute:
            repair = saved.restore(execute, tuple(found), aside, log)
            # Behind every entry there was: rows tell by these numbers which of them is newer.
            number = repair.events + repair.lost_events + 1
            note_repair(execute, clock.now_ns(), repair, number)
        database.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    finally:
        database.close()
    step("journal.repair.written")
    unfinished.rename(_beside(path, ".salvaged"))
    _sync_folder(path)
    step("journal.repair.named")
    _finish_repair(path, clock, aside)


def _finish_repair(path: Path, clock: Clock, aside: Path | None = None) -> None:
    """Put a new file that is complete in the place of the damaged one, as often as it takes."""
    salvaged = _beside(path, ".salvaged")
    if not salvaged.exists():
        return
    if aside is None:
        aside = _aside(path)
    log = _beside(path, "-wal")
    if log.exists():
        # It belongs to the damaged file; the new one must never find it.
        log.rename(_beside(aside, "-wal"))
    step("journal.repair.log_aside")
    _beside(path, "-shm").unlink(missing_ok=True)
    if path.exists():
        path.rename(aside)
    step("journal.repair.aside")
    salvaged.rename(path)
    _sync_folder(path)
    step("journal.repair.done")


def _aside(path: Path) -> Path:
    """A free name beside the file, with the machine's time: people look for it by that."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    for count in range(1, 1000):
        name = _beside(path, f".damaged-{stamp}" + (f"-{count}" if count > 1 else ""))
        if not name.exists() and not _beside(name, "-wal").exists():
            return name
    raise JournalError(f"The folder {path.parent} is full of damaged journals.", remedy="Move them away.")


def _sync_folder(path: Path) -> None:
    """A new name is on the disk with its folder; Windows has no such call and needs none."""
    if os.name == "nt":
        return
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
