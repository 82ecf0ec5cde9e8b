"""A client that others wrote, unmodified: ibind 0.2.2 over REST and WebSocket."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bt_ibkr.emulator.services.oauth.settings import AuthenticationSettings
from bt_ibkr.emulator.settings import EmulatorSettings
from bt_ibkr.emulator.testing import EmulatorThread
from bt_ibkr.session.secrets import read_dh_parameters

ACCOUNT = "DU1234567"


@pytest.fixture
def emulator() -> Iterator[EmulatorThread]:
    settings = EmulatorSettings(
        speed=60.0,
        pacing="off",
        synthetic_instruments=("AAPL", "SPY"),
        history_days=2,
        order_status_delay_s=0.0,
        smd_lifetime_s=0.0,
    )
    with EmulatorThread(settings) as running:
        yield running


@pytest.fixture
def ibind(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """The package, with its log files out of the way and no handlers of signals left behind."""
    monkeypatch.setenv("IBIND_LOGS_DIR", str(tmp_path))
    monkeypatch.setenv("IBIND_LOG_TO_FILE", "False")
    monkeypatch.setenv("IBIND_LOG_TO_CONSOLE", "False")
    return pytest.importorskip("ibind")


@pytest.fixture
def client(emulator: EmulatorThread, ibind: Any) -> Iterator[Any]:
    made = ibind.IbkrClient(
        url=emulator.url, account_id=ACCOUNT, cacert=False, use_oauth=False, auto_register_shutdown=False
    )
    yield made
    made.close()


def ticket(**changes: Any) -> Any:
    from ibind.client.ibkr_utils import OrderRequest

    order = {
        "conid": 265598,
        "side": "BUY",
        "quantity": 10,
        "order_type": "MKT",
        "acct_id": ACCOUNT,
        "tif": "DAY",
    }
    return OrderRequest(**(order | changes))


def answers() -> dict[Any, bool]:
    from ibind.client.ibkr_utils import QuestionType

    return dict.fromkeys(QuestionType, True)


def test_session_and_contracts(client: Any) -> None:
    assert client.check_health() is True
    assert client.authentication_status().data["authenticated"] is True
    assert client.tickle().data["session"]
    assert client.receive_brokerage_accounts().data["accounts"] == [ACCOUNT]
    assert client.portfolio_accounts().data[0]["accountId"] == ACCOUNT
    assert client.stock_conid_by_symbol("AAPL").data == {"AAPL": 265598}
    assert client.search_contract_by_symbol("SPY").data[0]["conid"] == "756733"
    assert client.contract_information_by_conid("265598").data["symbol"] == "AAPL"
    assert client.security_definition_by_conid(["265598"]).data["secdef"][0]["ticker"] == "AAPL"
    assert client.currency_pairs("USD").data["USD"]


def test_contracts_of_every_type(client: Any) -> None:
    """All that ibind asks of contracts."""
    client.receive_brokerage_accounts()
    futures = client.security_future_by_symbol(["ES", "CL"]).data
    front = futures["ES"][0]
    assert (front["expirationDate"], front["underlyingConid"]) == (20260320, 11004968)
    assert client.contract_information_by_conid(str(front["conid"])).data["local_symbol"] == "ESH6"
    (product,) = client.search_contract_by_symbol("ES", sec_type="FUT").data
    conid = product["conid"]
    (future,) = client.search_secdef_info_by_conid(conid, "FUT", "MAR26", exchange="CME").data
    assert future["conid"] == front["conid"]
    strikes = client.search_strikes_by_conid(conid, "FOP", "MAR26", exchange="CME").data
    assert 6700.0 in strikes["call"]
    found = client.search_secdef_info_by_conid(
        conid, "FOP", "MAR26", exchange="CME", strike="6700", right="C"
    ).data
    assert {one["tradingClass"] for one in found} == {"ES", "ECES"}
    client.search_contract_by_symbol("AAPL")
    assert client.search_strikes_by_conid("265598", "OPT", "MAR26").data["put"]
    (option,) = client.search_secdef_info_by_conid("265598", "OPT", "MAR26", strike="230", right="P").data
    assert (
        client.info_and_rules_by_conid(str(option["conid"]), is_buy=True).data["rules"]["increment"] == 0.01
    )
    (bonds,) = client.search_contract_by_symbol("IBM", sec_type="BOND").data
    issuer = bonds["issuers"][0]["id"]
    assert client.search_bond_filter_information("BOND", issuer).data["bondFilters"]
    assert client.search_secdef_info_by_conid("0", "BOND", "", issuer_id=issuer).data[0]["secType"] == "BOND"
    assert client.search_contract_by_symbol("apple", name=True).data[0]["symbol"] == "AAPL"
    assert client.search_contract_rules("265598", is_buy=True).data["algoEligible"] is True
    assert client.algo_params_by_conid("265598").data["algos"]
    assert {"ticker": "AAPL", "conid": 265598, "exchange": "NASDAQ"} in client.all_conids_by_exchange(
        "NASDAQ"
    ).data
    assert client.currency_exchange_rate("EUR", "USD").data["rate"] > 1
    (hours,) = client.trading_schedule_by_symbol("STK", "IBM", exchange="NYSE").data
    assert hours["timezone"] == "America/New_York"


def test_market_data(client: Any) -> None:
    client.receive_brokerage_accounts()
    fields = ["31", "84", "86"]
    client.live_marketdata_snapshot("265598", fields)
    (row,) = client.live_marketdata_snapshot("265598", fields).data
    assert float(row["84"]) < float(row["86"])
    history = client.marketdata_history_by_conid("265598", bar="1min", period="1d").data
    assert history["points"] == len(history["data"]) - 1
    by_symbol = client.marketdata_history_by_symbol("AAPL", bar="1h", period="3d").data
    assert by_symbol["symbol"] == "AAPL"
    assert client.marketdata_unsubscribe_all().data == {"unsubscribed": True}


def test_orders_and_portfolio(client: Any) -> None:
    client.receive_brokerage_accounts()
    client.portfolio_accounts()
    resting = ticket(order_type="LMT", price=100.0, coid="resting")
    placed = client.place_order(resting, answers(), ACCOUNT).data
    assert placed["local_order_id"] == "resting"
    order_id = placed["order_id"]
    changed = ticket(order_type="LMT", price=101.0, coid="resting")
    assert client.modify_order(order_id, changed, answers(), ACCOUNT).data["order_id"] == order_id
    assert client.order_status(order_id).data["limit_price"] == "101.00"
    client.live_orders()
    (row,) = client.live_orders().data["orders"]
    assert (row["orderId"], row["order_ref"]) == (int(order_id), "resting")
    assert client.cancel_order(order_id, ACCOUNT).data["msg"] == "Request was submitted"
    bought = client.place_order(ticket(coid="bought"), answers(), ACCOUNT).data
    while client.order_status(bought["order_id"]).data["order_status"] != "Filled":
        pass
    client.trades()
    trades = client.trades(days="2").data
    assert sum(trade["size"] for trade in trades) == 10.0
    (position,) = client.positions(ACCOUNT).data
    assert (position["conid"], position["position"]) == (265598, 10.0)
    assert client.positions2(ACCOUNT).data[0]["conid"] == "265598"
    ledger = client.get_ledger(ACCOUNT).data
    assert ledger["USD"]["cashbalance"] < 1_000_000.0
    assert client.portfolio_summary(ACCOUNT).data["netliquidation"]["amount"] > 0
    assert client.whatif_order(ticket(), ACCOUNT).data["position"]["current"] == "10"
    assert client.account_summary(ACCOUNT).data["netLiquidationValue"] > 0


def test_websocket(emulator: EmulatorThread, client: Any, ibind: Any) -> None:
    from ibind import events
    from ibind.ibkr_ws.ibkr_subscriptions import (
        AccountLedgerSubscription,
        MarketDataSubscription,
        OrdersSubscription,
        PnlSubscription,
        TradesSubscription,
    )
    from ibind.ibkr_ws.ibkr_ws_client import IbkrWsClient

    client.receive_brokerage_accounts()
    told: queue.Queue[Any] = queue.Queue()

    class Sink(ibind.EventSink):  # type: ignore[misc, name-defined, unused-ignore]
        def emit(self, event: Any) -> None:
            told.put(event)

    socket = IbkrWsClient(
        account_id=ACCOUNT, url=emulator.ws, ibkr_client=client, use_oauth=False, sink=Sink()
    )
    assert socket.start()
    try:
        handles = [
            socket.subscribe(one)
            for one in (
                MarketDataSubscription(conid="265598", fields=["31", "84", "86"]),
                OrdersSubscription(),
                TradesSubscription(),
                PnlSubscription(),
                AccountLedgerSubscription(account_id=ACCOUNT),
            )
        ]
        seen: set[type] = set()
        wanted = {events.MarketData, events.Trades, events.Pnl, events.AccountLedger}
        while not wanted <= seen:
            seen.add(type(told.get(timeout=20)))
        assert len(handles) == 5
        client.place_order(ticket(coid="over-the-socket"), answers(), ACCOUNT)
        wanted = {events.Orders, events.Trades}
        filled: set[type] = set()
        while not wanted <= filled:
            event = told.get(timeout=20)
            if type(event) in wanted and event.data.get("args"):
                filled.add(type(event))
    finally:
        socket.shutdown()


@pytest.fixture
def oauth_emulator(tmp_path: Path) -> Iterator[EmulatorThread]:
    settings = EmulatorSettings(
        speed=60.0,
        pacing="off",
        synthetic_instruments=("AAPL",),
        history_days=0,
        authentication=AuthenticationSettings(kind="oauth1a", key_folder=str(tmp_path / "keys")),
    )
    with EmulatorThread(settings) as running:
        yield running


@pytest.fixture
def named_as_this_machine(
    oauth_emulator: EmulatorThread, ibind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one address ibind cannot be told: the ``Host`` that a constant in its header names. A server verifies a
    signature over the address at which it was called, so the constant becomes the emulator's; no code changes."""
    pytest.importorskip("Crypto")
    from ibind.oauth import oauth1a

    code = oauth1a.generate_oauth_headers.__code__
    host = oauth_emulator.url.split("/")[2]
    constants = tuple(host if one == "api.ibkr.com" else one for one in code.co_consts)
    assert constants != code.co_consts
    monkeypatch.setattr(oauth1a.generate_oauth_headers, "__code__", code.replace(co_consts=constants))


