"""What can be saved of a damaged journal.

The log of events and the tables say the same twice, on different pages. Rows that can be read are put into a new file
as they are; then the log brings those up to date, or back, whose page was lost.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from bt_ibkr.journal import tables
from bt_ibkr.journal.pages import Row, Value, WalSize, read_pages, rows
from bt_ibkr.journal.records import EventKind, Repair
from bt_ibkr.journal.tables import Entry, Execute
from bt_ibkr.model.intent import OPEN, OrderState
from bt_ibkr.model.trading import Trading, TradingState

Values = tuple[Value, ...]

#: The types of each table's columns, by which its rows are known. ``None`` is the row's own number.
_ORDERS: Final = (None, str, str, str, int, str, (str, None), int, int, int, int, str, str)
_EXECUTIONS: Final = (None, str, str, (str, None), str, int, int, int, int, str, str)
_EVENTS: Final = (None, int, (str, None), str, str, str)
_TRADING: Final = (None, str, str, str, int, int)
_BASELINES: Final = (str, int, str, int)


class Saved(NamedTuple):
    """Rows that could be read, by their numbers or names, without the numbers themselves."""

    orders: dict[int, Values]
    executions: dict[int, Values]
    events: dict[int, Values]
    baselines: dict[str, Values]
    trading: Values | None

    @property
    def anything(self) -> bool:
        """Whether there is any sign that this was a journal."""
        return bool(self.orders or self.executions or self.events or self.baselines or self.trading)

    def restore(self, execute: Execute, found: tuple[str, ...], set_aside: Path, log: WalSize) -> Repair:
        """Fill an empty journal.

        Args:
            execute: Of a transaction.
            found: What was wrong.
            set_aside: Where the damaged file will be.
            log: What stood in its write-ahead log.

        Returns:
            What was saved and lost.
        """
        for number, values in self.events.items():
            _insert(execute, "events", (number, *values))
        for number, values in self.orders.items():
            _insert(execute, "orders", (number, *values))
        for number, values in self.executions.items():
            _insert(execute, "executions", (number, *values))
        for account, values in self.baselines.items():
            _insert(execute, "baselines", (account, *values))
        replay = _Replay(execute)
        for number in sorted(self.events):
            replay.entry(number, self.events[number])
        execute(
            "INSERT OR IGNORE INTO order_ids SELECT account, order_id, key FROM orders"
            " WHERE order_id IS NOT NULL ORDER BY number DESC"
        )
        tables.recount(execute)
        newest = self._newest()
        if self.trading is not None:
            execute("INSERT OR REPLACE INTO trading VALUES (1, ?, ?, ?, ?, ?)", self.trading)
        else:
            halted = TradingState(mode=Trading.HALTED, reason="the journal was damaged", by="journal")
            tables.set_trading(execute, Entry(newest, 0), halted)
        return Repair(
            found=found,
            set_aside=set_aside,
            orders=_count(execute, "orders"),
            executions=_count(execute, "executions"),
            events=len(self.events),
            lost_events=newest - len(self.events),
            cut_frames=0 if log.sound_head else log.frames,
            trading_known=self.trading is not None,
        )

    def _newest(self) -> int:
        """The number of the last entry there was. The tables name entries, too: also those that are lost."""
        named = [values[9] for values in self.orders.values()]
        named += [values[7] for values in self.executions.values()]
        named += [values[2] for values in self.baselines.values()]
        named += [self.trading[4]] if self.trading is not None else []
        return max(0, *self.events, *(int(str(number)) for number in named))


def salvage(path: Path, wal: Path) -> Saved:
    """Read a damaged journal, page by page; its files are not changed."""
    orders: dict[int, Values] = {}
    executions: dict[int, Values] = {}
    events: dict[int, Values] = {}
    baselines: dict[str, Values] = {}
    trading: Values | None = None
    for row in rows(read_pages(path, wal)):
        values = row.values
        if _fits(row, _ORDERS) and _sound_order(values):
            _newer(orders, row.rowid, values[1:], 9)
        elif _fits(row, _EXECUTIONS) and _sound_execution(values):
            _newer(executions, row.rowid, values[1:], 7)
        elif _fits(row, _EVENTS):
            events[row.rowid] = values[1:]
        elif _fits(row, _TRADING) and row.rowid == 1 and values[1] in set(Trading):
            trading = values[1:] if trading is None or values[5] > trading[4] else trading  # type: ignore[operator]
        elif _fits(row, _BASELINES) and _decodes(tables.decode_positions, values[2]):
            _newer(baselines, str(values[0]), values[1:], 2)
    return Saved(orders, executions, events, baselines, trading)


def _fits(row: Row, shape: tuple[Any, ...]) -> bool:
    if len(row.values) != len(shape):
        return False
    for value, kind in zip(row.values, shape, strict=True):
        kinds = kind if isinstance(kind, tuple) else (kind,)
        if not any(value is None if one is None else isinstance(value, one) for one in kinds):
            return False
    return row.rowid > 0 or shape[0] is not None


def _newer(kept: dict[Any, Values], name: int | str, values: Values, event: int) -> None:
    """Pages that are out of use hold old versions of rows; the number of the last entry tells which is which."""
    old = kept.get(name)
    if old is None or int(str(values[event])) >= int(str(old[event])):
        kept[name] = values


def _sound_order(values: Values) -> bool:
    return (
        values[5] in set(OrderState)
        and values[4] == int(values[5] in OPEN)
        and _decodes(tables.decode_parts, values[12])
    )


def _sound_execution(values: Values) -> bool:
    try:
        Decimal(str(values[9]))
    except InvalidOperation:
        return False
    return _decodes(tables.decode_execution, values[10])


def _decodes(decode: Callable[[str], object], value: Value) -> bool:
    try:
        decode(str(value))
    except (msgspec.DecodeError, UnicodeError):
        return False
    return True


def _insert(execute: Execute, table: str, values: tuple[Value, ...]) -> None:
    """A row as it was; one whose name another row has already is left out."""
    execute(f"INSERT OR IGNORE INTO {table} VALUES ({', '.join('?' * len(values))})", values)


def _count(execute: Execute, table: str) -> int:
    (count,) = execute(f"SELECT count(*) FROM {table}").fetchone()
    return int(count)


class _Replay:
    """Brings the log's entries, in their order, to where a table does not have what they changed.

    Rows that are made anew get the number they had: tables grow by one row per entry, so it is the one after the row
    of the entry before.
    """

    def __init__(self, execute: Execute) -> None:
        self._execute = execute
        self._last_order = 0
        self._last_execution = 0

    def entry(self, number: int, values: Values) -> None:
        """One entry; ``values`` without its number."""
        time_ns, key, kind, text, payload = values
        entry = Entry(number, int(str(time_ns)))
        name, body = str(key) if key is not None else None, str(payload)
        try:
            if kind == EventKind.BASELINE:
                self._baseline(entry, body)
            elif kind in (EventKind.EXECUTION, EventKind.EXECUTION_COMPLETED):
                self._execution(entry, name, body)
            elif name is not None and kind == EventKind.INTENDED:
                self._intended(entry, name, body)
            elif name is not None:
                self._order(entry, name, str(kind), str(text), body)
        except (msgspec.DecodeError, UnicodeError, KeyError):
            # Not an entry any more.
            return

    def _baseline(self, entry: Entry, body: str) -> None:
        note = tables.decode_baseline(body)
        row = self._one("SELECT event FROM baselines WHERE account = ?", note.account)
        if row is None or row[0] < entry.number:
            tables.set_baseline(self._execute, entry, note)

    def _execution(self, entry: Entry, key: str | None, body: str) -> None:
        note = tables.decode_execution_note(body)
        one = note.execution
        query = "SELECT number, event, key FROM executions WHERE account = ? AND execution_id = ?"
        row = self._one(query, one.account, one.execution_id)
        if row is None:
            number = self._free("executions", self._last_execution + 1)
            tables.add_execution(self._execute, entry, one, key, note.source, number)
            row = self._one(query, one.account, one.execution_id)
        elif row[1] < entry.number:
            tables.complete_execution(self._execute, entry, row[0], one, key)
        if row is not None:
            self._last_execution = max(self._last_execution, row[0])
            tables.touch(self._execute, entry, row[2])

    def _intended(self, entry: Entry, key: str, body: str) -> None:
        row = self._one("SELECT number FROM orders WHERE key = ?", key)
        if row is None:
            parts = tables.decode_parts(body)
            strategy = msgspec.json.decode(parts["strategy"], type=str)
            ticket = msgspec.json.decode(parts["ticket"], type=dict[str, msgspec.Raw])
            account = msgspec.json.decode(ticket["account"], type=str)
            number = self._free("orders", self._last_order + 1)
            tables.add_order(self._execute, entry, key, strategy, account, body, number)
            row = self._one("SELECT number FROM orders WHERE key = ?", key)
        if row is not None:
            self._last_order = max(self._last_order, row[0])

    def _order(self, entry: Entry, key: str, kind: str, text: str, body: str) -> None:
        row = self._one("SELECT event, account FROM orders WHERE key = ?", key)
        if row is None:
            return
        if kind == EventKind.STATE:
            note = tables.decode_state(body)
            if row[0] < entry.number:
                tables.set_state(self._execute, entry, key, row[1], note.state, note.order_id, text)
            elif note.order_id is not None:
                self._execute(
                    "INSERT OR REPLACE INTO order_ids VALUES (?, ?, ?)", (row[1], note.order_id, key)
                )
        elif kind == EventKind.TICKET and row[0] < entry.number:
            tables.set_ticket(self._execute, entry, key, body)
        elif kind == EventKind.EXPIRY and row[0] < entry.number:
            tables.set_expiry(self._execute, entry, key, tables.decode_expiry(body).expires_ns)

    def _free(self, table: str, number: int) -> int | None:
        return None if self._one(f"SELECT 1 FROM {table} WHERE number = ?", number) else number

    def _one(self, query: str, *values: object) -> tuple[Any, ...] | None:
        row: tuple[Any, ...] | None = self._execute(query, values).fetchone()
        return row
