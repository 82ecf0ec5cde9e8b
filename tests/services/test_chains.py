"""Option chains: what is asked for, in how many requests, and how they go on after a break."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from bt_ibkr.clock import NS_PER_S
from bt_ibkr.errors import ContractError, ContractNotFoundError, SessionError, UsageError
from bt_ibkr.model.contract import Contract, SecurityType
from bt_ibkr.services.chains import ChainRequest, ChainService
from bt_ibkr.services.contract_cache import ContractCache
from bt_ibkr.services.lookups import ContractLookups
from tests.services.conftest import error
from tests.services.test_contract_types import ES_HIT, MARKET, MEXICAN_HIT, SPY_HIT, TREE

if TYPE_CHECKING:
    from tests.services.conftest import Seen, Server

SPY = Contract(conid=756733, symbol="SPY", security_type=SecurityType.STOCK)
ES = Contract(
    conid=604, symbol="ES", security_type=SecurityType.FUTURE, exchange="CME", underlying_conid=11004968
)
STRIKES = [float(strike) for strike in range(580, 625, 5)]
DAYS = {"NOV26": ["20261127"], "DEC26": ["20261211", "20261218"], "JAN27": ["20270115"]}


class Listed:
    """A server with options on SPY; those of a month come only after a search."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.one_right_only = False
        self.fails_after = 10**9
        self.searched = False
        server.answers |= {
            "GET /iserver/secdef/search": self._search,
            "GET /iserver/secdef/strikes": self._strikes,
            "GET /iserver/secdef/info": self._info,
            "GET /iserver/marketdata/snapshot": self._snapshot,
            "GET /forecast/category/tree": TREE,
            "GET /forecast/contract/market": MARKET,
        }
        self.snapshots = 0

    def service(self, cache: ContractCache | None = None) -> ChainService:
        return ChainService(self.server.http, ContractLookups(self.server.http, cache))

    def asked(self) -> int:
        return len(self.server.lines("secdef/info"))

    def _search(self, seen: Seen) -> Any:
        self.searched = True
        return {"SPY": [MEXICAN_HIT, SPY_HIT], "ES": [ES_HIT]}.get(
            seen.query["symbol"], {"error": "No symbol found"}
        )

    def _strikes(self, seen: Seen) -> Any:
        listed = STRIKES if self.searched else []
        return {"call": listed, "put": listed[1:]}

    async def _info(self, seen: Seen) -> Any:
        await asyncio.sleep(0)
        if self.asked() > self.fails_after:
            return error(503, "Service Unavailable")
        query = seen.query
        strike, month, kind = float(query["strike"]), query["month"], query["sectype"]
        rights = query.get("right") or ("C" if self.one_right_only else "CP")
        rows = [
            {
                "conid": int(day) * 100_000 + int(strike) * 10 + (right == "P"), "symbol": "SPY", "secType": kind,
                "exchange": query["exchange"], "right": right, "strike": strike, "currency": "USD",
                "maturityDate": day, "multiplier": "100", "tradingClass": "SPY",
            }
            for day in DAYS.get(month, [])
            for right in rights
            if strike in STRIKES
        ]  # fmt: skip
        return rows or error(400, "no contracts retrieved")

    def _snapshot(self, seen: Seen) -> Any:
        self.snapshots += 1
        return [{"conid": 756733}] if self.snapshots == 1 else [{"conid": 756733, "31": "C601.30"}]


@pytest.fixture
def listed(server: Server, monkeypatch: pytest.MonkeyPatch) -> Listed:
    monkeypatch.setattr("bt_ibkr.services.chains._PAUSE_S", 0.0)
    return Listed(server)


async def test_a_whole_chain(listed: Listed) -> None:
    told: list[tuple[int, int]] = []
    found = await listed.service().chain(ChainRequest(underlying=SPY), lambda *step: told.append(step))
    assert len(found) == 4 * len(STRIKES) * 2
    assert [found[0].last_trade_date, found[0].strike, found[0].right] == ["20261127", 580.0, "C"]
    assert found == tuple(sorted(found, key=lambda one: (one.last_trade_date, one.strike, one.right)))
    first = found[0]
    assert (first.multiplier, first.trading_class, first.exchange) == (100.0, "SPY", "SMART")
    # A request for each strike of a month; never more than five at a time.
    assert listed.asked() == 3 * len(STRIKES)
    assert told == [(n, 27) for n in range(28)]
    assert listed.server.most_active <= 5


@pytest.mark.parametrize(
    ("wishes", "days", "strikes", "rights", "requests"),
    [
        ({"months": ("202612",)}, {"20261211", "20261218"}, set(STRIKES), {"C", "P"}, 9),
        ({"months": ("JAN27",), "right": "C"}, {"20270115"}, set(STRIKES), {"C"}, 9),
        ({"months": ("JAN27",), "right": "P"}, {"20270115"}, set(STRIKES[1:]), {"P"}, 8),
        ({"first": "20261218", "last": "20261231"}, {"20261218"}, set(STRIKES), {"C", "P"}, 9),
        (
            {"months": ("NOV26",), "lowest": 600.0, "highest": 605.0},
            {"20261127"},
            {600.0, 605.0},
            {"C", "P"},
            2,
        ),
        ({"months": ("NOV26",), "around": 1}, {"20261127"}, {595.0, 600.0, 605.0}, {"C", "P"}, 3),
        ({"months": ("NOV26",), "around": 1, "price": 580.0}, {"20261127"}, {580.0, 585.0}, {"C", "P"}, 2),
        ({"months": ("NOV26",), "around": 0, "right": "C"}, {"20261127"}, {600.0}, {"C"}, 1),
        ({"months": ("NOV26",), "trading_class": "SPYW"}, set(), set(), set(), 9),
        ({"months": ("NOV26",), "lowest": 1e6}, set(), set(), set(), 0),
    ],
)
async def test_a_part_of_it(
    listed: Listed,
    wishes: dict[str, Any],
    days: set[str],
    strikes: set[float],
    rights: set[str],
    requests: int,
) -> None:
    found = await listed.service().chain(ChainRequest(underlying=SPY, **wishes))
    assert {one.last_trade_date for one in found} == days
    assert {one.strike for one in found} == strikes
    assert {one.right for one in found} == rights
    assert listed.asked() == requests


