"""``run --mode paper`` and ``live``, and ``doctor``, as typed on a command line."""

from __future__ import annotations

import io
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from bt_ibkr.emulator.settings import EmulatorSettings
from bt_ibkr.emulator.testing import EmulatorThread

Emulate = Callable[..., EmulatorThread]
#: Half an hour after the opening.
SHORT = ("--data", "AAPL", "--set", "fast=2", "--set", "slow=5", "--to", "2026-03-02T15:00")
TELLS = (
    "import backtrader as bt\n"
    "class Tells(bt.Strategy):\n"
    "    def next(self):\n"
    "        if self.data.current and not self.position and not getattr(self, 'bought', None):\n"
    "            self.bought = self.buy(size=1)\n"
    "    def notify_order(self, order):\n"
    "        if order.status == order.Completed: print('bought', flush=True)\n"
)


@pytest.fixture
def emulate() -> Iterator[Emulate]:
    with ExitStack() as stack:

        def start(*accounts: str, **settings: Any) -> EmulatorThread:
            plain: dict[str, Any] = {
                "accounts": accounts,
                "speed": "lockstep",
                "pacing": "off",
                # IBKR's five seconds between two looks at the orders take a quarter of one here.
                "pacing_speed": 20.0,
                "conflation_ms": 0,
                "synthetic_instruments": ("AAPL",),
            }
            return stack.enter_context(EmulatorThread(EmulatorSettings(**(plain | settings))))

        yield start


