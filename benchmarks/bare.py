"""The least that can bring ticks into backtrader: a deque, a feed that pops it, one wait in a store."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Sequence
from queue import Empty, SimpleQueue
from typing import Any

import backtrader as bt
import msgspec
import payload
from scenario import BARS, Outcome, Scenario

_DAY_MS = 86_400_000
_EPOCH_ORDINAL = 719_163


class Quote(
    msgspec.Struct,
    gc=False,
    rename={
        "updated_ms": "_updated",
        "last": "31",
        "bid": "84",
        "ask": "86",
        "size": "7059",
        "volume": "7762",
    },
):
    """The fields of a frame that a tick feed cannot do without."""

    topic: str
    conid: int = 0
    updated_ms: int = 0
    last: float = 0.0
    bid: float = 0.0
    ask: float = 0.0
    size: float = 0.0
    volume: float = 0.0


class BareStore:
    """One wait for each cycle of cerebro, ended by whoever appends to a feed's deque.

    With several feeds it also finds the earliest tick, and only that is delivered: left to itself, cerebro polls
    all feeds and rewinds those that were too early, at half the speed with ten feeds.

    Args:
        feeds: The feeds' deques.
    """

    def __init__(self, feeds: Sequence[deque[Quote]]) -> None:
        self._feeds = feeds
        self._single = feeds[0] if len(feeds) == 1 else None
        self.cutoff_ms = 0
        self._poke: SimpleQueue[None] = SimpleQueue()
        self._poked = False

    def wake(self) -> None:
        """Called by the producer after an append."""
        if not self._poked:
            self._poked = True
            self._poke.put(None)

    def start(self) -> None:
        """Part of backtrader's store interface."""

    def stop(self) -> None:
        """Part of backtrader's store interface."""

    def get_notifications(self) -> Iterable[Any]:
        """Wait if no feed has anything."""
        if not self._find():
            try:
                self._poke.get(timeout=0.25)
                self._poked = False
            except Empty:
                pass
            self._find()
        return ()

    def _find(self) -> bool:
        if self._single is not None:
            return bool(self._single)
        heads = [ticks[0].updated_ms for ticks in self._feeds if ticks]
        self.cutoff_ms = min(heads, default=0)
        return bool(heads)


class BareFeed(bt.DataBase):  # type: ignore[misc]
    """Pops its deque and writes the lines."""

    params = (("ticks", None), ("store", None), ("qcheck", 0.0))

    def islive(self) -> bool:
        """True: no preloading, cerebro's live loop."""
        return True

    def _load(self) -> bool | None:
        ticks = self.p.ticks
        if not ticks:
            return None
        store = self.p.store
        if store is not None and ticks[0].updated_ms != store.cutoff_ms:
            return None
        quote = ticks.popleft()
        lines = self.lines
        lines.datetime[0] = _EPOCH_ORDINAL + quote.updated_ms / _DAY_MS
        lines.open[0] = lines.high[0] = lines.low[0] = lines.close[0] = quote.last
        lines.volume[0] = quote.size
        lines.openinterest[0] = 0.0
        return True


class Counter(bt.Strategy):  # type: ignore[misc]
    """Notes when what was sent has arrived, and ends the run."""

    params = (("scenario", None),)

    def __init__(self) -> None:
        self.scenario: Scenario = self.p.scenario
        self.arrivals: list[int] = []
        self.count = 0
        self.ended_ns = 0
        self.checksum = 0.0
        self._wanted = self.scenario.frames
        kind = self.scenario.kind
        self._note = {"latency": self._note_time, "ticks": self._note_tick, "bars": self._note_bar}[kind]

    def next(self) -> None:
        """Part of backtrader's strategy interface."""
        self._note()

    def prenext(self) -> None:
        """The first ticks, before every feed has one."""
        self._note()

    def _note_time(self) -> None:
        self.arrivals.append(time.monotonic_ns())
        self.checksum += self.data.volume[0]
        if len(self.arrivals) == self._wanted:
            self._finish()

    def _note_tick(self) -> None:
        self.count += 1
        if self.count >= self._wanted and sum(map(len, self.datas)) >= self._wanted:
            self._finish()

    def _note_bar(self) -> None:
        if all(len(data) >= BARS for data in self.datas):
            self._finish()

    def _finish(self) -> None:
        self.ended_ns = time.monotonic_ns()
        self.count = sum(map(len, self.datas))
        self.env.runstop()

    def outcome(self, started_ns: int = 0) -> Outcome:
        """What the run came to."""
        return Outcome(
            count=self.count,
            ended_ns=self.ended_ns,
            started_ns=started_ns,
            arrivals_ns=self.arrivals,
            checksum=self.checksum,
        )


def new_cerebro() -> bt.Cerebro:
    """The cerebro that every contender runs in."""
    return bt.Cerebro(stdstats=False, quicknotify=True)


def cerebro_with(feeds: Sequence[deque[Quote]], store: BareStore, scenario: Scenario) -> bt.Cerebro:
    """A cerebro with bare feeds over ``feeds``."""
    cerebro = new_cerebro()
    cerebro.addstore(store)
    order = store if len(feeds) > 1 else None
    for ticks in feeds:
        cerebro.adddata(BareFeed(ticks=ticks, store=order, timeframe=bt.TimeFrame.Ticks))
    cerebro.addstrategy(Counter, scenario=scenario)
    return cerebro


def run(scenario: Scenario, _url: str) -> Outcome:
    """backtrader alone: all ticks wait in the deques before the run begins."""
    feeds: dict[int, deque[Quote]] = {conid: deque() for conid in scenario.conids}
    for sequence in range(scenario.frames):
        conid = scenario.conids[sequence % scenario.feeds]
        price = 270 + sequence // scenario.feeds * 7 % 601 / 100
        feeds[conid].append(
            Quote(
                topic=f"smd+{conid}",
                conid=conid,
                updated_ms=scenario.time_ms(sequence),
                last=price,
                size=payload.size_of(sequence),
            )
        )
    queues = list(feeds.values())
    cerebro = cerebro_with(queues, BareStore(queues), scenario)
    started_ns = time.monotonic_ns()
    (counter,) = cerebro.run()
    outcome: Outcome = counter.outcome(started_ns)
    return outcome
