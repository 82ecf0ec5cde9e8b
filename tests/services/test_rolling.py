"""The continuous front: which single future it means on a day, and when that changes."""

from __future__ import annotations

from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bt_ibkr.clock import NS_PER_S, ManualClock
from bt_ibkr.errors import AmbiguousContractError, ContractError, ContractNotFoundError
from bt_ibkr.services.contracts import ContractService
from bt_ibkr.services.datanames import RollBy, RollRule, parse_dataname
from bt_ibkr.services.rolling import end_of, front_by_days, front_by_size
from bt_ibkr.wire.contracts import FutureListing, futures
from tests.services.conftest import error

if TYPE_CHECKING:
    from tests.services.conftest import Seen, Server

DAYS = ("20261218", "20270319", "20270618", "20270917")


def listing(conid: int, day: str, cut_off: str | None = None) -> FutureListing:
    return FutureListing(
        symbol="ES",
        conid=conid,
        underlying_conid=None,
        expiration_date=day,
        last_trade_date=day,
        cut_off=cut_off,
    )


LISTED = [listing(number, day) for number, day in enumerate(DAYS, start=1)]


@pytest.mark.parametrize(
    ("today", "rule", "conid", "roll"),
    [
        (date(2026, 11, 21), RollRule(), 1, "20261211"),
        (date(2026, 12, 10), RollRule(), 1, "20261211"),
        (date(2026, 12, 11), RollRule(), 2, "20270312"),
        (date(2026, 12, 18), RollRule(days=0), 2, "20270319"),
        (date(2026, 12, 17), RollRule(days=0), 1, "20261218"),
        (date(2026, 11, 21), RollRule(days=60), 2, "20270118"),
        (date(2026, 11, 21), RollRule(offset=1), 2, "20261211"),
        (date(2026, 12, 11), RollRule(offset=1), 3, "20270312"),
        (date(2026, 11, 21), RollRule(offset=4), None, None),
        (date(2027, 9, 17), RollRule(), None, None),
    ],
)
def test_by_days(today: date, rule: RollRule, conid: int | None, roll: str | None) -> None:
    front = front_by_days(LISTED[::-1], rule, today)
    assert (None if front is None else (front.listing.conid, front.roll_date)) == (
        None if conid is None else (conid, roll)
    )


def test_physical_delivery_ends_with_ibkrs_cut_off() -> None:
    body = {
        "GC": [
            {
                "conid": 9,
                "expirationDate": 20261229,
                "ltd": 20261229,
                "shortFuturesCutOff": 20261228,
                "longFuturesCutOff": 20261127,
            }
        ]
    }
    (one,) = futures(body)["GC"]
    assert end_of(one) == "20261127"
    front = front_by_days([one, listing(10, "20270224")], RollRule(), date(2026, 11, 20))
    assert front is not None
    assert front.listing.conid == 10


@given(st.integers(0, 900), st.integers(0, 30), st.integers(0, 2))
def test_the_front_moves_on_and_never_back(day: int, days: int, offset: int) -> None:
    rule = RollRule(days=days, offset=offset)
    today = date(2026, 11, 1) + timedelta(days=day)
    now, then = (front_by_days(LISTED, rule, moment) for moment in (today, today + timedelta(days=1)))
    if now is None:
        assert then is None
        return
    assert now.roll_date is not None
    assert today < date.fromisoformat(now.roll_date)
    assert today < date.fromisoformat(end_of(now.listing)) - timedelta(days=days)
    if then is not None:
        assert then.listing.conid - now.listing.conid in (0, 1)
        moved = then.listing.conid != now.listing.conid
        assert moved is (date.fromisoformat(now.roll_date) == today + timedelta(days=1))
        assert not moved or then.listing == now.successor


def test_by_volume() -> None:
    rule, today = RollRule(by=RollBy.VOLUME), date(2026, 12, 14)
    front = front_by_size(LISTED, rule, today, {1: 500.0, 2: 900.0, 3: 10.0})
    assert front is not None
    assert (front.listing.conid, front.roll_date) == (2, None)
    assert front.successor == LISTED[2]
    # Of equals, as over a week-end, the nearest; never one that has ended.
    equal = front_by_size(LISTED, rule, today, {1: 0.0, 2: 0.0})
    assert equal is not None
    assert equal.listing.conid == 1
    after = front_by_size(LISTED, rule, date(2026, 12, 19), {1: 500.0, 2: 1.0})
    assert after is not None
    assert after.listing.conid == 2
    assert front_by_size(LISTED, rule, today, {}) is None


