"""A hub's status as tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Final

import msgspec
from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from bt_ibkr.cli.tables import make_table
from bt_ibkr.hub.names import UNALLOCATED
from bt_ibkr.hub.status import HubStatus, PeerStatus

_STATES: Final = {"live": "green", "silent": "yellow", "lost": "bold red", "left": "dim"}


def status_tables(status: HubStatus, now_ns: int) -> tuple[RenderableType, ...]:
    """All of it, from what concerns the session to what concerns single books.

    Args:
        now_ns: Wall time.
    """
    return (
        _head(status, now_ns),
        *_listed(
            "Strategies",
            ("name", "state", "host", "pid", "heard", "behind", "waiting", "lost", "mended", "orders", "1 min",
             "refused", "streams"),
            (_peer_row(one) for one in status.peers if one.role == "strategy" or one.state == "live"),
            empty="no strategy has come yet",
        ),
        *_listed(
            "Streams",
            ("instrument", "conid", "ticks", "per s", "conflated", "subscribers"),
            (
                (
                    one.name, str(one.conid), one.ticks, f"{one.ticks_per_s:.1f}",
                    f"{one.conflate_s:g} s" if one.conflate_s else "", ", ".join(one.subscribers),
                )
                for one in status.topics
            ),
            empty="nothing streams",
        ),
        *_listed(
            "Books",
            ("account", "book", "instrument", "size", "average", "realized", "commission", "bought", "sold"),
            _book_rows(status),
            empty="no book holds anything",
        ),
        *_netting(status),
    )  # fmt: skip


def _listed(
    title: str, headings: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str
) -> tuple[RenderableType, ...]:
    found = list(rows)
    if not found:
        return (Text(empty, style="dim"),)
    return (make_table(title, headings, found),)


def _head(status: HubStatus, now_ns: int) -> Table:
    session, lines = status.session, status.session.lines
    up_s = max(0, now_ns - status.since_ns) // 1_000_000_000
    streams = "[green]streams[/]" if status.connected else "[bold red]does not stream[/]"
    table = Table(
        title=f"Hub {status.hub}", title_justify="left", show_header=False, box=None, padding=(0, 2, 0, 0)
    )
    table.add_column(style="dim")
    table.add_column()
    table.add_row("process", f"{status.pid}, bt_ibkr {escape(status.version)}, up {_length(up_s)}")
    table.add_row(
        "session",
        f"{streams} ({escape(session.state)}), {session.reconnects} reconnects, {session.gaps} gaps",
    )
    table.add_row("accounts", escape(", ".join(status.accounts)) or "none")
    polled = f", {lines.polled} read by snapshots" if lines.polled else ""
    table.add_row("lines", f"{lines.used} of {lines.limit}{polled}, {lines.refused} refused")
    queued = ", ".join(f"{count} {name}" for name, count in session.queued.items() if count) or "none"
    penalty = f", [bold red]penalty {session.penalty_s:.0f} s[/]" if session.penalty_s else ""
    table.add_row("requests", f"{session.budget} could leave now, waiting: {escape(queued)}{penalty}")
    if status.health:
        table.add_row("health", escape(status.health))
    harm = {name: count for name, count in msgspec.structs.asdict(status.harm).items() if count}
    told = ", ".join(f"{count} {name}" for name, count in harm.items())
    table.add_row("refused", f"[yellow]{told}[/]" if told else "nothing")
    return table


def _peer_row(one: PeerStatus) -> Sequence[object]:
    shown = one.name if one.role == "strategy" else f"({one.role})"
    state = one.state + (", slow" if one.slow else "")
    return (
        shown, Text(state, style=_STATES.get(one.state, "")), one.host, str(one.pid), f"{one.silent_s:.1f} s",
        one.behind, one.waiting, one.lost, one.mended, one.orders, f"{one.orders_per_minute:g}", one.refused,
        len(one.topics),
    )  # fmt: skip


def _book_rows(status: HubStatus) -> list[Sequence[object]]:
    rows: list[Sequence[object]] = []
    for book in status.books:
        for one in book.holdings:
            name = status.names.get(one.conid, f"conid:{one.conid}")
            average = one.average_price if one.quantity else None
            rows.append(
                (
                    book.account, book.name, name, one.quantity, average, one.realised, one.commission,
                    one.bought, one.sold,
                )
            )  # fmt: skip
    return rows


def _netting(status: HubStatus) -> tuple[RenderableType, ...]:
    """Where books hold the same contract: what the account has is their sum."""
    sides: dict[tuple[str, int], list[tuple[str, Decimal]]] = {}
    for book in status.books:
        for one in book.holdings:
            if one.quantity:
                sides.setdefault((book.account, one.conid), []).append((book.name, one.quantity))
    shared = {place: held for place, held in sides.items() if len(held) > 1}
    rows = [
        (
            account,
            status.names.get(conid, f"conid:{conid}"),
            sum((quantity for _, quantity in held if quantity > 0), Decimal(0)),
            sum((quantity for _, quantity in held if quantity < 0), Decimal(0)),
            sum((quantity for _, quantity in held), Decimal(0)),
            ", ".join(name for name, _ in held),
        )
        for (account, conid), held in shared.items()
    ]
    loose = [account for (account, _), held in sides.items() if any(name == UNALLOCATED for name, _ in held)]
    notes: tuple[RenderableType, ...] = ()
    if loose:
        accounts = ", ".join(dict.fromkeys(loose))
        notes = (Text(f"{accounts}: positions of no strategy are in the book {UNALLOCATED}", style="yellow"),)
    if not rows:
        return notes
    headings = ("account", "instrument", "long", "short", "account has", "books")
    return (make_table("Netting", headings, rows), *notes)


def _length(seconds: int) -> str:
    days, rest = divmod(seconds, 86_400)
    hours, rest = divmod(rest, 3600)
    minutes, rest = divmod(rest, 60)
    return (f"{days} d " if days else "") + f"{hours:02}:{minutes:02}:{rest:02}"
