"""Scanner payloads, as recorded."""

from __future__ import annotations

from typing import Any

import pytest

from bt_ibkr.errors import WireError
from bt_ibkr.model.scanner import ScanLocation, ScanRequest
from bt_ibkr.wire import scanner

#: Two rows of a recording of 2026-04: a live answer has no figures.
ROWS: dict[str, Any] = {
    "contracts": [
        {
            "server_id": "0", "column_name": "Chg%", "symbol": "GV", "conidex": "706149062", "con_id": 706149062,
            "available_chart_periods": "#R|1", "company_name": "VISIONARY HOLDINGS INC",
            "contract_description_1": "GV", "listing_exchange": "NASDAQ.SCM", "sec_type": "STK",
        },
        {
            "server_id": "1", "symbol": "TMDE", "conidex": "777715198", "con_id": 777715198,
            "company_name": "TMD ENERGY LTD", "listing_exchange": "AMEX", "sec_type": "STK", "scan_data": "3.1K",
        },
    ],
    "scan_data_column_name": "Chg%",
}  # fmt: skip


def test_rows() -> None:
    first, second = scanner.rows(ROWS)
    assert (first.rank, first.conid, first.symbol, first.listing_exchange) == (
        1,
        706149062,
        "GV",
        "NASDAQ.SCM",
    )
    assert (first.value, first.column, first.dataname) == ("", "Chg%", "conid:706149062")
    assert (second.rank, second.value, second.column) == (2, "3.1K", "Chg%")
    assert scanner.rows({}) == ()
    assert scanner.rows({"contracts": [{"symbol": "X"}]}) == ()
    bodies: tuple[object, ...] = (
        [],
        {"contracts": 5},
        {"contracts": [5]},
        {"contracts": [{"con_id": "many"}]},
    )
    for hostile in bodies:
        with pytest.raises(WireError):
            scanner.rows(hostile)


def test_parameters() -> None:
    found = scanner.parameters(
        {
            "scan_type_list": [{"display_name": "Top % Gainers", "code": "TOP_PERC_GAIN", "instruments": ["STK"]}],
            "instrument_list": [{"display_name": "US Stocks", "type": "STK", "filters": ["priceAbove"]}],
            "filter_list": [
                {"group": "Price", "display_name": "Price Above", "code": "priceAbove", "type": "range"},
                {"code": "stkTypes", "combo_values": [{"default": True, "vendor": None}, {"value": "ETF"}],
                 "display_name": "Stock type", "group": "stkTypes"},
            ],
            "location_tree": [
                {"display_name": "US Stocks", "type": "STK.US",
                 "locations": [{"display_name": "US Major", "type": "STK.US.MAJOR", "locations": None}]}
            ],
        }
    )  # fmt: skip
    assert found.types[0].code == "TOP_PERC_GAIN"
    assert found.instruments[0].filters == ("priceAbove",)
    assert [one.kind for one in found.filters] == ["range", ""]
    assert found.filters[1].values == ("ETF",)
    assert found.locations[1] == ScanLocation("STK.US.MAJOR", "US Major", "STK.US")
    assert scanner.parameters({}).types == ()


def test_body() -> None:
    request = ScanRequest(scan_type="MOST_ACTIVE", filters=(("priceAbove", 5),))
    assert scanner.run_body(request) == {
        "instrument": "STK",
        "location": "STK.US.MAJOR",
        "type": "MOST_ACTIVE",
        "filter": [{"code": "priceAbove", "value": 5}],
    }
