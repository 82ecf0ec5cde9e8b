"""The command ``journal``: what is on record, whether the record is whole, and a person's word on an order."""

from __future__ import annotations

import sys
from typing import Any

import msgspec

from bt_ibkr.app.journal_check import resolvable, verify
from bt_ibkr.app.journals import PERSON, existing, place_of, visiting
from bt_ibkr.app.result import utc_text
from bt_ibkr.cli.tables import console, moment, number, put_json, show_table, show_trading, trading_row
from bt_ibkr.clock import SystemClock
from bt_ibkr.errors import JournalError, UsageError
from bt_ibkr.journal import Journal, JournalEvent, JournalExecution, JournalOrder
from bt_ibkr.model.intent import OrderState


class Filters(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be shown."""

    key: str = ""
    open_only: bool = False
    strategy: str = ""
    since_ns: int | None = None
    limit: int = 50


def show_command(account: str, journal_file: str, filters: Filters, *, as_json: bool) -> int:
    """Show orders, executions and the log.

    Raises:
        UsageError: There is no such journal, or no such order in it.
    """
    place = existing(place_of(account, journal_file))
    with visiting(place) as journal:
        orders, executions, events = _read(journal, account, filters)
        state, epoch = journal.trading_state(), journal.epoch
    if as_json:
        put_json(
            {
                "journal": str(place),
                "epoch": epoch,
                "trading": trading_row(state),
                "orders": [_order_row(one) for one in orders],
                "executions": [_execution_row(one) for one in executions],
                "events": [_event_row(one) for one in events],
            }
        )
        return 0
    out = console()
    show_trading(out, str(place), state)
    show_table(
        out,
        "Orders",
        ("order", "id", "state", "side", "size", "filled", "instrument", "type", "limit", "stop", "changed", "note"),
        (
            (
                one.key, one.order_id, one.state.value, (t := one.intent.ticket).side.value, t.quantity,
                one.filled, one.intent.dataname or str(t.contract_id), t.order_type.value, t.limit_price,
                t.stop_price, moment(one.changed_ns), one.text,
            )
            for one in orders
        ),
        empty="no orders",
    )  # fmt: skip
    show_table(
        out,
        "Executions",
        ("time (UTC)", "side", "size", "symbol", "price", "fee", "order", "execution", "note"),
        (
            (
                moment(one.execution.time_ns), one.execution.side.value, one.execution.quantity,
                one.execution.symbol, one.execution.price, one.execution.commission, one.key,
                one.execution.execution_id, "superseded" if one.superseded else "",
            )
            for one in executions
        ),
        empty="no executions",
    )  # fmt: skip
    show_table(
        out,
        "Log",
        ("no.", "time (UTC)", "order", "event", "text"),
        ((one.number, moment(one.time_ns), one.key, one.kind, _told(one)) for one in events),
        empty="nothing in the log",
    )
    return 0


def _read(
    journal: Journal, account: str, filters: Filters
) -> tuple[list[JournalOrder], list[JournalExecution], list[JournalEvent]]:
    last = -filters.limit
    if filters.key:
        order = journal.order(filters.key)
        if order is None:
            raise UsageError(
                f"The journal has no order {filters.key!r}.", remedy="bt-ibkr journal lists them."
            )
        executions = journal.executions(key=filters.key)
        return [order], list(executions[last:]), list(journal.events(key=filters.key, limit=filters.limit))
    strategy = filters.strategy or None
    orders = journal.orders(open_only=filters.open_only, strategy=strategy, since_ns=filters.since_ns)
    rows = journal.executions(since_ns=filters.since_ns, strategy=strategy, account=account or None)
    events = journal.events(
        since_ns=filters.since_ns, limit=None if strategy or filters.open_only else filters.limit
    )
    if strategy or filters.open_only:
        keys = {one.key for one in orders}
        events = tuple(one for one in events if one.key in keys)
    if filters.open_only:
        rows = tuple(one for one in rows if one.key in keys)
    return list(orders[last:]), list(rows[last:]), list(events[last:])


def _told(event: JournalEvent) -> str:
    return event.text or (event.payload if len(event.payload) <= 80 else event.payload[:79] + "…")


def _order_row(order: JournalOrder) -> dict[str, Any]:
    intent, ticket = order.intent, order.intent.ticket
    return {
        "key": order.key,
        "order_id": order.order_id,
        "strategy": intent.strategy,
        "account": ticket.account,
        "state": order.state.value,
        "open": order.is_open,
        "dataname": intent.dataname,
        "conid": ticket.contract_id,
        "side": ticket.side.value,
        "size": float(ticket.quantity),
        "filled": float(order.filled),
        "type": ticket.order_type.value,
        "limit_price": ticket.limit_price,
        "stop_price": ticket.stop_price,
        "time_in_force": ticket.time_in_force.value,
        "parent": intent.parent_key,
        "group": intent.group,
        "created": utc_text(order.created_ns),
        "changed": utc_text(order.changed_ns),
        "text": order.text,
    }


def _execution_row(row: JournalExecution) -> dict[str, Any]:
    one = row.execution
    return {
        "execution_id": one.execution_id,
        "time": utc_text(one.time_ns),
        "account": one.account,
        "symbol": one.symbol,
        "conid": one.conid,
        "side": one.side.value,
        "size": float(one.quantity),
        "price": one.price,
        "commission": number(one.commission),
        "order_id": one.order_id,
        "key": row.key,
        "source": row.source,
        "superseded": row.superseded,
    }


def _event_row(event: JournalEvent) -> dict[str, Any]:
    return {
        "number": event.number,
        "time": utc_text(event.time_ns),
        "key": event.key,
        "kind": event.kind,
        "text": event.text,
        "payload": msgspec.Raw(event.payload.encode()) if event.payload else None,
    }


def verify_command(account: str, journal_file: str, *, as_json: bool) -> int:
    """Look whether the journal is whole.

    Raises:
        UsageError: There is none.
        JournalError: It is not whole.
    """
    place = existing(place_of(account, journal_file))
    with visiting(place) as journal:
        found = verify(place, journal)
    if found.problems:
        raise JournalError(
            f"The journal {place} is not whole: {'; '.join(found.problems)}.",
            remedy="Keep a copy, then start the program that owns it: it saves what can be read.",
        )
    if as_json:
        put_json(found)
    else:
        console().print(
            f"[green]whole[/]  {place}: {found.orders} orders, {found.executions} executions, "
            f"{found.events} entries of the log"
        )
    return 0


def resolve_command(
    account: str, journal_file: str, key: str, word: str, confirmed: str, *, as_json: bool
) -> int:
    """Note what a person says became of an order, once it was confirmed.

    Raises:
        UsageError: No such open order, no such end, or not confirmed.
        JournalLockedError: A strategy runs: it looks the order up by itself.
    """
    try:
        state = OrderState(word.lower())
    except ValueError:
        raise UsageError(
            f"--as {word!r} is nothing that an order ends as.",
            remedy="Give absent, cancelled, expired, filled or rejected.",
        ) from None
    place = existing(place_of(account, journal_file))
    # As its owner: a strategy that runs would go on with what it knew before.
    journal = Journal.open(place, clock=SystemClock())
    try:
        order = resolvable(journal, key, state)
        out = console()
        if not as_json:
            ticket = order.intent.ticket
            out.print(
                f"{order.key}: {ticket.describe()}, {order.state.value} since {moment(order.changed_ns)} UTC."
            )
        _confirm(key, state, confirmed)
        journal.note(key, state, text=f"resolved as {state.value} by {PERSON}")
    finally:
        journal.close()
    if as_json:
        put_json({"key": key, "was": order.state.value, "state": state.value})
    else:
        out.print(f"{key} is {state.value} now.")
    return 0


def _confirm(key: str, state: OrderState, given: str) -> None:
    if not given and sys.stdin is not None and sys.stdin.isatty():
        sys.stderr.write(
            f"Only if IBKR's own programs show it so: an order that stands and is called {state.value} is not "
            f"watched any more. Type its key ({key}) to go on: "
        )
        sys.stderr.flush()
        given = sys.stdin.readline().strip()
    if given != key:
        raise UsageError(
            f"That {key} is {state.value} was not confirmed: {given!r} was.",
            remedy=f"Type the key when asked, or in a script say --yes {key}.",
        )
