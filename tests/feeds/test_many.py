"""Many feeds at once: every tick arrives, in order, none twice."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import backtrader as bt
import pandas as pd
import pytest

if TYPE_CHECKING:
    from tests.conftest import Bench, Tape

#: Instruments of the built-in universe.
SYMBOLS = 10
A_SECOND = 50


def names(bench: Bench) -> list[str]:
    """US stocks of the built-in universe with a symbol of their own."""
    from bt_ibkr.emulator.universe import default_universe
    from bt_ibkr.model.contract import SecurityType

    universe = default_universe()
    stocks = [i for i in universe.all() if i.is_us and i.contract.security_type is SecurityType.STOCK]
    return [i.contract.symbol for i in stocks if len(universe.by_symbol(i.contract.symbol)) == 1][:SYMBOLS]


@pytest.mark.parametrize("speed", ["max", "lockstep"])
def test_ten_feeds_at_fifty_ticks_a_second(bench: Bench, tape: type[Tape], speed: str) -> None:
    seconds = 6 if speed == "max" else 2
    chance = random.Random(1)
    tapes: dict[str, Tape] = {}
    for number, name in enumerate(names(bench)):
        made = tapes[name] = tape()
        for n in range(seconds * A_SECOND):
            made.trade(
                round(n / A_SECOND + number / 1000, 3), chance.randint(900, 1100) / 10, chance.randint(1, 9)
            )
    assert len(tapes) >= 5
    market: Any = tapes
    run = bench.run(
        bench.line(market=bench.market(**market), speed=speed),
        feeds=[{"dataname": name, "timeframe": bt.TimeFrame.Ticks} for name in tapes],
    )
    for name, made in tapes.items():
        wanted = made.frame()
        rows = run.strategy.rows[name]
        assert [row[4] for row in rows] == list(wanted["last"]), name
        assert [row[5] for row in rows] == list(wanted["last_size"]), name
        moments = [pd.Timestamp(row[0]).round("ms").tz_localize("UTC") for row in rows]
        assert moments == list(wanted["ts"]), name


def test_bars_at_full_speed_are_those_of_the_tape(bench: Bench, tape: type[Tape]) -> None:
    chance = random.Random(2)
    tapes: dict[str, Tape] = {}
    for name in names(bench)[:3]:
        made, second = tape(), 0.0
        while second < 1800:
            made.trade(round(second, 3), chance.randint(900, 1100) / 10, chance.randint(1, 9))
            second += chance.expovariate(1)
        tapes[name] = made
    market: Any = tapes
    run = bench.run(
        bench.line(market=bench.market(**market), speed="max"), feeds=[{"dataname": name} for name in tapes]
    )
    for name, made in tapes.items():
        pd.testing.assert_frame_equal(
            run.strategy.frame(name),
            made.bars(60),
            check_names=False,
            check_index_type=False,
            check_dtype=False,
        )
