"""Contracts over a connection: every type of the emulator's universe by name, chains, rules, the cache's file."""

from __future__ import annotations

import threading
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from bt_ibkr.connection.direct import DirectConnection
from bt_ibkr.errors import AmbiguousContractError, ContractNotFoundError
from bt_ibkr.model.contract import Contract, SecurityType
from bt_ibkr.services.chains import ChainRequest
from bt_ibkr.services.contract_cache import cache_lines, cache_path
from bt_ibkr.services.datanames import parse_dataname

if TYPE_CHECKING:
    from bt_ibkr.emulator.testing import EmulatorThread
    from tests.connection.conftest import Client, Connect, StartEmulator


class Day:
    """A client on a known day of the emulator's market."""

    def __init__(self, client: Client) -> None:
        self.client = client

    def resolve(self, name: str) -> Contract:
        return self.client.connection.resolve(parse_dataname(name))


def brokerage_of(client: Client) -> Any:
    return client.connection._brokerage


@pytest.fixture
def day(start_emulator: StartEmulator, connect: Connect) -> Day:
    emulator = start_emulator(synthetic_day="2026-03-02")
    return Day(connect(emulator))


@pytest.mark.parametrize(
    ("name", "kind", "exchange", "multiplier"),
    [
        ("AAPL@NASDAQ", SecurityType.STOCK, "NASDAQ", 1.0),
        ("ES MAR26@CME", SecurityType.FUTURE, "CME", 50.0),
        ("AAPL MAR26 C 200", SecurityType.OPTION, "SMART", 100.0),
        ("AAPL-20260320-SMART-USD-200-P-100", SecurityType.OPTION, "SMART", 100.0),
        ("ES 2026-03-20 C 5000@CME", SecurityType.FUTURE_OPTION, "CME", 50.0),
        ("SPX-IND-CBOE-USD", SecurityType.INDEX, "CBOE", 1.0),
        ("EUR.USD", SecurityType.FOREX, "IDEALPRO", 1.0),
        ("BTC-CRYPTO-PAXOS-USD", SecurityType.CRYPTO, "PAXOS", 1.0),
        ("IBM-BOND-SMART-USD-203505-4.5", SecurityType.BOND, "SMART", 1.0),
        ("VFIAX-FUND", SecurityType.FUND, "FUNDSERV", 1.0),
        ("AAPL-CFD", SecurityType.CFD, "SMART", 1.0),
        ("FF 2027-01-27 YES 3.125", SecurityType.OPTION, "FORECASTX", 1.0),
    ],
)
def test_every_type(day: Day, name: str, kind: SecurityType, exchange: str, multiplier: float) -> None:
    found = day.resolve(name)
    assert (found.security_type, found.exchange, found.multiplier) == (kind, exchange, multiplier)
    # By its key it is the same.
    assert day.resolve(f"conid:{found.conid}").conid == found.conid


def test_a_combo_of_any_forms(day: Day) -> None:
    spread = day.resolve("COMBO:ES MAR26@CME*1,ES JUN26@CME*-1@CME")
    assert (spread.multiplier, spread.exchange, len(spread.legs)) == (50.0, "CME", 2)
    covered = day.resolve("COMBO:AAPL 2026-03-20 C 200*-1,AAPL*100")
    assert covered.multiplier == 100.0


@pytest.mark.parametrize(
    ("name", "near"),
    [("SPX", "SPX-IND-CBOE"), ("USD.EUR", "EUR.USD"), ("AAPL MAR26 C 201", "AAPL 202603 C 200")],
)
def test_near_names(day: Day, name: str, near: str) -> None:
    with pytest.raises(ContractNotFoundError) as caught:
        day.resolve(name)
    assert near in caught.value.remedy


def test_several(day: Day) -> None:
    with pytest.raises(AmbiguousContractError) as caught:
        day.resolve("IBM-BOND")
    names = [word for word in caught.value.message.split() if word.startswith("conid:")]
    assert len(names) == 3
    assert day.resolve(names[0]).security_type is SecurityType.BOND


def test_a_chain(day: Day) -> None:
    told: list[tuple[int, int, str]] = []

    def progress(done: int, total: int) -> None:
        told.append((done, total, threading.current_thread().name))

    connection = day.client.connection
    request = ChainRequest(underlying=day.resolve("AAPL"), months=("202603",), lowest=190.0, highest=210.0)
    found = connection.chain(request, progress)
    strikes = sorted({one.strike for one in found if one.strike is not None})
    assert strikes[0] == 190.0
    assert strikes[-1] == 210.0
    assert len(found) == 2 * len(strikes)
    assert told[0] == (0, len(strikes), "ibkr-session")
    assert told[-1][:2] == (len(strikes), len(strikes))
    # What the chain tells is what the name of a single option means.
    one = found[0]
    assert day.resolve(f"AAPL {one.last_trade_date} {one.right} {one.strike:g}").conid == one.conid
    assert connection.chain(request) == found


