"""How each kind of entry changes the tables. The journal writes an entry and calls these; so does the repair of a
damaged file, entry by entry, which is why they know neither clock nor policy.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from decimal import Decimal
from typing import Any, Final, NamedTuple

import msgspec

from bt_ibkr.journal.records import JournalExecution, JournalOrder
from bt_ibkr.model.intent import OPEN, OrderIntent, OrderState
from bt_ibkr.model.order import Execution, OrderTicket, OrderType, Side
from bt_ibkr.model.trading import TradingState

Execute = Callable[..., Any]


class Entry(NamedTuple):
    """A row of the log that changes other tables."""

    number: int
    time_ns: int


class StateNote(msgspec.Struct, frozen=True, omit_defaults=True):
    """Payload of a state's entry."""

    state: OrderState
    order_id: str | None = None


class ExpiryNote(msgspec.Struct, frozen=True):
    """Payload of an expiry's entry."""

    expires_ns: int | None


class ExecutionNote(msgspec.Struct, frozen=True, omit_defaults=True):
    """Payload of an execution's entry."""

    execution: Execution
    source: str


class BaselineNote(msgspec.Struct, frozen=True):
    """Payload of a baseline's entry; conids are text, as JSON has it."""

    account: str
    time_ns: int
    positions: dict[str, Decimal]


class _StoredTicket(OrderTicket, frozen=True, kw_only=True):
    """A ticket that is read back: what stands at IBKR stands, whatever a later version would refuse."""

    def __post_init__(self) -> None:
        """Nothing is checked."""


class _StoredIntent(OrderIntent, frozen=True, kw_only=True):
    ticket: _StoredTicket


_encoder: Final = msgspec.json.Encoder()
_decode_intent: Final = msgspec.json.Decoder(_StoredIntent).decode
_decode_ticket: Final = msgspec.json.Decoder(_StoredTicket).decode
#: An intent whose ticket is not looked at: what was written under other rules must stay as it is.
decode_parts: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
decode_execution: Final = msgspec.json.Decoder(Execution).decode
decode_expiry: Final = msgspec.json.Decoder(ExpiryNote).decode
decode_state: Final = msgspec.json.Decoder(StateNote).decode
decode_execution_note: Final = msgspec.json.Decoder(ExecutionNote).decode
decode_trading: Final = msgspec.json.Decoder(TradingState).decode
decode_baseline: Final = msgspec.json.Decoder(BaselineNote).decode
decode_positions: Final = msgspec.json.Decoder(dict[str, Decimal]).decode


def encode(value: object) -> str:
    """JSON text."""
    return _encoder.encode(value).decode()


#: Any ticket: copies of it are filled with what was read.
_BLANK: Final = OrderTicket(
    account="-", contract_id=1, side=Side.BUY, order_type=OrderType.MARKET, quantity=Decimal(1)
)


def decode_intent(text: str) -> OrderIntent:
    """An intent as it was written; its ticket is not checked again."""
    stored = _decode_intent(text)
    fields = {name: getattr(stored, name) for name in OrderIntent.__struct_fields__}
    return OrderIntent(**fields | {"ticket": _ticket(stored.ticket)})


def decode_ticket(text: str) -> OrderTicket:
    """A ticket as it was written; it is not checked again."""
    return _ticket(_decode_ticket(text))


def _ticket(stored: _StoredTicket) -> OrderTicket:
    ticket = copy(_BLANK)
    for name in OrderTicket.__struct_fields__:
        msgspec.structs.force_setattr(ticket, name, getattr(stored, name))
    return ticket


ORDER_COLUMNS: Final = "number, intent, state, order_id, created_ns, changed_ns, text"
EXECUTION_COLUMNS: Final = "number, execution, key, source, superseded, seen_ns"


def order_of(row: tuple[Any, ...], filled: Decimal) -> JournalOrder:
    """From ``ORDER_COLUMNS``."""
    number, intent, state, order_id, created_ns, changed_ns, text = row
    return JournalOrder(
        number=number,
        intent=decode_intent(intent),
        state=OrderState(state),
        order_id=order_id,
        filled=filled,
        created_ns=created_ns,
        changed_ns=changed_ns,
        text=text,
    )


