"""A day recorded and played again: the same bars, the same fills, the same recording."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import backtrader as bt
import msgspec
import pandas as pd
import pytest

from bt_ibkr.emulator.build import open_universe
from bt_ibkr.emulator.market.recorded import load_recording
from bt_ibkr.errors import MarketFileError, UsageError
from bt_ibkr.feeds import IBKRReplay
from bt_ibkr.feeds.times import epoch_ns
from bt_ibkr.model.contract import Contract, Leg, SecurityType
from bt_ibkr.model.market import DataQuality, Tick
from bt_ibkr.recorder import Recording, RowKind, TickRecorder

if TYPE_CHECKING:
    from tests.conftest import Bench, Run, Tape

START = 1_772_461_800_000_000_000
FEEDS: tuple[dict[str, Any], ...] = (
    {"dataname": "AAPL"},
    {"dataname": "IBM"},
    {"dataname": "AAPL", "name": "fast", "timeframe": bt.TimeFrame.Seconds, "compression": 5},
    {"dataname": "IBM", "name": "bid", "what": "BID"},
    {"dataname": "AAPL", "name": "middle", "what": "MIDPOINT"},
)


def market(tape: type[Tape], seed: int, seconds: int = 900) -> Tape:
    """Sides that move by themselves, sizes that stay, prints of any size, several in one instant."""
    made, pick, price = tape(), random.Random(seed), 100.0
    stands = {"bid": 99.99, "bid_size": 100.0, "ask": 100.01, "ask_size": 100.0}
    made.at(0, **stands)
    for second in range(1, seconds):
        price = round(price + pick.choice((-0.01, 0.0, 0.01)), 2)
        moment = second + pick.randint(0, 700) / 1000
        if pick.random() < 0.6:
            fresh = {
                "bid": round(price - 0.01, 2),
                "bid_size": pick.choice((100.0, 300.0)),
                "ask": round(price + 0.01, 2),
                "ask_size": pick.choice((100.0, 300.0)),
            }
            # As files of real markets tell them: what changed.
            changed = {name: value for name, value in fresh.items() if value != stands[name]}
            if changed:
                stands |= changed
                made.at(moment, **changed)
        for _ in range(pick.choice((0, 0, 1, 3))):
            made.trade(moment + 0.1, price, pick.choice((1, 100, 250)))
    return made


def trading(strategy: Any) -> None:
    """Buys and sells more than is shown, at the market and at limits, all the time."""
    turn, strategy.turns = strategy.turns, strategy.turns + 1
    data = strategy.datas[turn % 2]
    if turn % 7 == 3:
        strategy.orders.append(strategy.buy(data, size=500))
    elif turn % 7 == 5:
        limit = round(data.close[0] + 0.01, 2)
        strategy.orders.append(strategy.sell(data, size=300, exectype=bt.Order.Limit, price=limit))


def fills(run: Run) -> list[tuple[Any, ...]]:
    return [
        (e.time_ns, e.symbol, e.side, e.quantity, e.price, e.commission) for _, e in run.broker.executions
    ]


def rows_of(path: Path, name: str) -> list[tuple[Any, ...]]:
    """All that a recording of a lockstep market determines; when a frame was read is this machine's business."""
    return [
        (row.seq, row.kind, msgspec.structs.replace(row.tick, received_ns=0))
        for row in Recording(path).find(name).rows()
    ]


def replayed(path: Path, feeds: Sequence[dict[str, Any]], strategy: type[Any], **cerebro: Any) -> Any:
    """The same feeds from a recording, with backtrader's own broker."""
    made = bt.Cerebro(**({"stdstats": False} | cerebro))
    for feed in feeds:
        given = {"timeframe": bt.TimeFrame.Minutes} | feed
        name = given.pop("name", given["dataname"])
        given["dataname"] = f"{path}:{given['dataname']}"
        made.adddata(IBKRReplay(**given), name=name)
    made.addstrategy(strategy)
    return made.run()[0]


