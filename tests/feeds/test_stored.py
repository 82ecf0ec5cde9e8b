"""Stored history in backtrader: the bars of the archive, by whatever way cerebro takes them in."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import backtrader as bt
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bt_ibkr.archive import Archive, Columns, SeriesKey
from bt_ibkr.archive.day_numbers import day_numbers
from bt_ibkr.errors import ArchiveError, BtIbkrError, UsageError
from bt_ibkr.feeds import StoredData
from bt_ibkr.feeds.times import day_number
from bt_ibkr.model.contract import Contract, SecurityType
from bt_ibkr.model.market import Bar

MINUTE = 60_000_000_000
DAY = 1440 * MINUTE
#: Monday 2026-03-02, 14:30 UTC.
OPEN = 1_772_461_800_000_000_000
AAPL = Contract(conid=265598, symbol="AAPL", security_type=SecurityType.STOCK)
Row = tuple[datetime, float, float, float, float, float]


def session(day: int) -> list[Bar]:
    start = OPEN + day * DAY
    return [
        Bar(start + k * MINUTE, start + (k + 1) * MINUTE, 100.0 + k, 101.0 + k, 99.0, 100.5 + k, 7.0 * k)
        for k in range(390)
    ]


def naive(*parts: int) -> datetime:
    """A moment as backtrader takes it: UTC, without saying so."""
    return datetime(*parts, tzinfo=UTC).replace(tzinfo=None)  # type: ignore[misc,arg-type]


def keep(folder: Path, days: list[int], key: SeriesKey | None = None, contract: Contract = AAPL) -> None:
    series = Archive(folder).series(key or SeriesKey(conid=265598, bar="1min"))
    for day in days:
        columns = Columns.of(session(day))
        start = OPEN + day * DAY
        series.store(contract, columns, start, start + DAY, now_ns=start + 9 * DAY, final_ns=start + 9 * DAY)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    keep(tmp_path, [0, 1, 2])
    return tmp_path


class Taker(bt.Strategy):  # type: ignore[misc]
    def __init__(self) -> None:
        self.rows: list[list[Row]] = [[] for _ in self.datas]
        self.average = bt.indicators.SMA(self.data.close, period=5)
        self.averages: list[float] = []

    def next(self) -> None:
        self.averages.append(self.average[0])
        self._take()

    def prenext(self) -> None:
        self._take()

    def _take(self) -> None:
        for data, rows in zip(self.datas, self.rows, strict=True):
            moment = bt.num2date(data.datetime[0])
            if not rows or rows[-1][0] < moment:
                rows.append((moment, data.open[0], data.high[0], data.low[0], data.close[0], data.volume[0]))


def run(*datas: Any, **settings: Any) -> Taker:
    cerebro = bt.Cerebro(stdstats=False, **settings)
    for data in datas:
        cerebro.adddata(data)
    cerebro.addstrategy(Taker)
    strategy: Taker = cerebro.run()[0]
    return strategy


def rows_of(bars: list[Bar]) -> list[Row]:
    return [
        (
            datetime.fromtimestamp(bar.end_ns // 1_000_000_000, tz=UTC).replace(tzinfo=None),
            bar.open, bar.high, bar.low, bar.close, bar.volume,
        )
        for bar in bars
    ]  # fmt: skip


WHOLE = [bar for day in range(3) for bar in session(day)]


@pytest.mark.parametrize(
    "settings",
    [{}, {"runonce": False}, {"preload": False}, {"exactbars": 1}, {"exactbars": -1}, {"exactbars": -2}],
)
def test_every_way_gives_the_same(folder: Path, settings: dict[str, Any]) -> None:
    found = run(StoredData(dataname="AAPL", archive=folder), **settings)
    assert found.rows[0] == rows_of(WHOLE)
    assert found.averages == pytest.approx(
        [sum(bar.close for bar in WHOLE[k : k + 5]) / 5 for k in range(len(WHOLE) - 4)]
    )
    assert found.data.contract == AAPL
    assert (found.data._timeframe, found.data._compression) == (bt.TimeFrame.Minutes, 1)


@pytest.mark.parametrize("preload", [True, False])
def test_bounds(folder: Path, preload: bool) -> None:
    begin = naive(2026, 3, 3, 14, 40)
    end = naive(2026, 3, 4, 15, 0)
    data = StoredData(dataname="AAPL", archive=folder, fromdate=begin, todate=end)
    wanted = [row for row in rows_of(WHOLE) if begin <= row[0] <= end]
    assert run(data, preload=preload).rows[0] == wanted


@pytest.mark.parametrize("settings", [{}, {"exactbars": 1}, {"exactbars": -1}])
def test_two_feeds_and_a_resampled_twin(folder: Path, settings: dict[str, Any]) -> None:
    ibm = Contract(conid=8314, symbol="IBM", security_type=SecurityType.STOCK)
    keep(folder, [1], SeriesKey(conid=8314, bar="1min"), ibm)
    cerebro = bt.Cerebro(stdstats=False, **settings)
    cerebro.adddata(StoredData(dataname="AAPL", archive=folder))
    cerebro.adddata(StoredData(dataname="conid:8314", archive=folder))
    twin = StoredData(dataname="AAPL", archive=folder)
    cerebro.resampledata(twin, timeframe=bt.TimeFrame.Minutes, compression=30)
    cerebro.addstrategy(Taker)
    rows = cerebro.run()[0].rows
    assert [len(one) for one in rows] == [3 * 390, 390, 3 * 13]
    assert rows[1] == rows_of(session(1))
    assert rows[2][0][1:5] == (100.0, 130.0, 99.0, 129.5)


def test_days(tmp_path: Path) -> None:
    key = SeriesKey(conid=265598, bar="1d", regular_hours=True)
    bars = [Bar(OPEN + k * DAY, OPEN + k * DAY + 390 * MINUTE, 1.0, 2.0, 0.5, 1.5, 9.0) for k in range(10)]
    Archive(tmp_path).series(key).store(
        AAPL, Columns.of(bars), OPEN, OPEN + 10 * DAY, now_ns=OPEN + 99 * DAY, final_ns=OPEN + 99 * DAY
    )
    found = run(StoredData(dataname="AAPL", archive=tmp_path, bar="1d", rth=True))
    assert found.rows[0] == rows_of(bars)
    assert found.data._timeframe == bt.TimeFrame.Days


@given(st.lists(st.integers(0, 4_000_000_000_000_000), min_size=1, max_size=200))
def test_day_numbers_are_backtraders_to_the_last_bit(micros: list[int]) -> None:
    times = np.array([one * 1000 for one in micros], dtype=np.int64)
    assert day_numbers(times).tolist() == [day_number(int(one)) for one in times]


@given(st.integers(0, 50_000), st.integers(0, 1439))
def test_day_numbers_of_minutes(day: int, minute: int) -> None:
    moment = naive(1970, 1, 1) + timedelta(days=day, minutes=minute)
    time_ns = (day * 1440 + minute) * MINUTE
    assert day_numbers(np.array([time_ns]))[0] == bt.date2num(moment)


def test_holes_are_an_error(tmp_path: Path) -> None:
    keep(tmp_path, [0, 2])
    with pytest.raises(ArchiveError, match="nothing was fetched"):
        run(StoredData(dataname="AAPL", archive=tmp_path))
    assert len(run(StoredData(dataname="AAPL", archive=tmp_path, holes=True)).rows[0]) == 780
    begin = naive(2026, 3, 4, 14, 30)
    assert len(run(StoredData(dataname="AAPL", archive=tmp_path, fromdate=begin)).rows[0]) == 390


@pytest.mark.parametrize(
    ("parameters", "kind", "text"),
    [
        ({"dataname": "MSFT"}, ArchiveError, "MSFT"),
        ({"dataname": "AAPL", "bar": "1h"}, ArchiveError, "No such bars"),
        ({"dataname": "AAPL", "bar": "7min"}, UsageError, "7min"),
        ({}, UsageError, "dataname"),
        ({"dataname": "AAPL", "folder": "x"}, UsageError, "folder"),
    ],
)
def test_errors(folder: Path, parameters: dict[str, Any], kind: type[BtIbkrError], text: str) -> None:
    with pytest.raises(kind, match=text):
        run(StoredData(archive=folder, **parameters))


def test_a_span_outside_of_what_is_stored(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    def data(**bounds: Any) -> StoredData:
        return StoredData(dataname="AAPL", archive=folder, **bounds)

    stored = r"stored from 2026-03-02 14:30 to 2026-03-05 14:30"
    with pytest.raises(UsageError, match=f"AAPL: no bars are stored between.*{stored}"):
        run(data(fromdate=naive(2027, 1, 1)))
    with pytest.raises(UsageError, match=stored):
        run(data(todate=naive(2025, 1, 1)))
    for bounds in ({"fromdate": naive(2026, 2, 1)}, {"todate": naive(2026, 4, 1)}):
        caplog.clear()
        assert run(data(**bounds)).rows[0]
        (told,) = [one.getMessage() for one in caplog.records if "stored-span-short" in one.getMessage()]
        assert "dataname=AAPL stored=bars are " + stored in told
    caplog.clear()
    run(data(fromdate=naive(2026, 3, 2), todate=naive(2026, 3, 4)))
    assert not caplog.records
    with pytest.raises(UsageError, match="AAPL: fromdate='2026' is no date"):
        data(fromdate="2026")
