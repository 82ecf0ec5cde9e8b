"""Whether a journal is whole: SQLite's own look, and the log held against the tables, which say the same twice."""

from __future__ import annotations

import sqlite3
from collections import Counter
from pathlib import Path

import msgspec

from bt_ibkr.errors import JournalError, UsageError
from bt_ibkr.journal import EventKind, Journal, JournalEvent, JournalOrder
from bt_ibkr.journal.tables import (
    decode_execution_note,
    decode_state,
    decode_trading,
)
from bt_ibkr.model.intent import OrderState
from bt_ibkr.model.trading import TradingState

#: So many complaints are enough.
_MOST = 20
#: What a person may say that became of an order.
RESOLUTIONS = (
    OrderState.ABSENT,
    OrderState.CANCELLED,
    OrderState.EXPIRED,
    OrderState.FILLED,
    OrderState.REJECTED,
)


class Verified(msgspec.Struct, frozen=True, kw_only=True):
    """What was found; nothing is wrong where ``problems`` is empty."""

    journal: str
    epoch: str
    orders: int
    executions: int
    events: int
    problems: tuple[str, ...]


def verify(place: Path, journal: Journal) -> Verified:
    """Look at the file, without changing it; its owner may go on."""
    problems = [*_structure(place), *_contradictions(journal)]
    if problems:
        # Of what was written while it was looked at, one half may be the older one: that does not last.
        again = {*_structure(place), *_contradictions(journal)}
        problems = [one for one in problems if one in again]
    try:
        counts = (len(journal.orders()), len(journal.executions()), len(journal.events()))
    except JournalError:
        counts = (0, 0, 0)
    orders, executions, events = counts
    return Verified(
        journal=str(place),
        epoch=journal.epoch,
        orders=orders,
        executions=executions,
        events=events,
        problems=tuple(problems[:_MOST]),
    )


class _Log:
    """What the log says, entry by entry."""

    def __init__(self) -> None:
        self.states: dict[str, OrderState] = {}
        self.intended: Counter[str] = Counter()
        self.executions: set[tuple[str, str]] = set()
        self.trading = TradingState()
        self.problems: list[str] = []

    def take(self, event: JournalEvent) -> None:
        key = event.key or ""
        try:
            if event.kind == EventKind.INTENDED:
                self.intended[key] += 1
                self.states[key] = OrderState.INTENDED
            elif event.kind == EventKind.STATE:
                self.states[key] = decode_state(event.payload).state
            elif event.kind == EventKind.EXECUTION:
                execution = decode_execution_note(event.payload).execution
                self.executions.add((execution.account, execution.execution_id))
            elif event.kind == EventKind.TRADING:
                self.trading = decode_trading(event.payload)
        except (msgspec.MsgspecError, ValueError) as problem:
            self.problems.append(f"entry {event.number} of the log cannot be read: {problem}")


def _contradictions(journal: Journal) -> list[str]:
    """Where log and tables do not say the same, and what cannot be read."""
    log = _Log()
    try:
        # A repaired journal may have lost entries that its tables still have, and says so.
        entries = journal.events()
        whole = all(event.kind != EventKind.REPAIRED for event in entries)
        for event in entries:
            log.take(event)
        orders = {one.key: one for one in journal.orders()}
        rows = {(row.execution.account, row.execution.execution_id) for row in journal.executions()}
        trading = journal.trading_state()
    except JournalError as problem:
        return [problem.message]
    found = log.problems
    for key, order in orders.items():
        if key not in log.states:
            if whole:
                found.append(f"order {key} is in no entry of the log")
        elif log.states[key] is not order.state and whole:
            found.append(f"order {key} is {order.state} in its table, and {log.states[key]} by the log")
    found += [f"order {key} is in the log, but in no table" for key in log.states if key not in orders]
    found += [f"order {key} was intended {times} times" for key, times in log.intended.items() if times > 1]
    missing = sorted(execution_id for _, execution_id in log.executions - rows)
    found += [f"execution {one} is in the log, but in no table" for one in missing]
    if log.trading.mode is not trading.mode and whole:
        found.append(f"trading is {trading.mode} in its table, and {log.trading.mode} by the log")
    return found


def _structure(place: Path) -> list[str]:
    try:
        connection = sqlite3.connect(f"{place.resolve().as_uri()}?mode=ro", uri=True)
        try:
            said = [
                str(text) for (text,) in connection.execute(f"PRAGMA integrity_check({_MOST})").fetchall()
            ]
        finally:
            connection.close()
    except sqlite3.Error as problem:
        return [str(problem)]
    return [] if said == ["ok"] else said


def resolve(journal: Journal, key: str, state: OrderState, text: str) -> None:
    """A person says what became of an order; see ``Journal.note``.

    Raises:
        UsageError: No such open order, or what executed proves otherwise.
    """
    order = resolvable(journal, key, state)
    journal.note(order.key, state, text=text)


def resolvable(journal: Journal, key: str, state: OrderState) -> JournalOrder:
    """The order, if a person may call it ``state``.

    Raises:
        UsageError: As ``resolve``.
    """
    order = journal.order(key)
    if order is None:
        raise UsageError(f"The journal has no order {key!r}.", remedy="bt-ibkr journal --open lists them.")
    if not order.is_open:
        raise UsageError(
            f"The order {key} has ended: it is {order.state}.", remedy="There is nothing to resolve."
        )
    if state not in RESOLUTIONS:
        raise UsageError(
            f"--as {state.value} is nothing that an order ends as.",
            remedy=f"Give one of {', '.join(one.value for one in RESOLUTIONS)}.",
        )
    if order.filled and state in (OrderState.ABSENT, OrderState.REJECTED):
        raise UsageError(
            f"{order.filled} of the order {key} executed: it is not {state.value}.",
            remedy="Give cancelled, expired or filled.",
        )
    return order
