"""A stream beyond the market-data lines is not refused but silent: it is not called live."""

from __future__ import annotations

import time
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import backtrader as bt
import msgspec
import pytest

from bt_ibkr.connection.backlog import TickBacklog

if TYPE_CHECKING:
    from bt_ibkr.emulator.server import EmulatorServer
    from tests.conftest import Bench, Tape

NAMES = ("AAPL", "IBM", "MSFT")


class Listening(bt.Strategy):  # type: ignore[misc]
    """Keeps what data tell of themselves, with the market's time, and acts at each bar."""

    params = (("act", None),)

    def __init__(self) -> None:
        self.heard: dict[str, list[tuple[str, str]]] = {name: [] for name in NAMES}
        self.when: dict[tuple[str, str], datetime] = {}
        self.bars = dict.fromkeys(NAMES, 0)
        self.live_first = True

    def prenext(self) -> None:
        self.next()

    def next(self) -> None:
        for data in self.datas:
            if len(data) > self.bars[data._name]:
                self.bars[data._name] = len(data)
                self.live_first = self.live_first and "LIVE" in dict(self.heard[data._name])
        if self.p.act is not None:
            self.p.act(self)

    def notify_data(self, data: Any, status: int, *args: Any, **kwargs: Any) -> None:
        word = data._getstatusname(status)
        self.heard[data._name].append((word, " ".join(map(str, args))))
        now_ns = data.p.store.connection.clock.now_ns()
        self.when[data._name, word] = datetime(1970, 1, 1) + timedelta(microseconds=now_ns // 1000)  # noqa: DTZ001


def markets(bench: Bench, tape: type[Tape]) -> tuple[str, ...]:
    return bench.market(**{name: tape().every_second(200, lambda s: 100.0 + s % 3) for name in NAMES})


@pytest.mark.parametrize("timeframe", [bt.TimeFrame.Ticks, bt.TimeFrame.Minutes])
@pytest.mark.parametrize("what", ["TRADES", "BID"])
def test_live_waits_for_the_first_frame(bench: Bench, tape: type[Tape], timeframe: int, what: str) -> None:
    line = bench.line(market=markets(bench, tape), market_data_lines=2)
    feeds = [{"dataname": name, "timeframe": timeframe, "what": what} for name in NAMES]
    strategy = bench.run(line, strategy=Listening, feeds=feeds).strategy
    for name in NAMES[:2]:
        assert [word for word, _ in strategy.heard[name]] == ["CONNECTED", "LIVE", "DISCONNECTED"]
        assert strategy.bars[name]
    words, reasons = zip(*strategy.heard["MSFT"], strict=True)
    assert words == ("CONNECTED", "NOTSUBSCRIBED", "DISCONNECTED")
    assert "no data came" in reasons[1]
    assert "lines" in reasons[1]
    assert strategy.bars["MSFT"] == 0
    assert strategy.live_first
    waited = strategy.when["MSFT", "NOTSUBSCRIBED"] - strategy.when["MSFT", "CONNECTED"]
    assert timedelta(seconds=10) <= waited < timedelta(seconds=15)


@pytest.mark.parametrize("timeframe", [bt.TimeFrame.Ticks, bt.TimeFrame.Minutes])
def test_frames_that_come_after_all_make_it_live(bench: Bench, tape: type[Tape], timeframe: int) -> None:
    line = bench.line(market=markets(bench, tape), market_data_lines=2)
    done: list[str] = []

    def act(strategy: Any) -> None:
        silent = strategy.datas[2]
        if done or "NOTSUBSCRIBED" not in dict(strategy.heard["MSFT"]):
            return
        done.append("freed")
        connection = line.store.connection
        connection.unsubscribe_ticks(strategy.datas[1].backlog)
        # To ask for more of it is to subscribe once more.
        connection.subscribe_ticks(silent.contract, TickBacklog(), frozenset({"change"}))

    feeds = [{"dataname": name, "timeframe": timeframe} for name in NAMES]
    strategy = bench.run(line, strategy=Listening, act=act, feeds=feeds).strategy
    assert [word for word, _ in strategy.heard["MSFT"]] == [
        "CONNECTED", "NOTSUBSCRIBED", "LIVE", "DISCONNECTED",
    ]  # fmt: skip
    assert strategy.bars["MSFT"]
    assert strategy.live_first


@pytest.mark.parametrize("timeframe", [bt.TimeFrame.Ticks, bt.TimeFrame.Minutes])
def test_a_line_that_is_gone_after_a_break(bench: Bench, tape: type[Tape], timeframe: int) -> None:
    """While the session was away somebody else took a market-data line: that stream is not live again."""
    line = bench.line(market=markets(bench, tape), session={"reconnect_first_s": 0.01})
    done: list[str] = []

    def fewer(server: EmulatorServer) -> None:
        server.core.settings = msgspec.structs.replace(server.core.settings, market_data_lines=2)

    def act(strategy: Any) -> None:
        if not done and len(strategy.datas[0]):
            done.append("broken")
            line.emulator.call(fewer)
            port = line.store.connection.progress().port
            line.control.post("/fault", {"kind": "ws_reset"})
            latest = time.monotonic() + 30.0
            while line.store.connection.progress().port in (0, port):
                assert time.monotonic() < latest
                line.store.wake.wait(0.01)

    feeds = [{"dataname": name, "timeframe": timeframe} for name in NAMES]
    strategy = bench.run(line, strategy=Listening, act=act, feeds=feeds).strategy
    words = {name: [word for word, _ in strategy.heard[name] if word != "DELAYED"] for name in NAMES}
    whole = ["CONNECTED", "LIVE", "CONNBROKEN", "LIVE", "DISCONNECTED"]
    silent = ["CONNECTED", "LIVE", "CONNBROKEN", "NOTSUBSCRIBED", "DISCONNECTED"]
    assert sorted(words.values()) == [whole, whole, silent]