def execution_of(row: tuple[Any, ...]) -> JournalExecution:
    """From ``EXECUTION_COLUMNS``."""
    number, execution, key, source, superseded, seen_ns = row
    return JournalExecution(
        number=number,
        execution=decode_execution(execution),
        key=key,
        source=source,
        superseded=bool(superseded),
        seen_ns=seen_ns,
    )


def add_event(
    execute: Execute,
    time_ns: int,
    key: str | None,
    kind: str,
    text: str,
    payload: str,
    number: int | None = None,
) -> Entry:
    """Append to the log. The entry gets the next number, unless one is given."""
    cursor = execute(
        "INSERT INTO events VALUES (?, ?, ?, ?, ?, ?)", (number, time_ns, key, kind, text, payload)
    )
    return Entry(cursor.lastrowid, time_ns)


def add_order(
    execute: Execute,
    entry: Entry,
    key: str,
    strategy: str,
    account: str,
    intent: str,
    number: int | None = None,
) -> None:
    """An order is intended; ``intent`` is JSON. It gets the next number, unless one is given."""
    execute(
        "INSERT INTO orders VALUES (?, ?, ?, ?, 1, 'intended', NULL, ?, ?, ?, ?, '', ?)",
        (
            number,
            key,
            strategy,
            account,
            entry.time_ns,
            entry.time_ns,
            entry.number,
            entry.number,
            intent,
        ),
    )


def set_state(
    execute: Execute, entry: Entry, key: str, account: str, state: OrderState, order_id: str | None, text: str
) -> None:
    """An order's state; no ``order_id`` or an empty ``text`` leaves the one there is."""
    execute(
        "UPDATE orders SET state = ?, open = ?, order_id = coalesce(?, order_id), changed_ns = ?,"
        " event = ?, text = CASE ? WHEN '' THEN text ELSE ? END WHERE key = ?",
        (state.value, int(state in OPEN), order_id, entry.time_ns, entry.number, text, text, key),
    )
    if order_id is not None:
        execute("INSERT OR REPLACE INTO order_ids VALUES (?, ?, ?)", (account, order_id, key))


def set_ticket(execute: Execute, entry: Entry, key: str, ticket: str) -> None:
    """An order's ticket after a modification; ``ticket`` is JSON."""
    _set_part(execute, entry, key, "ticket", ticket)


def set_expiry(execute: Execute, entry: Entry, key: str, expires_ns: int | None) -> None:
    """The moment at which the adapter ends an order."""
    _set_part(execute, entry, key, "expires_ns", encode(expires_ns))


def _set_part(execute: Execute, entry: Entry, key: str, name: str, value: str) -> None:
    """Replace one field of an order's intent; ``value`` is JSON."""
    (body,) = execute("SELECT intent FROM orders WHERE key = ?", (key,)).fetchone()
    intent = decode_parts(body) | {name: msgspec.Raw(value.encode())}
    execute(
        "UPDATE orders SET intent = ?, changed_ns = ?, event = ? WHERE key = ?",
        (encode(intent), entry.time_ns, entry.number, key),
    )


def set_trading(execute: Execute, entry: Entry, state: TradingState) -> None:
    """The trading state."""
    execute(
        "INSERT OR REPLACE INTO trading VALUES (1, ?, ?, ?, ?, ?)",
        (state.mode.value, state.reason, state.by, state.since_ns, entry.number),
    )


def set_baseline(execute: Execute, entry: Entry, note: BaselineNote) -> None:
    """An account's positions to count from."""
    execute(
        "INSERT OR REPLACE INTO baselines VALUES (?, ?, ?, ?)",
        (note.account, note.time_ns, encode(note.positions), entry.number),
    )


def stem_and_revision(execution_id: str) -> tuple[str, int] | None:
    """What IBKR's corrections share, and their count: ``0000e0d5.6596c9c6.01.02`` corrects ``….01.01``. ``None`` for
    an id of another form, which nothing corrects."""
    stem, _, revision = execution_id.rpartition(".")
    if stem.count(".") < 2 or not (revision.isascii() and revision.isdigit()):
        return None
    return stem, int(revision)


