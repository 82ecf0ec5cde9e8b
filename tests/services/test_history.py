"""Paging: whatever the span, every bar once, in order, none missing, however the server cuts its pages."""

from __future__ import annotations

import asyncio
import calendar
import re
import time
from bisect import bisect_left
from itertools import pairwise
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from bt_ibkr.clock import NS_PER_S
from bt_ibkr.errors import HistoryError, RequestTimeoutError, ResponseError, WireError
from bt_ibkr.model.contract import Contract, SecurityType
from bt_ibkr.model.market import Bar
from bt_ibkr.services.bar_ends import ordinary_end_ns
from bt_ibkr.services.history import HistoryRequest, HistoryService, offered
from bt_ibkr.wire.history import BAR_WORDS, allowed

if TYPE_CHECKING:
    from bt_ibkr.session.http import HttpClient
    from tests.services.conftest import Seen, Server, StartEmulator

MINUTE = 60 * NS_PER_S
HOUR = 60 * MINUTE
DAY = 24 * HOUR
AAPL = Contract(conid=265598, symbol="AAPL", security_type=SecurityType.STOCK)
LINE = "GET /iserver/marketdata/history"
COIN = Contract(conid=479624278, symbol="BTC", security_type=SecurityType.CRYPTO, exchange="PAXOS")
#: A Monday, 00:00 UTC.
MONDAY = 1_772_409_600 * NS_PER_S
NOON = MONDAY + 15 * HOUR
UNITS = {"min": MINUTE, "h": HOUR, "d": DAY, "w": 7 * DAY, "m": 28 * DAY, "y": 365 * DAY}
WORDS = {word: length for length, word in BAR_WORDS.items()}


