"""``bt-ibkr scan`` against an emulator."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from bt_ibkr.emulator.settings import EmulatorSettings
from bt_ibkr.emulator.testing import EmulatorThread


@pytest.fixture
def emulator() -> Iterator[EmulatorThread]:
    settings = EmulatorSettings(
        speed="lockstep", history_days=1, synthetic_instruments=("AAPL", "SPY", "MSFT"), pacing_speed=20.0
    )
    with EmulatorThread(settings) as made:
        made.call(lambda server: server.drive.step(until_ns=None, max_events=300, received={}))
        yield made


def test_rows(here: Any, emulator: EmulatorThread) -> None:
    ended = here(
        "scan", "MOST_ACTIVE", "--most", "2", "--filter", "priceAbove=1", "--gateway", emulator.url, "--json"
    )
    assert ended.code == 0, ended.err
    told = json.loads(ended.out)
    assert told["scan"]["filters"] == [["priceAbove", 1.0]]
    assert [row["rank"] for row in told["rows"]] == [1, 2]
    assert all(row["dataname"] == f"conid:{row['conid']}" for row in told["rows"])
    ended = here("scan", "MOST_ACTIVE", "--gateway", emulator.url)
    assert ended.code == 0
    assert "conid:265598" in ended.out
    assert "Volume" in ended.out


def test_codes(here: Any, emulator: EmulatorThread) -> None:
    for what, code in (("types", "TOP_PERC_GAIN"), ("locations", "STK.US.MAJOR"), ("filters", "priceAbove")):
        ended = here("scan", "--list", what, "--gateway", emulator.url, "--json")
        assert ended.code == 0, ended.err
        assert code in {row["code"] for row in json.loads(ended.out)[what]}
    assert "Most Active" in here("scan", "--list", "types", "--gateway", emulator.url).out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((), "nothing to rank by"),
        (("MOST_ACTIVE", "--filter", "priceAbove"), "CODE=VALUE"),
        (("MOST_ACTIVE", "--filter", "=5"), "CODE=VALUE"),
        (("--list", "all"), "types, instruments, locations, filters"),
    ],
)
def test_what_cannot_be_asked(here: Any, words: tuple[str, ...], told: str) -> None:
    ended = here("scan", *words)
    assert ended.code == 2
    assert told in ended.err


def test_a_wrong_code_names_near_ones(here: Any, emulator: EmulatorThread) -> None:
    ended = here("scan", "MOST_ACTIV", "--gateway", emulator.url)
    assert ended.code == 2
    assert "Did you mean MOST_ACTIVE" in ended.err
