"""What ``scan`` does: asks, beside a strategy that runs or without one, and shows the rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from bt_ibkr.app.visit import Address, Visit, visit_account
from bt_ibkr.cli.tables import console, put_json, show_table
from bt_ibkr.model.scanner import ScannerParameters, ScanRequest, ScanRow
from bt_ibkr.services.scanner import ScannerService

if TYPE_CHECKING:
    from bt_ibkr.cli.scan import Listed


def scan_command(address: Address, request: ScanRequest, *, as_json: bool) -> int:
    """Show what a scan finds."""

    async def ask(visit: Visit) -> tuple[ScanRow, ...]:
        return await ScannerService(visit.http, visit.clock.now_ns).scan(request)

    found = visit_account(address, ask, trades=False)
    if as_json:
        rows = [msgspec.to_builtins(row) | {"dataname": row.dataname} for row in found]
        put_json({"scan": msgspec.to_builtins(request), "rows": rows})
        return 0
    column = next((row.column for row in found if row.column), "value")
    show_table(
        console(),
        f"{request.scan_type} in {request.location}",
        ("rank", "symbol", "dataname", "type", "exchange", column, "company"),
        (
            (row.rank, row.symbol, row.dataname, row.security_type, row.listing_exchange, row.value, row.company_name)
            for row in found
        ),
        empty="nothing was found",
    )  # fmt: skip
    return 0


def codes_command(address: Address, listed: Listed, *, as_json: bool) -> int:
    """Show the codes that a scan may use."""

    async def ask(visit: Visit) -> ScannerParameters:
        return await ScannerService(visit.http, visit.clock.now_ns).parameters()

    found: tuple[Any, ...] = getattr(visit_account(address, ask, trades=False), listed)
    if as_json:
        put_json({listed: [msgspec.to_builtins(one) for one in found]})
        return 0
    extras = {"types": "instruments", "instruments": "filters", "locations": "parent", "filters": "kind"}
    last = extras[listed]
    show_table(
        console(),
        f"Scanner {listed}",
        ("code", "name", last),
        ((one.code, one.name, _words(getattr(one, last))) for one in found),
        empty=f"IBKR lists no {listed}",
    )
    return 0


def _words(value: str | tuple[str, ...]) -> str:
    return value if isinstance(value, str) else ", ".join(value)