class Terminal(io.StringIO):
    """Somebody who types."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    return lambda text: monkeypatch.setattr(sys, "stdin", Terminal(text + "\n"))


def orders(emulator: EmulatorThread) -> list[Any]:
    found: list[Any] = emulator.call(lambda server: server.core.engine.ledger())["orders"]
    return found


def test_paper_shows_its_banner_first_and_trades(emulate: Emulate, here: Any) -> None:
    emulator = emulate("DU1111111")
    ended = here("run", "sma_cross", "--mode", "paper", "--gateway", emulator.url, *SHORT)
    assert ended.code == 0, ended.err
    banner = ended.out.split("submitted")[0]
    for word in ("Mode paper", "DU1111111", emulator.url, "(gateway)", "realtime (RpB)"):
        assert word in banner
    assert "SmaCross in mode paper" in ended.out
    assert orders(emulator)


def test_live_in_a_script(emulate: Emulate, here: Any) -> None:
    emulator = emulate("U1111111", "U2222222")
    words = ("--account", "U2222222", "--yes-live", "U2222222", "--json")
    ended = here("run", "sma_cross", "--mode", "live", "--gateway", emulator.url, *SHORT, *words)
    assert ended.code == 0, ended.err
    told = json.loads(ended.out)
    assert (told["mode"], told["errors"]) == ("live", [])
    assert told["executions"]
    for word in ("Mode live", "real money", "U2222222"):
        assert word in ended.err
    assert {order["account"] for order in orders(emulator)} == {"U2222222"}


def test_live_on_a_terminal(emulate: Emulate, here: Any, typed: Callable[[str], None]) -> None:
    emulator = emulate("U1111111")
    words = ("run", "sma_cross", "--mode", "live", "--gateway", emulator.url, "--account", "U1111111", *SHORT)
    typed("U1111112")
    refused = here(*words)
    assert refused.code == 2
    assert "'U1111112' was confirmed" in refused.err
    assert orders(emulator) == []
    typed("U1111111")
    ended = here(*words)
    assert ended.code == 0, ended.err
    assert "Type the account id (U1111111)" in ended.out
    assert orders(emulator)


REFUSED: dict[str, tuple[tuple[str, ...], tuple[str, ...], str]] = {
    "paper on a live account": (("U1111111",), ("--mode", "paper"), "is a live account"),
    "live on a paper account": (
        ("DU1111111",), ("--mode", "live", "--yes-live", "DU1111111"), "is a paper account",
    ),
    "live without a terminal": (
        ("U1111111",), ("--mode", "live", "--account", "U1111111"), "nobody confirmed",
    ),
    "live without an account": (("U1111111",), ("--mode", "live"), "no account was named"),
    "live with another confirmation": (
        ("U1111111", "U2222222"),
        ("--mode", "live", "--account", "U1111111", "--yes-live", "U2222222"),
        "was confirmed",
    ),
    "live in an account of others": (
        ("U1111111",), ("--mode", "live", "--yes-live", "U9999999"), "not one of this login's",
    ),
    "paper with a confirmation": (("DU1111111",), ("--mode", "paper", "--yes-live", "DU1111111"), "not live"),
    "sim with an account": (("DU1111111",), ("--mode", "sim", "--account", "DU1111111"), "mean nothing"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refused(emulate: Emulate, here: Any, monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    accounts, words, says = REFUSED[case]
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    emulator = emulate(*accounts)
    ended = here("run", "sma_cross", "--gateway", emulator.url, *SHORT, *words)
    assert ended.code == 2
    assert says in ended.err
    assert "remedy:" in ended.err
    assert orders(emulator) == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_it_in_order(
    emulate: Emulate, start: Any, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    emulator = emulate("DU1111111", speed=60.0)
    (tmp_path / "tells.py").write_text(TELLS)
    words = ("--mode", "paper", "--gateway", emulator.url, "--data", "AAPL", "--bar", "5s")
    running = start("run", "tells.py", *words)
    running.until("bought")
    running.process.send_signal(number)
    ended = running.end(10)
    assert ended.code == code
    assert "Tells in mode paper" in ended.out
    assert "Traceback" not in ended.err
    assert not ended.left


@pytest.mark.skipif(os.name != "posix", reason="needs a pseudo-terminal")
def test_interrupt_at_the_question(emulate: Emulate, start: Any) -> None:
    import pty
    import subprocess

    emulator = emulate("U1111111")
    leader, follower = pty.openpty()
    words = ("run", "sma_cross", "--mode", "live", "--gateway", emulator.url, "--account", "U1111111", *SHORT)
    process = subprocess.Popen(
        [sys.executable, "-m", "bt_ibkr.cli.main", *words],
        stdin=follower,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2]), "COLUMNS": "200"},
    )
    try:
        assert process.stdout is not None
        said = b""
        while b"Type the account id" not in said:
            piece = os.read(process.stdout.fileno(), 4096)
            assert piece, process.communicate()[1]
            said += piece
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
        assert process.returncode == 130, err
        assert b"Traceback" not in err
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()
        os.close(leader)
        os.close(follower)
    assert orders(emulator) == []


def test_who_is_waited_for_is_told_what_to_open(emulate: Emulate, start: Any, tmp_path: Path) -> None:
    """Nobody is logged in: the address of the page is shown, and the run begins when somebody is."""
    emulator = emulate("DU1111111", login="logged_out")
    login = tmp_path / "login.toml"
    login.write_text('provider = "gateway"\nwait_s = 50\npoll_s = 0.05\n')
    login.chmod(0o600)
    words = ("--mode", "paper", "--gateway", emulator.url, "--login", str(login), *SHORT)
    running = start("run", "sma_cross", *words)
    page = emulator.url.removesuffix("/v1/api")
    told = ""
    while f"open={page}" not in told:
        told = running.process.stderr.readline()
        assert told, "it ended without a word"
    emulator.do("session", state="ready")
    ended = running.end()
    assert ended.code == 0, ended.err
    assert orders(emulator)


@pytest.mark.parametrize("policy", ["yield", "ask"])
def test_the_session_of_another_login_is_left_alone(emulate: Emulate, here: Any, policy: str) -> None:
    emulator = emulate("DU1111111")
    emulator.fault("compete")
    words = ("run", "sma_cross", "--mode", "paper", "--gateway", emulator.url, *SHORT)
    refused = here(*words, "--competing", policy)
    assert refused.code == 8, refused.err
    assert "--competing take_over_once" in refused.err
    assert emulator.call(lambda server: server.core.session.competing)
    assert orders(emulator) == []
    ended = here(*words, "--competing", "take_over_once", "--region", "asia")
    assert ended.code == 0, ended.err
    assert orders(emulator)


def test_a_feed_beyond_the_lines_is_refused(emulate: Emulate, here: Any) -> None:
    emulator = emulate("DU1111111", synthetic_instruments=("AAPL", "MSFT"))
    words = ("run", "pairs", "--mode", "paper", "--gateway", emulator.url, "--data", "AAPL", "--data", "MSFT")
    refused = here(*words, "--lines", "1", "--clear-lines", "never")
    assert refused.code == 6, refused.err
    assert "1 of 1 are in use: AAPL" in refused.err
    assert "lines_overflow='snapshots'" in refused.err
    assert not [r for r in emulator.do("requests")["requests"] if r["path"].endswith("unsubscribeall")]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--mode", "sim", "--competing", "yield"), "mean nothing"),
        (("--mode", "backtest", "--region", "asia"), "mean nothing"),
        (("--mode", "paper", "--competing", "fight"), "'fight' is no policy"),
        (("--mode", "sim", "--lines", "5"), "mean nothing"),
        (("--mode", "paper", "--lines-overflow", "burst"), "'burst' is no policy"),
        (("--mode", "paper", "--clear-lines", "mine"), "'mine' is no policy"),
        (("--mode", "paper", "--region", "mars"), "'mars'"),
    ],
)
def test_policies_that_are_none(emulate: Emulate, here: Any, words: tuple[str, ...], says: str) -> None:
    emulator = emulate("DU1111111")
    ended = here("run", "sma_cross", "--gateway", emulator.url, *SHORT, *words)
    assert ended.code == 2
    assert says in ended.err
    assert "remedy:" in ended.err
    assert emulator.call(lambda server: server.core.pacing.requests) == 0 or "mars" in words


def test_login_file(emulate: Emulate, here: Any, tmp_path: Path) -> None:
    emulator = emulate("DU1111111")
    login = tmp_path / "login.toml"
    login.write_text('provider = "none"\n')
    login.chmod(0o600)
    words = ("--mode", "paper", "--gateway", emulator.url, "--login", str(login))
    ended = here("run", "sma_cross", *words, *SHORT)
    assert ended.code == 0, ended.err
    assert "(none)" in ended.out
    login.write_text('provider = "none"\npassword = "hunter2"\n')
    ended = here("run", "sma_cross", *words, *SHORT)
    assert ended.code == 2
    assert "hunter2" not in ended.err


def test_doctor(emulate: Emulate, here: Any) -> None:
    emulator = emulate("DU1111111")
    ended = here("doctor", "--gateway", emulator.url)
    assert ended.code == 0, ended.out
    assert ended.out.endswith("healthy\n")
    assert "DU1111111 is a paper account" in ended.out


def test_doctor_as_json_of_a_gateway_that_is_not_there(here: Any) -> None:
    ended = here("doctor", "--gateway", "http://127.0.0.1:9/v1/api", "--json")
    assert ended.code == 1
    told = json.loads(ended.out)
    assert told["healthy"] is False
    assert told["rows"][0]["status"] == "fail"
    assert told["rows"][0]["remedy"]
    assert {row["status"] for row in told["rows"]} <= {"ok", "warn", "fail", "skip"}