@pytest.mark.parametrize("begin", [0.0, 95.25], ids=["from the start", "in the middle of a minute"])
def test_the_round_trip_is_exact(
    bench: Bench, tape: type[Tape], scripted: type[Any], tmp_path: Path, begin: float
) -> None:
    files = bench.market(AAPL=market(tape, 1), IBM=market(tape, 2))
    line = bench.line(market=files, store={"record": tmp_path / "first"})
    if begin:
        line.step(bench.opening(begin))
    first = bench.run(line, trading, feeds=FEEDS)
    again = bench.run(
        bench.line(market=(str(tmp_path / "first"),), store={"record": tmp_path / "second"}),
        trading,
        feeds=FEEDS,
    )
    assert len(fills(first)) > 20
    assert fills(again) == fills(first)
    assert again.strategy.rows == first.strategy.rows
    first.agree()
    again.agree()
    for name in ("AAPL", "IBM"):
        assert rows_of(tmp_path / "second", name) == rows_of(tmp_path / "first", name)
    # Without any emulator: the bars as the live feeds delivered them.
    strategy = replayed(tmp_path / "first", FEEDS, scripted)
    assert strategy.rows == first.strategy.rows
    stream = replayed(tmp_path / "first", FEEDS, scripted, preload=False, runonce=False)
    assert stream.rows == first.strategy.rows
    times = [moment for kind, _, moment in stream.log if kind == "bar"]
    assert times == sorted(times)
    little = replayed(tmp_path / "first", FEEDS, scripted, exactbars=1)
    assert little.rows == first.strategy.rows


def test_ticks_of_a_recording(bench: Bench, tape: type[Tape], scripted: type[Any], tmp_path: Path) -> None:
    line = bench.line(market=bench.market(AAPL=market(tape, 5, 60)), store={"record": tmp_path / "rec"})
    feeds = [{"dataname": "AAPL", "timeframe": bt.TimeFrame.Ticks}]
    live = bench.run(line, feeds=feeds)
    assert len(live.strategy.rows["AAPL"]) > 20
    assert replayed(tmp_path / "rec", feeds, scripted).rows == live.strategy.rows


def test_bars_in_which_nothing_happens_come_again(
    bench: Bench, tape: type[Tape], scripted: type[Any], tmp_path: Path
) -> None:
    pick, made, second = random.Random(3), tape(), 0.0
    while second < 1200:
        made.quote(second, 99.0, 101.0, 100).trade(second, 100.0 + pick.randint(0, 9), 10)
        second += pick.expovariate(1 / 80) + 0.001
    line = bench.line(market=bench.market(IBM=made), store={"record": tmp_path / "rec"})
    feeds: list[dict[str, Any]] = [
        {"dataname": "IBM", "name": word, "timeframe": bt.TimeFrame.Minutes, "empty_bars": word}
        for word in ("skip", "repeat", "nan")
    ]
    feeds.append({"dataname": "IBM", "name": "regular", "timeframe": bt.TimeFrame.Minutes, "useRTH": True})
    live = bench.run(line, feeds=feeds).strategy.rows
    assert len(live["skip"]) < len(live["repeat"]) == len(live["nan"])
    again = replayed(tmp_path / "rec", feeds, scripted).rows
    # Unlike itself, as NaN is, but written alike.
    assert repr(again) == repr(live)


def test_days_come_again(bench: Bench, scripted: type[Any], tmp_path: Path) -> None:
    line = bench.line(
        synthetic_instruments=("AAPL",),
        synthetic_day="2026-03-05",
        synthetic_days=3,
        synthetic_rate=0.004,
        heartbeat_s=600.0,
        store={"record": tmp_path / "rec"},
    )
    feeds: list[dict[str, Any]] = [
        {"dataname": "AAPL", "name": "days", "timeframe": bt.TimeFrame.Days, "useRTH": True},
        {"dataname": "AAPL", "name": "weeks", "timeframe": bt.TimeFrame.Weeks, "useRTH": True},
        {"dataname": "AAPL", "name": "hours", "timeframe": bt.TimeFrame.Minutes, "compression": 60},
    ]
    # Without a broker: it is told of profit and loss every second of three days.
    line.lockstep()
    cerebro = bt.Cerebro(quicknotify=True, stdstats=False)
    for feed in feeds:
        given = feed | {"backfill_start": False}
        name = given.pop("name")
        cerebro.adddata(line.store.getdata(**given), name=name)
    cerebro.addstrategy(scripted)
    with line.store:
        live = cerebro.run()[0].rows
    assert len(live["days"]) == 3
    assert replayed(tmp_path / "rec", feeds, scripted).rows == live


