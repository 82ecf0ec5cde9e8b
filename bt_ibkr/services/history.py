"""Historical bars: any span, window by window, within IBKR's limits."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from datetime import date
from typing import Final

import msgspec

from bt_ibkr.clock import NS_PER_S
from bt_ibkr.errors import HistoryError, ResponseError
from bt_ibkr.model.contract import Contract, SecurityType
from bt_ibkr.model.market import Bar
from bt_ibkr.services.bar_ends import BarEnds, ordinary_end_ns
from bt_ibkr.services.history_plan import DAY_NS, MONTH_NS, Planner, Window, check_offered, offered
from bt_ibkr.session.http import HttpClient
from bt_ibkr.wire import history as wire
from bt_ibkr.wire.values import history_time_text

__all__ = ["HistoryPart", "HistoryRequest", "HistoryService", "offered"]

_log = logging.getLogger(__name__)

#: History requests that IBKR answers at the same time.
CONCURRENT: Final = 5
#: What may not trade for weeks.
_SELDOM: Final = frozenset(
    {
        SecurityType.OPTION,
        SecurityType.FUTURE_OPTION,
        SecurityType.WARRANT,
        SecurityType.BOND,
        SecurityType.FUND,
    }
)
#: Windows that are read one by one until one has shown how the server cuts its answers.
_ALONE: Final = 3
#: An instrument without bars for so long is taken to have no older ones: longer than any holidays, and than any
#: two windows.
_GIVE_UP_NS: Final = 12 * DAY_NS
#: The newest bar of the newest window may be so old: long week-ends and holidays are shorter.
_STALE_NS: Final = 10 * DAY_NS
_TRIES: Final = 3
_WARM_UP_S: Final = 0.5
#: What passes: the first call for an instrument can fail while the server fetches.
_PASSING: Final = (404, 500, 503)
#: Never asked again, whatever the status: repeating them ends in HTTP 429.
_NOT_ALLOWED: Final = ("permission", "subscri", "entitle", "not allowed")
#: Says that there is nothing, in the words of the history farms.
_NOTHING: Final = ("no data", "no historical data")


class HistoryRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Which bars are wanted: those that end after ``start_ns`` and at or before ``end_ns``.

    Attributes:
        bar_ns: Length of a bar; one of IBKR's (1 minute to 1 week, 30 days for a month).
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


class HistoryPart(msgspec.Struct, frozen=True, kw_only=True):
    """All bars that start in ``[start_ns, end_ns)``, of one window.

    Attributes:
        bars: Oldest first; the last one may still be forming if the window reaches to the present.
        known: False for the time before the instrument's first bar, which was not asked for.
        asked: Requests that it took; 0 where the instrument certainly did not trade.
        delayed: The server's data are late, so that the newest bars are missing.
    """

    start_ns: int
    end_ns: int
    bars: tuple[Bar, ...]
    known: bool = True
    asked: int = 0
    delayed: bool = False


class HistoryService:
    """Pages of history over one session.

    Args:
        http: The session's REST client; its gate keeps IBKR's limits.
        ends: Tells when bars of a day or longer end.
    """

    def __init__(self, http: HttpClient, ends: BarEnds = ordinary_end_ns) -> None:
        self._http = http
        self._ends = ends

    async def bars(self, request: HistoryRequest) -> list[Bar]:
        """All bars of the request, oldest first, each once.

        Raises:
            HistoryError: IBKR has no such bars, answers with an error that does not pass, or with bars of
                another time than was asked for.
        """
        found: list[Bar] = []
        # The newest first, one after the other, where a few are enough.
        pace = 1 if request.most else CONCURRENT
        async with aclosing(self.parts(request, concurrent=pace)) as parts:
            async for part in parts:
                found += [b for b in part.bars if b.end_ns > request.start_ns and b.end_ns <= request.end_ns]
                if request.most and len(found) >= request.most:
                    break
        found.sort(key=lambda bar: bar.start_ns)
        return found[-request.most :] if request.most else found

    async def parts(
        self, request: HistoryRequest, *, concurrent: int = CONCURRENT, give_up_ns: int = _GIVE_UP_NS
    ) -> AsyncGenerator[HistoryPart]:
        """The windows of the request as they arrive, each whole, together all of it, in no certain order.

        Args:
            concurrent: Windows asked for at a time.
            give_up_ns: After so long without a bar the older ones are not asked for (``HistoryPart.known``).

        Raises:
            HistoryError: As ``bars``; parts that came before are good.
        """
        check_offered(request.bar_ns)
        planner = Planner(
            request.contract, request.bar_ns, outside_regular_hours=request.outside_regular_hours
        )
        windows = planner.windows(request.start_ns, request.end_ns)
        reader = _Reader(self._http, request, self._ends)
        quiet = _Quiet(windows, max(give_up_ns, 2 * max((w.end_ns - w.start_ns for w in windows), default=0)))
        running: dict[asyncio.Task[HistoryPart], int] = {}
        queue = list(enumerate(windows))[::-1]
        newest = next((index for index, window in enumerate(windows) if window.period), None)
        alone = _ALONE
        try:
            while queue or running:
                # One window alone at first: what it shows of the server, the others need not find out.
                width = concurrent if reader.knows or alone <= 0 else 1
                while queue and not quiet.over and len(running) < width:
                    index, window = queue.pop()
                    work = reader.read(window, newest=index == newest)
                    running[asyncio.create_task(work, name=f"history-window-{index}")] = index
                if not running:
                    break
                done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for task in sorted(done, key=running.__getitem__):
                    part = task.result()
                    alone -= bool(part.asked)
                    quiet.take(running.pop(task), part)
                    yield part
        finally:
            for task in running:
                task.cancel()
            for task in running:
                with suppress(asyncio.CancelledError, Exception):
                    await task
        for _, window in queue[::-1]:
            yield HistoryPart(start_ns=window.start_ns, end_ns=window.end_ns, bars=(), known=False)


class _Quiet:
    """Notices that the instrument has no older bars.

    Args:
        windows: Of the request, the newest first.
        long_ns: So long a time without a bar is taken for the end.
    """

    def __init__(self, windows: tuple[Window, ...], long_ns: int) -> None:
        self._windows = windows
        self._long_ns = long_ns
        self._parts: dict[int, HistoryPart] = {}
        self._next = 0
        self._quiet_ns = 0

    @property
    def over(self) -> bool:
        return self._quiet_ns >= self._long_ns

    def take(self, index: int, part: HistoryPart) -> None:
        self._parts[index] = part
        while (known := self._parts.pop(self._next, None)) is not None:
            window = self._windows[self._next]
            self._quiet_ns = 0 if known.bars else self._quiet_ns + window.end_ns - window.start_ns
            self._next += 1


class _Reader:
    """Reads the windows of one request, and learns how the server cuts its answers.

    An answer with fewer bars than one that was proved whole is taken for whole; one with more is proved by asking for
    the time before its first bar. What is cut is asked for again from there.
    """

    def __init__(self, http: HttpClient, request: HistoryRequest, ends: BarEnds) -> None:
        self._http = http
        self._request = request
        self._ends = ends
        self._proved = 0
        self._cap = wire.MAX_POINTS

    @property
    def knows(self) -> bool:
        """Whether it has seen how the server cuts its answers."""
        return bool(self._proved) or self._cap < wire.MAX_POINTS

    async def read(self, window: Window, *, newest: bool) -> HistoryPart:
        """All bars that start in the window."""
        if not window.period:
            return HistoryPart(start_ns=window.start_ns, end_ns=window.end_ns, bars=())
        found: dict[int, Bar] = {}
        cursor, before, asked, delayed = window.end_ns, 0, 0, False
        while cursor > window.start_ns:
            page = await self._page(window.period, cursor)
            asked += 1
            delayed = delayed or page.delayed
            self._check_side(page, cursor)
            if newest and not found:
                await self._check_age(page, cursor, window.period)
            fresh = [bar for bar in page.bars if bar.start_ns < cursor]
            inside = [bar for bar in fresh if bar.start_ns >= window.start_ns]
            if before:
                # The page before this one had so many bars: was that all of its window?
                if inside:
                    self._cap = min(self._cap, before)
                else:
                    self._proved = max(self._proved, before)
            found.update((bar.start_ns, bar) for bar in inside)
            if fresh and fresh[0].start_ns < window.start_ns:
                break
            if not inside:
                before = 0
                cursor -= window.reach_ns
                continue
            if self._trusted(len(fresh)) and cursor - window.reach_ns <= window.start_ns:
                break
            before = len(fresh)
            cursor = min(fresh[0].start_ns, cursor - 1)
        return HistoryPart(
            start_ns=window.start_ns,
            end_ns=window.end_ns,
            bars=tuple(self._ended(found[start]) for start in sorted(found)),
            asked=asked,
            delayed=delayed,
        )

    def _trusted(self, count: int) -> bool:
        """Whether an answer with so many bars is whole, as far as is known."""
        return count < self._cap and count <= self._proved

    def _ended(self, bar: Bar) -> Bar:
        request = self._request
        if request.bar_ns < DAY_NS:
            return bar
        end_ns = self._ends(
            request.contract, bar.start_ns, request.bar_ns, extended=request.outside_regular_hours
        )
        return msgspec.structs.replace(bar, end_ns=end_ns)

    def _told(self, end_ns: int) -> str:
        return f"History of {self._request.contract.describe()} until {history_time_text(end_ns)} UTC"

    def _check_side(self, page: wire.HistoryPage, end_ns: int) -> None:
        """``startTime`` is the window's end: an answer that lies after it was made for another question."""
        if page.bars and (first := page.bars[0]).start_ns >= end_ns + self._request.bar_ns:
            raise HistoryError(
                f"{self._told(end_ns)} was answered with bars from {history_time_text(first.start_ns)} on: the "
                "server takes startTime for the window's beginning.",
                remedy="Nothing of it was used. Look for a newer version of this package, and tell its authors.",
            )

    async def _check_age(self, page: wire.HistoryPage, end_ns: int, period: str) -> None:
        """Bars of long before, without an error, are no answer to a question about now."""
        request = self._request
        late = 2 * request.bar_ns if request.bar_ns < MONTH_NS else 40 * DAY_NS
        until_ns = min(end_ns, _expiry_ns(request.contract))
        if not page.bars or until_ns - (last := page.bars[-1]).end_ns <= _STALE_NS + late:
            return
        if request.contract.security_type in _SELDOM:
            # It may not have traded since. Asked for the time of its last bar, an honest server tells that bar.
            again = await self._page(period, last.end_ns)
            if again.bars and again.bars[-1].start_ns == last.start_ns:
                return
        raise HistoryError(
            f"{self._told(end_ns)} ends with a bar of {history_time_text(last.start_ns)}, "
            f"{(end_ns - last.end_ns) // DAY_NS} days before.",
            remedy="Nothing of it was used. If it was not traded since, ask for a span that ends then.",
        )

    async def _page(self, period: str, end_ns: int) -> wire.HistoryPage:
        request = self._request
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
                return wire.history(body, request.bar_ns)
            except ResponseError as problem:
                words = problem.body.lower()
                # Looked at first: what may not be seen must not be stored as a time without bars.
                allowed = not any(word in words for word in _NOT_ALLOWED)
                if allowed and any(word in words for word in _NOTHING):
                    return wire.history({"data": []}, request.bar_ns)
                passing = allowed and problem.status in _PASSING
                if not passing or attempt == _TRIES - 1:
                    raise HistoryError(
                        f"No history for {contract.describe()} (conid {contract.conid}), {period} until "
                        f"{params['startTime']} UTC: {problem.body}"
                    ) from problem
                _log.info("history-warm-up conid=%d attempt=%d", contract.conid, attempt + 1)
                await asyncio.sleep(_WARM_UP_S * 2**attempt)
        raise AssertionError("unreachable")  # pragma: no cover


def _expiry_ns(contract: Contract) -> int:
    """The end of the day on which a derivative ceased to trade; far in the future of what does not expire."""
    text = contract.last_trade_date or ""
    if len(text) != 8 or not text.isdigit():
        return 1 << 62
    return (date.fromisoformat(text) - date(1970, 1, 1)).days * DAY_NS + DAY_NS
