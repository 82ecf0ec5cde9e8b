"""``exactbars=1``: in every call a strategy sees what it would see with all memory, beside twins of every kind."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import backtrader as bt
import pytest

if TYPE_CHECKING:
    from tests.conftest import Bench, Tape

Minutes, Seconds, Ticks = bt.TimeFrame.Minutes, bt.TimeFrame.Seconds, bt.TimeFrame.Ticks
PERIOD = 3
FEEDS = {
    "m": {"timeframe": Minutes},
    "s": {"timeframe": Seconds, "compression": 10},
    "t": {"timeframe": Ticks},
}


class Looking(bt.Strategy):  # type: ignore[misc]
    """Writes down in each call, of each data, the bars that an indicator looks back on, and the indicator."""

    def __init__(self) -> None:
        self.calls: list[list[Any]] = []
        self.averages = [bt.indicators.SMA(data, period=PERIOD) for data in self.datas]

    def prenext(self) -> None:
        self.next()

    def next(self) -> None:
        seen: list[Any] = []
        for data, average in zip(self.datas, self.averages, strict=True):
            back = range(min(len(data), PERIOD))
            bars = [(data.datetime[-ago], data.close[-ago], data.volume[-ago]) for ago in back]
            seen.append((data._name, len(data), bars, average[0] if len(average) >= PERIOD else None))
        self.calls.append(seen)


def market(tape: type[Tape], seed: int, seconds: int, gap: float, quiet: tuple[int, int]) -> Tape:
    chance, made, second, price = random.Random(seed), tape(), 0.25, 100.0
    made.quote(0, 99.0, 101.0)
    while second < seconds:
        price = round(price + chance.choice((-0.02, -0.01, 0.01, 0.02)), 2)
        if not quiet[0] < second < quiet[1]:
            made.trade(second, price, chance.randint(1, 9) * 10)
        edge = (second // 60 + 1) * 60
        second = edge if chance.random() < 0.05 else round(second + chance.expovariate(1 / gap) + 0.001, 3)
    return made


@pytest.mark.parametrize("clones", [True, False], ids=["beside", "in place"])
@pytest.mark.parametrize("how", ["resampledata", "replaydata"])
@pytest.mark.parametrize("plain", FEEDS)
def test_every_call_sees_the_same(bench: Bench, tape: type[Tape], how: str, plain: str, clones: bool) -> None:
    seconds = 600 if plain == "t" else 1800
    tapes = {
        "AAPL": market(tape, 3, seconds, 6.0, (seconds // 3, seconds // 2)),
        "IBM": market(tape, 4, seconds, 40.0, (seconds // 4, seconds // 2)),
        "SPY": market(tape, 5, seconds, 15.0, (0, 0)),
    }
    calls = {}
    for exactbars in (0, 1):
        line = bench.line(market=bench.market(**tapes))

        def before(cerebro: Any, line: Any = line) -> None:
            for length, name in enumerate(tapes, 2):
                data = line.store.getdata(dataname=name, backfill_start=False, **FEEDS[plain])
                if clones:
                    cerebro.adddata(data, name=f"{name}.")
                getattr(cerebro, how)(data, timeframe=Minutes, compression=length, name=f"{name}+")
                if clones:
                    getattr(cerebro, how)(
                        data, timeframe=Minutes, compression=2 * length - 1, name=f"{name}++"
                    )

        run = bench.run(
            line,
            strategy=Looking,
            feeds=[{"dataname": "AAPL"}],
            cerebro={"exactbars": exactbars},
            before=before,
        )
        calls[exactbars] = run.strategy.calls
    assert len(calls[1]) == len(calls[0]) > 5
    for number, (little, all_of_it) in enumerate(zip(calls[1], calls[0], strict=True)):
        assert repr(little) == repr(all_of_it), number