def test_halts_and_prices_finer_than_the_tick_come_again(
    bench: Bench, tape: type[Tape], tmp_path: Path
) -> None:
    """AAPL trades at hundredths; this one was seen at thousandths elsewhere, and is halted for a while."""
    contract = Contract(conid=265598, symbol="AAPL", security_type=SecurityType.STOCK)
    recorder = TickRecorder(tmp_path / "first")
    sink = recorder.sink(contract)
    volume = 5000.0
    for second in range(200):
        halted = 70 <= second < 130
        traded = 0.0 if halted or not second else 10.0
        volume += traded
        price = 100 + (69 if halted else second) * 0.001
        sink.push(
            Tick(
                START + second * 10**9, 265598, 99.0, 101.0, 100.0, 100.0, round(price, 3), 10.0, traded, volume,
                DataQuality.REALTIME, halted, 0,
            )
        )  # fmt: skip
    recorder.close(over=True)
    line = bench.line(market=(str(tmp_path / "first"),), store={"record": tmp_path / "second"})
    bench.run(line)
    ticks = [tick for _, kind, tick in rows_of(tmp_path / "first", "AAPL") if kind is not RowKind.OVER]
    # Rows in which nothing changed are no ticks for a client.
    told = [ticks[0]] + [b for a, b in pairwise(ticks) if b.traded or b.halted is not a.halted]
    seen = [tick for _, kind, tick in rows_of(tmp_path / "second", "AAPL") if kind is not RowKind.OVER]
    assert seen == told


def test_a_break_is_in_the_recording_and_in_what_is_made_of_it(
    bench: Bench, tape: type[Tape], scripted: type[Any], tmp_path: Path
) -> None:
    prices = market(tape, 9)
    line = bench.line(market=bench.market(AAPL=prices), store={"record": tmp_path / "rec"})

    def close(server: Any) -> None:
        import asyncio

        for ws in list(server._sockets):
            task = asyncio.get_running_loop().create_task(ws.close(code=1001))
            server._tasks.add(task)
            task.add_done_callback(server._tasks.discard)

    def script(strategy: Any) -> None:
        if len(strategy) == 3:
            line.emulator.call(close)
            # What trades while nobody listens.
            line.emulator.call(
                lambda server: server.core.engine.advance(until_ns=server.core.now_ns + 40 * 10**9)
            )

    feeds = [{"dataname": "AAPL", "backfill": False}]
    live = bench.run(line, script, feeds=feeds)
    rows = list(Recording(tmp_path / "rec").find().rows())
    kinds = [row.kind for row in rows if row.kind is not RowKind.TICK]
    assert kinds == [RowKind.PICTURE, RowKind.GAP, RowKind.PICTURE, RowKind.OVER]
    gap = next(row for row in rows if row.kind is RowKind.GAP)
    assert gap.note
    made = replayed(tmp_path / "rec", [{"dataname": "AAPL"}], scripted)
    assert made.rows == live.strategy.rows
    assert len(made.data.gaps) == 1
    # The emulator has no prints for the time of the gap, and makes none up.
    loaded = load_recording(tmp_path / "rec", open_universe(""))
    traded = sum(row.tick.traded for row in rows if row.kind is RowKind.TICK)
    events = []
    while loaded.next_ns() is not None:
        events.append(loaded.pop())
    assert sum(event.traded or 0.0 for event in events) == traded
    assert events[-1].volume == traded
    again = bench.run(
        bench.line(market=(str(tmp_path / "rec"),), store={"record": tmp_path / "second"}), feeds=feeds
    )
    whole = again.strategy.rows["AAPL"]
    assert [row for row in live.strategy.rows["AAPL"] if row not in whole] == []
    ticks = [tick for _, kind, tick in rows_of(tmp_path / "second", "AAPL") if kind is RowKind.TICK]
    assert sum(tick.traded for tick in ticks) == traded


def test_unknown_contracts_join_the_universe(bench: Bench, tmp_path: Path) -> None:
    """A spread at prices below 0, and a future that the built-in universe does not have."""
    spread = Contract(conid=-5, symbol="X", security_type=SecurityType.COMBO, legs=(Leg(1, 1), Leg(2, -1)))
    future = Contract(
        conid=77001, symbol="QM", security_type=SecurityType.FUTURE, exchange="NYMEX", multiplier=500.0,
        tick_size=0.025, last_trade_date="20260420",
    )  # fmt: skip
    recorder = TickRecorder(tmp_path / "rec")
    sinks = [recorder.sink(spread), recorder.sink(future)]
    for second in range(130):
        for sink in sinks:
            price = -37.0 - 0.025 * (second % 3)
            sink.push(
                Tick(
                    START + second * 10**9, sink.info.contract.conid, price - 0.025, price + 0.025, 1.0, 1.0, price,
                    1.0, float(second > 0), float(second), DataQuality.REALTIME, False, 0,
                )
            )  # fmt: skip
    recorder.close(over=True)
    run = bench.run(bench.line(market=(str(tmp_path / "rec"),)), feeds=[{"dataname": "conid:77001"}])
    bars = run.strategy.frame("conid:77001")
    assert list(bars["volume"]) == [59.0, 60.0, 10.0]
    assert set(bars["low"]) == {-37.05}
    assert run.strategy.data.contract.symbol == "QM"