def oauth_config(emulator: EmulatorThread, keys: Path, **changes: Any) -> Any:
    """ibind's settings, from the files that the emulator wrote for a client."""
    from ibind.oauth.oauth1a import OAuth1aConfig

    prime, generator = read_dh_parameters(str(keys / "dhparam.pem"))
    given = {
        "oauth_rest_url": emulator.url,
        "access_token": (keys / "access_token").read_text(encoding="utf-8"),
        "access_token_secret": (keys / "access_token_secret").read_text(encoding="utf-8"),
        "consumer_key": "EMULATOR1",
        "dh_prime": f"{prime:x}",
        "dh_generator": str(generator),
        "signature_key_fp": str(keys / "private_signature.pem"),
        "encryption_key_fp": str(keys / "private_encryption.pem"),
        "realm": "limited_poa",
        "maintain_oauth": False,
        "init_brokerage_session": True,
    }
    return OAuth1aConfig(**(given | changes))


def oauth_client(ibind: Any, config: Any) -> Any:
    return ibind.IbkrClient(
        account_id=ACCOUNT,
        use_oauth=True,
        oauth_config=config,
        auto_register_shutdown=False,
        use_session=False,
    )


@pytest.mark.usefixtures("named_as_this_machine")
def test_oauth1a_of_others_logs_on(oauth_emulator: EmulatorThread, ibind: Any, tmp_path: Path) -> None:
    """ibind's own OAuth 1.0a, which shares no line with ours: the exchange of keys, the proof of the token, and a
    signature on every request that the emulator verifies."""
    client = oauth_client(ibind, oauth_config(oauth_emulator, tmp_path / "keys"))
    try:
        assert client.authentication_status().data["authenticated"] is True
        assert client.receive_brokerage_accounts().data["accounts"] == [ACCOUNT]
        assert client.portfolio_accounts().data[0]["accountId"] == ACCOUNT
        assert client.stock_conid_by_symbol("AAPL").data == {"AAPL": 265598}
        client.live_marketdata_snapshot("265598", ["31", "84", "86"])
        (row,) = client.live_marketdata_snapshot("265598", ["31", "84", "86"]).data
        assert float(row["84"]) < float(row["86"])
        # The verification is not a formality: a token of its own making is refused.
        client.live_session_token = "AAAAAAAAAAAAAAAAAAAAAAAAAAA="
        with pytest.raises(Exception, match="invalid signature"):
            client.tickle()
    finally:
        client.close_session()


@pytest.mark.usefixtures("named_as_this_machine")
@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"consumer_key": "SOMEBODY1"}, "invalid consumer"),
        ({"access_token": "0" * 20}, "No access secret key found"),
        ({"realm": "test_realm"}, "invalid realm"),
        ({"dh_generator": "5"}, "validation failed"),
    ],
)
def test_oauth1a_of_others_is_refused(
    oauth_emulator: EmulatorThread, ibind: Any, tmp_path: Path, changes: dict[str, Any], says: str
) -> None:
    with pytest.raises(Exception, match=says):
        oauth_client(ibind, oauth_config(oauth_emulator, tmp_path / "keys", **changes))


@pytest.mark.usefixtures("named_as_this_machine")
def test_oauth1a_of_others_with_a_swapped_key_is_refused(
    oauth_emulator: EmulatorThread, ibind: Any, tmp_path: Path
) -> None:
    """The encryption key in place of the signature key: a real key, but not the registered one."""
    wrong = {"signature_key_fp": str(tmp_path / "keys" / "private_encryption.pem")}
    with pytest.raises(Exception, match="invalid signature"):
        oauth_client(ibind, oauth_config(oauth_emulator, tmp_path / "keys", **wrong))
