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
from typing import Any, Final

import msgspec

from bt_ibkr.clock import Clock
from bt_ibkr.errors import JournalError, TradingHaltedError
from bt_ibkr.journal import tables
from bt_ibkr.journal.database import Database
from bt_ibkr.journal.lock import OwnerLock
from bt_ibkr.journal.records import (
    RESERVED,
    EventKind,
    JournalEvent,
    JournalExecution,
    JournalOrder,
    PositionsBaseline,
    Repair,
)
from bt_ibkr.journal.transitions import check_transition
from bt_ibkr.model.intent import OrderIntent, OrderState, parse_key
from bt_ibkr.model.order import Execution, OrderTicket
from bt_ibkr.model.trading import Trading, TradingState

#: An intent is refused with less room than this on the disk, so that what comes of those sent can still be noted.
RESERVE_BYTES: Final = 4_000_000


class Journal:
    """Made by ``open``."""

    def __init__(
        self,
        database: Database,
        lock: OwnerLock | None,
        clock: Clock,
        path: Path | None,
        repaired: Repair | None,
    ) -> None:
        self._database = database
        self._lock = lock
        self._clock = clock
        self.path = path
        #: What was wrong with the file when it was opened; ``None`` if nothing was.
        self.repaired = repaired
        self.reserve_bytes = RESERVE_BYTES
        with database.read("be read") as execute:
            self._epoch: str = execute("SELECT value FROM meta WHERE name = 'epoch'").fetchone()[0]
        #: What executions were said to be, where it changed nothing: told once, though it be said at every poll.
        self._told: set[tuple[object, ...]] = set()

    @classmethod
    def open(
        cls,
        path: Path | None,
        *,
        clock: Clock,
        exclusive: bool = True,
        busy_timeout_s: float | None = None,
    ) -> Journal:
        """Open or make a journal.

        Args:
            path: Its file; ``None`` for one in memory, which is gone with the process.
            clock: Gives the entries their time.
            exclusive: Be its owner, as whoever places orders must be. Without, it is read, the trading state is set
                and orders that flatten positions are intended beside the owner.
            busy_timeout_s: How long to wait for another process that writes; 2 s for the owner, 10 s for others.

        Raises:
            JournalLockedError: It has an owner already; the message names it.
            JournalError: It cannot be opened, is no journal, or is of a later version.
        """
        if busy_timeout_s is None:
            busy_timeout_s = 2.0 if exclusive else 10.0
        if path is None:
            return cls(Database(None, busy_timeout_s=busy_timeout_s), None, clock, None, None)
        path = _place(path)
        lock = OwnerLock(path.with_name(f"{path.name}.lock")) if exclusive else None
        try:
            database = Database(path, busy_timeout_s=busy_timeout_s)
        except BaseException:
            if lock is not None:
                lock.release()
            raise
        return cls(database, lock, clock, path, None)

    def close(self) -> None:
        """Leave it; the file is whole by itself then. A second call does nothing."""
        try:
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
        with self._database.read("be read") as execute:
            return dict(execute("SELECT strategy, next FROM sequences").fetchall())

    # Orders

    def intend(self, intents: Sequence[OrderIntent]) -> None:
        """Commit what is to be sent, all or nothing. Only then may it be sent.

        Raises:
            TradingHaltedError: The trading state, read in the same transaction, forbids one of them.
            JournalError: It is not on the disk: nothing may be sent. Also for a key that is taken, malformed, of
                another epoch, or not the ticket's ``client_order_id``.
        """
        if not intents:
            return
        rows = [(intent, tables.encode(intent)) for intent in intents]
        for intent in intents:
            self._check_key(intent)
        self._check_room()
        now_ns = self._clock.now_ns()
        with self._database.write("intend", "take an order in, which was not sent") as execute:
            _check_trading(_trading_state(execute), intents)
            for intent, body in rows:
                try:
                    tables.add_order(execute, now_ns, intent, body)
                except sqlite3.IntegrityError:
                    raise JournalError(
                        f"The journal {self._database.name} has an order {intent.key!r} already: it was not sent.",
                        remedy="Take the next number of next_sequences().",
                    ) from None
                tables.add_event(execute, now_ns, intent.key, EventKind.INTENDED, "", body)

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
        if self.path is None or not hasattr(os, "statvfs"):
            return
        space = os.statvfs(self.path.parent)
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
            account, old, quantity = self._standing(execute, key)
            if old is not state:
                check_transition(key, old, state, quantity, lambda: _fills(execute, key))
            if order_id is not None:
                self._check_order_id(execute, key, account, order_id)
            tables.set_state(execute, now_ns, key, account, state, order_id, text)
            payload = tables.encode(tables.StateNote(state, order_id))
            tables.add_event(execute, now_ns, key, EventKind.STATE, text, payload)

    def _standing(self, execute: Any, key: str) -> tuple[str, OrderState, Decimal]:
        row = execute("SELECT account, state, intent FROM orders WHERE key = ?", (key,)).fetchone()
        if row is None:
            raise JournalError(f"The journal {self._database.name} has no order {key!r}.")
        return row[0], OrderState(row[1]), tables.decode_intent(row[2]).ticket.quantity

    def _check_order_id(self, execute: Any, key: str, account: str, order_id: str) -> None:
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
            JournalError: No such order, the ticket is of another contract, side or account, or it is not on the disk.
        """
        now_ns = self._clock.now_ns()
        with self._database.write("ticket", f"note the modification of {key}") as execute:
            self._standing(execute, key)
            (body,) = execute("SELECT intent FROM orders WHERE key = ?", (key,)).fetchone()
            old = tables.decode_intent(body).ticket
            for field in ("account", "contract_id", "side", "client_order_id"):
                if getattr(old, field) != getattr(ticket, field):
                    raise JournalError(
                        f"The order {key} has {field} {getattr(old, field)!r}; a modification cannot make it "
                        f"{getattr(ticket, field)!r}."
                    )
            tables.set_ticket(execute, now_ns, key, ticket)
            tables.add_event(execute, now_ns, key, EventKind.TICKET, "", tables.encode(ticket))

    def orders(
        self, *, open_only: bool = False, strategy: str | None = None, since_ns: int | None = None
    ) -> tuple[JournalOrder, ...]:
        """Orders, in the order in which they were intended.

        Args:
            open_only: Only those that may stand at IBKR; this does not read the others.
            strategy: Only those of this strategy.
            since_ns: Only those about which something was noted at or after this time.
        """
        where, values = _where(
            ("open = 1", () if open_only else None),
            ("strategy = ?", _one(strategy)),
            ("changed_ns >= ?", _one(since_ns)),
        )
        with self._database.read("be read") as execute:
            rows = execute(ORDERS + where + " ORDER BY number", values).fetchall()
            fills = execute(OPEN_FILLS if open_only else FILLS).fetchall()
        filled: dict[str, Decimal] = {}
        for key, quantity in fills:
            filled[key] = filled.get(key, Decimal(0)) + Decimal(quantity)
        return tuple(self._order(row[1:], filled.get(row[0], Decimal(0))) for row in rows)

    def order(self, key: str) -> JournalOrder | None:
        """The order of this key."""
        with self._database.read("be read") as execute:
            row = execute(ORDERS + " WHERE key = ?", (key,)).fetchone()
            return self._order(row[1:], _fills(execute, key)[0]) if row is not None else None

    def by_order_id(self, account: str, order_id: str) -> JournalOrder | None:
        """The order that has, or had before a modification, this id of IBKR's."""
        with self._database.read("be read") as execute:
            row = execute(
                "SELECT key FROM order_ids WHERE account = ? AND order_id = ?", (account, order_id)
            ).fetchone()
        return self.order(row[0]) if row is not None else None

    def _order(self, row: tuple[Any, ...], filled: Decimal) -> JournalOrder:
        try:
            return tables.order_of(row, filled)
        except (ValueError, msgspec.DecodeError) as problem:
            raise JournalError(
                f"The journal {self._database.name} holds order number {row[0]} in a form that cannot be "
                f"read: {problem}."
            ) from None

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
        now_ns = self._clock.now_ns()
        told: set[tuple[object, ...]] = set()
        with self._database.write("executions", "take executions in") as execute:
            applied = [self._take_in(execute, now_ns, told, *one) for one in executions]
        self._told |= told
        return applied

    def _take_in(
        self,
        execute: Any,
        now_ns: int,
        told: set[tuple[object, ...]],
        execution: Execution,
        key: str | None,
        source: str,
    ) -> bool:
        row = execute(
            "SELECT number, execution, key FROM executions WHERE account = ? AND execution_id = ?",
            (execution.account, execution.execution_id),
        ).fetchone()
        payload = tables.encode(tables.ExecutionNote(execution, source, now_ns))
        if row is None:
            tables.add_event(execute, now_ns, key, EventKind.EXECUTION, "", payload)
            return tables.add_execution(execute, now_ns, execution, key, source)
        number, body, old_key = row
        old = tables.decode_execution(body)
        # A source that says it so now will say it so at every poll.
        mark = (msgspec.structs.replace(execution, time_ns=0, order_id=None, order_ref=None), key)
        if mark in self._told or mark in told:
            return False
        told.add(mark)
        if tables.conflict(old, execution):
            text = f"came again with other figures from {source}"
            tables.add_event(execute, now_ns, old_key, EventKind.EXECUTION_CONFLICT, text, payload)
            return False
        merged = tables.merge(old, execution)
        if merged != old or (old_key is None and key is not None):
            payload = tables.encode(tables.ExecutionNote(merged, source, now_ns))
            tables.complete_execution(execute, now_ns, number, merged, old_key or key)
            tables.add_event(execute, now_ns, old_key or key, EventKind.EXECUTION_COMPLETED, "", payload)
        return False

    def executions(
        self,
        *,
        key: str | None = None,
        since_ns: int | None = None,
        strategy: str | None = None,
        account: str | None = None,
    ) -> tuple[JournalExecution, ...]:
        """Executions, by their own time, superseded ones among them."""
        where, values = _where(
            ("key = ?", _one(key)),
            ("time_ns >= ?", _one(since_ns)),
            ("key IN (SELECT key FROM orders WHERE strategy = ?)", _one(strategy)),
            ("account = ?", _one(account)),
        )
        query = f"SELECT {tables.EXECUTION_COLUMNS} FROM executions{where} ORDER BY time_ns, number"
        with self._database.read("be read") as execute:
            rows = execute(query, values).fetchall()
        return tuple(tables.execution_of(row) for row in rows)

    def versions(self, account: str, execution_id: str) -> tuple[JournalExecution, ...]:
        """An execution and its corrections, the one that counts last."""
        own = tables.stem_and_revision(execution_id)
        first, last = (f"{own[0]}.", f"{own[0]}/") if own is not None else (execution_id, execution_id)
        with self._database.read("be read") as execute:
            rows = execute(
                f"SELECT {tables.EXECUTION_COLUMNS} FROM executions WHERE account = ?"
                " AND execution_id BETWEEN ? AND ? ORDER BY superseded DESC, number",
                (account, first, last),
            ).fetchall()
        found = (tables.execution_of(row) for row in rows)
        return tuple(one for one in found if tables.same_trade(one.execution.execution_id, execution_id))

    # The log

    def events(
        self, *, key: str | None = None, since_ns: int | None = None, limit: int | None = None
    ) -> tuple[JournalEvent, ...]:
        """The log, oldest first; with ``limit`` its last so many entries."""
        where, values = _where(("key = ?", _one(key)), ("time_ns >= ?", _one(since_ns)))
        query = f"SELECT number, time_ns, key, kind, text, payload FROM events{where} ORDER BY number DESC LIMIT ?"
        with self._database.read("be read") as execute:
            rows = execute(query, (*values, -1 if limit is None else limit)).fetchall()
        return tuple(
            JournalEvent(number=number, time_ns=time_ns, key=about, kind=kind, text=text, payload=payload)
            for number, time_ns, about, kind, text, payload in reversed(rows)
        )

    # Trading state and positions

    def trading_state(self) -> TradingState:
        """Whether orders may be placed."""
        with self._database.read("be read") as execute:
            return _trading_state(execute)

    def set_trading_state(self, state: TradingState) -> None:
        """Set it. When this returns, no later ``intend`` of any process passes a state it forbids.

        Raises:
            JournalError: It is not on the disk: the old state stands.
        """
        with self._database.write("trading", "set the trading state") as execute:
            tables.set_trading(execute, state)
            tables.add_event(
                execute, self._clock.now_ns(), None, EventKind.TRADING, state.mode.value, tables.encode(state)
            )

    def data_version(self) -> int:
        """A number that changes when another process has written; a cheap look."""
        self._database.check_open("be read")
        (version,) = self._database.connection.execute("PRAGMA data_version").fetchone()
        return int(version)

    def positions_baseline(self, account: str) -> PositionsBaseline | None:
        """The positions to count executions from, if they were set."""
        with self._database.read("be read") as execute:
            row = execute("SELECT time_ns, positions FROM baselines WHERE account = ?", (account,)).fetchone()
        if row is None:
            return None
        positions = {int(conid): size for conid, size in tables.decode_positions(row[1]).items()}
        return PositionsBaseline(account=account, time_ns=row[0], positions=positions)

    def set_positions_baseline(self, account: str, positions: Mapping[int, Decimal], time_ns: int) -> None:
        """Set the positions to count executions from.

        Raises:
            JournalError: It is not on the disk: the old ones stand.
        """
        held = {str(conid): size for conid, size in sorted(positions.items()) if size}
        note = tables.BaselineNote(account, time_ns, held)
        with self._database.write("baseline", "set the positions") as execute:
            tables.set_baseline(execute, note)
            now_ns = self._clock.now_ns()
            tables.add_event(execute, now_ns, None, EventKind.BASELINE, account, tables.encode(note))