def test_a_recording_and_a_file_of_one_instrument_are_refused(
    bench: Bench, tape: type[Tape], tmp_path: Path
) -> None:
    files = bench.market(AAPL=market(tape, 1, 70))
    bench.run(bench.line(market=files, store={"record": tmp_path / "rec"}))
    with pytest.raises(UsageError, match="AAPL is in another market already"):
        bench.line(market=(str(tmp_path / "rec"), *files))
    with pytest.raises(MarketFileError, match="but not SPY"):
        bench.line(market=(f"{tmp_path / 'rec'}:SPY",))
    (tmp_path / "empty").mkdir()
    with pytest.raises(MarketFileError, match="holds no recording"):
        bench.line(market=(str(tmp_path / "empty"),))


def test_a_recording_that_was_killed_ends_with_its_last_whole_bar(
    tmp_path: Path, scripted: type[Any]
) -> None:
    recorder = TickRecorder(tmp_path)
    sink = recorder.sink(Contract(conid=1, symbol="X", security_type=SecurityType.STOCK))
    for second in range(100):
        sink.push(
            Tick(
                START + second * 10**9, 1, None, None, None, None, 10.0, 1.0, 1.0, second + 1.0, DataQuality.REALTIME,
                False, 0,
            )
        )  # fmt: skip
    assert recorder.flush()
    feeds = [{"dataname": "X"}]
    # Read while it is written: it has no end yet.
    assert [row[5] for row in replayed(tmp_path, feeds, scripted).rows["X"]] == [60.0]
    recorder.close(time_ns=START + 110 * 10**9)
    assert [row[5] for row in replayed(tmp_path, feeds, scripted).rows["X"]] == [60.0]
    every = replayed(tmp_path, [{"dataname": "X", "unfinished": True}], scripted)
    assert [row[5] for row in every.rows["X"]] == [60.0, 40.0]
    assert epoch_ns(every.data.datetime[0]) == START + 120 * 10**9


def test_wrong_arguments_are_named(tmp_path: Path) -> None:
    with pytest.raises(MarketFileError, match="does not exist"):
        IBKRReplay(dataname=str(tmp_path / "nothing"))
    with pytest.raises(MarketFileError, match="needs the path"):
        IBKRReplay()
    recorder = TickRecorder(tmp_path)
    recorder.sink(Contract(conid=1, symbol="X", security_type=SecurityType.STOCK)).push(
        Tick(START, 1, 1.0, 1.1, 1.0, 1.0, 1.0, 1.0, 0.0, 1.0, DataQuality.REALTIME, False, 0)
    )
    recorder.close()
    with pytest.raises(UsageError, match="no price source"):
        IBKRReplay(dataname=str(tmp_path), timeframe=bt.TimeFrame.Minutes, what="NONSENSE")
    with pytest.raises(UsageError, match="bars of 2 Days are not built"):
        IBKRReplay(dataname=str(tmp_path), timeframe=bt.TimeFrame.Days, compression=2)
    with pytest.raises(UsageError, match="empty_bars='no' is not known"):
        IBKRReplay(dataname=str(tmp_path), timeframe=bt.TimeFrame.Minutes, empty_bars="no")
    with pytest.raises(UsageError, match="timeframe='minutes' is none of backtrader's"):
        IBKRReplay(dataname=str(tmp_path), timeframe="minutes")
    with pytest.raises(UsageError, match="useRTH='no' is neither True nor False"):
        IBKRReplay(dataname=str(tmp_path), timeframe=bt.TimeFrame.Minutes, useRTH="no")
    with pytest.raises(UsageError, match="no parameter bars"):
        IBKRReplay(dataname=str(tmp_path), bars=3)
    with pytest.raises(MarketFileError, match="no ticks that a market could play"):
        load_recording(tmp_path, open_universe(""))


def test_the_files_are_tick_tables(bench: Bench, tape: type[Tape], tmp_path: Path) -> None:
    """Any program reads them: null is as before, the first row is whole."""
    prices = market(tape, 3, 120)
    bench.run(bench.line(market=bench.market(AAPL=prices), store={"record": tmp_path / "rec"}))
    (file,) = (tmp_path / "rec").rglob("*.parquet")
    frame = pd.read_parquet(file)
    prints = frame[frame["traded"] > 0]
    sent = prices.frame()
    sent = sent[sent["last"].notna()]
    assert list(prints["last"]) == list(sent["last"])
    assert list(prints["last_size"]) == list(sent["last_size"])
    assert list(frame["bid"].ffill().iloc[[1, -1]]) == list(prices.frame()["bid"].ffill().iloc[[0, -1]])
