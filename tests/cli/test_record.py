"""``bt-ibkr record``, ``run --record`` and recordings as markets, in processes of their own."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from bt_ibkr.app.tick_recording import parse_length
from bt_ibkr.errors import UsageError
from bt_ibkr.recorder import Recording, RowKind

if TYPE_CHECKING:
    from tests.conftest import Bench, Tape


def day(tape: type[Tape], seconds: int = 300) -> Tape:
    return tape().every_second(seconds, lambda s: 100.0 + s % 7 * 0.01)


def kinds(folder: Path, name: str = "") -> list[RowKind]:
    return [row.kind for row in Recording(folder).find(name).rows()]


def test_a_market_recorded_to_its_end_and_run_on(
    bench: Bench, tape: type[Tape], here: Callable[..., Any], tmp_path: Path
) -> None:
    """Nobody else moves the emulator's market: the recorder does."""
    line = bench.line(market=bench.market(AAPL=day(tape), EUR_USD=day(tape, 100)))
    folder = tmp_path / "rec"
    words = ("record", "AAPL", "EUR.USD-CASH-IDEALPRO", "--out", str(folder), "--gateway", line.emulator.url)
    ended = here(*words, "--json")
    assert ended.code == 0, ended.err
    told = json.loads(ended.out)
    assert [(one["name"], one["quality"]) for one in told["instruments"]] == [
        ("AAPL", "realtime"),
        ("EUR.USD-CASH-IDEALPRO", "realtime"),
    ]
    rows = kinds(folder, "AAPL")
    assert rows[0] is RowKind.PICTURE
    assert rows[-1] is RowKind.OVER
    assert told["instruments"][0]["ticks"] == len(rows) - 1 > 300
    assert (told["dropped"], told["gaps"], told["errors"], told["files"]) == (0, 0, [], 2)
    assert told["bytes"] == sum(file.stat().st_size for file in folder.rglob("*.parquet"))
    # The recording is a market, of a run and of a backtest.
    again = tmp_path / "again"
    strategy = (
        "run",
        "sma_cross",
        "--set",
        "fast=1",
        "--set",
        "slow=2",
        "--market",
        f"{folder}:AAPL",
        "--json",
    )
    sim = json.loads(here(*strategy, "--record", str(again)).out)
    assert sim["bars"] == 5
    assert sim["errors"] == []
    assert sim["recording"] == {
        "folder": str(again),
        "ticks": len(rows) - 1,
        "dropped": 0,
        "bytes": sum(file.stat().st_size for file in again.rglob("*.parquet")),
        "files": 1,
    }
    assert kinds(again) == rows
    assert json.loads(here(*strategy, "--mode", "backtest").out)["bars"] == 5


def test_bounds_and_several_sessions_in_a_folder(
    bench: Bench, tape: type[Tape], here: Callable[..., Any], tmp_path: Path
) -> None:
    line = bench.line(market=bench.market(AAPL=day(tape)))
    words = ("record", "AAPL", "--out", str(tmp_path / "rec"), "--gateway", line.emulator.url, "--json")
    first = json.loads(here(*words, "--for", "1min").out)
    second = json.loads(here(*words, "--until", "2026-03-02T14:33").out)
    assert (first["start"], first["end"]) == ("2026-03-02T14:30:00.000Z", "2026-03-02T14:31:00.000Z")
    assert (second["start"], second["end"]) == ("2026-03-02T14:31:00.000Z", "2026-03-02T14:33:00.000Z")
    found = [kind for kind in kinds(tmp_path / "rec") if kind is not RowKind.TICK]
    assert found == [RowKind.PICTURE, RowKind.END, RowKind.PICTURE, RowKind.END]


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="signals are those of POSIX")
def test_an_interrupt_ends_it_in_order(
    bench: Bench, tape: type[Tape], start: Callable[..., Any], tmp_path: Path
) -> None:
    line = bench.line(market=bench.market(AAPL=day(tape, 3600)), speed=20.0)
    running = start("record", "AAPL", "--out", str(tmp_path / "rec"), "--gateway", line.emulator.url)
    running.until("records   AAPL-STK-SMART-USD")
    running.process.send_signal(signal.SIGINT)
    ended = running.end()
    assert (ended.code, ended.err, ended.left) == (0, "", [])
    assert "Recorded into" in ended.out
    assert kinds(tmp_path / "rec")[-1] is RowKind.END


def test_what_cannot_be_recorded_is_said_before_anything_is_written(
    bench: Bench, tape: type[Tape], here: Callable[..., Any], tmp_path: Path
) -> None:
    line = bench.line(market=bench.market(AAPL=day(tape, 5)))
    out = ("--out", str(tmp_path / "rec"), "--gateway", line.emulator.url)
    assert here("record", "NOSUCH", *out).code == 4
    assert here("record", "AAPL", *out, "--mode", "live").code == 2
    twice = here("record", "AAPL", "AAPL", *out)
    assert twice.code == 2
    assert "second time" in twice.err
    assert "--out" in here("record", "AAPL").err
    late = here("record", "AAPL", *out, "--until", "2020-01-01")
    assert late.code == 2
    assert (
        "--until 2020-01-01T00:00:00.000Z has passed: it is 2026-03-02T14:30:00.000Z for the market"
        in late.err
    )
    # Where the machine's clock is the market's, before anybody logs on: nothing listens there.
    nowhere = ("--out", str(tmp_path / "rec"), "--gateway", "http://127.0.0.1:9/v1/api")
    assert here("record", "AAPL", *nowhere, "--until", "2020-01-01").code == 2
    refused = here("run", "sma_cross", "--mode", "backtest", "--record", str(tmp_path / "rec"))
    assert refused.code == 2
    assert "--record means nothing" in refused.err
    assert not list((tmp_path / "rec").rglob("*.parquet"))


@pytest.mark.parametrize(("text", "seconds"), [("30s", 30), ("90min", 5400), ("1.5h", 5400), ("1d", 86_400)])
def test_lengths(text: str, seconds: int) -> None:
    assert parse_length(text) == seconds * 10**9


@pytest.mark.parametrize("text", ["", "0s", "-1h", "2 weeks", "h"])
def test_no_lengths(text: str) -> None:
    with pytest.raises(UsageError, match="no length of time"):
        parse_length(text)
