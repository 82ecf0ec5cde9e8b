"""Instruments of every type by name, from answers as IBKR writes them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from bt_ibkr.clock import NS_PER_S, ManualClock
from bt_ibkr.errors import AmbiguousContractError, BtIbkrError, ContractError, ContractNotFoundError
from bt_ibkr.model.contract import SecurityType
from bt_ibkr.services.contract_cache import ContractCache
from bt_ibkr.services.contracts import ContractService
from bt_ibkr.services.datanames import parse_dataname
from tests.services.conftest import error

if TYPE_CHECKING:
    from tests.services.conftest import Seen, Server

#: 2026-11-21, a Saturday.
TODAY_NS = 1_795_262_400 * NS_PER_S
SPY_HIT = {
    "conid": "756733",
    "companyName": "SPDR S&P 500 ETF TRUST",
    "symbol": "SPY",
    "description": "ARCA",
    "sections": [
        {"secType": "STK"},
        {"secType": "OPT", "months": "NOV26;DEC26;JAN27", "exchange": "SMART;AMEX;CBOE"},
        {"secType": "CFD", "exchange": "SMART", "conid": "134770228"},
        {"secType": "BAG"},
    ],
}
MEXICAN_HIT = {
    "conid": "38709152", "companyName": "SPDR S&P 500 ETF TRUST", "symbol": "SPY", "description": "MEXI",
    "sections": [{"secType": "STK", "exchange": "MEXI;"}],
}  # fmt: skip
ES_HIT = {
    "conid": "11004968",
    "companyName": "E-mini S&P 500",
    "symbol": "ES",
    "description": "CME",
    "sections": [
        {"secType": "IND"},
        {"secType": "FUT", "months": "DEC26;MAR27", "exchange": "CME"},
        {"secType": "FOP", "months": "DEC26;JAN27;FEB27;MAR27", "exchange": "CME"},
    ],
}
VIX_HIT = {
    "conid": "13455763", "companyName": "CBOE Volatility Index", "symbol": "VIX", "description": "CBOE",
    "sections": [{"secType": "IND", "exchange": "CBOE;"}],
}  # fmt: skip
BTC_HIT = {
    "conid": "479624278", "companyName": "Bitcoin cryptocurrency", "symbol": "BTC", "description": "PAXOS",
    "sections": [{"secType": "CRYPTO", "exchange": "PAXOS"}],
}  # fmt: skip
BOND_HIT = {
    "conid": "2147483647", "companyHeader": "Corporate Fixed Income", "companyName": None, "symbol": None,
    "issuers": [{"id": "e1400789", "name": "International Business Machines Corp"}],
    "sections": [{"secType": "BOND"}],
}  # fmt: skip
BONDS = [
    {"conid": 501, "companyName": "IBM", "maturityDate": "20350515", "coupon": "4.5%", "currency": "USD"},
    {"conid": 502, "companyName": "IBM", "maturityDate": "20350515", "coupon": 5.0, "currency": "USD"},
    {
        "conid": 503,
        "companyName": "IBM",
        "maturityDate": "20300115",
        "coupon": "No Coupon",
        "currency": "EUR",
    },
]
FUTURES = [
    {"conid": 605, "expirationDate": 20270319, "ltd": 20270319},
    {"conid": 604, "expirationDate": 20261218, "ltd": 20261218},
]
TREE = {
    "categories": {
        "g1": {
            "name": "Rates",
            "markets": [
                {
                    "name": "US Fed Funds Target Rate",
                    "symbol": "FF",
                    "exchange": "FORECASTX",
                    "conid": 658663572,
                    "product_conid": 658663579,
                }
            ],
        },
        "g2": {"name": "none here"},
    }
}
MARKET = {
    "contracts": [
        {
            "conid": 722489372,
            "side": "Y",
            "expiration": "20270127",
            "strike": 3.125,
            "strike_label": "Above 3.125%",
        },
        {
            "conid": 722489376,
            "side": "N",
            "expiration": "20270127",
            "strike": 3.125,
            "strike_label": "Above 3.125%",
        },
        {
            "conid": 722489380,
            "side": "Y",
            "expiration": "20270127",
            "strike": 3.375,
            "strike_label": "Above 3.375%",
        },
    ]
}


def option(conid: int, day: str, strike: float, right: str, **changes: Any) -> dict[str, Any]:
    """A row of ``secdef/info``."""
    plain = {
        "conid": conid, "symbol": "SPY", "secType": "OPT", "exchange": "SMART", "right": right, "strike": strike,
        "currency": "USD", "maturityDate": day, "multiplier": "100", "tradingClass": "SPY",
    }  # fmt: skip
    return plain | changes


class World:
    """A server that knows a few contracts of each type, and gives derivatives only after a search."""

    def __init__(self, server: Server, cache: ContractCache | None = None) -> None:
        self.server = server
        self.cache = cache
        self.hits: dict[tuple[str, str], list[dict[str, Any]]] = {
            ("SPY", ""): [MEXICAN_HIT, SPY_HIT],
            ("ES", "IND"): [ES_HIT],
            ("VIX", ""): [VIX_HIT],
            ("VIX", "IND"): [VIX_HIT],
            ("BTC", ""): [BTC_HIT],
            ("IBM", "BOND"): [BOND_HIT],
        }
        self.options: dict[tuple[str, str], list[dict[str, Any]]] = {}
        self.strikes: dict[str, list[float]] = {}
        self.searched: set[str] = set()
        self.contracts: dict[int, dict[str, Any]] = {}
        server.answers |= {
            "GET /trsrv/stocks": lambda seen: {seen.query["symbols"]: []},
            "GET /trsrv/futures": lambda seen: {
                seen.query["symbols"]: FUTURES if seen.query["symbols"] == "ES" else []
            },
            "GET /trsrv/secdef": {"secdef": []},
            "GET /iserver/currency/pairs": {
                "USD": [{"symbol": "EUR.USD", "conid": 12087792, "ccyPair": "EUR"}],
            },
            "GET /iserver/secdef/search": self._search,
            "GET /iserver/secdef/strikes": self._strikes,
            "GET /iserver/secdef/info": self._info,
            "GET /forecast/category/tree": TREE,
            "GET /forecast/contract/market": MARKET,
        }

    def know(self, conid: int, kind: str, exchange: str = "SMART", **changes: Any) -> None:
        """Let the server know details of a contract."""
        body = {
            "con_id": conid, "symbol": "X", "instrument_type": kind, "exchange": exchange, "currency": "USD",
            "valid_exchanges": exchange, "rules": {"increment": 0.01, "canTradeAcctIds": ["U1234567"]},
        }  # fmt: skip
        self.contracts[conid] = body | changes
        self.server.answers[f"GET /iserver/contract/{conid}/info-and-rules"] = self.contracts[conid]

    def service(self, now_ns: int = TODAY_NS) -> ContractService:
        return ContractService(self.server.http, ManualClock(now_ns), self.cache)

    def _search(self, seen: Seen) -> Any:
        query = seen.query
        if query.get("name") == "true":
            self.searched.clear()
            return [SPY_HIT] if query["symbol"] in SPY_HIT["companyName"] else {"error": "No symbol found"}
        self.searched.add(query["symbol"])
        return self.hits.get((query["symbol"], query.get("secType", "")), {"error": "No symbol found"})

    def _strikes(self, seen: Seen) -> Any:
        if not self.searched:
            return {"call": [], "put": []}
        found = self.strikes.get(seen.query["month"], [])
        return {"call": found, "put": found}

    def _info(self, seen: Seen) -> Any:
        query = seen.query
        if query["sectype"] == "BOND":
            return BONDS if query["issuerId"] == "e1400789" else []
        rows = self.options.get((query["month"], query["strike"]), [])
        rows = [row for row in rows if query.get("right", row["right"]) == row["right"]]
        return rows if rows and self.searched else error(400, "no contracts retrieved")


@pytest.fixture
def world(server: Server) -> World:
    return World(server)


async def test_an_option_is_found_where_ibkr_routes_it(world: World) -> None:
    world.options["DEC26", "600"] = [
        option(1, "20261211", 600.0, "C"),
        option(2, "20261218", 600.0, "C"),
        option(3, "20261218", 600.0, "P"),
    ]
    world.know(2, "OPT", maturity_date="20261218", strike="600", right="CALL", multiplier="100", symbol="SPY",
               valid_exchanges="SMART,CBOE", trading_class="SPY", underlying_con_id=756733)  # fmt: skip
    service = world.service()
    for name in (
        "SPY 2026-12-18 C 600",
        "SPY-20261218-SMART-USD-600-C-100",
        "SPY-OPT-SMART-USD-20261218-600-C",
    ):
        found = await service.resolve(parse_dataname(name))
        assert (found.conid, found.security_type, found.exchange) == (2, SecurityType.OPTION, "SMART")
        assert (found.strike, found.right, found.multiplier) == (600.0, "C", 100.0)
        assert (found.trading_class, found.underlying_conid) == ("SPY", 756733)
    asked = [seen.query for seen in world.server.seen if seen.line.endswith("secdef/info")]
    # Once, whatever it is called; at the listing that has IBKR's routing.
    assert [(one["conid"], one["month"], one["exchange"]) for one in asked] == [("756733", "DEC26", "SMART")]
    at = await service.resolve(parse_dataname("SPY 2026-12-18 C 600@CBOE"))
    assert (at.conid, at.exchange) == (2, "CBOE")


async def test_a_month_with_several_days_is_ambiguous(world: World) -> None:
    world.options["DEC26", "600"] = [option(1, "20261211", 600.0, "C"), option(2, "20261218", 600.0, "C")]
    with pytest.raises(AmbiguousContractError) as caught:
        await world.service().resolve(parse_dataname("SPY DEC26 C 600"))
    for words in ("conid:1 (", "20261211", "conid:2 (", "20261218"):
        assert words in caught.value.message
    assert "[CLASS]" in caught.value.remedy


async def test_trading_classes_of_one_day(world: World) -> None:
    rows = [
        option(1, "20261218", 600.0, "P", tradingClass="SPX"),
        option(2, "20261218", 600.0, "P", tradingClass="SPXW"),
    ]
    world.options["DEC26", "600"] = rows
    world.know(2, "OPT", maturity_date="20261218")
    with pytest.raises(AmbiguousContractError, match="SPXW"):
        await world.service().resolve(parse_dataname("SPY 2026-12-18 P 600"))
    assert (await world.service().resolve(parse_dataname("SPY[SPXW] 2026-12-18 P 600"))).conid == 2


async def test_what_is_listed_instead(world: World) -> None:
    world.options["DEC26", "600"] = [option(1, "20261211", 600.0, "C")]
    world.strikes["DEC26"] = [590.0, 595.0, 600.0, 605.0]
    for name, near in (
        ("SPY 2026-12-18 C 601", "SPY 20261218 C 600"),
        ("SPY 2026-12-18 C 600", "SPY 20261211 C 600"),
        ("SPY 2029-12-18 C 600", "SPY DEC26 C 600"),
    ):
        with pytest.raises(ContractNotFoundError) as caught:
            await world.service().resolve(parse_dataname(name))
        assert near in caught.value.remedy
    with pytest.raises(ContractNotFoundError, match="no options of that kind at ISE"):
        await world.service().resolve(parse_dataname("SPY 2026-12-18 C 600@ISE"))


async def test_an_option_on_a_future(world: World) -> None:
    """Its underlying is found as an index; its month may be a later one than that of its last day."""
    row = option(
        7,
        "20261224",
        6000.0,
        "C",
        secType="FOP",
        exchange="CME",
        multiplier="50",
        symbol="ES",
        tradingClass="EW4",
    )
    world.options["JAN27", "6000"] = [row]
    world.know(
        7, "FOP", "CME", maturity_date="20261224", strike="6000", right="C", multiplier="50", symbol="ES"
    )
    found = await world.service().resolve(parse_dataname("ES 2026-12-24 C 6000"))
    assert (found.conid, found.security_type, found.exchange) == (7, SecurityType.FUTURE_OPTION, "CME")
    assert found.multiplier == 50.0
    asked = [seen.query for seen in world.server.seen if seen.line.endswith("secdef/info")]
    assert {(one["conid"], one["sectype"], one["exchange"]) for one in asked} == {("11004968", "FOP", "CME")}
    by_month = await world.service().resolve(parse_dataname("ES-202701-CME-USD-6000-C"))
    assert by_month.conid == 7


async def test_derivatives_come_only_after_a_search(world: World, tmp_path: Path) -> None:
    """Fault: the cache has the search, the server of this session was never asked."""
    world.options["DEC26", "600"] = [option(2, "20261218", 600.0, "C")]
    world.options["DEC26", "610"] = [option(4, "20261218", 610.0, "C")]
    for conid in (2, 4):
        world.know(conid, "OPT", maturity_date="20261218")
    world.cache = ContractCache(tmp_path / "contracts.sqlite", "a", now_ns=lambda: TODAY_NS)
    await world.service().resolve(parse_dataname("SPY 2026-12-18 C 600"))
    # Another session: nothing is searched at the server.
    world.searched.clear()
    world.server.seen.clear()
    service = world.service()
    await service.resolve(parse_dataname("SPY 2026-12-18 C 600"))
    assert world.server.lines() == []
    assert (await service.resolve(parse_dataname("SPY 2026-12-18 C 610"))).conid == 4
    assert len(world.server.lines("search")) == 1
    # The server forgets, as after a nightly reset; another name was searched by its company.
    world.searched.clear()
    world.options["DEC26", "620"] = [option(5, "20261218", 620.0, "C")]
    world.know(5, "OPT", maturity_date="20261218")
    assert (await service.resolve(parse_dataname("SPY 2026-12-18 C 620"))).conid == 5
    world.cache.close()


async def test_what_a_search_has(world: World) -> None:
    world.know(134770228, "CFD", valid_exchanges="SMART")
    world.know(13455763, "IND", "CBOE", symbol="VIX")
    world.know(479624278, "CRYPTO", "PAXOS", symbol="BTC")
    service = world.service()
    for name, conid, exchange in (
        ("SPY-CFD", 134770228, "SMART"),
        ("VIX-IND-CBOE-USD", 13455763, "CBOE"),
        ("VIX index", 13455763, "CBOE"),
        ("BTC-CRYPTO-PAXOS-USD", 479624278, "PAXOS"),
    ):
        found = await service.resolve(parse_dataname(name))
        assert (found.conid, found.exchange) == (conid, exchange)
    with pytest.raises(ContractNotFoundError, match=r"priced in USD"):
        await service.resolve(parse_dataname("BTC-CRYPTO-PAXOS-EUR"))
    with pytest.raises(ContractNotFoundError) as caught:
        await service.resolve(parse_dataname("VIX-IND-NYSE"))
    assert "VIX-IND-CBOE" in caught.value.remedy


async def test_bonds_by_issuer_maturity_and_coupon(world: World) -> None:
    world.know(501, "BOND", maturity_date="20350515")
    with pytest.raises(AmbiguousContractError) as caught:
        await world.service().resolve(parse_dataname("IBM-BOND-SMART-USD-203505"))
    assert "conid:501 (IBM, 20350515, 4.5 %)" in caught.value.message
    assert "conid:503" not in caught.value.message
    found = await world.service().resolve(parse_dataname("IBM-BOND-SMART-USD-203505-4.5"))
    assert (found.conid, found.security_type) == (501, SecurityType.BOND)


async def test_event_contracts(world: World) -> None:
    world.know(
        722489372, "OPT", "FORECASTX", maturity_date="20270127", strike="3.125", right="CALL", symbol="FF"
    )
    found = await world.service().resolve(parse_dataname("FF 2027-01-27 YES 3.125"))
    assert (found.conid, found.exchange, found.symbol, found.only_bought) == (
        722489372,
        "FORECASTX",
        "FF",
        True,
    )
    # By its key, too, it goes where it trades.
    by_key = await world.service().resolve(parse_dataname("conid:722489372"))
    assert (by_key.exchange, by_key.only_bought) == ("FORECASTX", True)
    with pytest.raises(ContractNotFoundError) as caught:
        await world.service().resolve(parse_dataname("FF 2027-01-27 YES 3.25"))
    assert "FF 20270127 YES 3.375 (Above 3.375%)" in caught.value.remedy


async def test_near_names(world: World) -> None:
    for name, near in (
        ("SPY-STK-TSE", "SPY-STK-ARCA"),
        ("TRUST", "SPY-STK-ARCA (SPDR S&P 500 ETF TRUST)"),
        ("USD.EUR", "EUR.USD"),
        ("BTC.USD", "BTC-CRYPTO-PAXOS"),
        ("VIX", "VIX-IND-CBOE"),
        ("ES 2026-06@CME", "ES 2026-12-18@CME"),
    ):
        with pytest.raises(ContractNotFoundError) as caught:
            await world.service().resolve(parse_dataname(name))
        assert near in caught.value.remedy, name
    service = world.service()
    world.know(604, "FUT", "CME")
    await service.resolve(parse_dataname("ES DEC26@CME"))
    with pytest.raises(ContractNotFoundError) as caught:
        await service.resolve(parse_dataname("ESS@CME front"))
    assert "Near names: ES." in caught.value.remedy


async def test_a_future_goes_where_it_trades(world: World) -> None:
    world.know(604, "FUT", "CME", multiplier="50", maturity_date="20261218")
    service = world.service()
    found = await service.resolve(parse_dataname("ES DEC26"))
    assert (found.conid, found.exchange) == (604, "CME")
    assert (await service.resolve(parse_dataname("conid:604"))).exchange == "CME"
    with pytest.raises(ContractNotFoundError, match="does not trade at NYMEX"):
        await service.resolve(parse_dataname("ES DEC26@NYMEX"))


async def test_a_stock_at_an_exchange_where_it_is_not_listed(world: World) -> None:
    world.server.answers |= {
        "GET /trsrv/stocks": {
            "SPY": [{"name": "SPY", "contracts": [{"conid": 5, "exchange": "ARCA", "isUS": True}]}]
        },
        "GET /trsrv/secdef": {
            "secdef": [{"conid": 5, "assetClass": "STK", "allExchanges": "AMEX,NYSE,ARCA"}]
        },
    }
    world.know(5, "STK", valid_exchanges="SMART,AMEX,NYSE,ARCA")
    found = await world.service().resolve(parse_dataname("SPY-STK-NYSE"))
    assert (found.conid, found.exchange) == (5, "NYSE")
    with pytest.raises(ContractNotFoundError):
        await world.service().resolve(parse_dataname("SPY-STK-LSE"))


async def test_rules_come_with_the_contract(world: World) -> None:
    steps = [{"lowerEdge": 3.0, "increment": 0.1}, {"lowerEdge": 0.0, "increment": 0.05}]
    rules = {"increment": 0.05, "incrementRules": steps, "orderTypes": ["limit"], "sizeIncrement": 1}
    world.know(2, "OPT", rules=rules)
    service = world.service()
    found = await service.resolve(parse_dataname("conid:2"))
    assert found.tick_steps == ((0.0, 0.05), (3.0, 0.1))
    assert [found.tick_at(price) for price in (0.4, 2.95, 3.0, 12.0, -4.0)] == [0.05, 0.05, 0.1, 0.1, 0.1]
    assert (await service.rules(found)).order_types == ("limit",)
    assert world.server.lines("info-and-rules") == ["GET /iserver/contract/2/info-and-rules"]


async def test_rules_that_come_with_the_second_answer(world: World) -> None:
    answers = [
        {"con_id": 2, "instrument_type": "STK"},
        {"con_id": 2, "instrument_type": "STK", "rules": {"increment": 0.5}},
    ]
    world.server.answers["GET /iserver/contract/2/info-and-rules"] = lambda _: answers.pop(0)
    found = await world.service().resolve(parse_dataname("conid:2"))
    assert found.tick_size == 0.5
    assert answers == []


async def test_over_runs_the_cache_answers(world: World, tmp_path: Path) -> None:
    world.know(604, "FUT", "CME", maturity_date="20261218", symbol="ES")
    now_ns = TODAY_NS

    def opened(scope: str = "a") -> ContractCache:
        return ContractCache(tmp_path / "contracts.sqlite", scope, now_ns=lambda: now_ns)

    async def asked(cache: ContractCache) -> int:
        world.server.seen.clear()
        world.cache = cache
        await world.service(now_ns).resolve(parse_dataname("ES DEC26@CME"))
        cache.close()
        return len(world.server.seen)

    assert await asked(opened()) == 2
    assert await asked(opened()) == 0
    # Another login, or another server.
    assert await asked(opened("b")) == 2
    # Listings age within a day, details within a week or with the contract.
    now_ns += 25 * 3600 * NS_PER_S
    assert await asked(opened()) == 1
    now_ns = TODAY_NS + 29 * 86400 * NS_PER_S
    assert await asked(opened()) == 2
    assert await asked(opened()) == 1
    # Closed, the log is in the file.
    assert b"U1234567" not in (tmp_path / "contracts.sqlite").read_bytes()


async def test_what_is_kept_and_cannot_be_read_is_asked_for(world: World, tmp_path: Path) -> None:
    world.know(604, "FUT", "CME")
    world.cache = ContractCache(tmp_path / "contracts.sqlite", "a", now_ns=lambda: TODAY_NS)
    for body in (b"{", b"[]", b'{"con_id": 604}'):
        world.cache.put("details", "/iserver/contract/604/info-and-rules", body)
        assert (await world.service().resolve(parse_dataname("conid:604"))).conid == 604
    world.cache.close()


async def test_a_server_that_fails_is_no_missing_contract(world: World) -> None:
    world.server.answers["GET /iserver/secdef/search"] = lambda _: error(503, "Service Unavailable")
    with pytest.raises(Exception, match="503") as caught:
        await world.service().resolve(parse_dataname("SPY 2026-12-18 C 600"))
    assert not isinstance(caught.value, ContractError)
    # Where near names cannot be had the error is told without.
    with pytest.raises(ContractNotFoundError, match="No STK instrument"):
        await world.service().resolve(parse_dataname("SPYY"))


@pytest.mark.parametrize(
    "name",
    [
        "SPY 2026-12-18 C 600",
        "SPY-CFD",
        "IBM-BOND",
        "FF 2027-01-27 YES 3.125",
        "ES@CME front",
        "NOTHING",
        "A.BC",
    ],
)
@pytest.mark.parametrize("body", [[], {}, [{}], {"x": 1}, "text", 5, None, [[]]])
async def test_answers_that_make_no_sense(world: World, name: str, body: Any) -> None:
    """Whatever comes, it is told as an error of ours."""
    answers: dict[str, Callable[[Seen], Any] | Any] = dict.fromkeys(world.server.answers, body)
    world.server.answers |= answers
    with pytest.raises(BtIbkrError):
        await world.service().resolve(parse_dataname(name))
