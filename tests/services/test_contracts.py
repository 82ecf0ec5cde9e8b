"""Instruments by name: the one that is meant, or an error that says which there are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from bt_ibkr.errors import AmbiguousContractError, ContractError, ContractNotFoundError
from bt_ibkr.model.contract import Contract, Leg, SecurityType, combo_key, combo_multiplier
from bt_ibkr.services.combos import combo_contract
from bt_ibkr.services.contracts import ContractService
from bt_ibkr.services.datanames import parse_dataname

if TYPE_CHECKING:
    from tests.services.conftest import Emulator, Server, StartEmulator

TABLE = """conid,symbol,security_type,exchange,currency,listing_exchange,company_name,is_us,multiplier,last_trade_date
900001,DUP,STK,SMART,USD,NYSE,DUP INDUSTRIES,true,,
900002,DUP,STK,SMART,USD,NASDAQ,DUP SOFTWARE,true,,
900003,ONLYCH,STK,EBS,CHF,EBS,ONLY IN ZURICH,false,,
900011,MINI,FUT,CME,USD,CME,MINI,true,5,20260918
900012,MINI,FUT,CME,USD,CME,MINI,true,5,20261218
"""


@pytest.fixture
async def emulator(start_emulator: StartEmulator, tmp_path: Path) -> Emulator:
    table = tmp_path / "universe.csv"
    table.write_text(TABLE, encoding="utf-8")
    return await start_emulator(universe=str(table))


async def resolved(emulator: Emulator, dataname: str, **defaults: str) -> Contract:
    return await ContractService(emulator.http).resolve(parse_dataname(dataname, **defaults))


@pytest.mark.parametrize(
    ("dataname", "conid", "kind", "exchange", "currency"),
    [
        ("AAPL", 265598, SecurityType.STOCK, "SMART", "USD"),
        ("aapl-stk-smart-usd", 265598, SecurityType.STOCK, "SMART", "USD"),
        ("AAPL-STK-SMART", 265598, SecurityType.STOCK, "SMART", "USD"),
        ("AAPL-STK-EBS-CHF", 273982664, SecurityType.STOCK, "EBS", "CHF"),
        ("AAPL-STK-MEXI", 38708077, SecurityType.STOCK, "MEXI", "MXN"),
        ("AAPL-STK-SMART-CAD", 532640894, SecurityType.STOCK, "SMART", "CAD"),
        ("ONLYCH", 900003, SecurityType.STOCK, "SMART", "CHF"),
        ("EUR.USD", 12087792, SecurityType.FOREX, "IDEALPRO", "USD"),
        ("EUR.USD-CASH-IDEALPRO", 12087792, SecurityType.FOREX, "IDEALPRO", "USD"),
        ("USD.JPY-CASH-IDEALPRO", 15016059, SecurityType.FOREX, "IDEALPRO", "JPY"),
        ("MINI-202612-CME-USD", 900012, SecurityType.FUTURE, "CME", "USD"),
        ("MINI-20260918-CME", 900011, SecurityType.FUTURE, "CME", "USD"),
        ("MINI-FUT-CME-USD-202612", 900012, SecurityType.FUTURE, "CME", "USD"),
        ("conid:265598", 265598, SecurityType.STOCK, "SMART", "USD"),
        ("conid:265598@NASDAQ", 265598, SecurityType.STOCK, "NASDAQ", "USD"),
        ("conid:12087792@IDEALPRO", 12087792, SecurityType.FOREX, "IDEALPRO", "USD"),
    ],
)
async def test_the_one_that_is_meant(
    emulator: Emulator, dataname: str, conid: int, kind: SecurityType, exchange: str, currency: str
) -> None:
    contract = await resolved(emulator, dataname)
    assert contract.conid == conid
    assert contract.security_type is kind
    assert contract.exchange == exchange
    assert contract.currency == currency


async def test_details(emulator: Emulator) -> None:
    """Price step, multiplier and date come from IBKR; a multiplier in the name must be the contract's."""
    pair = await resolved(emulator, "EUR.USD")
    assert (pair.symbol, pair.tick_size) == ("EUR.USD", 0.00005)
    future = await resolved(emulator, "MINI-202612-CME-USD")
    assert (future.multiplier, future.last_trade_date) == (5.0, "20261218")
    assert (await resolved(emulator, "MINI-202612-CME-USD-5")).multiplier == 5.0
    with pytest.raises(ContractNotFoundError, match="says a multiplier of 50, but"):
        await resolved(emulator, "MINI-202612-CME-USD-50")
    stock = await resolved(emulator, "AAPL")
    assert (stock.tick_size, stock.size_increment, stock.multiplier) == (0.01, 1.0, 1.0)


