"""What is asked of the tables. Each takes the ``execute`` of a block that sees one moment."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Final

from bt_ibkr.errors import JournalError
from bt_ibkr.journal import tables
from bt_ibkr.journal.records import EventKind, JournalEvent, JournalExecution, JournalOrder, PositionsBaseline
from bt_ibkr.journal.tables import Execute
from bt_ibkr.model.intent import make_key, parse_key
from bt_ibkr.model.trading import Trading, TradingState

#: The key, then what ``tables.order_of`` takes.
ORDERS: Final = f"SELECT key, {tables.ORDER_COLUMNS} FROM orders"
KEYS: Final = "SELECT key FROM orders"
#: The condition of the index of open orders, word for word, or it is not used.
OPEN_ONLY: Final = "open = 1"
FILLS: Final = "SELECT key, quantity FROM executions WHERE superseded = 0 AND key IS NOT NULL"
#: From the few open orders to their executions, whatever the planner thinks of the tables' sizes.
OPEN_FILLS: Final = (
    "SELECT orders.key, quantity FROM orders CROSS JOIN executions ON executions.key = orders.key"
    f" WHERE {OPEN_ONLY} AND superseded = 0"
)
EXECUTIONS: Final = f"SELECT {tables.EXECUTION_COLUMNS} FROM executions"
EVENTS: Final = "SELECT number, time_ns, key, kind, text, payload FROM events"
#: An order's entries: those of the index, and the one that began it, which the index leaves out.
ABOUT: Final = (
    "number IN (SELECT number FROM events WHERE key = ? AND kind <> 'intended'"
    " UNION ALL SELECT intended FROM orders WHERE key = ?)"
)


def where(*conditions: tuple[str, Sequence[object] | None]) -> tuple[str, tuple[object, ...]]:
    """SQL and values of the conditions that are wanted: those whose values are not ``None``."""
    wanted = [(text, values) for text, values in conditions if values is not None]
    if not wanted:
        return "", ()
    return " WHERE " + " AND ".join(text for text, _ in wanted), tuple(v for _, vs in wanted for v in vs)


def one(value: object) -> tuple[object, ...] | None:
    """The value of a condition that is wanted unless it is ``None``."""
    return None if value is None else (value,)


def epoch(execute: Execute) -> str:
    row = execute("SELECT value FROM meta WHERE name = 'epoch'").fetchone()
    if row is None or parse_key(make_key("name", str(row[0]), 1)) is None:
        raise JournalError("The journal does not say its epoch: no order can be given a key.")
    return str(row[0])


def next_sequences(execute: Execute) -> dict[str, int]:
    """From the keys themselves, which stand together in an index: a counter would be one more page to write with
    every order, and it is wanted at the start only."""
    following: dict[str, int] = {}
    for (key,) in execute(KEYS).fetchall():
        parts = parse_key(key)
        if parts is not None and parts.number >= following.get(parts.name, 0):
            following[parts.name] = parts.number + 1
    return following


def orders(
    execute: Execute, *, open_only: bool, strategy: str | None, since_ns: int | None
) -> tuple[JournalOrder, ...]:
    condition, values = where(
        (OPEN_ONLY, () if open_only else None),
        ("strategy = ?", one(strategy)),
        ("changed_ns >= ?", one(since_ns)),
    )
    rows = execute(f"{ORDERS}{condition} ORDER BY number", values).fetchall()
    filled: dict[str, Decimal] = {}
    for key, quantity in execute(OPEN_FILLS if open_only else FILLS).fetchall():
        filled[key] = filled.get(key, Decimal(0)) + Decimal(quantity)
    return tuple(_order(row, filled.get(row[0], Decimal(0))) for row in rows)


def order(execute: Execute, key: str) -> JournalOrder | None:
    row = execute(f"{ORDERS} WHERE key = ?", (key,)).fetchone()
    return _order(row, fills(execute, key)[0]) if row is not None else None


def by_order_id(execute: Execute, account: str, order_id: str) -> JournalOrder | None:
    row = execute(
        "SELECT key FROM order_ids WHERE account = ? AND order_id = ?", (account, order_id)
    ).fetchone()
    return order(execute, row[0]) if row is not None else None


def _order(row: tuple[Any, ...], filled: Decimal) -> JournalOrder:
    try:
        return tables.order_of(row[1:], filled)
    except ValueError as problem:
        raise JournalError(
            f"The journal holds the order {row[0]} in a form that cannot be read: {problem}.",
            remedy="Use the version of bt-ibkr that placed it, until it has ended.",
        ) from None


def fills(execute: Execute, key: str) -> tuple[Decimal, bool]:
    """What an order executed, and whether any of it was corrected."""
    rows = execute("SELECT quantity, superseded FROM executions WHERE key = ?", (key,)).fetchall()
    filled = sum((Decimal(quantity) for quantity, superseded in rows if not superseded), Decimal(0))
    return filled, any(superseded for _, superseded in rows)


def executions(
    execute: Execute, *, key: str | None, since_ns: int | None, strategy: str | None, account: str | None
) -> tuple[JournalExecution, ...]:
    condition, values = where(
        ("key = ?", one(key)),
        ("time_ns >= ?", one(since_ns)),
        ("key IN (SELECT key FROM orders WHERE strategy = ?)", one(strategy)),
        ("account = ?", one(account)),
    )
    rows = execute(f"{EXECUTIONS}{condition} ORDER BY time_ns, number", values).fetchall()
    return tuple(_execution(row) for row in rows)


def changes_since_baseline(execute: Execute, account: str) -> dict[int, Decimal]:
    row = execute("SELECT event FROM baselines WHERE account = ?", (account,)).fetchone()
    if row is None:
        return {}
    entries = execute(
        "SELECT payload FROM events WHERE number > ? AND kind = ?", (row[0], EventKind.EXECUTION.value)
    ).fetchall()
    notes = (tables.decode_execution_note(payload).execution for (payload,) in entries)
    news = {one.execution_id for one in notes if one.account == account}
    changes: dict[int, Decimal] = {}
    for execution_id in news:
        family = versions(execute, account, execution_id)
        latest = family[-1].execution
        if latest.execution_id != execution_id or latest.legs:
            continue  # a correction of it counts; the legs of a combo count by themselves
        before = [one.execution for one in family if one.execution.execution_id not in news]
        for execution, sign in ((latest, 1), *((one, -1) for one in before[-1:])):
            change = sign * execution.quantity * execution.side.sign
            changes[execution.conid] = changes.get(execution.conid, Decimal(0)) + change
    return {conid: change for conid, change in changes.items() if change}


def versions(execute: Execute, account: str, execution_id: str) -> tuple[JournalExecution, ...]:
    own = tables.stem_and_revision(execution_id)
    first, last = (f"{own[0]}.", f"{own[0]}/") if own is not None else (execution_id, execution_id)
    rows = execute(
        f"{EXECUTIONS} WHERE account = ? AND execution_id BETWEEN ? AND ?", (account, first, last)
    ).fetchall()
    found = [_execution(row) for row in rows]
    found = [one for one in found if tables.same_trade(one.execution.execution_id, execution_id)]
    return tuple(
        sorted(found, key=lambda one: tables.stem_and_revision(one.execution.execution_id) or ("", 0))
    )


def _execution(row: tuple[Any, ...]) -> JournalExecution:
    try:
        return tables.execution_of(row)
    except ValueError as problem:
        raise JournalError(
            f"The journal holds execution number {row[0]} in a form that cannot be read: {problem}."
        ) from None


def events(
    execute: Execute, *, key: str | None, since_ns: int | None, limit: int | None
) -> tuple[JournalEvent, ...]:
    condition, values = where(
        (ABOUT, (key, key) if key is not None else None), ("time_ns >= ?", one(since_ns))
    )
    rows = execute(
        f"{EVENTS}{condition} ORDER BY number DESC LIMIT ?", (*values, -1 if limit is None else limit)
    ).fetchall()
    return tuple(
        JournalEvent(number=number, time_ns=time_ns, key=about, kind=kind, text=text, payload=payload)
        for number, time_ns, about, kind, text, payload in reversed(rows)
    )


def is_active(execute: Execute) -> bool:
    """Whether every order may be sent: the question before each of them."""
    return bool(execute("SELECT mode FROM trading").fetchone() == (Trading.ACTIVE.value,))


def trading_state(execute: Execute) -> TradingState:
    mode, reason, by, since_ns = execute("SELECT mode, reason, by, since_ns FROM trading").fetchone()
    try:
        return TradingState(mode=Trading(mode), reason=reason, by=by, since_ns=since_ns)
    except ValueError:
        raise JournalError(
            f"The journal holds a trading state {mode!r}, which is none: nothing may be sent.",
            remedy="Set it anew: bt-ibkr halt or bt-ibkr resume.",
        ) from None


def baseline(execute: Execute, account: str) -> PositionsBaseline | None:
    row = execute("SELECT time_ns, positions FROM baselines WHERE account = ?", (account,)).fetchone()
    if row is None:
        return None
    positions = {int(conid): size for conid, size in tables.decode_positions(row[1]).items()}
    return PositionsBaseline(account=account, time_ns=row[0], positions=positions)
