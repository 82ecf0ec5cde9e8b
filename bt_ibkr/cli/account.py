"""The commands that look at an account or act on it, beside a strategy that runs or without one: their options."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from bt_ibkr.cli.options import (
    External,
    JournalFile,
    Json,
    Reason,
    Wait,
    text_option,
    visits,
)
from bt_ibkr.errors import UsageError

if TYPE_CHECKING:
    from bt_ibkr.app.visit import Address

_EveryAccount = Annotated[
    str, text_option("--account", metavar="ID", help="Account; else every one that has a journal.")
]


@visits()
def orders(
    *,
    address: Address,
    journal: JournalFile = "",
    everything: Annotated[
        bool, typer.Option("--all", help="Also orders of the day that have ended.")
    ] = False,
    as_json: Json = False,
) -> Callable[[], int]:
    """Show the account's open orders, as IBKR lists them and as the journal knows them."""
    from bt_ibkr.cli.looking import orders_command

    return partial(orders_command, address, journal, everything=everything, as_json=as_json)


@visits()
def positions(
    *,
    address: Address,
    as_json: Json = False,
) -> Callable[[], int]:
    """Show the account's positions, as IBKR has them."""
    from bt_ibkr.cli.looking import positions_command

    return partial(positions_command, address, as_json=as_json)


@visits()
def trades(
    *,
    address: Address,
    journal: JournalFile = "",
    days: Annotated[int, typer.Option(min=1, max=7, help="How many days back, today among them.")] = 1,
    as_json: Json = False,
) -> Callable[[], int]:
    """Show the account's executions, of all programs."""
    from bt_ibkr.cli.looking import trades_command

    return partial(trades_command, address, journal, days, as_json=as_json)


@visits()
def whatif(
    side: Annotated[str, typer.Argument(help="BUY or SELL.")],
    size: Annotated[str, typer.Argument(help="How many units.")],
    name: Annotated[str, typer.Argument(help="Instrument, as AAPL.")],
    order_type: Annotated[str, typer.Argument(help="MKT, LMT, STP, STOP_LIMIT, TRAIL …")] = "MKT",
    price: Annotated[float | None, typer.Argument(help="Limit; of a type without one, the stop.")] = None,
    stop: Annotated[float | None, typer.Option(help="Stop, of a type that has a limit as well.")] = None,
    trail_amount: Annotated[float | None, typer.Option(help="Distance to trail by.")] = None,
    trail_percent: Annotated[float | None, typer.Option(help="The same in percent.")] = None,
    tif: Annotated[str, text_option(help="Time in force: DAY, GTC, IOC …")] = "",
    outside_rth: Annotated[
        bool, typer.Option("--outside-rth", help="May trade outside regular hours.")
    ] = False,
    *,
    address: Address,
    as_json: Json = False,
) -> Callable[[], int]:
    """Ask IBKR what an order would cost and bind; nothing is placed. Example: whatif BUY 100 AAPL LMT 189.5"""
    from bt_ibkr.app.preview import order_words, parse_time
    from bt_ibkr.cli.looking import whatif_command

    words = order_words(
        side, size, name, order_type, price,
        stop=stop, trail_amount=trail_amount, trail_percent=trail_percent,
        time_in_force=parse_time(tif) if tif else None, outside_rth=outside_rth,
    )  # fmt: skip
    return partial(whatif_command, address, words, as_json=as_json)


@visits(live=True)
def cancel(
    targets: Annotated[
        list[str] | None, typer.Argument(help="Orders: keys of the journal, or IBKR's order ids.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All open orders of strategies.")] = False,
    strategy: Annotated[str, text_option(help="All open orders of this strategy.")] = "",
    external: External = False,
    wait_s: Wait = 15.0,
    *,
    address: Address,
    journal: JournalFile = "",
    as_json: Json = False,
) -> Callable[[], int]:
    """Cancel orders, and wait for their end. A strategy that runs is told by IBKR, and may place others."""
    from bt_ibkr.cli.acting import CancelWishes, cancel_command

    named = tuple(targets or ())
    if sum((bool(named), everything, bool(strategy))) != 1:
        raise UsageError(
            "Which orders are to be cancelled was not said, or said twice.",
            remedy="Name orders by their keys or ids, or say --all, or --strategy NAME.",
        )
    if external and not everything:
        raise UsageError(
            "--external goes with --all.", remedy="An order of another program is named by its id."
        )
    wishes = CancelWishes(targets=named, strategy=strategy, external=external, wait_s=wait_s)
    return partial(cancel_command, address, journal, wishes, as_json=as_json)


