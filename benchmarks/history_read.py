"""Stored history in a backtest: an archive's columns beside ``PandasData`` over the same bars.

::

    python benchmarks/history_read.py [--bars N] [--rounds N] [--json]

The strategy does nothing, with runonce and preload as cerebro has them: what is left is the feed and cerebro
itself. The frame for ``PandasData`` is made before the clock runs; the archive is read from the disk inside it,
checksums and all.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence

import backtrader as bt
import msgspec
import numpy as np

from bt_ibkr.archive import Archive, Columns, SeriesKey, read_frame
from bt_ibkr.feeds import StoredData
from bt_ibkr.model.contract import Contract, SecurityType

#: Wanted: at most so much of PandasData's time.
WANTED = 1.7
_MINUTE_NS = 60_000_000_000
_DAY_NS = 1440 * _MINUTE_NS
#: Monday 2025-01-06, 14:30 UTC.
_OPEN_NS = 1_736_173_800_000_000_000
_SESSION = 390
AAPL = Contract(conid=265598, symbol="AAPL", security_type=SecurityType.STOCK)


class Idle(bt.Strategy):  # type: ignore[misc]
    """Counts bars and adds up closes, so that a run can be checked."""

    def __init__(self) -> None:
        self.count = 0
        self.total = 0.0

    def next(self) -> None:
        self.count += 1
        self.total += self.data.close[0]


def bars(count: int) -> Columns:
    """So many minutes of weekdays' sessions: a random walk."""
    random = np.random.default_rng(1)
    place = np.arange(count)
    sessions = place // _SESSION
    days = sessions // 5 * 7 + sessions % 5
    start = _OPEN_NS + days * _DAY_NS + place % _SESSION * _MINUTE_NS
    close = np.round(100 * np.exp(np.cumsum(random.standard_normal(count) * 0.0005)), 2)
    opened = np.concatenate([close[:1], close[:-1]])
    high, low = np.maximum(opened, close) + 0.01, np.minimum(opened, close) - 0.01
    return Columns(
        start.astype(np.int64),
        (start + _MINUTE_NS).astype(np.int64),
        opened,
        high,
        low,
        close,
        random.integers(1, 500, count) * 100.0,
    )


def run(data: bt.DataBase, expected: Columns) -> float:
    """Microseconds a bar of a whole run."""
    began = time.perf_counter()
    cerebro = bt.Cerebro(stdstats=False)
    cerebro.adddata(data)
    cerebro.addstrategy(Idle)
    strategy = cerebro.run()[0]
    took = time.perf_counter() - began
    if strategy.count != expected.size or abs(strategy.total - expected.close.sum()) > 1e-3:
        msg = f"{strategy.count} of {expected.size} bars, sum {strategy.total} for {expected.close.sum()}."
        raise SystemExit(msg)
    return took / expected.size * 1e6


def measure(count: int, rounds: int) -> dict[str, float]:
    """Medians of microseconds a bar, and of the rounds' ratios."""
    made = bars(count)
    ours: list[float] = []
    pandas: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        series = Archive(folder).series(SeriesKey(conid=265598, bar="1min"))
        begin, end = int(made.start[0]), int(made.end[-1])
        series.store(AAPL, made, begin, end, now_ns=end + _DAY_NS, final_ns=end + _DAY_NS)
        frame = read_frame(series)
        frame.index = frame.index.tz_localize(None)
        frame["openinterest"] = 0.0
        frame = frame.drop(columns="start")
        for turn in range(rounds + 1):
            print(f"round {turn} of {rounds}", file=sys.stderr, flush=True)
            pair = (
                run(StoredData(dataname="AAPL", archive=folder), made),
                run(bt.feeds.PandasData(dataname=frame, timeframe=bt.TimeFrame.Minutes, compression=1), made),
            )
            if turn:  # the first is a warm-up
                ours.append(pair[0])
                pandas.append(pair[1])
    ratios = [slow / quick for slow, quick in zip(pandas, ours, strict=True)]
    return {
        "stored_us_per_bar": statistics.median(ours),
        "pandas_us_per_bar": statistics.median(pandas),
        "times_as_fast": statistics.median(ratios),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; exit code 1 if what is wanted was not met."""
    parser = argparse.ArgumentParser(description="A backtest over stored history, beside PandasData.")
    parser.add_argument("--bars", type=int, default=98_280, help="a year of 1-minute bars by default")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    found = measure(options.bars, options.rounds)
    met = found["times_as_fast"] >= WANTED
    if options.json:
        print(msgspec.json.encode(found | {"wanted": WANTED, "met": met}).decode())
    else:
        print(f"{options.bars:,} bars, median of {options.rounds} rounds")
        print(f"  PandasData  {found['pandas_us_per_bar']:.1f} µs a bar")
        print(f"  StoredData  {found['stored_us_per_bar']:.1f} µs a bar, reading the files included")
        word = "met" if met else "NOT met"
        print(f"  wanted: at least {WANTED} times as fast: {found['times_as_fast']:.2f}, {word}")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
