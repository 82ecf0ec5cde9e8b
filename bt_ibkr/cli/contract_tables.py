"""What the commands of ``contracts`` show."""

from __future__ import annotations

import signal
import sqlite3
import time
from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from bt_ibkr.app import contracts
from bt_ibkr.app.result import utc_text
from bt_ibkr.app.visit import Address, Visit, visit_account
from bt_ibkr.cli.tables import console, moment, put_json, show_table
from bt_ibkr.errors import UsageError
from bt_ibkr.model.contract import Contract
from bt_ibkr.services.contract_cache import CacheLine, cache_lines, cache_path, clear_cache
from bt_ibkr.services.datanames import ContractQuery
from bt_ibkr.wire.schedule import Window

#: Months of derivatives that a row of a search shows.
_MONTHS = 4
#: Sessions that are shown.
_SESSIONS = 6


def search_command(address: Address, text: str, *, as_json: bool) -> int:
    """Show what a search finds."""
    found = visit_account(address, lambda visit: contracts.search(visit, text), trades=False)
    if as_json:
        put_json({"text": text, "found": found})
        return 0
    show_table(
        console(),
        f"{text}: {len(found)} found",
        ("write", "type", "conid", "symbol", "exchange", "name", "months"),
        (
            (
                one.dataname, one.security_type, str(one.conid or ""), one.symbol, one.exchange, one.name,
                _months(one.months),
            )
            for one in found
        ),
        empty=f"nothing answers to {text}",
    )  # fmt: skip
    return 0


def _months(words: tuple[str, ...]) -> str:
    more = f" … {words[-1]}" if len(words) > _MONTHS else ""
    return " ".join(words[:_MONTHS]) + more


def show_command(address: Address, query: ContractQuery, *, as_json: bool) -> int:
    """Show what a name means."""
    shown = visit_account(address, lambda visit: contracts.show(visit, query), trades=False)
    if as_json:
        put_json(contracts.shown_json(shown))
        return 0
    out = console()
    show_table(out, shown.contract.describe(), ("", ""), _details(shown), empty="")
    rules = shown.rules
    if rules.order_types:
        out.print(f"order types: {', '.join(rules.order_types)}", markup=False)
    if rules.time_in_force_types:
        words = ", ".join(word.partition("/")[0] for word in rules.time_in_force_types)
        out.print(f"times in force: {words}", markup=False)
    if shown.schedule is not None:
        _show_hours(out, "Regular hours (UTC)", shown.schedule.regular)
        _show_hours(out, "All hours (UTC)", shown.schedule.extended)
    return 0


def _details(shown: contracts.Shown) -> Iterable[tuple[str, object]]:
    contract, told = shown.contract, shown.event
    steps = ", ".join(f"{step:g} from {edge:g}" for edge, step in contract.tick_steps)
    rows: list[tuple[str, Any]] = [
        ("name in full", shown.dataname),
        ("company", contract.company_name),
        ("conid", str(contract.conid) if contract.conid > 0 else ""),
        ("currency", contract.currency),
        ("multiplier", f"{contract.multiplier:g}"),
        ("price step", steps or f"{contract.tick_size:g}"),
        ("size step", f"{contract.size_increment:g}"),
        ("last trade date", contract.last_trade_date),
        ("trading class", contract.trading_class),
        ("underlying", str(contract.underlying_conid or "")),
        ("exchanges", ", ".join(contract.valid_exchanges)),
        ("the front until", contract.roll_date),
        ("question", "" if told is None else told.question),
        ("pays", "" if told is None or told.payout is None else f"{told.payout:g}"),
        ("", "is bought only; buying the opposite contract closes it" if contract.only_bought else ""),
        *(
            (f"leg {leg.ratio:+d}", one.describe())
            for leg, one in zip(contract.legs, shown.legs, strict=True)
        ),
    ]
    return [(name, value) for name, value in rows if value]


def _show_hours(out: Console, title: str, windows: tuple[Window, ...]) -> None:
    show_table(
        out,
        title,
        ("from", "to"),
        ((moment(one.start_ns), moment(one.end_ns)) for one in windows[:_SESSIONS]),
        empty=f"{title}: none told",
    )


def chain_command(address: Address, name: str, wishes: contracts.ChainWishes, *, as_json: bool) -> int:
    """Show a chain.

    Returns:
        0, or 130 after an interrupt: what had come is kept for the next time.
    """
    out = Console(stderr=True, soft_wrap=True, highlight=False) if as_json else console()
    with _progress(out) as bar:
        task = bar.add_task(f"options on {name}", total=None)

        async def work(visit: Visit) -> tuple[Contract, tuple[Contract, ...]]:
            return await contracts.chain(
                visit, name, wishes, lambda done, total: bar.update(task, completed=done, total=total)
            )

        # An interrupt ends the visit in order, rather than the process at once.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            underlying, found = visit_account(address, work, trades=False)
        except KeyboardInterrupt:
            code = 128 + signal.SIGINT
            out.print("[yellow]interrupted[/]  The same command goes on from there.")
            if as_json:
                put_json({"errors": ["interrupted"], "exit_code": code})
            return code
        finally:
            signal.signal(signal.SIGINT, before)
    if as_json:
        put_json({"underlying": _option(underlying), "options": [_option(one) for one in found]})
        return 0
    show_table(
        out,
        f"Options on {underlying.describe()}: {len(found)}",
        ("day", "strike", "right", "class", "exchange", "multiplier", "conid"),
        (
            (
                one.last_trade_date, one.strike, one.right, one.trading_class, one.exchange,
                f"{one.multiplier:g}", str(one.conid),
            )
            for one in found
        ),
        empty=f"no options on {underlying.describe()} are like that",
    )  # fmt: skip
    return 0


def _option(one: Contract) -> dict[str, Any]:
    return {
        "dataname": one.describe(),
        "conid": one.conid,
        "symbol": one.symbol,
        "security_type": one.security_type.value,
        "last_trade_date": one.last_trade_date,
        "strike": one.strike,
        "right": one.right,
        "trading_class": one.trading_class,
        "exchange": one.exchange,
        "currency": one.currency,
        "multiplier": one.multiplier,
    }


def _progress(out: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=out,
        transient=True,
        disable=not out.is_terminal,
    )


def cache_command(*, clear: bool, as_json: bool) -> int:
    """Show or empty the cache."""
    path = cache_path()
    dropped = 0
    try:
        if clear:
            dropped = clear_cache(path)
        lines = cache_lines(path, time.time_ns())
    except (OSError, sqlite3.Error) as problem:
        raise UsageError(
            f"The cache {path} cannot be used: {problem}.",
            remedy="Delete the file: everything in it can be asked for again.",
        ) from None
    if as_json:
        put_json({"file": str(path), "cleared": dropped, "entries": [_line(one) for one in lines]})
        return 0
    out = console()
    if clear:
        out.print(f"{dropped} answers forgotten", markup=False)
    show_table(
        out,
        str(path),
        ("server and login", "kind", "answers", "too old", "bytes", "oldest (UTC)"),
        ((one.scope, one.kind, one.entries, one.expired, one.size, moment(one.oldest_ns)) for one in lines),
        empty=f"{path} holds nothing",
    )
    return 0


def _line(one: CacheLine) -> dict[str, Any]:
    return {
        "scope": one.scope,
        "kind": one.kind,
        "entries": one.entries,
        "expired": one.expired,
        "size": one.size,
        "oldest": utc_text(one.oldest_ns),
    }
