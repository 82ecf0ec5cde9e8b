"""The commands ``orders``, ``positions``, ``trades`` and ``whatif``: nothing is changed by them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bt_ibkr.app.journals import visiting
from bt_ibkr.app.order_list import Listing, may_execute, read_orders
from bt_ibkr.app.preview import OrderWords, preview
from bt_ibkr.app.result import utc_text
from bt_ibkr.app.visit import Address, Visit, read_positions, visit_account
from bt_ibkr.cli.tables import console, number, put_json, show_table
from bt_ibkr.journal import Journal, JournalOrder, journal_path
from bt_ibkr.model.intent import parse_key
from bt_ibkr.model.order import Execution, OrderReport
from bt_ibkr.services.whatif import refusal_of
from bt_ibkr.wire.order_answers import Impact


@contextlib.contextmanager
def _journal_of(account: str, named: str) -> Iterator[Journal | None]:
    """The account's journal; ``None`` where no strategy has made one."""
    place = Path(named) if named else journal_path(account)
    if not place.is_file():
        yield None
        return
    with visiting(place) as journal:
        yield journal


def orders_command(address: Address, journal_file: str, *, everything: bool, as_json: bool) -> int:
    """Show orders."""

    async def look(visit: Visit) -> tuple[str, Listing]:
        with _journal_of(visit.account, journal_file) as journal:
            return visit.account, await read_orders(visit, journal, visit.account)

    account, listing = visit_account(address, look, trades=False)
    rows = [
        _order_row(one, listing.owners.get(one.order_id), one.order_id not in listing.ours)
        for one in listing.reports
        if everything or may_execute(one)
    ]
    rows += [_missing_row(one) for one in listing.missing]
    if as_json:
        put_json({"account": account, "orders": rows})
        return 0
    show_table(
        console(),
        f"Orders of {account}",
        ("order", "id", "side", "size", "filled", "symbol", "type", "limit", "stop", "tif", "status", "journal"),
        (
            (
                one["key"] or ("(other program)" if one["external"] else ""), one["order_id"], one["side"],
                one["size"], one["filled"], one["symbol"], one["type"], one["limit_price"], one["stop_price"],
                one["time_in_force"], one["status"] or "not listed", one["state"],
            )
            for one in rows
        ),
        empty=f"no {'' if everything else 'open '}orders in {account}",
    )  # fmt: skip
    return 0


def _order_row(report: OrderReport, owner: JournalOrder | None, external: bool) -> dict[str, Any]:
    return {
        "key": None if owner is None else owner.key,
        "order_id": report.order_id,
        "strategy": None if owner is None else owner.intent.strategy,
        "external": external,
        "symbol": report.symbol or (str(report.conid) if report.conid else None),
        "conid": report.conid,
        "side": None if report.side is None else report.side.value,
        "size": number(report.total_quantity),
        "filled": number(report.filled_quantity),
        "type": report.order_type,
        "limit_price": report.limit_price,
        "stop_price": report.stop_price,
        "time_in_force": report.time_in_force,
        "status": None if report.status is None else report.status.value,
        "state": None if owner is None else owner.state.value,
    }


def _missing_row(order: JournalOrder) -> dict[str, Any]:
    """An order that the journal holds for open, and IBKR does not list."""
    ticket = order.intent.ticket
    return {
        "key": order.key,
        "order_id": order.order_id,
        "strategy": order.intent.strategy,
        "external": False,
        "symbol": order.intent.dataname or str(ticket.contract_id),
        "conid": ticket.contract_id,
        "side": ticket.side.value,
        "size": number(ticket.quantity),
        "filled": number(order.filled),
        "type": ticket.order_type.value,
        "limit_price": ticket.limit_price,
        "stop_price": ticket.stop_price,
        "time_in_force": ticket.time_in_force.value,
        "status": None,
        "state": order.state.value,
    }


