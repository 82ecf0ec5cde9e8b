"""A process that takes in ticks through ten feeds and says how much memory it holds: a line of JSON at the end.

::

    python tests/soak/eater.py URL FRAMES FEEDS EXACTBARS
"""

from __future__ import annotations

import gc
import hashlib
import os
import sys
from pathlib import Path
from typing import Any

import backtrader as bt
import msgspec

from bt_ibkr.config import SessionSettings
from bt_ibkr.store import IBKRStore

#: Of the scenario of the benchmarks' server: its frames are spread over ten minutes.
_SECONDS = 600


class Eaten(msgspec.Struct):
    """What came of it.

    Attributes:
        resident: Bytes held, at even distances.
        bars, volume: Delivered, over all feeds.
        indicators: Digest of every value of every indicator, bar by bar.
    """

    resident: list[int]
    bars: int
    volume: float
    indicators: str


def resident() -> int:
    """Bytes of memory that this process holds."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


class Eater(bt.Strategy):  # type: ignore[misc]
    """Indicators on each feed; looks at the memory every so many bars."""

    params = (("bars", 0),)

    def __init__(self) -> None:
        self.means = [bt.indicators.SMA(data, period=20) for data in self.datas]
        self.trends = [bt.indicators.EMA(data.high, period=10) for data in self.datas]
        #: By feed: which of two feeds brings the bar of a second first is left to the network.
        self.digests = [hashlib.sha256() for _ in self.datas]
        self.resident: list[int] = []
        self.bars = 0
        self.volume = 0.0
        self._seen = [0] * len(self.datas)

    def prenext(self) -> None:
        self.next()

    def next(self) -> None:
        for number, data in enumerate(self.datas):
            if len(data) == self._seen[number]:
                continue
            self._seen[number] = len(data)
            self.bars += 1
            self.volume += data.volume[0]
            values = (len(data), data.close[0], self.means[number][0], self.trends[number][0])
            self.digests[number].update(repr(tuple(map(float, values))).encode())
        if self._seen[0] % 20 == 0 and self._seen[0] // 20 > len(self.resident):
            gc.collect()
            self.resident.append(resident())
        if all(seen >= self.p.bars for seen in self._seen):
            self.env.runstop()


def main(url: str, frames: str, feeds: str, exactbars: str) -> None:
    """See the module."""
    assert int(frames) >= int(feeds) * _SECONDS, "every second of every feed needs a tick"
    cerebro = bt.Cerebro(stdstats=False, quicknotify=True, exactbars=int(exactbars))
    settings = SessionSettings(base_url=url, paced=False, tick_backlog=0)
    with IBKRStore(settings=settings) as store:
        for index in range(int(feeds)):
            given: dict[str, Any] = {"timeframe": bt.TimeFrame.Seconds, "backfill_start": False}
            cerebro.adddata(store.getdata(dataname=f"B{index}-STK-SMART-USD", **given))
        cerebro.addstrategy(Eater, bars=_SECONDS)
        (eater,) = cerebro.run()
    digests = "".join(digest.hexdigest() for digest in eater.digests)
    eaten = Eaten(eater.resident, eater.bars, eater.volume, digests)
    sys.stdout.buffer.write(msgspec.json.encode(eaten) + b"\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
