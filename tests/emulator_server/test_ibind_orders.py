"""Orders of many kinds by a client that others wrote, unmodified: ibind 0.2.2."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bt_ibkr.emulator.settings import EmulatorSettings
from bt_ibkr.emulator.testing import EmulatorThread
from bt_ibkr.emulator.types import MarketEvent

ACCOUNT = "DU1234567"
AAPL, IBM, CRUDE, EURUSD = 265598, 8314, 304037511, 12087792
QUOTES = {AAPL: (230.0, 230.02), IBM: (180.0, 180.04), CRUDE: (70.0, 70.02), EURUSD: (1.15, 1.1501)}


@pytest.fixture
def emulator() -> Iterator[EmulatorThread]:
    settings = EmulatorSettings(
        speed="lockstep",
        synthetic_instruments=("AAPL", "IBM"),
        history_days=0,
        order_status_delay_s=0.0,
    )

    def quote(server: Any) -> None:
        engine = server.core.engine
        for conid, (bid, ask) in QUOTES.items():
            engine.inject(MarketEvent(engine.now_ns, conid, bid=bid, ask=ask, bid_size=1e6, ask_size=1e6))

    with EmulatorThread(settings) as running:
        running.call(quote)
        yield running


@pytest.fixture
def client(emulator: EmulatorThread, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    monkeypatch.setenv("IBIND_LOGS_DIR", str(tmp_path))
    monkeypatch.setenv("IBIND_LOG_TO_FILE", "False")
    monkeypatch.setenv("IBIND_LOG_TO_CONSOLE", "False")
    ibind = pytest.importorskip("ibind")
    made = ibind.IbkrClient(
        url=emulator.url, account_id=ACCOUNT, cacert=False, use_oauth=False, auto_register_shutdown=False
    )
    made.receive_brokerage_accounts()
    made.portfolio_accounts()
    yield made
    made.close()


def place(client: Any, **changes: Any) -> Any:
    """The acknowledgement of an order; every question is answered with yes."""
    from ibind.client.ibkr_utils import OrderRequest, QuestionType

    fields = {
        "conid": AAPL,
        "side": "BUY",
        "quantity": 10,
        "order_type": "MKT",
        "acct_id": ACCOUNT,
        "tif": "DAY",
    }
    request = OrderRequest(**(fields | changes))
    return client.place_order(request, dict.fromkeys(QuestionType, True), ACCOUNT).data


def final(client: Any, row: Any) -> Any:
    return client.order_status(row["order_id"]).data


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"order_type": "LMT", "price": 229.0}, "Submitted"),
        ({"order_type": "STP", "price": 235.0}, "PreSubmitted"),
        ({"order_type": "STOP_LIMIT", "price": 236.0, "aux_price": 235.0}, "PreSubmitted"),
        ({"order_type": "MIT", "price": 220.0, "aux_price": 220.0}, "PreSubmitted"),
        ({"order_type": "LIT", "price": 220.0, "aux_price": 221.0}, "PreSubmitted"),
        ({"order_type": "TRAIL", "trailing_type": "%", "trailing_amt": 1.0}, "PreSubmitted"),
        (
            {
                "order_type": "TRAILLMT",
                "price": 236.0,
                "aux_price": 235.0,
                "trailing_type": "amt",
                "trailing_amt": 2.0,
            },
            "PreSubmitted",
        ),
        ({"order_type": "MOC"}, "PreSubmitted"),
        ({"order_type": "LOC", "price": 229.0}, "PreSubmitted"),
        ({"order_type": "MIDPRICE"}, "Submitted"),
        ({"order_type": "REL", "aux_price": 0.01}, "Submitted"),
        ({"tif": "IOC"}, "Filled"),
        ({"order_type": "LMT", "price": 229.0, "tif": "OND"}, "Submitted"),
        ({"quantity": None, "cash_qty": 1000}, "Filled"),
        ({"conid": EURUSD, "quantity": None, "fx_qty": 500, "is_ccy_conv": True}, "Filled"),
        ({"strategy": "Adaptive", "strategy_parameters": {"adaptivePriority": "Urgent"}}, "Filled"),
        ({"conid": CRUDE, "quantity": 1, "manual_indicator": False, "ext_operator": "ibind"}, "Filled"),
        ({"conid": None, "conidex": f"28812380;;;{AAPL}/1,{IBM}/-1"}, "Filled"),
        ({"conid": None, "conidex": f"{AAPL}@ARCA"}, "Filled"),
    ],
)
def test_orders(client: Any, fields: dict[str, Any], status: str) -> None:
    row = place(client, **fields)
    assert final(client, row)["order_status"] == status


def test_a_combo_is_held_by_its_legs(client: Any) -> None:
    place(
        client, conid=None, conidex=f"28812380;;;{AAPL}/1,{IBM}/-2", order_type="LMT", price=-129.0, coid="c"
    )
    assert {row["conid"]: row["position"] for row in client.positions(ACCOUNT).data} == {
        AAPL: 10.0,
        IBM: -20.0,
    }
    client.trades()
    trades = client.trades(days="2").data
    assert [row["sec_type"] for row in trades] == ["BAG", "STK", "STK"]
    assert {row["order_ref"] for row in trades} == {"c"}


def test_an_option_is_found_and_bought(client: Any) -> None:
    client.search_contract_by_symbol("AAPL")
    strikes = client.search_strikes_by_conid(str(AAPL), "OPT", "MAR26").data
    assert 230.0 in strikes["call"]
    (found,) = client.search_secdef_info_by_conid(str(AAPL), "OPT", "MAR26", strike="230", right="C").data
    row = place(client, conid=found["conid"], quantity=1)
    assert final(client, row)["order_status"] == "Filled"
    (held,) = client.positions(ACCOUNT).data
    assert (held["conid"], held["assetClass"]) == (found["conid"], "OPT")
    assert client.algo_params_by_conid(str(AAPL)).data["algos"][0]["id"] == "Adaptive"
