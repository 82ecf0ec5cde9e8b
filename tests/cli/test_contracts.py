"""``bt-ibkr contracts``: typed at an emulator with every type of contract."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from bt_ibkr.emulator.settings import EmulatorSettings
from bt_ibkr.emulator.testing import EmulatorThread
from bt_ibkr.services.contract_cache import ContractCache, cache_path
from bt_ibkr.services.datanames import parse_dataname

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture(scope="module")
def emulator() -> Iterator[EmulatorThread]:
    settings = EmulatorSettings(
        accounts=("DU1",),
        speed="lockstep",
        pacing="off",
        pacing_speed=20.0,
        synthetic_day="2026-03-02",
        synthetic_instruments=("AAPL",),
        history_days=0,
    )
    with EmulatorThread(settings) as running:
        running.call(lambda server: server.drive.step(until_ns=None, max_events=50, received={}))
        yield running


@pytest.fixture
def told(emulator: EmulatorThread, here: Any) -> Callable[..., Any]:
    """A command at this gateway, with ``--json``, taken apart."""

    def run(*words: str, code: int = 0) -> Any:
        ended = here("contracts", *words, "--gateway", emulator.url, "--json")
        assert ended.code == code, ended.err + ended.out
        return json.loads(ended.out)

    return run


def test_search(told: Any, emulator: EmulatorThread, here: Any) -> None:
    found = told("search", "aapl")["found"]
    by_type = {one["security_type"]: one for one in found if one["exchange"] == "NASDAQ"}
    assert (by_type["STK"]["conid"], by_type["STK"]["dataname"]) == (265598, "AAPL-STK-NASDAQ")
    assert by_type["OPT"]["months"][0] == "MAR26"
    assert by_type["CFD"]["dataname"] == "AAPL-CFD"
    # What is said to write means what it says.
    for kind in ("STK", "CFD"):
        assert told("show", by_type[kind]["dataname"])["conid"] == by_type[kind]["conid"]
    assert {one["security_type"] for one in told("search", "ES")["found"]} >= {"FUT", "FOP"}
    assert any(one["security_type"] == "EVENT" for one in told("search", "fed funds")["found"])
    assert any(one["symbol"] == "AAPL" for one in told("search", "apple")["found"])
    assert told("search", "zzzzzz")["found"] == []
    ended = here("contracts", "search", "SPX", "--gateway", emulator.url)
    assert ended.code == 0
    assert "SPX-IND-CBOE" in ended.out
    assert "nothing answers" in here("contracts", "search", "zzzzzz", "--gateway", emulator.url).out


def test_show(told: Any, emulator: EmulatorThread, here: Any) -> None:
    stock = told("show", "AAPL")
    assert (stock["conid"], stock["tick_size"], stock["multiplier"]) == (265598, 0.01, 1.0)
    assert "limit" in stock["rules"]["order_types"]
    assert stock["rules"]["tradeable_accounts"] == ["DU1"]
    assert stock["time_zone"] == "America/New_York"
    monday = {"start": "2026-03-02T14:30:00.000Z", "end": "2026-03-02T21:00:00.000Z"}
    assert monday in stock["regular_hours"]
    front = told("show", "ES@CME front")
    assert front["continuous"] == "ES-CONTFUT-CME"
    assert front["last_trade_date"] == "20260320"
    assert front["roll_date"] < front["last_trade_date"]
    event = told("show", "FF 2027-01-27 YES 3.125")
    assert "3.125%" in event["event"]["question"]
    combo = told("show", "COMBO:AAPL*1,MSFT*-1")
    assert [leg["ratio"] for leg in combo["legs"]] == [1, -1]
    for name, words in (
        ("AAPL", ("265598", "Regular hours", "order types: limit")),
        ("ES@CME front", ("the front until", "50")),
        ("FF 2027-01-27 NO 3.125", ("is bought only", "question")),
        ("COMBO:AAPL*1,MSFT*-1", ("leg +1", "leg -1")),
    ):
        ended = here("contracts", "show", name, "--gateway", emulator.url)
        assert ended.code == 0, ended.err
        for word in words:
            assert word in ended.out, ended.out


def test_chain(told: Any, emulator: EmulatorThread, here: Any) -> None:
    wishes = ("--months", "MAR26,2026-04", "--strikes", "195:205", "--right", "call")
    chain = told("chain", "AAPL", *wishes)
    options = chain["options"]
    assert chain["underlying"]["conid"] == 265598
    assert {one["last_trade_date"][:6] for one in options} == {"202603", "202604"}
    assert {one["right"] for one in options} == {"C"}
    assert all(195 <= one["strike"] <= 205 for one in options)
    # Each can be written as it is told.
    one = options[0]
    assert told("show", one["dataname"])["conid"] == one["conid"]
    assert parse_dataname(one["dataname"]).strike == one["strike"]
    around = told("chain", "AAPL", "--months", "MAR26", "--strikes", "1")["options"]
    assert len({one["strike"] for one in around}) == 3
    early = ("--from", "2026-04-01", "--to", "2026-04-10", "--strikes", "200:200")
    assert told("chain", "AAPL", *early)["options"] == []
    ended = here("contracts", "chain", "AAPL", *wishes, "--gateway", emulator.url)
    assert ended.code == 0
    assert f"{len(options)}" in ended.out
    assert options[0]["last_trade_date"] in ended.out


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("show", "AAPL-"), 4, "is no security type"),
        (("show", "APPL"), 4, "AAPL-STK-NASDAQ (APPLE INC)"),
        (("show", "IBM-BOND"), 4, "is ambiguous"),
        (("search", ""), 2, "nothing to search for"),
        (("chain", "AAPL", "--months", "soon"), 2, "--months 'soon'"),
        (("chain", "AAPL", "--months", "2026-03-20"), 2, "is no month"),
        (("chain", "AAPL", "--from", "2026"), 2, "--from '2026'"),
        (("chain", "AAPL", "--strikes", "205:195"), 2, "--strikes '205:195'"),
        (("chain", "AAPL", "--strikes", "few"), 2, "--strikes 'few'"),
        (("chain", "AAPL", "--strikes", "-1"), 2, "around"),
        (("chain", "AAPL", "--right", "both"), 2, "--right 'both'"),
        (("chain", "AAPL", "--months", "JAN40"), 4, "no options in 204001"),
        (("chain", "EUR.USD"), 4, "has no options"),
        (("chain", "COMBO:AAPL*1,MSFT*-1"), 4, "is a combo"),
    ],
)
def test_what_cannot_be_shown(
    emulator: EmulatorThread, here: Any, words: tuple[str, ...], code: int, told: str
) -> None:
    ended = here("contracts", *words, "--gateway", emulator.url)
    assert ended.code == code, ended.err
    assert told in ended.err
    assert "remedy:" in ended.err


def test_an_interrupt_ends_a_chain_in_order(
    emulator: EmulatorThread, here: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bt_ibkr.services import chains

    real = chains.ChainService._rows

    async def interrupted(*given: Any) -> Any:
        signal.raise_signal(signal.SIGINT)
        return await real(*given)

    monkeypatch.setattr(chains.ChainService, "_rows", interrupted)
    ended = here("contracts", "chain", "AAPL", "--months", "MAR26", "--gateway", emulator.url, "--json")
    assert ended.code == 130
    assert json.loads(ended.out) == {"errors": ["interrupted"], "exit_code": 130}
    assert "goes on from there" in ended.err


def test_cache(here: Any) -> None:
    assert "holds nothing" in here("contracts", "cache").out
    kept = ContractCache(cache_path(), "https://localhost:5000/v1/api abc")
    kept.put("details", "a", b"12345")
    kept.close()
    shown = json.loads(here("contracts", "cache", "--json").out)
    assert shown["file"] == str(cache_path())
    (line,) = shown["entries"]
    assert (line["kind"], line["entries"], line["size"]) == ("details", 1, 5)
    assert "details" in here("contracts", "cache").out
    assert json.loads(here("contracts", "cache", "--clear", "--json").out) == {
        "file": str(cache_path()), "cleared": 1, "entries": [],
    }  # fmt: skip
    cache_path().write_bytes(b"no database" * 200)
    ended = here("contracts", "cache")
    assert ended.code == 2
    assert "Delete the file" in ended.err


def test_an_emulators_answers_are_not_kept(told: Any, home: Path) -> None:
    told("show", "AAPL")
    assert not (home / "contracts.sqlite").exists()
