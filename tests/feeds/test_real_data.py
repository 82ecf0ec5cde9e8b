"""Bars of a real day: built live from its ticks, they are those of the file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import backtrader as bt
import pandas as pd

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Bench


def test_minutes_of_a_day_of_ibm(bench: Bench, market_data: Path, scripted: type[Any]) -> None:
    ticks = pd.read_parquet(market_data / "ticks_IBM_2013-10-07.parquet")
    trades = ticks[ticks["last"].notna() & (ticks["last_size"] > 0)]
    edges = trades["ts"].dt.floor("60s") + pd.Timedelta(seconds=60)
    grouped = trades.groupby(edges)
    wanted = grouped["last"].agg(["first", "max", "min", "last"])
    wanted.columns = pd.Index(["open", "high", "low", "close"])
    wanted["volume"] = grouped["last_size"].sum()
    wanted.index = wanted.index.tz_localize(None)
    market = (f"{market_data / 'ticks_IBM_2013-10-07.parquet'}:IBM",)
    line = bench.line(market=market, speed="max", heartbeat_s=600.0)
    line.start()
    cerebro = bt.Cerebro(quicknotify=True, stdstats=False)
    # Without an account, whose profit would be told every second of the day.
    data = line.store.getdata(dataname="IBM", timeframe=bt.TimeFrame.Minutes, backfill_start=False)
    cerebro.adddata(data, name="IBM")
    cerebro.addstrategy(scripted)
    with line.store:
        (strategy,) = cerebro.run()
    frame = strategy.frame("IBM")
    # The bar in which the stream begins is not whole.
    wanted = wanted.loc[frame.index[0] :]
    assert len(frame) > 400
    pd.testing.assert_frame_equal(
        frame, wanted, check_names=False, check_freq=False, check_index_type=False, check_dtype=False
    )