async def test_it_goes_on_where_it_was_broken_off(listed: Listed, tmp_path: Path) -> None:
    def cache() -> ContractCache:
        return ContractCache(tmp_path / "contracts.sqlite", "a")

    listed.fails_after = 12
    kept = cache()
    with pytest.raises(SessionError):
        await listed.service(kept).chain(ChainRequest(underlying=SPY))
    kept.close()
    listed.fails_after = 10**9
    listed.server.seen.clear()
    listed.searched = False
    kept = cache()
    found = await listed.service(kept).chain(ChainRequest(underlying=SPY))
    assert len(found) == 72
    assert 27 - 12 <= listed.asked() <= 27 - 8
    listed.server.seen.clear()
    assert len(await listed.service(kept).chain(ChainRequest(underlying=SPY))) == 72
    assert listed.server.lines() == []
    kept.close()


async def test_both_rights_where_the_server_tells_one(listed: Listed) -> None:
    listed.one_right_only = True
    found = await listed.service().chain(ChainRequest(underlying=SPY, months=("NOV26",)))
    assert len(found) == 2 * len(STRIKES)


async def test_on_a_future(listed: Listed) -> None:
    request = ChainRequest(underlying=ES, first="20261101", last="20261218")
    found = await listed.service().chain(request)
    asked = [seen.query for seen in listed.server.seen if seen.line.endswith("secdef/info")]
    assert {(one["conid"], one["sectype"], one["exchange"]) for one in asked} == {("11004968", "FOP", "CME")}
    # Options of later months may end before these do.
    assert {one["month"] for one in asked} == {"DEC26", "JAN27", "FEB27"}
    assert {one.last_trade_date for one in found} == {"20261211", "20261218"}
    assert {one.security_type for one in found} == {SecurityType.FUTURE_OPTION}


async def test_event_contracts_of_a_market(listed: Listed) -> None:
    market = Contract(conid=658663572, symbol="FF", security_type=SecurityType.INDEX, exchange="FORECASTX")
    found = await listed.service().chain(ChainRequest(underlying=market))
    assert [(one.conid, one.right, one.strike) for one in found] == [
        (722489372, "C", 3.125), (722489376, "P", 3.125), (722489380, "C", 3.375),
    ]  # fmt: skip
    assert all(one.only_bought for one in found)
    yes = await listed.service().chain(
        ChainRequest(underlying=market, right="C", lowest=3.2, months=("202701",))
    )
    assert [one.conid for one in yes] == [722489380]
    none = Contract(conid=1, symbol="XX", security_type=SecurityType.INDEX, exchange="FORECASTX")
    with pytest.raises(ContractNotFoundError, match="no market"):
        await listed.service().chain(ChainRequest(underlying=none))


async def test_what_has_no_chain(listed: Listed) -> None:
    with pytest.raises(ContractNotFoundError, match="has no options"):
        await listed.service().chain(
            ChainRequest(underlying=Contract(conid=9, symbol="XX", security_type=SecurityType.STOCK))
        )
    with pytest.raises(ContractNotFoundError, match="no options in FEB29") as caught:
        await listed.service().chain(ChainRequest(underlying=SPY, months=("FEB29",)))
    assert "NOV26, DEC26, JAN27" in caught.value.remedy
    listed.server.answers["GET /iserver/marketdata/snapshot"] = [{"conid": 756733}]
    with pytest.raises(ContractError, match="tells no price"):
        await listed.service().chain(ChainRequest(underlying=SPY, around=2))


@pytest.mark.parametrize(
    "wishes",
    [
        {"months": ("2026",)}, {"months": ("20261218",)}, {"months": ("XXX26",)}, {"first": "202612"},
        {"last": "20261301"}, {"right": "call"}, {"around": -1}, {"first": "20270101", "last": "20261231"},
    ],
)  # fmt: skip
def test_what_is_no_request(wishes: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        ChainRequest(underlying=SPY, **wishes)


async def test_the_chain_ages_in_a_day(listed: Listed, tmp_path: Path) -> None:
    now_ns = 1_795_262_400 * NS_PER_S
    cache = ContractCache(tmp_path / "contracts.sqlite", "a", now_ns=lambda: now_ns)
    request = ChainRequest(underlying=SPY, months=("NOV26",))
    await listed.service(cache).chain(request)
    now_ns += 25 * 3600 * NS_PER_S
    listed.server.seen.clear()
    await listed.service(cache).chain(request)
    assert listed.asked() == len(STRIKES)
    cache.close()
