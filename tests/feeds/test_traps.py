"""Traps of backtrader's live loop: feeds beside their resampled twins, several of them, in little memory."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import backtrader as bt
import pandas as pd
import pytest

if TYPE_CHECKING:
    from tests.conftest import Bench, Line, Tape

Minutes, Ticks, Seconds = bt.TimeFrame.Minutes, bt.TimeFrame.Ticks, bt.TimeFrame.Seconds
#: Of the built-in universe.
SYMBOLS = ("AAPL", "IBM", "SPY", "MSFT", "AMZN", "GOOG", "META", "TSLA", "NVDA", "AMD")


class Noting(bt.Strategy):  # type: ignore[misc]
    """Keeps every bar of every data: time, open, high, low, close, volume."""

    params = (("period", 0), ("look", None))

    def __init__(self) -> None:
        self.rows: dict[str, list[tuple[Any, ...]]] = {data._name: [] for data in self.datas}
        self._seen = dict.fromkeys(self.rows, 0)
        self.averages = [
            bt.indicators.SMA(data, period=self.p.period) for data in self.datas if self.p.period
        ]

    def prenext(self) -> None:
        self.next()

    def next(self) -> None:
        for data in self.datas:
            if len(data) > self._seen[data._name]:
                self._seen[data._name] = len(data)
                values = (data.open, data.high, data.low, data.close, data.volume)
                self.rows[data._name].append((bt.num2date(data.datetime[0]), *(line[0] for line in values)))
        if self.p.look is not None:
            self.p.look(self)

    def frame(self, name: str) -> pd.DataFrame:
        columns = ["ts", "open", "high", "low", "close", "volume"]
        return pd.DataFrame(self.rows[name], columns=columns).set_index("ts")


def run_with_twins(
    line: Line,
    names: list[str],
    *,
    plain: dict[str, Any],
    twin: dict[str, Any],
    how: str = "resampledata",
    exactbars: int | bool = False,
    **parameters: Any,
) -> Any:
    """Plain feeds by name, and a twin of each, ``NAME+``, made by cerebro."""
    line.lockstep()
    cerebro = bt.Cerebro(quicknotify=True, stdstats=False, exactbars=exactbars)
    for name in names:
        data = line.store.getdata(**({"dataname": name, "backfill_start": False} | plain))
        cerebro.adddata(data, name=name)
        getattr(cerebro, how)(data, name=f"{name}+", **twin)
    cerebro.addstrategy(Noting, **parameters)
    with line.store:
        (strategy,) = cerebro.run()
    return strategy


def wandering(tape: type[Tape], seconds: int, seed: int, gap: float) -> Tape:
    """Trades at random moments, rarely at the edge of a minute; quiet for some minutes in the middle."""
    chance, made = random.Random(seed), tape()
    made.quote(0, 99.0, 101.0)
    price, second = 100.0, 0.25
    while second < seconds:
        if not seconds * 0.4 < second < seconds * 0.5:
            price = round(price + chance.choice((-0.02, -0.01, 0.01, 0.02)), 2)
            made.trade(second, price, chance.randint(1, 9) * 10)
        edge = (second // 60 + 1) * 60
        second = edge if chance.random() < 0.02 else round(second + chance.expovariate(1 / gap) + 0.001, 3)
    return made


def same(frame: pd.DataFrame, wanted: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(
        frame, wanted, check_names=False, check_freq=False, check_index_type=False, check_dtype=False,
        rtol=1e-12, atol=1e-12,
    )  # fmt: skip


@pytest.mark.parametrize("how", ["resampledata", "replaydata"])
def test_trap_1_resampled_bar_alone_in_a_quiet_market(bench: Bench, tape: type[Tape], how: str) -> None:
    """It is closed by the clock, in a cycle in which no plain feed has anything."""
    prices = tape().quote(0, 99.0, 101.0)
    for second in (1, 30, 70, 200, 700, 1300):
        prices.trade(second, 100.0 + second / 100, 10)
    # Somebody has to keep the market going.
    market = bench.market(AAPL=prices, IBM=wandering(tape, 1400, 3, 20.0))
    strategy = run_with_twins(
        bench.line(market=market),
        ["AAPL", "IBM"],
        plain={"timeframe": Minutes},
        twin={"timeframe": Minutes, "compression": 5},
        how=how,
    )
    same(strategy.frame("AAPL"), prices.bars(60))
    if how == "resampledata":
        assert strategy.frame("AAPL+")["volume"].sum() == prices.frame()["last_size"].sum()


def test_trap_3_resampling_ticks_does_not_starve_the_loop(bench: Bench, tape: type[Tape]) -> None:
    """Ticks that make no bar yet: broker, notifications and other feeds have their turn all the same."""
    busy = tape().quote(0, 99.0, 101.0)
    for n in range(1, 900):
        busy.trade(n / 5, 100.0 + n % 7, 1)
    other = wandering(tape, 180, 5, 4.0)
    line = bench.line(market=bench.market(AAPL=busy, IBM=other))
    line.lockstep()
    cerebro = bt.Cerebro(quicknotify=True, stdstats=False)
    data = line.store.getdata(dataname="AAPL", timeframe=Ticks, backfill_start=False)
    cerebro.resampledata(data, name="AAPL", timeframe=Minutes)
    cerebro.adddata(
        line.store.getdata(dataname="IBM", timeframe=Seconds, compression=5, backfill_start=False), name="IBM"
    )
    lag: list[float] = []

    def look(strategy: Any) -> None:
        moment = max(d.datetime[0] for d in strategy.datas if len(d))
        lag.append(line.clock.now_ns() / 1e9 - bench.epoch(bt.num2date(moment)))

    cerebro.addstrategy(Noting, look=look)
    with line.store:
        (strategy,) = cerebro.run()
    same(strategy.frame("IBM"), other.bars(5))
    assert len(lag) > 20
    # Each bar of the other feed is seen when it is complete, not when the minute of ticks is.
    assert max(lag) < 1.0


@pytest.mark.parametrize("exactbars", [False, 1])
def test_traps_4_and_5_several_feeds_and_their_twins(
    bench: Bench, tape: type[Tape], exactbars: int | bool
) -> None:
    """Feeds that do not tick together: no bar is lost or doubled, indicators see the same, memory or not."""
    tapes = {
        "AAPL": wandering(tape, 1500, 7, 5.0),
        "IBM": wandering(tape, 1500, 8, 60.0),
        "SPY": wandering(tape, 1500, 9, 15.0),
    }
    values: list[tuple[float, ...]] = []
    strategy = run_with_twins(
        bench.line(market=bench.market(**tapes)),
        list(tapes),
        plain={"timeframe": Minutes},
        twin={"timeframe": Minutes, "compression": 5},
        exactbars=exactbars,
        period=3,
        look=lambda s: (
            values.append(tuple(line[0] for line in s.averages)) if len(s.averages[-1]) > 2 else None
        ),
    )
    for name, made in tapes.items():
        same(strategy.frame(name), made.bars(60))
        twin = strategy.frame(f"{name}+")
        assert twin["volume"].sum() == made.frame()["last_size"].sum()
        assert list(twin["close"]) == [
            group["close"].iloc[-1] for _, group in strategy.frame(name).groupby(fives(strategy.frame(name)))
        ]


@pytest.mark.parametrize("exactbars", [False, 1])
def test_twins_of_history_with_a_common_quiet_spell(
    bench: Bench, tape: type[Tape], exactbars: int | bool
) -> None:
    """What is back-filled comes in a run, and for ten minutes of it nothing traded anywhere."""
    tapes = {name: wandering(tape, 6000, seed, 15.0) for seed, name in enumerate(SYMBOLS[:3], 31)}
    line = bench.line(market=bench.market(**tapes))
    line.step(bench.opening(5100))
    strategy = run_with_twins(
        line,
        list(tapes),
        plain={"timeframe": Minutes, "backfill_start": True, "useRTH": True},
        twin={"timeframe": Minutes, "compression": 5},
        exactbars=exactbars,
    )
    for name, made in tapes.items():
        frame = strategy.frame(name)
        today = frame[frame.index > bench.opening(0).replace(tzinfo=None)]
        same(today, made.bars(60))
        grouped = frame.groupby(fives(frame))
        wanted = pd.DataFrame(
            {
                "open": grouped["open"].first(), "high": grouped["high"].max(), "low": grouped["low"].min(),
                "close": grouped["close"].last(), "volume": grouped["volume"].sum(),
            }
        )  # fmt: skip
        same(strategy.frame(f"{name}+"), wanted)


def fives(frame: pd.DataFrame) -> Callable[[pd.Timestamp], pd.Timestamp]:
    return lambda moment: moment.ceil("5min")


@pytest.mark.parametrize("exactbars", [False, 1])
def test_ten_feeds_and_twins_for_a_day(bench: Bench, tape: type[Tape], exactbars: int | bool) -> None:
    """A regular session from the opening to the close, each feed at a pace of its own."""
    day = int(6.5 * 3600)
    tapes = {name: wandering(tape, day, n, 60.0 + 30 * n) for n, name in enumerate(SYMBOLS)}
    strategy = run_with_twins(
        bench.line(market=bench.market(**tapes), heartbeat_s=600.0),
        list(tapes),
        plain={"timeframe": Minutes, "compression": 5},
        twin={"timeframe": Minutes, "compression": 30},
        exactbars=exactbars,
    )
    for name, made in tapes.items():
        same(strategy.frame(name), made.bars(300))
        twin = strategy.frame(f"{name}+")
        assert twin["volume"].sum() == made.frame()["last_size"].sum()
        assert twin.index.is_unique
