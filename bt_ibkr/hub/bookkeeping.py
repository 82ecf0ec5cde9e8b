"""The books of the hub's accounts, kept over restarts.

Executions are in the journal, by the key of their orders, and so by strategy; they are counted from there. What is no
execution (the positions that were there when the books were opened, transfers, what IBKR reports beyond the books) is
an *entry* in a file of its own beside the journal. Books are made of both anew at each start, so that they cannot
drift from the record.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Callable, Iterable
from decimal import Decimal
from pathlib import Path
from typing import Final

import msgspec

from bt_ibkr.clock import Clock
from bt_ibkr.connection.interface import Difference
from bt_ibkr.errors import JournalError, UsageError
from bt_ibkr.hub.books import AccountBooks, Transfer
from bt_ibkr.hub.names import FLATTEN, UNALLOCATED, owner_of
from bt_ibkr.hub.settling import Settling
from bt_ibkr.journal import Journal, JournalExecution
from bt_ibkr.model.contract import Contract
from bt_ibkr.model.intent import OrderIntent
from bt_ibkr.model.order import Execution
from bt_ibkr.model.portfolio import Position
from bt_ibkr.services.executions import ExecutionBook

_log = logging.getLogger(__name__)

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS entries (
    number INTEGER PRIMARY KEY,
    time_ns INTEGER NOT NULL,
    account TEXT NOT NULL,
    after_execution INTEGER NOT NULL,
    kind TEXT NOT NULL,
    body BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS multipliers (conid INTEGER PRIMARY KEY, multiplier REAL NOT NULL);
CREATE TABLE IF NOT EXISTS strategies (
    name TEXT PRIMARY KEY,
    here INTEGER NOT NULL,
    told_ns INTEGER NOT NULL
);
"""
_VERSION: Final = 1


class _Opening(msgspec.Struct, frozen=True):
    """Positions that were there: conid to quantity and average price."""

    positions: dict[int, tuple[Decimal, float]]


class _Adjustment(msgspec.Struct, frozen=True):
    conid: int
    quantity: Decimal
    price: float
    text: str
    #: What has an earlier time is in it, however late it comes.
    as_of_ns: int = 0