class Exchange:
    """A server with four futures, and a snapshot that is empty at first."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.sizes: dict[int, Any] = {1: "500", 2: "900K", 3: 10}
        self.calls = 0
        rows = [{"conid": n, "expirationDate": int(day), "ltd": int(day)} for n, day in enumerate(DAYS, 1)]
        server.answers |= {
            "GET /trsrv/futures": lambda seen: {
                seen.query["symbols"]: rows if seen.query["symbols"] == "ES" else []
            },
            "GET /trsrv/secdef": lambda seen: {
                "secdef": [self.row(int(n)) for n in seen.query["conids"].split(",")]
            },
            "GET /iserver/marketdata/snapshot": self._snapshot,
            "GET /iserver/secdef/search": {"error": "No symbol found"},
        }
        for conid, day in enumerate(DAYS, 1):
            server.answers[f"GET /iserver/contract/{conid}/info-and-rules"] = {
                "con_id": conid, "symbol": "ES", "instrument_type": "FUT", "exchange": "CME", "currency": "USD",
                "multiplier": "50", "maturity_date": day, "valid_exchanges": "CME", "rules": {"increment": 0.25},
            }  # fmt: skip

    def row(self, conid: int) -> dict[str, Any]:
        return {"conid": conid, "assetClass": "FUT", "ticker": "ES", "listingExchange": "CME", "multiplier": 50.0,
                "currency": "USD"}  # fmt: skip

    def _snapshot(self, seen: Seen) -> Any:
        self.calls += 1
        conids = [int(n) for n in seen.query["conids"].split(",")]
        if self.calls == 1:
            return [{"conid": conid} for conid in conids]
        return [
            {"conid": conid, seen.query["fields"]: self.sizes[conid]}
            for conid in conids
            if conid in self.sizes
        ]

    def at(self, day: date) -> ContractService:
        noon = (day - date(1970, 1, 1)).days * 86_400 + 18 * 3_600
        return ContractService(self.server.http, ManualClock(noon * NS_PER_S))


@pytest.fixture
def exchange(server: Server, monkeypatch: pytest.MonkeyPatch) -> Exchange:
    monkeypatch.setattr("bt_ibkr.services.rolling._PAUSE_S", 0.0)
    return Exchange(server)


async def test_one_contract_stands_for_it(exchange: Exchange) -> None:
    for name in ("ES@CME front", "ES front", "ES-CONTFUT-CME-USD-50"):
        front = await exchange.at(date(2026, 11, 21)).resolve(parse_dataname(name))
        assert (front.conid, front.exchange, front.multiplier) == (1, "CME", 50.0)
        assert front.roll_date == "20261211"
        assert front.continuous.startswith("ES-CONTFUT-")
    after = await exchange.at(date(2026, 12, 11)).resolve(parse_dataname("ES@CME front"))
    assert (after.conid, after.roll_date) == (2, "20270312")


async def test_within_a_session_it_moves_on(exchange: Exchange) -> None:
    """The name is resolved again after the roll date; a feed that has its contract keeps it."""
    clock = ManualClock(0)
    service = ContractService(exchange.server.http, clock)
    clock.set_ns(exchange.at(date(2026, 12, 10))._clock.now_ns())
    query = parse_dataname("ES@CME front")
    first = await service.resolve(query)
    assert await service.resolve(query) is first
    clock.set_ns(exchange.at(date(2026, 12, 11))._clock.now_ns())
    assert (await service.resolve(query)).conid == 2
    assert service.known(first.conid) is first


async def test_the_market_decides_where_it_is_asked_to(exchange: Exchange) -> None:
    for word in ("volume", "interest"):
        exchange.calls = 0
        front = await exchange.at(date(2026, 11, 21)).resolve(parse_dataname(f"ES@CME front {word}"))
        # The first answer was empty, the second tells 900K.
        assert (front.conid, front.roll_date) == (2, None)
    exchange.sizes.clear()
    with pytest.raises(ContractError, match="tells no volume"):
        await exchange.at(date(2026, 11, 21)).resolve(parse_dataname("ES@CME front volume"))


async def test_what_is_no_front(exchange: Exchange) -> None:
    with pytest.raises(ContractNotFoundError, match="no future of ES is listed that far out"):
        await exchange.at(date(2026, 11, 21)).resolve(parse_dataname("ES@CME front+4"))
    with pytest.raises(ContractNotFoundError, match="No FUT instrument answers"):
        await exchange.at(date(2026, 11, 21)).resolve(parse_dataname("XX@CME front"))
    with pytest.raises(ContractNotFoundError, match="No FUT instrument answers"):
        await exchange.at(date(2026, 11, 21)).resolve(parse_dataname("ES@NYMEX front"))
    exchange.server.answers["GET /iserver/marketdata/snapshot"] = error(503, "Service Unavailable")
    with pytest.raises(Exception, match="503"):
        await exchange.at(date(2026, 11, 21)).resolve(parse_dataname("ES@CME front volume"))


async def test_two_products_of_one_symbol(exchange: Exchange) -> None:
    """SI of 5000 and of 1000 ounces: the name must say which."""
    exchange.server.answers["GET /trsrv/futures"] = {
        "ES": [{"conid": n, "expirationDate": 20261218, "ltd": 20261218} for n in (1, 2)]
    }
    plain = exchange.row

    def row(conid: int) -> dict[str, Any]:
        return plain(conid) | {"multiplier": 50.0 if conid == 1 else 5.0}

    exchange.row = row  # type: ignore[method-assign]
    with pytest.raises(AmbiguousContractError):
        await exchange.at(date(2026, 11, 21)).resolve(parse_dataname("ES@CME front"))
    named = await exchange.at(date(2026, 11, 21)).resolve(parse_dataname("ES@CME front x50"))
    assert named.conid == 1