@pytest.mark.parametrize(
    "dataname",
    [
        "NOSUCH",
        "AAPL-STK-SMART-SEK",
        "AAPL-STK-LSE",
        "GBP.SEK",
        "XXX.YYY",
        "MINI-203012-CME",
        "NOFUT-202612-CME",
    ],
)
async def test_nothing_answers_to_it(emulator: Emulator, dataname: str) -> None:
    with pytest.raises(ContractNotFoundError) as caught:
        await resolved(emulator, dataname)
    assert dataname in caught.value.message
    assert caught.value.exit_code == 4


async def test_unknown_conid(emulator: Emulator) -> None:
    with pytest.raises(ContractNotFoundError, match="no contract 999") as caught:
        await resolved(emulator, "conid:999")
    assert "by symbol" in caught.value.remedy


@pytest.mark.parametrize(
    ("dataname", "near"),
    [("AAPLX", "AAPL-STK-"), ("265598", "conid:265598"), ("EUR.XXX", "EUR.USD")],
)
async def test_near_names_of_what_is_almost_one(emulator: Emulator, dataname: str, near: str) -> None:
    with pytest.raises(ContractNotFoundError) as caught:
        await resolved(emulator, dataname)
    assert caught.value.remedy.startswith("Near names: ")
    assert near in caught.value.remedy


@pytest.mark.parametrize(
    ("dataname", "conids"),
    [("DUP", ("900001", "900002")), ("DUP-STK-SMART-USD", ("900001", "900002")), ("MINI-2026", ())],
)
async def test_several_answer_to_it(emulator: Emulator, dataname: str, conids: tuple[str, ...]) -> None:
    if not conids:
        with pytest.raises(ContractError):
            await resolved(emulator, dataname)
        return
    with pytest.raises(AmbiguousContractError) as caught:
        await resolved(emulator, dataname)
    for conid in conids:
        assert f"conid:{conid}" in caught.value.message
    assert "DUP INDUSTRIES" in caught.value.message
    assert "conid" in caught.value.remedy


async def test_an_exchange_settles_it(emulator: Emulator) -> None:
    assert (await resolved(emulator, "DUP-STK-NASDAQ")).conid == 900002


async def test_a_future_without_a_month_is_ambiguous(emulator: Emulator) -> None:
    with pytest.raises(AmbiguousContractError) as caught:
        await resolved(emulator, "MINI-FUT-CME-USD")
    assert "20260918" in caught.value.message
    assert "20261218" in caught.value.message


async def test_an_answer_is_kept(emulator: Emulator) -> None:
    service = ContractService(emulator.http)
    first = await service.resolve(parse_dataname("AAPL"))
    asked = len(emulator.lines)
    assert await service.resolve(parse_dataname("AAPL")) == first
    assert len(emulator.lines) == asked
    assert (await service.resolve(parse_dataname("IBM"))).conid == 8314


async def test_a_failure_is_not_kept(server: Server) -> None:
    """The server may only have been warming up."""
    listing: dict[str, Any] = {"X": []}
    server.answers |= {
        "GET /trsrv/stocks": lambda _: listing,
        "GET /iserver/contract/5/info-and-rules": {
            "con_id": 5, "symbol": "X", "instrument_type": "STK", "currency": "USD", "exchange": "SMART",
        },
    }  # fmt: skip
    service = ContractService(server.http)
    with pytest.raises(ContractNotFoundError):
        await service.resolve(parse_dataname("X"))
    listing["X"] = [{"name": "X", "contracts": [{"conid": 5, "exchange": "NYSE", "isUS": True}]}]
    assert (await service.resolve(parse_dataname("X"))).conid == 5


