"""Sixteen strategy processes on one hub: all ticks to each, in order; orders to their owners; books that sum."""

from __future__ import annotations

import itertools
import random
import time
from pathlib import Path

import pandas as pd
import pytest

from tests.hub.crowd import Crowd

NAMES = ("IBM", "SPY", "EUR.USD")
#: Every choice of one instrument, two, and three.
CHOICES = tuple(
    chosen for count in (1, 2, 3) for chosen in itertools.combinations(NAMES, count)
)  # fmt: skip
FILES = {
    "IBM": "ticks_IBM_2013-10-07.parquet",
    "SPY": "ticks_SPY_2013-10-07.parquet",
    "EUR.USD": "ticks_EURUSD_2014-05-06.parquet",
}


def follow(count: int) -> dict[str, tuple[str, ...]]:
    """So many strategies, and what each of them follows; the first one everything."""
    return {f"strategy_{number}": CHOICES[-1 - number % len(CHOICES)] for number in range(count)}


def invented(folder: Path, events: int, seed: int) -> dict[str, Path]:
    """Tick files of three quarters of an hour: quotes and trades of IBM, trades of SPY, quotes of EUR.USD."""
    chance = random.Random(seed)
    moment = pd.Timestamp("2026-03-02T15:00:00Z")
    rows: dict[str, list[dict[str, object]]] = {name: [] for name in NAMES}
    for _ in range(events):
        moment += pd.Timedelta(milliseconds=chance.randint(0, 400))
        name = chance.choice(NAMES)
        cents = chance.randint(-40, 40)
        if name == "EUR.USD":
            bid = round(1.0850 + cents * 0.00005, 5)
            row = {"bid": bid, "bid_size": 1e6, "ask": round(bid + 0.0001, 5), "ask_size": 1e6}
        elif name == "SPY" or chance.random() < 0.4:
            row = {"last": round(180 + cents / 100, 2), "last_size": 100.0 * chance.randint(1, 9)}
        else:
            bid = round(180 + cents / 100, 2)
            row = {"bid": bid, "bid_size": 300.0, "ask": round(bid + 0.02, 2), "ask_size": 100.0}
        rows[name].append({"ts": moment} | row)
    files = {}
    for name, made in rows.items():
        columns = ["bid", "bid_size", "ask", "ask_size", "last", "last_size"]
        files[name] = folder / f"ticks_{name}.parquet"
        frame = pd.DataFrame(made, columns=["ts", *columns]).astype(dict.fromkeys(columns, float))
        frame.to_parquet(files[name])
    return files


def test_four_strategies(tmp_path: Path) -> None:
    with Crowd(tmp_path, invented(tmp_path, 900, 4), follow(4), every=20).running() as crowd:
        for _ in range(2):
            crowd.trade(350)
            crowd.rest()
        assert crowd.orders > 20
        assert crowd.executions > 10
        crowd.end()


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_sixteen_strategies(tmp_path: Path, market_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A whole day of real ticks, with twelve rests; of EUR.USD there is another day, taken for this one."""
    files = {name: market_data / file for name, file in FILES.items()}
    euro = pd.read_parquet(files["EUR.USD"])
    euro["ts"] -= pd.Timestamp("2014-05-06") - pd.Timestamp("2013-10-07")
    files["EUR.USD"] = tmp_path / "ticks_EURUSD.parquet"
    euro.to_parquet(files["EUR.USD"])
    began_s = time.monotonic()
    with Crowd(tmp_path, files, follow(16), every=1500).running() as crowd:
        part = len(crowd.day) // 12
        rests = 0
        while crowd.day.moved < len(crowd.day):
            crowd.trade(part)
            crowd.rest()
            rests += 1
            with capsys.disabled():
                print(
                    f"\r{crowd.day.moved} of {len(crowd.day)} events, {rests} rests, {crowd.orders} orders, "
                    f"{crowd.executions} executions, {time.monotonic() - began_s:.0f} s",
                    end="",
                    flush=True,
                )
        crowd.end()
    with capsys.disabled():
        print()
