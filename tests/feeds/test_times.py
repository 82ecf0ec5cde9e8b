"""Moments exactly as backtrader counts them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import backtrader as bt
from hypothesis import given
from hypothesis import strategies as st

from bt_ibkr.feeds.times import day_number, day_number_fast, epoch_ns, ns_of

moments = st.datetimes(min_value=datetime(1970, 1, 1), max_value=datetime(2199, 12, 31))  # noqa: DTZ001


def nanoseconds(moment: datetime) -> int:
    return (moment.replace(tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * 1000


@given(moments)
def test_number_is_exactly_backtraders(moment: datetime) -> None:
    assert day_number(nanoseconds(moment)) == bt.date2num(moment)


@given(moments)
def test_fast_number_is_the_same_within_ten_microseconds(moment: datetime) -> None:
    assert abs(day_number_fast(nanoseconds(moment)) - bt.date2num(moment)) * 86_400e6 <= 20


@given(st.integers(0, 7_000_000_000))
def test_whole_seconds_come_back_exactly(second: int) -> None:
    """Bars stand at whole seconds: their edges survive backtrader's numbers."""
    moment = datetime.fromtimestamp(second, tz=UTC)
    assert bt.num2date(day_number(second * 1_000_000_000)) == moment.replace(tzinfo=None)
    assert abs(epoch_ns(day_number(second * 1_000_000_000)) - second * 1_000_000_000) <= 20_000


@given(st.lists(st.integers(0, 10**15), min_size=2, unique=True))
def test_order_is_kept(microseconds: list[int]) -> None:
    ordered = [day_number_fast(m * 1000) for m in sorted(microseconds)]
    assert ordered == sorted(ordered)


@given(moments, st.integers(-12, 14))
def test_nanoseconds_of_a_datetime(moment: datetime, offset: int) -> None:
    wanted = nanoseconds(moment)
    assert ns_of(moment) == ns_of(moment.replace(tzinfo=UTC)) == wanted
    zone = timezone(timedelta(hours=offset))
    assert ns_of(moment.replace(tzinfo=UTC).astimezone(zone)) == wanted