async def test_listing_with_a_suffix(server: Server) -> None:
    """Recorded: the listing exchange may carry a segment, ``NASDAQ.NMS``."""
    server.answers |= {
        "GET /trsrv/stocks": {
            "X": [
                {
                    "name": "X",
                    "contracts": [
                        {"conid": 4, "exchange": "NYSE", "isUS": True},
                        {"conid": 5, "exchange": "NASDAQ.NMS", "isUS": True},
                    ],
                }
            ]
        },
        "GET /iserver/contract/5/info-and-rules": {
            "con_id": 5, "symbol": "X", "instrument_type": "STK", "currency": "USD", "exchange": "SMART",
        },
    }  # fmt: skip
    contract = await ContractService(server.http).resolve(parse_dataname("X-STK-NASDAQ"))
    assert (contract.conid, contract.exchange) == (5, "NASDAQ")


async def test_a_combo_of_stocks(emulator: Emulator) -> None:
    combo = await resolved(emulator, "COMBO:AAPL*1,conid:900001*-2")
    assert combo.security_type is SecurityType.COMBO
    assert combo.legs == (Leg(265598, 1), Leg(900001, -2))
    assert (combo.symbol, combo.exchange, combo.currency) == ("AAPL*1,DUP*-2", "SMART", "USD")
    assert (combo.multiplier, combo.tick_size, combo.spread_id) == (1.0, 0.01, 28812380)
    assert combo.conid == combo_key(combo.legs) < 0
    # The same legs are the same instrument, however they are named.
    again = await resolved(emulator, "0;;;900001/-2,265598/1", exchange="NYSE")
    assert (again.conid, again.exchange) == (combo.conid, "NYSE")
    assert (await resolved(emulator, "COMBO:AAPL*-1,conid:900001*2")).conid != combo.conid


async def test_a_combo_of_futures(emulator: Emulator) -> None:
    combo = await resolved(emulator, "COMBO:MINI-202609-CME*1,MINI-202612-CME*-1@CME")
    assert (combo.multiplier, combo.exchange) == (5.0, "CME")
    given = await resolved(emulator, "61227069@CME;;;900011/1,900012/-1")
    assert given.spread_id == 61227069


@pytest.mark.parametrize(
    ("dataname", "why"),
    [
        ("COMBO:AAPL,AAPL*-1", "names one contract twice"),
        ("COMBO:AAPL,ONLYCH*-1", "priced in CHF and USD"),
        ("COMBO:AAPL,EUR.USD*-1", "cannot be a leg"),
        ("COMBO:AAPL,DUP*-1", "is ambiguous"),
        ("COMBO:AAPL,NOSUCH*-1", "NOSUCH"),
        ("28812380;;;265598/1,77777777/-1", "no contract 77777777"),
    ],
)
async def test_what_makes_no_combo(emulator: Emulator, dataname: str, why: str) -> None:
    with pytest.raises(ContractError, match=why):
        await resolved(emulator, dataname)


def test_a_currency_without_a_spread_conid() -> None:
    def leg(conid: int) -> Contract:
        return Contract(conid=conid, symbol=f"L{conid}", security_type=SecurityType.STOCK, currency="EUR")

    with pytest.raises(ContractError, match="no spread conid for EUR"):
        combo_contract(parse_dataname("COMBO:L1,L2*-1"), [(leg(1), 1), (leg(2), -1)])
    known = combo_contract(parse_dataname("5@DTB;;;1/1,2/-1"), [(leg(1), 1), (leg(2), -1)])
    assert (known.spread_id, known.exchange) == (5, "DTB")
    with pytest.raises(ContractError, match="no combo in EUR by itself"):
        combo_contract(parse_dataname("5;;;1/1,2/-1"), [(leg(1), 1), (leg(2), -1)])


@pytest.mark.parametrize(
    ("parts", "multiplier"),
    [
        ([(1, 1.0), (-1, 1.0)], 1.0),
        ([(1, 100.0), (-2, 100.0), (1, 100.0)], 100.0),
        ([(100, 1.0), (-1, 100.0)], 100.0),  # 100 shares against an option on them: priced by the share
        ([(1, 50.0), (-1, 50.0)], 50.0),
        ([(1, 50.0), (-2, 5.0)], 10.0),
        ([(1, 0.5), (-1, 0.25)], 0.25),
    ],
)
def test_what_a_point_of_a_combo_is_worth(parts: list[tuple[int, float]], multiplier: float) -> None:
    assert combo_multiplier(parts) == multiplier
