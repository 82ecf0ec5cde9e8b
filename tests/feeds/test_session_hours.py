"""Feeds in the exchange's time have the hours of their instrument, and what is resampled closes with its sessions."""

from __future__ import annotations

from datetime import UTC, datetime, time
from typing import TYPE_CHECKING, Any

import backtrader as bt
import pytest

from bt_ibkr.clock import NS_PER_S
from bt_ibkr.feeds.session_hours import end_of_session, ordinary_hours
from bt_ibkr.model.contract import Contract, SecurityType
from bt_ibkr.services.calendars import calendar_of

if TYPE_CHECKING:
    from tests.conftest import Bench, Tape

CLOSE, DAY = 6.5 * 3600, 86_400
END = time(23, 59, 59, 999_990)


def contract(kind: SecurityType = SecurityType.STOCK, exchange: str = "SMART", **more: Any) -> Contract:
    given: dict[str, Any] = {"conid": 1, "symbol": "X", "security_type": kind, "exchange": exchange}
    return Contract(**(given | {"currency": "USD"} | more))


IBM = contract(listing_exchange="NYSE")
ES = contract(SecurityType.FUTURE, "CME")


@pytest.mark.parametrize(
    ("whose", "extended", "hours"),
    [
        (IBM, False, (time(9, 30), time(16))),
        (IBM, True, (time(4), time(20))),
        (ES, True, (time(17), time(16))),
        (contract(SecurityType.FOREX, "IDEALPRO"), True, (time(17), time(17))),
        (contract(SecurityType.CRYPTO, "PAXOS"), True, (time(0), END)),
    ],
)
def test_ordinary_hours(whose: Contract, extended: bool, hours: tuple[time, time]) -> None:
    """From a Wednesday before a holiday and a half day on."""
    now_ns = int(datetime(2026, 11, 25, 22, tzinfo=UTC).timestamp()) * NS_PER_S
    assert ordinary_hours(calendar_of(whose), now_ns, extended=extended) == hours


@pytest.mark.parametrize(
    ("moment", "extended", "end"),
    [
        ("2026-03-02T15:00", False, "2026-03-02T21:00"),
        ("2026-03-02T21:00", False, "2026-03-02T21:00"),  # a bar that ends with the session is of it
        ("2026-03-02T21:01", False, "2026-03-03T21:00"),
        ("2026-03-03T00:30", True, "2026-03-03T01:00"),  # by UTC the next day
        ("2026-11-27T15:00", False, "2026-11-27T18:00"),  # half day
        ("2026-11-27T18:01", False, "2026-11-30T21:00"),
        ("2026-03-06T22:00", False, "2026-03-09T20:00"),  # summer time begins
    ],
)
def test_end_of_session(moment: str, extended: bool, end: str) -> None:
    number = bt.date2num(datetime.fromisoformat(moment))
    found = end_of_session(calendar_of(IBM), number, extended=extended)
    wanted = datetime.fromisoformat(end)
    assert found == (wanted, bt.date2num(wanted))


class Days(bt.Strategy):  # type: ignore[misc]
    """Writes down the resampled days."""

    def __init__(self) -> None:
        self.days: list[tuple[Any, ...]] = []
        self.hours = (self.data.p.sessionstart, self.data.p.sessionend)
        self._seen = 0

    def next(self) -> None:
        if len(self.data1) > self._seen:
            self._seen = len(self.data1)
            day = self.data1
            self.days.append((day.datetime.datetime(0), day.open[0], day.high[0], day.low[0], day.volume[0]))


