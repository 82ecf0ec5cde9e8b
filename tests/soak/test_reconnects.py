"""A stream that breaks at a random moment leaves no trace in the series: sessions by seed, each compared with one
that never broke.

The markets are lockstep markets, so that two sessions differ in nothing but their breaks. What breaks, when, for how
long, how often and how it is noticed follows from the seed. While a stream is dead the market goes on.
"""

from __future__ import annotations

import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import backtrader as bt
import pytest

from bt_ibkr.app.driving import LockstepMarket
from bt_ibkr.clock import NS_PER_S, ManualClock

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Bench, Line, Tape

PATIENCE_S = 60.0
MINUTE = 60 * NS_PER_S
DAY = 86_400
Row = tuple[Any, ...]
KINDS = ("drop", "gone", "silent", "late", "nightly", "storm")
#: What the clock closed while nobody knew that the stream was dead is told to be wrong, with what is right.
UNNOTICED = {"silent", "nightly", "late"}
SESSION = {
    "tickle_interval_s": 0.1,
    "silence_s": 0.4,
    "reconnect_first_s": 0.01,
    "reconnect_longest_s": 0.05,
}


class Break(NamedTuple):
    """Something that happens to the stream.

    Attributes:
        at_ns: When, market time.
        lost_ns: How long the market goes on without the client.
    """

    kind: str
    at_ns: int
    lost_ns: int


class Broken(NamedTuple):
    """A break that happened: the stream was dead from the one moment to the other."""

    start_ns: int
    end_ns: int


class Noting(bt.Strategy):  # type: ignore[misc]
    """Writes down every bar of every data once, and which of them were back-filled."""

    def __init__(self) -> None:
        self.rows: dict[str, list[Row]] = {data._name: [] for data in self.datas}
        self.marks: dict[str, dict[datetime, bool]] = {data._name: {} for data in self.datas}
        self.corrections: dict[str, list[Any]] = defaultdict(list)
        self.messages: list[Any] = []
        self._seen = dict.fromkeys(self.rows, 0)

    def prenext(self) -> None:
        self.next()

    def next(self) -> None:
        for data in self.datas:
            name = data._name
            assert len(data) - self._seen[name] in (0, 1), (name, len(data), self._seen[name])
            if len(data) > self._seen[name]:
                self._seen[name] = len(data)
                moment = bt.num2date(data.datetime[0])
                values = (data.open, data.high, data.low, data.close, data.volume)
                self.rows[name].append((moment, *(round(line[0], 9) for line in values)))
                if hasattr(data, "back_filled"):
                    self.marks[name][moment] = data.back_filled

    def notify_store(self, msg: Any, *args: Any, **kwargs: Any) -> None:
        self.messages.append(msg)
        if msg == "bar-corrected":
            self.corrections[args[0].dataname].append(args[0])