def add_execution(
    execute: Execute,
    entry: Entry,
    execution: Execution,
    key: str | None,
    source: str,
    number: int | None = None,
) -> bool:
    """An execution not known before. It gets the next number, unless one is given.

    Returns:
        Whether it counts: not if a correction of it was here first.
    """
    account, identity = execution.account, execution.execution_id
    counts = True
    family = _family(execute, account, identity)
    key = key or next((row[2] for row in family if row[2] is not None), None)
    for other, other_id, other_key in family:
        if _revision(other_id) > _revision(identity):
            counts = False
        else:
            execute("UPDATE executions SET superseded = 1 WHERE number = ?", (other,))
        if other_key is None and key is not None:
            execute("UPDATE executions SET key = ? WHERE number = ?", (key, other))
    execute(
        "INSERT INTO executions VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            number,
            account,
            identity,
            key,
            source,
            int(not counts),
            entry.time_ns,
            execution.time_ns,
            entry.number,
            str(execution.quantity),
            encode(execution),
        ),
    )
    touch(execute, entry, key)
    return counts


def complete_execution(
    execute: Execute, entry: Entry, number: int, execution: Execution, key: str | None
) -> None:
    """More is known of an execution than before."""
    execute(
        "UPDATE executions SET execution = ?, key = ?, event = ? WHERE number = ?",
        (encode(execution), key, entry.number, number),
    )
    for other, _, other_key in _family(execute, execution.account, execution.execution_id):
        if other_key is None and key is not None:
            execute("UPDATE executions SET key = ? WHERE number = ?", (key, other))
    touch(execute, entry, key)


def touch(execute: Execute, entry: Entry, key: str | None) -> None:
    """Something about the order was noted, though nothing in its row changes."""
    if key is not None:
        execute("UPDATE orders SET changed_ns = max(changed_ns, ?) WHERE key = ?", (entry.time_ns, key))


def _family(execute: Execute, account: str, execution_id: str) -> list[tuple[int, str, str | None]]:
    """Number, id and key of the other versions of an execution: what corrects it, or it corrects."""
    own = stem_and_revision(execution_id)
    if own is None:
        return []
    rows = execute(
        "SELECT number, execution_id, key FROM executions WHERE account = ? AND execution_id > ?"
        " AND execution_id < ?",
        (account, f"{own[0]}.", f"{own[0]}/"),
    ).fetchall()
    # In this range stand also longer ids that begin alike.
    return [row for row in rows if row[1] != execution_id and same_trade(row[1], execution_id)]


def _revision(execution_id: str) -> int:
    own = stem_and_revision(execution_id)
    return own[1] if own is not None else 0


def recount(execute: Execute) -> None:
    """Find anew which executions are superseded, by their ids alone."""
    best: dict[tuple[str, str], int] = {}
    rows = execute("SELECT number, account, execution_id FROM executions").fetchall()
    families = [(number, account, *own) for number, account, one in rows if (own := stem_and_revision(one))]
    for _, account, stem, revision in families:
        best[account, stem] = max(revision, best.get((account, stem), revision))
    for number, account, stem, revision in families:
        superseded = int(revision < best[account, stem])
        execute("UPDATE executions SET superseded = ? WHERE number = ?", (superseded, number))


def same_trade(one: str, other: str) -> bool:
    """Whether two execution ids are of one trade and its corrections."""
    first, second = stem_and_revision(one), stem_and_revision(other)
    return one == other or (first is not None and second is not None and first[0] == second[0])


def conflict(old: Execution, new: Execution) -> bool:
    """Whether two reports under one id cannot both be true."""
    return (old.conid, old.side, old.quantity, old.price) != (new.conid, new.side, new.quantity, new.price)


def merge(old: Execution, new: Execution) -> Execution:
    """What both reports tell: the newer commission, and whatever the older one left out."""
    return msgspec.structs.replace(
        old,
        commission=old.commission if new.commission is None else new.commission,
        order_id=old.order_id or new.order_id,
        order_ref=old.order_ref or new.order_ref,
        exchange=old.exchange or new.exchange,
        symbol=old.symbol or new.symbol,
    )
