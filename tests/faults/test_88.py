"""Fault 88: history fails at the first call, has no data, and takes five requests at a time. What the feed makes of
it is in ``test_88_feed.py``."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from bt_ibkr.errors import HistoryError
from bt_ibkr.model.contract import Contract, SecurityType
from bt_ibkr.services.history import HistoryRequest, HistoryService

if TYPE_CHECKING:
    from tests.faults.conftest import Bed, MakeBed

MINUTE = 60_000_000_000
DAY = 1440 * MINUTE
PATH = "/iserver/marketdata/history"
AAPL = Contract(conid=265598, symbol="AAPL", security_type=SecurityType.STOCK, time_zone="America/New_York")


def _request(made: Bed, days: int, contract: Contract = AAPL) -> HistoryRequest:
    now_ns = made.emulator.call(lambda server: server.core.now_ns)
    return HistoryRequest(contract=contract, bar_ns=MINUTE, start_ns=now_ns - days * DAY, end_ns=now_ns)


def _service(made: Bed) -> HistoryService:
    return HistoryService(made.session.http)


@pytest.mark.parametrize("status", [404, 500])
def test_88_warm_up_is_retried(bed: MakeBed, status: int) -> None:
    made = bed({"history_days": 3})
    made.fault("history", action="warm_up", status=status, count=2)
    request = _request(made, 3)
    assert made.on_loop(lambda: _service(made).bars(request))


def test_88_retried_so_often_and_no_more(bed: MakeBed) -> None:
    made = bed({"history_days": 3})
    number = made.fault("history", action="warm_up")
    request = _request(made, 1)
    with pytest.raises(HistoryError, match="Chart data unavailable"):
        made.on_loop(lambda: _service(made).bars(request))
    assert made.hits(number) == 3


def test_88_permission_is_asked_for_once(bed: MakeBed) -> None:
    """Asked again and again it would end in the penalty box."""
    made = bed({"history_days": 30})
    number = made.fault("history", action="permission", conid=265598)
    request = _request(made, 30)
    with pytest.raises(HistoryError, match="No market data permissions for NASDAQ STK"):
        made.on_loop(lambda: _service(made).bars(request))
    assert made.hits(number) == 1
    other = Contract(conid=8314, symbol="IBM", security_type=SecurityType.STOCK)
    request = _request(made, 2, other)
    made.on_loop(lambda: _service(made).bars(request))
    assert made.hits(number) == 1


def test_88_no_data(bed: MakeBed) -> None:
    """A placeholder without a time is no bar, and no endless search for older ones begins."""
    made = bed({"history_days": 3})
    number = made.fault("history", action="empty")
    request = _request(made, 3650)
    assert made.on_loop(lambda: _service(made).bars(request)) == []
    assert made.hits(number) <= 20


def test_88_five_at_a_time(bed: MakeBed) -> None:
    """Forty days, from two users of the session at once: five requests at a time, within the limits of a minute."""
    made = bed({"history_days": 40, "pacing": "strict", "pacing_speed": 60.0}, paced=True, pacing_speed=60.0)
    made.fault("history", action="slow", delay_s=0.03)
    # Holidays are among them.
    request = _request(made, 63)

    async def both() -> list[int]:
        found = await asyncio.gather(_service(made).bars(request), _service(made).bars(request))
        return [len(bars) for bars in found]

    counts = made.on_loop(both)
    assert counts == [40 * 390, 40 * 390]
    pacing = made.emulator.call(lambda server: (server.core.pacing.history_peak, server.core.pacing.refused))
    assert pacing == (5, 0)
    windows = made.control.get("/requests?since=0&limit=1")["windows"]
    (history,) = [row for row in windows if row["path"] == PATH]
    assert history["most"] <= 50


def test_88_answers_that_are_cut(bed: MakeBed) -> None:
    """A server that tells less than it says: what is missing is asked for again."""
    made = bed({"history_days": 3})
    request = _request(made, 7)
    whole = made.on_loop(lambda: _service(made).bars(request))
    made.fault("history", action="cut", most=150)
    assert made.on_loop(lambda: _service(made).bars(request)) == whole
    assert len(whole) == 3 * 390
