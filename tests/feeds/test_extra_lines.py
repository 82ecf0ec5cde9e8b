"""Further lines by choice, and what kind of prices a feed delivers."""

from __future__ import annotations

from math import isnan
from typing import TYPE_CHECKING, Any

import backtrader as bt
import pytest

from bt_ibkr.feeds.standing import standing
from bt_ibkr.model.market import DataQuality

if TYPE_CHECKING:
    from tests.conftest import Bench, Tape


def seen(lines: tuple[str, ...], found: list[tuple[Any, ...]]) -> Any:
    def look(strategy: Any) -> None:
        data = strategy.data
        moment = bt.num2date(data.datetime[0]).strftime("%H:%M:%S")
        found.append((moment, data.close[0], *(getattr(data.lines, name)[0] for name in lines)))

    return look


def test_quote_at_the_end_of_the_bar(bench: Bench, tape: type[Tape]) -> None:
    """Not the one that closed it; and what came from history has none."""
    prices = tape()
    for minute in range(6):
        prices.quote(60 * minute + 0.001, 99.0 + minute, 101.0 + minute, 500)
        prices.trade(60 * minute + 10, 100.0, 40)
        prices.quote(60 * minute + 50, 99.5 + minute, 101.5 + minute, 600)
    line = bench.line(market=bench.market(AAPL=prices))
    line.step(bench.opening(130))
    found: list[tuple[Any, ...]] = []
    lines = ("bid", "ask", "bid_size")
    bench.run(
        line,
        seen(lines, found),
        feeds=[{"dataname": "AAPL", "extra": lines, "backfill_start": True}],
    )
    assert [row[0] for row in found] == [f"14:{minute}:00" for minute in range(31, 37)]
    assert all(isnan(value) for row in found[:3] for value in row[2:])
    assert [row[2:] for row in found[3:]] == [
        (99.5 + minute, 101.5 + minute, 600.0) for minute in range(3, 6)
    ]


def test_lines_of_ticks(bench: Bench, tape: type[Tape]) -> None:
    prices = tape().quote(0, 99.0, 101.0).trade(1, 100.0).quote(2, 98.0, 102.0).trade(3, 99.0)
    found: list[tuple[Any, ...]] = []
    bench.run(
        bench.line(market=bench.market(AAPL=prices)),
        seen(("bid", "ask"), found),
        feeds=[{"dataname": "AAPL", "timeframe": bt.TimeFrame.Ticks, "extra": ("bid", "ask")}],
    )
    assert [row[1:] for row in found] == [(100.0, 99.0, 101.0), (99.0, 98.0, 102.0)]


def test_feeds_without_further_lines_have_none(bench: Bench, tape: type[Tape]) -> None:
    line = bench.line(market=bench.market(AAPL=tape().every_second(5, lambda s: 1.0)))
    plain = line.store.getdata(dataname="AAPL")
    more = line.store.getdata(dataname="AAPL", extra="bid")
    assert type(more) is type(line.store.getdata(dataname="AAPL", extra=["bid"]))
    assert "bid" in more.lines.getlinealiases()
    assert "bid" not in plain.lines.getlinealiases()


def told(run: Any) -> list[tuple[str, tuple[Any, ...]]]:
    return list(run.strategy.statuses_seen)


class Listening(bt.Strategy):  # type: ignore[misc]
    """Keeps data notifications with their reasons, and acts on the emulator between bars."""

    params = (("act", None),)

    def __init__(self) -> None:
        self.statuses_seen: list[tuple[str, tuple[Any, ...]]] = []
        self.rows: dict[str, list[Any]] = {}

    def next(self) -> None:
        self.p.act(self)

    def notify_data(self, data: Any, status: int, *args: Any, **kwargs: Any) -> None:
        self.statuses_seen.append((data._getstatusname(status), args))


def test_halt_is_told_and_cleared(bench: Bench, tape: type[Tape]) -> None:
    line = bench.line(market=bench.market(AAPL=tape().every_second(600, lambda s: 100.0 + s % 3)))

    def act(strategy: Any) -> None:
        if len(strategy) in (2, 4):
            line.control.post("/halt", {"conid": 265598, "on": len(strategy) == 2})

    run = bench.run(line, strategy=Listening, act=act, feeds=[{"dataname": "AAPL"}])
    assert told(run) == [
        ("CONNECTED", ()),
        ("LIVE", ()),
        ("DELAYED", ("trading is halted",)),
        ("LIVE", ()),
        ("DISCONNECTED", ()),
    ]


@pytest.mark.parametrize(
    ("quality", "status", "word"),
    [
        (DataQuality.REALTIME, bt.DataBase.LIVE, ""),
        (DataQuality.EXEMPT, bt.DataBase.LIVE, ""),
        (DataQuality.DELAYED, bt.DataBase.DELAYED, "delayed"),
        (DataQuality.FROZEN, bt.DataBase.DELAYED, "frozen"),
        (DataQuality.FROZEN_DELAYED, bt.DataBase.DELAYED, "frozen and delayed"),
        (DataQuality.INCOMPLETE, bt.DataBase.DELAYED, "incomplete"),
        (DataQuality.NOT_SUBSCRIBED, bt.DataBase.NOTSUBSCRIBED, "subscription"),
        (DataQuality.NO_ACKNOWLEDGEMENT, bt.DataBase.NOTSUBSCRIBED, "acknowledged"),
    ],
)
def test_every_quality_has_its_status(quality: DataQuality, status: int, word: str) -> None:
    assert (standing(quality, halted=False)[0] == bt.DataBase.LIVE) is quality.live
    found, reason = standing(quality, halted=False)
    assert found == status
    assert word in reason
    assert bool(reason) is not quality.live
    assert standing(quality, halted=True)[0] != bt.DataBase.LIVE


def test_another_reason_is_told_too(bench: Bench, tape: type[Tape]) -> None:
    """backtrader swallows a status that is the same as before."""
    line = bench.line(market=bench.market(AAPL=tape().every_second(600, lambda s: 100.0 + s % 3)))

    def act(strategy: Any) -> None:
        if len(strategy) == 2:
            line.control.post("/fault", {"kind": "quality", "code": "iB"})
        elif len(strategy) == 4:
            line.control.post("/clear_faults", {})
            line.control.post("/halt", {"conid": 265598, "on": True})

    run = bench.run(line, strategy=Listening, act=act, feeds=[{"dataname": "AAPL"}])
    reasons = [args[0] for status, args in told(run) if args]
    assert reasons[0] == "the market data is incomplete"
    assert reasons[-1] == "trading is halted"
