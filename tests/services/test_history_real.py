"""Real data: a day's minutes of SPY, rebuilt page by page from the emulator, equal those that were published."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

from bt_ibkr.archive import Archive, Columns, SeriesKey, verify
from bt_ibkr.model.contract import Contract, SecurityType
from bt_ibkr.services.history import HistoryRequest, HistoryService
from tests.conftest import SHARED

if TYPE_CHECKING:
    from pathlib import Path

    from tests.services.conftest import StartEmulator

MINUTE = 60_000_000_000
DATA = SHARED / "data"
SPY = Contract(conid=756733, symbol="SPY", security_type=SecurityType.STOCK, time_zone="America/New_York")
TICKS = DATA / "ticks_SPY_2013-10-07.parquet"
BARS = DATA / "bars_SPY_1min_2013-10-07_11.parquet"
needs_data = pytest.mark.skipif(not BARS.exists(), reason="the real market data are not on this machine")


def published(day: str) -> pd.DataFrame:
    frame = pd.read_parquet(BARS).set_index("ts").sort_index()
    return frame[frame.index.normalize() == pd.Timestamp(day, tz="UTC")]


def of_ticks() -> pd.DataFrame:
    """The day's bars by pandas alone. They are not those that were published, whose maker left some prints out."""
    trades = pd.read_parquet(TICKS).set_index("ts")[["last", "last_size"]].dropna()
    by_minute = trades.groupby(trades.index.floor("1min"))
    made = by_minute["last"].agg(["first", "max", "min", "last"])
    made.columns = pd.Index(["open", "high", "low", "close"])
    return made.assign(volume=by_minute["last_size"].sum())


def frame_of(columns: Columns) -> pd.DataFrame:
    index = pd.DatetimeIndex(columns.start.view("M8[ns]"), tz="UTC")
    names = ["open", "high", "low", "close", "volume"]
    return pd.DataFrame({name: getattr(columns, name) for name in names}, index=index)


@needs_data
@pytest.mark.parametrize("market", [TICKS, BARS], ids=["ticks", "bars"])
async def test_spy_rebuilt_through_paging(
    start_emulator: StartEmulator, tmp_path: Path, market: Path
) -> None:
    """Many windows, some of them half a minute off a bar's edge: bar for bar what the file has.

    Bars become four prints each, and must come back as they were.
    """
    emulator = await start_emulator(market=(f"{market}:SPY",))
    engine = emulator.server.core.engine
    while not engine.done:
        engine.advance(max_events=50_000)
    wanted = of_ticks() if market == TICKS else published("2013-10-07")
    first, last = wanted.index[0].value, wanted.index[-1].value + MINUTE
    engine.advance(until_ns=max(last, engine.now_ns) + MINUTE)
    series = Archive(tmp_path).series(SeriesKey(conid=SPY.conid, bar="1min"))
    service = HistoryService(emulator.http)
    step = 137 * MINUTE + MINUTE // 2
    for start in range(first, last, step):
        request = HistoryRequest(contract=SPY, bar_ns=MINUTE, start_ns=start, end_ns=min(start + step, last))
        async for part in service.parts(request):
            series.store(
                SPY,
                Columns.of(part.bars),
                part.start_ns,
                part.end_ns,
                now_ns=last + MINUTE,
                final_ns=last,
            )
    found = frame_of(series.read(first, last))
    assert list(found.index) == list(wanted.index)
    for name in found.columns:
        assert np.allclose(found[name], wanted[name].astype(float), rtol=1e-9, atol=0), name
    assert verify(series).problems == ()