class Pages:
    """History as IBKR pages it: ``startTime`` is the window's end, 1,000 bars at most, a placeholder where
    there are none, volumes divided by a factor, and the newest bar may be one that is forming.

    Args:
        reading: What a period means: time, so many ``bars``, or ``days`` with bars.
    """

    def __init__(
        self, starts: list[int], bar_ns: int, *, cap: int = 1000, factor: int = 40, reading: str = "time"
    ) -> None:
        self.reading = reading
        self.starts = sorted(starts)
        self.bar_ns = bar_ns
        self.cap = cap
        self.factor = factor
        self.asked: list[dict[str, str]] = []

    def __call__(self, seen: Seen) -> dict[str, Any]:
        self.asked.append(seen.query)
        end_s = calendar.timegm(time.strptime(seen.query["startTime"], "%Y%m%d-%H:%M:%S"))
        end_ns = end_s * NS_PER_S
        length = period_ns(seen.query["period"])
        assert WORDS[seen.query["bar"]] == self.bar_ns
        assert allowed(length, self.bar_ns)
        assert self.bar_ns >= 10 * MINUTE or length <= DAY
        window = self.starts[: bisect_left(self.starts, end_ns)]
        if self.reading == "bars":
            window = window[-(length // self.bar_ns) :]
        elif self.reading == "days" and length >= DAY:
            days = sorted({start // DAY for start in window[-20_000:]})[-(length // DAY) :]
            window = window[bisect_left(window, days[0] * DAY) :] if days else []
        else:
            window = window[bisect_left(window, end_ns - length) :]
        assert len(window) <= 1000, "more was asked for than an answer holds"
        window = window[-self.cap :]
        rows: list[dict[str, Any]] = [
            {
                "o": 1.0,
                "h": 2.0,
                "l": 0.5,
                "c": 1.5,
                "v": self.volume(one) / self.factor,
                "t": one // 1_000_000,
            }
            for one in window
        ]
        return {
            "symbol": "AAPL",
            "priceFactor": 100,
            "volumeFactor": self.factor,
            "data": rows or [{"o": 0.0, "c": 0.0}],
            "points": max(len(rows) - 1, 0),
        }

    def volume(self, start_ns: int) -> float:
        return float(start_ns // self.bar_ns % 1000 * self.factor)

    def expected(self, start_ns: int, end_ns: int) -> list[tuple[int, int, float]]:
        return [
            (start, end, self.volume(start))
            for start in self.starts
            for end in (ordinary_end_ns(AAPL, start, self.bar_ns, extended=True),)
            if end > start_ns and end <= end_ns
        ]


def period_ns(word: str) -> int:
    number = re.match("[0-9]+", word)
    assert number is not None
    return int(number[0]) * UNITS[word[number.end() :]]


def request(bar_ns: int, start_ns: int, end_ns: int, **changes: Any) -> HistoryRequest:
    plain: dict[str, Any] = {"contract": AAPL, "bar_ns": bar_ns, "start_ns": start_ns, "end_ns": end_ns}
    return HistoryRequest(**(plain | changes))


def shape(bars: list[Bar]) -> list[tuple[int, int, float]]:
    return [(bar.start_ns, bar.end_ns, bar.volume) for bar in bars]


def sessions(days: int, bar_ns: int) -> list[int]:
    """Starts of bars in regular sessions (14:30 to 21:00 UTC), Mondays to Fridays."""
    found: list[int] = []
    for day in range(days):
        if day % 7 < 5:
            opening = MONDAY + day * DAY + 14 * HOUR + 30 * MINUTE
            found.extend(range(opening, opening + 390 * MINUTE, bar_ns))
    return found


@pytest.mark.parametrize("bar_ns", [MINUTE, 5 * MINUTE, 15 * MINUTE, HOUR, DAY])
@pytest.mark.parametrize("cap", [1000, 50, 7])
async def test_pages_meet_exactly(server: Server, bar_ns: int, cap: int) -> None:
    days = 8 if bar_ns < HOUR else 30
    pages = Pages(sessions(days, min(bar_ns, 390 * MINUTE)), bar_ns, cap=cap)
    server.answers[LINE] = pages
    wanted = request(bar_ns, MONDAY, MONDAY + days * DAY)
    bars = await HistoryService(server.http).bars(wanted)
    assert shape(bars) == pages.expected(wanted.start_ns, wanted.end_ns)
    assert len(bars) > 10


spans = st.tuples(
    st.integers(0, 3 * 24 * 60), st.integers(1, 3 * 24 * 60), st.integers(0, 59), st.integers(2, 1000)
)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], database=None
)
@given(
    spans=st.lists(spans, min_size=1, max_size=4),
    gaps=st.sets(st.integers(0, 6 * 24 * 60), max_size=200),
    bar_ns=st.sampled_from([MINUTE, 5 * MINUTE, 30 * MINUTE]),
    reading=st.sampled_from(["time", "bars", "days"]),
)
@example(spans=[(0, 1440, 0, 480), (0, 1440, 59, 2)], gaps=set(), bar_ns=MINUTE, reading="time")
def test_any_span_of_a_market_that_never_closes(
    spans: list[tuple[int, int, int, int]], gaps: set[int], bar_ns: int, reading: str
) -> None:
    """Any two adjacent pages meet: no bar is lost, doubled or moved, also where bars are missing."""
    step = bar_ns // MINUTE
    starts = [MONDAY + minute * MINUTE for minute in range(0, 6 * 1440, step) if minute not in gaps]

    async def run() -> None:
        for first, length, second, cap in spans:
            pages = Pages(starts, bar_ns, cap=cap, reading=reading)
            begin = MONDAY + first * MINUTE + second * NS_PER_S
            wanted = request(bar_ns, begin, begin + length * MINUTE, contract=COIN)
            bars = await HistoryService(Direct(pages)).bars(wanted)  # type: ignore[arg-type]
            assert shape(bars) == pages.expected(wanted.start_ns, wanted.end_ns)

    asyncio.run(run())


class Direct:
    """Answers without a socket, for the many requests of the property test."""

    def __init__(self, pages: Pages) -> None:
        self._pages = pages

    async def get(self, path: str, params: dict[str, str]) -> Any:
        return self._pages(SimpleNamespace(query=params))  # type: ignore[arg-type]


@pytest.mark.parametrize("most", [1, 5, 390, 391, 1500])
async def test_most_takes_the_newest(server: Server, most: int) -> None:
    pages = Pages(sessions(8, MINUTE), MINUTE)
    server.answers[LINE] = pages
    # The end cuts a bar in two: the newest whole bar is the one before.
    end_ns = MONDAY + 4 * DAY + 20 * HOUR + 30 * NS_PER_S
    bars = await HistoryService(server.http).bars(request(MINUTE, MONDAY, end_ns, most=most))
    assert shape(bars) == pages.expected(MONDAY, end_ns)[-most:]
    assert bars[-1].end_ns == end_ns - 30 * NS_PER_S
    assert len(pages.asked) <= 3 + most // 390 * 2


async def test_most_is_not_short_by_the_bar_that_is_cut(server: Server) -> None:
    """A page of exactly so many bars, the newest of which still forms at the end."""
    pages = Pages(sessions(2, MINUTE), MINUTE, cap=5)
    server.answers[LINE] = pages
    end_ns = MONDAY + 20 * HOUR + 30 * NS_PER_S
    bars = await HistoryService(server.http).bars(request(MINUTE, MONDAY, end_ns, most=5))
    assert shape(bars) == pages.expected(MONDAY, end_ns)[-5:]


async def test_an_empty_span_is_bounded(server: Server) -> None:
    """No history at all, ten years asked for: a few pages, not thousands."""
    pages = Pages([], MINUTE)
    server.answers[LINE] = pages
    assert await HistoryService(server.http).bars(request(MINUTE, MONDAY - 3650 * DAY, MONDAY)) == []
    assert len(pages.asked) <= 20


async def test_a_long_weekend_is_no_end(server: Server) -> None:
    """Four closed days lie between two sessions."""
    first = [MONDAY + minute * MINUTE for minute in range(30)]
    later = [MONDAY + 5 * DAY + minute * MINUTE for minute in range(30)]
    pages = Pages(first + later, MINUTE)
    server.answers[LINE] = pages
    wanted = request(MINUTE, MONDAY - HOUR, MONDAY + 6 * DAY, contract=COIN)
    bars = await HistoryService(server.http).bars(wanted)
    assert len(bars) == 60


async def test_nothing_is_asked_for_an_empty_request(server: Server) -> None:
    assert await HistoryService(server.http).bars(request(MINUTE, MONDAY, MONDAY)) == []
    assert server.seen == []


async def test_what_is_asked(server: Server) -> None:
    pages = Pages([NOON], MINUTE)
    server.answers[LINE] = pages
    contract = Contract(conid=7, symbol="X", security_type=SecurityType.STOCK, exchange="NASDAQ")
    end_ns = NOON + HOUR + 1
    await HistoryService(server.http).bars(
        request(MINUTE, NOON, end_ns, contract=contract, source="midpoint", outside_regular_hours=False)
    )
    asked = pages.asked[0]
    assert asked["conid"] == "7"
    assert asked["exchange"] == "NASDAQ"
    assert asked["source"] == "midpoint"
    assert asked["outsideRth"] == "false"
    # Rounded up to the next second, so that the last second is inside.
    assert asked["startTime"] == "20260302-16:00:01"
    pages.asked.clear()
    await HistoryService(server.http).bars(request(MINUTE, NOON, NOON + HOUR))
    assert "exchange" not in pages.asked[0]
    assert pages.asked[0]["startTime"] == "20260302-16:00:00"


# --- errors ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [404, 500, 503])
async def test_warming_up_is_tried_twice_more(server: Server, naps: list[float], status: int) -> None:
    pages = Pages([NOON], MINUTE)
    answers = [web.json_response({"error": "Chart data unavailable"}, status=status) for _ in range(2)]
    server.answers[LINE] = lambda seen: answers.pop() if answers else pages(seen)
    bars = await HistoryService(server.http).bars(request(MINUTE, NOON, NOON + HOUR))
    assert len(bars) == 1
    assert len(naps) == 2


async def test_a_third_failure_is_final(server: Server, naps: list[float]) -> None:
    server.answers[LINE] = lambda _: web.json_response({"error": "Chart data unavailable"}, status=500)
    with pytest.raises(HistoryError) as caught:
        await HistoryService(server.http).bars(request(MINUTE, NOON, NOON + HOUR))
    assert len(server.seen) == 3
    assert "AAPL-STK-SMART-USD" in caught.value.message
    assert "Chart data unavailable" in caught.value.message
    assert isinstance(caught.value.__cause__, ResponseError)


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (500, "No market data permissions for NASDAQ STK"),
        (500, "no market data PERMISSION"),
        (500, "No historical data: no permission for NASDAQ STK"),
        (400, "Bad Request: Invalid period"),
        (401, "not authenticated"),
        (200, "History queue is full"),
    ],
)
async def test_what_does_not_pass_is_not_tried_again(
    server: Server, naps: list[float], status: int, text: str
) -> None:
    """Repeating a permission error ends in HTTP 429."""
    server.answers[LINE] = lambda _: web.json_response({"error": text}, status=status)
    with pytest.raises(HistoryError):
        await HistoryService(server.http).bars(request(MINUTE, NOON, NOON + HOUR))
    assert len(server.seen) == 1


async def test_an_answer_that_is_no_history(server: Server) -> None:
    server.answers[LINE] = {"data": "none"}
    with pytest.raises(WireError):
        await HistoryService(server.http).bars(request(MINUTE, NOON, NOON + HOUR))


async def test_a_cut_connection(server: Server) -> None:
    def cut(_: object) -> object:
        raise asyncio.CancelledError

    server.answers[LINE] = cut
    with pytest.raises(RequestTimeoutError):
        await HistoryService(server.http).bars(request(MINUTE, NOON, NOON + HOUR))


@pytest.mark.parametrize("bar_ns", [NS_PER_S, 4 * MINUTE, 20 * MINUTE, 2 * DAY])
async def test_lengths_ibkr_does_not_have(server: Server, bar_ns: int) -> None:
    assert not offered(bar_ns)
    with pytest.raises(HistoryError) as caught:
        await HistoryService(server.http).bars(request(bar_ns, MONDAY, MONDAY + DAY))
    assert "30 minutes" in caught.value.remedy
    assert server.seen == []


OLD = [NOON - 30 * DAY + minute * MINUTE for minute in range(50)]


@pytest.mark.parametrize("most", [0, 10])
async def test_bars_of_long_before_are_no_answer(server: Server, most: int) -> None:
    """A share that trades every day, and bars of a month ago in answer to a question about today."""
    server.answers[LINE] = Pages(OLD, MINUTE, reading="bars")
    with pytest.raises(HistoryError, match="29 days before"):
        await HistoryService(server.http).bars(request(MINUTE, NOON - 5 * MINUTE, NOON, most=most))


async def test_what_seldom_trades_may_have_old_bars(server: Server) -> None:
    """An option that did not trade for a month has no bars of today: that is the answer, once it was made sure."""
    pages = Pages(OLD, MINUTE, reading="bars")
    option = Contract(
        conid=9,
        symbol="X",
        security_type=SecurityType.OPTION,
        last_trade_date="20261218",
        strike=5.0,
        right="C",
    )
    wanted = request(MINUTE, NOON - 5 * MINUTE, NOON, contract=option)
    server.answers[LINE] = pages
    assert await HistoryService(server.http).bars(wanted) == []
    assert len(pages.asked) == 2
    # A server that is a month behind whatever it is asked.
    behind = Pages([start - 30 * DAY for start in OLD] + OLD, MINUTE, reading="bars")

    def late(seen: Seen) -> Any:
        asked = calendar.timegm(time.strptime(seen.query["startTime"], "%Y%m%d-%H:%M:%S")) - 30 * 86_400
        stamp = time.strftime("%Y%m%d-%H:%M:%S", time.gmtime(asked))
        return behind(seen._replace(query=seen.query | {"startTime": stamp}))

    server.answers[LINE] = late
    with pytest.raises(HistoryError, match="days before"):
        await HistoryService(server.http).bars(wanted)


# --- the emulator ---------------------------------------------------------------------------------------


async def fetch(http: HttpClient, bar_ns: int, begin: int, end: int) -> list[Bar]:
    return await HistoryService(http).bars(request(bar_ns, begin, end))


async def test_the_emulators_history_is_whole(start_emulator: StartEmulator) -> None:
    """Any cut of a long span gives the same bars as the whole, and every bar length is offered."""
    emulator = await start_emulator(history_days=3)
    now_ns = emulator.server.core.now_ns
    whole = await fetch(emulator.http, MINUTE, now_ns - 7 * DAY, now_ns)
    assert len(whole) >= 3 * 390
    assert all(a.end_ns <= b.start_ns for a, b in pairwise(whole))
    for cut in (now_ns - 2 * DAY, now_ns - DAY - 7 * MINUTE, whole[400].end_ns, whole[400].start_ns + 1):
        older = await fetch(emulator.http, MINUTE, now_ns - 7 * DAY, cut)
        newer = await fetch(emulator.http, MINUTE, cut // MINUTE * MINUTE, now_ns)
        assert older + newer == whole
    for bar_ns in BAR_WORDS:
        assert await fetch(emulator.http, bar_ns, now_ns - 7 * DAY, now_ns) or bar_ns > DAY


async def test_the_emulator_has_no_such_instrument(start_emulator: StartEmulator, naps: list[float]) -> None:
    emulator = await start_emulator()
    unknown = Contract(conid=1, symbol="NONE", security_type=SecurityType.STOCK)
    with pytest.raises(HistoryError, match="Chart data unavailable"):
        await HistoryService(emulator.http).bars(request(MINUTE, NOON, NOON + HOUR, contract=unknown))
