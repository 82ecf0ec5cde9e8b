"""The command ``scan``: a market scanner's rows, as datanames."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Annotated, Literal, cast, get_args

import typer

from bt_ibkr.cli.options import (
    Json,
    text_option,
    visits,
)
from bt_ibkr.errors import UsageError
from bt_ibkr.model.scanner import ScanRequest

if TYPE_CHECKING:
    from bt_ibkr.app.visit import Address

#: What ``--list`` can list.
Listed = Literal["types", "instruments", "locations", "filters"]


@visits()
def scan(
    scan_type: Annotated[
        str, typer.Argument(metavar="[TYPE]", help="What to rank by, as MOST_ACTIVE or TOP_PERC_GAIN.")
    ] = "",
    instrument: Annotated[str, text_option(help="Kind of instrument, in the scanner's codes.")] = "STK",
    location: Annotated[str, text_option(help="Where, in the scanner's codes.")] = "STK.US.MAJOR",
    filters: Annotated[
        list[str] | None,
        text_option("--filter", metavar="CODE=VALUE", help="As priceAbove=5; may be repeated."),
    ] = None,
    most: Annotated[int, typer.Option(min=1, max=50, help="So many rows at most.")] = 50,
    listed: Annotated[
        str,
        text_option("--list", metavar="WHAT", help="List codes: types, instruments, locations or filters."),
    ] = "",
    *,
    address: Address,
    as_json: Json = False,
) -> Callable[[], int]:
    """Ask IBKR's market scanner; each row is a dataname. Example: scan MOST_ACTIVE --filter priceAbove=5"""
    from bt_ibkr.cli.scanning import codes_command, scan_command

    if listed:
        if listed not in get_args(Listed):
            raise UsageError(
                f"--list {listed!r} cannot be listed.", remedy=f"Give {', '.join(get_args(Listed))}."
            )
        return partial(codes_command, address, cast("Listed", listed), as_json=as_json)
    if not scan_type:
        raise UsageError(
            "scan was given nothing to rank by.", remedy="Name it, as MOST_ACTIVE; --list types shows all."
        )
    request = ScanRequest(
        scan_type=scan_type,
        instrument=instrument,
        location=location,
        filters=tuple(_filter(text) for text in filters or ()),
        most=most,
    )
    return partial(scan_command, address, request, as_json=as_json)


def _filter(text: str) -> tuple[str, float | str]:
    code, equals, value = text.partition("=")
    if not code.strip() or not equals or not value.strip():
        raise UsageError(f"--filter {text!r} cannot be used.", remedy="Write CODE=VALUE, as priceAbove=5.")
    try:
        return code.strip(), float(value)
    except ValueError:
        return code.strip(), value.strip()
