"""Market scanners (``/iserver/scanner``; recorded 2026-04).

Of an answer's rows ``scan_data`` is missing live, and ``column_name`` stands in the first row only.
"""

from __future__ import annotations

from bt_ibkr.errors import WireError
from bt_ibkr.model.scanner import (
    ScanFilter,
    ScanInstrument,
    ScanLocation,
    ScannerParameters,
    ScanRequest,
    ScanRow,
    ScanType,
)
from bt_ibkr.wire import fields


def run_body(request: ScanRequest) -> dict[str, object]:
    """Body of ``POST /iserver/scanner/run``."""
    return {
        "instrument": request.instrument,
        "location": request.location,
        "type": request.scan_type,
        "filter": [{"code": code, "value": value} for code, value in request.filters],
    }


def rows(payload: object) -> tuple[ScanRow, ...]:
    """The rows of an answer, best first; one without a conid is left out.

    Raises:
        WireError: It is not such an answer.
    """
    body = fields.mapping(payload, "scanner")
    column = _text(body.get("scan_data_column_name"))
    found: list[ScanRow] = []
    for row in fields.array(body.get("contracts", []), "scanner contracts"):
        one = fields.mapping(row, "scanner row")
        conid = fields.conid(one.get("con_id"), "con_id") or fields.conid(one.get("conidex"), "conidex")
        if not conid:
            continue
        found.append(
            ScanRow(
                rank=len(found) + 1,
                conid=conid,
                symbol=_text(one.get("symbol")),
                company_name=_text(one.get("company_name")),
                listing_exchange=_text(one.get("listing_exchange")),
                security_type=_text(one.get("sec_type")),
                value=_text(one.get("scan_data")),
                column=_text(one.get("column_name")) or column,
            )
        )
    return tuple(found)


def parameters(payload: object) -> ScannerParameters:
    """The answer of ``GET /iserver/scanner/params``.

    Raises:
        WireError: It is not such an answer.
    """
    body = fields.mapping(payload, "scanner parameters")
    return ScannerParameters(
        types=tuple(
            ScanType(_text(one.get("code")), _text(one.get("display_name")), _texts(one.get("instruments")))
            for one in _rows(body, "scan_type_list")
        ),
        instruments=tuple(
            ScanInstrument(_text(one.get("type")), _text(one.get("display_name")), _texts(one.get("filters")))
            for one in _rows(body, "instrument_list")
        ),
        filters=tuple(_filter(one) for one in _rows(body, "filter_list")),
        locations=tuple(_locations(_rows(body, "location_tree"), "")),
    )


def _rows(body: dict[str, object], name: str) -> list[dict[str, object]]:
    return [fields.mapping(one, name) for one in fields.array(body.get(name) or [], name)]


def _text(value: object) -> str:
    return fields.text(value) or ""


def _texts(value: object) -> tuple[str, ...]:
    return tuple(text for one in fields.rows(value) if (text := _text(one)))


def _filter(one: dict[str, object]) -> ScanFilter:
    choices = fields.rows(one.get("combo_values"))
    values = [_text(c.get("value") or c.get("vendor")) for c in choices if isinstance(c, dict)]
    return ScanFilter(
        _text(one.get("code")),
        _text(one.get("display_name")),
        _text(one.get("group")),
        _text(one.get("type")),
        tuple(text for text in values if text),
    )


def _locations(tree: list[dict[str, object]], parent: str, depth: int = 0) -> list[ScanLocation]:
    if depth > 10:
        raise WireError("The scanner's places are nested more than 10 deep.")
    found = []
    for one in tree:
        code = _text(one.get("type"))
        found.append(ScanLocation(code, _text(one.get("display_name")), parent))
        found.extend(_locations(_rows(one, "locations"), code, depth + 1))
    return found