class Breaks:
    """The idle hook: a lockstep market, and what happens to the client's stream meanwhile."""

    def __init__(self, line: Line, plan: list[Break]) -> None:
        assert isinstance(line.clock, ManualClock)
        self._line = line
        self._clock = line.clock
        self._market = LockstepMarket(line.control, line.store, line.clock)
        self._plan = sorted(plan, key=lambda one: one.at_ns)
        self._over: Callable[[], bool] | None = None
        self.happened: list[Broken] = []

    def __call__(self, horizon_ns: int) -> bool:
        if self._over is not None:
            if not self._over():
                return False
            self._over = None
        progress = self._line.store.connection.progress()
        if self._plan and progress.port and self._clock.now_ns() >= self._plan[0].at_ns:
            if not self._line.store.at_rest():
                return True
            self._happen(self._plan.pop(0), progress.port)
            return True
        if self._plan and self._clock.now_ns() < self._plan[0].at_ns:
            horizon_ns = min(horizon_ns or self._plan[0].at_ns, self._plan[0].at_ns)
        return self._market(horizon_ns)

    def _happen(self, one: Break, port: int) -> None:
        start_ns = self._clock.now_ns()
        getattr(self, f"_{one.kind}")(one, port)
        self.happened.append(Broken(start_ns, self._clock.now_ns()))

    # -- kinds ---------------------------------------------------------------------------------------

    def _drop(self, one: Break, port: int) -> None:
        """The socket is closed or reset, and opened again after a while."""
        number = self._fault("http", action="status", status=503, path="/ws", count=10_000)
        self._fault("ws_reset") if one.lost_ns % 2 else self._fault("ws_close", code=1001)
        self._until_gone(port)
        self._go_on(one.lost_ns)
        self._clear(number)

    def _gone(self, one: Break, port: int) -> None:
        """The gateway is away."""
        number = self._fault("http", action="status", status=503, path="/ws", count=10_000)
        self._fault("restart", down_s=0.2)
        self._until_gone(port)
        self._go_on(one.lost_ns)
        self._clear(number)

    def _silent(self, one: Break, port: int) -> None:
        """Half open: nothing comes, and nobody says so."""
        number = self._fault("ws_stall")
        self._go_on(one.lost_ns)
        self._wait_for(port, then=lambda: self._clear(number))

    def _late(self, one: Break, port: int) -> None:
        """The socket dies with frames that were never sent, and is known to be dead only after that."""
        self._fault("ws_stall")
        self._go_on(one.lost_ns)

        def over() -> bool:
            # By now the feeds have closed by the clock what had ended.
            if self._line.store.connection.progress().port != port:
                # Its silence was noticed before.
                self._clear(None)
                return True
            self._fault("http", action="status", status=503, path="/ws", count=10_000)
            self._fault("ws_reset")
            self._until_gone(port)
            self._clear(None)
            return True

        self._over = over

    def _nightly(self, one: Break, port: int) -> None:
        """Subscriptions end without a word, heartbeats go on."""
        self._fault("nightly_reset", then="no_bridge" if one.lost_ns % 2 else "ready")
        self._go_on(min(one.lost_ns, 59 * NS_PER_S))
        self._wait_for(port)

    def _storm(self, one: Break, port: int) -> None:
        """Dropped again and again, also while history is asked for."""
        number = self._fault("ws_storm", every_s=0.03, for_s=30.0)
        self._until_gone(port)
        latest = time.monotonic() + 0.3

        def over() -> bool:
            if time.monotonic() < latest:
                return False
            self._clear(number)
            return True

        self._over = over

    # -- means ---------------------------------------------------------------------------------------

    def _fault(self, kind: str, **arguments: Any) -> int:
        return int(self._line.control.post("/fault", {"kind": kind} | arguments)["id"])

    def _clear(self, number: int | None) -> None:
        self._line.control.post("/clear_faults", {} if number is None else {"id": number})

    @staticmethod
    def _step(until_ns: int) -> dict[str, Any]:
        return {"until_ns": until_ns, "max_events": None, "received": {}}

    def _go_on(self, by_ns: int) -> None:
        """Let the market go on while the client hears nothing of it."""
        self._line.control.post("/step", self._step(self._clock.now_ns() + by_ns))
        self._clock.set_ns(self._clock.now_ns() + by_ns)

    def _until_gone(self, port: int) -> None:
        store, latest = self._line.store, time.monotonic() + PATIENCE_S
        # Until the feeds are told at their next turn.
        while store.connection.progress().port == port or not len(store._events):
            assert time.monotonic() < latest
            store.wake.wait(0.01)

    def _wait_for(self, port: int, then: Callable[[], None] = lambda: None) -> None:
        """Hold the market until the client has noticed; its feeds go on by the clock meanwhile."""
        latest = time.monotonic() + PATIENCE_S

        def over() -> bool:
            assert time.monotonic() < latest
            if self._line.store.connection.progress().port == port:
                return False
            then()
            return True

        self._over = over