def positions_command(address: Address, *, as_json: bool) -> int:
    """Show positions."""

    async def look(visit: Visit) -> tuple[str, Any]:
        return visit.account, await read_positions(visit)

    account, held = visit_account(address, look, trades=False)
    rows = [
        {
            "conid": one.conid,
            "symbol": one.symbol,
            "security_type": one.security_type,
            "size": float(one.quantity),
            "average_price": one.average_price,
            "market_price": one.market_price,
            "market_value": one.market_value,
            "unrealized_pnl": one.unrealized_pnl,
            "realized_pnl": one.realized_pnl,
            "currency": one.currency,
        }
        for one in held
    ]
    if as_json:
        put_json({"account": account, "positions": rows})
        return 0
    show_table(
        console(),
        f"Positions of {account}",
        ("symbol", "type", "conid", "size", "average", "price", "value", "unrealized", "currency"),
        (
            (
                one["symbol"], one["security_type"], str(one["conid"]), one["size"], one["average_price"],
                one["market_price"], one["market_value"], one["unrealized_pnl"], one["currency"],
            )
            for one in rows
        ),
        empty=f"{account} is flat",
    )  # fmt: skip
    return 0


def trades_command(address: Address, journal_file: str, days: int, *, as_json: bool) -> int:
    """Show executions."""

    async def look(visit: Visit) -> tuple[str, list[dict[str, Any]]]:
        found = await visit.portfolio.trades(visit.account, days)
        with _journal_of(visit.account, journal_file) as journal:
            own = sorted((one for one in found if one.account == visit.account), key=lambda one: one.time_ns)
            return visit.account, [_trade_row(one, journal) for one in own]

    account, rows = visit_account(address, look, trades=False)
    if as_json:
        put_json({"account": account, "trades": rows})
        return 0
    show_table(
        console(),
        f"Executions of {account}",
        ("time (UTC)", "side", "size", "symbol", "price", "fee", "order", "execution"),
        (
            (
                str(one["time"])[:19].replace("T", " "), one["side"], one["size"], one["symbol"], one["price"],
                one["commission"], one["key"] or one["order_ref"] or one["order_id"], one["execution_id"],
            )
            for one in rows
        ),
        empty=f"no executions in {account} in {days} day{'s' if days > 1 else ''}",
    )  # fmt: skip
    return 0


def _trade_row(execution: Execution, journal: Journal | None) -> dict[str, Any]:
    owner = None
    if journal is not None:
        if execution.order_id:
            owner = journal.by_order_id(execution.account, execution.order_id)
        if owner is None and execution.order_ref and parse_key(execution.order_ref):
            owner = journal.order(execution.order_ref)
    return {
        "execution_id": execution.execution_id,
        "time": utc_text(execution.time_ns),
        "symbol": execution.symbol,
        "conid": execution.conid,
        "side": execution.side.value,
        "size": float(execution.quantity),
        "price": execution.price,
        "commission": execution.commission,
        "order_id": execution.order_id,
        "order_ref": execution.order_ref,
        "key": None if owner is None else owner.key,
        "strategy": None if owner is None else owner.intent.strategy,
    }


def whatif_command(address: Address, words: OrderWords, *, as_json: bool) -> int:
    """Show a preview; an order that IBKR would refuse ends as the order itself would."""

    async def look(visit: Visit) -> Any:
        return visit.account, *await preview(visit, words)

    account, contract, found = visit_account(address, look, trades=False)
    refusal = refusal_of(found)
    order = f"{words.side.value} {words.quantity:f} {contract.describe()} {words.order_type.value}"
    figures: dict[str, Impact | None] = {
        "equity": found.equity,
        "initial_margin": found.initial_margin,
        "maintenance_margin": found.maintenance_margin,
        "position": found.position,
    }
    code = 0 if refusal is None else refusal.exit_code
    if as_json:
        told = {
            "account": account, "order": order, "amount": found.amount, "commission": found.commission,
            "total": found.total, "currency": found.currency, **figures, "warnings": found.warnings,
            "error": found.error,
        }  # fmt: skip
        put_json(told if refusal is None else told | {"errors": [str(refusal)], "exit_code": code})
        return code
    out = console()
    unit = found.currency or ""
    sums = (("amount", found.amount), ("commission", found.commission), ("total", found.total))
    show_table(
        out,
        f"{order} in {account}",
        ("", "now", "change", "after"),
        [
            *((name, None, value, unit) for name, value in sums if value is not None),
            *(
                (name.replace("_", " "), one.current, one.change, one.after)
                for name, one in figures.items()
                if one is not None
            ),
        ],
        empty=f"{order} in {account}: IBKR gave no figures",
    )
    for warning in found.warnings:
        out.print(f"warning: {warning}", markup=False)
    if refusal is not None:
        raise refusal
    return 0
