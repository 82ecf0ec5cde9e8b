"""``bt-ibkr history``: fetched from an emulator, listed, verified, exported; interrupted and gone on with."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from bt_ibkr.archive import Archive
from bt_ibkr.emulator.control.arguments import convert
from bt_ibkr.emulator.faults.specs import AnySpec
from bt_ibkr.emulator.settings import EmulatorSettings
from bt_ibkr.emulator.testing import EmulatorThread

DAYS = 6
#: Market time is Monday 2026-03-02, 14:30 UTC, and stands still.
SETTINGS = EmulatorSettings(
    speed="lockstep",
    synthetic_instruments=("AAPL", "EUR.USD"),
    history_days=DAYS,
    pacing="strict",
    pacing_speed=600.0,
)
AAPL = 265598
FROM = "2026-02-20"


@pytest.fixture(scope="module")
def emulator() -> Iterator[EmulatorThread]:
    with EmulatorThread(SETTINGS) as thread:
        yield thread


@pytest.fixture
def history(here: Any, emulator: EmulatorThread, tmp_path: Path) -> Callable[..., Any]:
    """A command of ``history`` on this emulator and a folder of the test."""

    def run(*words: str, code: int = 0) -> Any:
        where = ("--gateway", emulator.url) if words[0] == "download" else ()
        ended = here("history", *words, *where, "--dir", str(tmp_path / "bars"), "--json")
        assert ended.code == code, ended.err
        return json.loads(ended.out)

    return run


def test_download_list_verify_export(
    history: Callable[..., Any], emulator: EmulatorThread, tmp_path: Path
) -> None:
    (row,) = history("download", "AAPL", "--from", FROM)["series"]
    assert row["bars"] == DAYS * 390
    assert row["corrections"] == []
    assert row["adjusted"] == "for splits, not for dividends"
    # Eight days of New York, one request each, and one to see how answers are cut.
    assert row["requests"] <= 9
    (listed,) = history("list")["series"]
    assert (listed["contract"], listed["bars"], listed["hours"]) == ("AAPL-STK-SMART-USD", DAYS * 390, "all")
    assert listed["holes"] == []
    assert history("verify")["whole"]
    # Again: nothing is asked.
    asked = emulator.call(lambda server: server.core.pacing.requests)
    (again,) = history("download", "AAPL", "--from", FROM)["series"]
    assert (again["bars"], again["corrections"], again["missing"]) == (again["bars"], [], [])
    new = emulator.call(lambda server: server.core.pacing.rows(asked, 1000))
    assert sum("history" in one["path"] for one in new) <= 2
    # Exported, both ways.
    table = history("export", "AAPL", "--out", "a.csv")
    assert table["bars"] == DAYS * 390
    history("export", "AAPL", "--out", "a.parquet")
    text = pd.read_csv("a.csv", parse_dates=["end", "start"], index_col="end")
    whole = pd.read_parquet("a.parquet")
    assert (text["close"].to_numpy() == whole["close"].to_numpy()).all()
    assert (text.index == whole.index).all()
    assert (whole.index - whole["start"] == pd.Timedelta(minutes=1)).all()
    # And damaged.
    (file,) = [one.files()[0] for one in Archive(tmp_path / "bars").all()]
    file.write_bytes(file.read_bytes()[:-50])
    told = history("verify", code=12)
    assert "cannot be read" in told["series"][0]["problems"][0]


def test_what_is_stored_is_what_the_market_was(
    history: Callable[..., Any], emulator: EmulatorThread, tmp_path: Path
) -> None:
    history("download", "AAPL", "EUR.USD", "--from", FROM, "--source", "midpoint")
    for conid in (AAPL, 12087792):
        (series,) = [one for one in Archive(tmp_path / "bars").all() if one.key.conid == conid]
        real = emulator.call(
            lambda server, conid=conid: server.core.engine.history(  # type: ignore[misc]
                conid,
                0,
                server.core.now_ns // 60_000_000_000 * 60_000_000_000,
                60_000_000_000,
                "midpoint",
                False,
            )
        )
        assert series.read().bars() == real
        assert len(real) == DAYS * 390


def test_days(history: Callable[..., Any], tmp_path: Path) -> None:
    """Daily bars end with their session; the day under way is none yet."""
    history("download", "AAPL", "--from", FROM, "--bar", "1d", "--rth")
    (series,) = Archive(tmp_path / "bars").all()
    found = series.read()
    assert found.size == DAYS
    assert set((found.end - found.start).tolist()) == {390 * 60_000_000_000}


def test_a_correction_is_told(history: Callable[..., Any], emulator: EmulatorThread, tmp_path: Path) -> None:
    history("download", "AAPL", "--from", FROM)
    (series,) = Archive(tmp_path / "bars").all()
    bar = series.read().bars()[700]
    fault = {
        "kind": "bar_correction",
        "conid": AAPL,
        "start_ns": bar.start_ns,
        "close": bar.low,
        "volume": 5.0,
    }
    emulator.call(lambda server: server.core.faults.begin(_spec(fault)))
    try:
        (row,) = history("download", "AAPL", "--from", FROM, "--refresh")["series"]
    finally:
        emulator.call(lambda server: server.core.faults.clear())
    (told,) = row["corrections"]
    assert told["old"][3:] == [bar.close, bar.volume]
    assert told["new"][3] == bar.low


@pytest.mark.parametrize("columns", [80, 120])
def test_the_list_is_readable_in_a_terminal(
    here: Any, history: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    history("download", "AAPL", "EUR.USD", "--from", "2026-02-27", "--source", "midpoint")
    history("download", "AAPL", "--from", "2026-02-27")
    monkeypatch.setenv("COLUMNS", str(columns))
    lines = here("history", "list", "--dir", str(tmp_path / "bars")).out.splitlines()
    assert max(map(len, lines[1:])) <= columns
    (pair,) = [line for line in lines if "EUR.USD-CASH-IDEALPRO-USD" in line]
    assert "midpoint" in pair
    assert "2026-02-27" in pair
    assert "2026-03-02" in pair
    assert sum("AAPL-STK-SMART-USD  " in line for line in lines) == 2
    assert {
        "trades: adjusted for splits, not for dividends",
        "midpoint: adjustment not stated by IBKR",
    } <= set(lines)


def test_for_people(here: Any, emulator: EmulatorThread, tmp_path: Path) -> None:
    folder = ("--dir", str(tmp_path / "bars"))
    ended = here("history", "download", "AAPL", "--from", "2026-02-26", "--gateway", emulator.url, *folder)
    assert ended.code == 0, ended.err
    assert "requests into" in ended.out
    assert "IBKR's limits allow no less than" in ended.out
    assert "AAPL-STK-SMART-USD" in here("history", "list", *folder).out
    assert "whole" in here("history", "verify", "AAPL", *folder).out


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (("download", "AAPL"), 2, "--from is missing"),
        (("download", "AAPL", "--from", FROM, "--bar", "7min"), 2, "7min"),
        (("download", "AAPL", "--from", FROM, "--source", "mid"), 2, "mid"),
        (("download", "AAPL", "--from", "2030-01-01"), 2, "--from lies in the future"),
        (("download", "AAPLL", "--from", FROM), 4, "AAPLL"),
        (("verify",), 12, "No such bars"),
        (("export", "AAPL", "--out", "a.csv"), 12, "No such bars"),
        (("export", "AAPL"), 2, "--out is missing"),
    ],
)
def test_errors(history: Callable[..., Any], words: tuple[str, ...], code: int, text: str) -> None:
    assert text in history(*words, code=code)["errors"][0]


def test_interrupted_and_gone_on_with(start: Any, here: Any, tmp_path: Path) -> None:
    """Ctrl-C in the middle: what has come is stored; the same command fetches the rest, and no more."""
    words = ["history", "download", "AAPL", "--from", FROM, "--dir", str(tmp_path / "bars"), "--json"]
    with EmulatorThread(SETTINGS) as emulator:
        # The fourth page hangs.
        emulator.call(
            lambda server: server.core.faults.begin(
                _spec({"kind": "http", "action": "hold", "path": "/iserver/marketdata/history", "skip": 3})
            )
        )
        started = start(*words, "--gateway", emulator.url)
        _until(lambda: _rows(tmp_path) >= 390)
        started.process.send_signal(signal.SIGINT)
        ended = started.end()
        assert ended.code == 130, ended.err
        assert json.loads(ended.out)["errors"] == ["interrupted"]
        kept = _rows(tmp_path)
        assert 390 <= kept < DAYS * 390
        emulator.call(lambda server: server.core.faults.clear())
        (row,) = json.loads(here(*words, "--gateway", emulator.url).out)["series"]
        assert row["missing"] == []
        assert _rows(tmp_path) == DAYS * 390
        assert json.loads(here("history", "verify", "--dir", str(tmp_path / "bars"), "--json").out)["whole"]


def _spec(value: dict[str, Any]) -> Any:
    kinds: Any = AnySpec
    return convert(value, kinds)


def _rows(folder: Path) -> int:
    return sum(one.read().size for one in Archive(folder / "bars").all())


def _until(reached: Callable[[], bool]) -> None:
    ends = time.monotonic() + 30
    while not reached():
        assert time.monotonic() < ends
        time.sleep(0.02)


def test_a_backtest_over_the_archive(
    history: Callable[..., Any], here: Any, tmp_path: Path, emulator: EmulatorThread
) -> None:
    """The run sees every stored bar, whichever hours are stored; bounds count."""
    folder = str(tmp_path / "bars")
    history("download", "AAPL", "--from", FROM)
    words = ("run", "sma_cross", "--mode", "backtest", "--history", folder, "--data", "AAPL", "--json")
    whole = json.loads(here(*words).out)
    assert whole["errors"] == []
    assert whole["bars"] > DAYS * 390 - 60
    part = json.loads(here(*words, "--from", "2026-02-26", "--to", "2026-02-27").out)
    assert part["bars"] == 390
    history("download", "AAPL", "--from", FROM, "--bar", "1d", "--rth")
    assert here(*words, "--bar", "1d").code == 0
    for more, text in (
        (("--bar", "5min"), "No such bars"),
        (("--market", "x.parquet"), "--market"),
        (("--mode", "sim"), "--history means nothing"),
    ):
        assert text in json.loads(here(*words, *more).out)["errors"][0]


def test_an_export_of_nothing_leaves_what_was_there(history: Callable[..., Any], tmp_path: Path) -> None:
    history("download", "AAPL", "--from", "2026-02-26", "--to", "2026-02-27")
    out = tmp_path / "a.csv"
    out.write_text("of before")
    words = ("export", "AAPL", "--out", str(out))
    wrong = history(*words, "--from", "2026-02-27", "--to", "2026-02-26", code=2)
    assert "--from is not before --to" in wrong["errors"][0]
    assert "No bars are stored in that span" in history(*words, "--from", "2030-01-01", code=12)["errors"][0]
    assert out.read_text() == "of before"
    assert sorted(path.name for path in tmp_path.glob("*a.csv*")) == ["a.csv"]


def test_bars_of_an_emulator_are_told_from_ibkrs(history: Callable[..., Any], tmp_path: Path) -> None:
    history("download", "AAPL", "--from", "2026-02-27")
    assert (tmp_path / "bars" / "_emulator.txt").exists()
    # As if these bars had come from IBKR.
    (tmp_path / "bars" / "_emulator.txt").unlink()
    refused = history("download", "AAPL", "--from", "2026-02-26", code=12)
    assert "holds bars of IBKR; these would come from an emulator" in refused["errors"][0]


def test_one_exchange_is_not_the_whole_market(history: Callable[..., Any]) -> None:
    span = ("--from", "2026-02-26", "--to", "2026-02-27")
    for name in ("AAPL", "AAPL@NASDAQ"):
        (row,) = history("download", name, *span)["series"]
        assert row["bars"] == 390
    assert [row["contract"] for row in history("list")["series"]] == [
        "AAPL-STK-SMART-USD",
        "AAPL-STK-NASDAQ-USD",
    ]


def test_a_damaged_series_hides_no_other(history: Callable[..., Any], tmp_path: Path) -> None:
    span = ("--from", "2026-02-26", "--to", "2026-02-27")
    history("download", "AAPL", *span)
    history("download", "EUR.USD", *span, "--bar", "1h")
    (ledger,) = (tmp_path / "bars").glob("conid=265598/**/_series.json")
    ledger.write_text("{")
    listed = history("list", code=12)
    assert [row["contract"] for row in listed["series"]] == ["EUR.USD-CASH-IDEALPRO-USD"]
    assert "_series.json cannot be read" in listed["errors"][0]


def test_a_long_suspension_hides_no_older_bars(here: Any, bench: Any, tape: Any, tmp_path: Path) -> None:
    """Two years without a trade: taken for the time before the first one, until something older is known."""
    prices = tape()
    for day in (0, 730):
        for minute in range(0, 300, 20):
            prices.trade(day * 86_400 + minute * 60 + 5, 100.0 + minute / 100)
    line = bench.line(market=bench.market(AAPL=prices), smd_lifetime_s=0.0)
    line.step(bench.opening(731 * 86_400))

    def download(start: str, end: str, *more: str, folder: str) -> Any:
        ended = here(
            "history", "download", "AAPL", "--bar", "1h", "--from", start, "--to", end, *more,
            "--gateway", line.emulator.url, "--dir", str(tmp_path / folder), "--json",
        )  # fmt: skip
        assert ended.code == 0, ended.err
        (row,) = json.loads(ended.out)["series"]
        return row

    def stored(folder: str) -> int:
        (series,) = Archive(tmp_path / folder).all()
        return int(series.read().size)

    whole = ("2026-03-01", "2028-03-02")
    # What is older is stored first: nothing is taken for the beginning.
    download("2026-03-01", "2026-03-05", folder="a")
    old = stored("a")
    assert old
    row = download(*whole, folder="a")
    assert row["begins"] is None
    assert row["missing"] == []
    new = stored("a") - old
    assert new
    # All at once: it stops in the suspension, and says so; to refresh is to ask again.
    row = download(*whole, folder="b")
    assert row["begins"] is not None
    assert stored("b") == new
    row = download(*whole, "--refresh", folder="b")
    assert row["begins"] is None
    assert stored("b") == old + new