class Market(NamedTuple):
    """A market, and the feeds that follow it: plain ones by name, and twins resampled from them.

    Attributes:
        sources: The emulator's settings.
        starts, ends: Between them breaks may happen; the session begins at the first.
    """

    sources: dict[str, Any]
    feeds: dict[str, dict[str, Any]]
    twins: dict[str, tuple[str, dict[str, Any]]]
    starts: datetime
    ends: datetime


def ns(moment: datetime) -> int:
    return int(moment.timestamp() * 1000) * 1_000_000


def session(bench: Bench, market: Market, plan: list[Break]) -> tuple[Any, Breaks]:
    """One session over it."""
    line = bench.line(session=SESSION, heartbeat_s=0.1, history_days=3, commission="none", **market.sources)
    if market.starts > datetime.fromtimestamp(line.clock.now_ns() / NS_PER_S, tz=UTC):
        line.step(market.starts)
    hook = Breaks(line, plan)
    line.store.set_idle_hook(hook)
    cerebro = bt.Cerebro(quicknotify=True, stdstats=False)
    made: dict[str, Any] = {}
    for name, feed in market.feeds.items():
        made[name] = line.store.getdata(**feed)
        cerebro.adddata(made[name], name=name)
    for name, (plain, length) in market.twins.items():
        cerebro.resampledata(made[plain], name=name, **length)
    cerebro.addstrategy(Noting)
    with line.store:
        (strategy,) = cerebro.run()
    assert not hook._plan
    return strategy, hook


# -- markets -----------------------------------------------------------------------------------------


