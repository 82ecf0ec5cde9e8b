"""The journal: orders, what became of them, executions and the trading state, kept over restarts.

What is to be sent is committed here first; whatever happens then, a restart knows that it may stand at IBKR. Used
synchronously, by one thread at a time, and by one process, apart from the command line's short visits.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Final

from bt_ibkr.clock import Clock
from bt_ibkr.errors import JournalError, TradingHaltedError
from bt_ibkr.journal import queries, tables
from bt_ibkr.journal.database import Database, Reading
from bt_ibkr.journal.intake import ExecutionIntake
from bt_ibkr.journal.lock import OwnerLock
from bt_ibkr.journal.opening import forget_repair, open_file
from bt_ibkr.journal.records import (
    RESERVED,
    EventKind,
    JournalEvent,
    JournalExecution,
    JournalOrder,
    PositionsBaseline,
    Repair,
)
from bt_ibkr.journal.tables import Execute
from bt_ibkr.journal.transitions import check_transition
from bt_ibkr.model.intent import OrderIntent, OrderState, parse_key
from bt_ibkr.model.order import Execution, OrderTicket
from bt_ibkr.model.trading import Trading, TradingState

#: An intent is refused with less room than this on the disk, so that what comes of those sent can still be noted.
RESERVE_BYTES: Final = 4_000_000
#: What a modification never changes.
_FIXED: Final = ("account", "contract_id", "side", "client_order_id", "parent")


class Journal:
    """Made by ``open``.

    Attributes:
        path: The file's real place; ``None`` in memory.
        repaired: What was wrong with the file when it was opened; ``None`` if nothing was.
        reserve_bytes: With less room than this on the disk no intent is taken.
    """

    def __init__(
        self,
        database: Database,
        lock: OwnerLock | None,
        clock: Clock,
        path: Path | None,
        repaired: Repair | None,
    ) -> None:
        self.path = path
        self._folder = str(path.parent) if path is not None else None
        self.repaired = repaired
        self.reserve_bytes = RESERVE_BYTES
        self._database = database
        self._lock = lock
        self._clock = clock
        self._intake = ExecutionIntake()
        with self._read() as execute:
            self._epoch = queries.epoch(execute)

    @classmethod
    def open(
        cls,
        path: Path | None,
        *,
        clock: Clock,
        exclusive: bool = True,
        busy_timeout_s: float | None = None,
        epoch: str | None = None,
    ) -> Journal:
        """Open or make a journal.

        Args:
            path: Its file; ``None`` for one in memory, which is gone with the process.
            clock: Gives the entries their time.
            exclusive: Be its owner, as whoever places orders must be: a damaged file is repaired then. Without,
                it is read, the trading state is set, and orders that flatten positions are intended beside the
                owner.
            busy_timeout_s: How long to wait for another process that writes; 2 s for the owner, 10 s for others.
            epoch: Of a journal in memory, for an account that ends with it: keys are then the same in every run.

        Raises:
            JournalLockedError: It has an owner already; the message names it.
            JournalError: It cannot be opened, is no journal, or is of a later version.
        """
        database, lock, place, repaired = open_file(path, clock, exclusive, busy_timeout_s)
        journal = cls(database, lock, clock, place, repaired)
        if epoch is not None and path is None:
            journal._epoch = epoch
        return journal

    def close(self) -> None:
        """Leave it; the file is whole by itself then. A second call does nothing."""
        try:
            if self._lock is not None and self.repaired is not None and not self._database.closed:
                forget_repair(self._database)
            self._database.close()
        finally:
            if self._lock is not None:
                self._lock.release()

    # Keys

    @property
    def epoch(self) -> str:
        """The middle part of new keys: random, made with the file, and anew where entries may have been lost."""
        return self._epoch

    def next_sequences(self) -> dict[str, int]:
        """The next free number by name; names that are not in it begin at 1."""
        with self._read() as execute:
            return queries.next_sequences(execute)

    # Orders

    def intend(self, intents: Sequence[OrderIntent], *, closing: bool = False) -> None:
        """Commit what is to be sent, all or nothing. Only then may it be sent.

        Args:
            intents: What is to be sent.
            closing: A person has positions closed: the one thing that a halt lets pass. Nobody else may then close
                them at the same time, as strategies could if trading were only REDUCING.

        Raises:
            TradingHaltedError: The trading state, read in the same transaction, forbids one of them.
            JournalError: It is not on the disk: nothing may be sent. Also for a key that is taken, malformed, of
                another epoch, or not the ticket's ``client_order_id``.
        """
        if not intents:
            return
        for intent in intents:
            self._check_key(intent)
        rows = [(intent, tables.encode(intent)) for intent in intents]
        self._check_room()
        now_ns = self._clock.now_ns()
        with self._database.write("intend", "take an order in; it was not sent") as execute:
            if not closing and not queries.is_active(execute):
                _check_trading(queries.trading_state(execute), intents)
            for intent, body in rows:
                entry = tables.add_event(execute, now_ns, intent.key, EventKind.INTENDED, "", body)
                account = intent.ticket.account
                try:
                    tables.add_order(execute, entry, intent.key, intent.strategy, account, body)
                except sqlite3.IntegrityError:
                    raise JournalError(
                        f"The journal {self._database.name} has an order {intent.key!r} already: it was not sent.",
                        remedy="Take the next number of next_sequences().",
                    ) from None

    def _check_key(self, intent: OrderIntent) -> None:
        parts = parse_key(intent.key)
        own = intent.ticket.client_order_id
        if parts is None:
            why = "is not of the form NAME.EPOCH.NUMBER"
        elif parts.epoch != self._epoch:
            why = f"is not of this journal's epoch {self._epoch}"
        elif own is not None and own != intent.key:
            why = f"is not the client order id {own!r} of its ticket"
        else:
            return
        raise JournalError(
            f"The key {intent.key!r} {why}: the order was not sent.",
            remedy="Make keys with make_key() and the journal's epoch.",
        )

    def _check_room(self) -> None:
        if self._folder is None or not hasattr(os, "statvfs"):
            return
        try:
            space = os.statvfs(self._folder)
        except OSError as problem:
            raise JournalError(
                f"The folder of the journal {self._database.name} is gone: {problem.strerror}; no order was sent."
            ) from None
        free = space.f_bavail * space.f_frsize
        if free < self.reserve_bytes:
            raise JournalError(
                f"The disk of the journal {self._database.name} has {free:,} bytes left of the "
                f"{self.reserve_bytes:,} that are kept for what becomes of orders: no order was sent.",
                remedy="Make room on that disk; nothing need be restarted.",
            )

    def note(
        self,
        key: str,
        state: OrderState,
        *,
        order_id: str | None = None,
        text: str = "",
        durable: bool = True,
    ) -> None:
        """Note what became of an order.

        Args:
            key: The order's.
            state: The state it is in now, which may be the one it was in.
            order_id: IBKR's, if it is known; a new one is added to those it had.
            text: What IBKR or the program says of it.
            durable: Whether it must survive a power cut; what IBKR would tell again need not.

        Raises:
            JournalError: No such order, an order never goes from its state to that, another open order has the id,
                or it is not on the disk.
        """
        now_ns = self._clock.now_ns()
        with self._database.write("note", f"note {state.value} of {key}", durable=durable) as execute:
            order = self._standing(execute, key)
            ticket = order.intent.ticket
            if order.state is not state:
                check_transition(
                    key, order.state, state, ticket.quantity, lambda: queries.fills(execute, key)
                )
            if order_id is not None and order_id != order.order_id:
                _check_order_id(execute, key, ticket.account, order_id)
            body = tables.encode(tables.StateNote(state, order_id))
            entry = tables.add_event(execute, now_ns, key, EventKind.STATE, text, body)
            tables.set_state(execute, entry, key, ticket.account, state, order_id, text)

    def _standing(self, execute: Execute, key: str) -> JournalOrder:
        order = queries.order(execute, key)
        if order is None:
            raise JournalError(f"The journal {self._database.name} has no order {key!r}.")
        return order

    def note_event(
        self,
        key: str | None,
        kind: str,
        text: str = "",
        *,
        payload: object = None,
        durable: bool = True,
    ) -> None:
        """Append to the log what changes no state: a question and its answer, a modification asked for …

        Args:
            key: The order it is about, if it is about one.
            kind: A word; those of ``EventKind`` are the journal's own.
            text: For people.
            payload: Anything JSON or msgspec can say.
            durable: As in ``note``.

        Raises:
            JournalError: The kind is the journal's own, or it is not on the disk.
        """
        if kind in RESERVED:
            raise JournalError(f"Entries of kind {kind!r} are made by the journal itself.")
        body = "" if payload is None else tables.encode(payload)
        now_ns = self._clock.now_ns()
        with self._database.write("event", f"note {kind}", durable=durable) as execute:
            tables.add_event(execute, now_ns, key, kind, text, body)

    def replace_ticket(self, key: str, ticket: OrderTicket) -> None:
        """IBKR accepted a modification: this is the order now.

        Raises:
            JournalError: No such order, the ticket is of another contract, side or account, or it is not on the
                disk.
        """
        now_ns = self._clock.now_ns()
        body = tables.encode(ticket)
        with self._database.write("ticket", f"note the modification of {key}") as execute:
            old = self._standing(execute, key).intent.ticket
            for field in _FIXED:
                if getattr(old, field) != getattr(ticket, field):
                    raise JournalError(
                        f"The order {key} has {field} {getattr(old, field)!r}; a modification cannot make it "
                        f"{getattr(ticket, field)!r}."
                    )
            entry = tables.add_event(execute, now_ns, key, EventKind.TICKET, "", body)
            tables.set_ticket(execute, entry, key, body)

    def set_expiry(self, key: str, expires_ns: int | None) -> None:
        """The adapter ends the order at another moment now; ``None``: it does not any more.

        Raises:
            JournalError: No such order, or it is not on the disk.
        """
        now_ns = self._clock.now_ns()
        body = tables.encode(tables.ExpiryNote(expires_ns))
        with self._database.write("expiry", f"note the expiry of {key}") as execute:
            if self._standing(execute, key).intent.expires_ns == expires_ns:
                return
            entry = tables.add_event(execute, now_ns, key, EventKind.EXPIRY, "", body)
            tables.set_expiry(execute, entry, key, expires_ns)

    def orders(
        self, *, open_only: bool = False, strategy: str | None = None, since_ns: int | None = None
    ) -> tuple[JournalOrder, ...]:
        """Orders, in the order in which they were intended.

        Args:
            open_only: Only those that may stand at IBKR; this does not read the others.
            strategy: Only those of this strategy.
            since_ns: Only those about which something was noted at or after this time.
        """
        with self._read() as execute:
            return queries.orders(execute, open_only=open_only, strategy=strategy, since_ns=since_ns)

    def order(self, key: str) -> JournalOrder | None:
        """The order of this key."""
        with self._read() as execute:
            return queries.order(execute, key)

    def by_order_id(self, account: str, order_id: str) -> JournalOrder | None:
        """The order that has, or had before a modification, this id of IBKR's."""
        with self._read() as execute:
            return queries.by_order_id(execute, account, order_id)

    # Executions

    def add_executions(self, executions: Sequence[tuple[Execution, str | None, str]]) -> list[bool]:
        """Take executions in, whatever brings them and however often.

        An execution is known by account and ``execution_id``. One that comes again adds what was missing (commission,
        order) and changes nothing else. A correction, which has the id but for its last part, takes the place of
        the one before; both are kept.

        Args:
            executions: Each with the key of its order, if it is one of ours, and what brought it.

        Returns:
            For each, whether it is to be applied: it is new, and no correction of it was here first.

        Raises:
            JournalError: They are not on the disk; none of them is taken in.
        """
        if not executions:
            return []
        with self._database.write("executions", "take executions in") as execute:
            applied, told = self._intake.add(execute, self._clock.now_ns(), executions)
        self._intake.committed(told)
        return applied

    def executions(
        self,
        *,
        key: str | None = None,
        since_ns: int | None = None,
        strategy: str | None = None,
        account: str | None = None,
    ) -> tuple[JournalExecution, ...]:
        """Executions, by their own time, superseded ones among them."""
        with self._read() as execute:
            return queries.executions(execute, key=key, since_ns=since_ns, strategy=strategy, account=account)

    def versions(self, account: str, execution_id: str) -> tuple[JournalExecution, ...]:
        """An execution and its corrections, the one that counts last."""
        with self._read() as execute:
            return queries.versions(execute, account, execution_id)

    # The log

    def events(
        self, *, key: str | None = None, since_ns: int | None = None, limit: int | None = None
    ) -> tuple[JournalEvent, ...]:
        """The log, oldest first; with ``limit`` its last so many entries."""
        with self._read() as execute:
            return queries.events(execute, key=key, since_ns=since_ns, limit=limit)

    # Trading state and positions

    def trading_state(self) -> TradingState:
        """Whether orders may be placed."""
        with self._read() as execute:
            return queries.trading_state(execute)

    def set_trading_state(self, state: TradingState) -> None:
        """Set it. When this returns, no later ``intend`` of any process passes a state it forbids.

        Raises:
            JournalError: It is not on the disk: the old state stands.
        """
        now_ns = self._clock.now_ns()
        with self._database.write("trading", "set the trading state") as execute:
            text, body = state.mode.value, tables.encode(state)
            entry = tables.add_event(execute, now_ns, None, EventKind.TRADING, text, body)
            tables.set_trading(execute, entry, state)

    def data_version(self) -> int:
        """A number that changes when another process has written; a cheap look."""
        return self._database.data_version()

    def positions_baseline(self, account: str) -> PositionsBaseline | None:
        """The positions to count executions from, if they were set."""
        with self._read() as execute:
            return queries.baseline(execute, account)

    def set_positions_baseline(self, account: str, positions: Mapping[int, Decimal], time_ns: int) -> None:
        """Set the positions to count executions from.

        Raises:
            JournalError: It is not on the disk: the old ones stand.
        """
        held = {str(conid): size for conid, size in sorted(positions.items()) if size}
        note = tables.BaselineNote(account, time_ns, held)
        now_ns = self._clock.now_ns()
        with self._database.write("baseline", "set the positions") as execute:
            body = tables.encode(note)
            entry = tables.add_event(execute, now_ns, None, EventKind.BASELINE, account, body)
            tables.set_baseline(execute, entry, note)

    def changes_since_baseline(self, account: str) -> dict[int, Decimal]:
        """How executions have changed positions, by contract, since the baseline was set: by the order of the log,
        whatever the clocks said. A correction takes back what the baseline contains of its trade."""
        with self._read() as execute:
            return queries.changes_since_baseline(execute, account)

    def _read(self) -> Reading:
        return self._database.read("be read")


def _check_order_id(execute: Execute, key: str, account: str, order_id: str) -> None:
    row = execute(
        "SELECT orders.key FROM order_ids JOIN orders ON orders.key = order_ids.key"
        " WHERE order_ids.account = ? AND order_ids.order_id = ? AND open = 1 AND orders.key <> ?",
        (account, order_id, key),
    ).fetchone()
    if row is not None:
        raise JournalError(
            f"IBKR's order id {order_id} cannot be that of {key}: the open order {row[0]} has it.",
            remedy="Look at both orders in IBKR's own programs.",
        )


def _check_trading(state: TradingState, intents: Sequence[OrderIntent]) -> None:
    halted = state.mode is Trading.HALTED
    refused = [intent for intent in intents if halted or not intent.ticket.protective]
    if not refused:
        return
    what = "halted" if halted else "limited to orders that reduce a position"
    why = f": {state.reason}" if state.reason else ""
    by = f" by {state.by}" if state.by else ""
    raise TradingHaltedError(
        f"Trading is {what}{by}{why}. {refused[0].ticket.describe()} was not sent.",
        remedy="When the cause is gone: bt-ibkr resume.",
    )
