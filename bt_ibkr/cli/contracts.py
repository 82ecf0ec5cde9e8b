"""The commands ``contracts search``, ``show``, ``chain`` and ``cache``: their options."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from bt_ibkr.cli.options import (
    Json,
    text_option,
    visits,
)

if TYPE_CHECKING:
    from bt_ibkr.app.visit import Address

contracts = typer.Typer(
    name="contracts",
    help="Contracts: search them, show what a name means, list option chains, look at the cache.",
    no_args_is_help=True,
)

Fresh = Annotated[bool, typer.Option("--no-cache", help="Ask IBKR anew, and keep nothing.")]


@contracts.command()
@visits()
def search(
    text: Annotated[str, typer.Argument(help="A symbol, or a part of a company's name.")],
    fresh: Fresh = False,
    *,
    address: Address,
    as_json: Json = False,
) -> Callable[[], int]:
    """Show everything that answers to a symbol or a name, and how to write it."""
    from bt_ibkr.cli.contract_tables import search_command

    address = msgspec.structs.replace(address, contract_cache=not fresh)
    return partial(search_command, address, text, as_json=as_json)


@contracts.command()
@visits()
def show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Instrument, as AAPL or ES@CME front.")],
    fresh: Fresh = False,
    *,
    address: Address,
    as_json: Json = False,
) -> Callable[[], int]:
    """Show which contract a name means: its details, how it may be traded, and when."""
    from bt_ibkr.cli.contract_tables import show_command
    from bt_ibkr.services.datanames import parse_dataname

    address = msgspec.structs.replace(address, contract_cache=not fresh)
    # Refused before anybody logs on.
    return partial(show_command, address, parse_dataname(name), as_json=as_json)


@contracts.command()
@visits()
def chain(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="The underlying: AAPL, SPX-IND-CBOE, ES@CME front.")
    ],
    months: Annotated[
        list[str] | None, text_option("--months", help="DEC26 or 2026-12; may be repeated, or with commas.")
    ] = None,
    first: Annotated[str, text_option("--from", help="First day on which options end, 2026-12-18.")] = "",
    last: Annotated[str, text_option("--to", help="Last day.")] = "",
    strikes: Annotated[
        str, text_option("--strikes", help="190:210, 190: or :210; or 5: so many on each side of the price.")
    ] = "",
    price: Annotated[
        float, typer.Option("--price", min=0.0, help="What --strikes N goes by; else the market's.")
    ] = 0.0,
    right: Annotated[str, text_option("--right", help="C or P; else both.")] = "",
    trading_class: Annotated[str, text_option("--class", help="Trading class, as SPXW.")] = "",
    exchange: Annotated[str, text_option("--exchange", help="Where the options trade.")] = "",
    fresh: Fresh = False,
    *,
    address: Address,
    as_json: Json = False,
) -> Callable[[], int]:
    """List the options on an underlying, within IBKR's limits; can be interrupted and goes on from there."""
    from bt_ibkr.app.contracts import ChainWishes, check_wishes
    from bt_ibkr.cli.contract_tables import chain_command
    from bt_ibkr.services.datanames import parse_dataname

    wishes = ChainWishes(
        months=tuple(word.strip() for entry in months or () for word in entry.split(",") if word.strip()),
        first=first,
        last=last,
        strikes=strikes,
        price=price,
        right=right,
        trading_class=trading_class,
        exchange=exchange,
    )
    # Refused before anybody logs on.
    parse_dataname(name)
    check_wishes(wishes)
    address = msgspec.structs.replace(address, contract_cache=not fresh)
    return partial(chain_command, address, name, wishes, as_json=as_json)


@contracts.command()
def cache(
    clear: Annotated[bool, typer.Option("--clear", help="Empty it.")] = False,
    as_json: Json = False,
) -> Callable[[], int]:
    """Show what is kept of contracts for the next run, or forget it. IBKR is not asked."""
    from bt_ibkr.cli.contract_tables import cache_command

    return partial(cache_command, clear=clear, as_json=as_json)
