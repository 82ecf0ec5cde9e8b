"""The books of the hub's accounts, kept over restarts.

Executions are in the journal, by the key of their orders, and so by strategy; they are counted from there. What is no
execution (the positions that were there when the books were opened, transfers, what IBKR reports beyond the books) is
an *entry* in a file of its own beside the journal. Books are made of both anew at each start, so that they cannot
drift from the record.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable
from decimal import Decimal
from pathlib import Path
from typing import Final

import msgspec

from bt_ibkr.clock import Clock
from bt_ibkr.connection.interface import Difference
from bt_ibkr.errors import JournalError, UsageError
from bt_ibkr.hub.books import UNALLOCATED, AccountBooks, Transfer
from bt_ibkr.hub.names import owner_of
from bt_ibkr.journal import Journal
from bt_ibkr.model.contract import Contract
from bt_ibkr.model.intent import OrderIntent
from bt_ibkr.model.order import Execution
from bt_ibkr.model.portfolio import Position

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
        self._conversions: set[str] = set()
        try:
            self._database = sqlite3.connect(
                path if path is not None else ":memory:", isolation_level=None, check_same_thread=False
            )
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute("PRAGMA synchronous = FULL")
            self._check_version(path)
            self._database.executescript(_SCHEMA)
        except sqlite3.Error as problem:
            raise JournalError(
                f"The hub's books {path} cannot be opened: {problem}.",
                remedy="Move the file away to begin books anew: all positions are then unallocated.",
            ) from None

    def _check_version(self, path: Path | None) -> None:
        version = int(self._database.execute("PRAGMA user_version").fetchone()[0])
        if version > _VERSION:
            raise JournalError(
                f"The hub's books {path} are of version {version}; this program knows {_VERSION}.",
                remedy="Use the newer program that made them.",
            )
        self._database.execute(f"PRAGMA user_version = {_VERSION}")

    def close(self) -> None:
        self._database.close()

    # -- opening -------------------------------------------------------------------------------------

    def open(self, account: str, positions: Iterable[Position]) -> tuple[Difference, ...]:
        """Make the account's books from the record, and compare them with IBKR's ``positions``.

        What differs is put into ``unallocated``; the first time, that is all there is.
        """
        held = tuple(positions)
        books = self._books[account] = AccountBooks(account)
        for conid, multiplier in self._database.execute("SELECT conid, multiplier FROM multipliers"):
            books.know(conid, multiplier)
        entries = self._entries(account)
        executions = self._journal.executions(account=account)
        self._conversions = {
            one.key for one in self._journal.orders() if one.intent.ticket.is_currency_conversion
        }
        if not entries:
            newest = max((one.number for one in executions), default=0)
            opening = _Opening({one.conid: (one.quantity, one.average_price) for one in held if one.quantity})
            self._write(account, "opening", opening, newest)
            entries = self._entries(account)
        begin = entries[0][0]
        pending = iter(sorted((one for one in executions if one.number > begin), key=lambda one: one.number))
        following = next(pending, None)
        for after, kind, raw in entries:
            while following is not None and following.number <= after:
                self._count(books, following.execution, following.key, following.superseded)
                following = next(pending, None)
            self._apply(books, kind, raw)
        while following is not None:
            self._count(books, following.execution, following.key, following.superseded)
            following = next(pending, None)
        return self.compare(account, held)

    def _count(self, books: AccountBooks, execution: Execution, key: str | None, superseded: bool) -> None:
        if not superseded and key not in self._conversions:
            self._know(books, execution.conid)
            books.take(execution, owner_of(key))

    def _apply(self, books: AccountBooks, kind: str, raw: bytes) -> None:
        if kind == "opening":
            for conid, (quantity, price) in msgspec.json.decode(raw, type=_Opening).positions.items():
                books.adjust(conid, quantity, price)
        elif kind == "adjustment":
            entry = msgspec.json.decode(raw, type=_Adjustment)
            books.adjust(entry.conid, entry.quantity, entry.price)
        elif kind == "transfer":
            books.transfer(msgspec.json.decode(raw, type=Transfer))

    def _entries(self, account: str) -> list[tuple[int, str, bytes]]:
        rows = self._database.execute(
            "SELECT after_execution, kind, body FROM entries WHERE account = ? ORDER BY number", (account,)
        )
        return [(int(after), str(kind), bytes(raw)) for after, kind, raw in rows]

    def _write(self, account: str, kind: str, entry: object, after: int | None = None) -> None:
        if after is None:
            after = max((one.number for one in self._journal.executions(account=account)), default=0)
        try:
            self._database.execute(
                "INSERT INTO entries (time_ns, account, after_execution, kind, body) VALUES (?, ?, ?, ?, ?)",
                (self._clock.now_ns(), account, after, kind, msgspec.json.encode(entry)),
            )
        except sqlite3.Error as problem:
            raise JournalError(f"The hub's books could not be written: {problem}.") from None

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
        """Count an execution that is in the journal; whose book it went to, ``None`` if to nobody's."""
        books = self._books.get(execution.account)
        if books is None:
            return None
        if key in self._conversions:
            return owner_of(key)
        self._know(books, execution.conid)
        books.take(execution, owner_of(key), replaces)
        return books.owner(execution.execution_id)

    def take_commission(self, execution: Execution) -> str | None:
        """See ``AccountBooks.take_commission``."""
        books = self._books.get(execution.account)
        return None if books is None else books.take_commission(execution)

    def transfer(self, wanted: Transfer) -> None:
        """Move quantity between books, for good.

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
        priced = msgspec.structs.replace(wanted, price=books.transfer_price(wanted))
        self._write(wanted.account, "transfer", priced)
        books.transfer(priced)

    def compare(self, account: str, positions: Iterable[Position]) -> tuple[Difference, ...]:
        """Put into ``unallocated`` what IBKR reports and the books do not have; tells what."""
        books = self._books[account]
        reported = {one.conid: one for one in positions}
        found = []
        for conid, difference in books.differences(
            (one.conid, one.quantity) for one in reported.values()
        ).items():
            told = reported.get(conid)
            self._know(books, conid)
            price = told.average_price if told is not None else books.book(UNALLOCATED).average_price(conid)
            name = told.symbol if told is not None and told.symbol else str(conid)
            text = (
                f"{name} in {account}: the books sum to {books.total(conid)}, IBKR reports "
                f"{told.quantity if told is not None else 0}; {difference:+} was put into the book {UNALLOCATED}."
            )
            recorded = books.total(conid)
            self._write(account, "adjustment", _Adjustment(conid, difference, price, text))
            books.adjust(conid, difference, price)
            found.append(
                Difference(
                    kind="position",
                    subject=name,
                    recorded=f"{recorded:f}",
                    reported=f"{recorded + difference:f}",
                    text=text,
                )
            )
        return tuple(found)
