"""A hub's status as tables."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Final

import msgspec
from rich.console import Console, RenderableType
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from bt_ibkr.cli.tables import make_table, trading_markup
from bt_ibkr.hub.names import UNALLOCATED
from bt_ibkr.hub.status import HubStatus, PeerStatus

_STATES: Final = {"live": "green", "silent": "yellow", "lost": "bold red", "left": "dim"}
#: Characters that no table needs.
_UNLIMITED: Final = 10_000
#: What most stocks and currencies have in their names.
_USUAL: Final = ("-STK-SMART-USD", "-CASH-IDEALPRO-USD")


def status_tables(status: HubStatus, now_ns: int, out: Console) -> tuple[RenderableType, ...]:
    """All of it, from what concerns the session to what concerns single books.

    Args:
        now_ns: Wall time.
        out: Where they are shown: a table that is too wide for it becomes several.
    """
    peers = [_peer_row(one) for one in status.peers if one.role == "strategy" or one.state == "live"]
    conflated = any(one.conflate_s for one in status.topics)
    return (
        _head(status, now_ns),
        *_listed(
            out,
            "Strategies",
            ("name", "state", "host", "pid", "heard", "streams", "behind", "waiting", "lost", "mended", "orders",
             "1 min", "refused"),
            peers,
            keys=1,
            first=6,
            rest="Their ticks and orders",
            empty="no strategy has come yet",
        ),
        *_listed(
            out,
            "Streams",
            ("instrument", "conid", "ticks", "per s", *(("conflated",) if conflated else ()), "subscribers"),
            [
                (
                    short_name(one.name) + ("" if one.kind == "ticks" else f" ({one.kind})"), str(one.conid),
                    one.ticks, f"{one.ticks_per_s:.1f}",
                    *((f"{one.conflate_s:g} s" if one.conflate_s else "",) if conflated else ()),
                    ", ".join(one.subscribers),
                )
                for one in status.topics
            ],
            empty="nothing streams",
        ),
        *_books(status, out),
        *_totals(status, out),
        *_netting(status, out),
    )  # fmt: skip


def short_name(name: str) -> str:
    """A dataname without what goes without saying."""
    for usual in _USUAL:
        name = name.removesuffix(usual)
    return name


def _listed(
    out: Console,
    title: str,
    headings: Sequence[str],
    rows: Sequence[Sequence[object]],
    *,
    keys: int = 0,
    first: int = 0,
    rest: str = "",
    empty: str = "",
) -> tuple[RenderableType, ...]:
    """A table, or the words of ``empty``.

    Args:
        keys, first: Where it is too wide: the first ``keys`` columns stand in each of two tables, the others up to
            ``first`` in the first one; ``rest`` is the other's title.
    """
    if not rows:
        return (Text(empty, style="dim"),) if empty else ()
    whole = make_table(title, headings, rows)
    if not first or Measurement.get(out, out.options.update(width=_UNLIMITED), whole).maximum <= out.width:
        return (whole,)
    return (
        make_table(title, headings[:first], [row[:first] for row in rows]),
        make_table(
            rest, (*headings[:keys], *headings[first:]), [(*row[:keys], *row[first:]) for row in rows]
        ),
    )


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
    if status.viewer:
        table.add_row("shown", f"what concerns {escape(status.viewer)}")
    table.add_row("accounts", escape(", ".join(status.accounts)) or "none")
    if status.trading is not None:
        table.add_row("trading", trading_markup(status.trading))
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
        len(one.topics), one.behind, one.waiting, one.lost, one.mended, one.orders, f"{one.orders_per_minute:g}",
        one.refused,
    )  # fmt: skip


def _books(status: HubStatus, out: Console) -> tuple[RenderableType, ...]:
    title, several = _of_accounts("Books", status)
    rows = [
        (
            *((book.account,) if several else ()), book.name, _instrument(status, one.conid), one.quantity,
            one.average_price if one.quantity else None, one.realised, one.commission, one.bought, one.sold,
        )
        for book in status.books
        for one in book.holdings
    ]  # fmt: skip
    headings = ("book", "instrument", "size", "average", "realized", "commission", "bought", "sold")
    keys = 2 + several
    return _listed(
        out,
        title,
        (*(("account",) if several else ()), *headings),
        rows,
        keys=keys,
        first=keys + 3,
        rest="Their commissions and trades",
        empty="no book holds anything",
    )


def _totals(status: HubStatus, out: Console) -> tuple[RenderableType, ...]:
    """For who does not see the books that they are made of."""
    if not status.viewer:
        return ()
    rows = [(one.account, _instrument(status, one.conid), one.quantity) for one in status.totals]
    return _listed(out, "Accounts have", ("account", "instrument", "size"), rows)


def _netting(status: HubStatus, out: Console) -> tuple[RenderableType, ...]:
    """Where books hold the same contract: what the account has is their sum."""
    sides: dict[tuple[str, int], list[tuple[str, Decimal]]] = {}
    for book in status.books:
        for one in book.holdings:
            if one.quantity:
                sides.setdefault((book.account, one.conid), []).append((book.name, one.quantity))
    title, several = _of_accounts("Netting", status)
    rows = [
        (
            *((account,) if several else ()),
            _instrument(status, conid),
            sum((quantity for _, quantity in held if quantity > 0), Decimal(0)),
            sum((quantity for _, quantity in held if quantity < 0), Decimal(0)),
            sum((quantity for _, quantity in held), Decimal(0)),
            ", ".join(name for name, _ in held),
        )
        for (account, conid), held in sides.items()
        if len(held) > 1
    ]
    headings = (*(("account",) if several else ()), "instrument", "long", "short", "account has", "books")
    loose = [account for (account, _), held in sides.items() if any(name == UNALLOCATED for name, _ in held)]
    notes: tuple[RenderableType, ...] = ()
    if loose:
        accounts = ", ".join(dict.fromkeys(loose))
        notes = (Text(f"{accounts}: positions of no strategy are in the book {UNALLOCATED}", style="yellow"),)
    return (*_listed(out, title, headings, rows), *notes)


def _of_accounts(title: str, status: HubStatus) -> tuple[str, bool]:
    """A table's title, and whether it needs a column for accounts."""
    accounts = {book.account for book in status.books}
    return (title, True) if len(accounts) > 1 else (f"{title} of {''.join(accounts)}", False)


def _instrument(status: HubStatus, conid: int) -> str:
    return short_name(status.names.get(conid, f"conid:{conid}"))


def _length(seconds: int) -> str:
    days, rest = divmod(seconds, 86_400)
    hours, rest = divmod(rest, 3600)
    minutes, rest = divmod(rest, 60)
    return (f"{days} d " if days else "") + f"{hours:02}:{minutes:02}:{rest:02}"