def test_a_chain_of_events_and_of_a_future(day: Day) -> None:
    connection = day.client.connection
    events = connection.chain(ChainRequest(underlying=day.resolve("FF-IND-FORECASTX"), right="C"))
    assert events
    assert {one.exchange for one in events} == {"FORECASTX"}
    future = day.resolve("ES MAR26@CME")
    options = connection.chain(ChainRequest(underlying=future, months=("MAR26",), around=2, price=5200.0))
    assert {one.security_type for one in options} == {SecurityType.FUTURE_OPTION}
    assert {one.multiplier for one in options} == {50.0}
    assert len({one.strike for one in options}) == 5


def test_rules(day: Day) -> None:
    contract = day.resolve("AAPL")
    rules = day.client.connection.contract_rules(contract)
    assert "limit" in rules.order_types
    assert rules.tick_size == contract.tick_size == 0.01
    combo = day.resolve("COMBO:AAPL*1,MSFT*-1")
    assert day.client.connection.contract_rules(combo).order_types == ()


def test_price_steps_reach_the_risk_controls(day: Day) -> None:
    """A step that depends on the price, from the server's rules to the control that refuses."""
    steps = [{"lowerEdge": 0, "increment": 0.05}, {"lowerEdge": 3, "increment": 0.1}]
    stepped = {"increment": 0.05, "incrementRules": steps}
    lookups = brokerage_of(day.client).contracts.lookups
    real = lookups._http.get

    async def get(path: str, params: Any = None) -> Any:
        body = await real(path, params)
        return body | {"rules": body["rules"] | stepped} if path.endswith("info-and-rules") else body

    lookups._http.get = get
    contract = day.resolve("AAPL MAR26 C 200")
    day.client.attach()
    rules = brokerage_of(day.client).reception.view.rules(contract.conid)
    assert [rules.tick_at(Decimal(price)) for price in ("2.95", "3", "40")] == [
        Decimal("0.05"), Decimal("0.1"), Decimal("0.1"),
    ]  # fmt: skip


def test_an_emulators_answers_are_not_kept(day: Day) -> None:
    """Its universe is another each time, at the same address."""
    day.resolve("AAPL")
    assert not cache_path().exists()


class Secure:
    """Connections to a server with TLS, as the gateway is."""

    def __init__(self, emulator: EmulatorThread) -> None:
        self.emulator = emulator
        self.asked: list[str] = []
        admit = emulator.call(lambda server: server.core.pacing.admit)

        def recorded(method: str, path: str) -> None:
            self.asked.append(f"{method} {path}")
            admit(method, path)

        emulator.call(lambda server: setattr(server.core.pacing, "admit", recorded))

    def look_ups(self) -> int:
        return sum("trsrv" in line or "info-and-rules" in line for line in self.asked)


def test_over_runs_the_file_answers(
    start_emulator: StartEmulator, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    emulator = start_emulator()
    # What tells the gateway from an emulator is TLS; here there is none to look at.
    monkeypatch.setattr("bt_ibkr.connection.brokerage.is_loopback", lambda url: False)
    server = Secure(emulator)

    def run(**changes: Any) -> int:
        server.asked.clear()
        client = connect(emulator, journal=None, **changes)
        assert client.connection.resolve(parse_dataname("AAPL")).conid == 265598
        client.connection.close()
        return server.look_ups()

    assert run() == 2
    assert run() == 0
    assert run(contract_cache=False) == 2
    (line, *more) = cache_lines(cache_path(), 0)
    assert emulator.url in line.scope
    assert {one.scope for one in more} == {line.scope}
    cache_path().write_bytes(b"no database at all, whoever wrote it" * 100)
    assert run() == 2
    assert run() == 0


def test_a_run_that_nobody_has_to_remember_keeps_nothing(
    start_emulator: StartEmulator, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bt_ibkr.connection.brokerage.is_loopback", lambda url: False)
    client = connect(start_emulator())
    client.connection.resolve(parse_dataname("AAPL"))
    assert not cache_path().exists()


def test_a_session_that_never_opened_is_closed_without_a_cache(connect: Connect) -> None:
    client = connect(opened=False)
    client.connection.close()
    assert isinstance(client.connection, DirectConnection)