@visits(live=True, competing="take_over_once")
def flatten(
    external: External = False,
    wait_s: Wait = 30.0,
    reason: Reason = "positions are closed",
    *,
    address: Address,
    journal: JournalFile = "",
    as_json: Json = False,
) -> Callable[[], int]:
    """Halt trading, cancel open orders, and close all positions at the market."""
    from bt_ibkr.cli.acting import flatten_command

    return partial(
        flatten_command, address, journal, reason, external=external, wait_s=wait_s, as_json=as_json
    )


@visits(mode=False, account=_EveryAccount, competing="take_over_once")
def halt(
    reducing: Annotated[
        bool, typer.Option("--reducing", help="Let what only reduces positions pass; cancel nothing.")
    ] = False,
    keep_orders: Annotated[bool, typer.Option("--keep-orders", help="Cancel nothing.")] = False,
    external: External = False,
    wait_s: Wait = 15.0,
    reason: Reason = "",
    *,
    address: Address,
    journal: JournalFile = "",
    as_json: Json = False,
) -> Callable[[], int]:
    """Let no order leave any more, of whatever strategy, and cancel those that are open."""
    from bt_ibkr.cli.acting import HaltWishes, halt_command

    wishes = HaltWishes(
        reducing=reducing,
        cancel=not (reducing or keep_orders),
        external=external,
        wait_s=wait_s,
        reason=reason,
    )
    return partial(halt_command, address, journal, wishes, as_json=as_json)


def resume(
    reducing: Annotated[
        bool, typer.Option("--reducing", help="Only as far as to orders that reduce positions.")
    ] = False,
    reason: Reason = "",
    account: Annotated[
        str, text_option("--account", metavar="ID", help="Account; needed where several have a journal.")
    ] = "",
    journal: JournalFile = "",
    as_json: Json = False,
) -> Callable[[], int]:
    """Let orders leave again."""
    from bt_ibkr.cli.acting import resume_command

    return partial(resume_command, account, journal, reason, reducing=reducing, as_json=as_json)


def journal(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY | verify | resolve KEY]", help="An order's key; or what to do."),
    ] = None,
    open_only: Annotated[bool, typer.Option("--open", help="Only orders that may stand at IBKR.")] = False,
    strategy: Annotated[str, text_option(help="Only those of this strategy.")] = "",
    since: Annotated[str, text_option(help="Only what is from this time on, ISO 8601, UTC.")] = "",
    limit: Annotated[int, typer.Option(min=1, help="At most so many rows of each kind, the last ones.")] = 50,
    resolution: Annotated[
        str, text_option("--as", help="Of resolve: absent, cancelled, expired, filled or rejected.")
    ] = "",
    yes: Annotated[str, text_option(metavar="KEY", help="Confirm resolve, in a script, by the key.")] = "",
    account: Annotated[
        str, text_option("--account", metavar="ID", help="Account; needed where several have a journal.")
    ] = "",
    journal: JournalFile = "",
    as_json: Json = False,
) -> Callable[[], int]:
    """Show orders, executions and the log of the journal; verify it; resolve an order. IBKR is not asked."""
    from bt_ibkr.app.market import parse_moment
    from bt_ibkr.cli.recording import Filters, resolve_command, show_command, verify_command

    given = tuple(words or ())
    if (resolution or yes) and given[:1] != ("resolve",):
        raise UsageError(
            "--as and --yes belong to resolve.", remedy="bt-ibkr journal resolve KEY --as absent"
        )
    if given == ("verify",):
        return partial(verify_command, account, journal, as_json=as_json)
    if given[:1] == ("resolve",):
        if len(given) != 2 or not resolution:
            raise UsageError(
                "resolve wants one order and what became of it.",
                remedy="bt-ibkr journal resolve KEY --as absent",
            )
        return partial(resolve_command, account, journal, given[1], resolution, yes, as_json=as_json)
    if len(given) > 1:
        raise UsageError(f"{given[1]!r} is a word too many.", remedy="Name one order at a time.")
    filters = Filters(
        key=given[0] if given else "",
        open_only=open_only,
        strategy=strategy,
        since_ns=parse_moment(since) if since else None,
        limit=limit,
    )
    return partial(show_command, account, journal, filters, as_json=as_json)


#: As they are listed.
COMMANDS = (orders, positions, trades, whatif, cancel, flatten, halt, resume, journal)
