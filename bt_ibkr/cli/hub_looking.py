"""The commands ``hub status`` and ``hub transfer``."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Final

import msgspec
from rich.console import Console, Group
from rich.live import Live

from bt_ibkr.cli.hub_tables import short_name, status_tables
from bt_ibkr.cli.output import to_json
from bt_ibkr.cli.stopping import stop_signals
from bt_ibkr.cli.tables import console, put_json
from bt_ibkr.errors import UsageError
from bt_ibkr.hub.books import BookView, Transfer
from bt_ibkr.hub.config import default_endpoint
from bt_ibkr.hub.observing import HubObserver
from bt_ibkr.hub.status import HubStatus

#: Between two pictures, seconds.
_WATCH_S: Final = 1.0


class TransferWishes(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be moved, as typed."""

    source: str
    target: str
    size: str
    instrument: str
    account: str = ""
    price: float | None = None


def _observe(endpoint: str, keys: str) -> HubObserver:
    return HubObserver(endpoint or default_endpoint(), Path(keys) if keys else None)


# -- status --------------------------------------------------------------------------------------------


def status_command(endpoint: str, keys: str, *, watch: bool, as_json: bool) -> int:
    """Show the hub; with ``watch`` until a signal, the ordinary end.

    Raises:
        UnreachableError: No hub answers.
        SessionError: It does not answer any more.
    """
    with _observe(endpoint, keys) as observer:
        if watch:
            with stop_signals() as stopped:
                return _watch(observer, stopped, as_json=as_json)
        status = observer.status()
    if as_json:
        put_json(status)
    else:
        out = console()
        out.print(Group(*status_tables(status, time.time_ns(), out)))
    return 0


def _watch(observer: HubObserver, stopped: threading.Event, *, as_json: bool) -> int:
    out = console()
    with _pictures(out, as_json=as_json) as show:
        while not stopped.is_set():
            show(observer.status())
            stopped.wait(_WATCH_S)
    return 0


@contextmanager
def _pictures(out: Console, *, as_json: bool) -> Iterator[Any]:
    """One line of JSON each, one picture over the other on a terminal, one below the other elsewhere."""
    if as_json:

        def put(status: HubStatus) -> None:
            sys.stdout.write(to_json(status) + "\n")
            sys.stdout.flush()

        yield put
    elif out.is_terminal:
        with Live(console=out, screen=True, auto_refresh=False) as live:
            yield lambda status: live.update(Group(*status_tables(status, time.time_ns(), out)), refresh=True)
    else:

        def tell(status: HubStatus) -> None:
            out.print(Group(*status_tables(status, time.time_ns(), out)))
            out.file.flush()

        yield tell


# -- transfer ------------------------------------------------------------------------------------------


def transfer_command(endpoint: str, keys: str, wishes: TransferWishes, *, as_json: bool) -> int:
    """Move a position between books.

    Raises:
        UsageError: The source has no such thing, or not so much of it.
        NotArmedError: Who asks is no administrator.
    """
    with _observe(endpoint, keys) as observer:
        status = observer.status()
        wanted = transfer_of(wishes, status)
        observer.transfer(wanted)
        books = observer.status().books
    held = {
        name: _quantity(books, wanted.account, name, wanted.conid) for name in (wanted.source, wanted.target)
    }
    shown = status.names.get(wanted.conid, str(wanted.conid))
    if as_json:
        put_json(
            {
                "account": wanted.account,
                "conid": wanted.conid,
                "instrument": shown,
                "quantity": float(wanted.quantity),
                "books": {name: float(quantity) for name, quantity in held.items()},
            }
        )
        return 0
    now = ", ".join(f"{name} has {quantity:f}" for name, quantity in held.items())
    console().print(
        f"{wanted.quantity:f} {shown} in {wanted.account}: from {wanted.source} to {wanted.target}. Now {now}.",
        markup=False,
    )
    return 0


def transfer_of(wishes: TransferWishes, status: HubStatus) -> Transfer:
    """What the words mean, by the hub's books.

    Raises:
        UsageError: They mean nothing, or several things.
    """
    account = wishes.account or (status.accounts[0] if len(status.accounts) == 1 else "")
    if account not in status.accounts:
        raise UsageError(
            f"Account {account!r} is not one of the hub's."
            if account
            else "The hub has several accounts, and none was named.",
            remedy=f"Name one with --account: {', '.join(status.accounts)}.",
        )
    own = {book.name: book for book in status.books if book.account == account}
    if wishes.source not in own:
        raise UsageError(
            f"The hub has no book {wishes.source!r} in {account}.",
            remedy=f"Books: {', '.join(own) or 'none'}.",
        )
    held = {one.conid: one.quantity for one in own[wishes.source].holdings if one.quantity}
    found = [conid for conid in held if _means(wishes.instrument, conid, status.names.get(conid, ""))]
    if len(found) != 1:
        there = ", ".join(f"{status.names.get(one, '?')} (conid {one})" for one in found or held)
        raise UsageError(
            f"{wishes.instrument!r} is "
            + ("several things" if found else "nothing that the book has")
            + f": {wishes.source} in {account}.",
            remedy=f"Name one by its conid: {there}." if there else "That book is empty.",
        )
    quantity = held[found[0]]
    size = abs(quantity) if wishes.size == "all" else _size(wishes.size)
    return Transfer(
        account=account,
        conid=found[0],
        source=wishes.source,
        target=wishes.target,
        quantity=size if quantity > 0 else -size,
        price=wishes.price,
    )


def _means(text: str, conid: int, shown: str) -> bool:
    return (
        text.removeprefix("conid:") == str(conid)
        or text.upper() in (shown.upper(), short_name(shown).upper())
        or (bool(shown) and text.upper() == shown.split("-")[0].upper())
    )


def _size(text: str) -> Decimal:
    try:
        size = Decimal(text)
    except InvalidOperation:
        size = Decimal(0)
    if not (size.is_finite() and size > 0):
        raise UsageError(
            f"{text!r} is no quantity.", remedy="Give a number above 0, of a short position as well, or all."
        )
    return size


def _quantity(books: tuple[BookView, ...], account: str, name: str, conid: int) -> Decimal:
    return sum(
        (
            one.quantity
            for book in books
            if (book.account, book.name) == (account, name)
            for one in book.holdings
            if one.conid == conid
        ),
        Decimal(0),
    )