def wandering(tape: type[Tape], chance: random.Random, begin: float, seconds: float, gap: float) -> Tape:
    """Trades and quotes; lots of 40 shares, no quote that repeats the one before, some at the edges of minutes."""
    made, price, second = tape(), 100.0, begin
    while second < begin + seconds:
        price = round(price + chance.choice((-0.02, -0.01, 0.01, 0.02)), 2)
        made.quote(second, round(price - 0.01, 2), round(price + 0.01, 2), 400)
        if chance.random() < 0.6:
            made.trade(second, price, chance.randint(1, 9) * 40)
        edge = (second // 60 + 1) * 60
        second = edge if chance.random() < 0.05 else round(second + chance.expovariate(1 / gap) + 0.001, 3)
    return made


def minutes(bench: Bench, tape: type[Tape]) -> Market:
    """Bars of seconds and minutes, of trades and quotes, with and without empty ones, and their twins."""
    chance = random.Random(1)
    sources = bench.market(
        AAPL=wandering(tape, chance, 0, 1200, 3.0),
        IBM=wandering(tape, chance, 0, 1200, 45.0),
        EUR_USD=wandering(tape, chance, 0, 1200, 4.0),
    )
    minute: dict[str, Any] = {"timeframe": bt.TimeFrame.Minutes, "backfill_start": True}
    feeds = {
        "aapl": {"dataname": "AAPL"} | minute,
        "ibm": {"dataname": "IBM"} | minute,
        "five": {"dataname": "IBM-STK-SMART-USD", "compression": 5, "empty_bars": "repeat"} | minute,
        "bid": {"dataname": "AAPL-STK-SMART", "what": "BID"} | minute,
        "eur": {"dataname": "EUR.USD-CASH-IDEALPRO"} | minute,
    }
    longer: dict[str, Any] = {"timeframe": bt.TimeFrame.Minutes}
    twins = {
        "aapl+": ("aapl", longer | {"compression": 5}),
        "ibm+": ("ibm", longer | {"compression": 3}),
        "ibm++": ("ibm", longer | {"compression": 5}),
        "eur+": ("eur", longer | {"compression": 4}),
    }
    return Market({"market": sources}, feeds, twins, bench.opening(200), bench.opening(1140))


def nights(bench: Bench, tape: type[Tape]) -> Market:
    """A currency pair over midnight in New York, when sessions end."""
    begin = 14.5 * 3600 - 600
    quotes = wandering(tape, random.Random(2), begin, 1200, 2.0)
    feeds: dict[str, dict[str, Any]] = {
        "eur": {"dataname": "EUR.USD-CASH-IDEALPRO"},
        "mid": {"dataname": "EUR.USD-CASH", "what": "MIDPOINT"},
    }
    for feed in feeds.values():
        feed.update({"timeframe": bt.TimeFrame.Minutes, "backfill_start": True})
    twins = {"eur+": ("eur", {"timeframe": bt.TimeFrame.Minutes, "compression": 5})}
    sources = {"market": bench.market(EUR_USD=quotes)}
    return Market(sources, feeds, twins, bench.opening(begin + 100), bench.opening(begin + 1140))


def days(bench: Bench, tape: type[Tape]) -> Market:
    """A week of a synthetic market, with the change to daylight saving time: days, weeks, hours, and their twins."""
    sources = {
        "synthetic_instruments": ("AAPL", "SPY"),
        "synthetic_day": "2026-03-05",
        "synthetic_days": 3,
        "synthetic_rate": 0.004,
    }
    regular: dict[str, Any] = {"useRTH": True, "backfill_start": True}
    feeds = {
        "days": {"dataname": "AAPL", "timeframe": bt.TimeFrame.Days} | regular,
        "weeks": {"dataname": "SPY", "timeframe": bt.TimeFrame.Weeks} | regular,
        "spy": {"dataname": "SPY-STK-SMART-USD", "timeframe": bt.TimeFrame.Days} | regular,
        "hours": {"dataname": "AAPL-STK-SMART-USD", "timeframe": bt.TimeFrame.Minutes, "compression": 30}
        | regular,
    }
    twins = {"hours+": ("hours", {"timeframe": bt.TimeFrame.Minutes, "compression": 120})}
    starts, ends = datetime(2026, 3, 5, 15, tzinfo=UTC), datetime(2026, 3, 9, 19, 50, tzinfo=UTC)
    return Market(sources, feeds, twins, starts, ends)


MARKETS = {"minutes": minutes, "nights": nights, "days": days}


def plan_of(market: Market, chance: random.Random) -> list[Break]:
    """One to three breaks: anywhere, near the edges of bars, soon after the one before."""
    first, last = ns(market.starts), ns(market.ends)
    span_ns = last - first
    plan: list[Break] = []
    at_ns = 0
    for _ in range(chance.choice((1, 1, 2, 3))):
        if plan and chance.random() < 0.5:
            # While what the break before cost is still on its way.
            at_ns = plan[-1].at_ns + plan[-1].lost_ns + chance.randrange(90) * NS_PER_S
        else:
            at_ns = first + chance.randrange(span_ns // 1_000_000) * 1_000_000
        if chance.random() < 0.3:
            at_ns = at_ns // MINUTE * MINUTE + chance.choice((-1, 0, 0, 1)) * 1_000_000
        if at_ns >= last:
            break
        lost_ns = int(chance.choice((0.2, 2, 20, 60, 150)) * chance.uniform(0.5, 1.5) * 1000) * 1_000_000
        if span_ns > DAY * NS_PER_S and chance.random() < 0.5:
            lost_ns = chance.randrange(1, 40) * 30 * MINUTE
        kind = chance.choice(KINDS)
        if kind == "late":
            lost_ns = min(lost_ns, 2 * NS_PER_S)
        plan.append(Break(kind, max(first, at_ns), min(lost_ns, max(last - at_ns, 0)) + chance.randrange(2)))
    return plan


#: What sessions that never broke delivered, by market.
_whole: dict[str, dict[str, list[Row]]] = {}


@pytest.fixture
def benches(bench: Bench, tmp_path: Path) -> Iterator[Callable[[], Bench]]:
    """Makes benches: each session has one of its own."""
    with ExitStack() as stack:
        yield lambda: type(bench)(tmp_path, stack)


def check(
    benches: Callable[[], Bench],
    tape: type[Tape],
    name: str,
    seed: int,
    given: Callable[[Market], list[Break]] | None = None,
) -> None:
    """One session with breaks against one without; ``given`` instead of those of the seed."""
    market = MARKETS[name](benches(), tape)
    if name not in _whole:
        strategy, _ = session(benches(), market, [])
        assert not any(strategy.corrections.values())
        _whole[name] = strategy.rows
    whole = _whole[name]
    assert all(len(rows) > 1 for feed, rows in whole.items() if feed != "weeks"), whole
    plan = plan_of(market, random.Random(seed)) if given is None else given(market)
    strategy, hook = session(benches(), market, plan)
    names = {feed["dataname"]: key for key, feed in market.feeds.items()}
    unnoticed = any(one.kind in UNNOTICED for one in plan)
    for dataname, key in names.items():
        rows = {row[0]: row for row in strategy.rows[key]}
        assert [row[0] for row in strategy.rows[key]] == sorted(rows), (key, plan)
        told = strategy.corrections[dataname]
        assert unnoticed or not told, (key, plan, told)
        for one in told:
            right = one.new
            moment = bt.num2date(bt.date2num(datetime.fromtimestamp(right.end_ns / NS_PER_S, tz=UTC)))
            values = (right.open, right.high, right.low, right.close, right.volume)
            rows[moment] = (moment, *(round(value, 9) for value in values))
        assert [rows[moment] for moment in sorted(rows)] == whole[key], (key, plan)
    for key in market.twins:
        # What the clock closed while nobody knew of the break is told of a feed's bars, and nobody tells those that
        # backtrader makes of them: docs/feeds.md says so.
        if not unnoticed:
            assert strategy.rows[key] == whole[key], (key, plan)
    marked(market, strategy, hook, plan)


def marked(market: Market, strategy: Any, hook: Breaks, plan: list[Break]) -> None:
    """What ended while the stream was dead was back-filled, what began and ended while it was whole was not."""
    known = len(hook.happened) == len(plan)
    assert known
    for key, feed in market.feeds.items():
        if feed["timeframe"] != bt.TimeFrame.Minutes:
            continue
        length_ns = feed.get("compression", 1) * MINUTE
        for moment, back_filled in strategy.marks[key].items():
            end_ns = ns(moment.replace(tzinfo=UTC))
            if any(one.start_ns < end_ns <= one.end_ns for one in hook.happened):
                assert back_filled or any(one.kind in UNNOTICED for one in plan), (key, moment, plan)
            near = [ns(market.starts), *(m for one in hook.happened for m in one)]
            if (
                end_ns > near[0] + 2 * length_ns
                and not any(m - length_ns < end_ns + length_ns and end_ns - 2 * length_ns < m for m in near)
                and not any(one.start_ns <= end_ns <= one.end_ns + 2 * length_ns for one in hook.happened)
            ):
                assert not back_filled, (key, moment, plan)


@pytest.mark.timeout(180)
@pytest.mark.parametrize(("name", "seed"), [("minutes", 1), ("minutes", 136), ("nights", 3)])
def test_a_few_sessions(benches: Callable[[], Bench], tape: type[Tape], name: str, seed: int) -> None:
    """The short version."""
    check(benches, tape, name, seed)


@pytest.mark.timeout(180)
def test_frames_that_were_lost_with_the_socket(benches: Callable[[], Bench], tape: type[Tape]) -> None:
    """The bar that ended just before the socket was known to be dead lacks its last ticks: it is fetched."""
    check(benches, tape, "minutes", 0, lambda market: [
        Break("late", (ns(market.starts) // MINUTE + minute) * MINUTE - 14 * NS_PER_S, 15 * NS_PER_S)
        for minute in (4, 9)
    ])  # fmt: skip


@pytest.mark.soak
@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", range(200))
def test_two_hundred_sessions(benches: Callable[[], Bench], tape: type[Tape], seed: int) -> None:
    """Of each kind of market."""
    check(benches, tape, ("minutes", "minutes", "days", "nights")[seed % 4], seed)
