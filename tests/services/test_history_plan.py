"""Plans: windows that meet exactly, each small enough for one answer, nothing asked where nobody trades."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bt_ibkr.clock import NS_PER_S
from bt_ibkr.errors import HistoryError
from bt_ibkr.model.contract import Contract, SecurityType
from bt_ibkr.services.bar_ends import ordinary_end_ns
from bt_ibkr.services.history_plan import (
    DAY_NS,
    HOUR_NS,
    MINUTE_NS,
    MONTH_NS,
    WEEK_NS,
    Planner,
    Window,
    least_s,
)
from bt_ibkr.session.pacing import IBKR_LIMITS
from bt_ibkr.wire.history import BAR_WORDS, MAX_POINTS, PERIOD_WORDS, allowed

STOCK = Contract(conid=1, symbol="AAPL", security_type=SecurityType.STOCK)
LONDON = Contract(
    conid=2, symbol="VOD", security_type=SecurityType.STOCK, listing_exchange="LSE", currency="GBP"
)
FUTURE = Contract(conid=3, symbol="ES", security_type=SecurityType.FUTURE, exchange="CME")
FOREX = Contract(conid=4, symbol="EUR.USD", security_type=SecurityType.FOREX, exchange="IDEALPRO")
COIN = Contract(conid=5, symbol="BTC", security_type=SecurityType.CRYPTO, exchange="PAXOS")
KINDS = (STOCK, LONDON, FUTURE, FOREX, COIN)
LENGTHS = {word: length for length, word in PERIOD_WORDS.items()}


def ns(*parts: int, zone: str = "UTC") -> int:
    return int(datetime(*parts, tzinfo=ZoneInfo(zone)).timestamp()) * NS_PER_S  # type: ignore[misc,arg-type]


def planned(contract: Contract, bar_ns: int, start: int, end: int, *, extended: bool) -> tuple[Window, ...]:
    return Planner(contract, bar_ns, outside_regular_hours=extended).windows(start, end)


@settings(max_examples=300, deadline=None, database=None)
@given(
    contract=st.sampled_from(KINDS),
    bar_ns=st.sampled_from(sorted(BAR_WORDS)),
    start_s=st.integers(1_000_000_000, 1_900_000_000),
    length_s=st.one_of(st.integers(1, 200_000), st.integers(1, 40_000_000)),
    extended=st.booleans(),
)
def test_windows_meet_and_fit(
    contract: Contract, bar_ns: int, start_s: int, length_s: int, extended: bool
) -> None:
    """Together they are the whole span, one after the other, and none asks for more than an answer holds."""
    start, end = start_s * NS_PER_S, (start_s + length_s) * NS_PER_S
    windows = planned(contract, bar_ns, start, end, extended=extended)
    assert windows[0].end_ns == end
    assert all(newer.start_ns == older.end_ns for newer, older in pairwise(windows))
    # The first bar of the span starts inside.
    first = start // bar_ns * bar_ns if bar_ns < DAY_NS else start - bar_ns
    assert windows[-1].start_ns <= first
    by_day = contract in (STOCK, LONDON)
    for window in windows:
        assert window.start_ns < window.end_ns
        if not window.period:
            zone = ZoneInfo("America/New_York") if contract is not LONDON else ZoneInfo("Europe/London")
            moments = range(window.start_ns, window.end_ns, HOUR_NS)
            assert all(_weekend(contract, moment, zone) for moment in moments)
            continue
        length = LENGTHS[window.period]
        assert allowed(length, bar_ns)
        assert bar_ns >= 10 * MINUTE_NS or length <= DAY_NS
        a_day = (16 if extended else 9) * HOUR_NS if by_day else DAY_NS
        trading = length // DAY_NS * a_day + min(length % DAY_NS, a_day) if bar_ns < DAY_NS else length
        share = 5 / 7 if by_day and bar_ns >= DAY_NS else 1
        assert trading * share / bar_ns <= MAX_POINTS


def _weekend(contract: Contract, moment: int, zone: ZoneInfo) -> bool:
    there = datetime.fromtimestamp(moment // NS_PER_S, tz=zone)
    if contract in (STOCK, LONDON):
        return there.weekday() >= 5
    hours = there.weekday() * 24 + there.hour
    return contract is not COIN and 4 * 24 + 17 <= hours < 6 * 24 + 17


def test_a_year_of_minutes_is_a_request_a_day() -> None:
    windows = planned(STOCK, MINUTE_NS, ns(2025, 3, 3, 5), ns(2026, 3, 2, 5), extended=True)
    asked = [window for window in windows if window.period]
    assert len(asked) == 52 * 5
    assert {window.period for window in asked} == {"1d"}
    # Midnights of New York, through both changes of its clocks.
    assert {datetime.fromtimestamp(w.end_ns // NS_PER_S, tz=UTC).hour for w in asked} == {4, 5}


def test_a_week_of_currencies() -> None:
    """Three times eight hours a day; from Friday's close to Sunday's opening nothing is asked."""
    windows = planned(FOREX, MINUTE_NS, ns(2026, 3, 2), ns(2026, 3, 9), extended=True)
    assert [bool(window.period) for window in windows] == [True, False] + [True] * 15
    assert {window.period for window in windows if window.period} == {"8h"}


def test_the_shortest_period_that_is_enough() -> None:
    end = ns(2026, 3, 2, 16, 0)
    (window,) = planned(STOCK, MINUTE_NS, end - 5 * MINUTE_NS, end, extended=True)
    assert window.period == "6min"
    (window,) = planned(COIN, 30 * MINUTE_NS, end - 90 * MINUTE_NS, end, extended=True)
    assert window.period == "2h"


@pytest.mark.parametrize(
    ("bar_ns", "contract", "period"),
    [
        (MINUTE_NS, STOCK, "1d"),
        (MINUTE_NS, COIN, "8h"),
        (5 * MINUTE_NS, COIN, "1d"),
        (10 * MINUTE_NS, COIN, "6d"),
        (10 * MINUTE_NS, STOCK, "1w"),
        (HOUR_NS, COIN, "4w"),
        (8 * HOUR_NS, STOCK, "1y"),
        (DAY_NS, STOCK, "3y"),
        (DAY_NS, COIN, "2y"),
        (WEEK_NS, STOCK, "15y"),
        (MONTH_NS, STOCK, "15y"),
    ],
)
def test_the_longest_period(bar_ns: int, contract: Contract, period: str) -> None:
    windows = planned(contract, bar_ns, ns(1990, 1, 1), ns(2026, 3, 3), extended=True)
    assert max((w.period for w in windows if w.period), key=LENGTHS.__getitem__) == period


def test_no_such_bars() -> None:
    with pytest.raises(HistoryError, match="7 s") as caught:
        Planner(STOCK, 7 * NS_PER_S, outside_regular_hours=True)
    assert "1 month" in caught.value.remedy


def test_an_empty_span() -> None:
    assert planned(STOCK, MINUTE_NS, 5, 5, extended=True) == ()


def test_how_long_it_takes_at_least() -> None:
    history = [limit for limit in IBKR_LIMITS if "history" in limit.path]
    assert {(limit.count, limit.per_s) for limit in history} == {(50, 60.0), (10, 1.0)}
    assert least_s(0, history) == least_s(1, history) == 0.0
    assert least_s(11, history) == 1.0
    assert least_s(260, history) == 300.0


# --- right edges ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("contract", "start", "bar_ns", "extended", "end"),
    [
        (STOCK, ns(2026, 3, 2, 14, 30), DAY_NS, False, ns(2026, 3, 2, 21)),
        (STOCK, ns(2026, 3, 2, 14, 30), DAY_NS, True, ns(2026, 3, 3, 1)),
        # Summer time began on 8 March.
        (STOCK, ns(2026, 3, 9, 13, 30), DAY_NS, False, ns(2026, 3, 9, 20)),
        (STOCK, ns(2026, 3, 2, 14, 30), WEEK_NS, False, ns(2026, 3, 6, 21)),
        (STOCK, ns(2026, 5, 1, 13, 30), MONTH_NS, False, ns(2026, 5, 29, 20)),
        (LONDON, ns(2026, 3, 2, 8), DAY_NS, False, ns(2026, 3, 2, 16, 30)),
        # 17:15 in New York on Sunday belongs to Monday.
        (FOREX, ns(2026, 3, 1, 22, 15), DAY_NS, True, ns(2026, 3, 2, 22)),
        (FOREX, ns(2026, 3, 1, 22, 15), WEEK_NS, True, ns(2026, 3, 6, 22)),
        (STOCK, ns(2026, 3, 2, 14, 30), HOUR_NS, False, ns(2026, 3, 2, 15, 30)),
    ],
)
def test_right_edges(contract: Contract, start: int, bar_ns: int, extended: bool, end: int) -> None:
    assert ordinary_end_ns(contract, start, bar_ns, extended=extended) == end