class Bookkeeper:
    """The books of all accounts of one hub.

    Args:
        path: Of the entries; ``None`` for a hub that nobody has to remember.
        journal: Has the executions.
        clock: Gives entries their time.
        contract: The contract of a conid, as far as it is known.
    """

    def __init__(
        self,
        path: Path | None,
        journal: Journal,
        clock: Clock,
        contract: Callable[[int], Contract | None],
    ) -> None:
        self._journal = journal
        self._clock = clock
        self._contract = contract
        self._books: dict[str, AccountBooks] = {}
        #: Keys of orders that convert money: they leave no position of the pair.
        self._anew: set[str] = set()
        self._conversions: set[str] = set()
        #: The newest execution in the books, by account: its id, and its number in the journal as far as it is known.
        self._newest: dict[str, tuple[str, int]] = {}
        self._settling: dict[str, Settling] = {}
        #: Transfers that were done.
        self._references: set[str] = set()
        try:
            if path is not None:
                # Its owner's alone, like the journal; SQLite gives the files beside it the same mode.
                os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
            self._database = sqlite3.connect(
                path if path is not None else ":memory:", isolation_level=None, check_same_thread=False
            )
            self._check(path)
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute("PRAGMA synchronous = FULL")
            self._database.executescript(_SCHEMA)
        except (sqlite3.Error, OSError) as problem:
            raise _unusable(path, str(problem)) from None

    def _check(self, path: Path | None) -> None:
        version = int(self._database.execute("PRAGMA user_version").fetchone()[0])
        if version > _VERSION:
            raise JournalError(
                f"The hub's books {path} are of version {version}; this program knows {_VERSION}.",
                remedy="Use the newer program that made them.",
            )
        found = str(self._database.execute("PRAGMA quick_check(1)").fetchone()[0])
        if found != "ok":
            raise _unusable(path, found)
        self._database.execute(f"PRAGMA user_version = {_VERSION}")

    def close(self) -> None:
        self._database.close()

    # -- opening -------------------------------------------------------------------------------------

    def open(self, account: str, positions: Iterable[Position]) -> tuple[Difference, ...]:
        """Make the account's books from the record, and ``compare`` them with IBKR's ``positions``.

        The first time all there is goes into ``unallocated``.

        Raises:
            JournalError: The entries cannot be read, or not be written.
        """
        held = tuple(positions)
        try:
            self._replay(account, held)
        except (sqlite3.Error, msgspec.MsgspecError) as problem:
            raise _unusable(None, str(problem)) from None
        books = self._books[account]
        for conid in books.totals():
            self._know(books, conid)
        return self.compare(account, held)

    def begun_anew(self, account: str) -> bool:
        """Whether the account's books were begun at this start although strategies have traded in it before."""
        return account in self._anew

    def _replay(self, account: str, held: tuple[Position, ...]) -> None:
        books = self._books[account] = AccountBooks(account)
        self._settling[account] = Settling()
        for conid, multiplier in self._database.execute("SELECT conid, multiplier FROM multipliers"):
            books.know(conid, multiplier)
        self._conversions = {
            one.key for one in self._journal.orders() if one.intent.ticket.is_currency_conversion
        }
        executions = sorted(self._journal.executions(account=account), key=lambda one: one.number)
        newest = executions[-1].number if executions else 0
        if executions:
            self._newest[account] = (executions[-1].execution.execution_id, newest)
        entries = self._entries(account)
        if not entries or entries[-1][0] > newest:
            # The first time; or the journal is not the one that these entries were made beside.
            opening = _Opening({one.conid: (one.quantity, one.average_price) for one in held if one.quantity})
            self._write(account, "opening", opening, newest)
            entries = self._entries(account)
            if opening.positions and any(owner_of(one.key) is not None for one in executions):
                self._anew.add(account)
        begin = max(place for place, (_, kind, _) in enumerate(entries) if kind == "opening")
        opened = entries[begin][0]
        seen = ExecutionBook()
        pending = iter(executions)
        following = next(pending, None)
        for after, kind, raw in entries[begin:]:
            while following is not None and following.number <= after:
                self._count(books, seen, following, counts=following.number > opened)
                following = next(pending, None)
            self._apply(books, kind, raw)
        while following is not None:
            self._count(books, seen, following, counts=True)
            following = next(pending, None)

    def _count(
        self, books: AccountBooks, seen: ExecutionBook, one: JournalExecution, *, counts: bool
    ) -> None:
        """As it was counted when it came: corrections in the place of what they correct."""
        told = seen.add(one.execution)
        if counts and told.new:
            self._know(books, one.execution.conid)
            moves = one.key not in self._conversions
            books.take(one.execution, _owner(one.execution, one.key), told.replaces, moves=moves)

    def _apply(self, books: AccountBooks, kind: str, raw: bytes) -> None:
        if kind == "opening":
            for conid, (quantity, price) in msgspec.json.decode(raw, type=_Opening).positions.items():
                books.adjust(conid, quantity, price)
        elif kind == "adjustment":
            entry = msgspec.json.decode(raw, type=_Adjustment)
            books.adjust(entry.conid, entry.quantity, entry.price, entry.as_of_ns)
        elif kind == "transfer":
            transfer = msgspec.json.decode(raw, type=Transfer)
            self._references.add(transfer.reference)
            books.transfer(transfer)

    def _entries(self, account: str) -> list[tuple[int, str, bytes]]:
        rows = self._database.execute(
            "SELECT after_execution, kind, body FROM entries WHERE account = ? ORDER BY number", (account,)
        )
        return [(int(after), str(kind), bytes(raw)) for after, kind, raw in rows]

    def _write(self, account: str, kind: str, entry: object, after: int | None = None) -> None:
        if after is None:
            after = self._newest_number(account)
        try:
            self._database.execute(
                "INSERT INTO entries (time_ns, account, after_execution, kind, body) VALUES (?, ?, ?, ?, ?)",
                (self._clock.now_ns(), account, after, kind, msgspec.json.encode(entry)),
            )
        except sqlite3.Error as problem:
            raise JournalError(f"The hub's books could not be written: {problem}.") from None

    def _newest_number(self, account: str) -> int:
        """The journal's number of the newest execution in the books: entries stand between executions."""
        execution_id, number = self._newest.get(account, ("", 0))
        if execution_id and not number:
            for row in self._journal.versions(account, execution_id):
                if row.execution.execution_id == execution_id:
                    number = row.number
            # One that the journal could not take yet comes after the last that it did take.
            number = number or max(
                (one.number for one in self._journal.executions(account=account)), default=0
            )
            self._newest[account] = (execution_id, number)
        return number

    # -- while running -------------------------------------------------------------------------------

    def of(self, account: str) -> AccountBooks:
        """The books of an account that was opened."""
        return self._books[account]

    @property
    def accounts(self) -> tuple[str, ...]:
        return tuple(self._books)

    def know(self, contract: Contract) -> None:
        """Remember a contract's multiplier: executions do not tell it."""
        if any(books.multiplier(contract.conid) != contract.multiplier for books in self._books.values()):
            for books in self._books.values():
                books.know(contract.conid, contract.multiplier)
            self._database.execute(
                "INSERT OR REPLACE INTO multipliers (conid, multiplier) VALUES (?, ?)",
                (contract.conid, contract.multiplier),
            )

    def _know(self, books: AccountBooks, conid: int) -> None:
        contract = self._contract(conid)
        if contract is not None:
            books.know(conid, contract.multiplier)

    def placed(self, intent: OrderIntent) -> None:
        """An order was placed: whether it converts money, its executions do not tell."""
        if intent.ticket.is_currency_conversion:
            self._conversions.add(intent.key)

    def take(self, execution: Execution, key: str | None, replaces: Execution | None = None) -> str | None:
        """Count an execution that is in the journal; whose it is, ``None`` if nobody's."""
        books = self._books.get(execution.account)
        if books is None:
            return None
        self._know(books, execution.conid)
        owner = _owner(execution, key)
        if books.owner(execution.execution_id) is None:
            self._newest[execution.account] = (execution.execution_id, 0)
        explained = books.explained
        books.take(execution, owner, replaces, moves=key not in self._conversions)
        self._settling[execution.account].executed(execution.conid)
        if books.explained > explained:
            _log.warning(
                "hub-books-explained account=%s execution=%s: what was put into %s for it is not there any more",
                execution.account,
                execution.execution_id,
                UNALLOCATED,
            )
        return owner

    def take_commission(self, execution: Execution) -> str | None:
        """A commission that came after its execution; whose that is, ``None`` if nobody's."""
        books = self._books.get(execution.account)
        owner = None if books is None else books.take_commission(execution)
        if owner is None:
            # From before the books: the journal knows its order.
            for row in self._journal.versions(execution.account, execution.execution_id):
                owner = _owner(row.execution, row.key) or owner
        return None if owner == UNALLOCATED else owner

    # -- who was here --------------------------------------------------------------------------------

    def came(self, name: str) -> None:
        """A strategy is here: should it vanish, also while no hub runs, its policy says what is done."""
        self._remember(
            "INSERT INTO strategies (name, here, told_ns) VALUES (?, 1, ?) "
            "ON CONFLICT (name) DO UPDATE SET here = 1",
            [(name, self._clock.now_ns())],
        )

    def went(self, name: str) -> None:
        """It said goodbye, or was dealt with."""
        self._remember("UPDATE strategies SET here = 0 WHERE name = ?", [(name,)])

    def told(self, names: Iterable[str]) -> None:
        """These have heard of all that became of their orders up to now."""
        now_ns = self._clock.now_ns()
        self._remember("UPDATE strategies SET told_ns = ? WHERE name = ?", [(now_ns, name) for name in names])

    def told_ns(self, name: str) -> int | None:
        """Market time up to which it, or the process before it, has heard of all; ``None`` if it never was here."""
        row = self._database.execute("SELECT told_ns FROM strategies WHERE name = ?", (name,)).fetchone()
        return None if row is None else int(row[0])

    def expected(self) -> tuple[str, ...]:
        """Strategies that were here and have not said goodbye."""
        rows = self._database.execute("SELECT name FROM strategies WHERE here = 1 ORDER BY name")
        return tuple(str(name) for (name,) in rows)

    def _remember(self, statement: str, rows: list[tuple[object, ...]]) -> None:
        try:
            self._database.execute("BEGIN IMMEDIATE")
            try:
                self._database.executemany(statement, rows)
            finally:
                self._database.execute("COMMIT")
        except sqlite3.Error as problem:
            _log.error("hub-books-unwritten problem=%s", problem)

    # -- what is no execution ------------------------------------------------------------------------

    def transfer(self, wanted: Transfer) -> Transfer | None:
        """Move quantity between books, for good; one of the same reference once only.

        Returns:
            It with its price; ``None`` if it was done before.

        Raises:
            UsageError: As ``AccountBooks.transfer``, or the account is not the hub's.
            JournalError: It could not be written, and was not done.
        """
        books = self._books.get(wanted.account)
        if books is None:
            raise UsageError(
                f"The hub keeps no books of account {wanted.account!r}.",
                remedy=f"Its accounts: {', '.join(self._books) or 'none'}.",
            )
        if wanted.reference in self._references:
            return None
        self._know(books, wanted.conid)
        priced = msgspec.structs.replace(wanted, price=books.transfer_price(wanted))
        self._write(wanted.account, "transfer", priced)
        self._references.add(wanted.reference)
        books.transfer(priced)
        return priced

    def compare(self, account: str, positions: Iterable[Position]) -> tuple[Difference, ...]:
        """Put into ``unallocated`` what IBKR reports and the books do not have, once that is certain; tells what.

        A difference counts at the second reading that has it (see ``Settling``): before, an execution may be under
        way, or IBKR's positions behind.

        Raises:
            JournalError: It could not be written; what follows in the list was not put anywhere.
        """
        books = self._books[account]
        reported = {one.conid: one for one in positions}
        quantities = {conid: one.quantity for conid, one in reported.items()}
        settled = self._settling[account].read(
            quantities, books.differences(quantities.items()), self._clock.now_ns()
        )
        return tuple(
            self._adjust(books, conid, reported.get(conid), one.quantity, one.as_of_ns)
            for conid, one in settled.items()
        )

    def uncertain(self, account: str) -> bool:
        """Whether something differed at the last comparison that the next one has to confirm."""
        return self._settling[account].waiting

    def _adjust(
        self, books: AccountBooks, conid: int, told: Position | None, difference: Decimal, as_of_ns: int
    ) -> Difference:
        account = books.account
        self._know(books, conid)
        price = told.average_price if told is not None else books.book(UNALLOCATED).average_price(conid)
        name = told.symbol if told is not None and told.symbol else str(conid)
        recorded = books.total(conid)
        text = (
            f"{name} in {account}: the books sum to {recorded}, IBKR reports "
            f"{told.quantity if told is not None else 0}; {difference:+} was put into the book {UNALLOCATED}."
        )
        self._write(account, "adjustment", _Adjustment(conid, difference, price, text, as_of_ns))
        books.adjust(conid, difference, price, as_of_ns)
        return Difference(
            kind="position",
            subject=name,
            recorded=f"{recorded:f}",
            reported=f"{recorded + difference:f}",
            text=text,
        )


def _owner(execution: Execution, key: str | None) -> str | None:
    """The strategy of an order's key. Orders by which another process has closed all positions have only their
    ``cOID``: nobody here has placed them."""
    if key is None and owner_of(execution.order_ref) == FLATTEN:
        return FLATTEN
    return owner_of(key)


def _unusable(path: Path | None, problem: str) -> JournalError:
    which = "" if path is None else f" {path}"
    return JournalError(
        f"The hub's books{which} cannot be read: {problem}.",
        remedy="Move the file away to begin books anew: all positions are unallocated then.",
    )
