"""``valid`` and ``tif``: which time in force goes to IBKR, and when the adapter itself cancels."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from types import SimpleNamespace
from typing import Any
from zoneinfo import ZoneInfo

import backtrader as bt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bt_ibkr.brokers.validity import expiry_ns, is_moment, readable_valid, time_in_force
from bt_ibkr.clock import NS_PER_S
from bt_ibkr.errors import OrderRefusedError
from bt_ibkr.model.contract import Contract, SecurityType
from bt_ibkr.model.hours import exchange_zone, session_end_ns
from bt_ibkr.model.order import TimeInForce
from tests.brokers.test_tickets import Feed

AAPL = Contract(conid=1, symbol="AAPL", security_type=SecurityType.STOCK)
NEW_YORK = ZoneInfo("America/New_York")
NOW = datetime(2026, 3, 2, 15, 0, tzinfo=UTC)
NOW_NS = int(NOW.timestamp()) * NS_PER_S


class Asked(tzinfo):
    """A zone in the manner of pytz: it has to be asked for a moment, and means the second of two at first."""

    def __init__(self, name: str) -> None:
        self.zone = ZoneInfo(name)

    def fromutc(self, moment: datetime) -> datetime:
        return moment.replace(tzinfo=UTC).astimezone(self.zone)

    def utcoffset(self, moment: datetime | None) -> timedelta | None:
        return self.zone.utcoffset(moment)

    def dst(self, moment: datetime | None) -> timedelta | None:
        return self.zone.dst(moment)

    def tzname(self, moment: datetime | None) -> str | None:
        return self.zone.tzname(moment)

    def normalize(self, moment: datetime) -> datetime:
        return moment

    def localize(self, moment: datetime, is_dst: bool = False) -> datetime:
        assert moment.tzinfo is None
        first, second = (moment.replace(tzinfo=self.zone, fold=fold) for fold in (0, 1))
        return first if is_dst or first.utcoffset() == second.utcoffset() else second


def expiry(
    valid: Any, *, zone: Any = None, contract: Contract = AAPL, extended: bool = False
) -> datetime | None:
    made = SimpleNamespace(p=SimpleNamespace(valid=valid), data=SimpleNamespace(_tz=zone))
    found = expiry_ns(made, contract, NOW_NS, extended=extended)
    return None if found is None else datetime.fromtimestamp(found / NS_PER_S, tz=UTC)


@pytest.mark.parametrize("valid", [None, bt.Order.DAY, timedelta(), 0, 0.0])
def test_ibkr_ends_these_itself(valid: Any) -> None:
    assert expiry(valid) is None
    assert time_in_force(valid) is (TimeInForce.GOOD_TILL_CANCELLED if valid is None else TimeInForce.DAY)


def test_a_span_counts_from_now() -> None:
    assert expiry(timedelta(minutes=90)) == datetime(2026, 3, 2, 16, 30, tzinfo=UTC)
    assert expiry(0.5) == datetime(2026, 3, 3, 3, 0, tzinfo=UTC)
    assert expiry(3) == datetime(2026, 3, 5, 15, 0, tzinfo=UTC)


def test_a_moment_without_a_zone_is_in_the_feeds() -> None:
    noon = datetime(2026, 3, 3, 12, 0)  # noqa: DTZ001
    assert expiry(noon) == datetime(2026, 3, 3, 12, 0, tzinfo=UTC)
    for zone in (Asked("America/New_York"), ZoneInfo("America/New_York")):
        assert expiry(noon, zone=zone) == datetime(2026, 3, 3, 17, 0, tzinfo=UTC)
        # The clocks have been set forward by then.
        assert expiry(noon + timedelta(days=7), zone=zone) == datetime(2026, 3, 10, 16, 0, tzinfo=UTC)


def test_a_moment_with_a_zone_is_taken_as_it_is() -> None:
    assert expiry(datetime(2026, 3, 3, 12, tzinfo=NEW_YORK), zone=UTC) == datetime(2026, 3, 3, 17, tzinfo=UTC)
    there = timezone(timedelta(hours=9))
    assert expiry(datetime(2026, 3, 3, 12, tzinfo=there)) == datetime(2026, 3, 3, 3, tzinfo=UTC)


@pytest.mark.parametrize(
    ("changes", "day", "extended", "wanted"),
    [
        ({}, date(2026, 3, 6), False, "2026-03-06T16:00-05:00"),
        ({}, date(2026, 3, 9), False, "2026-03-09T16:00-04:00"),  # after the change of the clocks
        ({}, date(2026, 3, 9), True, "2026-03-09T20:00-04:00"),
        ({"currency": "GBP", "exchange": "LSE"}, date(2026, 3, 9), False, "2026-03-09T16:30+00:00"),
        ({"currency": "GBP"}, date(2026, 3, 30), False, "2026-03-30T16:30+01:00"),
        ({"currency": "EUR", "exchange": "IBIS"}, date(2026, 3, 9), True, "2026-03-09T17:30+01:00"),
        ({"currency": "JPY", "listing_exchange": "TSEJ"}, date(2026, 3, 9), False, "2026-03-09T15:30+09:00"),
        ({"security_type": "FUT", "exchange": "CME"}, date(2026, 3, 9), False, "2026-03-09T16:00-05:00"),
        ({"security_type": "CASH", "exchange": "IDEALPRO", "currency": "JPY"}, date(2026, 3, 9), False,
         "2026-03-09T17:00-04:00"),
        ({"security_type": "CRYPTO", "exchange": "PAXOS"}, date(2026, 3, 9), False, "2026-03-09T23:59:59-04:00"),
        ({"currency": "PLN"}, date(2026, 3, 9), False, "2026-03-09T23:59:59+00:00"),
        ({"time_zone": "US/Central", "currency": "EUR"}, date(2026, 3, 9), False, "2026-03-09T15:15-05:00"),
        ({"time_zone": "No/Where"}, date(2026, 3, 9), False, "2026-03-09T23:59:59+00:00"),
    ],
)  # fmt: skip
def test_a_date_is_the_end_of_its_session_at_the_exchange(
    changes: dict[str, Any], day: date, extended: bool, wanted: str
) -> None:
    if "security_type" in changes:
        changes = changes | {"security_type": SecurityType(changes["security_type"])}
    plain: dict[str, Any] = {"conid": 1, "symbol": "X", "security_type": SecurityType.STOCK}
    contract = Contract(**(plain | changes))
    moment = expiry(day, contract=contract, extended=extended)
    assert moment == datetime.fromisoformat(wanted)


@pytest.mark.parametrize(
    "valid",
    [NOW, NOW - timedelta(seconds=1), date(2026, 3, 1), datetime(2026, 3, 2, 14, 59), date(1999, 1, 1)],  # noqa: DTZ001
)
def test_what_is_over_already_is_refused(valid: Any) -> None:
    with pytest.raises(OrderRefusedError, match="in the past for AAPL"):
        expiry(valid)


def test_today_lasts_until_the_close() -> None:
    assert expiry(date(2026, 3, 2)) == datetime(2026, 3, 2, 21, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    "valid", [-1, -0.5, math.nan, math.inf, True, "DAY", timedelta(-1), timedelta.max, 1e9]
)
def test_no_validity(valid: Any) -> None:
    """Any of them would stand at IBKR until somebody cancels it, or overflow inside backtrader."""
    with pytest.raises(OrderRefusedError, match="is no validity"):
        is_moment(valid)


@pytest.mark.parametrize("word", [*(one.value for one in TimeInForce), *TimeInForce])
def test_every_word_is_understood(word: Any) -> None:
    assert time_in_force(None, word) is TimeInForce(word)
    assert time_in_force(None, word.lower()) is TimeInForce(word)


def test_a_moment_beside_a_word() -> None:
    for word, wanted in (("GTD", "GTC"), ("GTC", "GTC"), ("DAY", "DAY"), ("OND", "OND")):
        assert time_in_force(NOW, word) is TimeInForce(wanted)
    for word in ("IOC", "OPG", "OVT", "PAX"):
        with pytest.raises(OrderRefusedError, match="contradict"):
            time_in_force(NOW, word)


@given(
    st.datetimes(min_value=datetime(2026, 1, 1), max_value=datetime(2027, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
    st.sampled_from(["America/New_York", "Europe/Berlin", "Australia/Sydney", "Asia/Tokyo"]),
    st.booleans(),
)
def test_backtrader_is_given_the_same_moment_without_its_zone(
    moment: datetime, name: str, asked: bool
) -> None:
    """In the hour that comes twice, too."""
    zone: Any = Asked(name) if asked else ZoneInfo(name)
    data = SimpleNamespace(_tz=zone)
    plain = readable_valid(moment.astimezone(ZoneInfo("Asia/Kolkata")), data)
    assert plain.tzinfo is None
    late = SimpleNamespace(p=SimpleNamespace(valid=plain), data=data)
    assert expiry_ns(late, AAPL, 0) == int(moment.timestamp()) * NS_PER_S + moment.microsecond * 1000


def test_what_backtrader_can_take_is_left_alone() -> None:
    data = SimpleNamespace(_tz=None)
    for valid in (None, NOW, date(2026, 3, 2), timedelta(1), 5, datetime(2026, 3, 2)):  # noqa: DTZ001
        assert readable_valid(valid, data) is valid


def test_zones() -> None:
    assert exchange_zone(AAPL).key == "America/New_York"
    assert (
        session_end_ns(AAPL, date(2026, 12, 24))
        == int(datetime(2026, 12, 24, 21, tzinfo=UTC).timestamp()) * NS_PER_S
    )


def test_a_date_ends_with_a_half_day() -> None:
    """13:00 in New York the day after Thanksgiving, 17:00 in extended hours; on the holiday at the usual hour."""
    for day, extended, hour in ((27, False, 18), (27, True, 22), (26, False, 21), (30, False, 21)):
        order = SimpleNamespace(p=SimpleNamespace(valid=date(2026, 11, day)), data=SimpleNamespace(_tz=None))
        wanted = datetime(2026, 11, day, hour, tzinfo=UTC)
        assert expiry_ns(order, AAPL, 0, extended=extended) == int(wanted.timestamp()) * NS_PER_S


@pytest.mark.parametrize(
    "valid", [date(2026, 3, 9), datetime(2026, 3, 9, 12, tzinfo=UTC), NOW, timedelta(1), None, 3]
)
def test_backtrader_makes_an_order_of_any_validity_on_a_feed_with_a_zone(valid: Any) -> None:
    feed = Feed(Asked("America/New_York"))
    made = bt.BuyOrder(data=feed, size=1, valid=readable_valid(valid, feed))
    made.p.valid = valid
    assert made.p.valid is valid
    assert (expiry_ns(made, AAPL, 0) is None) == (valid is None)