#: The key, then what ``tables.order_of`` takes.
ORDERS: Final = f"SELECT key, {tables.ORDER_COLUMNS} FROM orders"
FILLS: Final = "SELECT key, quantity FROM executions WHERE superseded = 0 AND key IS NOT NULL"
#: From the few open orders to their executions, whatever the planner thinks of the tables' sizes.
OPEN_FILLS: Final = (
    "SELECT orders.key, quantity FROM orders CROSS JOIN executions ON executions.key = orders.key"
    " WHERE open = 1 AND superseded = 0"
)


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


def _one(value: object) -> tuple[object, ...] | None:
    return None if value is None else (value,)


def _where(*conditions: tuple[str, tuple[object, ...] | None]) -> tuple[str, tuple[object, ...]]:
    """SQL and values of the conditions that are wanted: those whose values are not ``None``."""
    wanted = [(text, values) for text, values in conditions if values is not None]
    if not wanted:
        return "", ()
    return " WHERE " + " AND ".join(text for text, _ in wanted), sum((v for _, v in wanted), ())


def _fills(execute: Any, key: str) -> tuple[Decimal, bool]:
    """What an order executed, and whether any of it was corrected."""
    rows = execute("SELECT quantity, superseded FROM executions WHERE key = ?", (key,)).fetchall()
    filled = sum((Decimal(quantity) for quantity, superseded in rows if not superseded), Decimal(0))
    return filled, any(superseded for _, superseded in rows)


def _trading_state(execute: Any) -> TradingState:
    row = execute("SELECT mode, reason, by, since_ns FROM trading").fetchone()
    if row is None:
        return TradingState(mode=Trading.HALTED, reason="the journal does not say", by="journal")
    mode, reason, by, since_ns = row
    return TradingState(mode=Trading(mode), reason=reason, by=by, since_ns=since_ns)


def _check_trading(state: TradingState, intents: Sequence[OrderIntent]) -> None:
    if state.mode is Trading.ACTIVE:
        return
    refused = [intent for intent in intents if state.mode is Trading.HALTED or not intent.ticket.protective]
    if not refused:
        return
    what = "halted" if state.mode is Trading.HALTED else "limited to orders that reduce a position"
    why = f": {state.reason}" if state.reason else ""
    by = f" by {state.by}" if state.by else ""
    raise TradingHaltedError(
        f"Trading is {what}{by}{why}. {refused[0].ticket.describe()} was not sent.",
        remedy="When the cause is gone: bt-ibkr resume.",
    )
