"""Scans, answered from what is in the market."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bt_ibkr.emulator.services import errors
from bt_ibkr.emulator.services.call import Call
from bt_ibkr.emulator.services.scanner import codes
from bt_ibkr.emulator.services.scanner.codes import Condition
from bt_ibkr.emulator.types import Instrument, QuoteState

if TYPE_CHECKING:
    from bt_ibkr.emulator.services.core import Core

#: Rows of an answer.
MOST_ROWS = 50


async def parameters(core: Core, call: Call) -> object:
    """All codes; the real server's answer is of this form and about 200 kB long."""
    names = list(codes.INSTRUMENTS)
    filters = [one.code for one in codes.CONDITIONS]
    return {
        "scan_type_list": [
            {"display_name": one.name, "code": one.code, "instruments": names} for one in codes.KINDS
        ],
        "instrument_list": [
            {"display_name": name, "type": code, "filters": filters}
            for code, (name, _) in codes.INSTRUMENTS.items()
        ],
        "filter_list": [
            {"group": one.code, "display_name": one.name, "code": one.code, "type": "non-range"}
            for one in codes.CONDITIONS
        ],
        "location_tree": _tree(""),
    }


def _tree(parent: str) -> list[dict[str, object]]:
    return [
        {"display_name": one.name, "type": one.code, "locations": _tree(one.code)}
        for one in codes.PLACES
        if one.parent == parent
    ]


async def run(core: Core, call: Call) -> object:
    """What trades, ranked: rows as recorded, so without the figure, and its name in the first row only.

    Raises:
        ApiError: 400 for a code that there is not.
    """
    body = call.object()
    kind = next((one for one in codes.KINDS if one.code == body.get("type")), None)
    wanted = codes.INSTRUMENTS.get(str(body.get("instrument")))
    place = next((one for one in codes.PLACES if one.code == body.get("location")), None)
    if kind is None or wanted is None or place is None:
        raise errors.bad_request("invalid scanner parameters")
    conditions = _conditions(body.get("filter"))
    ranked: list[tuple[float, Instrument]] = []
    for book in core.engine.books():
        instrument, quote = book.instrument, book.quote
        contract = instrument.contract
        if contract.security_type is not wanted[1] or not place.holds(contract):
            continue
        figure = kind.figure(instrument, quote)
        if figure is not None and all(_holds(one, limit, instrument, quote) for one, limit in conditions):
            ranked.append((figure, instrument))
    ranked.sort(key=lambda one: (-one[0] if kind.falling else one[0], one[1].contract.conid))
    rows = [_row(number, instrument) for number, (_, instrument) in enumerate(ranked[:MOST_ROWS])]
    if rows:
        rows[0] = {"server_id": "0", "column_name": kind.column} | rows[0]
    return {"contracts": rows, "scan_data_column_name": kind.column}


def _conditions(given: Any) -> list[tuple[Condition, float]]:
    if not isinstance(given, list):
        return []
    found = []
    for one in given:
        code, value = (one.get("code"), one.get("value")) if isinstance(one, dict) else (None, None)
        condition = next((known for known in codes.CONDITIONS if known.code == code), None)
        try:
            limit = float(str(value))
        except ValueError:
            condition = None
        if condition is None:
            raise errors.bad_request("invalid scanner parameters")
        found.append((condition, limit))
    return found


def _holds(condition: Condition, limit: float, instrument: Instrument, quote: QuoteState) -> bool:
    figure = condition.figure(instrument, quote)
    return figure is not None and (figure >= limit if condition.above else figure <= limit)


def _row(number: int, instrument: Instrument) -> dict[str, object]:
    contract = instrument.contract
    return {
        "server_id": str(number),
        "symbol": contract.symbol,
        "conidex": str(contract.conid),
        "con_id": contract.conid,
        "available_chart_periods": "#R|1",
        "company_name": instrument.company_name,
        "contract_description_1": contract.symbol,
        "listing_exchange": contract.listing_exchange or contract.exchange,
        "sec_type": contract.security_type.value,
    }