def resampled(bench: Bench, tape: type[Tape], **feed: Any) -> Days:
    prices = tape().quote(0, 99.0, 101.0)
    for day, base in ((0, 100.0), (1, 110.0), (2, 120.0)):
        for second, price in ((10, 1.0), (9000, 3.0), (18_000, -2.0), (CLOSE - 1, 0.5)):
            prices.trade(day * DAY + second, base + price, 40)
        # 21:10 UTC, and 00:30 UTC of the next day, when New York still has the day before.
        prices.trade(day * DAY + CLOSE + 600, base + 9.0, 80)
        prices.trade(day * DAY + 36_000, base - 9.0, 80)
    line = bench.line(market=bench.market(AAPL=prices))
    line.lockstep()
    cerebro = bt.Cerebro(quicknotify=True, stdstats=False)
    data = line.store.getdata(
        dataname="AAPL", timeframe=bt.TimeFrame.Minutes, compression=30, backfill_start=False, **feed
    )
    cerebro.adddata(data)
    cerebro.resampledata(data, timeframe=bt.TimeFrame.Days)
    cerebro.addstrategy(Days)
    with line.store:
        (strategy,) = cerebro.run()
    assert isinstance(strategy, Days)
    return strategy


def test_resampled_days_close_with_the_session(bench: Bench, tape: type[Tape]) -> None:
    """The last trades of a day come after midnight by UTC: they are that day's."""
    made = resampled(bench, tape, tz="exchange")
    assert made.hours == (time(4), time(20))
    assert made.days[:2] == [
        (datetime(2026, 3, 2, 20), 101.0, 109.0, 91.0, 320.0),  # noqa: DTZ001 - backtrader's
        (datetime(2026, 3, 3, 20), 111.0, 119.0, 101.0, 320.0),  # noqa: DTZ001
    ]


def test_hours_that_are_given_stay(bench: Bench, tape: type[Tape]) -> None:
    made = resampled(bench, tape, tz="exchange", useRTH=True, sessionend=time(16))
    assert made.hours == (time(0), time(16))
    assert made.days[:2] == [
        (datetime(2026, 3, 2, 16), 101.0, 103.0, 98.0, 160.0),  # noqa: DTZ001
        (datetime(2026, 3, 3, 16), 111.0, 113.0, 108.0, 160.0),  # noqa: DTZ001
    ]


def test_feeds_in_utc_have_no_hours_of_their_own(bench: Bench, tape: type[Tape]) -> None:
    assert resampled(bench, tape).hours == (time(0), END)


class Everything(bt.Strategy):  # type: ignore[misc]
    """Writes down every bar of every data once."""

    def __init__(self) -> None:
        self.rows: dict[str, list[tuple[Any, ...]]] = {data._name: [] for data in self.datas}

    def prenext(self) -> None:
        self.next()

    def next(self) -> None:
        for data in self.datas:
            rows = self.rows[data._name]
            if len(data) > len(rows):
                values = (data.open, data.high, data.low, data.close, data.volume)
                rows.append((bt.num2date(data.datetime[0]), *(line[0] for line in values)))


@pytest.mark.parametrize("zone", ["exchange", None])
@pytest.mark.parametrize("beside", [True, False], ids=["beside", "in place"])
@pytest.mark.parametrize("day", ["2026-03-05", "2025-11-26"], ids=["summer time begins", "a half day"])
def test_days_resampled_over_days(bench: Bench, day: str, beside: bool, zone: str | None) -> None:
    """Sparse bars, so that the clock looks at the open one before there is a second."""
    line = bench.line(
        synthetic_day=day,
        synthetic_days=3,
        synthetic_instruments=("AAPL",),
        synthetic_rate=0.004,
        heartbeat_s=600.0,
    )
    line.lockstep()
    regular: dict[str, Any] = {"dataname": "AAPL", "useRTH": True, "backfill_start": False}
    cerebro = bt.Cerebro(quicknotify=True, stdstats=False)
    data = line.store.getdata(timeframe=bt.TimeFrame.Minutes, tz=zone, **regular)
    if beside:
        cerebro.adddata(data, name="minutes")
    cerebro.resampledata(data, timeframe=bt.TimeFrame.Days, name="resampled")
    cerebro.adddata(line.store.getdata(timeframe=bt.TimeFrame.Days, **regular), name="days")
    cerebro.addstrategy(Everything)
    with line.store:
        rows = cerebro.run()[0].rows
    assert len(rows["days"]) == 3
    assert [row[1:] for row in rows["resampled"]] == [row[1:] for row in rows["days"]]
    if zone is not None:
        # With backtrader's own end of day, a moment before midnight, the stamp is that.
        assert [row[0] for row in rows["resampled"]] == [row[0] for row in rows["days"]]
