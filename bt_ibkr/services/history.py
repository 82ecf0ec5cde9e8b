"""Historical bars: any span, page by page backwards, within IBKR's limits."""

from __future__ import annotations

import asyncio
import logging

import msgspec

from bt_ibkr.clock import NS_PER_S
from bt_ibkr.errors import HistoryError, ResponseError
from bt_ibkr.model.contract import Contract
from bt_ibkr.model.market import Bar
from bt_ibkr.session.http import HttpClient
from bt_ibkr.wire import history as wire
from bt_ibkr.wire.values import history_time_text

_log = logging.getLogger(__name__)

_MINUTE = 60 * NS_PER_S
_HOUR = 60 * _MINUTE
_DAY = 24 * _HOUR

#: The longest window asked for at once, by bar: below the cap of 1,000 points even in a market that never
#: closes, and allowed together by IBKR's period table.
_PERIODS: tuple[tuple[int, str, int], ...] = (
    (_MINUTE, "8h", 8 * _HOUR),
    (2 * _MINUTE, "1d", _DAY),
    (10 * _MINUTE, "1d", _DAY),
    (_HOUR, "1w", 7 * _DAY),
    (8 * _HOUR, "1m", 30 * _DAY),
    (7 * _DAY, "1y", 365 * _DAY),
)
#: Pages without a bar after which an instrument is taken to have no older history (long week-ends and
#: holidays are shorter, whatever the period).
_EMPTY_PAGES = {"8h": 18, "1d": 7, "1w": 3, "1m": 2, "1y": 2}
_TRIES = 3
_WARM_UP_S = 0.5


class HistoryRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Which bars are wanted: those that end after ``start_ns`` and at or before ``end_ns``.

    Attributes:
        bar_ns: Length of a bar; one of IBKR's (1 minute to 1 week).
        source: ``trades``, ``midpoint``, ``bid``, ``ask`` or ``bid_ask``.
        most: At most so many bars, the newest; 0 for all.
        outside_regular_hours: Include extended hours.
    """

    contract: Contract
    bar_ns: int
    start_ns: int
    end_ns: int
    source: str = "trades"
    outside_regular_hours: bool = True
    most: int = 0


def offered(bar_ns: int) -> bool:
    """Whether IBKR has bars of this length."""
    return bar_ns in wire.BAR_WORDS


class HistoryService:
    """Pages of history over one session.

    Args:
        http: The session's REST client.
    """

    def __init__(self, http: HttpClient) -> None:
        self._http = http

    async def bars(self, request: HistoryRequest) -> list[Bar]:
        """All bars of the request, oldest first, each once.

        Raises:
            HistoryError: IBKR has no such bars, or answers with an error that does not pass.
        """
        if not offered(request.bar_ns):
            raise HistoryError(
                f"IBKR has no historical bars of {request.bar_ns / NS_PER_S:g} s.",
                remedy="Lengths: 1, 2, 3, 5, 10, 15, 30 minutes; 1, 2, 3, 4, 8 hours; 1 day; 1 week.",
            )
        period, period_ns = next((w, ns) for bar, w, ns in _PERIODS if request.bar_ns <= bar)
        found: dict[int, Bar] = {}
        end_ns = request.end_ns
        empty = 0
        enough = request.most or float("inf")
        while end_ns > request.start_ns and empty < _EMPTY_PAGES[period] and len(found) <= enough:
            page = await self._page(request, period, end_ns)
            fresh = [b for b in page if b.start_ns not in found and b.start_ns < end_ns]
            found.update((b.start_ns, b) for b in fresh)
            if fresh:
                empty = 0
                end_ns = min(min(b.start_ns for b in fresh), end_ns - 1)
            else:
                empty += 1
                end_ns -= period_ns
        bars = [b for b in found.values() if b.end_ns > request.start_ns and b.end_ns <= request.end_ns]
        bars.sort(key=lambda b: b.start_ns)
        return bars[-request.most :] if request.most else bars

    async def _page(self, request: HistoryRequest, period: str, end_ns: int) -> tuple[Bar, ...]:
        contract = request.contract
        # The window's end is given in whole seconds; rounded up, so that the last second is inside.
        end_s = -(-end_ns // NS_PER_S)
        params = {
            "conid": str(contract.conid),
            "period": period,
            "bar": wire.BAR_WORDS[request.bar_ns],
            "startTime": history_time_text(end_s * NS_PER_S),
            "outsideRth": "true" if request.outside_regular_hours else "false",
            "source": request.source,
        }
        if contract.exchange and contract.exchange not in ("SMART", "IDEALPRO"):
            params["exchange"] = contract.exchange
        for attempt in range(_TRIES):
            try:
                body = await self._http.get("/iserver/marketdata/history", params)
                return wire.history(body, request.bar_ns).bars
            except ResponseError as problem:
                # The first call for an instrument can fail while the server fetches; permission does not come.
                passing = problem.status in (404, 500, 503) and "permission" not in problem.body.lower()
                if not passing or attempt == _TRIES - 1:
                    raise HistoryError(
                        f"No history for {contract.describe()} (conid {contract.conid}): {problem.body}"
                    ) from problem
                _log.info("history-warm-up conid=%d attempt=%d", contract.conid, attempt + 1)
                await asyncio.sleep(_WARM_UP_S)
        raise AssertionError("unreachable")  # pragma: no cover
